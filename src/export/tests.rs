//! From the store to the endpoint's door.

use std::collections::BTreeMap;

use slogate_series::{Labels, Value, stale_nan};
use slogate_tsdb::{Batch, FloatRow, HistogramRow, Options};
use slogate_wire::remote_write::v1;

use super::*;
use crate::config::{AuthSettings, OutboundSettings, TlsSettings};

const T0: i64 = 1_795_190_400_000;

struct House {
    store: Arc<Store>,
    dir: tempfile::TempDir,
}

/// Samples by series, as `(ms after T0, bits)`.
type Found = BTreeMap<String, Vec<(i64, u64)>>;

impl House {
    fn new() -> House {
        let (store, _) = Store::open(Options::default(), T0).unwrap();
        House {
            store: Arc::new(store),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn exporter(&self, now_ms: i64) -> Exporter {
        let settings = ExportSettings {
            endpoint: OutboundSettings {
                url: "http://127.0.0.1:9/api/v1/write".to_owned(),
                auth: AuthSettings::None,
                headers: Vec::new(),
                tls: TlsSettings::default(),
                proxy_from_environment: false,
                connect_timeout_ms: 1_000,
                timeout_ms: 1_000,
            },
            matchers: slogate_promql::parse_selector("{__name__=~\"slogate_.+\"}").unwrap(),
            labels: vec![("zone".to_owned(), "z1".to_owned())],
            queue_max_bytes: 1 << 20,
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        Exporter::open(self.dir.path(), &settings, self.store.clone(), now_ms).unwrap()
    }

    fn write(&self, name: &str, samples: &[(i64, f64)], now_ms: i64) {
        let labels = Labels::from_pairs([("__name__", name), ("zz", "last")]);
        let series = self.store.series(&labels).unwrap();
        let mut batch = Batch::default();
        for (after_ms, value) in samples {
            batch.floats.push(FloatRow {
                series,
                t_ms: T0 + after_ms,
                start_ms: 0,
                value: *value,
            });
        }
        let report = self.store.append(&batch, now_ms).unwrap();
        assert_eq!(report.refused.total(), 0, "{:?}", report.examples);
    }
}

/// Takes everything out of the queue.
fn queued(exporter: &Exporter) -> Found {
    let mut found = Found::new();
    let mut queue = exporter.queue.lock();
    while let Some((position, request)) = queue.peek().unwrap() {
        let body = snap::raw::Decoder::new()
            .decompress_vec(&request.body)
            .unwrap();
        for series in v1::WriteRequest::new(&body).timeseries() {
            let series = series.unwrap();
            let labels = series.labels().map(|label| label.unwrap());
            let labels: Vec<_> = labels.map(|l| format!("{}={}", l.name, l.value)).collect();
            assert!(labels.is_sorted(), "{labels:?}");
            let samples = found.entry(labels.join(",")).or_default();
            for sample in series.samples() {
                let sample = sample.unwrap();
                samples.push((sample.t_ms - T0, sample.value.to_bits()));
            }
            for histogram in series.histograms() {
                let histogram = histogram.unwrap();
                samples.push((histogram.t_ms - T0, histogram.sum.to_bits()));
            }
        }
        queue.done(position).unwrap();
    }
    found
}

fn values(found: &Found, name: &str) -> Vec<(i64, f64)> {
    let key = format!("__name__={name},zone=z1,zz=last");
    let samples = found.get(&key).map(Vec::as_slice).unwrap_or_default();
    samples
        .iter()
        .map(|(t, bits)| (*t, f64::from_bits(*bits)))
        .collect()
}

#[test]
fn what_is_new_is_queued_once_and_nothing_else_is() {
    let house = House::new();
    house.write("slogate_before", &[(-60_000, 1.0)], T0);
    let exporter = house.exporter(T0);
    exporter.collect(T0 + 1).unwrap();
    assert_eq!(
        queued(&exporter),
        Found::new(),
        "what was there before stays here"
    );

    house.write("slogate_a", &[(1_000, 1.0), (2_000, 2.0)], T0 + 2_000);
    house.write("other", &[(1_000, 1.0)], T0 + 2_000);
    exporter.collect(T0 + 5_000).unwrap();
    exporter.collect(T0 + 5_500).unwrap();
    let found = queued(&exporter);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(values(&found, "slogate_a"), [(1_000, 1.0), (2_000, 2.0)]);

    house.write("slogate_a", &[(6_000, stale_nan())], T0 + 6_000);
    exporter.collect(T0 + 10_000).unwrap();
    let found = queued(&exporter);
    let bits = found.values().next().unwrap()[0].1;
    assert_eq!(
        bits,
        slogate_series::STALE_NAN_BITS,
        "a series that ends here ends there"
    );
}

/// An event is a sample at its own time, which may be minutes ago.
#[test]
fn late_samples_are_found_but_never_behind_what_was_sent() {
    let house = House::new();
    let exporter = house.exporter(T0);
    house.write("slogate_a", &[(50_000, 1.0)], T0 + 50_000);
    exporter.collect(T0 + 60_000).unwrap();
    queued(&exporter);
    house.write("slogate_a", &[(40_000, 0.5)], T0 + 61_000);
    house.write("slogate_soon", &[(35_000, 2.0)], T0 + 61_000);
    house.write("slogate_event", &[(-400_000, 3.0)], T0 + 61_000);
    exporter.collect(T0 + 65_000).unwrap();
    let first = queued(&exporter);
    assert_eq!(values(&first, "slogate_soon"), [(35_000, 2.0)]);
    exporter.collect(T0 + 130_000).unwrap();
    let second = queued(&exporter);
    assert_eq!(values(&second, "slogate_event"), [(-400_000, 3.0)]);
    assert_eq!((first.len(), second.len()), (1, 1));
}

#[test]
fn after_a_restart_it_goes_on_where_the_queue_ends() {
    let house = House::new();
    let exporter = house.exporter(T0);
    house.write("slogate_a", &[(1_000, 1.0)], T0 + 1_000);
    exporter.collect(T0 + 5_000).unwrap();
    drop(exporter);
    // Written, but not queued when the process was killed.
    house.write("slogate_a", &[(6_000, 2.0)], T0 + 6_000);
    let exporter = house.exporter(T0 + 200_000);
    house.write("slogate_a", &[(201_000, 3.0)], T0 + 201_000);
    exporter.collect(T0 + 205_000).unwrap();
    let found = queued(&exporter);
    let expected = [(1_000, 1.0), (6_000, 2.0), (201_000, 3.0)];
    assert_eq!(values(&found, "slogate_a"), expected);
}

/// A queue that nobody looked at for a week must not make the endpoint refuse everything.
#[test]
fn what_is_older_than_an_hour_is_left_behind() {
    let house = House::new();
    let exporter = house.exporter(T0);
    exporter.collect(T0 + 1_000).unwrap();
    drop(exporter);
    let now = 4 * 3_600_000;
    let old = now - 2 * 3_600_000;
    house.write("slogate_a", &[(old, 1.0), (now - 1_800_000, 2.0)], T0 + now);
    let exporter = house.exporter(T0 + now);
    exporter.collect(T0 + now + 5_000).unwrap();
    assert_eq!(
        values(&queued(&exporter), "slogate_a"),
        [(now - 1_800_000, 2.0)]
    );
}

#[test]
fn requests_have_2000_samples_at_most_and_histograms_are_samples() {
    let house = House::new();
    let exporter = house.exporter(T0);
    let many: Vec<_> = (1..=5_000).map(|t| (t, t as f64)).collect();
    house.write("slogate_a", &many, T0 + 5_000);
    let labels = Labels::from_pairs([("__name__", "slogate_h"), ("zone", "own")]);
    let series = house.store.series(&labels).unwrap();
    let histogram = slogate_series::Histogram {
        count: 1.0,
        sum: 7.5,
        zero_count: 1.0,
        ..Default::default()
    };
    let mut batch = Batch::default();
    batch.histograms.push(HistogramRow {
        series,
        t_ms: T0 + 1_000,
        start_ms: 0,
        histogram: Arc::new(histogram),
    });
    house.store.append(&batch, T0 + 5_000).unwrap();
    exporter.collect(T0 + 5_000).unwrap();
    assert_eq!(exporter.stats(T0).pending, 5_001);
    let (_, first) = exporter.queue.lock().peek().unwrap().unwrap();
    assert_eq!(first.samples, 2_000);
    let found = queued(&exporter);
    assert_eq!(values(&found, "slogate_a").len(), 5_000);
    let own = found.get("__name__=slogate_h,zone=own").unwrap();
    assert_eq!(own, &[(1_000, 7.5_f64.to_bits())]);
    assert!(matches!(
        house.store.select(&[], T0, T0 + 5_000)[1].samples[0].value,
        Value::Histogram(_)
    ));
    assert_eq!(exporter.stats(T0).pending, 0);
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_costs_a_pause_and_no_sample() {
    let house = House::new();
    let exporter = Arc::new(house.exporter(T0));
    assert_eq!(exporter.send(T0).await.unwrap(), Step::Idle);
    house.write("slogate_a", &[(1_000, 1.0)], T0 + 1_000);
    exporter.collect(T0 + 5_000).unwrap();
    for _ in 0..3 {
        let step = exporter.send(T0 + 5_000).await.unwrap();
        assert_eq!(step, Step::Again { after: None });
    }
    let stats = exporter.stats(T0 + 9_000);
    assert_eq!((stats.sent, stats.retries, stats.pending), (0, 3, 1));
    assert_eq!(stats.lag_seconds, 8.0);
}
