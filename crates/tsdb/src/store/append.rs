//! Taking a batch in: checks, memory, log.

use super::Store;
use crate::chunk::{Incoming, histogram};
use crate::exemplar;
use crate::log::Log;
use crate::rows::{AppendReport, Batch, Refusal, SHARDS, SeriesRef};
use crate::series::Unfit;
use crate::shard::Shard;

/// One append while it runs.
pub(super) struct Appending<'s> {
    store: &'s Store,
    log: Option<&'s mut Log>,
    oldest_ms: i64,
    latest_ms: i64,
    now_ms: i64,
    pub(super) report: AppendReport,
    /// The oldest accepted sample's time; `i64::MAX` without any.
    pub(super) min_ms: i64,
    /// The newest accepted sample's time; `i64::MIN` without any.
    pub(super) max_ms: i64,
}

impl<'s> Appending<'s> {
    pub(super) fn new(store: &'s Store, log: Option<&'s mut Log>, now_ms: i64) -> Self {
        Appending {
            oldest_ms: now_ms.saturating_sub(store.options.retention_ms),
            latest_ms: now_ms.saturating_add(store.options.future_window_ms),
            store,
            log,
            now_ms,
            report: AppendReport::default(),
            min_ms: i64::MAX,
            max_ms: i64::MIN,
        }
    }

    pub(super) fn floats(&mut self, batch: &Batch) {
        let rows = &batch.floats;
        self.by_shard(
            rows,
            |row| row.series,
            |this, shard, row| {
                let value = Incoming::Float(row.value);
                let entered = this.enter(shard, row.series, row.t_ms, row.start_ms, value);
                if entered
                    && let Some(log) = &mut this.log
                    && let Some((series, symbols, _)) = shard.get_mut(row.series.number())
                {
                    log.float(series, symbols, row);
                }
            },
        );
    }

    pub(super) fn histograms(&mut self, batch: &Batch) {
        let rows = &batch.histograms;
        self.by_shard(
            rows,
            |row| row.series,
            |this, shard, row| {
                if !histogram::is_acceptable(&row.histogram) {
                    this.refuse(shard, Refusal::Malformed, row.series, row.t_ms);
                    return;
                }
                let value = Incoming::Histogram(&row.histogram);
                let entered = this.enter(shard, row.series, row.t_ms, row.start_ms, value);
                this.report.accepted_histograms += u64::from(entered);
                if entered
                    && let Some(log) = &mut this.log
                    && let Some((series, symbols, _)) = shard.get_mut(row.series.number())
                {
                    log.histogram(series, symbols, row);
                }
            },
        );
    }

    pub(super) fn exemplars(&mut self, batch: &Batch) {
        if batch.exemplars.is_empty() {
            return;
        }
        let mut exemplars = self.store.exemplars.lock();
        let refused_before = self.report.refused;
        self.by_shard(
            &batch.exemplars,
            |row| row.series,
            |this, shard, row| {
                let t_ms = row.exemplar.t_ms;
                let in_time = this.in_time(t_ms).err();
                let malformed =
                    (!exemplar::is_acceptable(&row.exemplar)).then_some(Refusal::Malformed);
                let Some((series, symbols, _)) = shard.get_mut(row.series.number()) else {
                    this.refuse(shard, Refusal::UnknownSeries, row.series, t_ms);
                    return;
                };
                if let Some(reason) = in_time.or(malformed) {
                    this.refuse(shard, reason, row.series, t_ms);
                    return;
                }
                // One that is there already is written again: its first write may have failed.
                exemplars.push(row.series, row.exemplar.clone());
                if let Some(log) = &mut this.log {
                    log.exemplar(series, symbols, row);
                }
                this.report.accepted += 1;
                this.report.accepted_exemplars += 1;
            },
        );
        self.report.refused_exemplars = self.report.refused.without(&refused_before);
    }

    /// Calls `each` with all rows, shard by shard, keeping the order within each.
    fn by_shard<R>(
        &mut self,
        rows: &[R],
        series: impl Fn(&R) -> SeriesRef,
        mut each: impl FnMut(&mut Self, &mut Shard, &R),
    ) {
        let store = self.store;
        if let [row] = rows {
            if let Some(shard) = store.shards.get(series(row).shard()) {
                each(self, &mut shard.write(), row);
            }
            return;
        }
        let (order, ends) = order_by_shard(rows, series);
        let mut from = 0;
        for (shard, end) in store.shards.iter().zip(ends) {
            let places = order.get(from..end).unwrap_or_default();
            from = end;
            if places.is_empty() {
                continue;
            }
            let mut shard = shard.write();
            for row in places.iter().filter_map(|at| rows.get(*at as usize)) {
                each(self, &mut shard, row);
            }
        }
    }

    #[inline]
    fn in_time(&self, t_ms: i64) -> Result<(), Refusal> {
        if t_ms < self.oldest_ms {
            return Err(Refusal::TooOld);
        }
        if t_ms > self.latest_ms {
            return Err(Refusal::TooNew);
        }
        Ok(())
    }

    /// Adds a sample to memory; says whether it is to be written to the log.
    #[inline]
    fn enter(
        &mut self,
        shard: &mut Shard,
        place: SeriesRef,
        t_ms: i64,
        start_ms: i64,
        value: Incoming<'_>,
    ) -> bool {
        let in_time = self.in_time(t_ms);
        let Some((series, _, tally)) = shard.get_mut(place.number()) else {
            self.refuse(shard, Refusal::UnknownSeries, place, t_ms);
            return false;
        };
        let window_ms = self.store.options.out_of_order_window_ms;
        let entered = in_time.and_then(|()| {
            series
                .append(t_ms, start_ms, value, window_ms, tally)
                .map_err(|unfit| match unfit {
                    Unfit::TooOld => Refusal::TooOld,
                    Unfit::Duplicate => Refusal::Duplicate,
                })
        });
        match entered {
            Ok(_) => {
                series.touch(self.now_ms);
                self.min_ms = self.min_ms.min(t_ms);
                self.max_ms = self.max_ms.max(t_ms);
                self.report.accepted += 1;
                true
            }
            Err(reason) => {
                self.refuse(shard, reason, place, t_ms);
                false
            }
        }
    }

    #[cold]
    fn refuse(&mut self, shard: &Shard, reason: Refusal, place: SeriesRef, t_ms: i64) {
        self.report.refuse(reason, place, t_ms, || {
            shard
                .get(place.number())
                .map(|series| shard.labels(&series.pairs))
        });
    }
}

/// The places of `rows` sorted by shard, stable, and where each shard's places end.
fn order_by_shard<R>(rows: &[R], series: impl Fn(&R) -> SeriesRef) -> (Vec<u32>, [usize; SHARDS]) {
    let mut ends = [0usize; SHARDS];
    for row in rows {
        if let Some(count) = ends.get_mut(series(row).shard()) {
            *count += 1;
        }
    }
    let mut total = 0;
    for end in &mut ends {
        // Where the shard's places begin; each placed row moves it towards its end.
        let count = *end;
        *end = total;
        total += count;
    }
    let mut order = vec![0u32; total];
    for (at, row) in (0u32..).zip(rows) {
        if let Some(end) = ends.get_mut(series(row).shard())
            && let Some(place) = order.get_mut(*end)
        {
            *place = at;
            *end += 1;
        }
    }
    (order, ends)
}
