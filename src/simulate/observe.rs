//! A rollout's telemetry as the judge gets to see it: minute by minute, in blocks.

use std::collections::BTreeMap;

use super::generate::{Cell, Minute, Rollout};
use super::peers::Arm;
use crate::judge::examine::Observed;
use crate::policy::{CheckSpec, Gate};
use crate::source::blocks::{Blocks, Gathered, Grid};

/// A block is a minute.
pub(crate) const BLOCK_MS: i64 = 60_000;

/// When every rollout starts: the begin of 2026.
pub(crate) const START_MS: i64 = 1_767_225_600_000;

/// How long after the end of a minute its block is known to be complete.
const SETTLE_MS: i64 = 10_000;

/// The versions' labels.
pub(crate) const OLD: &str = "1.0";
pub(crate) const NEW: &str = "2.0";

/// When the block of the minute `number`, from 0, is complete.
pub(crate) fn complete_ms(number: u32) -> i64 {
    START_MS + (i64::from(number) + 1) * BLOCK_MS + SETTLE_MS
}

/// What a source would have answered so far.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    names_instances: bool,
    observed: Observed,
}

impl Seen {
    /// Nothing yet, of all that the gate compares.
    pub(crate) fn new(rollout: &Rollout, gate: &Gate) -> Self {
        let mut observed = Observed::default();
        for check in &gate.checks {
            if let CheckSpec::Compare(compare) = &check.spec {
                let kind = compare.span_kind.label();
                observed.requests.insert(kind, Ok(nothing()));
                observed.durations.insert(kind, Ok(nothing()));
            }
        }
        Seen {
            names_instances: rollout.names_instances,
            observed,
        }
    }

    /// All of it.
    pub(crate) fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Adds what was counted in the minute `number` from the start of the rollout, and its sums
    /// over the instances of both versions.
    pub(crate) fn add(&mut self, number: i64, minute: &Minute, old: &Arm, new: &Arm) {
        let block = START_MS / BLOCK_MS + number;
        let named = match self.names_instances {
            true => minute.cells.as_slice(),
            false => &[],
        };
        for requests in self.observed.requests.values_mut().flatten() {
            add(
                requests,
                block,
                named,
                [old, new],
                |arm| &arm.counts,
                |cell| &cell.counts,
            );
        }
        for durations in self.observed.durations.values_mut().flatten() {
            add(
                durations,
                block,
                named,
                [old, new],
                |arm| &arm.durations,
                |cell| &cell.durations,
            );
        }
    }
}

/// Adds a block's sums of both versions, and the parts of the instances that are named.
fn add<T: Clone>(
    gathered: &mut Gathered<T>,
    block: i64,
    named: &[Cell],
    sums: [&Arm; 2],
    of_arm: impl Fn(&Arm) -> &T,
    of_cell: impl Fn(&Cell) -> &T,
) {
    let end_ms = (block + 1) * BLOCK_MS;
    for ((version, arm), is_new) in [OLD, NEW].into_iter().zip(sums).zip([false, true]) {
        let Some(blocks) = gathered.versions.get_mut(version) else {
            continue;
        };
        if arm.counts.total <= 0.0 {
            continue;
        }
        blocks.newest_ms = blocks.newest_ms.max(end_ms);
        blocks.oldest_ms = blocks.oldest_ms.min(end_ms);
        blocks.by_block.insert(block, of_arm(arm).clone());
        for cell in named.iter().filter(|cell| cell.is_candidate == is_new) {
            let instance = blocks.instances.entry(cell.instance.clone()).or_default();
            instance.by_block.insert(block, of_cell(cell).clone());
        }
    }
}

fn nothing<T>() -> Gathered<T> {
    let versions = [OLD, NEW].map(|version| (version.to_owned(), Blocks::default()));
    Gathered {
        grid: Grid { block_ms: BLOCK_MS },
        versions: BTreeMap::from(versions),
        warnings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_look_finds_the_newest_block_complete() {
        let grid = Grid { block_ms: BLOCK_MS };
        for number in [0, 1, 59] {
            let end = grid.end(complete_ms(number));
            assert_eq!(end, START_MS / BLOCK_MS + i64::from(number) + 1);
        }
    }
}
