//! Where the series come from: counts by metric, by label and by label pair.
//!
//! One label at a time, so that no more than the values of the label with the most of them are
//! held besides the store; each shard is locked for one label at a time too.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;
use slogate_series::METRIC_NAME;

use super::Store;

/// What has most of something, in falling order; of equals the first by name.
pub type Ranking = Vec<(String, u64)>;

/// Where the series come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Distinct label pairs.
    pub label_pairs: u64,
    /// Chunks of samples, finished or open.
    pub chunks: u64,
    /// Metrics by their series.
    pub series_by_metric: Ranking,
    /// Labels by their distinct values.
    pub values_by_label: Ranking,
    /// Labels by the bytes of their values, counted for every series.
    pub bytes_by_label: Ranking,
    /// Pairs, as `name=value`, by their series.
    pub series_by_pair: Ranking,
}

impl Store {
    /// Where the series come from: of each ranking the first `top` entries.
    pub fn cardinality(&self, top: usize) -> Cardinality {
        let mut found = Cardinality::default();
        let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
        for shard in &self.shards {
            let shard = shard.read();
            names.extend(shard.label_names().map(|name| shard.shared(name)));
            for (_, series) in shard.iter() {
                series.chunk_ages(|_, _| found.chunks += 1);
            }
        }
        for name in names {
            self.count_label(&name, top, &mut found);
        }
        for ranking in [&mut found.values_by_label, &mut found.bytes_by_label] {
            keep_top(ranking, top);
        }
        found
    }

    fn count_label(&self, name: &str, top: usize, found: &mut Cardinality) {
        let mut series_by_value: HashMap<Arc<str>, u64> = HashMap::new();
        for shard in &self.shards {
            let shard = shard.read();
            let Some(name) = shard.symbols.find(name) else {
                continue;
            };
            for (value, series) in shard.label_values(name) {
                *series_by_value.entry(shard.shared(value)).or_default() += series as u64;
            }
        }
        let values = series_by_value.len() as u64;
        let bytes = series_by_value.iter();
        let bytes = bytes.map(|(value, series)| value.len() as u64 * series);
        found.label_pairs += values;
        found.values_by_label.push((name.to_owned(), values));
        found.bytes_by_label.push((name.to_owned(), bytes.sum()));
        let mut values: Vec<(&Arc<str>, u64)> = series_by_value
            .iter()
            .map(|(value, n)| (value, *n))
            .collect();
        values.sort_unstable_by(|(a, n), (b, m)| m.cmp(n).then(a.cmp(b)));
        values.truncate(top);
        for (value, series) in values {
            if name == METRIC_NAME {
                found.series_by_metric.push((value.to_string(), series));
            }
            let pair = format!("{name}={value}");
            found.series_by_pair.push((pair, series));
        }
        keep_top(&mut found.series_by_pair, top);
    }
}

fn keep_top(ranking: &mut Ranking, top: usize) {
    ranking.sort_unstable_by(|(a, n), (b, m)| m.cmp(n).then(a.cmp(b)));
    ranking.truncate(top);
}

#[cfg(test)]
mod tests {
    use slogate_series::Labels;

    use crate::{Batch, FloatRow, Options, Store};

    #[test]
    fn series_are_counted_by_what_names_them() {
        let (store, _) = Store::open(Options::default(), 0).unwrap();
        let mut batch = Batch::default();
        for n in 0..50 {
            let (name, job) = if n < 30 { ("a", "x") } else { ("bb", "y") };
            let labels = Labels::from_pairs([
                ("__name__", name.to_owned()),
                ("job", job.to_owned()),
                ("instance", format!("{n:03}")),
            ]);
            batch.floats.push(FloatRow {
                series: store.series(&labels).unwrap(),
                t_ms: 1_000,
                start_ms: 0,
                value: 1.0,
            });
        }
        store.append(&batch, 1_000).unwrap();
        let found = store.cardinality(2);
        let ranking = |list: &[(&str, u64)]| -> Vec<(String, u64)> {
            list.iter()
                .map(|(name, n)| ((*name).to_owned(), *n))
                .collect()
        };
        assert_eq!((found.label_pairs, found.chunks), (54, 50));
        assert_eq!(found.series_by_metric, ranking(&[("a", 30), ("bb", 20)]));
        assert_eq!(
            found.values_by_label,
            ranking(&[("instance", 50), ("__name__", 2)])
        );
        assert_eq!(
            found.bytes_by_label,
            ranking(&[("instance", 150), ("__name__", 70)])
        );
        assert_eq!(
            found.series_by_pair,
            ranking(&[("__name__=a", 30), ("job=x", 30)])
        );
        assert_eq!(store.cardinality(100).values_by_label.len(), 3);
    }
}
