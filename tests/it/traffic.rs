//! A service's traffic, sent by the real `opentelemetry-otlp` exporter.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use slogate::config::data_dir::Ports;

/// How a release behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    /// Requests in each batch; a batch is sent every 200 ms.
    pub(crate) requests: u64,
    /// One request in this many fails.
    pub(crate) one_error_in: u64,
    /// The typical duration; one request in twenty takes three times as long.
    pub(crate) typical: Duration,
}

impl Behaviour {
    /// 500 requests in each batch, one error in 500, 40 ms.
    pub(crate) fn good() -> Behaviour {
        Behaviour {
            requests: 500,
            one_error_in: 500,
            typical: Duration::from_millis(40),
        }
    }

    pub(crate) fn ten_times_the_errors(self) -> Behaviour {
        Behaviour {
            one_error_in: self.one_error_in / 10,
            ..self
        }
    }

    pub(crate) fn half_again_as_slow(self) -> Behaviour {
        Behaviour {
            typical: self.typical * 3 / 2,
            ..self
        }
    }
}

/// One version of a service, with its exporter.
pub(crate) struct Release {
    exporter: SpanExporter,
    behaviour: Behaviour,
    served: u64,
    random: u64,
}

impl Release {
    /// Sends to a daemon by `protocol`. Needs a Tokio runtime around it.
    pub(crate) fn new(
        ports: &Ports,
        protocol: Protocol,
        service: &str,
        version: Option<&str>,
        behaviour: Behaviour,
    ) -> Release {
        let mut exporter = match protocol {
            Protocol::Grpc => SpanExporter::builder()
                .with_tonic()
                .with_endpoint(format!("http://{}", ports.otlp_grpc))
                .build(),
            other => SpanExporter::builder()
                .with_http()
                .with_protocol(other)
                .with_endpoint(format!("http://{}/v1/traces", ports.otlp_http))
                .build(),
        }
        .expect("an exporter");
        let mut attributes = vec![
            KeyValue::new("service.name", service.to_owned()),
            KeyValue::new("deployment.environment.name", "production"),
        ];
        if let Some(version) = version {
            attributes.push(KeyValue::new("service.version", version.to_owned()));
        }
        let resource = Resource::builder_empty()
            .with_attributes(attributes)
            .build();
        exporter.set_resource(&resource);
        let random = service.bytes().chain(version.unwrap_or("").bytes());
        let random = random.fold(0x9e37_79b9_7f4a_7c15, |seed, byte| {
            (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Release {
            exporter,
            behaviour,
            served: 0,
            random,
        }
    }

    /// Serves one batch of requests that just ended, and exports their spans.
    pub(crate) async fn serve_batch(&mut self) -> Result<u64, String> {
        let now = SystemTime::now();
        let spans = (0..self.behaviour.requests)
            .map(|_| self.span(now))
            .collect();
        let sent = self.exporter.export(spans).await;
        sent.map(|()| self.behaviour.requests)
            .map_err(|error| format!("{error:?}"))
    }

    fn span(&mut self, now: SystemTime) -> SpanData {
        self.served += 1;
        let is_error = self.served.is_multiple_of(self.behaviour.one_error_in);
        // Between half and one and a half of the typical duration, and a slow twentieth.
        let spread = 0.5 + self.next_random();
        let is_slow = self.next_random() < 0.05;
        let took = self
            .behaviour
            .typical
            .mul_f64(if is_slow { 3.0 * spread } else { spread });
        let trace_id = TraceId::from(u128::from(self.next_bits()) << 64 | u128::from(self.served));
        SpanData {
            span_context: SpanContext::new(
                trace_id,
                SpanId::from(self.next_bits() | 1),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Server,
            name: "POST /pay".into(),
            start_time: now - took,
            end_time: now,
            attributes: vec![
                KeyValue::new("http.request.method", "POST"),
                KeyValue::new(
                    "http.response.status_code",
                    if is_error { 503 } else { 200 },
                ),
            ],
            dropped_attributes_count: 0,
            events: opentelemetry_sdk::trace::SpanEvents::default(),
            links: opentelemetry_sdk::trace::SpanLinks::default(),
            status: if is_error {
                Status::error("unavailable")
            } else {
                Status::Unset
            },
            instrumentation_scope: InstrumentationScope::builder("shop").build(),
        }
    }

    fn next_bits(&mut self) -> u64 {
        // xorshift64*: the same traffic on every run.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn next_random(&mut self) -> f64 {
        (self.next_bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Lets releases serve side by side, a batch every 200 ms each, until `done` says so.
pub(crate) async fn serve_until(
    mut releases: Vec<Release>,
    limit: Duration,
    mut done: impl AsyncFnMut() -> bool,
) {
    let mut batches = tokio::time::interval(Duration::from_millis(200));
    let deadline = tokio::time::Instant::now() + limit;
    while tokio::time::Instant::now() < deadline {
        batches.tick().await;
        for release in &mut releases {
            release.serve_batch().await.expect("an export");
        }
        if done().await {
            return;
        }
    }
    panic!("not decided within {limit:?}");
}
