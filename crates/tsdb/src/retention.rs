//! Maintenance: what happens to data as it gets older.
//!
//! In this order, shard by shard:
//!
//! 1. late samples are folded into the chunks;
//! 2. open chunks that nothing was appended to for an hour are finished, which frees their
//!    encoder;
//! 3. chunks that end before the retention are dropped;
//! 4. if chunks and index together take more than the allowed size, the oldest chunks of all
//!    series are dropped, until 5 % below it. The last hour stays whatever it takes, since a
//!    store that forgets what it was just told is of no use; the report says by how much it
//!    is too much;
//! 5. series that have no samples, and that nobody asked for or appended to for 10 minutes,
//!    are collected. Their references are unknown from then on;
//! 6. log segments are deleted that have no samples as young as what was kept.
//!
//! A chunk goes as a whole: a series' oldest samples may be older than the retention by one
//! chunk. Samples that were dropped by size may come back from the log when the store is
//! opened again, until the next maintenance: a segment goes only when all of it may.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::log::LogError;
use crate::rows::SeriesRef;
use crate::store::Store;

/// An open chunk is finished after so long without a sample.
const IDLE_MS: i64 = 60 * 60_000;

/// A series without samples is kept for so long after its last use.
const UNUSED_MS: i64 = 10 * 60_000;

/// Samples of the last hour are not dropped by size.
const YOUNG_MS: i64 = 60 * 60_000;

/// Chunks are dropped by size in steps of this age.
const AGE_STEP_MS: i64 = 60_000;

/// What maintenance did.
#[derive(Debug, Default)]
pub struct MaintainReport {
    /// Late samples folded into chunks.
    pub folded: u64,
    /// Open chunks finished because nothing was appended to them.
    pub finished: u64,
    /// Samples dropped because they are older than the retention.
    pub expired_by_time: u64,
    /// Samples dropped, oldest first, because of the memory that chunks and index take.
    pub expired_by_size: u64,
    /// Bytes that chunks and index still take beyond the allowed size.
    pub over_size_bytes: u64,
    /// Series collected.
    pub series_removed: u64,
    /// Log segments deleted.
    pub segments_removed: u64,
    /// Their bytes.
    pub segment_bytes_removed: u64,
    /// The first log segment that could not be deleted. The next maintenance tries again.
    pub failure: Option<LogError>,
}

impl Store {
    /// Does the work that is due as of `now_ms`; to be called about once a minute.
    ///
    /// Folds late samples into chunks, finishes idle chunks, drops what is older than the
    /// retention and, beyond the allowed size, the oldest chunks of all series (never the
    /// last hour), collects series without samples that were not used for 10 minutes, and
    /// deletes the log segments that nothing kept is in.
    pub fn maintain(&self, now_ms: i64) -> MaintainReport {
        self.clock_ms.fetch_max(now_ms, Ordering::Relaxed);
        let mut report = MaintainReport::default();
        let mut floor_ms = now_ms.saturating_sub(self.options.retention_ms);
        self.age(now_ms, floor_ms, &mut report);
        if let Some(size_floor_ms) = self.size_floor_ms(now_ms) {
            report.expired_by_size = self.expire(size_floor_ms);
            floor_ms = floor_ms.max(size_floor_ms);
        }
        self.exemplars.lock().expire(floor_ms);
        self.collect(now_ms.saturating_sub(UNUSED_MS), &mut report);
        self.note_oldest();
        report.over_size_bytes = self.over_size_bytes();
        if let Some(log) = &self.log {
            let (count, bytes, failure) = Mutex::lock(log).expire(floor_ms);
            report.segments_removed = count;
            report.segment_bytes_removed = bytes;
            report.failure = failure;
        }
        report
    }

    fn age(&self, now_ms: i64, floor_ms: i64, report: &mut MaintainReport) {
        let idle_ms = now_ms.saturating_sub(IDLE_MS);
        for shard in &self.shards {
            shard.write().for_each_mut(|series, tally| {
                report.folded += series.fold(tally) as u64;
                report.finished += u64::from(series.finish_idle(idle_ms, tally));
                report.expired_by_time += series.expire(floor_ms, tally);
            });
        }
    }

    fn expire(&self, floor_ms: i64) -> u64 {
        let mut expired = 0;
        for shard in &self.shards {
            shard.write().for_each_mut(|series, tally| {
                expired += series.expire(floor_ms, tally);
            });
        }
        expired
    }

    /// By how much chunks and index are larger than allowed.
    fn over_size_bytes(&self) -> u64 {
        let bytes = self.shards.iter().map(|shard| {
            let shard = shard.read();
            (shard.tally.bytes + shard.index_bytes()) as u64
        });
        bytes
            .sum::<u64>()
            .saturating_sub(self.options.size_max_bytes)
    }

    /// Before when chunks are to be dropped for the rest to fit; `None` if all of them fit.
    fn size_floor_ms(&self, now_ms: i64) -> Option<i64> {
        let mut excess = self.over_size_bytes();
        if excess == 0 {
            return None;
        }
        excess += self.options.size_max_bytes / 20;
        let mut by_age: BTreeMap<i64, u64> = BTreeMap::new();
        for shard in &self.shards {
            for (_, series) in shard.read().iter() {
                series.chunk_ages(|max_ms, bytes| {
                    *by_age.entry(max_ms.div_euclid(AGE_STEP_MS)).or_default() += bytes as u64;
                });
            }
        }
        let mut floor_ms = None;
        for (age, bytes) in by_age {
            floor_ms = Some((age + 1).saturating_mul(AGE_STEP_MS));
            excess = excess.saturating_sub(bytes);
            if excess == 0 {
                break;
            }
        }
        floor_ms.map(|floor_ms| floor_ms.min(now_ms.saturating_sub(YOUNG_MS)))
    }

    fn collect(&self, before_ms: i64, report: &mut MaintainReport) {
        for (at, shard) in self.shards.iter().enumerate() {
            let dead = shard.write().collect(before_ms);
            if dead.is_empty() {
                continue;
            }
            report.series_removed += dead.len() as u64;
            self.series_count.fetch_sub(dead.len(), Ordering::Relaxed);
            let refs = dead.into_iter().map(|number| SeriesRef::new(at, number));
            self.exemplars.lock().remove(refs);
        }
    }

    /// Finds the oldest sample again, since what was the oldest may have gone.
    fn note_oldest(&self) {
        let before = self.min_t_ms.load(Ordering::Relaxed);
        let mut oldest_ms = i64::MAX;
        for shard in &self.shards {
            for (_, series) in shard.read().iter() {
                oldest_ms = oldest_ms.min(series.oldest_ms().unwrap_or(i64::MAX));
            }
        }
        // An append in between has written an older time, which then stays.
        let _ =
            self.min_t_ms
                .compare_exchange(before, oldest_ms, Ordering::Relaxed, Ordering::Relaxed);
    }
}
