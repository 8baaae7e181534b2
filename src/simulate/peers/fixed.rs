//! Fixed thresholds.
//!
//! Flagger counts every check that does not hold and never forgets one; a minute without
//! requests has no value, which it counts as a check that does not hold. Argo Rollouts counts
//! failures over the whole analysis too; not a number is no success, so it is a failure.

use super::{Arm, Arms, classic_quantile, success};
use crate::source::blocks::Counts;

/// Flagger as documented.
pub(crate) fn flagger(arms: &Arms) -> Option<u32> {
    flagger_at(arms, 0.99, 0.5)
}

/// Flagger, tighter.
pub(crate) fn flagger_tuned(arms: &Arms) -> Option<u32> {
    flagger_at(arms, 0.995, 0.4)
}

fn flagger_at(arms: &Arms, success_min: f64, p99_max_s: f64) -> Option<u32> {
    let holds = |arm: &Arm| {
        success(arm.counts) >= success_min && classic_quantile(&arm.durations, 0.99) <= p99_max_s
    };
    nth_failure(arms.candidate.iter().map(holds), 5).map(|at| at + 1)
}

/// Argo Rollouts as documented.
pub(crate) fn argo(arms: &Arms) -> Option<u32> {
    argo_at(arms, 0.95, 5)
}

/// Argo Rollouts, tighter and more often.
pub(crate) fn argo_tuned(arms: &Arms) -> Option<u32> {
    argo_at(arms, 0.995, 1)
}

fn argo_at(arms: &Arms, success_min: f64, every: u32) -> Option<u32> {
    let windows = arms.candidate.chunks(every as usize).map(|window| {
        let mut sum = Counts::default();
        for arm in window {
            sum.total += arm.counts.total;
            sum.errors += arm.counts.errors;
        }
        success(sum) >= success_min
    });
    // A failure limit of 3: the fourth is one too many.
    nth_failure(windows, 4).map(|at| (at + 1) * every)
}

/// Where the `nth` check that does not hold is, counted from 0.
fn nth_failure(checks: impl Iterator<Item = bool>, nth: usize) -> Option<u32> {
    let failed = (0u32..).zip(checks).filter(|(_, holds)| !holds);
    failed.map(|(at, _)| at).nth(nth - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arms(errors: impl Fn(u32) -> (f64, f64)) -> Arms {
        let arm = |minute| {
            let (total, errors) = errors(minute);
            Arm {
                counts: Counts { total, errors },
                // All within the first bucket.
                durations: slogate_series::Histogram {
                    count: total,
                    zero_count: total,
                    zero_threshold: 1e-3,
                    ..Default::default()
                },
            }
        };
        Arms {
            candidate: (0..60).map(arm).collect(),
            ..Arms::default()
        }
    }

    #[test]
    fn failed_checks_add_up_and_are_never_forgotten() {
        let every_tenth = arms(|minute| (100.0, if minute % 10 == 0 { 2.0 } else { 0.0 }));
        assert_eq!(flagger(&every_tenth), Some(41));
        assert_eq!(flagger(&arms(|_| (100.0, 1.0))), None);
        assert_eq!(argo(&arms(|_| (100.0, 6.0))), Some(20));
        assert_eq!(argo(&arms(|_| (100.0, 5.0))), None);
        assert_eq!(argo_tuned(&arms(|_| (100.0, 1.0))), Some(4));
    }

    #[test]
    fn no_requests_are_no_success() {
        let silent = arms(|_| (0.0, 0.0));
        assert_eq!((flagger(&silent), argo(&silent)), (Some(5), Some(20)));
    }
}
