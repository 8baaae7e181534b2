//! `rate`, `increase`, `delta`, `irate`, `idelta`, `resets`, `changes`.
//!
//! The first three extrapolate: samples rarely lie on the window's borders, so the change
//! between the first and the last is stretched to the whole window, unless the series
//! seems to begin or end inside it. Source: Prometheus `promql/functions.go`,
//! `extrapolatedRate`.

pub(crate) mod extended;

use slogate_series::{Histogram, ResetHint, Value};

use crate::ast::{Extension, Span};
use crate::eval::annotation::Annotations;
use crate::eval::histogram::{self, Combined};
use crate::eval::text::quoted;
use crate::eval::window::Window;
use crate::queryable::{FloatPoint, HistogramPoint};

/// What an extrapolating function computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateKind {
    /// Whether samples are counters: drops are resets, and nothing was counted below zero.
    pub(crate) is_counter: bool,
    /// Whether the result is per second.
    pub(crate) per_second: bool,
    /// Whether the samples' start times tell of resets and of where a series began.
    pub(crate) uses_start: bool,
    /// Whether the type label, and not the name, says what is a counter.
    pub(crate) by_type: bool,
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
    if window.extension.is_some() {
        return extended::change(kind, window, span, notes);
    }
    if window.histograms.is_empty() {
        return float_change(kind, window, span, notes).map(Value::Float);
    }
    histogram_change(kind, window, span, notes)
}

/// That a window has both floats and histograms.
pub(crate) fn mixed_message(window: &Window<'_>) -> String {
    let name = quoted(window.metric_name());
    format!("encountered a mix of histograms and floats for metric name {name}")
}

/// That histograms with exponential and with custom buckets meet.
pub(crate) fn layouts_message(name: &str) -> String {
    let name = quoted(name);
    format!(
        "vector contains a mix of histograms with exponential and custom buckets schemas for \
         metric name {name}"
    )
}

/// That a gauge is used as a counter.
fn not_counter_message(name: &str) -> String {
    let name = quoted(name);
    format!("this native histogram metric is not a counter: {name}")
}

/// That a counter is used as a gauge.
fn not_gauge_message(name: &str) -> String {
    let name = quoted(name);
    format!("this native histogram metric is not a gauge: {name}")
}

fn float_change(
    kind: RateKind,
    window: &Window<'_>,
    span: Span,
    notes: &mut Annotations,
) -> Option<f64> {
    let points = window.floats;
    let (first, last) = (points.first()?, points.last()?);
    let began_ms = kind.began_ms(window, first.t_ms, first.start_ms);
    if points.len() < 2 && began_ms.is_none() {
        return None;
    }
    if kind.is_counter {
        note_possible_gauge(kind, window, span, notes);
    }
    if kind.uses_start {
        let times = points.iter().map(|p| (p.t_ms, p.start_ms));
        note_overlap(times, window, span, notes);
    }
    let mut change = last.value - first.value;
    if kind.is_counter {
        for at in window.float_resets() {
            let before = at.checked_sub(1).and_then(|at| points.get(at));
            change += before.map_or(0.0, |before| before.value);
        }
    }
    if began_ms.is_some() {
        change += first.value;
    }
    let edges = Edges {
        began_ms,
        first_ms: first.t_ms,
        last_ms: last.t_ms,
        samples: points.len(),
    };
    let start_value = (kind.is_counter && first.value >= 0.0).then_some(first.value);
    Some(change * edges.factor(kind, window, start_value, change))
}

const TYPE_LABEL: &str = "__type__";

const COUNTER_SUFFIXES: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];

/// Says that a metric may be no counter, by its name or by its type.
fn note_possible_gauge(kind: RateKind, window: &Window<'_>, span: Span, notes: &mut Annotations) {
    let name = window.metric_name();
    if kind.by_type {
        let ty = window.labels.get(TYPE_LABEL).unwrap_or_default();
        if !name.is_empty() && !matches!(ty, "counter" | "histogram") {
            let message = format!(
                "metric might not be a counter, __type__ label is not set to \"counter\" or \
                 \"histogram\", got {}: {}",
                quoted(ty),
                quoted(name)
            );
            notes.info(span, message);
        }
        return;
    }
    if !name.is_empty() && !COUNTER_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
        notes.info_about(
            span,
            "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:",
            name,
        );
    }
}

/// A sample's own time and when its count began.
trait Timed {
    fn times(&self) -> (i64, i64);
}

impl Timed for FloatPoint {
    fn times(&self) -> (i64, i64) {
        (self.t_ms, self.start_ms)
    }
}

impl Timed for HistogramPoint {
    fn times(&self) -> (i64, i64) {
        (self.t_ms, self.start_ms)
    }
}

/// Whether the start times say that the count began anew between two samples. It did where
/// the later one began after the earlier sample. Where it began exactly then, it is either a
/// delta, which begins anew with each sample, or a count whose true start is not known; the
/// earlier sample's own start tells them apart.
fn is_restarted(before: &impl Timed, now: &impl Timed) -> bool {
    let ((before_ms, before_start_ms), (now_ms, start_ms)) = (before.times(), now.times());
    if start_ms == 0 || start_ms >= now_ms || start_ms < before_ms {
        return false;
    }
    start_ms > before_ms || before_start_ms != 0 && before_start_ms < before_ms
}

/// Whether a counter started anew between two samples.
pub(crate) fn is_float_reset(before: &FloatPoint, now: &FloatPoint, uses_start: bool) -> bool {
    now.value < before.value || uses_start && is_restarted(before, now)
}

/// As [`is_float_reset`], for histograms.
pub(crate) fn is_histogram_reset(
    before: &HistogramPoint,
    now: &HistogramPoint,
    uses_start: bool,
) -> bool {
    uses_start && is_restarted(before, now) || histogram::is_reset_after(&now.value, &before.value)
}

/// Warns, once for a window, of a count that began anew before the sample before it.
fn note_overlap(
    times: impl Iterator<Item = (i64, i64)>,
    window: &Window<'_>,
    span: Span,
    notes: &mut Annotations,
) {
    let mut before: Option<(i64, i64)> = None;
    for (t_ms, start_ms) in times {
        if let Some((before_ms, before_start_ms)) = before.replace((t_ms, start_ms))
            && start_ms != 0
            && start_ms < before_ms
            && start_ms != before_start_ms
        {
            let name = quoted(window.metric_name());
            let message = format!(
                "sample has start time that overlaps with previous sample timestamp for metric \
                 {name}"
            );
            notes.warn_counted(span, message);
            return;
        }
    }
}

impl RateKind {
    /// When the series began, where that is known to be inside the window.
    fn began_ms(&self, window: &Window<'_>, first_ms: i64, start_ms: i64) -> Option<i64> {
        let inside = start_ms != 0 && start_ms > window.open_ms() && start_ms < first_ms;
        (self.uses_start && self.is_counter && inside).then_some(start_ms)
    }
}

/// The first and the last sample of a window, and how many there are.
struct Edges {
    /// When the series began with zero, where that is known.
    began_ms: Option<i64>,
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
        let seconds = |from: i64, to: i64| to.saturating_sub(from) as f64 / 1000.0;
        let mut sampled = seconds(self.first_ms, self.last_ms);
        // One sample alone has no neighbour to tell how far the series goes on.
        let between_samples = match self.samples {
            ..2 => 0.0,
            samples => sampled / (samples - 1) as f64,
        };
        let threshold = between_samples * 1.1;
        let mut to_start = seconds(window.open_ms(), self.first_ms);
        let mut to_end = seconds(self.last_ms, window.end_ms);
        if let Some(began_ms) = self.began_ms {
            to_start = 0.0;
            sampled = seconds(began_ms, self.last_ms);
        } else {
            if to_start >= threshold {
                to_start = between_samples / 2.0;
            }
            if let Some(start_value) = start_value.filter(|_| change > 0.0) {
                // A counter can't have started below zero: don't reach back further.
                to_start = to_start.min(sampled * (start_value / change));
            }
        }
        if to_end >= threshold {
            to_end = between_samples / 2.0;
        }
        let mut factor = 1.0;
        if sampled != 0.0 {
            factor = (sampled + to_start + to_end) / sampled;
        }
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
    let began_ms = kind.began_ms(window, first.t_ms, first.start_ms);
    let mut change = match (points.len(), began_ms) {
        (1, None) => return None,
        (1, Some(_)) => first.value.as_ref().clone(),
        _ => counted_change(kind, window, points, span, notes)?,
    };
    if began_ms.is_some() && points.len() > 1 {
        change = added(&change, &first.value, window.metric_name(), span, notes)?;
    }
    let edges = Edges {
        began_ms,
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

/// `a + b`, said where bounds had to be reconciled; `None`, with a warning, where the two
/// can't be added.
fn added(
    a: &Histogram,
    b: &Histogram,
    name: &str,
    span: Span,
    notes: &mut Annotations,
) -> Option<Histogram> {
    noted(histogram::add(a, b), "addition", name, span, notes)
}

/// As [`added`], `a - b`.
fn subtracted(
    a: &Histogram,
    b: &Histogram,
    name: &str,
    span: Span,
    notes: &mut Annotations,
) -> Option<Histogram> {
    noted(histogram::sub(a, b), "subtraction", name, span, notes)
}

fn noted(
    combined: Option<Combined>,
    operation: &str,
    name: &str,
    span: Span,
    notes: &mut Annotations,
) -> Option<Histogram> {
    let Some(combined) = combined else {
        notes.warn(span, layouts_message(name));
        return None;
    };
    if combined.reconciled {
        notes.info(span, histogram::reconciled_message(operation));
    }
    Some(combined.histogram)
}

/// Last minus first, plus what was lost at each reset.
fn counted_change(
    kind: RateKind,
    window: &Window<'_>,
    points: &[HistogramPoint],
    span: Span,
    notes: &mut Annotations,
) -> Option<Histogram> {
    let (first, last) = (points.first()?, points.last()?);
    let name = window.metric_name();
    let is_gauge = |p: &HistogramPoint| p.value.reset_hint == ResetHint::Gauge;
    if kind.is_counter && points.iter().any(is_gauge) {
        notes.warn(span, not_counter_message(name));
    }
    let ends_are_gauges = is_gauge(first) && is_gauge(last);
    if !kind.is_counter && !ends_are_gauges {
        notes.warn(span, not_gauge_message(name));
    }
    if kind.uses_start {
        let times = points.iter().map(|p| (p.t_ms, p.start_ms));
        note_overlap(times, window, span, notes);
    }
    // A first sample from before a reset counts for nothing, whatever its buckets are.
    let skip_first = kind.is_counter && window.histogram_resets().next() == Some(1);
    let counted = points.get(usize::from(skip_first)..)?;
    // What a gauge was in between does not matter.
    let matters = |at: usize| kind.is_counter || at == 0 || at + 1 == counted.len();
    let mattering = || {
        let indexed = counted.iter().enumerate();
        indexed.filter(|(at, _)| matters(*at)).map(|(_, p)| p)
    };
    let custom = last.value.has_custom_bounds();
    if mattering().any(|p| p.value.has_custom_bounds() != custom) {
        notes.warn(span, layouts_message(name));
        return None;
    }
    let coarsest = mattering().map(|p| p.value.schema).min()?;
    let mut change = last.value.at_schema(coarsest);
    if !skip_first {
        change = subtracted(&change, &first.value, name, span, notes)?;
    }
    if kind.is_counter {
        for at in window.histogram_resets().skip(usize::from(skip_first)) {
            let before = points.get(at.checked_sub(1)?)?;
            change = added(&change, &before.value, name, span, notes)?;
        }
    }
    Some(change)
}

/// The change between the last two samples: per second for `irate`, as it is for `idelta`.
pub(crate) fn instantaneous(
    is_rate: bool,
    uses_start: bool,
    window: &Window<'_>,
    span: Span,
    notes: &mut Annotations,
) -> Option<Value> {
    let mut latest = in_order(window, 2);
    let (now, before) = (latest.pop()?, latest.pop()?);
    let interval_ms = now.times().0.saturating_sub(before.times().0);
    if interval_ms == 0 {
        return None;
    }
    let restarted = is_rate && uses_start && is_restarted(&before, &now);
    let seconds = interval_ms as f64 / 1000.0;
    match (before, now) {
        (Point::Float(before), Point::Float(now)) => {
            let change = if is_rate && (now.value < before.value || restarted) {
                now.value
            } else {
                now.value - before.value
            };
            Some(Value::Float(if is_rate {
                change / seconds
            } else {
                change
            }))
        }
        (Point::Histogram(before), Point::Histogram(now)) => {
            let change = histogram_step(is_rate, restarted, before, now, window, span, notes)?;
            let change = match is_rate {
                true => histogram::divide(&change, seconds),
                false => change,
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
    restarted: bool,
    before: &HistogramPoint,
    now: &HistogramPoint,
    window: &Window<'_>,
    span: Span,
    notes: &mut Annotations,
) -> Option<Histogram> {
    let name = window.metric_name();
    let (before, now) = (&before.value, &now.value);
    let gauges = [before, now].map(|h| h.reset_hint == ResetHint::Gauge);
    if is_rate && gauges.contains(&true) {
        notes.warn(span, not_counter_message(name));
    }
    if !is_rate && gauges.contains(&false) {
        notes.warn(span, not_gauge_message(name));
    }
    let mut change = if is_rate && (restarted || histogram::is_reset_after(now, before)) {
        now.as_ref().clone()
    } else {
        subtracted(now, before, name, span, notes)?
    };
    change.reset_hint = ResetHint::Gauge;
    Some(change)
}

/// A sample of either type.
#[derive(Clone, Copy)]
enum Point<'a> {
    Float(&'a FloatPoint),
    Histogram(&'a HistogramPoint),
}

impl Timed for Point<'_> {
    fn times(&self) -> (i64, i64) {
        match self {
            Point::Float(p) => p.times(),
            Point::Histogram(p) => p.times(),
        }
    }
}

/// The samples of both types in order of time; of each type at most the last `count`.
fn in_order<'a>(window: &Window<'a>, count: usize) -> Vec<Point<'a>> {
    let (floats, histograms) = (window.floats, window.histograms);
    let floats = floats.get(floats.len().saturating_sub(count)..);
    let histograms = histograms.get(histograms.len().saturating_sub(count)..);
    let floats = floats.unwrap_or_default().iter().map(Point::Float);
    let histograms = histograms.unwrap_or_default().iter().map(Point::Histogram);
    let mut all: Vec<Point<'a>> = floats.chain(histograms).collect();
    if window.is_mixed() {
        all.sort_by_key(|point| point.times().0);
    }
    all
}

/// How often a counter started anew; `None` where there is nothing to compare. A change of
/// sample type is a reset.
pub(crate) fn resets(window: &Window<'_>, uses_start: bool) -> Option<f64> {
    if !window.is_mixed() && window.extension.is_none() {
        return Some((window.float_resets().count() + window.histogram_resets().count()) as f64);
    }
    count_steps(window, |before, now| match (before, now) {
        (Point::Float(before), Point::Float(now)) => is_float_reset(before, now, uses_start),
        (Point::Histogram(before), Point::Histogram(now)) => {
            is_histogram_reset(before, now, uses_start)
        }
        _ => true,
    })
}

/// How often the value changed; `None` where there is nothing to compare. NaN after NaN is
/// no change.
pub(crate) fn changes(window: &Window<'_>) -> Option<f64> {
    count_steps(window, |before, now| match (before, now) {
        (Point::Float(before), Point::Float(now)) => {
            now.value != before.value && !(now.value.is_nan() && before.value.is_nan())
        }
        (Point::Histogram(before), Point::Histogram(now)) => {
            !histogram::same_counts(&before.value, &now.value)
        }
        _ => true,
    })
}

fn count_steps(window: &Window<'_>, differs: impl Fn(Point<'_>, Point<'_>) -> bool) -> Option<f64> {
    let all = in_order(window, usize::MAX);
    let mut from = 0;
    if window.extension == Some(Extension::Anchored) {
        // Of what lies before the range only the last sample counts.
        let inside = all.partition_point(|point| point.times().0 <= window.open_ms());
        if inside == all.len() {
            return None;
        }
        from = inside.saturating_sub(1);
    }
    let pairs = all.get(from..).unwrap_or_default().windows(2);
    let steps = pairs.filter(|pair| match pair {
        [before, now] => differs(*before, *now),
        _ => false,
    });
    Some(steps.count() as f64)
}
