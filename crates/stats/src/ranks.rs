//! Ranks of two samples put together.

/// What rank tests need of two samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ranks {
    /// The sum of the first sample's ranks; values that are equal share their mean rank.
    pub(crate) first_sum: f64,
    /// `Σ (t³ - t)` over groups of `t` equal values.
    pub(crate) ties: f64,
}

/// Ranks `first` and `second` together, from 1 up. NaN counts as greater than all numbers and
/// equal to positive infinity.
pub(crate) fn ranks(first: impl Iterator<Item = f64>, second: &[f64]) -> Ranks {
    let plain = |value: f64| if value.is_nan() { f64::INFINITY } else { value };
    let mut all: Vec<(f64, bool)> = first.map(|value| (plain(value), true)).collect();
    all.extend(second.iter().map(|value| (plain(*value), false)));
    all.sort_unstable_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal));
    let (mut first_sum, mut ties, mut before) = (0.0, 0.0, 0.0);
    for group in all.chunk_by(|a, b| a.0 == b.0) {
        let size = group.len() as f64;
        let mean_rank = before + (size + 1.0) / 2.0;
        let of_first = group.iter().filter(|(_, is_first)| *is_first).count();
        first_sum += mean_rank * of_first as f64;
        ties += size * size * size - size;
        before += size;
    }
    Ranks { first_sum, ties }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_their_mean_rank() {
        let found = ranks([1.0, 2.0, 2.0].into_iter(), &[2.0, 5.0]);
        // Ranks 1, 3, 3, 3, 5.
        assert_eq!(
            found,
            Ranks {
                first_sum: 7.0,
                ties: 24.0
            }
        );
        let infinite = ranks([f64::NAN].into_iter(), &[1.0, f64::INFINITY]);
        assert_eq!(
            infinite,
            Ranks {
                first_sum: 2.5,
                ties: 6.0
            }
        );
        assert_eq!(ranks([-0.0].into_iter(), &[0.0]).first_sum, 1.5);
    }
}
