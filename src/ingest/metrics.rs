//! OTLP metrics to Prometheus series.
//!
//! Policy (names and labels are in [`naming`] and [`labels`], deltas in [`delta`]):
//! - Gauge and non-monotonic sum: a gauge. Monotonic sum: a counter. Explicit histogram:
//!   `_bucket`, `_sum`, `_count`. Exponential histogram: a native histogram. Summary: the
//!   quantiles, `_sum`, `_count`.
//! - Delta points are added up; a temporality that is neither delta nor cumulative refuses the
//!   point.
//! - A point with the no-recorded-value flag ends its series with stale markers.
//! - Scopes do not become labels; two scopes with one metric name write one series.
//! - A point whose bounds, counts or scale contradict each other is refused; others are not.
//! - Over the service's budget new series are refused, known ones go on. Telemetry without
//!   `service.name` is taken, and shares one budget.
//! - `target_info` is written at most once a minute for each resource.
//! - A request's samples reach the store in one append. Rows the store refuses (too old, too
//!   far ahead, another value at the same time) are counted as refused points, at most one per
//!   row.

mod delta;
mod labels;
mod naming;
mod points;
mod table;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use slogate_series::METRIC_NAME;
use slogate_tsdb::{Batch, FloatRow, Metadata, MetricKind, Refusal, SeriesError, SeriesRef};
use slogate_wire::WireError;
use slogate_wire::otlp::{
    Attributes, Data, Metric, MetricsRequest, RawAttributes, ResourceMetrics, Temporality,
};

pub(super) use labels::ResourceLabels;
pub(super) use table::MetricTable;

use super::Ingest;
use super::identity::{Source, cut};
use super::outcome::{IngestError, Outcome, Reason, Rejections, Signal};
use delta::{Delta, Total};
use naming::{NameKind, metric_name, unit_name};
use table::{MetricId, PointSeries, Shape, TargetInfo};

/// How often `target_info` is written, in ms: well inside PromQL's look-back of five minutes.
const TARGET_INFO_EVERY_MS: i64 = 60_000;

/// Attributes of one point, as bytes: they are kept for as long as the series is known.
const ATTRIBUTES_MAX_BYTES: usize = 32 << 10;

/// What a request's points came down to.
struct Taken<'i> {
    ingest: &'i Ingest,
    now_ms: i64,
    batch: Batch,
    /// Deltas, added up only when the whole request was read.
    deltas: Vec<PendingDelta>,
    /// The resources with the number of their points that the store was offered.
    sources: Vec<(Arc<Source>, u64)>,
    points: u64,
    rejections: Rejections,
    scratch: Vec<u8>,
}

struct PendingDelta {
    delta: Arc<Delta>,
    series: PointSeries,
    start_ns: u64,
    end_ns: u64,
    total: Total,
    metric: Arc<str>,
}

/// A point's series, and its running total where it is a delta.
type Found = (PointSeries, Option<Arc<Delta>>);

/// The metric being read.
struct Current<'a, 't> {
    source: &'t Source,
    table: &'t mut MetricTable,
    metric: usize,
    name: &'a str,
    translated: Arc<str>,
}

/// When a point was taken and since when it counts, in ms, and whether it has a value.
#[derive(Clone, Copy)]
struct Moment {
    t_ms: i64,
    start_ms: i64,
    recorded: bool,
}

impl Ingest {
    pub(super) fn take_metrics(
        &self,
        request: &[u8],
        now_ms: i64,
        rejections: &mut Rejections,
    ) -> Result<Outcome, IngestError> {
        self.check_room()?;
        let mut taken = Taken {
            ingest: self,
            now_ms,
            batch: Batch::default(),
            deltas: Vec::new(),
            sources: Vec::new(),
            points: 0,
            rejections: Rejections::default(),
            scratch: Vec::new(),
        };
        for resource_metrics in MetricsRequest::new(request).resource_metrics() {
            taken.resource(&resource_metrics?)?;
        }
        taken.add_deltas();
        taken.append()?;
        self.commit(now_ms, |additions| {
            for (source, points) in &taken.sources {
                additions.extend(self.coverage(source, Signal::Points, *points, now_ms));
            }
        })?;
        *rejections = taken.rejections;
        Ok(rejections.outcome(taken.points, "points"))
    }
}

impl Taken<'_> {
    fn resource(&mut self, resource: &ResourceMetrics<'_>) -> Result<(), WireError> {
        let source = self
            .ingest
            .directory
            .source(&resource.resource, self.now_ms)?;
        let source = match source {
            Ok(source) => source,
            Err(reason) => return self.refuse_all(resource, reason),
        };
        let before = self.points - self.rejections.total();
        let rows_before = self.batch.floats.len() + self.batch.histograms.len();
        {
            let mut table = source.metrics.lock();
            for scope in resource.scope_metrics() {
                for metric in scope?.metrics() {
                    self.metric(&source, &mut table, &metric?)?;
                }
            }
            if rows_before < self.batch.floats.len() + self.batch.histograms.len() {
                self.target_info(&source, &mut table);
            }
        }
        let taken = self.points - self.rejections.total() - before;
        self.sources.push((source, taken));
        Ok(())
    }

    fn refuse_all(
        &mut self,
        resource: &ResourceMetrics<'_>,
        reason: Reason,
    ) -> Result<(), WireError> {
        for scope in resource.scope_metrics() {
            for metric in scope?.metrics() {
                let metric = metric?;
                self.refuse_metric(&metric, reason)?;
            }
        }
        Ok(())
    }

    fn refuse_metric(&mut self, metric: &Metric<'_>, reason: Reason) -> Result<(), WireError> {
        let count = match &metric.data {
            // Nobody knows how many points an unknown type has.
            None => Ok(1),
            Some(Data::Gauge { points } | Data::Sum { points, .. }) => count(*points),
            Some(Data::Histogram { points, .. }) => count(*points),
            Some(Data::Exponential { points, .. }) => count(*points),
            Some(Data::Summary { points }) => count(*points),
        }?;
        self.points += count;
        let place = || format!("metric {:?}", cut(metric.name));
        self.rejections.add(reason, count, place);
        Ok(())
    }

    fn metric(
        &mut self,
        source: &Source,
        table: &mut MetricTable,
        metric: &Metric<'_>,
    ) -> Result<(), WireError> {
        let Some(data) = &metric.data else {
            return self.refuse_metric(metric, Reason::UnknownType);
        };
        let shape = shape_of(data);
        if let Shape::Sum(temporality, _)
        | Shape::Histogram(temporality)
        | Shape::Exponential(temporality) = shape
            && temporality == Temporality::Unspecified
        {
            return self.refuse_metric(metric, Reason::Temporality);
        }
        let at = match self.find_metric(source, table, metric, shape) {
            Ok(at) => at,
            Err(reason) => return self.refuse_metric(metric, reason),
        };
        let mut current = Current {
            source,
            translated: table.metric(at).translated.clone(),
            table,
            metric: at,
            name: metric.name,
        };
        match *data {
            Data::Gauge { points } | Data::Sum { points, .. } => {
                self.each(points, &mut current, Self::number)
            }
            Data::Histogram { points, .. } => self.each(points, &mut current, Self::classic),
            Data::Exponential { points, .. } => self.each(points, &mut current, Self::native),
            Data::Summary { points } => self.each(points, &mut current, Self::summary),
        }
    }

    fn find_metric(
        &mut self,
        source: &Source,
        table: &mut MetricTable,
        metric: &Metric<'_>,
        shape: Shape,
    ) -> Result<usize, Reason> {
        let id = MetricId {
            name: metric.name,
            unit: metric.unit,
            shape,
        };
        if let Some(at) = table.find(&id) {
            return Ok(at);
        }
        self.check_budget(source, 1)?;
        let kind = match shape {
            Shape::Sum(_, true) => NameKind::Counter,
            Shape::Gauge => NameKind::Gauge,
            _ => NameKind::Other,
        };
        if metric.name.len().max(metric.unit.len()) > super::identity::VALUE_MAX_BYTES {
            return Err(Reason::Name);
        }
        let name = metric_name(metric.name, metric.unit, kind).ok_or(Reason::Name)?;
        let metadata = Metadata {
            kind: match shape {
                Shape::Sum(_, true) => MetricKind::Counter,
                Shape::Gauge | Shape::Sum(_, false) => MetricKind::Gauge,
                Shape::Histogram(_) | Shape::Exponential(_) => MetricKind::Histogram,
                Shape::Summary => MetricKind::Summary,
            },
            unit: unit_name(metric.unit).into(),
            help: cut(metric.description).into(),
        };
        self.ingest.store.set_metadata(&name, metadata);
        Ok(table.insert(&id, name.into()))
    }

    fn check_budget(&self, source: &Source, series: usize) -> Result<(), Reason> {
        let used = source.account.metric_series.load(Ordering::Relaxed);
        match used.saturating_add(series) <= self.ingest.options.metric_series_per_service {
            true => Ok(()),
            false => Err(Reason::SeriesBudget),
        }
    }

    /// Reads each point with `read`, which says why a point is refused.
    fn each<'a, V: slogate_wire::proto::View<'a>>(
        &mut self,
        points: slogate_wire::proto::Views<'a, V>,
        current: &mut Current<'_, '_>,
        read: impl Fn(&mut Self, &mut Current<'_, '_>, &V) -> Result<Result<(), Reason>, WireError>,
    ) -> Result<(), WireError> {
        for point in points {
            self.points += 1;
            if let Err(reason) = read(self, current, &point?)? {
                let place = || format!("metric {:?}", cut(current.name));
                self.rejections.add(reason, 1, place);
            }
        }
        Ok(())
    }

    /// The series of a point: known where `fits` says so, else made by `make` from a function
    /// that turns (name suffix, extra label) into a series.
    fn series(
        &mut self,
        current: &mut Current<'_, '_>,
        attributes: &RawAttributes<'_>,
        fits: impl Fn(&PointSeries) -> bool,
        wanted: usize,
        make: impl FnOnce(&mut SeriesMaker<'_>) -> Result<PointSeries, Reason>,
    ) -> Result<Result<Found, Reason>, WireError> {
        let raw = attributes.raw(&mut self.scratch)?;
        let hash = current.table.hash(raw);
        let known = current
            .table
            .point(current.metric, hash, raw, self.now_ms)
            .filter(|known| fits(&known.series));
        if let Some(known) = known {
            return Ok(Ok((known.series.clone(), known.delta.clone())));
        }
        if raw.len() > ATTRIBUTES_MAX_BYTES {
            return Ok(Err(Reason::LabelSet));
        }
        let raw = raw.to_vec();
        let made = self.make_series(current, attributes.iter(), wanted, make)?;
        let series = match made {
            Ok(series) => series,
            Err(reason) => return Ok(Err(reason)),
        };
        let grown = current
            .table
            .put_point(current.metric, hash, &raw, self.now_ms, series);
        let used = &current.source.account.metric_series;
        match usize::try_from(grown) {
            Ok(grown) => used.fetch_add(grown, Ordering::Relaxed),
            Err(_) => used.fetch_sub(grown.unsigned_abs(), Ordering::Relaxed),
        };
        let point = current.table.point(current.metric, hash, &raw, self.now_ms);
        Ok(point
            .map(|point| (point.series.clone(), point.delta.clone()))
            .ok_or(Reason::StoreFull))
    }

    fn make_series(
        &self,
        current: &Current<'_, '_>,
        attributes: Attributes<'_>,
        wanted: usize,
        make: impl FnOnce(&mut SeriesMaker<'_>) -> Result<PointSeries, Reason>,
    ) -> Result<Result<PointSeries, Reason>, WireError> {
        if let Err(reason) = self.check_budget(current.source, wanted) {
            return Ok(Err(reason));
        }
        let base = match current.source.labels.of_point(attributes)? {
            Ok(base) => base,
            Err(reason) => return Ok(Err(reason)),
        };
        Ok(make(&mut SeriesMaker {
            store: &self.ingest.store,
            name: &current.translated,
            base,
        }))
    }

    fn target_info(&mut self, source: &Source, table: &mut MetricTable) {
        let Some(labels) = &source.labels.target_info else {
            return;
        };
        let last = self.batch.floats.iter().map(|row| row.t_ms);
        let last = last.chain(self.batch.histograms.iter().map(|row| row.t_ms));
        let Some(t_ms) = last.max() else {
            return;
        };
        // A point from the future must not take this one with it.
        let t_ms = t_ms.min(self.now_ms);
        let known = match table.target_info {
            Some(known) if t_ms - known.written_ms < TARGET_INFO_EVERY_MS => return,
            Some(known) => known.series,
            None => match self.ingest.store.series(labels) {
                Ok(series) => series,
                // The store is full: the points say so, and this series is only about them.
                Err(_) => return,
            },
        };
        table.target_info = Some(TargetInfo {
            series: known,
            written_ms: t_ms,
        });
        self.batch.floats.push(FloatRow {
            series: known,
            t_ms,
            start_ms: 0,
            value: 1.0,
        });
    }

    /// Adds up the deltas and puts the results with the other samples.
    fn add_deltas(&mut self) {
        for pending in std::mem::take(&mut self.deltas) {
            let PendingDelta {
                delta,
                series,
                start_ns,
                end_ns,
                total,
                metric,
            } = pending;
            let Some(sum) = delta.add(start_ns, end_ns, total) else {
                let place = || format!("series of {metric}");
                self.rejections.add(Reason::DeltaOrder, 1, place);
                continue;
            };
            let mut moment = Moment {
                t_ms: (end_ns / 1_000_000) as i64,
                start_ms: sum.start_ms,
                recorded: true,
            };
            if let Some(zero_ms) = sum.zero_ms {
                let at = moment.t_ms;
                moment.t_ms = zero_ms;
                self.write_total(&series, moment, &sum.total.zero());
                moment.t_ms = at;
            }
            self.write_total(&series, moment, &sum.total);
        }
    }

    fn append(&mut self) -> Result<(), IngestError> {
        let batch = &self.batch;
        if batch.floats.is_empty() && batch.histograms.is_empty() && batch.exemplars.is_empty() {
            return Ok(());
        }
        let report = self
            .ingest
            .store
            .append(batch, self.now_ms)
            .map_err(|error| IngestError::Storage(error.to_string()))?;
        let refused = report.refused;
        for (reason, refusal, rows) in [
            (Reason::TooOld, Refusal::TooOld, refused.too_old),
            (Reason::TooNew, Refusal::TooNew, refused.too_new),
            (Reason::Duplicate, Refusal::Duplicate, refused.duplicate),
            (
                Reason::SeriesGone,
                Refusal::UnknownSeries,
                refused.unknown_series,
            ),
            (Reason::Histogram, Refusal::Malformed, refused.malformed),
        ] {
            let left = self.points.saturating_sub(self.rejections.total());
            let example = || {
                let mut examples = report.examples.iter();
                let example = examples.find(|row| row.reason == refusal);
                example.map_or_else(String::new, ToString::to_string)
            };
            self.rejections.add(reason, rows.min(left), example);
        }
        if refused.unknown_series > 0 {
            self.ingest.directory.forget_series();
        }
        Ok(())
    }
}

/// Makes the series of one point.
struct SeriesMaker<'m> {
    store: &'m slogate_tsdb::Store,
    name: &'m str,
    base: slogate_series::LabelsBuilder,
}

impl SeriesMaker<'_> {
    /// The series `name` + `suffix` with one more label, where given.
    fn make(&mut self, suffix: &str, extra: Option<(&str, f64)>) -> Result<SeriesRef, Reason> {
        let mut labels = self.base.clone();
        match suffix {
            "" => labels.set(METRIC_NAME, self.name),
            suffix => labels.set(METRIC_NAME, format!("{}{suffix}", self.name)),
        };
        if let Some((label, value)) = extra {
            labels.set(label, bound_text(value));
        }
        self.store
            .series(&labels.build())
            .map_err(|error| match error {
                SeriesError::TooMany { .. } => Reason::StoreFull,
                SeriesError::TooLarge | SeriesError::NoLabels => Reason::LabelSet,
            })
    }
}

/// A bound or quantile as a label value: the shortest decimal without exponent.
fn bound_text(value: f64) -> String {
    if value == f64::INFINITY {
        return "+Inf".to_owned();
    }
    if value == f64::NEG_INFINITY {
        return "-Inf".to_owned();
    }
    value.to_string()
}

fn shape_of(data: &Data<'_>) -> Shape {
    match data {
        Data::Gauge { .. } => Shape::Gauge,
        Data::Sum {
            temporality,
            monotonic,
            ..
        } => Shape::Sum(*temporality, *monotonic),
        Data::Histogram { temporality, .. } => Shape::Histogram(*temporality),
        Data::Exponential { temporality, .. } => Shape::Exponential(*temporality),
        Data::Summary { .. } => Shape::Summary,
    }
}

fn count<'a, V: slogate_wire::proto::View<'a>>(
    points: slogate_wire::proto::Views<'a, V>,
) -> Result<u64, WireError> {
    let mut count = 0;
    for point in points {
        point?;
        count += 1;
    }
    Ok(count)
}
