//! What only slogate knows, as series in the store.
//!
//! Deployments, their events, verdicts with each check's evidence, findings, the deployment SLIs
//! and slogate's own metrics become ordinary samples, so that PromQL, dashboards, alert rules and
//! remote write need to know nothing about them. [`families`] declares every series, and
//! `docs/metrics.md` is that table.
//!
//! # When a series begins, and when it ends
//!
//! - Every [`INTERVAL_MS`] each series that stands gets a sample. When a deployment or a verdict
//!   changes, what differs is written at once.
//! - A deployment has series while it is active and for [`ENDED_FOR_MS`] afterwards, long enough
//!   for a rule that is evaluated once a minute to see how it ended. Then they end with a stale
//!   marker: nothing lingers for the five minutes of PromQL's lookback.
//! - A label that changes (a verdict's reason) ends one series and begins another.
//! - What an earlier process left standing is taken over at the start: it goes on where it still
//!   holds, and ends where it does not.
//! - An event is one sample at the event's own time, whose value is that time. PromQL's lookback
//!   makes it a pulse of five minutes; `last_over_time(…[$__interval])` finds it at any step.
//!   Written again after a restart, it is the same sample and changes nothing.
//!
//! # What bounds them
//!
//! At most [`DEPLOYMENTS_MAX`] deployments have series at a time, the newest; how many were left
//! out is itself a metric. The version that a service had when slogate first heard of it is no
//! deployment, here as in the SLIs.
//!
//! # Labels
//!
//! `service`, `environment`, `region`, `version` and `deployment` are slogate's words and the same
//! on every series. `slogate_deployment_info` carries the first, second and fourth a second time
//! under the names that telemetry has (`service_name`, `deployment_environment_name`,
//! `service_version`), so that a join with telemetry needs no relabelling. What is not known (no
//! region, no environment) is an absent label.

mod deployments;
mod events;
pub mod families;
mod findings;
mod publisher;
mod registry;
mod sample;
mod slis;
#[cfg(test)]
mod testing;
mod verdicts;
mod writer;

pub use publisher::{Publisher, PublisherParts, Scope};
pub use slis::SliPublisher;
pub use writer::Report;

/// Between two samples of a series that stands, in milliseconds.
pub const INTERVAL_MS: i64 = 15_000;

/// How long the series of a deployment that ended are still written, in milliseconds.
pub const ENDED_FOR_MS: i64 = 60_000;

/// The most deployments that have series at a time.
pub const DEPLOYMENTS_MAX: usize = 500;

/// The most findings of a kind that have series at a time.
pub const FINDINGS_MAX: usize = 1_000;
