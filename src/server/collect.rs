//! Numbers that other rooms keep, read when somebody asks for metrics.

use std::sync::Arc;

use slogate_tsdb::Store;

use crate::deploy::{Deployments, Filter};
use crate::export::{DropReason, ExportStats, Exporter};
use crate::ingest::{Ingest, IngestStats};
use crate::model::{Clock, Phase};
use crate::server::limits::Budget;
use crate::telemetry::catalog;
use crate::telemetry::metrics::{Registry, Spec};

/// A family of one number, and where it is among the numbers of `S`.
type Single<S> = (&'static Spec, fn(&S) -> u64);

/// The phases that deployments are counted by.
const PHASES: [Phase; 8] = [
    Phase::Pending,
    Phase::Progressing,
    Phase::Paused,
    Phase::Succeeded,
    Phase::Failed,
    Phase::Aborted,
    Phase::RolledBack,
    Phase::Superseded,
];

/// Has `registry` tell how much of the in-flight budget is taken.
pub fn budget(registry: &Registry, budget: &Budget) {
    let held = budget.clone();
    registry.collect(&catalog::INFLIGHT_BYTES, move |out| {
        out.push(&[], held.held() as f64);
    });
    let total = budget.total() as f64;
    registry.collect(&catalog::INFLIGHT_BYTES_MAX, move |out| {
        out.push(&[], total);
    });
}

/// Has `registry` tell what was taken and refused, and what is remembered for it.
pub fn ingest(registry: &Registry, ingest: &Arc<Ingest>) {
    let one = ingest.clone();
    registry.collect(&catalog::INGEST_ACCEPTED, move |out| {
        for signal in one.stats().signals {
            out.push(&[signal.signal.name()], signal.accepted as f64);
        }
    });
    let one = ingest.clone();
    registry.collect(&catalog::INGEST_REJECTED, move |out| {
        for signal in one.stats().signals {
            for (reason, count) in signal.rejected {
                out.push(&[signal.signal.name(), reason.name()], count as f64);
            }
        }
    });
    let one = ingest.clone();
    registry.collect(&catalog::INGEST_EDGES, move |out| {
        let stats = one.stats();
        out.push(&["paired"], stats.edges_paired as f64);
        out.push(&["expired"], stats.edges_expired as f64);
        out.push(&["dropped"], stats.edges_dropped as f64);
    });
    remote_write(registry, ingest);
    let singles: [Single<IngestStats>; 10] = [
        (&catalog::WRITE_SERIES, |stats| stats.written_series),
        (&catalog::INGEST_EDGES_WAITING, |stats| stats.edges_waiting),
        (&catalog::INGEST_ACCUMULATORS, |stats| stats.accumulators),
        (&catalog::INGEST_METRIC_SERIES, |stats| stats.metric_series),
        (&catalog::INGEST_RESOURCES, |stats| stats.resources),
        (&catalog::INGEST_SERVICES, |stats| stats.services),
        (&catalog::INGEST_BAD_THRESHOLDS, |stats| {
            stats.bad_thresholds
        }),
        (&catalog::INGEST_TICKS, |stats| stats.ticks),
        (&catalog::INGEST_ROWS_REFUSED, |stats| stats.rows_refused),
        (&catalog::INGEST_JOURNAL_BYTES, |stats| stats.journal_bytes),
    ];
    for (spec, read) in singles {
        let one = ingest.clone();
        registry.collect(spec, move |out| out.push(&[], read(&one.stats()) as f64));
    }
}

fn remote_write(registry: &Registry, ingest: &Arc<Ingest>) {
    let one = ingest.clone();
    registry.collect(&catalog::WRITE_ACCEPTED, move |out| {
        for stats in one.remote_write_stats() {
            let version = stats.version.name();
            out.push(&[version, "samples"], stats.samples as f64);
            out.push(&[version, "histograms"], stats.histograms as f64);
            out.push(&[version, "exemplars"], stats.exemplars as f64);
        }
    });
    let one = ingest.clone();
    registry.collect(&catalog::WRITE_REJECTED, move |out| {
        for stats in one.remote_write_stats() {
            let version = stats.version.name();
            for (reason, count) in stats.rejected {
                out.push(&[version, reason.name()], count as f64);
            }
            if stats.rejected_exemplars > 0 {
                out.push(&[version, "exemplar"], stats.rejected_exemplars as f64);
            }
        }
    });
}

/// Has `registry` tell what was exported, and what waits.
pub fn export(registry: &Registry, exporter: &Arc<Exporter>, clock: &Arc<dyn Clock>) {
    type Read = fn(&ExportStats) -> f64;
    let singles: [(&'static Spec, Read); 5] = [
        (&catalog::EXPORT_SENT, |stats| stats.sent as f64),
        (&catalog::EXPORT_RETRIES, |stats| stats.retries as f64),
        (&catalog::EXPORT_PENDING, |stats| stats.pending as f64),
        (&catalog::EXPORT_QUEUE_BYTES, |stats| {
            stats.queue_bytes as f64
        }),
        (&catalog::EXPORT_LAG, |stats| stats.lag_seconds),
    ];
    for (spec, read) in singles {
        let (one, clock) = (exporter.clone(), clock.clone());
        registry.collect(spec, move |out| {
            out.push(&[], read(&one.stats(clock.now_ms())));
        });
    }
    let (one, clock) = (exporter.clone(), clock.clone());
    registry.collect(&catalog::EXPORT_DROPPED, move |out| {
        let dropped = one.stats(clock.now_ms()).dropped;
        for (reason, count) in DropReason::ALL.into_iter().zip(dropped) {
            out.push(&[reason.name()], count as f64);
        }
    });
}

/// Has `registry` tell how large the series store is.
pub fn store(registry: &Registry, store: &Arc<Store>) {
    let singles: [Single<slogate_tsdb::Stats>; 7] = [
        (&catalog::STORE_SERIES, |stats| stats.series),
        (&catalog::STORE_SAMPLES, |stats| stats.samples),
        (&catalog::STORE_EXEMPLARS, |stats| stats.exemplars),
        (&catalog::STORE_CHUNK_BYTES, |stats| stats.chunk_bytes),
        (&catalog::STORE_INDEX_BYTES, |stats| stats.index_bytes),
        (&catalog::STORE_LOG_BYTES, |stats| stats.log_bytes),
        (&catalog::STORE_APPENDED, |stats| stats.appended),
    ];
    for (spec, read) in singles {
        let one = store.clone();
        registry.collect(spec, move |out| out.push(&[], read(&one.stats()) as f64));
    }
    let one = store.clone();
    registry.collect(&catalog::STORE_REFUSED, move |out| {
        let refused = one.stats().refused;
        out.push(&["too_old"], refused.too_old as f64);
        out.push(&["too_new"], refused.too_new as f64);
        out.push(&["duplicate"], refused.duplicate as f64);
        out.push(&["unknown_series"], refused.unknown_series as f64);
        out.push(&["malformed"], refused.malformed as f64);
    });
}

/// Has `registry` tell how many deployments there are.
pub fn deployments(registry: &Registry, deployments: &Arc<Deployments>) {
    let one = deployments.clone();
    registry.collect(&catalog::DEPLOYMENTS, move |out| {
        let known = one.list(&Filter::default(), usize::MAX);
        for phase in PHASES {
            let count = known.iter().filter(|deployment| deployment.phase == phase);
            out.push(&[phase.as_str()], count.count() as f64);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::DeploymentsOptions;
    use crate::ingest::IngestOptions;
    use crate::ledger::Ledger;
    use crate::record::Records;
    use crate::telemetry::exposition::{Format, write};
    use crate::telemetry::process;
    use crate::telemetry::{Heartbeats, catalog};

    /// A family nobody fills is a promise that dashboards are built on and that is not kept.
    #[test]
    fn every_collected_family_is_there_from_the_start() {
        let registry = Registry::new();
        let dir = tempfile::tempdir().unwrap();
        let (opened, _) = Store::open(slogate_tsdb::Options::default(), 0).unwrap();
        let opened = Arc::new(opened);
        let made = Ingest::new(opened.clone(), IngestOptions::default(), 0).unwrap();
        let ledger = Ledger::open(Records::open(dir.path()).unwrap());
        let folded = Deployments::open(ledger, DeploymentsOptions::default(), 0).unwrap();
        budget(&registry, &Budget::new(100));
        ingest(&registry, &Arc::new(made));
        store(&registry, &opened);
        deployments(&registry, &folded);
        let hearts = Heartbeats::new();
        hearts.register("one", 1, 0);
        let clock: Arc<dyn crate::model::Clock> = Arc::new(crate::model::ManualClock::at(0));
        process::describe(&registry, &hearts, &clock);
        let text = write(&registry.snapshot(), Format::Prometheus);
        let elsewhere = [
            "slogate_connections",
            "slogate_accept_errors",
            "slogate_http",
            "slogate_otlp",
            "slogate_ingest_rejected",
            "slogate_source",
            "slogate_status",
            "slogate_export",
            "slogate_remote_write_re",
            "slogate_remote_write_wire",
            "slogate_remote_write_body",
        ];
        for spec in catalog::ALL {
            let is_elsewhere = elsewhere.iter().any(|name| spec.name.starts_with(name));
            let header = format!("# TYPE {} ", spec.name);
            assert!(
                is_elsewhere || text.contains(&header),
                "{} is missing:\n{text}",
                spec.name
            );
        }
        assert!(text.contains("slogate_inflight_bytes_max 100\n"), "{text}");
    }
}
