//! Which series remote-written labels mean, remembered by the bytes that say so.
//!
//! The key is the labels as remote write 1.0 sends them: of a 1.0 request a piece of its body, of
//! a 2.0 request written from its symbols. Equal keys are equal labels, so a hit reads no label
//! and builds no string; equal hashes are checked against the bytes. (The same labels in another
//! order are another key to the same series; senders sort.)
//!
//! The table is bounded by two generations of keys in each of its shards, by bytes: when the young
//! one is full it becomes the old one, and what is found in the old one moves back. Series that
//! are forgotten, so or because nobody sent them for the idle time, are given back to their budget.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;
use slogate_series::{Label, Labels, METRIC_NAME};
use slogate_tsdb::{SeriesError, SeriesRef};
use slogate_wire::remote_write::v1;

use crate::ingest::Ingest;
use crate::ingest::identity::{Identity, Service};
use crate::ingest::outcome::Reason;

/// The longest key: labels of the store's limit, and what the wire adds.
pub(super) const KEY_MAX_BYTES: usize = 80 << 10;

/// The most labels of a series that are looked at; the store takes fewer.
const LABELS_MAX: usize = 1_000;

/// Shards of the table; a power of two.
const SHARDS: usize = 32;

/// Bytes of keys in one generation of a shard. All of them: 256 MiB, about a million series.
const GENERATION_MAX_BYTES: usize = 4 << 20;

/// What each entry costs beside its key.
const ENTRY_BYTES: usize = size_of::<Entry>() + 16;

/// A series that was remote-written.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) series: SeriesRef,
    /// The version whose series it is, where its labels tell.
    pub(super) identity: Option<Arc<Identity>>,
}

/// See the module's description.
#[derive(Debug)]
pub(in crate::ingest) struct SeriesTable {
    hasher: DefaultHashBuilder,
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Debug, Default)]
struct Shard {
    young: HashTable<Entry>,
    young_bytes: usize,
    old: HashTable<Entry>,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    key: Box<[u8]>,
    known: Known,
    /// Who pays for the series.
    account: Arc<Service>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.account.metric_series.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for SeriesTable {
    fn default() -> Self {
        SeriesTable {
            hasher: DefaultHashBuilder::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl SeriesTable {
    /// The series behind a key.
    #[inline]
    pub(super) fn find(&self, key: &[u8]) -> Option<Known> {
        let hash = self.hasher.hash_one(key);
        self.shard(hash).lock().get(hash, key)
    }

    /// Makes the series behind a key that is not there yet.
    #[cold]
    pub(super) fn add(&self, key: &[u8], ingest: &Ingest, now_ms: i64) -> Result<Known, Reason> {
        let labels = labels(key)?;
        let account = ingest.directory.account(&labels, now_ms)?;
        let used = account.payer.metric_series.load(Ordering::Relaxed);
        let budget = match account.is_service {
            true => ingest.options.metric_series_per_service,
            false => ingest.options.metric_series_per_job,
        };
        if used >= budget {
            return Err(Reason::SeriesBudget);
        }
        let series = ingest.store.series(&labels).map_err(|error| match error {
            SeriesError::TooMany { .. } => Reason::StoreFull,
            SeriesError::TooLarge | SeriesError::NoLabels => Reason::LabelSet,
        })?;
        let known = Known {
            series,
            identity: account.identity,
        };
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash).lock();
        // Another request may have been faster.
        if let Some(known) = shard.get(hash, key) {
            return Ok(known);
        }
        account.payer.metric_series.fetch_add(1, Ordering::Relaxed);
        shard.put(Entry {
            hash,
            key: key.into(),
            known: known.clone(),
            account: account.payer,
        });
        Ok(known)
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The table inside uses the lowest and the highest bits.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    /// Starts a new generation: what is not found from now until the next call is forgotten.
    pub(in crate::ingest) fn age(&self) {
        for shard in &self.shards {
            shard.lock().age();
        }
    }

    /// Forgets all, so that each series is looked up in the store again.
    pub(in crate::ingest) fn forget_all(&self) {
        for shard in &self.shards {
            *shard.lock() = Shard::default();
        }
    }

    /// The number of series known.
    pub(in crate::ingest) fn len(&self) -> usize {
        let of_shard = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(of_shard).sum()
    }
}

impl Shard {
    #[inline]
    fn get(&mut self, hash: u64, key: &[u8]) -> Option<Known> {
        let same = |entry: &Entry| *entry.key == *key;
        if let Some(entry) = self.young.find(hash, same) {
            return Some(entry.known.clone());
        }
        let (entry, _) = self.old.find_entry(hash, same).ok()?.remove();
        let known = entry.known.clone();
        self.put(entry);
        Some(known)
    }

    fn put(&mut self, entry: Entry) {
        if self.young_bytes > GENERATION_MAX_BYTES {
            self.age();
        }
        self.young_bytes += entry.key.len() + ENTRY_BYTES;
        self.young
            .insert_unique(entry.hash, entry, |entry| entry.hash);
    }

    fn age(&mut self) {
        self.young_bytes = 0;
        self.old = std::mem::take(&mut self.young);
    }
}

/// Reads and checks the labels of a key.
fn labels(key: &[u8]) -> Result<Labels, Reason> {
    let mut pairs: Vec<v1::Label<'_>> = Vec::new();
    for label in v1::labels(key) {
        // Text that is not UTF-8 does not make the whole request unreadable: it is in a label.
        let label = label.map_err(|_| Reason::SeriesLabels)?;
        if label.name.is_empty() {
            return Err(Reason::SeriesLabels);
        }
        if pairs.len() == LABELS_MAX {
            return Err(Reason::LabelSet);
        }
        pairs.push(label);
    }
    pairs.sort_unstable_by_key(|label| label.name);
    if pairs.windows(2).any(|pair| pair[0].name == pair[1].name) {
        return Err(Reason::SeriesLabels);
    }
    let pairs = pairs.iter().filter(|label| !label.value.is_empty());
    let pairs = pairs.map(|label| Label {
        name: label.name.into(),
        value: label.value.into(),
    });
    let labels = Labels::from_sorted(pairs.collect::<Vec<_>>());
    match labels.get(METRIC_NAME) {
        Some(_) => Ok(labels),
        None => Err(Reason::SeriesName),
    }
}
