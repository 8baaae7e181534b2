//! YAML text into a tree that remembers where everything stands.
//!
//! The only place that knows the YAML library. It reads into a tree rather than straight into
//! structs, because a struct stops at the first mistake and loses the places of keys; the tree
//! lets the reader report everything that is wrong at once.
//!
//! Scalars keep their text: `5m`, `1%` and `0.10` mean what the language says they mean, not
//! what YAML makes of them.
//!
//! Budgets keep hostile files cheap: 1 MiB, 32 levels, 100,000 nodes, 10,000 nodes replayed
//! through aliases. A duplicate key is a mistake; the rest of the file is still read, with the
//! first of the two.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, NonFiniteFloatPolicy, Options, Spanned};

use crate::policy::diagnostics::floor_boundary;
use crate::policy::reader::quoted;

/// The most bytes that a file may have.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;

/// A value and its place.
#[derive(Debug)]
pub(crate) struct Node {
    /// Bytes of the text: a scalar's own, else the first line of what follows the start.
    pub(crate) span: Range<usize>,
    pub(crate) value: Value,
}

#[derive(Debug)]
pub(crate) enum Value {
    /// Nothing, or `null`.
    Null,
    /// Any other scalar, by its text.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping and its place.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) span: Range<usize>,
}

/// Why a text is not YAML, or not YAML that is read here.
#[derive(Debug)]
pub(crate) struct YamlError {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
    pub(crate) help: &'static str,
}

/// The documents of `text`, without empty ones, and what is wrong with its YAML.
pub(crate) fn read(text: &str) -> (Vec<Node>, Vec<YamlError>) {
    match documents(text, DuplicateKeyPolicy::Error) {
        Ok(documents) => (documents, Vec::new()),
        Err(error) if is_duplicate(&error) => {
            let duplicate = describe(text, &error);
            match documents(text, DuplicateKeyPolicy::FirstWins) {
                Ok(documents) => (documents, vec![duplicate]),
                Err(error) => (Vec::new(), vec![duplicate, describe(text, &error)]),
            }
        }
        Err(error) => (Vec::new(), vec![describe(text, &error)]),
    }
}

fn documents(text: &str, keys: DuplicateKeyPolicy) -> Result<Vec<Node>, serde_saphyr::Error> {
    let raw: Vec<Spanned<Raw>> = serde_saphyr::from_multiple_with_options(text, options(keys))?;
    Ok(raw
        .into_iter()
        .map(|document| node(text, document))
        .collect())
}

fn options(duplicate_keys: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 200_000,
            max_nodes: 100_000,
            max_depth: 32,
            max_documents: 1000,
            max_aliases: 1000,
            max_anchors: 1000,
            max_total_scalar_bytes: 4 * FILE_BYTES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 16,
            max_alias_expansions_per_anchor: 1000,
        },
        duplicate_keys: duplicate_keys,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    }
}

fn is_duplicate(error: &serde_saphyr::Error) -> bool {
    matches!(
        error.without_snippet(),
        serde_saphyr::Error::DuplicateMappingKey { .. }
    )
}

fn describe(text: &str, error: &serde_saphyr::Error) -> YamlError {
    let span = match error.location() {
        Some(location) => bytes(text, location),
        None => 0..0,
    };
    if is_duplicate(error) {
        let key = text.get(span.clone()).unwrap_or_default();
        return YamlError {
            message: format!("{} is given twice", quoted(key)),
            help: "keep one of the two",
            span,
        };
    }
    let message = error.to_string();
    // The place is shown by other means.
    let message = message.split(" at line ").next().unwrap_or_default();
    let span = span.start..one_character(text, span.start).max(span.end);
    // The library wraps these differently inside of aliases, so the text is the surer sign.
    if message.contains("limit exceeded") || message.contains("budget breached") {
        let message = format!("more YAML than a policy may have: {message}");
        return YamlError {
            span,
            message,
            help: "use fewer aliases and levels, or split the file",
        };
    }
    let has_tab = text
        .lines()
        .any(|line| line.trim_start_matches(' ').starts_with('\t'));
    let help = match has_tab {
        true => "YAML is indented with spaces; there is a tab in this file",
        false => "",
    };
    YamlError {
        span,
        message: format!("not valid YAML: {message}"),
        help,
    }
}

/// What YAML makes of a node. Numbers and booleans are told from text only to know that the
/// text of the file is theirs.
enum Raw {
    Null,
    Plain,
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

/// Recursion is bounded by the depth budget.
fn node(text: &str, raw: Spanned<Raw>) -> Node {
    let span = bytes(text, raw.defined);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Plain => Value::Scalar(text.get(span.clone()).unwrap_or_default().trim().to_owned()),
        Raw::Text(scalar) => Value::Scalar(scalar),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(text, item)).collect()),
        Raw::Map(entries) => {
            let entry = |(key, value): (Spanned<String>, _)| {
                let span = bytes(text, key.defined);
                (
                    Key {
                        name: key.value,
                        span,
                    },
                    node(text, value),
                )
            };
            Value::Map(entries.into_iter().map(entry).collect())
        }
    };
    let span = match value {
        Value::Scalar(_) => span,
        // Where a flow collection ends is not known.
        _ if text
            .get(span.start..)
            .is_some_and(|rest| rest.starts_with(['[', '{'])) =>
        {
            span.start..span.start + 1
        }
        _ => span.start..span.end.max(line_end(text, span.start)),
    };
    Node { span, value }
}

/// A location as bytes of the text, on character boundaries and inside of it.
fn bytes(text: &str, location: Location) -> Range<usize> {
    let span = location.span();
    let known = span.byte_offset().zip(span.byte_len());
    let (start, end) = match known {
        Some((offset, length)) => (offset, offset.saturating_add(length)),
        // Errors of the scanner come without bytes.
        None => {
            let start = byte_of(text, location.line(), location.column()) as u64;
            (start, start)
        }
    };
    let within = |at: u64| floor_boundary(text, usize::try_from(at).unwrap_or(usize::MAX));
    within(start)..within(end).max(within(start))
}

/// The byte at a line and a column in characters, both from 1.
fn byte_of(text: &str, line: u64, column: u64) -> usize {
    let (line, column) = (line.saturating_sub(1), column.saturating_sub(1));
    let Ok(line) = usize::try_from(line) else {
        return text.len();
    };
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(before..).unwrap_or_default();
    let skipped = usize::try_from(column).unwrap_or(usize::MAX);
    before
        + rest
            .char_indices()
            .nth(skipped)
            .map_or(rest.len(), |(at, _)| at)
}

fn line_end(text: &str, start: usize) -> usize {
    let rest = text.get(start..).unwrap_or_default();
    start + rest.lines().next().unwrap_or_default().trim_end().len()
}

fn one_character(text: &str, start: usize) -> usize {
    let next = text.get(start..).and_then(|rest| rest.chars().next());
    start + next.filter(|c| *c != '\n').map_or(0, char::len_utf8)
}

/// Where in the file each byte of a scalar's value came from: undoes block indentation,
/// folding, quotes and escapes.
///
/// `span` is the scalar's place. The answer has one entry for each byte of `value` and one for
/// its end; `None` where value and text can't be brought together.
pub(crate) fn places_of_value(text: &str, span: &Range<usize>, value: &str) -> Option<Vec<usize>> {
    let source = text.get(span.clone())?;
    let quote = source.chars().next().filter(|c| matches!(c, '"' | '\''));
    let mut rest = source.char_indices().peekable();
    if quote.is_some() {
        rest.next();
    }
    let mut places = Vec::with_capacity(value.len() + 1);
    let mut wanted = value.chars();
    let mut next = wanted.next();
    while let Some(want) = next {
        let (at, found) = *rest.peek()?;
        let escape = match (quote, found) {
            (Some('"'), '\\') => Some(escape_length(&source[at..])?),
            (Some('\''), '\'') => Some((2, true)),
            _ => None,
        };
        let taken = match escape {
            Some((_, false)) => false,
            Some((_, true)) => true,
            // A line break of a folded scalar is read as a space.
            None => found == want || (want == ' ' && found == '\n'),
        };
        if !taken && escape.is_none() && !found.is_whitespace() {
            return None;
        }
        for _ in 0..escape.map_or(1, |(length, _)| length) {
            rest.next();
        }
        if taken {
            places.resize(places.len() + want.len_utf8(), span.start + at);
            next = wanted.next();
        }
    }
    let end = rest.peek().map_or(span.end, |(at, _)| span.start + at);
    places.push(end);
    Some(places)
}

/// How many characters an escape of a double-quoted scalar takes, and whether it is one
/// character of the value; an escaped line break is none.
fn escape_length(source: &str) -> Option<(usize, bool)> {
    match source.chars().nth(1)? {
        '\n' => Some((2, false)),
        'x' => Some((4, true)),
        'u' => Some((6, true)),
        'U' => Some((10, true)),
        _ => Some((2, true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scalar(node: &Node) -> &str {
        match &node.value {
            Value::Scalar(text) => text,
            other => panic!("not a scalar: {other:?}"),
        }
    }

    fn entries(node: &Node) -> &[(Key, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            other => panic!("not a map: {other:?}"),
        }
    }

    #[test]
    fn scalars_keep_their_text_and_place() {
        let text = "a: 1.10\nb: [x, 'y''s', \"q\\\"e\", 1e999, .nan, on, 5m, 1%, true]\nc:\n";
        let (documents, errors) = read(text);
        assert!(errors.is_empty());
        let map = entries(&documents[0]);
        assert_eq!((map[0].0.name.as_str(), scalar(&map[0].1)), ("a", "1.10"));
        let Value::List(items) = &map[1].1.value else {
            panic!("not a list")
        };
        let texts: Vec<&str> = items.iter().map(scalar).collect();
        assert_eq!(
            texts,
            [
                "x", "y's", "q\"e", "1e999", ".nan", "on", "5m", "1%", "true"
            ]
        );
        assert_eq!(&text[items[1].span.clone()], "'y''s'");
        assert!(matches!(map[2].1.value, Value::Null));
    }

    #[test]
    fn a_value_leads_back_to_its_place_in_every_style() {
        let cases = [
            ("q: sum(x) + é\n", "é"),
            ("q: 'sum(\"it''s\") + é'\n", "é"),
            ("q: \"a{b=\\\"c\\\"} \\u00e9 + é\"\n", "+ é"),
            ("q: \"a \\\n    + é\"\n", "+ é"),
            ("q: |\n    sum(\n      x) + é\n    or y\n", "+ é"),
            ("q: |-\n    sum(\n\n      x) + é", "+ é"),
            ("- q: >\n    sum(\n    x) + é\n", "+ é"),
            ("q: sum(x)\n  + é\n", "+ é"),
        ];
        for (text, part) in cases {
            let (documents, errors) = read(text);
            assert!(errors.is_empty(), "{text}: {errors:?}");
            let mut node = &documents[0];
            if let Value::List(items) = &node.value {
                node = &items[0];
            }
            let node = &entries(node)[0].1;
            let value = scalar(node);
            let places = places_of_value(text, &node.span, value).unwrap();
            let at = value.find(part).unwrap();
            assert_eq!(&text[places[at]..places[at + part.len()]], part, "{text}");
            assert_eq!(places.len(), value.len() + 1);
        }
    }

    #[test]
    fn bombs_and_deep_nests_are_refused() {
        let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
        for (from, to) in ["ab", "bc", "cd", "de", "ef", "fg"].map(|s| s.split_at(1)) {
            let items = vec![format!("*{from}"); 10].join(", ");
            bomb.push_str(&format!("{to}: &{to} [{items}]\n"));
        }
        let deep = "[".repeat(50_000);
        let maps = "{a: ".repeat(1000);
        let lists: String = (0..1000)
            .map(|depth| format!("{}-\n", " ".repeat(depth)))
            .collect();
        let many = "- x\n".repeat(120_000);
        for text in [bomb.as_str(), &deep, &maps, &lists, &many] {
            let (documents, errors) = read(text);
            assert!(documents.is_empty());
            assert_eq!(errors.len(), 1);
        }
    }

    #[test]
    fn a_duplicate_key_does_not_hide_the_rest() {
        let (documents, errors) = read("a: 1\nb: 2\na: 3\n");
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].span, 10..11);
        let map = entries(&documents[0]);
        assert_eq!(map.len(), 2);
        assert_eq!(scalar(&map[0].1), "1");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([a-c:\\-\\[\\]{}&*!|>'\"#%@`,?é \n\t0-9.~]|\\PC){0,60}") {
            let (_, errors) = read(&text);
            for error in errors {
                prop_assert!(text.get(error.span).is_some());
            }
        }
    }
}
