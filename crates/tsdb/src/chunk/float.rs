//! Chunks of float samples.
//!
//! A chunk holds whole numbers in the adaptive code for as long as every value is one
//! (counters, most gauges), and any other floats as the XOR with the value before, as in
//! Pelkonen et al., "Gorilla", VLDB 2015, section 4.1.2. The first value that is not a
//! whole number turns the chunk into the second kind by coding it again, once.
//!
//! Every bit pattern comes back: `-0.0` and NaNs are not whole numbers. The staleness
//! marker is the exception that whole-number chunks know, since it ends every series.

use slogate_series::STALE_NAN_BITS;

use super::bits::{BitReader, BitWriter};
use super::rice::{Code, Rice, get_full, put_full};
use super::time::Times;
use super::{Chunk, Codec};

/// Whole numbers up to here are exact in a float.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// The value as a whole number, where it is one and converts back to the same bits.
#[inline]
pub(crate) fn as_whole(value: f64) -> Option<i64> {
    if !(-WHOLE_MAX..=WHOLE_MAX).contains(&value) {
        return None;
    }
    let whole = value as i64;
    ((whole as f64).to_bits() == value.to_bits()).then_some(whole)
}

/// The state of the XOR code.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Xor {
    bits: u64,
    leading: u8,
    /// Width of the window of meaningful bits; 0 before there is one.
    width: u8,
}

impl Xor {
    #[inline]
    pub(crate) fn put(&mut self, out: &mut BitWriter, bits: u64) {
        let xor = bits ^ self.bits;
        self.bits = bits;
        if xor == 0 {
            out.put_bit(false);
            return;
        }
        let leading = xor.leading_zeros().min(31);
        let trailing = xor.trailing_zeros();
        let (old_leading, width) = (u32::from(self.leading), u32::from(self.width));
        if width > 0 && leading >= old_leading && trailing >= 64 - old_leading - width {
            out.put(0b10, 2);
            out.put(xor >> (64 - old_leading - width), width);
            return;
        }
        let width = 64 - leading - trailing;
        out.put(0b11, 2);
        out.put(u64::from(leading), 5);
        out.put(u64::from(width - 1), 6);
        out.put(xor >> trailing, width);
        (self.leading, self.width) = (leading as u8, width as u8);
    }

    #[inline]
    pub(crate) fn get(&mut self, input: &mut BitReader<'_>) -> Option<u64> {
        if !input.get_bit()? {
            return Some(self.bits);
        }
        if input.get_bit()? {
            self.leading = input.get(5)? as u8;
            self.width = input.get(6)? as u8 + 1;
        }
        let (leading, width) = (u32::from(self.leading), u32::from(self.width));
        let trailing = 64u32.checked_sub(leading + width)?;
        if width == 0 {
            return None;
        }
        self.bits ^= input.get(width)? << trailing;
        Some(self.bits)
    }
}

/// The state of the whole-number code.
#[derive(Clone, Copy, Debug, Default)]
struct Whole {
    value: i64,
    changes: Rice,
    /// Whether `value` has been written, and is not just where counting begins.
    begun: bool,
}

impl Whole {
    #[inline]
    fn put(&mut self, out: &mut BitWriter, value: i64) {
        if self.begun {
            self.changes.put(out, value.wrapping_sub(self.value));
        } else {
            out.put_bit(false);
            put_full(out, value);
            self.begun = true;
        }
        self.value = value;
    }

    fn put_stale(&mut self, out: &mut BitWriter) {
        if self.begun {
            self.changes.put_mark(out);
        } else {
            out.put_bit(true);
        }
    }

    #[inline]
    fn get(&mut self, input: &mut BitReader<'_>) -> Option<f64> {
        if !self.begun {
            if input.get_bit()? {
                return Some(f64::from_bits(STALE_NAN_BITS));
            }
            self.value = get_full(input)?;
            self.begun = true;
            return Some(self.value as f64);
        }
        match self.changes.get(input)? {
            Code::Mark => Some(f64::from_bits(STALE_NAN_BITS)),
            Code::Change(change) => {
                self.value = self.value.wrapping_add(change);
                Some(self.value as f64)
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Values {
    Whole(Whole),
    Xor(Xor),
}

/// An unfinished chunk of floats.
#[derive(Clone, Debug)]
pub(crate) struct FloatEncoder {
    out: BitWriter,
    times: Times,
    values: Values,
    first_ms: i64,
    last: f64,
    count: u16,
}

impl FloatEncoder {
    /// A chunk that begins with one sample.
    pub(crate) fn new(t_ms: i64, start_ms: i64, value: f64) -> Self {
        let mut encoder = FloatEncoder::empty(t_ms);
        encoder.push(t_ms, start_ms, value);
        encoder
    }

    fn empty(first_ms: i64) -> Self {
        FloatEncoder {
            out: BitWriter::default(),
            times: Times::default(),
            values: Values::Whole(Whole::default()),
            first_ms,
            last: 0.0,
            count: 0,
        }
    }

    /// Appends a sample later than the last one.
    #[inline]
    pub(crate) fn push(&mut self, t_ms: i64, start_ms: i64, value: f64) {
        if let Values::Whole(whole) = &mut self.values {
            if let Some(number) = as_whole(value) {
                self.times.put(&mut self.out, t_ms, start_ms);
                whole.put(&mut self.out, number);
            } else if value.to_bits() == STALE_NAN_BITS {
                self.times.put(&mut self.out, t_ms, start_ms);
                whole.put_stale(&mut self.out);
            } else {
                self.turn_to_xor();
            }
        }
        if let Values::Xor(xor) = &mut self.values {
            self.times.put(&mut self.out, t_ms, start_ms);
            xor.put(&mut self.out, value.to_bits());
        }
        self.last = value;
        self.count += 1;
    }

    /// Codes the samples so far again as XORed floats.
    #[cold]
    fn turn_to_xor(&mut self) {
        let bytes = self.out.to_bytes();
        let samples = FloatDecoder::new(&bytes, Codec::Whole, self.count);
        let mut out = BitWriter::default();
        let (mut times, mut xor) = (Times::default(), Xor::default());
        for (t_ms, start_ms, value) in samples {
            times.put(&mut out, t_ms, start_ms);
            xor.put(&mut out, value.to_bits());
        }
        self.out = out;
        self.times = times;
        self.values = Values::Xor(xor);
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
    pub(crate) fn last(&self) -> (i64, f64) {
        (self.times.t_ms, self.last)
    }

    /// Bytes of heap held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.out.heap_bytes()
    }

    /// The samples so far as a finished chunk.
    pub(crate) fn to_chunk(&self) -> Chunk {
        let codec = match self.values {
            Values::Whole(_) => Codec::Whole,
            Values::Xor(_) => Codec::Xor,
        };
        Chunk {
            min_ms: self.first_ms,
            max_ms: self.times.t_ms,
            count: self.count,
            codec,
            bytes: self.out.to_bytes().into(),
        }
    }
}

/// Reads a chunk of floats: `(t_ms, start_ms, value)`, ascending.
#[derive(Clone, Debug)]
pub(crate) struct FloatDecoder<'a> {
    input: BitReader<'a>,
    times: Times,
    values: Values,
    left: u16,
}

impl<'a> FloatDecoder<'a> {
    pub(crate) fn new(bytes: &'a [u8], codec: Codec, count: u16) -> Self {
        FloatDecoder {
            input: BitReader::new(bytes),
            times: Times::default(),
            values: match codec {
                Codec::Whole => Values::Whole(Whole::default()),
                Codec::Xor | Codec::Histogram => Values::Xor(Xor::default()),
            },
            left: count,
        }
    }
}

impl Iterator for FloatDecoder<'_> {
    type Item = (i64, i64, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.times.get(&mut self.input)?;
        let value = match &mut self.values {
            Values::Whole(whole) => whole.get(&mut self.input)?,
            Values::Xor(xor) => f64::from_bits(xor.get(&mut self.input)?),
        };
        Some((self.times.t_ms, self.times.start_ms, value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slogate_series::stale_nan;

    use super::*;

    fn encode(samples: &[(i64, i64, f64)]) -> Chunk {
        let mut encoder = FloatEncoder::empty(samples.first().map_or(0, |s| s.0));
        for (t_ms, start_ms, value) in samples {
            encoder.push(*t_ms, *start_ms, *value);
        }
        encoder.to_chunk()
    }

    fn assert_round_trip(samples: &[(i64, i64, f64)]) -> Chunk {
        let chunk = encode(samples);
        let bits = |(t, s, v): &(i64, i64, f64)| (*t, *s, v.to_bits());
        let decoded: Vec<_> = FloatDecoder::new(&chunk.bytes, chunk.codec, chunk.count)
            .map(|sample| bits(&sample))
            .collect();
        assert_eq!(decoded, samples.iter().map(bits).collect::<Vec<_>>());
        chunk
    }

    fn values() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (-1_000i64..1_000_000).prop_map(|v| v as f64),
            2 => any::<u64>().prop_map(f64::from_bits),
            1 => Just(stale_nan()),
            1 => prop::sample::select(vec![-0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN,
                f64::MIN_POSITIVE, 9_007_199_254_740_992.0, -9_007_199_254_740_993.0, 1e300]),
        ]
    }

    proptest! {
        #[test]
        fn any_floats_come_back_bit_for_bit(
            samples in prop::collection::vec((any::<i64>(), 0i64..3, values()), 1..130)) {
            assert_round_trip(&samples);
        }

        #[test]
        fn counters_with_resets_and_jitter_come_back(
            steps in prop::collection::vec((1i64..40, 0u32..500, prop::bool::weighted(0.02)), 1..130)) {
            let (mut t, mut total, mut start) = (1_700_000_000_000, 0u32, 5);
            let samples: Vec<_> = steps.iter().map(|(jitter, add, reset)| {
                t += 15_000 + jitter;
                total = if *reset { start = t; 0 } else { total + add };
                (t, start, f64::from(total))
            }).collect();
            let chunk = assert_round_trip(&samples);
            prop_assert_eq!(chunk.codec, Codec::Whole);
        }
    }

    #[test]
    fn whole_numbers_and_staleness_stay_in_the_short_code() {
        let chunk = assert_round_trip(&[(1, 0, 5.0), (2, 0, stale_nan()), (3, 0, 6.0)]);
        assert_eq!(chunk.codec, Codec::Whole);
        let chunk = assert_round_trip(&[(1, 0, stale_nan()), (2, 0, 1.0), (3, 0, -0.0)]);
        assert_eq!(chunk.codec, Codec::Xor);
    }

    #[test]
    fn a_steady_counter_is_small() {
        let samples: Vec<_> = (0..120u32)
            .map(|i| {
                (
                    i64::from(i) * 15_000,
                    7,
                    f64::from(i * 200 + (i * 7919) % 31),
                )
            })
            .collect();
        let chunk = assert_round_trip(&samples);
        assert!(chunk.bytes.len() < 140, "{} bytes", chunk.bytes.len());
    }
}
