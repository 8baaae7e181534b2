//! Borrowed views of OTLP and remote-write request bytes, and the text formats a metrics
//! endpoint writes.
//!
//! - [`proto`]: a bounds-checked protobuf reader over one byte slice. Allocates nothing.
//! - [`otlp`]: lazily read views of OTLP trace, metric and log requests, built on it.
//! - [`remote_write`]: the same for Prometheus remote write 1.0 and 2.0, and a writer of 1.0.
//! - [`openmetrics`]: a reader of OpenMetrics and Prometheus text, as recordings have it.
//! - [`exposition`]: writers for the Prometheus text format 0.0.4 and OpenMetrics 1.0.
//!
//! This crate does no I/O, reads no clock and keeps no state. The ingest room of `slogate`
//! turns the views into series, and its backtest the recordings; its server writes `/metrics` with the writers.

#![forbid(unsafe_code)]

pub mod exposition;
pub mod openmetrics;
pub mod otlp;
pub mod proto;
pub mod remote_write;

pub use proto::{Problem, WireError};
