//! What a gate has where its author says nothing. `rules/canary.yaml` spells the same values out,
//! and a test holds the two together.

const MINUTE_MS: i64 = 60_000;

pub(super) const WARM_UP_MS: i64 = 2 * MINUTE_MS;
pub(super) const SOAK_MS: i64 = 5 * MINUTE_MS;
pub(super) const DECIDE_WITHIN_MS: i64 = 60 * MINUTE_MS;
pub(super) const FALSE_ALARMS: f64 = 0.01;
pub(super) const FALSE_PASSES: f64 = 0.05;
pub(super) const STALE_AFTER_MS: i64 = 5 * MINUTE_MS;
pub(super) const MIN_EVENTS: u64 = 50;
pub(super) const QUANTILE: f64 = 0.95;
pub(super) const WEIGHT: f64 = 1.0;
/// A quarter more errors, or one in a thousand requests, is no reason to stop a rollout.
pub(super) const ERRORS_ABSOLUTE: f64 = 0.001;
pub(super) const ERRORS_RELATIVE: f64 = 0.25;
/// A tenth slower, or five milliseconds, is no reason to stop a rollout.
pub(super) const DURATION_ABSOLUTE: f64 = 0.005;
pub(super) const DURATION_RELATIVE: f64 = 0.10;
pub(super) const COVERAGE: f64 = 0.95;
