//! POST `/v1/events`: facts about deployments, in any format that the deploy room reads.
//!
//! 202 means: durable, and in the ledger. A request is taken whole or not at all; an event that
//! was sent before is a success and says `duplicate`, so a sender that is not sure sends again.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;

use super::error::ApiError;
use super::params::Params;
use super::{App, json};
use crate::deploy::{self, AcceptError, Accepted, EventErrors};
use crate::server::limits::{self, Encoding};

#[derive(Serialize)]
struct Answer {
    /// What became of each event, in the order of the request.
    events: Vec<Accepted>,
}

/// Takes events.
pub(super) async fn post(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    Params::read(&parts.uri, &[])?;
    let encoding = encoding(&parts.headers)?;
    let held = limits::read(body, &app.limits, &app.budget).await?;
    let held = held.decode(encoding, app.limits.body_bytes_max)?;
    let header = |name: &str| header(&parts.headers, name);
    let content_type = header(CONTENT_TYPE.as_str()).unwrap_or_default();
    let now_ms = app.clock.now_ms();
    let events =
        deploy::parse(&content_type, &header, &held.bytes, now_ms).map_err(|e| refused(&e))?;
    let events = app
        .deployments
        .accept(events, now_ms)
        .await
        .map_err(|error| match error {
            AcceptError::TooMany { .. } => ApiError::invalid("events", error.to_string()),
            AcceptError::Record(error) => ApiError::unavailable(
                "the events can't be stored at the moment; send them again",
                &error,
            ),
        })?;
    let mut response = json(&Answer { events }).into_response();
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let name = header(headers, CONTENT_ENCODING.as_str()).unwrap_or_default();
    Encoding::parse(&name).ok_or_else(|| {
        let name: String = name.chars().take(50).collect();
        let message =
            format!("content-encoding {name:?} is not supported; send gzip, zstd or identity");
        ApiError::unsupported(message)
    })
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name).map(HeaderValue::as_bytes);
    value.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn refused(errors: &EventErrors) -> ApiError {
    if errors.is_media_type {
        return ApiError::unsupported(errors.to_string());
    }
    let details = errors.errors.iter().map(serde_json::to_value);
    let details: Vec<_> = details.filter_map(Result::ok).collect();
    let field = errors
        .errors
        .first()
        .map_or("", |error| error.field.as_str());
    ApiError::invalid(field, errors.to_string()).with_details(details)
}
