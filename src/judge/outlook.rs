//! What an undecided check can still be expected to show, and when.
//!
//! "Not yet" is an answer a person has to plan with, so it comes with an estimate: how much longer
//! a pass takes, and how large a regression has to be for the rollout to show it at all before
//! `decideWithin` is over. The estimate is for a candidate that is as good as its baseline, with
//! the traffic, the baseline's rate and the dispersion seen so far; it scatters, by half or more
//! where a decision hangs on a handful of events, and no answer rests on it.
//!
//! - **Time to a pass** continues from the evidence there is: evidence that has gone the other way
//!   has to be won back first. It is at least the time until `minEvents` are there. Where no
//!   requests arrive, or the histogram's buckets are too coarse to tell the margin from nothing,
//!   there is no estimate; nor where the candidate looks worse than tolerated (by a standard
//!   deviation, or by a difference that is held back because it may be warm-up): as good as its
//!   baseline is then not what it is expected to be.
//! - **The smallest rise that can be detected** is what would fail the check with a probability
//!   of 80 % by the end, with all requests until then. It is never below what `worseBy`
//!   tolerates, and for latency not below what instances differ by. Before both sides have had
//!   requests there is none.

use slogate_series::Histogram;
use slogate_stats::CountTestParams;
use slogate_stats::Direction;
use slogate_stats::plan::{
    Power, Prospect, Shares, Tail, Traffic, smallest_rise, smallest_slowdown,
};

use super::compare::Look;
use super::words;
use crate::model::time::humanize_ms;
use crate::model::{BaselineKind, CheckResult, Outcome, Reason};
use crate::policy::{Check, CompareCheck, CompareSli, Margin};
use crate::source::blocks::{Blocks, Gathered};

/// With what probability a regression has to show to be called detectable.
const POWER: f64 = 0.8;

/// How many blocks say what the traffic is now.
const RECENT_BLOCKS: i64 = 5;

/// Adds the outlook to an answer that more data could change into a pass.
pub(crate) fn add_to(
    answer: &mut CheckResult,
    look: &Look<'_>,
    check: &Check,
    compare: &CompareCheck,
) {
    let waits = matches!(
        answer.reason,
        Reason::NotYetDecided | Reason::InsufficientData | Reason::WarmingUp
    );
    if answer.verdict != Outcome::Inconclusive || !waits {
        return;
    }
    let kind = compare.span_kind.label();
    let outlook = match compare.sli {
        CompareSli::ErrorRatio => on_errors(answer, look, check, compare, kind),
        CompareSli::Duration { .. } => {
            let quantile = compare.sli.shown_quantile().unwrap_or(0.95);
            on_latency(answer, look, check, compare, (kind, quantile))
        }
    };
    let Some(outlook) = outlook else { return };
    answer.evidence.expected_seconds_to_pass = outlook.seconds_to_pass;
    answer.evidence.smallest_detectable = outlook.smallest_detectable;
    answer.message.push(' ');
    answer.message.push_str(&outlook.sentence);
}

fn on_errors(
    answer: &CheckResult,
    look: &Look<'_>,
    check: &Check,
    compare: &CompareCheck,
    kind: &str,
) -> Option<Outlook> {
    let gathered = look.observed.requests.get(kind)?.as_ref().ok()?;
    let standing = Standing::of(answer, look, check, compare, gathered, |c| c.total)?;
    let theirs = sides(answer, look, gathered)?.1;
    let known = theirs.by_block.values();
    let (bad, all) = known.fold((0.0, 0.0), |(x, n), c| (x + c.errors, n + c.total));
    Some(standing.on_errors((bad, all), &compare.worse_by, &compare.pass_within))
}

fn on_latency(
    answer: &CheckResult,
    look: &Look<'_>,
    check: &Check,
    compare: &CompareCheck,
    (kind, quantile): (&str, f64),
) -> Option<Outlook> {
    let gathered = look.observed.durations.get(kind)?.as_ref().ok()?;
    let standing = Standing::of(answer, look, check, compare, gathered, |h| h.count)?;
    let theirs = sides(answer, look, gathered)?.1;
    let mut newest = theirs
        .by_block
        .values()
        .rev()
        .take(3 * RECENT_BLOCKS as usize);
    let first = newest.next()?.clone();
    let baseline = newest.fold(first, |sum, next| sum.add(next));
    let at = baseline.quantile(quantile).filter(|at| *at > 0.0);
    let relative = |margin: &Margin| {
        let absolute = margin.absolute.zip(at).map_or(0.0, |(s, at)| s / at);
        (margin.relative.unwrap_or(0.0) + absolute).min(100.0)
    };
    let (worse_by, pass_within) = (relative(&compare.worse_by), relative(&compare.pass_within));
    let (spread, instances) = (
        answer.evidence.spread.unwrap_or(0.0),
        answer.evidence.instances,
    );
    let of = |count: usize| 1.0 / count.max(1) as f64;
    let (mine, theirs) = instances.map_or((1, 1), |seen| (seen.candidate, seen.baseline));
    let spread = spread * (of(mine) + of(theirs)).sqrt();
    Some(standing.on_latency(&baseline, quantile, worse_by, pass_within, spread))
}

/// The blocks of the candidate and of the baseline it was compared with.
fn sides<'d, T>(
    answer: &CheckResult,
    look: &Look<'_>,
    gathered: &'d Gathered<T>,
) -> Option<(&'d Blocks<T>, &'d Blocks<T>)> {
    let candidate = look.subject.deployment.artifact.version.as_deref()?;
    let baseline = answer
        .evidence
        .baseline
        .as_ref()?
        .artifact
        .version
        .as_deref()?;
    let of = |version: &str| gathered.versions.get(version);
    Some((of(candidate)?, of(baseline)?))
}

/// Where a check stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Requests to the candidate and to the baseline that count as evidence.
    pub(crate) totals: (f64, f64),
    /// Requests a second now.
    pub(crate) traffic: Traffic,
    /// Without so many requests to the candidate there is no pass.
    pub(crate) min_events: u64,
    /// How much the evidence is discounted for bursts.
    pub(crate) dispersion: f64,
    /// Evidence for a pass now, and the level it has to reach.
    pub(crate) log_e_not_worse: f64,
    pub(crate) log_e_pass_at: f64,
    /// The check's share of the gate's false alarms.
    pub(crate) false_alarms: f64,
    /// Whether the candidate looks worse than tolerated so far.
    pub(crate) looks_worse: bool,
    /// How much longer the candidate warms up, and nothing counts for a pass.
    pub(crate) warming_ms: i64,
    /// Until `decideWithin` is over.
    pub(crate) left_ms: i64,
    /// The whole of `decideWithin`.
    pub(crate) decide_within_ms: i64,
}

/// The estimate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outlook {
    /// Seconds until a pass can be expected.
    pub(crate) seconds_to_pass: Option<f64>,
    /// The smallest rise over the baseline that would show, in the indicator's unit.
    pub(crate) smallest_detectable: Option<f64>,
    /// Both in words.
    pub(crate) sentence: String,
}

impl Standing {
    /// `None` where something is not known that any outlook needs.
    fn of<T>(
        answer: &CheckResult,
        look: &Look<'_>,
        check: &Check,
        compare: &CompareCheck,
        gathered: &Gathered<T>,
        total: impl Fn(&T) -> f64,
    ) -> Option<Standing> {
        let (mine, theirs) = sides(answer, look, gathered)?;
        let (evidence, grid) = (&answer.evidence, gathered.grid);
        let end = grid.end(look.now_ms);
        // The baseline of history brings as much with each of the candidate's blocks.
        let their_end = match evidence.baseline.as_ref()?.kind {
            BaselineKind::Concurrent => end,
            BaselineKind::Historical => grid.block_of(look.from_ms + 1),
        };
        let per_second = |blocks: &Blocks<T>, end: i64| {
            let first = blocks.by_block.keys().next().copied().unwrap_or(end);
            let from = first.max(end - RECENT_BLOCKS);
            let seen: f64 = blocks
                .by_block
                .range(from..end.max(from))
                .map(|(_, t)| total(t))
                .sum();
            let seconds = (end - from) as f64 * grid.block_ms as f64 / 1000.0;
            if seconds > 0.0 { seen / seconds } else { 0.0 }
        };
        let age_ms = look.now_ms - look.from_ms;
        Some(Standing {
            totals: (
                evidence.candidate_counts?.total,
                evidence.baseline_counts?.total,
            ),
            traffic: Traffic {
                candidate_per_second: per_second(mine, end),
                baseline_per_second: per_second(theirs, their_end),
            },
            min_events: compare.min_events,
            dispersion: evidence.dispersion.unwrap_or(1.0).max(1.0),
            log_e_not_worse: evidence.log_e_not_worse.unwrap_or(0.0),
            log_e_pass_at: evidence
                .log_e_pass_at
                .unwrap_or(-look.gate.false_passes.ln()),
            false_alarms: look.false_alarms(check),
            looks_worse: evidence.log_staying.is_some() || evidence.z.is_some_and(|z| z >= 1.0),
            warming_ms: match answer.reason {
                Reason::WarmingUp => (look.gate.warm_up_ms - age_ms).max(0),
                _ => 0,
            },
            left_ms: look.gate.decide_within_ms - age_ms,
            decide_within_ms: look.gate.decide_within_ms,
        })
        .filter(|standing| standing.left_ms > 0)
    }

    /// The outlook of a check on error ratios; `baseline` is events and requests of all that is
    /// known of the baseline.
    pub(crate) fn on_errors(
        &self,
        baseline: (f64, f64),
        worse_by: &Margin,
        pass_within: &Margin,
    ) -> Outlook {
        // Half an event in five hundred requests keeps the rate above nothing while little is
        // known.
        let rate = ((baseline.0 + 0.5) / (baseline.1 + 500.0)).clamp(0.0, 1.0);
        let params = |margin: &Margin, direction| CountTestParams {
            ratio: 1.0 + margin.relative.unwrap_or(0.0),
            difference: margin.absolute.unwrap_or(0.0),
            dispersion: self.dispersion,
            direction,
        };
        // What no test accepts, a parsed policy can't hold.
        let within = params(pass_within, Direction::NotWorse);
        let prospect = Prospect::of_counts(&within, self.traffic, rate, rate);
        let beyond = params(worse_by, Direction::Worse);
        let (mine, theirs) = self.totals_at_end();
        let rise = smallest_rise(&beyond, mine, theirs, rate, self.power());
        self.outlook(prospect.ok().flatten(), rise.ok().flatten(), words::points)
    }

    /// The outlook of a check on a latency quantile. `baseline` is all that is known of the
    /// baseline's durations; the margins are relative to its quantile; `spread` is by how much
    /// instances make the two sides differ, as a standard deviation on a log scale.
    pub(crate) fn on_latency(
        &self,
        baseline: &Histogram,
        quantile: f64,
        worse_by: f64,
        pass_within: f64,
        spread: f64,
    ) -> Outlook {
        let at = baseline.quantile(quantile);
        let known = at.filter(|at| *at > 0.0 && at.is_finite() && baseline.count > 0.0);
        let Some(at) = known else {
            return self.outlook(None, None, words::seconds);
        };
        let above = |seconds: f64| 1.0 - baseline.count_at_most(seconds) / baseline.count;
        let shares = Shares {
            baseline: above(at),
            candidate: above(at * (1.0 + pass_within)),
        };
        let direction = Direction::NotWorse;
        let prospect = Prospect::of_exceedances(self.traffic, shares, self.dispersion, direction);

        // A slope over a tenth, which is wider than any fine bucket.
        const STEP: f64 = 1.1;
        let further = above(at * STEP).max(0.5 / baseline.count);
        let tail = Tail {
            share: shares.baseline,
            slope: (shares.baseline / further).ln() / STEP.ln(),
            dispersion: self.dispersion,
            spread,
        };
        let (mine, theirs) = self.totals_at_end();
        let slowdown = smallest_slowdown(worse_by, mine, theirs, tail, self.power());
        let rise = slowdown.ok().flatten().map(|slowdown| slowdown * at);
        self.outlook(prospect.ok().flatten(), rise, words::seconds)
    }

    fn power(&self) -> Power {
        Power {
            alpha: self.false_alarms.min(0.5),
            power: POWER,
        }
    }

    fn totals_at_end(&self) -> (f64, f64) {
        let left_s = seconds(self.left_ms);
        let at_end = |total: f64, per_second: f64| total + left_s * per_second;
        (
            at_end(self.totals.0, self.traffic.candidate_per_second),
            at_end(self.totals.1, self.traffic.baseline_per_second),
        )
    }

    fn outlook(
        &self,
        prospect: Option<Prospect>,
        rise: Option<f64>,
        in_words: fn(f64) -> String,
    ) -> Outlook {
        let expected = prospect.filter(|_| !self.looks_worse);
        let evidence = expected.and_then(|prospect| {
            prospect.seconds_between(self.log_e_not_worse, self.log_e_pass_at)
        });
        let missing = (self.min_events as f64 - self.totals.0).max(0.0);
        let per_second = self.traffic.candidate_per_second;
        let events = (per_second > 0.0).then(|| missing / per_second);
        let warming_s = seconds(self.warming_ms);
        let seconds_to_pass = evidence.zip(events).map(|(a, b)| warming_s + a.max(b));
        let sentence = format!(
            "{} {}",
            self.when(seconds_to_pass),
            self.how_small(rise, in_words)
        );
        Outlook {
            seconds_to_pass,
            smallest_detectable: rise,
            sentence,
        }
    }

    fn when(&self, seconds_to_pass: Option<f64>) -> String {
        let per_second = self.traffic.candidate_per_second;
        if per_second <= 0.0 {
            return "No requests reach the new version now, so nothing more can be shown.".into();
        }
        if self.traffic.baseline_per_second <= 0.0 {
            return "Nothing more is known of the baseline now, so nothing more can be shown."
                .into();
        }
        let at = format!("At {} to the new version", words::per_second(per_second));
        match seconds_to_pass {
            None if self.looks_worse => "As it looks now no pass is in sight.".to_owned(),
            None => format!("{at} no time is enough for a pass with this margin."),
            Some(more) if more <= seconds(self.left_ms) => {
                format!("{at} a pass takes about {} more.", words::about(more))
            }
            Some(more) => format!(
                "{at} a pass would take about {} more, longer than the {} left.",
                words::about(more),
                humanize_ms(self.left_ms)
            ),
        }
    }

    fn how_small(&self, rise: Option<f64>, in_words: fn(f64) -> String) -> String {
        let within = humanize_ms(self.decide_within_ms);
        match rise {
            Some(rise) => format!(
                "Within {within} a rise of {} can be seen, a smaller one can't.",
                in_words(rise)
            ),
            None => format!("Within {within} no rise can be seen."),
        }
    }
}

fn seconds(ms: i64) -> f64 {
    ms.max(0) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use slogate_series::{Buckets, histogram};

    fn standing(candidate_per_second: f64, baseline_per_second: f64) -> Standing {
        Standing {
            totals: (candidate_per_second * 600.0, baseline_per_second * 600.0),
            traffic: Traffic {
                candidate_per_second,
                baseline_per_second,
            },
            min_events: 50,
            dispersion: 1.0,
            log_e_not_worse: 0.0,
            log_e_pass_at: 20.0_f64.ln(),
            false_alarms: 0.005,
            looks_worse: false,
            warming_ms: 0,
            left_ms: 3_000_000,
            decide_within_ms: 3_600_000,
        }
    }

    fn margin(relative: f64, absolute: f64) -> Margin {
        Margin {
            relative: Some(relative),
            absolute: Some(absolute),
        }
    }

    fn errors(standing: &Standing) -> Outlook {
        standing.on_errors((100.0, 100_000.0), &margin(0.1, 0.0), &margin(0.5, 0.002))
    }

    #[test]
    fn says_how_long_and_how_small() {
        let found = errors(&standing(3.0, 57.0));
        let more = found.seconds_to_pass.expect("reached");
        assert!(more > 300.0 && more < 3_000.0, "{found:?}");
        let rise = found.smallest_detectable.expect("shows");
        assert!(rise > 0.000_1 && rise < 0.01, "{found:?}");
        let start = "At 3 requests a second to the new version a pass takes about ";
        assert!(found.sentence.starts_with(start), "{}", found.sentence);
        assert!(
            found.sentence.contains("Within 1h a rise of 0."),
            "{}",
            found.sentence
        );
        assert!(
            found
                .sentence
                .ends_with(" points can be seen, a smaller one can't.")
        );
    }

    #[test]
    fn little_traffic_is_said_to_be_too_little() {
        let found = errors(&standing(0.05, 0.95));
        assert!(
            found
                .sentence
                .starts_with("At 3 requests a minute to the new version a pass would take about "),
            "{}",
            found.sentence
        );
        assert!(
            found.sentence.contains("longer than the 50m left"),
            "{}",
            found.sentence
        );
        let none = errors(&standing(0.0, 9.0));
        assert_eq!(
            (none.seconds_to_pass, none.smallest_detectable),
            (None, None)
        );
        assert!(
            none.sentence.starts_with("No requests reach"),
            "{}",
            none.sentence
        );
        let worse = Standing {
            looks_worse: true,
            ..standing(9.0, 90.0)
        };
        let worse = errors(&worse);
        assert_eq!(worse.seconds_to_pass, None);
        assert!(
            worse
                .sentence
                .starts_with("As it looks now no pass is in sight. Within")
        );
        let alone = errors(&standing(9.0, 0.0));
        assert!(
            alone
                .sentence
                .starts_with("Nothing more is known of the baseline")
        );
    }

    #[test]
    fn more_traffic_shortens_and_sharpens() {
        let (few, many) = (errors(&standing(2.0, 38.0)), errors(&standing(20.0, 380.0)));
        assert!(many.seconds_to_pass < few.seconds_to_pass);
        assert!(many.smallest_detectable < few.smallest_detectable);
        let bursts = Standing {
            dispersion: 4.0,
            ..standing(20.0, 380.0)
        };
        assert!(errors(&bursts).seconds_to_pass > many.seconds_to_pass);
        let nearly = Standing {
            log_e_not_worse: 2.5,
            ..standing(20.0, 380.0)
        };
        assert!(errors(&nearly).seconds_to_pass < many.seconds_to_pass);
        let there = Standing {
            log_e_not_worse: 9.0,
            min_events: 24_000,
            ..nearly
        };
        assert_eq!(
            errors(&there).seconds_to_pass,
            Some(600.0),
            "minEvents are missing"
        );
    }

    /// Latencies that thin out by an eighth from bucket to bucket of 4.4 %.
    fn durations(total: f64) -> Histogram {
        let low = histogram::bucket_index(4, 0.05);
        let share = |at: i32| 0.125 * 0.875f64.powi(at);
        let buckets = (0..60).map(|at| (low + at, (total * share(at)).floor()));
        let buckets: Vec<_> = buckets.collect();
        Histogram {
            schema: 4,
            count: buckets.iter().map(|(_, count)| count).sum(),
            positive: Buckets::from_sorted(buckets),
            ..Histogram::default()
        }
    }

    #[test]
    fn latency_is_in_seconds_and_no_better_than_its_margin() {
        let known = durations(100_000.0);
        let at = known.quantile(0.95).expect("has observations");
        let found = standing(5.0, 95.0).on_latency(&known, 0.95, 0.05, 0.2, 0.0);
        let rise = found.smallest_detectable.expect("shows");
        assert!(rise > 0.05 * at && rise < 0.2 * at, "{found:?}");
        assert!(
            found.seconds_to_pass.is_some_and(|more| more > 10.0),
            "{found:?}"
        );
        let spread = standing(5.0, 95.0).on_latency(&known, 0.95, 0.05, 0.2, 0.1);
        assert!(spread.smallest_detectable > found.smallest_detectable);
        let unknown = standing(5.0, 95.0).on_latency(&Histogram::default(), 0.95, 0.05, 0.2, 0.0);
        assert_eq!(
            (unknown.seconds_to_pass, unknown.smallest_detectable),
            (None, None)
        );
    }
}
