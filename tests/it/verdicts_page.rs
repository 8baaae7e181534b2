//! The page that explains verdicts is true where a test can hold it: its table of margins comes
//! from the planner, and it explains every reason.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use slogate::model::Reason;
use slogate_stats::plan::{Prospect, Shares, Traffic, smallest_margin};
use slogate_stats::{CountTestParams, Direction, normal};

/// What the page says it is computed for: the built-in gate's hour without its warm-up, its
/// `falsePasses`, the relative part of its `passWithin`, and nineteen times the traffic beside.
const SECONDS: f64 = 58.0 * 60.0;
const FALSE_PASSES: f64 = 0.05;
const RELATIVE: f64 = 0.5;
const BESIDE: f64 = 19.0;

/// The built-in `minEvents`.
const EVENTS_MIN: f64 = 50.0;

/// The standard deviation of log latency: the P95 is three times the median.
const SIGMA: f64 = 0.667_904_7;

const BEGIN: &str = "<!-- margins: begin -->\n";
const END: &str = "<!-- margins: end -->";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verdicts.md")
}

fn traffic(per_second: f64) -> Traffic {
    Traffic {
        candidate_per_second: per_second,
        baseline_per_second: BESIDE * per_second,
    }
}

/// In percentage points, rounded up.
fn errors(per_second: f64, rate: f64) -> String {
    let params = CountTestParams {
        ratio: 1.0 + RELATIVE,
        difference: 0.0,
        dispersion: 1.0,
        direction: Direction::NotWorse,
    };
    let level = -FALSE_PASSES.ln();
    let margin = smallest_margin(&params, traffic(per_second), rate, SECONDS, level).unwrap();
    match margin {
        _ if per_second * SECONDS < EVENTS_MIN => "none".to_owned(),
        None => "none".to_owned(),
        Some(margin) if margin < 1e-9 => "0".to_owned(),
        Some(margin) => format!("{} %", up(100.0 * margin)),
    }
}

/// The smallest slowdown of the P95 that a pass can exclude, in percent, rounded up.
fn latency(per_second: f64) -> String {
    let z = normal::quantile(0.95).unwrap();
    let in_time = |slower: f64| {
        let shares = Shares {
            baseline: 0.05,
            candidate: normal::upper_tail(z + slower.ln_1p() / SIGMA),
        };
        let direction = Direction::NotWorse;
        let prospect = Prospect::of_exceedances(traffic(per_second), shares, 1.0, direction);
        let needed = prospect
            .unwrap()
            .and_then(|p| p.seconds_to(-FALSE_PASSES.ln()));
        needed.is_some_and(|seconds| seconds <= SECONDS)
    };
    if per_second * SECONDS < EVENTS_MIN || !in_time(10.0) {
        return "none".to_owned();
    }
    let (mut low, mut high) = (0.0, 10.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if in_time(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    format!("{} %", up(100.0 * high))
}

/// Two figures, rounded up.
fn up(value: f64) -> String {
    let digits = 1 - value.log10().floor() as i32;
    let scale = 10f64.powi(digits);
    let rounded = (value * scale - 1e-6).ceil() / scale;
    format!("{rounded:.*}", usize::try_from(digits).unwrap_or(0))
}

fn table() -> String {
    let rates = [0.0001, 0.001, 0.01, 0.05];
    let rows = [
        (0.01, "1 in 100 s", "36"),
        (0.1, "1 in 10 s", "360"),
        (1.0, "1/s", "3,600"),
        (5.0, "5/s", "18,000"),
        (20.0, "20/s", "72,000"),
        (100.0, "100/s", "360,000"),
    ];
    let mut table = String::from(
        "| to the new version | in an hour | errors 0.01 % | 0.1 % | 1 % | 5 % | P95 slower by |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (per_second, words, hourly) in rows {
        let _ = write!(table, "| {words} | {hourly} |");
        for rate in rates {
            let _ = write!(table, " {} |", errors(per_second, rate));
        }
        let _ = writeln!(table, " {} |", latency(per_second));
    }
    table
}

/// SLOGATE_UPDATE_GOLDEN=1 writes the table anew.
#[test]
fn the_table_of_margins_is_what_the_planner_says() {
    let text = fs::read_to_string(page()).unwrap();
    let begin = text.find(BEGIN).expect("the begin of the table") + BEGIN.len();
    let end = text.find(END).expect("the end of the table");
    let table = table();
    if std::env::var_os("SLOGATE_UPDATE_GOLDEN").is_some() {
        fs::write(page(), format!("{}{table}{}", &text[..begin], &text[end..])).unwrap();
        return;
    }
    assert!(text[begin..end] == table, "the page should have\n{table}");
}

#[test]
fn the_built_in_gate_is_what_the_table_is_for() {
    let set = slogate::policy::built_in();
    let gate = &set.gates[0];
    assert_eq!(gate.false_passes, FALSE_PASSES);
    assert_eq!(
        (gate.decide_within_ms - gate.warm_up_ms) as f64 / 1000.0,
        SECONDS
    );
    let slogate::policy::CheckSpec::Compare(errors) = &gate.checks[0].spec else {
        panic!("the first check compares")
    };
    assert_eq!(errors.pass_within.relative, Some(RELATIVE));
    assert_eq!(errors.min_events as f64, EVENTS_MIN);
}

#[test]
fn every_reason_is_explained() {
    let text = fs::read_to_string(page()).unwrap();
    let missing: Vec<&str> = Reason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .filter(|reason| !text.contains(&format!("| `{reason}` |")))
        .collect();
    assert!(
        missing.is_empty(),
        "not in the table of reasons: {missing:?}"
    );
}
