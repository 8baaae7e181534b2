//! Opening the store's directory and applying what its log has.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use slogate_series::{Exemplar, Histogram, Labels};

use super::Store;
use crate::chunk::Incoming;
use crate::log::LogError;
use crate::log::replay::{Sink, Taken};
use crate::metadata::Metadata;
use crate::options::OpenError;
use crate::rows::SeriesRef;

/// Makes the directory and takes hold of it; the lock ends with the process at the latest.
pub(super) fn lock(dir: &Path) -> Result<File, OpenError> {
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .create(dir)
        .map_err(LogError::on("create", dir))?;
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(false);
    let file = options.open(&path).map_err(LogError::on("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(LogError::on("lock", &path)(error).into()),
    }
}

/// Applies log records to a store that nobody else has yet.
pub(super) struct Replaying<'s> {
    pub(super) store: &'s mut Store,
}

impl Replaying<'_> {
    fn enter(&mut self, place: SeriesRef, t_ms: i64, start_ms: i64, value: Incoming<'_>) -> Taken {
        let shard = self.store.shards.get_mut(place.shard());
        let Some(shard) = shard.map(RwLock::get_mut) else {
            return Taken::Repeated;
        };
        let Some((series, _, tally)) = shard.get_mut(place.number()) else {
            return Taken::Repeated;
        };
        let before = tally.samples;
        // The windows were checked before the row was written.
        let entered = series.append(t_ms, start_ms, value, i64::MAX, tally);
        if entered.is_err() || tally.samples == before {
            return Taken::Repeated;
        }
        let (min, max) = (self.store.min_t_ms.get_mut(), self.store.max_t_ms.get_mut());
        *min = t_ms.min(*min);
        *max = t_ms.max(*max);
        Taken::Yes
    }
}

impl Sink for Replaying<'_> {
    fn series(&mut self, labels: &Labels) -> Option<SeriesRef> {
        self.store.series(labels).ok()
    }

    fn float(&mut self, series: SeriesRef, t_ms: i64, start_ms: i64, value: f64) -> Taken {
        self.enter(series, t_ms, start_ms, Incoming::Float(value))
    }

    fn histogram(
        &mut self,
        series: SeriesRef,
        t_ms: i64,
        start_ms: i64,
        histogram: &Arc<Histogram>,
    ) -> Taken {
        self.enter(series, t_ms, start_ms, Incoming::Histogram(histogram))
    }

    fn exemplar(&mut self, series: SeriesRef, exemplar: Exemplar) -> Taken {
        match self.store.exemplars.get_mut().push(series, exemplar) {
            true => Taken::Yes,
            false => Taken::Repeated,
        }
    }

    fn metadata(&mut self, metric: &str, metadata: Metadata) {
        self.store.metadata.get_mut().set(metric, metadata);
    }
}
