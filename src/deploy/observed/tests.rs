use super::*;
use crate::deploy::testing::{With as _, event};
use crate::deploy::{DeploymentsOptions, Filter};
use crate::ledger::Ledger;
use crate::model::EventKind::{Failed, Started, Succeeded};
use crate::record::Records;

struct House {
    dir: tempfile::TempDir,
    deployments: Arc<Deployments>,
    /// (version, first seen, last seen), in minutes.
    seen: Vec<(&'static str, i64, i64)>,
}

const MINUTE_MS: i64 = 60_000;

impl House {
    fn new() -> House {
        let dir = tempfile::tempdir().unwrap();
        House {
            deployments: open(&dir, 0),
            dir,
            seen: Vec::new(),
        }
    }

    /// Telemetry shows these versions in each minute of the range.
    async fn see(&mut self, versions: &[&'static str], minutes: std::ops::Range<i64>) {
        for minute in minutes {
            for version in versions {
                match self.seen.iter_mut().find(|(known, ..)| known == version) {
                    Some(seen) => seen.2 = minute,
                    None => self.seen.push((version, minute, minute)),
                }
            }
            let seen: Vec<ObservedVersion> = self.seen.iter().map(observed).collect();
            let now_ms = minute * MINUTE_MS;
            self.deployments.observe(&seen, now_ms).await.unwrap();
        }
    }

    async fn hear(&self, event: Event) {
        let now_ms = event.time_ms;
        self.deployments.accept(vec![event], now_ms).await.unwrap();
    }

    fn restart(&mut self, minute: i64) {
        self.seen.clear();
        self.deployments = open(&self.dir, minute * MINUTE_MS);
    }

    /// `version phase origin`, oldest first.
    fn story(&self) -> Vec<String> {
        let tell = |d: &Arc<Deployment>| {
            let origin = if is_observed(d) {
                "observed"
            } else {
                "announced"
            };
            format!("{} {} {origin}", d.artifact, d.phase.as_str())
        };
        let all = self.deployments.list(&Filter::default(), usize::MAX);
        all.iter().rev().map(tell).collect()
    }
}

fn open(dir: &tempfile::TempDir, now_ms: i64) -> Arc<Deployments> {
    let ledger = Ledger::open(Records::open(dir.path()).unwrap());
    Deployments::open(ledger, DeploymentsOptions::default(), now_ms).unwrap()
}

fn observed((version, first, last): &(&'static str, i64, i64)) -> ObservedVersion {
    ObservedVersion {
        target: Target::new("checkout", "production"),
        version: (*version).to_owned(),
        digest: None,
        first_seen_ms: first * MINUTE_MS,
        last_seen_ms: last * MINUTE_MS,
    }
}

#[tokio::test]
async fn what_already_ran_has_succeeded_and_what_comes_opens() {
    let mut house = House::new();
    house.see(&["1"], 1..20).await;
    assert_eq!(house.story(), ["1 succeeded observed"]);
    house.see(&["1", "2"], 20..30).await;
    assert_eq!(
        house.story(),
        ["1 succeeded observed", "2 progressing observed"]
    );
    let active = house.deployments.active();
    assert_eq!(active[0].started_ms, Some(20 * MINUTE_MS));
    assert_eq!(active[0].previous, Some(Artifact::of_version("1")));
    house.see(&["2"], 30..40).await;
    assert_eq!(
        house.story(),
        ["1 succeeded observed", "2 succeeded observed"]
    );
    let done = house
        .deployments
        .find("checkout", None, Some("2"), None)
        .unwrap();
    assert_eq!(done.finished_ms, Some(29 * MINUTE_MS), "since 1 is silent");
}

#[tokio::test]
async fn an_announcement_takes_an_observed_deployment_over() {
    let mut house = House::new();
    house.see(&["1"], 1..10).await;
    house.see(&["1", "2"], 10..12).await;
    let id = house.deployments.active()[0].id.clone();
    house.hear(event(Started, "2", 11)).await;
    assert_eq!(
        house.story(),
        ["1 succeeded observed", "2 progressing announced"]
    );
    assert_eq!(house.deployments.active()[0].id, id);
    // From now on its sender says when it is over.
    house.see(&["2"], 12..40).await;
    assert_eq!(house.story()[1], "2 progressing announced");
    house.hear(event(Succeeded, "2", 40)).await;
    house.see(&["2"], 41..60).await;
    assert_eq!(house.story()[1], "2 succeeded announced");
}

/// The very first version is announced a moment after its first span: it has to be judged.
#[tokio::test]
async fn an_announcement_of_what_seemed_to_run_already_takes_it_over() {
    let mut house = House::new();
    house.see(&["1"], 1..3).await;
    let id = house.deployments.list(&Filter::default(), 1)[0].id.clone();
    house.hear(event(Started, "1", 4)).await;
    assert_eq!(house.story(), ["1 progressing announced"]);
    assert_eq!(house.deployments.active()[0].id, id);
    assert_eq!(house.deployments.active()[0].previous, None);
    house.hear(event(Succeeded, "1", 8)).await;
    assert_eq!(house.story(), ["1 succeeded announced"]);
}

/// The event comes before the first telemetry of the version that it replaces.
#[tokio::test]
async fn what_already_ran_does_not_supersede_what_was_announced() {
    let mut house = House::new();
    house.hear(event(Started, "2", 5)).await;
    house.see(&["1", "2"], 6..10).await;
    assert_eq!(
        house.story(),
        ["1 succeeded observed", "2 progressing announced"]
    );
    assert_eq!(
        house.deployments.active()[0].previous,
        Some(Artifact::of_version("1"))
    );
}

/// Telemetry labels the announced version differently.
#[tokio::test]
async fn an_unknown_label_waits_for_the_end_of_an_announced_deployment() {
    let mut house = House::new();
    house.see(&["1"], 1..10).await;
    house.hear(event(Started, "2", 10)).await;
    house.see(&["1", "v2"], 11..15).await;
    assert_eq!(
        house.story(),
        ["1 succeeded observed", "2 progressing announced"]
    );
    house.hear(event(Succeeded, "2", 15)).await;
    house.see(&["v2"], 16..30).await;
    let expected = [
        "1 succeeded observed",
        "2 succeeded announced",
        "v2 succeeded observed",
    ];
    assert_eq!(house.story(), expected);
}

/// Old pods come and go beside the new ones, for hours.
#[tokio::test]
async fn flapping_versions_open_nothing() {
    let mut house = House::new();
    house.see(&["1"], 1..10).await;
    house.see(&["1", "2"], 10..12).await;
    house.see(&["2"], 12..20).await;
    let entries = house
        .deployments
        .ledger
        .entries(0, 100)
        .await
        .unwrap()
        .len();
    for hour in 0..5 {
        let at = 20 + hour * 60;
        house.see(&["1", "2"], at..at + 3).await;
        house.see(&["1"], at + 3..at + 6).await;
        house.see(&["2"], at + 6..at + 60).await;
    }
    assert_eq!(
        house.story(),
        ["1 succeeded observed", "2 succeeded observed"]
    );
    let after = house
        .deployments
        .ledger
        .entries(0, 100)
        .await
        .unwrap()
        .len();
    assert_eq!(after, entries);
}

/// "Silent manual fixes": the old version is simply put back.
#[tokio::test]
async fn a_version_that_gives_way_to_the_old_one_was_rolled_back() {
    for is_announced in [true, false] {
        let mut house = House::new();
        house.see(&["1"], 1..10).await;
        if is_announced {
            house.hear(event(Started, "2", 10)).await;
            house.hear(event(Succeeded, "2", 12)).await;
        }
        house.see(&["1", "2"], 10..13).await;
        house.see(&["2"], 13..20).await;
        house.see(&["1"], 20..30).await;
        let bad = house
            .deployments
            .find("checkout", None, Some("2"), None)
            .unwrap();
        assert_eq!(bad.phase, Phase::RolledBack);
        assert_eq!(bad.finished_ms, Some(19 * MINUTE_MS));
        // And when it returns, it was shipped again.
        house.see(&["2"], 30..50).await;
        let story = house.story();
        assert_eq!(story.len(), 3, "{story:?}");
        assert_eq!(story[2], "2 succeeded observed");
    }
}

#[tokio::test]
async fn an_observed_canary_that_vanishes_was_rolled_back() {
    let mut house = House::new();
    house.see(&["1"], 1..10).await;
    house.see(&["1", "2"], 10..12).await;
    house.see(&["1"], 12..30).await;
    assert_eq!(
        house.story(),
        ["1 succeeded observed", "2 rolled_back observed"]
    );
}

/// A label that telemetry never carried is not gone when it is not seen.
#[tokio::test]
async fn what_was_never_seen_is_not_taken_for_gone() {
    let mut house = House::new();
    house.see(&["1"], 1..10).await;
    house.hear(event(Succeeded, "2", 10)).await;
    house.see(&["1"], 10..60).await;
    assert_eq!(
        house.story(),
        ["1 succeeded observed", "2 succeeded announced"]
    );
}

#[tokio::test]
async fn a_restart_neither_forgets_nor_invents() {
    let mut house = House::new();
    house.see(&["1"], 1..10).await;
    house.see(&["1", "2"], 10..15).await;
    let before = house.story();
    house.restart(16);
    assert_eq!(house.story(), before);
    house.see(&["2"], 17..20).await;
    assert_eq!(
        house.story(),
        before,
        "the silence of 1 counts from the restart"
    );
    house.see(&["2"], 20..24).await;
    assert_eq!(house.story()[1], "2 succeeded observed");
    house.restart(30);
    house.see(&["2"], 31..50).await;
    assert_eq!(
        house.story(),
        ["1 succeeded observed", "2 succeeded observed"]
    );
}

#[tokio::test]
async fn regions_and_missing_environments_are_explained() {
    let mut house = House::new();
    house.hear(event(Succeeded, "1", 1).region("eu")).await;
    house.hear(event(Started, "2", 2).region("eu")).await;
    house.see(&["1", "2"], 3..30).await;
    assert_eq!(house.story().len(), 2);
    let mut seen = observed(&("2", 3, 4));
    seen.target.environment.clear();
    let opened = house
        .deployments
        .observe(&[seen], 5 * MINUTE_MS)
        .await
        .unwrap();
    assert_eq!(opened, []);
}

#[tokio::test]
async fn what_failed_and_is_gone_stays_failed() {
    let mut house = House::new();
    house.see(&["1"], 1..10).await;
    house.hear(event(Started, "2", 10)).await;
    house.see(&["1", "2"], 10..13).await;
    house.hear(event(Failed, "2", 13)).await;
    house.see(&["1"], 13..60).await;
    assert_eq!(
        house.story(),
        ["1 succeeded observed", "2 failed announced"]
    );
}
