//! `deriv`, `predict_linear` and double exponential smoothing.

use crate::eval::sum::Sum;
use crate::queryable::FloatPoint;

/// A line through points: per second, and at the time of reference.
pub(crate) struct Line {
    pub(crate) slope: f64,
    pub(crate) intercept: f64,
}

/// The least-squares line, with the time of reference at 0.
pub(crate) fn fit(points: &[FloatPoint], reference_ms: i64) -> Line {
    let first = points.first().map_or(f64::NAN, |p| p.value);
    if points.iter().all(|p| p.value == first) {
        // A constant has slope 0 exactly; an infinite one has no line at all.
        if first.is_infinite() {
            return Line {
                slope: f64::NAN,
                intercept: f64::NAN,
            };
        }
        return Line {
            slope: 0.0,
            intercept: first,
        };
    }
    let mut sums = [Sum::default(); 4];
    for point in points {
        let x = point.t_ms.saturating_sub(reference_ms) as f64 / 1000.0;
        let terms = [x, point.value, x * point.value, x * x];
        for (sum, term) in sums.iter_mut().zip(terms) {
            sum.add(term);
        }
    }
    let n = points.len() as f64;
    let [x, y, xy, xx] = sums.map(|sum| sum.value());
    let slope = (xy - x * y / n) / (xx - x * x / n);
    Line {
        slope,
        intercept: y / n - slope * x / n,
    }
}

/// Holt's linear smoothing of at least two points: the last smoothed value.
pub(crate) fn double_exponential(points: &[FloatPoint], smoothing: f64, trend: f64) -> Option<f64> {
    let (first, second) = (points.first()?, points.get(1)?);
    let mut level = first.value;
    let mut slope = second.value - first.value;
    for point in points.iter().skip(1) {
        let previous = level;
        let expected = level + slope;
        level = smoothing * point.value + (1.0 - smoothing) * expected;
        slope = trend * (level - previous) + (1.0 - trend) * slope;
    }
    Some(level)
}
