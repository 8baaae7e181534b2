//! `/-/healthy`, `/-/ready` and `/metrics`.
//!
//! Healthy: every worker has reported within what is normal for it; if not, restarting the
//! process is the remedy. Ready: healthy, every worker has reported at least once, and no
//! shutdown has begun; if not, send requests elsewhere for now. Both answer 200 or 503 with one
//! line that names who is late and by how much.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::server::api::App;
use crate::telemetry::exposition::{self, Format};
use crate::telemetry::heartbeat::WorkerState;

/// GET `/-/healthy`.
pub(super) async fn healthy(State(app): State<Arc<App>>) -> Response {
    let late = app.heartbeats.late(app.clock.now_ms());
    if late.is_empty() {
        return line(StatusCode::OK, "healthy\n".to_owned());
    }
    line(StatusCode::SERVICE_UNAVAILABLE, unhealthy(&late))
}

/// GET `/-/ready`.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let now_ms = app.clock.now_ms();
    if app.stop.is_cancelled() {
        return line(
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: stopping\n".to_owned(),
        );
    }
    let late = app.heartbeats.late(now_ms);
    if !late.is_empty() {
        return line(StatusCode::SERVICE_UNAVAILABLE, unhealthy(&late));
    }
    let starting = app.heartbeats.starting(now_ms);
    if !starting.is_empty() {
        let names: Vec<_> = starting.into_iter().map(|worker| worker.name).collect();
        let text = format!("not ready: starting {}\n", names.join(", "));
        return line(StatusCode::SERVICE_UNAVAILABLE, text);
    }
    line(StatusCode::OK, "ready\n".to_owned())
}

/// GET `/metrics`: the registry as Prometheus text, or as OpenMetrics where that is preferred.
pub(super) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::negotiate(accept.unwrap_or_default());
    let text = exposition::write(&app.registry.snapshot(), format);
    ([(CONTENT_TYPE, format.content_type())], text).into_response()
}

fn unhealthy(late: &[WorkerState]) -> String {
    let mut text = "unhealthy:".to_owned();
    for worker in late {
        // Writing to a string can't fail.
        let _ = write!(
            text,
            " {} has not reported for {:.1} s (normal: {:.1} s);",
            worker.name,
            worker.silence_ms as f64 / 1e3,
            worker.max_silence_ms as f64 / 1e3
        );
    }
    text.pop();
    text.push('\n');
    text
}

fn line(status: StatusCode, text: String) -> Response {
    let no_store = HeaderValue::from_static("no-store");
    (status, [(CACHE_CONTROL, no_store)], text).into_response()
}
