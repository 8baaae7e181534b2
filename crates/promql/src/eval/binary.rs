//! Binary operators: numbers, histograms, and how series of two vectors find each other.
//!
//! Matching is worked out once per pair of series, and applied step by step, because which
//! series have a value, and so what is ambiguous, changes with the step.

mod plain;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use slogate_series::{Histogram, Labels, METRIC_NAME, Projection, Value};

use crate::ast::{Binary, BinaryOp, Cardinality, Expr, NumberLiteral, Span, VectorMatching};
use crate::eval::column::{braced, without_name};
use crate::eval::groups::Groups;
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
            // One scalar flows past the other side's series.
            _ => return Err(EvalError::execution("operators don't work on strings")),
        })
    }

    /// A row of values and a scalar. A filter keeps the row's value, on whichever side it is.
    pub(crate) fn apply_scalar(
        &mut self,
        binary: &Binary,
        values: &mut [Option<Value>],
        scalars: &[f64],
        scalar_first: bool,
        span: Span,
    ) {
        for (slot, scalar) in values.iter_mut().zip(scalars) {
            let Some(value) = slot.take() else { continue };
            let scalar = Value::Float(*scalar);
            let result = match scalar_first {
                true => self.pair(binary, &scalar, &value, span),
                false => self.pair(binary, &value, &scalar, span),
            };
            // A filter that passes keeps the vector's own value.
            let is_filter = binary.op.is_comparison() && !binary.return_bool;
            *slot = match result {
                Paired::Kept(_) if is_filter => Some(value),
                Paired::Kept(result) => Some(result),
                Paired::FilteredOut | Paired::Meaningless => None,
            };
        }
    }

    fn meeting(
        &mut self,
        binary: &Binary,
        found: &Meeting<'_>,
        swapped: bool,
        span: Span,
    ) -> Paired {
        match swapped {
            true => self.pair(binary, found.one_value, found.many_value, span),
            false => self.pair(binary, found.many_value, found.one_value, span),
        }
    }

    /// One element with one element.
    fn pair(&mut self, binary: &Binary, lhs: &Value, rhs: &Value, span: Span) -> Paired {
        match self.compute(binary.op, lhs, rhs, span) {
            Outcome::Value(value) => Paired::Kept(value),
            Outcome::Compared(holds) if binary.return_bool => {
                Paired::Kept(Value::Float(if holds { 1.0 } else { 0.0 }))
            }
            Outcome::Compared(true) => Paired::Kept(lhs.clone()),
            Outcome::Compared(false) => Paired::FilteredOut,
            Outcome::Nothing => Paired::Meaningless,
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
                BinaryOp::Mul => Outcome::histogram(histogram::scale(h, *x).compact()),
                BinaryOp::Div => Outcome::histogram(histogram::divide(h, *x).compact()),
                BinaryOp::TrimUpper => Outcome::histogram(trim(h, *x, true)),
                BinaryOp::TrimLower => Outcome::histogram(trim(h, *x, false)),
                _ => self.incompatible(op, lhs, rhs, span),
            },
            (Value::Float(x), Value::Histogram(h)) if op == BinaryOp::Mul => {
                Outcome::histogram(histogram::scale(h, *x).compact())
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
            let message = histogram::collision_message(operation);
            self.annotations.warn(span, message);
            return Outcome::Nothing;
        }
        if combined.reconciled {
            let message = histogram::reconciled_message(operation);
            self.annotations.info(span, message);
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
        let fill = |number: Option<NumberLiteral>| number.map(|n| Value::Float(n.value));
        // Prometheus fills in the many side with the left value, whichever side that is.
        let fills = Fills {
            many: fill(matching.fill_left),
            one: fill(matching.fill_right),
        };
        let drops_later = binary.return_bool && self.engine.delayed_name_removal;
        // Before labels are copied from the one side: that may give another name.
        let drops_now = drops_name(binary.op) || binary.return_bool && !drops_later;
        let mut join = Join::new(matching, &many, &one, &fills, drops_now, grid.steps);
        let plain = self.plain_join(binary, &join, swapped, span)?;
        let steps = if plain.is_some() { 0 } else { grid.steps };
        for step in 0..steps {
            self.meter.check()?;
            if !join.index_one_side(step)? {
                continue;
            }
            for at in 0..many.len() {
                if let Some(found) = join.match_of(at) {
                    let result = self.meeting(binary, &found, swapped, span);
                    join.place(&found, result)?;
                }
            }
            for at in 0..one.len() {
                if let Some(found) = join.unmatched(at) {
                    let result = self.meeting(binary, &found, swapped, span);
                    join.place(&found, result)?;
                }
            }
        }
        let mut columns = plain.unwrap_or(join.out);
        columns.retain(|column| !column.is_empty());
        if drops_later {
            return self.without_names(columns);
        }
        merge_same_labels(columns)
    }
}

impl Binary {
    /// Whether the result is no longer what the metrics' names say.
    pub(crate) fn drops_name(&self) -> bool {
        drops_name(self.op) || self.return_bool
    }
}

/// The values of series that are not there.
struct Fills {
    many: Option<Value>,
    one: Option<Value>,
}

/// An element of the many side and one of the one side; one of them may be filled in.
struct Meeting<'a> {
    key: usize,
    many: Option<usize>,
    one: Option<usize>,
    many_value: &'a Value,
    one_value: &'a Value,
}

/// What comes of two elements.
enum Paired {
    Kept(Value),
    /// A comparison that does not hold.
    FilteredOut,
    /// The operator has no meaning for these values; as if they had not met.
    Meaningless,
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
    matching: &'a VectorMatching,
    many: &'a [Column],
    one: &'a [Column],
    fills: &'a Fills,
    drops_name: bool,
    many_keys: Vec<usize>,
    one_keys: Vec<usize>,
    steps: usize,
    /// Per key, the column of the one side that has a value at this step.
    present: Vec<Option<usize>>,
    /// Per key, whether a match was already made at this step.
    taken: Vec<bool>,
    /// The output columns of pairs, and of each the step and key it was last used for.
    placed: HashMap<(Option<usize>, Option<usize>, usize), usize, FixedState>,
    by_labels: HashMap<Labels, usize, FixedState>,
    last_used: Vec<Option<(usize, usize)>>,
    step: usize,
    out: Vec<Column>,
}

impl<'a> Join<'a> {
    fn new(
        matching: &'a VectorMatching,
        many: &'a [Column],
        one: &'a [Column],
        fills: &'a Fills,
        drops_name: bool,
        steps: usize,
    ) -> Self {
        let ([many_keys, one_keys], keys) = keys(matching, [many, one]);
        Join {
            matching,
            many,
            one,
            fills,
            drops_name,
            many_keys,
            one_keys,
            steps,
            present: vec![None; keys],
            taken: vec![false; keys],
            placed: HashMap::default(),
            by_labels: HashMap::default(),
            last_used: Vec::new(),
            step: 0,
            out: Vec::new(),
        }
    }

    /// Finds who is present on the one side; false where nobody can meet anybody, which gives
    /// nothing and is never ambiguous.
    fn index_one_side(&mut self, step: usize) -> Result<bool, EvalError> {
        self.step = step;
        self.present.fill(None);
        self.taken.fill(false);
        let anyone = |columns: &[Column]| columns.iter().any(|column| column.value(step).is_some());
        let is_filled = self.fills.many.is_some() || self.fills.one.is_some();
        let can_meet = is_filled || anyone(self.many) && anyone(self.one);
        if !can_meet {
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
        let group = self.group(&column.labels);
        let earlier = self.one.get(earlier).map(|c| braced(&c.labels));
        let mut series = [earlier.unwrap_or_default(), braced(&column.labels)];
        series.sort();
        EvalError::execution(format!(
            "found duplicate series for the match group {} on the {side} hand-side of the \
             operation: [{}];many-to-many matching not allowed: matching labels must be unique on \
             one side",
            braced(&group),
            series.join(", "),
        ))
    }

    /// Whom a series of the many side meets at this step.
    fn match_of(&self, many_at: usize) -> Option<Meeting<'a>> {
        let many_value = self.many.get(many_at)?.value(self.step)?;
        let key = *self.many_keys.get(many_at)?;
        let one = *self.present.get(key)?;
        let one_value = match one {
            Some(at) => self.one.get(at)?.value(self.step)?,
            None => self.fills.one.as_ref()?,
        };
        Some(Meeting {
            key,
            many: Some(many_at),
            one,
            many_value,
            one_value,
        })
    }

    /// A series of the one side that nobody met, with the value for those missing.
    fn unmatched(&self, one_at: usize) -> Option<Meeting<'a>> {
        let many_value = self.fills.many.as_ref()?;
        let one_value = self.one.get(one_at)?.value(self.step)?;
        let key = *self.one_keys.get(one_at)?;
        (!self.taken.get(key)?).then_some(Meeting {
            key,
            many: None,
            one: Some(one_at),
            many_value,
            one_value,
        })
    }

    /// Notes a result. Pairs that a comparison filters out count as matched too.
    fn place(&mut self, found: &Meeting<'_>, result: Paired) -> Result<(), EvalError> {
        if matches!(result, Paired::Meaningless) {
            return Ok(());
        }
        let Some(out_at) = self.output(found) else {
            return Ok(());
        };
        let is_taken = self
            .taken
            .get_mut(found.key)
            .is_some_and(|taken| std::mem::replace(taken, true));
        if self.matching.card == Cardinality::OneToOne {
            if is_taken {
                return Err(EvalError::execution(
                    "multiple matches for labels: many-to-one matching must be explicit \
                     (group_left/group_right)",
                ));
            }
        } else {
            let now = Some((self.step, found.key));
            if let Some(last) = self.last_used.get_mut(out_at)
                && std::mem::replace(last, now) == now
            {
                return Err(EvalError::execution(
                    "multiple matches for labels: grouping labels must ensure unique matches",
                ));
            }
        }
        if let (Some(column), Paired::Kept(value)) = (self.out.get_mut(out_at), result) {
            if column.value(self.step).is_some() {
                let message = "vector cannot contain metrics with the same labelset";
                return Err(EvalError::execution(message));
            }
            column.set(self.step, value);
        }
        Ok(())
    }

    /// The output column of a pair.
    fn output(&mut self, found: &Meeting<'_>) -> Option<usize> {
        let pair = (found.many, found.one, found.key);
        if let Some(at) = self.placed.get(&pair) {
            return Some(*at);
        }
        let labels_of = |columns: &[Column], at: Option<usize>| {
            at.and_then(|at| columns.get(at)).map(|c| c.labels.clone())
        };
        let (many, one) = (
            labels_of(self.many, found.many),
            labels_of(self.one, found.one),
        );
        // Of a series that is not there its match group is known.
        let group = self.group(many.as_ref().or(one.as_ref())?);
        let (many, one) = (
            many.as_ref().unwrap_or(&group),
            one.as_ref().unwrap_or(&group),
        );
        let labels = result_labels(self.drops_name, self.matching, many, one);
        let at = *self
            .by_labels
            .entry(labels.clone())
            .or_insert(self.out.len());
        if at == self.out.len() {
            // Prometheus forgets that a name was to be dropped where a filter keeps it.
            self.out.push(Column::empty(labels, false, self.steps));
            self.last_used.push(None);
        }
        self.placed.insert(pair, at);
        Some(at)
    }

    /// The labels that matching goes by.
    fn group(&self, labels: &Labels) -> Labels {
        Agreeing::of(self.matching).projection().of(labels)
    }
}

/// The labels that have to agree.
struct Agreeing<'a> {
    names: Vec<&'a str>,
    on: bool,
}

impl<'a> Agreeing<'a> {
    fn of(matching: &'a VectorMatching) -> Self {
        let mut names: Vec<&str> = matching.labels.iter().map(AsRef::as_ref).collect();
        if !matching.on {
            names.push(METRIC_NAME);
        }
        Agreeing {
            names,
            on: matching.on,
        }
    }

    fn projection(&self) -> Projection<'_> {
        match self.on {
            true => Projection::Only(&self.names),
            false => Projection::Without(&self.names),
        }
    }
}

/// A number for each column's group; and how many groups there are.
fn keys(matching: &VectorMatching, sides: [&[Column]; 2]) -> ([Vec<usize>; 2], usize) {
    let agreeing = Agreeing::of(matching);
    let mut groups = Groups::new(agreeing.projection());
    let keys = sides.map(|columns| {
        let columns = columns.iter();
        columns.map(|column| groups.slot(&column.labels)).collect()
    });
    (keys, groups.len())
}

/// Whether the result of `op` is no longer what the metric's name says.
fn drops_name(op: BinaryOp) -> bool {
    !op.is_comparison() && !op.is_set() && !op.is_trim()
}

fn result_labels(
    drops_name: bool,
    matching: &VectorMatching,
    many: &Labels,
    one: &Labels,
) -> Labels {
    let labels = if drops_name {
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
    let ([lhs_keys, rhs_keys], _) = keys(matching, [&lhs, &rhs]);
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
