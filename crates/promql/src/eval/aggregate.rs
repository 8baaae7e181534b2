//! Aggregation operators.
//!
//! Series are put into groups once; then each group is folded step by step. Operators that
//! only make sense for numbers leave histograms out and say so; `sum` and `avg` of a mix
//! have no value at that step, with a warning.

use std::collections::HashMap;

use slogate_series::{Labels, METRIC_NAME, Projection, Value};

use crate::ast::{Aggregate, AggregateOp, Expr, ExprKind, Span};
use crate::eval::column::NAME_LABELS;
use crate::eval::fold::Folds;
use crate::eval::groups::Groups;
use crate::eval::rank::Ranks;
use crate::eval::stream::Wanted;
use crate::eval::text::shortest;
use crate::eval::{Annotations, Column, EvalError, Evaluated, Evaluator, Grid};
use crate::eval::{histogram_functions, ratio};

/// The series of one group.
struct Group {
    labels: Labels,
    members: Vec<usize>,
}

impl Evaluator<'_> {
    pub(super) fn aggregate(
        &mut self,
        expr: &Expr,
        aggregate: &Aggregate,
        grid: Grid,
    ) -> Result<Evaluated, EvalError> {
        let columns = match aggregate.op {
            AggregateOp::CountValues => self.count_values(aggregate, grid)?,
            AggregateOp::Topk | AggregateOp::Bottomk => self.rank(expr, aggregate, grid)?,
            AggregateOp::Limitk | AggregateOp::LimitRatio => self.choose(aggregate, grid)?,
            _ => self.fold(aggregate, grid)?,
        };
        Ok(Evaluated::Vector(columns))
    }

    /// The operators that make one value of a group.
    fn fold(&mut self, aggregate: &Aggregate, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let param = match &aggregate.param {
            Some(param) => self.eval_scalar(param, grid)?,
            None => Vec::new(),
        };
        let stream = self.stream(&aggregate.expr, grid)?;
        let grouping = Grouping::of(aggregate);
        // Warnings tell a metric's name.
        let named: Vec<&str> = grouping
            .names
            .iter()
            .copied()
            .chain([METRIC_NAME])
            .collect();
        let wanted = Wanted {
            projection: match grouping.without {
                true => Projection::Without(&grouping.names),
                false => Projection::Only(&named),
            },
            ordered: false,
        };
        let span = aggregate.expr.unparenthesised().span;
        let mut folds = Folds::new(aggregate.op, grouping.projection(), grid.steps, span);
        stream.run(self, grid, wanted, &mut |ev, row| folds.add(&row, ev))?;
        if let Some(param_expr) = &aggregate.param {
            let span = param_expr.unparenthesised().span;
            for q in extremes_outside(&param, 0.0, 1.0) {
                note_quantile(&mut self.annotations, q, span);
            }
        }
        folds.finish(&param, self)
    }

    /// The operators that keep the best series of a group as they are.
    fn rank(
        &mut self,
        expr: &Expr,
        aggregate: &Aggregate,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let Some(param) = &aggregate.param else {
            return Err(EvalError::execution("aggregation needs a parameter"));
        };
        let limits = self.eval_scalar(param, grid)?;
        let stream = self.stream(&aggregate.expr, grid)?;
        if !chooses_nothing(aggregate.op, &limits) {
            check_limits(aggregate.op, &limits)?;
        }
        let wanted = Wanted {
            projection: Projection::All,
            ordered: false,
        };
        let grouping = Grouping::of(aggregate);
        let limits = limits.into_iter().map(whole_limit).collect();
        let largest_first = aggregate.op == AggregateOp::Topk;
        let mut ranks = Ranks::new(largest_first, limits, grouping.projection());
        stream.run(self, grid, wanted, &mut |ev, row| ranks.add(&row, ev))?;
        if ranks.has_ignored() {
            let op = aggregate.op.as_str();
            let message = format!("ignored histogram in {op} aggregation");
            self.annotations.info(expr.span, message);
        }
        Ok(ranks.finish(grid))
    }

    /// The operators that keep any series of a group as they are.
    fn choose(&mut self, aggregate: &Aggregate, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let Some(param) = &aggregate.param else {
            return Err(EvalError::execution("aggregation needs a parameter"));
        };
        let mut limits = self.eval_scalar(param, grid)?;
        let columns = self.eval_vector(&aggregate.expr, grid)?;
        if chooses_nothing(aggregate.op, &limits) {
            return Ok(Vec::new());
        }
        check_limits(aggregate.op, &limits)?;
        if aggregate.op == AggregateOp::LimitRatio {
            for ratio in extremes_outside(&limits, -1.0, 1.0) {
                self.note_ratio(ratio, param.unparenthesised().span);
            }
            limits
                .iter_mut()
                .for_each(|ratio| *ratio = ratio.clamp(-1.0, 1.0));
        }
        let mut kept: Vec<Column> = columns
            .iter()
            .map(|c| Column::empty(c.labels.clone(), c.drop_name, grid.steps))
            .collect();
        let mut order = Vec::new();
        for group in groups(aggregate, &columns) {
            for step in 0..grid.steps {
                let limit = limits.get(step).copied().unwrap_or(0.0);
                let chosen = choose_at(aggregate.op, &columns, &group, step, limit);
                for at in &chosen {
                    let value = columns.get(*at).and_then(|column| column.value(step));
                    if let (Some(column), Some(value)) = (kept.get_mut(*at), value) {
                        column.set(step, value.clone());
                    }
                }
                if step == 0 {
                    order.extend(chosen);
                }
            }
        }
        if grid.steps == 1 {
            let mut slots: Vec<Option<Column>> = kept.into_iter().map(Some).collect();
            let in_order = order.into_iter().filter_map(|at| slots.get_mut(at)?.take());
            return Ok(in_order.collect());
        }
        kept.retain(|column| !column.is_empty());
        Ok(kept)
    }

    /// Warns of a ratio that is cut to what is one.
    fn note_ratio(&mut self, ratio: f64, span: Span) {
        let (capped, ratio) = (shortest(ratio.clamp(-1.0, 1.0)), shortest(ratio));
        let message =
            format!("ratio value should be between -1 and 1, got {ratio}, capping to {capped}");
        self.annotations.warn(span, message);
    }

    fn count_values(
        &mut self,
        aggregate: &Aggregate,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let param = aggregate
            .param
            .as_deref()
            .map(|param| &param.unparenthesised().kind);
        let Some(ExprKind::String(literal)) = param else {
            return Err(EvalError::execution("count_values needs a label"));
        };
        if literal.text.is_empty() || literal.bytes.is_some() {
            return Err(EvalError::execution(format!(
                "invalid label name {literal}"
            )));
        }
        let label = &literal.text;
        let columns = self.eval_vector(&aggregate.expr, grid)?;
        let mut counted: Vec<Column> = Vec::new();
        // By result labels: where the label overwrites one of the group's, groups fall together.
        let mut by_labels: HashMap<Labels, usize> = HashMap::new();
        for group in groups(aggregate, &columns) {
            for (at, step) in group
                .members
                .iter()
                .flat_map(|at| (0..grid.steps).map(move |step| (*at, step)))
            {
                let Some(value) = columns.get(at).and_then(|column| column.value(step)) else {
                    continue;
                };
                let mut labels = group.labels.to_builder();
                labels.set(label.clone(), histogram_functions::text_of(value));
                let labels = labels.build();
                let at = *by_labels.entry(labels.clone()).or_insert(counted.len());
                if at == counted.len() {
                    // As in Prometheus, a name that was to be dropped stays where it is grouped by.
                    counted.push(Column::empty(labels, false, grid.steps));
                }
                if let Some(column) = counted.get_mut(at) {
                    let before = column.value(step).and_then(as_float).unwrap_or(0.0);
                    column.set(step, Value::Float(before + 1.0));
                }
            }
        }
        Ok(counted)
    }
}

/// The members of a group to keep at a step.
fn choose_at(
    op: AggregateOp,
    columns: &[Column],
    group: &Group,
    step: usize,
    limit: f64,
) -> Vec<usize> {
    let members = group.members.iter().copied();
    let present = members.filter(|at| {
        columns
            .get(*at)
            .is_some_and(|column| column.value(step).is_some())
    });
    if op == AggregateOp::Limitk {
        return present.take(whole_limit(limit)).collect();
    }
    let kept = |at: &usize| {
        let column = columns.get(*at);
        column.is_some_and(|column| ratio::keeps(limit, &column.labels))
    };
    present.filter(kept).collect()
}

/// How many series a parameter asks for.
fn whole_limit(limit: f64) -> usize {
    if limit < 1.0 { 0 } else { limit as usize }
}

fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        Value::Histogram(_) => None,
    }
}

/// The labels that make a group.
struct Grouping<'a> {
    names: Vec<&'a str>,
    without: bool,
}

impl<'a> Grouping<'a> {
    fn of(aggregate: &'a Aggregate) -> Self {
        let mut names: Vec<&str> = aggregate.grouping.iter().map(AsRef::as_ref).collect();
        if aggregate.without {
            names.extend(NAME_LABELS);
        }
        Grouping {
            names,
            without: aggregate.without,
        }
    }

    fn projection(&self) -> Projection<'_> {
        match self.without {
            true => Projection::Without(&self.names),
            false => Projection::Only(&self.names),
        }
    }
}

/// The groups in the order of their first series.
fn groups(aggregate: &Aggregate, columns: &[Column]) -> Vec<Group> {
    let grouping = Grouping::of(aggregate);
    let mut slots = Groups::new(grouping.projection());
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let slot = slots.slot(&column.labels);
        match members.get_mut(slot) {
            Some(members) => members.push(at),
            None => members.push(vec![at]),
        }
    }
    let labels = slots.into_labels().into_iter();
    let group = |(labels, members)| Group { labels, members };
    labels.zip(members).map(group).collect()
}

/// The lowest and the highest of `values` where they are not in `min..=max`, and NaN if there
/// is one: what is worth a warning. Beside NaN nothing but an infinity is lowest or highest.
fn extremes_outside(values: &[f64], min: f64, max: f64) -> Vec<f64> {
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let nan = values.iter().copied().find(|value| value.is_nan());
    let counts = |extreme: f64| nan.is_none() || extreme.is_infinite();
    let mut outside: Vec<f64> = nan.into_iter().collect();
    outside.extend((highest > max && counts(highest)).then_some(highest));
    outside.extend((lowest < min && counts(lowest)).then_some(lowest));
    outside
}

/// Whether no series is wanted at any step; then it does not matter what is wrong with the
/// parameter.
fn chooses_nothing(op: AggregateOp, limits: &[f64]) -> bool {
    match op {
        AggregateOp::LimitRatio => limits.iter().all(|ratio| *ratio == 0.0),
        // NaN is not less than 1.
        _ => limits.iter().all(|limit| *limit < 1.0),
    }
}

fn check_limits(op: AggregateOp, limits: &[f64]) -> Result<(), EvalError> {
    let is_ratio = op == AggregateOp::LimitRatio;
    for limit in limits {
        let message = if limit.is_nan() {
            format!(
                "{} value is NaN",
                if is_ratio { "Ratio" } else { "Parameter" }
            )
        } else if is_ratio || limit.abs() < 9.223_372_036_854_776e18 {
            continue;
        } else {
            let over = if *limit > 0.0 {
                "overflows"
            } else {
                "underflows"
            };
            format!("Scalar value {} {over} int64", shortest(*limit))
        };
        return Err(EvalError::execution(message));
    }
    Ok(())
}

/// Orders floats with NaN after every number, whichever way numbers go.
pub(super) fn nan_last(a: f64, b: f64, largest_first: bool) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
            if largest_first {
                order.reverse()
            } else {
                order
            }
        }
    }
}

/// Warns of a quantile that is none.
pub(super) fn note_quantile(notes: &mut Annotations, q: f64, span: Span) {
    if !(0.0..=1.0).contains(&q) {
        let q = shortest(q);
        let message = format!("quantile value should be between 0 and 1, got {q}");
        notes.warn(span, message);
    }
}

/// The φ-quantile, linear between neighbours; NaN sorts lowest.
pub(super) fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal),
        (a, b) => b.cmp(&a),
    });
    let rank = q * (values.len() - 1) as f64;
    let below = rank.floor();
    let weight = rank - below;
    let at = |index: f64| values.get(index as usize).or(values.last()).copied();
    match (at(below), at((below + 1.0).min((values.len() - 1) as f64))) {
        (Some(low), Some(high)) => low * (1.0 - weight) + high * weight,
        _ => f64::NAN,
    }
}
