//! What only a query can say of a version: gauges, written by remote write, compared by a test
//! that may be looked at at any time and judged as Kayenta does.

use std::time::Duration;

use serde_json::{Value as Json, json};
use slogate_series::{Labels, Sample, Series, Value};

use crate::harness::{Daemon, Setup, peers, remote_write, until};

const LIMIT: Duration = Duration::from_secs(90);

const GATES: &str = r#"
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: early }
spec:
  warmUp: 1m
  soak: 0s
  decideWithin: 50m
  checks:
    - name: memory
      compare: { query: 'max(memory_mib{app="$service", service_version="$version"})', worseBy: { relative: 10% } }
---
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: kayenta }
spec:
  warmUp: 1m
  soak: 0s
  decideWithin: 15m
  checks:
    - name: canary
      kayenta:
        config:
          metrics:
            - name: memory
              query:
                type: prometheus
                metricName: memory_mib
                customInlineTemplate: 'app="${app}",service_version="${scope}"'
                labelBindings: ['zone=~"a|b"']
                groupByFields: [zone]
              groups: [saturation]
              analysisConfigurations: { canary: { direction: increase, critical: true } }
            - name: unheard
              query: { type: prometheus, customInlineTemplate: 'PromQL:sum(errors_total{v="${scope}"})' }
              groups: [errors]
              analysisConfigurations: { canary: { nanStrategy: replace, muted: true } }
        params: { app: $service }
        step: 15s
"#;

const STEP_MS: i64 = 15_000;

/// How long ago the release began.
const BEGAN_MS: i64 = 20 * 60_000;

fn memory(app: &str, version: &str, level: f64, from_ms: i64, now_ms: i64) -> Vec<Series> {
    let zone = |zone: &str, salt: i64| Series {
        labels: Labels::from_pairs([
            ("__name__", "memory_mib"),
            ("app", app),
            ("service_version", version),
            ("zone", zone),
        ]),
        samples: (from_ms / STEP_MS..=now_ms / STEP_MS)
            .map(|nth| {
                // No two neighbours are alike, and no two series.
                let wobble = ((nth * 7919 + salt * 104_729) % 101) as f64 / 101.0;
                Sample {
                    t_ms: nth * STEP_MS,
                    start_ms: 0,
                    value: Value::Float(level + wobble),
                }
            })
            .collect(),
    };
    let salt = version.len() as i64 + level as i64;
    vec![zone("a", salt), zone("b", salt + 17)]
}

fn announce(daemon: &Daemon, app: &str, began_ms: i64) {
    daemon.event(&json!({
        "type": "deployment.started", "service": app, "environment": "production",
        "time": slogate::model::time::to_rfc3339(began_ms),
        "artifact": { "version": "2.0" }, "previous": { "version": "1.0" },
    }));
}

fn decided(daemon: &Daemon, gate: &str, app: &str) -> Json {
    until(&format!("{gate} on {app}"), LIMIT, || {
        let answer = daemon.gate(gate, app, "2.0");
        matches!(answer["verdict"].as_str(), Some("pass" | "fail")).then_some(answer)
    })
}

/// The gauges of a release that needs as much as the one before, and of one that needs half more.
fn both_releases(now_ms: i64) -> Vec<Series> {
    let began_ms = now_ms - BEGAN_MS;
    let mut series = Vec::new();
    for (app, level) in [("frugal", 200.0), ("greedy", 300.0)] {
        series.extend(memory(app, "1.0", 200.0, began_ms - 1_800_000, now_ms));
        series.extend(memory(app, "2.0", level, began_ms, now_ms));
    }
    series
}

fn are_judged_right(daemon: &Daemon, now_ms: i64) {
    for (app, expected) in [("frugal", "pass"), ("greedy", "fail")] {
        announce(daemon, app, now_ms - BEGAN_MS);
        let early = decided(daemon, "early", app);
        assert_eq!(early["verdict"], expected, "{early:#}");
        let canary = decided(daemon, "kayenta", app);
        assert_eq!(canary["verdict"], expected, "{canary:#}");
    }
    let canary = daemon.gate("kayenta", "greedy", "2.0");
    let said = canary["checks"][0]["message"].as_str().unwrap();
    assert!(said.contains("critical metric memory (zone=a)"), "{said}");
    let early = daemon.gate("early", "greedy", "2.0");
    let said = early["checks"][0]["message"].as_str().unwrap();
    assert!(said.starts_with("memory: 301 against 201 on 1.0"), "{said}");
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}

#[test]
fn queries_and_canary_configs_judge_what_has_no_requests() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Setup::in_dir(dir.path()).policy(GATES).start();
    let now_ms = now_ms();
    let url = daemon.api("/api/v1/write");
    for body in remote_write::requests(&both_releases(now_ms)) {
        let reply = remote_write::post(&url, body);
        assert!(
            reply.status / 100 == 2,
            "{}: {}",
            reply.status,
            reply.text()
        );
    }
    are_judged_right(&daemon, now_ms);
}

/// Engines differ in where a range begins and in what they make of one at the top of a query.
#[test]
fn every_engine_has_the_same_points() {
    for program in [peers::prometheus(), peers::victoria_metrics()]
        .into_iter()
        .flatten()
    {
        let dir = tempfile::tempdir().unwrap();
        let peer = program.start(&dir.path().join("peer"), "", &[]);
        let now_ms = now_ms() - 2_000;
        peer.write(&both_releases(now_ms));
        // Some engines show what they took only after a while, and a canary is judged once.
        until("the series to be shown", LIMIT, || {
            let shown = peer.value("count(last_over_time(memory_mib[5m]))")?;
            (shown == 8.0).then_some(())
        });
        let settings = dir.path().join("slogate.yaml");
        let url = peer.url("");
        let text =
            format!("source: {{ kind: prometheus, url: '{url}', observeVersions: false }}\n");
        std::fs::write(&settings, text).unwrap();
        let daemon = Setup::in_dir(&dir.path().join("slogate"))
            .policy(GATES)
            .set("CONFIG", settings.to_str().unwrap())
            .start();
        are_judged_right(&daemon, now_ms);
    }
}
