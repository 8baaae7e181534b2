//! `slogate policy`: look at policies without a daemon.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use regex::Regex;
use serde_json::json;

use super::output::{self, Output, OutputArgs};
use super::{Exit, with_runtime};
use crate::policy::{self, Diagnostics, PolicySet};
use crate::rehearse::{self, FileReport};

/// Check policies and run their tests
#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    Check(CheckArgs),
    Test(TestArgs),
}

/// Find every mistake in policy files, each with its place
///
/// Ends with 0 where there is none and 1 where there is one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slogate policy check rules/
  slogate policy check canary.yaml --explain
  slogate policy check policies/*.yaml --output json")]
struct CheckArgs {
    /// Files, and directories whose *.yaml and *.yml files are read; of tests (*.test.yaml) only
    /// those that are named
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Also say in words what each gate asks
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Run the tests that lie beside policies
///
/// A test says what is deployed, what is measured, and what gates should answer, when. Ends with 0
/// where all is as expected and 1 where something is not, or where a file has a mistake.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slogate policy test                          every *.test.yaml here
  slogate policy test rules/ --run 'latency'
  slogate policy test rules/canary.test.yaml --junit results.xml")]
struct TestArgs {
    /// Files, and directories whose *.test.yaml files are run; without any, this directory
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Run only the tests whose name matches this regular expression
    #[arg(long, value_name = "REGEX")]
    run: Option<Regex>,
    /// Also write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub(super) fn run(args: &PolicyArgs) -> Exit {
    match &args.command {
        PolicyCommand::Check(args) => check(args),
        PolicyCommand::Test(args) => with_runtime(test(args)),
    }
}

fn check(args: &CheckArgs) -> Exit {
    match (read(&args.paths), args.output.output) {
        (Ok(set), Output::Text) => {
            output::print(&text(&set, args.explain));
            Exit::Ok
        }
        (Ok(set), Output::Json) => {
            let gates: Vec<_> = set.gates.iter().map(AsRef::as_ref).collect();
            output::print_json(&json!({ "ok": true, "gates": gates, "mistakes": [] }));
            Exit::Ok
        }
        (Err(mistakes), Output::Text) => {
            output::remark(mistakes.render(std::io::stderr().is_terminal()));
            Exit::No
        }
        (Err(mistakes), Output::Json) => {
            output::print_json(&json!({ "ok": false, "gates": [], "mistakes": mistakes }));
            Exit::No
        }
    }
}

/// The gates of policies; a test that is named has to be right too.
fn read(paths: &[PathBuf]) -> Result<PolicySet, Diagnostics> {
    let (tests, policies): (Vec<PathBuf>, Vec<PathBuf>) = paths
        .iter()
        .cloned()
        .partition(|path| policy::is_test(path));
    let mut mistakes = Diagnostics::default();
    let set = policy::load(&policies);
    let tests = tests.iter().map(|path| rehearse::read(path).map(|_| ()));
    for wrong in std::iter::once(set.as_ref().map(|_| ()).map_err(Clone::clone))
        .chain(tests)
        .filter_map(Result::err)
    {
        for item in wrong.items {
            // A policy's mistake is found again by the tests of it.
            if !mistakes.items.contains(&item) {
                mistakes.items.push(item);
            }
        }
    }
    match (set, mistakes.items.is_empty()) {
        (Ok(set), true) => Ok(set),
        _ => Err(mistakes),
    }
}

async fn test(args: &TestArgs) -> Exit {
    let here = [PathBuf::from(".")];
    let paths = if args.paths.is_empty() {
        &here
    } else {
        args.paths.as_slice()
    };
    let files = match rehearse::find(paths) {
        // `./a.test.yaml` is `a.test.yaml` to who stands there.
        Ok(files) => files.into_iter().map(plain).collect::<Vec<_>>(),
        Err(mistakes) => return mistaken(&mistakes, args.output.output),
    };
    let mut reports = Vec::new();
    for path in &files {
        match report(path, args.run.as_ref()).await {
            Ok(report) => reports.push(report),
            Err(error) => {
                output::complain(format_args!("{}: {error}", path.display()));
                return Exit::Unanswered;
            }
        }
    }
    let has_mistake = reports
        .iter()
        .any(|report| !report.mistakes.items.is_empty());
    if !has_mistake && reports.iter().all(|report| report.tests.is_empty()) {
        output::complain("no test has a name that matches --run");
        return Exit::No;
    }
    let ok = reports.iter().all(|report| report.ok);
    match args.output.output {
        Output::Text => {
            for report in reports
                .iter()
                .filter(|report| !report.mistakes.items.is_empty())
            {
                output::remark(report.mistakes.render(std::io::stderr().is_terminal()));
            }
            output::print(&rehearse::text(&reports));
        }
        Output::Json => {
            output::print_json(&json!({ "ok": ok, "files": reports, "mistakes": [] }));
        }
    }
    if let Some(path) = &args.junit
        && let Err(error) = std::fs::write(path, rehearse::junit(&reports))
    {
        output::complain(format_args!("can't write {}: {error}", path.display()));
        return Exit::Unanswered;
    }
    if ok { Exit::Ok } else { Exit::No }
}

fn plain(path: PathBuf) -> PathBuf {
    path.strip_prefix(".").map(Path::to_owned).unwrap_or(path)
}

/// There is nothing to run.
fn mistaken(mistakes: &Diagnostics, output: Output) -> Exit {
    match output {
        Output::Text => output::remark(mistakes.render(std::io::stderr().is_terminal())),
        Output::Json => {
            output::print_json(&json!({ "ok": false, "files": [], "mistakes": mistakes }));
        }
    }
    Exit::No
}

async fn report(path: &Path, run: Option<&Regex>) -> Result<FileReport, rehearse::RunError> {
    match rehearse::read(path) {
        Ok(file) => {
            let wanted = |name: &str| run.is_none_or(|run| run.is_match(name));
            rehearse::run(&file, &wanted).await
        }
        Err(mistakes) => Ok(FileReport::mistaken(path.display().to_string(), mistakes)),
    }
}

fn text(set: &PolicySet, explain: bool) -> String {
    let mut text = String::new();
    for gate in &set.gates {
        if explain {
            text.push_str(&policy::explain(gate));
            text.push('\n');
        } else {
            let checks: Vec<&str> = gate
                .checks
                .iter()
                .map(|check| check.name.as_str())
                .collect();
            text.push_str(&format!("gate {}: {}\n", gate.name, checks.join(", ")));
        }
    }
    let gates = if set.gates.len() == 1 {
        "gate"
    } else {
        "gates"
    };
    text.push_str(&format!("{} {gates}, no mistake\n", set.gates.len()));
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: PolicyArgs,
    }

    fn run_on(text: &str) -> Exit {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("gate.yaml");
        std::fs::write(&path, text).unwrap();
        let line = Line::parse_from(["policy", "check", path.to_str().unwrap()]);
        run(&line.args)
    }

    #[test]
    fn right_is_0_and_wrong_is_1() {
        let right = include_str!("../../rules/canary.yaml");
        assert_eq!(run_on(right), Exit::Ok);
        assert_eq!(run_on(&right.replace("checks:", "cheks:")), Exit::No);
        assert_eq!(run_on(""), Exit::No);
    }

    #[test]
    fn gates_are_explained_on_request() {
        let set = policy::built_in();
        assert!(text(&set, false).starts_with("gate canary: errors"));
        assert!(text(&set, true).len() > text(&set, false).len());
    }
}
