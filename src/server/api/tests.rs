//! The API over real sockets, on real rooms with a source that answers as told.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use slogate_promql::QueryValue;
use slogate_tsdb::Store;
use tokio::time::Instant;

use super::*;
use crate::config::QuerySettings;
use crate::deploy::DeploymentsOptions;
use crate::ingest::{Ingest, IngestOptions};
use crate::judge::{WatcherOptions, WatcherParts};
use crate::model::ManualClock;
use crate::policy;
use crate::record::Records;
use crate::server::listener::ListenOptions;
use crate::server::testing::{Answer, Server, http, http2_client, raw, serve};
use crate::sli::Slis;
use crate::source::{self, EmbeddedSource, MetricSource, SourceError, Sources};

const NOW_MS: i64 = 1_795_190_400_000;

const QUERY: QuerySettings = QuerySettings {
    concurrency: 2,
    timeout_ms: 10_000,
    samples_max: 1_000_000,
    lookback_ms: 300_000,
};

const GATES: &str = "
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: queue }
spec:
  match: { service: checkout, environment: production }
  warmUp: 0s
  soak: 0s
  checks:
    - name: depth
      query: queue_depth
      below: 10
";

/// Answers one number to everything, or nothing; asked how old that is, it is new.
#[derive(Default)]
struct Told(Mutex<Option<f64>>);

impl MetricSource for Told {
    fn query<'a>(
        &'a self,
        expr: &'a str,
        at_ms: i64,
    ) -> BoxFuture<'a, Result<source::Answer, SourceError>> {
        let is_about_age = expr.contains("timestamp(");
        let answer = match *self.0.lock() {
            Some(value) => Ok(source::Answer {
                value: QueryValue::Scalar(if is_about_age {
                    at_ms as f64 / 1e3
                } else {
                    value
                }),
                warnings: Vec::new(),
            }),
            None => Err(SourceError::Unavailable {
                origin: "told".to_owned(),
                message: "out to lunch".to_owned(),
            }),
        };
        std::future::ready(answer).boxed()
    }

    fn name(&self) -> &'static str {
        "told"
    }
}

pub(in crate::server) struct House {
    pub(in crate::server) app: Arc<App>,
    pub(in crate::server) server: Server,
    source: Arc<Told>,
    clock: ManualClock,
    dir: tempfile::TempDir,
}

pub(in crate::server) async fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    let records = Records::open(dir.path()).unwrap();
    let ledger = Ledger::open(records);
    let options = DeploymentsOptions::default();
    let deployments = Deployments::open(ledger.clone(), options, NOW_MS).unwrap();
    let gates = policy::parse("gates.yaml", GATES).unwrap();
    let policies = Arc::new(PolicySet {
        gates: gates.into_iter().map(Arc::new).collect(),
    });
    let source = Arc::new(Told::default());
    let clock = ManualClock::at(NOW_MS);
    let watcher = Watcher::new(WatcherParts {
        policies: policies.clone(),
        deployments: deployments.clone(),
        ledger: ledger.clone(),
        sources: Sources::only(source.clone()),
        clock: Arc::new(clock.clone()),
        options: WatcherOptions {
            interval_ms: 10_000,
            public_url: "http://slogate.test".to_owned(),
        },
    });
    let slis = Slis::new(
        deployments.clone(),
        ledger.clone(),
        Sources::only(source.clone()),
    );
    let (store, _) = Store::open(slogate_tsdb::Options::default(), NOW_MS).unwrap();
    let store = Arc::new(store);
    let embedded = EmbeddedSource::new(store.clone(), &QUERY);
    let app = Arc::new(App {
        policies,
        deployments,
        ledger,
        watcher: watcher.await,
        slis: Arc::new(slis),
        prometheus: Prometheus::new(store, embedded, NOW_MS),
        registry: Registry::new(),
        heartbeats: Heartbeats::new(),
        clock: Arc::new(clock.clone()),
        limits: BodyLimits {
            wire_bytes_max: 1 << 20,
            body_bytes_max: 4 << 20,
            deadline: Duration::from_secs(2),
        },
        remote_write: remote_write(&clock),
        budget: Budget::new(64 << 20),
        stop: CancellationToken::new(),
        fresh: Semaphore::new(FRESH_MAX),
    });
    House {
        server: serve(router(app.clone()), ListenOptions::default()).await,
        app,
        source,
        clock,
        dir,
    }
}

fn remote_write(clock: &ManualClock) -> Arc<RemoteWrite> {
    let (store, _) = slogate_tsdb::Store::open(slogate_tsdb::Options::default(), NOW_MS).unwrap();
    let ingest = Ingest::new(Arc::new(store), IngestOptions::default(), NOW_MS).unwrap();
    Arc::new(RemoteWrite::new(
        Arc::new(ingest),
        Arc::new(clock.clone()),
        BodyLimits::default(),
        Budget::new(64 << 20),
        &Registry::new(),
    ))
}

impl House {
    pub(in crate::server) async fn get(&self, path: &str) -> Answer {
        http(&self.server, "GET", path, &[], b"").await
    }

    async fn post(&self, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        http(
            &self.server,
            "POST",
            "/v1/events",
            &json,
            body.to_string().as_bytes(),
        )
        .await
    }

    /// A deployment that began; its id.
    async fn started(&self, id: &str, version: &str) -> String {
        let answer = self.post(&started(id, version)).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let deployment = &answer.json()["events"][0]["deployment"];
        deployment.as_str().unwrap().to_owned()
    }

    fn tell(&self, value: Option<f64>) {
        *self.source.0.lock() = value;
    }
}

fn started(id: &str, version: &str) -> Value {
    json!({
        "type": "deployment.started", "id": id, "source": "ci", "service": "checkout",
        "environment": "production", "artifact": { "version": version },
    })
}

/// Every key of a gate's answer: the contract.
const ANSWER_KEYS: [&str; 18] = [
    "gate",
    "verdict",
    "reason",
    "message",
    "id",
    "url",
    "service",
    "environment",
    "version",
    "digest",
    "deployment",
    "baseline",
    "checks",
    "final",
    "onInconclusive",
    "since",
    "evaluatedAt",
    "expiresAt",
];

fn assert_is_contract(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let value = answer.json();
    let keys: BTreeSet<_> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(keys, BTreeSet::from(ANSWER_KEYS));
    assert!(
        answer.body.len() < 4_096,
        "small: {} bytes",
        answer.body.len()
    );
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_from_event_to_verdict() {
    let house = house().await;
    let gate = "/v1/gates/queue/verdict?service=checkout&environment=production&version=2.0";
    let pending = assert_is_contract(&house.get(gate).await);
    assert_eq!(pending["verdict"], "pending");
    assert_eq!(pending["reason"], "no_deployment");
    assert_eq!(pending["id"], Value::Null);

    let deployment = house.started("1", "2.0").await;
    let pending = assert_is_contract(&house.get(gate).await);
    assert_eq!(pending["reason"], "not_judged_yet");
    assert_eq!(pending["deployment"], deployment);

    let fresh = assert_is_contract(&house.get(&format!("{gate}&fresh=true")).await);
    assert_eq!(
        fresh["verdict"], "inconclusive",
        "the source does not answer"
    );
    assert_eq!(fresh["checks"][0]["reason"], "source_error");

    house.tell(Some(3.0));
    house.clock.advance(1_000);
    let pass = assert_is_contract(&house.get(&format!("{gate}&fresh=true")).await);
    assert_eq!(
        (&pass["verdict"], &pass["version"]),
        (&json!("pass"), &json!("2.0"))
    );
    let id = pass["id"].as_str().unwrap();
    assert_eq!(pass["url"], format!("http://slogate.test/v1/verdicts/{id}"));

    let verdict = house.get(&format!("/v1/verdicts/{id}")).await.json();
    assert_eq!(verdict["verdict"], "pass");
    assert_eq!(verdict["checks"][0]["evidence"]["value"], 3.0);

    let whole = house
        .get(&format!("/v1/deployments/{deployment}"))
        .await
        .json();
    assert_eq!(whole["phase"], "progressing");
    assert_eq!(whole["timeline"][0]["type"], "deployment.started");
    assert_eq!(whole["latest"][0]["verdict"], "pass");
    let said: Vec<_> = whole["verdicts"].as_array().unwrap().iter().collect();
    assert_eq!(said[0]["verdict"], "pass", "newest first");
    assert_eq!(said[1]["verdict"], "inconclusive");

    let by_id = format!("/v1/gates/queue/verdict?deployment={deployment}");
    assert_eq!(house.get(&by_id).await.json()["verdict"], "pass");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_gate_request_answers_when_the_answer_changes() {
    let house = house().await;
    let deployment = house.started("1", "2.0").await;
    let path = format!("/v1/gates/queue/verdict?deployment={deployment}&wait=20s");
    let (server, waiting) = (house.server.clone(), path.clone());
    let waiting = tokio::spawn(async move { http(&server, "GET", &waiting, &[], b"").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished(), "pending is not an answer to act on");
    house.tell(Some(99.0));
    let id = crate::model::DeploymentId(deployment);
    house.app.watcher.judge_now(&id).await;
    let answer = assert_is_contract(&waiting.await.unwrap());
    assert_eq!(answer["verdict"], "fail");
    let began = Instant::now();
    assert_eq!(house.get(&path).await.json()["verdict"], "fail");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "a fail is not waited for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_what_is_known_at_its_time_and_at_shutdown() {
    let house = house().await;
    let gate = "/v1/gates/queue/verdict?service=checkout&version=9";
    let began = Instant::now();
    let answer = assert_is_contract(&house.get(&format!("{gate}&wait=200ms")).await);
    assert_eq!(answer["verdict"], "pending");
    assert!(began.elapsed() >= Duration::from_millis(200));
    let (server, path) = (house.server.clone(), format!("{gate}&wait=60s"));
    let waiting = tokio::spawn(async move { http(&server, "GET", &path, &[], b"").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    house.app.stop.cancel();
    let answer = tokio::time::timeout(Duration::from_secs(5), waiting).await;
    assert_is_contract(&answer.expect("shutdown answers those who wait").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn gate_questions_that_can_not_be_answered_say_why() {
    let house = house().await;
    house.started("1", "2.0").await;
    let cases = [
        (
            "/v1/gates/canary/verdict?service=checkout",
            404,
            "not_found",
            "queue",
        ),
        ("/v1/gates/queue/verdict", 400, "invalid", "service"),
        (
            "/v1/gates/queue/verdict?deployment=nope",
            404,
            "not_found",
            "nope",
        ),
        (
            "/v1/gates/queue/verdict?service=a&digest=latest",
            400,
            "invalid",
            "sha256:",
        ),
        (
            "/v1/gates/queue/verdict?service=a&wait=5m",
            400,
            "invalid",
            "at most 60s",
        ),
        (
            "/v1/gates/queue/verdict?service=a&vresion=1",
            400,
            "invalid",
            "vresion",
        ),
        (
            "/v1/gates/queue/verdict?service=a&fresh=si",
            400,
            "invalid",
            "true or false",
        ),
    ];
    for (path, status, code, said) in cases {
        let answer = house.get(path).await;
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, error["code"].as_str()),
            (status, Some(code)),
            "{path}"
        );
        assert!(
            error["message"].as_str().unwrap().contains(said),
            "{path}: {error}"
        );
    }
    let gates = house.get("/v1/gates").await.json();
    assert_eq!(gates["gates"][0]["name"], "queue");
    let one = house.get("/v1/gates/queue").await.json();
    assert_eq!(one["policyHash"].as_str().unwrap().len(), 64);
    assert_eq!(one["policy"]["spec"]["checks"][0]["name"], "depth");
    assert_eq!(house.get("/v1/gates/none").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_durable_and_idempotent() {
    let house = house().await;
    let event = started("1", "2.0");
    let first = house.post(&json!([event, started("2", "3.0")])).await;
    assert_eq!(first.status, 202);
    let events = first.json()["events"].clone();
    assert_eq!(
        (&events[0]["id"], &events[1]["id"]),
        (&json!("1"), &json!("2"))
    );
    let again = house.post(&event).await;
    assert_eq!(again.status, 202, "all duplicates is success too");
    let again = &again.json()["events"][0];
    assert_eq!(
        (&again["duplicate"], &again["source"]),
        (&json!(true), &json!("ci"))
    );
    assert_eq!(again["deployment"], events[0]["deployment"]);

    let ledger = house.get("/v1/ledger?limit=1").await.json();
    assert_eq!(ledger["entries"][0]["kind"], "event");
    assert_eq!(
        (&ledger["entries"][0]["seq"], &ledger["next"]),
        (&json!(1), &json!(1))
    );
    let rest = house.get("/v1/ledger?after=1").await.json();
    assert_eq!(rest["entries"].as_array().unwrap().len(), 1);
    assert_eq!(rest["next"], Value::Null);
    assert_eq!(rest["entries"][0]["prev"], ledger["entries"][0]["hash"]);

    let reopened = Ledger::open(Records::open_read_only(house.dir.path()).unwrap());
    assert_eq!(
        reopened.entries(0, 10).await.unwrap().len(),
        2,
        "on disk when answered"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_are_listed_by_what_is_asked() {
    let house = house().await;
    house.started("1", "2.0").await;
    house.clock.advance(60_000);
    house.started("2", "3.0").await;
    let count = async |query: &str| {
        let answer = house.get(&format!("/v1/deployments{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        answer.json()["deployments"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, 2);
    assert_eq!(count("?service=checkout&environment=production").await, 2);
    assert_eq!(count("?service=search").await, 0);
    assert_eq!(count("?phase=superseded").await, 1);
    assert_eq!(count("?limit=1").await, 1);
    let since = crate::model::time::to_rfc3339(NOW_MS + 1);
    assert_eq!(count(&format!("?since={since}")).await, 1);
    let newest = house.get("/v1/deployments").await.json();
    assert_eq!(
        newest["deployments"][0]["artifact"]["version"], "3.0",
        "newest first"
    );
    for bad in [
        "?phase=running",
        "?since=yesterday",
        "?limit=0",
        "?state=failed",
    ] {
        assert_eq!(
            house.get(&format!("/v1/deployments{bad}")).await.status,
            400,
            "{bad}"
        );
    }
    assert_eq!(house.get("/v1/deployments/nope").await.status, 404);
    assert_eq!(house.get("/v1/verdicts/nope").await.status, 404);
    let slis = house
        .get("/v1/slis?service=checkout&window=7d")
        .await
        .json();
    assert_eq!(slis["overall"]["slis"].as_array().unwrap().len(), 7);
    assert_eq!(house.get("/v1/slis?window=0s").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_events_are_refused_whole_with_every_mistake() {
    let house = house().await;
    let bad = json!([started("1", "2.0"), { "type": "deployment.exploded" }]);
    let answer = house.post(&bad).await;
    assert_eq!(answer.status, 400);
    let error = &answer.json()["error"];
    let details = error["details"].as_array().unwrap();
    let fields: BTreeSet<_> = details
        .iter()
        .map(|d| d["field"].as_str().unwrap())
        .collect();
    assert!(
        fields.contains("type") && fields.contains("service"),
        "{error}"
    );
    assert!(details.iter().all(|detail| detail["index"] == 1), "{error}");
    assert_eq!(
        house.get("/v1/ledger").await.json()["entries"],
        json!([]),
        "none was taken"
    );

    let post = async |headers: &[(&str, &str)], body: &[u8]| {
        http(&house.server, "POST", "/v1/events", headers, body).await
    };
    let json = ("content-type", "application/json");
    assert_eq!(post(&[json], b"{").await.status, 400);
    assert_eq!(
        post(&[("content-type", "text/plain")], b"{}").await.status,
        415
    );
    assert_eq!(
        post(&[json, ("content-encoding", "br")], b"{}")
            .await
            .status,
        415
    );
    let large = vec![b' '; 2 << 20];
    assert_eq!(post(&[json], &large).await.status, 413);
    let zeros = zstd::encode_all(&vec![b' '; 8 << 20][..], 1).unwrap();
    assert_eq!(
        post(&[json, ("content-encoding", "zstd")], &zeros)
            .await
            .status,
        413
    );
    let event = started("1", "2.0").to_string();
    let packed = zstd::encode_all(event.as_bytes(), 1).unwrap();
    assert_eq!(
        post(&[json, ("content-encoding", "zstd")], &packed)
            .await
            .status,
        202
    );
    let foreign = ("origin", "https://evil.example");
    let answer = post(&[json, foreign], event.as_bytes()).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (403, &json!("forbidden"))
    );
    let half = "POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                content-length: 10\r\n\r\n{}";
    let answer = raw(&house.server, half.as_bytes()).await;
    assert_eq!((answer.status, answer.header("connection")), (408, "close"));
    assert_eq!(house.app.budget.held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_paths_and_methods_are_json_errors() {
    let house = house().await;
    let answer = house.get("/v1/nothing").await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (404, &json!("unknown_path"))
    );
    let answer = house.get("/v1/events").await;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    let answer = http(&house.server, "DELETE", "/v1/ledger", &[], b"").await;
    assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"));
    let answer = http(&house.server, "HEAD", "/v1/ledger", &[], b"").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let index = house.get("/").await.text();
    assert!(index.contains("POST /v1/events"), "{index}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_what_the_workers_say() {
    let house = house().await;
    let status = async |path: &str| {
        let answer = house.get(path).await;
        (answer.status, answer.text())
    };
    assert_eq!(status("/-/ready").await, (200, "ready\n".to_owned()));
    let watcher = house.app.heartbeats.register("watcher", 5_000, NOW_MS);
    assert_eq!(status("/-/healthy").await, (200, "healthy\n".to_owned()));
    let starting = "not ready: starting watcher\n".to_owned();
    assert_eq!(status("/-/ready").await, (503, starting));
    watcher.beat(NOW_MS);
    assert_eq!(status("/-/ready").await.0, 200);
    house.clock.advance(7_500);
    let late = "unhealthy: watcher has not reported for 7.5 s (normal: 5.0 s)\n";
    assert_eq!(status("/-/healthy").await, (503, late.to_owned()));
    assert_eq!(status("/-/ready").await, (503, late.to_owned()));
    watcher.beat(NOW_MS + 7_500);
    assert_eq!(status("/-/healthy").await.0, 200);
    house.app.stop.cancel();
    assert_eq!(
        status("/-/ready").await,
        (503, "not ready: stopping\n".to_owned())
    );
    assert_eq!(status("/-/healthy").await.0, 200, "stopping is no illness");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_come_in_the_asked_format_by_route_and_not_by_path() {
    let house = house().await;
    house.get("/v1/verdicts/one").await;
    house.get("/v1/verdicts/two").await;
    house.get("/v1/anything").await;
    let answer = house.get("/metrics").await;
    assert_eq!(
        answer.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = answer.text();
    for line in [
        "slogate_http_requests_total{listener=\"api\",route=\"/v1/verdicts/{id}\",code=\"404\"} 2\n",
        "slogate_http_requests_total{listener=\"api\",route=\"unknown\",code=\"404\"} 1\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("anything"), "{text}");
    let openmetrics = [(
        "accept",
        "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4",
    )];
    let answer = http(&house.server, "GET", "/metrics", &openmetrics, b"").await;
    let content_type = answer.header("content-type");
    assert!(
        content_type.starts_with("application/openmetrics-text"),
        "{content_type}"
    );
    assert!(answer.text().ends_with("# EOF\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_speaks_http2_and_gzip_where_asked() {
    let house = house().await;
    let answer = http2_client()
        .get(house.server.url("/v1/gates"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert_eq!(answer.headers().get("cache-control").unwrap(), "no-store");
    let gzip = [("accept-encoding", "gzip")];
    let answer = http(&house.server, "GET", "/v1/openapi.yaml", &gzip, b"").await;
    assert_eq!(answer.header("content-encoding"), "gzip");
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&answer.body[..]);
    std::io::Read::read_to_string(&mut decoder, &mut text).unwrap();
    assert!(text.starts_with("openapi: 3.1.0"));
}

/// Method and path of every operation of `docs/openapi.yaml`.
fn documented() -> BTreeSet<(String, String)> {
    let text = include_str!("../../../docs/openapi.yaml");
    let document: Value = serde_saphyr::from_str(text).unwrap();
    let mut found = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            found.insert((method.to_uppercase(), path.clone()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_has_each_route_and_each_route_is_there() {
    let served = routes().map(|(method, path)| (method.to_owned(), path.to_owned()));
    assert_eq!(documented(), served.collect::<BTreeSet<_>>());
    let house = house().await;
    for (method, path) in routes() {
        let path = path.replace("{id}", "x").replace("{gate}", "x");
        let answer = http(&house.server, method, &path, &[], b"").await;
        assert_ne!(answer.status, 405, "{method} {path}");
        let is_unknown = answer.text().contains("\"code\":\"unknown_path\"");
        assert!(!is_unknown, "{method} {path}: {}", answer.text());
    }
}

/// The keys that the document calls required are in what is answered.
#[tokio::test(flavor = "multi_thread")]
async fn answers_have_what_the_openapi_document_requires() {
    let house = house().await;
    house.tell(Some(1.0));
    let deployment = house.started("1", "2.0").await;
    let gate = format!("/v1/gates/queue/verdict?deployment={deployment}&fresh=true");
    let answer = house.get(&gate).await.json();
    let verdict = format!("/v1/verdicts/{}", answer["id"].as_str().unwrap());
    let list = house.get("/v1/deployments").await.json();
    let ledger = house.get("/v1/ledger").await.json();
    let text = include_str!("../../../docs/openapi.yaml");
    let document: Value = serde_saphyr::from_str(text).unwrap();
    let samples = [
        ("GateAnswer", answer),
        ("Verdict", house.get(&verdict).await.json()),
        ("Deployment", list["deployments"][0].clone()),
        ("LedgerEntry", ledger["entries"][0].clone()),
        ("Gate", house.get("/v1/gates/queue").await.json()),
        ("SliReport", house.get("/v1/slis").await.json()),
        ("Error", house.get("/v1/nothing").await.json()),
    ];
    for (name, sample) in samples {
        let schema = &document["components"]["schemas"][name];
        let required = schema["required"].as_array().unwrap();
        for key in required {
            assert!(
                sample.get(key.as_str().unwrap()).is_some(),
                "{name}.{key}: {sample}"
            );
        }
        let known = schema["properties"].as_object().unwrap();
        let unknown: Vec<_> = sample
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| !known.contains_key(*key))
            .collect();
        assert!(unknown.is_empty(), "{name}: undocumented {unknown:?}");
    }
}

/// Keeps what spans record, as text.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<String>>);

impl tracing::field::Visit for Spans {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let text = format!("{}={value:?};", field.name());
        self.0.lock().push_str(&text);
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Spans {
    fn on_new_span(
        &self,
        span: &tracing::span::Attributes<'_>,
        _id: &tracing::Id,
        _context: tracing_subscriber::layer::Context<'_, S>,
    ) {
        span.record(&mut self.clone());
    }

    fn on_record(
        &self,
        _id: &tracing::Id,
        values: &tracing::span::Record<'_>,
        _context: tracing_subscriber::layer::Context<'_, S>,
    ) {
        values.record(&mut self.clone());
    }
}

/// What we export is what lets slogate watch its own rollouts: server spans by route, with status.
#[tokio::test]
async fn requests_are_traced_by_route_and_without_their_query() {
    use tracing_subscriber::layer::SubscriberExt as _;
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let house = house().await;
    house.get("/v1/deployments?service=secretly").await;
    house.get("/v1/verdicts/nope").await;
    let text = spans.0.lock().clone();
    for said in [
        "otel.name=\"GET /v1/deployments\";",
        "otel.kind=\"server\";",
        "http.route=\"/v1/verdicts/{id}\";",
        "http.response.status_code=404;",
    ] {
        assert!(text.contains(said), "{said} in {text}");
    }
    assert!(!text.contains("secretly"), "{text}");
}

/// A tour that does not work is worse than none.
#[tokio::test(flavor = "multi_thread")]
async fn the_tour_in_the_documentation_works() {
    let tour = include_str!("../../../docs/api.md");
    let house = house().await;
    let event = tour
        .split("-d '")
        .nth(1)
        .and_then(|rest| rest.split('\'').next())
        .unwrap();
    let event: Value = serde_json::from_str(event).unwrap();
    let answer = house.post(&event).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let paths = tour.split("http://127.0.0.1:9560").skip(1);
    let paths = paths.map(|rest| rest.split(['\'', ' ', '\n', '"']).next().unwrap());
    let paths: Vec<_> = paths.filter(|path| path.starts_with('/')).collect();
    assert!(paths.len() > 6, "{paths:?}");
    for path in paths {
        if path == "/v1/events" {
            continue;
        }
        let path = path
            .replace("canary", "queue")
            .replace("wait=30s", "wait=0s");
        let answer = house.get(&path).await;
        let is_placeholder = path.ends_with("/ID") || path.ends_with('…');
        let expected = if is_placeholder { 404 } else { 200 };
        assert_eq!(answer.status, expected, "{path}: {}", answer.text());
    }
}
