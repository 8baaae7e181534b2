//! The deployments in memory: the fold of the ledger's events.
//!
//! - **What is kept where.** Every event stays in the ledger for good. In memory are the
//!   deployments (and their events) that ended within the retention, those that go on however
//!   old they are, and the newest of every target. Of older ones only the consequences are kept:
//!   what ran, and how many attempts there were, so that names and links don't change.
//! - **Durable first.** An event is folded after its commit, on the thread that commits, so
//!   memory never shows what the file does not hold, and a caller that goes away changes
//!   nothing. What fails is not in memory either.
//! - **Duplicates.** A known (source, id) changes nothing, whatever the rest of it says: the
//!   first one stands, and the answer says that it was a duplicate.
//! - **Restart.** Opening reads the ledger's events once and folds them: the outcome is the
//!   same as before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    /// How long a deployment stays in memory after its end.
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
        state.refold(&touched, now_ms);
        let (changes, _) = watch::channel(0);
        Ok(Arc::new(Deployments {
            ledger,
            shared: Arc::new(Shared {
                state: RwLock::new(state),
                changes,
                opened_ms: now_ms,
                sightings: parking_lot::Mutex::default(),
            }),
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
        let has_changed = state.refold(&touched, now_ms);
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
}

/// What is kept of a target.
pub(super) struct Kept {
    /// The fold of what is no longer kept.
    base: Fold,
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
        }
    }

    pub(super) fn options(&self) -> DeploymentsOptions {
        self.options
    }

    /// Puts an event in its place among its target's events.
    fn add(&mut self, event: Arc<Event>, touched: &mut Touched) {
        let target = event.target.clone();
        if is_of_all_regions(&event) {
            let regions = self.targets.keys().filter(|t| is_region_of(t, &target));
            touched.0.extend(regions.cloned());
        }
        touched.0.insert(target.clone());
        let kept = self.targets.entry(target).or_insert_with_key(Kept::new);
        let at = kept
            .events
            .partition_point(|known| fold::order(known) <= fold::order(&event));
        kept.events.insert(at, event);
    }

    /// Folds the touched targets; whether any deployment has changed.
    fn refold(&mut self, touched: &Touched, now_ms: i64) -> bool {
        let mut has_changed = false;
        for target in &touched.0 {
            let shared = self.shared_events(target);
            let Some(kept) = self.targets.get_mut(target) else {
                continue;
            };
            let folded = kept.fold(&shared);
            has_changed |= kept.replace(folded, &mut self.by_name);
            let _ = now_ms;
        }
        has_changed
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
            events: Vec::new(),
            kept: Vec::new(),
            running: None,
        }
    }

    fn fold(&mut self, shared: &[Arc<Event>]) -> Vec<Folded> {
        let mut fold = self.base.clone();
        let events = self.events.iter().chain(shared).map(Arc::as_ref);
        for event in fold::sorted(events) {
            fold.apply(event);
        }
        self.running = fold.running().cloned();
        fold.deployments()
    }

    /// Puts the new deployments in the place of the old ones; whether anything differs.
    fn replace(
        &mut self,
        folded: Vec<Folded>,
        by_name: &mut HashMap<DeploymentId, Arc<Deployment>>,
    ) -> bool {
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
