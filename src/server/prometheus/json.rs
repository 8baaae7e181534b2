//! Bytes of JSON as Prometheus writes them.
//!
//! Clients compare texts, so numbers are written to the letter (formats of Go's `strconv` and
//! of `util/jsonutil` in Prometheus):
//!
//! - A time is a number of seconds: whole, or with exactly three decimals.
//! - A sample's value is a string: the shortest digits that read back as the same float,
//!   without an exponent from 1e-6 up to 1e21 and with one (of two digits at least) beyond.
//! - A scalar never has an exponent, and its time has no trailing zeros.
//! - Texts escape `<`, `>` and `&`, so that a page can embed the answer; names and values of
//!   labels don't, because Prometheus doesn't there.
//!
//! Results have millions of numbers: everything is appended to one buffer, nothing is built
//! up as a tree first.

use slogate_series::{Exemplar, Histogram, Labels, Value};

/// Appends what is JSON already.
pub(super) fn raw(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// A text, safe inside HTML.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    string(out, text, true);
}

/// A list of texts.
pub(super) fn texts<T: AsRef<str>>(out: &mut Vec<u8>, texts: &[T]) {
    list(out, texts, |out, one| text(out, one.as_ref()));
}

/// A list of whatever `write` makes of the items.
pub(super) fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (n, item) in items.into_iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

fn string(out: &mut Vec<u8>, text: &str, for_html: bool) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape: &str = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            b'<' if for_html => "\\u003c",
            b'>' if for_html => "\\u003e",
            b'&' if for_html => "\\u0026",
            // U+2028 and U+2029: line ends to JavaScript.
            0xe2 if for_html && bytes.get(at + 1..at + 3) == Some(&[0x80, 0xa8]) => "\\u2028",
            0xe2 if for_html && bytes.get(at + 1..at + 3) == Some(&[0x80, 0xa9]) => "\\u2029",
            0..=0x1f => "",
            _ => continue,
        };
        out.extend_from_slice(bytes.get(written..at).unwrap_or_default());
        written = at + if *byte == 0xe2 { 3 } else { 1 };
        if escape.is_empty() {
            let hex = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(*byte)]);
        } else {
            out.extend_from_slice(escape.as_bytes());
        }
    }
    out.extend_from_slice(bytes.get(written..).unwrap_or_default());
    out.push(b'"');
}

/// A label set as an object.
pub(super) fn labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (n, label) in labels.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        string(out, &label.name, false);
        out.push(b':');
        string(out, &label.value, false);
    }
    out.push(b'}');
}

/// A time in seconds, of one in milliseconds.
pub(super) fn time(out: &mut Vec<u8>, t_ms: i64) {
    if t_ms < 0 {
        out.push(b'-');
    }
    let ms = t_ms.unsigned_abs();
    integer(out, ms / 1000);
    let fraction = ms % 1000;
    if fraction != 0 {
        let digit = |n: u64| b'0' + u8::try_from(n % 10).unwrap_or(0);
        let digits = [
            b'.',
            digit(fraction / 100),
            digit(fraction / 10),
            digit(fraction),
        ];
        out.extend_from_slice(&digits);
    }
}

/// A time as RFC 3339, in quotes; 0 is "never", as Go writes that.
pub(super) fn date(out: &mut Vec<u8>, t_ms: i64) {
    let time = jiff::Timestamp::from_millisecond(t_ms);
    match time {
        Ok(time) if t_ms != 0 => text(out, &time.to_string()),
        _ => text(out, "0001-01-01T00:00:00Z"),
    }
}

/// A time as scalars and texts have it: without trailing zeros.
fn short_time(out: &mut Vec<u8>, t_ms: i64) {
    time(out, t_ms);
    if t_ms % 1000 != 0 {
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

fn integer(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(n % 10).unwrap_or(0);
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A sample's value, in quotes.
pub(super) fn value(out: &mut Vec<u8>, value: f64) {
    out.push(b'"');
    float(out, value);
    out.push(b'"');
}

/// A number of seconds or the like, as JSON has it. Never NaN or infinite.
pub(super) fn number(out: &mut Vec<u8>, value: f64) {
    float(out, if value.is_finite() { value } else { 0.0 });
}

/// The format of samples.
fn float(out: &mut Vec<u8>, value: f64) {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        exponential(out, value);
    } else {
        plain(out, value);
    }
}

/// Without an exponent.
fn plain(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() {
        return raw(out, not_finite(value));
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    let size = value.abs();
    if size < 1e15 && size.trunc() == size {
        // Exact: whole and below 2^53.
        return integer(out, size as u64);
    }
    let mut buffer = zmij::Buffer::new();
    let shortest = buffer.format_finite(size);
    if !shortest.contains('e') {
        return raw(out, shortest.strip_suffix(".0").unwrap_or(shortest));
    }
    let (digits, exponent) = digits_of(shortest);
    let zeros = |count: usize| "0".repeat(count);
    match usize::try_from(exponent) {
        // Numbers of this size have no digits after the point.
        Ok(exponent) => {
            raw(out, &digits);
            raw(out, &zeros((exponent + 1).saturating_sub(digits.len())));
        }
        Err(_) => {
            raw(out, "0.");
            raw(out, &zeros(exponent.unsigned_abs() as usize - 1));
            raw(out, &digits);
        }
    }
}

/// `1.5e+22`: the exponent with its sign and two digits at least.
pub(super) fn exponential(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() {
        return raw(out, not_finite(value));
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    let mut buffer = zmij::Buffer::new();
    let (digits, exponent) = digits_of(buffer.format_finite(value.abs()));
    let (first, rest) = digits.split_at(digits.len().min(1));
    raw(out, first);
    if !rest.is_empty() {
        raw(out, ".");
        raw(out, rest);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    raw(out, &format!("e{sign}{:02}", exponent.unsigned_abs()));
}

/// The digits of a positive number, `15` of `0.015` and `1.5e300`, and the power of ten of the
/// first one. Of two shortest ways to write a number this takes the even one, as Go does and
/// Rust's own formatting does not.
fn digits_of(shortest: &str) -> (String, i32) {
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let leading = all.len() - all.trim_start_matches('0').len();
    let digits = all.trim_matches('0');
    let first = whole.len() as i32 - 1 - leading as i32;
    match digits {
        "" => ("0".to_owned(), 0),
        digits => (digits.to_owned(), first + exponent),
    }
}

fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    }
}

/// A scalar result: `[time, "value"]`.
pub(super) fn scalar(out: &mut Vec<u8>, t_ms: i64, value: f64) {
    out.push(b'[');
    short_time(out, t_ms);
    raw(out, ",\"");
    plain(out, value);
    raw(out, "\"]");
}

/// A string result: `[time, "text"]`.
pub(super) fn string_result(out: &mut Vec<u8>, t_ms: i64, value: &str) {
    out.push(b'[');
    short_time(out, t_ms);
    out.push(b',');
    text(out, value);
    out.push(b']');
}

/// `[time, "value"]`, or `[time, {histogram}]`.
pub(super) fn point(out: &mut Vec<u8>, t_ms: i64, sample: &Value) {
    out.push(b'[');
    time(out, t_ms);
    out.push(b',');
    match sample {
        Value::Float(float) => value(out, *float),
        Value::Histogram(histogram) => self::histogram(out, histogram),
    }
    out.push(b']');
}

/// Which of its bounds a bucket includes.
#[derive(Clone, Copy)]
enum Bounds {
    Upper = 0,
    Lower = 1,
    Both = 3,
}

fn histogram(out: &mut Vec<u8>, histogram: &Histogram) {
    raw(out, "{\"count\":");
    value(out, histogram.count);
    raw(out, ",\"sum\":");
    value(out, histogram.sum);
    let mut is_first = true;
    let mut bucket = |bounds: Bounds, lower: f64, upper: f64, count: f64| {
        if count == 0.0 {
            return;
        }
        raw(out, if is_first { ",\"buckets\":[[" } else { ",[" });
        is_first = false;
        out.push(b'0' + bounds as u8);
        for number in [lower, upper, count] {
            out.push(b',');
            value(out, number);
        }
        out.push(b']');
    };
    // A bucket that reaches into the zero bucket ends where that begins.
    let zero = histogram.zero_threshold;
    let clear_of_zero = |bound: f64| if bound < zero { zero } else { bound };
    if histogram.has_custom_bounds() {
        for (index, count) in histogram.positive.iter() {
            let (mut lower, upper) = histogram.bounds(index);
            if index == 0 {
                lower = f64::NEG_INFINITY;
            }
            let bounds = if index == 0 {
                Bounds::Both
            } else {
                Bounds::Upper
            };
            bucket(bounds, lower, upper, count);
        }
    } else {
        for (index, count) in histogram.negative.iter().rev() {
            let (lower, upper) = histogram.bounds(index);
            bucket(Bounds::Lower, -upper, -clear_of_zero(lower), count);
        }
        if histogram.zero_count > 0.0 {
            bucket(Bounds::Both, -zero, zero, histogram.zero_count);
        }
        for (index, count) in histogram.positive.iter() {
            let (lower, upper) = histogram.bounds(index);
            bucket(Bounds::Upper, clear_of_zero(lower), upper, count);
        }
    }
    raw(out, if is_first { "}" } else { "]}" });
}

/// An exemplar: exactly the three keys that clients know.
pub(super) fn exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    raw(out, "{\"labels\":");
    labels(out, &exemplar.labels);
    raw(out, ",\"value\":");
    value(out, exemplar.value);
    raw(out, ",\"timestamp\":");
    time(out, exemplar.t_ms);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slogate_series::histogram::{Buckets, CUSTOM_SCHEMA};

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_have_gos_shortest_digits() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-17.0, "-17"),
            (0.1, "0.1"),
            (0.000001, "0.000001"),
            (0.00000123, "0.00000123"),
            (9.99e-7, "9.99e-07"),
            (1e-7, "1e-07"),
            (-1.5e-300, "-1.5e-300"),
            (123456789.125, "123456789.125"),
            (1e15, "1000000000000000"),
            (1e15 + 0.5, "1000000000000000.5"),
            (9007199254740993.0, "9007199254740992"),
            // As near to .3, which is odd.
            (1e15 + 0.25, "1000000000000000.2"),
            (1e20, "100000000000000000000"),
            (123456789012345678901.0, "123456789012345680000"),
            (1e21, "1e+21"),
            (1.5e22, "1.5e+22"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (value, expected) in cases {
            assert_eq!(written(|out| float(out, value)), expected);
        }
    }

    #[test]
    fn scalars_never_have_an_exponent() {
        let cases = [
            (1e-7, "0.0000001"),
            (123456789012345678901234.0, "123456789012345690000000"),
            (-0.0, "-0"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
        ];
        for (value, expected) in cases {
            let expected = format!("[4,\"{expected}\"]");
            assert_eq!(written(|out| scalar(out, 4_000, value)), expected);
        }
        assert_eq!(
            written(|out| scalar(out, 1_435_781_430_050, 1.0)),
            "[1435781430.05,\"1\"]"
        );
        assert_eq!(
            written(|out| string_result(out, 1_435_781_430_700, "a<b\"")),
            "[1435781430.7,\"a\\u003cb\\\"\"]"
        );
    }

    #[test]
    fn alerts_have_exponents_always() {
        assert_eq!(written(|out| exponential(out, 1.0)), "1e+00");
        assert_eq!(written(|out| exponential(out, -0.0)), "-0e+00");
        assert_eq!(written(|out| exponential(out, 0.015)), "1.5e-02");
        assert_eq!(written(|out| exponential(out, 123.5)), "1.235e+02");
        assert_eq!(written(|out| exponential(out, f64::NAN)), "NaN");
    }

    #[test]
    fn times_are_whole_or_have_three_decimals() {
        let cases = [
            (0, "0"),
            (1, "0.001"),
            (-1, "-0.001"),
            (10, "0.010"),
            (999, "0.999"),
            (-1_500, "-1.500"),
            (1_435_781_430_000, "1435781430"),
            (1_435_781_430_781, "1435781430.781"),
            (1_435_781_430_050, "1435781430.050"),
            (i64::MIN, "-9223372036854775.808"),
        ];
        for (t_ms, expected) in cases {
            assert_eq!(written(|out| time(out, t_ms)), expected);
        }
    }

    #[test]
    fn texts_are_safe_in_html_and_labels_are_as_prometheus_has_them() {
        assert_eq!(
            written(|out| text(
                out,
                "a<b>&\"\\\n\r\t\u{1}\u{1f}\u{7f}ü\u{2028}\u{2029}\u{2030}"
            )),
            "\"a\\u003cb\\u003e\\u0026\\\"\\\\\\n\\r\\t\\u0001\\u001f\u{7f}ü\\u2028\\u2029\u{2030}\""
        );
        let set = Labels::from_pairs([("__name__", "up"), ("path", "/<id>?a&b\"\n")]);
        assert_eq!(
            written(|out| labels(out, &set)),
            r#"{"__name__":"up","path":"/<id>?a&b\"\n"}"#
        );
    }

    #[test]
    fn histograms_list_their_buckets_from_the_lowest() {
        let native = Histogram {
            schema: 0,
            zero_threshold: 0.25,
            zero_count: 2.0,
            count: 10.0,
            sum: 12.5,
            positive: Buckets::from_sorted(vec![(-1, 1.0), (1, 3.0), (2, 0.0)]),
            negative: Buckets::from_sorted(vec![(0, 1.0), (1, 3.0)]),
            ..Histogram::default()
        };
        assert_eq!(
            written(|out| histogram(out, &native)),
            "{\"count\":\"10\",\"sum\":\"12.5\",\"buckets\":[[1,\"-2\",\"-1\",\"3\"],\
             [1,\"-1\",\"-0.5\",\"1\"],[3,\"-0.25\",\"0.25\",\"2\"],\
             [0,\"0.25\",\"0.5\",\"1\"],[0,\"1\",\"2\",\"3\"]]}"
        );
        let custom = Histogram {
            schema: CUSTOM_SCHEMA,
            count: 6.0,
            sum: f64::NAN,
            positive: Buckets::from_sorted(vec![(0, 1.0), (1, 2.0), (2, 3.0)]),
            custom_bounds: [0.5, 1.0].into(),
            ..Histogram::default()
        };
        assert_eq!(
            written(|out| histogram(out, &custom)),
            "{\"count\":\"6\",\"sum\":\"NaN\",\"buckets\":[[3,\"-Inf\",\"0.5\",\"1\"],\
             [0,\"0.5\",\"1\",\"2\"],[0,\"1\",\"+Inf\",\"3\"]]}"
        );
        assert_eq!(
            written(|out| histogram(out, &Histogram::default())),
            "{\"count\":\"0\",\"sum\":\"0\"}"
        );
    }

    proptest! {
        /// Whatever the path that writes it, a value is the shortest text that reads back.
        #[test]
        fn values_read_back_as_the_same_float(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = written(|out| float(out, value));
            let digits = |text: &str| -> String {
                let mantissa = text.split('e').next().unwrap_or("");
                let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
                digits.trim_matches('0').to_owned()
            };
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
            // The last digit may be another: of two that are as near, the even one is written.
            prop_assert_eq!(digits(&text).len(), digits(&format!("{value:e}")).len(), "{}", text);
            let scalar = written(|out| plain(out, value));
            prop_assert_eq!(scalar.parse::<f64>().unwrap().to_bits(), bits);
            prop_assert!(!scalar.contains('e'), "{}", scalar);
        }

        #[test]
        fn small_values_are_written_as_the_library_writes_them(value in -1e9..1e9_f64) {
            prop_assume!(value.abs() >= 1e-6);
            prop_assert_eq!(written(|out| float(out, value)), value.to_string());
        }

        #[test]
        fn any_text_is_valid_json_and_comes_back(given in "\\PC{0,20}|[\u{0}-\u{7f}\u{2020}-\u{2030}]{0,20}") {
            let html = written(|out| text(out, &given));
            let plain = written(|out| string(out, &given, false));
            prop_assert_eq!(serde_json::from_str::<String>(&html).unwrap(), given.clone());
            prop_assert_eq!(serde_json::from_str::<String>(&plain).unwrap(), given);
            prop_assert!(!html.contains(['<', '>', '&']));
        }
    }
}
