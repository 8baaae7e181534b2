//! A registry of counters, gauges and histograms.
//!
//! A handle is looked up once, by family and label values, and then costs one atomic operation
//! per use: no lock and no hashing on a hot path. Values that another part already keeps (the
//! store's series count, a queue's length) are not copied into gauges on a timer; a collector
//! reads them when somebody asks.
//!
//! What happens at the edges: a family without any cell yet is absent from a snapshot, so that a
//! reader can tell "never happened here" from zero only where somebody asked for the handle;
//! asking for the handle is what creates the zero. Asking with the wrong number of label values or
//! for the wrong kind is a mistake in our code: it fails a debug assertion, and in a release
//! build returns a handle that is connected to nothing. A collector that reports a label
//! combination twice is added up for counters, and the last wins for gauges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// The most label combinations one family keeps; further ones share `other`.
pub const CELLS_PER_FAMILY_MAX: usize = 1_000;

/// Bounds of every histogram of ours, in seconds: what answering a request may take.
pub const SECONDS_BOUNDS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// What a family's numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts per bucket of [`SECONDS_BOUNDS`].
    Histogram,
}

impl Kind {
    /// The word used in exposition formats and documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// The declaration of a family.
#[derive(Debug)]
pub struct Spec {
    /// Its name; a counter's ends in `_total`.
    pub name: &'static str,
    /// What its numbers mean.
    pub kind: Kind,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

/// A number that only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down; whole numbers, since all of ours count things.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` away, not below 0.
    pub fn subtract(&self, n: u64) {
        let less = |value: u64| Some(value.saturating_sub(n));
        // The closure never declines, so the update can't fail.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// The current value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts durations per bucket of [`SECONDS_BOUNDS`].
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<HistogramCell>);

#[derive(Debug, Default)]
struct HistogramCell {
    /// Not cumulative; the last one is what exceeds every bound.
    buckets: [AtomicU64; SECONDS_BOUNDS.len() + 1],
    /// Nanoseconds: an integer adds atomically, and 2^64 of them are 584 years.
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: std::time::Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = SECONDS_BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.0.buckets.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    fn point(&self) -> HistogramPoint {
        let mut count = 0;
        let cumulative = |cell: &AtomicU64| {
            count += cell.load(Ordering::Relaxed);
            count
        };
        let buckets: Vec<u64> = self.0.buckets.iter().map(cumulative).collect();
        let sum_seconds = self.0.sum_ns.load(Ordering::Relaxed) as f64 / 1e9;
        HistogramPoint {
            buckets,
            count,
            sum_seconds,
        }
    }
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramPoint {
    /// Cumulative counts at [`SECONDS_BOUNDS`], and at infinity last.
    pub buckets: Vec<u64>,
    /// All observations.
    pub count: u64,
    /// Their sum in seconds.
    pub sum_seconds: f64,
}

/// A cell's value at one moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter or gauge.
    Number(f64),
    /// Of a histogram.
    Histogram(HistogramPoint),
}

/// One cell at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Label values, in the order of the family's label names.
    pub labels: Vec<Box<str>>,
    /// The value.
    pub value: Value,
}

/// A family at one moment, its points sorted by label values.
#[derive(Clone, Debug)]
pub struct FamilySnapshot {
    /// The declaration.
    pub spec: &'static Spec,
    /// Its cells.
    pub points: Vec<Point>,
}

/// Where a collector reports what it reads.
pub struct Collected<'a> {
    spec: &'static Spec,
    points: &'a mut BTreeMap<Vec<Box<str>>, Value>,
}

impl Collected<'_> {
    /// Reports one value; a number that is not finite is left out.
    pub fn push(&mut self, labels: &[&str], value: f64) {
        debug_assert_eq!(labels.len(), self.spec.labels.len(), "{}", self.spec.name);
        if !value.is_finite() {
            return;
        }
        let key = boxed(labels);
        let is_full = self.points.len() >= CELLS_PER_FAMILY_MAX && !self.points.contains_key(&key);
        let key = if is_full { other(self.spec) } else { key };
        match (self.points.get_mut(&key), self.spec.kind) {
            (Some(Value::Number(sum)), Kind::Counter) => *sum += value,
            _ => {
                self.points.insert(key, Value::Number(value));
            }
        }
    }
}

type Collector = Arc<dyn Fn(&mut Collected<'_>) + Send + Sync>;

#[derive(Clone)]
enum Cell {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Cell {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Cell::Counter(Counter::default()),
            Kind::Gauge => Cell::Gauge(Gauge::default()),
            Kind::Histogram => Cell::Histogram(Histogram::default()),
        }
    }

    fn value(&self) -> Value {
        match self {
            Cell::Counter(counter) => Value::Number(counter.value() as f64),
            Cell::Gauge(gauge) => Value::Number(gauge.value() as f64),
            Cell::Histogram(histogram) => Value::Histogram(histogram.point()),
        }
    }
}

struct Family {
    spec: &'static Spec,
    cells: BTreeMap<Vec<Box<str>>, Cell>,
    collectors: Vec<Collector>,
}

impl Family {
    fn new(spec: &'static Spec) -> Self {
        Family {
            spec,
            cells: BTreeMap::new(),
            collectors: Vec::new(),
        }
    }
}

/// Every number of ours. Clones share one registry.
#[derive(Clone, Default)]
pub struct Registry {
    families: Arc<RwLock<BTreeMap<&'static str, Family>>>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Registry::default()
    }

    /// The counter with those label values, made at 0 where it is new.
    pub fn counter(&self, spec: &'static Spec, labels: &[&str]) -> Counter {
        match self.cell(spec, Kind::Counter, labels) {
            Cell::Counter(counter) => counter,
            _ => Counter::default(),
        }
    }

    /// The gauge with those label values, made at 0 where it is new.
    pub fn gauge(&self, spec: &'static Spec, labels: &[&str]) -> Gauge {
        match self.cell(spec, Kind::Gauge, labels) {
            Cell::Gauge(gauge) => gauge,
            _ => Gauge::default(),
        }
    }

    /// The histogram with those label values, made empty where it is new.
    pub fn histogram(&self, spec: &'static Spec, labels: &[&str]) -> Histogram {
        match self.cell(spec, Kind::Histogram, labels) {
            Cell::Histogram(histogram) => histogram,
            _ => Histogram::default(),
        }
    }

    /// Has `read` called at every snapshot for values that somebody else keeps.
    ///
    /// `read` must not use the registry and should be quick: it runs on the asker's thread.
    pub fn collect(
        &self,
        spec: &'static Spec,
        read: impl Fn(&mut Collected<'_>) + Send + Sync + 'static,
    ) {
        debug_assert_ne!(spec.kind, Kind::Histogram, "{}", spec.name);
        let mut families = self.families.write();
        let family = families
            .entry(spec.name)
            .or_insert_with(|| Family::new(spec));
        family.collectors.push(Arc::new(read));
    }

    /// Every family with at least one point, sorted by name.
    pub fn snapshot(&self) -> Vec<FamilySnapshot> {
        let names: Vec<_> = self.families.read().keys().copied().collect();
        let families = names.into_iter().filter_map(|name| self.family(name));
        families.collect()
    }

    /// One family; `None` while it has no point.
    pub fn family(&self, name: &str) -> Option<FamilySnapshot> {
        let (spec, mut points, collectors) = {
            let families = self.families.read();
            let family = families.get(name)?;
            let cells = family.cells.iter();
            let points: BTreeMap<_, _> = cells.map(|(k, cell)| (k.clone(), cell.value())).collect();
            (family.spec, points, family.collectors.clone())
        };
        // Collectors run without the lock: they take other locks.
        for collector in &collectors {
            collector(&mut Collected {
                spec,
                points: &mut points,
            });
        }
        let point = |(labels, value)| Point { labels, value };
        let points: Vec<Point> = points.into_iter().map(point).collect();
        (!points.is_empty()).then_some(FamilySnapshot { spec, points })
    }

    fn cell(&self, spec: &'static Spec, kind: Kind, labels: &[&str]) -> Cell {
        debug_assert_eq!(spec.kind, kind, "{}", spec.name);
        debug_assert_eq!(labels.len(), spec.labels.len(), "{}", spec.name);
        if spec.kind != kind || labels.len() != spec.labels.len() {
            return Cell::new(kind);
        }
        let key = boxed(labels);
        let known = |family: &Family| family.cells.get(&key).cloned();
        if let Some(cell) = self.families.read().get(spec.name).and_then(known) {
            return cell;
        }
        let mut families = self.families.write();
        let family = families
            .entry(spec.name)
            .or_insert_with(|| Family::new(spec));
        let is_full = family.cells.len() >= CELLS_PER_FAMILY_MAX;
        let key = if is_full && !family.cells.contains_key(&key) {
            other(spec)
        } else {
            key
        };
        let cell = family.cells.entry(key).or_insert_with(|| Cell::new(kind));
        cell.clone()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.families.read().keys()).finish()
    }
}

fn boxed(labels: &[&str]) -> Vec<Box<str>> {
    labels.iter().map(|value| Box::from(*value)).collect()
}

fn other(spec: &Spec) -> Vec<Box<str>> {
    spec.labels.iter().map(|_| Box::from("other")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    static REQUESTS: Spec = Spec {
        name: "slogate_test_requests_total",
        kind: Kind::Counter,
        labels: &["code"],
        help: "Requests.",
    };
    static OPEN: Spec = Spec {
        name: "slogate_test_open",
        kind: Kind::Gauge,
        labels: &[],
        help: "Open.",
    };
    static TOOK: Spec = Spec {
        name: "slogate_test_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "Took.",
    };

    fn points(registry: &Registry, name: &str) -> Vec<Point> {
        let found = registry
            .snapshot()
            .into_iter()
            .find(|f| f.spec.name == name);
        found.map_or_else(Vec::new, |family| family.points)
    }

    #[test]
    fn handles_of_equal_labels_share_one_cell() {
        let registry = Registry::new();
        assert!(registry.snapshot().is_empty(), "nothing asked for");
        registry.counter(&REQUESTS, &["200"]).add(2);
        registry.counter(&REQUESTS, &["200"]).increment();
        registry.counter(&REQUESTS, &["500"]);
        let [ok, bad] = points(&registry, REQUESTS.name).try_into().unwrap();
        assert_eq!(
            (&*ok.labels[0], ok.value.clone()),
            ("200", Value::Number(3.0))
        );
        assert_eq!(bad.value, Value::Number(0.0), "asking makes the zero");
    }

    #[test]
    fn a_gauge_does_not_wrap_below_zero() {
        let registry = Registry::new();
        let open = registry.gauge(&OPEN, &[]);
        open.add(1);
        open.subtract(2);
        assert_eq!(open.value(), 0);
    }

    #[test]
    fn histogram_buckets_are_cumulative_and_bounds_inclusive() {
        let registry = Registry::new();
        let took = registry.histogram(&TOOK, &[]);
        took.observe(Duration::from_micros(100));
        took.observe(Duration::from_millis(3));
        took.observe(Duration::from_secs(100));
        let [point] = points(&registry, TOOK.name).try_into().unwrap();
        let Value::Histogram(histogram) = point.value else {
            panic!("not a histogram");
        };
        assert_eq!(histogram.buckets[0], 1, "0.0001 is within le=0.0001");
        assert_eq!(histogram.buckets[5], 2);
        assert_eq!(histogram.buckets[13], 2);
        assert_eq!((histogram.buckets[14], histogram.count), (3, 3));
        assert!((histogram.sum_seconds - 100.0031).abs() < 1e-9);
    }

    #[test]
    fn endless_label_values_end_in_other() {
        let registry = Registry::new();
        for i in 0..CELLS_PER_FAMILY_MAX + 50 {
            registry.counter(&REQUESTS, &[&i.to_string()]).increment();
        }
        let points = points(&registry, REQUESTS.name);
        assert_eq!(points.len(), CELLS_PER_FAMILY_MAX + 1);
        let other = points.iter().find(|p| &*p.labels[0] == "other").unwrap();
        assert_eq!(other.value, Value::Number(50.0));
    }

    #[test]
    fn collectors_are_read_at_each_snapshot_and_add_up() {
        let registry = Registry::new();
        let shared = Arc::new(AtomicU64::new(1));
        for _ in 0..2 {
            let shared = shared.clone();
            registry.collect(&REQUESTS, move |out| {
                out.push(&["200"], shared.load(Ordering::Relaxed) as f64);
                out.push(&["nan"], f64::NAN);
            });
        }
        shared.store(7, Ordering::Relaxed);
        let [point] = points(&registry, REQUESTS.name).try_into().unwrap();
        assert_eq!(point.value, Value::Number(14.0));
    }
}
