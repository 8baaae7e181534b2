//! A daemon as its users run it: the built binary, a data directory, real sockets.
//!
//! - `peers`: a real Prometheus 2, Prometheus 3 and VictoriaMetrics to run beside it.
//! - `remote_write`: series as remote write requests.
//! - `go`: programs built from the Go modules in `tests/interop`.

pub(crate) mod go;
pub(crate) mod peers;
pub(crate) mod remote_write;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use slogate::config::data_dir::Ports;

/// The built binary.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slogate"));
    // A developer's own settings must not leak into the tests.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SLOGATE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Calls `probe` until it gives something, or panics with `what` after `limit`.
pub(crate) fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How to start a daemon.
pub(crate) struct Setup {
    dir: PathBuf,
    policy: Option<String>,
    settings: Vec<(String, String)>,
}

impl Setup {
    /// A daemon on free ports that keeps its data in `dir`, flushes each second and judges
    /// each second.
    pub(crate) fn in_dir(dir: &Path) -> Setup {
        let defaults = [
            ("LISTEN_API", "127.0.0.1:0"),
            ("LISTEN_OTLP_GRPC", "127.0.0.1:0"),
            ("LISTEN_OTLP_HTTP", "127.0.0.1:0"),
            ("INGEST_FLUSH_INTERVAL", "1s"),
            ("JUDGE_INTERVAL", "1s"),
        ];
        let settings = defaults.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Setup {
            dir: dir.to_owned(),
            policy: None,
            settings: settings.into(),
        }
    }

    /// With these gates instead of the built-in one.
    pub(crate) fn policy(mut self, yaml: &str) -> Setup {
        self.policy = Some(yaml.to_owned());
        self
    }

    /// With a setting, by its environment name without the prefix.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Setup {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self) -> Command {
        let mut command = binary();
        command.arg("serve").env("SLOGATE_DATA_DIR", &self.dir);
        for (name, value) in &self.settings {
            command.env(format!("SLOGATE_{name}"), value);
        }
        if let Some(policy) = &self.policy {
            let path = self.dir.with_extension("gates.yaml");
            fs::write(&path, policy).expect("the policy is written");
            command.env("SLOGATE_POLICY_PATHS", path);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(&self) -> Daemon {
        // A killed daemon leaves its ports file behind; this one must be the new daemon's.
        let ports_file = self.dir.join("ports");
        let _ = fs::remove_file(&ports_file);
        let log_path = self.dir.with_extension("log");
        let log = fs::File::create(&log_path).expect("a log file");
        let mut child = self
            .command()
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the daemon starts");
        let ports: Ports = until("the daemon listens", Duration::from_secs(30), || {
            if let Some(status) = child.try_wait().expect("a child process") {
                let log = fs::read_to_string(&log_path).unwrap_or_default();
                panic!("the daemon ended with {status}:\n{log}");
            }
            serde_json::from_slice(&fs::read(&ports_file).ok()?).ok()
        });
        let daemon = Daemon {
            child,
            ports,
            log_path,
        };
        until("the daemon is ready", Duration::from_secs(30), || {
            (daemon.get("/-/ready").status == 200).then_some(())
        });
        daemon
    }

    /// Starts it, expecting that it refuses.
    pub(crate) fn start_refused(&self) -> Output {
        self.command().output().expect("the binary runs")
    }
}

/// A running daemon; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) ports: Ports,
    log_path: PathBuf,
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }
}

/// Runs a future on a runtime of its own.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    install_crypto();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

/// The HTTP clients need one even for plain HTTP.
pub(crate) fn install_crypto() {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn send(request: reqwest::RequestBuilder) -> Result<Reply, reqwest::Error> {
    let response = request.timeout(Duration::from_secs(60)).send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Reply {
        status,
        headers,
        body: response.bytes().await?.to_vec(),
    })
}

/// One exchange with any server, as it is: an answer that comes compressed stays so.
pub(crate) fn exchange(url: &str, method: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
    let sent = block_on(async {
        let client = reqwest::Client::builder().no_gzip().build()?;
        let method = method.parse().expect("a method");
        let mut request = client.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request).await
    });
    sent.unwrap_or_else(|error| panic!("{method} {url}: {error:?}"))
}

impl Daemon {
    pub(crate) fn api(&self, path: &str) -> String {
        format!("http://{}{path}", self.ports.api)
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        let url = self.api(path);
        block_on(async { send(reqwest::Client::new().get(url)).await })
            .unwrap_or_else(|error| panic!("GET {path}: {error:?}\n{}", self.log()))
    }

    /// POST to any URL of the daemon with these headers.
    pub(crate) fn post(&self, url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        block_on(async {
            let mut request = reqwest::Client::new().post(url).body(body);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            send(request).await
        })
        .unwrap_or_else(|error| panic!("POST {url}: {error:?}\n{}", self.log()))
    }

    /// Posts an event and expects it to be accepted.
    pub(crate) fn event(&self, event: &Json) -> Json {
        let body = serde_json::to_vec(event).expect("JSON");
        let json = [("content-type", "application/json")];
        let reply = self.post(&self.api("/v1/events"), &json, body);
        assert_eq!(reply.status, 202, "{}", reply.text());
        reply.json()
    }

    /// What a gate says of a version.
    pub(crate) fn gate(&self, gate: &str, service: &str, version: &str) -> Json {
        let path = format!("/v1/gates/{gate}/verdict?service={service}&version={version}");
        let reply = self.get(&path);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    /// kill -9: no chance to say goodbye.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a running child");
        self.child.wait().expect("a child process");
    }

    /// SIGTERM, and the exit status.
    pub(crate) fn stop(mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("kill runs");
        assert!(sent.success());
        until("the daemon stops", Duration::from_secs(30), || {
            self.child.try_wait().expect("a child process")
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
