//! Functions that turn one float into another.

use crate::eval::date::Moment;

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

/// Whether a function of this name is elementwise over its first argument, the others being
/// scalars.
pub(crate) fn is_one(name: &str) -> bool {
    matches!(name, "round" | "clamp" | "clamp_min" | "clamp_max") || find(name).is_some()
}

/// What becomes of a float at a step; `None` drops it.
pub(crate) type Elementwise = Box<dyn Fn(f64, usize) -> Option<f64>>;

/// The elementwise function of this name.
pub(crate) fn function(name: &str, mut scalars: Vec<Vec<f64>>) -> Option<Elementwise> {
    let mut scalars = scalars.drain(..);
    Some(match (name, scalars.next(), scalars.next()) {
        ("round", Some(multiples), None) => {
            Box::new(move |value, step| Some(round(value, at(&multiples, step))))
        }
        ("round", None, None) => Box::new(|value, _| Some(round(value, 1.0))),
        ("clamp", Some(min), Some(max)) => Box::new(move |value, step| {
            let (min, max) = (at(&min, step), at(&max, step));
            // An empty interval holds no value.
            (max >= min || min.is_nan() || max.is_nan()).then(|| go_max(min, go_min(max, value)))
        }),
        ("clamp_min", Some(min), None) => {
            Box::new(move |value, step| Some(go_max(at(&min, step), value)))
        }
        ("clamp_max", Some(max), None) => {
            Box::new(move |value, step| Some(go_min(at(&max, step), value)))
        }
        (name, None, None) => {
            let compute = find(name)?;
            Box::new(move |value, _| Some(compute(value)))
        }
        _ => return None,
    })
}

fn at(values: &[f64], step: usize) -> f64 {
    values.get(step).copied().unwrap_or(f64::NAN)
}

/// As Go's `math.Max`: infinity if either is, else NaN if either is.
pub(crate) fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

/// As Go's `math.Min`: minus infinity if either is, else NaN if either is.
pub(crate) fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
}
