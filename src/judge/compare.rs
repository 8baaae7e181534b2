//! What every comparing check needs first: both sides' data, or the reason why there is none.
//!
//! In this order, the first that applies is the answer, and none of them is a pass:
//! the source failed (`source_error`); the candidate's version label is not known, or nothing
//! was received from it (`no_data`); there is nothing to compare with (`no_baseline`). Only
//! then are counts compared, by [`super::errors`] and [`super::latency`].

use super::Subject;
use super::arms::Relied;
use super::errors;
use super::examine::{Observed, Progress, history_from_ms};
use super::latency;
use super::words;
use crate::deploy::baseline::{self, RunningVersion};
use crate::model::{
    Artifact, CheckResult, Evidence, Outcome, Reason, TimeRange, time::humanize_ms,
};
use crate::policy::{BaselinePreference, Check, CompareCheck, CompareSli, Gate, SpanKind};
use crate::source::Mapping;
use crate::source::SourceError;
use crate::source::blocks::{Blocks, Gathered};

/// How old a candidate's newest sample may be before it no longer counts as alive.
pub(crate) const STALE_AFTER_MS: i64 = 300_000;

/// One look of the comparing checks.
pub(crate) struct Look<'a> {
    pub(crate) gate: &'a Gate,
    pub(crate) subject: &'a Subject,
    pub(crate) observed: &'a Observed,
    /// What the source calls things.
    pub(crate) mapping: &'a Mapping,
    pub(crate) now_ms: i64,
    /// When judging begins.
    pub(crate) from_ms: i64,
}

/// A check's result in its final form.
pub(crate) fn result(
    check: &Check,
    verdict: Outcome,
    reason: Reason,
    message: String,
    evidence: Evidence,
) -> CheckResult {
    CheckResult {
        name: check.name.clone(),
        kind: check.kind(),
        critical: check.critical,
        required: check.required,
        verdict,
        reason,
        message,
        evidence,
    }
}

/// A check's share of the gate's false alarms.
pub(crate) fn false_alarms(gate: &Gate, check: &Check) -> f64 {
    let sharing = gate.checks.iter().filter(|one| one.shares_false_alarms());
    let weights: f64 = sharing.map(|check| check.weight).sum();
    let share = if weights > 0.0 {
        check.weight / weights
    } else {
        1.0
    };
    gate.false_alarms * share
}

/// An answer without evidence of its own, before any counting.
pub(crate) struct Early {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

/// Both sides of a comparison.
pub(crate) struct Sides<'d, T> {
    pub(crate) candidate: &'d Blocks<T>,
    pub(crate) baseline: &'d Blocks<T>,
    /// What the candidate is compared with.
    pub(crate) artifact: Artifact,
    /// What the comparison relies on.
    pub(crate) relied: Relied,
    /// The first block that is not complete.
    pub(crate) end: i64,
    /// Whether the candidate has sent nothing new for a while.
    pub(crate) is_stale: bool,
    /// The source's remarks.
    pub(crate) warnings: Vec<String>,
}

impl Look<'_> {
    /// Answers a comparing check from what it has seen so far and what is new.
    pub(crate) fn compare(
        &self,
        check: &Check,
        compare: &CompareCheck,
        progress: &mut Option<Progress>,
    ) -> CheckResult {
        let answer = match compare.sli {
            CompareSli::ErrorRatio => {
                let gathered = self.observed.requests.get(compare.span_kind.label());
                let sides = self.sides(gathered, compare, |counts| counts.total);
                sides.map(|sides| errors::answer(self, check, compare, &sides, progress))
            }
            CompareSli::Duration { quantile } => {
                let gathered = self.observed.durations.get(compare.span_kind.label());
                let sides = self.sides(gathered, compare, |histogram| histogram.count);
                sides.map(|sides| latency::answer(self, check, compare, quantile, &sides, progress))
            }
        };
        answer.unwrap_or_else(|early| {
            result(
                check,
                Outcome::Inconclusive,
                early.reason,
                early.message,
                Evidence {
                    data: Some(self.data()),
                    ..Evidence::default()
                },
            )
        })
    }

    /// The time that is looked at.
    pub(crate) fn data(&self) -> TimeRange {
        TimeRange {
            start_ms: self.from_ms,
            end_ms: self.now_ms,
        }
    }

    /// A check's share of the gate's false alarms.
    pub(crate) fn false_alarms(&self, check: &Check) -> f64 {
        false_alarms(self.gate, check)
    }

    /// Minutes of the gate's `warmUp` and `decideWithin`.
    pub(crate) fn minutes(&self) -> (f64, f64) {
        let minutes = |ms: i64| ms as f64 / 60_000.0;
        let horizon_min = minutes(self.gate.decide_within_ms).max(1e-3);
        (minutes(self.gate.warm_up_ms), horizon_min)
    }

    fn sides<'d, T>(
        &self,
        gathered: Option<&'d Result<Gathered<T>, SourceError>>,
        compare: &CompareCheck,
        total: impl Fn(&T) -> f64,
    ) -> Result<Sides<'d, T>, Early> {
        let gathered = match gathered {
            Some(Ok(gathered)) => gathered,
            Some(Err(error)) => {
                return Err(Early {
                    reason: Reason::SourceError,
                    message: format!("{error}."),
                });
            }
            None => {
                let message = "nothing was asked of the source.".to_owned();
                return Err(Early {
                    reason: Reason::SourceError,
                    message,
                });
            }
        };
        let (version, candidate) = self.candidate(gathered, compare.span_kind, &total)?;
        let grid = gathered.grid;
        let (began, end) = (grid.block_of(self.from_ms + 1), grid.end(self.now_ms));
        let (artifact, theirs) = self.baseline(gathered, version, began, &total)?;
        if compare.against == BaselinePreference::Concurrent && !theirs.by_block.is_empty() {
            let beside = theirs.by_block.range(began..).next();
            if beside.is_none() {
                return Err(Early {
                    reason: Reason::NoBaseline,
                    message: format!("{artifact} does not run beside the candidate."),
                });
            }
        }
        let names_instances = |blocks: &Blocks<T>| !blocks.instances.is_empty();
        Ok(Sides {
            relied: Relied {
                candidate: version.to_owned(),
                baseline: artifact.version.clone().unwrap_or_default(),
                grid,
                from_ms: self.from_ms,
                against: compare.against,
                is_told_apart: names_instances(candidate) && names_instances(theirs),
            },
            candidate,
            baseline: theirs,
            artifact,
            end,
            is_stale: candidate.newest_ms < self.now_ms - STALE_AFTER_MS,
            warnings: gathered.warnings.clone(),
        })
    }

    fn candidate<'d, 's, T>(
        &'s self,
        gathered: &'d Gathered<T>,
        kind: SpanKind,
        total: &impl Fn(&T) -> f64,
    ) -> Result<(&'s str, &'d Blocks<T>), Early> {
        let artifact = &self.subject.deployment.artifact;
        let no_data = |message: String| Early {
            reason: Reason::NoData,
            message,
        };
        let Some(version) = artifact.version.as_deref() else {
            return Err(no_data(format!(
                "No version label is known for {artifact}, so its telemetry can't be told apart: \
                 send artifact.version with the deployment's event."
            )));
        };
        let age = humanize_ms(self.now_ms - self.from_ms);
        let service = &self.subject.deployment.target.service;
        let began = gathered.grid.block_of(self.from_ms + 1);
        let found = gathered.versions.get(version);
        if let Some(found) = found
            && found.by_block.range(began..).next().is_some()
        {
            return Ok((version, found));
        }
        let is_alive = found.is_some_and(|found| found.newest_ms >= self.from_ms);
        if is_alive {
            return Err(Early {
                reason: Reason::InsufficientData,
                message: format!("{version} has served no request in the {age} since it started."),
            });
        }
        let untagged: f64 = gathered.versions.get("").map_or(0.0, |blocks| {
            blocks.by_block.range(began..).map(|(_, t)| total(t)).sum()
        });
        if untagged > 0.0 {
            return Err(no_data(format!(
                "Nothing was received from {version} in {age}, but {} {} of {service} carry no \
                 version: {}.",
                words::count(untagged),
                self.things(),
                self.how_to_tag()
            )));
        }
        Err(no_data(format!(
            "Nothing was received from {version} in {age}: no {} of {service:?} {} {version:?}.",
            self.thing(kind),
            self.carrying()
        )))
    }

    /// Whether requests are known from spans.
    fn is_of_spans(&self) -> bool {
        self.mapping.span_kind.is_some()
    }

    fn things(&self) -> &'static str {
        match self.is_of_spans() {
            true => "spans",
            false => "requests",
        }
    }

    fn thing(&self, kind: SpanKind) -> String {
        match self.is_of_spans() {
            true => format!("{} span", kind.label()),
            false => format!("series of {}", self.mapping.count),
        }
    }

    /// What the series that was looked for carries.
    fn carrying(&self) -> String {
        let mapping = self.mapping;
        match &mapping.join {
            None => format!("carries {}", mapping.version.label),
            Some(join) => format!("is by {}'s {}", join.metric, mapping.version.label),
        }
    }

    fn how_to_tag(&self) -> String {
        let mapping = self.mapping;
        let label = &mapping.version.label;
        match &mapping.join {
            None if self.is_of_spans() => "set the resource attribute service.version".to_owned(),
            None => format!("their series need the label {label}"),
            Some(join) => format!(
                "no {} with {label} has their {}",
                join.metric,
                join.on.join(", ")
            ),
        }
    }

    fn baseline<'d, T>(
        &self,
        gathered: &'d Gathered<T>,
        candidate: &str,
        began: i64,
        total: &impl Fn(&T) -> f64,
    ) -> Result<(Artifact, &'d Blocks<T>), Early> {
        let no_baseline = |message: String| Early {
            reason: Reason::NoBaseline,
            message,
        };
        let others = gathered
            .versions
            .iter()
            .filter(|(v, _)| *v != candidate && !v.is_empty());
        let count = |blocks: &Blocks<T>, from: i64| -> f64 {
            blocks
                .by_block
                .range(from..)
                .map(|(_, counts)| total(counts))
                .sum()
        };
        let running = |from: i64| -> Vec<RunningVersion> {
            let counted = others.clone().map(|(version, blocks)| RunningVersion {
                version: version.clone(),
                requests: count(blocks, from),
            });
            counted.filter(|running| running.requests > 0.0).collect()
        };
        // Beside the candidate first; without a neighbour, whoever served before it.
        let beside = running(began);
        let seen = if beside.is_empty() {
            running(i64::MIN)
        } else {
            beside
        };
        let deployment = &self.subject.deployment;
        let choice = baseline::choose(deployment, &self.subject.history, &seen);
        let Some(choice) = choice else {
            return Err(no_baseline(format!(
                "There is nothing to compare {candidate} with: no other version of {} served \
                 requests beside it or before it.",
                deployment.target.service
            )));
        };
        let version = choice.artifact.version.clone().unwrap_or_default();
        match gathered
            .versions
            .get(&version)
            .filter(|blocks| !blocks.by_block.is_empty())
        {
            Some(blocks) => Ok((choice.artifact, blocks)),
            None => Err(no_baseline(format!(
                "Nothing was received from the baseline {} since {} before the deployment.",
                choice.artifact,
                humanize_ms(self.from_ms - history_from_ms(self.gate, &self.subject.deployment))
            ))),
        }
    }
}
