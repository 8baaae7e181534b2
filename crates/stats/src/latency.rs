//! A release's latency, watched from its first block to its last.
//!
//! Latency is compared at thresholds: bucket boundaries near the baseline's past quantiles, five
//! of them for the whole distribution or one where one was named. At each, the candidate's
//! requests above `u (1 + relative) + absolute` stand against the baseline's above `u`, which is
//! what "no slower than `relative` and `absolute` allow" means at that quantile. The counts go
//! through a [`Cohort`] each, as errors do, so lasting differences between instances are noise
//! and not slowness.
//!
//! **One answer from five thresholds.** Their p-values are combined by Cauchy's method (Liu and
//! Xie, "Cauchy combination test", JASA 115, 2020), which holds for small levels whatever the
//! dependence between them; the combined one faces one boundary of [`crate::spending`].
//!
//! **It has to stay** ([`crate::transient::staying_shift`]): minutes are turned into shifts, the
//! log factor by which the candidate is slower than tolerated, by way of the normal quantiles of
//! the shares above the threshold.
//!
//! **Instances that can't be told apart** are assumed to differ by [`SPREAD_UNSEEN`].
//!
//! There is no guard: cold caches make the first minutes several times slower in good releases
//! too.

use crate::buckets::{self, BucketCounts, BucketTotals};
use crate::cohort::{Cohort, CohortParams, Settled, Standing, Young};
use crate::counts::ParamError;
use crate::dispersion::Variance;
use crate::exceedance::{BucketBlock, ExceedanceTest, ExceedanceTestParams, nearest};
use crate::mixture::Direction;
use crate::quantile::quantile;
use crate::rates::{By, Evidence, Tuning};
use crate::spending::Boundaries;
use crate::tails::{normal_of_student, normal_quantile_upper, normal_upper};
use crate::transient::{self, EventBin, ShiftBin};

/// Where the whole distribution is compared.
pub const QUANTILES: [f64; 5] = [0.5, 0.75, 0.9, 0.95, 0.99];

/// How much instances of one version are believed to differ before they are seen: 2 %.
const SPREAD_PRIOR: f64 = 0.02;

/// How much they are assumed to differ where they can't be told apart: 3 %.
pub const SPREAD_UNSEEN: f64 = 0.03;

/// How far a warm-up may be from the shape it is compared with, as a share of its size.
const SHAPE_ERROR: f64 = 0.1;

/// And at the least, as a share of latency.
const SHAPE_FLOOR: f64 = 0.01;

/// The part of the false alarms that is spent: the spread of instances is an estimate, and its
/// tails may be heavier than normal.
const SPENT: f64 = 0.7;

/// How much that assumption is worth, in degrees of freedom.
const FREEDOM_UNSEEN: f64 = 30.0;

/// Beyond this many baseline observations the older half is forgotten.
const PAST_KEPT: f64 = 200_000.0;

/// What is watched for.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyParams {
    /// The chance of ever failing a release that is no slower, up to the horizon.
    pub false_alarms: f64,
    /// The chance of ever passing one that is slower than a pass certifies.
    pub false_passes: f64,
    /// Tolerated relative slowdown.
    pub relative: f64,
    /// Tolerated slowdown in the unit of the buckets.
    pub absolute: f64,
    /// The relative slowdown that a pass certifies at `pass_quantile`.
    pub pass_relative: f64,
    /// The quantiles to compare at.
    pub quantiles: Vec<f64>,
    /// The quantile that a pass certifies.
    pub pass_quantile: f64,
    /// How long a new instance is expected to warm up, in minutes, as for error rates.
    pub warm_up_min: f64,
    /// When watching ends, in minutes from its begin.
    pub horizon_min: f64,
}

/// One candidate instance's histogram.
#[derive(Clone, Copy, Debug)]
pub struct YoungHistogram<'a> {
    /// Which instance.
    pub id: usize,
    /// Its age in the middle of the block, in minutes.
    pub age_min: f64,
    /// What it holds.
    pub counts: BucketCounts<'a>,
}

/// One baseline instance's histogram.
#[derive(Clone, Copy, Debug)]
pub struct SettledHistogram<'a> {
    /// Which instance.
    pub id: usize,
    /// What it holds.
    pub counts: BucketCounts<'a>,
}

/// One block of time, all histograms in the same boundaries.
#[derive(Clone, Copy, Debug)]
pub struct LatencyBlock<'a> {
    /// Its end, in minutes from the begin of watching.
    pub end_min: f64,
    /// The minute it ended in.
    pub minute: i64,
    /// Where the buckets end.
    pub boundaries: &'a buckets::Boundaries,
    /// The candidate's instances.
    pub candidate: &'a [YoungHistogram<'a>],
    /// The baseline's instances.
    pub baseline: &'a [SettledHistogram<'a>],
}

/// A threshold and what was counted at it.
#[derive(Clone, Debug)]
struct At {
    quantile: f64,
    cohort: Cohort,
    /// Kept while it is near the quantile, so that shares of different minutes compare.
    threshold: Option<f64>,
    /// The share of baseline requests above the threshold, and how fast it falls with the
    /// logarithm of the threshold.
    share: f64,
    slope: f64,
}

/// A release's latency under watch.
#[derive(Clone, Debug)]
pub struct LatencyWatch {
    params: LatencyParams,
    tuning: Tuning,
    past: Option<BucketTotals>,
    at: Vec<At>,
    boundaries: Boundaries,
    pass: ExceedanceTest,
    is_told_apart: bool,
    evidence: Evidence,
}

impl LatencyWatch {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// Names the parameter that is out of its range.
    pub fn new(params: LatencyParams, tuning: Tuning) -> Result<LatencyWatch, ParamError> {
        ParamError::check("false_alarms", params.false_alarms, 1e-9, 0.5)?;
        ParamError::check("false_passes", params.false_passes, 1e-9, 0.5)?;
        ParamError::check("horizon_min", params.horizon_min, 1e-3, 1e7)?;
        ParamError::check("relative", params.relative, 0.0, 100.0)?;
        ParamError::check(
            "number of quantiles",
            params.quantiles.len() as f64,
            1.0,
            16.0,
        )?;
        let pass = ExceedanceTest::new(ExceedanceTestParams {
            worse_by_relative: params.pass_relative,
            quantiles: vec![params.pass_quantile],
            dispersion: 1.0,
            direction: Direction::NotWorse,
        })?;
        let cohort = CohortParams {
            ratio: 1.0,
            difference: 0.0,
            warm_up_min: tuning.warm_up_min,
            pace_min: params.warm_up_min,
            variance: Variance::Binomial,
            prior_freedom: 4.0,
        };
        let at = params.quantiles.iter().map(|quantile| At {
            quantile: *quantile,
            cohort: Cohort::new(cohort),
            threshold: None,
            share: 1.0 - quantile,
            slope: 0.0,
        });
        Ok(LatencyWatch {
            past: None,
            at: at.collect(),
            boundaries: Boundaries::new(),
            pass,
            is_told_apart: true,
            evidence: Evidence {
                boundary: f64::INFINITY,
                late_at: f64::INFINITY,
                guard_at: f64::INFINITY,
                pass_at: -params.false_passes.ln(),
                dispersion: 1.0,
                ..Evidence::default()
            },
            params,
            tuning,
        })
    }

    /// Says that instances can't be told apart.
    pub fn not_told_apart(&mut self) {
        self.is_told_apart = false;
        for at in &mut self.at {
            at.cohort.not_told_apart();
        }
    }

    /// What is known now.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// The cohort at the threshold nearest `quantile`.
    pub fn cohort(&self, quantile: f64) -> Option<&Cohort> {
        let distance = |at: &&At| (at.quantile - quantile).abs();
        let found = self
            .at
            .iter()
            .min_by(|a, b| distance(a).total_cmp(&distance(b)));
        found.map(|at| &at.cohort)
    }

    /// Learns the baseline's latency, and how its instances differed, before the comparison
    /// began: minutes in time, each a list of instances.
    pub fn learn(
        &mut self,
        boundaries: &buckets::Boundaries,
        minutes: &[Vec<SettledHistogram<'_>>],
    ) {
        for one in minutes.iter().flatten() {
            self.learn_one(boundaries, one.counts);
        }
        let Some(past) = &self.past else {
            return;
        };
        for at in &mut self.at {
            let Some(threshold) = at.threshold(past) else {
                continue;
            };
            let above = |one: &SettledHistogram<'_>| {
                let events = one.counts.above_value(boundaries, threshold);
                Settled {
                    id: one.id,
                    total: one.counts.total(),
                    events,
                    tolerated: events,
                }
            };
            let minutes: Vec<Vec<Settled>> = minutes
                .iter()
                .map(|minute| minute.iter().map(above).collect())
                .collect();
            at.cohort.learn(&minutes);
        }
    }

    fn learn_one(&mut self, boundaries: &buckets::Boundaries, counts: BucketCounts<'_>) {
        let past = self
            .past
            .get_or_insert_with(|| BucketTotals::new(boundaries.clone()));
        // What can't be used is as good as none.
        let _ = past.add(boundaries, counts);
        let total = past.counts().total();
        if total > PAST_KEPT {
            past.scale(0.5 * PAST_KEPT / total);
        }
        let _ = self.pass.learn(boundaries, counts);
    }

    /// Takes in the next block and decides.
    pub fn push(&mut self, block: &LatencyBlock<'_>) {
        self.push_pass(block);
        if let Some(past) = self.past.clone() {
            for at in &mut self.at {
                push_at(at, &past, block, &self.params);
            }
            self.decide(block.end_min);
        }
        let mut sum = BucketTotals::new(block.boundaries.clone());
        for one in block.baseline {
            let _ = sum.add(block.boundaries, one.counts);
        }
        self.remember(block.boundaries, sum.counts());
    }

    fn remember(&mut self, boundaries: &buckets::Boundaries, counts: BucketCounts<'_>) {
        let past = self
            .past
            .get_or_insert_with(|| BucketTotals::new(boundaries.clone()));
        let _ = past.add(boundaries, counts);
        let total = past.counts().total();
        if total > PAST_KEPT {
            past.scale(0.5 * PAST_KEPT / total);
        }
    }

    fn push_pass(&mut self, block: &LatencyBlock<'_>) {
        let mut candidate = BucketTotals::new(block.boundaries.clone());
        let mut baseline = candidate.clone();
        let grown = |one: &&YoungHistogram<'_>| one.age_min >= self.params.warm_up_min;
        for one in block.candidate.iter().filter(grown) {
            let _ = candidate.add(block.boundaries, one.counts);
        }
        for one in block.baseline {
            let _ = baseline.add(block.boundaries, one.counts);
        }
        let within = self.cohort(self.params.pass_quantile);
        let within = within.map_or(1.0, |cohort| cohort.dispersion().0);
        let _ = self.pass.set_dispersion(within.clamp(1.0, 1e6));
        let _ = self.pass.push(&BucketBlock {
            boundaries: block.boundaries,
            candidate: candidate.counts(),
            baseline: baseline.counts(),
        });
    }

    /// What a threshold's cohort says. Where instances can't be told apart, what they are assumed
    /// to differ by is a factor on latency; where the distribution is steep, a shift says more
    /// about it than the share above a threshold.
    fn standing(&self, at: &At, left_out: Option<usize>) -> Standing {
        let mut standing = at.cohort.standing(left_out);
        if self.is_told_apart {
            return standing;
        }
        let candidate = at.cohort.candidate();
        let by_shift = || {
            let past = self.past.as_ref()?;
            let threshold = at.threshold? * (1.0 + self.params.relative) + self.params.absolute;
            let below = 1.0 - candidate.events / candidate.total.max(1.0);
            let theirs = quantile(past.boundaries(), past.counts(), below)?;
            let shift = (threshold / theirs).ln();
            let z = normal_of_student(shift / (SPREAD_UNSEEN * 2.0_f64.sqrt()), FREEDOM_UNSEEN);
            z.is_finite().then_some(z)
        };
        if let Some(z) = by_shift() {
            standing.z = standing.strict.min(standing.z.max(z));
        }
        standing
    }

    fn decide(&mut self, end_min: f64) {
        let spread = match self.is_told_apart {
            true => SPREAD_PRIOR,
            false => SPREAD_UNSEEN,
        };
        for at in &mut self.at {
            at.assume(spread);
        }
        let information: f64 = self.at.iter().map(|at| at.cohort.information()).sum();
        let fraction = end_min / self.params.horizon_min;
        let is_look = information > self.boundaries.information() * self.tuning.growth
            && information > 0.0
            && fraction <= 1.0 + 1e-9;
        if is_look {
            let spending = self.tuning.spending.by(fraction);
            self.boundaries.look(
                information,
                SPENT
                    * self
                        .tuning
                        .level(self.params.false_alarms, self.params.warm_up_min)
                    * spending,
            );
            let standing: Vec<_> = self.at.iter().map(|at| self.standing(at, None)).collect();
            self.evidence.z = combined(standing.iter().map(|one| one.z));
            let most = standing.iter().map(|one| one.between);
            self.evidence.dispersion = most.fold(1.0, f64::max);
        }
        let evidence = &mut self.evidence;
        evidence.boundary = self.boundaries.boundary();
        evidence.pass = self.pass.log_e_max();
        let is_far = evidence.z >= evidence.boundary;
        evidence.is_passed = evidence.pass >= evidence.pass_at && !is_far;
        evidence.suspect = None;
        evidence.is_held = false;
        if evidence.failed_by.is_some() || !is_far {
            return;
        }
        let z = |at: &&At| self.standing(at, None).z;
        let Some(clearest) = self.at.iter().max_by(|a, b| z(a).total_cmp(&z(b))) else {
            return;
        };
        if clearest.cohort.grown() >= 3 {
            let worst = clearest.cohort.worst();
            let rest = combined(self.at.iter().map(|at| self.standing(at, worst).z));
            if rest < self.evidence.boundary * self.tuning.left_out {
                self.evidence.suspect = worst;
                return;
            }
        }
        let staying = match self.params.warm_up_min > 0.0 {
            true => clearest.staying(self.params.relative),
            false => f64::INFINITY,
        };
        self.evidence.staying = staying;
        if staying >= self.tuning.staying {
            self.evidence.failed_by = Some(By::Spending);
        } else {
            self.evidence.is_held = true;
        }
    }

    /// The dispersion between instances of `at` as the spread of their latency, a share.
    pub fn spread(&self, quantile: f64) -> Option<f64> {
        let distance = |at: &&At| (at.quantile - quantile).abs();
        let at = self
            .at
            .iter()
            .min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        let (_, between, _) = at.cohort.dispersion();
        let size = at.cohort.candidate().total / at.cohort.grown().max(1) as f64;
        let per_shift = size * at.slope * at.slope / (at.share * (1.0 - at.share));
        (per_shift > 0.0).then(|| ((between - 1.0) / per_shift).sqrt())
    }
}

fn push_at(at: &mut At, past: &BucketTotals, block: &LatencyBlock<'_>, params: &LatencyParams) {
    let total = past.counts().total();
    if total < (2.0 / (1.0 - at.quantile)).max(10.0) {
        return;
    }
    let Some(quantile_at) = at.threshold(past) else {
        return;
    };
    let threshold = quantile_at * (1.0 + params.relative) + params.absolute;
    let above = |counts: BucketCounts<'_>, value: f64| counts.above_value(block.boundaries, value);
    let around = |factor: f64| {
        past.counts()
            .above_value(past.boundaries(), quantile_at * factor)
    };
    at.share = (around(1.0) / total).clamp(1e-6, 1.0 - 1e-6);
    at.slope = ((around(1.0 / 1.15) - around(1.15)) / total / (2.0 * 1.15_f64.ln())).max(0.0);
    let candidate: Vec<Young> = block
        .candidate
        .iter()
        .map(|one| Young {
            id: one.id,
            age_min: one.age_min,
            total: one.counts.total(),
            events: above(one.counts, threshold),
        })
        .collect();
    let baseline: Vec<Settled> = block
        .baseline
        .iter()
        .map(|one| Settled {
            id: one.id,
            total: one.counts.total(),
            events: above(one.counts, threshold),
            tolerated: above(one.counts, quantile_at),
        })
        .collect();
    at.cohort.push(block.minute, &candidate, &baseline);
}

/// The z-value of several p-values combined by Cauchy's method.
fn combined(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = values.clone().count().max(1) as f64;
    let sum: f64 = values
        .map(|z| 1.0 / (std::f64::consts::PI * normal_upper(z).clamp(1e-300, 1.0 - 1e-9)).tan())
        .sum();
    let mean = sum / count;
    let upper = if mean > 0.0 {
        (1.0 / mean).atan() / std::f64::consts::PI
    } else {
        0.5 - mean.atan() / std::f64::consts::PI
    };
    normal_quantile_upper(upper)
}

impl At {
    /// The threshold near the quantile of the past: a bucket's end.
    fn threshold(&mut self, past: &BucketTotals) -> Option<f64> {
        let total = past.counts().total();
        let aim = 1.0 - self.quantile;
        let is_near = |threshold: f64| {
            let share = past.counts().above_value(past.boundaries(), threshold) / total;
            share > aim / 3.0 && share < (3.0 * aim).min(0.5 + 0.5 * aim)
        };
        if self.threshold.is_none_or(|threshold| !is_near(threshold)) {
            let index = nearest(past, aim, Direction::Worse)?;
            self.threshold = Some(past.boundaries().upper(index));
        }
        self.threshold
    }

    /// Believes in instances that differ by `spread`, a share of latency.
    fn assume(&mut self, spread: f64) {
        let size = self.cohort.candidate().total / self.cohort.grown().max(1) as f64;
        let per_shift = size * self.slope * self.slope / (self.share * (1.0 - self.share));
        self.cohort.assume(1.0 + per_shift * spread * spread);
    }

    /// The log likelihood ratio for a slowness that stays.
    fn staying(&self, relative: f64) -> f64 {
        let (within, between, _) = self.cohort.dispersion();
        let z = normal_quantile_upper(self.share);
        let density = (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
        let per_shift = self.slope / density;
        if per_shift.is_nan() || per_shift <= 0.0 {
            return 0.0;
        }
        let probit = |share: f64| -normal_quantile_upper(share);
        let bins = joined(self.cohort.minutes(0.0));
        let shifts: Vec<ShiftBin> = bins
            .iter()
            .map(|bin| {
                let share = (bin.events + self.share) / (bin.total + 1.0);
                let tolerated = bin.tolerated.clamp(1e-6, 1.0 - 1e-6);
                let at = 0.5 * (probit(share) + probit(tolerated));
                let density = (-0.5 * at * at).exp() / std::f64::consts::TAU.sqrt();
                let middle = normal_upper(-at);
                let variance = middle * (1.0 - middle) / (bin.total * density * density);
                let shift = (probit(share) - probit(tolerated)) / per_shift;
                let sampled = variance * within / (per_shift * per_shift);
                ShiftBin {
                    shift,
                    weight: 1.0 / (sampled + (SHAPE_ERROR * shift).powi(2) + SHAPE_FLOOR.powi(2)),
                    decay: bin.decayed.map(|sum| sum / bin.total),
                }
            })
            .collect();
        // Shifts are against the tolerated baseline; what instances differ by is tolerated too.
        let size = self.cohort.candidate().total / self.cohort.grown().max(1) as f64;
        let spread = (between - 1.0) * self.share * (1.0 - self.share)
            / (size * self.slope * self.slope).max(1e-12);
        let tolerated =
            (2.0 * (spread / self.cohort.grown().max(1) as f64).sqrt() - relative.ln_1p()).max(0.0);
        transient::staying_shift(&shifts, tolerated)
    }
}

/// Joins minutes with few requests, so that each has a share to speak of.
fn joined(minutes: Vec<EventBin>) -> Vec<EventBin> {
    let mut joined: Vec<EventBin> = Vec::new();
    for bin in minutes {
        match joined.last_mut() {
            Some(last) if last.total < 30.0 => {
                let total = last.total + bin.total;
                last.tolerated =
                    (last.tolerated * last.total + bin.tolerated * bin.total) / total.max(1e-9);
                last.total = total;
                last.events += bin.events;
                for (sum, more) in last.decayed.iter_mut().zip(bin.decayed) {
                    *sum += more;
                }
            }
            _ => joined.push(bin),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buckets::Boundaries as Buckets;

    /// Evenly spread between half and one and a half times `typical_ms`: far steeper beyond its
    /// 95th percentile than latencies usually are.
    fn narrow(typical_ms: f64) -> Vec<(i32, f64)> {
        let mut buckets = std::collections::BTreeMap::new();
        for part in 0..20 {
            let seconds = typical_ms / 1e3 * (0.525 + f64::from(part) * 0.05);
            let bucket = (seconds.log2() * 32.0).ceil() as i32;
            *buckets.entry(bucket).or_insert(0.0) += 1_000.0;
        }
        buckets.into_iter().collect()
    }

    #[test]
    fn half_slower_is_beyond_what_unseen_instances_differ_by() {
        let fails = |typical_ms: f64| {
            let mut watch = LatencyWatch::new(
                LatencyParams {
                    false_alarms: 0.01,
                    false_passes: 0.05,
                    relative: 0.15,
                    absolute: 0.0,
                    pass_relative: 0.15,
                    quantiles: vec![0.95],
                    pass_quantile: 0.95,
                    warm_up_min: 0.0,
                    horizon_min: 30.0,
                },
                Tuning::default(),
            )
            .unwrap();
            watch.not_told_apart();
            let boundaries = Buckets::exponential(5).unwrap();
            let (candidate, baseline) = (narrow(typical_ms), narrow(40.0));
            let counts = |buckets| BucketCounts {
                below: 0.0,
                buckets,
            };
            for block in 0..60_u32 {
                let begin_min = f64::from(block) / 6.0;
                watch.push(&LatencyBlock {
                    end_min: begin_min + 1.0 / 6.0,
                    minute: i64::from(block) / 6,
                    boundaries: &boundaries,
                    candidate: &[YoungHistogram {
                        id: 0,
                        age_min: begin_min,
                        counts: counts(&candidate),
                    }],
                    baseline: &[SettledHistogram {
                        id: 0,
                        counts: counts(&baseline),
                    }],
                });
            }
            watch.evidence().failed_by.is_some()
        };
        assert!(fails(60.0));
        assert!(!fails(40.0));
        assert!(!fails(44.0), "a tenth is within what is tolerated");
    }
}
