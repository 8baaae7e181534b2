//! Short ways to say what is the case, for the tests of this room.

use crate::model::{Artifact, Deployment, DeploymentId, Origin, Phase, Target};

/// 2026-11-20 16:00 UTC, in milliseconds since the epoch.
pub(super) const T0: i64 = 1_795_190_400_000;

/// A deployment `d-{version}` of checkout to production that started at [`T0`], and ended five
/// minutes later where the phase is an end.
pub(super) fn deployment(version: &str, phase: Phase) -> Deployment {
    Deployment {
        id: DeploymentId(format!("d-{version}")),
        target: Target::new("checkout", "production"),
        artifact: Artifact::of_version(version),
        previous: None,
        phase,
        origin: Origin::Announced,
        correlation: None,
        created_ms: T0,
        started_ms: Some(T0),
        finished_ms: (!phase.is_active()).then_some(T0 + 300_000),
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
    }
}
