//! A test that bets on many sizes of change at once.
//!
//! `E_t = Σ_j w_j Π_b e_b(r_j)`: one running product per tilt `r_j`, averaged with fixed weights.
//! An average of e-processes is an e-process, so Ville's inequality holds for it: under the null
//! the chance that `E` ever reaches `1/α` is at most α, however often one looks.
//!
//! Two such averages run side by side. One uses the rare-event kernel throughout. The other
//! changes to the common-event kernel in blocks where, judged by earlier blocks, the tolerated
//! rate is above 2 %. While rates are low both are the same process and the second
//! costs nothing; at high rates it carries three quarters of the weight, and the first remains as
//! the part that no sudden change of the baseline can mislead.
//!
//! **Changes that begin late.** While nothing is wrong the bets lose, and a change that begins in
//! the second half of a rollout has to win that back first. On request a part of the stake is set
//! aside and bet anew from every block `k` on, with weights `v_k` that sum to 1:
//! `E_t = (1-m) E_{0→t} + m (Σ_{k≤t} v_k E_{k→t} + Σ_{k>t} v_k)`. What has not been bet yet
//! counts as it is, so this is an e-process as well. `v_k = 1/ln(e+k-1) - 1/ln(e+k)` needs no
//! horizon and falls hardly faster than `1/k`; the sum over `k` is one running product per tilt.

use crate::kernel::CountBlock;
use crate::kernel::Tolerance;
use crate::kernel::common_log_e;
use crate::kernel::rare_log_e;
use crate::special::log_add_exp;
use crate::special::log_spaced;
use crate::special::log_sum_exp;
use std::sync::LazyLock;

/// Which question a test answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Evidence that the candidate is worse than tolerated: what a fail rests on.
    Worse,
    /// Evidence that the candidate is not worse than tolerated: what a pass rests on.
    NotWorse,
}

/// The tolerated rate above which the common-event kernel takes over.
pub(crate) const COMMON_RATE: f64 = 0.02;

/// Weight of the process that may use the common-event kernel.
const ADAPTIVE_WEIGHT: f64 = 0.75;

/// The tilts of a mixture and the logarithms of their weights, which sum to 1.
#[derive(Debug)]
pub(crate) struct Grid {
    pub(crate) tilts: Vec<f64>,
    pub(crate) log_weights: Vec<f64>,
}

impl Grid {
    /// Log-spaced pieces `(from, to, points, weight of the piece)`.
    pub(crate) fn new(pieces: &[(f64, f64, u32, f64)]) -> Grid {
        let (mut tilts, mut log_weights) = (Vec::new(), Vec::new());
        for &(from, to, points, weight) in pieces {
            for tilt in log_spaced(from, to, points) {
                tilts.push(tilt);
                log_weights.push((weight / f64::from(points)).ln());
            }
        }
        Grid { tilts, log_weights }
    }

    /// `ln Σ_j w_j e^{times sums_j}`.
    pub(crate) fn log_mean(&self, sums: &[f64], times: f64) -> f64 {
        log_sum_exp(
            self.log_weights
                .iter()
                .zip(sums)
                .map(|(w, s)| w + times * s),
        )
    }
}

/// Event rates, worse: most weight around a doubling, some on a crash.
pub(crate) static RATE_WORSE: LazyLock<Grid> =
    LazyLock::new(|| Grid::new(&[(1.3, 4.0, 16, 0.7), (5.0, 400.0, 16, 0.3)]));

/// Event rates, not worse: the candidate's rate as a fraction of the tolerated one.
pub(crate) static RATE_NOT_WORSE: LazyLock<Grid> =
    LazyLock::new(|| Grid::new(&[(0.12, 0.85, 20, 1.0)]));

/// Odds of exceeding a latency threshold, worse.
pub(crate) static ODDS_WORSE: LazyLock<Grid> =
    LazyLock::new(|| Grid::new(&[(1.12, 2.0, 14, 0.7), (2.3, 30.0, 10, 0.3)]));

/// Odds of exceeding a latency threshold, not worse.
pub(crate) static ODDS_NOT_WORSE: LazyLock<Grid> =
    LazyLock::new(|| Grid::new(&[(1.0 / 1.15, 1.0 / 3.0, 12, 1.0)]));

/// What is fixed about a block before its counts are seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) tolerance: Tolerance,
    /// The baseline's rate, judged by earlier blocks.
    pub(crate) baseline_rate: f64,
    /// Tilts are multiplied by this, and kept at 1 or above where it is below 1.
    pub(crate) tilt_scale: f64,
    /// The log e-value is divided by this.
    pub(crate) dispersion: f64,
}

/// The running products of a mixture.
#[derive(Clone, Debug)]
pub(crate) struct Mixture {
    grid: &'static Grid,
    rare: Vec<f64>,
    /// `None` until a block was judged by the common-event kernel.
    adaptive: Option<Vec<f64>>,
    late: Option<Late>,
}

/// The part of the stake that is bet anew from every block on.
#[derive(Clone, Debug)]
struct Late {
    weight: f64,
    blocks: f64,
    /// `ln Σ_k v_k Π_{b≥k} e_b(r_j)`.
    sums: Vec<f64>,
}

impl Late {
    /// The share of the weights `v` that belongs to blocks not seen yet.
    fn reserve(&self) -> f64 {
        1.0 / (std::f64::consts::E + self.blocks).ln()
    }

    /// Counts a block and gives the logarithm of its weight.
    fn start_block(&mut self) -> f64 {
        let before = self.reserve();
        self.blocks += 1.0;
        (before - self.reserve()).ln()
    }
}

impl Mixture {
    pub(crate) fn new(grid: &'static Grid) -> Mixture {
        Mixture {
            grid,
            rare: vec![0.0; grid.tilts.len()],
            adaptive: None,
            late: None,
        }
    }

    /// Sets `weight` of the stake aside for changes that begin from here on.
    pub(crate) fn expect_late_onset(&mut self, weight: f64) {
        self.late = Some(Late {
            weight,
            blocks: 0.0,
            sums: vec![f64::NEG_INFINITY; self.grid.tilts.len()],
        });
    }

    /// Multiplies in a block that both sides had requests in.
    pub(crate) fn push(&mut self, block: &CountBlock, setting: &Setting) {
        let common = setting.tolerance.at(setting.baseline_rate) > COMMON_RATE;
        if common && self.adaptive.is_none() {
            self.adaptive = Some(self.rare.clone());
        }
        let late_weight = self.late.as_mut().map(Late::start_block);
        for (j, &tilt) in self.grid.tilts.iter().enumerate() {
            let tilt = setting.effective(tilt);
            let rare = setting.gain(tilt, || rare_log_e(block, setting.tolerance, tilt));
            let adaptive = if common {
                let rate = setting.baseline_rate;
                setting.gain(tilt, || common_log_e(block, setting.tolerance, rate, tilt))
            } else {
                rare
            };
            self.rare[j] += rare;
            if let Some(sums) = &mut self.adaptive {
                sums[j] += adaptive;
            }
            if let (Some(late), Some(weight)) = (&mut self.late, late_weight) {
                late.sums[j] = log_add_exp(late.sums[j], weight) + adaptive;
            }
        }
    }

    /// The logarithm of the mixture's current e-value.
    pub(crate) fn log_e(&self) -> f64 {
        let early = self.log_e_after(1.0);
        match &self.late {
            None => early,
            Some(late) => log_add_exp(
                (1.0 - late.weight).ln() + early,
                late.weight.ln()
                    + log_add_exp(late.reserve().ln(), self.grid.log_mean(&late.sums, 1.0)),
            ),
        }
    }

    /// What it would be had all that was seen been seen `times` over, nothing set aside.
    pub(crate) fn log_e_after(&self, times: f64) -> f64 {
        let rare = self.grid.log_mean(&self.rare, times);
        match &self.adaptive {
            None => rare,
            Some(sums) => log_add_exp(
                (1.0 - ADAPTIVE_WEIGHT).ln() + rare,
                ADAPTIVE_WEIGHT.ln() + self.grid.log_mean(sums, times),
            ),
        }
    }
}

impl Setting {
    /// The tilt used in this block for a grid point.
    pub(crate) fn effective(&self, tilt: f64) -> f64 {
        if self.tilt_scale == 1.0 {
            tilt
        } else {
            (tilt * self.tilt_scale).max(1.0)
        }
    }

    /// What a kernel adds, nothing where the tilt is none.
    fn gain(&self, tilt: f64, kernel: impl FnOnce() -> f64) -> f64 {
        if tilt == 1.0 {
            0.0
        } else {
            kernel() / self.dispersion
        }
    }
}

#[cfg(test)]
impl Mixture {
    /// The logarithm of the e-value of the process that uses the rare-event kernel throughout.
    pub(crate) fn rare_log_e(&self) -> f64 {
        self.grid.log_mean(&self.rare, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_has_the_known_points_and_weights() {
        let grid = &*RATE_WORSE;
        assert_eq!(grid.tilts.len(), 32);
        for (j, tilt, log_weight) in [
            (0, 1.3, -3.1292636661785136),
            (1, 1.4011494529530644, -3.1292636661785136),
            (15, 4.0, -3.1292636661785136),
            (16, 5.0, -3.9765615265657175),
            (31, 400.0, -3.9765615265657175),
        ] {
            assert!((grid.tilts[j] / tilt - 1.0).abs() < 1e-12, "{j}");
            assert!((grid.log_weights[j] - log_weight).abs() < 1e-12, "{j}");
        }
    }

    #[test]
    fn every_grid_is_a_fair_bet() {
        for grid in [&RATE_WORSE, &RATE_NOT_WORSE, &ODDS_WORSE, &ODDS_NOT_WORSE] {
            let nothing = vec![0.0; grid.tilts.len()];
            assert!(grid.log_mean(&nothing, 1.0).abs() < 1e-12);
        }
    }
}
