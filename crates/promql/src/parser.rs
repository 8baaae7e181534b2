//! Tokens to a tree: a Pratt parser, and the type rules of PromQL.
//!
//! Every limit is checked before the work it bounds: the text's length before the lexer,
//! nesting before the parser descends, the height of the tree as it grows (a chain such as
//! `a + b + …` is as deep a tree as nested parentheses). So neither parsing nor anything
//! that later walks the tree can overflow the stack.
//!
//! The first mistake is reported; there is no recovery, because a query is short.

mod check;
mod range;
mod selector;
mod suggest;

use std::borrow::Cow;
use std::sync::Arc;

use slogate_series::Matcher;

use crate::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Cardinality, Expr, ExprKind, NumberLiteral,
    Span, StringLiteral, Unary, VectorMatching,
};
use crate::error::ParseError;
use crate::function::Function;
use crate::lexer::{Token, TokenKind, lex};
use crate::literal;

/// The longest query accepted, in bytes.
pub const QUERY_BYTES_MAX: usize = 64 * 1024;

/// How deeply parentheses, calls and signs may nest.
pub const NESTING_MAX: usize = 128;

/// How high the tree may grow, chains of operators included.
pub const HEIGHT_MAX: usize = 400;

/// What the parser accepts beyond the stable language: one switch for each feature flag that
/// Prometheus has for it. The default is Prometheus's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseOptions {
    /// Functions and aggregations that are marked as experimental in [`crate::function`] and
    /// [`AggregateOp::is_experimental`]; `promql-experimental-functions`, off by default.
    pub experimental_functions: bool,
    /// Arithmetic in durations, `step()`, `range()`, `min_of()`, `max_of()` included;
    /// `promql-duration-expr`, on by default since Prometheus 3.14.
    pub duration_expressions: bool,
    /// `anchored` and `smoothed`; `promql-extended-range-selectors`, off by default.
    pub extended_range_selectors: bool,
    /// `fill()`, `fill_left()` and `fill_right()`; `promql-binop-fill-modifiers`, off by
    /// default.
    pub fill_modifiers: bool,
}

impl ParseOptions {
    /// Accepts all there is.
    pub const fn everything() -> Self {
        ParseOptions {
            experimental_functions: true,
            duration_expressions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
        }
    }
}

impl Default for ParseOptions {
    fn default() -> Self {
        ParseOptions {
            experimental_functions: false,
            duration_expressions: true,
            extended_range_selectors: false,
            fill_modifiers: false,
        }
    }
}

/// Parses a query: what Prometheus 3 accepts with no feature flags set.
///
/// # Errors
/// The first mistake, with its place.
pub fn parse(source: &str) -> Result<Expr, ParseError> {
    parse_with(source, ParseOptions::default())
}

/// Parses a query with `options`.
///
/// # Errors
/// The first mistake, with its place.
pub fn parse_with(source: &str, options: ParseOptions) -> Result<Expr, ParseError> {
    let mut parser = Parser::new(source, options)?;
    let parsed = parser.expression(0)?;
    if parser.peek() != TokenKind::End {
        return Err(parser.unexpected("an operator or the end of the query"));
    }
    Ok(parsed.expr)
}

/// Parses a lone series selector, for example `up{job="a"}`, into its matchers, that of the
/// metric's name included. Unlike in a query, it may select everything: whoever allows that
/// must bound what it costs.
///
/// # Errors
/// The first mistake, with its place; anything that is more than a selector is one.
pub fn parse_selector(source: &str) -> Result<Vec<Matcher>, ParseError> {
    let mut parser = Parser::new(source, ParseOptions::default())?;
    let is_name = matches!(parser.peek(), TokenKind::Ident | TokenKind::MetricIdent);
    if !is_name && parser.peek() != TokenKind::LeftBrace {
        return Err(parser.unexpected("a metric name or \"{\""));
    }
    let parsed = parser.unchecked_selector()?;
    match parsed.expr.kind {
        ExprKind::Vector(selector) if parser.peek() == TokenKind::End => {
            Ok(selector.all_matchers())
        }
        _ => Err(parser.unexpected("the end of the selector")),
    }
}

/// An expression and the height of its tree.
struct Parsed {
    expr: Expr,
    height: usize,
}

impl Parsed {
    fn leaf(kind: ExprKind, span: Span) -> Self {
        Parsed {
            expr: Expr { kind, span },
            height: 1,
        }
    }
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    lex_error: Option<ParseError>,
    at: usize,
    nesting: usize,
    options: ParseOptions,
}

/// What stands between the operator and the right side.
#[derive(Default)]
struct BinaryModifier {
    return_bool: Option<Span>,
    matching: Option<VectorMatching>,
    matching_span: Span,
}

/// The values for the left and for the right side.
type Fills = (Option<NumberLiteral>, Option<NumberLiteral>);

/// Whether it is `without`, and the labels.
type Grouping = (bool, Vec<Arc<str>>);

/// The binding strength of a sign: that of `*`, so that `-a ^ b` is `-(a ^ b)`.
const SIGN_STRENGTH: u8 = 5;

fn strength(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => SIGN_STRENGTH,
        BinaryOp::Pow => 6,
        _ => 3,
    }
}

impl<'a> Parser<'a> {
    /// A parser at the first token, of which there must be one.
    fn new(source: &'a str, options: ParseOptions) -> Result<Self, ParseError> {
        if source.len() > QUERY_BYTES_MAX {
            let span = Span::new(QUERY_BYTES_MAX, source.len());
            let message = format!(
                "query is {} bytes long; expected at most {QUERY_BYTES_MAX}",
                source.len()
            );
            return Err(ParseError::new(source, span, message));
        }
        let (tokens, lex_error) = lex(source);
        let parser = Parser {
            source,
            tokens,
            lex_error,
            at: 0,
            nesting: 0,
            options,
        };
        if parser.peek() == TokenKind::End {
            return Err(parser.unexpected_or("no expression found in input"));
        }
        Ok(parser)
    }

    fn expression(&mut self, strength_min: u8) -> Result<Parsed, ParseError> {
        let mut lhs = self.prefix()?;
        while let Some(op) = self.binary_operator() {
            let strength = strength(op);
            if strength < strength_min {
                break;
            }
            let op_span = self.advance().span;
            let modifier = self.binary_modifier()?;
            // `^` is right-associative, all others left-associative.
            let rhs_min = if op == BinaryOp::Pow {
                strength
            } else {
                strength + 1
            };
            let rhs = self.nested(|parser| parser.expression(rhs_min))?;
            lhs = self.binary(op, op_span, modifier, lhs, rhs)?;
        }
        Ok(lhs)
    }

    fn prefix(&mut self) -> Result<Parsed, ParseError> {
        let token = self.token();
        let parsed = match token.kind {
            TokenKind::Add | TokenKind::Sub => return self.sign(),
            TokenKind::Number | TokenKind::Duration => {
                let number = self.number_literal()?;
                Parsed::leaf(ExprKind::Number(number), token.span)
            }
            TokenKind::String => {
                let literal = self.string_literal()?;
                Parsed::leaf(ExprKind::String(literal), token.span)
            }
            TokenKind::LeftParen => self.parenthesis()?,
            TokenKind::Ident => self.identifier()?,
            TokenKind::MetricIdent | TokenKind::LeftBrace => self.selector()?,
            _ => return Err(self.unexpected("an expression")),
        };
        self.postfix(parsed)
    }

    fn sign(&mut self) -> Result<Parsed, ParseError> {
        let token = self.advance();
        let inner = self.nested(|parser| parser.expression(SIGN_STRENGTH + 1))?;
        self.check_sign(&inner.expr)?;
        let span = token.span.to(inner.expr.span);
        let negative = token.kind == TokenKind::Sub;
        let height = inner.height;
        let expr = Box::new(inner.expr);
        self.grow(ExprKind::Unary(Unary { negative, expr }), span, height)
    }

    fn parenthesis(&mut self) -> Result<Parsed, ParseError> {
        let open = self.advance().span;
        let inner = self.nested(|parser| parser.expression(0))?;
        let close = self.expect(TokenKind::RightParen, "\")\" or an operator")?;
        let height = inner.height;
        self.grow(
            ExprKind::Paren(Box::new(inner.expr)),
            open.to(close),
            height,
        )
    }

    /// A name: an aggregation, a call or a metric, by what follows it.
    fn identifier(&mut self) -> Result<Parsed, ParseError> {
        let text = self.text();
        let next = self.peek_second();
        let by_or_without = next == TokenKind::Ident && {
            let span = self
                .tokens
                .get(self.at + 1)
                .map_or_else(Span::default, |t| t.span);
            is_keyword(&self.source[span.start..span.end], &["by", "without"])
        };
        let op = AggregateOp::ALL
            .into_iter()
            .find(|op| text.eq_ignore_ascii_case(op.as_str()));
        match op {
            Some(op) if next == TokenKind::LeftParen || by_or_without => self.aggregate(op),
            _ if next == TokenKind::LeftParen => self.call(),
            _ if is_keyword(text, &OPERATOR_KEYWORDS) => Err(self.unexpected("an expression")),
            _ => self.selector(),
        }
    }

    fn call(&mut self) -> Result<Parsed, ParseError> {
        let name = self.advance().span;
        let text = &self.source[name.start..name.end];
        let Some(function) = Function::find(text) else {
            return Err(self.fail(name, suggest::unknown_function(text)));
        };
        if function.is_experimental && !self.options.experimental_functions {
            let message = format!("function {text:?} is not enabled: it is experimental");
            return Err(self.fail(name, message));
        }
        let (args, close, height) = self.arguments(function.takes_label_selector)?;
        let span = name.to(close);
        self.check_call(function, &args, span)?;
        self.grow(ExprKind::Call(Call { function, args }), span, height)
    }

    /// Arguments in parentheses, with the closing one's place and the tallest one's height.
    /// `label_selector_second`: the second one may be a selector that matches everything.
    fn arguments(
        &mut self,
        label_selector_second: bool,
    ) -> Result<(Vec<Expr>, Span, usize), ParseError> {
        self.expect(TokenKind::LeftParen, "\"(\"")?;
        let (mut args, mut height) = (Vec::new(), 0);
        if self.peek() == TokenKind::RightParen {
            return Ok((args, self.advance().span, height));
        }
        loop {
            let is_label_selector =
                label_selector_second && args.len() == 1 && self.peek() == TokenKind::LeftBrace;
            let arg = match is_label_selector {
                true => self.unchecked_selector()?,
                false => self.nested(|parser| parser.expression(0))?,
            };
            height = height.max(arg.height);
            args.push(arg.expr);
            if self.peek() != TokenKind::Comma {
                let close = self.expect(TokenKind::RightParen, "\",\" or \")\"")?;
                return Ok((args, close, height));
            }
            let comma = self.advance().span;
            if self.peek() == TokenKind::RightParen {
                let message = "trailing commas not allowed in function call args";
                return Err(self.fail(comma, message));
            }
        }
    }

    fn aggregate(&mut self, op: AggregateOp) -> Result<Parsed, ParseError> {
        let name = self.advance().span;
        if op.is_experimental() && !self.options.experimental_functions {
            let message = format!("{}() is experimental and not enabled", op.as_str());
            return Err(self.fail(name, message));
        }
        let before = self.grouping()?;
        let (mut args, close, height) = self.arguments(false)?;
        let mut span = name.to(close);
        let mut grouping = before;
        if grouping.is_none() {
            grouping = self.grouping()?;
            if grouping.is_some() {
                span.end = self.previous_end();
            }
        }
        let (without, grouping) = grouping.unwrap_or_default();
        let wanted = 1 + usize::from(op.param_type().is_some());
        if args.is_empty() {
            return Err(self.fail(span, "no arguments for aggregate expression provided"));
        }
        if args.len() != wanted {
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {}",
                args.len()
            );
            return Err(self.fail(span, message));
        }
        let expr = args.pop().map(Box::new);
        let param = args.pop().map(Box::new);
        let Some(expr) = expr else {
            return Err(self.fail(span, "no arguments for aggregate expression provided"));
        };
        let aggregate = Aggregate {
            op,
            expr,
            param,
            grouping,
            without,
        };
        self.check_aggregate(&aggregate)?;
        self.grow(ExprKind::Aggregate(aggregate), span, height)
    }

    /// `by (…)` or `without (…)`: whether it is `without`, and the labels.
    fn grouping(&mut self) -> Result<Option<Grouping>, ParseError> {
        for (keyword, without) in [("by", false), ("without", true)] {
            if self.take_keyword(keyword).is_some() {
                return Ok(Some((without, self.label_list()?)));
            }
        }
        Ok(None)
    }

    /// Label names in parentheses; a trailing comma is allowed.
    fn label_list(&mut self) -> Result<Vec<Arc<str>>, ParseError> {
        self.expect(TokenKind::LeftParen, "\"(\" and a list of labels")?;
        let mut labels = Vec::new();
        while self.peek() != TokenKind::RightParen {
            let label = match self.peek() {
                TokenKind::Ident => self.text().to_owned(),
                TokenKind::String => {
                    let span = self.token().span;
                    let label = literal::unquote(self.text()).map_err(|m| self.fail(span, m))?;
                    if label.is_empty() {
                        return Err(self.unexpected("a label name"));
                    }
                    label
                }
                _ => return Err(self.unexpected("a label name")),
            };
            self.advance();
            labels.push(label.into());
            if self.peek() != TokenKind::Comma {
                break;
            }
            self.advance();
        }
        self.expect(TokenKind::RightParen, "\",\" or \")\"")?;
        Ok(labels)
    }

    fn binary_operator(&self) -> Option<BinaryOp> {
        Some(match self.peek() {
            TokenKind::Add => BinaryOp::Add,
            TokenKind::Sub => BinaryOp::Sub,
            TokenKind::Mul => BinaryOp::Mul,
            TokenKind::Div => BinaryOp::Div,
            TokenKind::Mod => BinaryOp::Mod,
            TokenKind::Pow => BinaryOp::Pow,
            TokenKind::Eq => BinaryOp::Eq,
            TokenKind::Ne => BinaryOp::Ne,
            TokenKind::Gt => BinaryOp::Gt,
            TokenKind::Lt => BinaryOp::Lt,
            TokenKind::Ge => BinaryOp::Ge,
            TokenKind::Le => BinaryOp::Le,
            TokenKind::TrimUpper => BinaryOp::TrimUpper,
            TokenKind::TrimLower => BinaryOp::TrimLower,
            TokenKind::Ident => {
                let named = [
                    BinaryOp::And,
                    BinaryOp::Or,
                    BinaryOp::Unless,
                    BinaryOp::Atan2,
                ];
                let text = self.text();
                return named
                    .into_iter()
                    .find(|op| text.eq_ignore_ascii_case(op.as_str()));
            }
            _ => return None,
        })
    }

    fn binary_modifier(&mut self) -> Result<BinaryModifier, ParseError> {
        let return_bool = self.take_keyword("bool");
        let start = self.token().span;
        let on = self.take_keyword("on").is_some();
        let mut matching = None;
        if on || self.take_keyword("ignoring").is_some() {
            matching = Some(self.matching(on)?);
        }
        if let Some(fills) = self.fills()? {
            let matching = matching.get_or_insert_default();
            (matching.fill_left, matching.fill_right) = fills;
        }
        let end = match matching {
            Some(_) => self.previous_end(),
            None => start.start,
        };
        Ok(BinaryModifier {
            return_bool,
            matching,
            matching_span: Span::new(start.start, end),
        })
    }

    /// What follows `on` or `ignoring`.
    fn matching(&mut self, on: bool) -> Result<VectorMatching, ParseError> {
        let mut matching = VectorMatching {
            on,
            labels: self.label_list()?,
            ..VectorMatching::default()
        };
        for (keyword, many) in [
            ("group_left", Cardinality::ManyToOne),
            ("group_right", Cardinality::OneToMany),
        ] {
            if self.take_keyword(keyword).is_some() {
                matching.card = many;
                if self.peek() == TokenKind::LeftParen {
                    matching.include = self.label_list()?;
                }
                break;
            }
        }
        Ok(matching)
    }

    /// `fill(…)`, or `fill_left(…)` and `fill_right(…)` in either order. A name that no
    /// parenthesis follows is a metric.
    fn fills(&mut self) -> Result<Option<Fills>, ParseError> {
        let start = self.token().span;
        let mut fills: Option<Fills> = None;
        loop {
            let text = self.text();
            if self.peek() != TokenKind::Ident || self.peek_second() != TokenKind::LeftParen {
                break;
            }
            let (left, right) = fills.unwrap_or_default();
            let (of_left, of_right) = match text.to_ascii_lowercase().as_str() {
                "fill" if fills.is_none() => (true, true),
                "fill_left" if left.is_none() => (true, false),
                "fill_right" if right.is_none() => (false, true),
                _ => break,
            };
            self.advance();
            let value = Some(self.fill_value()?);
            fills = Some((
                if of_left { value } else { left },
                if of_right { value } else { right },
            ));
            if of_left && of_right {
                break;
            }
        }
        if fills.is_some() && !self.options.fill_modifiers {
            let span = Span::new(start.start, self.previous_end());
            return Err(self.fail(
                span,
                "binop fill modifiers are experimental and not enabled",
            ));
        }
        Ok(fills)
    }

    /// A number in parentheses.
    fn fill_value(&mut self) -> Result<NumberLiteral, ParseError> {
        self.expect(TokenKind::LeftParen, "\"(\"")?;
        let negative = match self.peek() {
            TokenKind::Sub => true,
            TokenKind::Add => false,
            _ => return self.fill_number(false),
        };
        self.advance();
        self.fill_number(negative)
    }

    fn fill_number(&mut self, negative: bool) -> Result<NumberLiteral, ParseError> {
        if !matches!(self.peek(), TokenKind::Number | TokenKind::Duration) {
            return Err(self.unexpected("a number to fill in"));
        }
        let mut number = self.number_literal()?;
        if negative {
            number.value = -number.value;
        }
        self.expect(TokenKind::RightParen, "\")\"")?;
        Ok(number)
    }

    fn binary(
        &mut self,
        op: BinaryOp,
        op_span: Span,
        modifier: BinaryModifier,
        lhs: Parsed,
        rhs: Parsed,
    ) -> Result<Parsed, ParseError> {
        let height = lhs.height.max(rhs.height);
        let return_bool = modifier.return_bool.is_some();
        let matching = self.check_binary(op, op_span, modifier, &lhs.expr, &rhs.expr)?;
        let span = lhs.expr.span.to(rhs.expr.span);
        let binary = Binary {
            op,
            lhs: Box::new(lhs.expr),
            rhs: Box::new(rhs.expr),
            return_bool,
            matching,
        };
        self.grow(ExprKind::Binary(binary), span, height)
    }

    fn number_literal(&mut self) -> Result<NumberLiteral, ParseError> {
        let (token, text) = (self.token(), self.text());
        let is_duration = token.kind == TokenKind::Duration;
        let value = if is_duration {
            literal::duration(text)
        } else {
            literal::number(text)
        };
        let Some(value) = value else {
            let message = if is_duration {
                "duration out of range"
            } else {
                "bad number"
            };
            return Err(self.fail(token.span, message));
        };
        self.advance();
        Ok(NumberLiteral { value, is_duration })
    }

    fn string(&mut self) -> Result<String, ParseError> {
        let span = self.token().span;
        let text = literal::unquote(self.text()).map_err(|why| self.fail_unquoting(span, &why))?;
        self.advance();
        Ok(text)
    }

    fn string_literal(&mut self) -> Result<StringLiteral, ParseError> {
        let span = self.token().span;
        let bytes =
            literal::unquote_bytes(self.text()).map_err(|why| self.fail_unquoting(span, &why))?;
        self.advance();
        Ok(match String::from_utf8_lossy(&bytes) {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => StringLiteral {
                text: text.into(),
                bytes: Some(bytes.into()),
            },
        })
    }

    fn fail_unquoting(&self, span: Span, why: &str) -> ParseError {
        self.fail(
            span,
            format!("error unquoting string {:?}: {why}", self.text()),
        )
    }

    // The token cursor. The list always ends with `End`, which is never passed.

    fn token(&self) -> Token {
        let end = Span::new(self.source.len(), self.source.len());
        self.tokens.get(self.at).copied().unwrap_or(Token {
            kind: TokenKind::End,
            span: end,
        })
    }

    fn peek(&self) -> TokenKind {
        self.token().kind
    }

    fn peek_second(&self) -> TokenKind {
        self.tokens
            .get(self.at + 1)
            .map_or(TokenKind::End, |token| token.kind)
    }

    fn text(&self) -> &'a str {
        let span = self.token().span;
        &self.source[span.start..span.end]
    }

    fn advance(&mut self) -> Token {
        let token = self.token();
        if token.kind != TokenKind::End {
            self.at += 1;
        }
        token
    }

    fn previous_end(&self) -> usize {
        self.at
            .checked_sub(1)
            .and_then(|at| self.tokens.get(at))
            .map_or(0, |t| t.span.end)
    }

    fn expect(&mut self, kind: TokenKind, expected: &str) -> Result<Span, ParseError> {
        if self.peek() == kind {
            return Ok(self.advance().span);
        }
        Err(self.unexpected(expected))
    }

    fn take_keyword(&mut self, keyword: &str) -> Option<Span> {
        let found = self.peek() == TokenKind::Ident && self.text().eq_ignore_ascii_case(keyword);
        found.then(|| self.advance().span)
    }

    fn nested<T>(
        &mut self,
        inside: impl FnOnce(&mut Self) -> Result<T, ParseError>,
    ) -> Result<T, ParseError> {
        if self.nesting == NESTING_MAX {
            let message = format!("expression nests more than {NESTING_MAX} levels deep");
            return Err(self.fail(self.token().span, message));
        }
        self.nesting += 1;
        let result = inside(self);
        self.nesting -= 1;
        result
    }

    /// A node above trees of at most `below` height.
    fn grow(&self, kind: ExprKind, span: Span, below: usize) -> Result<Parsed, ParseError> {
        if below >= HEIGHT_MAX {
            let message = format!(
                "expression has a chain of more than {HEIGHT_MAX} operators; put parts of it in \
                 parentheses"
            );
            return Err(self.fail(Span::new(span.start, span.end), message));
        }
        Ok(Parsed {
            expr: Expr { kind, span },
            height: below + 1,
        })
    }

    fn fail(&self, span: Span, message: impl Into<String>) -> ParseError {
        ParseError::new(self.source, span, message)
    }

    fn unexpected(&self, expected: &str) -> ParseError {
        let found = match self.peek() {
            TokenKind::End => "end of input".to_owned(),
            TokenKind::String => format!("string {}", self.text()),
            _ => format!("{:?}", self.text()),
        };
        self.unexpected_or(&format!("unexpected {found}, expected {expected}"))
    }

    /// The lexical error, if that is where the tokens end; else `message` at this token.
    fn unexpected_or(&self, message: &str) -> ParseError {
        match &self.lex_error {
            Some(error) if self.peek() == TokenKind::End => error.clone(),
            _ => self.fail(self.token().span, message),
        }
    }
}

/// Words that can name neither a metric nor anything else that starts an expression.
const OPERATOR_KEYWORDS: [&str; 6] = [
    "bool",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "atan2",
];

fn is_keyword(text: &str, keywords: &[&str]) -> bool {
    keywords
        .iter()
        .any(|keyword| text.eq_ignore_ascii_case(keyword))
}

#[cfg(test)]
mod tests;
