//! The store in this process, behind the PromQL engine.
//!
//! Every evaluation on the embedded store comes through here, whoever asks: at most
//! `query.concurrency` at once, the others wait; each has `query.timeout` from the moment it
//! is asked; and one whose asker has gone (the future is dropped) ends at the evaluator's next
//! look at its interrupt. Evaluation is CPU-bound, so it runs off the async workers; its place
//! is free when it has really ended.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use slogate_promql::{
    Engine, EvalError, Interrupt, QueryResult, Queryable, QueryableError, Samples, Selection,
};
use slogate_series::{Labels, Matcher, Series};
use slogate_tsdb::{Read, Store};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Answer, MetricSource, SourceError, samples_by_query};
use crate::config::QuerySettings;

const NAME: &str = "the embedded store";

/// The longest window that is read without a thread of its own, in milliseconds: a few samples of
/// each series.
const SHORT_MS: i64 = 120_000;

/// Answers from the embedded store.
#[derive(Clone)]
pub struct EmbeddedSource {
    store: Arc<Store>,
    engine: Arc<Engine>,
    turns: Arc<Semaphore>,
    timeout: Duration,
}

/// A query and when to evaluate it.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// PromQL.
    pub expr: String,
    /// At which time or times.
    pub when: When,
    /// How long it may take, where that is shorter than the source's own limit.
    pub timeout: Option<Duration>,
    /// How old a current sample may be, in milliseconds, instead of the source's setting.
    pub lookback_ms: Option<i64>,
}

/// The times at which a query is evaluated, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// One time.
    At(i64),
    /// `start_ms`, `start_ms + step_ms`, … up to `end_ms`.
    Range {
        /// The first time.
        start_ms: i64,
        /// The last time at most.
        end_ms: i64,
        /// Between times, in milliseconds.
        step_ms: i64,
    },
}

/// What an evaluation gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// The value and what is to be said about it.
    pub result: QueryResult,
    /// How long it waited for its turn.
    pub queued: Duration,
    /// How long the evaluation itself took.
    pub took: Duration,
}

/// Why an evaluation gave nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvaluationError {
    /// The evaluator's reason.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Its time was over before its turn came.
    #[error("query timed out in query queue")]
    TimedOutInQueue,
    /// The evaluation ended without a result: the daemon stops, or there is a bug.
    #[error("the evaluation stopped: {0}")]
    Stopped(String),
}

impl EmbeddedSource {
    /// A source over `store`.
    pub fn new(store: Arc<Store>, settings: &QuerySettings) -> Self {
        let engine = Engine {
            lookback_ms: settings.lookback_ms,
            samples_max: settings.samples_max,
            ..Engine::default()
        };
        let timeout_ms = u64::try_from(settings.timeout_ms).unwrap_or(0);
        EmbeddedSource {
            store,
            engine: Arc::new(engine),
            turns: Arc::new(Semaphore::new(settings.concurrency)),
            timeout: Duration::from_millis(timeout_ms),
        }
    }

    /// The settings that queries are evaluated with.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Evaluates; dropping the future ends the evaluation too.
    ///
    /// # Errors
    /// Where the query is wrong, over a limit, or out of time.
    pub async fn evaluate(&self, evaluation: Evaluation) -> Result<Evaluated, EvaluationError> {
        let own = self.timeout;
        let timeout = evaluation.timeout.map_or(own, |asked| asked.min(own));
        let asked = Instant::now();
        let deadline = asked + timeout;
        let turn = match timeout_at(deadline, self.turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(closed)) => return Err(EvaluationError::Stopped(closed.to_string())),
            Err(_) => return Err(EvaluationError::TimedOutInQueue),
        };
        let began = Instant::now();
        let interrupt = Interrupt::new();
        let canceled = CancelOnDrop(interrupt.clone());
        let source = self.clone();
        let mut task = tokio::task::spawn_blocking(move || {
            let result = source.run(&evaluation, &interrupt);
            drop(turn);
            result
        });
        let ended = tokio::select! {
            ended = &mut task => ended,
            () = sleep_until(deadline) => {
                canceled.0.time_out();
                task.await
            }
        };
        let result = ended.map_err(|error| EvaluationError::Stopped(error.to_string()))?;
        Ok(Evaluated {
            result: result?,
            queued: began.duration_since(asked),
            took: began.elapsed(),
        })
    }

    fn run(
        &self,
        evaluation: &Evaluation,
        interrupt: &Interrupt,
    ) -> Result<QueryResult, EvalError> {
        let mut engine = self.engine.as_ref().clone();
        if let Some(lookback_ms) = evaluation.lookback_ms {
            engine.lookback_ms = lookback_ms;
        }
        let expr = evaluation.expr.as_str();
        let store = StoreQueryable(&self.store);
        match evaluation.when {
            When::At(at_ms) => engine.instant_with(expr, &store, at_ms, interrupt),
            When::Range {
                start_ms,
                end_ms,
                step_ms,
            } => engine.range_with(expr, &store, start_ms, end_ms, step_ms, interrupt),
        }
    }
}

/// Ends an evaluation that nobody waits for any more.
struct CancelOnDrop(Interrupt);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl From<EvaluationError> for SourceError {
    fn from(error: EvaluationError) -> Self {
        let (origin, message) = (NAME.to_owned(), error.to_string());
        match error {
            EvaluationError::Eval(EvalError::Canceled | EvalError::Timeout)
            | EvaluationError::TimedOutInQueue
            | EvaluationError::Stopped(_) => SourceError::Unavailable { origin, message },
            EvaluationError::Eval(_) => SourceError::Refused { origin, message },
        }
    }
}

impl MetricSource for EmbeddedSource {
    fn query<'a>(
        &'a self,
        expr: &'a str,
        at_ms: i64,
    ) -> BoxFuture<'a, Result<Answer, SourceError>> {
        let evaluation = Evaluation {
            expr: expr.to_owned(),
            when: When::At(at_ms),
            timeout: None,
            lookback_ms: None,
        };
        Box::pin(async move {
            let result = self.evaluate(evaluation).await?.result;
            let annotations = result.annotations.into_iter();
            Ok(Answer {
                value: result.value,
                warnings: annotations.map(|annotation| annotation.message).collect(),
            })
        })
    }

    /// A short window is read straight from the store: that takes less than handing it to a
    /// thread would, and a rollout asks so with every look. A long one is a query like any other.
    fn samples<'a>(
        &'a self,
        selector: &'a str,
        from_ms: i64,
        to_ms: i64,
    ) -> BoxFuture<'a, Result<(Vec<Series>, Vec<String>), SourceError>> {
        let matchers = match slogate_promql::parse_selector(selector) {
            Ok(matchers) if to_ms - from_ms <= SHORT_MS => matchers,
            _ => return Box::pin(samples_by_query(self, selector, from_ms, to_ms)),
        };
        let found = self.store.select(&matchers, from_ms + 1, to_ms);
        Box::pin(std::future::ready(Ok((found, Vec::new()))))
    }

    fn name(&self) -> &str {
        NAME
    }
}

struct StoreQueryable<'a>(&'a Store);

impl Queryable for StoreQueryable<'_> {
    fn select(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<Series>, QueryableError> {
        Ok(self.0.select(matchers, start_ms, end_ms))
    }

    fn for_each(
        &self,
        selection: &Selection<'_>,
        each: &mut dyn FnMut(&Labels, &mut Samples) -> ControlFlow<()>,
    ) -> Result<(), QueryableError> {
        let read = Read {
            matchers: selection.matchers,
            start_ms: selection.start_ms,
            end_ms: selection.end_ms,
            projection: selection.projection,
            sorted: selection.ordered,
        };
        self.0.for_each(&read, &mut Samples::default(), each);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use slogate_promql::QueryValue;

    use super::*;

    const SETTINGS: QuerySettings = QuerySettings {
        concurrency: 1,
        timeout_ms: 100_000,
        samples_max: 10_000_000,
        lookback_ms: 300_000,
    };

    fn source(settings: &QuerySettings) -> EmbeddedSource {
        let (store, _) = Store::open(slogate_tsdb::Options::default(), 0).unwrap();
        EmbeddedSource::new(Arc::new(store), settings)
    }

    fn evaluation(expr: &str, timeout_ms: Option<u64>) -> Evaluation {
        Evaluation {
            expr: expr.to_owned(),
            when: When::At(1_000),
            timeout: timeout_ms.map(Duration::from_millis),
            lookback_ms: None,
        }
    }

    /// Subqueries over nothing but numbers, nested so that they would run for hours.
    fn endless() -> String {
        let mut expr = "vector(1)".to_owned();
        for _ in 0..4 {
            expr = format!("sum_over_time(({expr})[1000s:1s])");
        }
        format!("sum_over_time(({expr})[900000s:1s])")
    }

    #[tokio::test]
    async fn a_query_is_answered() {
        let result = source(&SETTINGS).evaluate(evaluation("1 + 1", None)).await;
        assert_eq!(result.unwrap().result.value, QueryValue::Scalar(2.0));
    }

    #[tokio::test]
    async fn time_runs_out() {
        let source = source(&SETTINGS);
        let error = source.evaluate(evaluation(&endless(), Some(50))).await;
        assert_eq!(error, Err(EvaluationError::Eval(EvalError::Timeout)));
        let answer = source.query("1", 0).await;
        assert!(answer.is_ok(), "its place is free again: {answer:?}");
    }

    #[tokio::test]
    async fn who_waits_too_long_for_a_turn_is_told() {
        let source = source(&SETTINGS);
        let _turn = source.turns.acquire().await.unwrap();
        let error = source.evaluate(evaluation("1", Some(20))).await;
        assert_eq!(error, Err(EvaluationError::TimedOutInQueue));
        assert!(matches!(
            SourceError::from(error.unwrap_err()),
            SourceError::Unavailable { .. }
        ));
    }

    #[tokio::test]
    async fn nobody_evaluates_for_an_asker_that_has_gone() {
        let source = source(&SETTINGS);
        let asked = tokio::time::timeout(
            Duration::from_millis(50),
            source.evaluate(evaluation(&endless(), None)),
        );
        assert!(asked.await.is_err());
        // The one place is taken until the evaluation has seen that it is not wanted.
        let answer = source.evaluate(evaluation("1", Some(20_000))).await;
        assert!(answer.is_ok(), "{answer:?}");
    }
}
