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

    /// The sum as added up, and what was lost.
    pub(crate) fn parts(&self) -> (f64, f64) {
        (self.sum, self.lost)
    }

    pub(crate) fn from_parts((sum, lost): (f64, f64)) -> Self {
        Sum { sum, lost }
    }
}

/// A running arithmetic mean: sum by count as long as the sum is finite, else a mean that is
/// corrected by each value, which can't overflow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mean {
    /// The sum, or the corrected mean.
    sum: Sum,
    count: f64,
    is_corrected: bool,
}

impl Mean {
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.is_corrected {
            let mut next = self.sum;
            next.add(value);
            if self.count == 1.0 || !next.value().is_infinite() {
                self.sum = next;
                return;
            }
            let before = self.count - 1.0;
            self.sum = Sum {
                sum: self.sum.sum / before,
                lost: self.sum.lost / before,
            };
            self.is_corrected = true;
        }
        self.correct(value);
    }

    fn correct(&mut self, value: f64) {
        if self.sum.sum.is_infinite() {
            if value.is_infinite() && (self.sum.sum > 0.0) == (value > 0.0) {
                return;
            }
            if value.is_finite() {
                return;
            }
        }
        let mean = self.sum.value();
        self.sum.add(value / self.count - mean / self.count);
    }

    /// The mean of `zeros` zeros.
    pub(crate) fn of_zeros(zeros: usize) -> Self {
        Mean {
            count: zeros as f64,
            ..Mean::default()
        }
    }

    /// What is added up, and what was lost.
    pub(crate) fn parts(&self) -> (f64, f64) {
        self.sum.parts()
    }

    /// The mean of as many values that add up to these parts.
    pub(crate) fn with_parts(&self, parts: (f64, f64)) -> Self {
        Mean {
            sum: Sum::from_parts(parts),
            ..*self
        }
    }

    /// NaN for no values.
    pub(crate) fn value(&self) -> f64 {
        if self.is_corrected {
            return self.sum.value();
        }
        self.sum.sum / self.count + self.sum.lost / self.count
    }
}

/// The arithmetic mean of `values`.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut mean = Mean::default();
    for value in values {
        mean.add(value);
    }
    mean.value()
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
