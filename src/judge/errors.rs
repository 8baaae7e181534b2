//! Error ratios compared.
//!
//! [`slogate_stats::rates`] watches the candidate's errors from its first block on: all evidence
//! against a boundary, an e-process for what begins late, and a guard against crashes. Here blocks
//! become its input and its state an answer.
//!
//! - A fail needs a difference that stays: what fades as the instances grow older is warm-up, with
//!   or without `warmUp` in the policy. `warmUp` is the time that no pass rests on.
//! - A pass is taken back when the evidence turns: it needs the evidence for "within" to have
//!   reached its level, and no net evidence for "beyond" now. A fail is never taken back.
//! - With three or more candidate instances, one that alone is behind the difference is named
//!   (`instance_suspect`) and fails nothing. With one or two, a bad machine can't be told from a
//!   bad version.
//! - A baseline instance far beyond the others is left out of the comparison and named.

use slogate_stats::CountBlock;
use slogate_stats::cohort::{Settled, Young};
use slogate_stats::interval::{DifferenceSequence, RatioSequence};
use slogate_stats::rates::{self, RateBlock, RateParams, RateWatch, Tuning};

use super::arms::{Arms, Pair};
use super::compare::{Look, Sides, result};
use super::{examine, sentences};
use crate::model::{
    ArmCounts, Baseline, CheckResult, Evidence, InstanceCounts, Interval, Outcome, Reason,
};
use crate::policy::{Check, CompareCheck, Margin};
use crate::source::blocks::Counts;

/// What has been made of the blocks so far.
#[derive(Debug)]
pub(crate) struct Progress {
    arms: Arms,
    watch: RateWatch,
    ratio: RatioSequence,
    difference: DifferenceSequence,
}

/// Answers a check on the error ratio.
pub(crate) fn answer(
    look: &Look<'_>,
    check: &Check,
    compare: &CompareCheck,
    sides: &Sides<'_, Counts>,
    progress: &mut Option<examine::Progress>,
) -> CheckResult {
    let is_current = matches!(progress, Some(examine::Progress::Errors(seen))
        if seen.arms.relies_on(&sides.relied));
    if !is_current {
        let started = Progress::start(look, check, compare, sides);
        *progress = started.map(|started| examine::Progress::Errors(Box::new(started)));
    }
    let Some(examine::Progress::Errors(seen)) = progress else {
        let message = "Errors: the check's margins are out of range.".to_owned();
        let (verdict, reason) = (Outcome::Inconclusive, Reason::UnusableAnswer);
        return result(check, verdict, reason, message, Evidence::default());
    };
    while let Some(pair) = seen.arms.take(sides.candidate, sides.baseline, sides.end) {
        seen.push(&pair);
    }
    let found = seen.watch.evidence();
    let served = seen.watch.cohort().candidate();
    let state = State {
        found,
        is_warming: seen.arms.is_warming(look.gate.warm_up_ms),
        is_stale: sides.is_stale,
        candidate_total: served.total,
        baseline_total: seen.watch.cohort().baseline().total,
    };
    let (verdict, reason) = state.decide(compare.min_events);
    let evidence = seen.evidence(look, check, compare, sides);
    let message = sentences::compared(reason, &evidence, compare, look.gate);
    result(check, verdict, reason, message, evidence)
}

/// What a comparing check's answer hangs on.
pub(crate) struct State<'a> {
    pub(crate) found: &'a rates::Evidence,
    pub(crate) is_warming: bool,
    pub(crate) is_stale: bool,
    pub(crate) candidate_total: f64,
    pub(crate) baseline_total: f64,
}

impl State<'_> {
    /// What the evidence says, given how much the candidate has served.
    pub(crate) fn decide(&self, min_events: u64) -> (Outcome, Reason) {
        let inconclusive = |reason| (Outcome::Inconclusive, reason);
        if self.found.failed_by.is_some() {
            (Outcome::Fail, Reason::WorseThanBaseline)
        } else if self.is_warming {
            inconclusive(Reason::WarmingUp)
        } else if self.is_stale {
            inconclusive(Reason::Stale)
        } else if self.baseline_total <= 0.0 {
            inconclusive(Reason::NoBaseline)
        } else if self.found.suspect.is_some() {
            inconclusive(Reason::InstanceSuspect)
        } else if self.candidate_total < min_events as f64 {
            inconclusive(Reason::InsufficientData)
        } else if self.found.is_passed {
            (Outcome::Pass, Reason::NotWorseThanBaseline)
        } else {
            inconclusive(Reason::NotYetDecided)
        }
    }
}

impl Progress {
    /// Nothing but the baseline's history; `None` for parameters that no test accepts, which a
    /// parsed policy can't hold.
    fn start(
        look: &Look<'_>,
        check: &Check,
        compare: &CompareCheck,
        sides: &Sides<'_, Counts>,
    ) -> Option<Progress> {
        let (warm_up_min, horizon_min) = look.minutes();
        let part = |margin: &Margin| {
            (
                1.0 + margin.relative.unwrap_or(0.0),
                margin.absolute.unwrap_or(0.0).min(1.0),
            )
        };
        let (ratio, difference) = part(&compare.worse_by);
        let (pass_ratio, pass_difference) = part(&compare.pass_within);
        let params = RateParams {
            false_alarms: look.false_alarms(check),
            false_passes: look.gate.false_passes,
            ratio,
            difference,
            pass_ratio,
            pass_difference,
            warm_up_min,
            horizon_min,
        };
        let mut watch = RateWatch::new(params, Tuning::default()).ok()?;
        let mut arms = Arms::new(sides.relied.clone());
        if !arms.is_told_apart() {
            watch.cohort_mut().not_told_apart();
        }
        let history = arms.history(sides.baseline);
        let minutes: Vec<Vec<Settled>> = history
            .iter()
            .map(|minute| minute.iter().map(settled).collect())
            .collect();
        watch.cohort_mut().learn(&minutes);
        Some(Progress {
            arms,
            watch,
            ratio: RatioSequence::new(1.0).ok()?,
            difference: DifferenceSequence::new(1.0).ok()?,
        })
    }

    fn push(&mut self, pair: &Pair<'_, Counts>) {
        let candidate: Vec<Young> = pair.candidate.iter().map(young).collect();
        let baseline: Vec<Settled> = pair.baseline.iter().map(settled).collect();
        let dispersion = self.watch.evidence().dispersion;
        self.watch.push(&RateBlock {
            end_min: pair.end_min,
            minute: pair.minute,
            candidate: &candidate,
            baseline: &baseline,
        });
        let sum = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>();
        let block = CountBlock {
            candidate_total: sum(&mut candidate.iter().map(|one| one.total)),
            candidate_events: sum(&mut candidate.iter().map(|one| one.events)),
            baseline_total: sum(&mut baseline.iter().map(|one| one.total)),
            baseline_events: sum(&mut baseline.iter().map(|one| one.events)),
        };
        // A block whose counts make no sense says nothing, here as in the tests.
        let _ = self.ratio.set_dispersion(dispersion);
        let _ = self.difference.set_dispersion(dispersion);
        let _ = self.ratio.push(&block);
        let _ = self.difference.push(&block);
    }

    fn evidence(
        &self,
        look: &Look<'_>,
        check: &Check,
        compare: &CompareCheck,
        sides: &Sides<'_, Counts>,
    ) -> Evidence {
        let cohort = self.watch.cohort();
        let found = self.watch.evidence();
        let arm = |total: f64, bad: f64| ArmCounts {
            total,
            bad,
            rate: (total > 0.0).then(|| bad / total),
            quantile: None,
        };
        let candidate = arm(cohort.candidate().total, cohort.candidate().events);
        let baseline = arm(cohort.baseline().total, cohort.baseline().events);
        let both = candidate.rate.zip(baseline.rate);
        let (ratio_interval, difference_interval) = self.intervals(1.0 - look.false_alarms(check));
        Evidence {
            data: Some(look.data()),
            candidate_counts: Some(candidate),
            baseline_counts: Some(baseline),
            ratio: both.and_then(|(mine, theirs)| finite(mine / theirs)),
            ratio_interval,
            difference: both.map(|(mine, theirs)| mine - theirs),
            difference_interval,
            tolerance: Some(sentences::tolerance(compare)),
            log_e_worse: finite(found.late),
            log_e_fail_at: finite(found.late_at),
            ..shown(found, &self.arms, sides, cohort.aside())
        }
    }

    /// Where the ratio and the difference of the two error ratios lie.
    fn intervals(&self, confidence: f64) -> (Option<Interval>, Option<Interval>) {
        let ratio = self.ratio.interval(confidence).map(|found| Interval {
            low: finite(found.lower),
            high: found.upper.and_then(finite),
            confidence,
        });
        let difference = self.difference.interval(confidence).map(|found| Interval {
            low: finite(found.lower),
            high: finite(found.upper),
            confidence,
        });
        (ratio, difference)
    }
}

fn young((id, age_min, counts): &(usize, f64, &Counts)) -> Young {
    Young {
        id: *id,
        age_min: *age_min,
        total: counts.total.max(counts.errors),
        events: counts.errors,
    }
}

fn settled((id, counts): &(usize, &Counts)) -> Settled {
    Settled {
        id: *id,
        total: counts.total.max(counts.errors),
        events: counts.errors,
        tolerated: counts.errors,
    }
}

pub(crate) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// What every comparing check shows of the evidence.
pub(crate) fn shown<T>(
    found: &rates::Evidence,
    arms: &Arms,
    sides: &Sides<'_, T>,
    aside: impl Iterator<Item = usize>,
) -> Evidence {
    let mut warnings = sides.warnings.clone();
    let aside: Vec<&str> = aside
        .filter_map(|number| arms.baseline_name(number))
        .collect();
    if !aside.is_empty() {
        warnings.push(format!(
            "left out of the baseline, being far from its other instances: {}",
            aside.join(", ")
        ));
    }
    let suspect = found.suspect.and_then(|number| arms.candidate_name(number));
    let (candidate, baseline) = arms.instances();
    Evidence {
        baseline: Some(Baseline {
            artifact: sides.artifact.clone(),
            kind: arms.kind(),
            data: arms.baseline_data(),
        }),
        log_e_not_worse: finite(found.pass),
        log_e_pass_at: finite(found.pass_at),
        dispersion: finite(found.dispersion),
        z: finite(found.z),
        z_fail_at: finite(found.boundary),
        log_staying: finite(found.staying).filter(|_| found.z >= found.boundary),
        instances: arms.is_told_apart().then_some(InstanceCounts {
            candidate,
            baseline,
        }),
        suspects: suspect.map(str::to_owned).into_iter().collect(),
        warnings,
        ..Evidence::default()
    }
}
