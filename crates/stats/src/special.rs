//! Sums in log space and quantiles of the Beta distribution.
//!
//! E-values span hundreds of orders of magnitude, so everything here works on their natural
//! logarithms. The Beta quantile is ours because the inverse in statrs does not return for large
//! counts: bisection on its cumulative function always does.

use statrs::function::beta::beta_reg;

/// `ln(e^a + e^b)` without overflow; negative infinity stands for zero.
pub fn log_add_exp(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    if high == f64::NEG_INFINITY {
        return high;
    }
    high + (low - high).exp().ln_1p()
}

/// `ln Σ e^x` without overflow; negative infinity for an empty sum.
pub fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let high = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if high == f64::NEG_INFINITY {
        return high;
    }
    high + values.map(|value| (value - high).exp()).sum::<f64>().ln()
}

/// The value below which a Beta(`a`, `b`) variable stays with probability `p`.
///
/// Bisection on the logit scale, so that quantiles near 0 and near 1 keep their relative
/// precision. `None` unless `a` and `b` are positive and finite and `p` is strictly between 0
/// and 1.
pub fn beta_quantile(a: f64, b: f64, p: f64) -> Option<f64> {
    let shape_ok = |shape: f64| shape > 0.0 && shape.is_finite();
    if !(shape_ok(a) && shape_ok(b) && p > 0.0 && p < 1.0) {
        return None;
    }
    // 1 - x rounds to 1 below 1e-17: one side of the logit scale is enough for f64.
    let (mut low, mut high) = (-745.0_f64, 37.0_f64);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if beta_reg(a, b, logistic(middle)) < p {
            low = middle;
        } else {
            high = middle;
        }
        if high - low <= f64::EPSILON * middle.abs() {
            break;
        }
    }
    Some(logistic(0.5 * (low + high)))
}

/// `points` values spaced evenly on a log scale from `from` to `to`, both included.
pub(crate) fn log_spaced(from: f64, to: f64, points: u32) -> impl Iterator<Item = f64> + Clone {
    let step = (to / from).ln() / f64::from(points.max(2) - 1);
    (0..points).map(move |i| from * (step * f64::from(i)).exp())
}

/// Where a condition that holds at `inside` and not at `outside` stops holding, by bisection. The
/// result is on the outside, or `outside` itself where the condition holds up to there.
pub(crate) fn edge(mut inside: f64, mut outside: f64, holds: impl Fn(f64) -> bool) -> f64 {
    if holds(outside) {
        return outside;
    }
    for _ in 0..200 {
        let middle = 0.5 * (inside + outside);
        if middle == inside || middle == outside {
            break;
        }
        if holds(middle) {
            inside = middle;
        } else {
            outside = middle;
        }
    }
    outside
}

fn logistic(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn log_sums_survive_numbers_that_overflow() {
        assert_eq!(log_add_exp(f64::NEG_INFINITY, 2.0), 2.0);
        assert_eq!(
            log_add_exp(f64::NEG_INFINITY, f64::NEG_INFINITY),
            f64::NEG_INFINITY
        );
        assert!((log_add_exp(1000.0, 1000.0) - (1000.0 + 2.0_f64.ln())).abs() < 1e-12);
        let sum = log_sum_exp([-2000.0, -2000.0, -2000.0].into_iter());
        assert!((sum - (-2000.0 + 3.0_f64.ln())).abs() < 1e-12);
        assert_eq!(log_sum_exp(std::iter::empty()), f64::NEG_INFINITY);
    }

    #[test]
    fn beta_quantiles_have_their_closed_forms() {
        for p in [1e-6, 0.01, 0.3, 0.5, 0.975] {
            let uniform = beta_quantile(1.0, 1.0, p).expect("valid");
            assert!((uniform - p).abs() < 1e-12, "{uniform} at {p}");
            let power = beta_quantile(5.0, 1.0, p).expect("valid");
            assert!((power - p.powf(0.2)).abs() < 1e-12, "{power} at {p}");
        }
        assert_eq!(beta_quantile(0.0, 1.0, 0.5), None);
        assert_eq!(beta_quantile(1.0, f64::NAN, 0.5), None);
        assert_eq!(beta_quantile(1.0, 1.0, 1.0), None);
    }

    /// The inverse in statrs hangs from about ten million trials on.
    #[test]
    fn beta_quantile_returns_at_counts_of_a_busy_service() {
        for n in [1e6, 1e7, 1e9] {
            let (a, b) = (0.001 * n, 0.999 * n);
            let middle = beta_quantile(a, b, 0.5).expect("valid");
            let spread = (0.001 * 0.999 / n).sqrt();
            assert!((middle - 0.001).abs() < spread, "{middle} at {n}");
            let upper = beta_quantile(a, b, 0.975).expect("valid");
            let normal = 0.001 + 1.959_964 * spread;
            assert!((upper - normal).abs() < 0.1 * spread, "{upper} at {n}");
        }
    }

    proptest! {
        #[test]
        fn beta_quantile_inverts_the_cumulative_function(
            a in 0.2_f64..500.0, b in 0.2_f64..500.0, p in 0.001_f64..0.999,
        ) {
            let x = beta_quantile(a, b, p).expect("valid");
            prop_assert!((beta_reg(a, b, x) - p).abs() < 1e-9);
        }
    }
}
