//! OTLP/JSON, logs, and the protocol's own examples.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};

use super::*;

/// A file of the protocol's repository, where the environment says where that is.
fn example(name: &str) -> Option<Vec<u8>> {
    let Ok(dir) = std::env::var("SLOGATE_CONFORMANCE_DIR") else {
        println!("skipped: SLOGATE_CONFORMANCE_DIR is not set, so there is no {name}");
        return None;
    };
    let path = std::path::Path::new(&dir).join("protos/otlp").join(name);
    Some(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// The time of the protocol's examples.
const EXAMPLES_MS: i64 = 1_544_712_660_000;

#[test]
fn the_protocols_trace_example_is_taken() {
    let Some(text) = example("example-trace.json") else {
        return;
    };
    let bed = Bed::new();
    let outcome = bed.ingest.traces_json(&text, T0).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected), (1, 0));
    let mut oracle: ExportTraceServiceRequest = serde_json::from_slice(&text).unwrap();
    for spans in oracle
        .resource_spans
        .iter_mut()
        .flat_map(|r| &mut r.scope_spans)
    {
        for span in &mut spans.spans {
            (span.events, span.links) = (Vec::new(), Vec::new());
        }
    }
    let ours = json::traces(&text).unwrap();
    assert_eq!(
        ExportTraceServiceRequest::decode(&ours[..]).unwrap(),
        oracle
    );
    bed.ingest.tick(T0 + 5_000).unwrap();
    assert_eq!(bed.last("traces_span_metrics_calls_total").len(), 1);
}

#[test]
fn the_protocols_metrics_example_is_taken() {
    let Some(text) = example("example-metrics.json") else {
        return;
    };
    let bed = Bed::new();
    let outcome = bed.ingest.metrics_json(&text, EXAMPLES_MS).unwrap();
    assert_eq!(outcome.rejected, 0, "{}", outcome.message);
    assert!(outcome.accepted >= 4);
    let oracle: ExportMetricsServiceRequest = serde_json::from_slice(&text).unwrap();
    let ours = json::metrics(&text).unwrap();
    assert_eq!(
        ExportMetricsServiceRequest::decode(&ours[..]).unwrap(),
        oracle
    );
}

#[test]
fn the_protocols_logs_example_is_counted() {
    let Some(text) = example("example-logs.json") else {
        return;
    };
    let bed = Bed::new();
    let outcome = bed.ingest.logs_json(&text, T0).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected), (1, 0));
    bed.ingest.tick(T0 + 5_000).unwrap();
    let want = "{artifact_identity=\"false\", service_name=\"my.service\", severity=\"INFO\"}";
    assert_eq!(
        bed.last("slogate_log_records_total"),
        [(want.to_string(), 1.0)]
    );
}

#[test]
fn log_records_are_counted_by_severity_and_identity() {
    let bed = Bed::new();
    let record = |severity_number, text: &str| LogRecord {
        severity_number,
        severity_text: text.into(),
        ..LogRecord::default()
    };
    let logs_of = |resource, log_records| ResourceLogs {
        resource,
        scope_logs: vec![ScopeLogs {
            log_records,
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![
            logs_of(
                service("shop", "1"),
                vec![
                    record(9, ""),
                    record(17, "x"),
                    record(18, ""),
                    record(0, "warning"),
                ],
            ),
            logs_of(resource(&[("service.name", "shop")]), vec![record(0, "")]),
            logs_of(None, vec![record(9, ""), record(9, "")]),
        ],
    };
    let outcome = bed.ingest.logs(&request.encode_to_vec(), T0).unwrap();
    assert_eq!((outcome.accepted, outcome.rejected), (5, 2));
    assert!(
        outcome
            .message
            .starts_with("2 log records rejected: the resource has no service.name")
    );
    bed.ingest.tick(T0 + 5_000).unwrap();
    let counts: Vec<_> = bed
        .series("slogate_log_records_total")
        .iter()
        .map(|s| {
            let label = |name| s.labels.get(name).unwrap_or("").to_string();
            let count = number(&s.samples.last().unwrap().value);
            (label("severity"), label("artifact_identity"), count)
        })
        .collect();
    let row = |severity: &str, artifact: &str, count| (severity.into(), artifact.into(), count);
    let mut counts = counts;
    counts.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        counts,
        [
            row("ERROR", "true", 2.0),
            row("INFO", "true", 1.0),
            row("UNSPECIFIED", "false", 1.0),
            row("WARN", "true", 1.0),
        ]
    );
    let items = bed.last("slogate_observability_items_total");
    assert_eq!(items.iter().map(|(_, count)| count).sum::<f64>(), 5.0);
}

#[test]
fn unreadable_json_is_counted_as_a_failed_request() {
    let bed = Bed::new();
    assert!(bed.ingest.traces_json(b"{", T0).is_err());
    assert!(bed.ingest.logs_json(br#"{"resourceLogs":7}"#, T0).is_err());
    let failed: Vec<_> = bed
        .ingest
        .stats()
        .signals
        .iter()
        .map(|s| s.failed_requests)
        .collect();
    assert_eq!(failed, [1, 0, 1]);
}

#[test]
fn json_and_protobuf_give_the_same_series() {
    let text = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[
          {{"key":"service.name","value":{{"stringValue":"shop"}}}},
          {{"key":"service.version","value":{{"stringValue":"1"}}}},
          {{"key":"deployment.environment.name","value":{{"stringValue":"production"}}}}]}},
        "scopeSpans":[{{"spans":[{{"traceId":"07070707070707070707070707070707",
          "spanId":"0101010101010101","name":"a","kind":2,"status":{{"code":2}},
          "startTimeUnixNano":"{}","endTimeUnixNano":{}}}]}}]}}]}}"#,
        T0 * 1_000_000,
        (T0 + 30) * 1_000_000
    );
    let (from_json, from_protobuf) = (Bed::new(), Bed::new());
    from_json.ingest.traces_json(text.as_bytes(), T0).unwrap();
    from_protobuf.send([spans_of(service("shop", "1"), vec![span("a", 30, 2)])], T0);
    for bed in [&from_json, &from_protobuf] {
        bed.ingest.tick(T0 + 5_000).unwrap();
    }
    let name = "traces_span_metrics_duration_seconds";
    assert_eq!(from_json.series(name).len(), 1);
    assert_eq!(from_json.series(name), from_protobuf.series(name));
}

#[test]
fn the_manual_lists_every_reason_as_it_is_given() {
    let manual = include_str!("../../../docs/otlp.md");
    for reason in Reason::ALL {
        let row = format!("| `{}` | {} |", reason.name(), reason.advice());
        assert!(manual.contains(&row), "docs/otlp.md lacks: {row}");
    }
}
