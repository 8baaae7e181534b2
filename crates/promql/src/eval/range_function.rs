//! Functions of range vectors: which one is computed where.

use slogate_series::Value;

use crate::ast::{Expr, ExprKind, Extension, Span};
use crate::eval::annotation::Annotations;
use crate::eval::rate::{self, RateKind};
use crate::eval::window::{UsesStart, Window};
use crate::eval::{Engine, EvalError, aggregate, over_time, regression, select};
use crate::queryable::FloatPoint;

/// A function of this name, its scalar arguments evaluated at every step.
pub(crate) struct RangeFunction {
    name: &'static str,
    scalars: Vec<Vec<f64>>,
    /// The first argument's place.
    span: Span,
    compute: Compute,
    /// Whether start times tell of resets.
    uses_start: bool,
}

/// How a window becomes a value.
#[derive(Clone, Copy)]
enum Compute {
    Extrapolated(RateKind),
    Instantaneous {
        is_rate: bool,
    },
    Resets,
    /// The value at the window's end, between its neighbours.
    Between,
    SumOrMean {
        is_mean: bool,
    },
    Line,
    Smoothed,
    Any(fn(&Window<'_>) -> Option<Value>),
    Floats(fn(&[FloatPoint]) -> f64),
    Quantile,
}

impl RangeFunction {
    /// # Errors
    /// When there is no function of this name, or an argument is of no use.
    pub(crate) fn new(
        name: &'static str,
        scalars: Vec<Vec<f64>>,
        span: Span,
        engine: &Engine,
    ) -> Result<Self, EvalError> {
        let uses_start = engine.use_start_timestamps;
        let counter = |per_second| {
            Compute::Extrapolated(RateKind {
                is_counter: true,
                per_second,
                uses_start,
                by_type: engine.type_and_unit_labels,
            })
        };
        let compute = match name {
            "rate" => counter(true),
            "increase" => counter(false),
            "delta" => Compute::Extrapolated(RateKind {
                is_counter: false,
                per_second: false,
                uses_start: false,
                by_type: false,
            }),
            "irate" => Compute::Instantaneous { is_rate: true },
            "idelta" => Compute::Instantaneous { is_rate: false },
            "resets" => Compute::Resets,
            "quantile_over_time" => Compute::Quantile,
            "sum_over_time" => Compute::SumOrMean { is_mean: false },
            "avg_over_time" => Compute::SumOrMean { is_mean: true },
            "deriv" | "predict_linear" => Compute::Line,
            "double_exponential_smoothing" => {
                check_smoothing(&scalars)?;
                Compute::Smoothed
            }
            _ => match (of_any_sample(name), of_floats(name)) {
                (Some(compute), _) => Compute::Any(compute),
                (None, Some(compute)) => Compute::Floats(compute),
                (None, None) => {
                    let message = format!("function {name:?} is not supported");
                    return Err(EvalError::execution(message));
                }
            },
        };
        Ok(RangeFunction {
            name,
            scalars,
            span,
            compute,
            uses_start,
        })
    }

    /// What a smoothed selector is: the value at the end of an empty range.
    pub(crate) fn between(span: Span) -> Self {
        RangeFunction {
            name: "",
            scalars: Vec::new(),
            span,
            compute: Compute::Between,
            uses_start: false,
        }
    }

    /// Whether it asks a window for counter resets, and what tells of them.
    pub(crate) fn counters(&self) -> Option<UsesStart> {
        let asks = match self.compute {
            Compute::Extrapolated(kind) => kind.is_counter,
            Compute::Resets => true,
            _ => false,
        };
        asks.then_some(UsesStart(self.uses_start))
    }

    /// Whether the result is still what the metric's name says. Absence only asks whether there
    /// is any result: two series that differ by their names must not clash over it.
    pub(crate) fn keeps_name(&self) -> bool {
        let keeping = ["last_over_time", "first_over_time", "absent_over_time"];
        matches!(self.compute, Compute::Between) || keeping.contains(&self.name)
    }

    /// The value of a window that holds samples.
    pub(crate) fn compute(
        &self,
        window: &Window<'_>,
        step: usize,
        notes: &mut Annotations,
    ) -> Option<Value> {
        let span = self.span;
        match self.compute {
            Compute::Extrapolated(kind) => rate::extrapolated(kind, window, span, notes),
            Compute::Instantaneous { is_rate } => {
                let uses_start = is_rate && self.uses_start;
                rate::instantaneous(is_rate, uses_start, window, span, notes)
            }
            Compute::SumOrMean { is_mean } => over_time::sum_or_mean(is_mean, window, span, notes),
            Compute::Resets => rate::resets(window, self.uses_start).map(Value::Float),
            Compute::Between => select::between(window, span, notes),
            Compute::Line => {
                over_time::note_ignored(window, span, notes);
                if window.floats.len() < 2 {
                    return None;
                }
                line_value(self.name, window, self.scalar(0, step))
            }
            Compute::Smoothed => {
                over_time::note_ignored(window, span, notes);
                let (smoothing, trend) = (self.scalar(0, step), self.scalar(1, step));
                regression::double_exponential(window.floats, smoothing, trend).map(Value::Float)
            }
            Compute::Any(compute) => compute(window),
            Compute::Floats(compute) => over_time::of_floats(window, span, notes, compute),
            Compute::Quantile => {
                let q = self.scalar(0, step);
                if !window.floats.is_empty() {
                    aggregate::note_quantile(notes, q, span);
                }
                over_time::of_floats(window, span, notes, |points| {
                    aggregate::quantile(q, points.iter().map(|p| p.value).collect())
                })
            }
        }
    }

    fn scalar(&self, at: usize, step: usize) -> f64 {
        let values = self.scalars.get(at);
        let value = values.and_then(|values| values.get(step));
        value.copied().unwrap_or(f64::NAN)
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
pub(crate) fn check_extension(arg: &Expr, name: &str) -> Result<(), EvalError> {
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

/// The function of this name, if floats and histograms are alike to it.
fn of_any_sample(name: &str) -> Option<fn(&Window<'_>) -> Option<Value>> {
    Some(match name {
        "count_over_time" => |window| Some(Value::Float(window.len() as f64)),
        "present_over_time" => |_| Some(Value::Float(1.0)),
        "last_over_time" => |window| Some(over_time::edge(window, true)?.1),
        "first_over_time" => |window| Some(over_time::edge(window, false)?.1),
        "ts_of_last_over_time" => |window| Some(seconds(over_time::edge(window, true)?.0)),
        "ts_of_first_over_time" => |window| Some(seconds(over_time::edge(window, false)?.0)),
        "changes" => |window| rate::changes(window).map(Value::Float),
        _ => return None,
    })
}

fn seconds(t_ms: i64) -> Value {
    Value::Float(t_ms as f64 / 1000.0)
}

/// The function of this name, if it is one of floats.
fn of_floats(name: &str) -> Option<fn(&[FloatPoint]) -> f64> {
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
