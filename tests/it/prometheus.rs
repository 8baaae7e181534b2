//! A real Prometheus beside slogate: it scrapes slogate's metrics, and it is where slogate's
//! verdicts take their series from.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::harness::peers::{self, Peer};
use crate::harness::{Daemon, Setup, block_on, until};

const LIMIT: Duration = Duration::from_secs(120);

/// What Prometheus sends in `Accept` to ask for OpenMetrics.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0,\
                      application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// The installed Prometheus, scraping `targets` (job and address) each second. `None`, with a line
/// that says so, where there is none.
fn scraping(dir: &Path, targets: &[(&str, SocketAddr)]) -> Option<Peer> {
    let program = peers::prometheus()?;
    // Since 3.9 a setting turns native histograms on, which older ones refuse; before, a flag
    // does, which newer ones ignore.
    let native = match program.version >= (3, 9) {
        true => "scrape_native_histograms: true, ",
        false => "",
    };
    let mut config = "global: { scrape_interval: 1s, scrape_timeout: 1s }\n".to_owned();
    config.push_str("scrape_configs:\n");
    for (job, address) in targets {
        config.push_str(&format!(
            "  - {{ job_name: {job}, {native}static_configs: [{{ targets: ['{address}'] }}] }}\n"
        ));
    }
    Some(program.start(dir, &config, &[]))
}

/// The scraped target of a job, once it was scraped.
fn target(prometheus: &Peer, job: &str) -> Json {
    until(&format!("{job} is scraped"), LIMIT, || {
        let targets = prometheus.data("/api/v1/targets")["activeTargets"].take();
        let found = targets
            .as_array()?
            .iter()
            .find(|one| one["labels"]["job"] == job)?;
        (found["health"] != "unknown").then(|| found.clone())
    })
}

/// A daemon that judges from what that Prometheus knows.
fn judging_from(prometheus: &Peer, dir: &Path, policy: &str) -> Daemon {
    Setup::in_dir(dir)
        .policy(policy)
        .set("SOURCE_KIND", "prometheus")
        .set("SOURCE_URL", &format!("http://{}", prometheus.address))
        .start()
}

fn announce(daemon: &Daemon, service: &str) {
    daemon.event(&json!({
        "type": "deployment.started", "service": service, "environment": "production",
        "artifact": { "version": "4.2.0" }, "previous": { "version": "4.1.7" },
    }));
}

/// Polls a gate about a service's 4.2.0 until its verdict and reason are these.
fn expect(daemon: &Daemon, gate: &str, service: &str, verdict: &str, reason: &str) -> Json {
    const PAUSE: Duration = Duration::from_millis(100);
    let mut last = Json::Null;
    for _ in 0..LIMIT.as_millis() / PAUSE.as_millis() {
        last = daemon.gate(gate, service, "4.2.0");
        let check = &last["checks"][0];
        if last["verdict"] == verdict && check["reason"] == reason {
            return last;
        }
        std::thread::sleep(PAUSE);
    }
    let recorded = last["id"]
        .as_str()
        .map(|id| daemon.get(&format!("/v1/verdicts/{id}")).json());
    panic!("{gate} of {service} is not {verdict} ({reason}): {last:#}\n{recorded:#?}");
}

/// The family names of an exposition.
fn families(text: &str) -> Vec<&str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|rest| rest.split(' ').next()).collect()
}

fn samples(text: &str) -> usize {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .count()
}

fn openmetrics(daemon: &Daemon) -> String {
    let url = daemon.api("/metrics");
    block_on(async {
        let request = reqwest::Client::new().get(url).header("accept", ACCEPT);
        let response = request.send().await.expect("an answer");
        let kind = response.headers()["content-type"]
            .to_str()
            .expect("text")
            .to_owned();
        assert!(
            kind.starts_with("application/openmetrics-text; version=1.0.0"),
            "{kind}"
        );
        response.text().await.expect("text")
    })
}

fn promtool_accepts(text: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        println!("skipped: promtool is not installed");
        return;
    };
    let mut stdin = promtool.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("promtool reads");
    // It reads to the end.
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool ends");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Its remarks on names and help texts.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// A family's name stands for one metric: in OpenMetrics a counter loses its `_total`, and may
/// then meet a gauge.
fn names_are_unique(text: &str) {
    let mut names = families(text);
    names.sort_unstable();
    let before = names.len();
    assert!(before > 20, "only {before} families: {text}");
    names.dedup();
    assert_eq!(names.len(), before, "a family is there twice: {text}");
}

#[test]
fn prometheus_scrapes_every_sample_of_our_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Setup::in_dir(&dir.path().join("slogate")).start();
    let targets = [("slogate", daemon.ports.api)];
    let Some(prometheus) = scraping(&dir.path().join("prometheus"), &targets) else {
        return;
    };
    let target = target(&prometheus, "slogate");
    assert_eq!(
        (&target["health"], &target["lastError"]),
        (&json!("up"), &json!("")),
        "{target:#}"
    );
    let plain = daemon.get("/metrics");
    assert!(
        plain
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    promtool_accepts(&plain.text());
    names_are_unique(&plain.text());
    names_are_unique(&openmetrics(&daemon));
    // A line that Prometheus passes over in silence would be missing here. New label values
    // appear between two scrapes until every route has been asked.
    until("what is scraped is what is shown", LIMIT, || {
        let scraped = prometheus.value("scrape_samples_scraped{job=\"slogate\"}")?;
        let kept = prometheus.value("scrape_samples_post_metric_relabeling{job=\"slogate\"}")?;
        let shown = samples(&openmetrics(&daemon)) as f64;
        (scraped == shown && kept == shown).then_some(())
    });
    let metadata = prometheus.data("/api/v1/metadata");
    let kind = |family: &str| metadata[family][0]["type"].as_str().map(str::to_owned);
    assert_eq!(kind("slogate_build_info").as_deref(), Some("gauge"));
    assert_eq!(
        kind("slogate_http_request_duration_seconds").as_deref(),
        Some("histogram")
    );
    // Named without the suffix by OpenMetrics and with it by the older format.
    let counter = ["slogate_http_requests", "slogate_http_requests_total"];
    assert!(
        counter
            .into_iter()
            .any(|name| kind(name).as_deref() == Some("counter"))
    );
    assert_eq!(prometheus.value("slogate_build_info"), Some(1.0));
}

const THRESHOLDS: &str = r#"
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: within }
spec:
  warmUp: 0s
  soak: 0s
  checks: [{ name: open, query: 'max(slogate_inflight_bytes_max{job="slogate"})', above: 1024 }]
---
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: beyond }
spec:
  warmUp: 0s
  soak: 0s
  checks: [{ name: up, query: 'up{job="slogate"}', below: 1 }]
---
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: unknown }
spec:
  warmUp: 0s
  soak: 0s
  checks: [{ name: nothing, query: 'sum(nobody_sends_this)', below: 1 }]
---
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: several }
spec:
  warmUp: 0s
  soak: 0s
  checks: [{ name: workers, query: 'slogate_worker_late', below: 1 }]
---
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: refused }
spec:
  warmUp: 0s
  soak: 0s
  checks: [{ name: clash, query: 'up * on() slogate_worker_late', below: 1 }]
"#;

#[test]
fn thresholds_are_held_against_prometheus_and_its_end_is_not_a_pass() {
    let dir = tempfile::tempdir().unwrap();
    let watched = Setup::in_dir(&dir.path().join("watched")).start();
    let targets = [("slogate", watched.ports.api)];
    let Some(prometheus) = scraping(&dir.path().join("prometheus"), &targets) else {
        return;
    };
    target(&prometheus, "slogate");
    let daemon = judging_from(&prometheus, &dir.path().join("judging"), THRESHOLDS);
    announce(&daemon, "checkout");
    let passed = expect(&daemon, "within", "checkout", "pass", "within_threshold");
    expect(&daemon, "beyond", "checkout", "fail", "threshold_crossed");
    expect(&daemon, "unknown", "checkout", "inconclusive", "no_data");
    expect(
        &daemon,
        "several",
        "checkout",
        "inconclusive",
        "unusable_answer",
    );
    // Prometheus's own words reach whoever has to mend the query.
    let refused = expect(
        &daemon,
        "refused",
        "checkout",
        "inconclusive",
        "source_error",
    );
    let message = refused["checks"][0]["message"].as_str().unwrap();
    assert!(message.contains("many-to-many"), "{message}");
    let id = passed["id"].as_str().unwrap();
    let recorded = daemon.get(&format!("/v1/verdicts/{id}")).json();
    let evidence = &recorded["checks"][0]["evidence"];
    assert!(
        evidence["value"]
            .as_f64()
            .is_some_and(|value| value > 1024.0),
        "{recorded:#}"
    );

    let address = prometheus.address.to_string();
    drop(prometheus);
    let lost = expect(
        &daemon,
        "within",
        "checkout",
        "inconclusive",
        "source_error",
    );
    let message = lost["checks"][0]["message"].as_str().unwrap();
    assert!(
        message.contains(&address),
        "it says who does not answer: {message}"
    );
    // Judging goes on, and so does everything else.
    assert_eq!(
        daemon.get("/-/ready").status,
        200,
        "{}",
        daemon.get("/-/ready").text()
    );
}

/// The parts of Prometheus's protobuf exposition (`io.prometheus.client`) that are used here: of
/// the scraped formats the only one that has native histograms.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct MetricFamily {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        /// 0 is a counter, 4 a histogram.
        #[prost(int32, optional, tag = "3")]
        pub(super) kind: Option<i32>,
        #[prost(message, repeated, tag = "4")]
        pub(super) metrics: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub(super) labels: Vec<Label>,
        #[prost(message, optional, tag = "3")]
        pub(super) counter: Option<Counter>,
        #[prost(message, optional, tag = "7")]
        pub(super) histogram: Option<Histogram>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Label {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Counter {
        #[prost(double, tag = "1")]
        pub(super) value: f64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Histogram {
        #[prost(uint64, tag = "1")]
        pub(super) count: u64,
        #[prost(double, tag = "2")]
        pub(super) sum: f64,
        #[prost(sint32, optional, tag = "5")]
        pub(super) schema: Option<i32>,
        /// Present even where it is zero: it tells a native histogram from a classic one.
        #[prost(double, optional, tag = "6")]
        pub(super) zero_threshold: Option<f64>,
        #[prost(message, repeated, tag = "12")]
        pub(super) spans: Vec<Span>,
        #[prost(sint64, repeated, packed = "false", tag = "13")]
        pub(super) deltas: Vec<i64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Span {
        #[prost(sint32, tag = "1")]
        pub(super) offset: i32,
        #[prost(uint32, tag = "2")]
        pub(super) length: u32,
    }
}

/// A version of a service under steady load.
#[derive(Clone, Copy)]
struct Traffic {
    service: &'static str,
    version: &'static str,
    errors_per_mille: u64,
    /// The middle of its durations, which reach from half to one and a half of it.
    typical_ms: f64,
}

/// Requests per second of each version.
const RATE: u64 = 2_000;

/// The histograms' resolution: 32 buckets to a doubling. A tolerance of 15 % needs buckets that
/// are narrower than that.
const SCHEMA: i32 = 5;

impl Traffic {
    fn metric(self, status: &str) -> proto::Metric {
        let labels = [
            ("service_name", self.service),
            ("service_version", self.version),
            ("deployment_environment_name", "production"),
            ("span_kind", "SPAN_KIND_SERVER"),
            ("span_name", "POST /pay"),
            ("status_code", status),
        ];
        let label = |(name, value): (&str, &str)| proto::Label {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        proto::Metric {
            labels: labels.map(label).into(),
            ..proto::Metric::default()
        }
    }

    fn counters(self, total: u64) -> [proto::Metric; 2] {
        let errors = total * self.errors_per_mille / 1000;
        let counts = [
            ("STATUS_CODE_UNSET", total - errors),
            ("STATUS_CODE_ERROR", errors),
        ];
        counts.map(|(status, count)| proto::Metric {
            counter: Some(proto::Counter {
                value: count as f64,
            }),
            ..self.metric(status)
        })
    }

    fn histogram(self, total: u64) -> proto::Metric {
        let mut buckets: BTreeMap<i32, i64> = BTreeMap::new();
        let (mut count, mut sum) = (0, 0.0);
        for part in 0..20 {
            let seconds = self.typical_ms / 1e3 * (0.525 + f64::from(part) * 0.05);
            let requests = total / 20;
            let bucket = (seconds.log2() * f64::from(SCHEMA).exp2()).ceil() as i32;
            *buckets.entry(bucket).or_default() += requests as i64;
            count += requests;
            sum += seconds * requests as f64;
        }
        let mut histogram = proto::Histogram {
            count,
            sum,
            schema: Some(SCHEMA),
            zero_threshold: Some(0.0),
            ..proto::Histogram::default()
        };
        // Each bucket is a span of its own, its count the difference to the one before.
        let (mut next, mut before) = (0, 0);
        for (bucket, count) in buckets {
            histogram.spans.push(proto::Span {
                offset: bucket - next,
                length: 1,
            });
            histogram.deltas.push(count - before);
            (next, before) = (bucket + 1, count);
        }
        proto::Metric {
            histogram: Some(histogram),
            ..self.metric("STATUS_CODE_UNSET")
        }
    }
}

/// What the collector shows at a scrape; scrapes are a second apart.
fn exposition(traffic: &[Traffic], scrape: u64) -> Vec<u8> {
    let total = RATE * scrape;
    let families = [
        proto::MetricFamily {
            name: "traces_span_metrics_calls_total".to_owned(),
            kind: Some(0),
            metrics: traffic.iter().flat_map(|one| one.counters(total)).collect(),
        },
        proto::MetricFamily {
            name: "traces_span_metrics_duration_seconds".to_owned(),
            kind: Some(4),
            metrics: traffic.iter().map(|one| one.histogram(total)).collect(),
        },
    ];
    let encoded = families
        .iter()
        .map(prost::Message::encode_length_delimited_to_vec);
    encoded.flatten().collect()
}

/// A collector that shows span metrics of services whose counters grow by a second's requests
/// at each scrape.
struct Collector {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Collector {
    fn start(traffic: Vec<Traffic>) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        std::thread::spawn(move || {
            for (scrape, stream) in (0..).zip(listener.incoming()) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                // A scrape that is cut off is Prometheus's to report.
                let _ = stream.and_then(|stream| show(stream, &exposition(&traffic, scrape)));
            }
        });
        Collector { address, stop }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers one scrape.
fn show(stream: TcpStream, body: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line)? > 2 {
        line.clear();
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.google.protobuf; \
         proto=io.prometheus.client.MetricFamily; encoding=delimited\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let stream = stream.get_mut();
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

const COMPARE: &str = r"
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: errors }
spec:
  warmUp: 0s
  soak: 10s
  decideWithin: 30m
  checks:
    - name: errors
      compare: { sli: requests.errorRatio, worseBy: { absolute: 0.2%, relative: 25% } }
---
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: latency }
spec:
  warmUp: 0s
  soak: 10s
  decideWithin: 30m
  checks:
    - name: latency
      compare: { sli: requests.duration, quantile: 0.95, worseBy: { relative: 15% } }
";

/// The same rules hold where the series live elsewhere: a collector turns spans into counters
/// and native histograms, Prometheus keeps them, slogate compares the versions.
#[test]
fn versions_are_compared_from_what_prometheus_kept() {
    let dir = tempfile::tempdir().unwrap();
    let traffic = |service, version, errors_per_mille, typical_ms| Traffic {
        service,
        version,
        errors_per_mille,
        typical_ms,
    };
    let collector = Collector::start(vec![
        traffic("steady", "4.1.7", 2, 40.0),
        traffic("steady", "4.2.0", 2, 40.0),
        traffic("broken", "4.1.7", 2, 40.0),
        traffic("broken", "4.2.0", 20, 40.0),
        traffic("slow", "4.1.7", 2, 40.0),
        traffic("slow", "4.2.0", 2, 60.0),
    ]);
    let targets = [("collector", collector.address)];
    let Some(prometheus) = scraping(&dir.path().join("prometheus"), &targets) else {
        return;
    };
    assert_eq!(target(&prometheus, "collector")["lastError"], "");
    let daemon = judging_from(&prometheus, &dir.path().join("judging"), COMPARE);
    for service in ["steady", "broken", "slow", "silent"] {
        announce(&daemon, service);
    }
    let failed = expect(&daemon, "errors", "broken", "fail", "worse_than_baseline");
    assert_eq!(failed["baseline"], "4.1.7", "{failed:#}");
    let failed = expect(&daemon, "latency", "slow", "fail", "worse_than_baseline");
    let id = failed["id"].as_str().unwrap();
    let recorded = daemon.get(&format!("/v1/verdicts/{id}")).json();
    let evidence = &recorded["checks"][0]["evidence"];
    // 95 of 100 requests of the old version take 57 to 58 ms at most and of the new one half as
    // long again; a bucket is two percent wide.
    let quantile = |arm: &str| evidence[arm]["quantile"].as_f64().unwrap();
    assert!(
        (0.056..0.060).contains(&quantile("baselineCounts")),
        "{evidence:#}"
    );
    assert!(
        (0.084..0.090).contains(&quantile("candidateCounts")),
        "{evidence:#}"
    );
    for gate in ["errors", "latency"] {
        expect(&daemon, gate, "steady", "pass", "not_worse_than_baseline");
        expect(&daemon, gate, "silent", "inconclusive", "no_data");
    }
    // What is wrong with a version is wrong in its own respect only.
    expect(&daemon, "errors", "slow", "pass", "not_worse_than_baseline");
    expect(
        &daemon,
        "latency",
        "broken",
        "pass",
        "not_worse_than_baseline",
    );
}
