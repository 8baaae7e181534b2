//! The records inside of log frames, as docs/formats.md, "Series log", lists them.

use std::sync::Arc;

use slogate_series::{Buckets, Exemplar, Histogram, Labels, ResetHint};

use super::bytes::{Cursor, put_labels, put_svarint, put_text, put_varint};
use super::frame::put_frame;
use crate::chunk::float::as_whole;
use crate::chunk::histogram::{BUCKETS_MAX, is_whole};
use crate::metadata::{Metadata, MetricKind};

const KIND_SERIES: u8 = 1;
const KIND_FLOATS: u8 = 2;
const KIND_HISTOGRAMS: u8 = 3;
const KIND_EXEMPLARS: u8 = 4;
const KIND_METADATA: u8 = 5;

const START_DIFFERS: u8 = 1;
const WHOLE: u8 = 1 << 1;
const HINT_SHIFT: u8 = 2;
const BOUNDS: u8 = 1 << 4;

/// A frame that reaches this size is ended and another one begun.
const PAYLOAD_BYTES: usize = 1 << 20;

/// The record before, which numbers and times are written against.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    number: i64,
    t_ms: i64,
    start_ms: i64,
}

impl Before {
    #[inline]
    fn put(&mut self, out: &mut Vec<u8>, flags: u8, number: u32, t_ms: i64, start_ms: i64) {
        let start_differs = start_ms != self.start_ms;
        out.push(flags | if start_differs { START_DIFFERS } else { 0 });
        self.put_place(out, number, t_ms);
        if start_differs {
            put_svarint(out, start_ms.wrapping_sub(self.start_ms));
            self.start_ms = start_ms;
        }
    }

    #[inline]
    fn put_place(&mut self, out: &mut Vec<u8>, number: u32, t_ms: i64) {
        let number = i64::from(number);
        put_svarint(out, number - self.number);
        put_svarint(out, t_ms.wrapping_sub(self.t_ms));
        (self.number, self.t_ms) = (number, t_ms);
    }

    #[inline]
    fn get(&mut self, input: &mut Cursor<'_>, flags: u8) -> Option<u32> {
        let number = self.get_place(input)?;
        if flags & START_DIFFERS != 0 {
            self.start_ms = self.start_ms.wrapping_add(input.svarint()?);
        }
        Some(number)
    }

    #[inline]
    fn get_place(&mut self, input: &mut Cursor<'_>) -> Option<u32> {
        self.number = self.number.checked_add(input.svarint()?)?;
        self.t_ms = self.t_ms.wrapping_add(input.svarint()?);
        u32::try_from(self.number).ok()
    }
}

/// A frame's payload while it grows.
#[derive(Debug)]
struct Run {
    kind: u8,
    payload: Vec<u8>,
    before: Before,
}

impl Run {
    fn new(kind: u8) -> Self {
        Run {
            kind,
            payload: Vec::new(),
            before: Before::default(),
        }
    }

    /// The payload, begun if need be.
    #[inline]
    fn open(&mut self) -> (&mut Vec<u8>, &mut Before) {
        if self.payload.is_empty() {
            self.payload.push(self.kind);
        }
        (&mut self.payload, &mut self.before)
    }

    fn end(&mut self, frames: &mut Vec<u8>) {
        if !self.payload.is_empty() {
            put_frame(frames, &self.payload);
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.payload.clear();
        self.before = Before::default();
    }

    fn is_full(&self) -> bool {
        self.payload.len() >= PAYLOAD_BYTES
    }
}

/// Collects the records of a batch into frames. Its buffers are kept for the next batch.
#[derive(Debug)]
pub(crate) struct Encoder {
    series: Run,
    floats: Run,
    histograms: Run,
    exemplars: Run,
    metadata: Run,
    frames: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder {
            series: Run::new(KIND_SERIES),
            floats: Run::new(KIND_FLOATS),
            histograms: Run::new(KIND_HISTOGRAMS),
            exemplars: Run::new(KIND_EXEMPLARS),
            metadata: Run::new(KIND_METADATA),
            frames: Vec::new(),
        }
    }
}

impl Encoder {
    /// Writes down which labels `number` stands for.
    pub(crate) fn series<'a>(
        &mut self,
        number: u32,
        labels: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    ) {
        let (out, _) = self.series.open();
        put_varint(out, u64::from(number));
        put_labels(out, labels);
        if self.series.is_full() {
            self.series.end(&mut self.frames);
        }
    }

    /// Writes down a float sample.
    #[inline]
    pub(crate) fn float(&mut self, number: u32, t_ms: i64, start_ms: i64, value: f64) {
        let (out, before) = self.floats.open();
        match as_whole(value) {
            Some(whole) => {
                before.put(out, WHOLE, number, t_ms, start_ms);
                put_svarint(out, whole);
            }
            None => {
                before.put(out, 0, number, t_ms, start_ms);
                out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
        }
        if self.floats.is_full() {
            // Series before what refers to them.
            self.series.end(&mut self.frames);
            self.floats.end(&mut self.frames);
        }
    }

    /// Writes down a histogram sample.
    pub(crate) fn histogram(&mut self, number: u32, t_ms: i64, start_ms: i64, h: &Histogram) {
        let whole = is_whole(h);
        let hint = match h.reset_hint {
            ResetHint::Unknown => 0,
            ResetHint::Reset => 1,
            ResetHint::NotReset => 2,
            ResetHint::Gauge => 3,
        };
        let mut flags = hint << HINT_SHIFT;
        if whole {
            flags |= WHOLE;
        }
        if !h.custom_bounds.is_empty() {
            flags |= BOUNDS;
        }
        let (out, before) = self.histograms.open();
        before.put(out, flags, number, t_ms, start_ms);
        out.push(h.schema.cast_unsigned());
        put_float(out, h.zero_threshold);
        put_float(out, h.sum);
        put_count(out, whole, h.count);
        put_count(out, whole, h.zero_count);
        if flags & BOUNDS != 0 {
            put_varint(out, h.custom_bounds.len() as u64);
            for bound in h.custom_bounds.iter() {
                put_float(out, *bound);
            }
        }
        put_buckets(out, whole, &h.positive);
        put_buckets(out, whole, &h.negative);
        if self.histograms.is_full() {
            self.series.end(&mut self.frames);
            self.histograms.end(&mut self.frames);
        }
    }

    /// Writes down an exemplar.
    pub(crate) fn exemplar(&mut self, number: u32, exemplar: &Exemplar) {
        let (out, before) = self.exemplars.open();
        before.put_place(out, number, exemplar.t_ms);
        put_float(out, exemplar.value);
        let labels = exemplar.labels.iter();
        put_labels(out, labels.map(|label| (&*label.name, &*label.value)));
        if self.exemplars.is_full() {
            self.series.end(&mut self.frames);
            self.exemplars.end(&mut self.frames);
        }
    }

    /// Writes down a metric's metadata.
    pub(crate) fn metadata(&mut self, metric: &str, metadata: &Metadata) {
        let (out, _) = self.metadata.open();
        put_text(out, metric);
        out.push(metadata.kind.code());
        put_text(out, &metadata.unit);
        put_text(out, &metadata.help);
        if self.metadata.is_full() {
            self.metadata.end(&mut self.frames);
        }
    }

    /// All frames of the batch.
    pub(crate) fn finish(&mut self) -> &[u8] {
        let frames = &mut self.frames;
        self.metadata.end(frames);
        self.series.end(frames);
        self.floats.end(frames);
        self.histograms.end(frames);
        self.exemplars.end(frames);
        frames
    }

    /// Forgets the batch and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        for run in [
            &mut self.series,
            &mut self.floats,
            &mut self.histograms,
            &mut self.exemplars,
            &mut self.metadata,
        ] {
            run.clear();
        }
    }
}

fn put_float(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn put_count(out: &mut Vec<u8>, whole: bool, count: f64) {
    if whole {
        put_svarint(out, count as i64);
    } else {
        put_float(out, count);
    }
}

fn put_buckets(out: &mut Vec<u8>, whole: bool, buckets: &Buckets) {
    put_varint(out, buckets.len() as u64);
    let mut before = 0;
    for (index, count) in buckets.iter() {
        put_svarint(out, i64::from(index) - before);
        before = i64::from(index);
        put_count(out, whole, count);
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record<'a> {
    Series {
        number: u32,
        labels: Labels,
    },
    Float {
        number: u32,
        t_ms: i64,
        start_ms: i64,
        value: f64,
    },
    Histogram {
        number: u32,
        t_ms: i64,
        start_ms: i64,
        histogram: Arc<Histogram>,
    },
    Exemplar {
        number: u32,
        exemplar: Exemplar,
    },
    Metadata {
        metric: &'a str,
        metadata: Metadata,
    },
}

/// A payload whose records stop making sense `left` bytes before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) left: usize,
}

/// Calls `each` with every record of a payload.
pub(crate) fn decode<'a>(
    payload: &'a [u8],
    mut each: impl FnMut(Record<'a>),
) -> Result<(), Unreadable> {
    let mut input = Cursor::new(payload);
    let unreadable = |left| Unreadable { left };
    let kind = input.byte().ok_or(unreadable(0))?;
    let mut before = Before::default();
    while input.left() > 0 {
        let left = input.left();
        let record = match kind {
            KIND_FLOATS => get_float(&mut input, &mut before),
            KIND_HISTOGRAMS => get_histogram(&mut input, &mut before),
            KIND_SERIES => get_series(&mut input),
            KIND_EXEMPLARS => get_exemplar(&mut input, &mut before),
            KIND_METADATA => get_metadata(&mut input),
            _ => None,
        };
        each(record.ok_or(unreadable(left))?);
    }
    Ok(())
}

#[inline]
fn get_float<'a>(input: &mut Cursor<'a>, before: &mut Before) -> Option<Record<'a>> {
    let flags = input.byte()?;
    let number = before.get(input, flags)?;
    let value = get_count(input, flags & WHOLE != 0)?;
    Some(Record::Float {
        number,
        t_ms: before.t_ms,
        start_ms: before.start_ms,
        value,
    })
}

#[inline]
fn get_count(input: &mut Cursor<'_>, whole: bool) -> Option<f64> {
    if whole {
        input.svarint().map(|whole| whole as f64)
    } else {
        input.float()
    }
}

fn get_histogram<'a>(input: &mut Cursor<'a>, before: &mut Before) -> Option<Record<'a>> {
    let flags = input.byte()?;
    let number = before.get(input, flags)?;
    let whole = flags & WHOLE != 0;
    let mut histogram = Histogram {
        schema: input.byte()?.cast_signed(),
        reset_hint: match (flags >> HINT_SHIFT) & 3 {
            1 => ResetHint::Reset,
            2 => ResetHint::NotReset,
            3 => ResetHint::Gauge,
            _ => ResetHint::Unknown,
        },
        zero_threshold: input.float()?,
        sum: input.float()?,
        count: get_count(input, whole)?,
        zero_count: get_count(input, whole)?,
        ..Histogram::default()
    };
    if flags & BOUNDS != 0 {
        let bounds = input.count(8).filter(|bounds| *bounds <= BUCKETS_MAX)?;
        histogram.custom_bounds = (0..bounds).map(|_| input.float()).collect::<Option<_>>()?;
    }
    histogram.positive = get_buckets(input, whole)?;
    histogram.negative = get_buckets(input, whole)?;
    Some(Record::Histogram {
        number,
        t_ms: before.t_ms,
        start_ms: before.start_ms,
        histogram: Arc::new(histogram),
    })
}

fn get_buckets(input: &mut Cursor<'_>, whole: bool) -> Option<Buckets> {
    let count = input.count(2).filter(|count| *count <= BUCKETS_MAX)?;
    let mut buckets: Vec<(i32, f64)> = Vec::with_capacity(count);
    for _ in 0..count {
        let before = buckets.last().map_or(0, |(index, _)| i64::from(*index));
        let index = before.checked_add(input.svarint()?)?;
        if !buckets.is_empty() && index <= before {
            return None;
        }
        buckets.push((i32::try_from(index).ok()?, get_count(input, whole)?));
    }
    Some(Buckets::from_sorted(buckets))
}

fn get_series<'a>(input: &mut Cursor<'a>) -> Option<Record<'a>> {
    let number = u32::try_from(input.varint()?).ok()?;
    let labels = input.labels()?;
    Some(Record::Series { number, labels })
}

fn get_exemplar<'a>(input: &mut Cursor<'a>, before: &mut Before) -> Option<Record<'a>> {
    let number = before.get_place(input)?;
    let value = input.float()?;
    let labels = input.labels()?;
    let t_ms = before.t_ms;
    let exemplar = Exemplar {
        labels,
        value,
        t_ms,
    };
    Some(Record::Exemplar { number, exemplar })
}

fn get_metadata<'a>(input: &mut Cursor<'a>) -> Option<Record<'a>> {
    let metric = input.text()?;
    let metadata = Metadata {
        kind: MetricKind::from_code(input.byte()?)?,
        unit: input.text()?.into(),
        help: input.text()?.into(),
    };
    Some(Record::Metadata { metric, metadata })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::{Frames, Piece, header};
    use super::*;
    use crate::testing::histograms;

    fn records(encoder: &mut Encoder) -> usize {
        let mut segment = header().to_vec();
        segment.extend_from_slice(encoder.finish());
        let mut records = 0;
        for piece in Frames::new(&segment) {
            let Piece::Frame { payload, .. } = piece else {
                panic!("{piece:?}");
            };
            decode(payload, |_| records += 1).unwrap();
        }
        records
    }

    proptest! {
        #[test]
        fn samples_come_back(rows in prop::collection::vec(
            (any::<u32>(), any::<i64>(), 0i64..3, any::<u64>(), histograms()), 1..50)) {
            let mut encoder = Encoder::default();
            let mut expected = Vec::new();
            for (number, t_ms, start_ms, bits, _) in &rows {
                encoder.float(*number, *t_ms, *start_ms, f64::from_bits(*bits));
                expected.push((*number, *t_ms, *start_ms, *bits));
            }
            for (number, t_ms, start_ms, _, histogram) in &rows {
                encoder.histogram(*number, *t_ms, *start_ms, histogram);
            }
            let mut segment = header().to_vec();
            segment.extend_from_slice(encoder.finish());
            let (mut floats, mut histograms) = (Vec::new(), Vec::new());
            for piece in Frames::new(&segment) {
                let Piece::Frame { payload, .. } = piece else { panic!("{piece:?}") };
                decode(payload, |record| match record {
                    Record::Float { number, t_ms, start_ms, value } =>
                        floats.push((number, t_ms, start_ms, value.to_bits())),
                    Record::Histogram { number, t_ms, start_ms, histogram } =>
                        histograms.push((number, t_ms, start_ms, histogram)),
                    other => panic!("{other:?}"),
                }).unwrap();
            }
            prop_assert_eq!(floats, expected);
            let expected: Vec<_> = rows.into_iter().map(|(n, t, s, _, h)| (n, t, s, h)).collect();
            prop_assert_eq!(histograms, expected);
        }

        #[test]
        fn arbitrary_payloads_never_panic(
            kind in 0u8..8, bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut payload = vec![kind];
            payload.extend_from_slice(&bytes);
            let _ = decode(&payload, |_| {});
        }
    }

    #[test]
    fn a_large_batch_becomes_several_frames() {
        let mut encoder = Encoder::default();
        for number in 0..200_000u32 {
            encoder.series(number, [("a", "b")].into_iter());
            encoder.float(number, i64::from(number) * 1_000_000_007, 0, 0.5);
        }
        assert_eq!(records(&mut encoder), 400_000);
        encoder.clear();
        assert!(encoder.finish().is_empty());
    }
}
