//! What of the deployments is in memory; `store` states the policy.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::fold::{self, Fold, Folded};
use super::store::DeploymentsOptions;
use crate::ledger::Ledger;
use crate::model::{Artifact, Deployment, DeploymentId, Digest, Event, EventKind, Phase, Target};

/// Everything that is kept in memory.
pub(super) struct State {
    options: DeploymentsOptions,
    pub(super) targets: BTreeMap<Target, Kept>,
    pub(super) by_name: HashMap<DeploymentId, Arc<Deployment>>,
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
    pub(super) events: Vec<Arc<Event>>,
    /// Their deployments.
    pub(super) kept: Vec<KeptDeployment>,
    /// What the target runs, as far as events say.
    pub(super) running: Option<Artifact>,
}

pub(super) struct KeptDeployment {
    pub(super) deployment: Arc<Deployment>,
    pub(super) names: Vec<DeploymentId>,
}

/// Targets that have to be folded again.
#[derive(Default)]
pub(super) struct Touched(BTreeSet<Target>);

impl State {
    pub(super) fn new(options: DeploymentsOptions) -> State {
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
    pub(super) fn add(&mut self, event: Arc<Event>, touched: &mut Touched) {
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
    pub(super) fn refold(&mut self, touched: &Touched, ledger: &Ledger, now_ms: i64) -> bool {
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

    pub(super) fn deployment_of(&self, event: &Event) -> Option<DeploymentId> {
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
