//! What a backtest says: each rollout, each policy's summary, where policies differ.
//!
//! With labels, a fail is a call of "bad". `precision` is the share of fails that were bad,
//! `recall` the share of bad rollouts that failed, `falseAlarmRate` the share of good ones that
//! failed. A rollout that stays inconclusive is neither called bad nor let through: it is missed
//! where it was bad, and counted on its own. Rollouts that could not be read count nowhere but in
//! `errors`. Delays are from the onset where a label has one, else from the rollout's begin, and
//! of detected rollouts only; a fail before the onset counts as a fail, with a delay of zero.

use std::collections::BTreeMap;

use serde::Serialize;

use super::harm::Point;
use super::labels::Truth;
use super::replay::Replay;
use crate::model::Outcome;
use crate::model::time::rfc3339_option;

/// The result of a backtest.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// In the order in which they were found.
    pub rollouts: Vec<RolloutReport>,
    /// One for each policy.
    pub summary: Vec<Summary>,
    /// The rollouts that two policies judge differently.
    pub differences: Vec<Difference>,
    /// Whether it was broken off before all rollouts were replayed.
    pub interrupted: bool,
}

/// One rollout.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutReport {
    /// Its name.
    pub rollout: String,
    /// Its folder.
    pub path: String,
    /// What is known about it.
    pub label: Option<Truth>,
    /// Since when it was bad.
    #[serde(rename = "onsetAt", with = "rfc3339_option")]
    pub onset_ms: Option<i64>,
    /// Why it could not be replayed; all below is empty then.
    pub error: Option<String>,
    /// The service.
    pub service: String,
    /// The environment; empty where not known.
    pub environment: String,
    /// The version under judgement.
    pub candidate: String,
    /// What it is compared with; empty where not known.
    pub baseline: String,
    /// When it began.
    #[serde(rename = "startedAt", with = "rfc3339_option")]
    pub started_ms: Option<i64>,
    /// When the recording ends.
    #[serde(rename = "endedAt", with = "rfc3339_option")]
    pub ended_ms: Option<i64>,
    /// How it was read, as far as nobody said.
    pub assumptions: Vec<String>,
    /// What was left out or looks odd.
    pub notes: Vec<String>,
    /// What each policy said.
    pub results: Vec<Replay>,
    /// What both sides did, block by block.
    pub series: Vec<Point>,
}

/// A policy over all rollouts.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The policy's name.
    pub policy: String,
    /// All rollouts.
    pub rollouts: usize,
    /// Of them those that could not be read.
    pub errors: usize,
    /// Failed.
    pub fail: usize,
    /// Passed.
    pub pass: usize,
    /// Neither.
    pub inconclusive: usize,
    /// With a time at which the candidate sent nothing.
    pub no_data: usize,
    /// Labelled good.
    pub good: usize,
    /// Labelled bad.
    pub bad: usize,
    /// Bad, and failed.
    pub detected: usize,
    /// Bad, and passed at the end.
    pub passed_bad: usize,
    /// Good, and failed.
    pub false_alarms: usize,
    /// Good, and passed.
    pub passed_good: usize,
    /// Share of labelled fails that were bad.
    pub precision: Option<f64>,
    /// Share of bad rollouts that failed.
    pub recall: Option<f64>,
    /// Share of good rollouts that failed.
    pub false_alarm_rate: Option<f64>,
    /// Share of rollouts that stayed inconclusive.
    pub inconclusive_rate: Option<f64>,
    /// Of detected rollouts.
    pub median_delay_seconds: Option<f64>,
    /// Of detected rollouts.
    pub p90_delay_seconds: Option<f64>,
    /// From begin to pass, of those that passed.
    pub median_pass_seconds: Option<f64>,
    /// Of bad rollouts; of all where nothing is labelled.
    pub requests_harmed: f64,
}

/// A rollout that policies judge differently.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The rollout.
    pub rollout: String,
    /// What is known about it.
    pub label: Option<Truth>,
    /// Each policy's verdict.
    pub verdicts: BTreeMap<String, Outcome>,
}

impl Report {
    /// Sums up.
    pub(crate) fn new(
        rollouts: Vec<RolloutReport>,
        policies: &[String],
        interrupted: bool,
    ) -> Report {
        let summary = (0..)
            .zip(policies)
            .map(|(at, name)| Summary::of(&rollouts, at, name));
        Report {
            summary: summary.collect(),
            differences: differences(&rollouts),
            rollouts,
            interrupted,
        }
    }

    /// How many rollouts could not be read.
    pub fn errors(&self) -> usize {
        let broken = self.rollouts.iter().filter(|one| one.error.is_some());
        broken.count()
    }
}

impl RolloutReport {
    /// From onset (or begin) to the fail, in seconds.
    pub(crate) fn delay_seconds(&self, replay: &Replay) -> Option<f64> {
        let from_ms = self.onset_ms.max(self.started_ms)?;
        let is_fail = replay.verdict == Outcome::Fail;
        is_fail.then(|| (replay.decided_ms - from_ms).max(0) as f64 / 1000.0)
    }
}

impl Summary {
    fn of(rollouts: &[RolloutReport], at: usize, policy: &str) -> Summary {
        let mut summary = Summary {
            policy: policy.to_owned(),
            rollouts: rollouts.len(),
            ..Summary::default()
        };
        let (mut delays, mut passes) = (Vec::new(), Vec::new());
        let is_labelled = rollouts.iter().any(|one| one.label.is_some());
        for rollout in rollouts {
            let Some(replay) = rollout.results.get(at) else {
                summary.errors += 1;
                continue;
            };
            let (is_good, is_bad) = (
                rollout.label == Some(Truth::Good),
                rollout.label == Some(Truth::Bad),
            );
            summary.good += usize::from(is_good);
            summary.bad += usize::from(is_bad);
            summary.no_data += usize::from(!replay.no_data.is_empty());
            match replay.verdict {
                Outcome::Fail => {
                    summary.fail += 1;
                    summary.detected += usize::from(is_bad);
                    summary.false_alarms += usize::from(is_good);
                    if is_bad || !is_labelled {
                        delays.extend(rollout.delay_seconds(replay));
                    }
                }
                Outcome::Pass => {
                    summary.pass += 1;
                    summary.passed_bad += usize::from(is_bad);
                    summary.passed_good += usize::from(is_good);
                    passes.extend(replay.seconds_to_verdict);
                }
                Outcome::Inconclusive => summary.inconclusive += 1,
            }
            if is_bad || !is_labelled {
                summary.requests_harmed += replay.requests_harmed;
            }
        }
        let share = |part: usize, of: usize| (of > 0).then(|| part as f64 / of as f64);
        summary.precision = share(summary.detected, summary.detected + summary.false_alarms);
        summary.recall = share(summary.detected, summary.bad);
        summary.false_alarm_rate = share(summary.false_alarms, summary.good);
        summary.inconclusive_rate = share(summary.inconclusive, summary.rollouts - summary.errors);
        summary.median_delay_seconds = quantile(&mut delays, 0.5);
        summary.p90_delay_seconds = quantile(&mut delays, 0.9);
        summary.median_pass_seconds = quantile(&mut passes, 0.5);
        summary
    }
}

/// The value that a share `q` of the others does not exceed; between the two middle ones for the
/// median of an even number.
fn quantile(values: &mut [f64], q: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let place = q * (values.len().checked_sub(1)? as f64);
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    let (low, high) = (values.get(low)?, values.get(high)?);
    Some(low + (high - low) * place.fract())
}

fn differences(rollouts: &[RolloutReport]) -> Vec<Difference> {
    let differ = rollouts.iter().filter(|one| {
        let mut verdicts = one.results.iter().map(|replay| replay.verdict);
        let first = verdicts.next();
        verdicts.any(|verdict| Some(verdict) != first)
    });
    differ
        .map(|one| Difference {
            rollout: one.rollout.clone(),
            label: one.label,
            verdicts: one
                .results
                .iter()
                .map(|replay| (replay.policy.clone(), replay.verdict))
                .collect(),
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::Reason;

    /// A replay with that verdict after so many seconds.
    pub(crate) fn replayed(verdict: Outcome, seconds: f64) -> Replay {
        let decided_ms = (seconds * 1000.0) as i64;
        Replay {
            policy: "built-in".to_owned(),
            gates: vec!["canary".to_owned()],
            verdict,
            reason: Reason::CheckFailed,
            message: "because".to_owned(),
            decided_ms,
            seconds_to_verdict: (verdict != Outcome::Inconclusive).then_some(seconds),
            first_pass_ms: None,
            failed_requests: 3.0,
            slow_requests: 1.0,
            requests_harmed: 4.0,
            no_data: Vec::new(),
            timeline: Vec::new(),
            failed_checks: Vec::new(),
            checks: Vec::new(),
        }
    }

    /// A rollout that began at 0.
    pub(crate) fn rollout(name: &str, label: Option<Truth>, results: Vec<Replay>) -> RolloutReport {
        RolloutReport {
            rollout: name.to_owned(),
            path: format!("/{name}"),
            label,
            onset_ms: None,
            error: results.is_empty().then(|| "broken".to_owned()),
            service: "shop".to_owned(),
            environment: String::new(),
            candidate: "2".to_owned(),
            baseline: "1".to_owned(),
            started_ms: Some(0),
            ended_ms: Some(3_600_000),
            assumptions: Vec::new(),
            notes: Vec::new(),
            results,
            series: Vec::new(),
        }
    }

    #[test]
    fn shares_are_of_what_they_say() {
        use Outcome::{Fail, Inconclusive, Pass};
        use Truth::{Bad, Good};
        let case = |label, verdict, seconds| rollout("x", label, vec![replayed(verdict, seconds)]);
        let mut late = case(Some(Bad), Fail, 600.0);
        late.onset_ms = Some(300_000);
        let rollouts = vec![
            case(Some(Bad), Fail, 100.0),
            late,
            case(Some(Bad), Pass, 50.0),
            case(Some(Bad), Inconclusive, 0.0),
            case(Some(Good), Fail, 10.0),
            case(Some(Good), Pass, 70.0),
            case(None, Fail, 10.0),
            rollout("broken", Some(Good), Vec::new()),
        ];
        let report = Report::new(rollouts, &["built-in".to_owned()], false);
        let summary = &report.summary[0];
        assert_eq!(
            (summary.rollouts, summary.errors, report.errors()),
            (8, 1, 1)
        );
        assert_eq!((summary.good, summary.bad), (2, 4));
        assert_eq!(summary.precision, Some(2.0 / 3.0));
        assert_eq!(summary.recall, Some(0.5));
        assert_eq!(summary.false_alarm_rate, Some(0.5));
        assert_eq!(summary.inconclusive_rate, Some(1.0 / 7.0));
        assert_eq!(summary.median_delay_seconds, Some(200.0));
        assert_eq!(summary.p90_delay_seconds, Some(280.0));
        assert_eq!(summary.median_pass_seconds, Some(60.0));
        assert_eq!(summary.requests_harmed, 16.0);
    }

    #[test]
    fn policies_that_differ_are_listed() {
        use Outcome::{Fail, Pass};
        let same = rollout("a", None, vec![replayed(Fail, 1.0), replayed(Fail, 2.0)]);
        let mut other = replayed(Pass, 2.0);
        other.policy = "mine".to_owned();
        let differs = rollout("b", None, vec![replayed(Fail, 1.0), other]);
        let policies = ["built-in".to_owned(), "mine".to_owned()];
        let report = Report::new(vec![same, differs], &policies, false);
        assert_eq!(report.differences.len(), 1);
        assert_eq!(report.differences[0].rollout, "b");
        assert_eq!(report.differences[0].verdicts["mine"], Pass);
        assert_eq!(report.summary[1].pass, 1);
    }
}
