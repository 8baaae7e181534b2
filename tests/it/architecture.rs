//! The map in `src/lib.rs` is true: `use` points only downwards, and the library crates know
//! nothing of async, HTTP or slogate's domain.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the top. Rooms of one row may not use each other.
const ROWS: &[&[&str]] = &[
    &["cli"],
    &["server"],
    &["status"],
    &["rehearse"],
    &["backtest", "simulate"],
    &["judge"],
    &["sli"],
    &["policy"],
    &["deploy"],
    &["source"],
    &["ledger"],
    &["export"],
    &["ingest"],
    &["record"],
    &["outbound"],
    &["config", "telemetry"],
    &["model"],
];

fn row_of(room: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&room))
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn room_of(file: &Path, src: &Path) -> String {
    let inside = file.strip_prefix(src).expect("a file below src");
    let first = inside.components().next().expect("a file name");
    let name = first.as_os_str().to_string_lossy();
    name.trim_end_matches(".rs").to_owned()
}

/// The rooms that a line of code names by `crate::room`.
fn rooms_named(line: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        let name: String = rest
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        if !name.is_empty() {
            rooms.push(name);
        } else if let Some(inside) = rest.strip_prefix('{') {
            let words = inside
                .split([',', ':', '}', ' '])
                .filter(|word| !word.is_empty());
            rooms.extend(words.map(str::to_owned));
        }
    }
    rooms
}

#[test]
fn use_points_only_downwards() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let room = room_of(file, &src);
        if room == "lib" || room == "main" {
            continue;
        }
        let row = row_of(&room).unwrap_or_else(|| panic!("{room} is not on the map"));
        let text = fs::read_to_string(file).expect("readable source");
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for used in rooms_named(line) {
                let points_down =
                    used == room || row_of(&used).is_none_or(|used_row| used_row > row);
                if !points_down {
                    wrong.push(format!(
                        "{}:{}: {room} uses {used}",
                        file.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(files.len() > 20, "only {} files found", files.len());
    assert!(
        wrong.is_empty(),
        "arrows that point up:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_room_is_on_the_map_in_lib_rs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lib = fs::read_to_string(root.join("src/lib.rs")).expect("src/lib.rs");
    let map: String = lib.lines().filter(|line| line.starts_with("//!")).collect();
    for line in lib.lines() {
        if let Some(room) = line
            .strip_prefix("pub mod ")
            .and_then(|rest| rest.strip_suffix(';'))
        {
            assert!(
                map.contains(&format!(" {room} ")),
                "{room} is missing from the map"
            );
            assert!(row_of(room).is_some(), "{room} has no row");
        }
    }
}

#[test]
fn library_crates_stay_pure() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    let banned = [
        "tokio", "axum", "tonic", "hyper", "reqwest", "http", "slogate ", "slogate.",
    ];
    for entry in fs::read_dir(crates).expect("crates/") {
        let manifest = entry.expect("a readable entry").path().join("Cargo.toml");
        let text = fs::read_to_string(&manifest).expect("a manifest");
        let dependencies = text.split("[dependencies]").nth(1).unwrap_or("");
        let dependencies = dependencies.split("\n[").next().unwrap_or("");
        for line in dependencies.lines() {
            let is_banned = banned.iter().any(|name| line.starts_with(name));
            assert!(!is_banned, "{}: {line}", manifest.display());
        }
    }
}
