//! What a candidate is compared with.
//!
//! - **The stable version that runs beside it** is the best baseline: both see the same traffic
//!   at the same time. Preferred is the version that the candidate replaces, else the last one
//!   that succeeded here before it, else of the other running versions the one with the most
//!   requests. A version is not stable, and never a baseline, when its own last deployment here
//!   goes on, was stopped, failed or was rolled back, or when it first came after the candidate.
//! - **The previous version's own history** is the fallback when nothing stable runs beside the
//!   candidate: weaker evidence, since the hours differ.
//! - **Nothing** when there is neither: a first deployment has no baseline.
//!
//! The candidate's own version is never its baseline, also when it is shipped again: telemetry
//! can't tell the two apart.

use std::sync::Arc;

use crate::model::{Artifact, BaselineKind, Deployment, Phase};

/// A version that serves requests now.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningVersion {
    /// `service.version` of its telemetry.
    pub version: String,
    /// Requests in the time looked at.
    pub requests: f64,
}

/// The baseline of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct BaselineChoice {
    /// What to compare with.
    pub artifact: Artifact,
    /// Whether it runs beside the candidate or has run before it.
    pub kind: BaselineKind,
}

/// Chooses the baseline of `deployment` from the deployments of its target, in any order, and
/// the versions that serve requests now.
pub fn choose(
    deployment: &Deployment,
    history: &[Arc<Deployment>],
    running: &[RunningVersion],
) -> Option<BaselineChoice> {
    let previous = previous_of(deployment, history);
    let concurrent = previous
        .iter()
        .find(|artifact| is_running(artifact, running))
        .cloned()
        .or_else(|| busiest_stable(deployment, history, running));
    let with = |artifact, kind| BaselineChoice { artifact, kind };
    match concurrent {
        Some(artifact) => Some(with(artifact, BaselineKind::Concurrent)),
        None => {
            let artifact = previous.into_iter().next()?;
            Some(with(artifact, BaselineKind::Historical))
        }
    }
}

/// What the candidate replaces as it says, then what succeeded here before it, newest first.
fn previous_of(deployment: &Deployment, history: &[Arc<Deployment>]) -> Vec<Artifact> {
    let mut earlier: Vec<&Arc<Deployment>> = history
        .iter()
        .filter(|d| d.phase == Phase::Succeeded && d.id != deployment.id)
        .filter(|d| d.created_ms <= deployment.created_ms)
        .collect();
    earlier.sort_by_key(|d| std::cmp::Reverse(d.finished_ms));
    let said = deployment.previous.clone();
    let last = earlier.first().map(|d| d.artifact.clone());
    said.into_iter()
        .chain(last)
        .filter(|artifact| !is_candidate(artifact, deployment))
        .map(|artifact| complete(artifact, history))
        .collect()
}

fn is_candidate(artifact: &Artifact, deployment: &Deployment) -> bool {
    let candidate = &deployment.artifact;
    let same_label = candidate.version.is_some() && candidate.version == artifact.version;
    same_label || artifact.is_same(candidate)
}

/// Adds what other deployments know of the artifact, above all the label that telemetry carries.
fn complete(mut artifact: Artifact, history: &[Arc<Deployment>]) -> Artifact {
    for other in history {
        if other.artifact.is_same(&artifact) {
            artifact.merge(&other.artifact);
        }
    }
    artifact
}

fn is_running(artifact: &Artifact, running: &[RunningVersion]) -> bool {
    let is_it = |r: &RunningVersion| artifact.version.as_deref() == Some(&r.version);
    running.iter().any(|r| r.requests > 0.0 && is_it(r))
}

fn busiest_stable(
    deployment: &Deployment,
    history: &[Arc<Deployment>],
    running: &[RunningVersion],
) -> Option<Artifact> {
    // Without the candidate's label any version that runs could be the candidate itself.
    deployment.artifact.version.as_ref()?;
    let is_stable = |r: &&RunningVersion| {
        let artifact = Artifact::of_version(r.version.clone());
        let of_it = || {
            history
                .iter()
                .filter(|d| d.artifact.version == artifact.version)
        };
        let newest = of_it().max_by_key(|d| (d.created_ms, &d.id));
        let came_after = of_it().all(|d| d.created_ms > deployment.created_ms);
        r.requests > 0.0
            && !r.version.is_empty()
            && !is_candidate(&artifact, deployment)
            && newest.is_none_or(|d| {
                matches!(d.phase, Phase::Succeeded | Phase::Superseded) && !came_after
            })
    };
    let busier = |a: &&RunningVersion, b: &&RunningVersion| {
        let by_requests = a.requests.total_cmp(&b.requests);
        by_requests.then_with(|| b.version.cmp(&a.version))
    };
    let busiest = running.iter().filter(is_stable).max_by(busier)?;
    Some(complete(
        Artifact::of_version(busiest.version.clone()),
        history,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::fold;
    use crate::deploy::testing::{With as _, event};
    use crate::model::EventKind::{Failed, Started, Succeeded};
    use crate::model::{Event, Target};

    fn history(events: &[Event]) -> Vec<Arc<Deployment>> {
        let folded = fold(&Target::new("checkout", "production"), events);
        folded.into_iter().map(|f| Arc::new(f.deployment)).collect()
    }

    fn running(versions: &[(&str, f64)]) -> Vec<RunningVersion> {
        let of = |(version, requests): &(&str, f64)| RunningVersion {
            version: (*version).to_owned(),
            requests: *requests,
        };
        versions.iter().map(of).collect()
    }

    /// The baseline of the last deployment of `events`.
    fn chosen(events: &[Event], versions: &[(&str, f64)]) -> Option<(String, BaselineKind)> {
        let history = history(events);
        let choice = choose(history.last().unwrap(), &history, &running(versions))?;
        Some((choice.artifact.version.unwrap(), choice.kind))
    }

    fn concurrent(version: &str) -> Option<(String, BaselineKind)> {
        Some((version.to_owned(), BaselineKind::Concurrent))
    }

    fn historical(version: &str) -> Option<(String, BaselineKind)> {
        Some((version.to_owned(), BaselineKind::Historical))
    }

    #[test]
    fn the_replaced_version_beside_it_comes_first() {
        let all = [
            event(Succeeded, "1", 0),
            event(Started, "3", 60).replacing("2"),
        ];
        let beside = [("1", 900.0), ("2", 5.0), ("3", 100.0)];
        assert_eq!(chosen(&all, &beside), concurrent("2"));
        assert_eq!(chosen(&all, &[("1", 900.0), ("3", 100.0)]), concurrent("1"));
        assert_eq!(chosen(&all, &[("2", 0.0), ("3", 100.0)]), historical("2"));
    }

    #[test]
    fn an_unannounced_version_is_taken_by_its_traffic() {
        let all = [event(Started, "3", 60)];
        let beside = [("1", 10.0), ("2", 900.0), ("3", 5000.0)];
        assert_eq!(chosen(&all, &beside), concurrent("2"));
        assert_eq!(chosen(&all, &[("3", 5000.0)]), None);
        assert_eq!(chosen(&all, &[]), None);
    }

    /// The leftovers of a failed canary still take traffic while the next one is judged.
    #[test]
    fn what_failed_is_no_baseline_though_it_runs() {
        let all = [
            event(Succeeded, "1", 0),
            event(Started, "2", 60),
            event(Failed, "2", 65),
            event(Started, "3", 90),
        ];
        assert_eq!(chosen(&all, &[("2", 900.0), ("3", 1.0)]), historical("1"));
    }

    #[test]
    fn the_candidates_own_label_is_no_baseline() {
        let all = [
            event(Succeeded, "1", 0),
            event(Succeeded, "2", 60),
            event(Started, "2", 900),
        ];
        assert_eq!(chosen(&all, &[("2", 900.0)]), None);
        let all = [event(Started, "2", 0).digest("a").replacing("2")];
        assert_eq!(chosen(&all, &[("2", 900.0)]), None);
    }

    #[test]
    fn a_later_version_is_no_baseline() {
        let all = [event(Started, "2", 0), event(Succeeded, "3", 60)];
        let history = history(&all);
        let choice = choose(&history[0], &history, &running(&[("2", 1.0), ("3", 9.0)]));
        assert_eq!(choice, None);
    }

    #[test]
    fn a_previous_known_by_digest_is_found_by_its_label() {
        let mut started = event(Started, "2", 60);
        started.previous = event(Started, "", 0).digest("a").artifact.into();
        let all = [event(Succeeded, "1", 0).digest("a"), started];
        assert_eq!(chosen(&all, &[("1", 9.0), ("2", 1.0)]), concurrent("1"));
    }
}
