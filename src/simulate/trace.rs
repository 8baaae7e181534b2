//! One rollout, look by look.

use std::sync::Arc;

use super::generate::generate;
use super::ours;
use super::peers::Arms;
use super::scenario::Scenario;
use crate::model::{ArmCounts, CheckResult};
use crate::policy::Gate;

/// The evidence of each comparing check after each minute of rollout `number`, and the sentence
/// of the last look, as text. It ends with the first fail.
pub(crate) fn trace(gate: &Arc<Gate>, scenario: &Scenario, seed: u64, number: u32) -> String {
    let rollout = generate(scenario, seed, number);
    let arms = Arms::of(&rollout);
    let mut text = format!(
        "{}: {}; rollout {number} of seed {seed}\n{:>6}  {:<12}{:<14}{:<26}{:>9}{:>9}{:>9}{:>9}{:>8}  {:>16}  {:>18}\n",
        scenario.name,
        scenario.about,
        "minute",
        "check",
        "answer",
        "reason",
        "worse",
        "fails at",
        "within",
        "passes",
        "burst",
        "candidate",
        "baseline"
    );
    let mut last = String::new();
    ours::watch(gate, &rollout, &arms, |minute, verdict| {
        for check in &verdict.checks {
            text.push_str(&line(minute, check));
        }
        last.clone_from(&verdict.message);
        verdict.reason != crate::model::Reason::CheckFailed
    });
    text.push_str(&last);
    text.push('\n');
    text
}

fn line(minute: u32, check: &CheckResult) -> String {
    let evidence = &check.evidence;
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    let counts = |counts: Option<ArmCounts>| {
        let counts = counts.unwrap_or_default();
        format!("{:.0}/{:.0}", counts.bad, counts.total)
    };
    format!(
        "{minute:>6}  {:<12}{:<14}{:<26}{:>9}{:>9}{:>9}{:>9}{:>8}  {:>16}  {:>18}\n",
        check.name,
        check.verdict.as_str(),
        check.reason.as_str(),
        number(evidence.log_e_worse),
        number(evidence.log_e_fail_at),
        number(evidence.log_e_not_worse),
        number(evidence.log_e_pass_at),
        number(evidence.dispersion),
        counts(evidence.candidate_counts),
        counts(evidence.baseline_counts),
    )
}
