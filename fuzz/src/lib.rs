//! What the fuzz targets share.
//!
//! A target fails by panicking. Besides that nothing panics, each one holds a law of its room:
//! what was read and written again is the same, what one reader takes the next one takes too.

pub mod query;

use std::sync::Arc;

use slogate::ingest::{Ingest, IngestOptions};
use slogate_series::Matcher;
use slogate_tsdb::{Options, Store};
use slogate_wire::WireError;
use slogate_wire::otlp::{AnyValue, Attributes};

/// The time at which everything happens, in milliseconds since the epoch.
pub const NOW_MS: i64 = 1_795_190_400_000;

/// Reads `attributes` to the last nested value and returns how many values there are.
pub fn walk_attributes(attributes: Attributes<'_>) -> Result<usize, WireError> {
    let mut values = 0;
    for pair in attributes {
        values += walk_value(pair?.value)?;
    }
    Ok(values)
}

fn walk_value(value: AnyValue<'_>) -> Result<usize, WireError> {
    let mut values = 1;
    match value {
        AnyValue::Array(nested) => {
            for value in nested.values() {
                values += walk_value(value?)?;
            }
        }
        AnyValue::Map(nested) => {
            for pair in nested.pairs() {
                values += walk_value(pair?.value)?;
            }
        }
        _ => {}
    }
    Ok(values)
}

/// Ingest over a store in memory, with limits low enough for an input to reach them.
pub struct Bed {
    /// The ingest.
    pub ingest: Ingest,
    store: Arc<Store>,
}

impl Bed {
    /// An empty one.
    pub fn new() -> Self {
        let options = Options {
            series_max: 200,
            ..Options::default()
        };
        let (store, _) = Store::open(options, NOW_MS).expect("an empty store opens");
        let store = Arc::new(store);
        let options = IngestOptions {
            span_series_per_service: 4,
            metric_series_per_service: 8,
            metric_series_per_job: 8,
            services_max: 3,
            versions_per_service: 3,
            resources_max: 4,
            edges_waiting_max: 4,
            ..IngestOptions::default()
        };
        let ingest = Ingest::new(Arc::clone(&store), options, NOW_MS).expect("no journal to read");
        Bed { ingest, store }
    }

    /// Flushes several times, the last one when everything has aged out, and holds that a
    /// store only has series with names and samples in order.
    pub fn settle(&self) {
        for after_ms in [5_000, 20_000, 10 * 60_000, 3 * 60 * 60_000] {
            self.ingest.tick(NOW_MS + after_ms).expect("a flush");
        }
        let _ = self.ingest.take_observed();
        let named = Matcher::new("__name__", slogate_series::MatchOp::NotEqual, "");
        let named = named.expect("a valid matcher");
        let found = self.store.select(&[named], i64::MIN, i64::MAX);
        // A series whose only samples were refused has a name and nothing to show.
        assert!(found.len() as u64 <= self.store.stats().series);
        for series in found {
            assert!(series.samples.is_sorted_by(|a, b| a.t_ms < b.t_ms));
        }
    }
}

impl Default for Bed {
    fn default() -> Self {
        Bed::new()
    }
}
