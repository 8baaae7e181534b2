//! Deployment SLIs M1 to M7.
//!
//! Computed from the deployments that ended (for M1, M4 and M5) or began (for the rest) in a
//! window, from their verdicts, and from span metrics. Definitions, the hard cases first:
//!
//! - **Superseded** deployments neither succeeded nor failed: they are counted apart and are
//!   in no ratio.
//! - **Partial failures** (an instance, a zone, a hook) make a deployment unsuccessful in M1
//!   even when it went on to succeed, and are counted apart.
//! - **Silent manual fixes**: a manual change while a release was the newest of its target, or
//!   a redeployment of the previous artifact that nobody called a rollback, counts in M4 as a
//!   rollback does, and is shown apart.
//! - **Deployments without a known beginning** (no alert, no failing verdict) are rolled back
//!   for M4 and have no time to rollback for M5; how many is shown.
//! - **What already ran** when slogate first heard of a service is no deployment.
//! - A ratio without a denominator is null, not 0 and not 1.
//!
//! | | definition | unit |
//! |---|---|---|
//! | M1 | succeeded without partial failure and not undone, over all that ended (superseded aside) | ratio |
//! | M2 | start to steady traffic of those that succeeded; median and 90th percentile | seconds |
//! | M3 | error ratio of the new version in the 30 min after its start, minus the previous version's in the 30 min before; median and worst | ratio |
//! | M4 | rolled back, silently fixed ones included, over all that ended | ratio |
//! | M5 | first alert or failing verdict to traffic back on the previous artifact; median and worst | seconds |
//! | M6 | deployments with a failing verdict, over those judged | ratio |
//! | M7 | P95 of the new version in the 30 min after its start over the previous version's in the 30 min before, minus 1; median and worst | ratio |

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use crate::deploy::{Deployments, Filter, OBSERVER};
use crate::ledger::Ledger;
use crate::model::{Deployment, DeploymentId, EventKind, Outcome, Phase, TimeRange};
use crate::source::Sources;

mod delta;

use delta::Delta;

/// The most deployments a report reads, newest first.
const DEPLOYMENTS_MAX: usize = 10_000;

/// The most deployments of one group whose telemetry is compared for M3 and M7.
const COMPARED_MAX: usize = 50;

/// The most verdicts of one deployment that a report reads.
const VERDICTS_MAX: usize = 1_000;

/// What a report is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliQuery {
    /// Only this service.
    pub service: Option<String>,
    /// Only this environment.
    pub environment: Option<String>,
    /// How far back, in milliseconds.
    pub window_ms: i64,
}

/// One indicator.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sli {
    /// `M1` to `M7`.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// `ratio` or `seconds`.
    pub unit: &'static str,
    /// The ratio, or the median; null where there is nothing to compute it from.
    pub value: Option<f64>,
    /// The mean, of those whose value is a median.
    pub mean: Option<f64>,
    /// The 90th percentile (M2) or the worst (M3, M5, M7).
    pub tail: Option<f64>,
    /// How many deployments are in the numerator, or have the property.
    pub count: usize,
    /// Out of how many.
    pub of: usize,
    /// What the value should stay on the right side of.
    pub target: f64,
    /// Whether it does; null without a value.
    pub meets_target: Option<bool>,
}

/// The indicators of a set of deployments.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SliSet {
    /// Deployments that ended in the window, superseded ones aside.
    pub ended: usize,
    /// Deployments that another one overtook.
    pub superseded: usize,
    /// Deployments that had partial failures.
    pub partial_failures: usize,
    /// Deployments undone or mended without anybody saying so.
    pub silent_fixes: usize,
    /// Rollbacks whose beginning nobody recorded.
    pub rollbacks_without_beginning: usize,
    /// M1 to M7, in order.
    pub slis: Vec<Sli>,
}

/// The indicators of one service in one environment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SliGroup {
    /// The service.
    pub service: String,
    /// The environment; empty where there is none.
    pub environment: String,
    /// Its indicators.
    #[serde(flatten)]
    pub set: SliSet,
}

/// A report.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SliReport {
    /// The window.
    pub window: TimeRange,
    /// Over everything that the query selects.
    pub overall: SliSet,
    /// Per service and environment, by name.
    pub groups: Vec<SliGroup>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[error("the verdicts of {deployment} can't be read: {reason}")]
pub struct SliError {
    deployment: String,
    reason: String,
}

/// A deployment with what its SLIs need.
struct Fact {
    deployment: Arc<Deployment>,
    is_judged: bool,
    first_fail_ms: Option<i64>,
    error_delta: Option<f64>,
    latency_delta: Option<f64>,
}

/// Computes reports. Remembers what no longer changes: a release's first half hour, once over.
pub struct Slis {
    deployments: Arc<Deployments>,
    ledger: Arc<Ledger>,
    sources: Sources,
    settled: Mutex<HashMap<DeploymentId, Delta>>,
}

impl Slis {
    /// Reports on these deployments, with their verdicts and telemetry.
    pub fn new(deployments: Arc<Deployments>, ledger: Arc<Ledger>, sources: Sources) -> Slis {
        Slis {
            deployments,
            ledger,
            sources,
            settled: Mutex::default(),
        }
    }

    /// Computes M1 to M7 for the window that ends at `now_ms`.
    ///
    /// A source that can't answer leaves M3 and M7 null; the others need none.
    ///
    /// # Errors
    /// When the record store can't be read.
    pub async fn report(&self, query: &SliQuery, now_ms: i64) -> Result<SliReport, SliError> {
        let since_ms = now_ms - query.window_ms;
        let filter = Filter {
            service: query.service.clone(),
            environment: query.environment.clone(),
            ..Filter::default()
        };
        let mut groups: BTreeMap<(String, String), Vec<Fact>> = BTreeMap::new();
        for deployment in self.deployments.list(&filter, DEPLOYMENTS_MAX) {
            let newest_ms = deployment
                .finished_ms
                .unwrap_or(deployment.judged_from_ms());
            if newest_ms < since_ms || deployment.is_what_already_ran() {
                continue;
            }
            let target = &deployment.target;
            let key = (target.service.clone(), target.environment.clone());
            let group = groups.entry(key).or_default();
            let is_compared = group.len() < COMPARED_MAX;
            group.push(self.fact(deployment, is_compared, now_ms).await?);
        }
        let everything: Vec<&Fact> = groups.values().flatten().collect();
        let overall = set(&everything, since_ms);
        let groups = groups
            .iter()
            .map(|((service, environment), facts)| SliGroup {
                service: service.clone(),
                environment: environment.clone(),
                set: set(&facts.iter().collect::<Vec<_>>(), since_ms),
            });
        Ok(SliReport {
            window: TimeRange {
                start_ms: since_ms,
                end_ms: now_ms,
            },
            overall,
            groups: groups.collect(),
        })
    }

    async fn fact(
        &self,
        deployment: Arc<Deployment>,
        is_compared: bool,
        now_ms: i64,
    ) -> Result<Fact, SliError> {
        let mut verdicts = Vec::new();
        for name in self.deployments.names(&deployment.id) {
            let found = self.ledger.verdicts_of(&name, VERDICTS_MAX).await;
            verdicts.extend(found.map_err(|error| SliError {
                deployment: name.to_string(),
                reason: error.to_string(),
            })?);
        }
        let fails = verdicts
            .iter()
            .filter(|verdict| verdict.verdict == Outcome::Fail);
        let first_fail_ms = fails.map(|verdict| verdict.since_ms).min();
        let delta = match is_compared {
            true => self.delta(&deployment, now_ms).await,
            false => Delta::default(),
        };
        Ok(Fact {
            is_judged: !verdicts.is_empty(),
            first_fail_ms,
            error_delta: delta.errors,
            latency_delta: delta.latency,
            deployment,
        })
    }

    async fn delta(&self, deployment: &Deployment, now_ms: i64) -> Delta {
        if let Some(known) = self.settled.lock().get(&deployment.id) {
            return *known;
        }
        let source = self.sources.of(&deployment.target);
        let found = delta::post_against_pre(deployment, source.as_ref(), now_ms).await;
        let Ok(found) = found else {
            return Delta::default();
        };
        if delta::is_settled(deployment, now_ms) {
            let mut settled = self.settled.lock();
            if settled.len() >= DEPLOYMENTS_MAX {
                settled.clear();
            }
            settled.insert(deployment.id.clone(), found);
        }
        found
    }
}

/// Whether the release was taken back, by whatever name.
fn is_undone(deployment: &Deployment) -> bool {
    deployment.phase == Phase::RolledBack || deployment.rolled_back_by.is_some()
}

/// Whether somebody mended the release without calling it a rollback: by hand, or by shipping
/// the previous artifact again, which no event named a rollback.
fn is_silently_fixed(deployment: &Deployment) -> bool {
    let mut timeline = deployment.timeline.iter();
    let said_so =
        timeline.any(|event| event.kind == EventKind::RolledBack && event.source != OBSERVER);
    !said_so && (deployment.manual_changes > 0 || is_undone(deployment))
}

fn set(facts: &[&Fact], since_ms: i64) -> SliSet {
    let ended_in_window = |fact: &&&Fact| {
        let deployment = &fact.deployment;
        !deployment.phase.is_active()
            && deployment.phase != Phase::Superseded
            && deployment.finished_ms.is_some_and(|at| at >= since_ms)
    };
    let ended: Vec<&Fact> = facts.iter().filter(ended_in_window).copied().collect();
    let count = |facts: &[&Fact], has: &dyn Fn(&Deployment) -> bool| {
        facts.iter().filter(|fact| has(&fact.deployment)).count()
    };
    let is_clean = |deployment: &Deployment| {
        deployment.phase == Phase::Succeeded
            && deployment.partial_failures == 0
            && !is_undone(deployment)
    };
    let undone = |deployment: &Deployment| is_undone(deployment) || is_silently_fixed(deployment);
    let durations = ended.iter().filter_map(|fact| {
        let deployment = &fact.deployment;
        let is_done = deployment.phase == Phase::Succeeded;
        let took_ms = deployment.finished_ms? - deployment.started_ms?;
        (is_done && took_ms >= 0).then_some(took_ms as f64 / 1000.0)
    });
    let rolled_back: Vec<&Fact> = ended
        .iter()
        .filter(|fact| is_undone(&fact.deployment))
        .copied()
        .collect();
    let times_to_rollback: Vec<f64> = rolled_back
        .iter()
        .filter_map(|fact| time_to_rollback_ms(fact))
        .map(seconds)
        .collect();
    let judged: Vec<&Fact> = facts
        .iter()
        .filter(|fact| fact.is_judged)
        .copied()
        .collect();
    let flagged = judged
        .iter()
        .filter(|fact| fact.first_fail_ms.is_some())
        .count();
    let slis = vec![
        ratio(
            "M1",
            "deployment success rate",
            count(&ended, &is_clean),
            ended.len(),
            0.99,
            true,
        ),
        spread(
            "M2",
            "deployment time",
            "seconds",
            durations.collect(),
            600.0,
            0.9,
        ),
        spread(
            "M3",
            "post-deploy error rate delta",
            "ratio",
            facts.iter().filter_map(|fact| fact.error_delta).collect(),
            0.01,
            1.0,
        ),
        ratio(
            "M4",
            "rollback frequency",
            count(&ended, &undone),
            ended.len(),
            0.005,
            false,
        ),
        spread(
            "M5",
            "time to rollback",
            "seconds",
            times_to_rollback.clone(),
            300.0,
            1.0,
        ),
        ratio("M6", "canaries flagged", flagged, judged.len(), 0.01, false),
        spread(
            "M7",
            "deployment-induced latency",
            "ratio",
            facts.iter().filter_map(|fact| fact.latency_delta).collect(),
            0.05,
            1.0,
        ),
    ];
    SliSet {
        ended: ended.len(),
        superseded: facts
            .iter()
            .filter(|f| f.deployment.phase == Phase::Superseded)
            .count(),
        partial_failures: count(facts, &|deployment| deployment.partial_failures > 0),
        silent_fixes: count(facts, &is_silently_fixed),
        rollbacks_without_beginning: rolled_back.len() - times_to_rollback.len(),
        slis,
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// From the first sign of trouble, an alert or a failing verdict, to traffic back.
fn time_to_rollback_ms(fact: &Fact) -> Option<i64> {
    let signs = [fact.deployment.first_alert_ms, fact.first_fail_ms];
    let began_ms = signs.into_iter().flatten().min()?;
    let back_ms = fact.deployment.finished_ms?;
    (back_ms >= began_ms).then_some(back_ms - began_ms)
}

fn ratio(
    id: &'static str,
    name: &'static str,
    count: usize,
    of: usize,
    target: f64,
    more_is_better: bool,
) -> Sli {
    let value = (of > 0).then(|| count as f64 / of as f64);
    let meets_target = value.map(|value| match more_is_better {
        true => value >= target,
        false => value <= target,
    });
    Sli {
        id,
        name,
        unit: "ratio",
        value,
        mean: None,
        tail: None,
        count,
        of,
        target,
        meets_target,
    }
}

/// Median, mean and tail of values of which less is better.
fn spread(
    id: &'static str,
    name: &'static str,
    unit: &'static str,
    mut values: Vec<f64>,
    target: f64,
    tail: f64,
) -> Sli {
    values.sort_by(f64::total_cmp);
    let value = quantile(&values, 0.5);
    let count = values.len();
    Sli {
        id,
        name,
        unit,
        value,
        mean: (count > 0).then(|| values.iter().sum::<f64>() / count as f64),
        tail: quantile(&values, tail),
        count,
        of: count,
        target,
        meets_target: value.map(|value| value <= target),
    }
}

/// The `q`-quantile of ascending values, interpolated between neighbours.
fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    let position = q * last as f64;
    let below = values.get(position.floor() as usize)?;
    let above = values.get(position.ceil() as usize)?;
    Some(below + (above - below) * position.fract())
}

#[cfg(test)]
mod tests;
