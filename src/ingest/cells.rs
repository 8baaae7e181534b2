//! Accumulators: what spans, edges and log records add up to, and how that becomes samples.
//!
//! A cell is one label set with the counters and distributions behind it. Requests add to
//! cells; each tick writes them to the store as cumulative samples at the tick's time.
//!
//! Policy:
//! - **A series begins at zero.** Before a cell's first values go out, zeros are written one
//!   tick earlier (never before the process started). Without them `increase()` would not see
//!   the first errors of a new version, the very ones a rollout is judged by. The same holds
//!   after silence: the old value is repeated at the tick before the new one.
//! - A cell is written at every tick while its version is alive: seen within the quiet time.
//!   Then it is silent, so that a dead service does not look like one without traffic; after
//!   the idle time it ends with a stale marker and is forgotten.
//! - A cell that comes back after that starts at zero again: an ordinary counter reset, as is
//!   a restart of the process.
//! - Where the store has no room for a cell's series, the cell keeps counting in memory and tries
//!   again at the next tick; the ticks' report says so. Its journal is not kept: it would grow
//!   for as long as there is no room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use slogate_series::{Exemplar, Histogram, Labels, METRIC_NAME, stale_nan};
use slogate_tsdb::{Batch, ExemplarRow, FloatRow, HistogramRow, SeriesRef, Store};
use smallvec::SmallVec;

use super::identity::{Identity, Service};
use super::tally::{Tally, empty_histogram};

/// What a cell counts; it decides the series the cell becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum CellKind {
    /// Spans of one operation.
    Span,
    /// Requests that one instance of a version answered.
    Instance,
    /// Requests from one service version to another.
    Edge,
    /// Log records.
    Logs,
    /// Items by whether they carry an artifact identity.
    Items,
    /// Items whose label was folded into `other`.
    Folded,
}

/// One accumulator.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) kind: CellKind,
    /// Without the metric name.
    pub(super) labels: Labels,
    pub(super) id: u32,
    /// The last journal file that says what `id` stands for.
    pub(super) defined_in: AtomicU64,
    service: Option<Arc<Service>>,
    /// The version this cell belongs to: alive as long as that is.
    owner: Mutex<Option<Arc<Identity>>>,
    retired: AtomicBool,
    touched_ms: AtomicI64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    total: Tally,
    changed: bool,
    slowest: Option<SpanExemplar>,
    series: SmallVec<[SeriesRef; 4]>,
    start_ms: i64,
    emitted: Option<Emitted>,
}

/// What a cell wrote last.
#[derive(Clone, Debug)]
struct Emitted {
    at_ms: i64,
    floats: [f64; 2],
    histograms: [Arc<Histogram>; 2],
}

/// The span a series points to: the slowest since the last tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SpanExemplar {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    pub(super) seconds: f64,
    pub(super) t_ms: i64,
}

/// All cells, found by what they are.
#[derive(Debug, Default)]
pub(super) struct Cells {
    by_labels: Mutex<HashMap<(CellKind, Labels), Arc<Cell>>>,
    next_id: AtomicU32,
}

/// Times a flush works with, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlushTimes {
    /// The time of the samples.
    pub(super) at_ms: i64,
    /// The time for values that must stand before them.
    pub(super) before_ms: i64,
    /// Versions not seen since are silent.
    pub(super) quiet_since_ms: i64,
    /// Versions not seen since are forgotten.
    pub(super) idle_since_ms: i64,
}

/// How many floats and histograms a kind has, and their metric names in that order.
fn metrics_of(kind: CellKind) -> (&'static [&'static str], &'static [&'static str]) {
    match kind {
        CellKind::Span => (
            &["traces_span_metrics_calls_total"],
            &["traces_span_metrics_duration_seconds"],
        ),
        CellKind::Instance => (
            &["slogate_instance_requests_total"],
            &["slogate_instance_duration_seconds"],
        ),
        CellKind::Edge => (
            &[
                "traces_service_graph_request_total",
                "traces_service_graph_request_failed_total",
            ],
            &[
                "traces_service_graph_request_server_seconds",
                "traces_service_graph_request_client_seconds",
            ],
        ),
        CellKind::Logs => (&["slogate_log_records_total"], &[]),
        CellKind::Items => (&["slogate_observability_items_total"], &[]),
        CellKind::Folded => (&["slogate_ingest_folded_total"], &[]),
    }
}

impl CellKind {
    /// The kind's number in the journal.
    pub(super) fn code(self) -> u8 {
        match self {
            CellKind::Span => 1,
            CellKind::Edge => 2,
            CellKind::Logs => 3,
            CellKind::Items => 4,
            CellKind::Folded => 5,
            CellKind::Instance => 6,
        }
    }

    /// The kind behind a number in the journal.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        [
            CellKind::Span,
            CellKind::Edge,
            CellKind::Logs,
            CellKind::Items,
            CellKind::Folded,
            CellKind::Instance,
        ]
        .into_iter()
        .find(|kind| kind.code() == code)
    }

    fn budget(self, service: &Service) -> Option<&AtomicUsize> {
        match self {
            CellKind::Span => Some(&service.span_cells),
            CellKind::Instance => Some(&service.instance_cells),
            CellKind::Edge => Some(&service.edge_cells),
            _ => None,
        }
    }
}

impl Cell {
    /// Whether the cell was forgotten; one that was must be looked up again.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Adds to the cell.
    pub(super) fn add(&self, delta: &Tally, slowest: Option<SpanExemplar>, now_ms: i64) {
        self.touched_ms.fetch_max(now_ms, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.total.add(delta);
        state.changed = true;
        if let Some(span) = slowest
            && state
                .slowest
                .is_none_or(|known| known.seconds < span.seconds)
        {
            state.slowest = Some(span);
        }
    }

    /// Ties the cell's life to a version's.
    pub(super) fn belongs_to(&self, identity: &Arc<Identity>) {
        *self.owner.lock() = Some(identity.clone());
    }

    fn seen_ms(&self) -> i64 {
        let owner = self.owner.lock().as_ref().map(|owner| owner.last_seen_ms());
        self.touched_ms
            .load(Ordering::Relaxed)
            .max(owner.unwrap_or(i64::MIN))
    }
}

impl State {
    fn floats(&self, kind: CellKind) -> [f64; 2] {
        match kind {
            CellKind::Span | CellKind::Instance => [self.total.times[0].count, 0.0],
            _ => [self.total.count, self.total.failed],
        }
    }

    fn histograms(&self, kind: CellKind) -> [Arc<Histogram>; 2] {
        let (_, names) = metrics_of(kind);
        let mut histograms = [empty_histogram(), empty_histogram()];
        for ((histogram, times), _) in histograms.iter_mut().zip(&self.total.times).zip(names) {
            *histogram = Arc::new(times.histogram());
        }
        histograms
    }

    fn push(&self, kind: CellKind, values: &Emitted, batch: &mut Batch) {
        let (floats, histograms) = metrics_of(kind);
        let (float_series, histogram_series) = self.series.split_at(floats.len());
        for (series, value) in float_series.iter().zip(values.floats) {
            batch.floats.push(FloatRow {
                series: *series,
                t_ms: values.at_ms,
                start_ms: self.start_ms,
                value,
            });
        }
        debug_assert_eq!(histogram_series.len(), histograms.len());
        for (series, histogram) in histogram_series.iter().zip(&values.histograms) {
            batch.histograms.push(HistogramRow {
                series: *series,
                t_ms: values.at_ms,
                start_ms: self.start_ms,
                histogram: histogram.clone(),
            });
        }
    }
}

impl Cells {
    /// The cell of `kind` with `labels`, made where it is missing.
    pub(super) fn get(
        &self,
        kind: CellKind,
        labels: Labels,
        service: Option<&Arc<Service>>,
        now_ms: i64,
    ) -> Arc<Cell> {
        let mut by_labels = self.by_labels.lock();
        let cell = by_labels
            .entry((kind, labels))
            .or_insert_with_key(|(kind, labels)| {
                if let Some(used) = service.and_then(|service| kind.budget(service)) {
                    used.fetch_add(1, Ordering::Relaxed);
                }
                Arc::new(Cell {
                    kind: *kind,
                    labels: labels.clone(),
                    id: self.next_id.fetch_add(1, Ordering::Relaxed),
                    defined_in: AtomicU64::new(0),
                    service: service.cloned(),
                    owner: Mutex::default(),
                    retired: AtomicBool::new(false),
                    touched_ms: AtomicI64::new(now_ms),
                    state: Mutex::default(),
                })
            });
        cell.clone()
    }

    /// The cell of `kind` with `labels`, where there is one.
    pub(super) fn find(&self, kind: CellKind, labels: &Labels) -> Option<Arc<Cell>> {
        let by_labels = self.by_labels.lock();
        by_labels.get(&(kind, labels.clone())).cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.by_labels.lock().len()
    }

    /// Writes every living cell into `batch` and forgets the dead ones. The error is the first
    /// of the store's refusals to make a series.
    ///
    /// No request may be adding to cells meanwhile.
    pub(super) fn flush(
        &self,
        store: &Store,
        times: &FlushTimes,
        batch: &mut Batch,
    ) -> Result<(), slogate_tsdb::SeriesError> {
        let mut first_error = Ok(());
        self.by_labels.lock().retain(|_, cell| {
            let seen_ms = cell.seen_ms();
            let state = &mut *cell.state.lock();
            if !state.changed && seen_ms < times.idle_since_ms {
                retire(cell, state, times, batch);
                return false;
            }
            if !state.changed && seen_ms < times.quiet_since_ms {
                return true;
            }
            if state.series.is_empty()
                && let Err(error) = open_series(cell, state, store)
            {
                if first_error.is_ok() {
                    first_error = Err(error);
                }
                return true;
            }
            emit(cell.kind, state, times, batch);
            true
        });
        first_error
    }

    /// Forgets which series the cells have in the store, so that the next flush makes them again.
    pub(super) fn reopen_series(&self) {
        for cell in self.by_labels.lock().values() {
            cell.state.lock().series.clear();
        }
    }
}

fn open_series(
    cell: &Cell,
    state: &mut State,
    store: &Store,
) -> Result<(), slogate_tsdb::SeriesError> {
    let (floats, histograms) = metrics_of(cell.kind);
    let mut series = SmallVec::new();
    for name in floats.iter().chain(histograms) {
        let mut labels = cell.labels.to_builder();
        labels.set(METRIC_NAME, *name);
        series.push(store.series(&labels.build())?);
    }
    state.series = series;
    Ok(())
}

fn emit(kind: CellKind, state: &mut State, times: &FlushTimes, batch: &mut Batch) {
    let now = match state.emitted.take() {
        Some(last) if !state.changed => Emitted {
            at_ms: times.at_ms,
            ..last
        },
        Some(last) => {
            if last.at_ms < times.before_ms {
                let repeated = Emitted {
                    at_ms: times.before_ms,
                    ..last
                };
                state.push(kind, &repeated, batch);
            }
            Emitted {
                at_ms: times.at_ms,
                floats: state.floats(kind),
                histograms: state.histograms(kind),
            }
        }
        None => {
            state.start_ms = times.before_ms;
            let zeros = Emitted {
                at_ms: times.before_ms,
                floats: [0.0; 2],
                histograms: [empty_histogram(), empty_histogram()],
            };
            state.push(kind, &zeros, batch);
            Emitted {
                at_ms: times.at_ms,
                floats: state.floats(kind),
                histograms: state.histograms(kind),
            }
        }
    };
    state.push(kind, &now, batch);
    state.emitted = Some(now);
    state.changed = false;
    let duration_series = state.series.get(metrics_of(kind).0.len());
    if let (Some(span), Some(series)) = (state.slowest.take(), duration_series) {
        batch.exemplars.push(ExemplarRow {
            series: *series,
            exemplar: span.exemplar(),
        });
    }
}

fn retire(cell: &Cell, state: &State, times: &FlushTimes, batch: &mut Batch) {
    cell.retired.store(true, Ordering::Relaxed);
    if let Some(used) = cell.service.as_ref().and_then(|s| cell.kind.budget(s)) {
        used.fetch_sub(1, Ordering::Relaxed);
    }
    if state.emitted.is_none() {
        return;
    }
    let stale = Arc::new(Histogram::stale());
    let end = Emitted {
        at_ms: times.at_ms,
        floats: [stale_nan(); 2],
        histograms: [stale.clone(), stale],
    };
    state.push(cell.kind, &end, batch);
}

impl SpanExemplar {
    fn exemplar(&self) -> Exemplar {
        Exemplar {
            labels: Labels::from_pairs([
                ("trace_id", hex(&self.trace_id)),
                ("span_id", hex(&self.span_id)),
            ]),
            value: self.seconds,
            t_ms: self.t_ms,
        }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
            text
        })
}
