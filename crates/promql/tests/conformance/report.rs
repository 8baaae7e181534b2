//! What passed: a table for people, the same as Markdown, and the first failures in full.

use std::fmt::Write as _;

/// Files about what Prometheus has behind feature flags. All others must pass whole.
const EXPERIMENTAL: [&str; 6] = [
    "duration_expression.test",
    "extended_vectors.test",
    "fill-modifier.test",
    "info.test",
    "limit.test",
    "start_timestamps.test",
];

/// How many failures of a file are shown in full.
const SHOWN_MAX: usize = 5;

/// What became of one script.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) evals: usize,
    /// Evaluations that failed, and commands that could not be read or run: place and reason.
    pub(crate) failures: Vec<String>,
    /// How many of `failures` are no evaluations.
    pub(crate) unread: usize,
}

impl Report {
    pub(crate) fn passed(&self) -> usize {
        self.evals.saturating_sub(self.failures.len() - self.unread)
    }

    pub(crate) fn is_stable(&self) -> bool {
        !EXPERIMENTAL.contains(&self.name.as_str())
    }
}

/// The evaluations of all reports, and how many of them passed.
pub(crate) fn total(reports: &[Report]) -> (usize, usize) {
    let evals = reports.iter().map(|r| r.evals).sum();
    (evals, reports.iter().map(Report::passed).sum())
}

/// The first failures of each file, then a line for each file and one for all.
pub(crate) fn text(reports: &[Report], is_everything_shown: bool) -> String {
    let mut out = String::new();
    let shown = if is_everything_shown {
        usize::MAX
    } else {
        SHOWN_MAX
    };
    for report in reports {
        for failure in report.failures.iter().take(shown) {
            let _ = writeln!(out, "{}:{failure}", report.name);
        }
    }
    let _ = writeln!(
        out,
        "{:32} {:>6} {:>6} {:>6}",
        "file", "evals", "passed", "failed"
    );
    for report in reports {
        let _ = writeln!(
            out,
            "{:32} {:6} {:6} {:6}",
            report.name,
            report.evals,
            report.passed(),
            report.failures.len()
        );
    }
    let (evals, passed) = total(reports);
    let failed: usize = reports.iter().map(|r| r.failures.len()).sum();
    let _ = writeln!(out, "{:32} {evals:6} {passed:6} {failed:6}", "total");
    out
}

/// The table as Markdown.
pub(crate) fn markdown(reports: &[Report]) -> String {
    let mut out = String::from("| file | evaluations | passed | failed |\n|---|---:|---:|---:|\n");
    for report in reports {
        let failed = report.failures.len();
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {failed} |",
            report.name,
            report.evals,
            report.passed()
        );
    }
    let (evals, passed) = total(reports);
    let failed: usize = reports.iter().map(|r| r.failures.len()).sum();
    let _ = writeln!(
        out,
        "| **total** | **{evals}** | **{passed}** | **{failed}** |"
    );
    out
}

#[test]
fn a_report_counts_what_could_not_be_read_as_failed() {
    let report = Report {
        name: "a.test".to_owned(),
        evals: 3,
        failures: vec!["1: x".to_owned(), "9: y".to_owned()],
        unread: 1,
    };
    let reports = [report];
    assert_eq!(total(&reports), (3, 2));
    assert!(markdown(&reports).contains("| `a.test` | 3 | 2 | 2 |"));
    assert!(text(&reports, false).starts_with("a.test:1: x\n"));
}
