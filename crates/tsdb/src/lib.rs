//! An embeddable time series store: in memory, compressed, with a write-ahead log.
//!
//! Open a [`Store`], look up a [`SeriesRef`] for each label set once, append [`Batch`]es of
//! rows by reference, select by matchers. Time comes in as an argument everywhere; the crate
//! reads no clock. All of its methods take `&self`.
//!
//! ```
//! use slogate_series::{Labels, Matcher};
//! use slogate_tsdb::{Batch, FloatRow, Options, Store};
//!
//! let (store, _) = Store::open(Options::default(), 0)?;
//! let series = store.series(&Labels::from_pairs([("__name__", "up"), ("job", "api")]))?;
//! let mut batch = Batch::default();
//! batch.floats.push(FloatRow { series, t_ms: 1_000, start_ms: 0, value: 1.0 });
//! let report = store.append(&batch, 1_000)?;
//! assert_eq!(report.accepted, 1);
//! assert_eq!(store.select(&[Matcher::equal("job", "api")], 0, 2_000).len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is accepted
//! A row is stored if its time is within the retention, not more than the future window
//! ahead of the clock, and not more than the out-of-order window behind the newest sample of
//! its series. The same value at the same time is accepted again and changes nothing;
//! another value at the same time is refused. Every bit pattern of a float comes back.
//!
//! # How the code is laid out
//! - `store`: the [`Store`]; `store/restore` opens its directory, `store/append` takes rows
//!   in, `store/query` reads, `store/cardinality` counts where series come from.
//! - `retention`: maintenance: what happens to data as it ages.
//! - `shard`: series with their symbols and index, under one lock; there are 16 by label hash.
//!   `symbols` interns strings, `index` answers matchers.
//! - `series`: one series: finished chunks, the open chunk, late samples.
//! - `chunk`: compressed samples: `chunk/float`, `chunk/histogram` over `chunk/time`,
//!   `chunk/rice` and `chunk/bits`.
//! - `log`: the write-ahead log: segments; `log/frame`, `log/records`, `log/bytes` their
//!   contents, `log/replay` reading them back.
//! - `exemplar`, `metadata`: what rides along with samples.
//! - `options`, `rows`: what goes in and comes out.

#![forbid(unsafe_code)]

mod chunk;
mod exemplar;
mod index;
mod log;
mod metadata;
mod options;
mod retention;
mod rows;
mod series;
mod shard;
mod store;
mod symbols;
#[cfg(test)]
mod testing;

pub use log::LogError;
pub use log::replay::{Damage, DamageKind, ReplayReport};
pub use metadata::{Metadata, MetricKind};
pub use options::{OpenError, Options};
pub use retention::MaintainReport;
pub use rows::{
    AppendReport, Batch, ExemplarRow, FloatRow, HistogramRow, Refusal, Refused, RefusedRow,
    SeriesRef,
};
pub use store::{AppendError, Cardinality, Ranking, Read, SeriesError, Stats, Store};
