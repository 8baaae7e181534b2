//! `topk` and `bottomk`, series by series.
//!
//! Of each group only the best elements of each step are kept, and the labels of the series
//! that were ever among them. Of equal elements the series with the lower labels wins, so that
//! the choice does not depend on the order in which series come.

use std::cmp::Ordering;

use slogate_series::{Labels, Projection, Value};

use crate::eval::aggregate::nan_last;
use crate::eval::groups::Groups;
use crate::eval::stream::Row;
use crate::eval::{Column, EvalError, Evaluator, Grid};

/// The best elements so far.
pub(crate) struct Ranks<'n> {
    largest_first: bool,
    /// How many to keep at each step.
    limits: Vec<usize>,
    groups: Groups<'n>,
    /// For each group, for each step, the elements best first.
    best: Vec<Vec<Vec<Ranked>>>,
    /// The series that were kept at some step.
    series: Vec<Known>,
    ignored: bool,
}

#[derive(Clone, Copy)]
struct Ranked {
    value: f64,
    series: usize,
}

struct Known {
    labels: Labels,
    drop_name: bool,
}

impl<'n> Ranks<'n> {
    pub(crate) fn new(largest_first: bool, limits: Vec<usize>, grouping: Projection<'n>) -> Self {
        Ranks {
            largest_first,
            limits,
            groups: Groups::new(grouping),
            best: Vec::new(),
            series: Vec::new(),
            ignored: false,
        }
    }

    /// Whether a histogram was left out where a float could have been kept.
    pub(crate) fn has_ignored(&self) -> bool {
        self.ignored
    }

    /// Keeps the elements of a series that are among the best so far.
    pub(crate) fn add(&mut self, row: &Row<'_>, ev: &mut Evaluator<'_>) -> Result<(), EvalError> {
        let slot = self.groups.slot(row.labels);
        if slot == self.best.len() {
            let steps = self.limits.len();
            // An empty list is three words.
            ev.meter.hold((steps * 3).div_ceil(2))?;
            self.best.push(vec![Vec::new(); steps]);
        }
        let Some(best) = self.best.get_mut(slot) else {
            return Ok(());
        };
        let mut number = None;
        let mut more = 0;
        for ((best, limit), value) in best.iter_mut().zip(&self.limits).zip(row.values.iter()) {
            let value = match value {
                Some(Value::Float(value)) if *limit > 0 => *value,
                Some(Value::Histogram(_)) if *limit > 0 => {
                    self.ignored = true;
                    continue;
                }
                _ => continue,
            };
            let (series, largest_first) = (&self.series, self.largest_first);
            let after_new = |kept: &Ranked| {
                let by_value = nan_last(kept.value, value, largest_first);
                by_value.then_with(|| {
                    let kept = series.get(kept.series).map(|known| &known.labels);
                    kept.cmp(&Some(row.labels))
                }) == Ordering::Greater
            };
            let is_full = best.len() >= *limit;
            if is_full && !best.last().is_some_and(after_new) {
                continue;
            }
            let at = best.partition_point(|kept| !after_new(kept));
            if is_full {
                best.pop();
            } else {
                more += 1;
            }
            let series = *number.get_or_insert(self.series.len());
            best.insert(at, Ranked { value, series });
        }
        if number.is_some() {
            more += row.labels.len();
            self.series.push(Known {
                labels: row.labels.clone(),
                drop_name: row.drop_name,
            });
        }
        ev.meter.hold(more)
    }

    /// The series that are kept somewhere: for one step the best of each group first, for
    /// several sorted by labels.
    pub(crate) fn finish(self, grid: Grid) -> Vec<Column> {
        let mut columns: Vec<Option<Column>> = Vec::new();
        columns.resize_with(self.series.len(), || None);
        let mut groups: Vec<_> = self
            .groups
            .into_labels()
            .into_iter()
            .zip(self.best)
            .collect();
        groups.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut order = Vec::new();
        for (_, best) in groups {
            for (step, best) in best.into_iter().enumerate() {
                for Ranked { value, series } in best {
                    let (Some(slot), Some(known)) =
                        (columns.get_mut(series), self.series.get(series))
                    else {
                        continue;
                    };
                    let column = slot.get_or_insert_with(|| {
                        order.push(series);
                        Column::empty(known.labels.clone(), known.drop_name, grid.steps)
                    });
                    column.set(step, Value::Float(value));
                }
            }
        }
        let in_order = order.into_iter();
        let mut kept: Vec<Column> = in_order
            .filter_map(|series| columns.get_mut(series)?.take())
            .collect();
        if grid.steps > 1 {
            kept.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use crate::eval::testing::{engine, lines, steady, value_lines};

    /// A store gives series in any order; equal ones must not take turns at being chosen.
    #[test]
    fn the_choice_does_not_depend_on_the_order_of_series() {
        let mut store: Vec<_> = (0..6)
            .map(|i| {
                steady(
                    &format!("x{{i=\"{i}\",g=\"{}\"}}", i % 2),
                    &[f64::from(i / 4)],
                )
            })
            .collect();
        let query = "topk by (g) (2, x)";
        let expected = lines(&store, query, 0);
        assert_eq!(
            expected,
            [
                "x{g=\"0\", i=\"4\"} 1",
                "x{g=\"0\", i=\"0\"} 0",
                "x{g=\"1\", i=\"5\"} 1",
                "x{g=\"1\", i=\"1\"} 0",
            ]
        );
        store.reverse();
        assert_eq!(lines(&store, query, 0), expected);
        store.swap(1, 4);
        assert_eq!(lines(&store, query, 0), expected);
    }

    /// The number wanted may change with the step, and with it who is kept.
    #[test]
    fn each_step_has_its_own_ranking() {
        let store = [
            steady("x{i=\"a\"}", &[1.0, 5.0, f64::NAN]),
            steady("x{i=\"b\"}", &[2.0, 4.0, f64::NAN]),
            steady("x{i=\"c\"}", &[3.0, 3.0, 3.0]),
        ];
        let ranked = |query: &str| {
            let result = engine().range(query, &store.as_slice(), 0, 30_000, 15_000);
            value_lines(&result.unwrap().value)
        };
        assert_eq!(
            ranked("topk(1, x)"),
            ["x{i=\"a\"} 5@15", "x{i=\"c\"} 3@0 3@30"]
        );
        assert_eq!(
            ranked("bottomk(time() / 15, x)"),
            ["x{i=\"a\"} NaN@30", "x{i=\"c\"} 3@15 3@30"]
        );
    }
}
