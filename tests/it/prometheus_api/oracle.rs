//! The same requests to slogate and to a real Prometheus, byte by byte.
//!
//! Prometheus 3 where it can be built, else the installed 2.42, which is held to fewer of them.

use serde_json::Value as Json;

use super::{FORM, at, base_s, data, encoded, feed, start, wait_for_data};
use crate::harness::peers::{self, Peer};
use crate::harness::{Daemon, exchange};

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
            if ours != theirs {
                differences.push(format!("{method} {path}\n  {theirs:?}\n  {ours:?}"));
            }
        }
    }
    let list = differences.join("\n");
    assert!(differences.is_empty(), "of {count}:\n{list}");
    assert!(count > 80, "only {count} requests");
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
