//! Arithmetic on native histograms.
//!
//! Two exponential histograms meet at the coarser resolution and the wider zero bucket;
//! two with custom bounds at the bounds they share. One of each can't be combined.

use std::sync::Arc;

use slogate_series::histogram::{CUSTOM_SCHEMA, upper_bound};
use slogate_series::{Buckets, Histogram, ResetHint, is_stale};

use crate::queryable::HistogramPoint;

/// The outcome of adding or subtracting.
pub(crate) struct Combined {
    pub(crate) histogram: Histogram,
    /// Whether one histogram had known a reset and the other none.
    pub(crate) hints_collide: bool,
    /// Whether custom bounds differed and were reduced to those in common.
    pub(crate) reconciled: bool,
}

/// `a + b`; `None` where one has custom bounds and the other not.
pub(crate) fn add(a: &Histogram, b: &Histogram) -> Option<Combined> {
    combine(a, b, |x, y| x + y)
}

/// `a - b`, a gauge unless stated otherwise by the caller; `None` as for [`add`].
pub(crate) fn sub(a: &Histogram, b: &Histogram) -> Option<Combined> {
    combine(a, b, |x, y| x - y)
}

/// That custom bounds were reduced in `operation`.
pub(crate) fn reconciled_message(operation: &str) -> String {
    format!("mismatched custom buckets were reconciled during {operation}")
}

/// That hints about resets contradict each other in `operation`.
pub(crate) fn collision_message(operation: &str) -> String {
    format!("conflicting counter resets during histogram {operation}")
}

pub(crate) fn negate(h: &Histogram) -> Histogram {
    scale(h, -1.0)
}

/// Every count times `factor`. A negative one makes a gauge: counts no longer only grow.
pub(crate) fn scale(h: &Histogram, factor: f64) -> Histogram {
    let mut scaled = h.scale(factor);
    if factor < 0.0 {
        scaled.reset_hint = ResetHint::Gauge;
    }
    scaled
}

/// Every count divided by `divisor`.
pub(crate) fn divide(h: &Histogram, divisor: f64) -> Histogram {
    let buckets = |b: &Buckets| {
        // Dividing nothing by nothing would fill all the empty buckets.
        let entries = b
            .iter()
            .filter(|(_, count)| *count != 0.0 || divisor != 0.0);
        Buckets::from_sorted(
            entries
                .map(|(index, count)| (index, count / divisor))
                .collect(),
        )
    };
    let mut divided = Histogram {
        zero_count: h.zero_count / divisor,
        count: h.count / divisor,
        sum: h.sum / divisor,
        positive: buckets(&h.positive),
        negative: buckets(&h.negative),
        ..h.clone()
    };
    if divisor == 0.0 {
        divided.positive = Buckets::default();
        divided.negative = Buckets::default();
    }
    if divisor < 0.0 {
        divided.reset_hint = ResetHint::Gauge;
    }
    divided
}

/// Whether everything but the reset hint is the same; empty buckets don't count.
pub(crate) fn same_counts(a: &Histogram, b: &Histogram) -> bool {
    let plain = |h: &Histogram| {
        Histogram {
            reset_hint: ResetHint::Unknown,
            ..h.clone()
        }
        .compact()
    };
    plain(a) == plain(b)
}

fn combine(a: &Histogram, b: &Histogram, op: impl Fn(f64, f64) -> f64 + Copy) -> Option<Combined> {
    if a.has_custom_bounds() != b.has_custom_bounds() {
        return None;
    }
    let (reset_hint, hints_collide) = joined_hint(a.reset_hint, b.reset_hint);
    let reconciled = a.has_custom_bounds() && a.custom_bounds != b.custom_bounds;
    let (a, b) = if reconciled {
        let bounds = shared_bounds(&a.custom_bounds, &b.custom_bounds);
        (at_bounds(a, &bounds), at_bounds(b, &bounds))
    } else {
        let schema = a.schema.min(b.schema);
        with_one_zero_bucket(a.at_schema(schema), b.at_schema(schema))
    };
    let histogram = Histogram {
        schema: a.schema,
        reset_hint,
        zero_threshold: a.zero_threshold,
        zero_count: op(a.zero_count, b.zero_count),
        count: op(a.count, b.count),
        sum: op(a.sum, b.sum),
        positive: a.positive.combine(&b.positive, op),
        negative: a.negative.combine(&b.negative, op),
        custom_bounds: a.custom_bounds,
    };
    Some(Combined {
        histogram,
        hints_collide,
        reconciled,
    })
}

/// `h` with the resolution, zero bucket and bounds of `layout`, which are no finer.
pub(crate) fn aligned(h: &Histogram, layout: &Histogram) -> Histogram {
    if h.has_custom_bounds() {
        return match h.custom_bounds == layout.custom_bounds {
            true => h.clone(),
            false => at_bounds(h, &layout.custom_bounds),
        };
    }
    let mut aligned = h.at_schema(layout.schema);
    if aligned.zero_threshold < layout.zero_threshold {
        widen_zero_bucket(&mut aligned, layout.zero_threshold);
    }
    aligned
}

/// Whether `now` starts a new count after `before`. Custom bounds that differ are no reset
/// by themselves: what lies between the bounds in common is compared. Gauges are looked at as
/// if they were counters, for whoever asks.
pub(crate) fn is_reset_after(now: &Histogram, before: &Histogram) -> bool {
    match now.reset_hint {
        ResetHint::Reset => return true,
        ResetHint::NotReset => return false,
        ResetHint::Gauge => {
            let reset_hint = ResetHint::Unknown;
            let unhinted = Histogram {
                reset_hint,
                ..now.clone()
            };
            return is_reset_after(&unhinted, before);
        }
        ResetHint::Unknown => {}
    }
    let differ = now.has_custom_bounds()
        && before.has_custom_bounds()
        && now.custom_bounds != before.custom_bounds;
    if !differ {
        return now.is_reset_after(before);
    }
    let bounds = shared_bounds(&now.custom_bounds, &before.custom_bounds);
    at_bounds(now, &bounds).is_reset_after(&at_bounds(before, &bounds))
}

/// Reduces histograms to count and sum, with hints about resets where the samples tell.
pub(crate) fn keep_totals(points: &mut [HistogramPoint]) {
    let mut previous: Option<Arc<Histogram>> = None;
    for point in points {
        let whole = point.value.clone();
        let is_stale = is_stale(whole.sum);
        let reset_hint = match (whole.reset_hint, &previous) {
            _ if is_stale => whole.reset_hint,
            (ResetHint::Unknown, Some(previous)) => match is_reset_after(&whole, previous) {
                true => ResetHint::Reset,
                false => ResetHint::NotReset,
            },
            (hint, _) => hint,
        };
        let totals = Histogram {
            schema: whole.schema,
            reset_hint,
            count: whole.count,
            sum: whole.sum,
            ..Histogram::default()
        };
        if !is_stale {
            previous = Some(whole);
        }
        point.value = totals.into();
    }
}

/// The hint of a combination, and whether the two contradict each other.
pub(crate) fn joined_hint(a: ResetHint, b: ResetHint) -> (ResetHint, bool) {
    match (a, b) {
        (a, b) if a == b => (a, false),
        (ResetHint::Gauge, _) | (_, ResetHint::Gauge) => (ResetHint::Gauge, false),
        (ResetHint::Unknown, _) | (_, ResetHint::Unknown) => (ResetHint::Unknown, false),
        _ => (ResetHint::Unknown, true),
    }
}

fn shared_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter()
        .copied()
        .filter(|bound| b.contains(bound))
        .collect()
}

/// A histogram with custom bounds, reduced to a subset of them.
fn at_bounds(h: &Histogram, bounds: &[f64]) -> Histogram {
    let mut entries: Vec<(i32, f64)> = Vec::new();
    for (index, count) in h.positive.iter() {
        let (_, upper) = h.bounds(index);
        let at = bounds.partition_point(|bound| *bound < upper);
        let at = i32::try_from(at).unwrap_or(i32::MAX);
        match entries.last_mut() {
            Some((last, sum)) if *last == at => *sum += count,
            _ => entries.push((at, count)),
        }
    }
    Histogram {
        schema: CUSTOM_SCHEMA,
        positive: Buckets::from_sorted(entries),
        custom_bounds: bounds.into(),
        ..h.clone()
    }
}

/// Widens the narrower zero bucket. A populated bucket that a zero bucket would cut is
/// swallowed whole, which widens both again, until they agree.
fn with_one_zero_bucket(mut a: Histogram, mut b: Histogram) -> (Histogram, Histogram) {
    if a.has_custom_bounds() {
        return (a, b);
    }
    while a.zero_threshold != b.zero_threshold {
        let (narrow, threshold) = if a.zero_threshold < b.zero_threshold {
            (&mut a, b.zero_threshold)
        } else if b.zero_threshold < a.zero_threshold {
            (&mut b, a.zero_threshold)
        } else {
            // NaN thresholds never agree.
            break;
        };
        widen_zero_bucket(narrow, threshold);
    }
    (a, b)
}

fn widen_zero_bucket(h: &mut Histogram, threshold: f64) {
    let schema = h.schema;
    let mut reach = threshold;
    for (index, count) in h.positive.iter().chain(h.negative.iter()) {
        let cut = upper_bound(schema, index.saturating_sub(1)) < threshold;
        if cut && count != 0.0 {
            reach = reach.max(upper_bound(schema, index));
        }
    }
    let mut swallowed = 0.0;
    for buckets in [&mut h.positive, &mut h.negative] {
        let (inside, outside): (Vec<_>, Vec<_>) = buckets
            .iter()
            .partition(|(index, _)| upper_bound(schema, *index) <= reach);
        swallowed += inside.iter().map(|(_, count)| count).sum::<f64>();
        *buckets = Buckets::from_sorted(outside);
    }
    h.zero_count += swallowed;
    h.zero_threshold = reach;
}
