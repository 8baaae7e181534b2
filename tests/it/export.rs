//! Remote write out of slogate: to a real Prometheus, and to an endpoint that misbehaves.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use opentelemetry_otlp::Protocol;
use parking_lot::Mutex;
use serde_json::Value as Json;
use slogate_series::is_stale;
use slogate_wire::remote_write::v1;

use crate::harness::{Daemon, Setup, block_on, peers, until};
use crate::remote_write::metric;
use crate::traffic::{Behaviour, Release};

const LIMIT: Duration = Duration::from_secs(120);

fn setup(dir: &tempfile::TempDir, endpoint: SocketAddr) -> Setup {
    let url = format!("http://{endpoint}/api/v1/write");
    Setup::in_dir(&dir.path().join("slogate")).set("EXPORT_URL", &url)
}

fn query(daemon: &Daemon, expr: &str, at_s: u64) -> Json {
    let path = format!("/api/v1/query?query={expr}&time={at_s}");
    let reply = daemon.get(&path);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["data"]["result"].take()
}

fn now_s() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs()
}

#[test]
fn a_real_prometheus_has_what_slogate_has() {
    for program in [peers::prometheus(), peers::prometheus_3()]
        .into_iter()
        .flatten()
    {
        let temp = tempfile::tempdir().unwrap();
        let peer = program.start(&temp.path().join("peer"), "", &[]);
        let daemon = setup(&temp, peer.address).start();
        block_on(async {
            let (http, good) = (Protocol::HttpBinary, Behaviour::good());
            let mut release = Release::new(&daemon.ports, http, "checkout", Some("1.0"), good);
            for _ in 0..20 {
                release.serve_batch().await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        for expr in [
            "traces_span_metrics_calls_total[10m]",
            "histogram_count(traces_span_metrics_duration_seconds)",
            "histogram_sum(traces_span_metrics_duration_seconds)",
            "slogate_build_info[10m]",
        ] {
            // What is asked about is some seconds old: it had its time to get there.
            until(&format!("{expr} is the same there"), LIMIT, || {
                let at_s = now_s() - 6;
                let here = query(&daemon, expr, at_s);
                let there = peer.data(&format!("/api/v1/query?query={expr}&time={at_s}"));
                let is_there = here.as_array().is_some_and(|series| !series.is_empty());
                (is_there && sorted(&here) == sorted(&there["result"])).then_some(())
            });
        }
        assert_eq!(
            metric(&daemon, "slogate_export_samples_dropped_total", ""),
            0.0
        );
        assert!(metric(&daemon, "slogate_export_samples_sent_total", "") > 50.0);
    }
}

/// The series of a result in an order that does not depend on who answered.
fn sorted(result: &Json) -> Vec<String> {
    let series = result.as_array().into_iter().flatten();
    let mut series: Vec<_> = series.map(ToString::to_string).collect();
    series.sort();
    series
}

/// What an endpoint answers: a status and a header line or nothing.
type Answer = (u16, &'static str);

/// An endpoint that answers as told and keeps what it took.
struct Endpoint {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<Vec<u8>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Listens on `address`. Gives the `answers` in turn, then 204.
    fn start(address: SocketAddr, answers: &[Answer]) -> Endpoint {
        let listener = TcpListener::bind(address).expect("the port is still free");
        let address = listener.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let taken: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let mut answers = answers.to_vec();
        answers.reverse();
        let thread = {
            let (stop, taken) = (stop.clone(), Arc::clone(&taken));
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let answer = answers.pop().unwrap_or((204, ""));
                    if let Some(body) = stream.ok().and_then(|stream| exchange(stream, answer))
                        && answer.0 == 204
                    {
                        taken.lock().push(body);
                    }
                }
            })
        };
        Endpoint {
            address,
            stop,
            taken,
            thread: Some(thread),
        }
    }

    /// The times (in ms, without stale markers) of the samples of a metric, by series, in the order they came.
    fn samples(&self, metric: &str) -> BTreeMap<String, Vec<i64>> {
        let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for body in self.taken.lock().iter() {
            let body = snap::raw::Decoder::new()
                .decompress_vec(body)
                .expect("snappy");
            for series in v1::WriteRequest::new(&body).timeseries() {
                let series = series.expect("a series");
                let labels: Vec<_> = series
                    .labels()
                    .map(|label| label.expect("a label"))
                    .collect();
                if labels
                    .iter()
                    .any(|l| l.name == "__name__" && l.value == metric)
                {
                    let samples = series.samples().map(|sample| sample.expect("a sample"));
                    // A query shows no stale markers either.
                    let samples = samples.filter(|sample| !is_stale(sample.value));
                    let times = samples.map(|sample| sample.t_ms);
                    found
                        .entry(format!("{labels:?}"))
                        .or_default()
                        .extend(times);
                }
            }
        }
        found
    }
}

/// Reads one request and answers it.
fn exchange(stream: TcpStream, (status, header): Answer) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut is_right) = (0, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim().to_ascii_lowercase();
        match line.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok()?,
            Some(("content-type", "application/x-protobuf"))
            | Some(("content-encoding", "snappy"))
            | Some(("x-prometheus-remote-write-version", "0.1.0")) => is_right += 1,
            _ if line.is_empty() => break,
            _ => {}
        }
    }
    assert_eq!(is_right, 3, "the headers that remote write asks for");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = format!(
        "HTTP/1.1 {status} X\r\n{header}connection: close\r\ncontent-length: 11\r\n\r\nno\nthank you"
    );
    let answer = match status {
        204 => "HTTP/1.1 204 X\r\nconnection: close\r\n\r\n".to_owned(),
        _ => answer,
    };
    reader.into_inner().write_all(answer.as_bytes()).ok()?;
    Some(body)
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it from waiting.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("an address")
}

fn pending(daemon: &Daemon) -> f64 {
    metric(daemon, "slogate_export_samples_pending", "")
}

/// Down for a while, and slogate killed in between: nothing is lost and nothing comes twice.
#[test]
fn an_endpoint_that_is_down_gets_everything_later_also_after_kill_9() {
    let temp = tempfile::tempdir().unwrap();
    let address = free_address();
    let setup = setup(&temp, address);
    let daemon = setup.start();
    until("samples wait", LIMIT, || {
        (pending(&daemon) > 100.0).then_some(())
    });
    assert!(
        daemon.log().contains("they wait on disk"),
        "{}",
        daemon.log()
    );
    daemon.kill();
    let daemon = setup.start();
    let waited = pending(&daemon);
    assert!(waited > 100.0, "{waited}");
    until("more samples wait", LIMIT, || {
        (pending(&daemon) > waited).then_some(())
    });
    // It answers all the same, and feels well.
    assert_eq!(daemon.get("/-/healthy").status, 200);

    let endpoint = Endpoint::start(address, &[]);
    until("everything is there", LIMIT, || {
        if pending(&daemon) > 0.0 {
            return None;
        }
        let at_s = now_s() - 6;
        let here = query(&daemon, "slogate_build_info[10m]", at_s);
        let mut here: Vec<Vec<i64>> = here.as_array()?.iter().map(times).collect();
        let there = endpoint.samples("slogate_build_info");
        let until_ms = i64::try_from(at_s).unwrap() * 1_000;
        let of_then = |times: &Vec<i64>| -> Vec<i64> {
            times.iter().copied().filter(|t| *t <= until_ms).collect()
        };
        let mut there: Vec<_> = there.values().map(of_then).collect();
        there.retain(|times| !times.is_empty());
        here.sort();
        there.sort();
        (!here.is_empty() && here == there).then_some(())
    });
    assert_eq!(
        metric(&daemon, "slogate_export_samples_dropped_total", ""),
        0.0
    );
    assert_eq!(metric(&daemon, "slogate_export_lag_seconds", ""), 0.0);
}

/// The sample times of a series, in ms.
fn times(series: &Json) -> Vec<i64> {
    let pairs = series["values"].as_array().into_iter().flatten();
    let times = pairs.filter_map(|pair| pair[0].as_f64());
    times
        .map(|seconds| (seconds * 1_000.0).round() as i64)
        .collect()
}

#[test]
fn what_may_be_repeated_is_and_what_is_refused_is_dropped_and_told() {
    let temp = tempfile::tempdir().unwrap();
    let answers = [(429, "retry-after: 2\r\n"), (500, ""), (503, ""), (400, "")];
    let endpoint = Endpoint::start(SocketAddr::from(([127, 0, 0, 1], 0)), &answers);
    let daemon = setup(&temp, endpoint.address).start();
    let dropped = || metric(&daemon, "slogate_export_samples_dropped_total", "refused");
    until("one request is refused", LIMIT, || {
        (dropped() > 0.0).then_some(())
    });
    assert_eq!(metric(&daemon, "slogate_export_retries_total", ""), 3.0);
    assert!(
        daemon.log().contains("400 Bad Request: no\n")
            || daemon.log().contains("400 Bad Request: no\""),
        "{}",
        daemon.log()
    );
    until("the next ones are taken", LIMIT, || {
        (metric(&daemon, "slogate_export_samples_sent_total", "") > 0.0).then_some(())
    });
    assert!(!endpoint.samples("slogate_build_info").is_empty() || dropped() > 0.0);
}
