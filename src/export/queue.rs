//! Requests that wait on disk; `docs/formats.md` draws the files.
//!
//! - Requests are appended in rounds, each ended by a mark that says how far the store was read.
//!   A round without its mark never happened: it is cut off at the next start, and read again.
//! - Where reading stands is written down after each request, in place. Lost (a power cut in that
//!   moment), the oldest segment is sent again.
//! - A segment is deleted when all of it was sent, or when the queue is full and it is the oldest.
//! - A round that could not be written is taken back.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::ExportError;

/// The first bytes of a segment, the last one being the version.
const MAGIC: &[u8; 8] = b"SLGEXPQ1";

/// Length and CRC before each record.
const FRAME_BYTES: usize = 8;

const REQUEST: u8 = 1;
const MARK: u8 = 2;

/// The largest record that is read, in bytes.
const RECORD_MAX: u32 = 64 << 20;

/// A compressed `WriteRequest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// How many samples it has.
    pub(super) samples: u32,
    /// The oldest one's time, in ms since the Unix epoch.
    pub(super) oldest_ms: i64,
    /// A snappy block.
    pub(super) body: Vec<u8>,
}

/// Where a request lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    segment: u64,
    offset: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    /// Samples not sent yet.
    pending: u64,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// How far the store was read, where that is known.
    pub(super) through_ms: Option<i64>,
    /// Bytes that could not be read.
    pub(super) lost_bytes: u64,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Queue {
    dir: PathBuf,
    max_bytes: u64,
    segment_bytes: u64,
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    writer: File,
    position_file: File,
    position: Position,
    /// The request at the position, once read, and where the next one begins.
    head: Option<(Request, Position)>,
}

impl Queue {
    /// Opens the queue in `dir`, made if need be, for about `max_bytes`.
    pub(super) fn open(dir: &Path, max_bytes: u64) -> Result<(Queue, Recovered), ExportError> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        let position_path = dir.join("position");
        let mut options = OpenOptions::new();
        let position_file = options.read(true).write(true).create(true).truncate(false);
        let mut position_file = position_file
            .open(&position_path)
            .map_err(at(&position_path))?;
        let position = read_position(&mut position_file).map_err(at(&position_path))?;
        let mut recovered = Recovered::default();
        let mut segments = VecDeque::new();
        let numbers = numbers(dir).map_err(at(dir))?;
        for number in &numbers {
            let path = path(dir, *number);
            let is_last = Some(number) == numbers.last();
            let found = scan(&path, *number, position, &mut recovered)?;
            if is_last && found.marked_bytes < found.bytes {
                let file = OpenOptions::new().write(true).open(&path);
                let cut = file.and_then(|file| file.set_len(found.marked_bytes));
                cut.map_err(at(&path))?;
            }
            segments.push_back(Segment {
                number: *number,
                bytes: if is_last {
                    found.marked_bytes
                } else {
                    found.bytes
                },
                pending: found.pending,
            });
        }
        let number = numbers.last().map_or(1, |last| last + 1);
        let writer = create(dir, number)?;
        segments.push_back(Segment {
            number,
            bytes: MAGIC.len() as u64,
            pending: 0,
        });
        let mut queue = Queue {
            dir: dir.to_owned(),
            max_bytes,
            segment_bytes: (max_bytes / 16).clamp(64 << 10, 16 << 20),
            segments,
            writer,
            position_file,
            position,
            head: None,
        };
        // What was sent already, or never was a segment.
        while let Some(first) = queue.segments.front()
            && first.pending == 0
            && queue.segments.len() > 1
        {
            queue.delete_first()?;
        }
        queue.clamp_position();
        if let Some(through_ms) = recovered.through_ms {
            // The segment that had the mark may be gone now.
            queue.append(&[], through_ms)?;
        }
        Ok((queue, recovered))
    }

    /// Appends a round; returns how many waiting samples had to go for it.
    pub(super) fn append(
        &mut self,
        requests: &[Request],
        through_ms: i64,
    ) -> Result<u64, ExportError> {
        if self.last_bytes() >= self.segment_bytes {
            self.roll()?;
        }
        let mut bytes = Vec::new();
        for request in requests {
            frame(&mut bytes, |out| {
                out.push(REQUEST);
                out.extend_from_slice(&request.samples.to_le_bytes());
                out.extend_from_slice(&request.oldest_ms.to_le_bytes());
                out.extend_from_slice(&request.body);
            });
        }
        frame(&mut bytes, |out| {
            out.push(MARK);
            out.extend_from_slice(&through_ms.to_le_bytes());
        });
        let before = self.last_bytes();
        let path = self.last_path();
        let mut written = self.writer.write_all(&bytes);
        if !requests.is_empty() {
            written = written.and_then(|()| self.writer.sync_data());
        }
        if let Err(error) = written {
            // Half a round must not be in the way of the next one.
            let _ = self.writer.set_len(before);
            let _ = self.writer.seek(SeekFrom::Start(before));
            return Err(at(&path)(error));
        }
        if let Some(last) = self.segments.back_mut() {
            last.bytes += bytes.len() as u64;
            last.pending += requests.iter().map(|r| u64::from(r.samples)).sum::<u64>();
        }
        self.shrink()
    }

    /// The oldest request that waits, and its place.
    pub(super) fn peek(&mut self) -> Result<Option<(Position, Request)>, ExportError> {
        while self.head.is_none() {
            let Some(segment) = self.segments.front() else {
                return Ok(None);
            };
            let is_last = self.segments.len() == 1;
            if self.position.offset < segment.bytes {
                let path = path(&self.dir, segment.number);
                let end = segment.bytes;
                let found = read_request(&path, self.position, end).map_err(at(&path))?;
                if let Some((request, at, next)) = found {
                    self.position = at;
                    self.head = Some((request, next));
                    break;
                }
                self.position.offset = end;
            }
            if is_last {
                return Ok(None);
            }
            self.delete_first()?;
            self.clamp_position();
        }
        let request = self.head.as_ref().map(|(request, _)| request.clone());
        Ok(request.map(|request| (self.position, request)))
    }

    /// Notes that the request at `position` is done with. Nothing happens where it is gone
    /// already.
    pub(super) fn done(&mut self, position: Position) -> Result<(), ExportError> {
        if position != self.position {
            return Ok(());
        }
        let Some((request, next)) = self.head.take() else {
            return Ok(());
        };
        if let Some(first) = self.segments.front_mut() {
            first.pending = first.pending.saturating_sub(u64::from(request.samples));
        }
        self.position = next;
        write_position(&mut self.position_file, next).map_err(at(&self.dir.join("position")))
    }

    /// Samples that wait.
    pub(super) fn pending(&self) -> u64 {
        self.segments.iter().map(|segment| segment.pending).sum()
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The time of the oldest sample of the request that is next, once it was read.
    pub(super) fn oldest_ms(&self) -> Option<i64> {
        self.head.as_ref().map(|(request, _)| request.oldest_ms)
    }

    fn last_bytes(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.bytes)
    }

    fn last_path(&self) -> PathBuf {
        let number = self.segments.back().map_or(0, |segment| segment.number);
        path(&self.dir, number)
    }

    /// Begins a new segment.
    fn roll(&mut self) -> Result<(), ExportError> {
        let number = self.segments.back().map_or(1, |last| last.number + 1);
        self.writer = create(&self.dir, number)?;
        self.segments.push_back(Segment {
            number,
            bytes: MAGIC.len() as u64,
            pending: 0,
        });
        Ok(())
    }

    /// Deletes the oldest segments while there is too much; returns how many samples waited there.
    fn shrink(&mut self) -> Result<u64, ExportError> {
        let mut dropped = 0;
        while self.bytes() > self.max_bytes && self.segments.len() > 1 {
            dropped += self.delete_first()?;
            self.clamp_position();
        }
        Ok(dropped)
    }

    fn delete_first(&mut self) -> Result<u64, ExportError> {
        let Some(first) = self.segments.front() else {
            return Ok(0);
        };
        let path = path(&self.dir, first.number);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
            _ => {}
        }
        let first = self.segments.pop_front();
        Ok(first.map_or(0, |first| first.pending))
    }

    /// Moves the position into the oldest segment, where it is not.
    fn clamp_position(&mut self) {
        let Some(first) = self.segments.front() else {
            return;
        };
        if self.position.segment != first.number {
            self.head = None;
            self.position = Position {
                segment: first.number,
                offset: MAGIC.len() as u64,
            };
        }
    }
}

/// An error at a path.
fn at(path: &Path) -> impl Fn(io::Error) -> ExportError + use<> {
    let path = path.to_owned();
    move |error| ExportError::File {
        path: path.clone(),
        error,
    }
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("queue-{number}"))
}

/// The numbers of the segments, ascending.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("queue-"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn create(dir: &Path, number: u64) -> Result<File, ExportError> {
    let path = path(dir, number);
    let file = File::create(&path).and_then(|mut file| {
        file.write_all(MAGIC)?;
        Ok(file)
    });
    file.map_err(at(&path))
}

/// Appends a record that `write` fills.
fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_BYTES]);
    write(out);
    let payload = out.get(start + FRAME_BYTES..).unwrap_or_default();
    let (length, crc) = (payload.len() as u32, crc32fast::hash(payload));
    let head = [length.to_le_bytes(), crc.to_le_bytes()].concat();
    if let Some(place) = out.get_mut(start..start + FRAME_BYTES) {
        place.copy_from_slice(&head);
    }
}

/// The next record's payload; `None` at the end, or where it can't be read.
fn next_record(file: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; FRAME_BYTES];
    if !read_whole(file, &mut head)? {
        return Ok(None);
    }
    let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length > RECORD_MAX {
        return Ok(None);
    }
    let mut payload = Vec::new();
    file.take(u64::from(length)).read_to_end(&mut payload)?;
    let is_whole = payload.len() == length as usize;
    let crc = u32::from_le_bytes([c0, c1, c2, c3]);
    Ok((is_whole && crc32fast::hash(&payload) == crc).then_some(payload))
}

/// Whether the buffer could be filled.
fn read_whole(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

enum Record {
    Request(Request),
    Mark(i64),
}

fn parse(payload: &[u8]) -> Option<Record> {
    let (kind, rest) = payload.split_first()?;
    match *kind {
        REQUEST => {
            let (samples, rest) = rest.split_first_chunk::<4>()?;
            let (oldest_ms, body) = rest.split_first_chunk::<8>()?;
            Some(Record::Request(Request {
                samples: u32::from_le_bytes(*samples),
                oldest_ms: i64::from_le_bytes(*oldest_ms),
                body: body.to_vec(),
            }))
        }
        MARK => {
            let (through_ms, _) = rest.split_first_chunk::<8>()?;
            Some(Record::Mark(i64::from_le_bytes(*through_ms)))
        }
        _ => None,
    }
}

struct Scanned {
    /// The file's length.
    bytes: u64,
    /// Up to the end of the last mark.
    marked_bytes: u64,
    /// Samples behind the position, up to the last mark.
    pending: u64,
}

/// Looks a segment through.
fn scan(
    path: &Path,
    number: u64,
    position: Position,
    recovered: &mut Recovered,
) -> Result<Scanned, ExportError> {
    let file = File::open(path).map_err(at(path))?;
    let bytes = file.metadata().map_err(at(path))?.len();
    let mut file = BufReader::new(file);
    let mut magic = [0; MAGIC.len()];
    let start = MAGIC.len() as u64;
    let mut scanned = Scanned {
        bytes,
        marked_bytes: start.min(bytes),
        pending: 0,
    };
    if !read_whole(&mut file, &mut magic).map_err(at(path))? {
        // One that was being made.
        return Ok(scanned);
    }
    if magic != *MAGIC {
        return Err(ExportError::Version {
            path: path.to_owned(),
        });
    }
    let (mut offset, mut unmarked) = (start, 0);
    while let Some(payload) = next_record(&mut file).map_err(at(path))? {
        let here = Position {
            segment: number,
            offset,
        };
        offset += (FRAME_BYTES + payload.len()) as u64;
        match parse(&payload) {
            Some(Record::Request(request)) if here >= position => {
                unmarked += u64::from(request.samples);
            }
            Some(Record::Request(_)) => {}
            Some(Record::Mark(through_ms)) => {
                recovered.through_ms = recovered.through_ms.max(Some(through_ms));
                scanned.pending += unmarked;
                scanned.marked_bytes = offset;
                unmarked = 0;
            }
            None => break,
        }
    }
    recovered.lost_bytes += bytes.saturating_sub(offset);
    Ok(scanned)
}

/// The first request at or behind `from`, where it lies, and where the next record begins.
fn read_request(
    path: &Path,
    from: Position,
    end: u64,
) -> io::Result<Option<(Request, Position, Position)>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from.offset))?;
    let mut file = BufReader::new(file);
    let mut here = from;
    while here.offset < end {
        let Some(payload) = next_record(&mut file)? else {
            return Ok(None);
        };
        let next = Position {
            offset: here.offset + (FRAME_BYTES + payload.len()) as u64,
            ..here
        };
        match parse(&payload) {
            Some(Record::Request(request)) => return Ok(Some((request, here, next))),
            Some(Record::Mark(_)) => here = next,
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// The position that was written down; the very start where it can't be read.
fn read_position(file: &mut File) -> io::Result<Position> {
    let mut bytes = Vec::new();
    file.take(64).read_to_end(&mut bytes)?;
    let read = || {
        let (segment, rest) = bytes.split_first_chunk::<8>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (crc, _) = rest.split_first_chunk::<4>()?;
        let is_sound = crc32fast::hash(bytes.get(..16)?) == u32::from_le_bytes(*crc);
        is_sound.then_some(Position {
            segment: u64::from_le_bytes(*segment),
            offset: u64::from_le_bytes(*offset),
        })
    };
    Ok(read().unwrap_or(Position {
        segment: 0,
        offset: 0,
    }))
}

fn write_position(file: &mut File, position: Position) -> io::Result<()> {
    let mut bytes = [
        position.segment.to_le_bytes(),
        position.offset.to_le_bytes(),
    ]
    .concat();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests;
