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

use std::sync::Arc;

use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::watch;

use super::memory::{State, Touched};
use crate::ledger::{Ledger, RecordError, Recorded};
use crate::model::{Artifact, Deployment, DeploymentId, Digest, Event, Phase, Target};
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

#[cfg(test)]
mod tests;
