//! A query: what parses prints, what is printed parses to the same, and evaluating it never
//! panics, with no data and with some. Both without and with experimental functions.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use slogate_promql::{Engine, ParseOptions, parse_with};
use slogate_series::{Buckets, Histogram, Labels, Sample, Series, Value};

const STEP_MS: i64 = 15_000;
const STEPS: i64 = 40;

static DATA: LazyLock<Vec<Series>> = LazyLock::new(|| {
    let requests = |version: &str| Series {
        labels: Labels::from_pairs([("__name__", "requests"), ("version", version)]),
        samples: samples(|step| Value::Float((step % 30) as f64)),
    };
    let bucket = |le: &str, count: f64| Series {
        labels: Labels::from_pairs([("__name__", "latency_bucket"), ("le", le)]),
        samples: samples(|step| Value::Float(step as f64 * count)),
    };
    let native = Series {
        labels: Labels::from_pairs([("__name__", "latency")]),
        samples: samples(|step| {
            Value::Histogram(Arc::new(Histogram {
                schema: 2,
                count: 3.0 * step as f64,
                sum: step as f64,
                positive: Buckets::from_dense(-1, [step as f64, 2.0 * step as f64].into_iter()),
                ..Histogram::default()
            }))
        }),
    };
    let classic = [("0.1", 1.0), ("1", 2.0), ("+Inf", 3.0)];
    let classic = classic.map(|(le, count)| bucket(le, count));
    [requests("1"), requests("2"), native]
        .into_iter()
        .chain(classic)
        .collect()
});

fn samples(value: impl Fn(i64) -> Value) -> Vec<Sample> {
    let sample = |step| Sample {
        t_ms: step * STEP_MS,
        start_ms: 0,
        value: value(step),
    };
    (0..STEPS).map(sample).collect()
}

fuzz_target!(|query: &str| {
    for options in [ParseOptions::default(), ParseOptions::everything()] {
        let expr = match parse_with(query, options) {
            Ok(expr) => expr,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        let printed = expr.to_string();
        let again = parse_with(&printed, options)
            .unwrap_or_else(|error| panic!("{query:?} prints as {printed:?}: {error}"));
        assert_eq!(printed, again.to_string(), "from {query:?}");
        let engine = Engine {
            samples_max: 20_000,
            parse_options: options,
            ..Engine::default()
        };
        let none: Vec<Series> = Vec::new();
        for data in [&none, &*DATA] {
            let _ = engine.instant(&expr, data, STEPS * STEP_MS);
            let _ = engine.range(&expr, data, 0, STEPS * STEP_MS, 4 * STEP_MS);
        }
    }
});
