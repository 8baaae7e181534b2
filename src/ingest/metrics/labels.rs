//! Labels of metric series: from the resource, from the point.
//!
//! Policy, in the order applied:
//! - Point attributes are sorted by their original names; those that meet under one label name
//!   are joined with `;`. An attribute `__name__` is left out.
//! - Promoted resource attributes (see [`is_promoted`]) are added where the point has no such
//!   label. `deployment.environment` is promoted as `deployment_environment_name`, where the
//!   newer attribute is missing.
//! - `job` (`service.name`, or `service.namespace/service.name`) and `instance`
//!   (`service.instance.id`) replace labels of these names.
//! - An empty value is no label. A value over 4096 bytes refuses the point: cutting it could
//!   make two series one.

use std::collections::BTreeMap;
use std::sync::Arc;

use slogate_series::{Labels, LabelsBuilder, METRIC_NAME};
use slogate_wire::WireError;
use slogate_wire::otlp::{Attributes, Resource};

use super::naming::{label_name, value_text};
use crate::ingest::identity::{cut, label_text};
use crate::ingest::outcome::Reason;

const VALUE_MAX_BYTES: usize = 4096;

/// What a resource contributes to its series' labels.
#[derive(Debug, Default)]
pub(in crate::ingest) struct ResourceLabels {
    promoted: Vec<(Arc<str>, Arc<str>)>,
    job: Option<Arc<str>>,
    instance: Option<Arc<str>>,
    /// The labels of `target_info`, where the resource deserves one.
    pub(super) target_info: Option<Labels>,
}

/// Whether a resource attribute becomes a label of every series.
fn is_promoted(key: &str) -> bool {
    match key {
        "service.name"
        | "service.namespace"
        | "service.version"
        | "service.instance.id"
        | "deployment.environment.name"
        | "cloud.region"
        | "cloud.availability_zone"
        | "container.name"
        | "oci.manifest.digest" => true,
        _ => {
            key.starts_with("container.image.")
                || (key.starts_with("k8s.") && key.ends_with(".name"))
        }
    }
}

impl ResourceLabels {
    pub(in crate::ingest) fn read(resource: &Resource<'_>) -> Result<Self, WireError> {
        let mut attributes = BTreeMap::new();
        for attribute in resource.attributes() {
            let attribute = attribute?;
            let text = value_text(&attribute.value)?;
            attributes.insert(attribute.key, cut(&text).to_owned());
        }
        attributes.retain(|_, value| !value.is_empty());
        let text = |key: &str| attributes.get(key).and_then(|value| label_text(value));
        let job = match (text("service.namespace"), text("service.name")) {
            (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}").into()),
            (_, name) => name,
        };
        let instance = text("service.instance.id");
        let mut promoted: Vec<(Arc<str>, Arc<str>)> = attributes
            .iter()
            .filter(|(key, _)| is_promoted(key))
            .filter_map(|(key, value)| Some((label_name(key)?.into(), value.as_str().into())))
            .collect();
        let environment: Arc<str> = "deployment_environment_name".into();
        if let Some(value) = text("deployment.environment")
            && !promoted.iter().any(|(name, _)| *name == environment)
        {
            promoted.push((environment, value));
        }
        let mut labels = ResourceLabels {
            promoted,
            job,
            instance,
            target_info: None,
        };
        labels.target_info = labels.target_info_labels(&attributes);
        Ok(labels)
    }

    fn target_info_labels(&self, attributes: &BTreeMap<&str, String>) -> Option<Labels> {
        const IDENTIFYING: [&str; 3] = ["service.name", "service.namespace", "service.instance.id"];
        if self.job.is_none() && self.instance.is_none() {
            return None;
        }
        let mut builder = LabelsBuilder::default();
        let mut any = false;
        for (key, value) in attributes {
            if !IDENTIFYING.contains(key)
                && let Some(name) = label_name(key)
            {
                any = true;
                builder.set(name, value.as_str());
            }
        }
        self.set_identity(&mut builder);
        builder.set(METRIC_NAME, "target_info");
        any.then(|| builder.build())
    }

    fn set_identity(&self, builder: &mut LabelsBuilder) {
        for (name, value) in [("job", &self.job), ("instance", &self.instance)] {
            if let Some(value) = value {
                builder.set(name, value.clone());
            }
        }
    }

    /// The labels of a point of this resource, without the metric name.
    pub(super) fn of_point(
        &self,
        attributes: Attributes<'_>,
    ) -> Result<Result<LabelsBuilder, Reason>, WireError> {
        let mut pairs = Vec::new();
        for attribute in attributes {
            let attribute = attribute?;
            if attribute.key == METRIC_NAME {
                continue;
            }
            let Some(name) = label_name(attribute.key) else {
                return Ok(Err(Reason::LabelName));
            };
            pairs.push((attribute.key, name, value_text(&attribute.value)?));
        }
        pairs.sort_by(|a, b| a.0.cmp(b.0));
        let mut labels: BTreeMap<String, String> = BTreeMap::new();
        for (_, name, value) in pairs {
            match labels.get_mut(&name) {
                Some(joined) => {
                    joined.push(';');
                    joined.push_str(&value);
                }
                None => {
                    labels.insert(name, value);
                }
            }
        }
        if labels.values().any(|value| value.len() > VALUE_MAX_BYTES) {
            return Ok(Err(Reason::LabelValue));
        }
        let mut builder = LabelsBuilder::default();
        for (name, value) in &self.promoted {
            if !labels.contains_key(name.as_ref()) {
                builder.set(name.clone(), value.clone());
            }
        }
        for (name, value) in labels {
            builder.set(name, value);
        }
        self.set_identity(&mut builder);
        Ok(Ok(builder))
    }
}
