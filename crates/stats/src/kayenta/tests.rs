//! The judge as a whole: what Kayenta is documented to answer, and what follows from its rules.

use super::shift::shift;
use super::shift::statistic;
use super::*;
use crate::random::Random;
use crate::testing::upper_alarm_limit;
use proptest::prelude::*;

const SEED: u64 = 1;

fn by_default(experiment: &[f64], control: &[f64]) -> MetricResult {
    classify(experiment, control, &MetricConfig::default(), SEED)
}

fn looser(config: MetricConfig, experiment: &[f64], control: &[f64]) -> MetricResult {
    let rules = Rules {
        tolerance: 0.10,
        confidence: 0.95,
    };
    classify_by(&rules, experiment, control, &config, SEED)
}

fn normals(random: &mut Random, n: usize, mean: f64) -> Vec<f64> {
    (0..n).map(|_| mean + random.normal()).collect()
}

/// Mean 10, standard deviation 1, neighbours correlated by `rho`.
fn autoregressive(random: &mut Random, n: usize, rho: f64) -> Vec<f64> {
    let mut last = random.normal();
    (0..n)
        .map(|_| {
            let value = 10.0 + last;
            last = rho * last + (1.0 - rho * rho).sqrt() * random.normal();
            value
        })
        .collect()
}

#[test]
fn high_low_and_pass_follow_the_direction() {
    let mut random = Random::new(3);
    let (control, experiment) = (
        normals(&mut random, 30, 10.0),
        normals(&mut random, 30, 20.0),
    );
    let class = |direction, experiment: &[f64], control: &[f64]| {
        let config = MetricConfig {
            direction,
            ..MetricConfig::default()
        };
        looser(config, experiment, control).class
    };
    assert_eq!(class(Direction::Either, &experiment, &control), Class::High);
    assert_eq!(
        class(Direction::Increase, &experiment, &control),
        Class::High
    );
    assert_eq!(
        class(Direction::Decrease, &experiment, &control),
        Class::Pass
    );
    assert_eq!(class(Direction::Either, &control, &experiment), Class::Low);
    assert_eq!(
        class(Direction::Decrease, &control, &experiment),
        Class::Low
    );
    assert_eq!(
        class(Direction::Increase, &control, &experiment),
        Class::Pass
    );
    let same = normals(&mut random, 30, 10.0);
    assert_eq!(class(Direction::Either, &same, &control), Class::Pass);
    let found = by_default(&experiment, &control);
    assert!(found.ratio > 1.8 && found.ratio < 2.2, "{found:?}");
}

#[test]
fn an_effect_has_to_be_as_great_as_allowed() {
    let control: Vec<f64> = (0..30).map(|i| 10.0 + f64::from(i) / 10.0).collect();
    let more: Vec<f64> = control.iter().map(|value| value * 1.5).collect();
    let class = |effect: EffectSize, experiment: &[f64]| {
        let config = MetricConfig {
            effect,
            ..MetricConfig::default()
        };
        classify(experiment, &control, &config, SEED).class
    };
    let ratios = EffectSize {
        allowed_increase: 1.4,
        allowed_decrease: 0.7,
        ..EffectSize::any(Measure::MeanRatio)
    };
    let less: Vec<f64> = control.iter().map(|value| value * 0.8).collect();
    assert_eq!(class(ratios, &more), Class::High);
    assert_eq!(class(ratios, &less), Class::Pass);
    let strict = EffectSize {
        allowed_increase: 1.6,
        allowed_decrease: 0.85,
        ..ratios
    };
    assert_eq!(class(strict, &more), Class::Pass);
    assert_eq!(class(strict, &less), Class::Low);
    let cles = EffectSize {
        allowed_increase: 0.99,
        allowed_decrease: 0.01,
        ..EffectSize::any(Measure::Cles)
    };
    assert_eq!(class(cles, &more), Class::High);
    assert_eq!(class(cles, &less), Class::Pass);
}

#[test]
fn a_critical_metric_fails_only_beyond_its_critical_effect() {
    let control: Vec<f64> = (0..30).map(|i| 10.0 + f64::from(i) / 10.0).collect();
    let found = |factor: f64, critical: bool, increase: f64, decrease: f64| {
        let experiment: Vec<f64> = control.iter().map(|value| value * factor).collect();
        let config = MetricConfig {
            critical,
            effect: EffectSize {
                critical_increase: increase,
                critical_decrease: decrease,
                ..EffectSize::any(Measure::MeanRatio)
            },
            ..MetricConfig::default()
        };
        let found = classify(&experiment, &control, &config, SEED);
        (found.class, found.critical)
    };
    assert_eq!(found(6.0, true, 5.0, 0.5), (Class::High, true));
    assert_eq!(found(2.0, true, 5.0, 0.5), (Class::High, false));
    assert_eq!(found(0.4, true, 5.0, 0.5), (Class::Low, true));
    assert_eq!(found(0.6, true, 5.0, 0.5), (Class::Low, false));
    assert_eq!(found(2.0, true, 1.0, 1.0), (Class::High, true));
    assert_eq!(found(6.0, false, 1.0, 1.0), (Class::High, false));
    assert_eq!(found(1.0, true, 1.0, 1.0), (Class::Pass, false));
}

#[test]
fn ties_and_zeros() {
    let class = |experiment: &[f64], control: &[f64]| {
        looser(MetricConfig::default(), experiment, control).class
    };
    assert_eq!(class(&[3.0, 1.0, 2.0], &[1.0, 2.0, 3.0]), Class::Pass);
    assert_eq!(class(&[0.0; 5], &[0.0; 7]), Class::Pass);
    assert_eq!(by_default(&[0.0; 5], &[0.0; 7]).ratio, 1.0);
    assert_eq!(class(&[1.0, 1.0, 1.0, 1.0, 9.0], &[1.0; 5]), Class::Pass);
    assert_eq!(class(&[10.0; 10], &[1.0; 10]), Class::High);
    let from_zero = looser(MetricConfig::default(), &[10.0; 10], &[0.0; 10]);
    assert_eq!(from_zero.class, Class::High);
    assert!(from_zero.ratio.is_nan(), "{from_zero:?}");
    assert_eq!(class(&[0.0; 10], &[10.0; 10]), Class::Low);
}

#[test]
fn no_data_is_what_the_configuration_makes_of_it() {
    let nothing = [f64::NAN, f64::NAN];
    let some = [1.0, 2.0, 3.0];
    let found = |critical, must_have_data, nan_strategy| {
        let config = MetricConfig {
            critical,
            must_have_data,
            nan_strategy,
            ..MetricConfig::default()
        };
        let found = classify(&nothing, &some, &config, SEED);
        (found.class, found.critical, found.is_open)
    };
    use NanStrategy::{Remove, Replace};
    assert_eq!(found(false, false, Remove), (Class::NoData, false, false));
    assert_eq!(found(true, false, Remove), (Class::NoData, true, false));
    assert_eq!(
        found(false, true, Remove),
        (Class::NoDataFail, false, false)
    );
    assert_eq!(found(true, true, Remove), (Class::NoData, true, false));
    // Replaced, they are zeros beside 1 to 3.
    assert_eq!(found(true, true, Replace).0, Class::Low);
    let config = MetricConfig {
        nan_strategy: Replace,
        critical: true,
        ..MetricConfig::default()
    };
    let open = classify(&[], &some, &config, SEED);
    assert_eq!(
        (open.class, open.critical, open.is_open),
        (Class::Pass, false, true)
    );
}

#[test]
fn outliers_are_removed_beyond_widened_quartiles() {
    let config = |outliers| MetricConfig {
        outliers,
        ..MetricConfig::default()
    };
    let mut values: Vec<f64> = (0..400).map(|i| 50.0 + f64::from(i % 51)).collect();
    values.push(1000.0);
    let kept = classify(&values, &[1.0], &config(Outliers::Keep), SEED);
    assert_eq!((kept.experiment.count, kept.experiment.max), (401, 1000.0));
    let removed = classify(
        &values,
        &[1.0],
        &config(Outliers::Remove { factor: 3.0 }),
        SEED,
    );
    assert_eq!(
        (removed.experiment.count, removed.experiment.max),
        (400, 100.0)
    );
    // Among few values the 99th percentile is near the outlier itself, which so widens the
    // fence: none is far enough beyond it but the greatest.
    let few = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 7.0, 8.0];
    let removed = classify(
        &few,
        &[1.0],
        &config(Outliers::Remove { factor: 3.0 }),
        SEED,
    );
    assert_eq!(removed.experiment.count, 10);
}

#[test]
fn percentiles_are_of_type_7() {
    let sorted = [15.0, 20.0, 35.0, 40.0, 50.0];
    for (p, expected) in [
        (0.4, 29.0),
        (0.0, 15.0),
        (1.0, 50.0),
        (0.25, 20.0),
        (0.05, 16.0),
    ] {
        assert!((class::percentile(&sorted, p) - expected).abs() < 1e-12);
    }
    assert!(class::percentile(&[], 0.5).is_nan());
    let summary = class::summary(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
    assert_eq!(
        (summary.min, summary.max, summary.mean, summary.count),
        (2.0, 9.0, 5.0, 8)
    );
    assert!((summary.std - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
    assert_eq!(class::summary(&[]), Summary::default());
}

/// By hand: x = 2, 4, 6 against y = 1, 3 has ranks 2, 4, 5, so W = 11 - 6 - 3 = 2 and
/// σ² = 6/12 * 6 = 3.
#[test]
fn the_statistic_by_hand() {
    let (x, y) = ([2.0, 4.0, 6.0], [1.0, 3.0]);
    let found = statistic(0.0, 0.0, &x, &y).unwrap();
    assert!((found - 1.5 / 3.0_f64.sqrt()).abs() < 1e-12);
    let level = statistic(0.0, 1.0, &x, &y).unwrap();
    assert!((found - level - 1.0).abs() < 1e-12);
    // All x at or above all y: ranks with one tie of two, W = 3.
    let found = statistic(-5.0, 0.0, &x, &y).unwrap();
    assert!((found - 2.5 / 3.0_f64.sqrt()).abs() < 1e-12);
    assert_eq!(
        statistic(1.0, 0.0, &[2.0, 2.0], &[1.0]),
        Err(shift::AllTied)
    );
}

/// With few values the level is out of reach, so the interval is all shifts there are: any two
/// series that don't touch differ "significantly".
#[test]
fn tiny_samples_are_significant() {
    // One value each: constant, so with noise, and an error where rounding ties the two.
    let one = by_default(&[2.0], &[1.0]).class;
    assert!(matches!(one, Class::High | Class::Error), "{one:?}");
    let five = by_default(&[2.0], &[1.0, 1.1, 1.2, 1.3, 1.4]);
    assert_eq!(five.class, Class::High);
    let shift = five.shift.unwrap();
    assert!((shift.low - 0.6).abs() < 1e-12 && (shift.high - 1.0).abs() < 1e-12);
    let mut random = Random::new(11);
    let mut alarms = |n: usize, runs: u32| {
        let run = |_| {
            let (x, y) = (normals(&mut random, n, 10.0), normals(&mut random, n, 10.0));
            matches!(by_default(&x, &y).class, Class::High | Class::Low)
        };
        f64::from((0..runs).map(run).filter(|alarm| *alarm).count() as u32) / f64::from(runs)
    };
    let near = |found: f64, expected: f64| (found - expected).abs() < 0.02;
    let found = [2, 3, 4, 5, 10].map(|n| alarms(n, 1500));
    for (found, expected) in found.into_iter().zip([0.25, 0.055, 0.008, 0.001, 0.004]) {
        assert!(near(found, expected), "{found}, expected about {expected}");
    }
}

#[test]
fn points_that_resemble_their_neighbours_raise_false_alarms() {
    let mut random = Random::new(5);
    let mut alarms = |rho: f64, runs: usize| {
        let run = |_| {
            let mut series = || autoregressive(&mut random, 60, rho);
            let (x, y) = (series(), series());
            matches!(by_default(&x, &y).class, Class::High | Class::Low)
        };
        (0..runs).map(run).filter(|alarm| *alarm).count() as u32
    };
    assert!(alarms(0.0, 300) <= upper_alarm_limit(300, 0.002));
    let many = [0.6, 0.9].map(|rho| f64::from(alarms(rho, 300)) / 300.0);
    assert!((many[0] - 0.12).abs() < 0.07, "{many:?}");
    assert!((many[1] - 0.49).abs() < 0.10, "{many:?}");
}

#[test]
fn a_series_that_is_mostly_zero_cannot_fail() {
    let control = [0.0; 10];
    let experiment = [0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 8.0, 3.0, 9.0, 4.0];
    assert_eq!(by_default(&experiment, &control).class, Class::Pass);
}

/// The tolerance is a share of the shift, not of the level.
#[test]
fn a_small_shift_of_a_quiet_series_is_high() {
    let control: Vec<f64> = (0..60).map(|i| 100.0 + f64::from(i % 7) / 100.0).collect();
    let experiment: Vec<f64> = control.iter().map(|value| value * 1.005).collect();
    assert_eq!(by_default(&experiment, &control).class, Class::High);
}

mod scores {
    use super::*;

    /// A metric by its classes, without data.
    fn scored(metrics: &[(Class, &[&str], bool)], weights: &[(&str, f64)]) -> Judgement {
        let config = MetricConfig::default();
        let groups: Vec<Vec<String>> = metrics
            .iter()
            .map(|(_, groups, _)| groups.iter().map(|group| (*group).to_owned()).collect())
            .collect();
        let given: Vec<Metric<'_>> = groups
            .iter()
            .map(|groups| Metric {
                name: "m",
                groups,
                config: &config,
                experiment: &[],
                control: &[],
            })
            .collect();
        let results = metrics.iter().map(|(class, _, critical)| MetricResult {
            class: *class,
            critical: *critical,
            experiment: Summary::default(),
            control: Summary::default(),
            ratio: 1.0,
            shift: None,
            is_open: *class == Class::Error,
        });
        let weights = weights
            .iter()
            .map(|(group, weight)| ((*group).to_owned(), *weight));
        let thresholds = Thresholds {
            pass: 95.0,
            marginal: 75.0,
        };
        score(&given, results.collect(), &weights.collect(), &thresholds)
    }

    #[test]
    fn groups_and_weights() {
        use Class::{High, Low, NoData, NoDataFail, Pass};
        let of = |metrics: &[(Class, &[&str], bool)], weights: &[(&str, f64)]| {
            scored(metrics, weights).score
        };
        assert_eq!(of(&[(Pass, &["a"], false)], &[]), 100.0);
        assert_eq!(of(&[(High, &["a"], false)], &[]), 0.0);
        assert_eq!(of(&[(NoData, &["a"], false)], &[]), 0.0);
        assert_eq!(
            of(
                &[
                    (Pass, &["a"], false),
                    (Pass, &["a"], false),
                    (NoData, &["b"], false)
                ],
                &[]
            ),
            100.0
        );
        assert_eq!(
            of(&[(Pass, &["a"], false), (Low, &["b"], false)], &[]),
            50.0
        );
        let third = [
            (Pass, &["a"][..], false),
            (High, &["b"], false),
            (Low, &["c"], false),
        ];
        assert_eq!(of(&third, &[]), 33.33);
        assert_eq!(of(&third[..2], &[("a", 75.0), ("b", 25.0)]), 75.0);
        assert_eq!(of(&third[..2], &[("a", 25.0)]), 25.0);
        let required = [(Pass, &["a"][..], false), (NoDataFail, &["a"], false)];
        assert_eq!(of(&required, &[]), 50.0);
        // In two groups it counts in both.
        let twice = [(High, &["a", "b"][..], false), (Pass, &["b"], false)];
        assert_eq!(of(&twice, &[]), 25.0);
        assert_eq!(
            of(&[(Pass, &["a"], false)], &[("a", 150.0), ("b", -50.0)]),
            150.0
        );
        // A group that is listed and empty takes its weight with it.
        let capped = scored(&[(Pass, &["a"], false)], &[("a", 50.0), ("empty", 50.0)]);
        assert_eq!((capped.score, capped.class), (50.0, ScoreClass::Fail));
    }

    #[test]
    fn critical_metrics_and_missing_ones_make_it_zero() {
        use Class::{High, NoData, Pass};
        let failed = scored(&[(Pass, &["a"], false), (High, &["a"], true)], &[]);
        assert_eq!(
            (failed.score, failed.zeroed),
            (0.0, Some(Zeroed::Critical(1)))
        );
        let half = scored(&[(Pass, &["a"], false), (NoData, &["a"], false)], &[]);
        assert_eq!((half.score, half.zeroed), (0.0, Some(Zeroed::NoData)));
        let critical = scored(
            &[
                (Pass, &["a"], false),
                (Pass, &["a"], false),
                (NoData, &["a"], true),
            ],
            &[],
        );
        assert_eq!(critical.zeroed, Some(Zeroed::Critical(2)));
        let nothing = scored(&[], &[]);
        assert_eq!(
            (nothing.score, nothing.class, nothing.zeroed),
            (0.0, ScoreClass::Fail, None)
        );
    }

    #[test]
    fn it_passes_without_evidence_and_says_so() {
        let error = scored(&[(Class::Error, &["a"], false)], &[]);
        assert_eq!((error.score, error.class), (100.0, ScoreClass::Pass));
        assert!(error.is_open);
        let one_of_twenty: Vec<(Class, &[&str], bool)> = (0..20)
            .map(|i| {
                (
                    if i == 0 { Class::High } else { Class::Pass },
                    &["a"][..],
                    false,
                )
            })
            .collect();
        let diluted = scored(&one_of_twenty, &[]);
        assert_eq!(
            (diluted.score, diluted.class, diluted.is_open),
            (95.0, ScoreClass::Pass, false)
        );
        let threshold = scored(&one_of_twenty[..4], &[]);
        assert_eq!(
            (threshold.score, threshold.class),
            (75.0, ScoreClass::Marginal)
        );
    }

    #[test]
    fn muted_metrics_count_for_nothing() {
        let muted = MetricConfig {
            muted: true,
            ..MetricConfig::default()
        };
        let plain = MetricConfig::default();
        let groups = vec!["a".to_owned()];
        let metric = |config, experiment| Metric {
            name: "m",
            groups: &groups,
            config,
            experiment,
            control: &[1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
        };
        let bad: &[f64] = &[9.0, 9.1, 9.2, 9.3, 9.4, 9.5];
        let thresholds = Thresholds {
            pass: 95.0,
            marginal: 75.0,
        };
        let weights = BTreeMap::new();
        let good: &[f64] = &[1.0, 1.1, 1.2, 1.3, 1.4, 1.5];
        let both = [metric(&plain, good), metric(&muted, bad)];
        let found = judge(&both, &weights, &thresholds, SEED);
        assert_eq!((found.score, found.metrics[1].class), (100.0, Class::High));
        let only = judge(&both[1..], &weights, &thresholds, SEED);
        assert_eq!((only.score, only.class), (0.0, ScoreClass::Fail));
    }
}

fn series() -> impl Strategy<Value = Vec<f64>> {
    let value = prop_oneof![8 => -50.0_f64..50.0, 2 => (-3i32..3).prop_map(f64::from)];
    prop::collection::vec(value, 1..25)
}

proptest! {
    #[test]
    fn the_interval_holds_the_estimate_and_moves_with_the_series(
        x in series(), y in series(), by in -20.0_f64..20.0,
    ) {
        let Ok(found) = shift(&x, &y, 0.95) else { return Ok(()) };
        let (low, high) = shift::range(&x, &y);
        prop_assert!(found.low >= low && found.high <= high);
        prop_assert!(found.low <= found.estimate + 1e-3 && found.estimate <= found.high + 1e-3);
        let moved: Vec<f64> = x.iter().map(|value| value + by).collect();
        if let Ok(moved) = shift(&moved, &y, 0.95) {
            // Each within half of the tolerance, and a step of the statistic may be a tie away.
            prop_assert!((moved.low - found.low - by).abs() < 1e-3);
            prop_assert!((moved.high - found.high - by).abs() < 1e-3);
        }
    }

    #[test]
    fn any_series_have_an_answer(
        x in prop::collection::vec(any::<f64>(), 0..12),
        y in prop::collection::vec(any::<f64>(), 0..12),
        replace in any::<bool>(), remove in any::<bool>(), critical in any::<bool>(),
    ) {
        let config = MetricConfig {
            nan_strategy: if replace { NanStrategy::Replace } else { NanStrategy::Remove },
            outliers: if remove { Outliers::Remove { factor: 1.5 } } else { Outliers::Keep },
            critical,
            ..MetricConfig::default()
        };
        let found = classify(&x, &y, &config, SEED);
        prop_assert_eq!(format!("{found:?}"), format!("{:?}", classify(&x, &y, &config, SEED)));
        prop_assert!(critical || !found.critical);
    }
}
