//! What runs in the background, each with a heartbeat.
//!
//! - `ingest`: turns what spans and logs added up to into samples, on multiples of the interval,
//!   so that ticks of several daemons fall together.
//! - `observed`: tells the deployments which versions telemetry carries. What could not be made
//!   durable is told again in the next round.
//! - `sources`: asks remote sources which versions run, for the worker above. A source that does
//!   not answer is asked again in the next round; checks say what is wrong with it.
//! - `store`: retention and collection once a minute, and the log to the disk itself every ten
//!   seconds (writes survive a kill by themselves, a power cut from here on).
//! - `watcher`: judges; its rounds are its own.
//! - `export`: reads what is new out of the store for the export's queue; `export sender` empties
//!   that queue. An endpoint that is down is no failure of ours: the sender beats all the same.
//! - `slis`: writes the deployment SLIs as series once a minute.
//! - `status`: writes what only slogate knows as series every 15 seconds, and what is new about
//!   deployments and verdicts at once.
//!
//! A round that fails is logged and does not beat; the next round tries again. So a disk that is
//! full for a moment is a line in the log, and one that stays full turns health bad.

use std::any::Any;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use slogate_tsdb::AppendError;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Rooms;
use crate::config::Config;
use crate::export::{self, Exporter, Step};
use crate::model::{Clock, ObservedVersion};
use crate::sli::{SliError, SliQuery, SliReport};
use crate::source;
use crate::status::{self, Publisher, PublisherParts, Report, Scope, SliPublisher};
use crate::telemetry::Heartbeat;

/// Between two looks of the `observed` worker, in milliseconds.
const OBSERVE_MS: i64 = 2_000;

/// Between two looks at what remote sources show, in milliseconds.
const SHOWN_MS: i64 = 30_000;

/// How long a remote source may take to say which versions run.
const SHOWN_WAIT: Duration = Duration::from_secs(20);

/// Between two flushes of the store's log to the disk, in milliseconds.
const SYNC_MS: i64 = 10_000;

/// The sender of exported samples looks at its queue at least this often, in milliseconds.
const SEND_MS: i64 = 10_000;

/// Between two rounds of retention and collection, in milliseconds.
const MAINTAIN_MS: i64 = 60_000;

/// Between two computations of the deployment SLIs, in milliseconds.
const SLI_MS: i64 = 60_000;

/// The windows whose SLIs become series: their label and length in milliseconds.
const SLI_WINDOWS: [(&str, i64); 3] = [("1d", DAY_MS), ("7d", 7 * DAY_MS), ("30d", 30 * DAY_MS)];

/// A day, in milliseconds.
const DAY_MS: i64 = 86_400_000;

/// How long changes gather at least before they are written, so that a flood of events is a few
/// writes.
const GATHER: Duration = Duration::from_millis(250);

/// How many times as long as the last write took changes gather, so that a flood of events about
/// many rollouts takes a tenth of a core at most.
const GATHER_TIMES: u32 = 9;

/// A round that takes this much longer than its interval is late, in milliseconds.
const SLACK_MS: i64 = 30_000;

/// Versions seen that could not be told yet; beyond these, the oldest sightings wait in ingest.
const PENDING_MAX: usize = 10_000;

/// Starts all workers.
pub(super) fn start(
    config: &Config,
    rooms: &Rooms,
    stop: &CancellationToken,
    say_died: &mpsc::Sender<String>,
) -> TaskTracker {
    let tracker = TaskTracker::new();
    let heart = |name: &str, interval_ms: i64| {
        let silence_ms = 3 * interval_ms + SLACK_MS;
        let now_ms = rooms.clock.now_ms();
        rooms.heartbeats.register(name, silence_ms, now_ms)
    };
    let flush_ms = config.ingest.flush_interval_ms;
    let round = Round {
        rooms: rooms.clone(),
        stop: stop.clone(),
        heart: heart("ingest", flush_ms),
        interval_ms: flush_ms,
    };
    watch_over(
        &tracker,
        "worker ingest",
        round.each(ingest),
        stop,
        say_died,
    );

    let round = Round {
        rooms: rooms.clone(),
        stop: stop.clone(),
        heart: heart("observed", OBSERVE_MS),
        interval_ms: OBSERVE_MS,
    };
    watch_over(&tracker, "worker observed", observe(round), stop, say_died);

    if rooms.sources.all().any(|(_, source)| source.observes()) {
        let round = Round {
            rooms: rooms.clone(),
            stop: stop.clone(),
            heart: heart("sources", SHOWN_MS),
            interval_ms: SHOWN_MS,
        };
        watch_over(
            &tracker,
            "worker sources",
            ask_sources(round),
            stop,
            say_died,
        );
    }

    let round = Round {
        rooms: rooms.clone(),
        stop: stop.clone(),
        heart: heart("store", SYNC_MS),
        interval_ms: SYNC_MS,
    };
    watch_over(
        &tracker,
        "worker store",
        round.each(keep_store),
        stop,
        say_died,
    );

    let round = Round {
        rooms: rooms.clone(),
        stop: stop.clone(),
        heart: heart("slis", SLI_MS),
        interval_ms: SLI_MS,
    };
    watch_over(&tracker, "worker slis", write_slis(round), stop, say_died);

    let round = Round {
        rooms: rooms.clone(),
        stop: stop.clone(),
        heart: heart("status", status::INTERVAL_MS),
        interval_ms: status::INTERVAL_MS,
    };
    watch_over(&tracker, "worker status", publish(round), stop, say_died);

    if let Some(exporter) = &rooms.exporter {
        let round = Round {
            rooms: rooms.clone(),
            stop: stop.clone(),
            heart: heart("export", export::INTERVAL_MS),
            interval_ms: export::INTERVAL_MS,
        };
        watch_over(
            &tracker,
            "worker export",
            round.each(collect),
            stop,
            say_died,
        );
        let sending = send(
            exporter.clone(),
            rooms.clock.clone(),
            stop.clone(),
            heart("export sender", SEND_MS),
        );
        watch_over(&tracker, "worker export sender", sending, stop, say_died);
    }

    let beat = heart("watcher", config.judge_interval_ms);
    let watching = rooms
        .watcher
        .clone()
        .run(stop.clone(), move |now_ms| beat.beat(now_ms));
    watch_over(&tracker, "worker watcher", watching, stop, say_died);
    tracker
}

/// Runs `task` and says so where it panics, or ends before `stop`.
pub(super) fn watch_over(
    tracker: &TaskTracker,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
    stop: &CancellationToken,
    say_died: &mpsc::Sender<String>,
) {
    let task = tokio::spawn(task);
    let (stop, say_died) = (stop.clone(), say_died.clone());
    tracker.spawn(async move {
        let what = match task.await {
            Ok(()) if stop.is_cancelled() => return,
            Ok(()) => format!("{name} ended by itself"),
            Err(error) if error.is_cancelled() => return,
            Err(error) => format!("{name} panicked: {}", words_of(error.into_panic().as_ref())),
        };
        tracing::error!("{what}");
        // Where nobody listens any more, the daemon is on its way down already.
        let _ = say_died.try_send(what);
    });
}

/// What a panic said.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without words".to_owned())
}

/// A worker that does the same thing on every multiple of its interval.
struct Round {
    rooms: Rooms,
    stop: CancellationToken,
    heart: Heartbeat,
    interval_ms: i64,
}

impl Round {
    /// Waits for the next multiple of the interval; `None` at the end.
    async fn next(&self) -> Option<i64> {
        let now_ms = self.rooms.clock.now_ms();
        let wait_ms = self.interval_ms - now_ms.rem_euclid(self.interval_ms);
        let wait = Duration::from_millis(wait_ms.unsigned_abs());
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            () = tokio::time::sleep(wait) => Some(self.rooms.clock.now_ms()),
        }
    }

    /// Calls `work`, which may block, at once and on each round; it says whether it was done.
    async fn each(self, work: fn(&Rooms, i64) -> bool) {
        let mut next = Some(self.rooms.clock.now_ms());
        while let Some(now_ms) = next {
            let rooms = self.rooms.clone();
            let is_done = match tokio::task::spawn_blocking(move || work(&rooms, now_ms)).await {
                Ok(is_done) => is_done,
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                Err(_) => return,
            };
            if is_done {
                self.heart.beat(self.rooms.clock.now_ms());
            }
            next = self.next().await;
        }
        self.heart.retire();
    }
}

fn ingest(rooms: &Rooms, now_ms: i64) -> bool {
    match rooms.ingest.tick(now_ms) {
        Ok(report) => {
            if let Some(error) = report.series_error {
                tracing::warn!(%error, "some series could not be made; they are tried again");
            }
            true
        }
        Err(error) => {
            tracing::error!(%error, "ingest could not flush; it tries again");
            false
        }
    }
}

fn keep_store(rooms: &Rooms, now_ms: i64) -> bool {
    let mut is_done = true;
    if now_ms.rem_euclid(MAINTAIN_MS) < SYNC_MS {
        let report = rooms.store.maintain(now_ms);
        if let Some(error) = report.failure {
            tracing::error!(%error, "a log segment could not be deleted");
            is_done = false;
        }
    }
    if let Err(error) = rooms.store.flush() {
        tracing::error!(%error, "the series log could not be flushed to the disk");
        is_done = false;
    }
    is_done
}

fn collect(rooms: &Rooms, now_ms: i64) -> bool {
    let Some(exporter) = &rooms.exporter else {
        return true;
    };
    match exporter.collect(now_ms) {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%error, "samples could not be queued for export; they are read again");
            false
        }
    }
}

/// Sends what is queued, for as long as there is something.
async fn send(
    exporter: Arc<Exporter>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    heart: Heartbeat,
) {
    let mut failures = 0_u32;
    loop {
        let step = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            step = exporter.send(clock.now_ms()) => step,
        };
        let step = match step {
            Ok(step) => {
                heart.beat(clock.now_ms());
                step
            }
            Err(error) => {
                tracing::error!(%error, "the export queue can't be read; it is tried again");
                Step::Again { after: None }
            }
        };
        if failures == 0 && matches!(step, Step::Again { .. }) {
            let endpoint = exporter.endpoint();
            tracing::warn!(
                endpoint,
                "exported samples are not taken; they wait on disk"
            );
        }
        if failures > 0 && step == Step::Done {
            tracing::info!(
                endpoint = exporter.endpoint(),
                "exported samples are taken again"
            );
        }
        let pause = match step {
            Step::Done => {
                failures = 0;
                continue;
            }
            Step::Idle => Duration::from_millis(SEND_MS.unsigned_abs()),
            Step::Again { .. } => {
                failures = failures.saturating_add(1);
                let pause = step.pause(failures, rand::random());
                pause.unwrap_or_default()
            }
        };
        let mut left = pause;
        // In pieces, so that a long pause is not taken for silence.
        while !left.is_zero() {
            let piece = left.min(Duration::from_millis(SEND_MS.unsigned_abs()));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = exporter.queued(), if step == Step::Idle => break,
                () = tokio::time::sleep(piece) => {}
            }
            left -= piece;
            heart.beat(clock.now_ms());
        }
    }
    heart.retire();
}

async fn ask_sources(round: Round) {
    let rooms = &round.rooms;
    let mut next = Some(rooms.clock.now_ms());
    while let Some(now_ms) = next {
        let asking = rooms.sources.all().filter(|(_, source)| source.observes());
        let asking = asking.map(|(place, source)| async move {
            let asked = source::observed(source.as_ref(), now_ms);
            match tokio::time::timeout(SHOWN_WAIT, asked).await {
                Ok(Ok(mut seen)) => {
                    // Another source is for the others.
                    seen.retain(|seen| rooms.sources.place_of(&seen.target) == place);
                    let mut shown = rooms.shown.lock();
                    seen.truncate(PENDING_MAX.saturating_sub(shown.len()));
                    shown.append(&mut seen);
                }
                Ok(Err(error)) => tracing::debug!(%error, "no answer to which versions run"),
                Err(_) => tracing::debug!(source = source.name(), "which versions run takes long"),
            }
        });
        tokio::select! {
            () = round.stop.cancelled() => break,
            _ = join_all(asking) => round.heart.beat(rooms.clock.now_ms()),
        }
        next = round.next().await;
    }
    round.heart.retire();
}

async fn observe(round: Round) {
    let rooms = &round.rooms;
    let mut pending: Vec<ObservedVersion> = Vec::new();
    let mut next = Some(rooms.clock.now_ms());
    while let Some(now_ms) = next {
        if pending.len() < PENDING_MAX {
            pending.extend(rooms.ingest.take_observed());
            pending.append(&mut rooms.shown.lock());
        }
        match rooms.deployments.observe(&pending, now_ms).await {
            Ok(changed) => {
                for deployment in changed {
                    tracing::info!(%deployment, "opened or ended by what telemetry shows");
                }
                pending.clear();
                round.heart.beat(rooms.clock.now_ms());
            }
            Err(error) => tracing::error!(%error, "versions seen could not be recorded"),
        }
        next = round.next().await;
    }
    round.heart.retire();
}

async fn write_slis(round: Round) {
    let rooms = &round.rooms;
    let mut publisher = SliPublisher::new(rooms.store.clone(), rooms.clock.now_ms());
    let mut next = Some(rooms.clock.now_ms());
    while let Some(now_ms) = next {
        match sli_reports(rooms, now_ms).await {
            Ok(reports) => {
                let write = move || (publisher.write(&reports, now_ms), publisher);
                let written;
                (written, publisher) = blocking(write).await;
                if is_written("deployment SLIs", &written) {
                    round.heart.beat(rooms.clock.now_ms());
                }
            }
            Err(error) => tracing::error!(%error, "deployment SLIs could not be computed"),
        }
        next = round.next().await;
    }
    round.heart.retire();
}

async fn sli_reports(
    rooms: &Rooms,
    now_ms: i64,
) -> Result<Vec<(&'static str, SliReport)>, SliError> {
    let mut reports = Vec::new();
    for (label, window_ms) in SLI_WINDOWS {
        let query = SliQuery {
            window_ms,
            ..SliQuery::default()
        };
        reports.push((label, rooms.slis.report(&query, now_ms).await?));
    }
    Ok(reports)
}

/// Writes everything on each round, and in between what has changed.
async fn publish(round: Round) {
    let rooms = &round.rooms;
    let now_ms = rooms.clock.now_ms();
    let parts = PublisherParts {
        store: rooms.store.clone(),
        deployments: rooms.deployments.clone(),
        watcher: rooms.watcher.clone(),
        policies: rooms.policies.clone(),
        registry: rooms.registry.clone(),
        instance: rooms.instance.to_string(),
    };
    let mut publisher = blocking(move || Publisher::new(parts, now_ms)).await;
    let mut deployments = rooms.deployments.changes();
    let mut verdicts = rooms.watcher.changes();
    let mut scope = Scope::All;
    let mut due = Instant::now();
    loop {
        let now_ms = rooms.clock.now_ms();
        if scope == Scope::All {
            let left_ms = round.interval_ms - now_ms.rem_euclid(round.interval_ms);
            due = Instant::now() + Duration::from_millis(left_ms.unsigned_abs());
        }
        let write = move || (publisher.round(scope, now_ms), publisher);
        let began = Instant::now();
        let written;
        (written, publisher) = blocking(write).await;
        let took = began.elapsed();
        if is_written("deployments and verdicts", &written) {
            round.heart.beat(rooms.clock.now_ms());
        }
        scope = tokio::select! {
            biased;
            () = round.stop.cancelled() => break,
            () = tokio::time::sleep_until(due) => Scope::All,
            Ok(()) = deployments.changed() => Scope::Changed,
            Ok(()) = verdicts.changed() => Scope::Changed,
        };
        if scope == Scope::Changed {
            let gathering = GATHER.max(took * GATHER_TIMES);
            tokio::select! {
                () = round.stop.cancelled() => break,
                () = tokio::time::sleep(gathering) => {}
            }
            deployments.mark_unchanged();
            verdicts.mark_unchanged();
        }
    }
    round.heart.retire();
}

/// Whether samples of `what` were written; says so where they were not, or not all.
fn is_written(what: &str, written: &Result<Report, AppendError>) -> bool {
    match written {
        Ok(report) => {
            if let Some(why) = &report.refusal {
                let refused = report.refused;
                tracing::warn!(refused, why, "some samples of {what} were not taken");
            }
            true
        }
        Err(error) => {
            tracing::error!(%error, "{what} could not be written as series");
            false
        }
    }
}

/// Runs `work` where it may block; its panics go on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        // The runtime is being shut down, and this task with it.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A daemon that answers and no longer judges would let anything through as stale.
    #[tokio::test]
    async fn a_worker_that_panics_or_ends_is_told() {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let (say_died, mut died) = mpsc::channel(8);
        let panics = async { panic!("out of {}", "ideas") };
        watch_over(&tracker, "worker a", panics, &stop, &say_died);
        assert_eq!(
            died.recv().await.unwrap(),
            "worker a panicked: out of ideas"
        );
        watch_over(&tracker, "worker b", async {}, &stop, &say_died);
        assert_eq!(died.recv().await.unwrap(), "worker b ended by itself");

        let until = stop.clone();
        let waits = async move { until.cancelled().await };
        watch_over(&tracker, "worker c", waits, &stop, &say_died);
        stop.cancel();
        tracker.close();
        tracker.wait().await;
        assert!(died.try_recv().is_err(), "told to stop is no death");
    }
}
