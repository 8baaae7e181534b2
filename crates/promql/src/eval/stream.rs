//! Series that flow one by one.
//!
//! A selector, a function of its windows, and whatever is then done to each series on its
//! own (functions of one element, a sign, an operator with a scalar) are one [`Stream`]: a
//! series is read, becomes one row of values, and goes to whoever asked, before the next is
//! read. An aggregation folds rows as they come, so that neither the samples nor the rows of
//! all its series are ever in memory together. What needs all series at once (joins, sorting,
//! classic histograms) collects the rows into columns, and the columns of any expression can
//! flow on as a stream.
//!
//! Names are dropped on the way. Two series that become one by it are an error where both have
//! a value at a step. Where a selector fixes the name, there is no second series to fear, and
//! nothing is remembered.

use std::ops::ControlFlow;

use hashbrown::HashMap;
use slogate_series::{Labels, METRIC_NAME, MatchOp, Matcher, Projection, Value};

use crate::ast::{
    AtModifier, Binary, Call, Expr, ExprKind, Extension, MatrixSelector, Span, Subquery, Unary,
    ValueType, VectorSelector,
};
use crate::duration::DurationExpr;
use crate::eval::column::{self, NAME_LABELS};
use crate::eval::plan::{Copy, Way};
use crate::eval::range_function::{RangeFunction, check_extension};
use crate::eval::select;
use crate::eval::select::HistogramNeeds;
use crate::eval::window::{
    Prepared, RangeData, RangeSeries, Reach, SeriesSamples, WindowEnds, Windows, to_samples,
};
use crate::eval::{Column, EvalError, Evaluator, Grid, elementwise, histogram, merge_same_labels};
use crate::queryable::{Samples, Selection};

/// Series to come, for the steps of one grid.
pub(crate) struct Stream<'e> {
    /// Boxed, so that the frames of deeply nested expressions stay small.
    source: Box<Source<'e>>,
    stages: Vec<Stage<'e>>,
    /// After how many stages the metric's name goes.
    nameless_after: Option<usize>,
}

enum Source<'e> {
    /// Each series' newest sample.
    Newest(Read, Take),
    /// A function of each series' windows.
    Windows(Read, Windows, RangeFunction),
    /// A function of windows over other rows.
    Subquery(Stream<'e>, Grid, Windows, RangeFunction),
    /// Columns that are there already.
    Columns(Vec<Column>),
}

/// What becomes of the newest sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    Value,
    /// Its time in seconds.
    Time,
    /// Its time in milliseconds.
    Millis,
    /// When its count began, in seconds.
    Start,
}

/// Samples to be read from the store.
pub(crate) struct Read {
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    ends: WindowEnds,
    lookback_ms: i64,
    /// Whether nobody looks at buckets of histograms.
    only_totals: bool,
}

impl Read {
    /// The one metric name that the selector accepts, if it says so.
    fn name(&self) -> Option<&str> {
        let fixes = |m: &&Matcher| {
            m.name() == METRIC_NAME && m.op() == MatchOp::Equal && !m.value().is_empty()
        };
        self.matchers.iter().find(fixes).map(Matcher::value)
    }
}

/// Something done to each row.
pub(crate) enum Stage<'e> {
    Negate,
    /// A binary operator with a scalar on one side.
    Scalar {
        binary: &'e Binary,
        scalars: Vec<f64>,
        scalar_first: bool,
        span: Span,
    },
    /// A function of floats; histograms drop out.
    Floats(elementwise::Elementwise),
}

/// One series on its way.
pub(crate) struct Row<'r> {
    pub(crate) labels: &'r Labels,
    /// Whether the name is to go at the end of the query.
    pub(crate) drop_name: bool,
    /// One per step; whoever receives the row may take them.
    pub(crate) values: &'r mut Vec<Option<Value>>,
}

/// What the receiver of rows looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// Labels; others may be left out.
    pub(crate) projection: Projection<'a>,
    /// Whether the rows' order matters.
    pub(crate) ordered: bool,
}

/// All labels, in an order that means something.
pub(crate) const EVERYTHING: Wanted<'static> = Wanted {
    projection: Projection::All,
    ordered: true,
};

/// Nothing but values.
pub(crate) const NO_LABELS: Wanted<'static> = Wanted {
    projection: Projection::Only(&[]),
    ordered: false,
};

type Receive<'f> = dyn FnMut(&mut Evaluator<'_>, Row<'_>) -> Result<(), EvalError> + 'f;

impl<'e> Evaluator<'e> {
    /// The rows of `expr`, which is a vector. What can't flow is evaluated at once.
    pub(crate) fn stream<'x>(
        &mut self,
        expr: &'x Expr,
        grid: Grid,
    ) -> Result<Stream<'x>, EvalError> {
        if grid.steps > 1 && select::is_worth_computing_once(expr) {
            return Ok(Stream::of(Source::Columns(self.eval_vector(expr, grid)?)));
        }
        match self.flowing(expr, grid)? {
            Some(stream) => Ok(stream),
            None => Ok(Stream::of(Source::Columns(self.eval_vector(expr, grid)?))),
        }
    }

    /// The rows of `expr`, if it is something whose series flow.
    pub(crate) fn flowing<'x>(
        &mut self,
        expr: &'x Expr,
        grid: Grid,
    ) -> Result<Option<Stream<'x>>, EvalError> {
        Ok(Some(match &expr.kind {
            ExprKind::Vector(selector) => self.newest(selector, expr.span, grid, Take::Value)?,
            ExprKind::Paren(inner) if inner.value_type() == ValueType::Vector => {
                self.stream(inner, grid)?
            }
            ExprKind::Unary(unary) if unary.expr.value_type() == ValueType::Vector => {
                self.signed(unary, grid)?
            }
            ExprKind::Binary(binary) => {
                let sides = [&binary.lhs, &binary.rhs].map(|side| side.value_type());
                let scalar_first = match sides {
                    [ValueType::Scalar, ValueType::Vector] => true,
                    [ValueType::Vector, ValueType::Scalar] => false,
                    _ => return Ok(None),
                };
                let needs = match binary.op.is_trim() {
                    true => HistogramNeeds::buckets,
                    false => std::convert::identity,
                };
                self.with_needs(needs, |this| {
                    this.with_scalar(binary, scalar_first, expr.span, grid)
                })?
            }
            // Its series flow, but not to become the result.
            ExprKind::Call(call) if call.function.name == "absent_over_time" => return Ok(None),
            ExprKind::Call(call) => match self.range_call(call, grid)? {
                Some(stream) => stream,
                None => return self.elementwise_call(call, grid),
            },
            _ => return Ok(None),
        }))
    }

    /// Each series' newest sample in `(t - lookback, t]`, unless it is a staleness marker; for
    /// the value of a smoothed selector what lies between its neighbours.
    pub(crate) fn newest<'x>(
        &mut self,
        selector: &VectorSelector,
        span: Span,
        grid: Grid,
        take: Take,
    ) -> Result<Stream<'x>, EvalError> {
        let (read, reach) = self.newest_reading(selector, grid)?;
        Ok(Stream::of(match reach.filter(|_| take == Take::Value) {
            Some(reach) => {
                // A range of nothing, and the lookback on both its sides.
                let windows = Windows {
                    range_ms: 0,
                    ends: read.ends,
                    reach: Some(reach),
                };
                Source::Windows(read, windows, RangeFunction::between(span))
            }
            None => Source::Newest(read, take),
        }))
    }

    /// What an instant selector reads, and how far it reaches if it is smoothed.
    pub(crate) fn newest_reading(
        &self,
        selector: &VectorSelector,
        grid: Grid,
    ) -> Result<(Read, Option<Reach>), EvalError> {
        let ends = self.ends_of(selector.offset.as_ref(), selector.at)?;
        let lookback_ms = self.engine.lookback_ms;
        let is_smoothed = selector.extension == Some(Extension::Smoothed);
        let reach = is_smoothed.then_some(Reach {
            extension: Extension::Smoothed,
            lookback_ms,
        });
        let reads = reach.map_or((lookback_ms, 0), Reach::beyond_ms);
        let read = self.reading(selector.all_matchers(), ends, grid, reads);
        Ok((read, reach))
    }

    fn signed<'x>(&mut self, unary: &'x Unary, grid: Grid) -> Result<Stream<'x>, EvalError> {
        let mut stream = self.stream(&unary.expr, grid)?;
        if unary.negative {
            stream.stages.push(Stage::Negate);
            stream = stream.without_name();
        }
        Ok(stream)
    }

    fn with_scalar<'x>(
        &mut self,
        binary: &'x Binary,
        scalar_first: bool,
        span: Span,
        grid: Grid,
    ) -> Result<Stream<'x>, EvalError> {
        let (vector, scalar) = match scalar_first {
            true => (&binary.rhs, &binary.lhs),
            false => (&binary.lhs, &binary.rhs),
        };
        let scalars = self.eval_scalar(scalar, grid)?;
        let mut stream = self.stream(vector, grid)?;
        stream.stages.push(Stage::Scalar {
            binary,
            scalars,
            scalar_first,
            span,
        });
        if binary.drops_name() {
            stream = stream.without_name();
        }
        Ok(stream)
    }

    fn elementwise_call<'x>(
        &mut self,
        call: &'x Call,
        grid: Grid,
    ) -> Result<Option<Stream<'x>>, EvalError> {
        let [vector, params @ ..] = call.args.as_slice() else {
            return Ok(None);
        };
        let name = call.function.name;
        if !elementwise::is_one(name) || vector.value_type() != ValueType::Vector {
            return Ok(None);
        }
        let mut scalars = Vec::new();
        for param in params {
            scalars.push(self.eval_scalar(param, grid)?);
        }
        let Some(compute) = elementwise::function(name, scalars) else {
            return Ok(None);
        };
        let mut stream = self.stream(vector, grid)?;
        stream.stages.push(Stage::Floats(compute));
        Ok(Some(stream.without_name()))
    }

    /// A function of a range vector; for `absent_over_time`, where there are samples.
    pub(crate) fn range_call<'x>(
        &mut self,
        call: &'x Call,
        grid: Grid,
    ) -> Result<Option<Stream<'x>>, EvalError> {
        let name = call.function.name;
        let is_range = |arg: &&Expr| arg.value_type() == ValueType::Matrix;
        let Some(arg) = call.args.iter().find(is_range) else {
            return Ok(None);
        };
        let mut scalars = Vec::new();
        for other in call.args.iter().filter(|other| !is_range(other)) {
            scalars.push(self.eval_scalar(other, grid)?);
        }
        check_extension(arg, name)?;
        // Whether a series is there at all is the same question for both. This one keeps names:
        // two series that differ in theirs are no clash where nothing of them is left.
        let function = if name == "absent_over_time" {
            "last_over_time"
        } else {
            name
        };
        // Whatever is said of the call is said of its first argument; of a subquery Prometheus
        // has lost the place by then, and names the start of the query.
        let first = call.args.first().unwrap_or(arg).unparenthesised();
        let span = match first.kind {
            ExprKind::Subquery(_) => Span::default(),
            _ => first.span,
        };
        let function = RangeFunction::new(function, scalars, span, self.engine)?;
        self.windows(arg, grid, function).map(Some)
    }

    /// `function` of the windows of a range selector or subquery.
    fn windows<'x>(
        &mut self,
        arg: &'x Expr,
        grid: Grid,
        function: RangeFunction,
    ) -> Result<Stream<'x>, EvalError> {
        let keeps_name = function.keeps_name();
        let stream = match &arg.unparenthesised().kind {
            ExprKind::Matrix(matrix) => {
                let (read, windows) = self.range_reading(matrix, grid)?;
                Stream::of(Source::Windows(read, windows, function))
            }
            ExprKind::Subquery(subquery) => {
                let (windows, inner) = self.subquery_grid(subquery, grid)?;
                let rows = match inner.steps {
                    0 => Stream::of(Source::Columns(Vec::new())),
                    _ => self.subquery_rows(subquery, inner)?,
                };
                Stream::of(Source::Subquery(rows, inner, windows, function))
            }
            _ => return Err(EvalError::execution("expected a range vector")),
        };
        Ok(if keeps_name {
            stream
        } else {
            stream.without_name()
        })
    }

    /// The rows inside a subquery. What it looks at is not counted: its results will be.
    fn subquery_rows<'x>(
        &mut self,
        subquery: &'x Subquery,
        inner: Grid,
    ) -> Result<Stream<'x>, EvalError> {
        let queryable = self.meter.queryable;
        let rows = self.with_needs(HistogramNeeds::buckets, |this| {
            this.stream(&subquery.expr, inner)
        })?;
        self.meter.queryable = queryable;
        Ok(rows)
    }

    /// The samples of a query that is a range vector and nothing else.
    pub(crate) fn range_data(&mut self, expr: &Expr, grid: Grid) -> Result<RangeData, EvalError> {
        let mut series = Vec::new();
        let windows = match &expr.unparenthesised().kind {
            ExprKind::Matrix(matrix) => {
                let (read, windows) = self.range_reading(matrix, grid)?;
                self.read(&read, EVERYTHING, &mut |ev, labels, samples| {
                    samples.drop_stale();
                    ev.meter.hold(samples.size())?;
                    series.push(RangeSeries {
                        labels: labels.clone(),
                        drop_name: false,
                        samples: std::mem::take(samples),
                    });
                    Ok(())
                })?;
                windows
            }
            ExprKind::Subquery(subquery) => {
                let (windows, inner) = self.subquery_grid(subquery, grid)?;
                if inner.steps > 0 {
                    let rows = self.subquery_rows(subquery, inner)?;
                    let queryable = self.meter.queryable;
                    rows.run(self, inner, EVERYTHING, &mut |ev, row| {
                        let mut samples = Samples::default();
                        to_samples(row.values, inner, &mut samples);
                        ev.meter.hold(samples.size())?;
                        series.push(RangeSeries {
                            labels: row.labels.clone(),
                            drop_name: row.drop_name,
                            samples,
                        });
                        Ok(())
                    })?;
                    self.meter.queryable = queryable;
                }
                windows
            }
            _ => return Err(EvalError::execution("expected a range vector")),
        };
        Ok(RangeData { series, windows })
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

    pub(crate) fn range_reading(
        &self,
        matrix: &MatrixSelector,
        grid: Grid,
    ) -> Result<(Read, Windows), EvalError> {
        let selector = &matrix.selector;
        let range_ms = matrix.range.resolve_positive_ms(self.durations)?;
        let ends = self.ends_of(selector.offset.as_ref(), selector.at)?;
        let reach = selector.extension.map(|extension| Reach {
            extension,
            lookback_ms: self.engine.lookback_ms,
        });
        let (before_ms, after_ms) = reach.map_or((0, 0), Reach::beyond_ms);
        let reads = (range_ms.saturating_add(before_ms), after_ms);
        let read = self.reading(selector.all_matchers(), ends, grid, reads);
        let windows = Windows {
            range_ms,
            ends,
            reach,
        };
        Ok((read, windows))
    }

    /// All samples in the left-open windows from `before_ms` before each of the grid's steps to
    /// `after_ms` after it.
    pub(crate) fn reading(
        &self,
        matchers: Vec<Matcher>,
        ends: WindowEnds,
        grid: Grid,
        (before_ms, after_ms): (i64, i64),
    ) -> Read {
        let open_ms = ends.at(grid, 0).saturating_sub(before_ms);
        let last_ms = ends.at(grid, grid.steps.saturating_sub(1));
        Read {
            matchers,
            start_ms: open_ms.saturating_add(1),
            end_ms: last_ms.saturating_add(after_ms),
            ends,
            lookback_ms: before_ms,
            only_totals: self.needs.only_totals(),
        }
    }

    /// Hands each series of the store to `each`.
    pub(crate) fn read(
        &mut self,
        read: &Read,
        wanted: Wanted<'_>,
        each: &mut dyn FnMut(&mut Evaluator<'_>, &Labels, &mut Samples) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let mut take_in = |ev: &mut Self, labels: &Labels, samples: &mut Samples| {
            if read.only_totals {
                histogram::keep_totals(&mut samples.histograms);
            }
            ev.meter.check()?;
            each(ev, labels, samples)
        };
        let (first, wanted) = match self.plan.way(read) {
            Way::Alone => (None, wanted),
            // Who asks next may look at all labels.
            Way::First(at) => (Some(at), EVERYTHING),
            Way::Again(answer, held) => {
                let mut samples = Samples::default();
                for (labels, kept) in answer.iter() {
                    samples.clone_from(kept);
                    take_in(self, labels, &mut samples)?;
                }
                self.meter.release_kept(held);
                return Ok(());
            }
        };
        let selection = Selection {
            matchers: &read.matchers,
            start_ms: read.start_ms,
            end_ms: read.end_ms,
            projection: wanted.projection,
            ordered: wanted.ordered,
        };
        let queryable = self.queryable;
        let mut copy = first.map(|_| Copy::default());
        let mut result = Ok(());
        queryable.for_each(&selection, &mut |labels, samples| {
            copy = copy
                .take()
                .and_then(|mut copy| copy.push(labels, samples).then_some(copy));
            result = take_in(self, labels, samples);
            match result {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        if let Some(at) = first {
            self.meter
                .keep(copy.as_ref().map_or(0, |copy| copy.samples))?;
            self.plan.keep(at, copy);
        }
        result
    }

    /// All rows as columns.
    pub(crate) fn collect(
        &mut self,
        stream: Stream<'_>,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let may_coincide = stream.nameless_after.is_some() && !stream.is_of_one_name();
        let may_coincide = may_coincide && !self.engine.delayed_name_removal;
        let mut columns = Vec::new();
        stream.run(self, grid, EVERYTHING, &mut |ev, row| {
            let column = Column {
                labels: row.labels.clone(),
                drop_name: row.drop_name,
                values: std::mem::take(row.values),
            };
            ev.meter.hold(column.samples())?;
            columns.push(column);
            Ok(())
        })?;
        if may_coincide {
            return merge_same_labels(columns);
        }
        Ok(columns)
    }
}

impl<'e> Stream<'e> {
    fn of(source: Source<'e>) -> Self {
        Stream {
            source: Box::new(source),
            stages: Vec::new(),
            nameless_after: None,
        }
    }

    pub(crate) fn without_name(mut self) -> Self {
        let stages = self.stages.len();
        self.nameless_after.get_or_insert(stages);
        self
    }

    /// The metric's name, where it is the same for all rows and known beforehand.
    fn name(&self) -> Option<&str> {
        match &*self.source {
            _ if self.nameless_after.is_some() => None,
            Source::Newest(read, _) | Source::Windows(read, _, _) => read.name(),
            Source::Subquery(inner, _, _, _) => inner.name(),
            Source::Columns(_) => None,
        }
    }

    /// Whether dropping names can't make two series the same.
    fn is_of_one_name(&self) -> bool {
        match &*self.source {
            Source::Newest(read, _) | Source::Windows(read, _, _) => read.name().is_some(),
            Source::Subquery(inner, _, _, _) => {
                inner.nameless_after.is_some() || inner.is_of_one_name()
            }
            Source::Columns(columns) => columns
                .iter()
                .all(|column| NAME_LABELS.iter().all(|n| column.labels.get(n).is_none())),
        }
    }

    /// Computes the rows that have a value, and hands each to `receive`.
    pub(crate) fn run(
        self,
        ev: &mut Evaluator<'_>,
        grid: Grid,
        wanted: Wanted<'_>,
        receive: &mut Receive<'_>,
    ) -> Result<(), EvalError> {
        let one_name = self.is_of_one_name();
        let delayed = ev.engine.delayed_name_removal;
        let by_type = ev.engine.type_and_unit_labels;
        let nameless = self.nameless_after.is_some();
        // Whether two series are the same without their names shows in all other labels.
        let names = projected(wanted.projection, nameless);
        let projection = match (&names, wanted.projection) {
            _ if delayed || by_type || nameless && !one_name => Projection::All,
            (_, Projection::All) if !nameless => Projection::All,
            (names, Projection::Only(_)) => Projection::Only(names),
            (names, _) => Projection::Without(names),
        };
        let wanted = Wanted {
            projection,
            ..wanted
        };
        // Of one function of a range they don't even follow each other.
        let whole = match *self.source {
            Source::Windows(..) | Source::Subquery(..) => self.nameless_after == Some(0),
            Source::Newest(..) | Source::Columns(_) => false,
        };
        let stages = Stages {
            whole,
            stages: self.stages,
            nameless_after: self.nameless_after,
            delayed,
            seen: (nameless && !one_name && !delayed).then(HashMap::new),
            steps: grid.steps,
        };
        self.source.run(ev, grid, wanted, stages, receive)
    }
}

/// The names in a projection of labels that may lose their metric's name on the way.
fn projected<'a>(projection: Projection<'a>, nameless: bool) -> Vec<&'a str> {
    match projection {
        Projection::All if nameless => vec![METRIC_NAME],
        Projection::All => Vec::new(),
        Projection::Only(names) => {
            let names = names.iter().copied();
            names.filter(|n| !nameless || *n != METRIC_NAME).collect()
        }
        Projection::Without(names) => {
            let names = names.iter().copied();
            names.chain(nameless.then_some(METRIC_NAME)).collect()
        }
    }
}

/// What happens to rows between source and receiver.
struct Stages<'e> {
    stages: Vec<Stage<'e>>,
    nameless_after: Option<usize>,
    delayed: bool,
    /// Where names are dropped and series may coincide: at which steps each label set has a
    /// value already, a bit each.
    seen: Option<HashMap<Labels, Vec<u64>>>,
    /// Whether they coincide even where they have no step in common.
    whole: bool,
    steps: usize,
}

impl Stages<'_> {
    fn pass(
        &mut self,
        ev: &mut Evaluator<'_>,
        row: &mut Row<'_>,
        receive: &mut Receive<'_>,
    ) -> Result<(), EvalError> {
        let nameless_after = self.nameless_after.unwrap_or(usize::MAX);
        let nameless = match nameless_after {
            usize::MAX => None,
            _ if self.delayed => None,
            _ => Some(column::without_name(row.labels)),
        };
        for (at, stage) in self.stages.iter().enumerate() {
            if at == nameless_after {
                note_steps(&mut self.seen, nameless.as_ref(), row.values, self.whole)?;
            }
            stage.apply(ev, row.values);
        }
        if self.stages.len() == nameless_after {
            note_steps(&mut self.seen, nameless.as_ref(), row.values, self.whole)?;
        }
        if row.values.iter().any(Option::is_some) {
            let row = Row {
                labels: nameless.as_ref().unwrap_or(row.labels),
                drop_name: row.drop_name || self.delayed && self.nameless_after.is_some(),
                values: row.values,
            };
            receive(ev, row)?;
        }
        Ok(())
    }

    fn empty_row(&self, values: &mut Vec<Option<Value>>) {
        values.clear();
        values.resize(self.steps, None);
    }
}

/// Remembers where a series has values.
///
/// # Errors
/// When another series of the same labels has one there too, or, with `whole`, anywhere.
fn note_steps(
    seen: &mut Option<HashMap<Labels, Vec<u64>>>,
    labels: Option<&Labels>,
    values: &[Option<Value>],
    whole: bool,
) -> Result<(), EvalError> {
    let (Some(seen), Some(labels)) = (seen, labels) else {
        return Ok(());
    };
    if values.iter().all(Option::is_none) {
        return Ok(());
    }
    let words = values.len().div_ceil(64);
    let taken = seen.entry(labels.clone()).or_insert_with(|| vec![0; words]);
    let mut coincide = whole && taken.iter().any(|word| *word != 0);
    for (word, values) in taken.iter_mut().zip(values.chunks(64)) {
        for (bit, _) in values.iter().enumerate().filter(|(_, v)| v.is_some()) {
            coincide |= *word & (1 << bit) != 0;
            *word |= 1 << bit;
        }
    }
    if coincide {
        let message = "vector cannot contain metrics with the same labelset";
        return Err(EvalError::execution(message));
    }
    Ok(())
}

impl Stage<'_> {
    fn apply(&self, ev: &mut Evaluator<'_>, values: &mut [Option<Value>]) {
        match self {
            Stage::Negate => values.iter_mut().flatten().for_each(|value| {
                *value = match value {
                    Value::Float(value) => Value::Float(-*value),
                    Value::Histogram(h) => Value::Histogram(histogram::negate(h).into()),
                };
            }),
            Stage::Scalar {
                binary,
                scalars,
                scalar_first,
                span,
            } => ev.apply_scalar(binary, values, scalars, *scalar_first, *span),
            Stage::Floats(compute) => {
                for (step, slot) in values.iter_mut().enumerate() {
                    *slot = match slot {
                        Some(Value::Float(value)) => compute(*value, step).map(Value::Float),
                        _ => None,
                    };
                }
            }
        }
    }
}

impl Source<'_> {
    fn run(
        self,
        ev: &mut Evaluator<'_>,
        grid: Grid,
        wanted: Wanted<'_>,
        mut stages: Stages<'_>,
        receive: &mut Receive<'_>,
    ) -> Result<(), EvalError> {
        let mut values = Vec::new();
        let mut prepared = Prepared::default();
        match self {
            Source::Newest(read, take) => ev.read(&read, wanted, &mut |ev, labels, samples| {
                let held = samples.size();
                ev.meter.hold(held)?;
                stages.empty_row(&mut values);
                select::newest(
                    samples,
                    grid,
                    read.ends,
                    read.lookback_ms,
                    take,
                    &mut ev.meter,
                    &mut values,
                );
                let row = &mut Row {
                    labels,
                    drop_name: false,
                    values: &mut values,
                };
                stages.pass(ev, row, receive)?;
                ev.meter.release(held);
                Ok(())
            }),
            Source::Windows(read, windows, function) => {
                let name = read.name();
                ev.read(&read, wanted, &mut |ev, labels, samples| {
                    samples.drop_stale();
                    let held = samples.size();
                    ev.meter.hold(held)?;
                    stages.empty_row(&mut values);
                    prepared.prepare(samples, function.counters());
                    let name = name.or(labels.metric_name()).unwrap_or_default();
                    let (notes, meter) = (&mut ev.annotations, &mut ev.meter);
                    let series = &SeriesSamples {
                        name,
                        labels,
                        samples,
                        prepared: &prepared,
                    };
                    windows.slide(grid, series, meter, &mut values, |window, step| {
                        function.compute(window, step, notes)
                    })?;
                    let row = &mut Row {
                        labels,
                        drop_name: false,
                        values: &mut values,
                    };
                    stages.pass(ev, row, receive)?;
                    ev.meter.release(held);
                    Ok(())
                })
            }
            Source::Subquery(inner, inner_grid, windows, function) => {
                let mut samples = Samples::default();
                let mut queryable = ev.meter.queryable;
                let known_name = inner.name().map(str::to_owned);
                inner.run(ev, inner_grid, wanted, &mut |ev, row| {
                    // What the inside looked at is not counted.
                    ev.meter.queryable = queryable;
                    to_samples(row.values, inner_grid, &mut samples);
                    let held = samples.size();
                    ev.meter.hold(held)?;
                    stages.empty_row(&mut values);
                    prepared.prepare(&samples, function.counters());
                    let name = known_name.as_deref().or(row.labels.metric_name());
                    let name = name.unwrap_or_default();
                    let (notes, meter) = (&mut ev.annotations, &mut ev.meter);
                    let series = &SeriesSamples {
                        name,
                        labels: row.labels,
                        samples: &samples,
                        prepared: &prepared,
                    };
                    windows.slide(grid, series, meter, &mut values, |window, step| {
                        function.compute(window, step, notes)
                    })?;
                    let row = &mut Row {
                        labels: row.labels,
                        drop_name: row.drop_name,
                        values: &mut values,
                    };
                    stages.pass(ev, row, receive)?;
                    ev.meter.release(held);
                    queryable = ev.meter.queryable;
                    Ok(())
                })?;
                ev.meter.queryable = queryable;
                Ok(())
            }
            Source::Columns(columns) => columns.into_iter().try_for_each(|column| {
                ev.meter.check()?;
                values = column.values;
                let row = &mut Row {
                    labels: &column.labels,
                    drop_name: column.drop_name,
                    values: &mut values,
                };
                stages.pass(ev, row, receive)
            }),
        }
    }
}
