//! Numbers in words, as a person at 3 a.m. wants to read them.

use crate::model::time::humanize_ms;

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

/// A number of unknown unit with three or four figures: `0.0123`, `12.3`, `4,568`.
pub(crate) fn value(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "nothing".to_owned();
    }
    let digits = match size {
        size if size >= 999.5 => {
            let sign = if value < 0.0 { "-" } else { "" };
            return format!("{sign}{}", count(size));
        }
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        size if size >= 0.0009995 || size == 0.0 => 4,
        _ => return format!("{value:.2e}"),
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

/// A difference of shares in percentage points: `0.4 points`, `1 point`.
pub(crate) fn points(share: f64) -> String {
    let figure = percent(share);
    let figure = figure.trim_end_matches(" %");
    match figure {
        "1" => "1 point".to_owned(),
        _ => format!("{figure} points"),
    }
}

/// Traffic by the unit in which it is a handful: `3 requests a second`, `40 requests a minute`.
pub(crate) fn per_second(rate: f64) -> String {
    let (value, unit) = match rate {
        rate if rate >= 0.95 => (rate, "a second"),
        rate if rate >= 0.95 / 60.0 => (rate * 60.0, "a minute"),
        rate => (rate * 3600.0, "an hour"),
    };
    match count(value).as_str() {
        "0" => format!("less than one request {unit}"),
        "1" => format!("1 request {unit}"),
        value => format!("{value} requests {unit}"),
    }
}

/// A time to come, no finer than an estimate is: `40s`, `14m`, `3h 20m`, `2d`.
pub(crate) fn about(seconds: f64) -> String {
    let step = match seconds {
        seconds if seconds < 95.0 => 10.0,
        seconds if seconds < 5_700.0 => 60.0,
        seconds if seconds < 36.0 * 3600.0 => 600.0,
        seconds if seconds < 1e8 => 86_400.0,
        _ => return "years".to_owned(),
    };
    humanize_ms(((seconds / step).ceil().max(1.0) * step * 1000.0) as i64)
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

    #[test]
    fn estimates_are_no_finer_than_they_are() {
        let times = [
            (0.0, "10s"),
            (33.0, "40s"),
            (801.0, "14m"),
            (11_900.0, "3h 20m"),
            (150_000.0, "2d"),
            (1e9, "years"),
        ];
        for (seconds, text) in times {
            assert_eq!(about(seconds), text);
        }
        let rates = [
            (3.2, "3 requests a second"),
            (0.05, "3 requests a minute"),
            (1.0 / 60.0, "1 request a minute"),
            (0.002, "7 requests an hour"),
            (1e-6, "less than one request an hour"),
            (1234.0, "1,234 requests a second"),
        ];
        for (rate, text) in rates {
            assert_eq!(per_second(rate), text);
        }
        assert_eq!([points(0.004), points(0.01)], ["0.4 points", "1 point"]);
    }
}
