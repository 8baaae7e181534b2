//! Writes the messages of remote write 1.0.
//!
//! Each function appends one field to the message in `out`. Zero numbers and empty texts are
//! written too: they are legal, and a reader that tells absent from zero is a wrong one. Only
//! the counts of a histogram tell integer from float histograms by being there.

use slogate_series::{Histogram, ResetHint};

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

/// A series of a `WriteRequest`: labels, then samples as `(time in ms since the Unix epoch,
/// value)`, then histograms. Labels should be sorted by name and have no empty values.
pub fn series<'l, 's>(
    out: &mut Vec<u8>,
    labels: impl Iterator<Item = (&'l str, &'l str)>,
    floats: impl Iterator<Item = (i64, f64)>,
    histograms: impl Iterator<Item = (i64, &'s Histogram)>,
) {
    message(out, 1, |out| {
        for (name, value) in labels {
            label(out, name, value);
        }
        for (t_ms, value) in floats {
            message(out, 2, |out| {
                double(out, 1, value);
                int(out, 2, t_ms as u64);
            });
        }
        for (t_ms, value) in histograms {
            message(out, 4, |out| histogram(out, t_ms, value));
        }
    });
}

/// What is known about a metric, as a field of a `WriteRequest`; `kind` as in
/// [`v1::Metadata`](super::v1::Metadata).
pub fn metadata(out: &mut Vec<u8>, kind: i32, name: &str, help: &str, unit: &str) {
    message(out, 3, |out| {
        int(out, 1, kind as u64);
        text(out, 2, name);
        text(out, 4, help);
        text(out, 5, unit);
    });
}

/// A label, as a field of a series.
#[inline]
pub fn label(out: &mut Vec<u8>, name: &str, value: &str) {
    let inner = text_size(name) + text_size(value);
    out.push((1 << 3 | BYTES) as u8);
    varint(out, inner as u64);
    text(out, 1, name);
    text(out, 2, value);
}

/// The fields of a float histogram.
fn histogram(out: &mut Vec<u8>, t_ms: i64, histogram: &Histogram) {
    double(out, 2, histogram.count);
    double(out, 3, histogram.sum);
    int(out, 4, zigzag(i64::from(histogram.schema)));
    double(out, 5, histogram.zero_threshold);
    double(out, 7, histogram.zero_count);
    for (buckets, spans_field, counts_field) in
        [(&histogram.negative, 8, 10), (&histogram.positive, 11, 13)]
    {
        let entries = buckets.as_slice();
        if entries.is_empty() {
            continue;
        }
        // Where the span that is being written ends.
        let mut end = 0;
        for run in entries.chunk_by(|(a, _), (b, _)| a.checked_add(1) == Some(*b)) {
            let Some((first, _)) = run.first() else {
                continue;
            };
            message(out, spans_field, |out| {
                int(out, 1, zigzag(i64::from(*first) - end));
                int(out, 2, run.len() as u64);
            });
            end = i64::from(*first) + run.len() as i64;
        }
        doubles(out, counts_field, entries.iter().map(|(_, count)| *count));
    }
    let hint = match histogram.reset_hint {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    };
    int(out, 14, hint);
    int(out, 15, t_ms as u64);
    if !histogram.custom_bounds.is_empty() {
        doubles(out, 16, histogram.custom_bounds.iter().copied());
    }
}

/// A message field that `write` fills.
fn message(out: &mut Vec<u8>, field: u64, write: impl FnOnce(&mut Vec<u8>)) {
    varint(out, field << 3 | BYTES);
    let at = out.len();
    write(out);
    let length = (out.len() - at) as u64;
    let mut prefix = Vec::with_capacity(10);
    varint(&mut prefix, length);
    out.splice(at..at, prefix);
}

fn doubles(out: &mut Vec<u8>, field: u64, values: impl ExactSizeIterator<Item = f64>) {
    varint(out, field << 3 | BYTES);
    varint(out, values.len() as u64 * 8);
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    varint(out, field << 3 | FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

fn int(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | VARINT);
    varint(out, value);
}

#[inline]
fn text(out: &mut Vec<u8>, field: u64, text: &str) {
    varint(out, field << 3 | BYTES);
    varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// The bytes that [`text`] writes for a field number up to 15.
fn text_size(text: &str) -> usize {
    let length_bytes = (u64::BITS - (text.len() as u64 | 1).leading_zeros()).div_ceil(7);
    1 + length_bytes as usize + text.len()
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[inline]
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
