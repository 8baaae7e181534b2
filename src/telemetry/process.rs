//! What the registry tells about the process itself.

use std::sync::Arc;

use super::catalog;
use super::heartbeat::Heartbeats;
use super::metrics::Registry;
use crate::model::Clock;

/// Has `registry` tell the version, the start time (now) and how the workers do.
pub fn describe(registry: &Registry, heartbeats: &Heartbeats, clock: &Arc<dyn Clock>) {
    registry.collect(&catalog::BUILD_INFO, |out| {
        out.push(&[env!("CARGO_PKG_VERSION")], 1.0);
    });
    let started_s = clock.now_ms() as f64 / 1e3;
    registry.collect(&catalog::START_TIME, move |out| out.push(&[], started_s));
    let (hearts, time) = (heartbeats.clone(), clock.clone());
    registry.collect(&catalog::WORKER_SILENCE, move |out| {
        for worker in hearts.states(time.now_ms()) {
            out.push(&[&worker.name], worker.silence_ms as f64 / 1e3);
        }
    });
    let (hearts, time) = (heartbeats.clone(), clock.clone());
    registry.collect(&catalog::WORKER_LATE, move |out| {
        for worker in hearts.states(time.now_ms()) {
            out.push(&[&worker.name], f64::from(u8::from(worker.is_late())));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ManualClock;
    use crate::telemetry::exposition::{Format, write};

    #[test]
    fn a_late_worker_shows() {
        let (registry, hearts) = (Registry::new(), Heartbeats::new());
        let manual = ManualClock::at(60_000);
        let clock: Arc<dyn Clock> = Arc::new(manual.clone());
        describe(&registry, &hearts, &clock);
        hearts.register("watcher", 1_000, 60_000);
        manual.advance(2_500);
        let text = write(&registry.snapshot(), Format::Prometheus);
        for line in [
            "slogate_worker_silence_seconds{worker=\"watcher\"} 2.5\n",
            "slogate_worker_late{worker=\"watcher\"} 1\n",
            "slogate_start_time_seconds 60\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
