//! Telemetry in: OTLP to series.
