//! Settings: file, environment, flags; the data directory.
