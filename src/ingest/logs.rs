//! Log records, counted and forgotten.
//!
//! Policy: severity is the range its number lies in (`TRACE`, `DEBUG`, `INFO`, `WARN`, `ERROR`,
//! `FATAL`). Without a number the text decides, where it is one of those words in any case or
//! `WARNING` or `CRITICAL`; else the severity is `UNSPECIFIED`. The source's own text never
//! becomes a label: it has as many values as the source likes.

use std::sync::Arc;

use slogate_wire::WireError;
use slogate_wire::otlp::{LogRecord, LogsRequest};

use super::Ingest;
use super::cells::CellKind;
use super::identity::{Source, labels_of, word};
use super::outcome::{IngestError, Outcome, Reason, Rejections, Signal};
use super::spans::Addition;
use super::tally::Tally;

const SEVERITIES: [&str; 7] = [
    "UNSPECIFIED",
    "TRACE",
    "DEBUG",
    "INFO",
    "WARN",
    "ERROR",
    "FATAL",
];

/// Records of one resource by severity.
type Counts = Vec<(Arc<Source>, [u64; SEVERITIES.len()])>;

impl Ingest {
    pub(super) fn take_logs(
        &self,
        request: &[u8],
        now_ms: i64,
        rejections: &mut Rejections,
    ) -> Result<Outcome, IngestError> {
        self.check_room()?;
        let (counts, records) = self.count_logs(request, now_ms, rejections)?;
        self.commit(now_ms, |additions| {
            for (source, by_severity) in &counts {
                let severities = SEVERITIES.iter().zip(by_severity);
                for (severity, count) in severities.filter(|(_, count)| **count > 0) {
                    additions.extend(self.log_addition(source, severity, *count, now_ms));
                }
                let total = by_severity.iter().sum();
                additions.extend(self.coverage(source, Signal::Logs, total, now_ms));
            }
        })?;
        Ok(rejections.outcome(records, "log records"))
    }

    fn count_logs(
        &self,
        request: &[u8],
        now_ms: i64,
        rejections: &mut Rejections,
    ) -> Result<(Counts, u64), WireError> {
        let mut counts = Counts::new();
        let mut records = 0;
        for resource_logs in LogsRequest::new(request).resource_logs() {
            let resource_logs = resource_logs?;
            let mut by_severity = [0; SEVERITIES.len()];
            for scope_logs in resource_logs.scope_logs() {
                for record in scope_logs?.log_records() {
                    by_severity[severity_of(&record?)] += 1;
                }
            }
            let total: u64 = by_severity.iter().sum();
            records += total;
            match self.directory.source(&resource_logs.resource, now_ms)? {
                Ok(source) if source.identity.is_some() => counts.push((source, by_severity)),
                Ok(_) => rejections.add(Reason::NoService, total, String::new),
                Err(reason) => rejections.add(reason, total, String::new),
            }
        }
        Ok((counts, records))
    }

    fn log_addition(
        &self,
        source: &Source,
        severity: &'static str,
        count: u64,
        now_ms: i64,
    ) -> Option<Addition> {
        let identity = source.identity.as_ref()?;
        let labels = labels_of([
            ("service_name", Some(identity.service.name.clone())),
            ("service_version", identity.version.clone()),
            ("deployment_environment_name", identity.environment.clone()),
            ("severity", Some(word(severity))),
            ("artifact_identity", Some(word(source.artifact_label()))),
        ]);
        let cell = self.cells.get(CellKind::Logs, labels, None, now_ms);
        cell.belongs_to(identity);
        Some(Addition {
            cell,
            delta: Tally::of(count as f64),
            slowest: None,
        })
    }
}

/// The place in [`SEVERITIES`] of a record.
fn severity_of(record: &LogRecord<'_>) -> usize {
    match record.severity_number {
        number @ 1..=24 => (number as usize - 1) / 4 + 1,
        _ => severity_of_text(record.severity_text),
    }
}

fn severity_of_text(text: &str) -> usize {
    let word = match text {
        text if text.eq_ignore_ascii_case("warning") => "WARN",
        text if text.eq_ignore_ascii_case("critical") => "FATAL",
        text => text,
    };
    SEVERITIES
        .iter()
        .position(|severity| severity.eq_ignore_ascii_case(word))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_text_counts_only_where_it_is_a_known_word() {
        for (text, severity) in [
            ("warning", "WARN"),
            ("Error", "ERROR"),
            ("CRITICAL", "FATAL"),
            ("bizarre", "UNSPECIFIED"),
            ("", "UNSPECIFIED"),
        ] {
            assert_eq!(SEVERITIES[severity_of_text(text)], severity, "{text:?}");
        }
    }
}
