//! The protocol's rules, over real sockets, with a receiver that does as it is told.

use std::io::Write as _;
use std::time::Duration;

use opentelemetry::trace::{Span as _, Tracer as _};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use parking_lot::Mutex;
use prost::Message as _;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

use super::*;
use crate::ingest::IngestOptions;
use crate::model::ManualClock;
use crate::server::listener::ListenOptions;
use crate::server::testing::{Answer, Server, http, raw, serve};
use crate::telemetry::otel::{ExportOptions, Exporting, Protocol};

/// Decodes, remembers, and answers as told.
#[derive(Default)]
struct Stub {
    bodies: Mutex<Vec<(Signal, Form, Vec<u8>)>>,
    answer: Mutex<Option<Told>>,
}

#[derive(Clone, Copy)]
enum Told {
    Partial,
    Overloaded,
    Storage,
}

impl Receive for Stub {
    fn receive(
        &self,
        signal: Signal,
        form: Form,
        body: &[u8],
        now_ms: i64,
    ) -> Result<Outcome, IngestError> {
        assert_eq!(now_ms, 1_000, "the clock's time is handed on");
        match *self.answer.lock() {
            Some(Told::Overloaded) => {
                return Err(IngestError::Overloaded {
                    retry_after_ms: 1_500,
                });
            }
            Some(Told::Storage) => return Err(IngestError::Storage("disk is on fire".to_owned())),
            _ => {}
        }
        if form == Form::Protobuf && signal == Signal::Traces {
            ExportTraceServiceRequest::decode(body).map_err(|error| IngestError::Malformed {
                offset: 3,
                what: error.to_string(),
            })?;
        }
        self.bodies.lock().push((signal, form, body.to_vec()));
        match *self.answer.lock() {
            Some(Told::Partial) => Ok(Outcome {
                accepted: 1,
                rejected: 2,
                message: "2 spans without service.name".to_owned(),
            }),
            _ => Ok(Outcome::default()),
        }
    }
}

struct House {
    stub: Arc<Stub>,
    budget: Budget,
    registry: Registry,
    grpc: Server,
    http: Server,
}

async fn house(limits: BodyLimits, budget_bytes: usize) -> House {
    let stub = Arc::new(Stub::default());
    let clock = Arc::new(ManualClock::at(1_000));
    let budget = Budget::new(budget_bytes);
    let registry = Registry::new();
    let otlp = Otlp::new(stub.clone(), clock, limits, budget.clone(), &registry);
    House {
        grpc: serve(grpc::router(otlp.clone()), ListenOptions::default()).await,
        http: serve(super::http::router(otlp), ListenOptions::default()).await,
        stub,
        budget,
        registry,
    }
}

async fn usual() -> House {
    house(BodyLimits::default(), 256 << 20).await
}

/// A MiB before and after decompression.
fn small() -> BodyLimits {
    BodyLimits {
        wire_bytes_max: 1 << 20,
        body_bytes_max: 1 << 20,
        deadline: Duration::from_secs(20),
    }
}

impl House {
    async fn traces(&self) -> TraceServiceClient<Channel> {
        let channel = Channel::from_shared(self.grpc.url("")).unwrap();
        TraceServiceClient::new(channel.connect().await.unwrap())
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        http(&self.http, "POST", path, headers, body).await
    }

    async fn post_protobuf(&self, body: &[u8]) -> Answer {
        self.post("/v1/traces", &[PROTOBUF], body).await
    }

    /// What was received, once the budget is given back in full.
    fn take(&self) -> Vec<(Signal, Form, Vec<u8>)> {
        assert_eq!(self.budget.held(), 0, "bytes of bodies are given back");
        std::mem::take(&mut *self.stub.bodies.lock())
    }

    fn tell(&self, told: Told) {
        *self.stub.answer.lock() = Some(told);
    }

    fn outcomes(&self) -> Vec<String> {
        let family = self.registry.family(catalog::OTLP_REQUESTS.name).unwrap();
        let points = family.points.iter();
        points.map(|point| point.labels.join(" ")).collect()
    }
}

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");

fn spans(count: usize) -> ExportTraceServiceRequest {
    let span = |i: usize| Span {
        name: format!("GET /things/{i}"),
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        ..Span::default()
    };
    let scope = ScopeSpans {
        spans: (0..count).map(span).collect(),
        ..ScopeSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![scope],
            ..ResourceSpans::default()
        }],
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn rpc_status(bytes: &[u8]) -> RpcStatus {
    RpcStatus::decode(bytes).unwrap()
}

fn retry_ms(status: &RpcStatus) -> i64 {
    let [detail] = &status.details[..] else {
        panic!("one detail: {status:?}");
    };
    assert_eq!(detail.type_url, "type.googleapis.com/google.rpc.RetryInfo");
    let delay = RetryInfo::decode(&detail.value[..]).unwrap();
    let delay = delay.retry_delay.unwrap();
    delay.seconds * 1_000 + i64::from(delay.nanos) / 1_000_000
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_takes_every_signal_in_every_compression() {
    let house = usual().await;
    let request = spans(20_000);
    for compression in [
        None,
        Some(CompressionEncoding::Gzip),
        Some(CompressionEncoding::Zstd),
    ] {
        let mut client = house.traces().await;
        if let Some(compression) = compression {
            client = client.send_compressed(compression);
        }
        let answer = client.export(request.clone()).await.unwrap();
        assert_eq!(answer.into_inner().partial_success, None);
        let [(signal, form, body)] = house.take().try_into().unwrap();
        assert_eq!((signal, form), (Signal::Traces, Form::Protobuf));
        assert_eq!(
            body,
            request.encode_to_vec(),
            "the very bytes, {compression:?}"
        );
    }
    let channel = Channel::from_shared(house.grpc.url("")).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut metrics = MetricsServiceClient::new(channel.clone());
    metrics
        .export(ExportMetricsServiceRequest::default())
        .await
        .unwrap();
    let mut logs = LogsServiceClient::new(channel);
    logs.export(ExportLogsServiceRequest::default())
        .await
        .unwrap();
    let signals: Vec<_> = house
        .take()
        .into_iter()
        .map(|(signal, ..)| signal)
        .collect();
    assert_eq!(
        signals,
        [Signal::Metrics, Signal::Logs],
        "empty requests succeed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_partial_success_is_ok_with_counts() {
    let house = usual().await;
    house.tell(Told::Partial);
    let answer = house
        .traces()
        .await
        .export(spans(3))
        .await
        .unwrap()
        .into_inner();
    let partial = answer.partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 2);
    assert_eq!(partial.error_message, "2 spans without service.name");
    assert_eq!(house.outcomes(), ["traces grpc partial"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_over_the_limit_is_exhausted_without_retry_info() {
    let house = house(small(), 256 << 20).await;
    let big = spans(60_000);
    for compression in [
        None,
        Some(CompressionEncoding::Gzip),
        Some(CompressionEncoding::Zstd),
    ] {
        let mut client = house.traces().await;
        if let Some(compression) = compression {
            client = client.send_compressed(compression);
        }
        let status = client.export(big.clone()).await.unwrap_err();
        assert_eq!(
            status.code(),
            Code::ResourceExhausted,
            "{compression:?}: {status}"
        );
        assert!(
            status.details().is_empty(),
            "RetryInfo would mean: try again"
        );
    }
    assert_eq!(house.take().len(), 0);
    assert_eq!(house.outcomes(), ["traces grpc too_large"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_overload_and_storage_failure_carry_retry_info() {
    let house = usual().await;
    for (told, ms, message) in [
        (Told::Overloaded, 1_500, "busy"),
        (Told::Storage, 5_000, "can't be stored"),
    ] {
        house.tell(told);
        let status = house.traces().await.export(spans(1)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains(message), "{status}");
        assert!(
            !status.message().contains("fire"),
            "what the log says stays there"
        );
        let details = rpc_status(status.details());
        assert_eq!((retry_ms(&details), details.code), (ms, 14));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_the_budget_are_asked_to_come_back() {
    let house = house(BodyLimits::default(), 64 * 1024).await;
    let big = spans(20_000);
    let status = house.traces().await.export(big.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(retry_ms(&rpc_status(status.details())), 1_000);
    let answer = house.post_protobuf(&big.encode_to_vec()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "1"));
    let packed = gzip(&big.encode_to_vec());
    let headers = [PROTOBUF, ("content-encoding", "gzip")];
    let answer = house.post("/v1/traces", &headers, &packed).await;
    assert_eq!(answer.status, 429, "decompressed bytes count too");
    assert_eq!(house.take().len(), 0);
    house.traces().await.export(spans(1)).await.unwrap();
}

/// One gRPC call with chosen headers and body; status, code and message.
async fn call(house: &House, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, String, String) {
    let client = crate::server::testing::http2_client();
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let mut request = client.post(house.grpc.url(path)).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    let header = |name: &str| {
        let value = answer.headers().get(name);
        value.map_or_else(String::new, |v| v.to_str().unwrap().to_owned())
    };
    let (code, message) = (header("grpc-status"), header("grpc-message"));
    (answer.status().as_u16(), code, message)
}

/// What is wrong with a call, its headers and its body.
type Case<'a> = (&'static str, &'a [(&'static str, &'static str)], Vec<u8>);

fn framed(flag: u8, declared: usize, message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flag];
    bytes.extend_from_slice(&u32::try_from(declared).unwrap().to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_grpc_calls_are_invalid_and_never_a_panic() {
    let house = usual().await;
    let grpc = [("content-type", "application/grpc")];
    let gzip_said = [grpc[0], ("grpc-encoding", "gzip")];
    let cases: [Case<'_>; 8] = [
        ("no message", &grpc, vec![]),
        ("half a prefix", &grpc, vec![0, 0]),
        ("shorter than said", &grpc, framed(0, 100, b"abc")),
        (
            "promises 4 GiB",
            &grpc,
            framed(0, u32::MAX as usize, b"abc"),
        ),
        ("longer than said", &grpc, framed(0, 0, b"abc")),
        ("flag 7", &grpc, framed(7, 0, b"")),
        ("compressed by no name", &grpc, framed(1, 3, b"abc")),
        ("not gzip", &gzip_said, framed(1, 3, b"abc")),
    ];
    for (name, headers, body) in cases {
        let (status, code, message) = call(&house, headers, body).await;
        assert_eq!((status, code.as_str()), (200, "3"), "{name}: {message}");
        assert!(!message.is_empty(), "{name}");
    }
    let (_, code, message) = call(&house, &grpc, framed(0, 4, b"\xff\xff\xff\xff")).await;
    assert_eq!(code, "3");
    assert!(message.contains("byte"), "{message}");
    assert_eq!(house.take().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_answers_what_it_does_not_speak() {
    let house = usual().await;
    let brotli = [
        ("content-type", "application/grpc"),
        ("grpc-encoding", "br"),
    ];
    let (status, code, message) = call(&house, &brotli, framed(0, 0, b"")).await;
    assert_eq!((status, code.as_str()), (200, "12"), "{message}");
    let (status, ..) = call(&house, &[JSON], b"{}".to_vec()).await;
    assert_eq!(status, 415);
    let answer = http(&house.grpc, "POST", "/v1/traces", &[PROTOBUF], b"").await;
    assert_eq!(answer.status, 505);
    assert!(answer.text().contains("4318"), "{}", answer.text());
    let (proto, plain) = (
        [("content-type", "application/grpc+proto")],
        [("content-type", "application/grpc; charset=utf-8")],
    );
    for headers in [proto, plain] {
        let (status, code, _) = call(&house, &headers, framed(0, 0, b"")).await;
        assert_eq!(
            (status, code.as_str()),
            (200, ""),
            "status is in the trailers"
        );
    }
    let client = crate::server::testing::http2_client();
    let unknown = client.post(house.grpc.url("/grpc.health.v1.Nothing/Check"));
    let unknown = unknown.header("content-type", "application/grpc");
    let answer = unknown.send().await.unwrap();
    assert_eq!(answer.headers().get("grpc-status").unwrap(), "12");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_answers_in_the_form_of_the_question() {
    let house = usual().await;
    let request = spans(3).encode_to_vec();
    let answer = house.post_protobuf(&request).await;
    assert_eq!(
        (answer.status, answer.body.len()),
        (200, 0),
        "an empty message"
    );
    assert_eq!(answer.header("content-type"), "application/x-protobuf");
    let charset = ("content-type", "application/json; charset=utf-8");
    let answer = house.post("/v1/metrics", &[charset], b"{}").await;
    assert_eq!((answer.status, answer.text()), (200, "{}".to_owned()));
    assert_eq!(answer.header("content-type"), "application/json");
    let answer = house.post("/v1/logs", &[PROTOBUF], b"").await;
    assert_eq!(answer.status, 200, "an empty request succeeds");
    let forms: Vec<_> = house.take().into_iter().map(|(s, f, _)| (s, f)).collect();
    assert_eq!(
        forms,
        [
            (Signal::Traces, Form::Protobuf),
            (Signal::Metrics, Form::Json),
            (Signal::Logs, Form::Protobuf)
        ]
    );
    house.tell(Told::Partial);
    let answer = house.post_protobuf(&request).await;
    let decoded = ExportTraceServiceResponse::decode(&answer.body[..]).unwrap();
    assert_eq!(decoded.partial_success.unwrap().rejected_spans, 2);
    let answer = house.post("/v1/logs", &[PROTOBUF], b"").await;
    let decoded = ExportLogsServiceResponse::decode(&answer.body[..]).unwrap();
    assert_eq!(decoded.partial_success.unwrap().rejected_log_records, 2);
    let answer = house.post("/v1/metrics", &[JSON], b"{}").await;
    let partial = &answer.json()["partialSuccess"];
    assert_eq!(
        partial["rejectedDataPoints"], "2",
        "64-bit integers are strings"
    );
    assert_eq!(partial["errorMessage"], "2 spans without service.name");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_takes_every_compression() {
    let house = usual().await;
    let request = spans(20_000).encode_to_vec();
    let zstd = zstd::encode_all(&request[..], 3).unwrap();
    for (encoding, body) in [
        ("identity", request.clone()),
        ("gzip", gzip(&request)),
        ("zstd", zstd),
    ] {
        let headers = [PROTOBUF, ("content-encoding", encoding)];
        let answer = house.post("/v1/traces", &headers, &body).await;
        assert_eq!(answer.status, 200, "{encoding}");
        assert_eq!(house.take()[0].2, request, "{encoding}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_refusals_say_why_in_the_right_words() {
    let house = usual().await;
    let text = [("content-type", "text/plain")];
    let brotli = [JSON, ("content-encoding", "br")];
    let not_gzip = [JSON, ("content-encoding", "gzip")];
    let (none, json) = (&[][..], &[JSON][..]);
    let cases = [
        ("POST", "/v1/traces", &text[..], 415, 12),
        ("POST", "/v1/traces", none, 415, 12),
        ("POST", "/v1/traces", &brotli[..], 415, 12),
        ("POST", "/v1/traces", &not_gzip[..], 400, 3),
        ("GET", "/v1/traces", none, 405, 12),
        ("PUT", "/v1/logs", json, 405, 12),
        ("POST", "/v1/profiles", json, 404, 12),
    ];
    for (method, path, headers, status, code) in cases {
        let answer = http(&house.http, method, path, headers, b"{}").await;
        assert_eq!(answer.status, status, "{method} {path} {headers:?}");
        let body = answer.json();
        assert_eq!(body["code"], code, "{body}");
        assert!(!body["message"].as_str().unwrap().is_empty());
        let allow = if status == 405 { "POST" } else { "" };
        assert_eq!(answer.header("allow"), allow);
    }
    let answer = house.post("/v1/traces", &brotli, b"{}").await;
    assert_eq!(answer.header("accept-encoding"), "gzip, zstd, identity");
    let answer = house.post_protobuf(b"\xff\xff\xff\xff").await;
    assert_eq!(answer.status, 400);
    let status = rpc_status(&answer.body);
    assert!(status.message.contains("byte 3"), "{status:?}");
    assert_eq!(
        status.details[0].type_url,
        "type.googleapis.com/google.rpc.BadRequest"
    );
    assert_eq!(house.take().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_retryable_refusals_say_when() {
    let house = usual().await;
    for (told, status, seconds) in [(Told::Overloaded, 429, "2"), (Told::Storage, 503, "5")] {
        house.tell(told);
        let answer = house.post("/v1/logs", &[JSON], b"{}").await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (status, seconds)
        );
        let info = &answer.json()["details"][0];
        assert_eq!(info["@type"], "type.googleapis.com/google.rpc.RetryInfo");
        assert!(!answer.text().contains("fire"), "{}", answer.text());
        let answer = house.post_protobuf(b"").await;
        assert!(retry_ms(&rpc_status(&answer.body)) > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn oversize_and_bombs_are_413() {
    let house = house(small(), 256 << 20).await;
    let zeros = vec![0_u8; 8 << 20];
    let bombs = [
        ("gzip", gzip(&zeros)),
        ("zstd", zstd::encode_all(&zeros[..], 1).unwrap()),
    ];
    for (encoding, bomb) in bombs {
        assert!(bomb.len() < 1 << 18, "small on the wire");
        let headers = [PROTOBUF, ("content-encoding", encoding)];
        let answer = house.post("/v1/traces", &headers, &bomb).await;
        assert_eq!(answer.status, 413, "{encoding}");
        let status = rpc_status(&answer.body);
        assert_eq!(status.code, 8, "RESOURCE_EXHAUSTED");
        assert!(status.message.contains("after decompression"), "{status:?}");
    }
    // A declared length is refused before a byte of the body is read.
    let head = "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                content-length: 99999999999\r\n\r\n";
    assert_eq!(raw(&house.http, head.as_bytes()).await.status, 413);
    // An undeclared one when it is over.
    let mut chunked = b"POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                        transfer-encoding: chunked\r\n\r\n"
        .to_vec();
    for _ in 0..3 {
        chunked.extend_from_slice(b"80000\r\n");
        chunked.extend_from_slice(&vec![b' '; 0x80000]);
        chunked.extend_from_slice(b"\r\n");
    }
    assert_eq!(raw(&house.http, &chunked).await.status, 413);
    assert_eq!(house.take().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_is_408_and_the_connection_closes() {
    let limits = BodyLimits {
        deadline: Duration::from_millis(200),
        ..small()
    };
    let house = house(limits, 256 << 20).await;
    let half = "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                content-length: 10\r\n\r\n{}";
    let answer = raw(&house.http, half.as_bytes()).await;
    assert_eq!((answer.status, answer.header("connection")), (408, "close"));
    assert_eq!(house.outcomes(), ["traces http timeout"]);
    assert_eq!(house.take().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protocols_own_examples_arrive_as_they_are() {
    let Ok(dir) = std::env::var("SLOGATE_CONFORMANCE_DIR") else {
        println!("skipped: SLOGATE_CONFORMANCE_DIR is not set");
        return;
    };
    let house = usual().await;
    for (file, path) in [
        ("example-trace.json", "/v1/traces"),
        ("example-metrics.json", "/v1/metrics"),
        ("example-logs.json", "/v1/logs"),
    ] {
        let file = std::path::Path::new(&dir).join("protos/otlp").join(file);
        let text = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let answer = house.post(path, &[JSON], &text).await;
        assert_eq!((answer.status, answer.text()), (200, "{}".to_owned()));
        assert_eq!(house.take()[0].2, text);
    }
}

fn contains(body: &[u8], text: &str) -> bool {
    body.windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_telemetry_leaves_by_every_protocol() {
    let house = usual().await;
    for (protocol, form, endpoint) in [
        (Protocol::Grpc, Form::Protobuf, house.grpc.url("")),
        (Protocol::HttpProtobuf, Form::Protobuf, house.http.url("")),
        (Protocol::HttpJson, Form::Json, house.http.url("/")),
    ] {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = ExportOptions {
            endpoint,
            protocol,
            interval_ms: 1_000,
            instance: "one".to_owned(),
            environment: Some("test".to_owned()),
        };
        let registry = Registry::new();
        registry
            .counter(&catalog::CONNECTIONS_TOTAL, &["api"])
            .add(7);
        let handle = tokio::runtime::Handle::current();
        let exporting = Exporting::start(&options, &registry, &handle).unwrap();
        exporting.tracer().start("round").end();
        tokio::task::spawn_blocking(move || exporting.shutdown())
            .await
            .unwrap();
        let bodies = house.take();
        let has = |signal, text: &str| {
            let mut of_signal = bodies.iter().filter(|(s, f, _)| (*s, *f) == (signal, form));
            of_signal.any(|(.., body)| contains(body, text))
        };
        assert!(has(Signal::Metrics, "slogate_connections"), "{protocol:?}");
        assert!(has(Signal::Traces, "round"), "{protocol:?}");
        assert!(
            has(Signal::Traces, "deployment.environment.name"),
            "{protocol:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_over_the_wire_become_series() {
    let (store, _) = slogate_tsdb::Store::open(slogate_tsdb::Options::default(), 0).unwrap();
    let store = Arc::new(store);
    let ingest = Ingest::new(store.clone(), IngestOptions::default(), 0).unwrap();
    let ingest = Arc::new(ingest);
    let clock = Arc::new(ManualClock::at(1_000_000));
    let limits = BodyLimits::default();
    let budget = Budget::new(1 << 30);
    let otlp = Otlp::new(ingest.clone(), clock, limits, budget, &Registry::new());
    let grpc = serve(grpc::router(otlp.clone()), ListenOptions::default()).await;
    let http_server = serve(super::http::router(otlp), ListenOptions::default()).await;
    let channel = Channel::from_shared(grpc.url("")).unwrap();
    let mut client = TraceServiceClient::new(channel.connect().await.unwrap());
    let nameless = client.export(spans(2)).await.unwrap().into_inner();
    let partial = nameless.partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 2);
    assert!(
        partial.error_message.contains("service.name"),
        "{partial:?}"
    );
    let json = br#"{"resourceSpans":[{"resource":{"attributes":[
        {"key":"service.name","value":{"stringValue":"checkout"}},
        {"key":"service.version","value":{"stringValue":"2.0"}}]},
        "scopeSpans":[{"spans":[{"traceId":"01010101010101010101010101010101",
        "spanId":"0202020202020202","name":"GET /","kind":2,
        "startTimeUnixNano":"999000000000","endTimeUnixNano":"999500000000"}]}]}]}"#;
    let answer = http(&http_server, "POST", "/v1/traces", &[JSON], json).await;
    assert_eq!((answer.status, answer.text()), (200, "{}".to_owned()));
    let answer = http(
        &http_server,
        "POST",
        "/v1/traces",
        &[JSON],
        b"{\"resourceSpans\":7}",
    )
    .await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    ingest.flush(1_005_000).unwrap();
    let name = slogate_series::Matcher::equal("__name__", "traces_span_metrics_calls_total");
    let series = store.select(&[name], 0, i64::MAX);
    assert!(!series.is_empty(), "the span became a series");
    let labels = &series[0].labels;
    assert_eq!(labels.get("service_version"), Some("2.0"));
}

#[test]
fn the_response_has_the_wire_shape_of_all_three_signals() {
    let received = Outcome {
        accepted: 0,
        rejected: 7,
        message: "why".to_owned(),
    };
    let bytes = ExportResponse::of(&received).encode_to_vec();
    let traces = ExportTraceServiceResponse::decode(&bytes[..]).unwrap();
    let logs = ExportLogsServiceResponse::decode(&bytes[..]).unwrap();
    assert_eq!(traces.partial_success.unwrap().rejected_spans, 7);
    assert_eq!(logs.partial_success.unwrap().error_message, "why");
    assert_eq!(ExportResponse::of(&Outcome::default()).encoded_len(), 0);
    let warning = Outcome {
        accepted: 1,
        rejected: 0,
        message: "deprecated".to_owned(),
    };
    assert!(ExportResponse::of(&warning).partial_success.is_some());
}
