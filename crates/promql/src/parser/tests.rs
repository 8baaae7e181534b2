use proptest::prelude::*;

use super::*;

fn printed(source: &str) -> String {
    match parse_with(source, ParseOptions::everything()) {
        Ok(expr) => expr.to_string(),
        Err(error) => panic!("{}", error.render(source)),
    }
}

fn error(source: &str) -> ParseError {
    match parse(source) {
        Ok(expr) => panic!("accepted as {expr}"),
        Err(error) => error,
    }
}

#[test]
fn a_lone_selector_is_matchers_and_nothing_else() {
    let matchers = |source: &str| -> Vec<String> {
        let matchers = parse_selector(source).unwrap_or_else(|e| panic!("{}", e.render(source)));
        matchers.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        matchers("up{job=~\"a|b\"}"),
        ["__name__=\"up\"", "job=~\"a|b\""]
    );
    assert_eq!(
        matchers("{\"http.requests\"}"),
        ["__name__=\"http.requests\""]
    );
    assert_eq!(matchers("sum:rate5m"), ["__name__=\"sum:rate5m\""]);
    assert_eq!(matchers("{}"), [""; 0], "it may select everything");
    for more in [
        "up[5m]",
        "up offset 5m",
        "sum(up)",
        "(up)",
        "up + up",
        "1",
        "",
        "up{",
    ] {
        assert!(parse_selector(more).is_err(), "{more}");
    }
}

#[test]
fn operators_bind_as_in_prometheus() {
    let shape = |source: &str| {
        fn of(expr: &Expr) -> String {
            match &expr.kind {
                ExprKind::Binary(b) => {
                    format!("({} {} {})", of(&b.lhs), b.op.as_str(), of(&b.rhs))
                }
                ExprKind::Unary(u) => format!("(-{})", of(&u.expr)),
                _ => expr.to_string(),
            }
        }
        of(&parse(source).unwrap())
    };
    assert_eq!(shape("1 + 2 * 3 ^ 2 ^ 2"), "(1 + (2 * (3 ^ (2 ^ 2))))");
    assert_eq!(shape("1 - 2 - 3"), "((1 - 2) - 3)");
    assert_eq!(shape("-1 ^ 2"), "(-(1 ^ 2))");
    assert_eq!(shape("-a * b"), "((-a) * b)");
    assert_eq!(
        shape("a or b and c unless d"),
        "(a or ((b and c) unless d))"
    );
    assert_eq!(shape("a > b + c atan2 d"), "(a > (b + (c atan2 d)))");
    assert_eq!(shape("a </ 1 + 2"), "(a </ (1 + 2))");
    assert_eq!(shape("2 ^ -1"), "(2 ^ (-1))");
}

#[test]
fn modifiers_go_to_the_selector_before_them() {
    for (source, wanted) in [
        ("sum(x) by (a, b,)", "sum by (a, b) (x)"),
        ("SUM WITHOUT () (x)", "sum without () (x)"),
        ("a * on(x) GROUP_LEFT(y) b", "a * on (x) group_left (y) b"),
        (
            "a / ignoring(x) group_right b",
            "a / ignoring (x) group_right () b",
        ),
        ("x offset -5m @ 10", "x @ 10.000 offset -5m"),
        ("x[5m] @ end() offset 1h30m", "x[5m] @ end() offset 1h30m"),
        ("rate(x[5m])[1h:] offset 60", "rate(x[5m])[1h:] offset 60"),
        ("x[2m*(10+5)]", "x[2m * (10 + 5)]"),
        ("x offset (step()*2)", "x offset (step() * 2)"),
        ("-x offset 5m", "-x offset 5m"),
        ("a == bool b", "a == bool b"),
        ("topk(3, x) by (job)", "topk by (job) (3, x)"),
    ] {
        assert_eq!(printed(source), wanted, "{source}");
    }
}

#[test]
fn keywords_can_name_metrics_and_labels() {
    for source in [
        "sum{by=\"1\"}",
        "by",
        "offset offset 5m",
        "count + without",
        "sum by (on, group_left, bool) (start)",
        "{inf=\"1\", nan=\"2\", on=\"3\"}",
        "and and or or unless",
    ] {
        assert_eq!(printed(&printed(source)), printed(source), "{source}");
    }
    assert!(parse("on").is_err());
    assert!(parse("bool > 1").is_err());
}

#[test]
fn names_in_quotes_may_hold_anything() {
    let source = r#"{"http.requests","zone id"=~"eu.*",x="y"}"#;
    assert_eq!(printed(source), source);
    assert_eq!(printed(r#"{"up"}"#), "up");
    assert_eq!(
        printed(r#"sum by ("a.b", c) (x)"#),
        r#"sum by ("a.b", c) (x)"#
    );
}

#[test]
fn mistakes_say_where_they_are_and_what_was_expected() {
    for (source, at, text) in [
        ("", "", "no expression found"),
        (
            "sum(rate(x[5m])",
            "",
            "unexpected end of input, expected \",\" or \")\"",
        ),
        (
            "rate(x)",
            "x",
            "expected type range vector in call to function \"rate\"",
        ),
        (
            "sum(x[5m])",
            "x[5m]",
            "expected type instant vector in aggregation",
        ),
        ("abs(1)", "1", "wrap it in vector()"),
        ("1 > 2", ">", "must use BOOL modifier"),
        ("x + bool 1", "bool", "only be used on comparison"),
        ("x and 1", "and", "set operator \"and\" not allowed"),
        ("rat(x[5m])", "rat", "did you mean \"rate\""),
        ("{}", "{}", "at least one non-empty matcher"),
        (
            "{a=~\".*\"}",
            "{a=~\".*\"}",
            "at least one non-empty matcher",
        ),
        ("x{a=b}", "b", "a string in quotes"),
        ("x{a~\"b\"}", "~", "unexpected character"),
        ("x{a=~\"(\"}", "\"(\"", "unclosed group"),
        ("x[5m", "", "\":\" or \"]\""),
        ("x[0]", "0", "greater than 0"),
        (
            "x offset 5m[5m]",
            "[5m]",
            "no offset modifiers allowed before range",
        ),
        (
            "(x + y)[5m]",
            "[5m]",
            "ranges only allowed for vector selectors",
        ),
        (
            "a * on(x) group_left(x) b",
            "on(x) group_left(x)",
            "must not occur in ON and GROUP",
        ),
        (
            "foo{__name__=\"bar\"}",
            "__name__=\"bar\"",
            "must not be set twice",
        ),
        ("topk(x)", "topk(x)", "expected 2, got 1"),
        ("sum(x, )", ",", "trailing commas"),
        ("round()", "round()", "expected at least 1 argument"),
        ("start()", "start", "experimental"),
        ("x y", "y", "an operator or the end"),
        ("x # comment\n  y", "y", "an operator"),
        ("\"abc", "\"abc", "unterminated quoted string"),
        ("x @ y", "y", "a timestamp"),
    ] {
        let error = error(source);
        assert!(error.message.contains(text), "{source}: {error}");
        assert_eq!(
            &source[error.span.start..error.span.end],
            at,
            "{source}: {error}"
        );
    }
}

#[test]
fn every_node_knows_its_place() {
    fn walk(expr: &Expr, source: &str) {
        let text = &source[expr.span.start..expr.span.end];
        let again = parse(text).unwrap_or_else(|e| panic!("{}", e.render(text)));
        assert_eq!(again.to_string(), expr.to_string(), "{text}");
        for child in expr.children() {
            assert!(child.span.start >= expr.span.start && child.span.end <= expr.span.end);
            walk(child, source);
        }
    }
    let source = "  sum (rate ( x{a=\"ü\"} [5m] offset 1m ) ) by (a) / on(a) -(time() @ 5) [1h:] ";
    let source = source.replace(
        "-(time() @ 5) [1h:]",
        "max_over_time((y @ 5)[1h:] offset 2m)",
    );
    walk(&parse(&source).unwrap(), &source);
}

#[test]
fn nesting_and_chains_have_limits_and_do_not_overflow_the_stack() {
    for (open, close) in [
        ("(", ")"),
        ("-", ""),
        ("abs(", ")"),
        ("sum(", ")"),
        ("1^", ""),
    ] {
        for depth in [NESTING_MAX + 10, 50_000 / open.len()] {
            let source = format!("{}x{}", open.repeat(depth), close.repeat(depth));
            let error = error(&source[..source.len().min(QUERY_BYTES_MAX)]);
            assert!(error.message.contains("nests more than"), "{error}");
        }
        let source = format!("{}x{}", open.repeat(100), close.repeat(100));
        assert!(parse(&source).is_ok());
    }
    let chain = |terms: usize| vec!["x"; terms].join("+");
    assert!(parse(&chain(HEIGHT_MAX)).is_ok());
    assert!(error(&chain(10_000)).message.contains("chain of more than"));
    let postfix = format!("x{}", "[1m:]".repeat(10_000));
    assert!(parse(&postfix).is_err());
    let durations = format!("x[{}1]", "(".repeat(30_000));
    assert!(parse(&durations).is_err());
    assert!(parse(&format!("x[{}1]", "1+".repeat(30_000))).is_err());
    assert!(
        error(&"x".repeat(QUERY_BYTES_MAX + 1))
            .message
            .contains("at most")
    );
}

const SEEDS: [&str; 10] = [
    "sum by (a) (rate(http_requests_total{job=~\"a.*\", code!=\"200\"}[5m] offset -1m))",
    "histogram_quantile(0.9, sum by (le) (rate(x_bucket[5m])))",
    "a * on (x, y) group_left (z) b > bool 0x1f",
    "topk(5, -x ^ 2) or absent({__name__=\"a b\"} @ end())",
    "max_over_time(deriv(x[5m])[1h30m:1m] @ 1.5 offset 2h) # tail",
    "label_replace(up, 'dst', `$1`, \"src\", \"(.*)\\u00fc\")",
    "x[min_of(step() * 2, 5m) - -3] unless ignoring () y",
    "clamp(x, -Inf, NaN) % 1e-3 atan2 (time() == bool 1_000)",
    "{\"a.b\", \"c d\"!~\"e|f\", g=''} </ 3 >/ .5",
    "count_values without (\"q.r\") (\"v\", sum_over_time(x[5m:]))",
];

proptest! {
    #[test]
    fn no_text_makes_it_panic(source in "\\PC{0,80}") {
        if let Err(error) = parse(&source) {
            let _ = error.render(&source);
        }
    }

    #[test]
    fn no_mutilated_query_makes_it_panic(
        seed in 0..SEEDS.len(),
        cuts in proptest::collection::vec((0usize..120, 0usize..8, "[ -~\n]{0,4}"), 0..4),
    ) {
        let mut source = SEEDS[seed].to_owned();
        for (at, length, insert) in cuts {
            let at = source.floor_char_boundary(at.min(source.len()));
            let end = source.floor_char_boundary((at + length).min(source.len()));
            source.replace_range(at..end.max(at), &insert);
        }
        match parse_with(&source, ParseOptions::everything()) {
            Ok(expr) => prop_assert_eq!(printed(&expr.to_string()), expr.to_string()),
            Err(error) => {
                prop_assert!(error.span.start <= error.span.end);
                prop_assert!(error.span.end <= source.len());
                let _ = error.render(&source);
            }
        }
    }
}

#[test]
fn what_is_behind_flags_parses_and_prints_with_them_only() {
    let off = "experimental and not enabled";
    for (source, printed_as, refused_as) in [
        ("a + fill(0) b", "a + fill (0) b", off),
        (
            "a + FILL_right(-1) fill_left(2m) b",
            "a + fill_left (2m) fill_right (-1) b",
            off,
        ),
        (
            "a / on(x) group_left(y) fill_left(Inf) b",
            "a / on (x) group_left (y) fill_left (Inf) b",
            off,
        ),
        ("x[5m] smoothed offset 1m", "x[5m] smoothed offset 1m", off),
        ("x[5m] @ 5 anchored", "x[5m] anchored @ 5.000", off),
        ("x smoothed @ 5", "x @ 5.000 smoothed", off),
        ("x anchored [5m]", "x[5m] anchored", off),
        ("info(x)", "info(x)", "not enabled"),
        ("info(x, {})", "info(x, {})", "not enabled"),
        (
            "info(x, {a=~\".*\"})",
            "info(x, {a=~\".*\"})",
            "not enabled",
        ),
        ("start_timestamp(x)", "start_timestamp(x)", "not enabled"),
        ("limit_ratio(0.5, x)", "limit_ratio(0.5, x)", off),
    ] {
        assert_eq!(printed(source), printed_as, "{source}");
        assert!(
            error(source).message.contains(refused_as),
            "{source}: {}",
            error(source)
        );
    }
    let without_arithmetic = ParseOptions {
        duration_expressions: false,
        ..ParseOptions::default()
    };
    for source in [
        "x[5m*2]",
        "x offset step()",
        "x[1h:min_of(1m, 2m)]",
        "x offset (5m)",
    ] {
        let error = parse_with(source, without_arithmetic).unwrap_err();
        assert_eq!(
            error.message, "experimental duration expression is not enabled",
            "{source}"
        );
        parse(source).unwrap();
    }
    assert!(parse_with("x[5m] offset -5m", without_arithmetic).is_ok());
}

#[test]
fn words_of_modifiers_are_names_elsewhere() {
    for source in [
        "fill",
        "other + fill",
        "fill + fill_left",
        "anchored",
        "smoothed[5m]",
        "info",
        "sum by (fill, smoothed) (anchored)",
        "fill_right{fill=\"a\"}",
    ] {
        assert_eq!(parse(source).unwrap().to_string(), source);
    }
    assert_eq!(printed("other + fill(0) fill"), "other + fill (0) fill");
    assert_eq!(printed("anchored anchored"), "anchored anchored");
}

#[test]
fn misplaced_modifiers_are_refused() {
    for (source, text) in [
        ("1 + fill(0) a", "only allowed between instant vectors"),
        ("a and fill(0) b", "not allowed for set operators"),
        ("a + fill(x) b", "a number to fill in"),
        ("a + fill(0) fill_left(1) b", "unknown function"),
        (
            "x[5m:] anchored",
            "anchored modifier is not supported for subqueries",
        ),
        ("x[5m] anchored smoothed", "cannot be used together"),
        ("(x) smoothed", "smoothed modifier not implemented"),
        (
            "info(x, y{})",
            "expected label selectors only, got vector selector instead",
        ),
        ("info(x, 1 + y)", "expected label selectors only"),
        ("info(x, {}, z)", "expected at most 2 argument(s)"),
        ("abs({})", "at least one non-empty matcher"),
    ] {
        let error = parse_with(source, ParseOptions::everything()).unwrap_err();
        assert!(error.message.contains(text), "{source}: {error}");
    }
}
