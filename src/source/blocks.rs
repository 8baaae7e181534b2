//! Requests as counts per version and block of time.
//!
//! Time is cut into blocks aligned to the epoch, so that every look at a rollout cuts it the
//! same way. Counters become increases between neighbouring samples: a drop is a reset and
//! counts from zero; any first sample is only the point to count from, unless it is known that
//! the count began inside the window: its start timestamp says so, or the same process (`job`,
//! `instance` and `pod`) was being sampled already, so that the series is new to it. Without
//! that, the first failures of a new version would be lost, and it would look better than it
//! is. Nothing is extrapolated.
//!
//! # How long a block is
//!
//! Candidate and baseline are compared block by block, so each block has to hold samples of
//! both. A block is twice the time between samples, as they are found, and at least
//! [`BLOCK_MS`]: two of slogate's own five-second flushes, two minutes where Prometheus scrapes
//! each minute.
//!
//! # Durations
//!
//! A native histogram where the source has one, else classic buckets (VictoriaMetrics and most
//! meshes know nothing else). Classic buckets of unlike bounds, as when a release changes them,
//! are compared at the bounds they share; where they share none, there is nothing to compare.
//!
//! # Instances
//!
//! Where series say which instance served the requests, each version's blocks are kept by
//! instance too; series that don't, beside others that do, are one instance without a name.
//! Where other metrics count the same requests by instance, as slogate's own
//! do for spans, instances are read from those and the sum is not.

//!
//! # Look by look
//!
//! A rollout is looked at again and again, and most of what is looked at is old. [`Requests`] and
//! [`Durations`] keep what they gathered, and where every series stood at the end of the last
//! complete block; the next look asks for samples after that only. What they have gathered is
//! what a single look at the end would have gathered from the same samples. Where that needs
//! something to be counted in another way than before (another grid, series that turn out to be
//! of another version, fewer bounds shared), they start over by themselves and read all anew.
//!
//! The one difference is a sample that arrives after the block it belongs to was complete: a
//! later look does not see it, reading everything again does. So whoever writes down an answer
//! gathers from scratch for it; see [`crate::judge`].

use std::collections::BTreeMap;
use std::sync::Arc;

use slogate_series::Histogram;

use super::{MetricSource, SourceError};
use crate::model::Target;

mod durations;
mod explicit;
mod grid;
mod increases;
mod requests;
mod track;

pub(crate) use durations::Durations;
pub(crate) use grid::{BLOCK_MS, Grid};
pub(crate) use increases::increase;
pub(crate) use requests::Requests;

/// Requests of one version in one block.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// All requests.
    pub(crate) total: f64,
    /// Failed requests, for example those whose span status is error.
    pub(crate) errors: f64,
}

/// What blocks hold.
pub(crate) trait Additive: Clone {
    /// Adds what another series brings to the same block.
    fn add_up(&mut self, other: &Self);
}

impl Additive for Counts {
    fn add_up(&mut self, other: &Self) {
        self.total += other.total;
        self.errors += other.errors;
    }
}

impl Additive for Histogram {
    fn add_up(&mut self, other: &Self) {
        *self = self.add(other);
    }
}

/// One version's blocks.
#[derive(Clone, Debug)]
pub(crate) struct Blocks<T> {
    /// The sum over all series; only blocks with something in them.
    pub(crate) by_block: BTreeMap<i64, T>,
    /// The same by instance; empty where no series of the target says one. Where some do, those
    /// that don't are together the instance with the empty name, so that the sum is complete.
    pub(crate) instances: BTreeMap<Arc<str>, Instance<T>>,
    /// The newest sample of any of its series, in milliseconds since the epoch.
    pub(crate) newest_ms: i64,
    /// The oldest sample in the window, in milliseconds since the epoch.
    pub(crate) oldest_ms: i64,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Blocks {
            by_block: BTreeMap::new(),
            instances: BTreeMap::new(),
            newest_ms: i64::MIN,
            oldest_ms: i64::MAX,
        }
    }
}

/// One instance's blocks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Instance<T> {
    /// Only blocks with something in them.
    pub(crate) by_block: BTreeMap<i64, T>,
}

impl<T> Default for Instance<T> {
    fn default() -> Self {
        Instance {
            by_block: BTreeMap::new(),
        }
    }
}

impl<T> Blocks<T> {
    fn saw(&mut self, t_ms: i64) {
        self.oldest_ms = self.oldest_ms.min(t_ms);
        self.newest_ms = self.newest_ms.max(t_ms);
    }
}

impl<T: Additive> Blocks<T> {
    fn add_to_instance(&mut self, name: &str, block: i64, increase: &T) {
        if !self.instances.contains_key(name) {
            self.instances.insert(name.into(), Instance::default());
        }
        if let Some(instance) = self.instances.get_mut(name) {
            add_to(&mut instance.by_block, block, increase);
        }
    }
}

fn add_to<T: Additive>(by_block: &mut BTreeMap<i64, T>, block: i64, increase: &T) {
    match by_block.get_mut(&block) {
        Some(sum) => sum.add_up(increase),
        None => {
            by_block.insert(block, increase.clone());
        }
    }
}

/// What was gathered: blocks by version, and the source's remarks.
#[derive(Clone, Debug)]
pub(crate) struct Gathered<T> {
    /// How time was cut.
    pub(crate) grid: Grid,
    /// Blocks by version; series without one are under the empty version.
    pub(crate) versions: BTreeMap<String, Blocks<T>>,
    /// The source's remarks.
    pub(crate) warnings: Vec<String>,
}

impl<T> Default for Gathered<T> {
    fn default() -> Self {
        Gathered {
            grid: Grid::default(),
            versions: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }
}

impl<T> Gathered<T> {
    fn blocks(&mut self, version: &str) -> &mut Blocks<T> {
        if !self.versions.contains_key(version) {
            self.versions.insert(version.to_owned(), Blocks::default());
        }
        self.versions.entry(version.to_owned()).or_default()
    }

    /// Forgets all blocks from `block` on.
    fn drop_from(&mut self, block: i64) {
        for blocks in self.versions.values_mut() {
            blocks.by_block.split_off(&block);
            for instance in blocks.instances.values_mut() {
                instance.by_block.split_off(&block);
            }
        }
    }
}

impl<T> Gathered<T> {
    /// How many blocks it has, those of instances included.
    pub(crate) fn blocks_count(&self) -> usize {
        let of = |blocks: &Blocks<T>| {
            let instances = blocks.instances.values().map(|one| one.by_block.len());
            blocks.by_block.len() + instances.sum::<usize>()
        };
        self.versions.values().map(of).sum()
    }
}

impl<T: Additive> Gathered<T> {
    fn add(&mut self, whose: Whose<'_>, block: i64, increase: &T) {
        let blocks = self.blocks(whose.version);
        if !whose.is_beside {
            add_to(&mut blocks.by_block, block, increase);
        }
        if let Some(name) = whose.instance {
            blocks.add_to_instance(name, block, increase);
        }
    }
}

/// Whose requests an increase is of.
#[derive(Clone, Copy, Debug)]
struct Whose<'f> {
    version: &'f str,
    instance: Option<&'f str>,
    /// Whether other series count the same requests for the sum.
    is_beside: bool,
}

/// Requests of one span kind (`SPAN_KIND_SERVER`), by version, in `(from_ms, now_ms]`.
///
/// # Errors
/// When the source can't answer.
pub(crate) async fn requests(
    source: &dyn MetricSource,
    target: &Target,
    span_kind: &str,
    from_ms: i64,
    now_ms: i64,
) -> Result<Gathered<Counts>, SourceError> {
    let mut requests = Requests::new(source.mapping(), target, span_kind, from_ms);
    requests.look(source, now_ms).await?;
    Ok(requests.lend())
}

/// Durations in seconds of requests of one span kind, by version, in `(from_ms, now_ms]`.
///
/// # Errors
/// When the source can't answer.
pub(crate) async fn durations(
    source: &dyn MetricSource,
    target: &Target,
    span_kind: &str,
    from_ms: i64,
    now_ms: i64,
) -> Result<Gathered<Histogram>, SourceError> {
    let mut durations = Durations::new(source.mapping(), target, span_kind, from_ms);
    durations.look(source, now_ms).await?;
    Ok(durations.lend())
}

#[cfg(test)]
mod tests;
