//! The views against the generated types: what prost wrote, the views must read back whole;
//! and whatever the bytes, the views must neither panic nor point outside them.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::logs::v1 as logs;
use opentelemetry_proto::tonic::metrics::v1 as metrics;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as trace;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use slogate_wire::WireError;
use slogate_wire::otlp::{self, AnyValue, Data, KeyValue, Number, Temporality};

// What is generated: only fields that the views read, and no NaN, which equals nothing.

fn float() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("NaN equals nothing", |value| !value.is_nan())
}

fn any_value() -> impl Strategy<Value = common::AnyValue> {
    use common::any_value::Value;
    let leaf = prop_oneof![
        ".{0,8}".prop_map(Value::StringValue),
        any::<bool>().prop_map(Value::BoolValue),
        any::<i64>().prop_map(Value::IntValue),
        float().prop_map(Value::DoubleValue),
        vec(any::<u8>(), 0..8).prop_map(Value::BytesValue),
    ];
    let wrap = |value| common::AnyValue { value: Some(value) };
    let value = leaf.prop_recursive(3, 12, 3, move |inner| {
        let values = vec(inner.prop_map(wrap), 0..3);
        let pairs = vec((".{0,4}", values.clone()), 0..3).prop_map(move |pairs| {
            let pair = |(key, values): (String, Vec<common::AnyValue>)| common::KeyValue {
                key,
                value: values.into_iter().next(),
                ..Default::default()
            };
            let values = pairs.into_iter().map(pair).collect();
            Value::KvlistValue(common::KeyValueList { values })
        });
        prop_oneof![
            values.prop_map(|values| Value::ArrayValue(common::ArrayValue { values })),
            pairs
        ]
    });
    option::of(value).prop_map(|value| common::AnyValue { value })
}

fn attributes() -> impl Strategy<Value = Vec<common::KeyValue>> {
    let pair = ("[a-z.]{0,6}", option::of(any_value())).prop_map(|(key, value)| common::KeyValue {
        key,
        value,
        ..Default::default()
    });
    vec(pair, 0..4)
}

fn resource() -> impl Strategy<Value = Option<Resource>> {
    let resource = attributes().prop_map(|attributes| Resource {
        attributes,
        ..Default::default()
    });
    option::of(resource)
}

fn span() -> impl Strategy<Value = trace::Span> {
    let ids = (
        vec(any::<u8>(), 0..17),
        vec(any::<u8>(), 0..9),
        vec(any::<u8>(), 0..9),
    );
    let rest = (".{0,8}", 0..9i32, any::<u64>(), any::<u64>(), attributes());
    let status = option::of((0..4i32, ".{0,4}"));
    (ids, ".{0,8}", any::<u32>(), rest, status).prop_map(
        |(ids, trace_state, flags, rest, status)| trace::Span {
            trace_id: ids.0,
            span_id: ids.1,
            parent_span_id: ids.2,
            trace_state,
            flags,
            name: rest.0,
            kind: rest.1,
            start_time_unix_nano: rest.2,
            end_time_unix_nano: rest.3,
            attributes: rest.4,
            status: status.map(|(code, message)| trace::Status { code, message }),
            ..Default::default()
        },
    )
}

fn traces() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scopes = vec(vec(span(), 0..3), 0..3);
    let resource_spans = (resource(), scopes).prop_map(|(resource, scopes)| {
        let scope = |spans| trace::ScopeSpans {
            spans,
            ..Default::default()
        };
        trace::ResourceSpans {
            resource,
            scope_spans: scopes.into_iter().map(scope).collect(),
            ..Default::default()
        }
    });
    vec(resource_spans, 0..3)
        .prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

fn log_requests() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let record = (any::<u64>(), any::<u64>(), 0..30i32, ".{0,5}", attributes()).prop_map(
        |(time, observed, severity_number, severity_text, attributes)| logs::LogRecord {
            time_unix_nano: time,
            observed_time_unix_nano: observed,
            severity_number,
            severity_text,
            attributes,
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            ..Default::default()
        },
    );
    let resource_logs =
        (resource(), vec(record, 0..4)).prop_map(|(resource, log_records)| logs::ResourceLogs {
            resource,
            scope_logs: vec![logs::ScopeLogs {
                log_records,
                ..Default::default()
            }],
            ..Default::default()
        });
    vec(resource_logs, 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

fn exemplar() -> impl Strategy<Value = metrics::Exemplar> {
    use metrics::exemplar::Value;
    let value = prop_oneof![
        float().prop_map(Value::AsDouble),
        any::<i64>().prop_map(Value::AsInt)
    ];
    (attributes(), any::<u64>(), option::of(value)).prop_map(
        |(filtered_attributes, time, value)| metrics::Exemplar {
            filtered_attributes,
            time_unix_nano: time,
            value,
            span_id: vec![1; 8],
            trace_id: vec![2; 16],
        },
    )
}

fn number_point() -> impl Strategy<Value = metrics::NumberDataPoint> {
    use metrics::number_data_point::Value;
    let value = prop_oneof![
        float().prop_map(Value::AsDouble),
        any::<i64>().prop_map(Value::AsInt)
    ];
    let times = (any::<u64>(), any::<u64>(), any::<u32>());
    (
        attributes(),
        times,
        option::of(value),
        vec(exemplar(), 0..2),
    )
        .prop_map(|(attributes, (start, time, flags), value, exemplars)| {
            metrics::NumberDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: time,
                exemplars,
                flags,
                value,
            }
        })
}

fn histogram_point() -> impl Strategy<Value = metrics::HistogramDataPoint> {
    let times = (any::<u64>(), any::<u64>(), any::<u32>());
    let buckets = (vec(any::<u64>(), 0..5), vec(float(), 0..5));
    (
        attributes(),
        times,
        any::<u64>(),
        option::of(float()),
        buckets,
        vec(exemplar(), 0..2),
    )
        .prop_map(
            |(attributes, (start, time, flags), count, sum, buckets, exemplars)| {
                metrics::HistogramDataPoint {
                    attributes,
                    start_time_unix_nano: start,
                    time_unix_nano: time,
                    count,
                    sum,
                    bucket_counts: buckets.0,
                    explicit_bounds: buckets.1,
                    exemplars,
                    flags,
                    ..Default::default()
                }
            },
        )
}

fn exponential_point() -> impl Strategy<Value = metrics::ExponentialHistogramDataPoint> {
    use metrics::exponential_histogram_data_point::Buckets;
    let buckets = || {
        option::of(
            (any::<i32>(), vec(any::<u64>(), 0..5)).prop_map(|(offset, bucket_counts)| Buckets {
                offset,
                bucket_counts,
            }),
        )
    };
    let times = (any::<u64>(), any::<u64>(), any::<u32>());
    let zero = (any::<u64>(), float());
    let counts = (any::<u64>(), option::of(float()), any::<i32>());
    (
        attributes(),
        times,
        counts,
        zero,
        buckets(),
        buckets(),
        vec(exemplar(), 0..2),
    )
        .prop_map(
            |(attributes, times, (count, sum, scale), zero, positive, negative, exemplars)| {
                metrics::ExponentialHistogramDataPoint {
                    attributes,
                    start_time_unix_nano: times.0,
                    time_unix_nano: times.1,
                    flags: times.2,
                    count,
                    sum,
                    scale,
                    zero_count: zero.0,
                    zero_threshold: zero.1,
                    positive,
                    negative,
                    exemplars,
                    ..Default::default()
                }
            },
        )
}

fn summary_point() -> impl Strategy<Value = metrics::SummaryDataPoint> {
    use metrics::summary_data_point::ValueAtQuantile;
    let times = (any::<u64>(), any::<u64>(), any::<u32>());
    let quantile =
        (float(), float()).prop_map(|(quantile, value)| ValueAtQuantile { quantile, value });
    (
        attributes(),
        times,
        any::<u64>(),
        float(),
        vec(quantile, 0..4),
    )
        .prop_map(
            |(attributes, (start, time, flags), count, sum, quantile_values)| {
                metrics::SummaryDataPoint {
                    attributes,
                    start_time_unix_nano: start,
                    time_unix_nano: time,
                    count,
                    sum,
                    quantile_values,
                    flags,
                }
            },
        )
}

fn metric() -> impl Strategy<Value = metrics::Metric> {
    use metrics::metric::Data;
    let data = prop_oneof![
        vec(number_point(), 0..3)
            .prop_map(|data_points| Data::Gauge(metrics::Gauge { data_points })),
        (vec(number_point(), 0..3), 0..3i32, any::<bool>()).prop_map(
            |(data_points, aggregation_temporality, is_monotonic)| Data::Sum(metrics::Sum {
                data_points,
                aggregation_temporality,
                is_monotonic,
            })
        ),
        (vec(histogram_point(), 0..3), 0..3i32).prop_map(
            |(data_points, aggregation_temporality)| {
                Data::Histogram(metrics::Histogram {
                    data_points,
                    aggregation_temporality,
                })
            }
        ),
        (vec(exponential_point(), 0..3), 0..3i32).prop_map(
            |(data_points, aggregation_temporality)| {
                Data::ExponentialHistogram(metrics::ExponentialHistogram {
                    data_points,
                    aggregation_temporality,
                })
            }
        ),
        vec(summary_point(), 0..3)
            .prop_map(|data_points| Data::Summary(metrics::Summary { data_points })),
    ];
    (".{0,6}", ".{0,6}", ".{0,4}", option::of(data)).prop_map(|(name, description, unit, data)| {
        metrics::Metric {
            name,
            description,
            unit,
            data,
            ..Default::default()
        }
    })
}

fn metric_requests() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let scope = (
        option::of((".{0,4}", ".{0,4}", attributes())),
        vec(metric(), 0..3),
    )
        .prop_map(|(scope, metrics)| metrics::ScopeMetrics {
            scope: scope.map(|(name, version, attributes)| common::InstrumentationScope {
                name,
                version,
                attributes,
                ..Default::default()
            }),
            metrics,
            ..Default::default()
        });
    let resource_metrics = (resource(), vec(scope, 0..2)).prop_map(|(resource, scope_metrics)| {
        metrics::ResourceMetrics {
            resource,
            scope_metrics,
            ..Default::default()
        }
    });
    vec(resource_metrics, 0..2)
        .prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}

// Reading the views back into generated types.

type Read<T> = Result<T, WireError>;

fn read_value(value: &AnyValue<'_>) -> Read<common::AnyValue> {
    use common::any_value::Value;
    let value = match value {
        AnyValue::Empty => None,
        AnyValue::String(text) => Some(Value::StringValue((*text).into())),
        AnyValue::Bool(value) => Some(Value::BoolValue(*value)),
        AnyValue::Int(value) => Some(Value::IntValue(*value)),
        AnyValue::Double(value) => Some(Value::DoubleValue(*value)),
        AnyValue::Bytes(bytes) => Some(Value::BytesValue(bytes.to_vec())),
        AnyValue::Array(nested) => {
            let values = nested.values().map(|value| read_value(&value?));
            let values = values.collect::<Read<_>>()?;
            Some(Value::ArrayValue(common::ArrayValue { values }))
        }
        AnyValue::Map(nested) => {
            let values = nested.pairs().map(|pair| read_pair(&pair?));
            let values = values.collect::<Read<_>>()?;
            Some(Value::KvlistValue(common::KeyValueList { values }))
        }
    };
    Ok(common::AnyValue { value })
}

fn read_pair(pair: &KeyValue<'_>) -> Read<common::KeyValue> {
    Ok(common::KeyValue {
        key: pair.key.into(),
        value: Some(read_value(&pair.value)?),
        ..Default::default()
    })
}

fn read_attributes(attributes: otlp::Attributes<'_>) -> Read<Vec<common::KeyValue>> {
    attributes.map(|pair| read_pair(&pair?)).collect()
}

/// An absent value and an empty one are the same to the views.
fn plain(mut attributes: Vec<common::KeyValue>) -> Vec<common::KeyValue> {
    fn fill(value: &mut Option<common::AnyValue>) {
        use common::any_value::Value;
        match &mut value.get_or_insert_default().value {
            Some(Value::ArrayValue(array)) => {
                for element in &mut array.values {
                    let mut slot = Some(std::mem::take(element));
                    fill(&mut slot);
                    *element = slot.unwrap_or_default();
                }
            }
            Some(Value::KvlistValue(map)) => map.values.iter_mut().for_each(|p| fill(&mut p.value)),
            _ => {}
        }
    }
    attributes.iter_mut().for_each(|pair| fill(&mut pair.value));
    attributes
}

fn plain_resource(resource: Option<Resource>) -> Option<Resource> {
    let attributes = plain(resource.unwrap_or_default().attributes);
    Some(Resource {
        attributes,
        ..Default::default()
    })
}

fn read_resource(resource: &otlp::Resource<'_>) -> Read<Option<Resource>> {
    Ok(Some(Resource {
        attributes: read_attributes(resource.attributes())?,
        ..Default::default()
    }))
}

fn read_traces(bytes: &[u8]) -> Read<ExportTraceServiceRequest> {
    let mut request = ExportTraceServiceRequest::default();
    for resource_spans in otlp::TracesRequest::new(bytes).resource_spans() {
        let resource_spans = resource_spans?;
        let mut scopes = Vec::new();
        for scope_spans in resource_spans.scope_spans() {
            let scope_spans = scope_spans?;
            scope_spans.scope()?;
            let spans = scope_spans.spans().map(|span| {
                let span = span?;
                Ok(trace::Span {
                    trace_id: span.trace_id.into(),
                    span_id: span.span_id.into(),
                    parent_span_id: span.parent_span_id.into(),
                    trace_state: String::from_utf8_lossy(span.trace_state).into(),
                    flags: span.flags,
                    name: span.name.into(),
                    kind: span.kind,
                    start_time_unix_nano: span.start_unix_nano,
                    end_time_unix_nano: span.end_unix_nano,
                    attributes: read_attributes(span.attributes())?,
                    status: Some(trace::Status {
                        code: span.status_code,
                        ..Default::default()
                    }),
                    ..Default::default()
                })
            });
            scopes.push(trace::ScopeSpans {
                spans: spans.collect::<Read<_>>()?,
                ..Default::default()
            });
        }
        request.resource_spans.push(trace::ResourceSpans {
            resource: read_resource(&resource_spans.resource)?,
            scope_spans: scopes,
            ..Default::default()
        });
    }
    Ok(request)
}

fn plain_traces(mut request: ExportTraceServiceRequest) -> ExportTraceServiceRequest {
    for resource_spans in &mut request.resource_spans {
        resource_spans.resource = plain_resource(resource_spans.resource.take());
        for span in resource_spans
            .scope_spans
            .iter_mut()
            .flat_map(|s| &mut s.spans)
        {
            span.attributes = plain(std::mem::take(&mut span.attributes));
            span.status.get_or_insert_default().message.clear();
        }
    }
    request
}

fn read_logs(bytes: &[u8]) -> Read<ExportLogsServiceRequest> {
    let mut request = ExportLogsServiceRequest::default();
    for resource_logs in otlp::LogsRequest::new(bytes).resource_logs() {
        let resource_logs = resource_logs?;
        let mut scopes = Vec::new();
        for scope_logs in resource_logs.scope_logs() {
            let records = scope_logs?.log_records().map(|record| {
                let record = record?;
                Ok(logs::LogRecord {
                    time_unix_nano: record.time_unix_nano,
                    observed_time_unix_nano: record.observed_time_unix_nano,
                    severity_number: record.severity_number,
                    severity_text: record.severity_text.into(),
                    attributes: read_attributes(record.attributes())?,
                    trace_id: record.trace_id.into(),
                    span_id: record.span_id.into(),
                    ..Default::default()
                })
            });
            scopes.push(logs::ScopeLogs {
                log_records: records.collect::<Read<_>>()?,
                ..Default::default()
            });
        }
        request.resource_logs.push(logs::ResourceLogs {
            resource: read_resource(&resource_logs.resource)?,
            scope_logs: scopes,
            ..Default::default()
        });
    }
    Ok(request)
}

fn plain_logs(mut request: ExportLogsServiceRequest) -> ExportLogsServiceRequest {
    for resource_logs in &mut request.resource_logs {
        resource_logs.resource = plain_resource(resource_logs.resource.take());
        for record in resource_logs
            .scope_logs
            .iter_mut()
            .flat_map(|s| &mut s.log_records)
        {
            record.attributes = plain(std::mem::take(&mut record.attributes));
        }
    }
    request
}

fn read_exemplar(exemplar: &otlp::Exemplar<'_>) -> Read<metrics::Exemplar> {
    use metrics::exemplar::Value;
    Ok(metrics::Exemplar {
        filtered_attributes: read_attributes(exemplar.filtered_attributes())?,
        time_unix_nano: exemplar.time_unix_nano,
        value: exemplar.value.map(|value| match value {
            Number::Int(value) => Value::AsInt(value),
            Number::Double(value) => Value::AsDouble(value),
        }),
        span_id: exemplar.span_id.into(),
        trace_id: exemplar.trace_id.into(),
    })
}

fn read_number(point: &otlp::NumberPoint<'_>) -> Read<metrics::NumberDataPoint> {
    use metrics::number_data_point::Value;
    Ok(metrics::NumberDataPoint {
        attributes: read_attributes(point.attributes.iter())?,
        start_time_unix_nano: point.start_unix_nano,
        time_unix_nano: point.time_unix_nano,
        exemplars: point
            .exemplars()
            .map(|e| read_exemplar(&e?))
            .collect::<Read<_>>()?,
        flags: point.flags,
        value: point.value.map(|value| match value {
            Number::Int(value) => Value::AsInt(value),
            Number::Double(value) => Value::AsDouble(value),
        }),
    })
}

fn read_histogram(point: &otlp::HistogramPoint<'_>) -> Read<metrics::HistogramDataPoint> {
    Ok(metrics::HistogramDataPoint {
        attributes: read_attributes(point.attributes.iter())?,
        start_time_unix_nano: point.start_unix_nano,
        time_unix_nano: point.time_unix_nano,
        count: point.count,
        sum: point.sum,
        bucket_counts: point.bucket_counts().collect::<Read<_>>()?,
        explicit_bounds: point.explicit_bounds().collect::<Read<_>>()?,
        exemplars: point
            .exemplars()
            .map(|e| read_exemplar(&e?))
            .collect::<Read<_>>()?,
        flags: point.flags,
        ..Default::default()
    })
}

fn read_exponential(
    point: &otlp::ExponentialPoint<'_>,
) -> Read<metrics::ExponentialHistogramDataPoint> {
    use metrics::exponential_histogram_data_point::Buckets;
    let buckets = |buckets: &otlp::Buckets<'_>| -> Read<Option<Buckets>> {
        Ok(Some(Buckets {
            offset: buckets.offset,
            bucket_counts: buckets.counts().collect::<Read<_>>()?,
        }))
    };
    Ok(metrics::ExponentialHistogramDataPoint {
        attributes: read_attributes(point.attributes.iter())?,
        start_time_unix_nano: point.start_unix_nano,
        time_unix_nano: point.time_unix_nano,
        count: point.count,
        sum: point.sum,
        scale: point.scale,
        zero_count: point.zero_count,
        zero_threshold: point.zero_threshold,
        positive: buckets(&point.positive)?,
        negative: buckets(&point.negative)?,
        flags: point.flags,
        exemplars: point
            .exemplars()
            .map(|e| read_exemplar(&e?))
            .collect::<Read<_>>()?,
        ..Default::default()
    })
}

fn read_summary(point: &otlp::SummaryPoint<'_>) -> Read<metrics::SummaryDataPoint> {
    use metrics::summary_data_point::ValueAtQuantile;
    let quantile = |read: Read<otlp::Quantile>| {
        read.map(|read| ValueAtQuantile {
            quantile: read.quantile,
            value: read.value,
        })
    };
    Ok(metrics::SummaryDataPoint {
        attributes: read_attributes(point.attributes.iter())?,
        start_time_unix_nano: point.start_unix_nano,
        time_unix_nano: point.time_unix_nano,
        count: point.count,
        sum: point.sum,
        quantile_values: point.quantiles().map(quantile).collect::<Read<_>>()?,
        flags: point.flags,
    })
}

fn temporality_number(temporality: Temporality) -> i32 {
    match temporality {
        Temporality::Unspecified => 0,
        Temporality::Delta => 1,
        Temporality::Cumulative => 2,
    }
}

fn read_data(data: &Data<'_>) -> Read<metrics::metric::Data> {
    Ok(match *data {
        Data::Gauge { points } => metrics::metric::Data::Gauge(metrics::Gauge {
            data_points: points
                .map(|point| read_number(&point?))
                .collect::<Read<_>>()?,
        }),
        Data::Sum {
            points,
            temporality,
            monotonic,
        } => metrics::metric::Data::Sum(metrics::Sum {
            data_points: points
                .map(|point| read_number(&point?))
                .collect::<Read<_>>()?,
            aggregation_temporality: temporality_number(temporality),
            is_monotonic: monotonic,
        }),
        Data::Histogram {
            points,
            temporality,
        } => metrics::metric::Data::Histogram(metrics::Histogram {
            data_points: points
                .map(|point| read_histogram(&point?))
                .collect::<Read<_>>()?,
            aggregation_temporality: temporality_number(temporality),
        }),
        Data::Exponential {
            points,
            temporality,
        } => metrics::metric::Data::ExponentialHistogram(metrics::ExponentialHistogram {
            data_points: points
                .map(|point| read_exponential(&point?))
                .collect::<Read<_>>()?,
            aggregation_temporality: temporality_number(temporality),
        }),
        Data::Summary { points } => metrics::metric::Data::Summary(metrics::Summary {
            data_points: points
                .map(|point| read_summary(&point?))
                .collect::<Read<_>>()?,
        }),
    })
}

fn read_metrics(bytes: &[u8]) -> Read<ExportMetricsServiceRequest> {
    let mut request = ExportMetricsServiceRequest::default();
    for resource_metrics in otlp::MetricsRequest::new(bytes).resource_metrics() {
        let resource_metrics = resource_metrics?;
        let mut scopes = Vec::new();
        for scope_metrics in resource_metrics.scope_metrics() {
            let scope_metrics = scope_metrics?;
            let read = scope_metrics.metrics().map(|metric| {
                let metric = metric?;
                Ok(metrics::Metric {
                    name: metric.name.into(),
                    description: metric.description.into(),
                    unit: metric.unit.into(),
                    data: metric.data.as_ref().map(read_data).transpose()?,
                    ..Default::default()
                })
            });
            scopes.push(metrics::ScopeMetrics {
                metrics: read.collect::<Read<_>>()?,
                scope: Some(common::InstrumentationScope {
                    name: scope_metrics.scope.name.into(),
                    version: scope_metrics.scope.version.into(),
                    attributes: read_attributes(scope_metrics.scope.attributes())?,
                    ..Default::default()
                }),
                ..Default::default()
            });
        }
        request.resource_metrics.push(metrics::ResourceMetrics {
            resource: read_resource(&resource_metrics.resource)?,
            scope_metrics: scopes,
            ..Default::default()
        });
    }
    Ok(request)
}

fn plain_metrics(mut request: ExportMetricsServiceRequest) -> ExportMetricsServiceRequest {
    use metrics::metric::Data;
    let take = |attributes: &mut Vec<_>| *attributes = plain(std::mem::take(attributes));
    let exemplars = |exemplars: &mut Vec<metrics::Exemplar>| {
        exemplars
            .iter_mut()
            .for_each(|e| take(&mut e.filtered_attributes));
    };
    let numbers = |points: &mut Vec<metrics::NumberDataPoint>| {
        for point in points {
            take(&mut point.attributes);
            exemplars(&mut point.exemplars);
        }
    };
    for resource_metrics in &mut request.resource_metrics {
        resource_metrics.resource = plain_resource(resource_metrics.resource.take());
        for scope_metrics in &mut resource_metrics.scope_metrics {
            take(&mut scope_metrics.scope.get_or_insert_default().attributes);
            for metric in &mut scope_metrics.metrics {
                match &mut metric.data {
                    Some(Data::Gauge(gauge)) => numbers(&mut gauge.data_points),
                    Some(Data::Sum(sum)) => numbers(&mut sum.data_points),
                    Some(Data::Histogram(histogram)) => {
                        for point in &mut histogram.data_points {
                            take(&mut point.attributes);
                            exemplars(&mut point.exemplars);
                        }
                    }
                    Some(Data::ExponentialHistogram(histogram)) => {
                        for point in &mut histogram.data_points {
                            take(&mut point.attributes);
                            exemplars(&mut point.exemplars);
                            point.positive.get_or_insert_default();
                            point.negative.get_or_insert_default();
                        }
                    }
                    Some(Data::Summary(summary)) => {
                        summary
                            .data_points
                            .iter_mut()
                            .for_each(|p| take(&mut p.attributes));
                    }
                    None => {}
                }
            }
        }
    }
    request
}

/// Reads `bytes` as every request; an error must lie inside them.
fn read_as_everything(bytes: &[u8]) {
    let inside = |error: Option<WireError>| {
        if let Some(error) = error {
            assert!(error.offset <= bytes.len(), "{error}");
        }
    };
    inside(read_traces(bytes).err());
    inside(read_metrics(bytes).err());
    inside(read_logs(bytes).err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn traces_read_back_whole(request in traces()) {
        prop_assert_eq!(read_traces(&request.encode_to_vec()).unwrap(), plain_traces(request));
    }

    #[test]
    fn metrics_read_back_whole(request in metric_requests()) {
        prop_assert_eq!(read_metrics(&request.encode_to_vec()).unwrap(), plain_metrics(request));
    }

    #[test]
    fn logs_read_back_whole(request in log_requests()) {
        prop_assert_eq!(read_logs(&request.encode_to_vec()).unwrap(), plain_logs(request));
    }

    #[test]
    fn raw_attributes_are_the_same_bytes_for_the_same_attributes(
        pairs in attributes(), a in number_point(), b in number_point(),
    ) {
        let raw = |mut point: metrics::NumberDataPoint| -> Vec<u8> {
            point.attributes = pairs.clone();
            let gauge = metrics::Gauge { data_points: vec![point] };
            let bytes = metrics::Metric {
                data: Some(metrics::metric::Data::Gauge(gauge)),
                ..Default::default()
            }
            .encode_to_vec();
            let reader = slogate_wire::proto::Reader::new(&bytes);
            let metric = <otlp::Metric<'_> as slogate_wire::proto::View<'_>>::read(reader).unwrap();
            let Some(Data::Gauge { mut points }) = metric.data else {
                panic!("a gauge went in");
            };
            let mut scratch = Vec::new();
            points.next().unwrap().unwrap().attributes.raw(&mut scratch).unwrap().to_vec()
        };
        prop_assert_eq!(raw(a), raw(b));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn cut_and_mutated_requests_never_panic(
        request in traces(), metrics in metric_requests(),
        cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte: u8,
    ) {
        for mut bytes in [request.encode_to_vec(), metrics.encode_to_vec()] {
            if bytes.is_empty() {
                continue;
            }
            read_as_everything(&bytes[..cut.index(bytes.len())]);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            read_as_everything(&bytes);
        }
    }
}

#[test]
fn nesting_is_followed_only_so_far() {
    let mut value = common::AnyValue::default();
    for _ in 0..100 {
        let array = common::ArrayValue {
            values: vec![value],
        };
        value = common::AnyValue {
            value: Some(common::any_value::Value::ArrayValue(array)),
        };
    }
    let resource = Resource {
        attributes: vec![common::KeyValue {
            key: "deep".into(),
            value: Some(value),
            ..Default::default()
        }],
        ..Default::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![logs::ResourceLogs {
            resource: Some(resource),
            ..Default::default()
        }],
    };
    let error = read_logs(&request.encode_to_vec()).unwrap_err();
    assert_eq!(error.problem, slogate_wire::Problem::TooDeep(32));
}

#[test]
fn a_resource_sent_twice_is_refused_and_not_half_read() {
    let resource = |name: &str| trace::ResourceSpans {
        resource: Some(Resource {
            attributes: vec![common::KeyValue {
                key: name.into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let twice = [resource("a").encode_to_vec(), resource("b").encode_to_vec()].concat();
    let mut bytes = vec![0x0a];
    prost::encoding::encode_varint(twice.len() as u64, &mut bytes);
    bytes.extend(twice);
    let error = read_traces(&bytes).unwrap_err();
    assert_eq!(error.problem, slogate_wire::Problem::Repeated(1));
}
