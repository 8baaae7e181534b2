//! An adaptive code for a sequence of whole numbers that change steadily.
//!
//! Both sides keep a running mean of the change from one number to the next and code only
//! how far each change is from that mean, with a Rice code whose width follows the running
//! size of those differences. A regular timestamp or an idle counter costs one bit; a
//! counter that grows by 200 ± 15 costs about six.
//!
//! A change far outside of what is expected (a gap, a counter reset) is escaped: written in
//! full, and it leaves the mean alone, so that one outlier does not spoil what follows. Two
//! in a row are a new regime, and the mean jumps there. The escape has a second meaning, a
//! *mark*, that the caller may use for something rare of its own at no cost to the rest.
//!
//! Arithmetic wraps or saturates in the same way on both sides: every `i64` comes back.

use super::bits::{BitReader, BitWriter, unzigzag, zigzag};

/// The one-bits that announce an escape.
const ESCAPE_ONES: u32 = 16;

/// The widest low part of a code; above that the escape is as short.
const WIDTH_MAX: u32 = 48;

/// The state that encoder and decoder share.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rice {
    /// The running mean change, in sixteenths.
    mean: i64,
    /// The running mean of the zigzagged differences, in sixteenths.
    spread: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Nothing coded yet: there is no mean to differ from.
    #[default]
    First,
    Steady,
    /// The code before was an escape.
    Escaped,
}

/// What a decoder finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The change from the number before.
    Change(i64),
    /// The caller's mark.
    Mark,
}

impl Rice {
    #[inline]
    fn expected(&self) -> i64 {
        self.mean.saturating_add(8) >> 4
    }

    #[inline]
    fn width(&self) -> u32 {
        let mean = self.spread >> 4;
        if mean <= 1 {
            0
        } else {
            (64 - (mean - 1).leading_zeros()).min(WIDTH_MAX)
        }
    }

    #[inline]
    fn learn(&mut self, change: i64, difference: u64) {
        let sixteenths = change.saturating_mul(16);
        let step = sixteenths.saturating_sub(self.mean) >> 3;
        self.mean = self.mean.saturating_add(step);
        // Below 2^52 * 16 here: larger differences are escaped.
        let scaled = difference << 4;
        self.spread = self.spread - (self.spread >> 3) + (scaled >> 3);
        self.phase = Phase::Steady;
    }

    fn learn_escaped(&mut self, change: i64) {
        match self.phase {
            Phase::First => {
                self.mean = change.saturating_mul(16);
                self.phase = Phase::Steady;
            }
            Phase::Steady => {
                self.spread = self.widened();
                self.phase = Phase::Escaped;
            }
            Phase::Escaped => {
                self.mean = change.saturating_mul(16);
                self.spread = self.widened();
            }
        }
    }

    fn widened(&self) -> u64 {
        self.spread
            .saturating_mul(2)
            .saturating_add(64)
            .min(1 << 56)
    }

    /// Codes the change from the number before.
    #[inline]
    pub(crate) fn put(&mut self, out: &mut BitWriter, change: i64) {
        if self.phase != Phase::First {
            let difference = zigzag(change.wrapping_sub(self.expected()));
            let width = self.width();
            let quotient = difference >> width;
            if quotient < u64::from(ESCAPE_ONES) {
                // At most 15 ones, a zero and 48 low bits: one word.
                let ones = quotient as u32;
                let low = difference & ((1 << width) - 1);
                let word = (((1u64 << ones) - 1) << (width + 1)) | low;
                out.put(word, ones + 1 + width);
                self.learn(change, difference);
                return;
            }
            out.put_ones(ESCAPE_ONES);
        }
        out.put_bit(false);
        put_full(out, change);
        self.learn_escaped(change);
    }

    /// Codes the caller's mark.
    pub(crate) fn put_mark(&mut self, out: &mut BitWriter) {
        if self.phase != Phase::First {
            out.put_ones(ESCAPE_ONES);
        }
        out.put_bit(true);
    }

    /// Decodes what [`Rice::put`] or [`Rice::put_mark`] coded.
    #[inline]
    pub(crate) fn get(&mut self, input: &mut BitReader<'_>) -> Option<Code> {
        if self.phase != Phase::First {
            let quotient = input.get_ones(ESCAPE_ONES)?;
            if quotient < ESCAPE_ONES {
                let width = self.width();
                let difference = (u64::from(quotient) << width) | input.get(width)?;
                let change = unzigzag(difference).wrapping_add(self.expected());
                self.learn(change, difference);
                return Some(Code::Change(change));
            }
        }
        if input.get_bit()? {
            return Some(Code::Mark);
        }
        let change = get_full(input)?;
        self.learn_escaped(change);
        Some(Code::Change(change))
    }
}

/// Writes a number in full: 7 bits of length, then as many bits.
pub(crate) fn put_full(out: &mut BitWriter, value: i64) {
    let value = zigzag(value);
    let bits = 64 - value.leading_zeros();
    out.put(u64::from(bits), 7);
    out.put(value, bits);
}

/// The inverse of [`put_full`].
pub(crate) fn get_full(input: &mut BitReader<'_>) -> Option<i64> {
    let bits = u32::try_from(input.get(7)?)
        .ok()
        .filter(|bits| *bits <= 64)?;
    input.get(bits).map(unzigzag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(changes: &[Option<i64>]) -> usize {
        let mut out = BitWriter::default();
        let mut encoder = Rice::default();
        for change in changes {
            match change {
                Some(change) => encoder.put(&mut out, *change),
                None => encoder.put_mark(&mut out),
            }
        }
        let bytes = out.to_bytes();
        let (mut input, mut decoder) = (BitReader::new(&bytes), Rice::default());
        for change in changes {
            let expected = change.map_or(Code::Mark, Code::Change);
            assert_eq!(decoder.get(&mut input), Some(expected));
        }
        bytes.len()
    }

    proptest! {
        #[test]
        fn every_sequence_comes_back(changes in prop::collection::vec(
            prop::option::weighted(0.9, prop_oneof![
                8 => -300i64..300, 1 => any::<i64>(), 1 => Just(i64::MIN), 1 => Just(i64::MAX)]),
            0..300)) {
            round_trip(&changes);
        }
    }

    #[test]
    fn a_regular_sequence_costs_a_bit_each() {
        assert!(round_trip(&[Some(15_000); 800]) <= 800 / 8 + 4);
    }

    #[test]
    fn an_outlier_does_not_spoil_what_follows() {
        let mut changes = vec![Some(15_000); 800];
        changes[400] = Some(-1_000_000_000);
        assert!(round_trip(&changes) <= 800 / 8 + 4 + 30);
    }

    #[test]
    fn a_new_regime_is_learnt_within_a_few_escapes() {
        let changes: Vec<_> = (0..400)
            .map(|i| Some(if i < 200 { 0 } else { 1_000_000 }))
            .collect();
        assert!(round_trip(&changes) <= 400 / 8 + 50);
    }
}
