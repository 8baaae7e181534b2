//! The judge against made-up telemetry: what a user would expect of each situation.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use proptest::prelude::*;
use slogate_promql::QueryValue;
use slogate_series::{Buckets, Histogram, Labels, Sample, Series, Value, histogram};

use super::*;
use crate::model::{Artifact, DeploymentId, Origin, Phase, Target};
use crate::source::{Answer, SourceError};

mod kept;

const T0: i64 = 1_795_190_400_000;
const TICK_MS: i64 = 5_000;

/// A version's traffic: what it does each tick from a time on.
#[derive(Clone)]
struct Traffic {
    version: &'static str,
    from_ms: i64,
    until_ms: i64,
    requests_per_tick: f64,
    errors_per_tick: f64,
    latency_s: f64,
}

impl Traffic {
    fn of(version: &'static str, from_ms: i64) -> Self {
        Traffic {
            version,
            from_ms,
            until_ms: i64::MAX,
            requests_per_tick: 500.0,
            errors_per_tick: 1.0,
            latency_s: 0.1,
        }
    }

    fn errors(mut self, per_tick: f64) -> Self {
        self.errors_per_tick = per_tick;
        self
    }

    fn requests(mut self, per_tick: f64) -> Self {
        self.requests_per_tick = per_tick;
        self
    }

    fn latency(mut self, seconds: f64) -> Self {
        self.latency_s = seconds;
        self
    }

    fn until(mut self, until_ms: i64) -> Self {
        self.until_ms = until_ms;
        self
    }

    fn series(&self, now_ms: i64) -> Vec<Series> {
        let (good, bad) = (
            self.requests_per_tick - self.errors_per_tick,
            self.errors_per_tick,
        );
        let calls = [("STATUS_CODE_UNSET", good), ("STATUS_CODE_ERROR", bad)];
        let mut series: Vec<Series> = calls
            .into_iter()
            .map(|(status, per_tick)| Series {
                labels: self.labels("traces_span_metrics_calls_total", status),
                samples: self.samples(now_ms, |tick| Value::Float((per_tick * tick).floor())),
            })
            .collect();
        series.push(Series {
            labels: self.labels("traces_span_metrics_duration_seconds", "STATUS_CODE_UNSET"),
            samples: self.samples(now_ms, |tick| {
                Value::Histogram(Arc::new(self.histogram(tick)))
            }),
        });
        series
    }

    /// Latencies that thin out by an eighth from bucket to bucket, from half of `latency_s` on.
    fn histogram(&self, tick: f64) -> Histogram {
        let total = self.requests_per_tick * tick;
        let low = histogram::bucket_index(4, self.latency_s / 2.0);
        let share = |at: i32| 0.125 * 0.875f64.powi(at);
        let buckets: Vec<_> = (0..60)
            .map(|at| (low + at, (total * share(at)).floor()))
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Histogram {
            schema: 4,
            count,
            sum: count * self.latency_s,
            positive: Buckets::from_sorted(buckets),
            ..Histogram::default()
        }
    }

    fn samples(&self, now_ms: i64, value: impl Fn(f64) -> Value) -> Vec<Sample> {
        let first = (self.from_ms / TICK_MS + 1) * TICK_MS;
        let ticks = (0..).map(|tick| first + tick * TICK_MS);
        let ticks = ticks.take_while(|t| *t <= now_ms.min(self.until_ms));
        let samples = ticks.enumerate().map(|(at, t_ms)| Sample {
            t_ms,
            start_ms: self.from_ms,
            value: value(at as f64 + 1.0),
        });
        samples.collect()
    }

    fn labels(&self, name: &str, status: &str) -> Labels {
        Labels::from_pairs([
            ("__name__", name),
            ("service_name", "checkout"),
            ("service_version", self.version),
            ("deployment_environment_name", "production"),
            ("span_kind", "SPAN_KIND_SERVER"),
            ("status_code", status),
        ])
    }
}

/// Answers the judge's range selectors from made-up traffic.
#[derive(Clone, Default)]
struct Shop {
    traffic: Vec<Traffic>,
    broken: bool,
    scalar: Option<QueryValue>,
    tagged: Option<(f64, f64)>,
    newest_ms: Option<i64>,
}

impl MetricSource for Shop {
    fn query<'a>(
        &'a self,
        expr: &'a str,
        at_ms: i64,
    ) -> BoxFuture<'a, Result<Answer, SourceError>> {
        Box::pin(async move {
            if self.broken {
                return Err(SourceError::Unavailable {
                    origin: "the shop".to_owned(),
                    message: "connection refused".to_owned(),
                });
            }
            let name = expr.split('{').next().unwrap_or("");
            let window = expr
                .rsplit_once('[')
                .and_then(|(_, w)| w.strip_suffix("ms]"));
            let Some(window_ms) = window.and_then(|w| w.parse::<i64>().ok()) else {
                let value = match self.newest_ms.filter(|_| expr.contains("timestamp(")) {
                    Some(newest_ms) => QueryValue::Scalar(newest_ms as f64 / 1000.0),
                    None => self
                        .scalar
                        .clone()
                        .unwrap_or(QueryValue::Vector(Vec::new())),
                };
                return Ok(Answer {
                    value,
                    warnings: Vec::new(),
                });
            };
            let mut series: Vec<Series> = Vec::new();
            if name == "slogate_observability_items_total" {
                for (identity, count) in self
                    .tagged
                    .iter()
                    .flat_map(|(with, without)| [("true", *with), ("false", *without)])
                {
                    let labels = Labels::from_pairs([
                        ("__name__", name),
                        ("signal", "spans"),
                        ("artifact_identity", identity),
                    ]);
                    let value = Value::Float(count);
                    let samples = vec![Sample {
                        t_ms: at_ms,
                        start_ms: at_ms - 1,
                        value,
                    }];
                    series.push(Series { labels, samples });
                }
            }
            for traffic in &self.traffic {
                let found = traffic.series(at_ms).into_iter();
                series.extend(found.filter(|s| s.labels.metric_name() == Some(name)));
            }
            for one in &mut series {
                one.samples.retain(|sample| sample.t_ms > at_ms - window_ms);
            }
            series.retain(|one| !one.samples.is_empty());
            Ok(Answer {
                value: QueryValue::Matrix(series),
                warnings: Vec::new(),
            })
        })
    }

    fn name(&self) -> &str {
        "the shop"
    }
}

fn gate(checks: &str) -> Arc<Gate> {
    let text = format!(
        "apiVersion: slogate.dev/v1\nkind: Gate\nmetadata: {{ name: canary }}\nspec:\n  \
         warmUp: 30s\n  soak: 1m\n  decideWithin: 30m\n  checks:\n{checks}"
    );
    let gates = crate::policy::parse("test.yaml", &text).unwrap_or_else(|e| panic!("{e}"));
    Arc::new(gates.into_iter().next().unwrap())
}

const ERRORS: &str = "    - name: errors\n      compare: { sli: requests.errorRatio, \
                      worseBy: { absolute: 0.1%, relative: 25% } }\n";
const LATENCY: &str = "    - name: latency\n      compare: { sli: requests.duration, \
                       quantile: 0.95, worseBy: { relative: 10% } }\n";

pub(super) fn subject_of(deployment: Arc<Deployment>) -> Subject {
    Subject {
        deployment,
        history: Vec::new(),
    }
}

pub(super) fn deployment(phase: Phase) -> Arc<Deployment> {
    Arc::new(Deployment {
        id: DeploymentId("checkout-2-abc".to_owned()),
        target: Target::new("checkout", "production"),
        artifact: Artifact::of_version("2"),
        previous: Some(Artifact::of_version("1")),
        phase,
        origin: Origin::Announced,
        correlation: None,
        created_ms: T0,
        started_ms: Some(T0),
        finished_ms: None,
        weight: None,
        steps: Vec::new(),
        rollback_of: None,
        rolled_back_by: None,
        superseded_by: None,
        partial_failures: 0,
        manual_changes: 0,
        first_alert_ms: None,
        actor: None,
        url: None,
        timeline: Vec::new(),
    })
}

async fn look(gate: &Arc<Gate>, shop: &Shop, after_ms: i64) -> Verdict {
    let subject = Subject {
        deployment: deployment(Phase::Progressing),
        history: Vec::new(),
    };
    judge(gate, &subject, shop, T0 + after_ms).await
}

fn shop(traffic: &[Traffic]) -> Shop {
    Shop {
        traffic: traffic.to_vec(),
        ..Shop::default()
    }
}

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

#[tokio::test]
async fn a_good_release_passes() {
    let both = shop(&[Traffic::of("1", T0 - HOUR), Traffic::of("2", T0)]);
    let verdict = look(&gate(&format!("{ERRORS}{LATENCY}")), &both, 10 * MINUTE).await;
    assert_eq!(verdict.verdict, Outcome::Pass, "{}", verdict.message);
    assert_eq!(verdict.reason, Reason::AllChecksPassed);
    let evidence = &verdict.checks[0].evidence;
    assert_eq!(
        evidence.baseline.as_ref().unwrap().artifact,
        Artifact::of_version("1")
    );
    assert!(evidence.candidate_counts.unwrap().total > 40_000.0);
}

#[tokio::test]
async fn ten_times_the_errors_fail_soon_and_say_so() {
    let both = shop(&[
        Traffic::of("1", T0 - HOUR),
        Traffic::of("2", T0).errors(10.0),
    ]);
    let verdict = look(&gate(ERRORS), &both, 2 * MINUTE).await;
    assert_eq!(verdict.verdict, Outcome::Fail, "{}", verdict.message);
    assert!(
        verdict
            .message
            .contains("checkout 2 in production: FAIL after 2m")
    );
    assert!(
        verdict.message.contains("Errors: 2 % against 0.2 % on 1"),
        "{}",
        verdict.message
    );
    assert!(
        verdict.message.contains("with 99 % confidence"),
        "{}",
        verdict.message
    );
}

#[tokio::test]
async fn a_crash_fails_during_warm_up() {
    let both = shop(&[
        Traffic::of("1", T0 - HOUR),
        Traffic::of("2", T0).errors(400.0),
    ]);
    let verdict = look(&gate(ERRORS), &both, 22_000).await;
    assert_eq!(verdict.verdict, Outcome::Fail, "{}", verdict.message);
}

#[tokio::test]
async fn a_slower_p95_fails() {
    let both = shop(&[
        Traffic::of("1", T0 - HOUR),
        Traffic::of("2", T0).latency(0.2),
    ]);
    let verdict = look(&gate(LATENCY), &both, 5 * MINUTE).await;
    assert_eq!(verdict.verdict, Outcome::Fail, "{}", verdict.message);
    assert!(verdict.message.contains("P95: "), "{}", verdict.message);
}

#[tokio::test]
async fn all_at_once_is_compared_with_history() {
    let before = Traffic::of("1", T0 - HOUR).until(T0);
    let good = shop(&[before.clone(), Traffic::of("2", T0)]);
    let verdict = look(&gate(ERRORS), &good, 10 * MINUTE).await;
    assert_eq!(verdict.verdict, Outcome::Pass, "{}", verdict.message);
    let baseline = verdict.checks[0].evidence.baseline.clone().unwrap();
    assert_eq!(baseline.kind, crate::model::BaselineKind::Historical);
    assert!(baseline.data.end_ms <= T0);
    let bad = shop(&[before, Traffic::of("2", T0).errors(10.0)]);
    let verdict = look(&gate(ERRORS), &bad, 5 * MINUTE).await;
    assert_eq!(verdict.verdict, Outcome::Fail, "{}", verdict.message);
}

#[tokio::test]
async fn what_is_not_known_is_never_a_pass() {
    let gate = gate(ERRORS);
    let baseline = Traffic::of("1", T0 - HOUR);
    let silent = look(&gate, &shop(std::slice::from_ref(&baseline)), 5 * MINUTE).await;
    assert_eq!(
        (silent.verdict, silent.reason),
        (Outcome::Inconclusive, Reason::NoData)
    );
    let idle = shop(&[
        baseline.clone(),
        Traffic::of("2", T0).requests(0.0).errors(0.0),
    ]);
    let idle = look(&gate, &idle, 5 * MINUTE).await;
    assert_eq!(
        (idle.verdict, idle.reason),
        (Outcome::Inconclusive, Reason::InsufficientData)
    );
    let alone = look(&gate, &shop(&[Traffic::of("2", T0)]), 5 * MINUTE).await;
    assert_eq!(
        (alone.verdict, alone.reason),
        (Outcome::Inconclusive, Reason::NoBaseline)
    );
    let broken = Shop {
        broken: true,
        ..Shop::default()
    };
    let broken = look(&gate, &broken, 5 * MINUTE).await;
    assert_eq!(
        (broken.verdict, broken.reason),
        (Outcome::Inconclusive, Reason::SourceError)
    );
    assert!(
        broken.message.contains("connection refused"),
        "{}",
        broken.message
    );
    let early = shop(&[baseline, Traffic::of("2", T0)]);
    let early = look(&gate, &early, 20_000).await;
    assert_eq!(
        (early.verdict, early.reason),
        (Outcome::Inconclusive, Reason::WarmingUp)
    );
}

#[tokio::test]
async fn untagged_telemetry_is_named_as_the_cause() {
    let shop = shop(&[Traffic::of("1", T0 - HOUR), Traffic::of("", T0)]);
    let verdict = look(&gate(ERRORS), &shop, 5 * MINUTE).await;
    assert_eq!(verdict.reason, Reason::NoData);
    assert!(
        verdict
            .message
            .contains("carry no version: set the resource attribute service.version"),
        "{}",
        verdict.message
    );
}

#[tokio::test]
async fn a_pass_waits_for_the_soak_and_the_deadline_decides_in_words() {
    let both = shop(&[
        Traffic::of("1", T0 - HOUR),
        Traffic::of("2", T0).requests(5000.0).errors(10.0),
    ]);
    let soaking = gate(ERRORS);
    let soaking = Arc::new(Gate {
        soak_ms: 10 * MINUTE,
        ..(*soaking).clone()
    });
    let verdict = look(&soaking, &both, 5 * MINUTE).await;
    assert_eq!(
        (verdict.verdict, verdict.reason),
        (Outcome::Inconclusive, Reason::Soaking)
    );
    // A request a second for half an hour shows nothing either way.
    let quiet = shop(&[
        Traffic::of("1", T0 - HOUR),
        Traffic::of("2", T0).requests(5.0).errors(0.01),
    ]);
    let mut gate = gate(ERRORS);
    for (choice, outcome, reason) in [
        (
            OnInconclusive::Hold,
            Outcome::Inconclusive,
            Reason::DeadlineReached,
        ),
        (OnInconclusive::Pass, Outcome::Pass, Reason::DeadlinePass),
        (OnInconclusive::Fail, Outcome::Fail, Reason::DeadlineFail),
    ] {
        Arc::make_mut(&mut gate).on_inconclusive = choice;
        let verdict = look(&gate, &quiet, 31 * MINUTE).await;
        assert_eq!((verdict.verdict, verdict.reason), (outcome, reason));
        assert!(verdict.is_final);
    }
}

/// Five minutes in, ten requests a second: too early to pass, and what to expect is said.
#[tokio::test]
async fn an_undecided_answer_says_how_long_it_takes_and_what_it_cannot_see() {
    let shop = shop(&[
        Traffic::of("1", T0 - HOUR),
        Traffic::of("2", T0).requests(50.0).errors(0.1),
    ]);
    let verdict = look(&gate(ERRORS), &shop, 5 * MINUTE).await;
    assert_eq!(verdict.reason, Reason::NotYetDecided, "{}", verdict.message);
    let evidence = &verdict.checks[0].evidence;
    let more = evidence.expected_seconds_to_pass.expect("an estimate");
    assert!(more > 60.0 && more < 25.0 * 60.0, "{more}");
    let rise = evidence.smallest_detectable.expect("an estimate");
    assert!(rise > 0.001 && rise < 0.02, "{rise}");
    for says in [
        "not decided after 5m, a pass can be expected in about ",
        "At 10 requests a second to the new version a pass takes about ",
        "Within 30m a rise of ",
    ] {
        assert!(verdict.message.contains(says), "{}", verdict.message);
    }
    // The estimate was not far off: a pass came by twice that time.
    let later_ms = 5 * MINUTE + 2 * (more * 1000.0) as i64;
    let later = look(&gate(ERRORS), &shop, later_ms.min(29 * MINUTE)).await;
    assert_eq!(later.verdict, Outcome::Pass, "{}", later.message);
    assert_eq!(later.checks[0].evidence.expected_seconds_to_pass, None);
}

/// A release that reports nothing must not go on because nothing was shown against it, nor be
/// rolled back for it.
#[tokio::test]
async fn silence_is_neither_good_nor_bad_even_at_the_deadline() {
    let before = Traffic::of("1", T0 - HOUR);
    let silent = shop(std::slice::from_ref(&before));
    let fell_silent = shop(&[
        before,
        Traffic::of("2", T0)
            .requests(5.0)
            .errors(0.01)
            .until(T0 + 20 * MINUTE),
    ]);
    let mut gate = gate(ERRORS);
    for choice in [
        OnInconclusive::Hold,
        OnInconclusive::Pass,
        OnInconclusive::Fail,
    ] {
        Arc::make_mut(&mut gate).on_inconclusive = choice;
        for (shop, reason) in [(&silent, Reason::NoData), (&fell_silent, Reason::Stale)] {
            let verdict = look(&gate, shop, 31 * MINUTE).await;
            assert_eq!(
                (verdict.verdict, verdict.reason, verdict.is_final),
                (Outcome::Inconclusive, reason, true),
                "{}",
                verdict.message
            );
            let says = "a candidate that sends nothing is neither good nor bad";
            assert!(verdict.message.contains(says), "{}", verdict.message);
        }
    }
}

/// Four minutes without a word in the middle of half an hour: what was shown before and after
/// decides, as if the gap had not been.
#[tokio::test]
async fn a_gap_that_ends_says_nothing_about_the_version() {
    let before = Traffic::of("1", T0 - HOUR);
    let gap = [T0 + 10 * MINUTE, T0 + 14 * MINUTE];
    for (errors, outcome) in [(10.0, Outcome::Pass), (100.0, Outcome::Fail)] {
        let part = |from_ms| Traffic::of("2", from_ms).requests(5000.0).errors(errors);
        let shop = shop(&[before.clone(), part(T0).until(gap[0]), part(gap[1])]);
        let within = look(&gate(ERRORS), &shop, 13 * MINUTE).await;
        let after = look(&gate(ERRORS), &shop, 25 * MINUTE).await;
        assert_eq!(after.verdict, outcome, "{}", after.message);
        assert_eq!(within.verdict, outcome, "{}", within.message);
    }
}

#[tokio::test]
async fn query_checks_take_exactly_one_number() {
    let gate = gate(
        "    - name: queue\n      query: 'max(queue_depth{service_version=\"$version\"})'\n      below: 1000\n",
    );
    let now_ms = T0 + 5 * MINUTE;
    let answer = |value: Option<QueryValue>| Shop {
        scalar: value,
        newest_ms: Some(now_ms),
        ..Shop::default()
    };
    let row = |value: f64| slogate_promql::InstantSample {
        labels: Labels::empty(),
        value: Value::Float(value),
    };
    for (value, outcome, reason) in [
        (
            QueryValue::Scalar(7.0),
            Outcome::Pass,
            Reason::WithinThreshold,
        ),
        (
            QueryValue::Vector(vec![row(7.0)]),
            Outcome::Pass,
            Reason::WithinThreshold,
        ),
        (
            QueryValue::Vector(vec![row(1000.0)]),
            Outcome::Fail,
            Reason::ThresholdCrossed,
        ),
        (
            QueryValue::Vector(vec![]),
            Outcome::Inconclusive,
            Reason::NoData,
        ),
        (
            QueryValue::Vector(vec![row(1.0), row(2.0)]),
            Outcome::Inconclusive,
            Reason::UnusableAnswer,
        ),
        (
            QueryValue::Scalar(f64::NAN),
            Outcome::Inconclusive,
            Reason::UnusableAnswer,
        ),
    ] {
        let verdict = look(&gate, &answer(Some(value)), 5 * MINUTE).await;
        let check = &verdict.checks[0];
        assert_eq!(
            (check.verdict, check.reason),
            (outcome, reason),
            "{}",
            check.message
        );
        assert_eq!(
            check.evidence.query.as_deref(),
            Some("max(queue_depth{service_version=\"2\"})")
        );
    }
}

#[tokio::test]
async fn old_data_decides_nothing() {
    let gate = gate(
        "    - name: queue\n      query: max(queue_depth)\n      below: 10\n      staleAfter: 1m\n",
    );
    for (age_ms, reason) in [(30_000, Reason::WithinThreshold), (90_000, Reason::Stale)] {
        let shop = Shop {
            scalar: Some(QueryValue::Scalar(1.0)),
            newest_ms: Some(T0 + 5 * MINUTE - age_ms),
            ..Shop::default()
        };
        let verdict = look(&gate, &shop, 5 * MINUTE).await;
        assert_eq!(
            verdict.checks[0].reason, reason,
            "{}",
            verdict.checks[0].message
        );
    }
}

#[tokio::test]
async fn coverage_is_a_share_of_what_was_received() {
    let gate = gate("    - name: tagged\n      coverage: { atLeast: 95% }\n");
    for (tagged, outcome) in [
        (Some((990.0, 10.0)), Outcome::Pass),
        (Some((900.0, 100.0)), Outcome::Fail),
        (Some((5.0, 5.0)), Outcome::Inconclusive),
        (None, Outcome::Inconclusive),
    ] {
        let verdict = look(
            &gate,
            &Shop {
                tagged,
                ..Shop::default()
            },
            5 * MINUTE,
        )
        .await;
        assert_eq!(
            verdict.checks[0].verdict, outcome,
            "{}",
            verdict.checks[0].message
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// I-JUDGE-1: the same inputs give the same verdict, and JSON keeps all of it.
    #[test]
    fn replaying_a_verdicts_inputs_gives_the_same_verdict(
        requests in 0.0f64..2_000.0, errors in 0.0f64..50.0, latency in 0.01f64..1.0,
        after_ms in 0i64..40 * MINUTE,
    ) {
        let candidate = Traffic::of("2", T0).requests(requests).errors(errors.min(requests));
        let shop = shop(&[Traffic::of("1", T0 - HOUR), candidate.latency(latency)]);
        let gate = gate(&format!("{ERRORS}{LATENCY}"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let first = runtime.block_on(look(&gate, &shop, after_ms));
        let again = runtime.block_on(look(&gate, &shop, after_ms));
        prop_assert_eq!(&first, &again);
        let json = serde_json::to_string(&first).unwrap();
        let back: Verdict = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&back, &first);
    }

    /// I-JUDGE-2: a fail that comparisons found stays found as time goes on.
    #[test]
    fn a_fail_is_not_taken_back(errors in 2.0f64..40.0, after_ms in 0i64..15 * MINUTE) {
        let shop = shop(&[Traffic::of("1", T0 - HOUR), Traffic::of("2", T0).errors(errors)]);
        let gate = gate(ERRORS);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let first = runtime.block_on(look(&gate, &shop, after_ms));
        let later = runtime.block_on(look(&gate, &shop, after_ms + 5 * MINUTE));
        prop_assert!(first.verdict != Outcome::Fail || later.verdict == Outcome::Fail,
            "{} then {}", first.message, later.message);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// I-JUDGE-3: who looked at every block knows what who looks once at the end knows.
    #[test]
    fn one_look_says_what_many_said(
        errors in 0.0f64..40.0, latency in 0.08f64..0.2, every_ms in 10_000i64..90_000,
        left_ms in 0i64..10 * MINUTE,
    ) {
        let stays = left_ms > 8 * MINUTE;
        let baseline = Traffic::of("1", T0 - HOUR);
        let baseline = if stays { baseline } else { baseline.until(T0 + left_ms) };
        let shop = shop(&[baseline, Traffic::of("2", T0).errors(errors).latency(latency)]);
        let gate = gate(&format!("{ERRORS}{LATENCY}"));
        let subject = Subject { deployment: deployment(Phase::Progressing), history: Vec::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut walking = Examination::new(gate.clone());
        let mut now_ms = T0;
        while now_ms < T0 + 8 * MINUTE {
            now_ms += every_ms;
            let observed = runtime.block_on(Observed::gather(&gate, &subject, &shop, now_ms));
            let many = walking.look(&subject, &observed, shop.mapping(), now_ms);
            let mut fresh = Examination::new(gate.clone());
            let once = fresh.look(&subject, &observed, shop.mapping(), now_ms);
            prop_assert_eq!(many, once);
        }
    }
}
