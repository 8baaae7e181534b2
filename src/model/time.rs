//! Time as an argument.
//!
//! Pure code takes `now_ms`; only drivers (listener, watcher, command line) own a [`Clock`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Tells the time in milliseconds since the Unix epoch.
pub trait Clock: Send + Sync + 'static {
    /// Now, in milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond()
    }
}

/// A clock that stands still until it is moved; clones share one time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows `now_ms`.
    pub fn at(now_ms: i64) -> Self {
        ManualClock(Arc::new(AtomicI64::new(now_ms)))
    }

    /// Moves the clock on.
    pub fn advance(&self, by_ms: i64) {
        self.0.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// `ms` as RFC 3339 in UTC with milliseconds, for example `2026-11-20T18:00:00.000Z`.
///
/// A time outside of jiff's range (years -9999 to 9999) is clamped to it.
pub fn to_rfc3339(ms: i64) -> String {
    let limit = |ms: i64| {
        let (min, max) = (jiff::Timestamp::MIN, jiff::Timestamp::MAX);
        ms.clamp(min.as_millisecond() + 1, max.as_millisecond() - 1)
    };
    let at = jiff::Timestamp::from_millisecond(limit(ms)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

/// Milliseconds since the epoch from RFC 3339 text; `None` where it is not that.
pub fn from_rfc3339(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .map(jiff::Timestamp::as_millisecond)
}

/// A span of time in words for people: `45s`, `6m 20s`, `3h 5m`, `2d 4h`.
pub fn humanize_ms(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (d, h, m, s) = (
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    );
    let pair = |big: i64, big_unit, small: i64, small_unit| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit} {small}{small_unit}"),
    };
    match (d, h, m) {
        (0, 0, 0) if ms < 1000 => format!("{}ms", ms.max(0)),
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => pair(m, "m", s, "s"),
        (0, _, _) => pair(h, "h", m, "m"),
        _ => pair(d, "d", h, "h"),
    }
}

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

/// Milliseconds from a duration in Prometheus's notation: `90s`, `1h30m`, `500ms`, `0`; a year is
/// 365 days. Units go from great to small, each at most once; a number without a unit is no
/// duration, because nobody can see its unit.
pub fn duration_ms(text: &str) -> Option<i64> {
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
pub fn format_duration(ms: i64) -> String {
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

/// Serde for a required time: `#[serde(with = "crate::model::time::rfc3339")]`.
pub mod rfc3339 {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Writes RFC 3339.
    pub fn serialize<S: Serializer>(ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::to_rfc3339(*ms))
    }

    /// Reads RFC 3339.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::from_rfc3339(&text).ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is not an RFC 3339 time such as 2026-11-20T18:00:00Z"
            ))
        })
    }
}

/// Serde for a time that may be absent.
pub mod rfc3339_option {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Writes RFC 3339 or null.
    pub fn serialize<S: Serializer>(ms: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
        match ms {
            Some(ms) => serializer.serialize_str(&super::to_rfc3339(*ms)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads RFC 3339 or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(de: D) -> Result<Option<i64>, D::Error> {
        let Some(text) = Option::<String>::deserialize(de)? else {
            return Ok(None);
        };
        super::from_rfc3339(&text).map(Some).ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is not an RFC 3339 time such as 2026-11-20T18:00:00Z"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc3339_round_trips_to_the_millisecond() {
        assert_eq!(to_rfc3339(1_795_190_400_123), "2026-11-20T16:00:00.123Z");
        assert_eq!(
            from_rfc3339("2026-11-20T17:00:00.123+01:00"),
            Some(1_795_190_400_123)
        );
        assert_eq!(from_rfc3339("yesterday"), None);
        assert!(!to_rfc3339(i64::MAX).is_empty());
        assert!(!to_rfc3339(i64::MIN).is_empty());
    }

    #[test]
    fn durations_read_aloud() {
        let cases = [
            (0, "0ms"),
            (45_000, "45s"),
            (380_000, "6m 20s"),
            (3_600_000, "1h"),
        ];
        for (ms, text) in cases {
            assert_eq!(humanize_ms(ms), text);
        }
        assert_eq!(humanize_ms(187_200_000), "2d 4h");
    }

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
            ("1y", Some(365 * 86_400_000)),
            ("m", None),
            ("é", None),
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

    proptest! {
        #[test]
        fn a_written_duration_reads_back(ms in 0i64..=40_000_000_000) {
            prop_assert_eq!(duration_ms(&format_duration(ms)), Some(ms));
        }

        #[test]
        fn any_text_is_a_duration_or_none(text in ".{0,12}") {
            let _ = duration_ms(&text);
        }
    }
}
