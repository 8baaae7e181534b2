//! Made-up rollouts through the real judge, and through what others do.
//!
//! How often does a gate stop a good version, and how long does it take to stop a bad one? Of
//! real rollouts nobody knows for sure which were good. So [`scenario`] says what can happen,
//! [`catalogue`] lists what does, [`mixed`] mixes it, [`generate`] draws the telemetry of any number of rollouts from
//! a seed, and everybody who judges sees the same: [`ours`], the judge of this program, looks at
//! what [`observe`] shows of it minute by minute; [`peers`] are the procedures of others. `run`
//! puts it through all of them, [`report`] sums up, [`table`] prints. [`series()`] gives a rollout
//! as a service would have sent it.
//!
//! The same seed gives the same numbers, on any machine and with any number of threads.

use crate::model::Glob;

mod catalogue;
mod generate;
mod mixed;
mod observe;
mod ours;
mod peers;
mod report;
mod run;
mod scenario;
mod series;
mod table;
mod trace;

pub(crate) use catalogue::CATALOGUE;
pub(crate) use ours::comparing;
pub(crate) use peers::PEERS;
pub(crate) use run::{Judge, Plan, run};
pub(crate) use scenario::Scenario;
pub(crate) use series::{Setting, series};
pub(crate) use table::{csv, markdown, replace_table, text};
pub(crate) use trace::trace;

/// The scenarios whose names match one of the globs, in the order of the catalogue.
pub(crate) fn scenarios(globs: &[Glob]) -> Vec<&'static Scenario> {
    let is_wanted =
        |scenario: &&Scenario| globs.is_empty() || globs.iter().any(|g| g.matches(scenario.name));
    CATALOGUE.iter().filter(is_wanted).collect()
}

/// Everybody who judges, this program first.
pub(crate) fn judges() -> impl Iterator<Item = Judge> {
    let peers = PEERS.iter().map(Judge::Peer);
    std::iter::once(Judge::Slogate).chain(peers)
}
