//! Reading the log back when the store is opened.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slogate_series::{Exemplar, Histogram, Labels};

use super::frame::{Frames, HEADER_BYTES, Header, Piece, VERSION, read_header};
use super::records::{Record, decode};
use super::{LogError, Segment, segment_path};
use crate::metadata::Metadata;
use crate::rows::SeriesRef;

/// Places of damage that a report names; all are counted.
const NAMED_MAX: usize = 100;

/// What was wrong at a place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The segment's header is damaged; its frames were read all the same.
    Header,
    /// Bytes between frames are no frame. They were skipped.
    Frame,
    /// A whole frame has records that can't be read. Those before them were applied.
    Records,
    /// The segment ends inside of a frame, as after a crash.
    Tail {
        /// Whether the bytes were cut off, as they are in the last segment.
        cut: bool,
    },
}

/// A damaged place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub path: PathBuf,
    /// Where the damage begins, in bytes.
    pub at: u64,
    /// How many bytes it takes.
    pub bytes: u64,
    /// What it is.
    pub kind: DamageKind,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { at, bytes, .. } = self;
        write!(f, "{}: {bytes} bytes at offset {at}: ", self.path.display())?;
        f.write_str(match self.kind {
            DamageKind::Header => "damaged header, frames read all the same",
            DamageKind::Frame => "damaged, skipped",
            DamageKind::Records => "unreadable records, skipped",
            DamageKind::Tail { cut: true } => "unfinished frame, cut off",
            DamageKind::Tail { cut: false } => "unfinished frame, skipped",
        })
    }
}

/// What was found in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// Segments read.
    pub segments: u64,
    /// Undamaged frames read.
    pub frames: u64,
    /// Samples brought back.
    pub samples: u64,
    /// Exemplars brought back.
    pub exemplars: u64,
    /// Samples and exemplars left out because they are older than the retention.
    pub expired: u64,
    /// Samples left out because the series has one at that time already.
    pub repeated: u64,
    /// Rows left out because the labels of their series were lost to damage.
    pub orphans: u64,
    /// Rows left out because there would be more series than allowed.
    pub over_limit: u64,
    /// Damaged places, of which the first 100 are in `damage`.
    pub damaged: u64,
    /// Bytes in damaged places.
    pub damaged_bytes: u64,
    /// The first damaged places.
    pub damage: Vec<Damage>,
}

impl ReplayReport {
    fn note(&mut self, path: &Path, at: usize, bytes: usize, kind: DamageKind) {
        self.damaged += 1;
        self.damaged_bytes += bytes as u64;
        if self.damage.len() < NAMED_MAX {
            self.damage.push(Damage {
                path: path.to_owned(),
                at: at as u64,
                bytes: bytes as u64,
                kind,
            });
        }
    }
}

/// Whether a row was taken by the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    Repeated,
}

/// What records are applied to.
pub(crate) trait Sink {
    /// The series with these labels; `None` when there are too many.
    fn series(&mut self, labels: &Labels) -> Option<SeriesRef>;
    fn float(&mut self, series: SeriesRef, t_ms: i64, start_ms: i64, value: f64) -> Taken;
    fn histogram(
        &mut self,
        series: SeriesRef,
        t_ms: i64,
        start_ms: i64,
        histogram: &Arc<Histogram>,
    ) -> Taken;
    fn exemplar(&mut self, series: SeriesRef, exemplar: Exemplar) -> Taken;
    fn metadata(&mut self, metric: &str, metadata: Metadata);
}

/// Why the log can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{path}: newer version {found}")]
    Newer { path: PathBuf, found: u16 },
}

/// What the writing end goes on from.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) segments: Vec<Segment>,
    pub(crate) last_sequence: u32,
    pub(crate) report: ReplayReport,
}

/// Applies all segments in `dir` to `sink`, but for rows before `floor_ms`. Nothing is changed
/// if one of them is of a newer version.
pub(crate) fn replay(
    dir: &Path,
    now_ms: i64,
    floor_ms: i64,
    mends: bool,
    sink: &mut impl Sink,
) -> Result<Replayed, ReplayError> {
    let sequences = sequences(dir)?;
    for sequence in &sequences {
        let path = segment_path(dir, *sequence);
        if let Header::Version(found) = header_of(&path)?
            && found > VERSION
        {
            return Err(ReplayError::Newer { path, found });
        }
    }
    let mut replayed = Replayed {
        last_sequence: sequences.last().copied().unwrap_or(0),
        ..Replayed::default()
    };
    for sequence in &sequences {
        let path = segment_path(dir, *sequence);
        let last = mends && *sequence == replayed.last_sequence;
        let rows = Rows {
            sink,
            report: &mut replayed.report,
            floor_ms,
            numbers: Vec::new(),
            numbers_max: 0,
            max_ms: i64::MIN,
        };
        replayed
            .segments
            .extend(replay_segment(path, last, now_ms, rows)?);
    }
    Ok(replayed)
}

/// The sequences of the segments in a directory, ascending.
fn sequences(dir: &Path) -> Result<Vec<u32>, LogError> {
    let mut sequences = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(LogError::on("list", dir))? {
        let name = entry.map_err(LogError::on("list", dir))?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".log"));
        let sequence = stem.and_then(|stem| stem.parse().ok());
        // Only names that we would give: `1.log` is somebody else's.
        sequences.extend(
            sequence.filter(|sequence| {
                segment_path(dir, *sequence).file_name() == Some(name.as_os_str())
            }),
        );
    }
    sequences.sort_unstable();
    Ok(sequences)
}

fn header_of(path: &Path) -> Result<Header, LogError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        let file = File::open(path)?;
        file.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read()
        .map(|bytes| read_header(&bytes))
        .map_err(LogError::on("read", path))
}

fn replay_segment(
    path: PathBuf,
    last: bool,
    now_ms: i64,
    mut rows: Rows<'_, impl Sink>,
) -> Result<Option<Segment>, LogError> {
    let bytes = std::fs::read(&path).map_err(LogError::on("read", &path))?;
    rows.numbers_max = bytes.len();
    rows.report.segments += 1;
    let damaged_before = rows.report.damaged;
    let mut segment = Segment {
        bytes: bytes.len() as u64,
        max_ms: i64::MIN,
        path,
    };
    let path = segment.path.clone();
    match read_header(&bytes) {
        Header::Version(_) => {}
        Header::Damaged => rows.report.note(&path, 0, HEADER_BYTES, DamageKind::Header),
        Header::Torn => {
            rows.report
                .note(&path, 0, bytes.len(), DamageKind::Tail { cut: last });
            if last {
                std::fs::remove_file(&path).map_err(LogError::on("delete", &path))?;
                return Ok(None);
            }
        }
    }
    for piece in Frames::new(&bytes) {
        match piece {
            Piece::Frame { at, payload } => {
                rows.report.frames += 1;
                if let Err(unreadable) = decode(payload, |record| rows.apply(record)) {
                    let from = at + payload.len() - unreadable.left;
                    let kind = DamageKind::Records;
                    rows.report.note(&path, from, unreadable.left, kind);
                }
            }
            Piece::Damage { at, bytes } => {
                rows.report.note(&path, at, bytes, DamageKind::Frame);
            }
            Piece::Tail { at, bytes } => {
                rows.report
                    .note(&path, at, bytes, DamageKind::Tail { cut: last });
                if last {
                    cut(&path, at as u64).map_err(LogError::on("cut the tail of", &path))?;
                    segment.bytes = at as u64;
                }
            }
        }
    }
    segment.max_ms = rows.max_ms;
    if rows.report.damaged > damaged_before {
        // What can't be read may be young: keep the file for a whole retention.
        segment.max_ms = segment.max_ms.max(now_ms);
    }
    Ok(Some(segment))
}

fn cut(path: &Path, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}

/// What a number of the segment stands for.
#[derive(Clone, Debug)]
enum Numbered {
    Lost,
    /// Not looked up before the first row that counts: a series whose rows are all too old
    /// must not take the place of another.
    Labels(Labels),
    OverLimit,
    Series(SeriesRef),
}

/// Applies the records of one segment.
struct Rows<'s, S> {
    sink: &'s mut S,
    report: &'s mut ReplayReport,
    floor_ms: i64,
    numbers: Vec<Numbered>,
    /// Numbers count up from 0 and each took a record: none can be as large as the segment.
    numbers_max: usize,
    max_ms: i64,
}

impl<S: Sink> Rows<'_, S> {
    fn apply(&mut self, record: Record<'_>) {
        match record {
            Record::Series { number, labels } => self.declare(number as usize, labels),
            Record::Float {
                number,
                t_ms,
                start_ms,
                value,
            } => {
                if let Some(series) = self.resolve(number, t_ms) {
                    let taken = self.sink.float(series, t_ms, start_ms, value);
                    self.count_sample(taken);
                }
            }
            Record::Histogram {
                number,
                t_ms,
                start_ms,
                histogram,
            } => {
                if let Some(series) = self.resolve(number, t_ms) {
                    let taken = self.sink.histogram(series, t_ms, start_ms, &histogram);
                    self.count_sample(taken);
                }
            }
            Record::Exemplar { number, exemplar } => {
                if let Some(series) = self.resolve(number, exemplar.t_ms) {
                    match self.sink.exemplar(series, exemplar) {
                        Taken::Yes => self.report.exemplars += 1,
                        Taken::Repeated => {}
                    }
                }
            }
            Record::Metadata { metric, metadata } => self.sink.metadata(metric, metadata),
        }
    }

    fn declare(&mut self, number: usize, labels: Labels) {
        if number >= self.numbers_max {
            self.report.orphans += 1;
            return;
        }
        if self.numbers.len() <= number {
            self.numbers.resize(number + 1, Numbered::Lost);
        }
        if let Some(slot) = self.numbers.get_mut(number) {
            *slot = Numbered::Labels(labels);
        }
    }

    /// The series of a row, unless the row does not count.
    #[inline]
    fn resolve(&mut self, number: u32, t_ms: i64) -> Option<SeriesRef> {
        self.max_ms = self.max_ms.max(t_ms);
        if t_ms < self.floor_ms {
            self.report.expired += 1;
            return None;
        }
        let Some(numbered) = self.numbers.get_mut(number as usize) else {
            self.report.orphans += 1;
            return None;
        };
        if let Numbered::Labels(labels) = numbered {
            *numbered = match self.sink.series(labels) {
                Some(series) => Numbered::Series(series),
                None => Numbered::OverLimit,
            };
        }
        match numbered {
            Numbered::Series(series) => return Some(*series),
            Numbered::OverLimit => self.report.over_limit += 1,
            Numbered::Lost | Numbered::Labels(_) => self.report.orphans += 1,
        }
        None
    }

    fn count_sample(&mut self, taken: Taken) {
        match taken {
            Taken::Yes => self.report.samples += 1,
            Taken::Repeated => self.report.repeated += 1,
        }
    }
}
