//! Native histograms.
//!
//! Buckets are exponential: at schema `s` the bucket with index `i` holds observations in
//! `(base^(i-1), base^i]` with `base = 2^(2^-s)`. This is Prometheus's indexing by upper
//! bound; OpenTelemetry's index is one lower. Schema [`CUSTOM_SCHEMA`] holds explicit upper
//! bounds instead, index `i` being `(bounds[i-1], bounds[i]]` and the last one `+Inf`.
//!
//! Counts are `f64`, as in Prometheus's float histograms, so that one type serves stored
//! samples and the results of rates and divisions. Integers are exact up to 2^53.

use std::sync::{Arc, LazyLock};

/// The schema number that stands for explicit (custom) bucket bounds.
pub const CUSTOM_SCHEMA: i8 = -53;

/// The finest standard schema: 256 buckets for each doubling.
pub const SCHEMA_MAX: i8 = 8;

/// The coarsest standard schema: one bucket for each factor of 65,536.
pub const SCHEMA_MIN: i8 = -4;

/// What is known about a counter reset between a sample and the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetHint {
    /// Nothing is known; compare the counts.
    #[default]
    Unknown,
    /// This sample starts a new count.
    Reset,
    /// This sample continues the count before it.
    NotReset,
    /// The histogram is a gauge: it has no resets.
    Gauge,
}

/// Sparse buckets: `(index, count)`, ascending by index, no index twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets(Vec<(i32, f64)>);

impl Buckets {
    /// Buckets from pairs that are ascending by index.
    pub fn from_sorted(entries: Vec<(i32, f64)>) -> Self {
        debug_assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0));
        Buckets(entries)
    }

    /// Buckets from a dense run of counts that starts at `offset`; zero counts are dropped.
    pub fn from_dense(offset: i32, counts: impl IntoIterator<Item = f64>) -> Self {
        let entries = (offset..)
            .zip(counts)
            .filter(|(_, count)| *count != 0.0)
            .collect();
        Buckets(entries)
    }

    /// The pairs, ascending by index.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (i32, f64)> + ExactSizeIterator {
        self.0.iter().copied()
    }

    /// The pairs as a slice, ascending by index.
    pub fn as_slice(&self) -> &[(i32, f64)] {
        &self.0
    }

    /// The number of buckets kept.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no bucket is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The count at `index`, 0 where there is no bucket.
    pub fn get(&self, index: i32) -> f64 {
        self.0
            .binary_search_by_key(&index, |(i, _)| *i)
            .map_or(0.0, |at| self.0[at].1)
    }

    /// The sum of all counts.
    pub fn total(&self) -> f64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Combines two bucket sets index by index; a bucket absent on one side counts as 0.
    pub fn combine(&self, other: &Buckets, op: impl Fn(f64, f64) -> f64) -> Buckets {
        let (a, b) = (&self.0, &other.0);
        let mut merged = Vec::with_capacity(a.len().max(b.len()));
        let (mut i, mut j) = (0, 0);
        while i < a.len() || j < b.len() {
            let left = a.get(i).map_or(i64::MAX, |(index, _)| i64::from(*index));
            let right = b.get(j).map_or(i64::MAX, |(index, _)| i64::from(*index));
            if left < right {
                merged.push((a[i].0, op(a[i].1, 0.0)));
                i += 1;
            } else if right < left {
                merged.push((b[j].0, op(0.0, b[j].1)));
                j += 1;
            } else {
                merged.push((a[i].0, op(a[i].1, b[j].1)));
                i += 1;
                j += 1;
            }
        }
        Buckets(merged)
    }

    /// The same buckets `levels` schemas coarser: each step merges neighbours pairwise.
    pub fn downscale(&self, levels: u32) -> Buckets {
        let mut merged: Vec<(i32, f64)> = Vec::with_capacity(self.0.len());
        for (index, count) in self.iter() {
            // Upper-bound indexing: bucket i covers (base^(i-1), base^i], so round up.
            let shift = levels.min(31);
            let coarse = ((i64::from(index) - 1) >> shift) + 1;
            let coarse = i32::try_from(coarse).unwrap_or(index);
            match merged.last_mut() {
                Some((last, sum)) if *last == coarse => *sum += count,
                _ => merged.push((coarse, count)),
            }
        }
        Buckets(merged)
    }

    /// Without buckets whose count is 0.
    pub fn compact(mut self) -> Buckets {
        self.0.retain(|(_, count)| *count != 0.0);
        self
    }

    fn scale(&self, factor: f64) -> Buckets {
        Buckets(
            self.iter()
                .map(|(index, count)| (index, count * factor))
                .collect(),
        )
    }
}

/// A native histogram.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Resolution: [`SCHEMA_MIN`] to [`SCHEMA_MAX`], or [`CUSTOM_SCHEMA`].
    pub schema: i8,
    /// What is known about a reset before this sample.
    pub reset_hint: ResetHint,
    /// Observations in `[-zero_threshold, zero_threshold]` are in the zero bucket.
    pub zero_threshold: f64,
    /// The zero bucket's count.
    pub zero_count: f64,
    /// The number of observations, those in no bucket (NaN) included.
    pub count: f64,
    /// The sum of the observations, in the metric's unit.
    pub sum: f64,
    /// Buckets of positive observations.
    pub positive: Buckets,
    /// Buckets of negative observations, by absolute value.
    pub negative: Buckets,
    /// Upper bounds for [`CUSTOM_SCHEMA`], ascending, without `+Inf`; empty otherwise.
    pub custom_bounds: Arc<[f64]>,
}

/// Bitwise on floats, so that a NaN sum round-trips as equal.
impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        let bits =
            |h: &Histogram| [h.zero_threshold, h.zero_count, h.count, h.sum].map(f64::to_bits);
        self.schema == other.schema
            && self.reset_hint == other.reset_hint
            && bits(self) == bits(other)
            && self.positive == other.positive
            && self.negative == other.negative
            && self.custom_bounds.len() == other.custom_bounds.len()
            && self
                .custom_bounds
                .iter()
                .zip(other.custom_bounds.iter())
                .all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

/// The upper bound of bucket `index` at a standard `schema`: `2^(index * 2^-schema)`, to the last
/// bit as Prometheus and its client libraries have it. The last bucket before infinity ends
/// with the largest number there is.
pub fn upper_bound(schema: i8, index: i32) -> f64 {
    let index = i64::from(index);
    let (fraction, exponent) = if schema < 0 {
        (0.5, (index << -i32::from(schema).max(-8)) + 1)
    } else {
        let schema = u32::from(schema.unsigned_abs()).min(8);
        let of_doubling = index & ((1 << schema) - 1);
        let at = usize::try_from(of_doubling << (8 - schema)).unwrap_or_default();
        let fraction = FRACTIONS.get(at).copied().unwrap_or(0.5);
        (fraction, (index >> schema) + 1)
    };
    if fraction == 0.5 && exponent == 1025 {
        return f64::MAX;
    }
    // Powers of two are exact; twice the fraction keeps the largest one in range.
    let exponent = exponent.clamp(-2000, 2000) as f64;
    2.0 * fraction * (exponent - 1.0).exp2()
}

/// The bounds in one doubling, from a half, at the finest schema. The published ones were made
/// by square roots and so are some last bits away from the powers of two that they stand for.
static FRACTIONS: LazyLock<[f64; 256]> = LazyLock::new(|| {
    std::array::from_fn(|at| {
        let mut root = std::f64::consts::SQRT_2;
        let mut fraction = if at < 128 { 0.5 } else { 1.0 / root };
        for bit in [64, 32, 16, 8, 4, 2, 1] {
            root = root.sqrt();
            if at & bit != 0 {
                fraction *= root;
            }
        }
        fraction
    })
});

/// The index of the bucket that holds `value > 0` at a standard `schema`.
pub fn bucket_index(schema: i8, value: f64) -> i32 {
    debug_assert!(value > 0.0);
    let guess = (value.log2() * f64::from(schema).exp2()).ceil();
    let mut index = guess.clamp(f64::from(i32::MIN / 2), f64::from(i32::MAX / 2)) as i32;
    // log2 rounds; the bounds themselves are the definition.
    while upper_bound(schema, index - 1) >= value {
        index -= 1;
    }
    while upper_bound(schema, index) < value {
        index += 1;
    }
    index
}

impl Histogram {
    /// The staleness marker in histogram form.
    pub fn stale() -> Self {
        Histogram {
            sum: crate::sample::stale_nan(),
            ..Histogram::default()
        }
    }

    /// Whether buckets have explicit bounds.
    pub fn has_custom_bounds(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }

    /// This histogram at a coarser standard `schema`; unchanged where it is that coarse already.
    pub fn at_schema(&self, schema: i8) -> Histogram {
        if self.has_custom_bounds() || schema >= self.schema {
            return self.clone();
        }
        let levels = (i32::from(self.schema) - i32::from(schema)).unsigned_abs();
        Histogram {
            schema,
            positive: self.positive.downscale(levels),
            negative: self.negative.downscale(levels),
            ..self.clone()
        }
    }

    /// The sum of two histograms at the coarser of their schemas, with the wider zero bucket.
    pub fn add(&self, other: &Histogram) -> Histogram {
        self.combine(other, |a, b| a + b)
    }

    /// `self - other` at the coarser of their schemas.
    pub fn sub(&self, other: &Histogram) -> Histogram {
        self.combine(other, |a, b| a - b)
    }

    /// Every count and the sum times `factor`.
    pub fn scale(&self, factor: f64) -> Histogram {
        Histogram {
            zero_count: self.zero_count * factor,
            count: self.count * factor,
            sum: self.sum * factor,
            positive: self.positive.scale(factor),
            negative: self.negative.scale(factor),
            ..self.clone()
        }
    }

    /// Without empty buckets.
    pub fn compact(self) -> Histogram {
        Histogram {
            positive: self.positive.compact(),
            negative: self.negative.compact(),
            ..self
        }
    }

    /// Whether this sample starts a new count after `previous`: its hint says so, or any
    /// bucket or the count went down, or the resolution got finer. A gauge's hint says nothing:
    /// who asks takes it for a counter.
    pub fn is_reset_after(&self, previous: &Histogram) -> bool {
        match self.reset_hint {
            ResetHint::Reset => return true,
            ResetHint::NotReset => return false,
            ResetHint::Unknown | ResetHint::Gauge => {}
        }
        if self.count < previous.count || self.has_custom_bounds() != previous.has_custom_bounds() {
            return true;
        }
        if self.has_custom_bounds() {
            if self.custom_bounds != previous.custom_bounds {
                return true;
            }
        } else if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let before = previous
            .at_schema(self.schema)
            .with_zero_threshold(self.zero_threshold);
        let shrank = |now: &Buckets, was: &Buckets| was.iter().any(|(i, count)| now.get(i) < count);
        self.zero_count < before.zero_count
            || shrank(&self.positive, &before.positive)
            || shrank(&self.negative, &before.negative)
    }

    /// The observations that are at most `value`, linear interpolation within a bucket
    /// for the zero bucket and custom bounds, exponential elsewhere.
    pub fn count_at_most(&self, value: f64) -> f64 {
        let mut at_most = 0.0;
        for bucket in self.cumulative_order() {
            if bucket.upper <= value {
                at_most += bucket.count;
            } else if bucket.lower < value {
                at_most += bucket.count * bucket.fraction_below(value);
            }
        }
        at_most
    }

    /// The `q`-quantile (`0 <= q <= 1`); `None` for an empty histogram.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let buckets = self.cumulative_order();
        let total: f64 = buckets.iter().map(|bucket| bucket.count).sum();
        if !(total > 0.0 && (0.0..=1.0).contains(&q)) {
            return None;
        }
        let rank = q * total;
        let mut below = 0.0;
        let last = buckets.iter().rposition(|bucket| bucket.count > 0.0)?;
        for (at, bucket) in buckets.iter().enumerate() {
            if bucket.count > 0.0 && (below + bucket.count >= rank || at == last) {
                return Some(bucket.value_at(((rank - below) / bucket.count).clamp(0.0, 1.0)));
            }
            below += bucket.count;
        }
        None
    }

    /// All buckets from the lowest values to the highest, with their bounds.
    pub fn cumulative_order(&self) -> Vec<BoundedBucket> {
        let mut buckets = Vec::with_capacity(self.positive.len() + self.negative.len() + 1);
        for (index, count) in self.negative.iter().rev() {
            let (lower, upper) = self.bounds(index);
            buckets.push(BoundedBucket {
                lower: -upper,
                upper: -lower,
                count,
                linear: false,
            });
        }
        if self.zero_count != 0.0 {
            let lower = if self.negative.is_empty() {
                0.0
            } else {
                -self.zero_threshold
            };
            let upper = if self.positive.is_empty() && !self.negative.is_empty() {
                0.0
            } else {
                self.zero_threshold
            };
            buckets.push(BoundedBucket {
                lower,
                upper,
                count: self.zero_count,
                linear: true,
            });
        }
        for (index, count) in self.positive.iter() {
            let (lower, upper) = self.bounds(index);
            let linear = self.has_custom_bounds();
            buckets.push(BoundedBucket {
                lower,
                upper,
                count,
                linear,
            });
        }
        buckets
    }

    /// Lower (exclusive) and upper (inclusive) bound of the positive bucket `index`.
    pub fn bounds(&self, index: i32) -> (f64, f64) {
        if !self.has_custom_bounds() {
            return (
                upper_bound(self.schema, index - 1),
                upper_bound(self.schema, index),
            );
        }
        let bound = |at: i32| {
            usize::try_from(at)
                .ok()
                .and_then(|at| self.custom_bounds.get(at))
        };
        let upper = bound(index).copied().unwrap_or(f64::INFINITY);
        let lower = match index {
            ..=0 if upper <= 0.0 => f64::NEG_INFINITY,
            ..=0 => 0.0,
            _ => bound(index - 1).copied().unwrap_or(upper),
        };
        (lower, upper)
    }

    fn combine(&self, other: &Histogram, op: impl Fn(f64, f64) -> f64 + Copy) -> Histogram {
        let schema = self.schema.min(other.schema);
        let threshold = self.zero_threshold.max(other.zero_threshold);
        let a = self.at_schema(schema).with_zero_threshold(threshold);
        let b = other.at_schema(schema).with_zero_threshold(threshold);
        Histogram {
            schema,
            reset_hint: ResetHint::Unknown,
            zero_threshold: threshold,
            zero_count: op(a.zero_count, b.zero_count),
            count: op(a.count, b.count),
            sum: op(a.sum, b.sum),
            positive: a.positive.combine(&b.positive, op),
            negative: a.negative.combine(&b.negative, op),
            custom_bounds: a.custom_bounds,
        }
    }

    /// Moves buckets that lie inside a wider zero bucket into it.
    fn with_zero_threshold(&self, threshold: f64) -> Histogram {
        if threshold <= self.zero_threshold || self.has_custom_bounds() {
            return self.clone();
        }
        let mut widened = self.clone();
        widened.zero_threshold = threshold;
        for buckets in [&mut widened.positive, &mut widened.negative] {
            buckets.0.retain(|(index, count)| {
                let swallowed = upper_bound(self.schema, *index) <= threshold;
                if swallowed {
                    widened.zero_count += count;
                }
                !swallowed
            });
        }
        widened
    }
}

/// A bucket with its bounds: observations in `(lower, upper]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundedBucket {
    /// Lower bound, exclusive.
    pub lower: f64,
    /// Upper bound, inclusive.
    pub upper: f64,
    /// Observations in the bucket.
    pub count: f64,
    /// Whether to interpolate linearly (zero and custom buckets) or exponentially.
    pub linear: bool,
}

impl BoundedBucket {
    /// The value below which `fraction` of the bucket's observations are taken to lie.
    pub fn value_at(&self, fraction: f64) -> f64 {
        if !self.upper.is_finite() {
            return self.lower;
        }
        if !self.lower.is_finite() {
            return self.upper;
        }
        if self.linear {
            return self.lower + (self.upper - self.lower) * fraction;
        }
        if self.lower < 0.0 {
            let (low, high) = ((-self.upper).log2(), (-self.lower).log2());
            return -(high + (low - high) * fraction).exp2();
        }
        let (low, high) = (self.lower.log2(), self.upper.log2());
        (low + (high - low) * fraction).exp2()
    }

    /// The share of the bucket's observations taken to lie at or below `value`, which is
    /// inside the bucket.
    pub fn fraction_below(&self, value: f64) -> f64 {
        if !self.upper.is_finite() || !self.lower.is_finite() {
            return 0.0;
        }
        if self.linear {
            return (value - self.lower) / (self.upper - self.lower);
        }
        if self.lower < 0.0 {
            let (low, high) = ((-self.upper).log2(), (-self.lower).log2());
            return (high - (-value).log2()) / (high - low);
        }
        let (low, high) = (self.lower.log2(), self.upper.log2());
        (value.log2() - low) / (high - low)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64], schema: i8) -> Histogram {
        let mut dense = std::collections::BTreeMap::new();
        for value in values {
            *dense.entry(bucket_index(schema, *value)).or_insert(0.0) += 1.0;
        }
        Histogram {
            schema,
            count: values.len() as f64,
            sum: values.iter().sum(),
            positive: Buckets::from_sorted(dense.into_iter().collect()),
            ..Histogram::default()
        }
    }

    #[test]
    fn indexes_by_upper_bound() {
        assert_eq!(bucket_index(0, 1.0), 0);
        assert_eq!(bucket_index(0, 1.5), 1);
        assert_eq!(bucket_index(0, 2.0), 1);
        assert_eq!(bucket_index(0, 2.1), 2);
        assert_eq!(bucket_index(3, 0.25), -16);
        assert_eq!(upper_bound(2, 4), 2.0);
        assert_eq!(upper_bound(-4, 1), 65_536.0);
    }

    #[test]
    fn bounds_are_those_of_prometheus_to_the_last_bit() {
        let bounds = [(1, -1), (1, 1), (2, -1), (2, 1), (8, 255), (3, 5)];
        let bounds = bounds.map(|(schema, index)| upper_bound(schema, index).to_string());
        let wanted = [
            "0.7071067811865475",
            "1.414213562373095",
            "0.8408964152537144",
            "1.189207115002721",
            "1.9945921121709396",
            "1.5422108254079407",
        ];
        assert_eq!(bounds, wanted);
        for (schema, index) in [(8, 1024 * 256), (0, 1024), (-4, 64)] {
            assert_eq!(upper_bound(schema, index), f64::MAX);
            assert_eq!(upper_bound(schema, index + 1), f64::INFINITY);
        }
        assert_eq!(upper_bound(0, -1074), f64::from_bits(1));
        assert_eq!(upper_bound(8, i32::MIN), 0.0);
        for schema in 1..=SCHEMA_MAX {
            for index in -600..600 {
                let ideal = (f64::from(index) * (-f64::from(schema)).exp2()).exp2();
                let bound = upper_bound(schema, index);
                assert!((bound / ideal - 1.0).abs() < 1e-15, "{schema} {index}");
                assert_eq!(
                    upper_bound(schema - 1, index),
                    upper_bound(schema, 2 * index)
                );
            }
        }
    }

    #[test]
    fn downscale_merges_neighbours() {
        let fine = of(&[1.1, 1.3, 1.9, 2.5, 5.0], 3);
        assert_eq!(fine.at_schema(0), of(&[1.1, 1.3, 1.9, 2.5, 5.0], 0));
        assert_eq!(fine.at_schema(5), fine);
    }

    #[test]
    fn resets_are_seen_in_any_bucket() {
        let before = of(&[1.0, 2.0, 3.0], 3);
        let mut after = of(&[1.0, 2.0, 3.0, 4.0], 3);
        assert!(!after.is_reset_after(&before));
        after = of(&[1.0, 3.0, 4.0, 5.0], 3);
        assert!(
            after.is_reset_after(&before),
            "a bucket shrank though the count grew"
        );
        after.reset_hint = ResetHint::Gauge;
        assert!(after.is_reset_after(&before), "whatever a gauge is");
        after.reset_hint = ResetHint::NotReset;
        assert!(!after.is_reset_after(&before));
    }

    #[test]
    fn custom_bounds_interpolate_linearly() {
        let histogram = Histogram {
            schema: CUSTOM_SCHEMA,
            count: 4.0,
            positive: Buckets::from_dense(0, [2.0, 2.0]),
            custom_bounds: Arc::from([1.0, 3.0]),
            ..Histogram::default()
        };
        assert_eq!(histogram.quantile(0.25), Some(0.5));
        assert_eq!(histogram.quantile(0.75), Some(2.0));
        assert_eq!(histogram.count_at_most(2.0), 3.0);
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    proptest! {
        #[test]
        fn bucket_bounds_hold_the_value(value in 1e-9f64..1e9, schema in SCHEMA_MIN..=SCHEMA_MAX) {
            let index = bucket_index(schema, value);
            prop_assert!(upper_bound(schema, index - 1) < value);
            prop_assert!(value <= upper_bound(schema, index));
        }

        #[test]
        fn adding_and_subtracting_is_identity(
            a in proptest::collection::vec(1e-3f64..1e3, 1..30),
            b in proptest::collection::vec(1e-3f64..1e3, 0..30),
        ) {
            let (a, b) = (of(&a, 3), of(&b, 3));
            let back = a.add(&b).sub(&b).compact();
            prop_assert_eq!(&back.positive, &a.positive);
            prop_assert_eq!(back.count, a.count);
            prop_assert!(!a.add(&b).is_reset_after(&a));
        }

        #[test]
        fn quantile_is_within_one_bucket_of_the_truth(
            mut values in proptest::collection::vec(1e-3f64..1e3, 1..200),
            q in 0.0f64..=1.0,
        ) {
            let histogram = of(&values, 4);
            values.sort_by(f64::total_cmp);
            let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let truth = values[rank - 1];
            let base = upper_bound(4, 1);
            let estimate = histogram.quantile(q).unwrap();
            prop_assert!(estimate <= truth * base * 1.0001 && estimate >= truth / base / 1.0001,
                "{estimate} against {truth}");
        }

        #[test]
        fn count_at_most_inverts_quantile(
            values in proptest::collection::vec(1e-3f64..1e3, 2..100), q in 0.05f64..0.95,
        ) {
            let histogram = of(&values, 3);
            let at = histogram.quantile(q).unwrap();
            let share = histogram.count_at_most(at) / histogram.count;
            prop_assert!(share + 1e-9 >= q, "{share} < {q}");
        }
    }
}
