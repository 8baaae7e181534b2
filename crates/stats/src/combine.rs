//! Several tests, one error rate.
//!
//! A gate has many checks, each of them a chance to be wrong. What can be said depends on what is
//! asked.
//!
//! **Is any check worse?** A weighted average of e-values is an e-value whatever the dependence
//! between them, so "fail when the average reaches `1/α`" errs with probability at most α for the
//! whole gate, and is at least as powerful as giving each check its share of α (Vovk and Wang,
//! "E-values: calibration, combination and applications", Annals of Statistics 49, 2021):
//! [`log_weighted_average`]. For single checks the equivalent of Bonferroni's correction is a
//! threshold of `1/(α w)` at weight `w`: [`log_threshold`], with the weights from [`shares`].
//!
//! **Which checks are worse?** Naming is a claim about each. By the closure principle a check is
//! named when every group of checks that contains it rejects, each by its average: [`closure`],
//! also known as e-Holm. It names at least what Bonferroni's correction names, and the chance that
//! any name is wrong is at most α. Where a share α of wrong names among those given is good enough,
//! as on a dashboard of many services, [`bh`] names more when many are worse (Wang and Ramdas,
//! "False discovery rate control with e-values", JRSS B 84, 2022), under any dependence. For
//! p-values from tests with a fixed end there is [`holm`] (Holm, 1979, with weights).
//!
//! **Are all checks worse?** The null is that at least one is not: [`log_min`]. A pass is of this
//! kind and needs no correction: all required checks must pass, and the chance that all are wrong
//! at once is at most that of each.
//!
//! **One question, independent data** (stretches of time that share no request, each bet on
//! before it is seen): [`log_product`]. Never over checks that see the same requests.
//!
//! Average what the checks show at one moment, their `log_e`; the maxima of several moments may not
//! be averaged. The average's own maximum over time may be kept.
//!
//! No evidence counts as an e-value of 1: a check that could not run is entered as 0, not left
//! out, so that its weight doesn't move to the others with hindsight. A `log_e` that is not a
//! number is no evidence either.

use crate::special::log_add_exp;
use crate::special::log_sum_exp;

/// The logarithm of the weighted average of e-values, from `(log_e, weight)` pairs.
///
/// Weights need not sum to 1; only their proportions count. Those that are negative or not finite
/// count as 0. Without any positive weight there is no evidence: 0.
pub fn log_weighted_average(log_es: &[(f64, f64)]) -> f64 {
    let weights: Vec<f64> = log_es.iter().map(|(_, weight)| *weight).collect();
    let weighted = log_es.iter().zip(shares(&weights));
    let weighted = weighted.filter(|(_, share)| *share > 0.0);
    let terms = weighted.map(|((log_e, _), share)| evidence(*log_e) + share.ln());
    if terms.clone().next().is_none() {
        return 0.0;
    }
    log_sum_exp(terms)
}

/// The shares of one error rate that belong to these weights: they sum to 1, or are all 0 where
/// no weight is positive. Weights that are negative or not finite count as 0.
///
/// A check that can't fail its gate needs no share: give it the weight 0, and what it would have
/// had goes to those that can.
pub fn shares(weights: &[f64]) -> Vec<f64> {
    let usable = |weight: f64| {
        if weight > 0.0 && weight.is_finite() {
            weight
        } else {
            0.0
        }
    };
    // Scaled first: the sum of huge weights must not overflow.
    let high = weights.iter().map(|w| usable(*w)).fold(0.0, f64::max);
    if high == 0.0 {
        return vec![0.0; weights.len()];
    }
    let total: f64 = weights.iter().map(|w| usable(*w) / high).sum();
    weights.iter().map(|w| usable(*w) / high / total).collect()
}

/// The logarithm of the smallest e-value: evidence against "at least one null holds". 0 where
/// there are none.
pub fn log_min(log_es: &[f64]) -> f64 {
    let log_es = log_es.iter().map(|log_e| evidence(*log_e));
    log_es.reduce(f64::min).unwrap_or(0.0)
}

/// The logarithm of the product of e-values from stretches of data that share nothing, each bet
/// placed before its stretch was seen.
pub fn log_product(log_es: &[f64]) -> f64 {
    log_es.iter().map(|log_e| evidence(*log_e)).sum()
}

/// What each e-value is worth when it is named: the logarithm of its smallest weighted average
/// with any group of the others, from `(log_e, weight)` pairs (e-closure, e-Holm).
///
/// "Name those that reach `ln(1/α)`" names anything wrongly with probability at most α. In order of
/// the input. One without a usable weight is never named: negative infinity.
pub fn closure(log_es: &[(f64, f64)]) -> Vec<f64> {
    let weights: Vec<f64> = log_es.iter().map(|(_, weight)| *weight).collect();
    let weighted = log_es.iter().zip(shares(&weights));
    let terms: Vec<(f64, f64)> = weighted
        .map(|((log_e, _), share)| (evidence(*log_e), share))
        .collect();
    let mut ascending: Vec<usize> = (0..terms.len()).filter(|&i| terms[i].1 > 0.0).collect();
    ascending.sort_by(|&i, &j| terms[i].0.total_cmp(&terms[j].0));
    let worth = |k: usize| {
        let (log_e, share) = terms[k];
        if share == 0.0 {
            return f64::NEG_INFINITY;
        }
        // The smallest average is reached by adding the others from the smallest upwards.
        let (mut log_sum, mut total, mut smallest) = (log_e + share.ln(), share, log_e);
        for &i in ascending.iter().filter(|&&i| i != k) {
            log_sum = log_add_exp(log_sum, terms[i].0 + terms[i].1.ln());
            total += terms[i].1;
            smallest = smallest.min(log_sum - total.ln());
        }
        smallest
    };
    (0..terms.len()).map(worth).collect()
}

/// Which e-values to name so that on average at most a share `alpha` of the names is wrong: the
/// `k` largest for the largest `k` at which they all reach `n/(α k)` (e-BH). In order of the
/// input.
pub fn bh(log_es: &[f64], alpha: f64) -> Vec<bool> {
    let log_es: Vec<f64> = log_es.iter().map(|log_e| evidence(*log_e)).collect();
    let mut descending = log_es.clone();
    descending.sort_by(|a, b| b.total_cmp(a));
    let n = descending.len() as f64;
    let level = |k: usize| log_threshold(alpha, k as f64 / n);
    let reached = descending
        .iter()
        .enumerate()
        .filter(|(i, log_e)| **log_e >= level(i + 1));
    let last = reached.map(|(_, log_e)| *log_e).next_back();
    log_es
        .iter()
        .map(|log_e| last.is_some_and(|last| *log_e >= last))
        .collect()
}

/// Which p-values to reject so that any is rejected wrongly with probability at most `alpha`,
/// from `(p, weight)` pairs: step down by `p/weight`, each against its share of what is left
/// (Holm). In order of the input. A p-value that is not a number, or a weight that is not
/// positive, rejects nothing.
pub fn holm(p_values: &[(f64, f64)], alpha: f64) -> Vec<bool> {
    let weights: Vec<f64> = p_values.iter().map(|(_, weight)| *weight).collect();
    let shares = shares(&weights);
    let ratio = |i: usize| p_values[i].0 / shares[i];
    let mut order: Vec<usize> = (0..p_values.len())
        .filter(|&i| shares[i] > 0.0 && p_values[i].0 >= 0.0)
        .collect();
    order.sort_by(|&i, &j| ratio(i).total_cmp(&ratio(j)));
    let mut left: f64 = shares.iter().sum();
    let mut rejected = vec![false; p_values.len()];
    for i in order {
        // Rounding in what is left must not reject more.
        if ratio(i) > alpha / left.max(shares[i]) {
            break;
        }
        rejected[i] = true;
        left -= shares[i];
    }
    rejected
}

/// What is not a number is no evidence.
fn evidence(log_e: f64) -> f64 {
    if log_e.is_nan() { 0.0 } else { log_e }
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
    use proptest::prelude::*;

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

    fn logs(values: &[f64]) -> Vec<f64> {
        values.iter().map(|value| value.ln()).collect()
    }

    fn equal(log_es: &[f64]) -> Vec<(f64, f64)> {
        log_es.iter().map(|log_e| (*log_e, 1.0)).collect()
    }

    const FIVE: [f64; 5] = [60.0, 3.0, 25.0, 0.5, 110.0];

    #[test]
    fn naming_has_the_known_values() {
        let found = closure(&equal(&logs(&FIVE)));
        let expected = [21.166_666_666_666_668, 1.75, 9.5, 0.5, 34.625];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found.exp() - expected).abs() < 1e-12, "{found}");
        }
        let five = logs(&FIVE);
        assert_eq!(bh(&five, 0.05), [true, false, false, false, true]);
        assert_eq!(bh(&five, 0.10), [true, false, true, false, true]);
        assert_eq!(bh(&[], 0.05), Vec::<bool>::new());
    }

    /// Holm's own procedure on p-values, by hand: 0.01 ≤ 0.05/4, 0.02 > 0.05/3.
    #[test]
    fn holm_steps_down() {
        let equal = [(0.04, 1.0), (0.01, 1.0), (0.02, 1.0), (0.5, 1.0)];
        assert_eq!(holm(&equal, 0.05), [false, true, false, false]);
        assert_eq!(holm(&equal, 0.06), [false, true, true, false]);
        // Half the error rate on the first lets it go first, and leaves half to the rest.
        let weighted = [(0.024, 2.0), (0.024, 1.0), (0.026, 1.0)];
        assert_eq!(holm(&weighted, 0.05), [true, true, true]);
        assert_eq!(holm(&[(f64::NAN, 1.0), (0.001, 0.0)], 0.05), [false, false]);
    }

    #[test]
    fn the_smallest_and_the_product() {
        assert_eq!(log_min(&[3.0, -1.0, 2.0]), -1.0);
        assert_eq!(log_min(&[]), 0.0);
        assert_eq!(log_product(&[3.0, -1.0, f64::NAN]), 2.0);
        assert_eq!(log_product(&[]), 0.0);
    }

    #[test]
    fn shares_sum_to_one_or_are_none() {
        assert_eq!(shares(&[1.0, 3.0, 0.0, -1.0]), [0.25, 0.75, 0.0, 0.0]);
        assert_eq!(shares(&[0.0, f64::NAN]), [0.0, 0.0]);
        assert_eq!(shares(&[f64::MAX, f64::MAX]), [0.5, 0.5]);
        assert_eq!(closure(&[(9.0, 0.0)]), [f64::NEG_INFINITY]);
    }

    /// Every group that contains `k`, the slow way.
    fn closure_of_all_groups(log_es: &[(f64, f64)], k: usize) -> f64 {
        let groups = (0..1_usize << log_es.len()).filter(|group| group >> k & 1 == 1);
        let averages = groups.map(|group| {
            let members = (0..log_es.len()).filter(|i| group >> i & 1 == 1);
            log_weighted_average(&members.map(|i| log_es[i]).collect::<Vec<_>>())
        });
        averages.fold(f64::INFINITY, f64::min)
    }

    proptest! {
        #[test]
        fn closure_is_the_smallest_average_of_any_group(
            log_es in proptest::collection::vec((-10.0..10.0_f64, 0.1..5.0_f64), 1..8),
        ) {
            for (k, found) in closure(&log_es).into_iter().enumerate() {
                let expected = closure_of_all_groups(&log_es, k);
                prop_assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
            }
        }

        /// What Bonferroni's correction names, the others name too.
        #[test]
        fn nobody_names_less_than_bonferroni(
            log_es in proptest::collection::vec(-3.0..9.0_f64, 1..9), alpha in 0.001..0.3_f64,
        ) {
            let alone = log_threshold(alpha, 1.0 / log_es.len() as f64);
            let named = closure(&equal(&log_es));
            for ((log_e, worth), discovered) in log_es.iter().zip(named).zip(bh(&log_es, alpha)) {
                prop_assert!(*log_e < alone || discovered);
                prop_assert!(*log_e < alone || worth >= log_threshold(alpha, 1.0) - 1e-9);
            }
        }

        #[test]
        fn holm_rejects_what_bonferroni_rejects(
            p_values in proptest::collection::vec((0.0..0.2_f64, 0.1..5.0_f64), 1..8),
        ) {
            let weights: Vec<f64> = p_values.iter().map(|(_, weight)| *weight).collect();
            let rejected = holm(&p_values, 0.05);
            for ((p, rejected), share) in p_values.iter().zip(rejected).zip(shares(&weights)) {
                prop_assert!(rejected || p.0 > 0.05 * share * (1.0 - 1e-9));
            }
        }
    }
}
