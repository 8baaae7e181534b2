//! What a block costs: one push, with the evidence brought up to date.

use criterion::Criterion;
use criterion::criterion_group;
use criterion::criterion_main;
use slogate_stats::BucketBlock;
use slogate_stats::BucketCounts;
use slogate_stats::CountBlock;
use slogate_stats::CountTest;
use slogate_stats::CountTestParams;
use slogate_stats::Direction;
use slogate_stats::ExceedanceTest;
use slogate_stats::ExceedanceTestParams;
use slogate_stats::buckets::Boundaries;
use slogate_stats::interval::DifferenceSequence;
use slogate_stats::interval::RatioSequence;
use std::hint::black_box;

fn block(rate: f64) -> CountBlock {
    CountBlock {
        candidate_total: 500.0,
        candidate_events: 500.0 * rate,
        baseline_total: 9_500.0,
        baseline_events: 9_500.0 * rate,
    }
}

fn counts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("count_push");
    for (name, rate, difference) in [
        ("rare", 0.001, 0.0),
        ("rare_with_difference", 0.001, 0.001),
        ("common", 0.1, 0.001),
    ] {
        let mut test = CountTest::new(CountTestParams {
            ratio: 1.25,
            difference,
            dispersion: 1.0,
            direction: Direction::Worse,
        })
        .expect("valid parameters");
        let block = block(rate);
        group.bench_function(name, |bencher| {
            bencher.iter(|| test.push(black_box(&block)).expect("valid block"));
        });
    }
    group.finish();
}

fn exceedances(criterion: &mut Criterion) {
    let boundaries = Boundaries::exponential(4).expect("valid schema");
    let buckets: Vec<(i32, f64)> = (60..140).map(|i| (i, f64::from(140 - i))).collect();
    let counts = BucketCounts {
        below: 0.0,
        buckets: &buckets,
    };
    let mut group = criterion.benchmark_group("exceedance_push");
    for (name, quantiles) in [
        ("one_quantile", vec![0.95]),
        ("five_quantiles", vec![0.5, 0.75, 0.9, 0.95, 0.99]),
    ] {
        let mut test = ExceedanceTest::new(ExceedanceTestParams {
            worse_by_relative: 0.1,
            quantiles,
            dispersion: 1.0,
            direction: Direction::Worse,
        })
        .expect("valid parameters");
        let block = BucketBlock {
            boundaries: &boundaries,
            candidate: counts,
            baseline: counts,
        };
        group.bench_function(name, |bencher| {
            bencher.iter(|| test.push(black_box(&block)).expect("valid block"));
        });
    }
    group.finish();
}

fn intervals(criterion: &mut Criterion) {
    let block = block(0.001);
    let mut ratio = RatioSequence::new(1.0).expect("valid");
    criterion.bench_function("ratio_push", |bencher| {
        bencher.iter(|| ratio.push(black_box(&block)).expect("valid block"));
    });
    criterion.bench_function("ratio_interval", |bencher| {
        bencher.iter(|| ratio.interval(black_box(0.99)));
    });
    let mut difference = DifferenceSequence::new(1.0).expect("valid");
    criterion.bench_function("difference_push", |bencher| {
        bencher.iter(|| difference.push(black_box(&block)).expect("valid block"));
    });
    criterion.bench_function("difference_interval", |bencher| {
        bencher.iter(|| difference.interval(black_box(0.99)));
    });
}

criterion_group!(benches, counts, exceedances, intervals);
criterion_main!(benches);
