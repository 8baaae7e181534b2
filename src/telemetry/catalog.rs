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
    CONNECTIONS_TOTAL = Counter "slogate_connections_total" ["listener"]
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
    INFLIGHT_BYTES = Gauge "slogate_inflight_bytes" []
        "Bytes of request bodies held in memory now.";
    INFLIGHT_BYTES_MAX = Gauge "slogate_inflight_bytes_max" []
        "The most that is held before senders are told to come back later.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let mut seen = BTreeSet::new();
        for spec in ALL {
            assert!(seen.insert(spec.name), "{} twice", spec.name);
            assert!(spec.name.starts_with("slogate_"), "{}", spec.name);
            let is_total = spec.name.ends_with("_total");
            assert_eq!(is_total, spec.kind == Kind::Counter, "{}", spec.name);
            assert!(spec.help.ends_with('.'), "{}: {}", spec.name, spec.help);
        }
    }
}
