use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::model::{Artifact, Digest, EventKind, Outcome, Reason, Target, TimeRange, Verdict};

fn open(dir: &Path) -> Arc<Ledger> {
    Ledger::open(Records::open(dir).unwrap())
}

fn event(n: i64) -> Event {
    Event {
        id: format!("e{n}"),
        source: "ci".to_owned(),
        time_ms: n,
        kind: EventKind::Started,
        target: Target::new("checkout", "production"),
        artifact: Artifact {
            digest: Digest::parse(&format!("sha256:{}", "a".repeat(64))).ok(),
            ..Artifact::of_version("2")
        },
        previous: None,
        deployment: None,
        step: None,
        reason: Some("\"quoted\" \u{e9} \u{1f600} \u{1}".to_owned()),
        actor: None,
        url: None,
        labels: BTreeMap::new(),
    }
}

fn verdict(id: &str, gate: &str, deployment: &str, at_ms: i64) -> Verdict {
    Verdict {
        id: id.to_owned(),
        gate: gate.to_owned(),
        policy_hash: "p".to_owned(),
        deployment: DeploymentId(deployment.to_owned()),
        target: Target::new("checkout", "production"),
        candidate: Artifact::of_version("2"),
        verdict: Outcome::Pass,
        reason: Reason::AllChecksPassed,
        message: "fine".to_owned(),
        is_final: true,
        checks: Vec::new(),
        data: TimeRange {
            start_ms: 0,
            end_ms: at_ms,
        },
        evaluated_ms: at_ms,
        since_ms: at_ms,
    }
}

async fn record(ledger: &Ledger, events: Vec<Event>) -> Vec<Recorded> {
    ledger.record_events(events, 1000, |r| r).await.unwrap()
}

/// Events 1 to 4, a verdict as entry 5, event 6.
async fn filled(dir: &Path) -> Arc<Ledger> {
    let ledger = open(dir);
    record(&ledger, (1..=4).map(event).collect()).await;
    ledger
        .record_verdict(&verdict("v1", "canary", "d1", 7), 1001)
        .await
        .unwrap();
    record(&ledger, vec![event(6)]).await;
    ledger
}

#[tokio::test]
async fn entries_hang_on_each_other_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = filled(dir.path()).await;
    let entries = ledger.entries(0, 100).await.unwrap();
    assert_eq!(entries.len(), 6);
    assert_eq!(entries[0].prev, Hash::default());
    assert!(entries.windows(2).all(|pair| pair[1].prev == pair[0].hash));
    assert_eq!(entries[4].kind, EntryKind::Verdict);
    assert_eq!(ledger.entries(4, 1).await.unwrap()[0].seq, 5);
    let report = verify(ledger.records()).unwrap();
    assert_eq!((report.ok, report.entries), (true, 6));
    assert_eq!(report.head, entries[5].hash);
    drop(ledger);
    let offline = Records::open_read_only(dir.path()).unwrap();
    assert_eq!(verify(&offline).unwrap().head, entries[5].hash);
}

/// The recipe in [`chain`], followed with nothing but the entry as the API shows it.
#[tokio::test]
async fn an_entry_can_be_checked_from_its_json_alone() {
    let dir = tempfile::tempdir().unwrap();
    let entries = filled(dir.path()).await.entries(0, 100).await.unwrap();
    for entry in entries {
        let mut shown = serde_json::to_value(&entry).unwrap();
        let hash = shown.as_object_mut().unwrap().remove("hash").unwrap();
        let mut bytes = entry.prev.0.to_vec();
        bytes.extend(canonical::to_canonical(&shown).unwrap().into_bytes());
        assert_eq!(hash, Hash::of(&bytes).to_string(), "entry {}", entry.seq);
    }
}

#[test]
fn an_empty_ledger_holds() {
    let dir = tempfile::tempdir().unwrap();
    let report = verify(open(dir.path()).records()).unwrap();
    assert_eq!((report.ok, report.entries), (true, 0));
}

#[tokio::test]
async fn a_known_event_or_verdict_is_not_recorded_again() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = filled(dir.path()).await;
    let mut changed = event(2);
    changed.target.service = "cart".to_owned();
    let again = record(&ledger, vec![changed]).await.remove(0);
    assert!(again.duplicate);
    assert_eq!(
        (again.seq, again.event),
        (2, event(2)),
        "the first one stands"
    );
    let mut other = verdict("v1", "canary", "d1", 9);
    other.verdict = Outcome::Fail;
    assert_eq!(ledger.record_verdict(&other, 1002).await.unwrap(), 5);
    let kept = ledger.verdict("v1").await.unwrap().unwrap();
    assert_eq!(kept.verdict, Outcome::Pass);
    assert_eq!(verify(ledger.records()).unwrap().entries, 6);
}

#[tokio::test]
async fn verdicts_are_found_by_gate_deployment_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    for (n, gate, deployment) in [
        (1, "canary", "d1"),
        (2, "soak", "d1"),
        (3, "canary", "d1"),
        (4, "canary", "d2"),
    ] {
        let verdict = verdict(&format!("v{n}"), gate, deployment, n);
        ledger.record_verdict(&verdict, n).await.unwrap();
    }
    let d1 = DeploymentId("d1".to_owned());
    let ids = |verdicts: Vec<Verdict>| {
        verdicts
            .into_iter()
            .map(|v| v.id)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(ids(ledger.verdicts_of(&d1, 2).await.unwrap()), "v3 v2");
    let latest = ledger.latest_verdict("canary", &d1).await.unwrap();
    assert_eq!(latest.unwrap(), verdict("v3", "canary", "d1", 3));
    assert_eq!(ids(ledger.latest_verdicts(0).await.unwrap()), "v2 v3 v4");
    assert_eq!(ids(ledger.latest_verdicts(3).await.unwrap()), "v3 v4");
    assert_eq!(ledger.verdict("v9").await.unwrap(), None);
}

#[tokio::test]
async fn a_verdict_comes_back_as_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let mut given = verdict("v1", "canary", "d1", 1);
    given.checks.push(crate::model::CheckResult {
        name: "errors".to_owned(),
        kind: crate::model::CheckKind::Query,
        critical: true,
        required: true,
        verdict: Outcome::Pass,
        reason: Reason::WithinThreshold,
        message: String::new(),
        evidence: crate::model::Evidence {
            value: Some(0.1 + 0.2),
            ..Default::default()
        },
    });
    ledger.record_verdict(&given, 1).await.unwrap();
    let kept = ledger.verdict("v1").await.unwrap().unwrap();
    assert_eq!(kept, given);
}

/// Somebody with the SQLite shell changes what they would rather not have said.
#[tokio::test]
async fn every_kind_of_tampering_is_noticed_at_its_first_entry() {
    const EDITED: &str = "UPDATE ledger SET payload = replace(payload, '\"2\"', '\"3\"') \
                          WHERE seq = 3";
    const SWAPPED: &str = "UPDATE ledger SET seq = 99 WHERE seq = 2; \
                           UPDATE ledger SET seq = 2 WHERE seq = 3; \
                           UPDATE ledger SET seq = 3 WHERE seq = 99";
    const CUT: &str = "DELETE FROM event WHERE seq = 6; DELETE FROM ledger WHERE seq = 6";
    const MOVED_HEAD: &str = "UPDATE ledger_head SET hash = (SELECT hash FROM ledger \
                              WHERE seq = 2)";
    const INVENTED: &str = "INSERT INTO event SELECT 7, source, 'x', service, environment, \
                            region, time_ms FROM event WHERE seq = 1";
    let cases = [
        (EDITED, 3, "hash of its content"),
        (
            "UPDATE ledger SET at_ms = 5 WHERE seq = 4",
            4,
            "hash of its content",
        ),
        (
            "UPDATE ledger SET kind = 'event' WHERE seq = 5",
            5,
            "hash of its content",
        ),
        (
            "UPDATE ledger SET hash = zeroblob(32) WHERE seq = 2",
            2,
            "hash of its content",
        ),
        (
            "UPDATE ledger SET prev = zeroblob(32) WHERE seq = 2",
            2,
            "hash of the entry before it",
        ),
        ("DELETE FROM ledger WHERE seq = 3", 3, "number"),
        (SWAPPED, 2, "hash of the entry before it"),
        ("DELETE FROM ledger WHERE seq = 1", 1, "number"),
        (CUT, 6, "end of the ledger"),
        (
            "DELETE FROM ledger WHERE seq = 6",
            6,
            "entry of a row in table event",
        ),
        (MOVED_HEAD, 6, "stored head"),
        ("DELETE FROM ledger_head", 7, "end of the ledger"),
        ("DELETE FROM event WHERE seq = 4", 4, "row in table event"),
        (
            "UPDATE event SET service = 'cart' WHERE seq = 2",
            2,
            "row in table event",
        ),
        (
            "UPDATE event SET region = 'eu' WHERE seq = 2",
            2,
            "row in table event",
        ),
        (
            "UPDATE verdict SET deployment = 'd9' WHERE seq = 5",
            5,
            "row in table verdict",
        ),
        (
            "DELETE FROM verdict WHERE seq = 5",
            5,
            "row in table verdict",
        ),
        (INVENTED, 7, "entry of a row in table event"),
    ];
    for (sql, seq, what) in cases {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path()).await);
        let path = dir.path().join(crate::record::FILE_NAME);
        let shell = Connection::open(path).unwrap();
        let guards = "PRAGMA foreign_keys = OFF; DROP TRIGGER ledger_is_not_edited; \
                      DROP TRIGGER ledger_is_not_cut;";
        shell.execute_batch(guards).unwrap();
        shell.execute_batch(sql).unwrap();
        drop(shell);
        let report = verify(open(dir.path()).records()).unwrap();
        let broken = report.broken.expect(sql);
        assert!(!report.ok);
        assert_eq!((broken.seq, broken.what), (seq, what), "{sql}: {broken}");
    }
}

#[tokio::test]
async fn the_file_itself_refuses_edits_and_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = filled(dir.path()).await;
    for sql in [
        "UPDATE ledger SET at_ms = 0",
        "DELETE FROM ledger WHERE seq = 6",
    ] {
        let wrote = ledger
            .records()
            .write(move |db| db.execute_batch(sql))
            .await;
        let message = wrote.unwrap_err().to_string();
        assert!(message.contains("append-only"), "{message}");
    }
}
