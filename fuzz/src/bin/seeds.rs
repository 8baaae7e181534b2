//! Writes a small seed corpus for every target: `seeds DIRECTORY`, one directory below it for
//! each target. Run from the project's root, whose own policies it reads.

#[path = "../../../crates/wire/tests/remote_write/messages.rs"]
mod messages;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use messages::{
    self as wire, BucketSpan, Exemplar1, HistogramCount, Metadata1, Sample, TimeSeries1,
    WriteRequest, ZeroCount, label,
};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use slogate_fuzz::NOW_MS;
use slogate_promql::ValueType;
use slogate_promql::function::Function;
use slogate_series::{Buckets, Exemplar, Histogram, Labels};
use slogate_tsdb::{Batch, ExemplarRow, FloatRow, HistogramRow, Options, Store};

fn main() -> Result<(), Box<dyn Error>> {
    let Some(directory) = std::env::args_os().nth(1) else {
        return Err("expected a directory to write to, for example fuzz/corpus".into());
    };
    let corpora = Corpora {
        directory: directory.into(),
    };
    corpora.write("promql_parse", queries())?;
    // The settings come first, all off; the metrics are those of the small store.
    let evaluated = |query: String| {
        let renamed = query.replace("requests", "x").replace("version", "a");
        format!(
            "\0{}",
            renamed
                .replace("latency_bucket", "x")
                .replace("latency", "h")
        )
    };
    corpora.write("promql_eval", queries().into_iter().map(evaluated))?;
    corpora.write("otlp_traces", [proto::<ExportTraceServiceRequest>(TRACES)?])?;
    corpora.write(
        "otlp_metrics",
        [proto::<ExportMetricsServiceRequest>(METRICS)?],
    )?;
    corpora.write("remote_write", write_requests())?;
    corpora.write("otlp_logs", [proto::<ExportLogsServiceRequest>(LOGS)?])?;
    let json = [("t", TRACES), ("m", METRICS), ("l", LOGS)];
    corpora.write(
        "otlp_json",
        json.map(|(signal, text)| format!("{signal}{text}")),
    )?;
    corpora.write("openmetrics", RECORDINGS)?;
    corpora.write("series_log", segments()?)?;
    corpora.write("policy", policies()?)?;
    corpora.write("events", EVENTS)?;
    corpora.write("config", CONFIGS)
}

/// Requests of both versions, with every kind of thing that they can hold.
fn write_requests() -> [Vec<u8>; 2] {
    let sample = |value, after_ms| Sample {
        value,
        timestamp: NOW_MS - 5_000 + after_ms,
        start_timestamp: NOW_MS - 60_000,
    };
    let histogram = wire::Histogram {
        count: Some(HistogramCount::Int(9)),
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
        timestamp: NOW_MS,
        ..wire::Histogram::default()
    };
    let custom = wire::Histogram {
        count: Some(HistogramCount::Float(2.5)),
        schema: -53,
        custom_values: vec![1.0, 2.0],
        positive_spans: vec![BucketSpan {
            offset: 1,
            length: 2,
        }],
        positive_counts: vec![1.0, 1.5],
        timestamp: NOW_MS,
        ..wire::Histogram::default()
    };
    let counter = TimeSeries1 {
        labels: vec![
            label("__name__", "x_total"),
            label("service_name", "checkout"),
            label("service_version", "4.2.0"),
        ],
        samples: vec![sample(1.0, 0), sample(2.0, 1_000)],
        exemplars: vec![Exemplar1 {
            labels: vec![label("trace_id", "5b8efff7")],
            value: 0.5,
            timestamp: NOW_MS,
        }],
        histograms: Vec::new(),
    };
    let native = TimeSeries1 {
        labels: vec![label("__name__", "h"), label("job", "api")],
        histograms: vec![histogram, custom],
        ..TimeSeries1::default()
    };
    let request = WriteRequest {
        timeseries: vec![counter, native],
        metadata: vec![Metadata1 {
            kind: 1,
            name: "x_total".to_owned(),
            help: "Counts.".to_owned(),
            unit: String::new(),
        }],
    };
    let (v1, v2) = (request.encode_to_vec(), request.to_v2().encode_to_vec());
    [[vec![0], v1].concat(), [vec![1], v2].concat()]
}

struct Corpora {
    directory: PathBuf,
}

impl Corpora {
    fn write<S: AsRef<[u8]>>(
        &self,
        target: &str,
        seeds: impl IntoIterator<Item = S>,
    ) -> Result<(), Box<dyn Error>> {
        let directory = self.directory.join(target);
        fs::create_dir_all(&directory)?;
        for (at, seed) in seeds.into_iter().enumerate() {
            fs::write(directory.join(format!("seed-{at:03}")), seed)?;
        }
        Ok(())
    }
}

/// A request written as OTLP/JSON, in protobuf.
fn proto<M: Message + for<'a> serde::Deserialize<'a>>(
    json: &str,
) -> Result<Vec<u8>, Box<dyn Error>> {
    Ok(serde_json::from_str::<M>(json)?.encode_to_vec())
}

const TRACES: &str = r#"{"resourceSpans":[{"resource":{"attributes":[
{"key":"service.name","value":{"stringValue":"checkout"}},
{"key":"service.version","value":{"stringValue":"4.2.0"}},
{"key":"deployment.environment.name","value":{"stringValue":"production"}},
{"key":"process.command_args","value":{"arrayValue":{"values":[{"stringValue":"a"},{"intValue":"7"}]}}},
{"key":"k","value":{"kvlistValue":{"values":[{"key":"x","value":{"doubleValue":0.5}}]}}}]},
"scopeSpans":[{"scope":{"name":"http","version":"1"},"spans":[
{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","parentSpanId":"",
"traceState":"ot=th:8","name":"POST /pay","kind":3,"startTimeUnixNano":"1795190399000000000",
"endTimeUnixNano":"1795190399250000000","attributes":[
{"key":"peer.service","value":{"stringValue":"payments"}},
{"key":"retry","value":{"boolValue":true}},{"key":"raw","value":{"bytesValue":"AAEC"}}],
"status":{"code":2,"message":"no"},"flags":257},
{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b175",
"parentSpanId":"eee19b7ec3c1b174","name":"POST","kind":2,
"startTimeUnixNano":"1795190399010000000","endTimeUnixNano":"1795190399200000000",
"events":[{"timeUnixNano":"1","name":"e"}],"status":{}}]}]}]}"#;

const METRICS: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[
{"key":"service.name","value":{"stringValue":"checkout"}},
{"key":"service.version","value":{"stringValue":"4.2.0"}}]},
"scopeMetrics":[{"scope":{"name":"m"},"metrics":[
{"name":"queue.depth","unit":"1","gauge":{"dataPoints":[{"attributes":[
{"key":"queue","value":{"stringValue":"a"}}],"timeUnixNano":"1795190399000000000","asDouble":1.5}]}},
{"name":"http.requests","unit":"{request}","sum":{"aggregationTemporality":2,"isMonotonic":true,
"dataPoints":[{"startTimeUnixNano":"1795190000000000000","timeUnixNano":"1795190399000000000",
"asInt":"42","exemplars":[{"timeUnixNano":"1795190399000000000","asInt":"1",
"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","filteredAttributes":[
{"key":"a","value":{"stringValue":"b"}}]}]}]}},
{"name":"jobs","sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[
{"startTimeUnixNano":"1795190398000000000","timeUnixNano":"1795190399000000000","asDouble":3}]}},
{"name":"http.duration","unit":"ms","histogram":{"aggregationTemporality":2,"dataPoints":[
{"startTimeUnixNano":"1795190000000000000","timeUnixNano":"1795190399000000000","count":"6",
"sum":12.5,"bucketCounts":["1","2","3"],"explicitBounds":[1,10],"min":0.5,"max":20}]}},
{"name":"rpc.duration","unit":"s","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[
{"startTimeUnixNano":"1795190398000000000","timeUnixNano":"1795190399000000000","count":"6",
"sum":2,"scale":3,"zeroCount":"1","zeroThreshold":0.001,"positive":{"offset":-2,
"bucketCounts":["1","0","2"]},"negative":{"offset":1,"bucketCounts":["2"]}}]}},
{"name":"old","summary":{"dataPoints":[{"timeUnixNano":"1795190399000000000","count":"2","sum":3,
"quantileValues":[{"quantile":0.5,"value":1},{"quantile":1,"value":2}]}]}},
{"name":"gone","gauge":{"dataPoints":[{"timeUnixNano":"1795190399000000000","flags":1}]}}]}]}]}"#;

const LOGS: &str = r#"{"resourceLogs":[{"resource":{"attributes":[
{"key":"service.name","value":{"stringValue":"checkout"}},
{"key":"container.image.repo_digests","value":{"arrayValue":{"values":[{"stringValue":
"shop@sha256:0b31b1c02ff458ad9b7b81cbdf8f028bd54699fa151f221d1e8de6817db93427"}]}}}]},
"scopeLogs":[{"scope":{"name":"l"},"logRecords":[{"timeUnixNano":"1795190399000000000",
"observedTimeUnixNano":"1795190399000000001","severityNumber":17,"severityText":"ERROR",
"body":{"stringValue":"declined"},"attributes":[{"key":"a","value":{"intValue":"1"}}],
"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174"},{"severityNumber":9}]}]}]}"#;

/// Every function once, and what else the language has.
const RECORDINGS: [&str; 2] = [
    "# TYPE x counter\n# UNIT x_seconds seconds\nx_total{a=\"b\",c=\"d\\\"e\"} 1 17.5 # {t=\"1\"} 1\n# EOF\n",
    "{\"x.y\",\"a.b\"=\"c\\n\"} +Inf 1700000000000\nup NaN\n",
];

fn queries() -> Vec<String> {
    const REST: [&str; 16] = [
        r#"sum by (version) (rate(requests{version=~"1|2",a!="b"}[5m] offset 1m))"#,
        "histogram_quantile(0.95, sum without (x) (rate(latency_bucket[1m])))",
        "requests / on (version) group_left (a, b) requests > bool 2",
        "requests and requests or requests unless ignoring (version) requests",
        "topk(2, requests) + -2 ^ 3 ^ 2 % 4 * 5 - (6)",
        "quantile(0.5, requests) atan2 3",
        r#"count_values("v", requests)"#,
        "max_over_time(rate(requests[30s])[5m:15s] @ end())",
        "requests @ 300.5 == 0x1F",
        "1e3 + Inf - NaN + 1_000",
        r#""a\n\x41\u00e9" "#,
        r#"{"dotted.name", "a b"='c'}"#,
        "1h30m + requests[1h30m5s] offset -1d",
        "group(requests) # what is left\n",
        "stddev(requests) < stdvar(requests) >= bottomk(1, requests) <= min(max(avg(requests)))",
        "limitk(2, requests) or limit_ratio(0.5, requests)",
    ];
    let argument = |kind: ValueType| match kind {
        ValueType::Scalar => "0.5",
        ValueType::Vector => "latency",
        ValueType::Matrix => "requests[2m]",
        ValueType::String => "\"version\"",
    };
    let call = |function: &Function| {
        let given = function.args_min().max(function.args.len());
        let args = (0..given)
            .filter_map(|at| function.arg_type(at))
            .map(argument);
        format!("{}({})", function.name, args.collect::<Vec<_>>().join(", "))
    };
    let calls = Function::all().iter().map(call);
    calls.chain(REST.map(str::to_owned)).collect()
}

/// A segment as the store writes it, its frames' payloads alone, and one that is torn.
fn segments() -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    const HEADER_BYTES: usize = 16;
    const FRAME_HEADER_BYTES: usize = 12;
    let segment = written_segment()?;
    let mut payloads = b"f".to_vec();
    let mut rest = segment.get(HEADER_BYTES..).unwrap_or_default();
    while let Some((frame, after)) = rest.split_at_checked(FRAME_HEADER_BYTES) {
        let length = frame[4..8].try_into().map(u32::from_le_bytes)? as usize;
        let (payload, after) = after.split_at(length.min(after.len()));
        payloads.extend(u16::try_from(payload.len())?.to_le_bytes());
        payloads.extend(payload);
        rest = after;
    }
    let raw = [b"r", segment.as_slice()].concat();
    let torn = raw[..raw.len() - 5].to_vec();
    Ok(vec![payloads, raw, torn])
}

fn written_segment() -> Result<Vec<u8>, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let options = Options {
        dir: Some(dir.path().to_owned()),
        ..Options::default()
    };
    let (store, _) = Store::open(options, NOW_MS)?;
    let counter = store.series(&Labels::from_pairs([("__name__", "requests"), ("v", "1")]))?;
    let native = store.series(&Labels::from_pairs([("__name__", "latency")]))?;
    for step in 0..4 {
        let t_ms = NOW_MS - 60_000 + step * 5_000;
        let histogram = Histogram {
            schema: 3,
            count: 4.0 + step as f64,
            sum: 0.5,
            positive: Buckets::from_dense(-3, [1.0, 3.0 + step as f64]),
            ..Histogram::default()
        };
        let batch = Batch {
            floats: vec![FloatRow {
                series: counter,
                t_ms,
                start_ms: NOW_MS - 90_000,
                value: step as f64 + 0.5 * (step % 2) as f64,
            }],
            histograms: vec![HistogramRow {
                series: native,
                t_ms,
                start_ms: 0,
                histogram: Arc::new(histogram),
            }],
            exemplars: vec![ExemplarRow {
                series: counter,
                exemplar: Exemplar {
                    labels: Labels::from_pairs([("trace_id", "5b8efff798038103")]),
                    value: 1.0,
                    t_ms,
                },
            }],
        };
        store.append(&batch, NOW_MS)?;
    }
    store.flush()?;
    drop(store);
    Ok(fs::read(dir.path().join("0000000001.log"))?)
}

/// The policies of the project: the built-in one and those with mistakes that tests hold.
fn policies() -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut seeds = Vec::new();
    for directory in ["rules", "tests/golden/policy"] {
        for entry in fs::read_dir(Path::new(directory))? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                seeds.push(fs::read(path)?);
            }
        }
    }
    Ok(seeds)
}

const EVENTS: [&str; 6] = [
    r#"0{"type":"deployment.started","service":"checkout","environment":"production",
"time":"2026-11-20T15:00:00Z","artifact":{"version":"2","digest":"sha256:0b31b1c02ff458ad9b7b81cbdf8f028bd54699fa151f221d1e8de6817db93427",
"provenance":{"commit":"abc","builtAt":"2026-11-20T14:00:00Z"}},"previous":{"version":"1"},
"labels":{"team":"pay"},"deployment":"run-7"}"#,
    r#"0{"events":[{"type":"deployment.step","service":"checkout","artifact":{"version":"2"},
"step":{"index":1,"total":3,"weight":12.5}},{"type":"deployment.succeeded","service":"checkout",
"artifact":{"version":"2"}}]}"#,
    r#"1{"specversion":"1.0","id":"e-1","source":"/cd/prod","type":"dev.cdevents.service.upgraded.0.3.0",
"subject":"deployment/checkout","time":"2026-11-20T15:00:00Z","datacontenttype":"application/json",
"data":{"context":{"specversion":"0.5.1","id":"e-1","source":"/cd/prod","chainId":"c-1",
"type":"dev.cdevents.service.upgraded.0.3.0","timestamp":"2026-11-20T15:00:00Z"},
"subject":{"id":"deployment/checkout","content":{"environment":{"id":"production"},
"artifactId":"pkg:oci/checkout@sha256%3A0b31b1c02ff458ad9b7b81cbdf8f028bd54699fa151f221d1e8de6817db93427?tag=4.2.0"}}}}"#,
    r#"2[{"specversion":"1.0","id":"e-2","source":"/ci","type":"dev.slogate.event","data":
{"type":"deployment.failed","service":"checkout","artifact":{"version":"2"},"reason":"r"}}]"#,
    r#"3{"context":{"version":"0.4.1","id":"e-3","source":"/ci","type":"dev.cdevents.incident.reported.0.2.0",
"timestamp":"2026-11-20T15:00:00Z"},"subject":{"id":"i-1","content":{"description":"slow",
"environment":{"id":"production"},"service":{"id":"checkout"}}}}"#,
    "bce-specversion: 1.0\nce-id: e-4\nce-source: /ci\nce-type: dev.cdevents.artifact.packaged.0.2.0\n\
\n{\"context\":{\"version\":\"0.4.1\",\"id\":\"e-4\",\"source\":\"/ci\",\"type\":\
\"dev.cdevents.artifact.packaged.0.2.0\",\"timestamp\":\"2026-11-20T15:00:00Z\"},\"subject\":{\"id\":\
\"pkg:oci/checkout@sha256:0b31b1c02ff458ad9b7b81cbdf8f028bd54699fa151f221d1e8de6817db93427\",\"content\":\
{\"change\":{\"id\":\"c-9\",\"source\":\"git.test/shop\"}}}}",
];

const CONFIGS: [&str; 3] = [
    "listen: { api: 127.0.0.1:9560, otlpGrpc: '127.0.0.1:0' }\nlog:\n  format: json\n",
    "store:\n  retention: 15d\n  sizeMax: 2GiB\n  seriesMax: 1000\ningest: { flushInterval: 5s }\n",
    "listen:\n  apy: 1\nstore: [1, 2]\nlog: &a { filter: info }\nlimits: *a\n",
];
