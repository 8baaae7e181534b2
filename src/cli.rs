//! The command line, one file a command.
//!
//! What a script may rely on: the exit codes of [`Exit`], what `--output json` prints on
//! standard output, and that progress, warnings and mistakes go to standard error. A mistake
//! in the arguments is 64 and never 2, so that a typing error in a pipeline is not taken for
//! an inconclusive gate.
//!
//! - [`serve`]: the daemon; [`daemon`]: how the rooms are put together.
//! - [`demo`]: a simulated shop that ships a good release, then a bad one.
//! - [`event`], [`gate`]: what a pipeline calls; [`client`]: how they ask.
//! - [`policy`], [`backtest`], [`verify`], [`config`]: look at files without a daemon.
//! - [`simulate`]: how often a gate is wrong, and how soon right.
//! - [`flags`]: the settings as flags; [`output`]: text or JSON.

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::model::time::duration_ms;

mod backtest;
mod client;
mod config;
mod daemon;
mod demo;
mod event;
mod flags;
mod gate;
mod output;
mod policy;
mod serve;
mod simulate;
mod verify;

/// How a command ends; part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; for a gate: pass.
    Ok,
    /// The answer is no: a failed gate, a refused event, a wrong policy, a broken ledger; for
    /// `serve`: stopped by an error.
    No,
    /// A gate that is inconclusive, or was when the time was over.
    Inconclusive,
    /// No answer could be had: nobody listens, or not in time, or a file can't be read.
    Unanswered,
    /// The arguments or the settings are wrong (`EX_USAGE`).
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Ok => 0,
            Exit::No => 1,
            Exit::Inconclusive => 2,
            Exit::Unanswered => 3,
            Exit::Usage => 64,
        })
    }
}

/// Tells a rollout whether the version it is shipping is safe.
#[derive(Debug, Parser)]
#[command(name = "slogate", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  slogate demo                      see a good release pass and a bad one fail, in a minute
  slogate serve                     run the daemon on 127.0.0.1
  slogate event started --service checkout --environment production --version 4.2.0
  slogate gate canary --service checkout --version 4.2.0 --wait 30m

Exit codes: 0 done or pass; 1 no (a failed gate, a refused event, a wrong policy, a broken
ledger); 2 inconclusive; 3 no answer could be had; 64 wrong arguments or settings.";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Demo(demo::DemoArgs),
    Event(Box<event::EventArgs>),
    Gate(gate::GateArgs),
    Policy(policy::PolicyArgs),
    Simulate(simulate::SimulateArgs),
    Backtest(backtest::BacktestArgs),
    Verify(verify::VerifyArgs),
    Config(config::ConfigArgs),
    Completions(CompletionsArgs),
}

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slogate completions bash > /etc/bash_completion.d/slogate
  slogate completions zsh > \"${fpath[1]}/_slogate\"
  slogate completions fish > ~/.config/fish/completions/slogate.fish")]
struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    install_tls();
    match Cli::try_parse() {
        Ok(cli) => run(cli.command).into(),
        Err(error) => {
            // Help and version arrive here too, and are no mistakes. A closed pipe is no reason
            // to fail either.
            let _ = error.print();
            match error.use_stderr() {
                true => Exit::Usage.into(),
                false => Exit::Ok.into(),
            }
        }
    }
}

/// Chooses the one TLS implementation for everything in this process; a second call changes
/// nothing.
fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn run(command: Command) -> Exit {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Event(args) => with_runtime(event::run(*args)),
        Command::Gate(args) => with_runtime(gate::run(args)),
        Command::Policy(args) => policy::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Backtest(args) => backtest::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Completions(args) => completions(args.shell),
    }
}

/// Runs a client command, which needs one thread only.
fn with_runtime(command: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            output::complain(format_args!("can't start: {error}"));
            Exit::Unanswered
        }
    }
}

/// A duration of the command line, for example `30m`; `0` for none.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let longest_ms = 30 * 86_400_000;
    duration_ms(text)
        .filter(|ms| *ms <= longest_ms)
        .and_then(|ms| u64::try_from(ms).ok())
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is not a duration up to 30d such as 90s or 1h30m"))
}

fn completions(shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "slogate", &mut script);
    output::print(&String::from_utf8_lossy(&script));
    Exit::Ok
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Every command's help is a file in tests/golden/cli, so that a change of the interface
    /// is seen in review. SLOGATE_UPDATE_GOLDEN=1 rewrites them.
    #[test]
    fn help_texts_are_the_golden_ones() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cli");
        let mut root = Cli::command().term_width(100);
        root.build();
        let mut helps = vec![("slogate".to_owned(), root.render_long_help().to_string())];
        for command in root
            .get_subcommands_mut()
            .filter(|c| c.get_name() != "help")
        {
            let name = format!("slogate-{}", command.get_name());
            helps.push((name, command.render_long_help().to_string()));
        }
        for (name, help) in helps {
            let path = folder.join(format!("{name}.txt"));
            if std::env::var_os("SLOGATE_UPDATE_GOLDEN").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &help).unwrap();
            }
            let golden = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                help == golden,
                "{} is not this help:\n{help}",
                path.display()
            );
        }
    }

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert!(parse_duration("90").is_err());
        assert!(parse_duration("31d").is_err());
    }

    #[test]
    fn every_shell_has_completions() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let shell: clap_complete::Shell = shell.parse().unwrap();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "slogate", &mut script);
            assert!(String::from_utf8_lossy(&script).contains("completions"));
        }
    }
}
