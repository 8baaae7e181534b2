//! How the rooms are put together, and how they come to rest.
//!
//! Start: take the data directory, bind the ports (so that peers queue instead of being refused
//! while the log is replayed), open store, ingest, records, ledger, deployments, source and
//! watcher, start the [`workers`], then answer. Whatever fails ends the start with its reason.
//!
//! Stop, in this order, so that nothing acknowledged is lost: stop accepting and let requests in
//! flight finish (for `limits.drain` at most), stop the workers, turn what ingest holds into
//! samples, flush the store, close the records, let go of the directory.
//!
//! A worker that panics or ends by itself takes the daemon down: a daemon that answers and no
//! longer judges is worse than one that is restarted. Until it is down, its health is bad.

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracer;
use parking_lot::Mutex;
use slogate_tsdb::Store;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::value::Value;
use crate::config::{Config, DataDir, DataDirError, EngineSettings, Ports, SourceSettings};
use crate::deploy::{Deployments, DeploymentsOptions};
use crate::export::{ExportError, Exporter};
use crate::ingest::{Ingest, IngestError, IngestOptions};
use crate::judge::{Watcher, WatcherOptions, WatcherParts};
use crate::ledger::Ledger;
use crate::model::{Clock, Glob, ObservedVersion};
use crate::policy::{self, PolicySet};
use crate::record::{self, ReadError, Records};
use crate::server::api::{self, App};
use crate::server::collect;
use crate::server::limits::{BodyLimits, Budget};
use crate::server::listener::{ListenError, ListenOptions, Listener};
use crate::server::otlp::{self, Otlp};
use crate::server::prometheus::{Origins, Prometheus};
use crate::server::remote_write::RemoteWrite;
use crate::sli::Slis;
use crate::source::{
    EmbeddedSource, Mapped, Mapping, MetricSource, Named, PrometheusSource, Sources,
};
use crate::telemetry::logging::{self, Format, LogError, LogOptions};
use crate::telemetry::{Heartbeats, Registry, process};

mod workers;

/// How long workers may take to finish their round at the end.
const WORKERS_END: Duration = Duration::from_secs(10);

/// A daemon that runs.
pub(super) struct Daemon {
    ports: Ports,
    dir: DataDir,
    rooms: Rooms,
    /// Ends listening.
    stop_listening: CancellationToken,
    listeners: TaskTracker,
    /// Ends the workers.
    stop_working: CancellationToken,
    workers: TaskTracker,
    /// What workers that died said.
    died: mpsc::Receiver<String>,
    grace: Duration,
}

/// What the workers and the handlers share.
#[derive(Clone)]
struct Rooms {
    store: Arc<Store>,
    embedded: EmbeddedSource,
    ingest: Arc<Ingest>,
    /// Where series of ours are written to, where that is set.
    exporter: Option<Arc<Exporter>>,
    ledger: Arc<Ledger>,
    deployments: Arc<Deployments>,
    slis: Arc<Slis>,
    watcher: Arc<Watcher>,
    sources: Sources,
    /// Versions that remote sources show, until the deployments are told.
    shown: Arc<Mutex<Vec<ObservedVersion>>>,
    policies: Arc<PolicySet>,
    registry: Registry,
    heartbeats: Heartbeats,
    clock: Arc<dyn Clock>,
    /// Where the API listens: what tells this daemon's own metrics from another's.
    instance: Arc<str>,
}

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The data directory can't be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A port can't be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A policy is wrong.
    #[error("{0}")]
    Policy(#[from] policy::Diagnostics),
    /// The series store can't be opened.
    #[error("series store: {0}")]
    Store(#[from] slogate_tsdb::OpenError),
    /// What ingest keeps can't be opened.
    #[error("ingest: {0}")]
    Ingest(#[from] IngestError),
    /// What waits to be exported can't be opened, or its endpoint's settings are wrong.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The records can't be opened.
    #[error(transparent)]
    Records(#[from] record::OpenError),
    /// The records can't be read.
    #[error(transparent)]
    Deployments(#[from] ReadError),
    /// A source's settings are wrong.
    #[error(transparent)]
    Source(#[from] SetUpError),
}

/// Why a source can't be set up.
#[derive(Debug, thiserror::Error)]
#[error("{section}: {reason}")]
pub(super) struct SetUpError {
    section: String,
    reason: String,
}

/// Why the daemon did not stop as it should; what was acknowledged is on disk all the same.
#[derive(Debug, thiserror::Error)]
pub(super) enum StopError {
    /// What ingest held could not become samples; it is in its journal.
    #[error("last flush of ingest: {0}")]
    Ingest(#[from] IngestError),
    /// The store could not be flushed.
    #[error("last flush of the series store: {0}")]
    Store(#[from] std::io::Error),
    /// The `ports` file is still there.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// Begins to log, for the whole process.
///
/// # Errors
/// Where the filter can't be read.
pub(super) fn log(json: bool, filter: &str, tracer: Option<SdkTracer>) -> Result<(), LogError> {
    let options = LogOptions {
        format: if json { Format::Json } else { Format::Pretty },
        filter: filter.to_owned(),
    };
    logging::init(&options, tracer)
}

/// Waits for a signal to stop: SIGINT or SIGTERM.
pub(super) async fn signal() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = interrupt.await;
}

impl Daemon {
    /// Starts all of it and returns when it answers.
    ///
    /// # Errors
    /// With what is in the way; then nothing runs.
    pub(super) async fn start(
        config: &Config,
        registry: Registry,
        clock: Arc<dyn Clock>,
    ) -> Result<Daemon, StartError> {
        let policies = Arc::new(policies(config)?);
        let dir = DataDir::take(&config.data_dir)?;
        let listeners = Listeners::bind(config, &registry).await?;
        let ports = listeners.ports();
        let stored = Stored::open(config, dir.path(), clock.now_ms()).await?;
        let rooms = furnish(config, stored, policies, &ports, registry, clock).await?;
        describe(&rooms);

        let (stop_listening, stop_working) = (CancellationToken::new(), CancellationToken::new());
        let (say_died, died) = mpsc::channel(8);
        let workers = workers::start(config, &rooms, &stop_working, &say_died);
        let listeners = listeners.serve(config, &rooms, &stop_listening, &say_died);
        dir.write_ports(&ports)?;
        let drain_ms = u64::try_from(config.limits.drain_ms).unwrap_or(0);
        Ok(Daemon {
            ports,
            dir,
            rooms,
            stop_listening,
            listeners,
            stop_working,
            workers,
            died,
            grace: Duration::from_millis(drain_ms),
        })
    }

    /// Where it listens.
    pub(super) fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Where it keeps everything.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The gates in force.
    pub(super) fn policies(&self) -> &PolicySet {
        &self.rooms.policies
    }

    /// Waits until a worker dies, and says which and why.
    pub(super) async fn died(&mut self) -> String {
        match self.died.recv().await {
            Some(what) => what,
            None => std::future::pending().await,
        }
    }

    /// Drains, flushes and lets go.
    ///
    /// # Errors
    /// With the first thing that was not done; the others are tried all the same.
    pub(super) async fn stop(self) -> Result<(), StopError> {
        self.stop_listening.cancel();
        self.listeners.close();
        // The listeners keep to the same bound; a second more tells a hanging one from a slow one.
        let bound = self.grace + Duration::from_secs(1);
        if tokio::time::timeout(bound, self.listeners.wait())
            .await
            .is_err()
        {
            tracing::warn!("listeners did not drain in time");
        }
        self.stop_working.cancel();
        self.workers.close();
        if tokio::time::timeout(WORKERS_END, self.workers.wait())
            .await
            .is_err()
        {
            tracing::warn!("workers did not end in time");
        }
        let rooms = self.rooms;
        let flushed = tokio::task::spawn_blocking(move || flush(&rooms));
        let flushed = flushed.await.unwrap_or_else(|panic| {
            let error = std::io::Error::other(panic);
            Err(StopError::Store(error))
        });
        let removed = self.dir.remove_ports();
        flushed?;
        removed?;
        tracing::info!("stopped");
        Ok(())
    }
}

fn flush(rooms: &Rooms) -> Result<(), StopError> {
    let flushed = rooms.ingest.flush(rooms.clock.now_ms());
    let synced = rooms.store.flush();
    flushed?;
    synced?;
    Ok(())
}

/// Has `/metrics` tell what every room counts.
fn describe(rooms: &Rooms) {
    let registry = &rooms.registry;
    process::describe(registry, &rooms.heartbeats, &rooms.clock);
    collect::ingest(registry, &rooms.ingest);
    collect::store(registry, &rooms.store);
    if let Some(exporter) = &rooms.exporter {
        collect::export(registry, exporter, &rooms.clock);
    }
    collect::deployments(registry, &rooms.deployments);
}

fn policies(config: &Config) -> Result<PolicySet, policy::Diagnostics> {
    if config.policy_paths.is_empty() {
        Ok(policy::built_in())
    } else {
        policy::load(&config.policy_paths)
    }
}

/// The rooms that read files when they open.
struct Stored {
    store: Arc<Store>,
    ingest: Ingest,
    exporter: Option<Arc<Exporter>>,
    ledger: Arc<Ledger>,
    deployments: Arc<Deployments>,
}

impl Stored {
    /// Opens them away from the async threads, so that a signal is heard while a long log is
    /// replayed.
    async fn open(config: &Config, dir: &Path, now_ms: i64) -> Result<Self, StartError> {
        let (config, dir) = (config.clone(), dir.to_owned());
        let opening = move || Stored::open_blocking(&config, &dir, now_ms);
        match tokio::task::spawn_blocking(opening).await {
            Ok(opened) => opened,
            Err(error) => resume_unwind(error.into_panic()),
        }
    }

    fn open_blocking(config: &Config, dir: &Path, now_ms: i64) -> Result<Self, StartError> {
        let store = open_store(config, dir, now_ms)?;
        let ingest = Ingest::new(store.clone(), ingest_options(config, dir), now_ms)?;
        // Before anything new is written: what is there now is what the queue's end speaks of.
        let exporter = match &config.export {
            None => None,
            Some(settings) => {
                let dir = dir.join("export");
                let opened = Exporter::open(&dir, settings, store.clone(), now_ms)?;
                Some(Arc::new(opened))
            }
        };
        let ledger = Ledger::open(Records::open(dir)?);
        let options = DeploymentsOptions {
            retention_ms: config.deployments_keep_ms,
            ..DeploymentsOptions::default()
        };
        let deployments = Deployments::open(ledger.clone(), options, now_ms)?;
        Ok(Stored {
            store,
            ingest,
            exporter,
            ledger,
            deployments,
        })
    }
}

/// Puts source and watcher beside what is stored.
async fn furnish(
    config: &Config,
    stored: Stored,
    policies: Arc<PolicySet>,
    ports: &Ports,
    registry: Registry,
    clock: Arc<dyn Clock>,
) -> Result<Rooms, StartError> {
    let Stored {
        store,
        ingest,
        exporter,
        ledger,
        deployments,
    } = stored;
    let embedded = EmbeddedSource::new(store.clone(), &config.query);
    let sources = sources(config, &embedded, &clock, &registry)?;
    let public_url = config.public_url.clone();
    let watcher = Watcher::new(WatcherParts {
        policies: policies.clone(),
        deployments: deployments.clone(),
        ledger: ledger.clone(),
        sources: sources.clone(),
        clock: clock.clone(),
        options: WatcherOptions {
            interval_ms: config.judge_interval_ms,
            public_url: public_url.unwrap_or_else(|| format!("http://{}", ports.api)),
        },
    });
    let slis = Slis::new(deployments.clone(), ledger.clone(), sources.clone());
    Ok(Rooms {
        watcher: watcher.await,
        sources,
        shown: Arc::default(),
        slis: Arc::new(slis),
        ingest: Arc::new(ingest),
        exporter,
        heartbeats: Heartbeats::new(),
        embedded,
        store,
        ledger,
        deployments,
        policies,
        registry,
        clock,
        instance: ports.api.to_string().into(),
    })
}

/// The default source and the named ones.
fn sources(
    config: &Config,
    embedded: &EmbeddedSource,
    clock: &Arc<dyn Clock>,
    registry: &Registry,
) -> Result<Sources, SetUpError> {
    let one = |name: &str, settings: &SourceSettings| -> Result<_, SetUpError> {
        let fail = |reason: String| SetUpError {
            section: match name {
                "default" => "source".to_owned(),
                name => format!("sources.{name}"),
            },
            reason,
        };
        let source: Arc<dyn MetricSource> = match &settings.engine {
            EngineSettings::Embedded => Arc::new(embedded.clone()),
            EngineSettings::Prometheus(remote) => {
                let source = PrometheusSource::new(name, remote, clock.clone(), registry);
                Arc::new(source.map_err(|error| fail(error.to_string()))?)
            }
        };
        let mapping = Mapping::new(&settings.mapping).map_err(|error| fail(error.to_string()))?;
        let mapped: Arc<dyn MetricSource> = Arc::new(Mapped { source, mapping });
        Ok(mapped)
    };
    let mut named = Vec::new();
    for settings in &config.sources {
        named.push(Named {
            service: Glob::new(&settings.service),
            environment: Glob::new(&settings.environment),
            source: one(&settings.name, &settings.source)?,
        });
    }
    Ok(Sources::new(one("default", &config.source)?, named))
}

fn open_store(config: &Config, dir: &Path, now_ms: i64) -> Result<Arc<Store>, StartError> {
    let options = slogate_tsdb::Options {
        dir: Some(dir.join("series")),
        retention_ms: config.store.retention_ms,
        size_max_bytes: config.store.size_max_bytes,
        out_of_order_window_ms: config.store.out_of_order_window_ms,
        series_max: config.store.series_max,
        ..slogate_tsdb::Options::default()
    };
    let (store, replayed) = Store::open(options, now_ms)?;
    tracing::info!(
        series = store.stats().series,
        samples = replayed.samples,
        segments = replayed.segments,
        "series log replayed"
    );
    for damage in &replayed.damage {
        tracing::warn!(%damage, "the series log is damaged here; what is beside it was kept");
    }
    if replayed.orphans + replayed.over_limit > 0 {
        let (orphans, over_limit) = (replayed.orphans, replayed.over_limit);
        tracing::warn!(
            orphans,
            over_limit,
            "samples of the series log were left out"
        );
    }
    Ok(Arc::new(store))
}

fn ingest_options(config: &Config, dir: &Path) -> IngestOptions {
    IngestOptions {
        journal_dir: Some(dir.join("ingest")),
        interval_ms: config.ingest.flush_interval_ms,
        span_series_per_service: config.ingest.series_per_service,
        instances_per_version: config.ingest.instances_per_version,
        metric_series_per_service: config.ingest.metric_series_per_service,
        metric_series_per_job: config.ingest.metric_series_per_job,
        idle_ms: config.ingest.version_idle_ms,
        ..IngestOptions::default()
    }
}

/// The three ports, bound.
struct Listeners {
    api: Listener,
    otlp_grpc: Listener,
    otlp_http: Listener,
}

impl Listeners {
    async fn bind(config: &Config, registry: &Registry) -> Result<Self, ListenError> {
        let limits = &config.limits;
        let options = ListenOptions {
            connections_max: limits.connections,
            header_timeout: millis(limits.header_timeout_ms),
            idle_timeout: millis(limits.idle_timeout_ms),
            streams_max: u32::try_from(limits.streams).unwrap_or(u32::MAX),
            drain: millis(limits.drain_ms),
        };
        let bind = |name, address| Listener::bind(name, address, options.clone(), registry);
        Ok(Listeners {
            api: bind(api::LISTENER, config.listen.api).await?,
            otlp_grpc: bind("otlp_grpc", config.listen.otlp_grpc).await?,
            otlp_http: bind("otlp_http", config.listen.otlp_http).await?,
        })
    }

    fn ports(&self) -> Ports {
        Ports {
            pid: std::process::id(),
            api: self.api.address(),
            otlp_grpc: self.otlp_grpc.address(),
            otlp_http: self.otlp_http.address(),
        }
    }

    /// Answers on all three until `stop`, then drains.
    fn serve(
        self,
        config: &Config,
        rooms: &Rooms,
        stop: &CancellationToken,
        say_died: &mpsc::Sender<String>,
    ) -> TaskTracker {
        let limits = &config.limits;
        let budget = Budget::new(limits.in_flight_bytes);
        collect::budget(&rooms.registry, &budget);
        let deadline = millis(limits.body_timeout_ms);
        let otlp_limits = BodyLimits {
            wire_bytes_max: limits.request_body_wire_bytes,
            body_bytes_max: limits.request_body_bytes,
            deadline,
        };
        let remote_write = RemoteWrite::new(
            rooms.ingest.clone(),
            rooms.clock.clone(),
            otlp_limits.clone(),
            budget.clone(),
            &rooms.registry,
        );
        let otlp = Otlp::new(
            rooms.ingest.clone(),
            rooms.clock.clone(),
            otlp_limits,
            budget.clone(),
            &rooms.registry,
        );
        let app = Arc::new(App {
            remote_write: Arc::new(remote_write),
            policies: rooms.policies.clone(),
            deployments: rooms.deployments.clone(),
            ledger: rooms.ledger.clone(),
            watcher: rooms.watcher.clone(),
            slis: rooms.slis.clone(),
            prometheus: prometheus(config, rooms),
            registry: rooms.registry.clone(),
            heartbeats: rooms.heartbeats.clone(),
            clock: rooms.clock.clone(),
            limits: BodyLimits {
                wire_bytes_max: limits.event_body_bytes,
                body_bytes_max: limits.event_body_bytes,
                deadline,
            },
            budget,
            stop: stop.clone(),
            fresh: Semaphore::new(api::FRESH_MAX),
        });
        let tracker = TaskTracker::new();
        for (name, listener, router) in [
            ("listener api", self.api, api::router(app)),
            (
                "listener otlp_grpc",
                self.otlp_grpc,
                otlp::grpc::router(otlp.clone()),
            ),
            (
                "listener otlp_http",
                self.otlp_http,
                otlp::http::router(otlp),
            ),
        ] {
            let serving = listener.serve(router, stop.clone());
            workers::watch_over(&tracker, name, serving, stop, say_died);
        }
        tracker
    }
}

fn prometheus(config: &Config, rooms: &Rooms) -> Prometheus {
    let (store, source) = (rooms.store.clone(), rooms.embedded.clone());
    let retention = Value::Duration(config.store.retention_ms).to_string();
    // That it is an expression was checked when it was read.
    let origins = Origins::matching(&config.query_cors_origin).unwrap_or_default();
    Prometheus::new(store, source, rooms.clock.now_ms())
        .with_origins(origins)
        .with_settings(config.shown.clone(), retention)
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::cli::client::Client;
    use crate::config::Layers;
    use crate::ledger::verify;
    use crate::model::SystemClock;

    fn config(dir: &Path, more: &[(&'static str, &str)]) -> Config {
        let mut flags = vec![
            ("listen.api", "127.0.0.1:0".to_owned()),
            ("listen.otlpGrpc", "127.0.0.1:0".to_owned()),
            ("listen.otlpHttp", "127.0.0.1:0".to_owned()),
            ("data.dir", dir.display().to_string()),
            ("limits.drain", "1s".to_owned()),
        ];
        flags.extend(more.iter().map(|(key, text)| (*key, (*text).to_owned())));
        let layers = Layers {
            flags,
            ..Layers::default()
        };
        Config::load(&layers).unwrap().0
    }

    async fn start(config: &Config) -> Result<Daemon, StartError> {
        crate::cli::install_tls();
        Daemon::start(config, Registry::new(), Arc::new(SystemClock)).await
    }

    fn client(daemon: &Daemon) -> Client {
        Client::new(&format!("http://{}", daemon.ports().api)).unwrap()
    }

    async fn get(client: &Client, parts: &[&str]) -> Result<String, String> {
        let reply = client.get(client.url(parts), Duration::from_secs(5)).await;
        reply
            .map(|reply| String::from_utf8(reply.body).unwrap())
            .map_err(|error| error.to_string())
    }

    /// Polls until the daemon says that every worker has begun.
    async fn ready(client: &Client) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = get(client, &["-", "ready"]).await {
            assert!(Instant::now() < deadline, "not ready: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_daemon_answers_comes_to_rest_and_remembers() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("data");
        let config = config(&dir, &[]);
        let daemon = start(&config).await.unwrap();
        let asking = client(&daemon);
        ready(&asking).await;
        let ports = std::fs::read_to_string(dir.join("ports")).unwrap();
        assert_eq!(
            &serde_json::from_str::<Ports>(&ports).unwrap(),
            daemon.ports()
        );
        let body = br#"{"type":"deployment.started","service":"s","artifact":{"version":"1"}}"#;
        let url = asking.url(&["v1", "events"]);
        let reply = asking.post(
            url,
            "application/json",
            body.to_vec(),
            Duration::from_secs(5),
        );
        assert_eq!(reply.await.unwrap().status, 202);
        let metrics = get(&asking, &["metrics"]).await.unwrap();
        assert!(metrics.contains("slogate_build_info"), "{metrics}");

        let second = start(&config).await.err().unwrap();
        assert!(
            matches!(&second, StartError::DataDir(DataDirError::InUse { .. })),
            "{second}"
        );

        daemon.stop().await.unwrap();
        assert!(!dir.join("ports").try_exists().unwrap());
        let report = verify(&Records::open_read_only(&dir).unwrap()).unwrap();
        assert!(report.ok && report.entries > 0);

        let daemon = start(&config).await.unwrap();
        let deployments = get(&client(&daemon), &["v1", "deployments"]).await.unwrap();
        assert!(deployments.contains("\"service\":\"s\""), "{deployments}");
        daemon.stop().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_in_the_way_is_told_and_nothing_is_held_on_to() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("data");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let busy = start(&config(&dir, &[("listen.otlpGrpc", &address)])).await;
        let error = busy.err().unwrap();
        assert!(matches!(&error, StartError::Listen(_)), "{error}");
        assert!(error.to_string().contains(&address), "{error}");

        let policy = temp.path().join("gate.yaml");
        std::fs::write(&policy, "kind: Gat").unwrap();
        let wrong = start(&config(&dir, &[("policy.paths", policy.to_str().unwrap())])).await;
        let error = wrong.err().unwrap();
        assert!(matches!(&error, StartError::Policy(_)), "{error}");

        let daemon = start(&config(&dir, &[])).await.unwrap();
        daemon.stop().await.unwrap();
    }
}
