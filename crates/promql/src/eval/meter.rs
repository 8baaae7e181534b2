//! What a query uses, and when it has to stop.
//!
//! Samples are counted in two ways. *Held* are those in memory at a moment: samples read and
//! not yet folded into something, and the values of results so far; their number is bounded.
//! *Queryable* are those that steps look at: a sample that lies in the windows of ten steps
//! counts ten times, as Prometheus counts it. The inside of a subquery is not counted, but
//! its results are, for each window they lie in; what is computed once for all steps counts
//! at every step.
//!
//! A float is one sample, a histogram as many as its size in Prometheus's memory over 16 bytes.
//! Source: Prometheus `util/stats/query_stats.go`, `model/histogram/float_histogram.go`.

use slogate_series::{Buckets, Histogram, Value};

use crate::eval::EvalError;
use crate::interrupt::Interrupt;
use crate::queryable::Samples;

/// How much a query read and held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryStats {
    /// Samples that all steps looked at, together: Prometheus's `totalQueryableSamples`.
    pub samples_total: u64,
    /// The most samples in memory at a moment: Prometheus's `peakSamples`.
    pub samples_peak: u64,
}

/// The use of one query so far.
#[derive(Debug)]
pub(crate) struct Meter {
    interrupt: Interrupt,
    samples_max: usize,
    held: usize,
    /// Held beside that, for later parts of the query.
    kept: usize,
    peak: usize,
    pub(crate) queryable: u64,
}

impl Meter {
    pub(crate) fn new(samples_max: usize, interrupt: Interrupt) -> Self {
        Meter {
            interrupt,
            samples_max,
            held: 0,
            kept: 0,
            peak: 0,
            queryable: 0,
        }
    }

    /// Whether to go on.
    pub(crate) fn check(&self) -> Result<(), EvalError> {
        self.interrupt.check()
    }

    /// The samples held now.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Holds `samples` more.
    pub(crate) fn hold(&mut self, samples: usize) -> Result<(), EvalError> {
        self.held = self.held.saturating_add(samples);
        let all = self.held.saturating_add(self.kept);
        self.peak = self.peak.max(all);
        if all > self.samples_max {
            return Err(EvalError::TooManySamples);
        }
        Ok(())
    }

    /// Holds `samples` more until they are released, whatever is given back before.
    pub(crate) fn keep(&mut self, samples: usize) -> Result<(), EvalError> {
        self.kept = self.kept.saturating_add(samples);
        self.hold(0)
    }

    /// Gives `samples` back that were kept.
    pub(crate) fn release_kept(&mut self, samples: usize) {
        self.kept = self.kept.saturating_sub(samples);
    }

    /// Gives `samples` back.
    pub(crate) fn release(&mut self, samples: usize) {
        self.held = self.held.saturating_sub(samples);
    }

    /// Gives back what is held above `held`.
    pub(crate) fn back_to(&mut self, held: usize) {
        self.held = held;
    }

    /// Steps looked at `samples`.
    pub(crate) fn look_at(&mut self, samples: usize) {
        self.queryable = self.queryable.saturating_add(samples as u64);
    }

    pub(crate) fn stats(&self) -> QueryStats {
        QueryStats {
            samples_total: self.queryable,
            samples_peak: self.peak as u64,
        }
    }
}

/// How many samples a value counts for.
pub(crate) fn size(value: &Value) -> usize {
    match value {
        Value::Float(_) => 1,
        Value::Histogram(h) => histogram_size(h),
    }
}

/// How many samples a histogram counts for.
pub(crate) fn histogram_size(h: &Histogram) -> usize {
    let words = |buckets: &Buckets| buckets.len() + spans(buckets);
    let words = words(&h.positive) + words(&h.negative) + h.custom_bounds.len();
    (FIXED_BYTES + 8 * words) / 16
}

impl Samples {
    /// How many samples they count for.
    pub(crate) fn size(&self) -> usize {
        let histograms = self.histograms.iter().map(|p| histogram_size(&p.value));
        self.floats.len() + histograms.sum::<usize>()
    }
}

/// Prometheus's histogram without its lists, and a timestamp.
const FIXED_BYTES: usize = 168 + 8;

/// Runs of neighbouring buckets.
fn spans(buckets: &Buckets) -> usize {
    let pairs = buckets.as_slice().windows(2);
    let gaps = pairs.filter(|pair| match pair {
        [(a, _), (b, _)] => a.checked_add(1) != Some(*b),
        _ => false,
    });
    gaps.count() + usize::from(!buckets.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::testing::{engine, steady};
    use crate::{Queryable, QueryableError};

    fn stats(query: &str) -> QueryStats {
        let store = [steady("m", &[1.0; 41]), steady("n", &[1.0; 41])];
        let range = engine().range(query, &store.as_slice(), 300_000, 600_000, 60_000);
        range.unwrap().stats
    }

    /// Six steps; a minute holds four samples.
    #[test]
    fn queryable_samples_are_counted_per_step_that_looks_at_them() {
        for (query, samples) in [
            ("m", 6),
            ("m + n", 12),
            ("1", 0),
            ("rate(m[1m])", 6 * 4),
            ("sum(last_over_time({__name__=~'m|n'}[2m]))", 6 * 16),
            ("max_over_time(rate(m[1m])[3m:1m])", 6 * 3),
            ("m @ 300", 6),
            ("rate(m[1m] @ 300)", 6 * 4),
        ] {
            assert_eq!(stats(query).samples_total, samples, "{query}");
        }
        let store = [steady("m", &[1.0; 41])];
        let top = engine()
            .instant("m[1m]", &store.as_slice(), 300_000)
            .unwrap();
        assert_eq!(top.stats.samples_total, 4);
    }

    #[test]
    fn the_peak_is_what_is_held_together() {
        assert!(stats("m + n").samples_peak >= 12);
        assert!(stats("m").samples_peak >= 6);
        assert_eq!(stats("1").samples_peak, 6);
    }

    /// A store that loses interest, or patience, while it is read.
    struct Impatient(Interrupt, fn(&Interrupt));

    impl Queryable for Impatient {
        fn select(
            &self,
            _: &[slogate_series::Matcher],
            _: i64,
            _: i64,
        ) -> Result<Vec<slogate_series::Series>, QueryableError> {
            (self.1)(&self.0);
            Ok(vec![steady("m", &[1.0; 41])])
        }
    }

    #[test]
    fn an_evaluation_ends_when_it_is_interrupted() {
        let raise: [fn(&Interrupt); 2] = [Interrupt::cancel, Interrupt::time_out];
        for (raise, error) in raise
            .into_iter()
            .zip([EvalError::Canceled, EvalError::Timeout])
        {
            for query in [
                "m",
                "rate(m[1m])",
                "m + m",
                "sum(m)",
                "sum_over_time(m[5m:1m])",
            ] {
                let interrupt = Interrupt::new();
                let store = Impatient(interrupt.clone(), raise);
                let result = engine().range_with(query, &store, 0, 600_000, 60_000, &interrupt);
                assert_eq!(result, Err(error.clone()), "{query}");
                let result = engine().instant_with(query, &store, 0, &interrupt);
                assert_eq!(result, Err(error.clone()), "{query}");
            }
        }
    }

    #[test]
    fn a_histogram_counts_by_its_spans_and_buckets() {
        let of = |indexes: &[i32]| Histogram {
            positive: Buckets::from_sorted(indexes.iter().map(|i| (*i, 1.0)).collect()),
            ..Histogram::default()
        };
        assert_eq!(histogram_size(&of(&[])), 11);
        assert_eq!(histogram_size(&of(&[0, 1, 2])), 13);
        assert_eq!(histogram_size(&of(&[0, 1, 5, 6])), 14);
    }
}
