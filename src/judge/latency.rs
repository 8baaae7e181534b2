//! Latency quantiles compared.
//!
//! "The candidate's quantile is at most `1 + relative` times the baseline's" is tested on
//! bucket counts: how many of the candidate's requests exceed the tolerated multiple of the
//! baseline's past quantile, against how many of the baseline's exceed the quantile itself.
//! An absolute margin is turned into a relative one at the baseline's quantile. Both sides
//! are brought to the coarser of their resolutions. The warm-up is no evidence; there is no
//! guard, since cold caches make the first minutes slow in good releases too.

use slogate_series::Histogram;
use slogate_stats::buckets::{Boundaries, BucketCounts};
use slogate_stats::dispersion::{self, Count, Variance};
use slogate_stats::{BucketBlock, Direction, ExceedanceTest, ExceedanceTestParams};

use super::arms::Pair;
use super::compare::{Look, Sides, result};
use super::errors::{Decision, Weights, against, tolerance};
use super::words;
use crate::model::{ArmCounts, BaselineKind, CheckResult, Evidence, Reason, TimeRange};
use crate::policy::{Check, CompareCheck, Margin};

/// Answers a check on a latency quantile.
pub(crate) fn answer(
    look: &Look<'_>,
    check: &Check,
    compare: &CompareCheck,
    quantile: f64,
    sides: &Sides<'_, Histogram>,
) -> CheckResult {
    let pairs = &sides.pairs.pairs;
    let candidate = total(pairs.iter().filter_map(|pair| pair.candidate));
    let theirs = total(pairs.iter().filter_map(|pair| pair.baseline));
    let past = total(sides.history.iter().copied());
    let known = if past.count > 0.0 { &past } else { &theirs };
    let at = known.quantile(quantile);
    let relative = relative_margin(&compare.worse_by, at);

    let mut weights = Weights::levels(look, check, false);
    let phi = dispersion_of(sides, at);
    let run = |direction| {
        let params = ExceedanceTestParams {
            worse_by_relative: match direction {
                Direction::Worse => relative,
                Direction::NotWorse => relative_margin(&compare.pass_within, at),
            },
            quantiles: vec![quantile],
            dispersion: phi,
            direction,
        };
        walk(params, &past, pairs).unwrap_or((0.0, 0.0))
    };
    (weights.worse_now, weights.worse) = run(Direction::Worse);
    (_, weights.not_worse) = run(Direction::NotWorse);
    // Without a guard its evidence stays at zero, below any level.
    let decision = weights.decide(sides, candidate.count, theirs.count, compare.min_events);

    let limit = theirs.quantile(quantile).map(|at| at * (1.0 + relative));
    let finite = |value: f64| value.is_finite().then_some(value);
    let (mine, base) = (
        arm(&candidate, quantile, limit),
        arm(&theirs, quantile, theirs.quantile(quantile)),
    );
    let both = mine.quantile.zip(base.quantile);
    let evidence = Evidence {
        data: Some(TimeRange {
            start_ms: look.from_ms,
            end_ms: look.now_ms,
        }),
        baseline: Some(sides.baseline.clone()),
        candidate_counts: Some(mine),
        baseline_counts: Some(base),
        ratio: both.and_then(|(mine, theirs)| finite(mine / theirs)),
        difference: both.and_then(|(mine, theirs)| finite(mine - theirs)),
        tolerance: Some(tolerance(compare, words::seconds)),
        log_e_worse: finite(weights.worse),
        log_e_not_worse: finite(weights.not_worse),
        log_e_fail_at: finite(weights.fail_at),
        log_e_pass_at: finite(weights.pass_at),
        dispersion: finite(phi),
        warnings: sides.warnings.clone(),
        ..Evidence::default()
    };
    let message = sentence(&decision, &evidence, quantile, sides);
    result(check, decision.verdict, decision.reason, message, evidence)
}

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

/// How much burstier than independent requests the baseline's slow ones are.
fn dispersion_of(sides: &Sides<'_, Histogram>, threshold: Option<f64>) -> f64 {
    let Some(threshold) = threshold else {
        return 1.0;
    };
    let beside = sides.pairs.pairs.iter().filter_map(|pair| pair.baseline);
    let known: Vec<&Histogram> = match sides.pairs.kind {
        BaselineKind::Concurrent => sides.history.iter().copied().chain(beside).collect(),
        BaselineKind::Historical => sides.history.clone(),
    };
    let counts = known.iter().map(|histogram| Count {
        total: histogram.count,
        events: (histogram.count - histogram.count_at_most(threshold)).max(0.0),
    });
    dispersion::over_time(&counts.collect::<Vec<_>>(), Variance::Binomial)
}

/// The evidence now and at its highest; `None` for parameters that no test accepts, which a
/// parsed policy can't hold.
fn walk(
    params: ExceedanceTestParams,
    past: &Histogram,
    pairs: &[Pair<'_, Histogram>],
) -> Option<(f64, f64)> {
    let mut test = ExceedanceTest::new(params).ok()?;
    if past.count > 0.0
        && let Some(boundaries) = boundaries(past)
    {
        // History that no test can use is as good as none.
        let _ = test.learn(&boundaries, counts(past));
    }
    let nothing = Histogram::default();
    for pair in pairs {
        let (mine, theirs) = (
            pair.candidate.unwrap_or(&nothing),
            pair.baseline.unwrap_or(&nothing),
        );
        let (mine, theirs) = same_resolution(mine, theirs);
        let of = if mine.count > 0.0 { &mine } else { &theirs };
        let Some(boundaries) = boundaries(of) else {
            continue;
        };
        // A block whose boundaries do not fit together says nothing.
        let _ = test.push(&BucketBlock {
            boundaries: &boundaries,
            candidate: counts(&mine),
            baseline: counts(&theirs),
        });
    }
    Some((test.log_e(), test.log_e_max()))
}

fn same_resolution(a: &Histogram, b: &Histogram) -> (Histogram, Histogram) {
    if a.count > 0.0 && b.count > 0.0 && !a.has_custom_bounds() && !b.has_custom_bounds() {
        let schema = a.schema.min(b.schema);
        return (a.at_schema(schema), b.at_schema(schema));
    }
    (a.clone(), b.clone())
}

fn boundaries(histogram: &Histogram) -> Option<Boundaries> {
    if histogram.has_custom_bounds() {
        return Boundaries::explicit(&histogram.custom_bounds).ok();
    }
    Boundaries::exponential(histogram.schema).ok()
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

fn sentence(
    decision: &Decision,
    evidence: &Evidence,
    quantile: f64,
    sides: &Sides<'_, Histogram>,
) -> String {
    let candidate = evidence.candidate_counts.unwrap_or_default();
    let baseline = evidence.baseline_counts.unwrap_or_default();
    let name = format!("P{}", words::ratio(quantile * 100.0));
    let at = |counts: &ArmCounts| counts.quantile.map_or("nothing".to_owned(), words::seconds);
    let beside = against(sides);
    let tolerated = evidence.tolerance.as_deref().unwrap_or_default();
    let facts = format!(
        "{} against {} on {beside} ({} and {} requests)",
        at(&candidate),
        at(&baseline),
        words::count(candidate.total),
        words::count(baseline.total)
    );
    match decision.reason {
        Reason::WorseThanBaseline => format!("{name}: {facts}; tolerated is {tolerated}."),
        Reason::NotWorseThanBaseline => {
            format!("{name}: {facts}, which is within what is tolerated: {tolerated}.")
        }
        Reason::WarmingUp => format!("{name}: warming up."),
        Reason::Stale => format!("{name}: the candidate has sent nothing new for 5 minutes."),
        Reason::NoBaseline => format!("{name}: {beside} has served nothing to compare with."),
        Reason::InsufficientData => format!("{name}: {facts}, too few to tell."),
        _ => format!("{name}: {facts}, which shows neither yet; tolerated is {tolerated}."),
    }
}
