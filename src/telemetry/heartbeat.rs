//! Workers say that they are alive; health is read from what they said.
//!
//! A listener that still accepts says nothing about the watcher that died behind it. Each worker
//! registers with the longest silence that is normal for it and reports after every round. A
//! worker that is registered and has never reported is starting: its silence counts from its
//! registration. A worker that ended on purpose says [`Heartbeat::retire`]; one that is dropped
//! without saying so stays registered and turns late, which is the point.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::RwLock;

/// Marks a worker that ended on purpose.
const RETIRED: i64 = i64::MAX;

#[derive(Debug)]
struct Worker {
    name: String,
    max_silence_ms: i64,
    last_ms: AtomicI64,
    beats: AtomicI64,
}

/// A worker's end: where it reports.
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Worker>);

impl Heartbeat {
    /// Reports that a round was finished.
    pub fn beat(&self, now_ms: i64) {
        self.0.last_ms.fetch_max(now_ms, Ordering::Relaxed);
        self.0.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Reports that the worker ended on purpose and will not report again.
    pub fn retire(&self) {
        self.0.last_ms.store(RETIRED, Ordering::Relaxed);
    }
}

/// A worker as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerState {
    /// Its name.
    pub name: String,
    /// How long it has been silent, in milliseconds; 0 where the clock ran backwards.
    pub silence_ms: i64,
    /// The longest silence that is normal for it, in milliseconds.
    pub max_silence_ms: i64,
    /// Whether it has ever reported.
    pub has_started: bool,
}

impl WorkerState {
    /// Whether it has been silent for longer than is normal.
    pub fn is_late(&self) -> bool {
        self.silence_ms > self.max_silence_ms
    }
}

/// All workers. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats {
    workers: Arc<RwLock<Vec<Arc<Worker>>>>,
}

impl Heartbeats {
    /// No workers.
    pub fn new() -> Self {
        Heartbeats::default()
    }

    /// Adds a worker whose silence counts from `now_ms`.
    pub fn register(&self, name: &str, max_silence_ms: i64, now_ms: i64) -> Heartbeat {
        let worker = Arc::new(Worker {
            name: name.to_owned(),
            max_silence_ms,
            last_ms: AtomicI64::new(now_ms),
            beats: AtomicI64::new(0),
        });
        self.workers.write().push(worker.clone());
        Heartbeat(worker)
    }

    /// Every worker that has not retired, in order of registration.
    pub fn states(&self, now_ms: i64) -> Vec<WorkerState> {
        let workers = self.workers.read();
        let running = workers
            .iter()
            .filter(|w| w.last_ms.load(Ordering::Relaxed) != RETIRED);
        let state = |worker: &Arc<Worker>| WorkerState {
            name: worker.name.clone(),
            silence_ms: now_ms
                .saturating_sub(worker.last_ms.load(Ordering::Relaxed))
                .max(0),
            max_silence_ms: worker.max_silence_ms,
            has_started: worker.beats.load(Ordering::Relaxed) > 0,
        };
        running.map(state).collect()
    }

    /// The workers that have been silent for longer than is normal for them.
    pub fn late(&self, now_ms: i64) -> Vec<WorkerState> {
        let mut states = self.states(now_ms);
        states.retain(WorkerState::is_late);
        states
    }

    /// The workers that have not reported once yet.
    pub fn starting(&self, now_ms: i64) -> Vec<WorkerState> {
        let mut states = self.states(now_ms);
        states.retain(|worker| !worker.has_started);
        states
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(states: &[WorkerState]) -> Vec<&str> {
        states.iter().map(|state| state.name.as_str()).collect()
    }

    #[test]
    fn a_silent_worker_is_late_and_a_beat_brings_it_back() {
        let hearts = Heartbeats::new();
        let watcher = hearts.register("watcher", 100, 1_000);
        hearts.register("ingest", 1_000, 1_000).beat(1_000);
        assert_eq!(names(&hearts.late(1_100)), [""; 0], "just in time");
        assert_eq!(names(&hearts.starting(1_100)), ["watcher"]);
        assert_eq!(names(&hearts.late(1_101)), ["watcher"]);
        watcher.beat(1_101);
        assert_eq!(names(&hearts.late(1_150)), [""; 0]);
        assert_eq!(names(&hearts.starting(1_150)), [""; 0]);
        assert_eq!(names(&hearts.late(5_000)), ["watcher", "ingest"]);
    }

    #[test]
    fn a_worker_that_was_dropped_turns_late_and_a_retired_one_does_not() {
        let hearts = Heartbeats::new();
        drop(hearts.register("died", 10, 0));
        hearts.register("ended", 10, 0).retire();
        assert_eq!(names(&hearts.late(100)), ["died"]);
    }

    #[test]
    fn a_clock_that_runs_backwards_makes_nobody_late() {
        let hearts = Heartbeats::new();
        let worker = hearts.register("watcher", 100, 10_000);
        worker.beat(5_000);
        assert_eq!(hearts.late(4_000), []);
    }
}
