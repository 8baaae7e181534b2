//! The ledger: the append-only, hash-chained record of events accepted and verdicts given.
//!
//! - **What goes in.** Every event that was accepted, once, in the order of acceptance, also
//!   those that slogate itself derived from telemetry; every verdict that was recorded. The
//!   payload is the event or the verdict as JSON; nothing else is kept of it anywhere, so
//!   there is no second copy to disagree.
//! - **Idempotent.** An event is known by (source, id), a verdict by its id. When the same
//!   comes again, whatever its content, nothing is written and the first one stands.
//! - **All or nothing.** An entry, the row that finds it and the head of the chain are one
//!   transaction; events that arrive together are recorded together or not at all.
//! - **What it proves.** Each entry carries the hash of the one before it ([`chain`]), so an
//!   edit, a removal, an exchange or a cut anywhere shows when the chain is walked. Who can
//!   rewrite the whole file can also recompute every hash: note the head elsewhere to notice
//!   that.

pub mod canonical;
pub mod chain;

use std::fmt;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

pub use chain::{Broken, VerifyReport, verify};

use crate::model::{DeploymentId, Event, Target, Verdict};
use crate::record::{ReadError, Records, WriteError};
use canonical::CanonicalError;

/// A SHA-256 hash; as text, 64 hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    fn from_digest(digest: ring::digest::Digest) -> Hash {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Hash(bytes)
    }

    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash::from_digest(ring::digest::digest(&ring::digest::SHA256, bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What an entry records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// An event was accepted.
    Event,
    /// A verdict was given.
    Verdict,
}

impl EntryKind {
    /// The name in the file and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            EntryKind::Event => "event",
            EntryKind::Verdict => "verdict",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<EntryKind> {
        [EntryKind::Event, EntryKind::Verdict]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

/// An entry of the ledger.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its number, from 1 without a gap.
    pub seq: u64,
    /// When it was recorded, in milliseconds since the epoch.
    #[serde(rename = "at", with = "crate::model::time::rfc3339")]
    pub at_ms: i64,
    /// What it records.
    pub kind: EntryKind,
    /// The event or verdict.
    pub payload: serde_json::Value,
    /// The hash of the entry before it, zeros for the first.
    pub prev: Hash,
    /// Its own hash.
    pub hash: Hash,
}

/// An event after it was recorded, or found to be known.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The event as the ledger holds it: for a duplicate the first one with its source and id.
    pub event: Event,
    /// Its entry.
    pub seq: u64,
    /// Whether an event with the same source and id was there already.
    pub duplicate: bool,
}

/// Why nothing was recorded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecordError {
    /// The content can't be put in canonical form.
    #[error("ledger: {what}: {source}")]
    Content {
        /// Which event or verdict.
        what: String,
        /// Why.
        source: CanonicalError,
    },
    /// The records did not take it.
    #[error("ledger: {0}")]
    Write(#[from] WriteError),
}

/// The ledger over the records.
#[derive(Debug)]
pub struct Ledger {
    records: Arc<Records>,
}

impl Ledger {
    /// The ledger of `records`.
    pub fn open(records: Arc<Records>) -> Arc<Ledger> {
        Arc::new(Ledger { records })
    }

    /// The records that hold it.
    pub fn records(&self) -> &Arc<Records> {
        &self.records
    }

    /// Records events, all or none, then runs `then` on the outcome, in the order given.
    ///
    /// `then` runs once the events are durable, in the order of acceptance, also when the caller
    /// is dropped before. It must be short.
    ///
    /// # Errors
    /// When an event has no canonical form or the records fail; then nothing is recorded.
    pub async fn record_events<R, N>(
        &self,
        events: Vec<Event>,
        now_ms: i64,
        then: N,
    ) -> Result<R, RecordError>
    where
        R: Send + 'static,
        N: FnOnce(Vec<Recorded>) -> R + Send + 'static,
    {
        let drafts = drafts(events)?;
        let write = move |db: &Connection| {
            let recorded = drafts.into_iter().map(|draft| draft.record(db, now_ms));
            recorded.collect::<rusqlite::Result<Vec<_>>>()
        };
        Ok(self.records.write_then(write, then).await?)
    }

    /// Records a verdict and returns its entry's number; a verdict whose id is known changes
    /// nothing.
    ///
    /// # Errors
    /// When it has no canonical form or the records fail; then nothing is recorded.
    pub async fn record_verdict(&self, verdict: &Verdict, now_ms: i64) -> Result<u64, RecordError> {
        let payload = canonical::canonical_of(verdict).map_err(|source| RecordError::Content {
            what: format!("verdict {}", verdict.id),
            source,
        })?;
        let (id, gate) = (verdict.id.clone(), verdict.gate.clone());
        let (deployment, evaluated_ms) = (verdict.deployment.0.clone(), verdict.evaluated_ms);
        let write = move |db: &Connection| {
            let known: Option<i64> = db
                .prepare_cached("SELECT seq FROM verdict WHERE id = ?1")?
                .query_row([&id], |row| row.get(0))
                .optional()?;
            if let Some(seq) = known {
                return Ok(seq.cast_unsigned());
            }
            let seq = append(db, EntryKind::Verdict, &payload, now_ms)?;
            db.prepare_cached(
                "INSERT INTO verdict (seq, id, gate, deployment, evaluated_ms) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                seq.cast_signed(),
                id,
                gate,
                deployment,
                evaluated_ms
            ])?;
            Ok(seq)
        };
        Ok(self.records.write(write).await?)
    }

    /// Entries after number `after_seq`, in order, `limit` at most.
    ///
    /// # Errors
    /// When the records can't be read.
    pub async fn entries(&self, after_seq: u64, limit: usize) -> Result<Vec<Entry>, ReadError> {
        const SQL: &str = "SELECT seq, at_ms, kind, payload, prev, hash FROM ledger \
                           WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        let read = move |db: &Connection| {
            let mut statement = db.prepare_cached(SQL)?;
            let rows = statement.query_map(params![sql_seq(after_seq), sql_limit(limit)], entry)?;
            rows.collect()
        };
        self.records.read(read).await
    }

    /// The verdict with that id.
    ///
    /// # Errors
    /// When the records can't be read.
    pub async fn verdict(&self, id: &str) -> Result<Option<Verdict>, ReadError> {
        let sql = "SELECT payload FROM verdict JOIN ledger USING (seq) WHERE id = ?1";
        let verdicts = self.verdicts(sql, vec![id.to_owned().into()]).await?;
        Ok(verdicts.into_iter().next())
    }

    /// A deployment's verdicts of all gates, newest first, `limit` at most.
    ///
    /// # Errors
    /// When the records can't be read.
    pub async fn verdicts_of(
        &self,
        deployment: &DeploymentId,
        limit: usize,
    ) -> Result<Vec<Verdict>, ReadError> {
        let sql = "SELECT payload FROM verdict JOIN ledger USING (seq) \
                   WHERE deployment = ?1 ORDER BY seq DESC LIMIT ?2";
        let values = vec![deployment.0.clone().into(), sql_limit(limit).into()];
        self.verdicts(sql, values).await
    }

    /// A gate's last verdict about a deployment.
    ///
    /// # Errors
    /// When the records can't be read.
    pub async fn latest_verdict(
        &self,
        gate: &str,
        deployment: &DeploymentId,
    ) -> Result<Option<Verdict>, ReadError> {
        let sql = "SELECT payload FROM verdict JOIN ledger USING (seq) \
                   WHERE gate = ?1 AND deployment = ?2 ORDER BY seq DESC LIMIT 1";
        let values = vec![gate.to_owned().into(), deployment.0.clone().into()];
        Ok(self.verdicts(sql, values).await?.into_iter().next())
    }

    /// Each gate's last verdict about each deployment, of those evaluated since `since_ms`: what
    /// was known before a restart.
    ///
    /// # Errors
    /// When the records can't be read.
    pub async fn latest_verdicts(&self, since_ms: i64) -> Result<Vec<Verdict>, ReadError> {
        let sql = "SELECT payload FROM ledger WHERE seq IN \
                   (SELECT max(seq) FROM verdict WHERE evaluated_ms >= ?1 \
                    GROUP BY gate, deployment) ORDER BY seq";
        self.verdicts(sql, vec![since_ms.into()]).await
    }

    async fn verdicts(
        &self,
        sql: &'static str,
        values: Vec<rusqlite::types::Value>,
    ) -> Result<Vec<Verdict>, ReadError> {
        let read = move |db: &Connection| {
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement.query_map(rusqlite::params_from_iter(values), payload_of)?;
            rows.collect()
        };
        self.records.read(read).await
    }

    /// Every event of the ledger in the order of acceptance, one by one.
    ///
    /// # Errors
    /// When the records can't be read.
    pub fn each_event(&self, mut take: impl FnMut(Event)) -> Result<(), ReadError> {
        self.records.read_blocking(|db| {
            let mut statement =
                db.prepare("SELECT payload FROM event JOIN ledger USING (seq) ORDER BY event.seq")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                take(payload_of(row)?);
            }
            Ok(())
        })
    }

    /// Every event of one target, one by one, in no particular order.
    ///
    /// # Errors
    /// When the records can't be read.
    pub fn each_event_of(
        &self,
        target: &Target,
        mut take: impl FnMut(Event),
    ) -> Result<(), ReadError> {
        self.records.read_blocking(|db| {
            let mut statement = db.prepare(
                "SELECT payload FROM event JOIN ledger USING (seq) \
                 WHERE service = ?1 AND environment = ?2 AND region IS ?3",
            )?;
            let values = params![target.service, target.environment, target.region];
            let mut rows = statement.query(values)?;
            while let Some(row) = rows.next()? {
                take(payload_of(row)?);
            }
            Ok(())
        })
    }
}

/// An event on its way in, in canonical form already so that the writer only has to write.
struct Draft {
    event: Event,
    payload: String,
}

fn drafts(events: Vec<Event>) -> Result<Vec<Draft>, RecordError> {
    let draft = |event: Event| {
        let fail = |source| RecordError::Content {
            what: format!("event {} of {}", event.id, event.source),
            source,
        };
        let payload = canonical::canonical_of(&event).map_err(fail)?;
        // What is kept in memory is what the file would give back, to the last digit.
        let event = serde_json::from_str(&payload)
            .map_err(|error| fail(CanonicalError::NotJson(error.to_string())))?;
        Ok(Draft { event, payload })
    };
    events.into_iter().map(draft).collect()
}

impl Draft {
    fn record(self, db: &Connection, now_ms: i64) -> rusqlite::Result<Recorded> {
        let Draft { event, payload } = self;
        let known = db
            .prepare_cached(
                "SELECT payload, event.seq FROM event JOIN ledger USING (seq) \
                 WHERE source = ?1 AND id = ?2",
            )?
            .query_row([&event.source, &event.id], |row| {
                Ok((payload_of(row)?, row.get::<_, i64>(1)?))
            })
            .optional()?;
        if let Some((event, seq)) = known {
            return Ok(Recorded {
                event,
                seq: seq.cast_unsigned(),
                duplicate: true,
            });
        }
        let seq = append(db, EntryKind::Event, &payload, now_ms)?;
        let target = &event.target;
        db.prepare_cached(
            "INSERT INTO event (seq, source, id, service, environment, region, time_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            seq.cast_signed(),
            event.source,
            event.id,
            target.service,
            target.environment,
            target.region,
            event.time_ms
        ])?;
        Ok(Recorded {
            event,
            seq,
            duplicate: false,
        })
    }
}

/// Adds an entry to the end of the chain; `payload` is canonical JSON.
fn append(db: &Connection, kind: EntryKind, payload: &str, at_ms: i64) -> rusqlite::Result<u64> {
    let head = db
        .prepare_cached("SELECT seq, hash FROM ledger_head")?
        .query_row([], |row| Ok((row.get::<_, i64>(0)?, Hash(row.get(1)?))))
        .optional()?;
    let (last, prev) = head.unwrap_or_default();
    let seq = last.cast_unsigned() + 1;
    let hash = chain::entry_hash(seq, at_ms, kind.as_str(), payload, &prev);
    db.prepare_cached(
        "INSERT INTO ledger (seq, at_ms, kind, payload, prev, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![seq.cast_signed(), at_ms, kind.as_str(), payload, prev.0, hash.0])?;
    db.prepare_cached("INSERT OR REPLACE INTO ledger_head (one, seq, hash) VALUES (1, ?1, ?2)")?
        .execute(params![seq.cast_signed(), hash.0])?;
    Ok(seq)
}

/// Reads the first column, a payload.
fn payload_of<T: serde::de::DeserializeOwned>(row: &Row<'_>) -> rusqlite::Result<T> {
    let text = row.get_ref(0)?.as_str()?;
    serde_json::from_str(text).map_err(|error| unreadable(0, error))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let kind: String = row.get(2)?;
    let payload = row.get_ref(3)?.as_str()?;
    Ok(Entry {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        at_ms: row.get(1)?,
        kind: EntryKind::parse(&kind).ok_or_else(|| unreadable(2, format!("kind {kind:?}")))?,
        payload: serde_json::from_str(payload).map_err(|error| unreadable(3, error))?,
        prev: Hash(row.get(4)?),
        hash: Hash(row.get(5)?),
    })
}

fn unreadable(
    column: usize,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, why.into())
}

fn sql_seq(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
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
}
