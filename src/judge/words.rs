//! Numbers in words, as a person at 3 a.m. wants to read them.

/// A share as percent with as many digits as it needs: `0.13 %`, `1.9 %`, `42 %`.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = match percent.abs() {
        value if value >= 9.95 => 0,
        value if value >= 0.995 => 1,
        value if value >= 0.0995 || value == 0.0 => 2,
        _ => 3,
    };
    format!("{} %", trim(percent, digits))
}

/// A confidence as percent, never rounded up to certainty: `99.5 %`.
pub(crate) fn confidence(share: f64) -> String {
    let tenths = (share * 1000.0 + 1e-6).floor().clamp(0.0, 999.0);
    format!("{} %", trim(tenths / 10.0, 1))
}

/// A count with thousands separated: `203,118`. Adjusted counts are rounded.
pub(crate) fn count(value: f64) -> String {
    let digits = format!("{:.0}", value.max(0.0));
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A ratio with two or three figures: `9.4`, `1.08`, `120`.
pub(crate) fn ratio(value: f64) -> String {
    let digits = match value {
        value if value >= 99.5 => 0,
        value if value >= 1.95 => 1,
        _ => 2,
    };
    trim(value, digits)
}

/// Seconds for people: `180 ms`, `1.25 s`.
pub(crate) fn seconds(value: f64) -> String {
    if value < 0.000_999_5 {
        return format!("{} µs", trim(value * 1e6, 0));
    }
    if value < 0.0995 {
        return format!("{} ms", trim(value * 1e3, 1));
    }
    if value < 0.9995 {
        return format!("{} ms", trim(value * 1e3, 0));
    }
    format!("{} s", trim(value, 2))
}

fn trim(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    };
    if text == "-0" { "0".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_people_write() {
        let percents = [
            (0.019, "1.9 %"),
            (0.0, "0 %"),
            (0.0013, "0.13 %"),
            (0.42, "42 %"),
        ];
        for (share, text) in percents {
            assert_eq!(percent(share), text);
        }
        assert_eq!(percent(0.000_04), "0.004 %");
        let sure = [
            (0.995, "99.5 %"),
            (0.99, "99 %"),
            (0.9999, "99.9 %"),
            (1.0, "99.9 %"),
        ];
        for (share, text) in sure {
            assert_eq!(confidence(share), text);
        }
        assert_eq!(
            [count(0.0), count(999.4), count(203_118.0)],
            ["0", "999", "203,118"]
        );
        assert_eq!(
            [ratio(9.43), ratio(1.084), ratio(120.3)],
            ["9.4", "1.08", "120"]
        );
        assert_eq!(
            [seconds(0.18), seconds(1.25), seconds(0.0123)],
            ["180 ms", "1.25 s", "12.3 ms"]
        );
    }
}
