//! Queries of an author's own and canary configs, against made-up gauges.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use slogate_promql::QueryValue;
use slogate_series::{Labels, Sample, Series, Value};

use crate::judge::tests::{deployment, subject_of};
use crate::judge::{Subject, judge};
use crate::model::{BaselineKind, CheckResult, Outcome, Phase, Reason};
use crate::policy::Gate;
use crate::source::{Answer, MetricSource, SourceError};

const T0: i64 = 1_795_190_400_000;
const MINUTE: i64 = 60_000;

/// A gauge that wobbles around a level which changes when the deployment begins.
#[derive(Clone, Copy)]
struct Level {
    before: Option<f64>,
    after: Option<f64>,
}

/// Version 1 is the baseline, 2 the candidate.
struct Gauges {
    one: Level,
    two: Level,
    pods: &'static [&'static str],
    fails: bool,
}

const STEADY: Level = Level {
    before: Some(100.0),
    after: Some(100.0),
};

fn gauges(one: Level, candidate: Option<f64>) -> Gauges {
    Gauges {
        one,
        two: Level {
            before: None,
            after: candidate,
        },
        pods: &[""],
        fails: false,
    }
}

/// Between -1 and 1, the same for the same time, and without a pattern.
fn wobble(seed: i64) -> f64 {
    let mixed = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed >> 11) as f64 / (1_u64 << 53) as f64).mul_add(2.0, -1.0)
}

impl MetricSource for Gauges {
    fn query<'a>(
        &'a self,
        expr: &'a str,
        at_ms: i64,
    ) -> BoxFuture<'a, Result<Answer, SourceError>> {
        let answer = self.answer(expr, at_ms);
        Box::pin(async move { answer })
    }

    fn name(&self) -> &str {
        "the gauges"
    }
}

impl Gauges {
    fn answer(&self, expr: &str, at_ms: i64) -> Result<Answer, SourceError> {
        if self.fails {
            return Err(SourceError::Unavailable {
                origin: "the gauges".to_owned(),
                message: "connection refused".to_owned(),
            });
        }
        let range = expr.rsplit_once('[').unwrap().1;
        let (window, step) = range.split_once("ms:").unwrap();
        let step: i64 = step.strip_suffix("ms]").unwrap().parse().unwrap();
        let window: i64 = window.parse().unwrap();
        let (level, salt) = match expr.contains("\"2\"") {
            true => (self.two, 1),
            false => (self.one, 2),
        };
        let series = self.pods.iter().zip(0_i64..).map(|(pod, nth)| {
            let first = (at_ms - window).div_euclid(step) + 1;
            let times = (first..=at_ms.div_euclid(step)).map(|k| k * step);
            let samples = times.filter_map(|t_ms| {
                let level = if t_ms <= T0 {
                    level.before
                } else {
                    level.after
                }?;
                let value = level + wobble(t_ms / 1000 + 7 * salt + 13 * nth);
                Some(Sample {
                    t_ms,
                    start_ms: t_ms,
                    value: Value::Float(value),
                })
            });
            let labels: &[(&str, &str)] = if pod.is_empty() { &[] } else { &[("pod", pod)] };
            Series {
                labels: Labels::from_pairs(labels.iter().copied()),
                samples: samples.collect(),
            }
        });
        let series = series.filter(|one| !one.samples.is_empty());
        Ok(Answer {
            value: QueryValue::Matrix(series.collect()),
            warnings: Vec::new(),
        })
    }
}

fn gate(check: &str) -> Arc<Gate> {
    let text = format!(
        "apiVersion: slogate.dev/v1\nkind: Gate\nmetadata: {{ name: canary }}\nspec:\n  \
         warmUp: 1m\n  soak: 1m\n  decideWithin: 30m\n  checks:\n    - name: memory\n      {check}\n"
    );
    let gates = crate::policy::parse("test.yaml", &text).unwrap_or_else(|e| panic!("{e}"));
    Arc::new(gates.into_iter().next().unwrap())
}

fn compare(more: &str) -> Arc<Gate> {
    gate(&format!(
        "compare: {{ query: 'sum(memory{{v=\"$version\"}})', {more} }}"
    ))
}

async fn look(gate: &Arc<Gate>, gauges: &Gauges, after_ms: i64) -> CheckResult {
    let subject: Subject = subject_of(deployment(Phase::Progressing));
    let verdict = judge(gate, &subject, gauges, T0 + after_ms).await;
    verdict.checks.into_iter().next().unwrap()
}

fn same(level: f64) -> Gauges {
    gauges(STEADY, Some(level))
}

#[tokio::test]
async fn a_series_passes_or_fails_early_and_says_why() {
    let gate = compare("worseBy: { relative: 10% }, passWithin: { relative: 25% }");
    let good = look(&gate, &same(100.0), 15 * MINUTE).await;
    assert_eq!(good.verdict, Outcome::Pass, "{}", good.message);
    let bad = look(&gate, &same(130.0), 15 * MINUTE).await;
    assert_eq!(
        (bad.verdict, bad.reason),
        (Outcome::Fail, Reason::WorseThanBaseline)
    );
    assert!(
        bad.message.starts_with("memory: 130 against 100"),
        "{}",
        bad.message
    );
    let evidence = &bad.evidence;
    assert!(evidence.log_e_worse.unwrap() >= evidence.log_e_fail_at.unwrap());
    assert_eq!(
        evidence.baseline.as_ref().unwrap().kind,
        BaselineKind::Concurrent
    );
    assert!((evidence.ratio.unwrap() - 1.3).abs() < 0.02);
    let between = look(&gate, &same(118.0), 2 * MINUTE).await;
    assert_eq!(between.reason, Reason::NotYetDecided, "{}", between.message);
}

#[tokio::test]
async fn less_or_any_change_can_be_worse() {
    let decrease = compare("direction: decrease");
    let fewer = look(&decrease, &same(60.0), 20 * MINUTE).await;
    assert_eq!(fewer.verdict, Outcome::Fail, "{}", fewer.message);
    let more = look(&decrease, &same(200.0), 20 * MINUTE).await;
    assert_eq!(more.verdict, Outcome::Pass, "{}", more.message);
    let either = compare("direction: either");
    for (level, expected) in [
        (60.0, Outcome::Fail),
        (200.0, Outcome::Fail),
        (100.0, Outcome::Pass),
    ] {
        let found = look(&either, &same(level), 25 * MINUTE).await;
        assert_eq!(found.verdict, expected, "{}", found.message);
    }
}

/// A version that replaced the other at once has nobody beside it.
#[tokio::test]
async fn the_baselines_own_past_stands_in_and_is_marked() {
    let gone = Level {
        before: Some(100.0),
        after: None,
    };
    let gate = compare("worseBy: { relative: 10% }");
    let found = look(&gate, &gauges(gone, Some(150.0)), 20 * MINUTE).await;
    assert_eq!(found.verdict, Outcome::Fail, "{}", found.message);
    let evidence = &found.evidence;
    assert_eq!(
        evidence.baseline.as_ref().unwrap().kind,
        BaselineKind::Historical
    );
    assert!(
        evidence.warnings[0].contains("weaker evidence"),
        "{evidence:?}"
    );
    let only_beside = compare("against: concurrent");
    let found = look(&only_beside, &gauges(gone, Some(100.0)), 20 * MINUTE).await;
    assert_eq!(
        (found.verdict, found.reason),
        (Outcome::Inconclusive, Reason::NoBaseline)
    );
}

#[tokio::test]
async fn what_cannot_be_compared_is_inconclusive() {
    let gate = compare("worseBy: { relative: 10% }");
    let reason = async |gauges: &Gauges, after: i64| {
        let found = look(&gate, gauges, after).await;
        assert_eq!(found.verdict, Outcome::Inconclusive);
        found.reason
    };
    assert_eq!(
        reason(&gauges(STEADY, None), 20 * MINUTE).await,
        Reason::NoData
    );
    assert_eq!(reason(&same(100.0), MINUTE / 2).await, Reason::WarmingUp);
    let broken = Gauges {
        fails: true,
        ..same(100.0)
    };
    assert_eq!(reason(&broken, 20 * MINUTE).await, Reason::SourceError);
    let several = Gauges {
        pods: &["a", "b"],
        ..same(100.0)
    };
    assert_eq!(reason(&several, 20 * MINUTE).await, Reason::UnusableAnswer);
}

#[tokio::test]
async fn tests_at_a_fixed_horizon_wait_for_it() {
    for method in ["mannWhitney", "blockPermutation", "kayenta"] {
        let gate = compare(&format!(
            "method: {method}, after: 20m, step: 15s, worseBy: {{ relative: 10% }}"
        ));
        let early = look(&gate, &same(150.0), 19 * MINUTE).await;
        assert_eq!(early.reason, Reason::NotYetDecided, "{}", early.message);
        assert!(
            early.message.contains("judged once, after 20m"),
            "{}",
            early.message
        );
        for (level, expected) in [(150.0, Outcome::Fail), (100.0, Outcome::Pass)] {
            let found = look(&gate, &same(level), 25 * MINUTE).await;
            assert_eq!(found.verdict, expected, "{}", found.message);
        }
    }
    let repeated = compare("method: kayenta, every: 5m");
    let found = look(&repeated, &same(150.0), 6 * MINUTE).await;
    assert_eq!(found.verdict, Outcome::Fail, "{}", found.message);
    assert!(
        found
            .evidence
            .warnings
            .iter()
            .any(|w| w.contains("again and again"))
    );
}

const CONFIG: &str = r#"kayenta:
        config:
          metrics:
            - name: memory
              query: { type: prometheus, customInlineTemplate: 'PromQL:sum(memory{v="${scope}"}) by (pod)' }
              groups: [saturation]
              analysisConfigurations: { canary: { direction: increase DATA } }
          classifier: { groupWeights: { saturation: 100 } }
        after: 20m
        step: 15s"#;

#[tokio::test]
async fn a_canary_config_is_judged_as_kayenta_does() {
    let gate = gate(&CONFIG.replace(" DATA", ""));
    let early = look(&gate, &same(150.0), 19 * MINUTE).await;
    assert_eq!(early.reason, Reason::NotYetDecided, "{}", early.message);
    let good = look(&gate, &same(100.0), 20 * MINUTE).await;
    assert_eq!(good.verdict, Outcome::Pass, "{}", good.message);
    assert_eq!(good.evidence.value, Some(100.0));
    let bad = look(&gate, &same(150.0), 20 * MINUTE).await;
    assert_eq!(
        (bad.verdict, bad.evidence.value),
        (Outcome::Fail, Some(0.0))
    );
    assert!(
        bad.message.contains("memory is High, mean ratio 1.5"),
        "{}",
        bad.message
    );
    let pods = Gauges {
        pods: &["a", "b"],
        ..same(150.0)
    };
    let each = look(&gate, &pods, 20 * MINUTE).await;
    assert!(
        each.message.contains("memory (pod=b) is High"),
        "{}",
        each.message
    );
}

/// No data at all passes where NaN is replaced; only under this name, and not in silence.
#[tokio::test]
async fn kayentas_passes_without_evidence_are_flagged() {
    let replaced = gate(&CONFIG.replace(" DATA", ", nanStrategy: replace"));
    let open = look(&replaced, &gauges(STEADY, None), 20 * MINUTE).await;
    assert_eq!(open.verdict, Outcome::Pass, "{}", open.message);
    assert!(
        open.evidence
            .warnings
            .iter()
            .any(|w| w.contains("without evidence"))
    );
    let removed = gate(&CONFIG.replace(" DATA", ""));
    let missing = look(&removed, &gauges(STEADY, None), 20 * MINUTE).await;
    assert_eq!(missing.verdict, Outcome::Fail, "{}", missing.message);
    assert!(
        missing.message.contains("half of the metrics"),
        "{}",
        missing.message
    );
}
