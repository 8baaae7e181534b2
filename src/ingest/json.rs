//! OTLP/JSON to OTLP/protobuf.
//!
//! JSON takes the same way as protobuf once its bytes are translated. The translation follows
//! tables of the fields slogate reads; other fields are skipped, as the protocol demands of
//! unknown ones.
//!
//! Policy, from the OTLP specification ("JSON Protobuf Encoding") and the proto3 JSON mapping:
//! - Names are lowerCamelCase. `null` is an absent field.
//! - 64-bit integers may be numbers or strings; doubles may be the strings `NaN`, `Infinity`
//!   and `-Infinity`, or a number in a string.
//! - Trace and span ids are hexadecimal, other bytes base64 (standard or URL-safe alphabet).
//! - Enums are integers.
//! - A value of another type is an error that names its place: `resourceSpans[0].scopeSpans[1]…`.
//!   The offset in the error is the place in the text where the text itself
//!   is no JSON, and 0 otherwise.

mod tables;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::Value;

use super::outcome::IngestError;
use tables::{Kind, Table, logs_request, metrics_request, trace_request};

/// The protobuf form of an `ExportTraceServiceRequest`.
pub(super) fn traces(request: &[u8]) -> Result<Vec<u8>, IngestError> {
    translate(request, trace_request())
}

/// The protobuf form of an `ExportMetricsServiceRequest`.
pub(super) fn metrics(request: &[u8]) -> Result<Vec<u8>, IngestError> {
    translate(request, metrics_request())
}

/// The protobuf form of an `ExportLogsServiceRequest`.
pub(super) fn logs(request: &[u8]) -> Result<Vec<u8>, IngestError> {
    translate(request, logs_request())
}

/// A value that is not what its field holds: the path to it, innermost part first.
struct Misfit {
    path: Vec<String>,
    expected: &'static str,
    found: String,
}

fn translate(request: &[u8], table: Table) -> Result<Vec<u8>, IngestError> {
    let value: Value = serde_json::from_slice(request).map_err(|error| IngestError::Malformed {
        offset: offset_of(request, error.line(), error.column()),
        what: format!("not JSON: {error}"),
    })?;
    let mut out = Vec::with_capacity(request.len() / 2);
    message(&value, table, &mut out).map_err(|misfit| {
        let mut path: Vec<_> = misfit.path;
        path.reverse();
        let path = path.concat();
        IngestError::Malformed {
            offset: 0,
            what: format!(
                "{}: expected {}, found {}",
                path.trim_start_matches('.'),
                misfit.expected,
                misfit.found
            ),
        }
    })?;
    Ok(out)
}

fn offset_of(text: &[u8], line: usize, column: usize) -> usize {
    let before: usize = text
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    (before + column.saturating_sub(1)).min(text.len())
}

fn message(value: &Value, table: Table, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let Value::Object(members) = value else {
        return Err(misfit("an object", value));
    };
    for (name, member) in members {
        let row = table.iter().find(|(known, ..)| known == name);
        if let Some((_, number, kind)) = row
            && !member.is_null()
        {
            field(member, *number, *kind, out)
                .map_err(|misfit| misfit.below(format!(".{name}")))?;
        }
    }
    Ok(())
}

fn field(value: &Value, number: u32, kind: Kind, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match kind {
        Kind::Text => delimited(number, text(value)?.as_bytes(), out),
        Kind::Hex => delimited(number, &hex_bytes(value)?, out),
        Kind::Base64 => delimited(number, &base64_bytes(value)?, out),
        Kind::Bool => {
            let flag = value
                .as_bool()
                .ok_or_else(|| misfit("true or false", value))?;
            varint(number, u64::from(flag), out);
        }
        Kind::Varint => varint(number, integer(value)? as u64, out),
        Kind::Zigzag => {
            let value = integer(value)?;
            varint(number, ((value << 1) ^ (value >> 63)) as u64, out);
        }
        Kind::Fixed32 => {
            let bits = u32::try_from(integer(value)?).map_err(|_| misfit("32 bits", value))?;
            encode_key(number, WireType::ThirtyTwoBit, out);
            out.extend_from_slice(&bits.to_le_bytes());
        }
        Kind::Fixed64 => fixed64(number, unsigned(value)?, out),
        Kind::SignedFixed64 => fixed64(number, integer(value)? as u64, out),
        Kind::Double => fixed64(number, double(value)?.to_bits(), out),
        Kind::Message(table) => {
            let mut inner = Vec::new();
            message(value, table(), &mut inner)?;
            delimited(number, &inner, out);
        }
        Kind::Messages(table) => {
            for_each(value, |element| {
                let mut inner = Vec::new();
                message(element, table(), &mut inner)?;
                delimited(number, &inner, out);
                Ok(())
            })?;
        }
        Kind::Fixed64s => for_each(value, |element| {
            fixed64(number, unsigned(element)?, out);
            Ok(())
        })?,
        Kind::Varints => for_each(value, |element| {
            varint(number, unsigned(element)?, out);
            Ok(())
        })?,
        Kind::Doubles => for_each(value, |element| {
            fixed64(number, double(element)?.to_bits(), out);
            Ok(())
        })?,
    }
    Ok(())
}

fn for_each(
    value: &Value,
    mut each: impl FnMut(&Value) -> Result<(), Misfit>,
) -> Result<(), Misfit> {
    let elements = value.as_array().ok_or_else(|| misfit("an array", value))?;
    for (at, element) in elements.iter().enumerate() {
        each(element).map_err(|misfit| misfit.below(format!("[{at}]")))?;
    }
    Ok(())
}

fn varint(number: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value, out);
}

fn fixed64(number: u32, bits: u64, out: &mut Vec<u8>) {
    encode_key(number, WireType::SixtyFourBit, out);
    out.extend_from_slice(&bits.to_le_bytes());
}

fn delimited(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn text(value: &Value) -> Result<&str, Misfit> {
    value.as_str().ok_or_else(|| misfit("a string", value))
}

fn hex_bytes(value: &Value) -> Result<Vec<u8>, Misfit> {
    let bad = || misfit("an even number of hexadecimal digits", value);
    let digits = text(value)?.as_bytes();
    let nibble = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(bad());
    }
    pairs
        .map(|pair| Some((nibble(pair[0])? << 4 | nibble(pair[1])?) as u8))
        .collect::<Option<_>>()
        .ok_or_else(bad)
}

fn base64_bytes(value: &Value) -> Result<Vec<u8>, Misfit> {
    const ANY_PADDING: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const PLAIN: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, ANY_PADDING);
    const FOR_URLS: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, ANY_PADDING);
    let text = text(value)?;
    let decoded = PLAIN.decode(text).or_else(|_| FOR_URLS.decode(text));
    decoded.map_err(|_| misfit("base64", value))
}

/// A signed integer; what only fits unsigned keeps its bits.
fn integer(value: &Value) -> Result<i64, Misfit> {
    whole(value)
        .and_then(|value| i64::try_from(value).ok())
        .ok_or_else(|| misfit("a 64-bit integer", value))
}

fn unsigned(value: &Value) -> Result<u64, Misfit> {
    whole(value)
        .and_then(|value| u64::try_from(value).ok())
        .ok_or_else(|| misfit("a 64-bit integer of 0 or more", value))
}

fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Number(number) => {
            let exact = number.as_i64().map(i128::from);
            exact
                .or_else(|| number.as_u64().map(i128::from))
                .or_else(|| {
                    let float = number.as_f64()?;
                    (float.fract() == 0.0 && float.abs() < 1e19).then_some(float as i128)
                })
        }
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn double(value: &Value) -> Result<f64, Misfit> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => text.parse().ok().filter(|number: &f64| number.is_finite()),
        },
        _ => None,
    };
    number.ok_or_else(|| misfit("a number, or \"NaN\", \"Infinity\" or \"-Infinity\"", value))
}

fn misfit(expected: &'static str, value: &Value) -> Misfit {
    const FOUND_MAX_CHARS: usize = 40;
    let found = match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        other => other.to_string().chars().take(FOUND_MAX_CHARS).collect(),
    };
    Misfit {
        path: Vec::new(),
        expected,
        found,
    }
}

impl Misfit {
    fn below(mut self, part: String) -> Self {
        self.path.push(part);
        self
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
    use prost::Message;

    use super::*;

    fn what(error: IngestError) -> String {
        match error {
            IngestError::Malformed { what, .. } => what,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn nan_and_infinity_survive() {
        let point = |value| {
            let text = format!(
                r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","gauge":
                {{"dataPoints":[{{"asDouble":{value},"timeUnixNano":"5"}}]}}}}]}}]}}]}}"#
            );
            let bytes = metrics(text.as_bytes()).unwrap();
            let request = ExportMetricsServiceRequest::decode(&bytes[..]).unwrap();
            let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
            let Some(metric::Data::Gauge(gauge)) = &metric.data else {
                panic!("a gauge went in");
            };
            match gauge.data_points[0].value {
                Some(number_data_point::Value::AsDouble(value)) => value,
                other => panic!("{other:?}"),
            }
        };
        assert!(point("\"NaN\"").is_nan());
        assert_eq!(point("\"Infinity\""), f64::INFINITY);
        assert_eq!(point("\"-Infinity\""), f64::NEG_INFINITY);
        assert_eq!(point("\"1.5\""), 1.5);
        assert_eq!(point("2"), 2.0);
    }

    #[test]
    fn a_misfit_names_its_place_and_what_was_expected() {
        for (text, want) in [
            ("[]", ": expected an object, found an array"),
            (
                r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"},{"name":7}]}]}]}"#,
                "resourceSpans[0].scopeSpans[0].spans[1].name: expected a string, found 7",
            ),
            (
                r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}"#,
                "resourceSpans[0].scopeSpans[0].spans[0].traceId: \
                 expected an even number of hexadecimal digits, found \"xyz\"",
            ),
            (
                r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":"SPAN_KIND_SERVER"}]}]}]}"#,
                "resourceSpans[0].scopeSpans[0].spans[0].kind: \
                 expected a 64-bit integer, found \"SPAN_KIND_SERVER\"",
            ),
            (
                r#"{"resourceSpans":{}}"#,
                "resourceSpans: expected an array, found an object",
            ),
        ] {
            assert_eq!(what(traces(text.as_bytes()).unwrap_err()), want);
        }
    }

    #[test]
    fn broken_json_names_the_byte() {
        let error = traces(b"{\n  \"resourceSpans\": [}").unwrap_err();
        assert!(
            matches!(error, IngestError::Malformed { offset: 22, .. }),
            "{error:?}"
        );
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(what(traces(deep.as_bytes()).unwrap_err()).contains("recursion limit"));
    }

    #[test]
    fn unknown_fields_and_nulls_are_skipped() {
        let text = br#"{"resourceSpans":[{"resource":null,"droppedThing":[1],"scopeSpans":[]}]}"#;
        assert_eq!(traces(text).unwrap(), [0x0a, 0x00]);
    }
}
