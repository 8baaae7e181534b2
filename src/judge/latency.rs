//! Latency compared.
//!
//! [`slogate_stats::latency`] watches how many of the candidate's requests exceed what is tolerated
//! of the baseline's latency: at five quantiles of the whole distribution, or around one where the
//! check names it. Histograms of a block are brought to the coarsest of their resolutions. There is
//! no guard, since cold caches make the first minutes slow in good releases too; as for errors, a
//! difference has to stay, and one instance alone is no version.
//!
//! Instances of one version differ in latency too. How much is measured between the baseline's
//! instances and counts as noise; where series name no instances it is assumed.

use std::borrow::Cow;

use slogate_series::Histogram;
use slogate_stats::buckets::{Boundaries, BucketCounts};
use slogate_stats::latency::{
    LatencyBlock, LatencyParams, LatencyWatch, QUANTILES, SPREAD_UNSEEN, SettledHistogram,
    YoungHistogram,
};
use slogate_stats::rates::Tuning;

use super::arms::{Arms, Pair};
use super::compare::{Look, Sides, result};
use super::errors::{State, finite, shown};
use super::{examine, sentences, words};
use crate::model::{ArmCounts, CheckResult, Evidence, Outcome, Reason};
use crate::policy::{Check, CompareCheck, Margin};

/// What has been made of the blocks so far.
#[derive(Debug)]
pub(crate) struct Progress {
    arms: Arms,
    watch: LatencyWatch,
    candidate: Histogram,
    baseline: Histogram,
}

/// Answers a check on latency.
pub(crate) fn answer(
    look: &Look<'_>,
    check: &Check,
    compare: &CompareCheck,
    named: Option<f64>,
    sides: &Sides<'_, Histogram>,
    progress: &mut Option<examine::Progress>,
) -> CheckResult {
    let quantile = compare.sli.shown_quantile().unwrap_or(0.95);
    let is_current = matches!(progress, Some(examine::Progress::Latency(seen))
        if seen.arms.relies_on(&sides.relied));
    if !is_current {
        let started = Progress::start(look, check, compare, (named, quantile), sides);
        *progress = started.map(|started| examine::Progress::Latency(Box::new(started)));
    }
    let Some(examine::Progress::Latency(seen)) = progress else {
        let message = "Latency: the check's margins are out of range.".to_owned();
        let (verdict, reason) = (Outcome::Inconclusive, Reason::UnusableAnswer);
        return result(check, verdict, reason, message, Evidence::default());
    };
    while let Some(pair) = seen.arms.take(sides.candidate, sides.baseline, sides.end) {
        seen.push(&pair);
    }
    let found = seen.watch.evidence();
    let state = State {
        found,
        is_warming: seen.arms.is_warming(look.gate.warm_up_ms),
        is_stale: sides.is_stale,
        candidate_total: seen.candidate.count,
        baseline_total: seen.baseline.count,
    };
    let (verdict, reason) = state.decide(compare.min_events);
    let evidence = seen.evidence(look, compare, quantile, sides);
    let message = sentences::compared(reason, &evidence, compare, look.gate);
    result(check, verdict, reason, message, evidence)
}

impl Progress {
    /// Nothing but the baseline's history; `None` for parameters that no test accepts, which a
    /// parsed policy can't hold.
    fn start(
        look: &Look<'_>,
        check: &Check,
        compare: &CompareCheck,
        (named, quantile): (Option<f64>, f64),
        sides: &Sides<'_, Histogram>,
    ) -> Option<Progress> {
        let (warm_up_min, horizon_min) = look.minutes();
        let mut arms = Arms::new(sides.relied.clone());
        let history = arms.history(sides.baseline);
        let known = history.iter().flatten().map(|(_, histogram)| *histogram);
        // Without history there is no past quantile: an absolute part of what a pass certifies
        // then counts for nothing, which is the cautious side.
        let at = total(known).quantile(quantile);
        let params = LatencyParams {
            false_alarms: look.false_alarms(check),
            false_passes: look.gate.false_passes,
            relative: compare.worse_by.relative.unwrap_or(0.0),
            absolute: compare.worse_by.absolute.unwrap_or(0.0),
            pass_relative: relative_margin(&compare.pass_within, at),
            quantiles: quantiles(named),
            pass_quantile: quantile.clamp(0.01, 0.9999),
            warm_up_min,
            horizon_min,
        };
        let mut watch = LatencyWatch::new(params, Tuning::default()).ok()?;
        if !arms.is_told_apart() {
            watch.not_told_apart();
        }
        learn(&mut watch, &history);
        Some(Progress {
            arms,
            watch,
            candidate: Histogram::default(),
            baseline: Histogram::default(),
        })
    }

    fn push(&mut self, pair: &Pair<'_, Histogram>) {
        let mine = pair.candidate.iter().map(|(_, _, histogram)| *histogram);
        let all: Vec<&Histogram> = mine
            .chain(pair.baseline.iter().map(|(_, histogram)| *histogram))
            .collect();
        let Some((same, boundaries)) = same_resolution(&all) else {
            return;
        };
        let (mine, theirs) = same.split_at(pair.candidate.len().min(same.len()));
        let candidate: Vec<YoungHistogram<'_>> = pair
            .candidate
            .iter()
            .zip(mine)
            .map(|((id, age_min, _), histogram)| YoungHistogram {
                id: *id,
                age_min: *age_min,
                counts: counts(histogram),
            })
            .collect();
        let baseline: Vec<SettledHistogram<'_>> = pair
            .baseline
            .iter()
            .zip(theirs)
            .map(|((id, _), histogram)| SettledHistogram {
                id: *id,
                counts: counts(histogram),
            })
            .collect();
        self.watch.push(&LatencyBlock {
            end_min: pair.end_min,
            minute: pair.minute,
            boundaries: &boundaries,
            candidate: &candidate,
            baseline: &baseline,
        });
        if !candidate.is_empty() && !baseline.is_empty() {
            add(&mut self.candidate, mine);
            add(&mut self.baseline, theirs);
        }
    }

    fn evidence(
        &self,
        look: &Look<'_>,
        compare: &CompareCheck,
        quantile: f64,
        sides: &Sides<'_, Histogram>,
    ) -> Evidence {
        let found = self.watch.evidence();
        let theirs = self.baseline.quantile(quantile);
        let relative = relative_margin(&compare.worse_by, theirs);
        let limit = theirs.map(|at| at * (1.0 + relative));
        let candidate = arm(&self.candidate, quantile, limit);
        let baseline = arm(&self.baseline, quantile, theirs);
        let both = candidate.quantile.zip(baseline.quantile);
        let aside = self
            .watch
            .cohort(quantile)
            .map(slogate_stats::cohort::Cohort::aside);
        let spread = match self.arms.is_told_apart() {
            true => self.watch.spread(quantile),
            false => Some(SPREAD_UNSEEN),
        };
        let mut evidence = Evidence {
            data: Some(look.data()),
            candidate_counts: Some(candidate),
            baseline_counts: Some(baseline),
            ratio: both.and_then(|(mine, theirs)| finite(mine / theirs)),
            difference: both.and_then(|(mine, theirs)| finite(mine - theirs)),
            tolerance: Some(sentences::tolerance(compare)),
            spread: spread.and_then(finite),
            ..shown(found, &self.arms, sides, aside.into_iter().flatten())
        };
        if !self.arms.is_told_apart() {
            evidence.warnings.push(format!(
                "series name no instances: they are assumed to differ by {} in latency",
                words::percent(SPREAD_UNSEEN)
            ));
        }
        evidence
    }
}

/// Where to compare: the whole distribution by default, else around the quantile that was named.
fn quantiles(named: Option<f64>) -> Vec<f64> {
    match named {
        None => QUANTILES.to_vec(),
        Some(quantile) => vec![quantile.clamp(0.01, 0.9999)],
    }
}

fn learn(watch: &mut LatencyWatch, history: &[Vec<(usize, &Histogram)>]) {
    let all = history.iter().flatten().map(|(_, histogram)| *histogram);
    let all: Vec<&Histogram> = all.collect();
    let Some((same, boundaries)) = same_resolution(&all) else {
        return;
    };
    let mut same = same.iter();
    let minutes: Vec<Vec<SettledHistogram<'_>>> = history
        .iter()
        .map(|minute| {
            let each = minute.iter().zip(same.by_ref());
            each.map(|((id, _), histogram)| SettledHistogram {
                id: *id,
                counts: counts(histogram),
            })
            .collect()
        })
        .collect();
    watch.learn(&boundaries, &minutes);
}

/// A margin as a share of the baseline's quantile.
fn relative_margin(margin: &Margin, baseline_quantile: Option<f64>) -> f64 {
    let absolute = margin
        .absolute
        .zip(baseline_quantile.filter(|at| *at > 0.0));
    let from_absolute = absolute.map_or(0.0, |(seconds, at)| seconds / at);
    (margin.relative.unwrap_or(0.0) + from_absolute).min(100.0)
}

fn total<'h>(histograms: impl Iterator<Item = &'h Histogram>) -> Histogram {
    let mut histograms = histograms;
    let Some(first) = histograms.next() else {
        return Histogram::default();
    };
    histograms.fold(first.clone(), |sum, next| sum.add(next))
}

fn add(sum: &mut Histogram, more: &[Cow<'_, Histogram>]) {
    for one in more {
        *sum = match sum.count > 0.0 {
            true => sum.add(one),
            false => one.clone().into_owned(),
        };
    }
}

/// All histograms at the coarsest resolution among them, in the same order, and their boundaries.
/// `None` where there are none.
fn same_resolution<'h>(all: &[&'h Histogram]) -> Option<(Vec<Cow<'h, Histogram>>, Boundaries)> {
    let filled = all.iter().find(|histogram| histogram.count > 0.0)?;
    if filled.has_custom_bounds() {
        let boundaries = Boundaries::explicit(&filled.custom_bounds).ok()?;
        return Some((
            all.iter().map(|one| Cow::Borrowed(*one)).collect(),
            boundaries,
        ));
    }
    let exponential = all
        .iter()
        .filter(|one| one.count > 0.0 && !one.has_custom_bounds());
    let schema = exponential.map(|one| one.schema).min()?;
    let same = all.iter().map(|one| match one.schema <= schema {
        true => Cow::Borrowed(*one),
        false => Cow::Owned(one.at_schema(schema)),
    });
    Some((same.collect(), Boundaries::exponential(schema).ok()?))
}

fn counts(histogram: &Histogram) -> BucketCounts<'_> {
    BucketCounts {
        below: histogram.zero_count,
        buckets: histogram.positive.as_slice(),
    }
}

fn arm(histogram: &Histogram, quantile: f64, limit: Option<f64>) -> ArmCounts {
    let slow = limit.map_or(0.0, |limit| {
        histogram.count - histogram.count_at_most(limit)
    });
    let bad = slow.clamp(0.0, histogram.count.max(0.0));
    ArmCounts {
        total: histogram.count,
        bad,
        rate: (histogram.count > 0.0).then(|| bad / histogram.count),
        quantile: histogram
            .quantile(quantile)
            .filter(|value| value.is_finite()),
    }
}
