//! Who may ask what: the one place that every request to the API port passes.
//!
//! Without authentication slogate listens on loopback only, and then whoever is on the machine
//! may ask everything. A web page that a browser on the machine shows may not: a request that
//! changes something and says it comes from another origin is refused. (Reading is kept from
//! pages by the browser itself, since no answer carries CORS headers but those of the Prometheus
//! API, which only reads: whose pages may read there is a setting.)

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, Uri};

use super::error::ApiError;
use crate::server::prometheus;

/// Lets a request through to its handler, or not.
pub(super) async fn admit(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let method = request.method();
    let is_reading = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
        || path.is_some_and(|path| prometheus::is_reading(method, path.as_str()));
    if !is_reading && is_foreign(request.uri(), request.headers()) {
        let message = "this request comes from a web page of another origin";
        return ApiError::forbidden(message).into_response();
    }
    next.run(request).await
}

/// Whether a browser says that a page from elsewhere makes the request.
fn is_foreign(uri: &Uri, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(http::uri::Authority::as_str));
    let origin = origin.to_str().ok();
    let origin = origin
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, host)| host);
    origin.is_none() || origin != host
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_pages_of_our_own_may_change_things() {
        let foreign = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("127.0.0.1:9560"));
            if let Some(origin) = origin {
                headers.insert(ORIGIN, HeaderValue::from_static(origin));
            }
            is_foreign(&Uri::from_static("/v1/events"), &headers)
        };
        assert!(!foreign(None), "no browser");
        assert!(!foreign(Some("http://127.0.0.1:9560")));
        assert!(foreign(Some("http://127.0.0.1:3000")));
        assert!(foreign(Some("https://evil.example")));
        assert!(foreign(Some("null")), "a sandboxed page");
    }
}
