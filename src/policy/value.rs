//! Values as the language writes them: durations, shares, numbers.
//!
//! Each reader takes the text of a scalar and answers with the value or with what was
//! expected; each writer gives the shortest text that reads back to the same value.

/// Milliseconds in each unit of a duration, greatest first.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Milliseconds from a duration in Prometheus's notation: `90s`, `1h30m`, `500ms`, `0`.
/// Units go from great to small, each at most once; a number without a unit is no duration.
pub(super) fn duration_ms(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut total, mut units) = (text, 0i64, UNITS.iter());
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let amount: i64 = rest.get(..digits)?.parse().ok()?;
        let tail = rest.get(digits..)?;
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let name = tail.get(..letters)?;
        // The shared iterator makes each unit usable once and only in this order.
        let (_, unit_ms) = units.find(|(unit, _)| *unit == name)?;
        total = total.checked_add(amount.checked_mul(*unit_ms)?)?;
        rest = tail.get(letters..)?;
    }
    (!text.is_empty()).then_some(total)
}

/// The shortest duration that reads back to `ms`, for example `1h30m`; `0s` for none.
pub(super) fn format_duration(ms: i64) -> String {
    let (mut rest, mut text) = (ms.max(0), String::new());
    // Years and weeks are read but not written: `14d` is plainer than `2w`.
    for (unit, unit_ms) in UNITS.iter().skip(2) {
        if rest >= *unit_ms {
            text.push_str(&format!("{}{unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

/// A finite number, `12`, `0.5`, `1e3`.
pub(super) fn number(text: &str) -> Option<f64> {
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E');
    // Rust also reads `inf` and `nan`, which are no thresholds.
    if !text.chars().all(plain) {
        return None;
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// A share: `25%` or `0.25`. The sign and size are for the caller to judge.
pub(super) fn share(text: &str) -> Option<f64> {
    match text.strip_suffix('%') {
        None => number(text),
        // Moving the decimal point in the text, not in the number, makes `0.1%` and `0.001`
        // the same value to the last bit.
        Some(digits) => {
            let digits = digits.trim_end();
            if digits.contains(['e', 'E']) {
                return number(digits).map(|value| value / 100.0);
            }
            number(digits)?;
            format!("{digits}e-2").parse().ok()
        }
    }
}

/// A share in percent for people: `25 %`, `0.1 %`.
pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.6}", share * 100.0);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} %")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_prometheus_durations() {
        let cases = [
            ("2m", Some(120_000)),
            ("1h30m", Some(5_400_000)),
            ("500ms", Some(500)),
            ("1m30s500ms", Some(90_500)),
            ("1d", Some(86_400_000)),
            ("2w", Some(1_209_600_000)),
            ("0s", Some(0)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("5min", None),
            ("5 m", None),
            ("m", None),
            ("-5m", None),
            ("1.5h", None),
            ("30m1h", None),
            ("1m1m", None),
            ("99999999999y", None),
            ("99999999999999999999s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn shares_are_the_same_value_in_both_notations() {
        for (percent, plain) in [("0.1%", "0.001"), ("25%", "0.25"), ("99.9 %", "0.999")] {
            assert_eq!(share(percent), share(plain), "{percent}");
        }
        assert_eq!(share("1e1%"), Some(0.1));
        for wrong in [
            "", "%", "x%", "1%%", "inf", "nan", "1e999", "0x10", "1_000", ".%",
        ] {
            assert_eq!(share(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn percents_read_well() {
        assert_eq!(percent(0.001), "0.1 %");
        assert_eq!(percent(0.29), "29 %");
        assert_eq!(percent(1.0), "100 %");
    }

    proptest! {
        #[test]
        fn a_written_duration_reads_back(ms in 0i64..=40_000_000_000) {
            prop_assert_eq!(duration_ms(&format_duration(ms)), Some(ms));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,12}") {
            let _ = (duration_ms(&text), share(&text), number(&text));
        }
    }
}
