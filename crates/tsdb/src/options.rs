//! How a store is set up, and why it can't be opened.

use std::path::PathBuf;

use crate::log::LogError;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// How a store is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The directory of the log; made if need be. `None`: in memory only.
    pub dir: Option<PathBuf>,
    /// How long samples are kept. Default 15 days.
    pub retention_ms: i64,
    /// The most memory that chunks and index take, in bytes; beyond it the oldest chunks go
    /// at the next maintenance. Default 2 GiB.
    pub size_max_bytes: u64,
    /// How far a sample may be behind its series' newest one. Default 30 minutes.
    pub out_of_order_window_ms: i64,
    /// How far a sample may be ahead of the clock. Default 10 minutes.
    pub future_window_ms: i64,
    /// The most series at a time. Default 2,000,000.
    pub series_max: usize,
    /// The size at which a log segment is finished, in bytes. Default 64 MiB.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            dir: None,
            retention_ms: 15 * DAY_MS,
            size_max_bytes: 2 << 30,
            out_of_order_window_ms: 30 * MINUTE_MS,
            future_window_ms: 10 * MINUTE_MS,
            series_max: 2_000_000,
            segment_bytes: 64 << 20,
        }
    }
}

impl Options {
    /// Names the first option that makes no sense.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let invalid = |option, expected| Err(OpenError::InvalidOption { option, expected });
        if self.retention_ms <= 0 {
            return invalid("retention_ms", "more than 0");
        }
        if self.out_of_order_window_ms < 0 {
            return invalid("out_of_order_window_ms", "0 or more");
        }
        if self.future_window_ms < 0 {
            return invalid("future_window_ms", "0 or more");
        }
        if self.series_max == 0 {
            return invalid("series_max", "more than 0");
        }
        if self.segment_bytes == 0 {
            return invalid("segment_bytes", "more than 0");
        }
        Ok(())
    }
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An option makes no sense.
    #[error("option {option}: expected {expected}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What would be accepted.
        expected: &'static str,
    },
    /// Another process, or another store in this one, has the directory open.
    #[error("{}: in use by another process; stop it or choose another directory", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// A segment was written by a newer version of the program.
    #[error(
        "{}: series log version {found}, but this program reads up to version {supported}; \
         use a newer program or another directory", path.display()
    )]
    NewerFormat {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version that this program reads.
        supported: u16,
    },
    /// A file could not be read or changed.
    #[error(transparent)]
    Log(#[from] LogError),
}
