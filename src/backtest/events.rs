//! Deploy events of a recording.
//!
//! They are read as `POST /v1/events` reads them: native, CloudEvents, CDEvents. An event that is
//! none of these, because it was written down by other means, is read by the names that its
//! fields usually have, and that is said; where it says neither a service nor a version it is left
//! out. An event without a time is taken as of the recording's first sample.

use serde_json::{Map, Value as Json};
use slogate_wire::openmetrics::timestamp_ms;

use crate::deploy;
use crate::model::{Artifact, Event, EventKind, Step, Target, time};

/// An event as it stands in a file.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// The document.
    pub(crate) value: Json,
    /// File and line.
    pub(crate) place: String,
}

/// Whether a document may be an event.
pub(crate) fn is_it(value: &Json) -> bool {
    let Json::Object(members) = value else {
        return false;
    };
    let has = |names: &[&str]| names.iter().any(|name| members.contains_key(*name));
    let is_list = members.get("events").is_some_and(Json::is_array);
    is_list || has(&KIND) || has(&VERSION) || has(&["specversion", "context", "artifact"])
}

/// After every recording: an event of then has no time of its own. The year 2200.
const NEVER_MS: i64 = 7_258_118_400_000;

/// The events, and what is to be said about how they were read. Those without a time happened at
/// `first_ms`.
pub(crate) fn read(received: &[Received], first_ms: i64) -> (Vec<Event>, Vec<String>) {
    let (mut events, mut notes) = (Vec::new(), Vec::new());
    for one in received {
        let body = one.value.to_string();
        match deploy::parse("application/json", &|_| None, body.as_bytes(), NEVER_MS) {
            Ok(mut found) => {
                for event in &mut found {
                    let before = NEVER_MS - event.time_ms;
                    if before <= deploy::EVENTS_MAX as i64 {
                        event.time_ms = first_ms - before;
                        let what = "has no time: taken as of the first sample";
                        notes.push(format!("{}: {} {what}", one.place, event.kind.as_str()));
                    }
                }
                events.extend(found);
            }
            Err(mistakes) => {
                let inside = one.value.get("events").and_then(Json::as_array);
                let values = inside.map_or(std::slice::from_ref(&one.value), Vec::as_slice);
                let found: Vec<Event> = values
                    .iter()
                    .enumerate()
                    .filter_map(|(at, value)| freely(value, &one.place, at, first_ms))
                    .collect();
                let mistake = mistakes.to_string();
                let mistake = mistake.lines().next().unwrap_or_default().to_owned();
                notes.push(match found.first() {
                    Some(event) => format!(
                        "{}: no event as documented ({mistake}); read as {} of {} {} at {}",
                        one.place,
                        event.kind.as_str(),
                        event.target.service,
                        event.artifact,
                        time::to_rfc3339(event.time_ms)
                    ),
                    None => format!("{}: not read: {mistake}", one.place),
                });
                events.extend(found);
            }
        }
    }
    (events, notes)
}

const KIND: [&str; 8] = [
    "type",
    "event",
    "kind",
    "action",
    "phase",
    "event_type",
    "eventType",
    "status",
];

const VERSION: [&str; 16] = [
    "version",
    "candidate",
    "new_version",
    "newVersion",
    "to_version",
    "toVersion",
    "to",
    "image",
    "tag",
    "service_version",
    "canary",
    "candidate_version",
    "candidateVersion",
    "revision",
    "canary_version",
    "gray_version",
];

const PREVIOUS: [&str; 14] = [
    "previous",
    "baseline",
    "old_version",
    "oldVersion",
    "from_version",
    "fromVersion",
    "from",
    "stable",
    "previous_version",
    "previousVersion",
    "baseline_version",
    "baselineVersion",
    "stable_version",
    "control",
];

const SERVICE: [&str; 8] = [
    "service",
    "service_name",
    "serviceName",
    "app",
    "application",
    "component",
    "workload",
    "deployment_name",
];

const TIME: [&str; 13] = [
    "time",
    "timestamp",
    "ts",
    "at",
    "start",
    "started_at",
    "startedAt",
    "start_time",
    "startTime",
    "deployed_at",
    "deploy_time",
    "date",
    "time_ms",
];

/// An event by the usual names of its fields.
fn freely(value: &Json, place: &str, at: usize, first_ms: i64) -> Option<Event> {
    let members = value.as_object()?;
    let version = text_of(members, &VERSION).or_else(|| text_of(members, &["artifact"]));
    let service = text_of(members, &SERVICE);
    let said = text_of(members, &KIND);
    if version.is_none() && service.is_none() {
        return None;
    }
    let weight = number_of(
        members,
        &["weight", "traffic", "percent", "share", "traffic_percent"],
    );
    let kind = said.as_deref().and_then(kind_of_word);
    let kind = kind.or_else(|| weight.map(|_| EventKind::Step));
    let kind = kind.or_else(|| said.is_none().then_some(EventKind::Started))?;
    let t_ms = TIME.iter().find_map(|name| time_of(members.get(*name)?));
    // Something with a version is no event yet: it has to happen at a time, or to a service.
    if t_ms.is_none() && (said.is_none() || service.is_none()) {
        return None;
    }
    let environment = text_of(members, &["environment", "env", "namespace", "cluster"]);
    Some(Event {
        id: format!("{place}#{at}"),
        source: "recording".to_owned(),
        time_ms: t_ms.unwrap_or(first_ms),
        kind,
        target: Target::new(service.unwrap_or_default(), environment.unwrap_or_default()),
        artifact: version.map(Artifact::of_version).unwrap_or_default(),
        previous: text_of(members, &PREVIOUS).map(Artifact::of_version),
        deployment: None,
        step: (kind == EventKind::Step).then(|| Step {
            weight: weight.map(|weight| {
                if weight <= 1.0 {
                    weight * 100.0
                } else {
                    weight
                }
            }),
            ..Step::default()
        }),
        reason: None,
        actor: None,
        url: None,
        labels: Default::default(),
    })
}

/// A member's text, or of an object the version or name in it.
fn text_of(members: &Map<String, Json>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| match members.get(*name)? {
        Json::String(text) if !text.is_empty() => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Object(inside) => ["version", "tag", "name", "label"]
            .iter()
            .find_map(|name| inside.get(*name)?.as_str().map(str::to_owned)),
        _ => None,
    })
}

fn number_of(members: &Map<String, Json>, names: &[&str]) -> Option<f64> {
    names.iter().find_map(|name| match members.get(*name)? {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text.trim_end_matches('%').parse().ok(),
        _ => None,
    })
}

fn time_of(value: &Json) -> Option<i64> {
    match value {
        Json::Number(number) => timestamp_ms(number.as_f64()?),
        Json::String(text) => {
            let spaced = text.replacen(' ', "T", 1);
            let zoned = format!("{spaced}Z");
            time::from_rfc3339(text)
                .or_else(|| time::from_rfc3339(&spaced))
                .or_else(|| time::from_rfc3339(&zoned))
                .or_else(|| timestamp_ms(text.parse().ok()?))
        }
        _ => None,
    }
}

fn kind_of_word(word: &str) -> Option<EventKind> {
    if let Some(kind) = EventKind::parse(word) {
        return Some(kind);
    }
    let word = word.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| word.contains(part));
    // The end is looked for first: "deployment finished" is no start.
    if has(&["rollback", "rolled_back", "rolledback", "revert"]) {
        Some(EventKind::RolledBack)
    } else if has(&["abort", "cancel"]) {
        Some(EventKind::Aborted)
    } else if has(&["fail", "error"]) {
        Some(EventKind::Failed)
    } else if has(&[
        "succe", "finish", "complete", "promot", "end", "deployed", "done",
    ]) {
        Some(EventKind::Succeeded)
    } else if has(&[
        "step", "weight", "traffic", "shift", "ramp", "progress", "scale",
    ]) {
        Some(EventKind::Step)
    } else if has(&["pause"]) {
        Some(EventKind::Paused)
    } else if has(&[
        "start", "begin", "begun", "create", "deploy", "release", "rollout", "canary", "gray",
        "grey",
    ]) {
        Some(EventKind::Started)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (Vec<Event>, Vec<String>) {
        let value: Json = serde_json::from_str(text).unwrap();
        assert!(is_it(&value), "{text}");
        let place = "events.jsonl:1".to_owned();
        read(&[Received { value, place }], 5_000)
    }

    #[test]
    fn documented_events_need_no_note() {
        let (events, notes) = one(
            r#"{"type":"deployment.started","service":"shop","artifact":{"version":"2"},"time":"2026-01-01T00:00:00Z"}"#,
        );
        assert_eq!(notes, Vec::<String>::new());
        assert_eq!(events[0].kind, EventKind::Started);
        let (events, notes) =
            one(r#"{"type":"deployment.started","service":"shop","artifact":{"version":"2"}}"#);
        assert_eq!(events[0].time_ms, 5_000);
        assert!(notes[0].contains("has no time"), "{notes:?}");
    }

    #[test]
    fn others_are_read_by_the_usual_names_and_that_is_said() {
        let (events, notes) = one(
            r#"{"event":"canary started","app":"shop","version":"2","baseline":{"version":"1"},"ts":1700000000}"#,
        );
        let event = &events[0];
        assert_eq!(event.kind, EventKind::Started);
        assert_eq!(event.target, Target::new("shop", ""));
        assert_eq!(event.time_ms, 1_700_000_000_000);
        assert_eq!(event.previous, Some(Artifact::of_version("1")));
        assert!(
            notes[0].starts_with("events.jsonl:1: no event as documented"),
            "{notes:?}"
        );
        let (events, _) = one(r#"{"service":"shop","version":"2","time":"2026-01-01 00:00:00"}"#);
        assert_eq!(events[0].time_ms, 1_767_225_600_000);
        let (events, _) = one(r#"{"version":"2","status":"failed"}"#);
        assert!(events.is_empty(), "{events:?}");
        let (events, notes) = one(r#"{"type":"weather"}"#);
        assert!(
            events.is_empty() && notes[0].contains("not read"),
            "{notes:?}"
        );
    }
}
