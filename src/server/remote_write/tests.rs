//! The protocol's rules over real sockets.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use prost::Message as _;
use slogate_tsdb::{Options, Store};

use super::*;
use crate::ingest::IngestOptions;
use crate::ingest::tests::messages::{Sample, TimeSeries1, WriteRequest, label};
use crate::model::ManualClock;
use crate::server::listener::ListenOptions;
use crate::server::testing::{Answer, Server, http, serve};

const NOW_MS: i64 = 1_795_190_400_000;
const V1: &str = "application/x-protobuf";
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

struct House {
    server: Server,
    store: Arc<Store>,
    budget: Budget,
    registry: Registry,
}

async fn house() -> House {
    let (store, _) = Store::open(Options::default(), NOW_MS).unwrap();
    let store = Arc::new(store);
    let ingest = Ingest::new(store.clone(), IngestOptions::default(), NOW_MS).unwrap();
    let (budget, registry) = (Budget::new(1 << 20), Registry::new());
    let limits = BodyLimits {
        wire_bytes_max: 64 << 10,
        body_bytes_max: 256 << 10,
        deadline: Duration::from_millis(300),
    };
    let remote_write = Arc::new(RemoteWrite::new(
        Arc::new(ingest),
        Arc::new(ManualClock::at(NOW_MS)),
        limits,
        budget.clone(),
        &registry,
    ));
    let take = |State(state): State<Arc<RemoteWrite>>, request: Request| async move {
        state.take(request).await
    };
    let router = Router::new()
        .route(PATH, post(take))
        .with_state(remote_write);
    House {
        server: serve(router, ListenOptions::default()).await,
        store,
        budget,
        registry,
    }
}

impl House {
    async fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        http(&self.server, "POST", PATH, headers, body).await
    }
}

fn samples(values: &[(i64, f64)]) -> WriteRequest {
    let sample = |(timestamp, value): &(i64, f64)| Sample {
        value: *value,
        timestamp: *timestamp,
        start_timestamp: 0,
    };
    WriteRequest {
        timeseries: vec![TimeSeries1 {
            labels: vec![label("__name__", "up")],
            samples: values.iter().map(sample).collect(),
            ..TimeSeries1::default()
        }],
        metadata: Vec::new(),
    }
}

fn block(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

fn written(answer: &Answer) -> [&str; 3] {
    ["samples", "histograms", "exemplars"]
        .map(|kind| answer.header(&format!("x-prometheus-remote-write-{kind}-written")))
}

#[tokio::test]
async fn both_messages_are_told_apart_by_their_content_type() {
    let house = house().await;
    let v1 = block(&samples(&[(NOW_MS, 1.0)]).encode_to_vec());
    let v2 = block(&samples(&[(NOW_MS, 1.0)]).to_v2().encode_to_vec());
    let snappy = ("content-encoding", "snappy");
    for kind in [
        V1,
        "application/x-protobuf; proto=prometheus.WriteRequest",
        "Application/X-Protobuf",
    ] {
        let answer = house.post(&[("content-type", kind), snappy], &v1).await;
        assert_eq!((answer.status, answer.text().as_str()), (204, ""), "{kind}");
        assert_eq!(written(&answer), ["", "", ""], "1.0 has no such headers");
    }
    for kind in [
        V2,
        "application/x-protobuf; proto=\"io.prometheus.write.v2.Request\"",
    ] {
        let answer = house.post(&[("content-type", kind), snappy], &v2).await;
        assert_eq!(answer.status, 204, "{kind}: {}", answer.text());
        assert_eq!(written(&answer), ["1", "0", "0"]);
    }
    // The oldest senders say neither.
    assert_eq!(house.post(&[], &v1).await.status, 204);
    assert_eq!(house.store.stats().samples, 1);
}

#[tokio::test]
async fn what_is_not_spoken_is_refused_before_it_is_read() {
    let house = house().await;
    let corrupt = b"\xff\xff\xffnothing of it can be read";
    for kind in [
        "application/json",
        "image/png",
        "application/protobuf",
        "application/x-protobuf;proto=io.prometheus.write.v3.Request",
        "application/x-protobuf;proto=",
    ] {
        let answer = house.post(&[("content-type", kind)], corrupt).await;
        assert_eq!(answer.status, 415, "{kind}");
        assert!(answer.text().contains("content type"), "{}", answer.text());
    }
    for encoding in ["gzip", "deflate", "zstd", "identity", "snappy, snappy"] {
        let headers = [("content-type", V2), ("content-encoding", encoding)];
        let answer = house.post(&headers, corrupt).await;
        assert_eq!(answer.status, 415, "{encoding}");
        assert_eq!(answer.header("accept-encoding"), "snappy");
        assert_eq!(written(&answer), ["0", "0", "0"]);
    }
}

#[tokio::test]
async fn unreadable_bodies_are_400_and_too_large_ones_413() {
    let house = house().await;
    let message = samples(&[(NOW_MS, 1.0)]).to_v2().encode_to_vec();
    let cut = block(&message[..message.len() - 2]);
    let large = block(&vec![0; 300 << 10]);
    for (body, status, part) in [
        (b"not snappy at all".to_vec(), 400, "not valid snappy"),
        (cut, 400, "not readable at byte"),
        (large, 413, "after decompression"),
        (vec![1; 65 << 10], 413, "as received"),
    ] {
        let answer = house.post(&[("content-type", V2)], &body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(part), "{}", answer.text());
        assert_eq!(answer.text().lines().count(), 1);
        assert_eq!(written(&answer), ["0", "0", "0"]);
    }
    assert_eq!(house.budget.held(), 0);
}

#[tokio::test]
async fn a_part_that_is_bad_is_400_and_the_rest_is_there() {
    let house = house().await;
    let sent = samples(&[(NOW_MS, 1.0), (NOW_MS + 3_600_000, 1.0), (NOW_MS + 1, 2.0)]);
    let answer = house
        .post(&[("content-type", V1)], &block(&sent.encode_to_vec()))
        .await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().starts_with("1 samples rejected (up at "),
        "{}",
        answer.text()
    );
    let sent = sent.to_v2().encode_to_vec();
    let answer = house.post(&[("content-type", V2)], &block(&sent)).await;
    assert_eq!(answer.status, 400);
    assert_eq!(written(&answer), ["2", "0", "0"]);
    assert_eq!(house.store.stats().samples, 2);
    let partial = |version| {
        let labels = [version, "partial"];
        house
            .registry
            .counter(&catalog::WRITE_REQUESTS, &labels)
            .value()
    };
    assert_eq!((partial("1.0"), partial("2.0")), (1, 1));
}

#[tokio::test]
async fn when_too_much_is_in_flight_the_sender_is_asked_to_come_back() {
    let house = house().await;
    let mut hold = house.budget.hold();
    hold.grow(house.budget.total()).unwrap();
    let body = block(&samples(&[(NOW_MS, 1.0)]).to_v2().encode_to_vec());
    let answer = house.post(&[("content-type", V2)], &body).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "1"));
    assert_eq!(written(&answer), ["0", "0", "0"]);
    drop(hold);
    assert_eq!(house.post(&[("content-type", V2)], &body).await.status, 204);
}

/// 408 would make a sender behind a slow line drop its samples for good.
#[tokio::test]
async fn a_body_that_does_not_end_may_be_sent_again() {
    let house = house().await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: test\r\ncontent-type: {V2}\r\ncontent-length: 100\r\n\r\nabc"
    );
    let answer = crate::server::testing::raw(&house.server, head.as_bytes()).await;
    assert_eq!((answer.status, answer.header("connection")), (503, "close"));
}
