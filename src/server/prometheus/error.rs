//! Errors in Prometheus's shape.
//!
//! ```json
//! {"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": …"}
//! ```
//!
//! The type and the HTTP status go together. Messages are Prometheus's own wherever it has one,
//! since clients and people search for them. What went wrong inside is logged and answered
//! without details.

use std::fmt::Display;

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use slogate_promql::EvalError;

use super::json;
use crate::server::limits::BodyError;

/// What kind of error it is, and with that its HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorType {
    /// 400: the request is wrong.
    BadData,
    /// 422: the query can't be evaluated on this data.
    Execution,
    /// 503: it took too long.
    Timeout,
    /// 499: whoever asked is gone.
    Canceled,
    /// 500: our own mistake.
    Internal,
    /// 503: not at the moment. (Prometheus answers 500; 503 is what clients try again.)
    Unavailable,
}

impl ErrorType {
    fn as_str(self) -> &'static str {
        match self {
            ErrorType::BadData => "bad_data",
            ErrorType::Execution => "execution",
            ErrorType::Timeout => "timeout",
            ErrorType::Canceled => "canceled",
            ErrorType::Internal => "internal",
            ErrorType::Unavailable => "unavailable",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            ErrorType::BadData => StatusCode::BAD_REQUEST,
            ErrorType::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorType::Timeout | ErrorType::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            // nginx's "client closed request", which has no name in the standard.
            ErrorType::Canceled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            ErrorType::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// An answer that is not the one asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: ErrorType,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(kind: ErrorType, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
        }
    }

    /// 400.
    pub(super) fn bad_data(message: impl Into<String>) -> Self {
        Failure::new(ErrorType::BadData, message)
    }

    /// 400 about one parameter.
    pub(super) fn parameter(name: &str, message: impl Display) -> Self {
        Failure::bad_data(format!("invalid parameter \"{name}\": {message}"))
    }

    /// 500: the caller learns no more than that; the log has `error`.
    pub(super) fn internal(error: &dyn Display) -> Self {
        tracing::error!(%error, "a request to the Prometheus API failed");
        Failure::new(
            ErrorType::Internal,
            "internal error; slogate's log says more",
        )
    }
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Self {
        let kind = match &error {
            EvalError::Parse(_)
            | EvalError::Duration(_)
            | EvalError::RangeType { .. }
            | EvalError::InvalidRange => return Failure::parameter("query", error),
            EvalError::Queryable(_) => ErrorType::Internal,
            EvalError::Canceled => ErrorType::Canceled,
            EvalError::Timeout => ErrorType::Timeout,
            EvalError::TooManySamples
            | EvalError::TooManySteps { .. }
            | EvalError::Execution(_) => ErrorType::Execution,
        };
        Failure::new(kind, error.to_string())
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        let kind = match &error {
            BodyError::Overloaded => ErrorType::Unavailable,
            BodyError::Late(_) => ErrorType::Timeout,
            BodyError::TooLarge { .. } | BodyError::Broken(_) | BodyError::Corrupt { .. } => {
                ErrorType::BadData
            }
        };
        Failure::new(kind, format!("error parsing form values: {error}"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(self.message.len() + 64);
        json::raw(&mut body, "{\"status\":\"error\",\"errorType\":");
        json::text(&mut body, self.kind.as_str());
        json::raw(&mut body, ",\"error\":");
        json::text(&mut body, &self.message);
        json::raw(&mut body, "}");
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        (self.kind.status(), headers, body).into_response()
    }
}

/// 404 as Go's router writes it; Grafana tells by this text that a server has no ruler.
pub(super) fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// 405 as Go's router writes it.
pub(super) fn method_not_allowed(allow: &'static str) -> Response {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// 503 as Prometheus answers while it starts and while it stops.
pub(super) fn not_ready(is_stopping: bool) -> Response {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
    let stopping = HeaderValue::from_static(if is_stopping { "true" } else { "false" });
    response
        .headers_mut()
        .insert("x-prometheus-stopping", stopping);
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    (status, [(CONTENT_TYPE, kind)], text).into_response()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn body(response: Response) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn types_statuses_and_bodies_go_together() {
        let failure = Failure::parameter("query", "1:5: parse error: unexpected \"<\" & more");
        let response = failure.into_response();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(
            body(response).await,
            "{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\
             \"invalid parameter \\\"query\\\": 1:5: parse error: unexpected \
             \\\"\\u003c\\\" \\u0026 more\"}"
        );
        let statuses = [
            (ErrorType::Execution, 422),
            (ErrorType::Timeout, 503),
            (ErrorType::Canceled, 499),
            (ErrorType::Internal, 500),
            (ErrorType::Unavailable, 503),
        ];
        for (kind, status) in statuses {
            let response = Failure::new(kind, "x").into_response();
            assert_eq!(response.status(), status);
        }
    }

    #[test]
    fn what_the_engine_says_has_its_type() {
        let kind = |error| Failure::from(error).kind;
        assert_eq!(kind(EvalError::TooManySamples), ErrorType::Execution);
        assert_eq!(kind(EvalError::InvalidRange), ErrorType::BadData);
        let range = Failure::from(EvalError::RangeType {
            got: "range vector",
        });
        assert_eq!(
            range.message,
            "invalid parameter \"query\": invalid expression type \"range vector\" for range \
             query, must be Scalar or instant Vector"
        );
    }
}
