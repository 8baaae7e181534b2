//! CloudEvents 1.0 over HTTP: structured, batched and binary mode.
//!
//! Modes are told apart as the HTTP binding says: by a content type that begins with
//! `application/cloudevents-batch` or `application/cloudevents`, else by `ce-` headers. The JSON
//! format is the only one. What the envelope wraps is a CDEvent (type `dev.cdevents.…`), or a
//! native event (type `dev.slogate.deployment.started` and so on, or the plain native name)
//! whose id, source and time are the envelope's. Extension attributes are allowed and not read.

use base64::Engine as _;
use serde_json::Value;

use super::error::{EventErrors, quote};
use super::native::{self, Envelope};
use super::purl::percent_decoded;
use super::reader::{NAME_MAX, Reader, parse_time, text_fault};
use super::{Header, cdevents};
use crate::model::{Event, EventKind};

/// Before a native type's name in an envelope.
const NATIVE_PREFIX: &str = "dev.slogate.";

/// An envelope with what it wraps.
struct CloudEvent {
    id: String,
    source: String,
    kind: String,
    time_ms: Option<i64>,
    data: Value,
    /// Where the data stands in the request.
    path: &'static str,
}

/// Reads one CloudEvent in the JSON format into an event, or into none if it is about something
/// else than deployments.
pub(super) fn read_structured(
    value: &Value,
    index: usize,
    received_ms: i64,
    errors: &mut EventErrors,
) -> Option<Event> {
    let reader = Reader::new(value, Some(index), "", errors)?;
    let before = errors.errors.len();
    let version = reader.required("specversion", "\"1.0\"", errors);
    if let Some(version) = version.filter(|version| version != "1.0") {
        reader.refuse(errors, "specversion", "\"1.0\"", quote(&version));
    }
    let id = reader.required("id", "an id", errors);
    let source = reader.required("source", "the event's source", errors);
    let kind = reader.required("type", "the event's type", errors);
    let time_ms = reader.time("time", received_ms, errors);
    let data = structured_data(&reader, errors);
    if errors.errors.len() > before {
        return None;
    }
    let event = CloudEvent {
        id: id?,
        source: source?,
        kind: kind?,
        time_ms,
        data: data?,
        path: "data",
    };
    unwrap(event, index, received_ms, errors)
}

/// The JSON that a structured event carries in `data` or `data_base64`.
fn structured_data(reader: &Reader<'_>, errors: &mut EventErrors) -> Option<Value> {
    let media_type = reader.name("datacontenttype", errors);
    let is_json = media_type.as_deref().is_none_or(is_json);
    let expected = "JSON data, as datacontenttype has to say";
    if !is_json {
        let found = quote(&media_type.unwrap_or_default());
        reader.refuse(errors, "datacontenttype", expected, found);
        return None;
    }
    match (reader.value("data"), reader.value("data_base64")) {
        (Some(data), None) => Some(data.clone()),
        (None, Some(Value::String(text))) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            let value = bytes
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if value.is_none() {
                reader.refuse(
                    errors,
                    "data_base64",
                    "base64 of a JSON document",
                    "other text",
                );
            }
            value
        }
        (Some(_), Some(_)) => {
            reader.refuse(errors, "data", "data or data_base64", "both");
            None
        }
        _ => {
            reader.refuse(errors, "data", "the event's data as JSON", "nothing");
            None
        }
    }
}

/// Whether the headers carry a CloudEvent in binary mode.
pub(super) fn is_binary(header: Header<'_>) -> bool {
    header("ce-specversion").is_some() || header("ce-type").is_some()
}

/// Reads a CloudEvent whose attributes are headers and whose data is the body.
pub(super) fn read_binary(
    content_type: &str,
    header: Header<'_>,
    body: &[u8],
    received_ms: i64,
    errors: &mut EventErrors,
) -> Option<Event> {
    if !content_type.is_empty() && !is_json(content_type) {
        errors.append(EventErrors::of_media_type(content_type));
        return None;
    }
    let before = errors.errors.len();
    let version = attribute(header, "ce-specversion", errors);
    if let Some(version) = version.filter(|version| version != "1.0") {
        errors.push(Some(0), "ce-specversion", "1.0", quote(&version));
    }
    let id = attribute(header, "ce-id", errors);
    let source = attribute(header, "ce-source", errors);
    let kind = attribute(header, "ce-type", errors);
    let time = header("ce-time").and_then(|_| attribute(header, "ce-time", errors));
    let time_ms = time.and_then(|text| match parse_time(&text, received_ms) {
        Ok(ms) => Some(ms),
        Err((expected, found)) => {
            errors.push(Some(0), "ce-time", expected, found);
            None
        }
    });
    let data = super::json(body).map_err(|error| errors.append(error)).ok();
    if errors.errors.len() > before {
        return None;
    }
    let event = CloudEvent {
        id: id?,
        source: source?,
        kind: kind?,
        time_ms,
        data: data?,
        path: "",
    };
    unwrap(event, 0, received_ms, errors)
}

/// The value of an attribute's header, decoded as the HTTP binding says: quotes first, then one
/// round of percent-decoding.
fn attribute(header: Header<'_>, name: &str, errors: &mut EventErrors) -> Option<String> {
    let Some(raw) = header(name) else {
        errors.push(Some(0), name, "the header", "nothing");
        return None;
    };
    let Some(text) = percent_decoded(&unquoted(&raw)) else {
        errors.push(Some(0), name, "percent-encoded UTF-8", quote(&raw));
        return None;
    };
    if let Some(fault) = text_fault(&text, NAME_MAX) {
        errors.push(Some(0), name, format!("1 to {NAME_MAX} characters"), fault);
        return None;
    }
    Some(text)
}

/// A header value without the double quotes and backslashes that older senders put.
fn unquoted(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut is_quoted = false;
    let mut chars = raw.trim().chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => text.extend(chars.next()),
            c => text.push(c),
        }
    }
    text
}

/// Turns what an envelope wraps into an event.
fn unwrap(
    event: CloudEvent,
    index: usize,
    received_ms: i64,
    errors: &mut EventErrors,
) -> Option<Event> {
    if event.kind.starts_with(cdevents::PREFIX) {
        return cdevents::read(&event.data, event.path, index, received_ms, errors);
    }
    let native = event
        .kind
        .strip_prefix(NATIVE_PREFIX)
        .unwrap_or(&event.kind);
    let Some(kind) = EventKind::parse(native) else {
        let expected = "dev.cdevents.… or dev.slogate. before a native type, \
                        for example dev.slogate.deployment.started";
        errors.push(Some(index), "type", expected, quote(&event.kind));
        return None;
    };
    let envelope = Envelope {
        path: event.path,
        id: Some(event.id),
        source: Some(event.source),
        time_ms: event.time_ms,
        kind: Some(kind),
    };
    native::read(&event.data, index, received_ms, envelope, errors)
}

/// Whether a media type declares JSON: `*/json` or `*/*+json`, whatever its parameters.
pub(super) fn is_json(media_type: &str) -> bool {
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    let subtype = media_type
        .split('/')
        .nth(1)
        .unwrap_or_default()
        .to_ascii_lowercase();
    subtype == "json" || subtype.ends_with("+json")
}
