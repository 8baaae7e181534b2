//! The remote-write views against prost: what prost wrote, the views must read back whole; what
//! the writer wrote, prost must read; and whatever the bytes, the views must not panic.

mod messages;

use messages::{
    BucketSpan, Exemplar1, Exemplar2, Histogram, HistogramCount, Label, Metadata1, Metadata2,
    Request, Sample, TimeSeries1, TimeSeries2, WriteRequest, ZeroCount,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use slogate_series::{Buckets, ResetHint};
use slogate_wire::WireError;
use slogate_wire::proto::{Reader, View};
use slogate_wire::remote_write::{self, Count, encode, v1, v2};

fn float() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("NaN equals nothing", |value| !value.is_nan())
}

fn sample(has_start: bool) -> impl Strategy<Value = Sample> {
    (float(), any::<i64>(), any::<i64>()).prop_map(move |(value, timestamp, start)| Sample {
        value,
        timestamp,
        start_timestamp: if has_start { start } else { 0 },
    })
}

fn spans() -> impl Strategy<Value = Vec<BucketSpan>> {
    let span = (any::<i32>(), any::<u32>());
    vec(
        span.prop_map(|(offset, length)| BucketSpan { offset, length }),
        0..3,
    )
}

fn histogram() -> impl Strategy<Value = Histogram> {
    let counts = (
        option::of(prop_oneof![
            any::<u64>().prop_map(HistogramCount::Int),
            float().prop_map(HistogramCount::Float)
        ]),
        option::of(prop_oneof![
            any::<u64>().prop_map(ZeroCount::Int),
            float().prop_map(ZeroCount::Float)
        ]),
    );
    let scalars = (
        float(),
        any::<i32>(),
        float(),
        0..5i32,
        any::<i64>(),
        any::<i64>(),
    );
    let side = || (spans(), vec(any::<i64>(), 0..4), vec(float(), 0..4));
    (counts, scalars, side(), side(), vec(float(), 0..4)).prop_map(
        |(counts, scalars, negative, positive, custom_values)| Histogram {
            count: counts.0,
            zero_count: counts.1,
            sum: scalars.0,
            schema: scalars.1,
            zero_threshold: scalars.2,
            reset_hint: scalars.3,
            timestamp: scalars.4,
            start_timestamp: scalars.5,
            negative_spans: negative.0,
            negative_deltas: negative.1,
            negative_counts: negative.2,
            positive_spans: positive.0,
            positive_deltas: positive.1,
            positive_counts: positive.2,
            custom_values,
        },
    )
}

fn labels() -> impl Strategy<Value = Vec<Label>> {
    // Long ones too: their lengths take two bytes.
    let text = || prop_oneof![".{0,6}", "[a-z]{120,140}"];
    vec(
        (text(), text()).prop_map(|(name, value)| Label { name, value }),
        0..5,
    )
}

fn request1() -> impl Strategy<Value = WriteRequest> {
    let exemplar =
        (labels(), float(), any::<i64>()).prop_map(|(labels, value, timestamp)| Exemplar1 {
            labels,
            value,
            timestamp,
        });
    let series = (
        labels(),
        vec(sample(false), 0..3),
        vec(exemplar, 0..3),
        vec(histogram(), 0..2),
    )
        .prop_map(|(labels, samples, exemplars, histograms)| TimeSeries1 {
            labels,
            samples,
            exemplars,
            histograms,
        });
    let metadata =
        (any::<i32>(), ".{0,6}", ".{0,6}", ".{0,6}").prop_map(|(kind, name, help, unit)| {
            Metadata1 {
                kind,
                name,
                help,
                unit,
            }
        });
    (vec(series, 0..4), vec(metadata, 0..3)).prop_map(|(timeseries, metadata)| WriteRequest {
        timeseries,
        metadata,
    })
}

fn request2() -> impl Strategy<Value = Request> {
    let refs = || vec(any::<u32>(), 0..6);
    let exemplar =
        (refs(), float(), any::<i64>()).prop_map(|(labels_refs, value, timestamp)| Exemplar2 {
            labels_refs,
            value,
            timestamp,
        });
    let metadata =
        (any::<i32>(), any::<u32>(), any::<u32>()).prop_map(|(kind, help, unit)| Metadata2 {
            kind,
            help_ref: help,
            unit_ref: unit,
        });
    let series = (
        refs(),
        vec(sample(true), 0..3),
        vec(histogram(), 0..2),
        vec(exemplar, 0..3),
        option::of(metadata),
    )
        .prop_map(
            |(labels_refs, samples, histograms, exemplars, metadata)| TimeSeries2 {
                labels_refs,
                samples,
                histograms,
                exemplars,
                metadata,
            },
        );
    (vec(".{0,6}", 0..6), vec(series, 0..4)).prop_map(|(symbols, timeseries)| Request {
        symbols,
        timeseries,
    })
}

// Reading with the views, back into the prost types.

type Read<T> = Result<T, WireError>;

fn read_sample(sample: Read<remote_write::Sample>) -> Read<Sample> {
    let sample = sample?;
    Ok(Sample {
        value: sample.value,
        timestamp: sample.t_ms,
        start_timestamp: sample.start_ms,
    })
}

fn read_histogram(histogram: Read<remote_write::Histogram<'_>>) -> Read<Histogram> {
    let histogram = histogram?;
    let span = |span: Read<remote_write::BucketSpan>| {
        span.map(|span| BucketSpan {
            offset: span.offset,
            length: span.length,
        })
    };
    Ok(Histogram {
        count: histogram.count.map(|count| match count {
            Count::Int(count) => HistogramCount::Int(count),
            Count::Float(count) => HistogramCount::Float(count),
        }),
        sum: histogram.sum,
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        zero_count: histogram.zero_count.map(|count| match count {
            Count::Int(count) => ZeroCount::Int(count),
            Count::Float(count) => ZeroCount::Float(count),
        }),
        negative_spans: histogram.negative_spans().map(span).collect::<Read<_>>()?,
        negative_deltas: histogram.negative_deltas().collect::<Read<_>>()?,
        negative_counts: histogram.negative_counts().collect::<Read<_>>()?,
        positive_spans: histogram.positive_spans().map(span).collect::<Read<_>>()?,
        positive_deltas: histogram.positive_deltas().collect::<Read<_>>()?,
        positive_counts: histogram.positive_counts().collect::<Read<_>>()?,
        reset_hint: histogram.reset_hint,
        timestamp: histogram.t_ms,
        custom_values: histogram.custom_values().collect::<Read<_>>()?,
        start_timestamp: histogram.start_ms,
    })
}

fn read_label(label: Read<v1::Label<'_>>) -> Read<Label> {
    label.map(|label| Label {
        name: label.name.to_owned(),
        value: label.value.to_owned(),
    })
}

fn read1(bytes: &[u8]) -> Read<WriteRequest> {
    let request = v1::WriteRequest::new(bytes);
    let mut scratch = Vec::new();
    let mut read = WriteRequest::default();
    for series in request.timeseries() {
        let series = series?;
        let raw = series.raw_labels(&mut scratch)?;
        let from_raw = v1::labels(raw).map(read_label).collect::<Read<Vec<_>>>()?;
        let labels = series.labels().map(read_label).collect::<Read<Vec<_>>>()?;
        assert_eq!(from_raw, labels);
        let exemplars = series.exemplars().map(|exemplar| {
            let exemplar = exemplar?;
            Ok(Exemplar1 {
                labels: exemplar.labels().map(read_label).collect::<Read<_>>()?,
                value: exemplar.value,
                timestamp: exemplar.t_ms,
            })
        });
        read.timeseries.push(TimeSeries1 {
            labels,
            samples: series.samples().map(read_sample).collect::<Read<_>>()?,
            exemplars: exemplars.collect::<Read<_>>()?,
            histograms: series
                .histograms()
                .map(read_histogram)
                .collect::<Read<_>>()?,
        });
    }
    for metadata in request.metadata() {
        let metadata = metadata?;
        read.metadata.push(Metadata1 {
            kind: metadata.kind,
            name: metadata.name.to_owned(),
            help: metadata.help.to_owned(),
            unit: metadata.unit.to_owned(),
        });
    }
    Ok(read)
}

fn read2(bytes: &[u8]) -> Read<Request> {
    let request = v2::Request::new(bytes);
    let symbols = request.symbols().map(|text| text.map(str::to_owned));
    let refs = |refs: slogate_wire::proto::Varints<'_>| {
        refs.map(|at| at.map(|at| at as u32))
            .collect::<Read<Vec<_>>>()
    };
    let timeseries = request.timeseries().map(|series| {
        let series = series?;
        let exemplars = series.exemplars().map(|exemplar| {
            let exemplar = exemplar?;
            Ok(Exemplar2 {
                labels_refs: refs(exemplar.labels_refs())?,
                value: exemplar.value,
                timestamp: exemplar.t_ms,
            })
        });
        let metadata = series.metadata;
        Ok(TimeSeries2 {
            labels_refs: refs(series.labels_refs())?,
            samples: series.samples().map(read_sample).collect::<Read<_>>()?,
            histograms: series
                .histograms()
                .map(read_histogram)
                .collect::<Read<_>>()?,
            exemplars: exemplars.collect::<Read<_>>()?,
            metadata: Some(Metadata2 {
                kind: metadata.kind,
                help_ref: metadata.help_ref,
                unit_ref: metadata.unit_ref,
            }),
        })
    });
    Ok(Request {
        symbols: symbols.collect::<Read<_>>()?,
        timeseries: timeseries.collect::<Read<_>>()?,
    })
}

proptest! {
    #[test]
    fn a_1_0_request_is_read_whole(request in request1()) {
        prop_assert_eq!(read1(&request.encode_to_vec()).unwrap(), request);
    }

    #[test]
    fn a_2_0_request_is_read_whole(request in request2()) {
        let mut expected = request.clone();
        for series in &mut expected.timeseries {
            series.metadata.get_or_insert_default();
        }
        prop_assert_eq!(read2(&request.encode_to_vec()).unwrap(), expected);
    }

    /// What the other tests take for the same request is the same request.
    #[test]
    fn a_request_says_the_same_in_2_0(labels in labels(), samples in vec(sample(false), 1..3)) {
        let labels = [vec![messages::label("__name__", "up")], labels].concat();
        let request = WriteRequest {
            timeseries: vec![TimeSeries1 { labels: labels.clone(), samples, ..Default::default() }],
            metadata: Vec::new(),
        };
        let read = read2(&request.to_v2().encode_to_vec()).unwrap();
        prop_assert_eq!(&read.symbols[0], "");
        let series = &read.timeseries[0];
        let texts = series.labels_refs.iter().map(|at| read.symbols[*at as usize].as_str());
        prop_assert!(texts.eq(labels.iter().flat_map(|l| [l.name.as_str(), l.value.as_str()])));
        prop_assert_eq!(&series.samples, &request.timeseries[0].samples);
    }

    /// Labels may come anywhere in a series: protobuf fields have no order.
    #[test]
    fn scattered_labels_are_found(a in labels(), b in labels(), samples in vec(sample(false), 1..3)) {
        let part = |labels: &[Label], samples: &[Sample]| TimeSeries1 {
            labels: labels.to_vec(),
            samples: samples.to_vec(),
            ..TimeSeries1::default()
        };
        let series = [
            part(&a, &samples).encode_to_vec(),
            part(&b, &samples).encode_to_vec(),
        ]
        .concat();
        let mut request = vec![0x0a];
        prost::encoding::encode_varint(series.len() as u64, &mut request);
        request.extend(series);
        let read = read1(&request).unwrap();
        prop_assert_eq!(&read.timeseries[0].labels, &[a, b].concat());
        prop_assert_eq!(read.timeseries[0].samples.len(), 2 * samples.len());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, cut in request1(), at: prop::sample::Index) {
        let _ = (read1(&bytes), read2(&bytes));
        let whole = cut.encode_to_vec();
        if !whole.is_empty() {
            let _ = read1(&whole[..at.index(whole.len())]);
        }
        let _ = v1::TimeSeries::read(Reader::new(&bytes));
    }

    /// What the writer writes is what prost reads, histograms with gaps and far indexes included.
    #[test]
    fn prost_reads_what_the_writer_writes(
        labels in labels(),
        floats in vec((any::<i64>(), float()), 0..4),
        indexes in proptest::collection::btree_set(-1_000_000_000..1_000_000_000, 0..5),
        dense in -10..10i32,
        bounds in vec(float(), 0..3),
    ) {
        let positive: Vec<_> = indexes.iter().map(|index| (*index, 2.5)).collect();
        let histogram = slogate_series::Histogram {
            schema: 3,
            reset_hint: ResetHint::Gauge,
            zero_threshold: 0.5,
            zero_count: 1.0,
            count: 7.5,
            sum: -4.0,
            positive: Buckets::from_sorted(positive.clone()),
            negative: Buckets::from_dense(dense, [1.0, 2.0, 0.0, 4.0]),
            custom_bounds: bounds.clone().into(),
        };
        let mut out = Vec::new();
        let pairs = labels.iter().map(|label| (&*label.name, &*label.value));
        encode::series(&mut out, pairs, floats.iter().copied(), [(9, &histogram)].into_iter());
        encode::metadata(&mut out, 3, "m", "help", "s");
        let read = WriteRequest::decode(&*out).unwrap();
        let series = &read.timeseries[0];
        prop_assert_eq!(&series.labels, &labels);
        let samples: Vec<_> = series.samples.iter().map(|s| (s.timestamp, s.value)).collect();
        prop_assert_eq!(samples, floats);
        let written = &series.histograms[0];
        prop_assert_eq!(&written.count, &Some(HistogramCount::Float(7.5)));
        prop_assert_eq!(&written.zero_count, &Some(ZeroCount::Float(1.0)));
        prop_assert_eq!(
            (written.sum, written.schema, written.zero_threshold, written.reset_hint, written.timestamp),
            (-4.0, 3, 0.5, 3, 9)
        );
        prop_assert_eq!(&written.custom_values, &bounds);
        prop_assert_eq!(entries(&written.positive_spans, &written.positive_counts), positive);
        prop_assert_eq!(
            entries(&written.negative_spans, &written.negative_counts),
            vec![(dense, 1.0), (dense + 1, 2.0), (dense + 3, 4.0)]
        );
        prop_assert_eq!((&*read.metadata[0].name, read.metadata[0].kind), ("m", 3));
    }
}

/// Spans and counts as `(index, count)`.
fn entries(spans: &[BucketSpan], counts: &[f64]) -> Vec<(i32, f64)> {
    let mut next = 0_i64;
    let mut indexes = Vec::new();
    for span in spans {
        next += i64::from(span.offset);
        for _ in 0..span.length {
            indexes.push(i32::try_from(next).expect("an index"));
            next += 1;
        }
    }
    assert_eq!(indexes.len(), counts.len());
    indexes.into_iter().zip(counts.iter().copied()).collect()
}
