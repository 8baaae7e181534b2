//! Reading from the store.
//!
//! A reader holds a shard's lock only to pick series and to copy the handles of their
//! chunks; samples are decoded without any lock. So a long query does not hold up appends,
//! and sees each series as it was at one moment, though not all series at the same one.
//!
//! Who needs no order gets series a few hundred at a time, so that memory does not grow with
//! their number; sorting needs the handles of all of them at once.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use hashbrown::HashMap;
use slogate_series::{Exemplar, Labels, Matcher, Projection, SampleSink, Series};
use smallvec::SmallVec;

use super::Store;
use crate::index::Pair;
use crate::rows::SeriesRef;
use crate::series::{MemSeries, Snapshot};
use crate::shard::Shard;
use crate::symbols::Symbol;

/// Series whose handles are copied while a shard's lock is held once.
const BATCH: usize = 512;

/// Which series and samples to read, and what to tell of them.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a> {
    /// All of them must accept a series.
    pub matchers: &'a [Matcher],
    /// The first time of the closed range, in milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// The last time of the closed range.
    pub end_ms: i64,
    /// The labels that are told; several series may then have the same ones.
    pub projection: Projection<'a>,
    /// Whether series come sorted by their whole labels; else their order means nothing, and
    /// changes when the store is opened anew.
    pub sorted: bool,
}

impl Store {
    /// The series that all matchers accept and that have samples in the closed range, with
    /// these samples, sorted by labels. Stale markers are samples.
    pub fn select(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Vec<Series> {
        let snapshots = self.snapshots(&Read {
            matchers,
            start_ms,
            end_ms,
            projection: Projection::All,
            sorted: true,
        });
        let mut selected = Vec::with_capacity(snapshots.len());
        for (labels, snapshot) in snapshots {
            let mut samples = Vec::with_capacity(snapshot.count_within(start_ms, end_ms));
            if snapshot.read(start_ms, end_ms, &mut samples) > 0 {
                selected.push(Series { labels, samples });
            }
        }
        selected
    }

    /// Hands series with samples to `each`, one at a time, until it breaks off. `samples` is
    /// cleared before each series; `each` may take out what it wants to keep.
    pub fn for_each<S: SampleSink>(
        &self,
        read: &Read<'_>,
        samples: &mut S,
        mut each: impl FnMut(&Labels, &mut S) -> ControlFlow<()>,
    ) {
        let mut hand_out = |(labels, snapshot): (Labels, Snapshot)| {
            samples.clear();
            if snapshot.read(read.start_ms, read.end_ms, samples) == 0 {
                return ControlFlow::Continue(());
            }
            each(&labels, samples)
        };
        // Leaving early is the caller's wish: there is nothing to tell.
        let _ = if read.sorted {
            self.snapshots(read).into_iter().try_for_each(hand_out)
        } else {
            let mut batch = Vec::new();
            (0..self.shards.len()).try_for_each(|shard| {
                let numbers = self.numbers(shard, read);
                numbers.chunks(BATCH).try_for_each(|numbers| {
                    self.copy_handles(shard, numbers, read, &mut batch);
                    batch.drain(..).try_for_each(&mut hand_out)
                })
            })
        };
    }

    /// The numbers of a shard's series that are to be read.
    fn numbers(&self, shard: usize, read: &Read<'_>) -> Vec<u32> {
        let Some(shard) = self.shards.get(shard) else {
            return Vec::new();
        };
        let shard = shard.read();
        let overlaps = |_, series: &MemSeries| series.overlaps(read.start_ms, read.end_ms);
        let selected = shard.selected(read.matchers, overlaps);
        selected.map(|(number, _)| number).collect()
    }

    /// Copies what reading these series takes; those that have gone meanwhile are left out.
    fn copy_handles(
        &self,
        shard: usize,
        numbers: &[u32],
        read: &Read<'_>,
        batch: &mut Vec<(Labels, Snapshot)>,
    ) {
        let Some(shard) = self.shards.get(shard) else {
            return;
        };
        let shard = shard.read();
        let mut namer = Namer::new(&shard, read.projection);
        batch.extend(numbers.iter().filter_map(|number| {
            let series = shard.get(*number)?;
            let snapshot = series.snapshot(read.start_ms, read.end_ms)?;
            Some((namer.labels(series), snapshot))
        }));
    }

    /// Sorted by labels.
    fn snapshots(&self, read: &Read<'_>) -> Vec<(Labels, Snapshot)> {
        let overlaps = |_, series: &MemSeries| series.overlaps(read.start_ms, read.end_ms);
        let picked = self.sorted(read.matchers, overlaps, |_, series| {
            series.snapshot(read.start_ms, read.end_ms)
        });
        if read.projection == Projection::All {
            return picked;
        }
        let project = |(labels, snapshot)| (read.projection.of(&labels), snapshot);
        picked.into_iter().map(project).collect()
    }

    /// What `pick` makes of the series that all matchers and `wanted` accept, sorted by
    /// labels.
    fn sorted<P>(
        &self,
        matchers: &[Matcher],
        wanted: impl Fn(SeriesRef, &MemSeries) -> bool,
        pick: impl Fn(SeriesRef, &MemSeries) -> Option<P>,
    ) -> Vec<(Labels, P)> {
        let mut picked = Vec::new();
        for (at, shard) in self.shards.iter().enumerate() {
            let shard = shard.read();
            let wanted = |number, series: &MemSeries| wanted(SeriesRef::new(at, number), series);
            let mut selected: Vec<_> = shard.selected(matchers, wanted).collect();
            selected.sort_unstable_by(|(_, a), (_, b)| shard.compare(a, b));
            picked.extend(selected.into_iter().filter_map(|(number, series)| {
                let picked = pick(SeriesRef::new(at, number), series)?;
                Some((shard.labels(&series.pairs), picked))
            }));
        }
        // Stable, since that sort makes use of the ascending run of each shard.
        picked.sort_by(|(a, _), (b, _)| a.cmp(b));
        picked
    }

    /// The label sets of the series that all matchers accept, sorted. A series counts if one
    /// of its chunks touches the closed range.
    pub fn series_labels(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Vec<Labels> {
        let overlaps = |_, series: &MemSeries| series.overlaps(start_ms, end_ms);
        let sorted = self.sorted(matchers, overlaps, |_, _| Some(()));
        sorted.into_iter().map(|(labels, ())| labels).collect()
    }

    /// The label names of the series that all matchers accept, sorted. A series counts if
    /// one of its chunks touches the closed range.
    pub fn label_names(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Vec<Arc<str>> {
        self.texts(matchers, start_ms, end_ms, None)
    }

    /// The values of the label `name` in the series that all matchers accept, sorted. A
    /// series counts if one of its chunks touches the closed range.
    pub fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Vec<Arc<str>> {
        self.texts(matchers, start_ms, end_ms, Some(name))
    }

    /// The label names, or the values of the label `name`.
    fn texts(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
        name: Option<&str>,
    ) -> Vec<Arc<str>> {
        let mut texts = BTreeSet::new();
        for shard in &self.shards {
            let shard = shard.read();
            let wanted = name.map(|name| shard.symbols.find(name));
            if wanted == Some(None) {
                continue;
            }
            let wanted = wanted.flatten();
            let mut found = hashbrown::HashSet::new();
            for (_, series) in shard.selected(matchers, |_, s| s.overlaps(start_ms, end_ms)) {
                found.extend(
                    series
                        .pairs
                        .iter()
                        .filter_map(|(name, value)| match wanted {
                            None => Some(*name),
                            Some(wanted) => (*name == wanted).then_some(*value),
                        }),
                );
            }
            texts.extend(found.into_iter().map(|symbol| shard.shared(symbol)));
        }
        texts.into_iter().collect()
    }

    /// The exemplars in the closed range of the series that all matchers accept, sorted by
    /// labels, then by time. Series without any are left out.
    pub fn exemplars(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Vec<(Labels, Vec<Exemplar>)> {
        let exemplars = self.exemplars.lock();
        let found = |place| exemplars.within(place, start_ms, end_ms);
        self.sorted(
            matchers,
            |place, _| !found(place).is_empty(),
            |place, _| Some(found(place)),
        )
    }
}

/// Names series of a shard, for as long as its lock is held.
struct Namer<'s> {
    shard: &'s Shard,
    names: Names,
    /// Whoever projects has few label sets, and many series with each.
    known: HashMap<SmallVec<[Pair; 4]>, Labels, foldhash::fast::RandomState>,
}

/// A projection in the shard's own symbols.
enum Names {
    All,
    Only(SmallVec<[Symbol; 8]>),
    Without(SmallVec<[Symbol; 8]>),
}

impl<'s> Namer<'s> {
    fn new(shard: &'s Shard, projection: Projection<'_>) -> Self {
        let find = |names: &[&str]| {
            let names = names.iter().filter_map(|name| shard.symbols.find(name));
            names.collect::<SmallVec<[Symbol; 8]>>()
        };
        let names = match projection {
            Projection::All => Names::All,
            Projection::Only(names) => Names::Only(find(names)),
            Projection::Without(names) => Names::Without(find(names)),
        };
        Namer {
            shard,
            names,
            known: HashMap::default(),
        }
    }

    fn labels(&mut self, series: &MemSeries) -> Labels {
        let pairs = series.pairs.iter().copied();
        let kept: SmallVec<[Pair; 4]> = match &self.names {
            Names::All => return self.shard.labels(&series.pairs),
            Names::Only(names) => pairs.filter(|(name, _)| names.contains(name)).collect(),
            Names::Without(names) => pairs.filter(|(name, _)| !names.contains(name)).collect(),
        };
        if let Some(labels) = self.known.get(&kept) {
            return labels.clone();
        }
        let labels = self.shard.labels(&kept);
        self.known.insert(kept, labels.clone());
        labels
    }
}
