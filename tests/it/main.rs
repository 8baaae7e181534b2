//! slogate from outside, as its users meet it: one binary, so that it links once.

mod architecture;
mod argo;
mod demo;
mod docs;
mod harness;
mod inputs;
mod lifecycle;
mod traffic;
mod verdicts;
