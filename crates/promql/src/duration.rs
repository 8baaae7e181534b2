//! Durations in a query: `[5m]`, `offset 30`, `[2m*(10+5)]`, `[step()*4]`.
//!
//! A duration is an expression of seconds. Most are constants and are checked when the
//! query is parsed; those that use `step()` or `range()` are known only when it runs.

use crate::ast::{NumberLiteral, Span};
use crate::literal::DURATION_MAX_SECONDS;

/// An expression that gives a duration, and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationExpr {
    /// What the expression is.
    pub kind: DurationKind,
    /// Where it stands in the query.
    pub span: Span,
}

/// What a duration expression is.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationKind {
    /// Seconds, or a duration such as `5m`.
    Literal(NumberLiteral),
    /// The step of a range query; 0 in an instant query.
    Step,
    /// The length of a range query; 0 in an instant query.
    Range,
    /// `-d` (true) or `+d`.
    Sign(bool, Box<DurationExpr>),
    /// Two durations joined by arithmetic.
    Binary(DurationOp, Box<DurationExpr>, Box<DurationExpr>),
    /// The shorter of two (`min_of`).
    MinOf(Box<DurationExpr>, Box<DurationExpr>),
    /// The longer of two (`max_of`).
    MaxOf(Box<DurationExpr>, Box<DurationExpr>),
    /// A duration in parentheses.
    Paren(Box<DurationExpr>),
}

/// Arithmetic on durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
}

impl DurationOp {
    /// The operator as written.
    pub fn as_str(self) -> &'static str {
        match self {
            DurationOp::Add => "+",
            DurationOp::Sub => "-",
            DurationOp::Mul => "*",
            DurationOp::Div => "/",
            DurationOp::Mod => "%",
            DurationOp::Pow => "^",
        }
    }
}

/// What `step()` and `range()` stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurationContext {
    /// The query's step, in milliseconds; 0 for an instant query.
    pub step_ms: i64,
    /// The query's end minus its start, in milliseconds; 0 for an instant query.
    pub range_ms: i64,
}

/// Why an expression gives no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// A division or remainder by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// Not a number, or longer than 292 years.
    #[error("duration out of range")]
    OutOfRange,
    /// Zero or negative where a length is needed.
    #[error("duration must be greater than 0")]
    NotPositive,
}

/// Reads a duration as Prometheus writes one outside of queries too, for example `1h30m`, in
/// milliseconds; `0` needs no unit. `None` where it is none or too long.
pub fn parse_ms(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    crate::literal::duration(text).map(|seconds| (seconds * 1000.0).round() as i64)
}

impl DurationExpr {
    /// Whether the value is the same in every query.
    pub fn is_constant(&self) -> bool {
        match &self.kind {
            DurationKind::Literal(_) => true,
            DurationKind::Step | DurationKind::Range => false,
            DurationKind::Sign(_, inner) | DurationKind::Paren(inner) => inner.is_constant(),
            DurationKind::Binary(_, a, b)
            | DurationKind::MinOf(a, b)
            | DurationKind::MaxOf(a, b) => a.is_constant() && b.is_constant(),
        }
    }

    /// The duration in whole milliseconds, of either sign.
    ///
    /// # Errors
    /// When the arithmetic divides by zero or its result is no representable duration.
    pub fn resolve_ms(&self, context: DurationContext) -> Result<i64, DurationError> {
        let seconds = self.seconds(context)?;
        if seconds.is_nan() || seconds.abs() > DURATION_MAX_SECONDS {
            return Err(DurationError::OutOfRange);
        }
        Ok((seconds * 1000.0).round() as i64)
    }

    /// The duration in whole milliseconds, which must be positive: a range or a step.
    ///
    /// # Errors
    /// As [`DurationExpr::resolve_ms`], and when the result is not positive.
    pub fn resolve_positive_ms(&self, context: DurationContext) -> Result<i64, DurationError> {
        match self.resolve_ms(context)? {
            ms if ms > 0 => Ok(ms),
            _ => Err(DurationError::NotPositive),
        }
    }

    fn seconds(&self, context: DurationContext) -> Result<f64, DurationError> {
        Ok(match &self.kind {
            DurationKind::Literal(number) => number.value,
            DurationKind::Step => context.step_ms as f64 / 1000.0,
            DurationKind::Range => context.range_ms as f64 / 1000.0,
            DurationKind::Sign(true, inner) => -inner.seconds(context)?,
            DurationKind::Sign(false, inner) | DurationKind::Paren(inner) => {
                inner.seconds(context)?
            }
            DurationKind::MinOf(a, b) => a.seconds(context)?.min(b.seconds(context)?),
            DurationKind::MaxOf(a, b) => a.seconds(context)?.max(b.seconds(context)?),
            DurationKind::Binary(op, a, b) => {
                let (a, b) = (a.seconds(context)?, b.seconds(context)?);
                match op {
                    DurationOp::Add => a + b,
                    DurationOp::Sub => a - b,
                    DurationOp::Mul => a * b,
                    DurationOp::Pow => a.powf(b),
                    DurationOp::Div | DurationOp::Mod if b == 0.0 => {
                        return Err(DurationError::DivisionByZero);
                    }
                    DurationOp::Div => a / b,
                    DurationOp::Mod => a % b,
                }
            }
        })
    }
}
