//! What a rollout did, side by side: for plots, and to count the harm until a verdict.
//!
//! Harm is what the candidate's requests suffered beyond the baseline's rates, warm-up included:
//! failed ones, and ones slower than the baseline's 95th percentile.

use std::collections::BTreeMap;

use serde::Serialize;
use slogate_series::Histogram;

use super::reading::SERVER;
use super::rollout::Rollout;
use crate::judge::examine::Observed;
use crate::model::Deployment;
use crate::source::blocks::{Blocks, Counts, Gathered};

/// The quantile beyond which a request is slow.
const SLOW: f64 = 0.95;

/// What both sides did in a block; for plots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// Seconds from the rollout's begin to the block's end.
    pub seconds: f64,
    /// The candidate's requests.
    pub candidate_total: f64,
    /// Failed ones of them.
    pub candidate_failed: f64,
    /// The baseline's requests.
    pub baseline_total: f64,
    /// Failed ones of them.
    pub baseline_failed: f64,
    /// The candidate's 95th percentile in seconds.
    pub candidate_p95: Option<f64>,
    /// The baseline's.
    pub baseline_p95: Option<f64>,
}

/// Requests beyond what the baseline's rates would have given.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Harm {
    pub(super) failed: f64,
    pub(super) slow: f64,
}

impl Harm {
    pub(super) fn until(full: &Observed, rollout: &Rollout, end_ms: i64) -> Harm {
        let mut harm = Harm::default();
        if let Some(Ok(found)) = full
            .requests
            .get(SERVER)
            .or_else(|| full.requests.values().next())
        {
            let sum = |blocks: &Blocks<Counts>, from: i64, end: i64| {
                let counts = blocks
                    .by_block
                    .range(from..end.max(from))
                    .map(|(_, counts)| *counts);
                counts.fold((0.0, 0.0), |sum, c| (sum.0 + c.total, sum.1 + c.errors))
            };
            if let Some((mine, theirs, from, end)) = sides(found, rollout, end_ms) {
                let mine = sum(mine, from, end);
                let theirs = sum(theirs, i64::MIN, end);
                if theirs.0 > 0.0 {
                    harm.failed = rounded(mine.1 - mine.0 * theirs.1 / theirs.0);
                }
            }
        }
        if let Some(Ok(found)) = full
            .durations
            .get(SERVER)
            .or_else(|| full.durations.values().next())
            && let Some((mine, theirs, from, end)) = sides(found, rollout, end_ms)
        {
            let theirs = total(theirs, i64::MIN, end);
            let mine = total(mine, from, end);
            if let (Some(theirs), Some(mine)) = (theirs, mine)
                && let Some(limit) = theirs.quantile(SLOW).filter(|limit| limit.is_finite())
                && theirs.count > 0.0
            {
                let expected = 1.0 - theirs.count_at_most(limit) / theirs.count;
                let slow = mine.count - mine.count_at_most(limit);
                harm.slow = rounded(slow - mine.count * expected);
            }
        }
        harm
    }
}

fn rounded(count: f64) -> f64 {
    match count.is_finite() {
        true => (count.max(0.0) * 10.0).round() / 10.0,
        false => 0.0,
    }
}

fn total(blocks: &Blocks<Histogram>, from: i64, end: i64) -> Option<Histogram> {
    let mut range = blocks
        .by_block
        .range(from..end.max(from))
        .map(|(_, histogram)| histogram);
    let first = range.next()?.clone();
    Some(range.fold(first, |sum, next| sum.add(next)))
}

/// Candidate, baseline, and the blocks from the begin to the one that is open at `end_ms`.
fn sides<'f, T>(
    found: &'f Gathered<T>,
    rollout: &Rollout,
    end_ms: i64,
) -> Option<(&'f Blocks<T>, &'f Blocks<T>, i64, i64)> {
    let deployment = &rollout.subject.deployment;
    let candidate = deployment.artifact.version.as_deref()?;
    let mine = found.versions.get(candidate)?;
    let theirs = found.versions.get(baseline_of(found, deployment)?)?;
    let from = found.grid.block_of(deployment.judged_from_ms() + 1);
    Some((mine, theirs, from, found.grid.end(end_ms)))
}

/// What the candidate replaces, or else the version with the most blocks.
fn baseline_of<'f, T>(found: &'f Gathered<T>, deployment: &'f Deployment) -> Option<&'f str> {
    let said = deployment
        .previous
        .as_ref()
        .and_then(|previous| previous.version.as_deref());
    if let Some(said) = said.filter(|said| found.versions.contains_key(*said)) {
        return Some(said);
    }
    let candidate = deployment.artifact.version.as_deref();
    let others = found
        .versions
        .iter()
        .filter(|(version, _)| Some(version.as_str()) != candidate && !version.is_empty());
    let busiest = others.max_by_key(|(_, blocks)| blocks.by_block.len())?;
    Some(busiest.0)
}

/// Rates of both sides over the whole recording.
pub(super) fn points_of(rollout: &Rollout, full: &Observed) -> Vec<Point> {
    let start_ms = rollout.subject.deployment.judged_from_ms();
    let mut points: BTreeMap<i64, Point> = BTreeMap::new();
    let at = |block_ms: i64, block: i64| (block + 1) * block_ms;
    if let Some(Ok(found)) = full
        .requests
        .get(SERVER)
        .or_else(|| full.requests.values().next())
        && let Some((mine, theirs, ..)) = sides(found, rollout, rollout.end_ms)
    {
        for (block, counts) in &mine.by_block {
            let point = points.entry(at(found.grid.block_ms, *block)).or_default();
            (point.candidate_total, point.candidate_failed) = (counts.total, counts.errors);
        }
        for (block, counts) in &theirs.by_block {
            let point = points.entry(at(found.grid.block_ms, *block)).or_default();
            (point.baseline_total, point.baseline_failed) = (counts.total, counts.errors);
        }
    }
    if let Some(Ok(found)) = full
        .durations
        .get(SERVER)
        .or_else(|| full.durations.values().next())
        && let Some((mine, theirs, ..)) = sides(found, rollout, rollout.end_ms)
    {
        let finite =
            |histogram: &Histogram| histogram.quantile(SLOW).filter(|value| value.is_finite());
        for (block, histogram) in &mine.by_block {
            let point = points.entry(at(found.grid.block_ms, *block)).or_default();
            point.candidate_p95 = finite(histogram);
        }
        for (block, histogram) in &theirs.by_block {
            let point = points.entry(at(found.grid.block_ms, *block)).or_default();
            point.baseline_p95 = finite(histogram);
        }
    }
    for (end_ms, point) in &mut points {
        point.seconds = (end_ms - start_ms) as f64 / 1000.0;
    }
    points.into_values().collect()
}
