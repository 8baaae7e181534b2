//! PromQL over HTTP: slogate beside a real Prometheus, on the same data in one run.
//!
//! Starts the Prometheus that is named and a slogate, both on free ports of loopback with
//! empty data directories; remote-writes the same series to both; then asks each query of one
//! and of the other in turns, checks that the answers agree, and prints a Markdown table of
//! times. A time is from the first byte of the request to the last byte of the answer. Beside
//! it stands the ratio of the CPU time that the two processes took for the same requests, which
//! is steadier where the machine has other things to do (Linux only).
//!
//! ```sh
//! promql_load --slogate target/release/slogate --prometheus prometheus --series 10000
//! ```
//!
//! `scripts/bench-promql` builds what this needs and runs it.

#![allow(
    clippy::disallowed_methods,
    reason = "a measuring program is the outermost driver: it reads the clock"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

/// Between samples of a series.
const STEP_MS: i64 = 15_000;
/// Samples of a series: an hour, and what windows reach back.
const SAMPLES: i64 = 276;
/// Samples of each series in one remote write. Small enough that no series is ever much later
/// than another, which Prometheus would refuse.
const SLICE: i64 = 46;
/// Series in one remote write.
const BATCH: usize = 2_000;

/// What is asked: at the end of the data, and over its last hour in steps of 15 s.
const QUERIES: [(&str, &str); 14] = [
    ("selector", "http_requests_total{job=\"service-03\"}"),
    ("sum", "sum(process_memory_bytes)"),
    (
        "rate, sum by",
        "sum by (job, route) (rate(http_requests_total[5m]))",
    ),
    (
        "rate, sum without",
        "sum without (instance) (rate(http_requests_total[5m]))",
    ),
    (
        "error ratio",
        "sum by (job) (rate(http_requests_total{code=~\"5..\"}[5m])) / sum by (job) \
         (rate(http_requests_total[5m]))",
    ),
    (
        "max_over_time",
        "max by (job) (max_over_time(process_memory_bytes[5m]))",
    ),
    (
        "quantile, classic",
        "histogram_quantile(0.99, sum by (le, job) (rate(http_request_duration_seconds_bucket[5m])))",
    ),
    (
        "quantile per series, classic",
        "histogram_quantile(0.9, rate(http_request_duration_seconds_bucket[5m]))",
    ),
    (
        "quantile, native",
        "histogram_quantile(0.99, sum by (job) (rate(request_duration_seconds[5m])))",
    ),
    ("topk", "topk(10, rate(http_requests_total[5m]))"),
    (
        "join, group_left",
        "sum by (version) (process_memory_bytes * on (job, instance) group_left (version) \
         target_info)",
    ),
    (
        "join, one to one",
        "process_memory_bytes - process_memory_bytes offset 5m",
    ),
    (
        "subquery of a sum",
        "max_over_time(sum by (job) (rate(http_requests_total[1m]))[10m:1m])",
    ),
    (
        "subquery per series",
        "sum by (job) (max_over_time(rate(http_requests_total[1m])[10m:1m]))",
    ),
];

fn main() -> Anyhow<()> {
    let options = Options::read()?;
    println!(
        "| series | query | kind | Prometheus ms, min (median) | slogate ms, min (median) | ratio | \
         ratio of CPU |\n\
         |---|---|---|---|---|---|---|"
    );
    for series in &options.series {
        measure(&options, *series)?;
    }
    Ok(())
}

struct Options {
    slogate: PathBuf,
    prometheus: PathBuf,
    series: Vec<usize>,
    rounds: usize,
}

impl Options {
    fn read() -> Anyhow<Self> {
        let mut options = Options {
            slogate: "target/release/slogate".into(),
            prometheus: "prometheus".into(),
            series: Vec::new(),
            rounds: 7,
        };
        let mut args = std::env::args().skip(1);
        while let Some(flag) = args.next() {
            let value = args.next().ok_or(format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--slogate" => options.slogate = value.into(),
                "--prometheus" => options.prometheus = value.into(),
                "--series" => options.series.push(value.parse()?),
                "--rounds" => options.rounds = value.parse()?,
                _ => return Err(format!("unknown flag {flag}").into()),
            }
        }
        if options.series.is_empty() {
            options.series = vec![10_000, 200_000];
        }
        Ok(options)
    }
}

fn measure(options: &Options, series: usize) -> Anyhow<()> {
    let dir = std::env::temp_dir().join(format!("promql-load-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let prometheus = Server::prometheus(&options.prometheus, &dir.join("prometheus"))?;
    let slogate = Server::slogate(&options.slogate, &dir.join("slogate"), series)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let end_ms = i64::try_from(now)? * 1000 / STEP_MS * STEP_MS;
    let all = everything(series);
    let start_ms = end_ms - SAMPLES * STEP_MS;
    let [to_prometheus, to_slogate] = [&prometheus, &slogate].map(|server| {
        let began = Instant::now();
        fill(server, &all, start_ms).map(|()| began.elapsed())
    });
    eprintln!(
        "{} series of {SAMPLES} samples: written in {:.1?} to Prometheus, in {:.1?} to slogate",
        all.len(),
        to_prometheus?,
        to_slogate?
    );
    let mut logs = Vec::new();
    for (name, query) in QUERIES {
        for is_range in [false, true] {
            let path = path(query, is_range, end_ms);
            let ratio = compare(&prometheus, &slogate, &path, options.rounds)
                .map_err(|error| format!("{name}: {query}: {error}"))?;
            let kind = if is_range { "range" } else { "instant" };
            println!(
                "| {} | {name} | {kind} | {} | {} | {:.2} | {:.2} |",
                all.len(),
                ratio.prometheus,
                ratio.slogate,
                ratio.of_minima(),
                ratio.of_cpu
            );
            io::stdout().flush()?;
            logs.push((ratio.of_minima().ln(), ratio.of_cpu.ln()));
        }
    }
    let mean = |pick: fn(&(f64, f64)) -> f64| {
        (logs.iter().map(pick).sum::<f64>() / logs.len() as f64).exp()
    };
    println!(
        "| {} | **geometric mean** | | | | **{:.2}** | **{:.2}** |",
        all.len(),
        mean(|(time, _)| *time),
        mean(|(_, cpu)| *cpu)
    );
    for (name, server) in [("Prometheus", &prometheus), ("slogate", &slogate)] {
        eprintln!("{name}: {} MB at most", server.peak_mb()?);
    }
    drop((prometheus, slogate));
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn path(query: &str, is_range: bool, end_ms: i64) -> String {
    let mut escaped = String::new();
    for byte in query.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    let end = end_ms / 1000;
    if is_range {
        let start = end - 3600;
        format!("/api/v1/query_range?query={escaped}&start={start}&end={end}&step=15")
    } else {
        format!("/api/v1/query?query={escaped}&time={end}")
    }
}

/// Times of one query, in milliseconds.
struct Times {
    min: f64,
    median: f64,
}

impl Times {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Times {
            min: times.first().copied().unwrap_or(f64::NAN),
            median: times.get(times.len() / 2).copied().unwrap_or(f64::NAN),
        }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} ({:.1})", self.min, self.median)
    }
}

struct Comparison {
    prometheus: Times,
    slogate: Times,
    /// slogate's CPU time over that of Prometheus, all rounds together.
    of_cpu: f64,
}

impl Comparison {
    /// Of the least disturbed runs.
    fn of_minima(&self) -> f64 {
        self.slogate.min / self.prometheus.min
    }
}

/// Asks both in turns. The first round does not count: it fills caches, and its answers are
/// compared.
fn compare(prometheus: &Server, slogate: &Server, path: &str, rounds: usize) -> Anyhow<Comparison> {
    agree(&prometheus.get(path)?, &slogate.get(path)?)?;
    let mut times = [Vec::new(), Vec::new()];
    let cpu = || -> Anyhow<[f64; 2]> { Ok([prometheus.cpu_ms()?, slogate.cpu_ms()?]) };
    let before = cpu()?;
    for _ in 0..rounds {
        for (server, times) in [prometheus, slogate].into_iter().zip(&mut times) {
            let began = Instant::now();
            server.get(path)?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    let after = cpu()?;
    let [prometheus, slogate] = times.map(Times::of);
    Ok(Comparison {
        prometheus,
        slogate,
        of_cpu: (after[1] - before[1]) / (after[0] - before[0]),
    })
}

/// The values of each series of an answer.
fn series_of(answer: &[u8]) -> Anyhow<BTreeMap<String, Vec<(f64, f64)>>> {
    let answer: Value = serde_json::from_slice(answer)?;
    let mut all = BTreeMap::new();
    let empty = Vec::new();
    for series in answer["data"]["result"].as_array().unwrap_or(&empty) {
        let points = match &series["values"] {
            Value::Array(points) => points.clone(),
            _ => vec![series["value"].clone()],
        };
        let point = |point: &Value| {
            let value = point[1].as_str().unwrap_or_default();
            (
                point[0].as_f64().unwrap_or(f64::NAN),
                value.parse().unwrap_or(f64::NAN),
            )
        };
        let labels: BTreeMap<String, Value> = serde_json::from_value(series["metric"].clone())?;
        all.insert(format!("{labels:?}"), points.iter().map(point).collect());
    }
    Ok(all)
}

/// # Errors
/// Where the two answers differ by more than rounding.
fn agree(prometheus: &[u8], slogate: &[u8]) -> Anyhow<()> {
    let (expected, found) = (series_of(prometheus)?, series_of(slogate)?);
    if expected.is_empty() || expected.len() != found.len() {
        let counts = (expected.len(), found.len());
        return Err(format!("{counts:?} series from Prometheus and slogate").into());
    }
    let is_near = |(a, b): (&(f64, f64), &(f64, f64))| {
        let near = (a.1 - b.1).abs() <= 1e-9 * a.1.abs().max(b.1.abs());
        a.0 == b.0 && (near || a.1 == b.1 || a.1.is_nan() && b.1.is_nan())
    };
    for (labels, expected) in &expected {
        let found = found.get(labels).ok_or(format!("no {labels}"))?;
        if expected.len() != found.len() || !expected.iter().zip(found).all(is_near) {
            return Err(format!("{labels}: {expected:?} from Prometheus, not {found:?}").into());
        }
    }
    Ok(())
}

/// A server that ends with this value.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn prometheus(program: &Path, dir: &Path) -> Anyhow<Self> {
        fs::create_dir_all(dir)?;
        let config = dir.join("prometheus.yml");
        fs::write(
            &config,
            "storage: { tsdb: { out_of_order_time_window: 30m } }\n",
        )?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--web.enable-remote-write-receiver")
            .arg("--enable-feature=native-histograms")
            .arg("--log.level=error")
            .stdout(Stdio::null())
            .spawn()?;
        Server { child, address }.ready("/-/ready")
    }

    fn slogate(program: &Path, dir: &Path, series: usize) -> Anyhow<Self> {
        fs::create_dir_all(dir)?;
        let free = "127.0.0.1:0";
        let child = Command::new(program)
            .args(["serve", "--listen-api", free, "--listen-otlp-grpc", free])
            .args(["--listen-otlp-http", free, "--log-filter", "error"])
            .args(["--store-size-max", "16GiB", "--data-dir"])
            .arg(dir)
            .arg("--ingest-metric-series-per-service")
            .arg((series * 2).to_string())
            .stdout(Stdio::null())
            .spawn()?;
        let mut server = Server {
            child,
            address: String::new(),
        };
        let ports = dir.join("ports");
        for _ in 0..300 {
            if let Ok(text) = fs::read(&ports)
                && let Ok(ports) = serde_json::from_slice::<Value>(&text)
                && let Some(address) = ports["api"].as_str()
            {
                server.address = address.to_owned();
                return server.ready("/-/ready");
            }
            sleep(Duration::from_millis(100));
        }
        Err("slogate does not listen".into())
    }

    fn ready(self, path: &str) -> Anyhow<Self> {
        for _ in 0..300 {
            if self.get(path).is_ok() {
                return Ok(self);
            }
            sleep(Duration::from_millis(100));
        }
        Err(format!("no server at {}", self.address).into())
    }

    fn get(&self, path: &str) -> Anyhow<Vec<u8>> {
        self.ask(
            &format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address),
            &[],
        )
    }

    /// Remote-writes a body, which is not compressed yet.
    fn write(&self, body: &[u8]) -> Anyhow<()> {
        let body = snap::raw::Encoder::new().compress_vec(body)?;
        let head = format!(
            "POST /api/v1/write HTTP/1.0\r\nHost: {}\r\nContent-Type: application/x-protobuf\r\n\
             Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n\
             Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        self.ask(&head, &body).map(|_| ())
    }

    /// The body of the answer. HTTP/1.0: a connection for each request, no chunks.
    fn ask(&self, head: &str, body: &[u8]) -> Anyhow<Vec<u8>> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let at = answer.windows(4).position(|end| end == b"\r\n\r\n");
        let at = at.ok_or("an answer without end of head")?;
        let status = answer.get(9..12).unwrap_or_default();
        if !status.starts_with(b"2") {
            return Err(String::from_utf8_lossy(&answer).into());
        }
        Ok(answer.split_off(at + 4))
    }

    /// CPU time of all its threads so far, in milliseconds.
    fn cpu_ms(&self) -> Anyhow<f64> {
        let mut ns = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end meanwhile.
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let on_cpu = text.split_whitespace().next().unwrap_or("0");
            ns += on_cpu.parse::<f64>()?;
        }
        Ok(ns / 1e6)
    }

    /// The most memory that was resident, in MB (Linux).
    fn peak_mb(&self) -> Anyhow<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM"));
        let kb = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kb.ok_or("no VmHWM")?.parse::<u64>()? / 1024)
    }
}

/// A series: its labels, already coded, and how its values come about.
struct Series {
    labels: Vec<u8>,
    shape: Shape,
    seed: u64,
}

#[derive(Clone, Copy)]
enum Shape {
    /// A counter that grows by about so much and now and then begins anew.
    Counter(u64),
    /// A cumulative bucket that grows by exactly so much.
    Bucket(u64),
    /// A level with decimals.
    Gauge,
    /// Always 1.
    One,
    /// A native histogram of 30 buckets.
    Native(u64),
}

/// About `count` series of all shapes, each metric over many instances of 20 jobs.
fn everything(count: usize) -> Vec<Series> {
    let mut all = Vec::with_capacity(count);
    let bounds = [
        "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf",
    ];
    for i in 0..count * 2 / 5 {
        let (route, code) = (i % 40 / 4, ["200", "204", "404", "500"][i % 4]);
        let labels = [
            ("route", format!("/api/v1/route-{route}")),
            ("code", code.to_owned()),
        ];
        let shape = Shape::Counter(1 + mixed(i as u64) % 50);
        all.push(one("http_requests_total", i, i / 40, &labels, shape));
    }
    for i in 0..count * 2 / 5 {
        let (family, at) = (i / bounds.len(), i % bounds.len());
        let route = format!("/api/v1/route-{}", family % 4);
        let labels = [("route", route), ("le", bounds[at].to_owned())];
        let shape = Shape::Bucket((5 + mixed(family as u64) % 40) * (at as u64 + 1));
        // The buckets of one histogram are sampled together.
        let name = "http_request_duration_seconds_bucket";
        all.push(one(name, family, family / 4, &labels, shape));
    }
    for i in 0..count / 100 {
        let labels = [("route", format!("/api/v1/route-{}", i % 4))];
        let shape = Shape::Native(10 + mixed(i as u64) % 40);
        all.push(one("request_duration_seconds", i, i / 4, &labels, shape));
    }
    for i in 0..count * 19 / 200 {
        all.push(one("process_memory_bytes", i, i, &[], Shape::Gauge));
        let version = [("version", format!("v1.{}", i % 7))];
        all.push(one("target_info", i, i, &version, Shape::One));
    }
    all
}

fn one(name: &str, at: usize, target: usize, more: &[(&str, String)], shape: Shape) -> Series {
    let mut pairs = vec![
        ("__name__", name.to_owned()),
        ("cluster", format!("eu-{}", target % 4)),
        ("env", "production".to_owned()),
        (
            "instance",
            format!(
                "10.{}.{}.{}:8080",
                target / 62_500,
                target / 250 % 250,
                target % 250
            ),
        ),
        ("job", format!("service-{:02}", target % 20)),
    ];
    pairs.extend(more.iter().cloned());
    pairs.sort();
    let mut labels = Vec::new();
    for (name, value) in pairs {
        let mut pair = Vec::new();
        field(&mut pair, 1, name.as_bytes());
        field(&mut pair, 2, value.as_bytes());
        field(&mut labels, 1, &pair);
    }
    Series {
        labels,
        shape,
        seed: mixed(at as u64),
    }
}

/// The next number of a well-mixed sequence (splitmix64).
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Writes all samples of all series, a slice of time after the other.
fn fill(server: &Server, all: &[Series], start_ms: i64) -> Anyhow<()> {
    for first in (0..SAMPLES).step_by(SLICE as usize) {
        for batch in all.chunks(BATCH) {
            let mut body = Vec::new();
            for series in batch {
                let mut coded = series.labels.clone();
                for step in first..(first + SLICE).min(SAMPLES) {
                    series.sample(step, start_ms, &mut coded);
                }
                field(&mut body, 1, &coded);
            }
            server.write(&body)?;
        }
    }
    Ok(())
}

impl Series {
    /// Appends a sample of a `TimeSeries` message.
    fn sample(&self, step: i64, start_ms: i64, out: &mut Vec<u8>) {
        // Off the grid, and each series at its own time.
        let t_ms = start_ms + step * STEP_MS + (self.seed % STEP_MS as u64) as i64;
        let n = step as u64;
        let value = match self.shape {
            Shape::Counter(rate) => {
                // A few begin anew in the hour. Fine steps, so that no two rates are equal.
                let begins_anew = self.seed.is_multiple_of(50) && n > 150;
                let since = if begins_anew { n - 150 } else { n + 1_000 };
                let rate = rate * 100_000;
                (since * rate + mixed(n ^ self.seed) % rate) as f64
            }
            Shape::Bucket(rate) => (n * rate) as f64,
            Shape::Gauge => 1e8 + (mixed(n ^ self.seed) % 1_000_000_007) as f64 * 0.37,
            Shape::One => 1.0,
            Shape::Native(rate) => return native(n * rate, t_ms, out),
        };
        let mut sample = Vec::with_capacity(24);
        sample.push(1 << 3 | 1);
        sample.extend_from_slice(&value.to_le_bytes());
        number(&mut sample, 2, t_ms as u64);
        field(out, 2, &sample);
    }
}

/// Appends a native histogram whose 30 buckets have multiples of `n`.
fn native(n: u64, t_ms: i64, out: &mut Vec<u8>) {
    let counts: Vec<u64> = (0..30).map(|at| n * (1 + at * 7 % 13)).collect();
    let count: u64 = counts.iter().sum();
    let mut h = Vec::new();
    number(&mut h, 1, count);
    h.push(3 << 3 | 1);
    h.extend_from_slice(&(count as f64 * 0.2).to_le_bytes());
    number(&mut h, 4, zigzag(3));
    h.push(5 << 3 | 1);
    h.extend_from_slice(&1e-9_f64.to_le_bytes());
    let mut span = Vec::new();
    number(&mut span, 1, zigzag(-20));
    number(&mut span, 2, counts.len() as u64);
    field(&mut h, 11, &span);
    let mut deltas = Vec::new();
    let mut before = 0;
    for count in counts {
        varint(&mut deltas, zigzag(count as i64 - before));
        before = count as i64;
    }
    field(&mut h, 12, &deltas);
    number(&mut h, 15, t_ms as u64);
    field(out, 4, &h);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A protobuf field of a whole number.
fn number(out: &mut Vec<u8>, at: u64, value: u64) {
    varint(out, at << 3);
    varint(out, value);
}

/// A protobuf field of bytes.
fn field(out: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    varint(out, at << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
