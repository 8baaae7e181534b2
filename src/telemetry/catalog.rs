//! Every metric family of ours, declared.
//!
//! Names and labels are part of the API: dashboards and alerts are written against them.

use super::metrics::{Kind, Spec};

macro_rules! families {
    ($($(#[$doc:meta])* $ident:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $ident: Spec = Spec {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// Every family, in the order of `docs/metrics.md`.
        pub static ALL: &[&Spec] = &[$(&$ident),*];
    };
}

families! {
    BUILD_INFO = Gauge "slogate_build_info" ["version"]
        "Always 1; the label carries the version of this slogate.";
    START_TIME = Gauge "slogate_start_time_seconds" []
        "When this process started, in seconds since the Unix epoch.";
    WORKER_SILENCE = Gauge "slogate_worker_silence_seconds" ["worker"]
        "Seconds since the worker last finished a round.";
    WORKER_LATE = Gauge "slogate_worker_late" ["worker"]
        "1 while the worker has been silent for longer than is normal for it.";

    CONNECTIONS = Gauge "slogate_connections" ["listener"]
        "Open connections.";
    CONNECTIONS_TOTAL = Counter "slogate_connections_accepted_total" ["listener"]
        "Connections accepted.";
    CONNECTIONS_CUT = Counter "slogate_connections_cut_total" ["listener", "reason"]
        "Connections ended by us: limit (refused, too many open), idle, silent (no request in time), drain (still busy when the drain time was over).";
    ACCEPT_ERRORS = Counter "slogate_accept_errors_total" ["listener"]
        "Failures to accept a connection, for example for want of file descriptors.";

    REQUESTS = Counter "slogate_http_requests_total" ["listener", "route", "code"]
        "HTTP requests answered, by route and status; gRPC requests are in slogate_otlp_requests_total.";
    REQUEST_SECONDS = Histogram "slogate_http_request_duration_seconds" ["listener", "route"]
        "Time from a request's header to its answer; a gate request that waits for a verdict counts its waiting.";

    OTLP_REQUESTS = Counter "slogate_otlp_requests_total" ["signal", "transport", "outcome"]
        "OTLP requests by outcome: ok, partial (some items rejected), malformed, too_large, unsupported, timeout, overloaded, storage.";
    OTLP_SECONDS = Histogram "slogate_otlp_request_duration_seconds" ["signal", "transport"]
        "Time from a request's header to its answer, reading the body included.";
    OTLP_WIRE_BYTES = Counter "slogate_otlp_wire_bytes_total" ["signal", "transport"]
        "Body bytes as received, before decompression.";
    OTLP_BODY_BYTES = Counter "slogate_otlp_body_bytes_total" ["signal", "transport"]
        "Body bytes after decompression.";
    WRITE_REQUESTS = Counter "slogate_remote_write_requests_total" ["version", "outcome"]
        "Remote-write requests by outcome: ok, partial (some samples refused), malformed, too_large, unsupported, timeout, overloaded, storage.";
    WRITE_SECONDS = Histogram "slogate_remote_write_request_duration_seconds" ["version"]
        "Time from a remote-write request's header to its answer, reading the body included.";
    WRITE_WIRE_BYTES = Counter "slogate_remote_write_wire_bytes_total" ["version"]
        "Body bytes of remote-write requests as received, before decompression.";
    WRITE_BODY_BYTES = Counter "slogate_remote_write_body_bytes_total" ["version"]
        "Body bytes of remote-write requests after decompression.";
    WRITE_ACCEPTED = Counter "slogate_remote_write_accepted_total" ["version", "kind"]
        "Samples, histograms and exemplars taken by remote write.";
    WRITE_REJECTED = Counter "slogate_remote_write_rejected_total" ["version", "reason"]
        "Samples and histograms of remote write refused, by reason; their senders were told with status 400. Exemplars are under the reason exemplar, and senders get success.";
    WRITE_SERIES = Gauge "slogate_remote_write_series" []
        "Remote-written series that are known.";
    INFLIGHT_BYTES = Gauge "slogate_inflight_bytes" []
        "Bytes of request bodies held in memory now.";
    INFLIGHT_BYTES_MAX = Gauge "slogate_inflight_bytes_max" []
        "The most that is held before senders are told to come back later.";

    INGEST_ACCEPTED = Counter "slogate_ingest_accepted_total" ["signal"]
        "Spans, metric points and log records taken.";
    INGEST_REJECTED = Counter "slogate_ingest_rejected_total" ["signal", "reason"]
        "Spans, metric points and log records refused, by reason; their senders were told in the answer's partial success.";
    INGEST_EDGES = Counter "slogate_ingest_edges_total" ["outcome"]
        "Client and server spans looked at as halves of a call: paired, expired (the other half never came) or dropped (too many were waiting).";
    INGEST_EDGES_WAITING = Gauge "slogate_ingest_edges_waiting" []
        "Halves of calls that wait for their other half.";
    INGEST_ACCUMULATORS = Gauge "slogate_ingest_accumulators" []
        "Series that spans and logs are being counted into.";
    INGEST_METRIC_SERIES = Gauge "slogate_ingest_metric_series" []
        "Series of OTLP metrics that are known.";
    INGEST_RESOURCES = Gauge "slogate_ingest_resources" []
        "Resources that are known.";
    INGEST_SERVICES = Gauge "slogate_ingest_services" []
        "Services that are known.";
    INGEST_BAD_THRESHOLDS = Counter "slogate_ingest_bad_thresholds_total" []
        "Spans whose sampling threshold in tracestate can't be read; they count once.";
    INGEST_TICKS = Counter "slogate_ingest_ticks_total" []
        "Times that what was counted was written to the series store.";
    INGEST_ROWS_REFUSED = Counter "slogate_ingest_rows_refused_total" []
        "Samples of ours that the series store refused.";
    INGEST_JOURNAL_BYTES = Gauge "slogate_ingest_journal_bytes" []
        "Size of the journal of what was counted since the last tick.";

    STORE_SERIES = Gauge "slogate_store_series" []
        "Series in memory.";
    STORE_SAMPLES = Gauge "slogate_store_samples" []
        "Samples in memory.";
    STORE_EXEMPLARS = Gauge "slogate_store_exemplars" []
        "Exemplars in memory.";
    STORE_CHUNK_BYTES = Gauge "slogate_store_chunk_bytes" []
        "Memory of samples.";
    STORE_INDEX_BYTES = Gauge "slogate_store_index_bytes" []
        "Memory of labels and index.";
    STORE_LOG_BYTES = Gauge "slogate_store_log_bytes" []
        "Size of the write-ahead log on disk.";
    STORE_APPENDED = Counter "slogate_store_rows_appended_total" []
        "Samples taken since start.";
    STORE_REFUSED = Counter "slogate_store_rows_refused_total" ["reason"]
        "Samples refused since start, by reason.";

    SOURCE_QUERIES = Counter "slogate_source_queries_total" ["source", "outcome"]
        "Queries of a remote source by outcome: ok, partial (not all data was there), refused (the query is wrong or forbidden), unavailable, busy (no turn in time), paused (not asked after failures in a row).";
    SOURCE_SECONDS = Histogram "slogate_source_query_duration_seconds" ["source"]
        "Time from a query of a remote source to its answer, waiting and trying again included.";
    SOURCE_RETRIES = Counter "slogate_source_retries_total" ["source"]
        "Times that a query of a remote source was sent again.";
    SOURCE_BREAKER = Gauge "slogate_source_breaker_state" ["source"]
        "Whether a remote source is asked: 0 yes, 1 one query is trying it out, 2 no, after failures in a row.";

    EXPORT_SENT = Counter "slogate_export_samples_sent_total" []
        "Samples that the remote-write endpoint took.";
    EXPORT_DROPPED = Counter "slogate_export_samples_dropped_total" ["reason"]
        "Samples not exported: overflow (the queue was full) or refused (by the endpoint, for good).";
    EXPORT_RETRIES = Counter "slogate_export_retries_total" []
        "Requests to the endpoint that had no answer, or one that asks to try again.";
    EXPORT_PENDING = Gauge "slogate_export_samples_pending" []
        "Samples that wait to be exported.";
    EXPORT_QUEUE_BYTES = Gauge "slogate_export_queue_bytes" []
        "Disk that waiting samples take.";
    EXPORT_LAG = Gauge "slogate_export_lag_seconds" []
        "Age of the oldest sample that waits to be exported.";

    DEPLOYMENTS = Gauge "slogate_deployments" ["phase"]
        "Deployments in memory, by phase.";
    STATUS_LEFT_OUT = Gauge "slogate_status_left_out" []
        "Deployments that go on and have no series, because only the newest ones have.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let mut seen = BTreeSet::new();
        for spec in ALL {
            // Without its suffix, as OpenMetrics names a counter: two metrics of one family would
            // be an invalid exposition.
            let family = spec.name.strip_suffix("_total").unwrap_or(spec.name);
            assert!(seen.insert(family), "{family} twice");
            assert!(spec.name.starts_with("slogate_"), "{}", spec.name);
            let is_total = spec.name.ends_with("_total");
            assert_eq!(is_total, spec.kind == Kind::Counter, "{}", spec.name);
            assert!(spec.help.ends_with('.'), "{}: {}", spec.name, spec.help);
        }
    }
}
