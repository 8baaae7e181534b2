//! How much of a service's telemetry says which artifact it is from.
//!
//! The share of spans, points and log records received since the deployment began that carry
//! an artifact identity. It is a plain share, no test: every item received is counted, so
//! there is nothing to infer. Below the threshold it fails only once [`ITEMS_MIN`] items were
//! seen, so that the first untagged request of a rollout decides nothing.

//!
//! Where the source has no such counts, because it was not slogate that received the telemetry,
//! the share is that of requests whose series say a version; then only traces are known.

use std::collections::BTreeMap;

use slogate_promql::QueryValue;

use super::Context;
use super::compare::result;
use super::words;
use crate::model::{CheckResult, Evidence, Outcome, Reason, TimeRange};
use crate::policy::{Check, CoverageCheck, Signal, SpanKind};
use crate::source::{SourceError, blocks, selector};

/// Fewer items than this are too few to fail on.
const ITEMS_MIN: f64 = 100.0;

/// Answers a coverage check.
pub(crate) async fn answer(
    check: &Check,
    coverage: &CoverageCheck,
    context: &Context<'_>,
) -> CheckResult {
    let target = &context.subject.deployment.target;
    let window_ms = (context.now_ms - context.from_ms).max(blocks::BLOCK_MS);
    let items = selector(
        "slogate_observability_items_total",
        &[
            ("service_name", target.service.as_str()),
            ("deployment_environment_name", target.environment.as_str()),
        ],
    );
    let expr = format!("{items}[{window_ms}ms]");
    let mut evidence = Evidence {
        data: Some(TimeRange {
            start_ms: context.from_ms,
            end_ms: context.now_ms,
        }),
        query: Some(expr.clone()),
        threshold: Some(format!("at least {}", words::percent(coverage.at_least))),
        ..Evidence::default()
    };
    let inconclusive = |reason: Reason, message: String, evidence: Evidence| {
        result(check, Outcome::Inconclusive, reason, message, evidence)
    };
    let series = match context.source.query(&expr, context.now_ms).await {
        Ok(answer) => {
            evidence.warnings = answer.warnings;
            match answer.value {
                QueryValue::Matrix(series) => series,
                _ => Vec::new(),
            }
        }
        Err(error) => {
            return inconclusive(Reason::SourceError, format!("Coverage: {error}."), evidence);
        }
    };
    let (mut with, mut all) = (0.0, 0.0);
    let mut without_by_signal: BTreeMap<String, f64> = BTreeMap::new();
    for one in &series {
        let signal = one.labels.get("signal").unwrap_or("");
        if !coverage
            .signals
            .iter()
            .any(|wanted| wanted.label() == signal)
        {
            continue;
        }
        let increase = blocks::increase(&one.samples, context.now_ms - window_ms);
        all += increase;
        if one.labels.get("artifact_identity") == Some("true") {
            with += increase;
        } else {
            *without_by_signal.entry(signal.to_owned()).or_default() += increase;
        }
    }
    if series.is_empty() && coverage.signals.contains(&Signal::Traces) {
        match of_requests(context, window_ms).await {
            Ok((tagged, total, warnings)) => {
                (with, all) = (tagged, total);
                without_by_signal.insert("requests".to_owned(), total - tagged);
                evidence.warnings.extend(warnings);
            }
            Err(error) => {
                return inconclusive(Reason::SourceError, format!("Coverage: {error}."), evidence);
            }
        }
    }
    if all <= 0.0 {
        let message = format!("Coverage: no telemetry of {} was received.", target.service);
        return inconclusive(Reason::NoData, message, evidence);
    }
    let share = with / all;
    evidence.value = Some(share);
    let worst = without_by_signal.iter().max_by(|a, b| a.1.total_cmp(b.1));
    let facts = format!(
        "Coverage: {} of {} items carry an artifact identity",
        words::percent(share),
        words::count(all)
    );
    let needed = words::percent(coverage.at_least);
    if share >= coverage.at_least {
        let message = format!("{facts}, at least {needed} are needed.");
        return result(
            check,
            Outcome::Pass,
            Reason::WithinThreshold,
            message,
            evidence,
        );
    }
    if all < ITEMS_MIN {
        let message = format!("{facts}, too few to tell.");
        return inconclusive(Reason::InsufficientData, message, evidence);
    }
    let offender = worst.map_or(String::new(), |(signal, count)| {
        format!(" Most that don't are {signal} ({}).", words::count(*count))
    });
    let message = format!("{facts}; at least {needed} are needed.{offender}");
    result(
        check,
        Outcome::Fail,
        Reason::ThresholdCrossed,
        message,
        evidence,
    )
}

/// Requests that say a version, all requests, and the source's remarks.
async fn of_requests(
    context: &Context<'_>,
    window_ms: i64,
) -> Result<(f64, f64, Vec<String>), SourceError> {
    let (source, target) = (context.source, &context.subject.deployment.target);
    let from_ms = context.now_ms - window_ms;
    let kind = SpanKind::Server.label();
    let found = blocks::requests(source, target, kind, from_ms, context.now_ms).await?;
    let (mut with, mut all) = (0.0, 0.0);
    for (version, blocks) in &found.versions {
        let total: f64 = blocks.by_block.values().map(|counts| counts.total).sum();
        all += total;
        with += if version.is_empty() { 0.0 } else { total };
    }
    Ok((with, all, found.warnings))
}
