//! Why `clippy.toml` bans parts of statrs.
//!
//! If a test here fails after an update, the library was mended and its ban can go. Where clippy
//! reports an unfulfilled expectation here, a ban has lost its grip.

use crate::special::beta_quantile;
use crate::special::beta_tails;
use statrs::distribution::Beta;
use statrs::distribution::ContinuousCDF;
use statrs::function::beta::inv_beta_reg;

/// All three ways to statrs's Beta quantile lead to one search whose cumulative function is cut
/// short at 140 terms. For some shapes it does not return, which no test can show and end; where
/// it returns, the median of a posterior after ten million requests leaves 48 % below it.
#[test]
fn the_beta_quantile_of_statrs_is_wrong_at_large_counts() {
    let (a, b) = (3e6, 7e6);
    let below = |x: f64| beta_tails(a, b, x).expect("valid").ln_lower.exp();
    let beta = Beta::new(a, b).expect("valid");
    #[expect(clippy::disallowed_methods, reason = "shows why it is banned")]
    let by_function = inv_beta_reg(a, b, 0.5);
    #[expect(clippy::disallowed_methods, reason = "shows why it is banned")]
    let by_distribution = beta.inverse_cdf(0.5);
    #[expect(clippy::disallowed_methods, reason = "shows why it is banned")]
    let by_trial = beta.try_inverse_cdf(0.5).expect("valid");
    for found in [by_function, by_distribution, by_trial] {
        assert!((below(found) - 0.5).abs() > 0.01, "{}", below(found));
    }
    let ours = beta_quantile(a, b, 0.5).expect("valid");
    assert!((below(ours) - 0.5).abs() < 1e-10, "{}", below(ours));
}

/// Its exact Mann-Whitney test gives 0.8889 where the p-value is 0.1111. The module is not even
/// compiled here: statrs is built without its `std` feature. The ban is for the day it is.
#[test]
fn every_ban_on_statrs_gives_its_reason() {
    let lints = include_str!("../../../clippy.toml");
    for banned in [
        "statrs::distribution::ContinuousCDF::inverse_cdf",
        "statrs::distribution::ContinuousCDF::try_inverse_cdf",
        "statrs::function::beta::inv_beta_reg",
        "statrs::stats_tests::mannwhitneyu::mannwhitneyu",
    ] {
        let line = lints
            .lines()
            .find(|line| line.contains(&format!("\"{banned}\"")));
        let reason = line.and_then(|line| line.split_once("reason = "));
        assert!(
            reason.is_some_and(|(_, reason)| reason.len() > 20),
            "{banned}"
        );
    }
    let count = lints
        .lines()
        .filter(|line| line.contains("\"statrs::"))
        .count();
    assert_eq!(count, 4, "a ban that no test names");
}
