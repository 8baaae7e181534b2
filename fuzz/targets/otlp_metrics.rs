//! An `ExportMetricsServiceRequest`: read through the views to the last bucket, then ingested.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slogate_fuzz::{Bed, NOW_MS, walk_attributes};
use slogate_wire::WireError;
use slogate_wire::otlp::{Data, Exemplar, Metric, MetricsRequest, RawAttributes};

fn walk(request: &[u8]) -> Result<usize, WireError> {
    let mut values = 0;
    for resource in MetricsRequest::new(request).resource_metrics() {
        let resource = resource?;
        values += walk_attributes(resource.resource.attributes())?;
        for scope in resource.scope_metrics() {
            let scope = scope?;
            values += walk_attributes(scope.scope.attributes())?;
            for metric in scope.metrics() {
                values += walk_points(&metric?)?;
            }
        }
    }
    Ok(values)
}

fn walk_points(metric: &Metric<'_>) -> Result<usize, WireError> {
    let mut values = 0;
    match metric.data {
        None => {}
        Some(Data::Gauge { points } | Data::Sum { points, .. }) => {
            for point in points {
                let point = point?;
                values += walk_labels(&point.attributes)?;
                values += walk_exemplars(point.exemplars())?;
            }
        }
        Some(Data::Histogram { points, .. }) => {
            for point in points {
                let point = point?;
                values += walk_labels(&point.attributes)?;
                values += walk_exemplars(point.exemplars())?;
                values += count(point.bucket_counts())? + count(point.explicit_bounds())?;
            }
        }
        Some(Data::Exponential { points, .. }) => {
            for point in points {
                let point = point?;
                values += walk_labels(&point.attributes)?;
                values += walk_exemplars(point.exemplars())?;
                values += count(point.positive.counts())? + count(point.negative.counts())?;
            }
        }
        Some(Data::Summary { points }) => {
            for point in points {
                let point = point?;
                values += walk_labels(&point.attributes)?;
                values += count(point.quantiles())?;
            }
        }
    }
    Ok(values)
}

fn walk_labels(attributes: &RawAttributes<'_>) -> Result<usize, WireError> {
    attributes.raw(&mut Vec::new())?;
    walk_attributes(attributes.iter())
}

fn walk_exemplars<'a>(
    exemplars: impl Iterator<Item = Result<Exemplar<'a>, WireError>>,
) -> Result<usize, WireError> {
    let mut values = 0;
    for exemplar in exemplars {
        values += walk_attributes(exemplar?.filtered_attributes())?;
    }
    Ok(values)
}

fn count<T>(items: impl Iterator<Item = Result<T, WireError>>) -> Result<usize, WireError> {
    let mut values = 0;
    for item in items {
        item?;
        values += 1;
    }
    Ok(values)
}

fuzz_target!(|request: &[u8]| {
    let walked = walk(request);
    let bed = Bed::new();
    // Twice: the second time every series is known.
    for _ in 0..2 {
        if let Err(error) = bed.ingest.metrics(request, NOW_MS) {
            assert!(walked.is_err(), "readable, but refused: {error}");
        }
    }
    bed.settle();
});
