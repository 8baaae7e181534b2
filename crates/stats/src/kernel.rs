//! What one block of counts is worth against a tolerance.
//!
//! A block holds `n_C` candidate requests with `x_C` events and `n_B` baseline requests with
//! `x_B` events. The tolerance is the line `p_C = ρ p_B + δ`. Both kernels give the logarithm of
//! an e-value: a non-negative number whose expectation is at most 1 whenever the truth is on the
//! tolerated side, whatever the baseline's rate is in that block. Tilts above 1 test for "worse
//! than tolerated", tilts below 1 for "not worse than tolerated".
//!
//! **Rare events** (`rare_log_e`). With `θ(r) = rρ n_C / (rρ n_C + n_B)`, `a = θ(r)/θ(1)` and
//! `c = (1-θ(r))/(1-θ(1))`:
//!
//! ```text
//! ln e = x_C ln a + x_B ln c - δ n_C (a - 1),      ρ n_C (a - 1) + n_B (c - 1) = 0
//! ```
//!
//! For binomial or Poisson counts `E e ≤ exp(n_C p_C (a-1) + n_B p_B (c-1) - δ n_C (a-1))`, since
//! `1 + u ≤ e^u`, and the identity makes that at most 1 on the tolerated side for every `p_B`: no
//! nuisance parameter is estimated. With δ = 0 and Poisson counts this is the sequential
//! conditional-binomial test of Lindon and Malek, "Anytime-valid inference for multinomial count
//! data" (NeurIPS 2022). The price is paid where events are common: at rates of 10 % `1 + u ≤ e^u`
//! is far from tight.
//!
//! **Common events** (`common_log_e`). The likelihood ratio of an alternative `(t_C, t_B)` to its
//! reverse information projection `(q, u)`, `q = ρu + δ`, on the tolerance line:
//!
//! ```text
//! ln e = x_C ln(t_C/q) + (n_C-x_C) ln((1-t_C)/(1-q))
//!      + x_B ln(t_B/u) + (n_B-x_B) ln((1-t_B)/(1-u))
//! ```
//!
//! where `u` minimises `n_C KL(t_C‖ρu+δ) + n_B KL(t_B‖u)`. Each factor is linear in the true
//! probability, so `1 + v ≤ e^v` bounds the expectation by the exponential of a linear function
//! that the minimum's first-order condition makes at most 0 on the tolerated half-plane. For
//! `ρ = 1, δ = 0` it is the two-stream e-variable of Turner, Ly and Grünwald, "Generic e-variables
//! for exact sequential k-sample tests that allow for optional stopping" (2024). It needs a guess
//! of `t_B` made before the block is seen; a wrong guess costs power, never validity.

/// Counts of one block of time, candidate beside baseline.
///
/// Counts may be fractional (sampled spans weighted by their adjusted counts). An event is also a
/// request: where `events` exceeds `total`, as counters scraped mid-flight can show, the block is
/// read as if `total` were `events`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CountBlock {
    /// Requests to the candidate.
    pub candidate_total: f64,
    /// Of those, the bad ones.
    pub candidate_events: f64,
    /// Requests to the baseline.
    pub baseline_total: f64,
    /// Of those, the bad ones.
    pub baseline_events: f64,
}

/// The largest count a block may hold; beyond it `f64` no longer counts in ones.
pub const COUNT_MAX: f64 = 1e15;

/// Less than a millionth of a request is none.
const TOTAL_MIN: f64 = 1e-6;

/// Why a block of counts or buckets was refused. The test is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BlockError {
    /// A count is negative, not a number, or beyond [`COUNT_MAX`].
    #[error("{field}: expected a count from 0 to 1e15, found {found}")]
    Count {
        /// The count's name in the block.
        field: &'static str,
        /// Its value.
        found: f64,
    },
    /// Bucket indexes don't ascend.
    #[error("bucket {index}: expected an index above the one before it")]
    Order {
        /// The index that doesn't.
        index: i32,
    },
    /// A bucket lies outside the explicit boundaries.
    #[error("bucket {index}: expected an index from 0 to {last}, the one above the last bound")]
    Index {
        /// The index given.
        index: i32,
        /// The index of the overflow bucket.
        last: usize,
    },
    /// There are more buckets than any latency histogram needs.
    #[error("{found} buckets: expected at most {max}")]
    Buckets {
        /// How many would be held.
        found: usize,
        /// The limit.
        max: usize,
    },
}

impl CountBlock {
    /// The block with every request counted, or why it can't be used.
    pub(crate) fn checked(self) -> Result<CountBlock, BlockError> {
        let fields = [
            ("candidate_total", self.candidate_total),
            ("candidate_events", self.candidate_events),
            ("baseline_total", self.baseline_total),
            ("baseline_events", self.baseline_events),
        ];
        for (field, found) in fields {
            check_count(field, found)?;
        }
        Ok(CountBlock {
            candidate_total: self.candidate_total.max(self.candidate_events),
            baseline_total: self.baseline_total.max(self.baseline_events),
            ..self
        })
    }

    /// Whether both sides had requests; without both there is nothing to compare.
    pub(crate) fn is_comparable(&self) -> bool {
        self.candidate_total >= TOTAL_MIN && self.baseline_total >= TOTAL_MIN
    }

    /// The block seen from the other side: baseline as candidate.
    pub(crate) fn swapped(&self) -> CountBlock {
        CountBlock {
            candidate_total: self.baseline_total,
            candidate_events: self.baseline_events,
            baseline_total: self.candidate_total,
            baseline_events: self.candidate_events,
        }
    }
}

pub(crate) fn check_count(field: &'static str, found: f64) -> Result<(), BlockError> {
    if (0.0..=COUNT_MAX).contains(&found) {
        Ok(())
    } else {
        Err(BlockError::Count { field, found })
    }
}

/// The line `p_C = ratio * p_B + difference` up to which a candidate is tolerated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tolerance {
    pub(crate) ratio: f64,
    pub(crate) difference: f64,
}

impl Tolerance {
    /// The highest tolerated candidate rate beside a baseline of this rate.
    pub(crate) fn at(&self, baseline_rate: f64) -> f64 {
        self.ratio * baseline_rate + self.difference
    }
}

/// The rare-event kernel at `tilt`: `ln e` before division by the dispersion.
pub(crate) fn rare_log_e(block: &CountBlock, tolerance: Tolerance, tilt: f64) -> f64 {
    let (log_c, excess) = rare_terms(block, tolerance.ratio, tilt);
    block.candidate_events * tilt.ln() + (block.candidate_events + block.baseline_events) * log_c
        - tolerance.difference * excess
}

/// `ln c` and `n_C (a - 1)` of the rare-event kernel. Note `a = r c`.
pub(crate) fn rare_terms(block: &CountBlock, ratio: f64, tilt: f64) -> (f64, f64) {
    let weighted = ratio * block.candidate_total;
    let spread = tilt * weighted + block.baseline_total;
    let log_c = (-(weighted * ((tilt - 1.0) / spread))).ln_1p();
    let excess = block.candidate_total * ((tilt - 1.0) * (block.baseline_total / spread));
    (log_c, excess)
}

/// The common-event kernel for an alternative whose odds are `tilt` times those of the highest
/// tolerated rate, beside a baseline guessed at `baseline_rate`: `ln e` before division by the
/// dispersion. 0, no evidence, where the tolerance covers everything.
pub(crate) fn common_log_e(
    block: &CountBlock,
    tolerance: Tolerance,
    baseline_rate: f64,
    tilt: f64,
) -> f64 {
    let limit = tolerance.at(baseline_rate);
    if !(baseline_rate > 0.0 && baseline_rate < 1.0 && limit < 1.0) {
        return 0.0;
    }
    let alternative = tilt * limit / (1.0 - limit + tilt * limit);
    if alternative <= 0.0 || alternative >= 1.0 {
        return 0.0;
    }
    let (n_c, n_b) = (block.candidate_total, block.baseline_total);
    let projection = Projection {
        share_c: n_c / (n_c + n_b),
        share_b: n_b / (n_c + n_b),
        tolerance,
        candidate: alternative,
        baseline: baseline_rate,
    };
    let (u, residual) = projection.solve();
    let q = tolerance.at(u);
    let gain = |events: f64, total: f64, alternative: f64, null: f64| {
        events * (alternative / null).ln()
            + (total - events) * ((1.0 - alternative) / (1.0 - null)).ln()
    };
    // The bound holds exactly at the minimum. What the solver leaves of the slope is charged to
    // the test, so that rounding can't make it claim too much.
    gain(block.candidate_events, n_c, alternative, q)
        + gain(block.baseline_events, n_b, baseline_rate, u)
        - residual.abs() * (n_c + n_b)
}

/// The point of the tolerance line nearest an alternative, in the sense of the kernel.
struct Projection {
    /// The candidate's share of requests.
    share_c: f64,
    /// The baseline's; not `1 - share_c`, which may round to 0.
    share_b: f64,
    tolerance: Tolerance,
    candidate: f64,
    baseline: f64,
}

impl Projection {
    /// The baseline's rate at that point, and the slope left there per request.
    fn solve(&self) -> (f64, f64) {
        // The slope is monotone and changes sign between the two rates at which one of its two
        // terms vanishes.
        let other = ((self.candidate - self.tolerance.difference) / self.tolerance.ratio).max(0.0);
        // Strictly between: the slope is infinite at rates of 0 and 1.
        let start = self.share_c.clamp(1e-6, 1.0 - 1e-6);
        let mut u = start * other + (1.0 - start) * self.baseline;
        let (mut low, mut high) = if other > self.baseline {
            (self.baseline, other)
        } else {
            (other, self.baseline)
        };
        for _ in 0..60 {
            let (slope, curvature) = self.slope(u);
            if slope.abs() < 1e-15 {
                break;
            }
            if slope < 0.0 {
                low = u;
            } else {
                high = u;
            }
            let newton = u - slope / curvature;
            let next = if newton > low && newton < high {
                newton
            } else {
                0.5 * (low + high)
            };
            if next == u {
                break;
            }
            u = next;
        }
        (u, self.slope(u).0)
    }

    /// First and second derivative, per request, of the divergence along the line.
    fn slope(&self, u: f64) -> (f64, f64) {
        let ratio = self.tolerance.ratio;
        let q = self.tolerance.at(u);
        let (share_c, share_b) = (self.share_c * ratio, self.share_b);
        let derivative = |t: f64, x: f64| (x - t) / (x * (1.0 - x));
        let second = |t: f64, x: f64| t / (x * x) + (1.0 - t) / ((1.0 - x) * (1.0 - x));
        (
            share_c * derivative(self.candidate, q) + share_b * derivative(self.baseline, u),
            share_c * ratio * second(self.candidate, q) + share_b * second(self.baseline, u),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EQUAL: Tolerance = Tolerance {
        ratio: 1.0,
        difference: 0.0,
    };

    fn block(x_c: f64, n_c: f64, x_b: f64, n_b: f64) -> CountBlock {
        CountBlock {
            candidate_total: n_c,
            candidate_events: x_c,
            baseline_total: n_b,
            baseline_events: x_b,
        }
    }

    /// `ln E e^{gain X}` for a binomial `X`.
    fn log_expectation(n: f64, p: f64, gain: f64) -> f64 {
        n * (p * gain.exp_m1()).ln_1p()
    }

    #[test]
    fn the_rare_kernel_has_the_known_values() {
        let counts = block(7.0, 300.0, 12.0, 5700.0);
        let equal = rare_log_e(&counts, EQUAL, 4.0);
        assert!((equal - 7.048583622711221).abs() < 1e-12, "{equal}");
        let tolerance = Tolerance {
            ratio: 1.1,
            difference: 1e-4,
        };
        let tolerant = rare_log_e(&counts, tolerance, 4.0);
        assert!((tolerant - 6.742675666088422).abs() < 1e-12, "{tolerant}");
    }

    #[test]
    fn the_common_kernel_has_the_known_values() {
        let cases = [
            (
                block(30.0, 300.0, 290.0, 5700.0),
                0.05,
                2.0,
                5.538996488655217,
            ),
            (
                block(150.0, 300.0, 2850.0, 5700.0),
                0.5,
                1.2,
                -1.1828363107957358,
            ),
            (
                block(20.0, 300.0, 570.0, 5700.0),
                0.09,
                1.0 / 1.5,
                1.9669097086655531,
            ),
        ];
        for (counts, baseline_rate, tilt, expected) in cases {
            let found = common_log_e(&counts, EQUAL, baseline_rate, tilt);
            assert!((found - expected).abs() < 1e-8, "{found}, not {expected}");
        }
    }

    type Kernel = fn(&CountBlock, Tolerance, f64, f64) -> f64;

    /// The exact expectation of the e-value, computed from the probabilities instead of simulated,
    /// over baselines the kernel was not told about and over both sides of every tolerance.
    #[test]
    fn neither_kernel_expects_to_win_on_tolerated_ground() {
        let rare: Kernel = |block, tolerance, _, tilt| rare_log_e(block, tolerance, tilt);
        for (ratio, difference) in [(1.0, 0.0), (1.25, 0.001), (2.0, 0.05), (1.1, 0.2)] {
            let tolerance = Tolerance { ratio, difference };
            for tilt in [1.0 / 3.0, 0.8, 1.1, 1.5, 4.0, 60.0] {
                assert_no_gain(rare, tolerance, 0.0, tilt);
                for guess in [0.001, 0.03, 0.3] {
                    assert_no_gain(common_log_e, tolerance, guess, tilt);
                }
            }
        }
    }

    fn assert_no_gain(kernel: Kernel, tolerance: Tolerance, guess: f64, tilt: f64) {
        let (n_c, n_b) = (300.0, 1500.0);
        // ln e is linear in the counts, so three blocks give its coefficients.
        let at = |x_c, x_b| kernel(&block(x_c, n_c, x_b, n_b), tolerance, guess, tilt);
        let none = at(0.0, 0.0);
        let (per_c, per_b) = (at(1.0, 0.0) - none, at(0.0, 1.0) - none);
        let sides = if tilt > 1.0 {
            [0.5, 0.9, 1.0]
        } else {
            [1.0, 1.1, 1.5]
        };
        for rate in [1e-5, 0.001, 0.02, 0.1, 0.4] {
            for candidate in sides.map(|side| side * tolerance.at(rate)) {
                if candidate > 1.0 {
                    continue;
                }
                let expected = none
                    + log_expectation(n_c, candidate, per_c)
                    + log_expectation(n_b, rate, per_b);
                assert!(
                    expected <= 1e-9,
                    "{expected} at {candidate} to {rate}, {tolerance:?}, guess {guess}, tilt {tilt}"
                );
            }
        }
    }
}
