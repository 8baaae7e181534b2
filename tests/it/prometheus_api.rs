//! The Prometheus API as its clients meet it.
//!
//! - `oracle`: the same requests to slogate and to a real Prometheus on the same data are
//!   answered with the same bytes.
//! - `clients`: what Grafana, Flagger, Argo Rollouts and promtool send is answered as they expect.
//! - Here: what both need, and what is HTTP's.

mod clients;
mod oracle;

use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};
use slogate_series::{Buckets, Histogram, Labels, Sample, Series, Value};

use crate::harness::{Daemon, Reply, Setup, exchange, remote_write, until};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// An hour ago, in seconds: both servers take samples of that age.
fn base_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    (now - 3_600) / 60 * 60
}

/// One series every 15 s for half an hour, off the grid of whole seconds, so that no sample lies
/// on the edge of a window.
fn series(base_s: i64, labels: &[(&str, &str)], value: impl Fn(i64) -> Value) -> Series {
    let sample = |n: i64| Sample {
        t_ms: (base_s + 15 * n) * 1000 + 137,
        start_ms: 0,
        value: value(n),
    };
    Series {
        labels: Labels::from_pairs(labels.iter().copied()),
        samples: (0..120).map(sample).collect(),
    }
}

fn native(n: i64) -> Value {
    let n = n as f64;
    let histogram = Histogram {
        schema: 3,
        zero_threshold: 0.001,
        zero_count: n,
        count: 14.0 * n,
        sum: 17.25 * n,
        positive: Buckets::from_sorted(vec![(-7, n), (0, 3.0 * n), (1, 4.0 * n), (12, 2.0 * n)]),
        negative: Buckets::from_sorted(vec![(2, n), (5, 2.0 * n)]),
        ..Histogram::default()
    };
    Value::Histogram(histogram.into())
}

fn data(base_s: i64) -> Vec<Series> {
    let mut all = Vec::new();
    for (instance, code, rate) in [("a", "200", 40), ("a", "500", 1), ("b", "200", 35)] {
        let labels = [
            ("__name__", "requests_total"),
            ("code", code),
            ("instance", instance),
            ("job", "api"),
        ];
        // b starts anew halfway.
        let reset = |n: i64| if instance == "b" && n > 60 { n - 60 } else { n };
        all.push(series(base_s, &labels, |n| {
            Value::Float((reset(n) * rate) as f64)
        }));
    }
    let odd = [
        0.1,
        0.25,
        1e-7,
        1.5e22,
        f64::INFINITY,
        -17.25,
        f64::NAN,
        123456.789,
    ];
    for room in ["<kitchen>", "hall & \"stairs\""] {
        let labels = [("__name__", "temperature_celsius"), ("room", room)];
        all.push(series(base_s, &labels, |n| {
            Value::Float(odd[usize::try_from(n).unwrap() % odd.len()])
        }));
    }
    for (le, share) in [("0.1", 5), ("0.5", 8), ("1", 9), ("+Inf", 10)] {
        let labels = [
            ("__name__", "latency_seconds_bucket"),
            ("job", "api"),
            ("le", le),
        ];
        all.push(series(base_s, &labels, |n| {
            Value::Float((n * share) as f64)
        }));
    }
    all.push(series(
        base_s,
        &[("__name__", "sizes_bytes"), ("job", "api")],
        native,
    ));
    all
}

fn start(dir: &Path) -> Daemon {
    Setup::in_dir(&dir.join("data")).start()
}

fn feed(daemon: &Daemon, series: &[Series]) {
    for body in remote_write::requests(series) {
        let reply = remote_write::post(&daemon.api("/api/v1/write"), body);
        assert_eq!(reply.status, 204, "{}", reply.text());
    }
}

/// `{60}` stands for 60 seconds after the first sample.
fn at(text: &str, base_s: i64) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{+") {
        let (seconds, after) = after.split_once('}').unwrap();
        let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
        out.push_str(before);
        out.push_str(&(base_s + whole.parse::<i64>().unwrap()).to_string());
        if !fraction.is_empty() {
            out.push_str(&format!(".{fraction}"));
        }
        rest = after;
    }
    out + rest
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Whether the newest samples can be read.
fn wait_for_data(ask: impl Fn(&str) -> Json, base_s: i64) {
    let path = at(
        "/api/v1/query?query=count({job%3D\"api\"})&time={+1790}",
        base_s,
    );
    until("the data are there", Duration::from_secs(60), || {
        (ask(&path)["data"]["result"][0]["value"][1] == "8").then_some(())
    });
}

fn get(daemon: &Daemon, path: &str) -> Reply {
    exchange(&daemon.api(path), "GET", &[], Vec::new())
}

fn post(daemon: &Daemon, path: &str, body: &str) -> Reply {
    exchange(&daemon.api(path), "POST", &[FORM], body.as_bytes().to_vec())
}

fn success(reply: &Reply) -> Json {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), "application/json");
    let answer = reply.json();
    assert_eq!(answer["status"], "success", "{answer:#}");
    answer["data"].clone()
}

#[test]
fn methods_codings_and_origins_are_as_http_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path());
    let ask = |method: &str, path: &str, headers: &[(&str, &str)]| {
        exchange(&daemon.api(path), method, headers, Vec::new())
    };
    let put = ask("PUT", "/api/v1/query", &[]);
    assert_eq!(
        (put.status, put.text().as_str()),
        (405, "Method Not Allowed\n")
    );
    assert_eq!(put.header("allow"), "GET, HEAD, POST");
    let unknown = ask("GET", "/api/v1/nothing", &[]);
    assert_eq!(
        (unknown.status, unknown.text().as_str()),
        (404, "404 page not found\n")
    );

    let deflate = [("accept-encoding", "br, deflate, gzip")];
    let packed = ask("GET", "/api/v1/query?query=1&time=4", &deflate);
    assert_eq!(packed.header("content-encoding"), "deflate");
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(packed.body.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    let expected = r#"{"status":"success","data":{"resultType":"scalar","result":[4,"1"]}}"#;
    assert_eq!(text, expected);
    let vary: Vec<_> = packed.headers.get_all("vary").iter().collect();
    assert!(
        vary.iter().any(|value| *value == "Accept-Encoding"),
        "{vary:?}"
    );

    // Pages of this machine may read, others may not; and nobody is kept from asking by POST.
    let local = [("origin", "http://localhost:3000")];
    let options = ask("OPTIONS", "/api/v1/query", &local);
    assert_eq!((options.status, options.text().as_str()), (204, ""));
    assert_eq!(
        options.header("access-control-allow-origin"),
        "http://localhost:3000"
    );
    assert_eq!(
        options.header("access-control-allow-methods"),
        "GET, POST, OPTIONS"
    );
    let query = "/api/v1/query?query=1&time=4";
    let own = ask("POST", query, &local);
    assert_eq!(
        own.header("access-control-allow-origin"),
        "http://localhost:3000"
    );
    let foreign = ask("POST", query, &[("origin", "https://example.org")]);
    assert_eq!(
        (
            foreign.status,
            foreign.header("access-control-allow-origin")
        ),
        (200, "")
    );
    let event = ask("POST", "/v1/events", &[("origin", "https://example.org")]);
    assert_eq!(
        event.status, 403,
        "what changes something is refused as before"
    );
}

#[test]
fn a_query_ends_with_its_time_and_with_its_client() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Setup::in_dir(&dir.path().join("data"))
        .set("QUERY_CONCURRENCY", "1")
        .start();
    // Nested subqueries over nothing but numbers, which would run for hours.
    let mut endless = "vector(1)".to_owned();
    for _ in 0..4 {
        endless = format!("sum_over_time(({endless})[1000s:1s])");
    }
    let endless = encoded(&format!("sum_over_time(({endless})[900000s:1s])"));
    let late = get(
        &daemon,
        &format!("/api/v1/query?query={endless}&timeout=100ms"),
    );
    assert_eq!(late.status, 503, "{}", late.text());
    assert_eq!(
        late.json(),
        json!({
            "status": "error", "errorType": "timeout",
            "error": "query timed out in expression evaluation"
        })
    );
    // This one's client goes away; the one turn there is must be free then.
    let url = daemon.api(&format!("/api/v1/query?query={endless}"));
    let left = crate::harness::block_on(async {
        let client = reqwest::Client::new();
        client
            .get(url)
            .timeout(Duration::from_millis(300))
            .send()
            .await
    });
    assert!(left.unwrap_err().is_timeout());
    let next = get(&daemon, "/api/v1/query?query=1&time=4&timeout=20s");
    assert_eq!(next.status, 200, "{}", next.text());
}
