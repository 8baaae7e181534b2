//! Candidate blocks beside baseline blocks.
//!
//! A candidate block is compared with what the baseline did in the same block, as long as
//! the baseline serves beside it: between its first and last block with traffic since the
//! deployment began. Before and after that, each candidate block takes the next unused
//! block of the baseline's own history from before the deployment, newest first; when the
//! history is used up the candidate block has no partner and says nothing. So a canary is
//! compared with its neighbour, a deployment that replaces everything at once with what
//! came before, and one that does the first and then the second keeps the evidence of both.
//!
//! Each pair is its own comparison, and only counts of the past choose the partner, so the
//! product over pairs stays a valid test.

use std::collections::BTreeMap;

use crate::model::{BaselineKind, TimeRange};
use crate::policy::BaselinePreference;
use crate::source::blocks::{Blocks, Grid};

/// A candidate block and its partner.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pair<'a, T> {
    /// What the candidate did; `None` where it did nothing.
    pub(crate) candidate: Option<&'a T>,
    /// What the baseline did in the partner block; `None` where it did nothing.
    pub(crate) baseline: Option<&'a T>,
}

/// The pairs of a comparison and where they come from.
#[derive(Clone, Debug)]
pub(crate) struct Pairs<'a, T> {
    /// In time.
    pub(crate) pairs: Vec<Pair<'a, T>>,
    /// Concurrent where most pairs are.
    pub(crate) kind: BaselineKind,
    /// When the baseline's data is from.
    pub(crate) baseline_data: TimeRange,
}

/// Pairs candidate blocks in `[first, end)` with blocks of the baseline.
///
/// `began` is the block in which the deployment began: baseline blocks before it are history.
/// `against` can rule out either kind of partner.
pub(crate) fn pair<'a, T>(
    candidate: &'a Blocks<T>,
    baseline: &'a Blocks<T>,
    began: i64,
    first: i64,
    end: i64,
    grid: Grid,
    against: BaselinePreference,
) -> Pairs<'a, T> {
    let beside = match against {
        BaselinePreference::Historical => None,
        _ => alive(&baseline.by_block, began, end),
    };
    let mut history = baseline.by_block.range(..began).rev();
    let (mut pairs, mut concurrent) = (Vec::new(), 0usize);
    let (mut from, mut to) = (i64::MAX, i64::MIN);
    for block in first..end {
        let mine = candidate.by_block.get(&block);
        let is_beside = beside.is_some_and(|(low, high)| (low..=high).contains(&block));
        if !is_beside && mine.is_none() {
            continue;
        }
        let (partner, theirs) = if is_beside {
            concurrent += 1;
            (block, baseline.by_block.get(&block))
        } else {
            match history.next() {
                Some((at, counts)) if against != BaselinePreference::Concurrent => {
                    (*at, Some(counts))
                }
                _ => continue,
            }
        };
        from = from.min(partner);
        to = to.max(partner);
        pairs.push(Pair {
            candidate: mine,
            baseline: theirs,
        });
    }
    let kind = if concurrent * 2 >= pairs.len().max(1) {
        BaselineKind::Concurrent
    } else {
        BaselineKind::Historical
    };
    let data = if pairs.is_empty() {
        (first, first - 1)
    } else {
        (from, to)
    };
    let baseline_data = TimeRange {
        start_ms: data.0 * grid.block_ms,
        end_ms: (data.1 + 1) * grid.block_ms,
    };
    Pairs {
        pairs,
        kind,
        baseline_data,
    }
}

fn alive<T>(blocks: &BTreeMap<i64, T>, began: i64, end: i64) -> Option<(i64, i64)> {
    let mut range = blocks.range(began..end.max(began));
    let first = *range.next()?.0;
    let last = range.next_back().map_or(first, |(block, _)| *block);
    Some((first, last))
}

/// The first block whose whole data counts when the candidate's first `warm_up_ms` do not.
pub(crate) fn evidence_start<T>(
    candidate: &Blocks<T>,
    judged_from_ms: i64,
    warm_up_ms: i64,
    grid: Grid,
) -> Option<i64> {
    let began = grid.block_of(judged_from_ms + 1);
    let (first, _) = candidate.by_block.range(began..).next()?;
    let warm_blocks = (warm_up_ms + grid.block_ms - 1).div_euclid(grid.block_ms);
    Some(first + warm_blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::blocks::BLOCK_MS;

    fn blocks(entries: &[(i64, u32)]) -> Blocks<u32> {
        Blocks {
            by_block: entries.iter().copied().collect(),
            ..Blocks::default()
        }
    }

    fn plain(pairs: &Pairs<'_, u32>) -> Vec<(Option<u32>, Option<u32>)> {
        pairs
            .pairs
            .iter()
            .map(|p| (p.candidate.copied(), p.baseline.copied()))
            .collect()
    }

    #[test]
    fn a_canary_is_compared_with_its_neighbour() {
        let candidate = blocks(&[(10, 1), (11, 2), (12, 3)]);
        let baseline = blocks(&[(8, 90), (10, 91), (12, 93)]);
        let pairs = pair(
            &candidate,
            &baseline,
            10,
            10,
            13,
            Grid::default(),
            BaselinePreference::Auto,
        );
        let expected = [(Some(1), Some(91)), (Some(2), None), (Some(3), Some(93))];
        assert_eq!(plain(&pairs), expected);
        assert_eq!(pairs.kind, BaselineKind::Concurrent);
    }

    #[test]
    fn all_at_once_is_compared_with_history_newest_first() {
        let candidate = blocks(&[(10, 1), (11, 2), (12, 3)]);
        let baseline = blocks(&[(7, 97), (8, 98)]);
        let pairs = pair(
            &candidate,
            &baseline,
            10,
            10,
            13,
            Grid::default(),
            BaselinePreference::Auto,
        );
        assert_eq!(plain(&pairs), [(Some(1), Some(98)), (Some(2), Some(97))]);
        assert_eq!(pairs.kind, BaselineKind::Historical);
        assert_eq!(pairs.baseline_data.start_ms, 7 * BLOCK_MS);
    }

    #[test]
    fn what_was_concurrent_stays_so_when_the_baseline_leaves() {
        let candidate = blocks(&[(10, 1), (11, 2), (12, 3)]);
        let baseline = blocks(&[(9, 99), (10, 90), (11, 91)]);
        let pairs = pair(
            &candidate,
            &baseline,
            10,
            10,
            13,
            Grid::default(),
            BaselinePreference::Auto,
        );
        let expected = [
            (Some(1), Some(90)),
            (Some(2), Some(91)),
            (Some(3), Some(99)),
        ];
        assert_eq!(plain(&pairs), expected);
        let pairs = pair(
            &candidate,
            &baseline,
            10,
            10,
            13,
            Grid::default(),
            BaselinePreference::Concurrent,
        );
        assert_eq!(plain(&pairs), expected[..2]);
        let pairs = pair(
            &candidate,
            &baseline,
            10,
            10,
            13,
            Grid::default(),
            BaselinePreference::Historical,
        );
        assert_eq!(plain(&pairs), [(Some(1), Some(99))]);
    }

    #[test]
    fn warm_up_counts_from_the_first_request() {
        let candidate = blocks(&[(3, 1), (10, 1)]);
        assert_eq!(
            evidence_start(&candidate, 8 * BLOCK_MS, 25_000, Grid::default()),
            Some(13)
        );
        assert_eq!(
            evidence_start(&candidate, 20 * BLOCK_MS, 0, Grid::default()),
            None
        );
    }
}
