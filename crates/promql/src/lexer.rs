//! Text to tokens.
//!
//! Keywords are not tokens of their own: they are identifiers, and the parser tells by
//! place whether `sum` is an operator, a metric or a label. Only `inf` and `nan` are
//! numbers wherever a label name can't stand. A colon belongs to a metric name, except
//! inside brackets, where it parts a subquery's range from its step.
//!
//! A lexical error ends the token list; the parser reports it when it gets there, so that
//! the first mistake in the text is the one that is reported.

use crate::ast::Span;
use crate::error::ParseError;

/// What a token is. Its text is the source at its span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A name without a colon, keywords included.
    Ident,
    /// A metric name with a colon.
    MetricIdent,
    Number,
    Duration,
    String,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    At,
    /// `=`
    Assign,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Eq,
    Ne,
    Gt,
    Lt,
    Ge,
    Le,
    TrimUpper,
    TrimLower,
    /// `=~`
    RegexMatch,
    /// `!~`
    RegexNotMatch,
    End,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) span: Span,
}

/// The tokens of `source`, closed by [`TokenKind::End`]; where the text goes wrong lexically,
/// the tokens up to there and the error.
pub(crate) fn lex(source: &str) -> (Vec<Token>, Option<ParseError>) {
    let mut lexer = Lexer {
        source,
        at: 0,
        in_braces: false,
        in_brackets: false,
    };
    let mut tokens = Vec::new();
    loop {
        match lexer.next() {
            Ok(token) => {
                tokens.push(token);
                if token.kind == TokenKind::End {
                    return (tokens, None);
                }
            }
            Err(error) => {
                tokens.push(Token {
                    kind: TokenKind::End,
                    span: error.span,
                });
                return (tokens, Some(error));
            }
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    in_braces: bool,
    in_brackets: bool,
}

impl Lexer<'_> {
    fn next(&mut self) -> Result<Token, ParseError> {
        self.skip_blank();
        let start = self.at;
        let Some(first) = self.peek() else {
            return Ok(Token {
                kind: TokenKind::End,
                span: Span::new(start, start),
            });
        };
        let kind = match first {
            '"' | '\'' | '`' => self.string(first)?,
            '0'..='9' => self.number()?,
            '.' if self.second().is_some_and(|c| c.is_ascii_digit()) => self.number()?,
            c if is_name_start(c) => self.name(),
            ':' if !self.in_brackets && !self.in_braces => self.name(),
            c => self.symbol(c)?,
        };
        Ok(Token {
            kind,
            span: Span::new(start, self.at),
        })
    }

    fn peek(&self) -> Option<char> {
        self.source[self.at..].chars().next()
    }

    fn second(&self) -> Option<char> {
        self.source[self.at..].chars().nth(1)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) {
        while let Some(c) = self.peek().filter(|c| wanted(*c)) {
            self.at += c.len_utf8();
        }
    }

    fn skip_blank(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
            if self.peek() != Some('#') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn fail<T>(&self, start: usize, end: usize, message: String) -> Result<T, ParseError> {
        Err(ParseError::new(self.source, Span::new(start, end), message))
    }

    fn name(&mut self) -> TokenKind {
        let start = self.at;
        let colons = !self.in_braces && !self.in_brackets;
        self.take_while(|c| is_name_char(c) || (colons && c == ':'));
        let text = &self.source[start..self.at];
        if text.contains(':') {
            return TokenKind::MetricIdent;
        }
        let number = text.eq_ignore_ascii_case("inf") || text.eq_ignore_ascii_case("nan");
        if number && !self.in_braces {
            TokenKind::Number
        } else {
            TokenKind::Ident
        }
    }

    /// A number or a duration: everything that could belong to one, judged as a whole, so
    /// that `5mx` is one mistake and not a duration followed by a name.
    fn number(&mut self) -> Result<TokenKind, ParseError> {
        let start = self.at;
        let hex = self.source[start..].starts_with("0x") || self.source[start..].starts_with("0X");
        let mut previous = ' ';
        while let Some(c) = self.peek() {
            let exponent_sign = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E') && !hex;
            if !(is_name_char(c) || c == '.' || exponent_sign) {
                break;
            }
            previous = c;
            self.at += c.len_utf8();
        }
        let text = &self.source[start..self.at];
        if crate::literal::number(text).is_some() {
            return Ok(TokenKind::Number);
        }
        if crate::literal::looks_like_duration(text) {
            return Ok(TokenKind::Duration);
        }
        let message = format!(
            "bad number or duration syntax: {text:?}; expected a number such as 1.5, 1e3 or 0x1f, \
             or a duration such as 1h30m"
        );
        self.fail(start, self.at, message)
    }

    /// A string up to its closing quote; what escapes mean is decided when it is unquoted.
    fn string(&mut self, quote: char) -> Result<TokenKind, ParseError> {
        let start = self.at;
        self.at += quote.len_utf8();
        let mut escaped = false;
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            match c {
                _ if escaped => escaped = false,
                '\\' if quote != '`' => escaped = true,
                '\n' if quote != '`' => break,
                c if c == quote => return Ok(TokenKind::String),
                _ => {}
            }
        }
        let what = if quote == '`' {
            "raw string"
        } else {
            "quoted string"
        };
        self.fail(
            start,
            self.at,
            format!("unterminated {what}: expected a closing {quote}"),
        )
    }

    fn symbol(&mut self, first: char) -> Result<TokenKind, ParseError> {
        use TokenKind as T;
        let start = self.at;
        let second = self.second();
        let (kind, length) = match (first, second) {
            ('=', Some('=')) => (T::Eq, 2),
            ('=', Some('~')) => (T::RegexMatch, 2),
            ('=', _) => (T::Assign, 1),
            ('!', Some('=')) => (T::Ne, 2),
            ('!', Some('~')) => (T::RegexNotMatch, 2),
            ('>', Some('=')) => (T::Ge, 2),
            ('>', Some('/')) => (T::TrimLower, 2),
            ('>', _) => (T::Gt, 1),
            ('<', Some('=')) => (T::Le, 2),
            ('<', Some('/')) => (T::TrimUpper, 2),
            ('<', _) => (T::Lt, 1),
            ('+', _) => (T::Add, 1),
            ('-', _) => (T::Sub, 1),
            ('*', _) => (T::Mul, 1),
            ('/', _) => (T::Div, 1),
            ('%', _) => (T::Mod, 1),
            ('^', _) => (T::Pow, 1),
            (',', _) => (T::Comma, 1),
            ('@', _) => (T::At, 1),
            ('(', _) => (T::LeftParen, 1),
            (')', _) => (T::RightParen, 1),
            ('{', _) => (T::LeftBrace, 1),
            ('}', _) => (T::RightBrace, 1),
            ('[', _) => (T::LeftBracket, 1),
            (']', _) => (T::RightBracket, 1),
            (':', _) if self.in_brackets => (T::Colon, 1),
            (c, _) => {
                let end = start + c.len_utf8();
                return self.fail(start, end, format!("unexpected character: {c:?}"));
            }
        };
        match kind {
            T::LeftBrace => self.in_braces = true,
            T::RightBrace => self.in_braces = false,
            T::LeftBracket => self.in_brackets = true,
            T::RightBracket => self.in_brackets = false,
            _ => {}
        }
        self.at += length;
        Ok(kind)
    }
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(source: &str) -> Vec<TokenKind> {
        let (tokens, error) = lex(source);
        assert_eq!(error, None, "{source}");
        tokens.into_iter().map(|t| t.kind).collect()
    }

    #[test]
    fn a_colon_is_part_of_a_name_but_not_in_brackets() {
        use TokenKind as T;
        assert_eq!(kinds("a:b"), [T::MetricIdent, T::End]);
        assert_eq!(
            kinds("x[5m:1m]"),
            [
                T::Ident,
                T::LeftBracket,
                T::Duration,
                T::Colon,
                T::Duration,
                T::RightBracket,
                T::End
            ]
        );
    }

    #[test]
    fn numbers_durations_and_what_is_neither() {
        use TokenKind as T;
        for number in [
            "1", "1.", ".5", "1e3", "1E-3", "0x1F", "1_000", "inf", "NaN",
        ] {
            assert_eq!(kinds(number), [T::Number, T::End], "{number}");
        }
        for duration in ["5m", "1h30m", "100ms", "1y2w3d"] {
            assert_eq!(kinds(duration), [T::Duration, T::End], "{duration}");
        }
        for bad in ["5mx", "1.5h", "0x", "1e", "30m1h", "1..2", "0b1"] {
            let (_, error) = lex(bad);
            assert!(
                error.is_some_and(|e| e.span == Span::new(0, bad.len())),
                "{bad}"
            );
        }
    }

    #[test]
    fn comments_end_with_their_line() {
        use TokenKind as T;
        assert_eq!(
            kinds("a # b \" {\n+ c"),
            [T::Ident, T::Add, T::Ident, T::End]
        );
    }
}
