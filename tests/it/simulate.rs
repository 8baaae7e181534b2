//! `slogate simulate` through the built binary.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// Runs the command; answers what it printed.
fn simulate(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_slogate"))
        .arg("simulate")
        .args(args)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn judged(args: &[&str]) -> Value {
    let all = [args, &["--judges", "slogate", "--output", "json"]].concat();
    let report: Value = serde_json::from_str(&simulate(&all)).unwrap();
    report["scenarios"][0]["results"][0].clone()
}

/// The peers' numbers rest on the drawn telemetry alone: what changes them changes the draws, and
/// then no table published before can be had again. SLOGATE_UPDATE_GOLDEN=1 rewrites them.
#[test]
fn a_seed_gives_the_same_numbers_on_every_machine() {
    let mut args = vec!["--rollouts", "4", "--seed", "7", "--output", "csv"];
    args.extend([
        "--judges",
        "flagger,flagger-tuned,argo,argo-tuned,fisher,plain",
    ]);
    for name in [
        "err0.5-1",
        "p95+10",
        "over_AA",
        "sampled_err",
        "classic_p95+30",
    ] {
        args.extend(["--scenario", name]);
    }
    let found = simulate(&args);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/simulate.csv");
    if std::env::var_os("SLOGATE_UPDATE_GOLDEN").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == golden, "{} is not this:\n{found}", path.display());
}

#[test]
fn threads_change_nothing() {
    let run = |jobs| {
        simulate(&[
            "--scenario",
            "err5_1rps",
            "--rollouts",
            "5",
            "--output",
            "csv",
            "--jobs",
            jobs,
        ])
    };
    assert_eq!(run("1"), run("3"));
}

#[test]
fn no_change_is_never_stopped_and_a_crash_always() {
    let found = judged(&["--scenario", "AA_1rps", "--rollouts", "50"]);
    assert_eq!(found["alarmRate"], 0.0, "{found}");
    let found = judged(&["--scenario", "crash30", "--rollouts", "50"]);
    assert_eq!(found["detectionRate"], 1.0, "{found}");
    assert!(found["p90DelayMin"].as_f64().unwrap() <= 3.0, "{found}");
}

#[test]
fn a_rollout_can_be_followed_look_by_look() {
    let trace = simulate(&["--scenario", "crash30", "--trace", "0"]);
    assert!(trace.contains("worse_than_baseline"), "{trace}");
    assert!(
        trace
            .trim_end()
            .lines()
            .last()
            .unwrap()
            .contains("FAIL after"),
        "{trace}"
    );
}

#[test]
fn the_table_goes_between_its_markers() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.md");
    let markers = [
        "<!-- slogate simulate: begin -->",
        "<!-- slogate simulate: end -->",
    ];
    fs::write(
        &page,
        format!("before\n{}\nold\n{}\nafter\n", markers[0], markers[1]),
    )
    .unwrap();
    let into = page.to_str().unwrap();
    simulate(&[
        "--scenario",
        "crash30",
        "--rollouts",
        "2",
        "--judges",
        "argo,flagger",
        "--into",
        into,
    ]);
    let text = fs::read_to_string(&page).unwrap();
    assert!(
        text.starts_with("before\n") && text.ends_with("after\n"),
        "{text}"
    );
    assert!(
        text.contains("| crash30 |") && !text.contains("old\n"),
        "{text}"
    );
}

#[test]
fn mistakes_say_what_there_is() {
    let output = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slogate"));
        let output = command.arg("simulate").args(args).output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, said) = output(&["--judges", "nobody"]);
    assert!(code == Some(64) && said.contains("flagger"), "{said}");
    let (code, said) = output(&["--scenario", "nothing*"]);
    assert!(code == Some(64) && said.contains("--list"), "{said}");
    let (code, said) = output(&["--trace", "0"]);
    assert!(code == Some(64) && said.contains("--scenario"), "{said}");
}
