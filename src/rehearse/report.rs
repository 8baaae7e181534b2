//! What came of tests: for people, for scripts, and as JUnit XML.

use std::fmt::Write as _;
use std::ops::Range;

use serde::Serialize;

use super::{Test, TestFile};
use crate::policy::Diagnostics;

/// What came of the tests of a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileReport {
    /// The file's name.
    pub file: String,
    /// Whether there is no mistake and no test failed.
    pub ok: bool,
    /// What came of each test that was run.
    pub tests: Vec<TestReport>,
    /// What is wrong with the file or its policies; then no test was run.
    pub mistakes: Diagnostics,
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestReport {
    /// The test's name.
    pub name: String,
    /// The line that its name stands on, from 1.
    pub line: usize,
    /// How many things were expected.
    pub expectations: usize,
    /// What was expected and is not so, in the order of the file.
    pub failures: Vec<Failure>,
}

/// Something that was expected and is not so.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The line that the expectation stands on, from 1.
    pub line: usize,
    /// Its column in characters, from 1.
    pub column: usize,
    /// The gate that was asked.
    pub gate: String,
    /// When, from the test's time zero.
    pub eval_time: String,
    /// The check, where a check's answer was expected.
    pub check: Option<String>,
    /// `verdict`, `reason`, `final` or `message`.
    pub what: &'static str,
    /// What was expected.
    pub expected: String,
    /// What it is.
    pub got: String,
    /// The gate's or the check's own sentence.
    pub evidence: String,
}

impl FileReport {
    pub(super) fn of(file: &TestFile, tests: Vec<TestReport>) -> Self {
        FileReport {
            file: file.file.name.clone(),
            ok: tests.iter().all(TestReport::is_ok),
            tests,
            mistakes: Diagnostics::default(),
        }
    }

    /// Of a file that can't be run.
    pub fn mistaken(file: String, mistakes: Diagnostics) -> Self {
        FileReport {
            file,
            ok: false,
            tests: Vec::new(),
            mistakes,
        }
    }
}

impl TestReport {
    pub(super) fn new(file: &TestFile, test: &Test) -> Self {
        TestReport {
            name: test.name.clone(),
            line: file.position(&test.name_span).0,
            expectations: 0,
            failures: Vec::new(),
        }
    }

    /// Whether everything is as expected.
    pub fn is_ok(&self) -> bool {
        self.failures.is_empty()
    }
}

impl Failure {
    pub(super) fn position(&self) -> (usize, usize) {
        (self.line, self.column)
    }

    /// `gate canary at 20m, check errors: verdict`.
    fn about(&self) -> String {
        let check = self.check.iter().map(|check| format!(", check {check}"));
        let check: String = check.collect();
        format!(
            "gate {} at {}{check}: {}",
            self.gate, self.eval_time, self.what
        )
    }
}

impl TestFile {
    /// Line and column of a place, both from 1.
    pub(super) fn position(&self, span: &Range<usize>) -> (usize, usize) {
        let place = crate::policy::Place {
            file: std::sync::Arc::clone(&self.file),
            span: span.clone(),
            label: String::new(),
        };
        place.position()
    }
}

/// The reports for people: a line for each file, every failure with its place, and the sum.
pub fn text(reports: &[FileReport]) -> String {
    let mut text = String::new();
    for report in reports {
        let failed = report.tests.iter().filter(|test| !test.is_ok()).count();
        let expected: usize = report.tests.iter().map(|test| test.expectations).sum();
        let tests = counted(report.tests.len(), "test");
        let file = &report.file;
        // Writing to a string can't fail.
        let _ = match report.mistakes.items.len() {
            0 if report.ok => {
                let expected = counted(expected, "expectation");
                writeln!(text, "{file}: SUCCESS ({tests}, {expected})")
            }
            0 => writeln!(text, "{file}: FAILED ({failed} of {tests})"),
            n => writeln!(text, "{file}: FAILED ({})", counted(n, "mistake")),
        };
        for test in report.tests.iter().filter(|test| !test.is_ok()) {
            let _ = writeln!(text, "  {}", test.name);
            for failure in &test.failures {
                let _ = write!(text, "    {file}:{}:{}: ", failure.line, failure.column);
                let _ = writeln!(text, "{}", failure.about());
                for (name, value) in failure.parts() {
                    let _ = writeln!(text, "      {name:<9} {value}");
                }
            }
        }
    }
    let (tests, failed, broken) = sums(reports);
    let _ = write!(
        text,
        "{}: {} passed",
        counted(tests, "test"),
        tests - failed
    );
    if failed > 0 {
        let _ = write!(text, ", {failed} failed");
    }
    if broken > 0 {
        let _ = write!(text, "; {} with mistakes", counted(broken, "file"));
    }
    text.push('\n');
    text
}

impl Failure {
    fn parts(&self) -> [(&'static str, &str); 3] {
        [
            ("expected:", &self.expected),
            ("got:", &self.got),
            ("evidence:", &self.evidence),
        ]
    }
}

/// Tests, failed tests, and files with mistakes.
fn sums(reports: &[FileReport]) -> (usize, usize, usize) {
    let tests = reports.iter().flat_map(|report| &report.tests);
    let failed = tests.clone().filter(|test| !test.is_ok()).count();
    let broken = reports
        .iter()
        .filter(|report| !report.mistakes.items.is_empty());
    (tests.count(), failed, broken.count())
}

/// The reports as JUnit XML: a suite for each file, a case for each test, and an error for each
/// file that has a mistake.
pub fn junit(reports: &[FileReport]) -> String {
    let (tests, failed, broken) = sums(reports);
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        xml,
        "<testsuites name=\"slogate policy test\" tests=\"{}\" failures=\"{failed}\" \
         errors=\"{broken}\">",
        tests + broken
    );
    for report in reports {
        suite(report, &mut xml);
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn suite(report: &FileReport, xml: &mut String) {
    let file = escape(&report.file);
    let (tests, failed, broken) = sums(std::slice::from_ref(report));
    let _ = writeln!(
        xml,
        "  <testsuite name=\"{file}\" tests=\"{}\" failures=\"{failed}\" errors=\"{broken}\">",
        tests + broken
    );
    if broken > 0 {
        let message = counted(report.mistakes.items.len(), "mistake");
        let _ = writeln!(
            xml,
            "    <testcase name=\"reads\" classname=\"{file}\" file=\"{file}\">\n      \
             <error message=\"{message}\" type=\"mistake\">{}</error>\n    </testcase>",
            escape(&report.mistakes.to_string())
        );
    }
    for test in &report.tests {
        let name = escape(&test.name);
        let line = test.line;
        let case = format!(
            "<testcase name=\"{name}\" classname=\"{file}\" file=\"{file}\" line=\"{line}\""
        );
        if test.is_ok() {
            let _ = writeln!(xml, "    {case}/>");
            continue;
        }
        let _ = writeln!(xml, "    {case}>");
        // A case has one failure, or some readers lose the others.
        let message: Vec<String> = test.failures.iter().map(Failure::about).collect();
        let mut body = String::new();
        for failure in &test.failures {
            let (line, column) = failure.position();
            let _ = writeln!(body, "{}:{line}:{column}: {}", report.file, failure.about());
            for (name, value) in failure.parts() {
                let _ = writeln!(body, "  {name:<9} {value}");
            }
        }
        let _ = writeln!(
            xml,
            "      <failure message=\"{}\" type=\"expectation\">{}</failure>\n    </testcase>",
            escape(&message.join("; ")),
            escape(&body)
        );
    }
    xml.push_str("  </testsuite>\n");
}

/// Text for XML 1.0, which has no place for most control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

fn counted(count: usize, what: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {what}{end}")
}
