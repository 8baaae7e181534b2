//! Compensated summation, so that a sum does not depend on the order of its terms.
//!
//! Neumaier's variant of Kahan's algorithm. The compiler may not fuse or reorder these
//! operations; Rust never does without being asked.

/// A running sum and what rounding has lost from it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> f64 {
        let mut sum = Sum::default();
        for value in values {
            sum.add(value);
        }
        sum.value()
    }

    pub(crate) fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost = if sum.is_infinite() {
            // Compensating an infinity would make it NaN.
            0.0
        } else if self.sum.abs() >= value.abs() {
            self.lost + ((self.sum - sum) + value)
        } else {
            self.lost + ((value - sum) + self.sum)
        };
        self.sum = sum;
    }

    pub(crate) fn value(&self) -> f64 {
        self.sum + self.lost
    }
}

/// The arithmetic mean: sum by count as long as the sum is finite, else a mean that is
/// corrected by each value, which can't overflow.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sum = Sum::default();
    let mut incremental: Option<Sum> = None;
    let mut count = 0.0;
    for value in values {
        count += 1.0;
        if incremental.is_none() {
            let mut next = sum;
            next.add(value);
            if count == 1.0 || !next.value().is_infinite() {
                sum = next;
                continue;
            }
            incremental = Some(Sum {
                sum: sum.sum / (count - 1.0),
                lost: sum.lost / (count - 1.0),
            });
        }
        if let Some(mean) = &mut incremental {
            step_mean(mean, value, count);
        }
    }
    match incremental {
        Some(mean) => mean.value(),
        None => sum.sum / count + sum.lost / count,
    }
}

fn step_mean(mean: &mut Sum, value: f64, count: f64) {
    if mean.sum.is_infinite() {
        if value.is_infinite() && (mean.sum > 0.0) == (value > 0.0) {
            return;
        }
        if value.is_finite() {
            return;
        }
    }
    let correction = mean.value();
    let mut next = *mean;
    next.add(value / count - correction / count);
    *mean = next;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_survives_cancellation() {
        assert_eq!(Sum::of([1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(Sum::of([f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(Sum::of([f64::INFINITY, f64::NEG_INFINITY]).is_nan());
    }

    #[test]
    fn a_mean_does_not_overflow() {
        let huge = 1.7e308;
        assert!((mean([huge, huge, huge]) / huge - 1.0).abs() < 1e-12);
        assert_eq!(mean([1.0, 2.0, 6.0]), 3.0);
        assert_eq!(mean([f64::INFINITY]), f64::INFINITY);
        assert!(mean([f64::NAN, 1.0]).is_nan());
    }
}
