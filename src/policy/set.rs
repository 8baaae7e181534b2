//! All gates of a daemon: from files and directories, or built in.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::Target;
use crate::policy::diagnostics::{Diagnostic, Diagnostics, Place};
use crate::policy::parse::{Placed, parse_with_places};
use crate::policy::yaml::FILE_BYTES_MAX;
use crate::policy::{Gate, parse};

const FILES_MAX: usize = 1000;

/// The gates that are in force, in order of name.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    /// The gates; names are unique.
    pub gates: Vec<Arc<Gate>>,
}

impl PolicySet {
    /// The gate named `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Gate>> {
        self.gates.iter().find(|gate| gate.name == name)
    }

    /// The gates for deployments to `target`.
    pub fn matching(&self, target: &Target) -> impl Iterator<Item = &Arc<Gate>> {
        self.gates.iter().filter(move |gate| gate.is_for(target))
    }

    fn of(mut gates: Vec<Gate>) -> Self {
        gates.sort_by(|a, b| a.name.cmp(&b.name));
        PolicySet {
            gates: gates.into_iter().map(Arc::new).collect(),
        }
    }
}

/// The gates that come with slogate, from `rules/canary.yaml`.
pub fn built_in() -> PolicySet {
    const TEXT: &str = include_str!("../../rules/canary.yaml");
    // A test holds that the file has no mistake.
    PolicySet::of(parse("rules/canary.yaml", TEXT).unwrap_or_default())
}

/// Reads the gates of `paths`: files, and of directories the files in them that end in `.yaml`
/// or `.yml`, in order of name. Directories in directories, hidden files and tests of policies
/// ([`is_test`]) are left alone.
///
/// # Errors
/// Everything that is wrong with any of the files; files and directories that can't be read; a
/// directory without policies; two gates of one name, with both places.
pub fn load(paths: &[PathBuf]) -> Result<PolicySet, Diagnostics> {
    let mut mistakes = Diagnostics::default();
    let mut gates: Vec<Placed> = Vec::new();
    for path in files(paths, Wanted::Policies, &mut mistakes) {
        let placed = match read_file(&path) {
            Ok(text) => parse_with_places(&path.display().to_string(), &text),
            Err(error) => {
                mistakes.items.push(unreadable(&path, &error));
                continue;
            }
        };
        match placed {
            Ok(placed) => gates.extend(placed),
            Err(wrong) => mistakes.items.extend(wrong.items),
        }
    }
    gates.sort_by(|a, b| a.gate.name.cmp(&b.gate.name));
    for pair in gates.windows(2) {
        if let [first, second] = pair
            && first.gate.name == second.gate.name
        {
            mistakes.items.push(same_name(first, second));
        }
    }
    let set = PolicySet::of(gates.into_iter().map(|placed| placed.gate).collect());
    mistakes.or(set)
}

/// What is looked for in directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Policies.
    Policies,
    /// Tests of policies.
    Tests,
}

/// Whether a file is one of tests of policies by its name: `canary.test.yaml`.
pub fn is_test(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.ends_with(b".test.yaml") || name.ends_with(b".test.yml")
}

/// The files behind `paths`, each once.
pub(crate) fn files(paths: &[PathBuf], wanted: Wanted, mistakes: &mut Diagnostics) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for path in paths {
        let found = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => directory(path, wanted),
            Ok(_) if wanted == Wanted::Policies && is_test(path) => {
                mistakes.items.push(Diagnostic::without_place(
                    format!("{} is a test of policies and no policy", path.display()),
                    "run it with `slogate policy test`",
                ));
                continue;
            }
            Ok(_) => Ok(vec![path.clone()]),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) if found.is_empty() => mistakes.items.push(empty(path, wanted)),
            Ok(found) => files.extend(found),
            Err(error) => mistakes.items.push(unreadable(path, &error)),
        }
    }
    // A file may be named twice, for example by itself and by its directory.
    files.retain(|file| seen.insert(fs::canonicalize(file).unwrap_or_else(|_| file.clone())));
    if files.len() > FILES_MAX {
        let message = format!("{} files", files.len());
        let help = format!("at most {FILES_MAX} are read; one file may hold many gates or tests");
        mistakes
            .items
            .push(Diagnostic::without_place(message, help));
        files.clear();
    }
    files
}

fn empty(path: &Path, wanted: Wanted) -> Diagnostic {
    let (what, help) = match wanted {
        Wanted::Policies => ("policy", "put a file ending in .yaml or .yml there"),
        Wanted::Tests => ("test", "put a file ending in .test.yaml there"),
    };
    Diagnostic::without_place(format!("{} holds no {what}", path.display()), help)
}

fn directory(path: &Path, wanted: Wanted) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let yaml = path
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml");
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let of_kind = is_test(&path) == (wanted == Wanted::Tests);
        // A mounted Kubernetes ConfigMap shows its files as links.
        if yaml && of_kind && !hidden && fs::metadata(&path)?.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The text of a file, and never more than is read of one.
pub(crate) fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let limit = FILE_BYTES_MAX as u64 + 1;
    fs::File::open(path)?
        .take(limit)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// The mistake of a file that can't be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    let help = match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "let slogate read it",
        io::ErrorKind::InvalidData => "policies are UTF-8 text",
        _ => "check the file",
    };
    Diagnostic::without_place(format!("cannot read {}: {error}", path.display()), help)
}

fn same_name(first: &Placed, second: &Placed) -> Diagnostic {
    let place = |placed: &Placed, label: &str| Place {
        file: Arc::clone(&placed.file),
        span: placed.name_span.clone(),
        label: label.to_owned(),
    };
    Diagnostic {
        message: format!("two gates are named `{}`", first.gate.name),
        places: vec![place(second, "the second"), place(first, "the first")],
        help: Some("give each gate a name of its own".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(name: &str, environment: &str) -> String {
        format!(
            "apiVersion: slogate.dev/v1\nkind: Gate\nmetadata: {{ name: {name} }}\nspec:\n  \
             match: {{ environment: \"{environment}\" }}\n  checks:\n    - name: errors\n      \
             compare: {{ sli: requests.errorRatio }}\n"
        )
    }

    fn directory_of(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    #[test]
    fn the_built_in_gate_has_no_mistake() {
        let text = include_str!("../../rules/canary.yaml");
        let gates = parse("rules/canary.yaml", text).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(gates.len(), 1);
        let set = built_in();
        let canary = set.get("canary").unwrap();
        assert!(canary.is_for(&Target::new("anything", "")));
        assert_eq!(canary.checks.len(), 3);
    }

    /// What the documentation says of a gate that is left out must be what the built-in gate
    /// shows: a user who copies it and deletes a line gets the same gate.
    #[test]
    fn the_built_in_gate_spells_out_the_defaults() {
        let bare = "apiVersion: slogate.dev/v1\nkind: Gate\nmetadata: { name: canary }\nspec:\n  \
                    checks:\n    - { name: errors, compare: { sli: requests.errorRatio } }\n    \
                    - { name: latency, compare: { sli: requests.duration } }\n    \
                    - { name: identity, critical: false, coverage: {} }\n";
        let bare = parse("bare.yaml", bare).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(built_in().get("canary").unwrap().hash, bare[0].hash);
    }

    #[test]
    fn reads_files_and_directories_each_file_once() {
        let directory = directory_of(&[
            ("b.yml", &gate("b", "prod-*")),
            (
                "a.yaml",
                &format!("{}---\n{}", gate("z", "*"), gate("c", "staging")),
            ),
            ("notes.txt", "no policy"),
            (".hidden.yaml", "no: policy"),
        ]);
        let paths = [directory.path().to_owned(), directory.path().join("b.yml")];
        let set = load(&paths).unwrap_or_else(|wrong| panic!("{wrong}"));
        let names: Vec<&str> = set.gates.iter().map(|gate| gate.name.as_str()).collect();
        assert_eq!(names, ["b", "c", "z"]);
        let target = Target::new("checkout", "prod-eu");
        let matching: Vec<&str> = set
            .matching(&target)
            .map(|gate| gate.name.as_str())
            .collect();
        assert_eq!(matching, ["b", "z"]);
        assert!(set.get("nobody").is_none());
    }

    #[test]
    fn two_gates_of_one_name_are_shown_with_both_places() {
        let directory = directory_of(&[("a.yaml", &gate("x", "a")), ("b.yaml", &gate("x", "b"))]);
        let text = load(&[directory.path().to_owned()])
            .unwrap_err()
            .to_string();
        assert!(text.contains("two gates are named `x`"), "{text}");
        assert!(
            text.contains("a.yaml:3") && text.contains("b.yaml:3"),
            "{text}"
        );
    }

    #[test]
    fn mistakes_of_all_files_are_reported_together() {
        let directory =
            directory_of(&[("a.yaml", "kind: Gaet\n"), ("b.yaml", ""), ("c.yaml", "[")]);
        let missing = directory.path().join("missing.yaml");
        let mistakes = load(&[missing, directory.path().to_owned()]).unwrap_err();
        let text = mistakes.to_string();
        assert!(text.contains("cannot read"), "{text}");
        for file in ["a.yaml:", "b.yaml:", "c.yaml:"] {
            assert!(text.contains(file), "{text}");
        }
        let first = mistakes.items[0].position();
        assert_eq!(first, None);
    }

    /// Tests lie beside the policies; a daemon that reads the directory must not stumble over them.
    #[test]
    fn tests_of_policies_are_left_alone() {
        let directory = directory_of(&[("a.yaml", &gate("a", "*")), ("a.test.yaml", "tests: []")]);
        let set = load(&[directory.path().to_owned()]).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(set.gates.len(), 1);
        let mut mistakes = Diagnostics::default();
        let tests = files(&[directory.path().to_owned()], Wanted::Tests, &mut mistakes);
        assert_eq!(tests, [directory.path().join("a.test.yaml")]);
        let text = load(&tests).unwrap_err().to_string();
        assert!(text.contains("slogate policy test"), "{text}");
    }

    #[test]
    fn a_directory_without_policies_is_a_mistake() {
        let directory = directory_of(&[("notes.txt", "")]);
        let text = load(&[directory.path().to_owned()])
            .unwrap_err()
            .to_string();
        assert!(text.contains("holds no policy"), "{text}");
    }
}
