//! Histograms with explicit bounds, native ones and classic buckets.
//!
//! Those of unlike bounds, as when a release changes them, are compared at the bounds they share;
//! where they share none, there is nothing to compare.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use slogate_series::{Buckets, Histogram, Labels, histogram::CUSTOM_SCHEMA};

use super::increases::float_increases;
use super::{Found, Gathered, Whose};

/// Blocks from classic buckets, series that differ in `le` alone.
pub(super) fn of_classic(found: &Found, unit_s: f64, from_ms: i64) -> Gathered<Histogram> {
    let mut gathered = Gathered::of(found);
    // The buckets of one histogram are the series that differ in `le` alone.
    let mut groups: HashMap<Labels, Vec<(f64, usize)>> = HashMap::new();
    for (at, one) in found.series.iter().enumerate() {
        let bound = one.labels.get("le").and_then(bound);
        if let Some(bound) = bound {
            let group = groups.entry(one.labels.without(&["le"])).or_default();
            group.push((bound, at));
        }
    }
    let mut explicit = Vec::new();
    for (_, mut group) in groups {
        group.sort_by(|a, b| a.0.total_cmp(&b.0));
        group.dedup_by(|a, b| a.0 == b.0);
        let bounds: Vec<f64> = group.iter().map(|(bound, _)| *bound).collect();
        if bounds.last() != Some(&f64::INFINITY) {
            continue;
        }
        let mut by_block: BTreeMap<(Whose<'_>, i64), Vec<f64>> = BTreeMap::new();
        for (nth, (_, at)) in group.iter().enumerate() {
            let Some(one) = found.series.get(*at) else {
                continue;
            };
            for (t_ms, increase) in float_increases(&one.samples, found.births.of(one, from_ms)) {
                let Some(whose) = found.whose(*at, t_ms) else {
                    continue;
                };
                let key = (whose, found.grid.block_of(t_ms));
                let counts = by_block
                    .entry(key)
                    .or_insert_with(|| vec![0.0; bounds.len()]);
                if let Some(count) = counts.get_mut(nth) {
                    *count += increase;
                }
            }
        }
        explicit.extend(
            by_block
                .into_iter()
                .map(|((whose, block), counts)| Cumulative {
                    whose,
                    block,
                    counts: bounds.iter().copied().zip(counts).collect(),
                }),
        );
    }
    add_explicit(&mut gathered, &explicit, unit_s);
    gathered
}

fn bound(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" | "inf" => Some(f64::INFINITY),
        text => text.parse().ok().filter(|bound: &f64| !bound.is_nan()),
    }
}

/// What one histogram with explicit bounds brings to a block: how many were at most each bound,
/// which ends with infinity.
pub(super) struct Cumulative<'f> {
    whose: Whose<'f>,
    block: i64,
    counts: Vec<(f64, f64)>,
}

impl<'f> Cumulative<'f> {
    pub(super) fn of(whose: Whose<'f>, block: i64, histogram: &Histogram) -> Self {
        let mut total = 0.0;
        let ends = histogram
            .custom_bounds
            .iter()
            .copied()
            .chain([f64::INFINITY]);
        let counts = (0..).zip(ends).map(|(at, end)| {
            total += histogram.positive.get(at);
            (end, total)
        });
        Cumulative {
            whose,
            block,
            counts: counts.collect(),
        }
    }

    fn at(&self, bound: f64) -> f64 {
        let found = self
            .counts
            .binary_search_by(|(end, _)| end.total_cmp(&bound));
        let found = found.ok().and_then(|at| self.counts.get(at));
        found.map_or(0.0, |(_, count)| *count)
    }
}

/// Brings all to the bounds that they share, and adds them up.
pub(super) fn add_explicit(
    gathered: &mut Gathered<Histogram>,
    all: &[Cumulative<'_>],
    unit_s: f64,
) {
    let Some(first) = all.first() else {
        return;
    };
    let mut shared: Vec<f64> = first.counts.iter().map(|(bound, _)| *bound).collect();
    let mut is_unlike = false;
    for one in all {
        let has = |bound: &f64| {
            one.counts
                .binary_search_by(|(end, _)| end.total_cmp(bound))
                .is_ok()
        };
        is_unlike |= one.counts.len() != shared.len();
        shared.retain(has);
        is_unlike |= one.counts.len() != shared.len();
    }
    shared.pop();
    if is_unlike {
        gathered.warnings.push(format!(
            "histograms have unlike buckets and are compared at the {} bounds they share",
            shared.len()
        ));
    }
    if shared.is_empty() {
        return;
    }
    let bounds: Arc<[f64]> = shared.iter().map(|bound| bound * unit_s).collect();
    for one in all {
        let mut before = 0.0;
        let mut entries = Vec::new();
        for (at, bound) in (0..).zip(shared.iter().chain([&f64::INFINITY])) {
            // Scrapes are not atomic in every client: a bucket may be behind the one below it.
            let upto = one.at(*bound).max(before);
            if upto > before {
                entries.push((at, upto - before));
            }
            before = upto;
        }
        let histogram = Histogram {
            schema: CUSTOM_SCHEMA,
            count: before,
            custom_bounds: bounds.clone(),
            positive: Buckets::from_sorted(entries),
            ..Histogram::default()
        };
        if before > 0.0 {
            gathered.add(one.whose, one.block, &histogram);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Grid;
    use super::*;

    fn explicit<'a>(version: &'a str, block: i64, counts: &[(f64, f64)]) -> Cumulative<'a> {
        Cumulative {
            whose: Whose {
                version,
                instance: None,
            },
            block,
            counts: counts.to_vec(),
        }
    }

    #[test]
    fn unlike_buckets_are_compared_where_they_agree() {
        const INF: f64 = f64::INFINITY;
        let mut gathered = Gathered {
            grid: Grid::default(),
            versions: BTreeMap::new(),
            warnings: Vec::new(),
        };
        let all = [
            explicit(
                "1",
                0,
                &[(100.0, 4.0), (250.0, 6.0), (500.0, 9.0), (INF, 10.0)],
            ),
            explicit(
                "2",
                0,
                &[(50.0, 1.0), (100.0, 3.0), (500.0, 2.0), (INF, 5.0)],
            ),
        ];
        add_explicit(&mut gathered, &all, 1e-3);
        let one = &gathered.versions["1"].by_block[&0];
        assert_eq!(&*one.custom_bounds, [0.1, 0.5]);
        assert_eq!(one.positive.as_slice(), [(0, 4.0), (1, 5.0), (2, 1.0)]);
        let two = &gathered.versions["2"].by_block[&0];
        assert_eq!(
            (two.count, two.positive.as_slice()),
            (5.0, &[(0, 3.0), (2, 2.0)][..])
        );
        assert_eq!(gathered.warnings.len(), 1);
    }
}
