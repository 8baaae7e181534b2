//! Remote write into slogate, by the senders that people run.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use slogate_series::{Labels, Sample, Series, Value};

use crate::harness::{Daemon, Setup, block_on, peers, remote_write, until};

const LIMIT: Duration = Duration::from_secs(120);

/// The sum of a family's samples whose labels contain `part`.
pub(crate) fn metric(daemon: &Daemon, family: &str, part: &str) -> f64 {
    let text = daemon.get("/metrics").text();
    let lines = text.lines().filter(|line| {
        let rest = line.strip_prefix(family);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(part))
    });
    let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    lines.filter_map(value).sum()
}

fn accepted(daemon: &Daemon, version: &str, kind: &str) -> f64 {
    let part = format!("version=\"{version}\",kind=\"{kind}\"");
    metric(daemon, "slogate_remote_write_accepted_total", &part)
}

fn rejected(daemon: &Daemon) -> String {
    let text = daemon.get("/metrics").text();
    let lines = text.lines().filter(|line| {
        line.starts_with("slogate_remote_write_rejected_total")
            || line.starts_with("slogate_remote_write_requests_total")
    });
    let bad = |line: &&str| !line.contains("outcome=\"ok\"") && !line.ends_with(" 0");
    lines.filter(bad).collect::<Vec<_>>().join("\n")
}

/// A Prometheus that scrapes itself and slogate each second and writes it all to slogate.
fn sender(
    program: &peers::Program,
    daemon: &Daemon,
    dir: &Path,
    message: &str,
) -> (peers::Peer, &'static str) {
    let api = daemon.ports.api;
    let is_new = program.version >= (3, 9);
    let native = if is_new {
        "scrape_native_histograms: true"
    } else {
        "scrape_timeout: 1s"
    };
    let protocol = match is_new {
        true => format!("protobuf_message: {message}"),
        false => "name: slogate".to_owned(),
    };
    // It scrapes itself, and is told where that is when it has an address.
    let peer = program.start(dir, "", &["--web.enable-lifecycle"]);
    let own = peer.address;
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, external_labels: {{ zone: z1 }} }}\n\
         scrape_configs:\n\
         \x20 - {{ job_name: self, {native}, static_configs: [{{ targets: ['{own}'] }}] }}\n\
         \x20 - {{ job_name: slogate, static_configs: [{{ targets: ['{api}'] }}] }}\n\
         remote_write:\n\
         \x20 - url: http://{api}/api/v1/write\n\
         \x20   {protocol}\n\
         \x20   send_exemplars: true\n\
         \x20   send_native_histograms: true\n\
         \x20   metadata_config: {{ send_interval: 1s }}\n\
         \x20   queue_config: {{ batch_send_deadline: 500ms }}\n"
    );
    fs::write(dir.join("settings.yml"), config).unwrap();
    let reload = peer.url("/-/reload");
    let reloaded = block_on(async { reqwest::Client::new().post(reload).send().await });
    assert!(reloaded.unwrap().status().is_success());
    let version = if message.contains("v2") && is_new {
        "2.0"
    } else {
        "1.0"
    };
    (peer, version)
}

#[test]
fn a_real_prometheus_writes_without_a_complaint() {
    let v1 = "prometheus.WriteRequest";
    let v2 = "io.prometheus.write.v2.Request";
    let (old, new) = (peers::prometheus(), peers::prometheus_3());
    let runs = [(&old, v1), (&new, v1), (&new, v2)];
    for (program, message) in runs.into_iter() {
        let Some(program) = program else { continue };
        let temp = tempfile::tempdir().unwrap();
        let daemon = Setup::in_dir(&temp.path().join("slogate")).start();
        let (peer, version) = sender(program, &daemon, &temp.path().join("peer"), message);
        until("samples arrive", LIMIT, || {
            assert_eq!(rejected(&daemon), "", "{message}");
            (accepted(&daemon, version, "samples") > 3_000.0).then_some(())
        });
        if program.version >= (3, 0) {
            until("native histograms arrive", LIMIT, || {
                (accepted(&daemon, version, "histograms") > 10.0).then_some(())
            });
        }
        // What the sender thinks of it.
        for family in ["samples", "histograms", "exemplars", "metadata"] {
            let failed = format!("sum(prometheus_remote_storage_{family}_failed_total)");
            assert!(
                peer.value(&failed).unwrap_or(0.0) == 0.0,
                "{message}: {failed}"
            );
        }
        assert_eq!(rejected(&daemon), "", "{message}");
    }
}

/// vmagent; killed when dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn vmagent(dir: &Path, api: SocketAddr) -> Option<Agent> {
    if Command::new("vmagent").arg("-version").output().is_err() {
        println!("skipped: vmagent is not installed");
        return None;
    }
    fs::create_dir_all(dir).unwrap();
    let config = format!(
        "scrape_configs:\n- {{ job_name: slogate, scrape_interval: 1s, \
         static_configs: [{{ targets: ['{api}'] }}] }}\n"
    );
    fs::write(dir.join("scrape.yml"), config).unwrap();
    let child = Command::new("vmagent")
        .arg(format!(
            "-promscrape.config={}",
            dir.join("scrape.yml").display()
        ))
        .arg(format!("-remoteWrite.url=http://{api}/api/v1/write"))
        .arg("-remoteWrite.flushInterval=500ms")
        .arg(format!(
            "-remoteWrite.tmpDataPath={}",
            dir.join("queue").display()
        ))
        .arg("-httpListenAddr=127.0.0.1:0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("log")).unwrap())
        .spawn()
        .expect("vmagent runs");
    Some(Agent(child))
}

#[test]
fn a_real_vmagent_writes_without_a_complaint() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = Setup::in_dir(&temp.path().join("slogate")).start();
    let dir = temp.path().join("agent");
    let Some(_agent) = vmagent(&dir, daemon.ports.api) else {
        return;
    };
    until("samples arrive", LIMIT, || {
        let is_there = accepted(&daemon, "1.0", "samples") > 500.0;
        is_there.then_some(())
    });
    let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
    assert!(!log.contains("\terror\t"), "{log}");
    let refused = rejected(&daemon);
    assert!(!refused.contains("rejected_total"), "{refused}\n{log}");
}

fn ramp(name: &str, from_ms: i64, count: i64) -> Series {
    let sample = |at: i64| Sample {
        t_ms: from_ms + at * 1_000,
        start_ms: 0,
        value: Value::Float(at as f64),
    };
    Series {
        labels: Labels::from_pairs([("__name__", name), ("job", "test")]),
        samples: (0..count).map(sample).collect(),
    }
}

/// 204 is a promise: a machine that kills us right after it must find every sample again.
#[test]
fn what_was_acknowledged_survives_kill_9() {
    let temp = tempfile::tempdir().unwrap();
    let setup = Setup::in_dir(&temp.path().join("slogate"));
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64;
    let mut total = 0.0;
    for round in 0..3 {
        let daemon = setup.start();
        let found = metric(&daemon, "slogate_store_samples", "");
        assert!(found >= total, "{found} of {total}");
        let names = (0..200).map(|n| format!("ramp_{round}_{n}"));
        let series: Vec<_> = names
            .map(|name| ramp(&name, now_ms - 600_000, 50))
            .collect();
        for body in remote_write::requests(&series) {
            let reply = remote_write::post(&daemon.api("/api/v1/write"), body);
            assert_eq!(reply.status, 204, "{}", reply.text());
        }
        total += 200.0 * 50.0;
        daemon.kill();
    }
    let daemon = setup.start();
    assert!(metric(&daemon, "slogate_store_samples", "") >= total);
}

/// The sender's log is where people look: it must say what to do.
#[test]
fn a_refused_part_is_told_in_one_line() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = Setup::in_dir(&temp.path().join("slogate")).start();
    let ancient = ramp("ancient", 1_000, 2);
    let body = remote_write::requests(&[ancient]).remove(0);
    let reply = remote_write::post(&daemon.api("/api/v1/write"), body);
    assert_eq!(reply.status, 400);
    let text = reply.text();
    assert!(
        text.starts_with("2 samples rejected (ancient{job=\"test\"} at 1000 ms: too old)"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1);
}
