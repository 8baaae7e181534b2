//! The one shape of an error.
//!
//! ```json
//! {"error": {"code": "invalid", "message": "version: …", "field": "version"}}
//! ```
//!
//! `code` is for machines and part of the API: it is never renamed. `message` is for the caller:
//! what was expected and how to mend it. What is for us goes to the log and not to the caller.

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::server::limits::BodyError;

/// An answer that is not the one asked for. Boxed, since most results are not errors.
#[derive(Debug)]
pub struct ApiError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    message: String,
    field: Option<String>,
    details: Vec<Value>,
    retry_after_s: Option<u64>,
    allow: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        ApiError(Box::new(Parts {
            status,
            code,
            message: message.into(),
            field: None,
            details: Vec::new(),
            retry_after_s: None,
            allow: None,
        }))
    }

    /// 400 `invalid`: `field` of the query or the body is missing or wrong.
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        let mut error = ApiError::new(StatusCode::BAD_REQUEST, "invalid", message);
        error.0.field = Some(field.to_owned()).filter(|field| !field.is_empty());
        error
    }

    /// Adds `details`: an object for each of several mistakes.
    pub fn with_details(mut self, details: Vec<Value>) -> Self {
        self.0.details = details;
        self
    }

    /// 403 `forbidden`.
    pub fn forbidden(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 404 `not_found`: the path is right, the thing is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 404 `unknown_path`.
    pub fn unknown_path(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, "unknown_path", message)
    }

    /// 405 `method_not_allowed`; `allow` lists the methods that are.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("this path takes {allow}");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let mut error = ApiError::new(status, "method_not_allowed", message);
        error.0.allow = Some(allow);
        error
    }

    /// 415 `unsupported`.
    pub fn unsupported(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", message)
    }

    /// 503 `unavailable`: nothing was done; `log` says why, to us.
    pub fn unavailable(message: impl Into<String>, log: &dyn std::fmt::Display) -> Self {
        let message = message.into();
        tracing::error!(error = %log, "{message}");
        let mut error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        error.0.retry_after_s = Some(5);
        error
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let (status, code) = match &error {
            BodyError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            BodyError::Overloaded => (StatusCode::TOO_MANY_REQUESTS, "overloaded"),
            BodyError::Late(_) => (StatusCode::REQUEST_TIMEOUT, "timeout"),
            BodyError::Broken(_) | BodyError::Corrupt { .. } => {
                (StatusCode::BAD_REQUEST, "invalid")
            }
        };
        let mut answer = ApiError::new(status, code, error.to_string());
        answer.0.retry_after_s = matches!(error, BodyError::Overloaded).then_some(1);
        answer
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Parts {
            status,
            code,
            message,
            field,
            details,
            retry_after_s,
            allow,
        } = *self.0;
        let mut error = json!({ "code": code, "message": message });
        if let Some(field) = field {
            error["field"] = field.into();
        }
        if !details.is_empty() {
            error["details"] = details.into();
        }
        let mut response = (status, axum::Json(json!({ "error": error }))).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(allow) = allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(seconds) = retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::REQUEST_TIMEOUT {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
