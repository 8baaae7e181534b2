//! Deploy events in, deployments out.
//!
//! - [`parse`] turns a request into events, whatever its format: slogate's own JSON
//!   (`native`), CloudEvents that wrap it or a CDEvent (`cloudevents`, `cdevents`). Everything
//!   that comes from outside is checked there, and every mistake is reported with its place.
//! - [`Deployments`] makes events durable and folds them (`fold` settles how).
//! - [`baseline`] chooses what a candidate is compared with.

mod error;
mod fold;
mod native;
mod observed;
mod reader;
mod store;
#[cfg(test)]
mod testing;

use serde_json::Value;

pub use error::{EventError, EventErrors};
pub use fold::{Folded, OBSERVER, WITNESS_GAP_MS, fold};
pub use store::{AcceptError, Accepted, Deployments, DeploymentsOptions, EVENTS_MAX, Filter};

use crate::model::Event;

/// Reads the events of a request.
///
/// `header` gives a header's value by its lower-case name; `received_ms` is when the request
/// arrived, in milliseconds since the epoch.
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
    let _ = header;
    let media_type = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match media_type.as_str() {
        "application/json" | "" => native_request(&json(body)?, received_ms),
        _ => Err(EventErrors::of_media_type(content_type)),
    }
}

fn json(body: &[u8]) -> Result<Value, EventErrors> {
    serde_json::from_slice(body)
        .map_err(|error| EventErrors::of_request("a JSON document", error.to_string()))
}

fn native_request(body: &Value, received_ms: i64) -> Result<Vec<Event>, EventErrors> {
    let events = match body {
        Value::Array(events) => events.as_slice(),
        Value::Object(members) => match members.get("events") {
            Some(Value::Array(events)) if members.len() == 1 => events.as_slice(),
            _ => std::slice::from_ref(body),
        },
        _ => std::slice::from_ref(body),
    };
    if events.len() > EVENTS_MAX {
        let expected = format!("at most {EVENTS_MAX} events in a request");
        return Err(EventErrors::of_request(expected, events.len().to_string()));
    }
    let mut errors = EventErrors::default();
    let mut read = Vec::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        // Events without a time keep their order, and the last of them happened now.
        let later = i64::try_from(events.len() - 1 - index).unwrap_or(0);
        let at_ms = received_ms - later;
        read.extend(native::read(
            event,
            index,
            at_ms,
            native::Envelope::default(),
            &mut errors,
        ));
    }
    match errors.is_empty() {
        true => Ok(read),
        false => Err(errors),
    }
}
