//! When did it change? Detectors that never stop watching.
//!
//! A test of a rollout begins with the rollout. A service is watched for ever, and what matters
//! then is how long it takes until the first false alarm, and how soon after a change a true one
//! comes. An *e-detector* is a running figure `M` built from e-values of single blocks such that
//! an alarm at `M ≥ 1/α` comes, while nothing is wrong, after `1/α` blocks on average or later, for
//! any α at once (Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential
//! change detection", NEJSDS 2024):
//!
//! ```text
//! Shiryaev and Roberts   M_t = e_t (M_{t-1} + 1)       every possible start, summed
//! CUSUM                  M_t = e_t max(M_{t-1}, 1)     the start that fits best
//! ```
//!
//! CUSUM also says since when; Shiryaev and Roberts' is the larger of the two and a little faster.
//! Both start over by themselves: a long good time costs nothing, unlike in a test. After an alarm
//! call [`Detector::restart`].
//!
//! - [`Detector`] takes e-values from anywhere;
//! - [`RateDetector`] watches one stream of counts against a tolerated rate, betting on many sizes
//!   of change at once, with `ln e = x ln r - n p_0 (r-1)` for "at most `p_0`";
//! - [`LateOnset`] makes a test, not a detector, of e-values: it keeps a part of the stake for
//!   changes that begin at one of a few moments later on, and stays an e-process, so that `1/α` is
//!   ever reached with probability at most α.
//!
//! A block without requests has an e-value of 1 and changes nothing but the count of blocks.

use crate::counts::DISPERSION_MAX;
use crate::counts::ParamError;
use crate::kernel::BlockError;
use crate::kernel::check_count;
use crate::mixture::RATE_WORSE;
use crate::special::log_add_exp;
use crate::special::log_sum_exp;

/// How possible starts of a change are taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Starts {
    /// The sum over all of them (Shiryaev and Roberts).
    All,
    /// The best of them (CUSUM).
    Best,
}

/// A running figure that is large when something has changed.
#[derive(Clone, Copy, Debug)]
pub struct Detector {
    starts: Starts,
    log_value: f64,
    blocks: u64,
    began: u64,
}

impl Detector {
    /// A detector that has seen nothing.
    pub fn new(starts: Starts) -> Detector {
        Detector {
            starts,
            log_value: f64::NEG_INFINITY,
            blocks: 0,
            began: 0,
        }
    }

    /// Takes in the logarithm of the next block's e-value. One that is not a number counts as 0.
    pub fn push(&mut self, log_e: f64) {
        let log_e = if log_e.is_nan() { 0.0 } else { log_e };
        let carried = match self.starts {
            Starts::All => log_add_exp(self.log_value, 0.0),
            Starts::Best => self.log_value.max(0.0),
        };
        if self.log_value <= 0.0 {
            self.began = self.blocks;
        }
        self.blocks += 1;
        self.log_value = log_e + carried;
    }

    /// The logarithm of the figure. An alarm at `ln k` comes after `k` blocks on average, or later,
    /// while nothing is wrong.
    pub fn log_value(&self) -> f64 {
        self.log_value
    }

    /// Blocks taken in before the change, if there is one: the last time the figure was at most
    /// 1. The blocks since are those it rests on.
    pub fn began(&self) -> u64 {
        self.began
    }

    /// Blocks taken in.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Forgets all evidence, as after an alarm; the count of blocks goes on.
    pub fn restart(&mut self) {
        self.log_value = f64::NEG_INFINITY;
        self.began = self.blocks;
    }
}

/// A detector on one stream of counts: "more than a tolerated share is bad now".
#[derive(Clone, Debug)]
pub struct RateDetector {
    tolerated: f64,
    dispersion: f64,
    detectors: Vec<Detector>,
}

impl RateDetector {
    /// Watches for a rate above `tolerated` (0.001 is a tenth of a per cent), with counts that vary
    /// `dispersion` times as much as independent requests would.
    ///
    /// # Errors
    /// Names the parameter that is out of its range.
    pub fn new(
        starts: Starts,
        tolerated: f64,
        dispersion: f64,
    ) -> Result<RateDetector, ParamError> {
        ParamError::check("tolerated", tolerated, 1e-9, 1.0)?;
        ParamError::check("dispersion", dispersion, 1.0, DISPERSION_MAX)?;
        let detector = Detector::new(starts);
        Ok(RateDetector {
            tolerated,
            dispersion,
            detectors: vec![detector; RATE_WORSE.tilts.len()],
        })
    }

    /// Takes in a block: `events` bad ones among `total` requests.
    ///
    /// # Errors
    /// Names the count that can't be one; nothing has changed.
    pub fn push(&mut self, events: f64, total: f64) -> Result<(), BlockError> {
        check_count("events", events)?;
        check_count("total", total)?;
        let total = total.max(events);
        for (detector, &ratio) in self.detectors.iter_mut().zip(&RATE_WORSE.tilts) {
            detector.push(rate_log_e(events, total, self.tolerated, ratio) / self.dispersion);
        }
        Ok(())
    }

    /// The logarithm of the figure, as [`Detector::log_value`].
    pub fn log_value(&self) -> f64 {
        let weighted = RATE_WORSE.log_weights.iter().zip(&self.detectors);
        log_sum_exp(weighted.map(|(weight, detector)| weight + detector.log_value))
    }

    /// Blocks taken in before the change, by the bet that gained most.
    pub fn began(&self) -> u64 {
        let best = self.detectors.iter();
        best.max_by(|a, b| a.log_value.total_cmp(&b.log_value))
            .map_or(0, Detector::began)
    }

    /// Forgets all evidence, as after an alarm.
    pub fn restart(&mut self) {
        self.detectors.iter_mut().for_each(Detector::restart);
    }
}

/// What a block is worth against "at most `tolerated`", betting on `ratio` times that.
fn rate_log_e(events: f64, total: f64, tolerated: f64, ratio: f64) -> f64 {
    events * ratio.ln() - total * tolerated * (ratio - 1.0)
}

/// A test that keeps part of its stake for changes that begin later.
///
/// With `K` restarts planned and a weight `m` for them it is
/// `E_t = (1-m) E_{0→t} + m/K Σ_k E_{k→t}`, where a restart whose time has not come counts as 1.
#[derive(Clone, Copy, Debug)]
pub struct LateOnset {
    weight: f64,
    every: u32,
    restarts: u32,
    blocks: u32,
    begun: u32,
    log_e_all: f64,
    /// `ln Σ_k e^{-S_k}`, `S_k` being the sum of log e-values before restart `k`.
    log_restarted: f64,
    log_e_max: f64,
}

impl LateOnset {
    /// Sets `weight` of the stake aside, in equal parts for `restarts` restarts after every `every`
    /// blocks: 0.25, 5 and 11 for an hour of blocks of a minute.
    ///
    /// # Errors
    /// Names the parameter that is out of its range.
    pub fn new(weight: f64, every: u32, restarts: u32) -> Result<LateOnset, ParamError> {
        ParamError::check("weight", weight, 0.01, 0.9)?;
        ParamError::check("every", f64::from(every), 1.0, 1e6)?;
        ParamError::check("restarts", f64::from(restarts), 1.0, 1e6)?;
        Ok(LateOnset {
            weight,
            every,
            restarts,
            blocks: 0,
            begun: 0,
            log_e_all: 0.0,
            log_restarted: f64::NEG_INFINITY,
            log_e_max: 0.0,
        })
    }

    /// Takes in the logarithm of the next block's e-value. One that is not a number counts as 0.
    pub fn push(&mut self, log_e: f64) {
        let is_due = self.blocks > 0 && self.blocks.is_multiple_of(self.every);
        if is_due && self.begun < self.restarts {
            self.begun += 1;
            self.log_restarted = log_add_exp(self.log_restarted, -self.log_e_all);
        }
        self.blocks = self.blocks.saturating_add(1);
        if !log_e.is_nan() {
            self.log_e_all += log_e;
        }
        self.log_e_max = self.log_e_max.max(self.log_e());
    }

    /// The logarithm of the evidence now.
    pub fn log_e(&self) -> f64 {
        let waiting = f64::from(self.restarts - self.begun).ln();
        let restarted = log_add_exp(self.log_restarted + self.log_e_all, waiting);
        log_add_exp(
            (1.0 - self.weight).ln() + self.log_e_all,
            self.weight.ln() - f64::from(self.restarts).ln() + restarted,
        )
    }

    /// The logarithm of the highest evidence so far, at least 0.
    pub fn log_e_max(&self) -> f64 {
        self.log_e_max
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

    const FIVE: [f64; 5] = [0.8, 1.5, 2.0, 0.7, 3.0];

    #[test]
    fn the_figures_have_the_known_values() {
        for (starts, expected) in [
            (Starts::All, [0.8, 2.7, 7.4, 5.88, 20.64]),
            (Starts::Best, [0.8, 1.5, 3.0, 2.1, 6.3]),
        ] {
            let mut detector = Detector::new(starts);
            for (e, expected) in FIVE.into_iter().zip(expected) {
                detector.push(f64::ln(e));
                let found = detector.log_value().exp();
                assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
            }
            assert_eq!((detector.began(), detector.blocks()), (1, 5));
            detector.restart();
            assert_eq!(detector.log_value(), f64::NEG_INFINITY);
        }
    }

    #[test]
    fn a_block_against_a_tolerated_rate_has_the_known_value() {
        let found = rate_log_e(9.0, 600.0, 0.001, 14.4);
        assert!((found - 15.965).abs() < 5e-4, "{found}");
        let found = rate_log_e(2.0, 10.0, 0.001, 14.4);
        assert!((found - 5.200).abs() < 5e-4, "{found}");
    }

    /// A change after 200 quiet blocks is found within a few, and dated; quiet blocks don't make
    /// the detector slower.
    #[test]
    fn a_change_is_found_and_dated() {
        let mut rng = ChaCha8Rng::seed_from_u64(51);
        for starts in [Starts::All, Starts::Best] {
            let (mut delays, mut errors) = (0.0, 0.0);
            for _ in 0..40 {
                let mut detector = RateDetector::new(starts, 0.002, 1.0).expect("valid");
                for _ in 0..200 {
                    let events = binomial(&mut rng, 1000, 0.001);
                    detector.push(events, 1000.0).expect("counts");
                }
                let mut delay = 0_u32;
                while detector.log_value() < 10_000.0_f64.ln() {
                    let events = binomial(&mut rng, 1000, 0.01);
                    detector.push(events, 1000.0).expect("counts");
                    delay += 1;
                }
                delays += f64::from(delay);
                errors += (detector.began() as f64 - 200.0).abs();
            }
            assert!(delays / 40.0 < 3.0, "{starts:?}: {} blocks", delays / 40.0);
            assert!(
                errors / 40.0 < 1.5,
                "{starts:?}: dated {} off",
                errors / 40.0
            );
        }
    }

    /// At the tolerated rate itself, the worst that is no change, alarms at 1/α come no more often
    /// than every 1/α blocks.
    #[test]
    fn false_alarms_keep_their_distance() {
        let mut rng = ChaCha8Rng::seed_from_u64(52);
        for starts in [Starts::All, Starts::Best] {
            let mut detector = RateDetector::new(starts, 0.01, 1.0).expect("valid");
            let (blocks, distance, mut alarms) = (20_000_u32, 200.0_f64, 0);
            for _ in 0..blocks {
                let events = binomial(&mut rng, 200, 0.01);
                detector.push(events, 200.0).expect("counts");
                if detector.log_value() >= distance.ln() {
                    alarms += 1;
                    detector.restart();
                }
            }
            assert!(
                f64::from(alarms) <= f64::from(blocks) / distance,
                "{alarms}"
            );
            assert!(
                alarms > 0,
                "a detector that never errs is none at this rate"
            );
        }
    }

    /// Errors that come in bursts of five, at the tolerated rate.
    #[test]
    fn bursts_need_their_dispersion() {
        let mut rng = ChaCha8Rng::seed_from_u64(53);
        let mut alarms = [0, 0];
        for (alarms, dispersion) in alarms.iter_mut().zip([1.0, 5.0]) {
            let mut detector = RateDetector::new(Starts::All, 0.01, dispersion).expect("valid");
            for _ in 0..10_000 {
                let events = 5.0 * binomial(&mut rng, 200, 0.002);
                detector.push(events, 200.0).expect("counts");
                if detector.log_value() >= 500.0_f64.ln() {
                    *alarms += 1;
                    detector.restart();
                }
            }
        }
        assert!(alarms[0] > 100 && alarms[1] <= 20, "{alarms:?}");
    }

    #[test]
    fn broken_counts_are_refused_and_nothing_is_nothing() {
        let mut detector = RateDetector::new(Starts::Best, 0.01, 1.0).expect("valid");
        assert!(detector.push(f64::NAN, 1.0).is_err());
        assert!(detector.push(1.0, -1.0).is_err());
        assert_eq!(detector.log_value(), f64::NEG_INFINITY);
        detector.push(0.0, 0.0).expect("no requests");
        assert!(detector.log_value().abs() < 1e-12);
        assert!(RateDetector::new(Starts::All, 0.0, 1.0).is_err());
        assert!(LateOnset::new(1.0, 5, 11).is_err());
        assert!(LateOnset::new(0.25, 5, 0).is_err());
    }

    /// Blocks that halve or multiply the stake by 1.5 with even odds: an e-value of 1 on average.
    #[test]
    fn a_test_with_late_onset_keeps_its_error_rate_and_catches_up() {
        let (alpha, runs) = (0.05, 2000);
        let mut rng = ChaCha8Rng::seed_from_u64(54);
        let mut alarms = 0;
        for _ in 0..runs {
            let mut test = LateOnset::new(0.25, 5, 11).expect("valid");
            for _ in 0..60 {
                let up = binomial(&mut rng, 1, 0.5);
                test.push(f64::ln(if up > 0.0 { 1.5 } else { 0.5 }));
            }
            alarms += u32::from(test.log_e_max() >= -f64::ln(alpha));
        }
        assert!(alarms <= upper_alarm_limit(runs, alpha), "{alarms}");

        // Half an hour of losing, then a change: all is lost without the restarts.
        let (mut late, mut plain) = (LateOnset::new(0.25, 5, 11).expect("valid"), 0.0);
        for block in 0..45 {
            let log_e = if block < 30 { -1.0 } else { 0.8 };
            late.push(log_e);
            plain += log_e;
        }
        assert!(
            plain < -10.0 && late.log_e() > 20.0_f64.ln(),
            "{}",
            late.log_e()
        );
    }

    proptest! {
        /// Shiryaev and Roberts' figure is the sum, CUSUM's the best, over all starts.
        #[test]
        fn figures_are_those_of_all_starts(
            log_es in proptest::collection::vec(-3.0..3.0_f64, 1..30),
        ) {
            let (mut all, mut best) = (Detector::new(Starts::All), Detector::new(Starts::Best));
            for log_e in &log_es {
                all.push(*log_e);
                best.push(*log_e);
            }
            let from = |start: usize| log_es.iter().skip(start).sum::<f64>();
            let starts = 0..log_es.len();
            let sum = log_sum_exp(starts.clone().map(from));
            let highest = starts.map(from).fold(f64::NEG_INFINITY, f64::max);
            prop_assert!((all.log_value() - sum).abs() < 1e-9);
            prop_assert!((best.log_value() - highest).abs() < 1e-9);
        }

        #[test]
        fn late_onset_is_the_average_it_says(
            log_es in proptest::collection::vec(-3.0..3.0_f64, 1..40),
            every in 1_u32..6, restarts in 1_u32..9,
        ) {
            let mut test = LateOnset::new(0.3, every, restarts).expect("valid");
            log_es.iter().for_each(|log_e| test.push(*log_e));
            let from = |start: u32| log_es.iter().skip(start as usize).sum::<f64>().exp();
            let starts = (1..=restarts).map(|k| k * every);
            let later: f64 = starts.map(from).sum();
            let expected = 0.7 * from(0) + 0.3 * later / f64::from(restarts);
            prop_assert!((test.log_e() - expected.ln()).abs() < 1e-9);
        }
    }
}
