//! Variables as Grafana fills them into expressions.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{Dashboard, text};

/// What Grafana puts in for each variable, by name.
pub(super) type Values = BTreeMap<String, String>;

/// The variables that Grafana has in every dashboard, for a range of an hour at a step of 15 s. The
/// rate interval is in Go's way of writing durations.
const BUILT_IN: [(&str, &str); 4] = [
    ("__rate_interval", "1m0s"),
    ("__interval", "15s"),
    ("__interval_ms", "15000"),
    ("__range", "3600s"),
];

/// Values for every variable of a dashboard that parse, whatever they select.
pub(super) fn any_values(dashboard: &Dashboard) -> Values {
    let names = dashboard.variables().iter();
    names
        .map(|variable| (text(&variable["name"]).to_owned(), "x".to_owned()))
        .collect()
}

/// An expression with its variables filled in.
///
/// # Errors
/// For a variable that is neither in `values` nor built in.
pub(super) fn fill(expr: &str, values: &Values) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = expr;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        let inner = after.strip_prefix('{');
        let word = inner.unwrap_or(after);
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
        let (name, left) = word.split_at(end);
        rest = match inner {
            Some(_) => left
                .strip_prefix('}')
                .ok_or(format!("${{{name} is not closed"))?,
            None => left,
        };
        let built_in = BUILT_IN.iter().find(|(known, _)| *known == name);
        let value = built_in.map(|(_, value)| *value);
        let value = value.or_else(|| values.get(name).map(String::as_str));
        filled.push_str(value.ok_or(format!("there is no variable ${name}"))?);
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The selector and the label of a variable's `label_values(selector, label)`.
pub(super) fn label_values(variable: &Json) -> (String, String) {
    let query = text(&variable["query"]);
    let inside = query
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'))
        .unwrap_or_else(|| panic!("not label_values(…): {query}"));
    let (selector, label) = inside.rsplit_once(',').expect("a selector and a label");
    (selector.trim().to_owned(), label.trim().to_owned())
}

#[test]
fn variables_are_filled_in_and_unknown_ones_refused() {
    let values = Values::from([("service".to_owned(), "a|b".to_owned())]);
    let filled = fill(
        r#"rate(x{s=~"$service", t="${service}"}[$__rate_interval])"#,
        &values,
    );
    assert_eq!(filled.unwrap(), r#"rate(x{s=~"a|b", t="a|b"}[1m0s])"#);
    assert!(fill("x{s=\"$services\"}", &values).is_err());
}
