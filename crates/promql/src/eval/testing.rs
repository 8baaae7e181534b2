//! Helpers of the evaluator's tests: a store in a few lines, results as text.

use slogate_series::{Labels, Sample, Series, Value};

use crate::{Engine, EvalError, ParseOptions, QueryResult, QueryValue, parse};

/// One series with samples every 15 seconds from 0; `None` is a gap.
pub(super) fn series(metric: &str, values: &[Option<f64>]) -> Series {
    let at = |(at, value): (usize, &Option<f64>)| {
        let value = Value::Float((*value)?);
        Some(Sample {
            t_ms: at as i64 * 15_000,
            start_ms: 0,
            value,
        })
    };
    let samples = values.iter().enumerate().filter_map(at).collect();
    Series {
        labels: labels(metric),
        samples,
    }
}

/// As [`series`], without gaps.
pub(super) fn steady(metric: &str, values: &[f64]) -> Series {
    series(
        metric,
        &values.iter().map(|value| Some(*value)).collect::<Vec<_>>(),
    )
}

/// The labels of a selector with plain matchers.
pub(super) fn labels(metric: &str) -> Labels {
    let expr = parse(metric).unwrap_or_else(|error| panic!("{}", error.render(metric)));
    let crate::ast::ExprKind::Vector(selector) = expr.kind else {
        panic!("{metric}")
    };
    let matchers = selector.all_matchers();
    Labels::from_pairs(
        matchers
            .iter()
            .map(|m| (m.name().to_owned(), m.value().to_owned())),
    )
}

/// Production settings, with experimental functions.
pub(super) fn engine() -> Engine {
    Engine {
        parse_options: ParseOptions::everything(),
        ..Engine::default()
    }
}

pub(super) fn run(store: &[Series], query: &str, at_s: i64) -> Result<QueryResult, EvalError> {
    engine().instant(query, &store, at_s * 1000)
}

/// The result as lines `labels value`, in the engine's order.
pub(super) fn lines(store: &[Series], query: &str, at_s: i64) -> Vec<String> {
    match run(store, query, at_s) {
        Ok(result) => value_lines(&result.value),
        Err(error) => panic!("{query}: {error}"),
    }
}

pub(super) fn value_lines(value: &QueryValue) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Float(value) => format!("{value}"),
        Value::Histogram(h) => format!("count={} sum={}", h.count, h.sum),
    };
    match value {
        QueryValue::Scalar(value) => vec![format!("{value}")],
        QueryValue::String(value) => vec![value.clone()],
        QueryValue::Vector(elements) => elements
            .iter()
            .map(|e| format!("{} {}", e.labels, text(&e.value)))
            .collect(),
        QueryValue::Matrix(series) => series
            .iter()
            .map(|series| {
                let samples: Vec<String> = series
                    .samples
                    .iter()
                    .map(|s| format!("{}@{}", text(&s.value), s.t_ms as f64 / 1000.0))
                    .collect();
                format!("{} {}", series.labels, samples.join(" "))
            })
            .collect(),
    }
}

/// The message of the error that the query must give.
pub(super) fn failure(store: &[Series], query: &str, at_s: i64) -> String {
    match run(store, query, at_s) {
        Ok(result) => panic!("{query} gives {:?}", value_lines(&result.value)),
        Err(error) => error.to_string(),
    }
}
