//! One way to ask every engine.

use super::answer::Answer;

/// When a query is evaluated, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    At(i64),
    Range { start: i64, end: i64, step: i64 },
}

impl When {
    pub(super) fn is_instant(self) -> bool {
        matches!(self, When::At(_))
    }
}

/// A server with the Prometheus API.
#[derive(Clone)]
pub(super) struct Engine {
    base: String,
    client: reqwest::Client,
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms.div_euclid(1_000), ms.rem_euclid(1_000))
}

impl Engine {
    pub(super) fn at(base: String) -> Engine {
        crate::harness::install_crypto();
        Engine {
            base,
            client: reqwest::Client::new(),
        }
    }

    pub(super) async fn ask(&self, expr: &str, when: When) -> Answer {
        let (path, times) = match when {
            When::At(ms) => ("query", vec![("time", seconds(ms))]),
            When::Range { start, end, step } => (
                "query_range",
                vec![
                    ("start", seconds(start)),
                    ("end", seconds(end)),
                    ("step", seconds(step)),
                ],
            ),
        };
        let mut form = vec![("query", expr.to_owned())];
        form.extend(times);
        let url = format!("{}/api/v1/{path}", self.base);
        let sent = self.client.post(&url).form(&form).send().await;
        let response = sent.unwrap_or_else(|error| panic!("{url}: {error:?} for {expr}"));
        let body = response.bytes().await;
        let body = body.unwrap_or_else(|error| panic!("{url}: {error:?} for {expr}"));
        Answer::read(&body)
    }
}
