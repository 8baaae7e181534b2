//! Our own logs, metrics, traces and heartbeats.
