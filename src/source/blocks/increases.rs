//! Counters as increases between neighbouring samples.
//!
//! A drop is a reset and counts from zero; a first sample counts only where the count is known to
//! have begun inside the window. Nothing is extrapolated.

use std::collections::HashMap;

use slogate_series::{Histogram, Labels, Sample, Series, Value};

/// When each process was first sampled.
pub(super) struct Births(HashMap<Labels, i64>);

/// What makes a process, in the order of the labels' names.
const PROCESS: [&str; 3] = ["instance", "job", "pod"];

impl Births {
    pub(super) fn of_all(series: &[Series]) -> Self {
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
    pub(super) fn of(&self, series: &Series, window_start_ms: i64) -> Born {
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
pub(super) fn float_increases(
    samples: &[Sample],
    born: Born,
) -> impl Iterator<Item = (i64, f64)> + '_ {
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
pub(super) fn histogram_increases(
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
}
