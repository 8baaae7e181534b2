//! How large is what stays, and how fast did the rest pass? The best fit of a step and a decay.
//!
//! A new instance's excess of events over what is tolerated is described by two parts: a rate that
//! stays, and one that is `A` at age 0 and falls as `e^{-age/τ}`. [`fit`] gives the sizes and the
//! time constant that explain the counts best, and how much worse they are explained without the
//! part that stays: the logarithm of the likelihood ratio, divided by the dispersion. Poisson
//! counts; the sizes by expectation and maximisation (Dempster, Laird and Rubin, 1977), which keeps
//! them at or above 0; the time constant on a grid of nine up to the longest given.
//!
//! It estimates and describes: figures for a sentence or a plot. A ratio of best fits favours the
//! transient, which can take any size and length; it decides nothing. Blocks without requests are
//! left out; without any, and without an excess, nothing stays and the ratio is 0.

use crate::counts::DISPERSION_MAX;
use crate::counts::ParamError;
use crate::kernel::BlockError;
use crate::kernel::check_count;

/// A block of a new instance's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AgeBlock {
    /// The instance's age, in any unit of time.
    pub age: f64,
    /// Requests.
    pub total: f64,
    /// Of those, the bad ones.
    pub events: f64,
    /// The share of bad ones that is tolerated in this block.
    pub tolerated: f64,
}

/// What fits best.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Persistence {
    /// How much better the fit with a part that stays is, as a log likelihood ratio; at least 0.
    pub log_ratio: f64,
    /// The share of requests that stays bad beyond what is tolerated.
    pub stays: f64,
    /// The share that is bad on top of that at age 0.
    pub fades: f64,
    /// The time constant with which that falls, in the unit of the ages.
    pub tau: f64,
}

/// Time constants tried, evenly spaced on a log scale from half a unit up.
const TAUS: i32 = 9;

/// Rounds of expectation and maximisation; from then on the fit changes in the tenth digit.
const ROUNDS: u32 = 80;

/// Why there is no fit.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum PersistenceError {
    /// A count is none.
    #[error("block {block}: {source}")]
    Count {
        /// The block, from 0.
        block: usize,
        /// What is wrong.
        source: BlockError,
    },
    /// A parameter, an age or a tolerated share is out of its range.
    #[error(transparent)]
    Param(#[from] ParamError),
}

/// Fits a step and a decay with a time constant of at most `tau_max`, at least half a unit.
///
/// # Errors
/// Names the count, age or parameter that makes no sense.
pub fn fit(
    blocks: &[AgeBlock],
    tau_max: f64,
    dispersion: f64,
) -> Result<Persistence, PersistenceError> {
    ParamError::check("tau_max", tau_max, 0.5, 1e6)?;
    ParamError::check("dispersion", dispersion, 1.0, DISPERSION_MAX)?;
    for (block, of) in blocks.iter().enumerate() {
        let checked = check_count("total", of.total).and(check_count("events", of.events));
        checked.map_err(|source| PersistenceError::Count { block, source })?;
        ParamError::check("age", of.age, 0.0, 1e9)?;
        ParamError::check("tolerated", of.tolerated, 0.0, 1.0)?;
    }
    let used: Vec<AgeBlock> = blocks.iter().copied().filter(|b| b.total > 0.0).collect();
    if used.is_empty() {
        return Ok(Persistence::default());
    }
    let mut with = (f64::NEG_INFINITY, Persistence::default());
    let mut without = f64::NEG_INFINITY;
    for step in 0..TAUS {
        let tau = 0.5 * (tau_max / 0.5).powf(f64::from(step) / f64::from(TAUS - 1));
        let (likelihood, stays, fades) = maximise(&used, tau, 0.01);
        if likelihood > with.0 {
            let found = Persistence {
                log_ratio: 0.0,
                stays,
                fades,
                tau,
            };
            with = (likelihood, found);
        }
        without = without.max(maximise(&used, tau, 0.0).0);
    }
    let log_ratio = ((with.0 - without) / dispersion).max(0.0);
    Ok(Persistence {
        log_ratio,
        ..with.1
    })
}

/// The largest likelihood at one time constant and where it is; a part that starts at 0 stays
/// there.
fn maximise(blocks: &[AgeBlock], tau: f64, stays: f64) -> (f64, f64, f64) {
    let decayed: Vec<f64> = blocks
        .iter()
        .map(|b| b.total * (-b.age / tau).exp())
        .collect();
    let all: f64 = blocks.iter().map(|b| b.total).sum();
    let young: f64 = decayed.iter().sum();
    let mean = |b: &AgeBlock, young: f64, stays: f64, fades: f64| {
        b.total * (b.tolerated + stays) + fades * young
    };
    let (mut stays, mut fades) = (stays, 0.05);
    for _ in 0..ROUNDS {
        // The events that each part explains, shared out in proportion.
        let (mut of_staying, mut of_fading) = (0.0, 0.0);
        for (b, young) in blocks.iter().zip(&decayed) {
            let mean = mean(b, *young, stays, fades);
            if mean > 0.0 {
                of_staying += b.events * b.total * stays / mean;
                of_fading += b.events * fades * young / mean;
            }
        }
        stays = of_staying / all;
        fades = of_fading / young.max(1e-12);
    }
    let terms = blocks.iter().zip(&decayed).map(|(b, young)| {
        let mean = mean(b, *young, stays, fades);
        if b.events > 0.0 && mean > 0.0 {
            b.events * mean.ln() - mean
        } else {
            -mean
        }
    });
    (terms.sum(), stays, fades)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks(events: &[f64]) -> Vec<AgeBlock> {
        let block = |(age, &events): (usize, &f64)| AgeBlock {
            age: age as f64,
            total: 300.0,
            events,
            tolerated: 0.0011,
        };
        events.iter().enumerate().map(block).collect()
    }

    #[test]
    fn steps_and_decays_have_the_known_values() {
        let decay = blocks(&[12.0, 9.0, 6.0, 4.0, 3.0, 2.0, 1.0, 1.0, 0.0, 1.0]);
        let found = fit(&decay, 3.0, 1.0).expect("valid");
        assert!(found.log_ratio < 1e-6, "{found:?}");
        assert!(
            (found.fades - 0.04).abs() < 0.01 && found.tau > 2.0,
            "{found:?}"
        );
        let step = blocks(&[3.0, 2.0, 4.0, 3.0, 3.0, 2.0, 4.0, 3.0, 3.0, 3.0]);
        let found = fit(&step, 3.0, 1.0).expect("valid");
        assert!(
            (found.log_ratio - 9.503_978_201_418_93).abs() < 1e-9,
            "{found:?}"
        );
        assert!((found.stays - 0.0089).abs() < 0.001, "{found:?}");
        let bursty = fit(&step, 3.0, 2.0).expect("valid");
        assert!((2.0 * bursty.log_ratio - found.log_ratio).abs() < 1e-12);
    }

    #[test]
    fn nothing_stays_where_nothing_was() {
        assert_eq!(fit(&[], 3.0, 1.0), Ok(Persistence::default()));
        assert_eq!(
            fit(&[AgeBlock::default()], 3.0, 1.0),
            Ok(Persistence::default())
        );
        let quiet = fit(&blocks(&[0.0; 10]), 3.0, 1.0).expect("valid");
        assert!(quiet.log_ratio < 1e-9 && quiet.stays < 1e-9, "{quiet:?}");
        let mut broken = blocks(&[1.0; 3]);
        broken[2].events = f64::NAN;
        let error = fit(&broken, 3.0, 1.0)
            .expect_err("not a number")
            .to_string();
        assert!(error.starts_with("block 2: events"), "{error}");
        assert!(fit(&[], 0.1, 1.0).is_err());
    }

    proptest! {
        #[test]
        fn fits_are_finite_and_never_negative(
            events in proptest::collection::vec(0.0..400.0_f64, 1..20), tau_max in 0.5..20.0_f64,
        ) {
            let found = fit(&blocks(&events), tau_max, 1.0).expect("valid");
            prop_assert!(found.log_ratio >= 0.0 && found.log_ratio.is_finite(), "{found:?}");
            prop_assert!(found.stays >= 0.0 && found.fades >= 0.0, "{found:?}");
            prop_assert!(found.tau <= tau_max * (1.0 + 1e-9));
        }
    }
}
