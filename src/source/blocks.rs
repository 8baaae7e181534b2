//! Requests as counts per version and block of time.
//!
//! Time is cut into blocks aligned to the epoch, so that every look at a rollout cuts it the
//! same way. Counters become increases between neighbouring samples: a drop is a reset and
//! counts from zero; any first sample is only the point to count from, unless it is known that
//! the count began inside the window: its start timestamp says so, or the same process (`job`,
//! `instance` and `pod`) was being sampled already, so that the series is new to it. Without
//! that, the first failures of a new version would be lost, and it would look better than it
//! is. Nothing is extrapolated.
//!
//! # How long a block is
//!
//! Candidate and baseline are compared block by block, so each block has to hold samples of
//! both. A block is twice the time between samples, as they are found, and at least
//! [`BLOCK_MS`]: two of slogate's own five-second flushes, two minutes where Prometheus scrapes
//! each minute.
//!
//! # Durations
//!
//! A native histogram where the source has one, else classic buckets (VictoriaMetrics and most
//! meshes know nothing else). Classic buckets of unlike bounds, as when a release changes them,
//! are compared at the bounds they share; where they share none, there is nothing to compare.
//!
//! # Instances
//!
//! Where series say which instance served the requests, each version's blocks are kept by
//! instance too. The sum over all is exact in any case; what series without an instance count
//! is in the sum only.

use std::collections::BTreeMap;
use std::sync::Arc;

use slogate_promql::QueryValue;
use slogate_series::{Buckets, Histogram, Series, Value};

use super::join::{self, Belongs};
use super::{MetricSource, SourceError};
use crate::model::Target;

mod explicit;
mod grid;
mod increases;

pub(crate) use grid::{BLOCK_MS, Grid};
pub(crate) use increases::increase;

use explicit::{Cumulative, add_explicit, of_classic};
use increases::{Births, float_increases, histogram_increases};

/// Requests of one version in one block.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// All requests.
    pub(crate) total: f64,
    /// Failed requests, for example those whose span status is error.
    pub(crate) errors: f64,
}

/// What blocks hold.
pub(crate) trait Additive: Clone {
    /// Adds what another series brings to the same block.
    fn add_up(&mut self, other: &Self);
}

impl Additive for Counts {
    fn add_up(&mut self, other: &Self) {
        self.total += other.total;
        self.errors += other.errors;
    }
}

impl Additive for Histogram {
    fn add_up(&mut self, other: &Self) {
        *self = self.add(other);
    }
}

/// One version's blocks.
#[derive(Clone, Debug)]
pub(crate) struct Blocks<T> {
    /// The sum over all series; only blocks with something in them.
    pub(crate) by_block: BTreeMap<i64, T>,
    /// The same by instance, as far as series say one.
    pub(crate) instances: BTreeMap<Arc<str>, Instance<T>>,
    /// The newest sample of any of its series, in milliseconds since the epoch.
    pub(crate) newest_ms: i64,
    /// The oldest sample in the window, in milliseconds since the epoch.
    pub(crate) oldest_ms: i64,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Blocks {
            by_block: BTreeMap::new(),
            instances: BTreeMap::new(),
            newest_ms: i64::MIN,
            oldest_ms: i64::MAX,
        }
    }
}

/// One instance's blocks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Instance<T> {
    /// Only blocks with something in them.
    pub(crate) by_block: BTreeMap<i64, T>,
}

impl<T> Default for Instance<T> {
    fn default() -> Self {
        Instance {
            by_block: BTreeMap::new(),
        }
    }
}

impl<T> Blocks<T> {
    fn saw(&mut self, t_ms: i64) {
        self.oldest_ms = self.oldest_ms.min(t_ms);
        self.newest_ms = self.newest_ms.max(t_ms);
    }
}

impl<T: Additive> Blocks<T> {
    /// Adds what a series brings to a block.
    pub(crate) fn add(&mut self, instance: Option<&str>, block: i64, increase: &T) {
        add_to(&mut self.by_block, block, increase);
        if let Some(name) = instance {
            if !self.instances.contains_key(name) {
                self.instances.insert(name.into(), Instance::default());
            }
            if let Some(instance) = self.instances.get_mut(name) {
                add_to(&mut instance.by_block, block, increase);
            }
        }
    }
}

fn add_to<T: Additive>(by_block: &mut BTreeMap<i64, T>, block: i64, increase: &T) {
    match by_block.get_mut(&block) {
        Some(sum) => sum.add_up(increase),
        None => {
            by_block.insert(block, increase.clone());
        }
    }
}

/// What was gathered: blocks by version, and the source's remarks.
#[derive(Clone, Debug)]
pub(crate) struct Gathered<T> {
    /// How time was cut.
    pub(crate) grid: Grid,
    /// Blocks by version; series without one are under the empty version.
    pub(crate) versions: BTreeMap<String, Blocks<T>>,
    /// The source's remarks.
    pub(crate) warnings: Vec<String>,
}

impl<T> Gathered<T> {
    fn of(found: &Found) -> Self {
        let mut gathered = Gathered {
            grid: found.grid,
            versions: BTreeMap::new(),
            warnings: found.warnings.clone(),
        };
        for (series, belongs) in found.series.iter().zip(&found.belongs) {
            for sample in &series.samples {
                if let Some(version) = belongs.at(sample.t_ms) {
                    gathered.blocks(version).saw(sample.t_ms);
                }
            }
        }
        gathered
    }

    fn blocks(&mut self, version: &str) -> &mut Blocks<T> {
        if !self.versions.contains_key(version) {
            self.versions.insert(version.to_owned(), Blocks::default());
        }
        self.versions.entry(version.to_owned()).or_default()
    }
}
impl<T: Additive> Gathered<T> {
    fn add(&mut self, whose: Whose<'_>, block: i64, increase: &T) {
        self.blocks(whose.version)
            .add(whose.instance, block, increase);
    }
}

/// Whose requests an increase is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Whose<'f> {
    version: &'f str,
    instance: Option<&'f str>,
}

/// Requests of one span kind (`SPAN_KIND_SERVER`), by version, in `(from_ms, now_ms]`.
pub(crate) async fn requests(
    source: &dyn MetricSource,
    target: &Target,
    span_kind: &str,
    from_ms: i64,
    now_ms: i64,
) -> Result<Gathered<Counts>, SourceError> {
    let mapping = source.mapping();
    let found = find(source, &mapping.count, target, span_kind, from_ms, now_ms).await?;
    let mut gathered = Gathered::<Counts>::of(&found);
    for (at, one) in found.series.iter().enumerate() {
        let is_error = mapping.is_error(&one.labels);
        let births = found.births.of(one, from_ms);
        for (t_ms, total) in float_increases(&one.samples, births) {
            if let Some(whose) = found.whose(at, t_ms) {
                let errors = if is_error { total } else { 0.0 };
                let block = found.grid.block_of(t_ms);
                gathered.add(whose, block, &Counts { total, errors });
            }
        }
    }
    Ok(gathered)
}

/// Durations in seconds of requests of one span kind, by version, in `(from_ms, now_ms]`.
pub(crate) async fn durations(
    source: &dyn MetricSource,
    target: &Target,
    span_kind: &str,
    from_ms: i64,
    now_ms: i64,
) -> Result<Gathered<Histogram>, SourceError> {
    let metric = &source.mapping().duration;
    let unit_s = source.mapping().duration_unit_s;
    let native = find(source, metric, target, span_kind, from_ms, now_ms).await?;
    let is_native = |series: &Series| {
        let mut samples = series.samples.iter();
        samples.any(|sample| matches!(sample.value, Value::Histogram(_)))
    };
    if native.series.iter().any(is_native) {
        return Ok(of_native(&native, unit_s, from_ms));
    }
    let buckets = format!("{metric}_bucket");
    let classic = find(source, &buckets, target, span_kind, from_ms, now_ms).await?;
    Ok(of_classic(&classic, unit_s, from_ms))
}

fn of_native(found: &Found, unit_s: f64, from_ms: i64) -> Gathered<Histogram> {
    let mut gathered = Gathered::of(found);
    let mut explicit = Vec::new();
    for (at, one) in found.series.iter().enumerate() {
        let births = found.births.of(one, from_ms);
        for (t_ms, increase) in histogram_increases(&one.samples, births) {
            let Some(whose) = found.whose(at, t_ms) else {
                continue;
            };
            let block = found.grid.block_of(t_ms);
            if increase.has_custom_bounds() {
                explicit.push(Cumulative::of(whose, block, &increase));
            } else {
                gathered.add(whose, block, &scaled(increase, unit_s));
            }
        }
    }
    let has_exponential = gathered
        .versions
        .values()
        .any(|one| !one.by_block.is_empty());
    match (has_exponential, explicit.is_empty()) {
        (true, false) => gathered.warnings.push(
            "native histograms with explicit bounds are left out: others have exponential ones"
                .to_owned(),
        ),
        _ => add_explicit(&mut gathered, &explicit, unit_s),
    }
    gathered
}
/// An exponential histogram in seconds: a factor moves its buckets, by whole ones at most one
/// bucket too far.
fn scaled(histogram: Histogram, unit_s: f64) -> Histogram {
    if unit_s == 1.0 {
        return histogram;
    }
    let shift = (unit_s.log2() * f64::from(histogram.schema).exp2()).round() as i32;
    let moved = histogram
        .positive
        .iter()
        .map(|(at, count)| (at.saturating_add(shift), count));
    Histogram {
        sum: histogram.sum * unit_s,
        zero_threshold: histogram.zero_threshold * unit_s,
        positive: Buckets::from_sorted(moved.collect()),
        ..histogram
    }
}

/// Series of requests and what is known of them.
struct Found {
    series: Vec<Series>,
    /// To which version each belongs, and when.
    belongs: Vec<Belongs>,
    /// Which instance each is of.
    instances: Vec<Option<Arc<str>>>,
    births: Births,
    grid: Grid,
    warnings: Vec<String>,
}

impl Found {
    /// Whose requests a sample of a series counts; `None` where it is not to be counted.
    fn whose(&self, series: usize, t_ms: i64) -> Option<Whose<'_>> {
        Some(Whose {
            version: self.belongs.get(series)?.at(t_ms)?,
            instance: self.instances.get(series)?.as_deref(),
        })
    }
}

/// The raw samples of a target's requests of one kind in a window.
async fn find(
    source: &dyn MetricSource,
    metric: &str,
    target: &Target,
    span_kind: &str,
    from_ms: i64,
    now_ms: i64,
) -> Result<Found, SourceError> {
    let selector = source.mapping().requests_of(metric, target, span_kind)?;
    let window_ms = (now_ms - from_ms).max(1);
    let expr = format!("{selector}[{window_ms}ms]");
    let (series, mut warnings) = raw(source, &expr, now_ms).await?;
    let (belongs, more) = join::versions(source, target, &series, window_ms, now_ms).await?;
    warnings.extend(more);
    let mapping = source.mapping();
    let instances = series.iter().map(|one| mapping.instance_in(&one.labels));
    Ok(Found {
        births: Births::of_all(&series),
        grid: grid::grid(&series, &belongs),
        instances: instances.collect(),
        series,
        belongs,
        warnings,
    })
}

/// The answer to a top-level range selector.
///
/// # Errors
/// When the source can't answer, or answers with anything but raw samples.
pub(super) async fn raw(
    source: &dyn MetricSource,
    expr: &str,
    now_ms: i64,
) -> Result<(Vec<Series>, Vec<String>), SourceError> {
    let answer = source.query(expr, now_ms).await?;
    match answer.value {
        QueryValue::Matrix(series) => Ok((series, answer.warnings)),
        _ => Err(SourceError::Refused {
            origin: source.name().to_owned(),
            message: format!("{expr} should answer with raw samples and does not"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_of_a_native_histogram_become_seconds() {
        let histogram = Histogram {
            schema: 3,
            count: 1.0,
            positive: Buckets::from_sorted(vec![(
                slogate_series::histogram::bucket_index(3, 250.0),
                1.0,
            )]),
            ..Histogram::default()
        };
        let median = scaled(histogram, 1e-3).quantile(0.5).unwrap();
        assert!((0.22..0.28).contains(&median), "{median}");
    }
}
