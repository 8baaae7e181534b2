//! Error ratios compared.
//!
//! Two tests walk over the pairs of blocks: one gathers evidence that the candidate's error
//! ratio is beyond `baseline × (1 + relative) + absolute` of `worseBy`, the other that it is
//! within that of `passWithin`. A third, the guard, watches from the first block on, warm-up included, for damage of
//! [`GUARD_EXTRA`] beyond the tolerance. The check's share of the gate's false alarms is
//! split between the first and the guard.
//!
//! A pass is taken back when the evidence turns: it needs the evidence for "within" to have
//! reached its level, and no net evidence for "beyond" now.

use slogate_stats::dispersion::{self, Count, Variance};
use slogate_stats::interval::{DifferenceSequence, RatioSequence};
use slogate_stats::{CountBlock, CountTest, CountTestParams, Direction};

use super::arms::Pair;
use super::compare::{Look, Sides, result};
use super::words;
use crate::model::{
    ArmCounts, BaselineKind, CheckResult, Evidence, Interval, Outcome, Reason, TimeRange,
};
use crate::policy::{Check, CompareCheck, Margin};
use crate::source::blocks::Counts;

/// What the guard tolerates on top of the margin: ten percentage points of errors.
const GUARD_EXTRA: f64 = 0.10;

/// The guard's part of the check's false alarms.
const GUARD_SHARE: f64 = 0.2;

/// Which of the three tests decided, and on what.
pub(crate) struct Decision {
    pub(crate) verdict: Outcome,
    pub(crate) reason: Reason,
    pub(crate) is_guard: bool,
}

/// The three tests' evidence and the levels they have to reach, as logs of e-values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    pub(crate) worse: f64,
    pub(crate) worse_now: f64,
    pub(crate) not_worse: f64,
    pub(crate) guard: f64,
    pub(crate) fail_at: f64,
    pub(crate) guard_at: f64,
    pub(crate) pass_at: f64,
}

impl Weights {
    /// The levels for a check, with and without a guard.
    pub(crate) fn levels(look: &Look<'_>, check: &Check, has_guard: bool) -> Weights {
        let fail_at = look.log_fail_at(check);
        let split = if has_guard {
            -(1.0 - GUARD_SHARE).ln()
        } else {
            0.0
        };
        Weights {
            worse: 0.0,
            worse_now: 0.0,
            not_worse: 0.0,
            guard: 0.0,
            fail_at: fail_at + split,
            guard_at: fail_at - GUARD_SHARE.ln(),
            pass_at: look.log_pass_at(),
        }
    }

    /// What the evidence says, given how much the candidate has served.
    pub(crate) fn decide<T>(
        &self,
        sides: &Sides<'_, T>,
        candidate_total: f64,
        baseline_total: f64,
        min_events: u64,
    ) -> Decision {
        let inconclusive = |reason| (Outcome::Inconclusive, reason);
        let is_guard = self.guard >= self.guard_at;
        let (verdict, reason) = if is_guard || self.worse >= self.fail_at {
            (Outcome::Fail, Reason::WorseThanBaseline)
        } else if sides.is_warming {
            inconclusive(Reason::WarmingUp)
        } else if sides.is_stale {
            inconclusive(Reason::Stale)
        } else if baseline_total <= 0.0 {
            inconclusive(Reason::NoBaseline)
        } else if candidate_total < min_events as f64 {
            inconclusive(Reason::InsufficientData)
        } else if self.not_worse >= self.pass_at && self.worse_now <= 0.0 {
            (Outcome::Pass, Reason::NotWorseThanBaseline)
        } else {
            inconclusive(Reason::NotYetDecided)
        };
        Decision {
            verdict,
            reason,
            is_guard: is_guard && self.worse < self.fail_at,
        }
    }
}

/// Answers a check on the error ratio.
pub(crate) fn answer(
    look: &Look<'_>,
    check: &Check,
    compare: &CompareCheck,
    sides: &Sides<'_, Counts>,
) -> CheckResult {
    let blocks: Vec<CountBlock> = sides.pairs.pairs.iter().map(count_block).collect();
    let from_start: Vec<CountBlock> = sides.from_start.pairs.iter().map(count_block).collect();
    let phi = dispersion_of(sides);
    let mut weights = Weights::levels(look, check, true);
    let run = |direction, extra, blocks: &[CountBlock]| {
        let margin = match direction {
            Direction::Worse => compare.worse_by,
            Direction::NotWorse => compare.pass_within,
        };
        walk(&margin, extra, phi, direction, blocks).unwrap_or((0.0, 0.0))
    };
    (weights.worse_now, weights.worse) = run(Direction::Worse, 0.0, &blocks);
    (_, weights.not_worse) = run(Direction::NotWorse, 0.0, &blocks);
    (_, weights.guard) = run(Direction::Worse, GUARD_EXTRA, &from_start);

    let evidence_totals = totals(&blocks);
    let (_, baseline) = evidence_totals;
    let decision = weights.decide(
        sides,
        evidence_totals.0.total,
        baseline.total,
        compare.min_events,
    );
    // The guard speaks of all blocks, so its sentence shows the counts of all blocks.
    let shown = if decision.is_guard || sides.is_warming {
        &from_start
    } else {
        &blocks
    };
    let evidence = evidence(look, check, compare, sides, shown, &weights, phi);
    let message = sentence(&decision, &evidence, sides);
    result(check, decision.verdict, decision.reason, message, evidence)
}

fn count_block(pair: &Pair<'_, Counts>) -> CountBlock {
    let counts = |side: Option<&Counts>| side.copied().unwrap_or_default();
    let (candidate, baseline) = (counts(pair.candidate), counts(pair.baseline));
    CountBlock {
        candidate_total: candidate.total,
        candidate_events: candidate.errors,
        baseline_total: baseline.total,
        baseline_events: baseline.errors,
    }
}

/// The evidence now and at its highest; `None` for parameters that no test accepts, which a
/// parsed policy can't hold.
fn walk(
    margin: &Margin,
    extra: f64,
    phi: f64,
    direction: Direction,
    blocks: &[CountBlock],
) -> Option<(f64, f64)> {
    let mut test = CountTest::new(CountTestParams {
        ratio: 1.0 + margin.relative.unwrap_or(0.0),
        difference: (margin.absolute.unwrap_or(0.0) + extra).min(1.0),
        dispersion: phi,
        direction,
    })
    .ok()?;
    for block in blocks {
        // A block whose counts make no sense (more errors than requests) says nothing.
        let _ = test.push(block);
    }
    Some((test.log_e(), test.log_e_max()))
}

/// How much burstier than independent requests the baseline's errors are.
fn dispersion_of(sides: &Sides<'_, Counts>) -> f64 {
    let beside = sides.pairs.pairs.iter().filter_map(|pair| pair.baseline);
    let known = match sides.pairs.kind {
        BaselineKind::Concurrent => sides
            .history
            .iter()
            .copied()
            .chain(beside)
            .collect::<Vec<_>>(),
        BaselineKind::Historical => sides.history.clone(),
    };
    let counts = known.iter().map(|counts| Count {
        total: counts.total,
        events: counts.errors,
    });
    dispersion::over_time(&counts.collect::<Vec<_>>(), Variance::Poisson)
}

fn totals(blocks: &[CountBlock]) -> (ArmCounts, ArmCounts) {
    let arm = |total: f64, bad: f64| ArmCounts {
        total,
        bad,
        rate: (total > 0.0).then(|| bad / total),
        quantile: None,
    };
    let sum = |get: fn(&CountBlock) -> f64| blocks.iter().map(get).sum::<f64>();
    (
        arm(sum(|b| b.candidate_total), sum(|b| b.candidate_events)),
        arm(sum(|b| b.baseline_total), sum(|b| b.baseline_events)),
    )
}

fn evidence(
    look: &Look<'_>,
    check: &Check,
    compare: &CompareCheck,
    sides: &Sides<'_, Counts>,
    blocks: &[CountBlock],
    weights: &Weights,
    phi: f64,
) -> Evidence {
    let (candidate, baseline) = totals(blocks);
    let both = candidate.rate.zip(baseline.rate);
    let confidence = 1.0 - (-look.log_fail_at(check)).exp();
    let finite = |value: f64| value.is_finite().then_some(value);
    let (ratio_interval, difference_interval) = intervals(blocks, phi, confidence);
    Evidence {
        data: Some(TimeRange {
            start_ms: look.from_ms,
            end_ms: look.now_ms,
        }),
        baseline: Some(sides.baseline.clone()),
        candidate_counts: Some(candidate),
        baseline_counts: Some(baseline),
        ratio: both.and_then(|(mine, theirs)| finite(mine / theirs)),
        ratio_interval,
        difference: both.map(|(mine, theirs)| mine - theirs),
        difference_interval,
        tolerance: Some(tolerance(compare, words::percent)),
        log_e_worse: finite(weights.worse),
        log_e_not_worse: finite(weights.not_worse),
        log_e_fail_at: finite(weights.fail_at),
        log_e_pass_at: finite(weights.pass_at),
        dispersion: finite(phi),
        warnings: sides.warnings.clone(),
        ..Evidence::default()
    }
}

/// Where the ratio and the difference of the two error ratios lie.
fn intervals(
    blocks: &[CountBlock],
    phi: f64,
    confidence: f64,
) -> (Option<Interval>, Option<Interval>) {
    let finite = |value: f64| value.is_finite().then_some(value);
    let sequences = RatioSequence::new(phi)
        .ok()
        .zip(DifferenceSequence::new(phi).ok());
    let Some((mut ratio, mut difference)) = sequences else {
        return (None, None);
    };
    for block in blocks {
        // As in the tests, a block whose counts make no sense says nothing.
        let _ = ratio.push(block);
        let _ = difference.push(block);
    }
    let ratio = ratio.interval(confidence).map(|found| Interval {
        low: finite(found.lower),
        high: found.upper.and_then(finite),
        confidence,
    });
    let difference = difference.interval(confidence).map(|found| Interval {
        low: finite(found.lower),
        high: finite(found.upper),
        confidence,
    });
    (ratio, difference)
}

/// What is tolerated and, where that is another margin, what a pass certifies; `absolute` says
/// the indicator's own unit.
pub(crate) fn tolerance(compare: &CompareCheck, absolute: impl Fn(f64) -> String) -> String {
    let tolerated = margin(&compare.worse_by, &absolute);
    if compare.pass_within == compare.worse_by {
        return tolerated;
    }
    let certified = margin(&compare.pass_within, &absolute);
    format!("{tolerated}; a pass certifies {certified}")
}

fn margin(margin: &Margin, absolute: impl Fn(f64) -> String) -> String {
    let margin = Margin {
        absolute: margin.absolute.filter(|part| *part > 0.0),
        relative: margin.relative.filter(|part| *part > 0.0),
    };
    let relative = margin.relative.map(words::percent);
    let absolute = margin.absolute.map(absolute);
    match (relative, absolute) {
        (Some(relative), Some(absolute)) => {
            format!("at most {relative} of the baseline plus {absolute} worse")
        }
        (Some(relative), None) => format!("at most {relative} of the baseline worse"),
        (None, Some(absolute)) => format!("at most {absolute} worse"),
        (None, None) => "no worse at all".to_owned(),
    }
}

fn sentence(decision: &Decision, evidence: &Evidence, sides: &Sides<'_, Counts>) -> String {
    let candidate = evidence.candidate_counts.unwrap_or_default();
    let baseline = evidence.baseline_counts.unwrap_or_default();
    let rate = |counts: &ArmCounts| counts.rate.map_or("nothing".to_owned(), words::percent);
    let beside = against(sides);
    let tolerated = evidence.tolerance.as_deref().unwrap_or_default();
    let facts = format!(
        "{} against {} on {beside} ({} and {} requests",
        rate(&candidate),
        rate(&baseline),
        words::count(candidate.total),
        words::count(baseline.total)
    );
    match decision.reason {
        Reason::WorseThanBaseline => {
            format!(
                "Errors: {facts}{}); tolerated is {tolerated}.",
                how_sure(evidence)
            )
        }
        Reason::NotWorseThanBaseline => {
            format!("Errors: {facts}), which is within what is tolerated: {tolerated}.")
        }
        Reason::WarmingUp => format!("Errors so far: {facts}), warming up."),
        Reason::Stale => "Errors: the candidate has sent nothing new for 5 minutes.".to_owned(),
        Reason::NoBaseline => format!(
            "Errors: {} ({} requests), and {beside} has served nothing to compare with.",
            rate(&candidate),
            words::count(candidate.total)
        ),
        Reason::InsufficientData => format!("Errors: {facts}), too few to tell."),
        _ => format!("Errors: {facts}), which shows neither yet; tolerated is {tolerated}."),
    }
}

/// The baseline's name, and that it is history where it is.
pub(crate) fn against<T>(sides: &Sides<'_, T>) -> String {
    match sides.baseline.kind {
        BaselineKind::Concurrent => sides.baseline.artifact.to_string(),
        BaselineKind::Historical => {
            format!("{} before the deployment", sides.baseline.artifact)
        }
    }
}

fn how_sure(evidence: &Evidence) -> String {
    let ratio = evidence.ratio.map(words::ratio);
    let least = evidence.ratio_interval.and_then(|interval| {
        let low = interval.low.filter(|low| *low > 1.0)?;
        let sure = words::confidence(interval.confidence);
        Some(format!(
            "at least {} with {sure} confidence",
            words::ratio(low)
        ))
    });
    match (ratio, least) {
        (Some(ratio), Some(least)) => format!("; ratio {ratio}, {least}"),
        (Some(ratio), None) => format!("; ratio {ratio}"),
        (None, Some(least)) => format!("; ratio {least}"),
        (None, None) => String::new(),
    }
}
