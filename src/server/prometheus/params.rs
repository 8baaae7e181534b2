//! Parameters, read as Prometheus reads them.
//!
//! Unlike the native API's, these are read leniently, because clients rely on it: unknown names
//! are ignored, of a name given twice the first counts (`match[]` and its like excepted, where
//! all count), and an empty value is as good as none. Names may stand in the URL and, for POST,
//! in a form in the body; the body's come first. A body that is no form is ignored.
//!
//! Times are floats of seconds or RFC 3339, durations floats of seconds or Prometheus's
//! (`1h30m`). Times beyond ±285,000 years are moved there, so that no sum of times can
//! overflow: Grafana asks for exemplars with milliseconds in these fields, which is the
//! year 58,000.

use std::time::Duration;

use axum::extract::Request;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Method};
use slogate_promql::duration::parse_ms;
use slogate_series::Matcher;

use super::error::Failure;
use crate::server::api::App;
use crate::server::limits::{self, Encoding};

/// The farthest time from the epoch, in milliseconds: 2^53, what a float has exactly.
const TIME_MAX_MS: i64 = 1 << 53;

/// The most parameters of a request; a browser's limit on a form is the same order.
const PARAMETERS_MAX: usize = 10_000;

/// The steps of a range query may part it into this many intervals.
const INTERVALS_MAX: i128 = 11_000;

/// How Prometheus writes its own first and last time, which no library reads.
const TIME_BOUNDS: [(&str, i64); 2] = [
    ("-292273086-05-16T16:47:06Z", -TIME_MAX_MS),
    ("292277025-08-18T07:12:54.999999999Z", TIME_MAX_MS),
];

/// A request's parameters, the body's before the URL's.
#[derive(Debug, Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads the URL's query and, of a POST, the form in the body.
    ///
    /// # Errors
    /// Where the body can't be read or there are too many parameters.
    pub(super) async fn read(request: Request, app: &App) -> Result<Form, Failure> {
        let (parts, body) = request.into_parts();
        let mut form = Form::default();
        if parts.method == Method::POST && is_form(&parts.headers) {
            let encoding = header(&parts.headers, CONTENT_ENCODING.as_str());
            let encoding = Encoding::parse(encoding).ok_or_else(|| {
                let message = "error parsing form values: expected content-encoding gzip, zstd \
                               or identity";
                Failure::bad_data(message)
            })?;
            let held = limits::read(body, &app.limits, &app.budget).await?;
            let held = held.decode(encoding, app.limits.body_bytes_max)?;
            form.extend(&held.bytes)?;
        }
        form.extend(parts.uri.query().unwrap_or("").as_bytes())?;
        Ok(form)
    }

    /// The parameters of an encoded text.
    #[cfg(test)]
    pub(super) fn of(encoded: &str) -> Form {
        let mut form = Form::default();
        form.extend(encoded.as_bytes()).unwrap();
        form
    }

    fn extend(&mut self, encoded: &[u8]) -> Result<(), Failure> {
        for (name, value) in form_urlencoded::parse(encoded) {
            if self.0.len() >= PARAMETERS_MAX {
                let message =
                    format!("error parsing form values: more than {PARAMETERS_MAX} parameters");
                return Err(Failure::bad_data(message));
            }
            self.0.push((name.into_owned(), value.into_owned()));
        }
        Ok(())
    }

    /// The first value of that name; empty where there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        let value = self.0.iter().find(|(given, _)| given == name);
        value.map_or("", |(_, value)| value.as_str())
    }

    /// Every value of that name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let values = self.0.iter().filter(move |(given, _)| given == name);
        values.map(|(_, value)| value.as_str())
    }

    /// A time in milliseconds, `default_ms` where it is not given.
    pub(super) fn time_ms(&self, name: &str, default_ms: i64) -> Result<i64, Failure> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(default_ms);
        }
        time_ms(text).map_err(|message| {
            let message = format!("invalid time value for '{name}': {message}");
            Failure::parameter(name, message)
        })
    }

    /// `start` and `end` of requests about series, all times where they are not given.
    pub(super) fn range_ms(&self) -> Result<(i64, i64), Failure> {
        Ok((
            self.time_ms("start", -TIME_MAX_MS)?,
            self.time_ms("end", TIME_MAX_MS)?,
        ))
    }

    /// The most results to give; `None` is all.
    pub(super) fn limit(&self) -> Result<Option<usize>, Failure> {
        let text = self.text("limit");
        if text.is_empty() {
            return Ok(None);
        }
        let limit = integer(text).map_err(|message| Failure::parameter("limit", message))?;
        let limit = usize::try_from(limit)
            .map_err(|_| Failure::parameter("limit", "limit must be non-negative"))?;
        Ok(Some(limit).filter(|limit| *limit > 0))
    }

    /// The selectors in `match[]`.
    pub(super) fn selectors(&self) -> Result<Vec<Vec<Matcher>>, Failure> {
        let mut selectors = Vec::new();
        for text in self.all("match[]") {
            let matchers = slogate_promql::parse_selector(text)
                .map_err(|error| Failure::bad_data(error.to_string()))?;
            selectors.push(matchers);
        }
        // Prometheus looks at this after it has read them all.
        let selects_all = |matchers: &Vec<Matcher>| matchers.iter().all(|m| m.matches(""));
        if selectors.iter().any(selects_all) {
            let message = "match[] must contain at least one non-empty matcher";
            return Err(Failure::bad_data(message));
        }
        Ok(selectors)
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = header(headers, CONTENT_TYPE.as_str());
    let kind = kind.split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or("")
}

/// What both kinds of query take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct QueryOptions {
    /// The expression.
    pub(super) query: String,
    /// The most series to give.
    pub(super) limit: Option<usize>,
    /// The most time it may take, waiting included.
    pub(super) timeout: Option<Duration>,
    /// How far back a sample may lie, where that is not the usual.
    pub(super) lookback_ms: Option<i64>,
    /// What `stats` is set to; empty: no statistics.
    pub(super) stats: String,
}

impl QueryOptions {
    fn read(form: &Form, limit: Option<usize>) -> Result<Self, Failure> {
        let timeout = match form.text("timeout") {
            "" => None,
            text => {
                let ns = duration_ns(text).map_err(|e| Failure::parameter("timeout", e))?;
                Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(0)))
            }
        };
        let lookback_ms = match form.text("lookback_delta") {
            "" => None,
            text => {
                let ns = duration_ns(text).map_err(|error| {
                    Failure::bad_data(format!("error parsing lookback delta duration: {error}"))
                })?;
                Some(ns / 1_000_000).filter(|ms| *ms > 0)
            }
        };
        Ok(QueryOptions {
            query: form.text("query").to_owned(),
            limit,
            timeout,
            lookback_ms,
            stats: form.text("stats").to_owned(),
        })
    }
}

/// `/query`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InstantRequest {
    /// When to evaluate, in milliseconds since the epoch.
    pub(super) at_ms: i64,
    /// The rest.
    pub(super) options: QueryOptions,
}

impl InstantRequest {
    pub(super) fn read(form: &Form, now_ms: i64) -> Result<Self, Failure> {
        let limit = form.limit()?;
        Ok(InstantRequest {
            at_ms: form.time_ms("time", now_ms)?,
            options: QueryOptions::read(form, limit)?,
        })
    }
}

/// `/query_range`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RangeRequest {
    /// The first step, in milliseconds since the epoch.
    pub(super) start_ms: i64,
    /// No step is after it.
    pub(super) end_ms: i64,
    /// From one step to the next, in milliseconds.
    pub(super) step_ms: i64,
    /// The rest.
    pub(super) options: QueryOptions,
}

impl RangeRequest {
    pub(super) fn read(form: &Form) -> Result<Self, Failure> {
        let limit = form.limit()?;
        let time = |name| time_ms(form.text(name)).map_err(|e| Failure::parameter(name, e));
        let (start_ms, end_ms) = (time("start")?, time("end")?);
        if end_ms < start_ms {
            let message = "end timestamp must not be before start time";
            return Err(Failure::parameter("end", message));
        }
        let step_ns = duration_ns(form.text("step")).map_err(|e| Failure::parameter("step", e))?;
        let step_ms = step_ns / 1_000_000;
        if step_ms <= 0 {
            let message = "zero or negative query resolution step widths are not accepted. Try a \
                           positive integer";
            return Err(Failure::parameter("step", message));
        }
        let range_ns = (i128::from(end_ms) - i128::from(start_ms)) * 1_000_000;
        if range_ns / i128::from(step_ns) > INTERVALS_MAX {
            let message = "exceeded maximum resolution of 11,000 points per timeseries. Try \
                           decreasing the query resolution (?step=XX)";
            return Err(Failure::bad_data(message));
        }
        Ok(RangeRequest {
            start_ms,
            end_ms,
            step_ms,
            options: QueryOptions::read(form, limit)?,
        })
    }
}

/// Reads a time, in milliseconds since the epoch.
fn time_ms(text: &str) -> Result<i64, String> {
    let clamped = |ms: i64| ms.clamp(-TIME_MAX_MS, TIME_MAX_MS);
    if let Some(seconds) = float(text).filter(|seconds| !seconds.is_nan()) {
        let (whole, fraction) = (seconds.trunc(), seconds.fract());
        // Casts of floats saturate.
        let ms = (whole as i64).saturating_mul(1000);
        return Ok(clamped(
            ms.saturating_add((fraction * 1000.0).round() as i64),
        ));
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(clamped(time.as_nanosecond().div_euclid(1_000_000) as i64));
    }
    let bound = TIME_BOUNDS.into_iter().find(|(name, _)| *name == text);
    let bound = bound.map(|(_, ms)| ms);
    bound.ok_or_else(|| format!("cannot parse {} to a valid timestamp", quoted(text)))
}

/// Reads a duration, in nanoseconds.
fn duration_ns(text: &str) -> Result<i64, String> {
    if let Some(seconds) = float(text) {
        let ns = seconds * 1e9;
        if ns.is_nan() || ns.abs() > i64::MAX as f64 {
            let quoted = quoted(text);
            return Err(format!(
                "cannot parse {quoted} to a valid duration. It overflows int64"
            ));
        }
        return Ok(ns as i64);
    }
    parse_ms(text)
        .and_then(|ms| ms.checked_mul(1_000_000))
        .ok_or_else(|| format!("cannot parse {} to a valid duration", quoted(text)))
}

/// Reads a float as Go does, hexadecimal ones excepted.
fn float(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// Reads a whole number as Go does, with Go's words for what is wrong.
fn integer(text: &str) -> Result<i64, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse::<i64>().map_err(|error| {
        let reason = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.Atoi: parsing {}: {reason}", quoted(text))
    })
}

/// A text in quotes, with Go's escapes; cut where it is long.
pub(super) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    let mut out = String::from('"');
    for c in text.chars().take(CHARS_MAX) {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form(encoded: &str) -> Form {
        Form::of(encoded)
    }

    fn instant(encoded: &str) -> Result<InstantRequest, String> {
        InstantRequest::read(&form(encoded), 123_456).map_err(|failure| failure.message)
    }

    fn range(encoded: &str) -> Result<RangeRequest, String> {
        RangeRequest::read(&form(encoded)).map_err(|failure| failure.message)
    }

    #[test]
    fn the_body_comes_before_the_url_and_lists_are_joined() {
        let mut form = form("query=body&match[]=a");
        form.extend(b"query=url&match%5B%5D=b&time=4&match[]=c+d")
            .unwrap();
        assert_eq!(form.text("query"), "body");
        assert_eq!(form.text("time"), "4");
        assert_eq!(form.text("limit"), "");
        assert_eq!(form.all("match[]").collect::<Vec<_>>(), ["a", "b", "c d"]);
        let many = "a=b&".repeat(PARAMETERS_MAX + 1);
        assert!(Form::default().extend(many.as_bytes()).is_err());
    }

    #[test]
    fn times_are_seconds_or_dates() {
        let cases = [
            ("4", 4_000),
            ("1795189907.425", 1_795_189_907_425),
            ("1795189907.4256", 1_795_189_907_426),
            ("-1.5", -1_500),
            ("1e3", 1_000_000),
            ("0.0004", 0),
            ("2015-07-01T20:10:51.781Z", 1_435_781_451_781),
            ("2015-07-01T22:10:51.781999+02:00", 1_435_781_451_781),
            ("1795189907425", 1_795_189_907_425_000),
            ("1e300", TIME_MAX_MS),
            ("-Inf", -TIME_MAX_MS),
            ("292277025-08-18T07:12:54.999999999Z", TIME_MAX_MS),
        ];
        for (text, expected) in cases {
            assert_eq!(time_ms(text), Ok(expected), "{text}");
        }
        for bad in ["", "now", "NaN", "2015-07-01", "1_000", "4s"] {
            let message = format!("cannot parse \"{bad}\" to a valid timestamp");
            assert_eq!(time_ms(bad), Err(message));
        }
    }

    #[test]
    fn durations_are_seconds_or_prometheuss() {
        let cases = [
            ("15", 15_000_000_000),
            ("0.5", 500_000_000),
            ("-1", -1_000_000_000),
            ("1m0s", 60_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("100ms", 100_000_000),
        ];
        for (text, expected) in cases {
            assert_eq!(duration_ns(text), Ok(expected), "{text}");
        }
        for bad in ["", "1ns", "1x", "5m3", "-5m"] {
            let message = format!("cannot parse \"{bad}\" to a valid duration");
            assert_eq!(duration_ns(bad), Err(message));
        }
        assert_eq!(
            duration_ns("1e10"),
            Err("cannot parse \"1e10\" to a valid duration. It overflows int64".to_owned())
        );
    }

    #[test]
    fn an_instant_query_needs_nothing_but_its_text() {
        let read = instant("query=up").unwrap();
        assert_eq!((read.at_ms, read.options.query.as_str()), (123_456, "up"));
        let read = instant("query=up&time=4&timeout=5s&lookback_delta=1m&limit=0&stats=all");
        let options = read.unwrap().options;
        assert_eq!(options.timeout, Some(Duration::from_secs(5)));
        assert_eq!(options.lookback_ms, Some(60_000));
        assert_eq!((options.limit, options.stats.as_str()), (None, "all"));
        let cases = [
            (
                "time=x",
                "invalid parameter \"time\": invalid time value for 'time': cannot parse \"x\" to \
                 a valid timestamp",
            ),
            (
                "timeout=1ns",
                "invalid parameter \"timeout\": cannot parse \"1ns\" to a valid duration",
            ),
            (
                "lookback_delta=x",
                "error parsing lookback delta duration: cannot parse \"x\" to a valid duration",
            ),
            (
                "limit=-1",
                "invalid parameter \"limit\": limit must be non-negative",
            ),
            (
                "limit=a",
                "invalid parameter \"limit\": strconv.Atoi: parsing \"a\": invalid syntax",
            ),
            (
                "limit=99999999999999999999",
                "invalid parameter \"limit\": strconv.Atoi: parsing \"99999999999999999999\": \
                 value out of range",
            ),
        ];
        for (encoded, expected) in cases {
            assert_eq!(instant(encoded).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_range_query_has_11_000_intervals_at_most() {
        let read = range("query=up&start=0&end=11000.9&step=1").unwrap();
        assert_eq!((read.end_ms, read.step_ms), (11_000_900, 1_000));
        let cases = [
            (
                "start=0&end=11001&step=1",
                "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the \
                 query resolution (?step=XX)",
            ),
            (
                "start=1&end=0&step=1",
                "invalid parameter \"end\": end timestamp must not be before start time",
            ),
            (
                "start=0&end=1&step=0",
                "invalid parameter \"step\": zero or negative query resolution step widths are \
                 not accepted. Try a positive integer",
            ),
            (
                "start=0&end=1",
                "invalid parameter \"step\": cannot parse \"\" to a valid duration",
            ),
            (
                "end=1&step=1",
                "invalid parameter \"start\": cannot parse \"\" to a valid timestamp",
            ),
        ];
        for (encoded, expected) in cases {
            assert_eq!(range(encoded).unwrap_err(), expected);
        }
    }

    #[test]
    fn selectors_must_select_something() {
        let selectors = form("match[]=up&match[]={a!=\"b\",__name__=~\"x.*\"}").selectors();
        let lengths: Vec<_> = selectors.unwrap().iter().map(Vec::len).collect();
        assert_eq!(lengths, [1, 2]);
        for empty in ["{}", "{a=\"\"}", "{__name__=~\".*\"}"] {
            let failure = form(&format!("match[]={empty}")).selectors().unwrap_err();
            let expected = "match[] must contain at least one non-empty matcher";
            assert_eq!(failure.message, expected, "{empty}");
        }
        let failure = form("match[]=up{").selectors().unwrap_err();
        assert!(
            failure.message.starts_with("1:4: parse error: "),
            "{failure:?}"
        );
        for bad in ["sum(up)", "up offset 5m", "up[5m]", "1", ""] {
            assert!(
                form(&format!("match[]={bad}")).selectors().is_err(),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,30}|[-0-9.eEsmhdy:TZ+]{0,30}") {
            let _ = (time_ms(&text), duration_ns(&text), integer(&text), quoted(&text));
        }
    }
}
