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

/// Pipelines say it all in one event where a rollout begins with traffic on the candidate.
#[test]
fn a_rollout_may_begin_at_a_step() {
    let begun = &folded(&[event(Started, "2", 1).weight(25.0)])[0];
    assert_eq!((begun.weight, begun.steps.len()), (Some(25.0), 1));
    assert_eq!(begun.steps[0].at_ms, 60_000);
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
