//! Views of an `io.prometheus.write.v2.Request`.
//!
//! Texts are in one table, the symbols, and everything else refers to them by number. Whether a
//! number is within the table is for the reader of the request to check.

use super::{Histogram, Sample, exemplar_value};
use crate::proto::{Reader, Varints, View, Views, WireError};

/// A remote write 2.0 request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    body: Reader<'a>,
}

/// The texts of a request, read as they are asked for. Ends after the first error.
#[derive(Clone, Copy, Debug)]
pub struct Symbols<'a> {
    body: Reader<'a>,
}

/// Some samples or histograms of one series, with exemplars.
#[derive(Clone, Copy, Debug)]
pub struct TimeSeries<'a> {
    /// What is known about the metric.
    pub metadata: Metadata,
    body: Reader<'a>,
    has_exemplars: bool,
    has_histograms: bool,
}

/// A sampled measurement behind a series.
#[derive(Clone, Copy, Debug)]
pub struct Exemplar<'a> {
    /// The measurement.
    pub value: f64,
    /// When it was taken, in milliseconds since the Unix epoch.
    pub t_ms: i64,
    body: Reader<'a>,
}

/// What is known about a series' metric; texts by their number among the symbols, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// `MetricType`: 0 unspecified, 1 counter, 2 gauge, 3 histogram, 4 gauge histogram,
    /// 5 summary, 6 info, 7 state set.
    pub kind: i32,
    /// Its description.
    pub help_ref: u32,
    /// Its unit.
    pub unit_ref: u32,
}

impl<'a> Request<'a> {
    /// A view of the (decompressed) request's bytes.
    pub fn new(request: &'a [u8]) -> Self {
        Request {
            body: Reader::new(request),
        }
    }

    /// The texts; the first should be empty.
    pub fn symbols(&self) -> Symbols<'a> {
        Symbols { body: self.body }
    }

    /// The series, in the order sent.
    pub fn timeseries(&self) -> Views<'a, TimeSeries<'a>> {
        Views::new(self.body, 5)
    }
}

impl<'a> Iterator for Symbols<'a> {
    type Item = Result<&'a str, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = loop {
            match self.body.next_field() {
                Ok(Some(field)) if field.number == 4 => break field.string(),
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => break Err(error),
            }
        };
        if read.is_err() {
            self.body = Reader::EMPTY;
        }
        Some(read)
    }
}

impl<'a> TimeSeries<'a> {
    /// The labels: name and value in turn, by their numbers among the symbols.
    #[inline]
    pub fn labels_refs(&self) -> Varints<'a> {
        Varints::new(self.body, 1)
    }

    /// The float samples.
    #[inline]
    pub fn samples(&self) -> Views<'a, Sample> {
        Views::new(self.body, 2)
    }

    /// The native histograms.
    #[inline]
    pub fn histograms(&self) -> Views<'a, Histogram<'a>> {
        let has = self.has_histograms;
        Views::new(if has { self.body } else { Reader::EMPTY }, 3)
    }

    /// The exemplars.
    #[inline]
    pub fn exemplars(&self) -> Views<'a, Exemplar<'a>> {
        let has = self.has_exemplars;
        Views::new(if has { self.body } else { Reader::EMPTY }, 4)
    }
}

impl<'a> Exemplar<'a> {
    /// The labels: name and value in turn, by their numbers among the symbols.
    pub fn labels_refs(&self) -> Varints<'a> {
        Varints::new(self.body, 1)
    }
}

impl<'a> View<'a> for TimeSeries<'a> {
    #[inline]
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut series = TimeSeries {
            metadata: Metadata::default(),
            body,
            has_exemplars: false,
            has_histograms: false,
        };
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            match field.number {
                3 => series.has_histograms = true,
                4 => series.has_exemplars = true,
                5 => series.metadata = Metadata::read(field.message()?)?,
                _ => {}
            }
        }
        Ok(series)
    }
}

impl<'a> View<'a> for Exemplar<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let (value, t_ms) = exemplar_value(body)?;
        Ok(Exemplar { value, t_ms, body })
    }
}

impl<'a> View<'a> for Metadata {
    #[inline]
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut metadata = Metadata::default();
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => metadata.kind = field.enumeration()?,
                3 => metadata.help_ref = field.varint()? as u32,
                4 => metadata.unit_ref = field.varint()? as u32,
                _ => {}
            }
        }
        Ok(metadata)
    }
}
