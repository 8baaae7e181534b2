//! OTLP metrics to series: types, deltas, budgets, refusals.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exemplar, metric, number_data_point,
};

use super::*;

const CUMULATIVE: i32 = 2;
const DELTA: i32 = 1;
const NS: u64 = 1_000_000;

fn request_of(resource: Option<Resource>, metrics: Vec<Metric>) -> Vec<u8> {
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource,
            scope_metrics: vec![ScopeMetrics {
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
    .encode_to_vec()
}

fn metric(name: &str, unit: &str, data: metric::Data) -> Metric {
    Metric {
        name: name.into(),
        unit: unit.into(),
        description: "Words.".into(),
        data: Some(data),
        ..Metric::default()
    }
}

fn at(ms: i64) -> u64 {
    (T0 + ms) as u64 * NS
}

fn point(ms: i64, value: f64) -> NumberDataPoint {
    NumberDataPoint {
        time_unix_nano: at(ms),
        start_time_unix_nano: at(-5_000),
        attributes: vec![text("http.route", "/pay")],
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn sum(temporality: i32, monotonic: bool, points: Vec<NumberDataPoint>) -> metric::Data {
    metric::Data::Sum(Sum {
        data_points: points,
        aggregation_temporality: temporality,
        is_monotonic: monotonic,
    })
}

fn gauge(points: Vec<NumberDataPoint>) -> metric::Data {
    metric::Data::Gauge(Gauge {
        data_points: points,
    })
}

fn classic(ms: i64, counts: &[u64], sum: Option<f64>) -> HistogramDataPoint {
    HistogramDataPoint {
        time_unix_nano: at(ms),
        start_time_unix_nano: at(ms - 1_000),
        count: counts.iter().sum(),
        sum,
        bucket_counts: counts.to_vec(),
        explicit_bounds: vec![0.25, 1.0],
        ..HistogramDataPoint::default()
    }
}

fn histogram(temporality: i32, points: Vec<HistogramDataPoint>) -> metric::Data {
    metric::Data::Histogram(Histogram {
        data_points: points,
        aggregation_temporality: temporality,
    })
}

impl Bed {
    fn metrics(&self, metrics: Vec<Metric>) -> Outcome {
        let request = request_of(service("shop", "1"), metrics);
        self.ingest.metrics(&request, T0 + 10_000).unwrap()
    }

    fn take(&self, metrics: Vec<Metric>) {
        let outcome = self.metrics(metrics);
        assert_eq!((outcome.rejected, outcome.message.as_str()), (0, ""));
    }

    /// `(time after T0, value)` of the only series of a metric with the label.
    fn samples(&self, metric: &str, label: (&str, &str)) -> Vec<(i64, f64)> {
        let series = self.select(&[("__name__", metric), label]);
        assert_eq!(series.len(), 1, "{metric} {label:?}: {series:?}");
        let samples = series[0].samples.iter();
        samples.map(|s| (s.t_ms - T0, number(&s.value))).collect()
    }
}

#[test]
fn each_type_becomes_its_series() {
    let bed = Bed::new();
    let exponential = ExponentialHistogramDataPoint {
        time_unix_nano: at(0),
        count: 6,
        sum: Some(9.5),
        scale: 1,
        zero_count: 1,
        positive: Some(Buckets {
            offset: -2,
            bucket_counts: vec![2, 0, 3],
        }),
        ..ExponentialHistogramDataPoint::default()
    };
    let summary = SummaryDataPoint {
        time_unix_nano: at(0),
        count: 4,
        sum: 2.5,
        quantile_values: vec![ValueAtQuantile {
            quantile: 0.5,
            value: 0.6,
        }],
        ..SummaryDataPoint::default()
    };
    bed.take(vec![
        metric(
            "http.requests",
            "{request}",
            sum(CUMULATIVE, true, vec![point(0, 7.0)]),
        ),
        metric(
            "queue.length",
            "{item}",
            sum(CUMULATIVE, false, vec![point(0, -2.0)]),
        ),
        metric("cpu.usage", "1", gauge(vec![point(0, 0.5)])),
        metric(
            "wait",
            "s",
            histogram(CUMULATIVE, vec![classic(0, &[1, 2, 3], Some(4.5))]),
        ),
        metric(
            "size",
            "By",
            metric::Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![exponential],
                aggregation_temporality: CUMULATIVE,
            }),
        ),
        metric(
            "rpc",
            "s",
            metric::Data::Summary(Summary {
                data_points: vec![summary],
            }),
        ),
    ]);
    let common = "deployment_environment_name=\"production\"";
    let tail = "job=\"shop\", service_name=\"shop\", service_version=\"1\"}";
    let number_labels = format!("{{{common}, http_route=\"/pay\", {tail}");
    let plain = format!("{{{common}, {tail}");
    assert_eq!(
        bed.last("http_requests_total"),
        [(number_labels.clone(), 7.0)]
    );
    assert_eq!(bed.last("queue_length"), [(number_labels.clone(), -2.0)]);
    assert_eq!(bed.last("cpu_usage_ratio"), [(number_labels, 0.5)]);
    let bucket = |le: &str| format!("{{{common}, job=\"shop\", le=\"{le}\", {}", &tail[12..]);
    assert_eq!(
        bed.last("wait_seconds_bucket"),
        [
            (bucket("+Inf"), 6.0),
            (bucket("0.25"), 1.0),
            (bucket("1"), 3.0)
        ]
    );
    assert_eq!(bed.last("wait_seconds_sum"), [(plain.clone(), 4.5)]);
    assert_eq!(bed.last("wait_seconds_count"), [(plain.clone(), 6.0)]);
    assert_eq!(bed.last("rpc_seconds_sum"), [(plain.clone(), 2.5)]);
    assert_eq!(bed.last("rpc_seconds_count"), [(plain, 4.0)]);
    assert_eq!(bed.samples("rpc_seconds", ("quantile", "0.5")), [(0, 0.6)]);
    let size = bed.series("size_bytes");
    let Value::Histogram(size) = &size[0].samples[0].value else {
        panic!("an exponential histogram is a native one");
    };
    assert_eq!(
        (size.schema, size.count, size.sum, size.zero_count),
        (1, 6.0, 9.5, 1.0)
    );
    assert_eq!(
        size.positive.as_slice(),
        [(-1, 2.0), (1, 3.0)],
        "upper-bound numbering"
    );
    assert_eq!(size.zero_threshold, 1e-128);
    let metadata = bed.store.metadata(Some("wait_seconds"), 10);
    assert_eq!(metadata[0].1.kind, slogate_tsdb::MetricKind::Histogram);
    assert_eq!(
        (&*metadata[0].1.unit, &*metadata[0].1.help),
        ("seconds", "Words.")
    );
}

#[test]
fn a_known_series_is_found_again_and_start_times_are_kept() {
    let bed = Bed::new();
    for ms in [0, 1_000, 2_000] {
        bed.take(vec![metric(
            "c",
            "",
            sum(CUMULATIVE, true, vec![point(ms, ms as f64)]),
        )]);
    }
    let series = bed.series("c_total");
    let samples = series[0].samples.iter();
    let samples: Vec<_> = samples.map(|s| (s.t_ms - T0, s.start_ms - T0)).collect();
    assert_eq!(samples, [(0, -5_000), (1_000, -5_000), (2_000, -5_000)]);
    assert_eq!(bed.ingest.stats().metric_series, 1);
    let items = bed.ingest.stats();
    assert_eq!(items.signals[1].accepted, 3);
}

#[test]
fn points_that_differ_only_in_attributes_are_kept_apart() {
    let bed = Bed::new();
    let with = |pairs: &[(&str, &str)], value| NumberDataPoint {
        attributes: pairs.iter().map(|(k, v)| text(k, v)).collect(),
        ..point(0, value)
    };
    bed.take(vec![metric(
        "g",
        "",
        gauge(vec![
            with(&[("a", "1")], 1.0),
            with(&[("a", "2")], 2.0),
            with(&[("a.b", "x"), ("a_b", "y")], 3.0),
            with(&[], 4.0),
            with(&[("job", "mine"), ("service.version", "9")], 5.0),
        ]),
    )]);
    assert_eq!(bed.samples("g", ("a", "1")), [(0, 1.0)]);
    assert_eq!(bed.samples("g", ("a", "2")), [(0, 2.0)]);
    assert_eq!(
        bed.samples("g", ("a_b", "x;y")),
        [(0, 3.0)],
        "colliding names are joined"
    );
    assert_eq!(
        bed.samples("g", ("service_version", "9")),
        [(0, 5.0)],
        "the point's own wins"
    );
    assert!(
        bed.select(&[("job", "mine")]).is_empty(),
        "job is the resource's"
    );
    assert_eq!(bed.series("g").len(), 5);
}

#[test]
fn deltas_add_up_and_begin_with_a_zero() {
    let bed = Bed::new();
    let delta = |from: i64, to: i64, value| NumberDataPoint {
        start_time_unix_nano: at(from),
        ..point(to, value)
    };
    let send = |points| bed.metrics(vec![metric("d", "", sum(DELTA, true, points))]);
    send(vec![delta(0, 1_000, 5.0), delta(1_000, 2_000, 2.0)]);
    let outcome = send(vec![delta(1_500, 2_500, 9.0), delta(2_000, 3_000, 1.0)]);
    assert_eq!((outcome.accepted, outcome.rejected), (1, 1));
    assert!(outcome.message.contains("overlaps"), "{}", outcome.message);
    let want = [(0, 0.0), (1_000, 5.0), (2_000, 7.0), (3_000, 8.0)];
    assert_eq!(bed.samples("d_total", ("job", "shop")), want);
    // A restart starts the count again, after a zero of its own.
    let bed = Bed::over(bed.store.clone(), IngestOptions::default(), T0);
    bed.take(vec![metric(
        "d",
        "",
        sum(DELTA, true, vec![delta(4_000, 5_000, 3.0)]),
    )]);
    let samples = bed.samples("d_total", ("job", "shop"));
    assert_eq!(samples[4..], [(4_000, 0.0), (5_000, 3.0)]);
}

#[test]
fn delta_histograms_of_both_kinds_add_up() {
    let bed = Bed::new();
    let exponential = |ms: i64, scale, counts: Vec<u64>| {
        let point = ExponentialHistogramDataPoint {
            time_unix_nano: at(ms),
            start_time_unix_nano: at(ms - 1_000),
            count: counts.iter().sum(),
            sum: Some(1.0),
            scale,
            positive: Some(Buckets {
                offset: 0,
                bucket_counts: counts,
            }),
            ..ExponentialHistogramDataPoint::default()
        };
        let data = metric::Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![point],
            aggregation_temporality: DELTA,
        });
        metric("e", "", data)
    };
    let classic_at = |ms, counts: &[u64]| {
        metric(
            "h",
            "",
            histogram(DELTA, vec![classic(ms, counts, Some(1.0))]),
        )
    };
    bed.take(vec![
        classic_at(1_000, &[1, 0, 2]),
        exponential(1_000, 3, vec![1, 1]),
    ]);
    bed.take(vec![
        classic_at(2_000, &[0, 5, 0]),
        exponential(2_000, 2, vec![4]),
    ]);
    assert_eq!(
        bed.samples("h_bucket", ("le", "0.25")),
        [(0, 0.0), (1_000, 1.0), (2_000, 1.0)]
    );
    assert_eq!(
        bed.samples("h_bucket", ("le", "1")),
        [(0, 0.0), (1_000, 1.0), (2_000, 6.0)]
    );
    assert_eq!(
        bed.samples("h_count", ("job", "shop")),
        [(0, 0.0), (1_000, 3.0), (2_000, 8.0)]
    );
    assert_eq!(
        bed.samples("h_sum", ("job", "shop")),
        [(0, 0.0), (1_000, 1.0), (2_000, 2.0)]
    );
    let series = bed.series("e");
    let Value::Histogram(last) = &series[0].samples.last().unwrap().value else {
        panic!("an exponential histogram is a native one");
    };
    assert_eq!(
        (last.schema, last.count),
        (2, 6.0),
        "the coarser scale of the two"
    );
    assert_eq!(last.positive.as_slice(), [(1, 6.0)]);
}

#[test]
fn finer_scales_than_prometheus_has_are_merged_and_coarser_ones_refused() {
    let bed = Bed::new();
    let at_scale = |name: &str, scale| {
        let point = ExponentialHistogramDataPoint {
            time_unix_nano: at(0),
            count: 4,
            scale,
            positive: Some(Buckets {
                offset: 0,
                bucket_counts: vec![1, 1, 1, 1],
            }),
            ..ExponentialHistogramDataPoint::default()
        };
        let data = metric::Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![point],
            aggregation_temporality: CUMULATIVE,
        });
        metric(name, "", data)
    };
    let outcome = bed.metrics(vec![at_scale("fine", 10), at_scale("coarse", -5)]);
    assert_eq!((outcome.accepted, outcome.rejected), (1, 1));
    let series = bed.series("fine");
    let Value::Histogram(fine) = &series[0].samples[0].value else {
        panic!("an exponential histogram is a native one");
    };
    assert_eq!(
        (fine.schema, fine.positive.as_slice()),
        (8, &[(1, 4.0)][..])
    );
}

#[test]
fn no_recorded_value_ends_every_series_of_the_point() {
    let bed = Bed::new();
    let send = |ms, flags| {
        let gauge_point = NumberDataPoint {
            flags,
            value: (flags == 0).then_some(number_data_point::Value::AsInt(3)),
            ..point(ms, 0.0)
        };
        let full = classic(ms, &[1, 1, 1], Some(2.0));
        let empty = HistogramDataPoint {
            bucket_counts: Vec::new(),
            explicit_bounds: Vec::new(),
            sum: None,
            ..full.clone()
        };
        let histogram_point = HistogramDataPoint {
            flags,
            ..if flags == 0 { full } else { empty }
        };
        bed.take(vec![
            metric("g", "", gauge(vec![gauge_point])),
            metric("h", "", histogram(CUMULATIVE, vec![histogram_point])),
        ]);
    };
    send(0, 0);
    send(1_000, 1);
    for name in ["g", "h_bucket", "h_sum", "h_count"] {
        for series in bed.series(name) {
            assert_eq!(series.samples.len(), 2, "{name}");
            assert!(series.samples[1].value.is_stale(), "{name}");
        }
    }
    assert_eq!(bed.series("h_bucket").len(), 3);
}

#[test]
fn one_bad_point_does_not_reject_its_neighbours() {
    let bed = Bed::new();
    let good = || gauge(vec![point(0, 1.0)]);
    let timeless = NumberDataPoint {
        time_unix_nano: 0,
        ..point(0, 1.0)
    };
    let worthless = NumberDataPoint {
        value: None,
        ..point(0, 1.0)
    };
    let nameless = NumberDataPoint {
        attributes: vec![text("...", "x")],
        ..point(0, 1.0)
    };
    let long = NumberDataPoint {
        attributes: vec![text("a", &"x".repeat(5_000))],
        ..point(0, 1.0)
    };
    let crooked = HistogramDataPoint {
        explicit_bounds: vec![1.0, 0.5],
        ..classic(0, &[1, 1, 1], None)
    };
    let outcome = bed.metrics(vec![
        metric("ok", "", good()),
        metric("t", "", gauge(vec![timeless])),
        metric("v", "", gauge(vec![worthless, point(0, 2.0)])),
        metric("n", "", gauge(vec![nameless, long])),
        metric("--", "", good()),
        metric("s", "", sum(0, true, vec![point(0, 1.0)])),
        metric("h", "", histogram(CUMULATIVE, vec![crooked])),
        metric("future", "", gauge(vec![point(3_600_000, 1.0)])),
        Metric::default(),
    ]);
    assert_eq!((outcome.accepted, outcome.rejected), (2, 9));
    assert_eq!(bed.series("ok").len(), 1);
    assert_eq!(bed.samples("v", ("job", "shop")), [(0, 2.0)]);
    for part in [
        "metric \"v\"): the point has no value",
        "lies in the future",
        "temporality",
    ] {
        assert!(
            outcome.message.contains(part),
            "{part}: {}",
            outcome.message
        );
    }
    let reasons: Vec<_> = bed.ingest.stats().signals[1].rejected.clone();
    assert_eq!(reasons.len(), 9);
}

#[test]
fn bytes_that_make_no_label_are_not_kept_without_bound() {
    let bed = Bed::new();
    let hoard = NumberDataPoint {
        attributes: vec![text("__name__", &"x".repeat(40_000))],
        ..point(0, 1.0)
    };
    let outcome = bed.metrics(vec![
        metric("g", "", gauge(vec![hoard])),
        metric("u", &"y".repeat(600), gauge(vec![point(0, 1.0)])),
    ]);
    assert_eq!((outcome.accepted, outcome.rejected), (0, 2));
    assert_eq!(bed.ingest.stats().metric_series, 0);
    for n in 0..100 {
        let pad = "z".repeat(1 << 20);
        let resource = resource(&[("service.name", &format!("s{n}")), ("pad", &pad)]);
        let request = request_of(resource, vec![metric("g", "", gauge(vec![point(0, 1.0)]))]);
        assert_eq!(bed.ingest.metrics(&request, T0).unwrap().rejected, 0);
    }
    assert!(bed.ingest.stats().resources < 70);
}

#[test]
fn over_the_budget_new_series_are_refused_and_known_ones_go_on() {
    let bed = Bed::with(IngestOptions {
        metric_series_per_service: 3,
        ..IngestOptions::default()
    });
    let send = |ms, names: &[&str]| {
        let of = |name: &&str| metric(name, "", gauge(vec![point(ms, 1.0)]));
        bed.metrics(names.iter().map(of).collect())
    };
    assert_eq!(send(0, &["a", "b", "c"]).rejected, 0);
    let outcome = send(1_000, &["a", "d", "e", "c"]);
    assert_eq!((outcome.accepted, outcome.rejected), (2, 2));
    assert!(
        outcome.message.contains("series budget"),
        "{}",
        outcome.message
    );
    assert!(bed.series("d").is_empty());
    // Forgotten series give the budget back.
    let later = T0 + 3 * 3_600_000;
    bed.ingest.tick(later).unwrap();
    assert_eq!(bed.ingest.stats().metric_series, 0);
    let request = request_of(
        service("shop", "1"),
        vec![metric("d", "", gauge(vec![point(3 * 3_600_000, 1.0)]))],
    );
    assert_eq!(bed.ingest.metrics(&request, later).unwrap().rejected, 0);
}

#[test]
fn exemplars_go_to_the_bucket_that_holds_them() {
    let bed = Bed::new();
    let with = HistogramDataPoint {
        exemplars: vec![Exemplar {
            time_unix_nano: at(-3),
            trace_id: vec![0xcd; 16],
            span_id: vec![1; 8],
            filtered_attributes: vec![text("user.id", "u1"), text("long", &"x".repeat(200))],
            value: Some(exemplar::Value::AsDouble(0.7)),
        }],
        ..classic(0, &[0, 1, 0], Some(0.7))
    };
    bed.take(vec![metric("h", "", histogram(CUMULATIVE, vec![with]))]);
    let name = Matcher::new("__name__", MatchOp::Equal, "h_bucket").unwrap();
    let exemplars = bed.store.exemplars(&[name], i64::MIN, i64::MAX);
    assert_eq!(exemplars.len(), 1);
    assert_eq!(exemplars[0].0.get("le"), Some("1"));
    let exemplar = &exemplars[0].1[0];
    assert_eq!(
        exemplar.labels.get("trace_id"),
        Some("cd".repeat(16).as_str())
    );
    assert_eq!(exemplar.labels.get("user_id"), Some("u1"));
    assert_eq!(exemplar.labels.get("long"), None);
    assert_eq!((exemplar.value, exemplar.t_ms), (0.7, T0 - 3));
}

#[test]
fn target_info_carries_the_rest_of_the_resource() {
    let bed = Bed::new();
    let resource = resource(&[
        ("service.name", "shop"),
        ("service.namespace", "eu"),
        ("service.instance.id", "i-1"),
        ("host.name", "h1"),
        ("k8s.pod.name", "shop-1"),
    ]);
    let request = request_of(resource, vec![metric("g", "", gauge(vec![point(0, 1.0)]))]);
    bed.ingest.metrics(&request, T0).unwrap();
    let want = "{host_name=\"h1\", instance=\"i-1\", job=\"eu/shop\", k8s_pod_name=\"shop-1\"}";
    assert_eq!(bed.last("target_info"), [(want.to_string(), 1.0)]);
    let labels = &bed.series("g")[0].labels;
    assert_eq!(labels.get("k8s_pod_name"), Some("shop-1"), "promoted");
    assert_eq!(labels.get("host_name"), None, "not promoted");
    assert_eq!(labels.get("job"), Some("eu/shop"));
}

#[test]
fn metrics_without_service_name_are_taken() {
    let bed = Bed::new();
    let request = request_of(None, vec![metric("g", "", gauge(vec![point(0, 1.0)]))]);
    assert_eq!(bed.ingest.metrics(&request, T0).unwrap().accepted, 1);
    assert_eq!(bed.last("g"), [("{http_route=\"/pay\"}".to_string(), 1.0)]);
}

#[test]
fn a_malformed_request_counts_no_delta() {
    let bed = Bed::new();
    let delta = NumberDataPoint {
        start_time_unix_nano: at(0),
        ..point(1_000, 5.0)
    };
    let good = request_of(
        service("shop", "1"),
        vec![metric("d", "", sum(DELTA, true, vec![delta]))],
    );
    let bad = [&good[..], &[0x0a, 0x7f]].concat();
    assert!(bed.ingest.metrics(&bad, T0).is_err());
    assert_eq!(bed.ingest.metrics(&good, T0).unwrap().rejected, 0);
    assert_eq!(
        bed.samples("d_total", ("job", "shop")),
        [(0, 0.0), (1_000, 5.0)]
    );
}

#[test]
fn scattered_attributes_find_the_series_of_gathered_ones() {
    // Legal protobuf that no exporter writes: other fields between a point's attributes.
    let gathered = point(0, 1.0);
    let mut second = gathered.clone();
    second.attributes = vec![text("a", "1"), text("b", "2")];
    let whole = second.encode_to_vec();
    let scattered = {
        let only = |attributes: Vec<KeyValue>| {
            NumberDataPoint {
                attributes,
                ..NumberDataPoint::default()
            }
            .encode_to_vec()
        };
        let time = NumberDataPoint {
            time_unix_nano: at(1_000),
            value: second.value,
            ..NumberDataPoint::default()
        };
        [
            only(vec![text("a", "1")]),
            time.encode_to_vec(),
            only(vec![text("b", "2")]),
        ]
        .concat()
    };
    let frame = |number: u8, body: Vec<u8>| {
        let mut out = vec![number << 3 | 2];
        prost::encoding::encode_varint(body.len() as u64, &mut out);
        out.extend(body);
        out
    };
    let request = |point: Vec<u8>| {
        let gauge = frame(5, frame(1, point));
        let metric = [frame(1, b"g".to_vec()), gauge].concat();
        frame(1, frame(2, frame(2, metric)))
    };
    let bed = Bed::new();
    for bytes in [whole, scattered] {
        assert_eq!(bed.ingest.metrics(&request(bytes), T0).unwrap().rejected, 0);
    }
    assert_eq!(bed.ingest.stats().metric_series, 1);
    assert_eq!(bed.samples("g", ("b", "2")), [(0, 1.0), (1_000, 1.0)]);
}
