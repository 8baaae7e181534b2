//! Two series of the author's own query, compared.
//!
//! Each side has to answer with one series. Points that both sides have at the same time are
//! compared, the warm-up left out.
//!
//! The **sequential** method may be looked at at any time and takes its share of the gate's false
//! alarms like any comparison. Its last step is left for late samples. The others are judged
//! at fixed times, by default once, when the gate's time is over: Mann and Whitney's test and the
//! permutation of blocks divide their share of the false alarms by the number of judgements;
//! Kayenta's classification knows no such share, and a warning says what repetition does.
//! A fail at any of these times stands; else the newest judgement counts.
//!
//! Without points of the candidate the answer is `no_data`, without points of the baseline
//! `no_baseline`. Only Kayenta's classification passes what it can't compute, and says so.

use slogate_stats::combine::log_weighted_average;
use slogate_stats::kayenta::{self, Class, EffectSize, Measure, MetricConfig};
use slogate_stats::means::{self, MeanTest, MeanTestParams, Worse};
use slogate_stats::permutation::{self, Center, PermutationParams};
use slogate_stats::{Direction, mann_whitney};

use super::Context;
use super::compare::{Early, false_alarms, result};
use super::lines::{self, Line, Points, Sides, Span, early};
use super::words;
use crate::model::time::humanize_ms;
use crate::model::{CheckResult, Evidence, Interval, Outcome, Reason, TimeRange};
use crate::policy::{ChangeDirection, Check, Margin, SeriesCheck, SeriesMethod};

/// How old the candidate's newest point may be, in milliseconds, or in steps where those are long.
const STALE_AFTER: (i64, i64) = (300_000, 3);

/// Random swaps where not all can be tried.
const SWAPS: u32 = 9_999;

/// Where randomness starts. The same for all, so that a verdict can be computed again.
pub(crate) const SEED: u64 = 0;

/// Above this correlation of neighbours a test that takes them for independent is doubtful.
const CORRELATED: f64 = 0.3;

/// Above this one it is for the sequential test too, which allows for less.
const VERY_CORRELATED: f64 = 0.85;

/// An answer and what is to be said of it.
struct Said {
    verdict: Outcome,
    reason: Reason,
    /// Goes on after the facts.
    sentence: String,
}

/// Answers a check of two series.
pub(crate) async fn answer(
    check: &Check,
    series: &SeriesCheck,
    context: &Context<'_>,
) -> CheckResult {
    let mut evidence = Evidence {
        data: Some(TimeRange {
            start_ms: context.from_ms,
            end_ms: context.now_ms,
        }),
        tolerance: Some(tolerance(series)),
        ..Evidence::default()
    };
    let found = match series.method {
        SeriesMethod::Sequential => sequential(check, series, context, &mut evidence).await,
        _ => at_fixed_times(check, series, context, &mut evidence).await,
    };
    let name = &check.name;
    match found {
        Ok(said) => {
            let message = format!("{name}: {}", said.sentence);
            result(check, said.verdict, said.reason, message, evidence)
        }
        Err(Early { reason, message }) => {
            let message = format!("{name}: {message}");
            result(check, Outcome::Inconclusive, reason, message, evidence)
        }
    }
}

async fn sequential(
    check: &Check,
    series: &SeriesCheck,
    context: &Context<'_>,
    evidence: &mut Evidence,
) -> Result<Said, Early> {
    let deadline = context.from_ms + context.gate.decide_within_ms;
    let end_ms = (context.now_ms - series.step_ms).min(deadline);
    let span = Span::of(context, series.step_ms, end_ms);
    let sides = lines::both(context, &[&series.expr], span, series.against).await?;
    let (mine, theirs) = one_each(&sides, evidence)?;
    let pairs = paired(mine, theirs);
    let correlation = correlation(&pairs);
    if correlation > VERY_CORRELATED {
        let share = words::ratio(correlation);
        warn(
            evidence,
            format!(
                "neighbouring points resemble each other very much (correlation {share}): false \
                 alarms may be more than the gate says; a longer step helps"
            ),
        );
    }
    let newest = mine.keys().next_back().copied().unwrap_or(i64::MIN);
    let mut test = Both::new(series);
    for (mine, theirs) in &pairs {
        test.push(*mine, *theirs);
    }
    let fail_at = -false_alarms(context.gate, check).ln();
    let pass_at = -context.gate.false_passes.ln();
    evidence.log_e_worse = Some(test.worse_max);
    evidence.log_e_not_worse = Some(test.not_worse());
    (evidence.log_e_fail_at, evidence.log_e_pass_at) = (Some(fail_at), Some(pass_at));
    let facts = facts(&pairs, &sides, evidence);
    let limit = evidence.tolerance.clone().unwrap_or_default();
    let stale_ms = STALE_AFTER.0.max(STALE_AFTER.1 * series.step_ms);
    let (verdict, reason, sentence) = if test.worse_max >= fail_at {
        let sentence = format!("{facts}; tolerated is {limit}.");
        (Outcome::Fail, Reason::WorseThanBaseline, sentence)
    } else if newest < end_ms - stale_ms {
        let age = humanize_ms(context.now_ms - newest);
        let sentence = format!("the candidate's newest point is {age} old.");
        (Outcome::Inconclusive, Reason::Stale, sentence)
    } else if test.not_worse() >= pass_at && test.worse <= 0.0 {
        let sentence = format!("{facts}, which is within what is tolerated: {limit}.");
        (Outcome::Pass, Reason::NotWorseThanBaseline, sentence)
    } else {
        let sentence = format!("{facts}, which shows neither yet; tolerated is {limit}.");
        (Outcome::Inconclusive, Reason::NotYetDecided, sentence)
    };
    Ok(Said {
        verdict,
        reason,
        sentence,
    })
}

async fn at_fixed_times(
    check: &Check,
    series: &SeriesCheck,
    context: &Context<'_>,
    evidence: &mut Evidence,
) -> Result<Said, Early> {
    let (times, last) = lines::judged_at(context, series.horizon);
    let Some(newest) = times.last().copied() else {
        return Err(early(
            Reason::NotYetDecided,
            not_yet(context, times.len(), series.horizon.every_ms, last),
        ));
    };
    let span = Span::of(context, series.step_ms, newest);
    let sides = lines::both(context, &[&series.expr], span, series.against).await?;
    let (mine, theirs) = one_each(&sides, evidence)?;
    let pairs = paired(mine, theirs);
    let facts = facts(&pairs, &sides, evidence);
    let mut answer = None;
    for at in times {
        let upto = |points: &Points| -> Vec<f64> { points.range(..=at).map(|(_, v)| *v).collect() };
        let (mine, theirs) = (upto(mine), upto(theirs));
        let pairs = paired_until(at, &sides);
        let judged = match series.method {
            SeriesMethod::Kayenta => by_kayenta(series, &mine, &theirs, evidence),
            SeriesMethod::BlockPermutation => {
                by_permutation(check, series, context, &pairs, evidence)
            }
            SeriesMethod::MannWhitney | SeriesMethod::Sequential => {
                by_ranks(check, series, context, &pairs, evidence)
            }
        };
        let is_fail = judged.0 == Outcome::Fail;
        answer = Some(judged);
        if is_fail {
            break;
        }
    }
    let (verdict, reason, how) =
        answer.unwrap_or((Outcome::Inconclusive, Reason::NotYetDecided, String::new()));
    let limit = evidence.tolerance.as_deref().unwrap_or_default();
    Ok(Said {
        verdict,
        reason,
        sentence: format!("{facts}; {how}; tolerated is {limit}."),
    })
}

/// The sentence before the first judgement.
pub(crate) fn not_yet(
    context: &Context<'_>,
    judged: usize,
    every_ms: Option<i64>,
    last: i64,
) -> String {
    let after = humanize_ms(last - context.from_ms);
    match every_ms.filter(|_| judged == 0) {
        Some(every_ms) => format!(
            "first judged after {}, last after {after}.",
            humanize_ms(every_ms)
        ),
        None => format!("judged once, after {after}."),
    }
}

/// A verdict, its reason, and how it came about.
type Judged = (Outcome, Reason, String);

fn by_ranks(
    check: &Check,
    series: &SeriesCheck,
    context: &Context<'_>,
    pairs: &[(f64, f64)],
    evidence: &mut Evidence,
) -> Judged {
    let correlation = correlation(pairs);
    if correlation > CORRELATED {
        let share = words::ratio(correlation);
        warn(
            evidence,
            format!(
                "neighbouring points resemble each other (correlation {share}), and Mann and \
                 Whitney's test takes them for independent: it raises more false alarms than it \
                 says; blockPermutation and sequential allow for it"
            ),
        );
    }
    let confidence = 1.0 - 2.0 * alpha(check, series, context).min(0.25);
    let (mine, theirs): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    if let Some(shift) = mann_whitney::shift(&mine, &theirs, confidence) {
        let finite = |value: f64| value.is_finite().then_some(value);
        evidence.difference = finite(shift.estimate);
        evidence.difference_interval = Some(Interval {
            low: finite(shift.low),
            high: finite(shift.high),
            confidence,
        });
    }
    decide(check, series, context, |margin, worse| {
        let limits: Vec<f64> = theirs.iter().map(|b| limit(*b, margin, worse)).collect();
        let found = mann_whitney::test(&mine, &limits)?;
        Some((found.p_greater, found.p_less))
    })
}

fn by_permutation(
    check: &Check,
    series: &SeriesCheck,
    context: &Context<'_>,
    pairs: &[(f64, f64)],
    evidence: &mut Evidence,
) -> Judged {
    let block = permutation::block_length(correlation(pairs));
    let params = PermutationParams {
        center: Center::Mean,
        block,
        swaps: SWAPS,
        seed: SEED,
    };
    let blocks = pairs.len().div_ceil(block);
    let finest = 0.5_f64.powi(i32::try_from(blocks).unwrap_or(i32::MAX));
    if finest > alpha(check, series, context) {
        warn(
            evidence,
            format!(
                "{} points in blocks of {block} are too few to show anything at this error rate",
                pairs.len()
            ),
        );
    }
    decide(check, series, context, |margin, worse| {
        let with_limits = pairs.iter().map(|(a, b)| (*a, limit(*b, margin, worse)));
        let found = permutation::test(&with_limits.collect::<Vec<_>>(), &params)?;
        Some((found.p_greater, found.p_less))
    })
}

/// Decides by p-values of "above the limit" and "below the limit" at a margin, in the direction
/// that is worse.
fn decide(
    check: &Check,
    series: &SeriesCheck,
    context: &Context<'_>,
    p_values: impl Fn(&Margin, Worse) -> Option<(f64, f64)>,
) -> Judged {
    let sides = worse_sides(series.direction);
    let alpha = alpha(check, series, context) / sides.len() as f64;
    let beta = context.gate.false_passes;
    let mut beyond = Vec::new();
    let mut within = Vec::new();
    for worse in sides {
        let found = p_values(&series.worse_by, *worse).zip(p_values(&series.pass_within, *worse));
        let Some((tolerated, certified)) = found else {
            let how = "too few points to test".to_owned();
            return (Outcome::Inconclusive, Reason::InsufficientData, how);
        };
        match worse {
            Worse::Increase => {
                beyond.push(tolerated.0);
                within.push(certified.1);
            }
            Worse::Decrease => {
                beyond.push(tolerated.1);
                within.push(certified.0);
            }
        }
    }
    let worst = beyond.iter().copied().fold(1.0, f64::min);
    let least = within.iter().copied().fold(0.0, f64::max);
    let p = |p: f64| {
        if p < 0.0001 {
            "under 0.0001".to_owned()
        } else {
            format!("{p:.4}")
        }
    };
    if worst <= alpha {
        let how = format!(
            "chance alone would show as much with probability {}",
            p(worst)
        );
        (Outcome::Fail, Reason::WorseThanBaseline, how)
    } else if least <= beta {
        let how = format!(
            "one that is worse would look so with probability {}",
            p(least)
        );
        (Outcome::Pass, Reason::NotWorseThanBaseline, how)
    } else {
        let how = format!(
            "neither is shown (probabilities {} and {})",
            p(worst),
            p(least)
        );
        (Outcome::Inconclusive, Reason::NotYetDecided, how)
    }
}

fn by_kayenta(
    series: &SeriesCheck,
    mine: &[f64],
    theirs: &[f64],
    evidence: &mut Evidence,
) -> Judged {
    if series.horizon.every_ms.is_some() {
        warn(evidence, REPEATED.to_owned());
    }
    let relative = series.worse_by.relative.unwrap_or(0.0);
    let config = MetricConfig {
        direction: match series.direction {
            ChangeDirection::Increase => kayenta::Direction::Increase,
            ChangeDirection::Decrease => kayenta::Direction::Decrease,
            ChangeDirection::Either => kayenta::Direction::Either,
        },
        effect: EffectSize {
            allowed_increase: 1.0 + relative,
            allowed_decrease: (1.0 - relative).max(0.0),
            ..EffectSize::any(Measure::MeanRatio)
        },
        ..MetricConfig::default()
    };
    let found = kayenta::classify(mine, theirs, &config, SEED);
    if let Some(shift) = found.shift {
        let finite = |value: f64| value.is_finite().then_some(value);
        evidence.difference = finite(shift.estimate);
        evidence.difference_interval = Some(Interval {
            low: finite(shift.low),
            high: finite(shift.high),
            confidence: kayenta::Rules::default().confidence,
        });
    }
    if found.is_open {
        warn(
            evidence,
            "Kayenta's judge could not compute its test, and lets such a metric pass".to_owned(),
        );
    }
    let how = format!("Kayenta's judge says {}", found.class.name());
    match found.class {
        Class::Pass | Class::Error => (Outcome::Pass, Reason::NotWorseThanBaseline, how),
        Class::High | Class::Low => (Outcome::Fail, Reason::WorseThanBaseline, how),
        Class::NoData | Class::NoDataFail => (Outcome::Inconclusive, Reason::NoData, how),
    }
}

/// What is said wherever Kayenta's judge is asked more than once.
pub(crate) const REPEATED: &str = "Kayenta's judge is a test at a fixed horizon: judged again and \
                                   again, it raises false alarms again and again";

/// Its share of the gate's false alarms, divided by the number of judgements.
fn alpha(check: &Check, series: &SeriesCheck, context: &Context<'_>) -> f64 {
    false_alarms(context.gate, check) / lines::judgements(context.gate, series.horizon)
}

fn worse_sides(direction: ChangeDirection) -> &'static [Worse] {
    match direction {
        ChangeDirection::Increase => &[Worse::Increase],
        ChangeDirection::Decrease => &[Worse::Decrease],
        ChangeDirection::Either => &[Worse::Increase, Worse::Decrease],
    }
}

fn limit(baseline: f64, margin: &Margin, worse: Worse) -> f64 {
    let tolerated =
        margin.relative.unwrap_or(0.0) * baseline.abs() + margin.absolute.unwrap_or(0.0);
    match worse {
        Worse::Increase => baseline + tolerated,
        Worse::Decrease => baseline - tolerated,
    }
}

/// The sequential tests of a check: for each direction that is worse, one for a fail and one for
/// a pass.
struct Both {
    tests: Vec<(MeanTest, MeanTest)>,
    worse: f64,
    worse_max: f64,
}

impl Both {
    fn new(series: &SeriesCheck) -> Both {
        let test = |margin: &Margin, worse: Worse, direction: Direction| {
            MeanTest::new(MeanTestParams {
                worse,
                relative: margin.relative.unwrap_or(0.0),
                absolute: margin.absolute.unwrap_or(0.0),
                direction,
            })
        };
        let pair = |worse: &Worse| {
            let fail = test(&series.worse_by, *worse, Direction::Worse).ok()?;
            let pass = test(&series.pass_within, *worse, Direction::NotWorse).ok()?;
            Some((fail, pass))
        };
        // Parameters that no test accepts can't come from a parsed policy.
        let tests = worse_sides(series.direction).iter().filter_map(pair);
        Both {
            tests: tests.collect(),
            worse: 0.0,
            worse_max: 0.0,
        }
    }

    fn push(&mut self, candidate: f64, baseline: f64) {
        for (fail, pass) in &mut self.tests {
            fail.push(candidate, baseline);
            pass.push(candidate, baseline);
        }
        let now: Vec<(f64, f64)> = self
            .tests
            .iter()
            .map(|(fail, _)| (fail.log_e(), 1.0))
            .collect();
        self.worse = log_weighted_average(&now);
        self.worse_max = self.worse_max.max(self.worse);
    }

    /// A pass has to be shown in every direction.
    fn not_worse(&self) -> f64 {
        let all = self.tests.iter().map(|(_, pass)| pass.log_e_max());
        all.reduce(f64::min).unwrap_or(0.0)
    }
}

/// Each side's one series.
fn one_each<'s>(
    sides: &'s Sides,
    evidence: &mut Evidence,
) -> Result<(&'s Points, &'s Points), Early> {
    evidence.query = Some(sides.query.clone());
    evidence.baseline = Some(sides.compared_with.clone());
    for warning in &sides.warnings {
        warn(evidence, warning.clone());
    }
    let one = |found: &'s [Vec<Line>], reason: Reason, who: &str| {
        let found = found.first().map_or(&[][..], Vec::as_slice);
        match found {
            [] => Err(early(reason, format!("the query finds nothing of {who}."))),
            [line] if line.points.is_empty() => {
                Err(early(reason, format!("the query finds nothing of {who}.")))
            }
            [line] => Ok(&line.points),
            lines => Err(early(
                Reason::UnusableAnswer,
                format!(
                    "the query answers with {} series for {who}; aggregate them to one, for \
                     example with sum() or max().",
                    lines.len()
                ),
            )),
        }
    };
    let mine = one(&sides.candidate, Reason::NoData, "the candidate")?;
    let artifact = sides.compared_with.artifact.to_string();
    let theirs = one(&sides.baseline, Reason::NoBaseline, &artifact)?;
    Ok((mine, theirs))
}

fn paired(mine: &Points, theirs: &Points) -> Vec<(f64, f64)> {
    let pair = |(at, value): (&i64, &f64)| Some((*value, *theirs.get(at)?));
    let both = mine.iter().filter_map(pair);
    both.filter(|(a, b)| a.is_finite() && b.is_finite())
        .collect()
}

fn paired_until(at: i64, sides: &Sides) -> Vec<(f64, f64)> {
    let first = |found: &[Vec<Line>]| -> Points {
        let line = found.first().and_then(|lines| lines.first());
        let points = line.map(|line| line.points.range(..=at));
        points
            .into_iter()
            .flatten()
            .map(|(at, v)| (*at, *v))
            .collect()
    };
    paired(&first(&sides.candidate), &first(&sides.baseline))
}

fn correlation(pairs: &[(f64, f64)]) -> f64 {
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| a - b).collect();
    means::correlation(&differences).unwrap_or(0.0)
}

/// Both sides' means in words, and as evidence.
fn facts(pairs: &[(f64, f64)], sides: &Sides, evidence: &mut Evidence) -> String {
    let count = pairs.len() as f64;
    let finite = |value: f64| value.is_finite().then_some(value);
    let mine = pairs.iter().map(|(a, _)| a).sum::<f64>() / count;
    let theirs = pairs.iter().map(|(_, b)| b).sum::<f64>() / count;
    evidence.value = finite(mine);
    evidence.ratio = finite(mine / theirs);
    evidence.difference = finite(mine - theirs);
    let artifact = &sides.compared_with.artifact;
    format!(
        "{} against {} on {artifact} (means of {} points)",
        words::value(mine),
        words::value(theirs),
        words::count(count)
    )
}

fn tolerance(series: &SeriesCheck) -> String {
    let word = match series.direction {
        ChangeDirection::Increase => "more",
        ChangeDirection::Decrease => "less",
        ChangeDirection::Either => "more or less",
    };
    let margin = |margin: &Margin| {
        let relative = margin
            .relative
            .filter(|part| *part > 0.0)
            .map(words::percent);
        let absolute = margin.absolute.filter(|part| *part > 0.0).map(words::value);
        match (relative, absolute) {
            (Some(relative), Some(absolute)) => format!("{relative} and {absolute} {word}"),
            (Some(part), None) | (None, Some(part)) => format!("{part} {word}"),
            (None, None) => format!("nothing {word}"),
        }
    };
    let tolerated = margin(&series.worse_by);
    if series.worse_by == series.pass_within || series.method == SeriesMethod::Kayenta {
        return tolerated;
    }
    format!(
        "{tolerated}, a pass certifies at most {}",
        margin(&series.pass_within)
    )
}

fn warn(evidence: &mut Evidence, warning: String) {
    if !evidence.warnings.contains(&warning) {
        evidence.warnings.push(warning);
    }
}

#[cfg(test)]
mod tests;
