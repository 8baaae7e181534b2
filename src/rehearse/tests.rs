//! What test files say, right and wrong, against golden texts; and the test that comes with the
//! built-in gate.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// Set this to write the golden files anew; then read the difference.
const UPDATE: &str = "SLOGATE_UPDATE_GOLDEN";

/// Relative, so that the texts are the same on every machine: tests run in the package's folder.
const GOLDEN: &str = "tests/golden/rehearse";

fn hold(path: &Path, shown: &str) {
    if std::env::var_os(UPDATE).is_some() {
        fs::write(path, shown).unwrap();
    }
    let golden = fs::read_to_string(path).unwrap_or_default();
    assert!(shown == golden, "{} is not this:\n{shown}", path.display());
}

async fn report(path: &Path) -> FileReport {
    match read(path) {
        Ok(file) => run(&file, &|_| true).await.unwrap(),
        Err(mistakes) => FileReport::mistaken(path.display().to_string(), mistakes),
    }
}

#[tokio::test]
async fn test_files_say_what_the_golden_files_show() {
    let files = find(&[PathBuf::from(GOLDEN)]).unwrap();
    assert!(files.len() >= 6, "the golden files are gone");
    let mut reports = Vec::new();
    for file in files {
        let report = report(&file).await;
        let mistakes = match report.mistakes.items.len() {
            0 => String::new(),
            _ => format!("{}\n\n", report.mistakes),
        };
        let shown = format!("{mistakes}{}", text(std::slice::from_ref(&report)));
        hold(&file.with_extension("txt"), &shown);
        reports.push(report);
    }
    let folder = Path::new(GOLDEN);
    hold(&folder.join("all.txt"), &text(&reports));
    hold(&folder.join("all.junit.xml"), &junit(&reports));
    let json = serde_json::to_string_pretty(&reports).unwrap() + "\n";
    hold(&folder.join("all.json"), &json);
}

/// Their list grows, so it is in no golden file.
#[test]
fn an_unknown_reason_is_told_the_known_ones() {
    let text = "policies: [gates.yaml]\ntests:\n  - name: a\n    deployment: { service: checkout, \
                version: 2 }\n    gate_tests: [{ eval_time: 1m, verdict: fail, reason: no_dta }]\n";
    let mistakes = read::parse("a.test.yaml", text, Path::new(GOLDEN)).unwrap_err();
    let text = mistakes.to_string();
    assert!(
        text.contains("a.test.yaml:5:58") && text.contains("no_data, "),
        "{text}"
    );
}

/// A user copies it; it has to hold for the gate as it is.
#[tokio::test]
async fn the_test_of_the_built_in_gate_passes() {
    let report = report(Path::new("rules/canary.test.yaml")).await;
    assert!(report.ok, "{}", text(&[report]));
    assert!(report.tests.len() >= 5);
}

#[tokio::test]
async fn only_wanted_tests_are_run() {
    let file = read(Path::new("rules/canary.test.yaml")).unwrap();
    let report = run(&file, &|name| name.contains("warm-up")).await.unwrap();
    assert_eq!(report.tests.len(), 1);
}

/// A policy that is worsened has to be noticed by its test, or the test is worth nothing.
#[tokio::test]
async fn a_gate_that_tolerates_anything_fails_the_test_of_the_built_in_gate() {
    let folder = tempfile::tempdir().unwrap();
    let gate = fs::read_to_string("rules/canary.yaml").unwrap();
    let at = gate.find("sli: requests.errorRatio").unwrap();
    let lax =
        "sli: requests.errorRatio\n        worseBy: { absolute: 50% }\n        minEvents: 50\n";
    let rest = gate[at..].find("\n\n").map_or(gate.len(), |end| at + end);
    let lax = format!("{}{lax}{}", &gate[..at], &gate[rest..]);
    fs::write(folder.path().join("canary.yaml"), lax).unwrap();
    let test = folder.path().join("canary.test.yaml");
    fs::copy("rules/canary.test.yaml", &test).unwrap();
    let report = report(&test).await;
    let failed: Vec<&str> = report
        .tests
        .iter()
        .filter(|test| !test.is_ok())
        .map(|test| test.name.as_str())
        .collect();
    let expected = "a release with ten times the errors fails within minutes";
    assert!(
        failed.contains(&expected),
        "{failed:?}\n{}",
        report.mistakes
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is taken out of a test file or put into it, it is read or refused.
    #[test]
    fn damaged_test_files_are_read_or_refused(at in 0usize..6000, length in 0usize..40, put in "\\PC{0,4}") {
        let text = fs::read_to_string("tests/golden/rehearse/passes.test.yaml").unwrap();
        let mut chars: Vec<char> = text.chars().collect();
        let at = at % chars.len();
        let end = (at + length).min(chars.len());
        chars.splice(at..end, put.chars());
        let damaged: String = chars.into_iter().collect();
        if let Err(mistakes) = read::parse("a.test.yaml", &damaged, Path::new(GOLDEN)) {
            prop_assert!(!mistakes.items.is_empty());
        }
    }
}
