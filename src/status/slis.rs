//! The deployment SLIs as series.

use std::sync::Arc;

use slogate_tsdb::{AppendError, Store};

use super::families;
use super::publisher::Scope;
use super::sample::Sample;
use super::writer::{Report, Writer};
use crate::sli::{SliReport, SliSet};

/// Writes reports as series.
#[derive(Debug)]
pub struct SliPublisher {
    writer: Writer,
}

impl SliPublisher {
    /// A publisher that goes on with the series that stand in the store.
    pub fn new(store: Arc<Store>, now_ms: i64) -> SliPublisher {
        let mut writer = Writer::new(store);
        for family in families::OF_SLIS {
            writer.take_over(family.name, &[], now_ms);
        }
        SliPublisher { writer }
    }

    /// Writes the reports, each with the name of its window. What had a sample before and has none
    /// now ends.
    ///
    /// # Errors
    /// When the store's log can't be written; the next call tries again.
    pub fn write(
        &mut self,
        reports: &[(&str, SliReport)],
        now_ms: i64,
    ) -> Result<Report, AppendError> {
        let each = reports.iter();
        let samples = each.flat_map(|(window, report)| samples(report, window));
        self.writer.write(samples.collect(), Scope::All, now_ms)
    }
}

/// The series of a report, per service and environment, and without those labels over
/// everything. Nulls have no sample.
fn samples(report: &SliReport, window: &str) -> Vec<Sample> {
    let mut samples = Vec::new();
    add(&mut samples, &report.overall, &[("window", window)]);
    for group in &report.groups {
        let labels = [
            ("service", group.service.as_str()),
            ("environment", group.environment.as_str()),
            ("window", window),
        ];
        add(&mut samples, &group.set, &labels);
    }
    samples
}

fn add(samples: &mut Vec<Sample>, set: &SliSet, labels: &[(&str, &str)]) {
    samples.push(Sample::new(
        &families::SLI_DEPLOYMENTS,
        labels,
        set.ended as f64,
    ));
    for sli in &set.slis {
        let own = [labels, &[("sli", sli.id), ("name", sli.name)]].concat();
        for (stat, value) in [("value", sli.value), ("mean", sli.mean), ("tail", sli.tail)] {
            let labels = [&own[..], &[("stat", stat)]].concat();
            samples.extend(value.map(|value| Sample::new(&families::SLI, &labels, value)));
        }
        for (family, count) in [
            (&families::SLI_COUNT, sli.count),
            (&families::SLI_POPULATION, sli.of),
        ] {
            samples.push(Sample::new(family, &own, count as f64));
        }
    }
}

#[cfg(test)]
mod tests {
    use slogate_series::Matcher;

    use super::*;
    use crate::model::TimeRange;
    use crate::sli::{Sli, SliGroup};
    use crate::status::testing::T0;

    fn set(value: Option<f64>) -> SliSet {
        SliSet {
            ended: 3,
            superseded: 0,
            partial_failures: 0,
            silent_fixes: 0,
            rollbacks_without_beginning: 0,
            slis: vec![Sli {
                id: "M5",
                name: "time to rollback",
                unit: "seconds",
                value,
                mean: value.map(|value| value + 1.0),
                tail: None,
                count: 2,
                of: 2,
                target: 300.0,
                meets_target: None,
            }],
        }
    }

    fn report(value: Option<f64>) -> SliReport {
        SliReport {
            window: TimeRange {
                start_ms: 0,
                end_ms: T0,
            },
            overall: set(value),
            groups: vec![SliGroup {
                service: "checkout".to_owned(),
                environment: "production".to_owned(),
                set: set(value),
            }],
        }
    }

    #[test]
    fn series_leave_nulls_out_and_end_where_a_value_is_gone() {
        let (store, _) = Store::open(slogate_tsdb::Options::default(), T0).unwrap();
        let store = Arc::new(store);
        let mut publisher = SliPublisher::new(store.clone(), T0);
        publisher.write(&[("1d", report(Some(8.0)))], T0).unwrap();
        let name = [Matcher::equal("__name__", "slogate_sli")];
        let found = |from_ms| {
            let all = store.select(&name, from_ms, from_ms + 1);
            let lines = all.iter().map(|series| {
                let last = series.samples.last().unwrap();
                format!("{} {}", series.labels, last.value.is_stale())
            });
            lines.collect::<Vec<_>>()
        };
        let expected = [
            r#"slogate_sli{environment="production", name="time to rollback", service="checkout", sli="M5", stat="mean", window="1d"} false"#,
            r#"slogate_sli{environment="production", name="time to rollback", service="checkout", sli="M5", stat="value", window="1d"} false"#,
            r#"slogate_sli{name="time to rollback", sli="M5", stat="mean", window="1d"} false"#,
            r#"slogate_sli{name="time to rollback", sli="M5", stat="value", window="1d"} false"#,
        ];
        assert_eq!(found(T0), expected);
        publisher
            .write(&[("1d", report(None))], T0 + 60_000)
            .unwrap();
        assert!(found(T0 + 60_000).iter().all(|line| line.ends_with("true")));
        assert_eq!(found(T0 + 60_000).len(), 4);
    }
}
