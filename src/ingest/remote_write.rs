//! Remote write to series: Prometheus's own way of sending samples, 1.0 and 2.0.
//!
//! Policy:
//! - Series are stored under the labels they come with; nothing is promoted or renamed. Labels may
//!   come in any order. A label with an empty value is no label. A series without a name, with
//!   an empty label name or with a name twice is refused; its neighbours are not.
//! - What the store accepts is stored: samples behind the newest of their series too, within the
//!   out-of-order window. A request is never rolled back because of a part of it: what is good
//!   is stored, the answer counts what is not, by reason and with an example each.
//! - A sample that is there already with the same value is accepted, so a request can be sent
//!   again. Another value at the same time is refused.
//! - Bits are kept: stale markers end their series as the sender meant it.
//! - Native histograms are checked as Prometheus checks them: spans and buckets must agree, integer
//!   counts add up. Schemas 9 to 52 are merged down to 8.
//! - Exemplars are a courtesy: one that is refused is counted, but makes no request fail.
//! - A series pays from the budget of its service where it has the label `service_name`, else from
//!   that of its `job`, else from one that all others share. Over it new series are refused,
//!   known ones go on.
//! - A series with `service_name` and `service_version` says that this version runs, as OTLP does,
//!   when it brings a sample of the last five minutes that is not a stale marker. It does
//!   not count towards coverage: what sends it is a Prometheus, not the service.
//! - When the store dropped a series between look-up and append, the request is taken once more
//!   from the start, which the above makes harmless.

mod histogram;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashSet;
use slogate_series::{Exemplar, LabelsBuilder, METRIC_NAME, is_stale};
use slogate_tsdb::{
    AppendReport, Batch, ExemplarRow, FloatRow, HistogramRow, Metadata, MetricKind, Refusal,
    Refused, SeriesRef,
};
use slogate_wire::WireError;
use slogate_wire::proto::Varints;
use slogate_wire::remote_write::{self as wire, encode, v1, v2};

use super::Ingest;
use super::identity::cut;
use super::outcome::{IngestError, Reason, Rejections};

pub(super) use table::SeriesTable;
use table::{KEY_MAX_BYTES, Known};

/// The most samples, and the most exemplars, of one request: an empty one has two bytes on the
/// wire, but takes sixteen times that in memory.
const SAMPLES_MAX: usize = 1_000_000;

/// The most native histograms of one request.
const HISTOGRAMS_MAX: usize = 100_000;

/// The most symbols of one 2.0 request.
const SYMBOLS_MAX: usize = 1_000_000;

/// The most labels of an exemplar: OpenMetrics allows 128 characters for all of them.
const EXEMPLAR_LABELS_MAX: usize = 64;

/// A sample that is older says nothing about what runs now, in ms.
const SIGHTING_MAX_AGE_MS: i64 = 5 * 60_000;

/// Which message a remote-write request holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemoteWriteVersion {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

impl RemoteWriteVersion {
    /// Both.
    pub const ALL: [RemoteWriteVersion; 2] = [RemoteWriteVersion::V1, RemoteWriteVersion::V2];

    /// Its name in our own metrics.
    pub fn name(self) -> &'static str {
        match self {
            RemoteWriteVersion::V1 => "1.0",
            RemoteWriteVersion::V2 => "2.0",
        }
    }
}

/// What became of a remote-write request that could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Float samples stored.
    pub samples: u64,
    /// Native histograms stored.
    pub histograms: u64,
    /// Exemplars stored.
    pub exemplars: u64,
    /// Samples and histograms refused. They must not be sent again as they are.
    pub rejected: u64,
    /// Exemplars refused.
    pub rejected_exemplars: u64,
    /// For people: what was refused, where, and how to mend it. Empty where nothing was.
    pub message: String,
}

/// One version's totals since the start.
#[derive(Clone, Debug)]
pub struct RemoteWriteStats {
    /// Which one.
    pub version: RemoteWriteVersion,
    /// Float samples stored.
    pub samples: u64,
    /// Native histograms stored.
    pub histograms: u64,
    /// Exemplars stored.
    pub exemplars: u64,
    /// Samples and histograms refused, by reason; reasons that never came up are left out.
    pub rejected: Vec<(Reason, u64)>,
    /// Exemplars refused.
    pub rejected_exemplars: u64,
}

/// Running totals of one version.
#[derive(Debug, Default)]
pub(super) struct WriteCounters {
    samples: AtomicU64,
    histograms: AtomicU64,
    exemplars: AtomicU64,
    rejected: [AtomicU64; Reason::ALL.len()],
    rejected_exemplars: AtomicU64,
}

impl WriteCounters {
    fn record(&self, written: &Written, rejections: &Rejections) {
        self.samples.fetch_add(written.samples, Ordering::Relaxed);
        self.histograms
            .fetch_add(written.histograms, Ordering::Relaxed);
        self.exemplars
            .fetch_add(written.exemplars, Ordering::Relaxed);
        self.rejected_exemplars
            .fetch_add(written.rejected_exemplars, Ordering::Relaxed);
        for (reason, count) in rejections.counts() {
            if let Some(total) = self.rejected.get(reason as usize) {
                total.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    fn stats(&self, version: RemoteWriteVersion) -> RemoteWriteStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let rejected = Reason::ALL.into_iter().zip(self.rejected.iter().map(read));
        RemoteWriteStats {
            version,
            samples: read(&self.samples),
            histograms: read(&self.histograms),
            exemplars: read(&self.exemplars),
            rejected: rejected.filter(|(_, count)| *count > 0).collect(),
            rejected_exemplars: read(&self.rejected_exemplars),
        }
    }
}

impl Ingest {
    /// Takes a remote-write request, decompressed.
    ///
    /// # Errors
    /// Where nothing of it was taken; or where storing failed, and it should be sent again.
    pub fn remote_write(
        &self,
        version: RemoteWriteVersion,
        request: &[u8],
        now_ms: i64,
    ) -> Result<Written, IngestError> {
        let mut taken = self.take_written(version, request, now_ms)?;
        if !taken.report.unknown.is_empty() {
            self.written.forget_all();
            taken = self.take_written(version, request, now_ms)?;
        }
        let (written, rejections) = taken.finish();
        self.write_counters[version as usize].record(&written, &rejections);
        Ok(written)
    }

    /// Totals of remote write, for our own metrics.
    pub fn remote_write_stats(&self) -> Vec<RemoteWriteStats> {
        let versions = RemoteWriteVersion::ALL.into_iter();
        versions
            .zip(&self.write_counters)
            .map(|(version, counters)| counters.stats(version))
            .collect()
    }

    fn take_written(
        &self,
        version: RemoteWriteVersion,
        request: &[u8],
        now_ms: i64,
    ) -> Result<Taken<'_>, IngestError> {
        let mut taken = Taken {
            ingest: self,
            now_ms,
            batch: Batch::default(),
            rejections: Rejections::default(),
            bad_exemplars: 0,
            report: AppendReport::default(),
            key: Vec::new(),
        };
        match version {
            RemoteWriteVersion::V1 => taken.read_v1(request)?,
            RemoteWriteVersion::V2 => taken.read_v2(request)?,
        }
        if !taken.batch.is_empty() {
            taken.report = self
                .store
                .append(&taken.batch, now_ms)
                .map_err(|error| IngestError::Storage(error.to_string()))?;
        }
        Ok(taken)
    }
}

/// What a request came down to.
struct Taken<'i> {
    ingest: &'i Ingest,
    now_ms: i64,
    batch: Batch,
    rejections: Rejections,
    /// Exemplars that could not be read.
    bad_exemplars: u64,
    report: AppendReport,
    /// Scratch: the key of the series being read.
    key: Vec<u8>,
}

impl Taken<'_> {
    fn read_v1(&mut self, request: &[u8]) -> Result<(), IngestError> {
        let request = v1::WriteRequest::new(request);
        for series in request.timeseries() {
            let series = series?;
            let mut scratch = std::mem::take(&mut self.key);
            let found = self.find(series.raw_labels(&mut scratch)?);
            self.key = scratch;
            let samples = self.samples(&found, series.samples(), series.histograms())?;
            match found {
                Ok(known) => {
                    for exemplar in series.exemplars() {
                        let exemplar = exemplar?;
                        let pairs = exemplar.labels().map(|label| {
                            let label = label?;
                            Ok(Some((label.name, label.value)))
                        });
                        self.exemplar(known.series, exemplar.value, exemplar.t_ms, pairs)?;
                    }
                }
                // Such a series may hold exemplars only, as Prometheus sends them.
                Err(reason) if samples > 0 => self.reject(reason, samples, || {
                    let labels = series.labels().map_while(Result::ok);
                    place(labels.map(|label| (label.name, label.value)))
                }),
                Err(_) => {}
            }
        }
        // Last: a request that can't be read to its end must not leave a trace.
        let metadata: Vec<_> = request.metadata().collect::<Result<_, _>>()?;
        for one in metadata {
            self.metadata(one.name, one.kind, one.help, one.unit);
        }
        Ok(())
    }

    fn read_v2(&mut self, request: &[u8]) -> Result<(), IngestError> {
        let request = v2::Request::new(request);
        let mut symbols: Vec<&str> = Vec::new();
        for symbol in request.symbols() {
            if symbols.len() == SYMBOLS_MAX {
                return Err(too_many(SYMBOLS_MAX, "symbols"));
            }
            symbols.push(symbol?);
        }
        let mut described = HashSet::new();
        for series in request.timeseries() {
            let series = series?;
            let mut key = std::mem::take(&mut self.key);
            let name = resolve(&symbols, &series, &mut key)?;
            let mut found = name.and_then(|_| self.find(&key));
            self.key = key;
            let mut samples = self.samples(&found, series.samples(), series.histograms())?;
            if samples == 0 && series.exemplars().next().is_none() {
                (samples, found) = (1, Err(Reason::NoSamples));
            }
            match found {
                Ok(known) => {
                    for exemplar in series.exemplars() {
                        let exemplar = exemplar?;
                        let mut refs = exemplar.labels_refs();
                        let pairs = std::iter::from_fn(|| pair(&symbols, &mut refs));
                        self.exemplar(known.series, exemplar.value, exemplar.t_ms, pairs)?;
                    }
                    if let Ok(name) = name
                        && series.metadata != v2::Metadata::default()
                    {
                        described.insert((name, series.metadata));
                    }
                }
                Err(reason) => self.reject(reason, samples, || {
                    let refs: Vec<_> = series.labels_refs().map_while(Result::ok).collect();
                    let text = |at: &u64| symbol(&symbols, *at).unwrap_or("?");
                    place(
                        refs.chunks_exact(2)
                            .map(|pair| (text(&pair[0]), text(&pair[1]))),
                    )
                }),
            }
        }
        for (name, metadata) in described {
            let text = |at: u32| symbol(&symbols, u64::from(at)).unwrap_or_default();
            let family = family(name, metadata.kind);
            let (help, unit) = (text(metadata.help_ref), text(metadata.unit_ref));
            self.metadata(family, metadata.kind, help, unit);
        }
        Ok(())
    }

    /// The series behind a key, see [`table`].
    #[inline]
    fn find(&self, key: &[u8]) -> Result<Known, Reason> {
        let ingest = self.ingest;
        match ingest.written.find(key) {
            Some(known) => Ok(known),
            None if key.len() > KEY_MAX_BYTES => Err(Reason::LabelSet),
            None => ingest.written.add(key, ingest, self.now_ms),
        }
    }

    /// Puts the samples of a series into the batch, or only counts them where it was not found.
    #[inline]
    fn samples<'a>(
        &mut self,
        found: &Result<Known, Reason>,
        samples: impl Iterator<Item = Result<wire::Sample, WireError>>,
        histograms: impl Iterator<Item = Result<wire::Histogram<'a>, WireError>>,
    ) -> Result<u64, IngestError> {
        let mut count = 0;
        let mut newest_ms = i64::MIN;
        for sample in samples {
            let sample = sample?;
            count += 1;
            let Ok(known) = found else { continue };
            if self.batch.floats.len() == SAMPLES_MAX {
                return Err(too_many(SAMPLES_MAX, "samples"));
            }
            if !is_stale(sample.value) {
                newest_ms = newest_ms.max(sample.t_ms);
            }
            self.batch.floats.push(FloatRow {
                series: known.series,
                t_ms: sample.t_ms,
                start_ms: sample.start_ms,
                value: sample.value,
            });
        }
        for sample in histograms {
            let sample = sample?;
            count += 1;
            let Ok(known) = found else { continue };
            if self.batch.histograms.len() == HISTOGRAMS_MAX {
                return Err(too_many(HISTOGRAMS_MAX, "histograms"));
            }
            let Some(histogram) = histogram::read(&sample)? else {
                self.reject(Reason::Histogram, 1, || format!("at {} ms", sample.t_ms));
                continue;
            };
            if !is_stale(histogram.sum) {
                newest_ms = newest_ms.max(sample.t_ms);
            }
            self.batch.histograms.push(HistogramRow {
                series: known.series,
                t_ms: sample.t_ms,
                start_ms: sample.start_ms,
                histogram: Arc::new(histogram),
            });
        }
        if let Ok(Known {
            identity: Some(identity),
            ..
        }) = found
            && newest_ms >= self.now_ms - SIGHTING_MAX_AGE_MS
        {
            identity.touch(self.now_ms);
        }
        Ok(count)
    }

    /// Puts an exemplar into the batch; `None` among its labels is one that can't be read.
    fn exemplar<'l>(
        &mut self,
        series: SeriesRef,
        value: f64,
        t_ms: i64,
        pairs: impl Iterator<Item = Result<Option<(&'l str, &'l str)>, WireError>>,
    ) -> Result<(), IngestError> {
        if self.batch.exemplars.len() == SAMPLES_MAX {
            return Err(too_many(SAMPLES_MAX, "exemplars"));
        }
        let mut labels = LabelsBuilder::default();
        for (at, pair) in pairs.enumerate() {
            match pair? {
                Some((name, value)) if at < EXEMPLAR_LABELS_MAX => {
                    labels.set(name, value);
                }
                _ => {
                    self.bad_exemplars += 1;
                    return Ok(());
                }
            }
        }
        let labels = labels.build();
        self.batch.exemplars.push(ExemplarRow {
            series,
            exemplar: Exemplar {
                labels,
                value,
                t_ms,
            },
        });
        Ok(())
    }

    #[cold]
    fn reject(&mut self, reason: Reason, samples: u64, place: impl FnOnce() -> String) {
        self.rejections.add(reason, samples, place);
    }

    fn metadata(&self, name: &str, kind: i32, help: &str, unit: &str) {
        if name.is_empty() {
            return;
        }
        let metadata = Metadata {
            kind: match kind {
                1 => MetricKind::Counter,
                2 => MetricKind::Gauge,
                3 => MetricKind::Histogram,
                4 => MetricKind::GaugeHistogram,
                5 => MetricKind::Summary,
                6 => MetricKind::Info,
                7 => MetricKind::StateSet,
                _ => MetricKind::Unknown,
            },
            unit: cut(unit).into(),
            help: cut(help).into(),
        };
        self.ingest.store.set_metadata(name, metadata);
    }

    /// What to answer, once everything is appended.
    fn finish(mut self) -> (Written, Rejections) {
        let report = self.report;
        let refused = report.refused.without(&report.refused_exemplars);
        for (reason, refusal, rows) in refusals(&refused) {
            let example = || {
                let mut examples = report.examples.iter();
                let example = examples.find(|row| row.reason == refusal);
                example.map_or_else(String::new, ToString::to_string)
            };
            self.rejections.add(reason, rows, example);
        }
        let rejected = self.rejections.total();
        let kept = report.accepted_histograms + report.accepted_exemplars;
        let written = Written {
            samples: report.accepted - kept,
            histograms: report.accepted_histograms,
            exemplars: report.accepted_exemplars,
            rejected,
            rejected_exemplars: report.refused_exemplars.total() + self.bad_exemplars,
            message: self.rejections.outcome(rejected, "samples").message,
        };
        (written, self.rejections)
    }
}

/// The store's refusals in our words.
fn refusals(refused: &Refused) -> [(Reason, Refusal, u64); 5] {
    [
        (Reason::TooOld, Refusal::TooOld, refused.too_old),
        (Reason::TooNew, Refusal::TooNew, refused.too_new),
        (Reason::Duplicate, Refusal::Duplicate, refused.duplicate),
        (
            Reason::SeriesGone,
            Refusal::UnknownSeries,
            refused.unknown_series,
        ),
        (Reason::Histogram, Refusal::Malformed, refused.malformed),
    ]
}

#[cold]
fn too_many(max: usize, what: &'static str) -> IngestError {
    IngestError::TooMany { max, what }
}

#[inline]
fn symbol<'s>(symbols: &[&'s str], at: u64) -> Option<&'s str> {
    let at = usize::try_from(at).ok()?;
    symbols.get(at).copied()
}

/// Writes a series' labels into `key` in the form of 1.0, and returns its name.
#[inline]
fn resolve<'s>(
    symbols: &[&'s str],
    series: &v2::TimeSeries<'_>,
    key: &mut Vec<u8>,
) -> Result<Result<&'s str, Reason>, WireError> {
    key.clear();
    let mut metric = "";
    let mut refs = series.labels_refs();
    while let Some(pair) = pair(symbols, &mut refs) {
        let Some((name, value)) = pair? else {
            // What is left is not read, as with the other reasons to refuse a series.
            return Ok(Err(Reason::Symbols));
        };
        if key.len() > KEY_MAX_BYTES {
            return Ok(Err(Reason::LabelSet));
        }
        if name == METRIC_NAME {
            metric = value;
        }
        encode::label(key, name, value);
    }
    Ok(Ok(metric))
}

/// The next label of a list of references; `None` inside where it is no label.
#[inline]
fn pair<'s>(
    symbols: &[&'s str],
    refs: &mut Varints<'_>,
) -> Option<Result<Option<(&'s str, &'s str)>, WireError>> {
    let name = match refs.next()? {
        Ok(at) => symbol(symbols, at),
        Err(error) => return Some(Err(error)),
    };
    let value = match refs.next() {
        Some(Ok(at)) => symbol(symbols, at),
        Some(Err(error)) => return Some(Err(error)),
        None => None,
    };
    Some(Ok(name.zip(value)))
}

/// The metric family of a series: 2.0 sends metadata with each series, 1.0 and OTLP by family.
fn family(name: &str, kind: i32) -> &str {
    let suffixes: &[&str] = match kind {
        3 | 4 => &["_bucket", "_sum", "_count"],
        5 => &["_sum", "_count"],
        _ => &[],
    };
    let mut stripped = suffixes.iter().filter_map(|end| name.strip_suffix(end));
    stripped.next().unwrap_or(name)
}

/// A series in words, not too many of them.
fn place<'l>(labels: impl Iterator<Item = (&'l str, &'l str)>) -> String {
    let mut text = String::new();
    for (name, value) in labels.take(16) {
        let separator = if text.is_empty() { "series {" } else { ", " };
        text.push_str(&format!("{separator}{}={:?}", cut(name), cut(value)));
    }
    match text.is_empty() {
        true => "series {}".to_owned(),
        false => format!("{}}}", cut(&text)),
    }
}
