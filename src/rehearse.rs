//! Tests of policies: what a gate has to say of telemetry that somebody made up.
//!
//! A test file lies beside the policies it tests and ends in `.test.yaml`. Each test in it tells
//! of one rollout: the deployment and its events, the series that were measured, and what gates
//! have to say of it, when. It is run through [`judge()`](crate::judge::judge) itself, on a store
//! in memory, with nothing taken out or put in.
//!
//! What is settled here:
//!
//! - **Keys are spelt as promtool spells them** (`input_series`, `eval_time`), since who writes
//!   these files has written those. Values of the policy language are spelt as there.
//! - **All times count from the test's time zero**, which is Monday, 1 January 2001, midnight
//!   UTC ([`ZERO_MS`]). So queries by weekday and hour have one answer.
//! - **Nothing is known before its time.** At `eval_time` the store holds the samples up to
//!   then, and the deployment is what its events up to then make of it.
//! - **Made-up rollouts are those of the simulation.** A `scenario` is drawn as `slogate simulate`
//!   draws it, and reaches the store as a service would have sent it, beside any other series.
//! - **Looking once is looking often.** A verdict at a time is the same whether the rollout was
//!   looked at before or not, so a test need not look in between.
//! - **A file with a mistake is not run**, and neither is one whose policies have one. Other
//!   files are; all mistakes are reported together.
//! - **An expectation that isn't written is none**: reason, message and checks are only held
//!   against what the test says of them. A gate's verdict has to be said.
//! - **No test is no success**: a folder without tests, a file without tests, and a test that
//!   expects nothing are mistakes.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use slogate_series::Series;

use crate::model::{Event, Outcome, Reason, Target};
use crate::policy::set::{Wanted, files};
use crate::policy::{Diagnostics, Gate, SourceFile};
use crate::simulate::Scenario;

mod read;
mod report;
mod run;

pub use read::read;
pub use report::{Failure, FileReport, TestReport, junit, text};
pub use run::{RunError, run};

/// Time zero of every test, in milliseconds since the epoch: a Monday at midnight UTC.
pub const ZERO_MS: i64 = 978_307_200_000;

/// The tests of one file; it has no mistake.
#[derive(Debug)]
pub struct TestFile {
    /// The file.
    file: Arc<SourceFile>,
    /// Its tests, at least one, in the order of the file.
    tests: Vec<Test>,
}

/// One rollout and what gates have to say of it.
#[derive(Debug)]
struct Test {
    name: String,
    name_span: Range<usize>,
    target: Target,
    version: String,
    /// Of all deployments to the target, in any order.
    events: Vec<Event>,
    series: Vec<Series>,
    scenario: Option<Draw>,
    gates: Vec<GateTest>,
}

/// A made-up rollout whose telemetry is measured too.
#[derive(Debug)]
struct Draw {
    scenario: &'static Scenario,
    seed: u64,
    number: u32,
    /// The version that is replaced.
    baseline: String,
    started_ms: i64,
}

/// What a gate has to say at a time.
#[derive(Debug)]
struct GateTest {
    gate: Arc<Gate>,
    at_ms: i64,
    verdict: Expected<Outcome>,
    reason: Option<Expected<Reason>>,
    is_final: Option<Expected<bool>>,
    message: Option<Expected<String>>,
    checks: Vec<CheckTest>,
}

/// What a check has to say. At least one of the three is expected.
#[derive(Debug)]
struct CheckTest {
    name: String,
    verdict: Option<Expected<Outcome>>,
    reason: Option<Expected<Reason>>,
    message: Option<Expected<String>>,
}

/// Something that is expected, and where the file says so.
#[derive(Debug)]
struct Expected<T> {
    value: T,
    span: Range<usize>,
}

/// The test files behind `paths`, each once: files, and of folders those in them that end in
/// `.test.yaml`, in order of name.
///
/// # Errors
/// Paths that can't be read, and folders without a test.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Diagnostics> {
    let mut mistakes = Diagnostics::default();
    let found = files(paths, Wanted::Tests, &mut mistakes);
    mistakes.or(found)
}

#[cfg(test)]
mod tests;
