//! Verdicts.
//!
//! [`judge()`] is a pure function of a gate, a deployment, a source and a time: the same data
//! gives the same verdict today and a year from now. The [`Watcher`] drives it for every
//! active deployment, keeps the newest verdict of each and writes changes to the ledger.
//!
//! # What wins
//!
//! - A check answers pass, fail or inconclusive. Missing data, an unreachable source and an
//!   answer that is not a number are inconclusive, each with its own reason; nothing turns
//!   them into a pass.
//! - A gate fails as soon as one critical check fails, whatever the others say.
//! - A gate passes when every required check passes and the deployment has been observed for
//!   the gate's `soak`. Until then a passing gate is inconclusive (`soaking`).
//! - Anything else is inconclusive, for the reason that stands most in the way.
//! - When `decideWithin` is over, an inconclusive gate becomes what its `onInconclusive` says
//!   and the verdict is final. Its reason says that a deadline decided, not the data.
//! - Silence is its own answer. Where nothing was received from the candidate (`no_data`), or
//!   nothing for five minutes (`stale`), a required check that looks at its telemetry keeps the
//!   gate inconclusive, and the end of `decideWithin` makes that final with the same reason.
//!   `onInconclusive` is for evidence that points neither way; here there is none, and neither
//!   a pass nor a rollback may rest on that. A gap that ends is no evidence either: its blocks
//!   say nothing, and judging goes on.
//!
//! # At the start
//!
//! Judging begins when the deployment started. No pass rests on an instance's first `warmUp`. A
//! fail may: everything counts from the first block on, and a difference fails when it stays,
//! which is when a warm-up with a time constant of up to three times `warmUp` explains it less well
//! than a lasting difference. Besides, a second test with ten percentage points of extra
//! tolerance, fading over the warm-up, watches from the first block on, so that a crash fails at
//! once. `warmUp: 0s` says that nothing warms up: then a difference fails when it is shown.
//!
//! # How errors are shared out
//!
//! `falseAlarms` is for the whole rollout: how often a release like its baseline fails any check at
//! any look. Every comparing check gets a share of it by its weight. The levels of its tests are
//! a multiple of that share (`Tuning::level` in `slogate-stats`): a fail also needs the Bayes
//! factor for a difference that stays, and the tolerance comes off first, so fewer alarms come out
//! than the levels say. That the sum stays within `falseAlarms` is known from simulation
//! (docs/statistics.md); with `warmUp: 0s` the levels are the share. `falsePasses` is for each
//! required check in full: a bad release has to slip through every one that sees it.
//!
//! # Looking again
//!
//! The watcher keeps what earlier looks have gathered and concluded, and asks only for what is
//! new. That changes what a look costs, and its answer in one case only: where a sample arrives
//! after its block of time was complete. So a verdict that is to be written to the ledger is
//! judged from scratch before it is published, and judging the same data again gives it again.

use crate::model::{
    CheckKind, CheckResult, Deployment, Outcome, Reason, TimeRange, Verdict, time::humanize_ms,
};
use crate::policy::{CheckSpec, Gate, OnInconclusive};
use crate::source::MetricSource;

mod answer;
mod arms;
mod compare;
mod coverage;
mod errors;
pub(crate) mod examine;
mod kayenta;
mod kept;
mod latency;
mod lines;
mod outlook;
mod sentences;
mod series;
mod threshold;
mod watcher;
mod words;

use std::sync::Arc;

use examine::{Examination, Observed};

pub use answer::{CheckAnswer, GateAnswer, GateError, GateQuery, GateSummary};
pub use watcher::{Watcher, WatcherOptions, WatcherParts};

/// What is judged: a deployment and what is known of its target's past.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The deployment under judgement.
    pub deployment: Arc<Deployment>,
    /// Every deployment of the same target, in any order; this one may be among them.
    pub history: Vec<Arc<Deployment>>,
}

/// Judges a deployment by a gate at `now_ms`, from what `source` knows.
///
/// Never fails: what can't be answered is inconclusive and says why. `since` is `now_ms`; who
/// keeps verdicts carries the earlier time over while the answer stays the same.
pub async fn judge(
    gate: &Arc<Gate>,
    subject: &Subject,
    source: &dyn MetricSource,
    now_ms: i64,
) -> Verdict {
    let observed = Observed::gather(gate, subject, source, now_ms).await;
    let mut examination = Examination::new(gate.clone());
    let compared = examination.look(subject, &observed, source.mapping(), now_ms);
    let checks = answer_all(gate, subject, source, compared, now_ms).await;
    conclude(gate, subject, checks, now_ms)
}

/// What the checks that ask the source for themselves need.
pub(crate) struct Context<'a> {
    pub(crate) gate: &'a Gate,
    pub(crate) subject: &'a Subject,
    pub(crate) source: &'a dyn MetricSource,
    pub(crate) now_ms: i64,
    /// When judging begins.
    pub(crate) from_ms: i64,
}

/// Every check's answer in the gate's order: `compared` has those of the comparing checks, the
/// others ask the source now.
pub(crate) async fn answer_all(
    gate: &Gate,
    subject: &Subject,
    source: &dyn MetricSource,
    compared: Vec<CheckResult>,
    now_ms: i64,
) -> Vec<CheckResult> {
    let context = Context {
        gate,
        subject,
        source,
        now_ms,
        from_ms: subject.deployment.judged_from_ms(),
    };
    let mut compared = compared.into_iter();
    let mut checks = Vec::with_capacity(gate.checks.len());
    for check in &gate.checks {
        let answer = match &check.spec {
            CheckSpec::Compare(_) => compared.next(),
            CheckSpec::Query(query) => Some(threshold::answer(check, query, &context).await),
            CheckSpec::Series(series) => Some(series::answer(check, series, &context).await),
            CheckSpec::Kayenta(config) => Some(kayenta::answer(check, config, &context).await),
            CheckSpec::Coverage(coverage) => {
                Some(coverage::answer(check, coverage, &context).await)
            }
        };
        checks.extend(answer);
    }
    checks
}

/// Makes one verdict of the checks' answers; the rules are at the top of this module.
pub(crate) fn conclude(
    gate: &Gate,
    subject: &Subject,
    checks: Vec<CheckResult>,
    now_ms: i64,
) -> Verdict {
    let deployment = &subject.deployment;
    let age_ms = (now_ms - deployment.judged_from_ms()).max(0);
    let (mut verdict, mut reason) = weigh(gate, &checks, age_ms);
    let is_over = age_ms >= gate.decide_within_ms;
    if is_over && verdict == Outcome::Inconclusive {
        (verdict, reason) = at_deadline(gate, &checks);
    }
    let message = sentence(gate, subject, &checks, verdict, reason, age_ms);
    Verdict {
        id: verdict_id(gate, deployment, now_ms),
        gate: gate.name.clone(),
        policy_hash: gate.hash.clone(),
        deployment: deployment.id.clone(),
        target: deployment.target.clone(),
        candidate: deployment.artifact.clone(),
        verdict,
        reason,
        message,
        is_final: is_over || !deployment.phase.is_active(),
        checks,
        data: TimeRange {
            start_ms: deployment.judged_from_ms(),
            end_ms: now_ms,
        },
        evaluated_ms: now_ms,
        since_ms: now_ms,
    }
}

fn weigh(gate: &Gate, checks: &[CheckResult], age_ms: i64) -> (Outcome, Reason) {
    if checks
        .iter()
        .any(|check| check.critical && check.verdict == Outcome::Fail)
    {
        return (Outcome::Fail, Reason::CheckFailed);
    }
    let in_the_way = checks
        .iter()
        .filter(|check| check.required && check.verdict != Outcome::Pass)
        .map(|check| check.reason)
        .min_by_key(|reason| obstacle_rank(*reason));
    match in_the_way {
        Some(reason) => (Outcome::Inconclusive, reason),
        None if age_ms < gate.soak_ms => (Outcome::Inconclusive, Reason::Soaking),
        None => (Outcome::Pass, Reason::AllChecksPassed),
    }
}

/// What an undecided gate becomes when its time is over.
fn at_deadline(gate: &Gate, checks: &[CheckResult]) -> (Outcome, Reason) {
    if let Some(reason) = silence(checks) {
        return (Outcome::Inconclusive, reason);
    }
    match gate.on_inconclusive {
        OnInconclusive::Hold => (Outcome::Inconclusive, Reason::DeadlineReached),
        OnInconclusive::Pass => (Outcome::Pass, Reason::DeadlinePass),
        OnInconclusive::Fail => (Outcome::Fail, Reason::DeadlineFail),
    }
}

/// Why a required check that looks at the candidate's telemetry has nothing to look at. An empty
/// answer to a query is none of that: what it asks for may be rare.
fn silence(checks: &[CheckResult]) -> Option<Reason> {
    let looking = checks
        .iter()
        .filter(|check| check.required && check.kind != CheckKind::Query);
    let mut reasons = looking.map(|check| check.reason);
    let is_silence = |reason: &Reason| matches!(reason, Reason::NoData | Reason::Stale);
    reasons.find(is_silence)
}

/// What to name first of several things in the way: what a person has to mend comes before
/// what only time will.
fn obstacle_rank(reason: Reason) -> u8 {
    match reason {
        Reason::SourceError => 0,
        Reason::UnusableAnswer => 1,
        Reason::NoData => 2,
        Reason::NoBaseline => 3,
        Reason::Stale => 4,
        Reason::InstanceSuspect => 4,
        Reason::WorseThanBaseline | Reason::ThresholdCrossed => 5,
        Reason::WarmingUp => 6,
        Reason::InsufficientData => 7,
        _ => 8,
    }
}

/// The same inputs give the same name.
fn verdict_id(gate: &Gate, deployment: &Deployment, now_ms: i64) -> String {
    let text = format!("{}\n{}\n{}\n{now_ms}", gate.name, gate.hash, deployment.id);
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let hex: String = hash
        .as_ref()
        .iter()
        .take(10)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("v-{hex}")
}

/// The verdict for people: which release, the answer, how long it took, and what decided.
fn sentence(
    gate: &Gate,
    subject: &Subject,
    checks: &[CheckResult],
    verdict: Outcome,
    reason: Reason,
    age_ms: i64,
) -> String {
    let deployment = &subject.deployment;
    let target = &deployment.target;
    let mut who = format!("{} {}", target.service, deployment.artifact);
    if !target.environment.is_empty() {
        who.push_str(&format!(" in {}", target.environment));
    }
    let age = humanize_ms(age_ms);
    let said = |outcome: Outcome| {
        let sentences = checks.iter().filter(|check| check.verdict == outcome);
        sentences
            .map(|check| check.message.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    match reason {
        Reason::CheckFailed => format!("{who}: FAIL after {age}. {}", said(Outcome::Fail)),
        Reason::AllChecksPassed => format!("{who}: PASS after {age}. {}", said(Outcome::Pass)),
        Reason::Soaking => format!(
            "{who}: not yet, after {age}. Every check passes; the gate waits until {} are over.",
            humanize_ms(gate.soak_ms)
        ),
        Reason::DeadlineReached | Reason::DeadlinePass | Reason::DeadlineFail => format!(
            "{who}: nothing was shown within {}, so the gate's onInconclusive decides: {verdict}. {}",
            humanize_ms(gate.decide_within_ms),
            said(Outcome::Inconclusive)
        ),
        Reason::NoData | Reason::Stale if age_ms >= gate.decide_within_ms => format!(
            "{who}: no answer within {}, whatever onInconclusive says: a candidate that sends \
             nothing is neither good nor bad. {}",
            humanize_ms(gate.decide_within_ms),
            said(Outcome::Inconclusive)
        ),
        _ => format!(
            "{who}: not decided after {age}{}. {}",
            expected_pass(gate, checks, age_ms),
            said(Outcome::Inconclusive)
        ),
    }
    .trim_end()
    .to_owned()
}

/// When a pass can be expected, where every check that stands in its way has an estimate.
fn expected_pass(gate: &Gate, checks: &[CheckResult], age_ms: i64) -> String {
    let mut waiting = checks
        .iter()
        .filter(|check| check.required && check.verdict != Outcome::Pass);
    let soak_s = (gate.soak_ms - age_ms).max(0) as f64 / 1000.0;
    let latest = waiting.try_fold(soak_s, |latest, check| {
        let more = check.evidence.expected_seconds_to_pass?;
        Some(latest.max(more))
    });
    match latest {
        Some(more) if more * 1000.0 <= (gate.decide_within_ms - age_ms) as f64 => {
            format!(", a pass can be expected in about {}", words::about(more))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
