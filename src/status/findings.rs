//! What is noticed and is not a check's answer, as far as deployments show it.
//!
//! A finding stands while it is so: it is about the newest deployment of a target, and ends when
//! another one takes its place. A rolled back or failed release is not what runs, so nothing is
//! found about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::FINDINGS_MAX;
use super::families::FINDING;
use super::sample::{Sample, identity};
use crate::model::{Deployment, Digest, Origin, Phase, Target};

/// The name of a kind of finding, and whether it is so of a deployment.
type Rule<'a> = (&'static str, &'a dyn Fn(&Deployment) -> bool);

/// The findings of all deployments, newest first.
pub(super) fn samples(all: &[Arc<Deployment>]) -> Vec<Sample> {
    let mut digests: BTreeMap<(&str, &str), BTreeSet<&Digest>> = BTreeMap::new();
    for deployment in all {
        let artifact = &deployment.artifact;
        if let Some((version, digest)) = artifact.version.as_deref().zip(artifact.digest.as_ref()) {
            let service = deployment.target.service.as_str();
            digests
                .entry((service, version))
                .or_default()
                .insert(digest);
        }
    }
    let is_mutable = |d: &Deployment| {
        let version = d.artifact.version.as_deref().unwrap_or_default();
        let of_label = digests.get(&(d.target.service.as_str(), version));
        of_label.is_some_and(|digests| digests.len() > 1)
    };
    let is_unannounced = |d: &Deployment| d.origin == Origin::Observed && !d.is_what_already_ran();
    let kinds: [Rule<'_>; 3] = [
        ("unannounced_version", &is_unannounced),
        ("mutable_tag", &is_mutable),
        ("manual_change", &|d: &Deployment| d.manual_changes > 0),
    ];
    let running = newest_of_targets(all);
    let mut samples = Vec::new();
    for (kind, holds) in kinds {
        let found = running.iter().filter(|deployment| holds(deployment));
        samples.extend(found.take(FINDINGS_MAX).map(|deployment| {
            let mut labels = identity(deployment);
            labels.push(("kind", kind));
            Sample::new(&FINDING, &labels, 1.0)
        }));
    }
    samples
}

fn newest_of_targets(all: &[Arc<Deployment>]) -> Vec<&Arc<Deployment>> {
    let mut targets: BTreeSet<&Target> = BTreeSet::new();
    let newest = all.iter().filter(|d| targets.insert(&d.target));
    let runs = |d: &&Arc<Deployment>| d.phase.is_active() || d.phase == Phase::Succeeded;
    newest.filter(runs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::testing::deployment;

    fn kinds(all: &[Deployment]) -> Vec<(String, String)> {
        let all: Vec<_> = all.iter().cloned().map(Arc::new).collect();
        let found = samples(&all);
        let label = |sample: &Sample, name| sample.labels.get(name).unwrap_or("").to_owned();
        let pairs = found
            .iter()
            .map(|s| (label(s, "kind"), label(s, "version")));
        pairs.collect()
    }

    fn found(kind: &str, version: &str) -> Vec<(String, String)> {
        vec![(kind.to_owned(), version.to_owned())]
    }

    #[test]
    fn a_version_that_nobody_announced_is_found_while_it_is_the_newest() {
        let mut observed = deployment("2", Phase::Succeeded);
        observed.origin = Origin::Observed;
        let old = deployment("1", Phase::Succeeded);
        let all = [observed.clone(), old.clone()];
        assert_eq!(kinds(&all), found("unannounced_version", "2"));
        let newer = deployment("3", Phase::Progressing);
        assert_eq!(kinds(&[newer, observed.clone(), old]), []);
        observed.phase = Phase::RolledBack;
        assert_eq!(kinds(&[observed]), []);
    }

    #[test]
    fn what_already_ran_is_no_drift() {
        let mut first = deployment("1", Phase::Succeeded);
        first.origin = Origin::Observed;
        first.started_ms = None;
        assert_eq!(kinds(&[first]), []);
    }

    #[test]
    fn one_label_on_two_digests_is_found_across_environments() {
        let with_digest = |letter: &str, environment: &str| {
            let mut one = deployment("2", Phase::Succeeded);
            let text = format!("sha256:{}", letter.repeat(64));
            one.artifact.digest = Digest::parse(&text).ok();
            one.target = Target::new("checkout", environment);
            one
        };
        let production = with_digest("a", "production");
        let same = [production.clone(), with_digest("a", "staging")];
        assert_eq!(kinds(&same), []);
        let other = [production, with_digest("b", "staging")];
        let both = [found("mutable_tag", "2"), found("mutable_tag", "2")].concat();
        assert_eq!(kinds(&other), both);
    }

    #[test]
    fn a_hand_in_the_newest_release_is_found() {
        let mut touched = deployment("2", Phase::Succeeded);
        touched.manual_changes = 1;
        assert_eq!(kinds(&[touched]), found("manual_change", "2"));
    }
}
