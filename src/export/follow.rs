//! Which samples of the store are new, and requests with them.
//!
//! For each series that was read out there is a cursor, the time of its newest sample sent. A round
//! looks at the last half minute (once a minute at the last ten) and takes what lies
//! beyond the cursors. Cursors older than that are forgotten: nothing that old is looked at.
//!
//! At the start a series' cursor is its newest sample up to where the queue ends: those were
//! queued before, those behind it were not.

use std::hash::{BuildHasher, Hasher};
use std::ops::ControlFlow;

use hashbrown::HashMap;
use slogate_series::{Labels, Matcher, Projection, Sample, Value};
use slogate_tsdb::{Read, Store};
use slogate_wire::remote_write::encode;

use super::{REQUEST_SAMPLES, Request};

/// How late a sample may be to be found at once, in ms.
const LATE_MS: i64 = 30_000;

/// How late a sample may be to be found at all, in ms.
const VERY_LATE_MS: i64 = 600_000;

/// How often the very late ones are looked for, in ms.
const LONG_LOOK_EVERY_MS: i64 = 60_000;

/// How far ahead of the clock samples are looked for: as far as the store takes them, in ms.
const AHEAD_MS: i64 = 600_000;

/// The most time that is read in one go when there is much to catch up with, in ms.
const SLICE_MS: i64 = 60_000;

/// Where each series' export stands.
#[derive(Debug)]
pub(super) struct Following {
    hasher: foldhash::quality::RandomState,
    /// The newest sample's time by the hash of the series' labels.
    cursors: HashMap<u64, i64>,
    /// Everything up to here was looked at.
    through_ms: i64,
    long_look_ms: i64,
}

/// A range of time to look at, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    start_ms: i64,
    end_ms: i64,
    /// What is looked at when this slice was read.
    pub(super) through_ms: i64,
}

/// What a slice brought.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) requests: Vec<Request>,
    cursors: Vec<(u64, i64)>,
}

impl Following {
    /// Goes on from `from_ms`: what is up to there is taken to be sent.
    pub(super) fn from(store: &Store, matchers: &[Matcher], from_ms: i64) -> Following {
        let mut following = Following {
            hasher: foldhash::quality::RandomState::default(),
            cursors: HashMap::new(),
            through_ms: from_ms,
            long_look_ms: from_ms,
        };
        let mut cursors = HashMap::new();
        each(
            store,
            matchers,
            from_ms - VERY_LATE_MS,
            from_ms,
            |labels, samples| {
                if let Some(last) = samples.last() {
                    cursors.insert(following.hash(labels), last.t_ms);
                }
            },
        );
        following.cursors = cursors;
        following
    }

    /// What to look at now, in order.
    pub(super) fn slices(&self, now_ms: i64) -> Vec<Slice> {
        let is_long = now_ms - self.long_look_ms >= LONG_LOOK_EVERY_MS;
        let back_ms = if is_long { VERY_LATE_MS } else { LATE_MS };
        let mut start_ms = self.through_ms - back_ms + 1;
        let mut slices = Vec::new();
        // Behind on more than a slice: in pieces.
        let mut end_ms = self.through_ms + SLICE_MS;
        while end_ms < now_ms {
            slices.push(Slice {
                start_ms,
                end_ms,
                through_ms: end_ms,
            });
            start_ms = end_ms + 1;
            end_ms += SLICE_MS;
        }
        slices.push(Slice {
            start_ms,
            end_ms: now_ms.saturating_add(AHEAD_MS),
            through_ms: now_ms,
        });
        slices
    }

    /// Reads what is new in a slice.
    pub(super) fn read(
        &self,
        store: &Store,
        matchers: &[Matcher],
        extra: &[(String, String)],
        slice: &Slice,
    ) -> News {
        let mut news = News::default();
        let mut packing = Packing::default();
        each(
            store,
            matchers,
            slice.start_ms,
            slice.end_ms,
            |labels, samples| {
                let hash = self.hash(labels);
                let cursor = self.cursors.get(&hash).copied().unwrap_or(i64::MIN);
                let known = samples.partition_point(|sample| sample.t_ms <= cursor);
                let fresh = samples.get(known..).unwrap_or_default();
                let Some(newest) = fresh.last() else {
                    return;
                };
                news.cursors.push((hash, newest.t_ms));
                packing.series(labels, extra, fresh, &mut news.requests);
            },
        );
        packing.finish(&mut news.requests);
        news
    }

    /// Notes that what a slice brought is queued.
    pub(super) fn commit(&mut self, slice: &Slice, news: News) {
        self.cursors.extend(news.cursors);
        if slice.start_ms <= self.through_ms - VERY_LATE_MS + 1 {
            self.long_look_ms = slice.through_ms;
            let floor_ms = slice.through_ms - 2 * VERY_LATE_MS;
            self.cursors.retain(|_, cursor| *cursor >= floor_ms);
        }
        self.through_ms = slice.through_ms;
    }

    fn hash(&self, labels: &Labels) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for label in labels.iter() {
            hasher.write(label.name.as_bytes());
            hasher.write_u8(0xff);
            hasher.write(label.value.as_bytes());
            hasher.write_u8(0xff);
        }
        hasher.finish()
    }
}

/// Fills requests.
#[derive(Debug, Default)]
struct Packing {
    body: Vec<u8>,
    samples: u32,
    oldest_ms: i64,
}

impl Packing {
    fn series(
        &mut self,
        labels: &Labels,
        extra: &[(String, String)],
        samples: &[Sample],
        requests: &mut Vec<Request>,
    ) {
        let mut builder = None;
        for (name, value) in extra {
            // As with Prometheus's external labels, the series' own win.
            if labels.get(name).is_none() {
                let builder = builder.get_or_insert_with(|| labels.to_builder());
                builder.set(name.as_str(), value.as_str());
            }
        }
        let labels = builder.map_or_else(|| labels.clone(), slogate_series::LabelsBuilder::build);
        let mut rest = samples;
        while !rest.is_empty() {
            let room = REQUEST_SAMPLES.saturating_sub(self.samples) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            rest = later;
            if let Some(first) = now.first() {
                self.oldest_ms = match self.samples {
                    0 => first.t_ms,
                    _ => self.oldest_ms.min(first.t_ms),
                };
                self.samples += now.len() as u32;
                write_series(&mut self.body, &labels, now);
            }
            if self.samples >= REQUEST_SAMPLES {
                self.finish(requests);
            }
        }
    }

    fn finish(&mut self, requests: &mut Vec<Request>) {
        if self.samples == 0 {
            return;
        }
        // The encoder fails on bodies over 4 GiB only.
        if let Ok(body) = snap::raw::Encoder::new().compress_vec(&self.body) {
            requests.push(Request {
                samples: self.samples,
                oldest_ms: self.oldest_ms,
                body,
            });
        }
        self.body.clear();
        self.samples = 0;
    }
}

fn write_series(out: &mut Vec<u8>, labels: &Labels, samples: &[Sample]) {
    let pairs = labels.iter().map(|label| (&*label.name, &*label.value));
    let floats = samples.iter().filter_map(|sample| match &sample.value {
        Value::Float(value) => Some((sample.t_ms, *value)),
        Value::Histogram(_) => None,
    });
    let histograms = samples.iter().filter_map(|sample| match &sample.value {
        Value::Histogram(histogram) => Some((sample.t_ms, &**histogram)),
        Value::Float(_) => None,
    });
    encode::series(out, pairs, floats, histograms);
}

/// Calls `take` with each series' samples in the closed range, in no order.
fn each(
    store: &Store,
    matchers: &[Matcher],
    start_ms: i64,
    end_ms: i64,
    mut take: impl FnMut(&Labels, &[Sample]),
) {
    let read = Read {
        matchers,
        start_ms,
        end_ms,
        projection: Projection::All,
        sorted: false,
    };
    let mut samples: Vec<Sample> = Vec::new();
    store.for_each(&read, &mut samples, |labels, samples| {
        take(labels, samples);
        ControlFlow::Continue(())
    });
}
