//! Sends spans to a running daemon over gRPC as fast as it takes them, and says how many that is.
//!
//! ```text
//! slogate serve &
//! cargo run --release --example grpc_load -- 127.0.0.1:4317 --seconds 10 --pid $!
//! ```
//!
//! Requests are encoded beforehand: 500 server spans of about 460 bytes with 10 attributes each.
//! With `--pid` of the daemon the CPU time that it used meanwhile is read
//! from Linux's `/proc`, which gives the spans for each second that one of its cores was
//! busy: the figure that stays the same when the load itself needs a core.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use clap::Parser;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use slogate::model::{Clock, SystemClock};
use tokio::time::Instant;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SPANS: usize = 500;
const REQUESTS: usize = 16;
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Ticks of the times in /proc/PID/stat: Linux shows programs 100 a second on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// Sends spans over gRPC as fast as they are taken
#[derive(Debug, Parser)]
struct Args {
    /// Where the daemon listens for OTLP over gRPC
    address: SocketAddr,
    /// How long to measure, in seconds, after one second of warming up
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// HTTP/2 connections
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests at a time on each connection
    #[arg(long, default_value_t = 4)]
    streams: usize,
    /// The daemon's process id, for the CPU time that it uses
    #[arg(long)]
    pid: Option<u32>,
}

/// What was sent and how it was answered.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    accepted: u64,
    rejected: u64,
    turned_away: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("grpc_load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let now_ms = SystemClock.now_ms();
    let requests: Arc<[Bytes]> = (0..REQUESTS)
        .map(|_| request(&mut random, now_ms))
        .collect();
    let bytes_per_span = requests.iter().map(Bytes::len).sum::<usize>() / REQUESTS / SPANS;
    let endpoint = Endpoint::try_from(format!("http://{}", args.address))?
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    let mut channels = Vec::new();
    for _ in 0..args.connections {
        channels.push(endpoint.connect().await?);
    }
    drive(&channels, args.streams, &requests, Duration::from_secs(1)).await?;

    let cpu_before = args.pid.map(cpu_seconds).transpose()?;
    let began = Instant::now();
    let duration = Duration::from_secs(args.seconds);
    let sent = drive(&channels, args.streams, &requests, duration).await?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu_after = args.pid.map(cpu_seconds).transpose()?;

    println!(
        "{} spans of {bytes_per_span} bytes accepted in {seconds:.1} s, {} rejected, \
         {} requests turned away",
        sent.accepted, sent.rejected, sent.turned_away
    );
    let spans = sent.accepted as f64;
    println!("spans_per_second {:.0}", spans / seconds);
    if let (Some(before), Some(after)) = (cpu_before, cpu_after) {
        let busy = after - before;
        println!("server_cpu_seconds {busy:.2}");
        println!("server_cores_busy {:.2}", busy / seconds);
        println!("spans_per_server_core_second {:.0}", spans / busy);
    }
    Ok(())
}

/// Sends `requests` again and again on all channels for `duration`.
async fn drive(
    channels: &[Channel],
    streams: usize,
    requests: &Arc<[Bytes]>,
    duration: Duration,
) -> Result<Sent, tonic::Status> {
    let until = Instant::now() + duration;
    let stream =
        |channel: &Channel| tokio::spawn(send(channel.clone(), Arc::clone(requests), until));
    let tasks: Vec<_> = channels
        .iter()
        .flat_map(|channel| (0..streams).map(move |_| channel))
        .map(stream)
        .collect();
    let mut all = Sent::default();
    for task in tasks {
        let sent = task
            .await
            .map_err(|error| tonic::Status::internal(error.to_string()))??;
        all.accepted += sent.accepted;
        all.rejected += sent.rejected;
        all.turned_away += sent.turned_away;
    }
    Ok(all)
}

async fn send(
    channel: Channel,
    requests: Arc<[Bytes]>,
    until: Instant,
) -> Result<Sent, tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel);
    let mut sent = Sent::default();
    for request in requests.iter().cycle() {
        if Instant::now() >= until {
            break;
        }
        let ready = client.ready().await;
        ready.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(EXPORT);
        let request = tonic::Request::new(request.clone());
        match client.unary(request, path, Encoded).await {
            Ok(response) => {
                let partial = response.into_inner().partial_success.unwrap_or_default();
                let rejected = partial.rejected_spans.unsigned_abs();
                sent.rejected += rejected;
                sent.accepted += (SPANS as u64).saturating_sub(rejected);
            }
            Err(status) if status.code() == tonic::Code::ResourceExhausted => {
                sent.turned_away += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(status) => return Err(status),
        }
    }
    Ok(sent)
}

/// Sends requests that are encoded already.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = ExportTraceServiceResponse;
    type Encoder = Encoded;
    type Decoder = Encoded;

    fn encoder(&mut self) -> Encoded {
        Encoded
    }

    fn decoder(&mut self) -> Encoded {
        Encoded
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = ExportTraceServiceResponse;
    type Error = tonic::Status;

    fn decode(
        &mut self,
        buffer: &mut DecodeBuf<'_>,
    ) -> Result<Option<ExportTraceServiceResponse>, tonic::Status> {
        let message = buffer.copy_to_bytes(buffer.remaining());
        let response = ExportTraceServiceResponse::decode(message);
        response
            .map(Some)
            .map_err(|error| tonic::Status::internal(error.to_string()))
    }
}

/// User and system time of a process so far, in seconds: fields 14 and 15 of its stat file.
/// The name in field 2 may hold anything, so fields are counted from the last parenthesis.
fn cpu_seconds(pid: u32) -> std::io::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = [11, 12].map(|at| fields.get(at).and_then(|text| text.parse::<f64>().ok()));
    match ticks {
        [Some(user), Some(system)] => Ok((user + system) / TICKS_PER_SECOND),
        _ => Err(std::io::Error::other(format!(
            "/proc/{pid}/stat shows no CPU time"
        ))),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = any_value::Value::StringValue(value.to_owned());
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn request(random: &mut ChaCha8Rng, now_ms: i64) -> Bytes {
    let spans = (0..SPANS).map(|at| span(random, at, now_ms.unsigned_abs() * 1_000_000));
    let resource = [
        ("service.name", "checkout"),
        ("service.version", "4.2.0"),
        ("service.instance.id", "checkout-7d9f8b6c5-00001"),
        ("deployment.environment.name", "production"),
        ("telemetry.sdk.language", "rust"),
    ];
    let resource_spans = vec![ResourceSpans {
        resource: Some(Resource {
            attributes: resource.map(|(key, value)| text(key, value)).to_vec(),
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans: spans.collect(),
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    }];
    Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec())
}

fn span(random: &mut ChaCha8Rng, at: usize, end_ns: u64) -> Span {
    let order = random.random_range(10_000..99_999).to_string();
    let attributes = [
        ("http.request.method", "POST"),
        ("http.route", "/api/v1/orders/{id}"),
        ("url.path", &format!("/api/v1/orders/{order}")),
        ("url.scheme", "https"),
        ("server.address", "checkout.example.com"),
        ("network.protocol.version", "1.1"),
        (
            "user_agent.original",
            "okhttp/4.12.0 (Linux; Android 15; Pixel 8)",
        ),
        ("client.address", "10.12.33.7"),
        ("http.response.status_code", "200"),
        ("thread.name", "worker-12"),
    ];
    Span {
        trace_id: random.random::<[u8; 16]>().to_vec(),
        span_id: random.random::<[u8; 8]>().to_vec(),
        parent_span_id: random.random::<[u8; 8]>().to_vec(),
        name: format!("POST /api/v1/orders/{}", at % 10),
        kind: 2,
        start_time_unix_nano: end_ns - random.random_range(5_000_000..80_000_000),
        end_time_unix_nano: end_ns,
        attributes: attributes.map(|(key, value)| text(key, value)).to_vec(),
        status: Some(Status {
            code: if at.is_multiple_of(50) { 2 } else { 0 },
            ..Status::default()
        }),
        flags: 0x101,
        ..Span::default()
    }
}
