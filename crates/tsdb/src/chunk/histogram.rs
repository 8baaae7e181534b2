//! Chunks of native histograms.
//!
//! Each sample is coded as its difference from the one before; the first from an empty
//! histogram. A sample consists of
//!
//! 1. its times;
//! 2. one bit: does the scheme (schema, zero threshold, custom bounds) differ? If so it
//!    follows, and the differences below are from an empty histogram;
//! 3. one bit: does the reset hint differ? If so, two bits of hint;
//! 4. one bit: does the list of bucket indexes differ? If so it follows. A bucket that is
//!    new differs from 0, so a histogram may grow buckets inside a chunk at little cost;
//! 5. one bit: are all counts, here and in the sample before, whole numbers? If so each
//!    count is a signed difference in a prefix code, else it is the XOR of the bits;
//! 6. the sum, XORed as in float chunks.
//!
//! What a query or a rate says about resets is not the codec's business: hints come back as
//! they were given.

use std::sync::Arc;

use slogate_series::{Buckets, Histogram, ResetHint};

use super::bits::{BitReader, BitWriter};
use super::float::{Xor, as_whole};
use super::rice::{get_full, put_full};
use super::time::Times;
use super::{Chunk, Codec};

/// The most buckets of one sign, or custom bounds, that a histogram may have.
pub(crate) const BUCKETS_MAX: usize = 10_000;

/// Whether a histogram is within the limits that the codec and the log rely on.
pub(crate) fn is_acceptable(histogram: &Histogram) -> bool {
    let ascending = |buckets: &Buckets| {
        buckets
            .as_slice()
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0)
    };
    histogram.positive.len() <= BUCKETS_MAX
        && histogram.negative.len() <= BUCKETS_MAX
        && histogram.custom_bounds.len() <= BUCKETS_MAX
        && ascending(&histogram.positive)
        && ascending(&histogram.negative)
}

/// Whether all counts of a histogram are whole numbers.
pub(crate) fn is_whole(histogram: &Histogram) -> bool {
    let whole = |count: f64| as_whole(count).is_some();
    whole(histogram.count)
        && whole(histogram.zero_count)
        && histogram.positive.iter().all(|(_, count)| whole(count))
        && histogram.negative.iter().all(|(_, count)| whole(count))
}

fn hint_code(hint: ResetHint) -> u64 {
    match hint {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    }
}

fn hint_from(code: u64) -> ResetHint {
    match code {
        1 => ResetHint::Reset,
        2 => ResetHint::NotReset,
        3 => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    }
}

fn same_scheme(a: &Histogram, b: &Histogram) -> bool {
    a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && (Arc::ptr_eq(&a.custom_bounds, &b.custom_bounds)
            || (a.custom_bounds.len() == b.custom_bounds.len()
                && a.custom_bounds
                    .iter()
                    .zip(b.custom_bounds.iter())
                    .all(|(x, y)| x.to_bits() == y.to_bits())))
}

fn same_indexes(a: &Buckets, b: &Buckets) -> bool {
    a.len() == b.len() && a.iter().zip(b.iter()).all(|((i, _), (j, _))| i == j)
}

/// The counts in `base` at the ascending `indexes`, 0 where it has no such bucket.
fn counts_at<'a>(
    base: &'a [(i32, f64)],
    indexes: impl Iterator<Item = i32> + 'a,
) -> impl Iterator<Item = f64> + 'a {
    let mut rest = base;
    indexes.map(move |index| {
        while let Some(((at, count), after)) = rest.split_first() {
            if *at > index {
                break;
            }
            rest = after;
            if *at == index {
                return *count;
            }
        }
        0.0
    })
}

#[inline]
fn put_count(out: &mut BitWriter, whole: bool, count: f64, before: f64) {
    if whole {
        // Both are whole numbers up to 2^53, so the difference is exact.
        out.put_signed(count as i64 - before as i64);
    } else {
        let xor = count.to_bits() ^ before.to_bits();
        out.put_bit(xor != 0);
        if xor != 0 {
            out.put(xor, 64);
        }
    }
}

#[inline]
fn get_count(input: &mut BitReader<'_>, whole: bool, before: f64) -> Option<f64> {
    if whole {
        return Some((before as i64).wrapping_add(input.get_signed()?) as f64);
    }
    let xor = if input.get_bit()? { input.get(64)? } else { 0 };
    Some(f64::from_bits(before.to_bits() ^ xor))
}

/// An unfinished chunk of histograms.
#[derive(Clone, Debug)]
pub(crate) struct HistogramEncoder {
    out: BitWriter,
    times: Times,
    sum: Xor,
    last: Arc<Histogram>,
    last_is_whole: bool,
    first_ms: i64,
    count: u16,
}

impl HistogramEncoder {
    /// A chunk that begins with one sample.
    pub(crate) fn new(t_ms: i64, start_ms: i64, histogram: &Arc<Histogram>) -> Self {
        let mut encoder = HistogramEncoder {
            out: BitWriter::default(),
            times: Times::default(),
            sum: Xor::default(),
            last: Arc::default(),
            last_is_whole: true,
            first_ms: t_ms,
            count: 0,
        };
        encoder.push(t_ms, start_ms, histogram);
        encoder
    }

    /// Appends a sample later than the last one.
    pub(crate) fn push(&mut self, t_ms: i64, start_ms: i64, histogram: &Arc<Histogram>) {
        let out = &mut self.out;
        self.times.put(out, t_ms, start_ms);

        let same = same_scheme(histogram, &self.last);
        out.put_bit(!same);
        if !same {
            put_scheme(out, histogram);
        }
        let hint_differs = histogram.reset_hint != self.last.reset_hint;
        out.put_bit(hint_differs);
        if hint_differs {
            out.put(hint_code(histogram.reset_hint), 2);
        }
        let empty = Histogram::default();
        let base = if same { &*self.last } else { &empty };
        let same_layout = same_indexes(&histogram.positive, &base.positive)
            && same_indexes(&histogram.negative, &base.negative);
        out.put_bit(!same_layout);
        if !same_layout {
            put_indexes(out, &histogram.positive);
            put_indexes(out, &histogram.negative);
        }
        let is_whole = is_whole(histogram);
        let whole = is_whole && (self.last_is_whole || !same);
        out.put_bit(whole);
        put_count(out, whole, histogram.count, base.count);
        put_count(out, whole, histogram.zero_count, base.zero_count);
        put_buckets(out, whole, &histogram.positive, &base.positive);
        put_buckets(out, whole, &histogram.negative, &base.negative);
        self.sum.put(out, histogram.sum.to_bits());

        self.last = Arc::clone(histogram);
        self.last_is_whole = is_whole;
        self.count += 1;
    }

    /// The number of samples.
    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// The first sample's time.
    pub(crate) fn first_ms(&self) -> i64 {
        self.first_ms
    }

    /// The last sample's time and value.
    pub(crate) fn last(&self) -> (i64, &Arc<Histogram>) {
        (self.times.t_ms, &self.last)
    }

    /// Bytes that the coded samples take.
    pub(crate) fn coded_bytes(&self) -> usize {
        self.out.len_bytes()
    }

    /// Bytes of heap held, the last sample included.
    pub(crate) fn heap_bytes(&self) -> usize {
        let buckets = self.last.positive.len() + self.last.negative.len();
        self.out.heap_bytes()
            + size_of::<HistogramEncoder>()
            + size_of::<Histogram>()
            + buckets * size_of::<(i32, f64)>()
    }

    /// The samples so far as a finished chunk.
    pub(crate) fn to_chunk(&self) -> Chunk {
        Chunk {
            min_ms: self.first_ms,
            max_ms: self.times.t_ms,
            count: self.count,
            codec: Codec::Histogram,
            bytes: self.out.to_bytes().into(),
        }
    }
}

fn put_scheme(out: &mut BitWriter, histogram: &Histogram) {
    out.put_signed(i64::from(histogram.schema));
    out.put(histogram.zero_threshold.to_bits(), 64);
    put_full(out, histogram.custom_bounds.len() as i64);
    for bound in histogram.custom_bounds.iter() {
        out.put(bound.to_bits(), 64);
    }
}

fn put_indexes(out: &mut BitWriter, buckets: &Buckets) {
    put_full(out, buckets.len() as i64);
    let mut before = 0i64;
    for (index, _) in buckets.iter() {
        // Neighbouring buckets are the rule; they cost one bit.
        out.put_signed(i64::from(index) - before);
        before = i64::from(index) + 1;
    }
}

fn put_buckets(out: &mut BitWriter, whole: bool, buckets: &Buckets, base: &Buckets) {
    let indexes = buckets.iter().map(|(index, _)| index);
    let before = counts_at(base.as_slice(), indexes);
    for ((_, count), before) in buckets.iter().zip(before) {
        put_count(out, whole, count, before);
    }
}

/// Reads a chunk of histograms: `(t_ms, start_ms, histogram)`, ascending.
#[derive(Clone, Debug)]
pub(crate) struct HistogramDecoder<'a> {
    input: BitReader<'a>,
    times: Times,
    sum: Xor,
    last: Arc<Histogram>,
    left: u16,
}

impl<'a> HistogramDecoder<'a> {
    pub(crate) fn new(bytes: &'a [u8], count: u16) -> Self {
        HistogramDecoder {
            input: BitReader::new(bytes),
            times: Times::default(),
            sum: Xor::default(),
            last: Arc::default(),
            left: count,
        }
    }

    fn read(&mut self) -> Option<Histogram> {
        let input = &mut self.input;
        self.times.get(input)?;
        let mut histogram = Histogram {
            schema: self.last.schema,
            reset_hint: self.last.reset_hint,
            zero_threshold: self.last.zero_threshold,
            custom_bounds: Arc::clone(&self.last.custom_bounds),
            ..Histogram::default()
        };
        let empty = Histogram::default();
        let mut base = &*self.last;
        if input.get_bit()? {
            get_scheme(input, &mut histogram)?;
            base = &empty;
        }
        if input.get_bit()? {
            histogram.reset_hint = hint_from(input.get(2)?);
        }
        let indexes = match input.get_bit()? {
            true => Some((get_indexes(input)?, get_indexes(input)?)),
            false => None,
        };
        let whole = input.get_bit()?;
        histogram.count = get_count(input, whole, base.count)?;
        histogram.zero_count = get_count(input, whole, base.zero_count)?;
        match indexes {
            Some((positive, negative)) => {
                histogram.positive = get_buckets(input, whole, &positive, &base.positive)?;
                histogram.negative = get_buckets(input, whole, &negative, &base.negative)?;
            }
            None => {
                histogram.positive = get_same_buckets(input, whole, &base.positive)?;
                histogram.negative = get_same_buckets(input, whole, &base.negative)?;
            }
        }
        histogram.sum = f64::from_bits(self.sum.get(input)?);
        Some(histogram)
    }
}

fn get_length(input: &mut BitReader<'_>) -> Option<usize> {
    let length = usize::try_from(get_full(input)?).ok()?;
    (length <= BUCKETS_MAX).then_some(length)
}

fn get_scheme(input: &mut BitReader<'_>, histogram: &mut Histogram) -> Option<()> {
    histogram.schema = i8::try_from(input.get_signed()?).ok()?;
    histogram.zero_threshold = f64::from_bits(input.get(64)?);
    let bounds = get_length(input)?;
    histogram.custom_bounds = (0..bounds)
        .map(|_| input.get(64).map(f64::from_bits))
        .collect::<Option<_>>()?;
    Some(())
}

fn get_indexes(input: &mut BitReader<'_>) -> Option<Vec<i32>> {
    let mut before = 0i64;
    (0..get_length(input)?)
        .map(|at| {
            let step = input.get_signed()?;
            if at > 0 && step < 0 {
                return None;
            }
            let index = before.checked_add(step)?;
            before = index.checked_add(1)?;
            i32::try_from(index).ok()
        })
        .collect()
}

fn get_buckets(
    input: &mut BitReader<'_>,
    whole: bool,
    indexes: &[i32],
    base: &Buckets,
) -> Option<Buckets> {
    let before = counts_at(base.as_slice(), indexes.iter().copied());
    let buckets: Option<Vec<_>> = indexes
        .iter()
        .zip(before)
        .map(|(index, before)| Some((*index, get_count(input, whole, before)?)))
        .collect();
    buckets.map(Buckets::from_sorted)
}

fn get_same_buckets(input: &mut BitReader<'_>, whole: bool, base: &Buckets) -> Option<Buckets> {
    let mut buckets = Vec::with_capacity(base.len());
    for (index, before) in base.iter() {
        buckets.push((index, get_count(input, whole, before)?));
    }
    Some(Buckets::from_sorted(buckets))
}

impl Iterator for HistogramDecoder<'_> {
    type Item = (i64, i64, Arc<Histogram>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let histogram = Arc::new(self.read()?);
        self.last = Arc::clone(&histogram);
        Some((self.times.t_ms, self.times.start_ms, histogram))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slogate_series::histogram::CUSTOM_SCHEMA;

    use super::*;
    use crate::testing::{histograms, request_histogram};

    fn assert_round_trip(samples: &[(i64, i64, Arc<Histogram>)]) -> Chunk {
        let (first, rest) = samples.split_first().unwrap();
        let mut encoder = HistogramEncoder::new(first.0, first.1, &first.2);
        for (t_ms, start_ms, histogram) in rest {
            encoder.push(*t_ms, *start_ms, histogram);
        }
        let chunk = encoder.to_chunk();
        let decoded: Vec<_> = HistogramDecoder::new(&chunk.bytes, chunk.count).collect();
        assert_eq!(decoded, samples);
        chunk
    }

    proptest! {
        #[test]
        fn any_histograms_come_back(
            samples in prop::collection::vec((any::<i64>(), 0i64..3, histograms()), 1..40)) {
            assert_round_trip(&samples);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let decoded = HistogramDecoder::new(&bytes, 100).count();
            prop_assert!(decoded <= 100);
        }
    }

    #[test]
    fn staleness_resets_and_layout_changes_share_a_chunk() {
        let a = Arc::new(request_histogram(100, 1));
        let b = Arc::new(request_histogram(50, 2));
        let stale = Arc::new(Histogram::stale());
        let custom = Arc::new(Histogram {
            schema: CUSTOM_SCHEMA,
            custom_bounds: Arc::from([0.1, 1.0, 10.0]),
            positive: Buckets::from_sorted(vec![(0, 1.5), (3, f64::NAN.copysign(1.0))]),
            ..Histogram::default()
        });
        let custom_equal = Arc::new(Histogram {
            positive: Buckets::from_sorted(vec![(0, 1.5), (3, 2.5)]),
            ..(*custom).clone()
        });
        assert_round_trip(&[
            (1, 0, Arc::clone(&a)),
            (2, 0, stale),
            (3, 3, b),
            (4, 3, custom_equal),
            (5, 3, a),
        ]);
    }

    #[test]
    fn a_growing_histogram_is_small() {
        let samples: Vec<_> = (0..120u32)
            .map(|i| {
                let h = request_histogram(u64::from(i) * 40, 3);
                (i64::from(i) * 5_000, 1, Arc::new(h))
            })
            .collect();
        let chunk = assert_round_trip(&samples);
        let per_sample = chunk.bytes.len() / samples.len();
        assert!(per_sample < 60, "{per_sample} bytes per sample");
    }
}
