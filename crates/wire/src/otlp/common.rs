//! What the three signals share: attribute values, resources, scopes.

use crate::proto::{Field, Problem, Reader, View, Views, WireError};

/// A pair's key: field 1, a length and bytes.
const KEY_TAG: u8 = 1 << 3 | 2;

/// A pair's value: field 2, a length and bytes.
const VALUE_TAG: u8 = 2 << 3 | 2;

/// How deep arrays and maps inside attribute values are followed.
pub const DEPTH_MAX: u8 = 32;

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub struct KeyValue<'a> {
    /// The attribute's name, for example `service.name`.
    pub key: &'a str,
    /// Its value; [`AnyValue::Empty`] where none was sent.
    pub value: AnyValue<'a>,
}

/// One attribute with neither key nor value read, for looking up a few keys in a hurry.
#[derive(Clone, Copy, Debug)]
pub struct RawKeyValue<'a> {
    /// The attribute's name, not checked for UTF-8.
    pub key: &'a [u8],
    value: Option<Reader<'a>>,
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug)]
pub enum AnyValue<'a> {
    /// No value, or a kind this version does not know.
    Empty,
    /// Text.
    String(&'a str),
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Double(f64),
    /// A list of values.
    Array(Nested<'a>),
    /// Key-value pairs.
    Map(Nested<'a>),
    /// Raw bytes.
    Bytes(&'a [u8]),
}

/// The inside of an array or map, not read yet.
#[derive(Clone, Copy, Debug)]
pub struct Nested<'a> {
    body: Reader<'a>,
    depth: u8,
}

/// The attributes of one message, in the order sent.
pub type Attributes<'a> = Views<'a, KeyValue<'a>>;

/// The entity that produced the telemetry.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    body: Reader<'a>,
}

/// The library that produced the telemetry.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The library's name, empty where unknown.
    pub name: &'a str,
    /// The library's version, empty where unknown.
    pub version: &'a str,
    body: Reader<'a>,
}

impl<'a> Resource<'a> {
    /// A resource without attributes.
    pub fn empty() -> Self {
        Resource {
            body: Reader::new(&[]),
        }
    }

    /// The resource's bytes: equal bytes are the same resource.
    pub fn raw(&self) -> &'a [u8] {
        self.body.rest()
    }

    /// The resource's attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        Views::new(self.body, 1)
    }
}

impl<'a> Scope<'a> {
    /// A scope without a name.
    pub fn empty() -> Self {
        Scope {
            name: "",
            version: "",
            body: Reader::new(&[]),
        }
    }

    /// The scope's attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        Views::new(self.body, 3)
    }
}

impl<'a> View<'a> for Resource<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        Ok(Resource { body })
    }
}

impl<'a> View<'a> for Scope<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut scope = Scope {
            body,
            ..Scope::empty()
        };
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => scope.name = field.string()?,
                2 => scope.version = field.string()?,
                _ => {}
            }
        }
        Ok(scope)
    }
}

impl<'a> View<'a> for KeyValue<'a> {
    #[inline]
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        KeyValue::read_at(body, 0)
    }
}

impl<'a> View<'a> for RawKeyValue<'a> {
    #[inline]
    fn read(mut body: Reader<'a>) -> Result<Self, WireError> {
        // As good as every pair: a short key, then a short value that ends the message.
        if let [KEY_TAG, key_length, rest @ ..] = body.rest()
            && *key_length < 0x80
            && let Some((key, value)) = rest.split_at_checked(usize::from(*key_length))
            && let [VALUE_TAG, value_length, value @ ..] = value
            && *value_length < 0x80
            && value.len() == usize::from(*value_length)
        {
            let value = Some(body.tail(value.len()));
            return Ok(RawKeyValue { key, value });
        }
        let mut pair = RawKeyValue {
            key: &[],
            value: None,
        };
        while let Some(field) = body.next_field()? {
            match field.number {
                1 => pair.key = field.bytes()?,
                2 => pair.value = Some(field.message()?),
                _ => {}
            }
        }
        Ok(pair)
    }
}

impl<'a> RawKeyValue<'a> {
    /// The value, read.
    pub fn value(&self) -> Result<AnyValue<'a>, WireError> {
        self.value
            .map_or(Ok(AnyValue::Empty), |body| AnyValue::read_at(body, 0))
    }
}

impl<'a> KeyValue<'a> {
    fn read_at(mut body: Reader<'a>, depth: u8) -> Result<Self, WireError> {
        let mut pair = KeyValue {
            key: "",
            value: AnyValue::Empty,
        };
        while let Some(field) = body.next_field()? {
            match field.number {
                1 => pair.key = field.string()?,
                2 => pair.value = AnyValue::read_at(field.message()?, depth)?,
                _ => {}
            }
        }
        Ok(pair)
    }
}

impl<'a> AnyValue<'a> {
    pub(crate) fn read_at(mut body: Reader<'a>, depth: u8) -> Result<Self, WireError> {
        let mut value = AnyValue::Empty;
        while let Some(field) = body.next_field()? {
            value = match field.number {
                1 => AnyValue::String(field.string()?),
                2 => AnyValue::Bool(field.varint()? != 0),
                3 => AnyValue::Int(field.varint()? as i64),
                4 => AnyValue::Double(field.double()?),
                5 => AnyValue::Array(Nested::enter(&field, depth)?),
                6 => AnyValue::Map(Nested::enter(&field, depth)?),
                7 => AnyValue::Bytes(field.bytes()?),
                _ => value,
            };
        }
        Ok(value)
    }

    /// The text of a string value.
    pub fn as_str(&self) -> Option<&'a str> {
        match self {
            AnyValue::String(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> Nested<'a> {
    fn enter(field: &Field<'a>, depth: u8) -> Result<Self, WireError> {
        if depth >= DEPTH_MAX {
            return Err(field.error(Problem::TooDeep(DEPTH_MAX)));
        }
        Ok(Nested {
            body: field.message()?,
            depth: depth + 1,
        })
    }

    /// The elements, read as an array's.
    pub fn values(self) -> impl Iterator<Item = Result<AnyValue<'a>, WireError>> {
        self.each(AnyValue::read_at)
    }

    /// The pairs, read as a map's.
    pub fn pairs(self) -> impl Iterator<Item = Result<KeyValue<'a>, WireError>> {
        self.each(KeyValue::read_at)
    }

    fn each<T>(
        self,
        read: impl Fn(Reader<'a>, u8) -> Result<T, WireError>,
    ) -> impl Iterator<Item = Result<T, WireError>> {
        Views::<'a, Reader<'a>>::new(self.body, 1)
            .map(move |body| body.and_then(|body| read(body, self.depth)))
    }
}

impl<'a> View<'a> for Reader<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        Ok(body)
    }
}

/// Reads a message field that must occur at most once into `slot`.
pub(crate) fn once<'a, V: View<'a>>(
    slot: &mut Option<V>,
    field: &Field<'a>,
) -> Result<(), WireError> {
    if slot.is_some() {
        return Err(field.error(Problem::Repeated(field.number)));
    }
    *slot = Some(V::read(field.message()?)?);
    Ok(())
}
