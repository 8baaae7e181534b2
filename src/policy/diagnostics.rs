//! Mistakes as their author should see them: the place, what was expected, how to mend it.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::ser::{Serialize, SerializeStruct, Serializer};

/// A mistake more than these helps nobody.
const SHOWN_MAX: usize = 100;

/// A file as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name, for people.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A place in a file and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<SourceFile>,
    /// Bytes of its text.
    pub span: Range<usize>,
    /// What was expected here, or how this place is involved.
    pub label: String,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// Where: the place of the mistake first, then other places that are involved. Empty where
    /// no text is at fault, such as for a file that can't be read.
    pub places: Vec<Place>,
    /// How to mend it.
    pub help: Option<String>,
}

/// All mistakes of one reading, in the order of the files and of their places; never empty
/// where it is an error.
///
/// `Display` shows each with its place underlined, without colours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// The mistakes.
    pub items: Vec<Diagnostic>,
}

impl Place {
    /// Line and column of its start, both from 1; the column counts characters.
    pub fn position(&self) -> (usize, usize) {
        position(&self.file.text, self.span.start)
    }
}

impl Diagnostic {
    /// A mistake that no text is at fault for.
    pub(crate) fn without_place(message: impl Into<String>, help: impl Into<String>) -> Self {
        Diagnostic {
            message: message.into(),
            places: Vec::new(),
            help: Some(help.into()),
        }
    }

    /// `rules/canary.yaml:12:9`, or nothing where no text is at fault.
    pub fn position(&self) -> Option<String> {
        let place = self.places.first()?;
        let (line, column) = place.position();
        Some(format!("{}:{line}:{column}", place.file.name))
    }
}

impl Diagnostics {
    /// The mistakes as text, with their lines shown and the places underlined.
    pub fn render(&self, colours: bool) -> String {
        let renderer = if colours {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let mut text = String::new();
        for item in self.items.iter().take(SHOWN_MAX) {
            let _ = writeln!(text, "{}\n", render_one(item, &renderer));
        }
        let _ = match (self.items.len(), self.items.len().saturating_sub(SHOWN_MAX)) {
            (1, _) => write!(text, "1 mistake"),
            (n, 0) => write!(text, "{n} mistakes"),
            (n, hidden) => write!(text, "{n} mistakes, {hidden} of them not shown"),
        };
        text
    }

    /// `Ok(value)` where there is no mistake.
    pub(crate) fn or<T>(self, value: T) -> Result<T, Diagnostics> {
        if self.items.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// A list of objects: `message`, `file`, `line`, `column`, `endLine`, `endColumn`, `expected`,
/// `help`; null where unknown.
impl Serialize for Diagnostics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.items)
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let place = self.places.first();
        let start = place.map(Place::position);
        let end = place.map(|place| position(&place.file.text, place.span.end));
        let mut out = serializer.serialize_struct("Diagnostic", 8)?;
        out.serialize_field("message", &self.message)?;
        out.serialize_field("file", &place.map(|place| &place.file.name))?;
        out.serialize_field("line", &start.map(|(line, _)| line))?;
        out.serialize_field("column", &start.map(|(_, column)| column))?;
        out.serialize_field("endLine", &end.map(|(line, _)| line))?;
        out.serialize_field("endColumn", &end.map(|(_, column)| column))?;
        out.serialize_field("expected", &place.map(|place| &place.label))?;
        out.serialize_field("help", &self.help)?;
        out.end()
    }
}

fn render_one(item: &Diagnostic, renderer: &Renderer) -> String {
    let title = Level::ERROR.primary_title(item.message.as_str());
    let mut group = if item.places.is_empty() {
        Group::with_title(title)
    } else {
        title.elements(snippets(item))
    };
    if let Some(help) = &item.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    renderer.render(&[group])
}

/// One snippet a file, so that places in the same file are shown together.
fn snippets(item: &Diagnostic) -> Vec<Snippet<'_, annotate_snippets::Annotation<'_>>> {
    let mut files: Vec<&SourceFile> = Vec::new();
    for place in &item.places {
        if !files.iter().any(|file| std::ptr::eq(*file, &*place.file)) {
            files.push(&place.file);
        }
    }
    files.into_iter().map(|file| snippet(item, file)).collect()
}

/// The lines of `file` that `item` is about. The renderer gets no more than these: its work
/// grows with the text it is given.
fn snippet<'i>(
    item: &'i Diagnostic,
    file: &'i SourceFile,
) -> Snippet<'i, annotate_snippets::Annotation<'i>> {
    let text = file.text.as_str();
    let here = |place: &&Place| std::ptr::eq(&*place.file, file);
    let spans = item
        .places
        .iter()
        .filter(here)
        .map(|place| inside(text, &place.span));
    let (start, end) = spans.fold((text.len(), 0), |(start, end), span| {
        (start.min(span.start), end.max(span.end))
    });
    let first = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let last = text[end..].find('\n').map_or(text.len(), |at| end + at);
    let line = text[..first].bytes().filter(|b| *b == b'\n').count() + 1;
    let annotations = item
        .places
        .iter()
        .enumerate()
        .filter(|(_, place)| here(place));
    let annotations = annotations.map(|(nth, place)| {
        let kind = if nth == 0 {
            AnnotationKind::Primary
        } else {
            AnnotationKind::Context
        };
        let span = inside(text, &place.span);
        kind.span(span.start - first..span.end - first)
            .label(place.label.as_str())
    });
    Snippet::source(&text[first..last])
        .path(&file.name)
        .line_start(line)
        .annotations(annotations)
}

/// `span` moved to where it can be sliced.
fn inside(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = floor_boundary(text, span.start);
    let mut end = span.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

/// The greatest character boundary at or before `at`.
pub(super) fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..floor_boundary(text, at)];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// The one of `candidates` that `word` was most likely meant to be, if any is near.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let limit = (word.chars().count() / 3).max(1);
    let by_distance = |candidate: &'c str| (distance(word, candidate), candidate);
    let (steps, best) = candidates.into_iter().map(by_distance).min()?;
    (steps <= limit).then_some(best)
}

/// How many letters to add, drop, replace or swap with their neighbour to get from `a` to `b`;
/// case, `-` and `_` cost nothing, since `min_events` is meant to be `minEvents`.
fn distance(a: &str, b: &str) -> usize {
    let fold = |text: &str| -> Vec<char> {
        let kept = text.chars().filter(|c| !matches!(c, '-' | '_'));
        kept.take(64).map(|c| c.to_ascii_lowercase()).collect()
    };
    let (a, b) = (fold(a), fold(b));
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(text: &str) -> Arc<SourceFile> {
        Arc::new(SourceFile {
            name: "a.yaml".to_owned(),
            text: text.to_owned(),
        })
    }

    fn one(text: &str, span: Range<usize>) -> Diagnostics {
        let place = Place {
            file: file(text),
            span,
            label: "here".to_owned(),
        };
        let help = Some("mend it".to_owned());
        Diagnostics {
            items: vec![Diagnostic {
                message: "wrong".to_owned(),
                places: vec![place],
                help,
            }],
        }
    }

    #[test]
    fn shows_the_line_and_underlines_the_place() {
        let text = one("a: 1\nbé: 2\n", 10..11).to_string();
        assert!(text.contains("a.yaml:2:5"), "{text}");
        assert!(text.contains("^ here"), "{text}");
        assert!(text.contains("mend it"), "{text}");
        assert!(text.ends_with("1 mistake"), "{text}");
    }

    #[test]
    fn json_names_the_place() {
        let json = serde_json::to_value(one("a: 1\nbé: 2\n", 10..11)).unwrap();
        let expected = serde_json::json!([{
            "message": "wrong", "file": "a.yaml", "line": 2, "column": 5, "endLine": 2,
            "endColumn": 6, "expected": "here", "help": "mend it"
        }]);
        assert_eq!(json, expected);
    }

    #[test]
    fn suggests_what_is_near_and_nothing_else() {
        let words = ["worseBy", "minEvents", "sli", "against"];
        let cases = [
            ("worsBy", Some("worseBy")),
            ("min_events", Some("minEvents")),
            ("SLI", Some("sli")),
            ("sil", Some("sli")),
            ("tolerance", None),
            ("", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, words), expected, "{word}");
        }
    }

    proptest! {
        #[test]
        fn any_place_in_any_text_can_be_shown(
            text in "(\\PC|[\n\t\r\u{0}\u{7f}é]){0,30}", start in 0usize..50, length in 0usize..50,
        ) {
            let shown = one(&text, start..start + length).render(true);
            prop_assert!(shown.contains("wrong"));
        }
    }
}
