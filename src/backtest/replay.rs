//! A rollout judged over again, block by block of its own time.
//!
//! What the judge may see at a time is what was complete then: the rollout's telemetry is gathered
//! once, cut into blocks, and handed over block by block. Each completed block is a look, from the
//! deployment's begin until the gate has failed it, its time to decide is over, or the recording
//! ends. A pass doesn't end the replay: the daemon goes on looking too, and a version that turns
//! bad after its pass is worth knowing.
//!
//! **The verdict** of a replay is its last one that decides: fail once it failed, else pass where
//! it passes at the end, else inconclusive. **Harm** is counted from the begin to the verdict:
//! failed and slow requests of the candidate beyond what the baseline's rates would have given,
//! warm-up included, whichever check decided.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::canonical;
use super::gates::Policy;
use super::harm::{Harm, Point, points_of};
use super::rollout::Rollout;
use crate::judge::examine::{Examination, Observed};
use crate::judge::{self, Subject};
use crate::model::time::{rfc3339, rfc3339_option};
use crate::model::{CheckResult, Deployment, Outcome, Reason, Verdict};
use crate::policy::Gate;
use crate::source::SourceError;
use crate::source::blocks::Gathered;

/// The most looks at a rollout; a longer one is looked at more rarely.
const LOOKS_MAX: i64 = 20_000;

/// What is asked for beyond the longest gate's time, so that its last block is complete, in
/// milliseconds.
const MARGIN_MS: i64 = 1_200_000;

/// The shortest time without a sample that is reported, in milliseconds.
const SILENCE_MS: i64 = 60_000;

/// What a policy said of a rollout.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// The policy's name.
    pub policy: String,
    /// The gates that answered.
    pub gates: Vec<String>,
    /// The verdict.
    pub verdict: Outcome,
    /// Why, for machines.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// When it was given; the end of the replay for what stayed inconclusive.
    #[serde(rename = "decidedAt", with = "rfc3339")]
    pub decided_ms: i64,
    /// From the rollout's begin to the verdict; null where none was given.
    pub seconds_to_verdict: Option<f64>,
    /// When it would have passed first; null where it never did.
    #[serde(rename = "firstPassAt", with = "rfc3339_option")]
    pub first_pass_ms: Option<i64>,
    /// Requests that failed until the verdict beyond the baseline's rate.
    pub failed_requests: f64,
    /// Requests that were slow until the verdict beyond the baseline's rate.
    pub slow_requests: f64,
    /// Both.
    pub requests_harmed: f64,
    /// When the candidate sent nothing.
    pub no_data: Vec<Phase>,
    /// The verdict over time, changes only.
    pub timeline: Vec<Change>,
    /// The critical checks that failed.
    pub failed_checks: Vec<String>,
    /// Every check's last answer.
    pub checks: Vec<CheckResult>,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// Its begin.
    #[serde(rename = "start", with = "rfc3339")]
    pub start_ms: i64,
    /// Its end.
    #[serde(rename = "end", with = "rfc3339")]
    pub end_ms: i64,
}

/// A verdict that was not the one before it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// When.
    #[serde(rename = "at", with = "rfc3339")]
    pub at_ms: i64,
    /// Seconds since the rollout began.
    pub seconds: f64,
    /// The verdict from then on.
    pub verdict: Outcome,
    /// Why.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

/// All that a rollout's replays gave.
pub(crate) struct Replayed {
    pub(crate) replays: Vec<Replay>,
    pub(crate) points: Vec<Point>,
    pub(crate) notes: Vec<String>,
}

/// Replays a rollout by each policy; `None` where `stop` was set meanwhile.
pub(crate) async fn replay(
    rollout: &Rollout,
    policies: &[Policy],
    stop: &AtomicBool,
) -> Option<Replayed> {
    let (mut replays, mut notes) = (Vec::new(), Vec::new());
    let mut points = Vec::new();
    for policy in policies {
        let target = &rollout.subject.deployment.target;
        let (gates, said) = policy.gates_for(target, rollout.reading.as_ref());
        for note in said {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        let full = gather(rollout, &gates).await;
        let shown = Shown::new(full, &rollout.seen);
        let end_ms = rollout
            .end_ms
            .min(newest_ms(&shown.full).unwrap_or(rollout.end_ms));
        if points.is_empty() {
            points = points_of(rollout, &shown.full);
        }
        replays.push(one(rollout, policy, &gates, shown, end_ms, stop).await?);
    }
    Some(Replayed {
        replays,
        points,
        notes,
    })
}

/// What all gates need, asked of the source once.
async fn gather(rollout: &Rollout, gates: &[Arc<Gate>]) -> Observed {
    let mut all = Observed::default();
    // Beyond the last sample, so that its block is complete.
    let start_ms = rollout.subject.deployment.judged_from_ms();
    let end_ms = (rollout.end_ms + 1).min(start_ms + longest_ms(gates) + MARGIN_MS);
    for gate in gates {
        let observed = Observed::gather(gate, &rollout.subject, rollout.source.as_ref(), end_ms);
        let observed = observed.await;
        for (kind, found) in observed.requests {
            all.requests.entry(kind).or_insert(found);
        }
        for (kind, found) in observed.durations {
            all.durations.entry(kind).or_insert(found);
        }
    }
    all
}

/// The telemetry as far as it is shown.
struct Shown<'r> {
    full: Observed,
    shown: Observed,
    seen: &'r BTreeMap<String, Vec<i64>>,
}

impl<'r> Shown<'r> {
    fn new(full: Observed, seen: &'r BTreeMap<String, Vec<i64>>) -> Self {
        let shown = Observed {
            requests: full
                .requests
                .iter()
                .map(|(k, g)| (*k, emptied(g)))
                .collect(),
            durations: full
                .durations
                .iter()
                .map(|(k, g)| (*k, emptied(g)))
                .collect(),
        };
        Shown { full, shown, seen }
    }

    /// Shows all blocks that are complete at `now_ms`.
    fn advance(&mut self, now_ms: i64) {
        for (kind, full) in &self.full.requests {
            if let (Ok(full), Some(Ok(shown))) = (full, self.shown.requests.get_mut(kind)) {
                show(full, shown, self.seen, now_ms);
            }
        }
        for (kind, full) in &self.full.durations {
            if let (Ok(full), Some(Ok(shown))) = (full, self.shown.durations.get_mut(kind)) {
                show(full, shown, self.seen, now_ms);
            }
        }
    }

    /// The shortest block's length and how long after its end it is complete, in milliseconds.
    fn step(&self) -> (i64, i64) {
        let requests = self
            .full
            .requests
            .values()
            .filter_map(|found| Some(found.as_ref().ok()?.grid));
        let durations = self
            .full
            .durations
            .values()
            .filter_map(|found| Some(found.as_ref().ok()?.grid));
        let grid = requests
            .chain(durations)
            .min_by_key(|grid| grid.block_ms)
            .unwrap_or_default();
        let block_ms = grid.block_ms;
        // The earliest time at which the block that ends at 0 counts.
        let settle_ms = (0..=block_ms).find(|ms| grid.end(*ms) == 0).unwrap_or(0);
        (block_ms, settle_ms)
    }
}

fn emptied<T>(found: &Result<Gathered<T>, SourceError>) -> Result<Gathered<T>, SourceError> {
    match found {
        Ok(full) => Ok(Gathered {
            grid: full.grid,
            versions: BTreeMap::new(),
            warnings: full.warnings.clone(),
        }),
        Err(error) => Err(error.clone()),
    }
}

fn show<T: Clone>(
    full: &Gathered<T>,
    shown: &mut Gathered<T>,
    seen: &BTreeMap<String, Vec<i64>>,
    now_ms: i64,
) {
    let end = full.grid.end(now_ms);
    for (version, blocks) in &full.versions {
        if blocks.oldest_ms > now_ms {
            continue;
        }
        let into = shown.versions.entry(version.clone()).or_default();
        into.oldest_ms = blocks.oldest_ms;
        move_up_to(&blocks.by_block, &mut into.by_block, end);
        for (name, instance) in &blocks.instances {
            let has = instance
                .by_block
                .first_key_value()
                .is_some_and(|(block, _)| *block < end);
            if has {
                let own = into.instances.entry(name.clone()).or_default();
                move_up_to(&instance.by_block, &mut own.by_block, end);
            }
        }
        into.newest_ms = match seen.get(version).filter(|times| !times.is_empty()) {
            Some(times) => {
                let after = times.partition_point(|t_ms| *t_ms <= now_ms);
                let newest = after.checked_sub(1).and_then(|at| times.get(at)).copied();
                newest.unwrap_or(i64::MIN)
            }
            // The block's end is as near as can be told.
            None => {
                let last = into.by_block.last_key_value();
                last.map_or(i64::MIN, |(block, _)| {
                    ((block + 1) * full.grid.block_ms).min(now_ms)
                })
            }
        };
    }
}

/// Copies the blocks before `end` that are not there yet.
fn move_up_to<T: Clone>(from: &BTreeMap<i64, T>, into: &mut BTreeMap<i64, T>, end: i64) {
    let next = into
        .last_key_value()
        .map_or(i64::MIN, |(block, _)| block + 1);
    if next < end {
        into.extend(
            from.range(next..end)
                .map(|(block, value)| (*block, value.clone())),
        );
    }
}

/// A gate and what it has made of the rollout so far.
struct Judging {
    gate: Arc<Gate>,
    examination: Examination,
}

async fn one(
    rollout: &Rollout,
    policy: &Policy,
    gates: &[Arc<Gate>],
    mut shown: Shown<'_>,
    end_ms: i64,
    stop: &AtomicBool,
) -> Option<Replay> {
    let start_ms = rollout.subject.deployment.judged_from_ms();
    let mut judging: Vec<Judging> = gates
        .iter()
        .map(|gate| Judging {
            gate: gate.clone(),
            examination: Examination::new(gate.clone()),
        })
        .collect();
    let mut record = Record::new(start_ms);
    for now_ms in looks(rollout, gates, end_ms, shown.step()) {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        shown.advance(now_ms);
        let subject = at(&rollout.subject, now_ms);
        let mut verdicts = Vec::with_capacity(judging.len());
        for one in &mut judging {
            let mapping = rollout.source.mapping();
            let compared = one
                .examination
                .look(&subject, &shown.shown, mapping, now_ms);
            let source = rollout.source.as_ref();
            let checks = judge::answer_all(&one.gate, &subject, source, compared, now_ms).await;
            verdicts.push(judge::conclude(&one.gate, &subject, checks, now_ms));
        }
        let is_final = record.look(&verdicts, now_ms);
        if is_final {
            break;
        }
    }
    let harm = Harm::until(&shown.full, rollout, record.decided_ms());
    let no_data = silences(rollout, end_ms, record.last_ms);
    Some(record.into_replay(policy, gates, harm, no_data))
}

/// When the candidate sent nothing for a while, until `end_ms`.
fn silences(rollout: &Rollout, recorded_ms: i64, end_ms: i64) -> Vec<Phase> {
    let deployment = &rollout.subject.deployment;
    let start_ms = deployment.judged_from_ms();
    let version = deployment.artifact.version.as_deref().unwrap_or_default();
    let Some(any) = rollout.seen.values().find(|times| times.len() > 1) else {
        return Vec::new();
    };
    let usual_ms = canonical::usual_gap_ms(any.iter().copied());
    let shortest_ms = SILENCE_MS.max(usual_ms * 3);
    let times = rollout
        .seen
        .get(version)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let own = times
        .iter()
        .copied()
        .filter(|t_ms| (start_ms..end_ms).contains(t_ms));
    let mut last_ms = start_ms;
    let mut silences = Vec::new();
    for t_ms in own.chain([end_ms.min(recorded_ms)]) {
        if t_ms - last_ms >= shortest_ms {
            silences.push(Phase {
                start_ms: last_ms,
                end_ms: t_ms,
            });
        }
        last_ms = t_ms;
    }
    silences
}

/// When the rollout is looked at: after each block from its begin on.
fn looks(
    rollout: &Rollout,
    gates: &[Arc<Gate>],
    recorded_ms: i64,
    (block_ms, settle_ms): (i64, i64),
) -> Vec<i64> {
    let start_ms = rollout.subject.deployment.judged_from_ms();
    let end_ms = (start_ms + longest_ms(gates)).min(recorded_ms + block_ms + settle_ms);
    let step_ms = block_ms * ((end_ms - start_ms) / block_ms / LOOKS_MAX + 1);
    let first_ms = (start_ms.div_euclid(block_ms) + 1) * block_ms + settle_ms;
    let mut looks: Vec<i64> = (0..)
        .map(|n| first_ms + n * step_ms)
        .take_while(|now_ms| *now_ms < end_ms)
        .collect();
    looks.push(end_ms.max(start_ms));
    looks
}

fn longest_ms(gates: &[Arc<Gate>]) -> i64 {
    let longest = gates.iter().map(|gate| gate.decide_within_ms).max();
    longest.unwrap_or(0)
}

/// The newest sample of any version.
fn newest_ms(observed: &Observed) -> Option<i64> {
    let requests = observed.requests.values().flatten();
    let requests = requests.flat_map(|found| found.versions.values().map(|one| one.newest_ms));
    let durations = observed.durations.values().flatten();
    let durations = durations.flat_map(|found| found.versions.values().map(|one| one.newest_ms));
    requests.chain(durations).max()
}

/// The subject with the steps that had been taken by then.
fn at(subject: &Subject, now_ms: i64) -> Subject {
    let deployment = &subject.deployment;
    if deployment.steps.iter().all(|step| step.at_ms <= now_ms) {
        return subject.clone();
    }
    let steps: Vec<_> = deployment
        .steps
        .iter()
        .filter(|step| step.at_ms <= now_ms)
        .copied()
        .collect();
    let weight = steps.iter().rev().find_map(|change| change.step.weight);
    Subject {
        deployment: Arc::new(Deployment {
            weight,
            steps,
            ..deployment.as_ref().clone()
        }),
        history: subject.history.clone(),
    }
}

/// What the looks said.
struct Record {
    start_ms: i64,
    last_ms: i64,
    last: Option<Verdict>,
    checks: Vec<CheckResult>,
    timeline: Vec<Change>,
    first_pass_ms: Option<i64>,
}

impl Record {
    fn new(start_ms: i64) -> Self {
        Record {
            start_ms,
            last_ms: start_ms,
            last: None,
            checks: Vec::new(),
            timeline: Vec::new(),
            first_pass_ms: None,
        }
    }

    /// Takes a look's verdicts, one for each gate; says whether no later look can change them.
    fn look(&mut self, verdicts: &[Verdict], now_ms: i64) -> bool {
        let is_over = verdicts.iter().all(|verdict| verdict.is_final);
        let checks = verdicts
            .iter()
            .flat_map(|verdict| verdict.checks.iter().cloned());
        self.checks = checks.collect();
        let of = |outcome| {
            verdicts
                .iter()
                .find(move |verdict| verdict.verdict == outcome)
        };
        let deciding = of(Outcome::Fail)
            .or(of(Outcome::Inconclusive))
            .or(of(Outcome::Pass));
        let Some(verdict) = deciding.cloned() else {
            return true;
        };
        let before = self.timeline.last();
        let is_same =
            before.is_some_and(|b| (b.verdict, b.reason) == (verdict.verdict, verdict.reason));
        if !is_same {
            self.timeline.push(Change {
                at_ms: now_ms,
                seconds: (now_ms - self.start_ms) as f64 / 1000.0,
                verdict: verdict.verdict,
                reason: verdict.reason,
                message: verdict.message.clone(),
            });
        }
        if verdict.verdict == Outcome::Pass && self.first_pass_ms.is_none() {
            self.first_pass_ms = Some(now_ms);
        }
        let has_failed = verdict.verdict == Outcome::Fail;
        self.last = Some(verdict);
        self.last_ms = now_ms;
        is_over || has_failed
    }

    fn decided_ms(&self) -> i64 {
        let decides = |change: &&Change| change.verdict != Outcome::Inconclusive;
        match self.timeline.last().filter(decides) {
            Some(change) => change.at_ms,
            None => self.last_ms,
        }
    }

    fn into_replay(
        self,
        policy: &Policy,
        gates: &[Arc<Gate>],
        harm: Harm,
        no_data: Vec<Phase>,
    ) -> Replay {
        let decided_ms = self.decided_ms();
        let (verdict, reason, message) = match self.last {
            Some(last) => (last.verdict, last.reason, last.message),
            None => (
                Outcome::Inconclusive,
                Reason::NotJudgedYet,
                "No gate is for this rollout.".to_owned(),
            ),
        };
        let is_decided = verdict != Outcome::Inconclusive;
        let failed = self
            .checks
            .iter()
            .filter(|check| check.critical && check.verdict == Outcome::Fail);
        let failed_checks = failed.map(|check| check.name.clone()).collect();
        Replay {
            policy: policy.name.clone(),
            gates: gates.iter().map(|gate| gate.name.clone()).collect(),
            verdict,
            reason,
            message,
            decided_ms,
            seconds_to_verdict: is_decided.then_some((decided_ms - self.start_ms) as f64 / 1000.0),
            first_pass_ms: self.first_pass_ms,
            failed_requests: harm.failed,
            slow_requests: harm.slow,
            requests_harmed: harm.failed + harm.slow,
            no_data,
            timeline: self.timeline,
            failed_checks,
            checks: self.checks,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::backtest::folder::Found;
    use crate::backtest::rollout;
    use crate::judge::judge;

    /// Two versions side by side; the new one fails one request in twenty from a time on, and is
    /// silent for ten minutes.
    fn recorded() -> Rollout {
        let temp = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for step in 0..360_i64 {
            let t = 1_763_000_000 + step * 15;
            for (version, first, rate) in [("1", 0, 900), ("2", 120, 300)] {
                let alive = step - first;
                if alive < 0 || (first > 0 && (160..200).contains(&step)) {
                    continue;
                }
                let bad = if first > 0 {
                    (step - 260).max(0) * 15
                } else {
                    step
                };
                let good = alive * rate - bad;
                for (code, count) in [("200", good), ("500", bad)] {
                    let labels = format!("version=\"{version}\",code=\"{code}\"");
                    writeln!(text, "http_requests_total{{{labels}}} {count} {t}").unwrap();
                }
            }
        }
        let path = temp.path().join("m.om");
        std::fs::write(&path, text).unwrap();
        let found = Found {
            name: "x".to_owned(),
            folder: temp.path().to_owned(),
            files: vec![path],
            label_folders: Vec::new(),
        };
        rollout::of_folder(&found).unwrap().remove(0)
    }

    /// Looking at what was complete by then is the same as asking at that time.
    #[tokio::test]
    async fn a_replay_says_what_the_judge_says_at_that_time() {
        let rollout = recorded();
        let never = AtomicBool::new(false);
        let policy = Policy::built_in();
        let target = &rollout.subject.deployment.target;
        let (gates, _) = policy.gates_for(target, rollout.reading.as_ref());
        let replayed = replay(&rollout, &[policy], &never).await.unwrap();
        let replay = &replayed.replays[0];
        assert_eq!(replay.verdict, Outcome::Fail, "{replay:#?}");
        assert!(replay.timeline.len() >= 4, "{:#?}", replay.timeline);
        assert_eq!(replay.no_data.len(), 1, "{:?}", replay.no_data);
        for change in &replay.timeline {
            let source = rollout.source.as_ref();
            let then = judge(&gates[0], &rollout.subject, source, change.at_ms).await;
            let (verdict, reason) = (then.verdict, then.reason);
            assert_eq!(
                (verdict, reason),
                (change.verdict, change.reason),
                "{change:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_replay_can_be_broken_off() {
        let at_once = AtomicBool::new(true);
        let replayed = replay(&recorded(), &[Policy::built_in()], &at_once).await;
        assert!(replayed.is_none());
    }
}
