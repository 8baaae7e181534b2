//! Running scripts: a table of what passes per file, and the first failures in full.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use slogate_promql::ast::{AtModifier, Expr, ExprKind};
use slogate_promql::{
    AnnotationLevel, Engine, EvalError, ParseOptions, QueryResult, QueryValue, parse_with, position,
};
use slogate_series::{Buckets, Histogram, Labels, ResetHint, Sample, Series, Value, is_stale};

use crate::notation::{Expected, Item};
use crate::script::{self, CommandKind, Eval, ExpectedValue, When};

/// The engine that the scripts assume.
fn engine() -> Engine {
    Engine {
        samples_max: 10_000,
        delayed_name_removal: true,
        parse_options: ParseOptions { experimental: true },
        ..Engine::default()
    }
}

/// How many evaluations passed when this was last looked at; a fall is a regression.
const PASSED_MIN: usize = 1641;

#[test]
fn prometheus_test_scripts() {
    let Some(scripts) = crate::scripts() else {
        return;
    };
    let (mut table, mut details) = (String::new(), String::new());
    let (mut all, mut passed) = (0, 0);
    let wanted = std::env::var("SLOGATE_CONFORMANCE_FILE").unwrap_or_default();
    for (name, text) in scripts.iter().filter(|(name, _)| name.contains(&wanted)) {
        let report = run_script(text);
        let _ = writeln!(
            table,
            "{name:32} {:5} evals {:5} passed {:4} failed {:3} unread",
            report.evals,
            report.evals - report.failures.len(),
            report.failures.len(),
            report.unread
        );
        all += report.evals;
        passed += report.evals - report.failures.len();
        for failure in report
            .failures
            .iter()
            .take(if wanted.is_empty() { 3 } else { 1000 })
        {
            let _ = writeln!(details, "{name}:{failure}");
        }
    }
    println!("{details}\n{table}\n{passed} of {all} evaluations pass");
    if wanted.is_empty() {
        assert!(
            passed >= PASSED_MIN,
            "{passed} pass, {PASSED_MIN} did before"
        );
    }
}

#[derive(Default)]
struct Report {
    evals: usize,
    unread: usize,
    failures: Vec<String>,
}

fn run_script(text: &str) -> Report {
    let mut report = Report::default();
    let mut store: Vec<Series> = Vec::new();
    for command in script::parse(text) {
        match command.kind {
            CommandKind::Clear => store.clear(),
            CommandKind::Load { series, with_nhcb } => {
                if with_nhcb {
                    for nhcb in classic_to_native(&series) {
                        append(&mut store, nhcb);
                    }
                }
                for series in series {
                    append(&mut store, series);
                }
            }
            CommandKind::Eval(eval) => {
                report.evals += 1;
                if let Err(why) = run_eval(&eval, &store) {
                    let line = command.line;
                    report
                        .failures
                        .push(format!("{line}: {}\n    {why}", eval.query));
                }
            }
            CommandKind::Unknown(block) => {
                report.unread += 1;
                let line = command.line;
                println!(
                    "not read, line {line}: {}",
                    block.lines().next().unwrap_or_default()
                );
            }
        }
    }
    report
}

fn append(store: &mut Vec<Series>, series: Series) {
    let at = store
        .iter()
        .position(|earlier| earlier.labels == series.labels);
    let mut samples = at.map(|at| store.remove(at).samples).unwrap_or_default();
    let mut by_time: BTreeMap<i64, Sample> = samples.drain(..).map(|s| (s.t_ms, s)).collect();
    for sample in series.samples {
        by_time.entry(sample.t_ms).or_insert(sample);
    }
    let mut samples: Vec<Sample> = by_time.into_values().collect();
    note_resets(&mut samples);
    store.push(Series {
        labels: series.labels,
        samples,
    });
}

/// Prometheus's store knows of neighbouring histograms whether there is a reset between them.
fn note_resets(samples: &mut [Sample]) {
    let mut previous: Option<Arc<Histogram>> = None;
    for sample in samples {
        let Value::Histogram(h) = &sample.value else {
            previous = None;
            continue;
        };
        let mut hinted = h.as_ref().clone();
        if hinted.reset_hint == ResetHint::Unknown
            && let Some(previous) = &previous
            && previous.reset_hint != ResetHint::Gauge
            && previous.custom_bounds == h.custom_bounds
        {
            hinted.reset_hint = match h.is_reset_after(previous) {
                true => ResetHint::Reset,
                false => ResetHint::NotReset,
            };
        } else if hinted.reset_hint == ResetHint::NotReset && previous.is_none() {
            hinted.reset_hint = ResetHint::Unknown;
        }
        let hinted = Arc::new(hinted);
        previous = Some(hinted.clone());
        sample.value = Value::Histogram(hinted);
    }
}

/// Classic histograms as native ones with custom bounds.
fn classic_to_native(series: &[Series]) -> Vec<Series> {
    #[derive(Default)]
    struct Classic {
        buckets: Vec<(f64, f64)>,
        count: Option<f64>,
        sum: f64,
    }
    let mut found: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for one in series {
        let name = one.labels.metric_name().unwrap_or_default();
        let part = ["_bucket", "_count", "_sum"]
            .into_iter()
            .find(|s| name.ends_with(s));
        let Some(part) = part else { continue };
        let le = one.labels.get("le").and_then(|le| le.parse::<f64>().ok());
        if part == "_bucket" && le.is_none() {
            continue;
        }
        let mut labels = one.labels.without(&["le"]).to_builder();
        labels.set("__name__", &name[..name.len() - part.len()]);
        let times = found.entry(labels.build()).or_default();
        for sample in &one.samples {
            let Value::Float(value) = sample.value else {
                continue;
            };
            if is_stale(value) {
                continue;
            }
            let classic = times.entry(sample.t_ms).or_default();
            match part {
                "_bucket" => classic.buckets.push((le.unwrap_or_default(), value)),
                "_count" => classic.count = Some(value),
                _ => classic.sum = value,
            }
        }
    }
    let native = |t_ms: i64, mut classic: Classic| {
        classic.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let highest = classic.buckets.last().map(|bucket| bucket.1);
        let count = classic.count.or(highest).unwrap_or(0.0);
        let bounds: Vec<f64> = classic
            .buckets
            .iter()
            .map(|b| b.0)
            .filter(|b| b.is_finite())
            .collect();
        let mut below = 0.0;
        let mut counts = Vec::new();
        for (upper, cumulative) in &classic.buckets {
            if upper.is_finite() {
                counts.push(cumulative - below);
                below = *cumulative;
            }
        }
        counts.push(count - below);
        let h = Histogram {
            schema: slogate_series::histogram::CUSTOM_SCHEMA,
            count,
            sum: classic.sum,
            positive: Buckets::from_dense(0, counts),
            custom_bounds: bounds.into(),
            ..Histogram::default()
        };
        Sample {
            t_ms,
            start_ms: 0,
            value: Value::Histogram(h.into()),
        }
    };
    found
        .into_iter()
        .filter(|(_, times)| times.values().any(|classic| !classic.buckets.is_empty()))
        .map(|(labels, times)| Series {
            labels,
            samples: times
                .into_iter()
                .map(|(t_ms, classic)| native(t_ms, classic))
                .collect(),
        })
        .collect()
}

fn run_eval(eval: &Eval, store: &[Series]) -> Result<(), String> {
    let engine = engine();
    let expects_failure = eval.expects.iter().find(|e| e.what == "fail");
    let result = match eval.when {
        When::Instant(at_ms) => engine.instant(eval.query.as_str(), &store, at_ms),
        When::Range {
            start_ms,
            end_ms,
            step_ms,
        } => engine.range(eval.query.as_str(), &store, start_ms, end_ms, step_ms),
    };
    if let Some(expect) = expects_failure {
        let Err(error) = result else {
            return Err("succeeds, but must fail".to_owned());
        };
        return match &expect.message {
            Some(message) if *message != error.to_string() => Err(format!(
                "fails with\n    {error}\n    instead of\n    {message}"
            )),
            _ => Ok(()),
        };
    }
    let result = result.map_err(|error| format!("fails: {error}"))?;
    check_annotations(eval, &result)?;
    check_value(eval, &result.value)?;
    match eval.when {
        When::Instant(at_ms) => check_again(eval, &engine, store, at_ms),
        When::Range { .. } => Ok(()),
    }
}

/// The same query pinned to its time by `@`, at other times, and in the middle of a range.
fn check_again(eval: &Eval, engine: &Engine, store: &[Series], at_ms: i64) -> Result<(), String> {
    let mut pinned = parse_with(&eval.query, engine.parse_options).map_err(|e| e.to_string())?;
    let mut queries = vec![(eval.query.clone(), at_ms)];
    if pin(&mut pinned, at_ms) {
        let times = match at_ms {
            0 => vec![-1000, 0, 1000],
            t => vec![-10 * t, 0, t / 5, t, 10 * t],
        };
        queries.extend(times.into_iter().map(|time| (pinned.to_string(), time)));
    }
    let range_differs = ["start()", "end()", "range()", "step()"];
    for (query, time_ms) in queries {
        let result = engine.instant(query.as_str(), &store, time_ms);
        let result = result.map_err(|error| format!("as {query} at {time_ms} fails: {error}"))?;
        check_value(eval, &result.value)
            .map_err(|why| format!("as {query} at {time_ms}: {why}"))?;
        let plain = matches!(
            eval.value,
            ExpectedValue::Series(_) | ExpectedValue::Scalar(_)
        );
        if !plain || range_differs.iter().any(|text| eval.query.contains(text)) {
            continue;
        }
        let result = engine.range(
            query.as_str(),
            &store,
            time_ms - 60_000,
            time_ms + 60_000,
            60_000,
        );
        let result =
            result.map_err(|error| format!("as range of {query} at {time_ms}: {error}"))?;
        check_middle(eval, &result, time_ms)
            .map_err(|why| format!("as range of {query} around {time_ms}: {why}"))?;
    }
    Ok(())
}

/// Compares one step of a range result with what an instant query must give.
fn check_middle(eval: &Eval, result: &QueryResult, time_ms: i64) -> Result<(), String> {
    let QueryValue::Matrix(series) = &result.value else {
        return Err("is no matrix".to_owned());
    };
    let mut elements = Vec::new();
    for one in series {
        for sample in one.samples.iter().filter(|sample| sample.t_ms == time_ms) {
            elements.push((&one.labels, &sample.value));
        }
    }
    match &eval.value {
        ExpectedValue::Scalar(expected) => match elements.as_slice() {
            [(_, Value::Float(got))] if same_float(*expected, *got) => Ok(()),
            other => Err(format!("gives {other:?} instead of {expected}")),
        },
        ExpectedValue::Series(expected) => compare_elements(expected, &elements, false),
        _ => Ok(()),
    }
}

/// Sets `@` on every selector without one; false where that changes the meaning.
fn pin(expr: &mut Expr, at_ms: i64) -> bool {
    let at = Some(AtModifier::TimeMs(at_ms));
    match &mut expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => true,
        ExprKind::Vector(selector) => {
            selector.at = selector.at.or(at);
            true
        }
        ExprKind::Matrix(matrix) => {
            matrix.selector.at = matrix.selector.at.or(at);
            true
        }
        ExprKind::Subquery(subquery) => {
            if subquery.at.is_some() {
                return true;
            }
            subquery.at = at;
            !has_time_function(&subquery.expr)
        }
        ExprKind::Unary(unary) => pin(&mut unary.expr, at_ms),
        ExprKind::Paren(inner) => pin(inner, at_ms),
        ExprKind::Binary(binary) => pin(&mut binary.lhs, at_ms) & pin(&mut binary.rhs, at_ms),
        ExprKind::Aggregate(aggregate) => {
            let param = aggregate
                .param
                .as_mut()
                .is_none_or(|param| pin(param, at_ms));
            pin(&mut aggregate.expr, at_ms) & param
        }
        ExprKind::Call(call) => {
            let mut safe = !TIME_FUNCTIONS.contains(&call.function.name);
            for arg in &mut call.args {
                safe &= pin(arg, at_ms);
            }
            safe
        }
    }
}

const TIME_FUNCTIONS: [&str; 15] = [
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "hour",
    "minute",
    "month",
    "predict_linear",
    "time",
    "timestamp",
    "year",
    "start",
    "end",
    "step",
    "range",
];

fn has_time_function(expr: &Expr) -> bool {
    let here =
        matches!(&expr.kind, ExprKind::Call(call) if TIME_FUNCTIONS.contains(&call.function.name));
    here || expr.children().into_iter().any(has_time_function)
}

fn check_annotations(eval: &Eval, result: &QueryResult) -> Result<(), String> {
    for (level, yes, no) in [
        (AnnotationLevel::Warning, "warn", "no_warn"),
        (AnnotationLevel::Info, "info", "no_info"),
    ] {
        let got: Vec<String> = result
            .annotations
            .iter()
            .filter(|annotation| annotation.level == level)
            .map(|annotation| {
                let (line, column) = position(&eval.query, annotation.span.start);
                format!("{} ({line}:{column})", annotation.message)
            })
            .collect();
        let wanted: Vec<_> = eval.expects.iter().filter(|e| e.what == yes).collect();
        if eval.expects.iter().any(|e| e.what == no) && !got.is_empty() {
            return Err(format!("says {got:?}, but must not"));
        }
        if wanted.is_empty() {
            continue;
        }
        if got.is_empty() {
            return Err(format!("says nothing, but must: {wanted:?}"));
        }
        let texts: Vec<&String> = wanted.iter().filter_map(|e| e.message.as_ref()).collect();
        if texts.iter().any(|text| !got.contains(text)) {
            return Err(format!("says {got:?} instead of {texts:?}"));
        }
    }
    Ok(())
}

fn check_value(eval: &Eval, value: &QueryValue) -> Result<(), String> {
    match (&eval.value, value) {
        (ExpectedValue::Scalar(expected), QueryValue::Scalar(got)) => {
            if same_float(*expected, *got) {
                return Ok(());
            }
            Err(format!("is {got}, not {expected}"))
        }
        (ExpectedValue::String(expected), QueryValue::String(got)) if expected == got => Ok(()),
        (ExpectedValue::Series(expected), QueryValue::Vector(got)) => {
            let got: Vec<_> = got
                .iter()
                .map(|sample| (&sample.labels, &sample.value))
                .collect();
            let ordered = eval.expects.iter().any(|e| e.what == "ordered");
            compare_elements(expected, &got, ordered)
        }
        (ExpectedValue::Series(expected), QueryValue::Matrix(got)) => {
            let When::Range {
                start_ms, step_ms, ..
            } = eval.when
            else {
                return Err("is a range vector".to_owned());
            };
            compare_matrix(expected, got, start_ms, step_ms)
        }
        (
            ExpectedValue::RangeVector {
                start_ms,
                step_ms,
                series,
            },
            QueryValue::Matrix(got),
        ) => compare_matrix(series, got, *start_ms, *step_ms),
        (expected, got) => Err(format!("is {got:?}\n    instead of {expected:?}")),
    }
}

fn compare_elements(
    expected: &[Expected],
    got: &[(&Labels, &Value)],
    ordered: bool,
) -> Result<(), String> {
    if got.len() != expected.len() {
        let expected: Vec<_> = expected.iter().map(|e| &e.labels).collect();
        return Err(format!(
            "has {} elements: {got:?}\n    instead of {expected:?}",
            got.len()
        ));
    }
    for (at, expected) in expected.iter().enumerate() {
        let found = got
            .iter()
            .position(|(labels, _)| **labels == expected.labels);
        let Some(found) = found else {
            return Err(format!("lacks {} among {got:?}", expected.labels));
        };
        if ordered && found != at {
            return Err(format!(
                "has {} at place {found}, not {at}",
                expected.labels
            ));
        }
        let Some(Some(item)) = expected.values.first() else {
            continue;
        };
        if !same_value(item, got[found].1) {
            return Err(format!(
                "gives {} = {:?}\n    instead of {:?}",
                expected.labels, got[found].1, item.value
            ));
        }
    }
    Ok(())
}

fn compare_matrix(
    expected: &[Expected],
    got: &[Series],
    start_ms: i64,
    step_ms: i64,
) -> Result<(), String> {
    let expected: Vec<_> = expected
        .iter()
        .filter(|e| e.values.iter().any(Option::is_some))
        .collect();
    if expected.len() != got.len() {
        let names: Vec<_> = got.iter().map(|series| &series.labels).collect();
        return Err(format!(
            "has {} series: {names:?} instead of {}",
            got.len(),
            expected.len()
        ));
    }
    for expected in expected {
        let Some(series) = got.iter().find(|series| series.labels == expected.labels) else {
            return Err(format!("lacks {}", expected.labels));
        };
        let mut samples = series.samples.iter();
        for (at, item) in expected.values.iter().enumerate() {
            let Some(item) = item else { continue };
            let t_ms = start_ms + at as i64 * step_ms;
            match samples.next() {
                Some(sample) if sample.t_ms == t_ms && same_value(item, &sample.value) => {}
                other => {
                    return Err(format!(
                        "gives {} at {t_ms}: {other:?} instead of {:?}",
                        expected.labels, item.value
                    ));
                }
            }
        }
        if let Some(extra) = samples.next() {
            return Err(format!("gives {} also {extra:?}", expected.labels));
        }
    }
    Ok(())
}

fn same_value(expected: &Item, got: &Value) -> bool {
    match (&expected.value, got) {
        (Value::Float(a), Value::Float(b)) => same_float(*a, *b),
        (Value::Histogram(a), Value::Histogram(b)) => {
            let floats = |h: &Histogram| [h.count, h.sum, h.zero_count, h.zero_threshold];
            let bounds = |h: &Histogram| h.custom_bounds.to_vec();
            a.schema == b.schema
                && (!expected.has_hint || a.reset_hint == b.reset_hint)
                && floats(a)
                    .iter()
                    .zip(floats(b))
                    .all(|(a, b)| same_float(*a, b))
                && same_buckets(&a.positive, &b.positive)
                && same_buckets(&a.negative, &b.negative)
                && bounds(a) == bounds(b)
        }
        _ => false,
    }
}

fn same_buckets(a: &Buckets, b: &Buckets) -> bool {
    let (a, b) = (a.clone().compact(), b.clone().compact());
    a.len() == b.len()
        && a.iter()
            .zip(b.iter())
            .all(|(a, b)| a.0 == b.0 && same_float(a.1, b.1))
}

fn same_float(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan() && is_stale(a) == is_stale(b);
    }
    if a == b {
        return true;
    }
    let (difference, size) = ((a - b).abs(), a.abs() + b.abs());
    if a == 0.0 || b == 0.0 || size < f64::MIN_POSITIVE {
        return difference < 1e-6 * f64::MIN_POSITIVE;
    }
    difference / size.min(f64::MAX) < 1e-6
}

#[test]
fn a_script_that_must_fail_is_seen_to_fail() {
    let script = "load 1m\n  x 1 2\n\neval instant at 1m x\n  x 3\n\neval instant at 1m x\n  x 2\n";
    let report = run_script(script);
    assert_eq!(
        (report.evals, report.failures.len(), report.unread),
        (2, 1, 0)
    );
    let error: Result<_, EvalError> = engine().instant("x[", &Vec::<Series>::new(), 0);
    assert!(matches!(error, Err(EvalError::Parse(_))));
}
