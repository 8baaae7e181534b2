//! Random counts for the tests.

use crate::buckets::Boundaries;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// The successes of `n` independent trials, by waiting times between successes.
pub(crate) fn binomial(rng: &mut ChaCha8Rng, n: u32, p: f64) -> f64 {
    if p > 0.5 {
        return f64::from(n) - binomial(rng, n, 1.0 - p);
    }
    if p <= 0.0 {
        return 0.0;
    }
    let (mut trials, mut successes) = (0.0, 0.0);
    loop {
        let wait = ((1.0 - rng.random::<f64>()).ln() / (-p).ln_1p()).floor() + 1.0;
        trials += wait;
        if trials > f64::from(n) {
            return successes;
        }
        successes += 1.0;
    }
}

/// The most alarms that `runs` independent runs with alarm probability `alpha` show, but for one
/// time in ten thousand (normal approximation, 3.7 standard deviations, rounded up).
pub(crate) fn upper_alarm_limit(runs: u32, alpha: f64) -> u32 {
    let runs = f64::from(runs);
    (runs * alpha + 3.7 * (runs * alpha * (1.0 - alpha)).sqrt()).ceil() as u32
}

/// A lognormal latency with median 60 ms and 95th percentile 180 ms, times `slower`.
pub(crate) fn latency_ms(rng: &mut ChaCha8Rng, slower: f64) -> f64 {
    // Box and Muller.
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * rng.random::<f64>()).cos();
    let sigma = 3.0_f64.ln() / 1.644_853_626_951_472_2;
    slower * 60.0 * (sigma * normal).exp()
}

/// `n` such latencies in buckets.
pub(crate) fn latency_buckets(
    rng: &mut ChaCha8Rng,
    boundaries: &Boundaries,
    n: u32,
    slower: f64,
) -> Vec<(i32, f64)> {
    let mut buckets: BTreeMap<i32, f64> = BTreeMap::new();
    for _ in 0..n {
        let below = boundaries.at_or_below(latency_ms(rng, slower));
        *buckets.entry(below + 1).or_default() += 1.0;
    }
    buckets.into_iter().collect()
}
