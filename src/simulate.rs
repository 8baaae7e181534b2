//! Made-up rollouts through the real judge, and through what others do.
//!
//! How often does a gate stop a good version, and how long does it take to stop a bad one? Of
//! real rollouts nobody knows for sure which were good. So [`scenario`] says what can happen,
//! [`catalogue`] lists what does, [`generate`] draws the telemetry of any number of rollouts from
//! a seed, and everybody who judges sees the same.

mod catalogue;
mod generate;
mod observe;
mod scenario;
