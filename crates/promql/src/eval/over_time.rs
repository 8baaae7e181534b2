//! The `*_over_time` functions.
//!
//! Those that only make sense for numbers ignore histograms and say so where a window has
//! both; those that make sense for both refuse a mix.

use slogate_series::Value;

use crate::ast::Span;
use crate::eval::annotation::Annotations;
use crate::eval::histogram_sum::total;
use crate::eval::rate::{layouts_message, mixed_message};
use crate::eval::sum::{Mean, Sum, mean};
use crate::eval::text::quoted;
use crate::eval::window::Window;
use crate::eval::{aggregate, histogram};
use crate::queryable::{FloatPoint, HistogramPoint};

/// A function of the floats in a window; histograms are ignored with a note.
pub(crate) fn of_floats(
    window: &Window<'_>,
    span: Span,
    notes: &mut Annotations,
    compute: impl FnOnce(&[FloatPoint]) -> f64,
) -> Option<Value> {
    if window.floats.is_empty() {
        return None;
    }
    note_ignored(window, span, notes);
    Some(Value::Float(compute(window.floats)))
}

/// Says that histograms of a mixed window are left out.
pub(crate) fn note_ignored(window: &Window<'_>, span: Span, notes: &mut Annotations) {
    if window.is_mixed() {
        let name = quoted(window.metric_name());
        notes.info(
            span,
            format!(
                "ignored histograms in a range containing both floats and histograms for metric \
                 name {name}"
            ),
        );
    }
}

/// `sum_over_time` and `avg_over_time`.
pub(crate) fn sum_or_mean(
    is_mean: bool,
    window: &Window<'_>,
    span: Span,
    notes: &mut Annotations,
) -> Option<Value> {
    if window.is_mixed() {
        notes.warn(span, mixed_message(window));
        return None;
    }
    if window.histograms.is_empty() {
        let values = window.floats.iter().map(|p| p.value);
        return Some(Value::Float(if is_mean {
            mean(values)
        } else {
            Sum::of(values)
        }));
    }
    let histograms = window.histograms.iter().map(|p| p.value.as_ref());
    let total = match is_mean {
        true => total::<Mean>(histograms),
        false => total::<Sum>(histograms),
    };
    let Some(total) = total else {
        notes.warn(span, layouts_message(window.metric_name()));
        return None;
    };
    if total.hints_collide {
        notes.warn(span, histogram::collision_message("aggregation"));
    }
    if total.reconciled {
        notes.info(span, histogram::reconciled_message("aggregation"));
    }
    Some(Value::Histogram(total.histogram.compact().into()))
}

pub(crate) fn min(points: &[FloatPoint]) -> f64 {
    extreme(points, |value, best| value < best).value
}

pub(crate) fn max(points: &[FloatPoint]) -> f64 {
    extreme(points, |value, best| value > best).value
}

/// The best of at least one point; anything that comes after a NaN beats it.
pub(crate) fn extreme(points: &[FloatPoint], better: impl Fn(f64, f64) -> bool) -> FloatPoint {
    let nothing = FloatPoint {
        start_ms: 0,
        t_ms: 0,
        value: f64::NAN,
    };
    let start = points.first().copied().unwrap_or(nothing);
    points.iter().fold(start, |best, point| {
        let wins = better(point.value, best.value) || best.value.is_nan();
        if wins { *point } else { best }
    })
}

/// The population variance, in one pass with compensation.
pub(crate) fn variance(points: &[FloatPoint]) -> f64 {
    let mut count = 0.0;
    let mut mean = Sum::default();
    let mut squares = Sum::default();
    for point in points {
        count += 1.0;
        let from_old = point.value - mean.value();
        mean.add(from_old / count);
        squares.add(from_old * (point.value - mean.value()));
    }
    squares.value() / count
}

/// The median distance from the median.
pub(crate) fn median_absolute_deviation(points: &[FloatPoint]) -> f64 {
    let values: Vec<f64> = points.iter().map(|p| p.value).collect();
    if values.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    let median = aggregate::quantile(0.5, values.clone());
    aggregate::quantile(
        0.5,
        values
            .into_iter()
            .map(|value| (value - median).abs())
            .collect(),
    )
}

/// The latest sample (or the earliest), of whichever type.
pub(crate) fn edge(window: &Window<'_>, latest: bool) -> Option<(i64, Value)> {
    let pick = |floats: Option<&FloatPoint>, histograms: Option<&HistogramPoint>| {
        let float = floats.map(|p| (p.t_ms, Value::Float(p.value)));
        let histogram = histograms.map(|p| (p.t_ms, Value::Histogram(p.value.clone())));
        match (float, histogram) {
            (Some(f), Some(h)) if (f.0 > h.0) == latest => Some(f),
            (Some(_), Some(h)) => Some(h),
            (f, h) => f.or(h),
        }
    };
    if latest {
        pick(window.floats.last(), window.histograms.last())
    } else {
        pick(window.floats.first(), window.histograms.first())
    }
}
