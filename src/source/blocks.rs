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

use std::collections::{BTreeMap, HashMap};

use slogate_promql::QueryValue;
use slogate_series::{Buckets, Histogram, Labels, Sample, Series, Value, histogram::CUSTOM_SCHEMA};

use super::join::{self, Belongs};
use super::{MetricSource, SourceError};
use crate::model::Target;

/// The shortest block: two of the default five-second flushes of span metrics.
pub(crate) const BLOCK_MS: i64 = 10_000;

/// The longest block, in milliseconds; a source with rarer samples loses some of them.
const BLOCK_MAX_MS: i64 = 600_000;

/// How long after its end the shortest block is taken as complete; flushes happen at their very
/// time.
const SETTLE_MS: i64 = 1_000;

/// How time is cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// The length of a block, in milliseconds.
    pub(crate) block_ms: i64,
}

impl Default for Grid {
    fn default() -> Self {
        Grid { block_ms: BLOCK_MS }
    }
}

impl Grid {
    /// The grid for samples that come every `interval_ms`.
    fn for_interval(interval_ms: i64) -> Self {
        // Scrapes are a few milliseconds early or late; that makes no block longer.
        let seconds = (interval_ms + 500).div_euclid(1000);
        let blocks = (2 * seconds * 1000 + BLOCK_MS - 1).div_euclid(BLOCK_MS);
        Grid {
            block_ms: (blocks * BLOCK_MS).clamp(BLOCK_MS, BLOCK_MAX_MS),
        }
    }

    /// The block that a sample belongs to: a sample at a block's end closes that block.
    pub(crate) fn block_of(self, t_ms: i64) -> i64 {
        (t_ms - 1).div_euclid(self.block_ms)
    }

    /// The first block that is not complete at `now_ms`. What is scraped and passed on takes
    /// longer to arrive, so longer blocks settle for longer.
    pub(crate) fn end(self, now_ms: i64) -> i64 {
        let settle_ms = match self.block_ms {
            BLOCK_MS => SETTLE_MS,
            longer => longer / 8,
        };
        (now_ms - settle_ms).div_euclid(self.block_ms)
    }
}

/// Requests of one version in one block.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// All requests.
    pub(crate) total: f64,
    /// Failed requests, for example those whose span status is error.
    pub(crate) errors: f64,
}

/// One version's blocks.
#[derive(Clone, Debug)]
pub(crate) struct Blocks<T> {
    /// Only blocks with something in them.
    pub(crate) by_block: BTreeMap<i64, T>,
    /// The newest sample of any of its series, in milliseconds since the epoch.
    pub(crate) newest_ms: i64,
    /// The oldest sample in the window, in milliseconds since the epoch.
    pub(crate) oldest_ms: i64,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Blocks {
            by_block: BTreeMap::new(),
            newest_ms: i64::MIN,
            oldest_ms: i64::MAX,
        }
    }
}

impl<T> Blocks<T> {
    fn saw(&mut self, t_ms: i64) {
        self.oldest_ms = self.oldest_ms.min(t_ms);
        self.newest_ms = self.newest_ms.max(t_ms);
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
    for (one, belongs) in found.series.iter().zip(&found.belongs) {
        let is_error = mapping.is_error(&one.labels);
        let births = found.births.of(one, from_ms);
        for (t_ms, increase) in float_increases(&one.samples, births) {
            let Some(version) = belongs.at(t_ms) else {
                continue;
            };
            let block = found.grid.block_of(t_ms);
            let blocks = &mut gathered.blocks(version).by_block;
            let counts: &mut Counts = blocks.entry(block).or_default();
            counts.total += increase;
            counts.errors += if is_error { increase } else { 0.0 };
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
    for (one, belongs) in found.series.iter().zip(&found.belongs) {
        let births = found.births.of(one, from_ms);
        for (t_ms, increase) in histogram_increases(&one.samples, births) {
            let Some(version) = belongs.at(t_ms) else {
                continue;
            };
            let block = found.grid.block_of(t_ms);
            if increase.has_custom_bounds() {
                explicit.push(Cumulative::of(version, block, &increase));
            } else {
                add(&mut gathered, version, block, scaled(increase, unit_s));
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

fn of_classic(found: &Found, unit_s: f64, from_ms: i64) -> Gathered<Histogram> {
    let mut gathered = Gathered::of(found);
    // The buckets of one histogram are the series that differ in `le` alone.
    let mut groups: HashMap<Labels, Vec<(f64, usize)>> = HashMap::new();
    for (at, one) in found.series.iter().enumerate() {
        let bound = one.labels.get("le").and_then(bound);
        if let Some(bound) = bound {
            let group = groups.entry(one.labels.without(&["le"])).or_default();
            group.push((bound, at));
        }
    }
    let mut explicit = Vec::new();
    for (_, mut group) in groups {
        group.sort_by(|a, b| a.0.total_cmp(&b.0));
        group.dedup_by(|a, b| a.0 == b.0);
        let bounds: Vec<f64> = group.iter().map(|(bound, _)| *bound).collect();
        if bounds.last() != Some(&f64::INFINITY) {
            continue;
        }
        let mut by_block: BTreeMap<(&str, i64), Vec<f64>> = BTreeMap::new();
        for (nth, (_, at)) in group.iter().enumerate() {
            let (Some(one), Some(belongs)) = (found.series.get(*at), found.belongs.get(*at)) else {
                continue;
            };
            for (t_ms, increase) in float_increases(&one.samples, found.births.of(one, from_ms)) {
                let Some(version) = belongs.at(t_ms) else {
                    continue;
                };
                let key = (version, found.grid.block_of(t_ms));
                let counts = by_block
                    .entry(key)
                    .or_insert_with(|| vec![0.0; bounds.len()]);
                if let Some(count) = counts.get_mut(nth) {
                    *count += increase;
                }
            }
        }
        explicit.extend(
            by_block
                .into_iter()
                .map(|((version, block), counts)| Cumulative {
                    version: version.to_owned(),
                    block,
                    counts: bounds.iter().copied().zip(counts).collect(),
                }),
        );
    }
    add_explicit(&mut gathered, &explicit, unit_s);
    gathered
}

fn bound(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" | "inf" => Some(f64::INFINITY),
        text => text.parse().ok().filter(|bound: &f64| !bound.is_nan()),
    }
}

/// What one histogram with explicit bounds brings to a block: how many were at most each bound,
/// which ends with infinity.
struct Cumulative {
    version: String,
    block: i64,
    counts: Vec<(f64, f64)>,
}

impl Cumulative {
    fn of(version: &str, block: i64, histogram: &Histogram) -> Self {
        let mut total = 0.0;
        let ends = histogram
            .custom_bounds
            .iter()
            .copied()
            .chain([f64::INFINITY]);
        let counts = (0..).zip(ends).map(|(at, end)| {
            total += histogram.positive.get(at);
            (end, total)
        });
        Cumulative {
            version: version.to_owned(),
            block,
            counts: counts.collect(),
        }
    }

    fn at(&self, bound: f64) -> f64 {
        let found = self
            .counts
            .binary_search_by(|(end, _)| end.total_cmp(&bound));
        let found = found.ok().and_then(|at| self.counts.get(at));
        found.map_or(0.0, |(_, count)| *count)
    }
}

/// Brings all to the bounds that they share, and adds them up.
fn add_explicit(gathered: &mut Gathered<Histogram>, all: &[Cumulative], unit_s: f64) {
    let Some(first) = all.first() else {
        return;
    };
    let mut shared: Vec<f64> = first.counts.iter().map(|(bound, _)| *bound).collect();
    let mut is_unlike = false;
    for one in all {
        let has = |bound: &f64| {
            one.counts
                .binary_search_by(|(end, _)| end.total_cmp(bound))
                .is_ok()
        };
        is_unlike |= one.counts.len() != shared.len();
        shared.retain(has);
        is_unlike |= one.counts.len() != shared.len();
    }
    shared.pop();
    if is_unlike {
        gathered.warnings.push(format!(
            "histograms have unlike buckets and are compared at the {} bounds they share",
            shared.len()
        ));
    }
    if shared.is_empty() {
        return;
    }
    let bounds: std::sync::Arc<[f64]> = shared.iter().map(|bound| bound * unit_s).collect();
    for one in all {
        let mut before = 0.0;
        let mut entries = Vec::new();
        for (at, bound) in (0..).zip(shared.iter().chain([&f64::INFINITY])) {
            // Scrapes are not atomic in every client: a bucket may be behind the one below it.
            let upto = one.at(*bound).max(before);
            if upto > before {
                entries.push((at, upto - before));
            }
            before = upto;
        }
        let histogram = Histogram {
            schema: CUSTOM_SCHEMA,
            count: before,
            custom_bounds: bounds.clone(),
            positive: Buckets::from_sorted(entries),
            ..Histogram::default()
        };
        if before > 0.0 {
            add(gathered, &one.version, one.block, histogram);
        }
    }
}

fn add(gathered: &mut Gathered<Histogram>, version: &str, block: i64, increase: Histogram) {
    let blocks = &mut gathered.blocks(version).by_block;
    let sum = match blocks.get(&block) {
        Some(before) => before.add(&increase),
        None => increase,
    };
    blocks.insert(block, sum);
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
    births: Births,
    grid: Grid,
    warnings: Vec<String>,
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
    Ok(Found {
        births: Births::of_all(&series),
        grid: grid(&series, &belongs),
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

/// Samples of a version come as often as those of its busiest series; blocks have to suit the
/// version whose samples are the rarest.
fn grid(series: &[Series], belongs: &[Belongs]) -> Grid {
    let mut by_version: HashMap<&str, i64> = HashMap::new();
    for (one, belongs) in series.iter().zip(belongs) {
        let mut gaps: Vec<i64> = one
            .samples
            .windows(2)
            .filter_map(|pair| Some(pair.last()?.t_ms - pair.first()?.t_ms))
            .collect();
        gaps.sort_unstable();
        let (Some(typical), Some(last)) = (gaps.get(gaps.len() / 2), one.samples.last()) else {
            continue;
        };
        if let Some(version) = belongs.at(last.t_ms) {
            let shortest = by_version.entry(version).or_insert(*typical);
            *shortest = (*shortest).min(*typical);
        }
    }
    by_version
        .values()
        .max()
        .map_or(Grid::default(), |gap| Grid::for_interval(*gap))
}

/// When each process was first sampled.
struct Births(HashMap<Labels, i64>);

/// What makes a process, in the order of the labels' names.
const PROCESS: [&str; 3] = ["instance", "job", "pod"];

impl Births {
    fn of_all(series: &[Series]) -> Self {
        let mut first_ms = HashMap::new();
        for one in series {
            if let (Some(process), Some(first)) = (process_of(&one.labels), one.samples.first()) {
                let known = first_ms.entry(process).or_insert(first.t_ms);
                *known = first.t_ms.min(*known);
            }
        }
        Births(first_ms)
    }

    /// From when on a first sample of the series counts whole.
    fn of(&self, series: &Series, window_start_ms: i64) -> Born {
        let process = process_of(&series.labels).and_then(|process| self.0.get(&process));
        Born {
            window_start_ms,
            sampled_since_ms: process.copied(),
        }
    }
}

fn process_of(labels: &Labels) -> Option<Labels> {
    let is_known = labels.get("instance").is_some() || labels.get("pod").is_some();
    is_known.then(|| labels.keep(&PROCESS))
}

/// What is known of a series' beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Born {
    window_start_ms: i64,
    /// When its process was first sampled.
    sampled_since_ms: Option<i64>,
}

impl Born {
    /// Whether a series' first sample in the window counts whole: its count began in the window.
    fn inside(self, sample: &Sample) -> bool {
        match sample.start_ms {
            0 => self
                .sampled_since_ms
                .is_some_and(|since_ms| since_ms < sample.t_ms),
            start_ms => start_ms >= self.window_start_ms,
        }
    }
}

/// The increase that each float sample brings, with its time. Stale markers bring nothing.
fn float_increases(samples: &[Sample], born: Born) -> impl Iterator<Item = (i64, f64)> + '_ {
    let mut before: Option<f64> = None;
    samples.iter().filter_map(move |sample| {
        let Value::Float(value) = sample.value else {
            return None;
        };
        if !value.is_finite() {
            return None;
        }
        let increase = match before {
            Some(before) if value >= before => value - before,
            Some(_) => value,
            None if born.inside(sample) => value,
            None => 0.0,
        };
        before = Some(value);
        (increase > 0.0).then_some((sample.t_ms, increase))
    })
}

/// How much a counter grew over its samples in a window.
pub(crate) fn increase(samples: &[Sample], window_start_ms: i64) -> f64 {
    let born = Born {
        window_start_ms,
        sampled_since_ms: None,
    };
    float_increases(samples, born)
        .map(|(_, increase)| increase)
        .sum()
}

/// The increase that each histogram sample brings, with its time.
fn histogram_increases(
    samples: &[Sample],
    born: Born,
) -> impl Iterator<Item = (i64, Histogram)> + '_ {
    let mut before: Option<&Histogram> = None;
    samples.iter().filter_map(move |sample| {
        let Value::Histogram(histogram) = &sample.value else {
            return None;
        };
        if sample.value.is_stale() {
            return None;
        }
        let increase = match before {
            Some(before) if histogram.is_reset_after(before) => Some((**histogram).clone()),
            Some(before) => Some(histogram.sub(before)),
            None if born.inside(sample) => Some((**histogram).clone()),
            None => None,
        };
        before = Some(histogram);
        increase
            .filter(|increase| increase.count > 0.0)
            .map(|i| (sample.t_ms, i.compact()))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use slogate_series::{Buckets, stale_nan};

    use super::*;

    fn at(t_ms: i64, start_ms: i64, value: f64) -> Sample {
        Sample {
            t_ms,
            start_ms,
            value: Value::Float(value),
        }
    }

    fn since(window_start_ms: i64) -> Born {
        Born {
            window_start_ms,
            sampled_since_ms: None,
        }
    }

    #[test]
    fn a_first_sample_counts_only_if_the_series_began_in_the_window() {
        let old = [at(1_000, 500, 40.0), at(2_000, 500, 45.0)];
        assert_eq!(
            float_increases(&old, since(900)).collect::<Vec<_>>(),
            [(2_000, 5.0)]
        );
        let born = [at(1_000, 950, 3.0), at(2_000, 950, 4.0)];
        let increases: Vec<_> = float_increases(&born, since(900)).collect();
        assert_eq!(increases, [(1_000, 3.0), (2_000, 1.0)]);
        let unknown = [at(1_000, 0, 3.0)];
        assert_eq!(float_increases(&unknown, since(900)).count(), 0);
    }

    #[test]
    fn resets_count_from_zero_and_stale_markers_count_nothing() {
        let samples = [
            at(1, 0, 10.0),
            at(2, 0, 12.0),
            at(3, 0, stale_nan()),
            at(4, 3, 5.0),
        ];
        assert_eq!(
            float_increases(&samples, since(0)).collect::<Vec<_>>(),
            [(2, 2.0), (4, 5.0)]
        );
    }

    #[test]
    fn histogram_resets_count_whole() {
        let sample = |t_ms, counts: [f64; 2]| Sample {
            t_ms,
            start_ms: 0,
            value: Value::Histogram(Arc::new(Histogram {
                schema: 4,
                count: counts.iter().sum(),
                positive: Buckets::from_dense(0, counts),
                ..Histogram::default()
            })),
        };
        let samples = [
            sample(1, [5.0, 5.0]),
            sample(2, [6.0, 8.0]),
            sample(3, [1.0, 0.0]),
        ];
        let increases: Vec<_> = histogram_increases(&samples, since(0)).collect();
        assert_eq!(increases.len(), 2);
        assert_eq!(increases[0].1.positive.as_slice(), [(0, 1.0), (1, 3.0)]);
        assert_eq!(increases[1].1.positive.as_slice(), [(0, 1.0)]);
    }

    /// The first failure of a pod makes a new series; without its first sample it would be lost.
    #[test]
    fn a_series_that_is_new_to_a_sampled_process_counts_whole() {
        let series = |code: &str, instance: &str, samples: &[(i64, f64)]| Series {
            labels: Labels::from_pairs([("code", code), ("instance", instance), ("job", "a")]),
            samples: samples
                .iter()
                .map(|(t_ms, value)| at(*t_ms, 0, *value))
                .collect(),
        };
        let all = [
            series("200", "one", &[(1_000, 500.0), (16_000, 520.0)]),
            series("500", "one", &[(16_000, 3.0)]),
            // Nothing is known of this process: its counters may be old.
            series("500", "two", &[(16_000, 900.0)]),
        ];
        let births = Births::of_all(&all);
        let grown = |one: &Series| -> f64 {
            float_increases(&one.samples, births.of(one, 0))
                .map(|(_, n)| n)
                .sum()
        };
        assert_eq!(all.each_ref().map(grown), [20.0, 3.0, 0.0]);
    }

    #[test]
    fn a_sample_at_a_block_end_closes_that_block() {
        let grid = Grid::default();
        assert_eq!(grid.block_of(BLOCK_MS), 0);
        assert_eq!(grid.block_of(BLOCK_MS + 1), 1);
        assert_eq!(grid.end(3 * BLOCK_MS + SETTLE_MS), 3);
        assert_eq!(grid.end(3 * BLOCK_MS + SETTLE_MS - 1), 2);
    }

    #[test]
    fn blocks_are_two_intervals_long() {
        let cases = [
            (1_000, 10),
            (5_004, 10),
            (15_000, 30),
            (29_998, 60),
            (60_020, 120),
        ];
        for (interval_ms, seconds) in cases {
            let grid = Grid::for_interval(interval_ms);
            assert_eq!(grid.block_ms, seconds * 1000, "{interval_ms}");
        }
        assert_eq!(Grid::for_interval(i64::MAX / 4).block_ms, BLOCK_MAX_MS);
    }

    fn explicit(version: &str, block: i64, counts: &[(f64, f64)]) -> Cumulative {
        Cumulative {
            version: version.to_owned(),
            block,
            counts: counts.to_vec(),
        }
    }

    #[test]
    fn unlike_buckets_are_compared_where_they_agree() {
        const INF: f64 = f64::INFINITY;
        let mut gathered = Gathered {
            grid: Grid::default(),
            versions: BTreeMap::new(),
            warnings: Vec::new(),
        };
        let all = [
            explicit(
                "1",
                0,
                &[(100.0, 4.0), (250.0, 6.0), (500.0, 9.0), (INF, 10.0)],
            ),
            explicit(
                "2",
                0,
                &[(50.0, 1.0), (100.0, 3.0), (500.0, 2.0), (INF, 5.0)],
            ),
        ];
        add_explicit(&mut gathered, &all, 1e-3);
        let one = &gathered.versions["1"].by_block[&0];
        assert_eq!(&*one.custom_bounds, [0.1, 0.5]);
        assert_eq!(one.positive.as_slice(), [(0, 4.0), (1, 5.0), (2, 1.0)]);
        let two = &gathered.versions["2"].by_block[&0];
        assert_eq!(
            (two.count, two.positive.as_slice()),
            (5.0, &[(0, 3.0), (2, 2.0)][..])
        );
        assert_eq!(gathered.warnings.len(), 1);
    }

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
