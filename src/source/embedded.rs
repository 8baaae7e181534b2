//! The store in this process, behind the PromQL engine.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use slogate_promql::{Engine, Queryable, QueryableError};
use slogate_series::{Matcher, Series};
use slogate_tsdb::Store;

use super::{Answer, MetricSource, SourceError};

const NAME: &str = "the embedded store";

/// Answers from the embedded store.
#[derive(Clone)]
pub struct EmbeddedSource {
    store: Arc<Store>,
    engine: Arc<Engine>,
}

impl EmbeddedSource {
    /// A source over `store` with the engine's default limits.
    pub fn new(store: Arc<Store>) -> Self {
        EmbeddedSource {
            store,
            engine: Arc::new(Engine::default()),
        }
    }

    fn answer(&self, expr: &str, at_ms: i64) -> Result<Answer, SourceError> {
        let result = self
            .engine
            .instant(expr, &StoreQueryable(&self.store), at_ms)
            .map_err(|error| SourceError::Refused {
                origin: NAME.to_owned(),
                message: error.to_string(),
            })?;
        let warnings = result
            .annotations
            .into_iter()
            .map(|annotation| annotation.message)
            .collect();
        Ok(Answer {
            value: result.value,
            warnings,
        })
    }
}

impl MetricSource for EmbeddedSource {
    fn query<'a>(
        &'a self,
        expr: &'a str,
        at_ms: i64,
    ) -> BoxFuture<'a, Result<Answer, SourceError>> {
        let (source, expr) = (self.clone(), expr.to_owned());
        Box::pin(async move {
            // Evaluation is CPU-bound and may touch many samples: off the async workers.
            let task = tokio::task::spawn_blocking(move || source.answer(&expr, at_ms));
            task.await.unwrap_or_else(|error| {
                Err(SourceError::Unavailable {
                    origin: NAME.to_owned(),
                    message: format!("the evaluation stopped: {error}"),
                })
            })
        })
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
}
