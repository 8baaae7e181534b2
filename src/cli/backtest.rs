//! `slogate backtest`: recorded rollouts judged over again.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Exit;
use super::flags::SettingFlags;
use super::output;
use crate::backtest::{self, Options, Policy, Report};
use crate::config::EngineSettings;
use crate::model::SystemClock;
use crate::policy;
use crate::source::{Mapped, Mapping, MetricSource, PrometheusSource};
use crate::telemetry::Registry;

/// Judge recorded rollouts over again
///
/// Reads a folder per rollout: metrics as text with timestamps (OpenMetrics or Prometheus: *.om,
/// *.openmetrics, *.prom, *.metrics, *.txt), OTLP as JSON lines, deploy events as JSON lines (*.jsonl,
/// *.ndjson, *.json), each also with .gz. Nothing need be configured: versions, requests and
/// durations are found by the names that people usually give them, and the report says what was
/// assumed. Labels (labels.json, labels.csv, label.txt) are optional.
///
/// Ends with 0 where every rollout was replayed, whatever the verdicts, and with 3 where one could
/// not be read.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slogate backtest rollouts/
  slogate backtest rollouts/ --output json > report.json
  slogate backtest rollouts/ --html report.html
  slogate backtest rollouts/ --policy today.yaml --policy tomorrow.yaml
  slogate backtest --data-dir /var/lib/slogate
  slogate backtest events.jsonl --source http://127.0.0.1:9090 --mapping istio")]
pub(super) struct BacktestArgs {
    /// Folders with a rollout, folders of such folders, or the files of one rollout
    #[arg(value_name = "PATH", required_unless_present = "data_dir")]
    paths: Vec<PathBuf>,
    /// Judge the deployments in this daemon's data directory, which is only read
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// Ask this Prometheus-compatible server for telemetry, for example http://127.0.0.1:9090; the
    /// paths or the data directory then have the deploy events
    #[arg(long, value_name = "URL")]
    source: Option<String>,
    /// How the series of --source or --data-dir are read: a preset such as istio; the settings file
    /// says more
    #[arg(long, value_name = "PRESET")]
    mapping: Option<String>,
    /// The settings file that says where telemetry is and how it is read
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Judge by the gates of this file or directory instead of the built-in one; repeat it to
    /// compare policies
    #[arg(long, value_name = "PATH")]
    policy: Vec<PathBuf>,
    /// Rollouts at a time [default: one for each processor]
    #[arg(long, short, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// How to print the report
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Also write the report as a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON document
    Json,
    /// A line for each rollout and policy
    Csv,
}

/// Runs the command.
pub(super) fn run(args: &BacktestArgs) -> Exit {
    let policies = match policies(&args.policy) {
        Ok(policies) => policies,
        Err(exit) => return exit,
    };
    let (source, mapping) = match telemetry(args) {
        Ok(telemetry) => telemetry,
        Err(exit) => return exit,
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options {
        paths: args.paths.clone(),
        data_dir: args.data_dir.clone(),
        source,
        mapping,
        policies,
        jobs: args.jobs.map_or(processors, usize::from),
    };
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_interrupt(stop.clone());
    let bar = Bar::new();
    let report = backtest::run(&options, &stop, &|done, all| bar.show(done, all));
    bar.clear();
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            output::complain(error);
            return Exit::Unanswered;
        }
    };
    match args.output {
        Format::Text => output::print(&backtest::text(&report)),
        Format::Json => output::print_json(&report),
        Format::Csv => output::print(&backtest::csv(&report)),
    }
    if let Some(path) = &args.html {
        let written = std::fs::write(path, backtest::html(&report));
        if let Err(error) = written {
            output::complain(format_args!("{}: {error}", path.display()));
            return Exit::Unanswered;
        }
    }
    conclude(&report, args.output)
}

fn conclude(report: &Report, format: Format) -> Exit {
    let errors = report.errors();
    if errors > 0 && format != Format::Text {
        for rollout in &report.rollouts {
            if let Some(error) = &rollout.error {
                output::complain(format_args!("{}: {error}", rollout.rollout));
            }
        }
    }
    if report.interrupted {
        output::complain("interrupted: not every rollout was replayed");
    }
    match errors > 0 || report.interrupted {
        true => Exit::Unanswered,
        false => Exit::Ok,
    }
}

fn policies(paths: &[PathBuf]) -> Result<Vec<Policy>, Exit> {
    if paths.is_empty() {
        return Ok(vec![Policy::built_in()]);
    }
    let mut policies: Vec<Policy> = Vec::new();
    for path in paths {
        match policy::load(std::slice::from_ref(path)) {
            Ok(set) => {
                let name = path.file_stem().unwrap_or(path.as_os_str());
                let mut name = name.to_string_lossy().into_owned();
                if policies.iter().any(|known| known.name == name) {
                    name = path.display().to_string();
                }
                policies.push(Policy {
                    name,
                    gates: Some(set),
                });
            }
            Err(mistakes) => {
                output::remark(mistakes.render(std::io::stderr().is_terminal()));
                return Err(Exit::Usage);
            }
        }
    }
    Ok(policies)
}

/// Where telemetry is, and how the data directory's is read.
fn telemetry(args: &BacktestArgs) -> Result<(Option<Arc<dyn MetricSource>>, Mapping), Exit> {
    let mut flags = Vec::new();
    if let Some(url) = &args.source {
        flags.push(("source.kind", "prometheus".to_owned()));
        flags.push(("source.url", url.clone()));
    }
    if let Some(preset) = &args.mapping {
        flags.push(("source.mapping", preset.clone()));
    }
    if flags.is_empty() && args.config.is_none() {
        return Ok((None, Mapping::otel().clone()));
    }
    let settings = SettingFlags::of_file(args.config.clone()).with(flags);
    let (config, _) = settings.load().map_err(|mistakes| {
        output::remark(mistakes);
        Exit::Usage
    })?;
    let wrong = |error: &dyn std::fmt::Display| {
        output::complain(format_args!("source: {error}"));
        Exit::Usage
    };
    let mapping = Mapping::new(&config.source.mapping).map_err(|error| wrong(&error))?;
    let EngineSettings::Prometheus(remote) = &config.source.engine else {
        return Ok((None, mapping));
    };
    let clock = Arc::new(SystemClock);
    let source = PrometheusSource::new("default", remote, clock, &Registry::new());
    let source = Arc::new(source.map_err(|error| wrong(&error))?);
    let mapped = Mapped {
        source,
        mapping: mapping.clone(),
    };
    Ok((Some(Arc::new(mapped)), mapping))
}

/// Sets `stop` at Ctrl-C; a second one ends the process as usual.
fn stop_on_interrupt(stop: Arc<AtomicBool>) {
    // Without the thread Ctrl-C ends the process at once, as it does everywhere.
    let _ = std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let Ok(runtime) = runtime else {
                return;
            };
            let is_heard = runtime.block_on(tokio::signal::ctrl_c()).is_ok();
            if is_heard {
                stop.store(true, Ordering::Relaxed);
                let again = runtime.block_on(tokio::signal::ctrl_c()).is_ok();
                if again {
                    std::process::exit(130);
                }
            }
        });
}

/// A line on standard error that shows how far it is, where somebody looks.
struct Bar {
    is_shown: bool,
    width: Mutex<usize>,
}

impl Bar {
    fn new() -> Self {
        Bar {
            is_shown: std::io::stderr().is_terminal(),
            width: Mutex::new(0),
        }
    }

    fn show(&self, done: usize, all: usize) {
        if !self.is_shown {
            return;
        }
        const CELLS: usize = 30;
        let filled = done * CELLS / all.max(1);
        let line = format!(
            "[{}{}] {done} of {all} rollouts",
            "=".repeat(filled),
            " ".repeat(CELLS - filled.min(CELLS))
        );
        let mut width = self.width.lock();
        *width = line.len();
        let _ = write!(std::io::stderr().lock(), "\r{line}");
    }

    fn clear(&self) {
        let width = *self.width.lock();
        if width > 0 {
            let _ = write!(std::io::stderr().lock(), "\r{}\r", " ".repeat(width));
        }
    }
}
