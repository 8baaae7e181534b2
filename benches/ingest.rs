//! Ingest, in process: OTLP bytes in, series out, journal and log included.
//!
//! Figures for spans use requests of 500 spans of about 460 bytes with 10 attributes, over 20
//! series; those for points use requests of 5,000 points with 6 attributes, all series known.
//! Figures for remote write use requests of 2,000 series with 10 labels and one sample each, without
//! snappy, 20,000 series in all and known.
//! A flush runs every 4,000 requests. At the end the memory per series is printed.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
    Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use slogate::ingest::{Ingest, IngestOptions, RemoteWriteVersion};
use slogate_tsdb::{Options, Store};

#[path = "../crates/wire/tests/remote_write/messages.rs"]
mod messages;

use messages::{Sample, TimeSeries1, WriteRequest, label};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const T0_MS: i64 = 1_700_000_000_000;
const SPANS: usize = 500;

/// An ingest that writes to a directory of its own.
struct Bed {
    ingest: Ingest,
    requests: Cell<i64>,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Options {
            dir: Some(dir.path().join("series")),
            ..Options::default()
        };
        let (store, _) = Store::open(store, T0_MS).expect("an empty store opens");
        let options = IngestOptions {
            journal_dir: Some(dir.path().join("ingest")),
            metric_series_per_service: usize::MAX,
            ..IngestOptions::default()
        };
        let ingest = Ingest::new(Arc::new(store), options, T0_MS).expect("an empty journal opens");
        Bed {
            ingest,
            requests: Cell::new(0),
            _dir: dir,
        }
    }

    /// The time of the next request: a flush is due every 4,000.
    fn now_ms(&self) -> i64 {
        let request = self.requests.get() + 1;
        self.requests.set(request);
        let now_ms = T0_MS + request * 5_000 / 4_000;
        if request % 4_000 == 0 {
            self.ingest.tick(now_ms).expect("a flush");
        }
        now_ms
    }

    fn traces(&self, request: &[u8]) {
        let outcome = self.ingest.traces(request, self.now_ms());
        assert_eq!(outcome.expect("readable").rejected, 0);
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.into())),
        }),
        ..KeyValue::default()
    }
}

fn resource(instance: usize) -> Resource {
    Resource {
        attributes: vec![
            text("service.name", "checkout"),
            text("service.version", "4.2.0"),
            text(
                "service.instance.id",
                &format!("checkout-7d9f8b6c5-{instance:05}"),
            ),
            text("deployment.environment.name", "production"),
            text("telemetry.sdk.language", "rust"),
            text("k8s.pod.name", &format!("checkout-7d9f8b6c5-{instance:05}")),
        ],
        ..Resource::default()
    }
}

/// What kinds of spans a request holds.
#[derive(Clone, Copy, Debug)]
enum Mix {
    /// Server spans whose client spans never come.
    Servers,
    /// Pairs of a client span and the server span it caused.
    Pairs,
    /// Spans inside a service.
    Internal,
}

fn span(random: &mut ChaCha8Rng, at: usize, mix: Mix) -> Span {
    let start = T0_MS as u64 * 1_000_000;
    // Log-normal around 20 ms, as services are.
    let normal: f64 = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
    let nanos = (20e6 * (0.7 * normal).exp()) as u64;
    let attributes = [
        ("http.request.method", "POST".to_owned()),
        ("http.route", "/api/v1/orders/{id}".to_owned()),
        (
            "url.path",
            format!("/api/v1/orders/{}", random.random_range(10_000..99_999)),
        ),
        ("url.scheme", "https".to_owned()),
        ("server.address", "checkout.example.com".to_owned()),
        ("network.protocol.version", "1.1".to_owned()),
        (
            "user_agent.original",
            "okhttp/4.12.0 (Linux; Android 14; Pixel 8)".to_owned(),
        ),
        ("client.address", "10.12.33.7".to_owned()),
        ("http.response.status_code", "200".to_owned()),
        ("thread.name", "worker-12".to_owned()),
    ];
    Span {
        trace_id: random.random::<[u8; 16]>().to_vec(),
        span_id: random.random::<[u8; 8]>().to_vec(),
        parent_span_id: random.random::<[u8; 8]>().to_vec(),
        name: format!("POST /api/v1/orders/{}", at % 10),
        kind: match mix {
            Mix::Internal => 1,
            Mix::Servers => 2,
            Mix::Pairs => 3,
        },
        start_time_unix_nano: start,
        end_time_unix_nano: start + nanos,
        attributes: attributes
            .iter()
            .map(|(key, value)| text(key, value))
            .collect(),
        status: Some(Status {
            code: if at % 50 < 10 { 2 } else { 0 },
            ..Status::default()
        }),
        flags: 0x101,
        ..Span::default()
    }
}

fn trace_requests(mix: Mix) -> Vec<Vec<u8>> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let request = |number: usize| {
        let mut spans: Vec<Span> = (0..SPANS).map(|at| span(&mut random, at, mix)).collect();
        if let Mix::Pairs = mix {
            for at in (1..SPANS).step_by(2) {
                spans[at].kind = 2;
                spans[at].trace_id = spans[at - 1].trace_id.clone();
                spans[at].parent_span_id = spans[at - 1].span_id.clone();
            }
        }
        let resource_spans = vec![ResourceSpans {
            resource: Some(resource(number % 4)),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }];
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    };
    // Enough for the table of waiting halves to fill, where none of them ever meet.
    let requests = if let Mix::Servers = mix { 256 } else { 16 };
    (0..requests).map(request).collect()
}

fn spans(c: &mut Criterion) {
    let mut group = c.benchmark_group("spans");
    group.throughput(Throughput::Elements(SPANS as u64));
    for mix in [Mix::Servers, Mix::Pairs, Mix::Internal] {
        let requests = trace_requests(mix);
        let bytes = requests.iter().map(Vec::len).sum::<usize>() / requests.len() / SPANS;
        println!("{mix:?}: {bytes} bytes per span");
        let bed = Bed::new();
        let mut next = 0;
        group.bench_function(BenchmarkId::from_parameter(format!("{mix:?}")), |b| {
            b.iter(|| {
                next = (next + 1) % requests.len();
                bed.traces(black_box(&requests[next]));
            });
        });
    }
    group.finish();
}

const POINT_TIME_NS: u64 = 0x1122_3344_5566_7788;

fn point_attributes(at: usize) -> Vec<KeyValue> {
    vec![
        text("http.request.method", "POST"),
        text("http.route", &format!("/api/v1/orders/{at}")),
        text("http.response.status_code", "200"),
        text("network.protocol.version", "1.1"),
        text("url.scheme", "https"),
        text("server.address", "checkout.example.com"),
    ]
}

fn number_points(from: usize, count: usize) -> Vec<NumberDataPoint> {
    let point = |at: usize| NumberDataPoint {
        attributes: point_attributes(at),
        start_time_unix_nano: T0_MS as u64 * 1_000_000,
        time_unix_nano: POINT_TIME_NS,
        value: Some(number_data_point::Value::AsInt(at as i64 * 7)),
        ..NumberDataPoint::default()
    };
    (from..from + count).map(point).collect()
}

fn histogram_points(count: usize) -> Vec<HistogramDataPoint> {
    let bounds = [
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ];
    let point = |at: usize| HistogramDataPoint {
        attributes: point_attributes(at),
        start_time_unix_nano: T0_MS as u64 * 1_000_000,
        time_unix_nano: POINT_TIME_NS,
        count: 15 * at as u64,
        sum: Some(at as f64),
        bucket_counts: vec![at as u64; bounds.len() + 1],
        explicit_bounds: bounds.to_vec(),
        ..HistogramDataPoint::default()
    };
    (0..count).map(point).collect()
}

fn metrics_request(metrics: Vec<Metric>) -> Vec<u8> {
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource(1)),
            scope_metrics: vec![ScopeMetrics {
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
    .encode_to_vec()
}

fn metric(name: &str, data: metric::Data) -> Metric {
    Metric {
        name: name.into(),
        unit: "s".into(),
        data: Some(data),
        ..Metric::default()
    }
}

/// A request of which every point's time can be changed in place.
struct Movable {
    request: Vec<u8>,
    places: Vec<usize>,
}

impl Movable {
    fn new(request: Vec<u8>) -> Self {
        let pattern = POINT_TIME_NS.to_le_bytes();
        let places = (0..request.len() - 7).filter(|at| request[*at..at + 8] == pattern);
        Movable {
            places: places.collect(),
            request,
        }
    }

    fn at(&mut self, ms: i64) -> Vec<u8> {
        for place in &self.places {
            let bytes = (ms as u64 * 1_000_000).to_le_bytes();
            self.request[*place..place + 8].copy_from_slice(&bytes);
        }
        self.request.clone()
    }
}

fn points(c: &mut Criterion) {
    let mut group = c.benchmark_group("samples");
    let gauge = |at: usize| {
        let data_points = number_points(at * 100, 100);
        metric(
            &format!("app.gauge.{at}"),
            metric::Data::Gauge(Gauge { data_points }),
        )
    };
    let sum = |at: usize| {
        let data = Sum {
            data_points: number_points(at * 100, 100),
            aggregation_temporality: 2,
            is_monotonic: true,
        };
        metric(&format!("app.sum.{at}"), metric::Data::Sum(data))
    };
    let histogram = Histogram {
        data_points: histogram_points(300),
        aggregation_temporality: 2,
    };
    let histogram = metric("app.duration", metric::Data::Histogram(histogram));
    for (name, samples, metrics) in [
        ("gauges", 5_000, (0..50).map(gauge).collect()),
        ("counters", 5_000, (0..50).map(sum).collect()),
        ("histograms", 300 * 17, vec![histogram]),
    ] {
        let mut request = Movable::new(metrics_request(metrics));
        let bed = Bed::new();
        let mut now_ms = T0_MS;
        group.throughput(Throughput::Elements(samples));
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    now_ms += 5_000;
                    (request.at(now_ms), now_ms)
                },
                |(request, now_ms)| {
                    let outcome = bed.ingest.metrics(black_box(&request), now_ms);
                    assert_eq!(outcome.expect("readable").rejected, 0);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// A request of remote write with series `from` to `from + count`, one sample each.
fn write_request(from: usize, count: usize, t_ms: i64) -> WriteRequest {
    let series = |at: usize| TimeSeries1 {
        labels: vec![
            label("__name__", "http_server_requests_total"),
            label("cluster", "eu-west-1"),
            label("env", "production"),
            label(
                "instance",
                &format!("10.12.{}.{}:8080", at / 100 % 256, at % 100),
            ),
            label("job", "checkout"),
            label("method", "POST"),
            label("pod", &format!("checkout-7d9f8b6c5-{:05}", at / 100)),
            label("route", &format!("/api/v1/orders/{}", at % 100)),
            label("status", "200"),
            label("zone", "eu-west-1a"),
        ],
        samples: vec![Sample {
            value: (at as i64 + t_ms / 1_000) as f64,
            timestamp: t_ms,
            start_timestamp: 0,
        }],
        ..TimeSeries1::default()
    };
    WriteRequest {
        timeseries: (from..from + count).map(series).collect(),
        metadata: Vec::new(),
    }
}

fn remote_write(c: &mut Criterion) {
    let mut group = c.benchmark_group("remote_write");
    let (count, series) = (2_000, 20_000);
    group.throughput(Throughput::Elements(count as u64));
    for version in RemoteWriteVersion::ALL {
        let bed = Bed::new();
        let mut sent = 0;
        group.bench_function(BenchmarkId::from_parameter(version.name()), |b| {
            b.iter_batched(
                || {
                    let round = sent / (series / count);
                    let now_ms = T0_MS + round as i64 * 5_000;
                    let request = write_request(sent % (series / count) * count, count, now_ms);
                    sent += 1;
                    let bytes = match version {
                        RemoteWriteVersion::V1 => request.encode_to_vec(),
                        RemoteWriteVersion::V2 => request.to_v2().encode_to_vec(),
                    };
                    (bytes, now_ms)
                },
                |(request, now_ms)| {
                    let written = bed
                        .ingest
                        .remote_write(version, black_box(&request), now_ms);
                    assert_eq!(written.expect("readable").rejected, 0);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Resident memory of this process, in bytes; 0 where the system does not say.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1);
    pages
        .and_then(|pages| pages.parse::<usize>().ok())
        .unwrap_or(0)
        * 4096
}

fn memory() {
    let bed = Bed::new();
    let before = resident_bytes();
    let series = 200_000;
    let gauge = |at: usize| {
        let data_points = number_points(at * 100, 100);
        metric(
            &format!("app.gauge.{at}"),
            metric::Data::Gauge(Gauge { data_points }),
        )
    };
    for chunk in 0..series / 5_000 {
        let metrics = (chunk * 50..(chunk + 1) * 50).map(gauge).collect();
        let mut request = Movable::new(metrics_request(metrics));
        for step in 0..30 {
            let now_ms = T0_MS + step * 10_000;
            let outcome = bed.ingest.metrics(&request.at(now_ms), now_ms);
            assert_eq!(outcome.expect("readable").rejected, 0);
        }
    }
    let used = resident_bytes().saturating_sub(before);
    println!(
        "memory: {} bytes per metric series ({series} series of 13 labels, 30 samples each)",
        used / series
    );
}

fn span_memory() {
    let bed = Bed::new();
    let before = resident_bytes();
    let (services, names) = (50, 1_000);
    let mut random = ChaCha8Rng::seed_from_u64(9);
    for service in 0..services {
        let spans = (0..names * 10).map(|at| Span {
            name: format!("GET /resource/{}", at % names),
            kind: 2,
            end_time_unix_nano: random.random_range(1_000_000..100_000_000),
            ..Span::default()
        });
        let mut resource = resource(0);
        resource.attributes[0] = text("service.name", &format!("service-{service}"));
        let resource_spans = vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                spans: spans.collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }];
        bed.traces(&ExportTraceServiceRequest { resource_spans }.encode_to_vec());
    }
    for tick in 1..30 {
        bed.ingest.tick(T0_MS + tick * 5_000).expect("a flush");
    }
    let used = resident_bytes().saturating_sub(before);
    println!(
        "memory: {} bytes per span series ({} series: a counter and a histogram of 10 durations)",
        used / (2 * services * names),
        2 * services * names
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .measurement_time(std::time::Duration::from_secs(3))
        .warm_up_time(std::time::Duration::from_secs(1));
    targets = spans, points, remote_write
}

/// Memory is measured in processes of its own: what a bench leaves behind would hide it.
fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("memory-of-points") => return memory(),
        Some("memory-of-spans") => return span_memory(),
        _ => {}
    }
    benches();
    if let Ok(program) = std::env::current_exe() {
        for what in ["memory-of-points", "memory-of-spans"] {
            let status = std::process::Command::new(&program).arg(what).status();
            assert!(status.is_ok_and(|status| status.success()), "{what}");
        }
    }
    Criterion::default().configure_from_args().final_summary();
}
