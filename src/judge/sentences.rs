//! What a comparing check says: what was seen, how sure that is, and what would change it.
//!
//! One sentence per answer, built from its evidence alone, so that the words and the numbers can't
//! part. In this order: both sides' figures with how many requests they rest on; how far apart
//! they are with what confidence; what is tolerated; and what comes next.
//!
//! - A fail holds for the whole rollout, so what changes it is another release.
//! - A pass is taken back when the evidence turns: the sentence says beyond which figure.
//! - An undecided check says what it waits for; [`super::outlook`] adds how long that takes.
//! - A baseline known only from before the deployment is weaker evidence, and every sentence that
//!   rests on one says so: what else changed since then is not told from the release.
//!
//! Answers that rest on no counts (no data, a source that failed) have words of their own, in
//! [`super::compare`].

use super::words;
use crate::model::time::humanize_ms;
use crate::model::{ArmCounts, BaselineKind, Evidence, Interval, Reason};
use crate::policy::{CompareCheck, CompareSli, Gate, Margin};

/// The sentence of an answer that rests on counts of both sides; `reason` is why it answers so.
pub(crate) fn compared(
    reason: Reason,
    evidence: &Evidence,
    compare: &CompareCheck,
    gate: &Gate,
) -> String {
    let compared = Compared {
        compare,
        gate,
        evidence,
        candidate: evidence.candidate_counts.unwrap_or_default(),
        baseline: evidence.baseline_counts.unwrap_or_default(),
    };
    compared.sentence(reason)
}

/// What is tolerated and, where that is another margin, what a pass certifies.
pub(crate) fn tolerance(compare: &CompareCheck) -> String {
    let tolerated = margin(&compare.worse_by, compare.sli);
    if compare.pass_within == compare.worse_by {
        return tolerated;
    }
    let certified = margin(&compare.pass_within, compare.sli);
    format!("{tolerated}; a pass certifies {certified}")
}

fn margin(margin: &Margin, sli: CompareSli) -> String {
    let relative = margin.relative.filter(|share| *share > 0.0);
    let absolute = margin.absolute.filter(|value| *value > 0.0);
    let absolute = absolute.map(|value| match sli {
        CompareSli::ErrorRatio => words::points(value),
        CompareSli::Duration { .. } => words::seconds(value),
    });
    match (relative.map(words::percent), absolute) {
        (Some(relative), Some(absolute)) => {
            format!("at most {relative} of the baseline plus {absolute} worse")
        }
        (Some(relative), None) => format!("at most {relative} of the baseline worse"),
        (None, Some(absolute)) => format!("at most {absolute} worse"),
        (None, None) => "no worse at all".to_owned(),
    }
}

struct Compared<'a> {
    compare: &'a CompareCheck,
    gate: &'a Gate,
    evidence: &'a Evidence,
    candidate: ArmCounts,
    baseline: ArmCounts,
}

impl Compared<'_> {
    fn sentence(&self, reason: Reason) -> String {
        let (name, facts) = (self.name(), self.facts());
        let tolerated = margin(&self.compare.worse_by, self.compare.sli);
        let sentence = match reason {
            Reason::WorseThanBaseline => format!(
                "{name}: {facts}{}; tolerated is {tolerated}. Only another release changes that.",
                self.how_far()
            ),
            Reason::NotWorseThanBaseline => format!(
                "{name}: {facts}, with {} confidence {}{}.",
                words::confidence(1.0 - self.gate.false_passes),
                margin(&self.compare.pass_within, self.compare.sli),
                self.turning_point()
            ),
            Reason::WarmingUp => format!(
                "{name} so far: {facts}. No pass rests on the first {} of traffic.",
                humanize_ms(self.gate.warm_up_ms)
            ),
            Reason::InsufficientData => format!(
                "{name}: {facts}, too few to tell: a pass needs {}.",
                words::count(self.compare.min_events as f64)
            ),
            Reason::Stale => format!(
                "{name}: {facts}, and nothing new from the candidate for 5 minutes; judging goes \
                 on when there is."
            ),
            Reason::NoBaseline => format!(
                "{name}: {facts}: there is nothing to compare with until the baseline serves \
                 requests."
            ),
            Reason::InstanceSuspect => format!(
                "{name}: {facts}, but one instance alone is behind it, {}: look at that one, not \
                 at the version. A second one like it would count against the version.",
                self.evidence.suspects.join(", ")
            ),
            // Known where the difference is beyond its boundary, and held back.
            _ if self.evidence.log_staying.is_some() => format!(
                "{name}: {facts}, more than tolerated, but it may pass as instances warm up; \
                 tolerated is {tolerated}."
            ),
            _ => format!("{name}: {facts}, which shows neither yet; tolerated is {tolerated}."),
        };
        sentence + self.caveat()
    }

    fn name(&self) -> String {
        match self.quantile() {
            None => "Errors".to_owned(),
            Some(quantile) => format!("P{}", words::ratio(quantile * 100.0)),
        }
    }

    fn quantile(&self) -> Option<f64> {
        self.compare.sli.shown_quantile()
    }

    /// `1.9 % against 0.2 % on 4.1.7 (11,204 and 203,118 requests)`.
    fn facts(&self) -> String {
        let figure = |counts: &ArmCounts| {
            let value = self.value(counts);
            value.map_or("nothing".to_owned(), |value| self.in_words(value))
        };
        let baseline = self.evidence.baseline.as_ref();
        let name = baseline.map_or("the baseline".to_owned(), |it| it.artifact.to_string());
        let when = match self.is_history() {
            true => " before the deployment",
            false => "",
        };
        format!(
            "{} against {} on {name}{when} ({} and {} requests)",
            figure(&self.candidate),
            figure(&self.baseline),
            words::count(self.candidate.total),
            words::count(self.baseline.total)
        )
    }

    fn value(&self, counts: &ArmCounts) -> Option<f64> {
        match self.quantile() {
            None => counts.rate,
            Some(_) => counts.quantile,
        }
    }

    fn in_words(&self, value: f64) -> String {
        match self.quantile() {
            None => words::percent(value),
            Some(_) => words::seconds(value),
        }
    }

    /// `, 9.4 times as much, at least 6.1 times with 99.5 % confidence`.
    fn how_far(&self) -> String {
        let times = self.evidence.ratio.filter(|ratio| *ratio > 1.0);
        let seen = times.map(|ratio| format!(", {} times as much", words::ratio(ratio)));
        let at_least = |interval: Interval| {
            let low = interval.low.filter(|low| *low > 1.0)?;
            let sure = words::confidence(interval.confidence);
            Some(format!(
                ", at least {} times with {sure} confidence",
                words::ratio(low)
            ))
        };
        let least = self.evidence.ratio_interval.and_then(at_least);
        seen.unwrap_or_default() + &least.unwrap_or_default()
    }

    /// Beyond what a passing check would fail.
    fn turning_point(&self) -> String {
        let Some(baseline) = self.value(&self.baseline) else {
            return String::new();
        };
        let worse_by = &self.compare.worse_by;
        let relative = 1.0 + worse_by.relative.unwrap_or(0.0);
        let beyond = baseline * relative + worse_by.absolute.unwrap_or(0.0);
        format!("; lastingly above {} it would fail", self.in_words(beyond))
    }

    fn is_history(&self) -> bool {
        let kind = self.evidence.baseline.as_ref().map(|it| it.kind);
        kind == Some(BaselineKind::Historical)
    }

    fn caveat(&self) -> &'static str {
        match self.is_history() {
            true => {
                " That is weaker evidence than beside it: what else has changed since counts as \
                 the release's."
            }
            false => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Artifact, Baseline, TimeRange};
    use crate::policy::{self, Check, CheckSpec};

    const GATE: &str = r#"
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: canary }
spec:
  checks:
    - name: errors
      compare:
        sli: requests.errorRatio
        worseBy: { absolute: 0.1%, relative: 25% }
        passWithin: { absolute: 0.2%, relative: 50% }
    - name: latency
      compare: { sli: requests.duration, quantile: 0.95, worseBy: { relative: 10% } }
"#;

    fn gate() -> Gate {
        let gates = policy::parse("test.yaml", GATE).expect("a valid gate");
        gates.into_iter().next().expect("one gate")
    }

    fn compare(check: &Check) -> &CompareCheck {
        match &check.spec {
            CheckSpec::Compare(compare) => compare,
            other => panic!("a compare check, not {other:?}"),
        }
    }

    fn evidence(kind: BaselineKind) -> Evidence {
        let arm = |total: f64, bad: f64, seconds: f64| ArmCounts {
            total,
            bad,
            rate: Some(bad / total),
            quantile: Some(seconds),
        };
        Evidence {
            baseline: Some(Baseline {
                artifact: Artifact {
                    version: Some("4.1.7".into()),
                    ..Artifact::default()
                },
                kind,
                data: TimeRange {
                    start_ms: 0,
                    end_ms: 1,
                },
            }),
            candidate_counts: Some(arm(11_204.0, 213.0, 0.25)),
            baseline_counts: Some(arm(203_118.0, 406.0, 0.2)),
            ratio: Some(9.4),
            ratio_interval: Some(Interval {
                low: Some(6.1),
                high: None,
                confidence: 0.995,
            }),
            ..Evidence::default()
        }
    }

    fn said(at: usize, reason: Reason, evidence: &Evidence) -> String {
        let gate = gate();
        compared(reason, evidence, compare(&gate.checks[at]), &gate)
    }

    #[test]
    fn says_what_was_seen_how_sure_and_what_would_change_it() {
        let beside = evidence(BaselineKind::Concurrent);
        assert_eq!(
            said(0, Reason::WorseThanBaseline, &beside),
            "Errors: 1.9 % against 0.2 % on 4.1.7 (11,204 and 203,118 requests), 9.4 times as \
             much, at least 6.1 times with 99.5 % confidence; tolerated is at most 25 % of the \
             baseline plus 0.1 points worse. Only another release changes that."
        );
        assert_eq!(
            said(0, Reason::NotWorseThanBaseline, &beside),
            "Errors: 1.9 % against 0.2 % on 4.1.7 (11,204 and 203,118 requests), with 95 % \
             confidence at most 50 % of the baseline plus 0.2 points worse; lastingly above \
             0.35 % it would fail."
        );
        assert_eq!(
            said(1, Reason::NotYetDecided, &beside),
            "P95: 250 ms against 200 ms on 4.1.7 (11,204 and 203,118 requests), which shows \
             neither yet; tolerated is at most 10 % of the baseline worse."
        );
        assert!(said(1, Reason::NotWorseThanBaseline, &beside).contains("lastingly above 220 ms"),);
    }

    #[test]
    fn history_is_said_to_be_weaker_evidence() {
        let before = evidence(BaselineKind::Historical);
        for reason in [Reason::WorseThanBaseline, Reason::NotWorseThanBaseline] {
            let sentence = said(0, reason, &before);
            assert!(
                sentence.contains("on 4.1.7 before the deployment ("),
                "{sentence}"
            );
            assert!(sentence.contains("weaker evidence"), "{sentence}");
        }
    }

    #[test]
    fn what_holds_an_answer_back_is_named() {
        let held = Evidence {
            log_staying: Some(1.0),
            suspects: vec!["pod-7".to_owned()],
            ..evidence(BaselineKind::Concurrent)
        };
        for (reason, says) in [
            (Reason::NotYetDecided, "it may pass as instances warm up"),
            (
                Reason::InstanceSuspect,
                "one instance alone is behind it, pod-7",
            ),
            (Reason::InsufficientData, "a pass needs 50"),
            (
                Reason::WarmingUp,
                "No pass rests on the first 2m of traffic",
            ),
            (
                Reason::Stale,
                "nothing new from the candidate for 5 minutes",
            ),
        ] {
            let sentence = said(0, reason, &held);
            assert!(sentence.contains(says), "{sentence}");
        }
    }

    #[test]
    fn both_margins_are_told_apart() {
        let gate = gate();
        assert_eq!(
            tolerance(compare(&gate.checks[0])),
            "at most 25 % of the baseline plus 0.1 points worse; a pass certifies at most 50 % of \
             the baseline plus 0.2 points worse"
        );
        assert_eq!(
            tolerance(compare(&gate.checks[1])),
            "at most 10 % of the baseline worse"
        );
    }
}
