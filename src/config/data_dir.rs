//! The data directory: one daemon's, of one format.
//!
//! Layout: `FORMAT` (a number), `lock` (held by the daemon that runs, with its process id),
//! `ports` (the addresses it listens on, while it runs), and one place per room below it. A
//! directory that holds files and no `FORMAT` is somebody else's and is refused, so that a
//! slip of the pen does not scatter databases over a home directory. A directory of a newer
//! format is refused before anything in it is read. The lock is the operating system's: it
//! goes when the process goes, however that happens.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The format this version writes, and the newest it reads.
///
/// - 1: SQLite records, series log, ingest journal.
pub const FORMAT: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "lock";
const PORTS_FILE: &str = "ports";

/// A data directory that this process holds; dropping it lets go.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Holds the lock while it is open.
    _lock: File,
}

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds it.
    #[error(
        "data directory {} is in use by another slogate{}: stop that one, or give this one its \
         own with --data-dir", path.display(), process(*.pid)
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, where it says so.
        pid: Option<u32>,
    },
    /// A newer version wrote it.
    #[error(
        "data directory {} has format {found}, written by a newer slogate; this one reads up to \
         {FORMAT}: use the newer version, or another directory", path.display()
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// `FORMAT` holds no number.
    #[error("{} holds {found:?}, expected a number such as {FORMAT}", path.display())]
    BadFormat {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// It holds files and is not ours.
    #[error(
        "{} holds {found:?} and no {FORMAT_FILE} file, so it is no data directory of slogate: \
         give it an empty or new directory with --data-dir", path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// A file in it.
        found: String,
    },
    /// It does not exist, where it must.
    #[error("data directory {} does not exist: name another with --data-dir", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The system refused.
    #[error("data directory: {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

/// The addresses a daemon listens on, as its `ports` file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ports {
    /// The daemon's process id.
    pub pid: u32,
    /// API, health and /metrics.
    pub api: SocketAddr,
    /// OTLP over gRPC.
    pub otlp_grpc: SocketAddr,
    /// OTLP over HTTP.
    pub otlp_http: SocketAddr,
}

impl DataDir {
    /// Creates the directory (mode 0700) where it does not exist, and takes it.
    ///
    /// # Errors
    /// Where it is held, foreign, of a newer format, or the system refuses.
    pub fn take(path: &Path) -> Result<Self, DataDirError> {
        create(path).map_err(io_at(path))?;
        refuse_foreign(path)?;
        let lock = lock(path)?;
        if read_format(path)?.is_none() {
            write_atomically(&path.join(FORMAT_FILE), format!("{FORMAT}\n").as_bytes())
                .map_err(io_at(&path.join(FORMAT_FILE)))?;
        }
        Ok(DataDir {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Checks a directory that is only read, whether or not a daemon holds it.
    ///
    /// # Errors
    /// Where it is missing, foreign or of a newer format.
    pub fn check(path: &Path) -> Result<(), DataDirError> {
        if !path.try_exists().map_err(io_at(path))? {
            return Err(DataDirError::Missing {
                path: path.to_owned(),
            });
        }
        refuse_foreign(path)?;
        read_format(path).map(|_| ())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says where the daemon listens; readers see the old file or the whole new one.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn write_ports(&self, ports: &Ports) -> Result<(), DataDirError> {
        let path = self.path.join(PORTS_FILE);
        let mut text = serde_json::to_vec_pretty(ports)
            .map_err(io::Error::other)
            .map_err(io_at(&path))?;
        text.push(b'\n');
        write_atomically(&path, &text).map_err(io_at(&path))
    }

    /// Takes the `ports` file away, when the daemon no longer listens.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn remove_ports(&self) -> Result<(), DataDirError> {
        let path = self.path.join(PORTS_FILE);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_at(&path)(e)),
            _ => Ok(()),
        }
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { path, source }
}

fn create(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path)
}

fn refuse_foreign(path: &Path) -> Result<(), DataDirError> {
    let is_ours = path.join(FORMAT_FILE).try_exists().map_err(io_at(path))?;
    if is_ours {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(io_at(path))? {
        let name = entry.map_err(io_at(path))?.file_name();
        // A daemon killed in its first moment leaves the lock file, or a half-written FORMAT.
        let first_moment = [LOCK_FILE, "FORMAT.new"].iter().any(|ours| name == *ours);
        if !first_moment {
            return Err(DataDirError::Foreign {
                path: path.to_owned(),
                found: name.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io_at(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(DataDirError::InUse {
                path: dir.to_owned(),
                pid: read_pid(&mut file),
            });
        }
        Err(TryLockError::Error(source)) => return Err(DataDirError::Io { path, source }),
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()));
    written.map_err(io_at(&path))?;
    Ok(file)
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The directory's format; `None` in a new directory.
fn read_format(dir: &Path) -> Result<Option<u32>, DataDirError> {
    let path = dir.join(FORMAT_FILE);
    let mut bytes = Vec::new();
    match File::open(&path).and_then(|file| file.take(64).read_to_end(&mut bytes)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataDirError::Io { path, source }),
        Ok(_) => {}
    }
    let text = String::from_utf8_lossy(&bytes);
    match text.trim().parse::<u32>() {
        Ok(found) if found > FORMAT => Err(DataDirError::Newer {
            path: dir.to_owned(),
            found,
        }),
        Ok(found) if found > 0 => Ok(Some(found)),
        _ => Err(DataDirError::BadFormat {
            path,
            found: text.trim().to_owned(),
        }),
    }
}

/// Writes beside the file, syncs, and renames over it.
fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_private_and_carries_the_format() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let dir = DataDir::take(&path).unwrap();
        assert_eq!(fs::read_to_string(path.join("FORMAT")).unwrap(), "1\n");
        assert_eq!(dir.path(), path);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
        drop(dir);
        DataDir::take(&path).unwrap();
    }

    /// Two daemons on one directory would interleave their logs.
    #[test]
    fn a_second_daemon_is_refused_and_told_who_holds_it() {
        let temp = tempfile::tempdir().unwrap();
        let first = DataDir::take(temp.path()).unwrap();
        let error = DataDir::take(temp.path()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&temp.path().display().to_string()), "{text}");
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        DataDir::check(temp.path()).unwrap();
        drop(first);
        DataDir::take(temp.path()).unwrap();
    }

    /// An older program would misread what a newer one wrote, and damage it.
    #[test]
    fn a_newer_format_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("FORMAT"), "2\n").unwrap();
        for result in [
            DataDir::take(temp.path()).map(|_| ()),
            DataDir::check(temp.path()),
        ] {
            let text = result.unwrap_err().to_string();
            assert!(
                text.contains("format 2, written by a newer slogate"),
                "{text}"
            );
        }
        for bad in ["", "one", "-1", "0", "\u{0}\u{0}"] {
            fs::write(temp.path().join("FORMAT"), bad).unwrap();
            let error = DataDir::take(temp.path()).unwrap_err();
            assert!(matches!(error, DataDirError::BadFormat { .. }), "{bad:?}");
        }
    }

    #[test]
    fn somebody_elses_directory_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.txt"), "x").unwrap();
        let error = DataDir::take(temp.path()).unwrap_err();
        assert!(error.to_string().contains("thesis.txt"), "{error}");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
        let missing = DataDir::check(&temp.path().join("no")).unwrap_err();
        assert!(matches!(missing, DataDirError::Missing { .. }));
    }

    #[test]
    fn a_daemon_killed_in_its_first_moment_leaves_a_usable_directory() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("lock"), "12").unwrap();
        fs::write(temp.path().join("FORMAT.new"), "").unwrap();
        DataDir::take(temp.path()).unwrap();
    }

    #[test]
    fn ports_come_and_go() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::take(temp.path()).unwrap();
        let ports = Ports {
            pid: 7,
            api: "127.0.0.1:9560".parse().unwrap(),
            otlp_grpc: "127.0.0.1:4317".parse().unwrap(),
            otlp_http: "[::1]:4318".parse().unwrap(),
        };
        dir.write_ports(&ports).unwrap();
        let text = fs::read_to_string(temp.path().join("ports")).unwrap();
        assert_eq!(serde_json::from_str::<Ports>(&text).unwrap(), ports);
        assert!(text.contains("\"otlpGrpc\": \"127.0.0.1:4317\""), "{text}");
        dir.remove_ports().unwrap();
        dir.remove_ports().unwrap();
        assert!(!temp.path().join("ports").try_exists().unwrap());
    }
}
