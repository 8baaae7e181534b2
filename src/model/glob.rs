//! Patterns for names: `*` stands for any run of characters, all else for itself.

use std::fmt;

/// A pattern such as `*`, `prod-*` or `checkout`. The whole name has to match, in its case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob(String);

impl Glob {
    /// A pattern. Runs of `*` mean the same as one and are kept as one.
    pub fn new(pattern: &str) -> Self {
        let mut kept = String::with_capacity(pattern.len());
        for c in pattern.chars() {
            if !(c == '*' && kept.ends_with('*')) {
                kept.push(c);
            }
        }
        Glob(kept)
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every name matches.
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// Whether `name` matches, in time linear in its length for each `*`.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        // Taking the leftmost place of each middle part leaves the most room for the next.
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// Matches everything.
impl Default for Glob {
    fn default() -> Self {
        Glob("*".to_owned())
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_stands_for_any_run() {
        let cases = [
            ("*", "", true),
            ("*", "checkout", true),
            ("checkout", "checkout", true),
            ("checkout", "checkout2", false),
            ("prod-*", "prod-eu", true),
            ("prod-*", "prod-", true),
            ("prod-*", "preprod-eu", false),
            ("*-eu", "prod-eu", true),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
            ("é*", "été", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(
                Glob::new(pattern).matches(name),
                expected,
                "{pattern} on {name}"
            );
        }
    }

    fn slow_match(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|at| slow_match(rest, &name[at..])),
            Some((c, rest)) => name.first() == Some(c) && slow_match(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*]{0,8}", name in "[ab]{0,8}") {
            let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
            prop_assert_eq!(Glob::new(&pattern).matches(&name), slow_match(&p, &n));
        }
    }
}
