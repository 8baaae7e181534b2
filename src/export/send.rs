//! Emptying the queue: one request at a time, until it is taken or refused for good.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Method, StatusCode};

use super::queue::{Position, Request};
use super::{DropReason, ExportError, Exporter};
use crate::outbound::reason;

/// The pause before the first repetition, and the longest, in ms.
const PAUSE_MS: (u64, u64) = (500, 60_000);

/// The longest that `Retry-After` is honoured, in ms.
const RETRY_AFTER_MAX_MS: u64 = 300_000;

/// The most of an answer's text that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// Between two complaints about refusals in the log, in ms.
const COMPLAIN_EVERY_MS: i64 = 60_000;

/// What one step of the sender did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing waits.
    Idle,
    /// A request was taken, or refused for good.
    Done,
    /// The same again, after a pause.
    Again {
        /// How long the endpoint asks to be left alone.
        after: Option<Duration>,
    },
}

/// What an answer means for the request.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Taken,
    Again(Option<Duration>),
    Refused,
}

impl Step {
    /// The pause before the next step, after `failures` of them in a row; `chance` is a number
    /// from 0 to 1 that keeps several senders from knocking together.
    pub fn pause(self, failures: u32, chance: f64) -> Option<Duration> {
        let Step::Again { after } = self else {
            return None;
        };
        let doubled = PAUSE_MS.0 << failures.saturating_sub(1).min(16);
        let capped = doubled.min(PAUSE_MS.1) as f64;
        let own = Duration::from_millis((capped * (0.5 + 0.5 * chance)) as u64);
        Some(after.map_or(own, |after| after.max(own)))
    }
}

impl Exporter {
    /// Waits until something was queued.
    pub async fn queued(&self) {
        self.queued.notified().await;
    }

    /// Sends the oldest request, once.
    ///
    /// # Errors
    /// If the queue can't be read or written.
    pub async fn send(self: &Arc<Self>, now_ms: i64) -> Result<Step, ExportError> {
        let exporter = self.clone();
        let next = blocking(move || exporter.queue.lock().peek()).await?;
        let Some((position, request)) = next else {
            return Ok(Step::Idle);
        };
        let samples = u64::from(request.samples);
        let (meaning, text) = self.post(request).await;
        match meaning {
            Meaning::Taken => {
                self.sent.fetch_add(samples, Ordering::Relaxed);
            }
            Meaning::Refused => {
                self.drop_samples(DropReason::Refused, samples);
                self.complain(samples, &text, now_ms);
            }
            Meaning::Again(after) => {
                self.retries.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(endpoint = self.endpoint(), %text, "export has to try again");
                return Ok(Step::Again { after });
            }
        }
        self.done(position).await?;
        Ok(Step::Done)
    }

    async fn done(self: &Arc<Self>, position: Position) -> Result<(), ExportError> {
        let exporter = self.clone();
        blocking(move || exporter.queue.lock().done(position)).await
    }

    /// Says in the log what was refused, once a minute at most: the counts are in the metrics.
    fn complain(&self, samples: u64, text: &str, now_ms: i64) {
        let last = self.complained_ms.load(Ordering::Relaxed);
        if now_ms.saturating_sub(last) >= COMPLAIN_EVERY_MS {
            self.complained_ms.store(now_ms, Ordering::Relaxed);
            let endpoint = self.endpoint();
            tracing::warn!(endpoint, samples, answer = %text, "exported samples were refused and are dropped");
        }
    }

    /// What the endpoint makes of a request, and its words.
    async fn post(&self, request: Request) -> (Meaning, String) {
        let call = match self.endpoint.request(Method::POST, "").await {
            Ok(call) => call,
            // A file with a token that can't be read may be there again in a moment.
            Err(error) => return (Meaning::Again(None), error.to_string()),
        };
        let call = call
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(CONTENT_ENCODING, "snappy")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .body(request.body);
        let mut response = match call.send().await {
            Ok(response) => response,
            Err(error) => return (Meaning::Again(None), reason(error)),
        };
        let status = response.status();
        let meaning = meaning(status, response.headers());
        if meaning == Meaning::Taken {
            return (meaning, String::new());
        }
        let mut body = Vec::new();
        while body.len() < ANSWER_BYTES_MAX
            && let Ok(Some(chunk)) = response.chunk().await
        {
            body.extend_from_slice(&chunk);
        }
        (meaning, first_line(status, &body))
    }
}

fn meaning(status: StatusCode, headers: &HeaderMap) -> Meaning {
    if status.is_success() {
        return Meaning::Taken;
    }
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Meaning::Again(retry_after(headers));
    }
    Meaning::Refused
}

/// `Retry-After` in seconds; a date is not understood, and left to our own pauses.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = text.trim().parse().ok()?;
    let ms = seconds.saturating_mul(1_000).min(RETRY_AFTER_MAX_MS);
    Some(Duration::from_millis(ms))
}

fn first_line(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().next().unwrap_or_default();
    let line: String = line.chars().filter(|c| !c.is_control()).take(300).collect();
    match line.is_empty() {
        true => status.to_string(),
        false => format!("{status}: {line}"),
    }
}

/// Runs `work`, which reads or writes files, where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is being shut down, and this task with it.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_mean_what_the_specification_says() {
        let none = HeaderMap::new();
        let mut later = HeaderMap::new();
        later.insert(RETRY_AFTER, 7.into());
        let seven = Some(Duration::from_secs(7));
        for (status, headers, expected) in [
            (204, &none, Meaning::Taken),
            (200, &none, Meaning::Taken),
            (429, &later, Meaning::Again(seven)),
            (503, &later, Meaning::Again(seven)),
            (500, &none, Meaning::Again(None)),
            (400, &later, Meaning::Refused),
            (401, &none, Meaning::Refused),
            (404, &none, Meaning::Refused),
            (302, &none, Meaning::Refused),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(meaning(status, headers), expected, "{status}");
        }
        later.insert(RETRY_AFTER, "99999999999999".parse().unwrap());
        assert_eq!(retry_after(&later), Some(Duration::from_secs(300)));
        later.insert(
            RETRY_AFTER,
            "Fri, 31 Dec 1999 23:59:59 GMT".parse().unwrap(),
        );
        assert_eq!(retry_after(&later), None);
    }

    #[test]
    fn pauses_grow_up_to_a_minute_and_heed_the_endpoint() {
        let again = Step::Again { after: None };
        let ms = |failures, chance| again.pause(failures, chance).unwrap().as_millis();
        assert_eq!((ms(1, 1.0), ms(1, 0.0)), (500, 250));
        assert_eq!((ms(2, 1.0), ms(3, 1.0)), (1_000, 2_000));
        assert_eq!((ms(30, 1.0), ms(u32::MAX, 0.0)), (60_000, 30_000));
        let asked = Step::Again {
            after: Some(Duration::from_secs(9)),
        };
        assert_eq!(asked.pause(1, 0.5), Some(Duration::from_secs(9)));
        assert_eq!(Step::Done.pause(3, 0.5), None);
    }

    #[test]
    fn an_answer_is_one_line_in_the_log() {
        let status = StatusCode::BAD_REQUEST;
        let line = first_line(status, b"out of order\x1b[2J sample\nsecond line");
        assert_eq!(line, "400 Bad Request: out of order[2J sample");
        assert_eq!(first_line(status, b""), "400 Bad Request");
    }
}
