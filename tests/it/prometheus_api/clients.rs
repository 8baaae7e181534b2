//! What reads a Prometheus, on slogate: their requests replayed, and where Go is installed Argo's
//! and Flagger's own code.

use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value as Json, json};
use slogate_series::{Series, Value};

use super::{
    FORM, at, base_s, data, encoded, feed, get, post, series, start, success, wait_for_data,
};
use crate::harness::exchange;
use crate::harness::go::Module;

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
    let share = measured[0]["value"]
        .as_str()
        .map(|text| text.trim_matches(['[', ']']));
    let share: f64 = share.and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
    assert!((share - 0.001).abs() < 1e-12, "{measured:#?}");

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
