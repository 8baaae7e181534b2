//! Tails as standard normal values.
//!
//! Boundaries of [`crate::spending`] are in standard deviations of a normal variable. Counts are
//! not normal and variances are estimated; each is brought there by its own tail probability.

use statrs::function::beta::beta_reg;
use statrs::function::erf::{erfc, erfc_inv};
use statrs::function::gamma::gamma_lr;

use crate::special::beta_tails;

/// The probability of a standard normal variable above `z`.
pub fn normal_upper(z: f64) -> f64 {
    0.5 * erfc(z * std::f64::consts::FRAC_1_SQRT_2)
}

/// The value that a standard normal variable exceeds with probability `p`; 38 and -38, beyond
/// which there is nothing for `f64`, at 0 and 1.
pub fn normal_quantile_upper(p: f64) -> f64 {
    (std::f64::consts::SQRT_2 * erfc_inv(2.0 * p)).clamp(-38.0, 38.0)
}

/// The standard normal value that is as improbable to exceed as `t` is for Student's distribution
/// with `freedom` degrees of freedom; what is at or below 0 stays as it is.
pub fn normal_of_student(t: f64, freedom: f64) -> f64 {
    if !(t > 0.0 && freedom > 0.0 && freedom < 1e5) {
        return t;
    }
    let upper = 0.5 * beta_reg(0.5 * freedom, 0.5, freedom / (freedom + t * t));
    normal_quantile_upper(upper).min(t)
}

/// How many standard deviations above its mean a count is, judged by its exact tail.
///
/// The tail `P(Y >= count)` is that of the binomial with this `mean` and `variance`, continued
/// between whole numbers by the regularised incomplete beta function; of the Poisson distribution
/// where the variance is the mean or more. The result is the standard normal value with the same
/// tail. A sum of binomials with unlike shares has a tail close to that of the one binomial with
/// its mean and variance.
pub fn upper_tail_z(count: f64, mean: f64, variance: f64) -> f64 {
    if !(count > 0.0 && mean > 0.0 && variance > 0.0) {
        return if count > 0.0 && mean <= 0.0 {
            38.0
        } else {
            -38.0
        };
    }
    let share = 1.0 - variance / mean;
    let trials = mean / share;
    let upper = if share > 1e-9 && trials - count + 1.0 > 1e-6 {
        match trials < 2_000.0 {
            true => beta_reg(count, trials - count + 1.0, share),
            // The continued fraction in statrs ends too early for these.
            false => beta_tails(count, trials - count + 1.0, share)
                .map_or(1.0, |tails| tails.ln_lower.exp()),
        }
    } else {
        gamma_lr(count, mean)
    };
    if upper > 1e-290 {
        normal_quantile_upper(upper)
    } else {
        (2.0 * (count * (count / mean).ln() - count + mean))
            .sqrt()
            .min(38.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_tails_and_their_quantiles_are_inverse() {
        for (p, z) in [(0.5, 0.0), (0.025, 1.959_963_985), (1e-10, 6.361_340_902)] {
            assert!((normal_quantile_upper(p) - z).abs() < 1e-6, "{p}");
            assert!((normal_upper(z) / p - 1.0).abs() < 1e-6, "{z}");
        }
        assert_eq!(normal_quantile_upper(0.0), 38.0);
        assert_eq!(normal_quantile_upper(1.0), -38.0);
    }

    #[test]
    fn students_quantiles_become_normal_ones() {
        // The upper 2.5 % of Student's distribution with 10 degrees of freedom begins at 2.228.
        let z = normal_of_student(2.228_138_852, 10.0);
        assert!((z - 1.959_963_985).abs() < 1e-6, "{z}");
        assert_eq!(normal_of_student(-1.0, 10.0), -1.0);
        assert_eq!(normal_of_student(3.0, f64::INFINITY), 3.0);
    }

    #[test]
    fn counts_are_judged_by_their_exact_tail() {
        // P(Bin(8, 0.5) >= 7) = 9/256; P(Poisson(1) >= 3) = 1 - 5/(2e).
        let exact = [
            (7.0, 4.0, 2.0, 9.0 / 256.0),
            (3.0, 1.0, 1.0, 1.0 - 2.5 / std::f64::consts::E),
        ];
        for (count, mean, variance, p) in exact {
            let z = upper_tail_z(count, mean, variance);
            assert!((normal_upper(z) / p - 1.0).abs() < 1e-9, "{count}");
        }
        // Large counts are nearly normal.
        let z = upper_tail_z(103_000.0, 100_000.0, 95_000.0);
        assert!((z - 3_000.0 / 95_000.0_f64.sqrt()).abs() < 0.1, "{z}");
        assert_eq!(upper_tail_z(0.0, 1.0, 1.0), -38.0);
        assert_eq!(upper_tail_z(1.0, 0.0, 0.0), 38.0);
        let far = upper_tail_z(1e6, 1e3, 1e3);
        assert!((37.0..=38.0).contains(&far), "{far}");
    }
}
