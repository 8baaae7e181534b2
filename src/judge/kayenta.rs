//! A canary config of Kayenta's, judged as Kayenta's NetflixACAJudge does.
//!
//! Every metric's query is asked for both sides, and series are paired by their labels: a series
//! that one side lacks is all NaN there. The score decides: at least `pass` is a pass, at least
//! `marginal` is inconclusive, less is a fail. So missing data is judged as the config says, not
//! as slogate's own checks do: half of the metrics without data fail a canary, a metric without
//! data whose `nanStrategy` is `replace` passes, and so does one that can't be computed. Each time
//! that let the canary pass, a warning says so.
//!
//! It is judged once, when `after` is over; with `every` also before, and then a fail stands and
//! else the newest judgement counts. A source that fails and series that can't be paired are
//! inconclusive.

use std::collections::{BTreeMap, BTreeSet};

use slogate_stats::kayenta::{self, Class, Judgement, Metric, ScoreClass, Zeroed};

use super::Context;
use super::compare::{Early, result};
use super::lines::{self, Line, Sides, Span, early};
use super::series::{REPEATED, SEED, not_yet};
use super::words;
use crate::model::{CheckResult, Evidence, Outcome, Reason, TimeRange};
use crate::policy::{Check, KayentaCheck, Template};

/// At most this many metrics are named in a sentence.
const NAMED_MAX: usize = 5;

/// Answers a check by a canary config.
pub(crate) async fn answer(
    check: &Check,
    config: &KayentaCheck,
    context: &Context<'_>,
) -> CheckResult {
    let mut evidence = Evidence {
        data: Some(TimeRange {
            start_ms: context.from_ms,
            end_ms: context.now_ms,
        }),
        threshold: Some(format!(
            "pass at {}, fail below {}",
            config.thresholds.pass, config.thresholds.marginal
        )),
        ..Evidence::default()
    };
    let name = &check.name;
    match judge(config, context, &mut evidence).await {
        Ok((judgement, pairs)) => {
            let (verdict, reason) = match judgement.class {
                ScoreClass::Pass => (Outcome::Pass, Reason::NotWorseThanBaseline),
                ScoreClass::Marginal => (Outcome::Inconclusive, Reason::NotYetDecided),
                ScoreClass::Fail => (Outcome::Fail, Reason::WorseThanBaseline),
            };
            let message = format!("{name}: {}", sentence(&judgement, &pairs, config));
            result(check, verdict, reason, message, evidence)
        }
        Err(Early { reason, message }) => {
            let message = format!("{name}: {message}");
            result(check, Outcome::Inconclusive, reason, message, evidence)
        }
    }
}

/// One metric's series of one label set on both sides.
struct Pair<'c> {
    metric: &'c crate::policy::KayentaMetric,
    experiment: Line,
    control: Line,
}

async fn judge<'c>(
    config: &'c KayentaCheck,
    context: &Context<'_>,
    evidence: &mut Evidence,
) -> Result<(Judgement, Vec<Pair<'c>>), Early> {
    let (times, last) = lines::judged_at(context, config.horizon);
    let Some(newest) = times.last().copied() else {
        let message = not_yet(context, 0, config.horizon.every_ms, last);
        return Err(early(Reason::NotYetDecided, message));
    };
    let span = Span::of(context, config.step_ms, newest);
    let exprs: Vec<&Template> = config.metrics.iter().map(|metric| &metric.expr).collect();
    let sides = lines::both(context, &exprs, span, config.against).await?;
    evidence.baseline = Some(sides.compared_with.clone());
    evidence.query = Some(sides.query.clone());
    evidence.warnings.clone_from(&sides.warnings);
    if config.horizon.every_ms.is_some() {
        evidence.warnings.push(REPEATED.to_owned());
    }
    let pairs = paired(config, &sides)?;
    let mut judgement = judge_until(i64::MIN, config, &pairs);
    for at in times {
        judgement = judge_until(at, config, &pairs);
        if judgement.class == ScoreClass::Fail {
            break;
        }
    }
    evidence.value = judgement.score.is_finite().then_some(judgement.score);
    evidence
        .warnings
        .extend(remarks(&judgement, &pairs, config));
    Ok((judgement, pairs))
}

fn judge_until(at: i64, config: &KayentaCheck, pairs: &[Pair<'_>]) -> Judgement {
    let upto = |line: &Line| -> Vec<f64> { line.points.range(..=at).map(|(_, v)| *v).collect() };
    let values: Vec<(Vec<f64>, Vec<f64>)> = pairs
        .iter()
        .map(|pair| (upto(&pair.experiment), upto(&pair.control)))
        .collect();
    let metrics: Vec<Metric<'_>> = pairs
        .iter()
        .zip(&values)
        .map(|(pair, (experiment, control))| Metric {
            name: &pair.metric.name,
            groups: &pair.metric.groups,
            config: &pair.metric.config,
            experiment,
            control,
        })
        .collect();
    kayenta::judge(&metrics, &config.group_weights, &config.thresholds, SEED)
}

fn paired<'c>(config: &'c KayentaCheck, sides: &Sides) -> Result<Vec<Pair<'c>>, Early> {
    let mut pairs = Vec::new();
    let both = sides.candidate.iter().zip(&sides.baseline);
    for (metric, (experiment, control)) in config.metrics.iter().zip(both) {
        let names = |lines: &[Line]| -> BTreeSet<String> {
            let labels = lines.iter().flat_map(|line| &line.labels);
            labels.map(|(name, _)| name.clone()).collect()
        };
        let (mine, theirs) = (names(experiment), names(control));
        if !mine.is_empty() && !theirs.is_empty() && mine != theirs {
            return Err(early(
                Reason::UnusableAnswer,
                format!(
                    "the series of {} carry the labels {} for the candidate and {} for the \
                     baseline, and can't be paired: aggregate by the same labels.",
                    metric.name,
                    listed(&mine),
                    listed(&theirs)
                ),
            ));
        }
        for (experiment, control) in paired_lines(experiment, control) {
            pairs.push(Pair {
                metric,
                experiment,
                control,
            });
        }
    }
    Ok(pairs)
}

fn listed(names: &BTreeSet<String>) -> String {
    names
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Pairs by equal labels. Where one side has a series without labels, or none at all, and the
/// other's all have some, that one stands back.
fn paired_lines(experiment: &[Line], control: &[Line]) -> Vec<(Line, Line)> {
    let bare = Line {
        labels: Vec::new(),
        points: BTreeMap::new(),
    };
    // Kayenta has an empty series where a side answers with nothing.
    let or_bare = |lines: &[Line]| match lines {
        [] => vec![bare.clone()],
        lines => lines.to_vec(),
    };
    let (experiment, control) = (or_bare(experiment), or_bare(control));
    let has_bare = |lines: &[Line]| lines.iter().any(|line| line.labels.is_empty());
    let mut labels: BTreeSet<&Vec<(String, String)>> = BTreeSet::new();
    match (has_bare(&experiment), has_bare(&control)) {
        (true, false) => labels.extend(control.iter().map(|line| &line.labels)),
        (false, true) => labels.extend(experiment.iter().map(|line| &line.labels)),
        _ => labels.extend(experiment.iter().chain(&control).map(|line| &line.labels)),
    }
    let one = |lines: &[Line], labels: &Vec<(String, String)>| {
        let found = lines.iter().find(|line| line.labels == *labels);
        found.cloned().unwrap_or_else(|| no_number(lines, labels))
    };
    let pair = |labels| (one(&experiment, labels), one(&control, labels));
    labels.into_iter().map(pair).collect()
}

/// A series that a side lacks: as many NaN as the side's first series has points; none where
/// that has fewer than two, from which no step could be told.
fn no_number(lines: &[Line], labels: &[(String, String)]) -> Line {
    let first = lines.first().filter(|line| line.points.len() > 1);
    let times = first.into_iter().flat_map(|line| line.points.keys());
    Line {
        labels: labels.to_vec(),
        points: times.map(|at| (*at, f64::NAN)).collect(),
    }
}

/// What a reader should know that the score doesn't say.
fn remarks(judgement: &Judgement, pairs: &[Pair<'_>], config: &KayentaCheck) -> Vec<String> {
    let mut remarks = Vec::new();
    let heard = || {
        let both = pairs.iter().zip(&judgement.metrics);
        both.filter(|(pair, _)| !pair.metric.config.muted)
    };
    let of = |class: Class, is_open: Option<bool>| {
        let fits = |found: &kayenta::MetricResult| {
            found.class == class && is_open.is_none_or(|open| found.is_open == open)
        };
        named(
            heard()
                .filter(|(_, found)| fits(found))
                .map(|(pair, _)| pair),
        )
    };
    if let Some(names) = of(Class::Pass, Some(true)) {
        remarks.push(format!(
            "without any data, and so a pass by its nanStrategy: {names}"
        ));
    }
    if let Some(names) = of(Class::Error, None) {
        remarks.push(format!(
            "could not be computed, and so counts for nothing: {names}"
        ));
    }
    if let Some(names) = of(Class::NoData, None) {
        remarks.push(format!("without data, and so counts for nothing: {names}"));
    }
    if judgement.is_open {
        remarks.push(
            "Kayenta's judge passes this canary without evidence for all of its metrics".to_owned(),
        );
    }
    if judgement.score == config.thresholds.marginal {
        remarks.push(
            "the score is exactly the marginal one: Kayenta's judge calls it marginal, Kayenta's \
             scheduler would stop the rollout"
                .to_owned(),
        );
    }
    remarks
}

fn named<'p, 'c: 'p>(pairs: impl Iterator<Item = &'p Pair<'c>>) -> Option<String> {
    let mut names: Vec<String> = Vec::new();
    let mut more = 0;
    for pair in pairs {
        match names.len() < NAMED_MAX {
            true => names.push(name(pair)),
            false => more += 1,
        }
    }
    if more > 0 {
        names.push(format!("{more} more"));
    }
    (!names.is_empty()).then(|| names.join(", "))
}

fn name(pair: &Pair<'_>) -> String {
    let labels = &pair.experiment.labels;
    if labels.is_empty() {
        return pair.metric.name.clone();
    }
    let labels: Vec<String> = labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
    format!("{} ({})", pair.metric.name, labels.join(", "))
}

fn sentence(judgement: &Judgement, pairs: &[Pair<'_>], config: &KayentaCheck) -> String {
    let score = words::value(judgement.score);
    let failed = pairs
        .iter()
        .zip(&judgement.metrics)
        .filter(|(pair, found)| {
            let counts = matches!(found.class, Class::High | Class::Low | Class::NoDataFail);
            counts && !pair.metric.config.muted
        });
    let failed: Vec<String> = failed
        .take(NAMED_MAX)
        .map(|(pair, found)| {
            let ratio = match found.ratio.is_finite() && found.ratio != 1.0 {
                true => format!(", mean ratio {}", words::ratio(found.ratio)),
                false => String::new(),
            };
            format!("{} is {}{ratio}", name(pair), found.class.name())
        })
        .collect();
    let failed = match failed.is_empty() {
        true => String::new(),
        false => format!(": {}", failed.join("; ")),
    };
    match judgement.zeroed {
        Some(Zeroed::Critical(at)) => {
            let critical = pairs.get(at).map(name).unwrap_or_default();
            let found = judgement.metrics.get(at).map(|found| found.class);
            let why = match found {
                Some(Class::NoData | Class::NoDataFail) => "has no data",
                _ => "doesn't pass",
            };
            format!("score 0, because the critical metric {critical} {why}{failed}.")
        }
        Some(Zeroed::NoData) => {
            "score 0, because half of the metrics or more have no data.".to_owned()
        }
        None => format!("score {score} of {}{failed}.", config.thresholds.pass),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(label: Option<&str>, points: usize) -> Line {
        Line {
            labels: label
                .map(|v| ("pod".to_owned(), v.to_owned()))
                .into_iter()
                .collect(),
            points: (0..points as i64).map(|at| (at, 1.0)).collect(),
        }
    }

    /// Whether it has a label, and each side's numbers.
    fn shape(pairs: &[(Line, Line)]) -> Vec<(bool, usize, usize)> {
        let numbers = |line: &Line| line.points.values().filter(|v| !v.is_nan()).count();
        let pair = |(mine, theirs): &(Line, Line)| {
            assert_eq!(mine.labels, theirs.labels);
            (!mine.labels.is_empty(), numbers(mine), numbers(theirs))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn series_are_paired_by_equal_labels() {
        let pairs = paired_lines(
            &[line(Some("a"), 3), line(Some("b"), 3)],
            &[line(Some("b"), 2), line(Some("c"), 2)],
        );
        let expected = [(true, 3, 0), (true, 3, 2), (true, 0, 2)];
        assert_eq!(shape(&pairs), expected);
        // The one that is lacking is as long as the side's first.
        assert_eq!(pairs[0].1.points.len(), 2);
    }

    #[test]
    fn a_side_without_labels_stands_back() {
        let pairs = paired_lines(&[line(Some("a"), 3)], &[]);
        assert_eq!(shape(&pairs), [(true, 3, 0)]);
        assert_eq!(pairs[0].1.points.len(), 0);
        assert_eq!(shape(&paired_lines(&[], &[])), [(false, 0, 0)]);
        let both = paired_lines(&[line(None, 4)], &[line(None, 5)]);
        assert_eq!(shape(&both), [(false, 4, 5)]);
    }
}
