//! Views of Prometheus remote-write requests, and a writer of them.
//!
//! - [`v1`]: `prometheus.WriteRequest`, the message of remote write 1.0.
//! - [`v2`]: `io.prometheus.write.v2.Request`, the message of remote write 2.0.
//! - [`encode`]: writes 1.0 messages.
//!
//! Samples and native histograms have one shape in both and are here.
//!
//! Policy: as for [`otlp`](crate::otlp). A view borrows; a message is read top level only, when
//! its iterator reaches it. The labels of a 1.0 series can be had as the bytes that carry them,
//! so that a series seen before is recognised without reading its labels.
//!
//! Source: <https://github.com/prometheus/prometheus/tree/main/prompb> (`types.proto`,
//! `remote.proto`, `io/prometheus/write/v2/types.proto`).

pub mod encode;
pub mod v1;
pub mod v2;

use crate::proto::{Fixed64s, Reader, Varints, View, Views, WireError};

/// A float sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The value; any bit pattern, stale markers included.
    pub value: f64,
    /// When the value was taken, in milliseconds since the Unix epoch.
    pub t_ms: i64,
    /// When the count behind the value began, in milliseconds since the Unix epoch; 0 where
    /// unknown. Only 2.0 has it.
    pub start_ms: i64,
}

/// A count of a native histogram, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Count {
    /// Of an integer histogram.
    Int(u64),
    /// Of a float histogram.
    Float(f64),
}

/// A native histogram sample.
#[derive(Clone, Copy, Debug)]
pub struct Histogram<'a> {
    /// The number of observations; `None` where none was sent. It decides whether the
    /// histogram's buckets are integers or floats.
    pub count: Option<Count>,
    /// The sum of the observations; a stale marker's bits where the series has ended.
    pub sum: f64,
    /// Resolution: -4 to 8, or -53 for custom bounds.
    pub schema: i32,
    /// Observations in `[-zero_threshold, zero_threshold]` are in the zero bucket.
    pub zero_threshold: f64,
    /// The zero bucket's count; `None` where none was sent.
    pub zero_count: Option<Count>,
    /// What is known about a counter reset: 0 nothing, 1 a reset, 2 none, 3 it is a gauge.
    pub reset_hint: i32,
    /// When the value was taken, in milliseconds since the Unix epoch.
    pub t_ms: i64,
    /// When counting began, in milliseconds since the Unix epoch; 0 where unknown. Only 2.0
    /// has it.
    pub start_ms: i64,
    body: Reader<'a>,
}

/// A run of buckets with consecutive indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketSpan {
    /// The index of the first bucket for a first span, else the gap to the span before.
    pub offset: i32,
    /// The number of buckets.
    pub length: u32,
}

impl Count {
    /// The count as a float; whole numbers above 2^53 are rounded.
    pub fn as_f64(self) -> f64 {
        match self {
            Count::Int(count) => count as f64,
            Count::Float(count) => count,
        }
    }
}

impl<'a> Histogram<'a> {
    /// Whether the buckets are floats ([`Histogram::positive_counts`]) and not integers
    /// ([`Histogram::positive_deltas`]).
    pub fn is_float(&self) -> bool {
        matches!(self.count, Some(Count::Float(_)))
    }

    /// Where the buckets of negative observations lie.
    pub fn negative_spans(&self) -> Views<'a, BucketSpan> {
        Views::new(self.body, 8)
    }

    /// Each integer bucket's difference from the one before, negative observations.
    pub fn negative_deltas(&self) -> impl Iterator<Item = Result<i64, WireError>> + use<'a> {
        deltas(self.body, 9)
    }

    /// The float buckets of negative observations.
    pub fn negative_counts(&self) -> impl Iterator<Item = Result<f64, WireError>> + use<'a> {
        doubles(self.body, 10)
    }

    /// Where the buckets of positive observations lie; with custom bounds those of all.
    pub fn positive_spans(&self) -> Views<'a, BucketSpan> {
        Views::new(self.body, 11)
    }

    /// Each integer bucket's difference from the one before, positive observations.
    pub fn positive_deltas(&self) -> impl Iterator<Item = Result<i64, WireError>> + use<'a> {
        deltas(self.body, 12)
    }

    /// The float buckets of positive observations.
    pub fn positive_counts(&self) -> impl Iterator<Item = Result<f64, WireError>> + use<'a> {
        doubles(self.body, 13)
    }

    /// The upper bounds of schema -53, without the last, infinite one.
    pub fn custom_values(&self) -> impl Iterator<Item = Result<f64, WireError>> + use<'a> {
        doubles(self.body, 16)
    }
}

fn deltas(body: Reader<'_>, field: u32) -> impl Iterator<Item = Result<i64, WireError>> + use<'_> {
    let unzigzag = |value: u64| (value >> 1) as i64 ^ -((value & 1) as i64);
    Varints::new(body, field).map(move |value| value.map(unzigzag))
}

fn doubles(body: Reader<'_>, field: u32) -> impl Iterator<Item = Result<f64, WireError>> + use<'_> {
    Fixed64s::new(body, field).map(|bits| bits.map(f64::from_bits))
}

impl<'a> View<'a> for Sample {
    #[inline]
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut sample = Sample {
            value: 0.0,
            t_ms: 0,
            start_ms: 0,
        };
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => sample.value = field.double()?,
                2 => sample.t_ms = field.int64()?,
                3 => sample.start_ms = field.int64()?,
                _ => {}
            }
        }
        Ok(sample)
    }
}

impl<'a> View<'a> for Histogram<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut histogram = Histogram {
            count: None,
            sum: 0.0,
            schema: 0,
            zero_threshold: 0.0,
            zero_count: None,
            reset_hint: 0,
            t_ms: 0,
            start_ms: 0,
            body,
        };
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => histogram.count = Some(Count::Int(field.varint()?)),
                2 => histogram.count = Some(Count::Float(field.double()?)),
                3 => histogram.sum = field.double()?,
                4 => histogram.schema = field.zigzag32()?,
                5 => histogram.zero_threshold = field.double()?,
                6 => histogram.zero_count = Some(Count::Int(field.varint()?)),
                7 => histogram.zero_count = Some(Count::Float(field.double()?)),
                14 => histogram.reset_hint = field.enumeration()?,
                15 => histogram.t_ms = field.int64()?,
                17 => histogram.start_ms = field.int64()?,
                _ => {}
            }
        }
        Ok(histogram)
    }
}

impl<'a> View<'a> for BucketSpan {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut span = BucketSpan::default();
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => span.offset = field.zigzag32()?,
                2 => span.length = field.varint()? as u32,
                _ => {}
            }
        }
        Ok(span)
    }
}

/// The value and the time of an exemplar, which both versions number alike; its labels differ.
fn exemplar_value(mut fields: Reader<'_>) -> Result<(f64, i64), WireError> {
    let (mut value, mut t_ms) = (0.0, 0);
    while let Some(field) = fields.next_field()? {
        match field.number {
            2 => value = field.double()?,
            3 => t_ms = field.int64()?,
            _ => {}
        }
    }
    Ok((value, t_ms))
}
