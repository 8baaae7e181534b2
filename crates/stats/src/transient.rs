//! Does it stay, or does it pass? A step told from a transient.
//!
//! New instances are cold: for some minutes they fail more and answer more slowly, in good
//! releases too. How long is not known beforehand. So before a difference counts as one of
//! versions, "the tolerated baseline plus a constant", with or without a transient on top, has to
//! explain the candidate's minutes, from the very first one on, better than "the tolerated
//! baseline plus `A e^{-age/τ}`" alone. The measure is a Bayes factor: the likelihood of each
//! model averaged over sizes and time constants ([`TAUS`]). An average asks less
//! than the best fit of a transient would: what only a transient of just the right size and
//! length explains is no good explanation.
//!
//! Time constants are multiples of a pace, which is the warm-up that the policy expects: those of
//! [`TAUS`] reach three times as far, since a warm-up that is longer than configured is the rule.
//! Long ones weigh more than short ones, because those are what a difference that stays is taken
//! for at first.
//!
//! What this costs: a difference of constant size is told from a slow transient only after a time
//! comparable with the transient's. Ages are those of instances, each counted from its own first
//! traffic, so instances that join later help.

use crate::special::{log_add_exp, log_spaced, log_sum_exp};

/// Time constants of the transients that are considered, in paces.
pub const TAUS: [f64; TAUS_COUNT] = [0.35, 0.55, 0.9, 1.4, 2.1, 3.15];

/// How many there are.
pub const TAUS_COUNT: usize = 6;

/// How much more each time constant weighs than the one before.
const TAU_WEIGHT: f64 = 1.5;

/// `e^{-age/τ}` for each time constant, of an age in paces.
pub fn decays(age: f64) -> [f64; TAUS_COUNT] {
    TAUS.map(|tau| (-age.max(0.0) / tau).exp())
}

/// Events of the candidate in one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EventBin {
    /// The candidate's requests.
    pub total: f64,
    /// Of those, the bad ones.
    pub events: f64,
    /// The share of bad ones that the baseline makes tolerable in this minute.
    pub tolerated: f64,
    /// For each time constant, the sum over requests of `e^{-age/τ}`.
    pub decayed: [f64; TAUS_COUNT],
}

/// The weight of "no transient at all" beside all transients together.
const NO_TRANSIENT: f64 = 0.4;

/// How many sizes of a difference are tried, evenly spaced on a log scale.
const SIZES: usize = 16;

/// So many events tell all about the shape of a difference that may be believed: real warm-ups are
/// not quite exponential. With more, the likelihood is tempered.
const EVENTS_BELIEVED: f64 = 150.0;

/// The sizes tried for the rate of a transient at age 0.
const TRANSIENT_RATES: (f64, f64) = (0.005, 0.3);

/// The sizes tried for a rate that stays.
const STAYING_RATES: (f64, f64) = (0.0005, 0.4);

/// The sizes tried for a transient slowness: 5 % to four times slower on top.
const TRANSIENT_SHIFTS: (f64, f64) = (0.05, 4.0);

/// The log shifts tried for a slowness that stays, beyond what is tolerated.
const STAYING_SHIFTS: (f64, f64) = (0.01, 1.5);

/// How much better events are explained by a difference that stays: the logarithm of the Bayes
/// factor, with Poisson likelihoods tempered by `dispersion`.
pub fn staying_events(bins: &[EventBin], dispersion: f64) -> f64 {
    let used: Vec<&EventBin> = bins.iter().filter(|bin| bin.total > 0.0).collect();
    let eventful: Vec<&&EventBin> = used.iter().filter(|bin| bin.events > 0.0).collect();
    let requests: f64 = used.iter().map(|bin| bin.total).sum();
    let events: f64 = used.iter().map(|bin| bin.events).sum();
    let dispersion = dispersion * (events / EVENTS_BELIEVED).max(1.0);
    let expected: f64 = used.iter().map(|bin| bin.total * bin.tolerated).sum();
    let log_likelihood = |tau: usize, transient: f64, constant: f64| -> f64 {
        let fading = |bin: &EventBin| bin.decayed.get(tau).copied().unwrap_or(0.0);
        let faded: f64 = used.iter().map(|bin| fading(bin)).sum();
        let mean = expected + transient * faded + constant * requests;
        let gains = eventful.iter().map(|bin| {
            let rate = bin.tolerated.max(1e-9) + constant;
            bin.events * (bin.total * rate + fading(bin) * transient).ln()
        });
        (gains.sum::<f64>() - mean) / dispersion
    };
    let models =
        || sizes(TRANSIENT_RATES).flat_map(|size| (0..TAUS_COUNT).map(move |tau| (tau, size)));
    let with = |constant: f64| -> f64 {
        let each: Vec<f64> = models()
            .map(|(tau, size)| log_likelihood(tau, size, constant))
            .collect();
        any_transient(log_likelihood(0, 0.0, constant), &each)
    };
    let staying: Vec<f64> = sizes(STAYING_RATES).map(with).collect();
    let faded = |tau: usize| -> f64 {
        let each = used.iter().map(|bin| bin.decayed.get(tau).copied());
        each.map(Option::unwrap_or_default).sum()
    };
    let passing: Vec<Option<f64>> = models()
        .map(|(tau, size)| {
            let explains = size * faded(tau) >= EXPLAINED * (events - expected);
            explains.then(|| log_likelihood(tau, size, 0.0))
        })
        .collect();
    log_mean(&staying) - log_of_those(&passing).unwrap_or(log_likelihood(0, 0.0, 0.0))
}

/// The least part of the excess that a transient has to expect to count as its explanation. What
/// expects less says that the excess is chance, and chance is for the test to rule out.
const EXPLAINED: f64 = 0.5;

/// The average over those transients that are an explanation; `None` where none is.
fn log_of_those(each: &[Option<f64>]) -> Option<f64> {
    let weights = (0..TAUS_COUNT as i32)
        .map(|tau| TAU_WEIGHT.powi(tau).ln())
        .cycle();
    let those = each
        .iter()
        .zip(weights)
        .filter_map(|(value, weight)| Some((value.as_ref()?, weight)));
    let total = log_sum_exp(those.clone().map(|(_, weight)| weight));
    let sum = log_sum_exp(those.map(|(value, weight)| value + weight));
    (total > f64::NEG_INFINITY).then_some(sum - total)
}

/// The log likelihood averaged over no transient and all of them.
fn any_transient(none: f64, each: &[f64]) -> f64 {
    log_add_exp(
        NO_TRANSIENT.ln() + none,
        (1.0 - NO_TRANSIENT).ln() + log_weighted(each),
    )
}

/// The average over transients, which are in order of size and, within each, of time constant.
fn log_weighted(each: &[f64]) -> f64 {
    let weights = (0..TAUS_COUNT as i32).map(|tau| TAU_WEIGHT.powi(tau));
    let total: f64 = weights.clone().sum::<f64>() * SIZES as f64;
    let weights = weights.cycle().map(|weight| (weight / total).ln());
    log_sum_exp(
        each.iter()
            .zip(weights)
            .map(|(value, weight)| value + weight),
    )
}

fn log_mean(values: &[f64]) -> f64 {
    log_sum_exp(values.iter().copied()) - (values.len().max(1) as f64).ln()
}

fn sizes((from, to): (f64, f64)) -> impl Iterator<Item = f64> + Clone {
    log_spaced(from, to, SIZES as u32)
}

/// A shift of the candidate against the baseline in one stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShiftBin {
    /// The log of the factor by which the candidate is slower.
    pub shift: f64,
    /// One over its variance.
    pub weight: f64,
    /// For each time constant, the mean over requests of `e^{-age/τ}`.
    pub decay: [f64; TAUS_COUNT],
}

/// How much better shifts are explained by one that stays and exceeds `tolerated`: the logarithm
/// of the Bayes factor, with normal likelihoods. The transient is a factor `1 + A e^{-age/τ}`.
pub fn staying_shift(bins: &[ShiftBin], tolerated: f64) -> f64 {
    // The sums that the likelihood of every constant is made of.
    let sums = |tau: usize, size: f64| {
        let mut sums = [0.0; 3];
        for bin in bins {
            let decay = bin.decay.get(tau).copied().unwrap_or(0.0);
            let rest = bin.shift - (size * decay).ln_1p();
            for (sum, power) in sums.iter_mut().zip([1.0, rest, rest * rest]) {
                *sum += bin.weight * power;
            }
        }
        sums
    };
    let none = sums(0, 0.0);
    let models =
        sizes(TRANSIENT_SHIFTS).flat_map(|size| (0..TAUS_COUNT).map(move |tau| (tau, size)));
    let each: Vec<[f64; 3]> = models.map(|(tau, size)| sums(tau, size)).collect();
    let at = |constant: f64, [weight, sum, squares]: [f64; 3]| {
        -0.5 * (squares - 2.0 * constant * sum + constant * constant * weight)
    };
    let with = |constant: f64| -> f64 {
        let each: Vec<f64> = each.iter().map(|sums| at(constant, *sums)).collect();
        any_transient(at(constant, none), &each)
    };
    let staying: Vec<f64> = sizes(STAYING_SHIFTS)
        .map(|size| with(tolerated + size))
        .collect();
    let (weight, sum, _) = (none[0], none[1], none[2]);
    let excess = sum / weight.max(f64::MIN_POSITIVE) - tolerated;
    let passing = [0.0, 0.5, 1.0].map(|part| {
        let each: Vec<Option<f64>> = each
            .iter()
            .map(|sums| {
                // What the transient expects is what it takes off the mean shift.
                let expected = (sum - sums[1]) / weight.max(f64::MIN_POSITIVE);
                (expected >= EXPLAINED * excess).then(|| at(part * tolerated, *sums))
            })
            .collect();
        log_of_those(&each).unwrap_or(at(part * tolerated, none))
    });
    log_mean(&staying) - log_mean(&passing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minutes of 300 requests with what is expected of a rate, rounded by halves.
    fn minutes(count: usize, rate: impl Fn(f64) -> f64) -> Vec<EventBin> {
        let minute = |at: usize| {
            let age_min = at as f64 + 0.5;
            EventBin {
                total: 300.0,
                events: 300.0 * (0.001 + rate(age_min)),
                tolerated: 0.0011,
                decayed: decays(age_min / 2.0).map(|decay| 300.0 * decay),
            }
        };
        (0..count).map(minute).collect()
    }

    #[test]
    fn a_step_is_known_after_a_while_and_a_transient_never_taken_for_one() {
        let step = |minutes_seen| staying_events(&minutes(minutes_seen, |_| 0.009), 1.0);
        assert!(step(3) < 4.0, "{}", step(3));
        assert!(step(20) > 8.0, "{}", step(20));
        for tau_min in [1.0, 2.0, 5.0] {
            for size in [0.01, 0.05, 0.2] {
                for count in [3, 8, 20, 60] {
                    let fading = minutes(count, |age| size * (-age / tau_min).exp());
                    let staying = staying_events(&fading, 1.0);
                    assert!(staying < 3.0, "{staying} at τ {tau_min}, {size}, {count}");
                }
            }
        }
    }

    #[test]
    fn dispersion_takes_certainty_away() {
        let bins = minutes(20, |_| 0.009);
        assert!(staying_events(&bins, 5.0) < 0.4 * staying_events(&bins, 1.0));
        assert!(staying_events(&[], 1.0).abs() < 1e-9);
    }

    fn shifts(count: usize, shift: impl Fn(f64) -> f64) -> Vec<ShiftBin> {
        let bin = |at: usize| {
            let age_min = at as f64 + 0.5;
            ShiftBin {
                shift: shift(age_min),
                weight: 1.0 / (0.05 * 0.05),
                decay: decays(age_min / 2.0),
            }
        };
        (0..count).map(bin).collect()
    }

    #[test]
    fn a_slowness_that_stays_is_told_from_cold_caches() {
        let stays = |count| staying_shift(&shifts(count, |_| 0.3), 0.03);
        assert!(
            stays(2) < 4.0 && stays(15) > 8.0,
            "{} {}",
            stays(2),
            stays(15)
        );
        for tau_min in [1.0, 2.0, 5.0] {
            let cold = shifts(60, |age| (-age / tau_min).exp().ln_1p());
            let staying = staying_shift(&cold, 0.03);
            assert!(staying < 3.0, "{staying} at τ {tau_min}");
        }
    }
}
