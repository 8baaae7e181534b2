//! Histogram buckets: where they end, and what they hold.
//!
//! A bucket is known by its index. Exponential buckets are indexed by their upper bound, as in
//! Prometheus: at schema `s`, bucket `i` is `(γ^(i-1), γ^i]` with `γ = 2^(2^-s)`. Explicit buckets
//! are indexed from 0, bucket `i` ending at bound `i`, and the index after the last bound is the
//! overflow bucket. What lies below every bucket (the zero bucket) is counted apart. Observations
//! are positive quantities such as durations; the unit is the caller's.

use crate::kernel::BlockError;
use crate::kernel::check_count;
use std::sync::Arc;

/// The most buckets one side may hold: schema 4 from a microsecond to an hour takes 510.
pub const BUCKETS_MAX: usize = 4096;

/// Where the buckets of a histogram end.
#[derive(Clone, Debug, PartialEq)]
pub struct Boundaries(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Exponential { schema: i8 },
    Explicit { bounds: Arc<[f64]> },
}

/// Why boundaries were refused.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BoundariesError {
    /// The schema is none of the standard ones.
    #[error("schema {found}: expected one from -4 to 8")]
    Schema {
        /// The schema given.
        found: i8,
    },
    /// There are no bounds, or too many.
    #[error("{found} bounds: expected 1 to {BUCKETS_MAX}")]
    Number {
        /// How many were given.
        found: usize,
    },
    /// A bound is not a number above the one before it.
    #[error("bound {at} is {found}: expected a finite number above the bound before it")]
    Order {
        /// Its position, from 0.
        at: usize,
        /// Its value.
        found: f64,
    },
}

impl Boundaries {
    /// Exponential buckets at a standard schema, -4 (coarse) to 8 (fine).
    ///
    /// # Errors
    /// Refuses any other schema.
    pub fn exponential(schema: i8) -> Result<Boundaries, BoundariesError> {
        if !(-4..=8).contains(&schema) {
            return Err(BoundariesError::Schema { found: schema });
        }
        Ok(Boundaries(Kind::Exponential { schema }))
    }

    /// Explicit buckets that end at these bounds. The overflow bucket is implied: leave out `+Inf`.
    ///
    /// # Errors
    /// Names the first bound that is not finite or not above the one before it.
    pub fn explicit(bounds: &[f64]) -> Result<Boundaries, BoundariesError> {
        if bounds.is_empty() || bounds.len() > BUCKETS_MAX {
            return Err(BoundariesError::Number {
                found: bounds.len(),
            });
        }
        let mut previous = f64::NEG_INFINITY;
        for (at, &found) in bounds.iter().enumerate() {
            if !found.is_finite() || found <= previous {
                return Err(BoundariesError::Order { at, found });
            }
            previous = found;
        }
        Ok(Boundaries(Kind::Explicit {
            bounds: bounds.into(),
        }))
    }

    /// The upper bound of bucket `index`; infinity for the overflow bucket, negative infinity
    /// below the first explicit bucket.
    pub fn upper(&self, index: i32) -> f64 {
        match &self.0 {
            Kind::Exponential { schema } => {
                (f64::from(index) * (-f64::from(*schema)).exp2()).exp2()
            }
            Kind::Explicit { bounds } => match usize::try_from(index) {
                Ok(at) => bounds.get(at).copied().unwrap_or(f64::INFINITY),
                Err(_) => f64::NEG_INFINITY,
            },
        }
    }

    /// The index of the last bucket that ends at or below `value`, give or take rounding. One
    /// below the first index where none does.
    pub(crate) fn at_or_below(&self, value: f64) -> i32 {
        let slack = value + 1e-9 * value.abs();
        match &self.0 {
            Kind::Exponential { schema } => {
                let exact = slack.log2() * f64::from(*schema).exp2();
                // The cast saturates; log2 of what is not positive gives the smallest index.
                if exact.is_nan() {
                    i32::MIN
                } else {
                    exact.floor() as i32
                }
            }
            Kind::Explicit { bounds } => {
                let below = bounds.partition_point(|bound| *bound <= slack);
                i32::try_from(below).unwrap_or(i32::MAX) - 1
            }
        }
    }

    /// The index of the overflow bucket, where there is one.
    pub(crate) fn overflow(&self) -> Option<i32> {
        match &self.0 {
            Kind::Exponential { .. } => None,
            Kind::Explicit { bounds } => i32::try_from(bounds.len()).ok(),
        }
    }

    /// These boundaries at `schema`, where they are exponential and finer than that.
    pub(crate) fn coarsened_to(&self, schema: i8) -> Option<Boundaries> {
        match self.schema() {
            Some(mine) if mine > schema => Some(Boundaries(Kind::Exponential { schema })),
            _ => None,
        }
    }

    fn schema(&self) -> Option<i8> {
        match self.0 {
            Kind::Exponential { schema } => Some(schema),
            Kind::Explicit { .. } => None,
        }
    }
}

/// What one histogram's buckets hold, borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BucketCounts<'a> {
    /// Observations below every bucket: the zero bucket.
    pub below: f64,
    /// `(index, count)`, not cumulative, ascending by index; absent buckets are empty.
    pub buckets: &'a [(i32, f64)],
}

impl BucketCounts<'_> {
    /// All observations.
    pub fn total(&self) -> f64 {
        self.below + self.buckets.iter().map(|(_, count)| count).sum::<f64>()
    }

    /// Observations above bucket `index`.
    pub fn above(&self, index: i32) -> f64 {
        let first = self.buckets.partition_point(|(i, _)| *i <= index);
        self.buckets
            .iter()
            .skip(first)
            .map(|(_, count)| count)
            .sum()
    }

    /// Observations above `value`, which may lie inside a bucket: the bucket's observations are
    /// then taken to be spread evenly over the logarithm, or evenly where it begins at 0.
    pub fn above_value(&self, boundaries: &Boundaries, value: f64) -> f64 {
        let below = boundaries.at_or_below(value);
        let whole = self.above(below);
        let Some(inside) = below.checked_add(1) else {
            return whole;
        };
        let (low, high) = (boundaries.upper(below), boundaries.upper(inside));
        let found = self
            .buckets
            .binary_search_by_key(&inside, |(index, _)| *index);
        let count = found.ok().and_then(|at| self.buckets.get(at));
        let count = count.map_or(0.0, |(_, count)| *count);
        if !high.is_finite() || value <= low.max(0.0) {
            return whole;
        }
        let passed = if low > 0.0 {
            (value / low).ln() / (high / low).ln()
        } else {
            value / high
        };
        (whole - count * passed.clamp(0.0, 1.0)).max(0.0)
    }

    pub(crate) fn check(&self, boundaries: &Boundaries) -> Result<(), BlockError> {
        check_count("below", self.below)?;
        if self.buckets.len() > BUCKETS_MAX {
            return Err(BlockError::Buckets {
                found: self.buckets.len(),
                max: BUCKETS_MAX,
            });
        }
        let mut previous = None;
        for &(index, count) in self.buckets {
            check_count("bucket count", count)?;
            if previous.is_some_and(|previous| previous >= index) {
                return Err(BlockError::Order { index });
            }
            if let Some(last) = boundaries.overflow()
                && !(0..=last).contains(&index)
            {
                let last = usize::try_from(last).unwrap_or(usize::MAX);
                return Err(BlockError::Index { index, last });
            }
            previous = Some(index);
        }
        check_count("total of all buckets", self.total())
    }
}

/// Bucket counts summed over time. A coarser exponential histogram makes the sum coarser; explicit
/// boundaries that differ, or a change between the two kinds, start the sum afresh.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketTotals {
    boundaries: Boundaries,
    below: f64,
    buckets: Vec<(i32, f64)>,
}

impl BucketTotals {
    /// Nothing yet, in these boundaries.
    pub fn new(boundaries: Boundaries) -> BucketTotals {
        BucketTotals {
            boundaries,
            below: 0.0,
            buckets: Vec::new(),
        }
    }

    /// Where the buckets end.
    pub fn boundaries(&self) -> &Boundaries {
        &self.boundaries
    }

    /// What they hold.
    pub fn counts(&self) -> BucketCounts<'_> {
        BucketCounts {
            below: self.below,
            buckets: &self.buckets,
        }
    }

    /// Adds what another histogram holds.
    ///
    /// # Errors
    /// Names what is wrong with the counts; the sum is then unchanged.
    pub fn add(
        &mut self,
        boundaries: &Boundaries,
        counts: BucketCounts<'_>,
    ) -> Result<(), BlockError> {
        counts.check(boundaries)?;
        self.align(boundaries);
        let counts = Rescaled::new(boundaries, &self.boundaries, counts);
        self.add_aligned(counts.get())
    }

    /// Makes these boundaries at least as coarse as the others.
    pub(crate) fn align(&mut self, other: &Boundaries) {
        match (self.boundaries.schema(), other.schema()) {
            (Some(mine), Some(theirs)) if theirs < mine => {
                self.buckets = downscaled(&self.buckets, mine, theirs);
                self.boundaries = other.clone();
            }
            (Some(_), Some(_)) => {}
            _ if self.boundaries == *other => {}
            _ => *self = BucketTotals::new(other.clone()),
        }
    }

    /// Adds counts that are in these boundaries already.
    pub(crate) fn add_aligned(&mut self, counts: BucketCounts<'_>) -> Result<(), BlockError> {
        let merged = merge(&self.buckets, counts.buckets);
        if merged.len() > BUCKETS_MAX {
            return Err(BlockError::Buckets {
                found: merged.len(),
                max: BUCKETS_MAX,
            });
        }
        check_count(
            "total of all buckets",
            self.counts().total() + counts.total(),
        )?;
        self.buckets = merged;
        self.below += counts.below;
        Ok(())
    }

    /// Multiplies every count by `factor`, and forgets buckets that no longer matter.
    pub(crate) fn scale(&mut self, factor: f64) {
        self.below *= factor;
        for (_, count) in &mut self.buckets {
            *count *= factor;
        }
        self.buckets.retain(|(_, count)| *count > 1e-6);
    }
}

/// Counts in boundaries at least as coarse as their own, copied only where they differ.
pub(crate) struct Rescaled<'a> {
    counts: BucketCounts<'a>,
    coarse: Option<Vec<(i32, f64)>>,
}

impl<'a> Rescaled<'a> {
    pub(crate) fn new(from: &Boundaries, to: &Boundaries, counts: BucketCounts<'a>) -> Self {
        let coarse = match (from.schema(), to.schema()) {
            (Some(fine), Some(coarse)) if coarse < fine => {
                Some(downscaled(counts.buckets, fine, coarse))
            }
            _ => None,
        };
        Rescaled { counts, coarse }
    }

    pub(crate) fn get(&self) -> BucketCounts<'_> {
        BucketCounts {
            below: self.counts.below,
            buckets: self.coarse.as_deref().unwrap_or(self.counts.buckets),
        }
    }
}

fn downscaled(buckets: &[(i32, f64)], fine: i8, coarse: i8) -> Vec<(i32, f64)> {
    let levels = fine.abs_diff(coarse).min(31);
    let mut merged: Vec<(i32, f64)> = Vec::with_capacity(buckets.len());
    for &(index, count) in buckets {
        // Indexed by upper bound: (i - 1) / 2^levels, rounded down, plus 1.
        let index = (index.saturating_sub(1) >> levels) + 1;
        match merged.last_mut() {
            Some((last, sum)) if *last == index => *sum += count,
            _ => merged.push((index, count)),
        }
    }
    merged
}

fn merge(a: &[(i32, f64)], b: &[(i32, f64)]) -> Vec<(i32, f64)> {
    let mut merged = Vec::with_capacity(a.len().max(b.len()));
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(&&(i, x)), Some(&&(j, y))) = (a.peek(), b.peek()) {
        merged.push(match i.cmp(&j) {
            std::cmp::Ordering::Less => (i, x),
            std::cmp::Ordering::Greater => (j, y),
            std::cmp::Ordering::Equal => (i, x + y),
        });
        if i <= j {
            a.next();
        }
        if j <= i {
            b.next();
        }
    }
    merged.extend(a);
    merged.extend(b);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(buckets: &[(i32, f64)]) -> BucketCounts<'_> {
        BucketCounts {
            below: 0.0,
            buckets,
        }
    }

    fn exponential(schema: i8) -> Boundaries {
        Boundaries::exponential(schema).expect("valid schema")
    }

    #[test]
    fn bounds_are_where_prometheus_puts_them() {
        assert_eq!(exponential(0).upper(3), 8.0);
        assert_eq!(exponential(-1).upper(2), 16.0);
        assert_eq!(exponential(1).upper(-1), 0.5_f64.sqrt());
        let explicit = Boundaries::explicit(&[0.1, 0.5, 2.0]).expect("valid");
        assert_eq!(explicit.upper(0), 0.1);
        assert_eq!(explicit.upper(3), f64::INFINITY);
        assert_eq!(explicit.upper(-1), f64::NEG_INFINITY);
        assert_eq!(explicit.at_or_below(0.49), 0);
        assert_eq!(explicit.at_or_below(0.5), 1);
        assert_eq!(explicit.at_or_below(0.05), -1);
        assert_eq!(explicit.at_or_below(1e9), 2);
    }

    #[test]
    fn bounds_that_make_no_sense_are_refused_by_place() {
        let error = Boundaries::explicit(&[1.0, 2.0, 2.0]).expect_err("twice");
        assert_eq!(
            error.to_string(),
            "bound 2 is 2: expected a finite number above the bound before it"
        );
        assert!(Boundaries::explicit(&[]).is_err());
        assert!(Boundaries::explicit(&[1.0, f64::INFINITY]).is_err());
        assert!(Boundaries::explicit(&[f64::NAN]).is_err());
        let error = Boundaries::exponential(9).expect_err("too fine");
        assert_eq!(error.to_string(), "schema 9: expected one from -4 to 8");
    }

    #[test]
    fn a_coarser_histogram_makes_the_sum_coarser() {
        let mut totals = BucketTotals::new(exponential(2));
        // At schema 2 buckets 1 to 4 end at 2, buckets 5 to 8 at 4.
        totals
            .add(
                &exponential(2),
                of(&[(1, 1.0), (4, 2.0), (5, 4.0), (8, 8.0)]),
            )
            .expect("valid");
        totals
            .add(&exponential(0), of(&[(1, 16.0)]))
            .expect("valid");
        assert_eq!(totals.boundaries(), &exponential(0));
        assert_eq!(totals.counts().buckets, [(1, 19.0), (2, 12.0)]);
        totals
            .add(&exponential(3), of(&[(8, 32.0)]))
            .expect("valid");
        assert_eq!(totals.counts().buckets, [(1, 51.0), (2, 12.0)]);
    }

    #[test]
    fn other_explicit_bounds_start_the_sum_afresh() {
        let old = Boundaries::explicit(&[1.0, 2.0]).expect("valid");
        let new = Boundaries::explicit(&[1.0, 3.0]).expect("valid");
        let mut totals = BucketTotals::new(old.clone());
        totals.add(&old, of(&[(0, 5.0)])).expect("valid");
        totals.add(&new, of(&[(1, 7.0)])).expect("valid");
        assert_eq!(totals.counts().buckets, [(1, 7.0)]);
    }

    #[test]
    fn a_sum_never_holds_more_buckets_than_it_may() {
        let boundaries = exponential(8);
        let dense =
            |from: i32| -> Vec<(i32, f64)> { (from..from + 3000).map(|i| (i, 1.0)).collect() };
        let mut totals = BucketTotals::new(boundaries.clone());
        totals.add(&boundaries, of(&dense(0))).expect("valid");
        let before = totals.clone();
        let error = totals
            .add(&boundaries, of(&dense(5000)))
            .expect_err("too many");
        assert_eq!(error.to_string(), "6000 buckets: expected at most 4096");
        assert_eq!(totals, before);
    }

    proptest! {
        #[test]
        fn every_bound_is_found_again(schema in -4..=8_i8, index in -4000..4000_i32) {
            let boundaries = exponential(schema);
            let bound = boundaries.upper(index);
            prop_assume!(bound.is_normal());
            prop_assert_eq!(boundaries.at_or_below(bound), index);
            prop_assert_eq!(boundaries.at_or_below(bound * 1.0001), index);
            prop_assert_eq!(boundaries.at_or_below(bound * 0.9999), index - 1);
        }

        #[test]
        fn joining_buckets_keeps_every_observation_under_its_bound(
            buckets in proptest::collection::btree_map(-500..500_i32, 0_u32..100, 1..20),
            fine in 0..=8_i8, levels in 1..=4_i8,
        ) {
            let buckets: Vec<_> = buckets.iter().map(|(i, n)| (*i, f64::from(*n))).collect();
            let coarse = exponential(fine - levels);
            let mut totals = BucketTotals::new(coarse.clone());
            totals.add(&exponential(fine), of(&buckets)).expect("valid");
            prop_assert_eq!(totals.counts().total(), of(&buckets).total());
            for index in -40..40 {
                // A coarse bound is a fine bound: nothing may cross it.
                let same = index << levels;
                prop_assert_eq!(totals.counts().above(index), of(&buckets).above(same));
            }
        }
    }
}
