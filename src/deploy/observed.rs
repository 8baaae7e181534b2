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
//! none to compare. Without a word about a version in telemetry nothing is concluded from its
//! absence.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::fold::OBSERVER;
use super::store::{AcceptError, Deployments, State};
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
        let Some(newest) = self.deployments.first() else {
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
mod tests {
    use super::*;
    use crate::deploy::testing::{With as _, event};
    use crate::deploy::{DeploymentsOptions, Filter};
    use crate::ledger::Ledger;
    use crate::model::EventKind::{Failed, Started, Succeeded};
    use crate::record::Records;

    struct House {
        dir: tempfile::TempDir,
        deployments: Arc<Deployments>,
        /// (version, first seen, last seen), in minutes.
        seen: Vec<(&'static str, i64, i64)>,
    }

    const MINUTE_MS: i64 = 60_000;

    impl House {
        fn new() -> House {
            let dir = tempfile::tempdir().unwrap();
            House {
                deployments: open(&dir, 0),
                dir,
                seen: Vec::new(),
            }
        }

        /// Telemetry shows these versions in each minute of the range.
        async fn see(&mut self, versions: &[&'static str], minutes: std::ops::Range<i64>) {
            for minute in minutes {
                for version in versions {
                    match self.seen.iter_mut().find(|(known, ..)| known == version) {
                        Some(seen) => seen.2 = minute,
                        None => self.seen.push((version, minute, minute)),
                    }
                }
                let seen: Vec<ObservedVersion> = self.seen.iter().map(observed).collect();
                let now_ms = minute * MINUTE_MS;
                self.deployments.observe(&seen, now_ms).await.unwrap();
            }
        }

        async fn hear(&self, event: Event) {
            let now_ms = event.time_ms;
            self.deployments.accept(vec![event], now_ms).await.unwrap();
        }

        fn restart(&mut self, minute: i64) {
            self.seen.clear();
            self.deployments = open(&self.dir, minute * MINUTE_MS);
        }

        /// `version phase origin`, oldest first.
        fn story(&self) -> Vec<String> {
            let tell = |d: &Arc<Deployment>| {
                let origin = if is_observed(d) {
                    "observed"
                } else {
                    "announced"
                };
                format!("{} {} {origin}", d.artifact, d.phase.as_str())
            };
            let all = self.deployments.list(&Filter::default(), usize::MAX);
            all.iter().rev().map(tell).collect()
        }
    }

    fn open(dir: &tempfile::TempDir, now_ms: i64) -> Arc<Deployments> {
        let ledger = Ledger::open(Records::open(dir.path()).unwrap());
        Deployments::open(ledger, DeploymentsOptions::default(), now_ms).unwrap()
    }

    fn observed((version, first, last): &(&'static str, i64, i64)) -> ObservedVersion {
        ObservedVersion {
            target: Target::new("checkout", "production"),
            version: (*version).to_owned(),
            digest: None,
            first_seen_ms: first * MINUTE_MS,
            last_seen_ms: last * MINUTE_MS,
        }
    }

    #[tokio::test]
    async fn what_already_ran_has_succeeded_and_what_comes_opens() {
        let mut house = House::new();
        house.see(&["1"], 1..20).await;
        assert_eq!(house.story(), ["1 succeeded observed"]);
        house.see(&["1", "2"], 20..30).await;
        assert_eq!(
            house.story(),
            ["1 succeeded observed", "2 progressing observed"]
        );
        let active = house.deployments.active();
        assert_eq!(active[0].started_ms, Some(20 * MINUTE_MS));
        assert_eq!(active[0].previous, Some(Artifact::of_version("1")));
        house.see(&["2"], 30..40).await;
        assert_eq!(
            house.story(),
            ["1 succeeded observed", "2 succeeded observed"]
        );
        let done = house
            .deployments
            .find("checkout", None, Some("2"), None)
            .unwrap();
        assert_eq!(done.finished_ms, Some(29 * MINUTE_MS), "since 1 is silent");
    }

    #[tokio::test]
    async fn an_announcement_takes_an_observed_deployment_over() {
        let mut house = House::new();
        house.see(&["1"], 1..10).await;
        house.see(&["1", "2"], 10..12).await;
        let id = house.deployments.active()[0].id.clone();
        house.hear(event(Started, "2", 11)).await;
        assert_eq!(
            house.story(),
            ["1 succeeded observed", "2 progressing announced"]
        );
        assert_eq!(house.deployments.active()[0].id, id);
        // From now on its sender says when it is over.
        house.see(&["2"], 12..40).await;
        assert_eq!(house.story()[1], "2 progressing announced");
        house.hear(event(Succeeded, "2", 40)).await;
        house.see(&["2"], 41..60).await;
        assert_eq!(house.story()[1], "2 succeeded announced");
    }

    /// The very first version is announced a moment after its first span: it has to be judged.
    #[tokio::test]
    async fn an_announcement_of_what_seemed_to_run_already_takes_it_over() {
        let mut house = House::new();
        house.see(&["1"], 1..3).await;
        let id = house.deployments.list(&Filter::default(), 1)[0].id.clone();
        house.hear(event(Started, "1", 4)).await;
        assert_eq!(house.story(), ["1 progressing announced"]);
        assert_eq!(house.deployments.active()[0].id, id);
        assert_eq!(house.deployments.active()[0].previous, None);
        house.hear(event(Succeeded, "1", 8)).await;
        assert_eq!(house.story(), ["1 succeeded announced"]);
    }

    /// The event comes before the first telemetry of the version that it replaces.
    #[tokio::test]
    async fn what_already_ran_does_not_supersede_what_was_announced() {
        let mut house = House::new();
        house.hear(event(Started, "2", 5)).await;
        house.see(&["1", "2"], 6..10).await;
        assert_eq!(
            house.story(),
            ["1 succeeded observed", "2 progressing announced"]
        );
        assert_eq!(
            house.deployments.active()[0].previous,
            Some(Artifact::of_version("1"))
        );
    }

    /// Telemetry labels the announced version differently.
    #[tokio::test]
    async fn an_unknown_label_waits_for_the_end_of_an_announced_deployment() {
        let mut house = House::new();
        house.see(&["1"], 1..10).await;
        house.hear(event(Started, "2", 10)).await;
        house.see(&["1", "v2"], 11..15).await;
        assert_eq!(
            house.story(),
            ["1 succeeded observed", "2 progressing announced"]
        );
        house.hear(event(Succeeded, "2", 15)).await;
        house.see(&["v2"], 16..30).await;
        let expected = [
            "1 succeeded observed",
            "2 succeeded announced",
            "v2 succeeded observed",
        ];
        assert_eq!(house.story(), expected);
    }

    /// Old pods come and go beside the new ones, for hours.
    #[tokio::test]
    async fn flapping_versions_open_nothing() {
        let mut house = House::new();
        house.see(&["1"], 1..10).await;
        house.see(&["1", "2"], 10..12).await;
        house.see(&["2"], 12..20).await;
        let entries = house
            .deployments
            .ledger
            .entries(0, 100)
            .await
            .unwrap()
            .len();
        for hour in 0..5 {
            let at = 20 + hour * 60;
            house.see(&["1", "2"], at..at + 3).await;
            house.see(&["1"], at + 3..at + 6).await;
            house.see(&["2"], at + 6..at + 60).await;
        }
        assert_eq!(
            house.story(),
            ["1 succeeded observed", "2 succeeded observed"]
        );
        let after = house
            .deployments
            .ledger
            .entries(0, 100)
            .await
            .unwrap()
            .len();
        assert_eq!(after, entries);
    }

    /// "Silent manual fixes": the old version is simply put back.
    #[tokio::test]
    async fn a_version_that_gives_way_to_the_old_one_was_rolled_back() {
        for is_announced in [true, false] {
            let mut house = House::new();
            house.see(&["1"], 1..10).await;
            if is_announced {
                house.hear(event(Started, "2", 10)).await;
                house.hear(event(Succeeded, "2", 12)).await;
            }
            house.see(&["1", "2"], 10..13).await;
            house.see(&["2"], 13..20).await;
            house.see(&["1"], 20..30).await;
            let bad = house
                .deployments
                .find("checkout", None, Some("2"), None)
                .unwrap();
            assert_eq!(bad.phase, Phase::RolledBack);
            assert_eq!(bad.finished_ms, Some(19 * MINUTE_MS));
            // And when it returns, it was shipped again.
            house.see(&["2"], 30..50).await;
            let story = house.story();
            assert_eq!(story.len(), 3, "{story:?}");
            assert_eq!(story[2], "2 succeeded observed");
        }
    }

    #[tokio::test]
    async fn an_observed_canary_that_vanishes_was_rolled_back() {
        let mut house = House::new();
        house.see(&["1"], 1..10).await;
        house.see(&["1", "2"], 10..12).await;
        house.see(&["1"], 12..30).await;
        assert_eq!(
            house.story(),
            ["1 succeeded observed", "2 rolled_back observed"]
        );
    }

    /// A label that telemetry never carried is not gone when it is not seen.
    #[tokio::test]
    async fn what_was_never_seen_is_not_taken_for_gone() {
        let mut house = House::new();
        house.see(&["1"], 1..10).await;
        house.hear(event(Succeeded, "2", 10)).await;
        house.see(&["1"], 10..60).await;
        assert_eq!(
            house.story(),
            ["1 succeeded observed", "2 succeeded announced"]
        );
    }

    #[tokio::test]
    async fn a_restart_neither_forgets_nor_invents() {
        let mut house = House::new();
        house.see(&["1"], 1..10).await;
        house.see(&["1", "2"], 10..15).await;
        let before = house.story();
        house.restart(16);
        assert_eq!(house.story(), before);
        house.see(&["2"], 17..20).await;
        assert_eq!(
            house.story(),
            before,
            "the silence of 1 counts from the restart"
        );
        house.see(&["2"], 20..24).await;
        assert_eq!(house.story()[1], "2 succeeded observed");
        house.restart(30);
        house.see(&["2"], 31..50).await;
        assert_eq!(
            house.story(),
            ["1 succeeded observed", "2 succeeded observed"]
        );
    }

    #[tokio::test]
    async fn regions_and_missing_environments_are_explained() {
        let mut house = House::new();
        house.hear(event(Succeeded, "1", 1).region("eu")).await;
        house.hear(event(Started, "2", 2).region("eu")).await;
        house.see(&["1", "2"], 3..30).await;
        assert_eq!(house.story().len(), 2);
        let mut seen = observed(&("2", 3, 4));
        seen.target.environment.clear();
        let opened = house
            .deployments
            .observe(&[seen], 5 * MINUTE_MS)
            .await
            .unwrap();
        assert_eq!(opened, []);
    }

    #[tokio::test]
    async fn what_failed_and_is_gone_stays_failed() {
        let mut house = House::new();
        house.see(&["1"], 1..10).await;
        house.hear(event(Started, "2", 10)).await;
        house.see(&["1", "2"], 10..13).await;
        house.hear(event(Failed, "2", 13)).await;
        house.see(&["1"], 13..60).await;
        assert_eq!(
            house.story(),
            ["1 succeeded observed", "2 failed announced"]
        );
    }
}
