//! Argo Rollouts at slogate's gate, with the AnalysisTemplate that the docs offer.
//!
//! Where Go is installed, Argo's own code asks (`tests/interop/argo`). Everywhere else its
//! request is replayed byte by byte and the template's two conditions are read from the answer;
//! that program's own tests hold the replayed request against the real one.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::harness::go::{Module, text};
use crate::harness::{Daemon, Setup, until};

/// Gates whose answers need no traffic. The last is for another service.
const GATES: &str = r"
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: passing }
spec: { soak: 0s, warmUp: 0s, checks: [{ name: load, query: vector(1), below: 2 }] }
---
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: failing }
spec: { soak: 0s, warmUp: 0s, checks: [{ name: load, query: vector(3), below: 2 }] }
---
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: undecided }
spec: { soak: 0s, warmUp: 0s, checks: [{ name: load, query: nobody_sends_this, below: 2 }] }
---
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: elsewhere }
spec:
  match: { service: warehouse }
  soak: 0s
  checks: [{ name: load, query: vector(1), below: 2 }]
";

/// What Argo measures for each gate asked about `checkout` 4.2.0.
const PHASES: [(&str, &str); 5] = [
    ("passing", "Successful"),
    ("failing", "Failed"),
    ("undecided", "Inconclusive"),
    ("elsewhere", "Error"),
    ("unheard-of", "Error"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn template_path() -> PathBuf {
    root().join("docs/argo-rollouts/analysis-template.yaml")
}

fn start(dir: &Path) -> Daemon {
    Setup::in_dir(&dir.join("data")).policy(GATES).start()
}

/// Announces the release and waits until every gate has judged it.
fn announce(daemon: &Daemon) {
    daemon.event(&json!({
        "type": "deployment.started", "service": "checkout", "environment": "production",
        "artifact": { "version": "4.2.0" }, "previous": { "version": "4.1.7" },
    }));
    for (gate, _) in &PHASES[..3] {
        until(&format!("{gate} judges"), Duration::from_secs(60), || {
            let answer = daemon.gate(gate, "checkout", "4.2.0");
            (answer["verdict"] != "pending").then_some(())
        });
    }
}

/// The template's only metric.
struct Metric {
    url: String,
    defaults: Vec<(String, String)>,
    success: String,
    failure: String,
}

impl Metric {
    fn read() -> Metric {
        let text = std::fs::read_to_string(template_path()).expect("the template");
        let template: Json = serde_saphyr::from_str(&text).expect("YAML");
        let metric = &template["spec"]["metrics"][0];
        let text = |value: &Json| value.as_str().expect("a text").to_owned();
        let args = template["spec"]["args"].as_array().expect("a list").iter();
        Metric {
            url: text(&metric["provider"]["web"]["url"]),
            defaults: args
                .filter(|arg| arg["value"].is_string())
                .map(|arg| (text(&arg["name"]), text(&arg["value"])))
                .collect(),
            success: text(&metric["successCondition"]),
            failure: text(&metric["failureCondition"]),
        }
    }

    /// The URL with the arguments put in, as they are.
    fn url(&self, args: &[(&str, &str)]) -> String {
        let mut url = self.url.clone();
        let defaults = self
            .defaults
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in args.iter().copied().chain(defaults) {
            url = url.replace(&format!("{{{{args.{name}}}}}"), value);
        }
        assert!(!url.contains("{{"), "an argument is missing: {url}");
        url
    }

    /// What Argo makes of an answer.
    fn phase(&self, status: u16, result: &Json) -> &'static str {
        if !(200..300).contains(&status) {
            return "Error";
        }
        match (holds(&self.failure, result), holds(&self.success, result)) {
            (true, _) => "Failed",
            (false, true) => "Successful",
            (false, false) => "Inconclusive",
        }
    }
}

/// Evaluates `result.key == "value"`, the only shape that the template's conditions have.
fn holds(condition: &str, result: &Json) -> bool {
    let (left, right) = condition.split_once(" == ").expect("a comparison");
    let key = left.strip_prefix("result.").expect("a key of the result");
    let value: Json = serde_json::from_str(right).expect("a literal");
    *result.get(key).expect("a missing key is an error to Argo") == value
}

/// Sends what Go's HTTP client sends for Argo's web provider, on a connection of its own.
fn ask_as_argo(daemon: &Daemon, url: &str) -> (u16, Json) {
    let address: SocketAddr = daemon.ports.api;
    let uri = url
        .strip_prefix(&format!("http://{address}"))
        .expect("a URL of the daemon");
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout");
    let request = format!(
        "GET {uri} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: Go-http-client/1.1\r\n\
         Accept-Encoding: gzip\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = BufReader::new(stream);
    let status = line(&mut answer);
    let status = status
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status");
    let mut headers = Vec::new();
    loop {
        let header = line(&mut answer).to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        headers.push(header);
    }
    let header = |name: &str| headers.iter().find_map(|header| header.strip_prefix(name));
    let mut body = match header("content-length: ") {
        Some(length) => bytes(&mut answer, length.parse().expect("a length")),
        None => chunks(&mut answer),
    };
    if header("content-encoding: ") == Some("gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(body.as_slice())
            .read_to_end(&mut plain)
            .expect("gzip");
        body = plain;
    }
    assert!(header("content-type: ").is_some_and(|kind| kind.starts_with("application/json")));
    (status, serde_json::from_slice(&body).expect("JSON"))
}

fn line(from: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

fn bytes(from: &mut BufReader<TcpStream>, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).expect("the whole body");
    bytes
}

fn chunks(from: &mut BufReader<TcpStream>) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let length = usize::from_str_radix(&line(from), 16).expect("a chunk's length");
        body.extend(bytes(from, length));
        line(from);
        if length == 0 {
            return body;
        }
    }
}

/// A rollout is polled from before slogate knows of it. What Argo would abort for on the way
/// (an error, a fail) must not happen only because slogate was asked early.
#[test]
fn what_argo_sends_is_answered_as_the_template_expects() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = start(dir.path());
    let metric = Metric::read();
    let slogate = format!("http://{}", daemon.ports.api);
    let ask = |gate: &str| {
        let args = [
            ("slogate", slogate.as_str()),
            ("gate", gate),
            ("service", "checkout"),
            ("version", "4.2.0"),
        ];
        let (status, result) = ask_as_argo(&daemon, &metric.url(&args));
        (metric.phase(status, &result), result)
    };
    let (early, result) = ask("passing");
    assert_eq!(early, "Inconclusive", "{result:#}");
    assert_eq!(result["verdict"], "pending");
    announce(&daemon);
    for (gate, phase) in PHASES {
        let (measured, result) = ask(gate);
        assert_eq!(measured, phase, "{gate}: {result:#}");
    }
    let (_, refused) = ask("unheard-of");
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("unheard-of") && message.contains("passing"),
        "{message}"
    );
    // The docs tell to write a plus of a version as %2B.
    daemon.event(&json!({
        "type": "deployment.started", "service": "checkout", "environment": "production",
        "artifact": { "version": "4.3.0+build.5" },
    }));
    let args = [
        ("slogate", slogate.as_str()),
        ("gate", "passing"),
        ("service", "checkout"),
        ("version", "4.3.0%2Bbuild.5"),
    ];
    let (status, result) = ask_as_argo(&daemon, &metric.url(&args));
    assert_eq!(
        (status, &result["version"]),
        (200, &json!("4.3.0+build.5")),
        "{result:#}"
    );
}

/// The program with Argo's own code, built once and tested. `None`, with a line that says so,
/// where it can't be built.
pub(crate) fn program() -> Option<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let module = Module::fetched("argo")?;
        let program = module.build(".", "")?;
        module.test();
        Ok(program)
    });
    match built {
        Ok(program) => Some(program.clone()),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

/// Runs a measurement for each gate, and gives the lines it printed.
fn measure(program: &Path, slogate: &str, gates: &[&str]) -> Vec<Json> {
    let cases = gates
        .iter()
        .map(|gate| format!("gate={gate},service=checkout,version=4.2.0"));
    let output = Command::new(program)
        .arg("-template")
        .arg(template_path())
        .args(["-slogate", slogate])
        .args(cases)
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", text(&output));
    let lines = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<Json> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), gates.len());
    lines
}

#[test]
fn argos_own_code_understands_every_answer() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = program() else {
        return;
    };
    let daemon = start(dir.path());
    let slogate = format!("http://{}", daemon.ports.api);
    let early = measure(&program, &slogate, &["passing"]);
    assert_eq!(early[0]["phase"], "Inconclusive", "{:#}", early[0]);
    announce(&daemon);
    let gates = PHASES.map(|(gate, _)| gate);
    for (line, (gate, phase)) in measure(&program, &slogate, &gates).iter().zip(PHASES) {
        assert_eq!(line["phase"], phase, "{gate}: {line:#}");
        let value = line["value"].as_str().unwrap();
        if phase == "Error" {
            // Argo drops the body, so the status is all that its user sees.
            assert!(
                line["message"].as_str().unwrap().contains("code: 4"),
                "{line:#}"
            );
            continue;
        }
        let kept: Json = serde_json::from_str(value).expect("the measurement keeps the answer");
        assert_eq!(kept["gate"], gate);
        assert!(!kept["message"].as_str().unwrap().is_empty());
        // Argo stores it in the AnalysisRun at every measurement.
        assert!(value.len() < 4096, "{} bytes", value.len());
    }
    daemon.kill();
    let down = measure(&program, &slogate, &["passing"]);
    assert_eq!(down[0]["phase"], "Error", "{:#}", down[0]);
}
