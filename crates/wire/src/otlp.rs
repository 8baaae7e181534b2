//! Views of OTLP requests (opentelemetry-proto 1.x), read from their bytes as they are asked for.
//!
//! - [`common`]: attributes, attribute values, resources, scopes.
//! - [`trace`], [`metrics`], [`logs`]: one request type for each signal.
//!
//! Policy:
//! - A view borrows from the request; a message is read once, top level only, when its iterator
//!   reaches it. Iterators end after their first error.
//! - Of a scalar that occurs twice the last one counts, as protobuf says. Of a message that
//!   must occur once a second occurrence is refused: merging two halves is legal protobuf that
//!   no exporter writes, and reading only one of them would lose data.
//! - Fields that slogate has no use for (span events, links, bodies of logs, entity
//!   references) are skipped unread.

pub mod common;
pub mod logs;
pub mod metrics;
pub mod trace;

pub use common::{AnyValue, Attributes, KeyValue, RawKeyValue, Resource, Scope};
pub use logs::{LogRecord, LogsRequest, ResourceLogs, ScopeLogs};
pub use metrics::{
    Buckets, Data, Exemplar, ExponentialPoint, HistogramPoint, Metric, MetricsRequest, Number,
    NumberPoint, Quantile, RawAttributes, ResourceMetrics, ScopeMetrics, SummaryPoint, Temporality,
};
pub use trace::{ResourceSpans, ScopeSpans, Span, TracesRequest};
