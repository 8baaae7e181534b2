//! A server on a free port and small clients, for the tests of this room.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::listener::{ListenOptions, Listener};
use crate::telemetry::{Registry, catalog};

/// The longest that any exchange of a test may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running listener; stopped when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    registry: Registry,
    task: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
    _stop_on_drop: Arc<tokio_util::sync::DropGuard>,
}

impl Server {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> u64 {
        self.registry
            .gauge(&catalog::CONNECTIONS, &["test"])
            .value()
    }

    /// Connections ended by the listener for that reason.
    pub(crate) fn cut(&self, reason: &str) -> u64 {
        self.registry
            .counter(&catalog::CONNECTIONS_CUT, &["test", reason])
            .value()
    }

    /// Waits for the listener to have drained.
    pub(crate) async fn ended(&self) {
        if let Some(task) = self.task.lock().await.take() {
            tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
        }
    }
}

pub(crate) async fn serve(router: Router, options: ListenOptions) -> Server {
    let registry = Registry::new();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::bind("test", address, options, &registry).await;
    let listener = listener.unwrap();
    let stop = CancellationToken::new();
    Server {
        address: listener.address(),
        task: Arc::new(tokio::sync::Mutex::new(Some(tokio::spawn(
            listener.serve(router, stop.clone()),
        )))),
        _stop_on_drop: Arc::new(stop.clone().drop_guard()),
        stop,
        registry,
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map_or("", |(_, value)| value.as_str())
    }
}

/// One HTTP/1.1 exchange on a connection of its own.
pub(crate) async fn http(
    server: &Server,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    raw(server, &[head.as_bytes(), body].concat()).await
}

/// Sends `bytes` and reads the answer to the connection's end.
pub(crate) async fn raw(server: &Server, bytes: &[u8]) -> Answer {
    let exchange = async {
        let (mut read, mut write) = TcpStream::connect(server.address)
            .await
            .unwrap()
            .into_split();
        let bytes = bytes.to_vec();
        // A server that refuses early stops reading; its answer counts all the same.
        let writing = tokio::spawn(async move {
            let _ = write.write_all(&bytes).await;
            write
        });
        let mut answer = Vec::new();
        let _ = read.read_to_end(&mut answer).await;
        drop(writing.await);
        answer
    };
    parse(&tokio::time::timeout(PATIENCE, exchange).await.unwrap())
}

fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no HTTP answer: {text:?}"));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let headers: Vec<_> = lines.map(header).collect();
    let chunked = ("transfer-encoding".to_owned(), "chunked".to_owned());
    let mut body = bytes[end + 4..].to_vec();
    if headers.contains(&chunked) {
        body = dechunk(&body);
    }
    Answer {
        status: status.parse().unwrap(),
        headers,
        body,
    }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let line = bytes.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = std::str::from_utf8(&bytes[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return out;
        }
        out.extend_from_slice(&bytes[line + 2..line + 2 + size]);
        bytes = &bytes[line + 2 + size + 2..];
    }
}

/// A client that speaks HTTP/2 without asking.
pub(crate) fn http2_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().http2_prior_knowledge();
    builder.timeout(PATIENCE).build().unwrap()
}
