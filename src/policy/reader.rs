//! Reading a YAML tree while collecting everything that is wrong with it.
//!
//! A reading function answers `None` where it has reported a mistake, and the caller goes on
//! with the next field. Nothing is built from a file that has a mistake.
//!
//! Policies are not the only files that are read so: tests of policies are too.

use std::ops::Range;
use std::sync::Arc;

use crate::policy::Word;
use crate::policy::diagnostics::{Diagnostic, Diagnostics, Place, SourceFile, nearest};
use crate::policy::value;
use crate::policy::yaml::{self, FILE_BYTES_MAX, Key, Node, Value};

/// More mistakes than these in one file are counted, not kept.
const MISTAKES_MAX: usize = 1000;

/// What is wrong with one file so far.
pub(crate) struct Mistakes {
    pub(crate) file: Arc<SourceFile>,
    home: Home,
    items: Vec<Diagnostic>,
    dropped: usize,
}

/// Where a key of a language belongs, for one that stands elsewhere.
pub(crate) type Home = fn(&str) -> Option<&'static str>;

/// The documents of a file, and what is wrong with its YAML; `home` knows the keys of its
/// language.
pub(crate) fn documents(file: &Arc<SourceFile>, home: Home) -> (Vec<Node>, Mistakes) {
    let mut mistakes = Mistakes {
        file: Arc::clone(file),
        home,
        items: Vec::new(),
        dropped: 0,
    };
    let text = file.text.as_str();
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes", text.len());
        let label = format!("at most {FILE_BYTES_MAX} are read");
        mistakes.add(&(0..0), message, label, "split it");
        return (Vec::new(), mistakes);
    }
    let (documents, errors) = yaml::read(text);
    for error in errors {
        mistakes.add(&error.span, error.message, "here", error.help);
    }
    (documents, mistakes)
}

impl Mistakes {
    /// Whether nothing was reported so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Reports `message` at `span`, which is labelled with what was expected there.
    pub(crate) fn add(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        let places = vec![self.place(span, label)];
        self.push(Diagnostic {
            message: message.into(),
            places,
            help,
        });
    }

    /// Reports that what stands at one place stands at another as well, in either order.
    pub(crate) fn add_twice(
        &mut self,
        first: &Range<usize>,
        second: &Range<usize>,
        message: impl Into<String>,
        help: &str,
    ) {
        let places = vec![
            self.place(second, "the second"),
            self.place(first, "the first"),
        ];
        let help = Some(help.to_owned());
        self.push(Diagnostic {
            message: message.into(),
            places,
            help,
        });
    }

    /// Reports what is wrong with another file that this one names.
    pub(crate) fn take_over(&mut self, other: Diagnostics) {
        for item in other.items {
            self.push(item);
        }
    }

    fn push(&mut self, item: Diagnostic) {
        match self.items.len() < MISTAKES_MAX {
            true => self.items.push(item),
            false => self.dropped += 1,
        }
    }

    fn place(&self, span: &Range<usize>, label: impl Into<String>) -> Place {
        Place {
            file: Arc::clone(&self.file),
            span: span.clone(),
            label: label.into(),
        }
    }

    /// Everything that was reported, in the order of the text.
    pub(crate) fn finish(mut self) -> Diagnostics {
        let start = |item: &Diagnostic| item.places.first().map_or(0, |place| place.span.start);
        self.items.sort_by_key(start);
        if self.dropped > 0 {
            let message = format!("{} more mistakes in {}", self.dropped, self.file.name);
            self.items
                .push(Diagnostic::without_place(message, "mend these first"));
        }
        Diagnostics { items: self.items }
    }
}

/// A field that was found: its key's place and its value.
#[derive(Clone, Copy)]
pub(crate) struct Field<'n> {
    pub(crate) key: &'n Key,
    pub(crate) node: &'n Node,
}

/// The fields of one mapping, taken one by one; what is left over at the end is unknown.
pub(crate) struct Fields<'n> {
    /// The mapping's name in messages, for example "`compare`".
    what: String,
    /// The place to show for what is missing.
    pub(crate) owner: Range<usize>,
    entries: Vec<(&'n Key, &'n Node)>,
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// The fields of `node`, which `owner` introduces and messages call `what`.
    pub(crate) fn of(
        node: &'n Node,
        owner: &Range<usize>,
        what: impl Into<String>,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let (what, owner) = (what.into(), owner.clone());
        match &node.value {
            Value::Map(entries) => {
                let entries = entries.iter().map(|(key, node)| (key, node)).collect();
                Some(Fields {
                    what,
                    owner,
                    entries,
                    known: Vec::new(),
                })
            }
            _ => {
                let message = format!("{what} has to be a mapping");
                mistakes.add(
                    place_or(node, &owner),
                    message,
                    "expected `key: value` lines",
                    "",
                );
                None
            }
        }
    }

    /// Takes the field `name` if it is there.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Field<'n>> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        let at = self.entries.iter().position(|(key, _)| key.name == name)?;
        let (key, node) = self.entries.remove(at);
        Some(Field { key, node })
    }

    /// Takes the field `name`, which has to be there.
    pub(crate) fn need(
        &mut self,
        name: &'static str,
        help: &str,
        mistakes: &mut Mistakes,
    ) -> Option<Field<'n>> {
        let field = self.take(name);
        if field.is_none() {
            let message = format!("{} has no `{name}`", self.what);
            mistakes.add(
                &self.owner,
                message,
                format!("`{name}` is missing here"),
                help,
            );
        }
        field
    }

    /// Takes the field `name` as `read` has it; `default` where it isn't there.
    pub(crate) fn take_or<T>(
        &mut self,
        name: &'static str,
        default: T,
        mistakes: &mut Mistakes,
        read: impl FnOnce(Field<'n>, &mut Mistakes) -> Option<T>,
    ) -> Option<T> {
        match self.take(name) {
            Some(field) => read(field, mistakes),
            None => Some(default),
        }
    }

    /// The names of the fields that were not taken yet.
    pub(crate) fn left(&self) -> impl Iterator<Item = &'n str> {
        self.entries.iter().map(|(key, _)| key.name.as_str())
    }

    /// Reports every field that was not taken. `later` are words of a later version.
    pub(crate) fn finish(self, later: &[&str], mistakes: &mut Mistakes) {
        for (key, _) in &self.entries {
            let (name, shown) = (&key.name, quoted(&key.name));
            if later.contains(&name.as_str()) {
                let message = format!("{shown} is not known to this version of slogate");
                let label = "comes with a later version";
                mistakes.add(
                    &key.span,
                    message,
                    label,
                    "remove it, or use a version that knows it",
                );
                continue;
            }
            let label = match (
                (mistakes.home)(name),
                nearest(name, self.known.iter().copied()),
            ) {
                (Some(home), _) => format!("belongs in {home}"),
                (None, Some(meant)) => format!("did you mean `{meant}`?"),
                (None, None) => "not known here".to_owned(),
            };
            let help = format!("{} takes {}", self.what, list(&self.known));
            let message = format!("unknown key {shown} in {}", self.what);
            mistakes.add(&key.span, message, label, help);
        }
    }
}

impl<'n> Field<'n> {
    /// The place to show for its value: the value itself, or the key where there is none.
    pub(crate) fn span(&self) -> &'n Range<usize> {
        place_or(self.node, &self.key.span)
    }

    /// Where bytes of its scalar's value stand in the file; the whole value where that can't be
    /// told.
    pub(crate) fn places(&self, value: &str, m: &Mistakes) -> Places<'n> {
        let whole = &self.node.span;
        let places = yaml::places_of_value(&m.file.text, whole, value);
        Places { whole, places }
    }

    /// Reports that the value is not what was expected.
    pub(crate) fn wrong(&self, expected: &str, help: &str, mistakes: &mut Mistakes) {
        let name = &self.key.name;
        let message = match &self.node.value {
            Value::Null => format!("`{name}` has no value"),
            Value::Scalar(text) => format!("`{name}` can't be {}", quoted(text)),
            Value::List(_) => format!("`{name}` can't be a list"),
            Value::Map(_) => format!("`{name}` can't be a mapping"),
        };
        mistakes.add(self.span(), message, format!("expected {expected}"), help);
    }

    /// The value as `read` has it, or a mistake that says what was `expected`.
    pub(crate) fn scalar<T>(
        &self,
        expected: &str,
        help: &str,
        mistakes: &mut Mistakes,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = match &self.node.value {
            Value::Scalar(text) => read(text),
            _ => None,
        };
        if value.is_none() {
            self.wrong(expected, help, mistakes);
        }
        value
    }

    /// A duration of `least` to `most` milliseconds.
    pub(crate) fn duration(&self, least: i64, most: i64, mistakes: &mut Mistakes) -> Option<i64> {
        let help = match &self.node.value {
            Value::Scalar(text) if value::number(text).is_some() => {
                format!("add a unit: `{text}ms`, `{text}s`, or `{text}m` for minutes")
            }
            _ => "durations are written like 90s, 5m, 1h30m".to_owned(),
        };
        let ms = self.scalar("a duration such as 5m", &help, mistakes, value::duration_ms)?;
        if (least..=most).contains(&ms) {
            return Some(ms);
        }
        let ends = (value::format_duration(least), value::format_duration(most));
        self.wrong(
            &format!("a duration from {} to {}", ends.0, ends.1),
            "",
            mistakes,
        );
        None
    }

    /// A share above 0 and, as `fits` has it, not too great.
    pub(crate) fn share(
        &self,
        expected: &str,
        mistakes: &mut Mistakes,
        fits: impl Fn(f64) -> bool,
    ) -> Option<f64> {
        let read = |text: &str| value::share(text).filter(|share| fits(*share));
        let help = match &self.node.value {
            Value::Scalar(text) => match value::number(text).filter(|number| *number >= 1.0) {
                Some(number) if fits(number / 100.0) => format!("for percent write `{text}%`"),
                _ => String::new(),
            },
            _ => String::new(),
        };
        self.scalar(expected, &help, mistakes, read)
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self, mistakes: &mut Mistakes) -> Option<bool> {
        self.scalar("true or false", "", mistakes, |text| text.parse().ok())
    }

    /// One of a closed set of words.
    pub(crate) fn word<W: Word>(&self, mistakes: &mut Mistakes) -> Option<W> {
        word(
            self.node,
            &self.key.span,
            &format!("`{}`", self.key.name),
            mistakes,
        )
    }
}

/// Where the bytes of a scalar's value stand in the file.
pub(crate) struct Places<'n> {
    whole: &'n Range<usize>,
    places: Option<Vec<usize>>,
}

impl Places<'_> {
    /// Where `span` of the value stands.
    pub(crate) fn of(&self, span: &Range<usize>) -> Range<usize> {
        let at = |byte: usize| self.places.as_ref()?.get(byte).copied();
        match (at(span.start), at(span.end)) {
            // The end is one past the last byte, which may be lines away from the next one.
            (Some(start), Some(_)) if span.is_empty() => start..start,
            (Some(start), Some(end)) => {
                start..at(span.end - 1).map_or(end, |last| (last + 1).max(start))
            }
            _ => self.whole.clone(),
        }
    }
}

/// One of a closed set of words; messages call the value `what`.
pub(crate) fn word<W: Word>(
    node: &Node,
    owner: &Range<usize>,
    what: &str,
    mistakes: &mut Mistakes,
) -> Option<W> {
    let words: Vec<&str> = W::WORDS.iter().map(|(word, _)| *word).collect();
    let (message, label) = match &node.value {
        Value::Scalar(text) => match W::WORDS.iter().find(|(word, _)| word == text) {
            Some((_, value)) => return Some(*value),
            None => {
                let label = match nearest(text, words.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("expected {}", alternatives(&words)),
                };
                (format!("{what} can't be {}", quoted(text)), label)
            }
        },
        _ => (
            format!("{what} has to be a word"),
            format!("expected {}", alternatives(&words)),
        ),
    };
    let help = format!("the words are {}", list(&words));
    mistakes.add(place_or(node, owner), message, label, help);
    None
}

fn place_or<'n>(node: &'n Node, owner: &'n Range<usize>) -> &'n Range<usize> {
    match node.value {
        Value::Null => owner,
        _ => &node.span,
    }
}

/// A value in a message: short, on one line.
pub(crate) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    // Not `escape_debug`, which would also escape quotes.
    let plain: String = short
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("`{plain}`")
}

/// `a, b, c`.
pub(crate) fn list(words: &[&str]) -> String {
    words.join(", ")
}

/// `a, b or c`.
pub(crate) fn alternatives(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", list(rest)),
        _ => list(words),
    }
}
