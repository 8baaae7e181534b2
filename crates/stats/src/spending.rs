//! A test that may stop early, at looks nobody planned: group-sequential boundaries by error
//! spending.
//!
//! A statistic whose z-value at information `I` is that of a Brownian motion at time `I` is looked
//! at again and again. How much of the error rate may be spent by when is fixed beforehand, as a
//! function of calendar time; each look's boundary is the one whose chance of being crossed now,
//! and not before, is what has become free to spend (Lan and DeMets, "Discrete sequential
//! boundaries for clinical trials", Biometrika 70, 1983). So the number of looks, their times and
//! the traffic between them need not be known, as long as they do not depend on the result.
//!
//! Compared with an e-process the promise ends with the horizon, and in exchange a regression just
//! above the tolerance is found in nearly the time a single planned test would take.
//!
//! The chance of a first crossing follows Armitage, McPherson and Rowe (1969): the density of the
//! z-value among runs that have not crossed is carried from look to look on a grid of
//! [`NODES`] points.

use crate::tails::{normal_quantile_upper, normal_upper};

/// Points of the grid.
const NODES: usize = 160;

/// The grid's lower end: a run this far below never comes back to a boundary.
const LOW: f64 = -5.0;

/// The highest boundary; the chance to cross it by chance is below 1e-15.
const HIGH: f64 = 8.0;

/// How the error rate is spent over the horizon: a part early, so that what is plain is found at
/// once, and the rest late, where small regressions have become visible.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spending {
    /// The part that is spent early, from 0 to 1.
    pub early: f64,
    /// The early part grows as time to this power.
    pub early_power: f64,
    /// The late part grows as time to this power.
    pub late_power: f64,
}

impl Spending {
    /// The part of the error rate that may be spent up to `fraction` of the horizon.
    pub fn by(&self, fraction: f64) -> f64 {
        let at = fraction.clamp(0.0, 1.0);
        self.early * at.powf(self.early_power) + (1.0 - self.early) * at.powf(self.late_power)
    }
}

/// The boundaries of one one-sided test, computed look by look.
#[derive(Clone, Debug)]
pub struct Boundaries {
    /// Probability, at evenly spaced z-values from [`LOW`] to the last boundary, of being there
    /// without having crossed.
    mass: Vec<f64>,
    information: f64,
    spent: f64,
    boundary: f64,
}

impl Default for Boundaries {
    fn default() -> Self {
        Boundaries::new()
    }
}

impl Boundaries {
    /// Before the first look: nothing is spent and nothing crosses.
    pub fn new() -> Boundaries {
        Boundaries {
            mass: Vec::new(),
            information: 0.0,
            spent: 0.0,
            boundary: f64::INFINITY,
        }
    }

    /// The boundary at the newest look; infinity before the first.
    pub fn boundary(&self) -> f64 {
        self.boundary
    }

    /// The probability, where there is no difference, of having crossed so far.
    pub fn spent(&self) -> f64 {
        self.spent
    }

    /// The information at the newest look.
    pub fn information(&self) -> f64 {
        self.information
    }

    /// Makes a look at `information`, by which `spend` of all error may have been spent, and gives
    /// its boundary. Where information has not grown there is no look: the boundary is that of the
    /// look before, and what was not spent is left for later ones.
    pub fn look(&mut self, information: f64, spend: f64) -> f64 {
        if !(information.is_finite() && information > self.information) {
            return self.boundary;
        }
        let free = (spend - self.spent).max(0.0);
        let before = Before {
            step: self.step(),
            shrink: (self.information / information).sqrt(),
            spread: (1.0 - self.information / information).sqrt(),
        };
        let boundary = if self.mass.is_empty() {
            normal_quantile_upper(free).clamp(-LOW.abs() + 1.0, HIGH)
        } else {
            self.solve(&before, free)
        };
        let crossed = self.upper(&before, boundary);
        self.mass = self.carried(&before, boundary);
        self.information = information;
        self.spent += crossed;
        self.boundary = boundary;
        boundary
    }

    fn step(&self) -> f64 {
        (self.boundary - LOW) / (NODES - 1) as f64
    }

    /// The probability of being above `z` at the next look without having crossed before.
    fn upper(&self, before: &Before, z: f64) -> f64 {
        if self.mass.is_empty() {
            return normal_upper(z);
        }
        let nodes = self.mass.iter().enumerate();
        nodes
            .map(|(at, mass)| mass * normal_upper(before.standardised(at, z)))
            .sum()
    }

    /// Newton's method on the logarithm of the chance to cross, which is nearly a parabola.
    fn solve(&self, before: &Before, free: f64) -> f64 {
        if self.upper(before, HIGH) >= free {
            return HIGH;
        }
        let (mut low, mut high) = (LOW + 1.0, HIGH);
        let mut z = self.boundary.clamp(low, 6.0);
        for _ in 0..60 {
            let chance = self.upper(before, z);
            if (chance / free - 1.0).abs() < 1e-6 || high - low < 1e-9 {
                break;
            }
            if chance > free {
                low = z;
            } else {
                high = z;
            }
            let slope = self.density(before, z) / chance.max(f64::MIN_POSITIVE);
            let next = z + (chance / free).ln() / slope;
            z = if next > low && next < high {
                next
            } else {
                0.5 * (low + high)
            };
        }
        z
    }

    /// The density at `z` at the next look of runs that have not crossed before.
    fn density(&self, before: &Before, z: f64) -> f64 {
        let reach = 6.0 * before.spread;
        let step = before.step;
        let centre = |z: f64| (z / before.shrink - LOW) / step;
        let width = reach / before.shrink / step;
        let first = (centre(z) - width).max(0.0) as usize;
        let last = ((centre(z) + width).max(0.0) as usize).min(NODES - 1);
        let near = || self.mass.iter().enumerate().take(last + 1).skip(first);
        let u = before.standardised(first, z);
        let by = -before.step * before.shrink / before.spread;
        let mut sum = 0.0;
        if by.abs() > 1.0 {
            // Few nodes are near.
            for (at, mass) in near() {
                let u = before.standardised(at, z);
                sum += mass * (-0.5 * u * u).exp();
            }
        } else {
            // Nodes are evenly spaced, so from one to the next the bell grows by a factor that
            // itself grows by a constant one: two products for what an exponential costs ten.
            let mut bell = (-0.5 * u * u).exp();
            let mut grows = (-by * (u + 0.5 * by)).exp();
            let again = (-by * by).exp();
            for (_, mass) in near() {
                sum += mass * bell;
                bell *= grows;
                grows *= again;
            }
        }
        sum / (before.spread * std::f64::consts::TAU.sqrt())
    }

    fn carried(&self, before: &Before, boundary: f64) -> Vec<f64> {
        let step = (boundary - LOW) / (NODES - 1) as f64;
        let ends = [0, NODES - 1];
        (0..NODES)
            .map(|at| {
                let z = LOW + step * at as f64;
                let density = if self.mass.is_empty() {
                    (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt()
                } else {
                    self.density(before, z)
                };
                // The trapezoidal rule.
                let weight = if ends.contains(&at) { 0.5 } else { 1.0 };
                density * weight * step
            })
            .collect()
    }
}

/// How z-values at the last look relate to those at the next.
struct Before {
    step: f64,
    shrink: f64,
    spread: f64,
}

impl Before {
    /// How many standard deviations `z` at the next look is above where node `at` leads to.
    fn standardised(&self, at: usize, z: f64) -> f64 {
        let from = LOW + self.step * at as f64;
        (z - from * self.shrink) / self.spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn boundaries(spend: impl Fn(f64) -> f64) -> Vec<f64> {
        let mut test = Boundaries::new();
        let looks = (1..=5).map(|look| f64::from(look) / 5.0);
        looks.map(|at| test.look(at, spend(at))).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        for (f, e) in found.iter().zip(expected) {
            assert!(
                (f - e).abs() < 2e-3,
                "found {found:?}, expected {expected:?}"
            );
        }
    }

    /// The published boundaries for five equally spaced looks at 2.5 %, one-sided.
    #[test]
    fn known_designs_have_their_boundaries() {
        let alpha = 0.025;
        let o_brien_fleming =
            |at: f64| 2.0 * normal_upper(normal_quantile_upper(alpha / 2.0) / at.sqrt());
        let pocock = |at: f64| alpha * (1.0 + (std::f64::consts::E - 1.0) * at).ln();
        assert_close(
            &boundaries(o_brien_fleming),
            &[4.8769, 3.3569, 2.6803, 2.2898, 2.0310],
        );
        assert_close(
            &boundaries(pocock),
            &[2.4380, 2.4268, 2.4101, 2.3966, 2.3859],
        );
    }

    #[test]
    fn a_look_without_new_information_spends_nothing() {
        let mut test = Boundaries::new();
        assert_eq!(test.boundary(), f64::INFINITY);
        let first = test.look(1.0, 0.001);
        assert_eq!(test.look(1.0, 0.02), first);
        assert!((test.spent() - 0.001).abs() < 1e-9);
        assert_eq!(test.look(f64::NAN, 0.02), first);
        test.look(2.0, 0.02);
        assert!((test.spent() - 0.02).abs() < 1e-6);
    }

    /// The density's recurrence is the bell itself, whether the next look is near or far.
    #[test]
    fn a_density_is_the_sum_of_bells() {
        let mut test = Boundaries::new();
        test.look(1.0, 0.001);
        for information in [1.000_001, 1.002, 1.1, 3.0, 400.0] {
            let before = Before {
                step: test.step(),
                shrink: (1.0f64 / information).sqrt(),
                spread: (1.0f64 - 1.0 / information).sqrt(),
            };
            for z in [-3.0, 0.0, 1.7, 2.9] {
                let bells = test.mass.iter().enumerate().map(|(at, mass)| {
                    let u = before.standardised(at, z);
                    mass * (-0.5 * u * u).exp()
                });
                let expected = bells.sum::<f64>() / (before.spread * std::f64::consts::TAU.sqrt());
                let found = test.density(&before, z);
                assert!(
                    (found - expected).abs() <= 1e-7 * expected + 1e-12,
                    "{information}, {z}: {found}, {expected}"
                );
            }
        }
    }

    /// Looked at 200 times, at times that grow like traffic in a ramp.
    #[test]
    fn a_harmless_run_crosses_as_often_as_was_promised() {
        let spending = Spending {
            early: 0.5,
            early_power: 0.6,
            late_power: 3.0,
        };
        let alpha = 0.05;
        let mut test = Boundaries::new();
        let information = |look: u32| f64::from(look) + 0.05 * f64::from(look).powi(2);
        let limits: Vec<f64> = (1..=200)
            .map(|look| {
                test.look(
                    information(look),
                    alpha * spending.by(f64::from(look) / 200.0),
                )
            })
            .collect();
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let runs = 4_000;
        let mut crossed = 0;
        for _ in 0..runs {
            let (mut at, mut before) = (0.0, 0.0);
            for (look, limit) in (1..).zip(&limits) {
                let now: f64 = information(look);
                let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * rng.random::<f64>()).cos();
                at += normal * (now - before).sqrt();
                before = now;
                if at / now.sqrt() >= *limit {
                    crossed += 1;
                    break;
                }
            }
        }
        let rate = f64::from(crossed) / f64::from(runs);
        assert!((rate - alpha).abs() < 0.012, "{rate}");
    }
}
