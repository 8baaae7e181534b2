//! Statistics for "is the candidate worse than the baseline?", asked again and again.
//!
//! A rollout is looked at every few seconds, and each look may decide. Fixed-sample tests raise
//! false alarms with every look; everything here is *anytime-valid*: with one stated error rate it
//! holds at all moments at once. The currency is the logarithm of an e-value, a bet against the
//! null hypothesis: under the null the chance that the stake ever grows by `1/α` is at most α
//! (Ville's inequality), so a test decides when its `log_e` reaches `ln(1/α)`.
//!
//! The crate is pure: no time, no input or output, no knowledge of services or metrics. A caller
//! cuts time into blocks, counts each side in each block, and pushes.
//!
//! What is where, in the order of reading:
//! - [`kernel`]: what one block of counts is worth; the two formulas everything rests on;
//! - [`mixture`]: betting on many sizes of change at once;
//! - [`counts`]: the test of two event rates, with relative and absolute tolerance;
//! - [`buckets`]: histogram boundaries and counts; [`exceedance`]: the test of latency on them;
//! - [`fisher`]: the fixed-sample test to compare with;
//! - [`interval`]: how large a ratio, a difference or a rate is;
//! - [`quantile`]: where a quantile lies;
//! - [`dispersion`]: how far from independent requests are;
//! - [`plan`]: how long a verdict will take;
//! - [`combine`]: one error rate for several tests;
//! - [`conjugate`]: closed forms where the traffic split never changes;
//! - [`distribution`]: whole distributions, and quantiles fixed in advance;
//! - [`bounded`]: means of values with known bounds; [`means`]: two series of any values;
//! - [`mann_whitney`], [`permutation`]: the same once, at a fixed horizon;
//! - [`persistence`]: how large a difference is that stays, and how fast the rest passed;
//! - [`detect`]: when something changed, for streams that are watched for ever;
//! - [`attribute`]: which of several deployments a shift belongs to;
//! - [`kayenta`]: the fixed-horizon judgement of another tool, to the letter;
//! - [`spending`]: boundaries for looks that nobody planned; [`transient`]: what stays told from
//!   what passes; [`cohort`]: instances beside instances; [`rates`] and [`latency`]: the three put
//!   together to watch a release;
//! - [`special`]: sums in log space, tails and quantiles of the Beta distribution; [`normal`]: the
//!   normal distribution; [`tails`]: tails of counts as normal values.
//!
//! ```
//! use slogate_stats::combine::log_threshold;
//! use slogate_stats::{CountBlock, CountTest, CountTestParams, Direction};
//!
//! // Worse means: more than a quarter and 0.1 percentage points above the baseline.
//! let mut worse = CountTest::new(CountTestParams {
//!     ratio: 1.25,
//!     difference: 0.001,
//!     dispersion: 1.0,
//!     direction: Direction::Worse,
//! })?;
//! // Two looks: 12 errors in 400 requests so far, against 19 in 7,600.
//! for (candidate_events, baseline_events) in [(5.0, 9.0), (7.0, 10.0)] {
//!     worse.push(&CountBlock {
//!         candidate_total: 200.0,
//!         candidate_events,
//!         baseline_total: 3_800.0,
//!         baseline_events,
//!     })?;
//! }
//! assert!(worse.log_e_max() >= log_threshold(0.01, 1.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod attribute;
pub mod bounded;
pub mod buckets;
pub mod cohort;
pub mod combine;
pub mod conjugate;
pub mod counts;
pub mod detect;
pub mod dispersion;
pub mod distribution;
pub mod exceedance;
pub mod fisher;
pub mod interval;
pub mod kayenta;
pub mod kernel;
pub mod latency;
pub mod mann_whitney;
pub mod means;
pub mod mixture;
pub mod normal;
pub mod permutation;
pub mod persistence;
pub mod plan;
pub mod quantile;
mod random;
mod ranks;
pub mod rates;
pub mod special;
pub mod spending;
pub mod tails;
pub mod transient;

pub use buckets::BucketCounts;
pub use counts::CountTest;
pub use counts::CountTestParams;
pub use exceedance::BucketBlock;
pub use exceedance::ExceedanceTest;
pub use exceedance::ExceedanceTestParams;
pub use kernel::CountBlock;
pub use mixture::Direction;

#[cfg(test)]
mod banned;
#[cfg(test)]
mod check_values;
#[cfg(test)]
mod testing;
