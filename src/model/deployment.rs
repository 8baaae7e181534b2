//! Attempts to bring an artifact to a target.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::artifact::{Artifact, Digest};
use crate::model::event::{EventKind, Step};
use crate::model::target::Target;

/// A deployment's name: stable under any arrival order of its events, safe in a URL path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeploymentId(pub String);

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Asked for, not begun.
    Pending,
    /// Replacing instances or shifting traffic.
    Progressing,
    /// Waiting for a person or a gate.
    Paused,
    /// All traffic is on the candidate, steady.
    Succeeded,
    /// Ended without the artifact in place.
    Failed,
    /// Stopped by a person or a gate; where traffic is now is not known yet.
    Aborted,
    /// Traffic is back on the previous artifact.
    RolledBack,
    /// Another deployment to the same target began before this one ended.
    Superseded,
}

impl Phase {
    /// Whether the deployment is still to be judged.
    pub fn is_active(self) -> bool {
        matches!(self, Phase::Pending | Phase::Progressing | Phase::Paused)
    }

    /// The name used in JSON, for example `rolled_back`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "pending",
            Phase::Progressing => "progressing",
            Phase::Paused => "paused",
            Phase::Succeeded => "succeeded",
            Phase::Failed => "failed",
            Phase::Aborted => "aborted",
            Phase::RolledBack => "rolled_back",
            Phase::Superseded => "superseded",
        }
    }
}

/// How slogate came to know of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// An event announced it.
    Announced,
    /// Its version appeared in telemetry and no event had announced it.
    Observed,
}

/// A change of traffic weight or step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepChange {
    /// When.
    #[serde(rename = "at", with = "crate::model::time::rfc3339")]
    pub at_ms: i64,
    /// To what.
    #[serde(flatten)]
    pub step: Step,
}

/// An entry of a deployment's timeline: which event said what, when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRef {
    /// The event's source.
    pub source: String,
    /// The event's id within its source.
    pub id: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// When it happened.
    #[serde(rename = "time", with = "crate::model::time::rfc3339")]
    pub time_ms: i64,
    /// Why, in the sender's words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub actor: Option<String>,
}

/// One attempt to bring an artifact to a target: the fold of its events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Its name.
    pub id: DeploymentId,
    /// Where.
    #[serde(flatten)]
    pub target: Target,
    /// The candidate.
    pub artifact: Artifact,
    /// What it replaces: as an event said, else the last artifact that succeeded here.
    pub previous: Option<Artifact>,
    /// How far it is.
    pub phase: Phase,
    /// How slogate came to know of it.
    pub origin: Origin,
    /// The sender's own name for it.
    pub correlation: Option<String>,
    /// The time of its first event, or when its version was first seen.
    #[serde(rename = "createdAt", with = "crate::model::time::rfc3339")]
    pub created_ms: i64,
    /// When it began to replace instances.
    #[serde(rename = "startedAt", with = "crate::model::time::rfc3339_option")]
    pub started_ms: Option<i64>,
    /// When it reached a phase that is not active; for a rollback when traffic was back.
    #[serde(rename = "finishedAt", with = "crate::model::time::rfc3339_option")]
    pub finished_ms: Option<i64>,
    /// The candidate's current traffic weight in percent, where known.
    pub weight: Option<f64>,
    /// Every change of step or weight, in time.
    pub steps: Vec<StepChange>,
    /// The deployment this one undoes.
    pub rollback_of: Option<DeploymentId>,
    /// The deployment that undid this one.
    pub rolled_back_by: Option<DeploymentId>,
    /// The deployment that began before this one ended.
    pub superseded_by: Option<DeploymentId>,
    /// Parts that failed while the deployment went on.
    pub partial_failures: u32,
    /// Changes made by hand while this deployment was the newest of its target.
    pub manual_changes: u32,
    /// The first alert about the service while this deployment was the newest of its target.
    #[serde(rename = "firstAlertAt", with = "crate::model::time::rfc3339_option")]
    pub first_alert_ms: Option<i64>,
    /// Who ships it.
    pub actor: Option<String>,
    /// Where to read more.
    pub url: Option<String>,
    /// Its events in time.
    pub timeline: Vec<EventRef>,
}

impl Deployment {
    /// When judging begins: when it started, else when it was first heard of.
    pub fn judged_from_ms(&self) -> i64 {
        self.started_ms.unwrap_or(self.created_ms)
    }

    /// Whether this is only the version that a target had when slogate first heard of it: it is
    /// known as what runs, and counts nowhere as a deployment.
    pub fn is_what_already_ran(&self) -> bool {
        self.origin == Origin::Observed
            && self.phase == Phase::Succeeded
            && self.started_ms.is_none()
            && self.previous.is_none()
    }
}

/// A version that telemetry carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObservedVersion {
    /// Service and environment of the telemetry.
    pub target: Target,
    /// `service.version`.
    pub version: String,
    /// The image digest the telemetry carries, where it does.
    pub digest: Option<Digest>,
    /// When it was first seen, in milliseconds since the epoch.
    pub first_seen_ms: i64,
    /// When it was last seen, in milliseconds since the epoch.
    pub last_seen_ms: i64,
}
