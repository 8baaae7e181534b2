//! Prometheus's own test scripts and ours, and another parser.
//!
//! Every `.test` file is read from the folder that `SLOGATE_PROMQLTEST_DIR` names, else from
//! `promqltest` in the folder that `SLOGATE_CONFORMANCE_DIR` names; where neither is set the
//! tests say so and pass. `SLOGATE_CONFORMANCE_FILE` picks the files whose name contains it,
//! `SLOGATE_PROMQLTEST_TABLE` names a file to which the table of results goes as Markdown.

mod generated;
mod notation;
mod oracle;
mod report;
mod run;
mod script;
mod store;
mod texts;

/// The body of the fuzz target `promql_eval`.
#[expect(unreachable_pub, reason = "it is reached from the fuzz target")]
#[path = "../../../../fuzz/src/query.rs"]
mod query;

use std::path::{Path, PathBuf};

/// The folder with the scripts, or `None` with a note where none is named.
fn scripts_dir() -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os("SLOGATE_PROMQLTEST_DIR") {
        return Some(PathBuf::from(dir));
    }
    if let Some(dir) = std::env::var_os("SLOGATE_CONFORMANCE_DIR") {
        return Some(PathBuf::from(dir).join("promqltest"));
    }
    println!("skipped: neither SLOGATE_PROMQLTEST_DIR nor SLOGATE_CONFORMANCE_DIR is set");
    None
}

/// Prometheus's scripts, as name and text, sorted by name.
fn scripts() -> Option<Vec<(String, String)>> {
    scripts_dir().map(|dir| read_scripts(&dir))
}

/// The scripts in `dir`, as name and text, sorted by name.
fn read_scripts(dir: &Path) -> Vec<(String, String)> {
    let mut scripts = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.expect("a readable folder").path();
        let is_script = path
            .extension()
            .is_some_and(|extension| extension == "test");
        if is_script {
            let name = path.file_name().unwrap_or_default();
            let text = std::fs::read_to_string(&path).expect("a readable script");
            scripts.push((name.to_string_lossy().into_owned(), text));
        }
    }
    scripts.sort();
    assert!(!scripts.is_empty(), "no .test file in {}", dir.display());
    scripts
}
