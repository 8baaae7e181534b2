//! Short ways to write events, for the tests of this room.

use std::collections::BTreeMap;

use crate::model::{Artifact, Digest, Event, EventKind, Step, Target};

/// An event about checkout in production at `minute`, of a source named `ci`; its id says all
/// of that, so that the same call gives the same event.
pub(super) fn event(kind: EventKind, version: &str, minute: i64) -> Event {
    Event {
        id: format!("{}@{minute}:{version}", kind.as_str()),
        source: "ci".to_owned(),
        time_ms: minute * 60_000,
        kind,
        target: Target::new("checkout", "production"),
        artifact: match version {
            "" => Artifact::default(),
            version => Artifact::of_version(version),
        },
        previous: None,
        deployment: None,
        step: None,
        reason: None,
        actor: None,
        url: None,
        labels: BTreeMap::new(),
    }
}

/// Changes of an event, to be chained.
pub(super) trait With: Sized {
    fn of(self, source: &str) -> Self;
    fn named(self, deployment: &str) -> Self;
    fn replacing(self, version: &str) -> Self;
    fn digest(self, letter: &str) -> Self;
    fn weight(self, percent: f64) -> Self;
    fn region(self, region: &str) -> Self;
}

impl With for Event {
    fn of(mut self, source: &str) -> Event {
        self.source = source.to_owned();
        self
    }

    fn named(mut self, deployment: &str) -> Event {
        self.deployment = Some(deployment.to_owned());
        self
    }

    fn replacing(mut self, version: &str) -> Event {
        self.previous = Some(Artifact::of_version(version));
        self
    }

    fn digest(mut self, letter: &str) -> Event {
        let text = format!("sha256:{}", letter.repeat(64));
        self.artifact.digest = Digest::parse(&text).ok();
        self
    }

    fn weight(mut self, percent: f64) -> Event {
        self.step = Some(Step {
            weight: Some(percent),
            ..Step::default()
        });
        self
    }

    fn region(mut self, region: &str) -> Event {
        self.target.region = Some(region.to_owned());
        self
    }
}
