//! Is the candidate slower than tolerated? A sequential test on histogram buckets.
//!
//! "No slower than `1+x` times the baseline" means that for every `v` the share of candidate
//! requests above `(1+x) v` is at most the share of baseline requests above `v`. So the test
//! counts exceedances: baseline requests above a bucket boundary `v` near the baseline's own past
//! quantile, candidate requests above a boundary `u` near `(1+x) v`, and compares the two shares
//! as [`crate::counts`] compares error rates. It names no distribution, needs no raw latencies,
//! and the thresholds come from blocks before the one judged, so looking often costs nothing.
//!
//! **When `(1+x) v` is a boundary** (exponential buckets, `1+x` a whole number of them) the
//! comparison is exact. **When it falls inside a bucket no wider than 5 %** (schema 4 and finer),
//! `u` is the boundary on the cautious side, which rounds the tolerance up to a whole number of
//! buckets for [`Direction::Worse`] and down for [`Direction::NotWorse`]: still exact, for a
//! tolerance up to 4.4 % off at schema 4. **When it falls inside a wider bucket** the boundary
//! below it is used, and the tolerated share is multiplied by `f^κ`, where `f` is what is missing
//! to `(1+x) v` and κ the baseline's tail slope `-d ln S / d ln v` in past blocks, taken above
//! `v` for `Worse` and below `v` for `NotWorse`. For tails whose slope grows (exponential,
//! lognormal, gamma, Weibull) or stays (Pareto) both err on the cautious side; a baseline whose
//! latencies cluster inside one wide bucket can break it. Such buckets can't tell.
//!
//! **Several quantiles** each run their own test; their average is the evidence.
//!
//! **At the start** the thresholds are unknown: the first block teaches and is no evidence, unless
//! [`ExceedanceTest::learn`] was given the baseline's history. A quantile takes part once the past
//! holds enough requests to place it. **Boundaries that change** make exponential histograms as
//! coarse as the coarsest seen, and explicit ones start learning again; the evidence so far
//! stands.
//!
//! **What it does not cover**: differences between instances. A candidate instance on a slow
//! machine is slower than tolerated; see [`crate::dispersion`].

use crate::buckets::Boundaries;
use crate::buckets::BucketCounts;
use crate::buckets::BucketTotals;
use crate::buckets::Rescaled;
use crate::counts::DISPERSION_MAX;
use crate::counts::ParamError;
use crate::kernel::BlockError;
use crate::kernel::CountBlock;
use crate::kernel::Tolerance;
use crate::mixture::Direction;
use crate::mixture::Mixture;
use crate::mixture::ODDS_NOT_WORSE;
use crate::mixture::ODDS_WORSE;
use crate::mixture::Setting;
use crate::special::log_sum_exp;

/// What an [`ExceedanceTest`] tolerates, where it looks, and which way.
#[derive(Clone, Debug, PartialEq)]
pub struct ExceedanceTestParams {
    /// Tolerated relative slowdown: 0.1 is 10 % slower. From 0 to 100.
    pub worse_by_relative: f64,
    /// The baseline's quantiles at which to compare, each from 0.01 to 0.9999; 1 to 16 of them.
    pub quantiles: Vec<f64>,
    /// How much more exceedances vary than independent requests would, from 1 to 1e6.
    pub dispersion: f64,
    /// Whether to gather evidence for a fail or for a pass.
    pub direction: Direction,
}

/// One block of time: the buckets of both sides, in the same boundaries.
#[derive(Clone, Copy, Debug)]
pub struct BucketBlock<'a> {
    /// Where the buckets end, on both sides.
    pub boundaries: &'a Boundaries,
    /// The candidate's observations.
    pub candidate: BucketCounts<'a>,
    /// The baseline's observations.
    pub baseline: BucketCounts<'a>,
}

/// The finest exponential schema worked at: buckets of 1.1 %, less than any tolerance's precision.
const SCHEMA_MAX: i8 = 6;

/// The widest bucket, as a ratio of its bounds, inside which the tolerance is simply rounded.
const ROUNDED_WIDTH: f64 = 1.05;

/// Beyond this many baseline observations the older half is forgotten.
const PAST_KEPT: f64 = 50_000.0;

/// The steepest tail slope believed.
const SLOPE_MAX: f64 = 50.0;

/// An anytime-valid one-sided test of latency from bucket counts.
#[derive(Clone, Debug)]
pub struct ExceedanceTest {
    params: ExceedanceTestParams,
    past: Option<BucketTotals>,
    mixtures: Vec<Mixture>,
    log_e: f64,
    log_e_max: f64,
}

impl ExceedanceTest {
    /// A test without evidence.
    ///
    /// # Errors
    /// Names the parameter that is out of its range.
    pub fn new(params: ExceedanceTestParams) -> Result<ExceedanceTest, ParamError> {
        ParamError::check("worse_by_relative", params.worse_by_relative, 0.0, 100.0)?;
        ParamError::check("dispersion", params.dispersion, 1.0, DISPERSION_MAX)?;
        ParamError::check(
            "number of quantiles",
            params.quantiles.len() as f64,
            1.0,
            16.0,
        )?;
        for &quantile in &params.quantiles {
            ParamError::check("quantile", quantile, 0.01, 0.9999)?;
        }
        let mixture = Mixture::new(match params.direction {
            Direction::Worse => &ODDS_WORSE,
            Direction::NotWorse => &ODDS_NOT_WORSE,
        });
        Ok(ExceedanceTest {
            past: None,
            mixtures: vec![mixture; params.quantiles.len()],
            log_e: 0.0,
            log_e_max: 0.0,
            params,
        })
    }

    /// Sets aside `weight` of the bet, from 0.01 to 0.9, for a change that begins in one of the
    /// blocks that follow; a quarter is a good choice. It costs little at the start and saves most
    /// of what a late regression would have to win back. How time is cut into blocks then matters a
    /// little.
    ///
    /// # Errors
    /// Names the range.
    pub fn with_late_onset(mut self, weight: f64) -> Result<ExceedanceTest, ParamError> {
        ParamError::check("weight", weight, 0.01, 0.9)?;
        for mixture in &mut self.mixtures {
            mixture.expect_late_onset(weight);
        }
        Ok(self)
    }

    /// Learns the baseline's distribution from its history, without judging anything.
    ///
    /// # Errors
    /// Names what is wrong with the counts; the test is then unchanged.
    pub fn learn(
        &mut self,
        boundaries: &Boundaries,
        baseline: BucketCounts<'_>,
    ) -> Result<(), BlockError> {
        baseline.check(boundaries)?;
        let past = self.aligned_past(boundaries);
        past.add_aligned(Rescaled::new(boundaries, past.boundaries(), baseline).get())?;
        let total = past.counts().total();
        if total > PAST_KEPT {
            past.scale(0.5 * PAST_KEPT / total);
        }
        Ok(())
    }

    /// Takes in the next block of time.
    ///
    /// # Errors
    /// Names what is wrong with the counts; the evidence is then unchanged.
    pub fn push(&mut self, block: &BucketBlock<'_>) -> Result<(), BlockError> {
        block.candidate.check(block.boundaries)?;
        block.baseline.check(block.boundaries)?;
        let past = self.aligned_past(block.boundaries).clone();
        let candidate = Rescaled::new(block.boundaries, past.boundaries(), block.candidate);
        let baseline = Rescaled::new(block.boundaries, past.boundaries(), block.baseline);
        self.learn(block.boundaries, block.baseline)?;
        self.judge(&past, candidate.get(), baseline.get());
        Ok(())
    }

    /// Changes the dispersion for the blocks that follow. The promise holds as long as it was
    /// chosen from data before them.
    ///
    /// # Errors
    /// Names the range; the test is then unchanged.
    pub fn set_dispersion(&mut self, dispersion: f64) -> Result<(), ParamError> {
        ParamError::check("dispersion", dispersion, 1.0, DISPERSION_MAX)?;
        self.params.dispersion = dispersion;
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
    pub fn params(&self) -> &ExceedanceTestParams {
        &self.params
    }

    fn judge(
        &mut self,
        past: &BucketTotals,
        candidate: BucketCounts<'_>,
        baseline: BucketCounts<'_>,
    ) {
        let (candidate_total, baseline_total) = (candidate.total(), baseline.total());
        if candidate_total <= 0.0 || baseline_total <= 0.0 {
            return;
        }
        for (mixture, &quantile) in self.mixtures.iter_mut().zip(&self.params.quantiles) {
            let Some(threshold) = Threshold::from_past(past, quantile, &self.params) else {
                continue;
            };
            let block = CountBlock {
                candidate_total,
                candidate_events: candidate.above(threshold.candidate),
                baseline_total,
                baseline_events: baseline.above(threshold.baseline),
            };
            let setting = Setting {
                tolerance: Tolerance {
                    ratio: threshold.ratio,
                    difference: 0.0,
                },
                baseline_rate: threshold.baseline_rate,
                tilt_scale: 1.0,
                dispersion: self.params.dispersion,
            };
            mixture.push(&block, &setting);
        }
        let evidence = self.mixtures.iter().map(Mixture::log_e);
        self.log_e = log_sum_exp(evidence) - (self.mixtures.len() as f64).ln();
        self.log_e_max = self.log_e_max.max(self.log_e);
    }

    /// The past in boundaries that a block with these can be brought to.
    fn aligned_past(&mut self, boundaries: &Boundaries) -> &mut BucketTotals {
        let working = match boundaries.coarsened_to(SCHEMA_MAX) {
            Some(coarser) => coarser,
            None => boundaries.clone(),
        };
        let past = self
            .past
            .get_or_insert_with(|| BucketTotals::new(working.clone()));
        past.align(&working);
        past
    }
}

/// Where a block's exceedances are counted.
struct Threshold {
    /// The baseline's bucket above which requests count.
    baseline: i32,
    /// The candidate's.
    candidate: i32,
    /// How many times the baseline's share of exceedances is tolerated.
    ratio: f64,
    /// The baseline's share of exceedances in the past.
    baseline_rate: f64,
}

impl Threshold {
    fn from_past(
        past: &BucketTotals,
        quantile: f64,
        params: &ExceedanceTestParams,
    ) -> Option<Threshold> {
        let total = past.counts().total();
        if total < (2.0 / (1.0 - quantile)).max(10.0) {
            return None;
        }
        let baseline = nearest(past, 1.0 - quantile, params.direction)?;
        let (candidate, ratio) = tolerated(past, baseline, params)?;
        let above = past.counts().above(baseline);
        Some(Threshold {
            baseline,
            candidate,
            ratio,
            baseline_rate: (above + 0.5) / (total + 1.0),
        })
    }
}

/// The bucket above which the past share of observations is nearest `share`.
///
/// For a pass the share must not be 0: a candidate with no more exceedances than none proves
/// nothing, while one below a boundary that every baseline request exceeds proves much.
pub(crate) fn nearest(past: &BucketTotals, share: f64, direction: Direction) -> Option<i32> {
    let counts = past.counts();
    let total = counts.total();
    let first = counts.buckets.first()?.0.saturating_sub(1);
    // The last finite bound has no slope above it to carry a tolerance with.
    let end = past
        .boundaries()
        .overflow()
        .map(|overflow| (overflow - 1).max(1));
    let mut above = total - counts.below;
    let mut best: Option<(f64, i32)> = None;
    let mut consider = |index: i32, above: f64| {
        let upper = past.boundaries().upper(index);
        let usable = upper > 0.0 && upper.is_finite() && end.is_none_or(|end| index < end);
        let allowed = direction == Direction::Worse || above > 0.5;
        let distance = (above / total - share).abs();
        // Of equals the later: the boundary above a cluster, rather than the one below it.
        if usable && allowed && best.is_none_or(|(least, _)| distance <= least) {
            best = Some((distance, index));
        }
    };
    consider(first, above);
    for &(index, count) in counts.buckets {
        above = (above - count).max(0.0);
        consider(index, above);
    }
    best.map(|(_, index)| index)
}

/// The candidate's bucket for `baseline`, and the ratio of shares tolerated between the two.
fn tolerated(
    past: &BucketTotals,
    baseline: i32,
    params: &ExceedanceTestParams,
) -> Option<(i32, f64)> {
    let boundaries = past.boundaries();
    let start = boundaries.upper(baseline);
    let target = start * (1.0 + params.worse_by_relative);
    let low = boundaries.at_or_below(target).max(baseline);
    let reached = boundaries.upper(low);
    if reached >= target * (1.0 - 1e-9) {
        return Some((low, 1.0));
    }
    let high = low.checked_add(1)?;
    if boundaries.upper(high) <= reached * ROUNDED_WIDTH {
        match params.direction {
            Direction::Worse => return Some((high, 1.0)),
            Direction::NotWorse if low > baseline => return Some((low, 1.0)),
            Direction::NotWorse => {}
        }
    }
    let slope = match params.direction {
        Direction::Worse => tail_slope(past, baseline, baseline.checked_add(1)?)?,
        Direction::NotWorse => tail_slope(past, baseline.checked_sub(1)?, baseline).unwrap_or(0.0),
    };
    Some((low, (target / reached).powf(slope).clamp(1.0, 1000.0)))
}

/// `-Δ ln S / Δ ln v` between two bucket ends; `None` where they are not positive and finite.
fn tail_slope(past: &BucketTotals, from: i32, to: i32) -> Option<f64> {
    let (low, high) = (past.boundaries().upper(from), past.boundaries().upper(to));
    if low <= 0.0 || !high.is_finite() {
        return None;
    }
    let above = |index| past.counts().above(index) + 0.5;
    let slope = (above(from) / above(to)).ln() / (high / low).ln();
    Some(slope.clamp(0.0, SLOPE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::latency_buckets;
    use crate::testing::upper_alarm_limit;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn params(worse_by_relative: f64, direction: Direction) -> ExceedanceTestParams {
        ExceedanceTestParams {
            worse_by_relative,
            quantiles: vec![0.5, 0.95],
            dispersion: 1.0,
            direction,
        }
    }

    fn test(worse_by_relative: f64, direction: Direction) -> ExceedanceTest {
        ExceedanceTest::new(params(worse_by_relative, direction)).expect("valid parameters")
    }

    fn exponential(schema: i8) -> Boundaries {
        Boundaries::exponential(schema).expect("valid schema")
    }

    fn classic() -> Boundaries {
        let bounds = [
            5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4,
        ];
        Boundaries::explicit(&bounds).expect("valid bounds")
    }

    fn of(buckets: &[(i32, f64)]) -> BucketCounts<'_> {
        BucketCounts {
            below: 0.0,
            buckets,
        }
    }

    fn push(
        test: &mut ExceedanceTest,
        boundaries: &Boundaries,
        candidate: &[(i32, f64)],
        baseline: &[(i32, f64)],
    ) {
        test.push(&BucketBlock {
            boundaries,
            candidate: of(candidate),
            baseline: of(baseline),
        })
        .expect("valid block");
    }

    /// Blocks until the test decides at 1 %, `None` within `blocks`.
    fn run(
        rng: &mut ChaCha8Rng,
        test: &mut ExceedanceTest,
        boundaries: &Boundaries,
        slower: f64,
        blocks: u32,
    ) -> Option<u32> {
        (1..=blocks).find(|_| {
            let candidate = latency_buckets(rng, boundaries, 60, slower);
            let baseline = latency_buckets(rng, boundaries, 300, 1.0);
            push(test, boundaries, &candidate, &baseline);
            test.log_e_max() >= 100.0_f64.ln()
        })
    }

    #[test]
    fn a_candidate_half_slower_is_found_and_an_equal_one_passes() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for boundaries in [exponential(4), exponential(3), exponential(6), classic()] {
            let mut worse = test(0.1, Direction::Worse);
            let found = run(&mut rng, &mut worse, &boundaries, 1.6, 100);
            assert!(found.is_some(), "slower candidate missed in {boundaries:?}");
            let mut not_worse = test(0.3, Direction::NotWorse);
            let passed = run(&mut rng, &mut not_worse, &boundaries, 1.0, 300);
            assert!(
                passed.is_some(),
                "equal candidate not passed in {boundaries:?}"
            );
        }
    }

    /// At the very edge of what is tolerated, looked at after every block.
    #[test]
    fn looking_often_raises_no_false_alarms() {
        let (alpha, runs) = (0.1_f64, 150);
        for boundaries in [exponential(4), exponential(2), classic()] {
            for direction in [Direction::Worse, Direction::NotWorse] {
                let mut rng = ChaCha8Rng::seed_from_u64(7);
                let mut alarms = 0;
                for _ in 0..runs {
                    let mut test = test(0.15, direction)
                        .with_late_onset(0.25)
                        .expect("valid weight");
                    for _ in 0..15 {
                        let candidate = latency_buckets(&mut rng, &boundaries, 40, 1.15);
                        let baseline = latency_buckets(&mut rng, &boundaries, 160, 1.0);
                        push(&mut test, &boundaries, &candidate, &baseline);
                    }
                    alarms += u32::from(test.log_e_max() >= (1.0 / alpha).ln());
                }
                let limit = upper_alarm_limit(runs, alpha);
                assert!(
                    alarms <= limit,
                    "{alarms} alarms, {direction:?}, {boundaries:?}"
                );
            }
        }
    }

    #[test]
    fn the_first_block_teaches_and_is_no_evidence() {
        let boundaries = exponential(4);
        let (fast, slow) = ([(80, 100.0)], [(120, 100.0)]);
        let mut unlearnt = test(0.1, Direction::Worse);
        push(&mut unlearnt, &boundaries, &slow, &fast);
        assert_eq!(unlearnt.log_e(), 0.0);
        let mut learnt = test(0.1, Direction::Worse);
        learnt.learn(&boundaries, of(&fast)).expect("valid");
        push(&mut learnt, &boundaries, &slow, &fast);
        assert!(learnt.log_e() > 10.0, "{}", learnt.log_e());
    }

    /// All of the baseline in one bucket: its quantiles sit at the bucket's end, where nothing of
    /// the baseline exceeds them.
    #[test]
    fn constant_latencies_can_fail_and_pass() {
        let boundaries = exponential(4);
        let constant = [(100, 500.0)];
        let mut worse = test(0.1, Direction::Worse);
        let mut equal = test(0.1, Direction::Worse);
        let mut not_worse = test(0.1, Direction::NotWorse);
        for _ in 0..3 {
            push(&mut worse, &boundaries, &[(104, 100.0)], &constant);
            push(&mut equal, &boundaries, &[(100, 100.0)], &constant);
            push(&mut not_worse, &boundaries, &[(100, 100.0)], &constant);
        }
        assert!(worse.log_e() > 20.0, "{}", worse.log_e());
        assert!(equal.log_e() <= 0.0, "{}", equal.log_e());
        assert!(not_worse.log_e() > 20.0, "{}", not_worse.log_e());
    }

    #[test]
    fn tolerances_are_rounded_to_the_cautious_side() {
        let mut past = BucketTotals::new(exponential(4));
        past.add_aligned(of(&[(90, 500.0), (95, 450.0), (99, 50.0)]))
            .expect("valid");
        let at = |tolerance, direction| {
            tolerated(&past, 95, &params(tolerance, direction)).expect("has a threshold")
        };
        let four = 4.0_f64 / 16.0;
        assert_eq!(at(four.exp2() - 1.0, Direction::Worse), (99, 1.0));
        assert_eq!(at(four.exp2() - 1.0, Direction::NotWorse), (99, 1.0));
        assert_eq!(at(0.1, Direction::Worse), (98, 1.0));
        assert_eq!(at(0.1, Direction::NotWorse), (97, 1.0));
        assert_eq!(at(0.0, Direction::Worse), (95, 1.0));
    }

    #[test]
    fn a_tolerance_inside_a_wide_bucket_is_carried_by_the_tail_slope() {
        // Share above 50, 100, 250: 0.5, 0.25, 0.04 of 100,000: slopes 1 and 2.
        let boundaries = Boundaries::explicit(&[50.0, 100.0, 250.0]).expect("valid");
        let mut past = BucketTotals::new(boundaries);
        past.add_aligned(of(&[
            (0, 50_000.0),
            (1, 25_000.0),
            (2, 21_000.0),
            (3, 4_000.0),
        ]))
        .expect("valid");
        let ratio = |direction| {
            let (candidate, ratio) =
                tolerated(&past, 1, &params(0.2, direction)).expect("has a threshold");
            assert_eq!(candidate, 1);
            ratio
        };
        assert!((ratio(Direction::Worse) - 1.2_f64.powi(2)).abs() < 1e-3);
        assert!((ratio(Direction::NotWorse) - 1.2).abs() < 1e-3);
    }

    #[test]
    fn histograms_that_get_coarser_go_on_being_compared() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut test = test(0.1, Direction::Worse);
        run(&mut rng, &mut test, &exponential(5), 1.0, 3);
        run(&mut rng, &mut test, &exponential(2), 1.0, 3);
        let before = test.log_e();
        let past = test.past.as_ref().expect("learnt");
        assert_eq!(past.boundaries(), &exponential(2));
        assert_eq!(past.counts().total(), 6.0 * 300.0);
        run(&mut rng, &mut test, &classic(), 1.0, 1);
        assert_eq!(
            test.log_e(),
            before,
            "new boundaries have to be learnt first"
        );
    }

    #[test]
    fn what_is_no_histogram_is_refused_by_name() {
        let mut test = test(0.1, Direction::Worse);
        let boundaries = classic();
        let error = test
            .learn(&boundaries, of(&[(3, 1.0), (3, 1.0)]))
            .expect_err("twice");
        assert_eq!(
            error.to_string(),
            "bucket 3: expected an index above the one before it"
        );
        let error = test
            .learn(&boundaries, of(&[(12, 1.0)]))
            .expect_err("beyond");
        assert_eq!(
            error.to_string(),
            "bucket 12: expected an index from 0 to 11, the one above the last bound"
        );
        assert!(test.learn(&boundaries, of(&[(1, f64::NAN)])).is_err());
        assert!(test.learn(&boundaries, of(&[(1, -1.0)])).is_err());
    }

    fn any_buckets() -> impl Strategy<Value = Vec<(i32, f64)>> {
        let count = prop_oneof![Just(0.0), 0.0..1e14_f64, 0.0..100.0_f64];
        let index = prop_oneof![0..12_i32, Just(i32::MIN), Just(i32::MAX), -2000..2000_i32];
        proptest::collection::btree_map(index, count, 0..8)
            .prop_map(|buckets| buckets.into_iter().collect())
    }

    proptest! {
        /// One candidate request moved to a higher bucket never speaks for the candidate.
        #[test]
        fn slower_requests_are_never_less_evidence(
            mut candidate in proptest::collection::vec(0_u32..20, 20..21),
            from in 0_usize..19, up in 1_usize..19, worse in any::<bool>(), seed in 0_u64..50,
        ) {
            let direction = if worse { Direction::Worse } else { Direction::NotWorse };
            let boundaries = exponential(4);
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let baseline = latency_buckets(&mut rng, &boundaries, 500, 1.0);
            let mut evidence = || {
                let mut test = test(0.1, direction);
                test.learn(&boundaries, of(&baseline)).expect("valid");
                // Around the median and the 95th percentile of the baseline.
                let buckets: Vec<_> = (85..)
                    .step_by(3)
                    .zip(candidate.iter().map(|count| f64::from(*count)))
                    .collect();
                push(&mut test, &boundaries, &buckets, &baseline);
                let to = (from + up).min(19);
                let moved = candidate[from].min(1);
                candidate[from] -= moved;
                candidate[to] += moved;
                test.log_e()
            };
            let (before, after) = (evidence(), evidence());
            match direction {
                Direction::Worse => prop_assert!(after >= before - 1e-9),
                Direction::NotWorse => prop_assert!(after <= before + 1e-9),
            }
        }

        #[test]
        fn evidence_is_always_a_number(
            blocks in proptest::collection::vec((any_buckets(), any_buckets(), -4..=8_i8), 1..8),
            below in 0.0..1e6_f64, x in 0.0..100.0_f64, worse in any::<bool>(),
            explicit in any::<bool>(),
        ) {
            let direction = if worse { Direction::Worse } else { Direction::NotWorse };
            let mut test = test(x, direction);
            for (candidate, baseline, schema) in &blocks {
                let boundaries = if explicit { classic() } else { exponential(*schema) };
                let block = BucketBlock {
                    boundaries: &boundaries,
                    candidate: BucketCounts { below, buckets: candidate },
                    baseline: BucketCounts { below, buckets: baseline },
                };
                let before = test.log_e();
                if test.push(&block).is_err() {
                    prop_assert_eq!(test.log_e(), before);
                }
                prop_assert!(test.log_e().is_finite(), "{:?}", test);
            }
        }
    }
}
