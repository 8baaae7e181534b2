//! Events of deployments, once each.
//!
//! A sample is at its event's own time where that was within [`LATE_MS`], which the store still
//! takes beside newer samples; else it is at the time the event was noticed, and a dashboard puts
//! it where its value says. After a start the events of the last [`LATE_MS`] are written again:
//! the process before may have been killed between taking and writing one.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;

use super::families::DEPLOYMENT_EVENT;
use super::sample::{Sample, identity};
use crate::model::{Deployment, EventKind, EventRef};

/// How far back an event is written at its own time, in milliseconds: half an hour.
const LATE_MS: i64 = 1_800_000;

/// A sample with its own time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EventSample {
    pub(super) t_ms: i64,
    pub(super) sample: Sample,
}

/// Which events were seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    keys: HashSet<(u64, u64)>,
    /// Two of them, so that two events never share a key; random, so that nobody can aim.
    hashers: (RandomState, RandomState),
    has_begun: bool,
}

impl Seen {
    /// The events of `all` that were not seen before.
    pub(super) fn look(&mut self, all: &[Arc<Deployment>], now_ms: i64) -> Vec<EventSample> {
        let mut keys = HashSet::with_capacity(self.keys.len());
        let mut news = Vec::new();
        for deployment in all.iter().filter(|d| !d.is_what_already_ran()) {
            for event in &deployment.timeline {
                let key = self.key(event);
                let is_recent = event.time_ms > now_ms - LATE_MS;
                let is_new = !self.keys.contains(&key) && !keys.contains(&key);
                if is_new && (self.has_begun || is_recent) {
                    news.push(sample(deployment, event, is_recent, now_ms));
                }
                keys.insert(key);
            }
        }
        self.keys = keys;
        self.has_begun = true;
        news
    }

    fn key(&self, event: &EventRef) -> (u64, u64) {
        let identity = (&event.source, &event.id);
        let (first, second) = &self.hashers;
        (first.hash_one(identity), second.hash_one(identity))
    }
}

fn sample(deployment: &Deployment, event: &EventRef, is_recent: bool, now_ms: i64) -> EventSample {
    let digest = deployment.artifact.digest.as_ref();
    let change = deployment.steps.iter().find(|change| {
        let may_step = [EventKind::Started, EventKind::Step, EventKind::Resumed];
        may_step.contains(&event.kind) && change.at_ms == event.time_ms
    });
    let step = change.and_then(|change| change.step.index);
    let weight = change.and_then(|change| change.step.weight);
    let (step, weight) = (
        step.map_or_else(String::new, |index| index.to_string()),
        weight.map_or_else(String::new, |percent| format!("{percent} %")),
    );
    let mut labels = identity(deployment);
    labels.extend([
        ("digest", digest.map_or("", |digest| digest.as_str())),
        ("event", event.kind.as_str()),
        ("step", step.as_str()),
        ("weight", weight.as_str()),
    ]);
    EventSample {
        t_ms: if is_recent {
            event.time_ms.min(now_ms)
        } else {
            now_ms
        },
        sample: Sample::new(&DEPLOYMENT_EVENT, &labels, event.time_ms as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Phase, Step, StepChange};
    use crate::status::testing::{T0, deployment};

    fn event(kind: EventKind, time_ms: i64) -> EventRef {
        EventRef {
            source: "ci".to_owned(),
            id: format!("{}@{time_ms}", kind.as_str()),
            kind,
            time_ms,
            reason: None,
            actor: None,
        }
    }

    fn with(timeline: Vec<EventRef>) -> [Arc<Deployment>; 1] {
        let mut one = deployment("2", Phase::Progressing);
        one.timeline = timeline;
        one.steps = vec![StepChange {
            at_ms: T0 + 60_000,
            step: Step {
                index: Some(1),
                total: Some(2),
                weight: Some(5.0),
            },
        }];
        [Arc::new(one)]
    }

    fn times(news: &[EventSample]) -> Vec<(i64, f64)> {
        news.iter()
            .map(|one| (one.t_ms, one.sample.value))
            .collect()
    }

    #[test]
    fn each_event_is_told_once_and_at_its_time() {
        let mut seen = Seen::default();
        let started = event(EventKind::Started, T0);
        let stepped = event(EventKind::Step, T0 + 60_000);
        let now_ms = T0 + 90_000;
        let all = with(vec![started.clone()]);
        assert_eq!(times(&seen.look(&all, now_ms)), [(T0, T0 as f64)]);
        assert_eq!(seen.look(&all, now_ms), []);
        let all = with(vec![started, stepped]);
        let news = seen.look(&all, now_ms);
        assert_eq!(times(&news), [(T0 + 60_000, (T0 + 60_000) as f64)]);
        let labels = &news[0].sample.labels;
        assert_eq!(labels.get("event"), Some("deployment.step"));
        assert_eq!(labels.get("step"), Some("1"));
        assert_eq!(labels.get("weight"), Some("5 %"));
    }

    #[test]
    fn what_comes_late_is_told_when_it_comes_and_what_is_old_at_the_start_is_not() {
        let old = event(EventKind::Started, T0 - 2 * LATE_MS);
        let mut seen = Seen::default();
        assert_eq!(seen.look(&with(vec![old.clone()]), T0), []);
        let later = event(EventKind::Paused, T0 - LATE_MS - 1);
        let ahead = event(EventKind::Resumed, T0 + 5_000);
        let news = seen.look(&with(vec![old, later, ahead]), T0);
        let expected = [(T0, (T0 - LATE_MS - 1) as f64), (T0, (T0 + 5_000) as f64)];
        assert_eq!(times(&news), expected);
    }
}
