//! slogate tells a rollout whether the version it is shipping is safe.
//!
//! One daemon between deploy events and telemetry on one side, rollout gates on the other.
//! The rooms, from the top; `use` points only downwards, and a test holds that:
//!
//! ```text
//! faces      cli        serve, event, gate, policy, simulate, backtest, config, verify, demo
//!            server     listeners; HTTP and gRPC: OTLP, remote write, native and Prometheus API,
//!                       health, our own metrics
//! engines    status     what only slogate knows, as series in the store
//!            rehearse   tests of policies: made-up telemetry in, expected verdicts out
//!            simulate   made-up rollouts through the judge and through what others do
//!            backtest   recorded rollouts judged over again: readers, replay, reports
//!            judge      policy x deployment x source x now -> verdict; the watcher of active deployments
//!            sli        deployment SLIs M1-M7, from the deployments and a source
//!            policy     the rules language: parse, validate, explain
//!            deploy     event adapters, deduplication, the deployment state machine, baseline choice
//!            source     trait MetricSource; embedded and prometheus implementations; which labels
//!                       and series a source calls what
//!            ledger     the hash chain over events and verdicts
//!            export     series of ours to a remote-write endpoint, through a queue on disk
//!            ingest     OTLP and remote write -> series; spans -> request series and edges; logs -> counts
//!            record     durable records in SQLite
//! ground     model      the vocabulary as types; time
//!            outbound   HTTP clients to the outside: credentials, TLS, time limits
//!            config     settings: file, environment, flags; the data directory
//!            telemetry  our own logs, metrics, traces, heartbeats
//! libraries  slogate-promql   lexer, parser, evaluator over anything queryable
//!            slogate-tsdb     the series store: head, chunks, index, log
//!            slogate-wire     borrowed views of OTLP and remote-write bytes; exposition formats
//!            slogate-series   labels, matchers, samples, histograms
//!            slogate-stats    pure statistics: no time, no I/O
//! ```
//!
//! Three walks through the house, each step one room and no way back:
//!
//! - **A span**: socket, `server` (limits), `ingest` (reduced to counts and buckets per
//!   series), `slogate-tsdb`. It is gone when the request is answered.
//! - **A deploy event**: socket, `server`, `deploy` (adapt, deduplicate, fold), `record` and
//!   `ledger` (durable, chained), 202, and the watcher wakes.
//! - **A verdict**: watcher or gate request, `judge` (policy, deployment, baseline; asks
//!   `source`; `slogate-stats` decides), `ledger`, and whoever waits.

#![forbid(unsafe_code)]

pub mod backtest;
pub mod cli;
pub mod config;
pub mod deploy;
pub mod export;
pub mod ingest;
pub mod judge;
pub mod ledger;
pub mod model;
pub mod outbound;
pub mod policy;
pub mod record;
pub mod rehearse;
pub mod server;
pub mod simulate;
pub mod sli;
pub mod source;
pub mod status;
pub mod telemetry;
