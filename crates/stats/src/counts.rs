//! Is the candidate's event rate worse than tolerated? Two counters, looked at as often as you
//! like.
//!
//! The tolerance is the line `p_C = ratio * p_B + difference`. [`Direction::Worse`] gathers
//! evidence against "`p_C` is at or below the line", [`Direction::NotWorse`] against "at or above
//! it". Each [`CountTest::push`] multiplies in one block of time; see [`crate::kernel`] for a
//! block's worth and [`crate::mixture`] for the bet on many sizes of change.
//!
//! **What is promised.** If the null holds in every block, `log_e` ever reaches `ln(1/α)` with
//! probability at most α. Rates may drift from block to block, traffic may shift between the sides
//! (every block is judged by its own share: counts are never pooled across shares), and one may
//! look after every block. The promise needs independent requests; where errors come in bursts it
//! rests on the dispersion given (see [`crate::dispersion`]). For weighted (sampled) counts give
//! at least the largest weight as dispersion: one observed event then stands for that many.
//!
//! **No data.** A block without candidate or without baseline requests says nothing: `log_e`
//! stays. At the start `log_e` is 0. Nothing is learnt from a block before it is judged.
//!
//! **With an absolute difference** a tilt is a multiple of the larger of the tolerated ratio's
//! rate and the difference, not of their sum, and tilts that would fall below the line are held
//! at 1, which bets nothing. The baseline's rate used for this is that of past blocks.
//!
//! **A regression that starts late** has to make up for what the bets lost before: the evidence
//! for "worse" falls while the candidate is fine, the faster the further it is below the line. See
//! [`CountTest::with_late_onset`].

use crate::kernel::BlockError;
use crate::kernel::CountBlock;
use crate::kernel::Tolerance;
use crate::mixture::Direction;
use crate::mixture::Mixture;
use crate::mixture::RATE_NOT_WORSE;
use crate::mixture::RATE_WORSE;
use crate::mixture::Setting;

/// What a [`CountTest`] tolerates, and which way it looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CountTestParams {
    /// Tolerated ratio of the candidate's rate to the baseline's, from 1 to 1,000.
    pub ratio: f64,
    /// Tolerated absolute difference of rates (0.001 is a tenth of a percentage point), from 0
    /// to 1.
    pub difference: f64,
    /// How much more the counts vary than independent requests would, from 1 to 1e6.
    pub dispersion: f64,
    /// Whether to gather evidence for a fail or for a pass.
    pub direction: Direction,
}

/// A test's parameter is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{field}: expected a number from {low} to {high}, found {found}")]
pub struct ParamError {
    /// The parameter's name.
    pub field: &'static str,
    /// The smallest value allowed.
    pub low: f64,
    /// The largest value allowed.
    pub high: f64,
    /// The value given.
    pub found: f64,
}

impl ParamError {
    pub(crate) fn check(
        field: &'static str,
        found: f64,
        low: f64,
        high: f64,
    ) -> Result<(), ParamError> {
        if (low..=high).contains(&found) {
            return Ok(());
        }
        Err(ParamError {
            field,
            low,
            high,
            found,
        })
    }
}

/// The largest dispersion a test accepts.
pub(crate) const DISPERSION_MAX: f64 = 1e6;

impl CountTestParams {
    pub(crate) fn check(&self) -> Result<(), ParamError> {
        ParamError::check("ratio", self.ratio, 1.0, 1000.0)?;
        ParamError::check("difference", self.difference, 0.0, 1.0)?;
        ParamError::check("dispersion", self.dispersion, 1.0, DISPERSION_MAX)
    }

    pub(crate) fn mixture(&self) -> Mixture {
        Mixture::new(match self.direction {
            Direction::Worse => &RATE_WORSE,
            Direction::NotWorse => &RATE_NOT_WORSE,
        })
    }

    /// The setting of a block before which the baseline's rate is judged to be `baseline_rate`,
    /// with `extra` tolerated difference in this block alone.
    pub(crate) fn setting(&self, baseline_rate: f64, extra: f64) -> Setting {
        let tolerance = Tolerance {
            ratio: self.ratio,
            difference: self.difference + extra,
        };
        let relative = self.ratio * baseline_rate;
        let tilt_scale = match self.direction {
            Direction::Worse if tolerance.difference > 0.0 => {
                relative.max(self.difference) / (relative + tolerance.difference)
            }
            _ => 1.0,
        };
        Setting {
            tolerance,
            baseline_rate,
            tilt_scale,
            dispersion: self.dispersion,
        }
    }
}

/// An anytime-valid one-sided test of two event counts with unequal, changing exposure.
#[derive(Clone, Debug)]
pub struct CountTest {
    params: CountTestParams,
    mixture: Mixture,
    baseline: RecentRate,
    log_e: f64,
    log_e_max: f64,
}

impl CountTest {
    /// A test without evidence.
    ///
    /// # Errors
    /// Names the parameter that is out of its range.
    pub fn new(params: CountTestParams) -> Result<CountTest, ParamError> {
        params.check()?;
        Ok(CountTest {
            params,
            mixture: params.mixture(),
            baseline: RecentRate::default(),
            log_e: 0.0,
            log_e_max: 0.0,
        })
    }

    /// Sets aside `weight` of the bet, from 0.01 to 0.9, for a change that begins in one of the
    /// blocks that follow; a quarter is a good choice. It costs little at the start and saves most
    /// of what a late regression would have to win back. How time is cut into blocks then matters a
    /// little.
    ///
    /// # Errors
    /// Names the range.
    pub fn with_late_onset(mut self, weight: f64) -> Result<CountTest, ParamError> {
        ParamError::check("weight", weight, 0.01, 0.9)?;
        self.mixture.expect_late_onset(weight);
        Ok(self)
    }

    /// Takes in the next block of time.
    ///
    /// # Errors
    /// Names the count that can't be one; the test is then unchanged.
    pub fn push(&mut self, block: &CountBlock) -> Result<(), BlockError> {
        self.push_tolerating(block, 0.0)
    }

    /// Changes the dispersion for the blocks that follow. The promise holds as long as it was
    /// chosen from data before them.
    ///
    /// # Errors
    /// Names the range; the test is then unchanged.
    pub fn set_dispersion(&mut self, dispersion: f64) -> Result<(), ParamError> {
        let params = CountTestParams {
            dispersion,
            ..self.params
        };
        params.check()?;
        self.params = params;
        Ok(())
    }

    /// The logarithm of the evidence now; 0 is none, negative speaks for the null.
    pub fn log_e(&self) -> f64 {
        self.log_e
    }

    /// The logarithm of the highest evidence so far, at least 0. Deciding at the first moment it
    /// reaches `ln(1/α)` errs with probability at most α.
    pub fn log_e_max(&self) -> f64 {
        self.log_e_max
    }

    /// What the test tolerates.
    pub fn params(&self) -> &CountTestParams {
        &self.params
    }

    /// Takes in the next block of time, tolerating `extra` on top of the difference in this block
    /// alone. The promise holds as long as it was chosen before the block was seen.
    ///
    /// # Errors
    /// Names the count that can't be one; the test is then unchanged.
    pub fn push_tolerating(&mut self, block: &CountBlock, extra: f64) -> Result<(), BlockError> {
        let block = block.checked()?;
        if block.is_comparable() {
            let setting = self.params.setting(self.baseline.rate(), extra);
            self.mixture.push(&block, &setting);
            self.log_e = self.mixture.log_e();
            self.log_e_max = self.log_e_max.max(self.log_e);
        }
        self.baseline
            .add(block.baseline_events, block.baseline_total);
        Ok(())
    }
}

/// The baseline's rate in the recent past, shrunk to 0.1 % while little is known.
#[derive(Clone, Debug, Default)]
struct RecentRate {
    events: f64,
    total: f64,
}

impl RecentRate {
    /// Beyond this many events the older half is forgotten, so that the rate follows the day.
    const EVENTS_KEPT: f64 = 400.0;

    fn rate(&self) -> f64 {
        (self.events + 0.5) / (self.total + 500.0)
    }

    fn add(&mut self, events: f64, total: f64) {
        self.events += events;
        self.total += total;
        if self.events > Self::EVENTS_KEPT {
            let keep = 0.5 * Self::EVENTS_KEPT / self.events;
            self.events *= keep;
            self.total *= keep;
        }
    }
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

    fn test(ratio: f64, difference: f64, dispersion: f64, direction: Direction) -> CountTest {
        CountTest::new(CountTestParams {
            ratio,
            difference,
            dispersion,
            direction,
        })
        .expect("valid parameters")
    }

    fn trace(test: &mut CountTest, blocks: &[(CountBlock, f64)]) -> Vec<f64> {
        blocks
            .iter()
            .map(|(block, extra)| {
                test.push_tolerating(block, *extra).expect("valid block");
                test.log_e()
            })
            .collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!(
                (f - e).abs() < 1e-9,
                "found {found:?}, expected {expected:?}"
            );
        }
    }

    fn ramp() -> [CountBlock; 3] {
        [
            block(7.0, 300.0, 12.0, 5700.0),
            block(5.0, 3000.0, 20.0, 27000.0),
            block(40.0, 15000.0, 11.0, 15000.0),
        ]
    }

    #[test]
    fn worse_has_the_known_values_along_a_ramp() {
        let blocks = ramp().map(|block| (block, 0.0));
        assert_close(
            &trace(&mut test(1.1, 0.0, 1.0, Direction::Worse), &blocks),
            &[6.253198093445325, 5.4520106934274954, 12.667291795647355],
        );
        assert_close(
            &trace(&mut test(1.1, 0.0, 3.0, Direction::Worse), &blocks),
            &[1.6790458875088858, 1.5010887798982817, 3.765496040487789],
        );
    }

    #[test]
    fn a_tolerance_that_decays_has_the_known_values() {
        let [first, second, third] = ramp();
        let blocks = [(first, 0.0499), (second, 0.0199), (third, 0.0)];
        let mut test = test(1.1, 0.0001, 1.0, Direction::Worse);
        // The tolerated rate of the first two blocks is above 2 %: there the adaptive half uses
        // another kernel, so only the rare half is comparable with the published figures.
        let found: Vec<f64> = blocks
            .iter()
            .map(|(block, extra)| {
                test.push_tolerating(block, *extra).expect("valid block");
                test.mixture.rare_log_e()
            })
            .collect();
        assert_close(
            &found,
            &[
                -0.15394427023665314,
                -0.27938218788241764,
                5.685033367937026,
            ],
        );
    }

    #[test]
    fn not_worse_has_the_known_values() {
        let blocks = [
            (block(0.0, 300.0, 6.0, 5700.0), 0.0),
            (block(1.0, 3000.0, 30.0, 27000.0), 0.0),
            (block(14.0, 15000.0, 15.0, 15000.0), 0.0),
        ];
        assert_close(
            &trace(&mut test(1.5, 0.001, 1.0, Direction::NotWorse), &blocks),
            &[0.4751222455814412, 4.546622446309679, 9.992704057838342],
        );
    }

    /// A baseline without a single error makes every multiple of its rate fall below the tolerated
    /// difference. A test that bets on multiples of that rate alone never sees a crash.
    #[test]
    fn a_spotless_baseline_does_not_blind_the_test() {
        let mut test = test(1.25, 0.001, 1.0, Direction::Worse);
        for _ in 0..50 {
            test.push(&block(0.0, 1_000.0, 0.0, 100_000.0))
                .expect("valid");
        }
        test.push(&block(300.0, 1_000.0, 0.0, 100_000.0))
            .expect("valid");
        assert!(test.log_e() > 100.0, "{}", test.log_e());
    }

    /// 1 % share at 0.1 %, then 50 % share at 1 %, no difference between versions: pooled counts
    /// show a ratio of 2.4.
    #[test]
    fn a_ramp_during_an_incident_is_not_blamed_on_the_version() {
        let mut worse = test(1.1, 0.0, 1.0, Direction::Worse);
        worse.push(&block(0.1, 100.0, 9.9, 9_900.0)).expect("valid");
        worse
            .push(&block(50.0, 5_000.0, 50.0, 5_000.0))
            .expect("valid");
        assert!(worse.log_e() < 0.0, "{}", worse.log_e());
    }

    /// An hour of looks every ten seconds, the second half of it with ten times the errors.
    #[test]
    fn a_regression_that_starts_late_is_seen_soon() {
        let new = || test(1.25, 0.001, 1.0, Direction::Worse);
        let delay = |mut test: CountTest| {
            for _ in 0..180 {
                test.push(&block(0.05, 50.0, 0.95, 950.0)).expect("valid");
            }
            let bad = block(0.5, 50.0, 0.95, 950.0);
            (1..=180).find(|_| {
                test.push(&bad).expect("valid");
                test.log_e() >= 100.0_f64.ln()
            })
        };
        let patient = delay(new()).expect("seen in the end");
        let prepared = delay(new().with_late_onset(0.25).expect("valid weight"));
        let prepared = prepared.expect("seen");
        assert!(
            3 * prepared < 2 * patient,
            "{prepared} blocks, {patient} without"
        );
    }

    #[test]
    fn no_requests_on_a_side_is_no_evidence() {
        for direction in [Direction::Worse, Direction::NotWorse] {
            let mut test = test(1.1, 0.001, 1.0, direction);
            test.push(&block(3.0, 100.0, 1.0, 100.0)).expect("valid");
            let before = test.log_e();
            test.push(&block(0.0, 0.0, 5.0, 1_000.0)).expect("valid");
            test.push(&block(5.0, 1_000.0, 0.0, 0.0)).expect("valid");
            test.push(&CountBlock::default()).expect("valid");
            assert_eq!(test.log_e(), before);
        }
    }

    #[test]
    fn more_events_than_requests_count_as_requests() {
        let mut torn = test(1.1, 0.0, 1.0, Direction::Worse);
        torn.push(&block(12.0, 10.0, 1.0, 1_000.0)).expect("valid");
        let mut whole = test(1.1, 0.0, 1.0, Direction::Worse);
        whole.push(&block(12.0, 12.0, 1.0, 1_000.0)).expect("valid");
        assert_eq!(torn.log_e(), whole.log_e());
    }

    #[test]
    fn what_is_no_count_is_refused_by_name() {
        let mut test = test(1.1, 0.0, 1.0, Direction::Worse);
        let error = test
            .push(&block(1.0, -1.0, 0.0, 1.0))
            .expect_err("negative");
        assert_eq!(
            error.to_string(),
            "candidate_total: expected a count from 0 to 1e15, found -1"
        );
        assert!(test.push(&block(f64::NAN, 1.0, 0.0, 1.0)).is_err());
        assert!(test.push(&block(0.0, 1.0, 0.0, f64::INFINITY)).is_err());
        assert_eq!(test.log_e(), 0.0);
        let error = test.set_dispersion(0.5).expect_err("below 1");
        assert_eq!(
            error.to_string(),
            "dispersion: expected a number from 1 to 1000000, found 0.5"
        );
    }

    /// Two identical versions, looked at after every block: the chance that the evidence for
    /// "worse" or "not worse" ever reaches 1/α is at most α, at rare and at common rates.
    #[test]
    fn looking_often_raises_no_false_alarms() {
        let (alpha, runs) = (0.1_f64, 400);
        for (seed, rate) in [(1, 0.002), (2, 0.03), (3, 0.2)] {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            for direction in [Direction::Worse, Direction::NotWorse] {
                let mut alarms = 0;
                for run in 0..runs {
                    let mut test = test(1.2, 0.0, 1.0, direction);
                    if run % 2 == 0 {
                        test = test.with_late_onset(0.25).expect("valid weight");
                    }
                    for _ in 0..40 {
                        let candidate = binomial(&mut rng, 200, 1.2 * rate);
                        let baseline = binomial(&mut rng, 1_000, rate);
                        test.push(&block(candidate, 200.0, baseline, 1_000.0))
                            .expect("valid");
                    }
                    alarms += u32::from(test.log_e_max() >= (1.0 / alpha).ln());
                }
                let limit = upper_alarm_limit(runs, alpha);
                assert!(
                    alarms <= limit,
                    "{alarms} of {runs} at {rate}, {direction:?}"
                );
            }
        }
    }

    fn counts() -> impl Strategy<Value = f64> {
        prop_oneof![
            Just(0.0),
            0.0..10.0_f64,
            (0_u32..100_000).prop_map(f64::from),
            -320.0..14.9_f64,
        ]
        .prop_map(|x: f64| if x < 0.0 { 10.0_f64.powf(x) } else { x })
    }

    fn any_block() -> impl Strategy<Value = CountBlock> {
        (counts(), counts(), counts(), counts()).prop_map(|(a, b, c, d)| block(a, b, c, d))
    }

    fn any_params() -> impl Strategy<Value = CountTestParams> {
        (
            1.0..3.0_f64,
            prop_oneof![Just(0.0), 1e-6..1.0_f64],
            1.0..20.0_f64,
            prop_oneof![Just(Direction::Worse), Just(Direction::NotWorse)],
        )
            .prop_map(
                |(ratio, difference, dispersion, direction)| CountTestParams {
                    ratio,
                    difference,
                    dispersion,
                    direction,
                },
            )
    }

    proptest! {
        #[test]
        fn evidence_is_always_a_number(
            params in any_params(),
            blocks in proptest::collection::vec(any_block(), 1..20),
            late in any::<bool>(),
        ) {
            let mut test = CountTest::new(params).expect("valid parameters");
            if late {
                test = test.with_late_onset(0.25).expect("valid weight");
            }
            for block in &blocks {
                test.push(block).expect("valid block");
                prop_assert!(test.log_e().is_finite(), "{:?}", test);
                prop_assert!(test.log_e_max() >= test.log_e().max(0.0));
            }
        }

        /// Within one share and without a difference, how time is cut makes no difference.
        #[test]
        fn splitting_a_block_changes_nothing(
            n_c in 1.0..1e4_f64, n_b in 1.0..1e5_f64,
            rate_c in 0.0..0.01_f64, rate_b in 0.0..0.01_f64,
            cut in 0.01..0.99_f64, worse in any::<bool>(),
        ) {
            let direction = if worse { Direction::Worse } else { Direction::NotWorse };
            let whole = block(n_c * rate_c, n_c, n_b * rate_b, n_b);
            let part = |f: f64| block(f * n_c * rate_c, f * n_c, f * n_b * rate_b, f * n_b);
            let mut once = test(1.2, 0.0, 1.0, direction);
            once.push(&whole).expect("valid");
            let mut twice = test(1.2, 0.0, 1.0, direction);
            twice.push(&part(cut)).expect("valid");
            twice.push(&part(1.0 - cut)).expect("valid");
            prop_assert!((once.log_e() - twice.log_e()).abs() < 1e-7);
        }

        #[test]
        fn more_candidate_errors_are_more_evidence(
            params in any_params(),
            past in proptest::collection::vec(any_block(), 0..4),
            n_c in 10.0..1e4_f64, n_b in 10.0..1e4_f64,
            share in 0.0..0.5_f64, more in 1.01..2.0_f64, rate in 0.0..0.5_f64,
        ) {
            let mut fewer = CountTest::new(params).expect("valid parameters");
            for block in &past {
                fewer.push(block).expect("valid");
            }
            let mut rest = fewer.clone();
            fewer.push(&block(share * n_c, n_c, rate * n_b, n_b)).expect("valid");
            rest.push(&block(more * share * n_c, n_c, rate * n_b, n_b)).expect("valid");
            let slack = 1e-9 * (1.0 + rest.log_e().abs());
            match params.direction {
                Direction::Worse => prop_assert!(rest.log_e() >= fewer.log_e() - slack),
                Direction::NotWorse => prop_assert!(rest.log_e() <= fewer.log_e() + slack),
            }
        }

        /// One block can't prove both that the candidate is worse and that it is not.
        #[test]
        fn the_two_directions_never_both_win(
            ratio in 1.0..2.0_f64, block in any_block(),
        ) {
            let mut worse = test(ratio, 0.0, 1.0, Direction::Worse);
            let mut not_worse = test(ratio, 0.0, 1.0, Direction::NotWorse);
            worse.push(&block).expect("valid");
            not_worse.push(&block).expect("valid");
            prop_assert!(worse.log_e() <= 1e-9 || not_worse.log_e() <= 1e-9);
        }
    }
}
