//! A recording's requests in one form, whatever the recording calls them.
//!
//! They are written as `recorded_requests_total` and `recorded_request_duration_seconds` with the
//! labels that slogate gives its own request series (service, version, environment, kind, status),
//! beside the recording's own series, and [`mapping`] tells the judge so. Policies may ask for the
//! recording's own series by their own names; where these lack slogate's labels for service,
//! version and environment, they get them ([`tagged`]), so that `service_version="$version"` works.
//!
//! - **A label keeps its own value** under its own name, unless it is one of those above; then it
//!   is kept as `recorded_…`.
//! - **A series that begins later than its neighbours began at zero**: the first failure of a
//!   version would be lost otherwise. It gets a sample of zero at its neighbours' last time before
//!   it. Neighbours are the series of the same version and instance.
//! - **A total of which some failed** becomes two series, those that failed and all others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use slogate_series::{Buckets, Histogram, Labels, Sample, Series, Value};

use super::arms::Belongs;
use super::reading::{Durations, Failures, Form, Reading, Requests, Values, is_failed};
use super::recording::{Recording, with};
use super::words::{CALLER_VERSION_LABELS, INSTANCE_LABELS};
use crate::config::MappingSettings;
use crate::source::Mapping;

const CALLS: &str = "recorded_requests_total";
const DURATION: &str = "recorded_request_duration_seconds";
/// Values that are compared as they are; the label says what they measure.
pub(crate) const VALUE: &str = "recorded_value";

const ERROR: &str = "STATUS_CODE_ERROR";
const UNSET: &str = "STATUS_CODE_UNSET";

/// The time between samples where there is only one, in milliseconds.
const STEP_MS: i64 = 60_000;

/// A running total: when, since when, how much.
type Point = (i64, i64, f64);

/// How the judge finds the series that are made here.
pub(crate) fn mapping() -> Mapping {
    let settings = MappingSettings {
        count: Some(CALLS.to_owned()),
        duration: Some(DURATION.to_owned()),
        ..MappingSettings::default()
    };
    // A test holds that these settings have no mistake.
    Mapping::new(&settings).unwrap_or_else(|_| Mapping::otel().clone())
}

/// A series of the recording with slogate's labels where it has none of its own.
pub(crate) fn tagged(series: &Series, reading: &Reading) -> Labels {
    let labels = &series.labels;
    let version = match reading.arms.of(labels) {
        Belongs::To(version) => version,
        _ => return labels.clone(),
    };
    let target = &reading.target;
    let own = [
        ("service_name", target.service.as_str()),
        ("service_version", version),
        ("deployment_environment_name", target.environment.as_str()),
    ];
    let missing = own.iter().filter(|(name, _)| labels.get(name).is_none());
    with(labels, &missing.copied().collect::<Vec<_>>())
}

/// The series that the judge asks for.
pub(crate) fn series(recording: &Recording, reading: &Reading) -> Vec<Series> {
    let mut made = Made {
        reading,
        series: Vec::new(),
    };
    for requests in &reading.requests {
        made.requests(recording, requests);
    }
    for durations in &reading.durations {
        made.durations(recording, durations);
    }
    begin_at_zero(&mut made.series);
    for values in &reading.values {
        made.values(recording, values);
    }
    let mut series = made.series;
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series.dedup_by(|a, b| a.labels == b.labels);
    series
}

struct Made<'a> {
    reading: &'a Reading,
    series: Vec<Series>,
}

impl Made<'_> {
    fn requests(&mut self, recording: &Recording, requests: &Requests) {
        let places = |places: &[usize]| -> Vec<&Series> {
            places
                .iter()
                .filter_map(|at| recording.series.get(*at))
                .collect()
        };
        let totals = places(&requests.series);
        let kind = requests.kind;
        match &requests.failures {
            Failures::Labels | Failures::Unknown => {
                for one in totals {
                    let points = running(one, requests.form);
                    let is_failed = requests.failures == Failures::Labels && is_failed(&one.labels);
                    let status = if is_failed { ERROR } else { UNSET };
                    self.put(&one.labels, kind, status, points);
                }
            }
            Failures::Counter { series, beside } => {
                let failing = places(series);
                let matched = Matched::new(&totals, &failing);
                for (at, one) in totals.iter().enumerate() {
                    let points = running(one, requests.form);
                    let own: Vec<Vec<Point>> =
                        matched.of(at).map(|f| running(f, requests.form)).collect();
                    let bad: Vec<Point> = points
                        .iter()
                        .map(|p| (p.0, p.1, sum_at(&own, p.0)))
                        .collect();
                    let good: Vec<Point> = match beside {
                        true => points,
                        false => without(&points, &bad),
                    };
                    self.put(&one.labels, kind, UNSET, good);
                    self.put(&one.labels, kind, ERROR, bad);
                }
            }
            Failures::Share {
                series,
                scale,
                of_good,
            } => {
                let shares = places(series);
                let matched = Matched::new(&totals, &shares);
                for (at, one) in totals.iter().enumerate() {
                    let points = running(one, requests.form);
                    let share = matched.of(at).next();
                    let share_at = |t_ms: i64| {
                        let value = share.and_then(|share| value_at(share, t_ms));
                        let share = value.map(|value| (value * scale).clamp(0.0, 1.0));
                        share.map_or(0.0, |share| if *of_good { 1.0 - share } else { share })
                    };
                    let bad = shared(&points, share_at);
                    self.put(&one.labels, kind, UNSET, without(&points, &bad));
                    self.put(&one.labels, kind, ERROR, bad);
                }
            }
        }
    }

    fn durations(&mut self, recording: &Recording, durations: &Durations) {
        let unit_s = durations.unit_s;
        for one in durations
            .series
            .iter()
            .filter_map(|at| recording.series.get(*at))
        {
            let status = if is_failed(&one.labels) { ERROR } else { UNSET };
            let (name, le) = match one.labels.get("le") {
                Some(le) => (format!("{DURATION}_bucket"), Some(scaled_bound(le, unit_s))),
                None => (DURATION.to_owned(), None),
            };
            let samples: Vec<Sample> = match le {
                Some(_) => one.samples.clone(),
                None => one.samples.iter().map(|s| scaled(s, unit_s)).collect(),
            };
            let mut labels = self.labels(&one.labels, &name, durations.kind, status);
            if let Some(le) = &le {
                labels = with(&labels, &[("le", le)]);
            }
            self.split(&one.labels, &labels, samples);
        }
    }

    fn values(&mut self, recording: &Recording, values: &Values) {
        for one in values
            .series
            .iter()
            .filter_map(|at| recording.series.get(*at))
        {
            let scaled = one.samples.iter().filter_map(|sample| match sample.value {
                Value::Float(value) if value.is_finite() => Some(Sample {
                    value: Value::Float(value * values.scale),
                    ..sample.clone()
                }),
                _ => None,
            });
            let labels = self.labels(&one.labels, VALUE, values.kind, "");
            self.split(&one.labels, &labels, scaled.collect());
        }
    }

    fn put(&mut self, own: &Labels, kind: &str, status: &str, points: Vec<Point>) {
        let labels = self.labels(own, CALLS, kind, status);
        let samples = points.into_iter().map(|(t_ms, start_ms, value)| Sample {
            t_ms,
            start_ms,
            value: Value::Float(value),
        });
        self.split(own, &labels, samples.collect());
    }

    fn labels(&self, own: &Labels, name: &str, kind: &str, status: &str) -> Labels {
        let target = &self.reading.target;
        let instance = INSTANCE_LABELS.iter().find_map(|label| own.get(label));
        let canonical = [
            ("service_name", target.service.as_str()),
            ("deployment_environment_name", target.environment.as_str()),
            ("service_version", ""),
            ("span_kind", kind),
            ("status_code", status),
            ("service_instance_id", instance.unwrap_or_default()),
        ];
        let mut builder = own.to_builder();
        for (label, value) in canonical {
            if let Some(recorded) = own.get(label).filter(|recorded| *recorded != value) {
                builder.set(format!("recorded_{label}"), recorded);
            }
            builder.set(label, value);
        }
        if own.get("instance").is_none()
            && let Some(instance) = instance
        {
            builder.set("instance", instance);
        }
        builder.set("recorded_metric", own.metric_name().unwrap_or_default());
        builder.set("__name__", name);
        builder.build()
    }

    /// Writes a series for each version that it belongs to.
    fn split(&mut self, own: &Labels, labels: &Labels, samples: Vec<Sample>) {
        let arms = &self.reading.arms;
        let mut put = |version: &str, samples: Vec<Sample>| {
            self.series.push(Series {
                labels: with(labels, &[("service_version", version)]),
                samples,
            });
        };
        // Who asks may say its version by a label of its own.
        let caller = CALLER_VERSION_LABELS
            .iter()
            .find_map(|label| own.get(label));
        match (arms.of(own), caller) {
            (Belongs::To(version), _) => put(version, samples),
            (Belongs::Nowhere, Some(version)) => put(version, samples),
            (Belongs::Nowhere, None) => put("", samples),
            (Belongs::Split(start_ms), _) => {
                let at = samples.partition_point(|sample| sample.t_ms <= start_ms);
                let (before, _) = samples.split_at(at);
                // The last sample before is what the first one after counts from.
                let (_, after) = samples.split_at(at.saturating_sub(1));
                put(
                    arms.baseline.as_deref().unwrap_or_default(),
                    before.to_vec(),
                );
                put(&arms.candidate, after.to_vec());
            }
        }
    }
}

/// Which of `others` belong to each of `totals`: those that have the same values in all labels
/// that both have; where a total has none so, those of the same instance and version labels are
/// not guessed at.
struct Matched<'s> {
    by_total: Vec<Vec<&'s Series>>,
}

impl<'s> Matched<'s> {
    fn new(totals: &[&'s Series], others: &[&'s Series]) -> Self {
        let names = |series: &[&Series]| -> BTreeSet<String> {
            let labels = series.iter().flat_map(|one| one.labels.iter());
            labels.map(|label| label.name.to_string()).collect()
        };
        let (mine, theirs) = (names(totals), names(others));
        let shared: Vec<&str> = mine
            .intersection(&theirs)
            .map(String::as_str)
            .filter(|name| *name != "__name__")
            .collect();
        let mut by_key: HashMap<Labels, Vec<&Series>> = HashMap::new();
        for other in others {
            by_key
                .entry(other.labels.keep(&shared))
                .or_default()
                .push(other);
        }
        // Of totals that look the same in the shared labels only the first takes the others.
        let mut taken = BTreeSet::new();
        let by_total = totals.iter().map(|total| {
            let key = total.labels.keep(&shared);
            let found = by_key.get(&key).cloned().unwrap_or_default();
            match taken.insert(key) {
                true => found,
                false => Vec::new(),
            }
        });
        Matched {
            by_total: by_total.collect(),
        }
    }

    fn of(&self, at: usize) -> impl Iterator<Item = &'s Series> + '_ {
        self.by_total.get(at).into_iter().flatten().copied()
    }
}

/// A series as a running total.
fn running(series: &Series, form: Form) -> Vec<Point> {
    let samples = series.samples.iter().filter_map(|sample| {
        let value = match &sample.value {
            Value::Float(value) => *value,
            Value::Histogram(histogram) => histogram.count,
        };
        value
            .is_finite()
            .then_some((sample.t_ms, sample.start_ms, value))
    });
    match form {
        Form::Total => samples.collect(),
        Form::Each => {
            let mut total = 0.0;
            let start_ms = first_ms(series) - 1;
            let points = samples.map(|(t_ms, _, value)| {
                total += value.max(0.0);
                (t_ms, start_ms, total)
            });
            points.collect()
        }
        Form::Rate { per_s } => {
            let step_ms = step_ms(series);
            let start_ms = first_ms(series) - step_ms;
            let (mut total, mut before) = (0.0, start_ms);
            let points = samples.map(|(t_ms, _, value)| {
                // A gap in the samples is no traffic at the rate of its end.
                let gap_s = (t_ms - before).clamp(0, step_ms * 3 / 2) as f64 / 1000.0;
                total += value.max(0.0) * gap_s / per_s;
                before = t_ms;
                (t_ms, start_ms, total)
            });
            points.collect()
        }
    }
}

fn first_ms(series: &Series) -> i64 {
    series.samples.first().map_or(0, |sample| sample.t_ms)
}

/// The usual time between a series' samples.
pub(crate) fn step_ms(series: &Series) -> i64 {
    usual_gap_ms(series.samples.iter().map(|sample| sample.t_ms))
}

/// The median of the gaps between ascending times.
pub(crate) fn usual_gap_ms(times: impl Iterator<Item = i64>) -> i64 {
    let (mut gaps, mut before) = (Vec::new(), None);
    for t_ms in times {
        gaps.extend(before.map(|before| t_ms - before));
        before = Some(t_ms);
    }
    gaps.sort_unstable();
    gaps.get(gaps.len() / 2).copied().unwrap_or(STEP_MS)
}

fn value_at(series: &Series, t_ms: i64) -> Option<f64> {
    let after = series.samples.partition_point(|sample| sample.t_ms <= t_ms);
    match series.samples.get(after.checked_sub(1)?)?.value {
        Value::Float(value) if value.is_finite() => Some(value),
        _ => None,
    }
}

fn sum_at(all: &[Vec<Point>], t_ms: i64) -> f64 {
    let last = |points: &Vec<Point>| {
        let after = points.partition_point(|point| point.0 <= t_ms);
        after
            .checked_sub(1)
            .and_then(|at| points.get(at))
            .map_or(0.0, |point| point.2)
    };
    all.iter().map(last).sum()
}

/// What of the growth of `points` has the share that `share_at` says.
fn shared(points: &[Point], share_at: impl Fn(i64) -> f64) -> Vec<Point> {
    let (mut total, mut before) = (0.0, None);
    let parts = points.iter().map(|(t_ms, start_ms, value)| {
        let grown = match before {
            Some(before) if *value >= before => value - before,
            None if *start_ms == 0 => 0.0,
            _ => *value,
        };
        before = Some(*value);
        total += grown * share_at(*t_ms);
        (*t_ms, *start_ms, total)
    });
    parts.collect()
}

/// All that are not `bad`, growing as long as all do.
fn without(points: &[Point], bad: &[Point]) -> Vec<Point> {
    let mut floor = 0.0_f64;
    let mut before = 0.0;
    let pairs = points.iter().zip(bad).map(|(all, bad)| {
        if all.2 < before {
            floor = 0.0;
        }
        before = all.2;
        floor = floor.max(all.2 - bad.2);
        (all.0, all.1, floor)
    });
    pairs.collect()
}

fn scaled_bound(le: &str, unit_s: f64) -> String {
    match le.parse::<f64>() {
        Ok(bound) if bound.is_finite() && unit_s != 1.0 => {
            // Without the digits that binary fractions leave behind.
            let rounded = format!("{:.9}", bound * unit_s);
            rounded
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
        }
        Ok(bound) if bound.is_infinite() => "+Inf".to_owned(),
        _ => le.to_owned(),
    }
}

fn scaled(sample: &Sample, unit_s: f64) -> Sample {
    let Value::Histogram(histogram) = &sample.value else {
        return sample.clone();
    };
    if unit_s == 1.0 {
        return sample.clone();
    }
    let mut histogram: Histogram = histogram.as_ref().clone();
    histogram.sum *= unit_s;
    histogram.zero_threshold *= unit_s;
    if histogram.has_custom_bounds() {
        histogram.custom_bounds = histogram.custom_bounds.iter().map(|b| b * unit_s).collect();
    } else {
        let shift = (unit_s.log2() * f64::from(histogram.schema).exp2()).round() as i32;
        let moved = |buckets: &Buckets| {
            let entries = buckets
                .iter()
                .map(|(at, count)| (at.saturating_add(shift), count));
            Buckets::from_sorted(entries.collect())
        };
        histogram.positive = moved(&histogram.positive);
        histogram.negative = moved(&histogram.negative);
    }
    Sample {
        value: Value::Histogram(Arc::new(histogram)),
        ..sample.clone()
    }
}

/// Gives what begins later than its neighbours a zero to count from.
fn begin_at_zero(series: &mut [Series]) {
    let key =
        |labels: &Labels| labels.keep(&["service_instance_id", "service_version", "span_kind"]);
    let mut times: BTreeMap<Labels, Vec<i64>> = BTreeMap::new();
    for one in series.iter() {
        let known = times.entry(key(&one.labels)).or_default();
        // The longest of them knows the times well enough.
        if one.samples.len() > known.len()
            || first_ms(one) < known.first().copied().unwrap_or(i64::MAX)
        {
            let mut all: Vec<i64> = one.samples.iter().map(|sample| sample.t_ms).collect();
            all.append(known);
            all.sort_unstable();
            all.dedup();
            *known = all;
        }
    }
    for one in series.iter_mut() {
        let Some(first) = one.samples.first().filter(|sample| sample.start_ms == 0) else {
            continue;
        };
        if !matches!(first.value, Value::Float(_)) {
            continue;
        }
        let t_ms = first.t_ms;
        let known = times.get(&key(&one.labels));
        let before = known.and_then(|known| known.iter().rev().find(|known| **known < t_ms));
        if let Some(before) = before {
            one.samples.insert(
                0,
                Sample {
                    t_ms: *before,
                    start_ms: 0,
                    value: Value::Float(0.0),
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Series {
        let samples = samples.iter().map(|(t_ms, value)| Sample {
            t_ms: *t_ms,
            start_ms: 0,
            value: Value::Float(*value),
        });
        Series {
            labels: Labels::from_pairs(labels.iter().copied()),
            samples: samples.collect(),
        }
    }

    fn values(points: &[Point]) -> Vec<f64> {
        points.iter().map(|point| point.2).collect()
    }

    #[test]
    fn the_judge_is_told_where_the_requests_are() {
        let mapping = mapping();
        assert_eq!(mapping.count, CALLS);
        assert_eq!(mapping.duration, DURATION);
    }

    #[test]
    fn rates_and_shares_become_totals() {
        let rate = series(
            &[],
            &[(15_000, 2.0), (30_000, 4.0), (45_000, 4.0), (300_000, 4.0)],
        );
        let total = running(&rate, Form::Rate { per_s: 1.0 });
        // A gap counts at most one and a half of the usual steps.
        assert_eq!(values(&total), [30.0, 90.0, 150.0, 240.0]);
        let bad = shared(&total, |t_ms| if t_ms > 15_000 { 0.5 } else { 0.0 });
        assert_eq!(values(&bad), [0.0, 30.0, 60.0, 105.0]);
        assert_eq!(values(&without(&total, &bad)), [30.0, 60.0, 90.0, 135.0]);
        let each = series(&[], &[(1, 3.0), (2, 5.0), (3, 1.0)]);
        assert_eq!(values(&running(&each, Form::Each)), [3.0, 8.0, 9.0]);
    }

    #[test]
    fn a_reset_of_both_totals_is_one_of_their_difference() {
        let all = [(1, 0, 10.0), (2, 0, 20.0), (3, 0, 5.0)];
        let bad = [(1, 0, 1.0), (2, 0, 2.0), (3, 0, 0.0)];
        assert_eq!(values(&without(&all, &bad)), [9.0, 18.0, 5.0]);
    }

    #[test]
    fn the_first_failure_of_a_version_counts() {
        let labels = |status| [("service_version", "2"), ("status_code", status)];
        let mut all = [
            series(&labels(UNSET), &[(1_000, 5.0), (2_000, 9.0), (3_000, 12.0)]),
            series(&labels(ERROR), &[(3_000, 4.0)]),
        ];
        begin_at_zero(&mut all);
        assert_eq!(all[0].samples.len(), 3);
        let zero = &all[1].samples[0];
        assert_eq!((zero.t_ms, zero.value.clone()), (2_000, Value::Float(0.0)));
    }

    #[test]
    fn failures_are_found_by_the_labels_that_both_have() {
        let totals = [
            series(&[("v", "1"), ("pod", "a")], &[]),
            series(&[("v", "2"), ("pod", "b")], &[]),
        ];
        let failing = [
            series(&[("v", "2"), ("pod", "b"), ("why", "x")], &[]),
            series(&[("v", "2"), ("pod", "b"), ("why", "y")], &[]),
        ];
        let matched = Matched::new(
            &totals.iter().collect::<Vec<_>>(),
            &failing.iter().collect::<Vec<_>>(),
        );
        assert_eq!(matched.of(0).count(), 0);
        assert_eq!(matched.of(1).count(), 2);
    }

    #[test]
    fn bounds_are_written_in_seconds() {
        assert_eq!(scaled_bound("250", 1e-3), "0.25");
        assert_eq!(scaled_bound("+Inf", 1e-3), "+Inf");
        assert_eq!(scaled_bound("0.1", 1.0), "0.1");
    }
}
