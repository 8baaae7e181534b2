//! One number of a family.

use slogate_series::{Labels, METRIC_NAME};

use super::families::Family;
use crate::model::Deployment;

/// One number of a family, at a time that its writer sets.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) labels: Labels,
    pub(super) value: f64,
}

impl Sample {
    /// A sample with these labels; empty values are absent.
    pub(super) fn new(family: &Family, labels: &[(&str, &str)], value: f64) -> Sample {
        debug_assert!(
            labels.iter().all(|(name, _)| family.labels.contains(name)),
            "{} with {labels:?}",
            family.name
        );
        let name = [(METRIC_NAME, family.name)];
        Sample {
            labels: Labels::from_pairs(name.iter().chain(labels).copied()),
            value,
        }
    }

    /// 1 for the state that holds and 0 for the others.
    pub(super) fn states(
        family: &'static Family,
        labels: &[(&'static str, &str)],
        state: &'static str,
        all: &[&'static str],
        holds: &str,
    ) -> Vec<Sample> {
        let one = |each: &&'static str| {
            let mut labels = labels.to_vec();
            labels.push((state, each));
            Sample::new(family, &labels, f64::from(u8::from(*each == holds)))
        };
        all.iter().map(one).collect()
    }
}

/// The labels by which a deployment is known on every series.
pub(super) fn identity(deployment: &Deployment) -> Vec<(&'static str, &str)> {
    vec![
        ("service", deployment.target.service.as_str()),
        ("environment", deployment.target.environment.as_str()),
        ("region", deployment.target.region.as_deref().unwrap_or("")),
        (
            "version",
            deployment.artifact.version.as_deref().unwrap_or(""),
        ),
        ("deployment", deployment.id.0.as_str()),
    ]
}

/// Milliseconds as seconds.
pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
