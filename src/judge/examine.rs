//! The comparing checks of one gate over one rollout, and the telemetry they rest on.
//!
//! [`Observed`] is that telemetry in blocks, however it was got. [`Examination`] is what one
//! gate's comparing checks have made of it so far. A look takes in the blocks that are complete
//! and that it has not taken in yet, one after the other, and decides after each; so one look at
//! the end says the same as a look after every block, and a check that has failed stays failed.
//! Where something it relied on is not what it was (another baseline, another grid, another
//! begin), it starts over from the first block.
//!
//! [`Telemetry`] gathers it look by look, and [`Kept`](super::kept::Kept) is both for the
//! watcher.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use slogate_series::Histogram;

use super::compare::Look;
use super::{Subject, errors, latency, outlook};
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
        let mut telemetry = Telemetry::new(history_from_ms(gate, &subject.deployment));
        telemetry.look(gate, subject, source, now_ms).await;
        telemetry.observed
    }

    /// How many blocks there are.
    fn blocks_count(&self) -> usize {
        let requests = self.requests.values().flatten().map(Gathered::blocks_count);
        let durations = self
            .durations
            .values()
            .flatten()
            .map(Gathered::blocks_count);
        requests.chain(durations).sum()
    }
}

/// The telemetry of one rollout, extended with every look.
#[derive(Debug)]
pub(crate) struct Telemetry {
    from_ms: i64,
    requests: BTreeMap<&'static str, blocks::Requests>,
    durations: BTreeMap<&'static str, blocks::Durations>,
    observed: Observed,
}

impl Telemetry {
    /// None yet, of the time after `from_ms`.
    pub(crate) fn new(from_ms: i64) -> Telemetry {
        Telemetry {
            from_ms,
            requests: BTreeMap::new(),
            durations: BTreeMap::new(),
            observed: Observed::default(),
        }
    }

    /// Asks the source for what is new, as far as comparing checks of a gate need it. Dropped
    /// half way, it goes on from there with the next look.
    pub(crate) async fn look(
        &mut self,
        gate: &Gate,
        subject: &Subject,
        source: &dyn MetricSource,
        now_ms: i64,
    ) {
        let (target, mapping) = (&subject.deployment.target, source.mapping());
        let (mut requests, mut durations) = (BTreeSet::new(), BTreeSet::new());
        for compare in comparing(gate) {
            match compare.sli {
                CompareSli::ErrorRatio => requests.insert(compare.span_kind.label()),
                CompareSli::Duration { .. } => durations.insert(compare.span_kind.label()),
            };
        }
        for kind in requests {
            let new = || blocks::Requests::new(mapping, target, kind, self.from_ms);
            let kept = self.requests.entry(kind).or_insert_with(new);
            if let Some(Ok(before)) = self.observed.requests.remove(kind) {
                kept.give_back(before);
            }
            let found = kept.look(source, now_ms).await;
            let found = found.map(|()| kept.lend());
            self.observed.requests.insert(kind, found);
        }
        for kind in durations {
            let new = || blocks::Durations::new(mapping, target, kind, self.from_ms);
            let kept = self.durations.entry(kind).or_insert_with(new);
            if let Some(Ok(before)) = self.observed.durations.remove(kind) {
                kept.give_back(before);
            }
            let found = kept.look(source, now_ms).await;
            let found = found.map(|()| kept.lend());
            self.observed.durations.insert(kind, found);
        }
    }

    /// What was gathered.
    pub(crate) fn observed(&self) -> &Observed {
        &self.observed
    }

    /// How many blocks it has.
    pub(crate) fn blocks_count(&self) -> usize {
        self.observed.blocks_count()
    }

    /// How often blocks that were complete have changed; who took them in has to start over.
    pub(crate) fn restarts(&self) -> u64 {
        let requests = self.requests.values().map(blocks::Requests::restarts);
        let durations = self.durations.values().map(blocks::Durations::restarts);
        requests.chain(durations).sum()
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
    /// Of each comparing check; none before there are two sides to compare.
    progress: Vec<Option<Progress>>,
}

/// What one check has made of the blocks so far.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Error ratios.
    Errors(Box<errors::Progress>),
    /// Latency.
    Latency(Box<latency::Progress>),
}

impl Examination {
    /// Nothing seen yet.
    pub(crate) fn new(gate: Arc<Gate>) -> Examination {
        let progress = comparing(&gate).map(|_| None).collect();
        Examination { gate, progress }
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
        let compared = checks.filter_map(|check| match &check.spec {
            CheckSpec::Compare(compare) => Some((check, compare)),
            _ => None,
        });
        compared
            .zip(&mut self.progress)
            .map(|((check, compare), progress)| {
                let mut answer = look.compare(check, compare, progress);
                outlook::add_to(&mut answer, &look, check, compare);
                answer
            })
            .collect()
    }
}
