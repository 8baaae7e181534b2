//! Range vectors: raw samples, and the left-open windows that slide over them.

use slogate_series::{Histogram, Labels, ResetHint, Sample, SampleSink, Series, Value};

use crate::ast::Extension;
use crate::eval::meter::{Meter, histogram_size};
use crate::eval::rate::extended::with_borders;
use crate::eval::rate::{is_float_reset, is_histogram_reset};
use crate::eval::{Column, EvalError, Grid, column, merge_same_labels};
use crate::queryable::{FloatPoint, HistogramPoint, Samples};

/// Where windows end: at the step's time or a fixed one, moved back by the offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Windows of one length, one for each step of a grid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    pub(crate) range_ms: i64,
    pub(crate) ends: WindowEnds,
    /// Whether they reach beyond their borders, and how far.
    pub(crate) reach: Option<Reach>,
}

/// The samples of one series in `(end_ms - range_ms, end_ms]`, and with an extension those
/// beyond that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    /// The metric's name, empty for none.
    pub(crate) name: &'a str,
    /// Those of its labels that are known here.
    pub(crate) labels: &'a Labels,
    pub(crate) floats: &'a [FloatPoint],
    pub(crate) histograms: &'a [HistogramPoint],
    pub(crate) range_ms: i64,
    pub(crate) end_ms: i64,
    /// The step's own time, which `@` and `offset` don't move.
    pub(crate) step_ms: i64,
    pub(crate) extension: Option<Extension>,
    float_resets: ResetsWithin<'a>,
    histogram_resets: ResetsWithin<'a>,
}

impl<'a> Window<'a> {
    pub(crate) fn metric_name(&self) -> &'a str {
        self.name
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

    /// The places in `floats`, ascending and above 0, of values below the one before.
    pub(crate) fn float_resets(&self) -> impl Iterator<Item = usize> + 'a {
        self.float_resets.iter()
    }

    /// The places in `histograms`, ascending and above 0, that start a new count.
    pub(crate) fn histogram_resets(&self) -> impl Iterator<Item = usize> + 'a {
        self.histogram_resets.iter()
    }
}

/// Resets among a series' samples that both lie in the window.
#[derive(Clone, Copy, Debug, Default)]
struct ResetsWithin<'a> {
    /// Places in the whole series.
    places: &'a [usize],
    /// The window's first sample.
    first: usize,
}

impl<'a> ResetsWithin<'a> {
    fn iter(self) -> impl Iterator<Item = usize> + 'a {
        self.places.iter().map(move |place| place - self.first)
    }
}

/// Whether start times of samples tell of resets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsesStart(pub(crate) bool);

/// One series' samples, looked through once for what every window would look for again.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    float_resets: Vec<usize>,
    histogram_resets: Vec<usize>,
    /// For each histogram, what it and those before it count for.
    sizes: Vec<usize>,
}

impl Prepared {
    /// `counters`: whether resets will be asked for, and if so, whether start times tell of
    /// them.
    pub(crate) fn prepare(&mut self, samples: &Samples, counters: Option<UsesStart>) {
        self.float_resets.clear();
        self.histogram_resets.clear();
        self.sizes.clear();
        let mut size = 0;
        self.sizes.extend(samples.histograms.iter().map(|point| {
            size += histogram_size(&point.value);
            size
        }));
        let Some(UsesStart(uses_start)) = counters else {
            return;
        };
        for (at, pair) in samples.floats.windows(2).enumerate() {
            if let [before, now] = pair
                && is_float_reset(before, now, uses_start)
            {
                self.float_resets.push(at + 1);
            }
        }
        for (at, pair) in samples.histograms.windows(2).enumerate() {
            if let [before, now] = pair
                && is_histogram_reset(before, now, uses_start)
            {
                self.histogram_resets.push(at + 1);
            }
        }
    }

    /// What the histograms from `first` to before `past` count for.
    fn size(&self, first: usize, past: usize) -> usize {
        let up_to = |place: usize| match place.checked_sub(1) {
            Some(last) => self.sizes.get(last).copied().unwrap_or_default(),
            None => 0,
        };
        up_to(past).saturating_sub(up_to(first))
    }
}

/// One series to slide windows over.
#[derive(Clone, Copy)]
pub(crate) struct SeriesSamples<'a> {
    /// The metric's name, empty for none.
    pub(crate) name: &'a str,
    /// Those of its labels that are known here.
    pub(crate) labels: &'a Labels,
    pub(crate) samples: &'a Samples,
    pub(crate) prepared: &'a Prepared,
}

impl Windows {
    /// Calls `compute` for every window that holds samples, and puts what it returns into
    /// the step's place of `values`.
    pub(crate) fn slide(
        &self,
        grid: Grid,
        series: &SeriesSamples<'_>,
        meter: &mut Meter,
        values: &mut [Option<Value>],
        mut compute: impl FnMut(&Window<'_>, usize) -> Option<Value>,
    ) -> Result<(), EvalError> {
        let SeriesSamples {
            name,
            labels,
            samples,
            prepared,
        } = *series;
        let (before_ms, after_ms) = self.reach.map_or((0, 0), Reach::beyond_ms);
        let (mut floats, mut histograms) = (Slider::default(), Slider::default());
        let (mut falls, mut resets) = (Slider::default(), Slider::default());
        for (step, slot) in values.iter_mut().enumerate() {
            meter.check()?;
            let end_ms = self.ends.at(grid, step);
            let open_ms = end_ms.saturating_sub(self.range_ms);
            let open_ms = open_ms.saturating_sub(before_ms);
            let past_ms = end_ms.saturating_add(after_ms);
            let in_floats = floats.slide(&samples.floats, |p| p.t_ms, open_ms, past_ms);
            let in_histograms = histograms.slide(&samples.histograms, |p| p.t_ms, open_ms, past_ms);
            let held = in_floats.len() + prepared.size(histograms.first, histograms.past);
            meter.look_at(held);
            if held == 0 {
                continue;
            }
            let window = Window {
                name,
                labels,
                floats: in_floats,
                histograms: in_histograms,
                range_ms: self.range_ms,
                end_ms,
                step_ms: grid.time_ms(step),
                extension: self.reach.map(|reach| reach.extension),
                float_resets: falls.resets(&prepared.float_resets, &floats),
                histogram_resets: resets.resets(&prepared.histogram_resets, &histograms),
            };
            *slot = compute(&window, step);
        }
        Ok(())
    }
}

impl Windows {
    /// The samples of the one window, and values at its borders.
    fn with_borders(&self, series: &RangeSeries, grid: Grid) -> Vec<FloatPoint> {
        with_borders(&Window {
            name: "",
            labels: &series.labels,
            floats: &series.samples.floats,
            histograms: &[],
            range_ms: self.range_ms,
            end_ms: self.ends.at(grid, 0),
            step_ms: grid.time_ms(0),
            extension: self.reach.map(|reach| reach.extension),
            float_resets: ResetsWithin::default(),
            histogram_resets: ResetsWithin::default(),
        })
    }
}

/// One series of a range vector, staleness markers left out.
#[derive(Debug)]
pub(crate) struct RangeSeries {
    pub(crate) labels: Labels,
    pub(crate) drop_name: bool,
    pub(crate) samples: Samples,
}

/// A range vector for one step: a query that is nothing else.
#[derive(Debug)]
pub(crate) struct RangeData {
    pub(crate) series: Vec<RangeSeries>,
    pub(crate) windows: Windows,
}

impl RangeData {
    /// The samples as they are.
    pub(crate) fn into_top_series(self, grid: Grid) -> Result<Vec<Series>, EvalError> {
        let end_ms = self.windows.ends.at(grid, 0);
        let open_ms = end_ms.saturating_sub(self.windows.range_ms);
        let mut names = Vec::new();
        let mut all = Vec::new();
        for mut series in self.series {
            if let Some(reach) = self.windows.reach {
                if !series.samples.histograms.is_empty() {
                    let name = reach.extension.as_str();
                    let message = format!("{name} modifier is not supported with histograms");
                    return Err(EvalError::execution(message));
                }
                series.samples.floats = self.windows.with_borders(&series, grid);
            }
            let open_ms = match self.windows.reach {
                // The border has a value too.
                Some(_) => open_ms.saturating_sub(1),
                None => open_ms,
            };
            let (floats, histograms) = (series.samples.floats, series.samples.histograms);
            let floats = floats
                .into_iter()
                .map(|p| (p.t_ms, p.start_ms, Value::Float(p.value)));
            let histograms = histograms
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

/// The values of a subquery's steps as samples.
pub(crate) fn to_samples(values: &mut [Option<Value>], grid: Grid, samples: &mut Samples) {
    samples.clear();
    for (step, value) in values.iter_mut().enumerate() {
        match value.take() {
            // A computed value may have a marker's bits; it is no sample of the range.
            Some(value) if value.is_stale() => {}
            Some(Value::Float(value)) => samples.float(grid.time_ms(step), 0, value),
            Some(Value::Histogram(h)) => {
                samples.histogram(grid.time_ms(step), 0, without_reset_knowledge(h));
            }
            None => {}
        }
    }
}

/// Between the steps of a subquery a reset may hide, so hints about neighbours no longer hold.
fn without_reset_knowledge(h: std::sync::Arc<Histogram>) -> std::sync::Arc<Histogram> {
    match h.reset_hint {
        ResetHint::Reset | ResetHint::NotReset => Histogram {
            reset_hint: ResetHint::Unknown,
            ..h.as_ref().clone()
        }
        .into(),
        ResetHint::Unknown | ResetHint::Gauge => h,
    }
}

/// A window over an ascending list that only moves forward.
#[derive(Default)]
struct Slider {
    first: usize,
    past: usize,
}

impl Slider {
    /// The samples in `(open_ms, end_ms]`.
    #[inline]
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

    /// The resets between two samples of the window over `samples`.
    #[inline]
    fn resets<'a>(&mut self, places: &'a [usize], samples: &Slider) -> ResetsWithin<'a> {
        while places.get(self.past).is_some_and(|at| *at < samples.past) {
            self.past += 1;
        }
        while self.first < self.past && places.get(self.first).is_some_and(|p| *p <= samples.first)
        {
            self.first += 1;
        }
        ResetsWithin {
            places: places.get(self.first..self.past).unwrap_or_default(),
            first: samples.first,
        }
    }
}
