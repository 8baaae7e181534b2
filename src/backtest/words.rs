//! What people call things: sides of a rollout, labels, outcomes, metrics.
//!
//! Lists of usual names, in the order in which they are preferred. What is guessed by them is
//! said in the report, so that a wrong guess is seen.

/// A side of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// What is new.
    Candidate,
    /// What ran before, and still does.
    Baseline,
}

/// The side that a word names.
pub(crate) fn side_of(word: &str) -> Option<Side> {
    let word = word.to_ascii_lowercase();
    match word.as_str() {
        "canary" | "candidate" | "experiment" | "experimental" | "treatment" | "gray" | "grey"
        | "new" | "next" | "preview" | "green" | "challenger" | "exp" | "after" => {
            Some(Side::Candidate)
        }
        "baseline" | "stable" | "control" | "old" | "base" | "primary" | "previous" | "blue"
        | "current" | "champion" | "reference" | "existing" | "before" => Some(Side::Baseline),
        _ => None,
    }
}

/// The side that a label's value names: a word, a name that ends with one (`shop-canary`), or
/// yes and no where the label itself is called after a side.
pub(crate) fn side_in(label: &str, value: &str) -> Option<Side> {
    let own = label.trim_start_matches("is_");
    match (side_of(own), value.to_ascii_lowercase().as_str()) {
        (Some(side), "true" | "1" | "yes") => return Some(side),
        (Some(Side::Candidate), "false" | "0" | "no") => return Some(Side::Baseline),
        (Some(Side::Baseline), "false" | "0" | "no") => return Some(Side::Candidate),
        _ => {}
    }
    side_of(value).or_else(|| side_of(value.rsplit(['-', '_', '.', '/']).next()?))
}

/// Labels that name a version.
pub(crate) const VERSION_LABELS: &[&str] = &[
    "service_version",
    "version",
    "app_version",
    "destination_version",
    "server_version",
    "app_kubernetes_io_version",
    "label_app_kubernetes_io_version",
    "image_tag",
    "container_image_tag",
    "container_image_tags",
    "tag",
    "image",
    "container_image",
    "build",
    "build_version",
    "release",
    "revision",
    "git_sha",
    "git_commit",
    "commit",
    "sha",
    "pod_template_hash",
    "label_pod_template_hash",
    "rollouts_pod_template_hash",
    "label_version",
    "destination_workload",
    "workload_version",
    "deployment_version",
    "ver",
    "v",
];

/// Labels that name a side.
pub(crate) const SIDE_LABELS: &[&str] = &[
    "arm",
    "track",
    "role",
    "group",
    "variant",
    "cohort",
    "release_track",
    "stage",
    "lane",
    "slot",
    "canary",
    "is_canary",
    "gray",
    "grey",
    "is_gray",
    "experiment",
    "subset",
    "type",
    "deployment_type",
    "color",
    "colour",
    "tier",
    "env_type",
];

/// Labels that name the service which answers.
pub(crate) const SERVICE_LABELS: &[&str] = &[
    "service_name",
    "service",
    "destination_canonical_service",
    "destination_service_name",
    "destination_app",
    "server",
    "app",
    "application",
    "app_kubernetes_io_name",
    "microservice",
    "svc",
    "component",
    "deployment",
    "workload",
    "destination_workload",
    "exported_service",
    "service_id",
    "callee",
    "job",
];

/// Labels that name the service which asks.
pub(crate) const CALLER_LABELS: &[&str] = &[
    "client",
    "source_canonical_service",
    "source_service",
    "source_app",
    "source_workload",
    "caller",
    "source",
    "from_service",
    "upstream_service",
    "client_service",
];

/// Labels that name the version of the service which asks.
pub(crate) const CALLER_VERSION_LABELS: &[&str] = &[
    "client_version",
    "source_version",
    "caller_version",
    "from_version",
    "client_service_version",
];

/// Labels that name an environment.
pub(crate) const ENVIRONMENT_LABELS: &[&str] = &[
    "deployment_environment_name",
    "deployment_environment",
    "environment",
    "env",
    "destination_workload_namespace",
    "namespace",
    "stage",
];

/// Labels that name one running copy.
pub(crate) const INSTANCE_LABELS: &[&str] = &[
    "service_instance_id",
    "pod",
    "pod_name",
    "k8s_pod_name",
    "kubernetes_pod_name",
    "destination_pod",
    "instance",
    "instance_id",
    "node",
    "host",
    "hostname",
    "host_name",
    "server_instance",
    "container_id",
    "replica",
    "task",
    "ip",
    "addr",
    "address",
];

/// Labels that say how a request ended.
pub(crate) const STATUS_LABELS: &[&str] = &[
    "status_code",
    "http_status_code",
    "http_response_status_code",
    "response_code",
    "code",
    "http_status",
    "http_code",
    "status",
    "status_class",
    "code_class",
    "response_class",
    "class",
    "response_code_class",
    "envoy_response_code_class",
    "grpc_code",
    "grpc_status",
    "grpc_response_status",
    "rpc_grpc_status_code",
    "grpc_status_code",
    "classification",
    "result",
    "outcome",
    "success",
    "error",
    "is_error",
    "failed",
    "failure",
    "error_type",
    "exception",
    "ok",
];

/// Labels that say which side of a call was measured.
pub(crate) const KIND_LABELS: &[&str] = &["span_kind", "kind", "direction", "reporter", "side"];

/// Whether a request with this label is a failed one; `None` where the value says nothing.
pub(crate) fn is_failure(label: &str, value: &str) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let is_yes = matches!(value.as_str(), "true" | "1" | "yes");
    let is_no = matches!(value.as_str(), "false" | "0" | "no");
    match label {
        "success" | "ok" if is_yes || is_no => return Some(is_no),
        "error" | "is_error" | "failed" | "failure" if is_yes || is_no => return Some(is_yes),
        // What kind of error it was: none where it is empty.
        "error_type" | "exception" => {
            return Some(!matches!(value.as_str(), "none" | "" | "no" | "ok"));
        }
        _ => {}
    }
    if let Ok(number) = value.parse::<u32>() {
        if label.ends_with("class") && number < 10 {
            return Some(number == 5);
        }
        return match number {
            100..=499 => Some(false),
            500..=599 => Some(true),
            // The codes of gRPC that are the server's fault.
            0 => Some(false),
            1..=16 => Some(matches!(number, 2 | 4 | 8 | 12 | 13 | 14 | 15)),
            _ => None,
        };
    }
    let class = value.as_bytes();
    if let [b'1'..=b'5', b'x', b'x'] = class {
        return Some(class.first() == Some(&b'5'));
    }
    let word = value
        .trim_start_matches("status_code_")
        .replace(['-', '_', ' '], "");
    match word.as_str() {
        "error" | "err" | "errors" | "failure" | "failed" | "fail" | "exception" | "timeout"
        | "ko" | "servererror" | "unavailable" | "internal" | "internalerror" | "unknown"
        | "dataloss" | "deadlineexceeded" | "unimplemented" | "resourceexhausted" | "crash"
        | "bad" | "unhealthy" | "nok" | "aborted5xx" => Some(true),
        "ok" | "success" | "succeeded" | "successful" | "unset" | "good" | "clienterror"
        | "notfound" | "invalidargument" | "alreadyexists" | "permissiondenied"
        | "unauthenticated" | "failedprecondition" | "outofrange" | "canceled" | "cancelled"
        | "aborted" | "redirection" | "informational" | "pass" => Some(false),
        _ => None,
    }
}

/// Words that name a metric of failures.
pub(crate) fn names_failures(metric: &str) -> bool {
    tokens(metric).any(|token| {
        matches!(
            token,
            "error"
                | "errors"
                | "err"
                | "errs"
                | "failure"
                | "failures"
                | "failed"
                | "fail"
                | "exceptions"
                | "exception"
                | "5xx"
                | "faults"
                | "timeouts"
        )
    })
}

/// Words that name a metric of successes.
pub(crate) fn names_successes(metric: &str) -> bool {
    tokens(metric).any(|token| {
        matches!(
            token,
            "success" | "successes" | "successful" | "succeeded" | "ok" | "availability"
        )
    })
}

/// The words of a metric's name.
pub(crate) fn tokens(metric: &str) -> impl DoubleEndedIterator<Item = &str> {
    metric.split(['_', ':']).filter(|token| !token.is_empty())
}

/// Which requests a series is of, as the span kind that slogate calls it.
pub(crate) fn span_kind_of(value: &str) -> Option<&'static str> {
    let word = value.to_ascii_lowercase();
    let word = word.strip_prefix("span_kind_").unwrap_or(&word);
    match word {
        "server" | "inbound" | "destination" | "ingress" | "incoming" => Some("SPAN_KIND_SERVER"),
        "client" | "outbound" | "source" | "egress" | "outgoing" | "downstream" => {
            Some("SPAN_KIND_CLIENT")
        }
        "consumer" => Some("SPAN_KIND_CONSUMER"),
        "producer" => Some("SPAN_KIND_PRODUCER"),
        "internal" => Some("SPAN_KIND_INTERNAL"),
        _ => None,
    }
}

/// Whether a metric's name says that it is about requests to others.
pub(crate) fn names_outbound(metric: &str) -> bool {
    tokens(metric).any(|token| {
        matches!(
            token,
            "client"
                | "outbound"
                | "outgoing"
                | "downstream"
                | "upstream"
                | "egress"
                | "dependency"
                | "external"
                | "callout"
        )
    })
}

/// What one unit of a duration is in seconds, where the metric's name says it.
pub(crate) fn unit_s(metric: &str) -> Option<f64> {
    tokens(metric).rev().find_map(|token| match token {
        "seconds" | "second" | "sec" | "secs" | "s" => Some(1.0),
        "milliseconds" | "millisecond" | "millis" | "ms" | "msec" => Some(1e-3),
        "microseconds" | "microsecond" | "micros" | "us" | "usec" => Some(1e-6),
        "nanoseconds" | "nanosecond" | "nanos" | "ns" => Some(1e-9),
        "minutes" => Some(60.0),
        _ => None,
    })
}

/// Whether a metric's name says that it measures time.
pub(crate) fn names_duration(metric: &str) -> bool {
    tokens(metric).any(|token| {
        matches!(
            token,
            "duration" | "latency" | "latencies" | "time" | "rt" | "elapsed" | "durations" | "took"
        )
    }) || unit_s(metric).is_some()
}

/// Metrics of the machine and the runtime, which are no requests.
pub(crate) fn is_of_runtime(metric: &str) -> bool {
    const PREFIXES: [&str; 20] = [
        "go_",
        "process_",
        "python_",
        "jvm_",
        "container_",
        "node_",
        "kube_",
        "scrape_",
        "slogate_",
        "prometheus_",
        "promhttp_",
        "nodejs_",
        "ruby_",
        "dotnet_",
        "system_",
        "machine_",
        "tomcat_",
        "hikaricp_",
        "target_info",
        "logback_",
    ];
    PREFIXES.iter().any(|prefix| metric.starts_with(prefix)) || metric == "up"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        assert_eq!(side_in("track", "canary"), Some(Side::Candidate));
        assert_eq!(side_in("deployment", "shop-primary"), Some(Side::Baseline));
        assert_eq!(side_in("canary", "false"), Some(Side::Baseline));
        assert_eq!(side_in("is_gray", "1"), Some(Side::Candidate));
        assert_eq!(side_in("zone", "eu"), None);
    }

    #[test]
    fn failures_are_told_from_the_rest() {
        let failed = [
            ("code", "503"),
            ("status", "5xx"),
            ("status_code", "STATUS_CODE_ERROR"),
            ("grpc_code", "Unavailable"),
            ("grpc_status", "14"),
            ("success", "false"),
            ("error", "true"),
            ("error_type", "java.io.IOException"),
            ("outcome", "SERVER_ERROR"),
            ("result", "failure"),
            ("envoy_response_code_class", "5"),
        ];
        for (label, value) in failed {
            assert_eq!(is_failure(label, value), Some(true), "{label}={value}");
        }
        let good = [
            ("code", "404"),
            ("status", "2xx"),
            ("status_code", "STATUS_CODE_UNSET"),
            ("grpc_code", "NotFound"),
            ("grpc_status", "0"),
            ("success", "true"),
            ("error_type", "none"),
            ("outcome", "CLIENT_ERROR"),
        ];
        for (label, value) in good {
            assert_eq!(is_failure(label, value), Some(false), "{label}={value}");
        }
        assert_eq!(is_failure("status", "running"), None);
    }

    #[test]
    fn names_say_what_metrics_are() {
        assert!(names_failures("http_server_errors_total"));
        assert!(!names_failures("terror_total"));
        assert_eq!(unit_s("http_request_duration_milliseconds"), Some(1e-3));
        assert_eq!(unit_s("latency_p95"), None);
        assert!(names_duration("latency_p95"));
        assert!(names_outbound("http_client_requests_total"));
        assert_eq!(span_kind_of("SPAN_KIND_CLIENT"), Some("SPAN_KIND_CLIENT"));
    }
}
