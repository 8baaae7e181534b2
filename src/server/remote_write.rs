//! POST `/api/v1/write`: Prometheus remote write 1.0 and 2.0 in.
//!
//! The rules are those of the specifications 1.0 and 2.0-rc.4. In short:
//!
//! | what happened | status | sender |
//! |---|---|---|
//! | taken whole (exemplars aside) | 204 | goes on |
//! | taken in part, or not readable | 400 | drops what was not taken |
//! | content type or encoding not spoken | 415 | 2.0: may fall back to 1.0 |
//! | too large, before or after decompression | 413 | drops it |
//! | too much in flight | 429, Retry-After | tries again |
//! | body not complete in time, or can't be stored now | 503, Retry-After | tries again |
//!
//! - The header is looked at before the body: what is refused by its type is not read.
//! - No content type means 1.0, and no encoding means snappy, as the oldest senders have it. The
//!   version header is not looked at: the content type says what the body is.
//! - Every answer to a 2.0 request whose header was understood says how much was written, 0
//!   included: without that a sender takes us for a 1.0 receiver. Answers to 1.0 don't.
//! - A sender may repeat a request that was answered with 429 or 5xx, as the store takes the same
//!   sample twice. Nothing that lies in the data is ever answered with 5xx.
//! - Errors are one line of plain text, which is what senders put into their log.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::time::Instant;

use super::otlp::{BUSY_RETRY_MS, LARGE_BYTES, STORAGE_RETRY_MS, off_async};
use crate::ingest::{Ingest, IngestError, RemoteWriteVersion, Written};
use crate::model::Clock;
use crate::server::limits::{self, BodyError, BodyLimits, Budget};
use crate::telemetry::catalog;
use crate::telemetry::metrics::Registry;

/// The path, as Prometheus has it.
pub const PATH: &str = "/api/v1/write";

/// The one encoding, in headers.
const SNAPPY: HeaderValue = HeaderValue::from_static("snappy");

/// Takes remote-write requests.
pub struct RemoteWrite {
    ingest: Arc<Ingest>,
    clock: Arc<dyn Clock>,
    limits: BodyLimits,
    budget: Budget,
    registry: Registry,
}

impl RemoteWrite {
    /// Writes to `ingest` within `limits`; `budget` is shared with every other listener.
    pub fn new(
        ingest: Arc<Ingest>,
        clock: Arc<dyn Clock>,
        limits: BodyLimits,
        budget: Budget,
        registry: &Registry,
    ) -> RemoteWrite {
        RemoteWrite {
            ingest,
            clock,
            limits,
            budget,
            registry: registry.clone(),
        }
    }

    /// Takes one request.
    pub async fn take(&self, request: Request) -> Response<Body> {
        let began = Instant::now();
        let (parts, body) = request.into_parts();
        let version = version(&parts.headers);
        let result = match version {
            Ok(version) => match encoding(&parts.headers) {
                Ok(()) => self.write(version, body).await,
                Err(failure) => Err(failure),
            },
            Err(ref failure) => Err(failure.clone()),
        };
        let outcome = match &result {
            Ok(written) if written.rejected == 0 => "ok",
            Ok(_) => "partial",
            Err(failure) => failure.outcome,
        };
        let name = version.as_ref().map_or("unknown", |version| version.name());
        let requests = self
            .registry
            .counter(&catalog::WRITE_REQUESTS, &[name, outcome]);
        requests.increment();
        let seconds = self.registry.histogram(&catalog::WRITE_SECONDS, &[name]);
        seconds.observe(began.elapsed());
        let mut response = match &result {
            Ok(written) if written.rejected == 0 => empty(),
            Ok(written) => text(StatusCode::BAD_REQUEST, &written.message),
            Err(failure) => failure.response(),
        };
        if version == Ok(RemoteWriteVersion::V2) {
            let written = result.unwrap_or_default();
            tell_written(response.headers_mut(), &written);
        }
        response
    }

    async fn write(&self, version: RemoteWriteVersion, body: Body) -> Result<Written, Failure> {
        let labels = [version.name()];
        let held = limits::read(body, &self.limits, &self.budget).await?;
        let wire_bytes = self.registry.counter(&catalog::WRITE_WIRE_BYTES, &labels);
        wire_bytes.add(held.wire_bytes as u64);
        let limit = self.limits.body_bytes_max;
        let held = off_async(held.wire_bytes > LARGE_BYTES / 2, || {
            held.decode_snappy(limit)
        })?;
        let body_bytes = self.registry.counter(&catalog::WRITE_BODY_BYTES, &labels);
        body_bytes.add(held.bytes.len() as u64);
        Ok(off_async(held.bytes.len() > LARGE_BYTES, || {
            let now_ms = self.clock.now_ms();
            self.ingest.remote_write(version, &held.bytes, now_ms)
        })?)
    }
}

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    status: StatusCode,
    /// Its name in our own metrics.
    outcome: &'static str,
    message: String,
    retry_after_ms: Option<u64>,
}

impl Failure {
    fn new(status: StatusCode, outcome: &'static str, message: impl Into<String>) -> Self {
        Failure {
            status,
            outcome,
            message: message.into(),
            retry_after_ms: None,
        }
    }

    fn later(self, retry_after_ms: u64) -> Self {
        Failure {
            retry_after_ms: Some(retry_after_ms),
            ..self
        }
    }

    fn unsupported(message: String) -> Self {
        Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", message)
    }

    fn response(&self) -> Response<Body> {
        let mut response = text(self.status, &self.message);
        let headers = response.headers_mut();
        if let Some(ms) = self.retry_after_ms {
            headers.insert(RETRY_AFTER, ms.div_ceil(1_000).max(1).into());
        }
        if self.outcome == "unsupported" {
            headers.insert(ACCEPT_ENCODING, SNAPPY);
        }
        if self.outcome == "timeout" {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        let message = error.to_string();
        match error {
            BodyError::TooLarge { .. } => {
                Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
            }
            BodyError::Overloaded => {
                Failure::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", message)
                    .later(BUSY_RETRY_MS)
            }
            // A slow network is no fault of the data, and 408 would make senders drop it.
            BodyError::Late(_) => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message)
                .later(BUSY_RETRY_MS),
            BodyError::Broken(_) | BodyError::Corrupt { .. } => {
                Failure::new(StatusCode::BAD_REQUEST, "malformed", message)
            }
        }
    }
}

impl From<IngestError> for Failure {
    fn from(error: IngestError) -> Self {
        let message = error.to_string();
        match error {
            IngestError::Malformed { .. } => {
                Failure::new(StatusCode::BAD_REQUEST, "malformed", message)
            }
            IngestError::TooMany { .. } => {
                Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
            }
            IngestError::Overloaded { retry_after_ms } => {
                Failure::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", message)
                    .later(retry_after_ms)
            }
            IngestError::Storage(error) => {
                tracing::error!(error, "remote-written samples could not be stored");
                let message = "samples can't be stored at the moment; try again later";
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "storage", message)
                    .later(STORAGE_RETRY_MS)
            }
        }
    }
}

/// Which message the content type announces.
fn version(headers: &HeaderMap) -> Result<RemoteWriteVersion, Failure> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(RemoteWriteVersion::V1);
    };
    let value = String::from_utf8_lossy(value.as_bytes());
    let unsupported = || {
        let value: String = value.chars().take(150).collect();
        Failure::unsupported(format!(
            "content type {value:?} is not supported; send application/x-protobuf with \
             proto=prometheus.WriteRequest or proto=io.prometheus.write.v2.Request"
        ))
    };
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    if essence.is_empty() && value.trim().is_empty() {
        return Ok(RemoteWriteVersion::V1);
    }
    if !essence.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(unsupported());
    }
    for part in parts {
        let Some((name, value)) = part.split_once('=') else {
            continue;
        };
        if name.trim().eq_ignore_ascii_case("proto") {
            return match value.trim().trim_matches('"') {
                "prometheus.WriteRequest" => Ok(RemoteWriteVersion::V1),
                "io.prometheus.write.v2.Request" => Ok(RemoteWriteVersion::V2),
                _ => Err(unsupported()),
            };
        }
    }
    Ok(RemoteWriteVersion::V1)
}

fn encoding(headers: &HeaderMap) -> Result<(), Failure> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let first = values.next().map(|value| value.as_bytes().trim_ascii());
    match first {
        None | Some(b"") => Ok(()),
        Some(name) if name.eq_ignore_ascii_case(b"snappy") && values.next().is_none() => Ok(()),
        Some(name) => {
            let name: String = String::from_utf8_lossy(name).chars().take(50).collect();
            Err(Failure::unsupported(format!(
                "content encoding {name:?} is not supported; send snappy (block format)"
            )))
        }
    }
}

fn empty() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{message}\n")));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

fn tell_written(headers: &mut HeaderMap, written: &Written) {
    for (name, count) in [
        ("x-prometheus-remote-write-samples-written", written.samples),
        (
            "x-prometheus-remote-write-histograms-written",
            written.histograms,
        ),
        (
            "x-prometheus-remote-write-exemplars-written",
            written.exemplars,
        ),
    ] {
        headers.insert(name, count.into());
    }
}

#[cfg(test)]
mod tests;
