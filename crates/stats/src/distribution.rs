//! Whole distributions, and quantiles fixed in advance, from bucket counts.
//!
//! **Is the distribution different, anywhere?** The largest distance between an observed share
//! `F̂(u)` and the true one is bounded at all moments at once by
//! `g(n) = 0.85 √((ln ln(e n) + 0.8 ln(1612/α)) / n)` (Howard and Ramdas, "Sequential estimation of
//! quantiles with applications to A/B testing and best-arm identification", Bernoulli 28, 2022;
//! the law of Dvoretzky, Kiefer and Wolfowitz made time-uniform): [`distance`]. Two streams differ
//! when a gap between them is wider than both bounds together, each at α/2: [`largest_gap`]. Only
//! the bucket boundaries are looked at, so what hides inside a bucket is missed, never invented.
//! It asks everything at once and pays for it: to see latency up by a tenth it needs two to five
//! times the requests of [`crate::exceedance`]. Use it where "different in some way" is the
//! question.
//!
//! **Where is one quantile, fixed in advance?** From the same paper, with
//! `l = (1.4 ln ln(2.1 n) + ln(10/α)) / n`, the share of observations below the `q`-quantile is
//! within `f(n) = 1.5 √(q(1-q) l) + 0.8 l` of `q`, at all moments: [`share_error`],
//! [`fixed_quantile_interval`]. [`crate::quantile`] answers the same by a mixture and is usually
//! narrower; this one needs no grid and has a closed form to check by hand.
//!
//! Observations are taken as independent draws from one distribution per side; with a dispersion
//! φ, `n` observations are worth `n/φ`. Fewer than one is none: the bound is then 1.

use crate::buckets::Boundaries;
use crate::buckets::BucketCounts;
use crate::counts::DISPERSION_MAX;
use crate::counts::ParamError;
use crate::exceedance::BucketBlock;
use crate::interval::alpha;
use crate::kernel::BlockError;
use crate::quantile::QuantileInterval;
use crate::quantile::quantile;

/// How far any observed share of `n` observations may be from the true one, except with probability
/// `alpha` at any moment. At most 1; 1 where `n` is below 1 or `alpha` is no probability.
pub fn distance(n: f64, alpha: f64) -> f64 {
    if !(n >= 1.0 && alpha > 0.0 && alpha < 1.0) {
        return 1.0;
    }
    let log_log = (1.0 + n.ln()).ln();
    (0.85 * ((log_log + 0.8 * (1612.0 / alpha).ln()) / n).sqrt()).min(1.0)
}

/// How far the observed share below the `q`-quantile may be from `q`, except with probability
/// `alpha` at any moment. At most 1; 1 where `n` is below 1 or `q` or `alpha` is no probability.
pub fn share_error(n: f64, q: f64, alpha: f64) -> f64 {
    if !(n >= 1.0 && (0.0..=1.0).contains(&q) && alpha > 0.0 && alpha < 1.0) {
        return 1.0;
    }
    let l = (1.4 * (2.1 * n).ln().ln() + (10.0 / alpha).ln()) / n;
    (1.5 * (q * (1.0 - q) * l).sqrt() + 0.8 * l).min(1.0)
}

/// The widest gaps between two distributions, and how wide chance alone could make them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gap {
    /// The largest lead of the candidate's observations over the baseline's: by how much more of
    /// them lie above [`Gap::slower_at`]. At least 0.
    pub slower: f64,
    /// The bucket boundary where that is.
    pub slower_at: f64,
    /// By how much fewer of the candidate's observations lie above [`Gap::faster_at`].
    pub faster: f64,
    /// The bucket boundary where that is.
    pub faster_at: f64,
    /// What both may reach when the two are alike, except with probability α at any moment.
    pub chance: f64,
}

impl Gap {
    /// Whether more of the candidate's observations are large, beyond chance: its distribution
    /// is not the baseline's or to its left.
    pub fn is_slower(&self) -> bool {
        self.slower > self.chance
    }

    /// Whether fewer are, beyond chance.
    pub fn is_faster(&self) -> bool {
        self.faster > self.chance
    }
}

/// The widest gaps between the two sides of a block, which holds everything seen so far.
///
/// # Errors
/// Names the count, the dispersion or the confidence that can't be one. Without observations on
/// either side chance explains everything.
pub fn largest_gap(
    block: &BucketBlock<'_>,
    dispersion: f64,
    confidence: f64,
) -> Result<Gap, DistributionError> {
    ParamError::check("dispersion", dispersion, 1.0, DISPERSION_MAX)?;
    let Some(alpha) = alpha(confidence) else {
        return Err(DistributionError::Confidence { found: confidence });
    };
    block.candidate.check(block.boundaries)?;
    block.baseline.check(block.boundaries)?;
    let totals = (block.candidate.total(), block.baseline.total());
    let chance =
        distance(totals.0 / dispersion, 0.5 * alpha) + distance(totals.1 / dispersion, 0.5 * alpha);
    let mut gap = Gap {
        slower: 0.0,
        slower_at: 0.0,
        faster: 0.0,
        faster_at: 0.0,
        chance: chance.min(1.0),
    };
    if totals.0 <= 0.0 || totals.1 <= 0.0 {
        return Ok(gap);
    }
    let mut look = |at: f64, below: (f64, f64)| {
        let lead = below.1 / totals.1 - below.0 / totals.0;
        if lead > gap.slower {
            (gap.slower, gap.slower_at) = (lead, at);
        }
        if -lead > gap.faster {
            (gap.faster, gap.faster_at) = (-lead, at);
        }
    };
    let mut below = (block.candidate.below, block.baseline.below);
    look(0.0, below);
    for (index, mine, theirs) in joined(block.candidate.buckets, block.baseline.buckets) {
        below = (below.0 + mine, below.1 + theirs);
        let bound = block.boundaries.upper(index);
        if bound.is_finite() {
            look(bound, below);
        }
    }
    Ok(gap)
}

/// Why two distributions can't be compared.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum DistributionError {
    /// The buckets make no sense.
    #[error(transparent)]
    Buckets(#[from] BlockError),
    /// The dispersion is out of its range.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// The confidence is no probability.
    #[error("confidence {found}: expected a number between 0 and 1")]
    Confidence {
        /// The confidence given.
        found: f64,
    },
}

/// The `q`-quantile between two bucket boundaries at `confidence`, from [`share_error`].
///
/// `None` without observations, for counts that are none, a dispersion below 1, or `q` or
/// `confidence` outside 0 to 1.
pub fn fixed_quantile_interval(
    boundaries: &Boundaries,
    counts: BucketCounts<'_>,
    q: f64,
    dispersion: f64,
    confidence: f64,
) -> Option<QuantileInterval> {
    let alpha = alpha(confidence)?;
    ParamError::check("dispersion", dispersion, 1.0, DISPERSION_MAX).ok()?;
    if q <= 0.0 || q >= 1.0 {
        return None;
    }
    let estimate = quantile(boundaries, counts, q)?;
    let total = counts.total();
    let error = share_error(total / dispersion, q, alpha);
    let (mut lower, mut upper) = (0.0_f64, None);
    let mut below = counts.below;
    for &(index, count) in counts.buckets {
        // Up to the bucket before this one the share is still `below`.
        if below / total < q - error {
            lower = lower.max(boundaries.upper(index.saturating_sub(1)));
        }
        below += count;
        let bound = boundaries.upper(index);
        if upper.is_none() && below / total > q + error && bound.is_finite() {
            upper = Some(bound);
        }
    }
    Some(QuantileInterval {
        lower: lower.min(estimate),
        estimate,
        upper: upper.map(|upper: f64| upper.max(estimate)),
    })
}

/// Both sides' buckets in one ascending list: `(index, a, b)`.
fn joined<'a>(
    a: &'a [(i32, f64)],
    b: &'a [(i32, f64)],
) -> impl Iterator<Item = (i32, f64, f64)> + 'a {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    std::iter::from_fn(move || {
        let next = match (a.peek(), b.peek()) {
            (Some((i, _)), Some((j, _))) => *i.min(j),
            (Some((i, _)), None) | (None, Some((i, _))) => *i,
            (None, None) => return None,
        };
        let mine = a.next_if(|(i, _)| *i == next).map_or(0.0, |(_, x)| *x);
        let theirs = b.next_if(|(i, _)| *i == next).map_or(0.0, |(_, x)| *x);
        Some((next, mine, theirs))
    })
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

    #[test]
    fn the_bounds_have_the_known_values() {
        assert!((distance(1000.0, 0.05) - 0.086_569_128_376_670_55).abs() < 1e-12);
        assert!((distance(18_000.0, 0.025) - 0.021_239_288_243_055_88).abs() < 1e-12);
        assert!((share_error(1e3, 0.95, 0.05) - 0.036_025_011_967_704_7).abs() < 1e-12);
        assert!((share_error(1e4, 0.95, 0.05) - 0.010_220_958_189_064_423).abs() < 1e-12);
    }

    #[test]
    fn nothing_known_bounds_nothing() {
        assert_eq!(distance(0.0, 0.05), 1.0);
        assert_eq!(distance(f64::NAN, 0.05), 1.0);
        assert_eq!(share_error(0.5, 0.95, 0.05), 1.0);
        assert_eq!(share_error(100.0, 0.95, 0.0), 1.0);
        let boundaries = Boundaries::exponential(4).expect("valid");
        let block = BucketBlock {
            boundaries: &boundaries,
            candidate: BucketCounts::default(),
            baseline: BucketCounts::default(),
        };
        let gap = largest_gap(&block, 1.0, 0.95).expect("valid");
        assert!(!gap.is_slower() && !gap.is_faster());
        assert!(largest_gap(&block, 1.0, 1.0).is_err());
        assert!(largest_gap(&block, 0.5, 0.9).is_err());
    }

    fn totals(boundaries: &Boundaries) -> BucketTotals {
        BucketTotals::new(boundaries.clone())
    }

    fn add(totals: &mut BucketTotals, boundaries: &Boundaries, buckets: &[(i32, f64)]) {
        let counts = BucketCounts {
            below: 0.0,
            buckets,
        };
        totals.add(boundaries, counts).expect("valid");
    }

    /// Two like streams, looked at 30 times; and one that is half slower again.
    #[test]
    fn a_gap_is_seen_and_chance_is_not() {
        let (alpha, runs) = (0.1, 60);
        let boundaries = Boundaries::exponential(3).expect("valid");
        let mut rng = ChaCha8Rng::seed_from_u64(41);
        let (mut alarms, mut missed, mut seen) = (0, 0, 0);
        for _ in 0..runs {
            let (mut like, mut slow) = (totals(&boundaries), totals(&boundaries));
            let mut baseline = totals(&boundaries);
            let mut gone = [false; 3];
            for _ in 0..30 {
                for (totals, n, slower) in [
                    (&mut like, 40, 1.0),
                    (&mut slow, 40, 1.5),
                    (&mut baseline, 200, 1.0),
                ] {
                    let buckets = latency_buckets(&mut rng, &boundaries, n, slower);
                    add(totals, &boundaries, &buckets);
                }
                let gap = |candidate: &BucketTotals| {
                    let block = BucketBlock {
                        boundaries: &boundaries,
                        candidate: candidate.counts(),
                        baseline: baseline.counts(),
                    };
                    largest_gap(&block, 1.0, 1.0 - alpha).expect("valid")
                };
                gone[0] |= gap(&like).is_slower() || gap(&like).is_faster();
                gone[1] |= gap(&slow).is_slower();
                // The 95th percentile is 180 ms.
                let found = fixed_quantile_interval(&boundaries, like.counts(), 0.95, 1.0, 0.9);
                let found = found.expect("has observations");
                gone[2] |= found.lower > 180.0 || found.upper.is_some_and(|upper| upper < 180.0);
            }
            alarms += u32::from(gone[0]);
            seen += u32::from(gone[1]);
            missed += u32::from(gone[2]);
        }
        let limit = upper_alarm_limit(runs, alpha);
        assert!(alarms <= limit && missed <= limit, "{alarms}, {missed}");
        assert_eq!(seen, runs, "half slower is seen within 1,200 requests");
    }

    #[test]
    fn a_quantile_is_bounded_by_boundaries_around_it() {
        let boundaries = Boundaries::exponential(4).expect("valid");
        let mut rng = ChaCha8Rng::seed_from_u64(42);
        let buckets = latency_buckets(&mut rng, &boundaries, 20_000, 1.0);
        let counts = BucketCounts {
            below: 0.0,
            buckets: &buckets,
        };
        let found = fixed_quantile_interval(&boundaries, counts, 0.95, 1.0, 0.95);
        let found = found.expect("has observations");
        assert!(found.lower > 150.0 && found.lower < 180.0, "{found:?}");
        let upper = found.upper.expect("bounded");
        assert!(upper > 180.0 && upper < 215.0, "{found:?}");
        let bursty = fixed_quantile_interval(&boundaries, counts, 0.95, 30.0, 0.95);
        assert!(bursty.expect("has observations").lower < found.lower);
        assert_eq!(
            fixed_quantile_interval(&boundaries, counts, 1.0, 1.0, 0.9),
            None
        );
    }

    proptest! {
        #[test]
        fn bounds_shrink_with_data_and_grow_with_confidence(
            n in 1.0..1e9_f64, more in 1.0..100.0_f64, q in 0.01..0.99_f64, alpha in 1e-6..0.4_f64,
        ) {
            prop_assert!(distance(n * more, alpha) <= distance(n, alpha));
            prop_assert!(distance(n, alpha / more) >= distance(n, alpha));
            prop_assert!(share_error(n * more, q, alpha) <= share_error(n, q, alpha) + 1e-12);
            prop_assert!(share_error(n, q, alpha / more) >= share_error(n, q, alpha));
        }

        /// Swapping the sides swaps slower and faster.
        #[test]
        fn gaps_are_symmetric(
            a in proptest::collection::btree_map(-20..20_i32, 0.1..1e4_f64, 1..9),
            b in proptest::collection::btree_map(-20..20_i32, 0.1..1e4_f64, 1..9),
            below in 0.0..10.0_f64,
        ) {
            let boundaries = Boundaries::exponential(2).expect("valid");
            let (a, b): (Vec<_>, Vec<_>) = (a.into_iter().collect(), b.into_iter().collect());
            let (a, b) = (BucketCounts { below, buckets: &a }, BucketCounts { below: 0.0, buckets: &b });
            let gap = |candidate, baseline| {
                let block = BucketBlock { boundaries: &boundaries, candidate, baseline };
                largest_gap(&block, 1.0, 0.95).expect("valid")
            };
            let (one, other) = (gap(a, b), gap(b, a));
            prop_assert_eq!((one.slower, one.slower_at), (other.faster, other.faster_at));
            prop_assert!(one.slower <= 1.0 + 1e-12 && one.faster <= 1.0 + 1e-12);
        }
    }
}
