//! Reads fields of JSON objects and collects every mistake with its place.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::{EventErrors, quote};
use crate::model::{Artifact, Digest, Provenance, Step, time};

/// Characters of a name: service, environment, id, version and the like.
pub(super) const NAME_MAX: usize = 256;
/// Characters of other text: reason, URL, signature.
pub(super) const TEXT_MAX: usize = 4096;
/// Labels of an event.
const LABELS_MAX: usize = 64;
/// Steps of a deployment.
const STEPS_MAX: u64 = 10_000;
/// How far ahead of this machine's clock a sender's clock may run.
const AHEAD_MAX_MS: i64 = 24 * 3_600_000;

/// The members of one JSON object, and where it stands in the request.
pub(super) struct Reader<'a> {
    object: &'a Map<String, Value>,
    index: Option<usize>,
    /// `artifact.` for the members of `artifact`.
    prefix: String,
}

impl<'a> Reader<'a> {
    /// Reads `value`, or reports that it is not an object.
    pub(super) fn new(
        value: &'a Value,
        index: Option<usize>,
        path: &str,
        errors: &mut EventErrors,
    ) -> Option<Reader<'a>> {
        let Some(object) = value.as_object() else {
            errors.push(index, path, "an object", kind_of(value));
            return None;
        };
        let prefix = match path {
            "" => String::new(),
            path => format!("{path}."),
        };
        Some(Reader {
            object,
            index,
            prefix,
        })
    }

    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Reports a mistake at a member.
    pub(super) fn refuse(
        &self,
        errors: &mut EventErrors,
        name: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        errors.push(self.index, self.path(name), expected, found);
    }

    /// Reports members that are none of `known`, with what may have been meant.
    pub(super) fn refuse_unknown(&self, errors: &mut EventErrors, known: &[&str]) {
        for name in self.object.keys() {
            if known.contains(&name.as_str()) {
                continue;
            }
            let help = suggestion(&self.prefix, name, known);
            let found = "a field that does not exist";
            let expected = format!("one of {}", known.join(", "));
            let path = self.path(&name.chars().take(64).collect::<String>());
            errors.push_with_help(self.index, path, expected, found, help);
        }
    }

    /// A member; absent and null are the same.
    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// A member that is an object.
    pub(super) fn object(&self, name: &str, errors: &mut EventErrors) -> Option<Reader<'a>> {
        Reader::new(self.value(name)?, self.index, &self.path(name), errors)
    }

    /// A member that is text of `length_max` characters at most.
    pub(super) fn text(
        &self,
        name: &str,
        length_max: usize,
        errors: &mut EventErrors,
    ) -> Option<String> {
        let value = self.value(name)?;
        let Some(text) = value.as_str() else {
            self.refuse(errors, name, "a string", kind_of(value));
            return None;
        };
        match text_fault(text, length_max) {
            None => Some(text.to_owned()),
            Some(found) => {
                let expected = format!("1 to {length_max} characters, none of them control");
                self.refuse(errors, name, expected, found);
                None
            }
        }
    }

    /// A member that is a name.
    pub(super) fn name(&self, name: &str, errors: &mut EventErrors) -> Option<String> {
        self.text(name, NAME_MAX, errors)
    }

    /// A member that is a name and has to be there.
    pub(super) fn required(
        &self,
        name: &str,
        what: &str,
        errors: &mut EventErrors,
    ) -> Option<String> {
        if self.value(name).is_none() {
            self.refuse(errors, name, what, "nothing");
            return None;
        }
        self.name(name, errors)
    }

    /// A member that is a time, not too far ahead of `received_ms`.
    pub(super) fn time(
        &self,
        name: &str,
        received_ms: i64,
        errors: &mut EventErrors,
    ) -> Option<i64> {
        let text = self.text(name, NAME_MAX, errors)?;
        match parse_time(&text, received_ms) {
            Ok(ms) => Some(ms),
            Err((expected, found)) => {
                self.refuse(errors, name, expected, found);
                None
            }
        }
    }

    fn number_of_steps(&self, name: &str, errors: &mut EventErrors) -> Option<u32> {
        let value = self.value(name)?;
        let number = value.as_u64().filter(|n| (1..=STEPS_MAX).contains(n));
        if number.is_none() {
            let expected = format!("a whole number from 1 to {STEPS_MAX}");
            self.refuse(errors, name, expected, shown(value));
        }
        number.and_then(|n| u32::try_from(n).ok())
    }

    /// The member `step`.
    pub(super) fn step(&self, name: &str, errors: &mut EventErrors) -> Option<Step> {
        let reader = self.object(name, errors)?;
        reader.refuse_unknown(errors, &["index", "total", "weight"]);
        let step = Step {
            index: reader.number_of_steps("index", errors),
            total: reader.number_of_steps("total", errors),
            weight: reader.value("weight").and_then(|value| {
                let weight = value.as_f64().filter(|w| (0.0..=100.0).contains(w));
                if weight.is_none() {
                    reader.refuse(errors, "weight", "percent from 0 to 100", shown(value));
                }
                weight
            }),
        };
        if let (Some(index), Some(total)) = (step.index, step.total)
            && index > total
        {
            let expected = format!("at most step.total, which is {total}");
            reader.refuse(errors, "index", expected, index.to_string());
        }
        Some(step)
    }

    /// A member that is an artifact.
    pub(super) fn artifact(&self, name: &str, errors: &mut EventErrors) -> Option<Artifact> {
        let reader = self.object(name, errors)?;
        reader.refuse_unknown(errors, &["digest", "name", "version", "provenance"]);
        let digest =
            reader
                .text("digest", NAME_MAX, errors)
                .and_then(|text| match Digest::parse(&text) {
                    Ok(digest) => Some(digest),
                    Err(_) => {
                        let expected = "sha256: and 64 hex digits, or sha512: and 128";
                        reader.refuse(errors, "digest", expected, quote(&text));
                        None
                    }
                });
        Some(Artifact {
            digest,
            name: reader.text("name", TEXT_MAX, errors),
            version: reader.name("version", errors),
            provenance: reader.provenance(errors).unwrap_or_default(),
        })
    }

    fn provenance(&self, errors: &mut EventErrors) -> Option<Provenance> {
        let reader = self.object("provenance", errors)?;
        let known = ["repository", "commit", "pipeline", "builtAt", "signer"];
        reader.refuse_unknown(errors, &known);
        Some(Provenance {
            repository: reader.text("repository", TEXT_MAX, errors),
            commit: reader.name("commit", errors),
            pipeline: reader.text("pipeline", TEXT_MAX, errors),
            built_at: reader
                .time("builtAt", i64::MAX - AHEAD_MAX_MS, errors)
                .map(time::to_rfc3339),
            signer: reader.text("signer", TEXT_MAX, errors),
        })
    }

    /// The member `labels`.
    pub(super) fn labels(
        &self,
        name: &str,
        errors: &mut EventErrors,
    ) -> Option<BTreeMap<String, String>> {
        let reader = self.object(name, errors)?;
        if reader.object.len() > LABELS_MAX {
            let found = reader.object.len().to_string();
            self.refuse(errors, name, format!("at most {LABELS_MAX} labels"), found);
            return None;
        }
        let mut labels = BTreeMap::new();
        for label in reader.object.keys() {
            if let Some(fault) = text_fault(label, NAME_MAX) {
                let expected = format!("label names of 1 to {NAME_MAX} characters");
                self.refuse(errors, name, expected, fault);
            } else if let Some(text) = reader.text(label, TEXT_MAX, errors) {
                labels.insert(label.clone(), text);
            }
        }
        Some(labels)
    }
}

/// Milliseconds from RFC 3339, or what was expected and found.
pub(super) fn parse_time(text: &str, received_ms: i64) -> Result<i64, (String, String)> {
    let expected = "an RFC 3339 time such as 2026-11-20T18:00:00Z";
    let ms = time::from_rfc3339(text).ok_or_else(|| (expected.to_owned(), quote(text)))?;
    if ms < 0 {
        return Err(("a time after 1970".to_owned(), quote(text)));
    }
    if ms > received_ms.saturating_add(AHEAD_MAX_MS) {
        let expected = format!("a time not after {}", time::to_rfc3339(received_ms));
        return Err((expected, quote(text)));
    }
    Ok(ms)
}

/// What is wrong with text as a value, if anything.
pub(super) fn text_fault(text: &str, length_max: usize) -> Option<String> {
    if text.trim().is_empty() {
        return Some("empty text".to_owned());
    }
    let length = text.chars().count();
    if length > length_max {
        return Some(format!("{length} characters"));
    }
    let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    let control = text.chars().find(|c| is_control(*c))?;
    Some(format!(
        "the control character U+{:04X}",
        u32::from(control)
    ))
}

/// A value's kind, for messages.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A scalar as it was sent, or its kind.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Number(number) => number.to_string(),
        other => kind_of(other).to_owned(),
    }
}

/// What the sender of an unknown field may have meant.
fn suggestion(prefix: &str, name: &str, known: &[&str]) -> Option<String> {
    let moved = match (prefix, name) {
        ("", "version" | "digest") => Some(format!("artifact.{name}")),
        ("", "previousVersion" | "previous_version") => Some("previous.version".to_owned()),
        ("", "env") => Some("environment".to_owned()),
        ("", "timestamp" | "at") => Some("time".to_owned()),
        ("", "weight") => Some("step.weight".to_owned()),
        ("", "kind") => Some("type".to_owned()),
        ("artifact." | "previous.", "commit" | "repository" | "pipeline" | "signer") => {
            Some(format!("{prefix}provenance.{name}"))
        }
        _ => None,
    };
    let near = || {
        let distance = |known: &&str| edit_distance(&name.to_lowercase(), &known.to_lowercase());
        let nearest = known.iter().copied().min_by_key(distance)?;
        (distance(&nearest) <= 2).then(|| format!("{prefix}{nearest}"))
    };
    moved
        .or_else(near)
        .map(|meant| format!("did you mean {meant}?"))
}

/// Insertions, deletions and exchanges of characters between two short texts.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut next = vec![i + 1];
        for ((to, pair), left) in b.iter().zip(row.windows(2)).zip(0..) {
            let (above_left, above) = match pair {
                [x, y] => (*x, *y),
                _ => (0, 0),
            };
            let before: usize = next.get(left).copied().unwrap_or(0);
            let exchange = above_left + usize::from(from != *to);
            next.push(exchange.min(above + 1).min(before + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
