//! The words a time series store and a query engine share.
//!
//! - [`labels`]: what names a series: sorted, unique label pairs, cheap to clone.
//! - [`matcher`]: what selects series: the four PromQL matchers, with RE2 semantics.
//! - [`re2`]: regular expressions as Prometheus writes them.
//! - [`sample`]: what a series is made of: float and native-histogram samples, staleness, exemplars.
//! - [`histogram`]: native (exponential) histograms with Prometheus's bucket boundaries.
//!
//! This crate does no I/O, reads no clock and knows nothing of storage or evaluation.
//! `slogate-tsdb` stores these types, `slogate-promql` computes with them.

#![forbid(unsafe_code)]

pub mod histogram;
pub mod labels;
pub mod matcher;
pub mod re2;
pub mod sample;

pub use histogram::{Buckets, Histogram, ResetHint};
pub use labels::{Label, Labels, LabelsBuilder, METRIC_NAME, Projection};
pub use matcher::{MatchOp, Matcher, MatcherError};
pub use sample::{
    Exemplar, STALE_NAN_BITS, Sample, SampleSink, Series, Value, is_stale, stale_nan,
};
