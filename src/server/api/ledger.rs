//! GET `/v1/ledger`: the chain, page by page.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::Uri;
use serde::Serialize;

use super::error::ApiError;
use super::params::Params;
use super::{App, json};
use crate::ledger::Entry;

const DEFAULT_LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    entries: Vec<Entry>,
    /// `after` of the next page, null where this one is the last so far.
    next: Option<u64>,
}

/// Entries after the one numbered `after`, oldest first.
pub(super) async fn page(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::read(&uri, &["after", "limit"])?;
    let after = params
        .parsed("after", "the number of an entry")?
        .unwrap_or(0);
    let limit = params.limit(DEFAULT_LIMIT, LIMIT_MAX)?;
    let entries = app.ledger.entries(after, limit).await;
    let entries =
        entries.map_err(|error| ApiError::unavailable("the ledger can't be read", &error))?;
    let last = entries.last().map(|entry| entry.seq);
    let next = last.filter(|_| entries.len() == limit);
    Ok(json(&Page { entries, next }))
}
