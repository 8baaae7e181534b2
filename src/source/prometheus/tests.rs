use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};

use slogate_promql::QueryValue;

use super::*;
use crate::config::{AuthSettings, OutboundSettings, TlsSettings};
use crate::model::ManualClock;

const ONE: &str = r#"{"status":"success","data":{"resultType":"scalar","result":[0,"1"]}}"#;

/// What a made-up server does with a request.
#[derive(Clone, Copy)]
enum Does {
    Answer(u16, &'static str, &'static str),
    Hang,
    Leave,
}

/// Does one thing after the other, and the last again and again; hands over the requests' first
/// lines and bodies.
fn serve(script: &'static [Does]) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (send, requests) = channel();
    std::thread::spawn(move || {
        let mut hanging = Vec::new();
        for (nth, stream) in listener.incoming().flatten().enumerate() {
            let mut stream = BufReader::new(stream);
            let (mut head, mut line) = (String::new(), String::new());
            while stream.read_line(&mut line).unwrap_or(0) > 2 {
                head.push_str(&std::mem::take(&mut line));
            }
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            stream.read_exact(&mut body).unwrap();
            let first = head.lines().next().unwrap_or_default().to_owned();
            if send
                .send(format!("{first} {}", String::from_utf8_lossy(&body)))
                .is_err()
            {
                return;
            }
            match script[nth.min(script.len() - 1)] {
                Does::Answer(status, headers, body) => {
                    let length = body.len();
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\
                         Connection: close\r\n\r\n{body}"
                    );
                    // A client that has left does not matter.
                    let _ = stream.get_mut().write_all(answer.as_bytes());
                }
                Does::Hang => hanging.push(stream),
                Does::Leave => {}
            }
        }
    });
    (address, requests)
}

fn settings(address: SocketAddr) -> RemoteSettings {
    RemoteSettings {
        peer: OutboundSettings {
            url: format!("http://{address}"),
            auth: AuthSettings::None,
            headers: Vec::new(),
            tls: TlsSettings::default(),
            proxy_from_environment: false,
            connect_timeout_ms: 5_000,
            timeout_ms: 20_000,
        },
        params: Vec::new(),
        concurrency: 2,
        answer_bytes_max: 1_000,
        takes_partial: false,
        observes: false,
    }
}

fn source(settings: &RemoteSettings, clock: &ManualClock) -> (PrometheusSource, Registry) {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let registry = Registry::new();
    let source = PrometheusSource::new("default", settings, Arc::new(clock.clone()), &registry);
    (source.unwrap(), registry)
}

fn simple(script: &'static [Does]) -> (PrometheusSource, Receiver<String>) {
    let (address, requests) = serve(script);
    (source(&settings(address), &ManualClock::at(0)).0, requests)
}

async fn ask(source: &PrometheusSource) -> Result<QueryValue, String> {
    let answer = source.query("a + b", 1_500).await;
    answer
        .map(|answer| answer.value)
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn what_may_go_well_the_next_time_is_tried_again() {
    let script = &[
        Does::Leave,
        Does::Answer(503, "", "overloaded"),
        Does::Answer(200, "", ONE),
    ];
    let (source, requests) = simple(script);
    assert_eq!(ask(&source).await, Ok(QueryValue::Scalar(1.0)));
    let first = requests.recv().unwrap();
    assert_eq!(
        first,
        "POST /api/v1/query HTTP/1.1 query=a+%2B+b&time=1.500"
    );
    assert_eq!(requests.try_iter().count(), 2);

    let (source, requests) = simple(&[Does::Answer(500, "", "first line\nsecond")]);
    let error = ask(&source).await.unwrap_err();
    assert!(
        error.ends_with("can't answer: status 500 Internal Server Error: first line"),
        "{error}"
    );
    assert_eq!(requests.try_iter().count(), 3, "not for ever");
}

#[tokio::test]
async fn what_is_refused_is_not_tried_again() {
    const BAD: &str = r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
    const SLOW: &str = r#"{"status":"error","errorType":"timeout","error":"query timed out"}"#;
    let cases: &[(&[Does], &str)] = &[
        (&[Does::Answer(400, "", BAD)], "is refused by"),
        (&[Does::Answer(422, "", BAD)], "bad_data: parse error"),
        (
            &[Does::Answer(401, "", "no tenant")],
            "401 Unauthorized: no tenant",
        ),
        (&[Does::Answer(503, "", SLOW)], "timeout: query timed out"),
        (
            &[Does::Answer(307, "Location: /elsewhere\r\n", "")],
            "redirects to /elsewhere",
        ),
        (&[Does::Answer(200, "", "<html>")], "not its JSON"),
        (
            &[Does::Answer(429, "Retry-After: 3600\r\n", "later")],
            "429 Too Many Requests: later",
        ),
    ];
    for (script, expected) in cases {
        let (source, requests) = simple(script);
        let error = ask(&source).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert_eq!(requests.try_iter().count(), 1, "{expected}");
    }
}

#[tokio::test]
async fn a_server_without_post_is_asked_by_get() {
    let script = &[Does::Answer(405, "", "no"), Does::Answer(200, "", ONE)];
    let (address, requests) = serve(script);
    let mut settings = settings(address);
    settings.params = vec![("dedup".to_owned(), "true".to_owned())];
    let (source, _) = source(&settings, &ManualClock::at(0));
    for _ in 0..2 {
        assert!(ask(&source).await.is_ok());
    }
    let methods: Vec<String> = requests.try_iter().collect();
    assert_eq!(methods.len(), 3, "it is remembered: {methods:?}");
    assert_eq!(
        methods[1],
        "GET /api/v1/query?query=a+%2B+b&time=1.500&dedup=true HTTP/1.1 "
    );
}

#[tokio::test]
async fn partial_answers_count_only_where_that_is_wanted() {
    const THANOS: &str = r#"{"status":"success","warnings":["store 1 is away"],"data":{"resultType":"scalar","result":[0,"1"]}}"#;
    const VICTORIA: &str =
        r#"{"status":"success","isPartial":true,"data":{"resultType":"scalar","result":[0,"1"]}}"#;
    const REMARK: &str = r#"{"status":"success","warnings":["PromQL warning: x"],"data":{"resultType":"scalar","result":[0,"1"]}}"#;
    for (script, expected) in [
        (&[Does::Answer(200, "", THANOS)], "partial: store 1 is away"),
        (&[Does::Answer(200, "", VICTORIA)], "partial"),
    ] {
        let (address, _requests) = serve(script);
        let mut settings = settings(address);
        let (strict, _) = source(&settings, &ManualClock::at(0));
        let error = ask(&strict).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
        settings.takes_partial = true;
        let (lenient, _) = source(&settings, &ManualClock::at(0));
        let answer = lenient.query("1", 0).await.unwrap();
        assert_eq!(answer.warnings.len(), 1, "and it is shown");
    }
    let (source, _requests) = simple(&[Does::Answer(200, "", REMARK)]);
    assert_eq!(
        source.query("1", 0).await.unwrap().warnings,
        ["PromQL warning: x"]
    );
}

#[tokio::test]
async fn large_answers_are_not_read() {
    let large: &'static str = "x".repeat(2_000).leak();
    let (address, _requests) = serve(vec![Does::Answer(200, "", large)].leak());
    let (source, _) = source(&settings(address), &ManualClock::at(0));
    let error = ask(&source).await.unwrap_err();
    assert!(error.contains("larger than 1000 bytes"), "{error}");
}

#[tokio::test]
async fn a_server_that_hangs_is_waited_for_once_and_then_left_alone() {
    let hang = [Does::Hang; 6];
    let script = [&hang[..], &[Does::Answer(200, "", ONE)]].concat().leak();
    let (address, requests) = serve(script);
    let mut settings = settings(address);
    settings.peer.timeout_ms = 100;
    let clock = ManualClock::at(0);
    let (source, registry) = source(&settings, &clock);
    for _ in 0..5 {
        let error = ask(&source).await.unwrap_err();
        assert!(error.contains("no answer within 100ms"), "{error}");
    }
    assert_eq!(requests.try_iter().count(), 5);
    let error = ask(&source).await.unwrap_err();
    assert!(
        error.contains("after 5 failures in a row; the last: no answer"),
        "{error}"
    );
    assert_eq!(requests.try_iter().count(), 0, "it was not asked");
    let state = || {
        let family = registry.family("slogate_source_breaker_state").unwrap();
        family.points[0].value.clone()
    };
    assert_eq!(state(), crate::telemetry::metrics::Value::Number(2.0));

    // One query tries it out, and hangs as well; after twice as long the next is answered.
    clock.advance(5_000);
    assert!(ask(&source).await.unwrap_err().contains("no answer"));
    clock.advance(5_000);
    assert!(
        ask(&source)
            .await
            .unwrap_err()
            .contains("failures in a row")
    );
    clock.advance(5_000);
    assert!(ask(&source).await.is_ok());
    assert_eq!(state(), crate::telemetry::metrics::Value::Number(0.0));
}

#[tokio::test]
async fn only_so_many_queries_are_under_way() {
    let (address, requests) = serve(&[Does::Answer(200, "", ONE)]);
    let mut settings = settings(address);
    settings.peer.timeout_ms = 100;
    let (source, _) = source(&settings, &ManualClock::at(0));
    let turns = source.turns.acquire_many(2).await.unwrap();
    let error = ask(&source).await.unwrap_err();
    assert!(error.contains("2 queries are under way already"), "{error}");
    assert_eq!(requests.try_iter().count(), 0);
    drop(turns);
    assert!(
        ask(&source).await.is_ok(),
        "waiting in vain is no failure of the server"
    );
}
