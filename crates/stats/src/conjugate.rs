//! Closed forms, for counts whose expected shares never change.
//!
//! Where traffic is split in the same way all the time, an event's side is a draw with known
//! probabilities under the null, and averaging the likelihood ratio over a conjugate prior has a
//! closed form that needs totals only: no blocks, no grid. Where the split changes, use
//! [`crate::counts`]; totals pooled over changing splits mislead.
//!
//! - [`beta_one_sided`]: "at most a share `θ` of the events are the candidate's", averaged over a
//!   Beta prior cut off below `θ`;
//! - [`dirichlet_multinomial`]: "events fall on the sides in these proportions", against any other
//!   (Lindon and Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022). Also
//!   finds a sample ratio mismatch: traffic that is not split as the rollout says.
//!
//! Both are e-processes for draws that are independent given the past: `ln(1/α)` is ever reached
//! with probability at most α under the null. Without events the evidence is 0.

use crate::counts::ParamError;
use crate::kernel::BlockError;
use crate::kernel::check_count;
use crate::special::beta_tails;
use crate::special::ln_beta;
use statrs::function::gamma::ln_gamma;

/// The logarithm of the evidence that more than a share `share` of the events are the candidate's:
///
/// ```text
/// ln[B(a+x_C, b+x_B) (1 - I_θ(a+x_C, b+x_B))] - ln[B(a,b) (1 - I_θ(a,b))]
///     - x_C ln θ - x_B ln(1-θ)
/// ```
///
/// `prior` is `(a, b)`; `(1, 1)` bets evenly on every share above `θ`, `(1, 19)` on shares near 5 %.
///
/// # Errors
/// Names what is out of its range; a count that is none is named as such by
/// [`ConjugateError::Count`].
pub fn beta_one_sided(
    candidate_events: f64,
    baseline_events: f64,
    share: f64,
    prior: (f64, f64),
) -> Result<f64, ConjugateError> {
    check_count("candidate_events", candidate_events)?;
    check_count("baseline_events", baseline_events)?;
    ParamError::check("share", share, 1e-12, 1.0 - 1e-12)?;
    let (a, b) = prior;
    ParamError::check("a", a, PRIOR_MIN, PRIOR_MAX)?;
    ParamError::check("b", b, PRIOR_MIN, PRIOR_MAX)?;
    let mass = |a: f64, b: f64| {
        let above = beta_tails(a, b, share).map_or(f64::NEG_INFINITY, |tails| tails.ln_upper);
        ln_beta(a, b) + above
    };
    Ok(mass(a + candidate_events, b + baseline_events)
        - mass(a, b)
        - candidate_events * share.ln()
        - baseline_events * (-share).ln_1p())
}

/// The logarithm of the evidence that events do not fall on the sides in the proportions `shares`:
///
/// ```text
/// ln Γ(A) - ln Γ(A+n) + Σ [ln Γ(α_i + n_i) - ln Γ(α_i)] - Σ n_i ln θ_i
/// ```
///
/// `prior` is α, one per side; shares that sum to 1 only up to rounding are scaled to.
///
/// # Errors
/// Names the count, share or prior that is out of its range, or that there are not as many of each.
pub fn dirichlet_multinomial(
    events: &[f64],
    shares: &[f64],
    prior: &[f64],
) -> Result<f64, ConjugateError> {
    if events.is_empty() || events.len() != shares.len() || events.len() != prior.len() {
        return Err(ConjugateError::Sides {
            events: events.len(),
            shares: shares.len(),
            prior: prior.len(),
        });
    }
    let total: f64 = shares.iter().sum();
    ParamError::check("sum of the shares", total, 1.0 - 1e-9, 1.0 + 1e-9)?;
    let (mut log_e, mut all_events, mut all_prior) = (0.0, 0.0, 0.0);
    for ((&x, &share), &alpha) in events.iter().zip(shares).zip(prior) {
        check_count("events", x)?;
        ParamError::check("share", share, 1e-12, 1.0)?;
        ParamError::check("prior", alpha, PRIOR_MIN, PRIOR_MAX)?;
        log_e += ln_gamma(alpha + x) - ln_gamma(alpha) - x * (share / total).ln();
        all_events += x;
        all_prior += alpha;
    }
    Ok(log_e + ln_gamma(all_prior) - ln_gamma(all_prior + all_events))
}

/// Why there is no evidence from a closed form.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum ConjugateError {
    /// A count is negative, not a number, or too large.
    #[error(transparent)]
    Count(#[from] BlockError),
    /// A share or a prior is out of its range.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// Counts, shares and prior don't belong together.
    #[error(
        "{events} counts, {shares} shares, {prior} prior counts: expected as many of each, and at least one"
    )]
    Sides {
        /// How many counts were given.
        events: usize,
        /// How many shares.
        shares: usize,
        /// How many prior counts.
        prior: usize,
    },
}

const PRIOR_MIN: f64 = 1e-3;
const PRIOR_MAX: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::binomial;
    use crate::testing::upper_alarm_limit;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn the_one_sided_form_has_the_known_values() {
        for (x_c, x_b, prior, expected) in [
            (7.0, 12.0, (1.0, 1.0), 7.813_695_281_000_444),
            (7.0, 12.0, (1.0, 19.0), 5.719_361_391_696_517),
            (180.0, 1700.0, (1.0, 1.0), 29.021_076_301_703_93),
        ] {
            let found = beta_one_sided(x_c, x_b, 0.05, prior).expect("valid");
            assert!((found - expected).abs() < 1e-10, "{found}, not {expected}");
        }
        assert_eq!(beta_one_sided(0.0, 0.0, 0.05, (1.0, 1.0)), Ok(0.0));
    }

    #[test]
    fn the_multinomial_form_has_the_known_values() {
        let found = dirichlet_multinomial(&[7.0, 12.0], &[0.05, 0.95], &[0.5, 9.5]);
        let found = found.expect("valid");
        assert!((found - 5.622_321_524_140_396).abs() < 1e-10, "{found}");
        let third = 1.0 / 3.0;
        let found = dirichlet_multinomial(&[30.0, 50.0, 20.0], &[third; 3], &[1.0; 3]);
        let found = found.expect("valid");
        assert!((found - 3.046_526_923_038_612_7).abs() < 1e-10, "{found}");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let error = beta_one_sided(-1.0, 0.0, 0.5, (1.0, 1.0)).expect_err("negative");
        assert!(error.to_string().contains("candidate_events"), "{error}");
        let error = beta_one_sided(1.0, 0.0, 0.0, (1.0, 1.0)).expect_err("no share");
        assert!(error.to_string().starts_with("share"), "{error}");
        let error = dirichlet_multinomial(&[1.0], &[0.5, 0.5], &[1.0]).expect_err("two shares");
        assert!(
            error.to_string().starts_with("1 counts, 2 shares"),
            "{error}"
        );
        let error = dirichlet_multinomial(&[1.0, 1.0], &[0.5, 0.6], &[1.0; 2]);
        let error = error.expect_err("more than all");
        assert!(
            error.to_string().starts_with("sum of the shares"),
            "{error}"
        );
    }

    /// Looked at after each of 150 events.
    #[test]
    fn false_alarms_stay_below_their_rate() {
        let (alpha, runs) = (0.1, 150);
        let mut rng = ChaCha8Rng::seed_from_u64(21);
        let (mut one_sided, mut any) = (0, 0);
        for _ in 0..runs {
            let (mut mine, mut theirs) = (0.0, 0.0);
            let mut alarmed = [false; 2];
            for _ in 0..150 {
                let draw = binomial(&mut rng, 1, 0.1);
                (mine, theirs) = (mine + draw, theirs + 1.0 - draw);
                let level = -f64::ln(alpha);
                let found = beta_one_sided(mine, theirs, 0.1, (1.0, 9.0)).expect("valid");
                alarmed[0] |= found >= level;
                let found = dirichlet_multinomial(&[mine, theirs], &[0.1, 0.9], &[1.0, 9.0]);
                alarmed[1] |= found.expect("valid") >= level;
            }
            one_sided += u32::from(alarmed[0]);
            any += u32::from(alarmed[1]);
        }
        let limit = upper_alarm_limit(runs, alpha);
        assert!(one_sided <= limit && any <= limit, "{one_sided}, {any}");
        assert!(any > 0, "a test that never errs is no test at this rate");
    }

    proptest! {
        /// The expectation of the e-value after `n` events is 1 on the boundary, summed exactly
        /// for the two-sided form, and at most 1 for the one-sided one.
        #[test]
        fn nobody_expects_to_win_on_the_boundary(
            n in 1_u32..40, share in 0.02..0.98_f64, a in 0.3..4.0_f64, b in 0.3..4.0_f64,
        ) {
            let (mut one_sided, mut any) = (0.0, 0.0);
            for k in 0..=n {
                let (x, y) = (f64::from(k), f64::from(n - k));
                let ln_choose = -f64::from(n + 1).ln() - ln_beta(x + 1.0, y + 1.0);
                let ln_p = ln_choose + x * share.ln() + y * (1.0 - share).ln();
                one_sided += (ln_p + beta_one_sided(x, y, share, (a, b)).expect("valid")).exp();
                let log_e = dirichlet_multinomial(&[x, y], &[share, 1.0 - share], &[a, b]);
                any += (ln_p + log_e.expect("valid")).exp();
            }
            prop_assert!((one_sided - 1.0).abs() < 1e-9, "{one_sided}");
            prop_assert!((any - 1.0).abs() < 1e-9, "{any}");
        }

        #[test]
        fn more_of_the_events_are_more_evidence(
            x in 0.0..1e6_f64, y in 0.0..1e6_f64, share in 0.01..0.99_f64, more in 1.0..1e3_f64,
        ) {
            let at = |x| beta_one_sided(x, y, share, (1.0, 1.0)).expect("valid");
            // One more event of the candidate's can lower it only where the null is true.
            if x > share * (x + y) + 1.0 {
                prop_assert!(at(x + more) >= at(x), "{} {}", at(x + more), at(x));
            }
            prop_assert!(at(x).is_finite());
        }
    }
}
