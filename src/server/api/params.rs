//! Query strings, read strictly.
//!
//! A parameter that is not known is an error and not ignored: `?enviroment=production` would
//! otherwise ask about every environment, and a gate would answer about the wrong one. A
//! parameter given twice is an error too. One that is given empty counts as not given, since
//! templates of callers produce that.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::Query;
use http::Uri;

use super::error::ApiError;

/// The longest value of a parameter, in bytes.
const VALUE_BYTES_MAX: usize = 1_024;

/// A request's parameters.
#[derive(Debug)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads the query of `uri`, in which only `known` names may appear.
    pub(super) fn read(uri: &Uri, known: &[&str]) -> Result<Params, ApiError> {
        let pairs: Query<Vec<(String, String)>> = Query::try_from_uri(uri)
            .map_err(|error| ApiError::invalid("query", format!("query string: {error}")))?;
        let mut params = BTreeMap::new();
        for (name, value) in pairs.0 {
            if !known.contains(&name.as_str()) {
                return Err(unknown(&name, known));
            }
            if value.len() > VALUE_BYTES_MAX {
                let message = format!("{name}: longer than {VALUE_BYTES_MAX} bytes");
                return Err(ApiError::invalid(&name, message));
            }
            if params.insert(name.clone(), value).is_some() {
                return Err(ApiError::invalid(&name, format!("{name}: given twice")));
            }
        }
        params.retain(|_, value| !value.is_empty());
        Ok(Params(params))
    }

    /// A value as it is.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    /// A value that `T` can read; `expected` says what that is.
    pub(super) fn parsed<T: FromStr>(
        &self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.0.get(name) else {
            return Ok(None);
        };
        let fail = || wrong(name, text, expected);
        text.parse().map(Some).map_err(|_| fail())
    }

    /// How many things to list: 1 to `max`.
    pub(super) fn limit(&self, default: usize, max: usize) -> Result<usize, ApiError> {
        let expected = format!("a number from 1 to {max}");
        let limit = self.parsed("limit", &expected)?.unwrap_or(default);
        if limit == 0 || limit > max {
            return Err(wrong("limit", &limit.to_string(), &expected));
        }
        Ok(limit)
    }

    /// A span of time such as `30s` or `1h30m`, at most `max`.
    pub(super) fn duration(&self, name: &str, max: Duration) -> Result<Option<Duration>, ApiError> {
        let Some(text) = self.0.get(name) else {
            return Ok(None);
        };
        let expected = "a duration such as 30s, 5m, 1h30m or 7d";
        let duration = parse_duration(text).ok_or_else(|| wrong(name, text, expected))?;
        if duration > max {
            let expected = format!("at most {}s", max.as_secs());
            return Err(wrong(name, text, &expected));
        }
        Ok(Some(duration))
    }

    /// `true` or `false`; given without a value it is true.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.parsed(name, "true or false")?.unwrap_or(false))
    }
}

fn wrong(name: &str, found: &str, expected: &str) -> ApiError {
    let found: String = found.chars().take(100).collect();
    ApiError::invalid(name, format!("{name}: {found:?} is not {expected}"))
}

fn unknown(name: &str, known: &[&str]) -> ApiError {
    let name: String = name.chars().take(100).collect();
    let list = match known {
        [] => "this path takes none".to_owned(),
        known => format!("this path takes {}", known.join(", ")),
    };
    ApiError::invalid(&name, format!("{name}: no such parameter; {list}"))
}

/// Reads `1h30m`, `250ms`, `7d`: numbers with units ms, s, m, h, d, w, larger units first; and a
/// plain `0`.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let units = [
        ("w", 604_800_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut last_unit_ms = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit = rest.get(..letters)?;
        let (_, unit_ms) = units.into_iter().find(|(name, _)| *name == unit)?;
        if unit_ms >= last_unit_ms {
            return None;
        }
        last_unit_ms = unit_ms;
        total_ms = total_ms.checked_add(number.checked_mul(unit_ms)?)?;
        rest = rest.get(letters..)?;
    }
    (last_unit_ms != u64::MAX).then(|| Duration::from_millis(total_ms))
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use proptest::prelude::*;

    use super::*;

    fn read(query: &str) -> Result<Params, ApiError> {
        let uri = format!("/v1/things?{query}").parse().unwrap();
        Params::read(&uri, &["service", "wait", "limit", "fresh"])
    }

    #[test]
    fn a_misspelt_parameter_is_refused_by_name() {
        let error = read("service=a&enviroment=b").unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains("enviroment: no such parameter"), "{text}");
        assert!(text.contains("service, wait, limit"), "{text}");
        assert_eq!(error.into_response().status(), 400);
        assert!(read("service=a&service=b").is_err(), "twice");
    }

    #[test]
    fn values_are_decoded_and_empty_ones_are_absent() {
        let params = read("service=check%20out%2Fé&wait=").unwrap();
        assert_eq!(params.text("service").unwrap(), "check out/é");
        assert_eq!(params.text("wait"), None);
    }

    #[test]
    fn limits_and_flags_are_checked() {
        assert_eq!(read("").unwrap().limit(50, 100).unwrap(), 50);
        assert_eq!(read("limit=100").unwrap().limit(50, 100).unwrap(), 100);
        for bad in ["limit=0", "limit=101", "limit=-1", "limit=many"] {
            assert!(read(bad).unwrap().limit(50, 100).is_err(), "{bad}");
        }
        assert!(read("fresh=true").unwrap().flag("fresh").unwrap());
        assert!(read("fresh=yes").unwrap().flag("fresh").is_err());
    }

    #[test]
    fn durations_have_units() {
        let ms = |text: &str| parse_duration(text).map(|d| d.as_millis());
        let cases = [
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("7d", 604_800_000),
            ("1m500ms", 60_500),
            ("0", 0),
            ("0s", 0),
        ];
        for (text, expected) in cases {
            assert_eq!(ms(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "30",
            "s",
            "-1s",
            "1.5h",
            "30s1h",
            "1s1s",
            "1y",
            " 1s",
            "99999999999999w",
        ] {
            assert_eq!(ms(bad), None, "{bad}");
        }
        let long = read("wait=2m")
            .unwrap()
            .duration("wait", Duration::from_secs(60));
        assert!(format!("{:?}", long.unwrap_err()).contains("at most 60s"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,40}") {
            let _ = parse_duration(&text);
        }
    }
}
