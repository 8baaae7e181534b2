//! A series' value at each step: its newest sample, or smoothed, what lies between its
//! neighbours. And what is the same at every step.

use slogate_series::{Histogram, ResetHint, Value, is_stale};

use crate::ast::{Call, Expr, ExprKind, Span};
use crate::eval::Grid;
use crate::eval::annotation::Annotations;
use crate::eval::meter::{Meter, histogram_size};
use crate::eval::rate::{extended, layouts_message, mixed_message};
use crate::eval::stream::Take;
use crate::eval::window::{Window, WindowEnds};
use crate::queryable::{HistogramPoint, Samples};

/// Puts the newest sample in `(t - lookback, t]` into each step's place, unless it is a
/// staleness marker.
pub(crate) fn newest(
    samples: &Samples,
    grid: Grid,
    ends: WindowEnds,
    lookback_ms: i64,
    take: Take,
    meter: &mut Meter,
    values: &mut [Option<Value>],
) {
    let (floats, histograms) = (&samples.floats, &samples.histograms);
    let (mut past_floats, mut past_histograms) = (0, 0);
    for (step, slot) in values.iter_mut().enumerate() {
        let end_ms = ends.at(grid, step);
        let open_ms = end_ms.saturating_sub(lookback_ms);
        while floats.get(past_floats).is_some_and(|p| p.t_ms <= end_ms) {
            past_floats += 1;
        }
        while histograms
            .get(past_histograms)
            .is_some_and(|p| p.t_ms <= end_ms)
        {
            past_histograms += 1;
        }
        let float = past_floats.checked_sub(1).and_then(|at| floats.get(at));
        let histogram = past_histograms
            .checked_sub(1)
            .and_then(|at| histograms.get(at))
            .filter(|h| h.t_ms > open_ms && float.is_none_or(|f| f.t_ms < h.t_ms));
        let (times, value, size) = match (float, histogram) {
            (_, Some(h)) if !is_stale(h.value.sum) => {
                let value = Value::Histogram(h.value.clone());
                ((h.t_ms, h.start_ms), value, histogram_size(&h.value))
            }
            (Some(f), None) if f.t_ms > open_ms && !is_stale(f.value) => {
                ((f.t_ms, f.start_ms), Value::Float(f.value), 1)
            }
            _ => continue,
        };
        meter.look_at(size);
        *slot = Some(match take {
            Take::Value => value,
            Take::Time => Value::Float(times.0 as f64 / 1000.0),
            Take::Millis => Value::Float(times.0 as f64),
            Take::Start => Value::Float(times.1 as f64 / 1000.0),
        });
    }
}

/// The samples before and after the end of a window, or the one at it twice.
fn neighbours<'a, P>(
    window: &Window<'_>,
    points: &'a [P],
    time: impl Fn(&P) -> i64,
) -> Option<(&'a P, &'a P)> {
    let at = points.partition_point(|p| time(p) < window.end_ms);
    let after = points.get(at);
    if let Some(exact) = after.filter(|p| time(p) == window.end_ms) {
        return Some((exact, exact));
    }
    let before = points.get(at.checked_sub(1)?)?;
    Some((before, after.unwrap_or(before)))
}

/// The value on the line between the samples before and after the window's end; with none
/// after it the last one's.
pub(crate) fn between(window: &Window<'_>, span: Span, notes: &mut Annotations) -> Option<Value> {
    if window.is_mixed() {
        notes.warn(span, mixed_message(window));
        return None;
    }
    match window.histograms {
        [] => smoothed_float(window).map(Value::Float),
        _ => smoothed_histogram(window, span, notes).map(|h| Value::Histogram(h.into())),
    }
}

fn smoothed_float(window: &Window<'_>) -> Option<f64> {
    let (before, after) = neighbours(window, window.floats, |p| p.t_ms)?;
    if before.t_ms == after.t_ms {
        return Some(before.value);
    }
    Some(extended::interpolated(before, after, window.end_ms, false))
}

fn smoothed_histogram(
    window: &Window<'_>,
    span: Span,
    notes: &mut Annotations,
) -> Option<Histogram> {
    let (before, after) = neighbours(window, window.histograms, |p| p.t_ms)?;
    let is_gauge = |p: &HistogramPoint| p.value.reset_hint == ResetHint::Gauge;
    if before.value.has_custom_bounds() != after.value.has_custom_bounds() {
        notes.warn(span, layouts_message(window.metric_name()));
        return None;
    }
    if before.t_ms < after.t_ms {
        let is_counter = !(is_gauge(before) && is_gauge(after));
        let (pair, name) = ((before, after), window.metric_name());
        return extended::interpolated_histogram(
            pair,
            window.end_ms,
            is_counter,
            name,
            span,
            notes,
        );
    }
    let mut value = before.value.as_ref().clone();
    if before.t_ms < window.end_ms {
        // What was known about it was known about its own time.
        value.reset_hint = ResetHint::Unknown;
    }
    Some(value)
}

/// Whether what is being evaluated looks at the buckets of native histograms. Below
/// `histogram_count` and its like only totals matter; then resets are found while reading,
/// before the buckets are dropped. A subquery may skip samples, so that resets can only be
/// found in what is left, with the buckets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HistogramNeeds {
    totals: bool,
    buckets: bool,
}

impl HistogramNeeds {
    pub(crate) fn totals(self) -> Self {
        HistogramNeeds {
            totals: true,
            ..self
        }
    }

    pub(crate) fn buckets(self) -> Self {
        HistogramNeeds {
            buckets: true,
            ..self
        }
    }

    pub(crate) fn only_totals(self) -> bool {
        self.totals && !self.buckets
    }
}

/// Functions whose value follows the step's time even when their arguments don't.
const FOLLOW_THE_STEP: [&str; 11] = [
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "hour",
    "minute",
    "month",
    "predict_linear",
    "time",
    "timestamp",
    "year",
];

/// Whether `expr` reads the store and has the same value at every step.
pub(crate) fn is_worth_computing_once(expr: &Expr) -> bool {
    !matches!(
        expr.kind,
        ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Paren(_)
    ) && is_step_invariant(expr)
}

fn is_step_invariant(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Vector(selector) => selector.at.is_some(),
        ExprKind::Matrix(matrix) => matrix.selector.at.is_some(),
        ExprKind::Subquery(subquery) => subquery.at.is_some(),
        ExprKind::Call(Call { function, .. }) if FOLLOW_THE_STEP.contains(&function.name) => false,
        // As in Prometheus, whatever its parameter is: that is taken at the first step then.
        ExprKind::Aggregate(aggregate) => is_step_invariant(&aggregate.expr),
        _ => expr.children().into_iter().all(is_step_invariant),
    }
}
