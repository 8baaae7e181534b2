//! `label_replace`, `label_join`, `absent` and sorting by labels.

use slogate_series::matcher::compile;
use slogate_series::{Labels, METRIC_NAME, MatchOp};

use crate::ast::{Expr, ExprKind};
use crate::eval::{Column, EvalError, merge_same_labels};

/// What `label_replace` was asked for.
pub(crate) struct Replacement<'a> {
    pub(crate) dst: &'a str,
    pub(crate) template: &'a str,
    pub(crate) src: &'a str,
    pub(crate) pattern: &'a str,
}

pub(crate) fn label_replace(
    mut columns: Vec<Column>,
    replacement: &Replacement<'_>,
) -> Result<Vec<Column>, EvalError> {
    let Replacement {
        dst,
        template,
        src,
        pattern,
    } = *replacement;
    let regex = compile(pattern).map_err(|_| {
        EvalError::execution(format!(
            "invalid regular expression in label_replace(): {pattern}"
        ))
    })?;
    check_label_name(dst, "label_replace()")?;
    let template = Template::parse(template);
    for column in &mut columns {
        let value = column.labels.get(src).unwrap_or_default();
        if let Some(captures) = regex.captures(value) {
            let value = template.expand(&captures);
            column.set_label(dst, value);
        }
    }
    merge_same_labels(columns)
}

pub(crate) fn label_join(
    mut columns: Vec<Column>,
    dst: &str,
    separator: &str,
    sources: &[String],
) -> Result<Vec<Column>, EvalError> {
    for source in sources {
        if source.is_empty() {
            let message = format!("invalid source label name in label_join(): {source}");
            return Err(EvalError::execution(message));
        }
    }
    check_label_name(dst, "label_join()")?;
    for column in &mut columns {
        let values: Vec<&str> = sources
            .iter()
            .map(|name| column.labels.get(name).unwrap_or_default())
            .collect();
        let value = values.join(separator);
        column.set_label(dst, value);
    }
    merge_same_labels(columns)
}

fn check_label_name(name: &str, function: &str) -> Result<(), EvalError> {
    if name.is_empty() {
        let message = format!("invalid destination label name in {function}: {name}");
        return Err(EvalError::execution(message));
    }
    Ok(())
}

impl Column {
    /// A name set on purpose is no longer due to be dropped.
    fn set_label(&mut self, name: &str, value: String) {
        if name == METRIC_NAME {
            self.drop_name = false;
        }
        let mut builder = self.labels.to_builder();
        builder.set(name, value);
        self.labels = builder.build();
    }
}

/// A replacement with `$1`, `$name` and `${name}`, by Go's rules: `$1x` is the group `1x`,
/// `$$` is a dollar sign, an unknown group is empty and a lone `$` stays.
struct Template(Vec<Part>);

enum Part {
    Text(String),
    Group(String),
}

impl Template {
    fn parse(template: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(at) = rest.find('$') {
            let (text, after) = rest.split_at(at);
            parts.push(Part::Text(text.to_owned()));
            let after = after.strip_prefix('$').unwrap_or_default();
            if let Some(after) = after.strip_prefix('$') {
                parts.push(Part::Text("$".to_owned()));
                rest = after;
            } else if let Some((name, after)) = group_name(after) {
                parts.push(Part::Group(name.to_owned()));
                rest = after;
            } else {
                parts.push(Part::Text("$".to_owned()));
                rest = after;
            }
        }
        parts.push(Part::Text(rest.to_owned()));
        Template(parts)
    }

    fn expand(&self, captures: &regex::Captures<'_>) -> String {
        let group = |name: &str| match name.parse() {
            Ok(index) => captures.get(index).map(|m| m.as_str()),
            Err(_) => captures.name(name).map(|m| m.as_str()),
        };
        let mut out = String::new();
        for part in &self.0 {
            out.push_str(match part {
                Part::Text(text) => text,
                Part::Group(name) => group(name).unwrap_or_default(),
            });
        }
        out
    }
}

/// The group that follows a dollar sign, and the rest.
fn group_name(text: &str) -> Option<(&str, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if let Some(inner) = text.strip_prefix('{') {
        let (name, rest) = inner.split_once('}')?;
        return (!name.is_empty() && name.chars().all(is_word)).then_some((name, rest));
    }
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// The labels that `absent` can tell from its argument: those a plain `=` fixes.
pub(crate) fn labels_of_absent(arg: &Expr) -> Labels {
    let selector = match &arg.kind {
        ExprKind::Vector(selector) => selector,
        ExprKind::Matrix(matrix) => &matrix.selector,
        _ => return Labels::empty(),
    };
    let matchers = selector.matchers.iter().map(|m| &m.matcher);
    let once = |name: &str| matchers.clone().filter(|m| m.name() == name).count() == 1;
    Labels::from_pairs(
        matchers
            .clone()
            .filter(|m| m.op() == MatchOp::Equal && m.name() != METRIC_NAME && once(m.name()))
            .map(|m| (m.name(), m.value())),
    )
}

/// Compares texts as people count: digits by their number.
pub(crate) fn natural_order(a: &str, b: &str) -> std::cmp::Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (x, y) = (chunk(a), chunk(b));
        if x.is_empty() || y.is_empty() {
            return a.len().cmp(&b.len());
        }
        let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let order = if digits(x) && digits(y) {
            let (n, m) = (x.trim_start_matches('0'), y.trim_start_matches('0'));
            n.len()
                .cmp(&m.len())
                .then_with(|| n.cmp(m))
                .then_with(|| x.len().cmp(&y.len()))
        } else {
            x.cmp(y)
        };
        if order.is_ne() {
            return order;
        }
        a = a.get(x.len()..).unwrap_or_default();
        b = b.get(y.len()..).unwrap_or_default();
    }
}

/// The leading run of digits or of anything else.
fn chunk(text: &str) -> &str {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text
        .find(|c: char| c.is_ascii_digit() != digits)
        .unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}
