use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::EventKind;

const NOW_MS: i64 = 1_795_190_400_000;
const DIGEST: &str = "sha256:0b31b1c02ff458ad9b7b81cbdf8f028bd54699fa151f221d1e8de6817db93427";

fn parse_as(content_type: &str, body: &Value) -> Result<Vec<Event>, EventErrors> {
    parse(content_type, &|_| None, body.to_string().as_bytes(), NOW_MS)
}

fn native(body: &Value) -> Result<Vec<Event>, EventErrors> {
    parse_as("application/json; charset=utf-8", body)
}

/// `index field` of each mistake.
fn places(result: Result<Vec<Event>, EventErrors>) -> Vec<String> {
    let place = |e: EventError| match e.index {
        Some(index) => format!("{index} {}", e.field),
        None => "request".to_owned(),
    };
    result.unwrap_err().errors.into_iter().map(place).collect()
}

#[test]
fn a_native_event_needs_little_and_holds_much() {
    let small = json!({"type": "deployment.started", "service": "checkout",
        "artifact": {"version": "2"}});
    let event = native(&small).unwrap().remove(0);
    assert_eq!((event.source.as_str(), event.time_ms), ("api", NOW_MS));
    assert_eq!(event.target.environment, "");
    assert_eq!(
        event.id,
        native(&small).unwrap()[0].id,
        "a retry is the same event"
    );

    let whole = json!({"id": "7", "source": "ci", "time": "2026-11-20T15:00:00.000Z",
        "type": "deployment.step", "service": "checkout", "environment": "production",
        "region": "eu", "artifact": {"digest": DIGEST, "name": "shop/checkout",
            "version": "2", "provenance": {"commit": "abc", "repository": "git.test/shop",
            "pipeline": "ci.test/7", "builtAt": "2026-11-20T14:00:00.000Z", "signer": "ci"}},
        "previous": {"version": "1", "digest": null, "name": null, "provenance": {}},
        "deployment": "run-7", "step": {"index": 1, "total": 3, "weight": 12.5},
        "reason": "r", "actor": "a", "url": "https://ci.test/7", "labels": {"team": "pay"}});
    let event = native(&whole).unwrap().remove(0);
    assert_eq!(
        serde_json::to_value(&event).unwrap(),
        whole,
        "the form of the model"
    );
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let wrong = json!({"events": [
        {"type": "deployment.exploded", "service": "", "artifact": {"version": "2"}},
        {"type": "deployment.started", "service": "checkout", "version": "2"},
        {"type": "deployment.step", "service": "checkout", "step": {"weight": 101, "index": 4,
            "total": 3}, "artifact": {"digest": "latest", "comit": "x"}, "labels": {"a": 1}},
        {"type": "deployment.failed", "service": 7, "time": "yesterday", "previous": {}},
        "started"]});
    let expected = [
        "0 type",
        "0 service",
        "1 version",
        "1 artifact",
        "2 artifact.comit",
        "2 artifact.digest",
        "2 step.weight",
        "2 step.index",
        "2 labels.a",
        "3 service",
        "3 time",
        "3 previous",
        "4 ",
    ];
    assert_eq!(places(native(&wrong)), expected);
    let errors = native(&wrong).unwrap_err();
    let help = |n: usize| errors.errors[n].help.clone().unwrap_or_default();
    assert_eq!(help(2), "did you mean artifact.version?");
    let typo = json!({"type": "deployment.started", "servise": "checkout"});
    let errors = native(&typo).unwrap_err();
    let first = errors.to_string().lines().next().map(str::to_owned);
    let first = first.unwrap();
    assert!(
        first.starts_with("event 0: servise: expected one of type, service"),
        "{first}"
    );
    assert!(first.ends_with("(did you mean service?)"), "{first}");
}

#[test]
fn limits_hold() {
    let event = |service: &str| {
        json!({"type": "deployment.started", "service": service,
        "artifact": {"version": "2"}})
    };
    let many = vec![event("checkout"); EVENTS_MAX + 1];
    assert_eq!(places(native(&Value::from(many))), ["request"]);
    assert_eq!(places(native(&event(&"x".repeat(257)))), ["0 service"]);
    assert_eq!(places(native(&event("a\u{0}b"))), ["0 service"]);
    let mut labelled = event("checkout");
    labelled["labels"] = (0..65).map(|n| (n.to_string(), json!("x"))).collect();
    assert_eq!(places(native(&labelled)), ["0 labels"]);
    let mut ahead = event("checkout");
    ahead["time"] = "2027-11-20T15:00:00Z".into();
    assert_eq!(places(native(&ahead)), ["0 time"]);
    ahead["source"] = OBSERVER.into();
    ahead["time"] = "2026-11-20T15:00:00Z".into();
    assert_eq!(places(native(&ahead)), ["0 source"]);
    // All mistakes of a thousand wrong events would be an answer of megabytes.
    let wrong = vec![json!({}); EVENTS_MAX];
    assert_eq!(native(&Value::from(wrong)).unwrap_err().errors.len(), 100);
}

#[test]
fn events_of_one_request_without_times_keep_their_order() {
    let event = |kind: &str| {
        json!({"type": kind, "service": "checkout",
        "artifact": {"version": "2"}})
    };
    let batch = json!([event("deployment.succeeded"), event("deployment.started")]);
    let events = native(&batch).unwrap();
    assert!(events[0].time_ms < events[1].time_ms);
    assert_eq!(events[1].time_ms, NOW_MS);
}

fn deployed(predicate: &str) -> Value {
    json!({"context": {"specversion": "0.5.1", "id": "e-1", "chainId": "chain-1",
            "source": "/cd/prod", "type": format!("dev.cdevents.service.{predicate}.0.3.0"),
            "timestamp": "2026-11-20T15:00:00Z"},
        "subject": {"id": "deployment/checkout", "source": "/cd/prod", "content": {
            "environment": {"id": "production"},
            "artifactId": format!("pkg:oci/checkout@{}?tag=4.2.0", DIGEST.replace(':', "%3A"))}}})
}

fn enveloped(data: &Value) -> Value {
    let kind = data["context"]["type"].clone();
    json!({"specversion": "1.0", "id": "e-1", "source": "/cd/prod", "type": kind,
        "subject": "deployment/checkout", "time": "2026-11-20T15:00:00Z",
        "datacontenttype": "application/json", "data": data})
}

#[test]
fn a_cdevent_is_read_in_every_mode() {
    let data = deployed("upgraded");
    let structured = parse_as("application/cloudevents+json", &enveloped(&data));
    let event = structured.unwrap().remove(0);
    assert_eq!(event.kind, EventKind::Succeeded);
    assert_eq!(
        (event.source.as_str(), event.id.as_str()),
        ("/cd/prod", "e-1")
    );
    assert_eq!(event.target.service, "checkout");
    assert_eq!(event.target.environment, "production");
    assert_eq!(event.artifact.version.as_deref(), Some("4.2.0"));
    assert_eq!(
        event
            .artifact
            .digest
            .as_ref()
            .map(crate::model::Digest::as_str),
        Some(DIGEST)
    );
    assert_eq!(event.deployment.as_deref(), Some("chain-1"));
    assert_eq!(event.time_ms, NOW_MS - 3_600_000);

    let batch = json!([enveloped(&data)]);
    let batch = parse_as("Application/CloudEvents-Batch+JSON; charset=utf-8", &batch);
    assert_eq!(batch.unwrap().first(), Some(&event));
    let marked = parse_as("application/json", &enveloped(&data));
    assert_eq!(marked.unwrap().first(), Some(&event), "told by specversion");
    assert_eq!(
        native(&data).unwrap().first(),
        Some(&event),
        "without an envelope"
    );

    let header = |name: &str| {
        let value = match name {
            "ce-specversion" => "1.0",
            "ce-id" => "e-1",
            "ce-source" => "\"/cd/pr\\od\"",
            "ce-type" => "dev.cdevents.service.upgraded.0.3.0",
            "ce-time" => "2026-11-20T15:00:00Z",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let body = data.to_string();
    let binary = parse("application/json", &header, body.as_bytes(), NOW_MS);
    assert_eq!(binary.unwrap(), [event]);
}

#[test]
fn a_cdevents_rollback_names_what_runs_again() {
    let event = native(&deployed("rolledback")).unwrap().remove(0);
    assert_eq!(event.kind, EventKind::RolledBack);
    assert_eq!(event.artifact, crate::model::Artifact::default());
    let previous = event.previous.unwrap();
    assert_eq!(previous.version.as_deref(), Some("4.2.0"));
}

#[test]
fn artifacts_and_incidents_are_read_and_the_rest_is_accepted() {
    let with = |kind: &str, subject: Value| {
        let mut event = deployed("deployed");
        event["context"]["type"] = format!("dev.cdevents.{kind}.0.2.0").into();
        event["context"]["version"] = "0.4.1".into();
        event["subject"] = subject;
        native(&event)
    };
    let purl = format!("pkg:oci/checkout@{DIGEST}");
    let subject = json!({"id": purl, "type": "artifact", "content": {
        "change": {"id": "c-9", "source": "git.test/shop"}, "signature": "MEY"}});
    let event = with("artifact.packaged", subject.clone())
        .unwrap()
        .remove(0);
    assert_eq!(event.kind, EventKind::ArtifactPublished);
    assert_eq!(event.target.service, "checkout");
    let provenance = event.artifact.provenance;
    assert_eq!(provenance.repository.as_deref(), Some("git.test/shop"));
    assert_eq!(
        provenance.built_at.as_deref(),
        Some("2026-11-20T15:00:00.000Z")
    );
    assert_eq!(
        event.labels.get("signature").map(String::as_str),
        Some("MEY")
    );

    let incident = json!({"id": "i-1", "content": {"description": "slow",
        "environment": {"id": "prod-7", "name": "production"}, "service": {"id": "checkout"},
        "ticketURI": "https://tickets.test/1"}});
    let event = with("incident.reported", incident.clone())
        .unwrap()
        .remove(0);
    assert_eq!(event.kind, EventKind::IncidentOpened);
    assert_eq!(
        event.target,
        crate::model::Target::new("checkout", "production")
    );
    assert_eq!(event.url.as_deref(), Some("https://tickets.test/1"));
    let event = with("incident.resolved", incident).unwrap().remove(0);
    assert_eq!(event.kind, EventKind::IncidentResolved);

    for other in [
        "pipelinerun.started",
        "taskrun.finished",
        "service.removed",
        "new.thing",
    ] {
        assert_eq!(
            with(other, json!({"id": "x", "content": {}})).unwrap(),
            [],
            "{other}"
        );
    }
}

#[test]
fn mistakes_in_cloudevents_are_named_too() {
    let structured = |change: &dyn Fn(&mut Value)| {
        let mut event = enveloped(&deployed("deployed"));
        change(&mut event);
        places(parse_as("application/cloudevents+json", &event))
    };
    assert_eq!(
        structured(&|e| e["specversion"] = "0.3".into()),
        ["0 specversion"]
    );
    assert_eq!(
        structured(&|e| e["type"] = "com.example.x".into()),
        ["0 type"]
    );
    assert_eq!(structured(&|e| e["data"] = Value::Null), ["0 data"]);
    assert_eq!(structured(&|e| e["id"] = "".into()), ["0 id"]);
    assert_eq!(
        structured(&|e| e["data"]["context"]["timestamp"] = "x".into()),
        ["0 data.context.timestamp"]
    );
    let content = |e: &mut Value| e["data"]["subject"]["content"] = json!({});
    let both = [
        "0 data.subject.content.environment",
        "0 data.subject.content.artifactId",
    ];
    assert_eq!(structured(&content), both);

    let header = |name: &str| (name == "ce-type").then(|| "%C0%A0".to_owned());
    let binary = parse("application/json", &header, b"{}", NOW_MS);
    let expected = ["0 ce-specversion", "0 ce-id", "0 ce-source", "0 ce-type"];
    assert_eq!(places(binary), expected);
    for media_type in [
        "application/cloudevents+avro",
        "text/plain",
        "application/x-protobuf",
    ] {
        assert!(
            parse_as(media_type, &json!({})).unwrap_err().is_media_type,
            "{media_type}"
        );
    }
    assert_eq!(
        places(parse("application/json", &|_| None, b"{", NOW_MS)),
        ["request"]
    );
}

#[test]
fn a_native_event_may_come_in_an_envelope_and_in_base64() {
    let data = json!({"service": "checkout", "artifact": {"version": "2"}});
    let mut event = enveloped(&deployed("deployed"));
    event["type"] = "dev.slogate.deployment.started".into();
    event["data"] = data.clone();
    let read = parse_as("application/cloudevents+json", &event)
        .unwrap()
        .remove(0);
    assert_eq!((read.kind, read.id.as_str()), (EventKind::Started, "e-1"));
    assert_eq!(read.source, "/cd/prod");

    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(data.to_string());
    event["data"] = Value::Null;
    event["data_base64"] = text.into();
    let same = parse_as("application/cloudevents+json", &event).unwrap();
    assert_eq!(same, [read]);
}

proptest! {
    /// Whatever arrives, it is read or refused.
    #[test]
    fn nothing_that_arrives_panics(body in any::<Vec<u8>>(), media in ".{0,40}") {
        let header = |_: &str| Some(media.clone());
        let _ = parse(&media, &header, &body, NOW_MS);
        let _ = parse("application/json", &|_| None, &body, NOW_MS);
    }
}
