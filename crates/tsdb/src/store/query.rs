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
use crate::shard::Shard;

impl Store {
    /// The series that all matchers accept and that have samples in the closed range, with
    /// these samples, sorted by labels. Stale markers are samples.
    pub fn select(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Vec<Series> {
        let mut selected = Vec::new();
        for (labels, snapshot) in self.snapshots(matchers, start_ms, end_ms) {
            let mut samples = Vec::with_capacity(snapshot.samples_max());
            samples.extend(snapshot.samples(start_ms, end_ms));
            if !samples.is_empty() {
                selected.push(Series { labels, samples });
            }
        }
        selected
    }

    /// Like [`Store::select`], but hands the samples of one series at a time to `each`,
    /// without collecting them.
    pub fn select_with<F>(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64, mut each: F)
    where
        F: FnMut(&Labels, &mut dyn Iterator<Item = Sample>),
    {
        for (labels, snapshot) in self.snapshots(matchers, start_ms, end_ms) {
            let mut samples = snapshot.samples(start_ms, end_ms).peekable();
            if samples.peek().is_some() {
                each(&labels, &mut samples);
            }
        }
    }

    /// Sorted by labels.
    fn snapshots(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Vec<(Labels, Snapshot)> {
        let mut snapshots = Vec::new();
        self.for_each(matchers, |shard, _, series| {
            if let Some(snapshot) = series.snapshot(start_ms, end_ms) {
                snapshots.push((shard.labels(series), snapshot));
            }
        });
        snapshots.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        snapshots
    }

    /// The label sets of the series that all matchers accept, sorted. A series counts if one
    /// of its chunks touches the closed range.
    pub fn series_labels(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Vec<Labels> {
        let mut labels = Vec::new();
        self.for_each(matchers, |shard, _, series| {
            if series.overlaps(start_ms, end_ms) {
                labels.push(shard.labels(series));
            }
        });
        labels.sort_unstable();
        labels
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
            for (_, series) in shard.selected(matchers) {
                if series.overlaps(start_ms, end_ms) {
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
        let mut selected = Vec::new();
        self.for_each(matchers, |shard, place, series| {
            let found = exemplars.within(place, start_ms, end_ms);
            if !found.is_empty() {
                selected.push((shard.labels(series), found));
            }
        });
        drop(exemplars);
        selected.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        selected
    }

    fn for_each(&self, matchers: &[Matcher], mut each: impl FnMut(&Shard, SeriesRef, &MemSeries)) {
        for (at, shard) in self.shards.iter().enumerate() {
            let shard = shard.read();
            for (number, series) in shard.selected(matchers) {
                each(&shard, SeriesRef::new(at, number), series);
            }
        }
    }
}
