//! Series as Prometheus's test files write them: `requests{job="a"}` and
//! `0+10x5 _ stale {{count:3}}`.
//!
//! Values are items parted by white space, one or several values each:
//!
//! | item | values |
//! |---|---|
//! | `5`, `-1.5`, `1e3`, `Inf`, `NaN` | one |
//! | `5x3` | 5 5 5 5: the value and three more |
//! | `0+10x3`, `9-2x3` | 0 10 20 30, 9 7 5 3 |
//! | `_`, `_x3` | one without a sample, three without |
//! | `stale` | the staleness marker |
//! | `{{schema:0 count:3 sum:4 buckets:[1 2]}}`, also with `x3`, `+{{…}}x3`, `-{{…}}x3` | native histograms |
//!
//! A histogram's keys are `schema`, `sum`, `count`, `z_bucket`, `z_bucket_w`, `buckets`,
//! `offset`, `n_buckets`, `n_offset`, `custom_values` and `counter_reset_hint`; what is left
//! out is 0 or empty, the count too.
//!
//! Source: Prometheus's documentation of unit tests for rules, and its test scripts.

use std::ops::Range;

use slogate_series::histogram::CUSTOM_SCHEMA;
use slogate_series::{Buckets, Histogram, Labels, METRIC_NAME, ResetHint, Value, stale_nan};

use crate::literal::{is_plain_label_name, unquote};

/// The most values that one text may stand for.
pub const VALUES_MAX: usize = 100_000;

/// The most buckets that a list in a histogram may have.
const BUCKETS_MAX: usize = 10_000;

/// How far from 1 the first bucket may lie, in buckets.
const OFFSET_MAX: i32 = 1_000_000;

/// A value and whether its counter-reset hint was written out.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The value.
    pub value: Value,
    /// Whether a histogram's `counter_reset_hint` was given.
    pub has_hint: bool,
}

/// Why a text is not the notation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}: expected {expected}")]
pub struct NotationError {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub expected: &'static str,
}

impl NotationError {
    fn new(span: Range<usize>, message: impl Into<String>, expected: &'static str) -> Self {
        NotationError {
            span,
            message: message.into(),
            expected,
        }
    }
}

/// A number as the notation writes it.
pub fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let starts =
        |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'i' | 'I' | 'n' | 'N');
    text.starts_with(starts)
        .then(|| text.parse().ok())
        .flatten()
}

/// Reads the name and labels at the front of `text`, and tells where they end.
///
/// # Errors
/// Where there is neither a name nor `{…}`, or what is in braces is not `label="value"` pairs.
pub fn metric(text: &str) -> Result<(Labels, usize), NotationError> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.skip(char::is_whitespace);
    let mut builder = Labels::empty().to_builder();
    let start = cursor.at;
    cursor.skip(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
    let name = cursor.since(start);
    if !name.is_empty() {
        builder.set(METRIC_NAME, name);
    }
    if !cursor.take('{') {
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            let span = start..cursor.at;
            let expected = "a series such as requests_total{service_name=\"checkout\"}";
            return Err(NotationError::new(span, "no metric name", expected));
        }
        return Ok((builder.build(), cursor.at));
    }
    loop {
        cursor.skip(|c| c.is_whitespace() || c == ',');
        if cursor.take('}') {
            return Ok((builder.build(), cursor.at));
        }
        let (name, span) = cursor.label_name()?;
        cursor.skip(char::is_whitespace);
        if cursor.take('=') {
            cursor.skip(char::is_whitespace);
            builder.set(name, cursor.quoted()?);
        } else if cursor.text[span.clone()].starts_with(['"', '\'', '`']) {
            // A name that needs quotes stands among the labels.
            builder.set(METRIC_NAME, name);
        } else {
            let message = format!("the label {name} has no value");
            return Err(NotationError::new(span, message, "label=\"value\""));
        }
    }
}

/// Reads values; `None` where there is no sample.
///
/// # Errors
/// At the first item that is none, and where there are more than [`VALUES_MAX`] values.
pub fn values(text: &str) -> Result<Vec<Option<Item>>, NotationError> {
    let mut values = Vec::new();
    for span in items(text) {
        let item = &text[span.clone()];
        let read = if item.contains("{{") {
            histogram_item(item, &mut values)
        } else {
            float_item(item, &mut values)
        };
        read.map_err(|wrong| wrong.at(&span))?;
    }
    Ok(values)
}

/// The items of a text, histograms in one piece.
fn items(text: &str) -> Vec<Range<usize>> {
    let (mut items, mut start, mut depth) = (Vec::new(), None, 0i32);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if c.is_whitespace() && depth <= 0 {
            items.extend(start.take().map(|start: usize| start..at));
        } else if start.is_none() {
            start = Some(at);
        }
    }
    items.extend(start.map(|start| start..text.len()));
    items
}

/// What is wrong with an item, and where in it.
struct Wrong(NotationError);

impl Wrong {
    fn all(item: &str, message: &str, expected: &'static str) -> Self {
        Wrong(NotationError::new(0..item.len(), message, expected))
    }

    fn at(self, item: &Range<usize>) -> NotationError {
        let span = item.start + self.0.span.start..item.start + self.0.span.end;
        NotationError { span, ..self.0 }
    }
}

/// How many times after the first, from the end of an item: `x3`.
fn times(text: &str) -> Option<usize> {
    text.parse().ok()
}

fn push(
    values: &mut Vec<Option<Item>>,
    more: impl ExactSizeIterator<Item = Option<Item>>,
    item: &str,
) -> Result<(), Wrong> {
    if values.len().saturating_add(more.len()) > VALUES_MAX {
        let message = format!("more than {VALUES_MAX} values");
        return Err(Wrong::all(item, &message, "fewer"));
    }
    values.extend(more);
    Ok(())
}

fn float_item(item: &str, values: &mut Vec<Option<Item>>) -> Result<(), Wrong> {
    let expected = "5, 5x3, 0+10x3, 9-2x3, _, _x3, stale or a histogram in {{…}}";
    let wrong = || Wrong::all(item, "no value", expected);
    let float = |value: f64| {
        Some(Item {
            value: Value::Float(value),
            has_hint: false,
        })
    };
    if item == "stale" {
        return push(values, [float(stale_nan())].into_iter(), item);
    }
    if let Some(count) = item.strip_prefix('_') {
        let count = match count.strip_prefix('x') {
            Some(count) => times(count).ok_or_else(wrong)?,
            None if count.is_empty() => 1,
            None => return Err(wrong()),
        };
        return push(values, std::iter::repeat_n(None, count), item);
    }
    let (body, more) = match item.rsplit_once('x') {
        Some((body, count)) => (body, times(count).ok_or_else(wrong)?),
        None => (item, 0),
    };
    let count = more.saturating_add(1);
    if let Some(value) = number(body) {
        return push(values, std::iter::repeat_n(float(value), count), item);
    }
    // The sign that parts start and step follows a digit; one behind `e` is an exponent's.
    let bytes = body.as_bytes();
    let sign = (1..bytes.len()).find(|at| {
        matches!(bytes.get(*at), Some(b'+' | b'-'))
            && !matches!(bytes.get(at - 1), Some(b'e' | b'E'))
    });
    let (start, step) = sign
        .and_then(|at| body.split_at_checked(at))
        .ok_or_else(wrong)?;
    let (start, step) = number(start).zip(number(step)).ok_or_else(wrong)?;
    if count > VALUES_MAX {
        return push(values, std::iter::repeat_n(None, count), item);
    }
    let mut value = start;
    let stepped: Vec<Option<Item>> = (0..count)
        .map(|_| {
            let this = float(value);
            // Added up rather than multiplied, as Prometheus does: the last bits are the same.
            value += step;
            this
        })
        .collect();
    push(values, stepped.into_iter(), item)
}

fn histogram_item(item: &str, values: &mut Vec<Option<Item>>) -> Result<(), Wrong> {
    let expected = "{{count:3 sum:4 buckets:[1 2]}}, also followed by x3 or +{{…}}x3";
    let wrong = || Wrong::all(item, "no histogram", expected);
    let (body, mut rest) = braces(item).ok_or_else(wrong)?;
    let (first, has_hint) = histogram(body)?;
    let mut step = None;
    if let Some(sign) = rest.chars().next().filter(|c| matches!(c, '+' | '-')) {
        let offset = item.len() - rest.len() + 1;
        let (body, after) = braces(&rest[1..]).ok_or_else(wrong)?;
        let (added, _) = histogram(body)
            .map_err(|Wrong(inner)| Wrong(Wrong(inner).at(&(offset..item.len()))))?;
        step = Some(added.scale(if sign == '-' { -1.0 } else { 1.0 }));
        rest = after;
    }
    let more = match rest.strip_prefix('x') {
        Some(count) => times(count).ok_or_else(wrong)?,
        None if rest.is_empty() => 0,
        None => return Err(wrong()),
    };
    let count = more.saturating_add(1);
    if count > VALUES_MAX {
        return push(values, std::iter::repeat_n(None, count), item);
    }
    let mut current = first;
    let mut stepped = Vec::with_capacity(count);
    for _ in 0..count {
        let value = Value::Histogram(current.clone().into());
        stepped.push(Some(Item { value, has_hint }));
        if let Some(step) = &step {
            let reset_hint = current.reset_hint;
            current = Histogram {
                reset_hint,
                ..current.add(step).compact()
            };
        }
    }
    push(values, stepped.into_iter(), item)
}

/// `{{…}}` at the front of a text, and the rest.
fn braces(text: &str) -> Option<(&str, &str)> {
    let end = text.find("}}")? + 2;
    text.starts_with("{{").then(|| text.split_at(end))
}

/// A histogram with its braces, and whether its reset hint was given.
fn histogram(text: &str) -> Result<(Histogram, bool), Wrong> {
    let mut h = Histogram::default();
    let mut has_hint = false;
    let (mut offset, mut n_offset) = (0, 0);
    let (mut buckets, mut n_buckets) = (Vec::new(), Vec::new());
    let mut cursor = Cursor { text, at: 2 };
    let end = text.len().saturating_sub(2);
    loop {
        cursor.skip(char::is_whitespace);
        if cursor.at >= end {
            break;
        }
        let start = cursor.at;
        let (key, value) = cursor.pair(end);
        let wrong = |expected| {
            let message = format!("the histogram's {key} can't be {value:?}");
            Wrong(NotationError::new(start..cursor.at, message, expected))
        };
        let float = || number(value).ok_or_else(|| wrong("a number"));
        let whole = || {
            let read = value
                .parse()
                .ok()
                .filter(|n: &i32| n.checked_abs().is_some_and(|n| n <= OFFSET_MAX));
            read.ok_or_else(|| wrong("a whole number from -1000000 to 1000000"))
        };
        let list = || floats(value).ok_or_else(|| wrong("numbers in brackets, such as [1 2 3]"));
        match key {
            "schema" => h.schema = schema(value).ok_or_else(|| wrong("-4 to 8, or -53"))?,
            "sum" => h.sum = float()?,
            "count" => h.count = float()?,
            "z_bucket" => h.zero_count = float()?,
            "z_bucket_w" => h.zero_threshold = float()?,
            "buckets" => buckets = list()?,
            "n_buckets" => n_buckets = list()?,
            "offset" => offset = whole()?,
            "n_offset" => n_offset = whole()?,
            "custom_values" => h.custom_bounds = list()?.into(),
            "counter_reset_hint" => {
                has_hint = true;
                h.reset_hint = match value {
                    "reset" => ResetHint::Reset,
                    "not_reset" => ResetHint::NotReset,
                    "gauge" => ResetHint::Gauge,
                    _ => ResetHint::Unknown,
                };
            }
            _ => {
                let expected = "schema, sum, count, z_bucket, z_bucket_w, buckets, offset, \
                                n_buckets, n_offset, custom_values or counter_reset_hint";
                let message = format!("a histogram has no {key:?}");
                return Err(Wrong(NotationError::new(
                    start..cursor.at,
                    message,
                    expected,
                )));
            }
        }
    }
    h.positive = Buckets::from_dense(offset, buckets);
    h.negative = Buckets::from_dense(n_offset, n_buckets);
    Ok((h, has_hint))
}

fn schema(text: &str) -> Option<i8> {
    let read = text.parse().ok();
    read.filter(|schema| (-4..=8).contains(schema) || *schema == CUSTOM_SCHEMA)
}

fn floats(text: &str) -> Option<Vec<f64>> {
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    let numbers: Option<Vec<f64>> = inside.split_whitespace().map(number).collect();
    numbers.filter(|numbers| numbers.len() <= BUCKETS_MAX)
}

/// A place in a text.
struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Cursor<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn since(&self, start: usize) -> &'t str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn skip(&mut self, matches: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(matches).len();
    }

    fn take(&mut self, c: char) -> bool {
        let found = self.rest().starts_with(c);
        self.at += if found { c.len_utf8() } else { 0 };
        found
    }

    fn label_name(&mut self) -> Result<(String, Range<usize>), NotationError> {
        let start = self.at;
        if self.rest().starts_with(['"', '\'', '`']) {
            let name = self.quoted()?;
            return Ok((name, start..self.at));
        }
        self.skip(|c| !c.is_whitespace() && !matches!(c, '=' | '}' | ',' | '{' | '"' | '!' | '~'));
        let name = self.since(start);
        if is_plain_label_name(name) {
            return Ok((name.to_owned(), start..self.at));
        }
        let span = start
            ..self
                .at
                .max(start + self.rest().chars().next().map_or(0, char::len_utf8));
        let message = match name {
            "" if span.is_empty() => "the braces are not closed".to_owned(),
            "" => "no label".to_owned(),
            name => format!("{name:?} is no label name"),
        };
        Err(NotationError::new(span, message, "label=\"value\""))
    }

    fn quoted(&mut self) -> Result<String, NotationError> {
        let start = self.at;
        let rest = self.rest();
        let quote = rest
            .chars()
            .next()
            .filter(|c| matches!(c, '"' | '\'' | '`'));
        let Some(quote) = quote else {
            let span = start..start + rest.chars().next().map_or(0, char::len_utf8);
            return Err(NotationError::new(span, "no quotes", "a value in quotes"));
        };
        let mut escaped = false;
        for (at, c) in rest.char_indices().skip(1) {
            if escaped {
                escaped = false;
            } else if c == '\\' && quote != '`' {
                escaped = true;
            } else if c == quote {
                self.at += at + 1;
                let read = unquote(self.since(start));
                return read
                    .map_err(|why| NotationError::new(start..self.at, why, "a quoted text"));
            }
        }
        let span = start..self.text.len();
        Err(NotationError::new(
            span,
            "the quotes are not closed",
            "a quoted text",
        ))
    }

    /// `key:value` up to white space outside of brackets, or `end`.
    fn pair(&mut self, end: usize) -> (&'t str, &'t str) {
        let rest = self.text.get(self.at..end).unwrap_or_default();
        let (key, after) = rest.split_once(':').unwrap_or((rest, ""));
        let length = if after.starts_with('[') {
            after.find(']').map_or(after.len(), |at| at + 1)
        } else {
            after.find(char::is_whitespace).unwrap_or(after.len())
        };
        let value = after.get(..length).unwrap_or_default();
        self.at += if after.is_empty() {
            rest.len()
        } else {
            key.len() + 1 + length
        };
        (key.trim(), value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn floats_of(text: &str) -> Vec<Option<f64>> {
        let values = values(text).unwrap();
        let float = |item: Item| match item.value {
            Value::Float(value) => value,
            Value::Histogram(h) => h.count,
        };
        values.into_iter().map(|item| item.map(float)).collect()
    }

    #[test]
    fn items_stand_for_values() {
        let some = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(floats_of("5 -1.5 1e3"), some(&[5.0, -1.5, 1000.0]));
        assert_eq!(floats_of("5x3"), some(&[5.0; 4]));
        assert_eq!(floats_of("0+10x3"), some(&[0.0, 10.0, 20.0, 30.0]));
        assert_eq!(floats_of("9-2x3"), some(&[9.0, 7.0, 5.0, 3.0]));
        assert_eq!(floats_of("-2e1-1e-1x0"), some(&[-20.0]));
        assert_eq!(floats_of(" _ 1 _x2 "), [None, Some(1.0), None, None]);
        assert!(
            values("stale").unwrap()[0]
                .as_ref()
                .unwrap()
                .value
                .is_stale()
        );
        let stepped = "{{count:3 sum:4 buckets:[1 2]}}+{{count:1 buckets:[1]}}x2";
        assert_eq!(floats_of(stepped), some(&[3.0, 4.0, 5.0]));
        assert!(floats_of("").is_empty());
    }

    #[test]
    fn a_histogram_has_all_its_parts() {
        let text = "{{schema:3 sum:5 count:9 z_bucket:1 z_bucket_w:0.5 buckets:[1 0 2] offset:-2 \
                    n_buckets:[4] n_offset:1 counter_reset_hint:gauge}}";
        let item = values(text).unwrap().remove(0).unwrap();
        let Value::Histogram(h) = item.value else {
            panic!("a float")
        };
        assert!(item.has_hint);
        assert_eq!((h.schema, h.sum, h.count), (3, 5.0, 9.0));
        assert_eq!((h.zero_count, h.zero_threshold), (1.0, 0.5));
        assert_eq!((h.positive.get(-2), h.positive.get(0)), (1.0, 2.0));
        assert_eq!((h.negative.get(1), h.reset_hint), (4.0, ResetHint::Gauge));
    }

    #[test]
    fn metrics_are_names_and_labels() {
        let text = "requests_total{a=\"x\\\"y\", b = 'z', } 0+1x5";
        let (labels, end) = metric(text).unwrap();
        assert_eq!(labels.metric_name(), Some("requests_total"));
        assert_eq!(
            (labels.get("a"), labels.get("b")),
            (Some("x\"y"), Some("z"))
        );
        assert_eq!(&text[end..], " 0+1x5");
        let (labels, _) = metric("{\"http.requests\", \"a.b\"=\"c\"}").unwrap();
        assert_eq!(labels.metric_name(), Some("http.requests"));
        assert_eq!(labels.get("a.b"), Some("c"));
    }

    #[test]
    fn mistakes_have_their_places() {
        let cases = [
            ("1 2 three", "three"),
            ("1 2x", "2x"),
            ("_y", "_y"),
            ("1 0+1x100001", "0+1x100001"),
            ("5x99999999999999999999", "5x99999999999999999999"),
            ("{{count:3}", "{{count:3}"),
            ("1 {{sum:2 count:x}}", "count:x"),
            ("1 {{sum:2}}+{{total:2}}x3", "total:2"),
            ("{{buckets:[1 2}}", "buckets:[1 2"),
        ];
        for (text, place) in cases {
            let error = values(text).unwrap_err();
            assert_eq!(&text[error.span.clone()], place, "{text}: {error}");
        }
        let cases = [
            ("", ""),
            ("{a=b}", "b"),
            ("a{b}", "b"),
            ("a{b=\"c", "\"c"),
            ("a{b!=\"c\"}", "b"),
            ("a{", ""),
            ("a{é=\"c\"}", "é"),
        ];
        for (text, place) in cases {
            let error = metric(text).unwrap_err();
            assert_eq!(&text[error.span.clone()], place, "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in "([{}x_+0-9é .:\\[\\]\"'`=,-]|stale|count|buckets|schema|sum){0,24}",
        ) {
            for error in [values(&text).err(), metric(&text).err()].into_iter().flatten() {
                prop_assert!(text.get(error.span.clone()).is_some(), "{error:?}");
            }
        }
    }
}
