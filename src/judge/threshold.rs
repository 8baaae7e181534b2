//! A PromQL expression against a threshold.
//!
//! The answer has to be one number: a scalar, or a vector of exactly one float. An empty
//! answer is `no_data`; several series or a NaN are `unusable_answer`; a failing source is
//! `source_error`. None of them passes. Neither does old data: where the newest samples behind
//! the expression are older than the check's `staleAfter`, the answer is `stale`. A sample's
//! time is lost in an expression's answer, so the policy's freshness query asks for it.

use slogate_promql::QueryValue;
use slogate_series::Value;

use super::Context;
use super::compare::result;
use crate::model::time::humanize_ms;
use crate::model::{CheckResult, Evidence, Outcome, Reason, TimeRange};
use crate::policy::{Check, QueryCheck, Vars};
use crate::source::{self, SourceError};

/// How far back a source looks for the newest sample of a series, in milliseconds.
const LOOKBACK_MS: i64 = 300_000;

/// Answers a query check.
pub(crate) async fn answer(
    check: &Check,
    query: &QueryCheck,
    context: &Context<'_>,
) -> CheckResult {
    let mut evidence = Evidence {
        data: Some(TimeRange {
            start_ms: context.from_ms,
            end_ms: context.now_ms,
        }),
        threshold: Some(query.threshold.to_string()),
        ..Evidence::default()
    };
    let inconclusive = |reason: Reason, message: String, evidence: Evidence| {
        result(check, Outcome::Inconclusive, reason, message, evidence)
    };
    let name = &check.name;
    let variables = variables(context);
    let expr = match query.expr.render(&variables) {
        Ok(expr) => expr,
        Err(missing) => {
            let message = format!("{name}: {missing}.");
            return inconclusive(Reason::NoBaseline, message, evidence);
        }
    };
    evidence.query = Some(expr.clone());
    let expr = match in_words_of_source(&expr, context).await {
        Ok(expr) => expr,
        Err(error) => {
            return inconclusive(Reason::SourceError, format!("{name}: {error}."), evidence);
        }
    };
    evidence.query = Some(expr.clone());
    let answer = match context.source.query(&expr, context.now_ms).await {
        Ok(answer) => answer,
        Err(error) => {
            return inconclusive(Reason::SourceError, format!("{name}: {error}."), evidence);
        }
    };
    evidence.warnings = answer.warnings;
    let value = match one_number(&answer.value) {
        Ok(value) => value,
        Err((reason, what)) => return inconclusive(reason, format!("{name}: {what}"), evidence),
    };
    evidence.value = value.is_finite().then_some(value);
    match age_ms(query, &variables, context).await {
        Ok(Some(age_ms)) if age_ms > query.stale_after_ms => {
            let message = format!(
                "{name}: the newest data is {} old, and should be {} at most.",
                humanize_ms(age_ms),
                humanize_ms(query.stale_after_ms)
            );
            return inconclusive(Reason::Stale, message, evidence);
        }
        Ok(_) => {}
        Err(error) => {
            return inconclusive(Reason::SourceError, format!("{name}: {error}."), evidence);
        }
    }
    let (verdict, reason, message) = if query.threshold.holds(value) {
        let message = format!("{name}: {value} is {}.", query.threshold);
        (Outcome::Pass, Reason::WithinThreshold, message)
    } else {
        let message = format!("{name}: {value}, and it should be {}.", query.threshold);
        (Outcome::Fail, Reason::ThresholdCrossed, message)
    };
    result(check, verdict, reason, message, evidence)
}

/// How old the data behind the answer is; `None` where the expression rests on no samples, or
/// none whose age matters.
async fn age_ms(
    query: &QueryCheck,
    variables: &Vars,
    context: &Context<'_>,
) -> Result<Option<i64>, SourceError> {
    let Ok(Some(expr)) = query.freshness(variables) else {
        return Ok(None);
    };
    let expr = in_words_of_source(&expr, context).await?;
    let answer = context.source.query(&expr, context.now_ms).await?;
    let newest_s = one_number(&answer.value).ok();
    Ok(newest_s.map(|seconds| context.now_ms - (seconds * 1000.0) as i64))
}

/// A policy names labels as slogate does; the source may have others.
async fn in_words_of_source(expr: &str, context: &Context<'_>) -> Result<String, SourceError> {
    let window_ms = (context.now_ms - context.from_ms).max(LOOKBACK_MS);
    source::translate(context.source, expr, window_ms, context.now_ms).await
}

fn variables(context: &Context<'_>) -> Vars {
    let deployment = &context.subject.deployment;
    Vars {
        version: deployment.artifact.version.clone().unwrap_or_default(),
        baseline: deployment
            .previous
            .as_ref()
            .and_then(|previous| previous.version.clone()),
        service: deployment.target.service.clone(),
        environment: deployment.target.environment.clone(),
        region: deployment.target.region.clone(),
        window_ms: context.now_ms - context.from_ms,
    }
}

fn one_number(value: &QueryValue) -> Result<f64, (Reason, String)> {
    let unusable = |what: &str| Err((Reason::UnusableAnswer, what.to_owned()));
    let number = match value {
        QueryValue::Scalar(value) => *value,
        QueryValue::Vector(rows) => match rows.as_slice() {
            [] => {
                let what = "the query found nothing: no such series, or none with recent samples.";
                return Err((Reason::NoData, what.to_owned()));
            }
            [row] => match &row.value {
                Value::Float(value) => *value,
                Value::Histogram(_) => {
                    return unusable(
                        "the query answers with a histogram; it should be one number.",
                    );
                }
            },
            rows => {
                let what = format!(
                    "the query answers with {} series; aggregate them to one, for example with \
                     sum() or max().",
                    rows.len()
                );
                return Err((Reason::UnusableAnswer, what));
            }
        },
        QueryValue::Matrix(_) => {
            return unusable("the query answers with a range of samples; it should be one number.");
        }
        QueryValue::String(_) => return unusable("the query answers with text, not a number."),
    };
    if number.is_nan() {
        return unusable("the query answers with NaN, as a division of zero by zero does.");
    }
    Ok(number)
}
