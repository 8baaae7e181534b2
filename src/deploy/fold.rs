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

use std::collections::BTreeMap;

use crate::ledger::Hash;
use crate::model::{
    Artifact, Deployment, DeploymentId, Event, EventKind, EventRef, Origin, Phase, StepChange,
    Target,
};

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

#[derive(Clone, Debug)]
struct Attempt {
    artifact: Artifact,
    previous: Option<Artifact>,
    previous_was_said: bool,
    phase: Phase,
    announced: bool,
    /// (source, the source's name for it), in the order given.
    correlations: Vec<(String, String)>,
    created_ms: i64,
    started_ms: Option<i64>,
    finished_ms: Option<i64>,
    weight: Option<f64>,
    steps: Vec<StepChange>,
    rollback_of: Option<usize>,
    rolled_back_by: Option<usize>,
    superseded_by: Option<usize>,
    partial_failures: u32,
    manual_changes: u32,
    first_alert_ms: Option<i64>,
    actor: Option<String>,
    url: Option<String>,
    timeline: Vec<EventRef>,
    has_begun: bool,
    last_ms: i64,
    /// Its names, once those that came before it are forgotten.
    names: Option<Vec<DeploymentId>>,
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
            EventKind::Started | EventKind::Resumed => attempt.progress(event),
            EventKind::Step => {
                attempt.progress(event);
                attempt.step(event);
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

impl Attempt {
    fn has_name(&self, name: &str) -> bool {
        self.correlations.iter().any(|(_, known)| known == name)
    }

    /// Whether the event can be about this attempt's artifact.
    fn fits(&self, event: &Event) -> bool {
        !is_known(&event.artifact) || self.artifact.is_same(&event.artifact)
    }

    /// Whether the event has no name, or a name from a sender that has not named this attempt.
    fn is_open_to_name(&self, event: &Event) -> bool {
        event.deployment.is_none()
            || !self
                .correlations
                .iter()
                .any(|(source, _)| *source == event.source)
    }

    /// Whether the event starts over what was over under the same name.
    fn is_retried_by(&self, event: &Event) -> bool {
        let has_stopped = matches!(
            self.phase,
            Phase::Failed | Phase::Aborted | Phase::RolledBack
        );
        let is_long_over = !self.phase.is_active() && event.time_ms > self.last_ms + WITNESS_GAP_MS;
        matches!(event.kind, EventKind::Queued | EventKind::Started)
            && (has_stopped || is_long_over)
    }

    /// Whether an event that fits and has no name here is about this attempt.
    fn is_joined_by(&self, event: &Event) -> bool {
        if self.phase.is_active() {
            return true;
        }
        match event.kind {
            EventKind::Queued | EventKind::Started => self.is_taken_over_by(event),
            EventKind::Succeeded if event.source == OBSERVER => self.phase == Phase::Succeeded,
            _ if !is_known(&event.artifact) => true,
            _ => event.time_ms <= self.last_ms + WITNESS_GAP_MS,
        }
    }

    /// Whether the event announces what was only observed.
    fn is_taken_over_by(&self, event: &Event) -> bool {
        !self.announced
            && self.phase == Phase::Succeeded
            && event.source != OBSERVER
            && matches!(event.kind, EventKind::Queued | EventKind::Started)
            && event.time_ms <= self.last_ms + WITNESS_GAP_MS
    }

    /// Takes over what the event says beside its kind.
    fn learn(&mut self, event: &Event) {
        let names_what_is_back = event.kind == EventKind::RolledBack
            && is_known(&self.artifact)
            && is_known(&event.artifact)
            && !self.artifact.is_same(&event.artifact);
        let mut previous = event.previous.clone();
        if names_what_is_back {
            previous = previous.or_else(|| Some(event.artifact.clone()));
        } else {
            self.artifact.merge(&event.artifact);
        }
        if let Some(previous) = previous {
            match self
                .previous
                .as_mut()
                .filter(|known| known.is_same(&previous))
            {
                Some(known) => known.merge(&previous),
                None if !self.previous_was_said => self.previous = Some(previous),
                None => {}
            }
            self.previous_was_said = true;
        }
        if let Some(name) = &event.deployment
            && !self.has_name(name)
        {
            self.correlations.push((event.source.clone(), name.clone()));
        }
        if self.actor.is_none() {
            self.actor.clone_from(&event.actor);
        }
        if self.url.is_none() {
            self.url.clone_from(&event.url);
        }
        self.announced |= event.source != OBSERVER;
        self.timeline.push(event_ref(event));
        self.last_ms = self.last_ms.max(event.time_ms);
    }

    fn progress(&mut self, event: &Event) {
        self.started_ms.get_or_insert(event.time_ms);
        if self.phase.is_active() {
            self.phase = Phase::Progressing;
        }
    }

    fn step(&mut self, event: &Event) {
        let step = event.step.unwrap_or_default();
        self.steps.push(StepChange {
            at_ms: event.time_ms,
            step,
        });
        if self.phase.is_active() && step.weight.is_some() {
            self.weight = step.weight;
        }
    }

    fn end(&mut self, phase: Phase, at_ms: i64) {
        self.phase = phase;
        self.finished_ms = Some(at_ms);
    }
}

/// What a deployment's names are made of, the best first.
fn keys(artifact: &Artifact) -> Vec<(&'static str, String)> {
    let version = artifact.version.clone().map(|v| ("version", v));
    let digest = artifact.digest.as_ref();
    let digest = digest.map(|d| ("digest", d.as_str().to_owned()));
    version.into_iter().chain(digest).collect()
}

fn is_known(artifact: &Artifact) -> bool {
    artifact.digest.is_some() || artifact.version.is_some()
}

fn event_ref(event: &Event) -> EventRef {
    EventRef {
        source: event.source.clone(),
        id: event.id.clone(),
        kind: event.kind,
        time_ms: event.time_ms,
        reason: event.reason.clone(),
        actor: event.actor.clone(),
    }
}

/// A deployment's name, for example `checkout-4.2.0-1f9c3a07`.
fn name(target: &Target, sort: &str, key: &str, ordinal: u32) -> DeploymentId {
    let identity = serde_json::json!([
        target.service,
        target.environment,
        target.region,
        sort,
        key,
        ordinal
    ]);
    let hash = Hash::of(identity.to_string().as_bytes()).to_string();
    // Of a digest, the algorithm says nothing and twelve digits say enough.
    let label = match sort {
        "digest" => key.split(':').next_back().unwrap_or(key).get(..12),
        _ => None,
    };
    let hash = hash.get(..8).unwrap_or(&hash);
    DeploymentId(format!(
        "{}-{}-{hash}",
        slug(&target.service),
        slug(label.unwrap_or(key))
    ))
}

/// Text as a part of a URL's path.
fn slug(text: &str) -> String {
    let keep = |c: char| match c {
        'a'..='z' | '0'..='9' | '.' | '_' | '-' => c,
        'A'..='Z' => c.to_ascii_lowercase(),
        _ => '-',
    };
    text.chars().take(40).map(keep).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::EventKind::{
        Aborted, AlertFired, Failed, IncidentOpened, ManualChange, PartialFailure, Paused, Queued,
        Resumed, RolledBack, Started, Step, Succeeded,
    };
    use super::*;
    use crate::deploy::testing::{With as _, event};

    fn folded(events: &[Event]) -> Vec<Deployment> {
        let folded = fold(&Target::new("checkout", "production"), events);
        folded.into_iter().map(|folded| folded.deployment).collect()
    }

    /// Version and phase of each deployment.
    fn story(events: &[Event]) -> Vec<(String, Phase)> {
        let tell = |d: Deployment| (d.artifact.version.unwrap_or_default(), d.phase);
        folded(events).into_iter().map(tell).collect()
    }

    fn told(expected: &[(&str, Phase)]) -> Vec<(String, Phase)> {
        let own = |(version, phase): &(&str, Phase)| ((*version).to_owned(), *phase);
        expected.iter().map(own).collect()
    }

    #[test]
    fn a_canary_goes_through_its_life() {
        let all = [
            event(Queued, "2", 0).replacing("1"),
            event(Started, "2", 1),
            event(Step, "2", 2).weight(10.0),
            event(PartialFailure, "2", 3),
            event(Paused, "2", 4),
            event(Resumed, "2", 5),
            event(Step, "2", 6).weight(50.0),
            event(Succeeded, "2", 7),
        ];
        let phases = [
            Phase::Pending,
            Phase::Progressing,
            Phase::Progressing,
            Phase::Progressing,
            Phase::Paused,
            Phase::Progressing,
            Phase::Progressing,
            Phase::Succeeded,
        ];
        for (n, phase) in phases.into_iter().enumerate() {
            let so_far = folded(&all[..=n]);
            assert_eq!(so_far.len(), 1);
            assert_eq!(so_far[0].phase, phase, "after {n}");
        }
        let done = &folded(&all)[0];
        assert_eq!((done.created_ms, done.started_ms), (0, Some(60_000)));
        assert_eq!(done.finished_ms, Some(420_000));
        assert_eq!((done.weight, done.steps.len()), (Some(100.0), 2));
        assert_eq!(done.partial_failures, 1);
        assert_eq!(done.previous, Some(Artifact::of_version("1")));
        assert_eq!(done.timeline.len(), 8);
        assert!(done.id.0.starts_with("checkout-2-"), "{}", done.id);
    }

    #[test]
    fn what_it_replaces_is_what_ran() {
        let all = [
            event(Succeeded, "1", 0),
            event(Started, "2", 60),
            event(Failed, "2", 61),
            event(Started, "3", 120),
        ];
        let deployments = folded(&all);
        assert_eq!(deployments[0].previous, None);
        assert_eq!(
            deployments[0].started_ms, None,
            "only its end was announced"
        );
        assert_eq!(deployments[1].previous, Some(Artifact::of_version("1")));
        assert_eq!(deployments[2].previous, Some(Artifact::of_version("1")));
    }

    /// The start is stamped by a slower pipeline, after the controller's first step.
    #[test]
    fn a_start_that_comes_after_a_step_is_of_the_same_attempt() {
        let all = [
            event(Step, "2", 5).weight(10.0).of("controller"),
            event(Started, "2", 6),
            event(Succeeded, "2", 9),
        ];
        assert_eq!(story(&all), told(&[("2", Phase::Succeeded)]));
        assert_eq!(folded(&all)[0].started_ms, Some(300_000));
    }

    #[test]
    fn the_same_artifact_again_is_a_new_attempt() {
        let all = [
            event(Started, "2", 0),
            event(Succeeded, "2", 5),
            event(Started, "2", 600),
            event(Succeeded, "2", 605),
        ];
        let deployments = folded(&all);
        assert_eq!(deployments.len(), 2);
        assert_ne!(deployments[0].id, deployments[1].id);
        assert_eq!(deployments[1].rollback_of, None);
    }

    #[test]
    fn two_witnesses_of_an_end_are_one_end() {
        let all = [
            event(Started, "2", 0),
            event(Succeeded, "2", 5),
            event(Succeeded, "2", 6).of("cluster"),
        ];
        assert_eq!(story(&all), told(&[("2", Phase::Succeeded)]));
        assert_eq!(folded(&all)[0].finished_ms, Some(300_000));
        let later = event(Succeeded, "2", 60).of("cluster");
        let all = [&all[..], &[later]].concat();
        assert_eq!(
            folded(&all).len(),
            2,
            "an hour later it is another deployment"
        );
    }

    #[test]
    fn a_name_ties_events_together_and_a_retry_is_a_new_attempt() {
        let all = [
            event(Started, "2", 0).named("run-7"),
            event(Failed, "", 5).named("run-7"),
            event(Started, "2", 8).named("run-7"),
            event(Succeeded, "", 900).named("run-7"),
        ];
        let expected = told(&[("2", Phase::Failed), ("2", Phase::Succeeded)]);
        assert_eq!(story(&all), expected);
        // Under one name, a start after the success is a clock that runs behind.
        let skewed = [
            event(Succeeded, "2", 5).named("run-7"),
            event(Started, "2", 6).named("run-7"),
        ];
        assert_eq!(story(&skewed), told(&[("2", Phase::Succeeded)]));
    }

    #[test]
    fn two_senders_may_name_one_attempt() {
        let all = [
            event(Started, "2", 0).named("run-7"),
            event(Step, "2", 1).weight(20.0).of("argo").named("rev-3"),
            event(Succeeded, "", 4).of("argo").named("rev-3"),
        ];
        assert_eq!(story(&all), told(&[("2", Phase::Succeeded)]));
        assert_eq!(folded(&all)[0].correlation.as_deref(), Some("run-7"));
        // One sender with two names means two attempts.
        let two = [
            event(Started, "2", 0).named("run-7"),
            event(Started, "2", 1).named("run-8"),
        ];
        let expected = told(&[("2", Phase::Superseded), ("2", Phase::Progressing)]);
        assert_eq!(story(&two), expected);
    }

    #[test]
    fn the_next_one_supersedes_and_the_sender_still_has_the_last_word() {
        let mut all = vec![
            event(Succeeded, "1", 0),
            event(Started, "2", 60),
            event(Queued, "3", 61),
        ];
        assert_eq!(
            folded(&all)[1].phase,
            Phase::Progressing,
            "queued supersedes nothing"
        );
        all.push(event(Started, "3", 62));
        let deployments = folded(&all);
        assert_eq!(deployments[1].phase, Phase::Superseded);
        assert_eq!(
            deployments[1].superseded_by.as_ref(),
            Some(&deployments[2].id)
        );
        assert_eq!(deployments[1].finished_ms, Some(62 * 60_000));
        all.push(event(Aborted, "2", 63));
        assert_eq!(folded(&all)[1].phase, Phase::Aborted);
        assert_eq!(folded(&all)[2].phase, Phase::Progressing);
    }

    #[test]
    fn succeeded_then_rolled_back_and_aborted_then_rolled_back() {
        for first in [Succeeded, Aborted, Failed] {
            let all = [
                event(Succeeded, "1", 0),
                event(Started, "2", 60),
                event(first, "2", 65),
                event(RolledBack, "2", 70),
                event(Started, "3", 600),
            ];
            let deployments = folded(&all);
            assert_eq!(deployments[1].phase, Phase::RolledBack, "{first:?}");
            assert_eq!(deployments[1].finished_ms, Some(70 * 60_000));
            assert_eq!(deployments[1].weight, Some(0.0));
            assert_eq!(deployments[2].previous, Some(Artifact::of_version("1")));
        }
    }

    #[test]
    fn a_rollback_may_name_what_is_back_or_nothing() {
        let rollbacks = [
            event(RolledBack, "2", 70),
            event(RolledBack, "1", 70),
            event(RolledBack, "", 70),
            event(RolledBack, "", 70).replacing("1"),
        ];
        for rollback in rollbacks {
            let all = [
                event(Succeeded, "1", 0),
                event(Started, "2", 60),
                event(Succeeded, "2", 65),
                rollback,
            ];
            let expected = told(&[("1", Phase::Succeeded), ("2", Phase::RolledBack)]);
            assert_eq!(story(&all), expected);
            assert_eq!(folded(&all)[1].previous, Some(Artifact::of_version("1")));
        }
    }

    /// "Silent manual fixes not counted": the old artifact shipped again, and nobody says that
    /// it is a rollback.
    #[test]
    fn shipping_the_old_artifact_again_is_a_rollback() {
        for ended in [None, Some(Failed), Some(Succeeded), Some(Aborted)] {
            let mut all = vec![event(Succeeded, "1", 0), event(Started, "2", 60)];
            all.extend(ended.map(|kind| event(kind, "2", 65)));
            all.push(event(AlertFired, "", 66));
            all.push(event(Started, "1", 70));
            let under_way = folded(&all);
            assert_ne!(
                under_way[1].phase,
                Phase::RolledBack,
                "traffic is not back yet"
            );
            assert!(!under_way[1].phase.is_active());
            all.push(event(Succeeded, "1", 75));
            let [_, bad, back] = &folded(&all)[..] else {
                panic!("three deployments");
            };
            assert_eq!(bad.phase, Phase::RolledBack, "{ended:?}");
            assert_eq!(bad.finished_ms, Some(75 * 60_000));
            assert_eq!(bad.first_alert_ms, Some(66 * 60_000));
            assert_eq!(bad.rolled_back_by.as_ref(), Some(&back.id));
            assert_eq!(back.rollback_of.as_ref(), Some(&bad.id));
            assert_eq!(back.phase, Phase::Succeeded);
        }
    }

    #[test]
    fn a_rollback_that_is_announced_and_shipped_is_one_rollback() {
        let all = [
            event(Succeeded, "1", 0),
            event(Started, "2", 60),
            event(Succeeded, "2", 65),
            event(Started, "1", 70),
            event(RolledBack, "2", 74),
            event(Succeeded, "1", 75),
        ];
        let deployments = folded(&all);
        let expected = told(&[
            ("1", Phase::Succeeded),
            ("2", Phase::RolledBack),
            ("1", Phase::Succeeded),
        ]);
        assert_eq!(story(&all), expected);
        assert_eq!(deployments[1].finished_ms, Some(74 * 60_000));
        assert_eq!(
            deployments[2].rollback_of.as_ref(),
            Some(&deployments[1].id)
        );
    }

    #[test]
    fn a_version_before_slogate_knew_the_target_counts_as_having_run() {
        let all = [
            event(Started, "2", 0).replacing("1"),
            event(Started, "1", 5),
            event(Succeeded, "1", 6),
        ];
        let expected = told(&[("2", Phase::RolledBack), ("1", Phase::Succeeded)]);
        assert_eq!(story(&all), expected);
    }

    #[test]
    fn what_was_rolled_back_goes_forward_when_it_is_shipped_again() {
        let all = [
            event(Succeeded, "1", 0),
            event(Succeeded, "2", 60),
            event(RolledBack, "2", 70),
            event(Started, "1", 600),
            event(Succeeded, "1", 601),
            event(Started, "2", 700),
        ];
        let deployments = folded(&all);
        assert_eq!(
            deployments[2].rollback_of, None,
            "an ordinary deployment, hours later"
        );
        assert_eq!(deployments[3].rollback_of, None);
        assert_eq!(deployments[2].phase, Phase::Succeeded);
    }

    #[test]
    fn a_way_back_that_fails_is_tried_again() {
        let all = [
            event(Succeeded, "1", 0),
            event(Succeeded, "2", 60),
            event(Started, "1", 70),
            event(Failed, "1", 71),
            event(Started, "1", 90),
            event(Succeeded, "1", 91),
        ];
        let deployments = folded(&all);
        assert_eq!(deployments[1].phase, Phase::RolledBack);
        assert_eq!(deployments[1].finished_ms, Some(91 * 60_000));
        assert_eq!(
            deployments[1].rolled_back_by.as_ref(),
            Some(&deployments[3].id)
        );
    }

    #[test]
    fn alerts_and_hand_made_changes_belong_to_the_newest() {
        let all = [
            event(AlertFired, "", 0),
            event(Succeeded, "1", 10),
            event(ManualChange, "", 20),
            event(Started, "2", 60),
            event(AlertFired, "", 61),
            event(IncidentOpened, "", 62),
        ];
        let deployments = folded(&all);
        assert_eq!(deployments[0].first_alert_ms, None);
        assert_eq!(deployments[0].manual_changes, 1);
        assert_eq!(deployments[1].first_alert_ms, Some(61 * 60_000));
        assert_eq!(deployments[1].timeline.len(), 3);
    }

    #[test]
    fn what_names_neither_artifact_nor_deployment_opens_nothing() {
        assert_eq!(
            folded(&[event(Failed, "", 0), event(RolledBack, "", 1)]),
            []
        );
    }

    #[test]
    fn one_label_on_two_digests_is_two_artifacts() {
        let all = [
            event(Succeeded, "2", 0).digest("a"),
            event(Started, "2", 5).digest("b"),
        ];
        let deployments = folded(&all);
        assert_eq!(deployments.len(), 2);
        assert_ne!(deployments[0].id, deployments[1].id);
    }

    #[test]
    fn an_attempt_keeps_its_name_when_its_earlier_events_come_late() {
        let late = [event(Step, "2", 3).weight(5.0), event(Succeeded, "2", 5)];
        let early = [event(Queued, "2", 0), event(Started, "2", 1)];
        let id = folded(&late)[0].id.clone();
        assert_eq!(folded(&[&late[..], &early].concat())[0].id, id);
        // Known by its digest only at first, it still answers to the name of that time.
        let by_digest = [event(Started, "", 0).digest("a").named("r")];
        let old = folded(&by_digest)[0].id.clone();
        let and_version = [event(Succeeded, "2", 5).digest("a").named("r")];
        let target = Target::new("checkout", "production");
        let now = fold(&target, &[&by_digest[..], &and_version].concat());
        assert_eq!(now.len(), 1);
        assert!(now[0].deployment.id.0.starts_with("checkout-2-"));
        assert!(now[0].names.contains(&old));
    }

    pub(crate) fn any_events() -> impl Strategy<Value = Vec<Event>> {
        let kind = prop::sample::select(EventKind::ALL.to_vec());
        let version = prop::sample::select(vec!["", "1", "2", "3"]);
        let name = prop::sample::select(vec!["", "", "run-1", "run-2"]);
        let source = prop::sample::select(vec!["ci", "argo", OBSERVER]);
        let one = (kind, version, 0i64..40, name, source, any::<bool>());
        let event = one.prop_map(|(kind, version, minute, name, source, says_previous)| {
            let mut event = event(kind, version, minute).of(source);
            if !name.is_empty() {
                event = event.named(name);
            }
            if says_previous {
                event = event.replacing("1");
            }
            event.id = format!("{}{name}{says_previous}", event.id);
            event
        });
        prop::collection::vec(event, 0..30)
    }

    proptest! {
        /// The order of arrival and duplicates do not matter.
        #[test]
        fn any_permutation_and_duplication_gives_the_same(
            events in any_events(),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
            seed in any::<u64>(),
        ) {
            let expected = folded(&events);
            let mut other = events.clone();
            if !events.is_empty() {
                other.extend(picks.iter().map(|pick| pick.get(&events).clone()));
            }
            let mut state = seed;
            for n in (1..other.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                other.swap(n, (state >> 33) as usize % (n + 1));
            }
            prop_assert_eq!(folded(&other), expected);
        }

        /// What must hold of every deployment, whatever was sent.
        #[test]
        fn deployments_are_sound(events in any_events()) {
            let deployments = folded(&events);
            let ids: std::collections::BTreeSet<_> = deployments.iter().map(|d| &d.id).collect();
            prop_assert_eq!(ids.len(), deployments.len(), "names are unique");
            let begun = deployments.iter().filter(|d| {
                matches!(d.phase, Phase::Progressing | Phase::Paused)
            });
            prop_assert!(begun.count() <= 1, "one at a time");
            for d in &deployments {
                prop_assert_eq!(d.finished_ms.is_none(), d.phase.is_active());
                prop_assert!(d.started_ms.is_none_or(|started| started >= d.created_ms));
                prop_assert!(d.finished_ms.is_none_or(|end| end >= d.created_ms));
                let links = [&d.rollback_of, &d.rolled_back_by, &d.superseded_by];
                for link in links.into_iter().flatten() {
                    prop_assert!(ids.contains(link) && *link != d.id);
                }
            }
        }
    }
}
