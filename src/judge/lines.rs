//! One query, asked for the candidate and for its baseline, over time.
//!
//! The query's `$version` is each side's own. It is evaluated at every whole multiple of the
//! check's step, after the gate's warm-up. What it is compared with is the version that the
//! candidate replaces, as the deployment or its history says. Where the baseline has values after
//! the deployment began, they are compared time by time. Where it has none, and the check doesn't
//! ask for a concurrent baseline, its values from as long before as a decision may take stand
//! in; that is weaker evidence, and a warning says so.

use std::collections::BTreeMap;

use slogate_promql::QueryValue;
use slogate_series::Value;

use super::Context;
use super::compare::Early;
use crate::deploy::baseline;
use crate::model::{Artifact, Baseline, BaselineKind, Reason, TimeRange, time::humanize_ms};
use crate::policy::{BaselinePreference, Gate, Horizon, Template, Vars};
use crate::source::{self, SourceError};

/// The most series one query may answer with.
const LINES_MAX: usize = 1000;

/// The points of one series by their time in milliseconds.
pub(crate) type Points = BTreeMap<i64, f64>;

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// What tells it from others, without the metric's name.
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) points: Points,
}

/// The points asked for: multiples of `step_ms` after `after_ms`, up to `end_ms`, which are
/// multiples as well.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) after_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) step_ms: i64,
}

/// What both sides answered, each query's series in the order of the queries.
pub(crate) struct Sides {
    pub(crate) candidate: Vec<Vec<Line>>,
    /// At the candidate's times, also where the baseline's are others.
    pub(crate) baseline: Vec<Vec<Line>>,
    pub(crate) compared_with: Baseline,
    pub(crate) warnings: Vec<String>,
    /// The first query as it was asked for the candidate.
    pub(crate) query: String,
}

impl Span {
    /// The points of a rollout up to `end_ms`, the warm-up left out.
    pub(crate) fn of(context: &Context<'_>, step_ms: i64, end_ms: i64) -> Span {
        let whole = |ms: i64| ms.div_euclid(step_ms) * step_ms;
        Span {
            after_ms: whole(context.from_ms + context.gate.warm_up_ms),
            end_ms: whole(end_ms),
            step_ms,
        }
    }

    fn is_empty(&self) -> bool {
        self.end_ms <= self.after_ms
    }

    fn back(self, offset_ms: i64) -> Span {
        Span {
            after_ms: self.after_ms - offset_ms,
            end_ms: self.end_ms - offset_ms,
            ..self
        }
    }

    fn range(&self) -> TimeRange {
        TimeRange {
            start_ms: self.after_ms,
            end_ms: self.end_ms,
        }
    }
}

/// When a test that is judged at fixed times is judged: those up to now, in order, and the last
/// one there will be.
pub(crate) fn judged_at(context: &Context<'_>, horizon: Horizon) -> (Vec<i64>, i64) {
    let longest_ms = context.gate.decide_within_ms;
    let after_ms = horizon.after_ms.unwrap_or(longest_ms).min(longest_ms);
    let last = context.from_ms + after_ms;
    let mut times: Vec<i64> = match horizon.every_ms {
        Some(every_ms) if every_ms > 0 => (1..after_ms.div_euclid(every_ms) + 1)
            .map(|nth| context.from_ms + nth * every_ms)
            .filter(|at| *at < last)
            .collect(),
        _ => Vec::new(),
    };
    times.push(last);
    times.retain(|at| *at <= context.now_ms);
    (times, last)
}

/// How often such a test is judged in all.
pub(crate) fn judgements(gate: &Gate, horizon: Horizon) -> f64 {
    let after_ms = horizon.after_ms.unwrap_or(gate.decide_within_ms);
    match horizon.every_ms {
        Some(every_ms) if every_ms > 0 => (after_ms as f64 / every_ms as f64).ceil().max(1.0),
        _ => 1.0,
    }
}

/// Asks `exprs` for both sides.
pub(crate) async fn both(
    context: &Context<'_>,
    exprs: &[&Template],
    span: Span,
    against: BaselinePreference,
) -> Result<Sides, Early> {
    let deployment = &context.subject.deployment;
    let Some(version) = deployment.artifact.version.as_deref() else {
        return Err(early(
            Reason::NoData,
            format!(
                "no version label is known for {}, so its series can't be told apart.",
                deployment.artifact
            ),
        ));
    };
    if span.is_empty() {
        let warm_up = humanize_ms(context.gate.warm_up_ms);
        let message = format!("the first {warm_up} are no evidence.");
        return Err(early(Reason::WarmingUp, message));
    }
    let artifact = baseline_of(context)?;
    let theirs = artifact.version.clone().unwrap_or_default();
    let mut asked = Asked {
        context,
        exprs,
        warnings: Vec::new(),
        query: None,
    };
    let candidate = asked.lines(version, span).await?;
    let beside = match against {
        BaselinePreference::Historical => None,
        _ => Some(asked.lines(&theirs, span).await?).filter(|found| has_points(found)),
    };
    let (baseline, kind, data) = match (beside, against) {
        (Some(found), _) => (found, BaselineKind::Concurrent, span.range()),
        (None, BaselinePreference::Concurrent) => (
            vec![Vec::new(); exprs.len()],
            BaselineKind::Concurrent,
            span.range(),
        ),
        (None, _) => {
            let offset_ms = offset_ms(context.gate, span.step_ms);
            let past = span.back(offset_ms);
            let mut found = asked.lines(&theirs, past).await?;
            for line in found.iter_mut().flatten() {
                let points = std::mem::take(&mut line.points);
                line.points = points
                    .into_iter()
                    .map(|(at, v)| (at + offset_ms, v))
                    .collect();
            }
            asked.warnings.push(format!(
                "compared with {artifact} {} earlier, which is weaker evidence: the hours differ",
                humanize_ms(offset_ms)
            ));
            (found, BaselineKind::Historical, past.range())
        }
    };
    Ok(Sides {
        candidate,
        baseline,
        compared_with: Baseline {
            artifact,
            kind,
            data,
        },
        warnings: asked.warnings,
        query: asked.query.unwrap_or_default(),
    })
}

/// Whether any series has a number.
pub(crate) fn has_points(found: &[Vec<Line>]) -> bool {
    let mut lines = found.iter().flatten();
    lines.any(|line| line.points.values().any(|value| !value.is_nan()))
}

pub(crate) fn early(reason: Reason, message: String) -> Early {
    Early { reason, message }
}

fn baseline_of(context: &Context<'_>) -> Result<Artifact, Early> {
    let subject = context.subject;
    let choice = baseline::choose(&subject.deployment, &subject.history, &[]);
    let found = choice.map(|choice| choice.artifact);
    found.filter(|artifact| artifact.version.is_some()).ok_or_else(|| {
        let message = "there is nothing to compare with: neither the deployment nor an earlier one \
                       says which version it replaces.";
        early(Reason::NoBaseline, message.to_owned())
    })
}

/// How far before the candidate's times a historical baseline's are: as long as a decision may
/// take, in whole steps, so that all of them are before the deployment.
fn offset_ms(gate: &Gate, step_ms: i64) -> i64 {
    (gate.decide_within_ms + step_ms - 1).div_euclid(step_ms) * step_ms
}

struct Asked<'a, 'c> {
    context: &'a Context<'c>,
    exprs: &'a [&'a Template],
    warnings: Vec<String>,
    query: Option<String>,
}

impl Asked<'_, '_> {
    async fn lines(&mut self, version: &str, span: Span) -> Result<Vec<Vec<Line>>, Early> {
        let mut all = Vec::with_capacity(self.exprs.len());
        for expr in self.exprs {
            all.push(self.one(expr, version, span).await?);
        }
        Ok(all)
    }

    async fn one(
        &mut self,
        expr: &Template,
        version: &str,
        span: Span,
    ) -> Result<Vec<Line>, Early> {
        let target = &self.context.subject.deployment.target;
        let vars = Vars {
            version: version.to_owned(),
            baseline: None,
            service: target.service.clone(),
            environment: target.environment.clone(),
            region: target.region.clone(),
            window_ms: span.end_ms - span.after_ms,
        };
        let text = expr
            .render(&vars)
            .map_err(|missing| early(Reason::NoBaseline, format!("{missing}.")))?;
        let failed = |error: SourceError| early(Reason::SourceError, format!("{error}."));
        let source = self.context.source;
        let window_ms = span.end_ms - span.after_ms;
        let text = source::translate(source, &text, window_ms, span.end_ms)
            .await
            .map_err(failed)?;
        self.query.get_or_insert_with(|| text.clone());
        // The line break ends a comment that the query may end in.
        let ranged = format!("({text}\n)[{window_ms}ms:{}ms]", span.step_ms);
        let answer = source.query(&ranged, span.end_ms).await.map_err(failed)?;
        for warning in answer.warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        let mut lines = read(answer.value)?;
        for line in &mut lines {
            // Not every engine leaves the begin of a range out.
            line.points
                .retain(|at, _| *at > span.after_ms && *at <= span.end_ms);
        }
        Ok(lines)
    }
}

fn read(value: QueryValue) -> Result<Vec<Line>, Early> {
    let QueryValue::Matrix(series) = value else {
        let message = "the query doesn't answer with series over time.".to_owned();
        return Err(early(Reason::UnusableAnswer, message));
    };
    if series.len() > LINES_MAX {
        let message = format!(
            "the query answers with {} series, and {LINES_MAX} are read: aggregate them.",
            series.len()
        );
        return Err(early(Reason::UnusableAnswer, message));
    }
    let line = |one: slogate_series::Series| {
        let labels = one.labels.iter().filter(|label| &*label.name != "__name__");
        let labels = labels.map(|label| (label.name.to_string(), label.value.to_string()));
        let points = one.samples.iter().map(|sample| match &sample.value {
            Value::Float(value) => Ok((sample.t_ms, *value)),
            Value::Histogram(_) => Err(early(
                Reason::UnusableAnswer,
                "the query answers with histograms; ask for numbers.".to_owned(),
            )),
        });
        Ok(Line {
            labels: labels.collect(),
            points: points.collect::<Result<_, Early>>()?,
        })
    };
    series.into_iter().map(line).collect()
}
