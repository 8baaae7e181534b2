//! Which latency is the 95th percentile, and how sure is that? From bucket counts.
//!
//! Whether the `q`-quantile lies above a bucket boundary `b` is the question whether the share of
//! observations up to `b` is below `q`: a coin with a known bias under the null. A mixture of
//! likelihood ratios over smaller (larger) biases gives an e-process for each boundary, from
//! totals alone:
//!
//! ```text
//! ln E = ln Σ_j w_j exp{ x ln(t_j/q) + (n-x) ln((1-t_j)/(1-q)) },   odds(t_j) = e^{∓h_j} odds(q)
//! ```
//!
//! The lower bound is the last boundary with evidence that the quantile is above it, the upper
//! bound the first with evidence that it is not. Shares grow from boundary to boundary, so only
//! the boundary next to the true quantile can mislead, and no correction for looking at all of
//! them is due. Bounds are bucket boundaries: they can't be closer than the buckets.
//!
//! The distribution is taken as constant over the observations given. Observations are positive;
//! without any there is no interval.

use crate::buckets::Boundaries;
use crate::buckets::BucketCounts;
use crate::counts::DISPERSION_MAX;
use crate::counts::ParamError;
use crate::interval::alpha;
use crate::special::log_spaced;
use crate::special::log_sum_exp;

/// A quantile between two bounds, in the unit of the bucket boundaries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantileInterval {
    /// A bucket boundary that the quantile is above; 0 where none is known.
    pub lower: f64,
    /// The best single value, interpolated within its bucket.
    pub estimate: f64,
    /// A bucket boundary that the quantile is not above; `None` where none is known.
    pub upper: Option<f64>,
}

/// The best single value for the `q`-quantile.
///
/// Within a bucket, observations are taken to be spread evenly on a log scale (exponential
/// buckets) or a linear one (explicit buckets), as in Prometheus. In the overflow bucket it is the
/// last bound, in the zero bucket 0. `None` without observations, for counts that are none, or
/// `q` outside 0 to 1.
pub fn quantile(boundaries: &Boundaries, counts: BucketCounts<'_>, q: f64) -> Option<f64> {
    counts.check(boundaries).ok()?;
    let total = counts.total();
    if !(0.0..=1.0).contains(&q) || total <= 0.0 {
        return None;
    }
    let rank = q * total;
    let mut below = counts.below;
    if rank <= below && below > 0.0 {
        return Some(0.0);
    }
    let mut found = 0.0;
    for &(index, count) in counts.buckets {
        if count <= 0.0 {
            continue;
        }
        found = within(boundaries, index, ((rank - below) / count).clamp(0.0, 1.0));
        below += count;
        if rank <= below {
            break;
        }
    }
    Some(found)
}

/// The `q`-quantile with its confidence sequence at `confidence` (0.99 is 99 %).
///
/// `None` without observations, for counts that are none, a dispersion below 1, or `q` or
/// `confidence` outside 0 to 1.
pub fn quantile_interval(
    boundaries: &Boundaries,
    counts: BucketCounts<'_>,
    q: f64,
    dispersion: f64,
    confidence: f64,
) -> Option<QuantileInterval> {
    let limit = -(0.5 * alpha(confidence)?).ln();
    ParamError::check("dispersion", dispersion, 1.0, DISPERSION_MAX).ok()?;
    if q <= 0.0 || q >= 1.0 {
        return None;
    }
    let estimate = quantile(boundaries, counts, q)?;
    let total = counts.total();
    let log_e = |below: f64, sign: f64| share_log_e(below, total, q, sign) / dispersion;

    let (mut lower, mut upper) = (0.0, None);
    let mut below = counts.below;
    for &(index, count) in counts.buckets {
        // Up to the bucket before this one the share is still `below`.
        if below < q * total && log_e(below, -1.0) >= limit {
            lower = boundaries.upper(index.saturating_sub(1)).max(lower);
        }
        below += count;
        let bound = boundaries.upper(index);
        let certain = below > q * total && log_e(below, 1.0) >= limit;
        if upper.is_none() && certain && bound.is_finite() {
            upper = Some(bound);
        }
    }
    Some(QuantileInterval {
        lower: lower.min(estimate),
        estimate,
        upper: upper.map(|upper: f64| upper.max(estimate)),
    })
}

/// Evidence that the share of observations up to a boundary, `below` of `total` seen, is less
/// (`sign` -1) or more (`sign` 1) than `q`.
fn share_log_e(below: f64, total: f64, q: f64, sign: f64) -> f64 {
    const POINTS: u32 = 32;
    let odds = q / (1.0 - q);
    let terms = log_spaced(0.003, 3.4, POINTS).map(|h| {
        let tilted = odds * (sign * h).exp();
        let share = tilted / (1.0 + tilted);
        below * (share / q).ln() + (total - below) * ((1.0 - share) / (1.0 - q)).ln()
    });
    log_sum_exp(terms) - f64::from(POINTS).ln()
}

/// The value at `fraction` of bucket `index`.
fn within(boundaries: &Boundaries, index: i32, fraction: f64) -> f64 {
    let (low, high) = (
        boundaries.upper(index.saturating_sub(1)),
        boundaries.upper(index),
    );
    if !high.is_finite() {
        return if low.is_finite() { low } else { 0.0 };
    }
    // Far below any latency the lower end rounds to 0.
    if boundaries.overflow().is_none() && low > 0.0 {
        return low * (high / low).powf(fraction);
    }
    let low = if low.is_finite() { low } else { high.min(0.0) };
    low + fraction * (high - low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buckets::BucketTotals;
    use crate::testing::latency_buckets;
    use crate::testing::upper_alarm_limit;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn of(buckets: &[(i32, f64)]) -> BucketCounts<'_> {
        BucketCounts {
            below: 0.0,
            buckets,
        }
    }

    #[test]
    fn estimates_interpolate_as_prometheus_does() {
        let linear = Boundaries::explicit(&[10.0, 20.0, 40.0]).expect("valid");
        let counts = [(0, 50.0), (1, 40.0), (2, 0.0), (3, 10.0)];
        let at = |q| quantile(&linear, of(&counts), q).expect("has observations");
        assert_eq!(at(0.25), 5.0);
        assert_eq!(at(0.5), 10.0);
        assert_eq!(at(0.7), 15.0);
        assert_eq!(at(0.9), 20.0);
        assert_eq!(at(0.99), 40.0);
        let exponential = Boundaries::exponential(0).expect("valid");
        let middle = quantile(&exponential, of(&[(3, 10.0)]), 0.5).expect("has observations");
        assert!((middle - 4.0 * 2.0_f64.sqrt()).abs() < 1e-12);
        let zeroes = BucketCounts {
            below: 9.0,
            buckets: &[(3, 1.0)],
        };
        assert_eq!(quantile(&exponential, zeroes, 0.5), Some(0.0));
    }

    #[test]
    fn no_observations_have_no_quantile() {
        let boundaries = Boundaries::exponential(4).expect("valid");
        assert_eq!(quantile(&boundaries, of(&[]), 0.5), None);
        assert_eq!(quantile(&boundaries, of(&[(1, 1.0)]), 1.5), None);
        assert_eq!(quantile_interval(&boundaries, of(&[]), 0.5, 1.0, 0.9), None);
        let one = quantile_interval(&boundaries, of(&[(1, 1.0)]), 0.5, 1.0, 0.9);
        let one = one.expect("has an observation");
        assert_eq!(
            (one.lower, one.upper),
            (0.0, None),
            "one observation bounds nothing"
        );
    }

    /// The 95th percentile is 180 ms; looked at after every block.
    #[test]
    fn the_truth_is_inside_at_all_moments_at_once() {
        let (alpha, runs) = (0.1, 150);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let boundaries = Boundaries::exponential(4).expect("valid");
        let mut missed = 0;
        for _ in 0..runs {
            let mut totals = BucketTotals::new(boundaries.clone());
            let mut outside = false;
            for _ in 0..20 {
                let block = latency_buckets(&mut rng, &boundaries, 60, 1.0);
                totals.add(&boundaries, of(&block)).expect("valid");
                let counts = totals.counts();
                let found = quantile_interval(&boundaries, counts, 0.95, 1.0, 1.0 - alpha);
                let found = found.expect("has observations");
                outside |= found.lower > 180.0 || found.upper.is_some_and(|upper| upper < 180.0);
            }
            missed += u32::from(outside);
        }
        let limit = upper_alarm_limit(runs, alpha);
        assert!(missed <= limit, "{missed} of {runs}");
    }

    #[test]
    fn bounds_close_in_on_the_truth() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let boundaries = Boundaries::exponential(4).expect("valid");
        let counts = latency_buckets(&mut rng, &boundaries, 20_000, 1.0);
        let found = quantile_interval(&boundaries, of(&counts), 0.95, 1.0, 0.99);
        let found = found.expect("has observations");
        assert!(found.lower > 162.0 && found.lower < 180.0, "{found:?}");
        assert!((found.estimate / 180.0 - 1.0).abs() < 0.04, "{found:?}");
        let upper = found.upper.expect("bounded");
        assert!(upper > 180.0 && upper < 200.0, "{found:?}");
        let bursty = quantile_interval(&boundaries, of(&counts), 0.95, 10.0, 0.99);
        assert!(bursty.expect("has observations").lower < found.lower);
    }

    proptest! {
        #[test]
        fn intervals_are_ordered_numbers(
            buckets in proptest::collection::btree_map(-300..300_i32, 0.0..1e9_f64, 0..10),
            below in 0.0..1e3_f64, q in 0.01..0.999_f64, schema in -4..=8_i8,
        ) {
            let boundaries = Boundaries::exponential(schema).expect("valid");
            let buckets: Vec<_> = buckets.into_iter().collect();
            let counts = BucketCounts { below, buckets: &buckets };
            if let Some(found) = quantile_interval(&boundaries, counts, q, 1.0, 0.99) {
                prop_assert!(found.estimate.is_finite(), "{found:?}");
                prop_assert!(0.0 <= found.lower && found.lower <= found.estimate, "{found:?}");
                let upper = found.upper.unwrap_or(f64::MAX);
                prop_assert!(upper.is_finite() && found.estimate <= upper, "{found:?}");
            }
        }
    }
}
