//! Labels that stand on another metric.
//!
//! `target_info` says which version a job's instance is, `kube_pod_labels` which labels a pod has.
//! Their labels are given to all series that share `job` and `instance`, or `namespace` and `pod`,
//! with them and have no such label. An instance that was started again as another version is of
//! each in its own time: its series are cut where the labels changed.

use std::collections::{BTreeSet, HashMap};

use slogate_series::{Labels, Series};

use super::recording::with;

/// Metrics that speak of others, and by which labels.
const INFOS: [(&str, [&str; 2]); 3] = [
    ("target_info", ["instance", "job"]),
    ("kube_pod_labels", ["namespace", "pod"]),
    ("build_info", ["instance", "job"]),
];

/// Gives series the labels that others say of them; says of how many.
pub(crate) fn join(series: &mut Vec<Series>) -> Vec<String> {
    let mut notes = Vec::new();
    for (metric, on) in INFOS {
        let said = Said::of(series, metric, on);
        if said.0.is_empty() {
            continue;
        }
        let mut count = 0usize;
        let mut joined = Vec::with_capacity(series.len());
        for one in series.drain(..) {
            let name = one.labels.metric_name().unwrap_or_default();
            let infos = said.0.get(&one.labels.keep(&on)).filter(|_| name != metric);
            match infos {
                None => joined.push(one),
                Some(infos) => {
                    count += 1;
                    cut(one, infos, &mut joined);
                }
            }
        }
        *series = joined;
        if count > 0 {
            notes.push(format!(
                "{count} series have labels of {metric} with the same {}",
                on.join(" and ")
            ));
        }
    }
    notes
}

/// What a metric says, by the labels that others share with it, and since when.
struct Said(HashMap<Labels, Vec<(i64, Labels)>>);

impl Said {
    fn of(series: &[Series], metric: &str, on: [&str; 2]) -> Said {
        let mut said: HashMap<Labels, Vec<(i64, Labels)>> = HashMap::new();
        for one in series
            .iter()
            .filter(|one| one.labels.metric_name() == Some(metric))
        {
            let (key, Some(first)) = (one.labels.keep(&on), one.samples.first()) else {
                continue;
            };
            if key.len() == on.len() {
                let extra =
                    one.labels
                        .without(&["__name__", "instance", "job", "namespace", "pod"]);
                said.entry(key).or_default().push((first.t_ms, extra));
            }
        }
        for infos in said.values_mut() {
            infos.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        }
        Said(said)
    }
}

/// Writes the parts of a series between two changes of what is said of it.
fn cut(one: Series, infos: &[(i64, Labels)], into: &mut Vec<Series>) {
    let mut rest = one.samples;
    let own: BTreeSet<&str> = one.labels.iter().map(|label| label.name.as_ref()).collect();
    for (at, (_, extra)) in infos.iter().enumerate() {
        let until = infos
            .get(at + 1)
            .map_or(i64::MAX, |(since_ms, _)| *since_ms);
        let end = rest.partition_point(|sample| sample.t_ms < until);
        let later = rest.split_off(end);
        let samples = std::mem::replace(&mut rest, later);
        if samples.is_empty() {
            continue;
        }
        let missing: Vec<(&str, &str)> = extra
            .iter()
            .filter(|label| !own.contains(label.name.as_ref()))
            .map(|label| (label.name.as_ref(), label.value.as_ref()))
            .collect();
        into.push(Series {
            labels: with(&one.labels, &missing),
            samples,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slogate_series::{Sample, Value};

    fn series(labels: &[(&str, &str)], times: &[i64]) -> Series {
        let samples = times.iter().map(|t_ms| Sample {
            t_ms: *t_ms,
            start_ms: 0,
            value: Value::Float(1.0),
        });
        Series {
            labels: Labels::from_pairs(labels.iter().copied()),
            samples: samples.collect(),
        }
    }

    #[test]
    fn an_instance_that_becomes_another_version_is_each_in_its_time() {
        let of = |metric, version| {
            let labels = [("__name__", metric), ("job", "shop"), ("instance", "a")];
            let mut labels = labels.to_vec();
            if let Some(version) = version {
                labels.push(("service_version", version));
            }
            labels
        };
        let mut all = vec![
            series(&of("target_info", Some("1")), &[0, 10]),
            series(&of("target_info", Some("2")), &[20, 30]),
            series(&of("requests_total", None), &[0, 10, 20, 30]),
            series(&[("__name__", "other"), ("job", "shop")], &[0]),
        ];
        let notes = join(&mut all);
        assert_eq!(notes.len(), 1);
        let of_requests = all
            .iter()
            .filter(|one| one.labels.metric_name() == Some("requests_total"));
        let found: Vec<_> = of_requests
            .map(|one| (one.labels.get("service_version"), one.samples.len()))
            .collect();
        assert_eq!(found, [(Some("1"), 2), (Some("2"), 2)]);
    }
}
