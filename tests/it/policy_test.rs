//! `slogate policy test` as a user runs it: beside the policies, in a pipeline.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::harness::binary;

const GATE: &str = "\
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: queue }
spec:
  warmUp: 0s
  soak: 1m
  checks:
    - name: depth
      query: max(queue_depth{service_version=\"$version\"})
      below: 1000
";

const TESTS: &str = "\
tests:
  - name: a short queue passes
    deployment: { service: checkout, version: 2 }
    input_series:
      - { series: 'queue_depth{service_version=\"2\"}', values: 10x20 }
    gate_tests: [{ eval_time: 5m, verdict: pass }]
  - name: a long queue fails
    deployment: { service: checkout, version: 2 }
    input_series:
      - { series: 'queue_depth{service_version=\"2\"}', values: 5000x20 }
    gate_tests: [{ eval_time: 5m, verdict: fail }]
";

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn slogate(folder: &Path, args: &[&str]) -> Output {
    let mut command = binary();
    command.arg("policy").args(args).current_dir(folder);
    command.output().expect("the binary runs")
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn tests_beside_the_policies_are_found_and_pass() {
    let folder = folder(&[("queue.yaml", GATE), ("queue.test.yaml", TESTS)]);
    let (code, out, err) = said(&slogate(folder.path(), &["test"]));
    let expected = "queue.test.yaml: SUCCESS (2 tests, 2 expectations)\n2 tests: 2 passed\n";
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), expected, ""));
    let (code, out, _) = said(&slogate(folder.path(), &["test", "--run", "^a long"]));
    assert_eq!(code, Some(0));
    assert!(out.contains("(1 test, 1 expectation)"), "{out}");
}

#[test]
fn a_failed_expectation_is_shown_with_its_place_and_the_evidence() {
    let lax = GATE.replace("below: 1000", "below: 10000");
    let folder = folder(&[("queue.yaml", &lax), ("queue.test.yaml", TESTS)]);
    let args = ["test", "queue.test.yaml", "--junit", "results.xml"];
    let (code, out, err) = said(&slogate(folder.path(), &args));
    let expected = "\
queue.test.yaml: FAILED (1 of 2 tests)
  a long queue fails
    queue.test.yaml:11:44: gate queue at 5m: verdict
      expected: fail
      got:      pass (all_checks_passed)
      evidence: checkout 2: PASS after 5m. depth: 5000 is below 10000.
2 tests: 1 passed, 1 failed
";
    assert_eq!((code, out.as_str(), err.as_str()), (Some(1), expected, ""));
    let xml = fs::read_to_string(folder.path().join("results.xml")).unwrap();
    assert!(xml.contains("<testsuites name=\"slogate policy test\" tests=\"2\" failures=\"1\""));
    assert!(
        xml.contains("<testcase name=\"a short queue passes\""),
        "{xml}"
    );

    let (code, out, _) = said(&slogate(folder.path(), &["test", "--output", "json"]));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(1));
    assert_eq!(json["ok"], false);
    let failure = &json["files"][0]["tests"][1]["failures"][0];
    assert_eq!(failure["line"], 11);
    assert_eq!(failure["expected"], "fail");
}

#[test]
fn a_file_with_a_mistake_is_not_run_and_the_others_are() {
    let wrong = TESTS.replace("verdict: fail", "verdct: fail");
    let files = [
        ("queue.yaml", GATE),
        ("a.test.yaml", &wrong),
        ("b.test.yaml", TESTS),
    ];
    let folder = folder(&files);
    let (code, out, err) = said(&slogate(folder.path(), &["test"]));
    assert_eq!(code, Some(1));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "a.test.yaml: FAILED (2 mistakes)");
    assert_eq!(lines[1], "b.test.yaml: SUCCESS (2 tests, 2 expectations)");
    assert_eq!(lines[2], "2 tests: 2 passed; 1 file with mistakes");
    assert!(
        err.contains("a.test.yaml:11:35") && err.contains("did you mean `verdict`?"),
        "{err}"
    );
}

/// A pipeline whose tests went missing must not stay green.
#[test]
fn no_test_is_no_success() {
    let folder = folder(&[("queue.yaml", GATE)]);
    let (code, _, err) = said(&slogate(folder.path(), &["test"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("holds no test"), "{err}");
    fs::write(folder.path().join("queue.test.yaml"), TESTS).unwrap();
    let (code, _, err) = said(&slogate(folder.path(), &["test", "--run", "nothing"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("--run"), "{err}");
    let (code, _, _) = said(&slogate(folder.path(), &["test", "--run", "("]));
    assert_eq!(code, Some(64), "a wrong argument");
    let (code, _, _) = said(&slogate(
        folder.path(),
        &["test", "--junit", "no/such/folder.xml"],
    ));
    assert_eq!(code, Some(3), "results that can't be written");
}

/// A shell makes `policies/*.yaml` name the tests too.
#[test]
fn checking_policies_checks_the_tests_that_are_named() {
    let folder = folder(&[("queue.yaml", GATE), ("queue.test.yaml", TESTS)]);
    let both = ["check", "queue.yaml", "queue.test.yaml"];
    let (code, out, err) = said(&slogate(folder.path(), &both));
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "gate queue: depth\n1 gate, no mistake\n"),
        "{err}"
    );
    fs::write(folder.path().join("queue.test.yaml"), "tests: 1\n").unwrap();
    let (code, _, err) = said(&slogate(folder.path(), &both));
    assert_eq!(code, Some(1));
    assert!(err.contains("queue.test.yaml:1:8"), "{err}");
    let (code, _, err) = said(&slogate(folder.path(), &["check", "."]));
    assert_eq!(
        code,
        Some(0),
        "a folder's tests are not its policies: {err}"
    );
}
