//! The parser against the scripts' queries and against another parser.

use proptest::prelude::*;
use slogate_promql::{ParseOptions, parse_with};

use crate::script::{self, CommandKind, What};

const EXPERIMENTAL: ParseOptions = ParseOptions::everything();

/// The queries of all scripts, and whether they may be refused.
fn queries() -> Vec<(String, bool)> {
    let mut queries = Vec::new();
    for (_, text) in crate::scripts().unwrap_or_default() {
        for command in script::parse(&text) {
            if let CommandKind::Eval(eval) = command.kind {
                let fails = eval.expects(What::Fail);
                queries.push((eval.query, fails));
            }
        }
    }
    queries
}

#[test]
fn every_query_of_the_scripts_parses_and_prints_back() {
    let queries = queries();
    let mut refused = Vec::new();
    for (query, fails) in &queries {
        match parse_with(query, EXPERIMENTAL) {
            Ok(expr) => {
                let printed = expr.to_string();
                let again = parse_with(&printed, EXPERIMENTAL)
                    .unwrap_or_else(|e| panic!("{query} printed as\n{}", e.render(&printed)));
                assert_eq!(again.to_string(), printed, "{query}");
            }
            Err(error) if !fails => refused.push(error.render(query)),
            Err(_) => {}
        }
    }
    println!("{} queries, {} refused", queries.len(), refused.len());
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn the_other_parser_agrees_on_stable_queries() {
    let mut disagreements = Vec::new();
    for (query, _) in queries() {
        let (ours, theirs) = (
            parse_with(&query, ParseOptions::default()),
            promql_parser::parser::parse(&query),
        );
        // It lacks duration arithmetic, trim operators and underscores in numbers, and has
        // experimental functions on. Label values here are UTF-8, so escapes such as `\xff` are
        // refused.
        if let (Err(ours), Ok(_)) = (&ours, &theirs)
            && parse_with(&query, EXPERIMENTAL).is_err()
            && !query.contains("\\x")
        {
            disagreements.push(format!("only refused here:\n{}", ours.render(&query)));
        }
    }
    assert!(disagreements.is_empty(), "{}", disagreements.join("\n"));
}

fn without_places(expr: &slogate_promql::Expr) -> String {
    let debug = format!("{expr:?}");
    let mut out = String::with_capacity(debug.len());
    let mut rest = debug.as_str();
    while let Some(at) = rest.find("Span { ") {
        out.push_str(&rest[..at]);
        rest = rest[at..].split_once('}').map_or("", |(_, after)| after);
    }
    out + rest
}

/// The tree of a query with its matchers in order, without places, and without what the other
/// parser does not keep: whether a number was written as a duration.
fn meaning(source: &str) -> Result<String, String> {
    let parse = |source: &str| {
        parse_with(source, ParseOptions::default()).map_err(|error| error.render(source))
    };
    // Printing sorts matchers.
    let tree = without_places(&parse(&parse(source)?.to_string())?);
    let tree = tree.replace(", is_duration: true", "");
    Ok(tree.replace(", is_duration: false", ""))
}

/// Queries of the grammar that both parsers know, some of them ill-typed.
fn query() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "up", "a:b", "x", "sum", "by", "offset", "on", "bool", "start", "and", "inf", "rate",
    ]);
    let label = prop::sample::select(vec!["a", "le", "on", "by", "sum", "\"q.r\""]);
    let matcher = (
        label.clone(),
        prop::sample::select(vec!["=", "!=", "=~", "!~"]),
        "[a-c.*|]{0,2}",
    )
        .prop_map(|(label, op, value)| format!("{label}{op}\"{value}\""));
    let matchers = prop::collection::vec(matcher, 0..3).prop_map(|m| m.join(","));
    let selector = (word.clone(), prop::option::of(matchers)).prop_map(|(name, matchers)| {
        matchers.map_or(name.to_owned(), |matchers| format!("{name}{{{matchers}}}"))
    });
    let leaf = prop_oneof![
        4 => selector,
        1 => prop::sample::select(vec!["1", "0x1f", ".5", "1e3", "NaN", "'s'", "5m", "{}", "{a='b'}"])
            .prop_map(str::to_owned),
    ];
    let labels = prop::collection::vec(label, 0..3).prop_map(|labels| labels.join(", "));
    leaf.prop_recursive(4, 24, 3, move |inner| {
        let postfix = prop::sample::select(vec![
            "[5m]",
            "[1h:5m]",
            "[30m:]",
            " offset 5m",
            " offset -1h",
            " @ 12.5",
            " @ end()",
            "[5]",
        ]);
        let op = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "^", "==", "!=", ">", "<=", "and", "or", "unless", "atan2",
        ]);
        let modifier = prop_oneof![
            6 => Just(String::new()),
            1 => Just("bool".to_owned()),
            2 => labels.clone().prop_map(|labels| format!("on ({labels})")),
            1 => labels.clone().prop_map(|labels| format!("ignoring ({labels}) group_left")),
            1 => labels.clone().prop_map(|labels| format!("on (a) group_right ({labels})")),
        ];
        let function = prop::sample::select(vec![
            "rate",
            "abs",
            "sum_over_time",
            "time",
            "histogram_quantile",
            "clamp_max",
            "scalar",
            "nope",
            "absent",
            "round",
            "label_join",
            "vector",
            "quantile_over_time",
        ]);
        let aggregate =
            prop::sample::select(vec!["sum", "TOPK", "count_values", "avg", "quantile"]);
        let args = prop::collection::vec(inner.clone(), 0..3).prop_map(|args| args.join(", "));
        prop_oneof![
            (inner.clone(), postfix).prop_map(|(e, postfix)| format!("{e}{postfix}")),
            (inner.clone(), op, modifier, inner.clone())
                .prop_map(|(a, op, modifier, b)| format!("{a} {op} {modifier} {b}")),
            (function, args.clone()).prop_map(|(name, args)| format!("{name}({args})")),
            (aggregate.clone(), args.clone()).prop_map(|(name, args)| format!("{name}({args})")),
            (aggregate, labels.clone(), args)
                .prop_map(|(name, labels, args)| format!("{name} by ({labels}) ({args})")),
            inner.clone().prop_map(|e| format!("({e})")),
            inner.prop_map(|e| format!("-{e}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn both_parsers_accept_and_refuse_the_same(source in query()) {
        let ours = parse_with(&source, ParseOptions::default());
        let theirs = promql_parser::parser::parse(&source);
        prop_assert_eq!(
            ours.is_ok(),
            theirs.is_ok(),
            "{} | ours: {:?} | theirs: {:?}",
            source,
            ours.as_ref().err().map(ToString::to_string),
            theirs.err()
        );
        if let Ok(expr) = ours {
            let printed = expr.to_string();
            prop_assert_eq!(meaning(&printed), meaning(&source));
            prop_assert!(promql_parser::parser::parse(&printed).is_ok(), "{}", printed);
            // What the other one understood, read from what it prints. It takes signs of a
            // number together.
            prop_assume!(!source.contains("--") && !source.contains("-NaN"));
            let understood = theirs.map(|theirs| theirs.to_string()).unwrap_or_default();
            // It leaves out an empty `ignoring ()`, without which `group_left` means nothing.
            prop_assume!(promql_parser::parser::parse(&understood).is_ok());
            prop_assert_eq!(
                meaning(&understood),
                meaning(&source),
                "{} is {} to the other parser",
                source,
                understood
            );
        }
    }
}
