//! How large is the difference? Confidence sequences: intervals that hold at all moments at once.
//!
//! A verdict's sentence needs figures ("ratio 9.4, at least 6.1 with 99.5 % confidence"), and it
//! is read while the rollout goes on. A confidence sequence at level `1-α` contains the truth at
//! every moment with probability at least `1-α`: it is the set of values that a sequential test
//! of each value has not rejected at `1/α`.
//!
//! - [`RatioSequence`]: the ratio of two event rates, over blocks with changing exposure, from the
//!   conditional likelihood `Σ x_C ln θ_b(ρ) + x_B ln(1-θ_b(ρ))`, `θ_b(ρ) = ρn_C/(ρn_C+n_B)`,
//!   with a log-uniform mixture over ρ from 0.001 to 1,000. Rates may drift; their ratio may not.
//! - [`DifferenceSequence`]: the difference, by inverting the rare-event kernel of
//!   [`crate::kernel`] for every tolerated difference at once:
//!   `ln E_δ = ln Σ_j w_j e^{S_j - δ T_j}`. Exact where events are rare, wider than need be where they are common.
//! - [`proportion`]: one rate, by the Beta(½,½) mixture of likelihood ratios (Robbins). The rate
//!   is taken as constant.
//!
//! All are two-sided; either end alone holds with at least the same confidence. Log-likelihoods
//! are divided by the dispersion as in the tests. Without requests on both sides there is no
//! interval. A test's verdict and an interval bet differently, so one may decide a little
//! before the other.

use crate::counts::DISPERSION_MAX;
use crate::counts::ParamError;
use crate::kernel::BlockError;
use crate::kernel::CountBlock;
use crate::kernel::check_count;
use crate::kernel::rare_terms;
use crate::mixture::Grid;
use crate::special::edge;
use crate::special::ln_beta;
use crate::special::log_sum_exp;
use std::sync::LazyLock;

/// An estimate between two bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower bound.
    pub lower: f64,
    /// The best single value.
    pub estimate: f64,
    /// The upper bound.
    pub upper: f64,
}

/// A ratio between two bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioInterval {
    /// The lower bound, at least 0.
    pub lower: f64,
    /// The best single value, 0 or from 0.001 to 1,000; `None` where the baseline had no events.
    pub estimate: Option<f64>,
    /// The upper bound; `None` where the data don't bound the ratio.
    pub upper: Option<f64>,
}

/// Ratios on which the likelihood is kept.
static RATIOS: LazyLock<Grid> = LazyLock::new(|| Grid::new(&[(1e-3, 1e3, 400, 1.0)]));

/// Tilts of the difference's two sides.
static ABOVE: LazyLock<Grid> = LazyLock::new(|| Grid::new(&[(1.1, 1000.0, 48, 1.0)]));
static BELOW: LazyLock<Grid> = LazyLock::new(|| Grid::new(&[(0.02, 0.95, 48, 1.0)]));

/// A confidence sequence for the ratio of the candidate's event rate to the baseline's.
#[derive(Clone, Debug)]
pub struct RatioSequence {
    dispersion: f64,
    candidate_events: f64,
    baseline_events: f64,
    /// The log-likelihood against that of ratio 1, on [`RATIOS`].
    log_likelihood: Vec<f64>,
    /// Its derivative by the logarithm of the ratio.
    slope: Vec<f64>,
}

impl RatioSequence {
    /// A sequence without data.
    ///
    /// # Errors
    /// The dispersion is not between 1 and 1e6.
    pub fn new(dispersion: f64) -> Result<RatioSequence, ParamError> {
        ParamError::check("dispersion", dispersion, 1.0, DISPERSION_MAX)?;
        let points = RATIOS.tilts.len();
        Ok(RatioSequence {
            dispersion,
            candidate_events: 0.0,
            baseline_events: 0.0,
            log_likelihood: vec![0.0; points],
            slope: vec![0.0; points],
        })
    }

    /// Changes the dispersion for the blocks that follow. The promise holds as long as it was
    /// chosen from data before them.
    ///
    /// # Errors
    /// Names the range; the sequence is then unchanged.
    pub fn set_dispersion(&mut self, dispersion: f64) -> Result<(), ParamError> {
        ParamError::check("dispersion", dispersion, 1.0, DISPERSION_MAX)?;
        self.dispersion = dispersion;
        Ok(())
    }

    /// Takes in the next block of time.
    ///
    /// # Errors
    /// Names the count that can't be one; the sequence is then unchanged.
    pub fn push(&mut self, block: &CountBlock) -> Result<(), BlockError> {
        let block = block.checked()?;
        let events = block.candidate_events + block.baseline_events;
        if !block.is_comparable() || events == 0.0 {
            return Ok(());
        }
        for (j, &ratio) in RATIOS.tilts.iter().enumerate() {
            let (log_c, _) = rare_terms(&block, 1.0, ratio);
            let weighted = ratio * block.candidate_total;
            let share = weighted / (weighted + block.baseline_total);
            self.log_likelihood[j] +=
                (block.candidate_events * ratio.ln() + events * log_c) / self.dispersion;
            self.slope[j] += (block.candidate_events - events * share) / self.dispersion;
        }
        self.candidate_events += block.candidate_events;
        self.baseline_events += block.baseline_events;
        Ok(())
    }

    /// The interval at `confidence` (0.995 is 99.5 %). `None` before the first event and for a
    /// confidence outside 0 to 1.
    pub fn interval(&self, confidence: f64) -> Option<RatioInterval> {
        let alpha = alpha(confidence)?;
        if self.candidate_events + self.baseline_events == 0.0 {
            return None;
        }
        let limit = RATIOS.log_mean(&self.log_likelihood, 1.0) + alpha.ln();
        let kept = |at: f64| self.likelihood_at(at) >= limit;
        let last = (RATIOS.tilts.len() - 1) as f64;
        let peak = edge(0.0, last, |at| self.slope_at(at) > 0.0);
        let (lower, upper) = (edge(peak, 0.0, kept), edge(peak, last, kept));
        Some(RatioInterval {
            lower: if lower > 0.0 { ratio_at(lower) } else { 0.0 },
            estimate: if self.candidate_events == 0.0 {
                Some(0.0)
            } else if self.baseline_events == 0.0 {
                None
            } else {
                Some(ratio_at(peak))
            },
            upper: (upper < last).then(|| ratio_at(upper)),
        })
    }

    /// The log-likelihood at a position between grid points, by the cubic through values and
    /// slopes at both: it is smooth and concave, so this is good to about 1e-9 per event.
    fn likelihood_at(&self, position: f64) -> f64 {
        let (i, t) = split(position);
        let step = log_step();
        let (y0, y1) = (self.log_likelihood[i], self.log_likelihood[i + 1]);
        let (d0, d1) = (step * self.slope[i], step * self.slope[i + 1]);
        let (a, b) = (d0 - (y1 - y0), (y1 - y0) - d1);
        y0 + t * (y1 - y0) + t * (1.0 - t) * (a * (1.0 - t) + b * t)
    }

    fn slope_at(&self, position: f64) -> f64 {
        let (i, t) = split(position);
        (1.0 - t) * self.slope[i] + t * self.slope[i + 1]
    }
}

/// The grid point at or below a position on [`RATIOS`], and how far it is to the next.
fn split(position: f64) -> (usize, f64) {
    let last = RATIOS.tilts.len() - 2;
    let i = (position.max(0.0) as usize).min(last);
    (i, position - i as f64)
}

fn log_step() -> f64 {
    (RATIOS.tilts[1] / RATIOS.tilts[0]).ln()
}

fn ratio_at(position: f64) -> f64 {
    RATIOS.tilts[0] * (position * log_step()).exp()
}

/// A confidence sequence for the candidate's event rate minus the baseline's.
#[derive(Clone, Debug)]
pub struct DifferenceSequence {
    dispersion: f64,
    candidate: OneSide,
    baseline: OneSide,
    /// Block differences weighted by `n_C n_B / (n_C + n_B)` (Mantel and Haenszel), and weights.
    weighted: f64,
    weight: f64,
}

impl DifferenceSequence {
    /// A sequence without data.
    ///
    /// # Errors
    /// The dispersion is not between 1 and 1e6.
    pub fn new(dispersion: f64) -> Result<DifferenceSequence, ParamError> {
        ParamError::check("dispersion", dispersion, 1.0, DISPERSION_MAX)?;
        Ok(DifferenceSequence {
            dispersion,
            candidate: OneSide::new(),
            baseline: OneSide::new(),
            weighted: 0.0,
            weight: 0.0,
        })
    }

    /// Changes the dispersion for the blocks that follow. The promise holds as long as it was
    /// chosen from data before them.
    ///
    /// # Errors
    /// Names the range; the sequence is then unchanged.
    pub fn set_dispersion(&mut self, dispersion: f64) -> Result<(), ParamError> {
        ParamError::check("dispersion", dispersion, 1.0, DISPERSION_MAX)?;
        self.dispersion = dispersion;
        Ok(())
    }

    /// Takes in the next block of time.
    ///
    /// # Errors
    /// Names the count that can't be one; the sequence is then unchanged.
    pub fn push(&mut self, block: &CountBlock) -> Result<(), BlockError> {
        let block = block.checked()?;
        if !block.is_comparable() {
            return Ok(());
        }
        self.candidate.push(&block, self.dispersion);
        self.baseline.push(&block.swapped(), self.dispersion);
        let (n_c, n_b) = (block.candidate_total, block.baseline_total);
        let weight = n_c * (n_b / (n_c + n_b));
        self.weighted += weight * (block.candidate_events / n_c - block.baseline_events / n_b);
        self.weight += weight;
        Ok(())
    }

    /// The interval at `confidence`, within -1 to 1. `None` before both sides had requests and for
    /// a confidence outside 0 to 1.
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        let limit = -(0.5 * alpha(confidence)?).ln();
        if self.weight == 0.0 {
            return None;
        }
        let estimate = self.weighted / self.weight;
        Some(Interval {
            lower: self.candidate.at_least(&self.baseline, limit).min(estimate),
            estimate,
            upper: (-self.baseline.at_least(&self.candidate, limit)).max(estimate),
        })
    }
}

/// Evidence on one side's rate against the other's, for every difference at once.
#[derive(Clone, Debug)]
struct OneSide {
    above: Line,
    below: Line,
}

/// `S_j` and `T_j` of `ln E_δ = ln Σ_j w_j e^{S_j - δ T_j}`.
#[derive(Clone, Debug)]
struct Line {
    grid: &'static Grid,
    constant: Vec<f64>,
    per_difference: Vec<f64>,
}

impl OneSide {
    fn new() -> OneSide {
        OneSide {
            above: Line::new(&ABOVE),
            below: Line::new(&BELOW),
        }
    }

    fn push(&mut self, block: &CountBlock, dispersion: f64) {
        self.above.push(block, dispersion);
        self.below.push(block, dispersion);
    }

    /// The largest difference that this side's rate is known to be at least above the other's;
    /// negative where it is only known not to be far below.
    fn at_least(&self, other: &OneSide, limit: f64) -> f64 {
        if self.above.log_e(0.0) >= limit {
            return edge(1.0, 0.0, |difference| self.above.log_e(difference) < limit);
        }
        -edge(0.0, 1.0, |difference| other.below.log_e(difference) < limit)
    }
}

impl Line {
    fn new(grid: &'static Grid) -> Line {
        Line {
            grid,
            constant: vec![0.0; grid.tilts.len()],
            per_difference: vec![0.0; grid.tilts.len()],
        }
    }

    fn push(&mut self, block: &CountBlock, dispersion: f64) {
        let events = block.candidate_events + block.baseline_events;
        for (j, &tilt) in self.grid.tilts.iter().enumerate() {
            let (log_c, excess) = rare_terms(block, 1.0, tilt);
            self.constant[j] += (block.candidate_events * tilt.ln() + events * log_c) / dispersion;
            self.per_difference[j] += excess / dispersion;
        }
    }

    fn log_e(&self, difference: f64) -> f64 {
        let terms = self.constant.iter().zip(&self.per_difference);
        log_sum_exp(
            self.grid
                .log_weights
                .iter()
                .zip(terms)
                .map(|(w, (s, t))| w + s - difference * t),
        )
    }
}

/// The confidence sequence of a constant proportion after `events` of `total`.
///
/// `None` without requests, for what is no count, a dispersion below 1, or a confidence outside 0
/// to 1.
pub fn proportion(events: f64, total: f64, dispersion: f64, confidence: f64) -> Option<Interval> {
    check_count("events", events).ok()?;
    check_count("total", total).ok()?;
    ParamError::check("dispersion", dispersion, 1.0, DISPERSION_MAX).ok()?;
    let limit = -alpha(confidence)?.ln();
    let total = total.max(events);
    if total == 0.0 {
        return None;
    }
    let estimate = events / total;
    let (hits, misses) = (events / dispersion, (total - events) / dispersion);
    let marginal = ln_beta(0.5 + hits, 0.5 + misses) - ln_beta(0.5, 0.5);
    let times_ln = |count: f64, p: f64| if count == 0.0 { 0.0 } else { count * p.ln() };
    let kept = |p: f64| marginal - times_ln(hits, p) - times_ln(misses, 1.0 - p) < limit;
    Some(Interval {
        lower: edge(estimate, 0.0, kept),
        estimate,
        upper: edge(estimate, 1.0, kept),
    })
}

/// `1 - confidence`, where that is a probability strictly between 0 and 1.
pub(crate) fn alpha(confidence: f64) -> Option<f64> {
    (confidence > 0.0 && confidence < 1.0).then_some(1.0 - confidence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::binomial;
    use crate::testing::upper_alarm_limit;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn block(x_c: f64, n_c: f64, x_b: f64, n_b: f64) -> CountBlock {
        CountBlock {
            candidate_total: n_c,
            candidate_events: x_c,
            baseline_total: n_b,
            baseline_events: x_b,
        }
    }

    fn ratio_of(blocks: &[CountBlock]) -> RatioSequence {
        let mut sequence = RatioSequence::new(1.0).expect("valid");
        for block in blocks {
            sequence.push(block).expect("valid block");
        }
        sequence
    }

    fn difference_of(blocks: &[CountBlock]) -> DifferenceSequence {
        let mut sequence = DifferenceSequence::new(1.0).expect("valid");
        for block in blocks {
            sequence.push(block).expect("valid block");
        }
        sequence
    }

    #[test]
    fn the_ratio_has_the_known_values() {
        let sequence = ratio_of(&[
            block(7.0, 300.0, 12.0, 5700.0),
            block(5.0, 3000.0, 20.0, 27000.0),
        ]);
        let found = sequence.interval(0.95).expect("has events");
        assert!((found.lower - 1.2324453224696048).abs() < 1e-6, "{found:?}");
        let estimate = found.estimate.expect("both sides");
        assert!((estimate - 4.515038350858324).abs() < 1e-3, "{found:?}");
        let upper = found.upper.expect("bounded");
        assert!((upper - 13.525261276490076).abs() < 1e-5, "{found:?}");
    }

    #[test]
    fn the_difference_has_the_known_values() {
        let sequence = difference_of(&[block(18.0, 18000.0, 342.0, 342000.0)]);
        let found = sequence.interval(0.95).expect("has requests");
        assert!(
            (found.lower + 0.0006343745900668591).abs() < 1e-12,
            "{found:?}"
        );
        assert!(
            (found.upper - 0.001017386705321145).abs() < 1e-12,
            "{found:?}"
        );
        assert!(found.estimate.abs() < 1e-15);
    }

    #[test]
    fn one_sided_data_bound_one_side() {
        let spotless = ratio_of(&[block(5.0, 1000.0, 0.0, 1000.0)]);
        let found = spotless.interval(0.95).expect("has events");
        assert_eq!((found.estimate, found.upper), (None, None));
        assert!(found.lower < 1.0);
        let better = ratio_of(&[block(0.0, 1000.0, 50.0, 1000.0)]);
        let found = better.interval(0.95).expect("has events");
        assert_eq!((found.estimate, found.lower), (Some(0.0), 0.0));
        assert!(found.upper.expect("bounded") < 1.0);
    }

    #[test]
    fn no_data_give_no_interval() {
        assert_eq!(ratio_of(&[]).interval(0.95), None);
        assert_eq!(ratio_of(&[block(0.0, 9.0, 0.0, 9.0)]).interval(0.95), None);
        assert_eq!(
            difference_of(&[block(1.0, 9.0, 0.0, 0.0)]).interval(0.95),
            None
        );
        assert_eq!(proportion(0.0, 0.0, 1.0, 0.95), None);
        let some = block(1.0, 9.0, 1.0, 9.0);
        assert_eq!(ratio_of(&[some]).interval(1.0), None);
        assert_eq!(difference_of(&[some]).interval(f64::NAN), None);
    }

    #[test]
    fn a_proportion_that_never_happened_is_bounded_above() {
        let found = proportion(0.0, 1000.0, 1.0, 0.95).expect("has requests");
        assert_eq!((found.lower, found.estimate), (0.0, 0.0));
        // Without looking often the bound would be 0.0030.
        assert!(found.upper > 0.003 && found.upper < 0.01, "{found:?}");
        let all = proportion(1000.0, 1000.0, 1.0, 0.95).expect("has requests");
        assert_eq!(all.upper, 1.0);
        assert!((all.lower - (1.0 - found.upper)).abs() < 1e-12);
    }

    /// The chance that any of 40 looks finds an interval without the truth in it.
    #[test]
    fn the_truth_is_inside_at_all_moments_at_once() {
        let (alpha, runs) = (0.1, 200);
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let (mut ratio_missed, mut difference_missed, mut proportion_missed) = (0, 0, 0);
        for _ in 0..runs {
            let (mut ratio, mut difference) = (ratio_of(&[]), difference_of(&[]));
            let (mut events, mut total) = (0.0, 0.0);
            let mut missed = [false; 3];
            for look in 0..20_u32 {
                // The share changes on the way; the ratio is 2, the difference 0.01.
                let (n_c, n_b) = if look < 10 { (50, 450) } else { (250, 250) };
                let counts = block(
                    binomial(&mut rng, n_c, 0.02),
                    f64::from(n_c),
                    binomial(&mut rng, n_b, 0.01),
                    f64::from(n_b),
                );
                ratio.push(&counts).expect("valid");
                difference.push(&counts).expect("valid");
                events += counts.baseline_events;
                total += counts.baseline_total;
                if let Some(found) = ratio.interval(1.0 - alpha) {
                    missed[0] |= found.lower > 2.0 || found.upper.is_some_and(|u| u < 2.0);
                }
                let found = difference.interval(1.0 - alpha).expect("has requests");
                missed[1] |= found.lower > 0.01 || found.upper < 0.01;
                let found = proportion(events, total, 1.0, 1.0 - alpha).expect("has requests");
                missed[2] |= found.lower > 0.01 || found.upper < 0.01;
            }
            ratio_missed += u32::from(missed[0]);
            difference_missed += u32::from(missed[1]);
            proportion_missed += u32::from(missed[2]);
        }
        let limit = upper_alarm_limit(runs, alpha);
        assert!(ratio_missed <= limit, "{ratio_missed}");
        assert!(difference_missed <= limit, "{difference_missed}");
        assert!(proportion_missed <= limit, "{proportion_missed}");
    }

    proptest! {
        #[test]
        fn intervals_are_ordered_numbers(
            counts in proptest::collection::vec(
                (0.0..1e6_f64, 0.0..1e6_f64, 0.0..1e12_f64, 0.0..1e12_f64), 1..6),
            confidence in 0.5..0.9999_f64,
        ) {
            let blocks: Vec<_> = counts.iter().map(|(a, b, c, d)| block(*a, *b, *c, *d)).collect();
            if let Some(found) = ratio_of(&blocks).interval(confidence) {
                let estimate = found.estimate.unwrap_or(f64::MAX);
                prop_assert!(found.lower >= 0.0 && found.lower <= estimate, "{found:?}");
                if let Some(upper) = found.upper {
                    prop_assert!(upper.is_finite() && upper >= estimate, "{found:?}");
                }
            }
            if let Some(found) = difference_of(&blocks).interval(confidence) {
                prop_assert!(found.lower <= found.estimate && found.estimate <= found.upper);
                prop_assert!(found.lower >= -1.0 && found.upper <= 1.0, "{found:?}");
            }
            let (x, n, _, _) = counts[0];
            if let Some(found) = proportion(x, n, 1.0, confidence) {
                prop_assert!(found.lower <= found.estimate && found.estimate <= found.upper);
                prop_assert!(found.lower >= 0.0 && found.upper <= 1.0, "{found:?}");
            }
        }

        #[test]
        fn more_confidence_is_wider(x_c in 0_u32..50, x_b in 1_u32..50) {
            let counts = block(f64::from(x_c), 1e3, f64::from(x_b), 1e4);
            let ratio = ratio_of(&[counts]);
            let (narrow, wide) = (ratio.interval(0.9), ratio.interval(0.99));
            let (narrow, wide) = (narrow.expect("events"), wide.expect("events"));
            prop_assert!(wide.lower <= narrow.lower);
            let upper = |interval: RatioInterval| interval.upper.unwrap_or(f64::INFINITY);
            prop_assert!(upper(wide) >= upper(narrow));
        }
    }
}
