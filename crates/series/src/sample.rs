//! Samples, staleness and exemplars.

use std::sync::Arc;

use crate::histogram::Histogram;
use crate::labels::Labels;

/// The bit pattern of the NaN that marks a series as ended. Any other NaN is a value.
///
/// Source: Prometheus `model/value/value.go`. It must survive storage bit for bit.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The staleness marker as a float.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `value` is the staleness marker, and not just any NaN.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// What a sample holds.
#[derive(Clone, Debug)]
pub enum Value {
    /// A float: a counter's running total, a gauge's level, or the staleness marker.
    Float(f64),
    /// A native histogram. A stale one has a `sum` of [`stale_nan`].
    Histogram(Arc<Histogram>),
}

impl Value {
    /// Whether this is the staleness marker, in either form.
    pub fn is_stale(&self) -> bool {
        match self {
            Value::Float(value) => is_stale(*value),
            Value::Histogram(histogram) => is_stale(histogram.sum),
        }
    }
}

/// Equal when bit-identical: NaNs of the same pattern are equal, `0.0` and `-0.0` are not.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            (Value::Histogram(a), Value::Histogram(b)) => a == b,
            _ => false,
        }
    }
}

/// One observation of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub t_ms: i64,
    /// When the cumulative count behind `value` began, in milliseconds since the Unix
    /// epoch; 0 where unknown.
    pub start_ms: i64,
    /// The value at `t_ms`.
    pub value: Value,
}

/// A series with its samples in a range, ascending and unique in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What names the series.
    pub labels: Labels,
    /// Its samples, ascending in time.
    pub samples: Vec<Sample>,
}

/// Takes a series' samples as they are read, ascending in time: floats and histograms go
/// different ways, so that a run of floats never becomes anything larger on its way.
pub trait SampleSink {
    /// Forgets all samples: another series begins.
    fn clear(&mut self);

    /// A float, the staleness marker included. Times are those of [`Sample`].
    fn float(&mut self, t_ms: i64, start_ms: i64, value: f64);

    /// A native histogram.
    fn histogram(&mut self, t_ms: i64, start_ms: i64, value: Arc<Histogram>);

    /// A sample of either kind.
    fn sample(&mut self, sample: Sample) {
        match sample.value {
            Value::Float(value) => self.float(sample.t_ms, sample.start_ms, value),
            Value::Histogram(value) => self.histogram(sample.t_ms, sample.start_ms, value),
        }
    }
}

impl SampleSink for Vec<Sample> {
    fn clear(&mut self) {
        self.clear();
    }

    fn float(&mut self, t_ms: i64, start_ms: i64, value: f64) {
        self.push(Sample {
            t_ms,
            start_ms,
            value: Value::Float(value),
        });
    }

    fn histogram(&mut self, t_ms: i64, start_ms: i64, value: Arc<Histogram>) {
        self.push(Sample {
            t_ms,
            start_ms,
            value: Value::Histogram(value),
        });
    }
}

/// A sampled event behind a series: the way from a number to a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// `trace_id`, `span_id` and filtered attributes.
    pub labels: Labels,
    /// The exemplar's own value, for example the duration of the one request.
    pub value: f64,
    /// Milliseconds since the Unix epoch.
    pub t_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_nan_is_stale() {
        assert!(is_stale(stale_nan()));
        assert!(!is_stale(f64::NAN));
        assert!(!is_stale(f64::from_bits(0x7ff8_0000_0000_0001)));
        assert!(!Value::Float(0.0).is_stale());
    }

    #[test]
    fn value_equality_is_by_bits() {
        assert_eq!(Value::Float(f64::NAN), Value::Float(f64::NAN));
        assert_ne!(Value::Float(0.0), Value::Float(-0.0));
    }
}
