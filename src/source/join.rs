//! To which version a series belongs.
//!
//! Where the version is a label of the series, that is it. Else another metric says it, for all
//! series that share some labels with it; then a series belongs to whichever version that metric
//! showed last before each sample. A series that nothing is said of belongs to no version, and
//! where the environment is joined too, series of other environments are left out.

use std::collections::{BTreeSet, HashMap};

use slogate_series::{Labels, Series};

use super::mapping::{Join, Mapping, written};
use super::{MetricSource, SourceError};
use crate::model::Target;

/// How much further back than the window the other metric is looked at, in milliseconds: it may
/// be written more rarely.
const EARLIER_MS: i64 = 300_000;

/// Beyond so many values a label does not narrow the question.
pub(super) const VALUES_MAX: usize = 200;

/// To which version a series belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Belongs {
    /// To one; empty where it has none.
    To(String),
    /// To each from a time on, in milliseconds since the epoch; in order.
    Since(Vec<(i64, String)>),
    /// It is of another environment.
    Elsewhere,
}

impl Belongs {
    /// The version at a sample's time; `None` where the sample is not to be counted.
    pub(super) fn at(&self, t_ms: i64) -> Option<&str> {
        match self {
            Belongs::To(version) => Some(version),
            Belongs::Since(versions) => {
                let before = versions
                    .iter()
                    .take_while(|(since_ms, _)| *since_ms <= t_ms);
                let found = before.last().or(versions.first());
                Some(found.map_or("", |(_, version)| version))
            }
            Belongs::Elsewhere => None,
        }
    }

    /// Whether both say the same of all samples from `first_ms` to `last_ms`.
    pub(super) fn agrees(&self, other: &Belongs, first_ms: i64, last_ms: i64) -> bool {
        let changes = |belongs: &Belongs| match belongs {
            Belongs::Since(versions) => versions.iter().map(|(since_ms, _)| *since_ms).collect(),
            Belongs::To(_) | Belongs::Elsewhere => Vec::new(),
        };
        let (mine, theirs) = (changes(self), changes(other));
        let mut times = mine.into_iter().chain(theirs).chain([first_ms]);
        times.all(|t_ms| !(first_ms..=last_ms).contains(&t_ms) || self.at(t_ms) == other.at(t_ms))
    }
}

/// The version of each of `series`, in their order, and the source's remarks.
///
/// # Errors
/// When the source can't answer.
pub(super) async fn versions(
    source: &dyn MetricSource,
    target: &Target,
    series: &[Series],
    window_ms: i64,
    now_ms: i64,
) -> Result<(Vec<Belongs>, Vec<String>), SourceError> {
    let mapping = source.mapping();
    let labels: Vec<&Labels> = series.iter().map(|one| &one.labels).collect();
    let from_ms = now_ms - window_ms;
    let (found, warnings) = ask(source, &labels, from_ms, now_ms).await?;
    let mut said = Said::default();
    said.take_in(mapping, &found);
    let belongs = labels
        .iter()
        .map(|one| said.belongs(mapping, target, one))
        .collect();
    Ok((belongs, warnings))
}

/// What the other metric shows of series with these labels after `from_ms`, and the source's
/// remarks; nothing where no other metric is needed.
///
/// # Errors
/// When the source can't answer.
pub(super) async fn ask(
    source: &dyn MetricSource,
    series: &[&Labels],
    from_ms: i64,
    now_ms: i64,
) -> Result<(Vec<Series>, Vec<String>), SourceError> {
    match &source.mapping().join {
        Some(join) if !series.is_empty() => {
            let selector = selector(join, series);
            source
                .samples(&selector, from_ms - EARLIER_MS, now_ms)
                .await
        }
        _ => Ok((Vec::new(), Vec::new())),
    }
}

/// The other metric, as far as it is about `series`.
fn selector(join: &Join, series: &[&Labels]) -> String {
    let mut parts: Vec<String> = join.only.iter().map(written).collect();
    for label in &join.on {
        let values: BTreeSet<&str> = series.iter().filter_map(|one| one.get(label)).collect();
        if !values.is_empty() && values.len() <= VALUES_MAX {
            let any: Vec<String> = values.into_iter().map(regex::escape).collect();
            parts.push(format!("{label}=~\"{}\"", super::escape(&any.join("|"))));
        }
    }
    format!("{}{{{}}}", join.metric, parts.join(","))
}

/// What the other metric has shown, by the labels that are shared.
#[derive(Clone, Debug, Default)]
pub(super) struct Said(HashMap<Labels, Vec<Info>>);

#[derive(Clone, Debug)]
struct Info {
    since_ms: i64,
    labels: Labels,
    version: String,
    environment: String,
}

impl Said {
    /// Adds what the other metric shows; whether that is anything new.
    pub(super) fn take_in(&mut self, mapping: &Mapping, found: &[Series]) -> bool {
        let Some(join) = &mapping.join else {
            return false;
        };
        let mut is_news = false;
        for one in found {
            let Some(first) = one.samples.first() else {
                continue;
            };
            let infos = self.0.entry(key(join, &one.labels)).or_default();
            if infos.iter().any(|info| info.labels == one.labels) {
                continue;
            }
            is_news = true;
            let environment = mapping
                .environment
                .as_ref()
                .and_then(|label| label.value(&one.labels));
            infos.push(Info {
                since_ms: first.t_ms,
                labels: one.labels.clone(),
                version: mapping.version_in(&one.labels),
                environment: environment.unwrap_or_default().to_owned(),
            });
            infos.sort_by(|a, b| (a.since_ms, &a.labels).cmp(&(b.since_ms, &b.labels)));
        }
        is_news
    }

    /// Whether nothing was asked yet of series with these labels.
    pub(super) fn is_silent_on(&self, mapping: &Mapping, labels: &Labels) -> bool {
        let join = mapping.join.as_ref();
        join.is_some_and(|join| !self.0.contains_key(&key(join, labels)))
    }

    /// To which version the series with these labels belongs.
    pub(super) fn belongs(&self, mapping: &Mapping, target: &Target, labels: &Labels) -> Belongs {
        let Some(join) = &mapping.join else {
            return Belongs::To(mapping.version_in(labels));
        };
        let Some(infos) = self.0.get(&key(join, labels)) else {
            return Belongs::To(String::new());
        };
        let is_here = |info: &&Info| {
            !join.has_environment
                || target.environment.is_empty()
                || info.environment == target.environment
        };
        let here: Vec<&Info> = infos.iter().filter(is_here).collect();
        match here.as_slice() {
            [] => Belongs::Elsewhere,
            [only] => Belongs::To(only.version.clone()),
            several => {
                let since = several
                    .iter()
                    .map(|info| (info.since_ms, info.version.clone()));
                Belongs::Since(since.collect())
            }
        }
    }
}

fn key(join: &Join, labels: &Labels) -> Labels {
    let names: Vec<&str> = join.on.iter().map(String::as_str).collect();
    labels.keep(&names)
}

#[cfg(test)]
mod tests {
    use slogate_series::{Sample, Value};

    use super::*;
    use crate::config::MappingSettings;

    fn series(labels: &[(&str, &str)], times_ms: &[i64]) -> Series {
        let sample = |t_ms: &i64| Sample {
            t_ms: *t_ms,
            start_ms: 0,
            value: Value::Float(1.0),
        };
        Series {
            labels: Labels::from_pairs(labels.iter().copied()),
            samples: times_ms.iter().map(sample).collect(),
        }
    }

    fn info(instance: &str, version: &str, environment: &str, first_ms: i64) -> Series {
        let labels = [
            ("job", "checkout"),
            ("instance", instance),
            ("service_version", version),
            ("deployment_environment_name", environment),
        ];
        series(&labels, &[first_ms, first_ms + 10])
    }

    #[test]
    fn an_instance_belongs_to_each_version_in_its_time() {
        let mapping = Mapping::new(&MappingSettings {
            preset: "target-info".to_owned(),
            ..MappingSettings::default()
        });
        let mapping = mapping.unwrap();
        let infos = [
            info("a:80", "2", "production", 500),
            info("a:80", "1", "production", 100),
            info("b:80", "2", "staging", 100),
        ];
        let mut said = Said::default();
        assert!(said.take_in(&mapping, &infos));
        assert!(!said.take_in(&mapping, &infos), "it is known");
        let of = |instance: &str, environment: &str| {
            let labels = Labels::from_pairs([("job", "checkout"), ("instance", instance)]);
            said.belongs(&mapping, &Target::new("checkout", environment), &labels)
        };
        let moved = of("a:80", "production");
        let versions = [50, 100, 499, 500, 900].map(|t_ms| moved.at(t_ms));
        assert_eq!(versions, ["1", "1", "1", "2", "2"].map(Some));
        assert_eq!(of("b:80", "production"), Belongs::Elsewhere);
        assert_eq!(of("b:80", "").at(0), Some("2"));
        assert_eq!(of("c:80", "production").at(0), Some(""));
        let one = of("b:80", "staging");
        assert!(!moved.agrees(&one, 0, 499) && moved.agrees(&one, 500, 900));
    }

    #[test]
    fn the_question_is_narrowed_to_the_instances_that_are_there() {
        let mapping = Mapping::new(&MappingSettings {
            preset: "kube-state-metrics".to_owned(),
            join_metric: Some("kube_pod_owner{owner_kind=\"ReplicaSet\"}".to_owned()),
            ..MappingSettings::default()
        });
        let mapping = mapping.unwrap();
        let pods = [
            series(&[("namespace", "shop"), ("pod", "a.1")], &[0]),
            series(&[("namespace", "shop"), ("pod", "b")], &[0]),
        ];
        assert_eq!(
            selector(
                mapping.join.as_ref().unwrap(),
                &pods.each_ref().map(|pod| &pod.labels)
            ),
            "kube_pod_owner{owner_kind=\"ReplicaSet\",namespace=~\"shop\",pod=~\"a\\\\.1|b\"}"
        );
    }
}
