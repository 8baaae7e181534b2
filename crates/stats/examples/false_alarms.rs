//! How often do the tests raise a false alarm, and how soon do they see a regression?
//!
//! `cargo run --release -p slogate-stats --example false_alarms -- --seed 1 --runs 1000`
//!
//! Each row is a made-up rollout of an hour, cut into blocks of 10 seconds and looked at after
//! each block, repeated `--runs` times. "Fail" is the share of runs in which the test for "worse"
//! reached 1/α at some look, "pass" the same for "not worse" at β, both with the median block of
//! those that did. α is 1 %, β 5 %. Errors: worse by 25 % and 0.1 percentage points fails; 50 %
//! and 0.5 points passes. Latency: worse by 10 % at P95 fails, by 30 % passes. A quarter of the
//! bet on "worse" is set aside for changes that begin late. The figures depend on the seed only.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use slogate_stats::BucketBlock;
use slogate_stats::BucketCounts;
use slogate_stats::CountBlock;
use slogate_stats::CountTest;
use slogate_stats::CountTestParams;
use slogate_stats::Direction;
use slogate_stats::ExceedanceTest;
use slogate_stats::ExceedanceTestParams;
use slogate_stats::buckets::Boundaries;
use slogate_stats::combine::log_threshold;
use std::process::ExitCode;

const BLOCKS: u32 = 360;
const BLOCK_SECONDS: f64 = 10.0;
const FAIL_ALPHA: f64 = 0.01;
const PASS_ALPHA: f64 = 0.05;
const LATE_WEIGHT: f64 = 0.25;

struct ErrorScenario {
    name: &'static str,
    requests_per_second: f64,
    /// The candidate's share of requests in each block.
    share: fn(u32) -> f64,
    baseline_rate: fn(u32) -> f64,
    candidate_rate: fn(u32) -> f64,
    /// Errors that come together.
    burst: f64,
    dispersion: f64,
}

const ERRORS: [ErrorScenario; 20] = [
    errors("same 0.01 %", 100.0, |_| 0.0001, |_| 0.0001),
    errors("same 0.1 %", 100.0, |_| 0.001, |_| 0.001),
    errors("same 1 %", 100.0, |_| 0.01, |_| 0.01),
    errors("same 5 %", 100.0, |_| 0.05, |_| 0.05),
    errors("same 30 %", 100.0, |_| 0.3, |_| 0.3),
    errors("same 0.1 %, 1 request/s", 1.0, |_| 0.001, |_| 0.001),
    errors("same, both 0.1 -> 5 % for 10 min", 100.0, spike, spike),
    ErrorScenario {
        name: "same, ramp 1/10/50 %, rate rises tenfold",
        share: ramp,
        ..errors("", 100.0, rising, rising)
    },
    errors("at the edge: 1 % -> 1.35 %", 100.0, |_| 0.01, |_| 0.0135),
    errors("at the edge: 20 % -> 25.1 %", 100.0, |_| 0.2, |_| 0.251),
    errors("0.5 % -> 1 %", 100.0, |_| 0.005, |_| 0.01),
    errors("0.1 % -> 1 %", 100.0, |_| 0.001, |_| 0.01),
    errors("10 % -> 20 %", 100.0, |_| 0.1, |_| 0.2),
    errors("0.1 % -> 1 % after 30 min", 100.0, |_| 0.001, late_rise),
    errors("0 -> 30 % after 30 min", 100.0, |_| 0.0, late_crash),
    errors("0.1 % -> 5 %, 1 request/s", 1.0, |_| 0.001, |_| 0.05),
    bursts("at the edge, bursts of 5, dispersion 1", |_| 0.00725, 1.0),
    bursts("at the edge, bursts of 5, dispersion 5", |_| 0.00725, 5.0),
    bursts("0.5 % -> 2 %, bursts of 5, dispersion 1", |_| 0.02, 1.0),
    bursts("0.5 % -> 2 %, bursts of 5, dispersion 5", |_| 0.02, 5.0),
];

const fn errors(
    name: &'static str,
    requests_per_second: f64,
    baseline_rate: fn(u32) -> f64,
    candidate_rate: fn(u32) -> f64,
) -> ErrorScenario {
    ErrorScenario {
        name,
        requests_per_second,
        share: |_| 0.05,
        baseline_rate,
        candidate_rate,
        burst: 1.0,
        dispersion: 1.0,
    }
}

/// Errors in fives, and what the test believes about that.
const fn bursts(
    name: &'static str,
    candidate_rate: fn(u32) -> f64,
    dispersion: f64,
) -> ErrorScenario {
    ErrorScenario {
        burst: 5.0,
        dispersion,
        ..errors(name, 100.0, |_| 0.005, candidate_rate)
    }
}

fn spike(block: u32) -> f64 {
    if (120..180).contains(&block) {
        0.05
    } else {
        0.001
    }
}

fn rising(block: u32) -> f64 {
    if block < 240 { 0.001 } else { 0.01 }
}

fn ramp(block: u32) -> f64 {
    [0.01, 0.1, 0.5][(block / 120) as usize % 3]
}

fn late_rise(block: u32) -> f64 {
    if block < 180 { 0.001 } else { 0.01 }
}

fn late_crash(block: u32) -> f64 {
    if block < 180 { 0.0 } else { 0.3 }
}

struct LatencyScenario {
    name: &'static str,
    requests_per_second: f64,
    boundaries: fn() -> Boundaries,
    /// How many times slower the candidate is.
    slower: f64,
}

const LATENCIES: [LatencyScenario; 9] = [
    latency("same, exponential", exponential, 1.0),
    latency("same, explicit", explicit, 1.0),
    latency("at the edge: x1.1, exponential", exponential, 1.1),
    latency("at the edge: x1.1, explicit", explicit, 1.1),
    latency("x1.2, exponential", exponential, 1.2),
    latency("x1.5, exponential", exponential, 1.5),
    latency("x1.5, explicit", explicit, 1.5),
    LatencyScenario {
        requests_per_second: 1.0,
        ..latency("x1.5, exponential, 1 request/s", exponential, 1.5)
    },
    latency("x3, explicit", explicit, 3.0),
];

const fn latency(
    name: &'static str,
    boundaries: fn() -> Boundaries,
    slower: f64,
) -> LatencyScenario {
    LatencyScenario {
        name,
        requests_per_second: 40.0,
        boundaries,
        slower,
    }
}

fn exponential() -> Boundaries {
    Boundaries::exponential(4).expect("4 is a standard schema")
}

fn explicit() -> Boundaries {
    let bounds = [
        5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4,
    ];
    Boundaries::explicit(&bounds).expect("the bounds ascend")
}

/// The first block at which each side decided.
type Outcome = (Option<u32>, Option<u32>);

fn main() -> ExitCode {
    let (seed, runs) = match arguments() {
        Ok(found) => found,
        Err(message) => {
            eprintln!("{message}\nusage: false_alarms [--seed N] [--runs N]");
            return ExitCode::FAILURE;
        }
    };
    println!("seed {seed}, {runs} runs, {BLOCKS} looks each; blocks are 10 s");
    println!(
        "{:<44} {:>14} {:>14}",
        "errors", "fail @ block", "pass @ block"
    );
    for (row, scenario) in (0..).zip(&ERRORS) {
        let outcomes = repeat(seed, row, runs, |rng| run_errors(rng, scenario));
        print_row(scenario.name, &outcomes);
    }
    println!(
        "{:<44} {:>14} {:>14}",
        "latency", "fail @ block", "pass @ block"
    );
    for (row, scenario) in (100..).zip(&LATENCIES) {
        let outcomes = repeat(seed, row, runs, |rng| run_latency(rng, scenario));
        print_row(scenario.name, &outcomes);
    }
    ExitCode::SUCCESS
}

fn arguments() -> Result<(u64, u32), String> {
    let (mut seed, mut runs) = (1, 1000);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments
            .next()
            .ok_or(format!("{name}: expected a value"))?;
        let bad = |_| format!("{name} {value}: expected a whole number");
        match name.as_str() {
            "--seed" => seed = value.parse().map_err(bad)?,
            "--runs" => runs = value.parse().map_err(bad)?,
            _ => return Err(format!("{name}: no such argument")),
        }
    }
    Ok((seed, runs))
}

fn repeat(
    seed: u64,
    row: u64,
    runs: u32,
    run: impl Fn(&mut ChaCha8Rng) -> Outcome,
) -> Vec<Outcome> {
    (0..runs)
        .map(|at| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream((row << 32) | u64::from(at));
            run(&mut rng)
        })
        .collect()
}

fn print_row(name: &str, outcomes: &[Outcome]) {
    let cell = |mut blocks: Vec<u32>| {
        if blocks.is_empty() {
            return "0".to_owned();
        }
        blocks.sort_unstable();
        let share = 100.0 * blocks.len() as f64 / outcomes.len() as f64;
        format!("{share:.1} % @ {:3}", blocks[blocks.len() / 2])
    };
    let fail = cell(outcomes.iter().filter_map(|outcome| outcome.0).collect());
    let pass = cell(outcomes.iter().filter_map(|outcome| outcome.1).collect());
    println!("{name:<44} {fail:>14} {pass:>14}");
}

fn run_errors(rng: &mut ChaCha8Rng, scenario: &ErrorScenario) -> Outcome {
    let test = |ratio, difference, direction| {
        CountTest::new(CountTestParams {
            ratio,
            difference,
            dispersion: scenario.dispersion,
            direction,
        })
        .expect("the parameters are in range")
    };
    let events = |rng: &mut ChaCha8Rng, total: f64, rate: f64| {
        let causes = binomial(rng, total, rate / scenario.burst);
        (scenario.burst * causes).min(total)
    };
    let mut worse = test(1.25, 0.001, Direction::Worse)
        .with_late_onset(LATE_WEIGHT)
        .expect("the weight is in range");
    let mut not_worse = test(1.5, 0.005, Direction::NotWorse);
    let (mut fail, mut pass) = (None, None);
    for at in 0..BLOCKS {
        let requests = scenario.requests_per_second * BLOCK_SECONDS;
        let share = (scenario.share)(at);
        let candidate_total = poisson(rng, share * requests);
        let baseline_total = poisson(rng, (1.0 - share) * requests);
        let block = CountBlock {
            candidate_total,
            candidate_events: events(rng, candidate_total, (scenario.candidate_rate)(at)),
            baseline_total,
            baseline_events: events(rng, baseline_total, (scenario.baseline_rate)(at)),
        };
        worse.push(&block).expect("counts are counts");
        not_worse.push(&block).expect("counts are counts");
        decide(&mut fail, at, worse.log_e(), FAIL_ALPHA);
        decide(&mut pass, at, not_worse.log_e(), PASS_ALPHA);
    }
    (fail, pass)
}

fn run_latency(rng: &mut ChaCha8Rng, scenario: &LatencyScenario) -> Outcome {
    let test = |worse_by_relative, direction| {
        ExceedanceTest::new(ExceedanceTestParams {
            worse_by_relative,
            quantiles: vec![0.95],
            dispersion: 1.0,
            direction,
        })
        .expect("the parameters are in range")
    };
    let boundaries = (scenario.boundaries)();
    let mut worse = test(0.1, Direction::Worse)
        .with_late_onset(LATE_WEIGHT)
        .expect("the weight is in range");
    let mut not_worse = test(0.3, Direction::NotWorse);
    let (mut fail, mut pass) = (None, None);
    for at in 0..BLOCKS {
        let requests = scenario.requests_per_second * BLOCK_SECONDS;
        let candidate = latencies(rng, &boundaries, 0.05 * requests, scenario.slower);
        let baseline = latencies(rng, &boundaries, 0.95 * requests, 1.0);
        let block = BucketBlock {
            boundaries: &boundaries,
            candidate: of(&candidate),
            baseline: of(&baseline),
        };
        worse.push(&block).expect("buckets are buckets");
        not_worse.push(&block).expect("buckets are buckets");
        decide(&mut fail, at, worse.log_e(), FAIL_ALPHA);
        decide(&mut pass, at, not_worse.log_e(), PASS_ALPHA);
    }
    (fail, pass)
}

fn decide(decided: &mut Option<u32>, at: u32, log_e: f64, alpha: f64) {
    if decided.is_none() && log_e >= log_threshold(alpha, 1.0) {
        *decided = Some(at + 1);
    }
}

fn of(buckets: &[(i32, f64)]) -> BucketCounts<'_> {
    BucketCounts {
        below: 0.0,
        buckets,
    }
}

/// Lognormal latencies in buckets: median 60 ms, P95 180 ms, times `slower`.
fn latencies(
    rng: &mut ChaCha8Rng,
    boundaries: &Boundaries,
    requests: f64,
    slower: f64,
) -> Vec<(i32, f64)> {
    // From 1 ms to 16 s at schema 4; the explicit buckets are fewer.
    let mut counts = [0.0; 225];
    let bounds: Vec<f64> = (0..224).map(|index| boundaries.upper(index)).collect();
    let sigma = 3.0_f64.ln() / 1.644_853_626_951_472_2;
    for _ in 0..poisson(rng, requests) as u32 {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * rng.random::<f64>()).cos();
        let value = slower * 60.0 * (sigma * normal).exp();
        counts[bounds.partition_point(|bound| *bound < value)] += 1.0;
    }
    (0..)
        .zip(counts)
        .filter(|(_, count)| *count > 0.0)
        .collect()
}

/// Binomial by waiting times between successes.
fn binomial(rng: &mut ChaCha8Rng, n: f64, p: f64) -> f64 {
    if p > 0.5 {
        return n - binomial(rng, n, 1.0 - p);
    }
    let (mut trials, mut successes) = (0.0, 0.0);
    if p <= 0.0 {
        return successes;
    }
    loop {
        trials += ((1.0 - rng.random::<f64>()).ln() / (-p).ln_1p()).floor() + 1.0;
        if trials > n {
            return successes;
        }
        successes += 1.0;
    }
}

/// Poisson by exponential waiting times.
fn poisson(rng: &mut ChaCha8Rng, mean: f64) -> f64 {
    let (mut time, mut events) = (0.0, 0.0);
    loop {
        time -= (1.0 - rng.random::<f64>()).ln();
        if time > mean {
            return events;
        }
        events += 1.0;
    }
}
