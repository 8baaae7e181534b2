//! GET `/v1/gates`, `/v1/gates/{gate}` and `/v1/gates/{gate}/verdict`.
//!
//! The verdict is the contract that rollout tools are wired to: 200 with one JSON object for
//! pass, fail, inconclusive and pending alike. `wait` holds the request until the answer
//! changes or is a pass or a fail, at most a minute, so that polling can be slow and still learn
//! at once; a shutdown answers those who wait with what is known. `fresh=true` judges now and not
//! at the watcher's next round; few of those run at a time and the others get the table.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use http::Uri;
use serde::Serialize;
use serde_json::json as value;

use super::error::ApiError;
use super::params::Params;
use super::{App, json};
use crate::judge::{GateError, GateQuery};
use crate::model::{DeploymentId, Digest};
use crate::policy::{self, Gate};

/// The longest that a request may wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The longest that a request waits for being judged: callers' own timeouts begin at ten seconds.
const FRESH_WAIT: Duration = Duration::from_secs(8);

/// A gate as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    name: &'a str,
    /// As verdicts carry it.
    policy_hash: &'a str,
    /// In words.
    explanation: String,
    /// As a policy file would have it, defaults filled in.
    policy: &'a Gate,
}

impl<'a> Shown<'a> {
    fn of(gate: &'a Gate) -> Self {
        Shown {
            name: &gate.name,
            policy_hash: &gate.hash,
            explanation: policy::explain(gate),
            policy: gate,
        }
    }
}

/// Every gate in full.
pub(super) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    let gates = app.policies.gates.iter().map(|gate| Shown::of(gate));
    Ok(json(&value!({ "gates": gates.collect::<Vec<_>>() })))
}

/// One gate in full.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    match app.policies.get(&name) {
        Some(gate) => Ok(json(&Shown::of(gate))),
        None => Err(unknown_gate(&app, &name)),
    }
}

/// A gate's answer about a release.
pub(super) async fn verdict(
    State(app): State<Arc<App>>,
    Path(gate): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let known = [
        "service",
        "environment",
        "version",
        "digest",
        "deployment",
        "wait",
        "fresh",
    ];
    let params = Params::read(&uri, &known)?;
    let digest = params
        .text("digest")
        .map(|text| Digest::parse(&text))
        .transpose();
    let query = GateQuery {
        gate,
        service: params.text("service"),
        environment: params.text("environment"),
        version: params.text("version"),
        digest: digest.map_err(|error| ApiError::invalid("digest", format!("digest: {error}")))?,
        deployment: params.text("deployment").map(DeploymentId),
    };
    let wait = params.duration("wait", WAIT_MAX)?;
    let is_fresh = params.flag("fresh")?;
    let answer = app
        .watcher
        .answer(&query)
        .map_err(|error| refused(&error))?;
    if is_fresh && let Some(id) = answer.deployment {
        judge_now(&app, DeploymentId(id)).await;
    }
    let answer = match wait {
        Some(wait) => tokio::select! {
            answer = app.watcher.wait(&query, wait) => answer,
            () = app.stop.cancelled() => app.watcher.answer(&query),
        },
        None => app.watcher.answer(&query),
    };
    Ok(json(&answer.map_err(|error| refused(&error))?))
}

/// Judges, where it is this request's turn, and waits for it up to [`FRESH_WAIT`]. The judging
/// goes on when the caller leaves, so that what was begun is also recorded.
async fn judge_now(app: &Arc<App>, id: DeploymentId) {
    let app = app.clone();
    let judging = tokio::spawn(async move {
        if let Ok(_turn) = app.fresh.try_acquire() {
            app.watcher.judge_now(&id).await;
        }
    });
    if tokio::time::timeout(FRESH_WAIT, judging).await.is_err() {
        tracing::debug!("judging takes long; answering with what is known");
    }
}

fn refused(error: &GateError) -> ApiError {
    let message = error.to_string();
    match error {
        GateError::BadQuery { field, .. } => ApiError::invalid(field, message),
        GateError::NotMatched { .. } => ApiError::invalid("service", message),
        GateError::UnknownGate { .. } | GateError::UnknownDeployment { .. } => {
            ApiError::not_found(message)
        }
    }
}

fn unknown_gate(app: &App, name: &str) -> ApiError {
    let name: String = name.chars().take(100).collect();
    let known: Vec<_> = app
        .policies
        .gates
        .iter()
        .map(|gate| gate.name.as_str())
        .collect();
    let known = known.join(", ");
    ApiError::not_found(format!("there is no gate {name:?}; the gates are: {known}"))
}
