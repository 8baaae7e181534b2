//! Candidate blocks beside baseline blocks, instance by instance, each taken once.
//!
//! A candidate block is compared with what the baseline did in the same block as long as the
//! baseline serves beside it: in every block in which it has traffic, and in gaps of up to
//! [`GAP_MS`], which say nothing. Before and after that, each candidate block takes the next
//! unused block of the baseline's own history from before the deployment, newest first; when the
//! history is used up the candidate block has no partner and says nothing. So a canary is compared
//! with its neighbour, a deployment that replaces everything at once with what came before, and
//! one that does the first and then the second keeps the evidence of both.
//!
//! Each pair is its own comparison, and only what is past chooses the partner, so the product over
//! pairs stays a valid test, and blocks can be taken one after the other as they complete.
//!
//! Instances get small numbers in the order in which they appear. An instance's age counts from
//! its own first traffic. Where series of either side name no instance, each side is one.

use std::collections::BTreeMap;
use std::sync::Arc;

use slogate_stats::cohort::INSTANCES_MAX;

use crate::model::{BaselineKind, TimeRange};
use crate::policy::BaselinePreference;
use crate::source::blocks::{Blocks, Grid};

/// For how long the baseline may be silent and still counts as serving beside the candidate.
const GAP_MS: i64 = 60_000;

const MINUTE_MS: i64 = 60_000;

/// What a comparison relies on. Where any of it changes, what was taken in no longer fits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Relied {
    pub(crate) candidate: String,
    pub(crate) baseline: String,
    pub(crate) grid: Grid,
    /// When judging begins.
    pub(crate) from_ms: i64,
    pub(crate) against: BaselinePreference,
    /// Whether both sides' series name instances.
    pub(crate) is_told_apart: bool,
}

/// A candidate block and its partner.
#[derive(Clone, Debug)]
pub(crate) struct Pair<'d, T> {
    /// The block's end, in minutes since judging began.
    pub(crate) end_min: f64,
    /// The minute it ended in, since the epoch.
    pub(crate) minute: i64,
    /// Instance, its age in the middle of the block in minutes, and what it did.
    pub(crate) candidate: Vec<(usize, f64, &'d T)>,
    /// Instance, and what it did.
    pub(crate) baseline: Vec<(usize, &'d T)>,
}

/// How far a comparison has come.
#[derive(Clone, Debug)]
pub(crate) struct Arms {
    relied: Relied,
    began: i64,
    next: i64,
    /// The last block in which the baseline served beside the candidate.
    beside: Option<i64>,
    /// The oldest block of history that was used.
    used: i64,
    pairs: usize,
    concurrent: usize,
    from: i64,
    to: i64,
    first: Option<i64>,
    candidate: Names,
    baseline: Names,
}

/// Instances by number.
#[derive(Clone, Debug, Default)]
struct Names {
    numbers: BTreeMap<Arc<str>, usize>,
    by_number: Vec<(Arc<str>, i64)>,
}

impl Names {
    /// The number of an instance, and the block of its first traffic. Beyond the most that are
    /// told apart, all others are one.
    fn number(&mut self, name: &Arc<str>, born: impl Fn() -> i64) -> (usize, i64) {
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = self.by_number.len().min(INSTANCES_MAX - 1);
                if number == self.by_number.len() {
                    self.by_number.push((name.clone(), born()));
                }
                self.numbers.insert(name.clone(), number);
                number
            }
        };
        let born = self.by_number.get(number).map_or(i64::MAX, |one| one.1);
        (number, born)
    }

    fn name(&self, number: usize) -> Option<&str> {
        let found = self.by_number.get(number)?;
        Some(found.0.as_ref())
    }
}

impl Arms {
    pub(crate) fn new(relied: Relied) -> Arms {
        let began = relied.grid.block_of(relied.from_ms + 1);
        Arms {
            relied,
            began,
            next: began,
            beside: None,
            used: began,
            pairs: 0,
            concurrent: 0,
            from: i64::MAX,
            to: i64::MIN,
            first: None,
            candidate: Names::default(),
            baseline: Names::default(),
        }
    }

    /// Whether it relies on just this.
    pub(crate) fn relies_on(&self, relied: &Relied) -> bool {
        self.relied == *relied
    }

    /// Whether series name instances.
    pub(crate) fn is_told_apart(&self) -> bool {
        self.relied.is_told_apart
    }

    /// The name of a candidate instance.
    pub(crate) fn candidate_name(&self, number: usize) -> Option<&str> {
        self.candidate.name(number)
    }

    /// The name of a baseline instance.
    pub(crate) fn baseline_name(&self, number: usize) -> Option<&str> {
        self.baseline.name(number)
    }

    /// How many instances of the candidate and of the baseline have been seen.
    pub(crate) fn instances(&self) -> (usize, usize) {
        let count = |names: &Names| names.by_number.len();
        (count(&self.candidate), count(&self.baseline))
    }

    /// Concurrent where most pairs are.
    pub(crate) fn kind(&self) -> BaselineKind {
        match self.concurrent * 2 >= self.pairs.max(1) {
            true => BaselineKind::Concurrent,
            false => BaselineKind::Historical,
        }
    }

    /// When the baseline's data is from.
    pub(crate) fn baseline_data(&self) -> TimeRange {
        let data = match self.pairs {
            0 => (self.began, self.began - 1),
            _ => (self.from, self.to),
        };
        TimeRange {
            start_ms: data.0 * self.relied.grid.block_ms,
            end_ms: (data.1 + 1) * self.relied.grid.block_ms,
        }
    }

    /// Whether the candidate's first `warm_up_ms` of traffic are not over at the blocks taken.
    pub(crate) fn is_warming(&self, warm_up_ms: i64) -> bool {
        let block_ms = self.relied.grid.block_ms;
        let warm_blocks = (warm_up_ms + block_ms - 1).div_euclid(block_ms);
        self.first
            .is_none_or(|first| first + warm_blocks >= self.next)
    }

    /// What the baseline's instances did minute by minute before judging began.
    pub(crate) fn history<'d, T>(&mut self, baseline: &'d Blocks<T>) -> Vec<Vec<(usize, &'d T)>> {
        let mut minutes: BTreeMap<i64, Vec<(usize, &'d T)>> = BTreeMap::new();
        let blocks: Vec<i64> = baseline
            .by_block
            .range(..self.began)
            .map(|(b, _)| *b)
            .collect();
        for block in blocks {
            let minute = self.minute(block);
            let found = self.baseline_at(baseline, block);
            minutes.entry(minute).or_default().extend(found);
        }
        minutes.into_values().collect()
    }

    /// Takes the next block before `end` that either side has something in.
    pub(crate) fn take<'d, T>(
        &mut self,
        candidate: &'d Blocks<T>,
        baseline: &'d Blocks<T>,
        end: i64,
    ) -> Option<Pair<'d, T>> {
        while self.next < end {
            let block = self.next;
            self.next += 1;
            let is_served = candidate.by_block.contains_key(&block);
            if is_served && self.first.is_none() {
                self.first = Some(block);
            }
            let Some(partner) = self.partner(baseline, block, is_served) else {
                continue;
            };
            let theirs = self.baseline_at(baseline, partner);
            if !theirs.is_empty() {
                self.pairs += 1;
                self.concurrent += usize::from(partner == block);
                self.from = self.from.min(partner);
                self.to = self.to.max(partner);
            }
            let end_ms = (block + 1) * self.relied.grid.block_ms;
            return Some(Pair {
                end_min: (end_ms - self.relied.from_ms) as f64 / MINUTE_MS as f64,
                minute: self.minute(block),
                candidate: self.candidate_at(candidate, block),
                baseline: theirs,
            });
        }
        None
    }

    fn partner<T>(&mut self, baseline: &Blocks<T>, block: i64, is_served: bool) -> Option<i64> {
        let against = self.relied.against;
        if against != BaselinePreference::Historical {
            if baseline.by_block.contains_key(&block) {
                self.beside = Some(block);
                return Some(block);
            }
            let gap_ms = |last: i64| (block - last) * self.relied.grid.block_ms;
            if self.beside.is_some_and(|last| gap_ms(last) <= GAP_MS) {
                return is_served.then_some(block);
            }
        }
        if !is_served || against == BaselinePreference::Concurrent {
            return None;
        }
        let (older, _) = baseline.by_block.range(..self.used).next_back()?;
        self.used = *older;
        Some(*older)
    }

    fn candidate_at<'d, T>(
        &mut self,
        blocks: &'d Blocks<T>,
        block: i64,
    ) -> Vec<(usize, f64, &'d T)> {
        let block_min = self.relied.grid.block_ms as f64 / MINUTE_MS as f64;
        let age_min = |born: i64| ((block - born).max(0) as f64 + 0.5) * block_min;
        if !self.relied.is_told_apart {
            let found = blocks.by_block.get(&block);
            let born = self.first.unwrap_or(block);
            return found
                .map(|one| (0, age_min(born), one))
                .into_iter()
                .collect();
        }
        let mut found = Vec::new();
        for (name, instance) in &blocks.instances {
            if let Some(one) = instance.by_block.get(&block) {
                let born = || instance.by_block.keys().next().copied().unwrap_or(block);
                let (number, born) = self.candidate.number(name, born);
                found.push((number, age_min(born), one));
            }
        }
        found
    }

    fn baseline_at<'d, T>(&mut self, blocks: &'d Blocks<T>, block: i64) -> Vec<(usize, &'d T)> {
        if !self.relied.is_told_apart {
            let found = blocks.by_block.get(&block);
            return found.map(|one| (0, one)).into_iter().collect();
        }
        let mut found = Vec::new();
        for (name, instance) in &blocks.instances {
            if let Some(one) = instance.by_block.get(&block) {
                found.push((self.baseline.number(name, || block).0, one));
            }
        }
        found
    }

    fn minute(&self, block: i64) -> i64 {
        (block * self.relied.grid.block_ms).div_euclid(MINUTE_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::blocks::{BLOCK_MS, Instance};

    fn blocks(entries: &[(i64, u32)]) -> Blocks<u32> {
        Blocks {
            by_block: entries.iter().copied().collect(),
            ..Blocks::default()
        }
    }

    fn arms(against: BaselinePreference, is_told_apart: bool) -> Arms {
        Arms::new(Relied {
            candidate: "2".to_owned(),
            baseline: "1".to_owned(),
            grid: Grid::default(),
            from_ms: 10 * BLOCK_MS,
            against,
            is_told_apart,
        })
    }

    type Plain = (Option<u32>, Option<u32>);

    fn all(arms: &mut Arms, candidate: &Blocks<u32>, baseline: &Blocks<u32>) -> Vec<Plain> {
        let pairs = std::iter::from_fn(|| arms.take(candidate, baseline, 30));
        pairs
            .map(|pair| {
                let mine = pair.candidate.first().map(|one| *one.2);
                (mine, pair.baseline.first().map(|one| *one.1))
            })
            .collect()
    }

    #[test]
    fn a_canary_is_compared_with_its_neighbour() {
        let candidate = blocks(&[(10, 1), (11, 2), (12, 3)]);
        let baseline = blocks(&[(8, 90), (10, 91), (12, 93)]);
        let mut arms = arms(BaselinePreference::Auto, false);
        let expected = [(Some(1), Some(91)), (Some(2), None), (Some(3), Some(93))];
        assert_eq!(all(&mut arms, &candidate, &baseline), expected);
        assert_eq!(arms.kind(), BaselineKind::Concurrent);
        assert!(arms.take(&candidate, &baseline, 30).is_none());
    }

    #[test]
    fn all_at_once_is_compared_with_history_newest_first() {
        let candidate = blocks(&[(10, 1), (11, 2), (12, 3)]);
        let baseline = blocks(&[(7, 97), (8, 98)]);
        let mut auto = arms(BaselinePreference::Auto, false);
        let expected = [(Some(1), Some(98)), (Some(2), Some(97))];
        assert_eq!(all(&mut auto, &candidate, &baseline), expected);
        assert_eq!(auto.kind(), BaselineKind::Historical);
        assert_eq!(auto.baseline_data().start_ms, 7 * BLOCK_MS);
        let mut beside = arms(BaselinePreference::Concurrent, false);
        assert_eq!(all(&mut beside, &candidate, &baseline), []);
    }

    #[test]
    fn what_was_concurrent_stays_so_when_the_baseline_leaves() {
        // Six blocks make a minute: until then a silent baseline may come back.
        let candidate = blocks(&[(10, 1), (11, 2), (17, 3), (18, 4)]);
        let baseline = blocks(&[(9, 99), (10, 90), (11, 91)]);
        let mut auto = arms(BaselinePreference::Auto, false);
        let expected = [
            (Some(1), Some(90)),
            (Some(2), Some(91)),
            (Some(3), None),
            (Some(4), Some(99)),
        ];
        assert_eq!(all(&mut auto, &candidate, &baseline), expected);
        let mut history = arms(BaselinePreference::Historical, false);
        assert_eq!(
            all(&mut history, &candidate, &baseline),
            [(Some(1), Some(99))]
        );
    }

    #[test]
    fn instances_have_numbers_and_ages_of_their_own() {
        let mut candidate = blocks(&[(10, 3), (12, 7)]);
        for (name, entries) in [("b", vec![(10, 3), (12, 3)]), ("a", vec![(12, 4)])] {
            let by_block = entries.into_iter().collect();
            candidate
                .instances
                .insert(name.into(), Instance { by_block });
        }
        let baseline = blocks(&[(10, 90), (12, 92)]);
        let mut arms = arms(BaselinePreference::Auto, true);
        let first = arms.take(&candidate, &baseline, 30).expect("a pair");
        assert_eq!(first.candidate, [(0, 5.0 / 60.0, &3)]);
        let second = arms.take(&candidate, &baseline, 30).expect("a pair");
        let plain: Vec<(usize, u32)> = second.candidate.iter().map(|one| (one.0, *one.2)).collect();
        assert_eq!(plain, [(1, 4), (0, 3)]);
        let ages_s = second.candidate.iter().map(|one| (one.1 * 60.0).round());
        assert_eq!(ages_s.collect::<Vec<_>>(), [5.0, 25.0]);
        assert_eq!(arms.candidate_name(1), Some("a"));
    }
}
