//! The settings file: YAML read into a flat list of keys, each with its place.
//!
//! The file is a tree of mappings whose leaves are settings. It is read without knowing the
//! table, so that a mistake in one place hides none in another: unknown keys, wrong types and
//! wrong values are all found in one pass over what is read here.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::mistake::{Mistake, Place};

/// The largest settings file, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// A file's text and the settings in it.
#[derive(Debug)]
pub struct SettingsFile {
    /// As it was named.
    pub path: PathBuf,
    /// Its text, for messages.
    pub text: String,
    /// Its leaves, in the file's order.
    pub leaves: Vec<Leaf>,
}

/// One key with its value.
#[derive(Debug)]
pub struct Leaf {
    /// The key's path, for example `listen.api`.
    pub key: String,
    /// Where the key's last part stands.
    pub key_place: Place,
    /// What it is set to.
    pub value: LeafValue,
    /// Where the value stands.
    pub value_place: Place,
}

/// What stands at a leaf.
#[derive(Debug, PartialEq, Eq)]
pub enum LeafValue {
    /// `null`, or nothing after the colon.
    Nothing,
    /// A plain value, as text.
    Text(String),
    /// A list of plain values.
    List(Vec<String>),
    /// A mapping without keys, or a list of anything but plain values.
    Other,
}

impl SettingsFile {
    /// Reads and parses the file at `path`.
    ///
    /// # Errors
    /// Where it can't be read, is too large, or is not YAML.
    pub fn read(path: &Path) -> Result<Self, Mistake> {
        let fail = |what: String| Mistake::new(path.display(), what);
        let size = std::fs::metadata(path)
            .map_err(|e| fail(format!("can't be read: {e}")))?
            .len();
        if size > FILE_MAX {
            return Err(fail(format!("is larger than {FILE_MAX} bytes")));
        }
        let text =
            std::fs::read_to_string(path).map_err(|e| fail(format!("can't be read: {e}")))?;
        SettingsFile::parse(path, text)
    }

    /// Parses `text`, which was read from `path`.
    ///
    /// # Errors
    /// Where it is not YAML, or not a mapping.
    pub fn parse(path: &Path, text: String) -> Result<Self, Mistake> {
        let options = serde_saphyr::options! { with_snippet: false };
        let root: Option<Node> = serde_saphyr::from_str_with_options(&text, options)
            .map_err(|error| syntax_mistake(path, &text, &error))?;
        let mut leaves = Vec::new();
        match root {
            None | Some(Node::Null) => {}
            Some(Node::Map(entries)) => collect("", entries, &mut leaves),
            Some(_) => {
                return Err(Mistake::new(
                    path.display(),
                    "is not a mapping of settings".to_owned(),
                )
                .help(
                    "write settings as `key: value`, for example `listen: { api: 127.0.0.1:9560 }`",
                ));
            }
        }
        Ok(SettingsFile {
            path: path.to_owned(),
            text,
            leaves,
        })
    }
}

fn syntax_mistake(path: &Path, text: &str, error: &serde_saphyr::Error) -> Mistake {
    let message = error.without_snippet().to_string();
    // The library ends its messages with the place, which we show in front.
    let message = message.split(" at line ").next().unwrap_or(&message);
    let mistake = Mistake::new(path.display(), message.to_owned());
    match error.location() {
        Some(location) => mistake.at(place(location), text),
        None => mistake,
    }
}

fn collect(prefix: &str, entries: Vec<(Spanned<String>, Spanned<Node>)>, leaves: &mut Vec<Leaf>) {
    for (name, node) in entries {
        let key = match prefix {
            "" => name.value,
            _ => format!("{prefix}.{}", name.value),
        };
        let value = match node.value {
            Node::Map(entries) if !entries.is_empty() => {
                collect(&key, entries, leaves);
                continue;
            }
            Node::Null => LeafValue::Nothing,
            Node::Scalar(text) => LeafValue::Text(text),
            Node::List(Some(texts)) => LeafValue::List(texts),
            Node::List(None) | Node::Map(_) => LeafValue::Other,
        };
        leaves.push(Leaf {
            key,
            key_place: place(name.referenced),
            value,
            value_place: place(node.referenced),
        });
    }
}

fn place(location: Location) -> Place {
    let span = location.span();
    Place {
        line: location.line(),
        column: location.column(),
        byte: span.byte_offset().unwrap_or(0),
        byte_len: span.byte_len().unwrap_or(0),
    }
}

/// YAML without types: every plain value is text.
#[derive(Debug)]
enum Node {
    Null,
    Scalar(String),
    /// `None` where an element is not a plain value.
    List(Option<Vec<String>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut texts = Some(Vec::new());
        while let Some(item) = items.next_element::<Node>()? {
            match (item, &mut texts) {
                (Node::Scalar(text), Some(texts)) => texts.push(text),
                _ => texts = None,
            }
        }
        Ok(Node::List(texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<SettingsFile, Mistake> {
        SettingsFile::parse(Path::new("slogate.yaml"), text.to_owned())
    }

    #[test]
    fn leaves_have_their_path_and_place() {
        let file = parse(
            "# ours\nlisten:\n  api: 127.0.0.1:1\n  allowNonLoopback: true\npolicy:\n  paths: ['a,b', c]\nlimits: { connections: 5 }\ndata:\n",
        )
        .unwrap();
        let found: Vec<_> = file
            .leaves
            .iter()
            .map(|leaf| {
                let (line, column) = (leaf.key_place.line, leaf.value_place.column);
                (leaf.key.as_str(), &leaf.value, line, column)
            })
            .collect();
        let text = |text: &str| LeafValue::Text(text.to_owned());
        let list = LeafValue::List(vec!["a,b".to_owned(), "c".to_owned()]);
        assert_eq!(
            found,
            [
                ("listen.api", &text("127.0.0.1:1"), 3, 8),
                ("listen.allowNonLoopback", &text("true"), 4, 21),
                ("policy.paths", &list, 6, 10),
                ("limits.connections", &text("5"), 7, 24),
                ("data", &LeafValue::Nothing, 8, 5),
            ]
        );
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        assert!(parse("").unwrap().leaves.is_empty());
        assert!(parse("# nothing yet\n").unwrap().leaves.is_empty());
    }

    #[test]
    fn broken_yaml_names_the_place() {
        let mistake = parse("listen:\n  api: [\n").unwrap_err();
        assert!(
            mistake.to_string().starts_with("slogate.yaml:"),
            "{mistake}"
        );
        assert!(parse("- a\n").unwrap_err().to_string().contains("mapping"));
        assert!(parse("a: 1\na: 2\n").is_err(), "a key twice");
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let refs = vec![format!("*a{}", n - 1); 10].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
        }
        assert!(parse(&text).is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ a-z:\\[\\]{}&*!|>'\"\\n\\t#é-]{0,120}") {
            let _ = parse(&text);
        }
    }
}
