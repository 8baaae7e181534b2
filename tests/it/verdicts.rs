//! Releases judged end to end: real exporters in, a gate's answer out.

use std::time::Duration;

use opentelemetry_otlp::Protocol;
use serde_json::{Value as Json, json};

use crate::harness::{Daemon, Setup, block_on, until};
use crate::traffic::{Behaviour, Release, serve_until};

const GATE: &str = r"
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: quick }
spec:
  warmUp: 0s
  soak: 10s
  decideWithin: 30m
  checks:
    - name: errors
      compare: { sli: requests.errorRatio, worseBy: { absolute: 0.2%, relative: 25% } }
    - name: latency
      compare: { sli: requests.duration, quantile: 0.95, worseBy: { relative: 15% } }
";

const LIMIT: Duration = Duration::from_secs(150);

struct Scenario {
    service: &'static str,
    protocol: Protocol,
    candidate: Behaviour,
    expected: &'static str,
}

fn announce(daemon: &Daemon, service: &str) {
    daemon.event(&json!({
        "type": "deployment.started", "service": service, "environment": "production",
        "artifact": { "version": "4.2.0" }, "previous": { "version": "4.1.7" },
    }));
}

/// Ships a release while the old one serves beside it, and returns the gate's first answer
/// that is a pass or a fail.
fn ship(daemon: &Daemon, scenario: &Scenario) -> Json {
    announce(daemon, scenario.service);
    block_on(async {
        let release = |version, behaviour| {
            let (ports, service) = (&daemon.ports, scenario.service);
            Release::new(ports, scenario.protocol, service, Some(version), behaviour)
        };
        let both = vec![
            release("4.1.7", Behaviour::good()),
            release("4.2.0", scenario.candidate),
        ];
        let url = daemon.api(&format!(
            "/v1/gates/quick/verdict?service={}&version=4.2.0",
            scenario.service
        ));
        let client = reqwest::Client::new();
        let mut answer = Json::Null;
        serve_until(both, LIMIT, async || {
            let response = client.get(&url).send().await.expect("an answer");
            answer = response.json().await.expect("JSON");
            matches!(answer["verdict"].as_str(), Some("pass" | "fail"))
        })
        .await;
        answer
    })
}

#[test]
fn releases_are_judged_right_over_every_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Setup::in_dir(&dir.path().join("data")).policy(GATE).start();
    let good = Behaviour::good();
    let (errors, slow) = (good.ten_times_the_errors(), good.half_again_as_slow());
    let scenario = |service, protocol, candidate, expected| Scenario {
        service,
        protocol,
        candidate,
        expected,
    };
    let scenarios = [
        scenario("grpc-good", Protocol::Grpc, good, "pass"),
        scenario("grpc-errors", Protocol::Grpc, errors, "fail"),
        scenario("grpc-slow", Protocol::Grpc, slow, "fail"),
        scenario("protobuf-good", Protocol::HttpBinary, good, "pass"),
        scenario("protobuf-errors", Protocol::HttpBinary, errors, "fail"),
        scenario("json-good", Protocol::HttpJson, good, "pass"),
        scenario("json-errors", Protocol::HttpJson, errors, "fail"),
    ];
    std::thread::scope(|scope| {
        let running = scenarios.iter().map(|scenario| {
            let daemon = &daemon;
            (scenario, scope.spawn(move || ship(daemon, scenario)))
        });
        for (scenario, thread) in running.collect::<Vec<_>>() {
            let answer = thread.join().expect("the release is shipped");
            assert_eq!(
                answer["verdict"], scenario.expected,
                "{}: {answer:#}",
                scenario.service
            );
            check_answer(&daemon, scenario, &answer);
        }
    });
    assert!(daemon.stop().success());
}

/// The answer explains itself, and so does the verdict behind it.
fn check_answer(daemon: &Daemon, scenario: &Scenario, answer: &Json) {
    for key in [
        "gate", "verdict", "reason", "message", "id", "url", "checks", "since",
    ] {
        assert!(!answer[key].is_null(), "{key} is missing in {answer:#}");
    }
    let id = answer["id"].as_str().unwrap();
    let verdict = daemon.get(&format!("/v1/verdicts/{id}")).json();
    assert_eq!(verdict["verdict"], scenario.expected);
    let decided = verdict["checks"].as_array().unwrap().iter();
    let decided: Vec<_> = decided
        .filter(|check| check["verdict"] == scenario.expected)
        .collect();
    assert!(!decided.is_empty(), "{verdict:#}");
    for check in decided {
        let evidence = &check["evidence"];
        assert_eq!(
            evidence["baseline"]["artifact"]["version"], "4.1.7",
            "{check:#}"
        );
        assert_eq!(evidence["baseline"]["kind"], "concurrent");
        assert!(evidence["candidateCounts"]["total"].as_f64().unwrap() > 1_000.0);
    }
    let expected = match scenario.service {
        "grpc-slow" => "P95: ",
        _ => "Errors: ",
    };
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains(expected), "{message}");
    assert!(message.contains("4.2.0 in production"), "{message}");
}

#[test]
fn what_is_not_known_stays_inconclusive_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Setup::in_dir(&dir.path().join("data")).policy(GATE).start();
    for service in ["silent", "untagged", "idle"] {
        announce(&daemon, service);
    }
    let asked = |service: &str, reason: &str| {
        until(
            &format!("{service} is {reason}"),
            Duration::from_secs(60),
            || {
                let answer = daemon.gate("quick", service, "4.2.0");
                let verdict = answer["verdict"].as_str().unwrap().to_owned();
                assert!(
                    verdict == "inconclusive" || verdict == "pending",
                    "{answer:#}"
                );
                (answer["reason"] == reason).then_some(answer)
            },
        )
    };
    // Nothing at all arrives.
    let silent = asked("silent", "no_data");
    assert!(
        silent["message"]
            .as_str()
            .unwrap()
            .contains("Nothing was received from 4.2.0")
    );
    // Telemetry arrives and does not say which version it is from.
    block_on(async {
        let ports = &daemon.ports;
        let good = Behaviour::good();
        let mut untagged = Release::new(ports, Protocol::Grpc, "untagged", None, good);
        let mut idle = Release::new(ports, Protocol::Grpc, "idle", Some("4.1.7"), good);
        for _ in 0..3 {
            untagged.serve_batch().await.unwrap();
            idle.serve_batch().await.unwrap();
        }
    });
    let untagged = until("the missing tag is named", Duration::from_secs(60), || {
        let answer = asked("untagged", "no_data");
        answer["message"]
            .as_str()
            .unwrap()
            .contains("service.version")
            .then_some(answer)
    });
    assert_ne!(untagged["verdict"], "pass");
    // Only the old version has traffic.
    asked("idle", "no_data");
    // A version that nobody heard of.
    let unknown = daemon.gate("quick", "nowhere", "1.0.0");
    assert_eq!(
        (unknown["verdict"].as_str(), unknown["reason"].as_str()),
        (Some("pending"), Some("no_deployment"))
    );
}

#[test]
fn a_version_that_nobody_announced_is_noticed_and_judged() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Setup::in_dir(&dir.path().join("data")).policy(GATE).start();
    block_on(async {
        let release = |version| {
            Release::new(
                &daemon.ports,
                Protocol::Grpc,
                "quiet",
                Some(version),
                Behaviour::good(),
            )
        };
        let client = reqwest::Client::new();
        let url = daemon.api("/v1/deployments?service=quiet");
        let known = async |version: &str| {
            let list: Json = client.get(&url).send().await.unwrap().json().await.unwrap();
            let found = list["deployments"].as_array().unwrap().iter();
            found
                .clone()
                .find(|one| one["artifact"]["version"] == version)
                .cloned()
        };
        serve_until(vec![release("1.0.0")], LIMIT, async || {
            known("1.0.0").await.is_some()
        })
        .await;
        let both = vec![release("1.0.0"), release("1.1.0")];
        serve_until(both, LIMIT, async || known("1.1.0").await.is_some()).await;
        let found = known("1.1.0").await.unwrap();
        assert_eq!(found["origin"], "observed");
        assert_eq!(found["phase"], "progressing");
        let answer = daemon_answer(&daemon, &client).await;
        assert_eq!(answer["deployment"], found["id"]);
    });
}

async fn daemon_answer(daemon: &Daemon, client: &reqwest::Client) -> Json {
    let url = daemon.api("/v1/gates/quick/verdict?service=quiet&version=1.1.0");
    client.get(url).send().await.unwrap().json().await.unwrap()
}
