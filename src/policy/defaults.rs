//! What a gate has where its author says nothing. `rules/canary.yaml` spells the same values out,
//! and a test holds the two together.

use crate::policy::Margin;

const MINUTE_MS: i64 = 60_000;

pub(super) const WARM_UP_MS: i64 = 2 * MINUTE_MS;
pub(super) const SOAK_MS: i64 = 5 * MINUTE_MS;
pub(super) const DECIDE_WITHIN_MS: i64 = 60 * MINUTE_MS;
pub(super) const FALSE_ALARMS: f64 = 0.01;
pub(super) const FALSE_PASSES: f64 = 0.05;
pub(super) const STALE_AFTER_MS: i64 = 5 * MINUTE_MS;
pub(super) const MIN_EVENTS: u64 = 50;
pub(super) const WEIGHT: f64 = 1.0;
/// A twentieth more errors is no reason to stop a rollout.
pub(super) const ERRORS_WORSE_BY: Margin = Margin {
    absolute: None,
    relative: Some(0.05),
};
/// Half as many errors again, and one request in a thousand, is what a pass excludes.
pub(super) const ERRORS_PASS_WITHIN: Margin = Margin {
    absolute: Some(0.001),
    relative: Some(0.50),
};
/// Less is no reason to stop a rollout. What two deployments of one build differ by comes on top,
/// measured between instances.
pub(super) const DURATION_WORSE_BY: Margin = Margin {
    absolute: None,
    relative: Some(0.03),
};
/// A fifth and five milliseconds slower is what a pass excludes.
pub(super) const DURATION_PASS_WITHIN: Margin = Margin {
    absolute: Some(0.005),
    relative: Some(0.20),
};
/// A tenth more of anything is no reason to stop a rollout.
pub(super) const SERIES_WORSE_BY: Margin = Margin {
    absolute: None,
    relative: Some(0.10),
};
/// A quarter more is what a pass excludes.
pub(super) const SERIES_PASS_WITHIN: Margin = Margin {
    absolute: None,
    relative: Some(0.25),
};
pub(super) const SERIES_STEP_MS: i64 = 15_000;
/// Kayenta's own.
pub(super) const KAYENTA_STEP_MS: i64 = MINUTE_MS;
pub(super) const KAYENTA_PASS: f64 = 95.0;
pub(super) const KAYENTA_MARGINAL: f64 = 75.0;
pub(super) const COVERAGE: f64 = 0.95;
