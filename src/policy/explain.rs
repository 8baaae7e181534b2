//! A gate in English.

use std::fmt::Write as _;

use crate::policy::value::{format_duration, percent};
use crate::policy::{
    BaselinePreference, ChangeDirection, Check, CheckSpec, CompareCheck, CompareSli, CoverageCheck,
    Gate, Glob, Horizon, KayentaCheck, Margin, OnInconclusive, QueryCheck, SeriesCheck,
    SeriesMethod, SpanKind, Word as _,
};

/// What `gate` asks and when it answers, for people who have to trust it. Ends with a line break.
pub fn explain(gate: &Gate) -> String {
    let mut text = format!("Gate {}\n", gate.name);
    let mut say = |line: String| {
        let _ = writeln!(text, "  {line}");
    };
    let service = selected("service", &gate.matches.service);
    let environment = selected("environment", &gate.matches.environment);
    say(format!("Guards {service} in {environment}."));
    say(timing(gate));
    say(undecided(gate));
    say(format!(
        "A version as good as its baseline fails in at most {} of rollouts, over all \
         checks and looks together;",
        percent(gate.false_alarms)
    ));
    say(format!(
        "one that is worse passes in at most {}.",
        percent(gate.false_passes)
    ));
    for check in &gate.checks {
        say(format!("Check {}{}:", check.name, standing(check)));
        for line in question(&check.spec) {
            say(format!("  {line}"));
        }
    }
    text
}

fn selected(what: &str, glob: &Glob) -> String {
    match glob.as_str() {
        "*" => format!("every {what}"),
        pattern if pattern.contains('*') => format!("every {what} named like {pattern}"),
        name => format!("{what} {name}"),
    }
}

fn timing(gate: &Gate) -> String {
    let warm_up = match gate.warm_up_ms {
        0 => "All of the candidate's traffic is evidence".to_owned(),
        ms => {
            let first = format_duration(ms);
            format!(
                "What fades within the candidate's first minutes (warm-up of {first}) is no fail"
            )
        }
    };
    match gate.soak_ms {
        0 => format!("{warm_up}; a pass may come at once."),
        ms => format!("{warm_up}; no pass comes before {}.", format_duration(ms)),
    }
}

fn undecided(gate: &Gate) -> String {
    let then = match gate.on_inconclusive {
        OnInconclusive::Hold => "stays inconclusive, and somebody has to look",
        OnInconclusive::Pass => "passes",
        OnInconclusive::Fail => "fails",
    };
    format!(
        "What is undecided after {} {then}.",
        format_duration(gate.decide_within_ms)
    )
}

fn standing(check: &Check) -> &'static str {
    match (check.critical, check.required) {
        (true, true) => "",
        (true, false) => " (a fail fails the gate; a pass of the gate doesn't need it)",
        (false, true) => " (a pass of the gate needs it; a fail of it only prevents the pass)",
        (false, false) => " (shown only, decides nothing)",
    }
}

fn question(spec: &CheckSpec) -> Vec<String> {
    match spec {
        CheckSpec::Query(check) => query(check),
        CheckSpec::Compare(check) => compare(check),
        CheckSpec::Series(check) => series(check),
        CheckSpec::Kayenta(check) => kayenta(check),
        CheckSpec::Coverage(check) => coverage(check),
    }
}

fn query(check: &QueryCheck) -> Vec<String> {
    let mut lines = vec![format!(
        "the answer to this query has to be {}:",
        check.threshold
    )];
    lines.extend(indented(check.expr.source()));
    let stale = format_duration(check.stale_after_ms);
    lines.push(format!(
        "no answer, several, or one older than {stale}: inconclusive"
    ));
    lines
}

fn compare(check: &CompareCheck) -> Vec<String> {
    let whose = match check.span_kind {
        SpanKind::Server => "requests answered".to_owned(),
        kind => format!("{} spans", kind.word()),
    };
    let what = match check.sli {
        CompareSli::ErrorRatio => format!("the error ratio of {whose}"),
        CompareSli::Duration { quantile: None } => format!("the duration of {whose}"),
        CompareSli::Duration {
            quantile: Some(quantile),
        } => {
            format!("the {quantile} quantile of the duration of {whose}")
        }
    };
    let against = baseline(check.against);
    let mut lines = vec![format!("compares {what} with that of {against}")];
    lines.extend(margins(check));
    lines.push(format!(
        "a pass needs at least {} of the candidate's requests",
        check.min_events
    ));
    lines
}

fn baseline(against: BaselinePreference) -> &'static str {
    match against {
        BaselinePreference::Auto => {
            "the stable version beside it, or else with the previous version's own history"
        }
        BaselinePreference::Concurrent => "the stable version beside it",
        BaselinePreference::Historical => "the previous version's own history",
    }
}

fn series(check: &SeriesCheck) -> Vec<String> {
    let step = format_duration(check.step_ms);
    let against = baseline(check.against);
    let mut lines = vec![format!(
        "compares this query, every {step}, with that of {against}:"
    )];
    lines.extend(indented(check.expr.source()));
    let worse = match check.direction {
        ChangeDirection::Increase => "an increase",
        ChangeDirection::Decrease => "a decrease",
        ChangeDirection::Either => "a change either way",
    };
    let margin = |margin: Margin| {
        let relative = margin.relative.filter(|part| *part > 0.0).map(percent);
        let absolute = margin.absolute.filter(|part| *part > 0.0);
        match (relative, absolute) {
            (Some(relative), Some(absolute)) => format!("{relative} and {absolute} on top"),
            (Some(relative), None) => relative,
            (None, Some(absolute)) => absolute.to_string(),
            (None, None) => "nothing".to_owned(),
        }
    };
    let tolerated = margin(check.worse_by);
    lines.push(match check.method {
        SeriesMethod::Kayenta => format!("tolerates {worse} of at most {tolerated} of the mean"),
        _ => format!(
            "tolerates {worse} of at most {tolerated}; a pass certifies at most {}",
            margin(check.pass_within)
        ),
    });
    let once = judged(check.horizon);
    lines.push(match check.method {
        SeriesMethod::Sequential => {
            "by a sequential test, which may be looked at at any time".to_owned()
        }
        SeriesMethod::MannWhitney => format!("by Mann and Whitney's test, {once}"),
        SeriesMethod::BlockPermutation => format!("by permuting blocks of time, {once}"),
        SeriesMethod::Kayenta => format!("as Kayenta's judge does, {once}"),
    });
    lines
}

fn kayenta(check: &KayentaCheck) -> Vec<String> {
    let count = check.metrics.len();
    let metrics = if count == 1 { "metric" } else { "metrics" };
    let against = baseline(check.against);
    let step = format_duration(check.step_ms);
    let mut lines = vec![format!(
        "judges {count} {metrics}, every {step}, as Kayenta does, with {against}:"
    )];
    for metric in &check.metrics {
        let muted = if metric.config.muted { ", muted" } else { "" };
        let critical = if metric.config.critical {
            ", critical"
        } else {
            ""
        };
        lines.push(format!("  {}{critical}{muted}", metric.name));
    }
    let thresholds = check.thresholds;
    lines.push(format!(
        "a score of {} passes, one below {} fails; {}",
        thresholds.pass,
        thresholds.marginal,
        judged(check.horizon)
    ));
    lines.push("its false alarms are not bounded by the gate's".to_owned());
    lines
}

fn judged(horizon: Horizon) -> String {
    let after = match horizon.after_ms {
        Some(after) => format!("after {}", format_duration(after)),
        None => "when the time is over".to_owned(),
    };
    match horizon.every_ms {
        Some(every) => format!("every {} and last {after}", format_duration(every)),
        None => format!("once, {after}"),
    }
}

fn indented(text: &str) -> impl Iterator<Item = String> {
    text.trim()
        .lines()
        .map(|line| format!("  {}", line.trim_end()))
}

/// What is tolerated and what a pass certifies, with an example.
fn margins(check: &CompareCheck) -> [String; 2] {
    let (worse_by, pass_within) = (check.worse_by, check.pass_within);
    let (baseline, show): (f64, fn(f64) -> String) = match check.sli {
        CompareSli::ErrorRatio => (0.01, percent),
        CompareSli::Duration { .. } => (0.2, seconds),
    };
    let at = |margin: Margin| show(margin.boundary(baseline));
    let beside = show(baseline);
    let tolerated = tolerance(worse_by, check.sli);
    if worse_by == pass_within {
        return [
            format!("tolerates at most {tolerated}"),
            format!(
                "for example {} beside {beside}: shown to be above it fails, shown to be below it \
                 passes",
                at(worse_by)
            ),
        ];
    }
    [
        format!(
            "tolerates at most {tolerated}; a pass certifies at most {}",
            tolerance(pass_within, check.sli)
        ),
        format!(
            "for example beside {beside}: shown to be above {} fails, shown to be below {} passes",
            at(worse_by),
            at(pass_within)
        ),
    ]
}

/// The margin of a comparison in words: `25 % more and 0.1 percentage points`.
fn tolerance(margin: Margin, sli: CompareSli) -> String {
    let Margin { absolute, relative } = margin;
    let absolute = absolute.filter(|part| *part > 0.0).map(|part| match sli {
        CompareSli::ErrorRatio => match percent(part).trim_end_matches(" %") {
            "1" => "1 percentage point".to_owned(),
            points => format!("{points} percentage points"),
        },
        CompareSli::Duration { .. } => seconds(part),
    });
    let relative = relative
        .filter(|part| *part > 0.0)
        .map(|part| format!("{} more", percent(part)));
    match (relative, absolute) {
        (Some(relative), Some(absolute)) => format!("{relative} and {absolute} on top"),
        (Some(part), None) => part,
        (None, Some(part)) => format!("{part} more"),
        (None, None) => "nothing".to_owned(),
    }
}

fn seconds(seconds: f64) -> String {
    format_duration((seconds * 1000.0).round() as i64)
}

fn coverage(check: &CoverageCheck) -> Vec<String> {
    let signals: Vec<&str> = check.signals.iter().map(|signal| signal.word()).collect();
    vec![format!(
        "at least {} of {} have to say which version they are from",
        percent(check.at_least),
        signals.join(" and ")
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::built_in;

    #[test]
    fn the_built_in_gate_reads_aloud() {
        let text = explain(built_in().get("canary").unwrap());
        let expected = "\
Gate canary
  Guards every service in every environment.
  What fades within the candidate's first minutes (warm-up of 2m) is no fail; no pass comes before 5m.
  What is undecided after 1h stays inconclusive, and somebody has to look.
  A version as good as its baseline fails in at most 1 % of rollouts, over all checks and looks together;
  one that is worse passes in at most 5 %.
  Check errors:
    compares the error ratio of requests answered with that of the stable version beside it, or else with the previous version's own history
    tolerates at most 5 % more; a pass certifies at most 50 % more and 0.1 percentage points on top
    for example beside 1 %: shown to be above 1.05 % fails, shown to be below 1.6 % passes
    a pass needs at least 50 of the candidate's requests
  Check latency:
    compares the duration of requests answered with that of the stable version beside it, or else with the previous version's own history
    tolerates at most 3 % more; a pass certifies at most 20 % more and 5ms on top
    for example beside 200ms: shown to be above 206ms fails, shown to be below 245ms passes
    a pass needs at least 50 of the candidate's requests
  Check identity (a pass of the gate needs it; a fail of it only prevents the pass):
    at least 95 % of traces have to say which version they are from
";
        assert_eq!(text, expected);
    }

    #[test]
    fn every_kind_of_check_and_standing_reads_aloud() {
        let text = r#"
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: other }
spec:
  match: { service: checkout, environment: "prod-*" }
  warmUp: 0s
  soak: 0s
  onInconclusive: fail
  checks:
    - name: lag
      required: false
      query: |
        max(lag{v="$version"})
      atMost: 300ms
    - name: jobs
      critical: false
      compare: { sli: requests.errorRatio, worseBy: { absolute: 1% }, spanKind: consumer, against: historical }
    - name: tried
      critical: false
      required: false
      coverage: { atLeast: 50%, signals: [traces, logs] }
"#;
        let gates = crate::policy::parse("a.yaml", text).unwrap();
        let expected = "\
Gate other
  Guards service checkout in every environment named like prod-*.
  All of the candidate's traffic is evidence; a pass may come at once.
  What is undecided after 1h fails.
  A version as good as its baseline fails in at most 1 % of rollouts, over all checks and looks together;
  one that is worse passes in at most 5 %.
  Check lag (a fail fails the gate; a pass of the gate doesn't need it):
    the answer to this query has to be at most 0.3:
      max(lag{v=\"$version\"})
    no answer, several, or one older than 5m: inconclusive
  Check jobs (a pass of the gate needs it; a fail of it only prevents the pass):
    compares the error ratio of consumer spans with that of the previous version's own history
    tolerates at most 1 percentage point more
    for example 2 % beside 1 %: shown to be above it fails, shown to be below it passes
    a pass needs at least 50 of the candidate's requests
  Check tried (shown only, decides nothing):
    at least 50 % of traces and logs have to say which version they are from
";
        assert_eq!(explain(&gates[0]), expected);
    }
}
