//! From the versions that telemetry carries to events.
//!
//! Telemetry says which versions of a service are seen, and when each was seen last. Where no
//! event explains that, slogate tells itself: the events here have the source [`OBSERVER`], go
//! through the ledger like any other, and are folded like any other, so a restart, or an
//! announcement that arrives later, changes nothing that was settled. The rules:
//!
//! - **The first version** that is seen of a target of which nothing is known to run is what
//!   already ran: it has `succeeded`, before anything that was announced since. Of several,
//!   those that were seen first.
//! - **A version that no deployment explains** opens one (`started`) when it was first seen. Not
//!   while an announced deployment of the service goes on: most likely it is that one under
//!   another label, and the announcement must not be superseded by it. It opens afterwards if
//!   it is still there.
//! - **Alone** is a version that was seen for five minutes (an option) after every other one was
//!   seen last. An observed deployment whose version is alone has `succeeded`, at the time the
//!   others were last seen.
//! - **Gone back**: when the newest deployment has succeeded, or was only observed, and an older
//!   version that ran before is alone while the newest was seen earlier, it was rolled back, at
//!   the time it was last seen. This is how a rollback that nobody announces is counted.
//! - **Come back**: a version that is alone and is not what the target runs as far as is known,
//!   while nothing goes on, was shipped again.
//!
//! Old versions that reappear beside others open nothing, however often: every rule about a
//! known version needs it to be alone for the whole time. So flapping instances can't open
//! deployments, and what alternates slowly opens at most one in that time.
//!
//! A version counts as explained when a deployment of the service in that environment, in
//! whatever region, has its version or digest; or, where telemetry carries no environment, one
//! in any environment; or when one goes on of which only a digest is known and telemetry has
//! none to compare. Nothing is concluded about deployments of another environment than
//! telemetry names, nor from the absence of a version that telemetry never carried.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::fold::OBSERVER;
use super::memory::State;
use super::store::{AcceptError, Deployments};
use crate::model::{
    Artifact, Deployment, DeploymentId, Digest, Event, EventKind, ObservedVersion, Origin, Phase,
    Target,
};

/// Versions of a service that were not seen for so long are forgotten here.
const FORGET_AFTER_MS: i64 = 24 * 3_600_000;

/// What was told is remembered, so as not to tell it again every time; up to so many.
const TOLD_MAX: usize = 10_000;

/// Which versions were seen since the start.
#[derive(Default)]
pub(super) struct Sightings {
    targets: HashMap<Target, BTreeMap<String, Sight>>,
    told: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Sight {
    first_ms: i64,
    last_ms: i64,
    digest: Option<Digest>,
}

impl Deployments {
    /// Takes note of the versions that telemetry carries, and opens or ends deployments that no
    /// event has announced; returns those.
    ///
    /// # Errors
    /// When they can't be made durable; the next call tries again.
    pub async fn observe(
        &self,
        seen: &[ObservedVersion],
        now_ms: i64,
    ) -> Result<Vec<DeploymentId>, AcceptError> {
        let events = self.derive(seen);
        let told: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
        let mut changed = Vec::new();
        for part in events.chunks(super::EVENTS_MAX) {
            for accepted in self.accept(part.to_vec(), now_ms).await? {
                changed.extend(accepted.deployment.filter(|_| !accepted.duplicate));
            }
        }
        self.shared.sightings.lock().remember(told);
        changed.sort();
        changed.dedup();
        Ok(changed)
    }

    fn derive(&self, seen: &[ObservedVersion]) -> Vec<Event> {
        let mut sightings = self.shared.sightings.lock();
        for version in seen.iter().filter(|seen| !seen.version.is_empty()) {
            sightings.add(version);
        }
        let state = self.shared.state.read();
        let touched: BTreeSet<&Target> = seen.iter().map(|seen| &seen.target).collect();
        let mut events = Vec::new();
        for target in touched {
            let Some(versions) = sightings.targets.get(target) else {
                continue;
            };
            let view = View::new(target, versions, &state, self.shared.opened_ms);
            events.extend(view.events());
        }
        events.retain(|event| !sightings.told.contains(&event.id));
        events
    }
}

impl Sightings {
    fn add(&mut self, seen: &ObservedVersion) {
        let versions = self.targets.entry(seen.target.clone()).or_default();
        let sight = versions.entry(seen.version.clone()).or_insert(Sight {
            first_ms: seen.first_seen_ms,
            last_ms: seen.last_seen_ms,
            digest: None,
        });
        sight.first_ms = sight.first_ms.min(seen.first_seen_ms);
        sight.last_ms = sight.last_ms.max(seen.last_seen_ms);
        if sight.digest.is_none() {
            sight.digest.clone_from(&seen.digest);
        }
        let newest_ms = versions.values().map(|sight| sight.last_ms).max();
        let newest_ms = newest_ms.unwrap_or(i64::MIN);
        versions.retain(|_, sight| sight.last_ms.saturating_add(FORGET_AFTER_MS) >= newest_ms);
    }

    fn remember(&mut self, told: Vec<String>) {
        if self.told.len() + told.len() > TOLD_MAX {
            self.told.clear();
        }
        self.told.extend(told);
    }
}

/// A target's versions in telemetry beside its deployments.
struct View<'a> {
    target: &'a Target,
    versions: &'a BTreeMap<String, Sight>,
    /// Of the service in that environment, newest first.
    deployments: Vec<Arc<Deployment>>,
    /// What runs in any region, as far as events say.
    running: Vec<Artifact>,
    alone_after_ms: i64,
    opened_ms: i64,
}

impl<'a> View<'a> {
    fn new(
        target: &'a Target,
        versions: &'a BTreeMap<String, Sight>,
        state: &State,
        opened_ms: i64,
    ) -> View<'a> {
        let any_environment = target.environment.is_empty();
        let of_service = state.targets.iter().filter(|(known, _)| {
            known.service == target.service
                && (any_environment || known.environment == target.environment)
        });
        let (mut deployments, mut running) = (Vec::new(), Vec::new());
        for (_, kept) in of_service {
            deployments.extend(kept.kept.iter().map(|kept| Arc::clone(&kept.deployment)));
            running.extend(kept.running.clone());
        }
        deployments.sort_by(|a, b| (b.created_ms, &b.id).cmp(&(a.created_ms, &a.id)));
        View {
            target,
            versions,
            deployments,
            running,
            alone_after_ms: state.options().alone_after_ms,
            opened_ms,
        }
    }

    fn events(&self) -> Vec<Event> {
        if self.running.is_empty() {
            return self.first();
        }
        let opened = self.opened();
        if !opened.is_empty() {
            return opened;
        }
        let Some((version, sight)) = self.alone() else {
            return Vec::new();
        };
        // What is gone in one environment may well run in another.
        let is_here = |d: &&Arc<Deployment>| d.target.environment == self.target.environment;
        let Some(newest) = self.deployments.first().filter(is_here) else {
            return Vec::new();
        };
        if self.is_of(newest, version, sight) && newest.phase.is_active() {
            return self.succeeded(newest, version, sight);
        }
        match self.gone_back(newest, version, sight) {
            Some(event) => vec![event],
            None => self.come_back(newest, version, sight),
        }
    }

    /// What already ran. Announced deployments are newer than it, whenever telemetry came.
    fn first(&self) -> Vec<Event> {
        let unexplained = || {
            self.versions
                .iter()
                .filter(|(v, s)| !self.is_explained(v, s))
        };
        let Some(first_ms) = unexplained().map(|(_, sight)| sight.first_ms).min() else {
            return Vec::new();
        };
        let created_ms = self.deployments.iter().map(|d| d.created_ms).min();
        let at_ms = first_ms.min(created_ms.map_or(i64::MAX, |ms| ms - 1));
        unexplained()
            .filter(|(_, sight)| sight.first_ms == first_ms)
            .map(|(version, sight)| {
                self.event("first", EventKind::Succeeded, version, sight, at_ms)
            })
            .collect()
    }

    fn opened(&self) -> Vec<Event> {
        let is_announced = |d: &Arc<Deployment>| d.origin == Origin::Announced;
        let goes_on = |d: &Arc<Deployment>| d.phase.is_active() && is_announced(d);
        if self.deployments.iter().any(goes_on) {
            return Vec::new();
        }
        // Not before the end of what was announced, or it would be undone by this.
        let announced = self.deployments.iter().filter(|d| is_announced(d));
        let after_ms = announced.filter_map(|d| d.finished_ms).max();
        let unexplained = self
            .versions
            .iter()
            .filter(|(v, s)| !self.is_explained(v, s));
        unexplained
            .map(|(version, sight)| {
                let at_ms = sight.first_ms.max(after_ms.map_or(i64::MIN, |ms| ms + 1));
                self.event("seen", EventKind::Started, version, sight, at_ms)
            })
            .collect()
    }

    /// The version that was seen long enough after all others.
    fn alone(&self) -> Option<(&str, &Sight)> {
        let (version, sight) = self
            .versions
            .iter()
            .max_by_key(|(_, sight)| sight.last_ms)?;
        let silent_ms = self.silent_since_ms(version).unwrap_or(sight.first_ms);
        (sight.last_ms - silent_ms >= self.alone_after_ms).then_some((version.as_str(), sight))
    }

    /// When a version other than this one was seen last.
    fn silent_since_ms(&self, version: &str) -> Option<i64> {
        let others = self.versions.iter().filter(|(other, _)| *other != version);
        others.map(|(_, sight)| sight.last_ms).max()
    }

    fn succeeded(&self, newest: &Deployment, version: &str, sight: &Sight) -> Vec<Event> {
        if !is_observed(newest) {
            return Vec::new();
        }
        // What was seen before a restart is not known: the silence counts from the start.
        let known_since_ms = match newest.created_ms < self.opened_ms {
            true => self.opened_ms,
            false => newest.created_ms,
        };
        let at_ms = known_since_ms.max(self.silent_since_ms(version).unwrap_or(i64::MIN));
        if sight.last_ms - at_ms < self.alone_after_ms {
            return Vec::new();
        }
        let mut event = self.event("alone", EventKind::Succeeded, version, sight, at_ms);
        event.id = format!("alone:{}", newest.id);
        event.target = newest.target.clone();
        vec![event]
    }

    fn gone_back(&self, newest: &Deployment, version: &str, sight: &Sight) -> Option<Event> {
        let was_there =
            newest.phase == Phase::Succeeded || (newest.phase.is_active() && is_observed(newest));
        let gone = newest.artifact.version.as_ref()?;
        let gone_ms = self.versions.get(gone)?.last_ms;
        let earlier = self.deployments.iter().skip(1);
        let ran_before = earlier
            .filter(|d| self.is_of(d, version, sight))
            .any(|d| matches!(d.phase, Phase::Succeeded | Phase::Superseded));
        if !was_there || !ran_before {
            return None;
        }
        let at_ms = gone_ms.max(newest.created_ms);
        let mut event = self.event("back", EventKind::RolledBack, gone, sight, at_ms);
        event.id = format!("back:{}", newest.id);
        event.target = newest.target.clone();
        event.artifact = newest.artifact.clone();
        event.previous = Some(Artifact::of_version(version));
        Some(event)
    }

    fn come_back(&self, newest: &Deployment, version: &str, sight: &Sight) -> Vec<Event> {
        let runs = |artifact: &Artifact| artifact.version.as_deref() == Some(version);
        if newest.phase.is_active() || self.running.iter().any(runs) {
            return Vec::new();
        }
        // Without a word about the others it is not known since when it is alone.
        let Some(silent_ms) = self.silent_since_ms(version) else {
            return Vec::new();
        };
        let at_ms = silent_ms.max(newest.finished_ms.unwrap_or(i64::MIN));
        [EventKind::Started, EventKind::Succeeded]
            .into_iter()
            .map(|kind| {
                let mut event = self.event("again", kind, version, sight, at_ms);
                event.id = format!("{}:{at_ms}:{}", event.id, kind.as_str());
                event
            })
            .collect()
    }

    fn is_explained(&self, version: &str, sight: &Sight) -> bool {
        self.deployments.iter().any(|d| {
            let is_nameless = d.artifact.version.is_none() && d.phase.is_active();
            self.is_of(d, version, sight) || (is_nameless && sight.digest.is_none())
        })
    }

    fn is_of(&self, deployment: &Deployment, version: &str, sight: &Sight) -> bool {
        let artifact = &deployment.artifact;
        artifact.version.as_deref() == Some(version)
            || (sight.digest.is_some() && artifact.digest == sight.digest)
    }

    fn event(
        &self,
        what: &str,
        kind: EventKind,
        version: &str,
        sight: &Sight,
        time_ms: i64,
    ) -> Event {
        let Target {
            service,
            environment,
            region,
        } = self.target;
        let region = region.as_deref().unwrap_or_default();
        Event {
            id: format!("{what}:{service}:{environment}:{region}:{version}"),
            source: OBSERVER.to_owned(),
            time_ms,
            kind,
            target: self.target.clone(),
            artifact: Artifact {
                digest: sight.digest.clone(),
                ..Artifact::of_version(version)
            },
            previous: None,
            deployment: None,
            step: None,
            reason: Some(reason(what).to_owned()),
            actor: None,
            url: None,
            labels: BTreeMap::new(),
        }
    }
}

fn is_observed(deployment: &Deployment) -> bool {
    deployment.origin == Origin::Observed
}

fn reason(what: &str) -> &'static str {
    match what {
        "first" => "seen in telemetry, and nothing is known to have run before",
        "seen" => "seen in telemetry, and no event had announced it",
        "alone" => "no other version is seen in telemetry",
        "back" => "only the version before it is seen in telemetry",
        _ => "seen in telemetry again, and no other version",
    }
}

#[cfg(test)]
mod tests;
