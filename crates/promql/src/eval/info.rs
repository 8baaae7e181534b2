//! `info()`: labels of info series, such as `target_info`, put onto other series.
//!
//! An info series and a series belong together where their identifying labels are equal.
//! Of two info series of one name with the same identity the one with the newer sample
//! counts. Labels that the series has already stay as they are; two info metrics that
//! disagree about a label make the query ambiguous. Info series themselves pass unchanged.
//!
//! Matchers in the second argument choose info metrics (by `__name__`) and which of their
//! labels are taken. A series that finds no info series stays as it is, unless one of the
//! matchers asks for a label that is not empty. `@` and `offset` of the first selector in the
//! first argument also say when info series are looked at.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use slogate_series::{Labels, METRIC_NAME, MatchOp, Matcher, Value, is_stale};

use crate::ast::{Expr, ExprKind, VectorSelector};
use crate::eval::stream::{EVERYTHING, Take};
use crate::eval::window::WindowEnds;
use crate::eval::{Column, EvalError, Evaluator, Grid, select};
use crate::queryable::Samples;

/// The labels that say whom an info series is about.
const IDENTIFYING_LABELS: [&str; 2] = ["instance", "job"];

/// The info metric that is meant where none is named.
const DEFAULT_INFO_METRIC: &str = "target_info";

/// Up to how many values of a label the store is asked for these only; else it is asked for
/// all, and the others are left out here.
const VALUES_ASKED_MAX: usize = 100;

/// What the second argument asks for.
struct Wanted {
    /// Matchers of the info metric's name; at least one.
    names: Vec<Matcher>,
    /// Matchers of its labels.
    data: Vec<Matcher>,
}

impl Wanted {
    fn new(selector: Option<&Expr>) -> Result<Wanted, EvalError> {
        let matchers = match selector.map(|expr| &expr.kind) {
            Some(ExprKind::Vector(selector)) => selector.all_matchers(),
            _ => Vec::new(),
        };
        let is_name = |m: &Matcher| m.name() == METRIC_NAME;
        let (mut names, data): (Vec<_>, Vec<_>) = matchers.into_iter().partition(is_name);
        let is_positive = |m: &Matcher| matches!(m.op(), MatchOp::Equal | MatchOp::Regex);
        if names.is_empty() {
            names.push(Matcher::equal(METRIC_NAME, DEFAULT_INFO_METRIC));
        } else if !names.iter().any(is_positive) {
            names.insert(0, regex(METRIC_NAME, ".+_info")?);
        }
        Ok(Wanted { names, data })
    }

    fn is_info(&self, labels: &Labels) -> bool {
        let name = labels.metric_name().unwrap_or_default();
        self.names.iter().all(|matcher| matcher.matches(name))
    }

    fn takes(&self, label: &str) -> bool {
        self.data.is_empty() || self.data.iter().any(|matcher| matcher.name() == label)
    }

    /// Whether a series without info passes.
    fn is_content_with_nothing(&self) -> bool {
        self.data.iter().all(|matcher| matcher.matches(""))
    }
}

fn regex(name: &str, pattern: &str) -> Result<Matcher, EvalError> {
    Matcher::new(name, MatchOp::Regex, pattern)
        .map_err(|error| EvalError::execution(error.to_string()))
}

/// The metric and the identity of an info series.
type Key = (Arc<str>, Labels);

impl Evaluator<'_> {
    pub(super) fn info(
        &mut self,
        v: &Expr,
        selector: Option<&Expr>,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let ends = self.reference_ends(v, &mut Vec::new())?;
        let ends = ends.unwrap_or(WindowEnds {
            fixed_ms: None,
            offset_ms: 0,
        });
        let wanted = Wanted::new(selector)?;
        let base = self.eval_vector(v, grid)?;
        let info = self.info_columns(&wanted, &base, ends, grid)?;
        Join::new(wanted, base, info, grid.steps).run()
    }

    /// When the first selector in `expr` is looked at: its own `@` and offset, then those of
    /// the subqueries around it up to the innermost `@`.
    fn reference_ends(
        &self,
        expr: &Expr,
        around: &mut Vec<WindowEnds>,
    ) -> Result<Option<WindowEnds>, EvalError> {
        let selector: &VectorSelector = match &expr.kind {
            ExprKind::Vector(selector) => selector,
            ExprKind::Matrix(matrix) => &matrix.selector,
            ExprKind::Subquery(subquery) => {
                around.push(self.ends_of(subquery.offset.as_ref(), subquery.at)?);
                let found = self.reference_ends(&subquery.expr, around);
                around.pop();
                return found;
            }
            _ => {
                for child in expr.children() {
                    if let Some(found) = self.reference_ends(child, around)? {
                        return Ok(Some(found));
                    }
                }
                return Ok(None);
            }
        };
        let mut ends = self.ends_of(selector.offset.as_ref(), selector.at)?;
        for outer in around.iter().rev() {
            if ends.fixed_ms.is_some() {
                break;
            }
            ends.offset_ms = ends.offset_ms.saturating_add(outer.offset_ms);
            ends.fixed_ms = outer.fixed_ms;
        }
        Ok(Some(ends))
    }

    /// The info series that may be about one of `base`: the times of their newest samples.
    fn info_columns(
        &mut self,
        wanted: &Wanted,
        base: &[Column],
        ends: WindowEnds,
        grid: Grid,
    ) -> Result<Vec<Column>, EvalError> {
        let mut identities: Vec<(&str, BTreeSet<&str>)> = Vec::new();
        for name in IDENTIFYING_LABELS {
            let plain = base.iter().filter(|column| !wanted.is_info(&column.labels));
            let values: BTreeSet<&str> = plain.filter_map(|c| c.labels.get(name)).collect();
            if !values.is_empty() {
                identities.push((name, values));
            }
        }
        if identities.is_empty() {
            return Ok(Vec::new());
        }
        let mut matchers: Vec<Matcher> = wanted.names.iter().chain(&wanted.data).cloned().collect();
        for (name, values) in &identities {
            if values.len() <= VALUES_ASKED_MAX {
                let quoted: Vec<String> = values.iter().map(|v| escaped(v)).collect();
                matchers.push(regex(name, &quoted.join("|"))?);
            }
        }
        let lookback_ms = self.engine.lookback_ms;
        let read = self.reading(matchers, ends, grid, (lookback_ms, 0));
        let mut columns = Vec::new();
        self.read(&read, EVERYTHING, &mut |ev, labels, samples| {
            let known = |(name, values): &(&str, BTreeSet<&str>)| {
                let value = labels.get(name);
                value.is_some_and(|value| values.contains(value))
            };
            if !identities.iter().all(known) {
                return Ok(());
            }
            check_floats(labels, samples)?;
            let mut column = Column::empty(labels.clone(), false, grid.steps);
            let (meter, values) = (&mut ev.meter, &mut column.values);
            select::newest(
                samples,
                grid,
                ends,
                lookback_ms,
                Take::Millis,
                meter,
                values,
            );
            if !column.is_empty() {
                ev.meter.hold(column.samples())?;
                columns.push(column);
            }
            Ok(())
        })?;
        Ok(columns)
    }
}

/// Escapes what has a meaning in a regular expression.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Info metrics are floats.
fn check_floats(labels: &Labels, samples: &Samples) -> Result<(), EvalError> {
    if samples.histograms.iter().all(|h| is_stale(h.value.sum)) {
        return Ok(());
    }
    let message = format!("this should be an info metric, with float samples: {labels}");
    Err(EvalError::execution(message))
}

/// Joining info series to others, step by step.
struct Join {
    wanted: Wanted,
    base: Vec<Column>,
    info: Vec<Column>,
    info_keys: Vec<Key>,
    /// Per series the keys under which its info series are found, or `None` for one that is
    /// an info series itself.
    base_keys: Vec<Option<Vec<Key>>>,
    steps: usize,
    /// Output columns by series and the info series it found.
    placed: HashMap<(usize, Vec<usize>), usize>,
    by_labels: HashMap<(Labels, bool), usize>,
    out: Vec<Column>,
}

impl Join {
    fn new(wanted: Wanted, base: Vec<Column>, info: Vec<Column>, steps: usize) -> Join {
        let key =
            |name: &Arc<str>, labels: &Labels| (name.clone(), labels.keep(&IDENTIFYING_LABELS));
        let name_of = |labels: &Labels| Arc::from(labels.metric_name().unwrap_or_default());
        let info_keys: Vec<Key> = info
            .iter()
            .map(|column| key(&name_of(&column.labels), &column.labels))
            .collect();
        let names: BTreeSet<Arc<str>> = info_keys.iter().map(|(name, _)| name.clone()).collect();
        let keys_of = |column: &Column| {
            let plain = !wanted.is_info(&column.labels);
            plain.then(|| names.iter().map(|name| key(name, &column.labels)).collect())
        };
        Join {
            base_keys: base.iter().map(keys_of).collect(),
            wanted,
            base,
            info,
            info_keys,
            steps,
            placed: HashMap::new(),
            by_labels: HashMap::new(),
            out: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Vec<Column>, EvalError> {
        for step in 0..self.steps {
            let current = self.current_info(step)?;
            for at in 0..self.base.len() {
                let Some(value) = self.base.get(at).and_then(|c| c.value(step)).cloned() else {
                    continue;
                };
                let keys = self.base_keys.get(at).and_then(Option::as_ref);
                let found: Vec<usize> = keys
                    .into_iter()
                    .flatten()
                    .filter_map(|key| current.get(key).copied())
                    .collect();
                let is_alone = keys.is_some() && found.is_empty();
                if is_alone && !self.wanted.is_content_with_nothing() {
                    continue;
                }
                let out_at = self.output(at, found)?;
                if let Some(column) = self.out.get_mut(out_at) {
                    if column.value(step).is_some() {
                        let message = "vector cannot contain metrics with the same labelset";
                        return Err(EvalError::execution(message));
                    }
                    column.set(step, value);
                }
            }
        }
        Ok(self.out)
    }

    /// The info series that count at a step, by key.
    fn current_info(&self, step: usize) -> Result<HashMap<Key, usize>, EvalError> {
        let mut current: HashMap<Key, (usize, f64)> = HashMap::new();
        for (at, (column, key)) in self.info.iter().zip(&self.info_keys).enumerate() {
            let Some(Value::Float(t_ms)) = column.value(step) else {
                continue;
            };
            match current.get(key) {
                Some((_, earlier_ms)) if earlier_ms > t_ms => {}
                Some((earlier, earlier_ms)) if earlier_ms == t_ms => {
                    let existing = self.info.get(*earlier).map(|c| c.labels.to_string());
                    return Err(EvalError::execution(format!(
                        "found duplicate series for info metric: existing {} @ {earlier_ms}, new \
                         {} @ {t_ms}",
                        existing.unwrap_or_default(),
                        column.labels,
                    )));
                }
                _ => {
                    current.insert(key.clone(), (at, *t_ms));
                }
            }
        }
        let indexes = current.into_iter().map(|(key, (at, _))| (key, at));
        Ok(indexes.collect())
    }

    /// The output column of a series with the info series it found.
    fn output(&mut self, at: usize, found: Vec<usize>) -> Result<usize, EvalError> {
        if let Some(out_at) = self.placed.get(&(at, found.clone())) {
            return Ok(*out_at);
        }
        let Some(base) = self.base.get(at) else {
            return Err(EvalError::execution("a series is missing"));
        };
        let mut taken: HashMap<Arc<str>, Arc<str>> = HashMap::new();
        let mut labels = base.labels.to_builder();
        for info in found.iter().filter_map(|at| self.info.get(*at)) {
            let described = |name: &str| name != METRIC_NAME && self.wanted.takes(name);
            for label in info.labels.iter().filter(|label| described(&label.name)) {
                if taken.get(&label.name).is_some_and(|v| *v != label.value) {
                    let message = format!("conflicting label: {}", label.name);
                    return Err(EvalError::execution(message));
                }
                if base.labels.get(&label.name).is_none() {
                    taken.insert(label.name.clone(), label.value.clone());
                    labels.set(label.name.clone(), label.value.clone());
                }
            }
        }
        let (labels, drop_name) = (labels.build(), base.drop_name);
        let key = (labels.clone(), drop_name);
        let out_at = *self.by_labels.entry(key).or_insert(self.out.len());
        if out_at == self.out.len() {
            self.out.push(Column::empty(labels, drop_name, self.steps));
        }
        self.placed.insert((at, found), out_at);
        Ok(out_at)
    }
}
