//! Remote write 1.0 requests, as a sender writes them (`prometheus.WriteRequest`, snappy).

use slogate_series::{Buckets, Histogram, Labels, ResetHint, Series, Value};

use super::{Reply, block_on};

/// What a sender says of a body.
pub(crate) const HEADERS: [(&str, &str); 3] = [
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

/// Sends a body to a URL.
pub(crate) fn post(url: &str, body: Vec<u8>) -> Reply {
    let sent = block_on(async {
        let mut request = reqwest::Client::new().post(url).body(body);
        for (name, value) in HEADERS {
            request = request.header(name, value);
        }
        super::send(request).await
    });
    sent.unwrap_or_else(|error| panic!("POST {url}: {error:?}"))
}

/// How much time one request covers at most. A Prometheus refuses what lies an hour or more
/// behind its newest sample, so series don't go one after the other.
const SPAN_MS: i64 = 600_000;

/// The bodies of the requests that send all samples, the oldest first.
pub(crate) fn requests(series: &[Series]) -> Vec<Vec<u8>> {
    let times = || series.iter().flat_map(|one| &one.samples).map(|s| s.t_ms);
    let (Some(first_ms), Some(last_ms)) = (times().min(), times().max()) else {
        return Vec::new();
    };
    let mut bodies = Vec::new();
    let mut start_ms = first_ms;
    while start_ms <= last_ms {
        let window = start_ms..start_ms + SPAN_MS;
        let timeseries: Vec<_> = series
            .iter()
            .map(|one| time_series(one, window.clone()))
            .filter(|one| !(one.samples.is_empty() && one.histograms.is_empty()))
            .collect();
        if !timeseries.is_empty() {
            bodies.push(body(&proto::WriteRequest { timeseries }));
        }
        start_ms = window.end;
    }
    bodies
}

fn body(request: &proto::WriteRequest) -> Vec<u8> {
    let bytes = prost::Message::encode_to_vec(request);
    snap::raw::Encoder::new()
        .compress_vec(&bytes)
        .expect("a body that is not too large")
}

fn labels(labels: &Labels) -> Vec<proto::Label> {
    let pairs = labels.iter();
    pairs
        .map(|label| proto::Label {
            name: label.name.to_string(),
            value: label.value.to_string(),
        })
        .collect()
}

fn time_series(series: &Series, window_ms: std::ops::Range<i64>) -> proto::TimeSeries {
    let mut sent = proto::TimeSeries {
        labels: labels(&series.labels),
        samples: Vec::new(),
        histograms: Vec::new(),
    };
    for sample in series
        .samples
        .iter()
        .filter(|s| window_ms.contains(&s.t_ms))
    {
        match &sample.value {
            Value::Float(value) => sent.samples.push(proto::Sample {
                value: *value,
                timestamp: sample.t_ms,
            }),
            Value::Histogram(h) => sent.histograms.push(histogram(h, sample.t_ms)),
        }
    }
    sent
}

/// Whole counts go as integers, as clients send them, others as floats.
fn histogram(h: &Histogram, timestamp: i64) -> proto::Histogram {
    let counts = || {
        let buckets = h.positive.iter().chain(h.negative.iter());
        buckets
            .map(|(_, count)| count)
            .chain([h.count, h.zero_count])
    };
    let is_whole = counts().all(|count| count.fract() == 0.0 && count >= 0.0);
    let mut sent = proto::Histogram {
        sum: h.sum,
        schema: h.schema.into(),
        zero_threshold: h.zero_threshold,
        negative_spans: spans(&h.negative),
        positive_spans: spans(&h.positive),
        reset_hint: match h.reset_hint {
            ResetHint::Unknown => 0,
            ResetHint::Reset => 1,
            ResetHint::NotReset => 2,
            ResetHint::Gauge => 3,
        },
        timestamp,
        custom_values: h.custom_bounds.to_vec(),
        ..proto::Histogram::default()
    };
    let absolute = |buckets: &Buckets| buckets.iter().map(|(_, count)| count).collect();
    if is_whole {
        sent.count = Some(proto::Count::CountInt(h.count as u64));
        sent.zero_count = Some(proto::ZeroCount::ZeroCountInt(h.zero_count as u64));
        sent.positive_deltas = deltas(&h.positive);
        sent.negative_deltas = deltas(&h.negative);
    } else {
        sent.count = Some(proto::Count::CountFloat(h.count));
        sent.zero_count = Some(proto::ZeroCount::ZeroCountFloat(h.zero_count));
        sent.positive_counts = absolute(&h.positive);
        sent.negative_counts = absolute(&h.negative);
    }
    sent
}

/// Runs of neighbouring buckets.
fn spans(buckets: &Buckets) -> Vec<proto::BucketSpan> {
    let mut spans: Vec<proto::BucketSpan> = Vec::new();
    // The first offset counts from 0, the others from the end of the span before.
    let mut next = 0;
    for (index, _) in buckets.iter() {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => spans.push(proto::BucketSpan {
                offset: index - next,
                length: 1,
            }),
        }
        next = index + 1;
    }
    spans
}

fn deltas(buckets: &Buckets) -> Vec<i64> {
    let mut before = 0;
    let mut deltas = Vec::new();
    for (_, count) in buckets.iter() {
        deltas.push(count as i64 - before);
        before = count as i64;
    }
    deltas
}

/// The messages of `prompb/remote.proto` and `prompb/types.proto` that are sent.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub(super) timeseries: Vec<TimeSeries>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub(super) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(super) samples: Vec<Sample>,
        #[prost(message, repeated, tag = "4")]
        pub(super) histograms: Vec<Histogram>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Label {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sample {
        #[prost(double, tag = "1")]
        pub(super) value: f64,
        #[prost(int64, tag = "2")]
        pub(super) timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct BucketSpan {
        #[prost(sint32, tag = "1")]
        pub(super) offset: i32,
        #[prost(uint32, tag = "2")]
        pub(super) length: u32,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Count {
        #[prost(uint64, tag = "1")]
        CountInt(u64),
        #[prost(double, tag = "2")]
        CountFloat(f64),
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum ZeroCount {
        #[prost(uint64, tag = "6")]
        ZeroCountInt(u64),
        #[prost(double, tag = "7")]
        ZeroCountFloat(f64),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Histogram {
        #[prost(oneof = "Count", tags = "1, 2")]
        pub(super) count: Option<Count>,
        #[prost(double, tag = "3")]
        pub(super) sum: f64,
        #[prost(sint32, tag = "4")]
        pub(super) schema: i32,
        #[prost(double, tag = "5")]
        pub(super) zero_threshold: f64,
        #[prost(oneof = "ZeroCount", tags = "6, 7")]
        pub(super) zero_count: Option<ZeroCount>,
        #[prost(message, repeated, tag = "8")]
        pub(super) negative_spans: Vec<BucketSpan>,
        #[prost(sint64, repeated, tag = "9")]
        pub(super) negative_deltas: Vec<i64>,
        #[prost(double, repeated, tag = "10")]
        pub(super) negative_counts: Vec<f64>,
        #[prost(message, repeated, tag = "11")]
        pub(super) positive_spans: Vec<BucketSpan>,
        #[prost(sint64, repeated, tag = "12")]
        pub(super) positive_deltas: Vec<i64>,
        #[prost(double, repeated, tag = "13")]
        pub(super) positive_counts: Vec<f64>,
        #[prost(int32, tag = "14")]
        pub(super) reset_hint: i32,
        #[prost(int64, tag = "15")]
        pub(super) timestamp: i64,
        #[prost(double, repeated, tag = "16")]
        pub(super) custom_values: Vec<f64>,
    }
}
