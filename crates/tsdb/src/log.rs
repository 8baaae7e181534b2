//! The write-ahead log: what brings the store back after a crash.
//!
//! docs/formats.md, "Series log", has the layout and says what a damaged file does.
//!
//! One batch is one `write`. While it fails, appends fail: a batch is acknowledged only when
//! it is in the log. What was written of a failed batch is cut off and the segment is left;
//! the next batch begins a new one, so that a batch that is sent again is written whole.
//! The log is synced by [`Log::handles_to_sync`] and its caller, outside of the lock.

pub(crate) mod bytes;
pub(crate) mod frame;
pub(crate) mod records;
pub(crate) mod replay;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::metadata::MetadataTable;
use crate::series::MemSeries;
use crate::symbols::Symbols;
use records::Encoder;

/// Segments that may wait to be synced; one more is synced when it is finished.
const UNSYNCED_MAX: usize = 8;

/// A segment that is not written to any more.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// The newest sample's time; `i64::MIN` without samples.
    pub(crate) max_ms: i64,
}

#[derive(Debug)]
struct Current {
    file: File,
    sequence: u32,
    segment: Segment,
    /// The number for the next series.
    number: u32,
}

/// A log operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("series log: {action} {}: {source}", path.display())]
pub struct LogError {
    /// What was being done, as a verb.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl LogError {
    pub(crate) fn on(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
        let path = path.to_owned();
        move |source| LogError {
            action,
            path,
            source,
        }
    }
}

/// The writing end of the log.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    segment_bytes: u64,
    current: Option<Current>,
    finished: Vec<Segment>,
    next_sequence: u32,
    unsynced: Vec<File>,
    dir_unsynced: bool,
    encoder: Encoder,
    batch_max_ms: i64,
    /// Held for as long as the log is open.
    _lock: File,
}

/// The path of a segment.
pub(crate) fn segment_path(dir: &Path, sequence: u32) -> PathBuf {
    dir.join(format!("{sequence:010}.log"))
}

impl Log {
    /// A log that goes on after `finished` segments. No file is made before the first batch.
    pub(crate) fn new(
        dir: &Path,
        segment_bytes: u64,
        finished: Vec<Segment>,
        last_sequence: u32,
        lock: File,
    ) -> Self {
        Log {
            dir: dir.to_owned(),
            segment_bytes,
            current: None,
            finished,
            next_sequence: last_sequence.saturating_add(1),
            unsynced: Vec::new(),
            dir_unsynced: false,
            encoder: Encoder::default(),
            batch_max_ms: i64::MIN,
            _lock: lock,
        }
    }

    /// Begins a batch: makes a new segment where the current one is full or was left.
    pub(crate) fn begin(&mut self, metadata: &mut MetadataTable) -> Result<(), LogError> {
        self.encoder.clear();
        self.batch_max_ms = i64::MIN;
        if let Some(current) = &self.current
            && current.segment.bytes < self.segment_bytes
        {
            for metric in metadata.take_unwritten() {
                if let Some(found) = metadata.get(&metric) {
                    self.encoder.metadata(&metric, found);
                }
            }
            return Ok(());
        }
        self.finish_current();
        self.current = Some(self.create()?);
        metadata.take_unwritten();
        for (metric, metadata) in metadata.iter() {
            self.encoder.metadata(metric, metadata);
        }
        Ok(())
    }

    fn create(&mut self) -> Result<Current, LogError> {
        let sequence = self.next_sequence;
        let path = segment_path(&self.dir, sequence);
        let mut options = OpenOptions::new();
        options.append(true).create_new(true);
        let mut file = options.open(&path).map_err(LogError::on("create", &path))?;
        self.next_sequence = sequence.saturating_add(1);
        self.dir_unsynced = true;
        let header = frame::header();
        if let Err(error) = file.write_all(&header) {
            // Without its header it holds nothing; if it stays, the next start says so.
            let _ = std::fs::remove_file(&path);
            return Err(LogError::on("write", &path)(error));
        }
        Ok(Current {
            file,
            sequence,
            segment: Segment {
                path,
                bytes: header.len() as u64,
                max_ms: i64::MIN,
            },
            number: 0,
        })
    }

    fn finish_current(&mut self) {
        let Some(current) = self.current.take() else {
            return;
        };
        self.finished.push(current.segment);
        if self.unsynced.len() >= UNSYNCED_MAX {
            // Nobody flushes; keep the number of open files bounded. A failure to sync is
            // not a failure to append, and the next flush has the chance to meet it.
            let _ = current.file.sync_data();
        } else {
            self.unsynced.push(current.file);
        }
    }

    /// Finishes the current segment, or deletes it if it holds nothing: while a disk is full,
    /// every attempt would leave one.
    fn leave_current(&mut self) {
        if let Some(current) = &self.current
            && current.segment.bytes == frame::HEADER_BYTES as u64
            && std::fs::remove_file(&current.segment.path).is_ok()
        {
            self.current = None;
        }
        self.finish_current();
    }

    /// The number of a series in the current segment, writing its labels down at first use.
    #[inline]
    fn number(&mut self, series: &mut MemSeries, symbols: &Symbols) -> u32 {
        let Some(current) = &mut self.current else {
            return 0;
        };
        if series.log_segment != current.sequence {
            series.log_segment = current.sequence;
            series.log_number = current.number;
            current.number += 1;
            let pairs = series.pairs.iter();
            let labels = pairs.map(|(name, value)| (symbols.text(*name), symbols.text(*value)));
            self.encoder.series(series.log_number, labels);
        }
        series.log_number
    }

    /// Adds a float sample to the batch.
    #[inline]
    pub(crate) fn float(
        &mut self,
        series: &mut MemSeries,
        symbols: &Symbols,
        row: &crate::FloatRow,
    ) {
        let number = self.number(series, symbols);
        self.encoder
            .float(number, row.t_ms, row.start_ms, row.value);
        self.batch_max_ms = self.batch_max_ms.max(row.t_ms);
    }

    /// Adds a histogram sample to the batch.
    pub(crate) fn histogram(
        &mut self,
        series: &mut MemSeries,
        symbols: &Symbols,
        row: &crate::HistogramRow,
    ) {
        let number = self.number(series, symbols);
        self.encoder
            .histogram(number, row.t_ms, row.start_ms, &row.histogram);
        self.batch_max_ms = self.batch_max_ms.max(row.t_ms);
    }

    /// Adds an exemplar to the batch.
    pub(crate) fn exemplar(
        &mut self,
        series: &mut MemSeries,
        symbols: &Symbols,
        row: &crate::ExemplarRow,
    ) {
        let number = self.number(series, symbols);
        self.encoder.exemplar(number, &row.exemplar);
        self.batch_max_ms = self.batch_max_ms.max(row.exemplar.t_ms);
    }

    /// Writes the batch.
    pub(crate) fn commit(&mut self) -> Result<(), LogError> {
        let frames = self.encoder.finish();
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        if frames.is_empty() {
            return Ok(());
        }
        let written = current.file.write_all(frames);
        if let Err(error) = written {
            // What was written of it would only be reported as damage.
            let _ = current.file.set_len(current.segment.bytes);
            let failure = LogError::on("write", &current.segment.path)(error);
            self.leave_current();
            return Err(failure);
        }
        current.segment.bytes += frames.len() as u64;
        current.segment.max_ms = current.segment.max_ms.max(self.batch_max_ms);
        Ok(())
    }

    /// Takes the files that are to be synced for all batches so far to survive a power failure.
    pub(crate) fn handles_to_sync(&mut self) -> io::Result<Vec<File>> {
        let mut files = Vec::new();
        if let Some(current) = &self.current {
            files.push(current.file.try_clone()?);
        }
        if self.dir_unsynced {
            files.push(File::open(&self.dir)?);
            self.dir_unsynced = false;
        }
        files.append(&mut self.unsynced);
        Ok(files)
    }

    /// Puts back what could not be synced.
    pub(crate) fn not_synced(&mut self, files: impl IntoIterator<Item = File>) {
        self.unsynced.extend(files);
        self.dir_unsynced = true;
    }

    /// Deletes the segments without samples at or after `floor_ms`; returns how many and
    /// their bytes, and the first failure.
    pub(crate) fn expire(&mut self, floor_ms: i64) -> (u64, u64, Option<LogError>) {
        let (mut count, mut bytes, mut failure) = (0, 0, None);
        self.finished.retain(|segment| {
            if segment.max_ms >= floor_ms {
                return true;
            }
            match std::fs::remove_file(&segment.path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    failure.get_or_insert_with(|| LogError::on("delete", &segment.path)(error));
                    return true;
                }
            }
            count += 1;
            bytes += segment.bytes;
            false
        });
        (count, bytes, failure)
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        let current = self.current.iter().map(|current| &current.segment);
        let all = self.finished.iter().chain(current);
        all.map(|segment| segment.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use slogate_series::Labels;

    use crate::{Batch, FloatRow, Options, Store};

    fn batch(store: &Store, t_ms: i64) -> Batch {
        let labels = Labels::from_pairs([("__name__", "up")]);
        let row = FloatRow {
            series: store.series(&labels).unwrap(),
            t_ms,
            start_ms: 0,
            value: 1.0,
        };
        Batch {
            floats: vec![row],
            ..Batch::default()
        }
    }

    /// The disk is full in the middle of a segment: the batch is not acknowledged, what is
    /// in the segment stays readable, and the batch is written when it is sent again, its
    /// series declared anew.
    #[test]
    fn a_write_that_fails_leaves_the_segment_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            dir: Some(dir.path().to_owned()),
            ..Options::default()
        };
        let (store, _) = Store::open(options.clone(), 0).unwrap();
        store.append(&batch(&store, 1), 0).unwrap();
        {
            let mut log = store.log.as_ref().unwrap().lock();
            let current = log.current.as_mut().unwrap();
            // A handle that can't be written to fails as a full disk does.
            current.file = std::fs::File::open(&current.segment.path).unwrap();
        }
        let error = store.append(&batch(&store, 2), 0).unwrap_err();
        assert!(
            error.to_string().starts_with("series log: write "),
            "{error}"
        );
        assert_eq!(store.append(&batch(&store, 2), 0).unwrap().accepted, 1);
        assert_eq!(
            store.stats().appended,
            2,
            "what failed was not acknowledged"
        );
        let before = store.select(&[], 0, 10);
        assert_eq!(before[0].samples.len(), 2);
        drop(store);
        let (store, report) = Store::open(options, 0).unwrap();
        assert_eq!((report.segments, report.damaged, report.samples), (2, 0, 2));
        assert_eq!(store.select(&[], 0, 10), before);
    }

    /// A disk that stays full must not fill with empty segments, one for each attempt.
    #[test]
    fn a_segment_that_was_never_written_to_is_not_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            dir: Some(dir.path().to_owned()),
            ..Options::default()
        };
        let (store, _) = Store::open(options, 0).unwrap();
        for _ in 0..5 {
            let mut log = store.log.as_ref().unwrap().lock();
            log.begin(&mut Default::default()).unwrap();
            let current = log.current.as_mut().unwrap();
            current.file = std::fs::File::open(&current.segment.path).unwrap();
            drop(log);
            store.append(&batch(&store, 1), 0).unwrap_err();
        }
        let names = std::fs::read_dir(dir.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["lock"]);
        assert_eq!(store.append(&batch(&store, 1), 0).unwrap().accepted, 1);
    }

    #[test]
    fn files_waiting_to_be_synced_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            dir: Some(dir.path().to_owned()),
            segment_bytes: 1,
            ..Options::default()
        };
        let (store, _) = Store::open(options, 0).unwrap();
        for t_ms in 0..50 {
            store.append(&batch(&store, t_ms), 0).unwrap();
        }
        let log = store.log.as_ref().unwrap();
        assert_eq!(log.lock().unsynced.len(), super::UNSYNCED_MAX);
        store.flush().unwrap();
        assert!(log.lock().unsynced.is_empty());
    }
}
