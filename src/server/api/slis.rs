//! GET `/v1/slis`: M1 to M7 over a window.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::Uri;

use super::error::ApiError;
use super::params::Params;
use super::{App, json};
use crate::sli::SliQuery;

const DEFAULT_WINDOW: Duration = Duration::from_secs(30 * 86_400);
const WINDOW_MAX: Duration = Duration::from_secs(366 * 86_400);

/// The report.
pub(super) async fn report(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, ApiError> {
    let params = Params::read(&uri, &["service", "environment", "window"])?;
    let window = params
        .duration("window", WINDOW_MAX)?
        .unwrap_or(DEFAULT_WINDOW);
    if window.is_zero() {
        return Err(ApiError::invalid(
            "window",
            "window: longer than 0 was expected",
        ));
    }
    let query = SliQuery {
        service: params.text("service"),
        environment: params.text("environment"),
        window_ms: i64::try_from(window.as_millis()).unwrap_or(i64::MAX),
    };
    let now_ms = app.clock.now_ms();
    let report = app.slis.report(&query, now_ms).await;
    let report =
        report.map_err(|error| ApiError::unavailable("the ledger can't be read", &error))?;
    Ok(json(&report))
}
