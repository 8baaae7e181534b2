//! What a gate says to who asks.
//!
//! One JSON object for pass, fail, inconclusive and pending alike; every key is always
//! present and no number is NaN or infinite, because the callers' parsers stumble over both
//! (a missing key is an error to Argo Rollouts).

use serde::Serialize;

use crate::model::{Deployment, DeploymentId};
use crate::model::{Digest, Outcome, Reason, Verdict, time};
use crate::policy::{Gate, OnInconclusive};

/// Which release is asked about: a deployment by its id, or the newest deployment of a
/// service with that version or digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GateQuery {
    /// The gate's name.
    pub gate: String,
    /// The service.
    pub service: Option<String>,
    /// The environment; any where absent.
    pub environment: Option<String>,
    /// The version label.
    pub version: Option<String>,
    /// The artifact's digest.
    pub digest: Option<Digest>,
    /// The deployment's id; nothing else is needed with it.
    pub deployment: Option<DeploymentId>,
}

/// Why a gate can't answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// There is no gate of that name.
    #[error("there is no gate {gate:?}; the gates are: {known}")]
    UnknownGate {
        /// What was asked for.
        gate: String,
        /// The names there are, comma-separated.
        known: String,
    },
    /// A parameter is missing or wrong.
    #[error("{field}: {expected}")]
    BadQuery {
        /// The parameter.
        field: &'static str,
        /// What was expected.
        expected: String,
    },
    /// There is no deployment of that id.
    #[error("there is no deployment {id:?}")]
    UnknownDeployment {
        /// What was asked for.
        id: String,
    },
    /// The gate does not apply to that target.
    #[error(
        "gate {gate:?} does not match {target}; it is for service {service:?} in environment {environment:?}"
    )]
    NotMatched {
        /// The gate's name.
        gate: String,
        /// The target asked about.
        target: String,
        /// The gate's service pattern.
        service: String,
        /// The gate's environment pattern.
        environment: String,
    },
}

/// One check, as short as a gate's caller needs it; evidence is behind the verdict's URL.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckAnswer {
    /// The check's name.
    pub name: String,
    /// The check's answer.
    pub verdict: Outcome,
    /// Why, for machines.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// Whether a fail of it fails the gate.
    pub critical: bool,
    /// Whether a pass of the gate needs a pass of it.
    pub required: bool,
}

/// A gate's answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GateAnswer {
    /// The gate's name.
    pub gate: String,
    /// `pass`, `fail`, `inconclusive` or `pending`.
    pub verdict: &'static str,
    /// Why, for machines.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
    /// The recorded verdict, null while pending.
    pub id: Option<String>,
    /// Where to read the whole verdict, or the deployment while pending.
    pub url: String,
    /// The service asked about.
    pub service: Option<String>,
    /// The environment of the deployment found.
    pub environment: Option<String>,
    /// The version label of the candidate.
    pub version: Option<String>,
    /// The digest of the candidate.
    pub digest: Option<String>,
    /// The deployment found.
    pub deployment: Option<String>,
    /// The version compared with.
    pub baseline: Option<String>,
    /// Each check's answer.
    pub checks: Vec<CheckAnswer>,
    /// Whether no later look will change the answer.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// What the gate's policy makes of undecided: `hold`, `pass` or `fail`.
    pub on_inconclusive: &'static str,
    /// Since when this is the answer, RFC 3339.
    pub since: String,
    /// When it was last computed, RFC 3339; null while pending.
    pub evaluated_at: Option<String>,
    /// Until when it may be used without asking again, RFC 3339.
    pub expires_at: String,
}

impl GateAnswer {
    /// Whether there is a pass or a fail to act on.
    pub fn is_conclusive(&self) -> bool {
        matches!(self.verdict, "pass" | "fail")
    }

    /// The answer while no verdict exists: the deployment is unknown or not judged yet.
    pub(super) fn pending(
        gate: &Gate,
        query: &GateQuery,
        deployment: Option<&Deployment>,
        base_url: &str,
        now_ms: i64,
        expires_ms: i64,
    ) -> GateAnswer {
        let (reason, message) = match deployment {
            Some(found) => (
                Reason::NotJudgedYet,
                format!(
                    "{} {} is known and not judged yet.",
                    found.target, found.artifact
                ),
            ),
            None => (Reason::NoDeployment, no_deployment(query)),
        };
        let url = match deployment {
            Some(found) => format!("{base_url}/v1/deployments/{}", found.id),
            None => format!("{base_url}/v1/deployments"),
        };
        GateAnswer {
            gate: gate.name.clone(),
            verdict: "pending",
            reason: reason.as_str(),
            message,
            id: None,
            url,
            service: deployment
                .map(|d| d.target.service.clone())
                .or_else(|| query.service.clone()),
            environment: deployment
                .map(|d| d.target.environment.clone())
                .or_else(|| query.environment.clone()),
            version: deployment
                .and_then(|d| d.artifact.version.clone())
                .or_else(|| query.version.clone()),
            digest: deployment
                .and_then(|d| d.artifact.digest.as_ref())
                .or(query.digest.as_ref())
                .map(ToString::to_string),
            deployment: deployment.map(|d| d.id.to_string()),
            baseline: None,
            checks: Vec::new(),
            is_final: false,
            on_inconclusive: on_inconclusive(gate.on_inconclusive),
            since: time::to_rfc3339(now_ms),
            evaluated_at: None,
            expires_at: time::to_rfc3339(expires_ms),
        }
    }

    /// The answer a verdict gives; `recorded` is the ledger's name for it.
    pub(super) fn of(
        gate: &Gate,
        verdict: &Verdict,
        recorded: &str,
        base_url: &str,
        expires_ms: i64,
    ) -> GateAnswer {
        let baseline = verdict
            .checks
            .iter()
            .find_map(|check| check.evidence.baseline.as_ref());
        let checks = verdict.checks.iter().map(|check| CheckAnswer {
            name: check.name.clone(),
            verdict: check.verdict,
            reason: check.reason,
            message: check.message.clone(),
            critical: check.critical,
            required: check.required,
        });
        GateAnswer {
            gate: verdict.gate.clone(),
            verdict: verdict.verdict.as_str(),
            reason: verdict.reason.as_str(),
            message: verdict.message.clone(),
            id: Some(recorded.to_owned()),
            url: format!("{base_url}/v1/verdicts/{recorded}"),
            service: Some(verdict.target.service.clone()),
            environment: Some(verdict.target.environment.clone()),
            version: verdict.candidate.version.clone(),
            digest: verdict.candidate.digest.as_ref().map(ToString::to_string),
            deployment: Some(verdict.deployment.to_string()),
            baseline: baseline.map(|baseline| baseline.artifact.to_string()),
            checks: checks.collect(),
            is_final: verdict.is_final,
            on_inconclusive: on_inconclusive(gate.on_inconclusive),
            since: time::to_rfc3339(verdict.since_ms),
            evaluated_at: Some(time::to_rfc3339(verdict.evaluated_ms)),
            expires_at: time::to_rfc3339(expires_ms),
        }
    }
}

fn on_inconclusive(choice: OnInconclusive) -> &'static str {
    match choice {
        OnInconclusive::Hold => "hold",
        OnInconclusive::Pass => "pass",
        OnInconclusive::Fail => "fail",
    }
}

fn no_deployment(query: &GateQuery) -> String {
    let service = query.service.as_deref().unwrap_or("that service");
    let which = match (&query.version, &query.digest) {
        (Some(version), _) => format!("version {version}"),
        (None, Some(digest)) => format!("artifact {}", digest.short()),
        (None, None) => "a deployment".to_owned(),
    };
    format!(
        "Nothing is known of {which} of {service} yet: no event announced it and no telemetry \
         carries it."
    )
}

/// A gate, for listings.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GateSummary {
    /// Its name.
    pub name: String,
    /// Which services it is for, as a glob.
    pub service: String,
    /// Which environments it is for, as a glob.
    pub environment: String,
    /// The names of its checks.
    pub checks: Vec<String>,
    /// The SHA-256 of its canonical form.
    pub policy_hash: String,
}
