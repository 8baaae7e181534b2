//! A fleet of all kinds: each rollout is of another service, with other troubles.
//!
//! The scenarios of the catalogue are fixed points, and whoever tunes a judge sees them. Here
//! traffic, instances, error ratios, noise, warm-ups, outages, bad instances and kinds of
//! telemetry are drawn anew for each rollout, from ranges wide enough for most services.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::scenario::{
    BadNode, CLASSIC_BOUNDS, Change, Errors, Latency, MINUTES, Outage, Scenario, Shape, Telemetry,
    Traffic, WarmUp,
};

/// How many instances get the new version, for good.
const AT_ONCE: &[&[(u32, u32)]] = &[&[(0, 1)], &[(0, 2)], &[(0, 3)], &[(0, 4)], &[(0, 5)]];

/// How a larger service ships: step by step.
const STEPS: &[&[(u32, u32)]] = &[
    &[(0, 1), (10, 2), (20, 4)],
    &[(0, 1), (20, 3), (40, 6)],
    &[(0, 2), (15, 4), (30, 8)],
];

/// A rollout of some service, bad where `scenario` is.
pub(super) fn draw(scenario: &Scenario, rng: &mut ChaCha8Rng) -> Scenario {
    let traffic = traffic(rng);
    let errors = errors(rng);
    let most = traffic.steps.iter().map(|(_, instances)| *instances);
    let bad_node = bad_node(most.max().unwrap_or(1), rng);
    let names_instances = bad_node.is_some() || rng.random_bool(0.85);
    Scenario {
        change: match scenario.onset() {
            Some(onset) => change(onset, errors.ratio, rng),
            None => scenario.change.clone(),
        },
        latency: Latency {
            common: rng.random_range(0.02..0.1),
            spread: rng.random_range(0.01..0.06),
            minute: rng.random_range(0.01..0.05),
            drift: rng.random_range(0.9..1.3),
        },
        warm_up: rng.random_bool(0.5).then(|| warm_up(rng)),
        outage: rng.random_bool(0.25).then(|| outage(rng)),
        telemetry: Telemetry {
            sampled: if rng.random_bool(0.15) { 10 } else { 1 },
            names_instances,
            bounds: match rng.random_bool(0.25) {
                true => CLASSIC_BOUNDS,
                false => &[],
            },
        },
        bad_node,
        traffic,
        errors,
        ..scenario.clone()
    }
}

fn traffic(rng: &mut ChaCha8Rng) -> Traffic {
    let instances = pick(&[4, 6, 10, 20, 30], rng);
    let steps = match instances >= 20 && rng.random_bool(0.4) {
        true => pick(STEPS, rng),
        false => {
            let most = (instances as usize / 4).clamp(1, AT_ONCE.len());
            pick(AT_ONCE.get(..most).unwrap_or(AT_ONCE), rng)
        }
    };
    Traffic {
        per_s: f64::from(instances) * log_uniform(0.5, 20.0, rng),
        instances,
        steps,
        uneven: sometimes(0.5, 0.0, 0.5, rng),
        drift: rng.random_range(0.6..2.0),
        pause: None,
        crash_loop: None,
    }
}

fn errors(rng: &mut ChaCha8Rng) -> Errors {
    Errors {
        ratio: log_uniform(2e-4, 2e-2, rng),
        burst: sometimes(0.5, 1.0, 10.0, rng).max(1.0),
        spread: sometimes(0.5, 0.0, 0.3, rng),
        wander: sometimes(0.5, 0.0, 0.4, rng),
        drift: log_uniform(0.5, 3.0, rng),
    }
}

fn change(from: u32, ratio: f64, rng: &mut ChaCha8Rng) -> Change {
    let nothing = Change {
        from,
        errors: 0.0,
        latency: 1.0,
        tail: None,
        grows: false,
    };
    match rng.random_range(0..4) {
        0 | 1 => Change {
            errors: (ratio * log_uniform(2.0, 20.0, rng)).max(0.005),
            ..nothing
        },
        2 => Change {
            latency: rng.random_range(1.2..2.0),
            ..nothing
        },
        _ => Change {
            tail: Some((rng.random_range(0.05..0.15), rng.random_range(2.5..6.0))),
            ..nothing
        },
    }
}

fn warm_up(rng: &mut ChaCha8Rng) -> WarmUp {
    WarmUp {
        errors: log_uniform(0.005, 0.08, rng),
        latency: rng.random_range(0.0..2.0),
        shape: match rng.random_range(0..4) {
            0 | 1 => Shape::Exponential(rng.random_range(0.5..8.0)),
            2 => Shape::Linear(rng.random_range(2.0..15.0)),
            _ => Shape::Plateau(rng.random_range(1.0..5.0)),
        },
        is_shared: rng.random_bool(0.1),
    }
}

fn outage(rng: &mut ChaCha8Rng) -> Outage {
    let from = rng.random_range(5..MINUTES - 15);
    Outage {
        from,
        until: from + rng.random_range(3..12),
        errors: log_uniform(0.01, 0.2, rng),
        latency: rng.random_range(1.0..3.0),
    }
}

/// Below three new instances a bad one can't be told from a bad version, so it is an old one.
fn bad_node(candidates: u32, rng: &mut ChaCha8Rng) -> Option<BadNode> {
    let has_slow = rng.random_bool(0.5);
    rng.random_bool(0.2).then(|| BadNode {
        is_candidate: candidates >= 3 && rng.random_bool(0.5),
        errors: if has_slow {
            1.0
        } else {
            log_uniform(3.0, 20.0, rng)
        },
        latency: if has_slow {
            rng.random_range(1.2..2.0)
        } else {
            1.0
        },
    })
}

/// `none` with that probability, else anything up to `most`.
fn sometimes(probability: f64, none: f64, most: f64, rng: &mut ChaCha8Rng) -> f64 {
    match rng.random_bool(probability) {
        true => none,
        false => rng.random_range(0.0..most),
    }
}

fn log_uniform(from: f64, to: f64, rng: &mut ChaCha8Rng) -> f64 {
    rng.random_range(from.ln()..to.ln()).exp()
}

fn pick<T: Copy>(of: &[T], rng: &mut ChaCha8Rng) -> T {
    of[rng.random_range(0..of.len())]
}
