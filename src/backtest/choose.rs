//! Which metric fits best.
//!
//! Every metric of a kind of requests gets a score: for its name, for labels that say how requests
//! ended, for being there on both sides. The best one is read, where it scores enough; of equals
//! the first by name.

use std::collections::BTreeSet;

use slogate_series::{Labels, Value};
use slogate_wire::openmetrics::Kind;

use super::arms::Arms;
use super::canonical::step_ms;
use super::reading::{CLIENT, Durations, Failures, Form, Measure, Requests, Values};
use super::recording::Recording;
use super::words::{self, STATUS_LABELS};

/// A metric that scores less is none of requests.
const SCORE_MIN: i32 = 15;

/// The series of one metric and kind.
pub(super) struct View<'r> {
    pub(super) metric: &'r str,
    pub(super) kind: &'static str,
    pub(super) series: Vec<usize>,
}

/// Chooses metrics by how well they fit.
pub(super) struct Chooser<'a, 'r> {
    pub(super) recording: &'r Recording,
    pub(super) arms: &'a Arms,
    pub(super) views: &'a [View<'r>],
}

impl<'r> Chooser<'_, 'r> {
    fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = &View<'r>> {
        self.views.iter().filter(move |view| view.kind == kind)
    }

    fn best(
        &self,
        kind: &'static str,
        score: impl Fn(&View<'r>) -> Option<i32>,
    ) -> Option<&View<'r>> {
        let scored = self
            .of_kind(kind)
            .filter_map(|view| Some((score(view)?, view)));
        let good = scored.filter(|(score, _)| *score >= SCORE_MIN);
        // Of equals the first by name.
        let best = good.max_by(|a, b| a.0.cmp(&b.0).then(b.1.metric.cmp(a.1.metric)));
        best.map(|(_, view)| view)
    }

    /// More for what both sides have.
    fn sides(&self, view: &View<'_>) -> i32 {
        let has = |wanted: bool| {
            self.labels(view)
                .any(|labels| self.arms.is_candidate(labels) == wanted)
        };
        i32::from(has(true)) * 15 + i32::from(has(false)) * 15
    }

    fn labels<'v>(&'v self, view: &'v View<'_>) -> impl Iterator<Item = &'r Labels> + 'v {
        let places = view.series.iter();
        places.filter_map(|at| self.recording.series.get(*at).map(|one| &one.labels))
    }

    pub(super) fn requests(&self, kind: &'static str, said: &mut Vec<String>) -> Option<Requests> {
        self.counted(kind, said).or_else(|| self.rated(kind, said))
    }

    fn counted(&self, kind: &'static str, said: &mut Vec<String>) -> Option<Requests> {
        let total = self.best(kind, |view| {
            let form = self.form(view)?;
            let is_failures = words::names_failures(view.metric);
            let counts = self.says_outcome(view);
            (!is_failures || counts).then(|| {
                score_of_count(view.metric) + self.sides(view) + i32::from(counts) * 20
                    - i32::from(form == Form::Each) * 10
                    - i32::from(words::names_successes(view.metric)) * 10
            })
        })?;
        let form = self.form(total)?;
        let of = side_name(kind);
        if form == Form::Each {
            said.push(format!(
                "{} goes up and down: each sample is taken as the number of requests since the one before",
                total.metric
            ));
        }
        let failures = if self.says_outcome(total) {
            let labels = self.outcome_labels(total).join(", ");
            said.push(format!(
                "requests{of}: {}, failed by {labels}",
                total.metric
            ));
            Failures::Labels
        } else {
            self.failures_beside(kind, total, form, said)
        };
        Some(Requests {
            kind,
            series: total.series.clone(),
            form,
            failures,
        })
    }

    fn failures_beside(
        &self,
        kind: &'static str,
        total: &View<'_>,
        form: Form,
        said: &mut Vec<String>,
    ) -> Failures {
        let of = side_name(kind);
        let shared = |metric: &str| {
            let own: BTreeSet<&str> = words::tokens(total.metric).collect();
            words::tokens(metric)
                .filter(|token| own.contains(token))
                .count() as i32
        };
        let is_failures = |view: &View<'_>| words::names_failures(view.metric);
        let counter = self.best(kind, |view| {
            let fits = is_failures(view) && self.form(view) == Some(form);
            fits.then(|| 10 + self.sides(view) + 5 * shared(view.metric))
        });
        if let Some(found) = counter {
            let beside = words::names_successes(total.metric);
            said.push(format!(
                "requests{of}: {}, failed: {}",
                total.metric, found.metric
            ));
            return Failures::Counter {
                series: found.series.clone(),
                beside,
            };
        }
        if let Some((found, failures)) = self.share(kind, None) {
            said.push(format!(
                "requests{of}: {}; their share of failures is {found}, taken times the requests since the sample before",
                total.metric
            ));
            return failures;
        }
        said.push(format!(
            "requests{of}: {}; nothing tells which failed",
            total.metric
        ));
        Failures::Unknown
    }

    /// Requests from gauges of traffic.
    fn rated(&self, kind: &'static str, said: &mut Vec<String>) -> Option<Requests> {
        let traffic = self.best(kind, |view| {
            let per_s = rate_of(view.metric)?;
            let is_it = per_s > 0.0 && !words::names_failures(view.metric);
            (is_it && !words::names_successes(view.metric)).then(|| 20 + self.sides(view))
        })?;
        let per_s = rate_of(traffic.metric)?;
        let form = Form::Rate { per_s };
        let failing = self.best(kind, |view| {
            let is_rate = rate_of(view.metric).is_some_and(|per_s| per_s > 0.0);
            (is_rate && words::names_failures(view.metric)).then(|| 20 + self.sides(view))
        });
        let traffic_max = self.largest(traffic);
        let (how, failures) = match (failing, self.share(kind, Some(traffic_max))) {
            (Some(found), _) => (
                format!("{} times the same", found.metric),
                Failures::Counter {
                    series: found.series.clone(),
                    beside: false,
                },
            ),
            (None, Some((metric, failures))) => (format!("{metric} times the requests"), failures),
            (None, None) => ("unknown".to_owned(), Failures::Unknown),
        };
        said.push(format!(
            "there are rates and no counts: requests{} are {} times the time between samples, \
             failed ones {how}",
            side_name(kind),
            traffic.metric
        ));
        Some(Requests {
            kind,
            series: traffic.series.clone(),
            form,
            failures,
        })
    }

    /// A gauge of the share of failures, or of successes, and what it is.
    fn share(&self, kind: &'static str, traffic_max: Option<f64>) -> Option<(&'r str, Failures)> {
        let found = self.best(kind, |view| {
            share_of_good(view.metric)?;
            self.is_gauge(view).then(|| 20 + self.sides(view))
        })?;
        let of_good = share_of_good(found.metric)?;
        let largest = self.largest(found);
        let is_percent =
            words::tokens(found.metric).any(|t| matches!(t, "percent" | "pct" | "percentage"));
        let scale = match largest > 1.5 || is_percent {
            true => 0.01,
            false => 1.0,
        };
        // Failures in a second rather than a share of requests.
        let is_rate = traffic_max.is_some_and(|max| largest > 100.0 && largest <= max && !of_good);
        let series = found.series.clone();
        let failures = match is_rate {
            true => Failures::Counter {
                series,
                beside: false,
            },
            false => Failures::Share {
                series,
                scale,
                of_good,
            },
        };
        Some((found.metric, failures))
    }

    pub(super) fn durations(
        &self,
        kind: &'static str,
        said: &mut Vec<String>,
    ) -> Option<Durations> {
        let found = self.best(kind, |view| {
            let is_native = self.is_native(view);
            let base = view.metric.strip_suffix("_bucket");
            if base.is_none() && !is_native {
                return None;
            }
            let base = base.unwrap_or(view.metric);
            let is_size = words::tokens(base).any(|token| matches!(token, "bytes" | "size"));
            let is_duration = words::names_duration(base) && !is_size;
            is_duration.then(|| score_of_count(base).max(0) + 20 + self.sides(view))
        })?;
        let base = found.metric.strip_suffix("_bucket").unwrap_or(found.metric);
        let (unit_s, how) = match words::unit_s(base) {
            Some(unit_s) => (unit_s, ""),
            None => self.guessed_unit(found),
        };
        said.push(format!("durations{}: {base}{how}", side_name(kind)));
        Some(Durations {
            kind,
            series: found.series.clone(),
            unit_s,
        })
    }

    /// Requests from histograms of durations: all that are below infinity.
    pub(super) fn of_buckets(
        &self,
        durations: &Durations,
        said: &mut Vec<String>,
    ) -> Option<Requests> {
        let is_whole = |at: &usize| {
            let le = self
                .recording
                .series
                .get(*at)
                .map(|one| one.labels.get("le"));
            matches!(le, Some(Some("+Inf" | "Inf" | "inf")))
        };
        let series: Vec<usize> = durations.series.iter().copied().filter(is_whole).collect();
        let first = series
            .first()
            .and_then(|at| self.recording.series.get(*at))?;
        let view = View {
            metric: first.labels.metric_name().unwrap_or_default(),
            kind: durations.kind,
            series,
        };
        let failures = match self.says_outcome(&view) {
            true => Failures::Labels,
            false => Failures::Unknown,
        };
        let what = if failures == Failures::Unknown {
            "; nothing tells which failed"
        } else {
            ""
        };
        said.push(format!(
            "requests{}: as many as {} counts{what}",
            side_name(view.kind),
            view.metric
        ));
        Some(Requests {
            kind: view.kind,
            series: view.series,
            form: Form::Total,
            failures,
        })
    }

    /// A gauge of the share of failures or successes, to be compared as it is.
    pub(super) fn shares(&self, kind: &'static str, said: &mut Vec<String>) -> Option<Values> {
        let (metric, failures) = self.share(kind, None)?;
        let Failures::Share {
            series,
            scale,
            of_good,
        } = failures
        else {
            return None;
        };
        said.push(format!(
            "there are neither counts nor rates of requests{}: the values of {metric} are compared",
            side_name(kind)
        ));
        let measure = match of_good {
            true => Measure::Succeeded,
            false => Measure::Failed,
        };
        Some(self.values(measure, kind, metric, series, scale))
    }

    /// A gauge or summary of a high quantile or a mean of durations, to be compared as it is.
    pub(super) fn timings(&self, kind: &'static str, said: &mut Vec<String>) -> Option<Values> {
        let found = self.best(kind, |view| {
            let is_it = words::names_duration(view.metric) && !view.metric.ends_with("_total");
            let is_part = ["_bucket", "_sum", "_count"]
                .iter()
                .any(|end| view.metric.ends_with(end));
            let has_quantile = self
                .labels(view)
                .any(|labels| labels.get("quantile").is_some());
            (is_it && !is_part && (self.is_gauge(view) || has_quantile))
                .then(|| 20 + self.sides(view) + score_of_quantile(view.metric))
        })?;
        // Of a summary's quantiles the one nearest to the 95th percentile.
        let quantile = |at: &usize| -> Option<f64> {
            let labels = &self.recording.series.get(*at)?.labels;
            labels.get("quantile")?.parse().ok()
        };
        let distance = |q: f64| (q - 0.95).abs();
        let quantiles = found.series.iter().filter_map(quantile);
        let nearest = quantiles.min_by(|a, b| distance(*a).total_cmp(&distance(*b)));
        let series = found.series.iter().copied();
        let series: Vec<usize> = series.filter(|at| quantile(at) == nearest).collect();
        let scale = words::unit_s(found.metric).unwrap_or(1.0);
        said.push(format!(
            "there are no histograms of durations{}: the values of {} are compared",
            side_name(kind),
            found.metric
        ));
        Some(self.values(Measure::Duration, kind, found.metric, series, scale))
    }

    fn values(
        &self,
        measure: Measure,
        kind: &'static str,
        metric: &str,
        series: Vec<usize>,
        scale: f64,
    ) -> Values {
        let own = series
            .iter()
            .filter_map(|at| self.recording.series.get(*at));
        let longest = own.max_by_key(|one| one.samples.len());
        Values {
            measure,
            kind,
            metric: metric.to_owned(),
            step_ms: longest.map_or(60_000, step_ms),
            series,
            scale,
        }
    }

    /// The unit that makes sense of the bounds of buckets.
    fn guessed_unit(&self, view: &View<'_>) -> (f64, &'static str) {
        let bounds = self
            .labels(view)
            .filter_map(|labels| labels.get("le")?.parse().ok());
        let bounds: Vec<f64> = bounds.filter(|bound: &f64| bound.is_finite()).collect();
        let largest = bounds.iter().copied().fold(0.0, f64::max);
        let smallest = bounds.iter().copied().fold(f64::INFINITY, f64::min);
        match !bounds.is_empty() && smallest >= 0.5 && largest >= 400.0 {
            true => (1e-3, ", in milliseconds, as its buckets look"),
            false => (1.0, ", in seconds, since nothing says otherwise"),
        }
    }

    /// What the samples are, where they count something.
    fn form(&self, view: &View<'_>) -> Option<Form> {
        let metric = view.metric;
        if metric.ends_with("_bucket") || metric.ends_with("_sum") || metric.ends_with("_created") {
            return None;
        }
        if rate_of(metric).is_some() || share_of_good(metric).is_some() {
            return None;
        }
        if self
            .labels(view)
            .any(|labels| labels.get("quantile").is_some())
        {
            return None;
        }
        let kind = self.recording.kind(metric);
        let is_counted =
            metric.ends_with("_total") || metric.ends_with("_count") || self.is_native(view);
        match kind {
            Some(Kind::Counter) => Some(Form::Total),
            Some(Kind::Histogram | Kind::Summary) if metric.ends_with("_count") => {
                Some(Form::Total)
            }
            Some(Kind::Histogram) if self.is_native(view) => Some(Form::Total),
            Some(Kind::Histogram | Kind::Summary) => None,
            _ if words::names_duration(metric) && !is_counted => None,
            Some(Kind::Gauge) if self.grows(view) => is_counted.then_some(Form::Total),
            Some(Kind::Gauge) => names_counts(metric).then_some(Form::Each),
            _ if is_counted && self.grows(view) => Some(Form::Total),
            _ if names_counts(metric) => match self.grows(view) {
                true => Some(Form::Total),
                false => Some(Form::Each),
            },
            _ => None,
        }
    }

    /// Whether the series hardly ever fall.
    fn grows(&self, view: &View<'_>) -> bool {
        let (mut steps, mut falls) = (0usize, 0usize);
        for at in view.series.iter().take(50) {
            let samples = self
                .recording
                .series
                .get(*at)
                .map(|one| one.samples.as_slice());
            let values: Vec<f64> = samples
                .unwrap_or_default()
                .iter()
                .filter_map(float)
                .collect();
            for pair in values.windows(2) {
                if let [before, after] = pair {
                    steps += usize::from(before != after);
                    falls += usize::from(after < before);
                }
            }
        }
        falls * 20 <= steps
    }

    fn is_native(&self, view: &View<'_>) -> bool {
        let first = view
            .series
            .first()
            .and_then(|at| self.recording.series.get(*at));
        let sample = first.and_then(|one| one.samples.first());
        sample.is_some_and(|sample| matches!(sample.value, Value::Histogram(_)))
    }

    fn is_gauge(&self, view: &View<'_>) -> bool {
        !matches!(
            self.recording.kind(view.metric),
            Some(Kind::Counter | Kind::Histogram | Kind::Summary)
        )
    }

    fn largest(&self, view: &View<'_>) -> f64 {
        let samples = view
            .series
            .iter()
            .filter_map(|at| self.recording.series.get(*at));
        let values = samples.flat_map(|one| one.samples.iter().filter_map(float));
        values.filter(|value| value.is_finite()).fold(0.0, f64::max)
    }

    fn outcome_labels(&self, view: &View<'_>) -> Vec<&'static str> {
        let says = |label: &&&'static str| {
            self.labels(view).any(|labels| {
                let value = labels.get(label);
                value.is_some_and(|value| words::is_failure(label, value).is_some())
            })
        };
        STATUS_LABELS.iter().filter(says).copied().collect()
    }

    fn says_outcome(&self, view: &View<'_>) -> bool {
        !self.outcome_labels(view).is_empty()
    }
}

fn side_name(kind: &str) -> &'static str {
    match kind {
        CLIENT => " to others",
        _ => "",
    }
}

fn float(sample: &slogate_series::Sample) -> Option<f64> {
    match sample.value {
        Value::Float(value) if !value.is_nan() => Some(value),
        _ => None,
    }
}

/// How much a name is that of a counter of requests.
fn score_of_count(metric: &str) -> i32 {
    const KNOWN: [(&str, i32); 8] = [
        ("traces_span_metrics_calls_total", 100),
        ("traces_spanmetrics_calls_total", 99),
        ("calls_total", 90),
        ("istio_requests_total", 90),
        ("http_requests_total", 88),
        ("response_total", 85),
        ("grpc_server_handled_total", 80),
        ("http_server_request_duration_seconds_count", 80),
    ];
    if let Some((_, score)) = KNOWN.iter().find(|(known, _)| *known == metric) {
        return *score;
    }
    let scores = words::tokens(metric).map(|token| match token {
        "requests" | "request" | "reqs" | "req" | "rq" => 40,
        "calls" | "call" => 35,
        "responses" | "response" => 30,
        "handled" | "served" | "invocations" => 25,
        "rpcs" | "rpc" | "transactions" | "operations" | "queries" | "messages" | "jobs"
        | "hits" | "orders" | "events" => 18,
        "http" | "grpc" | "server" => 8,
        "duration" | "latency" => 4,
        "started" | "bytes" | "size" | "retries" | "retry" | "cache" | "gc" | "inflight"
        | "flight" | "active" | "db" | "sql" | "connections" | "cpu" | "memory" | "dropped"
        | "pending" | "queue" => -40,
        _ => 0,
    });
    scores.sum()
}

/// How telling a gauge of durations is, as its name says.
fn score_of_quantile(metric: &str) -> i32 {
    let scores = words::tokens(metric).map(|token| match token {
        "p95" | "95" | "q95" | "95th" => 9,
        "p99" | "99" | "q99" | "99th" => 8,
        "p90" | "90" | "q90" => 7,
        "p50" | "median" => 5,
        "mean" | "avg" | "average" => 4,
        "max" | "min" | "cpu" | "gc" | "uptime" | "start" => -40,
        _ => 0,
    });
    scores.sum()
}

/// Words of a metric whose samples are numbers of something.
fn names_counts(metric: &str) -> bool {
    score_of_count(metric) >= SCORE_MIN || words::names_failures(metric)
}

/// How many seconds the rate of a gauge of traffic is for, as its name says.
fn rate_of(metric: &str) -> Option<f64> {
    let tokens: Vec<&str> = words::tokens(metric).collect();
    let has = |token: &str| tokens.contains(&token);
    if has("per") && (has("minute") || has("min")) || has("rpm") {
        return Some(60.0);
    }
    let is_rate = has("rps")
        || has("qps")
        || has("tps")
        || has("throughput")
        || has("traffic")
        || (has("per") && (has("second") || has("sec") || has("s")));
    let is_request_rate = has("rate")
        && (has("request") || has("requests") || has("req"))
        && !words::names_failures(metric)
        && !words::names_successes(metric);
    (is_rate || is_request_rate).then_some(1.0)
}

/// Whether a gauge is the share of successes (true) or of failures (false).
fn share_of_good(metric: &str) -> Option<bool> {
    let mut tokens = words::tokens(metric);
    let is_share = tokens.any(|token| {
        matches!(
            token,
            "rate"
                | "ratio"
                | "share"
                | "percent"
                | "pct"
                | "percentage"
                | "fraction"
                | "availability"
        )
    });
    if !is_share || metric.ends_with("_total") {
        return None;
    }
    if words::names_failures(metric) {
        return Some(false);
    }
    words::names_successes(metric).then_some(true)
}
