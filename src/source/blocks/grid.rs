//! How time is cut into blocks.

use std::collections::HashMap;

use smallvec::SmallVec;

/// The shortest block: two of the default five-second flushes of span metrics.
pub(crate) const BLOCK_MS: i64 = 10_000;

/// The longest block, in milliseconds; a source with rarer samples loses some of them.
const BLOCK_MAX_MS: i64 = 600_000;

/// How long after its end the shortest block is taken as complete; flushes happen at their very
/// time.
const SETTLE_MS: i64 = 1_000;

/// How time is cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// The length of a block, in milliseconds.
    pub(crate) block_ms: i64,
}

impl Default for Grid {
    fn default() -> Self {
        Grid { block_ms: BLOCK_MS }
    }
}

impl Grid {
    /// The grid for samples that come every `interval_ms`.
    fn for_interval(interval_ms: i64) -> Self {
        // Scrapes are a few milliseconds early or late; that makes no block longer.
        let seconds = (interval_ms + 500).div_euclid(1000);
        let blocks = (2 * seconds * 1000 + BLOCK_MS - 1).div_euclid(BLOCK_MS);
        Grid {
            block_ms: (blocks * BLOCK_MS).clamp(BLOCK_MS, BLOCK_MAX_MS),
        }
    }

    /// The block that a sample belongs to: a sample at a block's end closes that block.
    pub(crate) fn block_of(self, t_ms: i64) -> i64 {
        (t_ms - 1).div_euclid(self.block_ms)
    }

    /// The first block that is not complete at `now_ms`. What is scraped and passed on takes
    /// longer to arrive, so longer blocks settle for longer.
    pub(crate) fn end(self, now_ms: i64) -> i64 {
        let settle_ms = match self.block_ms {
            BLOCK_MS => SETTLE_MS,
            longer => longer / 8,
        };
        (now_ms - settle_ms).div_euclid(self.block_ms)
    }

    /// The end of the last block that is complete at `now_ms`.
    pub(super) fn settled_ms(self, now_ms: i64) -> i64 {
        self.end(now_ms).saturating_mul(self.block_ms)
    }
}

/// The times between a series' samples, in whole seconds, with how often each was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Gaps(SmallVec<[(i64, u32); 2]>);

impl Gaps {
    /// Counts one; scrapes are a few milliseconds early or late.
    pub(super) fn note(&mut self, gap_ms: i64) {
        let seconds = (gap_ms + 500).div_euclid(1000);
        match self.0.binary_search_by_key(&seconds, |(known, _)| *known) {
            Ok(at) => {
                if let Some((_, count)) = self.0.get_mut(at) {
                    *count = count.saturating_add(1);
                }
            }
            Err(at) => self.0.insert(at, (seconds, 1)),
        }
    }

    /// The one in the middle.
    pub(super) fn typical_ms(&self) -> Option<i64> {
        let all: u64 = self.0.iter().map(|(_, count)| u64::from(*count)).sum();
        let mut left = all / 2;
        for (seconds, count) in &self.0 {
            match left.checked_sub(u64::from(*count)) {
                Some(rest) => left = rest,
                None => return Some(seconds * 1000),
            }
        }
        None
    }
}

/// The grid for series that are sampled this often, each with its version: samples of a version
/// come as often as those of its busiest series, and blocks have to suit the version whose
/// samples are the rarest.
pub(super) fn grid<'a>(typical: impl Iterator<Item = (&'a str, i64)>) -> Grid {
    let mut by_version: HashMap<&str, i64> = HashMap::new();
    for (version, gap_ms) in typical {
        let shortest = by_version.entry(version).or_insert(gap_ms);
        *shortest = (*shortest).min(gap_ms);
    }
    by_version
        .values()
        .max()
        .map_or(Grid::default(), |gap| Grid::for_interval(*gap))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_at_a_block_end_closes_that_block() {
        let grid = Grid::default();
        assert_eq!(grid.block_of(BLOCK_MS), 0);
        assert_eq!(grid.block_of(BLOCK_MS + 1), 1);
        assert_eq!(grid.end(3 * BLOCK_MS + SETTLE_MS), 3);
        assert_eq!(grid.end(3 * BLOCK_MS + SETTLE_MS - 1), 2);
    }

    #[test]
    fn blocks_are_two_intervals_long() {
        let cases = [
            (1_000, 10),
            (5_004, 10),
            (15_000, 30),
            (29_998, 60),
            (60_020, 120),
        ];
        for (interval_ms, seconds) in cases {
            let grid = Grid::for_interval(interval_ms);
            assert_eq!(grid.block_ms, seconds * 1000, "{interval_ms}");
        }
        assert_eq!(Grid::for_interval(i64::MAX / 4).block_ms, BLOCK_MAX_MS);
    }

    #[test]
    fn the_typical_gap_is_the_one_in_the_middle() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.typical_ms(), None);
        for gap_ms in [4_990, 5_010, 300_000, 5_000, 15_000] {
            gaps.note(gap_ms);
        }
        assert_eq!(gaps.typical_ms(), Some(5_000));
        gaps.note(15_200);
        assert_eq!(
            gaps.typical_ms(),
            Some(15_000),
            "of an even number the upper one"
        );
    }
}
