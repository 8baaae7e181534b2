//! Bit streams: what the chunk codecs write into and read from.
//!
//! Bits are written from the most significant end. The last up to 63 bits of an unfinished
//! stream wait in a register, so that an append touches memory once in eight bytes.
//! A reader that runs out answers `None` and stays there; it never panics.

/// A growing bit stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits not yet in `bytes`, aligned to the top.
    register: u64,
    /// How many bits of `register` are used, below 64.
    used: u32,
}

impl BitWriter {
    /// Appends the low `count` bits of `value`; `count` is at most 64.
    #[inline]
    pub(crate) fn put(&mut self, value: u64, count: u32) {
        debug_assert!(count <= 64);
        debug_assert!(count == 64 || value >> count == 0);
        let room = 64 - self.used;
        if count < room {
            if count > 0 {
                self.register |= value << (room - count);
                self.used += count;
            }
            return;
        }
        let rest = count - room;
        let full = self.register | if rest == 64 { 0 } else { value >> rest };
        self.spill(full);
        self.register = if rest == 0 { 0 } else { value << (64 - rest) };
        self.used = rest;
    }

    /// Appends one bit.
    #[inline]
    pub(crate) fn put_bit(&mut self, bit: bool) {
        self.put(u64::from(bit), 1);
    }

    /// Appends `ones` one-bits, at most 63.
    #[inline]
    pub(crate) fn put_ones(&mut self, ones: u32) {
        self.put((1u64 << ones) - 1, ones);
    }

    #[inline]
    fn spill(&mut self, word: u64) {
        if self.bytes.capacity() - self.bytes.len() < 8 {
            // Small steps: half of all series' open chunks are half full at any time.
            self.bytes.reserve_exact((self.bytes.len() / 4).max(24));
        }
        self.bytes.extend_from_slice(&word.to_be_bytes());
    }

    /// Bytes written so far, the register included.
    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len() + self.used.div_ceil(8) as usize
    }

    /// Bytes of heap held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// A copy of the whole stream, padded with zero bits to a byte.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len_bytes());
        bytes.extend_from_slice(&self.bytes);
        let tail = self.register.to_be_bytes();
        bytes.extend(tail.iter().take(self.used.div_ceil(8) as usize));
        bytes
    }
}

/// Reads a bit stream from its beginning.
#[derive(Clone, Debug)]
pub(crate) struct BitReader<'a> {
    rest: &'a [u8],
    /// The next bits, aligned to the top. Bits below `have` are either zero or already the
    /// right ones, so that refilling may set them again.
    register: u64,
    have: u32,
}

/// The most bits that one refill is sure to provide while bytes remain.
const REFILL_BITS: u32 = 56;

impl<'a> BitReader<'a> {
    /// A reader of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        BitReader {
            rest: bytes,
            register: 0,
            have: 0,
        }
    }

    #[inline]
    fn refill(&mut self) {
        if self.have > REFILL_BITS {
            return;
        }
        if let Some((word, _)) = self.rest.split_first_chunk::<8>() {
            self.register |= u64::from_be_bytes(*word) >> self.have;
            let taken = (64 - self.have) / 8;
            self.rest = self.rest.get(taken as usize..).unwrap_or_default();
            self.have += taken * 8;
            return;
        }
        while self.have <= REFILL_BITS {
            let Some((byte, rest)) = self.rest.split_first() else {
                return;
            };
            self.register |= u64::from(*byte) << (REFILL_BITS - self.have);
            self.rest = rest;
            self.have += 8;
        }
    }

    #[inline]
    fn take(&mut self, count: u32) -> u64 {
        let value = self.register >> (64 - count);
        self.register <<= count;
        self.have -= count;
        value
    }

    /// The next `count` bits, at most 64.
    #[inline]
    pub(crate) fn get(&mut self, count: u32) -> Option<u64> {
        if count == 0 {
            return Some(0);
        }
        if count > REFILL_BITS {
            let high = self.get(32)?;
            let low_bits = count.min(64) - 32;
            return Some((high << low_bits) | self.get(low_bits)?);
        }
        if self.have < count {
            self.refill();
            if self.have < count {
                return None;
            }
        }
        Some(self.take(count))
    }

    /// The next bit.
    #[inline]
    pub(crate) fn get_bit(&mut self) -> Option<bool> {
        self.get(1).map(|bit| bit == 1)
    }

    /// Counts one-bits up to `limit` (at most 55) and consumes them with the zero that ends
    /// them; at `limit` there is no such zero.
    #[inline]
    pub(crate) fn get_ones(&mut self, limit: u32) -> Option<u32> {
        if self.have <= limit {
            self.refill();
        }
        let ones = self.register.leading_ones().min(limit);
        let consumed = if ones == limit { ones } else { ones + 1 };
        if self.have < consumed {
            return None;
        }
        self.take(consumed);
        Some(ones)
    }
}

/// Maps small numbers of either sign to small unsigned ones.
#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The inverse of [`zigzag`].
#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// Payload widths of the prefix code below, by the number of leading one-bits.
const WIDTHS: [u32; 7] = [0, 3, 6, 10, 16, 32, 64];

impl BitWriter {
    /// Appends a signed number in a prefix code: 1 bit for 0, 5 for -4..=3, 9 for -32..=31, …
    #[inline]
    pub(crate) fn put_signed(&mut self, value: i64) {
        let value = zigzag(value);
        let bits = 64 - value.leading_zeros();
        for (class, width) in (0u32..).zip(WIDTHS) {
            if bits <= width {
                self.put_ones(class);
                if class < 6 {
                    self.put_bit(false);
                }
                self.put(value, width);
                return;
            }
        }
    }
}

impl BitReader<'_> {
    /// The inverse of [`BitWriter::put_signed`].
    #[inline]
    pub(crate) fn get_signed(&mut self) -> Option<i64> {
        let class = self.get_ones(6)?;
        let width = WIDTHS.get(class as usize).copied()?;
        self.get(width).map(unzigzag)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bits_come_back(values in prop::collection::vec((any::<u64>(), 0u32..=64), 0..200)) {
            let mut writer = BitWriter::default();
            let masked = |value: u64, count: u32| match count {
                0 => 0,
                count => value >> (64 - count),
            };
            for (value, count) in &values {
                writer.put(masked(*value, *count), *count);
            }
            let bytes = writer.to_bytes();
            prop_assert_eq!(bytes.len(), writer.len_bytes());
            let mut reader = BitReader::new(&bytes);
            for (value, count) in &values {
                prop_assert_eq!(reader.get(*count), Some(masked(*value, *count)));
            }
        }

        #[test]
        fn signed_numbers_come_back(values in prop::collection::vec(
            prop_oneof![any::<i64>(), -70i64..70, Just(i64::MIN), Just(i64::MAX)], 0..200)) {
            let mut writer = BitWriter::default();
            for value in &values {
                writer.put_signed(*value);
            }
            let bytes = writer.to_bytes();
            let mut reader = BitReader::new(&bytes);
            for value in &values {
                prop_assert_eq!(reader.get_signed(), Some(*value));
            }
        }

        #[test]
        fn unary_runs_come_back(runs in prop::collection::vec(0u32..=16, 0..100)) {
            let mut writer = BitWriter::default();
            for run in &runs {
                writer.put_ones(*run);
                if *run < 16 {
                    writer.put_bit(false);
                }
            }
            let bytes = writer.to_bytes();
            let mut reader = BitReader::new(&bytes);
            for run in &runs {
                prop_assert_eq!(reader.get_ones(16), Some(*run));
            }
        }
    }

    #[test]
    fn a_reader_that_runs_out_says_so() {
        let mut reader = BitReader::new(&[0xff]);
        assert_eq!(reader.get(8), Some(0xff));
        assert_eq!(reader.get(1), None);
        assert_eq!(reader.get_ones(16), None);
        assert_eq!(BitReader::new(&[]).get_signed(), None);
    }
}
