//! Steps, and one series' values on them.

use slogate_series::{Labels, METRIC_NAME, Projection, Value};

use crate::eval::EvalError;
use crate::eval::groups::Groups;
use crate::eval::meter::size;
use crate::eval::text::quoted;
use crate::literal::is_plain_label_name;

/// The times at which an expression is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) start_ms: i64,
    pub(crate) step_ms: i64,
    pub(crate) steps: usize,
}

impl Grid {
    pub(crate) fn instant(at_ms: i64) -> Self {
        Grid {
            start_ms: at_ms,
            step_ms: 1,
            steps: 1,
        }
    }

    pub(crate) fn time_ms(&self, step: usize) -> i64 {
        let ahead = i64::try_from(step)
            .unwrap_or(i64::MAX)
            .saturating_mul(self.step_ms);
        self.start_ms.saturating_add(ahead)
    }

    pub(crate) fn end_ms(&self) -> i64 {
        self.time_ms(self.steps.saturating_sub(1))
    }
}

/// One series' values on a grid.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) labels: Labels,
    /// Whether the metric name goes at the end of the query (delayed name removal).
    pub(crate) drop_name: bool,
    /// One per step, absent where the series has none.
    pub(crate) values: Vec<Option<Value>>,
}

impl Column {
    pub(crate) fn empty(labels: Labels, drop_name: bool, steps: usize) -> Self {
        Column {
            labels,
            drop_name,
            values: vec![None; steps],
        }
    }

    pub(crate) fn from_scalar(values: &[f64]) -> Self {
        let values = values
            .iter()
            .map(|value| Some(Value::Float(*value)))
            .collect();
        Column {
            labels: Labels::empty(),
            drop_name: false,
            values,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }

    pub(crate) fn value(&self, step: usize) -> Option<&Value> {
        self.values.get(step).and_then(Option::as_ref)
    }

    pub(crate) fn set(&mut self, step: usize, value: Value) {
        if let Some(slot) = self.values.get_mut(step) {
            *slot = Some(value);
        }
    }

    pub(crate) fn samples(&self) -> usize {
        self.values.iter().flatten().map(size).sum()
    }
}

/// The labels that name a metric; `__type__` and `__unit__` describe it and go with it.
pub(crate) const NAME_LABELS: [&str; 3] = [METRIC_NAME, "__type__", "__unit__"];

/// `labels` without those that name the metric.
pub(crate) fn without_name(labels: &Labels) -> Labels {
    labels.without(&NAME_LABELS)
}

/// Drops the names of the columns that are marked for it.
pub(crate) fn drop_flagged_names(mut columns: Vec<Column>) -> Result<Vec<Column>, EvalError> {
    for column in columns.iter_mut().filter(|column| column.drop_name) {
        column.labels = without_name(&column.labels);
        column.drop_name = false;
    }
    merge_same_labels(columns)
}

/// Joins columns with the same labels where their steps don't overlap.
///
/// # Errors
/// When two of them have a value at one step.
pub(crate) fn merge_same_labels(columns: Vec<Column>) -> Result<Vec<Column>, EvalError> {
    let mut seen = Groups::new(Projection::All);
    let mut merged: Vec<Column> = Vec::with_capacity(columns.len());
    for column in columns {
        let at = seen.slot(&column.labels);
        let Some(earlier) = merged.get_mut(at) else {
            merged.push(column);
            continue;
        };
        earlier.drop_name |= column.drop_name;
        for (slot, value) in earlier.values.iter_mut().zip(column.values) {
            match (&slot, value) {
                (_, None) => {}
                (None, Some(value)) => *slot = Some(value),
                (Some(_), Some(_)) => {
                    let message = "vector cannot contain metrics with the same labelset";
                    return Err(EvalError::execution(message));
                }
            }
        }
    }
    Ok(merged)
}

/// Labels with the name among them, as Prometheus prints them in errors.
pub(crate) fn braced(labels: &Labels) -> String {
    let mut out = String::from("{");
    for (at, label) in labels.iter().enumerate() {
        out.push_str(if at > 0 { ", " } else { "" });
        match is_plain_label_name(&label.name) {
            true => out.push_str(&label.name),
            false => out.push_str(&quoted(&label.name)),
        }
        out.push('=');
        out.push_str(&quoted(&label.value));
    }
    out.push('}');
    out
}
