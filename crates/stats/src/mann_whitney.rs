//! Is one sample shifted against another? Mann and Whitney's test, with Hodges and Lehmann's
//! estimate.
//!
//! A test at a fixed horizon: it is to be asked once, when the samples are complete. It supposes
//! that values are independent of each other; samples of a service a minute apart seldom are (see
//! [`crate::permutation`] for blocks of them, [`crate::means`] for looking early).
//!
//! [`test()`] answers with the statistic and p-values: exact for at most [`EXACT_MAX`] values on
//! each side without ties, else by the normal approximation with ties and continuity counted.
//! [`shift`] answers with the median of all differences and the interval of shifts that the test
//! doesn't refuse; its ends are differences that occur, by the same two ways. The root finder of
//! [`crate::kayenta`] gives other numbers on purpose.

use crate::normal;
use crate::ranks::ranks;

/// The most values on each side for which the exact distribution is computed.
pub const EXACT_MAX: usize = 50;

/// The most pairs of values whose differences are looked at.
const PAIRS_MAX: usize = 4_000_000;

/// What the test says of two samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MannWhitney {
    /// The number of pairs in which the first sample's value is the greater one, ties half.
    pub u: f64,
    /// The chance of a `u` at least as great where neither sample is shifted.
    pub p_greater: f64,
    /// The chance of a `u` at most as great.
    pub p_less: f64,
    /// The chance of a `u` at least as far from its middle, either way.
    pub p_two_sided: f64,
    /// Whether the chances are exact.
    pub is_exact: bool,
}

/// A shift of one sample against another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// The median of all differences between a value of the first and one of the second sample.
    pub estimate: f64,
    /// Where the confidence interval begins; negative infinity where the samples are too small for
    /// the confidence.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

/// Tests `first` against `second`. `None` where a side has no values or one that is not finite.
///
/// H. B. Mann and D. R. Whitney, "On a test of whether one of two random variables is
/// stochastically larger than the other", Annals of Mathematical Statistics 18, 1947.
pub fn test(first: &[f64], second: &[f64]) -> Option<MannWhitney> {
    if !usable(first) || !usable(second) {
        return None;
    }
    let (m, n) = (first.len() as f64, second.len() as f64);
    let pooled = ranks(first.iter().copied(), second);
    let u = pooled.first_sum - m * (m + 1.0) / 2.0;
    let is_exact = pooled.ties == 0.0 && first.len().max(second.len()) <= EXACT_MAX;
    let (p_greater, p_less) = if is_exact {
        let below = Cumulative::new(first.len(), second.len());
        (below.at(m * n - u), below.at(u))
    } else {
        approximate(u, m, n, pooled.ties)
    };
    Some(MannWhitney {
        u,
        p_greater,
        p_less,
        p_two_sided: (2.0 * p_greater.min(p_less)).min(1.0),
        is_exact,
    })
}

/// The shift of `first` against `second` with a two-sided interval of at least `confidence` (0.98
/// for 98 %). `None` where a side has no values or one that is not finite, where there are more
/// than four million pairs, and for a confidence that is not between 0 and 1.
///
/// J. L. Hodges and E. L. Lehmann, "Estimates of location based on rank tests", Annals of
/// Mathematical Statistics 34, 1963.
pub fn shift(first: &[f64], second: &[f64], confidence: f64) -> Option<Shift> {
    let pairs = first.len().checked_mul(second.len())?;
    let fits = confidence > 0.0 && confidence < 1.0 && pairs <= PAIRS_MAX;
    if !(usable(first) && usable(second) && fits) {
        return None;
    }
    let mut differences: Vec<f64> = first
        .iter()
        .flat_map(|mine| second.iter().map(move |theirs| mine - theirs))
        .collect();
    differences.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| differences.get(index).copied();
    let estimate = 0.5 * (at((pairs - 1) / 2)? + at(pairs / 2)?);
    let rank = rank_of_ends(first, second, (1.0 - confidence) / 2.0);
    Some(Shift {
        estimate,
        low: match rank {
            0 => f64::NEG_INFINITY,
            rank => at(rank - 1)?,
        },
        high: match rank {
            0 => f64::INFINITY,
            rank => at(pairs - rank)?,
        },
    })
}

fn usable(values: &[f64]) -> bool {
    !values.is_empty() && values.iter().all(|value| value.is_finite())
}

/// The chances of a `u` at least and at most as great, by the normal distribution, half a step
/// towards the middle.
fn approximate(u: f64, m: f64, n: f64, ties: f64) -> (f64, f64) {
    let all = m + n;
    let variance = m * n / 12.0 * ((all + 1.0) - ties / (all * (all - 1.0)));
    if variance.is_nan() || variance <= 0.0 {
        // All values are equal.
        return (1.0, 1.0);
    }
    let above = u - m * n / 2.0;
    let tail = |distance: f64| normal::upper_tail((distance - 0.5) / variance.sqrt()).min(1.0);
    (tail(above), tail(-above))
}

/// The place among the differences, from below and from above and from 1 on, at which an interval
/// ends when the chance of the shift to be beyond each end is at most `tail`; 0 where it has none.
fn rank_of_ends(first: &[f64], second: &[f64], tail: f64) -> usize {
    let (m, n) = (first.len() as f64, second.len() as f64);
    if first.len().max(second.len()) <= EXACT_MAX {
        let below = Cumulative::new(first.len(), second.len());
        // 1 less 0.8 is a little less than 0.2, and a chance is to be reached.
        let tail = tail * (1.0 + 1e-9);
        return (0..)
            .take_while(|u| below.at(f64::from(*u)) <= tail)
            .count();
    }
    let pooled = ranks(first.iter().copied(), second);
    let all = m + n;
    let variance = m * n / 12.0 * ((all + 1.0) - pooled.ties / (all * (all - 1.0)));
    let z = normal::quantile(tail).unwrap_or(f64::NEG_INFINITY);
    (m * n / 2.0 + 0.5 + z * variance.sqrt()).floor().max(0.0) as usize
}

/// The exact distribution of `u` without ties: the share of orders with at most that many pairs.
struct Cumulative(Vec<f64>);

impl Cumulative {
    /// By the recursion over `q`-binomial coefficients, in time `m n (m + n)`.
    fn new(m: usize, n: usize) -> Cumulative {
        let size = m * n + 1;
        let mut counts = vec![0.0; size];
        if let Some(first) = counts.first_mut() {
            *first = 1.0;
        }
        // Π (1 - q^(n+i)) / (1 - q^i): multiply and divide in turn; every quotient is whole.
        for i in 1..=m {
            for u in (n + i..size).rev() {
                counts[u] -= counts[u - n - i];
            }
            for u in i..size {
                counts[u] += counts[u - i];
            }
        }
        let total: f64 = counts.iter().sum();
        let mut so_far = 0.0;
        for count in &mut counts {
            so_far += *count;
            *count = (so_far / total).min(1.0);
        }
        Cumulative(counts)
    }

    /// The chance of at most `u`.
    fn at(&self, u: f64) -> f64 {
        if u < 0.0 {
            return 0.0;
        }
        self.0.get(u as usize).copied().unwrap_or(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::testing::upper_alarm_limit;
    use proptest::prelude::*;

    /// The case in which the exact mode of a well-known library answers with the other tail.
    #[test]
    fn few_values_have_the_right_tail() {
        let x = [3.1, 5.2, 7.3, 9.4, 11.5];
        let y = [0.5, 2.5, 4.5, 6.5, 8.5];
        let found = test(&x, &y).unwrap();
        assert!(found.is_exact);
        assert_eq!(found.u, 19.0);
        assert!((found.p_greater - 0.1111).abs() < 5e-5, "{found:?}");
        assert!((found.p_less - 0.9246).abs() < 5e-5, "{found:?}");
        assert!((found.p_two_sided - 0.2222).abs() < 5e-5, "{found:?}");
    }

    /// Tables of the distribution: 20 orders of 3 and 3, 252 of 5 and 5.
    #[test]
    fn the_exact_distribution_is_that_of_the_tables() {
        let small = Cumulative::new(3, 3);
        let expected = [1.0, 2.0, 4.0, 7.0, 10.0, 13.0, 16.0, 18.0, 19.0, 20.0];
        for (u, count) in expected.iter().enumerate() {
            assert!((small.at(u as f64) - count / 20.0).abs() < 1e-12);
        }
        assert!((Cumulative::new(5, 5).at(2.0) - 4.0 / 252.0).abs() < 1e-12);
        // Critical value of the two-sided 5 % test at 20 and 20 values: 127.
        let large = Cumulative::new(20, 20);
        assert!(large.at(127.0) <= 0.025 && large.at(128.0) > 0.025);
    }

    #[test]
    fn ties_are_counted_in_the_approximation() {
        let x = [1.0, 2.0, 2.0, 3.0, 4.0];
        let y = [2.0, 3.0, 3.0, 5.0, 6.0, 7.0];
        let found = test(&x, &y).unwrap();
        assert!(!found.is_exact);
        assert_eq!(found.u, 6.0);
        // u - 15 = -9; σ² = 30/12 (12 - 48/110), corrected by a half.
        let sigma = (2.5_f64 * (12.0 - 48.0 / 110.0)).sqrt();
        assert!((found.p_less - normal::upper_tail(8.5 / sigma)).abs() < 1e-12);
        let equal = test(&[1.0; 4], &[1.0; 9]).unwrap();
        assert_eq!((equal.u, equal.p_two_sided), (18.0, 1.0));
    }

    /// Differences 0.1 to 9 in steps; the median of nine is the fifth.
    #[test]
    fn the_shift_is_the_median_of_differences() {
        let found = shift(&[10.0, 20.0, 30.0], &[1.0, 2.0, 3.0], 0.8).unwrap();
        assert_eq!(found.estimate, 18.0);
        // P(u ≤ 1) = 2/20 is within 10 %: the second difference from each end.
        assert_eq!((found.low, found.high), (8.0, 28.0));
        let unreachable = shift(&[10.0, 20.0], &[1.0, 2.0], 0.99).unwrap();
        assert_eq!(
            (unreachable.low, unreachable.high),
            (f64::NEG_INFINITY, f64::INFINITY)
        );
    }

    #[test]
    fn what_cannot_be_tested_has_no_answer() {
        assert_eq!(test(&[], &[1.0]), None);
        assert_eq!(test(&[1.0], &[f64::NAN]), None);
        assert_eq!(shift(&[f64::INFINITY], &[1.0], 0.9), None);
        assert_eq!(shift(&[1.0], &[1.0], 1.0), None);
    }

    #[test]
    fn intervals_cover_as_often_as_they_say() {
        let mut random = Random::new(4);
        for n in [20_usize, 80] {
            let mut missed = 0;
            for _ in 0..400 {
                let x: Vec<f64> = (0..n).map(|_| 3.0 + random.normal()).collect();
                let y: Vec<f64> = (0..n).map(|_| random.normal()).collect();
                let found = shift(&x, &y, 0.95).unwrap();
                missed += u32::from(found.low > 3.0 || found.high < 3.0);
            }
            assert!(
                missed <= upper_alarm_limit(400, 0.055),
                "{missed} of 400 at {n}"
            );
            assert!(missed >= 5, "{missed} of 400 at {n}: far too wide");
        }
    }

    fn sample() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec((-30i32..30).prop_map(|v| f64::from(v) / 3.0), 1..20)
    }

    proptest! {
        #[test]
        fn swapping_the_samples_swaps_the_answer(x in sample(), y in sample()) {
            let (one, other) = (test(&x, &y).unwrap(), test(&y, &x).unwrap());
            prop_assert!((one.u + other.u - (x.len() * y.len()) as f64).abs() < 1e-9);
            prop_assert!((one.p_greater - other.p_less).abs() < 1e-9);
            let (one, other) = (shift(&x, &y, 0.9).unwrap(), shift(&y, &x, 0.9).unwrap());
            prop_assert!((one.estimate + other.estimate).abs() < 1e-9);
            prop_assert!(one.low == -other.high && one.high == -other.low);
        }

        #[test]
        fn probabilities_are_probabilities_and_the_interval_holds_the_estimate(
            x in sample(), y in sample(), confidence in 0.5_f64..0.99,
        ) {
            let found = test(&x, &y).unwrap();
            for p in [found.p_greater, found.p_less, found.p_two_sided] {
                prop_assert!((0.0..=1.0).contains(&p));
            }
            prop_assert!(found.p_greater + found.p_less >= 1.0 - 1e-9);
            let found = shift(&x, &y, confidence).unwrap();
            prop_assert!(found.low <= found.estimate && found.estimate <= found.high);
        }
    }
}
