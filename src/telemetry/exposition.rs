//! The registry as text.

use slogate_wire::exposition::{LabelPair, Writer};

pub use slogate_wire::exposition::Format;

use super::metrics::{FamilySnapshot, Kind, Point, SECONDS_BOUNDS, Value};

/// Writes `families` in `format`.
pub fn write(families: &[FamilySnapshot], format: Format) -> String {
    let mut writer = Writer::new(format);
    for family in families {
        let spec = family.spec;
        let base = spec.name.strip_suffix("_total").unwrap_or(spec.name);
        let unit = unit(base);
        match spec.kind {
            Kind::Counter => {
                let mut out = writer.counter(base, unit, spec.help);
                for point in &family.points {
                    out.sample(&pairs(family, point), number(point));
                }
            }
            Kind::Gauge => {
                let mut out = writer.gauge(base, unit, spec.help);
                for point in &family.points {
                    out.sample(&pairs(family, point), number(point));
                }
            }
            Kind::Histogram => {
                let mut out = writer.histogram(base, unit, spec.help);
                for point in &family.points {
                    let Value::Histogram(histogram) = &point.value else {
                        continue;
                    };
                    let counts = histogram.buckets.iter().copied();
                    let buckets: Vec<_> = SECONDS_BOUNDS.into_iter().zip(counts).collect();
                    let (sum, count) = (histogram.sum_seconds, histogram.count);
                    out.sample(&pairs(family, point), &buckets, sum, count);
                }
            }
        }
    }
    writer.finish()
}

/// The unit that a name ends in, as OpenMetrics wants it told.
fn unit(base: &str) -> &'static str {
    let units = ["seconds", "bytes"];
    let ends_in = |unit: &&str| base.rsplit('_').next() == Some(unit);
    units.into_iter().find(ends_in).unwrap_or("")
}

fn pairs<'a>(family: &FamilySnapshot, point: &'a Point) -> Vec<LabelPair<'a>> {
    let names = family.spec.labels.iter().copied();
    names
        .zip(point.labels.iter().map(|value| &**value))
        .collect()
}

fn number(point: &Point) -> f64 {
    match &point.value {
        Value::Number(value) => *value,
        Value::Histogram(_) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::{Registry, catalog};

    #[test]
    fn both_formats_say_the_same() {
        let registry = Registry::new();
        let labels = ["traces", "grpc"];
        registry.counter(&catalog::OTLP_BODY_BYTES, &labels).add(7);
        registry.gauge(&catalog::CONNECTIONS, &["api"]).set(2);
        let took = registry.histogram(&catalog::OTLP_SECONDS, &labels);
        took.observe(Duration::from_millis(2));
        let snapshot = registry.snapshot();
        let text = write(&snapshot, Format::Prometheus);
        let counter = "slogate_otlp_body_bytes_total{signal=\"traces\",transport=\"grpc\"} 7\n";
        assert!(text.contains(counter), "{text}");
        assert!(
            text.contains("# TYPE slogate_otlp_body_bytes_total counter"),
            "{text}"
        );
        assert!(
            text.contains("slogate_connections{listener=\"api\"} 2\n"),
            "{text}"
        );
        let bucket = "signal=\"traces\",transport=\"grpc\",le=\"0.0025\"} 1\n";
        assert!(text.contains(bucket), "{text}");
        let open = write(&snapshot, Format::OpenMetrics);
        assert!(
            open.contains("# UNIT slogate_otlp_body_bytes bytes\n"),
            "{open}"
        );
        assert!(open.ends_with("# EOF\n"), "{open}");
    }
}
