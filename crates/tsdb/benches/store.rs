//! How fast the store takes samples in and gives them back.
//!
//! Counters grow by whole numbers, sums by fractions; samples are 15 s apart.

#![allow(missing_docs, reason = "criterion's macros define public items")]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use slogate_series::{Buckets, Histogram, Labels, MatchOp, Matcher, Projection, Sample};
use slogate_tsdb::{Batch, FloatRow, HistogramRow, Options, Read, SeriesRef, Store};

const START: i64 = 1_760_000_000_000;
const STEP: i64 = 15_000;

/// Ten labels, as telemetry has them.
fn labels(name: &str, i: usize) -> Labels {
    Labels::from_pairs([
        ("__name__".to_owned(), name.to_owned()),
        ("service_name".into(), format!("service-{}", i % 50)),
        ("service_version".into(), format!("1.{}.0", i % 3)),
        (
            "service_instance_id".into(),
            format!("instance-{:05}", i / 20),
        ),
        ("deployment_environment_name".into(), "production".into()),
        ("k8s_cluster_name".into(), "cluster-1".into()),
        ("k8s_namespace_name".into(), format!("namespace-{}", i % 10)),
        ("http_request_method".into(), ["GET", "POST"][i % 2].into()),
        ("http_route".into(), format!("/api/v1/route-{}", i % 20)),
        ("http_response_status_code".into(), "200".into()),
    ])
}

fn open(dir: Option<&Path>) -> Store {
    let options = Options {
        dir: dir.map(Path::to_owned),
        ..Options::default()
    };
    Store::open(options, START).unwrap().0
}

fn refs(store: &Store, series: usize) -> Vec<SeriesRef> {
    (0..series)
        .map(|i| store.series(&labels("http_requests_total", i)).unwrap())
        .collect()
}

fn counters(refs: &[SeriesRef]) -> Batch {
    let row = |series: &SeriesRef| FloatRow {
        series: *series,
        t_ms: START,
        start_ms: START,
        value: 1_000.0,
    };
    Batch {
        floats: refs.iter().map(row).collect(),
        ..Batch::default()
    }
}

fn grow(batch: &mut Batch, step: f64) {
    for (i, row) in batch.floats.iter_mut().enumerate() {
        row.t_ms += STEP;
        row.value += step + (i % 7) as f64;
    }
}

fn append_floats(c: &mut Criterion) {
    let mut group = c.benchmark_group("append_floats");
    let cases = [
        ("counters_10k_memory", 10_000, false, 40.0),
        ("counters_10k_log", 10_000, true, 40.0),
        ("sums_10k_memory", 10_000, false, 0.1),
        ("counters_200k_memory", 200_000, false, 40.0),
        ("counters_200k_log", 200_000, true, 40.0),
    ];
    for (name, series, logged, step) in cases {
        let dir = tempfile::tempdir().unwrap();
        let store = open(logged.then(|| dir.path()));
        let mut batch = counters(&refs(&store, series));
        group.throughput(Throughput::Elements(series as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                grow(&mut batch, step);
                let now_ms = batch.floats[0].t_ms;
                let report = store.append(&batch, now_ms).unwrap();
                assert_eq!(report.accepted, series as u64);
            });
        });
    }
    group.finish();
}

fn durations(requests: u32) -> Arc<Histogram> {
    let count = |i: u32| f64::from(requests / (1 + i.abs_diff(15)));
    Arc::new(Histogram {
        schema: 3,
        zero_threshold: 2f64.powi(-128),
        count: (0..30).map(count).sum(),
        sum: f64::from(requests) * 0.123,
        positive: Buckets::from_dense(-40, (0..30).map(count)),
        ..Histogram::default()
    })
}

fn append_histograms(c: &mut Criterion) {
    let mut group = c.benchmark_group("append_histograms");
    for (name, logged) in [("30_buckets_2k_memory", false), ("30_buckets_2k_log", true)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(logged.then(|| dir.path()));
        let refs = refs(&store, 2_000);
        let (mut t_ms, mut requests) = (START, 100);
        let mut batch = Batch::default();
        group.throughput(Throughput::Elements(refs.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                t_ms += STEP;
                requests += 50;
                let histogram = durations(requests);
                batch.clear();
                batch
                    .histograms
                    .extend(refs.iter().map(|series| HistogramRow {
                        series: *series,
                        t_ms,
                        start_ms: START,
                        histogram: Arc::clone(&histogram),
                    }));
                assert_eq!(store.append(&batch, t_ms).unwrap().accepted, 2_000);
            });
        });
    }
    group.finish();
}

fn lookup(c: &mut Criterion) {
    let store = open(None);
    refs(&store, 100_000);
    let known: Vec<Labels> = (0..1_000)
        .map(|i| labels("http_requests_total", i * 97))
        .collect();
    let mut group = c.benchmark_group("series");
    group.throughput(Throughput::Elements(known.len() as u64));
    group.bench_function("known", |b| {
        b.iter(|| {
            for labels in &known {
                black_box(store.series(labels).unwrap());
            }
        });
    });
    group.finish();
}

/// 100,000 series with an hour of samples, and what is asked of them.
fn select(c: &mut Criterion) {
    let store = open(None);
    let mut batch = counters(&refs(&store, 100_000));
    for _ in 0..240 {
        grow(&mut batch, 40.0);
        store.append(&batch, batch.floats[0].t_ms).unwrap();
    }
    let end_ms = batch.floats[0].t_ms;
    let hour = end_ms - 3_600_000;
    let name = Matcher::equal("__name__", "http_requests_total");
    let of = |name, value| Matcher::equal(name, value);
    let regex = |name, value| Matcher::new(name, MatchOp::Regex, value).unwrap();
    let cases = [
        (
            "1_series_1h",
            vec![
                name.clone(),
                of("service_instance_id", "instance-00007"),
                of("http_route", "/api/v1/route-3"),
            ],
            hour,
        ),
        (
            "2k_series_1h",
            vec![name.clone(), of("service_name", "service-7")],
            hour,
        ),
        (
            "2k_series_5m",
            vec![name.clone(), of("service_name", "service-7")],
            end_ms - 300_000,
        ),
        (
            "10k_series_regex_5m",
            vec![name.clone(), regex("service_name", "service-1[0-4]")],
            end_ms - 300_000,
        ),
        ("100k_series_5m", vec![name.clone()], end_ms - 300_000),
    ];
    let mut group = c.benchmark_group("select");
    group.sample_size(20);
    for (case, matchers, start_ms) in cases {
        let found = store.select(&matchers, start_ms, end_ms);
        let samples: usize = found.iter().map(|series| series.samples.len()).sum();
        assert!(samples > 0);
        group.throughput(Throughput::Elements(samples as u64));
        group.bench_function(case, |b| {
            b.iter_with_large_drop(|| store.select(&matchers, start_ms, end_ms));
        });
        group.bench_function(format!("{case}_streamed"), |b| {
            b.iter(|| {
                let read = Read {
                    matchers: &matchers,
                    start_ms,
                    end_ms,
                    projection: Projection::All,
                    sorted: false,
                };
                let mut count = 0;
                store.for_each(&read, &mut Vec::<Sample>::new(), |_, samples| {
                    count += samples.len();
                    ControlFlow::Continue(())
                });
                assert_eq!(count, samples);
            });
        });
    }
    group.finish();
}

fn replay(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let (series, rounds) = (10_000, 100u64);
    {
        let store = open(Some(dir.path()));
        let mut batch = counters(&refs(&store, series));
        for _ in 0..rounds {
            grow(&mut batch, 40.0);
            store.append(&batch, batch.floats[0].t_ms).unwrap();
        }
        println!(
            "log: {} bytes for {} samples",
            store.stats().log_bytes,
            series as u64 * rounds
        );
    }
    let mut group = c.benchmark_group("replay");
    group.sample_size(10);
    group.throughput(Throughput::Elements(series as u64 * rounds));
    group.bench_function("10k_series_x_100", |b| {
        b.iter_batched(
            || (),
            |()| {
                let store = open(Some(dir.path()));
                assert_eq!(store.stats().samples, series as u64 * rounds);
                store
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(
    benches,
    append_floats,
    append_histograms,
    lookup,
    select,
    replay
);
criterion_main!(benches);
