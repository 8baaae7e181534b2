//! GET `/v1/verdicts/{id}`: a verdict with all its evidence, as it was recorded.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::Uri;

use super::error::ApiError;
use super::params::Params;
use super::{App, json};

/// The verdict of that id.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    let verdict = app.ledger.verdict(&id).await;
    let verdict =
        verdict.map_err(|error| ApiError::unavailable("the ledger can't be read", &error))?;
    match verdict {
        Some(verdict) => Ok(json(&verdict)),
        None => {
            let id: String = id.chars().take(100).collect();
            Err(ApiError::not_found(format!("there is no verdict {id:?}")))
        }
    }
}
