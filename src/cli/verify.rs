//! `slogate verify`: walk the ledger without a daemon.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::Exit;
use super::flags::SettingFlags;
use super::output::{self, Output, OutputArgs};
use crate::config::DataDir;
use crate::ledger::{VerifyReport, verify};
use crate::record::Records;

/// Walk the ledger of a data directory and name the first broken entry
///
/// Reads the directory of --data-dir (or of the settings), whether or not a daemon runs on it.
/// Ends with 0 where every entry holds, 1 where one does not, 3 where it can't be read.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slogate verify
  slogate verify --data-dir /var/lib/slogate --output json

Note the head it prints elsewhere: a ledger that was rewritten as a whole holds in itself and
has another head.")]
pub(super) struct VerifyArgs {
    /// The data directory [default: what the settings say]
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// The settings file that says where it is
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub(super) fn run(args: &VerifyArgs) -> Exit {
    let dir = match &args.data_dir {
        Some(dir) => dir.clone(),
        None => match SettingFlags::of_file(args.config.clone()).load() {
            Ok((config, _)) => config.data_dir,
            Err(mistakes) => {
                output::remark(mistakes);
                return Exit::Usage;
            }
        },
    };
    match walk(&dir) {
        Ok(report) => {
            match args.output.output {
                Output::Text => output::print(&text(&report)),
                Output::Json => output::print_json(&json!(report)),
            }
            if report.ok { Exit::Ok } else { Exit::No }
        }
        Err(error) => {
            output::complain(error);
            Exit::Unanswered
        }
    }
}

fn walk(dir: &Path) -> Result<VerifyReport, Box<dyn std::error::Error>> {
    DataDir::check(dir)?;
    let records = Records::open_read_only(dir)?;
    Ok(verify(&records)?)
}

fn text(report: &VerifyReport) -> String {
    match &report.broken {
        None => format!(
            "the ledger holds: {} entries, head {}\n",
            report.entries, report.head
        ),
        Some(broken) => format!(
            "the ledger is broken: {broken}\nwhat is before it holds: head {}\n",
            report.head
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_is_not_a_ledger_that_holds() {
        let temp = tempfile::tempdir().unwrap();
        let missing = walk(&temp.path().join("no")).unwrap_err();
        assert!(missing.to_string().contains("does not exist"), "{missing}");
        drop(DataDir::take(temp.path()).unwrap());
        assert!(walk(temp.path()).is_err(), "a directory without records");
        drop(Records::open(temp.path()).unwrap());
        let report = walk(temp.path()).unwrap();
        assert!(report.ok);
        assert!(text(&report).starts_with("the ledger holds: 0 entries"));
    }
}
