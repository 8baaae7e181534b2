//! Evaluates a query over a few series in memory, at one time and over a range:
//!
//! ```sh
//! cargo run -p slogate-promql --example evaluate -- 'sum(rate(requests_total[1m]))'
//! ```

use std::error::Error;

use slogate_promql::{Engine, QueryResult, QueryValue, position};
use slogate_series::{Labels, Sample, Series, Value};

const MINUTE_MS: i64 = 60_000;

/// A counter that grows by `per_minute`, scraped four times a minute for ten minutes.
fn counter(version: &str, per_minute: f64) -> Series {
    let sample = |i: i64| Sample {
        t_ms: i * MINUTE_MS / 4,
        start_ms: 0,
        value: Value::Float(i as f64 * per_minute / 4.0),
    };
    Series {
        labels: Labels::from_pairs([("__name__", "requests_total"), ("version", version)]),
        samples: (0..=40).map(sample).collect(),
    }
}

fn print(query: &str, result: &QueryResult) {
    match &result.value {
        QueryValue::Scalar(value) => println!("{value}"),
        QueryValue::String(text) => println!("{text:?}"),
        QueryValue::Vector(elements) => {
            for element in elements {
                println!("{} {:?}", element.labels, element.value);
            }
        }
        QueryValue::Matrix(series) => {
            for one in series {
                println!("{}", one.labels);
                for sample in &one.samples {
                    println!("  {:>7} ms {:?}", sample.t_ms, sample.value);
                }
            }
        }
    }
    for note in &result.annotations {
        let (line, column) = position(query, note.span.start);
        println!("{} ({line}:{column})", note.message);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let asked = std::env::args().nth(1);
    let query = asked
        .as_deref()
        .unwrap_or("sum by (version) (rate(requests_total[1m]))");
    let store = vec![counter("1.0", 600.0), counter("1.1", 60.0)];
    let engine = Engine::default();
    let expr = match slogate_promql::parse(query) {
        Ok(expr) => expr,
        Err(error) => {
            // A mistake in the query is shown at its place.
            eprintln!("{}", error.render(query));
            std::process::exit(1);
        }
    };
    print(query, &engine.instant(&expr, &store, 5 * MINUTE_MS)?);
    if expr.value_type() != slogate_promql::ValueType::Matrix {
        let (start_ms, end_ms) = (5 * MINUTE_MS, 7 * MINUTE_MS);
        print(
            query,
            &engine.range(&expr, &store, start_ms, end_ms, MINUTE_MS)?,
        );
    }
    Ok(())
}
