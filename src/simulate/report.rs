//! What a simulation found.
//!
//! In a benign scenario every alarm is false. In a bad one an alarm detects the regression if it
//! comes after its onset; one before it is false and counts as a miss. A delay is from the onset
//! to the end of the minute in which the alarm came. Median and 90th percentile are of the
//! rollouts that were detected; the mean is of all, a miss counting as [`MISSED`].

use serde::Serialize;
use slogate_stats::special::beta_quantile;

use super::run::{Outcome, Plan};
use super::scenario::{Scenario, Truth};

/// What a regression that nobody saw counts as, in minutes.
pub(crate) const MISSED: f64 = 60.0;

/// The confidence of intervals.
const CONFIDENCE: f64 = 0.95;

/// Everything that a simulation found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Rollouts of each scenario.
    pub(crate) rollouts: u32,
    /// The seed.
    pub(crate) seed: u64,
    /// The gate's name.
    pub(crate) gate: String,
    /// The SHA-256 of the gate's canonical form.
    pub(crate) policy_hash: String,
    /// Who judged.
    pub(crate) judges: Vec<About>,
    /// What was found for each scenario.
    pub(crate) scenarios: Vec<Row>,
    /// Each judge over all scenarios.
    pub(crate) overall: Vec<Overall>,
}

/// A judge and what it does.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct About {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) about: &'static str,
}

/// One scenario's results.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    /// The scenario's name.
    pub(crate) scenario: &'static str,
    /// What happens in it.
    pub(crate) about: &'static str,
    /// Whether the version is bad.
    pub(crate) is_bad: bool,
    /// The first minute of the regression.
    pub(crate) onset_minute: Option<u32>,
    /// Each judge's.
    pub(crate) results: Vec<Summary>,
}

/// One judge's results in one scenario; shares are from 0 to 1, times in minutes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    /// The judge's name.
    pub(crate) judge: &'static str,
    /// How many rollouts were judged.
    pub(crate) rollouts: usize,
    /// The share of rollouts that were stopped, rightly or not.
    pub(crate) alarm_rate: f64,
    /// Where that share lies with 95 % confidence (Clopper-Pearson).
    pub(crate) alarm_rate_low: f64,
    /// The upper end of it.
    pub(crate) alarm_rate_high: f64,
    /// The share of false alarms: all of a benign scenario, those before the onset of a bad one.
    pub(crate) false_alarm_rate: f64,
    /// The share of rollouts stopped after the onset; absent in a benign scenario.
    pub(crate) detection_rate: Option<f64>,
    /// Median delay of the detected, from the onset.
    pub(crate) median_delay_min: Option<f64>,
    /// The delay that nine in ten of the detected don't exceed.
    pub(crate) p90_delay_min: Option<f64>,
    /// Median time of the alarm from the start of the rollout.
    pub(crate) median_alarm_min: Option<f64>,
    /// Mean delay from the onset, a miss counting as 60; absent in a benign scenario.
    pub(crate) mean_delay_min: Option<f64>,
    /// Mean number of requests harmed until the alarm, or in the hour.
    pub(crate) mean_harmed: f64,
    /// The share of rollouts that were let pass, and not stopped before.
    pub(crate) pass_first_rate: f64,
    /// Median time of those.
    pub(crate) median_pass_min: Option<f64>,
    /// The share in which an instance was suspected and the version not stopped.
    pub(crate) suspect_rate: f64,
}

/// One judge over all scenarios; each scenario counts the same.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Overall {
    /// The judge's name.
    pub(crate) judge: &'static str,
    /// Mean false alarm rate of the benign scenarios.
    pub(crate) mean_false_alarm_rate: Option<f64>,
    /// The highest of them.
    pub(crate) worst_false_alarm_rate: Option<f64>,
    /// Where that was.
    pub(crate) worst_scenario: Option<&'static str>,
    /// Mean detection rate of the bad scenarios.
    pub(crate) mean_detection_rate: Option<f64>,
    /// Mean delay of the bad scenarios, a miss counting as 60.
    pub(crate) mean_delay_min: Option<f64>,
}

impl Report {
    /// Sums up rows.
    pub(crate) fn new(plan: &Plan, scenarios: Vec<Row>) -> Report {
        let judges = plan.judges.iter();
        let overall = judges.clone().enumerate();
        Report {
            rollouts: plan.rollouts,
            seed: plan.seed,
            gate: plan.gate.name.clone(),
            policy_hash: plan.gate.hash.clone(),
            overall: overall
                .map(|(at, judge)| Overall::of(judge.name(), at, &scenarios))
                .collect(),
            judges: judges
                .map(|judge| About {
                    name: judge.name(),
                    about: judge.about(),
                })
                .collect(),
            scenarios,
        }
    }
}

impl Row {
    /// Results with what they are of.
    pub(crate) fn new(scenario: &Scenario, results: Vec<Summary>) -> Row {
        Row {
            scenario: scenario.name,
            about: scenario.about,
            is_bad: scenario.onset().is_some(),
            onset_minute: scenario.onset(),
            results,
        }
    }
}

impl Summary {
    /// Sums up the outcomes of one judge in one scenario.
    pub(crate) fn of(judge: &'static str, truth: Truth, outcomes: &[Outcome]) -> Summary {
        let count = outcomes.len();
        let share = |is: &dyn Fn(&Outcome) -> bool| {
            outcomes.iter().filter(|outcome| is(outcome)).count() as f64 / count.max(1) as f64
        };
        let alarms = outcomes.iter().filter(|outcome| outcome.alarm.is_some());
        let (alarm_rate_low, alarm_rate_high) = clopper_pearson(alarms.count(), count);
        let onset = match truth {
            Truth::Benign => None,
            Truth::Bad { onset } => Some(onset),
        };
        let is_false = |outcome: &Outcome| match (outcome.alarm, onset) {
            (Some(alarm), Some(onset)) => alarm <= onset,
            (alarm, None) => alarm.is_some(),
            (None, _) => false,
        };
        let delay = |outcome: &Outcome| {
            let delay = outcome.alarm?.checked_sub(onset?)?;
            (delay > 0).then_some(f64::from(delay))
        };
        let delays = sorted(outcomes.iter().filter_map(delay));
        let passed_first = |outcome: &Outcome| {
            outcome
                .pass
                .is_some_and(|pass| outcome.alarm.is_none_or(|alarm| pass < alarm))
        };
        let passes = outcomes.iter().filter(|outcome| passed_first(outcome));
        let mean = |of: &dyn Fn(&Outcome) -> f64| {
            outcomes.iter().map(of).sum::<f64>() / count.max(1) as f64
        };
        Summary {
            judge,
            rollouts: count,
            alarm_rate: share(&|outcome| outcome.alarm.is_some()),
            alarm_rate_low,
            alarm_rate_high,
            false_alarm_rate: share(&is_false),
            detection_rate: onset.map(|_| share(&|outcome| delay(outcome).is_some())),
            median_delay_min: percentile(&delays, 0.5),
            p90_delay_min: percentile(&delays, 0.9),
            median_alarm_min: percentile(
                &sorted(outcomes.iter().filter_map(|o| o.alarm).map(f64::from)),
                0.5,
            ),
            mean_delay_min: onset.map(|_| mean(&|outcome| delay(outcome).unwrap_or(MISSED))),
            mean_harmed: mean(&|outcome| outcome.harmed),
            pass_first_rate: share(&passed_first),
            median_pass_min: percentile(&sorted(passes.filter_map(|o| o.pass).map(f64::from)), 0.5),
            suspect_rate: share(&|o| o.suspect.is_some() && o.alarm.is_none()),
        }
    }
}

impl Overall {
    fn of(judge: &'static str, at: usize, rows: &[Row]) -> Overall {
        let of = |is_bad: bool| {
            let rows = rows.iter().filter(move |row| row.is_bad == is_bad);
            rows.filter_map(move |row| Some((row.scenario, row.results.get(at)?)))
        };
        let worst = of(false).max_by(|(_, a), (_, b)| a.alarm_rate.total_cmp(&b.alarm_rate));
        let worst = worst.filter(|(_, summary)| summary.alarm_rate > 0.0);
        Overall {
            judge,
            mean_false_alarm_rate: mean(of(false).map(|(_, summary)| summary.alarm_rate)),
            worst_false_alarm_rate: worst.map(|(_, summary)| summary.alarm_rate),
            worst_scenario: worst.map(|(scenario, _)| scenario),
            mean_detection_rate: mean(of(true).filter_map(|(_, summary)| summary.detection_rate)),
            mean_delay_min: mean(of(true).filter_map(|(_, summary)| summary.mean_delay_min)),
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0u32);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The least value that a share `p` of the sorted values does not exceed.
fn percentile(sorted: &[f64], p: f64) -> Option<f64> {
    let rank = (p * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Where a share lies of which `hits` of `tries` were seen. Source: C. J. Clopper and E. S.
/// Pearson, The use of confidence or fiducial limits, Biometrika 26 (1934).
pub(crate) fn clopper_pearson(hits: usize, tries: usize) -> (f64, f64) {
    let (hits, misses) = (hits as f64, tries.saturating_sub(hits) as f64);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    (
        beta_quantile(hits, misses + 1.0, tail).unwrap_or(0.0),
        beta_quantile(hits + 1.0, misses, 1.0 - tail).unwrap_or(1.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(alarm: Option<u32>, pass: Option<u32>) -> Outcome {
        Outcome {
            alarm,
            pass,
            suspect: None,
            harmed: 2.0,
        }
    }

    #[test]
    fn an_alarm_before_the_onset_detects_nothing() {
        let outcomes = vec![
            outcome(Some(30), None),
            outcome(Some(31), Some(5)),
            outcome(Some(41), None),
            outcome(None, Some(50)),
        ];
        let found = Summary::of("x", Truth::Bad { onset: 30 }, &outcomes);
        assert_eq!(found.alarm_rate, 0.75);
        assert_eq!(found.false_alarm_rate, 0.25);
        assert_eq!(found.detection_rate, Some(0.5));
        assert_eq!(found.median_delay_min, Some(1.0));
        assert_eq!(found.p90_delay_min, Some(11.0));
        assert_eq!(found.median_alarm_min, Some(31.0));
        assert_eq!(found.mean_delay_min, Some((60.0 + 1.0 + 11.0 + 60.0) / 4.0));
        assert_eq!(found.pass_first_rate, 0.5);
        assert_eq!(found.median_pass_min, Some(5.0));
    }

    #[test]
    fn in_a_benign_rollout_every_alarm_is_false() {
        let outcomes = vec![outcome(Some(1), None), outcome(None, None)];
        let found = Summary::of("x", Truth::Benign, &outcomes);
        assert_eq!((found.alarm_rate, found.false_alarm_rate), (0.5, 0.5));
        assert_eq!((found.detection_rate, found.mean_delay_min), (None, None));
        let nothing = Summary::of("x", Truth::Benign, &[]);
        assert_eq!((nothing.alarm_rate, nothing.alarm_rate_high), (0.0, 1.0));
    }

    /// Of no alarm in 2,000: less than 0.185 %; 8 of 20 are 19.1 to 63.9 % (published tables).
    #[test]
    fn intervals_are_clopper_and_pearsons() {
        let (low, high) = clopper_pearson(0, 2_000);
        assert!(low == 0.0 && (high - 0.001_842_8).abs() < 1e-6, "{high}");
        let (low, high) = clopper_pearson(8, 20);
        assert!((low - 0.191_2).abs() < 1e-4 && (high - 0.639_5).abs() < 1e-4);
        assert_eq!(clopper_pearson(5, 5).1, 1.0);
    }
}
