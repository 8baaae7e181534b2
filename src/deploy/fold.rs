//! From the events of a target to its deployments.
//!
//! The fold is a function of the **set** of a target's events: they are sorted by time, kind (in
//! the order of a deployment's life), source and id before they are read, so neither the order
//! of arrival nor a duplicate changes the outcome. What follows is said of the sorted order.
//!
//! **Which attempt does an event belong to?** An event that carries the sender's name for the
//! deployment (`deployment`) belongs to the newest attempt of that name. Any other event belongs
//! to the newest attempt of the same artifact that is still going on; without an artifact, to
//! the newest attempt. Names of different senders meet in one attempt when they ship the same
//! artifact at the same time; two names of one sender are two attempts. A name that comes back
//! with another artifact is another attempt.
//!
//! **When does a new attempt open?** When an event fits none. Also when `queued` or `started`
//! comes for an artifact whose last attempt is over: the same artifact shipped again later is a
//! new attempt. Under one name too, save that `started` soon after `succeeded` is a clock that
//! runs behind. Reports of the end
//! (and steps) that come within [`WITNESS_GAP_MS`] of an attempt's last word are further
//! witnesses of it; later ones, without a name, report an attempt of which the start was not
//! announced. Thirty days after its last word ([`MEMORY_MS`]) an attempt that is over, and is not
//! the newest, takes no more events of any kind. An event that names neither artifact nor a known deployment opens nothing and is
//! kept in the ledger only.
//!
//! **Phases.** `queued` is pending. `started`, `step`, `resumed` and `partial_failure` make it
//! progress, `paused` pauses it; none of these wakes an attempt that is over. Of `succeeded`,
//! `failed` and `aborted` the last word counts. `rolled_back` is final. A start that is missing
//! is taken from the first event that implies it; an attempt of which only the end was announced
//! has no start, so that it does not count into deployment times.
//!
//! **What did it replace?** What an event says; else the artifact that ran here when the attempt
//! began: the last one that succeeded and was not rolled back.
//!
//! **When one begins while another goes on**, the older one is superseded. What its own sender
//! reports of its end later still counts, since the sender knows best. Being queued supersedes
//! nothing.
//!
//! **Rollbacks.** Three ways lead to `rolled_back`, and all are counted alike:
//! - a `rolled_back` event. It may name the candidate, or what is back (in `previous`, or in
//!   `artifact` when that is what the candidate had replaced);
//! - a *silent* one: an attempt to ship an artifact that ran here before and was not rolled back
//!   itself. It undoes the newest attempt of another artifact, whether that one goes on, has
//!   failed or has succeeded: it is linked when it begins (`rollback_of`, `rolled_back_by`), the
//!   undone attempt is aborted if it went on, and rolled back once the way back has succeeded;
//! - telemetry that shows the old version alone, which arrives here as a `rolled_back` event of
//!   the observer.
//!
//! **Announcements overrule the observer.** A `queued` or `started` that comes within
//! [`WITNESS_GAP_MS`] of an attempt that was only observed takes it over, also when it seemed to
//! be over: it goes on until its sender says otherwise. The observer's `succeeded` never opens
//! an attempt of an artifact whose last attempt has succeeded.
//!
//! When an event has said already that traffic is back, a deployment of the old artifact within
//! [`WITNESS_GAP_MS`] is linked as its cause; a later one is an ordinary deployment. An artifact
//! that was rolled back and is shipped again goes forward.
//!
//! **Alerts, incidents, manual changes** belong to the newest attempt that had begun at their
//! time, or else to the newest. Before the first attempt they belong to none.
//!
//! **Names of deployments** are made of service, version (or digest) and a hash over target,
//! version and a running number of the version's attempts here. Thus an attempt keeps its name
//! when earlier events of it arrive late. The name changes only if its version becomes known
//! later than its digest, or if a whole earlier attempt of the same version arrives late;
//! [`Folded::names`] lists all that an attempt answers to.

mod attempt;
mod name;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use attempt::{Attempt, event_ref, is_known};
use name::{keys, name};

use crate::model::{Artifact, Deployment, DeploymentId, Event, EventKind, Origin, Phase, Target};

/// The source of events that slogate derives from telemetry.
pub const OBSERVER: &str = "slogate:telemetry";

/// How long after an attempt's last word a report without a name is still about it.
pub const WITNESS_GAP_MS: i64 = 600_000;

/// How long after its last word an attempt that is over, and not the newest, takes events.
pub(super) const MEMORY_MS: i64 = 30 * 86_400_000;

/// Artifacts that are remembered per target as having run there.
const HELD_MAX: usize = 50;

/// A deployment and everything it answers to.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// The deployment.
    pub deployment: Deployment,
    /// Its id first, then the name it had while only its digest was known.
    pub names: Vec<DeploymentId>,
}

/// Folds the events of one target, in any order and with any duplicates.
pub fn fold<'a>(target: &Target, events: impl IntoIterator<Item = &'a Event>) -> Vec<Folded> {
    let mut state = Fold::new(target.clone());
    for event in sorted(events) {
        state.apply(event);
    }
    state.deployments()
}

/// The order in which events are folded, without duplicates.
pub(super) fn sorted<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<&'a Event> {
    let mut events: Vec<&Event> = events.into_iter().collect();
    events.sort_by(|a, b| order(a).cmp(&order(b)));
    events.dedup_by(|a, b| (&a.source, &a.id) == (&b.source, &b.id));
    events
}

/// The sort key of an event.
pub(super) fn order(event: &Event) -> (i64, EventKind, &str, &str) {
    (event.time_ms, event.kind, &event.source, &event.id)
}

/// The state between two events.
#[derive(Clone, Debug)]
pub(super) struct Fold {
    target: Target,
    /// In the order of their first events.
    attempts: Vec<Attempt>,
    /// The attempt that began last.
    newest_begun: Option<usize>,
    /// What the target runs, as far as events say.
    running: Option<Artifact>,
    /// What has run here and was not rolled back, oldest first.
    held: Vec<Artifact>,
    /// Attempts that are remembered for their consequences and no longer shown.
    hidden: usize,
    /// Attempts of each version or digest before the first one here.
    ordinals: BTreeMap<(&'static str, String), u32>,
}

impl Fold {
    /// A target of which nothing is known.
    pub(super) fn new(target: Target) -> Fold {
        Fold {
            target,
            attempts: Vec::new(),
            newest_begun: None,
            running: None,
            held: Vec::new(),
            hidden: 0,
            ordinals: BTreeMap::new(),
        }
    }

    /// What the target runs, as far as events say.
    pub(super) fn running(&self) -> Option<&Artifact> {
        self.running.as_ref()
    }

    /// Reads the next event; events have to come in the order of [`sorted`].
    pub(super) fn apply(&mut self, event: &Event) {
        match event.kind {
            EventKind::ArtifactPublished => {}
            EventKind::ManualChange
            | EventKind::AlertFired
            | EventKind::AlertResolved
            | EventKind::IncidentOpened
            | EventKind::IncidentResolved => self.note(event),
            _ => {
                if let Some(n) = self.find(event).or_else(|| self.open(event)) {
                    self.tell(n, event);
                }
            }
        }
    }

    fn newest(&self) -> Option<usize> {
        self.newest_begun
            .or_else(|| self.attempts.len().checked_sub(1))
    }

    /// The attempt that the event belongs to.
    fn find(&self, event: &Event) -> Option<usize> {
        if event.kind == EventKind::RolledBack {
            return self.find_rolled_back(event);
        }
        let by_name = event.deployment.as_deref().and_then(|name| {
            let n = self.last(event, &|a| a.has_name(name) && a.fits(event))?;
            self.attempts.get(n).filter(|a| !a.is_retried_by(event))?;
            Some(n)
        });
        if by_name.is_some() {
            return by_name;
        }
        let n = self.last(event, &|attempt| {
            attempt.fits(event) && attempt.is_open_to_name(event) && attempt.is_joined_by(event)
        })?;
        // What was only observed is not taken over any more once something else has begun.
        let is_taken_over = self.attempts.get(n)?.is_taken_over_by(event);
        (!is_taken_over || self.newest() == Some(n)).then_some(n)
    }

    /// The last attempt that passes the test and can take the event at its time.
    fn last(&self, event: &Event, test: &dyn Fn(&Attempt) -> bool) -> Option<usize> {
        let newest = self.newest();
        let mut attempts = self.attempts.iter().enumerate().rev();
        let found = attempts.find(|(n, attempt)| {
            let is_over = !attempt.phase.is_active() && newest != Some(*n);
            let is_too_late = is_over && event.time_ms > attempt.last_ms + MEMORY_MS;
            !is_too_late && test(attempt)
        });
        found.map(|(n, _)| n)
    }

    /// The attempt that a rollback undoes: a rollback may name it, or what is back.
    fn find_rolled_back(&self, event: &Event) -> Option<usize> {
        let last = |test: &dyn Fn(&Attempt) -> bool| self.last(event, test);
        if let Some(name) = event.deployment.as_deref()
            && let Some(n) = last(&|attempt| attempt.has_name(name))
        {
            return Some(n);
        }
        let newest = self.newest()?;
        let attempt = self.attempts.get(newest)?;
        if is_known(&event.artifact) {
            let is_named = |a: &Attempt| a.artifact.is_same(&event.artifact);
            let is_back = |a: &Artifact| a.is_same(&event.artifact);
            return match attempt.rollback_of {
                // The way back is not rolled back by an event that names what is back.
                Some(undone) if is_named(attempt) => Some(undone),
                Some(undone) if self.attempts.get(undone).is_some_and(is_named) => Some(undone),
                _ if is_named(attempt) => Some(newest),
                _ if attempt.previous.as_ref().is_some_and(is_back) => Some(newest),
                _ => last(&is_named),
            };
        }
        if let Some(back) = &event.previous {
            return last(&|a| a.has_begun && !a.artifact.is_same(back));
        }
        Some(attempt.rollback_of.unwrap_or(newest))
    }

    /// Opens an attempt for an event that fits none, unless it does not say of what.
    fn open(&mut self, event: &Event) -> Option<usize> {
        if !is_known(&event.artifact) {
            return None;
        }
        self.attempts.push(Attempt {
            artifact: Artifact::default(),
            previous: self.running.clone(),
            previous_was_said: false,
            phase: Phase::Pending,
            announced: false,
            correlations: Vec::new(),
            created_ms: event.time_ms,
            started_ms: None,
            finished_ms: None,
            weight: None,
            steps: Vec::new(),
            rollback_of: None,
            rolled_back_by: None,
            superseded_by: None,
            partial_failures: 0,
            manual_changes: 0,
            first_alert_ms: None,
            actor: None,
            url: None,
            timeline: Vec::new(),
            has_begun: false,
            last_ms: event.time_ms,
            names: None,
        });
        Some(self.attempts.len() - 1)
    }

    /// Reads a deployment event into its attempt.
    fn tell(&mut self, n: usize, event: &Event) {
        self.take_over(n, event);
        let Some(attempt) = self.attempts.get_mut(n) else {
            return;
        };
        attempt.learn(event);
        // What ran here before slogate knew of the target is known from what replaced it only.
        if let Some(previous) = &event.previous
            && !self.has_seen(previous)
        {
            self.hold(previous.clone());
        }
        if event.kind != EventKind::Queued {
            self.begin(n, event.time_ms);
        }
        let Some(attempt) = self.attempts.get_mut(n) else {
            return;
        };
        match event.kind {
            EventKind::Started | EventKind::Resumed | EventKind::Step => {
                attempt.progress(event);
                // A rollout may begin, or go on, right at a step.
                if let Some(step) = event.step {
                    attempt.step(step, event.time_ms);
                }
            }
            EventKind::PartialFailure => {
                attempt.partial_failures = attempt.partial_failures.saturating_add(1);
                attempt.progress(event);
            }
            EventKind::Paused => {
                attempt.progress(event);
                if attempt.phase.is_active() {
                    attempt.phase = Phase::Paused;
                }
            }
            EventKind::Succeeded => self.succeed(n, event.time_ms),
            EventKind::Failed => self.stop(n, Phase::Failed, event.time_ms),
            EventKind::Aborted => self.stop(n, Phase::Aborted, event.time_ms),
            EventKind::RolledBack => self.roll_back(n, event.time_ms),
            _ => {}
        }
    }

    /// Makes an attempt go on that was only observed and is announced now.
    fn take_over(&mut self, n: usize, event: &Event) {
        let Some(attempt) = self
            .attempts
            .get_mut(n)
            .filter(|a| a.is_taken_over_by(event))
        else {
            return;
        };
        attempt.phase = Phase::Pending;
        attempt.finished_ms = None;
        attempt.weight = None;
        let (artifact, previous) = (attempt.artifact.clone(), attempt.previous.clone());
        self.held.retain(|held| !held.is_same(&artifact));
        if self.running.as_ref().is_some_and(|r| r.is_same(&artifact)) {
            self.running = previous;
        }
    }

    /// The first event of an attempt that is more than a wish: settles what it replaces, what it
    /// undoes and what it supersedes.
    fn begin(&mut self, n: usize, at_ms: i64) {
        let running = self.running.clone();
        let Some(attempt) = self.attempts.get_mut(n).filter(|a| !a.has_begun) else {
            return;
        };
        attempt.has_begun = true;
        if !attempt.previous_was_said {
            attempt.previous = running;
        }
        let undone = self.undone_by(n, at_ms);
        if let Some(x) = undone {
            if let Some(attempt) = self.attempts.get_mut(n) {
                attempt.rollback_of = Some(x);
            }
            if let Some(attempt) = self.attempts.get_mut(x) {
                attempt.rolled_back_by = Some(n);
            }
        }
        for (other, attempt) in self.attempts.iter_mut().enumerate() {
            let is_older = attempt.has_begun || other < n;
            if other == n || !attempt.phase.is_active() || !is_older {
                continue;
            }
            attempt.finished_ms = Some(at_ms);
            if undone == Some(other) {
                attempt.phase = Phase::Aborted;
            } else {
                attempt.phase = Phase::Superseded;
                attempt.superseded_by = Some(n);
            }
        }
        self.newest_begun = Some(n);
    }

    /// The attempt that attempt `n` undoes by shipping what ran here before.
    fn undone_by(&self, n: usize, at_ms: i64) -> Option<usize> {
        let attempt = self.attempts.get(n)?;
        let x = self.newest_begun?;
        let newest = self.attempts.get(x)?;
        if newest.artifact.is_same(&attempt.artifact) {
            // A second try at the way back, after the first one failed.
            let undone = newest
                .rollback_of
                .and_then(|x| Some((x, self.attempts.get(x)?)));
            return undone
                .filter(|(_, undone)| undone.phase != Phase::RolledBack)
                .map(|(x, _)| x);
        }
        let is_recent = newest.phase != Phase::RolledBack
            || at_ms <= newest.finished_ms.unwrap_or(at_ms) + WITNESS_GAP_MS;
        let ran_before = self.held.iter().any(|a| a.is_same(&attempt.artifact));
        (is_recent && ran_before).then_some(x)
    }

    fn succeed(&mut self, n: usize, at_ms: i64) {
        let newer_runs = self.newest_begun.is_some_and(|newest| {
            newest != n && self.attempts.get(newest).map(|a| a.phase) == Some(Phase::Succeeded)
        });
        let Some(attempt) = self.attempts.get_mut(n) else {
            return;
        };
        if matches!(attempt.phase, Phase::Succeeded | Phase::RolledBack) {
            return;
        }
        attempt.end(Phase::Succeeded, at_ms);
        attempt.weight = Some(100.0);
        let (artifact, undone) = (attempt.artifact.clone(), attempt.rollback_of);
        if !newer_runs {
            self.running = Some(artifact.clone());
        }
        self.hold(artifact);
        if let Some(x) = undone {
            self.undo(x, at_ms);
        }
    }

    fn stop(&mut self, n: usize, phase: Phase, at_ms: i64) {
        let Some(attempt) = self.attempts.get_mut(n) else {
            return;
        };
        if attempt.phase == Phase::RolledBack || attempt.phase == phase {
            return;
        }
        let had_succeeded = attempt.phase == Phase::Succeeded;
        attempt.end(phase, at_ms);
        if phase == Phase::Failed {
            attempt.weight = Some(0.0);
        }
        if had_succeeded {
            let (artifact, previous) = (attempt.artifact.clone(), attempt.previous.clone());
            self.held.retain(|held| !held.is_same(&artifact));
            if self.running.as_ref().is_some_and(|r| r.is_same(&artifact)) {
                self.running = previous;
            }
        }
    }

    /// An event says that traffic is back on what attempt `n` had replaced.
    fn roll_back(&mut self, n: usize, at_ms: i64) {
        let Some(attempt) = self.attempts.get(n) else {
            return;
        };
        if attempt.phase == Phase::RolledBack {
            return;
        }
        let is_last_word =
            self.newest_begun == Some(n) || self.newest_begun == attempt.rolled_back_by;
        let previous = attempt.previous.clone();
        self.undo(n, at_ms);
        if is_last_word {
            self.running = previous;
        }
    }

    fn undo(&mut self, n: usize, at_ms: i64) {
        let Some(attempt) = self.attempts.get_mut(n) else {
            return;
        };
        if attempt.phase != Phase::RolledBack {
            attempt.end(Phase::RolledBack, at_ms);
            attempt.weight = Some(0.0);
            let artifact = attempt.artifact.clone();
            self.held.retain(|held| !held.is_same(&artifact));
        }
    }

    /// Whether the artifact's version or digest was ever shipped here.
    fn has_seen(&self, artifact: &Artifact) -> bool {
        keys(artifact).iter().any(|key| {
            let shown = self
                .attempts
                .iter()
                .any(|a| keys(&a.artifact).contains(key));
            shown || self.ordinals.contains_key(key)
        })
    }

    fn hold(&mut self, artifact: Artifact) {
        self.held.retain(|held| !held.is_same(&artifact));
        self.held.push(artifact);
        if self.held.len() > HELD_MAX {
            self.held.remove(0);
        }
    }

    /// Reads an alert, incident or manual change.
    fn note(&mut self, event: &Event) {
        let Some(attempt) = self.newest().and_then(|n| self.attempts.get_mut(n)) else {
            return;
        };
        attempt.timeline.push(event_ref(event));
        match event.kind {
            EventKind::ManualChange => {
                attempt.manual_changes = attempt.manual_changes.saturating_add(1);
            }
            EventKind::AlertFired | EventKind::IncidentOpened => {
                attempt.first_alert_ms.get_or_insert(event.time_ms);
            }
            _ => {}
        }
    }

    /// The deployments so far, in the order of their first events.
    pub(super) fn deployments(&self) -> Vec<Folded> {
        let names = self.names();
        let id = |n: Option<usize>| n.and_then(|n| names.get(n)?.first().cloned());
        let shown = self.attempts.iter().zip(&names).skip(self.hidden);
        let folded = shown.map(|(attempt, names)| {
            let deployment = Deployment {
                id: names
                    .first()
                    .cloned()
                    .unwrap_or(DeploymentId(String::new())),
                target: self.target.clone(),
                artifact: attempt.artifact.clone(),
                previous: attempt.previous.clone(),
                phase: attempt.phase,
                origin: match attempt.announced {
                    true => Origin::Announced,
                    false => Origin::Observed,
                },
                correlation: attempt.correlations.first().map(|(_, name)| name.clone()),
                created_ms: attempt.created_ms,
                started_ms: attempt.started_ms,
                finished_ms: attempt.finished_ms,
                weight: attempt.weight,
                steps: attempt.steps.clone(),
                rollback_of: id(attempt.rollback_of),
                rolled_back_by: id(attempt.rolled_back_by),
                superseded_by: id(attempt.superseded_by),
                partial_failures: attempt.partial_failures,
                manual_changes: attempt.manual_changes,
                first_alert_ms: attempt.first_alert_ms,
                actor: attempt.actor.clone(),
                url: attempt.url.clone(),
                timeline: attempt.timeline.clone(),
            };
            Folded {
                deployment,
                names: names.clone(),
            }
        });
        folded.collect()
    }

    /// Forgets the attempts so far, save what they mean for those to come: the one that began
    /// last, no longer shown, what ran, and how many there were.
    pub(super) fn forget(mut self) -> Fold {
        let names = self.names();
        for attempt in self
            .attempts
            .iter()
            .filter(|attempt| attempt.names.is_none())
        {
            for (sort, key) in keys(&attempt.artifact) {
                *self.ordinals.entry((sort, key)).or_default() += 1;
            }
        }
        let last = self.newest_begun.and_then(|n| {
            let attempt = self.attempts.get(n)?.clone();
            Some(Attempt {
                names: names.get(n).cloned(),
                rollback_of: None,
                rolled_back_by: None,
                superseded_by: None,
                timeline: Vec::new(),
                steps: Vec::new(),
                ..attempt
            })
        });
        self.attempts = last.into_iter().collect();
        self.hidden = self.attempts.len();
        self.newest_begun = self.hidden.checked_sub(1);
        self
    }

    /// Every attempt's names, its id first.
    fn names(&self) -> Vec<Vec<DeploymentId>> {
        let mut ordinals = self.ordinals.clone();
        let mut names = Vec::with_capacity(self.attempts.len());
        for attempt in &self.attempts {
            if let Some(known) = &attempt.names {
                names.push(known.clone());
                continue;
            }
            let mut mine = Vec::with_capacity(2);
            for (sort, key) in keys(&attempt.artifact) {
                let ordinal = ordinals.entry((sort, key.clone())).or_default();
                *ordinal += 1;
                mine.push(name(&self.target, sort, &key, *ordinal));
            }
            names.push(mine);
        }
        names
    }
}
