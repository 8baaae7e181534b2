//! Sums in log space, and the Beta distribution where doubles would underflow.
//!
//! E-values span hundreds of orders of magnitude, so everything here works on their natural
//! logarithms.
//!
//! The tails of the Beta distribution are ours for two reasons. A tail below `1e-308` has a
//! logarithm but no value, and the continued fraction in statrs stops after 140 terms, too few
//! for a million requests. On the logit scale the density is log-concave, so its tail beyond a
//! point falls at least exponentially, and a double-exponential quadrature (Takahasi and Mori,
//! 1974) finds it in some hundred steps whatever the counts. The tail on the near side of the mean
//! is one minus the other. The quantile is ours as well: the inverse in statrs does not return for
//! large counts; bisection always does.

use statrs::function::gamma::ln_gamma;

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

/// `ln(1 - e^x)` for `x` at or below 0, exact where `e^x` is near 0 and where it is near 1.
pub fn log_one_minus_exp(x: f64) -> f64 {
    if x > -std::f64::consts::LN_2 {
        (-x.exp_m1()).ln()
    } else {
        (-x.exp()).ln_1p()
    }
}

/// The logarithm of the Beta function, `ln Γ(a) + ln Γ(b) - ln Γ(a+b)`, without the cancellation
/// that the three terms suffer at large counts. Both arguments positive.
pub fn ln_beta(a: f64, b: f64) -> f64 {
    let n = a + b;
    half_ln_two_pi() - a * (b / a).ln_1p() - b * (a / b).ln_1p() - 0.5 * (a * (b / n)).ln()
        + stirling_rest(a)
        + stirling_rest(b)
        - stirling_rest(n)
}

/// The two tails of a Beta distribution at one point, as logarithms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BetaTails {
    /// `ln P(X ≤ x)`, the logarithm of the regularised incomplete Beta function.
    pub ln_lower: f64,
    /// `ln P(X > x)`.
    pub ln_upper: f64,
}

/// How a Beta(`a`, `b`) variable divides at `x`.
///
/// `None` unless `a` and `b` are positive and finite and `x` is from 0 to 1.
pub fn beta_tails(a: f64, b: f64, x: f64) -> Option<BetaTails> {
    let shape_ok = |shape: f64| shape > 0.0 && shape.is_finite();
    if !(shape_ok(a) && shape_ok(b) && (0.0..=1.0).contains(&x)) {
        return None;
    }
    let tails = |ln_lower, ln_upper| BetaTails { ln_lower, ln_upper };
    if x == 0.0 {
        return Some(tails(f64::NEG_INFINITY, 0.0));
    }
    if x == 1.0 {
        return Some(tails(0.0, f64::NEG_INFINITY));
    }
    Some(if x >= a / (a + b) {
        let upper = ln_upper_tail(a, b, x, 1.0 - x);
        tails(log_one_minus_exp(upper), upper)
    } else {
        let lower = ln_upper_tail(b, a, 1.0 - x, x);
        tails(lower, log_one_minus_exp(lower))
    })
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
    // Each tail is told from its small side, where its logarithm is exact.
    let is_below = |x: f64| {
        beta_tails(a, b, x).is_some_and(|tails| {
            if p < 0.5 {
                tails.ln_lower < p.ln()
            } else {
                tails.ln_upper > (-p).ln_1p()
            }
        })
    };
    // 1 - x rounds to 1 below 1e-17: one side of the logit scale is enough for f64.
    let (mut low, mut high) = (-745.0_f64, 37.0_f64);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if is_below(logistic(middle)) {
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

/// `ln P(X > x)` for `x` at or above the mean; `y` is `1 - x`, given apart because it may be
/// known better.
///
/// With `s = logit x` the density is `x^a y^b / B(a,b) ds`, and beyond `s` it changes by the
/// factor `exp(a d - (a+b) ln(1 + x (e^d - 1)))`, which falls from 1.
fn ln_upper_tail(a: f64, b: f64, x: f64, y: f64) -> f64 {
    let n = a + b;
    // A length over which the density falls by about e.
    let slope = (n * x - a).max(0.0);
    let scale = 1.0 / (slope + (n * x * y).sqrt());
    let log_factor = |d: f64| {
        if d < 30.0 {
            a * d - n * (x * d.exp_m1()).ln_1p()
        } else {
            -b * d - n * (x + y * (-d).exp()).ln()
        }
    };
    // v = exp(u - e^-u) maps the line onto the half-line; the trapezoid rule is then exact to
    // rounding.
    const STEP: f64 = 1.0 / 16.0;
    let mut integral = 0.0;
    let mut u = -4.0_f64;
    while u < 40.0 {
        let v = (u - (-u).exp()).exp();
        let term = v * (1.0 + (-u).exp()) * log_factor(scale * v).exp();
        integral += term;
        if v > 1.0 && term <= 1e-17 * integral {
            break;
        }
        u += STEP;
    }
    (ln_beta_density(a, b, x, y) + (scale * STEP * integral).ln()).min(0.0)
}

/// `ln(x^a y^b / B(a,b))`, from how far `x` is from the mean rather than from large logarithms
/// (after Loader, "Fast and accurate computation of binomial probabilities", 2000).
fn ln_beta_density(a: f64, b: f64, x: f64, y: f64) -> f64 {
    let n = a + b;
    let away = |u: f64| u - u.ln_1p();
    // a (x/mean - 1) + b (y/(1-mean) - 1) is 0, so that the linear terms may be added freely.
    let (d_x, d_y) = ((n * x - a) / a, (n * y - b) / b);
    -a * away(d_x) - b * away(d_y) + 0.5 * (a * (b / n)).ln() - half_ln_two_pi() + stirling_rest(n)
        - stirling_rest(a)
        - stirling_rest(b)
}

/// What Stirling's formula leaves of `ln Γ(z)`: `ln Γ(z) - ((z-½) ln z - z + ½ ln 2π)`.
fn stirling_rest(z: f64) -> f64 {
    if z < 10.0 {
        return ln_gamma(z) - ((z - 0.5) * z.ln() - z + half_ln_two_pi());
    }
    let w = 1.0 / (z * z);
    (1.0 / 12.0 - w * (1.0 / 360.0 - w * (1.0 / 1260.0 - w * (1.0 / 1680.0 - w / 1188.0)))) / z
}

fn half_ln_two_pi() -> f64 {
    0.5 * std::f64::consts::TAU.ln()
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
    use statrs::function::beta::beta_reg;

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

    #[test]
    fn log_one_minus_exp_is_exact_at_both_ends() {
        assert!((log_one_minus_exp(-1e-20) - 1e-20_f64.ln()).abs() < 1e-12);
        assert_eq!(log_one_minus_exp(-800.0), -0.0);
        assert!((log_one_minus_exp(-1.0) - (1.0 - (-1.0_f64).exp()).ln()).abs() < 1e-15);
        assert_eq!(log_one_minus_exp(0.0), f64::NEG_INFINITY);
    }

    /// For whole numbers the Beta function is a binomial coefficient's inverse.
    #[test]
    fn ln_beta_has_its_closed_forms() {
        assert!((ln_beta(3.0, 4.0) - (1.0_f64 / 60.0).ln()).abs() < 1e-13);
        assert!((ln_beta(0.5, 0.5) - std::f64::consts::PI.ln()).abs() < 1e-13);
        // B(1, b) = 1/b, at counts where three gamma functions would leave five digits.
        let b = 4e12;
        assert!((ln_beta(1.0, b) + b.ln()).abs() < 1e-12);
    }

    /// `P(X > x)` of Beta(1, b) is `(1-x)^b`, of Beta(a, 1) it is `1 - x^a`.
    #[test]
    fn tails_beyond_the_smallest_number_have_a_logarithm() {
        let tails = beta_tails(1.0, 1e6, 0.5).expect("valid");
        let expected = 1e6 * 0.5_f64.ln();
        assert!((tails.ln_upper / expected - 1.0).abs() < 1e-13, "{tails:?}");
        assert_eq!(tails.ln_lower, 0.0);
        let tails = beta_tails(2e5, 1.0, 0.5).expect("valid");
        let expected = 2e5 * 0.5_f64.ln();
        assert!((tails.ln_lower / expected - 1.0).abs() < 1e-13, "{tails:?}");
        assert_eq!(beta_tails(1.0, -1.0, 0.5), None);
        assert_eq!(beta_tails(1.0, 1.0, f64::NAN), None);
        let ends = [0.0, 1.0].map(|x| beta_tails(3.0, 4.0, x).expect("valid"));
        assert_eq!((ends[0].ln_upper, ends[1].ln_lower), (0.0, 0.0));
        assert_eq!(ends[0].ln_lower, f64::NEG_INFINITY);
    }

    /// `I_x(a,b)` for whole numbers is the upper tail of a binomial distribution.
    #[test]
    fn tails_are_those_of_the_binomial_distribution() {
        let (n, p) = (60_u32, 0.13_f64);
        let probability = |k: u32| {
            let ln_choose =
                -f64::from(n + 1).ln() - ln_beta(f64::from(k + 1), f64::from(n - k + 1));
            (ln_choose + f64::from(k) * p.ln() + f64::from(n - k) * (-p).ln_1p()).exp()
        };
        for k in 1..=n {
            let upper: f64 = (k..=n).map(probability).sum();
            let tails = beta_tails(f64::from(k), f64::from(n - k + 1), p).expect("valid");
            assert!(
                (tails.ln_lower - upper.ln()).abs() < 1e-11,
                "{k}: {tails:?}"
            );
        }
    }

    /// Published to nine digits: the error count of a busy minute far beyond its baseline.
    #[test]
    fn a_busy_service_has_the_known_tail() {
        let tails = beta_tails(18_001.0, 342_001.0, 0.045).expect("valid");
        assert!(
            (tails.ln_lower.exp() / 2.8949e-46 - 1.0).abs() < 2e-5,
            "{tails:?}"
        );
    }

    proptest! {
        #[test]
        fn beta_quantile_inverts_the_cumulative_function(
            a in 0.2_f64..500.0, b in 0.2_f64..500.0, p in 0.001_f64..0.999,
        ) {
            let x = beta_quantile(a, b, p).expect("valid");
            prop_assert!((beta_reg(a, b, x) - p).abs() < 1e-9);
        }

        /// Where statrs is exact the two agree; everywhere the tails sum to 1.
        #[test]
        fn tails_agree_with_the_continued_fraction(
            ln_a in -3.0_f64..6.0, ln_b in -3.0_f64..6.0, x in 1e-6_f64..0.999_999,
        ) {
            let (a, b) = (ln_a.exp(), ln_b.exp());
            let tails = beta_tails(a, b, x).expect("valid");
            let known = beta_reg(a, b, x);
            prop_assert!((tails.ln_lower.exp() - known).abs() < 1e-10, "{tails:?}, not {known}");
            if known > 1e-280 {
                prop_assert!((tails.ln_lower - known.ln()).abs() < 1e-8, "{tails:?}, not {known}");
            }
            let sum = tails.ln_lower.exp() + tails.ln_upper.exp();
            prop_assert!((sum - 1.0).abs() < 1e-14);
        }

        #[test]
        fn tails_are_monotone_at_any_count(
            ln_a in -2.0_f64..28.0, ln_b in -2.0_f64..28.0, x in 1e-9_f64..0.99, more in 1.0001_f64..1.01,
        ) {
            let (a, b) = (ln_a.exp(), ln_b.exp());
            let (here, there) = (beta_tails(a, b, x), beta_tails(a, b, x * more));
            let (here, there) = (here.expect("valid"), there.expect("valid"));
            prop_assert!(here.ln_lower <= there.ln_lower + 1e-9, "{here:?} {there:?}");
            prop_assert!(here.ln_upper + 1e-9 >= there.ln_upper, "{here:?} {there:?}");
        }
    }
}
