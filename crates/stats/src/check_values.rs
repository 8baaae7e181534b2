//! Every published check value, read from the file they come in.
//!
//! The figures that matter most are literals in the tests beside the code; this reads the whole
//! file where `SLOGATE_CONFORMANCE_DIR` names the folder that holds it.

use crate::bounded::BettingTest;
use crate::bounded::EmpiricalBernstein;
use crate::combine::bh;
use crate::combine::closure;
use crate::conjugate::beta_one_sided;
use crate::conjugate::dirichlet_multinomial;
use crate::counts::CountTest;
use crate::counts::CountTestParams;
use crate::detect::Detector;
use crate::detect::Starts;
use crate::dispersion::Count;
use crate::dispersion::Variance;
use crate::dispersion::pearson;
use crate::distribution::distance;
use crate::distribution::share_error;
use crate::interval::DifferenceSequence;
use crate::interval::RatioSequence;
use crate::kernel::CountBlock;
use crate::kernel::Tolerance;
use crate::kernel::common_log_e;
use crate::means::one_sided_log_e;
use crate::means::one_sided_rho;
use crate::mixture::Direction;
use crate::mixture::RATE_WORSE;
use crate::persistence::AgeBlock;
use crate::persistence::fit;
use crate::plan::Traffic;
use crate::plan::time_to_verdict;
use serde_json::Value;
use std::path::PathBuf;

const FILE: &str = "statistics-check-values.json";

fn check_values() -> Option<Value> {
    let Some(dir) = std::env::var_os("SLOGATE_CONFORMANCE_DIR") else {
        println!("skipped: SLOGATE_CONFORMANCE_DIR is not set");
        return None;
    };
    let path = PathBuf::from(dir).join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).expect("the file is JSON")),
        Err(error) => {
            println!("skipped: {}: {error}", path.display());
            None
        }
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .expect("a list")
        .iter()
        .map(number)
        .collect()
}

fn rows(value: &Value) -> Vec<Vec<f64>> {
    value
        .as_array()
        .expect("a list")
        .iter()
        .map(numbers)
        .collect()
}

/// The file's order is candidate events and total, baseline events and total.
fn block(row: &[f64]) -> CountBlock {
    CountBlock {
        candidate_events: row[0],
        candidate_total: row[1],
        baseline_events: row[2],
        baseline_total: row[3],
    }
}

fn assert_near(found: f64, expected: f64, relative: f64, what: &str) {
    let error = (found - expected).abs() / expected.abs().max(1e-3);
    assert!(
        error <= relative,
        "{what}: found {found}, expected {expected}"
    );
}

fn assert_sequence(case: &Value, params: CountTestParams, what: &str) {
    let mut test = CountTest::new(params).expect("valid parameters");
    for (row, expected) in rows(&case["blocks"]).iter().zip(numbers(&case["logE"])) {
        test.push(&block(row)).expect("a valid block");
        assert_near(test.log_e(), expected, 1e-9, what);
    }
}

#[test]
fn the_published_values_hold() {
    let Some(values) = check_values() else {
        return;
    };
    let grid = RATE_WORSE.tilts.iter().zip(&RATE_WORSE.log_weights);
    let expected = numbers(&values["fail_grid_r"]);
    for ((tilt, log_weight), (r, w)) in
        grid.zip(expected.iter().zip(numbers(&values["fail_grid_logw"])))
    {
        assert_near(*tilt, *r, 1e-12, "tilt");
        assert_near(*log_weight, w, 1e-12, "weight");
    }
    for name in ["fail_seq", "fail_seq_phi3"] {
        let case = &values[name];
        let params = CountTestParams {
            ratio: number(&case["rho0"]),
            difference: 0.0,
            dispersion: number(&case["phi"]),
            direction: Direction::Worse,
        };
        assert_sequence(case, params, name);
    }
    let case = &values["pass_seq"];
    let params = CountTestParams {
        ratio: number(&case["rho"]),
        difference: number(&case["delta"]),
        dispersion: 1.0,
        direction: Direction::NotWorse,
    };
    assert_sequence(case, params, "pass_seq");
    assert_kernels_and_intervals(&values);
    assert_plans_and_dispersion(&values);
    assert_closed_forms_and_bounds(&values);
    assert_combinations_and_detectors(&values);
}

/// A key added to the file is not overlooked here.
#[test]
fn every_published_value_has_a_test() {
    let Some(values) = check_values() else {
        return;
    };
    let known = [
        "fail_grid_r",
        "fail_grid_logw",
        "fail_seq",
        "fail_seq_phi3",
        "pass_seq",
        "bern",
        "beta_onesided",
        "dirichlet",
        "ratio_cs",
        "diff_cs",
        "quantile",
        "eb_cs",
        "betting_logE_m.25",
        "pearson_phi",
        "planner_sec",
        "ebh",
        "eholm",
        "edetector",
        "normal_onesided_S20_V60_vopt60",
        "persistence_decay",
        "persistence_step",
        // Literals in the tests of `counts`, which alone can change the tolerance by block.
        "fail_seq_delta",
    ];
    let keys = values.as_object().expect("an object").keys();
    let unknown: Vec<_> = keys.filter(|key| !known.contains(&key.as_str())).collect();
    assert!(unknown.is_empty(), "without a test: {unknown:?}");
}

fn assert_closed_forms_and_bounds(values: &Value) {
    for case in values["beta_onesided"].as_array().expect("a list") {
        let field = |name: &str| number(&case[name]);
        let prior = (field("a"), field("b"));
        let found = beta_one_sided(field("xC"), field("xB"), field("th0"), prior);
        assert_near(found.expect("valid"), field("logE"), 1e-11, "beta_onesided");
    }
    for case in values["dirichlet"].as_array().expect("a list") {
        let [n, shares, prior] = ["n", "th0", "alpha"].map(|name| numbers(&case[name]));
        let found = dirichlet_multinomial(&n, &shares, &prior).expect("valid");
        assert_near(found, number(&case["logE"]), 1e-11, "dirichlet");
    }

    let case = &values["quantile"];
    let field = |name: &str| number(&case[name]);
    for (found, name) in [
        (share_error(1e3, 0.95, 0.05), "hr_f_t1000_p95"),
        (share_error(1e4, 0.95, 0.05), "hr_f_t10000_p95"),
        (distance(1e3, 0.05), "dkw_1000"),
        (distance(18e3, 0.025), "dkw_18000_a025"),
    ] {
        assert_near(found, field(name), 1e-12, name);
    }

    let case = &values["eb_cs"];
    let alpha = number(&case["alpha"]);
    let mut mean = EmpiricalBernstein::new(0.0, 1.0, 1.0 - alpha).expect("valid");
    let mut test = BettingTest::new(0.0, 1.0, 0.25, alpha).expect("valid");
    let values_seen = [0.2, 0.4, 0.1, 0.6, 0.3, 0.5, 0.2, 0.7, 0.4, 0.3];
    for value in values_seen.into_iter().cycle().take(100) {
        mean.push(value).expect("in range");
        test.push(value).expect("in range");
    }
    let (found, expected) = (mean.interval(), numbers(&case["lo_hi"]));
    assert_near(found.lower, expected[0], 1e-12, "eb_cs, lower");
    assert_near(found.upper, expected[1], 1e-12, "eb_cs, upper");
    let name = "betting_logE_m.25";
    assert_near(test.log_e(), number(&values[name]), 1e-12, name);
}

fn assert_combinations_and_detectors(values: &Value) {
    let case = &values["ebh"];
    let log_es: Vec<f64> = numbers(&case["E"]).iter().map(|e| e.ln()).collect();
    let named = bh(&log_es, number(&case["alpha"]));
    let named: Vec<f64> = (0..named.len())
        .filter(|i| named[*i])
        .map(|i| i as f64)
        .collect();
    assert_eq!(named, numbers(&case["reject"]), "ebh");

    let equal: Vec<(f64, f64)> = log_es.iter().map(|log_e| (*log_e, 1.0)).collect();
    for (found, expected) in closure(&equal).iter().zip(numbers(&values["eholm"])) {
        assert_near(found.exp(), expected, 1e-12, "eholm");
    }

    let decay = [12.0, 9.0, 6.0, 4.0, 3.0, 2.0, 1.0, 1.0, 0.0, 1.0];
    let step = [3.0, 2.0, 4.0, 3.0, 3.0, 2.0, 4.0, 3.0, 3.0, 3.0];
    for (events, name) in [(decay, "persistence_decay"), (step, "persistence_step")] {
        let block = |(age, events): (usize, f64)| AgeBlock {
            age: age as f64,
            total: 300.0,
            events,
            tolerated: 0.0011,
        };
        let blocks: Vec<AgeBlock> = events.into_iter().enumerate().map(block).collect();
        let found = fit(&blocks, 3.0, 1.0).expect("valid").log_ratio;
        assert_near(found, number(&values[name]), 1e-6, name);
    }

    let case = &values["edetector"];
    for (starts, name) in [(Starts::All, "SR"), (Starts::Best, "CUSUM")] {
        let mut detector = Detector::new(starts);
        for (e, expected) in numbers(&case["e"]).iter().zip(numbers(&case[name])) {
            detector.push(e.ln());
            assert_near(detector.log_value().exp(), expected, 1e-12, name);
        }
    }
}

fn assert_kernels_and_intervals(values: &Value) {
    let equal = Tolerance {
        ratio: 1.0,
        difference: 0.0,
    };
    for case in values["bern"].as_array().expect("a list") {
        let field = |name: &str| number(&case[name]);
        let block = block(&[field("xC"), field("nC"), field("xB"), field("nB")]);
        let found = common_log_e(&block, equal, field("thB"), field("odds"));
        assert_near(found, field("loge"), 1e-8, "bern");
    }

    let case = &values["ratio_cs"];
    let mut ratio = RatioSequence::new(1.0).expect("valid");
    for row in rows(&case["blocks"]) {
        ratio.push(&block(&row)).expect("a valid block");
    }
    let found = ratio
        .interval(1.0 - number(&case["alpha"]))
        .expect("events");
    let expected = numbers(&case["lo_mid_hi"]);
    assert_near(found.lower, expected[0], 1e-6, "ratio, lower");
    assert_near(
        found.estimate.expect("both sides"),
        expected[1],
        1e-3,
        "ratio",
    );
    assert_near(
        found.upper.expect("bounded"),
        expected[2],
        1e-6,
        "ratio, upper",
    );

    let case = &values["diff_cs"];
    let mut difference = DifferenceSequence::new(1.0).expect("valid");
    for row in rows(&case["blocks"]) {
        difference.push(&block(&row)).expect("a valid block");
    }
    let found = difference.interval(1.0 - number(&case["alpha"]));
    let found = found.expect("requests");
    let expected = numbers(&case["lo_hi"]);
    assert_near(found.lower, expected[0], 1e-9, "difference, lower");
    assert_near(found.upper, expected[1], 1e-9, "difference, upper");
}

fn assert_plans_and_dispersion(values: &Value) {
    for case in values["planner_sec"].as_array().expect("a list") {
        let field = |name: &str| number(&case[name]);
        let params = CountTestParams {
            ratio: field("rho0"),
            difference: field("delta"),
            dispersion: 1.0,
            direction: Direction::Worse,
        };
        let traffic = Traffic {
            candidate_per_second: field("rC"),
            baseline_per_second: field("rB"),
        };
        let threshold = -field("alpha").ln();
        let plan = time_to_verdict(&params, traffic, field("pB"), field("pC"), threshold);
        let plan = plan.expect("valid").expect("reached");
        assert_near(plan.seconds, field("seconds"), 1e-9, "planner_sec");
    }

    let case = &values["pearson_phi"];
    let cells: Vec<Count> = numbers(&case["X"])
        .into_iter()
        .zip(numbers(&case["N"]))
        .map(|(events, total)| Count { total, events })
        .collect();
    let found = pearson(&cells, Variance::Poisson).expect("events");
    assert_near(found, number(&case["phi"]), 1e-12, "pearson_phi");

    let expected = number(&values["normal_onesided_S20_V60_vopt60"]);
    let found = one_sided_log_e(20.0, 60.0, one_sided_rho(60.0, 0.05));
    assert_near(found, expected, 1e-9, "normal_onesided");
}
