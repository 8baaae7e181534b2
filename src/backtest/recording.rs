//! A rollout's files as series and events.
//!
//! - **Broken telemetry is an error of the rollout**, with file, line and column: half of a
//!   recording must not be judged as if it were the whole.
//! - **Several files are one recording.** A series may go on in another file. Where two samples
//!   of a series have the same time, the later one read counts, and that is said.
//! - **A file without a time on its samples is no recording**; there is nothing to replay.
//! - **`_created` becomes the series' start**, so that a first sample counts from there.
//! - **Whose side a file is on may be its name**: where the files are called after both sides
//!   (`canary.om`, `baseline.om`), their series get the label `arm`.
//! - Names that PromQL doesn't know are written with underscores.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use slogate_series::{Labels, Sample, Series, Value};
use slogate_wire::openmetrics::{Kind, Line, Reader, TextError, timestamp_ms};

use super::events::{self, Received};
use super::folder::{self, FileKind};
use super::joined;
use super::otlp::Otlp;
use super::words;

/// The most series of a rollout.
const SERIES_MAX: usize = 200_000;

/// The most samples of a rollout.
const SAMPLES_MAX: usize = 100_000_000;

/// A label that is made of the names of files.
const ARM: &str = "arm";

/// What a rollout's files hold.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    /// Sorted by labels; each with samples.
    pub(crate) series: Vec<Series>,
    /// What metrics are, by the names of their families.
    pub(crate) kinds: HashMap<String, Kind>,
    /// Deploy events in the order of the files.
    pub(crate) events: Vec<Received>,
    /// What was assumed or left out.
    pub(crate) notes: Vec<String>,
}

/// Why a recording can't be replayed, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordingError {
    /// A text is wrong.
    #[error("{}:{error}", file.display())]
    Text {
        /// The file.
        file: PathBuf,
        /// Place and mistake.
        error: TextError,
    },
    /// Anything else about a file.
    #[error("{}: {what}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong and how to mend it.
        what: String,
    },
}

impl Recording {
    /// Reads the files.
    ///
    /// # Errors
    /// The first mistake.
    pub(crate) fn read(files: &[PathBuf]) -> Result<Recording, RecordingError> {
        let mut gathering = Gathering::default();
        let sides = sides_of(files);
        for file in files {
            gathering.file(file, sides.get(file).copied())?;
        }
        if !sides.is_empty() {
            gathering.recording.notes.push(
                "the names of the files say which side their series are of: label arm".to_owned(),
            );
        }
        gathering.finish()
    }

    /// When the first and the last sample were taken.
    pub(crate) fn range_ms(&self) -> Option<(i64, i64)> {
        let firsts = self.series.iter().filter_map(|one| one.samples.first());
        let lasts = self.series.iter().filter_map(|one| one.samples.last());
        let first = firsts.map(|sample| sample.t_ms).min()?;
        Some((first, lasts.map(|sample| sample.t_ms).max()?))
    }

    /// What the metric of this name is, as its family says.
    pub(crate) fn kind(&self, metric: &str) -> Option<Kind> {
        let suffixes = ["_total", "_bucket", "_count", "_sum"];
        let family = suffixes.iter().find_map(|end| metric.strip_suffix(end));
        let known = self.kinds.get(metric);
        known.or_else(|| self.kinds.get(family?)).copied()
    }
}

/// Which files are called after a side, where both sides have one.
fn sides_of(files: &[PathBuf]) -> HashMap<&PathBuf, &'static str> {
    let side = |file: &PathBuf| {
        let name = file.file_name()?.to_string_lossy().to_ascii_lowercase();
        let mut parts = name.split(['.', '-', '_']);
        let is_text = matches!(folder::kind_of(file), FileKind::Text | FileKind::MaybeText);
        is_text.then_some(())?;
        parts.find_map(|part| match words::side_of(part)? {
            words::Side::Candidate => Some("candidate"),
            words::Side::Baseline => Some("baseline"),
        })
    };
    let found: HashMap<&PathBuf, &'static str> = files
        .iter()
        .filter_map(|file| Some((file, side(file)?)))
        .collect();
    let has = |side| found.values().any(|one| *one == side);
    match has("candidate") && has("baseline") {
        true => found,
        false => HashMap::new(),
    }
}

/// The files so far.
#[derive(Default)]
struct Gathering {
    recording: Recording,
    places: HashMap<Labels, usize>,
    samples: usize,
    otlp: Otlp,
    without_end: Vec<String>,
}

impl Gathering {
    fn file(&mut self, file: &Path, side: Option<&'static str>) -> Result<(), RecordingError> {
        let failed = |what: String| RecordingError::File {
            file: file.to_owned(),
            what,
        };
        let kind = folder::kind_of(file);
        match kind {
            FileKind::Labels | FileKind::About => return Ok(()),
            FileKind::Other => {
                let note = format!("not read: {}", short(file));
                self.recording.notes.push(note);
                return Ok(());
            }
            _ => {}
        }
        let bytes = folder::read(file).map_err(|error| failed(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.as_bytes().get(..error.utf8_error().valid_up_to());
            let lines = good.unwrap_or_default().iter().filter(|b| **b == b'\n');
            failed(format!("line {}: expected UTF-8 text", lines.count() + 1))
        })?;
        match kind {
            FileKind::Json => self.json(file, &text),
            FileKind::MaybeText if !is_text(&text) => {
                let note = format!("not read, since it is no metrics text: {}", short(file));
                self.recording.notes.push(note);
                Ok(())
            }
            _ => self.text(file, &text, side),
        }
    }

    fn text(
        &mut self,
        file: &Path,
        text: &str,
        side: Option<&'static str>,
    ) -> Result<(), RecordingError> {
        let wrong = |error| RecordingError::Text {
            file: file.to_owned(),
            error,
        };
        let failed = |what: String| RecordingError::File {
            file: file.to_owned(),
            what,
        };
        let mut known: HashMap<&str, usize> = HashMap::new();
        let mut reader = Reader::new(text);
        for line in reader.by_ref() {
            let sample = match line.map_err(wrong)? {
                Line::Sample(sample) => sample,
                Line::Type { family, kind } => {
                    self.recording.kinds.insert(plain_name(family), kind);
                    continue;
                }
                Line::Unit { .. } | Line::End => continue,
            };
            let Some(t_ms) = sample.timestamp.and_then(timestamp_ms) else {
                return Err(failed(format!(
                    "line {}: expected a timestamp after the value: only samples with a time \
                     can be replayed",
                    sample.line
                )));
            };
            let place = match known.get(sample.series) {
                Some(place) => *place,
                None => {
                    let read = sample.labels().map_err(wrong)?;
                    let labels = Labels::from_pairs(read.iter().map(|(name, value)| {
                        let value = match name == "__name__" {
                            true => plain_name(value),
                            false => value.clone().into_owned(),
                        };
                        (plain_name(name), value)
                    }));
                    let place = self.place(labels, side).map_err(failed)?;
                    known.insert(sample.series, place);
                    place
                }
            };
            self.put(place, t_ms, sample.value).map_err(failed)?;
        }
        if !reader.is_ended() && text.contains("# TYPE") {
            self.without_end.push(short(file));
        }
        Ok(())
    }

    fn place(&mut self, labels: Labels, side: Option<&'static str>) -> Result<usize, String> {
        let labels = match side.filter(|_| labels.get(ARM).is_none()) {
            Some(side) => with(&labels, &[(ARM, side)]),
            None => labels,
        };
        if let Some(at) = self.places.get(&labels) {
            return Ok(*at);
        }
        if self.places.len() >= SERIES_MAX {
            return Err(format!(
                "more than {SERIES_MAX} series: drop labels of many values"
            ));
        }
        let at = self.recording.series.len();
        self.recording.series.push(Series {
            labels: labels.clone(),
            samples: Vec::new(),
        });
        self.places.insert(labels, at);
        Ok(at)
    }

    fn put(&mut self, place: usize, t_ms: i64, value: f64) -> Result<(), String> {
        self.samples += 1;
        if self.samples > SAMPLES_MAX {
            return Err(format!(
                "more than {SAMPLES_MAX} samples: split the recording"
            ));
        }
        if let Some(series) = self.recording.series.get_mut(place) {
            series.samples.push(Sample {
                t_ms,
                start_ms: 0,
                value: Value::Float(value),
            });
        }
        Ok(())
    }

    fn json(&mut self, file: &Path, text: &str) -> Result<(), RecordingError> {
        let failed = |line: usize, what: String| RecordingError::File {
            file: file.to_owned(),
            what: format!("line {line}: {what}"),
        };
        let first = text.lines().find(|line| !line.trim().is_empty());
        let is_lines = first.is_some_and(|line| serde_json::from_str::<Json>(line).is_ok());
        let documents: Vec<(usize, &str)> = match is_lines {
            true => (1..).zip(text.lines()).collect(),
            false => vec![(1, text)],
        };
        for (line, document) in documents {
            if document.trim().is_empty() {
                continue;
            }
            let value: Json = serde_json::from_str(document).map_err(|error| {
                let at = line + error.line() - 1;
                failed(
                    at,
                    format!("column {}: expected JSON: {error}", error.column()),
                )
            })?;
            let values = match value {
                Json::Array(values) => values,
                value => vec![value],
            };
            for value in values {
                if Otlp::is_it(&value) {
                    self.otlp.take(value).map_err(|what| failed(line, what))?;
                    continue;
                }
                let place = format!("{}:{line}", short(file));
                match events::is_it(&value) {
                    true => self.recording.events.push(Received { value, place }),
                    false => {
                        let what = format!("{place} is neither OTLP nor a deploy event: not read");
                        self.recording.notes.push(what);
                        // One is enough: such a file is about something else.
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Recording, RecordingError> {
        let mut recording = self.recording;
        let mut twice = 0usize;
        for series in &mut recording.series {
            let is_sorted = series.samples.is_sorted_by(|a, b| a.t_ms < b.t_ms);
            if !is_sorted {
                twice += put_in_order(&mut series.samples);
            }
        }
        if twice > 0 {
            recording.notes.push(format!(
                "{twice} samples have the time of another one of their series: the last one counts"
            ));
        }
        apply_created(&mut recording);
        if !self.otlp.is_empty() {
            let taken = self.otlp.into_series();
            let (series, kinds, notes) = taken.map_err(|what| RecordingError::File {
                file: PathBuf::from("OTLP"),
                what,
            })?;
            for (name, kind) in kinds {
                recording.kinds.insert(name, kind);
            }
            recording.series.extend(series);
            recording.notes.extend(notes);
        }
        recording.series.retain(|one| !one.samples.is_empty());
        let joined = joined::join(&mut recording.series);
        recording.notes.extend(joined);
        recording.series.sort_by(|a, b| a.labels.cmp(&b.labels));
        self.without_end.sort();
        if let Some(first) = self.without_end.first() {
            let more = match self.without_end.len() {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            recording.notes.push(format!(
                "{first}{more}: no # EOF at the end; taken as Prometheus text"
            ));
        }
        Ok(recording)
    }
}

/// Sorts by time and keeps the last of those with the same time; says how many went.
fn put_in_order(samples: &mut Vec<Sample>) -> usize {
    let before = samples.len();
    samples.sort_by_key(|sample| sample.t_ms);
    samples.dedup_by(|later, kept| {
        let is_same = later.t_ms == kept.t_ms;
        if is_same {
            std::mem::swap(later, kept);
        }
        is_same
    });
    before - samples.len()
}

/// Takes the `_created` series out and gives their times to the series they speak of.
fn apply_created(recording: &mut Recording) {
    let mut created: HashMap<Labels, Vec<Sample>> = HashMap::new();
    let kinds = std::mem::take(&mut recording.kinds);
    recording.series.retain_mut(|one| {
        let name = one.labels.metric_name().unwrap_or_default();
        let Some(family) = name.strip_suffix("_created") else {
            return true;
        };
        if kinds.get(family).is_none_or(|kind| *kind == Kind::Gauge) {
            return true;
        }
        let labels = with(&one.labels, &[("__name__", family)]);
        created.insert(labels, std::mem::take(&mut one.samples));
        false
    });
    recording.kinds = kinds;
    if created.is_empty() {
        return;
    }
    for one in &mut recording.series {
        let name = one.labels.metric_name().unwrap_or_default();
        let ends = ["_total", "_bucket", "_count", "_sum"];
        let family = ends.iter().find_map(|end| name.strip_suffix(end));
        let labels = with(
            &one.labels,
            &[("__name__", family.unwrap_or(name)), ("le", "")],
        );
        let Some(starts) = created.get(&labels) else {
            continue;
        };
        for sample in &mut one.samples {
            let before = starts.partition_point(|start| start.t_ms <= sample.t_ms);
            let start = starts.get(before.saturating_sub(1));
            if let Some(Value::Float(seconds)) = start.map(|start| &start.value) {
                sample.start_ms = timestamp_ms(*seconds).unwrap_or(0);
            }
        }
    }
}

/// `labels` with other values; an empty one takes the label away.
pub(super) fn with(labels: &Labels, others: &[(&str, &str)]) -> Labels {
    let mut builder = labels.to_builder();
    for (name, value) in others {
        builder.set(*name, *value);
    }
    builder.build()
}

/// A name as PromQL knows it.
fn plain_name(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut plain: String = name
        .chars()
        .map(|c| if is_plain(c) { c } else { '_' })
        .collect();
    if plain.starts_with(|c: char| c.is_ascii_digit()) {
        plain.insert(0, '_');
    }
    plain
}

/// Whether the first line that is no comment is a sample.
fn is_text(text: &str) -> bool {
    let mut lines = Reader::new(text).filter(|line| !matches!(line, Ok(Line::Unit { .. })));
    matches!(
        lines.next(),
        Some(Ok(Line::Sample(_) | Line::Type { .. } | Line::End))
    )
}

fn short(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Recording, RecordingError> {
        let temp = tempfile::tempdir().unwrap();
        let paths = files.iter().map(|(name, text)| {
            let path = temp.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        });
        let paths: Vec<PathBuf> = paths.collect();
        Recording::read(&paths)
    }

    #[test]
    fn files_go_on_where_others_end() {
        let recording = read(&[
            ("a.om", "# TYPE x counter\nx_total{a=\"1\"} 1 10\nx_created{a=\"1\"} 5 10\n# EOF\n"),
            ("b.prom", "x_total{a=\"1\"} 3 30000000000000\nx_total{a=\"1\"} 2 20\nx_total{a=\"1\"} 2.5 20\n"),
            ("readme.md", "words"),
        ])
        .unwrap();
        assert_eq!(recording.series.len(), 1, "{recording:?}");
        let samples = &recording.series[0].samples;
        let times: Vec<i64> = samples.iter().map(|s| s.t_ms).collect();
        assert_eq!(times, [10_000, 20_000, 30_000_000_000_000]);
        assert_eq!(samples[1].value, Value::Float(2.5));
        assert_eq!(samples[0].start_ms, 5_000);
        assert_eq!(recording.kind("x_total"), Some(Kind::Counter));
        assert_eq!(recording.notes.len(), 2, "{:?}", recording.notes);
    }

    #[test]
    fn a_mistake_names_its_file_and_place() {
        let error = read(&[("a.om", "up 1 1\nup{ 1 2\n")])
            .unwrap_err()
            .to_string();
        assert!(error.contains("a.om:2:"), "{error}");
        let error = read(&[("a.om", "up 1\n")]).unwrap_err().to_string();
        assert!(error.contains("line 1: expected a timestamp"), "{error}");
        let error = read(&[("e.jsonl", "{}\n{\n")]).map(|r| r.notes);
        assert_eq!(
            error.unwrap(),
            ["e.jsonl:1 is neither OTLP nor a deploy event: not read"]
        );
        let broken = "{\"type\": \"deployment.started\"}\n{\n";
        let error = read(&[("e.jsonl", broken)]).unwrap_err().to_string();
        assert!(error.contains("e.jsonl: line 2"), "{error}");
    }

    #[test]
    fn files_may_say_which_side_they_are() {
        let recording = read(&[("canary.prom", "x 1 1\n"), ("baseline.prom", "x 1 1\n")]).unwrap();
        let arms: Vec<_> = recording.series.iter().map(|s| s.labels.get(ARM)).collect();
        assert_eq!(arms, [Some("baseline"), Some("candidate")]);
        let recording = read(&[("canary.prom", "a.b{c-d=\"e\"} 1 1\n")]).unwrap();
        let labels = &recording.series[0].labels;
        assert_eq!(labels.get("c_d"), Some("e"));
        assert_eq!(labels.metric_name(), Some("a_b"));
        assert_eq!(labels.get(ARM), None);
    }
}
