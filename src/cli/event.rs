//! `slogate event`: post an event from a pipeline.
//!
//! The event gets its id and time before the first try, so that a try whose answer was lost
//! and is repeated is one event to the daemon. Running the command again is another event
//! unless `--id` says otherwise.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::Exit;
use super::client::{Client, NoAnswer, Pauses, Reply, ServerArgs};
use super::output::{self, Output, OutputArgs};
use crate::model::time::to_rfc3339;
use crate::model::{Clock, EventKind, SystemClock};

/// The largest body that is read from a file, in bytes.
const FILE_MAX: u64 = 16 << 20;

/// Post an event about a deployment
///
/// Tries again where the daemon can't be reached or can't answer, for --timeout. Ends with 0
/// where the daemon has the event for good, 1 where it refuses it, 3 where it can't be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  slogate event started --service checkout --environment production --version 4.2.0 \\
      --digest sha256:9f2c… --previous-version 4.1.7 --id \"$CI_JOB_ID-started\"
  slogate event step --service checkout --environment production --version 4.2.0 \\
      --weight 10 --step 1/4
  slogate event rolled-back --service checkout --environment production --version 4.2.0 \\
      --reason \"gate canary failed\"
  slogate event --file event.json
  generate-cdevent | slogate event --file - --content-type application/cloudevents+json")]
pub(super) struct EventArgs {
    /// What happened
    #[arg(value_enum, required_unless_present = "file", value_name = "TYPE")]
    kind: Option<Kind>,
    /// The service, as its telemetry's service.name
    #[arg(long, required_unless_present = "file", value_name = "NAME")]
    service: Option<String>,
    /// The environment, as its telemetry's deployment.environment.name
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// The region, where deployments are announced per region
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// The version shipped, as its telemetry's service.version
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// The artifact's digest
    #[arg(long, value_name = "SHA256:HEX")]
    digest: Option<String>,
    /// What the artifact is called, for example its image repository
    #[arg(long, value_name = "NAME")]
    artifact: Option<String>,
    /// The source repository it was built from
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
    /// The commit it was built from
    #[arg(long, value_name = "HASH")]
    commit: Option<String>,
    /// The pipeline that built it
    #[arg(long, value_name = "URL")]
    pipeline: Option<String>,
    /// The version it replaces
    #[arg(long, value_name = "VERSION")]
    previous_version: Option<String>,
    /// The digest it replaces
    #[arg(long, value_name = "SHA256:HEX")]
    previous_digest: Option<String>,
    /// The candidate's share of traffic in percent
    #[arg(long, value_name = "PERCENT", value_parser = parse_weight)]
    weight: Option<f64>,
    /// Which step this is, and of how many: 2 or 2/5
    #[arg(long, value_name = "N/M", value_parser = parse_step)]
    step: Option<Step>,
    /// Your own name for the deployment, which ties its events together
    #[arg(long, value_name = "NAME")]
    deployment: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who did it
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Where to read more
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A further fact, KEY=VALUE; can be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Who says so
    #[arg(long, default_value = "cli", value_name = "NAME")]
    source: String,
    /// The event's id within its source; two events with one id are one [default: a new one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// When it happened, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    time: Option<i64>,
    /// Post this file's body as it is (- for standard input) instead of making an event
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "service", "version", "digest"])]
    file: Option<PathBuf>,
    /// What that body is
    #[arg(
        long,
        requires = "file",
        default_value = "application/json",
        value_name = "TYPE"
    )]
    content_type: String,
    /// How long to try
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = super::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// An event type under its short name: `started` for `deployment.started`.
#[derive(Clone, Copy, Debug)]
struct Kind(EventKind);

const KINDS: [Kind; EventKind::ALL.len()] = {
    let mut kinds = [Kind(EventKind::Queued); EventKind::ALL.len()];
    let mut n = 0;
    while n < kinds.len() {
        kinds[n] = Kind(EventKind::ALL[n]);
        n += 1;
    }
    kinds
};

impl Kind {
    const fn short_name(self) -> &'static str {
        match self.0 {
            EventKind::ArtifactPublished => "published",
            EventKind::Queued => "queued",
            EventKind::Started => "started",
            EventKind::Step => "step",
            EventKind::Paused => "paused",
            EventKind::Resumed => "resumed",
            EventKind::PartialFailure => "partial-failure",
            EventKind::Succeeded => "succeeded",
            EventKind::Failed => "failed",
            EventKind::Aborted => "aborted",
            EventKind::RolledBack => "rolled-back",
            EventKind::ManualChange => "manual-change",
            EventKind::AlertFired => "alert-fired",
            EventKind::AlertResolved => "alert-resolved",
            EventKind::IncidentOpened => "incident-opened",
            EventKind::IncidentResolved => "incident-resolved",
        }
    }
}

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &KINDS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.short_name()).alias(self.0.as_str()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    index: u32,
    total: Option<u32>,
}

fn parse_step(text: &str) -> Result<Step, String> {
    let wrong = || format!("{text:?} is not a step such as 2 or 2/5");
    let number = |text: &str| text.parse().ok().filter(|n| *n > 0);
    match text.split_once('/') {
        None => Some((number(text), None)),
        Some((index, total)) => number(total).map(|total| (number(index), Some(total))),
    }
    .and_then(|(index, total)| {
        Some(Step {
            index: index?,
            total,
        })
    })
    .filter(|step| step.total.is_none_or(|total| step.index <= total))
    .ok_or_else(wrong)
}

fn parse_weight(text: &str) -> Result<f64, String> {
    text.trim_end_matches('%')
        .parse()
        .ok()
        .filter(|weight| (0.0..=100.0).contains(weight))
        .ok_or_else(|| format!("{text:?} is not a share from 0 to 100 percent"))
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

fn parse_time(text: &str) -> Result<i64, String> {
    crate::model::time::from_rfc3339(text)
        .ok_or_else(|| format!("{text:?} is not a time such as 2026-11-20T18:00:00Z"))
}

/// Runs the command.
pub(super) async fn run(args: EventArgs) -> Exit {
    let client = match Client::new(&args.server.server) {
        Ok(client) => client,
        Err(error) => {
            output::complain(error);
            return Exit::Usage;
        }
    };
    let body = match &args.file {
        Some(path) => read(path),
        None => Ok(body(&args, SystemClock.now_ms())),
    };
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            output::complain(error);
            return Exit::Unanswered;
        }
    };
    match deliver(&client, &args.content_type, &body, args.timeout).await {
        Ok(reply) => {
            report(&reply, args.output.output);
            Exit::Ok
        }
        Err(NoAnswer::Refused(what)) => {
            output::complain(format_args!("the event was refused: {what}"));
            Exit::No
        }
        Err(NoAnswer::NotNow(what, _)) => {
            output::complain(format_args!("the event was not delivered: {what}"));
            Exit::Unanswered
        }
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, String> {
    let fail = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut body = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(FILE_MAX + 1).read_to_end(&mut body)
    } else {
        let file = std::fs::File::open(path).map_err(fail)?;
        file.take(FILE_MAX + 1).read_to_end(&mut body)
    };
    match read.map_err(fail)? as u64 {
        0 => Err(format!("{}: is empty", path.display())),
        n if n > FILE_MAX => Err(format!("{}: larger than {FILE_MAX} bytes", path.display())),
        _ => Ok(body),
    }
}

/// The native event of these arguments; what is not given is left out.
fn body(args: &EventArgs, now_ms: i64) -> Vec<u8> {
    let text = |value: &Option<String>| value.clone().map(Value::from);
    let provenance = object([
        ("repository", text(&args.repository)),
        ("commit", text(&args.commit)),
        ("pipeline", text(&args.pipeline)),
    ]);
    let artifact = object([
        ("digest", text(&args.digest)),
        ("name", text(&args.artifact)),
        ("version", text(&args.version)),
        ("provenance", provenance),
    ]);
    let previous = object([
        ("digest", text(&args.previous_digest)),
        ("version", text(&args.previous_version)),
    ]);
    let step = object([
        ("index", args.step.map(|step| step.index.into())),
        (
            "total",
            args.step.and_then(|step| step.total).map(Into::into),
        ),
        ("weight", args.weight.map(Into::into)),
    ]);
    let labels: Map<String, Value> = args
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect();
    let id = match &args.id {
        Some(id) => id.clone(),
        None => uuid::Uuid::now_v7().to_string(),
    };
    let event = object([
        ("id", Some(id.into())),
        ("source", Some(args.source.clone().into())),
        ("time", Some(to_rfc3339(args.time.unwrap_or(now_ms)).into())),
        ("type", args.kind.map(|kind| kind.0.as_str().into())),
        ("service", text(&args.service)),
        ("environment", text(&args.environment)),
        ("region", text(&args.region)),
        ("artifact", artifact),
        ("previous", previous),
        ("deployment", text(&args.deployment)),
        ("step", step),
        ("reason", text(&args.reason)),
        ("actor", text(&args.actor)),
        ("url", text(&args.url)),
        ("labels", (!labels.is_empty()).then(|| labels.into())),
    ]);
    event.unwrap_or_else(|| json!({})).to_string().into_bytes()
}

/// An object of what is there; `None` where nothing is.
fn object<const N: usize>(entries: [(&str, Option<Value>); N]) -> Option<Value> {
    let map: Map<String, Value> = entries
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
    (!map.is_empty()).then(|| map.into())
}

async fn deliver(
    client: &Client,
    content_type: &str,
    body: &[u8],
    timeout: Duration,
) -> Result<Reply, NoAnswer> {
    let deadline = Instant::now() + timeout;
    let mut pauses = Pauses::until(deadline);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let one_try = left.clamp(Duration::from_secs(1), Duration::from_secs(15));
        let url = client.url(&["v1", "events"]);
        let sent = client.post(url, content_type, body.to_vec(), one_try).await;
        let (what, asked) = match sent {
            Err(NoAnswer::NotNow(what, asked)) => (what, asked),
            other => return other,
        };
        match pauses.next(Instant::now(), asked) {
            Some(pause) => {
                output::complain(format_args!("{what}; trying again"));
                tokio::time::sleep(pause).await;
            }
            None => return Err(NoAnswer::NotNow(what, asked)),
        }
    }
}

/// Says what the daemon made of it.
fn report(reply: &Reply, how: Output) {
    let json: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    if how == Output::Json {
        output::print_json(&json);
        return;
    }
    for event in json["events"].as_array().into_iter().flatten() {
        let part = |name: &str| event[name].as_str().unwrap_or_default();
        let known = match event["duplicate"].as_bool() {
            Some(true) => "already known",
            _ => "accepted",
        };
        let deployment = match event["deployment"].as_str() {
            Some(id) => format!(", deployment {id}"),
            None => String::new(),
        };
        output::print(&format!(
            "{known}: event {} of {}{deployment}",
            part("id"),
            part("source")
        ));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: EventArgs,
    }

    fn parse(line: &str) -> Result<EventArgs, String> {
        Line::try_parse_from(line.split_whitespace())
            .map(|line| line.args)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn makes_the_native_event() {
        let args = parse(
            "event started --service checkout --environment production --version 4.2.0 \
             --previous-version 4.1.7 --weight 10 --step 2/5 --label a=b --id 1 --commit c0ffee",
        )
        .unwrap();
        let event: Value = serde_json::from_slice(&body(&args, 0)).unwrap();
        assert_eq!(
            event,
            json!({
                "id": "1",
                "source": "cli",
                "time": "1970-01-01T00:00:00.000Z",
                "type": "deployment.started",
                "service": "checkout",
                "environment": "production",
                "artifact": { "version": "4.2.0", "provenance": { "commit": "c0ffee" } },
                "previous": { "version": "4.1.7" },
                "step": { "index": 2, "total": 5, "weight": 10.0 },
                "labels": { "a": "b" },
            })
        );
    }

    /// Without an id of its own a repeated try would be a second event.
    #[test]
    fn every_event_has_an_id_and_a_time_before_it_is_sent() {
        let args = parse("event succeeded --service s --time 2026-11-20T18:00:00Z").unwrap();
        let event: Value = serde_json::from_slice(&body(&args, 0)).unwrap();
        assert!(event["id"].as_str().unwrap().len() > 30);
        assert_eq!(event["time"], "2026-11-20T18:00:00.000Z");
    }

    #[test]
    fn every_type_has_a_short_name_and_its_own() {
        for kind in EventKind::ALL {
            let short = Kind(kind).short_name();
            for name in [short, kind.as_str()] {
                let args = parse(&format!("event {name} --service s")).unwrap();
                assert_eq!(args.kind.unwrap().0, kind);
            }
        }
    }

    #[test]
    fn wrong_arguments_are_told() {
        let cases = [
            ("event exploded --service s", "possible values"),
            ("event started", "--service"),
            ("event step --service s --step 6/5", "not a step"),
            ("event step --service s --step 0", "not a step"),
            ("event step --service s --weight 101", "0 to 100"),
            ("event step --service s --weight NaN", "0 to 100"),
            ("event step --service s --label x", "KEY=VALUE"),
            ("event step --service s --time noon", "not a time"),
            ("event started --service s --file x", "cannot be used"),
        ];
        for (line, expected) in cases {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    /// Runs the command against a daemon that answers with these statuses in turn, the last one
    /// for ever; also the bodies it got.
    async fn run_against(line: &str, statuses: &[u16]) -> (Exit, Vec<Value>) {
        use axum::Router;
        use parking_lot::Mutex;
        use std::sync::Arc;

        let (bodies, left) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(Mutex::new(statuses.to_vec())),
        );
        let got = bodies.clone();
        let answer = move |body: axum::body::Bytes| async move {
            got.lock()
                .push(serde_json::from_slice(&body).unwrap_or_default());
            let mut left = left.lock();
            let status = if left.len() > 1 {
                left.remove(0)
            } else {
                left[0]
            };
            let body = json!({ "events": [{ "id": "1", "source": "cli", "duplicate": false }] });
            (
                http::StatusCode::from_u16(status).unwrap(),
                body.to_string(),
            )
        };
        let app = Router::new().route("/v1/events", axum::routing::post(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(axum::serve(listener, app).into_future());
        let args = parse(&format!("{line} --server http://{address}")).unwrap();
        let exit = run(args).await;
        server.abort();
        let bodies = bodies.lock().clone();
        (exit, bodies)
    }

    /// An answer that got lost must not make two events of one.
    #[tokio::test]
    async fn a_repeated_try_is_the_same_event() {
        let line = "event started --service s --version 1";
        let (exit, bodies) = run_against(line, &[503, 500, 202]).await;
        assert_eq!(exit, Exit::Ok);
        assert_eq!(bodies.len(), 3);
        assert!(bodies[0]["id"].is_string());
        assert!(bodies.iter().all(|body| *body == bodies[0]));
    }

    #[tokio::test]
    async fn refused_is_1_and_undelivered_is_3() {
        let line = "event started --service s --timeout 1s";
        let (exit, bodies) = run_against(line, &[400]).await;
        assert_eq!((exit, bodies.len()), (Exit::No, 1));
        let (exit, _) = run_against(line, &[503]).await;
        assert_eq!(exit, Exit::Unanswered);
        let missing = "event --file /nonexistent/event.json";
        let (exit, bodies) = run_against(missing, &[202]).await;
        assert_eq!((exit, bodies.len()), (Exit::Unanswered, 0));
    }

    #[tokio::test]
    async fn a_file_is_posted_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("event.json");
        std::fs::write(&path, r#"{"specversion":"1.0"}"#).unwrap();
        let line = format!(
            "event --file {} --content-type application/cloudevents+json",
            path.display()
        );
        let (exit, bodies) = run_against(&line, &[202]).await;
        assert_eq!(exit, Exit::Ok);
        assert_eq!(bodies, [json!({ "specversion": "1.0" })]);
    }
}
