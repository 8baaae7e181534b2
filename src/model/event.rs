//! Facts from outside.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::artifact::Artifact;
use crate::model::target::Target;

/// What happened. The names are the native event types, `deployment.started` and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// The artifact exists and may be shipped; opens no deployment.
    #[serde(rename = "artifact.published")]
    ArtifactPublished,
    /// A deployment was asked for and has not begun.
    #[serde(rename = "deployment.queued")]
    Queued,
    /// The deployment began to replace instances.
    #[serde(rename = "deployment.started")]
    Started,
    /// The candidate's traffic weight changed.
    #[serde(rename = "deployment.step")]
    Step,
    /// The deployment waits, for a person or a gate.
    #[serde(rename = "deployment.paused")]
    Paused,
    /// The deployment goes on after a pause.
    #[serde(rename = "deployment.resumed")]
    Resumed,
    /// A part failed (an instance, a zone, a hook) while the deployment went on.
    #[serde(rename = "deployment.partial_failure")]
    PartialFailure,
    /// The deployment holds all traffic and is steady.
    #[serde(rename = "deployment.succeeded")]
    Succeeded,
    /// The deployment ended without the artifact in place.
    #[serde(rename = "deployment.failed")]
    Failed,
    /// A person or a gate stopped the deployment.
    #[serde(rename = "deployment.aborted")]
    Aborted,
    /// Traffic is back on the previous artifact.
    #[serde(rename = "deployment.rolled_back")]
    RolledBack,
    /// Somebody changed the running service by hand.
    #[serde(rename = "change.manual")]
    ManualChange,
    /// An alert about the service fired.
    #[serde(rename = "alert.fired")]
    AlertFired,
    /// An alert about the service went away.
    #[serde(rename = "alert.resolved")]
    AlertResolved,
    /// An incident that names the service was opened.
    #[serde(rename = "incident.opened")]
    IncidentOpened,
    /// An incident that names the service was resolved.
    #[serde(rename = "incident.resolved")]
    IncidentResolved,
}

impl EventKind {
    /// Every kind, in the order of a deployment's life; ties in time are folded in this order.
    pub const ALL: [EventKind; 16] = [
        EventKind::ArtifactPublished,
        EventKind::Queued,
        EventKind::Started,
        EventKind::Step,
        EventKind::Paused,
        EventKind::Resumed,
        EventKind::PartialFailure,
        EventKind::Succeeded,
        EventKind::Failed,
        EventKind::Aborted,
        EventKind::RolledBack,
        EventKind::ManualChange,
        EventKind::AlertFired,
        EventKind::AlertResolved,
        EventKind::IncidentOpened,
        EventKind::IncidentResolved,
    ];

    /// The native type name, for example `deployment.started`.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::ArtifactPublished => "artifact.published",
            EventKind::Queued => "deployment.queued",
            EventKind::Started => "deployment.started",
            EventKind::Step => "deployment.step",
            EventKind::Paused => "deployment.paused",
            EventKind::Resumed => "deployment.resumed",
            EventKind::PartialFailure => "deployment.partial_failure",
            EventKind::Succeeded => "deployment.succeeded",
            EventKind::Failed => "deployment.failed",
            EventKind::Aborted => "deployment.aborted",
            EventKind::RolledBack => "deployment.rolled_back",
            EventKind::ManualChange => "change.manual",
            EventKind::AlertFired => "alert.fired",
            EventKind::AlertResolved => "alert.resolved",
            EventKind::IncidentOpened => "incident.opened",
            EventKind::IncidentResolved => "incident.resolved",
        }
    }

    /// The kind of that native type name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A stage of a progressing deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Step {
    /// Which step, from 1.
    pub index: Option<u32>,
    /// How many steps there are.
    pub total: Option<u32>,
    /// The candidate's share of traffic in percent, 0 to 100.
    pub weight: Option<f64>,
}

/// A fact about a deployment, artifact or incident, as every adapter delivers it.
///
/// (`source`, `id`) is its identity: a second event with the same pair changes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Unique within `source`.
    pub id: String,
    /// Who says so, for example `ci/acme/checkout`.
    pub source: String,
    /// When it happened there.
    #[serde(rename = "time", with = "crate::model::time::rfc3339")]
    pub time_ms: i64,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// Where.
    #[serde(flatten)]
    pub target: Target,
    /// What is shipped, as far as the event says.
    pub artifact: Artifact,
    /// What it replaces, as far as the event says.
    pub previous: Option<Artifact>,
    /// The sender's own name for the deployment, which ties its events together.
    pub deployment: Option<String>,
    /// The stage, for a step.
    pub step: Option<Step>,
    /// Why, in the sender's words.
    pub reason: Option<String>,
    /// Who did it.
    pub actor: Option<String>,
    /// Where to read more.
    pub url: Option<String>,
    /// Further facts, kept and shown.
    pub labels: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_match_serde() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::parse(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert_eq!(EventKind::parse("deployment.exploded"), None);
    }
}
