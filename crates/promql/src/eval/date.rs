//! Calendar dates of Unix times, in UTC.

/// A moment in UTC.
pub(crate) struct Moment {
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: i64,
    /// 1 to 31.
    pub(crate) day: i64,
    /// 0 is Sunday.
    pub(crate) weekday: i64,
    /// 1 to 366.
    pub(crate) day_of_year: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
}

/// The first second of Go's calendar, the 1st of March of the year -292277022400. What lies
/// before it wraps around to the far end.
const FIRST_S: i128 = -9_223_372_028_741_760_000;

impl Moment {
    /// Fractions of a second are cut off. What is no date (NaN, infinity, beyond 64 bits) is
    /// the one that Prometheus makes of it on x86.
    pub(crate) fn from_unix(seconds: f64) -> Self {
        let is_in_range = (-(2_f64.powi(63))..2_f64.powi(63)).contains(&seconds);
        let mut seconds = i128::from(if is_in_range {
            seconds as i64
        } else {
            i64::MIN
        });
        if seconds < FIRST_S {
            seconds += 1 << 64;
        }
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Both fit: the days of 64 bits of seconds, and the seconds of a day.
        let (days, of_day) = (days as i64, of_day as i64);
        let (year, month, day) = civil(days);
        Moment {
            year,
            month,
            day,
            weekday: (days + 4).rem_euclid(7),
            day_of_year: days - days_before(year, 1, 1) + 1,
            hour: of_day / 3600,
            minute: of_day % 3600 / 60,
        }
    }

    pub(crate) fn days_in_month(&self) -> i64 {
        let (year, month) = match self.month {
            12 => (self.year + 1, 1),
            month => (self.year, month + 1),
        };
        days_before(year, month, 1) - days_before(self.year, self.month, 1)
    }
}

/// A time as RFC 3339 writes it, in UTC and in whole seconds.
pub(crate) fn rfc3339(t_ms: i64) -> String {
    let seconds = t_ms.div_euclid(1000);
    let moment = Moment::from_unix(seconds as f64);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        moment.year,
        moment.month,
        moment.day,
        moment.hour,
        moment.minute,
        seconds.rem_euclid(60)
    )
}

/// Days from 1970-01-01. Years are counted from March, so that a leap day comes last;
/// 400 years have 146,097 days.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date `days` after 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(seconds: f64) -> (i64, i64, i64, i64, i64) {
        let m = Moment::from_unix(seconds);
        (m.year, m.month, m.day, m.weekday, m.day_of_year)
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0.0), (1970, 1, 1, 4, 1));
        assert_eq!(date(951_782_400.0), (2000, 2, 29, 2, 60));
        assert_eq!(
            date(4_107_542_400.0),
            (2100, 3, 1, 1, 60),
            "2100 is no leap year"
        );
        assert_eq!(date(-1.0), (1969, 12, 31, 3, 365));
        assert_eq!(Moment::from_unix(1_454_284_800.0).days_in_month(), 29);
    }

    /// The story: a batch job's "last success" is -Inf or NaN, and a page shows its year.
    #[test]
    fn what_is_no_date_is_prometheus_s_date() {
        for seconds in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300] {
            assert_eq!(date(seconds), (292_277_026_596, 12, 4, 0, 339));
            let moment = Moment::from_unix(seconds);
            assert_eq!((moment.hour, moment.minute), (15, 30));
        }
        assert_eq!(Moment::from_unix(-1e16).year, -316_885_416);
    }
}
