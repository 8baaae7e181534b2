//! The store that the scripts load into.
//!
//! It behaves like Prometheus's where that shows: a histogram that follows on its predecessor
//! in a chunk is known not to be a reset, and the first one of a chunk is not known to be
//! anything, whatever hint it was loaded with. A chunk ends at a reset, at a change of type or
//! layout, and after a staleness marker.

use std::collections::BTreeMap;
use std::sync::Arc;

use slogate_series::{Buckets, Histogram, Labels, ResetHint, Sample, Series, Value, is_stale};

/// Chunks end at multiples of this.
const CHUNK_RANGE_MS: i64 = 24 * 3_600_000;

/// Adds `series` to what is stored; of two samples at one time the earlier loaded stays.
pub(crate) fn load(store: &mut Vec<Series>, series: Vec<Series>, with_nhcb: bool) {
    let native = if with_nhcb {
        classic_to_native(&series)
    } else {
        Vec::new()
    };
    for series in series.into_iter().chain(native) {
        append(store, series);
    }
}

fn append(store: &mut Vec<Series>, series: Series) {
    let at = store
        .iter()
        .position(|earlier| earlier.labels == series.labels);
    let mut samples = at.map(|at| store.remove(at).samples).unwrap_or_default();
    let mut by_time: BTreeMap<i64, Sample> = samples.drain(..).map(|s| (s.t_ms, s)).collect();
    for sample in series.samples {
        by_time.entry(sample.t_ms).or_insert(sample);
    }
    let mut samples: Vec<Sample> = by_time.into_values().collect();
    set_hints(&mut samples);
    store.push(Series {
        labels: series.labels,
        samples,
    });
}

/// The newest histogram of an open chunk and when the chunk ends at the latest.
struct Chunk {
    last: Arc<Histogram>,
    end_ms: i64,
}

fn set_hints(samples: &mut [Sample]) {
    let mut chunk: Option<Chunk> = None;
    for sample in samples {
        let Value::Histogram(h) = &sample.value else {
            // A staleness marker takes the type of the series it ends.
            if !sample.value.is_stale() {
                chunk = None;
            } else if let Some(chunk) = &mut chunk {
                chunk.last = Histogram::stale().into();
            }
            continue;
        };
        let continues = chunk
            .as_ref()
            .is_some_and(|chunk| sample.t_ms < chunk.end_ms && continues(&chunk.last, h));
        let reset_hint = match (h.reset_hint, continues) {
            (ResetHint::Gauge, _) => ResetHint::Gauge,
            (_, true) => ResetHint::NotReset,
            (_, false) => ResetHint::Unknown,
        };
        let last = Arc::new(Histogram {
            reset_hint,
            ..h.as_ref().clone()
        });
        let end_ms = (sample.t_ms.div_euclid(CHUNK_RANGE_MS) + 1) * CHUNK_RANGE_MS;
        sample.value = Value::Histogram(last.clone());
        chunk = Some(Chunk { last, end_ms });
    }
}

/// Whether `next` goes into the chunk that ends with `last`.
fn continues(last: &Histogram, next: &Histogram) -> bool {
    let is_gauge = |h: &Histogram| h.reset_hint == ResetHint::Gauge;
    if is_stale(last.sum)
        || is_gauge(last) != is_gauge(next)
        || last.schema != next.schema
        || last.zero_threshold != next.zero_threshold
        || last.custom_bounds != next.custom_bounds
    {
        return false;
    }
    let shrank = |now: &Buckets, was: &Buckets| was.iter().any(|(i, count)| now.get(i) < count);
    let is_reset = next.reset_hint == ResetHint::Reset
        || next.count < last.count
        || next.zero_count < last.zero_count
        || shrank(&next.positive, &last.positive)
        || shrank(&next.negative, &last.negative);
    is_gauge(next) || !is_reset
}

#[derive(Default)]
struct Classic {
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// Classic histograms as native ones with custom bounds.
fn classic_to_native(series: &[Series]) -> Vec<Series> {
    let mut found: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for one in series {
        let name = one.labels.metric_name().unwrap_or_default();
        let suffixes = ["_bucket", "_count", "_sum"];
        let part = suffixes.into_iter().find(|s| name.ends_with(s));
        let Some(part) = part else { continue };
        let le = one.labels.get("le").and_then(|le| le.parse::<f64>().ok());
        let le = le.filter(|le| !le.is_nan());
        if part == "_bucket" && le.is_none() {
            continue;
        }
        let mut labels = one.labels.without(&["le"]).to_builder();
        labels.set("__name__", &name[..name.len() - part.len()]);
        let times = found.entry(labels.build()).or_default();
        for sample in &one.samples {
            let Value::Float(value) = sample.value else {
                continue;
            };
            if is_stale(value) {
                continue;
            }
            let classic = times.entry(sample.t_ms).or_default();
            match part {
                "_bucket" => classic.buckets.push((le.unwrap_or_default(), value)),
                "_count" => classic.count = Some(value),
                _ => classic.sum = value,
            }
        }
    }
    let of_labels = |(labels, times): (Labels, BTreeMap<i64, Classic>)| Series {
        labels,
        samples: times
            .into_iter()
            .map(|(t_ms, classic)| Sample {
                t_ms,
                start_ms: 0,
                value: Value::Histogram(classic.into_native().into()),
            })
            .collect(),
    };
    found.into_iter().map(of_labels).collect()
}

impl Classic {
    fn into_native(mut self) -> Histogram {
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.buckets.dedup_by(|later, earlier| later.0 == earlier.0);
        let highest = self.buckets.last().map(|bucket| bucket.1);
        let count = self.count.or(highest).unwrap_or(0.0);
        let (mut bounds, mut counts, mut below) = (Vec::new(), Vec::new(), 0.0);
        for (upper, cumulative) in self.buckets.iter().filter(|b| b.0 < f64::INFINITY) {
            bounds.push(*upper);
            counts.push(cumulative - below);
            below = *cumulative;
        }
        counts.push(count - below);
        Histogram {
            schema: slogate_series::histogram::CUSTOM_SCHEMA,
            count,
            sum: self.sum,
            positive: Buckets::from_dense(0, counts),
            custom_bounds: bounds.into(),
            ..Histogram::default()
        }
    }
}

#[test]
fn a_histogram_is_known_not_to_be_a_reset_inside_a_chunk_only() {
    let counter = |count: f64, reset_hint| {
        Value::Histogram(Arc::new(Histogram {
            count,
            reset_hint,
            ..Histogram::default()
        }))
    };
    let values = [
        counter(5.0, ResetHint::NotReset),
        counter(6.0, ResetHint::Unknown),
        counter(2.0, ResetHint::Reset),
        counter(3.0, ResetHint::Unknown),
        Value::Float(slogate_series::stale_nan()),
        counter(4.0, ResetHint::Unknown),
        counter(1.0, ResetHint::Gauge),
        Value::Float(1.0),
    ];
    let mut samples: Vec<Sample> = (0..)
        .zip(values)
        .map(|(t_ms, value)| Sample {
            t_ms,
            start_ms: 0,
            value,
        })
        .collect();
    set_hints(&mut samples);
    let hints: Vec<_> = samples
        .iter()
        .map(|sample| match &sample.value {
            Value::Histogram(h) => Some(h.reset_hint),
            Value::Float(_) => None,
        })
        .collect();
    use ResetHint::{Gauge, NotReset, Unknown};
    let wanted = [Unknown, NotReset, Unknown, NotReset];
    let mut wanted: Vec<_> = wanted.into_iter().map(Some).collect();
    wanted.extend([None, Some(Unknown), Some(Gauge), None]);
    assert_eq!(hints, wanted);
}
