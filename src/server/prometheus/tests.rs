//! The API over real sockets, on a store with a little of everything.

use slogate_series::{Buckets, Exemplar, Histogram, Labels};
use slogate_tsdb::{Batch, ExemplarRow, FloatRow, HistogramRow, Metadata, MetricKind};

use crate::server::api::tests::{House, house};
use crate::server::testing::{Answer, http};

/// The time of the newest sample, in milliseconds: two seconds after the house's clock began.
const T_MS: i64 = 1_795_190_402_500;

/// A house whose store has a counter with an exemplar, a gauge and a histogram.
async fn furnished() -> House {
    let house = house().await;
    let store = &house.app.prometheus.store;
    let series = |name: &str, code: &str| {
        let labels = Labels::from_pairs([("__name__", name), ("code", code), ("job", "a<b>")]);
        store.series(&labels).unwrap()
    };
    let mut batch = Batch::default();
    for (code, value) in [("200", 7.0), ("500", 0.5)] {
        for t_ms in [T_MS - 2_500, T_MS] {
            batch.floats.push(FloatRow {
                series: series("requests_total", code),
                t_ms,
                start_ms: 0,
                value,
            });
        }
    }
    batch.exemplars.push(ExemplarRow {
        series: series("requests_total", "500"),
        exemplar: Exemplar {
            labels: Labels::from_pairs([("trace_id", "4bf92f35")]),
            value: 0.25,
            t_ms: T_MS,
        },
    });
    let histogram = Histogram {
        count: 3.0,
        sum: 4.5,
        positive: Buckets::from_sorted(vec![(0, 1.0), (2, 2.0)]),
        ..Histogram::default()
    };
    batch.histograms.push(HistogramRow {
        series: series("sizes", "200"),
        t_ms: T_MS,
        start_ms: 0,
        histogram: histogram.into(),
    });
    let metadata = Metadata {
        kind: MetricKind::Counter,
        unit: "".into(),
        help: "Requests & more.".into(),
    };
    store.set_metadata("requests_total", metadata);
    assert_eq!(store.append(&batch, T_MS).unwrap().refused.total(), 0);
    house
}

impl House {
    async fn data(&self, path: &str) -> String {
        let answer = self.get(&format!("/api/v1/{path}")).await;
        let text = answer.text();
        assert_eq!(answer.status, 200, "{path}: {text}");
        let data = text.strip_prefix("{\"status\":\"success\",\"data\":");
        data.unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    async fn form(&self, path: &str, body: &str) -> Answer {
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        let headers = [("content-type", form)];
        let path = format!("/api/v1/{path}");
        http(&self.server, "POST", &path, &headers, body.as_bytes()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_every_type_are_written_to_the_letter() {
    let house = furnished().await;
    let cases = [
        (
            "query?time=1795190402.5&query=requests_total{code=\"500\"}",
            "{\"resultType\":\"vector\",\"result\":[{\"metric\":{\"__name__\":\"requests_total\",\
             \"code\":\"500\",\"job\":\"a<b>\"},\"value\":[1795190402.500,\"0.5\"]}]}}",
        ),
        (
            "query?time=1795190403&query=sizes",
            "{\"resultType\":\"vector\",\"result\":[{\"metric\":{\"__name__\":\"sizes\",\
             \"code\":\"200\",\"job\":\"a<b>\"},\"histogram\":[1795190403,{\"count\":\"3\",\
             \"sum\":\"4.5\",\"buckets\":[[0,\"0.5\",\"1\",\"1\"],[0,\"2\",\"4\",\"2\"]]}]}]}}",
        ),
        (
            "query_range?start=1795190402&end=1795190403&step=1&query=sum(requests_total)",
            "{\"resultType\":\"matrix\",\"result\":[{\"metric\":{},\"values\":\
             [[1795190402,\"7.5\"],[1795190403,\"7.5\"]]}]}}",
        ),
        (
            "query?time=1795190403&limit=1&query=requests_total",
            "{\"resultType\":\"vector\",\"result\":[{\"metric\":{\"__name__\":\"requests_total\",\
             \"code\":\"200\",\"job\":\"a<b>\"},\"value\":[1795190403,\"7\"]}]},\
             \"warnings\":[\"results truncated due to limit\"]}",
        ),
        (
            "query_exemplars?query=rate(requests_total[5m])+or+requests_total",
            "[{\"seriesLabels\":{\"__name__\":\"requests_total\",\"code\":\"500\",\"job\":\"a<b>\"},\
             \"exemplars\":[{\"labels\":{\"trace_id\":\"4bf92f35\"},\"value\":\"0.25\",\
             \"timestamp\":1795190402.500}]}]}",
        ),
        (
            "metadata?metric=requests_total",
            "{\"requests_total\":[{\"type\":\"counter\",\"unit\":\"\",\
             \"help\":\"Requests \\u0026 more.\"}]}}",
        ),
        ("label/job/values", "[\"a\\u003cb\\u003e\"]}"),
        ("labels?start=1795190403&match[]=sizes", "[]}"),
        (
            "status/tsdb?limit=1",
            "{\"headStats\":{\"numSeries\":3,\"numLabelPairs\":5,\"chunkCount\":3,\
             \"minTime\":1795190400000,\"maxTime\":1795190402500},\
             \"seriesCountByMetricName\":[{\"name\":\"requests_total\",\"value\":2}],\
             \"labelValueCountByLabelName\":[{\"name\":\"__name__\",\"value\":2}],\
             \"memoryInBytesByLabelName\":[{\"name\":\"__name__\",\"value\":33}],\
             \"seriesCountByLabelValuePair\":[{\"name\":\"job=a\\u003cb\\u003e\",\"value\":3}]}}",
        ),
    ];
    for (path, expected) in cases {
        let path = path.replace('{', "%7B").replace('}', "%7D");
        let path = path
            .replace('"', "%22")
            .replace('[', "%5B")
            .replace(']', "%5D");
        assert_eq!(house.data(&path).await, expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_and_urls_are_read_together() {
    let house = furnished().await;
    let body = house.form("query?query=2&time=4", "query=1%2B1").await;
    assert_eq!(body.json()["data"]["result"], serde_json::json!([4, "2"]));
    let joined = "label/code/values?match[]=requests_total%7Bcode=%22500%22%7D";
    let joined = house.form(joined, "match[]=sizes").await.json();
    assert_eq!(joined["data"], serde_json::json!(["200", "500"]));
    let long = format!("query={}", "1%2B".repeat(400_000));
    let long = house.form("query", &long).await;
    assert_eq!(long.status, 400, "{}", long.text());
    assert!(
        long.text().contains("error parsing form values"),
        "{}",
        long.text()
    );
    let stats = house
        .form(
            "query?stats=yes",
            "query=sum(requests_total)&time=1795190403",
        )
        .await;
    let stats = stats.json();
    assert_eq!(
        stats["data"]["stats"]["samples"]["totalQueryableSamples"],
        2
    );
    let warning = stats["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with("value \"yes\" for parameter \"stats\""),
        "{warning}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_before_all_has_begun_and_after_the_end() {
    let house = furnished().await;
    let ready = "/api/v1/query?query=1";
    let worker = house
        .app
        .heartbeats
        .register("watcher", 60_000, house.app.clock.now_ms());
    for (is_stopping, text) in [(false, "false"), (true, "true")] {
        if is_stopping {
            house.app.stop.cancel();
        }
        let answer = house.get(ready).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (503, "Service Unavailable")
        );
        assert_eq!(answer.header("x-prometheus-stopping"), text);
        worker.beat(house.app.clock.now_ms());
        let begun = house.get(ready).await.status;
        assert_eq!(begun, if is_stopping { 503 } else { 200 });
    }
}
