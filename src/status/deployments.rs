//! Deployments that go on, or ended just now.

use std::collections::HashMap;
use std::sync::Arc;

use super::families;
use super::sample::{Sample, identity, seconds};
use super::{DEPLOYMENTS_MAX, ENDED_FOR_MS};
use crate::model::{Deployment, DeploymentId, Origin, Phase};

/// Every phase's name, as the label has it.
const PHASES: [&str; 8] = [
    Phase::Pending.as_str(),
    Phase::Progressing.as_str(),
    Phase::Paused.as_str(),
    Phase::Succeeded.as_str(),
    Phase::Failed.as_str(),
    Phase::Aborted.as_str(),
    Phase::RolledBack.as_str(),
    Phase::Superseded.as_str(),
];

/// Knows which deployments have series now. An end counts from when it was noticed, since events
/// about it may come late.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Every deployment as it was at the last look.
    known: HashMap<DeploymentId, Arc<Deployment>>,
    /// Those that changed and are not active, and until when they are shown, in milliseconds
    /// since the epoch.
    ended: HashMap<DeploymentId, i64>,
    has_begun: bool,
}

impl Shown {
    /// Of all deployments, newest first, those that have series at `now_ms`; and how many more
    /// would have them.
    pub(super) fn look(
        &mut self,
        all: &[Arc<Deployment>],
        now_ms: i64,
    ) -> (Vec<Arc<Deployment>>, usize) {
        let mut known = HashMap::with_capacity(all.len());
        for deployment in all {
            let before = self.known.get(&deployment.id);
            let is_news = match before {
                Some(before) => !Arc::ptr_eq(before, deployment) && **before != **deployment,
                // At the start everything is new; what ended long ago is not news.
                None => self.has_begun || ended_lately(deployment, now_ms),
            };
            if !deployment.phase.is_active() && is_news {
                self.ended
                    .insert(deployment.id.clone(), now_ms + ENDED_FOR_MS);
            }
            known.insert(deployment.id.clone(), deployment.clone());
        }
        self.known = known;
        self.has_begun = true;
        self.ended
            .retain(|id, until_ms| *until_ms > now_ms && self.known.contains_key(id));
        let is_shown = |d: &&Arc<Deployment>| {
            !d.is_what_already_ran() && (d.phase.is_active() || self.ended.contains_key(&d.id))
        };
        let mut shown: Vec<_> = all.iter().filter(is_shown).cloned().collect();
        let left_out = shown.len().saturating_sub(DEPLOYMENTS_MAX);
        shown.truncate(DEPLOYMENTS_MAX);
        (shown, left_out)
    }
}

fn ended_lately(deployment: &Deployment, now_ms: i64) -> bool {
    let ended_ms = deployment.finished_ms;
    ended_ms.is_some_and(|ms| ms > now_ms - ENDED_FOR_MS)
}

/// The series of a deployment.
pub(super) fn samples(deployment: &Deployment) -> Vec<Sample> {
    let labels = identity(deployment);
    let mut samples = vec![info(deployment)];
    let phase = deployment.phase.as_str();
    samples.extend(Sample::states(
        &families::DEPLOYMENT_PHASE,
        &labels,
        "phase",
        &PHASES,
        phase,
    ));
    let step = deployment.steps.last().map(|change| change.step);
    let index = step.and_then(|step| step.index).map(f64::from);
    let total = step.and_then(|step| step.total).map(f64::from);
    let numbers = [
        (
            &families::DEPLOYMENT_START,
            Some(seconds(deployment.judged_from_ms())),
        ),
        (
            &families::DEPLOYMENT_END,
            deployment.finished_ms.map(seconds),
        ),
        (
            &families::DEPLOYMENT_WEIGHT,
            deployment.weight.map(|percent| percent / 100.0),
        ),
        (&families::DEPLOYMENT_STEP, index),
        (&families::DEPLOYMENT_STEPS, total),
    ];
    for (family, value) in numbers {
        samples.extend(value.map(|value| Sample::new(family, &labels, value)));
    }
    samples
}

fn info(deployment: &Deployment) -> Sample {
    let artifact = &deployment.artifact;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let digest = artifact
        .digest
        .as_ref()
        .map_or("", |digest| digest.as_str());
    let commit = text(&artifact.provenance.commit);
    let baseline = deployment.previous.as_ref();
    let baseline = baseline.map_or_else(String::new, |previous| text(&previous.version));
    let version = text(&artifact.version);
    let origin = match deployment.origin {
        Origin::Announced => "announced",
        Origin::Observed => "observed",
    };
    let mut labels = identity(deployment);
    labels.extend([
        ("digest", digest),
        ("commit", commit.as_str()),
        ("origin", origin),
        ("baseline_version", baseline.as_str()),
        ("service_name", deployment.target.service.as_str()),
        (
            "deployment_environment_name",
            deployment.target.environment.as_str(),
        ),
        ("service_version", version.as_str()),
    ]);
    Sample::new(&families::DEPLOYMENT_INFO, &labels, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Artifact, Step, StepChange};
    use crate::status::testing::{T0, deployment};

    fn text(samples: &[Sample]) -> String {
        let lines = samples
            .iter()
            .map(|sample| format!("{} {}\n", sample.labels, sample.value));
        lines.collect()
    }

    #[test]
    fn a_deployment_says_where_it_is() {
        let mut one = deployment("7", Phase::Progressing);
        one.weight = Some(25.0);
        one.previous = Some(Artifact::of_version("1"));
        one.steps = vec![StepChange {
            at_ms: T0,
            step: Step {
                index: Some(2),
                total: Some(5),
                weight: Some(25.0),
            },
        }];
        let text = text(&samples(&one));
        let own = r#"deployment="d-7", environment="production", "#;
        let rest = r#"service="checkout", version="7""#;
        for line in [
            r#"slogate_deployment_info{baseline_version="1", deployment="d-7", deployment_environment_name="production", environment="production", origin="announced", service="checkout", service_name="checkout", service_version="7", version="7"} 1"#.to_owned(),
            format!(r#"slogate_deployment_phase{{{own}phase="progressing", {rest}}} 1"#),
            format!(r#"slogate_deployment_phase{{{own}phase="failed", {rest}}} 0"#),
            format!("slogate_deployment_start_time_seconds{{{own}{rest}}} {}", T0 / 1000),
            format!("slogate_deployment_weight_ratio{{{own}{rest}}} 0.25"),
            format!("slogate_deployment_step{{{own}{rest}}} 2"),
            format!("slogate_deployment_steps{{{own}{rest}}} 5"),
        ] {
            assert!(text.contains(&line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("end_time"), "it has not ended:\n{text}");
    }

    /// A pipeline that reports late must not make its rollouts vanish without an end.
    #[test]
    fn an_end_is_shown_for_a_while_from_when_it_is_noticed() {
        let mut shown = Shown::default();
        let names = |(shown, _): (Vec<Arc<Deployment>>, usize)| {
            let ids = shown.iter().map(|d| d.id.0.clone());
            ids.collect::<Vec<_>>()
        };
        let old = Arc::new(deployment("1", Phase::Succeeded));
        let going = Arc::new(deployment("2", Phase::Progressing));
        let now_ms = T0 + 3_600_000;
        let all = [going.clone(), old.clone()];
        assert_eq!(names(shown.look(&all, now_ms)), ["d-2"], "long over");

        let failed = Arc::new(deployment("2", Phase::Failed));
        let all = [failed, old];
        assert_eq!(names(shown.look(&all, now_ms + 1)), ["d-2"]);
        assert_eq!(names(shown.look(&all, now_ms + ENDED_FOR_MS)), ["d-2"]);
        let after_ms = now_ms + 1 + ENDED_FOR_MS;
        assert_eq!(names(shown.look(&all, after_ms)), Vec::<String>::new());
    }

    #[test]
    fn the_newest_have_series_where_there_are_too_many() {
        let all: Vec<_> = (0..DEPLOYMENTS_MAX + 3)
            .map(|n| Arc::new(deployment(&n.to_string(), Phase::Paused)))
            .collect();
        let (shown, left_out) = Shown::default().look(&all, T0);
        assert_eq!((shown.len(), left_out), (DEPLOYMENTS_MAX, 3));
        assert_eq!(shown.first(), all.first());
    }

    #[test]
    fn what_already_ran_is_no_deployment() {
        let mut first = deployment("1", Phase::Succeeded);
        first.origin = Origin::Observed;
        first.started_ms = None;
        first.finished_ms = Some(T0);
        assert!(Shown::default().look(&[Arc::new(first)], T0).0.is_empty());
    }
}
