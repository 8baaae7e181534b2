//! Reading OTLP spans: the views against the generated types.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use slogate_wire::otlp::TracesRequest;

const SPANS: usize = 500;

/// A request of spans of about 460 bytes with 10 attributes.
fn request() -> Vec<u8> {
    let attribute = |at: usize| KeyValue {
        key: format!("http.request.header.{at}"),
        value: Some(AnyValue {
            value: Some(Value::StringValue("a value".into())),
        }),
        ..KeyValue::default()
    };
    let span = |at: usize| Span {
        trace_id: vec![at as u8; 16],
        span_id: vec![at as u8; 8],
        parent_span_id: vec![1; 8],
        name: format!("POST /api/v1/orders/{}", at % 20),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_020_000_000,
        attributes: (10..20).map(attribute).collect(),
        status: Some(Status::default()),
        ..Span::default()
    };
    let scope_spans = ScopeSpans {
        spans: (0..SPANS).map(span).collect(),
        ..ScopeSpans::default()
    };
    let resource_spans = vec![ResourceSpans {
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn walk(request: &[u8], attributes: bool) -> u64 {
    let mut sum = 0;
    for resource in TracesRequest::new(request).resource_spans().flatten() {
        for scope in resource.scope_spans().flatten() {
            for span in scope.spans().flatten() {
                sum += span.end_unix_nano - span.start_unix_nano + span.name.len() as u64;
                if attributes {
                    let keys = span
                        .attributes()
                        .flatten()
                        .map(|pair| pair.key.len() as u64);
                    sum += keys.sum::<u64>();
                }
            }
        }
    }
    sum
}

fn read(c: &mut Criterion) {
    let request = request();
    println!("{} bytes per span", request.len() / SPANS);
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Elements(SPANS as u64));
    group.bench_function("views", |b| b.iter(|| walk(black_box(&request), false)));
    group.bench_function("views with attributes", |b| {
        b.iter(|| walk(black_box(&request), true));
    });
    group.bench_function("generated types", |b| {
        b.iter(|| ExportTraceServiceRequest::decode(black_box(&request[..])).expect("ours"));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .measurement_time(std::time::Duration::from_secs(2))
        .warm_up_time(std::time::Duration::from_secs(1));
    targets = read
}
criterion_main!(benches);
