//! The report as one page without anything from elsewhere: plots are SVG, drawn here.

use std::fmt::Write as _;

use super::harm::Point;
use super::replay::Replay;
use super::report::{Report, RolloutReport};
use super::text::rows;
use crate::model::Outcome;
use crate::model::time::{humanize_ms, to_rfc3339};

const STYLE: &str = "\
body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;\
color:#1b1f24;background:#fff}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin:2.5rem 0 .3rem}\
table{border-collapse:collapse;margin:1rem 0}\
td,th{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px solid #d8dee4;vertical-align:top}\
td.n{text-align:right;font-variant-numeric:tabular-nums}\
.pass{color:#1a7f37}.fail{color:#cf222e}.inconclusive{color:#7d6a00}.error{color:#cf222e}\
.plots{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0}figcaption{color:#57606a;font-size:12px}\
ul{margin:.3rem 0;padding-left:1.2rem;color:#57606a}\
svg text{font:10px system-ui,sans-serif;fill:#57606a}\
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}\
td,th{border-color:#30363d}figcaption,ul,svg text{color:#8b949e;fill:#8b949e}}";

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 46.0;
const BOTTOM: f64 = 18.0;
const TOP: f64 = 8.0;

/// The page.
pub fn html(report: &Report) -> String {
    let mut page =
        String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    let _ = write!(
        page,
        "<meta name=\"viewport\" content=\"width=device-width\"><title>slogate backtest</title>\
         <style>{STYLE}</style></head><body>\n<h1>slogate backtest</h1>\n"
    );
    if report.interrupted {
        page.push_str("<p class=\"error\">Interrupted: not every rollout was replayed.</p>\n");
    }
    page.push_str("<table>");
    for (name, cells) in rows(&report.summary) {
        let _ = write!(page, "<tr><th>{}</th>", escaped(name));
        for cell in cells {
            let _ = write!(page, "<td class=\"n\">{}</td>", escaped(&cell));
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>\n");
    differences(&mut page, report);
    overview(&mut page, report);
    for rollout in &report.rollouts {
        section(&mut page, rollout);
    }
    page.push_str("</body></html>\n");
    page
}

fn differences(page: &mut String, report: &Report) {
    if report.differences.is_empty() {
        return;
    }
    page.push_str("<h2>Judged differently</h2>\n<table>");
    for difference in &report.differences {
        let label = difference
            .label
            .map_or(String::new(), |label| label.to_string());
        let _ = write!(
            page,
            "<tr><td><a href=\"#{}\">{}</a></td><td>{label}</td>",
            escaped(&difference.rollout),
            escaped(&difference.rollout)
        );
        for (policy, verdict) in &difference.verdicts {
            let _ = write!(
                page,
                "<td class=\"{verdict}\">{}: {verdict}</td>",
                escaped(policy)
            );
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>\n");
}

fn overview(page: &mut String, report: &Report) {
    page.push_str(
        "<h2>Rollouts</h2>\n<table><tr><th>rollout</th><th>label</th><th>verdict</th>\
                   <th>after</th><th>harmed</th><th>over time</th></tr>",
    );
    for rollout in &report.rollouts {
        let label = rollout
            .label
            .map_or(String::new(), |label| label.to_string());
        let name = escaped(&rollout.rollout);
        if rollout.error.is_some() {
            let _ = write!(
                page,
                "<tr><td><a href=\"#{name}\">{name}</a></td><td>{label}</td>\
                 <td class=\"error\" colspan=\"4\">can't be replayed</td></tr>"
            );
        }
        for replay in &rollout.results {
            let after = replay.seconds_to_verdict.map_or(String::new(), span);
            let _ = write!(
                page,
                "<tr><td><a href=\"#{name}\">{name}</a></td><td>{label}</td>\
                 <td class=\"{0}\">{0}</td><td class=\"n\">{after}</td>\
                 <td class=\"n\">{1:.0}</td><td>{2}</td></tr>",
                replay.verdict,
                replay.requests_harmed,
                strip(rollout, replay)
            );
        }
    }
    page.push_str("</table>\n");
}

fn section(page: &mut String, rollout: &RolloutReport) {
    let name = escaped(&rollout.rollout);
    let _ = writeln!(page, "<h2 id=\"{name}\">{name}</h2>");
    if let Some(error) = &rollout.error {
        let _ = writeln!(page, "<p class=\"error\">{}</p>", escaped(error));
        return;
    }
    let began = rollout.started_ms.map_or(String::new(), to_rfc3339);
    let _ = writeln!(
        page,
        "<p>{} {} against {}, from {began}</p>",
        escaped(&rollout.service),
        escaped(&rollout.candidate),
        escaped(match rollout.baseline.as_str() {
            "" => "nothing known",
            baseline => baseline,
        })
    );
    for replay in &rollout.results {
        let _ = writeln!(
            page,
            "<p><span class=\"{0}\">{0}</span> ({1}) {2}</p>",
            replay.verdict,
            escaped(&replay.policy),
            escaped(&replay.message)
        );
    }
    let decided = rollout.results.iter().filter_map(|replay| {
        let seconds = replay.seconds_to_verdict?;
        Some((seconds, replay.verdict))
    });
    let decided: Vec<(f64, Outcome)> = decided.collect();
    let onset = rollout.onset_ms.zip(rollout.started_ms);
    let onset = onset.map(|(onset, start)| (onset - start) as f64 / 1000.0);
    let points = &rollout.series;
    page.push_str("<div class=\"plots\">");
    let share = |failed: f64, total: f64| (total > 0.0).then(|| failed / total);
    let plots = [
        Plot {
            title: "failed requests, share",
            candidate: line(points, |p| share(p.candidate_failed, p.candidate_total)),
            baseline: line(points, |p| share(p.baseline_failed, p.baseline_total)),
        },
        Plot {
            title: "95th percentile of durations, seconds",
            candidate: line(points, |p| p.candidate_p95),
            baseline: line(points, |p| p.baseline_p95),
        },
        Plot {
            title: "requests in each block",
            candidate: line(points, |p| {
                (p.candidate_total > 0.0).then_some(p.candidate_total)
            }),
            baseline: line(points, |p| {
                (p.baseline_total > 0.0).then_some(p.baseline_total)
            }),
        },
    ];
    for plot in plots {
        plot.draw(page, &decided, onset);
    }
    page.push_str("</div>\n<ul>");
    for assumption in &rollout.assumptions {
        let _ = write!(page, "<li>assumed: {}</li>", escaped(assumption));
    }
    for note in &rollout.notes {
        let _ = write!(page, "<li>{}</li>", escaped(note));
    }
    page.push_str("</ul>\n");
}

/// The verdict over time as a bar.
fn strip(rollout: &RolloutReport, replay: &Replay) -> String {
    let (start, end) = (
        rollout.started_ms.unwrap_or(0),
        rollout.ended_ms.unwrap_or(0),
    );
    let length = ((end.max(replay.decided_ms) - start) as f64 / 1000.0).max(1.0);
    let width = 220.0;
    let mut svg = format!("<svg width=\"{width}\" height=\"12\" role=\"img\">");
    let mut changes = replay.timeline.iter().peekable();
    while let Some(change) = changes.next() {
        let until = match changes.peek() {
            Some(next) => next.seconds,
            None if change.verdict == Outcome::Fail => length,
            None => length.max(change.seconds),
        };
        let (x, right) = (change.seconds / length * width, until / length * width);
        let _ = write!(
            svg,
            "<rect x=\"{:.1}\" y=\"1\" width=\"{:.1}\" height=\"10\" fill=\"{}\"><title>{} {} ({})</title></rect>",
            x,
            (right - x).max(1.5),
            color(change.verdict),
            span(change.seconds),
            change.verdict,
            change.reason.as_str()
        );
    }
    svg.push_str("</svg>");
    svg
}

fn color(verdict: Outcome) -> &'static str {
    match verdict {
        Outcome::Pass => "#2da44e",
        Outcome::Fail => "#cf222e",
        Outcome::Inconclusive => "#d4a72c",
    }
}

struct Plot {
    title: &'static str,
    candidate: Vec<(f64, f64)>,
    baseline: Vec<(f64, f64)>,
}

fn line(points: &[Point], value: impl Fn(&Point) -> Option<f64>) -> Vec<(f64, f64)> {
    let known = points
        .iter()
        .filter_map(|point| Some((point.seconds, value(point)?)));
    known.filter(|(_, value)| value.is_finite()).collect()
}

impl Plot {
    fn draw(&self, page: &mut String, decided: &[(f64, Outcome)], onset: Option<f64>) {
        let all = || self.candidate.iter().chain(&self.baseline);
        if all().next().is_none() {
            return;
        }
        let low = all().map(|p| p.0).fold(f64::INFINITY, f64::min);
        let high = all().map(|p| p.0).fold(f64::NEG_INFINITY, f64::max);
        let top = all().map(|p| p.1).fold(0.0, f64::max);
        let top = if top > 0.0 { top * 1.05 } else { 1.0 };
        let x =
            |seconds: f64| LEFT + (seconds - low) / (high - low).max(1.0) * (WIDTH - LEFT - 8.0);
        let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP);
        let _ = write!(
            page,
            "<figure><svg width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\
             <line x1=\"{LEFT}\" y1=\"{0}\" x2=\"{WIDTH}\" y2=\"{0}\" stroke=\"#afb8c1\"/>\
             <text x=\"{1}\" y=\"{2}\" text-anchor=\"end\">{3}</text>\
             <text x=\"{1}\" y=\"{0}\" text-anchor=\"end\">0</text>",
            HEIGHT - BOTTOM,
            LEFT - 4.0,
            TOP + 8.0,
            number(top)
        );
        for tick in 0..=4 {
            let seconds = low + (high - low) * f64::from(tick) / 4.0;
            let _ = write!(
                page,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                x(seconds),
                HEIGHT - 4.0,
                span(seconds)
            );
        }
        let mark = |page: &mut String, seconds: f64, color: &str, what: &str| {
            if (low..=high).contains(&seconds) {
                let _ = write!(
                    page,
                    "<line x1=\"{0:.1}\" y1=\"{TOP}\" x2=\"{0:.1}\" y2=\"{1}\" stroke=\"{color}\" \
                     stroke-dasharray=\"4 3\"><title>{what}</title></line>",
                    x(seconds),
                    HEIGHT - BOTTOM
                );
            }
        };
        mark(page, 0.0, "#8c959f", "the rollout begins");
        if let Some(onset) = onset {
            mark(page, onset, "#8250df", "onset");
        }
        for (seconds, verdict) in decided {
            mark(page, *seconds, color(*verdict), verdict.as_str());
        }
        for (points, color) in [(&self.baseline, "#8c959f"), (&self.candidate, "#0969da")] {
            let _ = write!(
                page,
                "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\" points=\""
            );
            for (seconds, value) in points {
                let _ = write!(page, "{:.1},{:.1} ", x(*seconds), y(*value));
            }
            page.push_str("\"/>");
        }
        let _ = write!(
            page,
            "</svg><figcaption>{}: candidate blue, baseline grey; dashed: begin, verdict</figcaption></figure>",
            self.title
        );
    }
}

fn number(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.4}"),
    }
}

fn span(seconds: f64) -> String {
    match seconds < 0.0 {
        true => format!("-{}", humanize_ms((-seconds * 1000.0) as i64)),
        false => humanize_ms((seconds * 1000.0) as i64),
    }
}

/// Text that can't become anything else in a page.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::report::tests::{replayed, rollout};

    #[test]
    fn a_page_shows_everything_and_runs_nothing() {
        let mut one = rollout("<script>", None, vec![replayed(Outcome::Fail, 90.0)]);
        one.series = (0..10)
            .map(|n| Point {
                seconds: f64::from(n) * 60.0,
                candidate_total: 100.0,
                candidate_failed: f64::from(n),
                ..Point::default()
            })
            .collect();
        let report = Report::new(
            vec![one, rollout("b", None, Vec::new())],
            &["x".to_owned()],
            true,
        );
        let page = html(&report);
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
        assert_eq!(page.matches("<figure>").count(), 2, "failed and requests");
        assert!(page.contains("can't be replayed"));
        assert!(!page.contains("http"), "nothing comes from elsewhere");
    }
}
