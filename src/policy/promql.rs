//! The PromQL inside of a policy: the only place that knows the parser.

use std::ops::Range;

use slogate_promql::ValueType;
use slogate_promql::ast::{Expr, ExprKind, VectorSelector};

use crate::policy::template::{MissingVariable, Template, Variable, Vars};

pub(super) use slogate_promql::QUERY_BYTES_MAX;

/// What is wrong with an expression, in bytes of the template.
pub(super) struct QueryError {
    pub(super) span: Range<usize>,
    /// What was expected there.
    pub(super) message: String,
    pub(super) help: &'static str,
}

/// Checks that `template` is PromQL once its variables have values, and that its answer can be
/// one number: a scalar, or a vector that turns out to have one sample.
pub(super) fn check(template: &Template) -> Result<(), QueryError> {
    let rendered = template.render_with_places(&sample("1.2.3"));
    let rendered = rendered.map_err(|missing| no_value(template, missing))?;
    let expr = slogate_promql::parse(&rendered.text).map_err(|error| QueryError {
        span: rendered.place_in_template(&(error.span.start..error.span.end)),
        message: error.message,
        help: "",
    })?;
    let help = match expr.value_type() {
        ValueType::Scalar | ValueType::Vector => return Ok(()),
        ValueType::Matrix => "wrap it in a function that makes a number of it, such as rate(…)",
        ValueType::String => "ask for a number",
    };
    Err(QueryError {
        span: rendered.place_in_template(&(expr.span.start..expr.span.end)),
        message: format!(
            "expected a number, this is a {}",
            expr.value_type().documented()
        ),
        help,
    })
}

/// Whether the answer of `template`, which is PromQL, is a vector.
pub(super) fn is_vector(template: &Template) -> bool {
    let rendered = template.render(&sample("1.2.3")).unwrap_or_default();
    slogate_promql::parse(&rendered).is_ok_and(|expr| expr.value_type() == ValueType::Vector)
}

/// `template` in one notation, so that layout and comments don't change a hash.
pub(super) fn canonical(template: &Template) -> String {
    // A mark that nobody writes keeps `"$version"` apart from a version that happens to look
    // like the sample; the names of the variables do so for `[$window]`.
    let vars = sample("\u{e000}");
    let rendered = template.render(&vars).unwrap_or_default();
    let uses: Vec<&str> = Variable::ALL
        .into_iter()
        .filter(|variable| template.uses(*variable))
        .map(Variable::name)
        .collect();
    match slogate_promql::parse(&rendered) {
        Ok(expr) => format!("{expr} # {}", uses.join(" ")),
        Err(_) => template.source().trim().to_owned(),
    }
}

/// A query for when the newest data that `text` rests on was taken, in seconds since the epoch:
/// of each selector its newest sample, of those the oldest. `None` where `text` is no PromQL or
/// has no selector whose data should be new; one with `offset` or `@` asks for the past.
pub(super) fn freshness(text: &str) -> Option<String> {
    let expr = slogate_promql::parse(text).ok()?;
    let mut selectors = Vec::new();
    present_selectors(&expr, &mut selectors);
    let mut newest: Vec<String> = selectors
        .into_iter()
        .map(|selector| format!("max(timestamp({selector}))"))
        .collect();
    newest.sort_unstable();
    newest.dedup();
    if let [only] = newest.as_slice() {
        return Some(only.clone());
    }
    // A label of its own keeps `or` from taking one answer for all.
    let parts = newest.iter().enumerate();
    let labelled: Vec<String> = parts
        .map(|(nth, part)| format!(r#"label_replace({part}, "selector", "{nth}", "", "")"#))
        .collect();
    (!labelled.is_empty()).then(|| format!("min({})", labelled.join(" or ")))
}

/// The parser bounds the depth of what it reads, and so this recursion.
fn present_selectors<'e>(expr: &'e Expr, found: &mut Vec<&'e VectorSelector>) {
    let selector = match &expr.kind {
        ExprKind::Vector(selector) => Some(selector),
        ExprKind::Matrix(matrix) => Some(&matrix.selector),
        ExprKind::Subquery(inner) if inner.offset.is_some() || inner.at.is_some() => return,
        _ => None,
    };
    found.extend(selector.filter(|selector| selector.offset.is_none() && selector.at.is_none()));
    for child in expr.children() {
        present_selectors(child, found);
    }
}

/// A value for every variable, each made of `mark` and its name.
fn sample(mark: &str) -> Vars {
    let value = |variable: Variable| format!("{mark}{variable}");
    Vars {
        version: value(Variable::Version),
        baseline: Some(value(Variable::Baseline)),
        service: value(Variable::Service),
        environment: value(Variable::Environment),
        region: Some(value(Variable::Region)),
        window_ms: 600_000,
    }
}

fn no_value(template: &Template, missing: MissingVariable) -> QueryError {
    QueryError {
        span: 0..template.source().len(),
        message: missing.to_string(),
        help: "",
    }
}

#[cfg(test)]
mod tests {
    use slogate_promql::{Engine, QueryValue};
    use slogate_series::{Labels, Sample, Series, Value};

    use super::*;

    fn canonical_of(source: &str) -> String {
        canonical(&Template::parse(source).unwrap())
    }

    #[test]
    fn layout_does_not_change_the_canonical_form() {
        let one = canonical_of(r#"sum by (a) (rate(x{v="$version"}[$window])) > 0"#);
        let two =
            canonical_of("sum by(a)(  # of all\n  rate( x{v='${version}'} [ $window ] )\n)\n > 0");
        assert_eq!(one, two);
    }

    #[test]
    fn freshness_asks_for_the_oldest_of_the_newest() {
        let cases = [
            ("1 + 1", None),
            ("sum(", None),
            ("up offset 5m > 0", None),
            (
                "rate(x[5m] @ 100) + max_over_time(y[5m:1m] offset 1h)",
                None,
            ),
            (
                "sum(rate(x{a=\"b\"}[5m])) > 3",
                Some(r#"max(timestamp(x{a="b"}))"#),
            ),
            ("x / x offset 1d", Some("max(timestamp(x))")),
            (
                "x / on(a) rate(y[5m])",
                Some(
                    r#"min(label_replace(max(timestamp(x)), "selector", "0", "", "") or label_replace(max(timestamp(y)), "selector", "1", "", ""))"#,
                ),
            ),
        ];
        for (text, expected) in cases {
            let query = freshness(text);
            assert_eq!(query.as_deref(), expected, "{text}");
            if let Some(query) = query {
                assert!(slogate_promql::parse(&query).is_ok(), "{query}");
            }
        }
    }

    #[test]
    fn a_variable_is_not_the_value_it_was_tried_with() {
        let pairs = [
            (r#"x{v="$version"}"#, r#"x{v="1.2.3version"}"#),
            (r#"x{v="$version"}"#, r#"x{v="$baseline"}"#),
            ("rate(x[$window])", "rate(x[10m])"),
            ("x + y", "y + x"),
        ];
        for (one, two) in pairs {
            assert_ne!(canonical_of(one), canonical_of(two));
        }
    }

    /// One selector may have stopped long ago while the other goes on: their quotient is old.
    #[test]
    fn the_engine_answers_how_fresh_the_data_is() {
        let series = |name, last_ms| Series {
            labels: Labels::from_pairs([("__name__", name), ("a", "b")]),
            samples: vec![Sample {
                t_ms: last_ms,
                start_ms: 0,
                value: Value::Float(1.0),
            }],
        };
        let store = vec![series("x", 990_000), series("y", 900_000)];
        let cases = [
            ("sum(x)", 990.0),
            ("sum(x) / on(a) sum(rate(y[5m]))", 900.0),
        ];
        for (text, expected) in cases {
            let query = freshness(text).unwrap();
            let answer = Engine::default()
                .instant(query.as_str(), &store, 1_000_000)
                .unwrap();
            let QueryValue::Vector(rows) = answer.value else {
                panic!("not a vector")
            };
            assert_eq!(rows.len(), 1);
            assert!(
                matches!(rows[0].value, Value::Float(at) if at == expected),
                "{rows:?}"
            );
        }
    }
}
