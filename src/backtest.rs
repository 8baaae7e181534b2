//! Recorded rollouts judged over again.
//!
//! [`run`] finds rollouts in folders, reads each (text of metrics, OTLP, deploy events), works out
//! what in it are requests and versions, and replays it through the judge in the recording's own
//! time. Nothing need be configured; whatever was guessed is in the report.
//!
//! - `folder`, `labels`: what is where, and what is known about it.
//! - `recording`, `otlp`, `events`: files to series and events.
//! - `words`, `arms`, `reading`: which series are requests, and whose.
//! - `canonical`: those series as slogate itself names them.
//! - `rollout`: a recording as a deployment with a past and a source.
//! - `gates`, `replay`: judged by which gate, look after look.
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
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

mod arms;
mod canonical;
mod events;
mod folder;
mod gates;
mod html;
mod labels;
mod otlp;
mod reading;
mod recording;
mod replay;
mod report;
mod rollout;
mod text;
mod words;

pub use folder::PathError;
pub use gates::Policy;
pub use html::html;
pub use labels::Truth;
pub use replay::{Change, Phase, Point, Replay};
pub use report::{Difference, Report, RolloutReport, Summary};
pub use text::{csv, tally, text};

use folder::Found;
use labels::{Label, Labels};
use rollout::Rollout;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folders of rollouts, folders of such folders, files.
    pub paths: Vec<PathBuf>,
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
    if found.is_empty() {
        let paths = options.paths.iter().map(|path| path.display().to_string());
        return Err(BacktestError::Nothing {
            paths: paths.collect(),
        });
    }
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Mutex<Vec<(usize, Vec<RolloutReport>)>> = Mutex::default();
    let broken: Mutex<Option<std::io::Error>> = Mutex::default();
    let by_folder = folders_are_labels(&found);
    progress(0, found.len());
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                broken.lock().get_or_insert(error);
                return;
            }
        };
        while !stop.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = found.get(at) else {
                return;
            };
            let replayed = runtime.block_on(replay_folder(one, &options.policies, by_folder, stop));
            if let Some(reports) = replayed {
                results.lock().push((at, reports));
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, found.len());
            }
        }
    };
    let jobs = options.jobs.clamp(1, found.len());
    std::thread::scope(|scope| {
        for _ in 1..jobs {
            scope.spawn(work);
        }
        work();
    });
    if let Some(error) = broken.into_inner() {
        return Err(BacktestError::Start(error));
    }
    let mut results = results.into_inner();
    results.sort_by_key(|(at, _)| *at);
    let rollouts: Vec<RolloutReport> = results
        .into_iter()
        .flat_map(|(_, reports)| reports)
        .collect();
    let policies: Vec<String> = options
        .policies
        .iter()
        .map(|policy| policy.name.clone())
        .collect();
    Ok(Report::new(
        rollouts,
        &policies,
        stop.load(Ordering::Relaxed),
    ))
}

/// The reports of a folder's rollouts; `None` where it was broken off.
async fn replay_folder(
    found: &Found,
    policies: &[Policy],
    by_folder: bool,
    stop: &AtomicBool,
) -> Option<Vec<RolloutReport>> {
    let label = match label_of(found, by_folder) {
        Ok(label) => label,
        Err(error) => return Some(vec![broken(found, None, error)]),
    };
    let rollouts = match rollout::of_folder(found) {
        Ok(rollouts) => rollouts,
        Err(error) => return Some(vec![broken(found, label, error.to_string())]),
    };
    let mut reports = Vec::new();
    let count = rollouts.len();
    for (at, rollout) in rollouts.iter().enumerate() {
        // A folder's label is about its newest rollout.
        let own = label.filter(|_| at + 1 == count);
        let replayed = replay::replay(rollout, policies, stop).await?;
        reports.push(reported(found, rollout, own, replayed));
    }
    Some(reports)
}

fn reported(
    found: &Found,
    rollout: &Rollout,
    label: Option<Label>,
    replayed: replay::Replayed,
) -> RolloutReport {
    let deployment = &rollout.subject.deployment;
    let start_ms = deployment.judged_from_ms();
    let mut notes = rollout.notes.clone();
    notes.extend(replayed.notes);
    let version = |artifact: &crate::model::Artifact| artifact.version.clone().unwrap_or_default();
    RolloutReport {
        rollout: rollout.name.clone(),
        path: found.folder.display().to_string(),
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
fn folders_are_labels(found: &[Found]) -> bool {
    found.iter().all(|one| folder_label(one).is_some())
}

/// The label that a folder above the rollout is called after: `bad` of `bad/17`.
fn folder_label(found: &Found) -> Option<Truth> {
    let (above, _) = found.name.rsplit_once('/')?;
    let words = above
        .rsplit('/')
        .filter(|word| word.parse::<u32>().is_err());
    words.filter_map(Truth::of).next()
}
