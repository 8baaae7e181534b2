//! From a scenario and a seed to what each instance counted in each minute.
//!
//! The draws depend on the seed, the scenario's name and the number of the rollout, and on
//! nothing else: the same three give the same telemetry on every machine and with any number of
//! threads.
//!
//! Requests of an instance in a minute are Poisson; failures are binomial, or bursts of geometric
//! size where the scenario says so; each latency is drawn and put into its bucket, so that the
//! histograms scatter as real ones do. What is common to all instances, what an instance keeps
//! and what it does in one minute are three independent factors.

use std::sync::Arc;

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Binomial, Distribution as _, Geometric, Poisson, StandardNormal};
use slogate_series::{Buckets, Histogram, histogram};

use super::mixed;
use super::scenario::{
    HISTORY_MINUTES, MEDIAN_S, MINUTES, SCHEMA, SIGMA, SLOW_S, Scenario, Traffic, WarmUp,
};
use crate::source::blocks::Counts;

/// How alike neighbouring minutes are.
const CORRELATION: f64 = 0.8;

/// What one instance counted in one minute.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// Which instance; `old-3`, `new-0`.
    pub(crate) instance: Arc<str>,
    /// Whether it runs the new version.
    pub(crate) is_candidate: bool,
    /// Its requests.
    pub(crate) counts: Counts,
    /// Their latencies in seconds.
    pub(crate) durations: Histogram,
}

/// One minute of all instances.
#[derive(Clone, Debug, Default)]
pub(crate) struct Minute {
    /// What each instance counted; instances without a request are absent.
    pub(crate) cells: Vec<Cell>,
    /// Requests that failed or were slow because of the change.
    pub(crate) harmed: f64,
}

/// The telemetry of one rollout.
#[derive(Clone, Debug)]
pub(crate) struct Rollout {
    /// Whether series say which instance they are of.
    pub(crate) names_instances: bool,
    /// The minutes before it, the oldest first.
    pub(crate) history: Vec<Minute>,
    /// Its own minutes.
    pub(crate) minutes: Vec<Minute>,
}

/// Makes the telemetry of rollout `number` of a scenario.
pub(crate) fn generate(scenario: &Scenario, seed: u64, number: u32) -> Rollout {
    let mut rng = rng(scenario.name, seed, number);
    let drawn = scenario.is_mixed.then(|| mixed::draw(scenario, &mut rng));
    let scenario = drawn.as_ref().unwrap_or(scenario);
    let mut generator = Generator::new(scenario, rng);
    let before = -i64::from(HISTORY_MINUTES)..0;
    Rollout {
        names_instances: scenario.telemetry.names_instances,
        history: before.map(|minute| generator.minute(minute)).collect(),
        minutes: (0..i64::from(MINUTES))
            .map(|minute| generator.minute(minute))
            .collect(),
    }
}

/// The source of chance for one rollout.
fn rng(name: &str, seed: u64, number: u32) -> ChaCha8Rng {
    let mut bytes = [0; 32];
    let named = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    for (to, from) in bytes.iter_mut().zip(named.as_ref()) {
        *to = *from;
    }
    for (to, from) in bytes.iter_mut().zip(seed.to_le_bytes()) {
        *to ^= from;
    }
    let mut rng = ChaCha8Rng::from_seed(bytes);
    rng.set_stream(u64::from(number));
    rng
}

/// An instance and what stays with it.
struct Node {
    name: Arc<str>,
    /// Its share of an even share of the traffic.
    load: f64,
    /// Factor on its error ratio.
    errors: f64,
    /// Added to the log of its latencies.
    latency: f64,
    /// Its own wandering error ratio.
    wander: Wander,
}

/// A quantity that wanders about zero: autoregressive of order one, from its stationary state.
struct Wander {
    deviation: f64,
    at: Option<f64>,
}

impl Wander {
    fn new(deviation: f64) -> Self {
        let at = None;
        Wander { deviation, at }
    }

    fn next(&mut self, rng: &mut ChaCha8Rng) -> f64 {
        if self.deviation == 0.0 {
            return 0.0;
        }
        let fresh = normal(rng);
        let now = match self.at {
            None => fresh,
            Some(before) => CORRELATION * before + (1.0 - CORRELATION * CORRELATION).sqrt() * fresh,
        };
        self.at = Some(now);
        self.deviation * now
    }
}

struct Generator<'a> {
    scenario: &'a Scenario,
    rng: ChaCha8Rng,
    old: Vec<Node>,
    new: Vec<Node>,
    errors: Wander,
    latency: Wander,
    buckets: Tally,
}

impl<'a> Generator<'a> {
    fn new(scenario: &'a Scenario, mut rng: ChaCha8Rng) -> Self {
        let traffic = &scenario.traffic;
        let most = (0..MINUTES).map(|minute| scenario.candidates(minute)).max();
        let mut nodes = |prefix: &str, count: u32| -> Vec<Node> {
            let numbers = 0..count;
            numbers
                .map(|number| node(scenario, format!("{prefix}-{number}"), &mut rng))
                .collect()
        };
        let (old, new) = (
            nodes("old", traffic.instances),
            nodes("new", most.unwrap_or(0)),
        );
        Generator {
            errors: Wander::new(scenario.errors.wander),
            latency: Wander::new(scenario.latency.common),
            buckets: Tally::new(scenario.telemetry.bounds),
            scenario,
            rng,
            old,
            new,
        }
    }

    /// One minute; before 0 the old version is alone.
    fn minute(&mut self, minute: i64) -> Minute {
        let scenario = self.scenario;
        let now = u32::try_from(minute).ok();
        let candidates = now.map_or(0, |now| scenario.candidates(now));
        let old = self.old.len().saturating_sub(candidates as usize);
        let common = Common {
            hours: minute as f64 / 60.0,
            errors: self.errors.next(&mut self.rng),
            latency: self.latency.next(&mut self.rng),
        };
        let mut found = Minute::default();
        for at in 0..old {
            let state = self.old_state(at, now, &common);
            self.cell(&state, now, &mut found);
        }
        for at in 0..candidates as usize {
            if let Some(state) = now.and_then(|now| self.new_state(at, now, &common)) {
                self.cell(&state, now, &mut found);
            }
        }
        found
    }

    fn old_state(&mut self, at: usize, now: Option<u32>, common: &Common) -> State {
        let mut state = self.state(Side::Old, at, now, common);
        // The last to be replaced is the bad one, so that it stays to the end.
        if at == 0
            && let Some(bad) = self.scenario.bad_node.as_ref().filter(|b| !b.is_candidate)
        {
            state.errors *= bad.errors;
            state.latency += bad.latency.ln();
        }
        let shared = self.scenario.warm_up.as_ref().filter(|w| w.is_shared);
        if let Some((warm_up, now)) = shared.zip(now) {
            state.warm(warm_up, now);
        }
        state
    }

    fn new_state(&mut self, at: usize, now: u32, common: &Common) -> Option<State> {
        let scenario = self.scenario;
        let traffic = &scenario.traffic;
        let is_in = |(from, until)| (from..until).contains(&now);
        let is_up = |cycle: super::scenario::CrashLoop| now % cycle.period < cycle.up;
        if traffic.pause.is_some_and(is_in) || !traffic.crash_loop.is_none_or(is_up) {
            return None;
        }
        let mut state = self.state(Side::New, at, Some(now), common);
        if let Some(warm_up) = &scenario.warm_up {
            state.warm(warm_up, age(traffic, at, now));
        }
        let worse = match scenario
            .bad_node
            .as_ref()
            .filter(|b| b.is_candidate && at == 0)
        {
            Some(bad) => (bad.errors, bad.latency.ln()),
            None => (1.0, 0.0),
        };
        let share = scenario.changed(now);
        let change = &scenario.change;
        state.errors_without = state.errors * worse.0;
        state.errors = (state.errors + change.errors * share * state.wandered) * worse.0;
        state.latency += worse.1;
        state.slower = (1.0 + (change.latency - 1.0) * share).ln();
        state.tail = change
            .tail
            .map(|(part, factor)| (part * share, factor.ln()));
        Some(state)
    }

    /// What both versions have in common.
    fn state(&mut self, side: Side, at: usize, now: Option<u32>, common: &Common) -> State {
        let scenario = self.scenario;
        let nodes = match side {
            Side::Old => &mut self.old,
            Side::New => &mut self.new,
        };
        let node = &mut nodes[at];
        let (errors, latency, traffic) = (&scenario.errors, &scenario.latency, &scenario.traffic);
        let outage = scenario
            .outage
            .as_ref()
            .filter(|outage| now.is_some_and(|now| (outage.from..outage.until).contains(&now)));
        // A lognormal factor whose mean is one.
        let centre = errors.wander * errors.wander;
        let wander = (common.errors + node.wander.next(&mut self.rng) - centre).exp();
        let wandered = node.errors * wander;
        let ratio = errors.ratio * drifted(errors.drift, common.hours);
        let fresh = latency.minute * normal(&mut self.rng);
        State {
            side,
            at,
            requests: traffic.per_s * 60.0 / f64::from(traffic.instances)
                * drifted(traffic.drift, common.hours)
                * node.load,
            errors: (ratio + outage.map_or(0.0, |o| o.errors)) * wandered,
            errors_without: 0.0,
            wandered,
            latency: MEDIAN_S.ln()
                + common.latency
                + node.latency
                + fresh
                + drifted(latency.drift, common.hours).ln()
                + outage.map_or(0.0, |o| o.latency.ln()),
            slower: 0.0,
            tail: None,
        }
    }

    /// Draws what an instance in that state counts, and who was harmed.
    fn cell(&mut self, state: &State, now: Option<u32>, minute: &mut Minute) {
        let scenario = self.scenario;
        let rng = &mut self.rng;
        let requests = poisson(state.requests, rng);
        let ratio = state.errors.min(1.0);
        let errors = failures(requests, ratio, scenario.errors.burst, rng);
        let sampled = u64::from(scenario.telemetry.sampled.max(1));
        let (seen, seen_errors) = match sampled {
            1 => (requests, errors),
            one_of => {
                let chance = 1.0 / one_of as f64;
                let bad = binomial(errors, chance, rng);
                (bad + binomial(requests - errors, chance, rng), bad)
            }
        };
        if seen == 0 {
            return;
        }
        let slow = self.buckets.draw(seen, state, rng);
        let node = match state.side {
            Side::Old => &self.old[state.at],
            Side::New => &self.new[state.at],
        };
        let weight = sampled as f64;
        if now.is_some() && matches!(state.side, Side::New) {
            let failed = requests as f64 * (ratio - state.errors_without.min(1.0));
            minute.harmed += failed.max(0.0) + slow as f64 * weight;
        }
        minute.cells.push(Cell {
            instance: node.name.clone(),
            is_candidate: matches!(state.side, Side::New),
            counts: Counts {
                total: seen as f64 * weight,
                errors: seen_errors as f64 * weight,
            },
            durations: self.buckets.histogram(weight),
        });
    }
}

#[derive(Clone, Copy)]
enum Side {
    Old,
    New,
}

/// What is alike for all instances in a minute.
struct Common {
    hours: f64,
    errors: f64,
    latency: f64,
}

/// What an instance is like in a minute.
struct State {
    side: Side,
    at: usize,
    /// Requests that are expected.
    requests: f64,
    /// The chance that one fails.
    errors: f64,
    /// The chance if the version had not changed.
    errors_without: f64,
    /// The factor of chance on the error ratio.
    wandered: f64,
    /// The log of the median latency, without the change.
    latency: f64,
    /// What the change adds to it.
    slower: f64,
    /// The share of requests that the change makes slower still, and what it adds to their log.
    tail: Option<(f64, f64)>,
}

impl State {
    /// Makes it that of an instance of `age` minutes.
    fn warm(&mut self, warm_up: &WarmUp, age: u32) {
        let left = warm_up.shape.left(age);
        self.errors += warm_up.errors * left;
        self.latency += (warm_up.latency * left).ln_1p();
    }
}

fn node(scenario: &Scenario, name: String, rng: &mut ChaCha8Rng) -> Node {
    let lognormal = |deviation: f64, rng: &mut ChaCha8Rng| match deviation {
        0.0 => 1.0,
        _ => (deviation * normal(rng) - deviation * deviation / 2.0).exp(),
    };
    Node {
        name: name.into(),
        load: lognormal(scenario.traffic.uneven, rng),
        errors: lognormal(scenario.errors.spread, rng),
        latency: scenario.latency.spread * normal(rng),
        wander: Wander::new(scenario.errors.wander),
    }
}

/// The age in minutes of the candidate instance `at`; one that crashed begins anew.
fn age(traffic: &Traffic, at: usize, now: u32) -> u32 {
    let mut steps = traffic.steps.iter();
    let started = steps.find(|(_, instances)| at < *instances as usize);
    let age = now.saturating_sub(started.map_or(0, |(from, _)| *from));
    traffic.crash_loop.map_or(age, |cycle| age % cycle.period)
}

/// A factor that reaches `by` after an hour and goes on as it did.
fn drifted(by: f64, hours: f64) -> f64 {
    (1.0 + (by - 1.0) * hours).max(0.05)
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}

fn poisson(mean: f64, rng: &mut ChaCha8Rng) -> u64 {
    match Poisson::new(mean) {
        Ok(poisson) => poisson.sample(rng) as u64,
        // Nothing comes of a mean of nothing.
        Err(_) => 0,
    }
}

fn binomial(tries: u64, chance: f64, rng: &mut ChaCha8Rng) -> u64 {
    Binomial::new(tries, chance.clamp(0.0, 1.0)).map_or(0, |binomial| binomial.sample(rng))
}

/// Failures among requests; in bursts of `burst` on average, the number is the same on average.
fn failures(requests: u64, ratio: f64, burst: f64, rng: &mut ChaCha8Rng) -> u64 {
    if burst <= 1.0 {
        return binomial(requests, ratio, rng);
    }
    let bursts = poisson(requests as f64 * ratio / burst, rng);
    let Ok(more) = Geometric::new(1.0 / burst) else {
        return 0;
    };
    let total: u64 = (0..bursts).map(|_| 1 + more.sample(rng)).sum();
    total.min(requests)
}

/// Counts latencies by bucket.
///
/// A position is the log of a latency in buckets of schema 4, shifted by [`OFFSET`]; explicit
/// bounds are positions too.
struct Tally {
    bounds: Arc<[f64]>,
    /// The bounds' positions.
    ends: Vec<f64>,
    counts: Vec<u32>,
    /// Requests so far, and the sum of their latencies.
    total: u64,
}

/// The bucket of schema 4 that stands first, and the place of the last: latencies from 15 µs to
/// 64 s have their own.
pub(crate) const OFFSET: i32 = -256;
const TOP: i32 = 352;
pub(crate) const WIDTH: usize = TOP as usize + 1;

impl Tally {
    fn new(bounds: &[f64]) -> Self {
        let per_ln = per_ln();
        let width = if bounds.is_empty() {
            WIDTH
        } else {
            bounds.len() + 1
        };
        Tally {
            bounds: bounds.into(),
            ends: bounds.iter().map(|bound| bound.ln() * per_ln).collect(),
            counts: vec![0; width],
            total: 0,
        }
    }

    /// Draws the latencies of `requests` and answers how many are slow because of the change.
    fn draw(&mut self, requests: u64, state: &State, rng: &mut ChaCha8Rng) -> u64 {
        self.counts.fill(0);
        self.total = requests;
        let per_ln = per_ln();
        let (centre, width) = (state.latency * per_ln, SIGMA * per_ln);
        let slow = SLOW_S.ln() * per_ln;
        let slower = state.slower * per_ln;
        let (part, more) = state.tail.unwrap_or((0.0, 0.0));
        let in_tail = match part {
            0.0 => 0,
            part => binomial(requests, part, rng),
        };
        let mut harmed = 0;
        for (count, slower) in [
            (requests - in_tail, slower),
            (in_tail, slower + more * per_ln),
        ] {
            for _ in 0..count {
                let fresh: f64 = StandardNormal.sample(rng);
                let without = centre + width * fresh;
                let at = without + slower;
                harmed += u64::from(at > slow && without <= slow);
                self.count(at);
            }
        }
        harmed
    }

    fn count(&mut self, at: f64) {
        let bucket = match self.ends.is_empty() {
            // A bucket's index is that of its upper bound. Counted from the top, rounding up is
            // cutting off, which is several times as fast; what is outside lands at the ends.
            true => TOP
                .saturating_sub((f64::from(TOP + OFFSET) - at) as i32)
                .max(0) as usize,
            false => self.ends.partition_point(|end| *end < at),
        };
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
    }

    /// What was counted, each request standing for `weight`.
    fn histogram(&self, weight: f64) -> Histogram {
        let explicit = !self.ends.is_empty();
        let offset = if explicit { 0 } else { OFFSET };
        let counts = self.counts.iter().map(|count| f64::from(*count) * weight);
        let positive = Buckets::from_dense(offset, counts);
        let sum = positive.iter().map(|(at, count)| count * self.middle(at));
        Histogram {
            schema: if explicit {
                histogram::CUSTOM_SCHEMA
            } else {
                SCHEMA
            },
            count: self.total as f64 * weight,
            sum: sum.sum(),
            custom_bounds: self.bounds.clone(),
            positive,
            ..Histogram::default()
        }
    }

    /// About the middle of a bucket, in seconds.
    fn middle(&self, at: i32) -> f64 {
        if self.ends.is_empty() {
            return ((f64::from(at) - 0.5) / per_ln()).exp();
        }
        let nth = usize::try_from(at).unwrap_or(0);
        let last = self.bounds.last().copied().unwrap_or(0.0);
        let upper = self.bounds.get(nth).copied().unwrap_or(last);
        let below = nth.checked_sub(1).and_then(|below| self.bounds.get(below));
        (upper + below.copied().unwrap_or(0.0)) / 2.0
    }
}

/// Buckets of schema 4 for one unit of natural log.
fn per_ln() -> f64 {
    f64::from(SCHEMA).exp2() / std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::catalogue::CATALOGUE;
    use crate::simulate::scenario::{Shape, USUAL};

    fn scenario(name: &str) -> &'static Scenario {
        let found = CATALOGUE.iter().find(|scenario| scenario.name == name);
        found.unwrap_or_else(|| panic!("there is no scenario {name}"))
    }

    fn rollouts(name: &str, count: u32) -> Vec<Rollout> {
        let numbers = 0..count;
        numbers
            .map(|number| generate(scenario(name), 1, number))
            .collect()
    }

    /// Many rollouts of a service with so few instances, each as busy as ever.
    fn smaller(name: &str, instances: u32) -> Vec<Rollout> {
        let usual = scenario(name);
        let traffic = Traffic {
            per_s: usual.traffic.per_s * f64::from(instances) / 20.0,
            instances,
            ..usual.traffic.clone()
        };
        let smaller = Scenario {
            traffic,
            ..usual.clone()
        };
        let numbers = 0..40;
        numbers
            .map(|number| generate(&smaller, 1, number))
            .collect()
    }

    /// Requests and errors of the cells that `is` wants, by minute.
    fn counts(rollouts: &[Rollout], is: impl Fn(u32, &Cell) -> bool) -> Counts {
        let mut sum = Counts::default();
        for rollout in rollouts {
            for (at, minute) in (0..).zip(&rollout.minutes) {
                for cell in minute.cells.iter().filter(|cell| is(at, cell)) {
                    sum.total += cell.counts.total;
                    sum.errors += cell.counts.errors;
                }
            }
        }
        sum
    }

    fn ratio(counts: Counts) -> f64 {
        counts.errors / counts.total
    }

    fn harmed(name: &str, count: u32) -> f64 {
        let rollouts = rollouts(name, count);
        let minutes = rollouts.iter().flat_map(|rollout| &rollout.minutes);
        minutes.map(|minute| minute.harmed).sum::<f64>() / f64::from(count)
    }

    #[track_caller]
    fn close(found: f64, expected: f64, relative: f64) {
        let off = (found - expected).abs();
        assert!(
            off <= relative * expected,
            "{found} is not within {relative} of {expected}"
        );
    }

    #[test]
    fn the_same_seed_is_the_same_rollout_and_any_other_is_another() {
        let same = |a: &Rollout, b: &Rollout| {
            let cells = |r: &Rollout| -> Vec<(Counts, Histogram)> {
                let minutes = r.history.iter().chain(&r.minutes);
                let cells = minutes.flat_map(|minute| &minute.cells);
                cells
                    .map(|cell| (cell.counts, cell.durations.clone()))
                    .collect()
            };
            cells(a) == cells(b)
        };
        let first = generate(&USUAL, 1, 0);
        assert!(same(&first, &generate(&USUAL, 1, 0)));
        assert!(!same(&first, &generate(&USUAL, 2, 0)));
        assert!(!same(&first, &generate(&USUAL, 1, 1)));
        let named = Scenario {
            name: "another",
            ..USUAL
        };
        assert!(!same(&first, &generate(&named, 1, 0)));
    }

    #[test]
    fn the_usual_service_is_as_it_says() {
        let rollouts = rollouts("AA", 12);
        let new = counts(&rollouts, |_, cell| cell.is_candidate);
        let old = counts(&rollouts, |_, cell| !cell.is_candidate);
        close(new.total / 12.0, 300.0 * 60.0, 0.01);
        close(old.total / 12.0, 5_700.0 * 60.0, 0.01);
        close(ratio(old), 0.001, 0.08);
        assert_eq!(rollouts[0].history.len(), 30);
        assert!(
            rollouts[0]
                .history
                .iter()
                .all(|minute| minute.cells.len() == 20)
        );

        // The common noise of a rollout moves its quantiles; over many it averages out.
        let cells = rollouts.iter().flat_map(|rollout| &rollout.minutes);
        let mut all = Histogram::default();
        for cell in cells.flat_map(|minute| &minute.cells).step_by(7) {
            all = if all.count == 0.0 {
                cell.durations.clone()
            } else {
                all.add(&cell.durations)
            };
        }
        for (quantile, expected) in [(0.5, 0.060), (0.95, 0.180), (0.99, 0.284)] {
            close(all.quantile(quantile).unwrap(), expected, 0.04);
        }
        close(
            all.sum / all.count,
            0.060 * (SIGMA * SIGMA / 2.0).exp(),
            0.04,
        );
    }

    /// Failures in bursts of geometric size vary 2m - 1 times as much as single ones.
    #[test]
    fn bursts_vary_as_much_as_they_should() {
        let fano = |name: &str, ratio: f64| {
            let rollouts = rollouts(name, 4);
            let minutes = rollouts.iter().flat_map(|rollout| &rollout.minutes);
            let cells: Vec<&Cell> = minutes.flat_map(|minute| &minute.cells).collect();
            let squares = cells.iter().map(|cell| {
                let expected = cell.counts.total * ratio;
                (cell.counts.errors - expected).powi(2) / expected
            });
            squares.sum::<f64>() / cells.len() as f64
        };
        close(fano("AA_p0.5", 0.005), 1.0, 0.1);
        close(fano("burst10", 0.005), 19.0, 0.15);
    }

    #[test]
    fn a_warm_up_decays_with_the_age_of_each_instance() {
        let rollouts_ = smaller("warmup", 4);
        for minute in [0, 2, 6] {
            let found = counts(&rollouts_, |at, cell| at == minute && cell.is_candidate);
            let left = (-(f64::from(minute) + 0.5) / 2.0).exp();
            close(ratio(found), 0.001 + 0.05 * left, 0.15);
        }
        // At minute 20 two more instances are fresh, and the first two are warm.
        let ramp = smaller("warmup_ramp", 10);
        let fresh = |name: &str| {
            ratio(counts(&ramp, |at, cell| {
                at == 20 && &*cell.instance == name
            }))
        };
        close(fresh("new-3"), 0.001 + 0.05 * (-0.25f64).exp(), 0.2);
        assert!(fresh("new-0") < 0.004);
    }

    #[test]
    fn warm_ups_pass_as_their_shapes_say() {
        assert_eq!(Shape::Plateau(4.0).left(3), 1.0);
        assert_eq!(Shape::Plateau(4.0).left(4), 0.0);
        assert_eq!(Shape::Linear(10.0).left(4), 0.55);
        assert_eq!(Shape::Linear(10.0).left(12), 0.0);
        close(Shape::Exponential(2.0).left(1), (-0.75f64).exp(), 1e-12);
    }

    #[test]
    fn instances_are_replaced_step_by_step() {
        let rollout = &rollouts("ramp_AA", 1)[0];
        for (minute, candidates) in [(0, 1), (19, 1), (20, 2), (40, 10), (59, 10)] {
            let cells = &rollout.minutes[minute].cells;
            let new = cells.iter().filter(|cell| cell.is_candidate).count();
            assert_eq!((new, cells.len()), (candidates, 20), "minute {minute}");
        }
    }

    #[test]
    fn sampled_requests_stand_for_all_and_vary_more() {
        let rollouts = rollouts("sampled_AA", 6);
        let all = counts(&rollouts, |_, _| true);
        close(all.total / 6.0, 6_000.0 * 60.0, 0.01);
        close(ratio(all), 0.001, 0.25);
        let totals: Vec<f64> = rollouts
            .iter()
            .flat_map(|rollout| &rollout.minutes)
            .flat_map(|minute| minute.cells.iter().map(|cell| cell.counts.total))
            .collect();
        let squares = totals
            .iter()
            .map(|total| (total - 300.0f64).powi(2) / 300.0);
        close(squares.sum::<f64>() / totals.len() as f64, 10.0, 0.1);
        let cell = &rollouts[0].minutes[0].cells[0];
        assert_eq!(cell.durations.count, cell.counts.total);
    }

    #[test]
    fn bad_nodes_outages_and_drifts_hit_whom_they_should() {
        let of = |rollouts: &[Rollout], name: &str, minutes: std::ops::Range<u32>| {
            let is = |at: u32, cell: &Cell| minutes.contains(&at) && &*cell.instance == name;
            ratio(counts(rollouts, is))
        };
        let bad = rollouts("badnode_c", 4);
        close(of(&bad, "new-0", 0..60), 0.02, 0.1);
        assert!(of(&bad, "new-1", 0..60) < 0.004);
        let bad = rollouts("badnode_b", 4);
        close(of(&bad, "old-0", 0..60), 0.02, 0.1);
        let spike = rollouts("spike_both", 4);
        for name in ["old-3", "new-0"] {
            close(of(&spike, name, 20..30), 0.031, 0.15);
            assert!(of(&spike, name, 30..60) < 0.003);
        }
        let drift = rollouts("drift", 4);
        let ends = |minutes: std::ops::Range<u32>| counts(&drift, |at, _| minutes.contains(&at));
        let (early, late) = (ends(0..5), ends(55..60));
        close(late.total / early.total, 1.96 / 1.04, 0.03);
        close(ratio(late) / ratio(early), 2.92 / 1.08, 0.2);
    }

    #[test]
    fn pauses_and_crash_loops_leave_gaps() {
        let serves = |name: &str, minute: usize| {
            let rollout = &rollouts(name, 1)[0];
            rollout.minutes[minute]
                .cells
                .iter()
                .any(|cell| cell.is_candidate)
        };
        assert!(serves("pause_AA", 14) && !serves("pause_AA", 15) && serves("pause_AA", 30));
        assert!(serves("crash_loop", 1) && !serves("crash_loop", 2) && serves("crash_loop", 6));
    }

    /// Requests harmed in the whole hour, as the numbers of the scenario make them.
    #[test]
    fn harm_is_what_the_change_alone_does() {
        close(harmed("err0.1-1", 4), 300.0 * 60.0 * 0.009, 0.03);
        close(harmed("late0.1-1", 4), 300.0 * 30.0 * 0.009, 0.05);
        close(harmed("crash30", 4), 300.0 * 60.0 * 0.299, 0.03);
        // From 250 ms on with the factor 1.5: 3.75 % of requests more, 4.7 % after the noise.
        close(harmed("p95+50", 8), 840.0, 0.12);
        // 6 % of requests 5 times slower: more than half of those end above 250 ms.
        close(harmed("tail+50", 8), 640.0, 0.08);
        assert_eq!(harmed("warmup", 1), 0.0);
        assert_eq!(harmed("badnode_c", 1), 0.0);
    }

    #[test]
    fn classic_buckets_are_cumulative_to_the_same_quantiles() {
        let rollout = &rollouts("classic_AA", 1)[0];
        let mut all = Histogram::default();
        for cell in rollout.minutes.iter().flat_map(|minute| &minute.cells) {
            all = if all.count == 0.0 {
                cell.durations.clone()
            } else {
                all.add(&cell.durations)
            };
        }
        assert!(all.has_custom_bounds());
        // 22.2 % of requests take longer than 100 ms.
        close(1.0 - all.count_at_most(0.1) / all.count, 0.222, 0.1);
    }

    #[test]
    fn a_mixed_fleet_has_all_kinds_and_keeps_the_truth() {
        let drawn = |name: &str| -> Vec<Scenario> {
            let numbers = 0..200;
            let draw = |number| mixed::draw(scenario(name), &mut rng(name, 1, number));
            numbers.map(draw).collect()
        };
        let good = drawn("mixed_good");
        assert!(
            good.iter()
                .all(|s| s.change == USUAL.change && s.onset().is_none())
        );
        let share = |is: &dyn Fn(&Scenario) -> bool| {
            good.iter().filter(|s| is(s)).count() as f64 / good.len() as f64
        };
        close(share(&|s| s.warm_up.is_some()), 0.5, 0.25);
        close(share(&|s| s.outage.is_some()), 0.25, 0.4);
        close(share(&|s| s.bad_node.is_some()), 0.2, 0.4);
        close(share(&|s| s.errors.burst > 1.0), 0.45, 0.3);
        for bad in drawn("mixed_bad") {
            let change = &bad.change;
            let is_worse = change.errors >= 0.005 || change.latency >= 1.2 || change.tail.is_some();
            assert!(is_worse && bad.onset() == Some(0), "{change:?}");
            let most = bad
                .traffic
                .steps
                .iter()
                .map(|(_, instances)| *instances)
                .max();
            assert!(
                most < Some(bad.traffic.instances),
                "somebody has to be beside it"
            );
        }
    }

    #[test]
    fn every_scenario_has_its_own_name_and_serves_candidates() {
        let mut names: Vec<&str> = CATALOGUE.iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
        for scenario in CATALOGUE {
            let last = scenario.candidates(MINUTES - 1);
            assert!(scenario.candidates(0) > 0 && last <= scenario.traffic.instances);
            let is_changed = scenario.change != USUAL.change || scenario.is_mixed;
            let is_bad = scenario.onset().is_some();
            assert!(
                is_changed || !is_bad,
                "{} is bad without a change",
                scenario.name
            );
            assert!(!is_bad || scenario.onset() == Some(scenario.change.from));
        }
    }
}
