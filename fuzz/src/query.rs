//! What holds of every query, whatever it says.
//!
//! Used by the target `promql_eval` and, on what is known to be hard, by the tests of
//! `slogate-promql`.

use std::sync::{Arc, LazyLock};

use slogate_promql::{Engine, EvalError, Expr, ParseOptions, QueryValue, parse_with};
use slogate_series::{
    Buckets, Histogram, Labels, ResetHint, Sample, Series, Value, histogram, stale_nan,
};

const INTERVAL_MS: i64 = 15_000;
const SAMPLES: i64 = 40;

/// Where range queries end, with a step that the samples are not on.
const END_MS: i64 = 610_000;
const STEP_MS: i64 = 61_000;

/// Counters with resets and start times, gauges with every odd value, series that end and
/// begin, histograms of all kinds, and series that change from one kind to another.
static STORE: LazyLock<Vec<Series>> = LazyLock::new(|| {
    let odd = [
        0.0,
        -0.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        1e-308,
        1.7e308,
    ];
    let float = |value: f64| Some(Value::Float(value));
    let native = |schema: i8, count: i64, reset_hint: ResetHint| {
        let count = count as f64;
        let is_custom = schema == histogram::CUSTOM_SCHEMA;
        Some(Value::Histogram(Arc::new(Histogram {
            schema,
            reset_hint,
            zero_threshold: if is_custom { 0.0 } else { 0.001 },
            zero_count: if is_custom { 0.0 } else { count },
            count: 4.0 * count,
            sum: 2.0 * count,
            positive: Buckets::from_dense(0, [count, 2.0 * count]),
            negative: match is_custom {
                true => Buckets::default(),
                false => Buckets::from_dense(2, [count]),
            },
            custom_bounds: if is_custom {
                [-1.0, 2.0].into()
            } else {
                [].into()
            },
        })))
    };
    let unknown = ResetHint::Unknown;
    let custom = histogram::CUSTOM_SCHEMA;
    vec![
        series(&[("__name__", "x"), ("a", "1")], |i| float((i % 30) as f64)),
        series(&[("__name__", "x"), ("a", "2"), ("le", "0.5")], |i| {
            float(i as f64 * 1.5)
        }),
        series(&[("__name__", "x"), ("a", "2"), ("le", "+Inf")], |i| {
            float(i as f64)
        }),
        series(&[("__name__", "y"), ("a", "1")], |i| {
            float(odd[i as usize % odd.len()])
        }),
        series(
            &[("__name__", "y"), ("a", "3"), ("b", "ü \"\n")],
            |i| match i {
                10 => float(stale_nan()),
                11..20 => None,
                i => float(-i as f64),
            },
        ),
        series(&[("__name__", "h"), ("a", "1")], |i| {
            native(2, i % 25, unknown)
        }),
        series(&[("__name__", "h"), ("a", "2")], |i| {
            native((i % 9) as i8, i, unknown)
        }),
        series(&[("__name__", "h"), ("a", "3")], |i| {
            native(custom, i, unknown)
        }),
        series(&[("__name__", "g"), ("a", "1")], |i| {
            native(0, 40 - i, ResetHint::Gauge)
        }),
        series(&[("__name__", "m"), ("a", "1")], |i| match i % 7 {
            0..3 => float(i as f64),
            3 => native(custom, i, ResetHint::Reset),
            4 => Some(Value::Histogram(Histogram::stale().into())),
            _ => native(1, i, unknown),
        }),
        series(
            &[("__name__", "target_info"), ("a", "1"), ("v", "1")],
            |_| float(1.0),
        ),
    ]
});

fn series(labels: &[(&str, &str)], value: impl Fn(i64) -> Option<Value>) -> Series {
    let labels = labels
        .iter()
        .copied()
        .chain([("job", "j"), ("instance", "i")]);
    let sample = |i: i64| {
        let t_ms = i * INTERVAL_MS;
        value(i).map(|value| Sample {
            t_ms,
            start_ms: t_ms - i % 4 * 10_000,
            value,
        })
    };
    Series {
        labels: Labels::from_pairs(labels),
        samples: (0..SAMPLES).filter_map(sample).collect(),
    }
}

/// Parses and evaluates `query`, with the settings that the bits of `settings` choose.
///
/// # Panics
/// Where a query panics, or one of these does not hold: results hold no staleness marker and no
/// labels twice, a matrix is in order and on its steps, and the last step of a range query is
/// what an instant query gives at that time.
pub fn check(settings: u8, query: &str) {
    let bit = |at: u8| settings & (1 << at) != 0;
    let engine = Engine {
        samples_max: 20_000,
        steps_max: 2_000,
        delayed_name_removal: bit(0),
        use_start_timestamps: bit(1),
        type_and_unit_labels: bit(2),
        parse_options: if bit(3) {
            ParseOptions::default()
        } else {
            ParseOptions::everything()
        },
        ..Engine::default()
    };
    let Ok(expr) = parse_with(query, engine.parse_options) else {
        return;
    };
    let none: Vec<Series> = Vec::new();
    let _ = engine.instant(&expr, &none, END_MS);
    let instant = engine.instant(&expr, &*STORE, END_MS);
    let start_ms = END_MS - 5 * STEP_MS;
    let range = engine.range(&expr, &*STORE, start_ms, END_MS, STEP_MS);
    if let Err(EvalError::Parse(error)) = &instant {
        panic!("{query:?} was parsed already: {error}");
    }
    let (Ok(instant), range) = (instant, range) else {
        return;
    };
    well_formed(query, &instant.value, None);
    let Ok(range) = range else { return };
    well_formed(query, &range.value, Some(start_ms));
    if is_the_same_at_every_step(query, &expr) {
        let (instant, last) = (elements(&instant.value), elements(&range.value));
        let places = |elements: &[(Labels, Value)]| -> Vec<Labels> {
            elements.iter().map(|(labels, _)| labels.clone()).collect()
        };
        assert_eq!(places(&instant), places(&last), "{query:?} with {settings}");
        for ((labels, a), (_, b)) in instant.iter().zip(&last) {
            assert!(
                same(a, b),
                "{query:?} with {settings}: {labels} is {a:?} and {b:?}"
            );
        }
    }
}

/// Whether the value at a time does not depend on the steps before it.
fn is_the_same_at_every_step(query: &str, expr: &Expr) -> bool {
    // The query's start, end and step; parameters that are taken from the first step; which of
    // equals is chosen; how subqueries that name no step are cut.
    let differing = [
        "start", "end", "step", "range", "@", "quantile", "topk", "bottomk", "limit", ":", "sort",
    ];
    let text = query.to_ascii_lowercase();
    expr.value_type() != slogate_promql::ValueType::Matrix
        && !differing.iter().any(|word| text.contains(word))
}

fn well_formed(query: &str, value: &QueryValue, start_ms: Option<i64>) {
    match value {
        QueryValue::Scalar(_) | QueryValue::String(_) => {}
        QueryValue::Vector(elements) => {
            assert!(elements.iter().all(|e| !e.value.is_stale()), "{query:?}");
            let mut labels: Vec<&Labels> = elements.iter().map(|e| &e.labels).collect();
            labels.sort();
            assert!(
                labels.is_sorted_by(|a, b| a < b),
                "{query:?} has labels twice"
            );
        }
        QueryValue::Matrix(series) => {
            assert!(series.is_sorted_by(|a, b| a.labels < b.labels), "{query:?}");
            let samples = series.iter().flat_map(|s| &s.samples);
            assert!(samples.clone().all(|s| !s.value.is_stale()), "{query:?}");
            for one in series {
                assert!(
                    one.samples.is_sorted_by(|a, b| a.t_ms < b.t_ms),
                    "{query:?}"
                );
            }
            let on_grid = |t_ms: i64| {
                start_ms.is_none_or(|start_ms| {
                    (start_ms..=END_MS).contains(&t_ms) && (t_ms - start_ms) % STEP_MS == 0
                })
            };
            assert!(samples.clone().all(|s| on_grid(s.t_ms)), "{query:?}");
        }
    }
}

/// The elements at the end of the range, sorted by labels.
fn elements(value: &QueryValue) -> Vec<(Labels, Value)> {
    let mut elements = match value {
        QueryValue::Scalar(value) => vec![(Labels::empty(), Value::Float(*value))],
        QueryValue::String(_) => Vec::new(),
        QueryValue::Vector(elements) => {
            let pair = |e: &slogate_promql::InstantSample| (e.labels.clone(), e.value.clone());
            elements.iter().map(pair).collect()
        }
        QueryValue::Matrix(series) => {
            let last = |s: &Series| {
                let sample = s.samples.last().filter(|sample| sample.t_ms == END_MS)?;
                Some((s.labels.clone(), sample.value.clone()))
            };
            series.iter().filter_map(last).collect()
        }
    };
    elements.sort_by(|a, b| a.0.cmp(&b.0));
    elements
}

/// Equal but for rounding, which a window that slides may do differently.
fn same(a: &Value, b: &Value) -> bool {
    let close = |a: f64, b: f64| {
        let size = a.abs().max(b.abs());
        a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= size * 1e-9
    };
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => close(*a, *b),
        (Value::Histogram(a), Value::Histogram(b)) => {
            a.schema == b.schema && close(a.count, b.count) && close(a.sum, b.sum)
        }
        _ => false,
    }
}
