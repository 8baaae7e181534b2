//! Looking often gathers what looking once does.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proptest::prelude::*;
use slogate_series::{Buckets, Labels, Sample, Series, Value, stale_nan};

use super::*;
use crate::config::MappingSettings;
use crate::source::mapping::SERVER;
use crate::source::{Answer, Mapping};

/// When everything begins, in milliseconds: not at the beginning of a block.
const START_MS: i64 = 1_700_000_003_210;

/// How long it goes on.
const SPAN_MS: i64 = 1_500_000;

/// Series that are all there at once, each sample from its time on.
struct World {
    mapping: Mapping,
    series: Vec<Series>,
}

impl MetricSource for World {
    fn query<'a>(&'a self, _: &'a str, _: i64) -> BoxFuture<'a, Result<Answer, SourceError>> {
        let error = SourceError::Refused {
            origin: "the world".to_owned(),
            message: "it has raw samples only".to_owned(),
        };
        Box::pin(std::future::ready(Err(error)))
    }

    fn samples<'a>(
        &'a self,
        selector: &'a str,
        from_ms: i64,
        to_ms: i64,
    ) -> BoxFuture<'a, Result<(Vec<Series>, Vec<String>), SourceError>> {
        let matchers = slogate_promql::parse_selector(selector).unwrap();
        let found = self.series.iter().filter_map(|one| {
            let value = |name: &str| one.labels.get(name).unwrap_or_default();
            let is_wanted = matchers.iter().all(|m| m.matches(value(m.name())));
            let within = |sample: &&Sample| from_ms < sample.t_ms && sample.t_ms <= to_ms;
            let samples: Vec<Sample> = one.samples.iter().filter(within).cloned().collect();
            (is_wanted && !samples.is_empty()).then(|| Series {
                labels: one.labels.clone(),
                samples,
            })
        });
        let found = found.collect();
        Box::pin(std::future::ready(Ok((found, Vec::new()))))
    }

    fn name(&self) -> &str {
        "the world"
    }

    fn mapping(&self) -> &Mapping {
        &self.mapping
    }
}

/// Numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// What a world is measured with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Measured {
    Spans,
    Joined,
    Scraped,
}

fn mapping(measured: Measured) -> Mapping {
    let preset = match measured {
        Measured::Spans => "otel",
        Measured::Joined => "target-info",
        Measured::Scraped => "plain",
    };
    let settings = MappingSettings {
        preset: preset.to_owned(),
        ..MappingSettings::default()
    };
    Mapping::new(&settings).unwrap()
}

fn world(seed: u64, measured: Measured) -> World {
    let mut dice = Dice(seed);
    let mapping = mapping(measured);
    let interval_ms = dice.pick(&[5_000, 15_000, 60_000]);
    let mut series = Vec::new();
    let (is_native, is_mixed) = (dice.one_in(2), dice.one_in(3));
    for (version, instance) in [("1", "a"), ("1", "b"), ("2", "c"), ("2", "d")] {
        // Now and then a version is sampled more rarely than the other.
        let interval_ms = if version == "2" && dice.one_in(4) {
            interval_ms * 2
        } else {
            interval_ms
        };
        let since_ms = match version {
            "1" => START_MS - 100_000,
            _ => START_MS + dice.below(SPAN_MS as u64 / 2) as i64,
        };
        let until_ms = START_MS + SPAN_MS - dice.below(SPAN_MS as u64 / 2) as i64;
        let life = Life {
            interval_ms,
            since_ms,
            until_ms,
        };
        let whose = owner(measured, version, instance);
        for is_error in [false, true] {
            let kind = of_kind(measured, is_error);
            let labels = |name: &str| with(&[("__name__", name)], &whose, &kind);
            series.push(life.counter(&mut dice, labels(&mapping.count)));
            let is_custom = is_mixed && dice.one_in(3);
            if is_native {
                let name = labels(&mapping.duration);
                series.push(life.histogram(&mut dice, name, is_custom));
            } else {
                let bounds = dice.pick(&[&["0.1", "0.5", "1"][..], &["0.1", "0.3", "1"], &["1"]]);
                for le in bounds.iter().chain([&"+Inf"]) {
                    let name = format!("{}_bucket", mapping.duration);
                    let labels = with(&[("__name__", name.as_str()), ("le", le)], &whose, &kind);
                    series.push(life.counter(&mut dice, labels));
                }
            }
        }
        if measured == Measured::Joined {
            series.push(life.info(&mut dice, version, instance));
            if dice.one_in(2) {
                let later = Life {
                    since_ms: since_ms + dice.below(600_000) as i64,
                    ..life
                };
                series.push(later.info(&mut dice, "3", instance));
            }
        }
        if measured == Measured::Spans {
            let own = [("service_instance_id", instance)];
            let beside = mapping.by_instance.clone().unwrap();
            let labels = |name: &str| {
                with(
                    &[("__name__", name), own[0]],
                    &whose,
                    &of_kind(measured, false),
                )
            };
            series.push(life.counter(&mut dice, labels(&beside.count)));
            series.push(life.histogram(&mut dice, labels(&beside.duration), false));
        }
    }
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series.dedup_by(|a, b| a.labels == b.labels);
    World { mapping, series }
}

fn owner(
    measured: Measured,
    version: &'static str,
    instance: &'static str,
) -> Vec<(&'static str, &'static str)> {
    match measured {
        Measured::Spans => vec![
            ("service_name", "shop"),
            ("service_version", version),
            ("span_kind", SERVER),
            ("span_name", instance),
        ],
        Measured::Joined => vec![("job", "shop"), ("instance", instance)],
        Measured::Scraped => vec![
            ("service", "shop"),
            ("version", version),
            ("instance", instance),
        ],
    }
}

fn of_kind(measured: Measured, is_error: bool) -> [(&'static str, &'static str); 1] {
    match (measured, is_error) {
        (Measured::Spans, true) => [("status_code", "STATUS_CODE_ERROR")],
        (Measured::Spans, false) => [("status_code", "STATUS_CODE_UNSET")],
        (Measured::Joined, true) => [("http_response_status_code", "500")],
        (Measured::Joined, false) => [("http_response_status_code", "200")],
        (Measured::Scraped, true) => [("code", "500")],
        (Measured::Scraped, false) => [("code", "200")],
    }
}

fn with(name: &[(&str, &str)], whose: &[(&str, &str)], kind: &[(&str, &str)]) -> Labels {
    let all = name.iter().chain(whose).chain(kind).copied();
    Labels::from_pairs(all)
}

/// When a process is sampled.
#[derive(Clone, Copy)]
struct Life {
    interval_ms: i64,
    since_ms: i64,
    until_ms: i64,
}

impl Life {
    /// The times of its samples, some of them left out, and what each finds: nothing new, a
    /// restart, an end.
    fn times(&self, dice: &mut Dice) -> Vec<(i64, u64)> {
        let begins_late = if dice.one_in(3) {
            dice.below(400_000) as i64
        } else {
            0
        };
        let mut t_ms = self.since_ms + begins_late + dice.below(1_000) as i64;
        let mut times = Vec::new();
        let mut is_away = false;
        while t_ms < self.until_ms {
            if dice.one_in(40) {
                is_away = !is_away;
            }
            if !is_away {
                let jitter_ms = dice.below(9) as i64;
                times.push((t_ms + jitter_ms, dice.below(50)));
            }
            t_ms += self.interval_ms;
        }
        times
    }

    fn counter(&self, dice: &mut Dice, labels: Labels) -> Series {
        let (mut total, mut start_ms) = (dice.below(500) as f64, self.since_ms);
        let knows_start = dice.one_in(2);
        let times = self.times(dice);
        let samples = times.into_iter().map(|(t_ms, what)| {
            match what {
                0 => (total, start_ms) = (0.0, t_ms - 1),
                1..30 => total += dice.below(9) as f64,
                _ => {}
            }
            let value = if what == 49 { stale_nan() } else { total };
            Sample {
                t_ms,
                start_ms: if knows_start { start_ms } else { 0 },
                value: Value::Float(value),
            }
        });
        let samples = samples.collect();
        Series { labels, samples }
    }

    fn histogram(&self, dice: &mut Dice, labels: Labels, is_custom: bool) -> Series {
        let custom = dice.pick(&[&[0.1, 0.5][..], &[0.1, 0.5, 1.0]]);
        let mut counts = [0.0; 4];
        let mut start_ms = self.since_ms;
        let times = self.times(dice);
        let samples = times.into_iter().map(|(t_ms, what)| {
            if what == 0 {
                (counts, start_ms) = ([0.0; 4], t_ms - 1);
            }
            let used = if is_custom { custom.len() + 1 } else { 4 };
            counts[dice.below(used as u64) as usize] += dice.below(4) as f64;
            let histogram = Histogram {
                schema: if is_custom { -53 } else { 3 },
                count: counts.iter().sum(),
                // Not a sum that is the same in every order.
                sum: counts.iter().sum::<f64>() * 0.1,
                positive: Buckets::from_dense(0, counts),
                custom_bounds: if is_custom { custom.into() } else { [].into() },
                ..Histogram::default()
            };
            let histogram = if what == 49 {
                Histogram::stale()
            } else {
                histogram
            };
            Sample {
                t_ms,
                start_ms,
                value: Value::Histogram(Arc::new(histogram)),
            }
        });
        let samples = samples.collect();
        Series { labels, samples }
    }

    fn info(&self, dice: &mut Dice, version: &str, instance: &str) -> Series {
        let labels = [
            ("__name__", "target_info"),
            ("job", "shop"),
            ("instance", instance),
            ("service_version", version),
        ];
        Series {
            labels: Labels::from_pairs(labels),
            ..self.counter(dice, Labels::empty())
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(often: &Gathered<T>, once: &Gathered<T>) {
    assert_eq!(often.grid, once.grid);
    assert_eq!(often.warnings, once.warnings);
    let versions = |of: &Gathered<T>| of.versions.keys().cloned().collect::<Vec<_>>();
    assert_eq!(versions(often), versions(once));
    for (version, once) in &once.versions {
        let often = &often.versions[version];
        assert_eq!(often.by_block, once.by_block, "{version}");
        let ends = |of: &Blocks<T>| (of.oldest_ms, of.newest_ms);
        assert_eq!(ends(often), ends(once), "{version}");
        for (name, once) in &once.instances {
            let often = often.instances.get(name);
            assert_eq!(often, Some(once), "{version} {name}");
        }
        assert_eq!(often.instances.len(), once.instances.len(), "{version}");
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a source that does not wait")
}

fn looks_agree(world: &World, gaps_ms: &[i64]) -> u64 {
    let target = Target::new("shop", "");
    let mut requests = Requests::new(&world.mapping, &target, SERVER, START_MS);
    let mut durations = Durations::new(&world.mapping, &target, SERVER, START_MS);
    let mut now_ms = START_MS;
    for gap_ms in gaps_ms {
        now_ms += gap_ms;
        now(requests.look(world, now_ms)).unwrap();
        let once = super::requests(world, &target, SERVER, START_MS, now_ms);
        let often = requests.lend();
        same(&often, &now(once).unwrap());
        requests.give_back(often);
        now(durations.look(world, now_ms)).unwrap();
        let once = super::durations(world, &target, SERVER, START_MS, now_ms);
        let often = durations.lend();
        same(&often, &now(once).unwrap());
        durations.give_back(often);
    }
    requests.restarts() + durations.restarts()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn looking_often_gathers_what_looking_once_does(
        seed in any::<u64>(),
        measured in prop_oneof![
            Just(Measured::Spans),
            Just(Measured::Joined),
            Just(Measured::Scraped),
        ],
        gaps_ms in prop::collection::vec(1_000i64..120_000, 1..16),
    ) {
        looks_agree(&world(seed, measured), &gaps_ms);
    }
}

/// A look every ten seconds starts over only where it has to.
#[test]
fn starting_over_is_rare() {
    let gaps_ms = [10_000; 100];
    for seed in 0..4 {
        let restarts = looks_agree(&world(seed, Measured::Spans), &gaps_ms);
        assert!(restarts < 20, "{restarts} of {} looks", 2 * gaps_ms.len());
    }
}

/// What is kept between looks is where series stood, and nothing is read twice but what is
/// behind the last complete block.
#[test]
fn a_look_reads_only_what_is_new() {
    struct Reads<'w>(&'w World, parking_lot::Mutex<Vec<(i64, i64)>>);
    impl MetricSource for Reads<'_> {
        fn query<'a>(
            &'a self,
            expr: &'a str,
            at_ms: i64,
        ) -> BoxFuture<'a, Result<Answer, SourceError>> {
            self.0.query(expr, at_ms)
        }
        fn samples<'a>(
            &'a self,
            selector: &'a str,
            from_ms: i64,
            to_ms: i64,
        ) -> BoxFuture<'a, Result<(Vec<Series>, Vec<String>), SourceError>> {
            self.1.lock().push((from_ms, to_ms));
            self.0.samples(selector, from_ms, to_ms)
        }
        fn name(&self) -> &str {
            self.0.name()
        }
        fn mapping(&self) -> &Mapping {
            self.0.mapping()
        }
    }
    let world = world(1, Measured::Spans);
    let reads = Reads(&world, parking_lot::Mutex::default());
    let target = Target::new("shop", "");
    let mut requests = Requests::new(&world.mapping, &target, SERVER, START_MS);
    now(requests.look(&reads, START_MS + 600_000)).unwrap();
    reads.1.lock().clear();
    now(requests.look(&reads, START_MS + 610_000)).unwrap();
    let block_ms = requests.lend().grid.block_ms;
    let reads = reads.1.into_inner();
    assert_eq!(reads.len(), 2, "the sum and the instances: {reads:?}");
    assert!(
        reads
            .iter()
            .all(|(from_ms, to_ms)| to_ms - from_ms <= 3 * block_ms),
        "{reads:?}"
    );
}
