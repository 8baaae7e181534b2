//! Reading from the store.
//!
//! A reader holds a shard's lock only to pick series and to copy the handles of their
//! chunks; samples are decoded without any lock. So a long query does not hold up appends,
//! and sees each series as it was at one moment, though not all series at the same one.

use std::collections::BTreeSet;
use std::sync::Arc;

use slogate_series::{Exemplar, Labels, Matcher, Sample, Series};

use super::Store;
use crate::rows::SeriesRef;
use crate::series::{MemSeries, Snapshot};

impl Store {
    /// The series that all matchers accept and that have samples in the closed range, with
    /// these samples, sorted by labels. Stale markers are samples.
    pub fn select(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Vec<Series> {
        let snapshots = self.snapshots(matchers, start_ms, end_ms);
        let mut selected = Vec::with_capacity(snapshots.len());
        for (labels, snapshot) in snapshots {
            let mut samples = Vec::new();
            snapshot.read(start_ms, end_ms, &mut samples);
            if !samples.is_empty() {
                selected.push(Series { labels, samples });
            }
        }
        selected
    }

    /// Like [`Store::select`], but hands the samples to `each` one series at a time, and
    /// keeps no more than one series' samples in memory.
    pub fn select_with<F>(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64, mut each: F)
    where
        F: FnMut(&Labels, &mut dyn Iterator<Item = Sample>),
    {
        let mut samples = Vec::new();
        for (labels, snapshot) in self.snapshots(matchers, start_ms, end_ms) {
            snapshot.read(start_ms, end_ms, &mut samples);
            if !samples.is_empty() {
                each(&labels, &mut samples.drain(..));
            }
            samples.clear();
        }
    }

    /// Sorted by labels.
    fn snapshots(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Vec<(Labels, Snapshot)> {
        let overlaps = |_, series: &MemSeries| series.overlaps(start_ms, end_ms);
        self.sorted(matchers, overlaps, |_, series| {
            series.snapshot(start_ms, end_ms)
        })
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
                Some((shard.labels(series), picked))
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
