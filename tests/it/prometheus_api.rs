//! The Prometheus API as its clients meet it: the same requests to slogate and to a real
//! Prometheus on the same data are answered with the same bytes, and what Grafana, Flagger, Argo
//! Rollouts and promtool send is answered as they expect it.

use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};
use slogate_series::{Buckets, Histogram, Labels, Sample, Series, Value};

use crate::harness::go::Module;
use crate::harness::peers::{self, Peer};
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

/// Queries that both answer with the same bytes, at one time.
const INSTANT: &[&str] = &[
    "1 + 1",
    "-1e-7",
    "123456789012345678901234",
    "1 / 0",
    "0 / 0",
    "time()",
    "\"<text> & more\"",
    "vector(1e-7)",
    "vector(1/3)",
    "vector(0) * -1",
    "nothing",
    "sort(requests_total)",
    "sort_desc(requests_total)",
    "topk(2, requests_total)",
    "sum by (job) (requests_total)",
    "sort(sum by (code) (rate(requests_total[5m])))",
    "requests_total{code=\"200\",instance=\"b\"}[1m]",
    "temperature_celsius{room=\"<kitchen>\"}[3m]",
    "rate(requests_total{instance=\"b\"}[5m])",
    "increase(requests_total{code=\"500\"}[10m])",
    "histogram_quantile(0.9, rate(latency_seconds_bucket[5m]))",
    "sort(requests_total and on(instance) requests_total{code=\"500\"})",
    "label_replace(vector(1), \"place\", \"<&>\", \"\", \"\")",
    "absent(nothing{job=\"api\"})",
    "requests_total{code=\"500\"} @ {+900}",
    "requests_total{code=\"500\"} offset 5m",
    "max_over_time(requests_total{code=\"500\"}[10m:1m])",
    "scalar(requests_total{code=\"500\"})",
];

/// The same that only Prometheus 3 answers so: native histograms, annotations, formats.
const INSTANT_3: &[&str] = &[
    "sizes_bytes",
    "sizes_bytes[1m]",
    "-sizes_bytes",
    "histogram_avg(sizes_bytes)",
    "histogram_quantile(0.7, sizes_bytes)",
    "rate(sizes_bytes[5m])",
    "rate(temperature_celsius{room=\"<kitchen>\"}[5m])",
    "quantile(2, requests_total)",
    "sum(sizes_bytes) + sum(requests_total)",
];

const RANGE: &[&str] = &[
    "1",
    "time()",
    "vector(1e-7)",
    "nothing",
    "requests_total",
    "sum by (code) (rate(requests_total[5m]))",
    "temperature_celsius{room=\"<kitchen>\"}",
    "histogram_quantile(0.5, sum by (le) (rate(latency_seconds_bucket[5m])))",
    "requests_total > 1000",
    "count_over_time(requests_total{code=\"500\"}[2m])",
];

const RANGE_3: &[&str] = &["sizes_bytes", "rate(sizes_bytes[5m])"];

/// Look-ups, parameters and mistakes that both answer with the same bytes.
const OTHERS: &[&str] = &[
    "labels?start={+0}&end={+1800}",
    "labels?match[]=requests_total&start={+0}&end={+1800}",
    "labels?match[]=requests_total&match[]=temperature_celsius",
    "label/__name__/values?match[]={job=\"api\"}",
    "label/room/values",
    "label/instance/values?match[]=requests_total{code=\"500\"}",
    "label/nothing/values",
    "series?match[]=requests_total{code=\"500\"}&start={+0}&end={+1800}",
    "series?match[]=nothing",
    "series?match[]={__name__=~\"temp.*\"}&match[]=requests_total{code=\"500\"}",
    "series",
    "series?match[]={}",
    "series?match[]={a=~\".*\"}",
    "labels?match[]={}",
    "query?query=1&time=2015-07-01T20:10:51.781Z",
    "query?query=1&timeout=1ns",
    "query_range?query=1&start=0&end=11001&step=1",
    "query_range?query=1&start=1&end=0&step=1",
    "query_range?query=1&start=0&end=1&step=0",
    "query_range?query=1&start=0&end=1",
    "query_range?query=1&end=1&step=1",
    "query_exemplars?query=nothing&start={+0}&end={+60}",
    "query_exemplars?query=1",
    "query_exemplars?query=test&start=2&end=1",
    "query_exemplars?query=test&start=1795189907000&end=1795189909000",
    "rules",
    "alerts",
    "format_query?query=foo/bar",
    "nothing",
];

const OTHERS_3: &[&str] = &[
    "labels?start=x",
    "query?query=up&time=x",
    "labels?limit=2",
    "label/room/values?limit=0",
    "label/room/values?limit=2",
    "label/U__ro_6f_m/values",
    "label/U__/values",
    "series?match[]=requests_total&limit=-1",
    "query?query=1&limit=x",
    "query?query=1&limit=99999999999999999999",
    "query?query=1&lookback_delta=x",
    "query?query=requests_total{code=\"500\"}&time={+1900}&lookback_delta=10s",
    "query?query=sort(requests_total)&time={+900}&limit=1",
    "query_range?query=sum(nothing)&start={+0}&end={+60}&step=1e40",
    "query_range?query=\"text\"&start={+0}&end={+60}&step=15",
    "query_range?query=requests_total[5m]&start={+0}&end={+60}&step=15",
    "query_range?query=requests_total&start={+0}&end={+60}&step=15&limit=1",
    "query?query=requests_total{code=\"200\"}*on(job)requests_total{code=\"500\"}&time={+900}",
    "query?query=label_replace(requests_total,\"instance\",\"\",\"\",\"\")&time={+900}",
    "rules?type=x",
    "rules?group_limit=0",
    "rules?group_next_token=x",
    "rules?exclude_alerts=x",
    "format_query?query=sum by (job, instance, method, status_code) (rate(http_requests_total{\
     job=\"api\", environment=~\"prod|staging\"}[5m])) / on(job) group_left sum by (job) \
     (rate(http_requests_total{job=\"api\"}[5m])) > 0.05 and up",
    "status/tsdb?limit=0",
    "status/tsdb?limit=100000",
];

/// The requests of the tables as paths.
fn requests(base_s: i64, is_3: bool) -> Vec<String> {
    let both = |all: &[&str], only_3: &[&str]| -> Vec<String> {
        let only_3 = if is_3 { only_3 } else { &[] };
        let all = all.iter().chain(only_3);
        all.map(|text| at(text, base_s)).collect()
    };
    let mut paths = Vec::new();
    for query in both(INSTANT, INSTANT_3) {
        let time = at("{+903.05}", base_s);
        paths.push(format!("query?time={time}&query={}", encoded(&query)));
    }
    for query in both(RANGE, RANGE_3) {
        let range = at("start={+60}&end={+1860.5}&step=30", base_s);
        paths.push(format!("query_range?{range}&query={}", encoded(&query)));
    }
    for path in both(OTHERS, OTHERS_3) {
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let pairs: Vec<String> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap();
                format!("{}={}", encoded(name), encoded(value))
            })
            .collect();
        paths.push(format!("{path}?{}", pairs.join("&")));
    }
    paths
}

/// An answer that a test of bytes compares: nothing in it depends on the clock.
fn compared(url: &str, method: &str, path: &str) -> (u16, String) {
    let (path, headers, body) = match method {
        "POST" => {
            let (path, body) = path.split_once('?').unwrap_or((path, ""));
            (path.to_owned(), vec![FORM], body.as_bytes().to_vec())
        }
        _ => (path.to_owned(), Vec::new(), Vec::new()),
    };
    let reply = exchange(&format!("{url}/api/v1/{path}"), method, &headers, body);
    (reply.status, reply.text())
}

/// Byte by byte, except that the bounds of exponential buckets may differ in the last place:
/// Prometheus has them in a table in which not all are the floats next to the power of two.
fn is_same(ours: &(u16, String), theirs: &(u16, String)) -> bool {
    if ours == theirs || !theirs.1.contains("\"buckets\":") {
        return ours == theirs;
    }
    let (a, b) = (ours.1.split('"'), theirs.1.split('"'));
    let is_near = |a: &str, b: &str| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-15 * b.abs(),
        _ => false,
    };
    ours.0 == theirs.0
        && a.clone().count() == b.clone().count()
        && a.zip(b).all(|(a, b)| a == b || is_near(a, b))
}

fn without_escapes(text: &str) -> String {
    let text = text.replace("\\u003c", "<").replace("\\u003e", ">");
    text.replace("\\u0026", "&")
}

fn compare(daemon: &Daemon, peer: &Peer, base_s: i64, is_3: bool) {
    let posted = [
        "query",
        "query_range",
        "labels",
        "series",
        "query_exemplars",
    ];
    let (mut count, mut differences) = (0, Vec::new());
    for path in requests(base_s, is_3) {
        let name = path.split('?').next().unwrap();
        let methods: &[&str] = if posted.contains(&name) {
            &["GET", "POST"]
        } else {
            &["GET"]
        };
        for method in methods {
            let mut theirs = compared(&peer.url(""), method, &path);
            let mut ours = compared(&daemon.api(""), method, &path);
            if !is_3 {
                // It escapes for HTML in labels too.
                theirs.1 = without_escapes(&theirs.1);
                ours.1 = without_escapes(&ours.1);
            }
            count += 1;
            if !is_same(&ours, &theirs) {
                differences.push(format!("{method} {path}\n  {theirs:?}\n  {ours:?}"));
            }
        }
    }
    let list = differences.join("\n");
    assert!(differences.is_empty(), "of {count}:\n{list}");
    assert!(count > 80, "only {count} requests");
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

#[test]
fn the_same_requests_are_answered_with_the_bytes_of_a_prometheus() {
    let (program, is_3) = match (peers::prometheus_3(), peers::prometheus()) {
        (Some(program), _) => (program, true),
        (None, Some(program)) => (program, false),
        (None, None) => return,
    };
    let dir = tempfile::tempdir().unwrap();
    let base_s = base_s();
    let peer = program.start(&dir.path().join("peer"), "", &[]);
    let daemon = start(dir.path());
    let series = data(base_s);
    peer.write(&series);
    feed(&daemon, &series);
    wait_for_data(
        |path| {
            peer.ask(path)
                .map_or(Json::Null, |t| serde_json::from_str(&t).unwrap())
        },
        base_s,
    );
    wait_for_data(|path| daemon.get(path).json(), base_s);
    compare(&daemon, &peer, base_s, is_3);
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

/// What Grafana's data source asks, from "Save & test" to a dashboard and the alerting pages.
#[test]
fn grafanas_requests_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, base_s) = (start(dir.path()), base_s());
    feed(&daemon, &data(base_s));
    wait_for_data(|path| daemon.get(path).json(), base_s);

    // "Save & test": evaluated at four seconds after the epoch.
    let health = success(&post(&daemon, "/api/v1/query", "query=1%2B1&time=4"));
    assert_eq!(
        health,
        json!({ "resultType": "scalar", "result": [4, "2"] })
    );
    for method in ["GET", "POST"] {
        let url = daemon.api("/api/v1/status/buildinfo");
        let info = success(&exchange(&url, method, &[], Vec::new()));
        let version = info["version"].as_str().unwrap();
        assert!(version >= "2.24.0", "{version}");
        assert!(
            info.get("features").is_none(),
            "it would be taken for a Mimir"
        );
    }
    // What it probes when it is opened: exemplars (with milliseconds for seconds), rules.
    let now_ms = base_s * 1000;
    let probe = format!("query=test&start={}&end={now_ms}", now_ms - 900_000);
    let found = success(&post(&daemon, "/api/v1/query_exemplars", &probe));
    assert_eq!(found, json!([]));
    assert_eq!(
        success(&get(&daemon, "/api/v1/rules")),
        json!({ "groups": [] })
    );

    // Pickers, with its limits and whole seconds.
    let range = format!("start={base_s}&end={}&limit=40000", base_s + 1800);
    let names = success(&get(
        &daemon,
        &format!("/api/v1/label/__name__/values?{range}"),
    ));
    let all = [
        "latency_seconds_bucket",
        "requests_total",
        "sizes_bytes",
        "temperature_celsius",
    ];
    for name in all {
        assert!(names.as_array().unwrap().contains(&json!(name)), "{names}");
    }
    let labels = success(&post(
        &daemon,
        "/api/v1/labels",
        &format!("{range}&match%5B%5D=requests_total"),
    ));
    assert_eq!(labels, json!(["__name__", "code", "instance", "job"]));
    // Suggestions are posted to label values too, with the parameters in the URL.
    let suggested = format!(
        "/api/v1/label/code/values?{range}&match[]=%7Bjob%3D%22api%22%7D&match[]=requests_total"
    );
    let json_type = [("content-type", "application/json")];
    let codes = exchange(&daemon.api(&suggested), "POST", &json_type, b"{}".to_vec());
    assert_eq!(success(&codes), json!(["200", "500"]));
    let limited = get(&daemon, "/api/v1/label/__name__/values?limit=1");
    assert_eq!(success(&limited).as_array().unwrap().len(), 1);
    assert_eq!(
        limited.json()["warnings"],
        json!(["results truncated due to limit"])
    );
    let series = success(&get(
        &daemon,
        &format!("/api/v1/series?{range}&match[]=%7B__name__!%3D%22%22%7D"),
    ));
    assert!(series.as_array().unwrap().len() >= data(base_s).len());
    let metadata = success(&get(&daemon, "/api/v1/metadata?limit=40000"));
    assert!(metadata.is_object());

    // A panel: a range by POST with the interval as Go writes it, statistics asked for in the
    // URL, compressed.
    let panel = format!(
        "query={}&start={base_s}&end={}.5&step=15",
        encoded("sum by (code) (rate(requests_total{instance=~\"a|b\"}[1m0s]))"),
        base_s + 1800,
    );
    let headers = [FORM, ("accept-encoding", "gzip")];
    let url = daemon.api("/api/v1/query_range?stats=all");
    let reply = exchange(&url, "POST", &headers, panel.as_bytes().to_vec());
    assert_eq!(reply.header("content-encoding"), "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(reply.body.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    let place = |word: &str| text.find(word).unwrap_or_else(|| panic!("{word}: {text}"));
    assert!(
        place("\"resultType\"") < place("\"result\":"),
        "it reads a stream"
    );
    let answer: Json = serde_json::from_str(&text).unwrap();
    let result = answer["data"]["result"].as_array().unwrap();
    assert_eq!(result.len(), 2, "{answer:#}");
    assert!(result[0]["values"].as_array().unwrap().len() > 100);
    let samples = &answer["data"]["stats"]["samples"];
    assert!(
        samples["totalQueryableSamples"].as_u64().unwrap() > 300,
        "{samples}"
    );
    let timings = &answer["data"]["stats"]["timings"];
    assert!(
        timings["evalTotalTime"].as_f64().unwrap() > 0.0,
        "{timings}"
    );
    let heatmap = format!(
        "query=sizes_bytes&start={base_s}&end={}&step=60",
        base_s + 600
    );
    let heatmap = success(&post(&daemon, "/api/v1/query_range", &heatmap));
    let buckets = &heatmap["result"][0]["histograms"][5][1]["buckets"];
    assert_eq!(buckets[0][0], 1, "{heatmap:#}");

    // Alerting: which flavour it is, and whether there is a ruler.
    for path in [
        "/api/v1/status/flags",
        "/rules/test/test",
        "/config/v1/rules/test/test",
    ] {
        let reply = get(&daemon, path);
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.text().contains("page not found"), "{}", reply.text());
    }
    let listed = get(
        &daemon,
        "/api/v1/rules?file=&rule_group=&exclude_alerts=true&group_limit=40",
    );
    assert_eq!(success(&listed), json!({ "groups": [] }));
    assert_eq!(
        success(&get(&daemon, "/api/v1/alerts")),
        json!({ "alerts": [] })
    );
    // A mistake is shown in the panel.
    let wrong = post(&daemon, "/api/v1/query", "query=sum(&time=4");
    assert_eq!(
        (wrong.status, &wrong.json()["errorType"]),
        (400, &json!("bad_data"))
    );
}

/// Flagger's metric provider: GET without a time, blanks collapsed, vectors of one element.
#[test]
fn flaggers_requests_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, base_s) = (start(dir.path()), base_s());
    let online = success(&get(&daemon, "/api/v1/query?query=vector%281%29"));
    assert_eq!(online["result"][0]["value"][1], "1", "{online:#}");
    // It asks about now, so the data must reach up to now.
    let now_s = base_s + 3_600;
    let counter = |code: &str, rate: i64| {
        let labels = [
            ("__name__", "requests_total"),
            ("code", code),
            ("job", "api"),
        ];
        series(now_s - 1_800, &labels, move |n| {
            Value::Float((n * rate) as f64)
        })
    };
    feed(&daemon, &[counter("200", 99), counter("500", 1)]);
    let query = "100 - sum( rate( requests_total{ job=\"api\", code!~\"5..\" }[10m] ) ) / sum( \
                 rate( requests_total{ job=\"api\" }[10m] ) ) * 100";
    let path = format!("/api/v1/query?query={}", encoded(query).replace("%20", "+"));
    let share = success(&get(&daemon, &path));
    assert_eq!(share["resultType"], "vector");
    let elements = share["result"].as_array().unwrap();
    assert_eq!(elements.len(), 1, "{share:#}");
    assert!(elements[0].get("values").is_none());
    let value: f64 = elements[0]["value"][1].as_str().unwrap().parse().unwrap();
    assert!((value - 1.0).abs() < 1e-9, "{value}");
    let none = success(&get(&daemon, "/api/v1/query?query=nobody_sends_this"));
    assert_eq!(
        none["result"],
        json!([]),
        "it says that there are no values"
    );
    let refused = get(&daemon, "/api/v1/query?query=sum%28");
    assert_eq!(refused.status, 400);
}

/// Argo's Prometheus provider, which is Prometheus's own Go client: POST with a form and float
/// times, GET where that is refused; scalars, vectors and matrices.
#[test]
fn argos_requests_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, base_s) = (start(dir.path()), base_s());
    feed(&daemon, &data(base_s));
    wait_for_data(|path| daemon.get(path).json(), base_s);
    let time = at("{+903.137}", base_s);
    let cases = [
        ("1 + 1", json!([base_s + 903, "2"]), "scalar"),
        (
            "sum(requests_total{code=\"500\"})",
            json!([{ "metric": {}, "value": [0, "60"] }]),
            "vector",
        ),
    ];
    for (query, expected, kind) in cases {
        let form = format!("query={}&time={time}&timeout=30s", encoded(query));
        let posted = success(&post(&daemon, "/api/v1/query", &form));
        let got = success(&get(&daemon, &format!("/api/v1/query?{form}")));
        assert_eq!(posted, got);
        assert_eq!(posted["resultType"], kind);
        let value = |result: &Json| match kind {
            "scalar" => result[1].clone(),
            _ => result[0]["value"][1].clone(),
        };
        assert_eq!(value(&posted["result"]), value(&expected), "{posted:#}");
    }
    let range = at("start={+300.5}&end={+600.5}&step=60", base_s);
    let form = format!("query=sum%28requests_total%29&{range}");
    let matrix = success(&post(&daemon, "/api/v1/query_range", &form));
    assert_eq!(
        matrix["result"][0]["values"].as_array().unwrap().len(),
        6,
        "{matrix:#}"
    );
    let failed = post(
        &daemon,
        "/api/v1/query",
        "query=up%20*%20on%28%29%20up%5B5m%5D",
    );
    assert_eq!(failed.status, 400, "{}", failed.text());
}

/// Requests of checkout in production: 4.1.7 has one error in a thousand, 4.2.0 five in a hundred.
/// The samples reach from half an hour ago until now.
fn releases(now_s: i64) -> Vec<Series> {
    let counter = |version: &str, status: &str, rate: i64| {
        let labels = [
            ("__name__", "traces_span_metrics_calls_total"),
            ("deployment_environment_name", "production"),
            ("service_name", "checkout"),
            ("service_version", version),
            ("status_code", status),
        ];
        series(now_s - 1_800, &labels, move |n| {
            Value::Float((n * rate) as f64)
        })
    };
    vec![
        counter("4.1.7", "STATUS_CODE_UNSET", 999),
        counter("4.1.7", "STATUS_CODE_ERROR", 1),
        counter("4.2.0", "STATUS_CODE_UNSET", 95),
        counter("4.2.0", "STATUS_CODE_ERROR", 5),
        counter("4.3.0", "STATUS_CODE_UNSET", 10),
    ]
}

/// What a program prints, a JSON value a line.
fn lines(command: &mut Command) -> Vec<Json> {
    let output = command.output().expect("the program runs");
    let text = crate::harness::go::text(&output);
    assert!(output.status.success(), "{text}");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}"));
    printed.lines().map(read).collect()
}

/// Argo Rollouts' own Prometheus provider with the template that the docs offer, and with
/// answers of every type.
#[test]
fn argos_own_code_reads_slogate() {
    let Some(program) = crate::argo::program() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path());
    feed(&daemon, &releases(base_s() + 3_600));
    let measure = |template: &Path, args: &[&str]| {
        let args = args
            .iter()
            .map(|arg| format!("service=checkout,version={arg}"));
        let mut command = Command::new(&program);
        command.arg("-template").arg(template);
        lines(command.args(["-slogate", &daemon.api("")]).args(args))
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documented = root.join("docs/argo-rollouts/prometheus-template.yaml");
    let versions = [
        ("4.1.7", "Successful"),
        ("4.2.0", "Failed"),
        ("4.3.0", "Successful"),
        ("9.9.9", "Inconclusive"),
    ];
    let measured = measure(&documented, &versions.map(|(version, _)| version));
    for (line, (version, phase)) in measured.iter().zip(versions) {
        assert_eq!(line["phase"], phase, "{version}: {line:#}");
    }
    assert_eq!(measured[0]["value"], "[0.001]", "{measured:#?}");

    let range = json!({ "start": "now() - duration('10m')", "end": "now()", "step": "1m" });
    let cases = [
        (
            "scalar(vector(0.5))",
            Json::Null,
            "result == 0.5",
            "Successful",
        ),
        ("vector(0.5)", Json::Null, "result[0] > 1", "Failed"),
        (
            "vector(0.5)",
            range.clone(),
            "all(result, # == 0.5) && len(result) > 9",
            "Successful",
        ),
        ("sum(", Json::Null, "true", "Error"),
        (
            "traces_span_metrics_calls_total + on(service_name) traces_span_metrics_calls_total",
            range,
            "true",
            "Error",
        ),
    ];
    for (n, (query, range, condition, phase)) in cases.into_iter().enumerate() {
        let mut prometheus = json!({ "address": "{{args.slogate}}", "query": query });
        if !range.is_null() {
            prometheus["rangeQuery"] = range;
        }
        let template = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate",
            "metadata": { "name": "case" },
            "spec": {
                "args": [{ "name": "slogate" }, { "name": "service" }, { "name": "version" }],
                "metrics": [{
                    "name": "case", "successCondition": condition,
                    "provider": { "prometheus": prometheus },
                }],
            },
        });
        let path = dir.path().join(format!("{n}.yaml"));
        std::fs::write(&path, template.to_string()).unwrap();
        let measured = measure(&path, &["1"]);
        assert_eq!(measured[0]["phase"], phase, "{query}: {:#}", measured[0]);
    }
}

/// Flagger's own Prometheus provider, with the query that the docs offer.
#[test]
fn flaggers_own_code_reads_slogate() {
    let module = Module::fetched("flagger").and_then(|module| module.build(".", ""));
    let program = match module {
        Ok(program) => program,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path());
    feed(&daemon, &releases(base_s() + 3_600));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/prometheus-api.md")).unwrap();
    let template = page
        .split("```yaml\n")
        .filter_map(|block| block.split("```").next())
        .find(|block| block.contains("kind: MetricTemplate"))
        .expect("a MetricTemplate on the page");
    let template: Json = serde_saphyr::from_str(template).expect("YAML");
    let documented = template["spec"]["query"].as_str().unwrap();
    // What Flagger puts in for a canary of that name.
    let documented = documented
        .replace("{{ target }}", "checkout")
        .replace("{{ interval }}", "10m");
    assert!(!documented.contains("{{"), "{documented}");
    let queries = [
        documented.as_str(),
        "sum(rate(traces_span_metrics_calls_total{\n  service_version=\"4.2.0\"\n}[10m]))",
        "nobody_sends_this",
        "sum(rate(",
        "scalar(vector(1))",
    ];
    let mut command = Command::new(program);
    let asked = lines(command.args(["-address", &daemon.api("")]).args(queries));
    let value = |n: usize| asked[n]["value"].as_f64().unwrap();
    // 1 of 1000, 5 of 100 and 0 of 10 requests.
    let share = 100.0 * 6.0 / 1110.0;
    assert!((value(0) - share).abs() < 1e-9, "{asked:#?}");
    // 100 in 15 s, until a minute or two ago.
    assert!((5.0..6.7).contains(&value(1)), "{asked:#?}");
    let error = |n: usize| asked[n]["error"].as_str().unwrap();
    assert!(error(2).contains("no values found"), "{asked:#?}");
    assert!(
        error(3).contains("Status 400") && error(3).contains("parse error"),
        "{asked:#?}"
    );
    assert!(
        error(4).contains("unmarshaling"),
        "Flagger reads vectors only: {asked:#?}"
    );
}

#[test]
fn promtool_reads_slogate() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, base_s) = (start(dir.path()), base_s());
    let url = daemon.api("");
    let promtool = |args: &[&str]| -> Option<String> {
        let Ok(output) = Command::new("promtool").arg("query").args(args).output() else {
            println!("skipped: promtool is not installed");
            return None;
        };
        let (out, err) = (&output.stdout, &output.stderr);
        let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
        assert!(output.status.success(), "{args:?}: {out}{err}");
        Some(out.into_owned())
    };
    if promtool(&["instant", &url, "1 + 1"]).is_none() {
        return;
    }
    feed(&daemon, &data(base_s));
    wait_for_data(|path| daemon.get(path).json(), base_s);
    let (start, end) = (base_s.to_string(), (base_s + 1800).to_string());
    let said = |args: &[&str]| promtool(args).unwrap();
    let time = format!("--time={end}");
    let instant = said(&["instant", &time, &url, "requests_total{code=\"500\"}"]);
    assert!(
        instant.contains("code=\"500\"") && instant.contains("=> 119"),
        "{instant}"
    );
    let (from, to) = (format!("--start={start}"), format!("--end={end}"));
    let matrix = said(&[
        "range",
        &from,
        &to,
        "--step=5m",
        &url,
        "sum(requests_total)",
    ]);
    assert_eq!(
        matrix.lines().filter(|line| line.contains(" @[")).count(),
        6,
        "{matrix}"
    );
    let series = said(&["series", "--match=temperature_celsius", &from, &to, &url]);
    assert!(series.contains("<kitchen>"), "{series}");
    let labels = said(&["labels", &from, &to, &url, "room"]);
    assert_eq!(labels.lines().count(), 2, "{labels}");
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
