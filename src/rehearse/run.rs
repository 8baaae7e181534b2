//! Tests through the judge.

use std::borrow::Cow;
use std::sync::Arc;

use slogate_series::Series;
use slogate_tsdb::{Batch, OpenError, Options, SeriesError, SeriesRef, Store};

use super::report::Failure;
use super::{Expected, FileReport, GateTest, Test, TestFile, TestReport, ZERO_MS};
use crate::config::QuerySettings;
use crate::deploy::fold;
use crate::judge::{Subject, judge};
use crate::model::time::humanize_ms;
use crate::model::{CheckResult, Outcome, Reason, Verdict};
use crate::simulate::{self, Setting};
use crate::source::EmbeddedSource;

/// As the daemon's defaults, save that nobody else asks.
const QUERIES: QuerySettings = QuerySettings {
    concurrency: 1,
    timeout_ms: 120_000,
    samples_max: 50_000_000,
    lookback_ms: 300_000,
};

/// Longer than any test.
const RETENTION_MS: i64 = 1_000 * 86_400_000;

/// Why a test could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no store in memory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A series can't be stored.
    #[error("test {test:?}: {source}")]
    Series {
        /// The test's name.
        test: String,
        /// Why.
        source: SeriesError,
    },
    /// Samples can't be stored.
    #[error("test {test:?}: the store refused {count} samples")]
    Samples {
        /// The test's name.
        test: String,
        /// How many.
        count: u64,
    },
    /// The events make no deployment of the version that is tested.
    #[error("test {test:?}: its events make no deployment of version {version:?}")]
    NoDeployment {
        /// The test's name.
        test: String,
        /// The version.
        version: String,
    },
}

/// Runs the tests of a file whose names are `wanted`.
///
/// # Errors
/// When a test can't be run. A test that fails is no error.
pub async fn run(
    file: &TestFile,
    wanted: &(dyn Fn(&str) -> bool + Sync),
) -> Result<FileReport, RunError> {
    let mut tests = Vec::new();
    for test in file.tests.iter().filter(|test| wanted(&test.name)) {
        tests.push(run_test(file, test).await?);
    }
    Ok(FileReport::of(file, tests))
}

async fn run_test(file: &TestFile, test: &Test) -> Result<TestReport, RunError> {
    let mut store = Filling::new(test)?;
    let source = EmbeddedSource::new(Arc::clone(&store.store), &QUERIES);
    let mut report = TestReport::new(file, test);
    let mut gates: Vec<&GateTest> = test.gates.iter().collect();
    gates.sort_by_key(|gate| gate.at_ms);
    for expected in gates {
        store.fill(expected.at_ms)?;
        let subject = subject(test, expected.at_ms)?;
        let verdict = judge(&expected.gate, &subject, &source, expected.at_ms).await;
        let mut held = Held {
            file,
            expected,
            report: &mut report,
        };
        held.hold(&verdict);
    }
    report.failures.sort_by_key(Failure::position);
    Ok(report)
}

/// The deployment and its history, as they are known at `at_ms`.
fn subject(test: &Test, at_ms: i64) -> Result<Subject, RunError> {
    let events = test.events.iter().filter(|event| event.time_ms <= at_ms);
    let history: Vec<_> = fold(&test.target, events)
        .into_iter()
        .map(|folded| Arc::new(folded.deployment))
        .collect();
    let is_tested = |version: Option<&str>| version == Some(test.version.as_str());
    let newest = history
        .iter()
        .filter(|deployment| is_tested(deployment.artifact.version.as_deref()))
        .max_by_key(|deployment| (deployment.created_ms, &deployment.id));
    let Some(deployment) = newest.map(Arc::clone) else {
        return Err(RunError::NoDeployment {
            test: test.name.clone(),
            version: test.version.clone(),
        });
    };
    Ok(Subject {
        deployment,
        history,
    })
}

/// What was measured: what the test says, and the rollout that it draws.
fn all_series(test: &Test) -> Cow<'_, [Series]> {
    let Some(draw) = &test.scenario else {
        return Cow::Borrowed(&test.series);
    };
    let setting = Setting {
        service: &test.target.service,
        environment: &test.target.environment,
        old: &draw.baseline,
        new: &test.version,
        start_ms: draw.started_ms,
    };
    let mut all = simulate::series(draw.scenario, draw.seed, draw.number, setting);
    all.extend(test.series.iter().cloned());
    Cow::Owned(all)
}

/// A store that holds a test's samples up to a time.
struct Filling<'t> {
    test: &'t Test,
    series: Cow<'t, [Series]>,
    store: Arc<Store>,
    /// Of each series its reference and how many samples are in.
    filled: Vec<(SeriesRef, usize)>,
}

impl<'t> Filling<'t> {
    fn new(test: &'t Test) -> Result<Self, RunError> {
        let options = Options {
            retention_ms: RETENTION_MS,
            ..Options::default()
        };
        let (store, _) = Store::open(options, ZERO_MS)?;
        let series = all_series(test);
        let refer = |series: &Series| match store.series(&series.labels) {
            Ok(series) => Ok((series, 0)),
            Err(source) => Err(RunError::Series {
                test: test.name.clone(),
                source,
            }),
        };
        let filled = series.iter().map(refer).collect::<Result<_, _>>()?;
        Ok(Filling {
            test,
            series,
            store: Arc::new(store),
            filled,
        })
    }

    /// Adds the samples up to `at_ms`.
    fn fill(&mut self, at_ms: i64) -> Result<(), RunError> {
        let mut batch = Batch::default();
        for (series, (reference, done)) in self.series.iter().zip(&mut self.filled) {
            let due = series.samples.iter().skip(*done);
            for sample in due.take_while(|sample| sample.t_ms <= at_ms) {
                *done += 1;
                batch.push(*reference, sample);
            }
        }
        let stored = self
            .store
            .append(&batch, at_ms)
            .map(|report| report.accepted);
        let stored = stored.unwrap_or_default();
        match (batch.len() as u64).saturating_sub(stored) {
            0 => Ok(()),
            count => Err(RunError::Samples {
                test: self.test.name.clone(),
                count,
            }),
        }
    }
}

/// A verdict beside what is expected of it.
struct Held<'h> {
    file: &'h TestFile,
    expected: &'h GateTest,
    report: &'h mut TestReport,
}

/// What of an answer is expected, without the place.
struct Answer<'a> {
    check: Option<&'a str>,
    verdict: Outcome,
    reason: Reason,
    message: &'a str,
}

impl Held<'_> {
    fn hold(&mut self, verdict: &Verdict) {
        let gate = self.expected;
        let answer = Answer {
            check: None,
            verdict: verdict.verdict,
            reason: verdict.reason,
            message: &verdict.message,
        };
        self.verdict(&answer, Some(&gate.verdict));
        self.reason(&answer, gate.reason.as_ref());
        if let Some(expected) = &gate.is_final {
            let (wanted, got) = (expected.value.to_string(), verdict.is_final.to_string());
            self.compare(&answer, "final", expected, wanted, got);
        }
        self.message(&answer, gate.message.as_ref());
        for check in &gate.checks {
            // The reader lets no other names through, and the judge answers every check.
            if let Some(found) = verdict.checks.iter().find(|found| found.name == check.name) {
                let answer = Answer::of(found);
                self.verdict(&answer, check.verdict.as_ref());
                self.reason(&answer, check.reason.as_ref());
                self.message(&answer, check.message.as_ref());
            }
        }
    }

    fn verdict(&mut self, answer: &Answer<'_>, expected: Option<&Expected<Outcome>>) {
        if let Some(expected) = expected {
            let got = format!("{} ({})", answer.verdict, answer.reason.as_str());
            let wanted = match answer.verdict == expected.value {
                true => got.clone(),
                false => expected.value.to_string(),
            };
            self.compare(answer, "verdict", expected, wanted, got);
        }
    }

    fn reason(&mut self, answer: &Answer<'_>, expected: Option<&Expected<Reason>>) {
        if let Some(expected) = expected {
            let wanted = expected.value.as_str().to_owned();
            let got = answer.reason.as_str().to_owned();
            self.compare(answer, "reason", expected, wanted, got);
        }
    }

    fn message(&mut self, answer: &Answer<'_>, expected: Option<&Expected<String>>) {
        if let Some(expected) = expected {
            let has_it = answer.message.contains(&expected.value);
            let wanted = format!("a text with {:?}", expected.value);
            let got = match has_it {
                true => wanted.clone(),
                false => "a text without it".to_owned(),
            };
            self.compare(answer, "message", expected, wanted, got);
        }
    }

    fn compare<T>(
        &mut self,
        answer: &Answer<'_>,
        what: &'static str,
        expected: &Expected<T>,
        wanted: String,
        got: String,
    ) {
        self.report.expectations += 1;
        if wanted == got {
            return;
        }
        let (line, column) = self.file.position(&expected.span);
        self.report.failures.push(Failure {
            line,
            column,
            gate: self.expected.gate.name.clone(),
            eval_time: humanize_ms(self.expected.at_ms - ZERO_MS),
            check: answer.check.map(str::to_owned),
            what,
            expected: wanted,
            got,
            evidence: answer.message.to_owned(),
        });
    }
}

impl<'a> Answer<'a> {
    fn of(check: &'a CheckResult) -> Self {
        Answer {
            check: Some(&check.name),
            verdict: check.verdict,
            reason: check.reason,
            message: &check.message,
        }
    }
}
