//! A native histogram of the wire as one of ours, checked.
//!
//! The rules are Prometheus's (`model/histogram`, `Validate`): without them a query would compute
//! with buckets that contradict the count.

use std::sync::Arc;

use slogate_series::histogram::{CUSTOM_SCHEMA, SCHEMA_MAX, SCHEMA_MIN};
use slogate_series::{Buckets, Histogram, ResetHint};
use slogate_wire::WireError;
use slogate_wire::remote_write::{self as wire, BucketSpan, Count};

/// The finest schema that is read; finer ones than ours are merged down.
const SCHEMA_READ_MAX: i32 = 52;

/// The most spans and buckets of one sign.
const BUCKETS_MAX: usize = 10_000;

/// The histogram; `None` where it contradicts itself.
pub(super) fn read(sent: &wire::Histogram<'_>) -> Result<Option<Histogram>, WireError> {
    let is_custom = sent.schema == i32::from(CUSTOM_SCHEMA);
    let in_range = (i32::from(SCHEMA_MIN)..=SCHEMA_READ_MAX).contains(&sent.schema);
    if !is_custom && !in_range {
        return Ok(None);
    }
    let (negative, positive) = if sent.is_float() {
        (
            buckets(sent.negative_spans(), sent.negative_counts())?,
            buckets(sent.positive_spans(), sent.positive_counts())?,
        )
    } else {
        (
            buckets(sent.negative_spans(), running(sent.negative_deltas()))?,
            buckets(sent.positive_spans(), running(sent.positive_deltas()))?,
        )
    };
    let (Some(negative), Some(positive)) = (negative, positive) else {
        return Ok(None);
    };
    let mut bounds = Vec::new();
    for bound in sent.custom_values() {
        if bounds.len() == BUCKETS_MAX {
            return Ok(None);
        }
        bounds.push(bound?);
    }
    let count = sent.count.map_or(0.0, Count::as_f64);
    let zero_count = sent.zero_count.map_or(0.0, Count::as_f64);
    let schema = sent.schema.min(i32::from(SCHEMA_MAX));
    let levels = sent.schema.abs_diff(schema);
    let histogram = Histogram {
        schema: i8::try_from(schema).unwrap_or(SCHEMA_MAX),
        reset_hint: match sent.reset_hint {
            1 => ResetHint::Reset,
            2 => ResetHint::NotReset,
            3 => ResetHint::Gauge,
            _ => ResetHint::Unknown,
        },
        zero_threshold: sent.zero_threshold,
        zero_count,
        count,
        sum: sent.sum,
        positive: positive.downscale(levels),
        negative: negative.downscale(levels),
        custom_bounds: Arc::from(bounds),
    };
    let fits = match is_custom {
        true => custom_fits(&histogram),
        false => histogram.custom_bounds.is_empty() && histogram.zero_threshold >= 0.0,
    };
    let agrees = sent.is_float() || counts_agree(&histogram);
    let counted = count >= 0.0 && zero_count >= 0.0;
    Ok((fits && agrees && counted).then_some(histogram))
}

/// Custom buckets have bounds and neither a zero bucket nor negative buckets.
fn custom_fits(histogram: &Histogram) -> bool {
    let bounds = &histogram.custom_bounds;
    let ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    let finite = bounds
        .iter()
        .all(|bound| !bound.is_nan() && *bound != f64::INFINITY);
    let inside = histogram
        .positive
        .as_slice()
        .iter()
        .all(|(index, _)| usize::try_from(*index).is_ok_and(|index| index <= bounds.len()));
    ascending
        && finite
        && inside
        && histogram.negative.is_empty()
        && histogram.zero_count == 0.0
        && histogram.zero_threshold == 0.0
}

/// Whether the buckets hold all observations. NaN is counted but in no bucket, and makes the sum
/// NaN. Of a float histogram this can't be asked: its counts are rounded.
fn counts_agree(histogram: &Histogram) -> bool {
    let held = histogram.zero_count + histogram.positive.total() + histogram.negative.total();
    match histogram.sum.is_nan() {
        true => held <= histogram.count,
        false => held == histogram.count,
    }
}

/// Integer buckets from their differences; NaN, which no bucket may be, where one overflows.
fn running(
    deltas: impl Iterator<Item = Result<i64, WireError>>,
) -> impl Iterator<Item = Result<f64, WireError>> {
    let mut count = Some(0_i64);
    deltas.map(move |delta| {
        let delta = delta?;
        count = count.and_then(|count| count.checked_add(delta));
        Ok(count.map_or(f64::NAN, |count| count as f64))
    })
}

/// The buckets that spans and counts describe; empty ones are left out.
fn buckets(
    spans: impl Iterator<Item = Result<BucketSpan, WireError>>,
    counts: impl Iterator<Item = Result<f64, WireError>>,
) -> Result<Option<Buckets>, WireError> {
    let mut counts = counts;
    let mut entries = Vec::new();
    let mut next = 0_i64;
    let mut read = 0;
    for (at, span) in spans.enumerate() {
        let span = span?;
        if at == BUCKETS_MAX || (at > 0 && span.offset < 0) {
            return Ok(None);
        }
        next += i64::from(span.offset);
        for _ in 0..span.length {
            let Some(count) = counts.next().transpose()? else {
                return Ok(None);
            };
            read += 1;
            if count.is_nan() || count < 0.0 || read > BUCKETS_MAX {
                return Ok(None);
            }
            let Ok(index) = i32::try_from(next) else {
                return Ok(None);
            };
            if count > 0.0 {
                entries.push((index, count));
            }
            next += 1;
        }
    }
    let is_complete = counts.next().transpose()?.is_none();
    Ok(is_complete.then(|| Buckets::from_sorted(entries)))
}
