//! Views of a `prometheus.WriteRequest`.

use super::{Histogram, Sample, exemplar_value};
use crate::proto::{Reader, Run, View, Views, WireError};

/// Field 1, a length and bytes.
const LABELS_TAG: u8 = 1 << 3 | 2;

/// A remote write 1.0 request.
#[derive(Clone, Copy, Debug)]
pub struct WriteRequest<'a> {
    body: Reader<'a>,
}

/// Some samples, histograms and exemplars of one series.
#[derive(Clone, Copy, Debug)]
pub struct TimeSeries<'a> {
    labels: Run<'a>,
    /// What comes behind the first run of labels.
    rest: Reader<'a>,
    has_histograms: bool,
    has_exemplars: bool,
}

/// A label of a series or an exemplar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value.
    pub value: &'a str,
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

/// What is known about a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata<'a> {
    /// `MetricType`: 0 unknown, 1 counter, 2 gauge, 3 histogram, 4 gauge histogram, 5 summary,
    /// 6 info, 7 state set.
    pub kind: i32,
    /// The metric family's name.
    pub name: &'a str,
    /// Its description.
    pub help: &'a str,
    /// Its unit.
    pub unit: &'a str,
}

impl<'a> WriteRequest<'a> {
    /// A view of the (decompressed) request's bytes.
    pub fn new(request: &'a [u8]) -> Self {
        WriteRequest {
            body: Reader::new(request),
        }
    }

    /// The series, in the order sent.
    pub fn timeseries(&self) -> Views<'a, TimeSeries<'a>> {
        Views::new(self.body, 1)
    }

    /// What is known about metrics.
    pub fn metadata(&self) -> Views<'a, Metadata<'a>> {
        Views::new(self.body, 3)
    }
}

/// The labels that `raw` carries: the bytes of [`TimeSeries::raw_labels`] or of
/// [`encode::label`](super::encode::label).
pub fn labels(raw: &[u8]) -> Views<'_, Label<'_>> {
    Views::new(Reader::new(raw), 1)
}

impl<'a> TimeSeries<'a> {
    /// The labels' bytes; where they are not in one piece, gathered in `scratch`.
    #[inline]
    pub fn raw_labels<'s>(&self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], WireError>
    where
        'a: 's,
    {
        self.labels.raw(scratch)
    }

    /// The labels, in the order sent.
    pub fn labels(&self) -> Views<'a, Label<'a>> {
        self.labels.views()
    }

    /// The float samples.
    #[inline]
    pub fn samples(&self) -> Views<'a, Sample> {
        Views::new(self.rest, 2)
    }

    /// The exemplars.
    #[inline]
    pub fn exemplars(&self) -> Views<'a, Exemplar<'a>> {
        let body = if self.has_exemplars {
            self.rest
        } else {
            Reader::EMPTY
        };
        Views::new(body, 3)
    }

    /// The native histograms.
    #[inline]
    pub fn histograms(&self) -> Views<'a, Histogram<'a>> {
        let body = if self.has_histograms {
            self.rest
        } else {
            Reader::EMPTY
        };
        Views::new(body, 4)
    }
}

impl<'a> Exemplar<'a> {
    /// The labels, for example `trace_id`.
    pub fn labels(&self) -> Views<'a, Label<'a>> {
        Views::new(self.body, 1)
    }
}

impl<'a> View<'a> for TimeSeries<'a> {
    #[inline]
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut series = TimeSeries {
            labels: Run::none(body, 1),
            rest: body,
            has_histograms: false,
            has_exemplars: false,
        };
        let mut fields = body;
        let mut in_first_run = true;
        loop {
            let before = fields.rest();
            fields.skip_run(LABELS_TAG);
            if before.len() > fields.rest().len() {
                series.labels.note(before, fields.rest());
            }
            if in_first_run {
                series.rest = fields;
            }
            let before = fields.rest();
            let Some(field) = fields.next_field()? else {
                return Ok(series);
            };
            match field.number {
                1 => {
                    field.bytes()?;
                    series.labels.note(before, fields.rest());
                    continue;
                }
                3 => series.has_exemplars = true,
                4 => series.has_histograms = true,
                _ => {}
            }
            in_first_run = false;
        }
    }
}

impl<'a> View<'a> for Label<'a> {
    #[inline]
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut label = Label {
            name: "",
            value: "",
        };
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => label.name = field.string()?,
                2 => label.value = field.string()?,
                _ => {}
            }
        }
        Ok(label)
    }
}

impl<'a> View<'a> for Exemplar<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let (value, t_ms) = exemplar_value(body)?;
        Ok(Exemplar { value, t_ms, body })
    }
}

impl<'a> View<'a> for Metadata<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut metadata = Metadata {
            kind: 0,
            name: "",
            help: "",
            unit: "",
        };
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => metadata.kind = field.enumeration()?,
                2 => metadata.name = field.string()?,
                4 => metadata.help = field.string()?,
                5 => metadata.unit = field.string()?,
                _ => {}
            }
        }
        Ok(metadata)
    }
}
