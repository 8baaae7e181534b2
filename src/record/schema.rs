//! The schema and its numbered steps.
//!
//! `PRAGMA user_version` says how many steps a file has taken. A step that was released is never
//! edited; a change is a new step at the end. `application_id` marks the file as ours, so that a
//! wrong path can't make slogate write into another program's database.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::OpenError;

/// `"slog"` as a big-endian number.
const APPLICATION_ID: i64 = 0x736c_6f67;

/// Step n brings a file from schema n to schema n + 1.
const STEPS: [&str; 1] = [include_str!("0001_ledger.sql")];

/// The schema that this program writes.
const CURRENT: i64 = STEPS.len() as i64;

/// Takes the steps that the file lacks, each in its own transaction.
pub(super) fn migrate(path: &Path, connection: &mut Connection) -> Result<(), OpenError> {
    let sqlite = |source| OpenError::Sqlite {
        path: path.to_owned(),
        source,
    };
    refuse_foreign(path, connection)?;
    let found = version(connection).map_err(sqlite)?;
    refuse_newer(path, found)?;
    for (from, step) in (0i64..).zip(STEPS).skip_while(|(from, _)| *from < found) {
        take(connection, from, step).map_err(sqlite)?;
    }
    Ok(())
}

/// For a file that may not be written: it must be at the current schema already.
pub(super) fn require_current(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    refuse_foreign(path, connection)?;
    let found = version(connection).map_err(|source| OpenError::Sqlite {
        path: path.to_owned(),
        source,
    })?;
    refuse_newer(path, found)?;
    match found {
        CURRENT => Ok(()),
        0 => Err(OpenError::Foreign {
            path: path.to_owned(),
        }),
        _ => Err(OpenError::Older {
            path: path.to_owned(),
            found,
            known: CURRENT,
        }),
    }
}

fn take(connection: &mut Connection, from: i64, step: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    transaction.execute_batch(step)?;
    transaction.pragma_update(None, "user_version", from + 1)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn refuse_newer(path: &Path, found: i64) -> Result<(), OpenError> {
    if found > CURRENT {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known: CURRENT,
        });
    }
    Ok(())
}

/// A file is ours when it carries our mark, or when nothing at all is in it.
fn refuse_foreign(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    let ours = || -> rusqlite::Result<bool> {
        let mark: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let objects: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok(mark == APPLICATION_ID || (mark == 0 && objects == 0))
    };
    match ours() {
        Ok(true) => Ok(()),
        Ok(false) => Err(OpenError::Foreign {
            path: path.to_owned(),
        }),
        Err(source) => Err(OpenError::Sqlite {
            path: path.to_owned(),
            source,
        }),
    }
}
