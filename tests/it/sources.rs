//! Verdicts from what other people's measurements look like, on the engines they keep them in:
//! each preset's series are written into a real Prometheus and a real VictoriaMetrics, and a good
//! release passes and a bad one fails. And: a source that hangs holds up nobody else.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use slogate::config::file::SettingsFile;
use slogate::config::{Config, Layers};
use slogate::source::Mapping;
use slogate_series::{Labels, Sample, Series, Value};

use crate::harness::{Daemon, Setup, peers, until};

const LIMIT: Duration = Duration::from_secs(120);

/// The versions: what runs, and what is shipped. Some measure them as hashes of pods.
const BASELINE: &str = "6f7c9d5b4";
const CANDIDATE: &str = "7d8b6c4f9";

/// Between scrapes, in milliseconds.
const SCRAPE_MS: i64 = 15_000;

/// Scrapes of the baseline, and of the candidate, which came later.
const SCRAPES: [i64; 2] = [100, 40];

/// Requests of one pod between two scrapes.
const REQUESTS: f64 = 1500.0;

/// How a preset's series say whose they are.
struct Shape {
    preset: &'static str,
    count: &'static str,
    duration: &'static str,
    unit: f64,
    /// Labels of a failed and of a good request.
    outcome: [(&'static str, &'static str); 2],
    /// Labels of a pod's series: service, version, pod.
    labels: LabelsOf,
    /// The metric that says the version, and its labels.
    info: Option<(&'static str, LabelsOf)>,
}

type Labelled = Vec<(&'static str, String)>;

/// Labels of a service's version's pod.
type LabelsOf = fn(&str, &str, &str) -> Labelled;

fn own(value: &str) -> String {
    value.to_owned()
}

const SHAPES: [Shape; 7] = [
    Shape {
        preset: "otel",
        count: "traces_span_metrics_calls_total",
        duration: "traces_span_metrics_duration_seconds",
        unit: 1.0,
        outcome: [
            ("status_code", "STATUS_CODE_ERROR"),
            ("status_code", "STATUS_CODE_UNSET"),
        ],
        labels: |service, version, pod| {
            vec![
                ("service_name", own(service)),
                ("service_version", own(version)),
                ("deployment_environment_name", own("production")),
                ("span_kind", own("SPAN_KIND_SERVER")),
                ("instance", own(pod)),
            ]
        },
        info: None,
    },
    Shape {
        preset: "otel-prometheus",
        count: "http_server_request_duration_seconds_count",
        duration: "http_server_request_duration_seconds",
        unit: 1.0,
        outcome: [
            ("http_response_status_code", "503"),
            ("http_response_status_code", "200"),
        ],
        labels: |service, version, pod| {
            vec![
                ("job", format!("shop/{service}")),
                ("instance", own(pod)),
                ("service_version", own(version)),
                ("deployment_environment_name", own("production")),
            ]
        },
        info: None,
    },
    Shape {
        preset: "target-info",
        count: "http_server_request_duration_seconds_count",
        duration: "http_server_request_duration_seconds",
        unit: 1.0,
        outcome: [
            ("http_response_status_code", "503"),
            ("http_response_status_code", "200"),
        ],
        labels: |service, _, pod| vec![("job", own(service)), ("instance", own(pod))],
        info: Some(("target_info", |service, version, pod| {
            vec![
                ("job", own(service)),
                ("instance", own(pod)),
                ("service_version", own(version)),
                ("deployment_environment_name", own("production")),
            ]
        })),
    },
    Shape {
        preset: "kube-state-metrics",
        count: "http_requests_total",
        duration: "http_request_duration_seconds",
        unit: 1.0,
        outcome: [("code", "500"), ("code", "200")],
        labels: |service, _, pod| {
            vec![
                ("job", own(service)),
                ("namespace", own("production")),
                ("pod", own(pod)),
                ("instance", own("10.0.0.1:8080")),
            ]
        },
        info: Some(("kube_pod_labels", |_, version, pod| {
            vec![
                ("namespace", own("production")),
                ("pod", own(pod)),
                ("label_pod_template_hash", own(version)),
                ("job", own("kube-state-metrics")),
            ]
        })),
    },
    Shape {
        preset: "istio",
        count: "istio_requests_total",
        duration: "istio_request_duration_milliseconds",
        unit: 1000.0,
        outcome: [("response_code", "503"), ("response_code", "200")],
        labels: |service, version, pod| {
            vec![
                ("reporter", own("destination")),
                ("destination_canonical_service", own(service)),
                ("destination_workload_namespace", own("production")),
                ("destination_version", own(version)),
                ("pod", own(pod)),
            ]
        },
        info: None,
    },
    Shape {
        preset: "linkerd",
        count: "response_total",
        duration: "response_latency_ms",
        unit: 1000.0,
        outcome: [("classification", "failure"), ("classification", "success")],
        labels: |service, version, pod| {
            vec![
                ("direction", own("inbound")),
                ("deployment", own(service)),
                ("namespace", own("production")),
                ("pod_template_hash", own(version)),
                ("pod", own(pod)),
            ]
        },
        info: None,
    },
    Shape {
        preset: "plain",
        count: "http_requests_total",
        duration: "http_request_duration_seconds",
        unit: 1.0,
        outcome: [("code", "500"), ("code", "200")],
        labels: |service, version, pod| {
            vec![
                ("service", own(service)),
                ("version", own(version)),
                ("environment", own("production")),
                ("instance", own(pod)),
            ]
        },
        info: None,
    },
];

/// How a version behaves.
#[derive(Clone, Copy)]
struct Behaviour {
    errors: f64,
    /// The mean of its durations in seconds, which are exponentially distributed.
    mean_s: f64,
}

const FINE: Behaviour = Behaviour {
    errors: 0.002,
    mean_s: 0.020,
};
const BAD: Behaviour = Behaviour {
    errors: 0.02,
    mean_s: 0.040,
};

/// The upper bounds of buckets in seconds, each a seventh above the one before.
fn bounds() -> impl Iterator<Item = f64> {
    (0..30).map(|nth| 0.004 * (8.0_f64 / 7.0).powi(nth))
}

fn series(metric: &str, labels: &Labelled, last_ms: i64, scrapes: i64, step: f64) -> Series {
    let name = [("__name__", metric)];
    let labels = labels.iter().map(|(name, value)| (*name, value.as_str()));
    let sample = |nth: i64| Sample {
        t_ms: last_ms - (scrapes - 1 - nth) * SCRAPE_MS,
        start_ms: 0,
        value: Value::Float((nth as f64 * step).round()),
    };
    Series {
        labels: Labels::from_pairs(name.into_iter().chain(labels)),
        samples: (0..scrapes).map(sample).collect(),
    }
}

/// One pod of a version, as its scrapes show it.
fn pod(
    shape: &Shape,
    service: &str,
    version: &str,
    behaviour: Behaviour,
    last_ms: i64,
) -> Vec<Series> {
    let scrapes = SCRAPES[usize::from(version == CANDIDATE)];
    let name = format!("{service}-{version}-x2x4z");
    let labels = (shape.labels)(service, version, &name);
    let with = |more: (&'static str, String)| {
        let mut labels = labels.clone();
        labels.push(more);
        labels
    };
    let mut all = Vec::new();
    let shares = [behaviour.errors, 1.0 - behaviour.errors];
    for ((label, value), share) in shape.outcome.into_iter().zip(shares) {
        let labels = with((label, own(value)));
        all.push(series(
            shape.count,
            &labels,
            last_ms,
            scrapes,
            REQUESTS * share,
        ));
    }
    let bucket = format!("{}_bucket", shape.duration);
    for bound in bounds().chain([f64::INFINITY]) {
        let below = 1.0 - (-bound / behaviour.mean_s).exp();
        let text = match bound.is_finite() {
            true => (bound * shape.unit).to_string(),
            false => own("+Inf"),
        };
        all.push(series(
            &bucket,
            &with(("le", text)),
            last_ms,
            scrapes,
            REQUESTS * below,
        ));
    }
    if let Some((metric, labels)) = shape.info {
        let mut info = series(
            metric,
            &labels(service, version, &name),
            last_ms,
            scrapes,
            0.0,
        );
        for sample in &mut info.samples {
            sample.value = Value::Float(1.0);
        }
        all.push(info);
    }
    all
}

const GATES: &str = r#"
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: errors }
spec:
  warmUp: 0s
  soak: 0s
  decideWithin: 30m
  checks:
    - { name: errors, compare: { sli: requests.errorRatio, worseBy: { absolute: 0.2%, relative: 25% } } }
---
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: latency }
spec:
  warmUp: 0s
  soak: 0s
  decideWithin: 30m
  checks:
    - { name: latency, compare: { sli: requests.duration, quantile: 0.9, worseBy: { relative: 40% } } }
---
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: tagged }
spec:
  warmUp: 0s
  soak: 0s
  checks: [{ name: tagged, coverage: { atLeast: 99% } }]
"#;

/// A threshold in the policy's own words on this shape's counter.
fn threshold(shape: &Shape) -> String {
    let (label, value) = shape.outcome[0];
    let requests = |more: &str| {
        format!(
            "sum(rate({}{{service_name=\"$service\", service_version=\"$version\"{more}}}[5m]))",
            shape.count
        )
    };
    let failed = requests(&format!(", {label}=\"{value}\""));
    format!(
        "---\napiVersion: slogate.dev/v1\nkind: Gate\nmetadata: {{ name: share-{0} }}\nspec:\n  \
         match: {{ service: '*-{0}' }}\n  warmUp: 0s\n  soak: 0s\n  checks:\n    - name: share\n      \
         query: |\n        {failed} / {1}\n      below: 1%\n",
        shape.preset,
        requests("")
    )
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}

/// Announces that the candidate was started when its first sample was taken.
fn announce(daemon: &Daemon, service: &str, last_ms: i64) {
    let began_ms = last_ms - SCRAPES[1] * SCRAPE_MS;
    daemon.event(&json!({
        "type": "deployment.started", "service": service, "environment": "production",
        "time": slogate::model::time::to_rfc3339(began_ms),
        "artifact": { "version": CANDIDATE }, "previous": { "version": BASELINE },
    }));
}

/// Polls a gate until its verdict and reason are these.
fn expect(daemon: &Daemon, gate: &str, service: &str, verdict: &str, reason: &str) -> Json {
    let deadline = Instant::now() + LIMIT;
    loop {
        let last = daemon.gate(gate, service, CANDIDATE);
        if last["verdict"] == verdict && last["checks"][0]["reason"] == reason {
            return last;
        }
        if Instant::now() >= deadline {
            let id = last["id"].as_str().unwrap_or_default();
            let recorded = daemon.get(&format!("/v1/verdicts/{id}")).text();
            let log = daemon.log();
            panic!("{gate} of {service} is not {verdict} ({reason}): {last:#}\n{recorded}\n{log}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn every_preset_tells_good_releases_from_bad_ones_on_every_engine() {
    let programs = [peers::prometheus(), peers::victoria_metrics()];
    for program in programs.into_iter().flatten() {
        let dir = tempfile::tempdir().unwrap();
        let peer = program.start(&dir.path().join("peer"), "", &[]);
        let last_ms = now_ms() - 2_000;
        let service = |shape: &Shape, kind: &str| format!("{kind}-{}", shape.preset);
        let (mut policy, mut named) = (own(GATES), String::new());
        for shape in &SHAPES {
            for (kind, behaviour) in [("good", FINE), ("bad", BAD)] {
                let service = service(shape, kind);
                peer.write(&pod(shape, &service, BASELINE, FINE, last_ms));
                peer.write(&pod(shape, &service, CANDIDATE, behaviour, last_ms));
            }
            policy.push_str(&threshold(shape));
            let preset = shape.preset;
            named.push_str(&format!(
                "  {preset}: {{ service: '*-{preset}', mapping: {preset} }}\n"
            ));
        }
        let settings = dir.path().join("slogate.yaml");
        let url = peer.url("");
        // Here the data was there before the announcements, as it never is.
        let text = format!(
            "source: {{ kind: prometheus, url: '{url}', observeVersions: false }}\nsources:\n{named}"
        );
        fs::write(&settings, text).unwrap();
        let daemon = Setup::in_dir(&dir.path().join("slogate"))
            .policy(&policy)
            .set("CONFIG", settings.to_str().unwrap())
            .start();
        for shape in &SHAPES {
            announce(&daemon, &service(shape, "good"), last_ms);
            announce(&daemon, &service(shape, "bad"), last_ms);
        }
        for shape in &SHAPES {
            let (good, bad) = (service(shape, "good"), service(shape, "bad"));
            for gate in ["errors", "latency"] {
                let passed = expect(&daemon, gate, &good, "pass", "not_worse_than_baseline");
                assert_eq!(passed["baseline"], BASELINE, "{passed:#}");
                expect(&daemon, gate, &bad, "fail", "worse_than_baseline");
            }
            expect(&daemon, "tagged", &good, "pass", "within_threshold");
            let share = format!("share-{}", shape.preset);
            expect(&daemon, &share, &good, "pass", "within_threshold");
            expect(&daemon, &share, &bad, "fail", "threshold_crossed");
        }
    }
}

/// The story: nobody announces anything, and telemetry goes elsewhere; slogate still notices
/// what runs, because it asks.
#[test]
fn versions_that_only_a_remote_source_shows_are_noticed() {
    let Some(program) = peers::prometheus() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let peer = program.start(&dir.path().join("peer"), "", &[]);
    let shape = &SHAPES[2];
    peer.write(&pod(shape, "quiet", BASELINE, FINE, now_ms() - 1_000));
    let daemon = Setup::in_dir(&dir.path().join("slogate"))
        .set("SOURCE_KIND", "prometheus")
        .set("SOURCE_URL", &peer.url(""))
        .set("SOURCE_MAPPING", shape.preset)
        .start();
    let found = until("the version is noticed", LIMIT, || {
        let list = daemon.get("/v1/deployments?service=quiet").json();
        let first = list["deployments"][0].clone();
        first.is_object().then_some(first)
    });
    assert_eq!(found["artifact"]["version"], BASELINE, "{found:#}");
    assert_eq!(found["environment"], "production", "{found:#}");
}

const UP: &str = r"
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: up }
spec:
  warmUp: 0s
  soak: 0s
  checks: [{ name: up, query: vector(1), atLeast: 1 }]
";

/// The story: one team's Prometheus accepts connections and says nothing. That team's rollouts
/// are inconclusive; another team's verdict comes as fast as ever.
#[test]
fn a_source_that_hangs_makes_its_own_rollouts_inconclusive_and_no_others() {
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("slogate.yaml");
    let url = format!("http://{}", hanging.local_addr().unwrap());
    let text = format!(
        "sources: {{ theirs: {{ service: 'hung-*', kind: prometheus, url: '{url}', timeout: 5s }} }}\n"
    );
    fs::write(&settings, text).unwrap();
    let daemon = Setup::in_dir(&dir.path().join("slogate"))
        .policy(UP)
        .set("CONFIG", settings.to_str().unwrap())
        .start();
    for nth in 0..12 {
        announce(&daemon, &format!("hung-{nth}"), now_ms());
    }
    let began = Instant::now();
    announce(&daemon, "ours", now_ms());
    expect(&daemon, "up", "ours", "pass", "within_threshold");
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(4),
        "{took:?}, though no answer of theirs can be there yet"
    );
    let hung = expect(&daemon, "up", "hung-0", "inconclusive", "source_error");
    let message = hung["checks"][0]["message"].as_str().unwrap();
    assert!(message.contains(&url), "{message}");
    // All of theirs, although only few can wait at a time: the others are not even asked.
    for nth in 1..12 {
        expect(
            &daemon,
            "up",
            &format!("hung-{nth}"),
            "inconclusive",
            "source_error",
        );
    }
    let metrics = daemon.get("/metrics").text();
    assert!(
        metrics.contains("slogate_source_breaker_state{source=\"theirs\"}"),
        "{metrics}"
    );
    assert_eq!(daemon.get("/-/healthy").status, 200);
}

/// `slogate config` accepts the page's examples (the docs' own test); they make mappings, too.
#[test]
fn the_mappings_on_the_page_are_right() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sources.md");
    let text = fs::read_to_string(page).unwrap();
    let mut count = 0;
    for block in text.split("```yaml\n").skip(1) {
        let yaml = block.split("```").next().unwrap().to_owned();
        let file = SettingsFile::parse(std::path::Path::new("slogate.yaml"), yaml).unwrap();
        let layers = Layers {
            file: Some(file),
            ..Layers::default()
        };
        let (config, _) = Config::load(&layers).unwrap_or_else(|error| panic!("{error}"));
        let named = config.sources.iter().map(|named| &named.source);
        for source in named.chain([&config.source]) {
            Mapping::new(&source.mapping).unwrap_or_else(|error| panic!("{error}"));
        }
        count += 1;
    }
    assert!(count >= 8, "{count}");
}
