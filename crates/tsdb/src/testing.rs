//! What the tests of several modules generate.

use std::sync::Arc;

use proptest::prelude::*;
use slogate_series::histogram::CUSTOM_SCHEMA;
use slogate_series::{Buckets, Histogram, ResetHint};

fn counts() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => (0u32..5_000).prop_map(f64::from),
        1 => -10.0..1e18f64,
        1 => Just(0.5),
        1 => Just(-0.0),
    ]
}

fn buckets() -> impl Strategy<Value = Buckets> {
    let indexes = prop_oneof![4 => -20i32..20, 1 => any::<i32>()];
    prop::collection::btree_map(indexes, counts(), 0..12)
        .prop_map(|buckets| Buckets::from_sorted(buckets.into_iter().collect()))
}

fn any_bits() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        Just(0.0),
        Just(1e-128)
    ]
}

/// Histograms of every kind, stale ones included.
pub(crate) fn histograms() -> impl Strategy<Value = Arc<Histogram>> {
    let hints = prop::sample::select(vec![
        ResetHint::Unknown,
        ResetHint::Reset,
        ResetHint::NotReset,
        ResetHint::Gauge,
    ]);
    let bounds = prop::collection::vec(any_bits(), 0..6);
    let any = (
        prop_oneof![3 => Just(3i8), 1 => -4i8..=8, 1 => Just(CUSTOM_SCHEMA)],
        hints,
        prop::sample::select(vec![1e-128, 0.001]),
        (counts(), counts(), any_bits()),
        (buckets(), buckets()),
        bounds,
    )
        .prop_map(
            |(schema, reset_hint, zero_threshold, counts, buckets, bounds)| Histogram {
                schema,
                reset_hint,
                zero_threshold,
                zero_count: counts.0,
                count: counts.1,
                sum: counts.2,
                positive: buckets.0,
                negative: buckets.1,
                custom_bounds: bounds.into(),
            },
        );
    prop_oneof![9 => any, 1 => Just(Histogram::stale())].prop_map(Arc::new)
}

/// The durations of `requests` requests, spread over about 30 buckets around 50 ms.
pub(crate) fn request_histogram(requests: u64, seed: u64) -> Histogram {
    let mut counts = [0f64; 32];
    let mut state = seed;
    for _ in 0..requests {
        let mut at = 0;
        for _ in 0..31 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            at += (state >> 63) as usize;
        }
        counts[at] += 1.0;
    }
    Histogram {
        schema: 3,
        zero_threshold: 2f64.powi(-128),
        count: requests as f64,
        sum: requests as f64 * 0.051,
        positive: Buckets::from_dense(-50, counts),
        ..Histogram::default()
    }
}
