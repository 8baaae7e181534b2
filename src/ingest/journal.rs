//! The ingest journal: what requests added to accumulators since the last flush.
//!
//! The answer to a request promises that its spans are counted, also when the process is
//! killed before the next flush. So each request's additions are written with one `write(2)`
//! before they are applied. A flush starts a new file, writes the accumulators to the store and
//! deletes the older files; on start the files that are left are added up again.
//!
//! Policy:
//! - The file survives the process, not the machine: it is not synced. A power cut may lose the
//!   additions since the last flush.
//! - A crash after the flush's append and before the deletion counts that flush's additions
//!   twice: at most one interval, and never fewer than were promised.
//! - A record that is cut or damaged ends its file: everything before it counts.
//! - A write that fails is cut off again and the request is refused, so that later records
//!   stay readable.
//! - A file of an unknown version is an error: it was written by a newer slogate.
//!
//! The byte layout is drawn in `docs/formats.md`, "Ingest journal".

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use slogate_series::Labels;

use super::cells::{Cell, CellKind};
use super::tally::{Tally, Times};

const MAGIC: &[u8; 8] = b"SLGJRNL1";
const FRAME_BYTES: usize = 8;
const RECORD_MAX_BYTES: usize = 1 << 28;

const DEFINE: u8 = 1;
const ADD: u8 = 2;

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    current: Mutex<Current>,
    /// The number of the file being written; also the epoch of cell definitions.
    number: AtomicU64,
    /// The size of the files before it.
    older_bytes: AtomicU64,
}

#[derive(Debug)]
struct Current {
    file: File,
    bytes: u64,
}

/// An addition read back.
#[derive(Debug, PartialEq)]
pub(super) struct Replayed {
    pub(super) kind: CellKind,
    pub(super) labels: Labels,
    pub(super) delta: Tally,
}

/// Why the journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path}: not an ingest journal of a version this slogate reads; it was written by a newer one, or is another file: start the newer slogate, or move the file away"
    )]
    Version { path: PathBuf },
}

impl Journal {
    /// Opens the journal in `dir` and hands what it holds to `replay`. The files read stay
    /// until the next [`Journal::delete_before`].
    pub(super) fn open(
        dir: &Path,
        mut replay: impl FnMut(Replayed),
    ) -> Result<Journal, JournalError> {
        let io_at = |path: &Path| {
            let path = path.to_path_buf();
            move |source| JournalError::Io { path, source }
        };
        std::fs::create_dir_all(dir).map_err(io_at(dir))?;
        let numbers = file_numbers(dir).map_err(io_at(dir))?;
        let mut older_bytes = 0;
        for number in &numbers {
            let path = file_path(dir, *number);
            let mut bytes = Vec::new();
            File::open(&path)
                .and_then(|mut file| file.read_to_end(&mut bytes))
                .map_err(io_at(&path))?;
            older_bytes += bytes.len() as u64;
            if bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes) {
                continue;
            }
            match bytes.strip_prefix(MAGIC) {
                Some(records) => replay_records(records, &mut replay),
                None => return Err(JournalError::Version { path }),
            }
        }
        let number = numbers.last().map_or(1, |last| last + 1);
        let file = create(dir, number).map_err(io_at(&file_path(dir, number)))?;
        Ok(Journal {
            dir: dir.to_path_buf(),
            current: Mutex::new(Current {
                file,
                bytes: MAGIC.len() as u64,
            }),
            number: AtomicU64::new(number),
            older_bytes: AtomicU64::new(older_bytes),
        })
    }

    /// Writes additions as one record. The cells are defined where this file does not do so yet.
    pub(super) fn write<'a>(
        &self,
        additions: impl Iterator<Item = (&'a Arc<Cell>, &'a Tally)> + Clone,
    ) -> io::Result<()> {
        let number = self.number.load(Ordering::Acquire);
        let mut record = vec![0; FRAME_BYTES];
        for (cell, delta) in additions.clone() {
            if cell.defined_in.load(Ordering::Acquire) != number {
                encode_definition(&mut record, cell);
            }
            encode_addition(&mut record, cell.id, delta);
        }
        seal(&mut record)?;
        {
            let mut current = self.current.lock();
            if let Err(error) = current.file.write_all(&record) {
                let bytes = current.bytes;
                current.file.set_len(bytes)?;
                return Err(error);
            }
            current.bytes += record.len() as u64;
        }
        // Only now: a request must not rely on a definition that is not written yet.
        for (cell, _) in additions {
            cell.defined_in.store(number, Ordering::Release);
        }
        Ok(())
    }

    /// Starts a new file and returns its number. No request may be writing meanwhile.
    pub(super) fn rotate(&self) -> io::Result<u64> {
        let number = self.number.load(Ordering::Acquire) + 1;
        let file = create(&self.dir, number)?;
        let fresh = Current {
            file,
            bytes: MAGIC.len() as u64,
        };
        let old = std::mem::replace(&mut *self.current.lock(), fresh);
        self.older_bytes.fetch_add(old.bytes, Ordering::Relaxed);
        self.number.store(number, Ordering::Release);
        Ok(number)
    }

    /// Deletes the files before `number`: what they hold is in the store.
    pub(super) fn delete_before(&self, number: u64) -> io::Result<()> {
        for old in file_numbers(&self.dir)? {
            if old < number {
                std::fs::remove_file(file_path(&self.dir, old))?;
            }
        }
        self.older_bytes.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// The size of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.current.lock().bytes + self.older_bytes.load(Ordering::Relaxed)
    }
}

fn file_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal-{number}"))
}

fn file_numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("journal-"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn create(dir: &Path, number: u64) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .open(file_path(dir, number))?;
    file.write_all(MAGIC)?;
    Ok(file)
}

fn seal(record: &mut [u8]) -> io::Result<()> {
    let (frame, payload) = record.split_at_mut(FRAME_BYTES);
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|length| *length as usize <= RECORD_MAX_BYTES)
        .ok_or_else(|| io::Error::other("an ingest journal record would exceed 256 MiB"))?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    Ok(())
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Whole numbers below 2^53 as varint of twice the number, others as varint 1 and 8 bytes.
fn put_number(out: &mut Vec<u8>, value: f64) {
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && (0.0..WHOLE_MAX).contains(&value) && value.is_sign_positive() {
        put_varint(out, (value as u64) << 1);
    } else {
        put_varint(out, 1);
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn encode_definition(out: &mut Vec<u8>, cell: &Cell) {
    out.push(DEFINE);
    put_varint(out, u64::from(cell.id));
    out.push(cell.kind.code());
    put_varint(out, cell.labels.len() as u64);
    for label in cell.labels.iter() {
        put_text(out, &label.name);
        put_text(out, &label.value);
    }
}

fn encode_addition(out: &mut Vec<u8>, id: u32, delta: &Tally) {
    out.push(ADD);
    put_varint(out, u64::from(id));
    put_number(out, delta.count);
    put_number(out, delta.failed);
    for times in &delta.times {
        put_number(out, times.count);
        if times.count == 0.0 {
            continue;
        }
        put_number(out, times.sum);
        put_number(out, times.zero);
        put_varint(out, times.buckets.len() as u64);
        let mut last = 0;
        for (index, count) in &times.buckets {
            // Zigzag of the distance to the bucket before.
            let distance = i64::from(*index) - last;
            put_varint(out, ((distance << 1) ^ (distance >> 63)) as u64);
            put_number(out, *count);
            last = i64::from(*index);
        }
    }
}

fn replay_records(mut bytes: &[u8], replay: &mut impl FnMut(Replayed)) {
    let mut defined = HashMap::new();
    while let Some((payload, rest)) = next_record(bytes) {
        if replay_payload(payload, &mut defined, replay).is_none() {
            return;
        }
        bytes = rest;
    }
}

fn next_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (payload, rest) = rest.split_at_checked(length)?;
    (crc32fast::hash(payload) == u32::from_le_bytes(*checksum)).then_some((payload, rest))
}

fn replay_payload(
    mut from: &[u8],
    defined: &mut HashMap<u64, (CellKind, Labels)>,
    replay: &mut impl FnMut(Replayed),
) -> Option<()> {
    while let Some((kind, rest)) = from.split_first() {
        from = rest;
        let id = get_varint(&mut from)?;
        if *kind == DEFINE {
            defined.insert(id, get_definition(&mut from)?);
            continue;
        }
        let delta = get_addition(&mut from)?;
        let (kind, labels) = defined.get(&id)?.clone();
        replay(Replayed {
            kind,
            labels,
            delta,
        });
    }
    Some(())
}

fn get_varint(from: &mut &[u8]) -> Option<u64> {
    let mut reader = slogate_wire::proto::Reader::new(from);
    let value = reader.varint().ok()?;
    *from = reader.rest();
    Some(value)
}

fn get_number(from: &mut &[u8]) -> Option<f64> {
    let value = get_varint(from)?;
    if value & 1 == 0 {
        return Some((value >> 1) as f64);
    }
    let (bits, rest) = from.split_first_chunk::<8>()?;
    *from = rest;
    Some(f64::from_bits(u64::from_le_bytes(*bits)))
}

fn get_text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(get_varint(from)?).ok()?;
    let (text, rest) = from.split_at_checked(length)?;
    *from = rest;
    std::str::from_utf8(text).ok()
}

fn get_definition(from: &mut &[u8]) -> Option<(CellKind, Labels)> {
    let (code, rest) = from.split_first()?;
    *from = rest;
    let kind = CellKind::from_code(*code)?;
    let mut pairs = Vec::new();
    for _ in 0..get_varint(from)? {
        pairs.push((get_text(from)?, get_text(from)?));
    }
    Some((kind, Labels::from_pairs(pairs)))
}

fn get_addition(from: &mut &[u8]) -> Option<Tally> {
    let mut delta = Tally {
        count: get_number(from)?,
        failed: get_number(from)?,
        ..Tally::default()
    };
    for times in &mut delta.times {
        let count = get_number(from)?;
        if count != 0.0 {
            *times = get_times(from, count)?;
        }
    }
    Some(delta)
}

fn get_times(from: &mut &[u8], count: f64) -> Option<Times> {
    let mut times = Times {
        count,
        sum: get_number(from)?,
        zero: get_number(from)?,
        buckets: Vec::new(),
    };
    let mut last = 0i64;
    for _ in 0..get_varint(from)? {
        let zigzag = get_varint(from)?;
        last = last.checked_add((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))?;
        times
            .buckets
            .push((i32::try_from(last).ok()?, get_number(from)?));
    }
    Some(times)
}
