//! The real Prometheus and VictoriaMetrics that run beside slogate.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value as Json;
use slogate_series::Series;

use super::go::Module;
use super::{block_on, remote_write, until};

pub(crate) const START_MAX: Duration = Duration::from_secs(120);

/// A program that can be started.
#[derive(Clone)]
pub(crate) struct Program {
    path: PathBuf,
    /// The lowest version that this is known to be.
    pub(crate) version: (u32, u32),
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Prometheus,
    VictoriaMetrics,
}

/// The Prometheus that is installed (2.42 on Debian 12). `None`, with a line that says so, where
/// there is none.
pub(crate) fn prometheus() -> Option<Program> {
    let Ok(output) = Command::new("prometheus").arg("--version").output() else {
        println!("skipped: prometheus is not installed");
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    Some(Program {
        path: "prometheus".into(),
        version: version(&String::from_utf8_lossy(&text)),
        kind: Kind::Prometheus,
    })
}

/// Prometheus 3, built from its Go module. `None`, with a line that says so, where that can't be.
pub(crate) fn prometheus_3() -> Option<Program> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let package = "github.com/prometheus/prometheus/cmd/prometheus";
        // Without service discovery, most of what it depends on is not needed.
        Module::fetched("prometheus")?.build(package, "remove_all_sd,netgo")
    });
    match built {
        Ok(path) => Some(Program {
            path: path.clone(),
            version: (3, 14),
            kind: Kind::Prometheus,
        }),
        Err(reason) => {
            println!("skipped: Prometheus 3: {reason}");
            None
        }
    }
}

/// The VictoriaMetrics that is installed (1.79 on Debian 12). `None`, with a line that says so,
/// where there is none.
pub(crate) fn victoria_metrics() -> Option<Program> {
    if Command::new("victoria-metrics")
        .arg("-version")
        .output()
        .is_err()
    {
        println!("skipped: victoria-metrics is not installed");
        return None;
    }
    Some(Program {
        path: "victoria-metrics".into(),
        version: (1, 0),
        kind: Kind::VictoriaMetrics,
    })
}

/// Reads the version of `prometheus, version 2.42.0+ds (branch: …)`.
fn version(text: &str) -> (u32, u32) {
    let found = text.split("version ").nth(1).unwrap_or("");
    let mut numbers = found.split('.').map_while(|number| number.parse().ok());
    (
        numbers.next().unwrap_or(0),
        numbers.next().unwrap_or_default(),
    )
}

impl Program {
    /// Starts it with its data in `dir`. It takes remote writes and keeps samples of any age; a
    /// Prometheus has native histograms and exemplars, and reads `config` (YAML) as its settings.
    pub(crate) fn start(&self, dir: &Path, config: &str, args: &[&str]) -> Peer {
        fs::create_dir_all(dir).expect("a folder");
        fs::write(dir.join("settings.yml"), config).expect("a settings file");
        // Between finding a free port and listening on it another process may take it.
        let started = (0..5).find_map(|_| self.start_once(dir, args));
        started.unwrap_or_else(|| panic!("{} ends at once: {}", self.path.display(), log(dir)))
    }

    fn start_once(&self, dir: &Path, args: &[&str]) -> Option<Peer> {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let (settings, data) = (dir.join("settings.yml"), dir.join("data"));
        let (settings, data) = (settings.display(), data.display());
        let mut command = Command::new(&self.path);
        match self.kind {
            Kind::Prometheus => command
                .arg(format!("--config.file={settings}"))
                .arg(format!("--storage.tsdb.path={data}"))
                .arg("--storage.tsdb.retention.time=100y")
                .arg(format!("--web.listen-address={address}"))
                .arg("--web.enable-remote-write-receiver")
                // Newer ones have both without asking, and ignore it.
                .arg("--enable-feature=native-histograms,exemplar-storage"),
            Kind::VictoriaMetrics => command
                .arg(format!("-httpListenAddr={address}"))
                .arg(format!("-storageDataPath={data}"))
                .arg("-retentionPeriod=100y")
                // Else what was just written is not seen for half a minute.
                .arg("-search.latencyOffset=0s"),
        };
        let child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("log")).expect("a log file"))
            .spawn()
            .expect("the program runs");
        let mut peer = Peer {
            child,
            address,
            dir: dir.to_owned(),
        };
        let ready = match self.kind {
            Kind::Prometheus => "/-/ready",
            Kind::VictoriaMetrics => "/health",
        };
        let is_ready = until("the peer is ready", START_MAX, || {
            if peer.child.try_wait().expect("a child").is_some() {
                return Some(false);
            }
            peer.ask(ready).map(|_| true)
        });
        is_ready.then_some(peer)
    }
}

fn log(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// A running Prometheus or VictoriaMetrics; killed when dropped.
pub(crate) struct Peer {
    child: Child,
    pub(crate) address: SocketAddr,
    dir: PathBuf,
}

impl Peer {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A successful answer's text.
    pub(crate) fn ask(&self, path: &str) -> Option<String> {
        let url = self.url(path);
        block_on(async {
            let response = reqwest::Client::new().get(url).send().await.ok()?;
            response.error_for_status().ok()?.text().await.ok()
        })
    }

    /// The `data` of a successful answer of the Prometheus API.
    pub(crate) fn data(&self, path: &str) -> Json {
        let text = self
            .ask(path)
            .unwrap_or_else(|| panic!("no answer to {path}"));
        let answer: Json = serde_json::from_str(&text).expect("JSON");
        assert_eq!(answer["status"], "success", "{answer:#}");
        answer["data"].clone()
    }

    /// The value of an expression that answers with one sample.
    pub(crate) fn value(&self, expr: &str) -> Option<f64> {
        let data = self.data(&format!("/api/v1/query?query={expr}"));
        data["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// Remote-writes samples (1.0), oldest first, and expects that they are taken.
    pub(crate) fn write(&self, series: &[Series]) {
        for body in remote_write::requests(series) {
            let reply = remote_write::post(&self.url("/api/v1/write"), body);
            let is_taken = (200..300).contains(&reply.status);
            assert!(
                is_taken,
                "{} {}\n{}",
                reply.status,
                reply.text(),
                log(&self.dir)
            );
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
