//! A rollout's telemetry as the judge gets to see it: minute by minute, in blocks.

use slogate_series::Histogram;

use super::generate::{Cell, Minute};
use super::scenario::Scenario;
use crate::source::blocks::{Blocks, Counts, Gathered, Grid};

/// A block is a minute.
pub(crate) const BLOCK_MS: i64 = 60_000;

/// When every rollout starts: the begin of 2026.
pub(crate) const START_MS: i64 = 1_767_225_600_000;

/// How long after the end of a minute its block is known to be complete.
pub(crate) const SETTLE_MS: i64 = 10_000;

/// The versions' labels.
pub(crate) const OLD: &str = "1.0";
pub(crate) const NEW: &str = "2.0";

/// What a source would have answered so far.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    names_instances: bool,
    /// Requests by version.
    pub(crate) requests: Gathered<Counts>,
    /// Durations by version.
    pub(crate) durations: Gathered<Histogram>,
}

impl Seen {
    /// Nothing yet.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Seen {
            names_instances: scenario.telemetry.names_instances,
            requests: nothing(),
            durations: nothing(),
        }
    }

    /// Adds what was counted in the minute `number`, from the start of the rollout; sums over
    /// instances are in `old` and `new`.
    pub(crate) fn add(&mut self, number: i64, minute: &Minute) {
        for cell in &minute.cells {
            self.add_cell(number, cell);
        }
    }

    fn add_cell(&mut self, number: i64, cell: &Cell) {
        let version = if cell.is_candidate { NEW } else { OLD };
        let block = START_MS / BLOCK_MS + number;
        let end_ms = (block + 1) * BLOCK_MS;
        if let Some(blocks) = self.requests.versions.get_mut(version) {
            saw(blocks, end_ms);
            let counts = blocks.by_block.entry(block).or_default();
            counts.total += cell.counts.total;
            counts.errors += cell.counts.errors;
        }
        if let Some(blocks) = self.durations.versions.get_mut(version) {
            saw(blocks, end_ms);
            let sum = match blocks.by_block.get(&block) {
                Some(sum) => sum.add(&cell.durations),
                None => cell.durations.clone(),
            };
            blocks.by_block.insert(block, sum);
        }
    }
}

fn nothing<T>() -> Gathered<T> {
    let versions = [OLD, NEW].map(|version| (version.to_owned(), Blocks::default()));
    Gathered {
        grid: Grid { block_ms: BLOCK_MS },
        versions: versions.into(),
        warnings: Vec::new(),
    }
}

fn saw<T>(blocks: &mut Blocks<T>, end_ms: i64) {
    blocks.newest_ms = blocks.newest_ms.max(end_ms);
    blocks.oldest_ms = blocks.oldest_ms.min(end_ms);
}
