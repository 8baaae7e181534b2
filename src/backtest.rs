//! Recorded rollouts judged over again.
//!
//! [`run`] finds rollouts in folders, reads each (text of metrics, OTLP, deploy events), works out
//! what in it are requests and versions, and replays it through the judge in the recording's own
//! time. Nothing need be configured; whatever was guessed is in the report.
//!
//! - `folder`, `labels`: what is where, and what is known about it.
//! - `recording`, `otlp`, `events`: files to series and events; `joined`: labels that stand on
//!   another metric.
//! - `words`, `arms`, `reading`, `choose`: which series are requests, and whose.
//! - `canonical`: those series as slogate itself names them.
//! - `rollout`: a recording as a deployment with a past and a source.
//! - `recorded`: deployments of a data directory, or of events and a Prometheus.
//! - `gates`, `replay`: judged by which gate, look after look; `harm`: what it cost.
//! - `report`, `text`, `html`: what came of it.
//!
//! Policy:
//! - **The clock is the data's.** Nothing here reads another one, and two runs over the same
//!   files give the same report.
//! - **A rollout that can't be read is its own error**, with the place; the others go on.
//! - **No data is an answer of its own**: a candidate that sends nothing is inconclusive.
//! - **Rollouts are independent**: each has a store of its own, and threads share nothing but the
//!   list of what is left to do. Breaking off keeps what is done.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

mod arms;
mod canonical;
mod choose;
mod events;
mod folder;
mod gates;
mod harm;
mod html;
mod joined;
mod labels;
mod otlp;
mod reading;
mod recorded;
mod recording;
mod replay;
mod report;
mod rollout;
mod text;
mod words;

pub use folder::PathError;
pub use gates::Policy;
pub use harm::Point;
pub use html::html;
pub use labels::Truth;
pub use recorded::DataDirError;
pub use replay::{Change, Phase, Replay};
pub use report::{Difference, Report, RolloutReport, Summary};
pub use text::{csv, tally, text};

use folder::Found;
use labels::{Label, Labels};
use rollout::Rollout;

use crate::model::Artifact;
use crate::source::{Mapping, MetricSource};

/// What to do.
#[derive(Clone)]
pub struct Options {
    /// Folders of rollouts, folders of such folders, files.
    pub paths: Vec<PathBuf>,
    /// A daemon's data directory, whose deployments are judged too.
    pub data_dir: Option<PathBuf>,
    /// Where telemetry is asked for, instead of in files and the data directory.
    pub source: Option<Arc<dyn MetricSource>>,
    /// How the data directory's series are read.
    pub mapping: Mapping,
    /// What they are judged by; each rollout by each.
    pub policies: Vec<Policy>,
    /// Rollouts at a time.
    pub jobs: usize,
}

/// Why nothing was replayed.
#[derive(Debug, thiserror::Error)]
pub enum BacktestError {
    /// A path can't be read.
    #[error(transparent)]
    Path(#[from] PathError),
    /// There are no rollouts.
    #[error(
        "no rollout in {}: expected a folder with metrics as text (*.om, *.openmetrics, *.prom, \
         *.metrics, *.txt) or OTLP as JSON lines (*.jsonl), or a folder of such folders",
        paths.join(", ")
    )]
    Nothing {
        /// Where was looked.
        paths: Vec<String>,
    },
    /// The data directory can't be read.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There are no deployments in it.
    #[error("{dir}: no deployment that is known to have begun")]
    NoDeployment {
        /// The directory.
        dir: String,
    },
    /// A thread could not be started.
    #[error("can't start: {0}")]
    Start(std::io::Error),
}

/// Replays all rollouts of `options`.
///
/// `progress` is told how many rollouts of how many are done, from any thread. Setting `stop`
/// breaks off: the report then has what was done.
///
/// # Errors
/// When a path can't be read or there are no rollouts. A rollout that can't be read is no error of
/// the whole.
pub fn run(
    options: &Options,
    stop: &AtomicBool,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Report, BacktestError> {
    let found = folder::find(&options.paths)?;
    let mut work: Vec<Work> = found.into_iter().map(Work::Folder).collect();
    let by_folder = folders_are_labels(&work);
    if let Some(dir) = &options.data_dir {
        let source = match &options.source {
            Some(source) => source.clone(),
            None => recorded::source_of(dir, options.mapping.clone())?,
        };
        let rollouts = recorded::rollouts(&recorded::events_of(dir)?, &source);
        if rollouts.is_empty() && work.is_empty() {
            let dir = dir.display().to_string();
            return Err(BacktestError::NoDeployment { dir });
        }
        let path = dir.display().to_string();
        work.extend(
            rollouts
                .into_iter()
                .map(|one| Work::Deployment(path.clone(), Box::new(one))),
        );
    }
    if work.is_empty() {
        let paths = options.paths.iter().map(|path| path.display().to_string());
        return Err(BacktestError::Nothing {
            paths: paths.collect(),
        });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(BacktestError::Start)?;
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Mutex<Vec<(usize, Vec<RolloutReport>)>> = Mutex::default();
    progress(0, work.len());
    let task = Task {
        options,
        by_folder,
        stop,
    };
    let walk = || {
        while !stop.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = work.get(at) else {
                return;
            };
            if let Some(reports) = runtime.block_on(task.replay(one)) {
                results.lock().push((at, reports));
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, work.len());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.jobs.clamp(1, work.len()) {
            scope.spawn(walk);
        }
        walk();
    });
    let mut results = results.into_inner();
    results.sort_by_key(|(at, _)| *at);
    let rollouts: Vec<RolloutReport> = results
        .into_iter()
        .flat_map(|(_, reports)| reports)
        .collect();
    let policies = options.policies.iter().map(|policy| policy.name.clone());
    let policies: Vec<String> = policies.collect();
    let interrupted = stop.load(Ordering::Relaxed);
    Ok(Report::new(rollouts, &policies, interrupted))
}

/// What a thread takes at a time.
enum Work {
    Folder(Found),
    /// A deployment of a data directory.
    Deployment(String, Box<Rollout>),
}

/// What all threads share.
struct Task<'a> {
    options: &'a Options,
    by_folder: bool,
    stop: &'a AtomicBool,
}

impl Task<'_> {
    /// The reports of a piece of work; `None` where it was broken off.
    async fn replay(&self, work: &Work) -> Option<Vec<RolloutReport>> {
        match work {
            Work::Folder(found) => self.folder(found).await,
            Work::Deployment(path, rollout) => {
                let replayed = replay::replay(rollout, &self.options.policies, self.stop).await?;
                Some(vec![reported(path, rollout, None, replayed)])
            }
        }
    }

    async fn folder(&self, found: &Found) -> Option<Vec<RolloutReport>> {
        let label = match label_of(found, self.by_folder) {
            Ok(label) => label,
            Err(error) => return Some(vec![broken(found, None, error)]),
        };
        let rollouts = match &self.options.source {
            None => rollout::of_folder(found),
            Some(source) => recorded::events_in(found).map(|(events, notes)| {
                let mut rollouts = recorded::rollouts(&events, source);
                for rollout in &mut rollouts {
                    rollout.notes.extend(notes.iter().cloned());
                }
                rollouts
            }),
        };
        let rollouts = match rollouts {
            Ok(rollouts) if rollouts.is_empty() => {
                let what = "no deploy event that says when a deployment began".to_owned();
                return Some(vec![broken(found, label, what)]);
            }
            Ok(rollouts) => rollouts,
            Err(error) => return Some(vec![broken(found, label, error.to_string())]),
        };
        let mut reports = Vec::new();
        let (count, path) = (rollouts.len(), found.folder.display().to_string());
        for (at, rollout) in rollouts.iter().enumerate() {
            // A folder's label is about its newest rollout.
            let own = label.filter(|_| at + 1 == count);
            let replayed = replay::replay(rollout, &self.options.policies, self.stop).await?;
            reports.push(reported(&path, rollout, own, replayed));
        }
        Some(reports)
    }
}

fn reported(
    path: &str,
    rollout: &Rollout,
    label: Option<Label>,
    replayed: replay::Replayed,
) -> RolloutReport {
    let deployment = &rollout.subject.deployment;
    let start_ms = deployment.judged_from_ms();
    let mut notes = rollout.notes.clone();
    notes.extend(replayed.notes);
    let version = |artifact: &Artifact| artifact.version.clone().unwrap_or_default();
    RolloutReport {
        rollout: rollout.name.clone(),
        path: path.to_owned(),
        label: label.map(|label| label.truth),
        onset_ms: label
            .and_then(|label| label.onset)
            .map(|onset| onset.at_ms(start_ms)),
        error: None,
        service: deployment.target.service.clone(),
        environment: deployment.target.environment.clone(),
        candidate: version(&deployment.artifact),
        baseline: deployment
            .previous
            .as_ref()
            .map(version)
            .unwrap_or_default(),
        started_ms: Some(start_ms),
        ended_ms: Some(rollout.end_ms),
        assumptions: rollout.assumptions.clone(),
        notes,
        results: replayed.replays,
        series: replayed.points,
    }
}

fn broken(found: &Found, label: Option<Label>, error: String) -> RolloutReport {
    RolloutReport {
        rollout: found.name.clone(),
        path: found.folder.display().to_string(),
        label: label.map(|label| label.truth),
        onset_ms: None,
        error: Some(error),
        service: String::new(),
        environment: String::new(),
        candidate: String::new(),
        baseline: String::new(),
        started_ms: None,
        ended_ms: None,
        assumptions: Vec::new(),
        notes: Vec::new(),
        results: Vec::new(),
        series: Vec::new(),
    }
}

/// The rollout's label: of its own folder's files, else of the nearest above.
fn label_of(found: &Found, by_folder: bool) -> Result<Option<Label>, String> {
    for (depth, folder) in found.label_folders.iter().enumerate() {
        let labels = Labels::of_folder(folder)?;
        if let Some(label) = labels.of(&found.name, depth == 0) {
            return Ok(Some(label));
        }
    }
    let truth = folder_label(found).filter(|_| by_folder);
    Ok(truth.map(|truth| Label { truth, onset: None }))
}

/// Whether every rollout lies in a folder that is called after a label.
fn folders_are_labels(work: &[Work]) -> bool {
    work.iter().all(|one| match one {
        Work::Folder(found) => folder_label(found).is_some(),
        Work::Deployment(..) => false,
    })
}

/// The label that a folder above the rollout is called after: `bad` of `bad/17`.
fn folder_label(found: &Found) -> Option<Truth> {
    let (above, _) = found.name.rsplit_once('/')?;
    let words = above
        .rsplit('/')
        .filter(|word| word.parse::<u32>().is_err());
    words.filter_map(Truth::of).next()
}
