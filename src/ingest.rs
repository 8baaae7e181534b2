//! Telemetry in: OTLP and remote write to series.
//!
//! - `spans`: spans to request counts and durations per service, version, operation.
//! - `edges`: client and server spans to requests between versions.
//! - `metrics`: OTLP metrics to Prometheus series.
//! - `logs`: log records to counts.
//! - `remote_write`: Prometheus remote write, as it comes.
//! - `json`: OTLP/JSON to the protobuf form that the rest reads.
//! - `identity`: services, versions, resources; what was observed.
//! - `cells`, `tally`: accumulators, and how they become samples.
//! - `journal`: why a kill loses no acknowledged span.
//! - `outcome`: what a request's answer says.
//!
//! This room is synchronous and knows no transport: the server hands it one request's
//! decompressed bytes and the time. It is used by `server` and driven by the daemon's ticker.
//!
//! Policy:
//! - A request is read to its end before anything of it is applied. Malformed bytes are refused
//!   with their offset, and nothing of the request counts. Fields nobody reads (span events,
//!   attributes of server spans) are not checked.
//! - One bad item never rejects its neighbours: it is left out, counted by reason, and the
//!   answer says how many, gives an example and says how to mend it.
//! - When `traces`, `metrics` or `logs` returns `Ok`, what it accepted survives a kill.
//! - Requests run concurrently; only a flush ([`Ingest::tick`]) stops them, for the time it takes to
//!   copy what changed.
//! - Every memory an outsider can fill is bounded: services, versions, resources, series per
//!   service, waiting edge halves, names per request, the length of a label.

mod cells;
mod edges;
mod identity;
mod journal;
mod json;
mod logs;
mod metrics;
mod outcome;
mod remote_write;
mod spans;
mod tally;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, RwLock};
use slogate_tsdb::{Batch, Store};

use crate::model::ObservedVersion;

pub use outcome::{IngestError, IngestStats, Outcome, Reason, Signal, SignalStats};
pub use remote_write::{RemoteWriteStats, RemoteWriteVersion, Written};

use cells::{CellKind, Cells, FlushTimes};
use edges::Edges;
use identity::{Directory, Limits, labels_of, word};
use journal::{Journal, Replayed};
use outcome::{Counters, Rejections};
use remote_write::{SeriesTable, WriteCounters};
use spans::{Addition, Reduced};
use tally::Tally;

/// Rows of failed flushes kept for the next one.
const UNSENT_MAX_ROWS: usize = 1_000_000;

/// Settings of [`Ingest`]. `Default` gives the documented ones.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// Where the journal lives; `None` keeps accumulators in memory only.
    pub journal_dir: Option<PathBuf>,
    /// How often accumulators are flushed, and what flush times are aligned to, in ms.
    pub interval_ms: i64,
    /// Span series kept apart for each service; further span names become `other`.
    pub span_series_per_service: usize,
    /// Metric series for each service; further ones are refused.
    pub metric_series_per_service: usize,
    /// Remote-written series for each job of those that name no service; further ones are
    /// refused.
    pub metric_series_per_job: usize,
    /// Services; telemetry of further ones is refused.
    pub services_max: usize,
    /// Versions, environments and digests of one service; further ones become `other`.
    pub versions_per_service: usize,
    /// Instances of a version that are counted apart; further ones are `other`, none for 0.
    pub instances_per_version: usize,
    /// Resources remembered; others are read again with each request.
    pub resources_max: usize,
    /// A version not seen for this long stops being written, in ms.
    pub quiet_ms: i64,
    /// A version not seen for this long ends with a stale marker, in ms.
    pub idle_ms: i64,
    /// How long a client or server span waits for its other half, in ms.
    pub edge_wait_ms: i64,
    /// How many spans may wait.
    pub edges_waiting_max: usize,
    /// Size of the journal above which requests are turned away until the next flush, in bytes.
    pub journal_max_bytes: u64,
}

impl Default for IngestOptions {
    fn default() -> Self {
        IngestOptions {
            journal_dir: None,
            interval_ms: 5_000,
            span_series_per_service: 2_000,
            metric_series_per_service: 10_000,
            metric_series_per_job: 200_000,
            services_max: 10_000,
            versions_per_service: 500,
            instances_per_version: 64,
            resources_max: 20_000,
            quiet_ms: 5 * 60_000,
            idle_ms: 60 * 60_000,
            edge_wait_ms: 10_000,
            edges_waiting_max: 100_000,
            journal_max_bytes: 1 << 30,
        }
    }
}

/// What a flush did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TickReport {
    /// Samples written.
    pub samples: u64,
    /// Samples the store refused.
    pub refused: u64,
    /// Why series could not be made, where the store had no room; their accumulators keep
    /// counting and try again at the next flush.
    pub series_error: Option<String>,
}

/// OTLP and remote write in, series out.
#[derive(Debug)]
pub struct Ingest {
    store: Arc<Store>,
    options: IngestOptions,
    directory: Directory,
    cells: Cells,
    edges: Edges,
    journal: Option<Journal>,
    counters: Counters,
    /// Series known from remote write.
    written: SeriesTable,
    /// One for each version of remote write.
    write_counters: [WriteCounters; 2],
    /// Requests hold it shared while they add to cells; a flush holds it alone while it copies.
    gate: RwLock<()>,
    ticker: Mutex<Ticker>,
}

#[derive(Debug)]
struct Ticker {
    last_ms: i64,
    start_ms: i64,
    forgot_ms: i64,
    /// A batch whose append failed: tried again with the next one.
    unsent: Batch,
}

impl Ingest {
    /// Ingest into `store`. What an earlier process left in the journal is counted again and
    /// reaches the store with the first flush.
    pub fn new(
        store: Arc<Store>,
        options: IngestOptions,
        now_ms: i64,
    ) -> Result<Ingest, IngestError> {
        let options = IngestOptions {
            interval_ms: options.interval_ms.max(1),
            ..options
        };
        let directory = Directory::new(Limits {
            services: options.services_max,
            versions_per_service: options.versions_per_service,
            instances_per_version: options.instances_per_version,
            sources: options.resources_max,
        });
        let cells = Cells::default();
        let journal = match &options.journal_dir {
            None => None,
            Some(dir) => {
                let replay = |entry| replay(&directory, &cells, entry, now_ms);
                let journal = Journal::open(dir, replay);
                Some(journal.map_err(|error| IngestError::Storage(error.to_string()))?)
            }
        };
        Ok(Ingest {
            edges: Edges::new(options.edges_waiting_max, options.edge_wait_ms, now_ms),
            store,
            options,
            directory,
            cells,
            journal,
            counters: Counters::default(),
            written: SeriesTable::default(),
            write_counters: Default::default(),
            gate: RwLock::new(()),
            ticker: Mutex::new(Ticker {
                last_ms: now_ms,
                start_ms: now_ms,
                forgot_ms: now_ms,
                unsent: Batch::default(),
            }),
        })
    }

    /// Takes an `ExportTraceServiceRequest` in protobuf.
    pub fn traces(&self, request: &[u8], now_ms: i64) -> Result<Outcome, IngestError> {
        let mut rejections = Rejections::default();
        let result = self.take_traces(request, now_ms, &mut rejections);
        self.counters.record(Signal::Spans, &rejections, &result);
        result
    }

    /// Takes an `ExportMetricsServiceRequest` in protobuf.
    pub fn metrics(&self, request: &[u8], now_ms: i64) -> Result<Outcome, IngestError> {
        let mut rejections = Rejections::default();
        let result = self.take_metrics(request, now_ms, &mut rejections);
        self.counters.record(Signal::Points, &rejections, &result);
        result
    }

    /// Takes an `ExportLogsServiceRequest` in protobuf.
    pub fn logs(&self, request: &[u8], now_ms: i64) -> Result<Outcome, IngestError> {
        let mut rejections = Rejections::default();
        let result = self.take_logs(request, now_ms, &mut rejections);
        self.counters.record(Signal::Logs, &rejections, &result);
        result
    }

    /// Takes an `ExportTraceServiceRequest` in OTLP/JSON.
    pub fn traces_json(&self, request: &[u8], now_ms: i64) -> Result<Outcome, IngestError> {
        match json::traces(request) {
            Ok(request) => self.traces(&request, now_ms),
            Err(error) => self.unreadable(Signal::Spans, error),
        }
    }

    /// Takes an `ExportMetricsServiceRequest` in OTLP/JSON.
    pub fn metrics_json(&self, request: &[u8], now_ms: i64) -> Result<Outcome, IngestError> {
        match json::metrics(request) {
            Ok(request) => self.metrics(&request, now_ms),
            Err(error) => self.unreadable(Signal::Points, error),
        }
    }

    /// Takes an `ExportLogsServiceRequest` in OTLP/JSON.
    pub fn logs_json(&self, request: &[u8], now_ms: i64) -> Result<Outcome, IngestError> {
        match json::logs(request) {
            Ok(request) => self.logs(&request, now_ms),
            Err(error) => self.unreadable(Signal::Logs, error),
        }
    }

    /// Flushes accumulators to the store, at `now_ms` rounded down to the interval. Does
    /// nothing where that moment was flushed already.
    pub fn tick(&self, now_ms: i64) -> Result<TickReport, IngestError> {
        self.flush_at(now_ms - now_ms.rem_euclid(self.options.interval_ms), now_ms)
    }

    /// Flushes accumulators to the store at `now_ms` as it is: before shutting down.
    pub fn flush(&self, now_ms: i64) -> Result<TickReport, IngestError> {
        self.flush_at(now_ms, now_ms)
    }

    /// The versions seen since the last call, sorted.
    pub fn take_observed(&self) -> Vec<ObservedVersion> {
        self.directory.take_observed()
    }

    /// Totals and levels, for our own metrics.
    pub fn stats(&self) -> IngestStats {
        let (resources, services, metric_series) = self.directory.sizes();
        IngestStats {
            edges_waiting: self.edges.waiting() as u64,
            accumulators: self.cells.len() as u64,
            metric_series,
            written_series: self.written.len() as u64,
            resources,
            services,
            journal_bytes: self.journal.as_ref().map_or(0, Journal::bytes),
            ..self.counters.snapshot()
        }
    }

    /// Counts a request that could not be translated.
    fn unreadable(&self, signal: Signal, error: IngestError) -> Result<Outcome, IngestError> {
        let result = Err(error);
        self.counters
            .record(signal, &Rejections::default(), &result);
        result
    }

    fn take_traces(
        &self,
        request: &[u8],
        now_ms: i64,
        rejections: &mut Rejections,
    ) -> Result<Outcome, IngestError> {
        self.check_room()?;
        let mut reduced = spans::reduce(request, &self.directory, &self.counters, now_ms)?;
        *rejections = std::mem::take(&mut reduced.rejections);
        self.commit(now_ms, |additions| {
            self.add_spans(&reduced, now_ms, additions);
        })?;
        Ok(rejections.outcome(reduced.spans, "spans"))
    }

    fn add_spans(&self, reduced: &Reduced<'_>, now_ms: i64, additions: &mut Vec<Addition>) {
        let budget = self.options.span_series_per_service;
        reduced.additions(&self.cells, budget, now_ms, additions);
        if !reduced.halves.is_empty() {
            let sums = self
                .edges
                .pair(&reduced.halves, &reduced.sources, reduced.has_both_sides());
            sums.record(&self.counters);
            sums.additions(&self.cells, budget, now_ms, additions);
        }
        for (source, spans) in &reduced.sources {
            additions.extend(self.coverage(source, Signal::Spans, *spans, now_ms));
        }
    }

    /// The addition to what was seen of a service with and without artifact identity.
    fn coverage(
        &self,
        source: &identity::Source,
        signal: Signal,
        items: u64,
        now_ms: i64,
    ) -> Option<Addition> {
        let identity = source.identity.as_ref().filter(|_| items > 0)?;
        let cell = source.coverage_cell(signal, |has_artifact| {
            let labels = labels_of([
                ("service_name", Some(identity.service.name.clone())),
                ("deployment_environment_name", identity.environment.clone()),
                ("signal", Some(word(signal.name()))),
                ("artifact_identity", Some(word(has_artifact))),
            ]);
            self.cells.get(CellKind::Items, labels, None, now_ms)
        });
        Some(Addition {
            cell,
            delta: Tally::of(items as f64),
            slowest: None,
        })
    }

    /// Refuses requests while flushes fail and the journal grows without end.
    fn check_room(&self) -> Result<(), IngestError> {
        match &self.journal {
            Some(journal) if journal.bytes() > self.options.journal_max_bytes => {
                Err(IngestError::Overloaded {
                    retry_after_ms: self.options.interval_ms.unsigned_abs(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Collects additions, writes them to the journal and applies them.
    fn commit(
        &self,
        now_ms: i64,
        collect: impl FnOnce(&mut Vec<Addition>),
    ) -> Result<(), IngestError> {
        let _shared = self.gate.read();
        let mut additions = Vec::new();
        collect(&mut additions);
        if additions.is_empty() {
            return Ok(());
        }
        if let Some(journal) = &self.journal {
            journal
                .write(
                    additions
                        .iter()
                        .map(|addition| (&addition.cell, &addition.delta)),
                )
                .map_err(|error| IngestError::Storage(format!("ingest journal: {error}")))?;
        }
        for addition in &additions {
            addition.cell.add(&addition.delta, addition.slowest, now_ms);
        }
        Ok(())
    }

    fn flush_at(&self, at_ms: i64, now_ms: i64) -> Result<TickReport, IngestError> {
        let mut ticker = self.ticker.lock();
        if at_ms <= ticker.last_ms {
            return Ok(TickReport::default());
        }
        let times = FlushTimes {
            at_ms,
            before_ms: (at_ms - self.options.interval_ms)
                .max(ticker.start_ms + 1)
                .min(at_ms - 1),
            quiet_since_ms: now_ms - self.options.quiet_ms,
            idle_since_ms: now_ms - self.options.idle_ms,
        };
        let failed = |error: std::io::Error| IngestError::Storage(error.to_string());
        let (journal_number, batch, series_error) = {
            let _alone = self.gate.write();
            let number = self.journal.as_ref().map(Journal::rotate).transpose();
            let number = number.map_err(failed)?;
            let mut batch = std::mem::take(&mut ticker.unsent);
            self.add_expired_edges(now_ms);
            let flushed = self.cells.flush(&self.store, &times, &mut batch);
            (number, batch, flushed.err().map(|error| error.to_string()))
        };
        ticker.last_ms = at_ms;
        let samples = (batch.floats.len() + batch.histograms.len()) as u64;
        let report = match self.store.append(&batch, now_ms) {
            Ok(report) => report,
            Err(error) => {
                self.keep_unsent(&mut ticker, batch);
                return Err(IngestError::Storage(error.to_string()));
            }
        };
        if report.refused.unknown_series > 0 {
            self.cells.reopen_series();
        }
        if now_ms - ticker.forgot_ms >= self.options.idle_ms / 4 {
            ticker.forgot_ms = now_ms;
            self.written.age();
            if self.directory.forget(times.idle_since_ms) {
                // Some of these series may name a version that is a new one when it comes back.
                self.written.forget_all();
            }
        }
        let refused = report.refused.total();
        self.counters.ticks.fetch_add(1, Ordering::Relaxed);
        self.counters
            .rows_refused
            .fetch_add(refused, Ordering::Relaxed);
        if let (Some(journal), Some(number)) = (&self.journal, journal_number) {
            journal.delete_before(number).map_err(failed)?;
        }
        Ok(TickReport {
            samples: samples - refused.min(samples),
            refused,
            series_error,
        })
    }

    /// Keeps a batch that could not be appended for the next flush, unless too much is kept
    /// already. The totals are not lost with it: the next flush writes them again.
    fn keep_unsent(&self, ticker: &mut Ticker, batch: Batch) {
        if batch.len() <= UNSENT_MAX_ROWS {
            ticker.unsent = batch;
        } else {
            self.counters
                .rows_refused
                .fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
    }

    /// Adds edges to peers that never answered. They need no journal: the flush that is under way
    /// carries them.
    fn add_expired_edges(&self, now_ms: i64) {
        let sums = self.edges.expire(now_ms);
        sums.record(&self.counters);
        let mut additions = Vec::new();
        let budget = self.options.span_series_per_service;
        sums.additions(&self.cells, budget, now_ms, &mut additions);
        for addition in additions {
            addition.cell.add(&addition.delta, addition.slowest, now_ms);
        }
    }
}

/// Adds an addition of an earlier process to its cell.
fn replay(directory: &Directory, cells: &Cells, entry: Replayed, now_ms: i64) {
    let name = match entry.kind {
        CellKind::Span | CellKind::Instance => entry.labels.get("service_name"),
        CellKind::Edge => entry.labels.get("client"),
        _ => None,
    };
    let service = name.and_then(|name| directory.service(name).ok());
    let cell = cells.get(entry.kind, entry.labels, service.as_ref(), now_ms);
    cell.add(&entry.delta, None, now_ms);
}

#[cfg(test)]
pub(crate) mod tests;
