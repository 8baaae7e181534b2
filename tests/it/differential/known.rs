//! Where Prometheus 2.42 and Prometheus 3 differ, and slogate is as Prometheus 3.

use regex::Regex;

/// Queries that Prometheus 2.42 may answer differently, by a pattern of the query, and why.
const CHANGED: &[(&str, &str)] = &[
    (
        r"native_|mixed_kinds|turning",
        "native histograms were a first experiment",
    ),
    (r"atan2", "atan2 kept the metric's name"),
    (
        r"^(\d+[smhdwy])+(\d+ms)?$|^1_000$",
        "durations and underscores were no numbers",
    ),
    (
        r"(avg|stddev|stdvar)_over_time\(odd_gauge|(stddev|stdvar) by \(kind\) \(odd_gauge\)",
        "sums lost small terms, and the deviation of infinity was 0",
    ),
    (
        r"bool on \(kind\) group_left \(__name__\)",
        "a comparison dropped the name that was copied for it",
    ),
    (
        r#"not a label\?|"~bad""#,
        "label names were letters, digits and underscores",
    ),
    (
        r"histogram_fraction\(.*(_bucket|_count)",
        "histogram_fraction knew native histograms only",
    ),
    (
        r"^(many|twofold|.__name__=~.same_...) (==|>) .*(one|same_a)$",
        "a pair that a comparison drops did not count as matched",
    ),
    (
        r"\[.*:.*\].*\[.*:|@ end\(\)\)$|max_over_time\(demo_cyclic\[2m:10s\]\)",
        "windows were closed on the left, which shows where inner steps meet their edge",
    ),
    (
        r"(rate|increase)\((demo_intermittent_metric|odd_gauge)\[",
        "a rate was extrapolated past zero where its series began",
    ),
];

/// The list, and how often each entry was needed.
pub(super) struct Changed {
    entries: Vec<(Regex, &'static str, usize)>,
}

impl Changed {
    pub(super) fn new() -> Changed {
        let compile = |(pattern, reason): &(&str, &'static str)| {
            let regex = Regex::new(pattern).expect("a regular expression");
            (regex, *reason, 0)
        };
        Changed {
            entries: CHANGED.iter().map(compile).collect(),
        }
    }

    /// Whether a difference in this query's answer is listed.
    pub(super) fn excuses(&mut self, expr: &str) -> bool {
        let entry = self
            .entries
            .iter_mut()
            .find(|(regex, ..)| regex.is_match(expr));
        entry.map(|(_, _, needed)| *needed += 1).is_some()
    }

    /// Entries that excuse nothing, which should go.
    pub(super) fn unneeded(&self) -> Vec<&'static str> {
        let unneeded = self.entries.iter().filter(|(_, _, needed)| *needed == 0);
        unneeded.map(|(_, reason, _)| *reason).collect()
    }
}
