//! A remote Prometheus, or anything that speaks its HTTP API: Mimir, Thanos, VictoriaMetrics.
//!
//! Bodies are read here, not by a client crate: the ones there are drop native histograms,
//! strings and warnings, and read an answer of any size.
//!
//! # What happens when it does not answer
//!
//! - **A query has one deadline**, `source.timeout`, from the moment it is asked: waiting for its
//!   turn, trying again and reading the answer are all within it. At most `source.concurrency`
//!   queries are under way; so a server that hangs holds so many of ours and no more.
//! - **Tried again**, after a pause that grows and varies, is what may go well the next time: no
//!   connection, a broken one, 5xx except 501, and 429, which says for itself how long to wait.
//!   Never what the server has understood and refused (4xx), nor a query that was too slow for
//!   the server: it would be too slow again.
//! - **Failures in a row** open a [breaker](super::breaker).
//! - In all these cases the answer is [`SourceError::Unavailable`], which no check reads as a
//!   pass.
//!
//! # Partial answers
//!
//! Thanos and VictoriaMetrics clusters answer without the parts that are away and say so in a
//! warning. Missing errors look like a good release, so by default such an answer is none
//! (`source.partialAnswers: refuse`). With `warn` it counts, and the warning stands in the
//! evidence. PromQL's own remarks, which begin with `PromQL`, are not meant.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rand::Rng as _;
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::breaker::{Breaker, State};
use super::{Answer, MetricSource, SourceError};
use crate::config::RemoteSettings;
use crate::model::{Clock, time};
use crate::outbound::{Outbound, OutboundError, reason};
use crate::telemetry::{Registry, catalog};

mod json;

use json::Envelope;

/// How often a query is sent at most.
const ATTEMPTS_MAX: u32 = 3;

/// The pause before the second attempt; the next one is twice as long.
const PAUSE: Duration = Duration::from_millis(200);

/// The most of an error's text that is shown, in characters.
const TEXT_MAX: usize = 300;

/// Answers from a Prometheus-compatible HTTP API.
pub struct PrometheusSource {
    label: String,
    peer: Outbound,
    settings: RemoteSettings,
    /// Whether the server has refused POST.
    uses_get: AtomicBool,
    turns: Semaphore,
    breaker: Mutex<Breaker>,
    /// What the last failure said.
    last_failure: Mutex<String>,
    clock: Arc<dyn Clock>,
    registry: Registry,
}

/// Why a remote source can't be set up.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PrometheusSourceError(#[from] OutboundError);

/// Why an attempt gave nothing.
enum Failed {
    /// It is of no use to try again.
    For(SourceError),
    /// It may go well the next time, after a while where the server says so.
    Now(SourceError, Option<Duration>),
}

impl PrometheusSource {
    /// A source as `settings` say; its metrics carry `label`.
    ///
    /// # Errors
    /// When no HTTP client can be made of the settings.
    pub fn new(
        label: &str,
        settings: &RemoteSettings,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> Result<Self, PrometheusSourceError> {
        let source = PrometheusSource {
            label: label.to_owned(),
            peer: Outbound::new(&settings.peer)?,
            uses_get: AtomicBool::new(false),
            turns: Semaphore::new(settings.concurrency),
            breaker: Mutex::default(),
            last_failure: Mutex::default(),
            clock,
            registry: registry.clone(),
            settings: settings.clone(),
        };
        source.show_state();
        Ok(source)
    }

    fn unavailable(&self, message: String) -> SourceError {
        SourceError::Unavailable {
            origin: self.peer.name().to_owned(),
            message,
        }
    }

    fn refused(&self, message: String) -> SourceError {
        SourceError::Refused {
            origin: self.peer.name().to_owned(),
            message,
        }
    }

    async fn ask(&self, expr: &str, at_ms: i64) -> Result<Answer, SourceError> {
        let began = Instant::now();
        let (outcome, answer) = self.guarded(expr, at_ms, began).await;
        let queries = self
            .registry
            .counter(&catalog::SOURCE_QUERIES, &[&self.label, outcome]);
        queries.increment();
        let seconds = self
            .registry
            .histogram(&catalog::SOURCE_SECONDS, &[&self.label]);
        seconds.observe(began.elapsed());
        self.show_state();
        answer
    }

    /// The answer within the deadline, and its outcome for our metrics.
    async fn guarded(
        &self,
        expr: &str,
        at_ms: i64,
        began: Instant,
    ) -> (&'static str, Result<Answer, SourceError>) {
        let limit = Duration::from_millis(self.settings.peer.timeout_ms.unsigned_abs());
        let deadline = began + limit;
        let Ok(Ok(_turn)) = timeout_at(deadline, self.turns.acquire()).await else {
            let most = self.settings.concurrency;
            let message =
                format!("{most} queries are under way already, and none has ended in time");
            return ("busy", Err(self.unavailable(message)));
        };
        // After the turn has come: who waited while others failed should not be the next to try.
        let trial = match self.admit() {
            Ok(trial) => trial,
            Err(resting) => return ("paused", Err(resting)),
        };
        let answer = match timeout_at(deadline, self.attempts(expr, at_ms, deadline)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.late()),
        };
        match answer {
            Ok(answer) => {
                trial.end(|breaker, _| breaker.succeeded());
                match self.partial(&answer) {
                    Some(error) => ("partial", Err(error)),
                    None => ("ok", Ok(answer.answer)),
                }
            }
            Err(error @ SourceError::Refused { .. }) => {
                trial.end(|breaker, _| breaker.succeeded());
                ("refused", Err(error))
            }
            Err(error @ SourceError::Unavailable { .. }) => {
                if let SourceError::Unavailable { message, .. } = &error {
                    message.clone_into(&mut self.last_failure.lock());
                }
                trial.end(Breaker::failed);
                ("unavailable", Err(error))
            }
        }
    }

    fn admit(&self) -> Result<Trial<'_>, SourceError> {
        let mut breaker = self.breaker.lock();
        match breaker.admit(self.clock.now_ms()) {
            Ok(()) => Ok(Trial {
                source: self,
                is_over: false,
            }),
            Err(_) => {
                let (failures, last) = (breaker.failures(), self.last_failure.lock());
                let message = format!(
                    "it is not asked for a while, after {failures} failures in a row; the last: \
                     {last}"
                );
                Err(self.unavailable(message))
            }
        }
    }

    fn show_state(&self) {
        let state = match self.breaker.lock().state() {
            State::Closed => 0,
            State::HalfOpen { .. } => 1,
            State::Open { .. } => 2,
        };
        let gauge = self
            .registry
            .gauge(&catalog::SOURCE_BREAKER, &[&self.label]);
        gauge.set(state);
    }

    async fn attempts(
        &self,
        expr: &str,
        at_ms: i64,
        deadline: Instant,
    ) -> Result<Complete, SourceError> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let (error, wanted) = match self.attempt(expr, at_ms).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::For(error)) => return Err(error),
                Err(Failed::Now(error, wanted)) => (error, wanted),
            };
            // Several that failed together should not come back together.
            let varied = pause.mul_f64(rand::rng().random_range(0.5..1.5));
            let wait = wanted.unwrap_or(varied);
            if attempt >= ATTEMPTS_MAX || Instant::now() + wait >= deadline {
                return Err(error);
            }
            self.registry
                .counter(&catalog::SOURCE_RETRIES, &[&self.label])
                .increment();
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
        Err(self.unavailable("no attempt was made".to_owned()))
    }

    async fn attempt(&self, expr: &str, at_ms: i64) -> Result<Complete, Failed> {
        if !self.uses_get.load(Ordering::Relaxed) {
            let response = self.send(Method::POST, expr, at_ms).await?;
            let has_no_post = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
            if !has_no_post.contains(&response.status()) {
                return self.read(response).await;
            }
        }
        let response = self.send(Method::GET, expr, at_ms).await?;
        self.uses_get
            .store(response.status().is_success(), Ordering::Relaxed);
        self.read(response).await
    }

    async fn send(
        &self,
        method: Method,
        expr: &str,
        at_ms: i64,
    ) -> Result<reqwest::Response, Failed> {
        let time = format!("{}.{:03}", at_ms.div_euclid(1000), at_ms.rem_euclid(1000));
        let own = [("query", expr), ("time", &time)];
        let more = self.settings.params.iter();
        let more = more.map(|(name, value)| (name.as_str(), value.as_str()));
        let params: Vec<(&str, &str)> = own.into_iter().chain(more).collect();
        let request = self.peer.request(method.clone(), "/api/v1/query").await;
        // A file with a secret may be there the next time, but not within this query.
        let request = request.map_err(|e| Failed::For(self.unavailable(e.to_string())))?;
        let request = match method {
            Method::GET => request.query(&params),
            _ => request.form(&params),
        };
        let sent = request.send().await;
        sent.map_err(|error| self.broken(error))
    }

    /// What an error on the way means.
    fn broken(&self, error: reqwest::Error) -> Failed {
        if error.is_timeout() && !error.is_connect() {
            return Failed::For(self.late());
        }
        Failed::Now(self.unavailable(reason(error)), None)
    }

    fn late(&self) -> SourceError {
        let ms = self.settings.peer.timeout_ms;
        self.unavailable(format!("no answer within {}", time::humanize_ms(ms)))
    }

    async fn read(&self, response: reqwest::Response) -> Result<Complete, Failed> {
        let status = response.status();
        let headers = response.headers().clone();
        if status.is_redirection() {
            let to = headers.get(LOCATION).and_then(|to| to.to_str().ok());
            let message = format!(
                "status {status}: it redirects to {}, which is not followed; set that URL",
                to.unwrap_or("nowhere")
            );
            return Err(Failed::For(self.refused(message)));
        }
        let body = self.body(response).await?;
        match serde_json::from_slice::<Envelope>(&body) {
            Ok(envelope) if envelope.status == "success" && status.is_success() => {
                self.complete(envelope).map_err(Failed::For)
            }
            Ok(envelope) => {
                let kind = envelope.error_type.unwrap_or_default();
                let message = format!("{kind}: {}", envelope.error.unwrap_or_default());
                Err(self.failed(status, &headers, &kind, message))
            }
            Err(error) if status.is_success() => {
                let message = format!("status {status}, and a body that is not its JSON: {error}");
                Err(Failed::For(self.unavailable(message)))
            }
            Err(_) => {
                let message = format!("status {status}: {}", first_line(&body));
                Err(self.failed(status, &headers, "", message))
            }
        }
    }

    /// What a status and the type of an error mean.
    fn failed(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        kind: &str,
        message: String,
    ) -> Failed {
        match kind {
            "timeout" | "canceled" => return Failed::For(self.unavailable(message)),
            "bad_data" | "execution" => return Failed::For(self.refused(message)),
            _ => {}
        }
        match status {
            StatusCode::TOO_MANY_REQUESTS => {
                Failed::Now(self.unavailable(message), retry_after(headers))
            }
            StatusCode::NOT_IMPLEMENTED => Failed::For(self.refused(message)),
            status if status.is_client_error() => Failed::For(self.refused(message)),
            _ => Failed::Now(self.unavailable(message), retry_after(headers)),
        }
    }

    fn complete(&self, envelope: Envelope) -> Result<Complete, SourceError> {
        let missing = envelope
            .warnings
            .iter()
            .find(|warning| !warning.starts_with("PromQL"));
        let missing = match (missing, envelope.is_partial) {
            (Some(warning), _) => Some(warning.clone()),
            (None, true) => Some("isPartial".to_owned()),
            (None, false) => None,
        };
        let value = envelope
            .data
            .and_then(|data| json::parse_value(&data.result_type, &data.result))
            .ok_or_else(|| self.unavailable("an answer of an unknown shape".to_owned()))?;
        let mut warnings = [envelope.warnings, envelope.infos].concat();
        if envelope.is_partial {
            warnings.push("the answer is partial".to_owned());
        }
        Ok(Complete {
            answer: Answer { value, warnings },
            missing,
        })
    }

    /// Why an answer does not count, where it is partial.
    fn partial(&self, answer: &Complete) -> Option<SourceError> {
        let missing = answer
            .missing
            .as_ref()
            .filter(|_| !self.settings.takes_partial)?;
        Some(self.unavailable(format!("its answer is partial: {missing}")))
    }

    async fn body(&self, response: reqwest::Response) -> Result<Vec<u8>, Failed> {
        let most = self.settings.answer_bytes_max;
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| self.broken(error))?;
            if body.len() + chunk.len() > most {
                let message = format!(
                    "its answer is larger than {most} bytes (source.answerSizeMax); ask for less"
                );
                return Err(Failed::For(self.refused(message)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl MetricSource for PrometheusSource {
    fn query<'a>(
        &'a self,
        expr: &'a str,
        at_ms: i64,
    ) -> BoxFuture<'a, Result<Answer, SourceError>> {
        Box::pin(self.ask(expr, at_ms))
    }

    fn name(&self) -> &str {
        self.peer.name()
    }

    fn observes(&self) -> bool {
        self.settings.observes
    }
}

/// An answer, and what is missing from it.
struct Complete {
    answer: Answer,
    missing: Option<String>,
}

/// A query that the breaker let through; dropped before its end it was given up.
struct Trial<'s> {
    source: &'s PrometheusSource,
    is_over: bool,
}

impl Trial<'_> {
    fn end(mut self, tell: impl FnOnce(&mut Breaker, i64)) {
        self.is_over = true;
        tell(&mut self.source.breaker.lock(), self.source.clock.now_ms());
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let now_ms = self.source.clock.now_ms();
            self.source.breaker.lock().abandoned(now_ms);
        }
    }
}

/// How long the server asks us to wait; a date is not read, as nobody sends one here.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

fn first_line(body: &[u8]) -> String {
    let start = body.get(..body.len().min(4 * TEXT_MAX)).unwrap_or_default();
    let text = String::from_utf8_lossy(start);
    let line = text.lines().find(|line| !line.trim().is_empty());
    match line {
        Some(line) => line.trim().chars().take(TEXT_MAX).collect(),
        None => "an empty body".to_owned(),
    }
}

#[cfg(test)]
mod tests;
