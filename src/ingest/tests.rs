//! The room's tests: requests in, series out.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValueKind;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use slogate_series::{MatchOp, Matcher, Series, Value};
use slogate_tsdb::{Options, Store};

use super::*;

mod json_and_logs;
mod kills;
mod points;
mod remote_write;
mod requests;

#[path = "../../crates/wire/tests/remote_write/messages.rs"]
pub(crate) mod messages;

/// A time that is a multiple of the flush interval.
pub(crate) const T0: i64 = 1_700_000_000_000;

/// An ingest over a store in memory.
pub(crate) struct Bed {
    pub(crate) store: Arc<Store>,
    pub(crate) ingest: Ingest,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Bed::with(IngestOptions::default())
    }

    pub(crate) fn with(options: IngestOptions) -> Self {
        let (store, _) = Store::open(Options::default(), T0).unwrap();
        Bed::over(Arc::new(store), options, T0)
    }

    pub(crate) fn over(store: Arc<Store>, options: IngestOptions, now_ms: i64) -> Self {
        let ingest = Ingest::new(store.clone(), options, now_ms).unwrap();
        Bed { store, ingest }
    }

    /// Sends spans and expects all to be taken.
    pub(crate) fn send(&self, spans: impl IntoIterator<Item = ResourceSpans>, now_ms: i64) {
        let outcome = self.traces(spans, now_ms);
        assert_eq!((outcome.rejected, outcome.message.as_str()), (0, ""));
    }

    pub(crate) fn traces(
        &self,
        spans: impl IntoIterator<Item = ResourceSpans>,
        now_ms: i64,
    ) -> Outcome {
        self.ingest.traces(&trace_request(spans), now_ms).unwrap()
    }

    /// All series of a metric.
    pub(crate) fn series(&self, metric: &str) -> Vec<Series> {
        self.select(&[("__name__", metric)])
    }

    pub(crate) fn select(&self, equal: &[(&str, &str)]) -> Vec<Series> {
        let matchers: Vec<_> = equal
            .iter()
            .map(|(name, value)| Matcher::new(*name, MatchOp::Equal, *value).unwrap())
            .collect();
        self.store.select(&matchers, i64::MIN, i64::MAX)
    }

    /// The last value of each series of a metric, by its labels without the name.
    pub(crate) fn last(&self, metric: &str) -> Vec<(String, f64)> {
        let last = |series: Series| {
            let value = series.samples.last().map(|sample| number(&sample.value));
            (
                series.labels.without(&["__name__"]).to_string(),
                value.unwrap(),
            )
        };
        self.series(metric).into_iter().map(last).collect()
    }
}

/// A float, or a histogram's count.
pub(crate) fn number(value: &Value) -> f64 {
    match value {
        Value::Float(value) => *value,
        Value::Histogram(histogram) => histogram.count,
    }
}

pub(crate) fn trace_request(spans: impl IntoIterator<Item = ResourceSpans>) -> Vec<u8> {
    let resource_spans = spans.into_iter().collect();
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(AnyValueKind::StringValue(value.into())),
        }),
        ..KeyValue::default()
    }
}

pub(crate) fn resource(attributes: &[(&str, &str)]) -> Option<Resource> {
    Some(Resource {
        attributes: attributes
            .iter()
            .map(|(key, value)| text(key, value))
            .collect(),
        ..Resource::default()
    })
}

/// The usual three attributes of a service.
pub(crate) fn service(name: &str, version: &str) -> Option<Resource> {
    resource(&[
        ("service.name", name),
        ("service.version", version),
        ("deployment.environment.name", "production"),
    ])
}

pub(crate) fn spans_of(resource: Option<Resource>, spans: Vec<Span>) -> ResourceSpans {
    ResourceSpans {
        resource,
        scope_spans: vec![ScopeSpans {
            spans,
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    }
}

/// A server span of `ms` milliseconds.
pub(crate) fn span(name: &str, ms: u64, status: i32) -> Span {
    Span {
        trace_id: vec![7; 16],
        span_id: vec![1; 8],
        name: name.into(),
        kind: 2,
        start_time_unix_nano: T0 as u64 * 1_000_000,
        end_time_unix_nano: (T0 as u64 + ms) * 1_000_000,
        status: Some(Status {
            code: status,
            ..Status::default()
        }),
        ..Span::default()
    }
}
