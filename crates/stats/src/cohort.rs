//! Instances of the candidate beside instances of the baseline, event by event.
//!
//! A [`Cohort`] adds up what is needed to ask, after every block of time: are there more of the
//! candidate's events than the tolerated multiple of the baseline's explains? It is the common
//! ground of error rates and of exceedances of one latency threshold.
//!
//! **Blocks are strata.** In each block, given all its events, the candidate's share of them is
//! binomial under the null whatever the baseline's rate is at that time. Means and variances add
//! up over blocks; counts are never pooled, so traffic may shift and rates may drift.
//!
//! **Two questions, and both have to be answered.** Is the difference beyond the tolerance, given
//! these instances (`strict`)? And is it beyond what two groups of instances of one and the same
//! version differ by (`plain`)? The first takes the dispersion of minutes, the second that of
//! whole instances over a time as long as the evidence: instances that differ lastingly are noise
//! there and not in the first. Asking for both costs less than adding the spread to the tolerance.
//!
//! **Age.** An instance's events count once it is older than the warm-up. Younger ones are
//! counted in the minutes that [`crate::transient`] looks at.
//!
//! **Instances.** A baseline instance far beyond the others is set aside from then on (at most
//! one in eight) and named. Of three or more candidate instances the worst is left out for a
//! second look, so that one bad machine is no bad version.
//!
//! **Dispersion is estimated** from few instances, so the z-value of the second question is that
//! of Student's distribution, the more so the more of the variance is estimated.

use crate::dispersion::{self, Count, Variance};
use crate::tails::{normal_of_student, upper_tail_z};
use crate::transient::{EventBin, decays};

/// The most instances that are told apart on either side.
pub const INSTANCES_MAX: usize = 256;

/// What a cohort compares with what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CohortParams {
    /// Tolerated ratio of the candidate's rate to the baseline's tolerated events.
    pub ratio: f64,
    /// Tolerated absolute difference of rates.
    pub difference: f64,
    /// How old an instance has to be for its events to be evidence, in minutes.
    pub warm_up_min: f64,
    /// The pace of transients, in minutes; 0 where none are expected.
    pub pace_min: f64,
    /// The variance of independent requests.
    pub variance: Variance,
    /// How many degrees of freedom what is assumed of the dispersion between whole instances is
    /// worth; see [`Cohort::assume`].
    pub prior_freedom: f64,
}

/// One candidate instance in one block.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Young {
    /// Which instance: small numbers, given in order of appearance.
    pub id: usize,
    /// Its age in the middle of the block, in minutes.
    pub age_min: f64,
    /// Its requests.
    pub total: f64,
    /// Of those, the bad ones.
    pub events: f64,
}

/// One baseline instance in one block.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Settled {
    /// Which instance: small numbers, given in order of appearance.
    pub id: usize,
    /// Its requests.
    pub total: f64,
    /// Of those, the bad ones.
    pub events: f64,
    /// The events that the tolerance is a multiple of: for error rates the bad ones, for latency
    /// those above a threshold that is lower by the tolerated factor.
    pub tolerated: f64,
}

/// The expected count of the candidate's events under a null, and its variance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Moments {
    mean: f64,
    variance: f64,
}

impl Moments {
    fn add(&mut self, other: Moments) {
        self.mean += other.mean;
        self.variance += other.variance;
    }

    fn without(self, other: Moments) -> Moments {
        Moments {
            mean: (self.mean - other.mean).max(0.0),
            variance: (self.variance - other.variance).max(0.0),
        }
    }
}

/// Events and their moments.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    total: f64,
    events: f64,
    strict: Moments,
    plain: Moments,
}

#[derive(Clone, Copy, Debug, Default)]
struct Instance {
    total: f64,
    events: f64,
    is_set_aside: bool,
}

/// What the evidence says at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Standard deviations by which the candidate is beyond what both questions allow.
    pub z: f64,
    /// Those beyond the tolerance, given these instances.
    pub strict: f64,
    /// The dispersion of minutes.
    pub within: f64,
    /// The dispersion of whole instances.
    pub between: f64,
}

/// A cohort's sums so far.
#[derive(Clone, Debug)]
pub struct Cohort {
    params: CohortParams,
    sums: Sums,
    /// What each candidate instance's presence adds to the sums.
    candidate: Vec<Sums>,
    baseline: Vec<Instance>,
    baseline_total: f64,
    baseline_events: f64,
    within: Chi,
    history: Vec<Scale>,
    /// What the baseline did before the comparison began.
    before: Count,
    /// The dispersion that is assumed between instances that nobody saw.
    prior: f64,
    bin: Bin,
    bins: Vec<Minute>,
    /// The baseline as a whole, minute by minute, where instances are not told apart.
    whole: Vec<Count>,
    is_told_apart: bool,
}

/// χ² and its degrees of freedom.
#[derive(Clone, Copy, Debug, Default)]
struct Chi {
    squared: f64,
    freedom: f64,
}

impl Chi {
    fn add(&mut self, other: Chi) {
        self.squared += other.squared;
        self.freedom += other.freedom;
    }
}

/// The dispersion of instances over stretches of `minutes` before the comparison began.
#[derive(Clone, Copy, Debug)]
struct Scale {
    minutes: usize,
    chi: Chi,
}

/// A minute that is full.
#[derive(Clone, Copy, Debug)]
struct Minute {
    candidate: EventBin,
    tolerated: f64,
    baseline_total: f64,
}

/// The minute that is being filled.
#[derive(Clone, Debug, Default)]
struct Bin {
    minute: Option<i64>,
    baseline: Vec<Count>,
    candidate: EventBin,
    tolerated: f64,
    baseline_total: f64,
}

/// How far beyond the others a baseline instance has to be to be set aside, in standard
/// deviations, and how many events it has to have.
const ASIDE_Z: f64 = 5.0;
const ASIDE_EVENTS: f64 = 8.0;

/// With fewer events than this the baseline's history is used beside what it does now.
const RARE_EVENTS: f64 = 20.0;

/// What an estimated dispersion costs, in standard deviations: the more of the variance is an
/// estimate, the more alarms there are beyond what the level says. From simulation.
const ESTIMATE_COSTS_Z: f64 = 0.35;

/// Minutes over which history is cut.
const SCALES: [usize; 4] = [1, 5, 15, 30];

impl Cohort {
    /// Nothing seen yet.
    pub fn new(params: CohortParams) -> Cohort {
        Cohort {
            params,
            sums: Sums::default(),
            candidate: Vec::new(),
            baseline: Vec::new(),
            baseline_total: 0.0,
            baseline_events: 0.0,
            within: Chi::default(),
            history: Vec::new(),
            before: Count::default(),
            prior: 1.0,
            bin: Bin::default(),
            bins: Vec::new(),
            whole: Vec::new(),
            is_told_apart: true,
        }
    }

    /// Says that the baseline's instances can't be told apart: its dispersion is then that over
    /// time, and what [`Cohort::assume`] says is assumed between instances.
    pub fn not_told_apart(&mut self) {
        self.is_told_apart = false;
    }

    /// The dispersion assumed between instances on top of what is seen.
    pub fn assume(&mut self, dispersion: f64) {
        if dispersion.is_finite() {
            self.prior = dispersion.max(1.0);
        }
    }

    /// Learns how the baseline's instances differed before the comparison began: minutes in time,
    /// each a list of instances.
    pub fn learn(&mut self, minutes: &[Vec<Settled>]) {
        if !self.is_told_apart {
            let whole = minutes.iter().map(|minute| Count {
                total: minute.iter().map(|one| one.total).sum(),
                events: minute.iter().map(|one| one.events).sum(),
            });
            self.whole.extend(whole);
            return;
        }
        let mut sums: Vec<Count> = Vec::new();
        for one in minutes
            .iter()
            .flatten()
            .filter(|one| one.id < INSTANCES_MAX)
        {
            add_count(&mut sums, one.id, one.total, one.events);
        }
        if let Some(bad) = outlier(&sums, |_| false, self.params.variance) {
            self.instance(bad).is_set_aside = true;
        }
        for one in minutes.iter().flatten() {
            if !self.is_set_aside(one.id) {
                self.before.total += one.total;
                self.before.events += one.events;
            }
        }
        for scale in SCALES {
            let mut chi = Chi::default();
            for stretch in minutes.chunks_exact(scale) {
                let mut cells: Vec<Count> = Vec::new();
                for one in stretch.iter().flatten() {
                    if !self.is_set_aside(one.id) {
                        add_count(&mut cells, one.id, one.total, one.events);
                    }
                }
                chi.add(self.chi(&cells));
            }
            if chi.freedom > 0.0 {
                self.history.push(Scale {
                    minutes: scale,
                    chi,
                });
            }
        }
    }

    /// Takes in a block that ended in `minute`.
    pub fn push(&mut self, minute: i64, candidate: &[Young], baseline: &[Settled]) {
        if self.bin.minute != Some(minute) {
            self.close_minute();
            self.bin.minute = Some(minute);
        }
        let (mut total, mut events, mut tolerated) = (0.0, 0.0, 0.0);
        for one in baseline.iter().filter(|one| one.id < INSTANCES_MAX) {
            add_count(&mut self.bin.baseline, one.id, one.total, one.events);
            if !self.is_set_aside(one.id) {
                total += one.total;
                events += one.events;
                tolerated += one.tolerated;
            }
        }
        self.bin.baseline_total += total;
        self.bin.tolerated += tolerated;
        for one in candidate {
            let decayed = decays(one.age_min / self.params.pace_min.max(1e-9));
            let bin = &mut self.bin.candidate;
            bin.total += one.total;
            bin.events += one.events;
            for (sum, decay) in bin.decayed.iter_mut().zip(decayed) {
                *sum += one.total * decay;
            }
        }
        let beside = Beside {
            total,
            events,
            tolerated,
        };
        self.compare(candidate, baseline, beside);
    }

    fn compare(&mut self, candidate: &[Young], baseline: &[Settled], beside: Beside) {
        let warm_up_min = self.params.warm_up_min;
        let is_grown = |one: &&Young| one.age_min >= warm_up_min && one.id < INSTANCES_MAX;
        let grown = || candidate.iter().filter(is_grown);
        let total: f64 = grown().map(|one| one.total).sum();
        let events: f64 = grown().map(|one| one.events).sum();
        if total <= 0.0 || beside.total <= 0.0 {
            return;
        }
        let all = self.block(total, events, beside);
        for one in grown() {
            let rest = self.block(total - one.total, events - one.events, beside);
            if self.candidate.len() <= one.id {
                self.candidate.resize(one.id + 1, Sums::default());
            }
            if let Some(sums) = self.candidate.get_mut(one.id) {
                sums.total += one.total;
                sums.events += one.events;
                sums.strict.add(all.strict.without(rest.strict));
                sums.plain.add(all.plain.without(rest.plain));
            }
        }
        self.sums.total += total;
        self.sums.events += events;
        self.sums.strict.add(all.strict);
        self.sums.plain.add(all.plain);
        self.baseline_total += beside.total;
        self.baseline_events += beside.events;
        for one in baseline.iter().filter(|one| one.id < INSTANCES_MAX) {
            let instance = self.instance(one.id);
            instance.total += one.total;
            instance.events += one.events;
        }
    }

    /// The moments of a block's candidate events, given all events.
    fn block(&self, total: f64, events: f64, beside: Beside) -> Sums {
        if total <= 1e-9 {
            return Sums::default();
        }
        let moments = |ratio: f64, theirs: f64, difference: f64| {
            let share = ratio * total / (ratio * total + beside.total);
            let extra = difference * total;
            let shared = (events + theirs - extra).max(0.0);
            let common = match self.params.variance {
                Variance::Poisson => 1.0,
                Variance::Binomial => {
                    (1.0 - (events + theirs) / (total + beside.total)).clamp(0.0, 1.0)
                }
            };
            Moments {
                mean: share * shared + extra,
                variance: (share * (1.0 - share) * shared + extra) * common,
            }
        };
        Sums {
            total,
            events,
            strict: moments(self.params.ratio, beside.tolerated, self.params.difference),
            plain: moments(1.0, beside.events, 0.0),
        }
    }

    fn close_minute(&mut self) {
        let bin = std::mem::take(&mut self.bin);
        if bin.minute.is_none() {
            return;
        }
        if self.is_told_apart {
            let kept: Vec<Count> = (0..)
                .zip(&bin.baseline)
                .filter(|(id, _)| !self.is_set_aside(*id))
                .map(|(_, count)| *count)
                .collect();
            let chi = self.chi(&kept);
            self.within.add(chi);
            self.set_aside();
        } else {
            self.whole.push(
                bin.baseline
                    .iter()
                    .fold(Count::default(), |sum, one| Count {
                        total: sum.total + one.total,
                        events: sum.events + one.events,
                    }),
            );
        }
        if bin.candidate.total > 0.0 && bin.baseline_total > 0.0 {
            self.bins.push(bin.minute());
        }
    }

    fn chi(&self, cells: &[Count]) -> Chi {
        let known = dispersion::chi_squared(cells, self.params.variance);
        known.map_or(Chi::default(), |(squared, freedom)| Chi {
            squared,
            freedom,
        })
    }

    fn instance(&mut self, id: usize) -> &mut Instance {
        if self.baseline.len() <= id {
            self.baseline.resize(id + 1, Instance::default());
        }
        // The vector was made long enough just now.
        let last = self.baseline.len() - 1;
        &mut self.baseline[id.min(last)]
    }

    fn is_set_aside(&self, id: usize) -> bool {
        self.baseline.get(id).is_some_and(|one| one.is_set_aside)
    }

    fn set_aside(&mut self) {
        let known = self.baseline.iter().filter(|one| one.total > 0.0).count();
        let aside = self.baseline.iter().filter(|one| one.is_set_aside).count();
        if known < 8 || aside >= known / 8 {
            return;
        }
        let counts: Vec<Count> = self.baseline.iter().map(Instance::count).collect();
        let bad = outlier(&counts, |id| self.is_set_aside(id), self.params.variance);
        if let Some(bad) = bad {
            self.instance(bad).is_set_aside = true;
        }
    }

    /// Baseline instances that were set aside.
    pub fn aside(&self) -> impl Iterator<Item = usize> + '_ {
        let ids = (0..).zip(&self.baseline);
        ids.filter(|(_, one)| one.is_set_aside).map(|(id, _)| id)
    }

    /// What grown candidate instances have served, and how much of it was bad.
    pub fn candidate(&self) -> Count {
        Count {
            total: self.sums.total,
            events: self.sums.events,
        }
    }

    /// What the baseline served beside them.
    pub fn baseline(&self) -> Count {
        Count {
            total: self.baseline_total,
            events: self.baseline_events,
        }
    }

    /// How much is known: the variance of the candidate's count of events. It never falls.
    pub fn information(&self) -> f64 {
        self.sums.plain.variance
    }

    /// How many candidate instances have been evidence.
    pub fn grown(&self) -> usize {
        self.candidate.iter().filter(|one| one.total > 0.0).count()
    }

    /// The dispersions within minutes and between whole instances, and the degrees of freedom of
    /// the latter, for a candidate with instances of this cohort's size.
    pub fn dispersion(&self) -> (f64, f64, f64) {
        if !self.is_told_apart {
            let over_time = dispersion::over_time(&self.whole, self.params.variance);
            return (over_time, over_time.max(self.prior), 30.0);
        }
        let within = shrunk(self.within, 1.0, 20.0);
        let cells: Vec<Count> = self
            .baseline
            .iter()
            .filter(|one| !one.is_set_aside)
            .map(Instance::count)
            .collect();
        let seen = self.chi(&cells);
        let mut chi = seen;
        let minutes = self.bins.len().max(1);
        let before = self
            .history
            .iter()
            .rev()
            .find(|scale| scale.minutes <= minutes);
        if let Some(scale) = before {
            // Stretches of the same instances are not independent of each other.
            let worth = (0.5 * chi.freedom.max(1.0) / scale.chi.freedom).min(1.0);
            // What instances lastingly differ by counts for more, the longer it is counted.
            let longer = minutes as f64 / scale.minutes as f64;
            let excess =
                (scale.chi.squared - scale.chi.freedom).max(0.0) * (longer - 1.0).clamp(0.0, 1.0);
            chi.add(Chi {
                squared: (scale.chi.squared + excess) * worth,
                freedom: scale.chi.freedom * worth,
            });
        }
        let freedom = seen.freedom + self.params.prior_freedom;
        let between = shrunk(chi, self.prior, self.params.prior_freedom).max(within);
        let theirs = mean_size(&cells);
        let mine = self.sums.total / self.grown().max(1) as f64;
        let size = if theirs > 0.0 && mine > 0.0 {
            (mine / theirs).min(100.0)
        } else {
            1.0
        };
        let scaled = |dispersion: f64| 1.0 + (dispersion - 1.0) * size;
        (scaled(within), scaled(between), freedom)
    }

    /// What all grown instances together say, and without instance `left_out`.
    pub fn standing(&self, left_out: Option<usize>) -> Standing {
        let (within, between, freedom) = self.dispersion();
        let mut sums = self.sums;
        if let Some(one) = left_out.and_then(|id| self.candidate.get(id)) {
            sums.total -= one.total;
            sums.events -= one.events;
            sums.strict = sums.strict.without(one.strict);
            sums.plain = sums.plain.without(one.plain);
        }
        if self.is_rare() {
            self.remember(&mut sums);
        }
        let tail = |moments: Moments, dispersion: f64| {
            let scaled = |value: f64| value / dispersion;
            upper_tail_z(
                scaled(sums.events),
                scaled(moments.mean),
                scaled(moments.variance),
            )
        };
        let strict = tail(sums.strict, within);
        // Only what exceeds independence is estimated.
        let estimated = 1.0 - 1.0 / between;
        let freedom = freedom / (estimated * estimated).max(1e-6);
        let plain =
            normal_of_student(tail(sums.plain, between), freedom) - ESTIMATE_COSTS_Z * estimated;
        Standing {
            z: strict.min(plain),
            strict,
            within,
            between,
        }
    }

    /// Whether the baseline beside the candidate has too few events to know its rate by.
    fn is_rare(&self) -> bool {
        self.params.variance == Variance::Poisson
            && self.baseline_events < RARE_EVENTS
            && self.before.total > 0.0
    }

    /// Adds the baseline's history to what it did beside the candidate: where events are that
    /// rare, a rate that drifted and one that did not can't be told apart anyway.
    fn remember(&self, sums: &mut Sums) {
        let beside = Beside {
            total: self.baseline_total + self.before.total,
            events: self.baseline_events + self.before.events,
            tolerated: self.baseline_events + self.before.events,
        };
        let all = self.block(sums.total, sums.events, beside);
        sums.strict = all.strict;
        sums.plain = all.plain;
    }

    /// The candidate instance with the greatest excess.
    pub fn worst(&self) -> Option<usize> {
        let excess = |one: &Sums| one.events - one.strict.mean;
        let ids = (0..).zip(&self.candidate);
        let served = ids.filter(|(_, one)| one.total > 0.0);
        let worst = served.max_by(|a, b| excess(a.1).total_cmp(&excess(b.1)));
        worst.map(|(id, _)| id)
    }

    /// The candidate's minutes so far, the one being filled included. The tolerated rate of each
    /// is the baseline's over as many minutes around it as hold `events` of its events.
    pub fn minutes(&self, events: f64) -> Vec<EventBin> {
        let mut minutes = self.bins.clone();
        if self.bin.candidate.total > 0.0 && self.bin.baseline_total > 0.0 {
            minutes.push(self.bin.minute());
        }
        let mut upto = vec![(0.0, 0.0)];
        let (mut tolerated, mut total) = (0.0, 0.0);
        for minute in &minutes {
            tolerated += minute.tolerated;
            total += minute.baseline_total;
            upto.push((tolerated, total));
        }
        let near = |at: usize| {
            let mut reach = 0;
            loop {
                let low = at.saturating_sub(reach);
                let high = (at + reach + 1).min(minutes.len());
                let (from, to) = (upto.get(low).copied(), upto.get(high).copied());
                let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
                let found = (to.0 - from.0, to.1 - from.1);
                if found.0 >= events || (low == 0 && high == minutes.len()) {
                    return (found.0 + 0.1) / found.1.max(1e-9);
                }
                reach += 1;
            }
        };
        let bins = minutes.iter().enumerate().map(|(at, minute)| EventBin {
            tolerated: near(at) * self.params.ratio + self.params.difference,
            ..minute.candidate
        });
        bins.collect()
    }
}

impl Bin {
    fn minute(&self) -> Minute {
        Minute {
            candidate: self.candidate,
            tolerated: self.tolerated,
            baseline_total: self.baseline_total,
        }
    }
}

/// The baseline in one block.
#[derive(Clone, Copy)]
struct Beside {
    total: f64,
    events: f64,
    tolerated: f64,
}

impl Instance {
    fn count(&self) -> Count {
        Count {
            total: self.total,
            events: self.events,
        }
    }
}

pub(crate) fn add_count(counts: &mut Vec<Count>, id: usize, total: f64, events: f64) {
    if id >= INSTANCES_MAX {
        return;
    }
    if counts.len() <= id {
        counts.resize(id + 1, Count::default());
    }
    if let Some(count) = counts.get_mut(id) {
        count.total += total;
        count.events += events;
    }
}

fn mean_size(cells: &[Count]) -> f64 {
    let sizes = cells
        .iter()
        .map(|cell| cell.total)
        .filter(|total| *total > 0.0);
    let (sum, count) = sizes.fold((0.0, 0.0), |(sum, count), total| (sum + total, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// An estimate of dispersion drawn towards `prior`, never below 1.
fn shrunk(chi: Chi, prior: f64, prior_freedom: f64) -> f64 {
    let estimate = (chi.squared + prior * prior_freedom) / (chi.freedom + prior_freedom);
    if estimate.is_finite() {
        estimate.max(1.0)
    } else {
        1.0
    }
}

/// The instance whose events the others can't explain, judged by the others alone.
fn outlier(
    counts: &[Count],
    is_left_out: impl Fn(usize) -> bool,
    variance: Variance,
) -> Option<usize> {
    let cells = || {
        let all = (0..).zip(counts);
        all.filter(|(id, one)| one.total > 0.0 && !is_left_out(*id))
    };
    if cells().count() < 8 {
        return None;
    }
    let total: f64 = cells().map(|(_, one)| one.total).sum();
    let events: f64 = cells().map(|(_, one)| one.events).sum();
    let z = |one: &Count| {
        let rate = (events - one.events).max(0.5) / (total - one.total).max(1.0);
        (one.events - one.total * rate) / (one.total * rate).max(0.5).sqrt()
    };
    let (bad, worst) = cells().max_by(|a, b| z(a.1).total_cmp(&z(b.1)))?;
    let rest: Vec<Count> = cells()
        .filter(|(id, _)| *id != bad)
        .map(|(_, one)| *one)
        .collect();
    let spread = dispersion::chi_squared(&rest, variance).map_or(1.0, |(chi, free)| chi / free);
    let is_far = z(worst) / spread.max(1.0).sqrt() > ASIDE_Z;
    (is_far && worst.events >= ASIDE_EVENTS).then_some(bad)
}
