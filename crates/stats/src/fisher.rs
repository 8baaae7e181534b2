//! Fisher's exact test, one-sided.
//!
//! A fixed-sample test: its error rate holds for one look at a sample size that was chosen
//! beforehand. It is here to compare with, and for data of which there is only one look; who
//! looks again and again wants [`crate::counts`].

use statrs::function::factorial::ln_binomial;

/// The probability of at least as many of the events on the candidate's side as there were, if
/// each of all requests were as likely to be an event: the upper tail of the hypergeometric
/// distribution. Source: R. A. Fisher, Statistical Methods for Research Workers, section 21.02.
///
/// `None` where there are more events than requests, or more than 2^53 requests.
pub fn fisher_greater(
    candidate_events: u64,
    candidate_total: u64,
    baseline_events: u64,
    baseline_total: u64,
) -> Option<f64> {
    let total = candidate_total.checked_add(baseline_total)?;
    let is_sound = candidate_events <= candidate_total && baseline_events <= baseline_total;
    if !is_sound || total > 1 << 53 {
        return None;
    }
    let events = candidate_events + baseline_events;
    let log_all = ln_binomial(total, events);
    // A table's chance from the one before it, one event more on the candidate's side.
    let next = |chance: f64, at: u64| {
        let up = (candidate_total - at) as f64 * (events - at) as f64;
        let down = (at + 1) as f64 * (baseline_total + at + 1 - events) as f64;
        chance * up / down
    };
    let most = events.min(candidate_total);
    let first = ln_binomial(candidate_total, candidate_events)
        + ln_binomial(baseline_total, baseline_events)
        - log_all;
    let (mut chance, mut tail) = (first.exp(), 0.0);
    for at in candidate_events..=most {
        tail += chance;
        let is_falling = at as f64 * total as f64 > events as f64 * candidate_total as f64;
        if at == most || (is_falling && chance < 1e-18 * tail) {
            break;
        }
        chance = next(chance, at);
    }
    Some(tail.min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(found: Option<f64>, expected: f64) {
        let found = found.expect("a sound table");
        assert!(
            (found - expected).abs() <= 1e-10 * expected,
            "{found} is not {expected}"
        );
    }

    /// The lady who tasted tea: four of four cups are one chance in seventy, three or more are
    /// seventeen in seventy.
    #[test]
    fn tea_is_tasted() {
        close(fisher_greater(4, 4, 0, 4), 1.0 / 70.0);
        close(fisher_greater(3, 4, 1, 4), 17.0 / 70.0);
        close(fisher_greater(0, 4, 4, 4), 1.0);
    }

    #[test]
    fn large_tables_end_and_unsound_ones_are_refused() {
        let found = fisher_greater(90, 18_000, 342, 342_000).unwrap();
        assert!(found > 0.0 && found < 1e-20, "{found}");
        assert_eq!(fisher_greater(5, 4, 0, 4), None);
        assert_eq!(fisher_greater(0, u64::MAX, 0, 1), None);
        assert_eq!(fisher_greater(0, 0, 0, 0), Some(1.0));
    }

    proptest! {
        /// P(X >= x) + P(X <= x - 1) = 1, the latter being the other side's upper tail.
        #[test]
        fn both_tails_make_one(
            n_c in 1u64..300, n_b in 1u64..300, x_c in 1u64..300, x_b in 0u64..300,
        ) {
            prop_assume!(x_c <= n_c && x_b < n_b);
            let upper = fisher_greater(x_c, n_c, x_b, n_b).unwrap();
            let lower = fisher_greater(x_b + 1, n_b, x_c - 1, n_c).unwrap();
            prop_assert!((upper + lower - 1.0).abs() < 1e-9, "{upper} + {lower}");
        }
    }
}
