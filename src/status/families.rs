//! Every series that this room writes, declared.
//!
//! Names and labels are part of the API: dashboards and alerts are written against them.

use slogate_tsdb::{Metadata, MetricKind, Store};

/// The declaration of a family of series.
#[derive(Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What its numbers mean.
    pub kind: MetricKind,
    /// Label names; a label that says nothing is absent.
    pub labels: &'static [&'static str],
    /// One or two sentences.
    pub help: &'static str,
}

impl Family {
    /// The unit that the name ends in; empty where it ends in none.
    pub fn unit(&self) -> &'static str {
        let units = ["seconds", "ratio"];
        let ends_in = |unit: &&str| self.name.rsplit('_').next() == Some(unit);
        units.into_iter().find(ends_in).unwrap_or("")
    }
}

/// The families of the deployment SLIs, which have a publisher of their own.
pub(super) static OF_SLIS: [&Family; 4] = [&SLI, &SLI_COUNT, &SLI_POPULATION, &SLI_DEPLOYMENTS];

/// Tells the store what the families mean.
pub(super) fn describe(store: &Store, families: &[&Family]) {
    for family in families {
        let metadata = Metadata {
            kind: family.kind,
            unit: family.unit().into(),
            help: family.help.into(),
        };
        store.set_metadata(family.name, metadata);
    }
}

macro_rules! families {
    ($($ident:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $ident: Family = Family {
                name: $name,
                kind: MetricKind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// Every family, in the order of `docs/metrics.md`.
        pub static ALL: &[&Family] = &[$(&$ident),*];
    };
}

families! {
    DEPLOYMENT_INFO = Info "slogate_deployment_info"
        ["service", "environment", "region", "version", "deployment", "digest", "commit", "origin", "baseline_version", "service_name", "deployment_environment_name", "service_version"]
        "Always 1 while a deployment goes on. To be joined: with the others on deployment, with telemetry on service_name, deployment_environment_name and service_version. The baseline is the version that the deployment replaces.";
    DEPLOYMENT_PHASE = StateSet "slogate_deployment_phase"
        ["service", "environment", "region", "version", "deployment", "phase"]
        "1 for the phase that a deployment is in, 0 for every other one.";
    DEPLOYMENT_START = Gauge "slogate_deployment_start_time_seconds"
        ["service", "environment", "region", "version", "deployment"]
        "When the deployment began to replace instances, else when it was first heard of; seconds since the Unix epoch.";
    DEPLOYMENT_END = Gauge "slogate_deployment_end_time_seconds"
        ["service", "environment", "region", "version", "deployment"]
        "When the deployment ended, for a rollback when traffic was back; seconds since the Unix epoch.";
    DEPLOYMENT_WEIGHT = Gauge "slogate_deployment_weight_ratio"
        ["service", "environment", "region", "version", "deployment"]
        "The candidate's share of traffic as its events say, 0 to 1.";
    DEPLOYMENT_STEP = Gauge "slogate_deployment_step"
        ["service", "environment", "region", "version", "deployment"]
        "The step that the deployment is at, from 1.";
    DEPLOYMENT_STEPS = Gauge "slogate_deployment_steps"
        ["service", "environment", "region", "version", "deployment"]
        "How many steps the deployment has.";
    DEPLOYMENT_EVENT = Gauge "slogate_deployment_event"
        ["service", "environment", "region", "version", "deployment", "digest", "event", "step", "weight"]
        "One sample per event of a deployment, at the event's time; the value is that time in milliseconds since the Unix epoch, as Grafana's annotations want it.";

    VERDICT = StateSet "slogate_verdict"
        ["gate", "service", "environment", "region", "version", "deployment", "verdict"]
        "1 for what a gate says of a deployment (pass, fail, inconclusive or pending), 0 for the rest.";
    VERDICT_INFO = Info "slogate_verdict_info"
        ["gate", "service", "environment", "region", "version", "deployment", "verdict", "reason", "final"]
        "Always 1; the labels say why, and whether a later look can change it.";
    VERDICT_SINCE = Gauge "slogate_verdict_since_time_seconds"
        ["gate", "service", "environment", "region", "version", "deployment", "verdict"]
        "Since when the gate says that; seconds since the Unix epoch.";
    CHECK = StateSet "slogate_check"
        ["gate", "check", "service", "environment", "region", "version", "deployment", "answer"]
        "1 for what a check answers (pass, fail or inconclusive), 0 for the rest.";
    CHECK_INFO = Info "slogate_check_info"
        ["gate", "check", "service", "environment", "region", "version", "deployment", "kind", "answer", "reason", "critical", "required"]
        "Always 1; the labels say what kind of check it is, why it answers so and what hangs on it.";
    CHECK_VALUE = Gauge "slogate_check_value"
        ["gate", "check", "service", "environment", "region", "version", "deployment", "of", "unit"]
        "What a check compares: of the candidate, the baseline, and the limit that the policy sets. The unit is ratio or seconds; a query's own unit is not known and absent.";
    CHECK_REQUESTS = Gauge "slogate_check_requests"
        ["gate", "check", "service", "environment", "region", "version", "deployment", "of"]
        "How many requests the answer rests on, of the candidate and of the baseline.";
    CHECK_RATIO = Gauge "slogate_check_comparison_ratio"
        ["gate", "check", "service", "environment", "region", "version", "deployment", "of"]
        "The candidate's value over the baseline's: the estimate, and low and high of where it lies at every look with the confidence of the gate.";
    CHECK_EVIDENCE = Gauge "slogate_check_evidence"
        ["gate", "check", "service", "environment", "region", "version", "deployment", "of"]
        "Evidence as the natural logarithm of an e-value: that the candidate is worse, that it is not_worse, and fail_at and pass_at, where the check decides.";

    FINDING = Gauge "slogate_finding"
        ["kind", "service", "environment", "region", "version", "deployment"]
        "1 while something is noticed that is not a check's answer: unannounced_version (it runs and no event announced it), mutable_tag (one version label, several digests), manual_change (somebody changed the newest release by hand).";
    SLI = Gauge "slogate_sli"
        ["sli", "name", "stat", "window", "service", "environment"]
        "Deployment SLIs M1 to M7 over a window: stat is value (the ratio, or the median), mean or tail (the 90th percentile of M2, the worst of M3, M5 and M7). Without service and environment over everything.";
    SLI_COUNT = Gauge "slogate_sli_count"
        ["sli", "name", "window", "service", "environment"]
        "How many deployments are in the numerator of a ratio, or in the median, mean and tail.";
    SLI_POPULATION = Gauge "slogate_sli_population"
        ["sli", "name", "window", "service", "environment"]
        "Out of how many deployments. Over several services a ratio is the sum of counts by the sum of populations.";
    SLI_DEPLOYMENTS = Gauge "slogate_sli_deployments"
        ["window", "service", "environment"]
        "Deployments that ended in the window, superseded ones aside.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::telemetry::catalog;

    fn table(
        rows: impl Iterator<Item = (&'static str, &'static str, Vec<String>, &'static str)>,
    ) -> String {
        let mut table = "| name | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
        for (name, kind, labels, help) in rows {
            let labels = labels.join(", ");
            table.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
        }
        table
    }

    fn code(labels: &[&str]) -> Vec<String> {
        labels.iter().map(|label| format!("`{label}`")).collect()
    }

    /// `docs/metrics.md` as it should be; `SLOGATE_UPDATE_GOLDEN=1` writes it.
    fn page() -> String {
        let own = catalog::ALL
            .iter()
            .map(|spec| (spec.name, spec.kind.as_str(), code(spec.labels), spec.help));
        let series = ALL.iter().map(|family| {
            (
                family.name,
                family.kind.as_str(),
                code(family.labels),
                family.help,
            )
        });
        format!(
            "# Metrics\n\n{OF_THE_PROCESS}\n\n{}\n## Deployments, verdicts, findings and SLIs\n\n{OF_STATUS}\n\n{}",
            table(own),
            table(series)
        )
    }

    const OF_THE_PROCESS: &str = "\
What slogate counts about itself, and what it knows that nobody else does.
[grafana.md](grafana.md) has dashboards and alert rules made of both.

## slogate itself

`GET /metrics` answers with these, they leave over OTLP where an endpoint is set, and every 15 s
they are written to the embedded store with `job=\"slogate\"` and `instance`, as if slogate had
scraped itself. Over OTLP a histogram leaves as two counters, `_count` and `_sum`. A family is
absent until there is something to tell.";

    const OF_STATUS: &str = "\
These are series in the embedded store: ask for them with PromQL. They are not on `/metrics`.

Each that stands gets a sample every 15 s, and at once when a deployment or a verdict changes. A
deployment has series while it goes on and for one minute after its end; then they end with a stale
marker. So an instant query tells what is the case now, and `last_over_time(…[30d])` what was. At
most 500 deployments have series at a time, the newest; a rollout with one gate of three checks has
about 80.

`service`, `environment`, `region`, `version` and `deployment` mean the same everywhere, and are
absent where nothing is known. Telemetry names the first, second and fourth `service_name`,
`deployment_environment_name` and `service_version`; `slogate_deployment_info` carries both, so that
a join needs no relabelling. The error ratio of what is being rolled out, and of nothing else:

```promql
sum by (service_name, service_version) (rate(traces_span_metrics_calls_total{span_kind=\"SPAN_KIND_SERVER\", status_code=\"STATUS_CODE_ERROR\"}[5m]))
/ sum by (service_name, service_version) (rate(traces_span_metrics_calls_total{span_kind=\"SPAN_KIND_SERVER\"}[5m]))
* on (service_name, service_version) group_left (deployment)
  group by (service_name, service_version, deployment) (slogate_deployment_info)
```";

    #[test]
    fn the_documentation_is_these_tables() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("SLOGATE_UPDATE_GOLDEN").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(
            found,
            page(),
            "run with SLOGATE_UPDATE_GOLDEN=1 to write docs/metrics.md"
        );
    }

    #[test]
    fn names_follow_the_rules() {
        let mut seen: BTreeSet<&str> = catalog::ALL.iter().map(|spec| spec.name).collect();
        for family in ALL {
            assert!(seen.insert(family.name), "{} twice", family.name);
            assert!(family.name.starts_with("slogate_"), "{}", family.name);
            let is_info = family.name.ends_with("_info");
            assert_eq!(is_info, family.kind == MetricKind::Info, "{}", family.name);
            assert!(family.help.ends_with('.'), "{}", family.name);
            let labels: BTreeSet<_> = family.labels.iter().collect();
            assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
            for reserved in ["job", "instance", "le", "quantile", "__name__"] {
                assert!(!labels.contains(&reserved), "{}", family.name);
            }
        }
    }

    #[test]
    fn units_are_the_names_last_word() {
        assert_eq!(DEPLOYMENT_START.unit(), "seconds");
        assert_eq!(DEPLOYMENT_WEIGHT.unit(), "ratio");
        assert_eq!(VERDICT.unit(), "");
    }
}
