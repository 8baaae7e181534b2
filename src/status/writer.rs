//! Writes what stands, and ends what no longer does.

use std::collections::HashMap;
use std::sync::Arc;

use slogate_series::{Labels, METRIC_NAME, Matcher, STALE_NAN_BITS, Value, stale_nan};
use slogate_tsdb::{AppendError, Batch, FloatRow, SeriesError, Store};

use super::events::EventSample;
use super::publisher::Scope;
use super::sample::Sample;

/// How far back series of an earlier process are looked for, in milliseconds: PromQL's lookback,
/// beyond which nothing shows any more.
const TAKE_OVER_MS: i64 = 300_000;

/// What became of a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Samples written, stale markers aside.
    pub written: usize,
    /// Series that ended.
    pub ended: usize,
    /// Samples that the store did not take.
    pub refused: usize,
    /// Why, for the first of them.
    pub refusal: Option<String>,
}

/// Knows what stands: the series without an end, with the bits of their values.
#[derive(Debug)]
pub(super) struct Writer {
    store: Arc<Store>,
    standing: HashMap<Labels, u64>,
    last_ms: i64,
}

impl Writer {
    pub(super) fn new(store: Arc<Store>) -> Writer {
        Writer {
            store,
            standing: HashMap::new(),
            last_ms: i64::MIN,
        }
    }

    /// Takes over what stands of a metric in the store, so that the next round goes on with it or
    /// ends it.
    pub(super) fn take_over(&mut self, metric: &str, more: &[Matcher], now_ms: i64) {
        let mut matchers = vec![Matcher::equal(METRIC_NAME, metric)];
        matchers.extend_from_slice(more);
        let found = self.store.select(&matchers, now_ms - TAKE_OVER_MS, now_ms);
        for series in found {
            let last = series.samples.last().map(|sample| &sample.value);
            if let Some(Value::Float(value)) = last
                && value.to_bits() != STALE_NAN_BITS
            {
                self.standing.insert(series.labels, value.to_bits());
            }
        }
    }

    /// Writes the samples, all or those whose value is new, and ends the series that stood and are
    /// not among them.
    ///
    /// # Errors
    /// When the store's log can't be written. Then nothing counts as written.
    pub(super) fn write(
        &mut self,
        samples: Vec<Sample>,
        scope: Scope,
        now_ms: i64,
    ) -> Result<Report, AppendError> {
        // Two rounds within a millisecond would contradict each other.
        let t_ms = now_ms.max(self.last_ms.saturating_add(1));
        let mut report = Report::default();
        let mut batch = Batch::default();
        let mut standing = HashMap::with_capacity(samples.len());
        for Sample { labels, value } in samples {
            let before = self.standing.remove(&labels);
            let is_known = before == Some(value.to_bits());
            if scope == Scope::All || !is_known {
                if !self.row(&labels, t_ms, value, &mut batch, &mut report) {
                    continue;
                }
                report.written += 1;
            }
            standing.insert(labels, value.to_bits());
        }
        for labels in std::mem::take(&mut self.standing).into_keys() {
            if standing.contains_key(&labels) {
                continue;
            }
            if self.row(&labels, t_ms, stale_nan(), &mut batch, &mut report) {
                report.ended += 1;
            }
            // Until the end is written it stands: a failed append is tried again.
            self.standing.insert(labels, STALE_NAN_BITS);
        }
        let appended = self.store.append(&batch, now_ms);
        match appended {
            Ok(appended) => {
                report.count(&appended);
                self.standing = standing;
                self.last_ms = t_ms;
                Ok(report)
            }
            Err(error) => {
                // Other bits than any value's: all of it is written by the next round.
                let all = standing.into_keys();
                self.standing
                    .extend(all.map(|labels| (labels, STALE_NAN_BITS)));
                Err(error)
            }
        }
    }

    /// Writes events, each at its own time. They don't stand, so they don't end.
    ///
    /// # Errors
    /// When the store's log can't be written.
    pub(super) fn write_events(
        &self,
        events: &[EventSample],
        now_ms: i64,
    ) -> Result<Report, AppendError> {
        let mut report = Report::default();
        let mut batch = Batch::default();
        for EventSample { t_ms, sample } in events {
            if self.row(&sample.labels, *t_ms, sample.value, &mut batch, &mut report) {
                report.written += 1;
            }
        }
        if !batch.is_empty() {
            report.count(&self.store.append(&batch, now_ms)?);
        }
        Ok(report)
    }

    /// Adds a row; false where the store has no room for its series.
    fn row(
        &self,
        labels: &Labels,
        t_ms: i64,
        value: f64,
        batch: &mut Batch,
        report: &mut Report,
    ) -> bool {
        let series = match self.store.series(labels) {
            Ok(series) => series,
            Err(error) => {
                report.refuse(&error);
                return false;
            }
        };
        batch.floats.push(FloatRow {
            series,
            t_ms,
            start_ms: 0,
            value,
        });
        true
    }
}

impl Report {
    fn refuse(&mut self, error: &SeriesError) {
        self.refused += 1;
        self.refusal.get_or_insert_with(|| error.to_string());
    }

    fn count(&mut self, appended: &slogate_tsdb::AppendReport) {
        self.refused += usize::try_from(appended.refused.total()).unwrap_or(usize::MAX);
        if let (None, Some(example)) = (&self.refusal, appended.examples.first()) {
            self.refusal = Some(example.to_string());
        }
    }

    /// Both together.
    pub(super) fn and(mut self, other: Report) -> Report {
        self.written += other.written;
        self.ended += other.ended;
        self.refused += other.refused;
        self.refusal = self.refusal.or(other.refusal);
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::status::families::FINDING;
    use crate::status::testing::T0;

    fn store() -> Arc<Store> {
        let options = slogate_tsdb::Options::default();
        Arc::new(Store::open(options, T0).unwrap().0)
    }

    fn sample(kind: &str, value: f64) -> Sample {
        Sample::new(&FINDING, &[("kind", kind)], value)
    }

    /// Times and values of a series, `None` for an end.
    fn written(store: &Store, kind: &str) -> Vec<(i64, Option<f64>)> {
        let matchers = [
            Matcher::equal(METRIC_NAME, FINDING.name),
            Matcher::equal("kind", kind),
        ];
        let found = store.select(&matchers, 0, i64::MAX);
        let samples = found.iter().flat_map(|series| &series.samples);
        let value = |value: &Value| match value {
            Value::Float(number) if !value.is_stale() => Some(*number),
            _ => None,
        };
        samples.map(|s| (s.t_ms - T0, value(&s.value))).collect()
    }

    #[test]
    fn what_is_gone_ends_once_and_what_comes_back_begins_again() {
        let store = store();
        let mut writer = Writer::new(store.clone());
        let both = || vec![sample("a", 1.0), sample("b", 2.0)];
        writer.write(both(), Scope::All, T0).unwrap();
        let only_a = vec![sample("a", 1.0)];
        let report = writer.write(only_a.clone(), Scope::All, T0 + 15).unwrap();
        assert_eq!((report.written, report.ended), (1, 1));
        let report = writer.write(only_a, Scope::All, T0 + 30).unwrap();
        assert_eq!((report.written, report.ended), (1, 0));
        writer.write(both(), Scope::All, T0 + 45).unwrap();
        let expected = [(0, Some(2.0)), (15, None), (45, Some(2.0))];
        assert_eq!(written(&store, "b"), expected);
    }

    #[test]
    fn a_change_writes_what_differs_and_nothing_else() {
        let store = store();
        let mut writer = Writer::new(store.clone());
        let first = vec![sample("a", 1.0), sample("b", 2.0)];
        writer.write(first, Scope::All, T0).unwrap();
        let then = vec![sample("a", 1.0), sample("b", 3.0), sample("c", 1.0)];
        let report = writer.write(then, Scope::Changed, T0).unwrap();
        assert_eq!(report.written, 2);
        assert_eq!(written(&store, "a"), [(0, Some(1.0))]);
        // Not at the same millisecond: the store would refuse another value there.
        assert_eq!(written(&store, "b"), [(0, Some(2.0)), (1, Some(3.0))]);
    }

    /// A daemon that was killed left series standing; they must not linger when it is back.
    #[test]
    fn what_an_earlier_process_left_is_gone_on_with_or_ended() {
        let store = store();
        let before = vec![sample("a", 1.0), sample("b", 1.0)];
        let mut killed = Writer::new(store.clone());
        killed.write(before, Scope::All, T0).unwrap();
        let mut writer = Writer::new(store.clone());
        writer.take_over(FINDING.name, &[], T0 + 20);
        let report = writer.write(vec![sample("a", 1.0)], Scope::Changed, T0 + 20);
        assert_eq!(report.unwrap().ended, 1);
        assert_eq!(written(&store, "a"), [(0, Some(1.0))]);
        assert_eq!(written(&store, "b"), [(0, Some(1.0)), (20, None)]);
        let mut third = Writer::new(store);
        third.take_over(FINDING.name, &[], T0 + 40);
        assert_eq!(third.standing.len(), 1, "what has ended is not taken over");
    }

    #[test]
    fn a_full_store_is_told_and_keeps_nothing_else_out() {
        let options = slogate_tsdb::Options {
            series_max: 1,
            ..slogate_tsdb::Options::default()
        };
        let store = Arc::new(Store::open(options, T0).unwrap().0);
        let mut writer = Writer::new(store);
        let both = vec![sample("a", 1.0), sample("b", 2.0)];
        let report = writer.write(both, Scope::All, T0).unwrap();
        assert_eq!((report.written, report.refused), (1, 1));
        assert!(report.refusal.unwrap().contains("series"));
    }

    proptest! {
        /// Whatever came before: what a query sees is what the last round said.
        #[test]
        fn what_stands_is_what_the_last_round_said(
            rounds in prop::collection::vec(
                (prop::collection::btree_map(0..5u8, 0..3u8, 0..5), any::<bool>()),
                1..12,
            ),
        ) {
            let store = store();
            let mut writer = Writer::new(store.clone());
            for (at_ms, (said, is_all)) in (T0..).step_by(1_000).zip(&rounds) {
                let samples = said
                    .iter()
                    .map(|(kind, value)| sample(&kind.to_string(), f64::from(*value)));
                let scope = if *is_all { Scope::All } else { Scope::Changed };
                writer.write(samples.collect(), scope, at_ms).unwrap();
                for kind in 0..5u8 {
                    let last = written(&store, &kind.to_string()).pop();
                    let now = last.and_then(|(_, value)| value);
                    prop_assert_eq!(now, said.get(&kind).map(|value| f64::from(*value)));
                }
            }
        }
    }
}
