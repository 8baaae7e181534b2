//! Versions that telemetry carries.

use std::collections::HashMap;

use crate::model::Target;

/// When each version was last seen.
pub(super) type Sightings = HashMap<Target, HashMap<String, i64>>;
