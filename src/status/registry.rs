//! slogate's own metrics, as a scrape of `/metrics` would store them.

use slogate_series::{Labels, METRIC_NAME};
use slogate_tsdb::{Metadata, MetricKind, Store};

use super::sample::Sample;
use crate::telemetry::metrics::{FamilySnapshot, HistogramPoint, Kind, SECONDS_BOUNDS, Value};

/// The `job` of the samples.
pub(super) const JOB: &str = "slogate";

/// The samples of a snapshot, with `job` and this `instance`.
pub(super) fn samples(families: &[FamilySnapshot], instance: &str) -> Vec<Sample> {
    let mut samples = Vec::new();
    for family in families {
        for point in &family.points {
            let own = [("job", JOB), ("instance", instance)];
            let names = family.spec.labels.iter().copied();
            let values = point.labels.iter().map(|value| &**value);
            let labels: Vec<_> = own.into_iter().chain(names.zip(values)).collect();
            match &point.value {
                Value::Number(value) => samples.push(sample(family.spec.name, &labels, *value)),
                Value::Histogram(histogram) => {
                    samples.extend(buckets(family.spec.name, &labels, histogram));
                }
            }
        }
    }
    samples
}

/// Tells the store what the families of a snapshot mean.
pub(super) fn describe(store: &Store, families: &[FamilySnapshot]) {
    for family in families {
        let base = family.spec.name.strip_suffix("_total");
        let units = ["seconds", "bytes"];
        let last = base.unwrap_or(family.spec.name).rsplit('_').next();
        let unit = units.into_iter().find(|unit| last == Some(*unit));
        let kind = match family.spec.kind {
            Kind::Counter => MetricKind::Counter,
            Kind::Gauge => MetricKind::Gauge,
            Kind::Histogram => MetricKind::Histogram,
        };
        let metadata = Metadata {
            kind,
            unit: unit.unwrap_or("").into(),
            help: family.spec.help.into(),
        };
        store.set_metadata(family.spec.name, metadata);
    }
}

fn sample(name: &str, labels: &[(&str, &str)], value: f64) -> Sample {
    let name = [(METRIC_NAME, name)];
    Sample {
        labels: Labels::from_pairs(name.iter().chain(labels).copied()),
        value,
    }
}

fn buckets(name: &str, labels: &[(&str, &str)], histogram: &HistogramPoint) -> Vec<Sample> {
    let bucket = format!("{name}_bucket");
    // As Prometheus stores bounds, whole ones with a fraction.
    let bounds = SECONDS_BOUNDS.iter().map(|bound| format!("{bound:?}"));
    let bounds = bounds.chain(["+Inf".to_owned()]);
    let counts = histogram.buckets.iter();
    let mut samples: Vec<Sample> = bounds
        .zip(counts)
        .map(|(bound, count)| {
            let le = [("le", bound.as_str())];
            sample(&bucket, &[labels, &le].concat(), *count as f64)
        })
        .collect();
    samples.push(sample(
        &format!("{name}_sum"),
        labels,
        histogram.sum_seconds,
    ));
    let count = histogram.count as f64;
    samples.push(sample(&format!("{name}_count"), labels, count));
    samples
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::{Registry, catalog};

    #[test]
    fn samples_are_those_of_a_scrape() {
        let registry = Registry::new();
        let labels = ["traces", "grpc"];
        registry.counter(&catalog::OTLP_BODY_BYTES, &labels).add(7);
        let took = registry.histogram(&catalog::OTLP_SECONDS, &labels);
        took.observe(Duration::from_millis(2_000));
        let samples = samples(&registry.snapshot(), "here:1");
        let text: Vec<_> = samples
            .iter()
            .map(|sample| format!("{} {}", sample.labels, sample.value))
            .collect();
        let own = r#"{instance="here:1", job="slogate", "#;
        for line in [
            format!(r#"slogate_otlp_body_bytes_total{own}signal="traces", transport="grpc"}} 7"#),
            format!(
                r#"slogate_otlp_request_duration_seconds_bucket{own}le="1.0", signal="traces", transport="grpc"}} 0"#
            ),
            format!(
                r#"slogate_otlp_request_duration_seconds_bucket{own}le="+Inf", signal="traces", transport="grpc"}} 1"#
            ),
            format!(
                r#"slogate_otlp_request_duration_seconds_sum{own}signal="traces", transport="grpc"}} 2"#
            ),
        ] {
            assert!(text.contains(&line), "{line}\nis not in\n{text:#?}");
        }
        let buckets = text.iter().filter(|line| line.contains("_bucket{"));
        assert_eq!(buckets.count(), SECONDS_BOUNDS.len() + 1);
    }
}
