//! slogate's own event format.
//!
//! The JSON form of [`Event`]. Only `type` and `service` have to be there, and
//! `artifact.version` or `artifact.digest` where an event opens a deployment. What is left out:
//!
//! - `id`: a hash over the event as it was sent, so that a retry is known as such. Two events
//!   that are alike to the letter are therefore one; give a time or an id to tell them apart.
//! - `source`: `api`.
//! - `time`: when the request arrived. Events of one request without a time keep their order.
//!
//! A request is one event, an array of events, or `{"events": […]}`.

use serde_json::Value;

use super::error::EventErrors;
use super::reader::{Reader, TEXT_MAX};
use crate::ledger::Hash;
use crate::ledger::canonical;
use crate::model::{Event, EventKind, Target};

/// Fields of an event.
const FIELDS: [&str; 15] = [
    "type",
    "service",
    "environment",
    "region",
    "artifact",
    "previous",
    "deployment",
    "step",
    "reason",
    "actor",
    "url",
    "labels",
    "time",
    "id",
    "source",
];

/// What an envelope around an event says of it, and takes precedence over the event.
#[derive(Clone, Debug, Default)]
pub(super) struct Envelope {
    /// Where the event stands in it.
    pub(super) path: &'static str,
    pub(super) id: Option<String>,
    pub(super) source: Option<String>,
    pub(super) time_ms: Option<i64>,
    pub(super) kind: Option<EventKind>,
}

/// Reads one event.
pub(super) fn read(
    value: &Value,
    index: usize,
    received_ms: i64,
    envelope: Envelope,
    errors: &mut EventErrors,
) -> Option<Event> {
    let before = errors.errors.len();
    let reader = Reader::new(value, Some(index), envelope.path, errors)?;
    reader.refuse_unknown(errors, &FIELDS);
    let kind = envelope.kind.or_else(|| read_kind(&reader, errors));
    let service = reader.required("service", "the service's name", errors);
    let id = envelope.id.or_else(|| reader.name("id", errors));
    let source = envelope.source.or_else(|| reader.name("source", errors));
    let source = source.unwrap_or_else(|| "api".to_owned());
    let time_ms = envelope
        .time_ms
        .or_else(|| reader.time("time", received_ms, errors));
    let artifact = reader.artifact("artifact", errors);
    let previous = reader.artifact("previous", errors);
    let step = reader.step("step", errors);
    let region = reader.name("region", errors);
    let target = Target {
        service: service.unwrap_or_default(),
        environment: environment(&reader, errors),
        region,
    };
    let mut event = Event {
        id: id.unwrap_or_default(),
        source,
        time_ms: time_ms.unwrap_or(received_ms),
        kind: kind.unwrap_or(EventKind::Queued),
        target,
        artifact: artifact.unwrap_or_default(),
        previous,
        deployment: reader.name("deployment", errors),
        step,
        reason: reader.text("reason", TEXT_MAX, errors),
        actor: reader.name("actor", errors),
        url: reader.text("url", TEXT_MAX, errors),
        labels: reader.labels("labels", errors).unwrap_or_default(),
    };
    if kind.is_some() {
        check(&reader, &event, errors);
    }
    if event.id.is_empty() {
        let sent = canonical::to_canonical(value);
        event.id = Hash::of(sent.unwrap_or_default().as_bytes()).to_string();
    }
    (errors.errors.len() == before).then_some(event)
}

fn read_kind(reader: &Reader<'_>, errors: &mut EventErrors) -> Option<EventKind> {
    let names = || {
        let names = EventKind::ALL.map(EventKind::as_str);
        format!("one of {}", names.join(", "))
    };
    if reader.value("type").is_none() {
        reader.refuse(errors, "type", names(), "nothing");
    }
    let text = reader.name("type", errors)?;
    let kind = EventKind::parse(&text);
    if kind.is_none() {
        reader.refuse(errors, "type", names(), super::error::quote(&text));
    }
    kind
}

/// The environment, which may be empty where telemetry carries none.
fn environment(reader: &Reader<'_>, errors: &mut EventErrors) -> String {
    match reader.value("environment") {
        Some(Value::String(text)) if text.is_empty() => String::new(),
        _ => reader.name("environment", errors).unwrap_or_default(),
    }
}

/// What a kind of event has to say.
fn check(reader: &Reader<'_>, event: &Event, errors: &mut EventErrors) {
    let is_known = |digest: bool, version: bool| digest || version;
    let artifact = &event.artifact;
    let opens = matches!(
        event.kind,
        EventKind::ArtifactPublished
            | EventKind::Queued
            | EventKind::Started
            | EventKind::Succeeded
    );
    let one_of = |name: &str| format!("{name}.version or {name}.digest");
    if opens && !is_known(artifact.digest.is_some(), artifact.version.is_some()) {
        reader.refuse(errors, "artifact", one_of("artifact"), "neither");
    }
    if let Some(previous) = &event.previous
        && !is_known(previous.digest.is_some(), previous.version.is_some())
    {
        reader.refuse(errors, "previous", one_of("previous"), "neither");
    }
    if event.kind == EventKind::Step && event.step.is_none() {
        reader.refuse(errors, "step", "step.weight or step.index", "nothing");
    }
}
