//! A recording as a rollout that can be judged.
//!
//! **Which deployment is judged?** Of those that the events tell of, each that began while the
//! recording ran, save rollbacks, and save the one that was there from the first sample on when
//! another came after it: that is what ran before. Where none began then, the newest. Where only
//! the end of a deployment was announced, or nothing at all, it began with the candidate's first
//! sample.
//!
//! **What is known when?** The judge sees the deployment as it was while it went on: how it ended
//! in the recording is kept from it, so that the replay can go on where somebody pulled the rope.
//! What came before it is known, nothing that came later.

use std::collections::BTreeMap;
use std::sync::Arc;

use slogate_series::{Labels, Series};
use slogate_tsdb::{Batch, Options, Store};

use super::arms::Hints;
use super::canonical;
use super::events;
use super::folder::Found;
use super::reading::{self, Reading};
use super::recording::{Recording, RecordingError};
use crate::config::QuerySettings;
use crate::deploy;
use crate::judge::Subject;
use crate::model::{Artifact, Deployment, Event, EventKind, Phase, Target, time};
use crate::source::{EmbeddedSource, Mapped, MetricSource};

/// A deployment that began this much before the recording's first sample, or less after it, was
/// there from the start, in milliseconds.
const FROM_THE_START_MS: i64 = 60_000;

pub(super) const QUERIES: QuerySettings = QuerySettings {
    concurrency: 4,
    timeout_ms: 600_000,
    samples_max: usize::MAX,
    lookback_ms: 300_000,
};

/// What is replayed.
pub(crate) struct Rollout {
    /// What to call it.
    pub(crate) name: String,
    /// The deployment as it went on, and what is known of its target's past.
    pub(crate) subject: Subject,
    /// Where its series are.
    pub(crate) source: Arc<dyn MetricSource>,
    /// How they are read; `None` where the source's own mapping says it.
    pub(crate) reading: Option<Reading>,
    /// The last sample's time.
    pub(crate) end_ms: i64,
    /// When each version's samples were taken, ascending; empty where not known.
    pub(crate) seen: BTreeMap<String, Vec<i64>>,
    /// What was guessed.
    pub(crate) assumptions: Vec<String>,
    /// What was left out or looks odd.
    pub(crate) notes: Vec<String>,
}

/// The rollouts of a folder: one, or one for each deployment that began while it was recorded.
///
/// # Errors
/// When a file is broken, or there is nothing to judge.
pub(crate) fn of_folder(found: &Found) -> Result<Vec<Rollout>, RecordingError> {
    let recording = Recording::read(&found.files)?;
    let nothing = |what: &str| RecordingError::File {
        file: found.folder.clone(),
        what: what.to_owned(),
    };
    let range = recording.range_ms();
    let first_event = recording.events.len();
    if range.is_none() && first_event == 0 {
        return Err(nothing(
            "no samples and no deploy events: expected OpenMetrics text (*.om, *.prom, *.txt) or \
             OTLP as JSON lines (*.jsonl)",
        ));
    }
    let (events, notes) = events::read(&recording.events, range.map_or(0, |range| range.0));
    let mut rollouts = Vec::new();
    let mut all = announced(&events, range);
    // Of several services the recording may be about some only.
    let is_known = |one: &Deployment| reading::knows(&recording, &one.target.service);
    if all.len() > 1 && all.iter().any(is_known) {
        all.retain(is_known);
    }
    for announced in all {
        rollouts.extend(prepare(found, &recording, &events, Some(announced)));
    }
    if rollouts.is_empty() {
        rollouts.extend(prepare(found, &recording, &events, None));
    }
    if rollouts.is_empty() {
        return Err(nothing(
            "no events, and no label tells two versions apart: add events.jsonl with \
             {\"type\":\"deployment.started\",\"service\":…,\"artifact\":{\"version\":…},\"time\":…}, \
             or a label such as version or track to the series",
        ));
    }
    let many = rollouts.len() > 1;
    for rollout in &mut rollouts {
        if many {
            let artifact = &rollout.subject.deployment.artifact;
            rollout.name = format!("{}#{artifact}", rollout.name);
        }
        rollout.notes.extend(recording.notes.iter().cloned());
        rollout.notes.extend(notes.iter().cloned());
    }
    Ok(rollouts)
}

/// The deployments to judge, oldest first.
fn announced(events: &[Event], range: Option<(i64, i64)>) -> Vec<Deployment> {
    let mut by_target: BTreeMap<(String, String), Vec<&Event>> = BTreeMap::new();
    for event in events {
        let target = &event.target;
        let key = (target.service.clone(), target.environment.clone());
        by_target.entry(key).or_default().push(event);
    }
    let mut deployments: Vec<Deployment> = Vec::new();
    for events in by_target.into_values() {
        let Some(first) = events.first() else {
            continue;
        };
        let folded = deploy::fold(&first.target, events.iter().copied());
        deployments.extend(folded.into_iter().map(|folded| folded.deployment));
    }
    deployments.retain(|one| one.rollback_of.is_none() && one.artifact != Artifact::default());
    deployments.sort_by_key(Deployment::judged_from_ms);
    let Some((first_ms, last_ms)) = range else {
        return deployments.pop().into_iter().collect();
    };
    let began_while = |one: &Deployment| one.judged_from_ms() <= last_ms;
    let was_there = |one: &Deployment| one.judged_from_ms() <= first_ms + FROM_THE_START_MS;
    let newest = deployments.last().cloned();
    let later = |one: &Deployment, all: &[Deployment]| {
        let mut others = all.iter().filter(|other| other.target == one.target);
        others.any(|other| other.judged_from_ms() > one.judged_from_ms() && began_while(other))
    };
    let all = deployments.clone();
    deployments.retain(|one| began_while(one) && !(was_there(one) && later(one, &all)));
    match deployments.is_empty() {
        true => newest.into_iter().collect(),
        false => deployments,
    }
}

fn prepare(
    found: &Found,
    recording: &Recording,
    events: &[Event],
    announced: Option<Deployment>,
) -> Option<Rollout> {
    let mut assumptions = Vec::new();
    let target = announced.as_ref().map(|one| one.target.clone());
    let target = target.unwrap_or_default();
    let started_ms = announced.as_ref().and_then(|one| one.started_ms);
    let hints = Hints {
        candidate: announced
            .as_ref()
            .map(|one| names_of(&one.artifact))
            .unwrap_or_default(),
        baseline: announced
            .as_ref()
            .and_then(|one| one.previous.as_ref())
            .map(names_of)
            .unwrap_or_default(),
        start_ms: announced.as_ref().map(Deployment::judged_from_ms),
    };
    let reading = reading::read(recording, &target, &hints)?;
    let start_ms = match started_ms {
        Some(start_ms) => start_ms,
        None => {
            let start_ms = first_of_candidate(recording, &reading);
            let start_ms = start_ms
                .or(hints.start_ms)
                .or(recording.range_ms().map(|r| r.0))?;
            assumptions.push(format!(
                "no event says when the rollout began: it began with the candidate's first sample, at {}",
                time::to_rfc3339(start_ms)
            ));
            start_ms
        }
    };
    let history = history(&reading.target, events, start_ms, announced.as_ref());
    let deployment = deployment_of(announced, &reading, start_ms)?;
    let series = canonical::series(recording, &reading);
    let seen = seen(&series);
    let own = recording
        .series
        .iter()
        .map(|one| (canonical::tagged(one, &reading), one));
    let made = series.iter().map(|one| (one.labels.clone(), one));
    let store = fill(own.chain(made)).ok()?;
    assumptions.extend(reading.assumptions.iter().cloned());
    Some(Rollout {
        name: found.name.clone(),
        subject: Subject {
            deployment: Arc::new(deployment),
            history,
        },
        source: Arc::new(Mapped {
            source: Arc::new(EmbeddedSource::new(Arc::new(store), &QUERIES)),
            mapping: canonical::mapping(),
        }),
        end_ms: recording.range_ms().map_or(start_ms, |range| range.1),
        reading: Some(reading),
        seen,
        assumptions,
        notes: Vec::new(),
    })
}

/// What an artifact may be called in labels, the best name first.
fn names_of(artifact: &Artifact) -> Vec<String> {
    let mut names: Vec<String> = artifact.version.iter().cloned().collect();
    if let Some(digest) = &artifact.digest {
        let digest = digest.as_str();
        names.push(digest.to_owned());
        names.extend(digest.split(':').next_back().map(str::to_owned));
    }
    names
}

/// Just before the candidate's first sample, so that what it brings counts.
fn first_of_candidate(recording: &Recording, reading: &Reading) -> Option<i64> {
    let places = reading.requests.iter().flat_map(|one| &one.series);
    let places = places.chain(reading.durations.iter().flat_map(|one| &one.series));
    let own = places.filter_map(|at| recording.series.get(*at));
    let own = own.filter(|one| reading.arms.is_candidate(&one.labels));
    let first = own.min_by_key(|one| one.samples.first().map_or(i64::MAX, |s| s.t_ms))?;
    Some(first.samples.first()?.t_ms - canonical::step_ms(first).clamp(1, FROM_THE_START_MS))
}

/// The announced deployment, or one made of what the recording shows, in the recording's words.
fn deployment_of(
    announced: Option<Deployment>,
    reading: &Reading,
    start_ms: i64,
) -> Option<Deployment> {
    let arms = &reading.arms;
    let mut deployment = match announced {
        Some(announced) => announced,
        None => {
            let event = Event {
                id: "recording".to_owned(),
                source: "recording".to_owned(),
                time_ms: start_ms,
                kind: EventKind::Started,
                target: reading.target.clone(),
                artifact: Artifact::of_version(arms.candidate.clone()),
                previous: arms.baseline.clone().map(Artifact::of_version),
                deployment: None,
                step: None,
                reason: None,
                actor: None,
                url: None,
                labels: BTreeMap::new(),
            };
            let mut folded = deploy::fold(&reading.target, [&event]);
            folded.pop()?.deployment
        }
    };
    deployment.target = reading.target.clone();
    deployment.artifact.version = Some(arms.candidate.clone());
    let previous = deployment.previous.take().unwrap_or_default();
    deployment.previous = match arms.baseline.clone() {
        Some(baseline) => Some(Artifact {
            version: Some(baseline),
            ..previous
        }),
        None => (previous != Artifact::default()).then_some(previous),
    };
    Some(going_on(deployment, start_ms))
}

/// A deployment as it was while it went on.
pub(super) fn going_on(deployment: Deployment, start_ms: i64) -> Deployment {
    Deployment {
        phase: Phase::Progressing,
        started_ms: Some(start_ms),
        finished_ms: None,
        rolled_back_by: None,
        superseded_by: None,
        first_alert_ms: None,
        timeline: Vec::new(),
        ..deployment
    }
}

/// What the events before `start_ms` tell of other artifacts than `candidate`.
pub(super) fn known_before<'e>(
    events: impl Iterator<Item = &'e Event>,
    start_ms: i64,
    candidate: &Artifact,
) -> Vec<Arc<Deployment>> {
    let before: Vec<&Event> = events.filter(|event| event.time_ms < start_ms).collect();
    let Some(first) = before.first() else {
        return Vec::new();
    };
    let folded = deploy::fold(&first.target, before.iter().copied()).into_iter();
    let others = folded.filter(|folded| !folded.deployment.artifact.is_same(candidate));
    others.map(|folded| Arc::new(folded.deployment)).collect()
}

/// What was known of the target's past when the deployment began.
fn history(
    target: &Target,
    events: &[Event],
    start_ms: i64,
    announced: Option<&Deployment>,
) -> Vec<Arc<Deployment>> {
    let Some(announced) = announced else {
        return Vec::new();
    };
    let own = events
        .iter()
        .filter(|event| event.target == announced.target);
    let renamed = own.map(|event| Event {
        target: target.clone(),
        ..event.clone()
    });
    let renamed: Vec<Event> = renamed.collect();
    known_before(renamed.iter(), start_ms, &announced.artifact)
}

/// When each version was sampled.
fn seen(series: &[Series]) -> BTreeMap<String, Vec<i64>> {
    let mut seen: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for one in series {
        let version = one.labels.get("service_version").unwrap_or_default();
        let times = seen.entry(version.to_owned()).or_default();
        times.extend(one.samples.iter().map(|sample| sample.t_ms));
        if times.len() > 1_000_000 {
            times.sort_unstable();
            times.dedup();
        }
    }
    for times in seen.values_mut() {
        times.sort_unstable();
        times.dedup();
    }
    seen
}

/// A store that holds the series, whenever they are from.
fn fill<'s>(series: impl Iterator<Item = (Labels, &'s Series)>) -> Result<Store, String> {
    let options = Options {
        retention_ms: i64::MAX / 4,
        future_window_ms: i64::MAX / 4,
        out_of_order_window_ms: i64::MAX / 4,
        size_max_bytes: u64::MAX,
        ..Options::default()
    };
    let (store, _) = Store::open(options, 0).map_err(|error| error.to_string())?;
    let mut known: std::collections::HashSet<Labels> = std::collections::HashSet::new();
    let mut batch = Batch::default();
    for (labels, one) in series {
        // The recording's own comes first; what is made of it does not replace it.
        if !known.insert(labels.clone()) {
            continue;
        }
        let place = store.series(&labels).map_err(|error| error.to_string())?;
        for sample in &one.samples {
            batch.push(place, sample);
        }
        if batch.len() > 100_000 {
            store.append(&batch, 0).map_err(|error| error.to_string())?;
            batch.clear();
        }
    }
    store.append(&batch, 0).map_err(|error| error.to_string())?;
    Ok(store)
}
