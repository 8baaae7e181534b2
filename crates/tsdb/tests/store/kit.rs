//! What the tests share.

use std::path::Path;
use std::sync::Arc;

use slogate_series::{Buckets, Histogram, Labels, Matcher, Sample, Series, Value};
use slogate_tsdb::{
    AppendReport, Batch, FloatRow, HistogramRow, Options, ReplayReport, SeriesRef, Store,
};

/// The present, in the tests.
pub(crate) const NOW: i64 = 1_760_000_000_000;

pub(crate) const MINUTE: i64 = 60_000;

pub(crate) fn in_memory() -> Store {
    Store::open(Options::default(), NOW).unwrap().0
}

pub(crate) fn in_dir(dir: &Path) -> Options {
    Options {
        dir: Some(dir.to_owned()),
        ..Options::default()
    }
}

pub(crate) fn open(dir: &Path) -> (Store, ReplayReport) {
    Store::open(in_dir(dir), NOW).unwrap()
}

/// Labels from text such as `up job=api`.
pub(crate) fn labels(text: &str) -> Labels {
    let mut words = text.split(' ');
    let name = words.next().map(|name| ("__name__", name));
    let pairs = words.map(|word| word.split_once('=').unwrap());
    Labels::from_pairs(name.into_iter().chain(pairs))
}

pub(crate) fn floats(rows: impl IntoIterator<Item = (SeriesRef, i64, f64)>) -> Batch {
    let row = |(series, t_ms, value)| FloatRow {
        series,
        t_ms,
        start_ms: 0,
        value,
    };
    Batch {
        floats: rows.into_iter().map(row).collect(),
        ..Batch::default()
    }
}

pub(crate) fn append(store: &Store, series: SeriesRef, t_ms: i64, value: f64) -> AppendReport {
    store.append(&floats([(series, t_ms, value)]), NOW).unwrap()
}

pub(crate) fn histogram_batch(series: SeriesRef, t_ms: i64, histogram: &Arc<Histogram>) -> Batch {
    let row = HistogramRow {
        series,
        t_ms,
        start_ms: 5,
        histogram: Arc::clone(histogram),
    };
    Batch {
        histograms: vec![row],
        ..Batch::default()
    }
}

pub(crate) fn histogram(count: f64) -> Arc<Histogram> {
    Arc::new(Histogram {
        schema: 3,
        zero_threshold: 1e-128,
        count,
        sum: count * 0.25,
        positive: Buckets::from_sorted(vec![(-9, count - 1.0), (4, 1.0)]),
        ..Histogram::default()
    })
}

pub(crate) fn all() -> Vec<Matcher> {
    Vec::new()
}

pub(crate) fn everything(store: &Store) -> Vec<Series> {
    store.select(&all(), i64::MIN, i64::MAX)
}

pub(crate) fn named(name: &str) -> Vec<Matcher> {
    vec![Matcher::equal("__name__", name)]
}

/// Times and floats of the only series that `select` finds.
pub(crate) fn only(series: &[Series]) -> Vec<(i64, f64)> {
    assert_eq!(series.len(), 1, "{series:?}");
    series[0].samples.iter().map(point).collect()
}

pub(crate) fn point(sample: &Sample) -> (i64, f64) {
    match &sample.value {
        Value::Float(value) => (sample.t_ms, *value),
        Value::Histogram(histogram) => (sample.t_ms, histogram.count),
    }
}
