//! The store as its users see it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod behaviour;
mod crash;
mod format;
mod kit;
mod model;
