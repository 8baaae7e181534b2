//! `/query`, `/query_range`, `/format_query`: PromQL in, values out.
//!
//! Parameters are read and checked first, in Prometheus's order; then the query waits for its
//! turn and is evaluated ([`EmbeddedSource::evaluate`](crate::source::EmbeddedSource)); then
//! the result is written, series by series, each given back as soon as it is written. When the
//! client goes away the evaluation ends.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use slogate_promql::{
    Annotation, AnnotationLevel, InstantSample, QueryResult, QueryStats, QueryValue, position,
};
use slogate_series::{Sample, Series, Value};

use super::answer::{Coding, Notes, answer, success};
use super::error::{ErrorType, Failure};
use super::json;
use super::params::{Form, InstantRequest, QueryOptions, RangeRequest, quoted};
use crate::server::api::App;
use crate::source::{Evaluation, EvaluationError, When};

/// `/query`.
pub(super) async fn instant(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let coding = Coding::of(request.headers());
    let form = Form::read(request, &app).await?;
    let request = InstantRequest::read(&form, app.clock.now_ms())?;
    evaluate(&app, coding, When::At(request.at_ms), request.options).await
}

/// `/query_range`.
pub(super) async fn range(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let coding = Coding::of(request.headers());
    let form = Form::read(request, &app).await?;
    let request = RangeRequest::read(&form)?;
    let when = When::Range {
        start_ms: request.start_ms,
        end_ms: request.end_ms,
        step_ms: request.step_ms,
    };
    evaluate(&app, coding, when, request.options).await
}

async fn evaluate(
    app: &App,
    coding: Coding,
    when: When,
    options: QueryOptions,
) -> Result<Response, Failure> {
    let evaluation = Evaluation {
        expr: options.query.clone(),
        when,
        timeout: options.timeout,
        lookback_ms: options.lookback_ms,
    };
    let evaluated = app.prometheus.source.evaluate(evaluation).await?;
    let at_ms = match when {
        When::At(at_ms) => at_ms,
        When::Range { end_ms, .. } => end_ms,
    };
    answer(coding, move || {
        let times = Times {
            queued: evaluated.queued,
            took: evaluated.took,
        };
        Ok(body(evaluated.result, at_ms, &options, times))
    })
    .await
}

impl From<EvaluationError> for Failure {
    fn from(error: EvaluationError) -> Self {
        match error {
            EvaluationError::Eval(error) => Failure::from(error),
            EvaluationError::TimedOutInQueue => Failure::new(ErrorType::Timeout, error.to_string()),
            EvaluationError::Stopped(_) => Failure::internal(&error),
        }
    }
}

/// How long things took.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    queued: Duration,
    took: Duration,
}

/// The whole answer to a query.
fn body(mut result: QueryResult, at_ms: i64, options: &QueryOptions, times: Times) -> Vec<u8> {
    let mut notes = notes(&result.annotations, &options.query);
    if let Some(limit) = options.limit {
        let count = match &mut result.value {
            QueryValue::Vector(elements) => cut(elements, limit),
            QueryValue::Matrix(series) => cut(series, limit),
            QueryValue::Scalar(_) | QueryValue::String(_) => false,
        };
        if count {
            notes.truncated();
        }
    }
    if !matches!(options.stats.as_str(), "" | "true" | "all") {
        notes.warnings.push(format!(
            "value {} for parameter \"stats\" is deprecated and will be rejected in the next \
             major release, use \"true\" or \"all\"",
            quoted(&options.stats)
        ));
    }
    let stats = (!options.stats.is_empty()).then_some(result.stats);
    success(&notes, |out| {
        // Grafana reads answers as a stream and wants the type first.
        json::raw(out, "{\"resultType\":");
        value(out, result.value, at_ms);
        if let Some(stats) = stats {
            json::raw(out, ",\"stats\":");
            write_stats(out, stats, times);
        }
        out.push(b'}');
    })
}

/// Whether anything was cut off.
fn cut<T>(items: &mut Vec<T>, limit: usize) -> bool {
    let is_longer = items.len() > limit;
    items.truncate(limit);
    is_longer
}

/// Annotations as texts with the place that they are about, parted by level.
fn notes(annotations: &[Annotation], query: &str) -> Notes {
    let mut notes = Notes::default();
    for annotation in annotations {
        let (line, column) = position(query, annotation.span.start);
        let text = format!("{} ({line}:{column})", annotation.message);
        match annotation.level {
            AnnotationLevel::Warning => notes.warnings.push(text),
            AnnotationLevel::Info => notes.infos.push(text),
        }
    }
    notes
}

fn value(out: &mut Vec<u8>, value: QueryValue, at_ms: i64) {
    match value {
        QueryValue::Scalar(number) => {
            json::raw(out, "\"scalar\",\"result\":");
            json::scalar(out, at_ms, number);
        }
        QueryValue::String(text) => {
            json::raw(out, "\"string\",\"result\":");
            json::string_result(out, at_ms, &text);
        }
        QueryValue::Vector(elements) => {
            json::raw(out, "\"vector\",\"result\":");
            json::list(out, elements, |out, element| {
                vector_element(out, &element, at_ms);
            });
        }
        QueryValue::Matrix(series) => {
            json::raw(out, "\"matrix\",\"result\":");
            json::list(out, series, |out, series| matrix_series(out, &series));
        }
    }
}

fn vector_element(out: &mut Vec<u8>, element: &InstantSample, at_ms: i64) {
    json::raw(out, "{\"metric\":");
    json::labels(out, &element.labels);
    json::raw(
        out,
        match element.value {
            Value::Float(_) => ",\"value\":",
            Value::Histogram(_) => ",\"histogram\":",
        },
    );
    json::point(out, at_ms, &element.value);
    out.push(b'}');
}

/// Floats and histograms apart, neither where there is none.
fn matrix_series(out: &mut Vec<u8>, series: &Series) {
    json::raw(out, "{\"metric\":");
    json::labels(out, &series.labels);
    let is_float = |sample: &&Sample| matches!(sample.value, Value::Float(_));
    let mut write = |key: &str, wanted: bool| {
        let mut points = series.samples.iter().filter(|s| is_float(s) == wanted);
        let mut points = points.by_ref().peekable();
        if points.peek().is_some() {
            json::raw(out, key);
            json::list(out, points, |out, sample| {
                json::point(out, sample.t_ms, &sample.value);
            });
        }
    };
    write(",\"values\":", true);
    write(",\"histograms\":", false);
    out.push(b'}');
}

/// Times in seconds. What Prometheus measures apart and slogate doesn't (sorting, preparing) is
/// in the evaluation's time.
fn write_stats(out: &mut Vec<u8>, stats: QueryStats, times: Times) {
    let (queued, took) = (times.queued.as_secs_f64(), times.took.as_secs_f64());
    let timings = [
        ("{\"timings\":{\"evalTotalTime\":", took),
        (",\"resultSortTime\":", 0.0),
        (",\"queryPreparationTime\":", 0.0),
        (",\"innerEvalTime\":", took),
        (",\"execQueueTime\":", queued),
        (",\"execTotalTime\":", queued + took),
    ];
    for (key, seconds) in timings {
        json::raw(out, key);
        json::number(out, seconds);
    }
    json::raw(
        out,
        &format!(
            "}},\"samples\":{{\"totalQueryableSamples\":{},\"peakSamples\":{}}}}}",
            stats.samples_total, stats.samples_peak
        ),
    );
}
