//! One series in memory: finished chunks, the open chunk, and late samples.
//!
//! # Order of arrival
//! A sample later than everything in the series is appended to the open chunk. Any other is
//! *late*: it is accepted if it is not further behind the series' newest sample than the
//! out-of-order window, and goes to a short sorted buffer that readers merge in. The buffer
//! is folded into the chunks by maintenance, or as soon as it holds [`LATE_MAX`] samples.
//!
//! # Equal times
//! A sample at a time that the series has already is accepted, and changes nothing, if its
//! value is the same bit for bit; otherwise it is refused as a duplicate. The start time is
//! not part of the comparison: the first one stays.
//!
//! # Invariants
//! - I-SERIES-1: finished chunks are ascending and disjoint in time.
//! - I-SERIES-2: the open chunk is later than every finished one.
//! - I-SERIES-3: late samples are ascending and share no time with a chunk's samples.
//! - I-SERIES-4: `newest_ms` is at least every sample's time, and stays when samples expire.

use std::sync::atomic::{AtomicI64, Ordering};

use slogate_series::{Sample, SampleSink};

use crate::chunk::{Chunk, Incoming, OpenChunk};
use crate::index::Pair;

/// Late samples are folded into the chunks when there are this many.
const LATE_MAX: usize = 64;

/// Why a sample is refused by its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Too far behind the series' newest sample.
    TooOld,
    /// The series has another value at that time.
    Duplicate,
}

/// What the owner of many series keeps count of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Bytes of chunks and late samples.
    pub(crate) bytes: usize,
    /// Samples held.
    pub(crate) samples: u64,
}

impl Tally {
    fn replace_bytes(&mut self, before: usize, after: usize) {
        self.bytes = (self.bytes + after).saturating_sub(before);
    }
}

/// One series.
#[derive(Debug)]
pub(crate) struct MemSeries {
    pub(crate) pairs: Box<[Pair]>,
    chunks: Vec<Chunk>,
    open: OpenChunk,
    late: Vec<Sample>,
    newest_ms: i64,
    /// When the series was last created, looked up or appended to, by the store's clock.
    touched_ms: AtomicI64,
    /// The log segment that has this series' labels, and its number there.
    pub(crate) log_segment: u32,
    pub(crate) log_number: u32,
}

/// What a reader takes out from under the lock.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    chunks: Vec<Chunk>,
    late: Vec<Sample>,
}

impl MemSeries {
    pub(crate) fn new(pairs: Box<[Pair]>, now_ms: i64) -> Self {
        MemSeries {
            pairs,
            chunks: Vec::new(),
            open: OpenChunk::None,
            late: Vec::new(),
            newest_ms: i64::MIN,
            touched_ms: AtomicI64::new(now_ms),
            log_segment: 0,
            log_number: 0,
        }
    }

    /// Notes a use, so that the series is not collected right after.
    pub(crate) fn touch(&self, now_ms: i64) {
        self.touched_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// Adds a sample; `window_ms` is how far behind the newest it may be.
    #[inline]
    pub(crate) fn append(
        &mut self,
        t_ms: i64,
        start_ms: i64,
        value: Incoming<'_>,
        window_ms: i64,
        tally: &mut Tally,
    ) -> Result<(), Unfit> {
        if t_ms <= self.newest_ms && !self.has_no_samples() {
            return self.append_late(t_ms, start_ms, value, window_ms, tally);
        }
        if t_ms < self.newest_ms.saturating_sub(window_ms) {
            return Err(Unfit::TooOld);
        }
        let before = self.open.heap_bytes();
        if !self.open.push(t_ms, start_ms, value) {
            tally.replace_bytes(before, 0);
            self.finish_open(tally);
            self.open = OpenChunk::start(t_ms, start_ms, value);
            tally.replace_bytes(0, self.open.heap_bytes());
        } else {
            let after = self.open.heap_bytes();
            if before != after {
                tally.replace_bytes(before, after);
            }
        }
        tally.samples += 1;
        self.newest_ms = self.newest_ms.max(t_ms);
        Ok(())
    }

    /// Moves the open chunk, whose bytes the caller has taken off the tally, to the finished.
    fn finish_open(&mut self, tally: &mut Tally) {
        if let Some(chunk) = self.open.to_chunk() {
            tally.bytes += chunk.memory_bytes();
            if self.chunks.len() == self.chunks.capacity() {
                self.chunks.reserve_exact((self.chunks.len() / 4).max(1));
            }
            self.chunks.push(chunk);
        }
        self.open = OpenChunk::None;
    }

    #[cold]
    fn append_late(
        &mut self,
        t_ms: i64,
        start_ms: i64,
        value: Incoming<'_>,
        window_ms: i64,
        tally: &mut Tally,
    ) -> Result<(), Unfit> {
        if t_ms < self.newest_ms.saturating_sub(window_ms) {
            return Err(Unfit::TooOld);
        }
        let at = self.late.partition_point(|sample| sample.t_ms < t_ms);
        let same = match self.late.get(at) {
            Some(sample) if sample.t_ms == t_ms => Some(value.is(&sample.value)),
            _ => self.same_in_chunks(t_ms, value),
        };
        match same {
            Some(true) => return Ok(()),
            Some(false) => return Err(Unfit::Duplicate),
            None => {}
        }
        let sample = Sample {
            t_ms,
            start_ms,
            value: value.to_value(),
        };
        let before = late_bytes(&self.late);
        self.late.insert(at, sample);
        tally.replace_bytes(before, late_bytes(&self.late));
        tally.samples += 1;
        if self.late.len() >= LATE_MAX {
            self.fold(tally);
        }
        Ok(())
    }

    /// Whether a chunk has a sample at `t_ms` and, if so, whether its value is this one.
    fn same_in_chunks(&self, t_ms: i64, value: Incoming<'_>) -> Option<bool> {
        if let Some(same) = self.open.last_is(t_ms, value) {
            return Some(same);
        }
        let in_open = self
            .open
            .range_ms()
            .is_some_and(|(first, last)| (first..=last).contains(&t_ms));
        let open = if in_open { self.open.to_chunk() } else { None };
        let chunk = match &open {
            Some(chunk) => chunk,
            None => self
                .chunks
                .get(self.chunks.partition_point(|chunk| chunk.max_ms < t_ms))?,
        };
        if !chunk.overlaps(t_ms, t_ms) {
            return None;
        }
        chunk
            .iter()
            .take_while(|sample| sample.t_ms <= t_ms)
            .find(|sample| sample.t_ms == t_ms)
            .map(|sample| value.is(&sample.value))
    }

    /// Folds the late samples into the chunks that they fall into or between; says how many
    /// there were.
    pub(crate) fn fold(&mut self, tally: &mut Tally) -> usize {
        let late = std::mem::take(&mut self.late);
        let (Some(first), Some(last)) = (late.first(), late.last()) else {
            return 0;
        };
        let (first_ms, last_ms, folded) = (first.t_ms, last.t_ms, late.len());
        tally.replace_bytes(late_bytes(&late), 0);
        let from = self.chunks.partition_point(|chunk| chunk.max_ms < first_ms);
        let to = self.chunks.partition_point(|chunk| chunk.min_ms <= last_ms);
        let reaches_open = self
            .open
            .range_ms()
            .is_some_and(|(open_ms, _)| open_ms <= last_ms);

        let mut old: Vec<Chunk> = self.chunks.drain(from..to.max(from)).collect();
        for chunk in &old {
            tally.replace_bytes(chunk.memory_bytes(), 0);
        }
        if reaches_open {
            tally.replace_bytes(self.open.heap_bytes(), 0);
            old.extend(self.open.to_chunk());
            self.open = OpenChunk::None;
        }
        let samples = merge(old.iter().flat_map(Chunk::iter), late.into_iter());
        let (mut new, tail) = encode(samples);
        if reaches_open {
            tally.replace_bytes(0, tail.heap_bytes());
            self.open = tail;
        } else {
            new.extend(tail.to_chunk());
        }
        for chunk in &new {
            tally.replace_bytes(0, chunk.memory_bytes());
        }
        self.chunks.splice(from..from, new);
        self.chunks.shrink_to_fit();
        folded
    }

    /// Finishes the open chunk if nothing was appended since `before_ms`; says whether it did.
    pub(crate) fn finish_idle(&mut self, before_ms: i64, tally: &mut Tally) -> bool {
        match self.open.range_ms() {
            Some((_, last_ms)) if last_ms < before_ms => {
                tally.replace_bytes(self.open.heap_bytes(), 0);
                self.finish_open(tally);
                true
            }
            _ => false,
        }
    }

    /// Drops the chunks that end before `floor_ms`, and late samples before it; says how
    /// many samples went.
    pub(crate) fn expire(&mut self, floor_ms: i64, tally: &mut Tally) -> u64 {
        let mut expired = 0;
        let dead = self.chunks.partition_point(|chunk| chunk.max_ms < floor_ms);
        for chunk in self.chunks.drain(..dead) {
            tally.replace_bytes(chunk.memory_bytes(), 0);
            expired += u64::from(chunk.count);
        }
        if self
            .open
            .range_ms()
            .is_some_and(|(_, last)| last < floor_ms)
        {
            tally.replace_bytes(self.open.heap_bytes(), 0);
            expired += u64::from(self.open.count());
            self.open = OpenChunk::None;
        }
        let dead = self.late.partition_point(|sample| sample.t_ms < floor_ms);
        if dead > 0 {
            let before = late_bytes(&self.late);
            self.late.drain(..dead);
            tally.replace_bytes(before, late_bytes(&self.late));
            expired += dead as u64;
        }
        tally.samples = tally.samples.saturating_sub(expired);
        expired
    }

    /// Whether the series holds no samples.
    #[inline]
    pub(crate) fn has_no_samples(&self) -> bool {
        matches!(self.open, OpenChunk::None) && self.chunks.is_empty() && self.late.is_empty()
    }

    /// Whether the series may go: it has no samples and was not used since `before_ms`.
    pub(crate) fn is_dead(&self, before_ms: i64) -> bool {
        self.has_no_samples() && self.touched_ms.load(Ordering::Relaxed) < before_ms
    }

    /// Calls `each` with the last time and the bytes of every chunk.
    pub(crate) fn chunk_ages(&self, mut each: impl FnMut(i64, usize)) {
        for chunk in &self.chunks {
            each(chunk.max_ms, chunk.memory_bytes());
        }
        if let Some((_, last_ms)) = self.open.range_ms() {
            each(last_ms, self.open.heap_bytes());
        }
    }

    /// The oldest sample's time.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        let chunk = self.chunks.first().map(|chunk| chunk.min_ms);
        let open = self.open.range_ms().map(|(first, _)| first);
        let late = self.late.first().map(|sample| sample.t_ms);
        [chunk, open, late].into_iter().flatten().min()
    }

    /// Whether a chunk or late sample touches the closed range.
    pub(crate) fn overlaps(&self, start_ms: i64, end_ms: i64) -> bool {
        if start_ms > end_ms {
            return false;
        }
        self.open
            .range_ms()
            .is_some_and(|(first, last)| first <= end_ms && last >= start_ms)
            || self
                .chunks
                .iter()
                .rev()
                .any(|chunk| chunk.overlaps(start_ms, end_ms))
            || !self.late_within(start_ms, end_ms).is_empty()
    }

    fn late_within(&self, start_ms: i64, end_ms: i64) -> &[Sample] {
        let from = self.late.partition_point(|sample| sample.t_ms < start_ms);
        let to = self.late.partition_point(|sample| sample.t_ms <= end_ms);
        self.late.get(from..to).unwrap_or_default()
    }

    /// What a reader of the closed range needs; `None` if nothing touches it.
    pub(crate) fn snapshot(&self, start_ms: i64, end_ms: i64) -> Option<Snapshot> {
        if !self.overlaps(start_ms, end_ms) {
            return None;
        }
        let from = self.chunks.partition_point(|chunk| chunk.max_ms < start_ms);
        let to = self.chunks.partition_point(|chunk| chunk.min_ms <= end_ms);
        let mut chunks = Vec::with_capacity(to.saturating_sub(from) + 1);
        chunks.extend_from_slice(self.chunks.get(from..to).unwrap_or_default());
        if let Some((first, last)) = self.open.range_ms()
            && first <= end_ms
            && last >= start_ms
        {
            chunks.extend(self.open.to_chunk());
        }
        Some(Snapshot {
            chunks,
            late: self.late_within(start_ms, end_ms).to_vec(),
        })
    }
}

impl Snapshot {
    /// About how many samples are in the closed range.
    pub(crate) fn count_within(&self, start_ms: i64, end_ms: i64) -> usize {
        let within = self.chunks.iter().map(|c| c.count_within(start_ms, end_ms));
        within.sum::<usize>() + self.late.len()
    }

    /// Gives the samples in the closed range to `out`, ascending; says how many.
    pub(crate) fn read<S: SampleSink>(&self, start_ms: i64, end_ms: i64, out: &mut S) -> usize {
        if self.late.is_empty() {
            let chunks = self.chunks.iter();
            return chunks.map(|chunk| chunk.read(start_ms, end_ms, out)).sum();
        }
        let mut samples = self.late.clone();
        for chunk in &self.chunks {
            chunk.read(start_ms, end_ms, &mut samples);
        }
        // Two ascending runs, which is what this sort is best at.
        samples.sort_by_key(|sample| sample.t_ms);
        let count = samples.len();
        samples.into_iter().for_each(|sample| out.sample(sample));
        count
    }
}

fn late_bytes(late: &[Sample]) -> usize {
    size_of_val(late)
}

/// Codes samples into finished chunks and a last, open one.
fn encode(samples: impl Iterator<Item = Sample>) -> (Vec<Chunk>, OpenChunk) {
    let (mut chunks, mut open) = (Vec::new(), OpenChunk::None);
    for sample in samples {
        let value = Incoming::from(&sample.value);
        if !open.push(sample.t_ms, sample.start_ms, value) {
            chunks.extend(open.to_chunk());
            open = OpenChunk::start(sample.t_ms, sample.start_ms, value);
        }
    }
    (chunks, open)
}

/// Merges two ascending sequences that share no time.
fn merge<A, B>(a: A, b: B) -> impl Iterator<Item = Sample>
where
    A: Iterator<Item = Sample>,
    B: Iterator<Item = Sample>,
{
    let (mut a, mut b) = (a, b.peekable());
    let mut waiting: Option<Sample> = None;
    std::iter::from_fn(move || {
        if b.peek().is_none() {
            // The common case: nothing is late.
            return waiting.take().or_else(|| a.next());
        }
        if waiting.is_none() {
            waiting = a.next();
        }
        match (&waiting, b.peek()) {
            (Some(x), Some(y)) if x.t_ms <= y.t_ms => waiting.take(),
            (_, Some(_)) => b.next(),
            (_, None) => waiting.take(),
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: i64 = 10_000;

    #[derive(Clone, Debug)]
    enum Step {
        Append(i64, f64),
        Fold,
        Finish(i64),
        Expire(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let value = prop_oneof![4 => (0u8..9).prop_map(f64::from), 1 => Just(0.5)];
        let step = prop_oneof![
            60 => (-12_000i64..12_000, value).prop_map(|(ahead, v)| Step::Append(ahead, v)),
            60 => (1i64..200, Just(1.0)).prop_map(|(ahead, v)| Step::Append(ahead, v)),
            2 => Just(Step::Fold),
            2 => (-5_000i64..5_000).prop_map(Step::Finish),
            1 => (-20_000i64..-1_000).prop_map(Step::Expire),
        ];
        prop::collection::vec(step, 1..600)
    }

    fn assert_invariants(series: &MemSeries, tally: Tally) {
        for pair in series.chunks.windows(2) {
            assert!(pair[0].max_ms < pair[1].min_ms, "I-SERIES-1");
        }
        let open = series.open.range_ms();
        if let (Some(chunk), Some((first, _))) = (series.chunks.last(), open) {
            assert!(chunk.max_ms < first, "I-SERIES-2");
        }
        let times: Vec<i64> = series
            .chunks
            .iter()
            .flat_map(|c| c.iter())
            .map(|s| s.t_ms)
            .collect();
        for pair in series.late.windows(2) {
            assert!(pair[0].t_ms < pair[1].t_ms, "I-SERIES-3");
        }
        for late in &series.late {
            assert!(times.binary_search(&late.t_ms).is_err(), "I-SERIES-3");
            assert_eq!(
                series.open.last_is(late.t_ms, Incoming::Float(0.0)),
                None,
                "I-SERIES-3"
            );
        }
        let newest = open.map(|(_, last)| last).max(times.last().copied());
        assert!(
            newest.is_none_or(|newest| newest <= series.newest_ms),
            "I-SERIES-4"
        );

        let chunks: usize = series.chunks.iter().map(Chunk::memory_bytes).sum();
        let bytes = chunks + series.open.heap_bytes() + late_bytes(&series.late);
        assert_eq!(tally.bytes, bytes);
        let samples = times.len() + usize::from(series.open.count()) + series.late.len();
        assert_eq!(tally.samples, samples as u64);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn invariants_hold_whatever_happens(steps in steps()) {
            let mut series = MemSeries::new(Box::default(), 0);
            let mut tally = Tally::default();
            let mut newest = 1_000_000;
            for step in steps {
                match step {
                    Step::Append(ahead, value) => {
                        let value = Incoming::Float(value);
                        let t_ms = newest + ahead;
                        let entered = series.append(t_ms, 0, value, WINDOW, &mut tally);
                        if entered.is_ok() {
                            newest = newest.max(t_ms);
                        }
                    }
                    Step::Fold => {
                        series.fold(&mut tally);
                        prop_assert!(series.late.is_empty());
                    }
                    Step::Finish(ahead) => {
                        series.finish_idle(newest + ahead, &mut tally);
                    }
                    Step::Expire(ahead) => {
                        series.expire(newest + ahead, &mut tally);
                    }
                }
                assert_invariants(&series, tally);
            }
            series.expire(i64::MAX, &mut tally);
            prop_assert!(series.has_no_samples());
            prop_assert_eq!((tally.bytes, tally.samples), (0, 0));
        }
    }

    /// A series that keeps getting late samples must not fall apart into tiny chunks.
    #[test]
    fn folding_again_and_again_keeps_chunks_full() {
        let mut series = MemSeries::new(Box::default(), 0);
        let mut tally = Tally::default();
        for n in 0..3_000i64 {
            let one = Incoming::Float(1.0);
            series
                .append(n * 1_000, 0, one, WINDOW, &mut tally)
                .unwrap();
            if n % 10 == 9 {
                series
                    .append(n * 1_000 - 4_500, 0, one, WINDOW, &mut tally)
                    .unwrap();
                assert_eq!(series.fold(&mut tally), 1);
            }
        }
        assert_eq!(tally.samples, 3_300);
        assert!(
            series.chunks.len() <= 2 * 3_300 / 120,
            "{}",
            series.chunks.len()
        );
    }
}
