//! Deployments that were recorded as events, judged from a source that has their telemetry: the
//! daemon's data directory, or a Prometheus.
//!
//! Every deployment that is known to have begun is judged, from its begin until its gates' time is
//! over, the next deployment to the same target begins, or telemetry ends; rollbacks are not, and
//! neither is what ran when slogate first looked. How a deployment ended is kept from the judge.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use slogate_tsdb::{Options, Store};

use super::events;
use super::folder::Found;
use super::recording::{Recording, RecordingError};
use super::rollout::{QUERIES, Rollout, going_on, known_before};
use crate::config::DataDir;
use crate::deploy;
use crate::judge::Subject;
use crate::ledger::Ledger;
use crate::model::{Deployment, Event, Target};
use crate::record::Records;
use crate::source::{EmbeddedSource, Mapped, Mapping, MetricSource};

/// Beyond every recording, in milliseconds: thirty days.
const LONGEST_MS: i64 = 30 * 86_400_000;

/// Why a data directory can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct DataDirError {
    what: String,
}

fn failed(error: impl std::fmt::Display) -> DataDirError {
    DataDirError {
        what: error.to_string(),
    }
}

/// The events in a data directory's records; nothing is changed there.
///
/// # Errors
/// When the directory is none of slogate's, or can't be read.
pub(crate) fn events_of(dir: &Path) -> Result<Vec<Event>, DataDirError> {
    DataDir::check(dir).map_err(failed)?;
    let records = Records::open_read_only(dir).map_err(failed)?;
    let mut events = Vec::new();
    let ledger = Ledger::open(records);
    ledger
        .each_event(|event| events.push(event))
        .map_err(failed)?;
    Ok(events)
}

/// The series in a data directory, read by `mapping`; nothing is changed there.
///
/// # Errors
/// When the series can't be read.
pub(crate) fn source_of(
    dir: &Path,
    mapping: Mapping,
) -> Result<Arc<dyn MetricSource>, DataDirError> {
    let options = Options {
        dir: Some(dir.join("series")),
        retention_ms: i64::MAX / 4,
        size_max_bytes: u64::MAX,
        ..Options::default()
    };
    let (store, _) = Store::open_read_only(options, 0).map_err(failed)?;
    Ok(Arc::new(Mapped {
        source: Arc::new(EmbeddedSource::new(Arc::new(store), &QUERIES)),
        mapping,
    }))
}

/// The events in a folder's files.
///
/// # Errors
/// When a file is broken.
pub(crate) fn events_in(found: &Found) -> Result<(Vec<Event>, Vec<String>), RecordingError> {
    let recording = Recording::read(&found.files)?;
    let first_ms = recording.range_ms().map_or(0, |range| range.0);
    let (events, mut notes) = events::read(&recording.events, first_ms);
    notes.extend(recording.notes);
    Ok((events, notes))
}

/// The deployments of `events` as rollouts, oldest first.
pub(crate) fn rollouts(events: &[Event], source: &Arc<dyn MetricSource>) -> Vec<Rollout> {
    let mut by_target: BTreeMap<(String, String, Option<String>), Vec<&Event>> = BTreeMap::new();
    for event in events {
        let Target {
            service,
            environment,
            region,
        } = event.target.clone();
        let key = (service, environment, region);
        by_target.entry(key).or_default().push(event);
    }
    let mut rollouts = Vec::new();
    for events in by_target.into_values() {
        let Some(first) = events.first() else {
            continue;
        };
        let folded = deploy::fold(&first.target, events.iter().copied());
        let all: Vec<Deployment> = folded.into_iter().map(|folded| folded.deployment).collect();
        for deployment in &all {
            rollouts.extend(rollout(deployment, &all, &events, source));
        }
    }
    rollouts.sort_by_key(|one| one.subject.deployment.judged_from_ms());
    rollouts
}

fn rollout(
    deployment: &Deployment,
    all: &[Deployment],
    events: &[&Event],
    source: &Arc<dyn MetricSource>,
) -> Option<Rollout> {
    let is_judged = deployment.rollback_of.is_none() && !deployment.is_what_already_ran();
    let start_ms = deployment.started_ms.filter(|_| is_judged)?;
    let later = all.iter().filter_map(|other| other.started_ms);
    let next_ms = later.filter(|other| *other > start_ms).min();
    let history = known_before(events.iter().copied(), start_ms, &deployment.artifact);
    Some(Rollout {
        name: deployment.id.to_string(),
        subject: Subject {
            deployment: Arc::new(going_on(deployment.clone(), start_ms)),
            history,
        },
        source: source.clone(),
        reading: None,
        end_ms: next_ms.unwrap_or(start_ms + LONGEST_MS),
        seen: BTreeMap::new(),
        assumptions: Vec::new(),
        notes: Vec::new(),
    })
}
