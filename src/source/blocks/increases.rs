//! Counters as increases between neighbouring samples.
//!
//! A drop is a reset and counts from zero; a first sample counts only where the count is known to
//! have begun inside the window. Nothing is extrapolated.

use std::collections::HashMap;
use std::sync::Arc;

use slogate_series::{Histogram, Labels, ResetHint, Sample, Value};

/// When each process was first sampled.
#[derive(Clone, Debug, Default)]
pub(super) struct Births {
    processes: HashMap<Labels, usize>,
    first_ms: Vec<i64>,
}

/// What makes a process, in the order of the labels' names.
const PROCESS: [&str; 3] = ["instance", "job", "pod"];

impl Births {
    /// Remembers that a series was sampled at `t_ms`; the number of its process, where that is
    /// known.
    pub(super) fn note(&mut self, labels: &Labels, t_ms: i64) -> Option<usize> {
        let next = self.first_ms.len();
        let process = *self.processes.entry(process_of(labels)?).or_insert(next);
        match self.first_ms.get_mut(process) {
            Some(first_ms) => *first_ms = t_ms.min(*first_ms),
            None => self.first_ms.push(t_ms),
        }
        Some(process)
    }

    /// From when on a first sample of a series of a process counts whole.
    pub(super) fn of(&self, process: Option<usize>, window_start_ms: i64) -> Born {
        Born {
            window_start_ms,
            sampled_since_ms: process.and_then(|at| self.first_ms.get(at).copied()),
        }
    }
}

fn process_of(labels: &Labels) -> Option<Labels> {
    let is_known = labels.get("instance").is_some() || labels.get("pod").is_some();
    is_known.then(|| labels.keep(&PROCESS))
}

/// What is known of a series' beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Born {
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

/// Where a counter stood at its last sample; `None` before the first.
#[derive(Clone, Debug, Default)]
pub(super) struct Stand {
    float: Option<f64>,
    histogram: Option<Arc<Histogram>>,
}

impl Stand {
    /// What a float sample brings. Stale markers bring nothing.
    pub(super) fn float(&mut self, sample: &Sample, born: Born) -> Option<f64> {
        let Value::Float(value) = sample.value else {
            return None;
        };
        if !value.is_finite() {
            return None;
        }
        let increase = match self.float {
            Some(before) if value >= before => value - before,
            Some(_) => value,
            None if born.inside(sample) => value,
            None => 0.0,
        };
        self.float = Some(value);
        (increase > 0.0).then_some(increase)
    }

    /// What a histogram sample brings.
    pub(super) fn histogram(&mut self, sample: &Sample, born: Born) -> Option<Histogram> {
        let Value::Histogram(histogram) = &sample.value else {
            return None;
        };
        if sample.value.is_stale() {
            return None;
        }
        let increase = match &self.histogram {
            // Nothing happened since: that is the usual case, and cheap to see.
            Some(before) if is_same(before, histogram) => None,
            Some(before) if histogram.is_reset_after(before) => Some((**histogram).clone()),
            Some(before) => Some(histogram.sub(before)),
            None if born.inside(sample) => Some((**histogram).clone()),
            None => None,
        };
        self.histogram = Some(histogram.clone());
        increase
            .filter(|increase| increase.count > 0.0)
            .map(Histogram::compact)
    }
}

fn is_same(before: &Arc<Histogram>, now: &Arc<Histogram>) -> bool {
    now.reset_hint != ResetHint::Reset && (Arc::ptr_eq(before, now) || before == now)
}

/// How much a counter grew over its samples in a window.
pub(crate) fn increase(samples: &[Sample], window_start_ms: i64) -> f64 {
    let born = Born {
        window_start_ms,
        sampled_since_ms: None,
    };
    let mut stand = Stand::default();
    let increases = samples
        .iter()
        .filter_map(|sample| stand.float(sample, born));
    increases.sum()
}

#[cfg(test)]
mod tests {
    use slogate_series::{Buckets, Series, stale_nan};

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

    fn float_increases(samples: &[Sample], born: Born) -> Vec<(i64, f64)> {
        let mut stand = Stand::default();
        let increases = samples
            .iter()
            .filter_map(|sample| Some((sample.t_ms, stand.float(sample, born)?)));
        increases.collect()
    }

    #[test]
    fn a_first_sample_counts_only_if_the_series_began_in_the_window() {
        let old = [at(1_000, 500, 40.0), at(2_000, 500, 45.0)];
        assert_eq!(float_increases(&old, since(900)), [(2_000, 5.0)]);
        let born = [at(1_000, 950, 3.0), at(2_000, 950, 4.0)];
        let increases = float_increases(&born, since(900));
        assert_eq!(increases, [(1_000, 3.0), (2_000, 1.0)]);
        let unknown = [at(1_000, 0, 3.0)];
        assert_eq!(float_increases(&unknown, since(900)), []);
    }

    #[test]
    fn resets_count_from_zero_and_stale_markers_count_nothing() {
        let samples = [
            at(1, 0, 10.0),
            at(2, 0, 12.0),
            at(3, 0, stale_nan()),
            at(4, 3, 5.0),
        ];
        assert_eq!(float_increases(&samples, since(0)), [(2, 2.0), (4, 5.0)]);
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
        let mut stand = Stand::default();
        let increases: Vec<_> = samples
            .iter()
            .filter_map(|sample| stand.histogram(sample, since(0)))
            .collect();
        assert_eq!(increases.len(), 2);
        assert_eq!(increases[0].positive.as_slice(), [(0, 1.0), (1, 3.0)]);
        assert_eq!(increases[1].positive.as_slice(), [(0, 1.0)]);
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
        let mut births = Births::default();
        let processes = all
            .each_ref()
            .map(|one| births.note(&one.labels, one.samples[0].t_ms));
        let grown = |(one, process): (&Series, &Option<usize>)| -> f64 {
            float_increases(&one.samples, births.of(*process, 0))
                .iter()
                .map(|(_, n)| n)
                .sum()
        };
        let grown: Vec<f64> = all.iter().zip(&processes).map(grown).collect();
        assert_eq!(grown, [20.0, 3.0, 0.0]);
    }
}
