//! What goes into the store, and what it says about it.

use std::fmt;
use std::sync::Arc;

use slogate_series::{Exemplar, Histogram, Labels, Sample, Value};

/// A reference to a series; valid within one process, and never given to another series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesRef(u64);

/// The number of shards; a power of two.
pub(crate) const SHARDS: usize = 16;

impl SeriesRef {
    pub(crate) fn new(shard: usize, number: u32) -> Self {
        SeriesRef(u64::from(number) * SHARDS as u64 + shard as u64)
    }

    #[inline]
    pub(crate) fn shard(self) -> usize {
        (self.0 % SHARDS as u64) as usize
    }

    #[inline]
    pub(crate) fn number(self) -> u32 {
        (self.0 / SHARDS as u64) as u32
    }
}

/// A float sample of a known series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloatRow {
    /// The series, from [`Store::series`](crate::Store::series).
    pub series: SeriesRef,
    /// When the value was taken, in milliseconds since the Unix epoch.
    pub t_ms: i64,
    /// When the count behind the value began; 0 where unknown.
    pub start_ms: i64,
    /// The value; any bit pattern is kept.
    pub value: f64,
}

/// A native-histogram sample of a known series.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramRow {
    /// The series, from [`Store::series`](crate::Store::series).
    pub series: SeriesRef,
    /// When the value was taken, in milliseconds since the Unix epoch.
    pub t_ms: i64,
    /// When the count behind the value began; 0 where unknown.
    pub start_ms: i64,
    /// The value.
    pub histogram: Arc<Histogram>,
}

/// An exemplar of a known series.
#[derive(Clone, Debug, PartialEq)]
pub struct ExemplarRow {
    /// The series, from [`Store::series`](crate::Store::series).
    pub series: SeriesRef,
    /// The exemplar.
    pub exemplar: Exemplar,
}

/// Rows that are appended together. Meant to be kept and reused: [`Batch::clear`] keeps the
/// memory.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Float samples.
    pub floats: Vec<FloatRow>,
    /// Histogram samples.
    pub histograms: Vec<HistogramRow>,
    /// Exemplars.
    pub exemplars: Vec<ExemplarRow>,
}

impl Batch {
    /// Adds a sample of `series`.
    pub fn push(&mut self, series: SeriesRef, sample: &Sample) {
        let (t_ms, start_ms) = (sample.t_ms, sample.start_ms);
        match &sample.value {
            Value::Float(value) => self.floats.push(FloatRow {
                series,
                t_ms,
                start_ms,
                value: *value,
            }),
            Value::Histogram(histogram) => self.histograms.push(HistogramRow {
                series,
                t_ms,
                start_ms,
                histogram: Arc::clone(histogram),
            }),
        }
    }

    /// Takes all rows out.
    pub fn clear(&mut self) {
        self.floats.clear();
        self.histograms.clear();
        self.exemplars.clear();
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.floats.len() + self.histograms.len() + self.exemplars.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a row is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Older than the retention, or further behind the series' newest sample than the
    /// out-of-order window.
    TooOld,
    /// Further ahead of the clock than the future window.
    TooNew,
    /// The series has another value at the same time.
    Duplicate,
    /// The reference is to no series, or to one that was collected: look it up again.
    UnknownSeries,
    /// A histogram with more than 10,000 buckets of a sign or with buckets out of order, or
    /// an exemplar with more than 4 KiB of labels.
    Malformed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::TooOld => "too old",
            Refusal::TooNew => "too far in the future",
            Refusal::Duplicate => "another value is stored at this time",
            Refusal::UnknownSeries => "unknown series",
            Refusal::Malformed => "too many or disordered buckets, or too large labels",
        })
    }
}

/// Counts of refused rows by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// See [`Refusal::TooOld`].
    pub too_old: u64,
    /// See [`Refusal::TooNew`].
    pub too_new: u64,
    /// See [`Refusal::Duplicate`].
    pub duplicate: u64,
    /// See [`Refusal::UnknownSeries`].
    pub unknown_series: u64,
    /// See [`Refusal::Malformed`].
    pub malformed: u64,
}

impl Refused {
    /// All refused rows.
    pub fn total(&self) -> u64 {
        self.too_old + self.too_new + self.duplicate + self.unknown_series + self.malformed
    }

    /// What is left without `others`.
    pub fn without(&self, others: &Refused) -> Refused {
        Refused {
            too_old: self.too_old.saturating_sub(others.too_old),
            too_new: self.too_new.saturating_sub(others.too_new),
            duplicate: self.duplicate.saturating_sub(others.duplicate),
            unknown_series: self.unknown_series.saturating_sub(others.unknown_series),
            malformed: self.malformed.saturating_sub(others.malformed),
        }
    }

    pub(crate) fn count(&mut self, reason: Refusal) {
        match reason {
            Refusal::TooOld => self.too_old += 1,
            Refusal::TooNew => self.too_new += 1,
            Refusal::Duplicate => self.duplicate += 1,
            Refusal::UnknownSeries => self.unknown_series += 1,
            Refusal::Malformed => self.malformed += 1,
        }
    }
}

/// A refused row, named.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedRow {
    /// Why.
    pub reason: Refusal,
    /// The series' labels; `None` for an unknown series.
    pub labels: Option<Labels>,
    /// The row's time, in milliseconds since the Unix epoch.
    pub t_ms: i64,
}

impl fmt::Display for RefusedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.labels {
            Some(labels) => write!(f, "{labels} at {} ms: {}", self.t_ms, self.reason),
            None => write!(f, "row at {} ms: {}", self.t_ms, self.reason),
        }
    }
}

/// How many refused rows are named in a report.
pub(crate) const EXAMPLES_MAX: usize = 5;

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppendReport {
    /// Rows stored, those included that were there already.
    pub accepted: u64,
    /// Of these, histogram samples.
    pub accepted_histograms: u64,
    /// Of these, exemplars.
    pub accepted_exemplars: u64,
    /// Rows refused, by reason.
    pub refused: Refused,
    /// Of these, exemplars.
    pub refused_exemplars: Refused,
    /// The first few refused rows.
    pub examples: Vec<RefusedRow>,
    /// The references of all rows refused as [`Refusal::UnknownSeries`], one for each row,
    /// so that the caller can look those series up again and append once more.
    pub unknown: Vec<SeriesRef>,
}

impl AppendReport {
    pub(crate) fn refuse(
        &mut self,
        reason: Refusal,
        series: SeriesRef,
        t_ms: i64,
        labels: impl FnOnce() -> Option<Labels>,
    ) {
        self.refused.count(reason);
        if reason == Refusal::UnknownSeries {
            self.unknown.push(series);
        }
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(RefusedRow {
                reason,
                labels: labels(),
                t_ms,
            });
        }
    }
}
