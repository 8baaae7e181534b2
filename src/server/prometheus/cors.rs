//! Which web pages may read: cross-origin resource sharing.
//!
//! A browser lets a page of another origin read an answer only where the answer says so.
//! Prometheus says so to every page; slogate, which has no authentication on loopback, says so
//! to pages of the same machine unless the setting `query.corsOrigin` names others, because
//! otherwise every site that somebody visits could read what the machine is shipping.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, VARY,
};
use http::{HeaderMap, HeaderValue};
use slogate_series::{MatchOp, Matcher, MatcherError};

/// The origins whose pages may read.
#[derive(Clone, Debug, Default)]
pub struct Origins(Option<Matcher>);

impl Origins {
    /// Origins that match a regular expression (RE2, anchored) such as `https://.*\\.example`;
    /// `.*` is every origin.
    ///
    /// # Errors
    /// Where it is no regular expression.
    pub fn matching(pattern: &str) -> Result<Self, MatcherError> {
        let matcher = Matcher::new("origin", MatchOp::Regex, pattern)?;
        Ok(Origins(Some(matcher)))
    }

    /// Tells a browser whether the page of `origin` may read.
    pub(super) fn mark(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        headers.append(VARY, HeaderValue::from_static("Origin"));
        let (Some(matcher), Some(origin)) = (&self.0, origin) else {
            return;
        };
        if !origin.to_str().is_ok_and(|origin| matcher.matches(origin)) {
            return;
        }
        let any = HeaderValue::from_static("*");
        let is_any = matcher.value() == ".*";
        headers.insert(
            ACCESS_CONTROL_ALLOW_ORIGIN,
            if is_any { any } else { origin },
        );
        for (name, value) in [
            (
                ACCESS_CONTROL_ALLOW_HEADERS,
                "Accept, Authorization, Content-Type, Origin",
            ),
            (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
            (ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origins: &Origins, origin: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        origins.mark(Some(HeaderValue::from_static(origin)), &mut headers);
        assert_eq!(headers[VARY], "Origin");
        let allowed = headers.get(ACCESS_CONTROL_ALLOW_ORIGIN)?;
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "GET, POST, OPTIONS");
        Some(allowed.to_str().unwrap().to_owned())
    }

    #[test]
    fn pages_are_told_apart_by_their_whole_origin() {
        let some = Origins::matching("https://(a|b)\\.example").unwrap();
        let own = "https://a.example";
        assert_eq!(allowed(&some, own).as_deref(), Some(own));
        assert_eq!(allowed(&some, "https://a.example.evil"), None);
        let any = Origins::matching(".*").unwrap();
        assert_eq!(allowed(&any, "https://evil").as_deref(), Some("*"));
        assert_eq!(allowed(&Origins::default(), own), None);
        assert!(Origins::matching("(").is_err());
    }
}
