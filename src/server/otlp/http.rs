//! OTLP/HTTP: POST `/v1/traces`, `/v1/metrics`, `/v1/logs`.
//!
//! The answer is written as the question was: protobuf to protobuf, JSON to JSON, errors as
//! `google.rpc.Status` in either. A content type that is neither gets its error in JSON, which
//! a person can read.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::post;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use prost::Message as _;
use serde_json::json;

use super::{ExportResponse, Failure, FailureKind, Form, Otlp, Signal};
use crate::ingest::Outcome;
use crate::server::limits::Encoding;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The three paths.
pub fn router(otlp: Arc<Otlp>) -> Router {
    Router::new()
        .route("/v1/traces", post(traces))
        .route("/v1/metrics", post(metrics))
        .route("/v1/logs", post(logs))
        .method_not_allowed_fallback(not_post)
        .fallback(unknown)
        .with_state(otlp)
}

async fn traces(State(otlp): State<Arc<Otlp>>, request: Request) -> Response<Body> {
    export(&otlp, Signal::Traces, request).await
}

async fn metrics(State(otlp): State<Arc<Otlp>>, request: Request) -> Response<Body> {
    export(&otlp, Signal::Metrics, request).await
}

async fn logs(State(otlp): State<Arc<Otlp>>, request: Request) -> Response<Body> {
    export(&otlp, Signal::Logs, request).await
}

async fn not_post(request: Request) -> Response<Body> {
    let form = form(request.headers()).unwrap_or(Form::Json);
    let message = format!("{} takes POST", request.uri().path());
    let mut response = status(
        StatusCode::METHOD_NOT_ALLOWED,
        form,
        &Failure::new(FailureKind::UnsupportedType, message),
    );
    let allow = HeaderValue::from_static("POST");
    response.headers_mut().insert(ALLOW, allow);
    response
}

async fn unknown(request: Request) -> Response<Body> {
    let form = form(request.headers()).unwrap_or(Form::Json);
    let path: String = request.uri().path().chars().take(200).collect();
    let message = format!("{path} is not served here; POST to /v1/traces, /v1/metrics or /v1/logs");
    let failure = Failure::new(FailureKind::UnsupportedType, message);
    status(StatusCode::NOT_FOUND, form, &failure)
}

async fn export(otlp: &Otlp, signal: Signal, request: Request) -> Response<Body> {
    let meter = otlp.meter(signal, "http");
    let (parts, body) = request.into_parts();
    let form = form(&parts.headers);
    let answer_form = *form.as_ref().unwrap_or(&Form::Json);
    let result = async {
        let form = form?;
        let encoding = encoding(&parts.headers)?;
        let held = otlp.read(body, &meter).await?;
        let held = otlp.decode(held, encoding)?;
        otlp.receive(signal, form, &held, &meter)
    }
    .await;
    meter.finish(&result);
    match result {
        Ok(received) => success(signal, answer_form, &received),
        Err(failure) => refusal(answer_form, &failure, parts.version),
    }
}

fn form(headers: &HeaderMap) -> Result<Form, Failure> {
    let value = headers.get(CONTENT_TYPE);
    let text = value.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let essence = text.as_deref().and_then(|text| text.split(';').next());
    let essence = essence.unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/x-protobuf" | "application/protobuf" => Ok(Form::Protobuf),
        "application/json" => Ok(Form::Json),
        _ => {
            let essence: String = essence.chars().take(100).collect();
            let message = format!(
                "content type {essence:?} is not supported; send application/x-protobuf or application/json"
            );
            Err(Failure::new(FailureKind::UnsupportedType, message))
        }
    }
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Failure> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else {
        return Ok(Encoding::Identity);
    };
    let name = String::from_utf8_lossy(value.as_bytes());
    if values.next().is_some() {
        return Err(Failure::unsupported_encoding("several at once"));
    }
    Encoding::parse(&name).ok_or_else(|| Failure::unsupported_encoding(&name))
}

fn success(signal: Signal, form: Form, received: &Outcome) -> Response<Body> {
    let response = ExportResponse::of(received);
    let body = match (form, &response.partial_success) {
        (Form::Protobuf, _) => response.encode_to_vec(),
        (Form::Json, None) => b"{}".to_vec(),
        (Form::Json, Some(partial)) => {
            // 64-bit integers are strings in protobuf's JSON mapping.
            let rejected = partial.rejected.to_string();
            let mut partial = json!({ "errorMessage": partial.error_message });
            partial[signal.rejected_field()] = rejected.into();
            json!({ "partialSuccess": partial })
                .to_string()
                .into_bytes()
        }
    };
    answer(StatusCode::OK, form, body)
}

fn refusal(form: Form, failure: &Failure, version: Version) -> Response<Body> {
    let code = match failure.kind {
        FailureKind::Malformed => StatusCode::BAD_REQUEST,
        FailureKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FailureKind::UnsupportedType | FailureKind::UnsupportedEncoding => {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        }
        FailureKind::Late => StatusCode::REQUEST_TIMEOUT,
        FailureKind::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
        FailureKind::Storage { .. } => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = status(code, form, failure);
    let headers = response.headers_mut();
    if let Some(retry_after_ms) = failure.kind.retry_after_ms() {
        headers.insert(RETRY_AFTER, retry_after_ms.div_ceil(1_000).max(1).into());
    }
    if failure.kind == FailureKind::UnsupportedEncoding {
        let accepted = HeaderValue::from_static("gzip, zstd, identity");
        headers.insert(ACCEPT_ENCODING, accepted);
    }
    if failure.kind == FailureKind::Late && version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn status(code: StatusCode, form: Form, failure: &Failure) -> Response<Body> {
    let status = failure.status();
    let body = match form {
        Form::Protobuf => status.encode_to_vec(),
        Form::Json => {
            let mut details = Vec::new();
            if let Some(ms) = failure.kind.retry_after_ms() {
                details.push(json!({
                    "@type": "type.googleapis.com/google.rpc.RetryInfo",
                    "retryDelay": format!("{}.{:03}s", ms / 1_000, ms % 1_000),
                }));
            }
            let (code, message) = (status.code, status.message);
            json!({ "code": code, "message": message, "details": details })
                .to_string()
                .into_bytes()
        }
    };
    answer(code, form, body)
}

fn answer(code: StatusCode, form: Form, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let content_type = match form {
        Form::Protobuf => PROTOBUF,
        Form::Json => JSON,
    };
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
