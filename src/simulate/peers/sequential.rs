//! Tests on all counts so far, each minute.

use slogate_series::Histogram;
use slogate_stats::buckets::{Boundaries, BucketCounts};
use slogate_stats::combine::log_threshold;
use slogate_stats::fisher::fisher_greater;
use slogate_stats::special::log_add_exp;
use slogate_stats::{
    BucketBlock, CountBlock, CountTest, CountTestParams, Direction, ExceedanceTest,
    ExceedanceTestParams,
};

use super::{Arm, Arms};
use crate::source::blocks::Counts;

/// The level of Fisher's test, as usual.
const FISHER_LEVEL: f64 = 0.05;

/// The level of the plain sequential tests: that of the built-in gate.
const PLAIN_LEVEL: f64 = 0.01;

/// What the plain test tolerates of latency: one bucket of schema 4. With nothing at all it would
/// see that no two instances are equally fast.
const ONE_BUCKET: f64 = 0.044;

/// Fisher's test on the errors so far, again and again.
pub(crate) fn fisher(arms: &Arms) -> Option<u32> {
    let (mut mine, mut theirs) = (Counts::default(), Counts::default());
    let add = |sum: &mut Counts, arm: &Arm| {
        sum.total += arm.counts.total;
        sum.errors += arm.counts.errors;
    };
    let minutes = (1u32..).zip(arms.candidate.iter().zip(&arms.baseline));
    for (minute, (candidate, baseline)) in minutes {
        add(&mut mine, candidate);
        add(&mut theirs, baseline);
        let whole = |count: f64| count.round() as u64;
        let p_value = fisher_greater(
            whole(mine.errors),
            whole(mine.total),
            whole(theirs.errors),
            whole(theirs.total),
        );
        if p_value.is_some_and(|p_value| p_value <= FISHER_LEVEL) {
            return Some(minute);
        }
    }
    None
}

/// Both sequential tests, half of the evidence each.
pub(crate) fn plain(arms: &Arms) -> Option<u32> {
    let mut errors = CountTest::new(CountTestParams {
        ratio: 1.0,
        difference: 0.0,
        dispersion: 1.0,
        direction: Direction::Worse,
    })
    .ok()?;
    let mut latency = ExceedanceTest::new(ExceedanceTestParams {
        worse_by_relative: ONE_BUCKET,
        quantiles: vec![0.5, 0.75, 0.9, 0.95, 0.99],
        dispersion: 1.0,
        direction: Direction::Worse,
    })
    .ok()?;
    let boundaries = boundaries(&arms.history.first()?.durations)?;
    for arm in &arms.history {
        // History that the test can't use is as good as none.
        let _ = latency.learn(&boundaries, buckets(&arm.durations));
    }
    let minutes = (1u32..).zip(arms.candidate.iter().zip(&arms.baseline));
    for (minute, (candidate, baseline)) in minutes {
        // A minute that a test refuses says nothing.
        let _ = errors.push(&CountBlock {
            candidate_total: candidate.counts.total,
            candidate_events: candidate.counts.errors,
            baseline_total: baseline.counts.total,
            baseline_events: baseline.counts.errors,
        });
        let _ = latency.push(&BucketBlock {
            boundaries: &boundaries,
            candidate: buckets(&candidate.durations),
            baseline: buckets(&baseline.durations),
        });
        let evidence = log_add_exp(errors.log_e(), latency.log_e()) - 2f64.ln();
        if evidence >= log_threshold(PLAIN_LEVEL, 1.0) {
            return Some(minute);
        }
    }
    None
}

fn boundaries(durations: &Histogram) -> Option<Boundaries> {
    match durations.has_custom_bounds() {
        true => Boundaries::explicit(&durations.custom_bounds).ok(),
        false => Boundaries::exponential(durations.schema).ok(),
    }
}

fn buckets(durations: &Histogram) -> BucketCounts<'_> {
    BucketCounts {
        below: durations.zero_count,
        buckets: durations.positive.as_slice(),
    }
}
