//! Which series a point belongs to, remembered by the bytes that say so.
//!
//! For each resource there is one table: metric (name, unit, type) to points, and point
//! (attribute bytes) to series. A hit reads no label and builds no string; equal hashes are
//! checked against the bytes. Points not seen for the idle time are forgotten, and their series
//! are given back to the service's budget.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use slogate_tsdb::SeriesRef;
use slogate_wire::otlp::Temporality;

use super::delta::Delta;

/// What makes two metrics of one resource the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct MetricId<'a> {
    pub(super) name: &'a str,
    pub(super) unit: &'a str,
    pub(super) shape: Shape,
}

/// A metric's type as far as it decides its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    Gauge,
    Sum(Temporality, bool),
    Histogram(Temporality),
    Exponential(Temporality),
    Summary,
}

/// The metrics of one resource.
#[derive(Debug, Default)]
pub(in crate::ingest) struct MetricTable {
    hasher: DefaultHashBuilder,
    by_id: HashTable<usize>,
    metrics: Vec<MetricEntry>,
    series: usize,
    pub(super) target_info: Option<TargetInfo>,
}

/// The `target_info` series of a resource.
#[derive(Clone, Copy, Debug)]
pub(super) struct TargetInfo {
    pub(super) series: SeriesRef,
    pub(super) written_ms: i64,
}

/// One metric of a resource.
#[derive(Debug)]
pub(super) struct MetricEntry {
    hash: u64,
    name: Box<str>,
    unit: Box<str>,
    shape: Shape,
    /// Its Prometheus name.
    pub(super) translated: Arc<str>,
    by_attributes: HashTable<usize>,
    points: Vec<PointEntry>,
}

/// One point's series.
#[derive(Debug)]
pub(super) struct PointEntry {
    hash: u64,
    attributes: Box<[u8]>,
    pub(super) seen_ms: i64,
    pub(super) series: PointSeries,
    pub(super) delta: Option<Arc<Delta>>,
}

/// The series a point is written to. Nearly all are single ones: those take no memory of
/// their own.
#[derive(Clone, Debug)]
pub(super) enum PointSeries {
    /// One series: a number or a native histogram.
    Single(SeriesRef),
    /// A histogram with explicit bounds.
    Classic(Arc<ClassicSeries>),
    /// A summary.
    Summary(Arc<SummarySeries>),
}

/// The series of a histogram with explicit bounds.
#[derive(Debug)]
pub(super) struct ClassicSeries {
    pub(super) bounds: Box<[f64]>,
    /// One more than bounds: the last is `+Inf`.
    pub(super) buckets: Box<[SeriesRef]>,
    pub(super) sum: Option<SeriesRef>,
    pub(super) count: SeriesRef,
}

/// The series of a summary.
#[derive(Debug)]
pub(super) struct SummarySeries {
    pub(super) quantiles: Box<[(f64, SeriesRef)]>,
    pub(super) sum: SeriesRef,
    pub(super) count: SeriesRef,
}

impl MetricId<'_> {
    fn is(&self, entry: &MetricEntry) -> bool {
        *entry.name == *self.name && *entry.unit == *self.unit && entry.shape == self.shape
    }
}

impl PointSeries {
    /// How many series these are.
    pub(super) fn len(&self) -> usize {
        match self {
            PointSeries::Single(_) => 1,
            PointSeries::Classic(series) => {
                series.buckets.len() + 1 + usize::from(series.sum.is_some())
            }
            PointSeries::Summary(series) => series.quantiles.len() + 2,
        }
    }
}

impl MetricTable {
    /// The place of a metric.
    pub(super) fn find(&self, id: &MetricId<'_>) -> Option<usize> {
        let hash = self.hasher.hash_one(id);
        let found = self.by_id.find(hash, |at| id.is(&self.metrics[*at]));
        found.copied()
    }

    /// Adds a metric that is not there yet, and returns its place.
    pub(super) fn insert(&mut self, id: &MetricId<'_>, translated: Arc<str>) -> usize {
        let hash = self.hasher.hash_one(id);
        let at = self.metrics.len();
        self.metrics.push(MetricEntry {
            hash,
            name: id.name.into(),
            unit: id.unit.into(),
            shape: id.shape,
            translated,
            by_attributes: HashTable::new(),
            points: Vec::new(),
        });
        let metrics = &self.metrics;
        self.by_id.insert_unique(hash, at, |at| metrics[*at].hash);
        at
    }

    /// The metric at a place that `find` or `insert` gave.
    pub(super) fn metric(&self, at: usize) -> &MetricEntry {
        &self.metrics[at]
    }

    /// The hash of a point's attributes.
    #[inline]
    pub(super) fn hash(&self, attributes: &[u8]) -> u64 {
        self.hasher.hash_one(attributes)
    }

    /// The point with these attributes, seen now.
    #[inline]
    pub(super) fn point(
        &mut self,
        metric: usize,
        hash: u64,
        attributes: &[u8],
        now_ms: i64,
    ) -> Option<&PointEntry> {
        let metric = &mut self.metrics[metric];
        let points = &metric.points;
        let at = metric
            .by_attributes
            .find(hash, |at| *points[*at].attributes == *attributes)?;
        let point = metric.points.get_mut(*at)?;
        point.seen_ms = now_ms;
        Some(point)
    }

    /// Adds a point, or gives a known one other series. Returns by how much the number of
    /// series grew.
    pub(super) fn put_point(
        &mut self,
        metric: usize,
        hash: u64,
        attributes: &[u8],
        now_ms: i64,
        series: PointSeries,
    ) -> isize {
        let metric = &mut self.metrics[metric];
        let delta = Delta::of(metric.shape).map(Arc::new);
        let entry = PointEntry {
            hash,
            attributes: attributes.into(),
            seen_ms: now_ms,
            series,
            delta,
        };
        let after = entry.series.len();
        let points = &mut metric.points;
        let known = metric
            .by_attributes
            .find(hash, |at| *points[*at].attributes == *attributes);
        let before = match known {
            Some(at) => std::mem::replace(&mut points[*at], entry).series.len(),
            None => {
                let at = points.len();
                points.push(entry);
                metric
                    .by_attributes
                    .insert_unique(hash, at, |at| points[*at].hash);
                0
            }
        };
        self.series = self.series + after - before;
        after as isize - before as isize
    }

    /// The number of series known.
    pub(in crate::ingest) fn series(&self) -> usize {
        self.series
    }

    /// Forgets points not seen since `before_ms`, and returns how many series those were.
    pub(in crate::ingest) fn forget(&mut self, before_ms: i64) -> usize {
        let before = self.series;
        for metric in &mut self.metrics {
            metric.points.retain(|point| point.seen_ms >= before_ms);
            let points = &metric.points;
            metric.by_attributes.clear();
            for at in 0..points.len() {
                metric
                    .by_attributes
                    .insert_unique(points[at].hash, at, |at| points[*at].hash);
            }
        }
        self.metrics.retain(|metric| !metric.points.is_empty());
        let metrics = &self.metrics;
        self.by_id.clear();
        for at in 0..metrics.len() {
            self.by_id
                .insert_unique(metrics[at].hash, at, |at| metrics[*at].hash);
        }
        let points = self.metrics.iter().flat_map(|metric| &metric.points);
        self.series = points.map(|point| point.series.len()).sum();
        if self.metrics.is_empty() {
            self.target_info = None;
        }
        before - self.series
    }
}
