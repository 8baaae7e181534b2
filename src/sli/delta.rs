//! M3 and M7: a release's first half hour against the previous version's last.

use slogate_series::Histogram;

use crate::model::Deployment;
use crate::source::blocks::{self, Blocks};
use crate::source::{MetricSource, SourceError};

/// How long before and after a deployment's start is compared, in milliseconds.
const SPAN_MS: i64 = 1_800_000;

/// Fewer requests than this on either side say nothing.
const REQUESTS_MIN: f64 = 20.0;

/// How much later than its end a half hour's telemetry may still arrive, in milliseconds.
const LATE_MS: i64 = 120_000;

/// How a release compares; `None` where either side has too little, or the previous version is
/// not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Delta {
    /// Difference of error ratios.
    pub(super) errors: Option<f64>,
    /// Relative change of P95.
    pub(super) latency: Option<f64>,
}

/// Whether the release's first half hour is over, so that its delta changes no more.
pub(super) fn is_settled(deployment: &Deployment, now_ms: i64) -> bool {
    now_ms >= deployment.judged_from_ms() + SPAN_MS + LATE_MS
}

/// Compares a release's first half hour with the previous version's last.
///
/// # Errors
/// When the source can't answer.
pub(super) async fn post_against_pre(
    deployment: &Deployment,
    source: &dyn MetricSource,
    now_ms: i64,
) -> Result<Delta, SourceError> {
    let nothing = Ok(Delta::default());
    let previous = deployment
        .previous
        .as_ref()
        .and_then(|artifact| artifact.version.as_deref());
    let Some((version, previous)) = deployment.artifact.version.as_deref().zip(previous) else {
        return nothing;
    };
    if version == previous {
        return nothing;
    }
    let start_ms = deployment.judged_from_ms();
    let (from_ms, to_ms) = (start_ms - SPAN_MS, now_ms.min(start_ms + SPAN_MS));
    let (target, kind) = (&deployment.target, "SPAN_KIND_SERVER");
    let requests = blocks::requests(source, target, kind, from_ms, to_ms).await?;
    let durations = blocks::durations(source, target, kind, from_ms, to_ms).await?;
    let ratio = |blocks: Option<&Blocks<blocks::Counts>>, range: std::ops::Range<i64>| {
        let counts = blocks?.by_block.range(range).map(|(_, counts)| counts);
        let (total, errors) = counts.fold((0.0, 0.0), |sum, c| (sum.0 + c.total, sum.1 + c.errors));
        (total >= REQUESTS_MIN).then(|| errors / total)
    };
    let p95 = |blocks: Option<&Blocks<Histogram>>, range: std::ops::Range<i64>| {
        let mut all = blocks?
            .by_block
            .range(range)
            .map(|(_, histogram)| histogram);
        let first = all.next()?.clone();
        let sum = all.fold(first, |sum, next| sum.add(next));
        (sum.count >= REQUESTS_MIN)
            .then(|| sum.quantile(0.95))
            .flatten()
    };
    let sides = |grid: blocks::Grid| {
        let began = grid.block_of(start_ms + 1);
        (began..i64::MAX, i64::MIN..began)
    };
    let (after, before) = sides(requests.grid);
    let errors = ratio(requests.versions.get(version), after)
        .zip(ratio(requests.versions.get(previous), before));
    let (after, before) = sides(durations.grid);
    let latency = p95(durations.versions.get(version), after)
        .zip(p95(durations.versions.get(previous), before));
    Ok(Delta {
        errors: errors.map(|(post, pre)| post - pre),
        latency: latency
            .filter(|(_, pre)| *pre > 0.0)
            .map(|(post, pre)| post / pre - 1.0),
    })
}
