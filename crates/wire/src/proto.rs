//! A protobuf reader over borrowed bytes.
//!
//! Policy:
//! - Every length is checked against the enclosing message before it is used. Nothing is
//!   allocated and nothing recurses, so hostile lengths and nesting cost nothing.
//! - Unknown fields are skipped by their wire type. Groups (wire types 3 and 4) are refused:
//!   OTLP never used them and skipping them needs recursion.
//! - A known field with another wire type is an error, not an unknown field: data that cannot
//!   be read must not vanish.
//! - A repeated scalar is read in both its forms, packed and one by one.
//! - What is not read is not checked: a view reports the mistakes in the fields it visits.
//!
//! Every error carries the offset of the byte at fault, counted from the start of the request.
//! Source of the wire format: <https://protobuf.dev/programming-guides/encoding/>.

/// Bytes that are not the protobuf message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {problem}")]
pub struct WireError {
    /// Where, counted in bytes from the start of the request.
    pub offset: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong with protobuf bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The message ends inside a field.
    #[error("the message ends in the middle of a field")]
    Truncated,
    /// A varint with more than ten bytes, or more than 64 bits.
    #[error("a varint is longer than 64 bits")]
    VarintTooLong,
    /// Field number 0, or above 2^29 - 1.
    #[error("a field number is outside 1..=536870911")]
    FieldNumber,
    /// Wire type 3 or 4 (groups) or 6 or 7 (undefined).
    #[error("wire type {0} is not supported; expected 0, 1, 2 or 5")]
    WireType(u8),
    /// A known field came with a wire type that its type does not have.
    #[error("field {number} has wire type {found}; expected {expected}")]
    FieldType {
        /// The field's number in its message.
        number: u32,
        /// The wire type that came.
        found: u8,
        /// What the field's type asks for.
        expected: &'static str,
    },
    /// A string field that is not UTF-8.
    #[error("field {0} is not valid UTF-8")]
    NotUtf8(u32),
    /// A packed field whose length is not a multiple of its element's size.
    #[error("packed field {0} ends in the middle of an element")]
    PackedLength(u32),
    /// A message field that must occur once occurs again.
    #[error("field {0} occurs twice, but is not repeated")]
    Repeated(u32),
    /// Values nested deeper than the reader follows.
    #[error("values are nested deeper than {0} levels")]
    TooDeep(u8),
}

/// One field of a message, as read.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// The field's number.
    pub number: u32,
    value: FieldValue<'a>,
    end: usize,
}

#[derive(Clone, Copy, Debug)]
enum FieldValue<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// A cursor over the fields of one message.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// The request offset just behind `rest`; the cursor's own offset follows from it.
    end: usize,
}

impl Reader<'static> {
    /// A reader with nothing to read.
    pub const EMPTY: Reader<'static> = Reader { rest: &[], end: 0 };
}

impl<'a> Reader<'a> {
    /// A reader over a whole request.
    pub fn new(request: &'a [u8]) -> Self {
        Reader {
            rest: request,
            end: request.len(),
        }
    }

    /// The bytes not yet read.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// A reader over the last `length` bytes; over all of them where there are fewer.
    #[inline]
    pub(crate) fn tail(&self, length: usize) -> Reader<'a> {
        let skip = self.rest.len().saturating_sub(length);
        Reader {
            rest: self.rest.get(skip..).unwrap_or_default(),
            end: self.end,
        }
    }

    /// The cursor's place, counted from the start of the request.
    #[inline]
    pub fn offset(&self) -> usize {
        self.end - self.rest.len()
    }

    /// The next field, or `None` at the end of the message.
    // Called from every loop over a message; as a call it costs as much as the work itself.
    #[inline(always)]
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number >= 1 << 29 {
            return Err(self.error(Problem::FieldNumber));
        }
        let value = match (tag & 7) as u8 {
            0 => FieldValue::Varint(self.varint()?),
            1 => FieldValue::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => FieldValue::Bytes(self.delimited()?),
            5 => FieldValue::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(self.error(Problem::WireType(other))),
        };
        Ok(Some(Field {
            number: number as u32,
            value,
            end: self.offset(),
        }))
    }

    /// Skips a run of short length-delimited fields with the one-byte tag `tag`: most of a
    /// span's bytes are attributes that nobody asks for.
    #[inline]
    pub fn skip_run(&mut self, tag: u8) {
        while let [first, length, rest @ ..] = self.rest
            && *first == tag
            && *length < 0x80
            && let Some(rest) = rest.get(usize::from(*length)..)
        {
            self.rest = rest;
        }
    }

    /// A varint: seven bits a byte, lowest first.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, WireError> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for (at, byte) in self.rest.iter().take(10).enumerate() {
            if at == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        let problem = match self.rest.len() {
            0..10 => Problem::Truncated,
            _ => Problem::VarintTooLong,
        };
        Err(self.error(problem))
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        match self.rest.split_first_chunk::<N>() {
            Some((chunk, rest)) => {
                self.rest = rest;
                Ok(*chunk)
            }
            None => Err(self.error(Problem::Truncated)),
        }
    }

    #[inline]
    fn delimited(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.varint()?;
        let split = usize::try_from(length)
            .ok()
            .and_then(|length| self.rest.split_at_checked(length));
        match split {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(self.error(Problem::Truncated)),
        }
    }

    /// An error at the cursor.
    #[cold]
    pub fn error(&self, problem: Problem) -> WireError {
        WireError {
            offset: self.offset(),
            problem,
        }
    }
}

impl<'a> Field<'a> {
    /// The value of a `uint64`, `uint32`, `int64`, `int32`, `bool` or enum field.
    #[inline]
    pub fn varint(&self) -> Result<u64, WireError> {
        match self.value {
            FieldValue::Varint(value) => Ok(value),
            _ => Err(self.mismatch("a varint (0)")),
        }
    }

    /// The value of an enum field; values beyond 32 bits are cut as protobuf cuts them.
    #[inline]
    pub fn enumeration(&self) -> Result<i32, WireError> {
        self.varint().map(|value| value as i32)
    }

    /// The value of a `sint32` field (zigzag).
    #[inline]
    pub fn zigzag32(&self) -> Result<i32, WireError> {
        let value = self.varint()? as u32;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    /// The value of an `int64` field.
    #[inline]
    pub fn int64(&self) -> Result<i64, WireError> {
        self.varint().map(|value| value as i64)
    }

    /// The value of a `fixed64` field.
    #[inline]
    pub fn fixed64(&self) -> Result<u64, WireError> {
        match self.value {
            FieldValue::Fixed64(value) => Ok(value),
            _ => Err(self.mismatch("64 bits (1)")),
        }
    }

    /// The value of a `double` field.
    #[inline]
    pub fn double(&self) -> Result<f64, WireError> {
        self.fixed64().map(f64::from_bits)
    }

    /// The value of a `fixed32` field.
    #[inline]
    pub fn fixed32(&self) -> Result<u32, WireError> {
        match self.value {
            FieldValue::Fixed32(value) => Ok(value),
            _ => Err(self.mismatch("32 bits (5)")),
        }
    }

    /// The value of a `bytes` field.
    #[inline]
    pub fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            FieldValue::Bytes(bytes) => Ok(bytes),
            _ => Err(self.mismatch("a length and bytes (2)")),
        }
    }

    /// The value of a `string` field.
    #[inline]
    pub fn string(&self) -> Result<&'a str, WireError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|error| WireError {
            offset: self.end - bytes.len() + error.valid_up_to(),
            problem: Problem::NotUtf8(self.number),
        })
    }

    /// A reader over a message field.
    #[inline]
    pub fn message(&self) -> Result<Reader<'a>, WireError> {
        Ok(Reader {
            rest: self.bytes()?,
            end: self.end,
        })
    }

    /// An error at the end of this field.
    #[cold]
    pub fn error(&self, problem: Problem) -> WireError {
        WireError {
            offset: self.end,
            problem,
        }
    }

    #[cold]
    fn mismatch(&self, expected: &'static str) -> WireError {
        let found = match self.value {
            FieldValue::Varint(_) => 0,
            FieldValue::Fixed64(_) => 1,
            FieldValue::Bytes(_) => 2,
            FieldValue::Fixed32(_) => 5,
        };
        self.error(Problem::FieldType {
            number: self.number,
            found,
            expected,
        })
    }
}

/// A message type that can be read from its bytes.
pub trait View<'a>: Sized {
    /// Reads the message whose fields `body` holds.
    fn read(body: Reader<'a>) -> Result<Self, WireError>;
}

/// The occurrences of one repeated message field, read as they are asked for.
///
/// Ends after the first error.
#[derive(Clone, Copy, Debug)]
pub struct Views<'a, V> {
    body: Reader<'a>,
    field: u32,
    view: std::marker::PhantomData<fn() -> V>,
}

impl<'a, V> Views<'a, V> {
    /// The occurrences of `field` in the message `body`.
    pub fn new(body: Reader<'a>, field: u32) -> Self {
        Views {
            body,
            field,
            view: std::marker::PhantomData,
        }
    }
}

impl<'a, V: View<'a>> Iterator for Views<'a, V> {
    type Item = Result<V, WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let read = loop {
            match self.body.next_field() {
                Ok(Some(field)) if field.number == self.field => {
                    break field.message().and_then(V::read);
                }
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => break Err(error),
            }
        };
        if read.is_err() {
            self.body.rest = &[];
        }
        Some(read)
    }
}

/// Where the occurrences of one repeated message field lie, so that they can be had as bytes:
/// tags and lengths included, in the order sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    body: Reader<'a>,
    field: u32,
    /// First tag to last end in the body, unless `scattered`.
    run: (usize, usize),
    scattered: bool,
}

impl<'a> Run<'a> {
    /// No occurrence of `field` in `body` seen yet.
    pub(crate) fn none(body: Reader<'a>, field: u32) -> Self {
        Run {
            body,
            field,
            run: (0, 0),
            scattered: false,
        }
    }

    /// Notes one or several occurrences; `before` and `after` are what was left to read around
    /// them.
    #[inline]
    pub(crate) fn note(&mut self, before: &[u8], after: &[u8]) {
        let whole = self.body.rest().len();
        let (from, to) = (whole - before.len(), whole - after.len());
        if self.run.1 == 0 {
            self.run = (from, to);
        } else if self.run.1 == from {
            self.run.1 = to;
        } else {
            self.scattered = true;
        }
    }

    /// The bytes; where they are not in one piece, gathered in `scratch`.
    #[inline]
    pub(crate) fn raw<'s>(&self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], WireError>
    where
        'a: 's,
    {
        if !self.scattered {
            return Ok(self
                .body
                .rest()
                .get(self.run.0..self.run.1)
                .unwrap_or_default());
        }
        scratch.clear();
        let mut fields = self.body;
        loop {
            let before = fields.rest();
            let Some(field) = fields.next_field()? else {
                return Ok(scratch);
            };
            if field.number == self.field {
                scratch.extend_from_slice(&before[..before.len() - fields.rest().len()]);
            }
        }
    }

    /// The occurrences, read.
    pub(crate) fn views<V>(&self) -> Views<'a, V> {
        Views::new(self.body, self.field)
    }
}

/// The elements of a repeated scalar field, packed or not.
///
/// Ends after the first error.
#[derive(Clone, Copy, Debug)]
pub struct Scalars<'a, const VARINT: bool> {
    body: Reader<'a>,
    packed: Reader<'a>,
    field: u32,
}

/// A repeated `fixed64`, `sfixed64` or `double` field, as bits.
pub type Fixed64s<'a> = Scalars<'a, false>;

/// A repeated `uint64` field.
pub type Varints<'a> = Scalars<'a, true>;

impl<'a, const VARINT: bool> Scalars<'a, VARINT> {
    /// The elements of `field` in the message `body`.
    pub fn new(body: Reader<'a>, field: u32) -> Self {
        Scalars {
            body,
            packed: Reader::new(&[]),
            field,
        }
    }

    fn step(&mut self) -> Result<Option<u64>, WireError> {
        loop {
            if !self.packed.rest.is_empty() {
                if VARINT {
                    return self.packed.varint().map(Some);
                }
                let problem = Problem::PackedLength(self.field);
                let bits = self.packed.array().map(u64::from_le_bytes);
                return bits.map(Some).map_err(|e| WireError { problem, ..e });
            }
            let Some(field) = self.body.next_field()? else {
                return Ok(None);
            };
            if field.number != self.field {
                continue;
            }
            match field.value {
                FieldValue::Bytes(_) => self.packed = field.message()?,
                FieldValue::Varint(value) if VARINT => return Ok(Some(value)),
                FieldValue::Fixed64(bits) if !VARINT => return Ok(Some(bits)),
                _ => return Err(field.mismatch("a packed or plain repeated number")),
            }
        }
    }
}

impl<const VARINT: bool> Iterator for Scalars<'_, VARINT> {
    type Item = Result<u64, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose()?;
        if step.is_err() {
            self.body.rest = &[];
            self.packed.rest = &[];
        }
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn only(bytes: &[u8]) -> Result<Option<Field<'_>>, WireError> {
        Reader::new(bytes).next_field()
    }

    #[test]
    fn an_eleven_byte_varint_is_refused_and_a_cut_one_is_truncated() {
        let long = [&[0x08][..], &[0xff; 10], &[0x01]].concat();
        assert_eq!(only(&long).unwrap_err().problem, Problem::VarintTooLong);
        assert_eq!(only(&[0x08, 0x80]).unwrap_err().problem, Problem::Truncated);
        let max = [&[0x08][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(only(&max).unwrap().unwrap().varint(), Ok(u64::MAX));
    }

    #[test]
    fn a_length_beyond_the_end_names_its_place() {
        let error = only(&[0x0a, 0x05, b'a']).unwrap_err();
        assert_eq!((error.offset, error.problem), (2, Problem::Truncated));
        let huge = [&[0x0a][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(only(&huge).unwrap_err().problem, Problem::Truncated);
    }

    #[test]
    fn groups_and_field_zero_are_refused() {
        assert_eq!(only(&[0x0b]).unwrap_err().problem, Problem::WireType(3));
        assert_eq!(
            only(&[0x00, 0x00]).unwrap_err().problem,
            Problem::FieldNumber
        );
    }

    #[test]
    fn a_known_field_of_another_type_is_an_error() {
        let field = only(&[0x08, 0x01]).unwrap().unwrap();
        assert!(matches!(
            field.string().unwrap_err().problem,
            Problem::FieldType {
                number: 1,
                found: 0,
                ..
            }
        ));
    }

    #[test]
    fn broken_utf8_names_the_bad_byte() {
        let field = only(&[0x0a, 0x03, b'o', b'k', 0xff]).unwrap().unwrap();
        let error = field.string().unwrap_err();
        assert_eq!((error.offset, error.problem), (4, Problem::NotUtf8(1)));
    }

    #[test]
    fn repeated_numbers_are_read_packed_and_plain() {
        let mut bytes = vec![0x0a, 0x02, 0x05, 0x06, 0x08, 0x07];
        let read = |bytes: &[u8]| -> Result<Vec<u64>, WireError> {
            Varints::new(Reader::new(bytes), 1).collect()
        };
        assert_eq!(read(&bytes), Ok(vec![5, 6, 7]));
        bytes.extend([0x0d, 0, 0, 0, 0]);
        assert!(read(&bytes).is_err());
        let cut = [0x0a, 0x09, 1, 0, 0, 0, 0, 0, 0, 0, 9];
        let read: Result<Vec<u64>, _> = Fixed64s::new(Reader::new(&cut), 1).collect();
        assert_eq!(read.unwrap_err().problem, Problem::PackedLength(1));
    }

    proptest! {
        #[test]
        fn any_varint_survives(value: u64) {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(value, &mut bytes);
            prop_assert_eq!(Reader::new(&bytes).varint(), Ok(value));
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_errors_lie_inside(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            loop {
                match reader.next_field() {
                    Ok(Some(field)) => {
                        let _ = (field.string(), field.double(), field.zigzag32());
                    }
                    Ok(None) => break,
                    Err(error) => {
                        prop_assert!(error.offset <= bytes.len());
                        break;
                    }
                }
            }
        }
    }
}
