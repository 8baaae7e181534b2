//! The judge of this program over a made-up rollout.
//!
//! It looks when each minute's block is complete and sees nothing of later ones. A fail ends the
//! rollout; a pass doesn't, since whoever asked may go on and be stopped later.

use std::sync::Arc;

use super::generate::Rollout;
use super::observe::{NEW, OLD, START_MS, Seen, complete_ms};
use super::peers::Arms;
use super::run::Outcome;
use super::scenario::HISTORY_MINUTES;
use crate::judge::examine::Examination;
use crate::judge::{self, Subject};
use crate::model::{
    Artifact, Deployment, DeploymentId, Origin, Outcome as Answer, Phase, Reason, Target, Verdict,
};
use crate::policy::{CheckSpec, Gate};
use crate::source::Mapping;

/// The gate with its comparing checks alone, which are what a simulation can answer; `None` where
/// it has none.
pub(crate) fn comparing(gate: &Gate) -> Option<Arc<Gate>> {
    let mut gate = gate.clone();
    gate.checks
        .retain(|check| matches!(check.spec, CheckSpec::Compare(_)));
    (!gate.checks.is_empty()).then(|| Arc::new(gate))
}

/// What becomes of a rollout under the gate; who was harmed is left open.
pub(crate) fn judge(gate: &Arc<Gate>, rollout: &Rollout, arms: &Arms) -> Outcome {
    let mut outcome = Outcome::default();
    watch(gate, rollout, arms, |minute, verdict| {
        match (verdict.verdict, verdict.reason) {
            (Answer::Fail, Reason::CheckFailed) => outcome.alarm = Some(minute),
            (Answer::Pass, Reason::AllChecksPassed) => {
                outcome.pass = outcome.pass.or(Some(minute));
            }
            _ => {}
        }
        let mut reasons = verdict.checks.iter().map(|check| check.reason);
        if reasons.any(|reason| reason == Reason::InstanceSuspect) {
            outcome.suspect = outcome.suspect.or(Some(minute));
        }
        outcome.alarm.is_none()
    });
    outcome
}

/// Looks at a rollout after each minute, counted from 1, for as long as `look` wants to go on.
pub(crate) fn watch(
    gate: &Arc<Gate>,
    rollout: &Rollout,
    arms: &Arms,
    mut look: impl FnMut(u32, &Verdict) -> bool,
) {
    let subject = subject();
    let mut seen = Seen::new(rollout, gate);
    let before = -i64::from(HISTORY_MINUTES)..0;
    for (number, (minute, old)) in before.zip(rollout.history.iter().zip(&arms.history)) {
        seen.add(number, minute, old, &Default::default());
    }
    let mut examination = Examination::new(gate.clone());
    let sums = arms.baseline.iter().zip(&arms.candidate);
    for (number, (minute, (old, new))) in (0u32..).zip(rollout.minutes.iter().zip(sums)) {
        seen.add(i64::from(number), minute, old, new);
        let now_ms = complete_ms(number);
        let checks = examination.look(&subject, seen.observed(), Mapping::otel(), now_ms);
        let verdict = judge::conclude(gate, &subject, checks, now_ms);
        if !look(number + 1, &verdict) {
            return;
        }
    }
}

/// The rollout of the new version in place of the old one, as an event would have announced it.
pub(super) fn subject() -> Subject {
    let deployment = Deployment {
        id: DeploymentId("simulated".to_owned()),
        target: Target::new("simulated", "production"),
        artifact: Artifact::of_version(NEW),
        previous: Some(Artifact::of_version(OLD)),
        phase: Phase::Progressing,
        origin: Origin::Announced,
        correlation: None,
        created_ms: START_MS,
        started_ms: Some(START_MS),
        finished_ms: None,
        weight: None,
        steps: Vec::new(),
        rollback_of: None,
        rolled_back_by: None,
        superseded_by: None,
        partial_failures: 0,
        manual_changes: 0,
        first_alert_ms: None,
        actor: None,
        url: None,
        timeline: Vec::new(),
    };
    Subject {
        deployment: Arc::new(deployment),
        history: Vec::new(),
    }
}
