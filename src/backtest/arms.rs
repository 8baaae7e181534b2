//! Which series are the candidate's and which the baseline's.
//!
//! In this order, the first that fits:
//!
//! 1. a label that has the candidate's version, as the events say it, among its values; also as
//!    the tag of an image, and with or without a leading `v`;
//! 2. a label that names the sides: `track="canary"`, `canary="true"`, `app="shop-canary"`;
//! 3. a label that has the baseline's version among its values: the candidate sent nothing;
//! 4. a label called like a version, with two values or more: the value that came last is the
//!    candidate's, or where all were there from the start the highest one;
//! 5. instances: those that were first seen after the deployment began are the candidate's;
//! 6. time: what was before the deployment is the baseline, what is after it the candidate.
//!
//! The last two need an event, for the time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use slogate_series::{Labels, Series};

use super::words::{self, INSTANCE_LABELS, SIDE_LABELS, Side, VERSION_LABELS};

/// Instances seen so soon after a deployment began ran before it, in milliseconds.
const SEEN_BEFORE_MS: i64 = 1_000;

/// What is known of a rollout before its series are looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    /// The candidate's version, or what else may stand for it.
    pub(crate) candidate: Vec<String>,
    /// The baseline's version.
    pub(crate) baseline: Vec<String>,
    /// When the deployment began.
    pub(crate) start_ms: Option<i64>,
}

/// Which series are whose.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Arms {
    /// What the candidate is called.
    pub(crate) candidate: String,
    /// What the baseline is called; `None` where nothing but the candidate is known.
    pub(crate) baseline: Option<String>,
    by: By,
}

#[derive(Clone, Debug, PartialEq)]
enum By {
    /// By a label; some values stand for another name.
    Label {
        label: String,
        names: BTreeMap<String, String>,
    },
    /// By which copies are new.
    Instances {
        label: String,
        new: BTreeSet<String>,
    },
    /// By time.
    Time { start_ms: i64 },
}

/// Where a series belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Belongs<'a> {
    /// To this version.
    To(&'a str),
    /// To the baseline until this time, and to the candidate from then on.
    Split(i64),
    /// To none.
    Nowhere,
}

impl Arms {
    /// Whose a series is.
    pub(crate) fn of<'a>(&'a self, labels: &'a Labels) -> Belongs<'a> {
        match &self.by {
            By::Label { label, names } => match labels.get(label) {
                Some(value) => Belongs::To(names.get(value).map_or(value, String::as_str)),
                None => Belongs::Nowhere,
            },
            By::Instances { label, new } => match labels.get(label) {
                Some(value) if new.contains(value) => Belongs::To(&self.candidate),
                Some(_) => self
                    .baseline
                    .as_deref()
                    .map_or(Belongs::Nowhere, Belongs::To),
                None => Belongs::Nowhere,
            },
            By::Time { start_ms } => Belongs::Split(*start_ms),
        }
    }

    /// Whether a series is the candidate's, at some time.
    pub(crate) fn is_candidate(&self, labels: &Labels) -> bool {
        match self.of(labels) {
            Belongs::To(version) => version == self.candidate,
            Belongs::Split(_) => true,
            Belongs::Nowhere => false,
        }
    }

    /// How the sides were told apart, for people.
    pub(crate) fn describe(&self) -> String {
        let baseline = self.baseline.as_deref().unwrap_or("unknown");
        match &self.by {
            By::Label { label, names } => {
                let named = |version: &str| {
                    let value = names.iter().find(|(_, name)| *name == version);
                    let value = value.map_or(version, |(value, _)| value);
                    format!("{label}={value:?}")
                };
                let other = match self.baseline.as_deref() {
                    Some(baseline) => named(baseline),
                    None => format!("any other {label}"),
                };
                format!(
                    "the candidate is {}, the baseline {other}",
                    named(&self.candidate)
                )
            }
            By::Instances { label, new } => format!(
                "no label tells the versions apart: the candidate is the {} of label {label} that \
                 were first seen after the deployment began, the baseline ({baseline}) all others",
                new.len()
            ),
            By::Time { .. } => format!(
                "no label tells the versions apart: what came before the deployment began is the \
                 baseline ({baseline}), what came after it the candidate"
            ),
        }
    }

    /// Finds the sides among `series`.
    pub(crate) fn find(series: &[&Series], hints: &Hints) -> Option<Arms> {
        let labels = Values::of(series);
        by_candidate(&labels, hints)
            .or_else(|| by_side(&labels, hints))
            .or_else(|| by_baseline(&labels, hints))
            .or_else(|| by_name(&labels, hints))
            .or_else(|| by_instance(&labels, hints))
            .or_else(|| by_time(hints))
    }
}

/// The values of each label, and when each was first seen.
struct Values<'a>(BTreeMap<&'a str, BTreeMap<&'a str, i64>>);

impl<'a> Values<'a> {
    fn of(series: &[&'a Series]) -> Self {
        let mut values: BTreeMap<&str, BTreeMap<&str, i64>> = BTreeMap::new();
        for one in series {
            let Some(first) = one.samples.first() else {
                continue;
            };
            for label in one
                .labels
                .iter()
                .filter(|label| label.name.as_ref() != "__name__")
            {
                let seen = values.entry(&label.name).or_default();
                let since = seen.entry(&label.value).or_insert(first.t_ms);
                *since = first.t_ms.min(*since);
            }
        }
        Values(values)
    }

    /// Labels in the order in which they are tried: known names first.
    fn ordered(&self, known: &[&str]) -> Vec<&'a str> {
        let rank = |label: &str| known.iter().position(|name| *name == label);
        let mut labels: Vec<&str> = self.0.keys().copied().collect();
        labels.sort_by_key(|label| rank(label).unwrap_or(known.len()));
        labels
    }

    fn get(&self, label: &str) -> impl Iterator<Item = (&'a str, i64)> + '_ {
        let values = self.0.get(label).into_iter().flatten();
        values.map(|(value, since)| (*value, *since))
    }
}

/// How well a label's value says a version: 2 as it is, 1 in other words.
fn likeness(value: &str, version: &str) -> u8 {
    if value == version {
        return 2;
    }
    let bare = |text: &str| text.trim_start_matches(['v', 'V']).to_owned();
    let tag = value.rsplit([':', '@']).next().unwrap_or(value);
    let is_like = bare(value) == bare(version) || tag == version || bare(tag) == bare(version);
    // `shop-4.2.0`, `4.2.0-5f3c2a1`.
    let is_part = version.len() >= 3
        && (value.ends_with(&format!("-{version}")) || value.starts_with(&format!("{version}-")));
    u8::from(is_like || is_part)
}

/// A label whose values say one of `versions`, and that value.
fn label_with<'a>(labels: &Values<'a>, versions: &[String]) -> Option<(&'a str, &'a str)> {
    let known: Vec<&str> = VERSION_LABELS.iter().chain(SIDE_LABELS).copied().collect();
    for wanted in [2, 1] {
        for version in versions {
            for label in labels.ordered(&known) {
                // A short version such as 2 stands in many labels by chance.
                if version.len() < 3 && !known.contains(&label) {
                    continue;
                }
                let is_status = words::STATUS_LABELS.contains(&label) || label == "le";
                let found = labels
                    .get(label)
                    .find(|(value, _)| likeness(value, version) >= wanted);
                if let (Some((value, _)), false) = (found, is_status) {
                    return Some((label, value));
                }
            }
        }
    }
    None
}

fn by_candidate(labels: &Values<'_>, hints: &Hints) -> Option<Arms> {
    let (label, value) = label_with(labels, &hints.candidate)?;
    let candidate = hints.candidate.first()?.clone();
    let mut names = BTreeMap::new();
    if value != candidate {
        names.insert(value.to_owned(), candidate.clone());
    }
    let others = labels
        .get(label)
        .map(|(other, _)| other)
        .filter(|other| *other != value);
    let others: Vec<&str> = others.collect();
    let said = hints.baseline.iter().find_map(|version| {
        let other = others.iter().max_by_key(|other| likeness(other, version))?;
        (likeness(other, version) > 0).then_some((*other, version))
    });
    let side = |other: &&str| words::side_in(label, other) == Some(Side::Baseline);
    let baseline = match said {
        Some((other, version)) => {
            if other != version {
                names.insert(other.to_owned(), version.clone());
            }
            Some(version.clone())
        }
        None => {
            let found = others.iter().find(|other| side(other));
            let found = found.or(others.first().filter(|_| others.len() == 1));
            found.map(|other| (*other).to_owned())
        }
    };
    Some(Arms {
        candidate,
        baseline,
        by: By::Label {
            label: label.to_owned(),
            names,
        },
    })
}

fn by_side(labels: &Values<'_>, hints: &Hints) -> Option<Arms> {
    for label in labels.ordered(SIDE_LABELS) {
        let is_known = SIDE_LABELS.contains(&label) || VERSION_LABELS.contains(&label);
        let side = |side: Side| -> Vec<&str> {
            let values = labels.get(label).map(|(value, _)| value);
            values
                .filter(|value| words::side_in(label, value) == Some(side))
                .collect()
        };
        let (new, old) = (side(Side::Candidate), side(Side::Baseline));
        // One side alone may be a word that means something else here.
        let is_found = !new.is_empty() && (!old.is_empty() || is_known)
            || (is_known && !old.is_empty() && !hints.candidate.is_empty());
        if !is_found || new.len() > 1 {
            continue;
        }
        let others: Vec<&str> = labels
            .get(label)
            .map(|(value, _)| value)
            .filter(|value| !new.contains(value))
            .collect();
        let old = old.first().copied().or(others.first().copied());
        let candidate = hints.candidate.first().cloned();
        let candidate = candidate.or_else(|| new.first().map(|value| (*value).to_owned()))?;
        let baseline = hints.baseline.first().cloned();
        let baseline = baseline
            .filter(|baseline| *baseline != candidate)
            .or_else(|| old.map(str::to_owned));
        let mut names = BTreeMap::new();
        for value in new {
            names.insert(value.to_owned(), candidate.clone());
        }
        if let (Some(old), Some(baseline)) = (old, &baseline) {
            names.insert(old.to_owned(), baseline.clone());
        }
        return Some(Arms {
            candidate,
            baseline,
            by: By::Label {
                label: label.to_owned(),
                names,
            },
        });
    }
    None
}

fn by_baseline(labels: &Values<'_>, hints: &Hints) -> Option<Arms> {
    let (label, value) = label_with(labels, &hints.baseline)?;
    let baseline = hints.baseline.first()?.clone();
    let mut names = BTreeMap::new();
    names.insert(value.to_owned(), baseline.clone());
    // What else stands in this label, and came later, can only be the candidate.
    let others: Vec<&str> = labels
        .get(label)
        .map(|(other, _)| other)
        .filter(|other| *other != value)
        .collect();
    let candidate = match (hints.candidate.first(), others.as_slice()) {
        (Some(said), [only]) => {
            names.insert((*only).to_owned(), said.clone());
            said.clone()
        }
        (Some(said), _) => said.clone(),
        (None, [only]) => (*only).to_owned(),
        (None, _) => return None,
    };
    Some(Arms {
        candidate,
        baseline: Some(baseline),
        by: By::Label {
            label: label.to_owned(),
            names,
        },
    })
}

fn by_name(labels: &Values<'_>, hints: &Hints) -> Option<Arms> {
    for label in VERSION_LABELS {
        let mut values: Vec<(&str, i64)> = labels.get(label).collect();
        if values.len() < 2 {
            continue;
        }
        values.sort_by(|a, b| a.1.cmp(&b.1).then_with(|| natural(a.0).cmp(&natural(b.0))));
        let (value, _) = values.pop()?;
        let (before, _) = values.pop()?;
        let mut names = BTreeMap::new();
        let candidate = hints.candidate.first().cloned().unwrap_or(value.to_owned());
        if candidate != value {
            names.insert(value.to_owned(), candidate.clone());
        }
        return Some(Arms {
            candidate,
            baseline: Some(before.to_owned()),
            by: By::Label {
                label: (*label).to_owned(),
                names,
            },
        });
    }
    None
}

/// Text with its numbers compared as numbers.
fn natural(text: &str) -> Vec<(u64, String)> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let words = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(words);
        let digits = after
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(after.len());
        let (number, after) = after.split_at(digits);
        parts.push((number.parse().unwrap_or(0), word.to_owned()));
        rest = after;
    }
    parts
}

fn by_instance(labels: &Values<'_>, hints: &Hints) -> Option<Arms> {
    let start_ms = hints.start_ms?;
    for label in INSTANCE_LABELS {
        let values: HashMap<&str, i64> = labels.get(label).collect();
        let is_new = |since: i64| since > start_ms + SEEN_BEFORE_MS;
        let new: BTreeSet<String> = values
            .iter()
            .filter(|(_, since)| is_new(**since))
            .map(|(value, _)| (*value).to_owned())
            .collect();
        if new.is_empty() || new.len() == values.len() {
            continue;
        }
        return Some(Arms {
            candidate: called(hints.candidate.first(), "candidate"),
            baseline: Some(called(hints.baseline.first(), "baseline")),
            by: By::Instances {
                label: (*label).to_owned(),
                new,
            },
        });
    }
    None
}

fn by_time(hints: &Hints) -> Option<Arms> {
    Some(Arms {
        candidate: called(hints.candidate.first(), "candidate"),
        baseline: Some(called(hints.baseline.first(), "baseline")),
        by: By::Time {
            start_ms: hints.start_ms?,
        },
    })
}

fn called(said: Option<&String>, otherwise: &str) -> String {
    said.cloned().unwrap_or_else(|| otherwise.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use slogate_series::{Sample, Value};

    fn series(first_ms: i64, labels: &[(&str, &str)]) -> Series {
        let sample = Sample {
            t_ms: first_ms,
            start_ms: 0,
            value: Value::Float(0.0),
        };
        Series {
            labels: Labels::from_pairs(labels.iter().copied()),
            samples: vec![sample],
        }
    }

    fn find(all: &[Series], candidate: &[&str], baseline: &[&str], start_ms: Option<i64>) -> Arms {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let hints = Hints {
            candidate: owned(candidate),
            baseline: owned(baseline),
            start_ms,
        };
        Arms::find(&all.iter().collect::<Vec<_>>(), &hints).unwrap()
    }

    fn sides(all: &[Series], arms: &Arms) -> Vec<String> {
        let of = |one: &Series| match arms.of(&one.labels) {
            Belongs::To(version) => version.to_owned(),
            other => format!("{other:?}"),
        };
        all.iter().map(of).collect()
    }

    #[test]
    fn a_label_with_the_version_comes_first() {
        let all = [
            series(0, &[("track", "canary"), ("image", "r/shop:v4.2.0")]),
            series(0, &[("track", "stable"), ("image", "r/shop:v4.1.0")]),
        ];
        let arms = find(&all, &["4.2.0"], &["4.1.0"], Some(0));
        assert_eq!(sides(&all, &arms), ["4.2.0", "4.1.0"]);
        assert!(arms.describe().contains("image=\"r/shop:v4.2.0\""));
        let arms = find(&all, &["4.2.0"], &[], Some(0));
        assert_eq!(arms.baseline.as_deref(), Some("r/shop:v4.1.0"));
    }

    #[test]
    fn sides_are_found_by_their_names() {
        let all = [
            series(0, &[("canary", "true"), ("version", "1")]),
            series(0, &[("canary", "false"), ("version", "1")]),
        ];
        let arms = find(&all, &["4.2.0"], &[], None);
        assert_eq!(sides(&all, &arms), ["4.2.0", "false"]);
        let all = [
            series(0, &[("app", "shop-canary")]),
            series(0, &[("app", "shop-primary")]),
        ];
        let arms = find(&all, &[], &[], None);
        assert_eq!(arms.candidate, "shop-canary");
    }

    #[test]
    fn without_names_the_newest_value_of_a_version_label_is_new() {
        let all = [
            series(9, &[("version", "a")]),
            series(0, &[("version", "b")]),
        ];
        let arms = find(&all, &[], &[], None);
        assert_eq!(
            (arms.candidate.as_str(), arms.baseline.as_deref()),
            ("a", Some("b"))
        );
        let all = [
            series(0, &[("version", "1.10")]),
            series(0, &[("version", "1.9")]),
        ];
        assert_eq!(find(&all, &[], &[], None).candidate, "1.10");
        // The candidate sent nothing.
        let all = [series(0, &[("version", "1.9")])];
        let arms = find(&all, &["2.0"], &["1.9"], Some(5));
        assert_eq!(
            (arms.candidate.as_str(), arms.baseline.as_deref()),
            ("2.0", Some("1.9"))
        );
        assert_eq!(sides(&all, &arms), ["1.9"]);
    }

    #[test]
    fn without_labels_new_copies_are_new_and_else_time_tells() {
        let all = [series(0, &[("pod", "a")]), series(9_000, &[("pod", "b")])];
        let arms = find(&all, &["2.0.0"], &[], Some(5_000));
        assert_eq!(sides(&all, &arms), ["baseline", "2.0.0"]);
        let all = [series(0, &[("pod", "a")])];
        let arms = find(&all, &["2.0.0"], &["1.0.0"], Some(5_000));
        assert_eq!(arms.of(&all[0].labels), Belongs::Split(5_000));
    }
}
