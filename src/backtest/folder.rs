//! From paths to rollouts: which folder is one, and what its files are.
//!
//! - **A folder with telemetry or events in it is a rollout**, with the files of its subfolders.
//!   A folder without is a folder of rollouts; so down to three levels.
//! - **Events beside folders are shared**: a folder with events and no telemetry, whose
//!   subfolders have some, is a folder of rollouts too, and each of them gets those events.
//! - **Files named on the command line are one rollout**, all together.
//! - **What a file is, its name says**: `.om`, `.openmetrics`, `.prom`, `.metrics` and `.txt` are
//!   text, `.jsonl`, `.ndjson` and `.json` are JSON, each also with `.gz`. Files called `label`,
//!   `labels` or `truth` are labels. Hidden files are passed over; any other file is left out and said so.
//! - **Order is by name**, so that two runs say the same.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

/// The most bytes of a file, unpacked: 2 GiB.
const FILE_BYTES_MAX: u64 = 2 << 30;

/// How deep rollouts are looked for below a path.
const DEPTH_MAX: usize = 3;

/// The most files of a rollout.
const FILES_MAX: usize = 10_000;

/// A rollout as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// What to call it: the path below the path that was given.
    pub(crate) name: String,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Its files, by name.
    pub(crate) files: Vec<PathBuf>,
    /// Where labels may stand: its own folder and those above it, nearest first.
    pub(crate) label_folders: Vec<PathBuf>,
}

/// What a file is by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// OpenMetrics or Prometheus text.
    Text,
    /// `.txt`: text, unless its first line is none.
    MaybeText,
    /// JSON, a document or lines of it.
    Json,
    /// Labels of rollouts.
    Labels,
    /// What is said about a rollout, a label perhaps.
    About,
    /// Nothing that is read.
    Other,
}

/// Why paths can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct PathError {
    path: PathBuf,
    source: io::Error,
}

/// A file whose name and contents are as expected, unpacked.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, io::Error> {
    let file = fs::File::open(path)?;
    let mut bytes = Vec::new();
    let limit = FILE_BYTES_MAX + 1;
    let is_packed = path.extension().is_some_and(|extension| extension == "gz");
    match is_packed {
        true => MultiGzDecoder::new(file)
            .take(limit)
            .read_to_end(&mut bytes),
        false => file.take(limit).read_to_end(&mut bytes),
    }?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "more than 2 GiB: split it into several files",
        )),
        false => Ok(bytes),
    }
}

/// What a file is by its name.
pub(crate) fn kind_of(path: &Path) -> FileKind {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let is_label = matches!(stem, "label" | "labels" | "truth" | "ground_truth");
    let is_about = matches!(
        stem,
        "meta" | "metadata" | "info" | "scenario" | "config" | "manifest"
    );
    match extension {
        "json" if is_about => FileKind::About,
        "json" | "jsonl" | "ndjson" | "csv" | "txt" if is_label => FileKind::Labels,
        "om" | "openmetrics" | "prom" | "metrics" => FileKind::Text,
        "txt" => FileKind::MaybeText,
        "jsonl" | "ndjson" | "json" => FileKind::Json,
        _ => FileKind::Other,
    }
}

/// The rollouts below `paths`, in the order of the paths and then by name.
///
/// # Errors
/// When a path or a folder below it can't be listed.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Vec<Found>, PathError> {
    let mut found = Vec::new();
    let (mut files, mut beside) = (Vec::new(), Vec::new());
    for path in paths {
        let about = fs::metadata(path).map_err(|source| PathError {
            path: path.clone(),
            source,
        })?;
        if about.is_dir() {
            Walk {
                root: path,
                found: &mut found,
            }
            .folder(path, &[], &[], 0)?;
        } else {
            let folder = path.parent().unwrap_or(Path::new("")).to_owned();
            if !beside.contains(&folder) {
                beside.push(folder);
            }
            files.push(path.clone());
        }
    }
    if let (Some(first), Some(folder)) = (files.first(), beside.first()) {
        let stem = first.file_name().unwrap_or_default().to_string_lossy();
        found.push(Found {
            name: stem.split('.').next().unwrap_or_default().to_owned(),
            folder: folder.clone(),
            label_folders: beside,
            files,
        });
    }
    Ok(found)
}

struct Walk<'a> {
    root: &'a Path,
    found: &'a mut Vec<Found>,
}

/// A folder's files and subfolders, by name.
#[derive(Default)]
struct Listing {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Listing {
    fn of(folder: &Path) -> Result<Listing, PathError> {
        let failed = |source| PathError {
            path: folder.to_owned(),
            source,
        };
        let mut listing = Listing::default();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            match path.is_dir() {
                true => listing.folders.push(path),
                false => listing.files.push(path),
            }
        }
        listing.files.sort();
        listing.folders.sort();
        Ok(listing)
    }

    fn has(&self, kinds: &[FileKind]) -> bool {
        self.files.iter().any(|file| {
            let is_note = stem_is(file, &["readme", "license", "notes"]);
            !is_note && kinds.contains(&kind_of(file))
        })
    }
}

fn stem_is(file: &Path, words: &[&str]) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stem = name
        .split('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    words.contains(&stem.as_str())
}

const TEXT: [FileKind; 2] = [FileKind::Text, FileKind::MaybeText];

impl Walk<'_> {
    fn folder(
        &mut self,
        folder: &Path,
        shared: &[PathBuf],
        above: &[PathBuf],
        depth: usize,
    ) -> Result<(), PathError> {
        let listing = Listing::of(folder)?;
        let mut label_folders = vec![folder.to_owned()];
        label_folders.extend(above.iter().cloned());
        let has_text = listing.has(&TEXT);
        let has_json = listing.has(&[FileKind::Json]);
        let below = match listing.folders.is_empty() || has_text {
            true => 0,
            false => self.folders_with_text(&listing)?,
        };
        let is_rollout = has_text || (has_json && below < 1 + usize::from(depth > 0));
        if is_rollout {
            let mut files = shared.to_vec();
            collect(folder, 0, &mut files)?;
            self.found.push(Found {
                name: self.name(folder),
                folder: folder.to_owned(),
                files,
                label_folders,
            });
            return Ok(());
        }
        if depth == DEPTH_MAX {
            return Ok(());
        }
        let own = listing
            .files
            .iter()
            .filter(|file| kind_of(file) == FileKind::Json);
        let shared: Vec<PathBuf> = shared.iter().chain(own).cloned().collect();
        for below in &listing.folders {
            self.folder(below, &shared, &label_folders, depth + 1)?;
        }
        Ok(())
    }

    /// How many of the subfolders have telemetry as text somewhere.
    fn folders_with_text(&self, listing: &Listing) -> Result<usize, PathError> {
        let mut count = 0;
        for folder in &listing.folders {
            let mut files = Vec::new();
            collect(folder, 0, &mut files)?;
            count += usize::from(files.iter().any(|file| TEXT.contains(&kind_of(file))));
        }
        Ok(count)
    }

    fn name(&self, folder: &Path) -> String {
        let below = folder.strip_prefix(self.root).unwrap_or(folder);
        let path = match below.as_os_str().is_empty() {
            false => below.to_string_lossy(),
            true => match folder.file_name() {
                Some(name) => name.to_string_lossy(),
                None => folder.to_string_lossy(),
            },
        };
        path.replace('\\', "/")
    }
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), PathError> {
    let listing = Listing::of(folder)?;
    let room = FILES_MAX.saturating_sub(files.len());
    files.extend(listing.files.into_iter().take(room));
    if depth < DEPTH_MAX {
        for below in &listing.folders {
            collect(below, depth + 1, files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(files: &[&str]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for file in files {
            let path = temp.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        temp
    }

    fn names(files: &[&str]) -> Vec<(String, Vec<String>)> {
        let temp = made(files);
        let found = find(&[temp.path().to_owned()]).unwrap();
        let short = |path: &PathBuf| {
            let below = path.strip_prefix(temp.path()).unwrap();
            below.to_string_lossy().into_owned()
        };
        let name = |one: &Found| {
            let is_root = one.folder == temp.path();
            if is_root {
                ".".to_owned()
            } else {
                one.name.clone()
            }
        };
        found
            .iter()
            .map(|one| (name(one), one.files.iter().map(short).collect()))
            .collect()
    }

    #[test]
    fn a_folder_with_telemetry_is_a_rollout() {
        let found = names(&[
            "a.om",
            "events.jsonl",
            "labels.json",
            ".hidden.om",
            "more/b.om.gz",
        ]);
        let files = ["a.om", "events.jsonl", "labels.json", "more/b.om.gz"];
        assert_eq!(found, [(".".to_owned(), files.map(str::to_owned).to_vec())]);
    }

    #[test]
    fn a_folder_of_folders_is_many() {
        let found = names(&[
            "labels.csv",
            "README.txt",
            "2/a.prom",
            "10/x/a.om",
            "10/events.jsonl",
            "no/data.csv",
        ]);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["10", "2"]);
        assert_eq!(found[0].1, ["10/events.jsonl", "10/x/a.om"]);
    }

    #[test]
    fn events_beside_folders_are_shared() {
        let found = names(&["events.jsonl", "a/m.om", "b/m.om"]);
        let events = "events.jsonl".to_owned();
        assert_eq!(
            found[0],
            ("a".to_owned(), vec![events.clone(), "a/m.om".to_owned()])
        );
        assert_eq!(
            found[1],
            ("b".to_owned(), vec![events, "b/m.om".to_owned()])
        );
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.om.gz");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut packed, b"up 1 1\n").unwrap();
        fs::write(&path, packed.finish().unwrap()).unwrap();
        assert_eq!(read(&path).unwrap(), b"up 1 1\n");
        fs::write(&path, "no gzip").unwrap();
        assert!(read(&path).is_err());
        assert!(find(&[temp.path().join("missing")]).is_err());
    }
}
