//! OTLP over gRPC and HTTP: what both transports share.
//!
//! The rules are those of the OTLP specification 1.11, section "Protocol Details". In short:
//!
//! | what happened | gRPC | HTTP | sender |
//! |---|---|---|---|
//! | taken, all or in part | OK | 200 | goes on; `partial_success` names what was rejected |
//! | can't be decoded | INVALID_ARGUMENT | 400 | drops it |
//! | too large, before or after decompression | RESOURCE_EXHAUSTED | 413 | drops it |
//! | content type not spoken | HTTP 415 | 415 | drops it |
//! | compression not spoken | UNIMPLEMENTED | 415 | drops it |
//! | body not complete in time | DEADLINE_EXCEEDED | 408 | gRPC: tries again |
//! | too much in flight | UNAVAILABLE, RetryInfo | 429, Retry-After | tries again |
//! | can't be stored now | UNAVAILABLE, RetryInfo | 503, Retry-After | tries again |
//!
//! Reducing a request is computation, not waiting. A usual batch takes less than half a
//! millisecond and runs where it was read; a large one ([`LARGE_BYTES`]) first hands the
//! thread's other tasks away, so that one giant batch does not hold up its neighbours.

pub mod grpc;
pub mod http;

use std::sync::Arc;

use axum::body::Body;
use prost_types::Any;
use tokio::time::Instant;

use crate::ingest::{Ingest, IngestError, Outcome};
use crate::model::Clock;
use crate::server::limits::{self, BodyError, BodyLimits, Budget, Encoding, Held};
use crate::telemetry::catalog;
use crate::telemetry::metrics::{Counter, Histogram, Registry};

/// From this size a protobuf body is reduced off the async threads; JSON, which costs about ten
/// times as much, from a tenth of it.
pub const LARGE_BYTES: usize = 512 * 1024;

/// When a sender over the bytes in flight is asked to come back.
pub(super) const BUSY_RETRY_MS: u64 = 1_000;

/// When a sender is asked to come back after storing failed.
pub(super) const STORAGE_RETRY_MS: u64 = 5_000;

/// A kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metric points.
    Metrics,
    /// Log records.
    Logs,
}

impl Signal {
    /// All of them.
    pub const ALL: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

    /// The name in paths and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Signal::Traces => "traces",
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
        }
    }

    /// The field of `partialSuccess` that counts what was rejected.
    fn rejected_field(self) -> &'static str {
        match self {
            Signal::Traces => "rejectedSpans",
            Signal::Metrics => "rejectedDataPoints",
            Signal::Logs => "rejectedLogRecords",
        }
    }
}

/// How a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Protobuf.
    Protobuf,
    /// Protobuf's JSON mapping, with OTLP's exceptions.
    Json,
}

/// Takes OTLP requests: the ingest room, or a stand-in in tests of the transports.
pub trait Receive: Send + Sync + 'static {
    /// Takes one request.
    ///
    /// # Errors
    /// Where nothing of it was taken.
    fn receive(
        &self,
        signal: Signal,
        form: Form,
        body: &[u8],
        now_ms: i64,
    ) -> Result<Outcome, IngestError>;
}

impl Receive for Ingest {
    fn receive(
        &self,
        signal: Signal,
        form: Form,
        body: &[u8],
        now_ms: i64,
    ) -> Result<Outcome, IngestError> {
        match (signal, form) {
            (Signal::Traces, Form::Protobuf) => self.traces(body, now_ms),
            (Signal::Traces, Form::Json) => self.traces_json(body, now_ms),
            (Signal::Metrics, Form::Protobuf) => self.metrics(body, now_ms),
            (Signal::Metrics, Form::Json) => self.metrics_json(body, now_ms),
            (Signal::Logs, Form::Protobuf) => self.logs(body, now_ms),
            (Signal::Logs, Form::Json) => self.logs_json(body, now_ms),
        }
    }
}

/// What both transports need.
pub struct Otlp {
    receiver: Arc<dyn Receive>,
    clock: Arc<dyn Clock>,
    limits: BodyLimits,
    budget: Budget,
    registry: Registry,
}

impl Otlp {
    /// Serves `receiver` within `limits`; `budget` is shared with every other listener.
    pub fn new(
        receiver: Arc<dyn Receive>,
        clock: Arc<dyn Clock>,
        limits: BodyLimits,
        budget: Budget,
        registry: &Registry,
    ) -> Arc<Otlp> {
        Arc::new(Otlp {
            receiver,
            clock,
            limits,
            budget,
            registry: registry.clone(),
        })
    }

    async fn read(&self, body: Body, meter: &Meter) -> Result<Held, Failure> {
        let held = limits::read(body, &self.limits, &self.budget).await?;
        meter.wire_bytes.add(held.wire_bytes as u64);
        Ok(held)
    }

    fn decode(&self, held: Held, encoding: Encoding) -> Result<Held, Failure> {
        let limit = self.limits.body_bytes_max;
        Ok(off_async(
            encoding != Encoding::Identity && held.wire_bytes > LARGE_BYTES / 8,
            || held.decode(encoding, limit),
        )?)
    }

    /// Hands a decoded body to the receiver.
    fn receive(
        &self,
        signal: Signal,
        form: Form,
        held: &Held,
        meter: &Meter,
    ) -> Result<Outcome, Failure> {
        let body = &held.bytes;
        meter.body_bytes.add(body.len() as u64);
        let large_bytes = match form {
            Form::Protobuf => LARGE_BYTES,
            Form::Json => LARGE_BYTES / 10,
        };
        let received = off_async(body.len() > large_bytes, || {
            let now_ms = self.clock.now_ms();
            self.receiver.receive(signal, form, body, now_ms)
        });
        Ok(received?)
    }

    fn meter(&self, signal: Signal, transport: &'static str) -> Meter {
        let labels = [signal.as_str(), transport];
        Meter {
            signal,
            transport,
            began: Instant::now(),
            registry: self.registry.clone(),
            seconds: self.registry.histogram(&catalog::OTLP_SECONDS, &labels),
            wire_bytes: self.registry.counter(&catalog::OTLP_WIRE_BYTES, &labels),
            body_bytes: self.registry.counter(&catalog::OTLP_BODY_BYTES, &labels),
        }
    }
}

/// Runs `work` here, or, where it is long, after other tasks have left this thread.
pub(super) fn off_async<R>(is_long: bool, work: impl FnOnce() -> R) -> R {
    let flavor = tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor());
    match flavor {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) if is_long => {
            tokio::task::block_in_place(work)
        }
        _ => work(),
    }
}

/// Counts one request.
struct Meter {
    signal: Signal,
    transport: &'static str,
    began: Instant,
    registry: Registry,
    seconds: Histogram,
    wire_bytes: Counter,
    body_bytes: Counter,
}

impl Meter {
    fn finish(&self, result: &Result<Outcome, Failure>) {
        self.seconds.observe(self.began.elapsed());
        let outcome = match result {
            Ok(received) if received.rejected == 0 => "ok",
            Ok(_) => "partial",
            Err(failure) => failure.kind.outcome(),
        };
        let labels = [self.signal.as_str(), self.transport, outcome];
        self.registry
            .counter(&catalog::OTLP_REQUESTS, &labels)
            .increment();
    }
}

/// The kinds of failure that senders tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailureKind {
    Malformed,
    TooLarge,
    UnsupportedType,
    UnsupportedEncoding,
    Late,
    Overloaded { retry_after_ms: u64 },
    Storage { retry_after_ms: u64 },
}

impl FailureKind {
    fn outcome(self) -> &'static str {
        match self {
            FailureKind::Malformed => "malformed",
            FailureKind::TooLarge => "too_large",
            FailureKind::UnsupportedType | FailureKind::UnsupportedEncoding => "unsupported",
            FailureKind::Late => "timeout",
            FailureKind::Overloaded { .. } => "overloaded",
            FailureKind::Storage { .. } => "storage",
        }
    }

    fn grpc_code(self) -> tonic::Code {
        match self {
            FailureKind::Malformed => tonic::Code::InvalidArgument,
            FailureKind::TooLarge => tonic::Code::ResourceExhausted,
            FailureKind::UnsupportedType | FailureKind::UnsupportedEncoding => {
                tonic::Code::Unimplemented
            }
            FailureKind::Late => tonic::Code::DeadlineExceeded,
            FailureKind::Overloaded { .. } | FailureKind::Storage { .. } => {
                tonic::Code::Unavailable
            }
        }
    }

    fn retry_after_ms(self) -> Option<u64> {
        match self {
            FailureKind::Overloaded { retry_after_ms }
            | FailureKind::Storage { retry_after_ms } => Some(retry_after_ms),
            _ => None,
        }
    }
}

/// Why a request got no positive answer: the kind for machines, the sentence for the sender.
#[derive(Debug)]
struct Failure {
    kind: FailureKind,
    message: String,
}

impl Failure {
    fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
        }
    }

    fn unsupported_encoding(name: &str) -> Self {
        let name: String = name.chars().take(50).collect();
        let message = format!("compression {name:?} is not supported; send gzip, zstd or identity");
        Failure::new(FailureKind::UnsupportedEncoding, message)
    }

    /// The same as `google.rpc.Status`, with its details.
    fn status(&self) -> RpcStatus {
        let details = match (self.kind, self.kind.retry_after_ms()) {
            (_, Some(retry_after_ms)) => vec![any(
                "type.googleapis.com/google.rpc.RetryInfo",
                &RetryInfo::after_ms(retry_after_ms),
            )],
            (FailureKind::Malformed, None) => vec![any(
                "type.googleapis.com/google.rpc.BadRequest",
                &BadRequest::of(&self.message),
            )],
            _ => Vec::new(),
        };
        RpcStatus {
            code: self.kind.grpc_code() as i32,
            message: self.message.clone(),
            details,
        }
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        let kind = match &error {
            BodyError::TooLarge { .. } => FailureKind::TooLarge,
            BodyError::Overloaded => FailureKind::Overloaded {
                retry_after_ms: BUSY_RETRY_MS,
            },
            BodyError::Late(_) => FailureKind::Late,
            BodyError::Broken(_) | BodyError::Corrupt { .. } => FailureKind::Malformed,
        };
        Failure::new(kind, error.to_string())
    }
}

impl From<IngestError> for Failure {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Malformed { .. } => {
                Failure::new(FailureKind::Malformed, error.to_string())
            }
            IngestError::TooMany { .. } => Failure::new(FailureKind::TooLarge, error.to_string()),
            IngestError::Overloaded { retry_after_ms } => Failure::new(
                FailureKind::Overloaded { retry_after_ms },
                error.to_string(),
            ),
            IngestError::Storage(error) => {
                tracing::error!(error, "telemetry could not be stored");
                let retry_after_ms = STORAGE_RETRY_MS;
                Failure::new(
                    FailureKind::Storage { retry_after_ms },
                    "telemetry can't be stored at the moment; try again later",
                )
            }
        }
    }
}

/// `google.rpc.Status`: <https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto>.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

impl RetryInfo {
    fn after_ms(ms: u64) -> Self {
        let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
        let nanos = i32::try_from(ms % 1_000 * 1_000_000).unwrap_or(0);
        RetryInfo {
            retry_delay: Some(prost_types::Duration { seconds, nanos }),
        }
    }
}

/// `google.rpc.BadRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

/// `google.rpc.BadRequest.FieldViolation`.
#[derive(Clone, PartialEq, prost::Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

impl BadRequest {
    fn of(description: &str) -> Self {
        BadRequest {
            field_violations: vec![FieldViolation {
                field: "body".to_owned(),
                description: description.to_owned(),
            }],
        }
    }
}

fn any(type_url: &str, message: &impl prost::Message) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value: message.encode_to_vec(),
    }
}

/// `Export{Trace,Metrics,Logs}ServiceResponse`: the three have one shape, a partial success in
/// field 1 with a count in field 1 and a message in field 2.
#[derive(Clone, PartialEq, prost::Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// `Export{Trace,Metrics,Logs}PartialSuccess`.
#[derive(Clone, PartialEq, prost::Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

impl ExportResponse {
    /// A full success leaves `partial_success` unset, as the specification has it.
    fn of(received: &Outcome) -> Self {
        let is_full = received.rejected == 0 && received.message.is_empty();
        let partial = || PartialSuccess {
            rejected: i64::try_from(received.rejected).unwrap_or(i64::MAX),
            error_message: received.message.clone(),
        };
        ExportResponse {
            partial_success: (!is_full).then(partial),
        }
    }
}

#[cfg(test)]
mod tests;
