//! The notation for series in test scripts: `http_requests{job="a"} 0+10x5 _ stale {{count:3}}`.

use slogate_series::{Buckets, Histogram, Labels, ResetHint, Sample, Value, stale_nan};

/// A series that a query must give; absent samples are `None`.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) labels: Labels,
    pub(crate) values: Vec<Option<Item>>,
}

/// A value and whether its reset hint was written out.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) value: Value,
    pub(crate) has_hint: bool,
}

pub(crate) fn duration_ms(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let units = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    let more = [("w", 604_800_000), ("y", 31_536_000_000)];
    let (mut rest, mut total) = (text, 0i64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let letters = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len() - digits);
        let unit = &rest[digits..digits + letters];
        let (_, ms) = units.iter().chain(&more).find(|(name, _)| *name == unit)?;
        total += rest[..digits].parse::<i64>().ok()? * ms;
        rest = &rest[digits + letters..];
    }
    Some(total)
}

pub(crate) fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let starts =
        |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'i' | 'I' | 'n' | 'N');
    text.starts_with(starts)
        .then(|| text.parse().ok())
        .flatten()
}

/// The labels at the front of a line, and the rest.
pub(crate) fn metric(line: &str) -> Option<(Labels, &str)> {
    let line = line.trim();
    let name_end = line
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':')))
        .unwrap_or(line.len());
    let mut builder = Labels::empty().to_builder();
    if name_end > 0 {
        builder.set("__name__", &line[..name_end]);
    }
    let Some(mut rest) = line[name_end..].strip_prefix('{') else {
        return (name_end > 0).then(|| (builder.build(), &line[name_end..]));
    };
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((builder.build(), after));
        }
        let (name, after) = match rest.chars().next()? {
            '"' | '\'' | '`' => quoted(rest)?,
            _ => {
                let end = rest.find(['=', ' '])?;
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        match after.trim_start().strip_prefix('=') {
            Some(after) => {
                let (value, after) = quoted(after.trim_start())?;
                builder.set(name, value);
                rest = after;
            }
            None => {
                builder.set("__name__", name);
                rest = after;
            }
        }
    }
}

/// A quoted text at the front, and the rest.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next()?;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' && quote != '`' {
            escaped = true;
        } else if c == quote {
            let (literal, rest) = text.split_at(at + 1);
            let slogate_promql::ast::ExprKind::String(value) =
                slogate_promql::parse(literal).ok()?.kind
            else {
                return None;
            };
            return Some((value.text.as_ref().to_owned(), rest));
        }
    }
    None
}

/// The items of a line, histograms in one piece.
fn items(text: &str) -> Vec<&str> {
    let (mut items, mut start, mut depth) = (Vec::new(), None, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if c.is_whitespace() && depth == 0 {
            items.extend(start.take().map(|start: usize| &text[start..at]));
        } else if start.is_none() {
            start = Some(at);
        }
    }
    items.extend(start.map(|start| &text[start..]));
    items
}

pub(crate) fn sequence(text: &str) -> Option<Vec<Option<Item>>> {
    let mut values = Vec::new();
    for item in items(text) {
        if item.contains("{{") {
            histogram_item(item, &mut values)?;
        } else {
            float_item(item, &mut values)?;
        }
    }
    Some(values)
}

fn float_item(item: &str, values: &mut Vec<Option<Item>>) -> Option<()> {
    let float = |value: f64| {
        Some(Item {
            value: Value::Float(value),
            has_hint: false,
        })
    };
    if item == "stale" {
        values.push(float(stale_nan()));
        return Some(());
    }
    if let Some(count) = item.strip_prefix('_') {
        let count = count
            .strip_prefix('x')
            .map_or(Some(1), |count| count.parse().ok())?;
        values.extend(std::iter::repeat_n(None, count));
        return Some(());
    }
    let (body, times) = match item.rsplit_once('x') {
        Some((body, times)) => (body, times.parse::<usize>().ok()?),
        None => (item, 0),
    };
    if let Some(value) = number(body) {
        values.extend(std::iter::repeat_with(|| float(value)).take(times + 1));
        return Some(());
    }
    // `start+step` or `start-step`: the sign that parts them follows a digit.
    let at = body.char_indices().skip(1).position(|(i, c)| {
        matches!(c, '+' | '-') && !matches!(body.as_bytes()[i - 1], b'e' | b'E')
    })? + 1;
    let (mut value, step) = (number(&body[..at])?, number(&body[at..])?);
    for _ in 0..=times {
        values.push(float(value));
        value += step;
    }
    Some(())
}

fn histogram_item(item: &str, values: &mut Vec<Option<Item>>) -> Option<()> {
    let end = item.find("}}")? + 2;
    let (first, has_hint) = histogram(&item[..end])?;
    let mut rest = &item[end..];
    let mut step = None;
    if rest.starts_with(['+', '-']) {
        let sign = if rest.starts_with('-') { -1.0 } else { 1.0 };
        let end = rest.find("}}")? + 2;
        step = Some(histogram(&rest[1..end])?.0.scale(sign));
        rest = &rest[end..];
    }
    let times = match rest.strip_prefix('x') {
        Some(times) => times.parse::<usize>().ok()?,
        None => 0,
    };
    let mut current = first;
    for _ in 0..=times {
        let value = Value::Histogram(current.clone().into());
        values.push(Some(Item { value, has_hint }));
        if let Some(step) = &step {
            let hint = current.reset_hint;
            current = Histogram {
                reset_hint: hint,
                ..current.add(step).compact()
            };
        }
    }
    Some(())
}

fn histogram(text: &str) -> Option<(Histogram, bool)> {
    let body = text.strip_prefix("{{")?.strip_suffix("}}")?;
    let mut h = Histogram::default();
    let mut has_hint = false;
    let (mut offset, mut n_offset) = (0, 0);
    let (mut buckets, mut n_buckets) = (Vec::new(), Vec::new());
    let mut rest = body.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once(':')?;
        let end = if after.starts_with('[') {
            after.find(']')? + 1
        } else {
            after.find(' ').unwrap_or(after.len())
        };
        let value = &after[..end];
        let list = || -> Option<Vec<f64>> {
            value
                .trim_matches(['[', ']'])
                .split_whitespace()
                .map(number)
                .collect()
        };
        match key {
            "schema" => h.schema = value.parse().ok()?,
            "sum" => h.sum = number(value)?,
            "count" => h.count = number(value)?,
            "z_bucket" => h.zero_count = number(value)?,
            "z_bucket_w" => h.zero_threshold = number(value)?,
            "buckets" => buckets = list()?,
            "n_buckets" => n_buckets = list()?,
            "offset" => offset = value.parse().ok()?,
            "n_offset" => n_offset = value.parse().ok()?,
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
            _ => return None,
        }
        rest = after[end..].trim_start();
    }
    h.positive = Buckets::from_dense(offset, buckets);
    h.negative = Buckets::from_dense(n_offset, n_buckets);
    Some((h, has_hint))
}

/// Start times relative to their samples, in milliseconds.
pub(crate) fn start_times(text: &str) -> Option<Vec<Option<i64>>> {
    let signed = |text: &str| match text.strip_prefix('-') {
        Some(rest) => duration_ms(rest).map(|ms| -ms),
        None => duration_ms(text.trim_start_matches('+')),
    };
    let mut times = Vec::new();
    for item in text.split_whitespace() {
        let (body, count) = match item.split_once('x') {
            Some((body, count)) => (body, count.parse::<usize>().ok()?),
            None => (item, 0),
        };
        if body == "_" {
            times.extend(std::iter::repeat_n(None, count.max(1)));
            continue;
        }
        let at = body
            .char_indices()
            .skip(1)
            .find(|(_, c)| matches!(c, '+' | '-'))
            .map(|(i, _)| i);
        let (mut value, step) = match at {
            Some(at) => (signed(&body[..at])?, signed(&body[at..])?),
            None => (signed(body)?, 0),
        };
        for _ in 0..=count {
            times.push(Some(value));
            value += step;
        }
    }
    Some(times)
}

pub(crate) fn samples(
    values: &[Option<Item>],
    starts: &[Option<i64>],
    interval_ms: i64,
) -> Vec<Sample> {
    let sample = |(at, item): (usize, &Option<Item>)| {
        let t_ms = at as i64 * interval_ms;
        let start_ms = starts
            .get(at)
            .copied()
            .flatten()
            .map_or(0, |relative| t_ms + relative);
        item.as_ref().map(|item| Sample {
            t_ms,
            start_ms,
            value: item.value.clone(),
        })
    };
    values.iter().enumerate().filter_map(sample).collect()
}
