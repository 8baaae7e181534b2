//! `rate`, `increase` and `delta` of `anchored` and `smoothed` ranges.
//!
//! Nothing is extrapolated: the values at the borders of the range are taken from samples
//! beyond them, up to the lookback away. An anchored border has the value of the last sample
//! at or before it; a smoothed one lies on the line between its neighbours. Where only one
//! side has samples, the nearest one stands for the border.

use slogate_series::{Histogram, ResetHint, Value};

use crate::ast::{Extension, Span};
use crate::eval::annotation::Annotations;
use crate::eval::histogram;
use crate::eval::rate::{
    RateKind, added, layouts_message, not_counter_message, not_gauge_message, note_possible_gauge,
    noted, subtracted,
};
use crate::eval::window::Window;
use crate::queryable::{FloatPoint, HistogramPoint};

/// The change over the window, which is not mixed.
pub(super) fn change(
    kind: RateKind,
    window: &Window<'_>,
    span: Span,
    notes: &mut Annotations,
) -> Option<Value> {
    if window.histograms.is_empty() {
        let change = float_change(kind, window)?;
        if kind.is_counter {
            note_possible_gauge(kind, window, span, notes);
        }
        return Some(Value::Float(change));
    }
    let mut change = histogram_change(kind, window, span, notes)?;
    change.reset_hint = ResetHint::Gauge;
    Some(Value::Histogram(change.compact().into()))
}

/// The samples that count: from the last one at or before the start, else the first, to the
/// first one at or after the end, else the last; the range's borders, and how they are found.
struct Bracket<'a, P> {
    points: &'a [P],
    open_ms: i64,
    end_ms: i64,
    is_smoothed: bool,
}

/// `None` where no sample is inside or, smoothed, where all are after the range.
fn bracket<'a, P>(
    window: &Window<'_>,
    points: &'a [P],
    time: impl Fn(&P) -> i64,
) -> Option<Bracket<'a, P>> {
    let (open_ms, end_ms) = (window.open_ms(), window.end_ms);
    let is_smoothed = window.extension == Some(Extension::Smoothed);
    let before_last = points.get(..points.len().checked_sub(1)?)?;
    let after_open = before_last.partition_point(|p| time(p) <= open_ms);
    let first = after_open.saturating_sub(1);
    let last = match is_smoothed {
        true => before_last.partition_point(|p| time(p) < end_ms),
        false => before_last.len(),
    };
    let points = points.get(first..=last)?;
    let (first, last) = (points.first()?, points.last()?);
    if time(last) <= open_ms || is_smoothed && time(first) > end_ms {
        return None;
    }
    Some(Bracket {
        points,
        open_ms,
        end_ms,
        is_smoothed,
    })
}

fn float_change(kind: RateKind, window: &Window<'_>) -> Option<f64> {
    let bracket = bracket(window, window.floats, |p| p.t_ms)?;
    let (left, right) = float_borders(&bracket, kind.is_counter)?;
    let mut change = right - left;
    if kind.is_counter {
        let strictly_inside = |p: &&FloatPoint| p.t_ms > bracket.open_ms && p.t_ms < bracket.end_ms;
        let inside = bracket.points.iter().filter(strictly_inside);
        let mut before = left;
        for value in inside.map(|p| p.value).chain([right]) {
            if value < before {
                change += before;
            }
            before = value;
        }
    }
    Some(per_second(kind, window, change))
}

fn per_second(kind: RateKind, window: &Window<'_>, change: f64) -> f64 {
    match kind.per_second {
        true => change / (window.range_ms as f64 / 1000.0),
        false => change,
    }
}

/// The values at the start and at the end.
fn float_borders(bracket: &Bracket<'_, FloatPoint>, is_counter: bool) -> Option<(f64, f64)> {
    let (first, last) = (bracket.points.first()?, bracket.points.last()?);
    let left = match bracket.points {
        [before, after, ..] if bracket.is_smoothed && before.t_ms < bracket.open_ms => {
            interpolated(before, after, bracket.open_ms, is_counter)
        }
        _ => first.value,
    };
    let right = match bracket.points {
        [.., before, after] if bracket.is_smoothed && after.t_ms > bracket.end_ms => {
            interpolated(before, after, bracket.end_ms, is_counter)
        }
        _ => last.value,
    };
    Some((left, right))
}

/// The value between two samples. A counter that was reset between them grew from zero.
pub(crate) fn interpolated(
    before: &FloatPoint,
    after: &FloatPoint,
    t_ms: i64,
    is_counter: bool,
) -> f64 {
    let from = match is_counter && after.value < before.value {
        true => 0.0,
        false => before.value,
    };
    let (passed_ms, all_ms) = (
        t_ms.saturating_sub(before.t_ms),
        after.t_ms.saturating_sub(before.t_ms),
    );
    from + (after.value - from) * passed_ms as f64 / all_ms as f64
}

fn share(before_ms: i64, after_ms: i64, t_ms: i64) -> f64 {
    t_ms.saturating_sub(before_ms) as f64 / after_ms.saturating_sub(before_ms) as f64
}

/// The histogram between two samples; `None`, with a warning, where they have no common form.
pub(crate) fn interpolated_histogram(
    (before, after): (&HistogramPoint, &HistogramPoint),
    t_ms: i64,
    is_counter: bool,
    name: &str,
    span: Span,
    notes: &mut Annotations,
) -> Option<Histogram> {
    if t_ms == before.t_ms {
        return Some(before.value.as_ref().clone());
    }
    if t_ms == after.t_ms {
        return Some(after.value.as_ref().clone());
    }
    let share = share(before.t_ms, after.t_ms, t_ms);
    let (before, after) = (before.value.as_ref(), after.value.as_ref());
    if is_counter && histogram::is_reset_after(after, before) {
        return Some(after.scale(share));
    }
    let step = subtracted(after, before, name, span, notes)?.scale(share);
    added(&step, before, name, span, notes)
}

/// The values at the borders, and those inside: what a range selector alone gives.
pub(crate) fn with_borders(window: &Window<'_>) -> Vec<FloatPoint> {
    let borders = || {
        let bracket = bracket(window, window.floats, |p| p.t_ms)?;
        let (left, right) = float_borders(&bracket, false)?;
        let border = |t_ms: i64, value: f64| FloatPoint {
            t_ms,
            start_ms: 0,
            value,
        };
        let strictly_inside = |p: &&FloatPoint| p.t_ms > bracket.open_ms && p.t_ms < bracket.end_ms;
        let inside = bracket.points.iter().filter(strictly_inside).copied();
        let mut points = vec![border(bracket.open_ms, left)];
        points.extend(inside);
        points.push(border(bracket.end_ms, right));
        Some(points)
    };
    borders().unwrap_or_default()
}

fn histogram_change(
    kind: RateKind,
    window: &Window<'_>,
    span: Span,
    notes: &mut Annotations,
) -> Option<Histogram> {
    let bracket = bracket(window, window.histograms, |p| p.t_ms)?;
    let name = window.metric_name();
    note_hints(kind, bracket.points, name, span, notes)?;
    let (left, right) = histogram_borders(&bracket, kind.is_counter, name, span, notes)?;
    let gauges = [&left, &right].map(|h| h.reset_hint == ResetHint::Gauge);
    if !kind.is_counter && gauges.contains(&false) {
        notes.warn(span, not_gauge_message(name));
    }
    let mut change = noted(
        histogram::sub(&right, &left),
        "subtraction",
        name,
        span,
        notes,
    )?;
    if kind.is_counter {
        for lost in lost_at_resets(&bracket, &left, &right) {
            change = added(&change, lost, name, span, notes)?;
        }
    }
    Some(match kind.per_second {
        true => histogram::divide(&change, window.range_ms as f64 / 1000.0),
        false => change,
    })
}

/// Warns of gauges among counters; `None`, with a warning, where layouts can't be combined.
fn note_hints(
    kind: RateKind,
    points: &[HistogramPoint],
    name: &str,
    span: Span,
    notes: &mut Annotations,
) -> Option<()> {
    let custom = points.first()?.value.has_custom_bounds();
    for point in points {
        if point.value.has_custom_bounds() != custom {
            notes.warn(span, layouts_message(name));
            return None;
        }
        if kind.is_counter && point.value.reset_hint == ResetHint::Gauge {
            notes.warn(span, not_counter_message(name));
        }
    }
    Some(())
}

fn histogram_borders(
    bracket: &Bracket<'_, HistogramPoint>,
    is_counter: bool,
    name: &str,
    span: Span,
    notes: &mut Annotations,
) -> Option<(Histogram, Histogram)> {
    let (first, last) = (bracket.points.first()?, bracket.points.last()?);
    let left = match bracket.points {
        [before, after, ..] if bracket.is_smoothed && before.t_ms < bracket.open_ms => {
            let (pair, at_ms) = ((before, after), bracket.open_ms);
            interpolated_histogram(pair, at_ms, is_counter, name, span, notes)?
        }
        _ => first.value.as_ref().clone(),
    };
    let right = match bracket.points {
        [.., before, after] if bracket.is_smoothed && after.t_ms > bracket.end_ms => {
            let (pair, at_ms) = ((before, after), bracket.end_ms);
            interpolated_histogram(pair, at_ms, is_counter, name, span, notes)?
        }
        _ => last.value.as_ref().clone(),
    };
    Some((left, right))
}

/// The counts that resets threw away. A reset that the left border was interpolated across is
/// in its value already; the last sample is there as the right border.
fn lost_at_resets<'a>(
    bracket: &Bracket<'a, HistogramPoint>,
    left: &'a Histogram,
    right: &'a Histogram,
) -> Vec<&'a Histogram> {
    let mut before = left;
    let mut from = 1;
    if let [first, second, ..] = bracket.points
        && bracket.is_smoothed
        && first.t_ms < bracket.open_ms
        && histogram::is_reset_after(&second.value, &first.value)
    {
        before = &second.value;
        from = 2;
    }
    let to = bracket.points.len().saturating_sub(1);
    if from > to {
        return Vec::new();
    }
    let inner = bracket.points.get(from..to).unwrap_or_default();
    let mut lost = Vec::new();
    for now in inner.iter().map(|p| p.value.as_ref()).chain([right]) {
        if histogram::is_reset_after(now, before) {
            lost.push(before);
        }
        before = now;
    }
    lost
}
