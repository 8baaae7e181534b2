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

/// An answer that is not the one asked for.
#[derive(Debug)]
pub struct ApiError {
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
        ApiError {
            status,
            code,
            message: message.into(),
            field: None,
            details: Vec::new(),
            retry_after_s: None,
            allow: None,
        }
    }

    /// 400 `invalid`: `field` of the query or the body is missing or wrong.
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        ApiError {
            field: Some(field.to_owned()).filter(|field| !field.is_empty()),
            ..ApiError::new(StatusCode::BAD_REQUEST, "invalid", message)
        }
    }

    /// Adds `details`: an object for each of several mistakes.
    pub fn with_details(self, details: Vec<Value>) -> Self {
        ApiError { details, ..self }
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
        ApiError {
            allow: Some(allow),
            ..ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                format!("this path takes {allow}"),
            )
        }
    }

    /// 415 `unsupported`.
    pub fn unsupported(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", message)
    }

    /// 503 `unavailable`: nothing was done; `log` says why, to us.
    pub fn unavailable(message: impl Into<String>, log: &dyn std::fmt::Display) -> Self {
        let message = message.into();
        tracing::error!(error = %log, "{message}");
        ApiError {
            retry_after_s: Some(5),
            ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
        }
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
        let retry_after_s = matches!(error, BodyError::Overloaded).then_some(1);
        ApiError {
            retry_after_s,
            ..ApiError::new(status, code, error.to_string())
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(field) = self.field {
            error["field"] = field.into();
        }
        if !self.details.is_empty() {
            error["details"] = self.details.into();
        }
        let body = axum::Json(json!({ "error": error }));
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::REQUEST_TIMEOUT {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
