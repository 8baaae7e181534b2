//! All metrics of a canary: from classes to a score.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::Class;
use super::GroupScore;
use super::Judgement;
use super::Metric;
use super::MetricResult;
use super::ScoreClass;
use super::Thresholds;
use super::Zeroed;
use super::classify;

/// A share of metrics without data from which the score is 0.
const NO_DATA_SHARE: f64 = 0.5;

/// Judges a whole canary. `weights` are the groups' shares of 100; groups without one share
/// what is left. `seed` is used only for metrics whose sides are both constant.
pub fn judge(
    metrics: &[Metric<'_>],
    weights: &BTreeMap<String, f64>,
    thresholds: &Thresholds,
    seed: u64,
) -> Judgement {
    let results: Vec<MetricResult> = metrics
        .iter()
        .zip(0_u64..)
        .map(|(metric, at)| {
            let seed = seed.wrapping_add(at);
            classify(metric.experiment, metric.control, metric.config, seed)
        })
        .collect();
    score(metrics, results, weights, thresholds)
}

/// Scores metrics that were classified, `results` in the order of `metrics`. Muted ones count for
/// nothing.
pub fn score(
    metrics: &[Metric<'_>],
    results: Vec<MetricResult>,
    weights: &BTreeMap<String, f64>,
    thresholds: &Thresholds,
) -> Judgement {
    let heard = || {
        let both = metrics.iter().zip(&results).enumerate();
        both.filter(|(_, (metric, _))| !metric.config.muted)
    };
    let mut classes: BTreeMap<&str, Vec<Class>> = BTreeMap::new();
    for (_, (metric, result)) in heard() {
        for group in metric.groups {
            classes.entry(group).or_default().push(result.class);
        }
    }
    let groups: BTreeMap<String, GroupScore> = classes
        .into_iter()
        .map(|(group, classes)| (group.to_owned(), group_score(&classes)))
        .collect();
    let critical = heard().find(|(_, (_, r))| r.critical && r.class != Class::Pass);
    let count = |class: Class| heard().filter(|(_, (_, r))| r.class == class).count();
    let no_data = count(Class::NoData) as f64 / heard().count() as f64;
    let zeroed = match critical {
        Some((at, _)) => Some(Zeroed::Critical(at)),
        None => (no_data >= NO_DATA_SHARE).then_some(Zeroed::NoData),
    };
    let score = match zeroed {
        Some(_) => 0.0,
        None => two_decimals(weighted_sum(&groups, weights)),
    };
    let class = match score {
        score if score >= thresholds.pass => ScoreClass::Pass,
        score if score >= thresholds.marginal => ScoreClass::Marginal,
        _ => ScoreClass::Fail,
    };
    let is_open = class == ScoreClass::Pass
        && (heard().any(|(_, (_, r))| r.is_open || r.class == Class::NoData)
            || groups.values().any(|group| group.has_no_data));
    Judgement {
        groups,
        score,
        class,
        zeroed,
        is_open,
        metrics: results,
    }
}

fn group_score(classes: &[Class]) -> GroupScore {
    let count = |of: &[Class]| classes.iter().filter(|class| of.contains(class)).count();
    let passed = count(&[Class::Pass]);
    let answered = passed + count(&[Class::High, Class::Low, Class::NoDataFail]);
    GroupScore {
        score: match answered {
            0 => 0.0,
            _ => passed as f64 / answered as f64 * 100.0,
        },
        has_no_data: answered == 0,
    }
}

/// A listed group without metrics adds nothing, so its weight is lost.
fn weighted_sum(groups: &BTreeMap<String, GroupScore>, weights: &BTreeMap<String, f64>) -> f64 {
    let listed: f64 = weights.values().sum();
    let unlisted: BTreeSet<&String> = groups
        .keys()
        .filter(|group| !weights.contains_key(*group))
        .collect();
    let rest = match unlisted.len() {
        0 => 0.0,
        count => (100.0 - listed) / count as f64,
    };
    let mut sum = 0.0;
    for (group, found) in groups {
        let score = if found.has_no_data {
            100.0
        } else {
            found.score
        };
        sum += score * (weights.get(group).copied().unwrap_or(rest) / 100.0);
    }
    sum
}

/// Rounded to two decimals, halves away from zero, by the number's shortest decimal form.
fn two_decimals(value: f64) -> f64 {
    if !value.is_finite() {
        return value;
    }
    let text = format!("{}", value.abs());
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    let kept: String = decimals.chars().take(2).collect();
    let cents: f64 = format!("{whole}{kept:0<2}").parse().unwrap_or(f64::NAN);
    let up = decimals.chars().nth(2).is_some_and(|digit| digit >= '5');
    let cents = if up { cents + 1.0 } else { cents };
    (cents / 100.0).copysign(value)
}
