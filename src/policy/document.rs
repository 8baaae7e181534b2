//! A gate as the document it came from, with every default written out.
//!
//! It is the JSON that the API shows, and, with the checks in order of name and the queries in
//! one notation, the canonical form whose SHA-256 is the gate's hash. JSON is YAML: the parser
//! reads the document back to an equal gate.

use std::collections::BTreeMap;

use serde::Serialize;
use slogate_stats::kayenta::{MetricConfig, Outliers};

use crate::policy::parse::API_VERSION;
use crate::policy::value::format_duration;
use crate::policy::{
    Check, CheckSpec, CompareCheck, CompareSli, Gate, Horizon, KayentaCheck, KayentaMetric, Margin,
    QueryCheck, SeriesCheck, SeriesMethod, Signal, Template, ThresholdOp, Word, promql,
};

/// Field order is part of the canonical form: changing it changes every hash.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document<'g> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'g>,
    spec: Spec<'g>,
}

#[derive(Serialize)]
struct Metadata<'g> {
    name: &'g str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'g> {
    #[serde(rename = "match")]
    matches: Selector<'g>,
    warm_up: String,
    soak: String,
    decide_within: String,
    on_inconclusive: &'static str,
    false_alarms: f64,
    false_passes: f64,
    checks: Vec<CheckDocument<'g>>,
}

#[derive(Serialize)]
struct Selector<'g> {
    service: &'g str,
    environment: &'g str,
}

#[derive(Serialize)]
struct CheckDocument<'g> {
    name: &'g str,
    critical: bool,
    required: bool,
    weight: f64,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Kind {
    Query(Query),
    Compare { compare: Compare },
    Series { compare: Series },
    Kayenta { kayenta: Kayenta },
    Coverage { coverage: Coverage },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Query {
    query: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    below: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    above: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_least: Option<f64>,
    stale_after: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Compare {
    sli: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantile: Option<f64>,
    worse_by: MarginDocument,
    pass_within: MarginDocument,
    min_events: u64,
    span_kind: &'static str,
    against: &'static str,
}

#[derive(Serialize)]
struct MarginDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    absolute: Option<Absolute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relative: Option<f64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    query: String,
    method: &'static str,
    direction: &'static str,
    step: String,
    worse_by: MarginDocument,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass_within: Option<MarginDocument>,
    #[serde(flatten)]
    horizon: HorizonDocument,
    against: &'static str,
}

#[derive(Serialize)]
struct HorizonDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    every: Option<String>,
}

#[derive(Serialize)]
struct Kayenta {
    config: KayentaConfig,
    pass: f64,
    marginal: f64,
    step: String,
    #[serde(flatten)]
    horizon: HorizonDocument,
    against: &'static str,
}

/// A canary config as Kayenta writes it, but for the queries.
#[derive(Serialize)]
struct KayentaConfig {
    metrics: Vec<KayentaMetricDocument>,
    classifier: Classifier,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Classifier {
    group_weights: BTreeMap<String, f64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KayentaMetricDocument {
    name: String,
    query: KayentaQuery,
    groups: Vec<String>,
    analysis_configurations: Analysis,
}

#[derive(Serialize)]
struct KayentaQuery {
    #[serde(rename = "type")]
    kind: &'static str,
    expr: String,
}

#[derive(Serialize)]
struct Analysis {
    canary: Canary,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Canary {
    direction: &'static str,
    nan_strategy: &'static str,
    critical: bool,
    must_have_data: bool,
    muted: bool,
    effect_size: Effect,
    outliers: OutliersDocument,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Effect {
    measure: &'static str,
    allowed_increase: f64,
    allowed_decrease: f64,
    critical_increase: f64,
    critical_decrease: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutliersDocument {
    strategy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outlier_factor: Option<f64>,
}

/// A share for ratios, a duration for durations, a number for queries.
#[derive(Serialize)]
#[serde(untagged)]
enum Absolute {
    Share(f64),
    Duration(String),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Coverage {
    at_least: f64,
    signals: Vec<&'static str>,
}

impl<'g> Document<'g> {
    /// The document of `gate`, as its author ordered and spelt it.
    pub(super) fn of(gate: &'g Gate) -> Self {
        Document::with(
            gate,
            gate.checks
                .iter()
                .map(|check| of_check(check, false))
                .collect(),
        )
    }

    fn canonical(gate: &'g Gate) -> Self {
        let mut checks: Vec<_> = gate
            .checks
            .iter()
            .map(|check| of_check(check, true))
            .collect();
        checks.sort_unstable_by_key(|check| check.name);
        Document::with(gate, checks)
    }

    fn with(gate: &'g Gate, checks: Vec<CheckDocument<'g>>) -> Self {
        Document {
            api_version: API_VERSION,
            kind: "Gate",
            metadata: Metadata { name: &gate.name },
            spec: Spec {
                matches: Selector {
                    service: gate.matches.service.as_str(),
                    environment: gate.matches.environment.as_str(),
                },
                warm_up: format_duration(gate.warm_up_ms),
                soak: format_duration(gate.soak_ms),
                decide_within: format_duration(gate.decide_within_ms),
                on_inconclusive: gate.on_inconclusive.word(),
                false_alarms: gate.false_alarms,
                false_passes: gate.false_passes,
                checks,
            },
        }
    }
}

/// SHA-256 of the canonical form of `gate` in lower-case hex.
pub(super) fn hash(gate: &Gate) -> String {
    // Structs with string keys and finite numbers always serialise.
    let text = serde_json::to_vec(&Document::canonical(gate)).unwrap_or_default();
    let digest = ring::digest::digest(&ring::digest::SHA256, &text);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn of_check(check: &Check, canonical: bool) -> CheckDocument<'_> {
    CheckDocument {
        name: &check.name,
        critical: check.critical,
        required: check.required,
        weight: check.weight,
        kind: match &check.spec {
            CheckSpec::Query(query) => Kind::Query(of_query(query, canonical)),
            CheckSpec::Compare(compare) => Kind::Compare {
                compare: of_compare(compare),
            },
            CheckSpec::Series(series) => Kind::Series {
                compare: of_series(series, canonical),
            },
            CheckSpec::Kayenta(kayenta) => Kind::Kayenta {
                kayenta: of_kayenta(kayenta, canonical),
            },
            CheckSpec::Coverage(coverage) => Kind::Coverage {
                coverage: Coverage {
                    at_least: coverage.at_least,
                    signals: coverage.signals.iter().copied().map(Signal::word).collect(),
                },
            },
        },
    }
}

fn of_expr(expr: &Template, canonical: bool) -> String {
    match canonical {
        true => promql::canonical(expr),
        false => expr.source().to_owned(),
    }
}

fn of_horizon(horizon: Horizon) -> HorizonDocument {
    HorizonDocument {
        after: horizon.after_ms.map(format_duration),
        every: horizon.every_ms.map(format_duration),
    }
}

fn of_series(series: &SeriesCheck, canonical: bool) -> Series {
    let margin = |margin: Margin| MarginDocument {
        absolute: margin.absolute.map(Absolute::Share),
        relative: margin.relative,
    };
    let certifies = series.method != SeriesMethod::Kayenta;
    Series {
        query: of_expr(&series.expr, canonical),
        method: series.method.word(),
        direction: series.direction.word(),
        step: format_duration(series.step_ms),
        worse_by: margin(series.worse_by),
        pass_within: certifies.then(|| margin(series.pass_within)),
        horizon: of_horizon(series.horizon),
        against: series.against.word(),
    }
}

fn of_kayenta(check: &KayentaCheck, canonical: bool) -> Kayenta {
    let metric = |metric: &KayentaMetric| KayentaMetricDocument {
        name: metric.name.clone(),
        query: KayentaQuery {
            kind: "promql",
            expr: of_expr(&metric.expr, canonical),
        },
        groups: metric.groups.clone(),
        analysis_configurations: Analysis {
            canary: of_canary(&metric.config),
        },
    };
    Kayenta {
        config: KayentaConfig {
            metrics: check.metrics.iter().map(metric).collect(),
            classifier: Classifier {
                group_weights: check.group_weights.clone(),
            },
        },
        pass: check.thresholds.pass,
        marginal: check.thresholds.marginal,
        step: format_duration(check.step_ms),
        horizon: of_horizon(check.horizon),
        against: check.against.word(),
    }
}

fn of_canary(config: &MetricConfig) -> Canary {
    let effect = &config.effect;
    Canary {
        direction: config.direction.word(),
        nan_strategy: config.nan_strategy.word(),
        critical: config.critical,
        must_have_data: config.must_have_data,
        muted: config.muted,
        effect_size: Effect {
            measure: effect.measure.word(),
            allowed_increase: effect.allowed_increase,
            allowed_decrease: effect.allowed_decrease,
            critical_increase: effect.critical_increase,
            critical_decrease: effect.critical_decrease,
        },
        outliers: match config.outliers {
            Outliers::Keep => OutliersDocument {
                strategy: "keep",
                outlier_factor: None,
            },
            Outliers::Remove { factor } => OutliersDocument {
                strategy: "remove",
                outlier_factor: Some(factor),
            },
        },
    }
}

fn of_query(query: &QueryCheck, canonical: bool) -> Query {
    let limit = |op| (query.threshold.op == op).then_some(query.threshold.value);
    Query {
        query: of_expr(&query.expr, canonical),
        below: limit(ThresholdOp::Below),
        at_most: limit(ThresholdOp::AtMost),
        above: limit(ThresholdOp::Above),
        at_least: limit(ThresholdOp::AtLeast),
        stale_after: format_duration(query.stale_after_ms),
    }
}

fn of_compare(compare: &CompareCheck) -> Compare {
    let (sli, quantile) = match compare.sli {
        CompareSli::ErrorRatio => ("requests.errorRatio", None),
        CompareSli::Duration { quantile } => ("requests.duration", quantile),
    };
    Compare {
        sli,
        quantile,
        worse_by: of_margin(compare.worse_by, compare.sli),
        pass_within: of_margin(compare.pass_within, compare.sli),
        min_events: compare.min_events,
        span_kind: compare.span_kind.word(),
        against: compare.against.word(),
    }
}

fn of_margin(margin: Margin, sli: CompareSli) -> MarginDocument {
    let absolute = |part: f64| match sli {
        CompareSli::ErrorRatio => Absolute::Share(part),
        CompareSli::Duration { .. } => {
            Absolute::Duration(format_duration((part * 1000.0).round() as i64))
        }
    };
    MarginDocument {
        absolute: margin.absolute.map(absolute),
        relative: margin.relative,
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::{Gate, parse};

    fn gate(text: &str) -> Gate {
        let gates = parse("a.yaml", text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        gates.into_iter().next().unwrap()
    }

    const ONE: &str = r#"
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: canary }
spec:
  decideWithin: 60m
  falseAlarms: 1%
  checks:
    - name: errors
      compare: { sli: requests.errorRatio, worseBy: { absolute: 0.1%, relative: 25% } }
    - name: queue
      query: max(queue_depth{service_version="$version"})
      below: 1000
    - name: tagged
      coverage: { atLeast: 95%, signals: [logs, traces] }
"#;

    /// Two replicas, or a replica and a laptop, must agree on which policy gave a verdict.
    #[test]
    fn the_same_meaning_has_the_same_hash() {
        let other = r#"
# The same gate, by another hand.
{"kind": "Gate", "apiVersion": "slogate.dev/v1", "metadata": {"name": "canary"}, "spec": {
  "warmUp": "120s", "decideWithin": "1h", "onInconclusive": "hold", "falsePasses": 0.05,
  "match": {"service": "**"}, "checks": [
    {"coverage": {"signals": ["traces", "logs", "traces"], "atLeast": 0.95}, "name": "tagged"},
    {"name": "queue", "below": 1e3, "staleAfter": "300s",
     "query": " max(queue_depth{service_version=\"$version\"}) ", "required": true},
    {"name": "errors", "weight": 1,
     "compare": {"sli": "requests.errorRatio", "worseBy": {"relative": 0.25, "absolute": 0.001},
                 "passWithin": {"relative": 0.25, "absolute": 0.001},
                 "spanKind": "server", "against": "auto", "minEvents": 50}}]}}
"#;
        assert_eq!(gate(ONE).hash, gate(other).hash);
        assert_eq!(gate(ONE).hash.len(), 64);
    }

    #[test]
    fn another_meaning_has_another_hash() {
        let changes = [
            ("name: canary", "name: canary2"),
            ("60m", "61m"),
            ("falseAlarms: 1%", "falseAlarms: 2%"),
            ("absolute: 0.1%", "absolute: 0.2%"),
            (
                "relative: 25% }",
                "relative: 25% }, passWithin: { absolute: 0.2%, relative: 25% }",
            ),
            ("below: 1000", "atMost: 1000"),
            ("$version", "$baseline"),
            ("[logs, traces]", "[logs]"),
            ("name: tagged", "name: tagged\n      critical: false"),
        ];
        let mut hashes = vec![gate(ONE).hash];
        for (from, to) in changes {
            hashes.push(gate(&ONE.replace(from, to)).hash);
        }
        let count = hashes.len();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }
}
