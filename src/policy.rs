//! The rules language: YAML documents into gates that can't be wrong.
//!
//! A **gate** is a named set of checks with a selector; a **check** is one question with a
//! three-valued answer. This room reads them, tells the author everything that is wrong with a
//! file at once and in its place, and hands on only valid values: whoever holds a [`Gate`] need
//! not check it again. It judges nothing; the judge does.
//!
//! What the language settles:
//!
//! - **A gate without data doesn't pass.** Nothing in a gate turns missing data into pass before
//!   `decideWithin` is over; after it, `onInconclusive` says what the author wants, and `hold`
//!   (stay inconclusive) is the default.
//! - **`worseBy` is the most that is tolerated, `passWithin` what a pass certifies.** Each draws
//!   a boundary at `baseline * (1 + relative) + absolute`. A comparison fails when the candidate
//!   is shown to be beyond the boundary of `worseBy`, and passes when it is shown to be within
//!   that of `passWithin`; neither is shown on the boundary itself. `worseBy` may be nothing: then
//!   any shown harm fails. `passWithin` may not, since "no worse at all" can't be shown; and no
//!   part of it is smaller than that of `worseBy`, or a version could be shown to be both. A
//!   `worseBy` alone is both margins; a `passWithin` alone goes with the default `worseBy`, but
//!   for parts of that which are greater than its own.
//! - **The error rates are the gate's, not the check's.** `falseAlarms` bounds the probability
//!   that a version that is no worse than tolerated fails, over all checks and all looks of one
//!   rollout; a comparing check's `weight` is its share. `falsePasses` bounds the probability
//!   that a version that is worse than tolerated passes. Queries and coverage know no chance.
//! - **Required and critical are two things.** A fail of a critical check fails the gate; a
//!   pass of the gate needs a pass of every required check. Both are on unless switched off. A
//!   check that is neither is shown and decides nothing.
//! - **Several gates may match one deployment.** Each answers for itself; a caller asks by name.
//! - **Names are unique** over all files, so that a verdict names one gate.
//! - **Same meaning, same hash.** [`Gate::hash`] is taken over the canonical form: defaults
//!   written out, numbers and durations normalised, checks in order of name. Comments, layout
//!   and `60m` against `1h` don't change it.
//! - **An empty file is a mistake**, because a policy that guards nothing is not what its
//!   author wanted.
//!
//! Values from a rollout reach PromQL only through [`Template`], which escapes them for the
//! place they stand in: a version label can't break out of its string.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use slogate_stats::kayenta;

mod defaults;
pub(crate) mod diagnostics;
mod document;
mod explain;
mod parse;
mod promql;
pub(crate) mod reader;
pub(crate) mod set;
mod template;
mod value;
pub(crate) mod yaml;

pub use diagnostics::{Diagnostic, Diagnostics, Place, SourceFile};
pub use explain::explain;
pub use parse::parse;
pub use set::{PolicySet, built_in, is_test, load};
pub use template::{MissingVariable, Template, TemplateError, Variable, Vars};

pub use crate::model::Glob;
use crate::model::{CheckKind, Target};

/// A named set of checks that a rollout has to pass.
///
/// Serialises to the policy document with every default written out, which [`parse()`] reads
/// back to an equal gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Its name, unique among all loaded gates.
    pub name: String,
    /// Which deployments it is for.
    pub matches: Match,
    /// How long the candidate's first traffic is no evidence for comparisons, in milliseconds.
    pub warm_up_ms: i64,
    /// The shortest time a deployment is watched before it may pass, in milliseconds from its
    /// start.
    pub soak_ms: i64,
    /// When waiting ends, in milliseconds from the deployment's start; after it
    /// `on_inconclusive` applies.
    pub decide_within_ms: i64,
    /// What an undecided gate answers after `decide_within_ms`.
    pub on_inconclusive: OnInconclusive,
    /// The probability, over the whole rollout and all checks together, that a version that is
    /// no worse than tolerated fails. Above 0 and below 0.5.
    pub false_alarms: f64,
    /// The probability that a version that is worse than tolerated passes. Above 0 and below 0.5.
    pub false_passes: f64,
    /// Its questions: at least one, with unique names, in the order of the file.
    pub checks: Vec<Check>,
    /// SHA-256 of the canonical form in lower-case hex.
    pub hash: String,
}

/// Which deployments a gate is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// The service's name.
    pub service: Glob,
    /// The environment's name; a target without one has the empty name, which `*` matches.
    pub environment: Glob,
}

/// What an undecided gate answers when `decideWithin` is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnInconclusive {
    /// Stay inconclusive: somebody has to look.
    #[default]
    Hold,
    /// Pass.
    Pass,
    /// Fail.
    Fail,
}

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Its name, unique in its gate.
    pub name: String,
    /// Whether a fail of it fails the gate.
    pub critical: bool,
    /// Whether a pass of the gate needs a pass of it.
    pub required: bool,
    /// What it asks.
    pub spec: CheckSpec,
    /// Its share of the gate's false alarms, relative to the other comparing checks' weights.
    pub weight: f64,
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckSpec {
    /// A PromQL expression against a threshold.
    Query(QueryCheck),
    /// The candidate against the baseline.
    Compare(CompareCheck),
    /// The candidate's series against the baseline's, by one query for both.
    Series(SeriesCheck),
    /// A canary config of Kayenta's, judged as Kayenta does.
    Kayenta(KayentaCheck),
    /// The share of telemetry that says which version it is from.
    Coverage(CoverageCheck),
}

/// A PromQL expression, whose answer is one number, against a threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryCheck {
    /// The expression, with variables.
    pub expr: Template,
    /// What its answer has to be.
    pub threshold: Threshold,
    /// The age in milliseconds from which the newest data is too old to judge.
    pub stale_after_ms: i64,
}

/// What a number has to be to pass. Only one side of `value` passes; NaN never does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// How the number is held against `value`.
    pub op: ThresholdOp,
    /// The limit; finite.
    pub value: f64,
}

/// How a number is held against its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ThresholdOp {
    /// Less than.
    Below,
    /// Less than or equal to.
    AtMost,
    /// Greater than.
    Above,
    /// Greater than or equal to.
    AtLeast,
}

/// The candidate against the baseline, from the request series that spans become.
#[derive(Clone, Debug, PartialEq)]
pub struct CompareCheck {
    /// What is compared.
    pub sli: CompareSli,
    /// The most that is tolerated: shown to be beyond it is a fail. May be nothing.
    pub worse_by: Margin,
    /// What a pass certifies: shown to be within it is a pass. Above nothing, and no part of it
    /// is smaller than that of `worse_by`.
    pub pass_within: Margin,
    /// Candidate events below which nothing passes.
    pub min_events: u64,
    /// Which spans count.
    pub span_kind: SpanKind,
    /// What the candidate is compared with.
    pub against: BaselinePreference,
}

/// What a comparison compares. Less is better in each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CompareSli {
    /// `requests.errorRatio`: spans with status error per span.
    ErrorRatio,
    /// `requests.duration`: span durations in seconds.
    Duration {
        /// The quantile to compare, between 0 and 1, for example 0.95; none for the whole
        /// distribution.
        quantile: Option<f64>,
    },
}

impl CompareSli {
    /// The quantile that evidence shows, and that a pass certifies: the one that was named, else
    /// the 95th percentile. None for what has no quantiles.
    pub fn shown_quantile(self) -> Option<f64> {
        match self {
            CompareSli::ErrorRatio => None,
            CompareSli::Duration { quantile } => Some(quantile.unwrap_or(0.95)),
        }
    }
}

/// By how much a candidate is worse: the boundary is `baseline * (1 + relative) + absolute`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Margin {
    /// In the indicator's own unit: a share (0.001 is 0.1 %) for ratios, seconds for durations.
    pub absolute: Option<f64>,
    /// A share of the baseline: 0.25 is 25 %.
    pub relative: Option<f64>,
}

/// The candidate's series against the baseline's: one query, asked for each side's version.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesCheck {
    /// The query; its `$version` is the side's own.
    pub expr: Template,
    /// The time from one point to the next, in milliseconds.
    pub step_ms: i64,
    /// Which change is for the worse.
    pub direction: ChangeDirection,
    /// How the two are compared.
    pub method: SeriesMethod,
    /// The most that is tolerated; see [`CompareCheck::worse_by`]. Absolute parts are in the
    /// query's own unit.
    pub worse_by: Margin,
    /// What a pass certifies; see [`CompareCheck::pass_within`].
    pub pass_within: Margin,
    /// When it is judged.
    pub horizon: Horizon,
    /// What the candidate is compared with.
    pub against: BaselinePreference,
}

/// Which change of a series is for the worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChangeDirection {
    /// More is worse.
    #[default]
    Increase,
    /// Less is worse.
    Decrease,
    /// Any change is worse.
    Either,
}

/// How two series are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SeriesMethod {
    /// A test that may be looked at at any time.
    #[default]
    Sequential,
    /// Mann and Whitney's test of ranks, once.
    MannWhitney,
    /// A permutation test of means in blocks of time, once.
    BlockPermutation,
    /// As Kayenta's judge classifies a metric, once.
    Kayenta,
}

/// When a test that is not to be looked at early is judged. Nothing where a test may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Horizon {
    /// How long after the deployment began, in milliseconds; the gate's `decide_within_ms` where
    /// not given.
    pub after_ms: Option<i64>,
    /// The time between judgements until then, where there is more than one.
    pub every_ms: Option<i64>,
}

/// A canary config of Kayenta's.
#[derive(Clone, Debug, PartialEq)]
pub struct KayentaCheck {
    /// Its metrics: 1 to 200, with unique names.
    pub metrics: Vec<KayentaMetric>,
    /// The groups' shares of 100.
    pub group_weights: BTreeMap<String, f64>,
    /// What the score has to be.
    pub thresholds: kayenta::Thresholds,
    /// The time from one point to the next, in milliseconds.
    pub step_ms: i64,
    /// When it is judged.
    pub horizon: Horizon,
    /// What the candidate is compared with.
    pub against: BaselinePreference,
}

/// A metric of a canary config.
#[derive(Clone, Debug, PartialEq)]
pub struct KayentaMetric {
    /// Its name.
    pub name: String,
    /// The query; its `$version` is the side's own.
    pub expr: Template,
    /// The groups that it counts in.
    pub groups: Vec<String>,
    /// How it is judged.
    pub config: kayenta::MetricConfig,
}

/// Which side of a call a span saw, as in OpenTelemetry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SpanKind {
    /// The side that answers requests.
    #[default]
    Server,
    /// The side that sends requests.
    Client,
    /// The side that takes messages from a queue.
    Consumer,
    /// The side that puts messages on a queue.
    Producer,
    /// Work inside of a process.
    Internal,
}

/// What a candidate is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BaselinePreference {
    /// The stable version beside it where there is one, else the previous version's history.
    #[default]
    Auto,
    /// Only the stable version that runs beside it.
    Concurrent,
    /// Only the previous version's own history.
    Historical,
}

/// The share of telemetry that says which version it is from.
#[derive(Clone, Debug, PartialEq)]
pub struct CoverageCheck {
    /// The least share that passes, above 0 and at most 1.
    pub at_least: f64,
    /// Which signals count; not empty, no repeats, in the order of [`Signal`].
    pub signals: Vec<Signal>,
}

/// A kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metric points.
    Metrics,
    /// Log records.
    Logs,
}

impl Gate {
    /// Whether this gate is for deployments to `target`.
    pub fn is_for(&self, target: &Target) -> bool {
        self.matches.service.matches(&target.service)
            && self.matches.environment.matches(&target.environment)
    }
}

impl Serialize for Gate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        document::Document::of(self).serialize(serializer)
    }
}

impl Check {
    /// What it asks, as evidence names it.
    pub fn kind(&self) -> CheckKind {
        match self.spec {
            CheckSpec::Query(_) => CheckKind::Query,
            CheckSpec::Compare(_) | CheckSpec::Series(_) | CheckSpec::Kayenta(_) => {
                CheckKind::Compare
            }
            CheckSpec::Coverage(_) => CheckKind::Coverage,
        }
    }

    /// Whether it takes a share of the gate's `false_alarms` by its weight. What Kayenta's judge
    /// answers is outside of that promise.
    pub fn shares_false_alarms(&self) -> bool {
        match &self.spec {
            CheckSpec::Compare(_) => true,
            CheckSpec::Series(series) => series.method != SeriesMethod::Kayenta,
            CheckSpec::Kayenta(_) | CheckSpec::Query(_) | CheckSpec::Coverage(_) => false,
        }
    }
}

impl QueryCheck {
    /// PromQL for when the newest data behind the check's answer was taken, in seconds since the
    /// epoch: of each selector its newest sample, of those the oldest. The check is stale where
    /// that is `stale_after_ms` ago. `None` where no selector asks for present data.
    ///
    /// # Errors
    /// When the expression uses a variable that has no value.
    pub fn freshness(&self, vars: &Vars) -> Result<Option<String>, MissingVariable> {
        Ok(promql::freshness(&self.expr.render(vars)?))
    }
}

impl Threshold {
    /// Whether `answer` passes. NaN doesn't.
    pub fn holds(&self, answer: f64) -> bool {
        match self.op {
            ThresholdOp::Below => answer < self.value,
            ThresholdOp::AtMost => answer <= self.value,
            ThresholdOp::Above => answer > self.value,
            ThresholdOp::AtLeast => answer >= self.value,
        }
    }
}

/// `below 1000`, `at least 0.99`.
impl std::fmt::Display for Threshold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let op = match self.op {
            ThresholdOp::Below => "below",
            ThresholdOp::AtMost => "at most",
            ThresholdOp::Above => "above",
            ThresholdOp::AtLeast => "at least",
        };
        write!(f, "{op} {}", self.value)
    }
}

impl Margin {
    /// The worst value that is tolerated beside a baseline of `baseline`.
    pub fn boundary(&self, baseline: f64) -> f64 {
        baseline * (1.0 + self.relative.unwrap_or(0.0)) + self.absolute.unwrap_or(0.0)
    }

    /// Whether it tolerates no difference at all.
    pub fn is_nothing(&self) -> bool {
        self.boundary(1.0) <= 1.0
    }
}

/// A closed set of words in the language, each with its value.
pub(crate) trait Word: Copy + PartialEq + 'static {
    /// Every word and what it stands for, in the order they are listed to the author.
    const WORDS: &'static [(&'static str, Self)];

    /// The word for this value.
    fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, value)| *value == self);
        found.map_or("", |(word, _)| word)
    }
}

impl Word for OnInconclusive {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("hold", OnInconclusive::Hold),
        ("pass", OnInconclusive::Pass),
        ("fail", OnInconclusive::Fail),
    ];
}

impl Word for ThresholdOp {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("below", ThresholdOp::Below),
        ("atMost", ThresholdOp::AtMost),
        ("above", ThresholdOp::Above),
        ("atLeast", ThresholdOp::AtLeast),
    ];
}

impl Word for SpanKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("server", SpanKind::Server),
        ("client", SpanKind::Client),
        ("consumer", SpanKind::Consumer),
        ("producer", SpanKind::Producer),
        ("internal", SpanKind::Internal),
    ];
}

impl Word for BaselinePreference {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", BaselinePreference::Auto),
        ("concurrent", BaselinePreference::Concurrent),
        ("historical", BaselinePreference::Historical),
    ];
}

impl Word for ChangeDirection {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("increase", ChangeDirection::Increase),
        ("decrease", ChangeDirection::Decrease),
        ("either", ChangeDirection::Either),
    ];
}

impl Word for SeriesMethod {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("sequential", SeriesMethod::Sequential),
        ("mannWhitney", SeriesMethod::MannWhitney),
        ("blockPermutation", SeriesMethod::BlockPermutation),
        ("kayenta", SeriesMethod::Kayenta),
    ];
}

impl Word for Signal {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("traces", Signal::Traces),
        ("metrics", Signal::Metrics),
        ("logs", Signal::Logs),
    ];
}

impl OnInconclusive {
    /// `hold`, `pass` or `fail`.
    pub fn as_str(self) -> &'static str {
        self.word()
    }
}

impl SpanKind {
    /// The value of the `span_kind` label of request series, for example `SPAN_KIND_SERVER`.
    pub fn label(self) -> &'static str {
        match self {
            SpanKind::Server => "SPAN_KIND_SERVER",
            SpanKind::Client => "SPAN_KIND_CLIENT",
            SpanKind::Consumer => "SPAN_KIND_CONSUMER",
            SpanKind::Producer => "SPAN_KIND_PRODUCER",
            SpanKind::Internal => "SPAN_KIND_INTERNAL",
        }
    }
}

impl Signal {
    /// The value of the `signal` label of `slogate_observability_items_total`.
    pub fn label(self) -> &'static str {
        match self {
            Signal::Traces => "spans",
            Signal::Metrics => "points",
            Signal::Logs => "logs",
        }
    }
}

#[cfg(test)]
mod tests;
