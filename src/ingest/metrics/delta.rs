//! Delta points added up to cumulative ones, per series, in memory.
//!
//! Policy:
//! - The first point starts the count at its start time; a zero is written there (never more
//!   than a minute before the point), so that `increase()` sees the first delta.
//! - A point that ends at or before the last one, or starts before it ended, is refused: its
//!   measurements may be counted already. A gap is no reason to refuse.
//! - A restart of slogate starts the counts at zero again: an ordinary counter reset.

use parking_lot::Mutex;
use slogate_series::Histogram;
use slogate_wire::otlp::Temporality;

use super::table::Shape;

/// How far before the first point its zero may lie, in ms.
const ZERO_BEFORE_MAX_MS: i64 = 60_000;

/// The running total of one delta series.
#[derive(Debug)]
pub(super) struct Delta(Mutex<Running>);

#[derive(Debug)]
struct Running {
    start_ms: i64,
    end_ns: u64,
    total: Total,
}

/// A cumulative value.
#[derive(Clone, Debug)]
pub(super) enum Total {
    Number(f64),
    /// Bucket counts (not cumulated over bounds), sum, count.
    Classic(Vec<f64>, f64, f64),
    Native(Histogram),
}

/// A cumulative point made from a delta.
#[derive(Clone, Debug)]
pub(super) struct Cumulative {
    pub(super) start_ms: i64,
    /// Where a zero must be written first, in ms.
    pub(super) zero_ms: Option<i64>,
    pub(super) total: Total,
}

impl Delta {
    /// A running total for a metric of `shape`, where that is delta.
    pub(super) fn of(shape: Shape) -> Option<Self> {
        let total = match shape {
            Shape::Sum(Temporality::Delta, _) => Total::Number(0.0),
            Shape::Histogram(Temporality::Delta) => Total::Classic(Vec::new(), 0.0, 0.0),
            Shape::Exponential(Temporality::Delta) => Total::Native(Histogram::default()),
            _ => return None,
        };
        Some(Delta(Mutex::new(Running {
            start_ms: 0,
            end_ns: 0,
            total,
        })))
    }

    /// Adds a delta from `start_ns` (0 where unknown) to `end_ns`; `None` where it must not count.
    pub(super) fn add(&self, start_ns: u64, end_ns: u64, delta: Total) -> Option<Cumulative> {
        let mut running = self.0.lock();
        let first = running.end_ns == 0;
        if end_ns <= running.end_ns || (start_ns != 0 && start_ns < running.end_ns) {
            return None;
        }
        let end_ms = (end_ns / 1_000_000) as i64;
        if first {
            let start_ms = (start_ns / 1_000_000) as i64;
            running.start_ms = match start_ms {
                1.. if start_ms < end_ms => start_ms,
                _ => 0,
            };
        }
        running.end_ns = end_ns;
        running.total.add(delta);
        let start_ms = running.start_ms;
        let zero = first && start_ms > 0;
        Some(Cumulative {
            start_ms,
            zero_ms: zero.then(|| start_ms.max(end_ms - ZERO_BEFORE_MAX_MS)),
            total: running.total.clone(),
        })
    }
}

impl Total {
    fn add(&mut self, delta: Total) {
        match (self, delta) {
            (Total::Number(total), Total::Number(delta)) => *total += delta,
            (Total::Classic(counts, sum, count), Total::Classic(more, more_sum, more_count)) => {
                // Other bounds give a point another entry, and so another total.
                if counts.is_empty() {
                    counts.resize(more.len(), 0.0);
                }
                for (total, delta) in counts.iter_mut().zip(more) {
                    *total += delta;
                }
                *sum += more_sum;
                *count += more_count;
            }
            (Total::Native(total), Total::Native(delta)) => {
                // The empty start has schema 0, which would coarsen everything added to it.
                *total = if total.count == 0.0 {
                    delta
                } else {
                    total.add(&delta)
                };
            }
            // A series keeps its shape for life.
            _ => debug_assert!(false, "a delta of another shape"),
        }
    }

    /// The same shape with nothing in it.
    pub(super) fn zero(&self) -> Total {
        match self {
            Total::Number(_) => Total::Number(0.0),
            Total::Classic(counts, ..) => Total::Classic(vec![0.0; counts.len()], 0.0, 0.0),
            Total::Native(histogram) => Total::Native(Histogram {
                schema: histogram.schema,
                zero_threshold: histogram.zero_threshold,
                ..Histogram::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(delta: Option<Cumulative>) -> Option<(i64, Option<i64>, f64)> {
        delta.map(|c| match c.total {
            Total::Number(total) => (c.start_ms, c.zero_ms, total),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn overlap_and_repetition_do_not_count_and_gaps_do() {
        let series = Delta::of(Shape::Sum(Temporality::Delta, true)).unwrap();
        let s = 1_000_000_000u64;
        let add = |start, end, value| number(series.add(start * s, end * s, Total::Number(value)));
        assert_eq!(add(10, 20, 5.0), Some((10_000, Some(10_000), 5.0)));
        assert_eq!(add(10, 20, 5.0), None, "the same again");
        assert_eq!(add(15, 25, 5.0), None, "overlap");
        assert_eq!(add(20, 30, 1.0), Some((10_000, None, 6.0)));
        assert_eq!(add(50, 60, 1.0), Some((10_000, None, 7.0)), "gap");
        assert_eq!(add(0, 70, 1.0), Some((10_000, None, 8.0)), "unknown start");
        assert_eq!(add(5, 15, 1.0), None, "late");
    }

    #[test]
    fn a_long_first_interval_has_its_zero_at_most_a_minute_back() {
        let series = Delta::of(Shape::Sum(Temporality::Delta, true)).unwrap();
        let s = 1_000_000_000u64;
        let first = number(series.add(1_000 * s, 9_000 * s, Total::Number(1.0)));
        assert_eq!(first, Some((1_000_000, Some(8_940_000), 1.0)));
    }
}
