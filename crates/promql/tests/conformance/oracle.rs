//! The parser against the scripts' queries and against another parser.

use slogate_promql::{ParseOptions, parse_with};

use crate::script::{self, CommandKind};

const EXPERIMENTAL: ParseOptions = ParseOptions { experimental: true };

/// The queries of all scripts, and whether they may be refused.
fn queries() -> Vec<(String, bool)> {
    let mut queries = Vec::new();
    for (_, text) in crate::scripts().unwrap_or_default() {
        for command in script::parse(&text) {
            if let CommandKind::Eval(eval) = command.kind {
                let fails = eval.expects.iter().any(|e| e.what == "fail");
                queries.push((eval.query, fails));
            }
        }
    }
    queries
}

/// Features of Prometheus that are behind a flag there and that this parser does not have.
fn is_left_out(query: &str) -> bool {
    let words = [
        "anchored",
        "smoothed",
        "fill",
        "fill_left",
        "fill_right",
        "info",
        "start_timestamp",
    ];
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    query
        .split(|c| !is_word(c))
        .any(|word| words.contains(&word))
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
                assert_eq!(
                    without_places(&again),
                    without_places(&expr),
                    "{query} / {printed}"
                );
            }
            Err(error) if !fails && !is_left_out(query) => refused.push(error.render(query)),
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
            && !is_left_out(&query)
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
