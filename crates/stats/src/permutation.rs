//! Do two series differ, when neighbours resemble each other? A permutation test in blocks.
//!
//! Both series are measured side by side. Were the versions alike, it would not matter which of
//! the two a stretch of time was called; so stretches ("blocks") are swapped between the two at
//! random, and the share of swaps that give at least as great a difference is the p-value. Values
//! within a block keep together, so the test allows for neighbours that resemble each other as
//! far as a block is long, and for all that hits both sides at once.
//!
//! A test at a fixed horizon: to be asked once. With `b` blocks the p-value can't be below
//! `2^-b`: for 1 % it takes 7 blocks, for 0.1 % 10. Up to [`EXACT_BLOCKS_MAX`] blocks all swaps are
//! tried; beyond that as many at random as asked for, from a seed, the one observed counted among
//! them (B. Phipson and G. K. Smyth, "Permutation p-values should never be zero", Statistical
//! Applications in Genetics and Molecular Biology 9, 2010).

use crate::random::Random;

/// Up to this many blocks every swap is tried.
pub const EXACT_BLOCKS_MAX: usize = 12;

/// The most random swaps.
const SWAPS_MAX: u32 = 1_000_000;

/// What is compared between the two series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Center {
    /// Their means.
    #[default]
    Mean,
    /// Their medians.
    Median,
}

/// How a permutation test is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PermutationParams {
    /// What is compared.
    pub center: Center,
    /// Points per block, at least 1: as far apart as points have to be to not resemble each other.
    pub block: usize,
    /// Random swaps, where not all can be tried.
    pub swaps: u32,
    /// Where randomness starts.
    pub seed: u64,
}

/// What the test says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Permutation {
    /// The first series' center less the second's.
    pub difference: f64,
    /// The share of swaps with a difference at least as great.
    pub p_greater: f64,
    /// The share of swaps with a difference at most as great.
    pub p_less: f64,
    /// The share of swaps with a difference at least as far from zero.
    pub p_two_sided: f64,
    /// How many blocks there were.
    pub blocks: usize,
}

/// Tests pairs of values measured side by side. `None` without pairs, with a value that is not
/// finite, and for blocks of no points.
pub fn test(pairs: &[(f64, f64)], params: &PermutationParams) -> Option<Permutation> {
    let finite = |(a, b): &(f64, f64)| a.is_finite() && b.is_finite();
    if pairs.is_empty() || params.block == 0 || !pairs.iter().all(finite) {
        return None;
    }
    let blocks = pairs.len().div_ceil(params.block);
    let mut work = Work::new(pairs, params);
    let observed = work.difference(|_| false);
    let mut tally = Tally::new(observed);
    if blocks <= EXACT_BLOCKS_MAX {
        for swapped in 0..1_u64 << blocks {
            tally.count(work.difference(|block| swapped >> block & 1 == 1));
        }
    } else {
        tally.count(observed);
        let mut random = Random::new(params.seed);
        for _ in 0..params.swaps.clamp(1, SWAPS_MAX) {
            let bits: Vec<u64> = (0..blocks.div_ceil(64)).map(|_| random.next()).collect();
            let is_swapped = |block: usize| {
                bits.get(block / 64)
                    .is_some_and(|bits| bits >> (block % 64) & 1 == 1)
            };
            tally.count(work.difference(is_swapped));
        }
    }
    Some(tally.into_answer(blocks))
}

/// The number of points after which a series resembles itself no more, for the length of blocks:
/// `(1 + r) / (1 - r)` of the correlation `r` of neighbours, rounded up, at least 1, at most 20.
pub fn block_length(correlation: f64) -> usize {
    let r = correlation.clamp(0.0, 0.95);
    ((1.0 + r) / (1.0 - r)).ceil().clamp(1.0, 20.0) as usize
}

/// Swaps, and the arrays they are done in.
struct Work<'p> {
    pairs: &'p [(f64, f64)],
    params: &'p PermutationParams,
    /// Each block's sum of differences, which is all that means need.
    sums: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
}

impl<'p> Work<'p> {
    fn new(pairs: &'p [(f64, f64)], params: &'p PermutationParams) -> Work<'p> {
        let sum = |block: &[(f64, f64)]| block.iter().map(|(a, b)| a - b).sum::<f64>();
        Work {
            pairs,
            params,
            sums: pairs.chunks(params.block).map(sum).collect(),
            first: Vec::with_capacity(pairs.len()),
            second: Vec::with_capacity(pairs.len()),
        }
    }

    fn difference(&mut self, is_swapped: impl Fn(usize) -> bool) -> f64 {
        match self.params.center {
            Center::Mean => {
                let signed =
                    |(block, sum): (usize, &f64)| if is_swapped(block) { -sum } else { *sum };
                self.sums.iter().enumerate().map(signed).sum::<f64>() / self.pairs.len() as f64
            }
            Center::Median => {
                self.first.clear();
                self.second.clear();
                for (block, pairs) in self.pairs.chunks(self.params.block).enumerate() {
                    for (mine, theirs) in pairs {
                        let swapped = is_swapped(block);
                        let (mine, theirs) = if swapped {
                            (theirs, mine)
                        } else {
                            (mine, theirs)
                        };
                        self.first.push(*mine);
                        self.second.push(*theirs);
                    }
                }
                median(&mut self.first) - median(&mut self.second)
            }
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => 0.5 * (at(middle.saturating_sub(1)) + at(middle)),
        _ => at(middle),
    }
}

struct Tally {
    observed: f64,
    /// What rounding may add to sums in another order.
    slack: f64,
    swaps: f64,
    greater: f64,
    less: f64,
    further: f64,
}

impl Tally {
    fn new(observed: f64) -> Tally {
        Tally {
            observed,
            slack: 1e-12 * observed.abs(),
            swaps: 0.0,
            greater: 0.0,
            less: 0.0,
            further: 0.0,
        }
    }

    fn count(&mut self, found: f64) {
        let one_if = |is_so: bool| if is_so { 1.0 } else { 0.0 };
        self.swaps += 1.0;
        self.greater += one_if(found >= self.observed - self.slack);
        self.less += one_if(found <= self.observed + self.slack);
        self.further += one_if(found.abs() >= self.observed.abs() - self.slack);
    }

    fn into_answer(self, blocks: usize) -> Permutation {
        Permutation {
            difference: self.observed,
            p_greater: self.greater / self.swaps,
            p_less: self.less / self.swaps,
            p_two_sided: self.further / self.swaps,
            blocks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::upper_alarm_limit;
    use proptest::prelude::*;

    fn params(center: Center, block: usize) -> PermutationParams {
        PermutationParams {
            center,
            block,
            swaps: 500,
            seed: 1,
        }
    }

    /// Differences 1, 2, 3 and 4: of the 16 ways to give them signs one sums to 10, one to 8.
    #[test]
    fn few_blocks_are_tried_in_every_way() {
        let pairs = [(1.0, 0.0), (3.0, 1.0), (5.0, 2.0), (7.0, 3.0)];
        let found = test(&pairs, &params(Center::Mean, 1)).unwrap();
        assert_eq!((found.difference, found.p_greater), (2.5, 1.0 / 16.0));
        assert_eq!((found.p_less, found.p_two_sided), (1.0, 2.0 / 16.0));
        let pairs = [(0.0, 1.0), (3.0, 1.0), (5.0, 2.0), (7.0, 3.0)];
        let found = test(&pairs, &params(Center::Mean, 1)).unwrap();
        assert_eq!(found.p_greater, 2.0 / 16.0);
        let blocks = test(&pairs, &params(Center::Mean, 2)).unwrap();
        assert_eq!((blocks.blocks, blocks.p_greater), (2, 1.0 / 4.0));
    }

    #[test]
    fn medians_do_not_mind_one_spike() {
        let mut pairs: Vec<(f64, f64)> = (0..30)
            .map(|i| (f64::from(i % 5), f64::from(i % 5)))
            .collect();
        pairs[7].0 = 1e6;
        let found = test(&pairs, &params(Center::Median, 2)).unwrap();
        assert_eq!(found.difference, 0.0);
        assert_eq!(found.p_two_sided, 1.0);
    }

    #[test]
    fn what_cannot_be_tested_has_no_answer() {
        assert_eq!(test(&[], &params(Center::Mean, 1)), None);
        assert_eq!(test(&[(1.0, f64::NAN)], &params(Center::Mean, 1)), None);
        assert_eq!(test(&[(1.0, 2.0)], &params(Center::Mean, 0)), None);
        assert_eq!(
            (block_length(0.0), block_length(0.6), block_length(1.0)),
            (1, 4, 20)
        );
    }

    /// Single points raise three times as many false alarms as they should; blocks don't.
    #[test]
    fn blocks_allow_for_neighbours_that_resemble_each_other() {
        let mut random = Random::new(2);
        let mut alarms = |block: usize| {
            let mut alarms = 0;
            for _ in 0..300 {
                let (mut mine, mut theirs) = (0.0, 0.0);
                let pairs: Vec<(f64, f64)> = (0..60)
                    .map(|_| {
                        mine = 0.7 * mine + random.normal();
                        theirs = 0.7 * theirs + random.normal();
                        (mine, theirs)
                    })
                    .collect();
                let mut params = params(Center::Mean, block);
                params.swaps = 200;
                alarms += u32::from(test(&pairs, &params).unwrap().p_greater <= 0.05);
            }
            alarms
        };
        assert!(alarms(1) > 30);
        assert!(alarms(10) <= upper_alarm_limit(300, 0.08));
    }

    proptest! {
        #[test]
        fn the_same_seed_gives_the_same_answer(
            pairs in prop::collection::vec((-5.0_f64..5.0, -5.0_f64..5.0), 1..60),
            block in 1_usize..6, seed in any::<u64>(), is_median in any::<bool>(),
        ) {
            let center = if is_median { Center::Median } else { Center::Mean };
            let params = PermutationParams { center, block, swaps: 50, seed };
            let found = test(&pairs, &params).unwrap();
            prop_assert_eq!(found, test(&pairs, &params).unwrap());
            for p in [found.p_greater, found.p_less, found.p_two_sided] {
                prop_assert!(p > 0.0 && p <= 1.0);
            }
            let swapped: Vec<(f64, f64)> = pairs.iter().map(|(a, b)| (*b, *a)).collect();
            let other = test(&swapped, &params).unwrap();
            prop_assert!((found.difference + other.difference).abs() < 1e-9);
        }
    }
}
