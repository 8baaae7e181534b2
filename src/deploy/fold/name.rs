//! Names of deployments.

use crate::ledger::Hash;
use crate::model::{Artifact, DeploymentId, Target};

/// What a deployment's names are made of, the best first.
pub(super) fn keys(artifact: &Artifact) -> Vec<(&'static str, String)> {
    let version = artifact.version.clone().map(|v| ("version", v));
    let digest = artifact.digest.as_ref();
    let digest = digest.map(|d| ("digest", d.as_str().to_owned()));
    version.into_iter().chain(digest).collect()
}

/// A deployment's name, for example `checkout-4.2.0-1f9c3a07`.
pub(super) fn name(target: &Target, sort: &str, key: &str, ordinal: u32) -> DeploymentId {
    let identity = serde_json::json!([
        target.service,
        target.environment,
        target.region,
        sort,
        key,
        ordinal
    ]);
    let hash = Hash::of(identity.to_string().as_bytes()).to_string();
    // Of a digest, the algorithm says nothing and twelve digits say enough.
    let label = match sort {
        "digest" => key.split(':').next_back().unwrap_or(key).get(..12),
        _ => None,
    };
    let hash = hash.get(..8).unwrap_or(&hash);
    DeploymentId(format!(
        "{}-{}-{hash}",
        slug(&target.service),
        slug(label.unwrap_or(key))
    ))
}

/// Text as a part of a URL's path.
fn slug(text: &str) -> String {
    let keep = |c: char| match c {
        'a'..='z' | '0'..='9' | '.' | '_' | '-' => c,
        'A'..='Z' => c.to_ascii_lowercase(),
        _ => '-',
    };
    text.chars().take(40).map(keep).collect()
}
