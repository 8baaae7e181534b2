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
mod tests;
