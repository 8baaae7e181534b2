//! A report as series, so that dashboards and alert rules need nothing else.

use slogate_series::Labels;

use super::{SliReport, SliSet};

/// One sample to store.
#[derive(Clone, Debug, PartialEq)]
pub struct SliSample {
    /// The series.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

/// The series of a report: `slogate_sli{sli="M1", window, stat="value"|"tail"}` and
/// `slogate_sli_deployments{window}`, per service and environment, and without those labels
/// over everything. Nulls have no sample.
pub fn samples(report: &SliReport, window: &str) -> Vec<SliSample> {
    let mut samples = Vec::new();
    add(&mut samples, &report.overall, &[("window", window)]);
    for group in &report.groups {
        let labels = [
            ("service_name", group.service.as_str()),
            ("deployment_environment_name", group.environment.as_str()),
            ("window", window),
        ];
        add(&mut samples, &group.set, &labels);
    }
    samples
}

fn add(samples: &mut Vec<SliSample>, set: &SliSet, labels: &[(&str, &str)]) {
    let named = |name: &str, more: &[(&str, &str)]| {
        let own = [("__name__", name)];
        Labels::from_pairs(own.iter().chain(labels).chain(more).copied())
    };
    samples.push(SliSample {
        labels: named("slogate_sli_deployments", &[]),
        value: set.ended as f64,
    });
    for sli in &set.slis {
        for (stat, value) in [("value", sli.value), ("tail", sli.tail)] {
            let Some(value) = value else { continue };
            let more = [("sli", sli.id), ("name", sli.name), ("stat", stat)];
            samples.push(SliSample {
                labels: named("slogate_sli", &more),
                value,
            });
        }
    }
}
