//! What is sent wrong gets the documented answer, and the daemon lives on.

use std::io::Write as _;

use serde_json::json;

use crate::harness::{Daemon, Setup};

const PROTOBUF: &str = "application/x-protobuf";

/// What it is, its headers, its bytes, and the status it gets.
type BadBody = (
    &'static str,
    Vec<(&'static str, &'static str)>,
    Vec<u8>,
    u16,
);

fn started() -> (tempfile::TempDir, Daemon) {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Setup::in_dir(&dir.path().join("data")).start();
    (dir, daemon)
}

fn otlp(daemon: &Daemon, signal: &str) -> String {
    format!("http://{}/v1/{signal}", daemon.ports.otlp_http)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_protocols_own_json_examples_are_understood() {
    let Some(folder) = std::env::var_os("SLOGATE_CONFORMANCE_DIR") else {
        println!("skipped: SLOGATE_CONFORMANCE_DIR is not set");
        return;
    };
    let folder = std::path::Path::new(&folder).join("protos/otlp");
    let (_dir, daemon) = started();
    for (signal, file) in [
        ("traces", "example-trace.json"),
        ("metrics", "example-metrics.json"),
        ("logs", "example-logs.json"),
    ] {
        let body = std::fs::read(folder.join(file)).unwrap();
        let json = [("content-type", "application/json")];
        let reply = daemon.post(&otlp(&daemon, signal), &json, body);
        assert_eq!(reply.status, 200, "{file}: {}", reply.text());
        assert!(reply.header("content-type").starts_with("application/json"));
        let partial = &reply.json()["partialSuccess"];
        if signal == "metrics" {
            // Its four points are from 2018: refused by name, not dropped.
            assert_eq!(partial["rejectedDataPoints"], "4", "{partial}");
            let message = partial["errorMessage"].as_str().unwrap();
            assert!(message.contains("too old"), "{message}");
        } else {
            assert!(partial.is_null(), "{file}: {partial}");
        }
    }
}

#[test]
fn every_kind_of_bad_body_has_its_status() {
    let (_dir, daemon) = started();
    let bomb = gzip(&vec![0u8; 80 << 20]);
    assert!(bomb.len() < 1 << 20);
    let protobuf = ("content-type", PROTOBUF);
    let cases: [BadBody; 10] = [
        (
            "malformed protobuf",
            vec![protobuf],
            vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1],
            400,
        ),
        ("truncated", vec![protobuf], vec![0x0a, 0x10, 0x00], 400),
        (
            "malformed JSON",
            vec![("content-type", "application/json")],
            b"{".to_vec(),
            400,
        ),
        (
            "unknown type",
            vec![("content-type", "text/plain")],
            b"hello".to_vec(),
            415,
        ),
        ("no type", vec![], b"hello".to_vec(), 415),
        (
            "unknown encoding",
            vec![protobuf, ("content-encoding", "br")],
            vec![],
            415,
        ),
        (
            "not gzip",
            vec![protobuf, ("content-encoding", "gzip")],
            b"plain".to_vec(),
            400,
        ),
        (
            "a bomb",
            vec![protobuf, ("content-encoding", "gzip")],
            bomb,
            413,
        ),
        ("oversized", vec![protobuf], vec![0; 65 << 20], 413),
        ("empty", vec![protobuf], vec![], 200),
    ];
    for (what, headers, body, status) in cases {
        for signal in ["traces", "metrics", "logs"] {
            let reply = daemon.post(&otlp(&daemon, signal), &headers, body.clone());
            assert_eq!(reply.status, status, "{what} as {signal}: {}", reply.text());
        }
    }
    assert_eq!(daemon.get("/-/healthy").status, 200);
}

#[test]
fn events_are_refused_with_the_field_named() {
    let (_dir, daemon) = started();
    let json = [("content-type", "application/json")];
    let refused = |event: serde_json::Value| {
        let body = serde_json::to_vec(&event).unwrap();
        let reply = daemon.post(&daemon.api("/v1/events"), &json, body);
        assert_eq!(reply.status, 400, "{}", reply.text());
        reply.text()
    };
    let event = |change: serde_json::Value| {
        let mut event = json!({
            "type": "deployment.started", "service": "s", "environment": "e",
            "artifact": { "version": "1" },
        });
        for (key, value) in change.as_object().unwrap() {
            event[key] = value.clone();
        }
        event
    };
    let cases = [
        (event(json!({ "type": "deployment.exploded" })), "type"),
        (
            event(json!({ "artifact": { "digest": "latest" } })),
            "artifact.digest",
        ),
        (event(json!({ "time": "yesterday" })), "time"),
        (event(json!({ "sevrice": "s" })), "sevrice"),
        (event(json!({ "step": { "weight": 140 } })), "step.weight"),
        (
            json!([{ "type": "deployment.started", "service": "s", "artifact": { "version": "1" } }, { "type": 7 }]),
            "type",
        ),
    ];
    for (event, field) in cases {
        let said = refused(event);
        assert!(said.contains(field), "{field} is not named in {said}");
    }
    let ledger = daemon.get("/v1/ledger").json();
    assert_eq!(
        ledger["entries"].as_array().unwrap().len(),
        0,
        "a batch is taken whole or not"
    );
}

#[test]
fn unknown_paths_and_methods_answer_in_json() {
    let (_dir, daemon) = started();
    let missing = daemon.get("/v1/nothing");
    assert_eq!(missing.status, 404);
    assert!(missing.json()["error"]["message"].is_string());
    let method = daemon.get("/v1/events");
    assert_eq!(method.status, 405);
    let gate = daemon.get("/v1/gates/nope/verdict?service=s");
    assert_eq!(gate.status, 404);
    assert!(
        gate.text().contains("canary"),
        "the gates there are: {}",
        gate.text()
    );
    let query = daemon.get("/v1/gates/canary/verdict");
    assert_eq!(query.status, 400);
    assert!(query.text().contains("service"), "{}", query.text());
}
