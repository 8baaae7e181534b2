//! What is wrong with a query, and where.

use std::fmt;

use crate::ast::Span;

/// Why a text is not a query.
///
/// Prints as Prometheus does, `line:column: parse error: message`; [`ParseError::render`]
/// also shows the line with the place underlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The place, in bytes of the text that was parsed.
    pub span: Span,
    /// The line of the place, from 1.
    pub line: usize,
    /// The column of the place in characters, from 1.
    pub column: usize,
    /// What is wrong and what was expected.
    pub message: String,
}

impl ParseError {
    pub(crate) fn new(source: &str, span: Span, message: impl Into<String>) -> Self {
        let (line, column) = position(source, span.start);
        ParseError {
            span,
            line,
            column,
            message: message.into(),
        }
    }

    /// The message with the line of `source` it is about and the place underlined.
    ///
    /// `source` is the text that was parsed; with another text the underline is off, but
    /// nothing worse happens.
    pub fn render(&self, source: &str) -> String {
        let start = floor_boundary(source, self.span.start);
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..]
            .find('\n')
            .map_or(source.len(), |at| start + at);
        let line = &source[line_start..line_end];
        let end = floor_boundary(source, self.span.end).clamp(start, line_end);
        // A tab keeps its width in the line of marks, so that they stand below their text.
        let pad: String = source[line_start..start]
            .chars()
            .map(|c| if c == '\t' { c } else { ' ' })
            .collect();
        let marks = "^".repeat(source[start..end].chars().count().max(1));
        format!(
            "{}:{}: parse error: {}\n  {line}\n  {pad}{marks}",
            self.line, self.column, self.message
        )
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: parse error: {}",
            self.line, self.column, self.message
        )
    }
}

impl std::error::Error for ParseError {}

/// Line and column, both from 1, of a byte of `source`; the column counts characters.
pub fn position(source: &str, byte: usize) -> (usize, usize) {
    let before = &source[..floor_boundary(source, byte)];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

fn floor_boundary(source: &str, byte: usize) -> usize {
    let mut at = byte.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underlines_the_place_on_its_line() {
        let source = "sum(\n\trate(x[5m]) foo\n)";
        let at = source.find("foo").unwrap();
        let error = ParseError::new(source, Span::new(at, at + 3), "unexpected \"foo\"");
        assert_eq!((error.line, error.column), (2, 14));
        assert_eq!(
            error.render(source),
            "2:14: parse error: unexpected \"foo\"\n  \trate(x[5m]) foo\n  \t            ^^^"
        );
    }

    #[test]
    fn marks_stand_below_wide_text_and_past_the_end() {
        let source = "{\"ü\"";
        let error = ParseError::new(source, Span::new(source.len(), source.len()), "x");
        assert!(error.render(source).ends_with("\n      ^"));
        assert_eq!(error.column, 5);
        let elsewhere = ParseError::new(source, Span::new(2, 900), "x");
        assert!(
            elsewhere.render("").contains("^"),
            "another text does no harm"
        );
    }
}
