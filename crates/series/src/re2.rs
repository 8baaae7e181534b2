//! RE2 syntax, as Go reads it, translated into the `regex` crate's.
//!
//! The two look alike and differ in much: Perl classes are ASCII in RE2; `&&`, `--`, `~~`
//! and `[` in a class are set operations in the crate; `\Q…\E`, octal escapes and `{,n}` as
//! plain text are unknown to it, while it knows flags and escapes that RE2 refuses. So a
//! pattern is read here by RE2's rules, and what is written out has one meaning only.
//!
//! Policy: what RE2 refuses is refused. Two things that it takes are refused here as well: a
//! repetition of a flag group (`(?i)*`) and a group name that starts with a digit.

use std::iter::Peekable;
use std::str::Chars;

/// The most that RE2 repeats.
const REPEAT_MAX: u32 = 1000;

/// Translates RE2 syntax into the `regex` crate's.
///
/// # Errors
/// A sentence on what is wrong, for syntax that RE2 itself refuses: a trailing backslash, an
/// unknown escape or flag, repeat counts above 1000, repetitions of repetitions, look-around
/// and back-references. Some mistakes, such as an unclosed group, are left for the crate to
/// find.
pub fn translate(pattern: &str) -> Result<String, String> {
    let mut translator = Translator {
        rest: pattern.chars().peekable(),
        out: String::with_capacity(pattern.len() * 2),
        groups: 0,
    };
    translator.expression()?;
    Ok(translator.out)
}

struct Translator<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
    /// How many groups are open.
    groups: usize,
}

impl Translator<'_> {
    fn expression(&mut self) -> Result<(), String> {
        let mut repeated = false;
        while let Some(c) = self.rest.next() {
            let after_repetition = std::mem::take(&mut repeated);
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.group()?,
                ')' => {
                    self.groups = self
                        .groups
                        .checked_sub(1)
                        .ok_or("unexpected ): no group is open")?;
                    self.out.push(')');
                }
                '*' | '+' | '?' => {
                    self.out.push(c);
                    repeated = true;
                }
                '{' => match self.counts() {
                    Some(counts) => {
                        self.repeat(counts)?;
                        repeated = true;
                    }
                    None => self.literal('{'),
                },
                '.' | '^' | '$' | '|' => self.out.push(c),
                c => self.literal(c),
            }
            if repeated {
                // `a**` is `(a*)*` in the crate and an error in RE2.
                if after_repetition {
                    return Err("invalid nested repetition operator".to_owned());
                }
                self.out.extend(self.rest.next_if_eq(&'?'));
            }
        }
        Ok(())
    }

    fn literal(&mut self, c: char) {
        self.out
            .push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }

    /// After a backslash, outside a class.
    fn escape(&mut self) -> Result<(), String> {
        match self.rest.peek() {
            Some('A') => self.out.push_str(r"\A"),
            Some('z') => self.out.push_str(r"\z"),
            Some('b') => self.out.push_str(r"(?-u:\b)"),
            Some('B') => self.out.push_str(r"(?-u:\B)"),
            Some('Q') => {
                self.rest.next();
                return self.quoted();
            }
            Some('p' | 'P') => return self.unicode_class(),
            Some(c) if let Some((ranges, negated)) = perl_class(*c) => {
                let not = if negated { "^" } else { "" };
                self.out.push_str(&format!("[{not}{ranges}]"));
            }
            _ => {
                let c = self.escaped_char()?;
                self.literal(c);
                return Ok(());
            }
        }
        self.rest.next();
        Ok(())
    }

    /// `\Q…\E`: everything up to `\E` stands for itself.
    fn quoted(&mut self) -> Result<(), String> {
        while let Some(c) = self.rest.next() {
            if c == '\\' && self.rest.next_if_eq(&'E').is_some() {
                return Ok(());
            }
            self.literal(c);
        }
        // It would quote the end of the group that anchors the pattern.
        Err(r"missing \E after \Q".to_owned())
    }

    /// `\pN`, `\p{Greek}`, `\p{^Greek}`, and the same with `P`, at the `p`.
    fn unicode_class(&mut self) -> Result<(), String> {
        let mut negated = self.rest.next() == Some('P');
        let mut name = String::new();
        match self.rest.next() {
            Some('{') => loop {
                match self.rest.next() {
                    Some('}') => break,
                    Some('^') if name.is_empty() => negated = !negated,
                    Some(c) if c.is_ascii_alphanumeric() || matches!(c, '_' | ' ' | '-') => {
                        name.push(c);
                    }
                    _ => return Err("invalid character class range after \\p".to_owned()),
                }
            },
            Some(c) if c.is_ascii_alphabetic() => name.push(c),
            _ => return Err("invalid character class range after \\p".to_owned()),
        }
        let p = if negated { 'P' } else { 'p' };
        self.out.push_str(&format!("\\{p}{{{name}}}"));
        Ok(())
    }

    /// The character that an escape stands for, after the backslash.
    fn escaped_char(&mut self) -> Result<char, String> {
        let Some(c) = self.rest.next() else {
            return Err("trailing backslash at end of expression".to_owned());
        };
        let octal = |c: &char| ('0'..='7').contains(c);
        Ok(match c {
            'a' => '\x07',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '0'..='7' => {
                // A digit alone would be a back-reference, except 0.
                if c != '0' && !self.rest.peek().is_some_and(octal) {
                    return Err(format!("invalid escape sequence: `\\{c}`"));
                }
                let mut code = c.to_digit(8).unwrap_or_default();
                for _ in 0..2 {
                    let Some(digit) = self.rest.next_if(octal) else {
                        break;
                    };
                    code = code * 8 + digit.to_digit(8).unwrap_or_default();
                }
                char::from_u32(code).unwrap_or_default()
            }
            'x' => return self.hex(),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            c => return Err(format!("invalid escape sequence: `\\{c}`")),
        })
    }

    /// `41` or `{4e16}`, after `\x`.
    fn hex(&mut self) -> Result<char, String> {
        let mut digits = String::new();
        if self.rest.next_if_eq(&'{').is_some() {
            while let Some(c) = self.rest.next_if(char::is_ascii_hexdigit) {
                digits.push(c);
            }
            if self.rest.next() != Some('}') {
                digits.clear();
            }
        } else {
            digits.extend(self.rest.by_ref().take(2));
            if digits.len() != 2 {
                digits.clear();
            }
        }
        let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
        let code = u32::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
        code.and_then(char::from_u32)
            .ok_or_else(|| "invalid escape sequence: `\\x`".to_owned())
    }

    /// After an opening parenthesis: flags and names, if any.
    fn group(&mut self) -> Result<(), String> {
        if self.rest.next_if_eq(&'?').is_none() {
            self.groups += 1;
            self.out.push('(');
            return Ok(());
        }
        let mut text = String::new();
        let mut closed = None;
        // A name or flags; nothing that RE2 knows is longer.
        for c in self.rest.by_ref() {
            if matches!(c, ':' | ')' | '>') || c == '=' || c == '!' {
                closed = Some(c);
                break;
            }
            text.push(c);
        }
        let name = text.strip_prefix("P<").or_else(|| text.strip_prefix('<'));
        match (closed, name) {
            (Some('>'), Some(name)) if is_group_name(name) => {
                self.groups += 1;
                self.out.push_str(&format!("(?P<{name}>"));
            }
            (Some(end @ (':' | ')')), None) if are_flags(&text) => {
                if end == ':' {
                    self.groups += 1;
                }
                // The crate takes no empty flags, and they mean nothing.
                if end == ':' || !text.is_empty() {
                    self.out.push_str(&format!("(?{text}{end}"));
                }
            }
            _ => {
                let end = closed.map(String::from).unwrap_or_default();
                return Err(format!(
                    "invalid or unsupported Perl syntax: `(?{text}{end}`"
                ));
            }
        }
        Ok(())
    }

    /// The counts of `n}`, `n,}` or `n,m}` that follow; anything else is literal text.
    fn counts(&mut self) -> Option<(u32, Option<Option<u32>>)> {
        let mut ahead = self.rest.clone();
        let low = count(&mut ahead)?;
        let mut high = None;
        if ahead.next_if_eq(&',').is_some() {
            high = Some(match ahead.peek() {
                Some('}') => None,
                _ => Some(count(&mut ahead)?),
            });
        }
        ahead.next_if_eq(&'}')?;
        self.rest = ahead;
        Some((low, high))
    }

    fn repeat(&mut self, (low, high): (u32, Option<Option<u32>>)) -> Result<(), String> {
        let most = high.flatten().unwrap_or(low);
        if low > REPEAT_MAX || most > REPEAT_MAX || most < low {
            return Err("invalid repeat count: above 1000, or the most below the least".to_owned());
        }
        self.out.push_str(&match high {
            None => format!("{{{low}}}"),
            Some(None) => format!("{{{low},}}"),
            Some(Some(high)) => format!("{{{low},{high}}}"),
        });
        Ok(())
    }

    /// After an opening bracket: a class up to its closing one.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut is_first = true;
        loop {
            match self.rest.peek() {
                None => return Err("missing closing ]".to_owned()),
                // A bracket right after the opening stands for itself.
                Some(']') if !is_first => {
                    self.rest.next();
                    self.out.push(']');
                    return Ok(());
                }
                _ => self.class_item()?,
            }
            is_first = false;
        }
    }

    fn class_item(&mut self) -> Result<(), String> {
        if let Some(name) = self.posix_class() {
            if !POSIX_CLASSES.contains(&name.trim_start_matches('^')) {
                return Err(format!("invalid character class range: `[:{name}:]`"));
            }
            self.out.push_str(&format!("[:{name}:]"));
            return Ok(());
        }
        let mut ahead = self.rest.clone();
        if ahead.next_if_eq(&'\\').is_some() {
            match ahead.peek() {
                Some('p' | 'P') => {
                    self.rest = ahead;
                    return self.unicode_class();
                }
                Some(c) if let Some((ranges, negated)) = perl_class(*c) => {
                    self.out.push_str(&match negated {
                        true => format!("[^{ranges}]"),
                        false => ranges.to_owned(),
                    });
                    ahead.next();
                    self.rest = ahead;
                    return Ok(());
                }
                _ => {}
            }
        }
        let low = self.class_char()?;
        let mut ahead = self.rest.clone();
        let is_range = ahead.next_if_eq(&'-').is_some() && ahead.peek().is_some_and(|c| *c != ']');
        if !is_range {
            self.out.push_str(&code(low));
            return Ok(());
        }
        self.rest = ahead;
        let high = self.class_char()?;
        if high < low {
            return Err(format!("invalid character class range: `{low}-{high}`"));
        }
        self.out.push_str(&format!("{}-{}", code(low), code(high)));
        Ok(())
    }

    fn class_char(&mut self) -> Result<char, String> {
        match self.rest.next() {
            Some('\\') => self.escaped_char(),
            Some(c) => Ok(c),
            None => Err("missing closing ]".to_owned()),
        }
    }

    /// The name in `[:name:]`, if that is what follows.
    fn posix_class(&mut self) -> Option<String> {
        let mut ahead = self.rest.clone();
        ahead.next_if_eq(&'[')?;
        ahead.next_if_eq(&':')?;
        let mut name = String::new();
        loop {
            match ahead.next()? {
                ':' if ahead.next_if_eq(&']').is_some() => break,
                c => name.push(c),
            }
        }
        self.rest = ahead;
        Some(name)
    }
}

const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// The ranges of `\d` and its like, and whether what is not in them is meant.
fn perl_class(c: char) -> Option<(&'static str, bool)> {
    let ranges = match c.to_ascii_lowercase() {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => r"\t\n\x0C\r\x20",
        _ => return None,
    };
    Some((ranges, c.is_ascii_uppercase()))
}

/// A character in a class, where it can't be taken for syntax.
fn code(c: char) -> String {
    format!("\\x{{{:x}}}", u32::from(c))
}

/// A number without leading zeros; one that is too large for anything is `u32::MAX`.
fn count(chars: &mut Peekable<Chars<'_>>) -> Option<u32> {
    let mut digits = String::new();
    while let Some(c) = chars.next_if(char::is_ascii_digit) {
        digits.push(c);
    }
    let has_leading_zero = digits.len() > 1 && digits.starts_with('0');
    if digits.is_empty() || has_leading_zero {
        return None;
    }
    Some(digits.parse().unwrap_or(u32::MAX))
}

fn is_group_name(name: &str) -> bool {
    let starts_well = !name.starts_with(|c: char| c.is_ascii_digit());
    let is_word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    !name.is_empty() && starts_well && is_word
}

/// Whether `text` is flags, such as `i`, `s-m` or none at all.
fn are_flags(text: &str) -> bool {
    let (on, off) = match text.split_once('-') {
        Some((on, off)) => (on, Some(off)),
        None => (text, None),
    };
    let known = |flags: &str| {
        flags
            .bytes()
            .all(|b| matches!(b, b'i' | b'm' | b's' | b'U'))
    };
    known(on) && off.is_none_or(|off| known(off) && !off.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::matcher::compile;

    /// What each pattern matches and does not match; `None` where it is refused. Checked
    /// against Go's `regexp`.
    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        type Row<'a> = (&'a str, Option<(&'a [&'a str], &'a [&'a str])>);
        let rows: &[Row<'_>] = &[
            (r"\d", Some((&["7"], &["٣", "d"]))),
            (r"\D", Some((&["٣", "d"], &["7"]))),
            (r"\w+", Some((&["a_0"], &["é", "ſ"]))),
            (r"(?i)\w", Some((&["ſ", "\u{212a}"], &["é"]))),
            (r"\s", Some((&[" ", "\t", "\x0c"], &["\u{a0}", "\x0b"]))),
            (r"a\b.", Some((&["a-", "aé"], &["ab"]))),
            ("[a&&b]", Some((&["a", "&", "b"], &["&&"]))),
            ("[a~~b]", Some((&["~"], &[]))),
            ("[a--]", None),
            ("[()--]", Some((&["(", "*", "-"], &["."]))),
            ("[--a-c]", Some((&["-", "A", "c", "a"], &["d"]))),
            ("[a-]", Some((&["-", "a"], &["b"]))),
            ("[]a]", Some((&["]", "a"], &[]))),
            ("[^]a]", Some((&["b"], &["]", "a"]))),
            ("[[x]", Some((&["[", "x"], &[]))),
            ("[[:]", Some((&["[", ":"], &["]"]))),
            ("[[:]]", Some((&["[]", ":]"], &[":", "["]))),
            ("[[:alpha:]]", Some((&["a"], &["é", ":"]))),
            ("[[:^alpha:]]", Some((&["é"], &["a"]))),
            ("[[:foo:]]", None),
            (r"[\d-a]", Some((&["5", "-", "a"], &["b"]))),
            (r"[a-\d]", None),
            (r"[\Qa\E]", None),
            (r"[\b]", None),
            (r"[\pN\D]", Some((&["½", "a", "5"], &[]))),
            ("[z-a]", None),
            ("[a", None),
            (r"\Qa.b*\E", Some((&["a.b*"], &["axb"]))),
            (r"\Qab\E*", Some((&["a", "abb"], &["abab"]))),
            (r"\Qab", None),
            (r"\pN", Some((&["5", "½"], &["a"]))),
            (r"\PN", Some((&["a"], &["½"]))),
            (r"\p{Greek}", Some((&["λ"], &["a"]))),
            (r"\p{^Greek}", Some((&["a"], &["λ"]))),
            (r"\p{Nonsense}", None),
            ("(?i)K", Some((&["k", "\u{212a}"], &[]))),
            ("(?-s).", Some((&["a"], &["\n"]))),
            (".", Some((&["\n"], &[]))),
            ("(?i:a)b", Some((&["Ab"], &["AB"]))),
            ("(?)a", Some((&["a"], &[]))),
            ("a(?)+", Some((&["aa"], &[""]))),
            ("(?)+", None),
            ("(?-)a", None),
            ("(?x)a", None),
            ("(?u)a", None),
            ("(?R)a", None),
            ("a{,2}", Some((&["a{,2}"], &["aa"]))),
            ("a{2}", Some((&["aa"], &["a{2}"]))),
            ("a{01}", Some((&["a{01}"], &["a"]))),
            ("a{1,02}", Some((&["a{1,02}"], &["a"]))),
            ("x{", Some((&["x{"], &[]))),
            ("a{2,1}", None),
            ("a{1001}", None),
            ("a{1,99999999999}", None),
            ("(a{1000})?", Some((&[""], &["a"]))),
            ("a**", None),
            ("a+*", None),
            ("a{2}{3}", None),
            ("a??+", None),
            ("a*?", Some((&["", "aa"], &[]))),
            ("*", None),
            ("(|a)*", Some((&["", "aa"], &["b"]))),
            (r"\C", None),
            (r"\Z", None),
            (r"a\z", Some((&["a"], &["a\n"]))),
            (r"\Aa", Some((&["a"], &[]))),
            (r"\1", None),
            (r"\8", None),
            (r"\0", Some((&["\0"], &["0"]))),
            (r"\101", Some((&["A"], &[]))),
            (r"\x41\x{4e16}", Some((&["A世"], &[]))),
            (r"\x4", None),
            (r"\x{110000}", None),
            (r"\u0041", None),
            (r"\<a\>\_\-\/", Some((&["<a>_-/"], &[]))),
            (r"\e", None),
            (r"a\", None),
            ("(?P<n>a)(?<m>b)", Some((&["ab"], &[]))),
            ("(?P<n>a)(?P<n>b)", None),
            ("(?P=n)", None),
            ("(?=a)", None),
            ("(?<=a)b", None),
            ("(?#c)", None),
            ("(", None),
            (")", None),
            ("a)(b", None),
            ("a|", Some((&["a", ""], &[]))),
            ("#a b", Some((&["#a b"], &[]))),
            ("]}", Some((&["]}"], &[]))),
        ];
        for (pattern, wanted) in rows {
            match (compile(pattern), wanted) {
                (Ok(regex), Some((yes, no))) => {
                    for text in *yes {
                        assert!(regex.is_match(text), "{pattern} must match {text:?}");
                    }
                    for text in *no {
                        assert!(!regex.is_match(text), "{pattern} must not match {text:?}");
                    }
                }
                (Err(_), None) => {}
                (Ok(_), None) => panic!("{pattern} must be refused"),
                (Err(error), Some(_)) => panic!("{pattern}: {error}"),
            }
        }
    }

    /// What takes the memory or the stack is an error, and found soon.
    #[test]
    fn large_patterns_are_refused() {
        for pattern in [
            "x".repeat(20_000),
            "(".repeat(5_000),
            format!("{}x{}", "(".repeat(1_000), ")".repeat(1_000)),
            r"\pL{1000}".to_owned(),
            "((a{100}){100}){100}".to_owned(),
            "(((((x{10}){10}){10}){10}){10}){10}".to_owned(),
        ] {
            assert!(compile(&pattern).is_err(), "{pattern:.40}");
        }
        // Matching takes time in proportion to the text, whatever the pattern.
        let regex = compile("(a*)*(a|aa)*b").unwrap();
        assert!(!regex.is_match(&"a".repeat(100_000)));
    }

    proptest! {
        #[test]
        fn any_text_is_a_pattern_or_an_error(
            pattern in r"(\\[QEpPxwdsDbB0-7]|\[\^?|\]|[\[(){}?*+|^$.:,<>a-z0-9=!&~-]|é){0,24}",
            text in "[a-c0-9&~\\[\\]é-]{0,6}",
        ) {
            if let Ok(regex) = compile(&pattern) {
                let _ = regex.is_match(&text);
            }
        }

        #[test]
        fn a_quoted_text_matches_itself_only(text in "[^\\\\]{0,12}", other in "[^\\\\]{0,12}") {
            let regex = compile(&format!("\\Q{text}\\E")).unwrap();
            prop_assert!(regex.is_match(&text));
            prop_assert_eq!(regex.is_match(&other), text == other);
        }
    }
}
