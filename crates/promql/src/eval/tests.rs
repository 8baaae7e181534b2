use std::cell::RefCell;

use proptest::prelude::*;
use slogate_series::{Histogram, Matcher, ResetHint, Sample, Series, Value, stale_nan};

use super::testing::{engine, failure, labels, lines, run, series, steady, value_lines};
use crate::function::Function;
use crate::{
    AnnotationLevel, Engine, EvalError, QueryValue, Queryable, QueryableError, ValueType, parse,
};

/// A sample exactly one lookback old is already gone: windows are open on the left.
#[test]
fn windows_are_open_on_the_left() {
    let store = [steady("x", &[1.0])];
    assert_eq!(lines(&store, "x", 299), ["x 1"]);
    assert!(lines(&store, "x", 300).is_empty());
    let store = [steady("x", &[1.0, 2.0, 3.0])];
    assert_eq!(lines(&store, "count_over_time(x[30s])", 30), ["{} 2"]);
}

/// A series that ended must not be held up by lookback, and the marker is never a value.
#[test]
fn a_stale_series_is_absent_at_once() {
    let store = [series("x", &[Some(1.0), Some(stale_nan())])];
    assert_eq!(lines(&store, "x", 14), ["x 1"]);
    assert!(lines(&store, "x", 15).is_empty());
    assert_eq!(lines(&store, "x[1m]", 15), ["x 1@0"]);
    assert_eq!(lines(&store, "absent(x)", 15), ["{} 1"]);
    let nan = [series("x", &[Some(1.0), Some(f64::NAN)])];
    assert_eq!(
        lines(&nan, "x", 15),
        ["x NaN"],
        "an ordinary NaN is a value"
    );
}

/// The judge reads raw counters this way; nothing may be interpolated or renamed.
#[test]
fn a_range_selector_at_the_top_gives_the_samples_as_stored() {
    let store = [
        steady("x{b=\"2\"}", &[5.0, 6.0, 0.0]),
        series("x{a=\"1\"}", &[Some(1.0), None, Some(3.0)]),
    ];
    assert_eq!(
        lines(&store, "x[1m]", 30),
        ["x{a=\"1\"} 1@0 3@30", "x{b=\"2\"} 5@0 6@15 0@30"],
        "sorted by labels"
    );
    assert_eq!(
        lines(&store, "x{b=\"2\"}[20s] offset 10s", 30),
        ["x{b=\"2\"} 6@15"]
    );
    assert_eq!(
        lines(&store, "(x{b=\"2\"}[15s] @ 15)", 1000),
        ["x{b=\"2\"} 6@15"]
    );
    let h = Histogram {
        count: 3.0,
        sum: 2.0,
        ..Histogram::default()
    };
    let sample = Sample {
        t_ms: 1000,
        start_ms: 400,
        value: Value::Histogram(h.into()),
    };
    let native = [Series {
        labels: labels("h"),
        samples: vec![sample],
    }];
    assert_eq!(lines(&native, "h[1m]", 2), ["h count=3 sum=2@1"]);
}

#[test]
fn offset_and_at_move_the_window_in_either_order() {
    let store = [steady("x", &[0.0, 1.0, 2.0, 3.0, 4.0])];
    for (query, wanted) in [
        ("x offset 30s", "x 2"),
        ("x offset -15s", "x 4"),
        ("x @ 15", "x 1"),
        ("x @ 30 offset 15s", "x 1"),
        ("x offset 15s @ 30", "x 1"),
        ("x @ end()", "x 4"),
        ("sum_over_time(x[30s] @ 60)", "{} 7"),
    ] {
        let at = if query.contains("-15s") || !query.contains("offset") {
            45
        } else {
            60
        };
        let at = if query.contains("end()") { 60 } else { at };
        assert_eq!(lines(&store, query, at), [wanted], "{query}");
    }
}

#[test]
fn rates_reach_to_the_window_edges_but_not_below_zero() {
    // 4 samples in (0, 60]: 10 at 15 s to 40 at 60 s, 15 s are missing at the start.
    let store = [steady("x_total", &[0.0, 10.0, 20.0, 30.0, 40.0])];
    assert_eq!(lines(&store, "increase(x_total[1m])", 60), ["{} 40"]);
    // Extending by 15 s would claim 15 more, but the counter had only 5 to give.
    let young = [series(
        "x_total",
        &[None, Some(5.0), Some(20.0), Some(35.0), Some(50.0)],
    )];
    assert_eq!(lines(&young, "increase(x_total[1m])", 60), ["{} 50"]);
    // A gap of more than 1.1 intervals is only half bridged.
    let late = [series(
        "x_total",
        &[None, None, None, Some(100.0), Some(115.0)],
    )];
    assert_eq!(lines(&late, "increase(x_total[1m])", 60), ["{} 22.5"]);
    let reset = [steady("x_total", &[0.0, 10.0, 20.0, 5.0, 15.0])];
    assert_eq!(lines(&reset, "resets(x_total[1m])", 60), ["{} 1"]);
    assert!(
        lines(&reset, "rate(x_total[15s])", 60).is_empty(),
        "one sample has no rate"
    );
}

#[test]
fn a_reset_between_histograms_is_not_a_loss() {
    let sample = |t_s: i64, count: f64, reset_hint| {
        let h = Histogram {
            count,
            sum: count,
            reset_hint,
            ..Histogram::default()
        };
        Sample {
            t_ms: t_s * 1000,
            start_ms: 0,
            value: Value::Histogram(h.into()),
        }
    };
    let samples = vec![
        sample(15, 10.0, ResetHint::Unknown),
        sample(30, 20.0, ResetHint::Unknown),
        sample(45, 5.0, ResetHint::Unknown),
        sample(60, 15.0, ResetHint::Unknown),
    ];
    let store = [Series {
        labels: labels("h"),
        samples,
    }];
    // 20 - 10 before the reset, 15 after it, and 45 s stretched to 60 s.
    let query = "round(histogram_count(increase(h[1m])) * 3, 0.125)";
    assert_eq!(lines(&store, query, 60), ["{} 100"]);
}

/// Two series that only their name told apart would silently become one.
#[test]
fn dropping_names_never_merges_two_series() {
    let store = [
        steady("a{x=\"1\"}", &[1.0, 2.0]),
        steady("b{x=\"1\"}", &[1.0, 2.0]),
    ];
    let wanted = "vector cannot contain metrics with the same labelset";
    assert_eq!(failure(&store, "rate({x=\"1\"}[1m])", 15), wanted);
    assert_eq!(failure(&store, "-{x=\"1\"}", 15), wanted);
    assert_eq!(failure(&store, "{x=\"1\"} * 2", 15), wanted);
    assert_eq!(
        lines(&store, "{x=\"1\"} > 0", 15).len(),
        2,
        "a filter keeps names"
    );
    let delayed = Engine {
        delayed_name_removal: true,
        ..engine()
    };
    let sum = delayed
        .instant("sum(rate({x=\"1\"}[1m]))", &store.as_slice(), 15_000)
        .unwrap();
    assert_eq!(value_lines(&sum.value).len(), 1);
}

#[test]
fn names_are_dropped_at_once_unless_asked_otherwise() {
    let store = [steady("a_total{x=\"1\"}", &[0.0, 15.0])];
    let query = "sum by (__name__) (rate(a_total[1m]))";
    assert_eq!(lines(&store, query, 15), ["{} 0.25"]);
    assert_eq!(
        lines(&store, "last_over_time(a_total[1m])", 15),
        ["a_total{x=\"1\"} 15"]
    );
    assert_eq!(lines(&store, "abs(a_total)", 15), ["{x=\"1\"} 15"]);
}

#[test]
fn ambiguous_matches_fail_and_say_between_whom() {
    let store = [
        steady("left{a=\"1\", b=\"1\"}", &[6.0]),
        steady("left{a=\"1\", b=\"2\"}", &[8.0]),
        steady("right{a=\"1\"}", &[2.0]),
        steady("twice{a=\"1\", c=\"1\"}", &[2.0]),
        steady("twice{a=\"1\", c=\"2\"}", &[2.0]),
    ];
    assert_eq!(
        failure(&store, "right / on (a) twice", 0),
        "found duplicate series for the match group {a=\"1\"} on the right hand-side of the \
         operation: [{__name__=\"twice\", a=\"1\", c=\"1\"}, {__name__=\"twice\", a=\"1\", \
         c=\"2\"}];many-to-many matching not allowed: matching labels must be unique on one side"
    );
    assert_eq!(
        failure(&store, "left / on (a) right", 0),
        "multiple matches for labels: many-to-one matching must be explicit \
         (group_left/group_right)"
    );
    assert_eq!(
        lines(&store, "left / on (a) group_left right", 0),
        ["{a=\"1\", b=\"1\"} 3", "{a=\"1\", b=\"2\"} 4"]
    );
    assert_eq!(
        lines(&store, "right / on (a) group_right left", 0),
        [
            "{a=\"1\", b=\"1\"} 0.3333333333333333",
            "{a=\"1\", b=\"2\"} 0.25"
        ]
    );
    assert_eq!(
        failure(&store, "left / on (a) group_left (b) right", 0),
        "multiple matches for labels: grouping labels must ensure unique matches"
    );
    assert!(
        lines(&store, "nothing / on (a) twice", 0).is_empty(),
        "an empty side decides"
    );
}

#[test]
fn filters_keep_the_vectors_value() {
    let store = [steady("x{a=\"1\"}", &[3.0]), steady("x{a=\"2\"}", &[7.0])];
    assert_eq!(lines(&store, "x > 5", 0), ["x{a=\"2\"} 7"]);
    assert_eq!(lines(&store, "5 < x", 0), ["x{a=\"2\"} 7"]);
    assert_eq!(
        lines(&store, "5 < bool x", 0),
        ["{a=\"1\"} 0", "{a=\"2\"} 1"]
    );
    assert_eq!(lines(&store, "x unless x > 5", 0), ["x{a=\"1\"} 3"]);
    assert_eq!(
        lines(&store, "x and on (a) vector(1)", 0),
        Vec::<String>::new()
    );
    assert_eq!(
        lines(&store, "x > 5 or x", 0),
        ["x{a=\"2\"} 7", "x{a=\"1\"} 3"]
    );
}

/// NaN must neither win nor poison what a person looks at first.
#[test]
fn nan_loses_every_contest() {
    let store = [
        steady("x{a=\"1\"}", &[f64::NAN]),
        steady("x{a=\"2\"}", &[2.0]),
        steady("x{a=\"3\"}", &[3.0]),
    ];
    assert_eq!(lines(&store, "max(x)", 0), ["{} 3"]);
    assert_eq!(lines(&store, "min(x)", 0), ["{} 2"]);
    assert_eq!(lines(&store, "topk(1, x)", 0), ["x{a=\"3\"} 3"]);
    assert_eq!(lines(&store, "bottomk(1, x)", 0), ["x{a=\"2\"} 2"]);
    let values = |query| -> Vec<String> {
        lines(&store, query, 0)
            .iter()
            .map(|l| l.split(' ').next_back().unwrap().into())
            .collect()
    };
    assert_eq!(values("sort(x)"), ["2", "3", "NaN"]);
    assert_eq!(values("sort_desc(x)"), ["3", "2", "NaN"]);
    assert_eq!(lines(&store, "sum(x)", 0), ["{} NaN"]);
    assert_eq!(lines(&store, "count(x == x)", 0), ["{} 2"]);
}

#[test]
fn classic_quantiles_interpolate_and_admit_ignorance() {
    let bucket = |le: &str, count| steady(&format!("x_bucket{{le=\"{le}\"}}"), &[count]);
    let store = [
        bucket("0.1", 10.0),
        bucket("0.5", 30.0),
        bucket("+Inf", 40.0),
    ];
    assert_eq!(
        lines(&store, "histogram_quantile(0.5, x_bucket)", 0),
        ["{} 0.30000000000000004"]
    );
    assert_eq!(
        lines(&store, "histogram_quantile(0.99, x_bucket)", 0),
        ["{} 0.5"]
    );
    assert_eq!(
        lines(&store[..2], "histogram_quantile(0.5, x_bucket)", 0),
        ["{} NaN"]
    );
    let result = run(&store, "histogram_quantile(2, x_bucket)", 0).unwrap();
    assert_eq!(value_lines(&result.value), ["{} inf"]);
    assert_eq!(result.annotations[0].level, AnnotationLevel::Warning);
    let odd = [bucket("x", 1.0), bucket("0.1", 1.0), bucket("+Inf", 2.0)];
    let result = run(&odd, "histogram_quantile(0.5, x_bucket)", 0).unwrap();
    assert!(
        result.annotations[0]
            .message
            .contains("malformed value of \"x\"")
    );
}

#[test]
fn absence_keeps_what_the_selector_says() {
    let store: [Series; 0] = [];
    assert_eq!(
        lines(&store, "absent(x{a=\"1\", b!=\"2\", c=~\"3\"})", 0),
        ["{a=\"1\"} 1"]
    );
    assert_eq!(lines(&store, "absent(x{a=\"1\", a=\"2\"})", 0), ["{} 1"]);
    assert_eq!(
        lines(&store, "absent_over_time(x{a=\"1\"}[5m])", 0),
        ["{a=\"1\"} 1"]
    );
    assert_eq!(lines(&store, "absent(sum(x{a=\"1\"}))", 0), ["{} 1"]);
    assert_eq!(
        lines(&store, "sum(x)", 0),
        Vec::<String>::new(),
        "no data is not zero"
    );
    assert_eq!(lines(&store, "scalar(x)", 0), ["NaN"]);
}

#[test]
fn label_replace_follows_gos_rules() {
    let store = [steady("x{src=\"a-b\"}", &[1.0])];
    let query = |template: &str, pattern: &str| {
        format!("label_replace(x, \"dst\", \"{template}\", \"src\", \"{pattern}\")")
    };
    for (template, pattern, wanted) in [
        ("$2$1", "(.)-(.)", "x{dst=\"ba\", src=\"a-b\"} 1"),
        ("${1}x", "(.)-(.)", "x{dst=\"ax\", src=\"a-b\"} 1"),
        ("$1x", "(.)-(.)", "x{src=\"a-b\"} 1"),
        ("$$", ".*", "x{dst=\"$\", src=\"a-b\"} 1"),
        ("y", "a", "x{src=\"a-b\"} 1"),
        ("$n", "(?P<n>.).*", "x{dst=\"a\", src=\"a-b\"} 1"),
    ] {
        assert_eq!(
            lines(&store, &query(template, pattern), 0),
            [wanted],
            "{template}"
        );
    }
    assert!(failure(&store, &query("x", "("), 0).contains("invalid regular expression"));
    let joined = "label_join(x, \"dst\", \"/\", \"src\", \"none\", \"src\")";
    assert_eq!(
        lines(&store, joined, 0),
        ["x{dst=\"a-b//a-b\", src=\"a-b\"} 1"]
    );
}

#[test]
fn subqueries_run_on_absolute_multiples_of_their_step() {
    let store = [steady("x", &(0..20).map(f64::from).collect::<Vec<_>>())];
    // Steps 60, 120 and 180 of (14, 194], not 14 + n * 60.
    assert_eq!(lines(&store, "x[3m:1m]", 194), ["x 4@60 8@120 12@180"]);
    assert_eq!(lines(&store, "count_over_time(x[1m:15s])", 60), ["{} 4"]);
    assert_eq!(
        lines(
            &store,
            "round(max_over_time(rate(x[1m])[2m:30s]) * 15, 0.125)",
            180
        ),
        ["{} 1"]
    );
    assert_eq!(
        lines(&store, "x[2m:1m] @ 120 offset 1m", 500),
        ["x 0@0 4@60"]
    );
}

#[test]
fn dates_take_an_argument_or_the_evaluation_time() {
    let store: [Series; 0] = [];
    assert_eq!(lines(&store, "year()", 1_709_210_096), ["{} 2024"]);
    assert_eq!(
        lines(&store, "day_of_month(vector(1709210096))", 0),
        ["{} 29"]
    );
    assert_eq!(lines(&store, "hour(vector(1709210096))", 0), ["{} 12"]);
    assert_eq!(lines(&store, "time()", 5), ["5"]);
}

#[test]
fn a_range_query_gives_what_instant_queries_give_at_each_step() {
    let store = [
        series(
            "x_total{a=\"1\"}",
            &[Some(0.0), Some(4.0), None, None, Some(2.0), Some(9.0)],
        ),
        series(
            "x_total{a=\"2\"}",
            &[None, Some(1.0), Some(stale_nan()), Some(5.0), Some(7.0)],
        ),
    ];
    for query in [
        "x_total",
        "sum(rate(x_total[45s]))",
        "topk(1, x_total)",
        "x_total > 3 or x_total @ 15",
        "x_total - on () group_left sum(x_total offset 15s)",
        "count_values(\"v\", x_total)",
        "max_over_time(x_total[40s:10s])",
        "absent(x_total > 8)",
        "predict_linear(x_total[1m], 60)",
        "timestamp(x_total)",
        "vector(time())",
    ] {
        let range = engine()
            .range(query, &store.as_slice(), 0, 90_000, 10_000)
            .unwrap();
        let QueryValue::Matrix(series) = range.value else {
            panic!("{query}")
        };
        for step in 0..10 {
            let at_ms = step * 10_000;
            let mut now: Vec<String> = Vec::new();
            for one in &series {
                let sample = one.samples.iter().filter(|s| s.t_ms == at_ms);
                now.extend(sample.map(|s| format!("{} {:?}", one.labels, s.value)));
            }
            let instant = engine().instant(query, &store.as_slice(), at_ms).unwrap();
            let QueryValue::Vector(elements) = instant.value else {
                panic!("{query}")
            };
            let mut wanted: Vec<String> = elements
                .iter()
                .map(|e| format!("{} {:?}", e.labels, e.value))
                .collect();
            now.sort();
            wanted.sort();
            assert_eq!(now, wanted, "{query} at {at_ms}");
        }
    }
}

/// A store that counts how it is asked.
struct Counting<'a>(&'a [Series], RefCell<Vec<(i64, i64)>>);

impl Queryable for Counting<'_> {
    fn select(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<Series>, QueryableError> {
        self.1.borrow_mut().push((start_ms, end_ms));
        self.0.select(matchers, start_ms, end_ms)
    }
}

#[test]
fn each_selector_reads_the_store_once_and_no_more_than_it_needs() {
    let store = [steady("x", &[1.0, 2.0, 3.0])];
    let asked = |query: &str| {
        let counting = Counting(&store, RefCell::default());
        engine()
            .range(query, &counting, 600_000, 900_000, 1000)
            .unwrap();
        counting.1.into_inner()
    };
    assert_eq!(asked("x"), [(300_001, 900_000)]);
    assert_eq!(asked("rate(x[1m] offset 1m)"), [(480_001, 840_000)]);
    assert_eq!(asked("sum(x @ 15)"), [(-284_999, 15_000)]);
    let pinned = "max_over_time(rate(x[1m])[2m:1m] @ 300) + 0 * time()";
    assert_eq!(
        asked(pinned),
        [(180_001, 300_000)],
        "once, for all 301 steps"
    );
}

#[test]
fn limits_are_errors_and_not_memory() {
    let store = [
        steady("x{a=\"1\"}", &[1.0; 100]),
        steady("x{a=\"2\"}", &[1.0; 100]),
    ];
    let small = Engine {
        samples_max: 150,
        ..engine()
    };
    let fails = |query: &str| {
        small
            .instant(query, &store.as_slice(), 2_000_000)
            .map(|_| ())
    };
    assert_eq!(fails("x[1h]"), Err(EvalError::TooManySamples));
    assert_eq!(fails("x{a=\"1\"}[1h]"), Ok(()));
    assert_eq!(
        fails("sum_over_time(x[1h])"),
        Ok(()),
        "one series at a time"
    );
    let smaller = Engine {
        samples_max: 90,
        ..engine()
    };
    let one_series = smaller.instant("sum_over_time(x[1h])", &store.as_slice(), 2_000_000);
    assert_eq!(one_series.map(|_| ()), Err(EvalError::TooManySamples));
    assert_eq!(
        EvalError::TooManySamples.to_string(),
        "query processing would load too many samples into memory in query execution"
    );
    let steps = small
        .range("1", &store.as_slice(), 0, i64::MAX, 1)
        .map(|_| ());
    assert!(matches!(steps, Err(EvalError::TooManySteps { .. })));
    assert!(matches!(
        fails("x[290y:1ms]"),
        Err(EvalError::TooManySteps { .. })
    ));
    assert_eq!(
        small.range("1", &store.as_slice(), 5, 0, 1).map(|_| ()),
        Err(EvalError::InvalidRange)
    );
    let matrix = small.range("x[5m]", &store.as_slice(), 0, 5, 1).map(|_| ());
    assert!(matches!(matrix, Err(EvalError::RangeType { .. })));
}

/// A query deep enough to be accepted must also be evaluated within a small stack.
#[test]
fn the_deepest_accepted_query_is_evaluated() {
    let store = [steady("x", &[1.0])];
    let chain = vec!["x"; crate::HEIGHT_MAX].join("+");
    assert_eq!(
        lines(&store, &chain, 0),
        [format!("{{}} {}", crate::HEIGHT_MAX)]
    );
    let nested = format!("{}x{}", "abs(".repeat(100), ")".repeat(100));
    assert_eq!(lines(&store, &nested, 0), ["{} 1"]);
    let nested = format!("{}x{}", "sum(-(".repeat(40), "))".repeat(40));
    assert_eq!(lines(&store, &nested, 0), ["{} 1"]);
}

#[test]
fn a_store_that_fails_fails_the_query() {
    struct Broken;
    impl Queryable for Broken {
        fn select(&self, _: &[Matcher], _: i64, _: i64) -> Result<Vec<Series>, QueryableError> {
            Err(QueryableError {
                reason: "disk on fire".to_owned(),
            })
        }
    }
    let error = engine()
        .instant("sum(x) or vector(1)", &Broken, 0)
        .unwrap_err();
    assert_eq!(error.to_string(), "reading series: disk on fire");
}

#[test]
fn every_function_is_implemented() {
    let store = [steady("x_total{a=\"1\"}", &[1.0, 2.0, 4.0])];
    for function in Function::all() {
        let args: Vec<&str> = (0..function.args_min().max(function.args.len()))
            .map(|at| match function.arg_type(at) {
                Some(ValueType::Scalar) => "0.5",
                Some(ValueType::Vector) if at == 1 && function.takes_label_selector => "{}",
                Some(ValueType::Vector) => "x_total",
                Some(ValueType::Matrix) => "x_total[1m]",
                Some(ValueType::String) | None => "\"a\"",
            })
            .collect();
        let query = format!("{}({})", function.name, args.join(", "));
        if let Err(error) = run(&store, &query, 30) {
            panic!("{query}: {error}");
        }
    }
}

proptest! {
    /// Extreme times, ranges and values must give an answer or an error, never a panic.
    #[test]
    fn no_data_and_no_time_makes_it_panic(
        at_ms in prop_oneof![any::<i64>(), -1_000_000i64..1_000_000],
        times in proptest::collection::btree_set(-600_000i64..600_000, 0..12),
        values in proptest::collection::vec(
            prop_oneof![any::<f64>(), -10.0..10.0f64, Just(stale_nan())],
            12,
        ),
        which in 0usize..18,
    ) {
        let queries = [
            "x", "rate(x[5m])", "increase(x[1ms])", "irate(x[5m])", "deriv(x[5m])",
            "predict_linear(x[5m], 1e300)", "quantile_over_time(0.5, x[5m])", "avg_over_time(x[5m])",
            "x[5m] offset -292y", "x offset 292y", "x @ 9.2e15", "max_over_time(x[10m:7s])",
            "histogram_quantile(0.9, x)", "topk(x_none or 2, x)", "sum(x) / count(x)",
            "year(x) + day_of_year(x)", "round(x, 1e-300) ^ x % x atan2 x", "stddev_over_time(x[5m])",
        ];
        let samples = times
            .into_iter()
            .zip(values)
            .map(|(t_ms, value)| Sample { t_ms, start_ms: 0, value: Value::Float(value) })
            .collect();
        let store = vec![Series { labels: labels("x{le=\"1\"}"), samples }];
        if let Ok(result) = engine().instant(queries[which], &store, at_ms)
            && let QueryValue::Vector(elements) = result.value
        {
            prop_assert!(elements.iter().all(|e| !e.value.is_stale()));
        }
    }

    /// Sums must not depend on the order in which a store returns series.
    #[test]
    fn a_sum_does_not_depend_on_the_order_of_series(
        values in proptest::collection::vec(-1e15..1e15f64, 1..20),
    ) {
        let mut store: Vec<Series> = values
            .iter()
            .enumerate()
            .map(|(at, value)| steady(&format!("x{{a=\"{at}\"}}"), &[*value]))
            .collect();
        let sum = |store: &Vec<Series>| match engine().instant("sum(x)", store, 0).unwrap().value {
            QueryValue::Vector(elements) => elements[0].value.clone(),
            other => panic!("{other:?}"),
        };
        let forwards = sum(&store);
        store.reverse();
        let (Value::Float(a), Value::Float(b)) = (forwards, sum(&store)) else { panic!() };
        prop_assert!((a - b).abs() <= 1e-15 * values.iter().map(|v| v.abs()).sum::<f64>());
    }
}

#[test]
fn a_parsed_query_is_evaluated_without_parsing_again() {
    let expr = parse("1 + 1").unwrap();
    let result = engine().instant(&expr, &Vec::new(), 0).unwrap();
    assert_eq!(result.value, QueryValue::Scalar(2.0));
    let text = engine().instant("\"a\"", &Vec::new(), 0).unwrap();
    assert_eq!(text.value, QueryValue::String("a".to_owned()));
}

fn notes(store: &[Series], query: &str, at_s: i64) -> Vec<String> {
    let result = run(store, query, at_s).unwrap();
    let said = result.annotations.into_iter();
    said.map(|note| format!("{} @{}", note.message, note.span.start))
        .collect()
}

/// Who asks for a quantile that is none of a series that is not there has nothing to mend.
#[test]
fn notes_are_about_what_was_computed() {
    let store = [steady("x", &[1.0, 2.0]), series("gone", &[Some(1.0), None])];
    assert_eq!(
        notes(&store, "quantile_over_time(2, gone[10s])", 30),
        [""; 0]
    );
    assert_eq!(
        notes(&store, "quantile_over_time(2, x[1m])", 30),
        ["PromQL warning: quantile value should be between 0 and 1, got 2 @19"]
    );
    let sorted = engine().range(
        "sort(vector(1) or x @ 0)",
        &store.as_slice(),
        0,
        60_000,
        15_000,
    );
    assert!(sorted.unwrap().annotations.is_empty(), "one step is sorted");
    let inside = notes(&store, "count_over_time(sort(x)[1m:15s])", 30);
    assert_eq!(inside.len(), 1, "several are not: {inside:?}");
}

/// Falling counts matter to a quantile only, and only to one that is computed from them.
#[test]
fn buckets_are_raised_for_quantiles_alone() {
    let bucket = |le: &str, count| steady(&format!("b{{le=\"{le}\"}}"), &[count]);
    let store = [bucket("1", 6.0), bucket("2", 4.0), bucket("+Inf", 8.0)];
    assert_eq!(notes(&store, "histogram_quantile(0.5, (b))", 0).len(), 1);
    assert!(notes(&store, "histogram_fraction(0, 2, b)", 0).is_empty());
    assert_eq!(lines(&store, "histogram_fraction(0, 2, b)", 0), ["{} 0.5"]);
    let notes = notes(&store, "histogram_quantile(1.5, b)", 0);
    assert!(
        notes.iter().all(|note| !note.contains("monotonicity")),
        "{notes:?}"
    );
}

/// `group_left` may copy a name, even to a comparison that drops its own.
#[test]
fn a_copied_name_stays() {
    let store = [steady("a{l=\"1\"}", &[1.0]), steady("b{l=\"1\"}", &[2.0])];
    let copied = "a < bool on (l) group_left (__name__) b";
    assert_eq!(lines(&store, copied, 0), ["b{l=\"1\"} 1"]);
    assert_eq!(
        lines(&store, "a < bool on (l) group_left b", 0),
        ["{l=\"1\"} 1"]
    );
}

/// What is known of an open bucket's middle is that it is infinitely far away.
#[test]
fn open_custom_buckets_vary_without_bound() {
    let custom = |buckets: Vec<(i32, f64)>| {
        let h = Histogram {
            schema: slogate_series::histogram::CUSTOM_SCHEMA,
            count: 2.0,
            sum: 3.0,
            positive: slogate_series::Buckets::from_sorted(buckets),
            custom_bounds: vec![1.0, 2.0].into(),
            ..Histogram::default()
        };
        let sample = Sample {
            t_ms: 0,
            start_ms: 0,
            value: Value::Histogram(h.into()),
        };
        let labels = labels("h");
        lines(
            &[Series {
                labels,
                samples: vec![sample],
            }],
            "histogram_stdvar(h)",
            0,
        )
    };
    assert_eq!(custom(vec![(1, 2.0)]), ["{} 0"]);
    assert_eq!(custom(vec![(0, 1.0), (1, 1.0)]), ["{} inf"]);
    assert_eq!(custom(vec![(1, 1.0), (2, 1.0)]), ["{} inf"]);
}

/// A threshold that can't be computed must not make every count NaN.
#[test]
fn nothing_lies_on_either_side_of_a_nan() {
    let h = Histogram {
        count: 3.0,
        sum: 2.0,
        zero_count: 1.0,
        positive: slogate_series::Buckets::from_sorted(vec![(0, 2.0)]),
        ..Histogram::default()
    };
    let sample = Sample {
        t_ms: 0,
        start_ms: 0,
        value: Value::Histogram(h.into()),
    };
    let labels = labels("h");
    let samples = vec![sample];
    let store = [Series { labels, samples }];
    for query in ["histogram_count(h </ NaN)", "histogram_sum(h >/ NaN)"] {
        assert_eq!(lines(&store, query, 0), ["{} 0"], "{query}");
    }
}

/// The story: an alert on the absence of any of a family of metrics, all of which are there.
#[test]
fn absence_of_several_metrics_is_no_clash_of_their_names() {
    let store = [steady("a_total", &[1.0]), steady("b_total", &[1.0])];
    let any = "absent_over_time({__name__=~\".*_total\"}[1m])";
    assert!(lines(&store, any, 0).is_empty());
    assert_eq!(lines(&store, any, 600), ["{} 1"]);
}

/// Whether a join is ambiguous must not depend on which of its pairs a comparison lets through.
#[test]
fn a_pair_that_a_comparison_drops_counts_as_matched() {
    let store = [
        steady("many{s=\"1\",team=\"red\"}", &[1.0]),
        steady("many{s=\"1\",team=\"blue\"}", &[2.0]),
        steady("one{s=\"1\"}", &[2.0]),
    ];
    let query = "many == on (s) group_left (team) one";
    assert!(failure(&store, query, 0).contains("grouping labels must ensure unique matches"));
}
