//! The evaluator: a tree, a store and a time to a value.
//!
//! Everything is computed over a [`Grid`] of steps: an instant query has one step, a range
//! query and the inside of a subquery have many. A vector is a list of [`Column`]s, one per
//! series, with one optional value per step. So each selector reads the store once,
//! whatever the number of steps, a window slides over its samples instead of being cut
//! anew, and labels are worked out once per series instead of once per step.
//!
//! Where series don't need each other, they flow one by one (`stream`): an aggregation
//! over a function of a selector holds one series' samples and a few numbers per group.
//!
//! Policy:
//! - No data is an empty vector, never zero and never an error.
//! - A series with a staleness marker as its newest sample is absent; markers never reach
//!   a result.
//! - What can't be computed for one series (a mix of floats and histograms, incompatible
//!   buckets) leaves that element out and is said in an [`Annotation`]; what is ambiguous
//!   (two series for one match) fails the whole query, as in Prometheus.
//! - Parts that don't depend on the step (`x @ 5`) are computed once.
//! - The number of samples held at any moment is bounded by the engine's sample limit.

mod aggregate;
mod annotation;
mod binary;
mod bucket;
mod call;
mod column;
mod date;
mod elementwise;
mod fold;
mod groups;
mod histogram;
mod histogram_functions;
mod histogram_sum;
mod info;
mod label_functions;
mod meter;
mod over_time;
mod plan;
mod range_function;
mod rank;
mod rate;
mod ratio;
mod regression;
mod select;
mod stream;
mod sum;
mod text;
mod window;

use slogate_series::{Labels, Sample, Series, Value};

use crate::ast::{AtModifier, Expr, ExprKind, StringLiteral, Subquery, Unary, ValueType};
use crate::duration::{DurationContext, DurationError};
use crate::error::ParseError;
use crate::interrupt::Interrupt;
use crate::parser::{ParseOptions, parse_with};
use crate::queryable::{Queryable, QueryableError};

use annotation::Annotations;
pub use annotation::{Annotation, AnnotationLevel};
pub(crate) use column::{Column, Grid, merge_same_labels};
use meter::Meter;
pub use meter::QueryStats;
use plan::Plan;
use select::HistogramNeeds;

/// How queries are evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// How far back a sample may lie and still be the current one, in milliseconds.
    pub lookback_ms: i64,
    /// The step of subqueries that name none, in milliseconds.
    pub subquery_step_ms: i64,
    /// How many samples a query may hold at a time.
    pub samples_max: usize,
    /// How many steps a range query or subquery may have.
    pub steps_max: usize,
    /// Whether metric names are dropped at the end of the query instead of by each
    /// operation; a feature flag in Prometheus, off by default.
    pub delayed_name_removal: bool,
    /// Whether `rate`, `irate`, `increase` and `resets` use the start times of samples; a
    /// feature flag in Prometheus, off by default.
    pub use_start_timestamps: bool,
    /// Whether a metric's label `__type__`, and not its name, says if it is a counter; a
    /// feature flag in Prometheus, off by default.
    pub type_and_unit_labels: bool,
    /// What the parser accepts.
    pub parse_options: ParseOptions,
}

impl Default for Engine {
    /// Prometheus's defaults: 5 minutes, 1 minute, 50 million samples, no feature flags.
    fn default() -> Self {
        Engine {
            lookback_ms: 300_000,
            subquery_step_ms: 60_000,
            samples_max: 50_000_000,
            steps_max: 1_000_000,
            delayed_name_removal: false,
            use_start_timestamps: false,
            type_and_unit_labels: false,
            parse_options: ParseOptions::default(),
        }
    }
}

/// One element of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct InstantSample {
    /// What names the element.
    pub labels: Labels,
    /// Its value at the query's time.
    pub value: Value,
}

/// The value of a query.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryValue {
    /// A number.
    Scalar(f64),
    /// A text.
    String(String),
    /// Elements in the engine's order, which `sort` and `topk` determine.
    Vector(Vec<InstantSample>),
    /// Series sorted by labels.
    Matrix(Vec<Series>),
}

/// What a query gave.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryResult {
    /// The value.
    pub value: QueryValue,
    /// What the asker should know about it, each thing once.
    pub annotations: Vec<Annotation>,
    /// What it took.
    pub stats: QueryStats,
}

/// Why a query gave nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// The text is not a query.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The store could not answer.
    #[error("reading series: {0}")]
    Queryable(#[from] QueryableError),
    /// A range, step or offset has no usable value.
    #[error("{0}")]
    Duration(#[from] DurationError),
    /// The query holds more samples than the engine allows.
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    /// Nobody wanted the result any more.
    #[error("query was canceled in expression evaluation")]
    Canceled,
    /// The query's time was over.
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// The range query or subquery has more steps than the engine allows.
    #[error("query has {steps} steps; expected at most {max}: use a larger step")]
    TooManySteps {
        /// The steps it has.
        steps: usize,
        /// The engine's limit.
        max: usize,
    },
    /// A range query of a range vector or a string.
    #[error("invalid expression type \"{got}\" for range query, must be Scalar or instant Vector")]
    RangeType {
        /// The documented name of the type.
        got: &'static str,
    },
    /// A range query that ends before it starts, or has no positive step.
    #[error("range query needs a positive step and an end not before its start")]
    InvalidRange,
    /// The query is ambiguous on this data, or a parameter is of no use.
    #[error("{0}")]
    Execution(String),
}

impl EvalError {
    pub(crate) fn execution(message: impl Into<String>) -> Self {
        EvalError::Execution(message.into())
    }
}

/// What can be evaluated: a tree, or the text of one.
pub trait Query {
    /// The tree.
    ///
    /// # Errors
    /// When the text is not a query.
    fn to_expr(&self, options: ParseOptions) -> Result<std::borrow::Cow<'_, Expr>, ParseError>;
}

impl Query for Expr {
    fn to_expr(&self, _: ParseOptions) -> Result<std::borrow::Cow<'_, Expr>, ParseError> {
        Ok(std::borrow::Cow::Borrowed(self))
    }
}

impl Query for str {
    fn to_expr(&self, options: ParseOptions) -> Result<std::borrow::Cow<'_, Expr>, ParseError> {
        parse_with(self, options).map(std::borrow::Cow::Owned)
    }
}

impl Engine {
    /// Evaluates `query` at `at_ms`, milliseconds since the Unix epoch.
    ///
    /// A range selector or subquery at the top gives the samples in its range, as stored:
    /// counters raw, native histograms included, staleness markers left out.
    ///
    /// # Errors
    /// See [`EvalError`].
    pub fn instant<Q: Query + ?Sized>(
        &self,
        query: &Q,
        queryable: &dyn Queryable,
        at_ms: i64,
    ) -> Result<QueryResult, EvalError> {
        self.instant_with(query, queryable, at_ms, &Interrupt::new())
    }

    /// As [`Engine::instant`], ending early when `interrupt` is raised.
    ///
    /// # Errors
    /// See [`EvalError`].
    pub fn instant_with<Q: Query + ?Sized>(
        &self,
        query: &Q,
        queryable: &dyn Queryable,
        at_ms: i64,
        interrupt: &Interrupt,
    ) -> Result<QueryResult, EvalError> {
        let expr = query.to_expr(self.parse_options)?;
        let grid = Grid::instant(at_ms);
        let durations = DurationContext::default();
        let mut evaluator = Evaluator::new(self, queryable, grid, durations, interrupt);
        evaluator.make_plan(&expr, grid);
        let value = match expr.value_type() {
            ValueType::Matrix => QueryValue::Matrix(evaluator.top_matrix(&expr, grid)?),
            _ => evaluator.top_instant(&expr, grid)?,
        };
        Ok(evaluator.finish(value))
    }

    /// Evaluates `query` at `start_ms`, `start_ms + step_ms`, … up to `end_ms`. The result
    /// is always a matrix; a scalar becomes one series without labels.
    ///
    /// # Errors
    /// See [`EvalError`].
    pub fn range<Q: Query + ?Sized>(
        &self,
        query: &Q,
        queryable: &dyn Queryable,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<QueryResult, EvalError> {
        let interrupt = Interrupt::new();
        self.range_with(query, queryable, start_ms, end_ms, step_ms, &interrupt)
    }

    /// As [`Engine::range`], ending early when `interrupt` is raised.
    ///
    /// # Errors
    /// See [`EvalError`].
    pub fn range_with<Q: Query + ?Sized>(
        &self,
        query: &Q,
        queryable: &dyn Queryable,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
        interrupt: &Interrupt,
    ) -> Result<QueryResult, EvalError> {
        let expr = query.to_expr(self.parse_options)?;
        if step_ms <= 0 || end_ms < start_ms {
            return Err(EvalError::InvalidRange);
        }
        let got = expr.value_type();
        if !matches!(got, ValueType::Scalar | ValueType::Vector) {
            return Err(EvalError::RangeType {
                got: got.documented(),
            });
        }
        let grid = self.grid(start_ms, end_ms, step_ms)?;
        let range_ms = end_ms.saturating_sub(start_ms);
        let context = DurationContext { step_ms, range_ms };
        let mut evaluator = Evaluator::new(self, queryable, grid, context, interrupt);
        evaluator.query_end_ms = end_ms;
        evaluator.make_plan(&expr, grid);
        let columns = match evaluator.eval(&expr, grid)? {
            Evaluated::Vector(columns) => column::drop_flagged_names(columns)?,
            Evaluated::Scalar(values) => vec![Column::from_scalar(&values)],
            Evaluated::String(_) => Vec::new(),
        };
        let value = QueryValue::Matrix(to_series(columns, grid));
        Ok(evaluator.finish(value))
    }

    fn grid(&self, start_ms: i64, end_ms: i64, step_ms: i64) -> Result<Grid, EvalError> {
        let steps = (i128::from(end_ms) - i128::from(start_ms)) / i128::from(step_ms.max(1)) + 1;
        let steps = usize::try_from(steps.max(0)).unwrap_or(usize::MAX);
        if steps > self.steps_max {
            return Err(EvalError::TooManySteps {
                steps,
                max: self.steps_max,
            });
        }
        Ok(Grid {
            start_ms,
            step_ms,
            steps,
        })
    }
}

fn to_series(columns: Vec<Column>, grid: Grid) -> Vec<Series> {
    let mut series: Vec<Series> = columns
        .into_iter()
        .map(|column| {
            let at = |(step, value): (usize, Option<Value>)| {
                value.map(|value| Sample {
                    t_ms: grid.time_ms(step),
                    start_ms: 0,
                    value,
                })
            };
            let samples = column
                .values
                .into_iter()
                .enumerate()
                .filter_map(at)
                .collect();
            Series {
                labels: column.labels,
                samples,
            }
        })
        .filter(|series| !series.samples.is_empty())
        .collect();
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series
}

/// A computed expression that is no range vector.
pub(crate) enum Evaluated {
    /// One number per step.
    Scalar(Vec<f64>),
    String(StringLiteral),
    Vector(Vec<Column>),
}

impl Evaluated {
    /// The samples it holds; a histogram counts as several, by its size.
    fn samples(&self) -> usize {
        match self {
            Evaluated::Scalar(values) => values.len(),
            Evaluated::String(_) => 0,
            Evaluated::Vector(columns) => columns.iter().map(Column::samples).sum(),
        }
    }
}

pub(crate) struct Evaluator<'a> {
    engine: &'a Engine,
    queryable: &'a dyn Queryable,
    query_start_ms: i64,
    query_end_ms: i64,
    durations: DurationContext,
    meter: Meter,
    plan: Plan,
    needs: HistogramNeeds,
    annotations: Annotations,
}

impl<'a> Evaluator<'a> {
    fn new(
        engine: &'a Engine,
        queryable: &'a dyn Queryable,
        grid: Grid,
        durations: DurationContext,
        interrupt: &Interrupt,
    ) -> Self {
        Evaluator {
            engine,
            queryable,
            query_start_ms: grid.start_ms,
            query_end_ms: grid.end_ms(),
            durations,
            meter: Meter::new(engine.samples_max, interrupt.clone()),
            plan: Plan::default(),
            needs: HistogramNeeds::default(),
            annotations: Annotations::default(),
        }
    }

    fn finish(self, value: QueryValue) -> QueryResult {
        QueryResult {
            value,
            stats: self.meter.stats(),
            annotations: self.annotations.into_vec(),
        }
    }

    fn top_matrix(&mut self, expr: &Expr, grid: Grid) -> Result<Vec<Series>, EvalError> {
        let range = self.range_data(expr, grid)?;
        let mut series: Vec<Series> = range.into_top_series(grid)?;
        let samples = series.iter().flat_map(|series| &series.samples);
        self.meter
            .look_at(samples.map(|sample| meter::size(&sample.value)).sum());
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(series)
    }

    fn top_instant(&mut self, expr: &Expr, grid: Grid) -> Result<QueryValue, EvalError> {
        Ok(match self.eval(expr, grid)? {
            Evaluated::Scalar(values) => {
                QueryValue::Scalar(values.first().copied().unwrap_or(f64::NAN))
            }
            Evaluated::String(literal) => QueryValue::String(literal.text.as_ref().to_owned()),
            Evaluated::Vector(columns) => {
                let columns = column::drop_flagged_names(columns)?;
                let element = |column: Column| {
                    let value = column.values.into_iter().next().flatten()?;
                    Some(InstantSample {
                        labels: column.labels,
                        value,
                    })
                };
                QueryValue::Vector(columns.into_iter().filter_map(element).collect())
            }
        })
    }

    /// Evaluates any expression but a range vector. Whatever its parts held is given back;
    /// only the result stays counted.
    pub(crate) fn eval(&mut self, expr: &Expr, grid: Grid) -> Result<Evaluated, EvalError> {
        self.meter.check()?;
        let before = self.meter.held();
        let result = if grid.steps > 1 && select::is_worth_computing_once(expr) {
            let queryable = self.meter.queryable;
            let once = self.eval_node(expr, Grid { steps: 1, ..grid })?;
            let looked_at = self.meter.queryable.saturating_sub(queryable);
            let again = looked_at.saturating_mul(grid.steps as u64 - 1);
            self.meter.queryable = self.meter.queryable.saturating_add(again);
            once.repeated(grid.steps)
        } else {
            self.eval_node(expr, grid)?
        };
        self.meter.back_to(before);
        self.meter.hold(result.samples())?;
        Ok(result)
    }

    fn eval_node(&mut self, expr: &Expr, grid: Grid) -> Result<Evaluated, EvalError> {
        if let Some(stream) = self.flowing(expr, grid)? {
            return self.collect(stream, grid).map(Evaluated::Vector);
        }
        match &expr.kind {
            ExprKind::Number(number) => Ok(Evaluated::Scalar(vec![number.value; grid.steps])),
            ExprKind::String(text) => Ok(Evaluated::String(text.clone())),
            ExprKind::Paren(inner) => self.eval(inner, grid),
            ExprKind::Unary(unary) => self.unary(unary, grid),
            ExprKind::Binary(binary) if binary.op.is_trim() => {
                let trimmed = |this: &mut Self| this.binary(expr, binary, grid);
                self.with_needs(HistogramNeeds::buckets, trimmed)
            }
            ExprKind::Binary(binary) => self.binary(expr, binary, grid),
            ExprKind::Call(call) => {
                let name = call.function.name;
                let needs = move |outside: HistogramNeeds| match name {
                    "histogram_count" | "histogram_sum" | "histogram_avg" => outside.totals(),
                    "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => {
                        outside.buckets()
                    }
                    _ => outside,
                };
                self.with_needs(needs, |this| this.call(expr, call, grid))
            }
            ExprKind::Aggregate(aggregate) => self.aggregate(expr, aggregate, grid),
            ExprKind::Vector(_) | ExprKind::Matrix(_) | ExprKind::Subquery(_) => {
                Err(EvalError::execution("range vector where a value is needed"))
            }
        }
    }

    pub(crate) fn eval_vector(
        &mut self,
        expr: &Expr,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        match self.eval(expr, grid)? {
            Evaluated::Vector(columns) => Ok(columns),
            _ => Err(EvalError::execution("expected an instant vector")),
        }
    }

    pub(crate) fn eval_scalar(&mut self, expr: &Expr, grid: Grid) -> Result<Vec<f64>, EvalError> {
        match self.eval(expr, grid)? {
            Evaluated::Scalar(values) => Ok(values),
            _ => Err(EvalError::execution("expected a scalar")),
        }
    }

    pub(crate) fn eval_string(&mut self, expr: &Expr, grid: Grid) -> Result<String, EvalError> {
        match self.eval(expr, grid)? {
            Evaluated::String(StringLiteral { text, bytes: None }) => Ok(text.as_ref().to_owned()),
            Evaluated::String(literal) => Err(EvalError::execution(format!(
                "string {literal} is not UTF-8, as labels are"
            ))),
            _ => Err(EvalError::execution("expected a string")),
        }
    }

    fn unary(&mut self, unary: &Unary, grid: Grid) -> Result<Evaluated, EvalError> {
        let value = self.eval(&unary.expr, grid)?;
        if !unary.negative {
            return Ok(value);
        }
        match value {
            Evaluated::Scalar(values) => Ok(Evaluated::Scalar(
                values.into_iter().map(|value| -value).collect(),
            )),
            Evaluated::Vector(_) | Evaluated::String(_) => {
                Err(EvalError::execution("a string has no sign"))
            }
        }
    }

    /// Evaluates `inside` with other needs of histograms.
    pub(crate) fn with_needs<T>(
        &mut self,
        change: impl FnOnce(HistogramNeeds) -> HistogramNeeds,
        inside: impl FnOnce(&mut Self) -> Result<T, EvalError>,
    ) -> Result<T, EvalError> {
        let outside = self.needs;
        self.needs = change(outside);
        let result = inside(self);
        self.needs = outside;
        result
    }

    /// Drops metric names now, or marks them for dropping at the end.
    pub(crate) fn without_names(&self, mut columns: Vec<Column>) -> Result<Vec<Column>, EvalError> {
        if self.engine.delayed_name_removal {
            for column in &mut columns {
                column.drop_name = true;
            }
            return Ok(columns);
        }
        for column in &mut columns {
            column.labels = column::without_name(&column.labels);
        }
        merge_same_labels(columns)
    }

    /// The evaluation time that `at` fixes, if any.
    pub(crate) fn fixed_time(&self, at: Option<AtModifier>) -> Option<i64> {
        at.map(|at| match at {
            AtModifier::TimeMs(ms) => ms,
            AtModifier::Start => self.query_start_ms,
            AtModifier::End => self.query_end_ms,
        })
    }

    /// A subquery's windows, and its own grid: the multiples of its step that lie in them.
    /// A grid without steps where there is none.
    pub(crate) fn subquery_grid(
        &self,
        subquery: &Subquery,
        grid: Grid,
    ) -> Result<(window::Windows, Grid), EvalError> {
        let range_ms = subquery.range.resolve_positive_ms(self.durations)?;
        let step_ms = match &subquery.step {
            Some(step) => step.resolve_positive_ms(self.durations)?,
            None => self.engine.subquery_step_ms.max(1),
        };
        let offset_ms = match &subquery.offset {
            Some(offset) => offset.resolve_ms(self.durations)?,
            None => 0,
        };
        let ends = window::WindowEnds {
            fixed_ms: self.fixed_time(subquery.at),
            offset_ms,
        };
        let (first_ms, end_ms) = (
            ends.at(grid, 0),
            ends.at(grid, grid.steps.saturating_sub(1)),
        );
        let open_ms = first_ms.saturating_sub(range_ms);
        // Integer division truncates towards zero, which is above a negative start.
        let mut start_ms = open_ms / step_ms * step_ms;
        if start_ms <= open_ms {
            start_ms = start_ms.saturating_add(step_ms);
        }
        let inner = match end_ms < start_ms {
            true => Grid { steps: 0, ..grid },
            false => self.engine.grid(start_ms, end_ms, step_ms)?,
        };
        let windows = window::Windows {
            range_ms,
            ends,
            reach: None,
        };
        Ok((windows, inner))
    }
}

impl Evaluated {
    /// A value of one step, for each of `steps`.
    fn repeated(self, steps: usize) -> Evaluated {
        match self {
            Evaluated::Scalar(values) => {
                Evaluated::Scalar(vec![values.first().copied().unwrap_or(f64::NAN); steps])
            }
            Evaluated::String(text) => Evaluated::String(text),
            Evaluated::Vector(mut columns) => {
                for column in &mut columns {
                    let value = column.values.first().cloned().flatten();
                    column.values = vec![value; steps];
                }
                Evaluated::Vector(columns)
            }
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
