//! What a request's answer says: how much was taken, what was refused, why, and how to mend it.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// The answer to one request that could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Spans, points or records taken.
    pub accepted: u64,
    /// Spans, points or records refused. They must not be sent again as they are.
    pub rejected: u64,
    /// For people: what was refused, where, and how to mend it. Empty where nothing was.
    pub message: String,
}

/// A request that was not applied at all.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The bytes are not a request of the kind they should be. Sending them again will not help.
    #[error("the request is not readable at byte {offset}: {what}")]
    Malformed {
        /// The byte at fault, counted from the start of the (decompressed) request.
        offset: usize,
        /// What is wrong there.
        what: String,
    },
    /// More of something than is taken at a time. Sending it in parts will help.
    #[error("the request has more than {max} {what}; send smaller ones")]
    TooMany {
        /// The limit.
        max: usize,
        /// Of what.
        what: &'static str,
    },
    /// There is no room at the moment.
    #[error("busy; send the request again in {retry_after_ms} ms")]
    Overloaded {
        /// When to come back, in milliseconds.
        retry_after_ms: u64,
    },
    /// The disk refused. Sending again later may help.
    #[error("storing failed: {0}")]
    Storage(String),
}

impl From<slogate_wire::WireError> for IngestError {
    fn from(error: slogate_wire::WireError) -> Self {
        IngestError::Malformed {
            offset: error.offset,
            what: error.problem.to_string(),
        }
    }
}

/// The three kinds of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Traces.
    Spans,
    /// Metrics.
    Points,
    /// Logs.
    Logs,
}

impl Signal {
    /// All signals.
    pub const ALL: [Signal; 3] = [Signal::Spans, Signal::Points, Signal::Logs];

    /// The signal's name in our own metrics.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Spans => "spans",
            Signal::Points => "points",
            Signal::Logs => "logs",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident $name:literal $advice:literal,)*) => {
        /// Why a span, point or record was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// All reasons.
            pub const ALL: [Reason; [$($name),*].len()] = [$(Reason::$variant),*];

            /// The reason's name in our own metrics.
            pub fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// What was expected and how to mend it.
            pub fn advice(self) -> &'static str {
                match self { $(Reason::$variant => $advice,)* }
            }
        }
    };
}

reasons! {
    /// The resource has no `service.name`.
    NoService "no_service_name"
        "the resource has no service.name; set OTEL_SERVICE_NAME or the resource attribute",
    /// More services than the configured limit.
    ServiceLimit "service_limit"
        "too many different service.name values; raise the limit of services or fix the attribute",
    /// The service has used up its metric series.
    SeriesBudget "series_budget"
        "the service (or job) has used up its series budget; drop labels with many values or raise the budget",
    /// The store has used up its series.
    StoreFull "store_full"
        "the store has reached its limit of series; raise it or send fewer series",
    /// The metric's type is missing or not known.
    UnknownType "unknown_type"
        "the metric has no data of a known type (gauge, sum, histogram, exponential histogram, summary)",
    /// A sum or histogram does not say whether it is delta or cumulative.
    Temporality "temporality"
        "the aggregation temporality is neither delta nor cumulative; set it in the exporter",
    /// The metric's name has no usable character, or name or unit are too long.
    Name "metric_name"
        "the metric's name has no letter or digit, or name or unit are longer than 512 bytes; rename it",
    /// An attribute's name has no usable character.
    LabelName "attribute_name"
        "an attribute's name is empty or has no letter or digit; rename it",
    /// An attribute's value is too long for a label.
    LabelValue "attribute_value"
        "an attribute's value is longer than 4096 bytes; shorten or drop it",
    /// Too many or too long labels.
    LabelSet "attributes"
        "there are more or longer attributes or labels than a series can carry (256, 64 KiB); drop some",
    /// A point without a value.
    NoValue "no_value"
        "the point has no value; send asDouble or asInt, or set the no-recorded-value flag",
    /// A point without a time.
    NoTime "no_time"
        "the point has no time_unix_nano; set it",
    /// A histogram that contradicts itself or cannot be represented.
    Histogram "bad_histogram"
        "the histogram's bounds, counts or scale contradict each other; bounds must ascend, there must be as many counts as they ask for, and the scale (schema) be at least -4",
    /// A delta point that is older than, or overlaps, the one before it.
    DeltaOrder "delta_order"
        "a delta point overlaps an earlier one of its series; send delta points in order, each from one source",
    /// Older than the store takes.
    TooOld "too_old"
        "the sample is older than the out-of-order window; check the sender's clock and retries",
    /// Further in the future than the store takes.
    TooNew "too_new"
        "the sample lies in the future; check the sender's clock",
    /// Another value at a time that already has one.
    Duplicate "duplicate"
        "the series already has another value at that time; two senders share one identity: set service.instance.id (in Prometheus, external_labels)",
    /// The store dropped the series between look-up and append.
    SeriesGone "series_gone"
        "the series was removed by retention in this moment; it is accepted when sent next",
    /// A remote-written series without a name.
    SeriesName "no_metric_name"
        "the series has no label __name__, or an empty one; every series needs a name",
    /// A remote-written series with labels that are no label set.
    SeriesLabels "bad_labels"
        "a label's name is empty or occurs twice, or a name or value is not UTF-8; send each label once, with a name",
    /// References of a remote-written series to symbols that are not there.
    Symbols "bad_symbols"
        "the series refers to symbols that the request does not have, or to a name without a value",
    /// A remote-written series with nothing to store.
    NoSamples "no_samples"
        "the series has neither samples nor histograms nor exemplars",
}

/// What was refused in one request, by reason, with one example each.
#[derive(Debug, Default)]
pub(super) struct Rejections {
    entries: Vec<(Reason, u64, String)>,
}

impl Rejections {
    /// Counts `count` items refused; `place` says where, and is asked once for each reason.
    pub(super) fn add(&mut self, reason: Reason, count: u64, place: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        match self.entries.iter_mut().find(|(known, ..)| *known == reason) {
            Some((_, total, _)) => *total += count,
            None => self.entries.push((reason, count, place())),
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.entries.iter().map(|(_, count, _)| count).sum()
    }

    /// What was refused, by reason.
    pub(super) fn counts(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        self.entries
            .iter()
            .map(|(reason, count, _)| (*reason, *count))
    }

    pub(super) fn outcome(&self, items: u64, noun: &str) -> Outcome {
        let rejected = self.total().min(items);
        let mut message = String::new();
        for (reason, count, place) in &self.entries {
            let separator = if message.is_empty() { "" } else { "; " };
            let _ = write!(message, "{separator}{count} {noun} rejected");
            if !place.is_empty() {
                let _ = write!(message, " ({place})");
            }
            let _ = write!(message, ": {}", reason.advice());
        }
        Outcome {
            accepted: items - rejected,
            rejected,
            message,
        }
    }
}

/// Running totals, for our own metrics.
#[derive(Debug, Default)]
pub(super) struct Counters {
    signals: [SignalCounters; 3],
    reasons: [[AtomicU64; Reason::ALL.len()]; 3],
    pub(super) bad_thresholds: AtomicU64,
    pub(super) edges_paired: AtomicU64,
    pub(super) edges_expired: AtomicU64,
    pub(super) edges_dropped: AtomicU64,
    pub(super) ticks: AtomicU64,
    pub(super) rows_refused: AtomicU64,
}

#[derive(Debug, Default)]
struct SignalCounters {
    requests: AtomicU64,
    failed_requests: AtomicU64,
    accepted: AtomicU64,
}

/// Running totals since the start, and levels.
#[derive(Clone, Debug, Default)]
pub struct IngestStats {
    /// One entry for each signal.
    pub signals: Vec<SignalStats>,
    /// Spans whose tracestate has a sampling threshold that is not 1 to 14 hex digits; they
    /// weigh 1.
    pub bad_thresholds: u64,
    /// Client and server spans that found each other.
    pub edges_paired: u64,
    /// Client and server spans whose other half never came.
    pub edges_expired: u64,
    /// Client and server spans not waited for because too many were waiting.
    pub edges_dropped: u64,
    /// Client and server spans waiting now.
    pub edges_waiting: u64,
    /// Accumulators held now; each stands for one to four series.
    pub accumulators: u64,
    /// Metric series known now.
    pub metric_series: u64,
    /// Remote-written series known now.
    pub written_series: u64,
    /// Resources known now.
    pub resources: u64,
    /// Services known now.
    pub services: u64,
    /// Flushes done.
    pub ticks: u64,
    /// Flushed samples that the store refused.
    pub rows_refused: u64,
    /// Bytes in the journal.
    pub journal_bytes: u64,
}

/// One signal's totals.
#[derive(Clone, Debug)]
pub struct SignalStats {
    /// Which one.
    pub signal: Signal,
    /// Requests, failed ones included.
    pub requests: u64,
    /// Requests that were not applied at all.
    pub failed_requests: u64,
    /// Items taken.
    pub accepted: u64,
    /// Items refused, by reason; reasons that never came up are left out.
    pub rejected: Vec<(Reason, u64)>,
}

impl Counters {
    pub(super) fn record(
        &self,
        signal: Signal,
        rejections: &Rejections,
        result: &Result<Outcome, IngestError>,
    ) {
        let counters = &self.signals[signal as usize];
        counters.requests.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(outcome) => {
                counters
                    .accepted
                    .fetch_add(outcome.accepted, Ordering::Relaxed);
                for (reason, count, _) in &rejections.entries {
                    self.reasons[signal as usize][*reason as usize]
                        .fetch_add(*count, Ordering::Relaxed);
                }
            }
            Err(_) => {
                counters.failed_requests.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn snapshot(&self) -> IngestStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let signal_stats = |signal: Signal| {
            let counters = &self.signals[signal as usize];
            SignalStats {
                signal,
                requests: read(&counters.requests),
                failed_requests: read(&counters.failed_requests),
                accepted: read(&counters.accepted),
                rejected: Reason::ALL
                    .into_iter()
                    .map(|reason| {
                        (
                            reason,
                            read(&self.reasons[signal as usize][reason as usize]),
                        )
                    })
                    .filter(|(_, count)| *count > 0)
                    .collect(),
            }
        };
        IngestStats {
            signals: Signal::ALL.into_iter().map(signal_stats).collect(),
            bad_thresholds: read(&self.bad_thresholds),
            edges_paired: read(&self.edges_paired),
            edges_expired: read(&self.edges_expired),
            edges_dropped: read(&self.edges_dropped),
            ticks: read(&self.ticks),
            rows_refused: read(&self.rows_refused),
            ..IngestStats::default()
        }
    }
}
