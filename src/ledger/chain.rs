//! The hash chain, and the walk that checks it.
//!
//! The hash of an entry is the SHA-256 of two things written after each other: the 32 bytes of
//! the hash before it, and the canonical JSON of
//! `{"at": RFC 3339, "kind": …, "payload": …, "prev": hex, "seq": n}`. The first entry has number 1
//! and 32 zero bytes before it.
//!
//! Invariants, which the walk checks entry by entry and of which it names the first that fails:
//!
//! - I-LEDGER-1: numbers run 1, 2, 3, … without a gap.
//! - I-LEDGER-2: every entry's `prev` equals the hash of the entry before it.
//! - I-LEDGER-3: every entry's hash is the hash of what it says.
//! - I-LEDGER-4: the tables that find events and verdicts say what the entries say, no more and
//!   no less.
//! - I-LEDGER-5: the chain ends where the stored head says it ends.

use std::fmt;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;

use super::{EntryKind, Hash};
use crate::model::{Event, Verdict, time};
use crate::record::{ReadError, Records};

/// What the walk found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// Entries walked, up to and including the broken one.
    pub entries: u64,
    /// The hash of the last entry that holds; with it noted elsewhere, a rewritten ledger shows.
    pub head: Hash,
    /// Whether all of it holds.
    pub ok: bool,
    /// The first place that does not hold.
    pub broken: Option<Broken>,
}

/// The first place where the ledger does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Broken {
    /// The entry's number.
    pub seq: u64,
    /// What of it differs, for example `hash`.
    pub what: &'static str,
    /// What it has to be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken {
            seq,
            what,
            expected,
            found,
        } = self;
        write!(f, "entry {seq}: {what}: expected {expected}, found {found}")
    }
}

/// Walks the whole chain, in one snapshot of the records.
///
/// # Errors
/// When the records can't be read; a broken chain is not an error but a report.
pub fn verify(records: &Records) -> Result<VerifyReport, ReadError> {
    records.read_blocking(|connection| {
        let mut walk = Walk::default();
        let broken = match walk.entries(connection)? {
            None => walk.end(connection)?,
            broken => broken,
        };
        Ok(VerifyReport {
            entries: walk.entries,
            head: walk.head,
            ok: broken.is_none(),
            broken,
        })
    })
}

/// The hash of an entry from its parts; `payload` is canonical JSON.
pub(super) fn entry_hash(seq: u64, at_ms: i64, kind: &str, payload: &str, prev: &Hash) -> Hash {
    // Canonical JSON of the five members: names in order, and only `kind` is free text.
    let at = time::to_rfc3339(at_ms);
    let kind = serde_json::Value::from(kind);
    let entry = format!(
        "{{\"at\":\"{at}\",\"kind\":{kind},\"payload\":{payload},\"prev\":\"{prev}\",\"seq\":{seq}}}"
    );
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(&prev.0);
    context.update(entry.as_bytes());
    Hash::from_digest(context.finish())
}

#[derive(Default)]
struct Walk {
    entries: u64,
    head: Hash,
}

struct StoredEntry {
    seq: u64,
    at_ms: i64,
    kind: String,
    payload: String,
    prev: Hash,
    hash: Hash,
}

impl Walk {
    /// I-LEDGER-1 to 4 along the entries.
    fn entries(&mut self, connection: &Connection) -> rusqlite::Result<Option<Broken>> {
        let mut statement = connection
            .prepare("SELECT seq, at_ms, kind, payload, prev, hash FROM ledger ORDER BY seq")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let entry = stored(row)?;
            if let Some(broken) = self.entry(&entry) {
                return Ok(Some(broken));
            }
            if let Some(broken) = self.finders(connection, &entry)? {
                return Ok(Some(broken));
            }
            self.head = entry.hash;
        }
        Ok(None)
    }

    fn entry(&mut self, entry: &StoredEntry) -> Option<Broken> {
        let due = self.entries + 1;
        if entry.seq != due {
            return broken(due, "number", due, entry.seq);
        }
        self.entries = due;
        if entry.prev != self.head {
            return broken(due, "hash of the entry before it", self.head, entry.prev);
        }
        let hash = entry_hash(
            entry.seq,
            entry.at_ms,
            &entry.kind,
            &entry.payload,
            &entry.prev,
        );
        if entry.hash != hash {
            return broken(due, "hash of its content", hash, entry.hash);
        }
        None
    }

    /// I-LEDGER-4 for one entry: the row that finds it says what it says.
    fn finders(&self, db: &Connection, entry: &StoredEntry) -> rusqlite::Result<Option<Broken>> {
        let seq = entry.seq;
        let (what, sql, expected) = match EntryKind::parse(&entry.kind) {
            Some(EntryKind::Event) => ("row in table event", FIND_EVENT, event_row(&entry.payload)),
            Some(EntryKind::Verdict) => (
                "row in table verdict",
                FIND_VERDICT,
                verdict_row(&entry.payload),
            ),
            None => return Ok(broken(seq, "kind", "event or verdict", &entry.kind)),
        };
        let Some(expected) = expected else {
            return Ok(broken(seq, "payload", what, "something else"));
        };
        let found: Option<String> = db
            .prepare_cached(sql)?
            .query_row([seq.cast_signed()], |row| row.get(0))
            .optional()?;
        match found {
            Some(found) if found == expected => Ok(None),
            Some(found) => Ok(broken(seq, what, expected, found)),
            None => Ok(broken(seq, what, expected, "none")),
        }
    }

    /// I-LEDGER-4 and 5 after the last entry: nothing is found that isn't there, and the end is
    /// the end.
    fn end(&self, db: &Connection) -> rusqlite::Result<Option<Broken>> {
        let last = self.entries.cast_signed();
        for (what, sql) in [
            ("entry of a row in table event", ORPHAN_EVENT),
            ("entry of a row in table verdict", ORPHAN_VERDICT),
        ] {
            let orphan: Option<i64> = db.query_row(sql, params![last], |row| row.get(0))?;
            if let Some(seq) = orphan {
                return Ok(broken(seq.cast_unsigned(), what, "an entry", "none"));
            }
        }
        let head = db
            .query_row("SELECT seq, hash FROM ledger_head", [], |row| {
                Ok((row.get::<_, i64>(0)?, Hash(row.get(1)?)))
            })
            .optional()?;
        let (seq, hash) = head.unwrap_or_default();
        if seq != last {
            let due = self.entries + 1;
            return Ok(broken(due, "end of the ledger", seq, last));
        }
        if hash != self.head {
            return Ok(broken(self.entries, "stored head", hash, self.head));
        }
        Ok(None)
    }
}

const FIND_EVENT: &str = "SELECT json_array(source, id, service, environment, region, time_ms) \
                          FROM event WHERE seq = ?1";
const FIND_VERDICT: &str = "SELECT json_array(id, gate, deployment, evaluated_ms) \
                            FROM verdict WHERE seq = ?1";
const ORPHAN_EVENT: &str = "SELECT min(seq) FROM event WHERE seq > ?1";
const ORPHAN_VERDICT: &str = "SELECT min(seq) FROM verdict WHERE seq > ?1";

/// What the event table has to say about a payload, as the JSON array that [`FIND_EVENT`] gives.
fn event_row(payload: &str) -> Option<String> {
    let event: Event = serde_json::from_str(payload).ok()?;
    let target = &event.target;
    let row = serde_json::json!([
        event.source,
        event.id,
        target.service,
        target.environment,
        target.region,
        event.time_ms
    ]);
    Some(row.to_string())
}

fn verdict_row(payload: &str) -> Option<String> {
    let verdict: Verdict = serde_json::from_str(payload).ok()?;
    let row = serde_json::json!([
        verdict.id,
        verdict.gate,
        verdict.deployment,
        verdict.evaluated_ms
    ]);
    Some(row.to_string())
}

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredEntry> {
    Ok(StoredEntry {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        at_ms: row.get(1)?,
        kind: row.get(2)?,
        payload: row.get(3)?,
        prev: Hash(row.get(4)?),
        hash: Hash(row.get(5)?),
    })
}

fn broken(
    seq: u64,
    what: &'static str,
    expected: impl fmt::Display,
    found: impl fmt::Display,
) -> Option<Broken> {
    Some(Broken {
        seq,
        what,
        expected: expected.to_string(),
        found: found.to_string(),
    })
}
