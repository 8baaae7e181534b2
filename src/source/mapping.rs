//! Which series are requests, and which labels say whose they are.
//!
//! The judge and the SLIs ask for the requests of a service in an environment, by version. What
//! those look like depends on who measured them: spans that became series, an HTTP library, a
//! service mesh. A [`Mapping`] says it, from a preset and what the settings change of it.
//!
//! - **A series without a version** (no label, an empty one, or `unknown`, which meshes write)
//!   counts as not tagged: it is evidence for no version.
//! - **Where the version stands on another metric** (`target_info`, `kube_pod_labels`), series
//!   are joined with it here, by the labels of `join.on` and by time: an instance that was
//!   restarted as another version counts for each version in its own time. So it works with any
//!   engine, and for raw samples, which no PromQL join gives.
//! - **Instances** tell a bad node from a bad version. Series that don't say theirs count for
//!   their version all the same.
//! - **A mapping without span kinds** knows server requests only; whoever asks for another kind
//!   is told so, rather than given the wrong numbers.

use std::sync::{Arc, LazyLock};

use regex::Regex;
use slogate_promql::ast::ExprKind;
use slogate_series::{Labels, Matcher, matcher};

use super::{SourceError, escape};
use crate::config::MappingSettings;
use crate::model::Target;

mod presets;

pub(crate) use presets::PRESETS;

/// What stands for no version in meshes.
const UNKNOWN: &str = "unknown";

/// The span kind of requests that a service answers.
pub(crate) const SERVER: &str = "SPAN_KIND_SERVER";

/// Which series are requests, and which labels say whose they are.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// The preset's name.
    pub(crate) name: String,
    pub(crate) service: MappedLabel,
    /// `None` where series don't say it.
    pub(crate) environment: Option<MappedLabel>,
    pub(crate) version: MappedLabel,
    /// `None` where series don't say which instance served a request.
    pub(crate) instance: Option<MappedLabel>,
    /// Where labels stand on another metric.
    pub(crate) join: Option<Join>,
    /// The counter of requests.
    pub(crate) count: String,
    /// Which of its series count; as text and as matchers.
    pub(crate) only: Vec<Matcher>,
    /// Which of them are failed requests: all have to match.
    pub(crate) errors: Vec<Matcher>,
    /// The histogram of durations: a native one of this name, or classic buckets.
    pub(crate) duration: String,
    /// What one unit of it is, in seconds.
    pub(crate) duration_unit_s: f64,
    /// The label with the span kind.
    pub(crate) span_kind: Option<String>,
    /// Metrics that count the same requests by instance, where series don't name instances.
    pub(crate) by_instance: Option<ByInstance>,
}

/// Metrics that count requests by instance, with the labels that requests have otherwise.
#[derive(Clone, Debug)]
pub(crate) struct ByInstance {
    pub(crate) count: String,
    pub(crate) duration: String,
}

/// A label, and which part of its value counts.
#[derive(Clone, Debug)]
pub(crate) struct MappedLabel {
    pub(crate) label: String,
    pattern: Option<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    regex: Regex,
    before: String,
    after: String,
}

/// Another metric whose labels hold for series that share `on` with it.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) metric: String,
    pub(crate) only: Vec<Matcher>,
    pub(crate) on: Vec<String>,
    /// Whether the environment stands there too.
    pub(crate) has_environment: bool,
}

/// What is wrong with a mapping's settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct MappingError {
    /// The setting, below its section.
    key: String,
    message: String,
}

fn wrong(key: &str, message: impl Into<String>) -> MappingError {
    MappingError {
        key: key.to_owned(),
        message: message.into(),
    }
}

impl Mapping {
    /// What slogate itself makes of spans.
    pub fn otel() -> &'static Mapping {
        static OTEL: LazyLock<Mapping> = LazyLock::new(|| {
            Mapping::new(&MappingSettings::default()).unwrap_or_else(|_| Mapping::plain_otel())
        });
        &OTEL
    }

    /// The default without parsing anything.
    fn plain_otel() -> Mapping {
        let label = |name: &str| MappedLabel {
            label: name.to_owned(),
            pattern: None,
        };
        Mapping {
            name: "otel".to_owned(),
            service: label("service_name"),
            environment: Some(label("deployment_environment_name")),
            version: label("service_version"),
            instance: Some(label("service_instance_id")),
            join: None,
            count: "traces_span_metrics_calls_total".to_owned(),
            only: Vec::new(),
            errors: vec![Matcher::equal("status_code", "STATUS_CODE_ERROR")],
            duration: "traces_span_metrics_duration_seconds".to_owned(),
            duration_unit_s: 1.0,
            span_kind: Some("span_kind".to_owned()),
            by_instance: Some(ByInstance::of_spans()),
        }
    }

    /// The preset of `settings` with what they change of it.
    ///
    /// # Errors
    /// Where a setting is no metric, label, list of matchers or pattern.
    pub fn new(settings: &MappingSettings) -> Result<Mapping, MappingError> {
        let name = settings.preset.as_str();
        let preset = PRESETS.iter().find(|preset| preset.name == name);
        let preset = preset.ok_or_else(|| wrong("mapping", format!("{name:?} is no preset")))?;
        let or = |own: &Option<String>, preset: &str| own.clone().unwrap_or(preset.to_owned());
        let label = |key: &str, preset: &str| {
            let label = entry(&settings.labels, key).unwrap_or(preset);
            let pattern = entry(&settings.patterns, key);
            (label.to_owned(), pattern.map(str::to_owned))
        };
        for (key, entries) in [
            ("labels", &settings.labels),
            ("patterns", &settings.patterns),
        ] {
            let known =
                |name: &str| ["service", "environment", "version", "instance"].contains(&name);
            if let Some((name, _)) = entries.iter().find(|(name, _)| !known(name)) {
                let message =
                    format!("{name:?} is none of service, environment, version and instance");
                return Err(wrong(key, message));
            }
        }
        let mapped = |key: &str, preset: (&str, &str)| -> Result<MappedLabel, MappingError> {
            let (label, own) = label(key, preset.0);
            let is_preset = entry(&settings.labels, key).is_none();
            let pattern = own.or((is_preset && !preset.1.is_empty()).then(|| preset.1.to_owned()));
            MappedLabel::new(key, &label, pattern.as_deref())
        };
        let environment = match entry(&settings.labels, "environment").unwrap_or(preset.environment)
        {
            "" | "-" => None,
            _ => Some(mapped("environment", (preset.environment, ""))?),
        };
        Ok(Mapping {
            name: name.to_owned(),
            service: mapped("service", (preset.service, preset.service_pattern))?,
            environment,
            version: mapped("version", (preset.version, ""))?,
            instance: match entry(&settings.labels, "instance").unwrap_or(preset.instance) {
                "" | "-" => None,
                _ => Some(mapped("instance", (preset.instance, ""))?),
            },
            join: Join::new(settings, preset)?,
            count: metric("requests.count", or(&settings.count, preset.count))?,
            only: matchers("requests.only", &or(&settings.only, preset.only))?,
            errors: match matchers("requests.errors", &or(&settings.errors, preset.errors))? {
                none if none.is_empty() => {
                    return Err(wrong(
                        "requests.errors",
                        "no matcher: every request would be one",
                    ));
                }
                errors => errors,
            },
            duration: metric("requests.duration", or(&settings.duration, preset.duration))?,
            duration_unit_s: match or(&settings.duration_unit, preset.duration_unit).as_str() {
                "ms" => 1e-3,
                _ => 1.0,
            },
            span_kind: match or(&settings.span_kind, preset.span_kind).as_str() {
                "" | "-" => None,
                label => Some(label_name("requests.spanKind", label)?),
            },
            // Other counters are counted by nobody else.
            by_instance: match preset.has_own_instances
                && settings.count.is_none()
                && settings.duration.is_none()
            {
                true => Some(ByInstance::of_spans()),
                false => None,
            },
        })
    }

    /// A selector of `metric` for the requests of one kind to `target`.
    ///
    /// # Errors
    /// Where this mapping does not know requests of that kind.
    pub(crate) fn requests_of(
        &self,
        metric: &str,
        target: &Target,
        span_kind: &str,
    ) -> Result<String, SourceError> {
        let mut parts = vec![self.service.matching(&target.service)];
        // A target without an environment takes telemetry of any: it was announced without one.
        let environment = self
            .environment
            .as_ref()
            .filter(|_| !self.joins_environment());
        if let Some(environment) = environment.filter(|_| !target.environment.is_empty()) {
            parts.push(environment.matching(&target.environment));
        }
        match &self.span_kind {
            Some(label) => parts.push(format!("{label}=\"{span_kind}\"")),
            None if span_kind == SERVER => {}
            None => {
                return Err(SourceError::Refused {
                    origin: format!("the mapping {}", self.name),
                    message: format!("it knows server requests only, none of {span_kind}"),
                });
            }
        }
        parts.extend(self.only.iter().map(written));
        Ok(format!("{metric}{{{}}}", parts.join(",")))
    }

    /// Whether a series is of failed requests.
    pub(crate) fn is_error(&self, labels: &Labels) -> bool {
        let matches = |m: &Matcher| m.matches(labels.get(m.name()).unwrap_or_default());
        self.errors.iter().all(matches)
    }

    /// The version that `labels` say; empty where they say none.
    pub(crate) fn version_in(&self, labels: &Labels) -> String {
        match self.version.value(labels) {
            Some(version) if version != UNKNOWN => version.to_owned(),
            _ => String::new(),
        }
    }

    /// The instance that `labels` say; `None` where they say none.
    pub(crate) fn instance_in(&self, labels: &Labels) -> Option<Arc<str>> {
        self.instance.as_ref()?.value(labels).map(Arc::from)
    }

    pub(crate) fn joins_environment(&self) -> bool {
        self.join.as_ref().is_some_and(|join| join.has_environment)
    }
}

impl ByInstance {
    /// What slogate itself makes of spans.
    fn of_spans() -> Self {
        ByInstance {
            count: "slogate_instance_requests_total".to_owned(),
            duration: "slogate_instance_duration_seconds".to_owned(),
        }
    }
}

fn entry<'e>(entries: &'e [(String, String)], key: &str) -> Option<&'e str> {
    let found = entries.iter().find(|(name, _)| name == key);
    found.map(|(_, value)| value.as_str())
}

impl Join {
    fn new(
        settings: &MappingSettings,
        preset: &presets::Preset,
    ) -> Result<Option<Join>, MappingError> {
        let selector = settings.join_metric.as_deref().unwrap_or(preset.join);
        if selector.is_empty() || selector == "-" {
            return Ok(None);
        }
        let (metric_name, only) = match selector.split_once('{') {
            Some((name, rest)) => (name, rest.trim_end().strip_suffix('}').unwrap_or(rest)),
            None => (selector, ""),
        };
        let list = |text: &str| -> Vec<String> {
            let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        };
        let on = list(settings.join_on.as_deref().unwrap_or(preset.join_on));
        if on.is_empty() {
            return Err(wrong("join.on", "names no label"));
        }
        for name in &on {
            label_name("join.on", name)?;
        }
        let joined = list(
            settings
                .join_labels
                .as_deref()
                .unwrap_or(preset.join_labels),
        );
        let known = |name: &String| name == "version" || name == "environment";
        if !joined.iter().all(known) || !joined.iter().any(|name| name == "version") {
            let message = "takes version, or version and environment";
            return Err(wrong("join.labels", message));
        }
        Ok(Some(Join {
            metric: metric("join.metric", metric_name.trim().to_owned())?,
            only: matchers("join.metric", only)?,
            on,
            has_environment: joined.iter().any(|name| name == "environment"),
        }))
    }
}

impl MappedLabel {
    fn new(key: &str, label: &str, pattern: Option<&str>) -> Result<Self, MappingError> {
        let label = label_name(&format!("labels.{key}"), label)?;
        let pattern = pattern.map(Pattern::new).transpose();
        let pattern = pattern.map_err(|message| wrong(&format!("patterns.{key}"), message))?;
        Ok(MappedLabel { label, pattern })
    }

    /// The part of the label's value that counts; `None` where there is none.
    pub(crate) fn value<'l>(&self, labels: &'l Labels) -> Option<&'l str> {
        let value = labels.get(&self.label).filter(|value| !value.is_empty())?;
        match &self.pattern {
            None => Some(value),
            Some(pattern) => Some(pattern.regex.captures(value)?.get(1)?.as_str()),
        }
    }

    /// Whether only a part of the label's value counts.
    pub(crate) fn has_pattern(&self) -> bool {
        self.pattern.is_some()
    }

    /// A matcher for the label values whose part is `value`.
    pub(crate) fn matching(&self, value: &str) -> String {
        let label = &self.label;
        match &self.pattern {
            None => format!("{label}=\"{}\"", escape(value)),
            Some(pattern) => {
                let Pattern { before, after, .. } = pattern;
                let regex = format!("{before}{}{after}", regex::escape(value));
                format!("{label}=~\"{}\"", escape(&regex))
            }
        }
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, String> {
        let regex = matcher::compile(text).map_err(|error| error.to_string())?;
        let (start, end) = group(text).ok_or("has no group in plain parentheses")?;
        if regex.captures_len() != 2 {
            return Err("has to have exactly one group; write (?:…) for others".to_owned());
        }
        Ok(Pattern {
            regex,
            before: text.get(..start).unwrap_or_default().to_owned(),
            after: text.get(end..).unwrap_or_default().to_owned(),
        })
    }
}

/// Where the first capturing group of a regular expression stands, its parentheses included.
fn group(text: &str) -> Option<(usize, usize)> {
    let (mut start, mut open) = (None, Vec::new());
    let (mut is_escaped, mut is_class) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '[' => is_class = true,
            ']' => is_class = false,
            '(' if !is_class => {
                let captures = !text.get(at + 1..)?.starts_with('?');
                if captures && start.is_none() {
                    start = Some(at);
                }
                open.push(at);
            }
            ')' if !is_class => {
                let opened = open.pop();
                if start.is_some() && opened == start {
                    return Some((start?, at + 1));
                }
            }
            _ => {}
        }
    }
    None
}

/// A matcher as PromQL.
pub(crate) fn written(matcher: &Matcher) -> String {
    let (name, op) = (matcher.name(), matcher.op().as_str());
    format!("{name}{op}\"{}\"", escape(matcher.value()))
}

fn matchers(key: &str, text: &str) -> Result<Vec<Matcher>, MappingError> {
    let text = text.trim();
    if text.is_empty() || text == "-" {
        return Ok(Vec::new());
    }
    let text = text
        .strip_prefix('{')
        .and_then(|t| t.strip_suffix('}'))
        .unwrap_or(text);
    let expected = |what: String| {
        wrong(
            key,
            format!("{what}; expected matchers such as code=~\"5..\""),
        )
    };
    let parsed = slogate_promql::parse(&format!("x{{{text}}}"));
    match parsed.map_err(|error| expected(error.to_string()))?.kind {
        ExprKind::Vector(selector) => {
            let matchers = selector.matchers.into_iter();
            Ok(matchers.map(|one| one.matcher).collect())
        }
        _ => Err(expected(format!("{text:?} is no list of matchers"))),
    }
}

fn metric(key: &str, name: String) -> Result<String, MappingError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    match !name.is_empty()
        && name.chars().all(is_plain)
        && !name.starts_with(|c: char| c.is_ascii_digit())
    {
        true => Ok(name),
        false => Err(wrong(key, format!("{name:?} is no name of a metric"))),
    }
}

fn label_name(key: &str, name: &str) -> Result<String, MappingError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match !name.is_empty()
        && name.chars().all(is_plain)
        && !name.starts_with(|c: char| c.is_ascii_digit())
    {
        true => Ok(name.to_owned()),
        false => Err(wrong(key, format!("{name:?} is no name of a label"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(preset: &str) -> Mapping {
        let settings = MappingSettings {
            preset: preset.to_owned(),
            ..MappingSettings::default()
        };
        Mapping::new(&settings).unwrap()
    }

    #[test]
    fn every_preset_is_a_mapping() {
        for preset in PRESETS {
            let mapping = of(preset.name);
            let target = Target::new("shop", "production");
            let expr = mapping
                .requests_of(&mapping.count, &target, SERVER)
                .unwrap();
            slogate_promql::parse(&expr).unwrap_or_else(|error| panic!("{expr}: {error}"));
        }
        let (made, plain) = (of("otel"), Mapping::plain_otel());
        assert_eq!(format!("{made:?}"), format!("{plain:?}"));
    }

    #[test]
    fn a_mesh_is_asked_in_its_own_words() {
        let istio = of("istio");
        let target = Target::new("check\"out", "shop");
        assert_eq!(
            istio
                .requests_of("istio_requests_total", &target, SERVER)
                .unwrap(),
            "istio_requests_total{destination_canonical_service=\"check\\\"out\",\
             destination_workload_namespace=\"shop\",reporter=\"destination\"}"
        );
        assert!(istio.requests_of("x", &target, "SPAN_KIND_CLIENT").is_err());
        let labels = |version: &str, code: &str| {
            Labels::from_pairs([("destination_version", version), ("response_code", code)])
        };
        assert!(istio.is_error(&labels("v2", "503")) && !istio.is_error(&labels("v2", "404")));
        assert_eq!(istio.version_in(&labels("v2", "200")), "v2");
        assert_eq!(istio.version_in(&labels("unknown", "200")), "");
    }

    #[test]
    fn a_pattern_finds_the_part_and_selects_by_it() {
        let job = of("otel-prometheus").service;
        let labels = |job: &str| Labels::from_pairs([("job", job)]);
        assert_eq!(job.value(&labels("shop/checkout")), Some("checkout"));
        assert_eq!(job.value(&labels("checkout")), Some("checkout"));
        assert_eq!(job.matching("check.out"), "job=~\"(?:.*/)?check\\\\.out\"");
        let regex = matcher::compile("(?:.*/)?check\\.out").unwrap();
        assert!(regex.is_match("shop/check.out") && !regex.is_match("shop/checkXout"));
    }

    #[test]
    fn settings_change_a_preset() {
        let mut settings = MappingSettings {
            preset: "kube-state-metrics".to_owned(),
            join_metric: Some("kube_pod_owner{owner_kind=\"ReplicaSet\"}".to_owned()),
            labels: vec![("version".to_owned(), "owner_name".to_owned())],
            patterns: vec![("version".to_owned(), ".*-([a-z0-9]+)".to_owned())],
            ..MappingSettings::default()
        };
        let mapping = Mapping::new(&settings).unwrap();
        let owner = Labels::from_pairs([("owner_name", "checkout-5d9f7c6b8")]);
        assert_eq!(mapping.version_in(&owner), "5d9f7c6b8");
        assert_eq!(mapping.join.unwrap().only.len(), 1);
        settings.patterns[0].1 = ".*".to_owned();
        let error = Mapping::new(&settings).unwrap_err().to_string();
        assert!(
            error.starts_with("patterns.version: has no group"),
            "{error}"
        );
        settings.patterns.clear();
        settings.errors = Some("code=~\"5..".to_owned());
        assert!(Mapping::new(&settings).is_err());
        settings.errors = Some("-".to_owned());
        assert!(
            Mapping::new(&settings).is_err(),
            "every request would be an error"
        );
    }
}
