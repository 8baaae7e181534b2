//! Label matchers.
//!
//! A matcher tests one label; an absent label has the value `""`. Regular expressions are
//! RE2 as Prometheus 3 uses it: anchored on both sides, `.` matches a newline, and the
//! Perl classes are ASCII. They are translated to the `regex` crate's dialect by
//! [`translate`], not passed through, because the two differ (`\d` is Unicode there, `&&`
//! and `[[` mean set operations there, `\Q…\E` is unknown there).

use std::fmt;
use std::sync::Arc;

use regex::Regex;

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

/// Translates RE2 syntax into the `regex` crate's.
///
/// # Errors
/// A sentence on what is wrong, for syntax that RE2 itself refuses (trailing backslash,
/// repeat counts above 1000, repetitions of repetitions, look-around and back-references).
pub fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    let mut repeated = false;
    while let Some(c) = chars.next() {
        let after_repetition = std::mem::take(&mut repeated);
        match c {
            '\\' => {
                let Some(escaped) = chars.next() else {
                    return Err("trailing backslash at end of expression".to_owned());
                };
                match escaped {
                    // RE2's Perl classes are ASCII.
                    'd' => out.push_str(if in_class { "0-9" } else { "[0-9]" }),
                    'w' => out.push_str(if in_class {
                        "0-9A-Za-z_"
                    } else {
                        "[0-9A-Za-z_]"
                    }),
                    's' => out.push_str(if in_class {
                        r"\t\n\f\r "
                    } else {
                        r"[\t\n\f\r ]"
                    }),
                    'D' => out.push_str("[^0-9]"),
                    'W' => out.push_str("[^0-9A-Za-z_]"),
                    'S' => out.push_str(r"[^\t\n\f\r ]"),
                    'b' if !in_class => out.push_str(r"(?-u:\b)"),
                    'B' if !in_class => out.push_str(r"(?-u:\B)"),
                    'Q' => {
                        let mut literal = String::new();
                        while let Some(c) = chars.next() {
                            if c == '\\' && chars.peek() == Some(&'E') {
                                chars.next();
                                break;
                            }
                            literal.push(c);
                        }
                        out.push_str(&regex::escape(&literal));
                    }
                    // `\<` and `\>` are word boundaries in the crate, plain characters in RE2.
                    '<' | '>' => out.push(escaped),
                    'C' => return Err("invalid escape sequence: `\\C`".to_owned()),
                    c => {
                        out.push('\\');
                        out.push(c);
                    }
                }
            }
            '[' if in_class => {
                // `[[:alpha:]]` is shared; any other `[` inside a class is literal in RE2.
                out.push_str(if chars.peek() == Some(&':') {
                    "["
                } else {
                    r"\["
                });
                if chars.peek() == Some(&':') {
                    for c in chars.by_ref() {
                        out.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                }
            }
            '[' => {
                in_class = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
                // A `]` right after the opening is literal in both dialects.
                if chars.peek() == Some(&']') {
                    chars.next();
                    out.push_str(r"\]");
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            // Set operations of the crate; plain characters in RE2.
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '-' if in_class && chars.peek() == Some(&'-') => out.push_str(r"\-"),
            '{' if !in_class => match repeat(&chars.clone().collect::<String>()) {
                Some(counts) => {
                    if counts.iter().flatten().any(|count| *count > 1000) {
                        return Err("invalid repeat count: above 1000".to_owned());
                    }
                    out.push('{');
                    out.extend(chars.by_ref().take_while(|c| *c != '}'));
                    out.push('}');
                    repeated = true;
                }
                None => out.push_str(r"\{"),
            },
            '*' | '+' | '?' if !in_class => {
                out.push(c);
                repeated = true;
            }
            c => out.push(c),
        }
        if repeated {
            // `a**` is `(a*)*` in the crate and an error in RE2.
            if after_repetition {
                return Err("invalid nested repetition operator".to_owned());
            }
            out.extend(chars.next_if_eq(&'?'));
        }
    }
    if in_class {
        return Err("missing closing ]".to_owned());
    }
    Ok(out)
}

/// The counts of `n}`, `n,}` or `n,m}` at the start of `rest`; anything else is literal text.
fn repeat(rest: &str) -> Option<[Option<u32>; 2]> {
    let (inside, _) = rest.split_once('}')?;
    let (low, high) = match inside.split_once(',') {
        Some((low, "")) => (low, None),
        Some((low, high)) => (low, Some(high)),
        None => (inside, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(low) || high.is_some_and(|high| !digits(high)) {
        return None;
    }
    let count = |text: &str| text.parse().unwrap_or(u32::MAX);
    Some([Some(count(low)), high.map(count)])
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
    fn re2_differs_from_the_regex_crate() {
        assert!(!matches(r"\d", "٣"), "Perl classes are ASCII");
        assert!(matches(r"[a&&b]", "&"));
        assert!(matches(r"[[x]", "["));
        assert!(matches(r"[[:alpha:]]+", "ab"));
        assert!(matches(r"\Qa.b\E", "a.b"));
        assert!(!matches(r"\Qa.b\E", "axb"));
        assert!(matches("a{,2}", "a{,2}"));
        assert!(matches("x{", "x{"));
        assert!(matches(r"\<a\>", "<a>"));
        assert!(matches(r"[]a]", "]"));
        assert!(matches(r"a*?b??c{1,2}?[*+?]+\*+(?:x?)*", "aabcc+***"));
    }

    #[test]
    fn invalid_patterns_say_why() {
        let error = Matcher::new("l", MatchOp::Regex, "a(").unwrap_err();
        assert!(error.to_string().contains("unclosed group"), "{error}");
        assert!(Matcher::new("l", MatchOp::Regex, "a{1001}").is_err());
        assert!(Matcher::new("l", MatchOp::Regex, r"a\").is_err());
        assert!(Matcher::new("l", MatchOp::Regex, "(?=a)").is_err());
        for nested in ["a**", "a+*", "a{2}*", "a??+", "a*{2}"] {
            assert!(
                Matcher::new("l", MatchOp::Regex, nested).is_err(),
                "{nested}"
            );
        }
        assert!(Matcher::new("l", MatchOp::Regex, "x".repeat(20_000)).is_err());
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
