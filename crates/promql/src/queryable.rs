//! Where samples come from.

use std::ops::ControlFlow;
use std::sync::Arc;

use slogate_series::is_stale;
use slogate_series::{Histogram, Labels, Matcher, Projection, SampleSink, Series};

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

    /// The same series, handed to `each` one at a time until it breaks off, so that they
    /// need not all be in memory. A store that can do better than [`Queryable::select`]
    /// implements this too; then the evaluator asks for nothing else.
    ///
    /// # Errors
    /// When the store can't answer.
    fn for_each(
        &self,
        selection: &Selection<'_>,
        each: &mut dyn FnMut(&Labels, &mut Samples) -> ControlFlow<()>,
    ) -> Result<(), QueryableError> {
        let mut samples = Samples::default();
        for series in self.select(selection.matchers, selection.start_ms, selection.end_ms)? {
            samples.clear();
            for sample in series.samples {
                samples.sample(sample);
            }
            if each(&series.labels, &mut samples).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// What the evaluator asks a store for.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// All of them must accept a series.
    pub matchers: &'a [Matcher],
    /// The first time of the closed range, in milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// The last time of the closed range.
    pub end_ms: i64,
    /// The labels that will be looked at. The store may leave others out, and then hands out
    /// several series with the same labels; or it may tell them all.
    pub projection: Projection<'a>,
    /// Whether the order has to be the same for the same question; else any will do.
    pub ordered: bool,
}

/// A float sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloatPoint {
    /// Milliseconds since the Unix epoch.
    pub t_ms: i64,
    /// When the count behind it began, in milliseconds since the Unix epoch; 0 where unknown.
    pub start_ms: i64,
    /// The value.
    pub value: f64,
}

/// A native-histogram sample.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramPoint {
    /// Milliseconds since the Unix epoch.
    pub t_ms: i64,
    /// When the count behind it began, in milliseconds since the Unix epoch; 0 where unknown.
    pub start_ms: i64,
    /// The value.
    pub value: Arc<Histogram>,
}

/// The samples of one series, floats and histograms apart, each ascending in time.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    pub(crate) floats: Vec<FloatPoint>,
    pub(crate) histograms: Vec<HistogramPoint>,
    /// Whether staleness markers are among them.
    has_stale: bool,
}

impl SampleSink for Samples {
    fn clear(&mut self) {
        self.floats.clear();
        self.histograms.clear();
        self.has_stale = false;
    }

    #[inline]
    fn float(&mut self, t_ms: i64, start_ms: i64, value: f64) {
        self.has_stale |= is_stale(value);
        self.floats.push(FloatPoint {
            t_ms,
            start_ms,
            value,
        });
    }

    fn histogram(&mut self, t_ms: i64, start_ms: i64, value: Arc<Histogram>) {
        self.has_stale |= is_stale(value.sum);
        self.histograms.push(HistogramPoint {
            t_ms,
            start_ms,
            value,
        });
    }
}

impl Samples {
    /// Takes staleness markers out, which are no samples of a range.
    pub(crate) fn drop_stale(&mut self) {
        if self.has_stale {
            self.floats.retain(|point| !is_stale(point.value));
            self.histograms.retain(|point| !is_stale(point.value.sum));
            self.has_stale = false;
        }
    }
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

    fn for_each(
        &self,
        selection: &Selection<'_>,
        each: &mut dyn FnMut(&Labels, &mut Samples) -> ControlFlow<()>,
    ) -> Result<(), QueryableError> {
        (**self).for_each(selection, each)
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
