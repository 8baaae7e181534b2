//! A made-up rollout as the series that a service would have sent.
//!
//! Each instance counts its requests and durations from its start and reports twice a minute, so
//! that a block of the judge is a minute, as it is in the simulation. The first report of a minute
//! says what the minute before it ended with: a block's counts are those of the simulated minute,
//! no more and no less. In a minute without requests an instance reports nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use slogate_series::{Histogram, Labels, Sample, Series, Value};

use super::generate::{Cell, Minute, generate};
use super::scenario::{HISTORY_MINUTES, Scenario};

const MINUTE_MS: i64 = 60_000;

/// What the telemetry of a made-up rollout calls things, and when it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'s> {
    /// The service's name.
    pub(crate) service: &'s str,
    /// The environment's name; empty for none.
    pub(crate) environment: &'s str,
    /// The version that is replaced.
    pub(crate) old: &'s str,
    /// The version that is shipped.
    pub(crate) new: &'s str,
    /// The start of the rollout, in milliseconds since the epoch: a whole minute.
    pub(crate) start_ms: i64,
}

/// The request series of rollout `number` of a scenario.
pub(crate) fn series(
    scenario: &Scenario,
    seed: u64,
    number: u32,
    setting: Setting<'_>,
) -> Vec<Series> {
    let rollout = generate(scenario, seed, number);
    let mut reporting = Reporting {
        names_instances: rollout.names_instances,
        processes: BTreeMap::new(),
    };
    let minutes = rollout.history.iter().chain(&rollout.minutes);
    for (minute, at) in minutes.zip(-i64::from(HISTORY_MINUTES)..) {
        reporting.add(minute, setting.start_ms + at * MINUTE_MS);
    }
    let processes = reporting.processes.into_iter();
    processes
        .flat_map(|(whose, process)| process.into_series(&whose, setting))
        .collect()
}

/// Whether it runs the new version, and the instance's name where series say it.
type Whose = (bool, Option<Arc<str>>);

struct Reporting {
    names_instances: bool,
    processes: BTreeMap<Whose, Process>,
}

/// What an instance has counted, and what it has reported of that.
struct Process {
    start_ms: i64,
    ok: f64,
    failed: f64,
    durations: Histogram,
    ok_samples: Vec<Sample>,
    failed_samples: Vec<Sample>,
    duration_samples: Vec<Sample>,
}

impl Reporting {
    fn add(&mut self, minute: &Minute, begin_ms: i64) {
        let mut counted: BTreeMap<Whose, Vec<&Cell>> = BTreeMap::new();
        for cell in &minute.cells {
            let name = self.names_instances.then(|| Arc::clone(&cell.instance));
            counted
                .entry((cell.is_candidate, name))
                .or_default()
                .push(cell);
        }
        for (whose, cells) in counted {
            let process = self.processes.entry(whose);
            let process = process.or_insert_with(|| Process::new(begin_ms));
            process.report(begin_ms + MINUTE_MS / 2);
            for cell in cells {
                process.count(cell);
            }
            process.report(begin_ms + MINUTE_MS);
        }
    }
}

impl Process {
    fn new(start_ms: i64) -> Self {
        Process {
            start_ms,
            ok: 0.0,
            failed: 0.0,
            durations: Histogram::default(),
            ok_samples: Vec::new(),
            failed_samples: Vec::new(),
            duration_samples: Vec::new(),
        }
    }

    fn count(&mut self, cell: &Cell) {
        self.ok += cell.counts.total - cell.counts.errors;
        self.failed += cell.counts.errors;
        self.durations = match self.durations.count > 0.0 {
            true => self.durations.add(&cell.durations),
            false => cell.durations.clone(),
        };
    }

    fn report(&mut self, t_ms: i64) {
        let start_ms = self.start_ms;
        let sample = |value| Sample {
            t_ms,
            start_ms,
            value,
        };
        self.ok_samples.push(sample(Value::Float(self.ok)));
        self.failed_samples.push(sample(Value::Float(self.failed)));
        // An empty histogram has no layout yet.
        if self.durations.count > 0.0 {
            let durations = Value::Histogram(Arc::new(self.durations.clone()));
            self.duration_samples.push(sample(durations));
        }
    }

    fn into_series(self, whose: &Whose, setting: Setting<'_>) -> [Series; 3] {
        let labels = |name: &str, status: &str| {
            let version = if whose.0 { setting.new } else { setting.old };
            Labels::from_pairs([
                ("__name__", name),
                ("service_name", setting.service),
                ("deployment_environment_name", setting.environment),
                ("service_version", version),
                (
                    "service_instance_id",
                    whose.1.as_deref().unwrap_or_default(),
                ),
                ("span_kind", "SPAN_KIND_SERVER"),
                ("status_code", status),
            ])
        };
        let calls = "traces_span_metrics_calls_total";
        let durations = "traces_span_metrics_duration_seconds";
        [
            (calls, "STATUS_CODE_UNSET", self.ok_samples),
            (calls, "STATUS_CODE_ERROR", self.failed_samples),
            (durations, "STATUS_CODE_UNSET", self.duration_samples),
        ]
        .map(|(name, status, samples)| Series {
            labels: labels(name, status),
            samples,
        })
    }
}

#[cfg(test)]
mod tests {
    use slogate_tsdb::{Batch, Options, Store};

    use super::*;
    use crate::config::QuerySettings;
    use crate::judge::judge;
    use crate::model::Verdict;
    use crate::policy;
    use crate::simulate::observe::{NEW, OLD, START_MS, complete_ms};
    use crate::simulate::peers::Arms;
    use crate::simulate::{CATALOGUE, comparing, ours};
    use crate::source::EmbeddedSource;

    fn source(series: &[Series]) -> EmbeddedSource {
        let (store, _) = Store::open(Options::default(), START_MS).unwrap();
        let mut batch = Batch::default();
        for one in series {
            let reference = store.series(&one.labels).unwrap();
            for sample in &one.samples {
                batch.push(reference, sample);
            }
        }
        let report = store.append(&batch, complete_ms(59)).unwrap();
        assert_eq!(report.accepted, batch.len() as u64);
        let settings = QuerySettings {
            concurrency: 1,
            timeout_ms: 100_000,
            samples_max: 50_000_000,
            lookback_ms: 300_000,
        };
        EmbeddedSource::new(Arc::new(store), &settings)
    }

    fn answers(verdict: &Verdict) -> Vec<String> {
        let checks = verdict.checks.iter();
        checks
            .map(|check| format!("{} {} {}", check.name, check.reason.as_str(), check.message))
            .collect()
    }

    /// What a daemon makes of a rollout that reaches it as series is what the simulation makes of
    /// it; else the table in the documentation would be about another program.
    #[tokio::test]
    async fn through_a_store_the_judge_says_what_it_says_in_the_simulation() {
        let names = ["AA_1rps", "badnode_c", "unnamed_err"];
        let gate = comparing(&policy::built_in().gates[0]).unwrap();
        for name in names {
            let scenario = CATALOGUE.iter().find(|one| one.name == name).unwrap();
            let rollout = generate(scenario, 7, 0);
            let mut shown = BTreeMap::new();
            ours::watch(&gate, &rollout, &Arms::of(&rollout), |minute, verdict| {
                shown.insert(minute, answers(verdict));
                minute < 20
            });
            let setting = Setting {
                service: "simulated",
                environment: "production",
                old: OLD,
                new: NEW,
                start_ms: START_MS,
            };
            let source = source(&series(scenario, 7, 0, setting));
            for minute in [3, 20] {
                let verdict =
                    judge(&gate, &ours::subject(), &source, complete_ms(minute - 1)).await;
                assert_eq!(answers(&verdict), shown[&minute], "{name}, minute {minute}");
            }
        }
    }
}
