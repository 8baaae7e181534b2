//! What the gates say, and what each check rests on.
//!
//! The series say what the gate would answer at that moment: an answer that is too old to act on
//! is inconclusive here, too. Evidence is from the newest look, which may be newer than the answer
//! in the ledger.

use super::families;
use super::sample::{Sample, seconds};
use crate::judge::GateAnswer;
use crate::model::{ArmCounts, CheckKind, CheckResult, Deployment, Outcome, Verdict, time};
use crate::policy::{CheckSpec, CompareCheck, CompareSli, Gate};

/// What a gate can say, as the label has it.
const VERDICTS: [&str; 4] = ["pass", "fail", "inconclusive", "pending"];

/// What a check can answer, as the label has it.
const ANSWERS: [&str; 3] = [
    Outcome::Pass.as_str(),
    Outcome::Fail.as_str(),
    Outcome::Inconclusive.as_str(),
];

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// The series of a gate's answer about a deployment; `newest` is the look behind it.
pub(super) fn samples(
    gate: &Gate,
    deployment: &Deployment,
    answer: &GateAnswer,
    newest: Option<&Verdict>,
) -> Vec<Sample> {
    let mut labels: Labels<'_> = vec![("gate", gate.name.as_str())];
    labels.extend(super::sample::identity(deployment));
    let mut samples = Sample::states(
        &families::VERDICT,
        &labels,
        "verdict",
        &VERDICTS,
        answer.verdict,
    );
    let mut said = labels.clone();
    said.push(("verdict", answer.verdict));
    if newest.is_some()
        && let Some(since_ms) = time::from_rfc3339(&answer.since)
    {
        let since = Sample::new(&families::VERDICT_SINCE, &said, seconds(since_ms));
        samples.push(since);
    }
    let is_final = if answer.is_final { "true" } else { "false" };
    said.extend([("reason", answer.reason), ("final", is_final)]);
    samples.push(Sample::new(&families::VERDICT_INFO, &said, 1.0));
    for result in newest.into_iter().flat_map(|verdict| &verdict.checks) {
        // A limit is told only of the policy that the verdict was given by.
        let is_in_force = newest.is_some_and(|verdict| verdict.policy_hash == gate.hash);
        let check = gate.checks.iter().find(|check| check.name == result.name);
        let spec = check.filter(|_| is_in_force).map(|check| &check.spec);
        samples.extend(of_check(&labels, result, spec));
    }
    samples
}

fn of_check(labels: &Labels<'_>, result: &CheckResult, spec: Option<&CheckSpec>) -> Vec<Sample> {
    let mut labels = labels.clone();
    labels.push(("check", result.name.as_str()));
    let answer = result.verdict.as_str();
    let mut samples = Sample::states(&families::CHECK, &labels, "answer", &ANSWERS, answer);
    let word = |is: bool| if is { "true" } else { "false" };
    let mut info = labels.clone();
    info.extend([
        ("kind", kind(result, spec)),
        ("answer", answer),
        ("reason", result.reason.as_str()),
        ("critical", word(result.critical)),
        ("required", word(result.required)),
    ]);
    samples.push(Sample::new(&families::CHECK_INFO, &info, 1.0));
    let unit = unit(result, spec);
    let mut add = |family, of: &'static str, more: Option<(&'static str, &str)>, value| {
        let mut labels = labels.clone();
        labels.push(("of", of));
        labels.extend(more);
        let value: Option<f64> = value;
        samples.extend(value.map(|value| Sample::new(family, &labels, value)));
    };
    let values = values(result, spec);
    for (of, value) in ["candidate", "baseline", "limit"].into_iter().zip(values) {
        add(&families::CHECK_VALUE, of, Some(("unit", unit)), value);
    }
    let evidence = &result.evidence;
    let total = |counts: &Option<ArmCounts>| counts.as_ref().map(|counts| counts.total);
    let (mine, theirs) = (&evidence.candidate_counts, &evidence.baseline_counts);
    let interval = evidence.ratio_interval.as_ref();
    let (low, high) = (
        interval.and_then(|interval| interval.low),
        interval.and_then(|interval| interval.high),
    );
    for (family, of, value) in [
        (&families::CHECK_REQUESTS, "candidate", total(mine)),
        (&families::CHECK_REQUESTS, "baseline", total(theirs)),
        (&families::CHECK_RATIO, "estimate", evidence.ratio),
        (&families::CHECK_RATIO, "low", low),
        (&families::CHECK_RATIO, "high", high),
        (&families::CHECK_EVIDENCE, "worse", evidence.log_e_worse),
        (
            &families::CHECK_EVIDENCE,
            "not_worse",
            evidence.log_e_not_worse,
        ),
        (&families::CHECK_EVIDENCE, "fail_at", evidence.log_e_fail_at),
        (&families::CHECK_EVIDENCE, "pass_at", evidence.log_e_pass_at),
    ] {
        add(family, of, None, value);
    }
    samples
}

fn kind(result: &CheckResult, spec: Option<&CheckSpec>) -> &'static str {
    match (result.kind, spec) {
        (CheckKind::Query, _) => "query",
        (CheckKind::Coverage, _) => "coverage",
        (CheckKind::Compare, Some(CheckSpec::Compare(compare))) => match compare.sli {
            CompareSli::ErrorRatio => "error_ratio",
            CompareSli::Duration { .. } => "duration",
        },
        (CheckKind::Compare, _) => "compare",
    }
}

fn unit(result: &CheckResult, spec: Option<&CheckSpec>) -> &'static str {
    match kind(result, spec) {
        "error_ratio" | "coverage" => "ratio",
        "duration" => "seconds",
        // Told by what was measured where the policy is no longer the one in force.
        "compare" if quantile(&result.evidence.candidate_counts).is_some() => "seconds",
        "compare" => "ratio",
        _ => "",
    }
}

fn quantile(counts: &Option<ArmCounts>) -> Option<f64> {
    counts.as_ref().and_then(|counts| counts.quantile)
}

/// Of the candidate, of the baseline, and the limit.
fn values(result: &CheckResult, spec: Option<&CheckSpec>) -> [Option<f64>; 3] {
    let evidence = &result.evidence;
    match spec {
        Some(CheckSpec::Query(query)) => [evidence.value, None, Some(query.threshold.value)],
        Some(CheckSpec::Coverage(coverage)) => [evidence.value, None, Some(coverage.at_least)],
        Some(CheckSpec::Compare(compare)) => {
            let (mine, theirs) = sides(result);
            [mine, theirs, theirs.map(|theirs| limit(compare, theirs))]
        }
        Some(CheckSpec::Kayenta(config)) => [evidence.value, None, Some(config.thresholds.pass)],
        Some(CheckSpec::Series(_)) | None => {
            let (mine, theirs) = sides(result);
            [evidence.value.or(mine), theirs, None]
        }
    }
}

/// The quantiles where the check is about them, else the rates.
fn sides(result: &CheckResult) -> (Option<f64>, Option<f64>) {
    let (mine, theirs) = (
        &result.evidence.candidate_counts,
        &result.evidence.baseline_counts,
    );
    if quantile(mine).or(quantile(theirs)).is_some() {
        return (quantile(mine), quantile(theirs));
    }
    let rate = |counts: &Option<ArmCounts>| counts.as_ref().and_then(|counts| counts.rate);
    (rate(mine), rate(theirs))
}

/// The most that the candidate may have, as [`crate::policy::Margin`] says.
fn limit(compare: &CompareCheck, baseline: f64) -> f64 {
    let margin = compare.worse_by;
    baseline * (1.0 + margin.relative.unwrap_or(0.0)) + margin.absolute.unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Evidence, Interval, Phase, Reason};
    use crate::status::testing::deployment;

    const GATE: &str = "apiVersion: slogate.dev/v1\nkind: Gate\nmetadata: { name: g }\nspec:\n  checks:\n    \
        - { name: errors, compare: { sli: requests.errorRatio, worseBy: { absolute: 1%, relative: 50% } } }\n    \
        - { name: latency, compare: { sli: requests.duration, quantile: 0.95, worseBy: { relative: 10% } } }\n    \
        - { name: queue, query: max(queue_depth), below: 1000 }\n";

    fn spec(name: &str) -> CheckSpec {
        let gates = crate::policy::parse("gate.yaml", GATE).unwrap();
        let check = gates[0].checks.iter().find(|check| check.name == name);
        check.unwrap().spec.clone()
    }

    fn result(name: &str, kind: CheckKind, evidence: Evidence) -> CheckResult {
        CheckResult {
            name: name.to_owned(),
            kind,
            critical: true,
            required: true,
            verdict: Outcome::Fail,
            reason: Reason::WorseThanBaseline,
            message: String::new(),
            evidence,
        }
    }

    fn arm(total: f64, bad: f64, quantile: Option<f64>) -> Option<ArmCounts> {
        Some(ArmCounts {
            total,
            bad,
            rate: Some(bad / total),
            quantile,
        })
    }

    fn text(result: &CheckResult, name: &str) -> String {
        let deployment = deployment("2", Phase::Progressing);
        let labels = vec![("deployment", deployment.id.0.as_str())];
        let samples = of_check(&labels, result, Some(&spec(name)));
        let lines = samples
            .iter()
            .map(|s| format!("{} {}\n", s.labels, s.value));
        lines.collect()
    }

    fn assert_lines(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn an_error_check_shows_both_sides_the_limit_and_the_evidence() {
        let evidence = Evidence {
            candidate_counts: arm(1_000.0, 50.0, None),
            baseline_counts: arm(2_000.0, 40.0, None),
            ratio: Some(2.5),
            ratio_interval: Some(Interval {
                low: Some(1.5),
                high: None,
                confidence: 0.99,
            }),
            log_e_worse: Some(7.0),
            log_e_fail_at: Some(4.6),
            ..Evidence::default()
        };
        let text = text(&result("errors", CheckKind::Compare, evidence), "errors");
        assert_lines(
            &text,
            &[
                r#"slogate_check{answer="fail", check="errors", deployment="d-2"} 1"#,
                r#"slogate_check{answer="pass", check="errors", deployment="d-2"} 0"#,
                r#"slogate_check_info{answer="fail", check="errors", critical="true", deployment="d-2", kind="error_ratio", reason="worse_than_baseline", required="true"} 1"#,
                r#"slogate_check_value{check="errors", deployment="d-2", of="candidate", unit="ratio"} 0.05"#,
                r#"slogate_check_value{check="errors", deployment="d-2", of="baseline", unit="ratio"} 0.02"#,
                r#"slogate_check_value{check="errors", deployment="d-2", of="limit", unit="ratio"} 0.04"#,
                r#"slogate_check_requests{check="errors", deployment="d-2", of="baseline"} 2000"#,
                r#"slogate_check_comparison_ratio{check="errors", deployment="d-2", of="low"} 1.5"#,
                r#"slogate_check_evidence{check="errors", deployment="d-2", of="worse"} 7"#,
            ],
        );
        assert!(
            !text.contains("of=\"high\""),
            "unbounded is no number:\n{text}"
        );
    }

    #[test]
    fn a_latency_check_is_in_seconds_and_a_query_has_its_threshold() {
        let evidence = Evidence {
            candidate_counts: arm(1_000.0, 50.0, Some(0.5)),
            baseline_counts: arm(2_000.0, 100.0, Some(0.25)),
            ..Evidence::default()
        };
        let latency = text(&result("latency", CheckKind::Compare, evidence), "latency");
        assert_lines(
            &latency,
            &[
                r#"of="candidate", unit="seconds"} 0.5"#,
                r#"of="limit", unit="seconds"} 0.275"#,
            ],
        );
        let evidence = Evidence {
            value: Some(12.0),
            ..Evidence::default()
        };
        let query = text(&result("queue", CheckKind::Query, evidence), "queue");
        assert_lines(
            &query,
            &[
                r#"slogate_check_value{check="queue", deployment="d-2", of="candidate"} 12"#,
                r#"slogate_check_value{check="queue", deployment="d-2", of="limit"} 1000"#,
            ],
        );
    }
}
