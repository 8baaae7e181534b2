//! Settings, and the data directory.
//!
//! What wins: a flag over the environment, the environment over the file, the file over the
//! default, for each setting on its own. All mistakes of all layers are told together, each
//! with its place and how to mend it, and nothing starts while there is one. Everything is
//! read once, at the start; a change needs a restart.
//!
//! - [`table`]: the one table of settings; file keys, names in the environment, flags and the
//!   reference are read from it.
//! - [`value`]: what a setting can hold.
//! - [`file`](mod@file): the YAML file as keys with their places.
//! - [`resolve`]: from layers to one value per setting, and where it came from.
//! - [`outbound`]: how HTTP peers are called; [`secret`]: text that is shown nowhere.
//! - [`source`]: where series are asked for.
//! - [`mistake`]: what is wrong, said so that it can be mended; [`suggest`]: did-you-mean.
//! - [`reference`](mod@reference): docs/configuration.md.
//! - [`data_dir`]: the data directory, its lock and its format.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;

pub mod data_dir;
pub mod file;
pub mod mistake;
pub mod outbound;
pub mod reference;
pub mod resolve;
pub mod secret;
pub mod source;
pub mod suggest;
pub mod table;
pub mod value;

pub use data_dir::{DataDir, DataDirError, Ports};
pub use mistake::{Mistake, Mistakes};
pub use outbound::{AuthSettings, OutboundSettings, SecretFrom, TlsSettings};
pub use resolve::{Layers, Origin, Values};
pub use secret::Secret;
pub use source::{EngineSettings, MappingSettings, NamedSource, RemoteSettings, SourceSettings};

use slogate_series::Matcher;
use value::Value;

/// All settings, typed and checked; see [`table::SETTINGS`] for what each is.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// Base of the links in answers, without a slash at the end.
    pub public_url: Option<String>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Telemetry in.
    pub ingest: IngestSettings,
    /// The embedded series store.
    pub store: StoreSettings,
    /// How long ended deployments stay in memory, in milliseconds.
    pub deployments_keep_ms: i64,
    /// How often active deployments are judged, in milliseconds.
    pub judge_interval_ms: i64,
    /// Files and directories of policies; empty for the built-in gate.
    pub policy_paths: Vec<PathBuf>,
    /// Where verdicts take their series from.
    pub source: SourceSettings,
    /// Other sources, for some services; the first that is for a target has its series.
    pub sources: Vec<NamedSource>,
    /// Series of ours out; `None` for nowhere.
    pub export: Option<ExportSettings>,
    /// Queries of the embedded store.
    pub query: QuerySettings,
    /// The origins whose pages may read the Prometheus API, as a regular expression.
    pub query_cors_origin: String,
    /// The log.
    pub log: LogSettings,
    /// Our own traces and metrics out; `None` for nowhere.
    pub telemetry: Option<TelemetrySettings>,
    /// Limits on what comes in.
    pub limits: LimitSettings,
    /// All of these as a YAML text, without secrets.
    pub shown: String,
}

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// API, health and /metrics.
    pub api: SocketAddr,
    /// OTLP over gRPC.
    pub otlp_grpc: SocketAddr,
    /// OTLP over HTTP.
    pub otlp_http: SocketAddr,
}

/// Telemetry in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngestSettings {
    /// Between ticks, in milliseconds.
    pub flush_interval_ms: i64,
    /// Request series a service may have.
    pub series_per_service: usize,
    /// Instances of a version that are counted apart.
    pub instances_per_version: usize,
    /// Series a service's own metrics may have.
    pub metric_series_per_service: usize,
    /// Remote-written series a job without a service may have.
    pub metric_series_per_job: usize,
    /// Silence after which a version's request series end, in milliseconds.
    pub version_idle_ms: i64,
}

/// The embedded series store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// How long samples are kept, in milliseconds.
    pub retention_ms: i64,
    /// Memory it may take, in bytes.
    pub size_max_bytes: u64,
    /// How late a sample may be, in milliseconds.
    pub out_of_order_window_ms: i64,
    /// Series it may hold.
    pub series_max: usize,
}

/// Series of ours out by remote write.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportSettings {
    /// Where to.
    pub endpoint: OutboundSettings,
    /// Which series.
    pub matchers: Vec<Matcher>,
    /// Labels that each series gets where it has none of that name.
    pub labels: Vec<(String, String)>,
    /// Disk that waiting samples may take, in bytes.
    pub queue_max_bytes: u64,
}

/// Queries of the embedded store, whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuerySettings {
    /// Queries evaluated at once.
    pub concurrency: usize,
    /// For a query to be answered, in milliseconds; waiting for its turn counts.
    pub timeout_ms: i64,
    /// Samples a query may hold at a time.
    pub samples_max: usize,
    /// How old a sample may be and still be the current one, in milliseconds.
    pub lookback_ms: i64,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// One JSON object a line instead of text for people.
    pub json: bool,
    /// Level or directives.
    pub filter: String,
}

/// Our own traces and metrics out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// An OTLP endpoint.
    pub endpoint: String,
    /// Protobuf over HTTP instead of gRPC.
    pub http: bool,
}

/// Limits on what comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// Connections a listener holds at once.
    pub connections: usize,
    /// An OTLP request after decompression, in bytes.
    pub request_body_bytes: usize,
    /// An OTLP request as sent, in bytes.
    pub request_body_wire_bytes: usize,
    /// A body of events, in bytes.
    pub event_body_bytes: usize,
    /// All requests being read, in bytes.
    pub in_flight_bytes: usize,
    /// To send a request's headers, in milliseconds.
    pub header_timeout_ms: i64,
    /// To send a request's body, in milliseconds.
    pub body_timeout_ms: i64,
    /// A connection without a request, in milliseconds.
    pub idle_timeout_ms: i64,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: usize,
    /// For requests in flight to finish at the end, in milliseconds.
    pub drain_ms: i64,
}

impl Config {
    /// Reads the layers, fills in what depends on the environment, and checks what spans
    /// several settings. The values are returned too, for `slogate config`.
    ///
    /// # Errors
    /// With every mistake of every layer.
    pub fn load(layers: &Layers) -> Result<(Config, Values), Mistakes> {
        let (mut values, mut mistakes) = Values::resolve(layers);
        let state_home = layers
            .env
            .iter()
            .find(|(name, value)| name == "XDG_STATE_HOME" && !value.is_empty());
        let dir = match state_home {
            Some((_, home)) => PathBuf::from(home).join("slogate"),
            None => PathBuf::from("./slogate-data"),
        };
        values.set_default("data.dir", Value::Path(dir));
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let concurrency = cores.max(2).saturating_mul(2);
        values.set_default("query.concurrency", Value::Count(concurrency as u64));
        let (mut config, more) = Config::from_values(&values);
        mistakes.extend(more);
        if mistakes.is_empty() {
            config.shown = values.shown();
            Ok((config, values))
        } else {
            Err(Mistakes(mistakes))
        }
    }

    /// Types `values`; also what does not go together in them.
    fn from_values(values: &Values) -> (Config, Vec<Mistake>) {
        let mut reader = Reader {
            values,
            mistakes: Vec::new(),
        };
        let (sources, in_sources) = source::named(values);
        let config = Config {
            listen: reader.listen(),
            public_url: reader.text("publicUrl"),
            data_dir: reader.path("data.dir"),
            ingest: IngestSettings {
                flush_interval_ms: reader.duration_ms("ingest.flushInterval"),
                series_per_service: reader.count("ingest.seriesPerService"),
                instances_per_version: reader.count("ingest.instancesPerVersion"),
                metric_series_per_service: reader.count("ingest.metricSeriesPerService"),
                metric_series_per_job: reader.count("ingest.metricSeriesPerJob"),
                version_idle_ms: reader.duration_ms("ingest.versionIdle"),
            },
            store: StoreSettings {
                retention_ms: reader.duration_ms("store.retention"),
                size_max_bytes: reader.size("store.sizeMax"),
                out_of_order_window_ms: reader.duration_ms("store.outOfOrderWindow"),
                series_max: reader.count("store.seriesMax"),
            },
            deployments_keep_ms: reader.duration_ms("deployments.keep"),
            judge_interval_ms: reader.duration_ms("judge.interval"),
            policy_paths: reader.paths("policy.paths"),
            source: reader.source(),
            sources,
            export: reader.export(),
            query: QuerySettings {
                concurrency: reader.count("query.concurrency"),
                timeout_ms: reader.duration_ms("query.timeout"),
                samples_max: reader.count("query.samplesMax"),
                lookback_ms: reader.duration_ms("query.lookback"),
            },
            query_cors_origin: reader.regex("query.corsOrigin"),
            log: LogSettings {
                json: reader.text("log.format").as_deref() == Some("json"),
                filter: reader.text("log.filter").unwrap_or_default(),
            },
            telemetry: reader
                .text("telemetry.endpoint")
                .map(|endpoint| TelemetrySettings {
                    endpoint,
                    http: reader.text("telemetry.protocol").as_deref() == Some("http"),
                }),
            limits: LimitSettings {
                connections: reader.count("limits.connections"),
                request_body_bytes: reader.size_usize("limits.requestBody"),
                request_body_wire_bytes: reader.size_usize("limits.requestBodyWire"),
                event_body_bytes: reader.size_usize("limits.eventBody"),
                in_flight_bytes: reader.size_usize("limits.inFlight"),
                header_timeout_ms: reader.duration_ms("limits.headerTimeout"),
                body_timeout_ms: reader.duration_ms("limits.bodyTimeout"),
                idle_timeout_ms: reader.duration_ms("limits.idleTimeout"),
                streams: reader.count("limits.streams"),
                drain_ms: reader.duration_ms("limits.drain"),
            },
            shown: String::new(),
        };
        reader.mistakes.extend(in_sources);
        (config, reader.mistakes)
    }
}

/// Takes values out by key, and keeps what is wrong.
struct Reader<'a> {
    values: &'a Values,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn listen(&mut self) -> Listen {
        let allowed = self.bool("listen.allowNonLoopback");
        let mut address = |key| {
            let address = self.address(key);
            if !allowed && !address.ip().is_loopback() {
                let (message, help) = (
                    format!(
                        "{key}: other machines could reach {address}, and there is no authentication"
                    ),
                    "listen on 127.0.0.1, or say listen.allowNonLoopback: true where the network \
                     keeps strangers out",
                );
                self.mistake(key, message, help);
            }
            address
        };
        Listen {
            api: address("listen.api"),
            otlp_grpc: address("listen.otlpGrpc"),
            otlp_http: address("listen.otlpHttp"),
        }
    }

    fn export(&mut self) -> Option<ExportSettings> {
        let endpoint = self.outbound("export");
        let text = self.text("export.match").unwrap_or_default();
        let matchers = match slogate_promql::parse_selector(&text) {
            Ok(matchers) => matchers,
            Err(error) => {
                self.mistake(
                    "export.match",
                    format!("export.match: {text:?} is no selector: {}", error.message),
                    "write a PromQL selector, for example {__name__=~\"slogate_.+\"}",
                );
                Vec::new()
            }
        };
        let labels = match self.values.get("export.labels") {
            Some((Value::Pairs(labels), _)) => labels.clone(),
            _ => Vec::new(),
        };
        let queue_max_bytes = self.size("export.queueSizeMax");
        Some(ExportSettings {
            endpoint: endpoint?,
            matchers,
            labels,
            queue_max_bytes,
        })
    }

    /// Keeps a mistake, unless the setting is known to be wrong already.
    fn mistake(&mut self, key: &str, message: String, help: &str) {
        if self.values.is_wrong(key) {
            return;
        }
        let origin = match self.values.get(key) {
            Some((_, origin)) => origin.to_string(),
            None => "settings".to_owned(),
        };
        self.mistakes.push(Mistake::new(origin, message).help(help));
    }

    /// What `pick` takes out of the value of `key`; a setting that the table lacks, or has
    /// with another kind, is a mistake of ours, which the tests below would find.
    fn required<T: Default>(&mut self, key: &str, pick: impl Fn(&Value) -> Option<T>) -> T {
        match self.values.get(key).and_then(|(value, _)| pick(value)) {
            Some(value) => value,
            None => {
                let message = format!("{key} has no value");
                self.mistake(key, message, "give it one");
                T::default()
            }
        }
    }

    fn address(&mut self, key: &str) -> SocketAddr {
        self.required(key, |value| match value {
            Value::Address(address) => Some(Some(*address)),
            _ => None,
        })
        .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn bool(&mut self, key: &str) -> bool {
        self.required(key, |value| match value {
            Value::Bool(b) => Some(*b),
            _ => None,
        })
    }

    fn count(&mut self, key: &str) -> usize {
        self.required(key, |value| match value {
            Value::Count(n) => usize::try_from(*n).ok(),
            _ => None,
        })
    }

    fn duration_ms(&mut self, key: &str) -> i64 {
        self.required(key, |value| match value {
            Value::Duration(ms) => Some(*ms),
            _ => None,
        })
    }

    fn size(&mut self, key: &str) -> u64 {
        self.required(key, |value| match value {
            Value::Size(bytes) => Some(*bytes),
            _ => None,
        })
    }

    fn size_usize(&mut self, key: &str) -> usize {
        usize::try_from(self.size(key)).unwrap_or(usize::MAX)
    }

    fn path(&mut self, key: &str) -> PathBuf {
        self.required(key, |value| match value {
            Value::Path(path) => Some(path.clone()),
            _ => None,
        })
    }

    fn paths(&self, key: &str) -> Vec<PathBuf> {
        match self.values.get(key) {
            Some((Value::Paths(paths), _)) => paths.clone(),
            _ => Vec::new(),
        }
    }

    fn regex(&mut self, key: &str) -> String {
        let pattern = self.text(key).unwrap_or_default();
        if let Err(error) = slogate_series::matcher::compile(&pattern) {
            let help = "write an RE2 expression for the whole origin, for example https://.*";
            self.mistake(key, format!("{key}: {error}"), help);
        }
        pattern
    }

    fn text(&self, key: &str) -> Option<String> {
        match self.values.get(key) {
            Some((Value::Text(text), _)) => Some(text.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(env: &[(&str, &str)]) -> Result<Config, Mistakes> {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let layers = Layers {
            env,
            ..Layers::default()
        };
        Config::load(&layers).map(|(config, _)| config)
    }

    #[test]
    fn nothing_set_is_a_daemon_on_loopback() {
        let config = load(&[]).unwrap();
        assert_eq!(config.listen.api.to_string(), "127.0.0.1:9560");
        assert_eq!(config.data_dir, PathBuf::from("./slogate-data"));
        assert_eq!(config.source.engine, EngineSettings::Embedded);
        assert_eq!(config.ingest.flush_interval_ms, 5000);
        assert_eq!(config.telemetry, None);
        assert!(config.query.concurrency >= 4);
        assert_eq!(config.query.timeout_ms, 120_000);
        assert!(config.policy_paths.is_empty());
    }

    #[test]
    fn the_data_directory_follows_xdg() {
        let config = load(&[("XDG_STATE_HOME", "/state")]).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/state/slogate"));
        let config = load(&[("XDG_STATE_HOME", "/state"), ("SLOGATE_DATA_DIR", "/d")]).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/d"));
    }

    /// Without authentication, a port that strangers reach lets them pass their own release.
    #[test]
    fn addresses_that_others_reach_need_permission() {
        let open = [
            ("SLOGATE_LISTEN_API", "0.0.0.0:9560"),
            ("SLOGATE_LISTEN_OTLP_HTTP", "[::]:4318"),
        ];
        let text = load(&open).unwrap_err().to_string();
        assert!(
            text.starts_with("SLOGATE_LISTEN_API: listen.api: other machines"),
            "{text}"
        );
        assert!(text.contains("SLOGATE_LISTEN_OTLP_HTTP: "), "{text}");
        assert!(text.contains("allowNonLoopback"), "{text}");
        let mut allowed = open.to_vec();
        allowed.push(("SLOGATE_LISTEN_ALLOW_NON_LOOPBACK", "true"));
        load(&allowed).unwrap();
        load(&[("SLOGATE_LISTEN_API", "[::1]:0")]).unwrap();
    }

    #[test]
    fn what_does_not_go_together_is_told_beside_what_is_wrong_in_itself() {
        let text = load(&[
            ("SLOGATE_LISTEN_API", "0.0.0.0:9560"),
            ("SLOGATE_JUDGE_INTERVAL", "5"),
            ("SLOGATE_SOURCE_KIND", "prometheus"),
            ("SLOGATE_SOURCE_URL", "prometheus"),
        ])
        .unwrap_err()
        .to_string();
        assert!(text.contains("other machines could reach"), "{text}");
        assert!(text.contains("has no unit"), "{text}");
        assert!(text.contains("is not a URL"), "{text}");
        assert!(
            !text.contains("needs source.url"),
            "one mistake, told once: {text}"
        );
    }

    #[test]
    fn a_remote_source_needs_its_url() {
        let text = load(&[("SLOGATE_SOURCE_KIND", "prometheus")])
            .unwrap_err()
            .to_string();
        assert!(text.contains("needs source.url"), "{text}");
        let config = load(&[
            ("SLOGATE_SOURCE_KIND", "prometheus"),
            ("SLOGATE_SOURCE_URL", "http://prom:9090/"),
        ])
        .unwrap();
        let EngineSettings::Prometheus(remote) = config.source.engine else {
            panic!("not remote")
        };
        let peer = remote.peer;
        assert_eq!(peer.url, "http://prom:9090");
        assert_eq!((peer.timeout_ms, peer.auth), (10_000, AuthSettings::None));
    }
}
