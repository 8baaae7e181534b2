//! Our own traces and metrics out over OTLP, where an endpoint is set; off otherwise.
//!
//! Metrics are the registry's, read by observable instruments at every export, so the exported
//! numbers are those of `/metrics`. OpenTelemetry has no observable histogram: a histogram family
//! leaves as two counters, `<name>_count` and `<name>_sum`.
//!
//! The endpoint may be our own listener, which is how slogate watches its own rollouts. That ends
//! in a fixed amount of work and not in a loop: spans about receiving telemetry are not exported
//! ([`logging`](super::logging) filters them), the clients' own libraries are not either, and
//! metrics are one request per interval however much was received.
//!
//! An endpoint that does not answer costs nothing but a bounded queue: spans beyond it are
//! dropped, metrics are sent with their next value.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, Protocol as WireProtocol, SpanExporter, WithExportConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData};
use tokio::runtime::Handle;
use tokio_util::context::TokioContext;

use super::catalog;
use super::metrics::{Kind, Point, Registry, Spec, Value};

/// How telemetry is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/gRPC.
    #[default]
    Grpc,
    /// OTLP/HTTP with protobuf bodies.
    HttpProtobuf,
    /// OTLP/HTTP with JSON bodies.
    HttpJson,
}

/// Where our telemetry goes and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// Base URL, for example `http://127.0.0.1:4317`; signal paths are appended for HTTP.
    pub endpoint: String,
    /// How to send.
    pub protocol: Protocol,
    /// Time between two exports of metrics, in milliseconds.
    pub interval_ms: u64,
    /// Our `service.instance.id`.
    pub instance: String,
    /// Our `deployment.environment.name`, where it is known.
    pub environment: Option<String>,
}

/// Why exporting could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The exporter refuses its settings.
    #[error("telemetry endpoint {endpoint:?}: {error}")]
    Build {
        /// As it was given.
        endpoint: String,
        /// What is wrong.
        error: ExporterBuildError,
    },
    /// TLS is spoken over HTTP only.
    #[error("telemetry endpoint {0:?}: OTLP/gRPC is sent without TLS; use http/protobuf for https")]
    GrpcTls(String),
}

/// Exporters at work. Dropping them loses what is queued; [`Exporting::shutdown`] sends it.
#[derive(Debug)]
pub struct Exporting {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
}

impl Exporting {
    /// Begins to export `registry` and whatever [`Exporting::tracer`] is given. The exporters'
    /// connections live on `runtime`.
    ///
    /// # Errors
    /// Where the endpoint is not a URL or asks for what is not spoken.
    pub fn start(
        options: &ExportOptions,
        registry: &Registry,
        runtime: &Handle,
    ) -> Result<Exporting, ExportError> {
        let endpoint = options.endpoint.clone();
        if options.protocol == Protocol::Grpc && endpoint.starts_with("https:") {
            return Err(ExportError::GrpcTls(endpoint));
        }
        // Building a gRPC channel spawns its worker on the current runtime.
        let _inside = runtime.enter();
        let build = |error| ExportError::Build {
            endpoint: endpoint.clone(),
            error,
        };
        let resource = resource(options);
        let spans = OnRuntime {
            exporter: span_exporter(options).map_err(build)?,
            runtime: runtime.clone(),
        };
        let traces = SdkTracerProvider::builder()
            .with_batch_exporter(spans)
            .with_resource(resource.clone())
            .build();
        let points = OnRuntime {
            exporter: metric_exporter(options).map_err(build)?,
            runtime: runtime.clone(),
        };
        let reader = PeriodicReader::builder(points)
            .with_interval(Duration::from_millis(options.interval_ms.max(1_000)))
            .build();
        let metrics = SdkMeterProvider::builder()
            .with_reader(reader)
            .with_resource(resource)
            .build();
        let meter = metrics.meter("slogate");
        for spec in catalog::ALL {
            observe(&meter, registry, spec);
        }
        Ok(Exporting { traces, metrics })
    }

    /// What spans are recorded with.
    pub fn tracer(&self) -> SdkTracer {
        self.traces.tracer("slogate")
    }

    /// Sends what is queued and stops. Blocks for up to some seconds: not for an async thread.
    pub fn shutdown(&self) {
        for (what, result) in [
            ("traces", self.traces.shutdown()),
            ("metrics", self.metrics.shutdown()),
        ] {
            if let Err(error) = result {
                tracing::warn!(what, %error, "own telemetry was not sent in full at shutdown");
            }
        }
    }
}

fn resource(options: &ExportOptions) -> Resource {
    let environment = options.environment.iter();
    let environment = environment.map(|e| KeyValue::new("deployment.environment.name", e.clone()));
    Resource::builder()
        .with_service_name("slogate")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", options.instance.clone()),
        ])
        .with_attributes(environment)
        .build()
}

fn http_protocol(protocol: Protocol) -> WireProtocol {
    match protocol {
        Protocol::Grpc => WireProtocol::Grpc,
        Protocol::HttpProtobuf => WireProtocol::HttpBinary,
        Protocol::HttpJson => WireProtocol::HttpJson,
    }
}

/// The base URL with a signal's path, as the protocol has it for HTTP.
fn signal_url(endpoint: &str, signal: &str) -> String {
    format!("{}/v1/{signal}", endpoint.trim_end_matches('/'))
}

fn span_exporter(options: &ExportOptions) -> Result<SpanExporter, ExporterBuildError> {
    let builder = SpanExporter::builder();
    match options.protocol {
        Protocol::Grpc => builder
            .with_tonic()
            .with_endpoint(&options.endpoint)
            .build(),
        protocol => builder
            .with_http()
            .with_protocol(http_protocol(protocol))
            .with_endpoint(signal_url(&options.endpoint, "traces"))
            .build(),
    }
}

fn metric_exporter(options: &ExportOptions) -> Result<MetricExporter, ExporterBuildError> {
    let builder = MetricExporter::builder().with_temporality(Temporality::Cumulative);
    match options.protocol {
        Protocol::Grpc => builder
            .with_tonic()
            .with_endpoint(&options.endpoint)
            .build(),
        protocol => builder
            .with_http()
            .with_protocol(http_protocol(protocol))
            .with_endpoint(signal_url(&options.endpoint, "metrics"))
            .build(),
    }
}

fn observe(meter: &Meter, registry: &Registry, spec: &'static Spec) {
    match spec.kind {
        Kind::Counter => {
            // The translation back to Prometheus appends `_total` again.
            let name = spec.name.trim_end_matches("_total");
            observe_counter(meter, registry, spec, name.to_owned(), number);
        }
        Kind::Histogram => {
            let name = |part: &str| format!("{}_{part}", spec.name);
            observe_counter(meter, registry, spec, name("count"), count);
            observe_counter(meter, registry, spec, name("sum"), sum);
        }
        Kind::Gauge => {
            let registry = registry.clone();
            meter
                .f64_observable_gauge(spec.name)
                .with_description(spec.help)
                .with_callback(move |out| {
                    for point in points(&registry, spec) {
                        out.observe(number(&point), &attributes(spec, &point));
                    }
                })
                .build();
        }
    }
}

fn observe_counter(
    meter: &Meter,
    registry: &Registry,
    spec: &'static Spec,
    name: String,
    value: fn(&Point) -> f64,
) {
    let registry = registry.clone();
    meter
        .f64_observable_counter(name)
        .with_description(spec.help)
        .with_callback(move |out| {
            for point in points(&registry, spec) {
                out.observe(value(&point), &attributes(spec, &point));
            }
        })
        .build();
}

fn points(registry: &Registry, spec: &Spec) -> Vec<Point> {
    let family = registry.family(spec.name);
    family.map_or_else(Vec::new, |family| family.points)
}

fn attributes(spec: &'static Spec, point: &Point) -> Vec<KeyValue> {
    let pairs = spec.labels.iter().zip(&point.labels);
    pairs
        .map(|(name, value)| KeyValue::new(*name, value.to_string()))
        .collect()
}

fn number(point: &Point) -> f64 {
    match &point.value {
        Value::Number(value) => *value,
        Value::Histogram(_) => 0.0,
    }
}

fn count(point: &Point) -> f64 {
    match &point.value {
        Value::Number(_) => 0.0,
        Value::Histogram(histogram) => histogram.count as f64,
    }
}

fn sum(point: &Point) -> f64 {
    match &point.value {
        Value::Number(_) => 0.0,
        Value::Histogram(histogram) => histogram.sum_seconds,
    }
}

/// An exporter whose futures see `runtime`: the SDK polls them on threads of its own, where the
/// HTTP client would find no reactor.
#[derive(Debug)]
struct OnRuntime<E> {
    exporter: E,
    runtime: Handle,
}

impl opentelemetry_sdk::trace::SpanExporter for OnRuntime<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        TokioContext::new(self.exporter.export(batch), self.runtime.clone()).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl PushMetricExporter for OnRuntime<MetricExporter> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        TokioContext::new(self.exporter.export(metrics), self.runtime.clone()).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
