//! Whatever is appended in whatever order, select answers as a plain map would.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use slogate_series::{Histogram, Sample, Value, stale_nan};
use slogate_tsdb::{Batch, FloatRow, HistogramRow, Options, SeriesRef, Store};

use crate::kit::{NOW, everything, histogram, in_dir, labels};

const WINDOW: i64 = 30 * 60_000;
const SERIES: usize = 5;

#[derive(Clone, Debug)]
enum Step {
    /// Series, milliseconds after or before its newest sample, value.
    Append(usize, i64, Value),
    Maintain,
    Reopen,
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => (0u32..50).prop_map(|v| Value::Float(f64::from(v))),
        2 => prop::sample::select(vec![0.5, -0.0, f64::NAN, f64::INFINITY, stale_nan()])
            .prop_map(Value::Float),
        2 => (1u32..50).prop_map(|v| Value::Histogram(histogram(f64::from(v)))),
        1 => Just(Value::Histogram(Arc::new(Histogram::stale()))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ahead = prop_oneof![6 => 0i64..3, 3 => -40i64..1, 1 => -200i64..40];
    prop_oneof![
        200 => (0..SERIES, ahead, value())
            .prop_map(|(series, steps, value)| Step::Append(series, steps * 15_000, value)),
        2 => Just(Step::Maintain),
        1 => Just(Step::Reopen),
    ]
}

/// The store's rules, in the plainest form.
#[derive(Default)]
struct Model {
    series: Vec<BTreeMap<i64, (i64, Value)>>,
}

impl Model {
    /// Whether the sample is accepted.
    fn append(&mut self, series: usize, t_ms: i64, start_ms: i64, value: &Value) -> bool {
        let samples = &mut self.series[series];
        if let Some((newest, _)) = samples.last_key_value()
            && t_ms < newest - WINDOW
        {
            return false;
        }
        let (_, kept) = samples
            .entry(t_ms)
            .or_insert_with(|| (start_ms, value.clone()));
        kept == value
    }
}

fn batch(series: SeriesRef, t_ms: i64, start_ms: i64, value: &Value) -> Batch {
    let mut batch = Batch::default();
    match value {
        Value::Float(value) => batch.floats.push(FloatRow {
            series,
            t_ms,
            start_ms,
            value: *value,
        }),
        Value::Histogram(histogram) => batch.histograms.push(HistogramRow {
            series,
            t_ms,
            start_ms,
            histogram: Arc::clone(histogram),
        }),
    }
    batch
}

fn check(steps: &[Step]) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 2_000,
        ..in_dir(dir.path())
    };
    let names: Vec<_> = (0..SERIES).map(|i| labels(&format!("m i=v{i}"))).collect();
    let refs = |store: &Store| -> Vec<SeriesRef> {
        names.iter().map(|l| store.series(l).unwrap()).collect()
    };
    let (mut store, _) = Store::open(options.clone(), NOW).unwrap();
    let mut series = refs(&store);
    let mut model = Model::default();
    model.series.resize_with(SERIES, BTreeMap::new);
    for (n, step) in (0i64..).zip(steps) {
        match step {
            Step::Append(at, ahead, value) => {
                let newest = model.series[*at].last_key_value().map(|(t, _)| *t);
                let t_ms = newest.unwrap_or(NOW - 86_400_000) + ahead;
                let start_ms = n / 100;
                let report = store
                    .append(&batch(series[*at], t_ms, start_ms, value), NOW)
                    .unwrap();
                let accepted = model.append(*at, t_ms, start_ms, value);
                assert_eq!(report.accepted == 1, accepted, "{report:?}");
            }
            Step::Maintain => {
                store.maintain(NOW);
            }
            Step::Reopen => {
                drop(store);
                let (again, report) = Store::open(options.clone(), NOW).unwrap();
                assert_eq!((report.damaged, report.orphans), (0, 0), "{report:?}");
                store = again;
                series = refs(&store);
            }
        }
    }
    compare(&store, &model);
}

fn compare(store: &Store, model: &Model) {
    let expected: Vec<Vec<Sample>> = model
        .series
        .iter()
        .filter(|samples| !samples.is_empty())
        .map(|samples| {
            let sample = |(t_ms, (start_ms, value)): (&i64, &(i64, Value))| Sample {
                t_ms: *t_ms,
                start_ms: *start_ms,
                value: value.clone(),
            };
            samples.iter().map(sample).collect()
        })
        .collect();
    let found: Vec<_> = everything(store).into_iter().map(|s| s.samples).collect();
    assert_eq!(found, expected);
    assert_eq!(
        store.stats().samples,
        expected.iter().map(|s| s.len() as u64).sum::<u64>()
    );
    // Any part of the range is the same part of the whole.
    let Some(all) = expected.first() else { return };
    for (from, to) in [(0, all.len() / 2), (all.len() / 3, all.len() - 1), (5, 5)] {
        let (Some(first), Some(last)) = (all.get(from), all.get(to)) else {
            continue;
        };
        let part: Vec<Sample> = store
            .select(&[], first.t_ms, last.t_ms)
            .into_iter()
            .find(|series| series.labels.get("i") == Some("v0"))
            .map_or(Vec::new(), |series| series.samples);
        if model.series[0].len() == all.len() {
            assert_eq!(part, all[from..=to]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn select_answers_as_a_map_would(steps in prop::collection::vec(step(), 1..900)) {
        check(&steps);
    }
}
