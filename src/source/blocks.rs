//! Span metrics as counts per version and block of time.
//!
//! Time is cut into blocks of [`BLOCK_MS`], aligned to the epoch, so that every look at a
//! rollout cuts it the same way. Counters become increases between neighbouring samples:
//! a drop is a reset and counts from zero; a series that began inside the window (its start
//! timestamp says so) counts its first sample whole; any other first sample is only the
//! point to count from. Nothing is extrapolated.

use std::collections::BTreeMap;

use slogate_promql::QueryValue;
use slogate_series::{Histogram, Sample, Series, Value};

use super::{MetricSource, SourceError, selector};
use crate::model::Target;

/// The length of a block: two of the default five-second flushes of span metrics.
pub(crate) const BLOCK_MS: i64 = 10_000;

/// How long after its end a block is taken as complete; flushes happen at their very time.
const SETTLE_MS: i64 = 1_000;

/// The block that a sample belongs to: a sample at a block's end closes that block.
pub(crate) fn block_of(t_ms: i64) -> i64 {
    (t_ms - 1).div_euclid(BLOCK_MS)
}

/// The first block that is not complete at `now_ms`.
pub(crate) fn blocks_end(now_ms: i64) -> i64 {
    (now_ms - SETTLE_MS).div_euclid(BLOCK_MS)
}

/// Requests of one version in one block.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// All requests.
    pub(crate) total: f64,
    /// Requests whose span status is error.
    pub(crate) errors: f64,
}

/// One version's blocks.
#[derive(Clone, Debug)]
pub(crate) struct Blocks<T> {
    /// Only blocks with something in them.
    pub(crate) by_block: BTreeMap<i64, T>,
    /// The newest sample of any of its series, in milliseconds since the epoch.
    pub(crate) newest_ms: i64,
    /// The oldest sample in the window, in milliseconds since the epoch.
    pub(crate) oldest_ms: i64,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Blocks {
            by_block: BTreeMap::new(),
            newest_ms: i64::MIN,
            oldest_ms: i64::MAX,
        }
    }
}

/// What was gathered: blocks by version, and the source's remarks.
#[derive(Clone, Debug)]
pub(crate) struct Gathered<T> {
    /// Blocks by `service_version`; series without one are under the empty version.
    pub(crate) versions: BTreeMap<String, Blocks<T>>,
    /// The source's remarks.
    pub(crate) warnings: Vec<String>,
}

impl<T> Gathered<T> {
    fn remarked(warnings: Vec<String>) -> Self {
        Gathered {
            versions: BTreeMap::new(),
            warnings,
        }
    }
}

/// Requests of one span kind (`SPAN_KIND_SERVER`), by version, from span metrics in `(from_ms, now_ms]`.
pub(crate) async fn requests(
    source: &dyn MetricSource,
    target: &Target,
    span_kind: &str,
    from_ms: i64,
    now_ms: i64,
) -> Result<Gathered<Counts>, SourceError> {
    let expr = spans(
        "traces_span_metrics_calls_total",
        target,
        span_kind,
        now_ms - from_ms,
    );
    let (series, warnings) = raw(source, &expr, now_ms).await?;
    let mut gathered = Gathered::remarked(warnings);
    for one in &series {
        let is_error = one.labels.get("status_code") == Some("STATUS_CODE_ERROR");
        let blocks = blocks_of(&mut gathered, one);
        for (t_ms, increase) in float_increases(&one.samples, from_ms) {
            let counts: &mut Counts = blocks.by_block.entry(block_of(t_ms)).or_default();
            counts.total += increase;
            counts.errors += if is_error { increase } else { 0.0 };
        }
    }
    Ok(gathered)
}

/// Durations in seconds of requests of one span kind, by version, from span metrics in `(from_ms, now_ms]`.
pub(crate) async fn durations(
    source: &dyn MetricSource,
    target: &Target,
    span_kind: &str,
    from_ms: i64,
    now_ms: i64,
) -> Result<Gathered<Histogram>, SourceError> {
    let expr = spans(
        "traces_span_metrics_duration_seconds",
        target,
        span_kind,
        now_ms - from_ms,
    );
    let (series, warnings) = raw(source, &expr, now_ms).await?;
    let mut gathered = Gathered::remarked(warnings);
    for one in &series {
        let blocks = blocks_of(&mut gathered, one);
        for (t_ms, increase) in histogram_increases(&one.samples, from_ms) {
            match blocks.by_block.entry(block_of(t_ms)) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(increase);
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    let sum = entry.get().add(&increase);
                    entry.insert(sum);
                }
            }
        }
    }
    Ok(gathered)
}

/// The raw samples of a target's span metrics of one kind in a window.
fn spans(metric: &str, target: &Target, span_kind: &str, window_ms: i64) -> String {
    // A target without an environment takes telemetry of any: it was announced without one.
    let selector = selector(
        metric,
        &[
            ("service_name", target.service.as_str()),
            ("deployment_environment_name", target.environment.as_str()),
            ("span_kind", span_kind),
        ],
    );
    format!("{selector}[{}ms]", window_ms.max(1))
}

async fn raw(
    source: &dyn MetricSource,
    expr: &str,
    now_ms: i64,
) -> Result<(Vec<Series>, Vec<String>), SourceError> {
    let answer = source.query(expr, now_ms).await?;
    match answer.value {
        QueryValue::Matrix(series) => Ok((series, answer.warnings)),
        _ => Err(SourceError::Refused {
            origin: source.name().to_owned(),
            message: format!("{expr} should answer with raw samples and does not"),
        }),
    }
}

fn blocks_of<'a, T>(gathered: &'a mut Gathered<T>, series: &Series) -> &'a mut Blocks<T> {
    let version = series.labels.get("service_version").unwrap_or("");
    let blocks = gathered.versions.entry(version.to_owned()).or_default();
    if let (Some(first), Some(last)) = (series.samples.first(), series.samples.last()) {
        blocks.oldest_ms = blocks.oldest_ms.min(first.t_ms);
        blocks.newest_ms = blocks.newest_ms.max(last.t_ms);
    }
    blocks
}

/// Whether a series' first sample in the window counts whole: its count began in the window.
fn began_inside(sample: &Sample, window_start_ms: i64) -> bool {
    sample.start_ms != 0 && sample.start_ms >= window_start_ms
}

/// The increase that each float sample brings, with its time. Stale markers bring nothing.
fn float_increases(
    samples: &[Sample],
    window_start_ms: i64,
) -> impl Iterator<Item = (i64, f64)> + '_ {
    let mut before: Option<f64> = None;
    samples.iter().filter_map(move |sample| {
        let Value::Float(value) = sample.value else {
            return None;
        };
        if !value.is_finite() {
            return None;
        }
        let increase = match before {
            Some(before) if value >= before => value - before,
            Some(_) => value,
            None if began_inside(sample, window_start_ms) => value,
            None => 0.0,
        };
        before = Some(value);
        (increase > 0.0).then_some((sample.t_ms, increase))
    })
}

/// How much a counter grew over its samples in a window.
pub(crate) fn increase(samples: &[Sample], window_start_ms: i64) -> f64 {
    float_increases(samples, window_start_ms)
        .map(|(_, increase)| increase)
        .sum()
}

/// The increase that each histogram sample brings, with its time.
fn histogram_increases(
    samples: &[Sample],
    window_start_ms: i64,
) -> impl Iterator<Item = (i64, Histogram)> + '_ {
    let mut before: Option<&Histogram> = None;
    samples.iter().filter_map(move |sample| {
        let Value::Histogram(histogram) = &sample.value else {
            return None;
        };
        if sample.value.is_stale() {
            return None;
        }
        let increase = match before {
            Some(before) if histogram.is_reset_after(before) => Some((**histogram).clone()),
            Some(before) => Some(histogram.sub(before)),
            None if began_inside(sample, window_start_ms) => Some((**histogram).clone()),
            None => None,
        };
        before = Some(histogram);
        increase
            .filter(|increase| increase.count > 0.0)
            .map(|i| (sample.t_ms, i.compact()))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use slogate_series::{Buckets, stale_nan};

    use super::*;

    fn at(t_ms: i64, start_ms: i64, value: f64) -> Sample {
        Sample {
            t_ms,
            start_ms,
            value: Value::Float(value),
        }
    }

    #[test]
    fn a_first_sample_counts_only_if_the_series_began_in_the_window() {
        let old = [at(1_000, 500, 40.0), at(2_000, 500, 45.0)];
        assert_eq!(
            float_increases(&old, 900).collect::<Vec<_>>(),
            [(2_000, 5.0)]
        );
        let born = [at(1_000, 950, 3.0), at(2_000, 950, 4.0)];
        let increases: Vec<_> = float_increases(&born, 900).collect();
        assert_eq!(increases, [(1_000, 3.0), (2_000, 1.0)]);
        let unknown = [at(1_000, 0, 3.0)];
        assert_eq!(float_increases(&unknown, 900).count(), 0);
    }

    #[test]
    fn resets_count_from_zero_and_stale_markers_count_nothing() {
        let samples = [
            at(1, 0, 10.0),
            at(2, 0, 12.0),
            at(3, 0, stale_nan()),
            at(4, 3, 5.0),
        ];
        assert_eq!(
            float_increases(&samples, 0).collect::<Vec<_>>(),
            [(2, 2.0), (4, 5.0)]
        );
    }

    #[test]
    fn histogram_resets_count_whole() {
        let sample = |t_ms, counts: [f64; 2]| Sample {
            t_ms,
            start_ms: 0,
            value: Value::Histogram(Arc::new(Histogram {
                schema: 4,
                count: counts.iter().sum(),
                positive: Buckets::from_dense(0, counts),
                ..Histogram::default()
            })),
        };
        let samples = [
            sample(1, [5.0, 5.0]),
            sample(2, [6.0, 8.0]),
            sample(3, [1.0, 0.0]),
        ];
        let increases: Vec<_> = histogram_increases(&samples, 0).collect();
        assert_eq!(increases.len(), 2);
        assert_eq!(increases[0].1.positive.as_slice(), [(0, 1.0), (1, 3.0)]);
        assert_eq!(increases[1].1.positive.as_slice(), [(0, 1.0)]);
    }

    #[test]
    fn a_sample_at_a_block_end_closes_that_block() {
        assert_eq!(block_of(BLOCK_MS), 0);
        assert_eq!(block_of(BLOCK_MS + 1), 1);
        assert_eq!(blocks_end(3 * BLOCK_MS + SETTLE_MS), 3);
        assert_eq!(blocks_end(3 * BLOCK_MS + SETTLE_MS - 1), 2);
    }
}
