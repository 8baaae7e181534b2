//! Deploy events in, deployments out.
//!
//! - [`parse`] turns a request into events, whatever its format: slogate's own JSON
//!   (`native`), CloudEvents that wrap it or a CDEvent (`cloudevents`, `cdevents`). Everything
//!   that comes from outside is checked there, and every mistake is reported with its place.
//! - [`Deployments`] makes events durable and folds them (`fold` settles how).
//! - [`baseline`] chooses what a candidate is compared with.

pub mod baseline;
mod cdevents;
mod cloudevents;
mod error;
mod fold;
mod memory;
mod native;
mod observed;
mod purl;
mod reader;
mod store;
#[cfg(test)]
mod testing;

use serde_json::Value;

pub use error::{EventError, EventErrors};
pub use fold::{Folded, OBSERVER, WITNESS_GAP_MS, fold};
pub use store::{AcceptError, Accepted, Deployments, DeploymentsOptions, EVENTS_MAX, Filter};

use crate::model::Event;
use native::Envelope;

/// Gives a request header's value by its lower-case name.
type Header<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads the events of a request.
///
/// `header` gives a header's value by its lower-case name; `received_ms` is when the request
/// arrived, in milliseconds since the epoch. What is accepted and not about deployments, such
/// as a CDEvent of a pipeline run, gives no event.
///
/// # Errors
/// When anything in the request is not as it has to be: then no event of it is taken, and every
/// mistake is named.
pub fn parse(
    content_type: &str,
    header: &dyn Fn(&str) -> Option<String>,
    body: &[u8],
    received_ms: i64,
) -> Result<Vec<Event>, EventErrors> {
    let media_type = content_type.split(';').next().unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    let events = match media_type.as_str() {
        "application/cloudevents-batch+json" => match &json(body)? {
            Value::Array(events) => each(events, received_ms, cloudevents::read_structured)?,
            _ => {
                return Err(EventErrors::of_request(
                    "an array of CloudEvents",
                    "something else",
                ));
            }
        },
        "application/cloudevents+json" => {
            let event = [json(body)?];
            each(&event, received_ms, cloudevents::read_structured)?
        }
        cloudevents if cloudevents.starts_with("application/cloudevents") => {
            return Err(EventErrors::of_media_type(content_type));
        }
        _ if cloudevents::is_binary(header) => {
            let mut errors = EventErrors::default();
            let event =
                cloudevents::read_binary(&media_type, header, body, received_ms, &mut errors);
            errors.into_result(event.into_iter().collect())?
        }
        "" => plain(&json(body)?, received_ms)?,
        media_type if cloudevents::is_json(media_type) => plain(&json(body)?, received_ms)?,
        _ => return Err(EventErrors::of_media_type(content_type)),
    };
    refuse_observer(events)
}

fn json(body: &[u8]) -> Result<Value, EventErrors> {
    serde_json::from_slice(body)
        .map_err(|error| EventErrors::of_request("a JSON document", error.to_string()))
}

/// JSON without a CloudEvents media type: one event, an array, or `{"events": […]}`, each native
/// or marked as something else by its fields.
fn plain(body: &Value, received_ms: i64) -> Result<Vec<Event>, EventErrors> {
    let events = match body {
        Value::Array(events) => events.as_slice(),
        Value::Object(members) => match members.get("events") {
            Some(Value::Array(events)) if members.len() == 1 => events.as_slice(),
            _ => std::slice::from_ref(body),
        },
        _ => std::slice::from_ref(body),
    };
    each(events, received_ms, |event, index, at_ms, errors| {
        if event.get("specversion").is_some() {
            cloudevents::read_structured(event, index, at_ms, errors)
        } else if cdevents::is_bare(event) {
            cdevents::read(event, "", index, at_ms, errors)
        } else {
            native::read(event, index, at_ms, Envelope::default(), errors)
        }
    })
}

fn each(
    events: &[Value],
    received_ms: i64,
    read: impl Fn(&Value, usize, i64, &mut EventErrors) -> Option<Event>,
) -> Result<Vec<Event>, EventErrors> {
    if events.len() > EVENTS_MAX {
        let expected = format!("at most {EVENTS_MAX} events in a request");
        return Err(EventErrors::of_request(expected, events.len().to_string()));
    }
    let mut errors = EventErrors::default();
    let mut found = Vec::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        // Events without a time keep their order, and the last of them happened now.
        let later = i64::try_from(events.len() - 1 - index).unwrap_or(0);
        found.extend(read(event, index, received_ms - later, &mut errors));
    }
    errors.into_result(found)
}

/// What telemetry shows is for slogate to say.
fn refuse_observer(events: Vec<Event>) -> Result<Vec<Event>, EventErrors> {
    let mut errors = EventErrors::default();
    for (index, event) in events.iter().enumerate() {
        if event.source == OBSERVER {
            errors.push(Some(index), "source", "the sender's own name", "slogate's");
        }
    }
    errors.into_result(events)
}

#[cfg(test)]
mod tests;
