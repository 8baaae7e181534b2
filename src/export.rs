//! Remote write out: series of ours in somebody else's store.
//!
//! What matches `export.match` (by default the series that spans became, and `slogate_*`) is sent
//! to any endpoint that takes Prometheus remote write 1.0. Three parts, which never wait for each
//! other: `follow` reads what is new out of the series store, `queue` keeps it on disk, `send`
//! empties the queue. So a dead endpoint costs disk, at most `export.queueSizeMax`, and neither
//! ingest nor verdicts notice.
//!
//! Policy:
//! - **What is sent.** Every sample of a matching series that the store has, in the order of time
//!   within its series, stale markers included: a series that ends here ends there. Histograms
//!   leave as native (float) histograms. Start times and exemplars stay here.
//! - **From when on.** The first time from now on. After a restart from where the queue ends, but at
//!   most the last hour: most receivers refuse older samples. The gap is logged.
//! - **Late samples.** One that reaches the store within ten minutes of its own time is sent, if
//!   nothing newer of its series was sent before; the first half minute at once, the rest within a
//!   minute. Behind what was sent already it stays here, as receivers would refuse it, and with it
//!   its whole request.
//! - **Nothing twice.** What is in the queue is not read out again after a kill. A request whose
//!   answer was never seen is sent again, which receivers take for what it is.
//! - **In order.** One request at a time. 429, 5xx and no answer at all: the same again, with
//!   growing pauses or after what `Retry-After` says. Any other answer is final: what was
//!   refused is dropped, counted and logged with the answer's first line.
//! - **When the queue is full** the oldest go, a segment at a time; counted and logged.

mod follow;
mod queue;
mod send;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use slogate_series::Matcher;
use slogate_tsdb::Store;
use tokio::sync::Notify;

use crate::config::ExportSettings;
use crate::outbound::{Outbound, OutboundError};

use follow::Following;
use queue::{Queue, Request};

pub use send::Step;

/// How often what is new is read out of the store, in milliseconds.
pub const INTERVAL_MS: i64 = 5_000;

/// How far back a queue's end may lie and still be gone on from, in milliseconds.
const CATCH_UP_MAX_MS: i64 = 3_600_000;

/// The most samples of one request.
const REQUEST_SAMPLES: u32 = 2_000;

/// Why samples were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The queue was full.
    Overflow,
    /// The endpoint refused them for good.
    Refused,
}

impl DropReason {
    /// All of them.
    pub const ALL: [DropReason; 2] = [DropReason::Overflow, DropReason::Refused];

    /// The reason's name in our own metrics.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::Overflow => "overflow",
            DropReason::Refused => "refused",
        }
    }
}

/// Why nothing can be exported, or not now.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file of the queue can't be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file or its directory.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file of the queue is of another version.
    #[error("{path}: not an export queue of a version this slogate reads; move it away")]
    Version {
        /// The file.
        path: PathBuf,
    },
    /// The endpoint's settings can't be used.
    #[error("export: {0}")]
    Endpoint(#[from] OutboundError),
}

/// Totals since the start, and levels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExportStats {
    /// Samples that the endpoint took.
    pub sent: u64,
    /// Samples not sent, in the order of [`DropReason::ALL`].
    pub dropped: [u64; 2],
    /// Requests that have to be sent again.
    pub retries: u64,
    /// Samples that wait.
    pub pending: u64,
    /// Bytes on disk.
    pub queue_bytes: u64,
    /// The age of the oldest sample that waits, in seconds; 0 where none does.
    pub lag_seconds: f64,
}

/// See the module's description.
#[derive(Debug)]
pub struct Exporter {
    store: Arc<Store>,
    matchers: Vec<Matcher>,
    labels: Vec<(String, String)>,
    /// Locked before the queue.
    following: Mutex<Following>,
    queue: Mutex<Queue>,
    endpoint: Outbound,
    /// Told when something was queued.
    queued: Notify,
    sent: AtomicU64,
    dropped: [AtomicU64; 2],
    retries: AtomicU64,
    /// When a refusal was last logged.
    complained_ms: AtomicI64,
}

impl Exporter {
    /// Opens the queue in `dir`, and finds where to go on in `store`.
    ///
    /// # Errors
    /// If the queue or a certificate can't be read.
    pub fn open(
        dir: &Path,
        settings: &ExportSettings,
        store: Arc<Store>,
        now_ms: i64,
    ) -> Result<Exporter, ExportError> {
        let endpoint = Outbound::new(&settings.endpoint)?;
        let (queue, recovered) = Queue::open(dir, settings.queue_max_bytes)?;
        if recovered.lost_bytes > 0 {
            let bytes = recovered.lost_bytes;
            tracing::warn!(
                bytes,
                "the export queue is damaged; what can be read is sent"
            );
        }
        let earliest_ms = now_ms - CATCH_UP_MAX_MS;
        let from_ms = match recovered.through_ms {
            None => now_ms,
            Some(through_ms) if through_ms < earliest_ms => {
                let seconds = (earliest_ms - through_ms) / 1_000;
                tracing::warn!(
                    seconds,
                    "samples older than an hour were not exported yet and stay here"
                );
                earliest_ms
            }
            // A clock that went back must not stop the export until it has caught up.
            Some(through_ms) => through_ms.min(now_ms),
        };
        let following = Following::from(&store, &settings.matchers, from_ms);
        Ok(Exporter {
            store,
            matchers: settings.matchers.clone(),
            labels: settings.labels.clone(),
            following: Mutex::new(following),
            queue: Mutex::new(queue),
            endpoint,
            queued: Notify::new(),
            sent: AtomicU64::new(0),
            dropped: Default::default(),
            retries: AtomicU64::new(0),
            complained_ms: AtomicI64::new(i64::MIN),
        })
    }

    /// The endpoint's URL as it may be shown.
    pub fn endpoint(&self) -> &str {
        self.endpoint.name()
    }

    /// Queues what is new in the store. Blocks.
    ///
    /// # Errors
    /// If the queue can't be written; the next call tries the same again.
    pub fn collect(&self, now_ms: i64) -> Result<(), ExportError> {
        let mut following = self.following.lock();
        for slice in following.slices(now_ms) {
            let news = following.read(&self.store, &self.matchers, &self.labels, &slice);
            let mut queue = self.queue.lock();
            let overflowed = queue.append(&news.requests, slice.through_ms)?;
            drop(queue);
            following.commit(&slice, news);
            self.queued.notify_one();
            if overflowed > 0 {
                self.drop_samples(DropReason::Overflow, overflowed);
                tracing::warn!(
                    samples = overflowed,
                    endpoint = self.endpoint(),
                    "the export queue is full; its oldest samples are dropped"
                );
            }
        }
        Ok(())
    }

    /// Totals and levels, for our own metrics.
    pub fn stats(&self, now_ms: i64) -> ExportStats {
        let queue = self.queue.lock();
        let oldest_ms = queue.oldest_ms().unwrap_or(now_ms);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ExportStats {
            sent: read(&self.sent),
            dropped: [read(&self.dropped[0]), read(&self.dropped[1])],
            retries: read(&self.retries),
            pending: queue.pending(),
            queue_bytes: queue.bytes(),
            lag_seconds: (now_ms - oldest_ms).max(0) as f64 / 1_000.0,
        }
    }

    fn drop_samples(&self, reason: DropReason, samples: u64) {
        self.dropped[reason as usize].fetch_add(samples, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
