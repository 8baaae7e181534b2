//! Function calls: which function is computed where.

use std::collections::HashSet;
use std::sync::Arc;

use slogate_series::{Labels, Value};

use crate::ast::{Call, Expr, ExprKind, Extension};
use crate::eval::column::without_name;
use crate::eval::label_functions::{self, Replacement};
use crate::eval::rate::{self, RateKind};
use crate::eval::text::quantile_label;
use crate::eval::window::{FloatPoint, Window};
use crate::eval::{
    Column, EvalError, Evaluated, Evaluator, Grid, aggregate, bucket, elementwise,
    merge_same_labels, over_time, regression,
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
        let columns = if let Some(columns) = self.range_call(call, grid)? {
            columns
        } else if let Some(columns) = self.histogram_call(call, grid)? {
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
                let pick = if name == "max_of" { go_max } else { go_min };
                a.into_iter().zip(b).map(|(a, b)| pick(a, b)).collect()
            }
            _ => return Ok(None),
        }))
    }

    /// Functions of range vectors.
    fn range_call(&mut self, call: &Call, grid: Grid) -> Result<Option<Vec<Column>>, EvalError> {
        let name = call.function.name;
        let is_range = |arg: &&Expr| arg.value_type() == crate::ast::ValueType::Matrix;
        let Some(arg) = call.args.iter().find(is_range) else {
            return Ok(None);
        };
        let mut scalars = Vec::new();
        for other in call.args.iter().filter(|other| !is_range(other)) {
            scalars.push(self.eval_scalar(other, grid)?);
        }
        if name == "double_exponential_smoothing" {
            check_smoothing(&scalars)?;
        }
        check_extension(arg, name)?;
        let data = self.range_data(arg, grid)?;
        if name == "absent_over_time" {
            let present = data.map(grid, &mut self.meter, |_, _| Some(Value::Float(1.0)))?;
            return Ok(Some(absent(arg, &present, grid)));
        }
        // Whatever is said of the call is said of its first argument.
        let span = call.args.first().unwrap_or(arg).unparenthesised().span;
        let notes = &mut self.annotations;
        let uses_start = self.engine.use_start_timestamps;
        let by_type = self.engine.type_and_unit_labels;
        let counter = |per_second| RateKind {
            is_counter: true,
            per_second,
            uses_start,
            by_type,
        };
        let columns = data.map(grid, &mut self.meter, |window, step| {
            let param = |at: usize| {
                let values: Option<&Vec<f64>> = scalars.get(at);
                values
                    .and_then(|values| values.get(step))
                    .copied()
                    .unwrap_or(f64::NAN)
            };
            match name {
                "rate" => rate::extrapolated(counter(true), window, span, notes),
                "increase" => rate::extrapolated(counter(false), window, span, notes),
                "delta" => {
                    let kind = RateKind {
                        is_counter: false,
                        per_second: false,
                        uses_start: false,
                        by_type: false,
                    };
                    rate::extrapolated(kind, window, span, notes)
                }
                "irate" => rate::instantaneous(true, uses_start, window, span, notes),
                "idelta" => rate::instantaneous(false, false, window, span, notes),
                "sum_over_time" => over_time::sum_or_mean(false, window, span, notes),
                "avg_over_time" => over_time::sum_or_mean(true, window, span, notes),
                "deriv" | "predict_linear" => {
                    if window.floats.len() < 2 {
                        return None;
                    }
                    over_time::note_ignored(window, span, notes);
                    line_value(name, window, param(0))
                }
                "double_exponential_smoothing" => {
                    if window.floats.len() >= 2 {
                        over_time::note_ignored(window, span, notes);
                    }
                    regression::double_exponential(window.floats, param(0), param(1))
                        .map(Value::Float)
                }
                "quantile_over_time" => {
                    let q = param(0);
                    if !window.floats.is_empty() {
                        aggregate::note_quantile(notes, q, span);
                    }
                    over_time::of_floats(window, span, notes, |points| {
                        aggregate::quantile(q, points.iter().map(|p| p.value).collect())
                    })
                }
                "resets" => rate::resets(window, uses_start).map(Value::Float),
                "changes" => rate::changes(window).map(Value::Float),
                _ => match any_sample(name, window) {
                    Some(value) => Some(value),
                    None => over_time::of_floats(window, span, notes, float_function(name)?),
                },
            }
        })?;
        let keeps_name = matches!(name, "last_over_time" | "first_over_time");
        if !keeps_name && !self.engine.delayed_name_removal {
            // Two series that differ in their name only don't even follow each other.
            let mut seen = HashSet::with_capacity(columns.len());
            let is_new = |column: &Column| seen.insert(without_name(&column.labels));
            if !columns.iter().all(is_new) {
                let message = "vector cannot contain metrics with the same labelset";
                return Err(EvalError::execution(message));
            }
        }
        Ok(Some(if keeps_name {
            merge_same_labels(columns)?
        } else {
            self.without_names(columns)?
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
            ("absent", [v]) => {
                let columns = self.eval_vector(v, grid)?;
                Ok(absent(v, &columns, grid))
            }
            ("vector", [s]) => Ok(vec![Column::from_scalar(&self.eval_scalar(s, grid)?)]),
            ("timestamp", [v]) => self.timestamp(v, grid),
            ("start_timestamp", [v]) => self.start_timestamp(v, grid),
            ("info", [v, rest @ ..]) => self.info(v, rest.first(), grid),
            ("sort" | "sort_desc", [v]) => self.sorted(expr, name == "sort_desc", v, grid),
            ("round", [v, rest @ ..]) => {
                let multiples = match rest.first() {
                    Some(multiple) => self.eval_scalar(multiple, grid)?,
                    None => vec![1.0; grid.steps],
                };
                let columns = self.eval_vector(v, grid)?;
                self.map_floats(columns, |value, step| {
                    Some(elementwise::round(value, at(&multiples, step)))
                })
            }
            ("clamp", [v, min, max]) => {
                let (min, max) = (self.eval_scalar(min, grid)?, self.eval_scalar(max, grid)?);
                let columns = self.eval_vector(v, grid)?;
                self.map_floats(columns, |value, step| {
                    let (min, max) = (at(&min, step), at(&max, step));
                    // An empty interval holds no value.
                    (max >= min || min.is_nan() || max.is_nan())
                        .then(|| go_max(min, go_min(max, value)))
                })
            }
            ("clamp_min", [v, min]) => {
                let min = self.eval_scalar(min, grid)?;
                let columns = self.eval_vector(v, grid)?;
                self.map_floats(columns, |value, step| Some(go_max(at(&min, step), value)))
            }
            ("clamp_max", [v, max]) => {
                let max = self.eval_scalar(max, grid)?;
                let columns = self.eval_vector(v, grid)?;
                self.map_floats(columns, |value, step| Some(go_min(at(&max, step), value)))
            }
            (name, []) if let Some(part) = elementwise::date_part(name) => {
                let times = (0..grid.steps).map(|step| part(grid.time_ms(step) as f64 / 1000.0));
                Ok(vec![Column::from_scalar(&times.collect::<Vec<_>>())])
            }
            (name, [v]) if let Some(compute) = elementwise::find(name) => {
                let columns = self.eval_vector(v, grid)?;
                self.map_floats(columns, |value, _| Some(compute(value)))
            }
            _ => Err(EvalError::execution(format!(
                "function {name:?} is not supported"
            ))),
        }
    }

    /// The samples' own times for a bare selector, the steps' for anything else.
    fn timestamp(&mut self, v: &Expr, grid: Grid) -> Result<Vec<Column>, EvalError> {
        let seconds = |ms: i64| Value::Float(ms as f64 / 1000.0);
        if let ExprKind::Vector(selector) = &v.unparenthesised().kind {
            let columns = self.newest(selector, grid, |sample| seconds(sample.t_ms))?;
            return self.without_names(columns);
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
        let columns = self.newest(selector, grid, |sample| {
            Value::Float(sample.start_ms as f64 / 1000.0)
        })?;
        self.without_names(columns)
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

fn at(values: &[f64], step: usize) -> f64 {
    values.get(step).copied().unwrap_or(f64::NAN)
}

/// As Go's `math.Max`: infinity if either is, else NaN if either is.
fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

/// As Go's `math.Min`: minus infinity if either is, else NaN if either is.
fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
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

/// 1 at the steps where no column has a value.
fn absent(arg: &Expr, columns: &[Column], grid: Grid) -> Vec<Column> {
    let labels: Labels = label_functions::labels_of_absent(arg);
    let mut column = Column::empty(labels, false, grid.steps);
    for step in 0..grid.steps {
        if columns.iter().all(|column| column.value(step).is_none()) {
            column.set(step, Value::Float(1.0));
        }
    }
    if column.is_empty() {
        Vec::new()
    } else {
        vec![column]
    }
}

fn check_smoothing(scalars: &[Vec<f64>]) -> Result<(), EvalError> {
    for (values, (name, short)) in scalars.iter().zip([("smoothing", "sf"), ("trend", "tf")]) {
        if let Some(value) = values.iter().find(|value| **value <= 0.0 || **value >= 1.0) {
            return Err(EvalError::execution(format!(
                "invalid {name} factor. Expected: 0 < {short} < 1, got: {value:.6}"
            )));
        }
    }
    Ok(())
}

/// Refuses a range with samples from beyond its borders where the function can't use them.
fn check_extension(arg: &Expr, name: &str) -> Result<(), EvalError> {
    let ExprKind::Matrix(matrix) = &arg.unparenthesised().kind else {
        return Ok(());
    };
    let Some(extension) = matrix.selector.extension else {
        return Ok(());
    };
    let allowed: &[&str] = match extension {
        Extension::Anchored => &["changes", "delta", "increase", "rate", "resets"],
        Extension::Smoothed => &["delta", "increase", "rate"],
    };
    if allowed.contains(&name) {
        return Ok(());
    }
    Err(EvalError::execution(format!(
        "{} modifier can only be used with: {} - not with {name}",
        extension.as_str(),
        allowed.join(", "),
    )))
}

fn line_value(name: &str, window: &Window<'_>, ahead_seconds: f64) -> Option<Value> {
    if name == "deriv" {
        let line = regression::fit(window.floats, window.floats.first()?.t_ms);
        return Some(Value::Float(line.slope));
    }
    let line = regression::fit(window.floats, window.step_ms);
    Some(Value::Float(line.slope * ahead_seconds + line.intercept))
}

/// Functions to which floats and histograms are alike.
fn any_sample(name: &str, window: &Window<'_>) -> Option<Value> {
    let seconds = |t_ms: i64| Value::Float(t_ms as f64 / 1000.0);
    Some(match name {
        "count_over_time" => Value::Float(window.len() as f64),
        "present_over_time" => Value::Float(1.0),
        "last_over_time" => over_time::edge(window, true)?.1,
        "first_over_time" => over_time::edge(window, false)?.1,
        "ts_of_last_over_time" => seconds(over_time::edge(window, true)?.0),
        "ts_of_first_over_time" => seconds(over_time::edge(window, false)?.0),
        _ => return None,
    })
}

/// The function of floats of this name.
fn float_function(name: &str) -> Option<fn(&[FloatPoint]) -> f64> {
    Some(match name {
        "min_over_time" => over_time::min,
        "max_over_time" => over_time::max,
        "stddev_over_time" => |points| over_time::variance(points).sqrt(),
        "stdvar_over_time" => over_time::variance,
        "mad_over_time" => over_time::median_absolute_deviation,
        "ts_of_max_over_time" => {
            |points| over_time::extreme(points, |v, best| v >= best).t_ms as f64 / 1000.0
        }
        "ts_of_min_over_time" => {
            |points| over_time::extreme(points, |v, best| v <= best).t_ms as f64 / 1000.0
        }
        _ => return None,
    })
}
