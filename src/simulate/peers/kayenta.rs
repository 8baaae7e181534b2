//! Kayenta's judge on two metrics of one group: error rate in percent and P95 in milliseconds, one
//! value a minute, higher is worse.
//!
//! With the usual thresholds 95 and 75 one metric that is `High` leaves a score of 50, which is
//! not above the marginal one, and that ends an analysis at once. So does having no data at all.

use slogate_stats::kayenta::{Class, Direction, MetricConfig, classify};

use super::{Arm, Arms};

/// The first minute at which there are enough values for an interval to mean something.
const FIRST_MINUTE: usize = 5;

/// Judged once, beside as many old instances.
pub(crate) fn once(arms: &Arms) -> Option<u32> {
    judged_every(60, arms, &arms.equal)
}

/// Judged each 10 minutes, beside as many old instances.
pub(crate) fn every_10(arms: &Arms) -> Option<u32> {
    judged_every(10, arms, &arms.equal)
}

/// Judged each minute, beside as many old instances.
pub(crate) fn every_1(arms: &Arms) -> Option<u32> {
    judged_every(1, arms, &arms.equal)
}

/// Judged once, beside all old instances.
pub(crate) fn once_all(arms: &Arms) -> Option<u32> {
    judged_every(60, arms, &arms.baseline)
}

/// Judged each 10 minutes, beside all old instances.
pub(crate) fn every_10_all(arms: &Arms) -> Option<u32> {
    judged_every(10, arms, &arms.baseline)
}

/// Judged each minute, beside all old instances.
pub(crate) fn every_1_all(arms: &Arms) -> Option<u32> {
    judged_every(1, arms, &arms.baseline)
}

/// The values of one metric, by minute.
struct Series {
    mine: Vec<f64>,
    theirs: Vec<f64>,
}

fn judged_every(interval: usize, arms: &Arms, control: &[Arm]) -> Option<u32> {
    // Where nothing runs beside the new version, its control is the time before.
    let before = arms.history.iter().cycle();
    let beside = control
        .iter()
        .zip(before.map(Some).chain(std::iter::repeat(None)));
    let control = beside.map(|(beside, before)| match before {
        Some(before) if beside.counts.total <= 0.0 => before,
        _ => beside,
    });
    let control: Vec<&Arm> = control.collect();
    let of = |metric: fn(&Arm) -> f64| Series {
        mine: arms.candidate.iter().map(metric).collect(),
        theirs: control.iter().map(|arm| metric(arm)).collect(),
    };
    let metrics = [of(error_percent), of(p95_ms)];
    let ends = (interval..=arms.candidate.len()).step_by(interval);
    let mut ends = ends.filter(|end| *end >= FIRST_MINUTE);
    let stopped = ends.find(|end| {
        let classes = metrics.each_ref().map(|metric| class(metric, *end));
        classes.contains(&Class::High) || classes == [Class::NoData; 2]
    });
    stopped.and_then(|end| u32::try_from(end).ok())
}

/// A metric's class from its first `end` values.
fn class(series: &Series, end: usize) -> Class {
    let upto = |values: &[f64]| -> Vec<f64> {
        let known = values.iter().take(end).copied();
        known.filter(|value| !value.is_nan()).collect()
    };
    let (mine, theirs) = (upto(&series.mine), upto(&series.theirs));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    // An increase needs a ratio of means of at least 1, where there is one: nothing is lost by
    // leaving out the search for an interval, which is most of the work.
    let (low, high) = (mean(&mine), mean(&theirs));
    if low < high && low != 0.0 && !mine.is_empty() && !theirs.is_empty() {
        return Class::Pass;
    }
    let config = MetricConfig {
        direction: Direction::Increase,
        ..MetricConfig::default()
    };
    classify(&mine, &theirs, &config, 0).class
}

fn error_percent(arm: &Arm) -> f64 {
    100.0 * arm.counts.errors / arm.counts.total
}

fn p95_ms(arm: &Arm) -> f64 {
    let p95_s = arm.durations.quantile(0.95);
    p95_s.map_or(f64::NAN, |p95_s| 1000.0 * p95_s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::blocks::Counts;

    fn arms(mine: impl Fn(u32) -> f64, theirs: impl Fn(u32) -> f64) -> Arms {
        let arm = |errors: f64| Arm {
            counts: Counts {
                total: 1_000.0,
                errors,
            },
            ..Arm::default()
        };
        let equal: Vec<Arm> = (0..60).map(|minute| arm(theirs(minute))).collect();
        Arms {
            candidate: (0..60).map(|minute| arm(mine(minute))).collect(),
            baseline: equal.clone(),
            equal,
            ..Arms::default()
        }
    }

    #[test]
    fn clearly_more_errors_stop_it_at_the_next_judgement() {
        let wave = |minute: u32| f64::from(minute * 7 % 11);
        let worse = arms(|minute| 50.0 + wave(minute), wave);
        assert_eq!((once(&worse), every_10(&worse)), (Some(60), Some(10)));
        assert_eq!(every_1_all(&worse), Some(5));
        let same = arms(|minute| wave(minute + 3), wave);
        assert_eq!((once_all(&same), every_1(&same)), (None, None));
        let better = arms(wave, |minute| 50.0 + wave(minute));
        assert_eq!(every_1(&better), None);
    }

    #[test]
    fn the_time_before_is_the_control_of_what_replaces_all() {
        let wave = |minute: u32| f64::from(minute * 7 % 11);
        let replaced = |errors: f64| {
            let arms = arms(|minute| errors + wave(minute), wave);
            Arms {
                history: arms.baseline.iter().take(30).cloned().collect(),
                equal: vec![Arm::default(); 60],
                ..arms
            }
        };
        assert_eq!(every_10(&replaced(50.0)), Some(10));
        assert_eq!(every_10(&replaced(0.0)), None);
    }

    #[test]
    fn no_data_at_all_stops_it() {
        let silent = Arms {
            candidate: vec![Arm::default(); 60],
            equal: vec![Arm::default(); 60],
            ..Arms::default()
        };
        assert_eq!(every_10(&silent), Some(10));
    }
}
