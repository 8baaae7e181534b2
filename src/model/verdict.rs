//! Answers, and what they rest on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::artifact::Artifact;
use crate::model::deployment::DeploymentId;
use crate::model::target::Target;

/// A three-valued answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Shown to be no worse than the policy tolerates.
    Pass,
    /// Shown to be worse than the policy tolerates.
    Fail,
    /// Neither is shown.
    Inconclusive,
}

impl Outcome {
    /// `pass`, `fail` or `inconclusive`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "fail",
            Outcome::Inconclusive => "inconclusive",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why, for machines. Part of the API: a reason is never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Every required check passed.
    AllChecksPassed,
    /// A critical check failed.
    CheckFailed,
    /// The candidate is shown to be worse than tolerated.
    WorseThanBaseline,
    /// The candidate is shown to be no worse than tolerated.
    NotWorseThanBaseline,
    /// The value is on the right side of its threshold.
    WithinThreshold,
    /// The value is on the wrong side of its threshold.
    ThresholdCrossed,
    /// Enough data, and it shows neither yet.
    NotYetDecided,
    /// Too few events to tell.
    InsufficientData,
    /// The candidate has emitted nothing.
    NoData,
    /// Nothing to compare with.
    NoBaseline,
    /// One instance alone is behind the difference.
    InstanceSuspect,
    /// The newest data is too old.
    Stale,
    /// The source could not answer.
    SourceError,
    /// The query's answer can't be judged: not one number, or not a number at all.
    UnusableAnswer,
    /// The candidate's first minutes are not evidence yet.
    WarmingUp,
    /// It passed, and the policy's shortest observation time is not over.
    Soaking,
    /// `decideWithin` is over and nothing was shown.
    DeadlineReached,
    /// `decideWithin` is over and the policy says pass.
    DeadlinePass,
    /// `decideWithin` is over and the policy says fail.
    DeadlineFail,
    /// No deployment of that version is known.
    NoDeployment,
    /// The deployment is known and has not been judged yet.
    NotJudgedYet,
}

impl Reason {
    /// Every reason.
    pub const ALL: &'static [Reason] = &[
        Reason::AllChecksPassed,
        Reason::CheckFailed,
        Reason::WorseThanBaseline,
        Reason::NotWorseThanBaseline,
        Reason::WithinThreshold,
        Reason::ThresholdCrossed,
        Reason::NotYetDecided,
        Reason::InsufficientData,
        Reason::NoData,
        Reason::NoBaseline,
        Reason::InstanceSuspect,
        Reason::Stale,
        Reason::SourceError,
        Reason::UnusableAnswer,
        Reason::WarmingUp,
        Reason::Soaking,
        Reason::DeadlineReached,
        Reason::DeadlinePass,
        Reason::DeadlineFail,
        Reason::NoDeployment,
        Reason::NotJudgedYet,
    ];

    /// The reason of that name.
    pub fn parse(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|reason| reason.as_str() == name)
    }

    /// The name used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::AllChecksPassed => "all_checks_passed",
            Reason::CheckFailed => "check_failed",
            Reason::WorseThanBaseline => "worse_than_baseline",
            Reason::NotWorseThanBaseline => "not_worse_than_baseline",
            Reason::WithinThreshold => "within_threshold",
            Reason::ThresholdCrossed => "threshold_crossed",
            Reason::NotYetDecided => "not_yet_decided",
            Reason::InsufficientData => "insufficient_data",
            Reason::NoData => "no_data",
            Reason::NoBaseline => "no_baseline",
            Reason::InstanceSuspect => "instance_suspect",
            Reason::Stale => "stale",
            Reason::SourceError => "source_error",
            Reason::UnusableAnswer => "unusable_answer",
            Reason::WarmingUp => "warming_up",
            Reason::Soaking => "soaking",
            Reason::DeadlineReached => "deadline_reached",
            Reason::DeadlinePass => "deadline_pass",
            Reason::DeadlineFail => "deadline_fail",
            Reason::NoDeployment => "no_deployment",
            Reason::NotJudgedYet => "not_judged_yet",
        }
    }
}

/// A range of time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeRange {
    /// From.
    #[serde(rename = "start", with = "crate::model::time::rfc3339")]
    pub start_ms: i64,
    /// To.
    #[serde(rename = "end", with = "crate::model::time::rfc3339")]
    pub end_ms: i64,
}

/// How a baseline was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaselineKind {
    /// The stable version running beside the candidate.
    Concurrent,
    /// The previous version's own history from before the deployment: weaker evidence.
    Historical,
}

/// What the candidate is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// The artifact.
    pub artifact: Artifact,
    /// How it was found.
    pub kind: BaselineKind,
    /// When its data is from.
    pub data: TimeRange,
}

/// What a check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// A PromQL expression against a threshold.
    Query,
    /// Candidate against baseline.
    Compare,
    /// The share of telemetry that carries an artifact identity.
    Coverage,
}

/// The two sides of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// The version under judgement.
    Candidate,
    /// What it is compared with.
    Baseline,
}

/// What was counted on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArmCounts {
    /// Requests (or other events) in all.
    pub total: f64,
    /// Those that count against the version: errors, or requests slower than the threshold.
    pub bad: f64,
    /// `bad / total`, null without events.
    pub rate: Option<f64>,
    /// The quantile's point estimate in seconds, for latency checks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quantile: Option<f64>,
}

/// How many instances each side has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceCounts {
    /// Of the version under judgement.
    pub candidate: usize,
    /// Of the baseline.
    pub baseline: usize,
}

/// An interval that holds at every look with the stated confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interval {
    /// Lower end, null where unbounded.
    pub low: Option<f64>,
    /// Upper end, null where unbounded.
    pub high: Option<f64>,
    /// Confidence, for example 0.99.
    pub confidence: f64,
}

/// What a check's answer rests on. Every number is finite; what is not known is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Evidence {
    /// The data's range of time.
    pub data: Option<TimeRange>,
    /// What was compared with.
    pub baseline: Option<Baseline>,
    /// Counts of the version under judgement.
    pub candidate_counts: Option<ArmCounts>,
    /// Counts of the baseline.
    pub baseline_counts: Option<ArmCounts>,
    /// Candidate's rate over the baseline's.
    pub ratio: Option<f64>,
    /// Where that ratio lies.
    pub ratio_interval: Option<Interval>,
    /// Candidate's rate minus the baseline's.
    pub difference: Option<f64>,
    /// Where that difference lies.
    pub difference_interval: Option<Interval>,
    /// The most the policy tolerates, in words.
    pub tolerance: Option<String>,
    /// Evidence that the candidate is worse, as the natural log of an e-value.
    pub log_e_worse: Option<f64>,
    /// Evidence that the candidate is not worse, as the natural log of an e-value.
    pub log_e_not_worse: Option<f64>,
    /// The log e-value at which the check decides to fail.
    pub log_e_fail_at: Option<f64>,
    /// The log e-value at which the check decides to pass.
    pub log_e_pass_at: Option<f64>,
    /// How much burstier than independent events the baseline is; 1 is not at all.
    pub dispersion: Option<f64>,
    /// How many seconds more a pass takes at the traffic there is, for a candidate as good as its
    /// baseline: an estimate, for checks that are not decided yet.
    pub expected_seconds_to_pass: Option<f64>,
    /// The smallest rise over the baseline's rate (or quantile, in seconds) that the rollout can be
    /// expected to show by its end: an estimate, for checks that are not decided yet.
    pub smallest_detectable: Option<f64>,
    /// How many standard deviations the candidate is beyond what is tolerated.
    pub z: Option<f64>,
    /// How many decide at this moment.
    pub z_fail_at: Option<f64>,
    /// How much better a difference that stays explains the data than one that passes with the
    /// warm-up, as the natural log of a Bayes factor; known where a fail hangs on it.
    pub log_staying: Option<f64>,
    /// By how much instances of the baseline differ in latency: a share.
    pub spread: Option<f64>,
    /// How many instances were told apart.
    pub instances: Option<InstanceCounts>,
    /// The instances that alone are behind a difference.
    pub suspects: Vec<String>,
    /// The query as it was asked, for query and coverage checks.
    pub query: Option<String>,
    /// Its answer.
    pub value: Option<f64>,
    /// What the answer was held against, in words.
    pub threshold: Option<String>,
    /// What the source or the evaluation had to remark.
    pub warnings: Vec<String>,
}

/// One check's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckResult {
    /// The check's name in the policy.
    pub name: String,
    /// What it asks.
    pub kind: CheckKind,
    /// Whether a fail of it fails the gate.
    pub critical: bool,
    /// Whether a pass of the gate needs a pass of it.
    pub required: bool,
    /// The answer.
    pub verdict: Outcome,
    /// Why, for machines.
    pub reason: Reason,
    /// Why, for people: one sentence.
    pub message: String,
    /// What it rests on.
    pub evidence: Evidence,
}

/// A gate's answer about a deployment at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Its name, unique.
    pub id: String,
    /// The gate that was asked.
    pub gate: String,
    /// The SHA-256 of the gate's canonical form.
    pub policy_hash: String,
    /// The deployment judged.
    pub deployment: DeploymentId,
    /// Where.
    #[serde(flatten)]
    pub target: Target,
    /// The version under judgement.
    pub candidate: Artifact,
    /// The answer.
    pub verdict: Outcome,
    /// Why, for machines.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// Whether no later look at this deployment will change it.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Each check's answer and evidence.
    pub checks: Vec<CheckResult>,
    /// The data's range of time.
    pub data: TimeRange,
    /// When it was computed: the `now` that was given to the judge.
    #[serde(rename = "evaluatedAt", with = "crate::model::time::rfc3339")]
    pub evaluated_ms: i64,
    /// Since when the answer is this one.
    #[serde(rename = "since", with = "crate::model::time::rfc3339")]
    pub since_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_one_name() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
        // serde knows every variant, and lists them where it is asked for another.
        let known = serde_json::from_str::<Reason>("\"none\"").unwrap_err();
        let named = known.to_string().matches('`').count() / 2 - 1;
        assert_eq!(named, Reason::ALL.len(), "{known}");
    }
}
