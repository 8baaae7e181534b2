//! OTLP/gRPC over a real socket into the series store: spans per second of server CPU.
//!
//! The server has one thread of its own and the clients have another runtime, both on this
//! machine, so what counts is not the wall clock but the CPU time that the server's thread took,
//! as the kernel tells it: what a core gives that does nothing else. Over loopback the kernel does
//! part of the receiving on the sender's time; over a network that part would be the server's.
//! Requests are 500 spans with ten attributes each, in twenty series; the size is printed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use slogate::ingest::{Ingest, IngestOptions};
use slogate::model::{Clock, SystemClock};
use slogate::server::limits::{BodyLimits, Budget};
use slogate::server::listener::{ListenOptions, Listener};
use slogate::server::otlp::{Otlp, grpc};
use slogate::telemetry::Registry;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SPANS: u64 = 500;
const CLIENTS: usize = 4;
const MEASURED: Duration = Duration::from_secs(4);

fn main() {
    let bytes = request().encoded_len() as u64 / SPANS;
    println!("otlp/grpc: {SPANS} spans a request, {bytes} bytes a span");
    for (name, compression) in [("none", None), ("gzip", Some(CompressionEncoding::Gzip))] {
        let (spans, server_s, wall_s) = measure(compression);
        let (per_core, per_wall) = (spans as f64 / server_s, spans as f64 / wall_s);
        println!(
            "otlp/grpc, compression {name}: {per_core:.0} spans/s per busy server core \
             ({per_wall:.0} spans/s of wall time, clients on the same machine)"
        );
    }
}

/// Spans taken, seconds of server CPU, seconds of wall time.
fn measure(compression: Option<CompressionEncoding>) -> (u64, f64, f64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("bench-server")
        .enable_all()
        .build()
        .expect("a runtime");
    let stop = CancellationToken::new();
    let ingest = ingest(dir.path());
    let (listener, router) = server.block_on(listener(ingest.clone()));
    let address = listener.address();
    let serving = server.spawn(listener.serve(router, stop.clone()));
    let clients = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let result = clients.block_on(load(address, compression));
    stop.cancel();
    server.block_on(serving).expect("the server ended");
    let accepted = ingest
        .stats()
        .signals
        .iter()
        .map(|signal| signal.accepted)
        .max();
    assert!(
        accepted >= Some(result.0),
        "{accepted:?} spans were taken of {}",
        result.0
    );
    result
}

fn ingest(dir: &std::path::Path) -> Arc<Ingest> {
    let clock = SystemClock;
    let options = slogate_tsdb::Options {
        dir: Some(dir.join("store")),
        ..slogate_tsdb::Options::default()
    };
    let (store, _) = slogate_tsdb::Store::open(options, clock.now_ms()).expect("a store");
    let options = IngestOptions {
        journal_dir: Some(dir.join("ingest")),
        ..IngestOptions::default()
    };
    Arc::new(Ingest::new(Arc::new(store), options, clock.now_ms()).expect("ingest"))
}

async fn listener(ingest: Arc<Ingest>) -> (Listener, axum::Router) {
    let clock = Arc::new(SystemClock);
    let registry = Registry::new();
    let budget = Budget::new(256 << 20);
    let limits = BodyLimits::default();
    let otlp = Otlp::new(ingest, clock, limits, budget, &registry);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::bind("grpc", address, ListenOptions::default(), &registry);
    (listener.await.expect("a port"), grpc::router(otlp))
}

async fn load(address: SocketAddr, compression: Option<CompressionEncoding>) -> (u64, f64, f64) {
    let body = Bytes::from(request().encode_to_vec());
    let (is_over, taken) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut tasks = Vec::new();
    for _ in 0..CLIENTS {
        let channel = Channel::from_shared(format!("http://{address}")).expect("a URL");
        let channel = channel.connect().await.expect("a connection");
        let mut client = tonic::client::Grpc::new(channel);
        if let Some(compression) = compression {
            client = client.send_compressed(compression);
        }
        let (is_over, taken, body) = (is_over.clone(), taken.clone(), body.clone());
        tasks.push(tokio::spawn(async move {
            let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
            let path = http::uri::PathAndQuery::from_static(path);
            while !is_over.load(Ordering::Relaxed) {
                client.ready().await.expect("ready");
                let request = tonic::Request::new(body.clone());
                let answer = client
                    .unary(request, path.clone(), Raw)
                    .await
                    .expect("an answer");
                assert!(answer.get_ref().is_empty(), "not a full success");
                taken.fetch_add(SPANS, Ordering::Relaxed);
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (spans, cpu_s, began) = (
        taken.load(Ordering::Relaxed),
        cpu_s(),
        tokio::time::Instant::now(),
    );
    tokio::time::sleep(MEASURED).await;
    let spans = taken.load(Ordering::Relaxed) - spans;
    let result = (spans, self::cpu_s() - cpu_s, began.elapsed().as_secs_f64());
    is_over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("a client ended");
    }
    result
}

/// Seconds of CPU that the threads named `bench-server` have taken (Linux: proc(5), stat).
fn cpu_s() -> f64 {
    let mut ticks = 0.0;
    for task in std::fs::read_dir("/proc/self/task").expect("proc") {
        let path = task.expect("a task").path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.trim() != "bench-server" {
            continue;
        }
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        let fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        // utime and stime are fields 14 and 15; the first after the name is 3.
        let of_cpu = fields
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<f64>().ok());
        ticks += of_cpu.sum::<f64>();
    }
    ticks / 100.0
}

/// Bytes in, bytes out: encoding must not cost the clients what the server is measured by.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    let value = any_value::Value::StringValue(value.into());
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn request() -> ExportTraceServiceRequest {
    let resource = Resource {
        attributes: vec![
            text("service.name", "checkout"),
            text("service.version", "4.2.0"),
            text("deployment.environment.name", "production"),
            text("service.instance.id", "checkout-7d9f8b6c5-x2x4k"),
        ],
        ..Resource::default()
    };
    let now_ns = u64::try_from(SystemClock.now_ms()).unwrap_or(0) * 1_000_000;
    let scope = ScopeSpans {
        spans: (0..SPANS).map(|i| span(i, now_ns)).collect(),
        ..ScopeSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scope],
            ..ResourceSpans::default()
        }],
    }
}

fn span(i: u64, now_ns: u64) -> Span {
    let route = format!("/api/v1/things/{{id}}/{}", i % 20);
    let took_ns = 1_000_000 + i * 37_000 % 90_000_000;
    Span {
        trace_id: u128::from(i + 1).to_be_bytes().to_vec(),
        span_id: (i + 1).to_be_bytes().to_vec(),
        name: format!("GET {route}"),
        kind: 2,
        start_time_unix_nano: now_ns - took_ns,
        end_time_unix_nano: now_ns,
        attributes: vec![
            text("http.request.method", "GET"),
            text("http.route", route),
            text("http.response.status_code", "200"),
            text("url.scheme", "https"),
            text("url.path", format!("/api/v1/things/{i}/details")),
            text("server.address", "checkout.production.svc"),
            text("client.address", "10.42.17.93"),
            text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)"),
            text("network.protocol.version", "1.1"),
            text("thread.name", "http-worker-12"),
        ],
        ..Span::default()
    }
}
