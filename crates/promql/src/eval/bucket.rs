//! Buckets with bounds, of classic and native histograms alike, and what can be read off
//! them: quantiles, fractions, deviations.
//!
//! Interpolation is linear in classic, custom and zero buckets and exponential in the
//! others. Source: Prometheus `promql/quantile.go`.

use slogate_series::Histogram;
use slogate_series::histogram::upper_bound;

use crate::eval::annotation::Raised;
use crate::eval::sum::Sum;

/// A bucket of a distribution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    pub(crate) lower: f64,
    pub(crate) upper: f64,
    pub(crate) count: f64,
    /// Whether observations are taken to be spread evenly; else exponentially.
    pub(crate) linear: bool,
}

impl Bucket {
    /// The share of the bucket at or below `value`, which lies inside.
    pub(crate) fn share_below(&self, value: f64) -> f64 {
        if self.linear {
            return (value - self.lower) / (self.upper - self.lower);
        }
        let [lower, upper, value] = [self.lower, self.upper, value].map(|x| x.abs().log2());
        if self.lower < 0.0 {
            return 1.0 - (value - upper) / (lower - upper);
        }
        (value - lower) / (upper - lower)
    }

    fn value_at(&self, share: f64) -> f64 {
        if self.linear {
            return self.lower + (self.upper - self.lower) * share;
        }
        let [lower, upper] = [self.lower, self.upper].map(|x| x.abs().log2());
        if self.lower < 0.0 {
            return -(upper + (lower - upper) * (1.0 - share)).exp2();
        }
        (lower + (upper - lower) * share).exp2()
    }

    /// The value that stands for all of the bucket's observations.
    pub(crate) fn middle(&self) -> f64 {
        // An open bucket's observations are taken to be at its one bound.
        if self.lower == f64::NEG_INFINITY {
            return self.upper;
        }
        if self.upper == f64::INFINITY {
            return self.lower;
        }
        if self.linear {
            return (self.lower + self.upper) / 2.0;
        }
        let middle = (self.lower * self.upper).sqrt();
        if self.upper < 0.0 { -middle } else { middle }
    }
}

/// The populated buckets of a native histogram in ascending order. None reaches into the zero
/// bucket. That one reaches to both sides unless there are observations on only one; the lowest
/// custom bucket starts at 0 where its bound is positive, else at minus infinity.
pub(crate) fn native(h: &Histogram) -> Vec<Bucket> {
    let mut buckets = Vec::with_capacity(h.positive.len() + h.negative.len() + 1);
    if h.has_custom_bounds() {
        for (index, count) in h.positive.iter() {
            let (lower, upper) = custom_bounds(h, index);
            buckets.push(Bucket {
                lower,
                upper,
                count,
                linear: true,
            });
        }
    } else {
        let bounds = |index: i32| {
            (
                clear_of_zero(h, upper_bound(h.schema, index.saturating_sub(1))),
                upper_bound(h.schema, index),
            )
        };
        for (index, count) in h.negative.iter().rev() {
            let (lower, upper) = bounds(index);
            buckets.push(Bucket {
                lower: -upper,
                upper: -lower,
                count,
                linear: false,
            });
        }
        let one_sided = h.negative.is_empty() != h.positive.is_empty();
        let zero = |has_side: bool| {
            if one_sided && !has_side {
                0.0
            } else {
                h.zero_threshold
            }
        };
        // Where histograms were subtracted there can be less than nothing in it.
        if h.zero_count > 0.0 {
            buckets.push(Bucket {
                lower: -zero(!h.negative.is_empty()),
                upper: zero(!h.positive.is_empty()),
                count: h.zero_count,
                linear: true,
            });
        }
        for (index, count) in h.positive.iter() {
            let (lower, upper) = bounds(index);
            buckets.push(Bucket {
                lower,
                upper,
                count,
                linear: false,
            });
        }
    }
    buckets.retain(|bucket| bucket.count != 0.0);
    buckets
}

/// The inner bound of a bucket that may overlap the zero bucket.
fn clear_of_zero(h: &Histogram, bound: f64) -> f64 {
    if bound < h.zero_threshold {
        h.zero_threshold
    } else {
        bound
    }
}

fn custom_bounds(h: &Histogram, index: i32) -> (f64, f64) {
    let bound = |index: i32| {
        usize::try_from(index)
            .ok()
            .and_then(|at| h.custom_bounds.get(at))
            .copied()
    };
    let upper = bound(index).unwrap_or(f64::INFINITY);
    let lower = match bound(index.saturating_sub(1)) {
        Some(lower) if index > 0 => lower,
        _ if upper > 0.0 && upper.is_finite() && index <= 0 => 0.0,
        _ => f64::NEG_INFINITY,
    };
    (lower, upper)
}

/// The φ-quantile of a native histogram. NaN observations are in no bucket, so that a high
/// quantile may lie above all of them, and is then NaN too.
pub(crate) fn native_quantile(q: f64, h: &Histogram) -> f64 {
    if let Some(edge) = quantile_edge_case(q) {
        return edge;
    }
    if h.count == 0.0 {
        return f64::NAN;
    }
    let buckets = native(h);
    // From the nearer end: rounding errors add up on the way.
    let from_below = h.sum.is_nan() || q < 0.5;
    let rank = if from_below {
        q * h.count
    } else {
        (1.0 - q) * h.count
    };
    let mut count = 0.0;
    let mut hit = None;
    let mut walk = |bucket: &Bucket| {
        count += bucket.count;
        hit = Some(*bucket);
        count >= rank
    };
    if from_below {
        let _ = buckets.iter().any(&mut walk);
    } else {
        let _ = buckets.iter().rev().any(&mut walk);
    }
    let Some(bucket) = hit else { return f64::NAN };
    if h.has_custom_bounds() {
        if bucket.lower == f64::NEG_INFINITY {
            return bucket.upper;
        }
        if bucket.upper == f64::INFINITY {
            return bucket.lower;
        }
    }
    count = count.min(h.count);
    if count < rank {
        return if h.sum.is_nan() {
            f64::NAN
        } else {
            bucket.upper
        };
    }
    let inside = if from_below {
        rank - (count - bucket.count)
    } else {
        count - rank
    };
    bucket.value_at(inside / bucket.count)
}

fn quantile_edge_case(q: f64) -> Option<f64> {
    if q.is_nan() {
        return Some(f64::NAN);
    }
    if q < 0.0 {
        return Some(f64::NEG_INFINITY);
    }
    (q > 1.0).then_some(f64::INFINITY)
}

/// The share of `total` observations in `(lower, upper]`. No bound has more than
/// `in_buckets_max` below it, whatever the buckets add up to.
pub(crate) fn fraction(
    lower: f64,
    upper: f64,
    buckets: &[Bucket],
    in_buckets_max: f64,
    total: f64,
) -> f64 {
    if total == 0.0 || lower.is_nan() || upper.is_nan() || total.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let below = |value: f64| match count_below(value, buckets) {
        count if count > in_buckets_max => in_buckets_max,
        count => count,
    };
    (below(upper) - below(lower)) / total
}

fn count_below(value: f64, buckets: &[Bucket]) -> f64 {
    let mut count = 0.0;
    for bucket in buckets {
        if bucket.upper <= value || bucket.lower == f64::NEG_INFINITY && bucket.lower < value {
            // There is no interpolation in a bucket without a lower bound.
            count += bucket.count;
        } else if bucket.lower < value {
            count += bucket.count * bucket.share_below(value);
        }
    }
    count
}

/// The population variance, each observation taken to be in the middle of its bucket. The
/// middle of an open custom bucket is infinitely far away.
pub(crate) fn variance(h: &Histogram) -> f64 {
    let mean = h.sum / h.count;
    let lowest = h.positive.iter().next().map_or(1, |(index, _)| index);
    let squares = native(h).into_iter().enumerate().map(|(at, bucket)| {
        let middle = if !h.has_custom_bounds() {
            if bucket.linear { 0.0 } else { bucket.middle() }
        } else if at == 0 && lowest <= 0 {
            (f64::NEG_INFINITY + bucket.upper) / 2.0
        } else {
            (bucket.lower + bucket.upper) / 2.0
        };
        let distance = middle - mean;
        bucket.count * distance * distance
    });
    Sum::of(squares) / h.count
}

/// A bucket of a classic histogram: observations at or below a bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cumulative {
    pub(crate) upper: f64,
    pub(crate) count: f64,
}

/// Sorted, with equal bounds joined; `None` without a `+Inf` bucket.
pub(crate) fn tidy(mut buckets: Vec<Cumulative>) -> Option<Vec<Cumulative>> {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    if buckets.last()?.upper != f64::INFINITY {
        return None;
    }
    buckets.dedup_by(|next, kept| {
        let same = next.upper == kept.upper;
        if same {
            kept.count += next.count;
        }
        same
    });
    Some(buckets)
}

/// Makes the counts of tidy buckets rise. Says how falling ones had to be raised, if any.
pub(crate) fn raise(buckets: &mut [Cumulative]) -> Option<Raised> {
    let mut previous = buckets.first()?.count;
    let mut raised: Option<Raised> = None;
    for bucket in buckets.iter_mut().skip(1) {
        if bucket.count == previous {
            continue;
        }
        let small = almost_equal(previous, bucket.count);
        if small || bucket.count < previous {
            if !small {
                let difference = previous - bucket.count;
                let fix = raised.get_or_insert(Raised {
                    bound_min: bucket.upper,
                    bound_max: bucket.upper,
                    difference_max: difference,
                });
                fix.bound_max = bucket.upper;
                fix.difference_max = fix.difference_max.max(difference);
            }
            bucket.count = previous;
            continue;
        }
        previous = bucket.count;
    }
    raised
}

/// Whether two counts differ only by what floating point loses.
fn almost_equal(a: f64, b: f64) -> bool {
    let (difference, size) = ((a - b).abs(), a.abs() + b.abs());
    a == b || difference / size.min(f64::MAX) < 1e-12
}

/// The φ-quantile of a tidy classic histogram whose counts rise.
pub(crate) fn classic_quantile(q: f64, buckets: &[Cumulative]) -> f64 {
    if let Some(edge) = quantile_edge_case(q) {
        return edge;
    }
    let [below_top @ .., top] = buckets else {
        return f64::NAN;
    };
    let Some(highest) = below_top.last() else {
        return f64::NAN;
    };
    if top.count == 0.0 || top.count.is_nan() {
        return f64::NAN;
    }
    let rank = q * top.count;
    let at = below_top.partition_point(|bucket| bucket.count < rank);
    let Some(bucket) = below_top.get(at) else {
        return highest.upper;
    };
    let below = at.checked_sub(1).and_then(|at| below_top.get(at));
    let Some(below) = below else {
        if bucket.upper <= 0.0 {
            return bucket.upper;
        }
        return bucket.upper * (rank / bucket.count);
    };
    let share = (rank - below.count) / (bucket.count - below.count);
    below.upper + (bucket.upper - below.upper) * share
}

/// The buckets of a tidy classic histogram with both bounds.
pub(crate) fn classic_parts(buckets: &[Cumulative]) -> Vec<Bucket> {
    let mut parts = Vec::with_capacity(buckets.len());
    let mut below: Option<Cumulative> = None;
    for bucket in buckets {
        let lower = match below {
            Some(below) => below.upper,
            None if bucket.upper > 0.0 => 0.0,
            None => f64::NEG_INFINITY,
        };
        let count = bucket.count - below.map_or(0.0, |below| below.count);
        parts.push(Bucket {
            lower,
            upper: bucket.upper,
            count,
            linear: true,
        });
        below = Some(*bucket);
    }
    parts
}
