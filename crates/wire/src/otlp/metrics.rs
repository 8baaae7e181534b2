//! Views of an `ExportMetricsServiceRequest`.
//!
//! Long because OTLP has five kinds of metrics and four of points; it is their fields and little
//! else, and belongs in one place.

use crate::otlp::common::{Attributes, Resource, Scope, once};
use crate::proto::{Field, Fixed64s, Problem, Reader, Run, Varints, View, Views, WireError};

/// The flag bit of a point that says: no value was recorded, the series has ended.
pub const NO_RECORDED_VALUE: u32 = 1;

/// A metric export request.
#[derive(Clone, Copy, Debug)]
pub struct MetricsRequest<'a> {
    body: Reader<'a>,
}

/// The metrics of one resource.
#[derive(Clone, Copy, Debug)]
pub struct ResourceMetrics<'a> {
    /// What produced the metrics.
    pub resource: Resource<'a>,
    body: Reader<'a>,
}

/// The metrics of one instrumentation scope.
#[derive(Clone, Copy, Debug)]
pub struct ScopeMetrics<'a> {
    /// The library that made the metrics.
    pub scope: Scope<'a>,
    body: Reader<'a>,
}

/// One metric with its points.
#[derive(Clone, Copy, Debug)]
pub struct Metric<'a> {
    /// The metric's name, for example `http.server.request.duration`.
    pub name: &'a str,
    /// What it measures, in words.
    pub description: &'a str,
    /// Its unit in UCUM, for example `s` or `By`.
    pub unit: &'a str,
    /// Its points; `None` where the type is missing or not known to this version.
    pub data: Option<Data<'a>>,
}

/// The points of a metric, by type.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// Current values.
    Gauge {
        /// The points.
        points: Views<'a, NumberPoint<'a>>,
    },
    /// Sums.
    Sum {
        /// The points.
        points: Views<'a, NumberPoint<'a>>,
        /// What the points are relative to.
        temporality: Temporality,
        /// Whether the sum only grows.
        monotonic: bool,
    },
    /// Histograms with explicit bounds.
    Histogram {
        /// The points.
        points: Views<'a, HistogramPoint<'a>>,
        /// What the points are relative to.
        temporality: Temporality,
    },
    /// Histograms with exponential buckets.
    Exponential {
        /// The points.
        points: Views<'a, ExponentialPoint<'a>>,
        /// What the points are relative to.
        temporality: Temporality,
    },
    /// Quantiles computed at the source.
    Summary {
        /// The points.
        points: Views<'a, SummaryPoint<'a>>,
    },
}

/// What a point's value is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Temporality {
    /// Not said, or a value this version does not know.
    Unspecified,
    /// Since the point before.
    Delta,
    /// Since a fixed start.
    Cumulative,
}

/// A number of either type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Double(f64),
}

/// A point of a gauge or sum.
#[derive(Clone, Copy, Debug)]
pub struct NumberPoint<'a> {
    /// The point's attributes.
    pub attributes: RawAttributes<'a>,
    /// When counting began, in nanoseconds since the Unix epoch; 0 where unknown.
    pub start_unix_nano: u64,
    /// When the value was taken, in nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// The value; `None` where none was sent.
    pub value: Option<Number>,
    /// Bit 0 is [`NO_RECORDED_VALUE`].
    pub flags: u32,
    exemplars: Sparse<'a>,
}

/// A point of an explicit-bounds histogram.
#[derive(Clone, Copy, Debug)]
pub struct HistogramPoint<'a> {
    /// The point's attributes.
    pub attributes: RawAttributes<'a>,
    /// When counting began, in nanoseconds since the Unix epoch; 0 where unknown.
    pub start_unix_nano: u64,
    /// When the value was taken, in nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// The number of observations.
    pub count: u64,
    /// The sum of the observations, where known.
    pub sum: Option<f64>,
    /// Bit 0 is [`NO_RECORDED_VALUE`].
    pub flags: u32,
    exemplars: Sparse<'a>,
    body: Reader<'a>,
}

/// A point of an exponential histogram.
#[derive(Clone, Copy, Debug)]
pub struct ExponentialPoint<'a> {
    /// The point's attributes.
    pub attributes: RawAttributes<'a>,
    /// When counting began, in nanoseconds since the Unix epoch; 0 where unknown.
    pub start_unix_nano: u64,
    /// When the value was taken, in nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// The number of observations.
    pub count: u64,
    /// The sum of the observations, where known.
    pub sum: Option<f64>,
    /// Resolution: the bucket base is `2^(2^-scale)`.
    pub scale: i32,
    /// Observations in `[-zero_threshold, zero_threshold]`.
    pub zero_count: u64,
    /// Half the width of the zero bucket.
    pub zero_threshold: f64,
    /// Buckets of positive observations.
    pub positive: Buckets<'a>,
    /// Buckets of negative observations.
    pub negative: Buckets<'a>,
    /// Bit 0 is [`NO_RECORDED_VALUE`].
    pub flags: u32,
    exemplars: Sparse<'a>,
}

/// A run of exponential buckets.
#[derive(Clone, Copy, Debug)]
pub struct Buckets<'a> {
    /// The index of the first count. Index `i` holds `(base^i, base^(i+1)]`.
    pub offset: i32,
    body: Reader<'a>,
}

/// A point of a summary.
#[derive(Clone, Copy, Debug)]
pub struct SummaryPoint<'a> {
    /// The point's attributes.
    pub attributes: RawAttributes<'a>,
    /// When counting began, in nanoseconds since the Unix epoch; 0 where unknown.
    pub start_unix_nano: u64,
    /// When the value was taken, in nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// The number of observations.
    pub count: u64,
    /// The sum of the observations.
    pub sum: f64,
    /// Bit 0 is [`NO_RECORDED_VALUE`].
    pub flags: u32,
    body: Reader<'a>,
}

/// One quantile of a summary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    /// Which one, between 0 and 1.
    pub quantile: f64,
    /// Its value.
    pub value: f64,
}

/// A sampled measurement behind a point.
#[derive(Clone, Copy, Debug)]
pub struct Exemplar<'a> {
    /// When it was taken, in nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// The measurement; `None` where none was sent.
    pub value: Option<Number>,
    /// 8 bytes, or empty; not checked here.
    pub span_id: &'a [u8],
    /// 16 bytes, or empty; not checked here.
    pub trace_id: &'a [u8],
    body: Reader<'a>,
}

/// The attributes of a point, as the bytes that carry them: equal bytes are equal attributes,
/// so a series seen before is recognised without reading its labels.
///
/// The bytes are the attribute fields with their tags, in the order sent.
#[derive(Clone, Copy, Debug)]
pub struct RawAttributes<'a>(Run<'a>);

/// A repeated message field that is mostly absent: not searched for unless seen.
#[derive(Clone, Copy, Debug)]
struct Sparse<'a> {
    body: Reader<'a>,
    field: u32,
}

impl Number {
    /// The number as a float; whole numbers above 2^53 are rounded.
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Double(value) => value,
        }
    }
}

impl<'a> MetricsRequest<'a> {
    /// A view of the request's bytes.
    pub fn new(request: &'a [u8]) -> Self {
        MetricsRequest {
            body: Reader::new(request),
        }
    }

    /// The request's resources.
    pub fn resource_metrics(&self) -> Views<'a, ResourceMetrics<'a>> {
        Views::new(self.body, 1)
    }
}

impl<'a> ResourceMetrics<'a> {
    /// The resource's scopes.
    pub fn scope_metrics(&self) -> Views<'a, ScopeMetrics<'a>> {
        Views::new(self.body, 2)
    }
}

impl<'a> ScopeMetrics<'a> {
    /// The scope's metrics.
    pub fn metrics(&self) -> Views<'a, Metric<'a>> {
        Views::new(self.body, 2)
    }
}

impl<'a> NumberPoint<'a> {
    /// The point's exemplars.
    pub fn exemplars(&self) -> Views<'a, Exemplar<'a>> {
        self.exemplars.views()
    }
}

impl<'a> HistogramPoint<'a> {
    /// The counts of the buckets; one more than there are bounds.
    pub fn bucket_counts(&self) -> Fixed64s<'a> {
        Fixed64s::new(self.body, 6)
    }

    /// The upper bounds of all buckets but the last, which ends at infinity.
    pub fn explicit_bounds(&self) -> impl Iterator<Item = Result<f64, WireError>> + use<'a> {
        Fixed64s::new(self.body, 7).map(|bits| bits.map(f64::from_bits))
    }

    /// The point's exemplars.
    pub fn exemplars(&self) -> Views<'a, Exemplar<'a>> {
        self.exemplars.views()
    }
}

impl<'a> ExponentialPoint<'a> {
    /// The point's exemplars.
    pub fn exemplars(&self) -> Views<'a, Exemplar<'a>> {
        self.exemplars.views()
    }
}

impl<'a> Buckets<'a> {
    /// The counts, from index `offset` on.
    pub fn counts(&self) -> Varints<'a> {
        Varints::new(self.body, 2)
    }
}

impl<'a> SummaryPoint<'a> {
    /// The quantiles.
    pub fn quantiles(&self) -> Views<'a, Quantile> {
        Views::new(self.body, 6)
    }
}

impl<'a> Exemplar<'a> {
    /// The attributes that are not also the point's.
    pub fn filtered_attributes(&self) -> Attributes<'a> {
        Views::new(self.body, 7)
    }
}

impl<'a> RawAttributes<'a> {
    /// The attributes' bytes; where they are not in one piece, gathered in `scratch`.
    #[inline]
    pub fn raw<'s>(&self, scratch: &'s mut Vec<u8>) -> Result<&'s [u8], WireError>
    where
        'a: 's,
    {
        self.0.raw(scratch)
    }

    /// The attributes, read.
    pub fn iter(&self) -> Attributes<'a> {
        self.0.views()
    }
}

impl<'a> Sparse<'a> {
    fn none() -> Self {
        Sparse {
            body: Reader::new(&[]),
            field: 0,
        }
    }

    fn views<V>(&self) -> Views<'a, V> {
        Views::new(self.body, self.field)
    }
}

impl<'a> View<'a> for ResourceMetrics<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut resource = None;
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            if field.number == 1 {
                once(&mut resource, &field)?;
            }
        }
        Ok(ResourceMetrics {
            resource: resource.unwrap_or(Resource::empty()),
            body,
        })
    }
}

impl<'a> View<'a> for ScopeMetrics<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut scope = None;
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            if field.number == 1 {
                once(&mut scope, &field)?;
            }
        }
        Ok(ScopeMetrics {
            scope: scope.unwrap_or(Scope::empty()),
            body,
        })
    }
}

impl<'a> View<'a> for Metric<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut metric = Metric {
            name: "",
            description: "",
            unit: "",
            data: None,
        };
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => metric.name = field.string()?,
                2 => metric.description = field.string()?,
                3 => metric.unit = field.string()?,
                5 | 7 | 9 | 10 | 11 => {
                    if metric.data.is_some() {
                        return Err(field.error(Problem::Repeated(field.number)));
                    }
                    metric.data = Some(Data::read(&field)?);
                }
                _ => {}
            }
        }
        Ok(metric)
    }
}

impl<'a> Data<'a> {
    fn read(field: &Field<'a>) -> Result<Self, WireError> {
        let body = field.message()?;
        let mut temporality = Temporality::Unspecified;
        let mut monotonic = false;
        if matches!(field.number, 7 | 9 | 10) {
            let mut fields = body;
            while let Some(field) = fields.next_field()? {
                match field.number {
                    2 => {
                        temporality = match field.enumeration()? {
                            1 => Temporality::Delta,
                            2 => Temporality::Cumulative,
                            _ => Temporality::Unspecified,
                        };
                    }
                    3 => monotonic = field.varint()? != 0,
                    _ => {}
                }
            }
        }
        Ok(match field.number {
            5 => Data::Gauge {
                points: Views::new(body, 1),
            },
            7 => Data::Sum {
                points: Views::new(body, 1),
                temporality,
                monotonic,
            },
            9 => Data::Histogram {
                points: Views::new(body, 1),
                temporality,
            },
            10 => Data::Exponential {
                points: Views::new(body, 1),
                temporality,
            },
            _ => Data::Summary {
                points: Views::new(body, 1),
            },
        })
    }
}

impl<'a> View<'a> for NumberPoint<'a> {
    #[inline]
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut point = NumberPoint {
            attributes: RawAttributes(Run::none(body, 7)),
            start_unix_nano: 0,
            time_unix_nano: 0,
            value: None,
            flags: 0,
            exemplars: Sparse::none(),
        };
        let mut fields = body;
        loop {
            let before = fields.rest();
            let Some(field) = fields.next_field()? else {
                return Ok(point);
            };
            match field.number {
                2 => point.start_unix_nano = field.fixed64()?,
                3 => point.time_unix_nano = field.fixed64()?,
                4 => point.value = Some(Number::Double(field.double()?)),
                5 => point.exemplars = Sparse { body, field: 5 },
                6 => point.value = Some(Number::Int(field.fixed64()? as i64)),
                7 => point.attributes.0.note(before, fields.rest()),
                8 => point.flags = field.varint()? as u32,
                _ => {}
            }
        }
    }
}

impl<'a> View<'a> for HistogramPoint<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut point = HistogramPoint {
            attributes: RawAttributes(Run::none(body, 9)),
            start_unix_nano: 0,
            time_unix_nano: 0,
            count: 0,
            sum: None,
            flags: 0,
            exemplars: Sparse::none(),
            body,
        };
        let mut fields = body;
        loop {
            let before = fields.rest();
            let Some(field) = fields.next_field()? else {
                return Ok(point);
            };
            match field.number {
                2 => point.start_unix_nano = field.fixed64()?,
                3 => point.time_unix_nano = field.fixed64()?,
                4 => point.count = field.fixed64()?,
                5 => point.sum = Some(field.double()?),
                8 => point.exemplars = Sparse { body, field: 8 },
                9 => point.attributes.0.note(before, fields.rest()),
                10 => point.flags = field.varint()? as u32,
                _ => {}
            }
        }
    }
}

impl<'a> View<'a> for ExponentialPoint<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut point = ExponentialPoint {
            attributes: RawAttributes(Run::none(body, 1)),
            start_unix_nano: 0,
            time_unix_nano: 0,
            count: 0,
            sum: None,
            scale: 0,
            zero_count: 0,
            zero_threshold: 0.0,
            positive: Buckets::none(),
            negative: Buckets::none(),
            flags: 0,
            exemplars: Sparse::none(),
        };
        let (mut positive, mut negative) = (None, None);
        let mut fields = body;
        loop {
            let before = fields.rest();
            let Some(field) = fields.next_field()? else {
                break;
            };
            match field.number {
                1 => point.attributes.0.note(before, fields.rest()),
                2 => point.start_unix_nano = field.fixed64()?,
                3 => point.time_unix_nano = field.fixed64()?,
                4 => point.count = field.fixed64()?,
                5 => point.sum = Some(field.double()?),
                6 => point.scale = field.zigzag32()?,
                7 => point.zero_count = field.fixed64()?,
                8 => once(&mut positive, &field)?,
                9 => once(&mut negative, &field)?,
                10 => point.flags = field.varint()? as u32,
                11 => point.exemplars = Sparse { body, field: 11 },
                14 => point.zero_threshold = field.double()?,
                _ => {}
            }
        }
        point.positive = positive.unwrap_or(Buckets::none());
        point.negative = negative.unwrap_or(Buckets::none());
        Ok(point)
    }
}

impl Buckets<'_> {
    fn none() -> Self {
        Buckets {
            offset: 0,
            body: Reader::new(&[]),
        }
    }
}

impl<'a> View<'a> for Buckets<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut buckets = Buckets { offset: 0, body };
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            if field.number == 1 {
                buckets.offset = field.zigzag32()?;
            }
        }
        Ok(buckets)
    }
}

impl<'a> View<'a> for SummaryPoint<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut point = SummaryPoint {
            attributes: RawAttributes(Run::none(body, 7)),
            start_unix_nano: 0,
            time_unix_nano: 0,
            count: 0,
            sum: 0.0,
            flags: 0,
            body,
        };
        let mut fields = body;
        loop {
            let before = fields.rest();
            let Some(field) = fields.next_field()? else {
                return Ok(point);
            };
            match field.number {
                2 => point.start_unix_nano = field.fixed64()?,
                3 => point.time_unix_nano = field.fixed64()?,
                4 => point.count = field.fixed64()?,
                5 => point.sum = field.double()?,
                7 => point.attributes.0.note(before, fields.rest()),
                8 => point.flags = field.varint()? as u32,
                _ => {}
            }
        }
    }
}

impl<'a> View<'a> for Quantile {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut quantile = Quantile {
            quantile: 0.0,
            value: 0.0,
        };
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => quantile.quantile = field.double()?,
                2 => quantile.value = field.double()?,
                _ => {}
            }
        }
        Ok(quantile)
    }
}

impl<'a> View<'a> for Exemplar<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut exemplar = Exemplar {
            time_unix_nano: 0,
            value: None,
            span_id: &[],
            trace_id: &[],
            body,
        };
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            match field.number {
                2 => exemplar.time_unix_nano = field.fixed64()?,
                3 => exemplar.value = Some(Number::Double(field.double()?)),
                4 => exemplar.span_id = field.bytes()?,
                5 => exemplar.trace_id = field.bytes()?,
                6 => exemplar.value = Some(Number::Int(field.fixed64()? as i64)),
                _ => {}
            }
        }
        Ok(exemplar)
    }
}
