//! Binary operators: numbers, histograms, and how series of two vectors find each other.
//!
//! Matching is worked out once per pair of series, and applied step by step, because which
//! series have a value, and so what is ambiguous, changes with the step.

use std::collections::HashMap;

use slogate_series::{Histogram, Labels, METRIC_NAME, Value};

use crate::ast::{Binary, BinaryOp, Cardinality, Expr, Span, VectorMatching};
use crate::eval::column::{braced, without_name};
use crate::eval::histogram_functions::trim;
use crate::eval::{Column, EvalError, Evaluated, Evaluator, Grid, histogram, merge_same_labels};

impl Evaluator<'_> {
    pub(super) fn binary(
        &mut self,
        expr: &Expr,
        binary: &Binary,
        grid: Grid,
    ) -> Result<Evaluated, EvalError> {
        let span = expr.span;
        let lhs = self.eval(&binary.lhs, grid)?;
        let rhs = self.eval(&binary.rhs, grid)?;
        Ok(match (lhs, rhs) {
            (Evaluated::Scalar(a), Evaluated::Scalar(b)) => Evaluated::Scalar(
                a.into_iter()
                    .zip(b)
                    .map(|(a, b)| scalar_result(binary.op, a, b))
                    .collect(),
            ),
            (Evaluated::Vector(columns), Evaluated::Scalar(scalars)) => {
                Evaluated::Vector(self.with_scalar(binary, columns, &scalars, false, span)?)
            }
            (Evaluated::Scalar(scalars), Evaluated::Vector(columns)) => {
                Evaluated::Vector(self.with_scalar(binary, columns, &scalars, true, span)?)
            }
            (Evaluated::Vector(lhs), Evaluated::Vector(rhs)) => {
                let matching = binary.matching.as_ref().ok_or_else(|| {
                    EvalError::execution("binary expression of vectors has no matching")
                })?;
                Evaluated::Vector(if binary.op.is_set() {
                    set_operation(binary.op, matching, lhs, rhs, grid.steps)
                } else {
                    self.joined(binary, matching, lhs, rhs, grid, span)?
                })
            }
            _ => return Err(EvalError::execution("operators don't work on strings")),
        })
    }

    /// A vector and a scalar. A filter keeps the vector's value, on whichever side it is.
    fn with_scalar(
        &mut self,
        binary: &Binary,
        mut columns: Vec<Column>,
        scalars: &[f64],
        scalar_first: bool,
        span: Span,
    ) -> Result<Vec<Column>, EvalError> {
        for column in &mut columns {
            for (slot, scalar) in column.values.iter_mut().zip(scalars) {
                let Some(value) = slot.take() else { continue };
                let scalar = Value::Float(*scalar);
                *slot = if scalar_first {
                    let result = self.pair(binary, &scalar, &value, span);
                    // A filter that passes keeps the vector's own value.
                    let keeps = binary.op.is_comparison() && !binary.return_bool;
                    if keeps { result.map(|_| value) } else { result }
                } else {
                    self.pair(binary, &value, &scalar, span)
                };
            }
        }
        columns.retain(|column| !column.is_empty());
        if drops_name(binary.op) || binary.return_bool {
            return self.without_names(columns);
        }
        Ok(columns)
    }

    /// One element with one element: the result, or `None` where it is filtered out or has
    /// no meaning.
    fn pair(&mut self, binary: &Binary, lhs: &Value, rhs: &Value, span: Span) -> Option<Value> {
        match self.compute(binary.op, lhs, rhs, span) {
            Outcome::Value(value) => Some(value),
            Outcome::Compared(holds) if binary.return_bool => {
                Some(Value::Float(if holds { 1.0 } else { 0.0 }))
            }
            Outcome::Compared(holds) => holds.then(|| lhs.clone()),
            Outcome::Nothing => None,
        }
    }

    fn compute(&mut self, op: BinaryOp, lhs: &Value, rhs: &Value, span: Span) -> Outcome {
        match (lhs, rhs) {
            (Value::Float(a), Value::Float(b)) if op.is_comparison() => {
                Outcome::Compared(compare(op, *a, *b))
            }
            (Value::Float(a), Value::Float(b)) if !op.is_trim() => {
                Outcome::Value(Value::Float(arithmetic(op, *a, *b)))
            }
            (Value::Histogram(a), Value::Histogram(b)) => self.histograms(op, a, b, span),
            (Value::Histogram(h), Value::Float(x)) => match op {
                BinaryOp::Mul => Outcome::histogram(histogram::scale(h, *x)),
                BinaryOp::Div => Outcome::histogram(histogram::divide(h, *x)),
                BinaryOp::TrimUpper => Outcome::histogram(trim(h, *x, true)),
                BinaryOp::TrimLower => Outcome::histogram(trim(h, *x, false)),
                _ => self.incompatible(op, lhs, rhs, span),
            },
            (Value::Float(x), Value::Histogram(h)) if op == BinaryOp::Mul => {
                Outcome::histogram(histogram::scale(h, *x))
            }
            _ => self.incompatible(op, lhs, rhs, span),
        }
    }

    fn histograms(&mut self, op: BinaryOp, a: &Histogram, b: &Histogram, span: Span) -> Outcome {
        let (combined, operation) = match op {
            BinaryOp::Add => (histogram::add(a, b), "addition"),
            BinaryOp::Sub => (histogram::sub(a, b), "subtraction"),
            BinaryOp::Eq => return Outcome::Compared(histogram::same_counts(a, b)),
            BinaryOp::Ne => return Outcome::Compared(!histogram::same_counts(a, b)),
            _ => {
                self.note_incompatible(op, "histogram", "histogram", span);
                return Outcome::Nothing;
            }
        };
        let Some(combined) = combined else {
            let message = format!(
                "incompatible bucket layout encountered for binary operator {}",
                op.as_str()
            );
            self.annotations.warn(span, message);
            return Outcome::Nothing;
        };
        if combined.hints_collide {
            self.annotations
                .warn(span, histogram::collision_message(operation));
        }
        if combined.reconciled {
            self.annotations
                .info(span, histogram::reconciled_message(operation));
        }
        let mut result = combined.histogram.compact();
        if op == BinaryOp::Sub {
            result.reset_hint = slogate_series::ResetHint::Gauge;
        }
        Outcome::histogram(result)
    }

    fn incompatible(&mut self, op: BinaryOp, lhs: &Value, rhs: &Value, span: Span) -> Outcome {
        let kind = |value: &Value| match value {
            Value::Float(_) => "float",
            Value::Histogram(_) => "histogram",
        };
        self.note_incompatible(op, kind(lhs), kind(rhs), span);
        Outcome::Nothing
    }

    fn note_incompatible(&mut self, op: BinaryOp, lhs: &str, rhs: &str, span: Span) {
        let op = op.as_str();
        self.annotations.info(
            span,
            format!(
                "incompatible sample types encountered for binary operator {op:?}: {lhs} {op} {rhs}"
            ),
        );
    }

    /// Two vectors, joined one to one or one to many.
    fn joined(
        &mut self,
        binary: &Binary,
        matching: &VectorMatching,
        lhs: Vec<Column>,
        rhs: Vec<Column>,
        grid: Grid,
        span: Span,
    ) -> Result<Vec<Column>, EvalError> {
        let swapped = matching.card == Cardinality::OneToMany;
        let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
        let mut join = Join::new(binary, matching, &many, &one, grid.steps);
        for step in 0..grid.steps {
            self.meter.check()?;
            if !join.index_one_side(step)? {
                continue;
            }
            for (at, column) in many.iter().enumerate() {
                let Some(value) = column.value(step) else {
                    continue;
                };
                let Some((partner, other)) = join.partner(at, step) else {
                    continue;
                };
                join.claim(at)?;
                let result = if swapped {
                    let result = self.pair(binary, other, value, span);
                    let keeps = binary.op.is_comparison() && !binary.return_bool;
                    if keeps {
                        result.map(|_| other.clone())
                    } else {
                        result
                    }
                } else {
                    self.pair(binary, value, other, span)
                };
                join.place(at, partner, step, result)?;
            }
        }
        let mut columns = join.out;
        columns.retain(|column| !column.is_empty());
        if binary.return_bool {
            return self.without_names(columns);
        }
        merge_same_labels(columns)
    }
}

/// What two elements give.
enum Outcome {
    Value(Value),
    /// A comparison, and whether it holds.
    Compared(bool),
    Nothing,
}

impl Outcome {
    fn histogram(h: Histogram) -> Self {
        Outcome::Value(Value::Histogram(h.into()))
    }
}

/// The state of a join of two vectors.
struct Join<'a> {
    binary: &'a Binary,
    matching: &'a VectorMatching,
    many: &'a [Column],
    one: &'a [Column],
    many_keys: Vec<usize>,
    one_keys: Vec<usize>,
    steps: usize,
    /// Per key, the column of the one side that has a value at this step.
    present: Vec<Option<usize>>,
    /// Per key, whether a match was already made at this step (one to one).
    taken: Vec<bool>,
    /// Result labels of pairs, and of each the output column and the step it was last used.
    placed: HashMap<(usize, usize), usize>,
    by_labels: HashMap<Labels, usize>,
    last_used: Vec<Option<usize>>,
    step: usize,
    out: Vec<Column>,
}

impl<'a> Join<'a> {
    fn new(
        binary: &'a Binary,
        matching: &'a VectorMatching,
        many: &'a [Column],
        one: &'a [Column],
        steps: usize,
    ) -> Self {
        let mut keys = Keys::new(matching);
        let many_keys: Vec<usize> = many.iter().map(|column| keys.of(&column.labels)).collect();
        let one_keys: Vec<usize> = one.iter().map(|column| keys.of(&column.labels)).collect();
        Join {
            binary,
            matching,
            many,
            one,
            many_keys,
            one_keys,
            steps,
            present: vec![None; keys.len()],
            taken: vec![false; keys.len()],
            placed: HashMap::new(),
            by_labels: HashMap::new(),
            last_used: Vec::new(),
            step: 0,
            out: Vec::new(),
        }
    }

    /// Finds who is present on the one side; false where one side has nobody at all, which
    /// gives nothing and is never ambiguous.
    fn index_one_side(&mut self, step: usize) -> Result<bool, EvalError> {
        self.step = step;
        self.present.fill(None);
        self.taken.fill(false);
        let anyone = |columns: &[Column]| columns.iter().any(|column| column.value(step).is_some());
        if !anyone(self.many) || !anyone(self.one) {
            return Ok(false);
        }
        for (at, (column, key)) in self.one.iter().zip(&self.one_keys).enumerate() {
            if column.value(step).is_none() {
                continue;
            }
            let Some(slot) = self.present.get_mut(*key) else {
                continue;
            };
            if let Some(earlier) = slot.replace(at) {
                return Err(self.duplicate(column, earlier));
            }
        }
        Ok(true)
    }

    fn duplicate(&self, column: &Column, earlier: usize) -> EvalError {
        let side = if self.matching.card == Cardinality::OneToMany {
            "left"
        } else {
            "right"
        };
        let names: Vec<&str> = self.matching.labels.iter().map(AsRef::as_ref).collect();
        let group = if self.matching.on {
            column.labels.keep(&names)
        } else {
            column.labels.without(&names).without(&[METRIC_NAME])
        };
        let earlier = self
            .one
            .get(earlier)
            .map(|c| braced(&c.labels))
            .unwrap_or_default();
        EvalError::execution(format!(
            "found duplicate series for the match group {} on the {side} hand-side of the \
             operation: [{}, {earlier}];many-to-many matching not allowed: matching labels must be \
             unique on one side",
            braced(&group),
            braced(&column.labels),
        ))
    }

    fn partner(&self, many_at: usize, step: usize) -> Option<(usize, &'a Value)> {
        let key = *self.many_keys.get(many_at)?;
        let at = (*self.present.get(key)?)?;
        Some((at, self.one.get(at)?.value(step)?))
    }

    /// Marks the key as matched. Pairs that a comparison filters out count too.
    fn claim(&mut self, many_at: usize) -> Result<(), EvalError> {
        if self.matching.card != Cardinality::OneToOne {
            return Ok(());
        }
        let key = self.many_keys.get(many_at).copied().unwrap_or_default();
        match self.taken.get_mut(key) {
            Some(taken) if *taken => Err(EvalError::execution(
                "multiple matches for labels: many-to-one matching must be explicit \
                 (group_left/group_right)",
            )),
            Some(taken) => {
                *taken = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn place(
        &mut self,
        many_at: usize,
        one_at: usize,
        step: usize,
        value: Option<Value>,
    ) -> Result<(), EvalError> {
        let Some(out_at) = self.output(many_at, one_at) else {
            return Ok(());
        };
        if self.matching.card != Cardinality::OneToOne
            && let Some(last) = self.last_used.get_mut(out_at)
            && last.replace(step) == Some(step)
        {
            return Err(EvalError::execution(
                "multiple matches for labels: grouping labels must ensure unique matches",
            ));
        }
        if let (Some(column), Some(value)) = (self.out.get_mut(out_at), value) {
            if column.value(step).is_some() {
                let message = "vector cannot contain metrics with the same labelset";
                return Err(EvalError::execution(message));
            }
            column.set(step, value);
        }
        Ok(())
    }

    /// The output column of a pair.
    fn output(&mut self, many_at: usize, one_at: usize) -> Option<usize> {
        if let Some(at) = self.placed.get(&(many_at, one_at)) {
            return Some(*at);
        }
        let (many, one) = (self.many.get(many_at)?, self.one.get(one_at)?);
        let labels = result_labels(self.binary.op, self.matching, &many.labels, &one.labels);
        let at = *self
            .by_labels
            .entry(labels.clone())
            .or_insert(self.out.len());
        if at == self.out.len() {
            // Only a filter keeps a name, and with it the question of whether to drop it.
            let drop_name = many.drop_name && !drops_name(self.binary.op);
            self.out.push(Column::empty(labels, drop_name, self.steps));
            self.last_used.push(None);
        }
        self.placed.insert((many_at, one_at), at);
        Some(at)
    }
}

/// Numbers for the label sets that have to agree.
struct Keys {
    on: bool,
    names: Vec<String>,
    known: HashMap<Labels, usize>,
}

impl Keys {
    fn new(matching: &VectorMatching) -> Self {
        let mut names: Vec<String> = matching
            .labels
            .iter()
            .map(|l| l.as_ref().to_owned())
            .collect();
        if !matching.on {
            names.push(METRIC_NAME.to_owned());
        }
        Keys {
            on: matching.on,
            names,
            known: HashMap::new(),
        }
    }

    fn of(&mut self, labels: &Labels) -> usize {
        let names: Vec<&str> = self.names.iter().map(AsRef::as_ref).collect();
        let key = if self.on {
            labels.keep(&names)
        } else {
            labels.without(&names)
        };
        let next = self.known.len();
        *self.known.entry(key).or_insert(next)
    }

    fn len(&self) -> usize {
        self.known.len()
    }
}

/// Whether the result of `op` is no longer what the metric's name says.
fn drops_name(op: BinaryOp) -> bool {
    !op.is_comparison() && !op.is_set() && !op.is_trim()
}

fn result_labels(op: BinaryOp, matching: &VectorMatching, many: &Labels, one: &Labels) -> Labels {
    let labels = if drops_name(op) {
        without_name(many)
    } else {
        many.clone()
    };
    let names: Vec<&str> = matching.labels.iter().map(AsRef::as_ref).collect();
    if matching.card == Cardinality::OneToOne {
        return if matching.on {
            labels.keep(&names)
        } else {
            labels.without(&names)
        };
    }
    if matching.include.is_empty() {
        return labels;
    }
    let mut builder = labels.to_builder();
    for label in &matching.include {
        // Absent on the one side means absent in the result.
        builder.set(label.clone(), one.get(label).unwrap_or_default());
    }
    builder.build()
}

/// `and`, `or`, `unless`: many to many, on whether the other side has a match at all.
fn set_operation(
    op: BinaryOp,
    matching: &VectorMatching,
    lhs: Vec<Column>,
    rhs: Vec<Column>,
    steps: usize,
) -> Vec<Column> {
    let mut keys = Keys::new(matching);
    let lhs_keys: Vec<usize> = lhs.iter().map(|column| keys.of(&column.labels)).collect();
    let rhs_keys: Vec<usize> = rhs.iter().map(|column| keys.of(&column.labels)).collect();
    let mut out = match op {
        BinaryOp::Or => {
            let unmatched = filtered(rhs, &rhs_keys, (&lhs, &lhs_keys), false, steps);
            lhs.into_iter().chain(unmatched).collect()
        }
        _ => filtered(
            lhs,
            &lhs_keys,
            (&rhs, &rhs_keys),
            op == BinaryOp::And,
            steps,
        ),
    };
    out.retain(|column: &Column| !column.is_empty());
    out
}

/// `columns` at the steps where their key is present on the other side, or where it isn't.
fn filtered(
    mut columns: Vec<Column>,
    keys: &[usize],
    (others, other_keys): (&[Column], &[usize]),
    wanted: bool,
    steps: usize,
) -> Vec<Column> {
    let keys_max = keys.iter().chain(other_keys).max().map_or(0, |key| key + 1);
    let mut present = vec![false; keys_max];
    for step in 0..steps {
        present.fill(false);
        for (column, key) in others.iter().zip(other_keys) {
            if let Some(slot) = present
                .get_mut(*key)
                .filter(|_| column.value(step).is_some())
            {
                *slot = true;
            }
        }
        for (column, key) in columns.iter_mut().zip(keys) {
            let found = present.get(*key).copied().unwrap_or(false);
            if let Some(slot) = column.values.get_mut(step).filter(|_| found != wanted) {
                *slot = None;
            }
        }
    }
    columns
}

fn scalar_result(op: BinaryOp, a: f64, b: f64) -> f64 {
    if op.is_comparison() {
        return if compare(op, a, b) { 1.0 } else { 0.0 };
    }
    arithmetic(op, a, b)
}

fn compare(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Eq => a == b,
        BinaryOp::Ne => a != b,
        BinaryOp::Gt => a > b,
        BinaryOp::Lt => a < b,
        BinaryOp::Ge => a >= b,
        BinaryOp::Le => a <= b,
        _ => false,
    }
}

fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        // C's fmod, which Rust's remainder is.
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        _ => f64::NAN,
    }
}
