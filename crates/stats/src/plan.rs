//! How long will it take? What a test can be expected to see with the traffic there is.
//!
//! With constant rates the logarithm of each bet of a mixture grows in a straight line, so the
//! expected path of the evidence is known in advance: `ln E(T) = ln Σ_j w_j e^{g_j T}`, `g_j`
//! being what a second of traffic adds. [`time_to_verdict`] solves for the moment it reaches the
//! threshold; [`smallest_margin`] for the absolute tolerance at which a pass still comes in time.
//! Real verdicts scatter around it: for a pass or fail on a handful of events by half or more of
//! the time.
//!
//! Time spent warming up or soaking is not included, nor what is set aside for a late onset, nor
//! what other checks of a gate take: put their share into the threshold (see
//! [`crate::combine::log_threshold`]).

use crate::counts::CountTestParams;
use crate::counts::ParamError;
use crate::kernel::CountBlock;
use crate::mixture::Direction;
use crate::mixture::Mixture;
use crate::special::edge;

/// Requests on both sides of a rollout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Requests per second to the candidate.
    pub candidate_per_second: f64,
    /// Requests per second to the baseline.
    pub baseline_per_second: f64,
}

/// What a verdict is expected to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Seconds of traffic.
    pub seconds: f64,
    /// Requests to the candidate by then.
    pub candidate_total: f64,
    /// Bad ones among them.
    pub candidate_events: f64,
}

/// Longer than thirty years is never.
const SECONDS_MAX: f64 = 1e9;

/// When a test is expected to reach `log_threshold` if the two sides have these rates.
///
/// `None` where it never will: the rates are on the tolerated side (or, for
/// [`Direction::NotWorse`], are not), or a side has no traffic.
///
/// # Errors
/// Names the parameter that is out of its range.
pub fn time_to_verdict(
    params: &CountTestParams,
    traffic: Traffic,
    baseline_rate: f64,
    candidate_rate: f64,
    log_threshold: f64,
) -> Result<Option<Plan>, ParamError> {
    params.check()?;
    traffic.check()?;
    ParamError::check("baseline_rate", baseline_rate, 0.0, 1.0)?;
    ParamError::check("candidate_rate", candidate_rate, 0.0, 1.0)?;
    ParamError::check("log_threshold", log_threshold, 0.0, 1e6)?;
    let Some(growth) = growth(params, traffic, baseline_rate, candidate_rate) else {
        return Ok(None);
    };
    Ok(reach(&growth, log_threshold).map(|seconds| {
        let candidate_total = seconds * traffic.candidate_per_second;
        Plan {
            seconds,
            candidate_total,
            candidate_events: candidate_total * candidate_rate,
        }
    }))
}

/// The smallest absolute tolerance at which a candidate as good as the baseline is expected to
/// pass within `seconds`, at the ratio and dispersion of `params` (its difference and direction are
/// not used). `None` where no tolerance is wide enough.
///
/// # Errors
/// Names the parameter that is out of its range.
pub fn smallest_margin(
    params: &CountTestParams,
    traffic: Traffic,
    baseline_rate: f64,
    seconds: f64,
    log_threshold: f64,
) -> Result<Option<f64>, ParamError> {
    let at = |difference: f64| CountTestParams {
        difference,
        direction: Direction::NotWorse,
        ..*params
    };
    at(0.0).check()?;
    traffic.check()?;
    ParamError::check("baseline_rate", baseline_rate, 0.0, 1.0)?;
    ParamError::check("seconds", seconds, 0.0, SECONDS_MAX)?;
    ParamError::check("log_threshold", log_threshold, 0.0, 1e6)?;
    let in_time = |difference: f64| {
        growth(&at(difference), traffic, baseline_rate, baseline_rate)
            .is_some_and(|growth| growth.log_e_after(seconds) >= log_threshold)
    };
    // The widest tolerance that still leaves something to rule out.
    let widest = (1.0 - params.ratio * baseline_rate).min(1.0) - 1e-6;
    if widest <= 0.0 || !in_time(widest) {
        return Ok(None);
    }
    if in_time(0.0) {
        return Ok(Some(0.0));
    }
    Ok(Some(edge(0.0, widest, |difference| !in_time(difference))))
}

impl Traffic {
    fn check(&self) -> Result<(), ParamError> {
        let check = |field, found| ParamError::check(field, found, 0.0, 1e9);
        check("candidate_per_second", self.candidate_per_second)?;
        check("baseline_per_second", self.baseline_per_second)
    }
}

/// A mixture that holds what a second of traffic adds on average.
fn growth(
    params: &CountTestParams,
    traffic: Traffic,
    baseline_rate: f64,
    candidate_rate: f64,
) -> Option<Mixture> {
    let (n_c, n_b) = (traffic.candidate_per_second, traffic.baseline_per_second);
    if n_c <= 0.0 || n_b <= 0.0 {
        return None;
    }
    let second = CountBlock {
        candidate_total: n_c,
        candidate_events: n_c * candidate_rate,
        baseline_total: n_b,
        baseline_events: n_b * baseline_rate,
    };
    let mut mixture = params.mixture();
    mixture.push(&second, &params.setting(baseline_rate, 0.0));
    Some(mixture)
}

/// The time at which the evidence, a convex function of it, reaches the threshold.
fn reach(growth: &Mixture, log_threshold: f64) -> Option<f64> {
    if growth.log_e_after(SECONDS_MAX) < log_threshold {
        return None;
    }
    // On a log scale, for the same precision at a second and at a year.
    let short = |log_seconds: f64| growth.log_e_after(log_seconds.exp()) < log_threshold;
    Some(edge(-14.0, SECONDS_MAX.ln(), short).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn params(ratio: f64, difference: f64, direction: Direction) -> CountTestParams {
        CountTestParams {
            ratio,
            difference,
            dispersion: 1.0,
            direction,
        }
    }

    fn traffic(candidate_per_second: f64, baseline_per_second: f64) -> Traffic {
        Traffic {
            candidate_per_second,
            baseline_per_second,
        }
    }

    const TWENTY: f64 = 2.995_732_273_553_991;

    #[test]
    fn failing_takes_the_known_times() {
        let worse = params(1.1, 0.0, Direction::Worse);
        for (baseline, candidate, n_c, n_b, expected) in [
            (0.001, 0.002, 5.0, 95.0, 3130.3387360738416),
            (0.005, 0.01, 5.0, 95.0, 626.0677472147685),
            (0.001, 0.01, 5.0, 95.0, 79.97590414269371),
            (0.001, 0.3, 5.0, 95.0, 1.1143273664346518),
            (0.001, 0.05, 0.05, 0.95, 831.4388326268185),
            (0.001, 0.002, 50.0, 950.0, 313.03387360738446),
        ] {
            let plan = time_to_verdict(&worse, traffic(n_c, n_b), baseline, candidate, TWENTY);
            let plan = plan.expect("valid").expect("reached");
            assert!(
                (plan.seconds / expected - 1.0).abs() < 1e-9,
                "{plan:?}, not {expected}"
            );
            assert!((plan.candidate_events - plan.seconds * n_c * candidate).abs() < 1e-9);
        }
    }

    /// Published to two digits for 0.1 % errors and a twentieth of the traffic.
    #[test]
    fn margins_have_the_known_sizes() {
        let any = params(1.0, 0.0, Direction::NotWorse);
        for (requests, expected) in [
            (600.0, 0.0082),
            (1_800.0, 0.0034),
            (6_000.0, 0.0016),
            (18_000.0, 0.00086),
        ] {
            let margin = smallest_margin(&any, traffic(1.0, 19.0), 0.001, requests, TWENTY);
            let margin = margin.expect("valid").expect("exists");
            assert!(
                (margin / expected - 1.0).abs() < 0.03,
                "{margin}, not {expected}"
            );
            let at_margin = params(1.0, margin, Direction::NotWorse);
            let plan = time_to_verdict(&at_margin, traffic(1.0, 19.0), 0.001, 0.001, TWENTY);
            let plan = plan.expect("valid").expect("reached");
            assert!((plan.seconds / requests - 1.0).abs() < 1e-6, "{plan:?}");
        }
    }

    #[test]
    fn what_never_happens_has_no_plan() {
        let worse = params(1.25, 0.001, Direction::Worse);
        let some = traffic(5.0, 95.0);
        let plan = |traffic, candidate| {
            time_to_verdict(&worse, traffic, 0.001, candidate, TWENTY).expect("valid")
        };
        assert_eq!(plan(some, 0.002), None);
        assert!(plan(some, 0.02).is_some());
        assert_eq!(plan(traffic(0.0, 95.0), 0.02), None);
        let none = smallest_margin(&worse, some, 0.001, 0.1, TWENTY).expect("valid");
        assert_eq!(none, None);
    }

    #[test]
    fn what_is_no_rate_is_refused_by_name() {
        let worse = params(1.1, 0.0, Direction::Worse);
        let error = time_to_verdict(&worse, traffic(1.0, 1.0), 1.5, 0.1, TWENTY);
        assert_eq!(
            error.expect_err("no rate").to_string(),
            "baseline_rate: expected a number from 0 to 1, found 1.5"
        );
        assert!(time_to_verdict(&worse, traffic(f64::NAN, 1.0), 0.1, 0.1, TWENTY).is_err());
    }
    proptest! {
        #[test]
        fn a_larger_regression_and_more_traffic_never_take_longer(
            baseline in 0.0..0.3_f64, more in 1.3..3.0_f64, even_more in 1.0..3.0_f64,
            busier in 1.0..10.0_f64, difference in 0.0..0.01_f64,
        ) {
            let worse = params(1.1, difference, Direction::Worse);
            let seconds = |traffic, candidate: f64| {
                time_to_verdict(&worse, traffic, baseline, candidate.min(1.0), TWENTY)
                    .expect("valid")
                    .map_or(f64::INFINITY, |plan| plan.seconds)
            };
            let candidate = more * (1.1 * baseline + difference);
            let slow = seconds(traffic(2.0, 30.0), candidate);
            prop_assert!(seconds(traffic(2.0, 30.0), even_more * candidate) <= slow * 1.001);
            let busy = seconds(traffic(busier * 2.0, busier * 30.0), candidate);
            prop_assert!((busy * busier / slow - 1.0).abs() < 1e-6 || busy == slow);
        }
    }
}
