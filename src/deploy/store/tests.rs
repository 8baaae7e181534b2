use proptest::prelude::*;

use super::*;
use crate::deploy::fold::{self, Folded};
use crate::deploy::testing::{With as _, event};
use crate::ledger;
use crate::model::EventKind::{self, AlertFired, Started, Succeeded};
use crate::record::Records;

const NOW_MS: i64 = 100 * 60_000;
const DAY_MS: i64 = 86_400_000;

fn open(dir: &std::path::Path) -> Arc<Deployments> {
    let ledger = Ledger::open(Records::open(dir).unwrap());
    Deployments::open(ledger, DeploymentsOptions::default(), NOW_MS).unwrap()
}

fn everything(deployments: &Deployments) -> Vec<Arc<Deployment>> {
    deployments.list(&Filter::default(), usize::MAX)
}

#[tokio::test]
async fn an_event_is_durable_chained_and_folded() {
    let dir = tempfile::tempdir().unwrap();
    let deployments = open(dir.path());
    let mut changes = deployments.changes();
    let accepted = deployments
        .accept(vec![event(Started, "2", 1)], NOW_MS)
        .await;
    let accepted = accepted.unwrap().remove(0);
    let id = accepted.deployment.unwrap();
    assert!(!accepted.duplicate);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(deployments.get(&id).unwrap().phase, Phase::Progressing);
    assert_eq!(deployments.active().len(), 1);
    let report = ledger::verify(deployments.ledger.records()).unwrap();
    assert!(report.ok && report.entries == 1, "{report:?}");

    let before = everything(&deployments);
    drop(deployments);
    assert_eq!(everything(&open(dir.path())), before);
}

/// A retry that changed its mind: the first one stands.
#[tokio::test]
async fn a_known_id_changes_nothing_whatever_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let deployments = open(dir.path());
    let first = event(Started, "2", 1);
    let mut other = event(Succeeded, "3", 9);
    other.id.clone_from(&first.id);
    let batch = vec![first.clone(), other.clone(), first.clone()];
    let accepted = deployments.accept(batch, NOW_MS).await.unwrap();
    let duplicates: Vec<bool> = accepted.iter().map(|a| a.duplicate).collect();
    assert_eq!(duplicates, [false, true, true]);
    assert!(
        accepted
            .iter()
            .all(|a| a.deployment == accepted[0].deployment)
    );
    let changes = deployments.changes();
    let again = deployments.accept(vec![other], NOW_MS).await.unwrap();
    assert!(again[0].duplicate);
    assert!(!changes.has_changed().unwrap());
    let all = everything(&deployments);
    assert_eq!((all.len(), all[0].phase), (1, Phase::Progressing));
    assert_eq!(deployments.ledger.entries(0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn events_from_many_at_once_are_each_recorded_once() {
    let dir = tempfile::tempdir().unwrap();
    let deployments = open(dir.path());
    let tasks = (0..64).map(|n| {
        let deployments = Arc::clone(&deployments);
        // Every event is sent by two.
        let mut event = event(Started, &format!("v{}", n / 2), n / 2);
        event.target.service = format!("service-{}", n % 3);
        event.source = "ci".to_owned();
        tokio::spawn(async move { deployments.accept(vec![event], NOW_MS).await })
    });
    let mut new = 0;
    for task in tasks.collect::<Vec<_>>() {
        new += task
            .await
            .unwrap()
            .unwrap()
            .iter()
            .filter(|a| !a.duplicate)
            .count();
    }
    assert_eq!(new, 32);
    let report = ledger::verify(deployments.ledger.records()).unwrap();
    assert!(report.ok && report.entries == 32, "{report:?}");
}

/// The disk fills up: the sender hears of it, nothing is half there, and a later try works.
#[tokio::test]
async fn a_full_disk_is_an_error_and_no_event_is_lost_or_invented() {
    let dir = tempfile::tempdir().unwrap();
    let deployments = open(dir.path());
    deployments
        .accept(vec![event(Started, "2", 1)], NOW_MS)
        .await
        .unwrap();
    let before = everything(&deployments);
    let limit = |pages: i64| {
        let set = move |c: &rusqlite::Connection| {
            c.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
        };
        deployments.ledger.records().write(set)
    };
    limit(1).await.unwrap();
    let batch: Vec<Event> = (2..500)
        .map(|n| event(Started, &n.to_string(), n))
        .collect();
    let refused = deployments.accept(batch.clone(), NOW_MS).await;
    assert!(refused.unwrap_err().to_string().contains("full"));
    assert_eq!(everything(&deployments), before);
    limit(1_000_000).await.unwrap();
    let accepted = deployments.accept(batch, NOW_MS).await.unwrap();
    assert!(accepted.iter().all(|a| !a.duplicate));
    assert!(ledger::verify(deployments.ledger.records()).unwrap().ok);
}

#[tokio::test]
async fn too_many_at_once_are_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let deployments = open(dir.path());
    let batch = vec![event(Started, "2", 1); EVENTS_MAX + 1];
    assert!(deployments.accept(batch, NOW_MS).await.is_err());
    assert!(everything(&deployments).is_empty());
}

#[tokio::test]
async fn an_alert_without_a_region_is_about_all_regions() {
    let dir = tempfile::tempdir().unwrap();
    let deployments = open(dir.path());
    let batch = vec![
        event(Started, "2", 1).region("eu"),
        event(AlertFired, "", 5),
        event(Started, "3", 2).region("us").of("us-ci"),
    ];
    deployments.accept(batch, NOW_MS).await.unwrap();
    let all = everything(&deployments);
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|d| d.first_alert_ms == Some(300_000)));
}

#[tokio::test]
async fn deployments_are_found_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let deployments = open(dir.path());
    let mut staging = event(Started, "2", 9);
    staging.target.environment = "staging".to_owned();
    let batch = vec![
        event(Succeeded, "1", 1),
        event(Started, "2", 5).digest("a"),
        staging,
    ];
    deployments.accept(batch, NOW_MS).await.unwrap();
    let version = |d: Option<Arc<Deployment>>| d.and_then(|d| d.artifact.version.clone());
    let found = deployments.find("checkout", Some("production"), None, None);
    assert_eq!(version(found).as_deref(), Some("2"));
    let found = deployments.find("checkout", None, Some("2"), None).unwrap();
    assert_eq!(found.target.environment, "staging");
    let digest = Digest::parse(&format!("sha256:{}", "a".repeat(64))).unwrap();
    let found = deployments
        .find("checkout", None, None, Some(&digest))
        .unwrap();
    assert_eq!(found.target.environment, "production");
    assert_eq!(deployments.find("cart", None, None, None), None);
    let filter = Filter {
        phase: Some(Phase::Succeeded),
        ..Filter::default()
    };
    assert_eq!(
        version(deployments.list(&filter, 10).pop()).as_deref(),
        Some("1")
    );
    let of_target = deployments.of_target(&Target::new("checkout", "production"));
    assert_eq!(of_target.len(), 2);
    assert_eq!(version(of_target.into_iter().next()).as_deref(), Some("2"));
}

#[tokio::test]
async fn provenance_reaches_the_deployment_whichever_comes_first() {
    let published = |minute: i64| {
        let mut event = event(EventKind::ArtifactPublished, "2", minute).digest("a");
        event.artifact.provenance.commit = Some("abc".to_owned());
        event.target.environment = String::new();
        event
    };
    let started = || event(Started, "", 5).digest("a");
    for order in [[published(1), started()], [started(), published(1)]] {
        let dir = tempfile::tempdir().unwrap();
        let deployments = open(dir.path());
        for event in order {
            deployments.accept(vec![event], NOW_MS).await.unwrap();
        }
        let all = everything(&deployments);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].artifact.provenance.commit.as_deref(), Some("abc"));
        assert_eq!(all[0].artifact.version.as_deref(), Some("2"));
        let id = all[0].id.clone();
        assert_eq!(deployments.names(&id), [id]);
    }
}

fn short_memory(dir: &std::path::Path, now_ms: i64) -> Arc<Deployments> {
    let ledger = Ledger::open(Records::open(dir).unwrap());
    let options = DeploymentsOptions {
        retention_ms: 40 * DAY_MS,
        ..DeploymentsOptions::default()
    };
    Deployments::open(ledger, options, now_ms).unwrap()
}

/// Years of deployments of one service must not pile up in memory, nor their names change.
#[tokio::test]
async fn what_ended_long_ago_is_forgotten_and_its_traces_stay() {
    let dir = tempfile::tempdir().unwrap();
    let deployments = short_memory(dir.path(), 0);
    let mut last = DeploymentId(String::new());
    let day = 24 * 60;
    for n in 0..60 {
        let minute = n * 15 * day;
        let now_ms = (minute + 1) * 60_000;
        let batch = vec![
            event(Started, "2", minute),
            event(Succeeded, "2", minute + 1),
        ];
        let accepted = deployments.accept(batch, now_ms).await.unwrap();
        let id = accepted[0].deployment.clone().unwrap();
        assert_ne!(id, last);
        last = id;
    }
    let kept = everything(&deployments).len();
    assert!((2..=5).contains(&kept), "{kept} kept");
    let target = Target::new("checkout", "production");
    let events = |d: &Deployments| d.shared.state.read().targets[&target].events.len();
    assert!(events(&deployments) <= 10);
    // A late event of the forgotten past is folded where it belongs.
    let late = event(EventKind::RolledBack, "2", 2);
    deployments.accept(vec![late], 900 * DAY_MS).await.unwrap();
    assert!(deployments.get(&last).is_some(), "names do not change");
    let before = everything(&deployments);
    drop(deployments);
    assert_eq!(everything(&short_memory(dir.path(), 900 * DAY_MS)), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What is kept is what a fold of everything shows, and nothing recent is missing.
    #[test]
    fn forgetting_changes_nothing_that_is_kept(
        mut events in crate::deploy::fold::tests::any_events(),
        shuffled in any::<bool>(),
    ) {
        for event in &mut events {
            event.time_ms *= 4 * 24 * 60;
        }
        if !shuffled {
            events.sort_by(|a, b| fold::order(a).cmp(&fold::order(b)));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let deployments = short_memory(dir.path(), 0);
        let mut now_ms = 0;
        for event in &events {
            now_ms = now_ms.max(event.time_ms);
            runtime.block_on(deployments.accept(vec![event.clone()], now_ms)).unwrap();
        }
        let target = Target::new("checkout", "production");
        let whole = fold::fold(&target, &events);
        let kept = everything(&deployments);
        for d in &kept {
            let same = whole.iter().find(|folded| folded.deployment.id == d.id);
            prop_assert_eq!(same.map(|folded| &folded.deployment), Some(&**d));
        }
        for Folded { deployment: d, .. } in &whole {
            let is_recent = d.finished_ms.is_none_or(|ms| ms >= now_ms - 40 * DAY_MS);
            prop_assert!(!is_recent || deployments.get(&d.id).is_some(), "{} is missing", d.id);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However events arrive, and cut into whatever calls, memory shows what a restart shows.
    #[test]
    fn reopening_gives_the_same(
        events in crate::deploy::fold::tests::any_events(),
        size in 1usize..8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let deployments = open(dir.path());
        for batch in events.chunks(size) {
            runtime.block_on(deployments.accept(batch.to_vec(), NOW_MS)).unwrap();
        }
        let live = everything(&deployments);
        prop_assert!(ledger::verify(deployments.ledger.records()).unwrap().ok);
        drop(deployments);
        prop_assert_eq!(everything(&open(dir.path())), live);
    }
}
