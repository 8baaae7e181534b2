//! The judgement that Kayenta's NetflixACAJudge-v1.0 gives, reproduced to the letter.
//!
//! For those who have canary configurations that they trust, or wish to compare. Facts were read
//! from the source of spinnaker/kayenta (Apache-2.0); the code is our own. [`classify`] judges
//! one pair of series, [`judge`] a whole configuration.
//!
//! A pair of series goes through these steps:
//!
//! 1. NaN is removed, or replaced by 0.
//! 2. Outliers are removed on each side if asked for, by quartile fences.
//! 3. Without values on a side: no data, or a pass where NaN is replaced.
//! 4. Equal series pass; so do series of one single value.
//! 5. A confidence interval for the shift between the two (Mann and Whitney's test inverted, with
//!    98 % confidence, see [`shift`]) is held against a quarter of the estimated shift itself;
//!    beyond it, in the direction that matters, and with an effect at least as great as allowed,
//!    the metric is [`Class::High`] or [`Class::Low`].
//!
//! Each group's score is its share of passes, a configuration's the groups' weighted sum; a
//! critical metric that doesn't pass, or half of the metrics without data, make it 0.
//!
//! **What to know before relying on it.** It is a test at a fixed horizon: every further look at a
//! growing window adds false alarms. It takes points for independent, which samples of a service
//! a minute apart are not (30 % false alarms where neighbours correlate by 0.8). A series that is
//! zero in its majority can't fail, whatever the rest is. And it passes without evidence: a
//! metric that can't be classified ([`Class::Error`]) doesn't count, even a critical one; with
//! NaN replaced, no data at all passes. [`MetricResult::is_open`] and [`Judgement::is_open`] say
//! where that happened.
//!
//! **One difference.** Where both sides are constant, Kayenta adds noise from a generator without
//! a seed, so its answer may differ from run to run; here the noise comes from the caller's seed.

use std::collections::BTreeMap;

mod class;
mod score;
pub mod shift;

pub use class::classify;
pub use class::classify_by;
pub use score::judge;
pub use score::score;

/// How one metric is judged: the `analysisConfigurations.canary` of Kayenta's canary config.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricConfig {
    /// Which change is a failure.
    pub direction: Direction,
    /// What becomes of NaN.
    pub nan_strategy: NanStrategy,
    /// Whether its failure fails the whole canary.
    pub critical: bool,
    /// Whether it fails, rather than counts as no data, where a side has no values.
    pub must_have_data: bool,
    /// Whether it is shown only and counts for nothing.
    pub muted: bool,
    /// How great a change has to be.
    pub effect: EffectSize,
    /// What becomes of outliers.
    pub outliers: Outliers,
}

/// Which change of a metric is a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// More is worse.
    Increase,
    /// Less is worse.
    Decrease,
    /// Any change is worse.
    #[default]
    Either,
}

/// What becomes of NaN, which stands for an interval without data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NanStrategy {
    /// It is left out.
    #[default]
    Remove,
    /// It becomes 0.
    Replace,
}

/// What becomes of outliers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Outliers {
    /// They stay.
    #[default]
    Keep,
    /// Values outside of `min(p1, p25 - factor IQR)` to `max(p99, p75 + factor IQR)` are left out,
    /// with percentiles of type R-7.
    Remove {
        /// Above 0; Kayenta's default is 3.
        factor: f64,
    },
}

/// How great a change has to be to fail, and to fail critically.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EffectSize {
    /// What the numbers are measured in.
    pub measure: Measure,
    /// An effect below this is no increase.
    pub allowed_increase: f64,
    /// An effect above this is no decrease.
    pub allowed_decrease: f64,
    /// An effect below this is no critical increase.
    pub critical_increase: f64,
    /// An effect above this is no critical decrease.
    pub critical_decrease: f64,
}

/// How the size of a change is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Measure {
    /// The experiment's mean over the control's. NaN, which is no bar to failing, where one of
    /// them is 0.
    #[default]
    MeanRatio,
    /// The probability that a value of the experiment is greater than one of the control, equal
    /// ones half (common-language effect size).
    Cles,
}

impl EffectSize {
    /// Kayenta's defaults: any effect at all, 1 for mean ratios and 0.5 for probabilities.
    pub fn any(measure: Measure) -> EffectSize {
        let none = match measure {
            Measure::MeanRatio => 1.0,
            Measure::Cles => 0.5,
        };
        EffectSize {
            measure,
            allowed_increase: none,
            allowed_decrease: none,
            critical_increase: none,
            critical_decrease: none,
        }
    }
}

impl Default for MetricConfig {
    /// Kayenta's defaults.
    fn default() -> MetricConfig {
        MetricConfig {
            direction: Direction::default(),
            nan_strategy: NanStrategy::default(),
            critical: false,
            must_have_data: false,
            muted: false,
            effect: EffectSize::any(Measure::default()),
            outliers: Outliers::default(),
        }
    }
}

/// The constants of the judge. Kayenta's are fixed; others are for trying the method out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// The share of the estimated shift that its confidence interval has to be beyond.
    pub tolerance: f64,
    /// The confidence of that interval.
    pub confidence: f64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            tolerance: 0.25,
            confidence: 0.98,
        }
    }
}

/// How a metric is classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// No failing change was found.
    Pass,
    /// The experiment is higher than the control.
    High,
    /// The experiment is lower than the control.
    Low,
    /// A side has no values.
    NoData,
    /// A side has no values, and the metric must have data.
    NoDataFail,
    /// The test could not be computed.
    Error,
}

impl Class {
    /// Kayenta's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Class::Pass => "Pass",
            Class::High => "High",
            Class::Low => "Low",
            Class::NoData => "Nodata",
            Class::NoDataFail => "NodataFailMetric",
            Class::Error => "Error",
        }
    }
}

/// One metric judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricResult {
    /// The answer.
    pub class: Class,
    /// Whether the answer fails the whole canary.
    pub critical: bool,
    /// The experiment's values that were judged.
    pub experiment: Summary,
    /// The control's values that were judged.
    pub control: Summary,
    /// The experiment's mean over the control's; 1 where nothing was tested, NaN where a mean is 0
    /// or the test could not be computed.
    pub ratio: f64,
    /// The shift between the two; `None` where nothing was tested.
    pub shift: Option<shift::Shift>,
    /// Whether it lets a canary pass without evidence: no data that counts as a pass, or an
    /// error, which counts for nothing.
    pub is_open: bool,
}

/// Values in short. All 0 where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, with n - 1.
    pub std: f64,
    /// How many.
    pub count: usize,
}

/// One metric of a canary with both sides' values. Where a metric has several label sets, each is
/// one of these.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric<'a> {
    /// Its name.
    pub name: &'a str,
    /// The groups that it counts in; it counts in each.
    pub groups: &'a [String],
    /// How it is judged.
    pub config: &'a MetricConfig,
    /// The experiment's values.
    pub experiment: &'a [f64],
    /// The control's values.
    pub control: &'a [f64],
}

/// What a canary's score has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// The least score that passes.
    pub pass: f64,
    /// The least score that is marginal; below it the canary fails.
    pub marginal: f64,
}

/// A whole canary judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Each metric's answer, in the order given.
    pub metrics: Vec<MetricResult>,
    /// Each group's score.
    pub groups: BTreeMap<String, GroupScore>,
    /// The score, from 0 to 100 where the weights sum to 100.
    pub score: f64,
    /// What the score says.
    pub class: ScoreClass,
    /// Why the score is 0 without regard to the groups.
    pub zeroed: Option<Zeroed>,
    /// Whether it passed without evidence for some of its metrics.
    pub is_open: bool,
}

/// A group's score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupScore {
    /// 100 times the share of passes among metrics with an answer; 0 without any.
    pub score: f64,
    /// Whether none of its metrics has an answer. It then counts as 100 in the sum.
    pub has_no_data: bool,
}

/// What a score says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScoreClass {
    /// At least the pass threshold.
    Pass,
    /// At least the marginal threshold.
    Marginal,
    /// Below both.
    Fail,
}

/// Why a score is 0 without regard to the groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Zeroed {
    /// The critical metric at this place in [`Judgement::metrics`] doesn't pass.
    Critical(usize),
    /// At least half of the metrics have no data.
    NoData,
}

#[cfg(test)]
mod tests;
