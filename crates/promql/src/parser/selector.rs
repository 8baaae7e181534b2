//! Vector selectors: `up{job="a"}`, `{"http.requests", "zone"=~"eu.*"}`.

use slogate_series::{METRIC_NAME, MatchOp, Matcher};

use crate::ast::{ExprKind, LabelMatcher, Span, VectorSelector};
use crate::error::ParseError;
use crate::lexer::TokenKind;
use crate::parser::{Parsed, Parser};

impl Parser<'_> {
    /// A selector, at its name or its opening brace.
    pub(super) fn selector(&mut self) -> Result<Parsed, ParseError> {
        let parsed = self.unchecked_selector()?;
        if let ExprKind::Vector(selector) = &parsed.expr.kind {
            self.check_selector(selector, parsed.expr.span)?;
        }
        Ok(parsed)
    }

    /// As [`Parser::selector`]; it may select everything.
    pub(super) fn unchecked_selector(&mut self) -> Result<Parsed, ParseError> {
        let start = self.token().span;
        let mut selector = VectorSelector::default();
        if self.peek() != TokenKind::LeftBrace {
            selector.name = Some(self.text().into());
            self.advance();
        }
        if self.peek() == TokenKind::LeftBrace {
            self.advance();
            self.matchers(&mut selector)?;
        }
        let span = Span::new(start.start, self.previous_end());
        Ok(Parsed::leaf(ExprKind::Vector(selector), span))
    }

    fn matchers(&mut self, selector: &mut VectorSelector) -> Result<(), ParseError> {
        while self.peek() != TokenKind::RightBrace {
            self.matcher(selector)?;
            if self.peek() != TokenKind::Comma {
                break;
            }
            self.advance();
        }
        self.expect(TokenKind::RightBrace, "\",\" or \"}\" in label matching")?;
        Ok(())
    }

    /// `label="value"`, or a quoted metric name.
    fn matcher(&mut self, selector: &mut VectorSelector) -> Result<(), ParseError> {
        let start = self.token().span;
        let (label, quoted) = match self.peek() {
            TokenKind::Ident => {
                let text = self.text().to_owned();
                self.advance();
                (text, false)
            }
            TokenKind::String => (self.string()?, true),
            _ => return Err(self.unexpected("a label name or \"}\"")),
        };
        let op = match self.peek() {
            TokenKind::Assign => MatchOp::Equal,
            TokenKind::Ne => MatchOp::NotEqual,
            TokenKind::RegexMatch => MatchOp::Regex,
            TokenKind::RegexNotMatch => MatchOp::NotRegex,
            TokenKind::Comma | TokenKind::RightBrace if quoted => {
                return self.quoted_name(selector, label, start);
            }
            _ => return Err(self.unexpected("a label matching operator: =, !=, =~ or !~")),
        };
        self.advance();
        if self.peek() != TokenKind::String {
            return Err(self.unexpected("a string in quotes"));
        }
        let value_span = self.token().span;
        let value = self.string()?;
        if label == METRIC_NAME
            && let Some(name) = &selector.name
        {
            let message = format!("metric name must not be set twice: {name:?} or {value:?}");
            return Err(self.fail(start.to(value_span), message));
        }
        let matcher = Matcher::new(label, op, value)
            .map_err(|error| self.fail(value_span, error.to_string()))?;
        selector.matchers.push(LabelMatcher {
            matcher,
            span: start.to(value_span),
        });
        Ok(())
    }

    fn quoted_name(
        &self,
        selector: &mut VectorSelector,
        name: String,
        span: Span,
    ) -> Result<(), ParseError> {
        let matched = selector
            .matchers
            .iter()
            .find(|m| m.matcher.name() == METRIC_NAME)
            .map(|m| &m.matcher);
        let earlier = selector.name.as_deref().or(matched.map(Matcher::value));
        if let Some(earlier) = earlier {
            let message = format!("metric name must not be set twice: {earlier:?} or {name:?}");
            return Err(self.fail(span, message));
        }
        selector.name = Some(name.into());
        Ok(())
    }

    fn check_selector(&self, selector: &VectorSelector, span: Span) -> Result<(), ParseError> {
        let named = selector.name.as_ref().is_some_and(|name| !name.is_empty());
        if named || selector.matchers.iter().any(|m| !m.matcher.matches("")) {
            return Ok(());
        }
        let message = "vector selector must contain at least one non-empty matcher: one that does \
                       not also match the empty string";
        Err(self.fail(span, message))
    }
}
