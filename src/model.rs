//! The vocabulary as types.
//!
//! Every other room speaks in these words, and each word means one thing:
//!
//! - [`artifact`]: a sealed build output, identified by its digest.
//! - [`target`]: where a deployment happens: service, environment, region.
//! - [`Glob`]: patterns for names of services and environments.
//! - [`event`]: an immutable fact from outside, deduplicated by (source, id).
//! - [`deployment`]: one attempt to bring an artifact to a target: the fold of its events.
//! - [`verdict`]: pass, fail or inconclusive, with each check's evidence.
//! - [`time`]: clocks, which only the outermost drivers own, and time as text.
//!
//! Times are `i64` milliseconds since the Unix epoch inside and RFC 3339 in JSON. Types here
//! hold only valid values: what comes from outside is parsed into them once.

pub mod artifact;
pub mod deployment;
pub mod event;
mod glob;
pub mod target;
pub mod time;
pub mod verdict;

pub use artifact::{Artifact, Digest, DigestError, Provenance};
pub use deployment::{
    Deployment, DeploymentId, EventRef, ObservedVersion, Origin, Phase, StepChange,
};
pub use event::{Event, EventKind, Step};
pub use glob::Glob;
pub use target::Target;
pub use time::{Clock, ManualClock, SystemClock};
pub use verdict::{
    Arm, ArmCounts, Baseline, BaselineKind, CheckKind, CheckResult, Evidence, InstanceCounts,
    Interval, Outcome, Reason, TimeRange, Verdict,
};
