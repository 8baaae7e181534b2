//! The fields of OTLP messages that slogate reads: JSON name, protobuf number, type.
//!
//! Source: opentelemetry-proto 1.x, the `.proto` files.

/// A field: JSON name, protobuf number, type.
pub(super) type FieldRow = (&'static str, u32, Kind);

/// A message: its fields.
pub(super) type Table = &'static [FieldRow];

/// The type of a field.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Hex,
    Base64,
    Bool,
    /// `int32`, `uint32`, `int64`, `uint64` and enums: a varint.
    Varint,
    Zigzag,
    Fixed32,
    Fixed64,
    SignedFixed64,
    Double,
    Message(fn() -> Table),
    Messages(fn() -> Table),
    Fixed64s,
    Varints,
    Doubles,
}

pub(super) fn trace_request() -> Table {
    &[("resourceSpans", 1, Kind::Messages(resource_spans))]
}

fn resource_spans() -> Table {
    &[
        ("resource", 1, Kind::Message(resource)),
        ("scopeSpans", 2, Kind::Messages(scope_spans)),
    ]
}

fn scope_spans() -> Table {
    &[
        ("scope", 1, Kind::Message(scope)),
        ("spans", 2, Kind::Messages(span)),
    ]
}

fn span() -> Table {
    &[
        ("traceId", 1, Kind::Hex),
        ("spanId", 2, Kind::Hex),
        ("traceState", 3, Kind::Text),
        ("parentSpanId", 4, Kind::Hex),
        ("name", 5, Kind::Text),
        ("kind", 6, Kind::Varint),
        ("startTimeUnixNano", 7, Kind::Fixed64),
        ("endTimeUnixNano", 8, Kind::Fixed64),
        ("attributes", 9, Kind::Messages(key_value)),
        ("status", 15, Kind::Message(status)),
        ("flags", 16, Kind::Fixed32),
    ]
}

fn status() -> Table {
    &[("message", 2, Kind::Text), ("code", 3, Kind::Varint)]
}

pub(super) fn metrics_request() -> Table {
    &[("resourceMetrics", 1, Kind::Messages(resource_metrics))]
}

fn resource_metrics() -> Table {
    &[
        ("resource", 1, Kind::Message(resource)),
        ("scopeMetrics", 2, Kind::Messages(scope_metrics)),
    ]
}

fn scope_metrics() -> Table {
    &[
        ("scope", 1, Kind::Message(scope)),
        ("metrics", 2, Kind::Messages(metric)),
    ]
}

fn metric() -> Table {
    &[
        ("name", 1, Kind::Text),
        ("description", 2, Kind::Text),
        ("unit", 3, Kind::Text),
        ("gauge", 5, Kind::Message(gauge)),
        ("sum", 7, Kind::Message(sum)),
        ("histogram", 9, Kind::Message(histogram)),
        ("exponentialHistogram", 10, Kind::Message(exponential)),
        ("summary", 11, Kind::Message(summary)),
    ]
}

fn gauge() -> Table {
    &[("dataPoints", 1, Kind::Messages(number_point))]
}

fn sum() -> Table {
    &[
        ("dataPoints", 1, Kind::Messages(number_point)),
        ("aggregationTemporality", 2, Kind::Varint),
        ("isMonotonic", 3, Kind::Bool),
    ]
}

fn histogram() -> Table {
    &[
        ("dataPoints", 1, Kind::Messages(histogram_point)),
        ("aggregationTemporality", 2, Kind::Varint),
    ]
}

fn exponential() -> Table {
    &[
        ("dataPoints", 1, Kind::Messages(exponential_point)),
        ("aggregationTemporality", 2, Kind::Varint),
    ]
}

fn summary() -> Table {
    &[("dataPoints", 1, Kind::Messages(summary_point))]
}

fn number_point() -> Table {
    &[
        ("startTimeUnixNano", 2, Kind::Fixed64),
        ("timeUnixNano", 3, Kind::Fixed64),
        ("asDouble", 4, Kind::Double),
        ("exemplars", 5, Kind::Messages(exemplar)),
        ("asInt", 6, Kind::SignedFixed64),
        ("attributes", 7, Kind::Messages(key_value)),
        ("flags", 8, Kind::Varint),
    ]
}

fn histogram_point() -> Table {
    &[
        ("startTimeUnixNano", 2, Kind::Fixed64),
        ("timeUnixNano", 3, Kind::Fixed64),
        ("count", 4, Kind::Fixed64),
        ("sum", 5, Kind::Double),
        ("bucketCounts", 6, Kind::Fixed64s),
        ("explicitBounds", 7, Kind::Doubles),
        ("exemplars", 8, Kind::Messages(exemplar)),
        ("attributes", 9, Kind::Messages(key_value)),
        ("flags", 10, Kind::Varint),
        ("min", 11, Kind::Double),
        ("max", 12, Kind::Double),
    ]
}

fn exponential_point() -> Table {
    &[
        ("attributes", 1, Kind::Messages(key_value)),
        ("startTimeUnixNano", 2, Kind::Fixed64),
        ("timeUnixNano", 3, Kind::Fixed64),
        ("count", 4, Kind::Fixed64),
        ("sum", 5, Kind::Double),
        ("scale", 6, Kind::Zigzag),
        ("zeroCount", 7, Kind::Fixed64),
        ("positive", 8, Kind::Message(buckets)),
        ("negative", 9, Kind::Message(buckets)),
        ("flags", 10, Kind::Varint),
        ("exemplars", 11, Kind::Messages(exemplar)),
        ("min", 12, Kind::Double),
        ("max", 13, Kind::Double),
        ("zeroThreshold", 14, Kind::Double),
    ]
}

fn buckets() -> Table {
    &[
        ("offset", 1, Kind::Zigzag),
        ("bucketCounts", 2, Kind::Varints),
    ]
}

fn summary_point() -> Table {
    &[
        ("startTimeUnixNano", 2, Kind::Fixed64),
        ("timeUnixNano", 3, Kind::Fixed64),
        ("count", 4, Kind::Fixed64),
        ("sum", 5, Kind::Double),
        ("quantileValues", 6, Kind::Messages(quantile)),
        ("attributes", 7, Kind::Messages(key_value)),
        ("flags", 8, Kind::Varint),
    ]
}

fn quantile() -> Table {
    &[("quantile", 1, Kind::Double), ("value", 2, Kind::Double)]
}

fn exemplar() -> Table {
    &[
        ("timeUnixNano", 2, Kind::Fixed64),
        ("asDouble", 3, Kind::Double),
        ("spanId", 4, Kind::Hex),
        ("traceId", 5, Kind::Hex),
        ("asInt", 6, Kind::SignedFixed64),
        ("filteredAttributes", 7, Kind::Messages(key_value)),
    ]
}

pub(super) fn logs_request() -> Table {
    &[("resourceLogs", 1, Kind::Messages(resource_logs))]
}

fn resource_logs() -> Table {
    &[
        ("resource", 1, Kind::Message(resource)),
        ("scopeLogs", 2, Kind::Messages(scope_logs)),
    ]
}

fn scope_logs() -> Table {
    &[
        ("scope", 1, Kind::Message(scope)),
        ("logRecords", 2, Kind::Messages(log_record)),
    ]
}

fn log_record() -> Table {
    &[
        ("timeUnixNano", 1, Kind::Fixed64),
        ("severityNumber", 2, Kind::Varint),
        ("severityText", 3, Kind::Text),
        ("attributes", 6, Kind::Messages(key_value)),
        ("traceId", 9, Kind::Hex),
        ("spanId", 10, Kind::Hex),
        ("observedTimeUnixNano", 11, Kind::Fixed64),
    ]
}

fn resource() -> Table {
    &[("attributes", 1, Kind::Messages(key_value))]
}

fn scope() -> Table {
    &[
        ("name", 1, Kind::Text),
        ("version", 2, Kind::Text),
        ("attributes", 3, Kind::Messages(key_value)),
    ]
}

fn key_value() -> Table {
    &[
        ("key", 1, Kind::Text),
        ("value", 2, Kind::Message(any_value)),
    ]
}

fn any_value() -> Table {
    &[
        ("stringValue", 1, Kind::Text),
        ("boolValue", 2, Kind::Bool),
        ("intValue", 3, Kind::Varint),
        ("doubleValue", 4, Kind::Double),
        ("arrayValue", 5, Kind::Message(array_value)),
        ("kvlistValue", 6, Kind::Message(map_value)),
        ("bytesValue", 7, Kind::Base64),
    ]
}

fn array_value() -> Table {
    &[("values", 1, Kind::Messages(any_value))]
}

fn map_value() -> Table {
    &[("values", 1, Kind::Messages(key_value))]
}
