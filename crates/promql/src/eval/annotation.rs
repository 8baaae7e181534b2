//! What a query says besides its value.

use std::collections::{HashMap, HashSet};

use crate::ast::Span;

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
    seen: HashSet<Annotation>,
    list: Vec<Annotation>,
    /// Metrics already spoken of, by the place and what was said.
    metrics: HashMap<(Span, &'static str), HashSet<Box<str>>>,
}

impl Annotations {
    pub(crate) fn warn(&mut self, span: Span, message: impl Into<String>) {
        let message = format!("PromQL warning: {}", message.into());
        self.add(Annotation {
            level: AnnotationLevel::Warning,
            message,
            span,
        });
    }

    pub(crate) fn info(&mut self, span: Span, message: impl Into<String>) {
        let message = format!("PromQL info: {}", message.into());
        self.add(Annotation {
            level: AnnotationLevel::Info,
            message,
            span,
        });
    }

    /// As [`Annotations::info`], about a metric: `message` followed by the quoted name. Cheap
    /// to say again, because it is said for every window of every series.
    pub(crate) fn info_about(&mut self, span: Span, message: &'static str, name: &str) {
        let names = self.metrics.entry((span, message)).or_default();
        if names.len() < ANNOTATIONS_MAX && !names.contains(name) {
            names.insert(name.into());
            self.info(span, format!("{message} {name:?}"));
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Annotation> {
        self.list
    }

    fn add(&mut self, annotation: Annotation) {
        if self.list.len() < ANNOTATIONS_MAX && self.seen.insert(annotation.clone()) {
            self.list.push(annotation);
        }
    }
}
