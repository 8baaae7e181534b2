//! What a look at a rollout costs: the built-in gate on the embedded store.
//!
//! Two versions serve side by side for half an hour, a sample every five seconds. A span series
//! is a counter and a native histogram with some 40 buckets, as ingest writes them for each
//! operation and status. An iteration judges many deployments, one after another; the evaluator
//! and the statistics start from nothing every time, as they do in the daemon.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use slogate::config::QuerySettings;
use slogate::judge::{Subject, judge};
use slogate::model::{Artifact, Deployment, DeploymentId, Origin, Outcome, Phase, Target};
use slogate::policy;
use slogate::source::EmbeddedSource;
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
        tagged.push(series(
            &store,
            &[
                ("__name__", "slogate_observability_items_total"),
                ("service_name", &name(service)),
                ("deployment_environment_name", "production"),
                ("signal", "spans"),
                ("artifact_identity", "true"),
            ],
        ));
    }
    for step in 1..=STEPS {
        let batch = samples(&all, &tagged, step);
        let rows = batch.floats.len() + batch.histograms.len();
        let report = store.append(&batch, T0_MS + step * STEP_MS);
        assert_eq!(report.expect("no log to fail").accepted, rows as u64);
    }
    Arc::new(store)
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
        let status = if is_error {
            "STATUS_CODE_ERROR"
        } else {
            "STATUS_CODE_UNSET"
        };
        let labels = [
            ("__name__", metric),
            ("service_name", service.as_str()),
            ("service_version", version),
            ("deployment_environment_name", "production"),
            ("span_kind", "SPAN_KIND_SERVER"),
            ("span_name", &operation),
            ("status_code", status),
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

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .measurement_time(Duration::from_secs(5))
        .warm_up_time(Duration::from_secs(1));
    targets = judgements
}
criterion_main!(benches);
