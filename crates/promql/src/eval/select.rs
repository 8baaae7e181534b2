//! Reading selectors from the store.

use slogate_series::{Histogram, Matcher, ResetHint, Sample, Series, Value};

use crate::ast::{AtModifier, Call, Expr, ExprKind, Extension, Span, VectorSelector};
use crate::duration::DurationExpr;
use crate::eval::annotation::Annotations;
use crate::eval::rate::{extended, layouts_message, mixed_message};
use crate::eval::window::{HistogramPoint, RangeData, RangeSeries, Reach, Window, WindowEnds};
use crate::eval::{Column, EvalError, Evaluated, Evaluator, Grid, histogram, meter};

impl Evaluator<'_> {
    /// Each series' newest sample in `(t - lookback, t]`, unless it is a staleness marker; for
    /// a smoothed selector the value between its neighbours.
    pub(crate) fn instant_vector(
        &mut self,
        selector: &VectorSelector,
        span: Span,
        grid: Grid,
    ) -> Result<Evaluated, EvalError> {
        let columns = match selector.extension {
            Some(Extension::Smoothed) => self.smoothed(selector, span, grid)?,
            _ => self.newest(selector, grid, |sample| sample.value.clone())?,
        };
        Ok(Evaluated::Vector(columns))
    }

    /// For each series `take` of its newest sample in `(t - lookback, t]`.
    pub(crate) fn newest(
        &mut self,
        selector: &VectorSelector,
        grid: Grid,
        take: impl Fn(&Sample) -> Value,
    ) -> Result<Vec<Column>, EvalError> {
        let ends = self.window_ends(selector)?;
        let lookback_ms = self.engine.lookback_ms;
        let series = self.read(&selector.all_matchers(), ends, grid, (lookback_ms, 0))?;
        self.newest_of(series, ends, grid, take)
    }

    /// As [`Evaluator::newest`], of series that were read already.
    pub(crate) fn newest_of(
        &mut self,
        series: Vec<Series>,
        ends: WindowEnds,
        grid: Grid,
        take: impl Fn(&Sample) -> Value,
    ) -> Result<Vec<Column>, EvalError> {
        let lookback_ms = self.engine.lookback_ms;
        let mut columns = Vec::new();
        for series in series {
            self.meter.check()?;
            let mut column = Column::empty(series.labels, false, grid.steps);
            let mut past = 0;
            for step in 0..grid.steps {
                let end_ms = ends.at(grid, step);
                while series.samples.get(past).is_some_and(|s| s.t_ms <= end_ms) {
                    past += 1;
                }
                let newest = past.checked_sub(1).and_then(|at| series.samples.get(at));
                let current = newest.filter(|sample| {
                    sample.t_ms > end_ms.saturating_sub(lookback_ms) && !sample.value.is_stale()
                });
                if let Some(sample) = current {
                    self.meter.look_at(meter::size(&sample.value));
                    column.set(step, take(sample));
                }
            }
            if !column.is_empty() {
                columns.push(column);
            }
        }
        Ok(columns)
    }

    /// For each series the value on the line between the samples before and after the step,
    /// each at most the lookback away; with none after it the last one's.
    fn smoothed(
        &mut self,
        selector: &VectorSelector,
        span: Span,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let lookback_ms = self.engine.lookback_ms;
        let reach = Reach {
            extension: Extension::Smoothed,
            lookback_ms,
        };
        let ends = self.window_ends(selector)?;
        let series = self.read(&selector.all_matchers(), ends, grid, reach.beyond_ms())?;
        let data = RangeData {
            series: series.into_iter().map(RangeSeries::from_series).collect(),
            // A range of nothing, and the lookback on both its sides.
            range_ms: 0,
            ends,
            reach: Some(reach),
        };
        let notes = &mut self.annotations;
        data.map(grid, &mut self.meter, |window, _| {
            if window.is_mixed() {
                notes.warn(span, mixed_message(window));
                return None;
            }
            match window.histograms {
                [] => smoothed_float(window).map(Value::Float),
                _ => smoothed_histogram(window, span, notes).map(|h| Value::Histogram(h.into())),
            }
        })
    }

    /// The samples of a range selector or subquery, for windows at every step.
    pub(crate) fn range_data(&mut self, expr: &Expr, grid: Grid) -> Result<RangeData, EvalError> {
        match &expr.unparenthesised().kind {
            ExprKind::Matrix(matrix) => {
                let range_ms = matrix.range.resolve_positive_ms(self.durations)?;
                let ends = self.window_ends(&matrix.selector)?;
                let reach = matrix.selector.extension.map(|extension| Reach {
                    extension,
                    lookback_ms: self.engine.lookback_ms,
                });
                let (before_ms, after_ms) = reach.map_or((0, 0), Reach::beyond_ms);
                let reads = (range_ms.saturating_add(before_ms), after_ms);
                let series = self.read(&matrix.selector.all_matchers(), ends, grid, reads)?;
                let series = series.into_iter().map(RangeSeries::from_series).collect();
                Ok(RangeData {
                    series,
                    range_ms,
                    ends,
                    reach,
                })
            }
            ExprKind::Subquery(subquery) => self.subquery(subquery, grid),
            _ => Err(EvalError::execution("expected a range vector")),
        }
    }

    fn window_ends(&self, selector: &VectorSelector) -> Result<WindowEnds, EvalError> {
        self.ends_of(selector.offset.as_ref(), selector.at)
    }

    /// What an offset and an `@` make of the grid's steps.
    pub(crate) fn ends_of(
        &self,
        offset: Option<&DurationExpr>,
        at: Option<AtModifier>,
    ) -> Result<WindowEnds, EvalError> {
        let offset_ms = match offset {
            Some(offset) => offset.resolve_ms(self.durations)?,
            None => 0,
        };
        Ok(WindowEnds {
            fixed_ms: self.fixed_time(at),
            offset_ms,
        })
    }

    /// All samples in the left-open windows from `before_ms` before each of the grid's steps to
    /// `after_ms` after it.
    pub(crate) fn read(
        &mut self,
        matchers: &[Matcher],
        ends: WindowEnds,
        grid: Grid,
        (before_ms, after_ms): (i64, i64),
    ) -> Result<Vec<Series>, EvalError> {
        let open_ms = ends.at(grid, 0).saturating_sub(before_ms);
        let last_ms = ends.at(grid, grid.steps.saturating_sub(1));
        let end_ms = last_ms.saturating_add(after_ms);
        let mut series = self
            .queryable
            .select(matchers, open_ms.saturating_add(1), end_ms)?;
        if self.needs.only_totals() {
            series
                .iter_mut()
                .for_each(|one| histogram::keep_totals(&mut one.samples));
        }
        let samples = series.iter().flat_map(|series| &series.samples);
        self.meter
            .hold(samples.map(|sample| meter::size(&sample.value)).sum())?;
        Ok(series)
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

    fn only_totals(self) -> bool {
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
        _ => expr.children().into_iter().all(is_step_invariant),
    }
}
