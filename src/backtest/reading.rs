//! Which series of a recording are requests, failed requests and durations of the rollout's
//! service, and which version each is of.
//!
//! Nothing is configured, so names decide: metrics and labels that common libraries, meshes and
//! collectors write come first, words that people usually choose after them. For each side of a
//! call (what the service answers, what it asks of others) the metric that fits best is read, and
//! only that one, so that nothing is counted twice. Everything that was guessed is an assumption
//! and is shown.
//!
//! What fails is told by labels (`code="503"`, `status="error"`), else by a second counter
//! (`…_errors_total`), else by a gauge with the share of failures. Where there are rates instead
//! of counts, counts are made of them: rate times the time between samples.

use std::collections::{BTreeMap, BTreeSet};

use slogate_series::{Labels, Series};

use super::arms::{Arms, Hints};
use super::choose::{Chooser, View};
use super::recording::Recording;
use super::words::{
    self, CALLER_LABELS, ENVIRONMENT_LABELS, KIND_LABELS, SERVICE_LABELS, STATUS_LABELS,
};
use crate::model::Target;

/// The span kind of what a service answers.
pub(crate) const SERVER: &str = "SPAN_KIND_SERVER";

/// The span kind of what a service asks of others.
pub(crate) const CLIENT: &str = "SPAN_KIND_CLIENT";

/// How a recording is read.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// Whose rollout it is.
    pub(crate) target: Target,
    /// Which series are whose.
    pub(crate) arms: Arms,
    /// At most one for each span kind.
    pub(crate) requests: Vec<Requests>,
    /// At most one for each span kind.
    pub(crate) durations: Vec<Durations>,
    /// What stands for requests and durations where there are neither counts nor histograms.
    pub(crate) values: Vec<Values>,
    /// What was guessed, for people.
    pub(crate) assumptions: Vec<String>,
}

/// Series that count requests.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    /// Of which kind.
    pub(crate) kind: &'static str,
    /// Places in the recording.
    pub(crate) series: Vec<usize>,
    /// What their samples are.
    pub(crate) form: Form,
    /// How failed ones are told.
    pub(crate) failures: Failures,
}

/// What the samples of a metric of requests are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    /// A running total.
    Total,
    /// How many there were since the sample before.
    Each,
    /// How many there are in so many seconds.
    Rate { per_s: f64 },
}

/// How failed requests are told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failures {
    /// By labels of the same series.
    Labels,
    /// By other series of the same form; `beside` where the first count the successful ones only.
    Counter { series: Vec<usize>, beside: bool },
    /// By gauges of their share, or of the share of the others, in units of `scale`.
    Share {
        series: Vec<usize>,
        scale: f64,
        of_good: bool,
    },
    /// Not at all.
    Unknown,
}

/// Histograms of durations.
#[derive(Clone, Debug)]
pub(crate) struct Durations {
    /// Of which kind of requests.
    pub(crate) kind: &'static str,
    /// Places of the buckets, or of native histograms, in the recording.
    pub(crate) series: Vec<usize>,
    /// What one unit is in seconds.
    pub(crate) unit_s: f64,
}

/// Series of values that are compared as they are.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    /// What they measure.
    pub(crate) measure: Measure,
    /// Of which kind of requests.
    pub(crate) kind: &'static str,
    /// The metric.
    pub(crate) metric: String,
    /// Places in the recording.
    pub(crate) series: Vec<usize>,
    /// What one unit is in shares or in seconds.
    pub(crate) scale: f64,
    /// The time between samples, in milliseconds.
    pub(crate) step_ms: i64,
}

/// What values measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// The share of requests that failed.
    Failed,
    /// The share of requests that did not.
    Succeeded,
    /// A quantile or a mean of durations.
    Duration,
}

/// Whose requests a series is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Own,
    Caller,
    Other,
}

/// Reads what the recording says of `target`, whose service may be unknown.
///
/// `None` where nothing tells the versions apart.
pub(crate) fn read(recording: &Recording, target: &Target, hints: &Hints) -> Option<Reading> {
    let mut assumptions = Vec::new();
    let (service, names) = service_of(recording, &target.service, hints, &mut assumptions);
    let scope = Scope::new(recording, names, &target.environment);
    let own: Vec<&Series> = scope.own().collect();
    let arms = Arms::find(&own, hints)?;
    let target = Target {
        service,
        ..target.clone()
    };
    let mut reading = Reading {
        target,
        arms,
        requests: Vec::new(),
        durations: Vec::new(),
        values: Vec::new(),
        assumptions,
    };
    let describe = reading.arms.describe();
    reading.assumptions.push(describe);
    let views = scope.views();
    let chooser = Chooser {
        recording,
        arms: &reading.arms,
        views: &views,
    };
    let (mut requests, mut durations) = (Vec::new(), Vec::new());
    let (mut values, mut said) = (Vec::new(), Vec::new());
    for kind in kinds(&views) {
        let counted = chooser.requests(kind, &mut said);
        let timed = chooser.durations(kind, &mut said);
        let of_buckets = || chooser.of_buckets(timed.as_ref()?, &mut said);
        let counted = counted.or_else(of_buckets);
        let tells_failed = |one: &Requests| one.failures != Failures::Unknown;
        if !counted.as_ref().is_some_and(tells_failed) {
            values.extend(chooser.shares(kind, &mut said));
        }
        if timed.is_none() {
            values.extend(chooser.timings(kind, &mut said));
        }
        requests.extend(counted);
        durations.extend(timed);
    }
    reading.requests = requests;
    reading.durations = durations;
    reading.values = values;
    reading.assumptions.extend(said);
    Some(reading)
}

/// What is answered and what is asked; where nothing is said to be answered, what else there is.
fn kinds(views: &[View<'_>]) -> Vec<&'static str> {
    let found: BTreeSet<&'static str> = views.iter().map(|view| view.kind).collect();
    let mut kinds: Vec<&'static str> = [SERVER, CLIENT]
        .into_iter()
        .filter(|kind| found.contains(kind))
        .collect();
    if !found.contains(SERVER) {
        let others = ["SPAN_KIND_CONSUMER", "SPAN_KIND_INTERNAL"];
        kinds.extend(others.iter().find(|kind| found.contains(*kind)));
    }
    kinds
}

/// The service, and what the recording calls it; no names where nothing says a service.
fn service_of(
    recording: &Recording,
    said: &str,
    hints: &Hints,
    assumptions: &mut Vec<String>,
) -> (String, Vec<String>) {
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for one in &recording.series {
        if words::is_of_runtime(one.labels.metric_name().unwrap_or_default()) {
            continue;
        }
        for label in SERVICE_LABELS.iter().chain(CALLER_LABELS) {
            if let Some(value) = one.labels.get(label) {
                values.entry(label).or_default().insert(last_part(value));
            }
        }
    }
    let all = || values.values().flatten().copied();
    if !said.is_empty() {
        if all().any(|value| value == said) {
            return (said.to_owned(), vec![said.to_owned()]);
        }
        let is_like = |value: &&str| {
            value.len() >= 3 && said.len() >= 3 && (value.contains(said) || said.contains(value))
        };
        let like: BTreeSet<&str> = all().filter(is_like).collect();
        if !like.is_empty() {
            let names: Vec<String> = like.into_iter().map(str::to_owned).collect();
            assumptions.push(format!(
                "service {said:?} is {} in the labels",
                names.join(", ")
            ));
            return (said.to_owned(), names);
        }
        if !values.is_empty() {
            assumptions.push(format!(
                "no label says service {said:?}: all series are taken as its"
            ));
        }
        return (said.to_owned(), Vec::new());
    }
    // Without events: the service of which there are two versions.
    for label in SERVICE_LABELS {
        let Some(services) = values.get(label) else {
            continue;
        };
        let arms_of = |service: &str| {
            let own: Vec<&Series> = recording
                .series
                .iter()
                .filter(|one| one.labels.get(label).map(last_part) == Some(service))
                .collect();
            Arms::find(&own, hints).map(|_| own.len())
        };
        let found = services
            .iter()
            .filter_map(|service| Some((arms_of(service)?, *service)));
        let mut found: Vec<(usize, &str)> = found.collect();
        found.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        if let Some((_, service)) = found.first() {
            if found.len() > 1 {
                assumptions.push(format!(
                    "several services have two versions; {service:?} with the most series is judged"
                ));
            }
            return ((*service).to_owned(), vec![(*service).to_owned()]);
        }
    }
    ("service".to_owned(), Vec::new())
}

/// Whether any series says that it is about this service.
pub(crate) fn knows(recording: &Recording, service: &str) -> bool {
    let mut series = recording.series.iter();
    series.any(|one| {
        let mut labels = SERVICE_LABELS.iter().chain(CALLER_LABELS);
        labels.any(|label| one.labels.get(label).map(last_part) == Some(service))
    })
}

/// `checkout` of `shop/checkout`.
fn last_part(value: &str) -> &str {
    value.rsplit('/').next().unwrap_or(value)
}

/// The series that are about the service.
struct Scope<'r> {
    recording: &'r Recording,
    names: Vec<String>,
    environment: Option<(&'static str, String)>,
}

impl<'r> Scope<'r> {
    fn new(recording: &'r Recording, names: Vec<String>, environment: &str) -> Self {
        let has = |label: &str| {
            let mut series = recording.series.iter();
            series.any(|one| one.labels.get(label) == Some(environment))
        };
        let label = ENVIRONMENT_LABELS
            .iter()
            .find(|label| !environment.is_empty() && has(label));
        Scope {
            recording,
            names,
            environment: label.map(|label| (*label, environment.to_owned())),
        }
    }

    fn role(&self, labels: &Labels) -> Role {
        if let Some((label, environment)) = &self.environment
            && labels.get(label).is_some_and(|value| value != environment)
        {
            return Role::Other;
        }
        if self.names.is_empty() {
            return Role::Own;
        }
        let is_ours = |label: &&&str| {
            let value = labels.get(label).map(last_part);
            value.is_some_and(|value| self.names.iter().any(|name| name == value))
        };
        let reporter = labels.get("reporter").unwrap_or_default();
        if SERVICE_LABELS.iter().any(|label| is_ours(&label)) {
            return if reporter == "source" {
                Role::Other
            } else {
                Role::Own
            };
        }
        if CALLER_LABELS.iter().any(|label| is_ours(&label)) {
            return if reporter == "destination" {
                Role::Other
            } else {
                Role::Caller
            };
        }
        let mut known = SERVICE_LABELS.iter().chain(CALLER_LABELS);
        match known.any(|label| labels.get(label).is_some()) {
            true => Role::Other,
            false => Role::Own,
        }
    }

    fn own(&self) -> impl Iterator<Item = &'r Series> + '_ {
        let series = self.recording.series.iter();
        series.filter(|one| {
            let is_runtime = words::is_of_runtime(one.labels.metric_name().unwrap_or_default());
            !is_runtime && self.role(&one.labels) == Role::Own
        })
    }

    fn views(&self) -> Vec<View<'r>> {
        let mut views: BTreeMap<(&'r str, &'static str), Vec<usize>> = BTreeMap::new();
        for (at, one) in self.recording.series.iter().enumerate() {
            let metric = one.labels.metric_name().unwrap_or_default();
            if words::is_of_runtime(metric) {
                continue;
            }
            let kind = match self.role(&one.labels) {
                Role::Other => continue,
                Role::Caller => CLIENT,
                Role::Own => kind_of(metric, &one.labels),
            };
            views.entry((metric, kind)).or_default().push(at);
        }
        let made = views.into_iter();
        made.map(|((metric, kind), series)| View {
            metric,
            kind,
            series,
        })
        .collect()
    }
}

fn kind_of(metric: &str, labels: &Labels) -> &'static str {
    let said = KIND_LABELS
        .iter()
        .find_map(|label| words::span_kind_of(labels.get(label)?));
    match said {
        Some(kind) => kind,
        None if words::names_outbound(metric) => CLIENT,
        None => SERVER,
    }
}

/// Whether a series is of failed requests, as any of its labels says.
pub(crate) fn is_failed(labels: &Labels) -> bool {
    STATUS_LABELS.iter().any(|label| {
        let value = labels.get(label);
        value.is_some_and(|value| words::is_failure(label, value) == Some(true))
    })
}
