//! OTLP/gRPC: unary calls read by hand.
//!
//! The wire is gRPC over HTTP/2 (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>):
//! a five-byte prefix, the message, and the status in trailers. It is read here and not by
//! tonic's decoder for three reasons: the message stays bytes, which are read in place; a message
//! over the limit must be RESOURCE_EXHAUSTED, where tonic says OUT_OF_RANGE, which OTLP senders
//! try again for ever; and memory must be taken from the shared budget as it arrives, where tonic
//! reserves what the prefix promises. Statuses are still tonic's.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::any;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use tonic::{Code, Status};

use super::{ExportResponse, Failure, FailureKind, Form, Otlp, Signal};
use crate::ingest::Outcome;
use crate::server::limits::Encoding;

/// The compressed flag and the message's length.
const PREFIX_BYTES: usize = 5;

const ACCEPTED_ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,zstd");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The three Export services.
pub fn router(otlp: Arc<Otlp>) -> Router {
    let path = |package: &str, service: &str| {
        format!("/opentelemetry.proto.collector.{package}.v1.{service}/Export")
    };
    Router::new()
        .route(&path("trace", "TraceService"), any(traces))
        .route(&path("metrics", "MetricsService"), any(metrics))
        .route(&path("logs", "LogsService"), any(logs))
        .fallback(unknown)
        .with_state(otlp)
}

async fn traces(State(otlp): State<Arc<Otlp>>, request: Request) -> Response<Body> {
    unary(&otlp, Signal::Traces, request).await
}

async fn metrics(State(otlp): State<Arc<Otlp>>, request: Request) -> Response<Body> {
    unary(&otlp, Signal::Metrics, request).await
}

async fn logs(State(otlp): State<Arc<Otlp>>, request: Request) -> Response<Body> {
    unary(&otlp, Signal::Logs, request).await
}

async fn unknown(request: Request) -> Response<Body> {
    if let Some(refusal) = not_grpc(&request) {
        return refusal;
    }
    let path: String = request.uri().path().chars().take(200).collect();
    Status::unimplemented(format!(
        "{path} is not served; traces, metrics and logs of opentelemetry.proto.collector are"
    ))
    .into_http()
}

async fn unary(otlp: &Otlp, signal: Signal, request: Request) -> Response<Body> {
    if let Some(refusal) = not_grpc(&request) {
        return refusal;
    }
    let meter = otlp.meter(signal, "grpc");
    let result = async {
        let (parts, body) = request.into_parts();
        let encoding = encoding(&parts.headers)?;
        let mut held = otlp.read(body, &meter).await?;
        let is_compressed = check_prefix(&held.bytes)?;
        held.advance(PREFIX_BYTES);
        let encoding = match (is_compressed, encoding) {
            (false, _) => Encoding::Identity,
            (true, Encoding::Identity) => {
                let message = "the message is marked compressed, but grpc-encoding names no way";
                return Err(Failure::new(FailureKind::Malformed, message));
            }
            (true, encoding) => encoding,
        };
        let held = otlp.decode(held, encoding)?;
        otlp.receive(signal, Form::Protobuf, &held, &meter)
    }
    .await;
    meter.finish(&result);
    match result {
        Ok(received) => success(&received),
        Err(failure) => refusal(&failure),
    }
}

/// The plain HTTP answer for what is no gRPC call at all.
fn not_grpc(request: &Request) -> Option<Response<Body>> {
    let content_type = request
        .headers()
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes);
    let is_grpc = content_type.is_some_and(|value| {
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
        let essence = essence.trim_ascii();
        essence == b"application/grpc" || essence == b"application/grpc+proto"
    });
    let (status, text) = if request.version() != Version::HTTP_2 {
        (
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "This port speaks gRPC, which needs HTTP/2. OTLP/HTTP has a port of its own (4318 by default).\n",
        )
    } else if request.method() != Method::POST {
        (
            StatusCode::METHOD_NOT_ALLOWED,
            "gRPC calls are POST requests.\n",
        )
    } else if !is_grpc {
        (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "This port speaks gRPC (application/grpc). OTLP/HTTP has a port of its own (4318 by default).\n",
        )
    } else {
        return None;
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allow = HeaderValue::from_static("POST");
        response.headers_mut().insert(http::header::ALLOW, allow);
    }
    Some(response)
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Failure> {
    let Some(value) = headers.get("grpc-encoding") else {
        return Ok(Encoding::Identity);
    };
    let name = String::from_utf8_lossy(value.as_bytes());
    Encoding::parse(&name).ok_or_else(|| Failure::unsupported_encoding(&name))
}

/// Whether the one message of `body` is compressed; its declared length must be its length.
fn check_prefix(body: &[u8]) -> Result<bool, Failure> {
    let malformed = |message: String| Failure::new(FailureKind::Malformed, message);
    let Some((&[flag, a, b, c, d], message)) = body.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(malformed(format!(
            "the call ended after {} bytes, before the message's {PREFIX_BYTES}-byte prefix",
            body.len()
        )));
    };
    let declared = u32::from_be_bytes([a, b, c, d]) as usize;
    if declared != message.len() {
        return Err(malformed(format!(
            "the message's prefix says {declared} bytes and {} followed; one message a call",
            message.len()
        )));
    }
    match flag {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(malformed(format!(
            "the message's compressed flag is {flag}; expected 0 or 1"
        ))),
    }
}

fn success(received: &Outcome) -> Response<Body> {
    let message = ExportResponse::of(received);
    let length = message.encoded_len();
    let mut data = BytesMut::with_capacity(PREFIX_BYTES + length);
    data.put_u8(0);
    data.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    data.put_slice(&message.encode_to_vec());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [
        Ok::<_, std::convert::Infallible>(Frame::data(data.freeze())),
        Ok(Frame::trailers(trailers)),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

fn refusal(failure: &Failure) -> Response<Body> {
    let code = Code::from(failure.kind.grpc_code() as i32);
    let status = failure.status();
    let details = if status.details.is_empty() {
        Bytes::new()
    } else {
        Bytes::from(status.encode_to_vec())
    };
    let mut response = Status::with_details(code, &failure.message, details).into_http();
    if failure.kind == FailureKind::UnsupportedEncoding {
        let headers = response.headers_mut();
        headers.insert("grpc-accept-encoding", ACCEPTED_ENCODINGS);
    }
    response
}
