//! Our own logs, metrics, traces and heartbeats.
//!
//! Ground: every room may use this one, it uses only `model`. Policy:
//!
//! - **One registry, three readers.** [`metrics::Registry`] is the only place where our numbers
//!   live. `/metrics` prints it, the OTLP exporter reads it, tests assert on it; they can't
//!   disagree.
//! - **A metric is declared before it is counted.** [`catalog`] lists every family with its kind,
//!   unit, labels and meaning; `docs/metrics.md` has that table and a test holds the two together.
//! - **Nothing observed grows without bound.** A family keeps at most
//!   [`metrics::CELLS_PER_FAMILY_MAX`] label combinations; further ones are counted together
//!   under `other`.
//! - **Health is what the workers say**, not that a socket is open: [`heartbeat`].
//! - **Logs never carry secrets**: request bodies, query strings and `Authorization` are not
//!   logged anywhere, at any level.
//! - **We never feed ourselves.** Exported telemetry may be pointed at our own listener to watch
//!   our own rollouts; what would echo is left out, see [`otel`].

pub mod catalog;
pub mod exposition;
pub mod heartbeat;
pub mod logging;
pub mod metrics;
pub mod otel;
pub mod process;

pub use heartbeat::{Heartbeat, Heartbeats};
pub use metrics::Registry;
