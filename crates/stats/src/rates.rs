//! A release's error rate, watched from its first block to its last.
//!
//! Three tests share one rate of false alarms:
//!
//! - **Spending**: all evidence so far, by the exact conditional test of
//!   [`crate::cohort`] against a boundary of [`crate::spending`]. It finds large differences early
//!   and small ones in nearly the time of a single planned test.
//! - **Late onset**: the e-process of [`CountTest::with_late_onset`], for what begins late.
//! - **Guard**: an e-process from the first block on, warm-up included, whose null contains a
//!   warm-up of ten percentage points that fades with a time constant of one and a half warm-ups:
//!   for a crash.
//!
//! The first two may only decide when [`crate::transient`] says that the difference stays. With
//! three or more candidate instances each has to decide without the worst of them as well; where
//! only that one is behind it, the answer is a suspect and no fail. A fail is never taken back.
//!
//! **A pass** is the e-process for "within what a pass certifies", while the other evidence does
//! not speak against it.

use crate::cohort::{Cohort, CohortParams, Settled, Young};
use crate::counts::{CountTest, CountTestParams, ParamError};
use crate::dispersion::{Count, Variance};
use crate::kernel::CountBlock;
use crate::mixture::Direction;
use crate::spending::{Boundaries, Spending};
use crate::transient;

/// How the false alarms are shared, when they are spent, and what counts as staying. The defaults
/// come from simulation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// How many times the rate of false alarms the tests' levels add up to. They have to agree with
    /// the Bayes factor, and what they tolerate is more than none, so fewer alarms come out than go
    /// in; by how much is known from simulation (docs/statistics.md).
    pub level: f64,
    /// The spending test's part of the levels.
    pub spending_share: f64,
    /// The late-onset test's part.
    pub late_share: f64,
    /// The guard's part.
    pub guard_share: f64,
    /// When the spending test's part is spent.
    pub spending: Spending,
    /// The part of the boundary that has to be reached without the worst instance.
    pub left_out: f64,
    /// How old an instance has to be for its events to count for a fail, in minutes.
    pub warm_up_min: f64,
    /// The log Bayes factor from which on a difference counts as staying.
    pub staying: f64,
    /// Information has to grow by this factor for another look of the spending test.
    pub growth: f64,
    /// The guard's allowance for warm-up: a share of requests.
    pub guard_rate: f64,
    /// How fast that allowance fades, in warm-ups.
    pub guard_tau: f64,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            level: 4.0,
            spending_share: 0.75,
            late_share: 0.15,
            guard_share: 0.1,
            spending: Spending {
                early: 0.5,
                early_power: 0.7,
                late_power: 3.0,
            },
            left_out: 0.85,
            warm_up_min: 0.0,
            staying: 2.5,
            growth: 1.02,
            guard_rate: 0.10,
            guard_tau: 1.5,
        }
    }
}

impl Tuning {
    /// What the levels of the tests add up to. Where nothing is expected to warm up no Bayes factor
    /// has to agree, and the levels are the rate itself.
    pub(crate) fn level(&self, false_alarms: f64, warm_up_min: f64) -> f64 {
        match warm_up_min > 0.0 {
            true => (false_alarms * self.level).min(0.5),
            false => false_alarms,
        }
    }
}

/// What an estimated dispersion costs the late-onset test, as a log e-value: the more of the
/// variance is an estimate, the less the level may exceed the rate of false alarms.
const ESTIMATE_COSTS_LOG_E: f64 = 1.0;

/// Baseline events that make a minute's tolerated rate.
const SMOOTHED_EVENTS: f64 = 40.0;

/// What is watched for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateParams {
    /// The chance of ever failing a release that is no worse, up to the horizon.
    pub false_alarms: f64,
    /// The chance of ever passing one that is worse than `pass_ratio` and `pass_difference`.
    pub false_passes: f64,
    /// Tolerated ratio of rates, from 1.
    pub ratio: f64,
    /// Tolerated difference of rates.
    pub difference: f64,
    /// The ratio that a pass certifies.
    pub pass_ratio: f64,
    /// The difference that a pass certifies.
    pub pass_difference: f64,
    /// How long a new instance is expected to warm up, in minutes. An instance's events count for
    /// a pass when it is older; what fades at a pace up to three times as long is no fail. With 0
    /// nothing is expected to fade.
    pub warm_up_min: f64,
    /// When watching ends, in minutes from its begin.
    pub horizon_min: f64,
}

/// One block of time.
#[derive(Clone, Copy, Debug)]
pub struct RateBlock<'a> {
    /// Its end, in minutes from the begin of watching.
    pub end_min: f64,
    /// The candidate's instances.
    pub candidate: &'a [Young],
    /// The baseline's instances.
    pub baseline: &'a [Settled],
    /// The minute it ended in; blocks of one minute are counted together where minutes matter.
    pub minute: i64,
}

/// Which test decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// All evidence against a boundary.
    Spending,
    /// The e-process that expects a late onset.
    Late,
    /// The guard against crashes.
    Guard,
}

/// What is known at a moment, in the terms that decide.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Which test failed it; none otherwise.
    pub failed_by: Option<By>,
    /// Whether it is within what a pass certifies.
    pub is_passed: bool,
    /// The instance behind a difference that is not the version's.
    pub suspect: Option<usize>,
    /// Whether a difference is held back because it may pass.
    pub is_held: bool,
    /// Standard deviations beyond what is tolerated.
    pub z: f64,
    /// Where that decides.
    pub boundary: f64,
    /// Log e-value of the late-onset test, and where it decides.
    pub late: f64,
    /// Where that decides.
    pub late_at: f64,
    /// Log e-value of the guard.
    pub guard: f64,
    /// Where that decides.
    pub guard_at: f64,
    /// Log e-value for a pass.
    pub pass: f64,
    /// Where that decides.
    pub pass_at: f64,
    /// Log likelihood ratio for a difference that stays.
    pub staying: f64,
    /// The dispersion between instances.
    pub dispersion: f64,
}

/// A release's error rate under watch.
#[derive(Clone, Debug)]
pub struct RateWatch {
    params: RateParams,
    tuning: Tuning,
    cohort: Cohort,
    boundaries: Boundaries,
    late: CountTest,
    guard: CountTest,
    pass: CountTest,
    /// Every candidate instance with what it did from its first block on.
    candidate: Vec<Count>,
    evidence: Evidence,
}

impl RateWatch {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// Names the parameter that is out of its range.
    pub fn new(params: RateParams, tuning: Tuning) -> Result<RateWatch, ParamError> {
        ParamError::check("false_alarms", params.false_alarms, 1e-9, 0.5)?;
        ParamError::check("false_passes", params.false_passes, 1e-9, 0.5)?;
        ParamError::check("horizon_min", params.horizon_min, 1e-3, 1e7)?;
        let test = |ratio, difference, direction| {
            CountTest::new(CountTestParams {
                ratio,
                difference,
                dispersion: 1.0,
                direction,
            })
        };
        let worse = test(params.ratio, params.difference, Direction::Worse)?;
        let level =
            |share: f64| -(tuning.level(params.false_alarms, params.warm_up_min) * share).ln();
        Ok(RateWatch {
            cohort: Cohort::new(CohortParams {
                ratio: params.ratio,
                difference: params.difference,
                warm_up_min: tuning.warm_up_min,
                pace_min: params.warm_up_min,
                variance: Variance::Poisson,
                prior_freedom: 1.0,
            }),
            boundaries: Boundaries::new(),
            late: worse.clone().with_late_onset(0.5)?,
            guard: worse,
            pass: test(
                params.pass_ratio,
                params.pass_difference,
                Direction::NotWorse,
            )?,
            candidate: Vec::new(),
            evidence: Evidence {
                boundary: f64::INFINITY,
                late_at: level(tuning.late_share),
                guard_at: level(tuning.guard_share),
                pass_at: -params.false_passes.ln(),
                dispersion: 1.0,
                ..Evidence::default()
            },
            params,
            tuning,
        })
    }

    /// The instances and their sums.
    pub fn cohort(&self) -> &Cohort {
        &self.cohort
    }

    /// The instances and their sums, to say beforehand what is known of them.
    pub fn cohort_mut(&mut self) -> &mut Cohort {
        &mut self.cohort
    }

    /// What is known now.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Takes in the next block and decides.
    pub fn push(&mut self, block: &RateBlock<'_>) {
        // Dispersions and the worst instance are those of blocks before this one.
        let (_, dispersion, _) = self.cohort.dispersion();
        let dispersion = dispersion.clamp(1.0, 1e6);
        self.cohort
            .push(block.minute, block.candidate, block.baseline);
        self.push_tests(block, dispersion);
        self.decide(block.end_min);
    }

    fn push_tests(&mut self, block: &RateBlock<'_>, dispersion: f64) {
        let beside = block
            .baseline
            .iter()
            .filter(|one| self.cohort.aside().all(|id| id != one.id));
        let (baseline_total, baseline_events) = beside.fold((0.0, 0.0), |sum, one| {
            (sum.0 + one.total, sum.1 + one.events)
        });
        for one in block.candidate {
            crate::cohort::add_count(&mut self.candidate, one.id, one.total, one.events);
        }
        let rate = baseline_events / baseline_total.max(1.0);
        let left_out = self.left_out(rate);
        let (fail_min, pass_min) = (self.tuning.warm_up_min, self.params.warm_up_min);
        let counted = |is_in: &dyn Fn(&Young) -> bool| {
            let chosen = block.candidate.iter().filter(|one| is_in(one));
            let sum = chosen.fold((0.0, 0.0), |sum, one| {
                (sum.0 + one.total, sum.1 + one.events)
            });
            CountBlock {
                candidate_total: sum.0,
                candidate_events: sum.1,
                baseline_total,
                baseline_events,
            }
        };
        let trusted = |one: &Young| left_out != Some(one.id);
        for test in [&mut self.late, &mut self.guard, &mut self.pass] {
            // It is in range, and a block whose counts make no sense says nothing.
            let _ = test.set_dispersion(dispersion);
        }
        let _ = self
            .late
            .push(&counted(&|one| one.age_min >= fail_min && trusted(one)));
        let _ = self.pass.push(&counted(&|one| one.age_min >= pass_min));
        let guard_tau_min = self.tuning.guard_tau * self.params.warm_up_min;
        let all = counted(&trusted);
        let allowed: f64 = block
            .candidate
            .iter()
            .filter(|one| trusted(one))
            .map(|one| one.total * (-one.age_min.max(0.0) / guard_tau_min.max(1e-9)).exp())
            .sum();
        let extra = self.tuning.guard_rate * allowed / all.candidate_total.max(1e-9);
        let _ = self
            .guard
            .push_tolerating(&all, extra.min(self.tuning.guard_rate));
    }

    /// Of three or more candidate instances the worst.
    fn left_out(&self, rate: f64) -> Option<usize> {
        let served = || {
            (0..)
                .zip(&self.candidate)
                .filter(|(_, one)| one.total > 0.0)
        };
        if served().count() < 3 {
            return None;
        }
        let excess = |one: &Count| one.events - one.total * rate;
        let worst = served().max_by(|a, b| excess(a.1).total_cmp(&excess(b.1)));
        worst.map(|(id, _): (usize, _)| id)
    }

    fn decide(&mut self, end_min: f64) {
        let information = self.cohort.information();
        let fraction = end_min / self.params.horizon_min;
        let standing = self.cohort.standing(None);
        let is_look = information > self.boundaries.information() * self.tuning.growth
            && information > 0.0
            && fraction <= 1.0 + 1e-9;
        if is_look {
            let part = self
                .tuning
                .level(self.params.false_alarms, self.params.warm_up_min)
                * self.tuning.spending_share;
            self.boundaries
                .look(information, part * self.tuning.spending.by(fraction));
            self.evidence.z = standing.z;
        }
        let evidence = &mut self.evidence;
        evidence.boundary = self.boundaries.boundary();
        evidence.dispersion = standing.between;
        evidence.late = self.late.log_e() - ESTIMATE_COSTS_LOG_E * (1.0 - 1.0 / standing.between);
        evidence.guard = self.guard.log_e_max();
        evidence.pass = self.pass.log_e_max();
        let is_far = evidence.z >= evidence.boundary;
        let is_late = evidence.late >= evidence.late_at;
        evidence.is_passed = evidence.pass >= evidence.pass_at && evidence.late <= 0.0 && !is_far;
        evidence.suspect = None;
        evidence.is_held = false;
        if evidence.failed_by.is_some() {
            return;
        }
        if evidence.guard >= evidence.guard_at {
            evidence.failed_by = Some(By::Guard);
            return;
        }
        if !is_far && !is_late {
            return;
        }
        let (mut by, worst) = (
            if is_far { By::Spending } else { By::Late },
            self.cohort.worst(),
        );
        if is_far && self.cohort.grown() >= 3 {
            let rest = self.cohort.standing(worst);
            if rest.z < self.evidence.boundary * self.tuning.left_out {
                if !is_late {
                    self.evidence.suspect = worst;
                    return;
                }
                by = By::Late;
            }
        }
        let staying = match self.params.warm_up_min > 0.0 {
            true => {
                let minutes = self.cohort.minutes(SMOOTHED_EVENTS);
                transient::staying_events(&minutes, standing.within)
            }
            false => f64::INFINITY,
        };
        self.evidence.staying = staying;
        if staying >= self.tuning.staying {
            self.evidence.failed_by = Some(by);
        } else {
            self.evidence.is_held = true;
        }
    }
}
