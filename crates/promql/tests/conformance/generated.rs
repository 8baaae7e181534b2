//! Generated queries, well-typed and odd, over the small store of the fuzz target.

use proptest::prelude::*;
use proptest::sample::select;

use crate::query;

type Text = BoxedStrategy<String>;

fn one_of(words: &'static [&'static str]) -> Text {
    select(words).prop_map(str::to_owned).boxed()
}

fn scalar() -> Text {
    let literal = one_of(&["0", "1", "0.5", "-1", "2", "NaN", "Inf", "1e300", "5m"]);
    let other = one_of(&[
        "scalar(y)",
        "scalar(x{le=\"0.5\"})",
        "time()",
        "pi()",
        "min_of(1, time())",
    ]);
    prop_oneof![4 => literal, 1 => other].boxed()
}

fn selector() -> Text {
    let metric = one_of(&[
        "x",
        "y",
        "h",
        "g",
        "m",
        "{__name__=~\"[xyhgm]\"}",
        "{a=\"1\"}",
        "h{a!=\"2\"}",
    ]);
    let modifier = one_of(&[
        "",
        "",
        "",
        " offset 20s",
        " offset -1m",
        " @ 300",
        " smoothed",
    ]);
    (metric, modifier)
        .prop_map(|(m, modifier)| m + &modifier)
        .boxed()
}

fn range(inner: Text) -> Text {
    let metric = one_of(&[
        "x",
        "y",
        "h",
        "g",
        "m",
        "{__name__=~\"[hg]\"}",
        "m{a=\"1\"}",
    ]);
    let window = one_of(&[
        "[1m]",
        "[5m]",
        "[31s]",
        "[1ms]",
        "[2m] offset 7s",
        "[3m] @ 200",
    ]);
    let extended = one_of(&["[1m] anchored", "[5m] smoothed", "[2m] anchored offset 1m"]);
    let plain = (metric.clone(), prop_oneof![6 => window, 1 => extended]);
    let subquery = one_of(&["[3m:30s]", "[2m:]", "[5m:47s] offset 10s", "[1m:1m] @ 400"]);
    prop_oneof![
        4 => plain.prop_map(|(metric, window)| metric + &window),
        1 => (inner, subquery).prop_map(|(inner, range)| format!("({inner}){range}")),
    ]
    .boxed()
}

fn labels() -> Text {
    one_of(&[
        "()",
        "(a)",
        "(a, le)",
        "(job, b)",
        "(__name__)",
        "(job, instance, a)",
    ])
}

fn vector() -> Text {
    selector().prop_recursive(4, 24, 3, |inner| {
        let of_range = one_of(&[
            "rate", "increase", "delta", "irate", "idelta", "resets", "changes", "deriv",
            "sum_over_time", "avg_over_time", "min_over_time", "max_over_time", "count_over_time",
            "last_over_time", "first_over_time", "present_over_time", "absent_over_time",
            "stddev_over_time", "stdvar_over_time", "mad_over_time", "ts_of_max_over_time",
            "ts_of_last_over_time",
        ]);
        let of_vector = one_of(&[
            "abs", "ceil", "sqrt", "ln", "sgn", "round", "timestamp", "day_of_year", "month",
            "histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "absent",
            "sort", "info", "-", "+", "start_timestamp", "atan",
        ]);
        let aggregate = one_of(&["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"]);
        let with_parameter = one_of(&["topk", "bottomk", "quantile", "limitk", "limit_ratio"]);
        let by = prop_oneof![
            Just(String::new()),
            labels().prop_map(|l| format!("by {l}")),
            labels().prop_map(|l| format!("without {l}")),
        ];
        let operator = one_of(&[
            "+", "-", "*", "/", "%", "^", "atan2", "==", "!= bool", ">", "<= bool", "</", ">/",
        ]);
        let matching = prop_oneof![
            2 => Just(String::new()),
            2 => labels().prop_map(|l| format!("on {l}")),
            1 => labels().prop_map(|l| format!("ignoring {l}")),
            1 => labels().prop_map(|l| format!("on (a) group_left {l}")),
            1 => labels().prop_map(|l| format!("on {l} group_right (b)")),
            1 => Just("on (a) fill (1)".to_owned()),
            1 => Just("on (a) group_left fill_left (2) fill_right (NaN)".to_owned()),
        ];
        let set = (one_of(&["and", "or", "unless"]), labels());
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            3 => (of_range, range(inner.clone())).prop_map(|(f, r)| format!("{f}({r})")),
            2 => (of_vector, inner.clone()).prop_map(|(f, v)| format!("{f}({v})")),
            1 => (scalar(), range(inner.clone()))
                .prop_map(|(q, r)| format!("quantile_over_time({q}, {r})")),
            1 => (scalar(), inner.clone())
                .prop_map(|(q, v)| format!("histogram_quantile({q}, {v})")),
            1 => (scalar(), scalar(), inner.clone())
                .prop_map(|(a, b, v)| format!("histogram_fraction({a}, {b}, {v})")),
            1 => (inner.clone(), labels()).prop_map(|(v, _)| {
                format!("label_replace({v}, \"a\", \"$1-\", \"le\", \"(.*)\")")
            }),
            2 => (aggregate, by.clone(), inner.clone())
                .prop_map(|(op, by, v)| format!("{op} {by} ({v})")),
            1 => (with_parameter, by.clone(), scalar(), inner.clone())
                .prop_map(|(op, by, p, v)| format!("{op} {by} ({p}, {v})")),
            1 => (by, inner.clone()).prop_map(|(by, v)| format!("count_values {by} (\"v\", {v})")),
            2 => (pair.clone(), operator.clone(), matching)
                .prop_map(|((a, b), op, m)| format!("({a}) {op} {m} ({b})")),
            1 => (pair, set).prop_map(|((a, b), (op, l))| format!("({a}) {op} on {l} ({b})")),
            1 => (inner, operator, scalar()).prop_map(|(v, op, s)| format!("({v}) {op} {s}")),
        ]
    })
    .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn results_are_well_formed_and_ranges_end_like_instants(settings in 0u8..8, query in vector()) {
        query::check(settings, &query);
    }
}

#[test]
fn queries_of_scripts_are_well_formed_too() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut scripts = crate::read_scripts(&dir);
    scripts.extend(crate::scripts().unwrap_or_default());
    for (_, text) in scripts {
        for command in crate::script::parse(&text) {
            if let crate::script::CommandKind::Eval(eval) = command.kind {
                query::check(0, &eval.query);
            }
        }
    }
}
