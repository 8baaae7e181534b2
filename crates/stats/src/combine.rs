//! Several tests, one error rate.
//!
//! A gate has many checks, each of them a chance to be wrong. A weighted average of e-values is an
//! e-value whatever the dependence between them, so "fail when the average reaches `1/α`" errs
//! with probability at most α for the whole gate, and is at least as powerful as giving each
//! check its share of α (Vovk and Wang, "E-values: calibration, combination and applications",
//! Annals of Statistics 49, 2021). For single checks the equivalent of Bonferroni's correction is
//! a threshold of `1/(α w)` at weight `w`. A pass needs no correction: all required checks must
//! pass, and the chance that all are wrong at once is at most that of each.
//!
//! Average what the checks show at one moment, their `log_e`; the maxima of several moments may not
//! be averaged. The average's own maximum over time may be kept.
//!
//! No evidence counts as an e-value of 1: a check that could not run is entered as 0, not left
//! out, so that its weight doesn't move to the others with hindsight.

use crate::special::log_sum_exp;

/// The logarithm of the weighted average of e-values, from `(log_e, weight)` pairs.
///
/// Weights need not sum to 1; only their proportions count. Those that are negative or not finite
/// count as 0. Without any positive weight there is no evidence: 0.
pub fn log_weighted_average(log_es: &[(f64, f64)]) -> f64 {
    let usable = |weight: f64| weight > 0.0 && weight.is_finite();
    let weights = log_es.iter().map(|(_, weight)| *weight);
    let total: f64 = weights.filter(|weight| usable(*weight)).sum();
    if total <= 0.0 || !total.is_finite() {
        return 0.0;
    }
    log_sum_exp(
        log_es
            .iter()
            .filter(|(_, weight)| usable(*weight))
            .map(|(log_e, weight)| log_e + (weight / total).ln()),
    )
}

/// The `log_e` at which a single check decides at its share `weight` of the error rate `alpha`:
/// `ln(1/(alpha weight))`. Infinity, never, where either is not positive.
pub fn log_threshold(alpha: f64, weight: f64) -> f64 {
    if alpha > 0.0 && weight > 0.0 {
        -(alpha.ln() + weight.ln())
    } else {
        f64::INFINITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_weighs_e_values_and_not_their_logarithms() {
        let average = log_weighted_average(&[(8.0_f64.ln(), 1.0), (2.0_f64.ln(), 3.0)]);
        assert!((average - 3.5_f64.ln()).abs() < 1e-12);
        let one_strong = log_weighted_average(&[(500.0, 1.0), (-500.0, 1.0)]);
        assert!((one_strong - (500.0 - 2.0_f64.ln())).abs() < 1e-12);
    }

    #[test]
    fn no_checks_are_no_evidence() {
        assert_eq!(log_weighted_average(&[]), 0.0);
        assert_eq!(log_weighted_average(&[(9.0, 0.0), (9.0, f64::NAN)]), 0.0);
    }

    #[test]
    fn a_share_of_the_error_rate_raises_the_threshold() {
        assert!((log_threshold(0.05, 1.0) - 20.0_f64.ln()).abs() < 1e-12);
        assert!((log_threshold(0.05, 0.25) - 80.0_f64.ln()).abs() < 1e-12);
        assert_eq!(log_threshold(0.05, 0.0), f64::INFINITY);
    }

    /// Whenever one check alone passes its share's threshold, so does the average.
    #[test]
    fn the_average_is_never_weaker_than_bonferroni() {
        for weight in [0.1, 0.4, 0.9] {
            let alone = log_threshold(0.01, weight);
            let average = log_weighted_average(&[(alone, weight), (-50.0, 1.0 - weight)]);
            assert!(average >= log_threshold(0.01, 1.0) - 1e-12);
        }
    }
}
