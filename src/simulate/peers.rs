//! What others would have done with the same telemetry.
//!
//! Each is a function of both versions' counts by minute that answers when it would have stopped
//! the rollout. The thresholds are those of the tools' own documentation, and where the name says
//! `tuned`, ones that suit the simulated service as somebody who knows it would choose them. None
//! of them knows that a series is of one instance, so none is told.

use slogate_series::{Buckets, Histogram};

use super::generate::{Cell, OFFSET, Rollout, WIDTH};
use super::scenario::CLASSIC_BOUNDS;
use crate::source::blocks::Counts;

mod fixed;
mod kayenta;
mod sequential;

/// Somebody else's procedure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Its name in options and tables.
    pub(crate) name: &'static str,
    /// What it does, in a sentence.
    pub(crate) about: &'static str,
    /// At the end of which minute it stops the rollout, counted from 1.
    pub(crate) alarm: fn(&Arms) -> Option<u32>,
}

/// All peers, in the order of the table.
pub(crate) const PEERS: &[Peer] = &[
    Peer {
        name: "flagger",
        about: "Flagger with the thresholds of its documentation: at least 99 % success and a P99 \
                of at most 500 ms, each minute; the fifth minute that is not stops it",
        alarm: fixed::flagger,
    },
    Peer {
        name: "flagger-tuned",
        about: "the same with 99.5 % and 400 ms",
        alarm: fixed::flagger_tuned,
    },
    Peer {
        name: "argo",
        about: "Argo Rollouts with the analysis of its documentation: at least 95 % success over \
                5 minutes, each 5 minutes; the fourth failure stops it",
        alarm: fixed::argo,
    },
    Peer {
        name: "argo-tuned",
        about: "the same with 99.5 % over each minute",
        alarm: fixed::argo_tuned,
    },
    Peer {
        name: "kayenta-60",
        about: "Kayenta's judge on error rate and P95, once after 60 minutes, beside as many old instances as there are new ones",
        alarm: kayenta::once,
    },
    Peer {
        name: "kayenta-10",
        about: "Kayenta's judge on error rate and P95, each 10 minutes, beside as many old instances as there are new ones",
        alarm: kayenta::every_10,
    },
    Peer {
        name: "kayenta-1",
        about: "Kayenta's judge on error rate and P95, each minute from the fifth on, beside as many old instances as there are new ones",
        alarm: kayenta::every_1,
    },
    Peer {
        name: "kayenta-60-all",
        about: "kayenta-60 beside all old instances",
        alarm: kayenta::once_all,
    },
    Peer {
        name: "kayenta-10-all",
        about: "kayenta-10 beside all old instances",
        alarm: kayenta::every_10_all,
    },
    Peer {
        name: "kayenta-1-all",
        about: "kayenta-1 beside all old instances",
        alarm: kayenta::every_1_all,
    },
    Peer {
        name: "fisher",
        about: "Fisher's exact test on all errors so far, at 5 %, again each minute",
        alarm: sequential::fisher,
    },
    Peer {
        name: "plain",
        about: "the sequential tests of errors and latency at 1 % as they come: no tolerance but one \
                bucket of latency, no warm-up, no regard for bursts or for differences between \
                instances",
        alarm: sequential::plain,
    },
];

/// One version in one minute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arm {
    /// Its requests.
    pub(crate) counts: Counts,
    /// Their durations in seconds.
    pub(crate) durations: Histogram,
}

/// Both versions, minute by minute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arms {
    /// The new version.
    pub(crate) candidate: Vec<Arm>,
    /// All instances of the old version.
    pub(crate) baseline: Vec<Arm>,
    /// As many instances of the old version as there are of the new one.
    pub(crate) equal: Vec<Arm>,
    /// The old version before the rollout.
    pub(crate) history: Vec<Arm>,
}

impl Arms {
    /// Sums up a rollout.
    pub(crate) fn of(rollout: &Rollout) -> Arms {
        let mut arms = Arms::default();
        for minute in &rollout.minutes {
            let (new, old): (Vec<&Cell>, Vec<&Cell>) =
                minute.cells.iter().partition(|cell| cell.is_candidate);
            let alike = old.len().saturating_sub(new.len());
            arms.candidate.push(sum(&new));
            arms.equal.push(sum(old.get(alike..).unwrap_or(&[])));
            arms.baseline.push(sum(&old));
        }
        let before = rollout.history.iter();
        arms.history = before
            .map(|minute| sum(&minute.cells.iter().collect::<Vec<_>>()))
            .collect();
        arms
    }
}

fn sum(cells: &[&Cell]) -> Arm {
    let Some(first) = cells.first() else {
        return Arm::default();
    };
    let mut counts = Counts::default();
    // All cells of a rollout have the same boundaries.
    let mut buckets = vec![0.0; WIDTH];
    let (mut count, mut sum) = (0.0, 0.0);
    for cell in cells {
        counts.total += cell.counts.total;
        counts.errors += cell.counts.errors;
        count += cell.durations.count;
        sum += cell.durations.sum;
        for (at, more) in cell.durations.positive.iter() {
            let place = usize::try_from(at - OFFSET).ok();
            if let Some(bucket) = place.and_then(|place| buckets.get_mut(place)) {
                *bucket += more;
            }
        }
    }
    Arm {
        counts,
        durations: Histogram {
            schema: first.durations.schema,
            count,
            sum,
            custom_bounds: first.durations.custom_bounds.clone(),
            positive: Buckets::from_dense(OFFSET, buckets),
            ..Histogram::default()
        },
    }
}

/// The share of requests that succeed; NaN without requests, as a ratio of rates would be.
fn success(counts: Counts) -> f64 {
    1.0 - counts.errors / counts.total
}

/// A quantile as a mesh's classic buckets would give it, interpolated evenly; NaN without
/// requests.
fn classic_quantile(durations: &Histogram, quantile: f64) -> f64 {
    let rank = quantile * durations.count;
    let (mut from, mut below) = (0.0, 0.0);
    for bound in CLASSIC_BOUNDS {
        let upto = durations.count_at_most(*bound);
        if upto >= rank && upto > below {
            return from + (bound - from) * (rank - below) / (upto - below);
        }
        (from, below) = (*bound, upto);
    }
    match durations.count > 0.0 {
        true => from,
        false => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use slogate_series::histogram::CUSTOM_SCHEMA;

    use super::*;

    #[test]
    fn a_sum_is_that_of_histograms() {
        for name in ["AA", "classic_AA"] {
            let scenarios = crate::simulate::scenarios(&[crate::model::Glob::new(name)]);
            let rollout = crate::simulate::generate::generate(scenarios[0], 1, 0);
            let cells: Vec<&Cell> = rollout.minutes[0].cells.iter().collect();
            let expected = cells[1..]
                .iter()
                .fold(cells[0].durations.clone(), |sum, cell| {
                    sum.add(&cell.durations)
                });
            let found = sum(&cells).durations;
            assert_eq!(found.positive, expected.positive, "{name}");
            assert_eq!(found.count, expected.count);
            assert_eq!(found.custom_bounds, expected.custom_bounds);
        }
    }

    #[test]
    fn a_quantile_of_classic_buckets_is_prometheus_own() {
        let durations = Histogram {
            schema: CUSTOM_SCHEMA,
            count: 100.0,
            custom_bounds: CLASSIC_BOUNDS.into(),
            // 90 up to 100 ms, 8 up to 250 ms, 2 up to 500 ms.
            positive: Buckets::from_sorted(vec![(4, 90.0), (5, 8.0), (6, 2.0)]),
            ..Histogram::default()
        };
        assert!((classic_quantile(&durations, 0.99) - 0.375).abs() < 1e-9);
        assert!((classic_quantile(&durations, 0.45) - 0.075).abs() < 1e-9);
        assert!(classic_quantile(&Histogram::default(), 0.99).is_nan());
    }
}
