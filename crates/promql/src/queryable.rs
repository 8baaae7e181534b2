//! Where samples come from.

use slogate_series::{Matcher, Series};

/// Something that holds series and can be asked for them.
pub trait Queryable {
    /// The series that pass all `matchers`, each with its samples in the closed range
    /// `start_ms..=end_ms` (milliseconds since the Unix epoch), ascending in time.
    /// Staleness markers are among them. Series without samples may be left out. No two
    /// series have the same labels. The order is the implementation's, but it is the same
    /// for the same question.
    ///
    /// # Errors
    /// When the store can't answer.
    fn select(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<Series>, QueryableError>;
}

impl<Q: Queryable + ?Sized> Queryable for &Q {
    fn select(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<Series>, QueryableError> {
        (**self).select(matchers, start_ms, end_ms)
    }
}

/// Why a store can't answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct QueryableError {
    /// What went wrong, for the person who asked.
    pub reason: String,
}

/// A handful of series in memory: for tests, examples and recorded data.
impl Queryable for [Series] {
    fn select(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<Series>, QueryableError> {
        let passes = |series: &&Series| {
            matchers
                .iter()
                .all(|m| m.matches(series.labels.get(m.name()).unwrap_or("")))
        };
        let cut = |series: &Series| {
            let first = series
                .samples
                .partition_point(|sample| sample.t_ms < start_ms);
            let samples = series.samples.iter().skip(first);
            Series {
                labels: series.labels.clone(),
                samples: samples
                    .take_while(|sample| sample.t_ms <= end_ms)
                    .cloned()
                    .collect(),
            }
        };
        Ok(self
            .iter()
            .filter(passes)
            .map(cut)
            .filter(|s| !s.samples.is_empty())
            .collect())
    }
}

impl Queryable for Vec<Series> {
    fn select(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<Series>, QueryableError> {
        self.as_slice().select(matchers, start_ms, end_ms)
    }
}
