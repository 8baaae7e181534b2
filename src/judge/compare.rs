//! What every comparing check needs first: both sides' data, or the reason why there is none.
//!
//! In this order, the first that applies is the answer, and none of them is a pass:
//! the source failed (`source_error`); the candidate's version label is not known, or nothing
//! was received from it (`no_data`); there is nothing to compare with (`no_baseline`). Only
//! then are counts compared, by [`super::errors`] and [`super::latency`].

use super::Subject;
use super::arms::{self, Pairs};
use super::errors;
use super::examine::{Observed, history_from_ms};
use super::latency;
use super::words;
use crate::deploy::baseline::{self, RunningVersion};
use crate::model::{
    Artifact, Baseline, CheckResult, Evidence, Outcome, Reason, TimeRange, time::humanize_ms,
};
use crate::policy::{
    BaselinePreference, Check, CheckSpec, CompareCheck, CompareSli, Gate, SpanKind,
};
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

/// An answer without evidence of its own, before any counting.
pub(crate) struct Early {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

/// Both sides of a comparison.
pub(crate) struct Sides<'d, T> {
    /// Pairs of blocks that are evidence.
    pub(crate) pairs: Pairs<'d, T>,
    /// Pairs of blocks from the start, the warm-up included.
    pub(crate) from_start: Pairs<'d, T>,
    /// Whether the candidate is still warming up.
    pub(crate) is_warming: bool,
    /// Whether the candidate has sent nothing new for a while.
    pub(crate) is_stale: bool,
    /// What the candidate is compared with.
    pub(crate) baseline: Baseline,
    /// Baseline blocks from before the deployment: what is known of it beforehand.
    pub(crate) history: Vec<&'d T>,
    /// The source's remarks.
    pub(crate) warnings: Vec<String>,
}

impl Look<'_> {
    /// Answers a comparing check.
    pub(crate) fn compare(&self, check: &Check, compare: &CompareCheck) -> CheckResult {
        let answer = match compare.sli {
            CompareSli::ErrorRatio => self
                .sides(
                    self.observed.requests.get(compare.span_kind.label()),
                    compare,
                    |c| c.total,
                )
                .map(|sides| errors::answer(self, check, compare, &sides)),
            CompareSli::Duration { quantile } => self
                .sides(
                    self.observed.durations.get(compare.span_kind.label()),
                    compare,
                    |h| h.count,
                )
                .map(|sides| latency::answer(self, check, compare, quantile, &sides)),
        };
        answer.unwrap_or_else(|early| {
            result(
                check,
                Outcome::Inconclusive,
                early.reason,
                early.message,
                Evidence {
                    data: Some(TimeRange {
                        start_ms: self.from_ms,
                        end_ms: self.now_ms,
                    }),
                    ..Evidence::default()
                },
            )
        })
    }

    /// The log e-value at which a check fails: one over its share of the gate's false alarms.
    pub(crate) fn log_fail_at(&self, check: &Check) -> f64 {
        let comparing = self.gate.checks.iter();
        let comparing = comparing.filter(|check| matches!(check.spec, CheckSpec::Compare(_)));
        let weights: f64 = comparing.map(|check| check.weight).sum();
        let share = if weights > 0.0 {
            check.weight / weights
        } else {
            1.0
        };
        -(self.gate.false_alarms * share).ln()
    }

    /// The log e-value at which a check passes.
    pub(crate) fn log_pass_at(&self) -> f64 {
        -self.gate.false_passes.ln()
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
        let against =
            |first: i64| arms::pair(candidate, theirs, began, first, end, grid, compare.against);
        let start = arms::evidence_start(candidate, self.from_ms, self.gate.warm_up_ms, grid);
        let pairs = against(start.unwrap_or(end));
        if compare.against == BaselinePreference::Concurrent && !theirs.by_block.is_empty() {
            let beside = theirs.by_block.range(began..).next();
            if beside.is_none() {
                return Err(Early {
                    reason: Reason::NoBaseline,
                    message: format!("{artifact} does not run beside the candidate."),
                });
            }
        }
        Ok(Sides {
            from_start: against(began),
            is_warming: start.is_none_or(|start| start >= end),
            is_stale: candidate.newest_ms < self.now_ms - STALE_AFTER_MS,
            baseline: Baseline {
                artifact,
                kind: pairs.kind,
                data: pairs.baseline_data,
            },
            pairs,
            history: theirs
                .by_block
                .range(..began)
                .map(|(_, counts)| counts)
                .collect(),
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
