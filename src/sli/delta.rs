//! M3 and M7: a release's first half hour against the previous version's last.

use slogate_series::Histogram;

use crate::model::Deployment;
use crate::source::MetricSource;
use crate::source::blocks::{self, Blocks};

/// How long before and after a deployment's start is compared, in milliseconds.
const SPAN_MS: i64 = 1_800_000;

/// Fewer requests than this on either side say nothing.
const REQUESTS_MIN: f64 = 20.0;

/// Difference of error ratios, and relative change of P95. Null where either side has too
/// little, the previous version is not known, or the source can't answer.
pub(super) async fn post_against_pre(
    deployment: &Deployment,
    source: &dyn MetricSource,
    now_ms: i64,
) -> (Option<f64>, Option<f64>) {
    let nothing = (None, None);
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
    let Ok(requests) = blocks::requests(source, target, kind, from_ms, to_ms).await else {
        return nothing;
    };
    let Ok(durations) = blocks::durations(source, target, kind, from_ms, to_ms).await else {
        return nothing;
    };
    let began = blocks::block_of(start_ms + 1);
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
    let (after, before) = (began..i64::MAX, i64::MIN..began);
    let errors = ratio(requests.versions.get(version), after.clone())
        .zip(ratio(requests.versions.get(previous), before.clone()));
    let latency = p95(durations.versions.get(version), after)
        .zip(p95(durations.versions.get(previous), before));
    (
        errors.map(|(post, pre)| post - pre),
        latency
            .filter(|(_, pre)| *pre > 0.0)
            .map(|(post, pre)| post / pre - 1.0),
    )
}
