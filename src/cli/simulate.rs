//! `slogate simulate`: how often a gate is wrong, and how long it takes to be right.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Exit;
use super::output;
use crate::model::{Clock as _, Glob, SystemClock};
use crate::policy::{self, Gate};
use crate::simulate::{self, Judge, Plan, Scenario};

/// Try a gate, and what others do, on made-up rollouts
///
/// Draws the telemetry of many rollouts of which it is known whether the new version is good,
/// and puts it through the gate's comparing checks and through the procedures of other tools.
/// The same seed gives the same numbers on any machine.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slogate simulate --list
  slogate simulate --scenario 'AA*' --scenario 'warmup*' --judges slogate
  slogate simulate --policy canary.yaml --rollouts 2000 --output csv > table.csv
  slogate simulate --scenario err0.5-1 --trace 0")]
pub(super) struct SimulateArgs {
    /// Rollouts of each scenario
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rollouts: u32,
    /// Where chance begins
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Only scenarios of that name; * stands for any run of characters; may be repeated
    #[arg(long, value_name = "GLOB")]
    scenario: Vec<String>,
    /// The policy file whose gate judges [default: the built-in gate]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The gate, where the policy file has several
    #[arg(long, value_name = "NAME")]
    gate: Option<String>,
    /// Who judges; remarks and details are for the first [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    judges: Vec<String>,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// How to print the table
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Also put the Markdown table between its markers in this page
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// List scenarios and judges, and simulate nothing
    #[arg(long)]
    list: bool,
    /// Print the evidence of the gate's checks after each minute of this rollout of one scenario
    #[arg(long, value_name = "ROLLOUT", conflicts_with_all = ["list", "into"])]
    trace: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON document
    Json,
    /// A line for each judge in each scenario
    Csv,
    /// The tables of docs/statistics.md
    Markdown,
}

/// Runs the command.
pub(super) fn run(args: &SimulateArgs) -> Exit {
    let plan = match plan(args) {
        Ok(plan) => plan,
        Err(Refusal::Policy(mistakes)) => {
            output::remark(mistakes.render(std::io::stderr().is_terminal()));
            return Exit::No;
        }
        Err(Refusal::Usage(what)) => {
            output::complain(what);
            return Exit::Usage;
        }
    };
    match args.trace {
        _ if args.list => list(&plan, args.output),
        Some(number) => trace(&plan, number),
        None => simulate(&plan, args),
    }
}

enum Refusal {
    Usage(String),
    Policy(policy::Diagnostics),
}

fn plan(args: &SimulateArgs) -> Result<Plan, Refusal> {
    let globs: Vec<Glob> = args.scenario.iter().map(|name| Glob::new(name)).collect();
    for glob in &globs {
        if simulate::scenarios(std::slice::from_ref(glob)).is_empty() {
            return Err(Refusal::Usage(format!(
                "there is no scenario {:?}; slogate simulate --list shows them",
                glob.as_str()
            )));
        }
    }
    let jobs = args
        .jobs
        .or_else(|| std::thread::available_parallelism().ok().map(Into::into));
    Ok(Plan {
        rollouts: args.rollouts,
        seed: args.seed,
        scenarios: simulate::scenarios(&globs),
        gate: gate(args)?,
        judges: judges(&args.judges)?,
        jobs: jobs.unwrap_or(1).clamp(1, 1024),
    })
}

fn gate(args: &SimulateArgs) -> Result<Arc<Gate>, Refusal> {
    let set = match &args.policy {
        Some(path) => policy::load(std::slice::from_ref(path)).map_err(Refusal::Policy)?,
        None => policy::built_in(),
    };
    let mut gates = set.gates.iter();
    let found = match &args.gate {
        Some(name) => gates.find(|gate| gate.name == *name),
        None => gates.next().filter(|_| set.gates.len() == 1),
    };
    let Some(gate) = found else {
        let names: Vec<&str> = set.gates.iter().map(|gate| gate.name.as_str()).collect();
        return Err(Refusal::Usage(format!(
            "say with --gate which gate judges: {}",
            names.join(", ")
        )));
    };
    simulate::comparing(gate).ok_or_else(|| {
        Refusal::Usage(format!(
            "gate {} compares nothing, and only comparing checks can be simulated",
            gate.name
        ))
    })
}

fn judges(names: &[String]) -> Result<Vec<Judge>, Refusal> {
    if names.is_empty() {
        return Ok(simulate::judges().collect());
    }
    let find = |name: &String| {
        let found = simulate::judges().find(|judge| judge.name() == name.trim());
        found.ok_or_else(|| {
            let known: Vec<_> = simulate::judges().map(|judge| judge.name()).collect();
            Refusal::Usage(format!(
                "there is no judge {name:?}; the judges are: {}",
                known.join(", ")
            ))
        })
    };
    names.iter().map(find).collect()
}

fn simulate(plan: &Plan, args: &SimulateArgs) -> Exit {
    let (began_ms, mut done) = (SystemClock.now_ms(), 0);
    let report = simulate::run(plan, |row| {
        done += 1;
        output::remark(format_args!(
            "{done}/{} {} ({} s)",
            plan.scenarios.len(),
            row.scenario,
            (SystemClock.now_ms() - began_ms) / 1000
        ));
    });
    match args.output {
        Format::Text => output::print(&simulate::text(&report)),
        Format::Json => output::print_json(&report),
        Format::Csv => output::print(&simulate::csv(&report)),
        Format::Markdown => output::print(&simulate::markdown(&report)),
    }
    match &args.into {
        None => Exit::Ok,
        Some(page) => match write_into(page, &simulate::markdown(&report)) {
            Ok(()) => Exit::Ok,
            Err(problem) => {
                output::complain(format_args!("{}: {problem}", page.display()));
                Exit::Unanswered
            }
        },
    }
}

fn write_into(page: &PathBuf, table: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(page).map_err(|error| error.to_string())?;
    let text = simulate::replace_table(&text, table)
        .ok_or("it has no markers for the table, <!-- slogate simulate: begin --> and end")?;
    std::fs::write(page, text).map_err(|error| error.to_string())
}

fn trace(plan: &Plan, number: u32) -> Exit {
    let [scenario] = plan.scenarios.as_slice() else {
        output::complain("--trace shows one rollout of one scenario: name it with --scenario");
        return Exit::Usage;
    };
    output::print(&simulate::trace(&plan.gate, scenario, plan.seed, number));
    Exit::Ok
}

fn list(plan: &Plan, format: Format) -> Exit {
    let scenarios = plan.scenarios.iter();
    if let Format::Json = format {
        let scenarios = scenarios.map(|scenario: &&Scenario| {
            json!({
                "name": scenario.name,
                "about": scenario.about,
                "onsetMinute": scenario.onset(),
            })
        });
        let judges = plan.judges.iter();
        output::print_json(&json!({
            "scenarios": scenarios.collect::<Vec<_>>(),
            "judges": judges
                .map(|judge| json!({ "name": judge.name(), "about": judge.about() }))
                .collect::<Vec<_>>(),
        }));
        return Exit::Ok;
    }
    let mut text = String::new();
    for scenario in scenarios {
        let kind = if scenario.onset().is_some() {
            "bad"
        } else {
            "benign"
        };
        text.push_str(&format!(
            "{:<20}{kind:<8}{}\n",
            scenario.name, scenario.about
        ));
    }
    text.push('\n');
    for judge in &plan.judges {
        text.push_str(&format!("{:<20}{}\n", judge.name(), judge.about()));
    }
    output::print(&text);
    Exit::Ok
}
