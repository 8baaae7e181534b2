//! The notation for series in test scripts: `http_requests{job="a"} 0+10x5 _ stale {{count:3}}`.

use slogate_promql::duration::parse_ms;
use slogate_promql::notation;
use slogate_series::{Labels, Sample};

pub(crate) use slogate_promql::notation::{Item, number};

/// A series that a query must give; absent samples are `None`.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) labels: Labels,
    pub(crate) values: Vec<Option<Item>>,
}

pub(crate) fn duration_ms(text: &str) -> Option<i64> {
    parse_ms(text)
}

/// The labels at the front of a line, and the rest.
pub(crate) fn metric(line: &str) -> Option<(Labels, &str)> {
    let (labels, end) = notation::metric(line).ok()?;
    Some((labels, &line[end..]))
}

pub(crate) fn sequence(text: &str) -> Option<Vec<Option<Item>>> {
    notation::values(text).ok()
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
