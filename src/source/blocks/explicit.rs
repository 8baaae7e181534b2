//! Histograms with explicit bounds, native ones and classic buckets.
//!
//! Those of unlike bounds, as when a release changes them, are compared at the bounds they share;
//! where they share none, there is nothing to compare.

use std::sync::Arc;

use slogate_series::{Buckets, Histogram, histogram::CUSTOM_SCHEMA};

use super::{Gathered, Whose};

/// What one histogram with explicit bounds brings to a block: how many were at most each bound,
/// which ends with infinity.
#[derive(Debug)]
pub(super) struct Cumulative {
    pub(super) version: String,
    pub(super) instance: Option<Arc<str>>,
    pub(super) is_beside: bool,
    pub(super) block: i64,
    pub(super) counts: Vec<(f64, f64)>,
}

impl Cumulative {
    /// Of a native histogram's increase.
    pub(super) fn of(whose: Whose<'_>, block: i64, histogram: &Histogram) -> Self {
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
            version: whose.version.to_owned(),
            instance: whose.instance.map(Arc::from),
            is_beside: whose.is_beside,
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

    fn has(&self, bound: f64) -> bool {
        let found = self
            .counts
            .binary_search_by(|(end, _)| end.total_cmp(&bound));
        found.is_ok()
    }
}

/// The bounds that all histograms so far share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Ascending, infinity last; `None` before the first histogram.
    bounds: Option<Vec<f64>>,
    is_unlike: bool,
}

impl Shared {
    /// Whether there was no histogram yet.
    pub(super) fn is_empty(&self) -> bool {
        self.bounds.is_none()
    }

    /// Brings all to the bounds that they share, and adds them up. False where earlier ones had
    /// bounds that these don't share, so that they have to be added anew.
    pub(super) fn add_all(
        &mut self,
        gathered: &mut Gathered<Histogram>,
        all: &[Cumulative],
        unit_s: f64,
    ) -> bool {
        let is_kept = self.narrow(all);
        let Some((_, shared)) = self.bounds.as_ref().and_then(|bounds| bounds.split_last()) else {
            return is_kept;
        };
        if self.is_unlike {
            gathered.warnings.push(format!(
                "histograms have unlike buckets and are compared at the {} bounds they share",
                shared.len()
            ));
        }
        if !shared.is_empty() {
            let bounds: Arc<[f64]> = shared.iter().map(|bound| bound * unit_s).collect();
            for one in all {
                add(gathered, one, shared, &bounds);
            }
        }
        is_kept
    }

    fn narrow(&mut self, all: &[Cumulative]) -> bool {
        let mut is_kept = true;
        let had_some = self.bounds.is_some();
        for one in all {
            let Some(bounds) = &mut self.bounds else {
                self.bounds = Some(one.counts.iter().map(|(bound, _)| *bound).collect());
                continue;
            };
            self.is_unlike |= one.counts.len() != bounds.len();
            let before = bounds.len();
            bounds.retain(|bound| one.has(*bound));
            self.is_unlike |= bounds.len() != before;
            is_kept &= !had_some || bounds.len() == before;
        }
        is_kept
    }
}

fn add(gathered: &mut Gathered<Histogram>, one: &Cumulative, shared: &[f64], bounds: &Arc<[f64]>) {
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
    if before <= 0.0 {
        return;
    }
    let histogram = Histogram {
        schema: CUSTOM_SCHEMA,
        count: before,
        custom_bounds: bounds.clone(),
        positive: Buckets::from_sorted(entries),
        ..Histogram::default()
    };
    let whose = Whose {
        version: &one.version,
        instance: one.instance.as_deref(),
        is_beside: one.is_beside,
    };
    gathered.add(whose, one.block, &histogram);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explicit(version: &str, block: i64, counts: &[(f64, f64)]) -> Cumulative {
        Cumulative {
            version: version.to_owned(),
            instance: None,
            is_beside: false,
            block,
            counts: counts.to_vec(),
        }
    }

    #[test]
    fn unlike_buckets_are_compared_where_they_agree() {
        const INF: f64 = f64::INFINITY;
        let mut gathered = Gathered::default();
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
        let mut shared = Shared::default();
        assert!(shared.add_all(&mut gathered, &all, 1e-3));
        let one = &gathered.versions["1"].by_block[&0];
        assert_eq!(&*one.custom_bounds, [0.1, 0.5]);
        assert_eq!(one.positive.as_slice(), [(0, 4.0), (1, 5.0), (2, 1.0)]);
        let two = &gathered.versions["2"].by_block[&0];
        assert_eq!(
            (two.count, two.positive.as_slice()),
            (5.0, &[(0, 3.0), (2, 2.0)][..])
        );
        assert_eq!(gathered.warnings.len(), 1);
        let less = [explicit("2", 1, &[(100.0, 1.0), (INF, 1.0)])];
        assert!(!shared.add_all(&mut gathered, &less, 1e-3));
    }
}
