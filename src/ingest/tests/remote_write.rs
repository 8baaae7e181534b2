//! Remote write: requests in, series out.

use proptest::prelude::*;
use slogate_series::{Histogram as OurHistogram, STALE_NAN_BITS};
use slogate_tsdb::MetricKind;

use super::messages::{
    BucketSpan, Exemplar1, Histogram, HistogramCount, Metadata1, Sample, TimeSeries1, TimeSeries2,
    WriteRequest, ZeroCount, label,
};
use super::*;

const BOTH: [RemoteWriteVersion; 2] = RemoteWriteVersion::ALL;

fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> TimeSeries1 {
    let sample = |(timestamp, value): &(i64, f64)| Sample {
        value: *value,
        timestamp: *timestamp,
        start_timestamp: 0,
    };
    TimeSeries1 {
        labels: labels
            .iter()
            .map(|(name, value)| label(name, value))
            .collect(),
        samples: samples.iter().map(sample).collect(),
        ..TimeSeries1::default()
    }
}

fn request(timeseries: Vec<TimeSeries1>) -> WriteRequest {
    WriteRequest {
        timeseries,
        metadata: Vec::new(),
    }
}

fn encoded(request: &WriteRequest, version: RemoteWriteVersion) -> Vec<u8> {
    match version {
        RemoteWriteVersion::V1 => request.encode_to_vec(),
        RemoteWriteVersion::V2 => request.to_v2().encode_to_vec(),
    }
}

fn write(bed: &Bed, request: &WriteRequest, version: RemoteWriteVersion) -> Written {
    let bytes = encoded(request, version);
    bed.ingest.remote_write(version, &bytes, T0).unwrap()
}

fn native(count: u64) -> Histogram {
    Histogram {
        count: Some(HistogramCount::Int(count)),
        sum: 12.5,
        schema: 3,
        zero_threshold: 0.001,
        zero_count: Some(ZeroCount::Int(1)),
        positive_spans: vec![
            BucketSpan {
                offset: -2,
                length: 2,
            },
            BucketSpan {
                offset: 3,
                length: 1,
            },
        ],
        positive_deltas: vec![2, -1, 3],
        negative_spans: vec![BucketSpan {
            offset: 1,
            length: 1,
        }],
        negative_deltas: vec![1],
        reset_hint: 2,
        timestamp: T0,
        ..Histogram::default()
    }
}

#[test]
fn series_come_out_as_they_went_in_stale_markers_bit_by_bit() {
    for version in BOTH {
        let bed = Bed::new();
        let stale = f64::from_bits(STALE_NAN_BITS);
        let mut sent = series(
            &[("__name__", "up"), ("instance", "a:1"), ("empty", "")],
            &[(T0 - 20, 1.0), (T0 - 10, f64::NAN), (T0, stale)],
        );
        sent.exemplars = vec![Exemplar1 {
            labels: vec![label("trace_id", "abc")],
            value: 0.5,
            timestamp: T0 - 10,
        }];
        let mut histogram = series(&[("__name__", "h")], &[]);
        histogram.histograms = vec![native(9)];
        let written = write(&bed, &request(vec![sent, histogram]), version);
        let expected = Written {
            samples: 3,
            histograms: 1,
            exemplars: 1,
            ..Written::default()
        };
        assert_eq!(written, expected);
        let up = &bed.series("up")[0];
        assert_eq!(up.labels.to_string(), r#"up{instance="a:1"}"#);
        let bits = up.samples.iter().map(|sample| match &sample.value {
            Value::Float(value) => value.to_bits(),
            Value::Histogram(_) => 0,
        });
        let expected = [1.0_f64.to_bits(), f64::NAN.to_bits(), STALE_NAN_BITS];
        assert!(bits.eq(expected));
        let exemplars = bed.store.exemplars(&[], 0, i64::MAX);
        assert_eq!(exemplars[0].1[0].labels.get("trace_id"), Some("abc"));
        let Value::Histogram(found) = &bed.series("h")[0].samples[0].value else {
            panic!("a histogram");
        };
        assert_eq!((found.count, found.sum, found.schema), (9.0, 12.5, 3));
        assert_eq!(found.positive.as_slice(), [(-2, 2.0), (-1, 1.0), (3, 4.0)]);
        assert_eq!(found.negative.as_slice(), [(1, 1.0)]);
    }
}

/// What a Prometheus that was cut off in the middle of an answer does: it sends all again.
#[test]
fn the_same_again_is_accepted_and_another_value_is_not() {
    for version in BOTH {
        let bed = Bed::new();
        let first = request(vec![series(
            &[("__name__", "up")],
            &[(T0, 1.0), (T0 - 5, 2.0)],
        )]);
        for _ in 0..2 {
            let written = write(&bed, &first, version);
            assert_eq!(
                (written.samples, written.rejected),
                (2, 0),
                "late is not too late"
            );
        }
        let other = request(vec![series(&[("__name__", "up")], &[(T0, 7.0)])]);
        let written = write(&bed, &other, version);
        assert_eq!((written.samples, written.rejected), (0, 1));
        assert!(
            written.message.contains("another value"),
            "{}",
            written.message
        );
        assert!(
            written.message.contains("up at 1700000000000 ms"),
            "{}",
            written.message
        );
        assert_eq!(bed.series("up")[0].samples.len(), 2);
    }
}

#[test]
fn bad_neighbours_are_named_and_cost_nobody_else_anything() {
    for version in BOTH {
        let bed = Bed::new();
        let mut disagrees = series(&[("__name__", "h")], &[]);
        disagrees.histograms = vec![native(8)];
        let sent = request(vec![
            series(&[("job", "nameless")], &[(T0, 1.0), (T0 + 1, 1.0)]),
            series(&[("__name__", "")], &[(T0, 1.0)]),
            series(&[("__name__", "a"), ("", "x")], &[(T0, 1.0)]),
            series(&[("__name__", "a"), ("b", "1"), ("b", "2")], &[(T0, 1.0)]),
            series(&[("__name__", "future")], &[(T0 + 11 * 60_000, 1.0)]),
            series(&[("__name__", "past")], &[(T0 - 16 * 86_400_000, 1.0)]),
            disagrees,
            series(&[("__name__", "good")], &[(T0, 1.0)]),
        ]);
        let written = write(&bed, &sent, version);
        assert_eq!(
            (written.samples, written.histograms, written.rejected),
            (1, 0, 8)
        );
        let message = &written.message;
        for part in [
            "3 samples rejected (series {job=\"nameless\"}): the series has no label __name__",
            "2 samples rejected (series {__name__=\"a\", =\"x\"}): a label's name is empty",
            "future at 1700000660000 ms: too far in the future",
            "past at 1698617600000 ms: too old",
            "contradict each other",
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        assert_eq!(bed.series("good").len(), 1);
        let stats = &bed.ingest.remote_write_stats()[version as usize];
        assert_eq!(stats.samples, 1);
        let total: u64 = stats.rejected.iter().map(|(_, count)| count).sum();
        assert_eq!(total, 8);
    }
}

#[test]
fn a_2_0_series_with_references_into_nowhere_or_nothing_to_store_is_refused_alone() {
    let bed = Bed::new();
    let good = request(vec![series(&[("__name__", "good")], &[(T0, 1.0)])]);
    let mut sent = good.to_v2();
    let mut nowhere = sent.timeseries[0].clone();
    nowhere.labels_refs[1] = 99;
    let mut odd = sent.timeseries[0].clone();
    odd.labels_refs.pop();
    let empty = TimeSeries2 {
        labels_refs: sent.timeseries[0].labels_refs.clone(),
        ..TimeSeries2::default()
    };
    sent.timeseries.extend([nowhere, odd, empty]);
    sent.timeseries[0].samples[0].start_timestamp = T0 - 500;
    let bytes = sent.encode_to_vec();
    let written = bed.ingest.remote_write(RemoteWriteVersion::V2, &bytes, T0);
    let written = written.unwrap();
    assert_eq!(
        (written.samples, written.rejected),
        (1, 3),
        "{}",
        written.message
    );
    assert!(written.message.contains("symbols"), "{}", written.message);
    assert!(
        written.message.contains("neither samples"),
        "{}",
        written.message
    );
    assert_eq!(bed.series("good")[0].samples[0].start_ms, T0 - 500);
}

/// Half a request must not leave half of its samples.
#[test]
fn bytes_that_end_early_store_nothing() {
    for version in BOTH {
        let bed = Bed::new();
        let many = (0..3).map(|n| series(&[("__name__", &format!("m{n}"))], &[(T0, 1.0)]));
        let bytes = encoded(&request(many.collect()), version);
        let result = bed
            .ingest
            .remote_write(version, &bytes[..bytes.len() - 3], T0);
        assert!(
            matches!(result, Err(IngestError::Malformed { .. })),
            "{result:?}"
        );
        assert_eq!(bed.store.stats().samples, 0);
    }
}

#[test]
fn metadata_are_kept_by_family() {
    for version in BOTH {
        let bed = Bed::new();
        let mut sent = request(vec![
            series(&[("__name__", "x_total")], &[(T0, 1.0)]),
            series(&[("__name__", "d_bucket"), ("le", "1")], &[(T0, 1.0)]),
        ]);
        let described = |name: &str, kind| Metadata1 {
            kind,
            name: name.to_owned(),
            help: "Says what it is.".to_owned(),
            unit: "seconds".to_owned(),
        };
        let family = match version {
            RemoteWriteVersion::V1 => "d",
            RemoteWriteVersion::V2 => "d_bucket",
        };
        sent.metadata = vec![described("x_total", 1), described(family, 3)];
        write(&bed, &sent, version);
        let found = bed.store.metadata(None, 0);
        let kinds: Vec<_> = found
            .iter()
            .map(|(name, one)| (&**name, one.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                ("d", MetricKind::Histogram),
                ("x_total", MetricKind::Counter)
            ]
        );
        assert_eq!(&*found[0].1.help, "Says what it is.");
        assert_eq!(&*found[0].1.unit, "seconds");
    }
}

#[test]
fn a_budget_is_the_services_where_there_is_one_and_else_the_jobs() {
    let bed = Bed::with(IngestOptions {
        metric_series_per_service: 2,
        metric_series_per_job: 3,
        ..IngestOptions::default()
    });
    let many = |extra: (&str, &str)| {
        let one = |n: i32| {
            let n = n.to_string();
            series(&[("__name__", "m"), ("n", &n), extra], &[(T0, 1.0)])
        };
        request((0..4).map(one).collect())
    };
    for (extra, taken) in [
        (("service_name", "a"), 2),
        (("service_name", "b"), 2),
        (("job", "a"), 3),
        (("job", "b"), 3),
    ] {
        let written = write(&bed, &many(extra), RemoteWriteVersion::V1);
        assert_eq!(written.samples, taken, "{extra:?}");
        assert!(written.message.contains("budget"), "{}", written.message);
        // Known series go on.
        let again = write(&bed, &many(extra), RemoteWriteVersion::V2);
        assert_eq!(again.samples, taken, "{extra:?}");
    }
    assert_eq!(bed.ingest.stats().written_series, 10);
    // What nobody sends any more makes room.
    for hours in 1..4 {
        bed.ingest.tick(T0 + hours * 3_600_000).unwrap();
    }
    assert_eq!(bed.ingest.stats().written_series, 0);
    let other = request(vec![series(
        &[("__name__", "n"), ("job", "a")],
        &[(T0, 1.0)],
    )]);
    assert_eq!(write(&bed, &other, RemoteWriteVersion::V1).samples, 1);
}

#[test]
fn versions_are_seen_in_fresh_samples_only() {
    let bed = Bed::new();
    let of = |version: &str, samples: &[(i64, f64)]| {
        let labels = [
            ("__name__", "up"),
            ("deployment_environment_name", "production"),
            ("service_name", "checkout"),
            ("service_version", version),
        ];
        series(&labels, samples)
    };
    let stale = f64::from_bits(STALE_NAN_BITS);
    let sent = request(vec![
        of("1", &[(T0 - 3_600_000, 1.0)]),
        of("2", &[(T0, stale)]),
        of("3", &[(T0 - 1_000, 1.0)]),
    ]);
    write(&bed, &sent, RemoteWriteVersion::V1);
    let observed = bed.ingest.take_observed();
    let versions: Vec<_> = observed.iter().map(|one| one.version.as_str()).collect();
    assert_eq!(versions, ["3"]);
    assert_eq!(observed[0].target.environment, "production");
    // Through the other message, from the table.
    write(&bed, &sent, RemoteWriteVersion::V2);
    assert_eq!(bed.ingest.take_observed().len(), 1);
}

#[test]
fn a_request_is_as_large_as_its_rows_and_not_as_its_bytes() {
    let bed = Bed::new();
    let mut one = series(&[("__name__", "m")], &[]);
    one.samples = vec![Sample::default(); 1_000_001];
    let result = bed.ingest.remote_write(
        RemoteWriteVersion::V1,
        &request(vec![one]).encode_to_vec(),
        T0,
    );
    assert!(
        matches!(result, Err(IngestError::TooMany { max: 1_000_000, .. })),
        "{result:?}"
    );
    assert_eq!(bed.store.stats().samples, 0);
}

fn read(histogram: Histogram) -> Option<OurHistogram> {
    let bed = Bed::new();
    let mut one = series(&[("__name__", "h")], &[]);
    one.histograms = vec![histogram];
    let written = write(&bed, &request(vec![one]), RemoteWriteVersion::V2);
    assert_eq!(written.histograms + written.rejected, 1);
    let series = bed.series("h").pop()?;
    match series.samples.into_iter().next()?.value {
        Value::Histogram(histogram) => Some((*histogram).clone()),
        Value::Float(_) => None,
    }
}

#[test]
fn histograms_that_contradict_themselves_are_refused() {
    let float = || Histogram {
        count: Some(HistogramCount::Float(2.5)),
        zero_count: Some(ZeroCount::Float(0.5)),
        positive_spans: vec![BucketSpan {
            offset: 0,
            length: 2,
        }],
        positive_counts: vec![1.0, 1.0],
        positive_deltas: Vec::new(),
        negative_spans: Vec::new(),
        negative_deltas: Vec::new(),
        ..native(0)
    };
    let custom = || Histogram {
        count: Some(HistogramCount::Int(3)),
        schema: -53,
        zero_threshold: 0.0,
        zero_count: Some(ZeroCount::Int(0)),
        custom_values: vec![1.0, 2.0],
        positive_spans: vec![BucketSpan {
            offset: 1,
            length: 2,
        }],
        positive_deltas: vec![1, 1],
        negative_spans: Vec::new(),
        negative_deltas: Vec::new(),
        ..native(0)
    };
    assert_eq!(read(float()).unwrap().count, 2.5);
    let found = read(custom()).unwrap();
    assert_eq!(found.positive.as_slice(), [(1, 1.0), (2, 2.0)]);
    assert_eq!(&*found.custom_bounds, [1.0, 2.0]);
    let found = read(Histogram {
        schema: 10,
        ..native(9)
    })
    .unwrap();
    assert_eq!((found.schema, found.positive.total()), (8, 7.0));
    let stale = Histogram {
        sum: f64::from_bits(STALE_NAN_BITS),
        timestamp: T0,
        count: Some(HistogramCount::Int(0)),
        ..Histogram::default()
    };
    assert!(slogate_series::is_stale(read(stale).unwrap().sum));

    let wrong: [(&str, Histogram); 12] = [
        ("count", native(10)),
        (
            "too few buckets",
            Histogram {
                positive_deltas: vec![2, -1],
                ..native(9)
            },
        ),
        (
            "too many buckets",
            Histogram {
                positive_deltas: vec![2, -1, 3, 0],
                ..native(9)
            },
        ),
        (
            "a negative bucket",
            Histogram {
                positive_deltas: vec![2, -3, 6],
                ..native(9)
            },
        ),
        (
            "schema",
            Histogram {
                schema: -5,
                ..native(9)
            },
        ),
        (
            "finer than any",
            Histogram {
                schema: 53,
                ..native(9)
            },
        ),
        (
            "bounds",
            Histogram {
                custom_values: vec![1.0],
                ..native(9)
            },
        ),
        (
            "a gap backwards",
            Histogram {
                positive_spans: vec![
                    BucketSpan {
                        offset: 5,
                        length: 2,
                    },
                    BucketSpan {
                        offset: -1,
                        length: 1,
                    },
                ],
                ..native(9)
            },
        ),
        (
            "NaN in a bucket",
            Histogram {
                positive_counts: vec![f64::NAN, 1.0],
                ..float()
            },
        ),
        (
            "disordered bounds",
            Histogram {
                custom_values: vec![2.0, 1.0],
                ..custom()
            },
        ),
        (
            "a bucket without bound",
            Histogram {
                positive_spans: vec![BucketSpan {
                    offset: 2,
                    length: 2,
                }],
                ..custom()
            },
        ),
        (
            "a zero bucket",
            Histogram {
                zero_threshold: 0.1,
                ..custom()
            },
        ),
    ];
    for (what, histogram) in wrong {
        assert!(read(histogram).is_none(), "{what}");
    }
}

/// A request with one of everything.
fn one_of_everything() -> WriteRequest {
    let mut counter = series(
        &[
            ("__name__", "x_total"),
            ("service_name", "shop"),
            ("service_version", "1"),
        ],
        &[(T0 - 10, 1.0), (T0, 2.0)],
    );
    counter.exemplars = vec![Exemplar1 {
        labels: vec![label("trace_id", "abc")],
        value: 0.5,
        timestamp: T0,
    }];
    let mut histogram = series(&[("__name__", "h"), ("job", "api")], &[]);
    histogram.histograms = vec![native(9)];
    WriteRequest {
        timeseries: vec![counter, histogram],
        metadata: vec![Metadata1 {
            kind: 1,
            name: "x_total".to_owned(),
            help: "Counts.".to_owned(),
            unit: String::new(),
        }],
    }
}

proptest! {
    /// Whatever the network makes of a request: no panic, and every sample is accounted for.
    #[test]
    fn damaged_requests_are_taken_or_refused_but_never_half(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        second in any::<bool>(),
    ) {
        let version = BOTH[usize::from(second)];
        let mut bytes = encoded(&one_of_everything(), version);
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let bed = Bed::new();
        match bed.ingest.remote_write(version, &bytes, T0) {
            Ok(first) => {
                let again = bed.ingest.remote_write(version, &bytes, T0).unwrap();
                let total = |w: &Written| w.samples + w.histograms + w.rejected;
                prop_assert_eq!(total(&first), total(&again));
            }
            Err(_) => prop_assert_eq!(bed.store.stats().samples, 0),
        }
    }

    /// 1.0 and 2.0 say the same thing: the same requests leave the same store.
    #[test]
    fn both_messages_leave_the_same_series(
        rows in proptest::collection::vec(("[ab]{0,1}", "[xy]{0,1}", 0..5i64, -2..3i64), 0..20),
    ) {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, label, t, value)| {
                let labels = [("__name__", name.as_str()), ("l", label.as_str())];
                series(&labels, &[(T0 + t, *value as f64)])
            })
            .collect();
        let beds = BOTH.map(|version| {
            let bed = Bed::new();
            let written = write(&bed, &request(rows.clone()), version);
            // Which example is given depends on the order of the store's shards.
            let written = Written { message: String::new(), ..written };
            (written, bed.store.select(&[], i64::MIN, i64::MAX))
        });
        prop_assert_eq!(&beds[0], &beds[1]);
        prop_assert_eq!(beds[0].0.samples + beds[0].0.rejected, rows.len() as u64);
    }
}
