//! SLIs by hand: each case small enough to count on fingers.

use super::*;
use crate::model::{Artifact, DeploymentId, EventRef, Origin, Target};

const MINUTE: i64 = 60_000;

fn deployment(phase: Phase, took_min: i64) -> Deployment {
    Deployment {
        id: DeploymentId(format!("{}-{took_min}", phase.as_str())),
        target: Target::new("checkout", "production"),
        artifact: Artifact::of_version("2"),
        previous: Some(Artifact::of_version("1")),
        phase,
        origin: Origin::Announced,
        correlation: None,
        created_ms: 1_000 * MINUTE,
        started_ms: Some(1_000 * MINUTE),
        finished_ms: (!phase.is_active()).then_some((1_000 + took_min) * MINUTE),
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
    }
}

/// Somebody said that it was rolled back.
fn announced_rollback(took_min: i64) -> Deployment {
    let mut deployment = deployment(Phase::RolledBack, took_min);
    deployment.timeline.push(EventRef {
        source: "ci".to_owned(),
        id: "7".to_owned(),
        kind: EventKind::RolledBack,
        time_ms: (1_000 + took_min) * MINUTE,
        reason: None,
        actor: None,
    });
    deployment
}

fn fact(deployment: Deployment) -> Fact {
    Fact {
        deployment: Arc::new(deployment),
        is_judged: true,
        first_fail_ms: None,
        error_delta: None,
        latency_delta: None,
    }
}

fn of(facts: &[Fact]) -> SliSet {
    set(&facts.iter().collect::<Vec<_>>(), 0)
}

fn sli(set: &SliSet, id: &str) -> Sli {
    set.slis.iter().find(|sli| sli.id == id).unwrap().clone()
}

#[test]
fn nothing_is_null_and_not_perfect() {
    let nothing = of(&[]);
    assert_eq!(nothing.slis.len(), 7);
    for sli in &nothing.slis {
        assert_eq!((sli.value, sli.meets_target), (None, None), "{}", sli.id);
    }
}

#[test]
fn partial_failures_and_rollbacks_are_no_successes_and_superseded_count_nowhere() {
    let mut partial = deployment(Phase::Succeeded, 4);
    partial.partial_failures = 2;
    let facts = [
        fact(deployment(Phase::Succeeded, 2)),
        fact(partial),
        fact(deployment(Phase::RolledBack, 6)),
        fact(deployment(Phase::Superseded, 1)),
        fact(deployment(Phase::Progressing, 0)),
    ];
    let found = of(&facts);
    assert_eq!(
        (found.ended, found.superseded, found.partial_failures),
        (3, 1, 1)
    );
    let m1 = sli(&found, "M1");
    assert_eq!((m1.count, m1.of, m1.meets_target), (1, 3, Some(false)));
    let m2 = sli(&found, "M2");
    assert_eq!(m2.value, Some(180.0), "the median of 2 and 4 minutes");
    assert_eq!(m2.meets_target, Some(true));
}

#[test]
fn silent_fixes_count_as_rollbacks_and_are_shown_apart() {
    let mut by_hand = deployment(Phase::Succeeded, 2);
    by_hand.manual_changes = 1;
    let mut redeployed = deployment(Phase::RolledBack, 3);
    redeployed.rolled_back_by = Some(DeploymentId("older-again".to_owned()));
    let facts = [
        fact(by_hand),
        fact(redeployed),
        fact(announced_rollback(6)),
        fact(deployment(Phase::Succeeded, 1)),
    ];
    let found = of(&facts);
    let m4 = sli(&found, "M4");
    assert_eq!((m4.count, m4.of, m4.value), (3, 4, Some(0.75)));
    assert_eq!(found.silent_fixes, 2);
}

#[test]
fn time_to_rollback_runs_from_the_first_sign() {
    let mut alerted = deployment(Phase::RolledBack, 10);
    alerted.first_alert_ms = Some(1_004 * MINUTE);
    let mut alerted = fact(alerted);
    alerted.first_fail_ms = Some(1_007 * MINUTE);
    let mut judged = fact(deployment(Phase::RolledBack, 10));
    judged.first_fail_ms = Some(1_008 * MINUTE);
    let unseen = fact(deployment(Phase::RolledBack, 10));
    let found = of(&[alerted, judged, unseen]);
    let m5 = sli(&found, "M5");
    assert_eq!((m5.value, m5.tail, m5.count), (Some(240.0), Some(360.0), 2));
    assert_eq!(found.rollbacks_without_beginning, 1);
}

#[test]
fn canaries_flagged_are_of_those_judged() {
    let mut failing = fact(deployment(Phase::RolledBack, 1));
    failing.first_fail_ms = Some(1_000 * MINUTE);
    let mut unjudged = fact(deployment(Phase::Succeeded, 1));
    unjudged.is_judged = false;
    let found = of(&[failing, unjudged, fact(deployment(Phase::Succeeded, 1))]);
    let m6 = sli(&found, "M6");
    assert_eq!((m6.count, m6.of), (1, 2));
}

#[test]
fn deltas_show_median_and_worst() {
    let with = |error: f64, latency: f64| {
        let mut one = fact(deployment(Phase::Succeeded, 1));
        one.error_delta = Some(error);
        one.latency_delta = Some(latency);
        one
    };
    let found = of(&[with(0.0, 0.02), with(0.03, 0.10), with(0.001, 0.01)]);
    let (m3, m7) = (sli(&found, "M3"), sli(&found, "M7"));
    assert_eq!(
        (m3.value, m3.tail, m3.meets_target),
        (Some(0.001), Some(0.03), Some(true))
    );
    assert_eq!((m7.value, m7.tail), (Some(0.02), Some(0.10)));
    assert!((m7.mean.unwrap() - 0.13 / 3.0).abs() < 1e-12);
}

#[test]
fn what_already_ran_is_no_deployment() {
    let mut first = deployment(Phase::Succeeded, 0);
    (first.origin, first.started_ms, first.previous) = (Origin::Observed, None, None);
    assert!(first.is_what_already_ran());
    let mut second = first.clone();
    second.previous = Some(Artifact::of_version("1"));
    assert!(!second.is_what_already_ran(), "it replaced something");
    assert!(
        !deployment(Phase::Succeeded, 2).is_what_already_ran(),
        "it was announced"
    );
}
