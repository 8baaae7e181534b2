//! A report as text, Markdown or CSV.
//!
//! Text and Markdown show the same tables: benign and bad scenarios with a column for each judge,
//! requests harmed, and the first judge's numbers in full. A row remarks which peers did better
//! than the first judge: fewer alarms in a benign scenario, a mean delay shorter by half a minute
//! or more in a bad one.

use super::report::{Report, Row, Summary};

/// Where a generated table begins and ends in a page.
const BEGIN: &str = "<!-- slogate simulate: begin -->";
const END: &str = "<!-- slogate simulate: end -->";

/// By how much shorter a mean delay has to be for a remark, in minutes.
const SOONER_MIN: f64 = 0.5;

/// A table, whatever it will be printed as.
struct Table {
    title: &'static str,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// The report for people at a terminal.
pub(crate) fn text(report: &Report) -> String {
    let mut text = format!("{}\n", heading(report));
    for table in tables(report) {
        text.push_str(&format!("\n{}\n", table.title));
        let widths: Vec<usize> = (0..table.header.len())
            .map(|column| {
                let rows = std::iter::once(&table.header).chain(&table.rows);
                let cells = rows.filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in std::iter::once(&table.header).chain(&table.rows) {
            let cells = row.iter().zip(&widths).enumerate();
            let line: Vec<String> = cells
                .map(|(at, (cell, width))| match at {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            text.push_str(line.join("  ").trim_end());
            text.push('\n');
        }
    }
    text
}

/// The report for a page.
pub(crate) fn markdown(report: &Report) -> String {
    let mut text = format!("{}\n", heading(report));
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    for table in tables(report) {
        text.push_str(&format!("\n**{}**\n\n", table.title));
        text.push_str(&line(&table.header));
        text.push_str(&"|---".repeat(table.header.len()));
        text.push_str("|\n");
        for row in &table.rows {
            text.push_str(&line(row));
        }
    }
    text.push_str("\nWho judged:\n\n");
    for judge in &report.judges {
        text.push_str(&format!("- `{}`: {}.\n", judge.name, judge.about));
    }
    text.push_str("\nWhat happened:\n\n");
    for row in &report.scenarios {
        text.push_str(&format!("- `{}`: {}.\n", row.scenario, row.about));
    }
    text
}

/// One line for each judge in each scenario.
pub(crate) fn csv(report: &Report) -> String {
    let mut text = "scenario,bad,onset_minute,judge,rollouts,alarm_rate,alarm_rate_low,\
         alarm_rate_high,false_alarm_rate,detection_rate,median_delay_min,p90_delay_min,\
         median_alarm_min,mean_delay_min,mean_harmed,pass_first_rate,median_pass_min,suspect_rate\n"
        .to_owned();
    let or_empty = |value: Option<f64>| value.map_or(String::new(), number);
    for row in &report.scenarios {
        for found in &row.results {
            let cells = [
                row.scenario.to_owned(),
                row.is_bad.to_string(),
                row.onset_minute
                    .map_or(String::new(), |onset| onset.to_string()),
                found.judge.to_owned(),
                found.rollouts.to_string(),
                number(found.alarm_rate),
                number(found.alarm_rate_low),
                number(found.alarm_rate_high),
                number(found.false_alarm_rate),
                or_empty(found.detection_rate),
                or_empty(found.median_delay_min),
                or_empty(found.p90_delay_min),
                or_empty(found.median_alarm_min),
                or_empty(found.mean_delay_min),
                number(found.mean_harmed),
                number(found.pass_first_rate),
                or_empty(found.median_pass_min),
                number(found.suspect_rate),
            ];
            text.push_str(&cells.join(","));
            text.push('\n');
        }
    }
    text
}

/// A page with the table between its markers replaced; `None` where it has no such markers.
pub(crate) fn replace_table(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

fn heading(report: &Report) -> String {
    format!(
        "{} rollouts of each scenario, seed {}, gate {} ({}).",
        report.rollouts,
        report.seed,
        report.gate,
        report.policy_hash.get(..12).unwrap_or(&report.policy_hash),
    )
}

fn tables(report: &Report) -> Vec<Table> {
    let of = |is_bad: bool| -> Vec<&Row> {
        let rows = report.scenarios.iter();
        rows.filter(|row| row.is_bad == is_bad).collect()
    };
    let (benign, bad) = (of(false), of(true));
    let mut tables = vec![overall(report)];
    if !benign.is_empty() {
        let mut table = by_judge(
            "Benign: share of rollouts stopped, all of them falsely",
            report,
            &benign,
            |found| percent(found.alarm_rate, 1),
        );
        add_remarks(&mut table, &benign, fewer);
        tables.push(table);
    }
    if !bad.is_empty() {
        let mut table = by_judge(
            "Bad: share detected @ median minutes from the onset",
            report,
            &bad,
            |found| {
                let rate = percent(found.detection_rate.unwrap_or(0.0), 0);
                let at = found.median_delay_min.map(|delay| format!("@{delay:.0}"));
                format!("{rate}{}", at.unwrap_or_default())
            },
        );
        add_remarks(&mut table, &bad, sooner);
        tables.push(table);
        tables.push(by_judge(
            "Bad: mean delay in minutes from the onset, a miss counting as 60",
            report,
            &bad,
            |found| minutes(found.mean_delay_min, 1),
        ));
        tables.push(by_judge(
            "Bad: mean number of requests harmed until stopped, or in the hour",
            report,
            &bad,
            |found| format!("{:.0}", found.mean_harmed),
        ));
    }
    tables.extend(detail(report));
    tables
}

fn overall(report: &Report) -> Table {
    let header = [
        "judge",
        "false alarms, mean",
        "worst",
        "in",
        "detected, mean",
        "delay, mean (min)",
    ];
    let rate = |value: Option<f64>| value.map_or("-".to_owned(), |value| percent(value, 1));
    let rows = report.overall.iter().map(|found| {
        vec![
            found.judge.to_owned(),
            rate(found.mean_false_alarm_rate),
            rate(found.worst_false_alarm_rate),
            found.worst_scenario.unwrap_or("-").to_owned(),
            rate(found.mean_detection_rate),
            minutes(found.mean_delay_min, 1),
        ]
    });
    Table {
        title: "Over all scenarios",
        header: header.map(str::to_owned).into(),
        rows: rows.collect(),
    }
}

fn by_judge(
    title: &'static str,
    report: &Report,
    rows: &[&Row],
    cell: impl Fn(&Summary) -> String,
) -> Table {
    let names = report.judges.iter().map(|judge| judge.name.to_owned());
    let line = |row: &&Row| -> Vec<String> {
        let cells = row.results.iter().map(&cell);
        std::iter::once(row.scenario.to_owned())
            .chain(cells)
            .collect()
    };
    Table {
        title,
        header: std::iter::once("scenario".to_owned())
            .chain(names)
            .collect(),
        rows: rows.iter().map(line).collect(),
    }
}

fn add_remarks(table: &mut Table, rows: &[&Row], remark: fn(&Row) -> Option<String>) {
    if rows.iter().all(|row| row.results.len() < 2) {
        return;
    }
    table.header.push("better here".to_owned());
    for (line, row) in table.rows.iter_mut().zip(rows) {
        line.push(remark(row).unwrap_or_default());
    }
}

/// Who raised fewer false alarms than the first judge.
fn fewer(row: &Row) -> Option<String> {
    let (first, peers) = row.results.split_first()?;
    let fewer = peers
        .iter()
        .filter(|peer| peer.alarm_rate < first.alarm_rate);
    Some(fewer.map(|peer| peer.judge).collect::<Vec<_>>().join(", "))
}

/// Who was sooner than the first judge, and by how much.
fn sooner(row: &Row) -> Option<String> {
    let (first, peers) = row.results.split_first()?;
    let ours = first.mean_delay_min?;
    let sooner = peers.iter().filter_map(|peer| {
        let by = ours - peer.mean_delay_min?;
        (by >= SOONER_MIN).then(|| format!("{} by {by:.1}", peer.judge))
    });
    Some(sooner.collect::<Vec<_>>().join(", "))
}

/// Everything about the first judge.
fn detail(report: &Report) -> Option<Table> {
    report.judges.first()?;
    let header = [
        "scenario",
        "stopped",
        "95 % interval",
        "falsely",
        "detected",
        "median delay",
        "P90",
        "from start",
        "mean delay",
        "harmed",
        "let pass first",
        "instance suspected",
    ];
    let line = |row: &Row| -> Option<Vec<String>> {
        let found = row.results.first()?;
        let detected = found.detection_rate.map(|rate| percent(rate, 1));
        let passed = match found.median_pass_min {
            Some(at) => format!("{}@{at:.0}", percent(found.pass_first_rate, 0)),
            None => percent(0.0, 0),
        };
        Some(vec![
            row.scenario.to_owned(),
            percent(found.alarm_rate, 2),
            format!(
                "{} to {}",
                percent(found.alarm_rate_low, 2),
                percent(found.alarm_rate_high, 2)
            ),
            percent(found.false_alarm_rate, 2),
            detected.unwrap_or_else(|| "-".to_owned()),
            minutes(found.median_delay_min, 0),
            minutes(found.p90_delay_min, 0),
            minutes(found.median_alarm_min, 0),
            minutes(found.mean_delay_min, 1),
            format!("{:.0}", found.mean_harmed),
            passed,
            percent(found.suspect_rate, 1),
        ])
    };
    Some(Table {
        title: "The first judge in full; times in minutes",
        header: header.map(str::to_owned).into(),
        rows: report.scenarios.iter().filter_map(line).collect(),
    })
}

/// To six places: beyond them, machines differ in the last bit of a logarithm.
fn number(value: f64) -> String {
    ((value * 1e6).round() / 1e6).to_string()
}

fn percent(share: f64, digits: usize) -> String {
    format!("{:.digits$}%", share * 100.0)
}

fn minutes(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::report::{About, Overall};
    use crate::simulate::run::Outcome;
    use crate::simulate::scenario::Truth;

    fn report() -> Report {
        let summary = |judge, truth, alarm| {
            let outcome = Outcome {
                alarm,
                harmed: 3.0,
                ..Outcome::default()
            };
            Summary::of(judge, truth, &[outcome])
        };
        let row = |scenario, truth, ours, theirs| Row {
            scenario,
            about: "something",
            is_bad: truth != Truth::Benign,
            onset_minute: None,
            results: vec![
                summary("ours", truth, ours),
                summary("theirs", truth, theirs),
            ],
        };
        let bad = Truth::Bad { onset: 0 };
        let about = |name| About {
            name,
            about: "it judges",
        };
        Report {
            rollouts: 1,
            seed: 7,
            gate: "canary".to_owned(),
            policy_hash: "0123456789abcdef".to_owned(),
            judges: vec![about("ours"), about("theirs")],
            scenarios: vec![
                row("good", Truth::Benign, Some(9), None),
                row("wrong", bad, Some(9), Some(4)),
                row("alike", bad, Some(4), Some(4)),
            ],
            overall: Vec::<Overall>::new(),
        }
    }

    #[test]
    fn a_row_says_where_a_peer_is_better() {
        let text = text(&report());
        let line = |name: &str| {
            let found = text.lines().find(|line| line.starts_with(name));
            found.unwrap_or_default().to_owned()
        };
        assert!(line("good").ends_with("0.0%       theirs"), "{text}");
        assert!(line("wrong").ends_with("theirs by 5.0"), "{text}");
        assert!(line("alike").ends_with("100%@4"), "{text}");
        assert!(
            text.starts_with("1 rollouts of each scenario, seed 7, gate canary (0123456789ab).")
        );
    }

    #[test]
    fn every_line_of_a_table_has_the_same_columns() {
        let csv = csv(&report());
        let columns = |line: &str| line.split(',').count();
        assert_eq!(csv.lines().count(), 7);
        assert!(csv.lines().all(|line| columns(line) == 18), "{csv}");
        for table in tables(&report()) {
            assert!(
                table.rows.iter().all(|row| row.len() == table.header.len()),
                "{}",
                table.title
            );
        }
    }

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let replaced = replace_table(&page, "new\n").unwrap();
        assert_eq!(replaced, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert_eq!(replace_table("no markers", "new\n"), None);
    }
}
