//! The series that every engine gets.
//!
//! Forty minutes, a sample about every 15 s. No sample lies on a whole second, so that windows
//! on whole seconds hold the same samples whether their left end is open (Prometheus 3) or
//! closed (Prometheus 2). All is made from fixed numbers: a query that fails once fails always.

use slogate_series::{
    Buckets, Histogram, Labels, ResetHint, Sample, Series, Value, histogram::CUSTOM_SCHEMA,
    stale_nan,
};

/// The first moment: 2026-02-28T23:40:00Z, so that the month changes on the way.
pub(super) const BASE_MS: i64 = 1_772_322_000_000;
/// How long data is there.
pub(super) const SPAN_MS: i64 = 40 * 60_000;
const INTERVAL_MS: i64 = 15_000;
/// What counters have counted before the first sample. Near 0 the extrapolation of a rate to the
/// start of its window differs between Prometheus 2 and 3; `on_grid_total` is about that.
const STARTED: f64 = 10_000.0;
const STEPS: usize = (SPAN_MS / INTERVAL_MS) as usize;

const INSTANCES: [&str; 3] = ["demo-a:8080", "demo-b:8080", "demo-c:8080"];

/// Numbers that look random and are always the same (splitmix64).
#[derive(Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// In `0.0..1.0`.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Collects series; each has its own sample times and its own dice.
struct Maker {
    series: Vec<Series>,
}

impl Maker {
    /// A series with a value at each step that has one.
    fn add(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        mut value: impl FnMut(usize, &mut Dice) -> Option<Value>,
    ) {
        let labels = Labels::from_pairs(labels.iter().copied().chain([("__name__", name)]));
        let mut dice = Dice::new(self.series.len() as u64 + 1);
        // One target's series are scraped together, about each 15 s and never on a whole second.
        let instance = labels.get("instance").unwrap_or(name).to_owned();
        let target = instance.bytes().map(u64::from).sum();
        let mut clock = Dice::new(target);
        let phase_ms = (clock.next() % 14) as i64 * 1_000;
        let mut samples = Vec::new();
        for step in 0..STEPS {
            let t_ms = BASE_MS + step as i64 * INTERVAL_MS + phase_ms;
            let jitter_ms = 200 + (clock.next() % 600) as i64;
            if let Some(value) = value(step, &mut dice) {
                samples.push(Sample {
                    t_ms: t_ms + jitter_ms,
                    start_ms: 0,
                    value,
                });
            }
        }
        self.series.push(Series { labels, samples });
    }

    fn floats(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        mut value: impl FnMut(usize, &mut Dice) -> Option<f64>,
    ) {
        self.add(name, labels, |step, dice| {
            value(step, dice).map(Value::Float)
        });
    }

    /// A counter that starts anew at each of `resets`.
    fn counter(&mut self, name: &str, labels: &[(&str, &str)], per_step: f64, resets: &[usize]) {
        let mut total = STARTED;
        self.floats(name, labels, |step, dice| {
            if resets.contains(&step) {
                total = 0.0;
            }
            total += per_step * dice.unit();
            Some(total)
        });
    }
}

/// Every series. Those of [`is_for_3_only`] are of no use to a Prometheus 2.
pub(super) fn all() -> Vec<Series> {
    let mut maker = Maker { series: Vec::new() };
    demo(&mut maker);
    classic_histograms(&mut maker);
    odd_values(&mut maker);
    comings_and_goings(&mut maker);
    joins(&mut maker);
    native_histograms(&mut maker);
    on_grid(&mut maker);
    maker.series
}

/// Histograms with custom bounds came with Prometheus 2.50.
pub(super) fn is_for_3_only(series: &Series) -> bool {
    let is_custom = |sample: &Sample| match &sample.value {
        Value::Histogram(histogram) => histogram.schema == CUSTOM_SCHEMA,
        Value::Float(_) => false,
    };
    series.samples.iter().any(is_custom)
}

/// The kinds of series of the demo service that Prometheus's compliance queries are about.
fn demo(maker: &mut Maker) {
    for (at, instance) in INSTANCES.into_iter().enumerate() {
        let target = [("instance", instance), ("job", "demo")];
        let with = |name, value| [target[0], target[1], (name, value)];
        let resets: &[usize] = if at == 1 { &[50, 110] } else { &[] };
        for (mode, seconds) in [("idle", 40.0), ("system", 3.0), ("user", 9.5)] {
            let labels = with("mode", mode);
            maker.counter("demo_cpu_usage_seconds_total", &labels, seconds, resets);
        }
        for (kind, size) in [
            ("buffers", 1e8),
            ("cached", 2.2e9),
            ("free", 5e8),
            ("used", 5.3e9),
        ] {
            maker.floats("demo_memory_usage_bytes", &with("type", kind), |_, dice| {
                Some((size * (0.8 + 0.4 * dice.unit())).round())
            });
        }
        maker.floats("demo_num_cpus", &target, |_, _| Some(4.0));
        let mut used = 1e10;
        maker.floats("demo_disk_usage_bytes", &target, |_, dice| {
            used += (dice.unit() * 5e6).round();
            Some(used)
        });
        maker.floats("demo_disk_total_bytes", &target, |_, _| {
            Some(262_144_000_000.0)
        });
        let start_s = BASE_MS / 1_000;
        maker.floats(
            "demo_batch_last_success_timestamp_seconds",
            &target,
            |step, _| Some((start_s + (step as i64 * 15) / 240 * 240) as f64 + 0.5),
        );
        maker.floats("demo_is_holiday", &target, |_, _| Some(0.0));
        maker.counter("demo_items_shipped_total", &target, 7.0, &[75]);
        maker.floats("demo_cyclic", &target, |step, _| {
            Some(((step as f64 + at as f64 * 10.0) / 8.0).sin())
        });
        maker.floats("up", &target, |step, _| {
            Some(f64::from(!(at == 2 && (60..64).contains(&step))))
        });
    }
    let other = [("instance", "other:9090"), ("job", "other")];
    maker.floats("up", &other, |_, _| Some(1.0));
    maker.floats("demo_num_cpus", &other, |_, _| Some(8.0));
}

fn classic_histograms(maker: &mut Maker) {
    let bounds = ["0.01", "0.05", "0.1", "0.5", "1", "2.5", "+Inf"];
    for (at, instance) in INSTANCES.into_iter().enumerate() {
        for (method, path, status) in [
            ("GET", "/api/foo", "200"),
            ("GET", "/api/foo", "500"),
            ("GET", "/api/bar", "200"),
            ("POST", "/api/bar", "200"),
            ("POST", "/api/bar", "404"),
        ] {
            let labels = [
                ("instance", instance),
                ("job", "demo"),
                ("method", method),
                ("path", path),
                ("status", status),
            ];
            let mut counts = Vec::new();
            let mut running =
                std::array::from_fn::<u64, 7, _>(|bucket| 9_000 + 100 * bucket as u64);
            let mut dice = Dice::new(at as u64 * 100 + path.len() as u64 + method.len() as u64);
            for step in 0..STEPS {
                if at == 1 && (step == 50 || step == 110) {
                    running = [0; 7];
                }
                let mut below = 0;
                for (bucket, total) in running.iter_mut().enumerate() {
                    below += dice.next() % (9 - bucket as u64);
                    *total += below;
                }
                counts.push(running);
            }
            let name = "demo_api_request_duration_seconds";
            for (bucket, bound) in bounds.into_iter().enumerate() {
                let mut labels = labels.to_vec();
                labels.push(("le", bound));
                maker.floats(&format!("{name}_bucket"), &labels, |step, _| {
                    Some(counts[step][bucket] as f64)
                });
            }
            maker.floats(&format!("{name}_count"), &labels, |step, _| {
                Some(counts[step][6] as f64)
            });
            maker.floats(&format!("{name}_sum"), &labels, |step, _| {
                Some(counts[step][6] as f64 * 0.217 + counts[step][2] as f64 * 0.031)
            });
        }
    }
    // What clients and relabelling make of histograms at their worst.
    let odd: [(&str, &[(&str, f64)]); 7] = [
        (
            "falling",
            &[("1", 5.0), ("2", 3.0), ("4", 9.0), ("+Inf", 9.0)],
        ),
        ("no-inf", &[("1", 5.0), ("2", 8.0), ("4", 9.0)]),
        ("only-inf", &[("+Inf", 9.0)]),
        (
            "twice",
            &[("1", 2.0), ("1.0", 3.0), ("2", 8.0), ("+Inf", 9.0)],
        ),
        (
            "negative",
            &[("-4", 2.0), ("-1", 5.0), ("3", 8.0), ("+Inf", 9.0)],
        ),
        ("empty", &[("1", 0.0), ("2", 0.0), ("+Inf", 0.0)]),
        (
            "nonsense",
            &[("1", 2.0), ("low", 3.0), ("3", 8.0), ("+Inf", 9.0)],
        ),
    ];
    for (kind, buckets) in odd {
        for (bound, count) in buckets {
            let labels = [("instance", "odd:1"), ("kind", kind), ("le", *bound)];
            maker.floats("odd_bucket", &labels, |step, _| {
                Some(count * (1.0 + step as f64))
            });
        }
    }
}

fn odd_values(maker: &mut Maker) {
    let mut add = |kind: &str, value: &dyn Fn(usize, &mut Dice) -> f64| {
        let labels = [("instance", "odd:1"), ("kind", kind)];
        maker.floats("odd_gauge", &labels, |step, dice| Some(value(step, dice)));
    };
    add("nan", &|_, _| f64::NAN);
    add("sometimes-nan", &|step, dice| match step % 5 {
        0 => f64::NAN,
        _ => dice.unit() * 10.0,
    });
    add("inf", &|_, _| f64::INFINITY);
    add("-inf", &|_, _| f64::NEG_INFINITY);
    add("sometimes-inf", &|step, dice| match step % 16 {
        3 => f64::INFINITY,
        9 => f64::NEG_INFINITY,
        _ => dice.unit() * 10.0,
    });
    add("negative", &|_, dice| -100.0 * dice.unit() - 1.0);
    add("both-signs", &|_, dice| 20.0 * (dice.unit() - 0.5));
    add("zero", &|_, _| 0.0);
    add("tiny", &|_, dice| 1e-300 * (1.0 + dice.unit()));
    add("huge", &|_, dice| 1e300 * (1.0 + dice.unit()));
    add("too-huge-to-add", &|_, _| 1.7e308);
    add("cancels", &|step, _| [1e16, 1.0, -1e16][step % 3]);
    add("whole", &|_, dice| (dice.unit() * 6.0).floor());
    add("constant", &|_, _| 12.5);
    add("integers-past-2^53", &|step, _| {
        9_007_199_254_740_993.0 + step as f64
    });
    add("steps", &|step, _| (step / 7) as f64);
    add("seconds", &|step, _| {
        1_772_000_000.0 + step as f64 * 86_399.0
    });
}

fn comings_and_goings(maker: &mut Maker) {
    // Five minutes there and five not: one says so when it goes, the other just goes.
    maker.floats(
        "demo_intermittent_metric",
        &[("instance", INSTANCES[0]), ("job", "demo")],
        |step, dice| match step % 40 {
            0..20 => Some(dice.unit() * 100.0),
            20 => Some(stale_nan()),
            _ => None,
        },
    );
    maker.floats(
        "demo_intermittent_metric",
        &[("instance", INSTANCES[1]), ("job", "demo")],
        |step, dice| (step % 40 < 20).then(|| dice.unit() * 100.0),
    );
    // A release: the old version ends as the new one begins.
    for (version, steps) in [("1.0", 0..70), ("1.1", 70..STEPS)] {
        for instance in INSTANCES {
            let labels = [
                ("instance", instance),
                ("job", "demo"),
                ("version", version),
            ];
            maker.floats("demo_build_info", &labels, |step, _| {
                if step == steps.end {
                    return Some(stale_nan());
                }
                steps.contains(&step).then_some(1.0)
            });
            let mut total = STARTED;
            maker.floats("demo_requests_total", &labels, |step, dice| {
                if step == steps.end {
                    return Some(stale_nan());
                }
                total += (dice.unit() * 30.0).floor();
                steps.contains(&step).then_some(total)
            });
        }
    }
    let gaps = [("instance", "gaps:1"), ("job", "gaps")];
    let mut total = 100.0;
    maker.floats("gaps_total", &gaps, |step, dice| {
        total += dice.unit() * 5.0;
        let is_gap = (20..26).contains(&step) || (60..95).contains(&step) || step % 11 == 0;
        (!is_gap).then_some(total)
    });
    maker.floats("sparse", &gaps, |step, dice| {
        (step % 17 == 3).then(|| dice.unit() * 1_000.0)
    });
    maker.floats("once", &gaps, |step, _| (step == 40).then_some(42.0));
    maker.floats("brief", &gaps, |step, _| match step {
        30..33 => Some(step as f64),
        33 => Some(stale_nan()),
        _ => None,
    });
}

/// Counters with samples on whole quarters of minutes: what lies on a window's edge.
fn on_grid(maker: &mut Maker) {
    for instance in INSTANCES {
        let labels = Labels::from_pairs([("__name__", "on_grid_total"), ("instance", instance)]);
        let mut dice = Dice::new(instance.len() as u64);
        let mut total = 0.0;
        let samples = (0..STEPS as i64).map(|step| {
            total += (dice.unit() * 9.0).round();
            Sample {
                t_ms: BASE_MS + step * INTERVAL_MS,
                start_ms: 0,
                value: Value::Float(total),
            }
        });
        let samples = samples.collect();
        maker.series.push(Series { labels, samples });
    }
}

fn joins(maker: &mut Maker) {
    // Many on the left, one on the right; some without a partner.
    for (team, service, value) in [
        ("red", "cart", 3.0),
        ("red", "pay", 0.0),
        ("blue", "cart", -2.0),
        ("blue", "search", 11.0),
        ("green", "mail", 7.0),
    ] {
        let labels = [("instance", "join:1"), ("service", service), ("team", team)];
        maker.floats("many", &labels, |step, _| Some(value + (step % 3) as f64));
    }
    for (service, zone, value) in [("cart", "x", 2.0), ("pay", "y", 5.0), ("search", "x", 0.0)] {
        let labels = [("instance", "join:1"), ("service", service), ("zone", zone)];
        maker.floats("one", &labels, |step, _| Some(value + (step % 2) as f64));
    }
    for service in ["cart", "pay"] {
        for copy in ["1", "2"] {
            let labels = [("copy", copy), ("instance", "join:1"), ("service", service)];
            maker.floats("twofold", &labels, |_, dice| Some(dice.unit() * 4.0));
        }
    }
    // The same labels with other names, for what drops the name.
    for name in ["same_a", "same_b"] {
        for kind in ["p", "q"] {
            let labels = [("instance", "join:1"), ("kind", kind)];
            maker.floats(name, &labels, |step, dice| {
                Some((dice.unit() * 4.0).round() + step as f64)
            });
        }
    }
    let text = [
        ("instance", "join:1"),
        ("path", "a/b-c.d e\"f\\g\u{fc}"),
        ("empty_looking", " "),
        ("src", "10.0.0.1:9090"),
    ];
    maker.floats("labelled", &text, |step, _| Some(step as f64));
}

/// Adds observations to a histogram, one of each value.
fn observe(histogram: &mut Histogram, values: impl IntoIterator<Item = f64>) {
    let mut positive: std::collections::BTreeMap<i32, f64> = histogram.positive.iter().collect();
    let mut negative: std::collections::BTreeMap<i32, f64> = histogram.negative.iter().collect();
    for value in values {
        histogram.count += 1.0;
        histogram.sum += value;
        if value.abs() <= histogram.zero_threshold {
            histogram.zero_count += 1.0;
            continue;
        }
        let (side, index) = if histogram.schema == CUSTOM_SCHEMA {
            let index = histogram.custom_bounds.partition_point(|b| *b < value);
            (&mut positive, index as i32)
        } else {
            let index = slogate_series::histogram::bucket_index(histogram.schema, value.abs());
            (
                if value > 0.0 {
                    &mut positive
                } else {
                    &mut negative
                },
                index,
            )
        };
        *side.entry(index).or_default() += 1.0;
    }
    histogram.positive = Buckets::from_sorted(positive.into_iter().collect());
    histogram.negative = Buckets::from_sorted(negative.into_iter().collect());
}

fn exponential(schema: i8) -> Histogram {
    Histogram {
        schema,
        zero_threshold: 0.001,
        ..Histogram::default()
    }
}

fn custom(bounds: &[f64]) -> Histogram {
    Histogram {
        schema: CUSTOM_SCHEMA,
        custom_bounds: bounds.into(),
        ..Histogram::default()
    }
}

impl Maker {
    /// A histogram that grows from `empty(step)` whenever that gives one.
    fn histograms(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        empty: impl Fn(usize) -> Option<Histogram>,
        observed: impl Fn(usize, &mut Dice) -> Vec<f64>,
    ) {
        let mut total = Histogram::default();
        self.add(name, labels, |step, dice| {
            if let Some(empty) = empty(step) {
                total = empty;
            }
            observe(&mut total, observed(step, dice));
            Some(Value::Histogram(total.clone().into()))
        });
    }
}

fn latencies(_: usize, dice: &mut Dice) -> Vec<f64> {
    // At least one: of two equal histograms in a row Prometheus sees a change between them when
    // its chunks happen to end there.
    let count = 1 + dice.below(5);
    (0..count)
        .map(|_| (dice.unit() * 8.0).exp2() / 64.0)
        .collect()
}

fn native_histograms(maker: &mut Maker) {
    for (at, instance) in INSTANCES.into_iter().enumerate() {
        let labels = [("instance", instance), ("job", "demo")];
        let starts = move |step| (step == 0 || (at == 1 && step == 70)).then(|| exponential(3));
        maker.histograms("native_seconds", &labels, starts, latencies);
    }
    let labels = |kind| [("instance", "native:1"), ("kind", kind)];
    let both_signs = |_: usize, dice: &mut Dice| -> Vec<f64> {
        (0..=dice.below(9))
            .map(|_| (dice.unit() - 0.4) * 9.0)
            .collect()
    };
    maker.histograms(
        "native_odd",
        &labels("both-signs"),
        |step| (step == 0).then(|| exponential(1)),
        both_signs,
    );
    maker.histograms(
        "native_odd",
        &labels("coarser"),
        |step| {
            [(0, 4), (40, 1), (100, -1)]
                .iter()
                .find(|(at, _)| *at == step)
                .map(|(_, s)| exponential(*s))
        },
        latencies,
    );
    maker.histograms(
        "native_odd",
        &labels("wider-zero"),
        |step| {
            let threshold = [(0, 0.001), (60, 0.125)];
            threshold
                .iter()
                .find(|(at, _)| *at == step)
                .map(|(_, threshold)| Histogram {
                    zero_threshold: *threshold,
                    ..exponential(2)
                })
        },
        latencies,
    );
    maker.histograms(
        "native_odd",
        &labels("empty"),
        |step| (step == 0).then(|| exponential(0)),
        |_, _| Vec::new(),
    );
    // A gauge: each sample stands for itself.
    maker.histograms(
        "native_gauge",
        &labels("gauge"),
        |_| {
            Some(Histogram {
                reset_hint: ResetHint::Gauge,
                ..exponential(2)
            })
        },
        both_signs,
    );
    // Counts that are no whole numbers, as recording rules write them.
    let mut dice_sum = 0.0;
    maker.add("native_fractions", &labels("fractions"), |_, dice| {
        dice_sum += (dice.unit() * 64.0).round() / 64.0;
        let mut value = exponential(0);
        value.positive = Buckets::from_sorted(vec![(0, 1.5 + dice_sum), (2, 0.25 + dice_sum)]);
        value.count = 1.75 + 2.0 * dice_sum;
        value.sum = 3.5 * dice_sum;
        Some(Value::Histogram(value.into()))
    });
    // Floats that turn into histograms.
    let mut total = exponential(1);
    maker.add("turning", &labels("turning"), |step, dice| {
        if step < 80 {
            return Some(Value::Float(step as f64));
        }
        observe(&mut total, latencies(step, dice));
        Some(Value::Histogram(total.clone().into()))
    });
    // One float and one histogram under the same name.
    maker.floats("mixed_kinds", &labels("float"), |step, _| Some(step as f64));
    maker.histograms(
        "mixed_kinds",
        &labels("histogram"),
        |step| (step == 0).then(|| exponential(1)),
        latencies,
    );
    for (kind, bounds) in [
        ("custom-a", &[0.1, 0.5, 1.0, 2.0][..]),
        ("custom-b", &[0.1, 0.5, 1.0, 2.0]),
        ("custom-c", &[0.1, 1.0, 3.0]),
    ] {
        maker.histograms(
            "native_custom",
            &labels(kind),
            |step| (step == 0 || step == 90).then(|| custom(bounds)),
            latencies,
        );
    }
}
