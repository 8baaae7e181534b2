//! What is accepted, refused, kept and found.

use std::ops::ControlFlow;
use std::sync::Arc;

use slogate_series::{
    Exemplar, Histogram, Labels, MatchOp, Matcher, Projection, Sample, Series, Value, is_stale,
    stale_nan,
};
use slogate_tsdb::{
    Batch, ExemplarRow, Metadata, MetricKind, Options, Read, Refusal, SeriesError, Store,
};

use crate::kit::{
    MINUTE, NOW, all, append, everything, floats, histogram, histogram_batch, in_memory, labels,
    named, only, open,
};

#[test]
fn rows_are_held_to_the_windows_and_refusals_are_named() {
    let store = in_memory();
    let series = store.series(&labels("up job=api")).unwrap();
    assert_eq!(append(&store, series, NOW, 1.0).accepted, 1);
    let refused = |t_ms, value| {
        let report = append(&store, series, t_ms, value);
        assert_eq!((report.accepted, report.refused.total()), (0, 1));
        report.examples[0].reason
    };
    assert_eq!(refused(NOW, 2.0), Refusal::Duplicate);
    assert_eq!(refused(NOW + 10 * MINUTE + 1, 2.0), Refusal::TooNew);
    assert_eq!(refused(NOW - 30 * MINUTE - 1, 2.0), Refusal::TooOld);
    assert_eq!(refused(NOW - 16 * 24 * 60 * MINUTE, 2.0), Refusal::TooOld);
    assert_eq!(append(&store, series, NOW, 1.0).accepted, 1, "same again");
    assert_eq!(append(&store, series, NOW - 30 * MINUTE, 3.0).accepted, 1);
    assert_eq!(append(&store, series, NOW + 10 * MINUTE, 4.0).accepted, 1);
    let report = append(&store, series, NOW, 2.0);
    let text = report.examples[0].to_string();
    assert_eq!(
        text,
        format!("up{{job=\"api\"}} at {NOW} ms: another value is stored at this time")
    );
    assert_eq!(
        only(&everything(&store)),
        [
            (NOW - 30 * MINUTE, 3.0),
            (NOW, 1.0),
            (NOW + 10 * MINUTE, 4.0)
        ]
    );
    assert_eq!(store.stats().refused.total(), 5);
}

#[test]
fn a_refused_row_does_not_take_its_neighbours_along() {
    let store = in_memory();
    let refs: Vec<_> = (0..100)
        .map(|i| store.series(&labels(&format!("m i=v{i}"))).unwrap())
        .collect();
    let mut rows: Vec<_> = refs.iter().map(|series| (*series, NOW, 1.0)).collect();
    rows.extend(refs.iter().map(|series| (*series, NOW, 2.0)));
    let report = store.append(&floats(rows), NOW).unwrap();
    assert_eq!((report.accepted, report.refused.duplicate), (100, 100));
    assert_eq!(report.examples.len(), 5);
}

#[test]
fn every_nan_comes_back_bit_for_bit() {
    let store = in_memory();
    let series = store.series(&labels("m")).unwrap();
    let patterns = [
        0x7ff8_0000_0000_0001u64,
        0xfff0_dead_beef_0001,
        0x7ff0_0000_0000_0002,
    ];
    let rows = (0i64..).zip(patterns);
    let rows = rows.map(|(n, bits)| (series, NOW + n, f64::from_bits(bits)));
    store.append(&floats(rows), NOW).unwrap();
    let found = only(&everything(&store));
    let bits: Vec<u64> = found.iter().map(|(_, value)| value.to_bits()).collect();
    assert_eq!(bits, patterns);
    assert!(is_stale(found[2].1));
}

#[test]
fn a_series_may_change_between_floats_and_histograms() {
    let store = in_memory();
    let series = store.series(&labels("m")).unwrap();
    append(&store, series, NOW, 1.0);
    let batch = histogram_batch(series, NOW + 1, &histogram(9.0));
    store.append(&batch, NOW).unwrap();
    append(&store, series, NOW + 2, stale_nan());
    let report = append(&store, series, NOW + 1, 9.0);
    assert_eq!(report.refused.duplicate, 1, "a float is no histogram");
    assert_eq!(store.append(&batch, NOW).unwrap().accepted, 1);
    let found = everything(&store);
    assert_eq!(found[0].samples.len(), 3);
    assert_eq!(found[0].samples[1].start_ms, 5);
}

#[test]
fn histograms_beyond_the_limits_are_refused() {
    let store = in_memory();
    let series = store.series(&labels("m")).unwrap();
    let bounds: Vec<f64> = (0..10_001).map(f64::from).collect();
    let large = Arc::new(Histogram {
        custom_bounds: bounds.into(),
        ..Histogram::default()
    });
    let report = store
        .append(&histogram_batch(series, NOW, &large), NOW)
        .unwrap();
    assert_eq!(report.refused.malformed, 1);
    assert!(everything(&store).is_empty());
}

#[test]
fn series_are_limited_in_number_and_size() {
    let options = Options {
        series_max: 3,
        ..Options::default()
    };
    let (store, _) = Store::open(options, NOW).unwrap();
    for i in 0..3 {
        store.series(&labels(&format!("m i=v{i}"))).unwrap();
    }
    assert!(store.series(&labels("m i=v1")).is_ok(), "known already");
    let error = store.series(&labels("m i=v3")).unwrap_err();
    assert_eq!(error, SeriesError::TooMany { max: 3 });
    assert_eq!(store.series(&Labels::empty()), Err(SeriesError::NoLabels));
    let large = Labels::from_pairs([("a", "x".repeat(70_000))]);
    assert_eq!(store.series(&large), Err(SeriesError::TooLarge));
}

fn matcher(name: &str, op: &str, value: &str) -> Matcher {
    let op = match op {
        "=" => MatchOp::Equal,
        "!=" => MatchOp::NotEqual,
        "=~" => MatchOp::Regex,
        _ => MatchOp::NotRegex,
    };
    Matcher::new(name, op, value).unwrap()
}

/// The index must agree with asking every matcher about every series, for matchers that
/// accept absence as well.
#[test]
fn matchers_select_what_they_say() {
    let store = in_memory();
    let mut known = Vec::new();
    for i in 0..300 {
        let mut text = format!("m{} job=j{} i=v{i}", i % 3, i % 7);
        if i % 2 == 0 {
            text.push_str(" zone=z");
            text.push_str(&(i % 5).to_string());
        }
        let labels = labels(&text);
        append(&store, store.series(&labels).unwrap(), NOW, 1.0);
        known.push(labels);
    }
    known.sort();
    let cases = [
        ("__name__", "=", "m1"),
        ("job", "=", "j3"),
        ("job", "=", "none"),
        ("zone", "=", ""),
        ("zone", "!=", ""),
        ("zone", "!=", "z0"),
        ("zone", "=~", "z0|z4"),
        ("zone", "=~", "z0|"),
        ("zone", "=~", "z[0-2]"),
        ("zone", "=~", ".*"),
        ("zone", "=~", ".+"),
        ("zone", "!~", "z.*"),
        ("zone", "!~", "z0|z1"),
        ("missing", "=", ""),
        ("missing", "!=", "x"),
        ("missing", "=~", ".+"),
        ("i", "=~", "v1.*"),
        ("i", "=~", "v1|v1|v20"),
    ];
    let matchers: Vec<Matcher> = cases.iter().map(|(n, o, v)| matcher(n, o, v)).collect();
    for a in &matchers {
        for b in &matchers {
            let pair = [a.clone(), b.clone()];
            let expected: Vec<Labels> = known
                .iter()
                .filter(|labels| {
                    pair.iter()
                        .all(|m| m.matches(labels.get(m.name()).unwrap_or("")))
                })
                .cloned()
                .collect();
            let selected = store.select(&pair, NOW, NOW);
            let found: Vec<Labels> = selected.into_iter().map(|s| s.labels).collect();
            assert_eq!(found, expected, "{a:?} {b:?}");
            assert_eq!(store.series_labels(&pair, NOW, NOW), expected);
        }
    }
}

#[test]
fn label_names_and_values_are_those_of_series_in_the_range() {
    let store = in_memory();
    let old = store.series(&labels("m job=old zone=a")).unwrap();
    let new = store.series(&labels("m job=new")).unwrap();
    append(&store, old, NOW - 60 * MINUTE, 1.0);
    append(&store, new, NOW, 1.0);
    let text = |found: Vec<Arc<str>>| found.join(",");
    assert_eq!(
        text(store.label_names(&all(), 0, i64::MAX)),
        "__name__,job,zone"
    );
    assert_eq!(
        text(store.label_names(&all(), NOW - MINUTE, NOW)),
        "__name__,job"
    );
    assert_eq!(
        text(store.label_values("job", &all(), 0, i64::MAX)),
        "new,old"
    );
    assert_eq!(text(store.label_values("job", &all(), NOW, NOW)), "new");
    let zoned = [matcher("zone", "=", "a")];
    assert_eq!(text(store.label_values("job", &zoned, 0, i64::MAX)), "old");
    assert!(
        store
            .label_values("missing", &all(), 0, i64::MAX)
            .is_empty()
    );
}

/// 1,500 series, so that several batches come of every shard.
fn store_of_many() -> Store {
    let store = in_memory();
    for i in 0..1_500 {
        let name = format!("m group=g{} i=v{i}", i % 3);
        let series = store.series(&labels(&name)).unwrap();
        for t in 0..20 {
            append(&store, series, NOW - t * 1_000, f64::from(i));
        }
    }
    store
}

fn streamed(store: &Store, projection: Projection<'_>, sorted: bool) -> Vec<Series> {
    let read = Read {
        matchers: &named("m"),
        start_ms: NOW - 5_000,
        end_ms: NOW,
        projection,
        sorted,
    };
    let mut streamed = Vec::new();
    store.for_each(&read, &mut Vec::new(), |labels, samples| {
        let (labels, samples) = (labels.clone(), samples.clone());
        streamed.push(Series { labels, samples });
        ControlFlow::Continue(())
    });
    streamed
}

#[test]
fn for_each_streams_the_same() {
    let store = store_of_many();
    let selected = store.select(&named("m"), NOW - 5_000, NOW);
    assert_eq!(selected.len(), 1_500);
    assert_eq!(selected[0].samples.len(), 6);
    assert_eq!(streamed(&store, Projection::All, true), selected);
    let mut unsorted = streamed(&store, Projection::All, false);
    unsorted.sort_by(|a, b| a.labels.cmp(&b.labels));
    assert_eq!(unsorted, selected);
}

#[test]
fn labels_that_nobody_looks_at_are_left_out() {
    let store = store_of_many();
    let whole = store.select(&named("m"), NOW - 5_000, NOW);
    for projection in [
        Projection::Only(&["group", "missing"]),
        Projection::Without(&["i", "missing"]),
    ] {
        let expected: Vec<Series> = whole
            .iter()
            .map(|series| Series {
                labels: projection.of(&series.labels),
                samples: series.samples.clone(),
            })
            .collect();
        assert_eq!(streamed(&store, projection, true), expected);
        let by_value = |series: &Series| match series.samples[0].value {
            Value::Float(value) => value as u64,
            Value::Histogram(_) => 0,
        };
        let mut unsorted = streamed(&store, projection, false);
        unsorted.sort_by_key(by_value);
        let mut expected = expected;
        expected.sort_by_key(by_value);
        assert_eq!(unsorted, expected);
    }
}

#[test]
fn a_reader_may_leave_early() {
    let store = store_of_many();
    for sorted in [false, true] {
        let read = Read {
            matchers: &named("m"),
            start_ms: 0,
            end_ms: NOW,
            projection: Projection::All,
            sorted,
        };
        let mut seen = 0;
        store.for_each(&read, &mut Vec::<Sample>::new(), |_, _| {
            seen += 1;
            match seen {
                700 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        assert_eq!(seen, 700);
    }
}

#[test]
fn an_inverted_range_is_empty() {
    let store = in_memory();
    let series = store.series(&labels("m")).unwrap();
    append(&store, series, NOW - 100, 1.0);
    append(&store, series, NOW + 100, 1.0);
    assert!(store.select(&all(), NOW + 1, NOW - 1).is_empty());
    assert!(store.series_labels(&all(), NOW + 1, NOW - 1).is_empty());
    assert!(store.label_names(&all(), NOW + 1, NOW - 1).is_empty());
    assert!(store.select(&all(), i64::MAX, i64::MIN).is_empty());
}

#[test]
fn old_chunks_and_then_their_series_go() {
    let options = Options {
        retention_ms: 60 * MINUTE,
        ..Options::default()
    };
    let (store, _) = Store::open(options, NOW).unwrap();
    let series = store.series(&labels("m job=gone")).unwrap();
    let keeps = store.series(&labels("m job=stays")).unwrap();
    for t in 0..300 {
        let rows = [
            (series, NOW + t * 1_000, 1.0),
            (keeps, NOW + t * 1_000, 1.0),
        ];
        store.append(&floats(rows), NOW + t * 1_000).unwrap();
    }
    // Two full chunks are out of the retention, the third is not.
    let report = store.maintain(NOW + 63 * MINUTE + 59_000);
    assert_eq!(report.expired_by_time, 2 * 120);
    assert_eq!(store.stats().min_t_ms, Some(NOW + 120_000));
    let later = NOW + 4 * 60 * MINUTE;
    store.append(&floats([(keeps, later, 1.0)]), later).unwrap();
    assert_eq!(store.maintain(later).series_removed, 1);
    assert_eq!(store.stats().series, 1);
    let report = store
        .append(&floats([(series, later, 1.0)]), later)
        .unwrap();
    assert_eq!(
        (report.refused.unknown_series, report.unknown),
        (1, vec![series])
    );
    let again = store.series(&labels("m job=gone")).unwrap();
    assert_ne!(again, series, "a reference is never given again");
    let report = store.append(&floats([(again, later, 1.0)]), later).unwrap();
    assert_eq!(report.accepted, 1);
    assert_eq!(
        store
            .select(&[matcher("job", "=", "gone")], 0, i64::MAX)
            .len(),
        1
    );
}

#[test]
fn a_new_series_is_not_collected_before_its_first_sample() {
    let store = in_memory();
    let series = store.series(&labels("m")).unwrap();
    assert_eq!(store.maintain(NOW + MINUTE).series_removed, 0);
    assert_eq!(append(&store, series, NOW, 1.0).accepted, 1);
    assert_eq!(
        store.maintain(NOW + 60 * MINUTE).series_removed,
        0,
        "it has a sample"
    );
}

#[test]
fn the_oldest_chunks_go_when_there_is_too_much() {
    let options = Options {
        size_max_bytes: 400_000,
        ..Options::default()
    };
    let (store, _) = Store::open(options, NOW).unwrap();
    let refs: Vec<_> = (0..20)
        .map(|i| store.series(&labels(&format!("m i=v{i}"))).unwrap())
        .collect();
    for t in 0..2_000i32 {
        let value = f64::from(t).sin();
        let t_ms = NOW - 40_000_000 + i64::from(t) * 15_000;
        store
            .append(&floats(refs.iter().map(|s| (*s, t_ms, value))), NOW)
            .unwrap();
    }
    let before = store.stats();
    assert!(before.chunk_bytes + before.index_bytes > 400_000);
    let report = store.maintain(NOW);
    let after = store.stats();
    assert!(
        after.chunk_bytes + after.index_bytes <= 400_000,
        "{after:?}"
    );
    assert_eq!(before.samples - after.samples, report.expired_by_size);
    assert!(
        after.samples > before.samples / 3,
        "no more than needed: {after:?}"
    );
    for series in everything(&store) {
        let last = series.samples.last().unwrap();
        assert_eq!(
            last.t_ms,
            NOW - 40_000_000 + 1_999 * 15_000,
            "the newest stay"
        );
    }
}

/// Series that came and went must not keep those that are still there from coming back.
#[test]
fn replay_counts_only_series_that_have_samples_left() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        dir: Some(dir.path().to_owned()),
        retention_ms: 60 * MINUTE,
        series_max: 5,
        ..Options::default()
    };
    let later = NOW + 3 * 60 * MINUTE;
    {
        let (store, _) = Store::open(options.clone(), NOW).unwrap();
        for (age, t_ms) in [("old", NOW), ("new", later)] {
            for i in 0..5 {
                let series = store
                    .series(&labels(&format!("m age={age} i=v{i}")))
                    .unwrap();
                store.append(&floats([(series, t_ms, 1.0)]), t_ms).unwrap();
            }
            store.maintain(later);
        }
    }
    let (store, report) = Store::open(options, later).unwrap();
    assert_eq!((report.expired, report.over_limit), (5, 0));
    assert_eq!(everything(&store).len(), 5);
}

/// With labels alone over the limit, dropping chunks can't help; a store that then dropped
/// all of them would answer nothing at all.
#[test]
fn the_last_hour_stays_whatever_it_takes() {
    let options = Options {
        size_max_bytes: 1_000,
        ..Options::default()
    };
    let (store, _) = Store::open(options, NOW).unwrap();
    let series = store.series(&labels("m")).unwrap();
    for t in 0..2_000 {
        let row = (series, NOW - 7_200_000 + t * 3_600, 0.1 * t as f64);
        store.append(&floats([row]), NOW).unwrap();
    }
    let report = store.maintain(NOW);
    assert!(report.expired_by_size > 500, "{report:?}");
    assert!(report.over_size_bytes > 0);
    let kept = only(&everything(&store));
    assert!(kept.len() >= 1_000 && kept[0].0 <= NOW - 3_600_000);
}

#[test]
fn log_segments_go_with_their_samples() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        dir: Some(dir.path().to_owned()),
        retention_ms: 60 * MINUTE,
        segment_bytes: 200,
        ..Options::default()
    };
    let (store, _) = Store::open(options, NOW).unwrap();
    let series = store.series(&labels("m")).unwrap();
    for t in 0..60 {
        let now_ms = NOW + t * MINUTE;
        store
            .append(&floats([(series, now_ms, 0.5)]), now_ms)
            .unwrap();
    }
    let before = store.stats().log_bytes;
    let report = store.maintain(NOW + 90 * MINUTE);
    assert!(report.segments_removed > 3, "{report:?}");
    assert!(report.failure.is_none());
    assert_eq!(
        store.stats().log_bytes,
        before - report.segment_bytes_removed
    );
    let on_disk: u64 = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(on_disk, store.stats().log_bytes);
    store.flush().unwrap();
}

#[test]
fn what_rides_along_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let exemplar = Exemplar {
        labels: Labels::from_pairs([("trace_id", "4bf92f3577b34da6")]),
        value: 0.25,
        t_ms: NOW,
    };
    let metadata = Metadata {
        kind: MetricKind::Histogram,
        unit: "seconds".into(),
        help: "How long requests took.".into(),
    };
    {
        let (store, _) = open(dir.path());
        let series = store.series(&labels("m job=api")).unwrap();
        store.set_metadata("m", metadata.clone());
        let mut batch = floats([(series, NOW, 1.0)]);
        let late = ExemplarRow {
            series,
            exemplar: exemplar.clone(),
        };
        batch.exemplars = vec![late.clone(), late];
        assert_eq!(store.append(&batch, NOW).unwrap().accepted, 3);
    }
    let (store, report) = open(dir.path());
    assert_eq!(report.exemplars, 1);
    let found = store.exemplars(&named("m"), 0, i64::MAX);
    assert_eq!(found, [(labels("m job=api"), vec![exemplar])]);
    assert!(store.exemplars(&named("m"), NOW + 1, i64::MAX).is_empty());
    assert_eq!(store.metadata(Some("m"), 0), [("m".into(), metadata)]);
    assert!(store.metadata(Some("x"), 0).is_empty());
}

#[test]
fn start_times_are_kept() {
    let store = in_memory();
    let series = store.series(&labels("m")).unwrap();
    let mut batch = Batch::default();
    for (t, start_ms) in [(0, 0), (1, 7), (2, 7), (3, NOW)] {
        let mut row = floats([(series, NOW + t, 1.0)]).floats[0];
        row.start_ms = start_ms;
        batch.floats.push(row);
    }
    store.append(&batch, NOW).unwrap();
    let starts: Vec<i64> = everything(&store)[0]
        .samples
        .iter()
        .map(|s| s.start_ms)
        .collect();
    assert_eq!(starts, [0, 7, 7, NOW]);
}

#[test]
fn appends_from_many_threads_all_count() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for t in 0..200 {
                    let shared = store.series(&labels(&format!("m t=v{t}"))).unwrap();
                    let row = (shared, NOW + thread, 1.0);
                    assert_eq!(store.append(&floats([row]), NOW).unwrap().accepted, 1);
                    store.select(&named("m"), NOW, NOW + 10);
                }
                store.maintain(NOW);
            });
        }
    });
    let before = everything(&store);
    assert_eq!(before.iter().map(|s| s.samples.len()).sum::<usize>(), 800);
    drop(store);
    assert_eq!(everything(&open(dir.path()).0), before);
}
