//! What is wrong with events that were sent: every mistake, with its place and its cure.

use std::fmt;

use serde::Serialize;

/// Mistakes that are reported of one request.
const ERRORS_MAX: usize = 100;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventError {
    /// Which event of the request, from 0; absent when the request as a whole is meant.
    pub index: Option<usize>,
    /// The field, for example `artifact.digest`; empty when the whole event is meant.
    pub field: String,
    /// What was expected there.
    pub expected: String,
    /// What was found instead.
    pub found: String,
    /// How to mend it, where that is not plain from the above.
    pub help: Option<String>,
}

/// All mistakes of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventErrors {
    /// The mistakes, in the order of the request; the first hundred.
    pub errors: Vec<EventError>,
    /// Whether the request's media type is the problem, which HTTP answers with 415.
    #[serde(skip)]
    pub is_media_type: bool,
}

impl EventErrors {
    /// One mistake of the request as a whole.
    pub(super) fn of_request(expected: impl Into<String>, found: impl Into<String>) -> Self {
        let mut errors = EventErrors::default();
        errors.push(None, "", expected, found);
        errors
    }

    /// The media type is none of those that are understood.
    pub(super) fn of_media_type(found: &str) -> Self {
        let expected = "content-type application/json, application/cloudevents+json, \
                        application/cloudevents-batch+json, or ce-* headers";
        EventErrors {
            is_media_type: true,
            ..EventErrors::of_request(expected, quote(found))
        }
    }

    pub(super) fn push(
        &mut self,
        index: Option<usize>,
        field: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.push_with_help(index, field, expected, found, None);
    }

    pub(super) fn push_with_help(
        &mut self,
        index: Option<usize>,
        field: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        help: Option<String>,
    ) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(EventError {
                index,
                field: field.into(),
                expected: expected.into(),
                found: found.into(),
                help,
            });
        }
    }

    pub(super) fn append(&mut self, other: EventErrors) {
        self.is_media_type |= other.is_media_type;
        let room = ERRORS_MAX.saturating_sub(self.errors.len());
        self.errors.extend(other.errors.into_iter().take(room));
    }

    /// What was read, if there was no mistake.
    pub(super) fn into_result<T>(self, read: T) -> Result<T, EventErrors> {
        match self.errors.is_empty() {
            true => Ok(read),
            false => Err(self),
        }
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "event {index}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// The mistakes, one a line.
impl fmt::Display for EventErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.errors.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for EventErrors {}

/// Text from outside, quoted and cut to a length that fits a message.
pub(super) fn quote(text: &str) -> String {
    const LENGTH_MAX: usize = 100;
    match text.char_indices().nth(LENGTH_MAX) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}
