//! Function calls: which function is computed where.

use std::sync::Arc;

use slogate_series::{Labels, Value};

use crate::ast::{Call, Expr, ExprKind, ValueType};
use crate::eval::label_functions::{self, Replacement};
use crate::eval::stream::{NO_LABELS, Take};
use crate::eval::text::quantile_label;
use crate::eval::{
    Column, EvalError, Evaluated, Evaluator, Grid, aggregate, bucket, elementwise,
    merge_same_labels,
};

impl Evaluator<'_> {
    pub(super) fn call(
        &mut self,
        expr: &Expr,
        call: &Call,
        grid: Grid,
    ) -> Result<Evaluated, EvalError> {
        if let Some(scalar) = self.scalar_call(call, grid)? {
            return Ok(Evaluated::Scalar(scalar));
        }
        let columns = if let Some(columns) = self.histogram_call(call, grid)? {
            columns
        } else if let Some(columns) = self.label_call(expr, call, grid)? {
            columns
        } else {
            self.vector_call(expr, call, grid)?
        };
        Ok(Evaluated::Vector(columns))
    }

    fn scalar_call(&mut self, call: &Call, grid: Grid) -> Result<Option<Vec<f64>>, EvalError> {
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let constant = |value: f64| vec![value; grid.steps];
        Ok(Some(match (call.function.name, call.args.as_slice()) {
            ("time", _) => (0..grid.steps)
                .map(|step| seconds(grid.time_ms(step)))
                .collect(),
            ("pi", _) => constant(std::f64::consts::PI),
            ("start", _) => constant(seconds(self.query_start_ms)),
            ("end", _) => constant(seconds(self.query_end_ms)),
            ("step", _) => constant(seconds(self.durations.step_ms)),
            ("range", _) => constant(seconds(self.durations.range_ms)),
            ("scalar", [vector]) => {
                let columns = self.eval_vector(vector, grid)?;
                (0..grid.steps)
                    .map(|step| only_float(&columns, step))
                    .collect()
            }
            (name @ ("max_of" | "min_of"), [a, b]) => {
                let (a, b) = (self.eval_scalar(a, grid)?, self.eval_scalar(b, grid)?);
                let pick = if name == "max_of" {
                    elementwise::go_max
                } else {
                    elementwise::go_min
                };
                a.into_iter().zip(b).map(|(a, b)| pick(a, b)).collect()
            }
            _ => return Ok(None),
        }))
    }

    fn histogram_call(
        &mut self,
        call: &Call,
        grid: Grid,
    ) -> Result<Option<Vec<Column>>, EvalError> {
        Ok(Some(match (call.function.name, call.args.as_slice()) {
            ("histogram_count", [v]) => {
                let columns = self.eval_vector(v, grid)?;
                self.map_native(columns, |h| h.count)?
            }
            ("histogram_sum", [v]) => {
                let columns = self.eval_vector(v, grid)?;
                self.map_native(columns, |h| h.sum)?
            }
            ("histogram_avg", [v]) => {
                let columns = self.eval_vector(v, grid)?;
                self.map_native(columns, |h| h.sum / h.count)?
            }
            ("histogram_stdvar", [v]) => {
                let columns = self.eval_vector(v, grid)?;
                self.map_native(columns, bucket::variance)?
            }
            ("histogram_stddev", [v]) => {
                let columns = self.eval_vector(v, grid)?;
                self.map_native(columns, |h| bucket::variance(h).sqrt())?
            }
            ("histogram_quantile", [q, v]) => self.histogram_quantile(q, v, grid)?,
            ("histogram_fraction", [lower, upper, v]) => {
                let (lower, upper) = (
                    self.eval_scalar(lower, grid)?,
                    self.eval_scalar(upper, grid)?,
                );
                let bounds: Vec<(f64, f64)> = lower.into_iter().zip(upper).collect();
                let columns = self.eval_vector(v, grid)?;
                let span = v.unparenthesised().span;
                let mapped = self.map_distributions(&columns, grid, span, |this, name, d, step| {
                    let bounds = bounds.get(step).copied().unwrap_or((f64::NAN, f64::NAN));
                    this.distribution_fraction(bounds, name, &d, span)
                });
                self.without_names(mapped)?
            }
            ("histogram_quantiles", [v, label, qs @ ..]) => {
                let label: Arc<str> = self.eval_string(label, grid)?.into();
                let mut all = Vec::new();
                for q in qs {
                    let value = self
                        .eval_scalar(q, grid)?
                        .first()
                        .copied()
                        .unwrap_or(f64::NAN);
                    let mut columns = self.histogram_quantile(q, v, grid)?;
                    for column in &mut columns {
                        let mut labels = column.labels.to_builder();
                        labels.set(label.clone(), quantile_label(value));
                        column.labels = labels.build();
                    }
                    all.append(&mut columns);
                }
                merge_same_labels(all)?
            }
            _ => return Ok(None),
        }))
    }

    fn histogram_quantile(
        &mut self,
        q: &Expr,
        v: &Expr,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let qs = self.eval_scalar(q, grid)?;
        let columns = self.eval_vector(v, grid)?;
        for value in &qs {
            aggregate::note_quantile(&mut self.annotations, *value, q.unparenthesised().span);
        }
        let span = v.unparenthesised().span;
        let mapped = self.map_distributions(&columns, grid, span, |this, name, d, step| {
            let q = qs.get(step).copied().unwrap_or(f64::NAN);
            this.distribution_quantile(q, name, d, grid.time_ms(step), span)
        });
        self.without_names(mapped)
    }

    fn label_call(
        &mut self,
        expr: &Expr,
        call: &Call,
        grid: Grid,
    ) -> Result<Option<Vec<Column>>, EvalError> {
        let [vector, rest @ ..] = call.args.as_slice() else {
            return Ok(None);
        };
        let name = call.function.name;
        if !matches!(
            name,
            "label_replace" | "label_join" | "sort_by_label" | "sort_by_label_desc"
        ) {
            return Ok(None);
        }
        let mut texts = Vec::new();
        for text in rest {
            texts.push(self.eval_string(text, grid)?);
        }
        let mut columns = self.eval_vector(vector, grid)?;
        Ok(Some(match (name, texts.as_slice()) {
            ("label_replace", [dst, template, src, pattern]) => label_functions::label_replace(
                columns,
                &Replacement {
                    dst,
                    template,
                    src,
                    pattern,
                },
            )?,
            ("label_join", [dst, separator, sources @ ..]) => {
                label_functions::label_join(columns, dst, separator, sources)?
            }
            _ if self.note_sort_in_range(expr, grid) => columns,
            _ => {
                columns.sort_by(|a, b| {
                    let value = |c: &Column, label: &str| {
                        c.labels.get(label).unwrap_or_default().to_owned()
                    };
                    let by_labels = texts.iter().map(|label| {
                        label_functions::natural_order(&value(a, label), &value(b, label))
                    });
                    let order = by_labels.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then);
                    let order = order.then_with(|| a.labels.cmp(&b.labels));
                    if name == "sort_by_label_desc" {
                        order.reverse()
                    } else {
                        order
                    }
                });
                columns
            }
        }))
    }

    fn vector_call(
        &mut self,
        expr: &Expr,
        call: &Call,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let name = call.function.name;
        match (name, call.args.as_slice()) {
            ("absent" | "absent_over_time", [v]) => self.absent(expr, v, grid),
            ("vector", [s]) => Ok(vec![Column::from_scalar(&self.eval_scalar(s, grid)?)]),
            ("timestamp", [v]) => self.timestamp(v, grid),
            ("start_timestamp", [v]) => self.start_timestamp(v, grid),
            ("info", [v, rest @ ..]) => self.info(v, rest.first(), grid),
            ("sort" | "sort_desc", [v]) => self.sorted(expr, name == "sort_desc", v, grid),
            (name, []) if let Some(part) = elementwise::date_part(name) => {
                let times = (0..grid.steps).map(|step| part(grid.time_ms(step) as f64 / 1000.0));
                Ok(vec![Column::from_scalar(&times.collect::<Vec<_>>())])
            }
            _ => Err(EvalError::execution(format!(
                "function {name:?} is not supported"
            ))),
        }
    }

    /// 1 at the steps where no series has a value; for `absent_over_time`, no sample.
    fn absent(&mut self, expr: &Expr, arg: &Expr, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let rows = match &expr.kind {
            ExprKind::Call(call) if arg.value_type() == ValueType::Matrix => {
                self.range_call(call, grid)?
            }
            _ => Some(self.stream(arg, grid)?),
        };
        let labels: Labels = label_functions::labels_of_absent(arg);
        let one = Some(Value::Float(1.0));
        let mut column = Column {
            labels,
            drop_name: false,
            values: vec![one; grid.steps],
        };
        if let Some(rows) = rows {
            rows.run(self, grid, NO_LABELS, &mut |_, row| {
                for (slot, value) in column.values.iter_mut().zip(row.values.iter()) {
                    if value.is_some() {
                        *slot = None;
                    }
                }
                Ok(())
            })?;
        }
        Ok(if column.is_empty() {
            Vec::new()
        } else {
            vec![column]
        })
    }

    /// The samples' own times for a bare selector, the steps' for anything else.
    fn timestamp(&mut self, v: &Expr, grid: Grid) -> Result<Vec<Column>, EvalError> {
        if let ExprKind::Vector(selector) = &v.unparenthesised().kind {
            let stream = self.newest(selector, v.span, grid, Take::Time)?;
            return self.collect(stream.without_name(), grid);
        }
        let mut columns = self.eval_vector(v, grid)?;
        for column in &mut columns {
            for (step, value) in column.values.iter_mut().enumerate() {
                if let Some(value) = value {
                    *value = Value::Float(grid.time_ms(step) as f64 / 1000.0);
                }
            }
        }
        self.without_names(columns)
    }

    /// When the samples' counts began, of a bare selector; of anything else nothing is known.
    fn start_timestamp(&mut self, v: &Expr, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let ExprKind::Vector(selector) = &v.unparenthesised().kind else {
            self.eval_vector(v, grid)?;
            return Ok(Vec::new());
        };
        if !self.engine.use_start_timestamps {
            return Ok(Vec::new());
        }
        let stream = self.newest(selector, v.span, grid, Take::Start)?;
        self.collect(stream.without_name(), grid)
    }

    /// Warns that sorting means nothing over several steps, if there are.
    fn note_sort_in_range(&mut self, expr: &Expr, grid: Grid) -> bool {
        let in_range = grid.steps > 1;
        if in_range {
            let message = "sort is ineffective for range queries since results are always ordered \
                           by labels";
            self.annotations.warn(expr.span, message);
        }
        in_range
    }

    /// Sorted by value, NaN last either way; in a range query the order means nothing.
    fn sorted(
        &mut self,
        expr: &Expr,
        descending: bool,
        v: &Expr,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let mut columns = self.eval_vector(v, grid)?;
        let is_float = |value: &Value| matches!(value, Value::Float(_));
        for slot in columns.iter_mut().flat_map(|column| &mut column.values) {
            *slot = slot.take().filter(is_float);
        }
        columns.retain(|column| !column.is_empty());
        if self.note_sort_in_range(expr, grid) {
            return Ok(columns);
        }
        let float = |column: &Column| match column.value(0) {
            Some(Value::Float(value)) => Some(*value),
            _ => None,
        };
        columns.sort_by(|a, b| {
            let (a, b) = (float(a).unwrap_or(f64::NAN), float(b).unwrap_or(f64::NAN));
            aggregate::nan_last(a, b, descending)
        });
        Ok(columns)
    }
}

fn only_float(columns: &[Column], step: usize) -> f64 {
    let mut floats = columns
        .iter()
        .filter_map(|column| match column.value(step) {
            Some(Value::Float(value)) => Some(*value),
            _ => None,
        });
    match (floats.next(), floats.next()) {
        (Some(value), None) => value,
        _ => f64::NAN,
    }
}
