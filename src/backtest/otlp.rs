//! OTLP as JSON lines, as the collector's file exporter writes them, to series.
//!
//! It goes through the same ingest as in the daemon, with the data's own time for the clock:
//! requests are taken in the order of their newest item, and accumulators are flushed every five
//! seconds of it. Since ingest counts a span when it arrives, the spans of a request are taken
//! apart by the five seconds in which they ended: an hour of spans in one line is an hour.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use slogate_series::Series;
use slogate_tsdb::{MetricKind, Options, Store};
use slogate_wire::openmetrics::Kind;

use crate::ingest::{Ingest, IngestOptions};

/// How often accumulators are flushed, in milliseconds of the data's time.
const FLUSH_MS: i64 = 5_000;

/// The longest time without flushes that is walked through, in milliseconds.
const GAP_MAX_MS: i64 = 7_200_000;

/// Requests so far.
#[derive(Debug, Default)]
pub(crate) struct Otlp {
    requests: Vec<Request>,
}

#[derive(Debug)]
struct Request {
    t_ms: i64,
    signal: Signal,
    body: Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Signal {
    Traces,
    Metrics,
    Logs,
}

const KEYS: [(&str, Signal); 3] = [
    ("resourceSpans", Signal::Traces),
    ("resourceMetrics", Signal::Metrics),
    ("resourceLogs", Signal::Logs),
];

/// Series, what their families are, and notes.
type Taken = (Vec<Series>, Vec<(String, Kind)>, Vec<String>);

impl Otlp {
    /// Whether a document is an export request.
    pub(crate) fn is_it(value: &Json) -> bool {
        KEYS.iter().any(|(key, _)| value.get(key).is_some())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// Where nothing in it has a time.
    pub(crate) fn take(&mut self, value: Json) -> Result<(), String> {
        let Json::Object(mut members) = value else {
            return Ok(());
        };
        for (key, signal) in KEYS {
            let Some(resources) = members.remove(key) else {
                continue;
            };
            match signal {
                Signal::Traces => self.take_spans(&resources)?,
                _ => {
                    let mut newest = None;
                    newest_of(&resources, &mut newest);
                    if let Some(t_ms) = newest {
                        let body = json!({ key: resources });
                        self.requests.push(Request { t_ms, signal, body });
                    }
                }
            }
        }
        Ok(())
    }

    fn take_spans(&mut self, resources: &Json) -> Result<(), String> {
        let mut by_time: BTreeMap<i64, Vec<Json>> = BTreeMap::new();
        for resource in array(resources) {
            let scopes = ["scopeSpans", "instrumentationLibrarySpans"];
            let scopes = scopes.iter().find_map(|key| resource.get(key));
            let mut own: BTreeMap<i64, Vec<Json>> = BTreeMap::new();
            for span in scopes
                .into_iter()
                .flat_map(array)
                .flat_map(|s| s.get("spans"))
                .flat_map(array)
            {
                let end = span.get("endTimeUnixNano").and_then(nanos_to_ms);
                let end = end.or_else(|| span.get("startTimeUnixNano").and_then(nanos_to_ms));
                let end = end.ok_or("a span without endTimeUnixNano")?;
                own.entry(end.div_euclid(FLUSH_MS))
                    .or_default()
                    .push(span.clone());
            }
            for (bin, spans) in own {
                let about = resource.get("resource").cloned().unwrap_or(json!({}));
                by_time.entry(bin).or_default().push(json!({
                    "resource": about,
                    "scopeSpans": [{ "spans": spans }],
                }));
            }
        }
        self.requests
            .extend(by_time.into_iter().map(|(bin, resources)| Request {
                // Just before the flush that counts them.
                t_ms: (bin + 1) * FLUSH_MS - 1,
                signal: Signal::Traces,
                body: json!({ "resourceSpans": resources }),
            }));
        Ok(())
    }

    /// The series that the daemon would have made of it.
    ///
    /// # Errors
    /// Where ingest refuses a request.
    pub(crate) fn into_series(mut self) -> Result<Taken, String> {
        self.requests
            .sort_by_key(|request| (request.t_ms, request.signal));
        let (Some(first), Some(last)) = (self.requests.first(), self.requests.last()) else {
            return Ok(Taken::default());
        };
        let (first_ms, last_ms) = (first.t_ms, last.t_ms);
        let options = Options {
            retention_ms: i64::MAX / 4,
            future_window_ms: i64::MAX / 4,
            out_of_order_window_ms: i64::MAX / 4,
            ..Options::default()
        };
        let begin_ms = first_ms.div_euclid(FLUSH_MS) * FLUSH_MS;
        let (store, _) = Store::open(options, begin_ms).map_err(|error| error.to_string())?;
        let store = Arc::new(store);
        let options = IngestOptions {
            interval_ms: FLUSH_MS,
            span_series_per_service: 20_000,
            metric_series_per_service: 100_000,
            ..IngestOptions::default()
        };
        let ingest = Ingest::new(store.clone(), options, begin_ms - 1);
        let ingest = ingest.map_err(|error| error.to_string())?;
        let mut notes = Vec::new();
        let mut flushed_ms = begin_ms;
        for request in &self.requests {
            if request.t_ms - flushed_ms > GAP_MAX_MS {
                flushed_ms = request.t_ms - GAP_MAX_MS;
            }
            while flushed_ms + FLUSH_MS <= request.t_ms {
                flushed_ms += FLUSH_MS;
                ingest.tick(flushed_ms).map_err(|error| error.to_string())?;
            }
            let body = serde_json::to_vec(&request.body).map_err(|error| error.to_string())?;
            let taken = match request.signal {
                Signal::Traces => ingest.traces_json(&body, request.t_ms),
                Signal::Metrics => ingest.metrics_json(&body, request.t_ms),
                Signal::Logs => ingest.logs_json(&body, request.t_ms),
            };
            let outcome = taken.map_err(|error| error.to_string())?;
            if notes.is_empty() && !outcome.message.is_empty() {
                notes.push(format!("OTLP: {}", outcome.message));
            }
        }
        let end_ms = (last_ms.div_euclid(FLUSH_MS) + 1) * FLUSH_MS;
        ingest.flush(end_ms).map_err(|error| error.to_string())?;
        let kinds = store.metadata(None, 0).into_iter().map(|(name, about)| {
            let kind = match about.kind {
                MetricKind::Counter => Kind::Counter,
                MetricKind::Gauge => Kind::Gauge,
                MetricKind::Histogram => Kind::Histogram,
                MetricKind::Summary => Kind::Summary,
                _ => Kind::Other,
            };
            (name.to_string(), kind)
        });
        Ok((
            store.select(&[], i64::MIN, i64::MAX),
            kinds.collect(),
            notes,
        ))
    }
}

fn array(value: &Json) -> &[Json] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The newest time of any item.
fn newest_of(value: &Json, newest: &mut Option<i64>) {
    match value {
        Json::Array(values) => values.iter().for_each(|value| newest_of(value, newest)),
        Json::Object(members) => newest_in(members, newest),
        _ => {}
    }
}

fn newest_in(members: &Map<String, Json>, newest: &mut Option<i64>) {
    for (name, value) in members {
        match name.as_str() {
            "timeUnixNano" | "observedTimeUnixNano" => {
                *newest = (*newest).max(nanos_to_ms(value));
            }
            _ => newest_of(value, newest),
        }
    }
}

fn nanos_to_ms(value: &Json) -> Option<i64> {
    let nanos = match value {
        Json::String(text) => text.parse::<i64>().ok()?,
        Json::Number(number) => number.as_i64()?,
        _ => return None,
    };
    (nanos > 0).then_some(nanos / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_one_request_count_at_their_own_time() {
        let span = |second: u64| {
            let nanos = (1_700_000_000 + second) * 1_000_000_000;
            json!({ "traceId": "0123456789abcdef0123456789abcdef", "spanId": "0123456789abcdef",
                "name": "GET", "kind": 2, "startTimeUnixNano": nanos.to_string(),
                "endTimeUnixNano": (nanos + 5_000_000).to_string() })
        };
        let request = json!({ "resourceSpans": [{
            "resource": { "attributes": [
                { "key": "service.name", "value": { "stringValue": "shop" } },
                { "key": "service.version", "value": { "stringValue": "1" } },
            ] },
            "scopeSpans": [{ "spans": (0..60).map(span).collect::<Vec<_>>() }],
        }] });
        assert!(Otlp::is_it(&request));
        let mut otlp = Otlp::default();
        otlp.take(request).unwrap();
        let (series, _, notes) = otlp.into_series().unwrap();
        assert_eq!(notes, Vec::<String>::new());
        let calls = series
            .iter()
            .find(|one| one.labels.metric_name() == Some("traces_span_metrics_calls_total"));
        let samples = &calls.unwrap().samples;
        assert!(samples.len() >= 12, "{samples:?}");
        assert_eq!(
            samples.last().unwrap().value,
            slogate_series::Value::Float(60.0)
        );
    }
}
