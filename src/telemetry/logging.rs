//! Log lines.
//!
//! One subscriber for the process: lines for people (`pretty`) or machines (`json`) on standard
//! error, so that standard output stays free for what a command answers, and spans to the OTLP
//! exporter where one is set. The filter is `tracing-subscriber`'s language
//! (`info,slogate::judge=debug`).

use std::io::IsTerminal as _;

use opentelemetry_sdk::trace::SdkTracer;
use tracing_subscriber::filter::{EnvFilter, FilterFn, ParseError};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, fmt};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people; coloured where standard error is a terminal.
    #[default]
    Pretty,
    /// One JSON object a line.
    Json,
}

/// What is logged and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The looks.
    pub format: Format,
    /// Which lines, in `tracing-subscriber`'s filter language.
    pub filter: String,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            format: Format::Pretty,
            filter: "info".to_owned(),
        }
    }
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter can't be read.
    #[error("log filter {filter:?}: {error}; expected for example \"info,slogate::judge=debug\"")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        error: ParseError,
    },
    /// A subscriber was installed before.
    #[error("log subscriber: {0}")]
    Installed(#[from] TryInitError),
}

/// Begins to log for the whole process; `tracer` also receives spans.
///
/// # Errors
/// Where the filter can't be read or the process already logs.
pub fn init(options: &LogOptions, tracer: Option<SdkTracer>) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&options.filter).map_err(|error| LogError::Filter {
        filter: options.filter.clone(),
        error,
    })?;
    let lines = match options.format {
        Format::Pretty => fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .with_writer(std::io::stderr)
            .boxed(),
        Format::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .boxed(),
    };
    let spans = tracer.map(|tracer| {
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_filter(FilterFn::new(|metadata| is_exported(metadata.target())))
    });
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(spans)
        .try_init()?;
    Ok(())
}

/// Whether spans of `target` leave through the exporter: ours, but not those of receiving
/// telemetry, which would echo for ever where the exporter points at ourselves.
fn is_exported(target: &str) -> bool {
    target.starts_with("slogate") && !target.starts_with("slogate::server::otlp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receiving_telemetry_makes_no_telemetry() {
        assert!(is_exported("slogate::judge"));
        assert!(is_exported("slogate::server::api"));
        assert!(!is_exported("slogate::server::otlp::grpc"));
        assert!(!is_exported("h2::codec"));
    }

    #[test]
    fn a_bad_filter_says_what_was_expected() {
        let options = LogOptions {
            filter: "slogate=loud=er".to_owned(),
            ..LogOptions::default()
        };
        let error = init(&options, None).unwrap_err().to_string();
        assert!(error.contains("slogate=loud=er"), "{error}");
        assert!(error.contains("expected"), "{error}");
    }
}
