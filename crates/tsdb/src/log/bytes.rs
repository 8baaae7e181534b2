//! The numbers and texts that log records are made of.

use slogate_series::{Label, Labels};

use crate::chunk::bits::{unzigzag, zigzag};

/// Appends an unsigned number.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number.
#[inline]
pub(crate) fn put_svarint(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

/// Appends a text.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Reads what the functions above wrote. `None` means that the bytes are not that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    /// Bytes not yet read.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    #[inline]
    pub(crate) fn svarint(&mut self) -> Option<i64> {
        self.varint().map(unzigzag)
    }

    #[inline]
    pub(crate) fn float(&mut self) -> Option<f64> {
        let (bytes, rest) = self.rest.split_first_chunk::<8>()?;
        self.rest = rest;
        Some(f64::from_bits(u64::from_le_bytes(*bytes)))
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        std::str::from_utf8(text).ok()
    }

    /// A count of things that take at least `each` bytes, so that a count that can't be true
    /// is refused before memory is asked for.
    pub(crate) fn count(&mut self, each: usize) -> Option<usize> {
        let count = usize::try_from(self.varint()?).ok()?;
        (count <= self.rest.len() / each).then_some(count)
    }

    /// A label set.
    pub(crate) fn labels(&mut self) -> Option<Labels> {
        let count = self.count(2)?;
        let mut labels: Vec<Label> = Vec::with_capacity(count);
        for _ in 0..count {
            let (name, value) = (self.text()?, self.text()?);
            let ascending = labels.last().is_none_or(|last| *last.name < *name);
            if !ascending || value.is_empty() {
                return None;
            }
            labels.push(Label {
                name: name.into(),
                value: value.into(),
            });
        }
        Some(Labels::from_sorted(labels))
    }
}

/// Appends a label set.
pub(crate) fn put_labels<'a>(
    out: &mut Vec<u8>,
    labels: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
) {
    put_varint(out, labels.len() as u64);
    for (name, value) in labels {
        put_text(out, name);
        put_text(out, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(values in prop::collection::vec(any::<i64>(), 0..50)) {
            let mut bytes = Vec::new();
            for value in &values {
                put_svarint(&mut bytes, *value);
                put_varint(&mut bytes, value.cast_unsigned());
            }
            let mut cursor = Cursor::new(&bytes);
            for value in &values {
                prop_assert_eq!(cursor.svarint(), Some(*value));
                prop_assert_eq!(cursor.varint(), Some(value.cast_unsigned()));
            }
            prop_assert_eq!(cursor.left(), 0);
        }
    }

    #[test]
    fn overlong_numbers_and_impossible_counts_are_refused() {
        assert_eq!(Cursor::new(&[0xff; 11]).varint(), None);
        assert_eq!(Cursor::new(&[100, 1, 1]).count(1), None);
        assert_eq!(Cursor::new(&[2, b'a']).text(), None);
        assert_eq!(Cursor::new(&[1, 0xff]).text(), None);
    }

    #[test]
    fn labels_out_of_order_are_refused() {
        let mut bytes = Vec::new();
        put_labels(&mut bytes, [("b", "1"), ("a", "2")].into_iter());
        assert_eq!(Cursor::new(&bytes).labels(), None);
    }
}
