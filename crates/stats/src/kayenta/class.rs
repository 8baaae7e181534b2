//! One metric: from two series to a class.

use super::Class;
use super::Direction;
use super::EffectSize;
use super::Measure;
use super::MetricConfig;
use super::MetricResult;
use super::NanStrategy;
use super::Outliers;
use super::Rules;
use super::Summary;
use super::shift::AllTied;
use super::shift::Shift;
use super::shift::shift;
use crate::random::Random;
use crate::ranks::ranks;

/// The noise on constant series, as a share of their value.
const NOISE: f64 = 1e-5;

/// Judges one metric by Kayenta's constants. `seed` is used only where both sides are constant.
pub fn classify(
    experiment: &[f64],
    control: &[f64],
    config: &MetricConfig,
    seed: u64,
) -> MetricResult {
    classify_by(&Rules::default(), experiment, control, config, seed)
}

/// Judges one metric by other constants than Kayenta's.
pub fn classify_by(
    rules: &Rules,
    experiment: &[f64],
    control: &[f64],
    config: &MetricConfig,
    seed: u64,
) -> MetricResult {
    let (experiment, control) = (prepare(experiment, config), prepare(control, config));
    let summaries = (summary(&experiment), summary(&control));
    let result = |class: Class, critical: bool| MetricResult {
        class,
        critical,
        experiment: summaries.0,
        control: summaries.1,
        ratio: 1.0,
        shift: None,
        is_open: false,
    };
    if experiment.is_empty() || control.is_empty() {
        return match config.nan_strategy {
            NanStrategy::Replace => MetricResult {
                is_open: true,
                ..result(Class::Pass, false)
            },
            NanStrategy::Remove if config.must_have_data && !config.critical => {
                result(Class::NoDataFail, false)
            }
            NanStrategy::Remove => result(Class::NoData, config.critical),
        };
    }
    if sorted(&experiment) == sorted(&control) || is_one_value(&experiment, &control) {
        return result(Class::Pass, false);
    }
    match compare(rules, &experiment, &control, config, seed) {
        Ok(found) => MetricResult {
            ratio: found.ratio,
            shift: Some(found.shift),
            ..result(found.class, is_critical(&found, config))
        },
        Err(AllTied) => MetricResult {
            ratio: f64::NAN,
            is_open: true,
            ..result(Class::Error, false)
        },
    }
}

/// NaN and outliers handled.
fn prepare(values: &[f64], config: &MetricConfig) -> Vec<f64> {
    let values: Vec<f64> = match config.nan_strategy {
        NanStrategy::Remove => values.iter().copied().filter(|v| !v.is_nan()).collect(),
        NanStrategy::Replace => {
            let plain = |v: &f64| if v.is_nan() { 0.0 } else { *v };
            values.iter().map(plain).collect()
        }
    };
    match config.outliers {
        Outliers::Keep => values,
        Outliers::Remove { factor } => without_outliers(values, factor),
    }
}

fn without_outliers(mut values: Vec<f64>, factor: f64) -> Vec<f64> {
    let sorted = sorted(&values);
    let (low, high) = (percentile(&sorted, 0.25), percentile(&sorted, 0.75));
    let reach = factor * (high - low);
    let (low, high) = (
        percentile(&sorted, 0.01).min(low - reach),
        percentile(&sorted, 0.99).max(high + reach),
    );
    values.retain(|value| !(*value > high || *value < low));
    values
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// The percentile at `p` (0 to 1) by linear interpolation between the closest ranks, R's type 7;
/// NaN without values.
pub(super) fn percentile(sorted: &[f64], p: f64) -> f64 {
    let at = p * (sorted.len().saturating_sub(1)) as f64;
    let below = at.floor();
    let value = |at: f64| sorted.get(at as usize).copied();
    match (value(below), value(below + 1.0)) {
        (Some(low), Some(high)) => low + (at - below) * (high - low),
        (Some(low), None) => low,
        _ => f64::NAN,
    }
}

pub(super) fn summary(values: &[f64]) -> Summary {
    if values.is_empty() {
        return Summary::default();
    }
    let count = values.len() as f64;
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let rest: f64 = values.iter().map(|value| value - mean).sum();
    let variance = match values.len() {
        1 => 0.0,
        _ => (squares - rest * rest / count) / (count - 1.0),
    };
    Summary {
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        mean,
        std: variance.sqrt(),
        count: values.len(),
    }
}

/// In two passes, the second for what the first lost in rounding.
fn mean(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let rough = values.iter().sum::<f64>() / count;
    rough + values.iter().map(|value| value - rough).sum::<f64>() / count
}

fn is_one_value(experiment: &[f64], control: &[f64]) -> bool {
    let mut all = experiment.iter().chain(control);
    let first = all.next();
    all.all(|value| Some(value) == first)
}

struct Compared {
    class: Class,
    shift: Shift,
    ratio: f64,
    effect: f64,
}

fn compare(
    rules: &Rules,
    experiment: &[f64],
    control: &[f64],
    config: &MetricConfig,
    seed: u64,
) -> Result<Compared, AllTied> {
    let constant = |values: &[f64]| is_one_value(values, &[]);
    let (noisy_experiment, noisy_control);
    let (experiment, control) = if constant(experiment) && constant(control) {
        let mut random = Random::new(seed);
        noisy_experiment = with_noise(experiment, &mut random);
        noisy_control = with_noise(control, &mut random);
        (noisy_experiment.as_slice(), noisy_control.as_slice())
    } else {
        (experiment, control)
    };
    let shift = shift(experiment, control, rules.confidence)?;
    let ratio = mean_ratio(experiment, control);
    let effect = match config.effect.measure {
        Measure::MeanRatio => ratio,
        Measure::Cles => cles(experiment, control),
    };
    let bound = rules.tolerance * shift.estimate.abs();
    let EffectSize {
        allowed_increase,
        allowed_decrease,
        ..
    } = config.effect;
    // An effect that can't be computed is no bar.
    let is_high = config.direction != Direction::Decrease
        && shift.low > bound
        && (effect.is_nan() || effect >= allowed_increase);
    let is_low = config.direction != Direction::Increase
        && shift.high < -bound
        && (effect.is_nan() || effect <= allowed_decrease);
    let class = match (is_high, is_low) {
        (true, _) => Class::High,
        (false, true) => Class::Low,
        (false, false) => Class::Pass,
    };
    Ok(Compared {
        class,
        shift,
        ratio,
        effect,
    })
}

fn is_critical(found: &Compared, config: &MetricConfig) -> bool {
    let effect = found.effect;
    config.critical
        && match found.class {
            Class::High => effect.is_nan() || effect >= config.effect.critical_increase,
            Class::Low => effect.is_nan() || effect <= config.effect.critical_decrease,
            _ => false,
        }
}

fn with_noise(values: &[f64], random: &mut Random) -> Vec<f64> {
    let noisy = |value: &f64| value + random.normal() * value * NOISE;
    values.iter().map(noisy).collect()
}

fn mean_ratio(experiment: &[f64], control: &[f64]) -> f64 {
    let (experiment, control) = (mean(experiment), mean(control));
    if experiment == 0.0 || control == 0.0 {
        return f64::NAN;
    }
    experiment / control
}

fn cles(experiment: &[f64], control: &[f64]) -> f64 {
    let (m, n) = (experiment.len() as f64, control.len() as f64);
    let pooled = ranks(experiment.iter().copied(), control);
    (2.0 * pooled.first_sum - m * (m + 1.0)) / (2.0 * n * m)
}
