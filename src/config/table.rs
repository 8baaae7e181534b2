//! The one table of settings.
//!
//! A setting is a row here and a line in [`Config`](super::Config)'s reading; the file's
//! keys, the environment's names, the flags, `slogate config` and docs/configuration.md are
//! all read from the table, so they can't disagree.

use super::value::{Kind, Value, without_credentials};

/// One setting: how it is called, what it takes, what it is without being set.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its path in the file, for example `listen.otlpGrpc`.
    pub key: &'static str,
    /// Its name in the environment, for example `SLOGATE_LISTEN_OTLP_GRPC`.
    pub env: &'static str,
    /// Its flag without the dashes, for example `listen-otlp-grpc`.
    pub flag: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its value where nothing sets it, as text; `None` where it is then absent.
    pub default: Option<&'static str>,
    /// What it is for, in a sentence or two.
    pub doc: &'static str,
}

impl Setting {
    /// A value of it as it may be printed: a URL without the password that may be in it.
    pub fn shown(&self, value: &Value) -> String {
        match self.kind {
            Kind::Url => without_credentials(&value.to_string()),
            _ => value.to_string(),
        }
    }
}

const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The series that are remote-written where nothing else is said.
const EXPORT_MATCH: &str = r#"{__name__=~"(traces_span_metrics|traces_service_graph|slogate)_.+"}"#;

/// Every setting, in the order of the documentation.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "listen.api",
        env: "SLOGATE_LISTEN_API",
        flag: "listen-api",
        kind: Kind::Address,
        default: Some("127.0.0.1:9560"),
        doc: "Where the API, health and /metrics listen. Port 0 takes a free port, which is \
              printed and written to the `ports` file of the data directory.",
    },
    Setting {
        key: "listen.otlpGrpc",
        env: "SLOGATE_LISTEN_OTLP_GRPC",
        flag: "listen-otlp-grpc",
        kind: Kind::Address,
        default: Some("127.0.0.1:4317"),
        doc: "Where OTLP over gRPC listens.",
    },
    Setting {
        key: "listen.otlpHttp",
        env: "SLOGATE_LISTEN_OTLP_HTTP",
        flag: "listen-otlp-http",
        kind: Kind::Address,
        default: Some("127.0.0.1:4318"),
        doc: "Where OTLP over HTTP listens.",
    },
    Setting {
        key: "listen.allowNonLoopback",
        env: "SLOGATE_LISTEN_ALLOW_NON_LOOPBACK",
        flag: "listen-allow-non-loopback",
        kind: Kind::Bool,
        default: Some("false"),
        doc: "Permits addresses other machines can reach. There is no authentication yet: \
              whoever reaches the port can post events and telemetry, and so decide verdicts.",
    },
    Setting {
        key: "publicUrl",
        env: "SLOGATE_PUBLIC_URL",
        flag: "public-url",
        kind: Kind::Url,
        default: None,
        doc: "How others reach the API, for the links in answers; without it, links begin with \
              the address the API listens on.",
    },
    Setting {
        key: "data.dir",
        env: "SLOGATE_DATA_DIR",
        flag: "data-dir",
        kind: Kind::Path,
        default: None,
        doc: "The directory of everything kept. Without it, `$XDG_STATE_HOME/slogate` where \
              that variable is set, else `./slogate-data`.",
    },
    Setting {
        key: "ingest.flushInterval",
        env: "SLOGATE_INGEST_FLUSH_INTERVAL",
        flag: "ingest-flush-interval",
        kind: Kind::duration(SECOND_MS, MINUTE_MS),
        default: Some("5s"),
        doc: "How often what spans and logs add up to becomes samples. Ticks fall on multiples \
              of it.",
    },
    Setting {
        key: "ingest.seriesPerService",
        env: "SLOGATE_INGEST_SERIES_PER_SERVICE",
        flag: "ingest-series-per-service",
        kind: Kind::count(10, 1_000_000),
        default: Some("2000"),
        doc: "Request series one service may have; over it, new span names fold into `other`.",
    },
    Setting {
        key: "ingest.instancesPerVersion",
        env: "SLOGATE_INGEST_INSTANCES_PER_VERSION",
        flag: "ingest-instances-per-version",
        kind: Kind::count(0, 10_000),
        default: Some("64"),
        doc: "Instances of a version whose requests are counted apart, so that a bad node is \
              told from a bad version; further ones are counted together as `other`. 0 counts \
              none apart.",
    },
    Setting {
        key: "ingest.metricSeriesPerService",
        env: "SLOGATE_INGEST_METRIC_SERIES_PER_SERVICE",
        flag: "ingest-metric-series-per-service",
        kind: Kind::count(10, 10_000_000),
        default: Some("10000"),
        doc: "Series one service's own metrics may have; over it, points of new series are \
              refused with a reason.",
    },
    Setting {
        key: "ingest.metricSeriesPerJob",
        env: "SLOGATE_INGEST_METRIC_SERIES_PER_JOB",
        flag: "ingest-metric-series-per-job",
        kind: Kind::count(10, 10_000_000),
        default: Some("200000"),
        doc: "Remote-written series that one `job` may have where they carry no `service_name`; \
              over it, samples of new series are refused with a reason.",
    },
    Setting {
        key: "ingest.versionIdle",
        env: "SLOGATE_INGEST_VERSION_IDLE",
        flag: "ingest-version-idle",
        kind: Kind::duration(MINUTE_MS, 30 * DAY_MS),
        default: Some("1h"),
        doc: "How long a version may be silent before its request series end.",
    },
    Setting {
        key: "store.retention",
        env: "SLOGATE_STORE_RETENTION",
        flag: "store-retention",
        kind: Kind::duration(HOUR_MS, 3650 * DAY_MS),
        default: Some("15d"),
        doc: "How long samples are kept.",
    },
    Setting {
        key: "store.sizeMax",
        env: "SLOGATE_STORE_SIZE_MAX",
        flag: "store-size-max",
        kind: Kind::size(16 * MIB, 4096 * GIB),
        default: Some("2GiB"),
        doc: "Memory the series store may take; over it, the oldest samples go first.",
    },
    Setting {
        key: "store.outOfOrderWindow",
        env: "SLOGATE_STORE_OUT_OF_ORDER_WINDOW",
        flag: "store-out-of-order-window",
        kind: Kind::duration(0, DAY_MS),
        default: Some("30m"),
        doc: "How much older than a series' newest sample a sample may be and still be taken.",
    },
    Setting {
        key: "store.seriesMax",
        env: "SLOGATE_STORE_SERIES_MAX",
        flag: "store-series-max",
        kind: Kind::count(1000, 100_000_000),
        default: Some("2000000"),
        doc: "Series the store may hold; over it, new series are refused.",
    },
    Setting {
        key: "deployments.keep",
        env: "SLOGATE_DEPLOYMENTS_KEEP",
        flag: "deployments-keep",
        kind: Kind::duration(DAY_MS, 3650 * DAY_MS),
        default: Some("90d"),
        doc: "How long ended deployments stay in memory and in lists; on disk they stay for \
              good.",
    },
    Setting {
        key: "judge.interval",
        env: "SLOGATE_JUDGE_INTERVAL",
        flag: "judge-interval",
        kind: Kind::duration(SECOND_MS, 10 * MINUTE_MS),
        default: Some("10s"),
        doc: "How often every active deployment is judged.",
    },
    Setting {
        key: "policy.paths",
        env: "SLOGATE_POLICY_PATHS",
        flag: "policy-paths",
        kind: Kind::Paths,
        default: None,
        doc: "Files and directories of policies (`*.yaml`, `*.yml`). Without it, the built-in \
              gate `canary` applies. In the environment and as a flag the paths are separated \
              by commas.",
    },
    Setting {
        key: "source.kind",
        env: "SLOGATE_SOURCE_KIND",
        flag: "source-kind",
        kind: Kind::Choice(&["embedded", "prometheus"]),
        default: Some("embedded"),
        doc: "Where verdicts take their series from: the embedded store, or a \
              Prometheus-compatible server.",
    },
    Setting {
        key: "source.url",
        env: "SLOGATE_SOURCE_URL",
        flag: "source-url",
        kind: Kind::Url,
        default: None,
        doc: "That server's base URL, for `source.kind: prometheus`.",
    },
    Setting {
        key: "source.bearerToken",
        env: "SLOGATE_SOURCE_BEARER_TOKEN",
        flag: "source-bearer-token",
        kind: Kind::Secret,
        default: None,
        doc: "A token that is sent as `Authorization: Bearer`.",
    },
    Setting {
        key: "source.bearerTokenFile",
        env: "SLOGATE_SOURCE_BEARER_TOKEN_FILE",
        flag: "source-bearer-token-file",
        kind: Kind::Path,
        default: None,
        doc: "A file with that token; it is read for every request, so that a new token needs no \
              restart.",
    },
    Setting {
        key: "source.username",
        env: "SLOGATE_SOURCE_USERNAME",
        flag: "source-username",
        kind: Kind::Text,
        default: None,
        doc: "The user of basic authentication.",
    },
    Setting {
        key: "source.password",
        env: "SLOGATE_SOURCE_PASSWORD",
        flag: "source-password",
        kind: Kind::Secret,
        default: None,
        doc: "That user's password.",
    },
    Setting {
        key: "source.passwordFile",
        env: "SLOGATE_SOURCE_PASSWORD_FILE",
        flag: "source-password-file",
        kind: Kind::Path,
        default: None,
        doc: "A file with that password; it is read for every request.",
    },
    Setting {
        key: "source.headers",
        env: "SLOGATE_SOURCE_HEADERS",
        flag: "source-headers",
        kind: Kind::Headers,
        default: None,
        doc: "Headers of every request, for example `X-Scope-OrgID` for the tenant of a Mimir. \
              Their values are shown nowhere.",
    },
    Setting {
        key: "source.tls.caFile",
        env: "SLOGATE_SOURCE_TLS_CA_FILE",
        flag: "source-tls-ca-file",
        kind: Kind::Path,
        default: None,
        doc: "Certificates (PEM) of who is trusted, instead of the system's.",
    },
    Setting {
        key: "source.tls.certFile",
        env: "SLOGATE_SOURCE_TLS_CERT_FILE",
        flag: "source-tls-cert-file",
        kind: Kind::Path,
        default: None,
        doc: "Our certificate (PEM), where the server wants one; it goes with \
              `source.tls.keyFile`. A new one on disk needs no restart.",
    },
    Setting {
        key: "source.tls.keyFile",
        env: "SLOGATE_SOURCE_TLS_KEY_FILE",
        flag: "source-tls-key-file",
        kind: Kind::Path,
        default: None,
        doc: "That certificate's private key (PEM).",
    },
    Setting {
        key: "source.tls.insecureSkipVerify",
        env: "SLOGATE_SOURCE_TLS_INSECURE_SKIP_VERIFY",
        flag: "source-tls-insecure-skip-verify",
        kind: Kind::Bool,
        default: Some("false"),
        doc: "Trusts whatever certificate the server shows: anybody on the way can read the token \
              and make up the answers that verdicts rest on.",
    },
    Setting {
        key: "source.proxy",
        env: "SLOGATE_SOURCE_PROXY",
        flag: "source-proxy",
        kind: Kind::Choice(&["none", "environment"]),
        default: Some("none"),
        doc: "Which proxy is used: none, or what `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say.",
    },
    Setting {
        key: "source.connectTimeout",
        env: "SLOGATE_SOURCE_CONNECT_TIMEOUT",
        flag: "source-connect-timeout",
        kind: Kind::duration(10, MINUTE_MS),
        default: Some("5s"),
        doc: "How long making a connection may take.",
    },
    Setting {
        key: "source.timeout",
        env: "SLOGATE_SOURCE_TIMEOUT",
        flag: "source-timeout",
        kind: Kind::duration(100, 10 * MINUTE_MS),
        default: Some("10s"),
        doc: "How long one query may take in all, waiting for its turn and trying again included; \
              after it the check is inconclusive.",
    },
    Setting {
        key: "source.params",
        env: "SLOGATE_SOURCE_PARAMS",
        flag: "source-params",
        kind: Kind::Pairs,
        default: None,
        doc: "Parameters of every query, for example `dedup` for Thanos.",
    },
    Setting {
        key: "source.concurrency",
        env: "SLOGATE_SOURCE_CONCURRENCY",
        flag: "source-concurrency",
        kind: Kind::count(1, 1000),
        default: Some("8"),
        doc: "Queries that the server is asked at once; further ones wait, within their own \
              time.",
    },
    Setting {
        key: "source.answerSizeMax",
        env: "SLOGATE_SOURCE_ANSWER_SIZE_MAX",
        flag: "source-answer-size-max",
        kind: Kind::size(KIB, 4 * GIB),
        default: Some("64MiB"),
        doc: "The largest answer that is read, after decompression.",
    },
    Setting {
        key: "source.partialAnswers",
        env: "SLOGATE_SOURCE_PARTIAL_ANSWERS",
        flag: "source-partial-answers",
        kind: Kind::Choice(&["refuse", "warn"]),
        default: Some("refuse"),
        doc: "What becomes of an answer that the server itself calls incomplete, as Thanos does \
              when a store is away: `refuse` makes the check inconclusive, `warn` judges by what \
              is there and shows the warning in the evidence.",
    },
    Setting {
        key: "source.observeVersions",
        env: "SLOGATE_SOURCE_OBSERVE_VERSIONS",
        flag: "source-observe-versions",
        kind: Kind::Bool,
        default: Some("true"),
        doc: "Whether the server is asked which versions run, so that versions that nobody \
              announced are noticed.",
    },
    Setting {
        key: "source.mapping",
        env: "SLOGATE_SOURCE_MAPPING",
        flag: "source-mapping",
        kind: Kind::Choice(&[
            "otel",
            "otel-prometheus",
            "target-info",
            "kube-state-metrics",
            "istio",
            "linkerd",
            "plain",
        ]),
        default: Some("otel"),
        doc: "Which series are requests and which labels say whose they are; docs/sources.md has \
              the table. The settings below change single parts of it.",
    },
    Setting {
        key: "source.labels",
        env: "SLOGATE_SOURCE_LABELS",
        flag: "source-labels",
        kind: Kind::Pairs,
        default: None,
        doc: "The labels that carry `service`, `environment`, `version` and `instance`; `-` as \
              the environment or the instance where none does.",
    },
    Setting {
        key: "source.patterns",
        env: "SLOGATE_SOURCE_PATTERNS",
        flag: "source-patterns",
        kind: Kind::Pairs,
        default: None,
        doc: "Regular expressions for the values of these labels; the one group in parentheses \
              is what counts, for example `version: '.*:(.+)'` for the tag of an image.",
    },
    Setting {
        key: "source.requests.count",
        env: "SLOGATE_SOURCE_REQUESTS_COUNT",
        flag: "source-requests-count",
        kind: Kind::Text,
        default: None,
        doc: "The counter of requests.",
    },
    Setting {
        key: "source.requests.only",
        env: "SLOGATE_SOURCE_REQUESTS_ONLY",
        flag: "source-requests-only",
        kind: Kind::Text,
        default: None,
        doc: "Matchers of those of its series that count, for example `reporter=\"destination\"`; \
              `-` for all.",
    },
    Setting {
        key: "source.requests.errors",
        env: "SLOGATE_SOURCE_REQUESTS_ERRORS",
        flag: "source-requests-errors",
        kind: Kind::Text,
        default: None,
        doc: "Matchers of failed requests, for example `code=~\"5..\"`.",
    },
    Setting {
        key: "source.requests.duration",
        env: "SLOGATE_SOURCE_REQUESTS_DURATION",
        flag: "source-requests-duration",
        kind: Kind::Text,
        default: None,
        doc: "The histogram of how long requests take: a native one of this name, or else \
              classic buckets, whose series end in `_bucket`.",
    },
    Setting {
        key: "source.requests.durationUnit",
        env: "SLOGATE_SOURCE_REQUESTS_DURATION_UNIT",
        flag: "source-requests-duration-unit",
        kind: Kind::Choice(&["s", "ms"]),
        default: None,
        doc: "What it counts in.",
    },
    Setting {
        key: "source.requests.spanKind",
        env: "SLOGATE_SOURCE_REQUESTS_SPAN_KIND",
        flag: "source-requests-span-kind",
        kind: Kind::Text,
        default: None,
        doc: "The label that tells server spans from others; `-` for none.",
    },
    Setting {
        key: "source.join.metric",
        env: "SLOGATE_SOURCE_JOIN_METRIC",
        flag: "source-join-metric",
        kind: Kind::Text,
        default: None,
        doc: "A metric, or a selector, that carries the version for series that don't, for \
              example `target_info`; `-` for none.",
    },
    Setting {
        key: "source.join.on",
        env: "SLOGATE_SOURCE_JOIN_ON",
        flag: "source-join-on",
        kind: Kind::Text,
        default: None,
        doc: "The labels that it shares with them, separated by commas or blanks.",
    },
    Setting {
        key: "source.join.labels",
        env: "SLOGATE_SOURCE_JOIN_LABELS",
        flag: "source-join-labels",
        kind: Kind::Text,
        default: None,
        doc: "What it carries: `version`, or `version environment`.",
    },
    Setting {
        key: "export.url",
        env: "SLOGATE_EXPORT_URL",
        flag: "export-url",
        kind: Kind::Url,
        default: None,
        doc: "Where series of ours are remote-written to (1.0), for example \
              `http://prometheus:9090/api/v1/write`. Without it nothing is.",
    },
    Setting {
        key: "export.match",
        env: "SLOGATE_EXPORT_MATCH",
        flag: "export-match",
        kind: Kind::Text,
        default: Some(EXPORT_MATCH),
        doc: "Which series are written there, as a PromQL selector. By default those that spans \
              became, and `slogate_*`.",
    },
    Setting {
        key: "export.labels",
        env: "SLOGATE_EXPORT_LABELS",
        flag: "export-labels",
        kind: Kind::Pairs,
        default: None,
        doc: "Labels that each of these series gets, where it has no label of that name: they tell \
              several slogates apart.",
    },
    Setting {
        key: "export.queueSizeMax",
        env: "SLOGATE_EXPORT_QUEUE_SIZE_MAX",
        flag: "export-queue-size-max",
        kind: Kind::size(MIB, 1024 * GIB),
        default: Some("256MiB"),
        doc: "Disk that samples may take while they wait; over it, the oldest go.",
    },
    Setting {
        key: "export.bearerToken",
        env: "SLOGATE_EXPORT_BEARER_TOKEN",
        flag: "export-bearer-token",
        kind: Kind::Secret,
        default: None,
        doc: "A token that is sent as `Authorization: Bearer`.",
    },
    Setting {
        key: "export.bearerTokenFile",
        env: "SLOGATE_EXPORT_BEARER_TOKEN_FILE",
        flag: "export-bearer-token-file",
        kind: Kind::Path,
        default: None,
        doc: "A file with that token; it is read for every request, so that a new token needs no \
              restart.",
    },
    Setting {
        key: "export.username",
        env: "SLOGATE_EXPORT_USERNAME",
        flag: "export-username",
        kind: Kind::Text,
        default: None,
        doc: "The user of basic authentication.",
    },
    Setting {
        key: "export.password",
        env: "SLOGATE_EXPORT_PASSWORD",
        flag: "export-password",
        kind: Kind::Secret,
        default: None,
        doc: "That user's password.",
    },
    Setting {
        key: "export.passwordFile",
        env: "SLOGATE_EXPORT_PASSWORD_FILE",
        flag: "export-password-file",
        kind: Kind::Path,
        default: None,
        doc: "A file with that password; it is read for every request.",
    },
    Setting {
        key: "export.headers",
        env: "SLOGATE_EXPORT_HEADERS",
        flag: "export-headers",
        kind: Kind::Headers,
        default: None,
        doc: "Headers of every request, for example `X-Scope-OrgID` for the tenant of a Mimir. \
              Their values are shown nowhere.",
    },
    Setting {
        key: "export.tls.caFile",
        env: "SLOGATE_EXPORT_TLS_CA_FILE",
        flag: "export-tls-ca-file",
        kind: Kind::Path,
        default: None,
        doc: "Certificates (PEM) of who is trusted, instead of the system's.",
    },
    Setting {
        key: "export.tls.certFile",
        env: "SLOGATE_EXPORT_TLS_CERT_FILE",
        flag: "export-tls-cert-file",
        kind: Kind::Path,
        default: None,
        doc: "Our certificate (PEM), where the server wants one; it goes with \
              `export.tls.keyFile`. A new one on disk needs no restart.",
    },
    Setting {
        key: "export.tls.keyFile",
        env: "SLOGATE_EXPORT_TLS_KEY_FILE",
        flag: "export-tls-key-file",
        kind: Kind::Path,
        default: None,
        doc: "That certificate's private key (PEM).",
    },
    Setting {
        key: "export.tls.insecureSkipVerify",
        env: "SLOGATE_EXPORT_TLS_INSECURE_SKIP_VERIFY",
        flag: "export-tls-insecure-skip-verify",
        kind: Kind::Bool,
        default: Some("false"),
        doc: "Trusts whatever certificate the server shows: anybody on the way can read the token \
              and all samples.",
    },
    Setting {
        key: "export.proxy",
        env: "SLOGATE_EXPORT_PROXY",
        flag: "export-proxy",
        kind: Kind::Choice(&["none", "environment"]),
        default: Some("none"),
        doc: "Which proxy is used: none, or what `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say.",
    },
    Setting {
        key: "export.connectTimeout",
        env: "SLOGATE_EXPORT_CONNECT_TIMEOUT",
        flag: "export-connect-timeout",
        kind: Kind::duration(10, MINUTE_MS),
        default: Some("5s"),
        doc: "How long making a connection may take.",
    },
    Setting {
        key: "export.timeout",
        env: "SLOGATE_EXPORT_TIMEOUT",
        flag: "export-timeout",
        kind: Kind::duration(100, 10 * MINUTE_MS),
        default: Some("30s"),
        doc: "How long one request may take; after it the same is sent again.",
    },
    Setting {
        key: "query.concurrency",
        env: "SLOGATE_QUERY_CONCURRENCY",
        flag: "query-concurrency",
        kind: Kind::count(1, 10_000),
        default: None,
        doc: "Queries the embedded store evaluates at once; further ones wait for their turn. \
              Without it, twice the number of cores, at least 4.",
    },
    Setting {
        key: "query.timeout",
        env: "SLOGATE_QUERY_TIMEOUT",
        flag: "query-timeout",
        kind: Kind::duration(100, HOUR_MS),
        default: Some("2m"),
        doc: "How long a query of the embedded store may take, waiting included.",
    },
    Setting {
        key: "query.samplesMax",
        env: "SLOGATE_QUERY_SAMPLES_MAX",
        flag: "query-samples-max",
        kind: Kind::count(1000, 100_000_000_000),
        default: Some("50000000"),
        doc: "Samples one query may hold in memory at a time; a float takes 16 bytes, a native \
              histogram counts by its size.",
    },
    Setting {
        key: "query.lookback",
        env: "SLOGATE_QUERY_LOOKBACK",
        flag: "query-lookback",
        kind: Kind::duration(SECOND_MS, DAY_MS),
        default: Some("5m"),
        doc: "How old a sample may be and still be a series' current value.",
    },
    Setting {
        key: "query.corsOrigin",
        env: "SLOGATE_QUERY_CORS_ORIGIN",
        flag: "query-cors-origin",
        kind: Kind::Text,
        default: Some(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?"),
        doc: "The origins whose web pages may read the Prometheus API in a browser, as a regular \
              expression for the whole origin. `.*` is every origin, as in Prometheus; `none` is \
              none.",
    },
    Setting {
        key: "log.format",
        env: "SLOGATE_LOG_FORMAT",
        flag: "log-format",
        kind: Kind::Choice(&["pretty", "json"]),
        default: Some("pretty"),
        doc: "How the log, on standard error, is written.",
    },
    Setting {
        key: "log.filter",
        env: "SLOGATE_LOG_FILTER",
        flag: "log-filter",
        kind: Kind::Text,
        default: Some("info"),
        doc: "What is logged: a level, or directives such as `info,slogate::judge=debug`.",
    },
    Setting {
        key: "telemetry.endpoint",
        env: "SLOGATE_TELEMETRY_ENDPOINT",
        flag: "telemetry-endpoint",
        kind: Kind::Url,
        default: None,
        doc: "Where slogate sends its own traces and metrics over OTLP; nowhere without it.",
    },
    Setting {
        key: "telemetry.protocol",
        env: "SLOGATE_TELEMETRY_PROTOCOL",
        flag: "telemetry-protocol",
        kind: Kind::Choice(&["grpc", "http"]),
        default: Some("grpc"),
        doc: "Which OTLP that endpoint speaks: gRPC, or protobuf over HTTP.",
    },
    Setting {
        key: "limits.connections",
        env: "SLOGATE_LIMITS_CONNECTIONS",
        flag: "limits-connections",
        kind: Kind::count(1, 1_000_000),
        default: Some("4096"),
        doc: "Connections each listener holds at once; further ones are closed at once.",
    },
    Setting {
        key: "limits.requestBody",
        env: "SLOGATE_LIMITS_REQUEST_BODY",
        flag: "limits-request-body",
        kind: Kind::size(KIB, GIB),
        default: Some("64MiB"),
        doc: "The largest OTLP request after decompression.",
    },
    Setting {
        key: "limits.requestBodyWire",
        env: "SLOGATE_LIMITS_REQUEST_BODY_WIRE",
        flag: "limits-request-body-wire",
        kind: Kind::size(KIB, GIB),
        default: Some("64MiB"),
        doc: "The largest OTLP request as it is sent, compressed or not.",
    },
    Setting {
        key: "limits.eventBody",
        env: "SLOGATE_LIMITS_EVENT_BODY",
        flag: "limits-event-body",
        kind: Kind::size(KIB, 64 * MIB),
        default: Some("1MiB"),
        doc: "The largest body of events.",
    },
    Setting {
        key: "limits.inFlight",
        env: "SLOGATE_LIMITS_IN_FLIGHT",
        flag: "limits-in-flight",
        kind: Kind::size(MIB, 64 * GIB),
        default: Some("256MiB"),
        doc: "Memory all requests being read may take together; over it, senders are told to \
              come back.",
    },
    Setting {
        key: "limits.headerTimeout",
        env: "SLOGATE_LIMITS_HEADER_TIMEOUT",
        flag: "limits-header-timeout",
        kind: Kind::duration(100, 10 * MINUTE_MS),
        default: Some("10s"),
        doc: "How long a client may take to send a request's headers.",
    },
    Setting {
        key: "limits.bodyTimeout",
        env: "SLOGATE_LIMITS_BODY_TIMEOUT",
        flag: "limits-body-timeout",
        kind: Kind::duration(100, 10 * MINUTE_MS),
        default: Some("30s"),
        doc: "How long a client may take to send a request's body.",
    },
    Setting {
        key: "limits.idleTimeout",
        env: "SLOGATE_LIMITS_IDLE_TIMEOUT",
        flag: "limits-idle-timeout",
        kind: Kind::duration(SECOND_MS, HOUR_MS),
        default: Some("2m"),
        doc: "How long a connection may be open without a request.",
    },
    Setting {
        key: "limits.streams",
        env: "SLOGATE_LIMITS_STREAMS",
        flag: "limits-streams",
        kind: Kind::count(1, 100_000),
        default: Some("128"),
        doc: "Requests at a time on one HTTP/2 connection.",
    },
    Setting {
        key: "limits.drain",
        env: "SLOGATE_LIMITS_DRAIN",
        flag: "limits-drain",
        kind: Kind::duration(0, 10 * MINUTE_MS),
        default: Some("15s"),
        doc: "How long requests in flight may take to finish when the daemon stops.",
    },
];

/// What only a named source has, beside the settings of `source`; in the file only.
pub const NAMED: &[Setting] = &[
    Setting {
        key: "source.service",
        env: "",
        flag: "",
        kind: Kind::Text,
        default: None,
        doc: "The services that it is for: a name, or a pattern in which `*` stands for any run \
              of characters.",
    },
    Setting {
        key: "source.environment",
        env: "",
        flag: "",
        kind: Kind::Text,
        default: None,
        doc: "The environments that it is for, likewise.",
    },
];

/// The setting of that key below a named source, for example `timeout`.
pub fn by_named_key(key: &str) -> Option<&'static Setting> {
    let all = SETTINGS.iter().chain(NAMED);
    all.into_iter()
        .find(|setting| setting.key.strip_prefix("source.") == Some(key))
}

/// The setting of that key.
pub fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The setting of that environment variable.
pub fn by_env(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.env == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `listen.otlpGrpc` as words: `listen`, `otlp`, `grpc`.
    fn words(key: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        for c in key.chars() {
            if c == '.' {
                words.push(String::new());
            } else {
                if c.is_ascii_uppercase() {
                    words.push(String::new());
                }
                if let Some(word) = words.last_mut() {
                    word.push(c.to_ascii_lowercase());
                }
            }
        }
        words
    }

    #[test]
    fn names_follow_from_the_key() {
        for setting in SETTINGS {
            let words = words(setting.key);
            let env = format!("SLOGATE_{}", words.join("_").to_uppercase());
            assert_eq!(setting.env, env);
            assert_eq!(setting.flag, words.join("-"), "{}", setting.key);
            assert!(setting.doc.ends_with('.'), "{}", setting.key);
        }
    }

    #[test]
    fn no_key_is_there_twice_or_inside_another() {
        for (n, a) in SETTINGS.iter().enumerate() {
            for b in &SETTINGS[n + 1..] {
                assert_ne!(a.key, b.key);
                assert!(!b.key.starts_with(&format!("{}.", a.key)));
                assert!(!a.key.starts_with(&format!("{}.", b.key)));
            }
        }
    }

    #[test]
    fn defaults_are_values_of_their_kind_and_print_as_written() {
        for setting in SETTINGS {
            if let Some(text) = setting.default {
                let value = Value::parse(setting.kind, text).unwrap();
                assert_eq!(value.to_string(), text, "{}", setting.key);
            }
        }
    }
}
