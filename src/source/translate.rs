//! A policy's queries in the words of a source.
//!
//! Policies name labels as slogate does: `service_name`, `service_version` and
//! `deployment_environment_name`. Where a mapping says that a source has other labels, matchers
//! of these three become matchers of those, so that one policy runs on the embedded store and on
//! any other. All else stays as it is written, labels in `by (…)` and `on (…)` included; and so
//! does a query that names the source's own labels.
//!
//! Where the version stands on another metric, its matcher becomes one of the instances (or
//! pods) that this metric says have the version.

use std::collections::BTreeSet;

use slogate_promql::ast::{Expr, ExprKind, LabelMatcher};
use slogate_series::MatchOp;

use super::join::VALUES_MAX;
use super::mapping::{Join, MappedLabel, Mapping, written};
use super::{MetricSource, SourceError, escape};

/// The labels in the policy's words.
const WORDS: [&str; 3] = [
    "service_name",
    "service_version",
    "deployment_environment_name",
];

/// `expr` in the words of `source`; `window_ms` is how far back it may look.
///
/// # Errors
/// When the source can't answer which instances have a version, or a matcher has no counterpart.
pub(crate) async fn translate(
    source: &dyn MetricSource,
    expr: &str,
    window_ms: i64,
    at_ms: i64,
) -> Result<String, SourceError> {
    let mapping = source.mapping();
    if is_usual(mapping) {
        return Ok(expr.to_owned());
    }
    let Ok(parsed) = slogate_promql::parse(expr) else {
        // The source says it better.
        return Ok(expr.to_owned());
    };
    let mut matchers = Vec::new();
    collect(&parsed, &mut matchers);
    matchers.sort_by_key(|one| one.span.start);
    let (mut text, mut from) = (String::new(), 0);
    for one in matchers {
        let counterpart = counterpart(source, one, window_ms, at_ms).await?;
        text.push_str(expr.get(from..one.span.start).unwrap_or_default());
        text.push_str(&counterpart);
        from = one.span.end;
    }
    text.push_str(expr.get(from..).unwrap_or_default());
    Ok(text)
}

fn is_usual(mapping: &Mapping) -> bool {
    let usual = Mapping::otel();
    let environment = mapping.environment.as_ref().map(|one| one.label.as_str());
    mapping.join.is_none()
        && mapping.service.label == usual.service.label
        && mapping.version.label == usual.version.label
        && environment == usual.environment.as_ref().map(|one| one.label.as_str())
}

/// The parser bounds the depth of what it reads, and so this recursion.
fn collect<'e>(expr: &'e Expr, found: &mut Vec<&'e LabelMatcher>) {
    let selector = match &expr.kind {
        ExprKind::Vector(selector) => Some(selector),
        ExprKind::Matrix(matrix) => Some(&matrix.selector),
        _ => None,
    };
    let matchers = selector.into_iter().flat_map(|selector| &selector.matchers);
    found.extend(matchers.filter(|one| WORDS.contains(&one.matcher.name())));
    for child in expr.children() {
        collect(child, found);
    }
}

async fn counterpart(
    source: &dyn MetricSource,
    one: &LabelMatcher,
    window_ms: i64,
    at_ms: i64,
) -> Result<String, SourceError> {
    let mapping = source.mapping();
    let name = one.matcher.name();
    let label = match name {
        "service_name" => Some(&mapping.service),
        "service_version" => Some(&mapping.version),
        _ => mapping.environment.as_ref(),
    };
    let Some(label) = label else {
        // Nothing says the environment, so everything is in it.
        return Ok(format!("{name}=~\".*\""));
    };
    let renamed = renamed(label, one, source.name())?;
    match &mapping.join {
        Some(join) if name == "service_version" => {
            instances(source, join, &renamed, window_ms, at_ms).await
        }
        Some(join) if join.has_environment && name != "service_name" => {
            instances(source, join, &renamed, window_ms, at_ms).await
        }
        _ => Ok(renamed),
    }
}

fn renamed(label: &MappedLabel, one: &LabelMatcher, origin: &str) -> Result<String, SourceError> {
    let matcher = &one.matcher;
    if matcher.op() == MatchOp::Equal {
        return Ok(label.matching(matcher.value()));
    }
    if label.has_pattern() {
        return Err(SourceError::Refused {
            origin: origin.to_owned(),
            message: format!(
                "{matcher} has no counterpart, since a pattern picks a part of {}: match that \
                 label instead",
                label.label
            ),
        });
    }
    let op = matcher.op().as_str();
    Ok(format!(
        "{}{op}\"{}\"",
        label.label,
        escape(matcher.value())
    ))
}

/// A matcher of those that the joined metric says `said` of.
async fn instances(
    source: &dyn MetricSource,
    join: &Join,
    said: &str,
    window_ms: i64,
    at_ms: i64,
) -> Result<String, SourceError> {
    let Some(label) = join.on.last() else {
        return Ok(said.to_owned());
    };
    let own = join.only.iter().map(written);
    let parts: Vec<String> = own.chain([said.to_owned()]).collect();
    let selector = format!("{}{{{}}}", join.metric, parts.join(","));
    let from_ms = at_ms - window_ms.max(1);
    let (found, _) = source.samples(&selector, from_ms, at_ms).await?;
    let values: BTreeSet<&str> = found
        .iter()
        .filter_map(|one| one.labels.get(label))
        .collect();
    if values.is_empty() {
        // Matches nothing: there is no such version.
        return Ok(format!("{label}=\"\",{label}!=\"\""));
    }
    if values.len() > VALUES_MAX {
        return Err(SourceError::Refused {
            origin: source.name().to_owned(),
            message: format!(
                "{} values of {label} have {said}, too many to ask for",
                values.len()
            ),
        });
    }
    let any: Vec<String> = values.into_iter().map(regex::escape).collect();
    Ok(format!("{label}=~\"{}\"", escape(&any.join("|"))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::BoxFuture;
    use slogate_promql::QueryValue;
    use slogate_series::{Labels, Series};

    use super::*;
    use crate::config::MappingSettings;
    use crate::source::{Answer, Mapped};

    /// Knows two instances of every version but `none`.
    struct Infos;

    impl MetricSource for Infos {
        fn query<'a>(
            &'a self,
            expr: &'a str,
            _: i64,
        ) -> BoxFuture<'a, Result<Answer, SourceError>> {
            assert!(expr.starts_with("target_info{service_version="), "{expr}");
            let instances: &[&str] = if expr.contains("none") {
                &[]
            } else {
                &["a.1:80", "b:80"]
            };
            let series = instances.iter().map(|instance| Series {
                labels: Labels::from_pairs([("instance", *instance)]),
                samples: Vec::new(),
            });
            let value = QueryValue::Matrix(series.collect());
            Box::pin(async {
                Ok(Answer {
                    value,
                    warnings: Vec::new(),
                })
            })
        }

        fn name(&self) -> &str {
            "infos"
        }
    }

    async fn in_words_of(preset: &str, expr: &str) -> Result<String, SourceError> {
        let settings = MappingSettings {
            preset: preset.to_owned(),
            ..MappingSettings::default()
        };
        let source = Mapped {
            source: Arc::new(Infos),
            mapping: Mapping::new(&settings).unwrap(),
        };
        translate(&source, expr, 60_000, 0).await
    }

    #[tokio::test]
    async fn matchers_become_those_of_the_source() {
        let expr = "sum(rate(x{service_version=\"2\", code!~\"4..\"}[5m])) / \
                    x{service_name='a', deployment_environment_name!=\"dev\"}";
        let cases = [
            ("otel", expr.to_owned()),
            (
                "plain",
                "sum(rate(x{version=\"2\", code!~\"4..\"}[5m])) / \
                 x{service=\"a\", environment!=\"dev\"}"
                    .to_owned(),
            ),
        ];
        for (preset, expected) in cases {
            assert_eq!(in_words_of(preset, expr).await, Ok(expected));
        }
        let own = "x{version=\"2\"}";
        assert_eq!(in_words_of("plain", own).await.as_deref(), Ok(own));
        assert_eq!(in_words_of("plain", "x{").await.as_deref(), Ok("x{"));
    }

    #[tokio::test]
    async fn a_version_on_another_metric_becomes_its_instances() {
        let translated = in_words_of("target-info", "x{service_version=\"2\"}").await;
        assert_eq!(
            translated.as_deref(),
            Ok("x{instance=~\"a\\\\.1:80|b:80\"}")
        );
        let nothing = in_words_of("target-info", "x{service_version=\"none\"}").await;
        assert_eq!(nothing.as_deref(), Ok("x{instance=\"\",instance!=\"\"}"));
        let job = in_words_of("target-info", "x{service_name=\"shop\"}").await;
        assert_eq!(job.as_deref(), Ok("x{job=~\"(?:.*/)?shop\"}"));
        let refused = in_words_of("target-info", "x{service_name!=\"shop\"}").await;
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("has no counterpart")
        );
    }
}
