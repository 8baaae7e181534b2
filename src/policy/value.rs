//! Values as the language writes them: durations, shares, numbers.
//!
//! Each reader takes the text of a scalar and answers with the value or with what was
//! expected; each writer gives the shortest text that reads back to the same value.

pub(super) use crate::model::time::{duration_ms, format_duration};

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
        fn any_text_is_read_or_refused(text in ".{0,12}") {
            let _ = (share(&text), number(&text));
        }
    }
}
