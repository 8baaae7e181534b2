//! slogate from outside, as its users meet it: one binary, so that it links once.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't go on should stop where it is"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "tests are the outermost drivers: they own the clock"
)]

mod architecture;
mod argo;
mod backtest;
mod dashboards;
mod demo;
mod differential;
mod docs;
mod export;
mod harness;
mod inputs;
mod lifecycle;
mod peers;
mod policy_test;
mod prometheus;
mod prometheus_api;
mod remote_write;
mod series;
mod simulate;
mod sources;
mod status;
mod traffic;
mod verdicts;
mod verdicts_page;
