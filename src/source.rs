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
use std::sync::Arc;

use futures_util::future::BoxFuture;
use slogate_promql::QueryValue;
use slogate_series::Series;

use crate::model::{Glob, Target};

pub(crate) mod blocks;
mod breaker;
mod embedded;
mod join;
mod mapping;
mod observe;
mod prometheus;
mod translate;

pub use embedded::{EmbeddedSource, Evaluated, Evaluation, EvaluationError, When};
pub use mapping::{Mapping, MappingError};
pub use observe::observed;
pub use prometheus::{PrometheusSource, PrometheusSourceError};
pub(crate) use translate::translate;

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

/// Raw samples by series, and the source's remarks.
pub type RawSamples = (Vec<Series>, Vec<String>);

/// Answers PromQL.
pub trait MetricSource: Send + Sync {
    /// Evaluates `expr` at `at_ms` (milliseconds since the epoch).
    ///
    /// A top-level range selector answers with the raw samples of its window.
    fn query<'a>(&'a self, expr: &'a str, at_ms: i64)
    -> BoxFuture<'a, Result<Answer, SourceError>>;

    /// The raw samples of the series that `selector` (PromQL) picks, in `(from_ms, to_ms]`
    /// (milliseconds since the epoch), and the source's remarks.
    fn samples<'a>(
        &'a self,
        selector: &'a str,
        from_ms: i64,
        to_ms: i64,
    ) -> BoxFuture<'a, Result<RawSamples, SourceError>> {
        Box::pin(samples_by_query(self, selector, from_ms, to_ms))
    }

    /// What to call it in errors and evidence, for example `embedded` or a URL.
    fn name(&self) -> &str;

    /// Which of its series are requests, and which labels say whose they are.
    fn mapping(&self) -> &Mapping {
        Mapping::otel()
    }

    /// Whether it is to be asked which versions run; see [`observed()`].
    fn observes(&self) -> bool {
        false
    }
}

/// [`MetricSource::samples`] as a query.
async fn samples_by_query<S: MetricSource + ?Sized>(
    source: &S,
    selector: &str,
    from_ms: i64,
    to_ms: i64,
) -> Result<RawSamples, SourceError> {
    let expr = format!("{selector}[{}ms]", (to_ms - from_ms).max(1));
    let answer = source.query(&expr, to_ms).await?;
    match answer.value {
        QueryValue::Matrix(series) => Ok((series, answer.warnings)),
        _ => Err(SourceError::Refused {
            origin: source.name().to_owned(),
            message: format!("{expr} should answer with raw samples and does not"),
        }),
    }
}

/// A source that is read by another mapping than the usual one.
pub struct Mapped {
    /// What is asked.
    pub source: Arc<dyn MetricSource>,
    /// How its series are read.
    pub mapping: Mapping,
}

impl MetricSource for Mapped {
    fn query<'a>(
        &'a self,
        expr: &'a str,
        at_ms: i64,
    ) -> BoxFuture<'a, Result<Answer, SourceError>> {
        self.source.query(expr, at_ms)
    }

    fn samples<'a>(
        &'a self,
        selector: &'a str,
        from_ms: i64,
        to_ms: i64,
    ) -> BoxFuture<'a, Result<RawSamples, SourceError>> {
        self.source.samples(selector, from_ms, to_ms)
    }

    fn name(&self) -> &str {
        self.source.name()
    }

    fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    fn observes(&self) -> bool {
        self.source.observes()
    }
}

/// Every source there is, and which target's series are where.
#[derive(Clone)]
pub struct Sources {
    default: Arc<dyn MetricSource>,
    named: Vec<Named>,
}

/// A source for some targets only.
#[derive(Clone)]
pub struct Named {
    /// Whose series it has.
    pub service: Glob,
    /// In which environment.
    pub environment: Glob,
    /// The source.
    pub source: Arc<dyn MetricSource>,
}

impl Sources {
    /// One source for all.
    pub fn only(source: Arc<dyn MetricSource>) -> Self {
        Sources::new(source, Vec::new())
    }

    /// The first of `named` that is for a target has its series; `default` has all others'.
    pub fn new(default: Arc<dyn MetricSource>, named: Vec<Named>) -> Self {
        Sources { default, named }
    }

    /// Where the series of `target` are.
    pub fn of(&self, target: &Target) -> &Arc<dyn MetricSource> {
        match self.named.get(self.place_of(target)) {
            Some(named) => &named.source,
            None => &self.default,
        }
    }

    /// Which of [`Sources::count`] sources has the series of `target`, from 0.
    pub fn place_of(&self, target: &Target) -> usize {
        let found = self.named.iter().position(|named| {
            named.service.matches(&target.service) && named.environment.matches(&target.environment)
        });
        found.unwrap_or(self.named.len())
    }

    /// Every source with its place.
    pub fn all(&self) -> impl Iterator<Item = (usize, &Arc<dyn MetricSource>)> {
        let named = self.named.iter().map(|named| &named.source);
        named.chain([&self.default]).enumerate()
    }

    /// How many sources there are.
    pub fn count(&self) -> usize {
        self.named.len() + 1
    }
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
