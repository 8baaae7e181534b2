//! Text or JSON, and where each goes.
//!
//! Answers go to standard output, everything else to standard error. A reader that goes away
//! (`slogate … | head`) is no error.

use std::fmt;
use std::io::{self, Write as _};

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people
    #[default]
    Text,
    /// One JSON document, for scripts
    Json,
}

/// `--output`, for the commands that have an answer.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct OutputArgs {
    /// How to print the answer
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,
}

/// Prints to standard output, with a line end where `text` has none.
pub(super) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let _ = write!(out, "{text}{end}").and_then(|()| out.flush());
}

/// Prints JSON to standard output.
pub(super) fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&text),
        Err(error) => complain(format_args!("the answer can't be written as JSON: {error}")),
    }
}

/// Prints `slogate: …` to standard error.
pub(super) fn complain(what: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "slogate: {what}");
}

/// Prints a line to standard error as it is.
pub(super) fn remark(what: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{what}");
}
