//! Settings of where verdicts take their series from.
//!
//! `source` is the default; below `sources`, each name is another one, for the services and
//! environments that it says. Such a named source takes everything it does not set from `source`,
//! with one exception: **one with a `url` of its own takes no credentials, headers, parameters or
//! certificates**, so that a token is never sent to a server that it was not meant for.

use super::outbound::OutboundSettings;
use super::resolve::Values;
use super::value::Value;
use super::{Mistake, Reader};

/// What a source with a URL of its own does not take from `source`.
const OF_THE_PEER: [&str; 10] = [
    "bearerToken",
    "bearerTokenFile",
    "username",
    "password",
    "passwordFile",
    "headers",
    "params",
    "tls.caFile",
    "tls.certFile",
    "tls.keyFile",
];

/// Who a source says it is: setting one of these replaces all of them.
const WHO: [&str; 5] = [
    "bearerToken",
    "bearerTokenFile",
    "username",
    "password",
    "passwordFile",
];

/// A place that series are asked of, and how they are read.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSettings {
    /// What is asked.
    pub engine: EngineSettings,
    /// Which series are requests, and which labels say whose they are.
    pub mapping: MappingSettings,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineSettings {
    /// The embedded store.
    Embedded,
    /// A Prometheus-compatible server.
    Prometheus(Box<RemoteSettings>),
}

/// A Prometheus-compatible server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSettings {
    /// Where it is, and who we are to it.
    pub peer: OutboundSettings,
    /// Parameters of every query, for example `dedup=true` for Thanos.
    pub params: Vec<(String, String)>,
    /// Queries that it is asked at once.
    pub concurrency: usize,
    /// The largest answer that is read, in bytes.
    pub answer_bytes_max: usize,
    /// Whether an answer that says it is partial counts.
    pub takes_partial: bool,
    /// Whether it is asked which versions run.
    pub observes: bool,
}

/// Which series are requests, and which labels say whose they are: a preset, and what is unlike
/// it. Texts are checked where they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingSettings {
    /// The preset.
    pub preset: String,
    /// The labels that carry `service`, `environment`, `version` and `instance`.
    pub labels: Vec<(String, String)>,
    /// Regular expressions whose one group is the part of the label's value that counts.
    pub patterns: Vec<(String, String)>,
    /// The counter of requests.
    pub count: Option<String>,
    /// Matchers of the series that count.
    pub only: Option<String>,
    /// Matchers of failed requests.
    pub errors: Option<String>,
    /// The histogram of durations.
    pub duration: Option<String>,
    /// Its unit: `s` or `ms`.
    pub duration_unit: Option<String>,
    /// The label with the span kind.
    pub span_kind: Option<String>,
    /// A metric, or a selector, that carries labels for others.
    pub join_metric: Option<String>,
    /// The labels that it shares with them.
    pub join_on: Option<String>,
    /// What it carries: `version`, or `version,environment`.
    pub join_labels: Option<String>,
}

/// The preset `otel`.
impl Default for MappingSettings {
    fn default() -> Self {
        MappingSettings {
            preset: "otel".to_owned(),
            labels: Vec::new(),
            patterns: Vec::new(),
            count: None,
            only: None,
            errors: None,
            duration: None,
            duration_unit: None,
            span_kind: None,
            join_metric: None,
            join_on: None,
            join_labels: None,
        }
    }
}

/// A source for some services only.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedSource {
    /// Its name in the settings.
    pub name: String,
    /// Whose series it has: a name or a pattern with `*`.
    pub service: String,
    /// In which environment: a name or a pattern with `*`.
    pub environment: String,
    /// The source.
    pub source: SourceSettings,
}

impl Reader<'_> {
    /// The source that the `source` section describes.
    pub(super) fn source(&mut self) -> SourceSettings {
        let mapping = self.mapping();
        let remote = self.remote();
        let is_remote = self.text("source.kind").as_deref() == Some("prometheus");
        let engine = match remote.filter(|_| is_remote) {
            Some(remote) => EngineSettings::Prometheus(Box::new(remote)),
            None => {
                if is_remote && !self.values.is_wrong("source.url") {
                    self.mistake(
                        "source.kind",
                        "source.kind: prometheus needs source.url".to_owned(),
                        "set source.url, for example http://127.0.0.1:9090",
                    );
                }
                EngineSettings::Embedded
            }
        };
        SourceSettings { engine, mapping }
    }

    fn remote(&mut self) -> Option<RemoteSettings> {
        let (concurrency, answer) = (
            self.count("source.concurrency"),
            self.size_usize("source.answerSizeMax"),
        );
        let observes = self.bool("source.observeVersions");
        Some(RemoteSettings {
            peer: self.outbound("source")?,
            params: self.pairs("source.params"),
            concurrency,
            answer_bytes_max: answer,
            takes_partial: self.text("source.partialAnswers").as_deref() == Some("warn"),
            observes,
        })
    }

    fn mapping(&self) -> MappingSettings {
        MappingSettings {
            preset: self.text("source.mapping").unwrap_or_default(),
            labels: self.pairs("source.labels"),
            patterns: self.pairs("source.patterns"),
            count: self.text("source.requests.count"),
            only: self.text("source.requests.only"),
            errors: self.text("source.requests.errors"),
            duration: self.text("source.requests.duration"),
            duration_unit: self.text("source.requests.durationUnit"),
            span_kind: self.text("source.requests.spanKind"),
            join_metric: self.text("source.join.metric"),
            join_on: self.text("source.join.on"),
            join_labels: self.text("source.join.labels"),
        }
    }

    fn pairs(&self, key: &str) -> Vec<(String, String)> {
        match self.values.get(key) {
            Some((Value::Pairs(pairs), _)) => pairs.clone(),
            _ => Vec::new(),
        }
    }
}

/// The named sources of `values`, in the file's order, and what is wrong with them.
pub(super) fn named(values: &Values) -> (Vec<NamedSource>, Vec<Mistake>) {
    let (mut found, mut mistakes) = (Vec::new(), Vec::new());
    for (name, own) in values.scopes() {
        let has = |key: &str| own.get(&format!("source.{key}")).is_some();
        let mut merged = values.clone();
        if has("url") {
            for key in OF_THE_PEER {
                merged.unset(&format!("source.{key}"));
            }
        }
        if WHO.iter().any(|key| has(key)) {
            for key in WHO {
                merged.unset(&format!("source.{key}"));
            }
        }
        merged.overlay(own);
        let mut reader = Reader {
            values: &merged,
            mistakes: Vec::new(),
        };
        let source = reader.source();
        let pattern = |key: &str| reader.text(&format!("source.{key}"));
        let (service, environment) = (pattern("service"), pattern("environment"));
        if name == "default" {
            let message = "sources.default: that name is taken by `source`".to_owned();
            mistakes.push(Mistake::new(own.place(), message).help("call it something else"));
        }
        if service.is_none() && environment.is_none() {
            let message = format!("sources.{name} does not say for which services it is");
            let help = "give it `service` or `environment`, a name or a pattern such as shop-*";
            mistakes.push(Mistake::new(own.place(), message).help(help));
        }
        mistakes.extend(reader.mistakes);
        found.push(NamedSource {
            name: name.to_owned(),
            service: service.unwrap_or_else(|| "*".to_owned()),
            environment: environment.unwrap_or_else(|| "*".to_owned()),
            source,
        });
    }
    (found, mistakes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::file::SettingsFile;
    use crate::config::{AuthSettings, Config, Layers, Mistakes};

    fn load(text: &str) -> Result<Config, Mistakes> {
        let file = SettingsFile::parse(Path::new("slogate.yaml"), text.to_owned());
        let layers = Layers {
            file: Some(file.unwrap()),
            ..Layers::default()
        };
        Config::load(&layers).map(|(config, _)| config)
    }

    fn remote(source: &SourceSettings) -> &RemoteSettings {
        match &source.engine {
            EngineSettings::Prometheus(remote) => remote,
            EngineSettings::Embedded => panic!("embedded"),
        }
    }

    const FILE: &str = "
source:
  kind: prometheus
  url: https://prometheus.example.com
  bearerToken: secret
  params: { dedup: 'true' }
  requests: { count: calls_total }
sources:
  shop:
    service: shop-*
    mapping: istio
    timeout: 3s
  tenant:
    environment: staging
    username: reader
    password: other
  elsewhere:
    service: legacy
    url: http://10.0.0.1:9090
  own:
    service: own
    kind: embedded
";

    #[test]
    fn named_sources_take_over_what_they_do_not_set() {
        let config = load(FILE).unwrap();
        let names: Vec<_> = config.sources.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(
            names,
            ["shop", "tenant", "elsewhere", "own"],
            "in the file's order"
        );
        let [shop, tenant, elsewhere, own] = config.sources.as_slice() else {
            panic!()
        };
        assert_eq!(
            (shop.service.as_str(), shop.environment.as_str()),
            ("shop-*", "*")
        );
        assert_eq!(shop.source.mapping.preset, "istio");
        assert_eq!(shop.source.mapping.count.as_deref(), Some("calls_total"));
        assert_eq!(remote(&shop.source).peer.timeout_ms, 3000);
        assert_eq!(
            remote(&shop.source).peer.auth,
            remote(&config.source).peer.auth
        );
        assert!(matches!(
            remote(&tenant.source).peer.auth,
            AuthSettings::Basic(..)
        ));
        assert_eq!(own.source.engine, EngineSettings::Embedded);
        // Another server gets nothing that was meant for the first.
        let elsewhere = remote(&elsewhere.source);
        assert_eq!(elsewhere.peer.auth, AuthSettings::None);
        assert!(elsewhere.params.is_empty());
        assert_eq!(remote(&config.source).params.len(), 1);
    }

    #[test]
    fn mistakes_in_named_sources_have_their_place() {
        let text = load(
            "sources:\n  a:\n    mapping: istoi\n    service: x\n  b:\n    timeout: 3s\n  c:\n    service: y\n    kind: prometheus\n    nope: 1\n",
        )
        .unwrap_err()
        .to_string();
        assert!(
            text.contains("slogate.yaml:3:14: sources.a.mapping"),
            "{text}"
        );
        assert!(
            text.contains("sources.b does not say for which services"),
            "{text}"
        );
        assert!(text.contains("needs source.url"), "{text}");
        assert!(text.contains("unknown setting sources.c.nope"), "{text}");
        let text = load("source: { service: x }").unwrap_err().to_string();
        assert!(text.contains("unknown setting source.service"), "{text}");
    }
}
