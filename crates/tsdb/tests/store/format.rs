//! The log format of each released version, as files that must stay readable for ever.

use std::sync::Arc;

use slogate_series::histogram::CUSTOM_SCHEMA;
use slogate_series::{Buckets, Exemplar, Histogram, Labels, ResetHint, stale_nan};
use slogate_tsdb::{Batch, ExemplarRow, FloatRow, HistogramRow, Metadata, MetricKind, Store};

use crate::kit::{NOW, everything, in_dir, labels, open};

const VERSION_1: &[u8] = include_bytes!("../fixtures/series-log-1.log");

/// One record of every kind, with every flag.
fn write(store: &Store) {
    store.set_metadata(
        "up",
        Metadata {
            kind: MetricKind::Gauge,
            unit: "ratio".into(),
            help: "Whether the target answers.".into(),
        },
    );
    let float = store.series(&labels("up job=api")).unwrap();
    let values = [
        1.0,
        -3.0,
        0.25,
        -0.0,
        f64::NAN,
        stale_nan(),
        9_007_199_254_740_992.0,
    ];
    for (t, value) in (0i64..).zip(values) {
        let row = FloatRow {
            series: float,
            t_ms: NOW + t * 15_000,
            start_ms: if t < 3 { 0 } else { NOW },
            value,
        };
        let batch = Batch {
            floats: vec![row],
            ..Batch::default()
        };
        store.append(&batch, NOW).unwrap();
    }
    let distribution = store.series(&labels("latency job=ä")).unwrap();
    for (t, histogram) in (0i64..).zip(histograms()) {
        let row = HistogramRow {
            series: distribution,
            t_ms: NOW + t,
            start_ms: NOW,
            histogram: Arc::new(histogram),
        };
        let batch = Batch {
            histograms: vec![row],
            ..Batch::default()
        };
        store.append(&batch, NOW).unwrap();
    }
    let exemplar = Exemplar {
        labels: Labels::from_pairs([("span_id", "b7ad6b71"), ("trace_id", "4bf92f35")]),
        value: 0.067,
        t_ms: NOW + 1,
    };
    let row = ExemplarRow {
        series: distribution,
        exemplar,
    };
    let batch = Batch {
        exemplars: vec![row],
        ..Batch::default()
    };
    store.append(&batch, NOW).unwrap();
}

fn histograms() -> [Histogram; 4] {
    let whole = Histogram {
        schema: -2,
        reset_hint: ResetHint::Reset,
        zero_threshold: 0.001,
        zero_count: 2.0,
        count: 300.0,
        sum: -12.5,
        positive: Buckets::from_sorted(vec![(-7, 290.0), (3, 1.0)]),
        negative: Buckets::from_sorted(vec![(0, 7.0)]),
        ..Histogram::default()
    };
    let fractions = Histogram {
        reset_hint: ResetHint::Gauge,
        count: 0.5,
        ..whole.clone()
    };
    let custom = Histogram {
        schema: CUSTOM_SCHEMA,
        reset_hint: ResetHint::NotReset,
        count: 3.0,
        sum: 4.5,
        positive: Buckets::from_sorted(vec![(0, 1.0), (2, 2.0)]),
        custom_bounds: Arc::from([0.5, 1.5]),
        ..Histogram::default()
    };
    [whole, fractions, custom, Histogram::stale()]
}

#[test]
fn a_log_of_version_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("0000000001.log"), VERSION_1).unwrap();
    let (store, report) = open(dir.path());
    assert_eq!(
        (report.damaged, report.samples, report.exemplars),
        (0, 11, 1)
    );
    let expected = Store::open(slogate_tsdb::Options::default(), NOW)
        .unwrap()
        .0;
    write(&expected);
    assert_eq!(everything(&store), everything(&expected));
    assert_eq!(store.metadata(None, 0), expected.metadata(None, 0));
    let exemplars = |store: &Store| store.exemplars(&[], 0, i64::MAX);
    assert_eq!(exemplars(&store), exemplars(&expected));
}

/// What is written has not changed without a new version.
#[test]
fn a_log_of_version_1_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(in_dir(dir.path()), NOW).unwrap();
    write(&store);
    let written = std::fs::read(dir.path().join("0000000001.log")).unwrap();
    assert!(
        written == VERSION_1,
        "raise the version and add a file for it"
    );
}
