//! Numbers, durations and strings as PromQL writes them.
//!
//! Numbers go through Go's `ParseInt` with base 0 and then `ParseFloat`: a leading zero
//! makes an integer octal, underscores may part the digits of an integer. Strings have
//! Go's escapes. Labels here are UTF-8, so an escape that makes other bytes is an error in a
//! matcher, where Prometheus would accept it; a string by itself may have any.

const UNITS: [(&str, f64); 7] = [
    ("y", 365.0 * 86_400.0),
    ("w", 7.0 * 86_400.0),
    ("d", 86_400.0),
    ("h", 3_600.0),
    ("m", 60.0),
    ("s", 1.0),
    ("ms", 0.001),
];

/// The longest duration, in seconds: what 63 bits of nanoseconds hold.
pub(crate) const DURATION_MAX_SECONDS: f64 = 9_223_372_036.0;

/// The value of a number literal.
pub(crate) fn number(text: &str) -> Option<f64> {
    if text.eq_ignore_ascii_case("inf") {
        return Some(f64::INFINITY);
    }
    if text.eq_ignore_ascii_case("nan") {
        return Some(f64::NAN);
    }
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let hex = hex.strip_prefix('_').unwrap_or(hex);
        return integer(hex, 16);
    }
    if text.len() > 1
        && text.starts_with('0')
        && let Some(octal) = integer(text, 8)
    {
        return Some(octal);
    }
    integer(text, 10).or_else(|| float(text))
}

fn integer(digits: &str, radix: u32) -> Option<f64> {
    let separated = digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    let plain = |c: char| c.is_digit(radix) || c == '_';
    if digits.is_empty() || separated || !digits.chars().all(plain) {
        return None;
    }
    i64::from_str_radix(&digits.replace('_', ""), radix)
        .ok()
        .map(|value| value as f64)
}

fn float(text: &str) -> Option<f64> {
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    let has_digit = text.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    (has_digit && text.chars().all(plain))
        .then(|| text.parse().ok())
        .flatten()
}

/// Whether `text` is digits and units in falling order; its size is not checked.
pub(crate) fn looks_like_duration(text: &str) -> bool {
    duration_parts(text).is_some()
}

/// The seconds of a duration such as `1h30m`; `None` where it is none or too long.
pub(crate) fn duration(text: &str) -> Option<f64> {
    let parts = duration_parts(text)?;
    // Whole milliseconds first: a sum of fractions of a second would round.
    let ms: f64 = parts
        .iter()
        .map(|(count, unit)| count * (unit * 1000.0).round())
        .sum();
    let seconds = ms / 1000.0;
    (seconds <= DURATION_MAX_SECONDS).then_some(seconds)
}

fn duration_parts(text: &str) -> Option<Vec<(f64, f64)>> {
    let mut parts = Vec::new();
    let (mut rest, mut next_unit) = (text, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..]
            .bytes()
            .take_while(u8::is_ascii_alphabetic)
            .count();
        let unit = &rest[digits..digits + letters];
        let at = UNITS
            .iter()
            .skip(next_unit)
            .position(|(name, _)| *name == unit)?
            + next_unit;
        parts.push((rest[..digits].parse().ok()?, UNITS[at].1));
        next_unit = at + 1;
        rest = &rest[digits + letters..];
    }
    (!parts.is_empty()).then_some(parts)
}

/// The shortest way to write whole milliseconds as a duration; `None` where `seconds` is
/// not a whole and positive number of them.
pub(crate) fn format_duration(seconds: f64) -> Option<String> {
    let ms = seconds * 1000.0;
    let whole = ms.round();
    if !(0.0..=DURATION_MAX_SECONDS * 1000.0).contains(&ms) || (ms - whole).abs() > 1e-6 {
        return None;
    }
    let mut left = whole as i64;
    if left == 0 {
        return Some("0s".to_owned());
    }
    let mut out = String::new();
    for (name, unit) in UNITS {
        let unit_ms = (unit * 1000.0).round() as i64;
        // Years and weeks only where nothing is left over: 1y1d reads worse than 366d.
        let exact_only = matches!(name, "y" | "w");
        if left >= unit_ms && (!exact_only || left % unit_ms == 0) {
            out.push_str(&format!("{}{name}", left / unit_ms));
            left %= unit_ms;
        }
    }
    Some(out)
}

/// The text of a string literal, quotes included.
///
/// # Errors
/// What is wrong with an escape, and where escapes make no UTF-8.
pub(crate) fn unquote(literal: &str) -> Result<String, String> {
    String::from_utf8(unquote_bytes(literal)?).map_err(|_| {
        "its escapes make bytes that are not UTF-8; expected valid UTF-8 text".to_owned()
    })
}

/// As [`unquote`], whatever bytes escapes make.
///
/// # Errors
/// What is wrong with an escape.
pub(crate) fn unquote_bytes(literal: &str) -> Result<Vec<u8>, String> {
    let mut chars = literal.chars();
    let quote = chars.next().ok_or("expected a string")?;
    let inner = literal
        .get(1..literal.len().saturating_sub(1))
        .ok_or("expected a string")?;
    if quote == '`' {
        return Ok(inner.as_bytes().to_vec());
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c == '\\' {
            escape(&mut rest, quote, &mut bytes)?;
        } else {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Ok(bytes)
}

fn escape(rest: &mut std::str::Chars<'_>, quote: char, bytes: &mut Vec<u8>) -> Result<(), String> {
    let c = rest
        .next()
        .ok_or("expected a character after the backslash")?;
    let simple = match c {
        'a' => Some(0x07),
        'b' => Some(0x08),
        'f' => Some(0x0c),
        'n' => Some(b'\n'),
        'r' => Some(b'\r'),
        't' => Some(b'\t'),
        'v' => Some(0x0b),
        '\\' => Some(b'\\'),
        c if c == quote => Some(c as u8),
        _ => None,
    };
    if let Some(byte) = simple {
        bytes.push(byte);
        return Ok(());
    }
    let (radix, length, first) = match c {
        'x' => (16, 2, None),
        'u' => (16, 4, None),
        'U' => (16, 8, None),
        '0'..='7' => (8, 3, Some(c)),
        c => {
            return Err(format!(
                "unknown escape sequence \\{c}; expected \\n, \\t, \\\\, \\{quote}, \\xhh, \
                 \\uhhhh, or a raw string in backquotes"
            ));
        }
    };
    let digits: String = first
        .into_iter()
        .chain(rest.by_ref().take(length - usize::from(first.is_some())))
        .collect();
    let code = u32::from_str_radix(&digits, radix)
        .ok()
        .filter(|_| digits.len() == length && !digits.starts_with('+'))
        .ok_or_else(|| format!("expected {length} digits of base {radix} in the escape \\{c}"))?;
    if radix == 8 || length == 2 {
        let byte = u8::try_from(code).map_err(|_| format!("\\{digits} is above \\377"))?;
        bytes.push(byte);
        return Ok(());
    }
    let code =
        char::from_u32(code).ok_or_else(|| format!("\\{c}{digits} is not a Unicode code point"))?;
    bytes.extend_from_slice(code.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(())
}

/// Whether `name` is a metric name that needs no quotes.
pub(crate) fn is_plain_metric_name(name: &str) -> bool {
    let start = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | ':');
    name.starts_with(start) && name.chars().all(|c| start(c) || c.is_ascii_digit())
}

/// Whether `name` is a label name that needs no quotes.
pub(crate) fn is_plain_label_name(name: &str) -> bool {
    is_plain_metric_name(name) && !name.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        assert_eq!(number("010"), Some(8.0), "a leading zero means octal");
        assert_eq!(number("08"), Some(8.0), "but not where it can't");
        assert_eq!(number("1_000"), Some(1000.0));
        assert_eq!(number("1_000.5"), None);
        assert_eq!(number("0x1F"), Some(31.0));
        assert_eq!(number("0x1p4"), None, "no hexadecimal floats");
        assert_eq!(number("2."), Some(2.0));
        assert_eq!(number(".5"), Some(0.5));
        assert_eq!(number("99999999999999999999"), Some(1e20));
        assert_eq!(number("_1"), None);
        assert_eq!(number("5m"), None);
    }

    #[test]
    fn durations_are_exact_to_the_millisecond() {
        assert_eq!(duration("1h30m"), Some(5400.0));
        assert_eq!(duration("1s1ms"), Some(1.001));
        assert_eq!(duration("1y"), Some(31_536_000.0));
        assert_eq!(duration("30m1h"), None);
        assert_eq!(duration("293y"), None, "longer than 63 bits of nanoseconds");
        for text in ["5m", "1h30m", "1d2h", "15ms", "2w", "1m0s"] {
            let seconds = duration(text).unwrap();
            let printed = format_duration(seconds).unwrap();
            assert_eq!(duration(&printed), Some(seconds), "{text} as {printed}");
        }
    }

    #[test]
    fn strings_have_gos_escapes() {
        assert_eq!(
            unquote(r#""a\tb\"\x41\u00fc\101""#).as_deref(),
            Ok("a\tb\"Aü A".replace(' ', "").as_str())
        );
        assert_eq!(unquote(r"`a\t`").as_deref(), Ok(r"a\t"));
        assert_eq!(unquote(r"'it\'s'").as_deref(), Ok("it's"));
        for bad in [
            r#""\q""#,
            r#""\xff""#,
            r#""\x4""#,
            r#""\'""#,
            r#""\ud800""#,
            r#""\477""#,
        ] {
            assert!(unquote(bad).is_err(), "{bad}");
        }
    }
}
