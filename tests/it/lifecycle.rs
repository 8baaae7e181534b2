//! Starting, stopping, dying and coming back.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_otlp::Protocol;
use serde_json::json;
use slogate_series::{Matcher, Value};

use crate::harness::{Daemon, Setup, binary, block_on, until};
use crate::traffic::{Behaviour, Release};

fn acknowledged_events(daemon: &Daemon) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut after = 0;
    loop {
        let page = daemon
            .get(&format!("/v1/ledger?after={after}&limit=500"))
            .json();
        let entries = page["entries"].as_array().expect("entries").clone();
        for entry in &entries {
            if entry["kind"] == "event" {
                ids.insert(entry["payload"]["id"].as_str().expect("an id").to_owned());
            }
            after = entry["seq"].as_u64().expect("a number");
        }
        if entries.is_empty() {
            return ids;
        }
    }
}

/// Everything that a counter has ever counted, over its resets.
fn counted(dir: &Path, service: &str) -> f64 {
    let options = slogate_tsdb::Options {
        dir: Some(dir.join("series")),
        ..slogate_tsdb::Options::default()
    };
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let (store, _) = slogate_tsdb::Store::open(options, now_ms).expect("a readable store");
    let matchers = [
        Matcher::equal("__name__", "traces_span_metrics_calls_total"),
        Matcher::equal("service_name", service),
    ];
    let mut total = 0.0;
    for series in store.select(&matchers, 0, i64::MAX) {
        let mut before = 0.0;
        for sample in &series.samples {
            if let Value::Float(value) = sample.value
                && value.is_finite()
            {
                total += if value >= before {
                    value - before
                } else {
                    value
                };
                before = value;
            }
        }
    }
    total
}

/// The story: a daemon under load loses power to its process again and again. Whoever got a
/// 202 for an event, or a success for spans, must find them afterwards; the ledger's chain
/// must hold; and the daemon must come back by itself each time.
#[test]
fn kill_9_in_a_loop_under_load_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let setup = Setup::in_dir(&data);
    let mut acknowledged: BTreeSet<String> = BTreeSet::new();
    let mut spans_acknowledged = 0;
    for round in 0..6 {
        let daemon = setup.start();
        let known = acknowledged_events(&daemon);
        let lost: Vec<_> = acknowledged.difference(&known).collect();
        assert!(lost.is_empty(), "lost after kill {round}: {lost:?}");
        let is_over = AtomicBool::new(false);
        let (events, spans) = std::thread::scope(|scope| {
            let events = scope.spawn(|| post_events(&daemon, round, &is_over));
            let spans = scope.spawn(|| send_spans(&daemon, &is_over));
            // Not a wait for something: this is how long the load lasts before the kill.
            std::thread::sleep(Duration::from_millis(900 + 370 * round));
            let pid = daemon.pid().to_string();
            std::process::Command::new("kill")
                .args(["-9", &pid])
                .status()
                .unwrap();
            is_over.store(true, Ordering::Relaxed);
            (events.join().unwrap(), spans.join().unwrap())
        });
        assert!(!events.is_empty() && spans > 0, "no load in round {round}");
        acknowledged.extend(events);
        spans_acknowledged += spans;
        daemon.kill();
    }
    let daemon = setup.start();
    let known = acknowledged_events(&daemon);
    assert!(
        acknowledged.is_subset(&known),
        "{} events lost",
        acknowledged.difference(&known).count()
    );
    assert!(daemon.stop().success());
    let verify = binary()
        .args(["verify", "--data-dir"])
        .arg(&data)
        .output()
        .unwrap();
    assert!(
        verify.status.success(),
        "{}",
        String::from_utf8_lossy(&verify.stdout)
    );
    let counted = counted(&data, "crashing");
    assert!(
        counted >= spans_acknowledged as f64,
        "{counted} of {spans_acknowledged} spans"
    );
}

/// Posts events until the daemon is gone; the ids of those that were acknowledged.
fn post_events(daemon: &Daemon, round: u64, is_over: &AtomicBool) -> Vec<String> {
    block_on(async {
        let client = reqwest::Client::new();
        let mut ids = Vec::new();
        for number in 0.. {
            let id = format!("{round}-{number}");
            let event = json!({
                "id": id, "source": "crash-test", "type": "deployment.started",
                "service": format!("service-{}", number % 7), "environment": "production",
                "artifact": { "version": format!("{round}.{number}.0") },
            });
            let sent = client
                .post(daemon.api("/v1/events"))
                .json(&event)
                .send()
                .await;
            match sent {
                Ok(reply) if reply.status() == 202 => ids.push(id),
                Ok(reply) => panic!("{}", reply.status()),
                Err(_) => return ids,
            }
            if is_over.load(Ordering::Relaxed) {
                return ids;
            }
        }
        ids
    })
}

/// Sends spans until the daemon is gone; how many were acknowledged.
fn send_spans(daemon: &Daemon, is_over: &AtomicBool) -> u64 {
    block_on(async {
        let behaviour = Behaviour {
            requests: 50,
            ..Behaviour::good()
        };
        let mut release = Release::new(
            &daemon.ports,
            Protocol::HttpBinary,
            "crashing",
            Some("1"),
            behaviour,
        );
        let mut acknowledged = 0;
        while !is_over.load(Ordering::Relaxed) {
            match release.serve_batch().await {
                Ok(count) => acknowledged += count,
                Err(_) => break,
            }
        }
        acknowledged
    })
}

#[test]
fn a_second_daemon_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let daemon = Setup::in_dir(&data).start();
    let refused = Setup::in_dir(&data).start_refused();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("in use by another slogate"), "{said}");
    assert!(said.contains(&data.display().to_string()), "{said}");
    assert_eq!(
        daemon.get("/-/ready").status,
        200,
        "the first one is not disturbed"
    );
}

#[test]
fn a_directory_from_a_newer_version_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    assert!(Setup::in_dir(&data).start().stop().success());
    fs::write(data.join("FORMAT"), "999\n").unwrap();
    let before = fs::read(data.join("records.sqlite")).unwrap();
    let refused = Setup::in_dir(&data).start_refused();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("999"), "{said}");
    assert_eq!(fs::read(data.join("records.sqlite")).unwrap(), before);
}

#[test]
fn stopping_keeps_what_was_received_and_verdicts_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // A flush that hardly comes by itself: what is there afterwards was flushed by the stop.
    let setup = Setup::in_dir(&data).set("INGEST_FLUSH_INTERVAL", "1m");
    let daemon = setup.start();
    let sent = block_on(async {
        let good = Behaviour::good();
        let mut release = Release::new(&daemon.ports, Protocol::Grpc, "stopping", Some("1"), good);
        release.serve_batch().await.unwrap()
    });
    daemon.event(&json!({
        "type": "deployment.started", "service": "stopping", "environment": "production",
        "artifact": { "version": "2" },
    }));
    let first = until("a verdict", Duration::from_secs(20), || {
        let answer = daemon.gate("canary", "stopping", "2");
        answer["id"].is_string().then_some(answer)
    });
    assert!(daemon.stop().success());
    assert!(!data.join("ports").try_exists().unwrap());
    assert_eq!(counted(&data, "stopping"), sent as f64);
    let daemon = setup.start();
    let again = daemon.gate("canary", "stopping", "2");
    assert_eq!(
        (&again["verdict"], &again["since"]),
        (&first["verdict"], &first["since"])
    );
    let recorded = daemon.get(&format!("/v1/verdicts/{}", first["id"].as_str().unwrap()));
    assert_eq!(recorded.status, 200, "{}", recorded.text());
}

#[test]
fn a_ledger_that_somebody_edited_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let daemon = Setup::in_dir(&data).start();
    for number in 0..5 {
        daemon.event(&json!({
            "id": number.to_string(), "type": "deployment.started", "service": "edited",
            "environment": "production", "artifact": { "version": number.to_string() },
        }));
    }
    assert!(daemon.stop().success());
    let verify = || {
        binary()
            .args(["verify", "--data-dir"])
            .arg(&data)
            .output()
            .unwrap()
    };
    let clean = verify();
    assert!(
        clean.status.success(),
        "{}",
        String::from_utf8_lossy(&clean.stderr)
    );
    let records = rusqlite::Connection::open(data.join("records.sqlite")).unwrap();
    // Whoever means to edit takes the guards away first.
    let guards: Vec<String> = records
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .and_then(|mut found| found.query_map([], |row| row.get(0))?.collect())
        .unwrap();
    for guard in guards {
        records
            .execute(&format!("DROP TRIGGER {guard}"), [])
            .unwrap();
    }
    records
        .execute(
            "UPDATE ledger SET payload = replace(payload, 'edited', 'EDITED') WHERE seq = 3",
            [],
        )
        .unwrap();
    drop(records);
    let broken = verify();
    assert_eq!(broken.status.code(), Some(1));
    let said = String::from_utf8_lossy(&broken.stdout).into_owned()
        + &String::from_utf8_lossy(&broken.stderr);
    assert!(said.contains("entry 3"), "{said}");
}
