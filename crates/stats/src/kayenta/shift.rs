//! The shift between two series by Mann and Whitney's test, with Kayenta's root finder.
//!
//! For a shift `μ` the statistic is `g(μ) = (W - sign(W)/2) / σ`: `W` is the sum of the ranks of
//! `x - μ` among both, less its mean, and `σ` its standard deviation with ties counted. `g` falls
//! from one end of the possible shifts to the other; the estimate is where it is 0, the
//! confidence interval ends where it is `±z`. The roots are found by Brent's method to 1e-4,
//! *absolute*: the result depends on the unit, and series of fractions should be scaled to
//! percent first. An exact Hodges-Lehmann estimate gives other numbers; see
//! [`crate::mann_whitney`] for it.

use crate::normal;
use crate::ranks::ranks;

/// A shift of one series against another, in the series' unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// Where the confidence interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
    /// The estimate.
    pub estimate: f64,
}

/// All values of both series are one at some shift, so that the statistic has no scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shift can't be computed: all values are tied")]
pub struct AllTied;

/// How exact a root is, in the series' unit.
const TOLERANCE: f64 = 1e-4;

const ITERATIONS_MAX: u32 = 1000;

/// The statistic `g` of `x - mu` against `y`, less `level`.
///
/// # Errors
/// When all values are tied. Without values on a side it is NaN.
pub fn statistic(mu: f64, level: f64, x: &[f64], y: &[f64]) -> Result<f64, AllTied> {
    let (m, n) = (x.len() as f64, y.len() as f64);
    let pooled = ranks(x.iter().map(|value| value - mu), y);
    let w = pooled.first_sum - m * (m + 1.0) / 2.0 - m * n / 2.0;
    // Not `signum`, which is 1 at 0.
    let correction = match w {
        w if w > 0.0 => 0.5,
        w if w < 0.0 => -0.5,
        _ => 0.0,
    };
    let sigma = ((m * n / 12.0) * ((m + n + 1.0) - pooled.ties / ((m + n) * (m + n - 1.0)))).sqrt();
    if sigma == 0.0 {
        return Err(AllTied);
    }
    Ok((w - correction) / sigma - level)
}

/// The shift of `x` against `y` with a confidence interval (0.98 for 98 %).
///
/// # Errors
/// When all values are tied at one of the shifts tried.
pub fn shift(x: &[f64], y: &[f64], confidence: f64) -> Result<Shift, AllTied> {
    let (low, high) = range(x, y);
    let z = normal::quantile((1.0 - confidence) / 2.0).unwrap_or(f64::NAN);
    let clamped = |level: f64| -> Result<f64, AllTied> {
        let (at_low, at_high) = (statistic(low, level, x, y)?, statistic(high, level, x, y)?);
        if at_low <= 0.0 {
            return Ok(low);
        }
        if at_high >= 0.0 {
            return Ok(high);
        }
        root(low, high, at_low, at_high, |mu| statistic(mu, level, x, y))
    };
    let (from, to) = (clamped(-z)?, clamped(z)?);
    let (at_low, at_high) = (statistic(low, 0.0, x, y)?, statistic(high, 0.0, x, y)?);
    let estimate = root(low, high, at_low, at_high, |mu| statistic(mu, 0.0, x, y))?;
    Ok(Shift {
        low: from,
        high: to,
        estimate,
    })
}

/// The least and the greatest difference between a value of `x` and one of `y`.
pub fn range(x: &[f64], y: &[f64]) -> (f64, f64) {
    let min = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (min(x) - max(y), max(x) - min(y))
}

/// Where `f`, which is `at_low` at `low` and `at_high` at `high`, is 0 (R. P. Brent, "Algorithms
/// for minimization without derivatives", 1973, with the stopping rule of R's `zeroin`).
///
/// `b` is the best guess, `a` the one before, `c` the end on the other side of the root.
fn root(
    low: f64,
    high: f64,
    at_low: f64,
    at_high: f64,
    f: impl Fn(f64) -> Result<f64, AllTied>,
) -> Result<f64, AllTied> {
    if at_low == 0.0 {
        return Ok(low);
    }
    if at_high == 0.0 {
        return Ok(high);
    }
    let (mut a, mut f_a) = (low, at_low);
    let (mut b, mut f_b) = (high, at_high);
    let (mut c, mut f_c) = (a, f_a);
    for _ in 0..=ITERATIONS_MAX {
        let before = b - a;
        if f_c.abs() < f_b.abs() {
            (a, b, c) = (b, c, b);
            (f_a, f_b, f_c) = (f_b, f_c, f_b);
        }
        let exact = 2.0 * f64::EPSILON * b.abs() + TOLERANCE / 2.0;
        let half = (c - b) / 2.0;
        if half.abs() <= exact || f_b == 0.0 {
            return Ok(b);
        }
        let mut step = half;
        if before.abs() >= exact && f_a.abs() > f_b.abs() {
            let (p, q) = interpolated((a, f_a), (b, f_b), (c, f_c));
            let inside = 0.75 * (c - b) * q - (exact * q).abs() / 2.0;
            if p < inside && p < (before * q / 2.0).abs() {
                step = p / q;
            }
        }
        if step.abs() < exact {
            step = if step > 0.0 { exact } else { -exact };
        }
        (a, f_a) = (b, f_b);
        b += step;
        f_b = f(b)?;
        if (f_b > 0.0 && f_c > 0.0) || (f_b < 0.0 && f_c < 0.0) {
            (c, f_c) = (a, f_a);
        }
    }
    Ok(b)
}

/// The step from `b` to where a curve through the points is 0, as a fraction with `p >= 0`: a line
/// where `a` is `c`, else an inverse parabola.
fn interpolated((a, f_a): (f64, f64), (b, f_b): (f64, f64), (c, f_c): (f64, f64)) -> (f64, f64) {
    let (p, q) = if a == c {
        let t = f_b / f_a;
        ((c - b) * t, 1.0 - t)
    } else {
        let (q, t, s) = (f_a / f_c, f_b / f_c, f_b / f_a);
        let p = s * ((c - b) * q * (q - t) - (b - a) * (t - 1.0));
        (p, (q - 1.0) * (t - 1.0) * (s - 1.0))
    };
    if p > 0.0 { (p, -q) } else { (-p, q) }
}
