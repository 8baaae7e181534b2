//! The deployments in memory: the fold of the ledger's events.
//!
//! - **What is kept where.** Every event stays in the ledger for good. In memory are the
//!   deployments (and their events) that ended within the retention, those that go on however
//!   old they are, and the newest of every target. Of older ones only the consequences are kept:
//!   what ran, and how many attempts there were, so that names and links don't change.
//!   An event older than what is kept makes its target be folded again from the ledger.
//! - **Provenance.** What `artifact.published` says of a digest is added to every deployment of
//!   that digest, whichever came first, as long as the event is within the retention or the
//!   deployment is kept.
//! - **Durable first.** An event is folded after its commit, on the thread that commits, so
//!   memory never shows what the file does not hold, and a caller that goes away changes
//!   nothing. What fails is not in memory either.
//! - **Duplicates.** A known (source, id) changes nothing, whatever the rest of it says: the
//!   first one stands, and the answer says that it was a duplicate.
//! - **Restart.** Opening reads the ledger's events once and folds them: the outcome is the
//!   same as before.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::watch;

use super::fold::{self, Fold, Folded};
use crate::ledger::{Ledger, RecordError, Recorded};
use crate::model::{Artifact, Deployment, DeploymentId, Digest, Event, EventKind, Phase, Target};
use crate::record::ReadError;

/// Events of one call at most.
pub const EVENTS_MAX: usize = 1000;

/// How the deployments are kept.
#[derive(Clone, Copy, Debug)]
pub struct DeploymentsOptions {
    /// How long a deployment stays in memory after its end. Below 30 days, late events are slow
    /// to take, since a deployment takes events for so long.
    pub retention_ms: i64,
    /// How long the other versions of a service must be silent until an observed one counts as
    /// the only one.
    pub alone_after_ms: i64,
}

impl Default for DeploymentsOptions {
    /// 90 days; 5 minutes.
    fn default() -> Self {
        DeploymentsOptions {
            retention_ms: 90 * 86_400_000,
            alone_after_ms: 300_000,
        }
    }
}

/// The deployments: open once, share everywhere.
pub struct Deployments {
    pub(super) ledger: Arc<Ledger>,
    pub(super) shared: Arc<Shared>,
}

/// What happened to an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// The event's source.
    pub source: String,
    /// The event's id.
    pub id: String,
    /// Whether an event with that source and id was there before; then the first one stands,
    /// whatever this one says.
    pub duplicate: bool,
    /// The deployment it belongs to, if any.
    pub deployment: Option<DeploymentId>,
}

/// Why events were not accepted. None of the call's events was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AcceptError {
    /// More events than one call may bring.
    #[error("{found} events in one call, and {limit} is the limit: send them in several")]
    TooMany {
        /// The limit.
        limit: usize,
        /// How many came.
        found: usize,
    },
    /// They could not be made durable.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Which deployments to list; what is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this service.
    pub service: Option<String>,
    /// In this environment.
    pub environment: Option<String>,
    /// In this phase.
    pub phase: Option<Phase>,
    /// Created at or after this time, in milliseconds since the epoch.
    pub since_ms: Option<i64>,
}

impl Filter {
    fn takes(&self, deployment: &Deployment) -> bool {
        let is = |want: &Option<String>, have: &str| want.as_deref().is_none_or(|w| w == have);
        is(&self.service, &deployment.target.service)
            && is(&self.environment, &deployment.target.environment)
            && self.phase.is_none_or(|phase| phase == deployment.phase)
            && self
                .since_ms
                .is_none_or(|since| deployment.created_ms >= since)
    }
}

impl Deployments {
    /// Folds the ledger's events.
    ///
    /// # Errors
    /// When the records can't be read.
    pub fn open(
        ledger: Arc<Ledger>,
        options: DeploymentsOptions,
        now_ms: i64,
    ) -> Result<Arc<Deployments>, ReadError> {
        let mut state = State::new(options);
        let mut touched = Touched::default();
        ledger.each_event(|event| state.add(Arc::new(event), &mut touched))?;
        state.refold(&touched, &ledger, now_ms);
        let (changes, _) = watch::channel(0);
        Ok(Arc::new(Deployments {
            shared: Arc::new(Shared {
                ledger: Arc::clone(&ledger),
                state: RwLock::new(state),
                changes,
                opened_ms: now_ms,
                sightings: parking_lot::Mutex::default(),
            }),
            ledger,
        }))
    }

    /// Accepts events, all or none: when this returns they are durable, chained in the ledger,
    /// and folded.
    ///
    /// # Errors
    /// When there are too many or they can't be made durable; then none was accepted.
    pub async fn accept(
        &self,
        events: Vec<Event>,
        now_ms: i64,
    ) -> Result<Vec<Accepted>, AcceptError> {
        if events.len() > EVENTS_MAX {
            return Err(AcceptError::TooMany {
                limit: EVENTS_MAX,
                found: events.len(),
            });
        }
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let shared = Arc::clone(&self.shared);
        let then = move |recorded| shared.take(recorded, now_ms);
        Ok(self.ledger.record_events(events, now_ms, then).await?)
    }

    /// The deployment that answers to that name.
    pub fn get(&self, id: &DeploymentId) -> Option<Arc<Deployment>> {
        self.shared.state.read().by_name.get(id).cloned()
    }

    /// All names of the deployment that answers to `id`, its present id first. Verdicts given
    /// while it had another name are recorded under that.
    pub fn names(&self, id: &DeploymentId) -> Vec<DeploymentId> {
        let state = self.shared.state.read();
        let target = state.by_name.get(id).map(|found| &found.target);
        let folded = target.and_then(|target| state.targets.get(target));
        let kept = folded.and_then(|t| t.kept.iter().find(|kept| kept.names.contains(id)));
        kept.map(|kept| kept.names.clone()).unwrap_or_default()
    }

    /// Deployments that the filter takes, newest first, `limit` at most.
    pub fn list(&self, filter: &Filter, limit: usize) -> Vec<Arc<Deployment>> {
        let mut found = self.collect(|deployment| filter.takes(deployment));
        found.truncate(limit);
        found
    }

    /// Deployments that go on, newest first.
    pub fn active(&self) -> Vec<Arc<Deployment>> {
        self.collect(|deployment| deployment.phase.is_active())
    }

    /// Deployments to a target, newest first.
    pub fn of_target(&self, target: &Target) -> Vec<Arc<Deployment>> {
        let state = self.shared.state.read();
        let kept = state.targets.get(target).map(|target| &target.kept);
        let all = kept.into_iter().flatten();
        newest_first(all.map(|kept| Arc::clone(&kept.deployment)).collect())
    }

    /// The newest deployment of a service that has the given environment, version and digest.
    pub fn find(
        &self,
        service: &str,
        environment: Option<&str>,
        version: Option<&str>,
        digest: Option<&Digest>,
    ) -> Option<Arc<Deployment>> {
        let fits = |deployment: &Deployment| {
            let Artifact {
                version: v,
                digest: d,
                ..
            } = &deployment.artifact;
            deployment.target.service == service
                && environment.is_none_or(|e| e == deployment.target.environment)
                && version.is_none_or(|version| v.as_deref() == Some(version))
                && digest.is_none_or(|digest| d.as_ref() == Some(digest))
        };
        self.collect(fits).into_iter().next()
    }

    /// A number that grows whenever a deployment has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    fn collect(&self, takes: impl Fn(&Deployment) -> bool) -> Vec<Arc<Deployment>> {
        let state = self.shared.state.read();
        let kept = state.targets.values().flat_map(|target| &target.kept);
        let found = kept.filter(|kept| takes(&kept.deployment));
        newest_first(found.map(|kept| Arc::clone(&kept.deployment)).collect())
    }
}

impl std::fmt::Debug for Deployments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let targets = self.shared.state.read().targets.len();
        f.debug_struct("Deployments")
            .field("targets", &targets)
            .finish()
    }
}

fn newest_first(mut deployments: Vec<Arc<Deployment>>) -> Vec<Arc<Deployment>> {
    deployments.sort_by(|a, b| (b.created_ms, &b.id).cmp(&(a.created_ms, &a.id)));
    deployments
}

/// What the writer thread and the readers share.
pub(super) struct Shared {
    ledger: Arc<Ledger>,
    pub(super) state: RwLock<State>,
    changes: watch::Sender<u64>,
    pub(super) opened_ms: i64,
    pub(super) sightings: parking_lot::Mutex<super::observed::Sightings>,
}

impl Shared {
    /// Folds what was recorded and tells what it belongs to.
    fn take(&self, recorded: Vec<Recorded>, now_ms: i64) -> Vec<Accepted> {
        let mut state = self.state.write();
        let mut touched = Touched::default();
        let events = recorded.into_iter().map(
            |Recorded {
                 event, duplicate, ..
             }| {
                let event = Arc::new(event);
                if !duplicate {
                    state.add(Arc::clone(&event), &mut touched);
                }
                (event, duplicate)
            },
        );
        let events: Vec<_> = events.collect();
        let has_changed = state.refold(&touched, &self.ledger, now_ms);
        let accepted = events.into_iter().map(|(event, duplicate)| Accepted {
            deployment: state.deployment_of(&event),
            source: event.source.clone(),
            id: event.id.clone(),
            duplicate,
        });
        let accepted = accepted.collect();
        drop(state);
        if has_changed {
            self.changes.send_modify(|n| *n += 1);
        }
        accepted
    }
}

/// Everything that is kept in memory.
pub(super) struct State {
    options: DeploymentsOptions,
    pub(super) targets: BTreeMap<Target, Kept>,
    by_name: HashMap<DeploymentId, Arc<Deployment>>,
    /// What `artifact.published` has said of a digest, in the order of the fold.
    artifacts: HashMap<Digest, Facts>,
    /// How many digests may be known before the old ones are dropped.
    prune_at: usize,
}

type Facts = BTreeMap<(i64, String, String), Artifact>;

/// What is kept of a target.
pub(super) struct Kept {
    /// The fold of the events that are no longer kept.
    base: Fold,
    /// The time of which on events are kept, in milliseconds since the epoch.
    since_ms: i64,
    /// An event has come that is older than that.
    is_stale: bool,
    /// The events since, in the order of the fold.
    events: Vec<Arc<Event>>,
    /// Their deployments.
    pub(super) kept: Vec<KeptDeployment>,
    /// What the target runs, as far as events say.
    pub(super) running: Option<Artifact>,
}

pub(super) struct KeptDeployment {
    pub(super) deployment: Arc<Deployment>,
    names: Vec<DeploymentId>,
}

/// Targets that have to be folded again.
#[derive(Default)]
struct Touched(BTreeSet<Target>);

impl State {
    fn new(options: DeploymentsOptions) -> State {
        State {
            options,
            targets: BTreeMap::new(),
            by_name: HashMap::new(),
            artifacts: HashMap::new(),
            prune_at: 1000,
        }
    }

    pub(super) fn options(&self) -> DeploymentsOptions {
        self.options
    }

    /// Puts an event in its place among its target's events.
    fn add(&mut self, event: Arc<Event>, touched: &mut Touched) {
        let target = event.target.clone();
        if is_of_all_regions(&event) {
            // Targets are in order, so a service's regions follow the whole.
            let regions = self.targets.range_mut(target.clone()..);
            for (region, kept) in regions.take_while(|(t, _)| is_region_of(t, &target)) {
                kept.is_stale |= kept.is_too_old(&event);
                touched.0.insert(region.clone());
            }
        }
        if event.kind == EventKind::ArtifactPublished {
            self.catalog(&event, touched);
        }
        touched.0.insert(target.clone());
        let kept = self.targets.entry(target).or_insert_with_key(Kept::new);
        kept.is_stale |= kept.is_too_old(&event);
        let at = kept
            .events
            .partition_point(|known| fold::order(known) <= fold::order(&event));
        kept.events.insert(at, event);
    }

    /// Notes what is known of a digest; its deployments have to hear of it.
    fn catalog(&mut self, event: &Event, touched: &mut Touched) {
        let Some(digest) = &event.artifact.digest else {
            return;
        };
        let key = (event.time_ms, event.source.clone(), event.id.clone());
        let facts = self.artifacts.entry(digest.clone()).or_default();
        facts.insert(key, event.artifact.clone());
        for (target, kept) in &self.targets {
            if kept.has(digest) {
                touched.0.insert(target.clone());
            }
        }
    }

    /// Folds the touched targets; whether any deployment has changed.
    fn refold(&mut self, touched: &Touched, ledger: &Ledger, now_ms: i64) -> bool {
        let mut has_changed = false;
        // Regions come before the whole, which keeps the alerts that they need.
        for target in touched.0.iter().rev() {
            if self.targets.get(target).is_some_and(|kept| kept.is_stale) {
                self.reload(target, ledger);
            }
            has_changed |= self.refold_one(target, now_ms);
        }
        self.prune_artifacts(now_ms.saturating_sub(self.options.retention_ms));
        has_changed
    }

    fn refold_one(&mut self, target: &Target, now_ms: i64) -> bool {
        let shared = self.shared_events(target);
        let horizon_ms = now_ms.saturating_sub(self.options.retention_ms);
        let floor_ms = self.needed_since_ms(target);
        let State {
            targets,
            by_name,
            artifacts,
            options,
            ..
        } = self;
        let Some(kept) = targets.get_mut(target) else {
            return false;
        };
        let mut has_changed = kept.replace(kept.fold(&shared, artifacts), by_name);
        // Not with every event: a tenth of the retention may gather first.
        if kept.oldest_ms() < horizon_ms.saturating_sub(options.retention_ms / 10) {
            kept.trim(&shared, horizon_ms.min(floor_ms));
            has_changed |= kept.replace(kept.fold(&shared, artifacts), by_name);
        }
        has_changed
    }

    /// Since when a target's regions still need the events that are about all of them.
    fn needed_since_ms(&self, whole: &Target) -> i64 {
        if whole.region.is_some() {
            return i64::MAX;
        }
        let all = self.targets.range(whole.clone()..);
        let regions = all
            .take_while(|(target, _)| is_region_of(target, whole))
            .filter(|(target, _)| target.region.is_some());
        let since_ms = regions.map(|(_, kept)| kept.since_ms.max(kept.oldest_ms()));
        since_ms.min().unwrap_or(i64::MAX)
    }

    /// Reads a target's events from the ledger again, since one of them is older than what is
    /// kept. A region needs the events that are about all regions, too.
    fn reload(&mut self, target: &Target, ledger: &Ledger) {
        let whole = Target {
            region: None,
            ..target.clone()
        };
        for target in [&whole, target] {
            let Some(kept) = self.targets.get_mut(target) else {
                continue;
            };
            let mut events = Vec::new();
            match ledger.each_event_of(target, |event| events.push(Arc::new(event))) {
                Ok(()) => {
                    events.sort_by(|a, b| fold::order(a).cmp(&fold::order(b)));
                    kept.events = events;
                    kept.base = Fold::new(target.clone());
                    kept.since_ms = i64::MIN;
                    kept.is_stale = false;
                }
                // It stays stale, and the next event of the target tries again.
                Err(error) => tracing::warn!(%target, %error, "could not fold a late event"),
            }
        }
    }

    /// Drops what is known of digests that are neither recent nor deployed.
    fn prune_artifacts(&mut self, horizon_ms: i64) {
        if self.artifacts.len() < self.prune_at {
            return;
        }
        let kept = self.targets.values().flat_map(|target| &target.kept);
        let digests = kept.flat_map(|kept| {
            let previous = kept.deployment.previous.as_ref();
            let both = [Some(&kept.deployment.artifact), previous];
            both.into_iter()
                .flatten()
                .filter_map(|artifact| artifact.digest.clone())
        });
        let deployed: HashSet<Digest> = digests.collect();
        self.artifacts.retain(|digest, facts| {
            let newest_ms = facts.keys().next_back().map_or(i64::MIN, |(ms, ..)| *ms);
            newest_ms >= horizon_ms || deployed.contains(digest)
        });
        self.prune_at = self.artifacts.len() * 2 + 1000;
    }

    /// Alerts and the like of a service that name no region belong to all of its regions.
    fn shared_events(&self, target: &Target) -> Vec<Arc<Event>> {
        if target.region.is_none() {
            return Vec::new();
        }
        let whole = Target {
            region: None,
            ..target.clone()
        };
        let events = self.targets.get(&whole).map(|kept| &kept.events);
        let events = events.into_iter().flatten();
        events.filter(|e| is_of_all_regions(e)).cloned().collect()
    }

    fn deployment_of(&self, event: &Event) -> Option<DeploymentId> {
        let kept = &self.targets.get(&event.target)?.kept;
        let is_it = |d: &Deployment| {
            let mut events = d.timeline.iter().rev();
            events.any(|e| e.id == event.id && e.source == event.source)
        };
        let mut newest_first = kept.iter().rev().map(|kept| &kept.deployment);
        newest_first.find(|d| is_it(d)).map(|d| d.id.clone())
    }
}

impl Kept {
    fn new(target: &Target) -> Kept {
        Kept {
            base: Fold::new(target.clone()),
            since_ms: i64::MIN,
            is_stale: false,
            events: Vec::new(),
            kept: Vec::new(),
            running: None,
        }
    }

    fn fold(
        &self,
        shared: &[Arc<Event>],
        artifacts: &HashMap<Digest, Facts>,
    ) -> (Vec<Folded>, Option<Artifact>) {
        let mut fold = self.base.clone();
        for event in self.sorted(shared) {
            fold.apply(event);
        }
        let mut folded = fold.deployments();
        for Folded { deployment, .. } in &mut folded {
            add_provenance(deployment, artifacts);
        }
        (folded, fold.running().cloned())
    }

    fn has(&self, digest: &Digest) -> bool {
        self.kept.iter().any(|kept| {
            let previous = kept.deployment.previous.as_ref();
            let both = [Some(&kept.deployment.artifact), previous];
            both.into_iter()
                .flatten()
                .any(|artifact| artifact.digest.as_ref() == Some(digest))
        })
    }

    /// Whether the event may belong to a deployment that was forgotten.
    fn is_too_old(&self, event: &Event) -> bool {
        event.time_ms < self.since_ms.saturating_add(fold::MEMORY_MS)
    }

    /// The time of its oldest event that is kept, in milliseconds since the epoch.
    fn oldest_ms(&self) -> i64 {
        self.events.first().map_or(i64::MAX, |event| event.time_ms)
    }

    fn sorted<'a>(&'a self, shared: &'a [Arc<Event>]) -> Vec<&'a Event> {
        let shared = shared.iter().filter(|event| event.time_ms >= self.since_ms);
        fold::sorted(self.events.iter().chain(shared).map(Arc::as_ref))
    }

    /// Forgets what ended before `horizon_ms` and no longer matters.
    fn trim(&mut self, shared: &[Arc<Event>], horizon_ms: i64) {
        let cut_ms = self.cut_ms(horizon_ms);
        if cut_ms <= self.since_ms {
            return;
        }
        let mut base = self.base.clone();
        for event in self.sorted(shared) {
            if event.time_ms < cut_ms {
                base.apply(event);
            }
        }
        self.base = base.forget();
        self.since_ms = cut_ms;
        self.events.retain(|event| event.time_ms >= cut_ms);
        self.events.shrink_to_fit();
    }

    /// The latest time that no deployment which has to stay reaches across. What a deployment
    /// undoes stays with it.
    fn cut_ms(&self, horizon_ms: i64) -> i64 {
        let all = || self.kept.iter().map(|kept| &kept.deployment);
        let newest = all().next_back();
        let begun = all().rfind(|d| d.phase != Phase::Pending);
        let mut cut_ms = horizon_ms;
        for d in all() {
            let is_recent = d.finished_ms.is_none_or(|ms| ms >= horizon_ms);
            let is_end = [newest, begun]
                .into_iter()
                .flatten()
                .any(|end| end.id == d.id);
            if is_recent || is_end {
                cut_ms = cut_ms.min(d.created_ms);
            }
        }
        // Whatever reaches across the cut moves it back, until nothing does.
        loop {
            let before_ms = cut_ms;
            let staying = all().filter(|d| d.created_ms >= before_ms);
            let undone: HashSet<_> = staying.filter_map(|d| d.rollback_of.as_ref()).collect();
            for d in all() {
                let last_ms = d.timeline.last().map(|event| event.time_ms);
                if last_ms.is_some_and(|ms| ms >= before_ms) || undone.contains(&d.id) {
                    cut_ms = cut_ms.min(d.created_ms);
                }
            }
            if cut_ms == before_ms {
                return cut_ms;
            }
        }
    }

    /// Puts the new deployments in the place of the old ones; whether anything differs.
    fn replace(
        &mut self,
        (folded, running): (Vec<Folded>, Option<Artifact>),
        by_name: &mut HashMap<DeploymentId, Arc<Deployment>>,
    ) -> bool {
        self.running = running;
        let same = folded.len() == self.kept.len()
            && folded
                .iter()
                .zip(&self.kept)
                .all(|(new, old)| new.deployment == *old.deployment && new.names == old.names);
        if same {
            return false;
        }
        for name in self.kept.drain(..).flat_map(|kept| kept.names) {
            by_name.remove(&name);
        }
        self.kept = folded
            .into_iter()
            .map(|Folded { deployment, names }| KeptDeployment {
                deployment: Arc::new(deployment),
                names,
            })
            .collect();
        for kept in &self.kept {
            for name in &kept.names {
                by_name.insert(name.clone(), Arc::clone(&kept.deployment));
            }
        }
        true
    }
}

/// Adds what was published of the digests that a deployment names.
fn add_provenance(deployment: &mut Deployment, artifacts: &HashMap<Digest, Facts>) {
    let both = [Some(&mut deployment.artifact), deployment.previous.as_mut()];
    for artifact in both.into_iter().flatten() {
        let facts = artifact
            .digest
            .as_ref()
            .and_then(|digest| artifacts.get(digest));
        for fact in facts.into_iter().flat_map(BTreeMap::values) {
            artifact.merge(fact);
        }
    }
}

fn is_of_all_regions(event: &Event) -> bool {
    event.target.region.is_none()
        && matches!(
            event.kind,
            EventKind::ManualChange
                | EventKind::AlertFired
                | EventKind::AlertResolved
                | EventKind::IncidentOpened
                | EventKind::IncidentResolved
        )
}

fn is_region_of(target: &Target, whole: &Target) -> bool {
    target.service == whole.service && target.environment == whole.environment
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::deploy::testing::{With as _, event};
    use crate::ledger;
    use crate::model::EventKind::{AlertFired, Started, Succeeded};
    use crate::record::Records;

    const NOW_MS: i64 = 100 * 60_000;
    const DAY_MS: i64 = 86_400_000;

    fn open(dir: &std::path::Path) -> Arc<Deployments> {
        let ledger = Ledger::open(Records::open(dir).unwrap());
        Deployments::open(ledger, DeploymentsOptions::default(), NOW_MS).unwrap()
    }

    fn everything(deployments: &Deployments) -> Vec<Arc<Deployment>> {
        deployments.list(&Filter::default(), usize::MAX)
    }

    #[tokio::test]
    async fn an_event_is_durable_chained_and_folded() {
        let dir = tempfile::tempdir().unwrap();
        let deployments = open(dir.path());
        let mut changes = deployments.changes();
        let accepted = deployments
            .accept(vec![event(Started, "2", 1)], NOW_MS)
            .await;
        let accepted = accepted.unwrap().remove(0);
        let id = accepted.deployment.unwrap();
        assert!(!accepted.duplicate);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(deployments.get(&id).unwrap().phase, Phase::Progressing);
        assert_eq!(deployments.active().len(), 1);
        let report = ledger::verify(deployments.ledger.records()).unwrap();
        assert!(report.ok && report.entries == 1, "{report:?}");

        let before = everything(&deployments);
        drop(deployments);
        assert_eq!(everything(&open(dir.path())), before);
    }

    /// A retry that changed its mind: the first one stands.
    #[tokio::test]
    async fn a_known_id_changes_nothing_whatever_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let deployments = open(dir.path());
        let first = event(Started, "2", 1);
        let mut other = event(Succeeded, "3", 9);
        other.id.clone_from(&first.id);
        let batch = vec![first.clone(), other.clone(), first.clone()];
        let accepted = deployments.accept(batch, NOW_MS).await.unwrap();
        let duplicates: Vec<bool> = accepted.iter().map(|a| a.duplicate).collect();
        assert_eq!(duplicates, [false, true, true]);
        assert!(
            accepted
                .iter()
                .all(|a| a.deployment == accepted[0].deployment)
        );
        let changes = deployments.changes();
        let again = deployments.accept(vec![other], NOW_MS).await.unwrap();
        assert!(again[0].duplicate);
        assert!(!changes.has_changed().unwrap());
        let all = everything(&deployments);
        assert_eq!((all.len(), all[0].phase), (1, Phase::Progressing));
        assert_eq!(deployments.ledger.entries(0, 10).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn events_from_many_at_once_are_each_recorded_once() {
        let dir = tempfile::tempdir().unwrap();
        let deployments = open(dir.path());
        let tasks = (0..64).map(|n| {
            let deployments = Arc::clone(&deployments);
            // Every event is sent by two.
            let mut event = event(Started, &format!("v{}", n / 2), n / 2);
            event.target.service = format!("service-{}", n % 3);
            event.source = "ci".to_owned();
            tokio::spawn(async move { deployments.accept(vec![event], NOW_MS).await })
        });
        let mut new = 0;
        for task in tasks.collect::<Vec<_>>() {
            new += task
                .await
                .unwrap()
                .unwrap()
                .iter()
                .filter(|a| !a.duplicate)
                .count();
        }
        assert_eq!(new, 32);
        let report = ledger::verify(deployments.ledger.records()).unwrap();
        assert!(report.ok && report.entries == 32, "{report:?}");
    }

    /// The disk fills up: the sender hears of it, nothing is half there, and a later try works.
    #[tokio::test]
    async fn a_full_disk_is_an_error_and_no_event_is_lost_or_invented() {
        let dir = tempfile::tempdir().unwrap();
        let deployments = open(dir.path());
        deployments
            .accept(vec![event(Started, "2", 1)], NOW_MS)
            .await
            .unwrap();
        let before = everything(&deployments);
        let limit = |pages: i64| {
            let set = move |c: &rusqlite::Connection| {
                c.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            };
            deployments.ledger.records().write(set)
        };
        limit(1).await.unwrap();
        let batch: Vec<Event> = (2..500)
            .map(|n| event(Started, &n.to_string(), n))
            .collect();
        let refused = deployments.accept(batch.clone(), NOW_MS).await;
        assert!(refused.unwrap_err().to_string().contains("full"));
        assert_eq!(everything(&deployments), before);
        limit(1_000_000).await.unwrap();
        let accepted = deployments.accept(batch, NOW_MS).await.unwrap();
        assert!(accepted.iter().all(|a| !a.duplicate));
        assert!(ledger::verify(deployments.ledger.records()).unwrap().ok);
    }

    #[tokio::test]
    async fn too_many_at_once_are_refused_whole() {
        let dir = tempfile::tempdir().unwrap();
        let deployments = open(dir.path());
        let batch = vec![event(Started, "2", 1); EVENTS_MAX + 1];
        assert!(deployments.accept(batch, NOW_MS).await.is_err());
        assert!(everything(&deployments).is_empty());
    }

    #[tokio::test]
    async fn an_alert_without_a_region_is_about_all_regions() {
        let dir = tempfile::tempdir().unwrap();
        let deployments = open(dir.path());
        let batch = vec![
            event(Started, "2", 1).region("eu"),
            event(AlertFired, "", 5),
            event(Started, "3", 2).region("us").of("us-ci"),
        ];
        deployments.accept(batch, NOW_MS).await.unwrap();
        let all = everything(&deployments);
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|d| d.first_alert_ms == Some(300_000)));
    }

    #[tokio::test]
    async fn deployments_are_found_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let deployments = open(dir.path());
        let mut staging = event(Started, "2", 9);
        staging.target.environment = "staging".to_owned();
        let batch = vec![
            event(Succeeded, "1", 1),
            event(Started, "2", 5).digest("a"),
            staging,
        ];
        deployments.accept(batch, NOW_MS).await.unwrap();
        let version = |d: Option<Arc<Deployment>>| d.and_then(|d| d.artifact.version.clone());
        let found = deployments.find("checkout", Some("production"), None, None);
        assert_eq!(version(found).as_deref(), Some("2"));
        let found = deployments.find("checkout", None, Some("2"), None).unwrap();
        assert_eq!(found.target.environment, "staging");
        let digest = Digest::parse(&format!("sha256:{}", "a".repeat(64))).unwrap();
        let found = deployments
            .find("checkout", None, None, Some(&digest))
            .unwrap();
        assert_eq!(found.target.environment, "production");
        assert_eq!(deployments.find("cart", None, None, None), None);
        let filter = Filter {
            phase: Some(Phase::Succeeded),
            ..Filter::default()
        };
        assert_eq!(
            version(deployments.list(&filter, 10).pop()).as_deref(),
            Some("1")
        );
        let of_target = deployments.of_target(&Target::new("checkout", "production"));
        assert_eq!(of_target.len(), 2);
        assert_eq!(version(of_target.into_iter().next()).as_deref(), Some("2"));
    }

    #[tokio::test]
    async fn provenance_reaches_the_deployment_whichever_comes_first() {
        let published = |minute: i64| {
            let mut event = event(EventKind::ArtifactPublished, "2", minute).digest("a");
            event.artifact.provenance.commit = Some("abc".to_owned());
            event.target.environment = String::new();
            event
        };
        let started = || event(Started, "", 5).digest("a");
        for order in [[published(1), started()], [started(), published(1)]] {
            let dir = tempfile::tempdir().unwrap();
            let deployments = open(dir.path());
            for event in order {
                deployments.accept(vec![event], NOW_MS).await.unwrap();
            }
            let all = everything(&deployments);
            assert_eq!(all.len(), 1);
            assert_eq!(all[0].artifact.provenance.commit.as_deref(), Some("abc"));
            assert_eq!(all[0].artifact.version.as_deref(), Some("2"));
            let id = all[0].id.clone();
            assert_eq!(deployments.names(&id), [id]);
        }
    }

    fn short_memory(dir: &std::path::Path, now_ms: i64) -> Arc<Deployments> {
        let ledger = Ledger::open(Records::open(dir).unwrap());
        let options = DeploymentsOptions {
            retention_ms: 40 * DAY_MS,
            ..DeploymentsOptions::default()
        };
        Deployments::open(ledger, options, now_ms).unwrap()
    }

    /// Years of deployments of one service must not pile up in memory, nor their names change.
    #[tokio::test]
    async fn what_ended_long_ago_is_forgotten_and_its_traces_stay() {
        let dir = tempfile::tempdir().unwrap();
        let deployments = short_memory(dir.path(), 0);
        let mut last = DeploymentId(String::new());
        let day = 24 * 60;
        for n in 0..60 {
            let minute = n * 15 * day;
            let now_ms = (minute + 1) * 60_000;
            let batch = vec![
                event(Started, "2", minute),
                event(Succeeded, "2", minute + 1),
            ];
            let accepted = deployments.accept(batch, now_ms).await.unwrap();
            let id = accepted[0].deployment.clone().unwrap();
            assert_ne!(id, last);
            last = id;
        }
        let kept = everything(&deployments).len();
        assert!((2..=5).contains(&kept), "{kept} kept");
        let target = Target::new("checkout", "production");
        let events = |d: &Deployments| d.shared.state.read().targets[&target].events.len();
        assert!(events(&deployments) <= 10);
        // A late event of the forgotten past is folded where it belongs.
        let late = event(EventKind::RolledBack, "2", 2);
        deployments.accept(vec![late], 900 * DAY_MS).await.unwrap();
        assert!(deployments.get(&last).is_some(), "names do not change");
        let before = everything(&deployments);
        drop(deployments);
        assert_eq!(everything(&short_memory(dir.path(), 900 * DAY_MS)), before);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// What is kept is what a fold of everything shows, and nothing recent is missing.
        #[test]
        fn forgetting_changes_nothing_that_is_kept(
            mut events in crate::deploy::fold::tests::any_events(),
            shuffled in any::<bool>(),
        ) {
            for event in &mut events {
                event.time_ms *= 4 * 24 * 60;
            }
            if !shuffled {
                events.sort_by(|a, b| fold::order(a).cmp(&fold::order(b)));
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let deployments = short_memory(dir.path(), 0);
            let mut now_ms = 0;
            for event in &events {
                now_ms = now_ms.max(event.time_ms);
                runtime.block_on(deployments.accept(vec![event.clone()], now_ms)).unwrap();
            }
            let target = Target::new("checkout", "production");
            let whole = fold::fold(&target, &events);
            let kept = everything(&deployments);
            for d in &kept {
                let same = whole.iter().find(|folded| folded.deployment.id == d.id);
                prop_assert_eq!(same.map(|folded| &folded.deployment), Some(&**d));
            }
            for Folded { deployment: d, .. } in &whole {
                let is_recent = d.finished_ms.is_none_or(|ms| ms >= now_ms - 40 * DAY_MS);
                prop_assert!(!is_recent || deployments.get(&d.id).is_some(), "{} is missing", d.id);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// However events arrive, and cut into whatever calls, memory shows what a restart shows.
        #[test]
        fn reopening_gives_the_same(
            events in crate::deploy::fold::tests::any_events(),
            size in 1usize..8,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let deployments = open(dir.path());
            for batch in events.chunks(size) {
                runtime.block_on(deployments.accept(batch.to_vec(), NOW_MS)).unwrap();
            }
            let live = everything(&deployments);
            prop_assert!(ledger::verify(deployments.ledger.records()).unwrap().ok);
            drop(deployments);
            prop_assert_eq!(everything(&open(dir.path())), live);
        }
    }
}
