//! Functions that turn one float into another.

use slogate_series::Value;

use crate::eval::date::Moment;
use crate::eval::{Column, EvalError, Evaluator};

/// The function of this name, if it is elementwise with one argument.
pub(crate) fn find(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "acos" => f64::acos,
        "acosh" => f64::acosh,
        "asin" => f64::asin,
        "asinh" => f64::asinh,
        "atan" => f64::atan,
        "atanh" => f64::atanh,
        "ceil" => f64::ceil,
        "cos" => f64::cos,
        "cosh" => f64::cosh,
        "deg" => |x| x * 180.0 / std::f64::consts::PI,
        "exp" => f64::exp,
        "floor" => f64::floor,
        "ln" => f64::ln,
        "log10" => f64::log10,
        "log2" => f64::log2,
        "rad" => |x| x * std::f64::consts::PI / 180.0,
        "sgn" => |x| {
            if x < 0.0 {
                -1.0
            } else if x > 0.0 {
                1.0
            } else {
                x
            }
        },
        "sin" => f64::sin,
        "sinh" => f64::sinh,
        "sqrt" => f64::sqrt,
        "tan" => f64::tan,
        "tanh" => f64::tanh,
        _ => return date_part(name),
    })
}

/// The function of this name, if it takes a part of a date.
pub(crate) fn date_part(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "day_of_month" => |t| Moment::from_unix(t).day as f64,
        "day_of_week" => |t| Moment::from_unix(t).weekday as f64,
        "day_of_year" => |t| Moment::from_unix(t).day_of_year as f64,
        "days_in_month" => |t| Moment::from_unix(t).days_in_month() as f64,
        "hour" => |t| Moment::from_unix(t).hour as f64,
        "minute" => |t| Moment::from_unix(t).minute as f64,
        "month" => |t| Moment::from_unix(t).month as f64,
        "year" => |t| Moment::from_unix(t).year as f64,
        _ => return None,
    })
}

/// `round` to the nearest multiple, halves up.
pub(crate) fn round(value: f64, multiple: f64) -> f64 {
    // Dividing by the inverse loses less for multiples such as 0.1.
    let inverse = 1.0 / multiple;
    (value * inverse + 0.5).floor() / inverse
}

impl Evaluator<'_> {
    /// Applies `compute` to every float; histograms drop out, and so do floats for which it
    /// gives nothing. Names are dropped.
    pub(crate) fn map_floats(
        &self,
        mut columns: Vec<Column>,
        mut compute: impl FnMut(f64, usize) -> Option<f64>,
    ) -> Result<Vec<Column>, EvalError> {
        for column in &mut columns {
            for (step, slot) in column.values.iter_mut().enumerate() {
                *slot = match slot {
                    Some(Value::Float(value)) => compute(*value, step).map(Value::Float),
                    _ => None,
                };
            }
        }
        columns.retain(|column| !column.is_empty());
        self.without_names(columns)
    }
}
