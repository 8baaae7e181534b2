//! Which versions run, as a remote source's series show it.
//!
//! Telemetry that goes to another store tells slogate nothing by itself. So the source is asked,
//! with one query, when each version of each service was sampled last. Series without a version
//! say nothing here.

use slogate_promql::{InstantSample, QueryValue};
use slogate_series::{Labels, Sample, Series, Value};

use super::mapping::{Join, Mapping, SERVER, written};
use super::{MetricSource, SourceError, join};
use crate::model::{ObservedVersion, Target};

/// The most rows that are looked at.
const ROWS_MAX: usize = 10_000;

/// How far back another metric is looked at for labels, in milliseconds.
const WINDOW_MS: i64 = 300_000;

/// The versions that were sampled within the source's lookback, up to [`ROWS_MAX`].
///
/// # Errors
/// When the source can't answer.
pub async fn observed(
    source: &dyn MetricSource,
    now_ms: i64,
) -> Result<Vec<ObservedVersion>, SourceError> {
    let mapping = source.mapping();
    let answer = source.query(&question(mapping), now_ms).await?;
    let QueryValue::Vector(rows) = answer.value else {
        return Ok(Vec::new());
    };
    let (mut seen, mut series) = (Vec::new(), Vec::new());
    for row in rows.into_iter().take(ROWS_MAX) {
        if let Some((target, last_ms)) = read(mapping, &row) {
            seen.push((target, mapping.version_in(&row.labels), last_ms));
            series.push(sampled_at(row.labels, last_ms));
        }
    }
    if mapping
        .join
        .as_ref()
        .is_some_and(|join| !says_all(mapping, join))
    {
        let anywhere = Target::default();
        let (belongs, _) = join::versions(source, &anywhere, &series, WINDOW_MS, now_ms).await?;
        for ((_, version, last_ms), belongs) in seen.iter_mut().zip(&belongs) {
            belongs.at(*last_ms).unwrap_or_default().clone_into(version);
        }
    }
    seen.retain(|(_, version, _)| !version.is_empty());
    let versions = seen
        .into_iter()
        .map(|(target, version, last_ms)| ObservedVersion {
            target,
            version,
            digest: None,
            first_seen_ms: last_ms,
            last_seen_ms: last_ms,
        });
    Ok(versions.collect())
}

/// Whether the joined metric has the service's label too, and so says everything itself.
fn says_all(mapping: &Mapping, join: &Join) -> bool {
    join.on.contains(&mapping.service.label)
}

/// When each combination of labels was sampled last.
fn question(mapping: &Mapping) -> String {
    let mut by = vec![mapping.service.label.as_str()];
    by.extend(mapping.environment.as_ref().map(|one| one.label.as_str()));
    let (metric, only) = match &mapping.join {
        Some(join) if says_all(mapping, join) => {
            by.push(&mapping.version.label);
            (&join.metric, join.only.iter().map(written).collect())
        }
        Some(join) => {
            by.extend(join.on.iter().map(String::as_str));
            (&mapping.count, of_requests(mapping))
        }
        None => {
            by.push(&mapping.version.label);
            (&mapping.count, of_requests(mapping))
        }
    };
    format!(
        "max by ({}) (timestamp({metric}{{{}}}))",
        by.join(","),
        only.join(",")
    )
}

fn of_requests(mapping: &Mapping) -> Vec<String> {
    let kind = mapping
        .span_kind
        .iter()
        .map(|label| format!("{label}=\"{SERVER}\""));
    kind.chain(mapping.only.iter().map(written)).collect()
}

fn read(mapping: &Mapping, row: &InstantSample) -> Option<(Target, i64)> {
    let Value::Float(seconds) = row.value else {
        return None;
    };
    let service = mapping.service.value(&row.labels)?;
    let environment = mapping
        .environment
        .as_ref()
        .and_then(|one| one.value(&row.labels));
    let target = Target::new(service, environment.unwrap_or_default());
    Some((target, (seconds * 1000.0) as i64))
}

fn sampled_at(labels: Labels, t_ms: i64) -> Series {
    let sample = Sample {
        t_ms,
        start_ms: 0,
        value: Value::Float(0.0),
    };
    Series {
        labels,
        samples: vec![sample],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MappingSettings;

    #[test]
    fn one_query_asks_for_all_versions() {
        let question_of = |preset: &str| {
            let mapping = Mapping::new(&MappingSettings {
                preset: preset.to_owned(),
                ..MappingSettings::default()
            });
            question(&mapping.unwrap())
        };
        let expected = [
            (
                "otel",
                "max by (service_name,deployment_environment_name,service_version) \
                 (timestamp(traces_span_metrics_calls_total{span_kind=\"SPAN_KIND_SERVER\"}))",
            ),
            (
                "target-info",
                "max by (job,deployment_environment_name,service_version) (timestamp(target_info{}))",
            ),
            (
                "kube-state-metrics",
                "max by (job,namespace,namespace,pod) (timestamp(http_requests_total{}))",
            ),
        ];
        for (preset, text) in expected {
            assert_eq!(question_of(preset), text);
            assert!(slogate_promql::parse(text).is_ok());
        }
    }
}
