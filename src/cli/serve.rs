//! `slogate serve`: the daemon.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};

use super::Exit;
use super::daemon::{self, Daemon, StartError};
use super::flags::SettingFlags;
use super::output;
use crate::config::{Config, TelemetrySettings};
use crate::model::{Clock, SystemClock};
use crate::telemetry::Registry;
use crate::telemetry::otel::{ExportError, ExportOptions, Exporting, Protocol};

/// How often our own metrics are sent, in milliseconds.
const EXPORT_INTERVAL_MS: u64 = 15_000;

/// How long tasks left over at the end may take before the process goes.
const RUNTIME_END: Duration = Duration::from_secs(2);

/// Run the daemon
///
/// Listens on loopback unless told otherwise: 9560 for the API, 4317 for OTLP over gRPC, 4318
/// for OTLP over HTTP. Runs until SIGINT or SIGTERM, then finishes requests in flight and
/// flushes; a second signal ends it at once.
///
/// Ends with 0 after a signal, 1 where it could not start or had to stop, 64 where a setting or
/// a policy is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slogate serve
  slogate serve --data-dir /var/lib/slogate --policy-paths /etc/slogate/policies
  slogate serve --listen-api 127.0.0.1:0 --listen-otlp-grpc 127.0.0.1:0 --listen-otlp-http 127.0.0.1:0
  SLOGATE_LOG_FORMAT=json slogate serve --config /etc/slogate.yaml")]
pub(super) struct ServeArgs {
    #[command(flatten)]
    settings: SettingFlags,
}

/// Runs the command.
pub(super) fn run(args: &ServeArgs) -> Exit {
    let (config, values) = match args.settings.load() {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            output::remark(mistakes);
            return Exit::Usage;
        }
    };
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(format_args!("can't start: {error}"));
            return Exit::No;
        }
    };
    let exit = runtime.block_on(serve(&config, &values.warnings));
    runtime.shutdown_timeout(RUNTIME_END);
    exit
}

async fn serve(config: &Config, warnings: &[String]) -> Exit {
    let registry = Registry::new();
    let exporting = match export(config, &registry) {
        Ok(exporting) => exporting,
        Err(error) => {
            output::complain(error);
            return Exit::Usage;
        }
    };
    let tracer = exporting.as_ref().map(Exporting::tracer);
    if let Err(error) = daemon::log(config.log.json, &config.log.filter, tracer) {
        output::complain(error);
        return Exit::Usage;
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let exit = run_until_told(config, registry).await;
    if let Some(exporting) = exporting {
        // Blocks, for some seconds where the endpoint does not answer.
        let _ = tokio::task::spawn_blocking(move || exporting.shutdown()).await;
    }
    exit
}

async fn run_until_told(config: &Config, registry: Registry) -> Exit {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut daemon = tokio::select! {
        started = Daemon::start(config, registry, clock) => match started {
            Ok(daemon) => daemon,
            Err(error) => {
                output::complain(&error);
                return match error {
                    StartError::Policy(_) | StartError::Source(_) => Exit::Usage,
                    _ => Exit::No,
                };
            }
        },
        () = daemon::signal() => return Exit::Ok,
    };
    output::print(&welcome(&daemon));
    let died = tokio::select! {
        () = daemon::signal() => None,
        what = daemon.died() => Some(what),
    };
    tokio::spawn(async {
        daemon::signal().await;
        output::complain("told twice: ending at once");
        std::process::exit(1);
    });
    match &died {
        None => tracing::info!("told to stop: finishing requests in flight"),
        Some(what) => output::complain(format_args!("stopping: {what}")),
    }
    let stopped = daemon.stop().await;
    if let Err(error) = &stopped {
        output::complain(error);
    }
    match (died, stopped) {
        (None, Ok(())) => Exit::Ok,
        _ => Exit::No,
    }
}

/// Where it listens and what is in force.
fn welcome(daemon: &Daemon) -> String {
    let ports = daemon.ports();
    let gates = &daemon.policies().gates;
    let gates: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
    format!(
        "slogate {}\n  API        http://{}\n  OTLP/gRPC  http://{}\n  OTLP/HTTP  http://{}\n  \
         data       {}\n  gates      {}\n",
        env!("CARGO_PKG_VERSION"),
        ports.api,
        ports.otlp_grpc,
        ports.otlp_http,
        daemon.dir().display(),
        gates.join(", ")
    )
}

fn export(config: &Config, registry: &Registry) -> Result<Option<Exporting>, ExportError> {
    let Some(TelemetrySettings { endpoint, http }) = &config.telemetry else {
        return Ok(None);
    };
    let options = ExportOptions {
        endpoint: endpoint.clone(),
        protocol: match http {
            true => Protocol::HttpProtobuf,
            false => Protocol::Grpc,
        },
        interval_ms: EXPORT_INTERVAL_MS,
        instance: uuid::Uuid::now_v7().to_string(),
        environment: None,
    };
    Exporting::start(&options, registry, &Handle::current()).map(Some)
}
