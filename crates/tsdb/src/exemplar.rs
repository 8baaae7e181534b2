//! Exemplars: the last few of each series, and not too many of all.
//!
//! A series keeps its last [`PER_SERIES`] exemplars by arrival. When all series together
//! have more than [`TOTAL`], the one that arrived first goes, whichever series it is of.
//! An exemplar that its series has already is not kept twice.

use std::collections::VecDeque;

use hashbrown::HashMap;
use slogate_series::Exemplar;

use crate::rows::SeriesRef;

/// Exemplars kept of one series.
const PER_SERIES: usize = 8;

/// Exemplars kept of all series.
const TOTAL: usize = 100_000;

/// The largest label set of an exemplar, in bytes of names and values.
const LABEL_BYTES_MAX: usize = 4 * 1024;

/// Whether an exemplar is within the limits.
pub(crate) fn is_acceptable(exemplar: &Exemplar) -> bool {
    let labels = exemplar.labels.iter();
    let bytes: usize = labels.map(|l| l.name.len() + l.value.len()).sum();
    bytes <= LABEL_BYTES_MAX
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Exemplars {
    by_series: HashMap<SeriesRef, VecDeque<(u64, Exemplar)>>,
    /// All arrivals in order; those that went before their turn are still in it.
    arrivals: VecDeque<(u64, SeriesRef)>,
    next: u64,
    len: usize,
    total: usize,
}

impl Default for Exemplars {
    fn default() -> Self {
        Exemplars::with_total(TOTAL)
    }
}

impl Exemplars {
    fn with_total(total: usize) -> Self {
        Exemplars {
            by_series: HashMap::new(),
            arrivals: VecDeque::new(),
            next: 0,
            len: 0,
            total,
        }
    }

    /// Keeps an exemplar; says whether it is new.
    pub(crate) fn push(&mut self, series: SeriesRef, exemplar: Exemplar) -> bool {
        let ring = self.by_series.entry(series).or_default();
        let same = |kept: &Exemplar| {
            kept.t_ms == exemplar.t_ms
                && kept.value.to_bits() == exemplar.value.to_bits()
                && kept.labels == exemplar.labels
        };
        if ring.iter().any(|(_, kept)| same(kept)) {
            return false;
        }
        if ring.len() >= PER_SERIES {
            ring.pop_front();
            self.len -= 1;
        }
        ring.push_back((self.next, exemplar));
        self.arrivals.push_back((self.next, series));
        self.next += 1;
        self.len += 1;
        while self.len > self.total {
            self.evict();
        }
        if self.arrivals.len() > 2 * self.total {
            self.forget_departed();
        }
        true
    }

    fn evict(&mut self) {
        let Some((arrival, series)) = self.arrivals.pop_front() else {
            return;
        };
        if let Some(ring) = self.by_series.get_mut(&series)
            && ring.front().is_some_and(|(first, _)| *first == arrival)
        {
            ring.pop_front();
            self.len -= 1;
            if ring.is_empty() {
                self.by_series.remove(&series);
            }
        }
    }

    fn forget_departed(&mut self) {
        let by_series = &self.by_series;
        self.arrivals.retain(|(arrival, series)| {
            let ring = by_series.get(series);
            ring.is_some_and(|ring| ring.iter().any(|(kept, _)| kept == arrival))
        });
    }

    /// The exemplars of a series in the closed range, ascending in time.
    pub(crate) fn within(&self, series: SeriesRef, start_ms: i64, end_ms: i64) -> Vec<Exemplar> {
        let ring = self.by_series.get(&series).into_iter().flatten();
        let mut found: Vec<_> = ring
            .map(|(_, exemplar)| exemplar)
            .filter(|exemplar| (start_ms..=end_ms).contains(&exemplar.t_ms))
            .cloned()
            .collect();
        found.sort_by_key(|exemplar| exemplar.t_ms);
        found
    }

    /// Drops the exemplars before `floor_ms`.
    pub(crate) fn expire(&mut self, floor_ms: i64) {
        let mut left = 0;
        self.by_series.retain(|_, ring| {
            ring.retain(|(_, exemplar)| exemplar.t_ms >= floor_ms);
            left += ring.len();
            !ring.is_empty()
        });
        if left < self.len {
            self.len = left;
            self.forget_departed();
        }
    }

    /// Drops the exemplars of collected series.
    pub(crate) fn remove(&mut self, dead: impl IntoIterator<Item = SeriesRef>) {
        for series in dead {
            if let Some(ring) = self.by_series.remove(&series) {
                self.len -= ring.len();
            }
        }
    }

    /// The number of exemplars kept.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use slogate_series::Labels;

    use super::*;

    fn exemplar(t_ms: i64) -> Exemplar {
        Exemplar {
            labels: Labels::from_pairs([("trace_id", t_ms.to_string())]),
            value: 0.1,
            t_ms,
        }
    }

    #[test]
    fn a_series_keeps_its_last_eight() {
        let (mut exemplars, series) = (Exemplars::default(), SeriesRef::new(0, 1));
        for t_ms in 0..20 {
            assert!(exemplars.push(series, exemplar(t_ms)));
        }
        assert!(!exemplars.push(series, exemplar(19)), "kept already");
        let times: Vec<_> = exemplars
            .within(series, 0, 100)
            .iter()
            .map(|e| e.t_ms)
            .collect();
        assert_eq!(times, (12..20).collect::<Vec<_>>());
        exemplars.expire(15);
        assert_eq!(exemplars.len(), 5);
        exemplars.remove([series]);
        assert_eq!(exemplars.len(), 0);
    }

    #[test]
    fn the_total_is_bounded_whatever_comes() {
        let mut exemplars = Exemplars::with_total(100);
        for t_ms in 0..10_000 {
            exemplars.push(SeriesRef::new(0, (t_ms % 37) as u32), exemplar(t_ms));
            assert!(exemplars.len() <= 100);
            assert!(exemplars.arrivals.len() <= 201);
        }
        let kept: usize = (0..37)
            .map(|n| exemplars.within(SeriesRef::new(0, n), 0, i64::MAX).len())
            .sum();
        assert_eq!(kept, exemplars.len());
        assert_eq!(kept, 100);
    }
}
