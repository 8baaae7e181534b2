//! Gathers all of it and has it written.

use std::sync::Arc;

use slogate_series::Matcher;
use slogate_tsdb::{AppendError, Store};

use super::deployments::{self, Shown};
use super::events::Seen;
use super::families::{self, DEPLOYMENT_EVENT, Family};
use super::sample::Sample;
use super::writer::{Report, Writer};
use super::{findings, registry, verdicts};
use crate::deploy::{Deployments, Filter};
use crate::judge::{GateQuery, Watcher};
use crate::model::Deployment;
use crate::policy::PolicySet;
use crate::telemetry::metrics::Gauge;
use crate::telemetry::{Registry, catalog};

/// Which samples a round writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those that say something new about deployments and verdicts.
    Changed,
}

/// What a [`Publisher`] looks at, and where it writes.
pub struct PublisherParts {
    /// Where series are written.
    pub store: Arc<Store>,
    /// The deployments.
    pub deployments: Arc<Deployments>,
    /// The standing verdicts.
    pub watcher: Arc<Watcher>,
    /// The gates.
    pub policies: Arc<PolicySet>,
    /// slogate's own metrics.
    pub registry: Registry,
    /// The `instance` of slogate's own metrics: where its API listens.
    pub instance: String,
}

/// Writes what only slogate knows as series; the module above says what and when.
pub struct Publisher {
    parts: PublisherParts,
    shown: Shown,
    seen: Seen,
    status: Writer,
    own: Writer,
    left_out: Gauge,
}

impl Publisher {
    /// A publisher that goes on with the series that stand in the store.
    pub fn new(parts: PublisherParts, now_ms: i64) -> Publisher {
        families::describe(&parts.store, families::ALL);
        let mut status = Writer::new(parts.store.clone());
        for family in families::ALL.iter().filter(|family| stands(family)) {
            status.take_over(family.name, &[], now_ms);
        }
        let mut own = Writer::new(parts.store.clone());
        let job = [Matcher::equal("job", registry::JOB)];
        for spec in catalog::ALL {
            for suffix in ["", "_bucket", "_sum", "_count"] {
                own.take_over(&format!("{}{suffix}", spec.name), &job, now_ms);
            }
        }
        Publisher {
            left_out: parts.registry.gauge(&catalog::STATUS_LEFT_OUT, &[]),
            parts,
            shown: Shown::default(),
            seen: Seen::default(),
            status,
            own,
        }
    }

    /// Looks and writes.
    ///
    /// # Errors
    /// When the store's log can't be written; the next round tries again.
    pub fn round(&mut self, scope: Scope, now_ms: i64) -> Result<Report, AppendError> {
        let all = self.parts.deployments.list(&Filter::default(), usize::MAX);
        let (shown, left_out) = self.shown.look(&all, now_ms);
        self.left_out.set(left_out as u64);

        let mut samples = findings::samples(&all);
        for deployment in &shown {
            samples.extend(deployments::samples(deployment));
            samples.extend(self.verdicts(deployment));
        }
        let news = self.seen.look(&all, now_ms);
        let events = self.status.write_events(&news, now_ms)?;
        let mut report = self.status.write(samples, scope, now_ms)?.and(events);
        if scope == Scope::All {
            report = report.and(self.own(now_ms)?);
        }
        Ok(report)
    }

    fn own(&mut self, now_ms: i64) -> Result<Report, AppendError> {
        let snapshot = self.parts.registry.snapshot();
        registry::describe(&self.parts.store, &snapshot);
        let samples = registry::samples(&snapshot, &self.parts.instance);
        self.own.write(samples, Scope::All, now_ms)
    }

    fn verdicts(&self, deployment: &Deployment) -> Vec<Sample> {
        let mut samples = Vec::new();
        for gate in self.parts.policies.matching(&deployment.target) {
            let query = GateQuery {
                gate: gate.name.clone(),
                deployment: Some(deployment.id.clone()),
                ..GateQuery::default()
            };
            // A deployment that was given another name in this moment has series under that next.
            let Ok(answer) = self.parts.watcher.answer(&query) else {
                continue;
            };
            let newest = self.parts.watcher.newest(&gate.name, &deployment.id);
            samples.extend(verdicts::samples(
                gate,
                deployment,
                &answer,
                newest.as_deref(),
            ));
        }
        samples
    }
}

/// Whether the series of a family stand until they end. Events don't, and SLIs have their own
/// publisher.
fn stands(family: &Family) -> bool {
    let has_own = families::OF_SLIS.iter().any(|sli| sli.name == family.name);
    !has_own && family.name != DEPLOYMENT_EVENT.name
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use slogate_promql::QueryValue;
    use slogate_series::Series;

    use super::*;
    use crate::deploy::{self, DeploymentsOptions};
    use crate::judge::{WatcherOptions, WatcherParts};
    use crate::ledger::Ledger;
    use crate::model::{Clock as _, ManualClock};
    use crate::record::Records;
    use crate::source::{Answer, MetricSource, SourceError};
    use crate::status::testing::T0;
    use crate::status::{ENDED_FOR_MS, INTERVAL_MS};

    const GATE: &str = "apiVersion: slogate.dev/v1\nkind: Gate\nmetadata: { name: g }\nspec:\n  \
                        checks:\n    - { name: up, query: vector(1), atLeast: 1 }\n";

    /// Answers every query with 1.
    struct One;

    impl MetricSource for One {
        fn query<'a>(&'a self, _: &'a str, _: i64) -> BoxFuture<'a, Result<Answer, SourceError>> {
            let value = QueryValue::Scalar(1.0);
            Box::pin(async {
                Ok(Answer {
                    value,
                    warnings: Vec::new(),
                })
            })
        }

        fn name(&self) -> &str {
            "one"
        }
    }

    struct World {
        clock: ManualClock,
        store: Arc<Store>,
        deployments: Arc<Deployments>,
        watcher: Arc<Watcher>,
        publisher: Publisher,
        _dir: tempfile::TempDir,
    }

    impl World {
        async fn new() -> World {
            let dir = tempfile::tempdir().unwrap();
            let clock = ManualClock::at(T0);
            let store = Store::open(slogate_tsdb::Options::default(), T0).unwrap().0;
            let store = Arc::new(store);
            let ledger = Ledger::open(Records::open(dir.path()).unwrap());
            let options = DeploymentsOptions::default();
            let deployments = Deployments::open(ledger.clone(), options, T0).unwrap();
            let gates = crate::policy::parse("gate.yaml", GATE).unwrap();
            let policies = Arc::new(PolicySet {
                gates: gates.into_iter().map(Arc::new).collect(),
            });
            let watcher = Watcher::new(WatcherParts {
                policies: policies.clone(),
                deployments: deployments.clone(),
                ledger,
                sources: crate::source::Sources::only(Arc::new(One)),
                clock: Arc::new(clock.clone()),
                options: WatcherOptions {
                    interval_ms: 10_000,
                    public_url: String::new(),
                },
            });
            let watcher = watcher.await;
            let parts = PublisherParts {
                store: store.clone(),
                deployments: deployments.clone(),
                watcher: watcher.clone(),
                policies,
                registry: Registry::new(),
                instance: "here:1".to_owned(),
            };
            World {
                publisher: Publisher::new(parts, T0),
                clock,
                store,
                deployments,
                watcher,
                _dir: dir,
            }
        }

        async fn announce(&self, kind: &str) {
            let now_ms = self.clock.now_ms();
            let event = format!(
                r#"{{"type": "deployment.{kind}", "service": "s", "artifact": {{"version": "2"}}}}"#
            );
            let none = |_: &str| None;
            let json = "application/json";
            let events = deploy::parse(json, &none, event.as_bytes(), now_ms).unwrap();
            self.deployments.accept(events, now_ms).await.unwrap();
        }

        fn round(&mut self, scope: Scope) -> Report {
            let report = self.publisher.round(scope, self.clock.now_ms()).unwrap();
            assert_eq!(report.refused, 0, "{report:?}");
            report
        }

        fn series(&self, name: &str) -> Vec<Series> {
            let matchers = [Matcher::equal("__name__", name)];
            self.store.select(&matchers, 0, i64::MAX)
        }

        /// The values of a label in the series that are 1 now.
        fn now(&self, name: &str, label: &str) -> Vec<String> {
            let is_one = |series: &&Series| {
                let last = series.samples.last().map(|sample| &sample.value);
                last == Some(&slogate_series::Value::Float(1.0))
            };
            let series = self.series(name);
            let label = |s: &Series| s.labels.get(label).unwrap_or_default().to_owned();
            series.iter().filter(is_one).map(label).collect()
        }
    }

    #[tokio::test]
    async fn a_rollout_from_its_start_to_its_end() {
        let mut world = World::new().await;
        world.announce("started").await;
        world.round(Scope::Changed);
        assert_eq!(
            world.now("slogate_deployment_phase", "phase"),
            ["progressing"]
        );
        assert_eq!(world.now("slogate_verdict", "verdict"), ["pending"]);
        world.watcher.judge_all().await;
        world.clock.advance(1_000);
        world.round(Scope::Changed);
        assert_eq!(world.now("slogate_verdict", "verdict"), ["inconclusive"]);
        assert_eq!(world.now("slogate_verdict_info", "reason"), ["soaking"]);
        assert_eq!(world.now("slogate_check", "answer"), ["pass"]);
        world.clock.advance(1_000);
        world.announce("succeeded").await;
        world.round(Scope::Changed);
        assert_eq!(
            world.now("slogate_deployment_phase", "phase"),
            ["succeeded"]
        );
        let events = world.series("slogate_deployment_event");
        let values: Vec<_> = events.iter().map(|one| one.samples.clone()).collect();
        assert_eq!(values.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);

        world.clock.advance(ENDED_FOR_MS);
        let report = world.round(Scope::All);
        assert!(report.ended > 15, "{report:?}");
        for name in [
            "slogate_deployment_info",
            "slogate_verdict",
            "slogate_check_value",
        ] {
            for series in world.series(name) {
                let last = series.samples.last().unwrap();
                assert!(last.value.is_stale(), "{}", series.labels);
            }
        }
    }

    #[tokio::test]
    async fn an_idle_hour_makes_no_new_series() {
        let mut world = World::new().await;
        world.announce("started").await;
        world.round(Scope::All);
        world.clock.advance(INTERVAL_MS);
        world.round(Scope::All);
        let before = world.store.stats().series;
        for _ in 0..240 {
            world.clock.advance(INTERVAL_MS);
            world.round(Scope::All);
            let quiet = world.round(Scope::Changed);
            assert_eq!(quiet.written, 0, "nothing changed");
        }
        assert_eq!(world.store.stats().series, before);
    }

    #[tokio::test]
    async fn every_family_has_metadata() {
        let mut world = World::new().await;
        world.round(Scope::All);
        for family in families::ALL {
            let found = world.store.metadata(Some(family.name), 0);
            assert_eq!(&*found[0].1.help, family.help);
        }
        let found = world.store.metadata(Some("slogate_status_left_out"), 0);
        assert_eq!(found.len(), 1, "slogate's own metrics, too");
    }
}
