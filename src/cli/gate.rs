//! `slogate gate`: ask a gate, and wait for its answer.
//!
//! What decides how it ends:
//!
//! - pass and fail end it at once, and so does an inconclusive answer that is final;
//! - inconclusive when the time is over follows `--on-inconclusive` (2 unless told otherwise);
//! - pending (no such deployment yet, or not judged yet) when the time is over is 2 whatever
//!   `--on-inconclusive` says: nothing was seen, and nothing must not become a pass;
//! - a daemon that can't be reached is asked again until the time is over; having had an
//!   answer before, that is 2, else 3;
//! - a daemon that refuses (unknown gate, wrong question) is 3 at once.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior};

use super::Exit;
use super::client::{Client, NoAnswer, Pauses, ServerArgs};
use super::output::{self, Output, OutputArgs};
use crate::model::time::humanize_ms;

/// The longest a single request waits for a change.
const LONG_POLL: Duration = Duration::from_secs(30);

/// The shortest time between two questions.
const BETWEEN_ASKING: Duration = Duration::from_secs(1);

/// Ask a gate whether a version may go on, and wait for the answer
///
/// Ends with 0 for pass, 1 for fail, 2 where it is inconclusive or the time is over, 3 where
/// the gate could not be asked. Outlives restarts of the daemon.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slogate gate canary --service checkout --environment production --version 4.2.0 --wait 30m
  slogate gate canary --service checkout --digest sha256:9f2c… --wait 10m --on-inconclusive fail
  slogate gate canary --deployment checkout-4.2.0-1f9c3a --output json")]
pub(super) struct GateArgs {
    /// The gate
    #[arg(value_name = "NAME")]
    name: String,
    /// The service, as its telemetry's service.name
    #[arg(long, value_name = "NAME", required_unless_present = "deployment")]
    service: Option<String>,
    /// The environment
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// The version under judgement
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// The digest under judgement
    #[arg(long, value_name = "SHA256:HEX", conflicts_with = "version")]
    digest: Option<String>,
    /// The deployment under judgement, by slogate's name for it
    #[arg(long, value_name = "ID")]
    deployment: Option<String>,
    /// How long to wait for pass or fail; without it, ask once
    #[arg(long, default_value = "0", value_name = "DURATION", value_parser = super::parse_duration)]
    wait: Duration,
    /// How to end where it is still inconclusive when the time is over: 2, 0 or 1
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    on_inconclusive: OnInconclusive,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What an inconclusive answer is to the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum OnInconclusive {
    /// End with 2
    #[default]
    Hold,
    /// End with 0
    Pass,
    /// End with 1
    Fail,
}

/// Which gate is asked, about what.
#[derive(Clone, Debug, Default)]
pub(super) struct Question {
    pub(super) gate: String,
    pub(super) service: Option<String>,
    pub(super) environment: Option<String>,
    pub(super) version: Option<String>,
    pub(super) digest: Option<String>,
    pub(super) deployment: Option<String>,
}

/// What is read of a gate's answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    pub(super) verdict: String,
    pub(super) reason: String,
    pub(super) message: String,
    #[serde(rename = "final")]
    is_final: bool,
    #[serde(default)]
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) deployment: Option<String>,
    #[serde(default)]
    pub(super) checks: Vec<Check>,
}

/// What is read of a check's answer.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) verdict: String,
    pub(super) message: String,
}

impl GateArgs {
    fn question(&self) -> Question {
        Question {
            gate: self.name.clone(),
            service: self.service.clone(),
            environment: self.environment.clone(),
            version: self.version.clone(),
            digest: self.digest.clone(),
            deployment: self.deployment.clone(),
        }
    }
}

impl Question {
    /// Where it is asked.
    pub(super) fn url(&self, client: &Client, wait: Duration) -> reqwest::Url {
        let mut url = client.url(&["v1", "gates", &self.gate, "verdict"]);
        let wait_ms = wait.as_millis();
        let parameters = [
            ("service", self.service.clone()),
            ("environment", self.environment.clone()),
            ("version", self.version.clone()),
            ("digest", self.digest.clone()),
            ("deployment", self.deployment.clone()),
            ("wait", (wait_ms > 0).then(|| format!("{wait_ms}ms"))),
        ];
        for (name, value) in parameters {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, &value);
            }
        }
        url
    }
}

impl Answer {
    /// Whether waiting on can't change it.
    pub(super) fn is_conclusive(&self) -> bool {
        match self.verdict.as_str() {
            "pass" | "fail" => true,
            "inconclusive" => self.is_final,
            _ => false,
        }
    }

    fn exit(&self, on_inconclusive: OnInconclusive) -> Exit {
        match (self.verdict.as_str(), on_inconclusive) {
            ("pass", _) | ("inconclusive", OnInconclusive::Pass) => Exit::Ok,
            ("fail", _) | ("inconclusive", OnInconclusive::Fail) => Exit::No,
            _ => Exit::Inconclusive,
        }
    }
}

/// The last answer, as it came and as it is read.
#[derive(Debug)]
pub(super) struct Answered {
    raw: Value,
    pub(super) answer: Answer,
}

/// How the waiting ended.
#[derive(Debug)]
struct Ended {
    last: Option<Answered>,
    /// Why the last question had no answer, where it had none.
    no_answer: Option<NoAnswer>,
}

/// Runs the command.
pub(super) async fn run(args: GateArgs) -> Exit {
    let client = match Client::new(&args.server.server) {
        Ok(client) => client,
        Err(error) => {
            output::complain(error);
            return Exit::Usage;
        }
    };
    let mut progress = Progress::new(args.name.clone());
    let ended = ask(&client, &args, &mut progress).await;
    progress.clear();
    report(&ended, args.output.output);
    match &ended.last {
        None => Exit::Unanswered,
        // An old answer is no ground to pass or fail on.
        Some(_) if ended.no_answer.is_some() => Exit::Inconclusive,
        Some(answered) => answered.answer.exit(args.on_inconclusive),
    }
}

/// Asks until the answer is conclusive, the time is over, or the daemon refuses.
async fn ask(client: &Client, args: &GateArgs, progress: &mut Progress) -> Ended {
    let question = args.question();
    let deadline = Instant::now() + args.wait;
    let mut pauses = Pauses::until(deadline);
    let mut last = None;
    loop {
        let asked_at = Instant::now();
        let left = deadline.saturating_duration_since(asked_at);
        let asking = ask_once(client, &question, left.min(LONG_POLL));
        let pause = match progress.while_waiting(asking, deadline).await {
            Ok(answered) => {
                pauses.reset();
                if answered.answer.is_conclusive() || Instant::now() >= deadline {
                    let (last, no_answer) = (Some(answered), None);
                    return Ended { last, no_answer };
                }
                progress.say(&answered.answer, deadline);
                last = Some(answered);
                BETWEEN_ASKING.saturating_sub(asked_at.elapsed())
            }
            Err(NoAnswer::NotNow(what, asked)) => match pauses.next(Instant::now(), asked) {
                Some(pause) => {
                    progress.trouble(&what, deadline);
                    pause
                }
                None => {
                    let no_answer = Some(NoAnswer::NotNow(what, asked));
                    return Ended { last, no_answer };
                }
            },
            Err(refused) => {
                let (last, no_answer) = (None, Some(refused));
                return Ended { last, no_answer };
            }
        };
        progress
            .while_waiting(tokio::time::sleep(pause), deadline)
            .await;
    }
}

/// Asks once; the daemon may wait up to `wait` for a change before it answers.
pub(super) async fn ask_once(
    client: &Client,
    question: &Question,
    wait: Duration,
) -> Result<Answered, NoAnswer> {
    let url = question.url(client, wait);
    let reply = client.get(url, wait + Duration::from_secs(10)).await?;
    let unreadable = |error: serde_json::Error| {
        let what = format!("{}: not a gate's answer: {error}", client.base());
        NoAnswer::NotNow(what, reply.retry_after)
    };
    let raw: Value = serde_json::from_slice(&reply.body).map_err(unreadable)?;
    let answer = Answer::deserialize(&raw).map_err(unreadable)?;
    Ok(Answered { raw, answer })
}

fn report(ended: &Ended, how: Output) {
    if let Some(error) = &ended.no_answer {
        output::complain(error);
    }
    let Some(Answered { raw, answer }) = &ended.last else {
        return;
    };
    if how == Output::Json {
        output::print_json(raw);
        return;
    }
    let mut text = format!("{}\n", answer.message);
    let width = |part: fn(&Check) -> &String| {
        let widths = answer
            .checks
            .iter()
            .map(|check| part(check).chars().count());
        widths.max().unwrap_or(0)
    };
    let (name_width, verdict_width) = (width(|c| &c.name), width(|c| &c.verdict));
    for check in &answer.checks {
        text.push_str(&format!(
            "  {:verdict_width$}  {:name_width$}  {}\n",
            check.verdict, check.name, check.message
        ));
    }
    if let Some(url) = &answer.url {
        text.push_str(&format!("  {url}\n"));
    }
    output::print(&text);
}

/// Says how it stands, on standard error: on a terminal one line that is kept up to date,
/// elsewhere a line whenever something changed.
#[derive(Debug)]
struct Progress {
    gate: String,
    is_terminal: bool,
    columns: usize,
    state: String,
}

impl Progress {
    fn new(gate: String) -> Self {
        let columns = std::env::var("COLUMNS")
            .ok()
            .and_then(|text| text.parse().ok());
        Progress {
            gate,
            is_terminal: std::io::stderr().is_terminal(),
            columns: columns.unwrap_or(80),
            state: "asking".to_owned(),
        }
    }

    /// Shows the time running while `future` does.
    async fn while_waiting<T>(&self, future: impl Future<Output = T>, deadline: Instant) -> T {
        let mut future = std::pin::pin!(future);
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                value = &mut future => return value,
                _ = second.tick(), if self.is_terminal => self.draw(deadline),
            }
        }
    }

    fn say(&mut self, answer: &Answer, deadline: Instant) {
        let (verdict, reason) = (&answer.verdict, &answer.reason);
        self.change(
            format!("{verdict} ({reason}): {}", answer.message),
            deadline,
        );
    }

    fn trouble(&mut self, what: &str, deadline: Instant) {
        self.change(format!("{what}; trying again"), deadline);
    }

    fn change(&mut self, state: String, deadline: Instant) {
        let changed = self.state != state;
        self.state = state;
        if self.is_terminal {
            self.draw(deadline);
        } else if changed {
            output::remark(format_args!("{}: {}", self.gate, self.state));
        }
    }

    fn draw(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = humanize_ms(i64::try_from(left.as_secs()).unwrap_or(i64::MAX) * 1000);
        let state = self.state.replace(['\n', '\r'], " ");
        let line = format!("{}, {left} left: {state}", self.gate);
        let line: String = line.chars().take(self.columns.saturating_sub(1)).collect();
        let mut err = std::io::stderr().lock();
        let _ = write!(err, "\r\x1b[2K{line}").and_then(|()| err.flush());
    }

    /// Makes room for the answer.
    fn clear(&self) {
        if self.is_terminal {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[2K").and_then(|()| err.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use axum::Router;
    use axum::extract::{Request, State};
    use clap::Parser;
    use parking_lot::Mutex;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: GateArgs,
    }

    fn parse(line: &str) -> Result<GateArgs, clap::Error> {
        Line::try_parse_from(line.split_whitespace()).map(|line| line.args)
    }

    /// A daemon that gives these answers in turn, the last one for ever.
    #[derive(Clone, Default)]
    struct Script {
        replies: Arc<Mutex<VecDeque<(u16, String)>>>,
        asked: Arc<Mutex<Vec<String>>>,
    }

    async fn reply(State(script): State<Script>, request: Request) -> (http::StatusCode, String) {
        script.asked.lock().push(request.uri().to_string());
        let mut replies = script.replies.lock();
        let (status, body) = match replies.len() {
            1 => replies[0].clone(),
            _ => replies.pop_front().unwrap(),
        };
        (http::StatusCode::from_u16(status).unwrap(), body)
    }

    /// Runs the gate with `flags` against a daemon with these answers; also what it was asked.
    async fn run_against(
        flags: &str,
        replies: impl IntoIterator<Item = (u16, String)>,
    ) -> (Exit, Vec<String>) {
        let script = Script::default();
        script.replies.lock().extend(replies);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(reply).with_state(script.clone());
        let server = tokio::spawn(axum::serve(listener, app).into_future());
        let line = format!("gate canary --service checkout {flags} --server http://{address}");
        let exit = run(parse(&line).unwrap()).await;
        server.abort();
        let asked = script.asked.lock().clone();
        (exit, asked)
    }

    fn answer(verdict: &str, is_final: bool) -> (u16, String) {
        let body = json!({
            "gate": "canary", "verdict": verdict, "reason": "r", "message": "m",
            "final": is_final, "url": "http://x", "checks": [
                { "name": "errors", "verdict": verdict, "reason": "r", "message": "m" }
            ],
        });
        (200, body.to_string())
    }

    fn error(status: u16) -> (u16, String) {
        let body = json!({ "error": { "code": "c", "message": "no such gate" } });
        (status, body.to_string())
    }

    #[tokio::test]
    async fn the_answer_is_the_exit_code() {
        let cases = [
            ("", answer("pass", false), Exit::Ok),
            ("", answer("fail", true), Exit::No),
            ("", answer("inconclusive", false), Exit::Inconclusive),
            ("", answer("pending", false), Exit::Inconclusive),
            ("--wait 30m", answer("pass", false), Exit::Ok),
            ("--wait 30m", answer("fail", false), Exit::No),
            (
                "--wait 30m",
                answer("inconclusive", true),
                Exit::Inconclusive,
            ),
            (
                "--on-inconclusive pass",
                answer("inconclusive", false),
                Exit::Ok,
            ),
            (
                "--on-inconclusive fail",
                answer("inconclusive", false),
                Exit::No,
            ),
            ("--on-inconclusive pass", answer("fail", false), Exit::No),
            ("--wait 30m", error(404), Exit::Unanswered),
            ("--wait 30m", error(400), Exit::Unanswered),
            ("", error(503), Exit::Unanswered),
            ("", (200, "<html>".to_owned()), Exit::Unanswered),
        ];
        for (flags, reply, exit) in cases {
            let (found, asked) = run_against(flags, [reply.clone()]).await;
            assert_eq!(found, exit, "{flags} {reply:?}");
            assert_eq!(asked.len(), 1, "{flags} {reply:?}");
        }
    }

    /// Nothing seen must not become a pass because a pipeline is set to be lenient.
    #[tokio::test]
    async fn pending_is_never_a_pass() {
        let (exit, _) = run_against("--on-inconclusive pass", [answer("pending", false)]).await;
        assert_eq!(exit, Exit::Inconclusive);
    }

    #[tokio::test]
    async fn waits_through_inconclusive_and_restarts() {
        let replies = [
            answer("inconclusive", false),
            error(503),
            error(502),
            answer("inconclusive", false),
            answer("pass", false),
        ];
        let (exit, asked) = run_against("--wait 1m --version 4.2.0", replies).await;
        assert_eq!(exit, Exit::Ok);
        assert_eq!(asked.len(), 5);
        assert_eq!(
            asked[0],
            "/v1/gates/canary/verdict?service=checkout&version=4.2.0&wait=30000ms"
        );
    }

    #[tokio::test]
    async fn a_daemon_lost_after_an_answer_is_a_timeout() {
        let replies = [answer("inconclusive", false), error(503)];
        let (exit, asked) = run_against("--wait 2s --on-inconclusive pass", replies).await;
        assert_eq!(exit, Exit::Inconclusive);
        assert!(asked.len() >= 2);
    }

    #[tokio::test]
    async fn nobody_there_is_unanswered() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let line = format!("gate g --service s --wait 1s --server http://{address}");
        assert_eq!(run(parse(&line).unwrap()).await, Exit::Unanswered);
        let line = "gate g --service s --server nonsense";
        assert_eq!(run(parse(line).unwrap()).await, Exit::Usage);
    }

    #[test]
    fn the_question_must_name_something() {
        assert!(parse("gate canary").is_err());
        assert!(parse("gate canary --deployment d").is_ok());
        assert!(parse("gate canary --service s --version 1 --digest d").is_err());
        assert!(parse("gate canary --service s --wait 90").is_err());
    }
}
