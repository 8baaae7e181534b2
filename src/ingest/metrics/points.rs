//! Points to samples, one function for each type.
//!
//! Exemplars keep the trace and span id, and the filtered attributes as long as all labels
//! together stay within 128 characters (OpenMetrics); those of an explicit histogram go to the
//! first bucket that holds their value.

use std::sync::Arc;

use slogate_series::{Buckets, Exemplar, Histogram, LabelsBuilder, stale_nan};
use slogate_tsdb::{ExemplarRow, FloatRow, HistogramRow, SeriesRef};
use slogate_wire::WireError;
use slogate_wire::otlp::metrics::NO_RECORDED_VALUE;
use slogate_wire::otlp::{
    self, ExponentialPoint, HistogramPoint, NumberPoint, Quantile, SummaryPoint,
};

use super::delta::{Delta, Total};
use super::naming::{label_name, value_text};
use super::table::{ClassicSeries, PointSeries, SummarySeries};
use super::{Current, Moment, PendingDelta, Taken};
use crate::ingest::cells::hex;
use crate::ingest::outcome::Reason;

/// The zero threshold of exponential histograms that do not send one, as in Prometheus.
const ZERO_THRESHOLD: f64 = 1e-128;

const EXEMPLAR_MAX_CHARS: usize = 128;

/// A point's answer: taken, refused, or bytes that are no point.
type Read = Result<Result<(), Reason>, WireError>;

impl Moment {
    /// `None` for a point without a time. Times beyond the year 292 million are cut.
    fn of(time_ns: u64, start_ns: u64, flags: u32) -> Option<Moment> {
        (time_ns != 0).then_some(Moment {
            t_ms: (time_ns / 1_000_000) as i64,
            start_ms: (start_ns / 1_000_000) as i64,
            recorded: flags & NO_RECORDED_VALUE == 0,
        })
    }
}

impl Taken<'_> {
    pub(super) fn number(
        &mut self,
        current: &mut Current<'_, '_>,
        point: &NumberPoint<'_>,
    ) -> Read {
        let Some(moment) = Moment::of(point.time_unix_nano, point.start_unix_nano, point.flags)
        else {
            return Ok(Err(Reason::NoTime));
        };
        if moment.recorded && point.value.is_none() {
            return Ok(Err(Reason::NoValue));
        }
        let found = self.series(current, &point.attributes, is_single, 1, |maker| {
            maker.make("", None).map(PointSeries::Single)
        })?;
        let (series, delta) = match found {
            Ok(found) => found,
            Err(reason) => return Ok(Err(reason)),
        };
        if let PointSeries::Single(series) = series {
            for exemplar in point.exemplars() {
                self.exemplar(series, &exemplar?, moment)?;
            }
        }
        let value = point.value.map_or(0.0, otlp::Number::as_f64);
        let span = (point.start_unix_nano, point.time_unix_nano);
        self.write_or_defer(current, &series, delta, moment, span, Total::Number(value));
        Ok(Ok(()))
    }

    pub(super) fn classic(
        &mut self,
        current: &mut Current<'_, '_>,
        point: &HistogramPoint<'_>,
    ) -> Read {
        let Some(moment) = Moment::of(point.time_unix_nano, point.start_unix_nano, point.flags)
        else {
            return Ok(Err(Reason::NoTime));
        };
        let bounds = point.explicit_bounds().collect::<Result<Vec<_>, _>>()?;
        let mut counts = point
            .bucket_counts()
            .map(|count| count.map(|count| count as f64))
            .collect::<Result<Vec<_>, _>>()?;
        if !bounds.windows(2).all(|pair| pair[0] < pair[1]) || bounds.iter().any(|b| b.is_nan()) {
            return Ok(Err(Reason::Histogram));
        }
        if counts.is_empty() && bounds.is_empty() {
            counts.push(point.count as f64);
        }
        if counts.len() != bounds.len() + 1 && moment.recorded {
            return Ok(Err(Reason::Histogram));
        }
        // An upper bound of infinity is the last bucket already.
        let finite = bounds
            .iter()
            .filter(|bound| **bound != f64::INFINITY)
            .count();
        if finite < bounds.len() {
            return Ok(Err(Reason::Histogram));
        }
        let has_sum = point.sum.is_some();
        let fits = |series: &PointSeries| match series {
            PointSeries::Classic(known) => {
                let same_sum = known.sum.is_some() || !has_sum;
                !moment.recorded || (*known.bounds == *bounds && same_sum)
            }
            _ => false,
        };
        let wanted = bounds.len() + 3;
        let found = self.series(current, &point.attributes, fits, wanted, |maker| {
            let ends = bounds.iter().copied().chain([f64::INFINITY]);
            let buckets = ends.map(|bound| maker.make("_bucket", Some(("le", bound))));
            Ok(PointSeries::Classic(Arc::new(ClassicSeries {
                buckets: buckets.collect::<Result<_, _>>()?,
                sum: has_sum.then(|| maker.make("_sum", None)).transpose()?,
                count: maker.make("_count", None)?,
                bounds: bounds.clone().into(),
            })))
        })?;
        let (series, delta) = match found {
            Ok(found) => found,
            Err(reason) => return Ok(Err(reason)),
        };
        if let PointSeries::Classic(known) = &series {
            for exemplar in point.exemplars() {
                let exemplar = exemplar?;
                let value = exemplar.value.map_or(f64::NAN, otlp::Number::as_f64);
                let bucket = known.bounds.partition_point(|bound| *bound < value);
                if let Some(series) = known.buckets.get(bucket) {
                    self.exemplar(*series, &exemplar, moment)?;
                }
            }
        }
        let total = Total::Classic(counts, point.sum.unwrap_or(0.0), point.count as f64);
        let span = (point.start_unix_nano, point.time_unix_nano);
        self.write_or_defer(current, &series, delta, moment, span, total);
        Ok(Ok(()))
    }

    pub(super) fn native(
        &mut self,
        current: &mut Current<'_, '_>,
        point: &ExponentialPoint<'_>,
    ) -> Read {
        let Some(moment) = Moment::of(point.time_unix_nano, point.start_unix_nano, point.flags)
        else {
            return Ok(Err(Reason::NoTime));
        };
        let Some(histogram) = native_histogram(point)? else {
            return Ok(Err(Reason::Histogram));
        };
        let found = self.series(current, &point.attributes, is_single, 1, |maker| {
            maker.make("", None).map(PointSeries::Single)
        })?;
        let (series, delta) = match found {
            Ok(found) => found,
            Err(reason) => return Ok(Err(reason)),
        };
        if let PointSeries::Single(series) = series {
            for exemplar in point.exemplars() {
                self.exemplar(series, &exemplar?, moment)?;
            }
        }
        let span = (point.start_unix_nano, point.time_unix_nano);
        self.write_or_defer(
            current,
            &series,
            delta,
            moment,
            span,
            Total::Native(histogram),
        );
        Ok(Ok(()))
    }

    pub(super) fn summary(
        &mut self,
        current: &mut Current<'_, '_>,
        point: &SummaryPoint<'_>,
    ) -> Read {
        let Some(moment) = Moment::of(point.time_unix_nano, point.start_unix_nano, point.flags)
        else {
            return Ok(Err(Reason::NoTime));
        };
        let quantiles = point.quantiles().collect::<Result<Vec<Quantile>, _>>()?;
        let fits = |series: &PointSeries| match series {
            PointSeries::Summary(known) => {
                let known = known
                    .quantiles
                    .iter()
                    .map(|(quantile, _)| quantile.to_bits());
                let sent = quantiles.iter().map(|quantile| quantile.quantile.to_bits());
                !moment.recorded || known.eq(sent)
            }
            _ => false,
        };
        let found = self.series(
            current,
            &point.attributes,
            fits,
            quantiles.len() + 2,
            |maker| {
                let mut make = |at: &Quantile| {
                    let series = maker.make("", Some(("quantile", at.quantile)))?;
                    Ok((at.quantile, series))
                };
                Ok(PointSeries::Summary(Arc::new(SummarySeries {
                    quantiles: quantiles.iter().map(&mut make).collect::<Result<_, _>>()?,
                    sum: maker.make("_sum", None)?,
                    count: maker.make("_count", None)?,
                })))
            },
        )?;
        let series = match found {
            Ok((series, _)) => series,
            Err(reason) => return Ok(Err(reason)),
        };
        if let PointSeries::Summary(known) = &series {
            let values = quantiles.iter().map(|quantile| quantile.value);
            let values = values.chain(std::iter::repeat(0.0));
            for ((_, series), value) in known.quantiles.iter().zip(values) {
                self.float(*series, moment, value);
            }
            self.float(known.sum, moment, point.sum);
            self.float(known.count, moment, point.count as f64);
        }
        Ok(Ok(()))
    }

    /// Writes a cumulative value at once, and puts a delta aside.
    fn write_or_defer(
        &mut self,
        current: &Current<'_, '_>,
        series: &PointSeries,
        delta: Option<Arc<Delta>>,
        moment: Moment,
        (start_ns, end_ns): (u64, u64),
        total: Total,
    ) {
        match delta {
            Some(delta) if moment.recorded => self.deltas.push(PendingDelta {
                delta,
                series: series.clone(),
                start_ns,
                end_ns,
                total,
                metric: current.translated.clone(),
            }),
            _ => self.write_total(series, moment, &total),
        }
    }

    /// Writes a cumulative value; a moment without a recorded one ends every series of it.
    pub(super) fn write_total(&mut self, series: &PointSeries, moment: Moment, total: &Total) {
        match (series, total) {
            (PointSeries::Single(series), Total::Number(value)) => {
                self.float(*series, moment, *value);
            }
            (PointSeries::Single(series), Total::Native(histogram)) => {
                let histogram = match moment.recorded {
                    true => histogram.clone(),
                    false => Histogram::stale(),
                };
                self.batch.histograms.push(HistogramRow {
                    series: *series,
                    t_ms: moment.t_ms,
                    start_ms: moment.start_ms,
                    histogram: Arc::new(histogram),
                });
            }
            (PointSeries::Classic(known), Total::Classic(counts, sum, count)) => {
                let mut cumulative = 0.0;
                for (at, series) in known.buckets.iter().enumerate() {
                    cumulative += counts.get(at).copied().unwrap_or(0.0);
                    // The last bucket holds everything, also what the counts left out.
                    let last = at + 1 == known.buckets.len();
                    self.float(*series, moment, if last { *count } else { cumulative });
                }
                if let Some(series) = known.sum {
                    self.float(series, moment, *sum);
                }
                self.float(known.count, moment, *count);
            }
            // A series keeps its shape for life.
            _ => debug_assert!(false, "a value of another shape"),
        }
    }

    fn float(&mut self, series: SeriesRef, moment: Moment, value: f64) {
        self.batch.floats.push(FloatRow {
            series,
            t_ms: moment.t_ms,
            start_ms: moment.start_ms,
            value: if moment.recorded { value } else { stale_nan() },
        });
    }

    fn exemplar(
        &mut self,
        series: SeriesRef,
        exemplar: &otlp::Exemplar<'_>,
        moment: Moment,
    ) -> Result<(), WireError> {
        let Some(value) = exemplar.value else {
            return Ok(());
        };
        let mut labels = LabelsBuilder::default();
        let mut chars = 0;
        for (name, id) in [
            ("trace_id", exemplar.trace_id),
            ("span_id", exemplar.span_id),
        ] {
            if !id.is_empty() && id.len() <= 16 {
                chars += name.len() + 2 * id.len();
                labels.set(name, hex(id));
            }
        }
        for attribute in exemplar.filtered_attributes() {
            let attribute = attribute?;
            let value = value_text(&attribute.value)?;
            let Some(name) = label_name(attribute.key) else {
                continue;
            };
            chars += name.chars().count() + value.chars().count();
            if chars > EXEMPLAR_MAX_CHARS {
                break;
            }
            labels.set(name, value);
        }
        let t_ms = match exemplar.time_unix_nano {
            0 => moment.t_ms,
            nanos => (nanos / 1_000_000) as i64,
        };
        self.batch.exemplars.push(ExemplarRow {
            series,
            exemplar: Exemplar {
                labels: labels.build(),
                value: value.as_f64(),
                t_ms,
            },
        });
        Ok(())
    }
}

fn is_single(series: &PointSeries) -> bool {
    matches!(series, PointSeries::Single(_))
}

/// The native histogram of a point; `None` where it cannot be represented.
///
/// OTLP numbers buckets by their lower bound, Prometheus by their upper: one more.
fn native_histogram(point: &ExponentialPoint<'_>) -> Result<Option<Histogram>, WireError> {
    use slogate_series::histogram::{SCHEMA_MAX, SCHEMA_MIN};
    if point.scale < i32::from(SCHEMA_MIN) {
        return Ok(None);
    }
    let schema = point.scale.min(i32::from(SCHEMA_MAX)) as i8;
    let levels = point.scale.abs_diff(i32::from(schema));
    let read = |buckets: &otlp::Buckets<'_>| -> Result<Option<Buckets>, WireError> {
        let mut entries = Vec::new();
        for (at, count) in (1i64..).zip(buckets.counts()) {
            let count = count?;
            if count == 0 {
                continue;
            }
            let Ok(index) = i32::try_from(i64::from(buckets.offset) + at) else {
                return Ok(None);
            };
            entries.push((index, count as f64));
        }
        Ok(Some(Buckets::from_sorted(entries).downscale(levels)))
    };
    let (Some(positive), Some(negative)) = (read(&point.positive)?, read(&point.negative)?) else {
        return Ok(None);
    };
    let threshold = point.zero_threshold;
    Ok(Some(Histogram {
        schema,
        zero_threshold: if threshold > 0.0 {
            threshold
        } else {
            ZERO_THRESHOLD
        },
        zero_count: point.zero_count as f64,
        count: point.count as f64,
        sum: point.sum.unwrap_or(0.0),
        positive,
        negative,
        ..Histogram::default()
    }))
}
