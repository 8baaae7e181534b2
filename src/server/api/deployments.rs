//! GET `/v1/deployments` and `/v1/deployments/{id}`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::Uri;
use serde::Serialize;

use super::error::ApiError;
use super::params::Params;
use super::{App, json};
use crate::deploy::Filter;
use crate::model::{Deployment, DeploymentId, Phase, Verdict, time};

const DEFAULT_LIMIT: usize = 50;
const LIMIT_MAX: usize = 500;

/// Recorded verdicts shown with one deployment, newest first; the ledger has them all.
const VERDICTS_MAX: usize = 100;

#[derive(Serialize)]
struct List<'a> {
    deployments: Vec<&'a Deployment>,
}

/// A deployment with what was said about it.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    deployment: &'a Deployment,
    /// Each gate's newest look, with its evidence.
    latest: Vec<&'a Verdict>,
    /// Recorded verdicts, newest first: an entry for every change of an answer.
    verdicts: Vec<Verdict>,
}

/// Deployments, newest first.
pub(super) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::read(&uri, &["service", "environment", "phase", "since", "limit"])?;
    let filter = Filter {
        service: params.text("service"),
        environment: params.text("environment"),
        phase: params.text("phase").map(|text| phase(&text)).transpose()?,
        since_ms: params.text("since").map(|text| since(&text)).transpose()?,
    };
    let limit = params.limit(DEFAULT_LIMIT, LIMIT_MAX)?;
    let deployments = app.deployments.list(&filter, limit);
    let deployments = deployments.iter().map(|deployment| &**deployment).collect();
    Ok(json(&List { deployments }))
}

/// One deployment: its timeline, and its verdicts with their evidence.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    let id = DeploymentId(id);
    let Some(deployment) = app.deployments.get(&id) else {
        let id: String = id.0.chars().take(100).collect();
        return Err(ApiError::not_found(format!(
            "there is no deployment {id:?}"
        )));
    };
    let verdicts = app.ledger.verdicts_of(&deployment.id, VERDICTS_MAX).await;
    let verdicts =
        verdicts.map_err(|error| ApiError::unavailable("the ledger can't be read", &error))?;
    let latest = app.watcher.standing(&deployment.id);
    Ok(json(&Whole {
        deployment: &deployment,
        latest: latest.iter().map(|verdict| &**verdict).collect(),
        verdicts,
    }))
}

fn phase(text: &str) -> Result<Phase, ApiError> {
    serde_json::from_value(text.into()).map_err(|_| {
        let text: String = text.chars().take(50).collect();
        let expected =
            "pending, progressing, paused, succeeded, failed, aborted, rolled_back or superseded";
        ApiError::invalid("phase", format!("phase: {text:?} is not {expected}"))
    })
}

fn since(text: &str) -> Result<i64, ApiError> {
    time::from_rfc3339(text).ok_or_else(|| {
        let text: String = text.chars().take(50).collect();
        let message = format!("since: {text:?} is not a time such as 2026-11-20T18:00:00Z");
        ApiError::invalid("since", message)
    })
}
