//! The mean of values with known bounds: utilisation, saturation, hit rates, scores.
//!
//! Values between a lowest and a highest possible one have a mean that can be bounded without any
//! assumption on how they are distributed, at all moments at once. Both methods bet on each value
//! with a stake that was set before it was seen (Waudby-Smith and Ramdas, "Estimating means of
//! bounded random variables by betting", JRSS B 86, 2024). With `x` scaled to 0…1 and
//! `λ_t = min(√(2 ln(1/α) / (σ̂²_{t-1} t ln(1+t))), ½)`:
//!
//! - [`EmpiricalBernstein`]: `Σλx/Σλ ± (ln(2/α) + Σ 4(x-μ̂)² ψ(λ)) / Σλ`, `ψ(λ) = (-ln(1-λ)-λ)/4`;
//!   constant memory, exact arithmetic, a little wider;
//! - [`Betting`]: all means `m` that a gambler who stakes `min(λ, 1/(2m))` of what he has on
//!   "above `m`" (and likewise below) has not yet multiplied his money by `2/α` against; narrower,
//!   its ends on a grid of a thousandth of the range, rounded outwards.
//! - [`BettingTest`]: one such gambler, as a test of "the mean is at most `m`".
//!
//! **What is assumed.** Each value's expectation given the past is the same mean. Values may depend
//! on each other otherwise. A drifting mean is not covered by intervals; the test then is one of
//! "at most `m` at every moment". Too weak for rare errors (range 0 to 1, signal 0.001): there use
//! [`crate::counts`].
//!
//! **No data**: the interval is the whole range, the evidence 0. Values outside the bounds are
//! refused, not clipped: bounds that don't hold bound nothing.

use crate::counts::ParamError;
use crate::interval::Interval;
use crate::interval::alpha;

/// A value was refused; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("value {found}: expected one from {low} to {high}, the bounds given")]
pub struct ValueError {
    /// The value.
    pub found: f64,
    /// The lowest possible value.
    pub low: f64,
    /// The highest possible value.
    pub high: f64,
}

/// The range of possible values.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    low: f64,
    high: f64,
}

impl Range {
    fn new(low: f64, high: f64) -> Result<Range, ParamError> {
        ParamError::check("low", low, -1e15, 1e15)?;
        // Written so that the range itself can't round to nothing.
        ParamError::check("high", high, low + 1e-12 * low.abs().max(1e-290), 1e15)?;
        Ok(Range { low, high })
    }

    fn scaled(&self, found: f64) -> Result<f64, ValueError> {
        if found >= self.low && found <= self.high {
            return Ok(((found - self.low) / (self.high - self.low)).clamp(0.0, 1.0));
        }
        Err(ValueError {
            found,
            low: self.low,
            high: self.high,
        })
    }

    fn value(&self, scaled: f64) -> f64 {
        self.low + scaled * (self.high - self.low)
    }
}

/// The stakes, from the values seen so far.
#[derive(Clone, Copy, Debug)]
struct Stakes {
    log_inverse_alpha: f64,
    seen: f64,
    sum: f64,
    squares: f64,
}

impl Stakes {
    fn new(alpha: f64) -> Stakes {
        Stakes {
            log_inverse_alpha: -alpha.ln(),
            seen: 0.0,
            sum: 0.0,
            squares: 0.0,
        }
    }

    /// The largest stake, so that no single value can ruin.
    const MAX: f64 = 0.5;

    /// The mean before the next value, half a value at the middle counted in.
    fn mean(&self) -> f64 {
        (0.5 + self.sum) / (self.seen + 1.0)
    }

    /// The stake on the next value.
    fn next(&self) -> f64 {
        let variance = (0.25 + self.squares) / (self.seen + 1.0);
        let t = self.seen + 1.0;
        let stake = (2.0 * self.log_inverse_alpha / (variance * t * t.ln_1p())).sqrt();
        stake.min(Self::MAX)
    }

    fn learn(&mut self, x: f64) {
        self.seen += 1.0;
        self.sum += x;
        self.squares += (x - self.mean()).powi(2);
    }

    fn estimate(&self) -> f64 {
        if self.seen > 0.0 {
            self.sum / self.seen
        } else {
            0.5
        }
    }
}

/// The predictable plug-in empirical Bernstein confidence sequence of a mean.
#[derive(Clone, Copy, Debug)]
pub struct EmpiricalBernstein {
    range: Range,
    stakes: Stakes,
    log_level: f64,
    staked: f64,
    staked_values: f64,
    spread: f64,
}

impl EmpiricalBernstein {
    /// A sequence without data, for values from `low` to `high`, at `confidence` (0.95 is 95 %).
    ///
    /// # Errors
    /// Names the bound or the confidence that is out of its range.
    pub fn new(low: f64, high: f64, confidence: f64) -> Result<EmpiricalBernstein, ParamError> {
        let alpha = error_rate(confidence)?;
        Ok(EmpiricalBernstein {
            range: Range::new(low, high)?,
            stakes: Stakes::new(alpha / 2.0),
            log_level: (2.0 / alpha).ln(),
            staked: 0.0,
            staked_values: 0.0,
            spread: 0.0,
        })
    }

    /// Takes in the next value.
    ///
    /// # Errors
    /// The value is outside the bounds, or not a number; nothing has changed.
    pub fn push(&mut self, value: f64) -> Result<(), ValueError> {
        let x = self.range.scaled(value)?;
        let (stake, mean) = (self.stakes.next(), self.stakes.mean());
        let psi = (-(-stake).ln_1p() - stake) / 4.0;
        self.staked += stake;
        self.staked_values += stake * x;
        self.spread += 4.0 * (x - mean).powi(2) * psi;
        self.stakes.learn(x);
        Ok(())
    }

    /// Where the mean lies. The estimate is the plain average.
    pub fn interval(&self) -> Interval {
        let estimate = self.stakes.estimate();
        let (lower, upper) = if self.staked > 0.0 {
            let centre = self.staked_values / self.staked;
            let radius = (self.log_level + self.spread) / self.staked;
            (centre - radius, centre + radius)
        } else {
            (0.0, 1.0)
        };
        Interval {
            lower: self.range.value(lower.clamp(0.0, estimate)),
            estimate: self.range.value(estimate),
            upper: self.range.value(upper.clamp(estimate, 1.0)),
        }
    }
}

/// A gambler against "the mean is at most `m`".
#[derive(Clone, Copy, Debug)]
pub struct BettingTest {
    range: Range,
    stakes: Stakes,
    mean: f64,
    log_e: f64,
    log_e_max: f64,
}

impl BettingTest {
    /// A test of "the mean is at most `mean`" for values from `low` to `high`, with stakes that
    /// suit the error rate `alpha`; any other may be read off as well.
    ///
    /// # Errors
    /// Names the bound, the mean or the error rate that is out of its range.
    pub fn new(low: f64, high: f64, mean: f64, alpha: f64) -> Result<BettingTest, ParamError> {
        let range = Range::new(low, high)?;
        ParamError::check("mean", mean, low, high)?;
        error_rate(1.0 - alpha)?;
        Ok(BettingTest {
            range,
            stakes: Stakes::new(alpha),
            mean: (mean - low) / (high - low),
            log_e: 0.0,
            log_e_max: 0.0,
        })
    }

    /// Takes in the next value.
    ///
    /// # Errors
    /// The value is outside the bounds, or not a number; nothing has changed.
    pub fn push(&mut self, value: f64) -> Result<(), ValueError> {
        let x = self.range.scaled(value)?;
        self.log_e += log_gain(self.stakes.next(), x, self.mean);
        self.log_e_max = self.log_e_max.max(self.log_e);
        self.stakes.learn(x);
        Ok(())
    }

    /// The logarithm of the evidence now.
    pub fn log_e(&self) -> f64 {
        self.log_e
    }

    /// The logarithm of the highest evidence so far: `ln(1/α)` is ever reached with probability at
    /// most α.
    pub fn log_e_max(&self) -> f64 {
        self.log_e_max
    }
}

/// Means on which the gamblers of a [`Betting`] sequence play, the ends included.
const MEANS: u32 = 1001;

/// The betting confidence sequence of a mean.
#[derive(Clone, Debug)]
pub struct Betting {
    range: Range,
    stakes: Stakes,
    log_level: f64,
    /// Log capital of those who bet that the mean is above, below each point of the grid.
    above: Vec<f64>,
    below: Vec<f64>,
}

impl Betting {
    /// A sequence without data, for values from `low` to `high`, at `confidence` (0.95 is 95 %).
    ///
    /// # Errors
    /// Names the bound or the confidence that is out of its range.
    pub fn new(low: f64, high: f64, confidence: f64) -> Result<Betting, ParamError> {
        let alpha = error_rate(confidence)?;
        Ok(Betting {
            range: Range::new(low, high)?,
            stakes: Stakes::new(alpha / 2.0),
            log_level: (2.0 / alpha).ln(),
            above: vec![0.0; MEANS as usize],
            below: vec![0.0; MEANS as usize],
        })
    }

    /// Takes in the next value.
    ///
    /// # Errors
    /// The value is outside the bounds, or not a number; nothing has changed.
    pub fn push(&mut self, value: f64) -> Result<(), ValueError> {
        let x = self.range.scaled(value)?;
        let stake = self.stakes.next();
        let gamblers = self.above.iter_mut().zip(&mut self.below);
        for (m, (above, below)) in grid().zip(gamblers) {
            *above += log_gain(stake, x, m);
            *below += log_gain(stake, 1.0 - x, 1.0 - m);
        }
        self.stakes.learn(x);
        Ok(())
    }

    /// Where the mean lies. The estimate is the plain average.
    pub fn interval(&self) -> Interval {
        let estimate = self.stakes.estimate();
        // Capital falls from mean to mean for those above and rises for those below.
        let gone_below = grid().zip(&self.above);
        let gone_below = gone_below.take_while(|(_, capital)| **capital >= self.log_level);
        let lower = gone_below.map(|(m, _)| m).last().unwrap_or(0.0);
        let mut kept = grid().zip(&self.below);
        let upper = kept.find(|(_, capital)| **capital >= self.log_level);
        let upper = upper.map_or(1.0, |(m, _)| m);
        Interval {
            lower: self.range.value(lower.min(estimate)),
            estimate: self.range.value(estimate),
            upper: self.range.value(upper.max(estimate)),
        }
    }
}

fn grid() -> impl Iterator<Item = f64> {
    (0..MEANS).map(|i| f64::from(i) / f64::from(MEANS - 1))
}

/// What a stake on "above `m`" gains from `x`. No more than half of what `m` leaves is staked.
fn log_gain(stake: f64, x: f64, m: f64) -> f64 {
    let stake = if m > 0.0 {
        stake.min(Stakes::MAX / m)
    } else {
        stake
    };
    (stake * (x - m)).ln_1p()
}

fn error_rate(confidence: f64) -> Result<f64, ParamError> {
    ParamError::check("confidence", confidence, 1e-9, 1.0 - 1e-12)?;
    Ok(alpha(confidence).unwrap_or(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::binomial;
    use crate::testing::upper_alarm_limit;
    use proptest::prelude::*;
    use rand::Rng;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const TEN: [f64; 10] = [0.2, 0.4, 0.1, 0.6, 0.3, 0.5, 0.2, 0.7, 0.4, 0.3];

    fn hundred() -> impl Iterator<Item = f64> {
        TEN.into_iter().cycle().take(100)
    }

    #[test]
    fn empirical_bernstein_has_the_known_values() {
        let mut sequence = EmpiricalBernstein::new(0.0, 1.0, 0.95).expect("valid");
        hundred().for_each(|x| sequence.push(x).expect("in range"));
        let found = sequence.interval();
        assert!(
            (found.lower - 0.283_077_135_991_951_7).abs() < 1e-12,
            "{found:?}"
        );
        assert!(
            (found.upper - 0.456_922_864_008_048_16).abs() < 1e-12,
            "{found:?}"
        );
        assert!((found.estimate - 0.37).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn the_gambler_has_the_known_value() {
        let mut test = BettingTest::new(0.0, 1.0, 0.25, 0.05).expect("valid");
        hundred().for_each(|x| test.push(x).expect("in range"));
        assert!(
            (test.log_e() - 5.474_214_181_508_998).abs() < 1e-10,
            "{}",
            test.log_e()
        );
    }

    #[test]
    fn betting_is_narrower_than_bernstein_and_units_do_not_matter() {
        let mut wide = EmpiricalBernstein::new(-100.0, 300.0, 0.95).expect("valid");
        let mut narrow = Betting::new(-100.0, 300.0, 0.95).expect("valid");
        for x in hundred() {
            wide.push(400.0 * x - 100.0).expect("in range");
            narrow.push(400.0 * x - 100.0).expect("in range");
        }
        let (wide, narrow) = (wide.interval(), narrow.interval());
        assert!((wide.estimate - 48.0).abs() < 1e-9, "{wide:?}");
        assert!(
            narrow.upper - narrow.lower < wide.upper - wide.lower,
            "{narrow:?} {wide:?}"
        );
        assert!(narrow.lower < 48.0 && narrow.upper > 48.0, "{narrow:?}");
    }

    #[test]
    fn no_values_leave_the_whole_range_and_bad_ones_are_refused() {
        let mut sequence = Betting::new(2.0, 4.0, 0.99).expect("valid");
        let whole = sequence.interval();
        assert_eq!((whole.lower, whole.estimate, whole.upper), (2.0, 3.0, 4.0));
        let error = sequence.push(4.5).expect_err("too high");
        assert_eq!(
            error.to_string(),
            "value 4.5: expected one from 2 to 4, the bounds given"
        );
        assert!(sequence.push(f64::NAN).is_err());
        assert_eq!(sequence.interval(), whole);
        assert!(Betting::new(1.0, 1.0, 0.9).is_err());
        assert!(EmpiricalBernstein::new(0.0, 1.0, 1.0).is_err());
        assert!(BettingTest::new(0.0, 1.0, 1.5, 0.05).is_err());
    }

    /// Looked at after each of 100 values; skewed ones, since symmetry helps.
    #[test]
    fn the_truth_is_inside_at_all_moments_at_once() {
        let (alpha, runs) = (0.1, 100);
        let mut rng = ChaCha8Rng::seed_from_u64(31);
        let (mut missed, mut alarms) = ([0, 0], 0);
        for _ in 0..runs {
            let mut first = EmpiricalBernstein::new(0.0, 1.0, 1.0 - alpha).expect("valid");
            let mut second = Betting::new(0.0, 1.0, 1.0 - alpha).expect("valid");
            let mut test = BettingTest::new(0.0, 1.0, 0.15, alpha).expect("valid");
            let mut outside = [false; 2];
            for _ in 0..100 {
                // 0 four times in five, else uniform on ½…1: the mean is 0.15.
                let x = binomial(&mut rng, 1, 0.2) * (0.5 + 0.5 * rng.random::<f64>());
                first.push(x).expect("in range");
                second.push(x).expect("in range");
                test.push(x).expect("in range");
                for (outside, found) in outside
                    .iter_mut()
                    .zip([first.interval(), second.interval()])
                {
                    *outside |= found.lower > 0.15 || found.upper < 0.15;
                }
            }
            missed[0] += u32::from(outside[0]);
            missed[1] += u32::from(outside[1]);
            alarms += u32::from(test.log_e_max() >= -f64::ln(alpha));
        }
        let limit = upper_alarm_limit(runs, alpha);
        assert!(missed[0] <= limit && missed[1] <= limit, "{missed:?}");
        assert!(alarms <= limit, "{alarms}");
    }

    proptest! {
        #[test]
        fn intervals_are_ordered_and_within_the_range(
            values in proptest::collection::vec(-3.0..7.0_f64, 0..60), confidence in 0.5..0.999_f64,
        ) {
            let mut first = EmpiricalBernstein::new(-3.0, 7.0, confidence).expect("valid");
            let mut second = Betting::new(-3.0, 7.0, confidence).expect("valid");
            for value in &values {
                first.push(*value).expect("in range");
                second.push(*value).expect("in range");
            }
            for found in [first.interval(), second.interval()] {
                prop_assert!(found.lower >= -3.0 && found.upper <= 7.0, "{found:?}");
                prop_assert!(found.lower <= found.estimate && found.estimate <= found.upper);
            }
        }

        /// Capital is monotone in the mean bet against, or the interval would not be one.
        #[test]
        fn gamblers_are_ordered(values in proptest::collection::vec(0.0..=1.0_f64, 1..60)) {
            let mut sequence = Betting::new(0.0, 1.0, 0.95).expect("valid");
            values.iter().for_each(|x| sequence.push(*x).expect("in range"));
            prop_assert!(sequence.above.is_sorted_by(|a, b| *a >= b - 1e-9));
            prop_assert!(sequence.below.is_sorted_by(|a, b| *a <= b + 1e-9));
        }
    }
}
