//! Does one series of values run above another? Any two series that are measured side by side,
//! looked at as often as you like.
//!
//! Where there are counts, [`crate::counts`] and [`crate::exceedance`] know more, and for values
//! with known bounds [`crate::bounded`] needs less; this is for what only a query can say: queue
//! lengths, memory, cache hits, somebody else's percentiles. A point is the candidate's and the
//! baseline's value at one time. Each is held against the line
//! `baseline + relative * |baseline| + absolute`: as the logarithm of how far the candidate's value
//! is from it where all values of the first points are positive, else as the difference.
//!
//! The evidence is the self-normalised one-sided normal mixture (Robbins, "Statistical methods
//! related to the law of the iterated logarithm", 1970; de la Peña, Lai and Shao, "Self-normalized
//! processes", 2009): `λS - λ²V/2`, averaged over `λ > 0` with half-normal weights, where `S` is
//! the sum of what each point says and `V` the sum of its squares. It needs no variance and no
//! moments. A constant shift is worth about half a nat per point however large it is, so a
//! decision takes some fifteen points at least: ask for points every few seconds.
//!
//! **What is assumed.** That, with the candidate on the line, what a point says beyond what the
//! points before it foretold is as likely to be above zero as below, at equal sizes. So it is
//! about the middle of the values, not about rare spikes, and heavy tails do no harm: values
//! beyond [`CLIP`] times the usual size count as that. Neighbouring points resemble each other in
//! nearly every series, so each is first cleared of what its predecessor foretells
//! (*prewhitened*), with a correlation estimated from the past and held to be high until shown to
//! be low. That is an estimate: series that drift apart slowly, each for its own reasons, as the
//! memory of two processes does, are beyond it. A difference between the instances that the
//! versions run on is a shift like any other.
//!
//! **No data**: a point with a value that is not finite says nothing. **At the start** the first
//! [`LEARNT`] points teach the scale and are no evidence.

use crate::counts::ParamError;
use crate::mixture::Direction;
use crate::normal;
use std::collections::VecDeque;

/// The line a candidate's values are held against, and which side of it is the worse one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanTestParams {
    /// Which change of the value is for the worse.
    pub worse: Worse,
    /// Tolerated change as a share of the baseline's value, from 0 to 100.
    pub relative: f64,
    /// Tolerated change in the value's own unit, from 0 to 1e15.
    pub absolute: f64,
    /// Whether to gather evidence for a fail or for a pass.
    pub direction: Direction,
}

/// Which change of a value is for the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Worse {
    /// More is worse.
    Increase,
    /// Less is worse.
    Decrease,
}

/// Points that teach the scale before the first that is evidence.
pub const LEARNT: usize = 3;

/// What a point says is cut to this many times its usual size.
pub const CLIP: f64 = 5.0;

/// Points remembered for the scale and for how much neighbours resemble each other.
const REMEMBERED: usize = 60;

/// The correlation of neighbours that is assumed before anything is known, and for how many
/// points that counts.
const CORRELATION_AT_FIRST: (f64, f64) = (0.8, 8.0);

/// The highest correlation believed: beyond it no number of points would be evidence.
const CORRELATION_MAX: f64 = 0.97;

/// The number of points at which the mixture is tightest, at 1 % errors.
const TIGHTEST_AT: f64 = 15.0;

/// An anytime-valid one-sided test of two series of values.
#[derive(Clone, Debug)]
pub struct MeanTest {
    params: MeanTestParams,
    /// The first points, until the scale is known.
    first: Vec<(f64, f64)>,
    scale: Option<Scale>,
    /// What the last points said, newest last; above zero is towards what is to be shown.
    past: VecDeque<f64>,
    sum: f64,
    squares: f64,
    log_e: f64,
    log_e_max: f64,
    points: u64,
}

/// How the distance from the line is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// By the logarithm of the ratio: for values that are all positive.
    Ratio,
    /// By the difference.
    Difference,
}

impl MeanTest {
    /// A test without evidence.
    ///
    /// # Errors
    /// Names the parameter that is out of its range.
    pub fn new(params: MeanTestParams) -> Result<MeanTest, ParamError> {
        ParamError::check("relative", params.relative, 0.0, 100.0)?;
        ParamError::check("absolute", params.absolute, 0.0, 1e15)?;
        Ok(MeanTest {
            params,
            first: Vec::new(),
            scale: None,
            past: VecDeque::new(),
            sum: 0.0,
            squares: 0.0,
            log_e: 0.0,
            log_e_max: 0.0,
            points: 0,
        })
    }

    /// Takes in what both sides were at one time.
    pub fn push(&mut self, candidate: f64, baseline: f64) {
        if !(candidate.is_finite() && baseline.is_finite()) {
            return;
        }
        self.points += 1;
        let Some(scale) = self.scale else {
            self.learn(candidate, baseline);
            return;
        };
        let said = self.said(scale, candidate, baseline);
        self.take(said);
        self.remember(said);
    }

    /// The evidence now, as the logarithm of an e-value.
    pub fn log_e(&self) -> f64 {
        self.log_e
    }

    /// The evidence at its highest, which is what decides.
    pub fn log_e_max(&self) -> f64 {
        self.log_e_max
    }

    /// How many points were taken in, those included that only taught.
    pub fn points(&self) -> u64 {
        self.points
    }

    /// The correlation of neighbouring points that is assumed for the next one.
    pub fn correlation(&self) -> f64 {
        let values: Vec<f64> = self.past.iter().copied().collect();
        let (assumed, weight) = CORRELATION_AT_FIRST;
        let count = values.len() as f64;
        let found = correlation(&values).unwrap_or(assumed);
        ((found * count + assumed * weight) / (count + weight)).clamp(0.0, CORRELATION_MAX)
    }

    fn learn(&mut self, candidate: f64, baseline: f64) {
        self.first.push((candidate, baseline));
        if self.first.len() < LEARNT {
            return;
        }
        let all_positive = self
            .first
            .iter()
            .all(|(mine, theirs)| *mine > 0.0 && *theirs > 0.0);
        let scale = if all_positive {
            Scale::Ratio
        } else {
            Scale::Difference
        };
        self.scale = Some(scale);
        for (candidate, baseline) in std::mem::take(&mut self.first) {
            let said = self.said(scale, candidate, baseline);
            self.remember(said);
        }
    }

    /// How far the candidate's value is from the line, towards what is to be shown. May be
    /// infinite, where a ratio has none.
    fn said(&self, scale: Scale, candidate: f64, baseline: f64) -> f64 {
        let MeanTestParams {
            relative, absolute, ..
        } = self.params;
        let tolerated = relative * baseline.abs() + absolute;
        let line = match self.params.worse {
            Worse::Increase => baseline + tolerated,
            Worse::Decrease => baseline - tolerated,
        };
        let above = match scale {
            Scale::Difference => candidate - line,
            // A line at or below zero is below every positive value.
            Scale::Ratio if candidate > 0.0 && line > 0.0 => (candidate / line).ln(),
            Scale::Ratio if candidate > 0.0 => f64::INFINITY,
            Scale::Ratio if line > 0.0 => f64::NEG_INFINITY,
            Scale::Ratio => 0.0,
        };
        match (self.params.worse, self.params.direction) {
            (Worse::Increase, Direction::Worse) | (Worse::Decrease, Direction::NotWorse) => above,
            (Worse::Increase, Direction::NotWorse) | (Worse::Decrease, Direction::Worse) => -above,
        }
    }

    /// Everything but `said` itself is from the past.
    fn take(&mut self, said: f64) {
        let usual = self.usual();
        let foretold = self.correlation() * self.past.back().copied().unwrap_or(0.0);
        let cut = |value: f64| value.clamp(-CLIP * usual, CLIP * usual);
        let new = cut(cut(said) - foretold) / usual;
        self.sum += new;
        self.squares += new * new;
        let rho = one_sided_rho(TIGHTEST_AT, 0.01);
        self.log_e = one_sided_log_e(self.sum, self.squares, rho);
        self.log_e_max = self.log_e_max.max(self.log_e);
    }

    /// The usual size of what a point says.
    fn usual(&self) -> f64 {
        let mut sizes: Vec<f64> = self.past.iter().map(|said| said.abs()).collect();
        sizes.sort_unstable_by(f64::total_cmp);
        let median = sizes.get(sizes.len() / 2).copied().unwrap_or(0.0);
        // Values that never differ have no size; the least that is not nothing stands in.
        let least = sizes.iter().copied().find(|size| *size > 0.0);
        if median > 0.0 {
            median
        } else {
            least.unwrap_or(f64::MIN_POSITIVE.sqrt())
        }
    }

    fn remember(&mut self, said: f64) {
        let bound = match self.past.len() {
            0..LEARNT => 1e300,
            _ => CLIP * self.usual(),
        };
        self.past.push_back(said.clamp(-bound, bound));
        if self.past.len() > REMEMBERED {
            self.past.pop_front();
        }
    }
}

/// How much neighbours resemble each other: the correlation at lag one with its bias for short
/// series corrected (Marriott and Pope, "Bias in the estimation of autocorrelations", Biometrika
/// 41, 1954). `None` for fewer than four values and for values that don't differ.
pub fn correlation(values: &[f64]) -> Option<f64> {
    if values.len() < 4 {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let products: f64 = values
        .iter()
        .zip(values.iter().skip(1))
        .map(|(a, b)| (a - mean) * (b - mean))
        .sum();
    let found = products / squares;
    found
        .is_finite()
        .then(|| (found + (1.0 + 3.0 * found) / count).clamp(-1.0, 1.0))
}

/// `ln E` of the one-sided normal mixture at the sum `sum` of increments whose variances (or
/// squares) add up to `variance`, with half-normal weights of precision `rho`:
/// `½ ln(4ρ/(v+ρ)) + s²/(2(v+ρ)) + ln Φ(s/√(v+ρ))`.
pub fn one_sided_log_e(sum: f64, variance: f64, rho: f64) -> f64 {
    let total = variance + rho;
    0.5 * (4.0 * rho / total).ln() + sum * sum / (2.0 * total) + normal::log_cdf(sum / total.sqrt())
}

/// The precision at which the one-sided mixture's bound with error `alpha` is tightest at
/// `variance`, approximately (Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform,
/// nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49, 2021).
pub fn one_sided_rho(variance: f64, alpha: f64) -> f64 {
    let level = 2.0 * (1.0 / (2.0 * alpha)).ln();
    variance / (level + (1.0 + level).ln())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::testing::upper_alarm_limit;
    use proptest::prelude::*;

    fn params(worse: Worse, relative: f64, direction: Direction) -> MeanTestParams {
        MeanTestParams {
            worse,
            relative,
            absolute: 0.0,
            direction,
        }
    }

    fn test(relative: f64, direction: Direction) -> MeanTest {
        MeanTest::new(params(Worse::Increase, relative, direction)).expect("valid parameters")
    }

    /// Standard normal values whose neighbours correlate by `rho`.
    fn autoregressive(random: &mut Random, n: usize, rho: f64) -> Vec<f64> {
        let mut last = random.normal();
        let mut next = || {
            let value = last;
            last = rho * last + (1.0 - rho * rho).sqrt() * random.normal();
            value
        };
        (0..n).map(|_| next()).collect()
    }

    /// Of `runs` runs of 60 points, those that reach 1 %.
    fn alarms(runs: u32, mut series: impl FnMut() -> Vec<f64>) -> u32 {
        let run = |_| {
            let mut test = test(0.0, Direction::Worse);
            for value in series() {
                test.push(value, 0.0);
            }
            u32::from(test.log_e_max() >= 100.0_f64.ln())
        };
        (0..runs).map(run).sum()
    }

    #[test]
    fn the_mixture_has_its_published_value() {
        let found = one_sided_log_e(20.0, 60.0, one_sided_rho(60.0, 0.05));
        assert!((found - 2.567_502_283_387_501).abs() < 1e-9, "{found}");
        assert!(one_sided_log_e(-200.0, 60.0, 10.0).is_finite());
    }

    #[test]
    fn series_on_the_line_raise_few_alarms() {
        let mut random = Random::new(8);
        for (rho, share) in [(0.0, 0.01), (0.5, 0.01), (0.8, 0.03)] {
            let found = alarms(300, || autoregressive(&mut random, 60, rho));
            assert!(
                found <= upper_alarm_limit(300, share),
                "{found} of 300 at {rho}"
            );
        }
        let heavy = alarms(300, || {
            let tail = |random: &mut Random| random.normal() / random.normal();
            (0..60).map(|_| tail(&mut random)).collect()
        });
        assert!(
            heavy <= upper_alarm_limit(300, 0.01),
            "{heavy} of 300 without moments"
        );
    }

    #[test]
    fn a_shift_is_found_soon_and_however_large_not_at_once() {
        let mut random = Random::new(6);
        for (shift, within) in [(3.0, 40), (1000.0, 30)] {
            for _ in 0..20 {
                let mut test = test(0.0, Direction::Worse);
                let mut points = 0;
                while test.log_e() < 100.0_f64.ln() {
                    test.push(shift + random.normal(), 0.0);
                    points += 1;
                    assert!(points <= within, "{shift} after {points}");
                }
                assert!(points > 10, "{shift} after {points}");
            }
        }
    }

    #[test]
    fn a_relative_margin_is_held_against_the_baseline() {
        let mut random = Random::new(5);
        let mut within = test(0.5, Direction::NotWorse);
        let mut beyond = test(0.5, Direction::Worse);
        for _ in 0..60 {
            let baseline = 100.0 + random.normal();
            let candidate = 1.2 * baseline + random.normal();
            within.push(candidate, baseline);
            beyond.push(candidate, baseline);
        }
        assert!(within.log_e() > 100.0_f64.ln() && beyond.log_e() < 0.0);
        assert_eq!(within.points(), 60);
    }

    #[test]
    fn less_can_be_worse() {
        let mut random = Random::new(5);
        let test = |direction| MeanTest::new(params(Worse::Decrease, 0.1, direction)).unwrap();
        let (mut worse, mut not_worse) = (test(Direction::Worse), test(Direction::NotWorse));
        for _ in 0..60 {
            worse.push(80.0 + random.normal(), 100.0);
            not_worse.push(99.0 + random.normal(), 100.0);
        }
        assert!(worse.log_e() > 100.0_f64.ln());
        assert!(not_worse.log_e() > 100.0_f64.ln());
    }

    /// Hit ratios, backlogs and the like touch zero; a ratio to nothing is no number.
    #[test]
    fn zeros_and_gaps_do_no_harm() {
        let mut ratios = test(0.1, Direction::Worse);
        for point in [
            (1.0, 1.0),
            (1.1, 1.0),
            (0.9, 1.0),
            (0.0, 1.0),
            (1.0, 0.0),
            (0.0, 0.0),
        ] {
            ratios.push(point.0, point.1);
            assert!(ratios.log_e().is_finite());
        }
        let before = (ratios.log_e(), ratios.points());
        ratios.push(f64::NAN, 1.0);
        ratios.push(1.0, f64::INFINITY);
        assert_eq!((ratios.log_e(), ratios.points()), before);
        let mut equal = test(0.0, Direction::Worse);
        for _ in 0..100 {
            equal.push(7.0, 7.0);
        }
        assert!(equal.log_e() <= 0.0, "{}", equal.log_e());
    }

    #[test]
    fn parameters_are_checked() {
        for (relative, absolute) in [(-0.1, 0.0), (101.0, 0.0), (0.1, f64::NAN), (0.0, -1.0)] {
            let params = MeanTestParams {
                absolute,
                ..params(Worse::Increase, relative, Direction::Worse)
            };
            assert!(MeanTest::new(params).is_err());
        }
    }

    #[test]
    fn correlation_is_found_where_it_is() {
        let mut random = Random::new(3);
        let mut found = |rho| correlation(&autoregressive(&mut random, 2000, rho)).unwrap();
        assert!(found(0.0).abs() < 0.08 && (found(0.7) - 0.7).abs() < 0.08);
        assert_eq!(correlation(&[1.0; 9]), None);
        assert_eq!(correlation(&[1.0, 2.0]), None);
    }

    proptest! {
        #[test]
        fn any_points_have_finite_evidence(
            points in prop::collection::vec((any::<f64>(), any::<f64>()), 0..40),
            relative in 0.0_f64..3.0, is_increase in any::<bool>(), is_worse in any::<bool>(),
        ) {
            let mut test = MeanTest::new(params(
                if is_increase { Worse::Increase } else { Worse::Decrease },
                relative,
                if is_worse { Direction::Worse } else { Direction::NotWorse },
            )).unwrap();
            for (candidate, baseline) in points {
                test.push(candidate, baseline);
                prop_assert!(test.log_e().is_finite());
            }
            prop_assert!(test.log_e_max() >= test.log_e());
        }

        #[test]
        fn the_unit_does_not_matter(
            points in prop::collection::vec((0.1_f64..9.0, 0.1_f64..9.0), 5..40),
            power in -20i32..20,
        ) {
            let run = |unit: f64| {
                let mut test = test(0.1, Direction::Worse);
                for (candidate, baseline) in &points {
                    test.push(candidate * unit, baseline * unit);
                }
                test.log_e()
            };
            prop_assert!((run(1.0) - run(2.0_f64.powi(power))).abs() < 1e-6);
        }
    }
}
