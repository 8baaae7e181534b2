//! The peers of other tests are what those tests take them for.

use serde_json::{Value as Json, json};
use slogate_series::{Buckets, Histogram, Labels, Sample, Series, Value};

use crate::harness::peers;

/// A fixed moment long ago: no peer may refuse samples for their age. 2026-03-01T10:00:00Z.
const BASE_MS: i64 = 1_772_359_200_000;

fn series(name: &str, values: impl IntoIterator<Item = (i64, Value)>) -> Series {
    let samples = values.into_iter().map(|(at_ms, value)| Sample {
        t_ms: BASE_MS + at_ms,
        start_ms: 0,
        value,
    });
    Series {
        labels: Labels::from_pairs([("__name__", name), ("job", "api")]),
        samples: samples.collect(),
    }
}

/// More than an hour of one series, so that another one's start lies far behind its end.
fn floats() -> Vec<Series> {
    let ramp = |name| {
        let values = (0..250_i64).map(|i| (i * 15_000, Value::Float(i as f64)));
        series(name, values)
    };
    vec![ramp("first"), ramp("second")]
}

fn histogram() -> Series {
    let value = Histogram {
        schema: 1,
        zero_threshold: 0.001,
        zero_count: 2.0,
        count: 17.0,
        sum: 21.5,
        positive: Buckets::from_sorted(vec![(-1, 3.0), (0, 5.0), (4, 6.0)]),
        negative: Buckets::from_sorted(vec![(2, 1.0)]),
        ..Histogram::default()
    };
    series("sizes", [(0, Value::Histogram(value.into()))])
}

fn ask(peer: &peers::Peer, expr: &str, at_ms: i64) -> Json {
    let at = at_ms / 1_000;
    peer.data(&format!("/api/v1/query?query={expr}&time={at}"))["result"].take()
}

#[test]
fn peers_give_back_the_floats_that_were_written() {
    let programs = [
        peers::prometheus(),
        peers::prometheus_3(),
        peers::victoria_metrics(),
    ];
    for program in programs.into_iter().flatten() {
        let dir = tempfile::tempdir().unwrap();
        let peer = program.start(dir.path(), "", &[]);
        peer.write(&floats());
        for (minutes, value) in [(5, "20"), (60, "240")] {
            crate::harness::until("the samples are there", peers::START_MAX, || {
                let result = ask(&peer, "second", BASE_MS + minutes * 60_000);
                (result[0]["value"][1] == value).then_some(())
            });
        }
    }
}

#[test]
fn each_prometheus_gives_back_the_native_histogram_that_was_written() {
    for program in [peers::prometheus(), peers::prometheus_3()]
        .into_iter()
        .flatten()
    {
        let dir = tempfile::tempdir().unwrap();
        let peer = program.start(dir.path(), "", &[]);
        peer.write(&[histogram()]);
        let result = ask(&peer, "sizes", BASE_MS);
        let found = &result[0]["histogram"][1];
        assert_eq!(found["count"], "17", "{result:#}");
        assert_eq!(found["sum"], "21.5");
        let buckets = found["buckets"].as_array().unwrap();
        let counts: Vec<&Json> = buckets.iter().map(|bucket| &bucket[3]).collect();
        assert_eq!(counts, ["1", "2", "3", "5", "6"], "{result:#}");
        assert_eq!(
            (&buckets[4][1], &buckets[4][2]),
            (&json!("2.82842712474619"), &json!("4"))
        );
    }
}
