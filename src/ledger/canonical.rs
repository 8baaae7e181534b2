//! Canonical JSON as in RFC 8785, the JSON Canonicalization Scheme.
//!
//! One value has one text: no spaces, object members sorted by the UTF-16 code units of their
//! names, strings with the fewest escapes, numbers as ECMAScript's `Number::toString` writes
//! them. Anyone can recompute a hash over it, in any language.
//!
//! All numbers are IEEE 754 doubles there. An integer that a double can't hold exactly is
//! refused rather than changed; NaN and infinity, which JSON lacks, are refused too.

use serde_json::Value;

/// Why a value has no canonical form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// The number is NaN or infinite, or an integer that a double can't hold.
    #[error("{0} has no canonical form: numbers are doubles, finite, and integers exact")]
    Number(String),
    /// The value can't be expressed in JSON at all.
    #[error("not expressible as JSON: {0}")]
    NotJson(String),
}

/// The canonical text of `value`.
///
/// # Errors
/// When a number in it has no canonical form.
pub fn to_canonical(value: &Value) -> Result<String, CanonicalError> {
    let mut out = String::new();
    write_value(&mut out, value)?;
    Ok(out)
}

/// The canonical text of anything that serialises to JSON.
///
/// # Errors
/// When it does not serialise, or a number in it has no canonical form.
pub fn canonical_of<T: serde::Serialize>(value: &T) -> Result<String, CanonicalError> {
    let value =
        serde_json::to_value(value).map_err(|error| CanonicalError::NotJson(error.to_string()))?;
    to_canonical(&value)
}

/// A number as ECMAScript's `Number::toString` writes it (ECMA-262 §6.1.6.1.20).
///
/// # Errors
/// For NaN and infinity.
pub fn number_text(number: f64) -> Result<String, CanonicalError> {
    if !number.is_finite() {
        return Err(CanonicalError::Number(number.to_string()));
    }
    if number == 0.0 {
        return Ok("0".to_owned());
    }
    // Rust prints the shortest digits that read back as the same double, as `d.ddde-n`. Where
    // two such are equally near, ECMAScript wants the even one: rounding to that many digits
    // gives it.
    let shortest = format!("{:e}", number.abs());
    let places = shortest.find('e').unwrap_or(0).saturating_sub(2);
    let rounded = format!("{:.places$e}", number.abs());
    let scientific = match rounded.parse() == Ok(number.abs()) {
        true => rounded,
        false => shortest,
    };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if number < 0.0 { "-" } else { "" };
    Ok(format!("{sign}{}", lay_out(&digits, exponent + 1)))
}

/// Places the point: the value is `0.digits` times ten to the power of `point`.
fn lay_out(digits: &str, point: i32) -> String {
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    match point {
        _ if count <= point && point <= 21 => format!("{digits}{}", zeros(point - count)),
        1..=21 => {
            let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
            format!("{whole}.{fraction}")
        }
        -5..=0 => format!("0.{}{digits}", zeros(-point)),
        _ => {
            let exponent = point - 1;
            let sign = if exponent < 0 { '-' } else { '+' };
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            format!("{first}{dot}{rest}e{sign}{}", exponent.abs())
        }
    }
}

fn write_value(out: &mut String, value: &Value) -> Result<(), CanonicalError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => out.push_str(&json_number(number)?),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_value(out, item)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (n, (name, member)) in members.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_string(out, name);
                out.push(':');
                write_value(out, member)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn json_number(number: &serde_json::Number) -> Result<String, CanonicalError> {
    let refuse = || CanonicalError::Number(number.to_string());
    let double = number.as_f64().ok_or_else(refuse)?;
    let exact = match (number.as_i64(), number.as_u64()) {
        (Some(integer), _) => double as i128 == i128::from(integer),
        (None, Some(integer)) => double as i128 == i128::from(integer),
        (None, None) => true,
    };
    if !exact {
        return Err(refuse());
    }
    number_text(double)
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// RFC 8785 §3.2.2 and §3.2.3, and its figure of sorted properties.
    #[test]
    fn published_examples_come_out_as_published() {
        let value = json!({
            "numbers": [333_333_333.333_333_3, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u{20ac}$\u{f}\nA'\u{42}\"\\\\\"/",
            "literals": [null, true, false]
        });
        assert_eq!(
            to_canonical(&value).unwrap(),
            "{\"literals\":[null,true,false],\
             \"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
             \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
        let names = json!({
            "\u{20ac}": "Euro Sign",
            "\r": "Carriage Return",
            "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
            "1": "One",
            "\u{1f600}": "Emoji: Grinning Face",
            "\u{80}": "Control",
            "\u{f6}": "Latin Small Letter O With Diaeresis"
        });
        assert_eq!(
            to_canonical(&names).unwrap(),
            "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\
             \"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",\
             \"\u{1f600}\":\"Emoji: Grinning Face\",\
             \"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}"
        );
    }

    /// RFC 8785 appendix B.
    #[test]
    fn numbers_come_out_as_published() {
        let samples: [(u64, &str); 22] = [
            (0x0000_0000_0000_0000, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0xc340_0000_0000_0000, "-9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0x41b3_de43_5555_5555, "333333333.3333333"),
            (0x41b3_de43_5555_5557, "333333333.33333343"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
            (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
        ];
        for (bits, text) in samples {
            assert_eq!(number_text(f64::from_bits(bits)).unwrap(), text);
        }
        for none in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(number_text(none).is_err());
        }
    }

    #[test]
    fn an_integer_that_would_change_is_refused() {
        assert_eq!(
            to_canonical(&json!(9_007_199_254_740_992u64)).unwrap(),
            "9007199254740992"
        );
        for inexact in [
            json!(9_007_199_254_740_993u64),
            json!(u64::MAX),
            json!(i64::MAX),
        ] {
            assert!(to_canonical(&inexact).is_err(), "{inexact}");
        }
        assert_eq!(
            to_canonical(&json!(i64::MIN)).unwrap(),
            "-9223372036854776000"
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("finite", |n| n.is_finite())
                .prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_double_reads_back(bits: u64) {
            let number = f64::from_bits(bits);
            if let Ok(text) = number_text(number) {
                prop_assert_eq!(text.parse::<f64>().unwrap(), number);
            }
        }

        #[test]
        fn canonical_text_is_json_of_the_same_shape(value in any_json()) {
            let text = to_canonical(&value).unwrap();
            let back: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(shape(&back), shape(&value));
        }
    }

    /// A value without its numbers, which JSON readers may round differently in the last digit.
    fn shape(value: &Value) -> Value {
        match value {
            Value::Number(_) => json!(0),
            Value::Array(items) => items.iter().map(shape).collect(),
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(name, member)| (name.clone(), shape(member)))
                    .collect(),
            ),
            other => other.clone(),
        }
    }
}
