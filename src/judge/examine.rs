//! The comparing checks of one gate over one rollout, and the telemetry they rest on.
//!
//! [`Observed`] is that telemetry in blocks, however it was got. [`Examination`] is what one
//! gate's comparing checks have made of it so far. A look takes in the blocks that are complete
//! and that it has not taken in yet, one after the other, and decides after each; so one look at
//! the end says the same as a look after every block, and a check that has failed stays failed.
//! Where something it relied on is not what it was (another baseline, another grid, another
//! begin), it starts over from the first block.

use std::collections::BTreeMap;
use std::sync::Arc;

use slogate_series::Histogram;

use super::Subject;
use super::compare::Look;
use super::outlook;
use crate::model::{CheckResult, Deployment};
use crate::policy::{CheckSpec, CompareCheck, CompareSli, Gate};
use crate::source::Mapping;
use crate::source::blocks::{self, Counts, Gathered};
use crate::source::{MetricSource, SourceError};

/// The most history of the baseline that is asked for, in milliseconds.
const HISTORY_MAX_MS: i64 = 3_600_000;

/// The telemetry of one rollout in blocks, by span kind label.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Requests and failed requests.
    pub(crate) requests: BTreeMap<&'static str, Result<Gathered<Counts>, SourceError>>,
    /// Durations in seconds.
    pub(crate) durations: BTreeMap<&'static str, Result<Gathered<Histogram>, SourceError>>,
}

impl Observed {
    /// Asks the source once for what all comparing checks of a gate need.
    pub(crate) async fn gather(
        gate: &Gate,
        subject: &Subject,
        source: &dyn MetricSource,
        now_ms: i64,
    ) -> Observed {
        let mut observed = Observed::default();
        let from_ms = history_from_ms(gate, &subject.deployment);
        for compare in comparing(gate) {
            let (target, kind) = (&subject.deployment.target, compare.span_kind.label());
            match compare.sli {
                CompareSli::ErrorRatio if !observed.requests.contains_key(kind) => {
                    let found = blocks::requests(source, target, kind, from_ms, now_ms).await;
                    observed.requests.insert(kind, found);
                }
                CompareSli::Duration { .. } if !observed.durations.contains_key(kind) => {
                    let found = blocks::durations(source, target, kind, from_ms, now_ms).await;
                    observed.durations.insert(kind, found);
                }
                _ => {}
            }
        }
        observed
    }
}

/// From when on telemetry is asked for: the baseline's history included.
pub(crate) fn history_from_ms(gate: &Gate, deployment: &Deployment) -> i64 {
    let history_ms = gate
        .decide_within_ms
        .clamp(blocks::BLOCK_MS, HISTORY_MAX_MS);
    deployment.judged_from_ms() - history_ms
}

fn comparing(gate: &Gate) -> impl Iterator<Item = &CompareCheck> {
    gate.checks.iter().filter_map(|check| match &check.spec {
        CheckSpec::Compare(compare) => Some(compare),
        _ => None,
    })
}

/// What one gate's comparing checks have made of one rollout so far.
#[derive(Debug)]
pub(crate) struct Examination {
    gate: Arc<Gate>,
}

impl Examination {
    /// Nothing seen yet.
    pub(crate) fn new(gate: Arc<Gate>) -> Examination {
        Examination { gate }
    }

    /// Takes in what is new and complete at `now_ms`; answers the gate's comparing checks, in
    /// the gate's order. `mapping` says what the source calls things, for sentences.
    pub(crate) fn look(
        &mut self,
        subject: &Subject,
        observed: &Observed,
        mapping: &Mapping,
        now_ms: i64,
    ) -> Vec<CheckResult> {
        let look = Look {
            gate: &self.gate,
            subject,
            observed,
            mapping,
            now_ms,
            from_ms: subject.deployment.judged_from_ms(),
        };
        let checks = self.gate.checks.iter();
        let answers = checks.filter_map(|check| match &check.spec {
            CheckSpec::Compare(compare) => {
                let mut answer = look.compare(check, compare);
                outlook::add_to(&mut answer, &look, compare);
                Some(answer)
            }
            _ => None,
        });
        answers.collect()
    }
}
