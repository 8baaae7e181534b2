//! Aggregations that make one value of a group, folded series by series.
//!
//! What is kept of a group is a few numbers for each step, whatever the number of its series
//! (for `quantile` the values themselves). Groups come out sorted by labels: rows come in no
//! particular order.

use slogate_series::{Labels, Projection, Value};

use crate::ast::{AggregateOp, Span};
use crate::eval::aggregate::quantile;
use crate::eval::groups::Groups;
use crate::eval::histogram_sum::{HistogramSum, Running};
use crate::eval::rate::layouts_message;
use crate::eval::stream::Row;
use crate::eval::sum::{Mean, Sum};
use crate::eval::{Column, EvalError, Evaluator, histogram};

/// All groups of an aggregation.
pub(crate) struct Folds<'n> {
    op: AggregateOp,
    groups: Groups<'n>,
    folds: Vec<Fold>,
    steps: usize,
    /// What is aggregated.
    span: Span,
}

/// One group so far.
struct Fold {
    drop_name: bool,
    values: Values,
    /// What the group's numbers are held as.
    held: usize,
}

/// For each step, what is known of the group's values.
enum Values {
    Sums(Vec<Mixed<Sum>>),
    Means(Vec<Mixed<Mean>>),
    Extremes(Vec<Extreme>),
    Counts(Vec<f64>),
    Spreads(Vec<Spread>),
    Floats(Vec<All>),
}

/// A sum or mean of floats, and one of histograms: at most one of them is a value.
#[derive(Clone, Default)]
struct Mixed<F> {
    floats: F,
    has_floats: bool,
    histograms: Option<Box<HistogramSum<F>>>,
}

/// What adding a row came to.
#[derive(Clone, Copy, Default)]
struct Added {
    /// How many more samples are held.
    held: usize,
    /// Whether histograms met that have no sum.
    impossible: bool,
}

#[derive(Clone, Copy, Default)]
struct Extreme {
    value: Option<f64>,
    ignored: bool,
}

/// Welford's population variance, uncompensated; NaN where a value is NaN or infinite.
#[derive(Clone, Copy, Default)]
struct Spread {
    count: f64,
    mean: f64,
    squares: f64,
    is_nan: bool,
    ignored: bool,
}

#[derive(Clone, Default)]
struct All {
    values: Vec<f64>,
    ignored: bool,
}

impl<'n> Folds<'n> {
    pub(crate) fn new(op: AggregateOp, grouping: Projection<'n>, steps: usize, span: Span) -> Self {
        Folds {
            op,
            groups: Groups::new(grouping),
            folds: Vec::new(),
            steps,
            span,
        }
    }

    /// Folds a series into its group.
    pub(crate) fn add(&mut self, row: &Row<'_>, ev: &mut Evaluator<'_>) -> Result<(), EvalError> {
        let slot = self.groups.slot(row.labels);
        if slot == self.folds.len() {
            let fold = Fold::new(self.op, self.steps);
            ev.meter.hold(fold.held)?;
            self.folds.push(fold);
        }
        let Some(fold) = self.folds.get_mut(slot) else {
            return Ok(());
        };
        fold.drop_name |= row.drop_name;
        let added = fold.values.add(self.op, row.values);
        if added.impossible {
            let name = row.labels.metric_name().unwrap_or_default();
            ev.annotations.warn(self.span, layouts_message(name));
        }
        fold.held += added.held;
        ev.meter.hold(added.held)
    }

    /// The groups' values.
    pub(crate) fn finish(
        self,
        param: &[f64],
        ev: &mut Evaluator<'_>,
    ) -> Result<Vec<Column>, EvalError> {
        let mut columns = Vec::with_capacity(self.folds.len());
        for (labels, fold) in self.groups.into_labels().into_iter().zip(self.folds) {
            ev.meter.check()?;
            ev.meter.release(fold.held);
            let column = fold.finish(labels, self.op, param, self.span, ev);
            if !column.is_empty() {
                ev.meter.hold(column.samples())?;
                columns.push(column);
            }
        }
        columns.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(columns)
    }
}

impl Fold {
    fn new(op: AggregateOp, steps: usize) -> Self {
        let (values, bytes) = match op {
            AggregateOp::Sum => {
                let sums = vec![Mixed::default(); steps];
                (Values::Sums(sums), size_of::<Mixed<Sum>>())
            }
            AggregateOp::Avg => {
                let means = vec![Mixed::default(); steps];
                (Values::Means(means), size_of::<Mixed<Mean>>())
            }
            AggregateOp::Count | AggregateOp::Group => {
                (Values::Counts(vec![0.0; steps]), size_of::<f64>())
            }
            AggregateOp::Stddev | AggregateOp::Stdvar => {
                let spreads = vec![Spread::default(); steps];
                (Values::Spreads(spreads), size_of::<Spread>())
            }
            AggregateOp::Min | AggregateOp::Max => {
                let extremes = vec![Extreme::default(); steps];
                (Values::Extremes(extremes), size_of::<Extreme>())
            }
            _ => {
                let all = vec![All::default(); steps];
                (Values::Floats(all), size_of::<All>())
            }
        };
        Fold {
            drop_name: false,
            values,
            // 16 bytes are one sample.
            held: (steps * bytes).div_ceil(16),
        }
    }

    fn finish(
        self,
        labels: Labels,
        op: AggregateOp,
        param: &[f64],
        span: Span,
        ev: &mut Evaluator<'_>,
    ) -> Column {
        let (values, ignored): (Vec<Option<Value>>, bool) = match self.values {
            Values::Sums(sums) => {
                let value = |sum: Mixed<Sum>| sum.finish(span, ev);
                (sums.into_iter().map(value).collect(), false)
            }
            Values::Means(means) => {
                let value = |mean: Mixed<Mean>| mean.finish(span, ev);
                (means.into_iter().map(value).collect(), false)
            }
            Values::Counts(counts) => {
                let value = |count: f64| match op {
                    _ if count == 0.0 => None,
                    AggregateOp::Group => Some(Value::Float(1.0)),
                    _ => Some(Value::Float(count)),
                };
                (counts.into_iter().map(value).collect(), false)
            }
            Values::Extremes(extremes) => {
                let ignored = extremes.iter().any(|extreme| extreme.ignored);
                let values = extremes.into_iter().map(|e| e.value.map(Value::Float));
                (values.collect(), ignored)
            }
            Values::Spreads(spreads) => {
                let ignored = spreads.iter().any(|spread| spread.ignored);
                let values = spreads.into_iter().map(|spread| {
                    let variance = spread.variance()?;
                    let is_root = op == AggregateOp::Stddev;
                    Some(Value::Float(if is_root {
                        variance.sqrt()
                    } else {
                        variance
                    }))
                });
                (values.collect(), ignored)
            }
            Values::Floats(all) => {
                let ignored = all.iter().any(|all| all.ignored);
                let values = all.into_iter().enumerate().map(|(step, all)| {
                    let q = param.get(step).copied().unwrap_or(f64::NAN);
                    (!all.values.is_empty()).then(|| Value::Float(quantile(q, all.values)))
                });
                (values.collect(), ignored)
            }
        };
        if ignored {
            let op = op.as_str();
            let message = format!("ignored histogram in {op} aggregation");
            ev.annotations.info(span, message);
        }
        Column {
            labels,
            drop_name: self.drop_name,
            values,
        }
    }
}

impl Values {
    /// Folds a row in.
    fn add(&mut self, op: AggregateOp, row: &[Option<Value>]) -> Added {
        let mut added = Added::default();
        match self {
            Values::Sums(sums) => {
                for (sum, value) in sums.iter_mut().zip(row) {
                    sum.add(value.as_ref(), &mut added);
                }
            }
            Values::Means(means) => {
                for (mean, value) in means.iter_mut().zip(row) {
                    mean.add(value.as_ref(), &mut added);
                }
            }
            Values::Counts(counts) => {
                for (count, value) in counts.iter_mut().zip(row) {
                    *count += f64::from(u8::from(value.is_some()));
                }
            }
            Values::Extremes(extremes) => {
                let largest = op == AggregateOp::Max;
                for (extreme, value) in extremes.iter_mut().zip(row) {
                    extreme.add(value.as_ref(), largest);
                }
            }
            Values::Spreads(spreads) => {
                for (spread, value) in spreads.iter_mut().zip(row) {
                    spread.add(value.as_ref());
                }
            }
            Values::Floats(all) => {
                for (all, value) in all.iter_mut().zip(row) {
                    match value {
                        Some(Value::Float(value)) => {
                            all.values.push(*value);
                            added.held += 1;
                        }
                        Some(Value::Histogram(_)) => all.ignored = true,
                        None => {}
                    }
                }
            }
        }
        added
    }
}

impl<F: Running> Mixed<F> {
    #[inline]
    fn add(&mut self, value: Option<&Value>, added: &mut Added) {
        match (value, &mut self.histograms) {
            (Some(Value::Float(value)), _) => {
                self.floats.add(*value);
                self.has_floats = true;
            }
            (Some(Value::Histogram(h)), Some(sum)) => {
                let before = sum.size();
                added.impossible |= !sum.add(h);
                added.held += sum.size().saturating_sub(before);
            }
            (Some(Value::Histogram(h)), none) => {
                added.held += none.insert(Box::new(HistogramSum::new(h))).size();
            }
            (None, _) => {}
        }
    }

    fn finish(self, span: Span, ev: &mut Evaluator<'_>) -> Option<Value> {
        let notes = &mut ev.annotations;
        match (self.has_floats, self.histograms) {
            (false, None) => None,
            (true, None) => Some(Value::Float(self.floats.value())),
            (true, Some(_)) => {
                let message = "encountered a mix of histograms and floats for aggregation";
                notes.warn(span, message);
                None
            }
            (false, Some(sum)) => {
                // Where there is none, that was said when it became so.
                let total = sum.finish()?;
                if total.hints_collide {
                    notes.warn(span, histogram::collision_message("aggregation"));
                }
                if total.reconciled {
                    notes.info(span, histogram::reconciled_message("aggregation"));
                }
                Some(Value::Histogram(total.histogram.compact().into()))
            }
        }
    }
}

impl Extreme {
    #[inline]
    fn add(&mut self, value: Option<&Value>, largest: bool) {
        match value {
            Some(Value::Float(new)) => {
                self.value = Some(match self.value {
                    Some(old) if old.is_nan() => *new,
                    Some(old) if largest && *new > old => *new,
                    Some(old) if !largest && *new < old => *new,
                    Some(old) => old,
                    None => *new,
                });
            }
            Some(Value::Histogram(_)) => self.ignored = true,
            None => {}
        }
    }
}

impl Spread {
    fn add(&mut self, value: Option<&Value>) {
        match value {
            Some(Value::Float(value)) => {
                self.is_nan |= !value.is_finite();
                self.count += 1.0;
                let delta = value - self.mean;
                self.mean += delta / self.count;
                self.squares += delta * (value - self.mean);
            }
            Some(Value::Histogram(_)) => self.ignored = true,
            None => {}
        }
    }

    fn variance(&self) -> Option<f64> {
        if self.is_nan {
            return Some(f64::NAN);
        }
        (self.count > 0.0).then(|| self.squares / self.count)
    }
}
