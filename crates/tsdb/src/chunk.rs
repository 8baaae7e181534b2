//! Compressed runs of samples.
//!
//! A chunk holds up to [`CHUNK_SAMPLES`] samples of one kind, ascending in time. It is open
//! while samples are appended to it and finished after that; a finished chunk is immutable
//! and shared, so that a query copies a pointer under the lock and decodes outside of it.
//! Chunks live in memory only: their layout may change without a format version.

pub(crate) mod bits;
pub(crate) mod float;
pub(crate) mod histogram;
pub(crate) mod rice;
pub(crate) mod time;

use std::sync::Arc;

use slogate_series::{Histogram, Sample, SampleSink, Value};

use float::{FloatDecoder, FloatEncoder};
use histogram::{HistogramDecoder, HistogramEncoder};

/// A chunk is finished at this many samples: half an hour at 15 s.
pub(crate) const CHUNK_SAMPLES: u16 = 120;

/// A chunk of histograms is finished at this size, in bytes.
const HISTOGRAM_CHUNK_BYTES: usize = 8 * 1024;

/// How a chunk's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// Floats that are whole numbers (or stale).
    Whole,
    /// Any floats.
    Xor,
    /// Native histograms.
    Histogram,
}

/// A finished chunk.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
    pub(crate) count: u16,
    pub(crate) codec: Codec,
    pub(crate) bytes: Arc<[u8]>,
}

impl Chunk {
    /// The samples, ascending.
    pub(crate) fn iter(&self) -> ChunkIter<'_> {
        match self.codec {
            Codec::Whole | Codec::Xor => {
                ChunkIter::Float(FloatDecoder::new(&self.bytes, self.codec, self.count))
            }
            Codec::Histogram => {
                ChunkIter::Histogram(HistogramDecoder::new(&self.bytes, self.count))
            }
        }
    }

    /// Gives the samples in the closed range to `out`, ascending; says how many.
    pub(crate) fn read<S: SampleSink>(&self, start_ms: i64, end_ms: i64, out: &mut S) -> usize {
        let mut count = 0;
        match self.iter() {
            ChunkIter::Float(floats) => {
                for (t_ms, counted_since_ms, value) in floats {
                    if t_ms > end_ms {
                        break;
                    }
                    if t_ms >= start_ms {
                        out.float(t_ms, counted_since_ms, value);
                        count += 1;
                    }
                }
            }
            ChunkIter::Histogram(histograms) => {
                for (t_ms, counted_since_ms, value) in histograms {
                    if t_ms > end_ms {
                        break;
                    }
                    if t_ms >= start_ms {
                        out.histogram(t_ms, counted_since_ms, value);
                        count += 1;
                    }
                }
            }
        }
        count
    }

    /// About how many samples are in the closed range, taking them for evenly spaced.
    pub(crate) fn count_within(&self, start_ms: i64, end_ms: i64) -> usize {
        let length = |from: i64, to: i64| to.saturating_sub(from) as f64 + 1.0;
        let part = length(self.min_ms.max(start_ms), self.max_ms.min(end_ms))
            / length(self.min_ms, self.max_ms);
        (f64::from(self.count) * part.clamp(0.0, 1.0)).ceil() as usize + 1
    }

    /// Bytes of memory, the chunk's own entry in its series included.
    pub(crate) fn memory_bytes(&self) -> usize {
        // The shared slice carries two counters.
        self.bytes.len() + 16 + size_of::<Chunk>()
    }

    /// Whether any instant of the closed range is within the chunk's.
    pub(crate) fn overlaps(&self, start_ms: i64, end_ms: i64) -> bool {
        self.min_ms <= end_ms && self.max_ms >= start_ms
    }
}

/// Iterates over a chunk's samples.
#[derive(Clone, Debug)]
pub(crate) enum ChunkIter<'a> {
    Float(FloatDecoder<'a>),
    Histogram(HistogramDecoder<'a>),
}

impl Iterator for ChunkIter<'_> {
    type Item = Sample;

    #[inline]
    fn next(&mut self) -> Option<Sample> {
        match self {
            ChunkIter::Float(floats) => floats.next().map(|(t_ms, start_ms, value)| Sample {
                t_ms,
                start_ms,
                value: Value::Float(value),
            }),
            ChunkIter::Histogram(histograms) => {
                histograms.next().map(|(t_ms, start_ms, histogram)| Sample {
                    t_ms,
                    start_ms,
                    value: Value::Histogram(histogram),
                })
            }
        }
    }
}

/// A sample's value on its way in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Incoming<'a> {
    Float(f64),
    Histogram(&'a Arc<Histogram>),
}

impl Incoming<'_> {
    /// Whether a stored value is this one, bit for bit.
    pub(crate) fn is(&self, stored: &Value) -> bool {
        match (self, stored) {
            (Incoming::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            (Incoming::Histogram(a), Value::Histogram(b)) => *a == b,
            _ => false,
        }
    }

    /// The value to keep.
    pub(crate) fn to_value(self) -> Value {
        match self {
            Incoming::Float(value) => Value::Float(value),
            Incoming::Histogram(histogram) => Value::Histogram(Arc::clone(histogram)),
        }
    }
}

impl<'a> From<&'a Value> for Incoming<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Float(value) => Incoming::Float(*value),
            Value::Histogram(histogram) => Incoming::Histogram(histogram),
        }
    }
}

/// The chunk that a series appends to.
#[derive(Clone, Debug, Default)]
pub(crate) enum OpenChunk {
    #[default]
    None,
    Float(FloatEncoder),
    Histogram(Box<HistogramEncoder>),
}

impl OpenChunk {
    /// A chunk that begins with one sample.
    pub(crate) fn start(t_ms: i64, start_ms: i64, value: Incoming<'_>) -> Self {
        match value {
            Incoming::Float(value) => OpenChunk::Float(FloatEncoder::new(t_ms, start_ms, value)),
            Incoming::Histogram(histogram) => {
                OpenChunk::Histogram(Box::new(HistogramEncoder::new(t_ms, start_ms, histogram)))
            }
        }
    }

    /// Appends a sample later than the last one, unless the chunk is full or of another
    /// kind; says whether it did.
    #[inline]
    pub(crate) fn push(&mut self, t_ms: i64, start_ms: i64, value: Incoming<'_>) -> bool {
        match (self, value) {
            (OpenChunk::Float(floats), Incoming::Float(value))
                if floats.count() < CHUNK_SAMPLES =>
            {
                floats.push(t_ms, start_ms, value);
                true
            }
            (OpenChunk::Histogram(histograms), Incoming::Histogram(histogram))
                if histograms.count() < CHUNK_SAMPLES
                    && histograms.coded_bytes() < HISTOGRAM_CHUNK_BYTES =>
            {
                histograms.push(t_ms, start_ms, histogram);
                true
            }
            _ => false,
        }
    }

    /// First and last time, or `None` without samples.
    pub(crate) fn range_ms(&self) -> Option<(i64, i64)> {
        match self {
            OpenChunk::None => None,
            OpenChunk::Float(floats) => Some((floats.first_ms(), floats.last().0)),
            OpenChunk::Histogram(histograms) => Some((histograms.first_ms(), histograms.last().0)),
        }
    }

    /// Whether the last sample is at `t_ms` and, if so, whether its value is this one.
    pub(crate) fn last_is(&self, t_ms: i64, value: Incoming<'_>) -> Option<bool> {
        match self {
            OpenChunk::Float(floats) if floats.last().0 == t_ms => {
                Some(value.is(&Value::Float(floats.last().1)))
            }
            OpenChunk::Histogram(histograms) if histograms.last().0 == t_ms => {
                Some(matches!(value, Incoming::Histogram(h) if h == histograms.last().1))
            }
            _ => None,
        }
    }

    /// The number of samples.
    pub(crate) fn count(&self) -> u16 {
        match self {
            OpenChunk::None => 0,
            OpenChunk::Float(floats) => floats.count(),
            OpenChunk::Histogram(histograms) => histograms.count(),
        }
    }

    /// Bytes of heap held.
    #[inline]
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            OpenChunk::None => 0,
            OpenChunk::Float(floats) => floats.heap_bytes(),
            OpenChunk::Histogram(histograms) => histograms.heap_bytes(),
        }
    }

    /// The samples so far as a finished chunk.
    pub(crate) fn to_chunk(&self) -> Option<Chunk> {
        match self {
            OpenChunk::None => None,
            OpenChunk::Float(floats) => Some(floats.to_chunk()),
            OpenChunk::Histogram(histograms) => Some(histograms.to_chunk()),
        }
    }
}
