//! The API port: events in, verdicts and records out, health, our own metrics; and beside them
//! the Prometheus API ([`prometheus`]), which has manners of its own.
//!
//! JSON in and out, one error shape ([`error`]), strict parameters (`params`), no request without a limit.
//! Every route is in `docs/openapi.yaml`, and a test holds the two together.
//!
//! Gates answer from the watcher's table and compute nothing, so polling is cheap; an answer
//! that is not "pass" is still 200, since 4xx and 5xx mean "could not answer" to every caller.

mod access;
mod deployments;
pub mod error;
mod events;
mod gates;
mod ledger;
mod params;
mod slis;
mod verdicts;

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;
use tracing::Instrument as _;

use crate::deploy::Deployments;
use crate::judge::Watcher;
use crate::ledger::Ledger;
use crate::model::Clock;
use crate::policy::PolicySet;
use crate::server::health;
use crate::server::limits::{BodyLimits, Budget};
use crate::server::prometheus::{self, Prometheus};
use crate::server::remote_write::{self, RemoteWrite};
use crate::sli::Slis;
use crate::telemetry::{Heartbeats, Registry, catalog};

use error::ApiError;

/// The name of the API's listener in logs and metrics.
pub const LISTENER: &str = "api";

/// Gate requests that judge at the same time; further ones are answered from the table.
pub const FRESH_MAX: usize = 4;

/// What the handlers ask.
pub struct App {
    /// The gates there are.
    pub policies: Arc<PolicySet>,
    /// What is being shipped.
    pub deployments: Arc<Deployments>,
    /// Events accepted and verdicts given.
    pub ledger: Arc<Ledger>,
    /// Who judges.
    pub watcher: Arc<Watcher>,
    /// How well services ship.
    pub slis: Arc<Slis>,
    /// What the Prometheus API answers from.
    pub prometheus: Prometheus,
    /// Our own numbers.
    pub registry: Registry,
    /// Who is alive.
    pub heartbeats: Heartbeats,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The limits of a body of events.
    pub limits: BodyLimits,
    /// Who takes remote-written samples.
    pub remote_write: Arc<RemoteWrite>,
    /// Bytes of bodies in flight, shared with the OTLP listeners.
    pub budget: Budget,
    /// Cancelled when shutdown begins: waiting gate requests answer at once.
    pub stop: CancellationToken,
    /// Gate requests that may judge at once, see [`FRESH_MAX`].
    pub fresh: Semaphore,
}

/// The native API's routes.
const ROUTES: &[(&str, &str)] = &[
    ("GET", "/"),
    ("GET", "/v1/gates"),
    ("GET", "/v1/gates/{gate}"),
    ("GET", "/v1/gates/{gate}/verdict"),
    ("POST", "/v1/events"),
    ("POST", remote_write::PATH),
    ("GET", "/v1/deployments"),
    ("GET", "/v1/deployments/{id}"),
    ("GET", "/v1/verdicts/{id}"),
    ("GET", "/v1/ledger"),
    ("GET", "/v1/slis"),
    ("GET", "/v1/openapi.yaml"),
    ("GET", "/metrics"),
    ("GET", "/-/healthy"),
    ("GET", "/-/ready"),
];

/// Every route of the API port: method and path, as `docs/openapi.yaml` has them.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.iter().chain(prometheus::ROUTES).copied()
}

/// The API port's routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/v1/gates", get(gates::list))
        .route("/v1/gates/{gate}", get(gates::one))
        .route("/v1/gates/{gate}/verdict", get(gates::verdict))
        .route("/v1/events", post(events::post))
        .route("/v1/deployments", get(deployments::list))
        .route("/v1/deployments/{id}", get(deployments::one))
        .route("/v1/verdicts/{id}", get(verdicts::one))
        .route("/v1/ledger", get(ledger::page))
        .route("/v1/slis", get(slis::report))
        .route("/v1/openapi.yaml", get(openapi))
        .route("/metrics", get(health::metrics))
        .route("/-/healthy", get(health::healthy))
        .route("/-/ready", get(health::ready))
        .merge(prometheus::router(&app))
        .route(remote_write::PATH, post(write))
        .method_not_allowed_fallback(not_allowed)
        .fallback(unknown)
        .layer(from_fn(access::admit))
        .layer(CompressionLayer::new().no_br().no_deflate().no_zstd())
        .layer(from_fn_with_state(app.clone(), count))
        .with_state(app)
}

async fn index() -> String {
    let mut text = format!("slogate {}\n\n", env!("CARGO_PKG_VERSION"));
    for (method, path) in routes() {
        text.push_str(&format!("{method:5}{path}\n"));
    }
    text
}

async fn write(State(app): State<Arc<App>>, request: Request) -> Response {
    app.remote_write.take(request).await
}

async fn openapi() -> Response {
    let yaml = HeaderValue::from_static("application/yaml");
    (
        [(CONTENT_TYPE, yaml)],
        include_str!("../../docs/openapi.yaml"),
    )
        .into_response()
}

async fn not_allowed(
    State(app): State<Arc<App>>,
    path: Option<MatchedPath>,
    request: Request,
) -> Response {
    let path = path.as_ref().map_or("", MatchedPath::as_str);
    let has = |method| routes().any(|route| route == (method, path));
    let allow = match (has("GET"), has("POST")) {
        (true, true) => "GET, HEAD, POST",
        (false, true) => "POST",
        _ => "GET, HEAD",
    };
    if prometheus::is_ours(request.uri()) {
        return prometheus::not_allowed(&app, &request, allow);
    }
    ApiError::method_not_allowed(allow).into_response()
}

async fn unknown(State(app): State<Arc<App>>, request: Request) -> Response {
    if prometheus::is_ours(request.uri()) {
        return prometheus::unknown(&app, &request);
    }
    let path: String = request.uri().path().chars().take(200).collect();
    ApiError::unknown_path(format!("{path} is not served; GET / lists what is")).into_response()
}

/// Counts and traces a request by its route, never by its path: paths are the caller's.
async fn count(
    State(app): State<Arc<App>>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let route = path.as_ref().map_or("unknown", MatchedPath::as_str);
    let method = request.method().as_str();
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
    );
    let began = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    let seconds = app
        .registry
        .histogram(&catalog::REQUEST_SECONDS, &[LISTENER, route]);
    seconds.observe(began.elapsed());
    let status = response.status();
    let labels = [LISTENER, route, status.as_str()];
    app.registry
        .counter(&catalog::REQUESTS, &labels)
        .increment();
    response
}

/// JSON that nobody may keep: answers are about now.
fn json(value: &impl serde::Serialize) -> Response {
    let no_store = HeaderValue::from_static("no-store");
    ([(CACHE_CONTROL, no_store)], axum::Json(value)).into_response()
}

#[cfg(test)]
pub(super) mod tests;
