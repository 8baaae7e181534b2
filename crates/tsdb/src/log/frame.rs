//! Segment headers and frames, as docs/formats.md, "Series log", draws them.

/// The version that this program writes, and the newest that it reads.
pub(crate) const VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"SLOGSER\n";
const VERSION_AT: usize = MAGIC.len();
const ZERO_AT: usize = VERSION_AT + 2;
const HEADER_CRC_AT: usize = ZERO_AT + 2;
/// Bytes of a segment header.
pub(crate) const HEADER_BYTES: usize = HEADER_CRC_AT + 4;

const MARKER: [u8; 4] = [0xf5, b's', b'f', b'\n'];
const LENGTH_AT: usize = MARKER.len();
const CRC_AT: usize = LENGTH_AT + 4;
/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEADER_BYTES: usize = CRC_AT + 4;

/// The largest payload that is read.
const PAYLOAD_MAX: usize = 16 << 20;

/// The header of a new segment.
pub(crate) fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..VERSION_AT].copy_from_slice(&MAGIC);
    header[VERSION_AT..ZERO_AT].copy_from_slice(&VERSION.to_le_bytes());
    let crc = crc32fast::hash(&header[..HEADER_CRC_AT]);
    header[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// What the first bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// A segment of this version.
    Version(u16),
    /// Too short to be a segment.
    Torn,
    /// Long enough, but not a header, or one that was damaged.
    Damaged,
}

/// Reads the header at the beginning of `bytes`.
pub(crate) fn read_header(bytes: &[u8]) -> Header {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Header::Torn;
    };
    let stored = u32_at(header, HEADER_CRC_AT);
    let (fixed, _) = header.split_at(HEADER_CRC_AT);
    if !fixed.starts_with(&MAGIC) || stored != Some(crc32fast::hash(fixed)) {
        return Header::Damaged;
    }
    let [.., low, high, _, _] = *fixed else {
        return Header::Damaged;
    };
    Header::Version(u16::from_le_bytes([low, high]))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}

/// Appends a frame around `payload`, which is not empty and at most 16 MiB.
pub(crate) fn put_frame(out: &mut Vec<u8>, payload: &[u8]) {
    debug_assert!(!payload.is_empty() && payload.len() <= PAYLOAD_MAX);
    let length = (payload.len() as u32).to_le_bytes();
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&length);
    out.extend_from_slice(&frame_crc(length, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

fn frame_crc(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// The payload of the whole, undamaged frame at the beginning of `bytes`.
fn frame_at(bytes: &[u8]) -> Option<&[u8]> {
    if !bytes.starts_with(&MARKER) {
        return None;
    }
    let length = u32_at(bytes, LENGTH_AT)?;
    let crc = u32_at(bytes, CRC_AT)?;
    let size = usize::try_from(length).ok()?;
    if size == 0 || size > PAYLOAD_MAX {
        return None;
    }
    let payload = bytes.get(FRAME_HEADER_BYTES..)?.get(..size)?;
    (frame_crc(length.to_le_bytes(), payload) == crc).then_some(payload)
}

/// What a segment consists of, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A frame's payload and where it begins in the segment.
    Frame { at: usize, payload: &'a [u8] },
    /// Bytes that are no frame, with a frame after them.
    Damage { at: usize, bytes: usize },
    /// Bytes that are no frame, up to the end.
    Tail { at: usize, bytes: usize },
}

/// Walks over the frames of a segment.
pub(crate) struct Frames<'a> {
    segment: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    /// The frames of a whole segment, its header included.
    pub(crate) fn new(segment: &'a [u8]) -> Self {
        Frames {
            segment,
            at: HEADER_BYTES.min(segment.len()),
        }
    }

    fn rest(&self, at: usize) -> &'a [u8] {
        self.segment.get(at..).unwrap_or_default()
    }

    /// Where the next undamaged frame after `at` begins.
    fn next_frame(&self, at: usize) -> Option<usize> {
        let mut from = at + 1;
        loop {
            let found = self
                .rest(from)
                .windows(MARKER.len())
                .position(|window| window == MARKER)?;
            from += found;
            if frame_at(self.rest(from)).is_some() {
                return Some(from);
            }
            from += 1;
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let at = self.at;
        let rest = self.rest(at);
        if rest.is_empty() {
            return None;
        }
        if let Some(payload) = frame_at(rest) {
            self.at += FRAME_HEADER_BYTES + payload.len();
            let at = at + FRAME_HEADER_BYTES;
            return Some(Piece::Frame { at, payload });
        }
        match self.next_frame(at) {
            Some(next) => {
                self.at = next;
                let bytes = next - at;
                Some(Piece::Damage { at, bytes })
            }
            None => {
                self.at = self.segment.len();
                let bytes = rest.len();
                Some(Piece::Tail { at, bytes })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = header().to_vec();
        for payload in payloads {
            put_frame(&mut bytes, payload);
        }
        bytes
    }

    fn payloads(bytes: &[u8]) -> Vec<&[u8]> {
        Frames::new(bytes)
            .filter_map(|piece| match piece {
                Piece::Frame { payload, .. } => Some(payload),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn headers_tell_versions_from_damage() {
        let mut bytes = header();
        assert_eq!(read_header(&bytes), Header::Version(VERSION));
        assert_eq!(read_header(&bytes[..15]), Header::Torn);
        bytes[8] = 2;
        assert_eq!(read_header(&bytes), Header::Damaged);
        let crc = crc32fast::hash(&bytes[..12]);
        bytes[12..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(read_header(&bytes), Header::Version(2));
    }

    #[test]
    fn a_frame_cut_in_the_middle_does_not_hide_the_next() {
        let whole = segment(&[b"one", b"two", b"three"]);
        let second = HEADER_BYTES + FRAME_HEADER_BYTES + 3;
        let third = second + FRAME_HEADER_BYTES + 3;
        for cut in second + 1..third {
            let mut bytes = whole[..cut].to_vec();
            bytes.extend_from_slice(&whole[third..]);
            assert_eq!(payloads(&bytes), [&b"one"[..], b"three"], "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_walked_to_the_end(
            mut bytes in prop::collection::vec(any::<u8>(), 0..2_000),
            markers in prop::collection::vec(0usize..2_000, 0..10)) {
            for at in markers {
                if let Some(place) = bytes.get_mut(at..at + 4) {
                    place.copy_from_slice(&MARKER);
                }
            }
            let covered: usize = Frames::new(&bytes).map(|piece| match piece {
                Piece::Frame { payload, .. } => payload.len() + FRAME_HEADER_BYTES,
                Piece::Damage { bytes, .. } | Piece::Tail { bytes, .. } => bytes,
            }).sum();
            prop_assert_eq!(covered, bytes.len().saturating_sub(HEADER_BYTES));
        }
    }
}
