//! How long will it take? What a test can be expected to see with the traffic there is.
//!
//! With constant rates the logarithm of each bet of a mixture grows in a straight line, so the
//! expected path of the evidence is known in advance: `ln E(T) = ln Σ_j w_j e^{g_j T}`, `g_j`
//! being what a second of traffic adds. A [`Prospect`] is that path: for two event counts, or for
//! the shares above a latency threshold. [`time_to_verdict`] solves for the moment it reaches the
//! threshold; [`smallest_margin`] for the absolute tolerance at which a pass still comes in time.
//! Real verdicts scatter around it: for a pass or fail on a handful of events by half or more of
//! the time.
//!
//! What a rollout can show by its end is told by the test that ends with it: [`smallest_rise`] of
//! an event rate, [`smallest_slowdown`] of a latency quantile. Both are the effect at which the
//! expected z-value is the level of the test plus that of the power asked for; for counts the
//! z-value is the signed root of the likelihood ratio, which holds for a handful of events too.
//!
//! Time spent warming up or soaking is not included, nor what is set aside for a late onset, nor
//! what other checks of a gate take: put their share into the threshold (see
//! [`crate::combine::log_threshold`]).

use crate::counts::CountTestParams;
use crate::counts::DISPERSION_MAX;
use crate::counts::ParamError;
use crate::kernel::CountBlock;
use crate::kernel::Tolerance;
use crate::mixture::Direction;
use crate::mixture::Mixture;
use crate::mixture::ODDS_NOT_WORSE;
use crate::mixture::ODDS_WORSE;
use crate::mixture::Setting;
use crate::normal;
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
    let Some(prospect) = Prospect::of_counts(params, traffic, baseline_rate, candidate_rate)?
    else {
        return Ok(None);
    };
    Ok(prospect.seconds_to(log_threshold).map(|seconds| {
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
        second_of_counts(&at(difference), traffic, baseline_rate, baseline_rate)
            .is_some_and(|second| second.log_e_after(seconds) >= log_threshold)
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

/// The evidence that traffic is expected to bring.
#[derive(Clone, Debug)]
pub struct Prospect {
    /// What a second of traffic adds on average.
    second: Mixture,
}

/// Shares of requests above a latency threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// The baseline's above its own threshold.
    pub baseline: f64,
    /// The candidate's above the tolerated multiple of that threshold.
    pub candidate: f64,
}

impl Prospect {
    /// Of a test of event rates. `None` where a side has no traffic.
    ///
    /// # Errors
    /// Names the parameter that is out of its range.
    pub fn of_counts(
        params: &CountTestParams,
        traffic: Traffic,
        baseline_rate: f64,
        candidate_rate: f64,
    ) -> Result<Option<Prospect>, ParamError> {
        params.check()?;
        traffic.check()?;
        ParamError::check("baseline_rate", baseline_rate, 0.0, 1.0)?;
        ParamError::check("candidate_rate", candidate_rate, 0.0, 1.0)?;
        let second = second_of_counts(params, traffic, baseline_rate, candidate_rate);
        Ok(second.map(|second| Prospect { second }))
    }

    /// Of a latency test that looks at one quantile (see [`crate::exceedance`]). `None` where a
    /// side has no traffic or no request is slow.
    ///
    /// # Errors
    /// Names the parameter that is out of its range.
    pub fn of_exceedances(
        traffic: Traffic,
        shares: Shares,
        dispersion: f64,
        direction: Direction,
    ) -> Result<Option<Prospect>, ParamError> {
        traffic.check()?;
        ParamError::check("baseline share", shares.baseline, 0.0, 1.0)?;
        ParamError::check("candidate share", shares.candidate, 0.0, 1.0)?;
        ParamError::check("dispersion", dispersion, 1.0, DISPERSION_MAX)?;
        let Some(block) = traffic.second(shares.baseline, shares.candidate) else {
            return Ok(None);
        };
        if shares.baseline <= 0.0 || shares.baseline >= 1.0 {
            return Ok(None);
        }
        let mut second = Mixture::new(match direction {
            Direction::Worse => &ODDS_WORSE,
            Direction::NotWorse => &ODDS_NOT_WORSE,
        });
        let tolerance = Tolerance {
            ratio: 1.0,
            difference: 0.0,
        };
        let setting = Setting {
            tolerance,
            baseline_rate: shares.baseline,
            tilt_scale: 1.0,
            dispersion,
        };
        second.push(&block, &setting);
        Ok(Some(Prospect { second }))
    }

    /// Seconds until the evidence, a convex function of time, is expected to reach `log_e` from
    /// none. `None` where it never will.
    pub fn seconds_to(&self, log_e: f64) -> Option<f64> {
        if log_e <= 0.0 {
            return Some(0.0);
        }
        if self.second.log_e_after(SECONDS_MAX).partial_cmp(&log_e)? == std::cmp::Ordering::Less {
            return None;
        }
        // On a log scale, for the same precision at a second and at a year.
        let short = |log_seconds: f64| self.second.log_e_after(log_seconds.exp()) < log_e;
        Some(edge(-14.0, SECONDS_MAX.ln(), short).exp())
    }

    /// Seconds until evidence that is at `from` now is expected to reach `to`; 0 where it has.
    /// Evidence below 0 has first to be won back, at the pace of the end. `None` where it never
    /// will.
    pub fn seconds_between(&self, from: f64, to: f64) -> Option<f64> {
        if from >= to {
            return Some(0.0);
        }
        let whole = self.seconds_to(to)?;
        if from > 0.0 {
            return Some((whole - self.seconds_to(from)?).max(0.0));
        }
        let a_bit_more = self.second.log_e_after(1.01 * whole) - self.second.log_e_after(whole);
        let back = if a_bit_more > 0.0 {
            -from * 0.01 * whole / a_bit_more
        } else {
            f64::INFINITY
        };
        Some(whole + back).filter(|seconds| *seconds <= SECONDS_MAX)
    }
}

/// How sure a test has to be, and how likely it shall show what is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Power {
    /// The error rate of the test, one-sided.
    pub alpha: f64,
    /// The probability with which the effect is to be shown, for example 0.8.
    pub power: f64,
}

impl Power {
    /// The z-value that has to be expected.
    fn z(&self) -> Result<f64, ParamError> {
        ParamError::check("alpha", self.alpha, 1e-300, 0.5)?;
        ParamError::check("power", self.power, 0.01, 0.9999)?;
        let level = normal::quantile(self.alpha).map_or(0.0, |z| -z);
        Ok(level + normal::quantile(self.power).unwrap_or(0.0))
    }
}

/// The smallest rise of the candidate's event rate over the baseline's that `candidate_total` and
/// `baseline_total` requests can be expected to show as worse than `params` tolerate (their
/// direction is not used). `None` where even a rate of 1 would not show.
///
/// # Errors
/// Names the parameter that is out of its range.
pub fn smallest_rise(
    params: &CountTestParams,
    candidate_total: f64,
    baseline_total: f64,
    baseline_rate: f64,
    power: Power,
) -> Result<Option<f64>, ParamError> {
    params.check()?;
    check_totals(candidate_total, baseline_total)?;
    ParamError::check("baseline_rate", baseline_rate, 0.0, 1.0)?;
    let z = power.z()?;
    let tolerated = params.ratio * baseline_rate + params.difference;
    let baseline_events = baseline_total * baseline_rate;
    // Twice the expected log-likelihood ratio of the split of events at this candidate rate
    // against the split at the tolerated one.
    let shows = |rate: f64| {
        let (x_c, x_b) = (candidate_total * rate, baseline_events);
        let (null_c, null_b) = (candidate_total * tolerated, baseline_events);
        let term = |x: f64, share: f64| {
            if x > 0.0 {
                x * (x / (share * (x_c + x_b))).ln()
            } else {
                0.0
            }
        };
        let share = null_c / (null_c + null_b);
        let log_ratio = term(x_c, share) + term(x_b, 1.0 - share);
        rate > tolerated && 2.0 * log_ratio / params.dispersion >= z * z
    };
    if candidate_total <= 0.0 || baseline_total <= 0.0 || tolerated >= 1.0 || !shows(1.0) {
        return Ok(None);
    }
    let rate = edge(tolerated, 1.0, |rate| !shows(rate));
    Ok(Some(rate - baseline_rate))
}

/// What is known of latencies around a quantile of the baseline's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail {
    /// The share of requests above it.
    pub share: f64,
    /// How fast that share falls: `-d ln share / d ln latency`.
    pub slope: f64,
    /// How much more the share varies than that of independent requests.
    pub dispersion: f64,
    /// The standard deviation, on a log scale, of the difference that the instances of the two
    /// sides make by themselves.
    pub spread: f64,
}

/// The smallest relative slowdown of a quantile (0.1 is a tenth slower) that `candidate_total` and
/// `baseline_total` requests can be expected to show as beyond `tolerated`. `None` without requests,
/// and where it would take a slowdown of a hundred times.
///
/// # Errors
/// Names the parameter that is out of its range.
pub fn smallest_slowdown(
    tolerated: f64,
    candidate_total: f64,
    baseline_total: f64,
    tail: Tail,
    power: Power,
) -> Result<Option<f64>, ParamError> {
    ParamError::check("tolerated", tolerated, 0.0, 100.0)?;
    check_totals(candidate_total, baseline_total)?;
    ParamError::check("share", tail.share, 1e-9, 1.0 - 1e-9)?;
    ParamError::check("slope", tail.slope, 1e-6, 1e6)?;
    ParamError::check("dispersion", tail.dispersion, 1.0, DISPERSION_MAX)?;
    ParamError::check("spread", tail.spread, 0.0, 10.0)?;
    let z = power.z()?;
    if candidate_total <= 0.0 || baseline_total <= 0.0 {
        return Ok(None);
    }
    let per_request = tail.dispersion * (1.0 - tail.share) / tail.share / tail.slope.powi(2);
    let sampling = per_request * (1.0 / candidate_total + 1.0 / baseline_total);
    // Beyond what instances differ by, and beyond what is tolerated.
    let beyond_spread = z * (sampling + tail.spread.powi(2)).sqrt();
    let beyond_tolerance = tolerated.ln_1p() + z * sampling.sqrt();
    let slowdown = beyond_spread.max(beyond_tolerance).exp_m1();
    Ok(Some(slowdown).filter(|slowdown| *slowdown <= 100.0))
}

fn check_totals(candidate_total: f64, baseline_total: f64) -> Result<(), ParamError> {
    ParamError::check("candidate_total", candidate_total, 0.0, 1e15)?;
    ParamError::check("baseline_total", baseline_total, 0.0, 1e15)
}

impl Traffic {
    fn check(&self) -> Result<(), ParamError> {
        let check = |field, found| ParamError::check(field, found, 0.0, 1e9);
        check("candidate_per_second", self.candidate_per_second)?;
        check("baseline_per_second", self.baseline_per_second)
    }

    /// What a second brings on average; `None` where a side has no traffic.
    fn second(&self, baseline_rate: f64, candidate_rate: f64) -> Option<CountBlock> {
        let (n_c, n_b) = (self.candidate_per_second, self.baseline_per_second);
        (n_c > 0.0 && n_b > 0.0).then_some(CountBlock {
            candidate_total: n_c,
            candidate_events: n_c * candidate_rate,
            baseline_total: n_b,
            baseline_events: n_b * baseline_rate,
        })
    }
}

/// A mixture that holds what a second of traffic adds on average.
fn second_of_counts(
    params: &CountTestParams,
    traffic: Traffic,
    baseline_rate: f64,
    candidate_rate: f64,
) -> Option<Mixture> {
    let second = traffic.second(baseline_rate, candidate_rate)?;
    let mut mixture = params.mixture();
    mixture.push(&second, &params.setting(baseline_rate, 0.0));
    Some(mixture)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::CountTest;
    use crate::special::beta_tails;
    use crate::testing::binomial;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

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

    const ASKED: Power = Power {
        alpha: 0.025,
        power: 0.8,
    };

    /// The sample size by the usual formula, `(z_α √(2 p̄ q̄) + z_β √(p_1 q_1 + p_2 q_2))² / d²`: 1 %
    /// against 2 %, one-sided 2.5 %, power 80 %, takes 2,319 requests a side.
    #[test]
    fn a_rise_that_shows_agrees_with_the_sample_size_tables() {
        let none = params(1.0, 0.0, Direction::Worse);
        let rise = smallest_rise(&none, 2319.0, 2319.0, 0.01, ASKED);
        let rise = rise.expect("valid").expect("shows");
        assert!((rise - 0.01).abs() < 0.0005, "{rise}");
        // Without a baseline event a handful of the candidate's shows.
        let rise = smallest_rise(&none, 100.0, 100.0, 0.0, ASKED).expect("valid");
        assert_eq!(rise, None, "no rate to compare with");
        let tolerant = params(1.5, 0.001, Direction::Worse);
        let rise = smallest_rise(&tolerant, 1e12, 1e12, 0.01, ASKED);
        let rise = rise.expect("valid").expect("shows");
        assert!((rise - 0.006).abs() < 1e-6, "{rise}");
        let few = smallest_rise(&none, 2.0, 1e3, 0.5, ASKED).expect("valid");
        assert_eq!(few, None);
        assert!(smallest_rise(&none, -1.0, 1.0, 0.5, ASKED).is_err());
    }

    #[test]
    fn a_slowdown_that_shows_is_bounded_by_tolerance_and_spread() {
        let tail = Tail {
            share: 0.05,
            slope: 2.0,
            dispersion: 1.0,
            spread: 0.0,
        };
        let at =
            |tolerated, n, tail| smallest_slowdown(tolerated, n, n, tail, ASKED).expect("valid");
        // z 2.8 times √(19 / 4 × 2 / 10,000).
        let found = at(0.0, 1e4, tail).expect("shows");
        assert!(
            (found - (2.801_58_f64 * 0.030_822).exp_m1()).abs() < 1e-4,
            "{found}"
        );
        let many = at(0.1, 1e14, tail).expect("shows");
        assert!((many - 0.1).abs() < 1e-5, "{many}");
        let spread = at(
            0.1,
            1e14,
            Tail {
                spread: 0.05,
                ..tail
            },
        )
        .expect("shows");
        assert!(
            (spread - (2.801_58_f64 * 0.05).exp_m1()).abs() < 1e-4,
            "{spread}"
        );
        assert_eq!(at(0.1, 0.0, tail), None);
    }

    /// Evidence that is on its way needs only the rest; evidence that was lost needs more.
    #[test]
    fn what_is_left_depends_on_where_the_evidence_is() {
        let margin = params(1.25, 0.001, Direction::NotWorse);
        let prospect = Prospect::of_counts(&margin, traffic(5.0, 95.0), 0.002, 0.002);
        let prospect = prospect.expect("valid").expect("traffic");
        let whole = prospect.seconds_to(TWENTY).expect("reached");
        let left = |from| prospect.seconds_between(from, TWENTY).expect("reached");
        assert!((left(0.0) - whole).abs() < 1e-9 * whole);
        assert!(left(1.5) < 0.7 * whole && left(1.5) > 0.0);
        assert_eq!(left(3.0), 0.0);
        assert!(left(-2.0) > 1.2 * whole);
        let hopeless = Prospect::of_counts(&margin, traffic(5.0, 95.0), 0.002, 0.01);
        let hopeless = hopeless.expect("valid").expect("traffic");
        assert_eq!(hopeless.seconds_between(-1.0, TWENTY), None);
    }

    /// A pass on the 95th percentile, 20 % tolerated: a twentieth above it, a thirtieth above
    /// 1.2 times it.
    #[test]
    fn a_latency_pass_takes_longer_with_less_room() {
        let seconds = |candidate| {
            let shares = Shares {
                baseline: 0.05,
                candidate,
            };
            Prospect::of_exceedances(traffic(5.0, 95.0), shares, 1.0, Direction::NotWorse)
                .expect("valid")
                .expect("traffic")
                .seconds_to(TWENTY)
        };
        let (roomy, tight) = (
            seconds(0.033).expect("reached"),
            seconds(0.045).expect("reached"),
        );
        assert!(
            roomy > 30.0 && roomy < tight && tight < 3600.0 * 10.0,
            "{roomy} {tight}"
        );
        assert_eq!(seconds(0.05), None);
    }

    /// A test of the split of events at the end of a rollout, played 600 times.
    #[test]
    fn a_rise_that_shows_does_so_four_times_in_five() {
        let mut rng = ChaCha8Rng::seed_from_u64(71);
        for (n_c, n_b, rate) in [
            (2_000, 38_000, 0.002),
            (500, 500, 0.05),
            (300, 5_700, 0.0005),
        ] {
            let (mine, theirs) = (f64::from(n_c), f64::from(n_b));
            let none = params(1.0, 0.0, Direction::Worse);
            let rise = smallest_rise(&none, mine, theirs, rate, ASKED);
            let rise = rise.expect("valid").expect("shows");
            let share = mine / (mine + theirs);
            let mut shown = 0;
            for _ in 0..600 {
                let x_c = binomial(&mut rng, n_c, rate + rise);
                let x_b = binomial(&mut rng, n_b, rate);
                // P(X ≥ x_c) of Bin(x_c + x_b, share), half of the point itself.
                let tail = |x: f64| {
                    if x <= 0.0 {
                        return 1.0;
                    }
                    let tails = beta_tails(x, x_c + x_b - x + 1.0, share).expect("valid");
                    tails.ln_lower.exp()
                };
                let p = 0.5 * (tail(x_c) + tail((x_c + 1.0).min(x_c + x_b)));
                shown += u32::from(p <= ASKED.alpha);
            }
            let power = f64::from(shown) / 600.0;
            assert!((power - 0.8).abs() < 0.1, "{power} at {rate}");
        }
    }

    /// The mean of 200 passes, in seconds, beside what was planned.
    #[test]
    fn passes_come_about_when_planned() {
        let mut rng = ChaCha8Rng::seed_from_u64(72);
        let margin = params(1.5, 0.002, Direction::NotWorse);
        let plan = time_to_verdict(&margin, traffic(10.0, 90.0), 0.002, 0.002, TWENTY);
        let planned = plan.expect("valid").expect("reached").seconds;
        let mut total = 0.0;
        for _ in 0..200 {
            let mut test = CountTest::new(margin).expect("valid");
            while test.log_e_max() < TWENTY {
                let block = CountBlock {
                    candidate_total: 300.0,
                    candidate_events: binomial(&mut rng, 300, 0.002),
                    baseline_total: 2700.0,
                    baseline_events: binomial(&mut rng, 2700, 0.002),
                };
                test.push(&block).expect("counts");
                total += 30.0;
            }
        }
        let mean = total / 200.0;
        assert!(
            mean > 0.7 * planned && mean < 1.4 * planned,
            "{mean}, planned {planned}"
        );
    }

    proptest! {
        #[test]
        fn more_requests_show_smaller_changes(
            baseline in 1e-4..0.3_f64, n in 50.0..1e6_f64, more in 1.0..50.0_f64,
            dispersion in 1.0..10.0_f64,
        ) {
            let of = CountTestParams { dispersion, ..params(1.1, 0.0, Direction::Worse) };
            let rise = |n| smallest_rise(&of, n, 9.0 * n, baseline, ASKED).expect("valid");
            let (few, many) = (rise(n), rise(n * more));
            if let Some(few) = few {
                let many = many.expect("more show too");
                prop_assert!(many <= few * (1.0 + 1e-9) && many >= 0.1 * baseline * (1.0 - 1e-9));
            }
        }

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
