//! Where series are asked for.
//!
//! One question, in PromQL, at one time; the same on the embedded store as on a remote
//! Prometheus. Whoever asks keeps to one rule: an error, an empty answer and a NaN are
//! three different things, and none of them is ever read as "fine".
//!
//! The judge asks for raw counters (a bare range selector as an instant query) and computes
//! exact increases itself, because `increase()` extrapolates and a test on counts needs the
//! counts.

use std::fmt::Write as _;

use futures_util::future::BoxFuture;
use slogate_promql::QueryValue;

pub(crate) mod blocks;
mod embedded;
mod prometheus;

pub use embedded::{EmbeddedSource, Evaluated, Evaluation, EvaluationError, When};
pub use prometheus::{PrometheusSource, PrometheusSourceError};

/// An answer of a source.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What the expression evaluates to.
    pub value: QueryValue,
    /// What the engine had to remark; shown in evidence.
    pub warnings: Vec<String>,
}

/// Why a source could not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The query is wrong; asking again won't help.
    #[error("the query is refused by {origin}: {message}")]
    Refused {
        /// The source's name.
        origin: String,
        /// What it says.
        message: String,
    },
    /// The source can't be reached, is too slow or fails; asking again may help.
    #[error("{origin} can't answer: {message}")]
    Unavailable {
        /// The source's name.
        origin: String,
        /// What went wrong.
        message: String,
    },
}

/// Answers PromQL.
pub trait MetricSource: Send + Sync {
    /// Evaluates `expr` at `at_ms` (milliseconds since the epoch).
    ///
    /// A top-level range selector answers with the raw samples of its window.
    fn query<'a>(&'a self, expr: &'a str, at_ms: i64)
    -> BoxFuture<'a, Result<Answer, SourceError>>;

    /// What to call it in errors and evidence, for example `embedded` or a URL.
    fn name(&self) -> &str;
}

/// A series selector as text, values escaped: `name{a="b"}`, without empty values.
pub fn selector(name: &str, labels: &[(&str, &str)]) -> String {
    let mut text = format!("{name}{{");
    let mut first = true;
    for (label, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        let comma = if first { "" } else { "," };
        // Writing to a string can't fail.
        let _ = write!(text, "{comma}{label}=\"{}\"", escape(value));
        first = false;
    }
    text.push('}');
    text
}

/// `value` as the inside of a double-quoted PromQL string.
pub fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_can_not_be_broken_out_of() {
        let text = selector(
            "up",
            &[("service_name", "a\"} or vector(1) #\n"), ("env", "")],
        );
        assert_eq!(text, "up{service_name=\"a\\\"} or vector(1) #\\n\"}");
    }
}
