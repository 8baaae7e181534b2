//! The append-only, hash-chained record of events and verdicts.
