//! `slogate policy`: look at policies without a daemon.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Exit;
use super::output::{self, Output, OutputArgs};
use crate::policy::{self, PolicySet};

/// Check policies
#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    Check(CheckArgs),
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
    /// Files, and directories whose *.yaml and *.yml files are read
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Also say in words what each gate asks
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub(super) fn run(args: &PolicyArgs) -> Exit {
    match &args.command {
        PolicyCommand::Check(args) => check(args),
    }
}

fn check(args: &CheckArgs) -> Exit {
    match (policy::load(&args.paths), args.output.output) {
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
