//! A tree back to text over several lines, as Prometheus formats queries.
//!
//! What fits into [`LINE_BYTES_MAX`] stays on one line. What is longer is opened up: the parts
//! stand on lines of their own, two blanks further in, and the operator of two parts on a line
//! between them.

use std::fmt;

use crate::ast::{Expr, ExprKind};
use crate::display::{aggregation_head, operator, subquery_range};

/// The longest expression that is left on one line, in bytes.
const LINE_BYTES_MAX: usize = 100;

impl Expr {
    /// This expression for people to read: over several lines where it is long. Parsing it
    /// gives the same tree, places aside.
    pub fn pretty(&self) -> String {
        pretty(self, 0)
    }
}

fn pretty(expr: &Expr, level: usize) -> String {
    let indent = "  ".repeat(level);
    let line = expr.to_string();
    let is_long = line.len() > LINE_BYTES_MAX;
    let inner = |inner: &Expr| pretty(inner, level + 1);
    match &expr.kind {
        ExprKind::Unary(unary) => {
            let sign = if unary.negative { "-" } else { "+" };
            format!("{indent}{sign}{}", pretty(&unary.expr, level).trim())
        }
        // A short one stands where it stands; Prometheus does not move it in.
        ExprKind::Subquery(_) if !is_long => line,
        _ if !is_long => indent + &line,
        ExprKind::Subquery(subquery) => {
            let range = fmt::from_fn(|f| subquery_range(f, subquery));
            format!("{}{range}", pretty(&subquery.expr, level))
        }
        ExprKind::Aggregate(aggregate) => {
            let head = fmt::from_fn(|f| aggregation_head(f, aggregate));
            let param = aggregate.param.as_ref();
            let param = param.map_or_else(String::new, |param| inner(param) + ",\n");
            let expr = inner(&aggregate.expr);
            format!("{indent}{head}(\n{param}{expr}\n{indent})")
        }
        ExprKind::Binary(binary) => {
            let operator = fmt::from_fn(|f| operator(f, binary));
            let (lhs, rhs) = (inner(&binary.lhs), inner(&binary.rhs));
            format!("{lhs}\n{indent}{operator}\n{rhs}")
        }
        ExprKind::Call(call) => {
            let args: Vec<String> = call.args.iter().map(inner).collect();
            let args = args.join(",\n");
            format!("{indent}{}(\n{args}\n{indent})", call.function.name)
        }
        ExprKind::Paren(paren) => format!("{indent}(\n{}\n{indent})", inner(paren)),
        ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Vector(_) | ExprKind::Matrix(_) => {
            indent + &line
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::parse;

    fn pretty(source: &str) -> String {
        let expr = parse(source).unwrap_or_else(|error| panic!("{}", error.render(source)));
        let text = expr.pretty();
        let again = parse(&text).unwrap_or_else(|error| panic!("{}", error.render(&text)));
        assert_eq!(again.to_string(), expr.to_string(), "{text}");
        text
    }

    #[test]
    fn short_queries_stay_on_their_line() {
        assert_eq!(pretty("foo/bar"), "foo / bar");
        assert_eq!(
            pretty("sum by(a,b)(rate(x{z=\"1\",a=~'b|c'}[5m]))"),
            "sum by (a, b) (rate(x{a=~\"b|c\",z=\"1\"}[5m]))"
        );
    }

    /// As Prometheus 3.14 formats the same queries.
    #[test]
    fn long_queries_are_opened_up() {
        assert_eq!(
            pretty(
                "sum by (job, instance, method, status_code) (rate(http_requests_total{job=\"api\", \
                 environment=~\"prod|staging\"}[5m])) / on(job) group_left sum by (job) \
                 (rate(http_requests_total{job=\"api\"}[5m])) > 0.05 and up"
            ),
            "      sum by (job, instance, method, status_code) (
        rate(http_requests_total{environment=~\"prod|staging\",job=\"api\"}[5m])
      )
    / on (job) group_left ()
      sum by (job) (rate(http_requests_total{job=\"api\"}[5m]))
  >
    0.05
and
  up"
        );
    }
}
