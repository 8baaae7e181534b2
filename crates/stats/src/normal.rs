//! The standard normal distribution, also far out in its tails.

use statrs::function::erf::erfc;
use statrs::function::erf::erfc_inv;

/// The value below which a standard normal variable stays with probability `p`.
///
/// `None` unless `p` is strictly between 0 and 1.
pub fn quantile(p: f64) -> Option<f64> {
    (p > 0.0 && p < 1.0).then(|| -std::f64::consts::SQRT_2 * erfc_inv(2.0 * p))
}

/// The probability that a standard normal variable is at least `z`.
pub fn upper_tail(z: f64) -> f64 {
    0.5 * erfc(z / std::f64::consts::SQRT_2)
}

/// `ln Φ(z)`, the logarithm of the probability that a standard normal variable is at most `z`.
///
/// Below -5 by the continued fraction of Mills' ratio, so that it has a value where the
/// probability itself is too small for one.
pub fn log_cdf(z: f64) -> f64 {
    if z > 5.0 {
        return (-upper_tail(z)).ln_1p();
    }
    if z > -5.0 {
        return upper_tail(-z).ln();
    }
    let x = -z;
    // From the inside out; at 5 and beyond 60 levels are far more than f64 needs.
    let fraction = (1..=60).rev().fold(x, |inner, k| x + f64::from(k) / inner);
    -0.5 * x * x - 0.5 * std::f64::consts::TAU.ln() - fraction.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn near(found: f64, expected: f64) {
        let error = (found - expected).abs() / expected.abs().max(1e-300);
        assert!(error < 1e-9, "found {found}, expected {expected}");
    }

    /// Published tables (Abramowitz and Stegun 26.1 and its sources).
    #[test]
    fn known_values() {
        near(quantile(0.975).unwrap(), 1.959_963_984_540_054);
        near(quantile(0.01).unwrap(), -2.326_347_874_040_841);
        near(upper_tail(1.0), 0.158_655_253_931_457_05);
        near(log_cdf(-1.0), 0.158_655_253_931_457_05_f64.ln());
        near(log_cdf(-10.0), -53.231_285_150_512_47);
        near(log_cdf(-40.0), -804.608_442_013_753_8);
        assert_eq!(quantile(0.0), None);
        assert_eq!(quantile(f64::NAN), None);
    }

    #[test]
    fn the_two_ways_to_the_tail_meet() {
        near(log_cdf(-5.0), upper_tail(5.0).ln());
        assert!(log_cdf(-5.000_001) < log_cdf(-4.999_999));
    }

    proptest! {
        #[test]
        fn quantiles_invert_the_tail(p in 1e-6_f64..0.999_999) {
            let z = quantile(p).expect("inside");
            prop_assert!((upper_tail(-z) - p).abs() < 1e-9);
        }

        #[test]
        fn the_log_cdf_rises(z in -60.0_f64..8.0, step in 1e-3_f64..1.0) {
            prop_assert!(log_cdf(z) <= log_cdf(z + step));
        }
    }
}
