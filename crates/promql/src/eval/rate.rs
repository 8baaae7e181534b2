//! `rate`, `increase`, `delta`, `irate`, `idelta`, `resets`, `changes`.
//!
//! The first three extrapolate: samples rarely lie on the window's borders, so the change
//! between the first and the last is stretched to the whole window, unless the series
//! seems to begin or end inside it. Source: Prometheus `promql/functions.go`,
//! `extrapolatedRate`.

use std::sync::Arc;

use slogate_series::{Histogram, ResetHint, Value};

use crate::ast::Span;
use crate::eval::annotation::Annotations;
use crate::eval::histogram;
use crate::eval::window::{HistogramPoint, Window};

/// What an extrapolating function computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateKind {
    /// Whether samples are counters: drops are resets, and nothing was counted below zero.
    pub(crate) is_counter: bool,
    /// Whether the result is per second.
    pub(crate) per_second: bool,
}

/// The change over the window.
pub(crate) fn extrapolated(
    kind: RateKind,
    window: &Window<'_>,
    span: Span,
    notes: &mut Annotations,
) -> Option<Value> {
    if window.is_mixed() {
        notes.warn(span, mixed_message(window));
        return None;
    }
    if window.histograms.is_empty() {
        return float_change(kind, window, span, notes).map(Value::Float);
    }
    histogram_change(kind, window, span, notes)
}

/// That a window has both floats and histograms.
pub(crate) fn mixed_message(window: &Window<'_>) -> String {
    let name = window.metric_name();
    format!("encountered a mix of histograms and floats for metric name {name:?}")
}

fn float_change(
    kind: RateKind,
    window: &Window<'_>,
    span: Span,
    notes: &mut Annotations,
) -> Option<f64> {
    let (first, last) = (window.floats.first()?, window.floats.last()?);
    if window.floats.len() < 2 {
        return None;
    }
    if kind.is_counter {
        note_possible_gauge(window, span, notes);
    }
    let mut change = last.value - first.value;
    if kind.is_counter {
        for pair in window.floats.windows(2) {
            if let [before, now] = pair
                && now.value < before.value
            {
                change += before.value;
            }
        }
    }
    let edges = Edges {
        first_ms: first.t_ms,
        last_ms: last.t_ms,
        samples: window.floats.len(),
    };
    let start_value = (kind.is_counter && first.value >= 0.0).then_some(first.value);
    Some(change * edges.factor(kind, window, start_value, change))
}

const COUNTER_SUFFIXES: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];

pub(crate) fn note_possible_gauge(window: &Window<'_>, span: Span, notes: &mut Annotations) {
    let name = window.metric_name();
    if !name.is_empty() && !COUNTER_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
        notes.info_about(
            span,
            "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:",
            name,
        );
    }
}

/// The first and the last sample of a window, and how many there are.
struct Edges {
    first_ms: i64,
    last_ms: i64,
    samples: usize,
}

impl Edges {
    /// What the change between the samples is multiplied with. `start_value` is the first
    /// sample's count, where the series can be extended back to its zero.
    fn factor(
        &self,
        kind: RateKind,
        window: &Window<'_>,
        start_value: Option<f64>,
        change: f64,
    ) -> f64 {
        let start_ms = window.end_ms.saturating_sub(window.range_ms);
        let seconds = |from: i64, to: i64| to.saturating_sub(from) as f64 / 1000.0;
        let mut to_start = seconds(start_ms, self.first_ms);
        let mut to_end = seconds(self.last_ms, window.end_ms);
        let sampled = seconds(self.first_ms, self.last_ms);
        let between_samples = sampled / (self.samples.saturating_sub(1)) as f64;
        let threshold = between_samples * 1.1;
        if to_start >= threshold {
            to_start = between_samples / 2.0;
        }
        if let Some(start_value) = start_value.filter(|_| change > 0.0) {
            // A counter can't have started below zero: don't reach back further than that.
            to_start = to_start.min(sampled * (start_value / change));
        }
        if to_end >= threshold {
            to_end = between_samples / 2.0;
        }
        let factor = (sampled + to_start + to_end) / sampled;
        if kind.per_second {
            factor / (window.range_ms as f64 / 1000.0)
        } else {
            factor
        }
    }
}

fn histogram_change(
    kind: RateKind,
    window: &Window<'_>,
    span: Span,
    notes: &mut Annotations,
) -> Option<Value> {
    let points = window.histograms;
    let (first, last) = (points.first()?, points.last()?);
    if points.len() < 2 {
        return None;
    }
    let mut change = counted_change(kind, window, points, span, notes)?;
    let edges = Edges {
        first_ms: first.t_ms,
        last_ms: last.t_ms,
        samples: points.len(),
    };
    let start_count = (kind.is_counter && first.value.count >= 0.0).then_some(first.value.count);
    let factor = edges.factor(kind, window, start_count, change.count);
    change = change.scale(factor).compact();
    change.reset_hint = ResetHint::Gauge;
    Some(Value::Histogram(change.into()))
}

/// Last minus first, plus what was lost at each reset.
fn counted_change(
    kind: RateKind,
    window: &Window<'_>,
    points: &[HistogramPoint],
    span: Span,
    notes: &mut Annotations,
) -> Option<Histogram> {
    let [first, second, ..] = points else {
        return None;
    };
    let last = points.last()?;
    let name = window.metric_name();
    let mut gauges = points
        .iter()
        .filter(|p| p.value.reset_hint == ResetHint::Gauge);
    let ends_are_gauges = [first, last]
        .iter()
        .all(|p| p.value.reset_hint == ResetHint::Gauge);
    if kind.is_counter && gauges.next().is_some() {
        notes.warn(
            span,
            format!("this native histogram metric is not a counter: {name:?}"),
        );
    }
    if !kind.is_counter && !ends_are_gauges {
        notes.warn(
            span,
            format!("this native histogram metric is not a gauge: {name:?}"),
        );
    }
    // A first sample from before a reset counts for nothing, whatever its buckets are.
    let skip_first = kind.is_counter && histogram::is_reset_after(&second.value, &first.value);
    let counted = points.get(usize::from(skip_first)..)?;
    let custom = last.value.has_custom_bounds();
    if counted
        .iter()
        .any(|p| p.value.has_custom_bounds() != custom)
    {
        notes.warn(
            span,
            format!(
                "vector contains a mix of histograms with exponential and custom buckets schemas \
                 for metric name {name:?}"
            ),
        );
        return None;
    }
    let coarsest = counted.iter().map(|p| p.value.schema).min()?;
    let mut change = last.value.at_schema(coarsest);
    let mut reconciled = false;
    if !skip_first {
        let difference = histogram::sub(&change, &first.value)?;
        change = difference.histogram;
        reconciled |= difference.reconciled;
    }
    if kind.is_counter {
        for pair in counted.windows(2) {
            if let [before, now] = pair
                && histogram::is_reset_after(&now.value, &before.value)
            {
                let sum = histogram::add(&change, &before.value)?;
                change = sum.histogram;
                reconciled |= sum.reconciled;
            }
        }
    }
    if reconciled {
        notes.info(span, histogram::reconciled_message("subtraction"));
    }
    Some(change)
}

/// The change between the last two samples: per second for `irate`, as it is for `idelta`.
pub(crate) fn instantaneous(
    is_rate: bool,
    window: &Window<'_>,
    span: Span,
    notes: &mut Annotations,
) -> Option<Value> {
    let (before, now) = last_two(window)?;
    let interval_ms = now.0.saturating_sub(before.0);
    if interval_ms == 0 {
        return None;
    }
    let per_second = 1000.0 / interval_ms as f64;
    match (before.1, now.1) {
        (Value::Float(before), Value::Float(now)) => {
            if is_rate {
                note_possible_gauge(window, span, notes);
            }
            let change = if is_rate && now < before {
                now
            } else {
                now - before
            };
            let seconds = interval_ms as f64 / 1000.0;
            Some(Value::Float(if is_rate {
                change / seconds
            } else {
                change
            }))
        }
        (Value::Histogram(before), Value::Histogram(now)) => {
            let change = histogram_step(is_rate, &before, &now, window, span, notes)?;
            let change = if is_rate {
                change.scale(per_second)
            } else {
                change
            };
            Some(Value::Histogram(change.compact().into()))
        }
        _ => {
            notes.warn(span, mixed_message(window));
            None
        }
    }
}

fn histogram_step(
    is_rate: bool,
    before: &Arc<Histogram>,
    now: &Arc<Histogram>,
    window: &Window<'_>,
    span: Span,
    notes: &mut Annotations,
) -> Option<Histogram> {
    let name = window.metric_name();
    let gauges = [before, now].map(|h| h.reset_hint == ResetHint::Gauge);
    if is_rate && gauges.contains(&true) {
        notes.warn(
            span,
            format!("this native histogram metric is not a counter: {name:?}"),
        );
    }
    if !is_rate && gauges.contains(&false) {
        notes.warn(
            span,
            format!("this native histogram metric is not a gauge: {name:?}"),
        );
    }
    let mut change = if is_rate && histogram::is_reset_after(now, before) {
        now.as_ref().clone()
    } else {
        let Some(difference) = histogram::sub(now, before) else {
            notes.warn(
                span,
                format!(
                    "vector contains a mix of histograms with exponential and custom buckets \
                     schemas for metric name {name:?}"
                ),
            );
            return None;
        };
        if difference.reconciled {
            notes.info(span, histogram::reconciled_message("subtraction"));
        }
        difference.histogram
    };
    change.reset_hint = ResetHint::Gauge;
    Some(change)
}

fn last_two(window: &Window<'_>) -> Option<((i64, Value), (i64, Value))> {
    let floats = window
        .floats
        .iter()
        .rev()
        .take(2)
        .map(|p| (p.t_ms, Value::Float(p.value)));
    let histograms = window.histograms.iter().rev().take(2);
    let histograms = histograms.map(|p| (p.t_ms, Value::Histogram(p.value.clone())));
    let mut all: Vec<(i64, Value)> = floats.chain(histograms).collect();
    all.sort_by_key(|(t_ms, _)| *t_ms);
    let now = all.pop()?;
    Some((all.pop()?, now))
}

/// How often a counter started anew. A change of sample type is a reset.
pub(crate) fn resets(window: &Window<'_>) -> f64 {
    count_steps(window, |before, now| match (before, now) {
        (Value::Float(before), Value::Float(now)) => now < before,
        (Value::Histogram(before), Value::Histogram(now)) => histogram::is_reset_after(now, before),
        _ => true,
    })
}

/// How often the value changed. NaN after NaN is no change.
pub(crate) fn changes(window: &Window<'_>) -> f64 {
    count_steps(window, |before, now| match (before, now) {
        (Value::Float(before), Value::Float(now)) => {
            now != before && !(now.is_nan() && before.is_nan())
        }
        (Value::Histogram(before), Value::Histogram(now)) => !histogram::same_counts(before, now),
        _ => true,
    })
}

fn count_steps(window: &Window<'_>, differs: impl Fn(&Value, &Value) -> bool) -> f64 {
    let floats = window
        .floats
        .iter()
        .map(|p| (p.t_ms, Value::Float(p.value)));
    let histograms = window
        .histograms
        .iter()
        .map(|p| (p.t_ms, Value::Histogram(p.value.clone())));
    let mut all: Vec<(i64, Value)> = floats.chain(histograms).collect();
    if window.is_mixed() {
        all.sort_by_key(|(t_ms, _)| *t_ms);
    }
    let steps = all.windows(2).filter(|pair| match pair {
        [(_, before), (_, now)] => differs(before, now),
        _ => false,
    });
    steps.count() as f64
}
