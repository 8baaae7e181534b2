//! A report for people, and as CSV.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::report::{Report, RolloutReport, Summary};
use crate::model::Outcome;
use crate::model::time::{humanize_ms, to_rfc3339};

/// The report as text.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    let common = common(&report.rollouts);
    for rollout in &report.rollouts {
        write_rollout(&mut text, rollout, &common);
        text.push('\n');
    }
    if !common.is_empty() {
        text.push_str("assumed of every rollout:\n");
        for assumption in &common {
            let _ = writeln!(text, "  {assumption}");
        }
        text.push('\n');
    }
    write_differences(&mut text, report);
    write_summary(&mut text, &report.summary);
    if report.interrupted {
        text.push_str("interrupted: not every rollout was replayed\n");
    }
    text
}

/// What was assumed of all rollouts alike, where there are several.
fn common(rollouts: &[RolloutReport]) -> Vec<String> {
    let read: Vec<&RolloutReport> = rollouts.iter().filter(|one| one.error.is_none()).collect();
    let (Some(first), true) = (read.first(), read.len() > 1) else {
        return Vec::new();
    };
    let is_common = |what: &&String| read.iter().all(|one| one.assumptions.contains(what));
    first
        .assumptions
        .iter()
        .filter(is_common)
        .cloned()
        .collect()
}

fn write_rollout(text: &mut String, rollout: &RolloutReport, common: &[String]) {
    let label = rollout
        .label
        .map_or(String::new(), |label| format!(" ({label})"));
    // Writing to a string can't fail.
    let _ = writeln!(text, "{}{label}", rollout.rollout);
    if let Some(error) = &rollout.error {
        let _ = writeln!(text, "  can't be replayed: {error}");
        return;
    }
    for replay in &rollout.results {
        let policy = match rollout.results.len() {
            1 => String::new(),
            _ => format!("{}: ", replay.policy),
        };
        let _ = writeln!(text, "  {policy}{}", replay.message);
        let harmed = match replay.requests_harmed > 0.0 {
            true => format!(
                "; harmed until then: {} failed, {} slow",
                replay.failed_requests, replay.slow_requests
            ),
            false => String::new(),
        };
        let delay = rollout.onset_ms.and_then(|_| rollout.delay_seconds(replay));
        let delay = delay.map_or(String::new(), |s| format!("; {} after the onset", span(s)));
        let by = match replay.failed_checks.is_empty() {
            true => String::new(),
            false => format!(" by {}", replay.failed_checks.join(", ")),
        };
        let _ = writeln!(text, "    {}{by}{delay}{harmed}", timeline(replay));
        for phase in &replay.no_data {
            let from = phase.start_ms - rollout.started_ms.unwrap_or(phase.start_ms);
            let _ = writeln!(
                text,
                "    no data for {} from {} on",
                humanize_ms(phase.end_ms - phase.start_ms),
                humanize_ms(from.max(0))
            );
        }
    }
    for assumption in rollout
        .assumptions
        .iter()
        .filter(|one| !common.contains(one))
    {
        let _ = writeln!(text, "  assumed: {assumption}");
    }
    for note in &rollout.notes {
        let _ = writeln!(text, "  note: {note}");
    }
}

/// `0s warming_up, 2m not_yet_decided, 6m 20s FAIL`.
fn timeline(replay: &super::replay::Replay) -> String {
    let changes = replay.timeline.iter().map(|change| {
        let what = match change.verdict {
            Outcome::Inconclusive => change.reason.as_str(),
            Outcome::Pass => "PASS",
            Outcome::Fail => "FAIL",
        };
        format!("{} {what}", span(change.seconds))
    });
    changes.collect::<Vec<_>>().join(", ")
}

fn span(seconds: f64) -> String {
    humanize_ms((seconds * 1000.0) as i64)
}

fn write_differences(text: &mut String, report: &Report) {
    if report.differences.is_empty() {
        return;
    }
    text.push_str("judged differently:\n");
    for difference in &report.differences {
        let label = difference
            .label
            .map_or(String::new(), |label| format!(" ({label})"));
        let verdicts: Vec<String> = difference
            .verdicts
            .iter()
            .map(|(policy, verdict)| format!("{policy} {verdict}"))
            .collect();
        let _ = writeln!(
            text,
            "  {}{label}: {}",
            difference.rollout,
            verdicts.join(", ")
        );
    }
    text.push('\n');
}

fn write_summary(text: &mut String, summaries: &[Summary]) {
    let rows = rows(summaries);
    let first = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..summaries.len())
        .map(|at| {
            let cells = rows.iter().filter_map(|(_, cells)| cells.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    for (name, cells) in &rows {
        let _ = write!(text, "{name:<first$}");
        for (cell, width) in cells.iter().zip(&widths) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
}

/// The summary as rows of one cell for each policy.
pub(super) fn rows(summaries: &[Summary]) -> Vec<(&'static str, Vec<String>)> {
    type Cell = fn(&Summary) -> String;
    let percent =
        |share: Option<f64>| share.map_or("-".to_owned(), |s| format!("{:.1}%", s * 100.0));
    let seconds = |s: Option<f64>| s.map_or("-".to_owned(), span);
    let mut rows: Vec<(&'static str, Vec<String>)> = Vec::new();
    if summaries.len() > 1 {
        rows.push(("", summaries.iter().map(|s| s.policy.clone()).collect()));
    }
    let counts: [(&'static str, Cell); 6] = [
        ("rollouts", |s| s.rollouts.to_string()),
        ("pass", |s| s.pass.to_string()),
        ("fail", |s| s.fail.to_string()),
        ("inconclusive", |s| s.inconclusive.to_string()),
        ("with no data for a time", |s| s.no_data.to_string()),
        ("could not be read", |s| s.errors.to_string()),
    ];
    for (name, cell) in counts {
        rows.push((name, summaries.iter().map(cell).collect()));
    }
    let is_labelled = summaries.iter().any(|s| s.good + s.bad > 0);
    if is_labelled {
        let cells = |cell: &dyn Fn(&Summary) -> String| summaries.iter().map(cell).collect();
        rows.push((
            "bad: detected of all",
            cells(&|s| format!("{} of {}", s.detected, s.bad)),
        ));
        rows.push((
            "good: false alarms of all",
            cells(&|s| format!("{} of {}", s.false_alarms, s.good)),
        ));
        rows.push(("precision", cells(&|s| percent(s.precision))));
        rows.push(("recall", cells(&|s| percent(s.recall))));
        rows.push(("false-alarm rate", cells(&|s| percent(s.false_alarm_rate))));
    }
    let cells = |cell: &dyn Fn(&Summary) -> String| summaries.iter().map(cell).collect();
    rows.push((
        "inconclusive rate",
        cells(&|s| percent(s.inconclusive_rate)),
    ));
    rows.push((
        "delay to fail, median",
        cells(&|s| seconds(s.median_delay_seconds)),
    ));
    rows.push((
        "delay to fail, P90",
        cells(&|s| seconds(s.p90_delay_seconds)),
    ));
    rows.push((
        "time to pass, median",
        cells(&|s| seconds(s.median_pass_seconds)),
    ));
    rows.push((
        "requests harmed",
        cells(&|s| format!("{:.0}", s.requests_harmed)),
    ));
    rows
}

/// One line for each rollout and policy, the first line the columns' names.
pub fn csv(report: &Report) -> String {
    let columns = [
        "rollout",
        "policy",
        "label",
        "onset_at",
        "service",
        "environment",
        "candidate",
        "baseline",
        "started_at",
        "verdict",
        "reason",
        "decided_at",
        "seconds_to_verdict",
        "delay_seconds",
        "first_pass_at",
        "failed_requests",
        "slow_requests",
        "requests_harmed",
        "no_data_seconds",
        "failed_checks",
        "message",
        "error",
    ];
    let mut text = columns.join(",");
    text.push('\n');
    let time = |ms: Option<i64>| ms.map_or(String::new(), to_rfc3339);
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for rollout in &report.rollouts {
        let label = rollout
            .label
            .map_or(String::new(), |label| label.to_string());
        let about = [
            label,
            time(rollout.onset_ms),
            rollout.service.clone(),
            rollout.environment.clone(),
            rollout.candidate.clone(),
            rollout.baseline.clone(),
            time(rollout.started_ms),
        ];
        if let Some(error) = &rollout.error {
            let mut cells = vec![rollout.rollout.clone(), String::new()];
            cells.extend(about);
            cells.push("error".to_owned());
            cells.resize(columns.len() - 1, String::new());
            cells.push(error.clone());
            line(&mut text, &cells);
            continue;
        }
        for replay in &rollout.results {
            let no_data: i64 = replay.no_data.iter().map(|p| p.end_ms - p.start_ms).sum();
            let mut cells = vec![rollout.rollout.clone(), replay.policy.clone()];
            cells.extend(about.iter().cloned());
            cells.extend([
                replay.verdict.to_string(),
                replay.reason.as_str().to_owned(),
                to_rfc3339(replay.decided_ms),
                number(replay.seconds_to_verdict),
                number(rollout.delay_seconds(replay)),
                time(replay.first_pass_ms),
                replay.failed_requests.to_string(),
                replay.slow_requests.to_string(),
                replay.requests_harmed.to_string(),
                (no_data as f64 / 1000.0).to_string(),
                replay.failed_checks.join(" "),
                replay.message.clone(),
                String::new(),
            ]);
            line(&mut text, &cells);
        }
    }
    text
}

fn line(text: &mut String, cells: &[String]) {
    let quoted = cells.iter().map(|cell| {
        let needs_quotes = cell.contains([',', '"', '\n', '\r']);
        match needs_quotes {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell.clone(),
        }
    });
    text.push_str(&quoted.collect::<Vec<_>>().join(","));
    text.push('\n');
}

/// How many rollouts have each verdict, in words.
pub fn tally(report: &Report) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for rollout in &report.rollouts {
        let verdict = rollout
            .results
            .first()
            .map(|replay| replay.verdict.as_str());
        *counts.entry(verdict.unwrap_or("unreadable")).or_default() += 1;
    }
    let parts = counts
        .iter()
        .map(|(verdict, count)| format!("{count} {verdict}"));
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::labels::Truth;
    use crate::backtest::report::tests::{replayed, rollout};

    fn report() -> Report {
        let mut first = rollout("a", Some(Truth::Bad), vec![replayed(Outcome::Fail, 90.0)]);
        first.onset_ms = Some(30_000);
        first.assumptions = vec!["common".to_owned(), "own, \"quoted\"".to_owned()];
        let mut second = rollout("b", Some(Truth::Good), vec![replayed(Outcome::Pass, 360.0)]);
        second.assumptions = vec!["common".to_owned()];
        let broken = rollout("c", None, Vec::new());
        Report::new(vec![first, second, broken], &["built-in".to_owned()], false)
    }

    #[test]
    fn text_has_every_rollout_and_the_summary() {
        let text = text(&report());
        assert!(text.starts_with("a (bad)\n  because\n"), "{text}");
        assert!(text.contains("1m after the onset"), "{text}");
        assert!(text.contains("  assumed: own, \"quoted\"\n"), "{text}");
        assert!(
            text.contains("assumed of every rollout:\n  common\n"),
            "{text}"
        );
        assert!(text.contains("c\n  can't be replayed: broken\n"), "{text}");
        assert!(
            text.contains("recall                     100.0%\n"),
            "{text}"
        );
    }

    #[test]
    fn csv_has_as_many_cells_in_each_line() {
        let csv = csv(&report());
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 4);
        for line in &lines {
            assert_eq!(line.matches(',').count(), 21, "{line}");
        }
        assert!(lines[1].starts_with("a,built-in,bad,"), "{csv}");
    }
}
