//! The PromQL inside of a policy: the only place that knows the parser.

use std::ops::Range;

use slogate_promql::ValueType;

use crate::policy::template::{MissingVariable, Template, Variable, Vars};

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
}
