//! Judges every active deployment, again and again, and remembers the newest answers.
//!
//! The watcher is the judge's driver: it owns the clock and the table of standing verdicts
//! that gate requests read. Rules:
//!
//! - A deployment is judged by every gate that matches its target, on every interval and at
//!   once when it changes; once more after it ended, so that its last verdict is final.
//! - A verdict is written to the ledger when the answer, its reason or any check's answer
//!   changes, not on every look. It is published only after it is written: an answer that
//!   the ledger does not know is never given.
//! - `since` is carried over while the answer stays the same.
//! - A look asks the source for what is new since the last one; what was gathered and concluded
//!   before is kept. A verdict that is written down is judged from scratch before, so that the
//!   ledger holds nothing that judging the same data would not give again.
//! - A look takes as long as its source does, and holds up no other: each deployment is looked
//!   at by itself, at most [`PARALLEL`] at a time per source. While one look at a deployment by a
//!   gate goes on no second one begins; what changed in the meantime is looked at after it.
//! - Where the watcher itself falls behind, a pass that is not final is not repeated: after
//!   five intervals without a new look the answer is inconclusive (`stale`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::Subject;
use super::answer::{GateAnswer, GateError, GateQuery, GateSummary};
use super::kept::Kept;
use crate::deploy::Deployments;
use crate::ledger::Ledger;
use crate::model::{Clock, Deployment, DeploymentId, Outcome, Reason, Verdict, time};
use crate::policy::{Gate, PolicySet};
use crate::source::Sources;

/// How many deployments are judged side by side from one source.
const PARALLEL: usize = 4;

/// How many intervals without a look an answer is repeated for.
const STALE_AFTER_INTERVALS: i64 = 5;

/// How long a final answer may be used without asking again, in milliseconds.
const FINAL_EXPIRY_MS: i64 = 3_600_000;

/// The most blocks kept between looks, of all rollouts together: about a gigabyte.
const KEPT_BLOCKS_MAX: usize = 2_500_000;

/// How far back verdicts are remembered after a restart, in milliseconds: 90 days.
const REMEMBERED_MS: i64 = 90 * 86_400_000;

/// How a [`Watcher`] works.
#[derive(Clone, Debug)]
pub struct WatcherOptions {
    /// Time between looks, in milliseconds.
    pub interval_ms: i64,
    /// What links in answers begin with, for example `https://slogate.example.com`.
    pub public_url: String,
}

/// What a [`Watcher`] works with.
pub struct WatcherParts {
    /// The gates.
    pub policies: Arc<PolicySet>,
    /// The deployments.
    pub deployments: Arc<Deployments>,
    /// Where verdicts are written.
    pub ledger: Arc<Ledger>,
    /// Where series are asked for.
    pub sources: Sources,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How to work.
    pub options: WatcherOptions,
}

/// Keeps the newest verdict of every gate on every deployment.
pub struct Watcher {
    parts: WatcherParts,
    table: RwLock<HashMap<Key, Standing>>,
    changed: watch::Sender<u64>,
    /// What is being looked at.
    looks: Mutex<HashSet<Key>>,
    /// Counts looks that ended.
    ended: watch::Sender<u64>,
    /// Looks at a time, for each source.
    turns: Vec<Semaphore>,
    /// What is kept of each rollout between looks, until it needs none.
    rollouts: Mutex<HashMap<DeploymentId, Arc<Rollout>>>,
    /// The blocks kept of all of them.
    kept_blocks: Arc<AtomicUsize>,
}

/// What is kept of one rollout. Its gates take turns, since they share telemetry.
struct Rollout {
    kept: AsyncMutex<Kept>,
    /// How many blocks that is.
    blocks: AtomicUsize,
    /// How many blocks that is of all rollouts.
    all_blocks: Arc<AtomicUsize>,
}

impl Rollout {
    fn new(all_blocks: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Rollout {
            kept: AsyncMutex::default(),
            blocks: AtomicUsize::new(0),
            all_blocks,
        })
    }

    /// Forgets what is kept where it does not fit beside that of all others.
    fn make_room(&self, kept: &mut Kept) {
        let before = self.blocks.load(Ordering::Relaxed);
        let others = self.all_blocks.fetch_sub(before, Ordering::Relaxed) - before;
        let blocks = kept.blocks_count();
        let fits = others.saturating_add(blocks) <= KEPT_BLOCKS_MAX;
        if !fits {
            kept.clear();
        }
        let blocks = if fits { blocks } else { 0 };
        self.blocks.store(blocks, Ordering::Relaxed);
        self.all_blocks.fetch_add(blocks, Ordering::Relaxed);
    }
}

impl Drop for Rollout {
    fn drop(&mut self) {
        let blocks = self.blocks.load(Ordering::Relaxed);
        self.all_blocks.fetch_sub(blocks, Ordering::Relaxed);
    }
}

/// A gate's name and a deployment.
type Key = (String, DeploymentId);

/// A deployment that a gate is to look at.
type Due = (Arc<Gate>, Arc<Deployment>);

/// A look that goes on; no other begins until this is dropped.
struct Look<'w> {
    watcher: &'w Watcher,
    key: Key,
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.watcher.looks.lock().remove(&self.key);
        self.watcher.ended.send_modify(|count| *count += 1);
    }
}

/// The newest look, and the name under which the ledger knows the answer.
#[derive(Clone, Debug)]
struct Standing {
    newest: Arc<Verdict>,
    recorded: String,
    /// The deployment as it was judged; none for a verdict from before a restart.
    judged: Option<Arc<Deployment>>,
}

/// Which deployments a round looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// All that are active or were not judged since they ended.
    All,
    /// Of those the ones that changed since they were judged: a flood of events about one
    /// rollout is no reason to look at all the others again and again.
    Changed,
}

impl Watcher {
    /// A watcher that remembers the ledger's newest verdicts.
    pub async fn new(parts: WatcherParts) -> Arc<Watcher> {
        let mut table = HashMap::new();
        let since_ms = parts.clock.now_ms() - REMEMBERED_MS;
        match parts.ledger.latest_verdicts(since_ms).await {
            Ok(verdicts) => {
                for verdict in verdicts {
                    let key = (verdict.gate.clone(), verdict.deployment.clone());
                    let recorded = verdict.id.clone();
                    let newest = Arc::new(verdict);
                    table.insert(
                        key,
                        Standing {
                            newest,
                            recorded,
                            judged: None,
                        },
                    );
                }
            }
            Err(error) => tracing::error!(%error, "earlier verdicts can't be read"),
        }
        let sources = parts.sources.count();
        let turns = (0..sources).map(|_| Semaphore::new(PARALLEL)).collect();
        Arc::new(Watcher {
            parts,
            table: RwLock::new(table),
            changed: watch::Sender::new(0),
            looks: Mutex::default(),
            ended: watch::Sender::new(0),
            turns,
            rollouts: Mutex::default(),
            kept_blocks: Arc::default(),
        })
    }

    /// Judges until `stop`; calls `beat` with the time when all looks have ended, and on each
    /// interval, unless a verdict could not be written.
    pub async fn run(self: Arc<Self>, stop: CancellationToken, beat: impl Fn(i64) + Send) {
        let watcher = self.as_ref();
        let mut deployments_changed = watcher.parts.deployments.changes();
        let interval = Duration::from_millis(watcher.parts.options.interval_ms.max(100) as u64);
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looks: FuturesUnordered<BoxFuture<'_, (bool, Key)>> = FuturesUnordered::new();
        let (mut is_first, mut is_written) = (true, true);
        // What changed while it was being looked at.
        let mut behind: HashSet<Key> = HashSet::new();
        loop {
            let due = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {
                    // Looks that take long are their source's fault, and no reason to restart.
                    if is_written && !is_first {
                        beat(watcher.parts.clock.now_ms());
                    }
                    (is_first, is_written) = (false, true);
                    watcher.due(Scope::All)
                }
                changed = deployments_changed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    watcher.due(Scope::Changed)
                }
                Some((done, key)) = looks.next() => {
                    is_written &= done;
                    let is_behind = behind.remove(&key);
                    is_behind.then(|| watcher.again(&key)).flatten().into_iter().collect()
                }
            };
            for (gate, deployment) in due {
                let key = (gate.name.clone(), deployment.id.clone());
                match watcher.begin(&gate, &deployment) {
                    Some(look) => looks.push(Box::pin(async move {
                        (watcher.judge_one(look, gate, deployment).await, key)
                    })),
                    None => {
                        behind.insert(key);
                    }
                }
            }
            if looks.is_empty() && is_written && !is_first {
                beat(watcher.parts.clock.now_ms());
            }
        }
    }

    /// The deployment of a look that ended, where it has changed since the look began.
    fn again(&self, key: &Key) -> Option<Due> {
        let gate = self.parts.policies.get(&key.0)?.clone();
        let deployment = self.parts.deployments.get(&key.1)?;
        (!self.is_judged(&gate, &deployment)).then_some((gate, deployment))
    }

    /// Judges every deployment that is active, or that ended since its last verdict, and waits
    /// for it. Says whether every verdict could be written.
    pub async fn judge_all(&self) -> bool {
        self.round(Scope::All).await
    }

    async fn round(&self, scope: Scope) -> bool {
        let begun = self
            .due(scope)
            .into_iter()
            .filter_map(|(gate, deployment)| {
                let look = self.begin(&gate, &deployment)?;
                Some(self.judge_one(look, gate, deployment))
            });
        let looks: FuturesUnordered<_> = begun.collect();
        looks
            .fold(true, |all, is_written| async move { all && is_written })
            .await
    }

    /// Judges one deployment now by every gate that matches it; a look that goes on already is
    /// waited for first.
    pub async fn judge_now(&self, id: &DeploymentId) {
        let Some(deployment) = self.parts.deployments.get(id) else {
            return;
        };
        for gate in self.parts.policies.matching(&deployment.target) {
            let mut ended = self.ended.subscribe();
            let look = loop {
                match self.begin(gate, &deployment) {
                    Some(look) => break look,
                    None if ended.changed().await.is_err() => return,
                    None => {}
                }
            };
            self.judge_one(look, gate.clone(), deployment.clone()).await;
        }
    }

    /// Claims a look; `None` while another one goes on.
    fn begin(&self, gate: &Gate, deployment: &Deployment) -> Option<Look<'_>> {
        let key = (gate.name.clone(), deployment.id.clone());
        let is_new = self.looks.lock().insert(key.clone());
        // Lazily: a look that is not begun must not end the one that goes on.
        is_new.then(|| Look { watcher: self, key })
    }

    /// Whether the newest look saw the deployment as it is now.
    fn is_judged(&self, gate: &Gate, deployment: &Arc<Deployment>) -> bool {
        let table = self.table.read();
        let standing = table.get(&(gate.name.clone(), deployment.id.clone()));
        standing.is_some_and(|standing| standing.judged.as_ref() == Some(deployment))
    }

    /// What is kept of a rollout.
    fn rollout(&self, id: &DeploymentId) -> Arc<Rollout> {
        let new = || Rollout::new(self.kept_blocks.clone());
        self.rollouts
            .lock()
            .entry(id.clone())
            .or_insert_with(new)
            .clone()
    }

    fn due(&self, scope: Scope) -> Vec<Due> {
        let mut deployments = self.parts.deployments.active();
        let unfinished: Vec<DeploymentId> = {
            let table = self.table.read();
            let open = table
                .iter()
                .filter(|(_, standing)| !standing.newest.is_final);
            open.map(|((_, id), _)| id.clone()).collect()
        };
        let mut ids: HashSet<DeploymentId> = deployments.iter().map(|one| one.id.clone()).collect();
        for id in unfinished {
            if ids.insert(id.clone()) {
                deployments.extend(self.parts.deployments.get(&id));
            }
        }
        if scope == Scope::All {
            self.rollouts.lock().retain(|id, _| ids.contains(id));
        }
        let mut due = Vec::new();
        for deployment in deployments {
            for gate in self.parts.policies.matching(&deployment.target) {
                if scope == Scope::All || !self.is_judged(gate, &deployment) {
                    due.push((gate.clone(), deployment.clone()));
                }
            }
        }
        due
    }

    /// Judges and publishes; false when the verdict could not be written.
    async fn judge_one(
        &self,
        _look: Look<'_>,
        gate: Arc<Gate>,
        deployment: Arc<Deployment>,
    ) -> bool {
        let rollout = self.rollout(&deployment.id);
        let mut kept = rollout.kept.lock().await;
        let place = self.parts.sources.place_of(&deployment.target);
        let _turn = match self.turns.get(place) {
            // It is never closed, so there is always a turn.
            Some(turns) => turns.acquire().await.ok(),
            None => None,
        };
        let now_ms = self.parts.clock.now_ms();
        let key = (gate.name.clone(), deployment.id.clone());
        let before = self.table.read().get(&key).cloned();
        // Past its deadline and judged so: nothing will change any more.
        if before
            .as_ref()
            .is_some_and(|b| b.newest.is_final && b.newest.policy_hash == gate.hash)
        {
            return true;
        }
        let history = self.parts.deployments.of_target(&deployment.target);
        let subject = Subject {
            deployment,
            history,
        };
        let source = self.parts.sources.of(&subject.deployment.target);
        let is_from_scratch = kept.is_empty();
        let mut verdict = kept.judge(&gate, &subject, source.as_ref(), now_ms).await;
        let is_known = |verdict: &Verdict| {
            let before = before.as_ref();
            before.is_some_and(|before| is_same_answer(&before.newest, verdict))
        };
        if !is_known(&verdict) && !is_from_scratch {
            // What is written down is what judging the same data gives at any time.
            verdict = kept
                .judge_anew(&gate, &subject, source.as_ref(), now_ms)
                .await;
        }
        rollout.make_room(&mut kept);
        if let Some(before) = &before
            && before.newest.verdict == verdict.verdict
        {
            verdict.since_ms = before.newest.since_ms;
        }
        let recorded = match before {
            Some(before) if is_same_answer(&before.newest, &verdict) => before.recorded,
            _ => {
                if let Err(error) = self.parts.ledger.record_verdict(&verdict, now_ms).await {
                    tracing::error!(%error, deployment = %verdict.deployment, gate = %gate.name,
                        "a verdict can't be written to the ledger and is not published");
                    return false;
                }
                tracing::info!(gate = %gate.name, deployment = %verdict.deployment,
                    verdict = %verdict.verdict, reason = verdict.reason.as_str(),
                    "{}", verdict.message);
                verdict.id.clone()
            }
        };
        let is_news = self
            .table
            .read()
            .get(&key)
            .is_none_or(|old| old.recorded != recorded);
        let standing = Standing {
            newest: Arc::new(verdict),
            recorded,
            judged: Some(subject.deployment),
        };
        self.table.write().insert(key, standing);
        if is_news {
            self.changed.send_modify(|version| *version += 1);
        }
        true
    }

    /// What the gate says now, from the table: computes nothing.
    ///
    /// # Errors
    /// When the gate or the deployment is unknown, the gate is not for that target, or the
    /// query names neither a service nor a deployment.
    pub fn answer(&self, query: &GateQuery) -> Result<GateAnswer, GateError> {
        let gate = self.gate(&query.gate)?;
        let deployment = self.find(query)?;
        if let Some(found) = &deployment
            && !gate.is_for(&found.target)
        {
            return Err(GateError::NotMatched {
                gate: gate.name.clone(),
                target: found.target.to_string(),
                service: gate.matches.service.to_string(),
                environment: gate.matches.environment.to_string(),
            });
        }
        let now_ms = self.parts.clock.now_ms();
        let interval_ms = self.parts.options.interval_ms;
        let base_url = &self.parts.options.public_url;
        let standing = deployment.as_ref().and_then(|found| {
            self.table
                .read()
                .get(&(gate.name.clone(), found.id.clone()))
                .cloned()
        });
        let Some(standing) = standing else {
            let found = deployment.as_deref();
            let expires_ms = now_ms + interval_ms;
            return Ok(GateAnswer::pending(
                &gate, query, found, base_url, now_ms, expires_ms,
            ));
        };
        let newest = &standing.newest;
        let expires_ms = match newest.is_final {
            true => now_ms + FINAL_EXPIRY_MS,
            false => newest.evaluated_ms + 3 * interval_ms,
        };
        let age_ms = now_ms - newest.evaluated_ms;
        let mut answer = GateAnswer::of(&gate, newest, &standing.recorded, base_url, expires_ms);
        let is_left_behind = !newest.is_final && age_ms > STALE_AFTER_INTERVALS * interval_ms;
        if is_left_behind && newest.verdict == Outcome::Pass {
            answer.verdict = Outcome::Inconclusive.as_str();
            answer.reason = Reason::Stale.as_str();
            answer.message = format!(
                "The last look was {} ago and is too old to act on. It said: {}",
                time::humanize_ms(age_ms),
                newest.message
            );
        }
        Ok(answer)
    }

    /// What the gate says, as soon as that is a pass or a fail, is final, or differs from what
    /// it says now; after `timeout` what it says then.
    ///
    /// # Errors
    /// As [`Watcher::answer`].
    pub async fn wait(
        &self,
        query: &GateQuery,
        timeout: Duration,
    ) -> Result<GateAnswer, GateError> {
        let mut changed = self.changed.subscribe();
        let mut deployments_changed = self.parts.deployments.changes();
        let first = self.answer(query)?;
        if first.is_conclusive() || first.is_final {
            return Ok(first);
        }
        let deadline = tokio::time::sleep(timeout);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                () = &mut deadline => return self.answer(query),
                _ = changed.changed() => {}
                _ = deployments_changed.changed() => {}
            }
            let now = self.answer(query)?;
            if (now.verdict, now.reason, &now.id) != (first.verdict, first.reason, &first.id) {
                return Ok(now);
            }
        }
    }

    /// The newest look of a gate at a deployment.
    pub fn newest(&self, gate: &str, id: &DeploymentId) -> Option<Arc<Verdict>> {
        let key = (gate.to_owned(), id.clone());
        let table = self.table.read();
        table.get(&key).map(|standing| standing.newest.clone())
    }

    /// A number that grows whenever a gate's answer about a deployment has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The newest look of every gate at a deployment.
    pub fn standing(&self, id: &DeploymentId) -> Vec<Arc<Verdict>> {
        let table = self.table.read();
        let mut verdicts: Vec<_> = table
            .iter()
            .filter(|((_, deployment), _)| deployment == id)
            .map(|(_, standing)| standing.newest.clone())
            .collect();
        verdicts.sort_by(|a, b| a.gate.cmp(&b.gate));
        verdicts
    }

    /// The gates in force.
    pub fn gates(&self) -> Vec<GateSummary> {
        let gates = self.parts.policies.gates.iter();
        gates
            .map(|gate| GateSummary {
                name: gate.name.clone(),
                service: gate.matches.service.to_string(),
                environment: gate.matches.environment.to_string(),
                checks: gate.checks.iter().map(|check| check.name.clone()).collect(),
                policy_hash: gate.hash.clone(),
            })
            .collect()
    }

    fn gate(&self, name: &str) -> Result<Arc<Gate>, GateError> {
        self.parts.policies.get(name).cloned().ok_or_else(|| {
            let gates = self.parts.policies.gates.iter();
            let known: Vec<_> = gates.map(|gate| gate.name.as_str()).collect();
            GateError::UnknownGate {
                gate: name.to_owned(),
                known: known.join(", "),
            }
        })
    }

    fn find(&self, query: &GateQuery) -> Result<Option<Arc<Deployment>>, GateError> {
        if let Some(id) = &query.deployment {
            let found = self.parts.deployments.get(id);
            return found
                .map(Some)
                .ok_or_else(|| GateError::UnknownDeployment { id: id.to_string() });
        }
        let Some(service) = &query.service else {
            return Err(GateError::BadQuery {
                field: "service",
                expected: "service=NAME (with version= or digest=), or deployment=ID, is needed"
                    .to_owned(),
            });
        };
        Ok(self.parts.deployments.find(
            service,
            query.environment.as_deref(),
            query.version.as_deref(),
            query.digest.as_ref(),
        ))
    }
}

/// Whether a new look says nothing new: same answer, reason and finality, overall and in
/// every check. Numbers move with every look and are no news.
fn is_same_answer(before: &Verdict, now: &Verdict) -> bool {
    let gist = |verdict: &Verdict| {
        let checks = verdict
            .checks
            .iter()
            .map(|check| (check.name.clone(), check.verdict, check.reason));
        (
            verdict.verdict,
            verdict.reason,
            verdict.is_final,
            verdict.policy_hash.clone(),
            checks.collect::<Vec<_>>(),
        )
    };
    gist(before) == gist(now)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::BoxFuture;
    use slogate_promql::QueryValue;

    use super::*;
    use crate::deploy::{self, DeploymentsOptions};
    use crate::model::{Glob, ManualClock};
    use crate::record::Records;
    use crate::source::{Answer, MetricSource, Named, SourceError};

    const T0: i64 = 1_795_190_400_000;

    /// Knows nothing, and counts how often it is asked.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl MetricSource for Counting {
        fn query<'a>(&'a self, _: &'a str, _: i64) -> BoxFuture<'a, Result<Answer, SourceError>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let value = QueryValue::Vector(Vec::new());
            Box::pin(async {
                Ok(Answer {
                    value,
                    warnings: Vec::new(),
                })
            })
        }

        fn name(&self) -> &str {
            "nothing"
        }
    }

    const GATE: &str = "apiVersion: slogate.dev/v1\nkind: Gate\nmetadata: { name: g }\nspec:\n  \
                        checks:\n    - { name: up, query: vector(1), atLeast: 1 }\n";

    async fn announce(deployments: &Deployments, service: &str, kind: &str, now_ms: i64) {
        let event = format!(
            r#"{{"type": "deployment.{kind}", "service": "{service}", "artifact": {{"version": "2"}}}}"#
        );
        let none = |_: &str| None;
        let events = deploy::parse("application/json", &none, event.as_bytes(), now_ms).unwrap();
        deployments.accept(events, now_ms).await.unwrap();
    }

    /// The story: one pipeline posts steps by the second while ninety-nine other rollouts are
    /// under way. Each step must be judged at once, and must not have all the others judged.
    #[tokio::test]
    async fn a_change_is_judged_at_once_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(Records::open(dir.path()).unwrap());
        let options = DeploymentsOptions::default();
        let deployments = Deployments::open(ledger.clone(), options, T0).unwrap();
        let gates = crate::policy::parse("gate.yaml", GATE).unwrap();
        let (source, clock) = (Arc::new(Counting::default()), ManualClock::at(T0));
        let watcher = Watcher::new(WatcherParts {
            policies: Arc::new(PolicySet {
                gates: gates.into_iter().map(Arc::new).collect(),
            }),
            deployments: deployments.clone(),
            ledger,
            sources: Sources::only(source.clone()),
            clock: Arc::new(clock.clone()),
            options: WatcherOptions {
                interval_ms: 10_000,
                public_url: String::new(),
            },
        })
        .await;
        let asked = |source: &Counting| source.0.swap(0, Ordering::Relaxed);

        for service in ["a", "b", "c"] {
            announce(&deployments, service, "started", T0).await;
        }
        assert!(watcher.round(Scope::Changed).await);
        assert_eq!(asked(&source), 3, "all are new");
        clock.advance(1_000);
        announce(&deployments, "b", "paused", T0 + 1_000).await;
        assert!(watcher.round(Scope::Changed).await);
        assert_eq!(asked(&source), 1, "only one changed");
        assert!(watcher.round(Scope::Changed).await);
        assert_eq!(asked(&source), 0);
        assert!(watcher.judge_all().await);
        assert_eq!(asked(&source), 3, "an interval looks at all");
    }

    /// Answers nothing, ever.
    #[derive(Default)]
    struct Hanging(AtomicUsize);

    impl MetricSource for Hanging {
        fn query<'a>(&'a self, _: &'a str, _: i64) -> BoxFuture<'a, Result<Answer, SourceError>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::pending())
        }

        fn name(&self) -> &str {
            "hanging"
        }
    }

    /// The story: one team's Prometheus hangs. The rollouts of all other teams are judged as if
    /// nothing were the matter, and the watcher is not taken for dead.
    #[tokio::test]
    async fn a_source_that_hangs_holds_up_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(Records::open(dir.path()).unwrap());
        let deployments =
            Deployments::open(ledger.clone(), DeploymentsOptions::default(), T0).unwrap();
        let gates = crate::policy::parse("gate.yaml", GATE).unwrap();
        let counting = Arc::new(Counting::default());
        let hung = Arc::new(Hanging::default());
        let hanging = Named {
            service: Glob::new("hung-*"),
            environment: Glob::default(),
            source: hung.clone(),
        };
        let watcher = Watcher::new(WatcherParts {
            policies: Arc::new(PolicySet {
                gates: gates.into_iter().map(Arc::new).collect(),
            }),
            deployments: deployments.clone(),
            ledger,
            sources: Sources::new(counting.clone(), vec![hanging]),
            clock: Arc::new(ManualClock::at(T0)),
            options: WatcherOptions {
                interval_ms: 100,
                public_url: String::new(),
            },
        })
        .await;
        for nth in 0..20 {
            announce(&deployments, &format!("hung-{nth}"), "started", T0).await;
        }
        announce(&deployments, "b", "started", T0).await;
        let (stop, beats) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let beating = beats.clone();
        let running = tokio::spawn(watcher.clone().run(stop.clone(), move |_| {
            beating.fetch_add(1, Ordering::Relaxed);
        }));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while counting.0.load(Ordering::Relaxed) < 6 || beats.load(Ordering::Relaxed) < 5 {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the other rollout waits"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let begun = watcher.looks.lock().len();
        assert!(begun >= 20, "each look that goes on is known, {begun}");
        stop.cancel();
        running.await.unwrap();
        assert!(watcher.looks.lock().is_empty());
        assert_eq!(hung.0.load(Ordering::Relaxed), PARALLEL);
    }
}
