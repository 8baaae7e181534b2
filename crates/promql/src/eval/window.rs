//! Range vectors: raw samples, and the left-open windows that slide over them.

use std::sync::Arc;

use slogate_series::{Histogram, Labels, ResetHint, Sample, Series, Value};

use crate::ast::Extension;
use crate::eval::meter::{Meter, histogram_size};
use crate::eval::rate::extended::with_borders;
use crate::eval::{Column, EvalError, Grid, column, merge_same_labels};

/// A float sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FloatPoint {
    pub(crate) t_ms: i64,
    pub(crate) start_ms: i64,
    pub(crate) value: f64,
}

/// A histogram sample.
#[derive(Clone, Debug)]
pub(crate) struct HistogramPoint {
    pub(crate) t_ms: i64,
    pub(crate) start_ms: i64,
    pub(crate) value: Arc<Histogram>,
}

/// One series' samples, staleness markers left out.
#[derive(Clone, Debug)]
pub(crate) struct RangeSeries {
    pub(crate) labels: Labels,
    pub(crate) drop_name: bool,
    pub(crate) floats: Vec<FloatPoint>,
    pub(crate) histograms: Vec<HistogramPoint>,
}

impl RangeSeries {
    fn new(labels: Labels, drop_name: bool) -> Self {
        RangeSeries {
            labels,
            drop_name,
            floats: Vec::new(),
            histograms: Vec::new(),
        }
    }

    pub(crate) fn from_series(series: Series) -> Self {
        let mut range = RangeSeries::new(series.labels, false);
        for sample in series.samples {
            range.push(sample.t_ms, sample.start_ms, sample.value);
        }
        range
    }

    fn push(&mut self, t_ms: i64, start_ms: i64, value: Value) {
        match value {
            value if value.is_stale() => {}
            Value::Float(value) => self.floats.push(FloatPoint {
                t_ms,
                start_ms,
                value,
            }),
            Value::Histogram(value) => {
                self.histograms.push(HistogramPoint {
                    t_ms,
                    start_ms,
                    value,
                });
            }
        }
    }
}

/// Where windows end: at the step's time or a fixed one, moved back by the offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowEnds {
    pub(crate) fixed_ms: Option<i64>,
    pub(crate) offset_ms: i64,
}

impl WindowEnds {
    pub(crate) fn at(&self, grid: Grid, step: usize) -> i64 {
        self.fixed_ms
            .unwrap_or_else(|| grid.time_ms(step))
            .saturating_sub(self.offset_ms)
    }
}

/// A range vector for every step of a grid.
#[derive(Debug)]
pub(crate) struct RangeData {
    pub(crate) series: Vec<RangeSeries>,
    pub(crate) range_ms: i64,
    pub(crate) ends: WindowEnds,
    /// Whether windows reach beyond their borders, and how far.
    pub(crate) reach: Option<Reach>,
}

/// Samples beyond the borders of a window that are looked at with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    pub(crate) extension: Extension,
    /// How far beyond a border.
    pub(crate) lookback_ms: i64,
}

impl Reach {
    /// How far it goes before the start, and after the end.
    pub(crate) fn beyond_ms(self) -> (i64, i64) {
        match self.extension {
            Extension::Anchored => (self.lookback_ms, 0),
            Extension::Smoothed => (self.lookback_ms, self.lookback_ms),
        }
    }
}

/// The samples of one series in `(end_ms - range_ms, end_ms]`, and with an extension those
/// beyond that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) floats: &'a [FloatPoint],
    pub(crate) histograms: &'a [HistogramPoint],
    pub(crate) range_ms: i64,
    pub(crate) end_ms: i64,
    /// The step's own time, which `@` and `offset` don't move.
    pub(crate) step_ms: i64,
    pub(crate) extension: Option<Extension>,
}

impl<'a> Window<'a> {
    pub(crate) fn metric_name(&self) -> &'a str {
        self.labels.metric_name().unwrap_or_default()
    }

    /// The start of the range, which is not part of it.
    pub(crate) fn open_ms(&self) -> i64 {
        self.end_ms.saturating_sub(self.range_ms)
    }

    pub(crate) fn is_mixed(&self) -> bool {
        !self.floats.is_empty() && !self.histograms.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }

    /// The samples it counts for.
    pub(crate) fn size(&self) -> usize {
        let histograms = self.histograms.iter().map(|p| histogram_size(&p.value));
        self.floats.len() + histograms.sum::<usize>()
    }
}

impl RangeData {
    pub(crate) fn from_columns(
        columns: Vec<Column>,
        grid: Grid,
        range_ms: i64,
        ends: WindowEnds,
    ) -> Self {
        let series = columns
            .into_iter()
            .map(|column| {
                let mut range = RangeSeries::new(column.labels, column.drop_name);
                for (step, value) in column.values.into_iter().enumerate() {
                    if let Some(value) = value {
                        range.push(grid.time_ms(step), 0, without_reset_knowledge(value));
                    }
                }
                range
            })
            .collect();
        RangeData {
            series,
            range_ms,
            ends,
            reach: None,
        }
    }

    /// Calls `compute` for every window that holds samples, and collects what it returns.
    pub(crate) fn map(
        self,
        grid: Grid,
        meter: &mut Meter,
        mut compute: impl FnMut(&Window<'_>, usize) -> Option<Value>,
    ) -> Result<Vec<Column>, EvalError> {
        let (range_ms, ends) = (self.range_ms, self.ends);
        let (before_ms, after_ms) = self.reach.map_or((0, 0), Reach::beyond_ms);
        let mut columns = Vec::with_capacity(self.series.len());
        for series in self.series {
            let mut column = Column::empty(series.labels.clone(), series.drop_name, grid.steps);
            let mut floats = Slider::default();
            let mut histograms = Slider::default();
            for step in 0..grid.steps {
                let end_ms = ends.at(grid, step);
                let open_ms = end_ms.saturating_sub(range_ms).saturating_sub(before_ms);
                let past_ms = end_ms.saturating_add(after_ms);
                let window = Window {
                    labels: &series.labels,
                    floats: floats.slide(&series.floats, |p| p.t_ms, open_ms, past_ms),
                    histograms: histograms.slide(&series.histograms, |p| p.t_ms, open_ms, past_ms),
                    range_ms,
                    end_ms,
                    step_ms: grid.time_ms(step),
                    extension: self.reach.map(|reach| reach.extension),
                };
                meter.check()?;
                meter.look_at(window.size());
                if window.len() > 0
                    && let Some(value) = compute(&window, step)
                {
                    column.set(step, value);
                }
            }
            if !column.is_empty() {
                columns.push(column);
            }
        }
        Ok(columns)
    }

    /// The samples as they are, for a query that is a range vector.
    pub(crate) fn into_top_series(self, grid: Grid) -> Result<Vec<Series>, EvalError> {
        let end_ms = self.ends.at(grid, 0);
        let open_ms = end_ms.saturating_sub(self.range_ms);
        let mut names = Vec::new();
        let mut all = Vec::new();
        for mut series in self.series {
            if let Some(reach) = self.reach {
                if !series.histograms.is_empty() {
                    let name = reach.extension.as_str();
                    let message = format!("{name} modifier is not supported with histograms");
                    return Err(EvalError::execution(message));
                }
                let window = Window {
                    labels: &series.labels,
                    floats: &series.floats,
                    histograms: &[],
                    range_ms: self.range_ms,
                    end_ms,
                    step_ms: grid.time_ms(0),
                    extension: Some(reach.extension),
                };
                series.floats = with_borders(&window);
            }
            let open_ms = match self.reach {
                // The border has a value too.
                Some(_) => open_ms.saturating_sub(1),
                None => open_ms,
            };
            let floats = series
                .floats
                .into_iter()
                .map(|p| (p.t_ms, p.start_ms, Value::Float(p.value)));
            let histograms = series
                .histograms
                .into_iter()
                .map(|p| (p.t_ms, p.start_ms, Value::Histogram(p.value)));
            let mut samples: Vec<Sample> = floats
                .chain(histograms)
                .filter(|(t_ms, _, _)| *t_ms > open_ms && *t_ms <= end_ms)
                .map(|(t_ms, start_ms, value)| Sample {
                    t_ms,
                    start_ms,
                    value,
                })
                .collect();
            samples.sort_by_key(|sample| sample.t_ms);
            if samples.is_empty() {
                continue;
            }
            let labels = match series.drop_name {
                true => column::without_name(&series.labels),
                false => series.labels,
            };
            // One value each, so that merging finds two series of one name.
            names.push(Column {
                labels: labels.clone(),
                drop_name: false,
                values: vec![Some(Value::Float(0.0))],
            });
            all.push(Series { labels, samples });
        }
        merge_same_labels(names)?;
        Ok(all)
    }
}

/// Between the steps of a subquery a reset may hide, so hints about neighbours no longer hold.
fn without_reset_knowledge(value: Value) -> Value {
    match value {
        Value::Histogram(h) if matches!(h.reset_hint, ResetHint::Reset | ResetHint::NotReset) => {
            let reset_hint = ResetHint::Unknown;
            Value::Histogram(
                Histogram {
                    reset_hint,
                    ..h.as_ref().clone()
                }
                .into(),
            )
        }
        value => value,
    }
}

/// A window over ascending samples that only moves forward.
#[derive(Default)]
struct Slider {
    first: usize,
    past: usize,
}

impl Slider {
    /// The samples in `(open_ms, end_ms]`.
    fn slide<'a, P>(
        &mut self,
        points: &'a [P],
        time: impl Fn(&P) -> i64,
        open_ms: i64,
        end_ms: i64,
    ) -> &'a [P] {
        while points.get(self.past).is_some_and(|p| time(p) <= end_ms) {
            self.past += 1;
        }
        while self.first < self.past && points.get(self.first).is_some_and(|p| time(p) <= open_ms) {
            self.first += 1;
        }
        points.get(self.first..self.past).unwrap_or_default()
    }
}
