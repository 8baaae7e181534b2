//! The syntax tree: what a query says, with the place of every node in its text.
//!
//! Spans are byte offsets into the text that was parsed. They take part in `PartialEq`;
//! two trees of one query written differently are therefore not equal. Parentheses are
//! kept as nodes, so that a tree prints as it was written.

use std::sync::Arc;

use slogate_series::{METRIC_NAME, Matcher};

use crate::duration::DurationExpr;
use crate::function::Function;

/// A place in the query text: bytes `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    /// The span of bytes `start..end`.
    pub fn new(start: usize, end: usize) -> Self {
        Span { start, end }
    }

    /// From the start of this span to the end of `other`.
    pub fn to(self, other: Span) -> Span {
        Span::new(self.start, other.end.max(self.start))
    }
}

/// The four types of a PromQL expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// A single float.
    Scalar,
    /// One sample for each of a set of series.
    Vector,
    /// A range of samples for each of a set of series.
    Matrix,
    /// A text.
    String,
}

impl ValueType {
    /// The name the documentation uses, for example `instant vector`.
    pub fn documented(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
            ValueType::String => "string",
        }
    }
}

/// An expression and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What the expression is.
    pub kind: ExprKind,
    /// Where it stands in the query.
    pub span: Span,
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// A number, or a duration that stands for its seconds.
    Number(NumberLiteral),
    /// A text.
    String(StringLiteral),
    /// An instant vector selector: `up{job="a"}`.
    Vector(VectorSelector),
    /// A range vector selector: `up[5m]`.
    Matrix(MatrixSelector),
    /// A subquery: `rate(x[5m])[1h:1m]`.
    Subquery(Subquery),
    /// `-x` or `+x`.
    Unary(Unary),
    /// Two expressions joined by an operator.
    Binary(Binary),
    /// A function call.
    Call(Call),
    /// An aggregation over series.
    Aggregate(Aggregate),
    /// An expression in parentheses.
    Paren(Box<Expr>),
}

/// A number as written.
#[derive(Clone, Copy, Debug)]
pub struct NumberLiteral {
    /// The value; seconds where it was written as a duration.
    pub value: f64,
    /// Whether it was written as a duration, for example `5m`.
    pub is_duration: bool,
}

/// By bits, so that `NaN` equals itself.
impl PartialEq for NumberLiteral {
    fn eq(&self, other: &Self) -> bool {
        self.value.to_bits() == other.value.to_bits() && self.is_duration == other.is_duration
    }
}

/// A text as its escapes say.
///
/// Escapes can make bytes that are no UTF-8. No label can hold them, so all that can be done
/// with such a text is to ask for it, or to be told that it names nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringLiteral {
    /// The text; what is no UTF-8 is replaced by U+FFFD.
    pub text: Arc<str>,
    /// All bytes, where they are no UTF-8.
    pub bytes: Option<Arc<[u8]>>,
}

impl From<&str> for StringLiteral {
    fn from(text: &str) -> Self {
        StringLiteral {
            text: text.into(),
            bytes: None,
        }
    }
}

/// A matcher and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelMatcher {
    /// The test.
    pub matcher: Matcher,
    /// Where it stands.
    pub span: Span,
}

/// A selector of one sample per series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VectorSelector {
    /// The metric name, where it was given as a name (`up{…}` or `{"up", …}`) and not as a
    /// matcher of `__name__`.
    pub name: Option<Arc<str>>,
    /// The matchers in braces, without the one that `name` stands for.
    pub matchers: Vec<LabelMatcher>,
    /// How far to look back or, if negative, ahead.
    pub offset: Option<DurationExpr>,
    /// The fixed evaluation time.
    pub at: Option<AtModifier>,
    /// Whether samples beyond the borders are used, and how.
    pub extension: Option<Extension>,
}

/// How a selector uses samples beyond the borders of what it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extension {
    /// `anchored`: the last sample before a range stands for the value at its start.
    Anchored,
    /// `smoothed`: values at the borders, or at the evaluation time, are interpolated.
    Smoothed,
}

impl Extension {
    /// The modifier as written.
    pub fn as_str(self) -> &'static str {
        match self {
            Extension::Anchored => "anchored",
            Extension::Smoothed => "smoothed",
        }
    }
}

impl VectorSelector {
    /// All matchers, the name's included.
    pub fn all_matchers(&self) -> Vec<Matcher> {
        let name = self
            .name
            .as_ref()
            .map(|name| Matcher::equal(METRIC_NAME, name.clone()));
        name.into_iter()
            .chain(self.matchers.iter().map(|m| m.matcher.clone()))
            .collect()
    }
}

/// What `@` fixes the evaluation time to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtModifier {
    /// Milliseconds since the Unix epoch.
    TimeMs(i64),
    /// The start of the query's range.
    Start,
    /// The end of the query's range.
    End,
}

/// A selector of a range of samples per series.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// What is selected; offset and `@` are its.
    pub selector: VectorSelector,
    /// How long the range is; left-open.
    pub range: DurationExpr,
}

/// A range of an expression's values, computed at steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// What is evaluated at every step.
    pub expr: Box<Expr>,
    /// How long the range is; left-open.
    pub range: DurationExpr,
    /// The distance between steps; the engine's default where absent.
    pub step: Option<DurationExpr>,
    /// How far to look back or, if negative, ahead.
    pub offset: Option<DurationExpr>,
    /// The fixed evaluation time.
    pub at: Option<AtModifier>,
}

/// A sign before an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary {
    /// Whether the sign is `-`; else it is `+`.
    pub negative: bool,
    /// The expression after the sign.
    pub expr: Box<Expr>,
}

/// A binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
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
    /// `atan2`
    Atan2,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `>`
    Gt,
    /// `<`
    Lt,
    /// `>=`
    Ge,
    /// `<=`
    Le,
    /// `</`: the part of a native histogram below a value.
    TrimUpper,
    /// `>/`: the part of a native histogram above a value.
    TrimLower,
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
}

impl BinaryOp {
    /// The operator as written.
    pub fn as_str(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Eq => "==",
            BinaryOp::Ne => "!=",
            BinaryOp::Gt => ">",
            BinaryOp::Lt => "<",
            BinaryOp::Ge => ">=",
            BinaryOp::Le => "<=",
            BinaryOp::TrimUpper => "</",
            BinaryOp::TrimLower => ">/",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
        }
    }

    /// Whether this compares, and so filters unless `bool` is given.
    pub fn is_comparison(self) -> bool {
        use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne};
        matches!(self, Eq | Ne | Gt | Lt | Ge | Le)
    }

    /// Whether this works on sets of series and not on their values.
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }

    /// Whether this cuts a native histogram.
    pub fn is_trim(self) -> bool {
        matches!(self, BinaryOp::TrimUpper | BinaryOp::TrimLower)
    }
}

/// Two expressions joined by an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// The expression on the left.
    pub lhs: Box<Expr>,
    /// The expression on the right.
    pub rhs: Box<Expr>,
    /// Whether a comparison returns 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// How series of the two sides find each other; `None` unless both are vectors.
    pub matching: Option<VectorMatching>,
}

/// How many series of one side may match one of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cardinality {
    /// One and one.
    #[default]
    OneToOne,
    /// `group_left`: many on the left.
    ManyToOne,
    /// `group_right`: many on the right.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// How series of two vectors find each other; by default one to one and by all labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VectorMatching {
    /// How many on each side.
    pub card: Cardinality,
    /// Whether `labels` are all that counts (`on`); else they are what does not (`ignoring`).
    pub on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<Arc<str>>,
    /// The labels of `group_left` or `group_right`, copied from the one side.
    pub include: Vec<Arc<str>>,
    /// The value of a series on the left that a series on the right does not find.
    pub fill_left: Option<NumberLiteral>,
    /// The value of a series on the right that a series on the left does not find.
    pub fill_right: Option<NumberLiteral>,
}

/// A function call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The function.
    pub function: &'static Function,
    /// Its arguments; their number and types fit the function's signature.
    pub args: Vec<Expr>,
}

/// An aggregation operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateOp {
    /// The sum.
    Sum,
    /// The arithmetic mean.
    Avg,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
    /// The number of series.
    Count,
    /// 1 for every group.
    Group,
    /// The population standard deviation.
    Stddev,
    /// The population variance.
    Stdvar,
    /// The `k` series with the largest values.
    Topk,
    /// The `k` series with the smallest values.
    Bottomk,
    /// The φ-quantile over series.
    Quantile,
    /// The number of series with each value.
    CountValues,
    /// Any `k` series.
    Limitk,
    /// A share of the series.
    LimitRatio,
}

impl AggregateOp {
    /// Every operator.
    pub const ALL: [AggregateOp; 14] = [
        AggregateOp::Sum,
        AggregateOp::Avg,
        AggregateOp::Min,
        AggregateOp::Max,
        AggregateOp::Count,
        AggregateOp::Group,
        AggregateOp::Stddev,
        AggregateOp::Stdvar,
        AggregateOp::Topk,
        AggregateOp::Bottomk,
        AggregateOp::Quantile,
        AggregateOp::CountValues,
        AggregateOp::Limitk,
        AggregateOp::LimitRatio,
    ];

    /// The operator as written.
    pub fn as_str(self) -> &'static str {
        match self {
            AggregateOp::Sum => "sum",
            AggregateOp::Avg => "avg",
            AggregateOp::Min => "min",
            AggregateOp::Max => "max",
            AggregateOp::Count => "count",
            AggregateOp::Group => "group",
            AggregateOp::Stddev => "stddev",
            AggregateOp::Stdvar => "stdvar",
            AggregateOp::Topk => "topk",
            AggregateOp::Bottomk => "bottomk",
            AggregateOp::Quantile => "quantile",
            AggregateOp::CountValues => "count_values",
            AggregateOp::Limitk => "limitk",
            AggregateOp::LimitRatio => "limit_ratio",
        }
    }

    /// The type of the parameter, for operators that take one.
    pub fn param_type(self) -> Option<ValueType> {
        match self {
            AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::Quantile
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio => Some(ValueType::Scalar),
            AggregateOp::CountValues => Some(ValueType::String),
            _ => None,
        }
    }

    /// Whether Prometheus has this behind a feature flag.
    pub fn is_experimental(self) -> bool {
        matches!(self, AggregateOp::Limitk | AggregateOp::LimitRatio)
    }
}

/// An aggregation over series.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: Box<Expr>,
    /// The parameter, for operators that take one.
    pub param: Option<Box<Expr>>,
    /// The labels of `by` or `without`.
    pub grouping: Vec<Arc<str>>,
    /// Whether `grouping` names the labels to drop and not those to keep.
    pub without: bool,
}

impl Expr {
    /// The type of the expression's value.
    pub fn value_type(&self) -> ValueType {
        let mut expr = self;
        while let ExprKind::Paren(inner) | ExprKind::Unary(Unary { expr: inner, .. }) = &expr.kind {
            expr = inner;
        }
        match &expr.kind {
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::Vector(_) | ExprKind::Aggregate(_) => ValueType::Vector,
            ExprKind::Matrix(_) | ExprKind::Subquery(_) => ValueType::Matrix,
            ExprKind::Call(call) => call.function.returns,
            ExprKind::Binary(binary) => {
                let scalar = |e: &Expr| e.value_type() == ValueType::Scalar;
                if scalar(&binary.lhs) && scalar(&binary.rhs) {
                    ValueType::Scalar
                } else {
                    ValueType::Vector
                }
            }
            ExprKind::Paren(inner) | ExprKind::Unary(Unary { expr: inner, .. }) => {
                inner.value_type()
            }
        }
    }

    /// The expression inside any parentheses around it.
    pub fn unparenthesised(&self) -> &Expr {
        let mut expr = self;
        while let ExprKind::Paren(inner) = &expr.kind {
            expr = inner;
        }
        expr
    }

    /// The direct parts of this expression, in the order of their text; an aggregation's
    /// parameter comes first.
    pub fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            ExprKind::Number(_) | ExprKind::String(_) => Vec::new(),
            ExprKind::Vector(_) | ExprKind::Matrix(_) => Vec::new(),
            ExprKind::Subquery(subquery) => vec![&subquery.expr],
            ExprKind::Unary(unary) => vec![&unary.expr],
            ExprKind::Paren(inner) => vec![inner],
            ExprKind::Binary(binary) => vec![&binary.lhs, &binary.rhs],
            // A label selector is no expression: it is never evaluated by itself.
            ExprKind::Call(call) if call.function.takes_label_selector => {
                call.args.first().into_iter().collect()
            }
            ExprKind::Call(call) => call.args.iter().collect(),
            ExprKind::Aggregate(aggregate) => aggregate
                .param
                .iter()
                .map(|param| &**param)
                .chain([&*aggregate.expr])
                .collect(),
        }
    }
}
