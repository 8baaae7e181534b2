//! Many rollouts of many scenarios, on several threads.
//!
//! Each rollout is drawn from its own seed and judged by itself, and results are put in order of
//! their numbers before anything is summed: how many threads there are changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::generate::{Rollout, generate};
use super::ours;
use super::peers::{Arms, Peer};
use super::report::{Report, Row, Summary};
use super::scenario::Scenario;
use crate::policy::Gate;

/// What to simulate.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Rollouts of each scenario.
    pub(crate) rollouts: u32,
    /// Where chance begins.
    pub(crate) seed: u64,
    /// What happens.
    pub(crate) scenarios: Vec<&'static Scenario>,
    /// The gate whose comparing checks judge.
    pub(crate) gate: Arc<Gate>,
    /// Who judges.
    pub(crate) judges: Vec<Judge>,
    /// Threads.
    pub(crate) jobs: usize,
}

/// Who judges.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Judge {
    /// The judge of this program.
    Slogate,
    /// Somebody else.
    Peer(&'static Peer),
}

impl Judge {
    /// The name in options and tables.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Judge::Slogate => "slogate",
            Judge::Peer(peer) => peer.name,
        }
    }

    /// What it does, in a sentence.
    pub(crate) fn about(&self) -> &'static str {
        match self {
            Judge::Slogate => "the comparing checks of the gate, through the judge of the daemon",
            Judge::Peer(peer) => peer.about,
        }
    }
}

/// What became of a rollout. Minutes are counted from 1, each at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// When it was stopped.
    pub(crate) alarm: Option<u32>,
    /// When it was first let pass, alarm or not.
    pub(crate) pass: Option<u32>,
    /// When an instance was first suspected instead of the version.
    pub(crate) suspect: Option<u32>,
    /// Requests harmed until it was stopped, or in the whole hour.
    pub(crate) harmed: f64,
}

/// Simulates everything; `done` hears of each finished scenario.
pub(crate) fn run(plan: &Plan, mut done: impl FnMut(&Row)) -> Report {
    let mut rows = Vec::with_capacity(plan.scenarios.len());
    for scenario in &plan.scenarios {
        let outcomes = rollouts(plan, scenario);
        let mut results = Vec::with_capacity(plan.judges.len());
        for (at, judge) in plan.judges.iter().enumerate() {
            let of_judge = outcomes.iter().filter_map(|all| all.get(at).copied());
            let of_judge: Vec<Outcome> = of_judge.collect();
            results.push(Summary::of(judge.name(), scenario.truth, &of_judge));
        }
        let row = Row::new(scenario, results);
        done(&row);
        rows.push(row);
    }
    Report::new(plan, rows)
}

/// Every judge's outcome of each rollout of a scenario, in order.
fn rollouts(plan: &Plan, scenario: &Scenario) -> Vec<Vec<Outcome>> {
    let next = AtomicU32::new(0);
    let work = || {
        let mut found = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= plan.rollouts {
                return found;
            }
            let rollout = generate(scenario, plan.seed, number);
            found.push((number, judged(plan, &rollout)));
        }
    };
    let jobs = plan.jobs.clamp(1, plan.rollouts.max(1) as usize);
    let mut found: Vec<(u32, Vec<Outcome>)> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..jobs).map(|_| scope.spawn(work)).collect();
        let mut found = work();
        for other in others {
            // A thread that panicked has said so; its rollouts are missing from the count.
            found.extend(other.join().unwrap_or_default());
        }
        found
    });
    found.sort_unstable_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, outcomes)| outcomes).collect()
}

fn judged(plan: &Plan, rollout: &Rollout) -> Vec<Outcome> {
    let arms = Arms::of(rollout);
    let judges = plan.judges.iter().map(|judge| {
        let mut outcome = match judge {
            Judge::Slogate => ours::judge(&plan.gate, rollout, &arms),
            Judge::Peer(peer) => Outcome {
                alarm: (peer.alarm)(&arms),
                ..Outcome::default()
            },
        };
        outcome.harmed = harmed(rollout, outcome.alarm);
        outcome
    });
    judges.collect()
}

fn harmed(rollout: &Rollout, alarm: Option<u32>) -> f64 {
    let until = alarm.map_or(usize::MAX, |minute| minute as usize);
    rollout
        .minutes
        .iter()
        .take(until)
        .map(|minute| minute.harmed)
        .sum()
}
