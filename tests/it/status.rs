//! What only slogate knows is to be had with PromQL: at once, once, after a kill, and elsewhere.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::harness::{Daemon, Setup, block_on, peers, until};

const LIMIT: Duration = Duration::from_secs(30);

/// What is late in its series leaves within a minute.
const EXPORTED: Duration = Duration::from_secs(150);

/// The series that an expression finds now.
fn ask(daemon: &Daemon, expr: &str) -> Vec<Json> {
    let url = daemon.api("/api/v1/query");
    let answer: Json = block_on(async {
        let request = reqwest::Client::new().post(url).form(&[("query", expr)]);
        request.send().await.unwrap().json().await.unwrap()
    });
    assert_eq!(answer["status"], "success", "{answer:#}");
    answer["data"]["result"].as_array().unwrap().clone()
}

/// The values of a label of the series that an expression finds, once it finds any.
fn labels(daemon: &Daemon, expr: &str, label: &str) -> Vec<String> {
    until(expr, LIMIT, || {
        let found = ask(daemon, expr);
        let values = found.iter().map(|series| &series["metric"][label]);
        let values: Vec<_> = values
            .map(|value| value.as_str().unwrap_or("").to_owned())
            .collect();
        (!values.is_empty()).then_some(values)
    })
}

fn event(kind: &str) -> Json {
    json!({
        "type": kind, "service": "checkout", "environment": "production",
        "artifact": { "version": "4.2.0" }, "previous": { "version": "4.1.7" },
        "step": { "index": 1, "total": 4, "weight": 25 },
    })
}

/// A team that looks at its own Prometheus must see the same rollouts there.
#[test]
fn a_prometheus_that_is_written_to_knows_of_the_rollout_and_of_its_end() {
    for program in [peers::prometheus(), peers::prometheus_3()] {
        let Some(program) = program else { continue };
        let dir = tempfile::tempdir().unwrap();
        let peer = program.start(&dir.path().join("peer"), "", &[]);
        let endpoint = peer.url("/api/v1/write");
        let setup = Setup::in_dir(&dir.path().join("data")).set("EXPORT_URL", &endpoint);
        let daemon = setup.start();
        let has = |expr: &str, value: f64| {
            until(&format!("{expr} is {value} there"), EXPORTED, || {
                (peer.value(expr) == Some(value)).then_some(())
            });
        };
        daemon.event(&event("deployment.started"));
        has("slogate_deployment_weight_ratio", 0.25);
        has("slogate_deployment_phase{phase=\"progressing\"}", 1.0);
        has("sum(slogate_verdict)", 1.0);
        daemon.event(&event("deployment.succeeded"));
        has("slogate_deployment_phase{phase=\"progressing\"}", 0.0);
        has("slogate_deployment_phase{phase=\"succeeded\"}", 1.0);
        has("sum(count_over_time(slogate_deployment_event[1h]))", 2.0);
        has("max(count_over_time(slogate_deployment_event[1h]))", 1.0);
    }
}

#[test]
fn a_rollout_is_told_at_once_and_its_events_once_even_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::in_dir(&dir.path().join("data"));
    let daemon = setup.start();
    daemon.event(&event("deployment.started"));
    let phase = labels(&daemon, "slogate_deployment_phase == 1", "phase");
    assert_eq!(phase, ["progressing"]);
    let baseline = labels(&daemon, "slogate_deployment_info", "baseline_version");
    assert_eq!(baseline, ["4.1.7"]);
    let weight = labels(
        &daemon,
        "slogate_deployment_weight_ratio == 0.25",
        "version",
    );
    assert_eq!(weight, ["4.2.0"]);
    // Nothing is decided without telemetry.
    let verdict = labels(
        &daemon,
        "slogate_verdict{verdict=~\"inconclusive|pending\"} == 1",
        "gate",
    );
    assert_eq!(verdict, ["canary"]);
    daemon.kill();

    let daemon = setup.start();
    labels(&daemon, "slogate_build_info{job=\"slogate\"}", "version");
    daemon.event(&event("deployment.succeeded"));
    let phase = until("the end is told", LIMIT, || {
        let found = ask(&daemon, "slogate_deployment_phase == 1");
        let phase = found.first()?["metric"]["phase"].as_str()?.to_owned();
        (phase == "succeeded" && found.len() == 1).then_some(phase)
    });
    assert_eq!(phase, "succeeded");
    let counts = until("both events are told", LIMIT, || {
        let found = ask(&daemon, "count_over_time(slogate_deployment_event[1h])");
        (found.len() == 2).then_some(found)
    });
    for series in counts {
        assert_eq!(series["value"][1], "1", "{series:#}");
    }
}
