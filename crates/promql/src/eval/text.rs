//! Floats and quoted texts as Go prints them, in label values and in messages.

use std::fmt::Write as _;

/// The shortest decimal form without an exponent: Go's `strconv.FormatFloat(v, 'f', -1, 64)`.
pub(crate) fn decimal(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}

/// The shortest form, with an exponent for very large and small numbers: Go's `%g`.
pub(crate) fn shortest(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return decimal(value);
    }
    exponent_where(&format!("{value:e}"), 6)
}

/// At most two digits: Go's `%.2g`.
pub(crate) fn two_digits(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return decimal(value);
    }
    exponent_where(&format!("{value:.1e}"), 2)
}

/// `scientific`, such as `1.5e-7`, as `%g` writes it: with a sign and two digits in the
/// exponent, or without an exponent where it lies in `-4..limit`.
fn exponent_where(scientific: &str, limit: i32) -> String {
    let (digits, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let digits = match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    };
    if !(-4..limit).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    // The digits are exact, so that reading them again gives the number to print.
    let value: f64 = format!("{digits}e{exponent}").parse().unwrap_or(f64::NAN);
    decimal(value)
}

/// A quantile as a label value, as OpenMetrics writes floats: whole numbers keep a decimal.
pub(crate) fn quantile_label(q: f64) -> String {
    let mut text = shortest(q);
    if q.is_finite() && !text.contains(['.', 'e']) {
        text.push_str(".0");
    }
    text
}

/// A text in double quotes with Go's escapes.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => push(&mut out, format_args!("\\x{:02x}", u32::from(c))),
            c if !is_printed(c) && u32::from(c) > 0xffff => {
                push(&mut out, format_args!("\\U{:08x}", u32::from(c)));
            }
            c if !is_printed(c) => push(&mut out, format_args!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = out.write_fmt(text);
}

/// Whether Go prints the character as it is: of blanks only the ASCII one, nothing invisible.
fn is_printed(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // What Rust escapes for its own reasons but is visible: marks that combine.
    let is_escaped = c.escape_debug().len() > 1;
    !c.is_whitespace() && !c.is_control() && (!is_escaped || ('\u{300}'..'\u{370}').contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_in_go() {
        assert_eq!(quoted("a\"b\\\n\u{7f}\u{1}"), r#""a\"b\\\n\x7f\x01""#);
        assert_eq!(quoted("ü e\u{301} 世"), "\"ü e\u{301} 世\"");
        assert_eq!(
            quoted("\u{a0}\u{200b}\u{10ffff}"),
            r#""\u00a0\u200b\U0010ffff""#
        );
    }

    #[test]
    fn numbers_print_as_in_go() {
        let numbers = [0.5, 123456.0, 1e6, 1.5e-5, 0.0001, -2e300, f64::NAN, -0.0];
        let wanted = [
            "0.5", "123456", "1e+06", "1.5e-05", "0.0001", "-2e+300", "NaN", "-0",
        ];
        assert_eq!(numbers.map(shortest), wanted);
        let two = [0.123, 99.4, 120.0, 1.0, 0.00001].map(two_digits);
        assert_eq!(two, ["0.12", "99", "1.2e+02", "1", "1e-05"]);
        assert_eq!(decimal(1e21), "1000000000000000000000");
        assert_eq!(decimal(f64::INFINITY), "+Inf");
        let labels = [1.0, 0.5, 2e6, f64::INFINITY].map(quantile_label);
        assert_eq!(labels, ["1.0", "0.5", "2e+06", "+Inf"]);
    }
}
