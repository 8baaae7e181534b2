//! The type rules: what may stand where.

use crate::ast::Span;
use crate::ast::{
    Aggregate, BinaryOp, Cardinality, Expr, ExprKind, ValueType, VectorMatching, VectorSelector,
};
use crate::error::ParseError;
use crate::function::Function;
use crate::parser::{BinaryModifier, Parser};

impl Parser<'_> {
    pub(super) fn check_sign(&self, inner: &Expr) -> Result<(), ParseError> {
        match inner.value_type() {
            ValueType::Scalar | ValueType::Vector => Ok(()),
            other => {
                let message = format!(
                    "unary expression only allowed on expressions of type scalar or instant \
                     vector, got {:?}",
                    other.documented()
                );
                Err(self.fail(inner.span, message))
            }
        }
    }

    pub(super) fn check_call(
        &self,
        function: &Function,
        args: &[Expr],
        span: Span,
    ) -> Result<(), ParseError> {
        let (min, max, got) = (function.args_min(), function.args_max(), args.len());
        let bound = match max {
            Some(max) if max == min && got != min => Some(format!("{min}")),
            _ if got < min => Some(format!("at least {min}")),
            Some(max) if got > max => Some(format!("at most {max}")),
            _ => None,
        };
        if let Some(bound) = bound {
            let message = format!(
                "expected {bound} argument(s) in call to {:?}, got {got}",
                function.name
            );
            return Err(self.fail(span, message));
        }
        if let Some(selector) = args.get(1).filter(|_| function.takes_label_selector) {
            let message = match &selector.kind {
                ExprKind::Vector(VectorSelector { name: None, .. }) => "",
                ExprKind::Vector(_) => "expected label selectors only, got vector selector instead",
                _ => "expected label selectors only",
            };
            if !message.is_empty() {
                return Err(self.fail(selector.span, message));
            }
        }
        for (at, arg) in args.iter().enumerate() {
            let context = || format!("call to function {:?}", function.name);
            if let Some(wanted) = function.arg_type(at) {
                self.check_type(arg, wanted, context)?;
            }
        }
        Ok(())
    }

    pub(super) fn check_aggregate(&self, aggregate: &Aggregate) -> Result<(), ParseError> {
        self.check_type(&aggregate.expr, ValueType::Vector, || {
            "aggregation expression".into()
        })?;
        if let (Some(param), Some(wanted)) = (&aggregate.param, aggregate.op.param_type()) {
            self.check_type(param, wanted, || "aggregation parameter".into())?;
        }
        Ok(())
    }

    fn check_type(
        &self,
        expr: &Expr,
        wanted: ValueType,
        context: impl FnOnce() -> String,
    ) -> Result<(), ParseError> {
        let got = expr.value_type();
        if got == wanted {
            return Ok(());
        }
        let hint = match (wanted, got) {
            (ValueType::Matrix, ValueType::Vector) => "; add a range, for example [5m]",
            (ValueType::Vector, ValueType::Matrix) => {
                "; apply a function such as rate(), or drop the range"
            }
            (ValueType::Vector, ValueType::Scalar) => "; wrap it in vector()",
            _ => "",
        };
        let message = format!(
            "expected type {} in {}, got {}{hint}",
            wanted.documented(),
            context(),
            got.documented()
        );
        Err(self.fail(expr.span, message))
    }

    /// The matching of a binary expression whose parts may be joined, `None` unless both
    /// sides are vectors.
    pub(super) fn check_binary(
        &self,
        op: BinaryOp,
        op_span: Span,
        modifier: BinaryModifier,
        lhs: &Expr,
        rhs: &Expr,
    ) -> Result<Option<VectorMatching>, ParseError> {
        if let Some(span) = modifier.return_bool.filter(|_| !op.is_comparison()) {
            return Err(self.fail(
                span,
                "bool modifier can only be used on comparison operators",
            ));
        }
        let types = (lhs.value_type(), rhs.value_type());
        for (side, ty) in [(lhs, types.0), (rhs, types.1)] {
            if !matches!(ty, ValueType::Scalar | ValueType::Vector) {
                let message = "binary expression must contain only scalar and instant vector types";
                return Err(self.fail(side.span, message));
            }
        }
        let both_scalar = types == (ValueType::Scalar, ValueType::Scalar);
        if op.is_comparison() && both_scalar && modifier.return_bool.is_none() {
            let message = format!(
                "comparisons between scalars must use BOOL modifier: write {} bool",
                op.as_str()
            );
            return Err(self.fail(op_span, message));
        }
        if types != (ValueType::Vector, ValueType::Vector) {
            if op.is_set() {
                let message = format!(
                    "set operator {:?} not allowed in binary scalar expression",
                    op.as_str()
                );
                return Err(self.fail(op_span, message));
            }
            let matching = modifier.matching.unwrap_or_default();
            if !matching.labels.is_empty() {
                let message = "vector matching only allowed between instant vectors";
                return Err(self.fail(modifier.matching_span, message));
            }
            if matching.fill_left.is_some() || matching.fill_right.is_some() {
                let message = "filling in missing series only allowed between instant vectors";
                return Err(self.fail(modifier.matching_span, message));
            }
            return Ok(None);
        }
        self.check_matching(op, modifier).map(Some)
    }

    fn check_matching(
        &self,
        op: BinaryOp,
        modifier: BinaryModifier,
    ) -> Result<VectorMatching, ParseError> {
        let mut matching = modifier.matching.unwrap_or_default();
        if op.is_set() {
            if matching.card != Cardinality::OneToOne {
                let message = format!("no grouping allowed for {:?} operation", op.as_str());
                return Err(self.fail(modifier.matching_span, message));
            }
            if matching.fill_left.is_some() || matching.fill_right.is_some() {
                let message = "filling in missing series not allowed for set operators";
                return Err(self.fail(modifier.matching_span, message));
            }
            matching.card = Cardinality::ManyToMany;
        }
        let twice = matching
            .include
            .iter()
            .find(|label| matching.labels.contains(label));
        if let Some(label) = twice.filter(|_| matching.on) {
            let message = format!("label {label:?} must not occur in ON and GROUP clause at once");
            return Err(self.fail(modifier.matching_span, message));
        }
        Ok(matching)
    }
}
