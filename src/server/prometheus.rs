//! The Prometheus HTTP API on the embedded store: slogate as a data source.
//!
//! Grafana, Argo Rollouts, Flagger, promtool and whatever else reads a Prometheus reads
//! slogate here, under `/api/v1/`. The measure is Prometheus 3.14: paths, parameters, texts of
//! errors, formats of numbers. It always answers from the embedded store, also where verdicts
//! take their series from elsewhere (`source.kind: prometheus`): that one can be asked itself.
//!
//! Policy:
//! - Every path that reads takes GET and POST, also where Prometheus takes GET only: Grafana
//!   posts to label values. Nothing here changes anything.
//! - Unknown parameters are ignored, unlike in the native API ([`params`]).
//! - An unknown path below `/api/` is 404 in plain text, which is how Grafana finds out what a
//!   server has not. `/api/v1/status/flags` is unknown on purpose: a server that has it is
//!   taken for a Thanos.
//! - While the daemon starts and while it stops, every path answers 503.
//! - Which web pages may read is a setting ([`Origins`]); by default those of this machine.

mod answer;
mod cors;
mod error;
mod json;
mod params;
mod query;
pub mod rules;
mod series;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::header::ORIGIN;
use http::{Method, StatusCode, Uri};
use slogate_tsdb::Store;
use tokio::sync::Semaphore;

use crate::server::api::App;
use crate::source::EmbeddedSource;

pub use cors::Origins;
use rules::RuleSource;
pub use status::PROMETHEUS_VERSION;

/// What the handlers of this API ask besides what all handlers share.
pub struct Prometheus {
    source: EmbeddedSource,
    store: Arc<Store>,
    /// Look-ups of series that may run at once.
    lookups: Arc<Semaphore>,
    rules: RuleSource,
    /// Whose pages may read this API.
    origins: Origins,
    /// The settings in force, as text.
    settings: String,
    /// How long samples are kept, as text.
    retention: String,
    started_ms: i64,
}

impl Prometheus {
    /// Answers from `store`, and queries through `source`, which is on the same store.
    pub fn new(store: Arc<Store>, source: EmbeddedSource, now_ms: i64) -> Self {
        Prometheus {
            source,
            store,
            lookups: Arc::new(Semaphore::new(series::LOOKUPS_MAX)),
            rules: Arc::new(Vec::new),
            origins: Origins::default(),
            settings: String::new(),
            retention: String::new(),
            started_ms: now_ms,
        }
    }

    /// Lists these rules too.
    pub fn with_rules(mut self, rules: RuleSource) -> Self {
        self.rules = rules;
        self
    }

    /// Lets pages of these origins read.
    pub fn with_origins(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }

    /// Shows these settings, and how long samples are kept; both without secrets.
    pub fn with_settings(mut self, settings: String, retention: String) -> Self {
        (self.settings, self.retention) = (settings, retention);
        self
    }
}

/// Every route of this API: method and path, as `docs/openapi.yaml` has them.
pub const ROUTES: &[(&str, &str)] = &[
    ("GET", "/api/v1/query"),
    ("POST", "/api/v1/query"),
    ("GET", "/api/v1/query_range"),
    ("POST", "/api/v1/query_range"),
    ("GET", "/api/v1/query_exemplars"),
    ("POST", "/api/v1/query_exemplars"),
    ("GET", "/api/v1/labels"),
    ("POST", "/api/v1/labels"),
    ("GET", "/api/v1/label/{name}/values"),
    ("POST", "/api/v1/label/{name}/values"),
    ("GET", "/api/v1/series"),
    ("POST", "/api/v1/series"),
    ("GET", "/api/v1/metadata"),
    ("POST", "/api/v1/metadata"),
    ("GET", "/api/v1/format_query"),
    ("POST", "/api/v1/format_query"),
    ("GET", "/api/v1/rules"),
    ("POST", "/api/v1/rules"),
    ("GET", "/api/v1/alerts"),
    ("POST", "/api/v1/alerts"),
    ("GET", "/api/v1/status/buildinfo"),
    ("POST", "/api/v1/status/buildinfo"),
    ("GET", "/api/v1/status/runtimeinfo"),
    ("POST", "/api/v1/status/runtimeinfo"),
    ("GET", "/api/v1/status/config"),
    ("POST", "/api/v1/status/config"),
    ("GET", "/api/v1/status/tsdb"),
    ("POST", "/api/v1/status/tsdb"),
];

/// GET and POST to one handler.
macro_rules! read {
    ($handler:expr) => {
        get($handler).post($handler)
    };
}

/// The routes, for the API port's router.
pub(super) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/query", read!(query::instant))
        .route("/api/v1/query_range", read!(query::range))
        .route("/api/v1/query_exemplars", read!(series::exemplars))
        .route("/api/v1/labels", read!(series::label_names))
        .route("/api/v1/label/{name}/values", read!(series::label_values))
        .route("/api/v1/series", read!(series::series))
        .route("/api/v1/metadata", read!(series::metadata))
        .route("/api/v1/format_query", read!(status::format_query))
        .route("/api/v1/rules", read!(rules::rules))
        .route("/api/v1/alerts", read!(rules::alerts))
        .route("/api/v1/status/buildinfo", read!(status::build_info))
        .route("/api/v1/status/runtimeinfo", read!(status::runtime_info))
        .route("/api/v1/status/config", read!(status::config))
        .route("/api/v1/status/tsdb", read!(status::tsdb))
        .layer(from_fn_with_state(app.clone(), frame))
}

/// Answers 503 until every worker has begun and from when the daemon stops, and says to browsers
/// whose pages may read. A worker that is late later on is no reason for 503: the series are
/// there, and dashboards are needed then.
async fn frame(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let is_stopping = app.stop.is_cancelled();
    let mut response = if is_stopping || !app.heartbeats.starting(app.clock.now_ms()).is_empty() {
        error::not_ready(is_stopping)
    } else {
        next.run(request).await
    };
    app.prometheus.origins.mark(origin, response.headers_mut());
    response
}

/// Whether a request to this route only reads: all of this API's do, posts included.
pub(super) fn is_reading(method: &Method, route: &str) -> bool {
    ROUTES.contains(&(method.as_str(), route))
}

/// Whether a path belongs to this API, or is where clients look for what Prometheus's relatives
/// have beside it.
pub(super) fn is_ours(uri: &Uri) -> bool {
    let path = uri.path();
    ["/api/", "/rules/", "/config/"]
        .iter()
        .any(|prefix| path.starts_with(prefix))
}

/// The answer to a path below ours that is not served.
pub(super) fn unknown(app: &App, request: &Request) -> Response {
    match *request.method() {
        Method::OPTIONS => options(app, request),
        _ => error::not_found(),
    }
}

/// The answer to a method that a path of ours does not have.
pub(super) fn not_allowed(app: &App, request: &Request, allow: &'static str) -> Response {
    match *request.method() {
        Method::OPTIONS => options(app, request),
        _ => error::method_not_allowed(allow),
    }
}

/// What a browser asks before it lets a page read.
fn options(app: &App, request: &Request) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let origin = request.headers().get(ORIGIN).cloned();
    app.prometheus.origins.mark(origin, response.headers_mut());
    response
}

#[cfg(test)]
mod tests;
