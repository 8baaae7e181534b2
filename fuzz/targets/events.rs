//! A request to `/v1/events`: the first byte chooses the content type. Every event that is
//! accepted reads back from its own JSON as the same event, and folds.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use slogate::deploy::{fold, parse};
use slogate::model::Event;
use slogate_fuzz::NOW_MS;

const CONTENT_TYPES: [&str; 4] = [
    "application/json",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "application/cdevents+json; charset=utf-8",
];

/// A CloudEvent in binary mode: lines of `name: value` up to an empty one are headers.
fn binary(mut body: &[u8]) -> Option<Vec<Event>> {
    let mut headers = BTreeMap::new();
    while let Some(end) = body.iter().position(|byte| *byte == b'\n') {
        let (line, rest) = body.split_at(end);
        body = &rest[1..];
        let Some((name, value)) = std::str::from_utf8(line).ok()?.split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let header = |name: &str| headers.get(name).cloned();
    parse("application/json", &header, body, NOW_MS).ok()
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, body)) = input.split_first() else {
        return;
    };
    let content_type = usize::from(kind.wrapping_sub(b'0'));
    let events = match CONTENT_TYPES.get(content_type) {
        Some(content_type) => match parse(content_type, &|_| None, body, NOW_MS) {
            Ok(events) => events,
            Err(errors) => {
                assert!(!errors.to_string().is_empty());
                return;
            }
        },
        None => binary(body).unwrap_or_default(),
    };
    for event in &events {
        let written = serde_json::to_vec(event).expect("an event can be written");
        let again: Event = serde_json::from_slice(&written).expect("an event can be read");
        assert_eq!(*event, again);
        let _ = fold(
            &event.target,
            events.iter().filter(|other| other.target == event.target),
        );
    }
});
