//! What a look at a rollout costs: the built-in gate on the embedded store.
//!
//! Two versions serve side by side for half an hour, a sample every five seconds. A span series
//! is a counter and a native histogram with some 40 buckets, as ingest writes them for each
//! operation and status. An iteration judges many deployments, one after another; the evaluator
//! and the statistics start from nothing every time.
//!
//! `watch` is what the daemon does: a watcher over a thousand rollouts, each with a gate of ten
//! checks, looks at all of them every ten seconds and goes on from what it has kept. Its figure
//! is CPU time per round, and beside it stands that of judging from scratch.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use slogate::config::QuerySettings;
use slogate::deploy::{self, Deployments, DeploymentsOptions};
use slogate::judge::{Subject, Watcher, WatcherOptions, WatcherParts, judge};
use slogate::ledger::Ledger;
use slogate::model::{
    Artifact, Clock, Deployment, DeploymentId, ManualClock, Origin, Outcome, Phase, Target,
};
use slogate::policy::{self, PolicySet};
use slogate::record::Records;
use slogate::source::{EmbeddedSource, Sources};
use slogate_series::{Buckets, Histogram, Labels};
use slogate_tsdb::{Batch, FloatRow, HistogramRow, Options, SeriesRef, Store};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const T0_MS: i64 = 1_795_190_400_000;
const STEP_MS: i64 = 5_000;
const STEPS: i64 = 360;

const QUERIES: QuerySettings = QuerySettings {
    concurrency: 8,
    timeout_ms: 120_000,
    samples_max: 50_000_000,
    lookback_ms: 300_000,
};

/// A span series: requests of one operation of one version that ended in one way.
struct SpanSeries {
    calls: SeriesRef,
    durations: SeriesRef,
    requests_per_step: f64,
}

/// `services` services with `span_series` span series for each of versions 1 and 2.
fn filled(services: usize, span_series: usize) -> Arc<Store> {
    let (store, _) = Store::open(Options::default(), T0_MS).expect("an empty store opens");
    let mut all = Vec::new();
    let mut tagged = Vec::new();
    for service in 0..services {
        for version in ["1", "2"] {
            all.extend((0..span_series).map(|at| one(&store, service, version, at)));
        }
        tagged.push(coverage(&store, service));
    }
    for step in 1..=STEPS {
        let batch = samples(&all, &tagged, step);
        let rows = batch.floats.len() + batch.histograms.len();
        let report = store.append(&batch, T0_MS + step * STEP_MS);
        assert_eq!(report.expect("no log to fail").accepted, rows as u64);
    }
    Arc::new(store)
}

fn coverage(store: &Store, service: usize) -> SeriesRef {
    let labels = [
        ("__name__", "slogate_observability_items_total"),
        ("service_name", &name(service)),
        ("deployment_environment_name", "production"),
        ("signal", "spans"),
        ("artifact_identity", "true"),
    ];
    series(store, &labels)
}

fn status(is_error: bool) -> &'static str {
    match is_error {
        true => "STATUS_CODE_ERROR",
        false => "STATUS_CODE_UNSET",
    }
}

fn name(service: usize) -> String {
    format!("service-{service}")
}

fn series(store: &Store, labels: &[(&str, &str)]) -> SeriesRef {
    let labels = Labels::from_pairs(labels.iter().copied());
    store.series(&labels).expect("room for the series")
}

/// One of five requests fails to the same degree on both versions: 1 in 50.
fn one(store: &Store, service: usize, version: &str, at: usize) -> SpanSeries {
    let is_error = at % 5 == 4;
    let service = name(service);
    let operation = format!("GET /api/v1/route-{}", at / 5);
    let of = |metric: &str| {
        let labels = [
            ("__name__", metric),
            ("service_name", service.as_str()),
            ("service_version", version),
            ("deployment_environment_name", "production"),
            ("span_kind", "SPAN_KIND_SERVER"),
            ("span_name", &operation),
            ("status_code", status(is_error)),
        ];
        series(store, &labels)
    };
    SpanSeries {
        calls: of("traces_span_metrics_calls_total"),
        durations: of("traces_span_metrics_duration_seconds"),
        requests_per_step: if is_error { 3.0 } else { 40.0 },
    }
}

fn samples(all: &[SpanSeries], tagged: &[SeriesRef], step: i64) -> Batch {
    let t_ms = T0_MS + step * STEP_MS;
    let float = |series, value| FloatRow {
        series,
        t_ms,
        start_ms: T0_MS,
        value,
    };
    let mut batch = Batch::default();
    let totals = [3.0, 40.0].map(|per_step: f64| per_step * step as f64);
    let histograms = totals.map(|total| Arc::new(durations(total)));
    for one in all {
        let total = one.requests_per_step * step as f64;
        batch.floats.push(float(one.calls, total));
        let which = usize::from(one.requests_per_step > 3.0);
        batch.histograms.push(HistogramRow {
            series: one.durations,
            t_ms,
            start_ms: T0_MS,
            histogram: Arc::clone(&histograms[which]),
        });
    }
    batch
        .floats
        .extend(tagged.iter().map(|series| float(*series, step as f64)));
    batch
}

/// Durations around 20 ms, thinning out to both sides.
fn durations(total: f64) -> Histogram {
    let share = |at: i32| 0.11 * 0.9f64.powi(at.abs());
    let counts = (-20..20).map(|at| (total * share(at) / 2.0).floor());
    let count = counts.clone().sum();
    Histogram {
        schema: 4,
        zero_threshold: 2f64.powi(-128),
        count,
        sum: 0.02 * count,
        positive: Buckets::from_dense(-110, counts),
        ..Histogram::default()
    }
}

fn subject(service: usize) -> Subject {
    Subject {
        deployment: Arc::new(Deployment {
            id: DeploymentId(format!("{}-2", name(service))),
            target: Target::new(name(service), "production"),
            artifact: Artifact::of_version("2"),
            previous: Some(Artifact::of_version("1")),
            phase: Phase::Progressing,
            origin: Origin::Announced,
            correlation: None,
            created_ms: T0_MS,
            started_ms: Some(T0_MS),
            finished_ms: None,
            weight: None,
            steps: Vec::new(),
            rollback_of: None,
            rolled_back_by: None,
            superseded_by: None,
            partial_failures: 0,
            manual_changes: 0,
            first_alert_ms: None,
            actor: None,
            url: None,
            timeline: Vec::new(),
        }),
        history: Vec::new(),
    }
}

fn judgements(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let policies = policy::built_in();
    let gate = policies.gates.first().expect("a built-in gate");
    let now_ms = T0_MS + STEPS * STEP_MS;
    let mut group = c.benchmark_group("judge");
    // As many services as keep the setting up short; each has one deployment.
    for (span_series, services) in [(10, 100), (200, 5)] {
        group.throughput(Throughput::Elements(services as u64));
        let source = EmbeddedSource::new(filled(services, span_series), &QUERIES);
        let subjects: Vec<Subject> = (0..services).map(subject).collect();
        let id = BenchmarkId::new("span_series_per_version", span_series);
        group.bench_function(id, |b| {
            b.iter(|| {
                for subject in &subjects {
                    let verdict = runtime.block_on(judge(gate, subject, &source, now_ms));
                    assert_eq!(verdict.verdict, Outcome::Pass, "{}", verdict.message);
                    black_box(verdict);
                }
            });
        });
    }
    group.finish();
}

/// Six comparing checks, one of coverage, three queries.
const TEN_CHECKS: &str = r#"
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: ten }
spec:
  # Never done, so that every round looks at every rollout.
  soak: 59m
  checks:
    - name: errors
      compare: { sli: requests.errorRatio }
    - name: many-errors
      compare: { sli: requests.errorRatio, worseBy: { relative: 50% } }
    - name: p50
      compare: { sli: requests.duration, quantile: 0.5 }
    - name: p90
      compare: { sli: requests.duration, quantile: 0.9 }
    - name: p95
      compare: { sli: requests.duration, quantile: 0.95 }
    - name: p99
      compare: { sli: requests.duration, quantile: 0.99 }
    - name: tagged
      coverage: { atLeast: 95% }
    - name: rate
      query: sum(rate(traces_span_metrics_calls_total{service_name="$service", service_version="$version"}[1m]))
      above: 0
    - name: share
      query: sum(rate(traces_span_metrics_calls_total{service_name="$service", service_version="$version", status_code="STATUS_CODE_ERROR"}[5m])) / sum(rate(traces_span_metrics_calls_total{service_name="$service", service_version="$version"}[5m]))
      below: 0.5
    - name: slow
      query: histogram_quantile(0.99, sum(rate(traces_span_metrics_duration_seconds{service_name="$service", service_version="$version"}[5m])))
      below: 10
"#;

const ROLLOUTS: usize = 1_000;

/// How long the rollouts have gone on when the watcher is looked at, in steps: ten minutes.
const WATCHED_STEPS: i64 = 120;

/// What a watcher watches.
struct Watched {
    store: Arc<Store>,
    all: Vec<SpanSeries>,
    tagged: Vec<SeriesRef>,
    step: i64,
}

impl Watched {
    /// Six span series for each version, and three instances of each with two statuses.
    fn new() -> Self {
        let (store, _) = Store::open(Options::default(), T0_MS).expect("an empty store opens");
        let (mut all, mut tagged) = (Vec::new(), Vec::new());
        for service in 0..ROLLOUTS {
            for version in ["1", "2"] {
                all.extend((0..6).map(|at| one(&store, service, version, at)));
                for instance in ["a", "b", "c"] {
                    all.extend(
                        (3..5).map(|at| instance_of(&store, service, version, instance, at)),
                    );
                }
            }
            tagged.push(coverage(&store, service));
        }
        let mut watched = Watched {
            store: Arc::new(store),
            all,
            tagged,
            step: 0,
        };
        for _ in 0..WATCHED_STEPS {
            watched.tick();
        }
        watched
    }

    /// Five seconds of traffic; when that is.
    fn tick(&mut self) -> i64 {
        self.step += 1;
        let now_ms = T0_MS + self.step * STEP_MS;
        let batch = samples(&self.all, &self.tagged, self.step);
        self.store.append(&batch, now_ms).expect("no log to fail");
        now_ms
    }
}

fn instance_of(
    store: &Store,
    service: usize,
    version: &str,
    instance: &str,
    at: usize,
) -> SpanSeries {
    let is_error = at % 5 == 4;
    let service = name(service);
    let of = |metric: &str| {
        let labels = [
            ("__name__", metric),
            ("service_name", service.as_str()),
            ("service_version", version),
            ("service_instance_id", instance),
            ("deployment_environment_name", "production"),
            ("span_kind", "SPAN_KIND_SERVER"),
            ("status_code", status(is_error)),
        ];
        series(store, &labels)
    };
    SpanSeries {
        calls: of("slogate_instance_requests_total"),
        durations: of("slogate_instance_duration_seconds"),
        requests_per_step: if is_error { 3.0 } else { 40.0 },
    }
}

/// The CPU time that this process has used, both its own and the kernel's for it.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    // The fields behind the name, which may have spaces in it.
    let fields = stat.rsplit(')').next().expect("a name in parentheses");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks
        .map(|text| text.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}

fn watching(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let gate: Vec<_> = policy::parse("ten.yaml", TEN_CHECKS).expect("a gate");
    let gate = Arc::new(gate.into_iter().next().expect("one gate"));
    let mut watched = Watched::new();
    let source = EmbeddedSource::new(watched.store.clone(), &QUERIES);
    let dir = tempfile::tempdir().expect("a directory");
    let ledger = Ledger::open(Records::open(dir.path()).expect("empty records"));
    let options = DeploymentsOptions::default();
    let deployments = Deployments::open(ledger.clone(), options, T0_MS).expect("no events");
    for service in 0..ROLLOUTS {
        let event = format!(
            r#"{{"type": "deployment.started", "service": "{}", "environment": "production",
                "artifact": {{"version": "2"}}}}"#,
            name(service)
        );
        let events = deploy::parse("application/json", &|_| None, event.as_bytes(), T0_MS);
        let accepted = deployments.accept(events.expect("an event"), T0_MS);
        runtime.block_on(accepted).expect("written");
    }
    let clock = ManualClock::at(T0_MS + WATCHED_STEPS * STEP_MS);
    let watcher = runtime.block_on(Watcher::new(WatcherParts {
        policies: Arc::new(PolicySet {
            gates: vec![gate.clone()],
        }),
        deployments: deployments.clone(),
        ledger,
        sources: Sources::only(Arc::new(source.clone())),
        clock: Arc::new(clock.clone()),
        options: WatcherOptions {
            interval_ms: 10_000,
            public_url: String::new(),
        },
    }));
    assert!(runtime.block_on(watcher.judge_all()), "the first round");

    let mut group = c.benchmark_group("watch");
    group.throughput(Throughput::Elements(ROLLOUTS as u64));
    group.bench_function("round_of_1000_rollouts", |b| {
        b.iter_custom(|rounds| {
            let mut used = Duration::ZERO;
            for _ in 0..rounds {
                watched.tick();
                clock.advance(watched.tick() + 1_500 - clock.now_ms());
                let before = cpu_time();
                assert!(runtime.block_on(watcher.judge_all()));
                used += cpu_time() - before;
            }
            used
        });
    });
    let now_ms = clock.now_ms();
    group.throughput(Throughput::Elements(100));
    group.bench_function("100_rollouts_from_scratch", |b| {
        b.iter_custom(|rounds| {
            let before = cpu_time();
            for _ in 0..rounds {
                for service in 0..100 {
                    let target = Target::new(name(service), "production");
                    let history = deployments.of_target(&target);
                    let deployment = history.first().expect("announced").clone();
                    let subject = Subject {
                        deployment,
                        history,
                    };
                    black_box(runtime.block_on(judge(&gate, &subject, &source, now_ms)));
                }
            }
            cpu_time() - before
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .measurement_time(Duration::from_secs(5))
        .warm_up_time(Duration::from_secs(1));
    targets = judgements, watching
}
criterion_main!(benches);
