//! GET `/v1/gates`, `/v1/gates/{gate}`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::Uri;
use serde_json::json as value;

use super::error::ApiError;
use super::params::Params;
use super::{App, json};

/// Every gate in full: what it is for, its checks, its policy's hash.
pub(super) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    let gates: Vec<_> = app.policies.gates.iter().map(|gate| &**gate).collect();
    Ok(json(&value!({ "gates": gates })))
}

/// One gate in full.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    match app.policies.get(&name) {
        Some(gate) => Ok(json(&**gate)),
        None => Err(unknown_gate(&app, &name)),
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
