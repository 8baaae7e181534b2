//! A tree back to text, on one line, in the form Prometheus prints.
//!
//! Parsing what is printed gives the same tree, places aside.

use std::fmt;
use std::sync::Arc;

use slogate_series::Matcher;

use crate::ast::{
    Aggregate, AtModifier, Binary, Cardinality, Expr, ExprKind, Extension, NumberLiteral,
    StringLiteral, Subquery, VectorMatching, VectorSelector,
};
use crate::duration::{DurationExpr, DurationKind};
use crate::literal::{format_duration, is_plain_label_name, is_plain_metric_name};

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Number(number) => write!(f, "{number}"),
            ExprKind::String(literal) => write!(f, "{literal}"),
            ExprKind::Vector(selector) => {
                write!(f, "{selector}")?;
                at_modifier(f, selector.at)?;
                extension(f, selector.extension)?;
                offset_modifier(f, selector.offset.as_ref())
            }
            ExprKind::Matrix(matrix) => {
                let selector = &matrix.selector;
                write!(f, "{selector}[{}]", matrix.range)?;
                extension(f, selector.extension)?;
                at_modifier(f, selector.at)?;
                offset_modifier(f, selector.offset.as_ref())
            }
            ExprKind::Subquery(subquery) => {
                write!(f, "{}", subquery.expr)?;
                subquery_range(f, subquery)
            }
            ExprKind::Unary(unary) => {
                write!(
                    f,
                    "{}{}",
                    if unary.negative { "-" } else { "+" },
                    unary.expr
                )
            }
            ExprKind::Binary(binary) => binary_expression(f, binary),
            ExprKind::Call(call) => {
                write!(f, "{}(", call.function.name)?;
                separated(f, &call.args)?;
                f.write_str(")")
            }
            ExprKind::Aggregate(aggregate) => aggregation(f, aggregate),
            ExprKind::Paren(inner) => write!(f, "({inner})"),
        }
    }
}

impl fmt::Display for NumberLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value;
        if self.is_duration
            && let Some(duration) = format_duration(value)
        {
            return f.write_str(&duration);
        }
        if value.is_nan() {
            return f.write_str("NaN");
        }
        if value.is_infinite() {
            return f.write_str(if value > 0.0 { "Inf" } else { "-Inf" });
        }
        // Digits alone could be longer than a query may be, and 1e21 is no i64.
        if value != 0.0 && !(1e-6..1e18).contains(&value.abs()) {
            return write!(f, "{value:e}");
        }
        write!(f, "{value}")
    }
}

/// In double quotes, with escapes.
impl fmt::Display for StringLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bytes) = &self.bytes else {
            return write!(f, "{}", Quoted(&self.text));
        };
        f.write_str("\"")?;
        for chunk in bytes.utf8_chunks() {
            chunk.valid().chars().try_for_each(|c| escaped(f, c))?;
            let invalid = chunk.invalid().iter();
            invalid
                .into_iter()
                .try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        f.write_str("\"")
    }
}

/// Without its modifiers, which a range comes before.
impl fmt::Display for VectorSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.name.as_deref().filter(|name| is_plain_name(name));
        let quoted = self.name.as_deref().filter(|name| !is_plain_name(name));
        f.write_str(plain.unwrap_or_default())?;
        if self.matchers.is_empty() && quoted.is_none() && plain.is_some() {
            return Ok(());
        }
        let text = |matcher: &Matcher| {
            let (name, op) = (LabelName(matcher.name()), matcher.op().as_str());
            format!("{name}{op}{}", Quoted(matcher.value()))
        };
        let mut parts: Vec<String> = self.matchers.iter().map(|m| text(&m.matcher)).collect();
        // As Prometheus does, so that the order in which they were written makes no difference.
        parts.sort_unstable();
        let name = quoted.map(|name| Quoted(name).to_string());
        let parts: Vec<String> = name.into_iter().chain(parts).collect();
        write!(f, "{{{}}}", parts.join(","))
    }
}

/// Whether a metric name can stand outside braces without being read as something else.
fn is_plain_name(name: &str) -> bool {
    let reserved = [
        "inf",
        "nan",
        "bool",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "atan2",
    ];
    is_plain_metric_name(name) && !reserved.iter().any(|word| name.eq_ignore_ascii_case(word))
}

fn at_modifier(f: &mut fmt::Formatter<'_>, at: Option<AtModifier>) -> fmt::Result {
    match at {
        Some(AtModifier::TimeMs(ms)) => {
            let sign = if ms < 0 { "-" } else { "" };
            let ms = ms.unsigned_abs();
            write!(f, " @ {sign}{}.{:03}", ms / 1000, ms % 1000)
        }
        Some(AtModifier::Start) => f.write_str(" @ start()"),
        Some(AtModifier::End) => f.write_str(" @ end()"),
        None => Ok(()),
    }
}

fn extension(f: &mut fmt::Formatter<'_>, extension: Option<Extension>) -> fmt::Result {
    match extension {
        Some(extension) => write!(f, " {}", extension.as_str()),
        None => Ok(()),
    }
}

fn offset_modifier(f: &mut fmt::Formatter<'_>, offset: Option<&DurationExpr>) -> fmt::Result {
    match offset {
        Some(offset) => write!(f, " offset {offset}"),
        None => Ok(()),
    }
}

fn binary_expression(f: &mut fmt::Formatter<'_>, binary: &Binary) -> fmt::Result {
    write!(f, "{} ", binary.lhs)?;
    operator(f, binary)?;
    write!(f, " {}", binary.rhs)
}

/// What stands between the two sides.
pub(crate) fn operator(f: &mut fmt::Formatter<'_>, binary: &Binary) -> fmt::Result {
    f.write_str(binary.op.as_str())?;
    if binary.return_bool {
        f.write_str(" bool")?;
    }
    match &binary.matching {
        Some(matching) => vector_matching(f, matching),
        None => Ok(()),
    }
}

/// What stands after a subquery's expression.
pub(crate) fn subquery_range(f: &mut fmt::Formatter<'_>, subquery: &Subquery) -> fmt::Result {
    write!(f, "[{}:", subquery.range)?;
    if let Some(step) = &subquery.step {
        write!(f, "{step}")?;
    }
    f.write_str("]")?;
    at_modifier(f, subquery.at)?;
    offset_modifier(f, subquery.offset.as_ref())
}

fn vector_matching(f: &mut fmt::Formatter<'_>, matching: &VectorMatching) -> fmt::Result {
    let grouped = match matching.card {
        Cardinality::ManyToOne => Some("group_left"),
        Cardinality::OneToMany => Some("group_right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if matching.on || !matching.labels.is_empty() || grouped.is_some() {
        f.write_str(if matching.on { " on " } else { " ignoring " })?;
        label_list(f, &matching.labels)?;
    }
    if let Some(keyword) = grouped {
        write!(f, " {keyword} ")?;
        label_list(f, &matching.include)?;
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left == right => write!(f, " fill ({left})"),
        (left, right) => {
            if let Some(left) = left {
                write!(f, " fill_left ({left})")?;
            }
            if let Some(right) = right {
                write!(f, " fill_right ({right})")?;
            }
            Ok(())
        }
    }
}

fn aggregation(f: &mut fmt::Formatter<'_>, aggregate: &Aggregate) -> fmt::Result {
    aggregation_head(f, aggregate)?;
    f.write_str("(")?;
    if let Some(param) = &aggregate.param {
        write!(f, "{param}, ")?;
    }
    write!(f, "{})", aggregate.expr)
}

/// What stands before an aggregation's parenthesis.
pub(crate) fn aggregation_head(f: &mut fmt::Formatter<'_>, aggregate: &Aggregate) -> fmt::Result {
    f.write_str(aggregate.op.as_str())?;
    if aggregate.without || !aggregate.grouping.is_empty() {
        f.write_str(if aggregate.without {
            " without "
        } else {
            " by "
        })?;
        label_list(f, &aggregate.grouping)?;
        f.write_str(" ")?;
    }
    Ok(())
}

fn label_list(f: &mut fmt::Formatter<'_>, labels: &[Arc<str>]) -> fmt::Result {
    f.write_str("(")?;
    for (at, label) in labels.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        // A bare `inf` in a list would be read as a number.
        let number = label.eq_ignore_ascii_case("inf") || label.eq_ignore_ascii_case("nan");
        if number {
            write!(f, "{comma}{}", Quoted(label))?;
        } else {
            write!(f, "{comma}{}", LabelName(label))?;
        }
    }
    f.write_str(")")
}

fn separated(f: &mut fmt::Formatter<'_>, parts: &[Expr]) -> fmt::Result {
    for (at, part) in parts.iter().enumerate() {
        write!(f, "{}{part}", if at > 0 { ", " } else { "" })?;
    }
    Ok(())
}

impl fmt::Display for DurationExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            DurationKind::Literal(number) => write!(f, "{number}"),
            DurationKind::Step => f.write_str("step()"),
            DurationKind::Range => f.write_str("range()"),
            DurationKind::Sign(negative, inner) => {
                write!(f, "{}{inner}", if *negative { "-" } else { "+" })
            }
            DurationKind::Binary(op, a, b) => write!(f, "{a} {} {b}", op.as_str()),
            DurationKind::MinOf(a, b) => write!(f, "min_of({a}, {b})"),
            DurationKind::MaxOf(a, b) => write!(f, "max_of({a}, {b})"),
            DurationKind::Paren(inner) => write!(f, "({inner})"),
        }
    }
}

struct LabelName<'a>(&'a str);

impl fmt::Display for LabelName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_plain_label_name(self.0) {
            return f.write_str(self.0);
        }
        write!(f, "{}", Quoted(self.0))
    }
}

/// A text in double quotes, with escapes that [`crate::literal::unquote`] undoes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        self.0.chars().try_for_each(|c| escaped(f, c))?;
        f.write_str("\"")
    }
}

fn escaped(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '"' => f.write_str("\\\""),
        '\\' => f.write_str("\\\\"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c)),
        c => write!(f, "{c}"),
    }
}
