//! Reading selectors from the store.

use slogate_series::{Series, Value};

use crate::ast::{Call, Expr, ExprKind, VectorSelector};
use crate::eval::window::{RangeData, RangeSeries, WindowEnds};
use crate::eval::{Column, EvalError, Evaluated, Evaluator, Grid, meter};

impl Evaluator<'_> {
    /// Each series' newest sample in `(t - lookback, t]`, unless it is a staleness marker.
    pub(crate) fn instant_vector(
        &mut self,
        selector: &VectorSelector,
        grid: Grid,
    ) -> Result<Evaluated, EvalError> {
        self.newest(selector, grid, |sample_value, _| sample_value.clone())
    }

    /// As [`Evaluator::instant_vector`], with the samples' times in seconds as values.
    pub(crate) fn sample_times(
        &mut self,
        selector: &VectorSelector,
        grid: Grid,
    ) -> Result<Evaluated, EvalError> {
        self.newest(selector, grid, |_, t_ms| Value::Float(t_ms as f64 / 1000.0))
    }

    fn newest(
        &mut self,
        selector: &VectorSelector,
        grid: Grid,
        take: impl Fn(&Value, i64) -> Value,
    ) -> Result<Evaluated, EvalError> {
        let ends = self.window_ends(selector)?;
        let lookback_ms = self.engine.lookback_ms;
        let mut columns = Vec::new();
        for series in self.read(selector, ends, grid, lookback_ms)? {
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
                    column.set(step, take(&sample.value, sample.t_ms));
                }
            }
            if !column.is_empty() {
                columns.push(column);
            }
        }
        Ok(Evaluated::Vector(columns))
    }

    /// The samples of a range selector or subquery, for windows at every step.
    pub(crate) fn range_data(&mut self, expr: &Expr, grid: Grid) -> Result<RangeData, EvalError> {
        match &expr.unparenthesised().kind {
            ExprKind::Matrix(matrix) => {
                let range_ms = matrix.range.resolve_positive_ms(self.durations)?;
                let ends = self.window_ends(&matrix.selector)?;
                let series = self.read(&matrix.selector, ends, grid, range_ms)?;
                let series = series.into_iter().map(RangeSeries::from_series).collect();
                Ok(RangeData {
                    series,
                    range_ms,
                    ends,
                })
            }
            ExprKind::Subquery(subquery) => self.subquery(subquery, grid),
            _ => Err(EvalError::execution("expected a range vector")),
        }
    }

    fn window_ends(&self, selector: &VectorSelector) -> Result<WindowEnds, EvalError> {
        let offset_ms = match &selector.offset {
            Some(offset) => offset.resolve_ms(self.durations)?,
            None => 0,
        };
        Ok(WindowEnds {
            fixed_ms: self.fixed_time(selector.at),
            offset_ms,
        })
    }

    /// All samples in the left-open windows of `range_ms` that end at the grid's steps.
    fn read(
        &mut self,
        selector: &VectorSelector,
        ends: WindowEnds,
        grid: Grid,
        range_ms: i64,
    ) -> Result<Vec<Series>, EvalError> {
        let open_ms = ends.at(grid, 0).saturating_sub(range_ms);
        let end_ms = ends.at(grid, grid.steps.saturating_sub(1));
        let matchers = selector.all_matchers();
        let series = self
            .queryable
            .select(&matchers, open_ms.saturating_add(1), end_ms)?;
        let samples = series.iter().flat_map(|series| &series.samples);
        self.meter
            .hold(samples.map(|sample| meter::size(&sample.value)).sum())?;
        Ok(series)
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
