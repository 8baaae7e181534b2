//! What a query says besides its value.
//!
//! As in Prometheus, each thing is said once, however many series, steps and places it is
//! true of; its place is the last one. Two things are counted while they are said.

use std::collections::{HashMap, HashSet};

use crate::ast::Span;
use crate::eval::date::rfc3339;
use crate::eval::text::{quoted, shortest, two_digits};

/// How much an annotation matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnnotationLevel {
    /// The result may be incomplete or wrong.
    Warning,
    /// The query may not mean what was meant.
    Info,
}

/// Something the asker should know about a result.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Annotation {
    /// How much it matters.
    pub level: AnnotationLevel,
    /// What it is about, in Prometheus's words.
    pub message: String,
    /// The part of the query that gave rise to it.
    pub span: Span,
}

/// The most annotations kept; a query over many odd metrics would name each.
const ANNOTATIONS_MAX: usize = 1000;

#[derive(Debug, Default)]
pub(crate) struct Annotations {
    list: Vec<Entry>,
    by_message: HashMap<(AnnotationLevel, String), usize>,
    /// Metrics already spoken of, by the place and what was said.
    metrics: HashMap<(Span, &'static str), HashSet<Box<str>>>,
}

#[derive(Debug)]
struct Entry {
    level: AnnotationLevel,
    message: String,
    span: Span,
    tally: Tally,
}

/// What is counted over all times that one thing is said.
#[derive(Clone, Copy, Debug)]
enum Tally {
    Nothing,
    Occurrences(u64),
    Raised {
        fix: Raised,
        samples: u64,
        first_ms: i64,
        last_ms: i64,
    },
}

/// What it took to make a classic histogram's buckets rise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raised {
    /// The lowest bound whose count was raised.
    pub(crate) bound_min: f64,
    /// The highest one.
    pub(crate) bound_max: f64,
    /// The most that was added to a count.
    pub(crate) difference_max: f64,
}

impl Annotations {
    pub(crate) fn warn(&mut self, span: Span, message: impl Into<String>) {
        self.add(
            AnnotationLevel::Warning,
            span,
            message.into(),
            Tally::Nothing,
        );
    }

    pub(crate) fn info(&mut self, span: Span, message: impl Into<String>) {
        self.add(AnnotationLevel::Info, span, message.into(), Tally::Nothing);
    }

    /// As [`Annotations::info`], about a metric: `message` followed by the quoted name. Cheap
    /// to say again, because it is said for every window of every series.
    pub(crate) fn info_about(&mut self, span: Span, message: &'static str, name: &str) {
        let names = self.metrics.entry((span, message)).or_default();
        if names.len() < ANNOTATIONS_MAX && !names.contains(name) {
            names.insert(name.into());
            self.info(span, format!("{message} {}", quoted(name)));
        }
    }

    /// As [`Annotations::warn`]; how often it was said becomes part of the text.
    pub(crate) fn warn_counted(&mut self, span: Span, message: impl Into<String>) {
        let tally = Tally::Occurrences(1);
        self.add(AnnotationLevel::Warning, span, message.into(), tally);
    }

    /// That buckets had to be raised at `t_ms`; the extent becomes part of the text.
    pub(crate) fn info_raised(&mut self, span: Span, message: String, fix: Raised, t_ms: i64) {
        let tally = Tally::Raised {
            fix,
            samples: 1,
            first_ms: t_ms,
            last_ms: t_ms,
        };
        self.add(AnnotationLevel::Info, span, message, tally);
    }

    pub(crate) fn into_vec(self) -> Vec<Annotation> {
        self.list.into_iter().map(Entry::into_annotation).collect()
    }

    fn add(&mut self, level: AnnotationLevel, span: Span, message: String, tally: Tally) {
        let key = (level, message);
        if let Some(entry) = self
            .by_message
            .get(&key)
            .and_then(|at| self.list.get_mut(*at))
        {
            entry.span = span;
            entry.tally = entry.tally.and(tally);
            return;
        }
        if self.list.len() == ANNOTATIONS_MAX {
            return;
        }
        self.list.push(Entry {
            level,
            message: key.1.clone(),
            span,
            tally,
        });
        self.by_message.insert(key, self.list.len() - 1);
    }
}

impl Entry {
    fn into_annotation(self) -> Annotation {
        let level = match self.level {
            AnnotationLevel::Warning => "PromQL warning",
            AnnotationLevel::Info => "PromQL info",
        };
        Annotation {
            level: self.level,
            message: format!("{level}: {}{}", self.message, self.tally.text()),
            span: self.span,
        }
    }
}

impl Tally {
    fn and(self, other: Tally) -> Tally {
        match (self, other) {
            (Tally::Occurrences(a), Tally::Occurrences(b)) => Tally::Occurrences(a + b),
            (
                Tally::Raised {
                    fix: a,
                    samples,
                    first_ms,
                    last_ms,
                },
                Tally::Raised {
                    fix: b,
                    samples: more,
                    first_ms: b_first_ms,
                    last_ms: b_last_ms,
                },
            ) => Tally::Raised {
                fix: Raised {
                    bound_min: a.bound_min.min(b.bound_min),
                    bound_max: a.bound_max.max(b.bound_max),
                    difference_max: a.difference_max.max(b.difference_max),
                },
                samples: samples + more,
                first_ms: first_ms.min(b_first_ms),
                last_ms: last_ms.max(b_last_ms),
            },
            (_, other) => other,
        }
    }

    fn text(self) -> String {
        match self {
            Tally::Nothing | Tally::Occurrences(1) => String::new(),
            Tally::Occurrences(count) => format!(" ({count} occurrences)"),
            Tally::Raised {
                fix,
                samples,
                first_ms,
                last_ms,
            } => format!(
                ", from buckets {} to {}, with a max diff of {}, over {samples} samples from {} \
                 to {}",
                shortest(fix.bound_min),
                shortest(fix.bound_max),
                two_digits(fix.difference_max),
                rfc3339(first_ms),
                rfc3339(last_ms),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_said_once_with_its_last_place() {
        let mut notes = Annotations::default();
        let [first, second] = [Span::new(0, 1), Span::new(5, 6)];
        notes.warn(first, "a");
        notes.info(first, "a");
        notes.warn(second, "a");
        let all = notes.into_vec();
        let texts: Vec<_> = all.iter().map(|a| (a.message.as_str(), a.span)).collect();
        assert_eq!(
            texts,
            [("PromQL warning: a", second), ("PromQL info: a", first)]
        );
    }

    #[test]
    fn some_things_are_counted() {
        let mut notes = Annotations::default();
        let span = Span::new(0, 1);
        notes.warn_counted(span, "overlap");
        notes.warn_counted(span, "overlap");
        let fix = |bound, difference_max| Raised {
            bound_min: bound,
            bound_max: bound,
            difference_max,
        };
        notes.info_raised(span, "raised".to_owned(), fix(1.0, 0.123), 60_000);
        notes.info_raised(span, "raised".to_owned(), fix(0.1, 2.0), 0);
        let texts: Vec<_> = notes.into_vec().into_iter().map(|a| a.message).collect();
        assert_eq!(
            texts,
            [
                "PromQL warning: overlap (2 occurrences)",
                "PromQL info: raised, from buckets 0.1 to 1, with a max diff of 2, over 2 samples \
                 from 1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z"
            ]
        );
    }
}
