//! Durable records in SQLite.
//!
//! One file, `records.sqlite` in the data directory, holds what must outlive the process: the
//! ledger and the tables that find things in it. Telemetry never goes here.
//!
//! What this room promises:
//!
//! - **Durable when it answers.** The journal is a write-ahead log with `synchronous=FULL`, so a
//!   write that was answered survives a power cut.
//! - **One writer.** A single thread owns the writing connection and takes work from a bounded
//!   queue; when the disk is slow, senders wait instead of memory growing. Whatever is in the
//!   queue at the same time shares one transaction, and so one flush to disk, yet stands or
//!   falls alone: work that fails is rolled back by itself and its neighbours go on.
//! - **Committed work completes.** What has to follow a commit (telling those who hold the
//!   records in memory) runs on the writer thread, in the order of the commits, even when the
//!   caller has gone away meanwhile.
//! - **A failure is an error.** A full disk, a closed writer, a broken file come back to the
//!   caller; nothing is retried behind its back and nothing panics.
//! - **No surprise from the future.** A file with a newer schema than this program knows is
//!   refused; an older one is migrated by numbered steps before anything else happens.

mod schema;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use writer::Writer;

/// The file's name within the data directory.
pub const FILE_NAME: &str = "records.sqlite";

/// Connections that read at the same time.
const READERS: usize = 4;

/// The records: open once, share everywhere.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    /// `None` when opened for reading only.
    writer: Option<Writer>,
    readers: Mutex<Vec<Connection>>,
    reading: Semaphore,
}

/// Why the records could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory can't be made.
    #[error("data directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite could not open, read or set up the file.
    #[error("{}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A newer slogate has written the file.
    #[error(
        "{} has schema {found}, and this slogate knows schemas up to {known}: \
         run the newer slogate again, or point this one at another data directory",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// The file is another program's, or was opened for reading and was never written.
    #[error("{} is not a slogate record file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Opened for reading only, and a migration is due.
    #[error(
        "{} has the older schema {found} (this slogate writes {known}): \
         start `slogate serve` on it once to migrate it",
        path.display()
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The schema that this program writes.
        known: i64,
    },
    /// The writer thread could not be started.
    #[error("writer thread: {0}")]
    Thread(std::io::Error),
}

/// Why a write was not done. Nothing of it is in the file.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The writer is gone: the records are being closed, or it has died.
    #[error("records: the writer has stopped")]
    Stopped,
    /// Opened for reading only.
    #[error("records: opened for reading only")]
    ReadOnly,
    /// SQLite refused, for example because the disk is full.
    #[error("records: write: {0}")]
    Sqlite(Arc<rusqlite::Error>),
}

/// Why a read was not done.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// SQLite refused.
    #[error("records: read: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The reading task was stopped with its runtime.
    #[error("records: the reader was stopped")]
    Stopped,
}

impl Records {
    /// Opens or creates the records in `dir`, and migrates them to the current schema.
    ///
    /// # Errors
    /// When the directory or file can't be made or read, or a newer slogate has written it.
    pub fn open(dir: &Path) -> Result<Arc<Records>, OpenError> {
        std::fs::create_dir_all(dir).map_err(|source| OpenError::Directory {
            path: dir.to_owned(),
            source,
        })?;
        let path = dir.join(FILE_NAME);
        let mut connection = connect(&path, OpenFlags::default())?;
        schema::migrate(&path, &mut connection)?;
        let writer = Writer::start(connection).map_err(OpenError::Thread)?;
        Ok(Arc::new(Records::with(path, Some(writer))))
    }

    /// Opens existing records for reading only, for example to verify them offline.
    ///
    /// # Errors
    /// When there are none, or their schema is not the current one.
    pub fn open_read_only(dir: &Path) -> Result<Arc<Records>, OpenError> {
        let path = dir.join(FILE_NAME);
        let connection = connect(&path, READ_ONLY)?;
        schema::require_current(&path, &connection)?;
        let records = Records::with(path, None);
        records.readers.lock().push(connection);
        Ok(Arc::new(records))
    }

    fn with(path: PathBuf, writer: Option<Writer>) -> Records {
        Records {
            path,
            writer,
            readers: Mutex::new(Vec::new()),
            reading: Semaphore::new(READERS),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in a transaction; durable when this returns.
    ///
    /// # Errors
    /// When the work or the commit fails; then nothing of it is kept.
    pub async fn write<T, W>(&self, work: W) -> Result<T, WriteError>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.write_then(work, |done| done).await
    }

    /// Runs `work` in a transaction and, once it is durable, `then` on its outcome.
    ///
    /// `then` runs on the writer thread, in commit order, also when the caller is dropped
    /// before; it must be short and must not write.
    ///
    /// # Errors
    /// When the work or the commit fails; then nothing is kept and `then` does not run.
    pub async fn write_then<T, R, W, N>(&self, work: W, then: N) -> Result<R, WriteError>
    where
        T: Send + 'static,
        R: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        N: FnOnce(T) -> R + Send + 'static,
    {
        let writer = self.writer.as_ref().ok_or(WriteError::ReadOnly)?;
        writer.submit(work, then).await
    }

    /// [`Records::write_then`] on this thread, which blocks until it is done.
    ///
    /// # Errors
    /// As there.
    pub fn write_then_blocking<T, R, W, N>(&self, work: W, then: N) -> Result<R, WriteError>
    where
        T: Send + 'static,
        R: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        N: FnOnce(T) -> R + Send + 'static,
    {
        let writer = self.writer.as_ref().ok_or(WriteError::ReadOnly)?;
        writer.submit_blocking(work, then)
    }

    /// [`Records::write`] on this thread, which blocks until it is done.
    ///
    /// # Errors
    /// As there.
    pub fn write_blocking<T, W>(&self, work: W) -> Result<T, WriteError>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.write_then_blocking(work, |done| done)
    }

    /// Runs `work` on a reading connection, off the async threads, in one snapshot.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn read<T, W>(self: &Arc<Self>, work: W) -> Result<T, ReadError>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let _permit = self.reading.acquire().await;
        let records = Arc::clone(self);
        tokio::task::spawn_blocking(move || records.read_blocking(work))
            .await
            .map_err(|_| ReadError::Stopped)?
    }

    /// [`Records::read`] on this thread.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn read_blocking<T, W>(&self, work: W) -> Result<T, ReadError>
    where
        W: FnOnce(&Connection) -> rusqlite::Result<T>,
    {
        let idle = self.readers.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_connection(&self.path, READ_ONLY)?,
        };
        // A deferred transaction pins one snapshot for all the statements of `work`.
        let snapshot = connection.unchecked_transaction()?;
        let outcome = work(&connection);
        snapshot.finish()?;
        let mut idle = self.readers.lock();
        if idle.len() < READERS {
            idle.push(connection);
        }
        Ok(outcome?)
    }
}

const READ_ONLY: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY
    .union(OpenFlags::SQLITE_OPEN_URI)
    .union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
    open_connection(path, flags).map_err(|source| OpenError::Sqlite {
        path: path.to_owned(),
        source,
    })
}

/// Settings that belong to a connection, not to the file.
fn open_connection(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    if !flags.contains(OpenFlags::SQLITE_OPEN_READ_ONLY) {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
    }
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Arc<Records> {
        Records::open(dir).unwrap()
    }

    fn put(connection: &Connection, n: i64) -> rusqlite::Result<()> {
        connection.execute("INSERT INTO t (n) VALUES (?1)", [n])?;
        Ok(())
    }

    fn with_table(dir: &Path) -> Arc<Records> {
        let records = open(dir);
        let sql = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY) STRICT";
        records.write_blocking(|c| c.execute_batch(sql)).unwrap();
        records
    }

    fn count(records: &Records) -> i64 {
        records
            .read_blocking(|c| c.query_row("SELECT count(*) FROM t", [], |row| row.get(0)))
            .unwrap()
    }

    #[test]
    fn what_was_written_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let records = with_table(dir.path());
        records.write_blocking(|c| put(c, 1)).unwrap();
        assert_eq!(count(&records), 1);
        drop(records);
        assert_eq!(count(&open(dir.path())), 1);
    }

    #[test]
    fn full_durability_is_really_switched_on() {
        let dir = tempfile::tempdir().unwrap();
        let pragma = |c: &Connection, name: &str| c.pragma_query_value(None, name, |r| r.get(0));
        let (journal, synchronous): (String, i64) = open(dir.path())
            .write_blocking(move |c| {
                Ok((
                    pragma(c, "journal_mode")?,
                    c.pragma_query_value(None, "synchronous", |r| r.get(0))?,
                ))
            })
            .unwrap();
        assert_eq!((journal.as_str(), synchronous), ("wal", 2));
    }

    /// Concurrent writes share a transaction; one that fails must not take its neighbours with
    /// it, and must leave nothing of itself behind.
    #[tokio::test]
    async fn a_failing_write_falls_alone() {
        let dir = tempfile::tempdir().unwrap();
        let records = with_table(dir.path());
        let tasks = (0..200i64).map(|n| {
            let records = Arc::clone(&records);
            tokio::spawn(async move {
                records
                    .write(move |c| {
                        put(c, n)?;
                        // Every tenth repeats a key after having written something else.
                        if n % 10 == 0 {
                            put(c, 1000 + n)?;
                            put(c, n)?;
                        }
                        Ok(())
                    })
                    .await
            })
        });
        let mut failed = 0;
        for task in tasks.collect::<Vec<_>>() {
            failed += i32::from(task.await.unwrap().is_err());
        }
        assert_eq!(failed, 20);
        assert_eq!(count(&records), 180);
    }

    /// A client that hangs up between the commit and the answer must not leave memory behind
    /// the file.
    #[tokio::test]
    async fn what_follows_a_commit_runs_though_the_caller_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let records = with_table(dir.path());
        let (told, heard) = std::sync::mpsc::channel();
        let mut write =
            Box::pin(records.write_then(|c| put(c, 7), move |()| told.send(()).is_ok()));
        // One poll hands the work over, then the caller goes away.
        assert!(futures_util::poll!(write.as_mut()).is_pending());
        drop(write);
        let waited = heard.recv_timeout(std::time::Duration::from_secs(10));
        assert!(waited.is_ok());
        assert_eq!(count(&records), 1);
    }

    #[test]
    fn a_full_disk_is_an_error_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let records = with_table(dir.path());
        let limit = |pages: i64| {
            let set = move |c: &Connection| {
                c.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            };
            records.write_blocking(set).unwrap();
        };
        limit(1);
        let wrote = records.write_blocking(|c| (0..10_000).try_for_each(|n| put(c, n)));
        assert!(wrote.unwrap_err().to_string().contains("full"));
        assert_eq!(count(&records), 0);
        limit(1_000_000);
        records.write_blocking(|c| put(c, 1)).unwrap();
        assert_eq!(count(&records), 1);
    }

    #[test]
    fn a_newer_schema_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let raw = Connection::open(dir.path().join(FILE_NAME)).unwrap();
        raw.pragma_update(None, "user_version", 99).unwrap();
        drop(raw);
        for opened in [
            Records::open(dir.path()),
            Records::open_read_only(dir.path()),
        ] {
            let message = opened.unwrap_err().to_string();
            assert!(message.contains("has schema 99"), "{message}");
            assert!(message.contains("another data directory"), "{message}");
        }
    }

    #[test]
    fn another_programs_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let raw = Connection::open(&path).unwrap();
        raw.execute_batch("CREATE TABLE theirs (x); PRAGMA application_id = 42")
            .unwrap();
        drop(raw);
        assert!(matches!(
            Records::open(dir.path()),
            Err(OpenError::Foreign { .. })
        ));
        let raw = Connection::open(&path).unwrap();
        let tables: i64 = raw
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .unwrap();
        assert_eq!(tables, 1);
    }

    #[test]
    fn reading_only_neither_creates_nor_writes() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Records::open_read_only(dir.path()).is_err());
        drop(with_table(dir.path()));
        let records = Records::open_read_only(dir.path()).unwrap();
        assert_eq!(count(&records), 0);
        let wrote = records.write_blocking(|c| put(c, 1));
        assert!(matches!(wrote, Err(WriteError::ReadOnly)));
    }
}
