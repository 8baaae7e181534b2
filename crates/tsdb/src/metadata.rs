//! What is known about metrics by name: their kind, unit and description.
//!
//! Metadata ride along: they are written to the log with the next batch, and the newest
//! value of a metric counts. There are limits, since names come from outside; what is
//! beyond them is left out and counted in [`Stats`](crate::Stats).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most metrics that metadata are kept of.
const METRICS_MAX: usize = 100_000;

/// The longest name, unit or description, in bytes.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// The kind of a metric, as OpenMetrics names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// Not known.
    #[default]
    Unknown,
    /// A running total.
    Counter,
    /// A level.
    Gauge,
    /// A distribution that accumulates.
    Histogram,
    /// A distribution of the present.
    GaugeHistogram,
    /// Quantiles computed by the sender.
    Summary,
    /// Labels that describe something, with the value 1.
    Info,
    /// One of several states.
    StateSet,
}

impl MetricKind {
    const ALL: [MetricKind; 8] = [
        MetricKind::Unknown,
        MetricKind::Counter,
        MetricKind::Gauge,
        MetricKind::Histogram,
        MetricKind::GaugeHistogram,
        MetricKind::Summary,
        MetricKind::Info,
        MetricKind::StateSet,
    ];

    /// The name that the Prometheus API and OpenMetrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricKind::Unknown => "unknown",
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            MetricKind::GaugeHistogram => "gaugehistogram",
            MetricKind::Summary => "summary",
            MetricKind::Info => "info",
            MetricKind::StateSet => "stateset",
        }
    }

    /// The number that the log writes.
    pub(crate) fn code(self) -> u8 {
        let at = MetricKind::ALL.iter().position(|kind| *kind == self);
        at.map_or(0, |at| at as u8)
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        MetricKind::ALL.get(usize::from(code)).copied()
    }
}

/// What is known about a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Its kind.
    pub kind: MetricKind,
    /// Its unit, as a word (`seconds`); empty where unknown.
    pub unit: Arc<str>,
    /// Its description; empty where unknown.
    pub help: Arc<str>,
}

/// All metadata, and which of them the log does not have yet.
#[derive(Debug, Default)]
pub(crate) struct MetadataTable {
    by_metric: BTreeMap<Arc<str>, Metadata>,
    unwritten: BTreeSet<Arc<str>>,
    refused: u64,
}

impl MetadataTable {
    /// Whether setting these would change anything.
    pub(crate) fn has(&self, metric: &str, metadata: &Metadata) -> bool {
        self.by_metric.get(metric) == Some(metadata)
    }

    pub(crate) fn set(&mut self, metric: &str, metadata: Metadata) {
        let longest = [metric, &metadata.unit, &metadata.help].map(str::len);
        let too_long = longest.iter().any(|length| *length > TEXT_BYTES_MAX);
        let known = self.by_metric.contains_key(metric);
        if too_long || (!known && self.by_metric.len() >= METRICS_MAX) {
            self.refused += 1;
            return;
        }
        if !self.has(metric, &metadata) {
            let metric: Arc<str> = Arc::from(metric);
            self.unwritten.insert(Arc::clone(&metric));
            self.by_metric.insert(metric, metadata);
        }
    }

    /// Up to `limit` metrics with their metadata, by name; 0 means no limit.
    pub(crate) fn list(&self, metric: Option<&str>, limit: usize) -> Vec<(Arc<str>, Metadata)> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let entry =
            |(metric, metadata): (&Arc<str>, &Metadata)| (Arc::clone(metric), metadata.clone());
        match metric {
            Some(metric) => {
                let found = self.by_metric.get_key_value(metric);
                found.into_iter().map(entry).collect()
            }
            None => self.by_metric.iter().take(limit).map(entry).collect(),
        }
    }

    /// Every metric with its metadata.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Metadata)> {
        let entries = self.by_metric.iter();
        entries.map(|(metric, metadata)| (&**metric, metadata))
    }

    /// Takes the names of those that changed since the last call.
    pub(crate) fn take_unwritten(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.unwritten)
    }

    pub(crate) fn get(&self, metric: &str) -> Option<&Metadata> {
        self.by_metric.get(metric)
    }

    /// How often metadata were left out.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(text: &str) -> Metadata {
        Metadata {
            help: text.into(),
            ..Metadata::default()
        }
    }

    #[test]
    fn the_newest_counts_and_is_written_once() {
        let mut table = MetadataTable::default();
        // Two exporters that don't agree must not make the list of changes grow.
        for n in 0..1_000 {
            table.set("m", help(&format!("{}", n % 2)));
        }
        assert_eq!(table.take_unwritten().len(), 1);
        table.set("m", help("1"));
        assert!(table.take_unwritten().is_empty(), "nothing changed");
        assert_eq!(table.list(None, 0), [("m".into(), help("1"))]);
        assert_eq!(table.list(Some("x"), 0), []);
    }

    #[test]
    fn number_and_length_are_limited() {
        let mut table = MetadataTable::default();
        table.set("m", help(&"x".repeat(TEXT_BYTES_MAX + 1)));
        assert_eq!((table.list(None, 0).len(), table.refused()), (0, 1));
        for n in 0..=METRICS_MAX {
            table.set(&format!("m{n}"), help(""));
        }
        assert_eq!(table.refused(), 2);
        table.set("m0", help("known metrics may change"));
        assert_eq!((table.refused(), table.list(None, 5).len()), (2, 5));
    }

    #[test]
    fn every_kind_has_its_code() {
        for kind in MetricKind::ALL {
            assert_eq!(MetricKind::from_code(kind.code()), Some(kind));
        }
        assert_eq!(MetricKind::from_code(8), None);
    }
}
