//! The store itself.
//!
//! # Order of locks
//! log, then metadata or exemplars, then one shard at a time. An append holds the log's lock
//! from its first row to its `write`, so the log has the rows in the order in which memory
//! took them. Without a log, appends to different shards run side by side.
//!
//! # What a failed write means
//! [`Store::append`] then answers with an error, though memory may have the rows. Sending
//! the batch again is right: rows that memory has are accepted and written all the same.

mod append;
mod cardinality;
mod query;
mod restore;

pub use query::Read;

use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use slogate_series::Labels;

use crate::ReplayReport;
use crate::exemplar::Exemplars;
use crate::log::frame::VERSION;
use crate::log::replay::{ReplayError, Replayed, replay};
use crate::log::{Log, LogError};
use crate::metadata::{Metadata, MetadataTable};
use crate::options::{OpenError, Options};
use crate::rows::{AppendReport, Batch, Refused, SHARDS, SeriesRef};
use crate::shard::Shard;
use append::Appending;
pub use cardinality::{Cardinality, Ranking};
use restore::{Replaying, lock};

/// The most labels of a series.
const LABELS_MAX: usize = 256;

/// The most bytes of a series' label names and values together.
const LABEL_BYTES_MAX: usize = 64 * 1024;

/// Why a series can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeriesError {
    /// The label set is empty.
    #[error("a series needs at least one label")]
    NoLabels,
    /// The label set is too large.
    #[error("label set too large: at most {LABELS_MAX} labels and {LABEL_BYTES_MAX} bytes")]
    TooLarge,
    /// There are as many series as are allowed.
    #[error("{max} series are stored already; drop labels of many values or raise series_max")]
    TooMany {
        /// The limit.
        max: usize,
    },
}

/// Why a batch could not be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The log could not be written. Send the batch again when that is mended.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Figures about a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Series in memory.
    pub series: u64,
    /// Samples in memory.
    pub samples: u64,
    /// Exemplars in memory.
    pub exemplars: u64,
    /// Bytes of chunks and late samples.
    pub chunk_bytes: u64,
    /// Bytes of labels, index and series entries.
    pub index_bytes: u64,
    /// Bytes of log segments on disk.
    pub log_bytes: u64,
    /// The oldest sample's time as of the last maintenance, or later appends; `None` where
    /// there are no samples.
    pub min_t_ms: Option<i64>,
    /// The newest sample's time; `None` before the first.
    pub max_t_ms: Option<i64>,
    /// Rows accepted since the store was opened.
    pub appended: u64,
    /// Rows refused since the store was opened.
    pub refused: Refused,
    /// Metadata left out since the store was opened because of their number or length.
    pub metadata_refused: u64,
}

#[derive(Debug, Default)]
struct Totals {
    appended: AtomicU64,
    refused: Mutex<Refused>,
}

/// A time series store. See the crate's description.
#[derive(Debug)]
pub struct Store {
    pub(crate) options: Options,
    pub(crate) shards: Box<[RwLock<Shard>]>,
    pub(crate) log: Option<Mutex<Log>>,
    pub(crate) exemplars: Mutex<Exemplars>,
    metadata: RwLock<MetadataTable>,
    hasher: foldhash::quality::RandomState,
    pub(crate) series_count: AtomicUsize,
    /// The latest `now_ms` seen.
    pub(crate) clock_ms: AtomicI64,
    pub(crate) min_t_ms: AtomicI64,
    pub(crate) max_t_ms: AtomicI64,
    totals: Totals,
}

impl Store {
    /// Opens a store, bringing back what its log has.
    ///
    /// # Errors
    /// If an option makes no sense, another process uses the directory, a segment is of a
    /// newer version, or a file can't be read. Damage is no error: it is in the report.
    pub fn open(options: Options, now_ms: i64) -> Result<(Store, ReplayReport), OpenError> {
        let mut store = Store::empty(options, now_ms)?;
        let Some(dir) = store.options.dir.clone() else {
            return Ok((store, ReplayReport::default()));
        };
        let lock = lock(&dir)?;
        let replayed = store.replay(&dir, now_ms, true)?;
        let log = Log::new(
            &dir,
            store.options.segment_bytes,
            replayed.segments,
            replayed.last_sequence,
            lock,
        );
        store.log = Some(Mutex::new(log));
        Ok((store, replayed.report))
    }

    /// Opens a copy in memory of what a directory's log has, changing nothing there: also while
    /// another process uses it. What is appended to the copy is not written.
    ///
    /// # Errors
    /// If an option makes no sense, a segment is of a newer version, or a file can't be read.
    pub fn open_read_only(
        options: Options,
        now_ms: i64,
    ) -> Result<(Store, ReplayReport), OpenError> {
        let mut store = Store::empty(options, now_ms)?;
        let Some(dir) = store.options.dir.take() else {
            return Ok((store, ReplayReport::default()));
        };
        let replayed = store.replay(&dir, now_ms, false)?;
        Ok((store, replayed.report))
    }

    fn empty(options: Options, now_ms: i64) -> Result<Store, OpenError> {
        options.check()?;
        Ok(Store {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            log: None,
            exemplars: Mutex::default(),
            metadata: RwLock::default(),
            hasher: foldhash::quality::RandomState::default(),
            series_count: AtomicUsize::new(0),
            clock_ms: AtomicI64::new(now_ms),
            min_t_ms: AtomicI64::new(i64::MAX),
            max_t_ms: AtomicI64::new(i64::MIN),
            totals: Totals::default(),
            options,
        })
    }

    /// Brings back what a log has; `mends` cuts a torn end off.
    fn replay(&mut self, dir: &Path, now_ms: i64, mends: bool) -> Result<Replayed, OpenError> {
        let floor_ms = now_ms.saturating_sub(self.options.retention_ms);
        let mut sink = Replaying { store: self };
        let replayed = replay(dir, now_ms, floor_ms, mends, &mut sink);
        replayed.map_err(|error| match error {
            ReplayError::Log(error) => OpenError::Log(error),
            ReplayError::Newer { path, found } => OpenError::NewerFormat {
                path,
                found,
                supported: VERSION,
            },
        })
    }

    /// The series with these labels, made if need be.
    ///
    /// # Errors
    /// If the label set is empty or too large, or there are too many series.
    pub fn series(&self, labels: &Labels) -> Result<SeriesRef, SeriesError> {
        let (shard_at, hash) = self.place(labels);
        let Some(shard) = self.shards.get(shard_at) else {
            return Err(SeriesError::NoLabels);
        };
        let now_ms = self.clock_ms.load(Ordering::Relaxed);
        {
            let shard = shard.read();
            if let Some(number) = shard.find(hash, labels) {
                if let Some(series) = shard.get(number) {
                    series.touch(now_ms);
                }
                return Ok(SeriesRef::new(shard_at, number));
            }
        }
        check_labels(labels)?;
        let mut shard = shard.write();
        if let Some(number) = shard.find(hash, labels) {
            return Ok(SeriesRef::new(shard_at, number));
        }
        self.insert(&mut shard, shard_at, hash, labels, now_ms)
    }

    fn insert(
        &self,
        shard: &mut Shard,
        shard_at: usize,
        hash: u64,
        labels: &Labels,
        now_ms: i64,
    ) -> Result<SeriesRef, SeriesError> {
        let max = self.options.series_max;
        if self.series_count.fetch_add(1, Ordering::Relaxed) >= max {
            self.series_count.fetch_sub(1, Ordering::Relaxed);
            return Err(SeriesError::TooMany { max });
        }
        match shard.insert(hash, labels, now_ms) {
            Some(number) => Ok(SeriesRef::new(shard_at, number)),
            None => {
                self.series_count.fetch_sub(1, Ordering::Relaxed);
                Err(SeriesError::TooMany { max })
            }
        }
    }

    fn place(&self, labels: &Labels) -> (usize, u64) {
        let mut hasher = self.hasher.build_hasher();
        for label in labels.iter() {
            hasher.write(label.name.as_bytes());
            hasher.write_u8(0xff);
            hasher.write(label.value.as_bytes());
            hasher.write_u8(0xff);
        }
        let hash = hasher.finish();
        ((hash % SHARDS as u64) as usize, hash)
    }

    /// Appends rows. Refused rows don't keep their neighbours from being stored.
    ///
    /// When it returns `Ok`, the accepted rows are in the log file and survive the end of
    /// the process; [`Store::flush`] makes them survive a power failure.
    ///
    /// # Errors
    /// If the log can't be written. Memory may have the rows then; to send the batch again
    /// is right, and writes all of it.
    pub fn append(&self, batch: &Batch, now_ms: i64) -> Result<AppendReport, AppendError> {
        self.clock_ms.fetch_max(now_ms, Ordering::Relaxed);
        let mut log = self.log.as_ref().map(Mutex::lock);
        if let Some(log) = &mut log {
            log.begin(&mut self.metadata.write())?;
        }
        let mut appending = Appending::new(self, log.as_deref_mut(), now_ms);
        appending.floats(batch);
        appending.histograms(batch);
        appending.exemplars(batch);
        let Appending {
            report,
            min_ms,
            max_ms,
            ..
        } = appending;
        self.min_t_ms.fetch_min(min_ms, Ordering::Relaxed);
        self.max_t_ms.fetch_max(max_ms, Ordering::Relaxed);
        if let Some(log) = &mut log {
            log.commit()?;
        }
        self.totals.add(&report);
        Ok(report)
    }

    /// Syncs the log to the disk, so that all batches so far survive a power failure. Does
    /// not hold up appends.
    ///
    /// # Errors
    /// If a file can't be synced; the next call tries again.
    pub fn flush(&self) -> std::io::Result<()> {
        let Some(log) = &self.log else {
            return Ok(());
        };
        let files = log.lock().handles_to_sync()?;
        let mut files = files.into_iter();
        while let Some(file) = files.next() {
            if let Err(error) = file.sync_all() {
                log.lock().not_synced(std::iter::once(file).chain(files));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Remembers what is known about a metric. It is written to the log with the next batch.
    pub fn set_metadata(&self, metric: &str, metadata: Metadata) {
        if !self.metadata.read().has(metric, &metadata) {
            self.metadata.write().set(metric, metadata);
        }
    }

    /// What is known about one metric, or about up to `limit` metrics by name; 0 means no
    /// limit.
    pub fn metadata(&self, metric: Option<&str>, limit: usize) -> Vec<(Arc<str>, Metadata)> {
        self.metadata.read().list(metric, limit)
    }

    /// Figures about the store.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for shard in &self.shards {
            let shard = shard.read();
            stats.series += shard.len() as u64;
            stats.samples += shard.tally.samples;
            stats.chunk_bytes += shard.tally.bytes as u64;
            stats.index_bytes += shard.index_bytes() as u64;
        }
        let known = |t_ms: i64, none: i64| (t_ms != none).then_some(t_ms);
        stats.min_t_ms = known(self.min_t_ms.load(Ordering::Relaxed), i64::MAX);
        stats.max_t_ms = known(self.max_t_ms.load(Ordering::Relaxed), i64::MIN);
        stats.exemplars = self.exemplars.lock().len() as u64;
        stats.log_bytes = self.log.as_ref().map_or(0, |log| log.lock().bytes());
        stats.appended = self.totals.appended.load(Ordering::Relaxed);
        stats.refused = *self.totals.refused.lock();
        stats.metadata_refused = self.metadata.read().refused();
        stats
    }
}

impl Totals {
    fn add(&self, report: &AppendReport) {
        self.appended.fetch_add(report.accepted, Ordering::Relaxed);
        if report.refused.total() > 0 {
            let mut refused = self.refused.lock();
            refused.too_old += report.refused.too_old;
            refused.too_new += report.refused.too_new;
            refused.duplicate += report.refused.duplicate;
            refused.unknown_series += report.refused.unknown_series;
            refused.malformed += report.refused.malformed;
        }
    }
}

fn check_labels(labels: &Labels) -> Result<(), SeriesError> {
    if labels.is_empty() {
        return Err(SeriesError::NoLabels);
    }
    let sizes = labels.iter().map(|l| l.name.len() + l.value.len());
    if labels.len() > LABELS_MAX || sizes.sum::<usize>() > LABEL_BYTES_MAX {
        return Err(SeriesError::TooLarge);
    }
    Ok(())
}
