//! The series of one metric, followed from look to look.
//!
//! Up to the cut, samples were taken in for good; of each series it is known where it stood
//! there. Behind the cut they are read anew with every look, until the cut moves past them.

use std::collections::HashMap;
use std::sync::Arc;

use slogate_series::{Labels, Sample, Series};

use super::grid::Gaps;
use super::increases::{Births, Born, Stand};
use crate::model::Target;
use crate::source::join::{self, Belongs, Said};
use crate::source::{Mapping, MetricSource, SourceError};

/// Whose requests are asked for.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) target: Target,
    pub(super) span_kind: String,
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Where it begins, in milliseconds since the epoch; samples at that time are outside.
    pub(super) from_ms: i64,
    /// Up to where samples were taken in for good.
    pub(super) cut_ms: i64,
    /// Where it ends.
    pub(super) now_ms: i64,
}

/// The series of one metric.
#[derive(Debug, Default)]
pub(super) struct Track {
    metric: String,
    /// Whether series are classic buckets.
    is_classic: bool,
    lines: HashMap<Labels, Line>,
    births: Births,
    said: Said,
}

/// One series.
#[derive(Debug)]
struct Line {
    who: Who,
    process: Option<usize>,
    first_ms: i64,
    at_cut: AtCut,
    /// The typical time between its samples, those behind the cut included.
    typical_ms: Option<i64>,
    newest_ms: i64,
}

/// What a series tells of.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) is_error: bool,
    pub(super) instance: Option<Arc<str>>,
    /// The histogram it is a bucket of, and the bucket's bound.
    pub(super) bucket: Option<(Labels, f64)>,
    belongs: Belongs,
}

impl Who {
    /// The version at a sample's time; `None` where the sample is not to be counted.
    pub(super) fn version_at(&self, t_ms: i64) -> Option<&str> {
        self.belongs.at(t_ms)
    }
}

/// What was taken in of a series for good.
#[derive(Debug, Default)]
struct AtCut {
    stand: Stand,
    newest_ms: Option<i64>,
    gaps: Gaps,
}

impl AtCut {
    fn note(&mut self, t_ms: i64) {
        if let Some(before_ms) = self.newest_ms.replace(t_ms) {
            self.gaps.note(t_ms - before_ms);
        }
    }
}

/// What one look read.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    pub(super) series: Vec<Series>,
    said: Vec<Series>,
    pub(super) warnings: Vec<String>,
}

impl Track {
    pub(super) fn new(metric: String, is_classic: bool) -> Self {
        Track {
            metric,
            is_classic,
            ..Track::default()
        }
    }

    /// Reads what is behind the cut. Changes nothing, so that a failure costs nothing.
    pub(super) async fn read(
        &self,
        source: &dyn MetricSource,
        question: &Question,
        window: Window,
    ) -> Result<Fresh, SourceError> {
        let mapping = source.mapping();
        let Question { target, span_kind } = question;
        let selector = mapping.requests_of(&self.metric, target, span_kind)?;
        let (series, mut warnings) = source
            .samples(&selector, window.cut_ms, window.now_ms)
            .await?;
        let new = series
            .iter()
            .filter(|one| !self.lines.contains_key(&one.labels));
        let new: Vec<&Labels> = new.map(|one| &one.labels).collect();
        let mut all = new.clone();
        all.extend(self.lines.keys());
        // What is said of a series that is new may have been said long ago.
        let is_silent = new.iter().any(|one| self.said.is_silent_on(mapping, one));
        let since_ms = if is_silent {
            window.from_ms
        } else {
            window.cut_ms
        };
        let (said, more) = join::ask(source, &all, since_ms, window.now_ms).await?;
        warnings.extend(more);
        Ok(Fresh {
            series,
            said,
            warnings,
        })
    }

    /// Makes the series known. False where that changes to which version a sample belongs that
    /// was seen before.
    pub(super) fn meet(&mut self, mapping: &Mapping, target: &Target, fresh: &Fresh) -> bool {
        if self.said.take_in(mapping, &fresh.said) && !self.reassign(mapping, target) {
            return false;
        }
        for one in &fresh.series {
            let (Some(first), Some(last)) = (one.samples.first(), one.samples.last()) else {
                continue;
            };
            if !self.lines.contains_key(&one.labels) {
                let line = self.line(mapping, target, &one.labels, first.t_ms);
                self.lines.insert(one.labels.clone(), line);
            }
            if let Some(line) = self.lines.get_mut(&one.labels) {
                let mut gaps = line.at_cut.gaps.clone();
                let times = one.samples.iter().map(|sample| sample.t_ms);
                let mut before_ms = line.at_cut.newest_ms;
                for t_ms in times {
                    if let Some(before_ms) = before_ms.replace(t_ms) {
                        gaps.note(t_ms - before_ms);
                    }
                }
                line.typical_ms = gaps.typical_ms();
                line.newest_ms = last.t_ms;
            }
        }
        true
    }

    fn line(&mut self, mapping: &Mapping, target: &Target, labels: &Labels, t_ms: i64) -> Line {
        let bucket = self.is_classic.then(|| labels.get("le").and_then(bound));
        let bucket = bucket.flatten();
        Line {
            who: Who {
                is_error: mapping.is_error(labels),
                instance: mapping.instance_in(labels),
                bucket: bucket.map(|bound| (labels.without(&["le"]), bound)),
                belongs: self.said.belongs(mapping, target, labels),
            },
            process: self.births.note(labels, t_ms),
            first_ms: t_ms,
            at_cut: AtCut::default(),
            typical_ms: None,
            newest_ms: t_ms,
        }
    }

    /// Says anew to which version each series belongs.
    fn reassign(&mut self, mapping: &Mapping, target: &Target) -> bool {
        for (labels, line) in &mut self.lines {
            let belongs = self.said.belongs(mapping, target, labels);
            if !belongs.agrees(&line.who.belongs, line.first_ms, line.newest_ms) {
                return false;
            }
            line.who.belongs = belongs;
        }
        true
    }

    /// How often each series is sampled, with the version it is of.
    pub(super) fn typical(&self) -> impl Iterator<Item = (&str, i64)> {
        let lines = self.lines.values();
        lines.filter_map(|line| Some((line.who.version_at(line.newest_ms)?, line.typical_ms?)))
    }

    /// Whether there are any series.
    pub(super) fn is_known(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Makes a series no bucket.
    pub(super) fn forget_bucket(&mut self, labels: &Labels) {
        if let Some(line) = self.lines.get_mut(labels) {
            line.who.bucket = None;
        }
    }

    /// Whether any series says which instance it is of.
    pub(super) fn names_instances(&self) -> bool {
        self.lines.values().any(|line| line.who.instance.is_some())
    }

    pub(super) fn who(&self, labels: &Labels) -> Option<&Who> {
        self.lines.get(labels).map(|line| &line.who)
    }

    /// Hands every increase with its time to `each`, and moves the cut to `cut_ms`.
    pub(super) fn increases<I>(
        &mut self,
        fresh: &Fresh,
        from_ms: i64,
        cut_ms: i64,
        step: impl Fn(&mut Stand, &Sample, Born) -> Option<I>,
        mut each: impl FnMut(&Who, i64, I),
    ) {
        for one in &fresh.series {
            let Some(line) = self.lines.get_mut(&one.labels) else {
                continue;
            };
            let born = self.births.of(line.process, from_ms);
            let mut stand = line.at_cut.stand.clone();
            let mut is_behind = false;
            for sample in &one.samples {
                if !is_behind && sample.t_ms > cut_ms {
                    line.at_cut.stand = stand.clone();
                    is_behind = true;
                }
                if !is_behind {
                    line.at_cut.note(sample.t_ms);
                }
                if let Some(increase) = step(&mut stand, sample, born) {
                    each(&line.who, sample.t_ms, increase);
                }
            }
            if !is_behind {
                line.at_cut.stand = stand;
            }
        }
    }
}

impl Fresh {
    /// The time of every sample that says something about when a version was seen, with it.
    pub(super) fn seen<'f>(&'f self, track: &'f Track) -> impl Iterator<Item = (&'f str, i64)> {
        self.series.iter().flat_map(|one| {
            let who = track.who(&one.labels);
            let is_one = who.is_some_and(|who| matches!(who.belongs, Belongs::To(_)));
            let all = one.samples.iter().map(|sample| sample.t_ms);
            // Where all belong together, the first and the last say it all.
            let last = one.samples.len().saturating_sub(1);
            let wanted = all
                .enumerate()
                .filter(move |(at, _)| !is_one || *at == 0 || *at == last);
            wanted.filter_map(move |(_, t_ms)| Some((who?.version_at(t_ms)?, t_ms)))
        })
    }
}

fn bound(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" | "inf" => Some(f64::INFINITY),
        text => text.parse().ok().filter(|bound: &f64| !bound.is_nan()),
    }
}
