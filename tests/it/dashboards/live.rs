//! Every panel shows something: the dashboards' queries, as Grafana sends them, asked of a slogate
//! that has the demo behind it.
//!
//! The demo tells its story and stays up. What its shop does not send is added: a rollout that goes
//! on, an alert, a version that nobody announced, logs, process metrics, and what
//! kube-state-metrics and the kubelet would say.
//!
//! Then a real Prometheus is given everything that slogate's store has, by remote write, and the
//! same queries are asked of it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};
use slogate::config::data_dir::Ports;
use slogate_series::Series;

use super::variables::{self, Values};
use super::{Dashboard, alert_rules, dashboards, expressions, expressions_shown, items, text};
use crate::harness::{binary, block_on, peers, until};

/// Generous: other tests run beside it.
const LIMIT: Duration = Duration::from_secs(300);

/// What the variables of the built-in range mean, in seconds.
const RANGE_S: i64 = 3_600;

/// The step of range queries, in seconds.
const STEP_S: i64 = 15;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.expect("a time after 1970").as_millis()).expect("a near time")
}

/// A demo that has told its story and stays up; killed when dropped.
struct Demo {
    child: Child,
    ports: Ports,
    data: PathBuf,
    _scratch: tempfile::TempDir,
}

impl Demo {
    fn after_its_story() -> Demo {
        let scratch = tempfile::tempdir().expect("a folder");
        let story = scratch.path().join("story");
        let mut child = binary()
            .args(["demo", "--seed", "7", "--stay"])
            .env("TMPDIR", scratch.path())
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .stdout(fs::File::create(&story).expect("a file"))
            .spawn()
            .expect("the demo starts");
        let told = || fs::read_to_string(&story).unwrap_or_default();
        until("the demo has told its story", LIMIT, || {
            if let Some(status) = child.try_wait().expect("a child process") {
                panic!("the demo ended with {status}:\n{}", told());
            }
            told().contains("Staying up").then_some(())
        });
        let (data, ports) = until("the demo's ports", LIMIT, || {
            let mut folders = fs::read_dir(scratch.path()).ok()?.flatten();
            folders.find_map(|entry| {
                let data = entry.path().join("data");
                let ports = fs::read(data.join("ports")).ok()?;
                Some((data, serde_json::from_slice(&ports).ok()?))
            })
        });
        Demo {
            child,
            ports,
            data,
            _scratch: scratch,
        }
    }

    fn api(&self) -> String {
        format!("http://{}", self.ports.api)
    }

    fn event(&self, event: &Json) {
        let url = format!("{}/v1/events", self.api());
        post_json(&url, event).unwrap_or_else(|error| panic!("{event}: {error}"));
    }

    /// Kills it, and gives what its store has.
    fn end(&mut self) -> Vec<Series> {
        self.child.kill().expect("a running child");
        self.child.wait().expect("a child process");
        let options = slogate_tsdb::Options {
            dir: Some(self.data.join("series")),
            ..slogate_tsdb::Options::default()
        };
        let (store, _) = slogate_tsdb::Store::open(options, now_ms()).expect("the demo's series");
        store.select(&[], 0, i64::MAX)
    }

    /// What the shop does not say by itself.
    fn go_on(&self) {
        let alert = json!({
            "type": "alert.fired", "service": "checkout", "environment": "production",
        });
        self.event(&alert);
        let started = json!({
            "type": "deployment.started", "service": "checkout", "environment": "production",
            "artifact": { "version": "4.4.0" }, "previous": { "version": "4.2.0" },
            "step": { "index": 1, "total": 4, "weight": 25 },
        });
        self.event(&started);
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn post_json(url: &str, body: &Json) -> Result<(), String> {
    block_on(async {
        let request = reqwest::Client::new().post(url).json(body);
        let reply = request.send().await.map_err(|error| format!("{error:?}"))?;
        match reply.status().is_success() {
            true => Ok(()),
            false => Err(reply.text().await.unwrap_or_default()),
        }
    })
}

/// Sends more telemetry until dropped.
struct Feed {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    fn to(otlp_http: std::net::SocketAddr) -> Feed {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = stop.clone();
        let began_ms = now_ms();
        let thread = std::thread::spawn(move || {
            let mut round = 0;
            while !is_over.load(Ordering::Relaxed) {
                round += 1;
                for (signal, body) in telemetry(began_ms, now_ms(), round) {
                    let url = format!("http://{otlp_http}/v1/{signal}");
                    // The daemon may be gone already; what is missing is told by the panels.
                    let _ = post_json(&url, &body);
                }
                std::thread::sleep(Duration::from_secs(2));
            }
        });
        Feed {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn attributes(pairs: &[(&str, &str)]) -> Json {
    let one =
        |(key, value): &(&str, &str)| json!({ "key": key, "value": { "stringValue": value } });
    pairs.iter().map(one).collect()
}

/// One round of what the shop does not send, by signal.
fn telemetry(began_ms: i64, now_ms: i64, round: u32) -> Vec<(&'static str, Json)> {
    let nanos = |ms: i64| format!("{ms}000000");
    let point = |value: f64, labels: &[(&str, &str)]| {
        json!([{
            "startTimeUnixNano": nanos(began_ms), "timeUnixNano": nanos(now_ms),
            "asDouble": value, "attributes": attributes(labels),
        }])
    };
    let sum = |name: &str, unit: &str, monotonic: bool, points: Json| {
        json!({ "name": name, "unit": unit, "sum": {
            "aggregationTemporality": 2, "isMonotonic": monotonic, "dataPoints": points,
        } })
    };
    let count = f64::from(round);
    let pod = [("namespace", "shop"), ("pod", "checkout-1")];
    let waiting = [pod[0], pod[1], ("reason", "ImagePullBackOff")];
    let probe = [
        pod[0],
        pod[1],
        ("probe_type", "Readiness"),
        ("result", "failed"),
    ];
    let process = json!([
        sum("process.cpu.time", "s", true, point(count, &[])),
        sum("process.memory.usage", "By", false, point(5e7, &[])),
    ]);
    let cluster = json!([
        { "name": "kube_pod_container_status_waiting_reason",
          "gauge": { "dataPoints": point(1.0, &waiting) } },
        sum("kube_pod_container_status_restarts_total", "", true, point(count, &pod)),
        sum("prober_probe_total", "", true, point(count, &probe)),
    ]);
    let resource = |service: &str, version: &str| {
        let production = ("deployment.environment.name", "production");
        let own = [
            ("service.name", service),
            ("service.version", version),
            production,
        ];
        json!({ "attributes": attributes(&own) })
    };
    let span = |kind: u32| {
        json!({ "spans": [{
            "traceId": format!("{now_ms:032x}"), "spanId": format!("{now_ms:016x}"),
            "name": "GET /shop", "kind": kind,
            "startTimeUnixNano": nanos(now_ms - 20), "endTimeUnixNano": nanos(now_ms),
            "status": { "code": 2 },
        }] })
    };
    let record = json!({ "timeUnixNano": nanos(now_ms), "severityNumber": 9 });
    vec![
        (
            "metrics",
            json!({ "resourceMetrics": [
                { "resource": resource("checkout", "4.2.0"),
                  "scopeMetrics": [{ "metrics": process }] },
                { "resource": {}, "scopeMetrics": [{ "metrics": cluster }] },
            ] }),
        ),
        (
            "logs",
            json!({ "resourceLogs": [{
                "resource": resource("checkout", "4.2.0"),
                "scopeLogs": [{ "logRecords": [record] }],
            }] }),
        ),
        (
            "traces",
            json!({ "resourceSpans": [
                // Nobody announced that version.
                { "resource": resource("storefront", "2.4.0"), "scopeSpans": [span(2)] },
                // Refused: without a service it can't be counted for any.
                { "resource": {}, "scopeSpans": [span(2)] },
            ] }),
        ),
    ]
}

/// A Prometheus API as Grafana uses it.
struct Api {
    url: String,
    /// Whether it was given exemplars.
    has_exemplars: bool,
}

impl Api {
    /// The data of a successful answer.
    fn ask(&self, path: &str, parameters: &[(&str, String)]) -> Result<Json, String> {
        let url = format!("{}/api/v1/{path}", self.url);
        let client = reqwest::Client::new();
        // Grafana posts queries, and gets label values.
        let request = match path.starts_with("label/") {
            true => client.get(&url).query(parameters),
            false => client.post(&url).form(parameters),
        };
        let reply = block_on(async {
            let reply = request.send().await?;
            let status = reply.status();
            Ok::<_, reqwest::Error>((status, reply.text().await?))
        });
        let (status, body) = reply.map_err(|error| format!("{error:?}"))?;
        let answer: Json = serde_json::from_str(&body).map_err(|_| format!("{status}: {body}"))?;
        match answer["status"] == "success" {
            true => Ok(answer["data"].clone()),
            false => Err(format!("{status}: {}", text(&answer["error"]))),
        }
    }

    fn range_query(&self, expr: &str) -> Result<Json, String> {
        let end_s = now_ms() / 1000 / STEP_S * STEP_S;
        let parameters = [
            ("query", expr.to_owned()),
            ("start", (end_s - RANGE_S).to_string()),
            ("end", end_s.to_string()),
            ("step", STEP_S.to_string()),
        ];
        Ok(self.ask("query_range", &parameters)?["result"].take())
    }

    fn instant_query(&self, expr: &str) -> Result<Json, String> {
        let time = format!("{:.3}", now_ms() as f64 / 1000.0);
        let parameters = [("query", expr.to_owned()), ("time", time)];
        Ok(self.ask("query", &parameters)?["result"].take())
    }

    fn finds_exemplars(&self, expr: &str) -> Result<bool, String> {
        let end_s = now_ms() / 1000;
        let parameters = [
            ("query", expr.to_owned()),
            ("start", (end_s - RANGE_S).to_string()),
            ("end", end_s.to_string()),
        ];
        let found = self.ask("query_exemplars", &parameters)?;
        let has_trace = |one: &Json| one["labels"].get("trace_id").is_some();
        Ok(items(&found)
            .iter()
            .any(|s| items(&s["exemplars"]).iter().any(has_trace)))
    }

    fn label_values(&self, selector: &str, label: &str) -> Result<Vec<String>, String> {
        let end_s = now_ms() / 1000;
        let parameters = [
            ("match[]", selector.to_owned()),
            ("start", (end_s - RANGE_S).to_string()),
            ("end", end_s.to_string()),
        ];
        let found = self.ask(&format!("label/{label}/values"), &parameters)?;
        Ok(items(&found)
            .iter()
            .map(|value| text(value).to_owned())
            .collect())
    }
}

/// Which values are chosen.
#[derive(Clone, Copy)]
enum Choice<'a> {
    /// All, as the pattern that the variables have for it.
    All,
    /// Every value by its name, as when each was clicked.
    Each,
    /// The rollout of this version of checkout.
    Rollout(&'a str),
}

/// Values of the dashboard's variables, found as Grafana finds them.
fn choose(api: &Api, dashboard: &Dashboard, choice: Choice<'_>) -> Result<Values, String> {
    let mut values = Values::new();
    for variable in dashboard.variables().iter().skip(1) {
        let name = text(&variable["name"]);
        let (selector, label) = variables::label_values(variable);
        let found = api.label_values(&variables::fill(&selector, &values)?, &label)?;
        let value = match choice {
            _ if found.is_empty() => return Err(format!("${name} has nothing to choose")),
            Choice::All => ".*".to_owned(),
            Choice::Each => format!(
                "({})",
                found
                    .iter()
                    .map(|v| escape(v))
                    .collect::<Vec<_>>()
                    .join("|")
            ),
            Choice::Rollout(version) => match name {
                "service" => one_of(&found, "checkout")?,
                "environment" => one_of(&found, "production")?,
                "deployment" => {
                    let selector = format!("slogate_deployment_info{{version=\"{version}\"}}");
                    let ids = api.label_values(&selector, "deployment")?;
                    one_of(&found, ids.first().map_or("", String::as_str))?
                }
                "version" => one_of(&found, version)?,
                _ => found[0].clone(),
            },
        };
        values.insert(name.to_owned(), value);
    }
    Ok(values)
}

fn one_of(found: &[String], wanted: &str) -> Result<String, String> {
    let has = found.iter().any(|value| value == wanted);
    has.then(|| wanted.to_owned())
        .ok_or(format!("{wanted:?} is not among {found:?}"))
}

/// As Grafana escapes values for a regular expression inside of a PromQL string.
fn escape(value: &str) -> String {
    let mut escaped = String::new();
    for c in value.chars() {
        if r"$^*{}[]+?.()|\".contains(c) {
            escaped.push_str(r"\\");
        }
        escaped.push(c);
    }
    escaped
}

/// Whether an answer has a number in it.
fn has_data(result: &Json) -> bool {
    let is_number = |pair: &Json| pair[1].as_str().is_some_and(|value| value != "NaN");
    items(result).iter().any(|series| {
        let is_histogram = series
            .get("histogram")
            .or(series.get("histograms"))
            .is_some();
        is_histogram
            || is_number(&series["value"])
            || items(&series["values"]).iter().any(is_number)
    })
}

/// What of a dashboard shows nothing, and why.
fn empty_panels(api: &Api, dashboard: &Dashboard, choice: Choice<'_>) -> Vec<String> {
    let name = dashboard.name();
    let values = match choose(api, dashboard, choice) {
        Ok(values) => values,
        Err(error) => return vec![format!("{name}: {error}")],
    };
    let mut empty = Vec::new();
    for panel in dashboard.panels() {
        for target in items(&panel["targets"]) {
            let place = format!(
                "{name}: {} {}",
                text(&panel["title"]),
                text(&target["refId"])
            );
            let expr = variables::fill(text(&target["expr"]), &values).expect("known variables");
            let result = match target["instant"] == true {
                true => api.instant_query(&expr),
                false => api.range_query(&expr),
            };
            match result {
                Ok(result) if has_data(&result) => {}
                Ok(_) => empty.push(format!("{place}: nothing: {expr}")),
                Err(error) => empty.push(format!("{place}: {error}: {expr}")),
            }
            let wants_exemplars = api.has_exemplars && target["exemplar"] == true;
            if wants_exemplars && api.finds_exemplars(&expr) != Ok(true) {
                empty.push(format!("{place}: no exemplars: {expr}"));
            }
        }
    }
    empty
}

/// What of the annotations shows nothing, or at a time that is none of the demo's.
fn empty_annotations(
    api: &Api,
    dashboard: &Dashboard,
    choice: Choice<'_>,
    since_ms: i64,
) -> Vec<String> {
    let name = dashboard.name();
    let Ok(values) = choose(api, dashboard, choice) else {
        return vec![format!("{name}: no values for annotations")];
    };
    let mut empty = Vec::new();
    for (place, expr) in expressions(dashboard) {
        if !place.starts_with("annotation") {
            continue;
        }
        let expr = variables::fill(expr, &values).expect("known variables");
        match api.range_query(&expr) {
            Ok(result) if has_data(&result) => {
                for time in times(&result) {
                    let is_in_time = (since_ms as f64..=now_ms() as f64).contains(&time);
                    if !is_in_time {
                        empty.push(format!("{name}: {place}: {time} is no time of the demo's"));
                    }
                }
            }
            Ok(_) => empty.push(format!("{name}: {place}: nothing: {expr}")),
            Err(error) => empty.push(format!("{name}: {place}: {error}: {expr}")),
        }
    }
    empty
}

/// Where Grafana puts the annotations.
fn times(result: &Json) -> Vec<f64> {
    let points = items(result)
        .iter()
        .flat_map(|series| items(&series["values"]));
    points
        .filter_map(|point| text(&point[1]).parse().ok())
        .collect()
}

/// Expects that no panel and no annotation is empty, given the time that samples take.
fn expect_data(api: &Api, dashboards: &[Dashboard], since_ms: i64) {
    let (mut panels, mut annotations) = (Vec::new(), Vec::new());
    for dashboard in dashboards {
        let choices = match dashboard.name() == "rollout.json" {
            // The one that passed and the one that failed.
            true => [Choice::Rollout("4.2.0"), Choice::Rollout("4.3.0")],
            false => [Choice::All, Choice::Each],
        };
        panels.extend(choices.map(|choice| (dashboard, choice)));
        // Only of the one that failed everything is told that can be.
        annotations.push((dashboard, choices[1]));
    }
    let look = || {
        let each = panels.iter();
        let mut empty: Vec<_> = each
            .flat_map(|(dashboard, choice)| empty_panels(api, dashboard, *choice))
            .collect();
        for (dashboard, choice) in &annotations {
            empty.extend(empty_annotations(api, dashboard, *choice, since_ms));
        }
        empty
    };
    // The SLIs are written once a minute, and rates need a minute of samples.
    let deadline = now_ms() + 150_000;
    let mut empty = look();
    while !empty.is_empty() && now_ms() < deadline {
        std::thread::sleep(Duration::from_secs(2));
        empty = look();
    }
    assert!(empty.is_empty(), "{}:\n{}", api.url, empty.join("\n"));
}

#[test]
fn every_panel_shows_something_of_the_demo() {
    // Building one may take minutes, and what a panel shows of the present is gone after five.
    let programs = [peers::prometheus(), peers::prometheus_3()];
    let began_ms = now_ms();
    let mut demo = Demo::after_its_story();
    let feed = Feed::to(demo.ports.otlp_http);
    demo.go_on();
    let dashboards = dashboards();
    let own = Api {
        url: demo.api(),
        has_exemplars: true,
    };
    expect_data(&own, &dashboards, began_ms);
    for expr in expressions_shown() {
        let filled = variables::fill(&expr, &Values::new()).expect("built-in variables");
        let result = own.range_query(&filled);
        assert!(result.as_ref().is_ok_and(has_data), "{result:?} for {expr}");
    }
    for (name, expr) in alert_rules() {
        let result = own.instant_query(&expr);
        assert!(result.is_ok(), "{name}: {result:?}");
    }

    drop(feed);
    let series = demo.end();
    for program in programs.into_iter().flatten() {
        let dir = tempfile::tempdir().unwrap();
        let peer = program.start(dir.path(), "", &[]);
        peer.write(&series);
        let theirs = Api {
            url: peer.url(""),
            has_exemplars: false,
        };
        expect_data(&theirs, &dashboards, began_ms);
    }
}
