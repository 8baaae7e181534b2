//! CDEvents 0.4 and 0.5, of which slogate reads what is about deployments.
//!
//! | CDEvent | event |
//! |---|---|
//! | `service.deployed`, `service.upgraded` | `deployment.succeeded` of `artifactId` |
//! | `service.rolledback` | `deployment.rolled_back`; `artifactId` is what runs again |
//! | `artifact.packaged`, `artifact.published`, `artifact.signed` | `artifact.published` |
//! | `incident.detected`, `incident.reported` | `incident.opened`, if it names a service |
//! | `incident.resolved` | `incident.resolved`, if it names a service |
//!
//! All others (`pipelineRun`, `taskRun`, `environment`, `service.published`, `service.removed`,
//! tests, tickets and what is to come) are accepted and give no event. CDEvents has no event
//! for a deployment that begins; send `deployment.started` too where deployments are gradual.
//!
//! A service is named by its subject's id, of which the last part of a path counts
//! (`daemonset/myapp` is `myapp`), since that is what telemetry carries as `service.name`; an
//! environment by its name, else its id. The chain (`chainId`) ties events together. Fields that
//! are not read are not checked.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::{EventErrors, quote};
use super::purl;
use super::reader::{NAME_MAX, Reader, TEXT_MAX};
use crate::model::{Artifact, Event, EventKind, Target};

/// How the types of CDEvents begin.
pub(super) const PREFIX: &str = "dev.cdevents.";

/// What every CDEvent says of itself.
struct Context {
    id: String,
    source: String,
    time_ms: i64,
    chain: Option<String>,
    subject: String,
    predicate: String,
}

/// Whether a JSON document is a CDEvent without an envelope.
pub(super) fn is_bare(value: &Value) -> bool {
    let kind = value.pointer("/context/type").and_then(Value::as_str);
    kind.is_some_and(|kind| kind.starts_with(PREFIX))
}

/// Reads a CDEvent, which stands at `path` of the request's event, into an event, or into none if
/// it is about something else.
pub(super) fn read(
    value: &Value,
    path: &str,
    index: usize,
    received_ms: i64,
    errors: &mut EventErrors,
) -> Option<Event> {
    let before = errors.errors.len();
    let reader = Reader::new(value, Some(index), path, errors)?;
    let context = required_object(&reader, "context", errors)?;
    let context = read_context(&context, received_ms, errors)?;
    let kind = kind(&context)?;
    let subject = required_object(&reader, "subject", errors)?;
    let id = subject.required("id", "the subject's id", errors);
    let content = required_object(&subject, "content", errors)?;
    let mut event = Event {
        id: context.id.clone(),
        source: context.source.clone(),
        time_ms: context.time_ms,
        kind,
        target: Target::default(),
        artifact: Artifact::default(),
        previous: None,
        deployment: context.chain.clone(),
        step: None,
        reason: None,
        actor: None,
        url: None,
        labels: BTreeMap::new(),
    };
    let subject_id = id.unwrap_or_default();
    match context.subject.as_str() {
        "service" => service(&mut event, &subject_id, &content, errors),
        "artifact" => artifact(&mut event, &context, &subject_id, &content, errors),
        _ => incident(&mut event, &content, errors)?,
    }
    (errors.errors.len() == before).then_some(event)
}

fn required_object<'a>(
    reader: &Reader<'a>,
    name: &str,
    errors: &mut EventErrors,
) -> Option<Reader<'a>> {
    if reader.value(name).is_none() {
        reader.refuse(errors, name, "an object", "nothing");
    }
    reader.object(name, errors)
}

fn read_context(
    reader: &Reader<'_>,
    received_ms: i64,
    errors: &mut EventErrors,
) -> Option<Context> {
    let kind = reader.required("type", "the event's type", errors);
    let id = reader.required("id", "the event's id", errors);
    let source = reader.required("source", "the event's source", errors);
    if reader.value("timestamp").is_none() {
        reader.refuse(errors, "timestamp", "when it happened", "nothing");
    }
    let time_ms = reader.time("timestamp", received_ms, errors);
    let chain = reader.name("chainId", errors);
    let kind = kind?;
    let parts: Option<Vec<&str>> = kind
        .strip_prefix(PREFIX)
        .map(|rest| rest.split('.').collect());
    let Some([subject, predicate, _version, ..]) = parts.as_deref() else {
        let expected = "dev.cdevents.{subject}.{predicate}.{version}";
        reader.refuse(errors, "type", expected, quote(&kind));
        return None;
    };
    Some(Context {
        id: id?,
        source: source?,
        time_ms: time_ms?,
        chain,
        subject: subject.to_ascii_lowercase(),
        predicate: predicate.to_ascii_lowercase(),
    })
}

fn kind(context: &Context) -> Option<EventKind> {
    match (context.subject.as_str(), context.predicate.as_str()) {
        ("service", "deployed" | "upgraded") => Some(EventKind::Succeeded),
        ("service", "rolledback") => Some(EventKind::RolledBack),
        ("artifact", "packaged" | "published" | "signed") => Some(EventKind::ArtifactPublished),
        ("incident", "detected" | "reported") => Some(EventKind::IncidentOpened),
        ("incident", "resolved") => Some(EventKind::IncidentResolved),
        _ => None,
    }
}

fn service(event: &mut Event, id: &str, content: &Reader<'_>, errors: &mut EventErrors) {
    event.target = Target::new(last_part(id), environment(content, errors));
    let artifact = content.required("artifactId", "the artifact as a package URL", errors);
    let artifact = artifact.map(|text| purl::artifact(&text));
    if event.kind == EventKind::RolledBack {
        event.previous = artifact;
    } else {
        event.artifact = artifact.unwrap_or_default();
    }
}

fn artifact(
    event: &mut Event,
    context: &Context,
    id: &str,
    content: &Reader<'_>,
    errors: &mut EventErrors,
) {
    event.artifact = purl::artifact(id);
    let service = purl::name(id).unwrap_or_else(|| last_part(id));
    event.target = Target::new(service, "");
    event.actor = content.name("user", errors);
    if let Some(change) = content.object("change", errors) {
        event.artifact.provenance.repository = change.text("source", TEXT_MAX, errors);
        let change = change.name("id", errors);
        event
            .labels
            .extend(change.map(|id| ("change".to_owned(), id)));
    }
    if context.predicate == "packaged" {
        let built = crate::model::time::to_rfc3339(event.time_ms);
        event.artifact.provenance.built_at = Some(built);
    }
    let signature = content.text("signature", TEXT_MAX, errors);
    event
        .labels
        .extend(signature.map(|text| ("signature".to_owned(), text)));
}

/// An incident that names no service belongs to no deployment, and gives no event.
fn incident(event: &mut Event, content: &Reader<'_>, errors: &mut EventErrors) -> Option<()> {
    let service = content.object("service", errors)?;
    let id = service.required("id", "the service's id", errors)?;
    event.target = Target::new(last_part(&id), environment(content, errors));
    event.reason = content.text("description", TEXT_MAX, errors);
    event.url = content.text("ticketURI", TEXT_MAX, errors);
    let artifact = content.name("artifactId", errors);
    event.artifact = artifact
        .map(|text| purl::artifact(&text))
        .unwrap_or_default();
    // The chain of an incident is not the chain of a deployment.
    event.deployment = None;
    Some(())
}

fn environment(content: &Reader<'_>, errors: &mut EventErrors) -> String {
    let Some(environment) = required_object(content, "environment", errors) else {
        return String::new();
    };
    let name = environment.name("name", errors);
    let id = environment.required("id", "the environment's id", errors);
    name.or(id).unwrap_or_default()
}

/// The last part of a path.
fn last_part(id: &str) -> String {
    let last = id.trim_end_matches('/').rsplit('/').next().unwrap_or(id);
    last.chars().take(NAME_MAX).collect()
}
