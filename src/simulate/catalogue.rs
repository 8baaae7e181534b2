//! The scenarios, one entry each.
//!
//! The first two parts are the ones that the statistics were designed on; the others ask for what
//! a fleet does besides. An entry says only what differs from [`USUAL`].

use super::scenario::{
    BadNode, CLASSIC_BOUNDS, Change, CrashLoop, Errors, Latency, Outage, Scenario, Shape,
    Telemetry, Traffic, Truth, USUAL, WarmUp,
};

/// Every scenario, in the order of the table.
pub(crate) const CATALOGUE: &[Scenario] = &[
    // Benign, as first described.
    Scenario {
        name: "AA",
        about: "no change: 0.1 % errors, 100 requests/s, 1 of 20 instances",
        ..USUAL
    },
    Scenario {
        name: "AA_p0.5",
        about: "no change, 0.5 % errors",
        errors: Errors {
            ratio: 0.005,
            ..USUAL.errors
        },
        ..USUAL
    },
    Scenario {
        name: "AA_p2",
        about: "no change, 2 % errors",
        errors: Errors {
            ratio: 0.02,
            ..USUAL.errors
        },
        ..USUAL
    },
    Scenario {
        name: "AA_1000rps",
        about: "no change, 1,000 requests/s",
        traffic: Traffic {
            per_s: 1000.0,
            ..USUAL.traffic
        },
        ..USUAL
    },
    Scenario {
        name: "AA_1rps",
        about: "no change, 1 request/s",
        traffic: Traffic {
            per_s: 1.0,
            ..USUAL.traffic
        },
        ..USUAL
    },
    Scenario {
        name: "AA_lathet",
        about: "no change, latencies of instances differ by 5 %",
        latency: Latency {
            spread: 0.05,
            ..USUAL.latency
        },
        ..USUAL
    },
    Scenario {
        name: "warmup",
        about: "warm-up: 5 % errors more and latency x2 at first, 1/e after 2 min",
        warm_up: Some(WarmUp {
            errors: 0.05,
            latency: 1.0,
            shape: Shape::Exponential(2.0),
            is_shared: false,
        }),
        ..USUAL
    },
    Scenario {
        name: "warmup_slow",
        about: "warm-up: 3 % errors more and latency x2 at first, 1/e after 5 min",
        warm_up: Some(WarmUp {
            errors: 0.03,
            latency: 1.0,
            shape: Shape::Exponential(5.0),
            is_shared: false,
        }),
        ..USUAL
    },
    Scenario {
        name: "spike_both",
        about: "3 % errors more and latency x1.5 in both versions, minutes 20 to 30",
        outage: Some(Outage {
            from: 20,
            until: 30,
            errors: 0.03,
            latency: 1.5,
        }),
        ..USUAL
    },
    Scenario {
        name: "over_AA",
        about: "no change, 0.5 % errors in bursts of 5, wandering, differing by 20 % between instances",
        errors: Errors {
            ratio: 0.005,
            burst: 5.0,
            spread: 0.2,
            wander: 0.5,
            ..USUAL.errors
        },
        ..USUAL
    },
    Scenario {
        name: "badnode_c",
        about: "4 of 20 instances, one of the new ones with 10 times the errors",
        traffic: Traffic {
            steps: &[(0, 4)],
            ..USUAL.traffic
        },
        errors: Errors {
            ratio: 0.002,
            ..USUAL.errors
        },
        bad_node: Some(BadNode {
            is_candidate: true,
            errors: 10.0,
            latency: 1.0,
        }),
        ..USUAL
    },
    Scenario {
        name: "badnode_b",
        about: "4 of 20 instances, one of the old ones with 10 times the errors",
        traffic: Traffic {
            steps: &[(0, 4)],
            ..USUAL.traffic
        },
        errors: Errors {
            ratio: 0.002,
            ..USUAL.errors
        },
        bad_node: Some(BadNode {
            is_candidate: false,
            errors: 10.0,
            latency: 1.0,
        }),
        ..USUAL
    },
    Scenario {
        name: "ramp_AA",
        about: "no change, 5, 10, 50 % of the instances, 20 min each",
        traffic: Traffic {
            steps: &[(0, 1), (20, 2), (40, 10)],
            ..USUAL.traffic
        },
        ..USUAL
    },
    // Bad, as first described.
    Scenario {
        name: "err0.1-0.2",
        about: "errors 0.1 -> 0.2 %",
        truth: Truth::Bad { onset: 0 },
        change: Change {
            errors: 0.001,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "err0.1-0.2_1000",
        about: "errors 0.1 -> 0.2 %, 1,000 requests/s",
        truth: Truth::Bad { onset: 0 },
        traffic: Traffic {
            per_s: 1000.0,
            ..USUAL.traffic
        },
        change: Change {
            errors: 0.001,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "err0.5-1",
        about: "errors 0.5 -> 1 %",
        truth: Truth::Bad { onset: 0 },
        errors: Errors {
            ratio: 0.005,
            ..USUAL.errors
        },
        change: Change {
            errors: 0.005,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "err0.1-1",
        about: "errors 0.1 -> 1 %",
        truth: Truth::Bad { onset: 0 },
        change: Change {
            errors: 0.009,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "crash30",
        about: "errors 0.1 -> 30 %",
        truth: Truth::Bad { onset: 0 },
        change: Change {
            errors: 0.299,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "crash30_1rps",
        about: "errors 0.1 -> 30 %, 1 request/s",
        truth: Truth::Bad { onset: 0 },
        traffic: Traffic {
            per_s: 1.0,
            ..USUAL.traffic
        },
        change: Change {
            errors: 0.299,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "err5_1rps",
        about: "errors 0.1 -> 5 %, 1 request/s",
        truth: Truth::Bad { onset: 0 },
        traffic: Traffic {
            per_s: 1.0,
            ..USUAL.traffic
        },
        change: Change {
            errors: 0.049,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "p95+10",
        about: "all latencies x1.1",
        truth: Truth::Bad { onset: 0 },
        change: Change {
            latency: 1.1,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "p95+50",
        about: "all latencies x1.5",
        truth: Truth::Bad { onset: 0 },
        change: Change {
            latency: 1.5,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "tail+50",
        about: "6 % of requests 5 times slower, P50 unchanged",
        truth: Truth::Bad { onset: 0 },
        change: Change {
            tail: Some((0.06, 5.0)),
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "late0.1-1",
        about: "errors 0.1 -> 1 % from minute 30 on",
        truth: Truth::Bad { onset: 30 },
        change: Change {
            from: 30,
            errors: 0.009,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "warmup+err1",
        about: "warm-up as in warmup, and errors 0.1 -> 1 %",
        truth: Truth::Bad { onset: 0 },
        warm_up: Some(WarmUp {
            errors: 0.05,
            latency: 1.0,
            shape: Shape::Exponential(2.0),
            is_shared: false,
        }),
        change: Change {
            errors: 0.009,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "over_err",
        about: "errors 0.5 -> 2 %, bursts as in over_AA",
        truth: Truth::Bad { onset: 0 },
        errors: Errors {
            ratio: 0.005,
            burst: 5.0,
            spread: 0.2,
            wander: 0.5,
            ..USUAL.errors
        },
        change: Change {
            errors: 0.015,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "k4_err",
        about: "4 of 20 instances, errors 0.2 -> 0.6 %",
        truth: Truth::Bad { onset: 0 },
        traffic: Traffic {
            steps: &[(0, 4)],
            ..USUAL.traffic
        },
        errors: Errors {
            ratio: 0.002,
            ..USUAL.errors
        },
        change: Change {
            errors: 0.004,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "k4_badb_err",
        about: "as k4_err, and one old instance with 10 times the errors",
        truth: Truth::Bad { onset: 0 },
        traffic: Traffic {
            steps: &[(0, 4)],
            ..USUAL.traffic
        },
        errors: Errors {
            ratio: 0.002,
            ..USUAL.errors
        },
        change: Change {
            errors: 0.004,
            ..USUAL.change
        },
        bad_node: Some(BadNode {
            is_candidate: false,
            errors: 10.0,
            latency: 1.0,
        }),
        ..USUAL
    },
    Scenario {
        name: "ramp_err",
        about: "errors 0.1 -> 0.2 %, 5, 10, 50 % of the instances",
        truth: Truth::Bad { onset: 0 },
        traffic: Traffic {
            steps: &[(0, 1), (20, 2), (40, 10)],
            ..USUAL.traffic
        },
        change: Change {
            errors: 0.001,
            ..USUAL.change
        },
        ..USUAL
    },
    // More that is benign.
    Scenario {
        name: "warmup_1",
        about: "warm-up: 10 % errors more and latency x3 at first, 1/e after 1 min",
        warm_up: Some(WarmUp {
            errors: 0.1,
            latency: 2.0,
            shape: Shape::Exponential(1.0),
            is_shared: false,
        }),
        ..USUAL
    },
    Scenario {
        name: "warmup_3",
        about: "warm-up: 5 % errors more and latency x2 at first, 1/e after 3 min",
        warm_up: Some(WarmUp {
            errors: 0.05,
            latency: 1.0,
            shape: Shape::Exponential(3.0),
            is_shared: false,
        }),
        ..USUAL
    },
    Scenario {
        name: "warmup_8",
        about: "warm-up: 2 % errors more and latency x1.5 at first, 1/e after 8 min",
        warm_up: Some(WarmUp {
            errors: 0.02,
            latency: 0.5,
            shape: Shape::Exponential(8.0),
            is_shared: false,
        }),
        ..USUAL
    },
    Scenario {
        name: "warmup_errors",
        about: "warm-up of errors only: 5 % more at first, 1/e after 3 min",
        warm_up: Some(WarmUp {
            errors: 0.05,
            latency: 0.0,
            shape: Shape::Exponential(3.0),
            is_shared: false,
        }),
        ..USUAL
    },
    Scenario {
        name: "warmup_latency",
        about: "warm-up of latency only: x3 at first, 1/e after 6 min",
        warm_up: Some(WarmUp {
            errors: 0.0,
            latency: 2.0,
            shape: Shape::Exponential(6.0),
            is_shared: false,
        }),
        ..USUAL
    },
    Scenario {
        name: "warmup_linear",
        about: "warm-up: 4 % errors more and latency x2 at first, evenly gone after 10 min",
        warm_up: Some(WarmUp {
            errors: 0.04,
            latency: 1.0,
            shape: Shape::Linear(10.0),
            is_shared: false,
        }),
        ..USUAL
    },
    Scenario {
        name: "warmup_plateau",
        about: "warm-up: 5 % errors more and latency x2 for 4 min, then gone",
        warm_up: Some(WarmUp {
            errors: 0.05,
            latency: 1.0,
            shape: Shape::Plateau(4.0),
            is_shared: false,
        }),
        ..USUAL
    },
    Scenario {
        name: "warmup_ramp",
        about: "warm-up as in warmup of each instance, 5, 10, 20, 50 % of them, 10 min each",
        traffic: Traffic {
            steps: &[(0, 1), (10, 2), (20, 4), (30, 10)],
            ..USUAL.traffic
        },
        warm_up: Some(WarmUp {
            errors: 0.05,
            latency: 1.0,
            shape: Shape::Exponential(2.0),
            is_shared: false,
        }),
        ..USUAL
    },
    Scenario {
        name: "warmup_both",
        about: "warm-up as in warmup_slow of all instances: the old ones were restarted too",
        warm_up: Some(WarmUp {
            errors: 0.03,
            latency: 1.0,
            shape: Shape::Exponential(5.0),
            is_shared: true,
        }),
        ..USUAL
    },
    Scenario {
        name: "drift",
        about: "traffic x2, error ratio x3 and latency x1.3 over the hour in both versions",
        traffic: Traffic {
            drift: 2.0,
            ..USUAL.traffic
        },
        errors: Errors {
            ratio: 0.002,
            drift: 3.0,
            ..USUAL.errors
        },
        latency: Latency {
            drift: 1.3,
            ..USUAL.latency
        },
        ..USUAL
    },
    Scenario {
        name: "burst10",
        about: "no change, 0.5 % errors in bursts of 10",
        errors: Errors {
            ratio: 0.005,
            burst: 10.0,
            ..USUAL.errors
        },
        ..USUAL
    },
    Scenario {
        name: "burst20",
        about: "no change, 0.5 % errors in bursts of 20, wandering",
        errors: Errors {
            ratio: 0.005,
            burst: 20.0,
            wander: 0.3,
            ..USUAL.errors
        },
        ..USUAL
    },
    Scenario {
        name: "latency_3",
        about: "no change, latencies of instances differ by 3 %",
        latency: Latency {
            spread: 0.03,
            ..USUAL.latency
        },
        ..USUAL
    },
    Scenario {
        name: "latency_8",
        about: "no change, latencies of instances differ by 8 %",
        latency: Latency {
            spread: 0.08,
            ..USUAL.latency
        },
        ..USUAL
    },
    Scenario {
        name: "few_AA",
        about: "no change, 1 of 4 instances, 10 requests/s",
        traffic: Traffic {
            per_s: 10.0,
            instances: 4,
            ..USUAL.traffic
        },
        ..USUAL
    },
    Scenario {
        name: "half_AA",
        about: "no change, 10 of 20 instances at once",
        traffic: Traffic {
            steps: &[(0, 10)],
            ..USUAL.traffic
        },
        ..USUAL
    },
    Scenario {
        name: "replace_AA",
        about: "no change, all instances at once: nothing runs beside the new version",
        traffic: Traffic {
            steps: &[(0, 20)],
            ..USUAL.traffic
        },
        ..USUAL
    },
    Scenario {
        name: "badnode_c_latency",
        about: "4 of 20 instances, one of the new ones 1.5 times slower",
        traffic: Traffic {
            steps: &[(0, 4)],
            ..USUAL.traffic
        },
        bad_node: Some(BadNode {
            is_candidate: true,
            errors: 1.0,
            latency: 1.5,
        }),
        ..USUAL
    },
    Scenario {
        name: "badnode_b_latency",
        about: "4 of 20 instances, one of the old ones 1.5 times slower",
        traffic: Traffic {
            steps: &[(0, 4)],
            ..USUAL.traffic
        },
        bad_node: Some(BadNode {
            is_candidate: false,
            errors: 1.0,
            latency: 1.5,
        }),
        ..USUAL
    },
    Scenario {
        name: "outage_both",
        about: "a dependency is down: 20 % errors more and latency x3 in both versions, minutes 12 to 20",
        outage: Some(Outage {
            from: 12,
            until: 20,
            errors: 0.2,
            latency: 3.0,
        }),
        ..USUAL
    },
    Scenario {
        name: "sampled_AA",
        about: "no change, 1 of 10 requests sampled and counted for all",
        telemetry: Telemetry {
            sampled: 10,
            ..USUAL.telemetry
        },
        ..USUAL
    },
    Scenario {
        name: "uneven_AA",
        about: "no change, load of instances differs by a factor of about 1.6",
        traffic: Traffic {
            uneven: 0.5,
            ..USUAL.traffic
        },
        ..USUAL
    },
    Scenario {
        name: "pause_AA",
        about: "no change, 5 then 20 % of the instances, no traffic to them in minutes 15 to 30",
        traffic: Traffic {
            steps: &[(0, 1), (30, 4)],
            pause: Some((15, 30)),
            ..USUAL.traffic
        },
        ..USUAL
    },
    Scenario {
        name: "classic_AA",
        about: "no change, classic latency buckets",
        telemetry: Telemetry {
            bounds: CLASSIC_BOUNDS,
            ..USUAL.telemetry
        },
        ..USUAL
    },
    Scenario {
        name: "unnamed_AA",
        about: "no change, series don't say which instance they are of",
        telemetry: Telemetry {
            names_instances: false,
            ..USUAL.telemetry
        },
        ..USUAL
    },
    Scenario {
        name: "rare_AA",
        about: "no change, 1 error in 50,000 requests",
        errors: Errors {
            ratio: 0.00002,
            ..USUAL.errors
        },
        ..USUAL
    },
    Scenario {
        name: "better",
        about: "errors 0.5 -> 0.25 %, all latencies x0.9",
        errors: Errors {
            ratio: 0.005,
            ..USUAL.errors
        },
        change: Change {
            errors: -0.0025,
            latency: 0.9,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "mixed_good",
        about: "each rollout of another service, with other noise, warm-up, outage, bad instance",
        is_mixed: true,
        ..USUAL
    },
    // More that is bad.
    Scenario {
        name: "late10",
        about: "errors 0.1 -> 1 % from minute 10 on",
        truth: Truth::Bad { onset: 10 },
        change: Change {
            from: 10,
            errors: 0.009,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "late45",
        about: "errors 0.1 -> 2 % from minute 45 on",
        truth: Truth::Bad { onset: 45 },
        change: Change {
            from: 45,
            errors: 0.019,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "leak_errors",
        about: "errors grow from 0.1 to 3 % over the hour",
        truth: Truth::Bad { onset: 0 },
        change: Change {
            errors: 0.029,
            grows: true,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "leak_latency",
        about: "all latencies grow to x2 over the hour",
        truth: Truth::Bad { onset: 0 },
        change: Change {
            latency: 2.0,
            grows: true,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "endpoint_errors",
        about: "one endpoint with a tenth of the requests fails in 8 %: errors 0.1 -> 0.9 %",
        truth: Truth::Bad { onset: 0 },
        change: Change {
            errors: 0.008,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "endpoint_latency",
        about: "one endpoint with a tenth of the requests is 3 times slower",
        truth: Truth::Bad { onset: 0 },
        change: Change {
            tail: Some((0.1, 3.0)),
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "crash_loop",
        about: "new instances serve 2 of 6 min, with 10 % errors more",
        truth: Truth::Bad { onset: 0 },
        traffic: Traffic {
            crash_loop: Some(CrashLoop { period: 6, up: 2 }),
            ..USUAL.traffic
        },
        change: Change {
            errors: 0.1,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "few_err",
        about: "1 of 4 instances, 10 requests/s, errors 0.1 -> 2 %",
        truth: Truth::Bad { onset: 0 },
        traffic: Traffic {
            per_s: 10.0,
            instances: 4,
            ..USUAL.traffic
        },
        change: Change {
            errors: 0.019,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "low_err",
        about: "1 of 4 instances, 1 request/s, errors 0.5 -> 10 %",
        truth: Truth::Bad { onset: 0 },
        traffic: Traffic {
            per_s: 1.0,
            instances: 4,
            ..USUAL.traffic
        },
        errors: Errors {
            ratio: 0.005,
            ..USUAL.errors
        },
        change: Change {
            errors: 0.095,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "replace_err",
        about: "errors 0.1 -> 1 %, all instances at once",
        truth: Truth::Bad { onset: 0 },
        traffic: Traffic {
            steps: &[(0, 20)],
            ..USUAL.traffic
        },
        change: Change {
            errors: 0.009,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "sampled_err",
        about: "errors 0.1 -> 2 %, 1 of 10 requests sampled and counted for all",
        truth: Truth::Bad { onset: 0 },
        telemetry: Telemetry {
            sampled: 10,
            ..USUAL.telemetry
        },
        change: Change {
            errors: 0.019,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "uneven_err",
        about: "errors 0.1 -> 0.8 %, load of instances differs by a factor of about 1.6",
        truth: Truth::Bad { onset: 0 },
        traffic: Traffic {
            uneven: 0.5,
            ..USUAL.traffic
        },
        change: Change {
            errors: 0.007,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "classic_p95+30",
        about: "all latencies x1.3, classic latency buckets",
        truth: Truth::Bad { onset: 0 },
        telemetry: Telemetry {
            bounds: CLASSIC_BOUNDS,
            ..USUAL.telemetry
        },
        change: Change {
            latency: 1.3,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "unnamed_err",
        about: "errors 0.1 -> 1 %, series don't say which instance they are of",
        truth: Truth::Bad { onset: 0 },
        telemetry: Telemetry {
            names_instances: false,
            ..USUAL.telemetry
        },
        change: Change {
            errors: 0.009,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "burst10_err",
        about: "errors 0.5 -> 3 % in bursts of 10",
        truth: Truth::Bad { onset: 0 },
        errors: Errors {
            ratio: 0.005,
            burst: 10.0,
            ..USUAL.errors
        },
        change: Change {
            errors: 0.025,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "warmup_slow+err1",
        about: "warm-up as in warmup_slow, and errors 0.1 -> 1.5 %",
        truth: Truth::Bad { onset: 0 },
        warm_up: Some(WarmUp {
            errors: 0.03,
            latency: 1.0,
            shape: Shape::Exponential(5.0),
            is_shared: false,
        }),
        change: Change {
            errors: 0.014,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "warmup+p95+30",
        about: "warm-up as in warmup, and all latencies x1.3",
        truth: Truth::Bad { onset: 0 },
        warm_up: Some(WarmUp {
            errors: 0.05,
            latency: 1.0,
            shape: Shape::Exponential(2.0),
            is_shared: false,
        }),
        change: Change {
            latency: 1.3,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "drift_err",
        about: "drift as in drift, and 0.8 % errors more",
        truth: Truth::Bad { onset: 0 },
        traffic: Traffic {
            drift: 2.0,
            ..USUAL.traffic
        },
        errors: Errors {
            ratio: 0.002,
            drift: 3.0,
            ..USUAL.errors
        },
        latency: Latency {
            drift: 1.3,
            ..USUAL.latency
        },
        change: Change {
            errors: 0.008,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "ramp_p95+20",
        about: "all latencies x1.2, 5, 10, 50 % of the instances",
        truth: Truth::Bad { onset: 0 },
        traffic: Traffic {
            steps: &[(0, 1), (20, 2), (40, 10)],
            ..USUAL.traffic
        },
        change: Change {
            latency: 1.2,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "latency_5+30",
        about: "all latencies x1.3, latencies of instances differ by 5 %",
        truth: Truth::Bad { onset: 0 },
        latency: Latency {
            spread: 0.05,
            ..USUAL.latency
        },
        change: Change {
            latency: 1.3,
            ..USUAL.change
        },
        ..USUAL
    },
    Scenario {
        name: "badnode_c+err",
        about: "errors 0.2 -> 0.8 % on 4 of 20 instances, and one of them with 10 times the errors",
        truth: Truth::Bad { onset: 0 },
        traffic: Traffic {
            steps: &[(0, 4)],
            ..USUAL.traffic
        },
        errors: Errors {
            ratio: 0.002,
            ..USUAL.errors
        },
        change: Change {
            errors: 0.006,
            ..USUAL.change
        },
        bad_node: Some(BadNode {
            is_candidate: true,
            errors: 10.0,
            latency: 1.0,
        }),
        ..USUAL
    },
    Scenario {
        name: "mixed_bad",
        about: "as mixed_good, and errors 3 times or more, or slower by a fifth or more, all or some",
        truth: Truth::Bad { onset: 0 },
        is_mixed: true,
        ..USUAL
    },
];
