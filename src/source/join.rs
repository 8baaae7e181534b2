//! To which version a series belongs.
//!
//! Where the version is a label of the series, that is it. Else another metric says it, for all
//! series that share some labels with it; then a series belongs to whichever version that metric
//! showed last before each sample. A series that nothing is said of belongs to no version, and
//! where the environment is joined too, series of other environments are left out.

use std::collections::{BTreeSet, HashMap};

use slogate_series::{Labels, Series};

use super::mapping::{Join, Mapping, written};
use super::{MetricSource, SourceError, blocks};
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
    let Some(join) = &mapping.join else {
        let own = series
            .iter()
            .map(|one| Belongs::To(mapping.version_in(&one.labels)));
        return Ok((own.collect(), Vec::new()));
    };
    if series.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let expr = format!("{}[{}ms]", selector(join, series), window_ms + EARLIER_MS);
    let (said, warnings) = blocks::raw(source, &expr, now_ms).await?;
    let said = Said::of(mapping, join, &said);
    let belongs = series
        .iter()
        .map(|one| said.of_series(join, target, &one.labels));
    Ok((belongs.collect(), warnings))
}

/// The other metric, as far as it is about `series`.
fn selector(join: &Join, series: &[Series]) -> String {
    let mut parts: Vec<String> = join.only.iter().map(written).collect();
    for label in &join.on {
        let values: BTreeSet<&str> = series
            .iter()
            .filter_map(|one| one.labels.get(label))
            .collect();
        if !values.is_empty() && values.len() <= VALUES_MAX {
            let any: Vec<String> = values.into_iter().map(regex::escape).collect();
            parts.push(format!("{label}=~\"{}\"", super::escape(&any.join("|"))));
        }
    }
    format!("{}{{{}}}", join.metric, parts.join(","))
}

/// What the other metric says, by the labels that are shared.
struct Said(HashMap<Labels, Vec<Info>>);

struct Info {
    since_ms: i64,
    version: String,
    environment: String,
}

impl Said {
    fn of(mapping: &Mapping, join: &Join, said: &[Series]) -> Self {
        let mut by_key: HashMap<Labels, Vec<Info>> = HashMap::new();
        for one in said {
            let Some(first) = one.samples.first() else {
                continue;
            };
            let environment = mapping
                .environment
                .as_ref()
                .and_then(|label| label.value(&one.labels));
            let infos = by_key.entry(key(join, &one.labels)).or_default();
            infos.push(Info {
                since_ms: first.t_ms,
                version: mapping.version_in(&one.labels),
                environment: environment.unwrap_or_default().to_owned(),
            });
        }
        for infos in by_key.values_mut() {
            infos.sort_by_key(|info| info.since_ms);
        }
        Said(by_key)
    }

    fn of_series(&self, join: &Join, target: &Target, labels: &Labels) -> Belongs {
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
        let join = mapping.join.as_ref().unwrap();
        let said = [
            info("a:80", "2", "production", 500),
            info("a:80", "1", "production", 100),
            info("b:80", "2", "staging", 100),
        ];
        let said = Said::of(&mapping, join, &said);
        let of = |instance: &str, environment: &str| {
            let labels = Labels::from_pairs([("job", "checkout"), ("instance", instance)]);
            said.of_series(join, &Target::new("checkout", environment), &labels)
        };
        let moved = of("a:80", "production");
        let versions = [50, 100, 499, 500, 900].map(|t_ms| moved.at(t_ms));
        assert_eq!(versions, ["1", "1", "1", "2", "2"].map(Some));
        assert_eq!(of("b:80", "production"), Belongs::Elsewhere);
        assert_eq!(of("b:80", "").at(0), Some("2"));
        assert_eq!(of("c:80", "production").at(0), Some(""));
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
            selector(mapping.join.as_ref().unwrap(), &pods),
            "kube_pod_owner{owner_kind=\"ReplicaSet\",namespace=~\"shop\",pod=~\"a\\\\.1|b\"}"
        );
    }
}
