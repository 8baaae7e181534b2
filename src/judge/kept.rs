//! What the watcher keeps of a rollout between looks, so that a look costs what is new.
//!
//! [`Kept::judge`] says what [`judge()`](super::judge()) says, for the price of the samples since
//! the last look. Two things are different, and bounded:
//!
//! - **A late sample**, one that arrives after its block was complete, is seen from scratch and
//!   not here. So whoever writes a verdict down takes it from [`Kept::judge_anew`], which forgets
//!   what was kept: every verdict in the ledger is one that judging its inputs gives again.
//! - **Memory**: blocks are counted, and a rollout for whose blocks there is no room is judged
//!   from scratch with every look. It costs time and nothing else.
//!
//! Gates with the same reach into the past share their telemetry.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::examine::{Examination, Telemetry, history_from_ms};
use super::{Subject, answer_all, conclude};
use crate::model::{Reason, Verdict};
use crate::policy::Gate;
use crate::source::MetricSource;

/// What is kept of one rollout.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// By the time from which on it was gathered.
    telemetry: BTreeMap<i64, Telemetry>,
    /// By the gate's name.
    examined: BTreeMap<String, Examined>,
}

#[derive(Debug)]
struct Examined {
    examination: Examination,
    gate: Arc<Gate>,
    from_ms: i64,
    restarts: u64,
}

impl Kept {
    /// Judges as [`judge()`](super::judge()) does, but for late samples.
    pub(crate) async fn judge(
        &mut self,
        gate: &Arc<Gate>,
        subject: &Subject,
        source: &dyn MetricSource,
        now_ms: i64,
    ) -> Verdict {
        let from_ms = history_from_ms(gate, &subject.deployment);
        let telemetry = self
            .telemetry
            .entry(from_ms)
            .or_insert_with(|| Telemetry::new(from_ms));
        telemetry.look(gate, subject, source, now_ms).await;
        let restarts = telemetry.restarts();
        let new = || Examined {
            examination: Examination::new(gate.clone()),
            gate: gate.clone(),
            from_ms,
            restarts,
        };
        let examined = self.examined.entry(gate.name.clone()).or_insert_with(new);
        let rests_on = (
            examined.gate.hash.as_str(),
            examined.from_ms,
            examined.restarts,
        );
        if rests_on != (gate.hash.as_str(), from_ms, restarts) {
            *examined = new();
        }
        let (observed, mapping) = (telemetry.observed(), source.mapping());
        let compared = examined
            .examination
            .look(subject, observed, mapping, now_ms);
        let is_used = |from_ms: &i64| self.examined.values().any(|one| one.from_ms == *from_ms);
        self.telemetry.retain(|from_ms, _| is_used(from_ms));
        let checks = answer_all(gate, subject, source, compared, now_ms).await;
        conclude(gate, subject, checks, now_ms)
    }

    /// Judges from scratch, and keeps that instead.
    pub(crate) async fn judge_anew(
        &mut self,
        gate: &Arc<Gate>,
        subject: &Subject,
        source: &dyn MetricSource,
        now_ms: i64,
    ) -> Verdict {
        let mut anew = Kept::default();
        let verdict = anew.judge(gate, subject, source, now_ms).await;
        // A source that fails now has not taken back what it said before.
        if verdict
            .checks
            .iter()
            .all(|check| check.reason != Reason::SourceError)
        {
            *self = anew;
        }
        verdict
    }

    /// Whether nothing is kept, so that the next look is one from scratch.
    pub(crate) fn is_empty(&self) -> bool {
        self.telemetry.is_empty()
    }

    /// How many blocks are kept.
    pub(crate) fn blocks_count(&self) -> usize {
        self.telemetry.values().map(Telemetry::blocks_count).sum()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Kept::default();
    }
}
