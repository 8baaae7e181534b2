//! Label matchers.
//!
//! A matcher tests one label; an absent label has the value `""`. Regular expressions are
//! RE2 as Prometheus 3 uses it: anchored on both sides, and `.` matches a newline. They are
//! translated to the `regex` crate's dialect by [`crate::re2`].

use std::fmt;
use std::sync::Arc;

use regex::Regex;

use crate::re2::translate;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// The operator as PromQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        }
    }
}

/// Why a matcher can't be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid regular expression {pattern:?}: {reason}")]
pub struct MatcherError {
    /// The pattern as written.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A test of one label.
#[derive(Clone)]
pub struct Matcher {
    name: Arc<str>,
    op: MatchOp,
    value: Arc<str>,
    regex: Option<Regex>,
    alternatives: Option<Vec<Box<str>>>,
}

/// The longest pattern accepted, in bytes; a limit so that one query can't take the memory.
const PATTERN_BYTES_MAX: usize = 16 * 1024;

impl Matcher {
    /// A matcher of `name` against `value`.
    ///
    /// # Errors
    /// For the two regex operators, when the pattern is not valid RE2 or is too large.
    pub fn new(
        name: impl Into<Arc<str>>,
        op: MatchOp,
        value: impl Into<Arc<str>>,
    ) -> Result<Self, MatcherError> {
        let (name, value) = (name.into(), value.into());
        let (mut regex, mut alternatives) = (None, None);
        if matches!(op, MatchOp::Regex | MatchOp::NotRegex) {
            regex = Some(compile(&value)?);
            alternatives = literal_alternatives(&value);
        }
        Ok(Matcher {
            name,
            op,
            value,
            regex,
            alternatives,
        })
    }

    /// The matcher `name="value"`.
    pub fn equal(name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Matcher {
            name: name.into(),
            op: MatchOp::Equal,
            value: value.into(),
            regex: None,
            alternatives: None,
        }
    }

    /// The label tested.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The comparison.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// The value or pattern compared with, as written.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a label of this value (`""` where absent) passes.
    pub fn matches(&self, value: &str) -> bool {
        match self.op {
            MatchOp::Equal => *self.value == *value,
            MatchOp::NotEqual => *self.value != *value,
            MatchOp::Regex => self.regex_matches(value),
            MatchOp::NotRegex => !self.regex_matches(value),
        }
    }

    /// The literal values that are all a `=~` pattern can match, when it is a plain
    /// alternation such as `a|b`; lets an index look values up instead of scanning.
    pub fn literals(&self) -> Option<&[Box<str>]> {
        self.alternatives.as_deref()
    }

    fn regex_matches(&self, value: &str) -> bool {
        match (&self.alternatives, &self.regex) {
            (Some(alternatives), _) => alternatives.iter().any(|a| **a == *value),
            (None, Some(regex)) => regex.is_match(value),
            (None, None) => false,
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.as_str(), self.value)
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.op == other.op && self.value == other.value
    }
}

/// Compiles an RE2 pattern, anchored on both sides, `.` matching newlines.
///
/// # Errors
/// When the pattern is longer than 16 KiB, not valid, or compiles to more than 4 MiB.
pub fn compile(pattern: &str) -> Result<Regex, MatcherError> {
    let fail = |reason: String| MatcherError {
        pattern: pattern.to_owned(),
        reason,
    };
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(fail(format!("longer than {PATTERN_BYTES_MAX} bytes")));
    }
    let translated = translate(pattern).map_err(&fail)?;
    regex::RegexBuilder::new(&format!("^(?s:{translated})$"))
        .size_limit(4 << 20)
        .nest_limit(100)
        .build()
        .map_err(|error| fail(last_line(&error.to_string())))
}

fn last_line(text: &str) -> String {
    text.lines()
        .last()
        .unwrap_or(text)
        .trim_start_matches("error: ")
        .to_owned()
}

fn literal_alternatives(pattern: &str) -> Option<Vec<Box<str>>> {
    let plain =
        |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ':' | '/' | ' ' | ',' | '|');
    pattern
        .chars()
        .all(plain)
        .then(|| pattern.split('|').map(Box::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        Matcher::new("l", MatchOp::Regex, pattern)
            .unwrap()
            .matches(value)
    }

    #[test]
    fn regexes_are_anchored_and_dot_matches_newline() {
        assert!(matches("a.c", "a\nc"));
        assert!(!matches("b", "abc"));
        assert!(matches("a|b", "b"));
        assert!(!matches("a|b", "ab"));
        assert!(matches("", ""));
    }

    #[test]
    fn invalid_patterns_say_why() {
        let error = Matcher::new("l", MatchOp::Regex, "a(").unwrap_err();
        assert!(error.to_string().contains("unclosed group"), "{error}");
    }

    #[test]
    fn negative_matchers_accept_absence() {
        assert!(
            Matcher::new("l", MatchOp::NotEqual, "a")
                .unwrap()
                .matches("")
        );
        assert!(
            Matcher::new("l", MatchOp::NotRegex, "a.*")
                .unwrap()
                .matches("")
        );
    }
}
