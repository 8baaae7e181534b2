//! How much more do counts vary than independent requests would?
//!
//! Errors come in bursts: one failed dependency fails ten retries. Counts then vary more than
//! binomial ones, and evidence computed as if requests were independent is overstated. Dividing a
//! log e-value by the dispersion φ corrects it: exactly where every cause produces at most φ
//! events at once, to second order where φ is the ratio of variance to that of independent
//! requests. Here φ is estimated from the baseline, so that what the candidate does can't excuse
//! itself. An estimate is not a guarantee: where the baseline's past is no guide to how its errors
//! cluster, neither is this.
//!
//! The measure is Pearson's `χ² / degrees of freedom`, `Σ (x_i - n_i p)² / V_i / (I - 1)`, which
//! is 1 on average for independent requests.
//!
//! - [`over_time`]: each block of time is compared with its two neighbours together, so that a
//!   drift of the rate, which both sides of a rollout share, is not taken for bursts. Also after
//!   joining 5 and 15 blocks, for bursts that last longer than a block.
//! - [`over_instances`]: instances are compared with each other within each block, and in total.
//!   Instances that differ lastingly make a candidate on other instances differ too.
//!
//! Estimates from few degrees of freedom scatter: one is used only where it exceeds
//! `1 + 1.5 √(2/df)`, otherwise it counts as 1. The result is the largest that is used, never
//! below 1, and 1 with fewer than 5 events, fewer than 6 blocks, or nothing to compare. Counts
//! that are none are left out.

use crate::kernel::check_count;

/// Events among requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    /// Requests.
    pub total: f64,
    /// Of those, the bad ones (or those above a latency threshold).
    pub events: f64,
}

/// The variance of independent requests to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variance {
    /// `n p`: for rare events.
    Poisson,
    /// `n p (1-p)`: for shares of any size, as above a latency threshold.
    Binomial,
}

/// Fewer events than this say nothing about how they cluster.
const EVENTS_MIN: f64 = 5.0;

/// Fewer blocks than this, after joining, say nothing about how they vary.
const BLOCKS_MIN: usize = 6;

/// How many blocks are joined into one.
const SCALES: [usize; 3] = [1, 5, 15];

/// Pearson's χ² per degree of freedom over cells that share one rate. `None` with fewer than two
/// cells that have requests, or without events.
pub fn pearson(cells: &[Count], variance: Variance) -> Option<f64> {
    let (chi_squared, freedom) = chi_squared(cells, variance)?;
    Some(chi_squared / freedom)
}

/// The dispersion of one stream of counts over consecutive blocks of time, at least 1.
pub fn over_time(blocks: &[Count], variance: Variance) -> f64 {
    let events: f64 = blocks
        .iter()
        .filter(|c| c.is_usable())
        .map(|c| c.events)
        .sum();
    if events < EVENTS_MIN {
        return 1.0;
    }
    let at_scale = |joined: usize| {
        let cells: Vec<Count> = blocks.chunks_exact(joined).map(sum).collect();
        if cells.len() < BLOCKS_MIN {
            return 1.0;
        }
        let middles = cells.windows(3).filter_map(|near| match near {
            [before, middle, after] => chi_squared(&[*middle, sum(&[*before, *after])], variance),
            _ => None,
        });
        let (chi_squared, freedom) = middles.fold((0.0, 0.0), |(x, f), (y, g)| (x + y, f + g));
        // Neighbours share blocks: they are worth about half as many independent comparisons.
        convincing(chi_squared, freedom, 0.5 * freedom)
    };
    SCALES.into_iter().map(at_scale).fold(1.0, f64::max)
}

/// The dispersion between instances, at least 1. Each block lists its instances in the same
/// order; one that was absent has no requests.
pub fn over_instances<B: AsRef<[Count]>>(blocks: &[B], variance: Variance) -> f64 {
    let mut totals: Vec<Count> = Vec::new();
    let (mut chi, mut freedom) = (0.0, 0.0);
    for block in blocks {
        let block = block.as_ref();
        if totals.len() < block.len() {
            totals.resize(block.len(), Count::default());
        }
        for (total, cell) in totals.iter_mut().zip(block) {
            *total = sum(&[*total, *cell]);
        }
        if let Some((x, f)) = chi_squared(block, variance) {
            chi += x;
            freedom += f;
        }
    }
    if totals.iter().map(|cell| cell.events).sum::<f64>() < EVENTS_MIN {
        return 1.0;
    }
    let within = convincing(chi, freedom, freedom);
    let overall = chi_squared(&totals, variance).map_or(1.0, |(x, f)| convincing(x, f, f));
    within.max(overall)
}

impl Count {
    fn is_usable(&self) -> bool {
        check_count("total", self.total).is_ok() && check_count("events", self.events).is_ok()
    }
}

fn sum(cells: &[Count]) -> Count {
    let usable = cells.iter().filter(|cell| cell.is_usable());
    usable.fold(Count::default(), |sum, cell| Count {
        total: sum.total + cell.total.max(cell.events),
        events: sum.events + cell.events,
    })
}

/// χ² and its degrees of freedom.
pub(crate) fn chi_squared(cells: &[Count], variance: Variance) -> Option<(f64, f64)> {
    let all = sum(cells);
    let rate = all.events / all.total;
    let cells = cells
        .iter()
        .filter(|cell| cell.is_usable() && cell.total > 0.0);
    let freedom = cells.clone().count() as f64 - 1.0;
    let per_request = match variance {
        Variance::Poisson => rate,
        Variance::Binomial => rate * (1.0 - rate),
    };
    if freedom < 1.0 || per_request <= 0.0 || !per_request.is_finite() {
        return None;
    }
    let chi_squared = cells
        .map(|cell| (cell.events - cell.total * rate).powi(2) / (cell.total * per_request))
        .sum();
    Some((chi_squared, freedom))
}

/// χ² per degree of freedom where it is more than scatter would show, else 1.
fn convincing(chi_squared: f64, freedom: f64, independent: f64) -> f64 {
    let dispersion = chi_squared / freedom;
    let scatter = 1.5 * (2.0 / independent).sqrt();
    if dispersion > 1.0 + scatter {
        dispersion
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::binomial;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn cells(events: &[f64], total: f64) -> Vec<Count> {
        events
            .iter()
            .map(|&events| Count { total, events })
            .collect()
    }

    #[test]
    fn pearson_has_the_known_value() {
        let cells = cells(&[3.0, 5.0, 4.0, 9.0, 2.0, 6.0, 5.0, 4.0], 1000.0);
        let found = pearson(&cells, Variance::Poisson).expect("has events");
        assert!((found - 0.947_368_421_052_631_6).abs() < 1e-12, "{found}");
        let binomial = pearson(&cells, Variance::Binomial).expect("has events");
        assert!(
            (binomial - found / (1.0 - 0.00475)).abs() < 1e-12,
            "{binomial}"
        );
    }

    #[test]
    fn nothing_to_compare_is_no_dispersion() {
        assert_eq!(pearson(&[], Variance::Poisson), None);
        assert_eq!(pearson(&cells(&[0.0, 0.0], 10.0), Variance::Poisson), None);
        assert_eq!(
            over_time(&cells(&[9.0, 1.0], 10.0), Variance::Binomial),
            1.0
        );
        assert_eq!(
            over_time(&cells(&[4.0, 0.0, 0.0], 10.0), Variance::Poisson),
            1.0
        );
        assert_eq!(over_instances::<Vec<Count>>(&[], Variance::Poisson), 1.0);
        let broken = cells(&[f64::NAN, -1.0, f64::INFINITY, 9.0], 10.0);
        assert_eq!(over_time(&broken, Variance::Poisson), 1.0);
    }

    fn stream(
        rng: &mut ChaCha8Rng,
        blocks: u32,
        burst: f64,
        rate: impl Fn(u32) -> f64,
    ) -> Vec<Count> {
        (0..blocks)
            .map(|at| Count {
                total: 1000.0,
                events: burst * binomial(rng, 1000, rate(at) / burst),
            })
            .collect()
    }

    #[test]
    fn bursts_are_measured_and_independence_is_left_alone() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for burst in [1.0, 5.0, 10.0] {
            let events = stream(&mut rng, 240, burst, |_| 0.02);
            let found = over_time(&events, Variance::Poisson);
            assert!(
                found > 0.75 * burst && found < 1.8 * burst,
                "{found} for {burst}"
            );
        }
    }

    /// Errors that rise tenfold over four hours, on both sides of any rollout, are no bursts.
    #[test]
    fn a_slow_drift_is_not_taken_for_bursts() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let drift = stream(&mut rng, 240, 1.0, |at| {
            0.002 * 10.0_f64.powf(f64::from(at) / 240.0)
        });
        let found = over_time(&drift, Variance::Poisson);
        assert!(found < 2.0, "{found}");
        let pooled = pearson(&drift, Variance::Poisson).expect("has events");
        assert!(pooled > 4.0, "the drift is there: {pooled}");
    }

    #[test]
    fn instances_that_differ_are_noticed_and_equal_ones_are_not() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut blocks = |rate: &dyn Fn(u32) -> f64| -> Vec<Vec<Count>> {
            (0..60).map(|_| stream(&mut rng, 10, 1.0, rate)).collect()
        };
        let equal = over_instances(&blocks(&|_| 0.005), Variance::Poisson);
        assert!(equal < 2.2, "{equal}");
        let spread = |instance: u32| 0.003 + 0.0005 * f64::from(instance);
        let different = over_instances(&blocks(&spread), Variance::Poisson);
        assert!(different > 10.0, "{different}");
    }

    #[test]
    fn an_instance_that_comes_later_is_compared_from_then_on() {
        let early = cells(&[10.0, 10.0], 1000.0);
        let late = cells(&[10.0, 10.0, 10.0], 1000.0);
        assert_eq!(over_instances(&[early, late], Variance::Poisson), 1.0);
    }
}
