//! What is wrong with the settings, said so that it can be mended.

use std::fmt;

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1; 0 where not known.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// Bytes before it.
    pub byte: u64,
    /// Its length in bytes.
    pub byte_len: u64,
}

/// One mistake: where, what, and how to mend it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// A file with line and column, `SLOGATE_…` or `--flag`.
    origin: String,
    message: String,
    /// The line, underlined.
    snippet: Option<String>,
    help: Option<String>,
}

impl Mistake {
    /// A mistake in `origin` as a whole.
    pub fn new(origin: impl fmt::Display, message: String) -> Self {
        Mistake {
            origin: origin.to_string(),
            message,
            snippet: None,
            help: None,
        }
    }

    /// Adds the place in the file's `text`.
    #[must_use]
    pub fn at(mut self, place: Place, text: &str) -> Self {
        let Place { line, column, .. } = place;
        self.origin.push_str(&format!(":{line}:{column}"));
        self.snippet = snippet(&place, text);
        self
    }

    /// Adds how to mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// `slogate.yaml:3:5: unknown setting…`, the line underlined, and how to mend it.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)?;
        if let Some(snippet) = &self.snippet {
            write!(f, "\n{snippet}")?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// The line of `place`, underlined.
fn snippet(place: &Place, text: &str) -> Option<String> {
    let line_index = usize::try_from(place.line).ok()?.checked_sub(1)?;
    let line = text.lines().nth(line_index)?;
    let column_index = usize::try_from(place.column).ok()?.checked_sub(1)?;
    let start = line
        .char_indices()
        .nth(column_index)
        .map_or(line.len(), |(byte, _)| byte);
    let length = usize::try_from(place.byte_len).unwrap_or(0).max(1);
    let mut end = start.saturating_add(length).min(line.len());
    while !line.is_char_boundary(end) {
        end += 1;
    }
    let number = format!("{:>5}", place.line);
    let before: usize = line[..start].chars().count();
    let under = line[start..end].trim_end().chars().count().max(1);
    Some(format!(
        "{number} | {line}\n      | {}{}",
        " ".repeat(before),
        "^".repeat(under)
    ))
}

/// Every mistake of the settings, none hidden behind another.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", join(.0))]
pub struct Mistakes(pub Vec<Mistake>);

fn join(mistakes: &[Mistake]) -> String {
    let texts: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    texts.join("\n")
}
