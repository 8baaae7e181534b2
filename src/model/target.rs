//! Where a deployment happens.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A service in an environment, and a region where the service ships region by region.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// `service.name` of its telemetry.
    pub service: String,
    /// `deployment.environment.name` of its telemetry; empty where telemetry carries none.
    #[serde(default)]
    pub environment: String,
    /// The region, where deployments are announced per region.
    #[serde(default)]
    pub region: Option<String>,
}

impl Target {
    /// A target without a region.
    pub fn new(service: impl Into<String>, environment: impl Into<String>) -> Self {
        Target {
            service: service.into(),
            environment: environment.into(),
            region: None,
        }
    }
}

/// `checkout in production (eu-1)`; the environment and region only where known.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service)?;
        if !self.environment.is_empty() {
            write!(f, " in {}", self.environment)?;
        }
        match &self.region {
            Some(region) => write!(f, " ({region})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_is_known() {
        assert_eq!(Target::new("checkout", "").to_string(), "checkout");
        let mut target = Target::new("checkout", "production");
        target.region = Some("eu-1".to_owned());
        assert_eq!(target.to_string(), "checkout in production (eu-1)");
    }
}
