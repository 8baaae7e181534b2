//! `slogate demo`: a good release passes, a bad one fails, in about a minute.
//!
//! The daemon is the real one, on free loopback ports and a directory of its own that is gone
//! afterwards. A simulated shop ([`shop`]) sends it spans through OpenTelemetry's exporter over
//! gRPC; the story posts deploy events and asks the gate over HTTP, as a pipeline would. Nothing
//! reaches past a socket, so what the demo shows is what a user gets.
//!
//! The story is told as it happens on standard output. It ends with 0 only if the good release
//! passed and the bad one failed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Exit;
use super::client::Client;
use super::daemon::Daemon;
use super::gate::{Answer, Question, ask_once};
use super::output;
use crate::config::{Config, Layers};
use crate::ledger::verify;
use crate::model::time::{humanize_ms, to_rfc3339};
use crate::model::{Clock, EventKind, SystemClock};
use crate::record::Records;
use crate::telemetry::Registry;
use shop::{ENVIRONMENT, Exporters, Release, SERVICE, STRETCH, Shop};

mod shop;

/// See a good release pass and a bad one fail
///
/// Starts the daemon on free ports with a directory of its own, and a simulated shop that ships
/// a good release, then a bad one. Takes about a minute and leaves nothing behind. Ends with
/// 0 where the good release passed and the bad one failed, else with 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slogate demo
  slogate demo --seed 7
  slogate demo --stay      keep it running afterwards to look around; Ctrl-C ends it")]
pub(super) struct DemoArgs {
    /// What the shop's traffic is made up from; one seed, one traffic
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,
    /// Stay up after the story, until Ctrl-C
    #[arg(long)]
    stay: bool,
    /// What to log, on standard error
    #[arg(long, default_value = "error", value_name = "FILTER")]
    log_filter: String,
}

const GATE: &str = include_str!("demo/gate.yaml");

const STABLE: Release = Release {
    version: "4.1.0",
    error_ratio: 0.005,
    slowness: 1.0,
};
const GOOD: Release = Release {
    version: "4.2.0",
    error_ratio: 0.004,
    slowness: 0.97,
};
/// Ten times the errors, and much slower.
const BAD: Release = Release {
    version: "4.3.0",
    error_ratio: 0.05,
    slowness: 1.7,
};

/// How long the shop runs before the first release: the baseline.
const BASELINE: Duration = Duration::from_secs(15);

/// How long a promoted release runs before the next one.
const BETWEEN: Duration = Duration::from_secs(8);

/// How long the pipeline takes to move traffic back.
const MOVING: Duration = Duration::from_secs(2);

/// How long the story waits for a gate before it gives up.
const PATIENCE: Duration = Duration::from_secs(75);

/// The canary's share of traffic.
const SHARE: f64 = 0.5;

/// Why the demo could not be shown.
#[derive(Debug)]
enum Trouble {
    /// Ctrl-C.
    Interrupted,
    /// Anything else, in words.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        Trouble::Failed(error.to_string())
    }
}

/// Runs the command.
pub(super) fn run(args: &DemoArgs) -> Exit {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(show(args)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(true) => Exit::Ok,
        Ok(false) => Exit::No,
        Err(Trouble::Interrupted) => Exit::No,
        Err(Trouble::Failed(what)) => {
            output::complain(format_args!("the demo broke off: {what}"));
            Exit::No
        }
    }
}

/// Shows the demo; whether both verdicts were right.
async fn show(args: &DemoArgs) -> Result<bool, Trouble> {
    super::daemon::log(false, &args.log_filter, None)?;
    let scratch = Scratch::create()?;
    let config = config(&scratch)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut daemon = Daemon::start(&config, Registry::new(), clock.clone()).await?;
    let ports = daemon.ports().clone();
    let shop = Arc::new(Mutex::new(Shop::new(args.seed, STABLE)));
    let stop = CancellationToken::new();
    let endpoint = format!("http://{}", ports.otlp_grpc);
    let (broken, shop_broke) = oneshot::channel();
    let visitors = visitors(shop.clone(), endpoint, clock.clone(), stop.clone(), broken);
    let visitors = tokio::spawn(visitors);

    let server = format!("http://{}", ports.api);
    let mut story = Story {
        client: Client::new(&server).map_err(Trouble::Failed)?,
        server,
        shop,
        clock,
        began: Instant::now(),
        events: 0,
        stay: args.stay,
    };
    let told = tell(&mut story, &mut daemon, shop_broke).await;
    if matches!(told, Err(Trouble::Interrupted)) {
        story.say("Interrupted. Nothing is left behind.");
    }
    stop.cancel();
    let _ = visitors.await;
    daemon.stop().await?;
    if told.is_ok() {
        story.end(&config.data_dir)?;
    }
    scratch.remove()?;
    told
}

/// Tells the story, and stays up where that is wanted, until something comes in between.
async fn tell(
    story: &mut Story,
    daemon: &mut Daemon,
    shop_broke: oneshot::Receiver<String>,
) -> Result<bool, Trouble> {
    let trouble = async {
        tokio::select! {
            died = daemon.died() => Trouble::Failed(died),
            Ok(error) = shop_broke => Trouble::Failed(error),
            () = super::daemon::signal() => Trouble::Interrupted,
        }
    };
    let mut trouble = std::pin::pin!(trouble);
    let told = tokio::select! {
        told = story.tell() => told?,
        trouble = &mut trouble => return Err(trouble),
    };
    if story.stay {
        story.say("Staying up. Ctrl-C ends it and leaves nothing behind.");
        // Being interrupted is now the way to end it, and no trouble.
        if let Trouble::Failed(what) = trouble.await {
            return Err(Trouble::Failed(what));
        }
    }
    Ok(told)
}

/// A daemon on free loopback ports, in a hurry; the user's own settings don't apply.
fn config(scratch: &Scratch) -> Result<Config, Trouble> {
    let policy = scratch.path.join("gate.yaml");
    std::fs::write(&policy, GATE)?;
    let data = scratch.path.join("data");
    let text = |path: &Path| path.display().to_string();
    let any_port = || "127.0.0.1:0".to_owned();
    let flags = vec![
        ("listen.api", any_port()),
        ("listen.otlpGrpc", any_port()),
        ("listen.otlpHttp", any_port()),
        ("data.dir", text(&data)),
        ("policy.paths", text(&policy)),
        ("ingest.flushInterval", "1s".to_owned()),
        ("judge.interval", "1s".to_owned()),
        ("limits.drain", "2s".to_owned()),
    ];
    let layers = Layers {
        flags,
        ..Layers::default()
    };
    let (config, _) = Config::load(&layers)?;
    Ok(config)
}

/// Sends the shop's traffic, a stretch at a time, until told to stop or not taken.
async fn visitors(
    shop: Arc<Mutex<Shop>>,
    endpoint: String,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    broken: oneshot::Sender<String>,
) {
    let mut exporters = Exporters::to(endpoint);
    let mut stretches = tokio::time::interval(STRETCH);
    // A stretch that is late is still made up, else a slow moment would look like few visitors.
    stretches.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = stretches.tick() => {}
        }
        let end = shop::system_time(clock.now_ms());
        let traffic = shop.lock().traffic(end);
        if let Err(error) = exporters.send(traffic).await {
            let _ = broken.send(error.to_string());
            return;
        }
    }
}

/// What a release came to.
struct Ending {
    answer: Answer,
    took: Duration,
}

struct Story {
    client: Client,
    server: String,
    shop: Arc<Mutex<Shop>>,
    clock: Arc<dyn Clock>,
    began: Instant,
    events: u32,
    stay: bool,
}

impl Story {
    /// Tells it; whether both verdicts were right.
    async fn tell(&mut self) -> Result<bool, Trouble> {
        self.open();
        tokio::time::sleep(BASELINE).await;

        self.say("A good release. The pipeline tells slogate and sends it half of the traffic.");
        let good = self.ship(&GOOD, &STABLE).await?;
        let is_good_passed = good.answer.verdict == "pass";
        if is_good_passed {
            self.shop.lock().promote();
            self.post(EventKind::Succeeded, &GOOD, json!({})).await?;
            let version = GOOD.version;
            self.say(&format!("The pipeline gives {version} all of the traffic."));
        } else {
            self.shop.lock().roll_back();
            self.post(EventKind::Aborted, &GOOD, json!({})).await?;
        }
        tokio::time::sleep(BETWEEN).await;

        let stable = if is_good_passed { &GOOD } else { &STABLE };
        self.say("A bad release: ten times the errors, and slow.");
        let bad = self.ship(&BAD, stable).await?;
        let is_bad_failed = bad.answer.verdict == "fail";
        tokio::time::sleep(MOVING).await;
        self.shop.lock().roll_back();
        let reason = json!({ "reason": "gate demo failed" });
        self.post(EventKind::RolledBack, &BAD, reason).await?;
        self.say(&format!(
            "The pipeline has taken the traffic off {} again, {} after its start.",
            BAD.version,
            seconds(bad.took + MOVING)
        ));
        self.sum_up(&good, &bad).await?;
        Ok(is_good_passed && is_bad_failed)
    }

    fn open(&self) {
        self.say(&format!(
            "slogate listens on {}. To look while this runs:",
            self.server
        ));
        for path in [
            "/v1/gates/demo",
            "/v1/deployments?service=checkout",
            "/v1/ledger",
            "/metrics",
        ] {
            self.look(path);
        }
        self.say(&format!(
            "A shop of 4 services begins to send OpenTelemetry spans; {SERVICE} is at {}.",
            STABLE.version
        ));
        self.say(&format!(
            "It runs for {} first: the baseline.",
            seconds(BASELINE)
        ));
    }

    /// Ships a release to half of the traffic and waits for the gate.
    async fn ship(&mut self, release: &Release, previous: &Release) -> Result<Ending, Trouble> {
        let began = Instant::now();
        let more = json!({
            "previous": { "version": previous.version },
            "step": { "index": 1, "total": 2, "weight": SHARE * 100.0 },
        });
        self.post(EventKind::Started, release, more).await?;
        self.shop.lock().shift(release.clone(), SHARE);
        let question = Question {
            gate: "demo".to_owned(),
            service: Some(SERVICE.to_owned()),
            environment: Some(ENVIRONMENT.to_owned()),
            version: Some(release.version.to_owned()),
            ..Question::default()
        };
        let url = question.url(&self.client, Duration::ZERO);
        output::print(&format!("        curl -s '{url}'"));
        let answer = self.wait(&question, began + PATIENCE).await?;
        let took = began.elapsed();
        let verdict = answer.verdict.to_uppercase();
        self.say(&format!(
            "{verdict}: {SERVICE} {}, after {}",
            release.version,
            seconds(took)
        ));
        for check in &answer.checks {
            let mark = check.verdict.to_uppercase();
            output::print(&format!(
                "        {mark:<12} {:<8} {}",
                check.name, check.message
            ));
        }
        Ok(Ending { answer, took })
    }

    /// Asks until pass, fail or the deadline, and says what changes meanwhile.
    async fn wait(&self, question: &Question, deadline: Instant) -> Result<Answer, Trouble> {
        let mut shown = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = left.min(Duration::from_secs(5));
            let answer = ask_once(&self.client, question, wait).await?.answer;
            if answer.is_conclusive() || left.is_zero() {
                return Ok(answer);
            }
            let state = format!("{} ({})", answer.verdict, answer.reason);
            if state != shown {
                self.say(&format!("gate: {state}"));
                shown = state;
            }
        }
    }

    /// Posts an event about a release, as a pipeline would.
    async fn post(
        &mut self,
        kind: EventKind,
        release: &Release,
        more: Value,
    ) -> Result<(), Trouble> {
        self.events += 1;
        let mut event = json!({
            "id": format!("demo-{}", self.events),
            "source": "demo",
            "time": to_rfc3339(self.clock.now_ms()),
            "type": kind.as_str(),
            "service": SERVICE,
            "environment": ENVIRONMENT,
            "artifact": { "version": release.version },
        });
        if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
            event.extend(more);
        }
        self.say(&format!(
            "event: {} {SERVICE} {}",
            kind.as_str(),
            release.version
        ));
        let url = self.client.url(&["v1", "events"]);
        let body = event.to_string().into_bytes();
        let timeout = Duration::from_secs(10);
        self.client
            .post(url, "application/json", body, timeout)
            .await?;
        Ok(())
    }

    /// Both verdicts, what they rest on, and what the two releases make of the deployment SLIs.
    async fn sum_up(&self, good: &Ending, bad: &Ending) -> Result<(), Trouble> {
        output::print("\nBoth verdicts");
        output::print("");
        for ending in [good, bad] {
            output::print(&format!("  {}", ending.answer.message));
            if self.stay
                && let Some(url) = &ending.answer.url
            {
                output::print(&format!("  evidence: {url}"));
            }
            output::print("");
        }
        output::print(&format!("Deployment SLIs of {SERVICE}"));
        let mut url = self.client.url(&["v1", "slis"]);
        url.set_query(Some("service=checkout&window=1h"));
        let reply = self.client.get(url, Duration::from_secs(10)).await?;
        let report: Value = serde_json::from_slice(&reply.body)?;
        for sli in report["overall"]["slis"].as_array().into_iter().flatten() {
            output::print(&format!("  {}", sli_line(sli)));
        }
        if self.stay {
            output::print("\nTo look around");
            self.look("/v1/slis?service=checkout&window=1h");
            if let Some(id) = &bad.answer.deployment {
                self.look(&format!("/v1/deployments/{id}"));
            }
        }
        output::print("");
        Ok(())
    }

    /// What can be said only when the daemon has stopped.
    fn end(&self, data_dir: &Path) -> Result<(), Trouble> {
        let records = Records::open_read_only(data_dir)?;
        let report = verify(&records)?;
        if let Some(broken) = report.broken {
            return Err(Trouble::Failed(format!("the ledger is broken: {broken}")));
        }
        self.say(&format!(
            "The daemon stopped. Its ledger of {} entries holds; the directory is removed.",
            report.entries
        ));
        output::print("\nNext: slogate serve, and point your own OpenTelemetry SDK at it.");
        Ok(())
    }

    fn look(&self, path: &str) {
        output::print(&format!("        curl -s '{}{path}'", self.server));
    }

    fn say(&self, what: &str) {
        let at = format!("{}s", self.began.elapsed().as_secs());
        output::print(&format!("[{at:>4}] {what}"));
    }
}

/// `M5 time to rollback: 4s`.
fn sli_line(sli: &Value) -> String {
    let text = |key: &str| sli[key].as_str().unwrap_or_default();
    let value = match (sli["value"].as_f64(), text("unit")) {
        (None, _) => "nothing yet to tell it from".to_owned(),
        (Some(value), "ratio") => format!("{:.2} %", 100.0 * value),
        (Some(value), _) if value.abs() < 1.0 => format!("{:.0} ms", 1000.0 * value),
        (Some(value), _) => format!("{value:.1} s"),
    };
    format!("{} {}: {value}", text("id"), text("name"))
}

fn seconds(duration: Duration) -> String {
    humanize_ms(
        i64::try_from(duration.as_secs())
            .unwrap_or(i64::MAX)
            .saturating_mul(1000),
    )
}

/// A directory that goes when this is dropped.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn create() -> std::io::Result<Self> {
        let name = format!("slogate-demo-{}", uuid::Uuid::now_v7().simple());
        let path = std::env::temp_dir().join(name);
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt as _;
            builder.mode(0o700);
        }
        builder.create(&path)?;
        Ok(Scratch { path })
    }

    /// Removes it, and says where that fails.
    fn remove(self) -> std::io::Result<()> {
        std::fs::remove_dir_all(&self.path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After `remove` it is gone already; on the way out of an error this is all we can do.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy;

    #[test]
    fn the_gate_is_a_valid_policy_for_the_shop() {
        let gates = policy::parse("gate.yaml", GATE).unwrap();
        let target = crate::model::Target::new(SERVICE, ENVIRONMENT);
        assert_eq!(gates.len(), 1);
        assert!(gates[0].is_for(&target));
        let patience_ms = i64::try_from(PATIENCE.as_millis()).unwrap();
        assert!(
            gates[0].decide_within_ms > patience_ms,
            "the story gives up first"
        );
    }

    #[test]
    fn its_daemon_is_on_loopback_and_nothing_is_left_behind() {
        let scratch = Scratch::create().unwrap();
        let path = scratch.path.clone();
        let config = config(&scratch).unwrap();
        assert_eq!(config.listen.api.port(), 0);
        assert!(config.data_dir.starts_with(&path));
        assert_eq!(config.policy_paths.len(), 1);
        drop(scratch);
        assert!(!path.try_exists().unwrap());
    }

    #[test]
    fn the_bad_release_is_ten_times_as_bad() {
        assert!((BAD.error_ratio / STABLE.error_ratio - 10.0).abs() < 1e-9);
        const { assert!(GOOD.error_ratio <= STABLE.error_ratio) };
    }
}
