//! `slogate backtest` on folders as people would record them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};
use slogate::model::time::to_rfc3339;
use slogate_series::{Labels, Sample, Series, Value};

use crate::harness::{Setup, binary, remote_write};

/// When the recordings begin, in seconds.
const T0: i64 = 1_763_000_000;

/// When the rollouts begin, in seconds after the recordings' begin.
const BEGIN: i64 = 1_200;

/// Seconds between samples.
const STEP: i64 = 15;

/// How a side behaves.
#[derive(Clone, Copy)]
struct Arm {
    /// Requests in a step.
    rate: i64,
    /// Of a thousand requests so many fail.
    failing: i64,
    /// Of a thousand requests so many take at most 100, 200, 400 and 800 ms.
    within: [i64; 4],
}

const BASELINE: Arm = Arm {
    rate: 6_000,
    failing: 2,
    within: [500, 900, 980, 999],
};

const GOOD: Arm = Arm {
    rate: 3_000,
    ..BASELINE
};

const BAD: Arm = Arm {
    failing: 60,
    ..GOOD
};

const SLOW: Arm = Arm {
    within: [100, 500, 900, 990],
    ..GOOD
};

/// A side's running totals at a step.
struct Totals {
    t: i64,
    candidate: bool,
    copy: i64,
    all: i64,
    failed: i64,
    /// At most 100 ms, 200 ms, 400 ms, 800 ms.
    buckets: [i64; 4],
}

/// What three copies of the baseline and two of the candidate have counted, step by step. There is
/// no chance in it: who fails is spread evenly.
fn totals(candidate: Arm, minutes: i64) -> Vec<Totals> {
    let mut found = Vec::new();
    for step in 0..(BEGIN + minutes * 60) / STEP {
        for copy in 0..5 {
            let is_candidate = copy >= 3;
            let t = step * STEP;
            let alive = if is_candidate { t - BEGIN } else { t };
            if alive < 0 {
                continue;
            }
            let arm = if is_candidate { candidate } else { BASELINE };
            let all = (alive / STEP + 1) * arm.rate;
            found.push(Totals {
                t: T0 + t,
                candidate: is_candidate,
                copy,
                all,
                failed: all * arm.failing / 1000,
                buckets: arm.within.map(|part| all * part / 1000),
            });
        }
    }
    found
}

/// OpenMetrics with the labels that most people would choose.
fn open_metrics(candidate: Arm, minutes: i64) -> String {
    let mut text = String::from(
        "# TYPE http_requests counter\n# TYPE http_request_duration_seconds histogram\n",
    );
    for one in totals(candidate, minutes) {
        let version = if one.candidate { "4.2.0" } else { "4.1.0" };
        let labels = format!(
            "service=\"checkout\",version=\"{version}\",instance=\"10.0.0.{}:80\"",
            one.copy
        );
        let t = one.t;
        let good = one.all - one.failed;
        writeln!(
            text,
            "http_requests_total{{{labels},code=\"200\"}} {good} {t}"
        )
        .unwrap();
        writeln!(
            text,
            "http_requests_total{{{labels},code=\"503\"}} {} {t}",
            one.failed
        )
        .unwrap();
        for (bound, count) in ["0.1", "0.2", "0.4", "0.8"].iter().zip(one.buckets) {
            writeln!(
                text,
                "http_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {count} {t}"
            )
            .unwrap();
        }
        writeln!(
            text,
            "http_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {} {t}",
            one.all
        )
        .unwrap();
    }
    text.push_str("# EOF\n");
    text
}

fn at(second: i64) -> String {
    to_rfc3339((T0 + second) * 1000)
}

fn started() -> String {
    let event = json!({
        "type": "deployment.started", "service": "checkout", "environment": "production",
        "artifact": { "version": "4.2.0" }, "previous": { "version": "4.1.0" }, "time": at(BEGIN),
    });
    format!("{event}\n")
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn put(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path
    }

    /// Runs the command on the folder; its exit code, standard output and standard error.
    fn backtest(&self, args: &[&str]) -> (i32, String, String) {
        let output = binary()
            .arg("backtest")
            .args(args)
            .current_dir(self.path())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn json(&self, args: &[&str]) -> (i32, Json) {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        let (code, out, err) = self.backtest(&all);
        let report = serde_json::from_str(&out);
        (
            code,
            report.unwrap_or_else(|error| panic!("{error}: {out}{err}")),
        )
    }
}

fn rollout<'r>(report: &'r Json, name: &str) -> &'r Json {
    let rollouts = report["rollouts"].as_array().unwrap();
    let found = rollouts.iter().find(|one| one["rollout"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

fn assumptions(rollout: &Json) -> String {
    let all = rollout["assumptions"].as_array().unwrap();
    let lines: Vec<&str> = all.iter().map(|one| one.as_str().unwrap()).collect();
    lines.join("\n")
}

#[test]
fn good_passes_bad_and_slow_fail_and_labels_are_summed_up() {
    let folder = Folder::new();
    for (name, arm) in [("good", GOOD), ("bad", BAD), ("slow", SLOW)] {
        folder.put(&format!("{name}/metrics.om"), open_metrics(arm, 60));
        folder.put(&format!("{name}/events.jsonl"), started());
    }
    folder.put(
        "labels.json",
        r#"{"good": "good", "bad": {"label": "bad", "onset": 0}, "slow": "defective"}"#,
    );
    let (code, report) = folder.json(&["."]);
    assert_eq!(code, 0);
    let good = rollout(&report, "good");
    assert_eq!(good["results"][0]["verdict"], "pass", "{good:#}");
    assert_eq!(good["candidate"], "4.2.0");
    assert_eq!(good["baseline"], "4.1.0");
    assert_eq!(good["startedAt"], at(BEGIN));
    for name in ["bad", "slow"] {
        let failed = &rollout(&report, name)["results"][0];
        assert_eq!(failed["verdict"], "fail", "{failed:#}");
        let seconds = failed["secondsToVerdict"].as_f64().unwrap();
        assert!((10.0..900.0).contains(&seconds), "{seconds}");
        assert!(failed["requestsHarmed"].as_f64().unwrap() > 0.0);
    }
    let summary = &report["summary"][0];
    assert_eq!(summary["precision"], 1.0);
    assert_eq!(summary["recall"], 1.0);
    assert_eq!(summary["falseAlarmRate"], 0.0);
    assert!(summary["medianDelaySeconds"].as_f64().unwrap() > 0.0);

    let (code, text, _) = folder.backtest(&[".", "--html", "report.html"]);
    assert_eq!(code, 0);
    assert!(
        text.contains("bad (bad)\n  checkout 4.2.0 in production: FAIL after "),
        "{text}"
    );
    assert!(text.contains("recall"), "{text}");
    let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(
        page.contains("<polyline") && !page.contains("<script"),
        "{page}"
    );
    let (_, csv, _) = folder.backtest(&[".", "--output", "csv"]);
    assert_eq!(csv.lines().count(), 4, "{csv}");

    // The same data, the same words.
    let again = folder.backtest(&[".", "--jobs", "1"]).1;
    assert_eq!(again, text);
}

#[test]
fn what_the_candidate_does_not_send_is_no_pass() {
    let folder = Folder::new();
    let text = open_metrics(GOOD, 60);
    let silent: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("4.2.0"))
        .collect();
    folder.put("silent/metrics.om", silent.join("\n"));
    folder.put("silent/events.jsonl", started());
    let (code, report) = folder.json(&["silent"]);
    assert_eq!(code, 0);
    let result = &rollout(&report, "silent")["results"][0];
    assert_eq!(result["verdict"], "inconclusive", "{result:#}");
    assert_eq!(result["noData"][0]["start"], at(BEGIN));
    assert_eq!(result["timeline"][0]["reason"], "no_data");
    assert_eq!(report["summary"][0]["noData"], 1);
}

#[test]
fn rates_become_counts_and_that_is_said() {
    let folder = Folder::new();
    for (name, arm) in [("good", GOOD), ("bad", BAD)] {
        let mut text = String::new();
        let mut before: Vec<Option<Totals>> = (0..5).map(|_| None).collect();
        for one in totals(arm, 60) {
            let place = &mut before[one.copy as usize];
            if let Some(last) = place {
                let (n, failed) = (one.all - last.all, one.failed - last.failed);
                let labels = format!(
                    "app=\"checkout\",track=\"{}\",pod=\"p{}\"",
                    if one.candidate { "canary" } else { "stable" },
                    one.copy
                );
                let t = one.t * 1000;
                let rps = n as f64 / STEP as f64;
                writeln!(text, "request_rate{{{labels}}} {rps} {t}").unwrap();
                writeln!(
                    text,
                    "error_ratio{{{labels}}} {} {t}",
                    failed as f64 / n as f64
                )
                .unwrap();
            }
            *place = Some(one);
        }
        folder.put(&format!("{name}/rates.prom"), text);
        folder.put(&format!("{name}/events.jsonl"), started());
    }
    let (code, report) = folder.json(&["."]);
    assert_eq!(code, 0);
    for (name, verdict) in [("good", "pass"), ("bad", "fail")] {
        let one = rollout(&report, name);
        assert_eq!(one["results"][0]["verdict"], verdict, "{one:#}");
        let said = assumptions(one);
        assert!(said.contains("there are rates and no counts"), "{said}");
        assert!(said.contains("track=\"canary\""), "{said}");
    }
}

#[test]
fn without_events_the_labels_say_what_began_when() {
    let folder = Folder::new();
    let mut text = String::new();
    for one in totals(BAD, 30) {
        let group = if one.candidate { "gray" } else { "base" };
        let labels = format!("svc=\"checkout\",group=\"{group}\",host=\"h{}\"", one.copy);
        let t = one.t * 1000;
        writeln!(text, "app_requests_total{{{labels}}} {} {t}", one.all).unwrap();
        writeln!(
            text,
            "app_request_errors_total{{{labels}}} {} {t}",
            one.failed
        )
        .unwrap();
    }
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    folder.put("one/app.prom.gz", packed.finish().unwrap());
    folder.put("one/label.txt", "bad\n");
    let (code, report) = folder.json(&["one"]);
    assert_eq!(code, 0);
    let one = rollout(&report, "one");
    assert_eq!(one["results"][0]["verdict"], "fail", "{one:#}");
    assert_eq!(one["label"], "bad");
    assert_eq!(
        (&one["candidate"], &one["baseline"]),
        (&json!("gray"), &json!("base"))
    );
    assert_eq!(one["startedAt"], at(BEGIN - STEP));
    assert!(
        assumptions(one).contains("failed: app_request_errors_total"),
        "{one:#}"
    );
}

#[test]
fn a_broken_file_is_an_error_of_its_rollout_alone() {
    let folder = Folder::new();
    folder.put("a/metrics.om", "up 1 1\nup{job=\"x\" 1 2\n");
    folder.put("b/metrics.om", open_metrics(BAD, 30));
    folder.put("b/events.jsonl", started());
    let (code, out, err) = folder.backtest(&[".", "--output", "json"]);
    assert_eq!(code, 3);
    let report: Json = serde_json::from_str(&out).unwrap();
    let error = rollout(&report, "a")["error"].as_str().unwrap();
    assert!(
        error.ends_with("metrics.om:2:15: expected a closing brace, found the end of the line"),
        "{error}"
    );
    assert!(err.contains(error), "{err}");
    assert_eq!(rollout(&report, "b")["results"][0]["verdict"], "fail");
    let (code, _, err) = folder.backtest(&["missing"]);
    assert_eq!(code, 3, "{err}");
    folder.put("c/data.bin", "x");
    let (code, _, err) = folder.backtest(&["c"]);
    assert_eq!(code, 3);
    assert!(err.contains("no rollout in c"), "{err}");
}

#[test]
fn spans_and_events_may_stand_in_json_lines() {
    let folder = Folder::new();
    let mut lines = started();
    // A line a second; the candidate takes one request of four, and every tenth of them fails.
    for second in 0..(BEGIN + 1_200) {
        let sides: &[(&str, i64, i64)] = match second < BEGIN {
            true => &[("4.1.0", 30, 0)],
            false => &[("4.1.0", 30, 0), ("4.2.0", 10, 1)],
        };
        let resources: Vec<Json> = sides
            .iter()
            .map(|(version, count, failed)| spans(second, version, *count, *failed))
            .collect();
        writeln!(lines, "{}", json!({ "resourceSpans": resources })).unwrap();
    }
    folder.put("one/all.jsonl", lines);
    let (code, report) = folder.json(&["one"]);
    assert_eq!(code, 0);
    let one = rollout(&report, "one");
    assert_eq!(one["results"][0]["verdict"], "fail", "{one:#}");
    assert_eq!(one["environment"], "production");
}

fn spans(second: i64, version: &str, count: i64, failed: i64) -> Json {
    let spans = (0..count).map(|n| {
        let start = (T0 + second) * 1_000_000_000 + n * 1_000_000;
        json!({
            "traceId": format!("{:032x}", second * 1000 + n + 1),
            "spanId": format!("{:016x}", second * 1000 + n + 1),
            "name": "GET /cart", "kind": 2,
            "startTimeUnixNano": start.to_string(),
            "endTimeUnixNano": (start + 20_000_000).to_string(),
            "status": { "code": if n < failed { 2 } else { 0 } },
        })
    });
    let attribute =
        |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    json!({
        "resource": { "attributes": [
            attribute("service.name", "checkout"),
            attribute("service.version", version),
            attribute("deployment.environment.name", "production"),
        ] },
        "scopeSpans": [{ "spans": spans.collect::<Vec<_>>() }],
    })
}

/// What a service asks of others fails; what it answers does not show it.
#[test]
fn defects_that_show_downstream_only_are_found() {
    let folder = Folder::new();
    let mut text = String::new();
    for (good, bad) in totals(GOOD, 60).iter().zip(totals(BAD, 60)) {
        let version = if good.candidate { "4.2.0" } else { "4.1.0" };
        for (kind, one) in [("SERVER", good), ("CLIENT", &bad)] {
            let labels = format!(
                "service_name=\"checkout\",service_version=\"{version}\",\
                 service_instance_id=\"i{}\",span_kind=\"SPAN_KIND_{kind}\"",
                one.copy
            );
            let name = "traces_span_metrics_calls_total";
            let (ok, failed, t) = (one.all - one.failed, one.failed, one.t);
            writeln!(
                text,
                "{name}{{{labels},status_code=\"STATUS_CODE_UNSET\"}} {ok} {t}"
            )
            .unwrap();
            writeln!(
                text,
                "{name}{{{labels},status_code=\"STATUS_CODE_ERROR\"}} {failed} {t}"
            )
            .unwrap();
        }
    }
    folder.put("one/spans.om", text);
    folder.put("one/events.jsonl", started());
    let (code, report) = folder.json(&["one"]);
    assert_eq!(code, 0);
    let result = &rollout(&report, "one")["results"][0];
    assert_eq!(result["verdict"], "fail", "{result:#}");
    assert_eq!(result["failedChecks"], json!(["errors-of-others"]));
}

#[test]
fn two_policies_stand_side_by_side() {
    let folder = Folder::new();
    folder.put("one/metrics.om", open_metrics(BAD, 30));
    folder.put("one/events.jsonl", started());
    let gate = |name: &str, worse_by: &str| {
        format!(
            "apiVersion: slogate.dev/v1\nkind: Gate\nmetadata: {{ name: {name} }}\nspec:\n  checks:\n    \
             - name: errors\n      compare: {{ sli: requests.errorRatio, worseBy: {worse_by} }}\n"
        )
    };
    folder.put("strict.yaml", gate("a", "{ absolute: 0.1% }"));
    folder.put("lax.yaml", gate("b", "{ absolute: 50% }"));
    folder.put("wrong.yaml", "kind: Gate\n");
    let (code, report) = folder.json(&["one", "--policy", "strict.yaml", "--policy", "lax.yaml"]);
    assert_eq!(code, 0);
    assert_eq!(report["summary"][0]["fail"], 1, "{report:#}");
    assert_eq!(report["summary"][1]["pass"], 1);
    let verdicts = &report["differences"][0]["verdicts"];
    assert_eq!(*verdicts, json!({ "strict": "fail", "lax": "pass" }));
    let (code, text, _) =
        folder.backtest(&["one", "--policy", "strict.yaml", "--policy", "lax.yaml"]);
    assert_eq!(code, 0);
    assert!(
        text.contains("judged differently:\n  one: lax pass, strict fail\n"),
        "{text}"
    );
    let (code, _, _) = folder.backtest(&["one", "--policy", "wrong.yaml"]);
    assert_eq!(code, 64);
}

/// A rollout of which the telemetry is in no files, and began twenty minutes ago.
#[test]
fn a_data_directory_and_a_prometheus_are_replayed_too() {
    let folder = Folder::new();
    let daemon = Setup::in_dir(&folder.path().join("data")).start();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64;
    let shift = now - (T0 + BEGIN + 1_200);
    let mut series: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
    for one in totals(BAD, 20) {
        let version = if one.candidate { "4.2.0" } else { "4.1.0" };
        let copy = format!("10.0.0.{}:80", one.copy);
        for (code, count) in [("200", one.all - one.failed), ("503", one.failed)] {
            let labels = Labels::from_pairs([
                ("__name__", "http_requests_total"),
                ("service", "checkout"),
                ("version", version),
                ("instance", copy.as_str()),
                ("code", code),
            ]);
            series.entry(labels).or_default().push(Sample {
                t_ms: (one.t + shift) * 1000,
                start_ms: 0,
                value: Value::Float(count as f64),
            });
        }
    }
    let series = series.into_iter();
    let series: Vec<Series> = series
        .map(|(labels, samples)| Series { labels, samples })
        .collect();
    for body in remote_write::requests(&series) {
        let reply = remote_write::post(&daemon.api("/api/v1/write"), body);
        assert!((200..300).contains(&reply.status), "{}", reply.text());
    }
    let event = json!({
        "type": "deployment.started", "service": "checkout", "artifact": { "version": "4.2.0" },
        "previous": { "version": "4.1.0" }, "time": to_rfc3339((now - 1_200) * 1000),
    });
    daemon.event(&event);
    folder.put("events.jsonl", event.to_string());

    let url = daemon.api("");
    let (code, report) = folder.json(&["events.jsonl", "--source", &url, "--mapping", "plain"]);
    assert_eq!(code, 0, "{report:#}");
    let failed = &report["rollouts"][0]["results"][0];
    assert_eq!(failed["verdict"], "fail", "{report:#}");
    assert!(failed["secondsToVerdict"].as_f64().unwrap() < 1_200.0);

    // While it runs, and after it.
    let of_data_dir = || folder.json(&["--data-dir", "data", "--mapping", "plain"]);
    let (code, report) = of_data_dir();
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(
        report["rollouts"][0]["results"][0]["verdict"], "fail",
        "{report:#}"
    );
    assert!(daemon.stop().success());
    let (_, again) = of_data_dir();
    assert_eq!(
        again["rollouts"][0]["results"][0]["verdict"], "fail",
        "{again:#}"
    );
    let (code, _, err) = folder.backtest(&["--data-dir", "missing"]);
    assert_eq!(code, 3, "{err}");
}
