//! What the common ways to measure requests look like.
//!
//! Names are those that each project documents: the collector's span metrics connector,
//! OpenTelemetry's HTTP semantic conventions as Prometheus translates them, Istio's standard
//! metrics, Linkerd's proxy metrics.

/// A way to measure requests. Empty text is none.
#[derive(Debug)]
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    pub(crate) service: &'static str,
    pub(crate) service_pattern: &'static str,
    pub(crate) environment: &'static str,
    pub(crate) version: &'static str,
    pub(crate) instance: &'static str,
    pub(crate) join: &'static str,
    pub(crate) join_on: &'static str,
    pub(crate) join_labels: &'static str,
    pub(crate) count: &'static str,
    pub(crate) only: &'static str,
    pub(crate) errors: &'static str,
    pub(crate) duration: &'static str,
    pub(crate) duration_unit: &'static str,
    pub(crate) span_kind: &'static str,
    /// Whether slogate itself counts these requests by instance too.
    pub(crate) has_own_instances: bool,
}

/// Span metrics with resource attributes as labels: what slogate makes itself.
const OTEL: Preset = Preset {
    name: "otel",
    service: "service_name",
    service_pattern: "",
    environment: "deployment_environment_name",
    version: "service_version",
    instance: "service_instance_id",
    join: "",
    join_on: "job,instance",
    join_labels: "version",
    count: "traces_span_metrics_calls_total",
    only: "",
    errors: "status_code=\"STATUS_CODE_ERROR\"",
    duration: "traces_span_metrics_duration_seconds",
    duration_unit: "s",
    span_kind: "span_kind",
    has_own_instances: true,
};

/// An application's own OTLP metrics in a Prometheus that promotes `service.version` and
/// `deployment.environment.name`.
const OTEL_PROMETHEUS: Preset = Preset {
    name: "otel-prometheus",
    service: "job",
    // `job` is service.name, or service.namespace and service.name.
    service_pattern: "(?:.*/)?([^/]+)",
    instance: "instance",
    count: "http_server_request_duration_seconds_count",
    errors: "http_response_status_code=~\"5..\"",
    duration: "http_server_request_duration_seconds",
    span_kind: "",
    has_own_instances: false,
    ..OTEL
};

/// The same in a Prometheus that promotes nothing: the attributes stand on `target_info`.
const TARGET_INFO: Preset = Preset {
    name: "target-info",
    join: "target_info",
    join_labels: "version,environment",
    ..OTEL_PROMETHEUS
};

/// An application that knows nothing of versions; its pods' labels say which they are.
const KUBE_STATE_METRICS: Preset = Preset {
    name: "kube-state-metrics",
    environment: "namespace",
    version: "label_pod_template_hash",
    instance: "pod",
    join: "kube_pod_labels",
    join_on: "namespace,pod",
    count: "http_requests_total",
    errors: "code=~\"5..\"",
    duration: "http_request_duration_seconds",
    ..OTEL_PROMETHEUS
};

/// Istio's standard metrics, as the destination reports them.
const ISTIO: Preset = Preset {
    name: "istio",
    service: "destination_canonical_service",
    environment: "destination_workload_namespace",
    version: "destination_version",
    instance: "pod",
    count: "istio_requests_total",
    only: "reporter=\"destination\"",
    errors: "response_code=~\"5..\"",
    duration: "istio_request_duration_milliseconds",
    duration_unit: "ms",
    span_kind: "",
    has_own_instances: false,
    ..OTEL
};

/// Linkerd's proxy metrics; its Prometheus copies the pods' labels.
const LINKERD: Preset = Preset {
    name: "linkerd",
    service: "deployment",
    environment: "namespace",
    version: "pod_template_hash",
    instance: "pod",
    count: "response_total",
    only: "direction=\"inbound\"",
    errors: "classification=\"failure\"",
    duration: "response_latency_ms",
    duration_unit: "ms",
    span_kind: "",
    has_own_instances: false,
    ..OTEL
};

/// Hand-made metrics with the labels that most people would choose.
const PLAIN: Preset = Preset {
    name: "plain",
    service: "service",
    environment: "environment",
    version: "version",
    instance: "instance",
    count: "http_requests_total",
    errors: "code=~\"5..\"",
    duration: "http_request_duration_seconds",
    span_kind: "",
    has_own_instances: false,
    ..OTEL
};

/// All of them.
pub(crate) const PRESETS: &[Preset] = &[
    OTEL,
    OTEL_PROMETHEUS,
    TARGET_INFO,
    KUBE_STATE_METRICS,
    ISTIO,
    LINKERD,
    PLAIN,
];
