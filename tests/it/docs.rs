//! Every command and settings file that the README and the docs show works as shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Daemon, Setup, binary};

struct Block {
    place: String,
    language: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The fenced blocks of the README and of every page in docs.
fn blocks() -> Vec<Block> {
    let mut pages = vec![root().join("README.md")];
    for entry in fs::read_dir(root().join("docs")).expect("docs/") {
        let path = entry.expect("a readable entry").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    let mut blocks = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).expect("a readable page");
        let name = page
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let mut open: Option<Block> = None;
        for (number, line) in text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => {
                    open = Some(Block {
                        place: format!("{name}:{}", number + 1),
                        language: language.trim().to_owned(),
                        text: String::new(),
                    });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
    }
    blocks
}

/// A block's commands, with continued lines joined and comments left out.
fn commands(block: &Block) -> Vec<String> {
    let mut commands = Vec::new();
    let mut command = String::new();
    for line in block.text.lines() {
        let line = line.split("  #").next().unwrap_or(line);
        if line.trim_start().starts_with('#') {
            continue;
        }
        command.push_str(line);
        let is_open = command.matches('\'').count() % 2 == 1;
        if let Some(rest) = command.strip_suffix('\\') {
            command = format!("{rest} ");
        } else if is_open {
            command.push('\n');
        } else if !command.trim().is_empty() {
            commands.push(std::mem::take(&mut command).trim().to_owned());
        }
    }
    commands
}

/// The exit code a reader gets who has a daemon and no telemetry; `None` for what a test can't
/// or needn't run here: it is run by other tests, or builds and removes things.
fn expected_exit(command: &str) -> Option<i32> {
    let elsewhere = [
        "slogate serve",
        "slogate demo",
        "slogate verify",
        "slogate simulate --rollouts",
    ];
    if elsewhere.iter().any(|prefix| command.starts_with(prefix)) {
        return None;
    }
    if command.starts_with("slogate gate") {
        // Nothing is decided without telemetry.
        return Some(2);
    }
    (command.starts_with("slogate ") || command.starts_with("curl ")).then_some(0)
}

fn run_as_shown(daemon: &Daemon, command: &str, folder: &Path) -> std::process::Output {
    let here = daemon.ports.api.to_string();
    let otlp = daemon.ports.otlp_http.to_string();
    let command = command
        .replace("127.0.0.1:9560", &here)
        .replace("localhost:9560", &here)
        .replace("127.0.0.1:4318", &otlp)
        .replace("--wait 30m", "--wait 1s");
    let binaries = Path::new(env!("CARGO_BIN_EXE_slogate"))
        .parent()
        .expect("a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new("sh")
        .args(["-ec", &command])
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", binaries.display()))
        .env("SLOGATE_SERVER", format!("http://{here}"))
        .output()
        .expect("a shell")
}

#[test]
fn every_command_shown_works() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Setup::in_dir(&dir.path().join("data")).start();
    let folder = dir.path().join("reader");
    fs::create_dir(&folder).unwrap();
    // What the pages tell the reader to copy first.
    fs::copy(
        root().join("rules/canary.yaml"),
        folder.join("my-gates.yaml"),
    )
    .unwrap();
    let kayenta = folder.join("docs/kayenta");
    fs::create_dir_all(&kayenta).unwrap();
    for file in ["gate.yaml", "canary-config.json"] {
        fs::copy(root().join("docs/kayenta").join(file), kayenta.join(file)).unwrap();
    }
    let tests = fs::read_to_string(root().join("rules/canary.test.yaml")).unwrap();
    let tests = tests.replace("policies: [canary.yaml]", "policies: [my-gates.yaml]");
    fs::write(folder.join("my-gates.test.yaml"), tests).unwrap();
    for rollout in ["monday", "tuesday"] {
        let recorded = root().join("docs/backtest/rollouts").join(rollout);
        let copy = folder.join("rollouts").join(rollout);
        fs::create_dir_all(&copy).unwrap();
        for file in ["metrics.om", "events.jsonl"] {
            fs::copy(recorded.join(file), copy.join(file)).unwrap();
        }
    }
    let mut ran = 0;
    for block in blocks().iter().filter(|block| block.language == "sh") {
        for command in commands(block) {
            let Some(expected) = expected_exit(&command) else {
                continue;
            };
            let output = run_as_shown(&daemon, &command, &folder);
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(expected),
                "{}: {command}\n{said}",
                block.place
            );
            ran += 1;
        }
    }
    assert!(ran >= 6, "only {ran} commands were found");
}

#[test]
fn every_settings_file_shown_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for block in blocks() {
        if block.language != "yaml" || !block.text.starts_with("# slogate.yaml") {
            continue;
        }
        let file = dir.path().join("slogate.yaml");
        fs::write(&file, &block.text).unwrap();
        let output = binary()
            .arg("config")
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}: {}",
            block.place,
            String::from_utf8_lossy(&output.stderr)
        );
        checked += 1;
    }
    assert!(checked >= 1);
}

/// Blocks of a page that name a file in their first line are those files, in one folder.
#[test]
fn every_policy_test_shown_passes() {
    let dir = tempfile::tempdir().unwrap();
    for block in blocks() {
        let first = block.text.lines().next().unwrap_or_default();
        let name = first
            .strip_prefix("# ")
            .filter(|name| name.ends_with(".yaml"));
        if let Some(name) = name.filter(|_| block.place.starts_with("policy-tests.md")) {
            fs::write(dir.path().join(name), &block.text).unwrap();
        }
    }
    let output = binary()
        .args(["policy", "test"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let shown = fs::read_to_string(root().join("docs/policy-tests.md")).unwrap();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        shown.contains(said.as_ref()),
        "the page shows another answer than\n{said}"
    );
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    let mut pages = vec![root().join("README.md")];
    pages.extend(
        fs::read_dir(root().join("docs"))
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
    let mut broken = Vec::new();
    for page in pages
        .iter()
        .filter(|page| page.extension().is_some_and(|e| e == "md"))
    {
        let text = fs::read_to_string(page).unwrap();
        for (at, _) in text.match_indices("](") {
            let link = text[at + 2..].split(')').next().unwrap_or("");
            let path = link.split('#').next().unwrap_or("");
            if path.is_empty() || path.contains("://") {
                continue;
            }
            if !page.parent().unwrap().join(path).try_exists().unwrap() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
