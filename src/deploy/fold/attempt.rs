//! One attempt to ship an artifact, as far as its events have been read.

use super::{OBSERVER, WITNESS_GAP_MS};
use crate::model::{Artifact, DeploymentId, Event, EventKind, EventRef, Phase, Step, StepChange};

/// An attempt; other attempts are named by their place in the fold.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) artifact: Artifact,
    pub(super) previous: Option<Artifact>,
    pub(super) previous_was_said: bool,
    pub(super) phase: Phase,
    pub(super) announced: bool,
    /// (source, the source's name for it), in the order given.
    pub(super) correlations: Vec<(String, String)>,
    pub(super) created_ms: i64,
    pub(super) started_ms: Option<i64>,
    pub(super) finished_ms: Option<i64>,
    pub(super) weight: Option<f64>,
    pub(super) steps: Vec<StepChange>,
    pub(super) rollback_of: Option<usize>,
    pub(super) rolled_back_by: Option<usize>,
    pub(super) superseded_by: Option<usize>,
    pub(super) partial_failures: u32,
    pub(super) manual_changes: u32,
    pub(super) first_alert_ms: Option<i64>,
    pub(super) actor: Option<String>,
    pub(super) url: Option<String>,
    pub(super) timeline: Vec<EventRef>,
    pub(super) has_begun: bool,
    pub(super) last_ms: i64,
    /// Its names, once those that came before it are forgotten.
    pub(super) names: Option<Vec<DeploymentId>>,
}

impl Attempt {
    pub(super) fn has_name(&self, name: &str) -> bool {
        self.correlations.iter().any(|(_, known)| known == name)
    }

    /// Whether the event can be about this attempt's artifact.
    pub(super) fn fits(&self, event: &Event) -> bool {
        !is_known(&event.artifact) || self.artifact.is_same(&event.artifact)
    }

    /// Whether the event has no name, or a name from a sender that has not named this attempt.
    pub(super) fn is_open_to_name(&self, event: &Event) -> bool {
        event.deployment.is_none()
            || !self
                .correlations
                .iter()
                .any(|(source, _)| *source == event.source)
    }

    /// Whether the event starts over what was over under the same name.
    pub(super) fn is_retried_by(&self, event: &Event) -> bool {
        let has_stopped = matches!(
            self.phase,
            Phase::Failed | Phase::Aborted | Phase::RolledBack
        );
        let is_long_over = !self.phase.is_active() && event.time_ms > self.last_ms + WITNESS_GAP_MS;
        matches!(event.kind, EventKind::Queued | EventKind::Started)
            && (has_stopped || is_long_over)
    }

    /// Whether an event that fits and has no name here is about this attempt.
    pub(super) fn is_joined_by(&self, event: &Event) -> bool {
        if self.phase.is_active() {
            return true;
        }
        match event.kind {
            EventKind::Queued | EventKind::Started => self.is_taken_over_by(event),
            EventKind::Succeeded if event.source == OBSERVER => self.phase == Phase::Succeeded,
            _ if !is_known(&event.artifact) => true,
            _ => event.time_ms <= self.last_ms + WITNESS_GAP_MS,
        }
    }

    /// Whether the event announces what was only observed.
    pub(super) fn is_taken_over_by(&self, event: &Event) -> bool {
        !self.announced
            && self.phase == Phase::Succeeded
            && event.source != OBSERVER
            && matches!(event.kind, EventKind::Queued | EventKind::Started)
            && event.time_ms <= self.last_ms + WITNESS_GAP_MS
    }

    /// Takes over what the event says beside its kind.
    pub(super) fn learn(&mut self, event: &Event) {
        let names_what_is_back = event.kind == EventKind::RolledBack
            && is_known(&self.artifact)
            && is_known(&event.artifact)
            && !self.artifact.is_same(&event.artifact);
        let mut previous = event.previous.clone();
        if names_what_is_back {
            previous = previous.or_else(|| Some(event.artifact.clone()));
        } else {
            self.artifact.merge(&event.artifact);
        }
        if let Some(previous) = previous {
            match self
                .previous
                .as_mut()
                .filter(|known| known.is_same(&previous))
            {
                Some(known) => known.merge(&previous),
                None if !self.previous_was_said => self.previous = Some(previous),
                None => {}
            }
            self.previous_was_said = true;
        }
        if let Some(name) = &event.deployment
            && !self.has_name(name)
        {
            self.correlations.push((event.source.clone(), name.clone()));
        }
        if self.actor.is_none() {
            self.actor.clone_from(&event.actor);
        }
        if self.url.is_none() {
            self.url.clone_from(&event.url);
        }
        self.announced |= event.source != OBSERVER;
        self.timeline.push(event_ref(event));
        self.last_ms = self.last_ms.max(event.time_ms);
    }

    pub(super) fn progress(&mut self, event: &Event) {
        self.started_ms.get_or_insert(event.time_ms);
        if self.phase.is_active() {
            self.phase = Phase::Progressing;
        }
    }

    pub(super) fn step(&mut self, step: Step, at_ms: i64) {
        self.steps.push(StepChange { at_ms, step });
        if self.phase.is_active() && step.weight.is_some() {
            self.weight = step.weight;
        }
    }

    pub(super) fn end(&mut self, phase: Phase, at_ms: i64) {
        self.phase = phase;
        self.finished_ms = Some(at_ms);
    }
}

/// Whether anything of the artifact is known that tells it from others.
pub(super) fn is_known(artifact: &Artifact) -> bool {
    artifact.digest.is_some() || artifact.version.is_some()
}

/// The event as an entry of a timeline.
pub(super) fn event_ref(event: &Event) -> EventRef {
    EventRef {
        source: event.source.clone(),
        id: event.id.clone(),
        kind: event.kind,
        time_ms: event.time_ms,
        reason: event.reason.clone(),
        actor: event.actor.clone(),
    }
}
