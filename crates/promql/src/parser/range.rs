//! What follows an expression: ranges, subqueries, `offset` and `@`; and durations.

use crate::ast::{
    AtModifier, Expr, ExprKind, Extension, MatrixSelector, Span, Subquery, ValueType,
};
use crate::duration::{DurationContext, DurationError, DurationExpr, DurationKind, DurationOp};
use crate::error::ParseError;
use crate::lexer::TokenKind;
use crate::parser::{Parsed, Parser, is_keyword};

/// Where a modifier goes: the offset and the `@` of a selector or subquery.
type Modifiers<'a> = (&'a mut Option<DurationExpr>, &'a mut Option<AtModifier>);

/// The binding strength of `^` in durations, the highest.
const POWER_STRENGTH: u8 = 3;

impl Parser<'_> {
    pub(super) fn postfix(&mut self, mut parsed: Parsed) -> Result<Parsed, ParseError> {
        loop {
            match self.peek() {
                TokenKind::LeftBracket => parsed = self.range(parsed)?,
                TokenKind::At => self.at_modifier(&mut parsed.expr)?,
                TokenKind::Ident if is_keyword(self.text(), &["offset"]) => {
                    self.offset(&mut parsed.expr)?;
                }
                TokenKind::Ident if is_keyword(self.text(), &["anchored"]) => {
                    self.extension(&mut parsed.expr, Extension::Anchored)?;
                }
                TokenKind::Ident if is_keyword(self.text(), &["smoothed"]) => {
                    self.extension(&mut parsed.expr, Extension::Smoothed)?;
                }
                _ => return Ok(parsed),
            }
        }
    }

    /// `[range]` or `[range:step]` after `parsed`.
    fn range(&mut self, parsed: Parsed) -> Result<Parsed, ParseError> {
        let open = self.advance().span;
        let range = self.duration(0)?;
        if self.peek() != TokenKind::Colon {
            let close = self.expect(TokenKind::RightBracket, "\":\" or \"]\"")?;
            return self.matrix(parsed, range, open.to(close));
        }
        self.advance();
        let step = match self.peek() {
            TokenKind::RightBracket => None,
            _ => Some(self.duration(0)?),
        };
        let close = self.expect(TokenKind::RightBracket, "a duration or \"]\"")?;
        let Parsed { expr, height } = parsed;
        if expr.value_type() != ValueType::Vector {
            let got = match expr.value_type() {
                ValueType::Matrix => "matrix",
                other => other.documented(),
            };
            let message = format!("subquery is only allowed on instant vector, got {got} instead");
            return Err(self.fail(expr.span, message));
        }
        for duration in [Some(&range), step.as_ref()].into_iter().flatten() {
            self.check_positive(duration)?;
        }
        let span = expr.span.to(close);
        let expr = Box::new(expr);
        let subquery = Subquery {
            expr,
            range,
            step,
            offset: None,
            at: None,
        };
        self.grow(ExprKind::Subquery(subquery), span, height)
    }

    fn matrix(
        &mut self,
        parsed: Parsed,
        range: DurationExpr,
        brackets: Span,
    ) -> Result<Parsed, ParseError> {
        let span = parsed.expr.span.to(brackets);
        let message = match parsed.expr.kind {
            ExprKind::Vector(selector) if selector.offset.is_none() && selector.at.is_none() => {
                self.check_positive(&range)?;
                let matrix = MatrixSelector { selector, range };
                return self.grow(ExprKind::Matrix(matrix), span, parsed.height);
            }
            ExprKind::Vector(selector) if selector.offset.is_some() => {
                "no offset modifiers allowed before range: write the range first"
            }
            ExprKind::Vector(_) => "no @ modifiers allowed before range: write the range first",
            _ => {
                "ranges only allowed for vector selectors; for other expressions write a \
                 subquery, for example [1h:1m]"
            }
        };
        Err(self.fail(brackets, message))
    }

    fn check_positive(&self, duration: &DurationExpr) -> Result<(), ParseError> {
        self.check_enabled(duration)?;
        if duration.is_constant()
            && let Err(error) = duration.resolve_positive_ms(DurationContext::default())
        {
            return Err(self.fail(duration.span, error.to_string()));
        }
        Ok(())
    }

    /// Refuses arithmetic where it is not enabled; a signed number is none.
    fn check_enabled(&self, duration: &DurationExpr) -> Result<(), ParseError> {
        let unsigned = match &duration.kind {
            DurationKind::Sign(_, inner) => inner,
            _ => duration,
        };
        if self.options.duration_expressions || matches!(unsigned.kind, DurationKind::Literal(_)) {
            return Ok(());
        }
        let message = "experimental duration expression is not enabled";
        Err(self.fail(duration.span, message))
    }

    fn offset(&mut self, expr: &mut Expr) -> Result<(), ParseError> {
        let keyword = self.advance().span;
        let duration = self.duration_operand()?;
        self.check_enabled(&duration)?;
        if duration.is_constant()
            && let Err(error @ (DurationError::OutOfRange | DurationError::DivisionByZero)) =
                duration.resolve_ms(DurationContext::default())
        {
            return Err(self.fail(duration.span, error.to_string()));
        }
        let Some((offset, _)) = modifiers(expr) else {
            let message = "offset modifier must be preceded by an instant vector selector or range \
                           vector selector or a subquery";
            return Err(self.fail(keyword, message));
        };
        if offset.is_some() {
            return Err(self.fail(keyword, "offset may not be set multiple times"));
        }
        *offset = Some(duration);
        expr.span.end = self.previous_end();
        Ok(())
    }

    fn extension(&mut self, expr: &mut Expr, extension: Extension) -> Result<(), ParseError> {
        let keyword = self.advance().span;
        let name = extension.as_str();
        if !self.options.extended_range_selectors {
            let message = format!("{name} modifier is experimental and not enabled");
            return Err(self.fail(keyword, message));
        }
        let selector = match &mut expr.kind {
            ExprKind::Vector(selector) => selector,
            ExprKind::Matrix(matrix) => &mut matrix.selector,
            ExprKind::Subquery(_) => {
                let message = format!("{name} modifier is not supported for subqueries");
                return Err(self.fail(keyword, message));
            }
            _ => return Err(self.fail(keyword, format!("{name} modifier not implemented"))),
        };
        if selector
            .extension
            .is_some_and(|earlier| earlier != extension)
        {
            let message = "anchored and smoothed modifiers cannot be used together";
            return Err(self.fail(keyword, message));
        }
        selector.extension = Some(extension);
        expr.span.end = self.previous_end();
        Ok(())
    }

    fn at_modifier(&mut self, expr: &mut Expr) -> Result<(), ParseError> {
        let sign = self.advance().span;
        let value = self.at_value()?;
        let Some((_, at)) = modifiers(expr) else {
            let message = "@ modifier must be preceded by an instant vector selector or range \
                           vector selector or a subquery";
            return Err(self.fail(sign, message));
        };
        if at.is_some() {
            return Err(self.fail(sign, "@ <timestamp> may not be set multiple times"));
        }
        *at = Some(value);
        expr.span.end = self.previous_end();
        Ok(())
    }

    fn at_value(&mut self) -> Result<AtModifier, ParseError> {
        for (keyword, value) in [("start", AtModifier::Start), ("end", AtModifier::End)] {
            if self.take_keyword(keyword).is_some() {
                self.expect(TokenKind::LeftParen, "\"()\"")?;
                self.expect(TokenKind::RightParen, "\")\"")?;
                return Ok(value);
            }
        }
        let start = self.token().span;
        let negative = match self.peek() {
            TokenKind::Sub => true,
            TokenKind::Add => false,
            _ => return self.at_timestamp(1.0, start),
        };
        self.advance();
        self.at_timestamp(if negative { -1.0 } else { 1.0 }, start)
    }

    fn at_timestamp(&mut self, sign: f64, start: Span) -> Result<AtModifier, ParseError> {
        if !matches!(self.peek(), TokenKind::Number | TokenKind::Duration) {
            return Err(self.unexpected("a timestamp in seconds, start() or end()"));
        }
        let span = start.to(self.token().span);
        let seconds = sign * self.number_literal()?.value;
        let ms = (seconds * 1000.0).round();
        // What an i64 of milliseconds holds.
        if ms.is_nan() || ms.abs() > 9.2e18 {
            let message = format!("timestamp out of bounds for @ modifier: {seconds:.6}");
            return Err(self.fail(span, message));
        }
        Ok(AtModifier::TimeMs(ms as i64))
    }

    /// A duration expression whose operators bind at least as strongly as `strength_min`.
    fn duration(&mut self, strength_min: u8) -> Result<DurationExpr, ParseError> {
        let mut lhs = self.duration_sign()?;
        let mut chain = 0;
        while let Some((op, strength)) = self.duration_operator() {
            if strength < strength_min {
                break;
            }
            chain += 1;
            if chain > super::HEIGHT_MAX {
                return Err(self.fail(self.token().span, "duration expression is too long"));
            }
            self.advance();
            let rhs_min = if op == DurationOp::Pow {
                strength
            } else {
                strength + 1
            };
            let rhs = self.nested(|parser| parser.duration(rhs_min))?;
            let span = lhs.span.to(rhs.span);
            let kind = DurationKind::Binary(op, Box::new(lhs), Box::new(rhs));
            lhs = DurationExpr { kind, span };
        }
        Ok(lhs)
    }

    fn duration_operator(&self) -> Option<(DurationOp, u8)> {
        Some(match self.peek() {
            TokenKind::Add => (DurationOp::Add, 1),
            TokenKind::Sub => (DurationOp::Sub, 1),
            TokenKind::Mul => (DurationOp::Mul, 2),
            TokenKind::Div => (DurationOp::Div, 2),
            TokenKind::Mod => (DurationOp::Mod, 2),
            TokenKind::Pow => (DurationOp::Pow, POWER_STRENGTH),
            _ => return None,
        })
    }

    /// An operand of an operator. A sign binds as strongly as `*`: `-2 ^ 2` is `-(2 ^ 2)`.
    fn duration_sign(&mut self) -> Result<DurationExpr, ParseError> {
        let sign = self.token();
        if !matches!(sign.kind, TokenKind::Add | TokenKind::Sub) {
            return self.duration_operand();
        }
        self.advance();
        let inner = self.nested(|parser| parser.duration(POWER_STRENGTH))?;
        let span = sign.span.to(inner.span);
        let kind = DurationKind::Sign(sign.kind == TokenKind::Sub, Box::new(inner));
        Ok(DurationExpr { kind, span })
    }

    /// One operand: all that `offset` takes without parentheses.
    fn duration_operand(&mut self) -> Result<DurationExpr, ParseError> {
        let start = self.token().span;
        let kind = match self.peek() {
            TokenKind::Number | TokenKind::Duration => {
                DurationKind::Literal(self.number_literal()?)
            }
            TokenKind::Add | TokenKind::Sub => {
                let negative = self.advance().kind == TokenKind::Sub;
                let inner = self.nested(Self::duration_operand)?;
                DurationKind::Sign(negative, Box::new(inner))
            }
            TokenKind::LeftParen => {
                self.advance();
                let inner = self.nested(|parser| parser.duration(0))?;
                self.expect(TokenKind::RightParen, "\")\"")?;
                DurationKind::Paren(Box::new(inner))
            }
            TokenKind::Ident if self.peek_second() == TokenKind::LeftParen => {
                self.duration_call()?
            }
            _ => return Err(self.unexpected("a duration such as 5m, or a number of seconds")),
        };
        Ok(DurationExpr {
            kind,
            span: Span::new(start.start, self.previous_end()),
        })
    }

    fn duration_call(&mut self) -> Result<DurationKind, ParseError> {
        let text = self.text();
        if is_keyword(text, &["step", "range"]) {
            let step = text.eq_ignore_ascii_case("step");
            self.advance();
            self.expect(TokenKind::LeftParen, "\"()\"")?;
            self.expect(TokenKind::RightParen, "\")\"")?;
            return Ok(if step {
                DurationKind::Step
            } else {
                DurationKind::Range
            });
        }
        if !is_keyword(text, &["min_of", "max_of"]) {
            return Err(self.unexpected("a duration, step(), range(), min_of() or max_of()"));
        }
        let smaller = text.eq_ignore_ascii_case("min_of");
        self.advance();
        self.expect(TokenKind::LeftParen, "\"(\"")?;
        let a = Box::new(self.nested(|parser| parser.duration(0))?);
        self.expect(TokenKind::Comma, "\",\"")?;
        let b = Box::new(self.nested(|parser| parser.duration(0))?);
        self.expect(TokenKind::RightParen, "\")\"")?;
        Ok(if smaller {
            DurationKind::MinOf(a, b)
        } else {
            DurationKind::MaxOf(a, b)
        })
    }
}

fn modifiers(expr: &mut Expr) -> Option<Modifiers<'_>> {
    match &mut expr.kind {
        ExprKind::Vector(selector) => Some((&mut selector.offset, &mut selector.at)),
        ExprKind::Matrix(matrix) => Some((&mut matrix.selector.offset, &mut matrix.selector.at)),
        ExprKind::Subquery(subquery) => Some((&mut subquery.offset, &mut subquery.at)),
        _ => None,
    }
}
