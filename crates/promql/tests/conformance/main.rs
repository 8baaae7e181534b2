//! Prometheus's own test scripts, read from the folder `promqltest` in the folder that
//! `SLOGATE_CONFORMANCE_DIR` names; skipped where that is not set.

mod notation;
mod oracle;
mod run;
mod script;

use std::path::PathBuf;

/// The scripts, as name and text, or `None` with a note where there are none.
fn scripts() -> Option<Vec<(String, String)>> {
    let Some(dir) = std::env::var_os("SLOGATE_CONFORMANCE_DIR") else {
        println!("skipped: SLOGATE_CONFORMANCE_DIR is not set");
        return None;
    };
    let mut scripts = Vec::new();
    let dir = PathBuf::from(dir).join("promqltest");
    for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.expect("a readable folder").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "test")
        {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            scripts.push((
                name,
                std::fs::read_to_string(&path).expect("a readable script"),
            ));
        }
    }
    scripts.sort();
    Some(scripts)
}
