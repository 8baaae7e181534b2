//! What Prometheus's sources say in annotations and parse errors, and that we say the same.
//!
//! The texts are read from the folder that `SLOGATE_CONFORMANCE_DIR` names; where it is not set
//! the tests say so and pass. Hints of our own may follow a text.

use std::path::Path;

use regex::Regex;
use slogate_promql::{Engine, ParseOptions, parse_with};
use slogate_series::Series;

use crate::script::{self, CommandKind};

/// The quoted texts in `file`, as patterns: what is filled in can be anything.
fn templates(file: &str) -> Option<Vec<(String, Regex)>> {
    let Some(dir) = std::env::var_os("SLOGATE_CONFORMANCE_DIR") else {
        println!("skipped: SLOGATE_CONFORMANCE_DIR is not set");
        return None;
    };
    let text = std::fs::read_to_string(Path::new(&dir).join(file)).expect("a readable file");
    let quoted = Regex::new(r#""((?:[^"\\]|\\.)*)""#).expect("a pattern");
    let verb = Regex::new(r"%[a-z]").expect("a pattern");
    let pattern = |template: &str| {
        let template = template.replace("\\\"", "\"");
        let parts: Vec<String> = verb.split(&template).map(regex::escape).collect();
        let pattern = Regex::new(&format!("(?s)^{}", parts.join(".*"))).expect("a pattern");
        (template, pattern)
    };
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let templates = lines.filter_map(|line| quoted.captures(line));
    Some(templates.map(|found| pattern(&found[1])).collect())
}

/// Those of `templates` that no text of `said` fits and that are not among `elsewhere`.
fn unsaid(templates: &[(String, Regex)], said: &[String], elsewhere: &[&str]) -> Vec<String> {
    let is_said = |pattern: &Regex| said.iter().any(|text| pattern.is_match(text));
    let is_elsewhere = |template: &str| elsewhere.iter().any(|part| template.contains(part));
    let missing = templates
        .iter()
        .filter(|(template, pattern)| !is_said(pattern) && !is_elsewhere(template));
    missing.map(|(template, _)| template.clone()).collect()
}

const LOAD: &str = "load 1m
    x{a=\"1\"} 0+1x9
    x_bucket{le=\"1\"} 5x9
    x_bucket{le=\"+Inf\"} 3x9
    h{a=\"1\"} {{count:4 sum:4 buckets:[4]}} {{count:2 sum:2 buckets:[2]}}x8
    h{a=\"2\"} {{count:4 sum:4 buckets:[4]}}x9
    g {{count:4 sum:4 counter_reset_hint:gauge buckets:[4]}}x9
    c{b=\"1\"} {{schema:-53 count:4 sum:4 custom_values:[1] buckets:[2 2]}}x9
    c{b=\"2\"} {{schema:-53 count:4 sum:4 custom_values:[2] buckets:[2 2]}}x9
    n {{count:9 sum:NaN buckets:[1 1]}}x9
    m 1 2 {{count:4 sum:4 buckets:[4]}}x7
    over_total@st -2m -2m -2m
    over_total 1 2 3
";

#[test]
fn annotations_have_the_texts_of_prometheus() {
    let Some(mut templates) = templates("prom-annotations.txt") else {
        return;
    };
    // The first two are the levels, which stand before each text.
    templates.retain(|(template, _)| template.starts_with("%w: "));
    assert_eq!(templates.len(), 22, "the file has changed");
    let mut store: Vec<Series> = Vec::new();
    for command in script::parse(LOAD) {
        let CommandKind::Load { series, with_nhcb } = command.kind else {
            panic!("line {}", command.line);
        };
        crate::store::load(&mut store, series, with_nhcb);
    }
    let engine = Engine {
        use_start_timestamps: true,
        ..crate::run::engine()
    };
    let by_type = Engine {
        type_and_unit_labels: true,
        ..engine.clone()
    };
    let mut said = Vec::new();
    for query in [
        "limit_ratio(2, x)",
        "quantile(2, x)",
        "histogram_quantile(0.5, x)",
        "sum({__name__=~\"x|h\"})",
        "histogram_quantile(0.5, label_replace({__name__=~\"g|x_bucket\"}, \"__name__\", \"z\", \"\", \"\"))",
        "rate(g[5m])",
        "delta(h[5m])",
        "sum({__name__=~\"c|h\"})",
        "h + on () group_left c{b=\"1\"}",
        "sort(x)",
        "rate(x[5m])",
        "histogram_quantile(0.5, x_bucket)",
        "h + 1",
        "max({__name__=~\"x|h\"})",
        "max_over_time(m[9m])",
        "histogram_quantile(0.9, n)",
        "histogram_quantile(0.1, n)",
        "histogram_fraction(0, 1, n)",
        "histogram_count(sum(h))",
        "sum(c)",
        "rate(over_total[5m])",
    ] {
        for engine in [&engine, &by_type] {
            let results = [
                engine.instant(query, &store, 60_000),
                engine.range(query, &store, 0, 540_000, 60_000),
            ];
            for result in results {
                let notes = result
                    .unwrap_or_else(|e| panic!("{query}: {e}"))
                    .annotations;
                said.extend(notes.into_iter().map(|note| note.message));
            }
        }
    }
    // `%w` is the level.
    let unsaid = unsaid(&templates, &said, &[]);
    assert!(unsaid.is_empty(), "never said: {unsaid:#?}");
}

#[test]
fn parse_errors_have_the_texts_of_prometheus() {
    let Some(templates) = templates("prom-parse-errors.txt") else {
        return;
    };
    assert!(templates.len() > 50, "the file has changed");
    let mut said = Vec::new();
    for query in [
        "x @ 1 @ 2",
        "(x) @ 1",
        "x[5m] anchored smoothed",
        "x[5m:] anchored",
        "(x) anchored",
        "x[5m:] smoothed",
        "(x) smoothed",
        "x + \"a\"",
        "x + bool x",
        "1 > 2",
        "x[300y]",
        "\"\\q\"",
        "abs()",
        "abs(x, x)",
        "round()",
        "round(x, 1, 1)",
        "info(x, x + x)",
        "info(x, x)",
        "info(x, 1)",
        "sum(1)",
        "abs(1)",
        "1 + fill(0) x",
        "x and fill(0) x",
        "x + on (a) group_left (a) x",
        "x{__name__=\"y\"}",
        "sum()",
        "x and on (a) group_left x",
        "x offset 1m offset 1m",
        "(x) offset 1m",
        "(x + x)[5m]",
        "1 and x",
        "x[5m][5m:]",
        "x @ Inf",
        "-x[5m]",
        "1 + on (a) x",
        "{}",
        "topk(x)",
    ] {
        let error = parse_with(query, ParseOptions::everything());
        said.push(error.expect_err(query).message);
    }
    for query in [
        "x[5m] anchored",
        "x smoothed",
        "x + fill(0) x",
        "limitk(1, x)",
    ] {
        said.push(
            parse_with(query, ParseOptions::default())
                .expect_err(query)
                .message,
        );
    }
    let no_arithmetic = ParseOptions {
        duration_expressions: false,
        ..ParseOptions::default()
    };
    said.push(
        parse_with("x[5m*2]", no_arithmetic)
            .expect_err("x[5m*2]")
            .message,
    );
    let elsewhere = [
        // Of series in test scripts.
        "in histogram",
        "error parsing",
        "unknown node type",
        // What can't come about here, because the grammar leaves no room for it.
        "aggregation operator expected",
        "binary expression does not support operator",
        "must have a valid expression type",
        "only + and - operators allowed",
        "set operations must always be many-to-many",
        "expected number literal or duration",
        // There is no such flag.
        "must be enabled with --enable-feature",
        // Says the same in other words: the place and the type come from the argument.
        "expected type %s in %s, got %s",
    ];
    let unsaid = unsaid(&templates, &said, &elsewhere);
    assert!(
        unsaid.is_empty(),
        "never said: {unsaid:#?}\nsaid: {said:#?}"
    );
}
