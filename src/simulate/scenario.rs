//! What can happen in a rollout, as numbers.
//!
//! A scenario is data: how much traffic there is and who serves it, how the old version behaves,
//! and what the new version, the fleet or the telemetry adds to that. Everything is in minutes
//! from the start of the rollout; durations are lognormal.

/// How long a rollout is watched, in minutes.
pub(crate) const MINUTES: u32 = 60;

/// How many minutes of the old version's telemetry there are from before the rollout.
pub(crate) const HISTORY_MINUTES: u32 = 30;

/// The old version's median latency, in seconds.
pub(crate) const MEDIAN_S: f64 = 0.060;

/// The standard deviation of log latency: with it the P95 is 180 ms, three times the median, and
/// the P99 284 ms.
pub(crate) const SIGMA: f64 = 0.667_904_7;

/// A request that takes longer than this and without the change would not have is harmed, in
/// seconds. It is about the old version's P98.
pub(crate) const SLOW_S: f64 = 0.250;

/// A rollout to be simulated.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scenario {
    /// Its name; part of the seed, so that another name is another draw.
    pub(crate) name: &'static str,
    /// What happens and how large it is, in words.
    pub(crate) about: &'static str,
    /// Whether a rollout of this kind should be stopped.
    pub(crate) truth: Truth,
    /// Who serves how much.
    pub(crate) traffic: Traffic,
    /// How the old version fails, and the new one without its change.
    pub(crate) errors: Errors,
    /// How latencies scatter beyond their lognormal shape.
    pub(crate) latency: Latency,
    /// What the new version does otherwise than the old one, and keeps doing.
    pub(crate) change: Change,
    /// What a new instance's first minutes are like.
    pub(crate) warm_up: Option<WarmUp>,
    /// What hits both versions alike.
    pub(crate) outage: Option<Outage>,
    /// One instance that is worse than its version.
    pub(crate) bad_node: Option<BadNode>,
    /// What of it is seen.
    pub(crate) telemetry: Telemetry,
    /// Whether each rollout draws all of this for itself, but for the truth.
    pub(crate) is_mixed: bool,
}

/// What should become of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    /// The version is no worse: an alarm is false.
    Benign,
    /// The version is worse from a minute on: an alarm after its begin is right.
    Bad {
        /// The first minute of the regression.
        onset: u32,
    },
}

/// Requests and instances.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Traffic {
    /// Requests per second of the whole service at the start of the rollout.
    pub(crate) per_s: f64,
    /// Instances of the whole service; each new one replaces an old one.
    pub(crate) instances: u32,
    /// How many instances run the new version from which minute on; from 0 on at least one.
    pub(crate) steps: &'static [(u32, u32)],
    /// How unevenly requests spread over instances: standard deviation of the log of their share.
    pub(crate) uneven: f64,
    /// The factor by which traffic differs an hour later; it drifts evenly.
    pub(crate) drift: f64,
    /// Minutes in which the new version gets no requests: from the first, before the second.
    pub(crate) pause: Option<(u32, u32)>,
    /// The new version's instances restart over and over.
    pub(crate) crash_loop: Option<CrashLoop>,
}

/// Instances that serve for a while and come back later, as new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CrashLoop {
    /// Minutes from start to start.
    pub(crate) period: u32,
    /// Minutes of these in which requests are served.
    pub(crate) up: u32,
}

/// Failed requests of the old version.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Errors {
    /// The share of requests that fail.
    pub(crate) ratio: f64,
    /// How many failures come together on average; sizes are geometric.
    pub(crate) burst: f64,
    /// How much instances differ for good: standard deviation of the log of the ratio.
    pub(crate) spread: f64,
    /// How much the ratio wanders, of the service and of each instance on its own: standard
    /// deviation of its log, correlated by 0.8 from minute to minute.
    pub(crate) wander: f64,
    /// The factor by which the ratio differs an hour later, for both versions.
    pub(crate) drift: f64,
}

/// Scatter of latencies: standard deviations of the log of the median.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Latency {
    /// Of all instances together, correlated by 0.8 from minute to minute.
    pub(crate) common: f64,
    /// Of instances, for good.
    pub(crate) spread: f64,
    /// Of each instance in each minute.
    pub(crate) minute: f64,
    /// The factor by which latency differs an hour later, for both versions.
    pub(crate) drift: f64,
}

/// What the new version does otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    /// The first minute of it.
    pub(crate) from: u32,
    /// Added to the share of requests that fail.
    pub(crate) errors: f64,
    /// Factor on all latencies.
    pub(crate) latency: f64,
    /// A share of requests, and the factor on their latencies.
    pub(crate) tail: Option<(f64, f64)>,
    /// Whether it grows evenly from nothing at `from` to its full size at the end of the hour.
    pub(crate) grows: bool,
}

/// A new instance's first minutes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WarmUp {
    /// Added to the share of requests that fail, at age 0.
    pub(crate) errors: f64,
    /// Latency is `1 + latency` times the usual at age 0.
    pub(crate) latency: f64,
    /// How it passes.
    pub(crate) shape: Shape,
    /// Whether the old version's instances start anew with the rollout too.
    pub(crate) is_shared: bool,
}

/// How a warm-up passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    /// Falls to 1/e in so many minutes, and so on.
    Exponential(f64),
    /// Falls evenly to nothing at that age in minutes.
    Linear(f64),
    /// Stays for so many minutes, then is gone.
    Plateau(f64),
}

impl Shape {
    /// What is left of the warm-up in the middle of the minute in which an instance is `age`
    /// minutes old.
    pub(crate) fn left(self, age: u32) -> f64 {
        let age = f64::from(age) + 0.5;
        match self {
            Shape::Exponential(tau) => (-age / tau).exp(),
            Shape::Linear(length) => (1.0 - age / length).max(0.0),
            Shape::Plateau(length) => f64::from(u8::from(age < length)),
        }
    }
}

/// Trouble that both versions share, such as a dependency that is down.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outage {
    /// The first minute of it.
    pub(crate) from: u32,
    /// The first minute after it.
    pub(crate) until: u32,
    /// Added to the share of requests that fail.
    pub(crate) errors: f64,
    /// Factor on all latencies.
    pub(crate) latency: f64,
}

/// One instance that is worse than the others of its version.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BadNode {
    /// Whether it runs the new version.
    pub(crate) is_candidate: bool,
    /// Factor on the share of its requests that fail.
    pub(crate) errors: f64,
    /// Factor on its latencies.
    pub(crate) latency: f64,
}

/// What is seen of a rollout.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Telemetry {
    /// One of so many requests is sampled, and counted for all of them.
    pub(crate) sampled: u32,
    /// Whether series say which instance they are of.
    pub(crate) names_instances: bool,
    /// Upper bounds of latency buckets in seconds; none for native histograms of schema 4.
    pub(crate) bounds: &'static [f64],
}

/// Sixteen buckets for each doubling.
pub(crate) const SCHEMA: i8 = 4;

/// The upper bounds that Prometheus's client libraries come with, in seconds.
pub(crate) const CLASSIC_BOUNDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// A service of 20 instances and 100 requests per second, of which 0.1 % fail; one instance gets
/// a new build of the same code. Every other scenario says what is otherwise.
pub(crate) const USUAL: Scenario = Scenario {
    name: "AA",
    about: "no change",
    truth: Truth::Benign,
    traffic: Traffic {
        per_s: 100.0,
        instances: 20,
        steps: &[(0, 1)],
        uneven: 0.0,
        drift: 1.0,
        pause: None,
        crash_loop: None,
    },
    errors: Errors {
        ratio: 0.001,
        burst: 1.0,
        spread: 0.0,
        wander: 0.0,
        drift: 1.0,
    },
    latency: Latency {
        common: 0.05,
        spread: 0.02,
        minute: 0.03,
        drift: 1.0,
    },
    change: Change {
        from: 0,
        errors: 0.0,
        latency: 1.0,
        tail: None,
        grows: false,
    },
    warm_up: None,
    outage: None,
    bad_node: None,
    telemetry: Telemetry {
        sampled: 1,
        names_instances: true,
        bounds: &[],
    },
    is_mixed: false,
};

impl Scenario {
    /// How many instances run the new version in `minute`.
    pub(crate) fn candidates(&self, minute: u32) -> u32 {
        let steps = self.traffic.steps.iter();
        let reached = steps.take_while(|(from, _)| *from <= minute).last();
        reached.map_or(0, |(_, instances)| *instances)
    }

    /// How much of the change is there in `minute`, from 0 to 1.
    pub(crate) fn changed(&self, minute: u32) -> f64 {
        let change = &self.change;
        if minute < change.from {
            return 0.0;
        }
        if !change.grows {
            return 1.0;
        }
        let length = f64::from(MINUTES.saturating_sub(change.from).max(1));
        (f64::from(minute - change.from) + 0.5) / length
    }

    /// The first minute of the regression, where there is one.
    pub(crate) fn onset(&self) -> Option<u32> {
        match self.truth {
            Truth::Benign => None,
            Truth::Bad { onset } => Some(onset),
        }
    }
}
