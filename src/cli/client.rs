//! How the client commands ask a daemon.
//!
//! A pipeline must not fail because the daemon restarts: what can be tried again (no
//! connection, 408, 429, 5xx) is, with growing pauses, until the caller's time is over. What the
//! daemon refuses (any other 4xx) is final at once, since asking again changes nothing.

use std::fmt;
use std::time::Duration;

use rand::Rng as _;
use reqwest::Url;
use tokio::time::Instant;

/// The largest answer that is read, in bytes.
const ANSWER_MAX: usize = 16 << 20;

/// The pauses between tries: first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));

/// `--server`, for the commands that ask a daemon.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// Where the daemon's API listens
    #[arg(
        long,
        env = "SLOGATE_SERVER",
        hide_env_values = true,
        default_value = "http://127.0.0.1:9560",
        value_name = "URL"
    )]
    pub(super) server: String,
}

/// A connection to a daemon's API.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// How long the daemon asks us to wait, where it does.
    pub(super) retry_after: Option<Duration>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Nobody listens, the connection broke, or the daemon can't answer now.
    NotNow(String, Option<Duration>),
    /// The daemon understood and refused.
    Refused(String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoAnswer::NotNow(what, _) | NoAnswer::Refused(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for NoAnswer {}

impl Client {
    /// A client of the daemon at `server`.
    ///
    /// # Errors
    /// Where `server` is not an http or https URL.
    pub(super) fn new(server: &str) -> Result<Self, String> {
        super::install_tls();
        let wrong = |why: &str| {
            format!("--server {server:?}: {why}; expected a URL such as http://127.0.0.1:9560")
        };
        let mut base = Url::parse(server).map_err(|e| wrong(&e.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(wrong("not an http or https URL"));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("slogate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5));
        // A proxy for the world outside is of no use on this machine.
        let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let ip = host.parse::<std::net::IpAddr>();
        if host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback()) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| wrong(&e.to_string()))?;
        Ok(Client { http, base })
    }

    /// The daemon's URL.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// The URL of a path below the daemon's, each part escaped.
    pub(super) fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// Asks once; an answer is any 2xx.
    pub(super) async fn get(&self, url: Url, timeout: Duration) -> Result<Reply, NoAnswer> {
        self.send(self.http.get(url), timeout).await
    }

    /// Sends `body` once; an answer is any 2xx.
    pub(super) async fn post(
        &self,
        url: Url,
        content_type: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Reply, NoAnswer> {
        let request = self.http.post(url);
        let request = request.header("content-type", content_type).body(body);
        self.send(request, timeout).await
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        timeout: Duration,
    ) -> Result<Reply, NoAnswer> {
        let broken = |error: reqwest::Error| {
            let what = format!("{}: {}", self.base, root_cause(&error));
            NoAnswer::NotNow(what, None)
        };
        let mut response = request.timeout(timeout).send().await.map_err(broken)?;
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(|seconds: u64| Duration::from_secs(seconds.min(600)));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > ANSWER_MAX {
                let what = format!("{}: an answer larger than {ANSWER_MAX} bytes", self.base);
                return Err(NoAnswer::Refused(what));
            }
            body.extend_from_slice(&chunk);
        }
        let reply = Reply {
            status,
            body,
            retry_after,
        };
        match status {
            200..=299 => Ok(reply),
            408 | 429 | 500..=599 => Err(NoAnswer::NotNow(reply.complaint(), retry_after)),
            _ => Err(NoAnswer::Refused(reply.complaint())),
        }
    }
}

impl Reply {
    /// What an error answer says, in the API's error shape, else as text.
    fn complaint(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let Some(message) = json["error"]["message"].as_str() else {
            let text = String::from_utf8_lossy(&self.body);
            let text: String = text.trim().chars().take(300).collect();
            return format!("answered {}: {text}", self.status);
        };
        message.to_owned()
    }
}

/// The innermost reason, which is the one that tells: `Connection refused (os error 111)`.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Growing pauses between tries, until a deadline.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
    deadline: Instant,
}

impl Pauses {
    /// Pauses that end at `deadline`.
    pub(super) fn until(deadline: Instant) -> Self {
        Pauses {
            next: PAUSES.0,
            deadline,
        }
    }

    /// How long to wait before the next try; `None` where the deadline comes first. Where the
    /// daemon asked for a pause, it is at least that; half of it is chance, so that many
    /// waiting pipelines don't come back at once.
    pub(super) fn next(&mut self, now: Instant, asked: Option<Duration>) -> Option<Duration> {
        let chance = rand::rng().random_range(0.5..=1.0);
        let pause = self.next.mul_f64(chance).max(asked.unwrap_or_default());
        self.next = (self.next * 2).min(PAUSES.1);
        let left = self.deadline.saturating_duration_since(now);
        (pause < left).then_some(pause)
    }

    /// Begins anew with short pauses, after an answer.
    pub(super) fn reset(&mut self) {
        self.next = PAUSES.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_and_keep_the_base() {
        let client = Client::new("http://127.0.0.1:9560/slogate").unwrap();
        let url = client.url(&["v1", "gates", "a/b c", "verdict"]);
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1:9560/slogate/v1/gates/a%2Fb%20c/verdict"
        );
        for bad in ["", "127.0.0.1:9560", "ftp://x", "http://"] {
            assert!(Client::new(bad).unwrap_err().contains("expected a URL"));
        }
    }

    #[test]
    fn complaints_are_the_daemons_words() {
        let reply = |body: &str| Reply {
            status: 400,
            body: body.as_bytes().to_vec(),
            retry_after: None,
        };
        let body = r#"{"error":{"code":"invalid","message":"version: is empty"}}"#;
        assert_eq!(reply(body).complaint(), "version: is empty");
        assert_eq!(reply("<html>").complaint(), "answered 400: <html>");
    }

    #[test]
    fn pauses_grow_and_end_with_the_deadline() {
        let start = Instant::now();
        let mut pauses = Pauses::until(start + Duration::from_secs(60));
        assert!(pauses.next(start, None).unwrap() <= PAUSES.0);
        for _ in 0..10 {
            assert!(pauses.next(start, None).unwrap() <= PAUSES.1);
        }
        assert!(pauses.next(start, None).unwrap() >= PAUSES.1 / 2);
        let asked = Some(Duration::from_secs(20));
        assert!(pauses.next(start, asked) >= asked);
        assert_eq!(pauses.next(start, Some(Duration::from_secs(61))), None);
        pauses.reset();
        assert!(pauses.next(start, None).unwrap() <= PAUSES.0);
        assert_eq!(pauses.next(start + Duration::from_secs(60), None), None);
    }
}
