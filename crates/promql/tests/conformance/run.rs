//! Running scripts, as Prometheus runs them.
//!
//! An instant query is asked at its time; then, with `@` and that time on every selector, at
//! other times, which must not matter; and each of these also as the middle of a range query.
//! Errors, annotations with their places, values, order and timestamps are compared.

use std::panic::{AssertUnwindSafe, catch_unwind};

use slogate_promql::ast::{AtModifier, Expr, ExprKind, MatrixSelector};
use slogate_promql::{
    AnnotationLevel, Engine, EvalError, ParseOptions, QueryResult, QueryValue, parse_with, position,
};
use slogate_series::{Buckets, Histogram, Labels, Series, Value, is_stale};

use crate::notation::{Expected, Item};
use crate::report::{self, Report};
use crate::script::{self, CommandKind, Eval, ExpectedValue, What, When};
use crate::store;

/// The engine that the scripts assume.
pub(crate) fn engine() -> Engine {
    Engine {
        samples_max: 10_000,
        delayed_name_removal: true,
        use_start_timestamps: true,
        parse_options: ParseOptions::everything(),
        ..Engine::default()
    }
}

/// The share of all evaluations that must pass, experimental features included.
const PASSED_MIN: f64 = 0.95;

#[test]
fn prometheus_test_scripts() {
    let wanted = std::env::var("SLOGATE_CONFORMANCE_FILE").unwrap_or_default();
    let Some(reports) = run_all(&engine(), &wanted) else {
        return;
    };
    println!("{}", report::text(&reports, !wanted.is_empty()));
    if let Some(path) = std::env::var_os("SLOGATE_PROMQLTEST_TABLE") {
        let write = std::fs::write(&path, report::markdown(&reports));
        write.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let (evals, passed) = report::total(&reports);
    assert!(
        passed as f64 >= PASSED_MIN * evals as f64,
        "{passed} of {evals} pass"
    );
    let failing = reports
        .iter()
        .filter(|r| r.is_stable() && !r.failures.is_empty());
    let failing: Vec<&str> = failing.map(|r| r.name.as_str()).collect();
    assert!(
        failing.is_empty(),
        "stable files with failures: {failing:?}"
    );
}

/// The scripts are written for names that are dropped at the end of a query. As Prometheus
/// runs by default they are dropped by each operation, so that evaluations fail that are
/// about the difference: those that need a name later, those that match `__type__` after an
/// operation dropped it, and notes about histograms, which have lost their names.
#[test]
fn prometheus_test_scripts_with_names_dropped_at_once() {
    let engine = Engine {
        delayed_name_removal: false,
        ..engine()
    };
    let Some(reports) = run_all(&engine, "") else {
        return;
    };
    println!("{}", report::text(&reports, false));
    let (evals, passed) = report::total(&reports);
    assert!(
        passed as f64 >= PASSED_MIN * evals as f64,
        "{passed} of {evals} pass"
    );
    let unexplained = |failure: &&String| !failure.contains("for metric name");
    let failures = reports.iter().flat_map(|r| &r.failures);
    let unexplained = failures.filter(unexplained).count();
    assert!(
        unexplained * 100 <= evals,
        "{unexplained} of {evals} fail and are not about a name in a note"
    );
}

/// Our own scripts, in the folder beside this one; those in `default` with Prometheus's default
/// settings, the others with all that is behind a flag.
#[test]
fn our_own_scripts() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let everything = engine();
    for (dir, engine) in [
        (dir.clone(), &everything),
        (dir.join("default"), &Engine::default()),
    ] {
        let scripts = crate::read_scripts(&dir);
        let run = |(name, text): &(String, String)| Report {
            name: name.clone(),
            ..run_script(engine, text)
        };
        let reports: Vec<Report> = scripts.iter().map(run).collect();
        let failed = reports.iter().any(|r| !r.failures.is_empty());
        assert!(!failed, "{}", report::text(&reports, true));
        assert!(
            report::total(&reports).0 >= 20,
            "too few in {}",
            dir.display()
        );
    }
}

/// The scripts whose name contains `wanted`; `None` where there are none at all.
fn run_all(engine: &Engine, wanted: &str) -> Option<Vec<Report>> {
    let scripts = crate::scripts()?;
    let run = |(name, text): &(String, String)| Report {
        name: name.clone(),
        ..run_script(engine, text)
    };
    let wanted = scripts.iter().filter(|(name, _)| name.contains(wanted));
    Some(wanted.map(run).collect())
}

fn run_script(engine: &Engine, text: &str) -> Report {
    let mut report = Report::default();
    let mut stored: Vec<Series> = Vec::new();
    for command in script::parse(text) {
        let line = command.line;
        match command.kind {
            CommandKind::Clear => stored.clear(),
            CommandKind::Load { series, with_nhcb } => store::load(&mut stored, series, with_nhcb),
            CommandKind::Eval(eval) => {
                report.evals += 1;
                let run = || run_eval(engine, &eval, &stored);
                let outcome = catch_unwind(AssertUnwindSafe(run));
                if let Err(why) = outcome.unwrap_or_else(|_| Err("panics".to_owned())) {
                    let failure = format!("{line}: {}\n    {why}", eval.query);
                    report.failures.push(failure);
                }
            }
            CommandKind::Unknown(block) => {
                report.unread += 1;
                let first = block.lines().next().unwrap_or_default();
                report.failures.push(format!("{line}: can't read: {first}"));
            }
        }
    }
    report
}

fn run_eval(engine: &Engine, eval: &Eval, stored: &[Series]) -> Result<(), String> {
    let at_ms = match eval.when {
        When::Instant(at_ms) => at_ms,
        When::Range {
            start_ms,
            end_ms,
            step_ms,
        } => {
            let result = engine.range(eval.query.as_str(), &stored, start_ms, end_ms, step_ms);
            return check(eval, &eval.query, result).map(|_| ());
        }
    };
    let mut queries = vec![(eval.query.clone(), at_ms)];
    if let Ok(mut pinned) = parse_with(&eval.query, engine.parse_options)
        && pin(&mut pinned, at_ms)
    {
        let times = match at_ms {
            0 => vec![-1000, 0, 1000],
            t => vec![-10 * t, 0, t / 5, t, 10 * t],
        };
        queries.extend(times.into_iter().map(|time| (pinned.to_string(), time)));
    }
    for (query, time_ms) in queries {
        let place = |why: String| match query == eval.query {
            true => why,
            false => format!("as {query} at {time_ms}ms {why}"),
        };
        let result = engine.instant(query.as_str(), &stored, time_ms);
        let succeeds = check(eval, &query, result).map_err(place)?;
        if succeeds {
            check_in_range(engine, eval, &query, stored, time_ms)
                .map_err(|why| format!("as range query of {query} around {time_ms}ms {why}"))?;
        }
    }
    Ok(())
}

/// Compares everything about the result of `query`; whether it has a value.
fn check(eval: &Eval, query: &str, result: Result<QueryResult, EvalError>) -> Result<bool, String> {
    match (result, eval.expected(What::Fail).next()) {
        (Err(error), Some(pattern)) if pattern.matches(&error.to_string()) => Ok(false),
        (Err(error), Some(pattern)) => Err(format!(
            "fails with\n    {error}\n    instead of\n    {pattern:?}"
        )),
        (Err(error), None) => Err(format!("fails: {error}")),
        (Ok(_), Some(pattern)) => Err(format!("succeeds, but must fail: {pattern:?}")),
        (Ok(result), None) => {
            check_annotations(eval, query, &result)?;
            check_value(eval, &result.value)?;
            Ok(true)
        }
    }
}

/// The same query as the middle of a range query of three steps.
fn check_in_range(
    engine: &Engine,
    eval: &Eval,
    query: &str,
    stored: &[Series],
    time_ms: i64,
) -> Result<(), String> {
    let differs = ["start()", "end()", "range()", "step()"];
    let is_plain = matches!(
        eval.value,
        ExpectedValue::Series(_) | ExpectedValue::Scalar(_)
    );
    if !is_plain || differs.iter().any(|text| query.contains(text)) {
        return Ok(());
    }
    let (start_ms, end_ms) = (time_ms - 60_000, time_ms + 60_000);
    let result = engine.range(query, &stored, start_ms, end_ms, 60_000);
    let result = result.map_err(|error| format!("fails: {error}"))?;
    if eval.expects(What::Ordered) {
        return Ok(());
    }
    let QueryValue::Matrix(series) = &result.value else {
        return Err("is no matrix".to_owned());
    };
    check_sorted(series)?;
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

fn check_sorted(series: &[Series]) -> Result<(), String> {
    let sorted = series.is_sorted_by(|a, b| a.labels <= b.labels);
    let names: Vec<_> = series.iter().map(|s| &s.labels).collect();
    sorted
        .then_some(())
        .ok_or_else(|| format!("is not sorted by labels: {names:?}"))
}

/// Sets `@` on every selector without a fixed time; false where that changes the meaning.
fn pin(expr: &mut Expr, at_ms: i64) -> bool {
    // The query's own start and end are the time that is set.
    let is_fixed = |at: &Option<AtModifier>| matches!(at, Some(AtModifier::TimeMs(_)));
    let at = Some(AtModifier::TimeMs(at_ms));
    match &mut expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => true,
        ExprKind::Vector(selector) | ExprKind::Matrix(MatrixSelector { selector, .. }) => {
            if !is_fixed(&selector.at) {
                selector.at = at;
            }
            true
        }
        ExprKind::Subquery(subquery) => {
            // What stands inside is evaluated at fixed times from now on.
            if !is_fixed(&subquery.at) {
                subquery.at = at;
            }
            true
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

fn check_annotations(eval: &Eval, query: &str, result: &QueryResult) -> Result<(), String> {
    for (level, yes, no) in [
        (AnnotationLevel::Warning, What::Warn, What::NoWarn),
        (AnnotationLevel::Info, What::Info, What::NoInfo),
    ] {
        let of_level = result.annotations.iter().filter(|a| a.level == level);
        let got: Vec<String> = of_level
            .map(|annotation| {
                let (line, column) = position(query, annotation.span.start);
                format!("{} ({line}:{column})", annotation.message)
            })
            .collect();
        if eval.expects(no) && !got.is_empty() {
            return Err(format!("says {got:?}, but must say nothing"));
        }
        if !eval.expects(yes) {
            continue;
        }
        let wanted: Vec<_> = eval.expected(yes).collect();
        let all_said = wanted
            .iter()
            .all(|pattern| got.iter().any(|text| pattern.matches(text)));
        let all_wanted = got
            .iter()
            .all(|text| wanted.iter().any(|pattern| pattern.matches(text)));
        if !all_said || !all_wanted {
            return Err(format!("says\n    {got:?}\n    instead of\n    {wanted:?}"));
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
            compare_elements(expected, &got, eval.expects(What::Ordered))
        }
        (ExpectedValue::Series(expected), QueryValue::Matrix(got)) => {
            let When::Range {
                start_ms,
                end_ms,
                step_ms,
            } = eval.when
            else {
                return Err("is a range vector".to_owned());
            };
            compare_matrix(expected, got, (start_ms, end_ms, step_ms))
        }
        (
            ExpectedValue::RangeVector {
                start_ms,
                end_ms,
                step_ms,
                series,
            },
            QueryValue::Matrix(got),
        ) => compare_matrix(series, got, (*start_ms, *end_ms, *step_ms)),
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

/// `grid` is the start, the end and the step at which the expected values lie.
fn compare_matrix(
    expected: &[Expected],
    got: &[Series],
    grid: (i64, i64, i64),
) -> Result<(), String> {
    let (start_ms, end_ms, step_ms) = grid;
    check_sorted(got)?;
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
            if t_ms > end_ms {
                return Err(format!("can't have a value at {t_ms}, after the end"));
            }
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
    let mut engine = engine();
    engine.delayed_name_removal = false;
    let failing = |body: &str| {
        let script = format!("load 1m\n  x 1 2\n  a_total 1 2\n\n{body}\n");
        run_script(&engine, &script).failures
    };
    let good = [
        "eval instant at 1m x\n  x 2",
        "eval instant at 1m x\n  expect no_info\n  expect no_warn\n  x 2",
        "eval_fail instant at 1m x * on (\"y\") {__name__=~\".+\"}",
        "eval range from 0 to 1m step 1m x\n  x 1 2",
        "eval instant at 1m rate(x[5m])\n  expect info regex:might not be a counter\n  {} 0.0167e0",
    ];
    for body in &good[..4] {
        assert_eq!(failing(body), Vec::<String>::new(), "{body}");
    }
    let bad = [
        "eval instant at 1m x\n  x 3",
        "eval instant at 1m x",
        "eval instant at 1m x\n  expect warn\n  x 2",
        "eval instant at 1m x\n  expect fail\n  x 2",
        "eval instant at 1m sort(x or a_total * 2)\n  expect ordered\n  {} 4\n  x 2",
        "eval range from 0 to 1m step 1m x\n  x 1 2 3",
        "eval range from 0 to 1m step 1m x\n  x 1",
        "eval instant at 1m rate(x[5m])\n  expect info msg:PromQL info: other (1:6)\n  {} 1",
        "eval instant at 1m x\n  x 1 2",
        "nonsense",
        good[4],
    ];
    for body in bad {
        assert_eq!(failing(body).len(), 1, "{body}");
    }
}
