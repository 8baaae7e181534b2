//! Sealed build outputs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A content digest such as `sha256:9f2c…`: lower-case hex of the right length.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Why text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest: expected sha256: and 64 hex digits, or sha512: and 128")]
pub struct DigestError(pub String);

impl Digest {
    /// Parses `sha256:<64 hex>` or `sha512:<128 hex>`; hex is lower-cased.
    ///
    /// # Errors
    /// For any other text.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let fail = || DigestError(text.chars().take(200).collect());
        let (algorithm, hex) = text.split_once(':').ok_or_else(fail)?;
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return Err(fail()),
        };
        if hex.len() != length || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(fail());
        }
        Ok(Digest(text.to_ascii_lowercase()))
    }

    /// The whole digest as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The algorithm and the first 12 hex digits, for people: `sha256:9f2c11aa03b4`.
    pub fn short(&self) -> &str {
        let end = self.0.find(':').map_or(0, |colon| colon + 13);
        &self.0[..end.min(self.0.len())]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        Digest::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

/// Where an artifact came from; every part optional, since sources know different parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Provenance {
    /// Source repository, usually a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Commit the artifact was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Pipeline or run that built it, usually a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// When it was built, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub built_at: Option<String>,
    /// Who signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

impl Provenance {
    /// Fills what is unknown here with what `other` knows.
    pub fn merge(&mut self, other: &Provenance) {
        let fill = |mine: &mut Option<String>, theirs: &Option<String>| {
            if mine.is_none() {
                mine.clone_from(theirs);
            }
        };
        fill(&mut self.repository, &other.repository);
        fill(&mut self.commit, &other.commit);
        fill(&mut self.pipeline, &other.pipeline);
        fill(&mut self.built_at, &other.built_at);
        fill(&mut self.signer, &other.signer);
    }
}

/// A sealed build output. At least one of `digest` and `version` is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Artifact {
    /// Its identity.
    pub digest: Option<Digest>,
    /// What it is called, for example an image repository or a package URL.
    pub name: Option<String>,
    /// The label its telemetry carries as `service.version`.
    pub version: Option<String>,
    /// Where it came from.
    pub provenance: Provenance,
}

impl Artifact {
    /// An artifact of which only the version label is known.
    pub fn of_version(version: impl Into<String>) -> Self {
        Artifact {
            version: Some(version.into()),
            ..Artifact::default()
        }
    }

    /// Whether both are the same artifact: by digest where both have one, else by version.
    pub fn is_same(&self, other: &Artifact) -> bool {
        match (&self.digest, &other.digest) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.version.is_some() && self.version == other.version,
        }
    }

    /// Fills what is unknown here with what `other` knows.
    pub fn merge(&mut self, other: &Artifact) {
        if self.digest.is_none() {
            self.digest.clone_from(&other.digest);
        }
        if self.name.is_none() {
            self.name.clone_from(&other.name);
        }
        if self.version.is_none() {
            self.version.clone_from(&other.version);
        }
        self.provenance.merge(&other.provenance);
    }
}

/// `4.2.0 (sha256:9f2c11aa03b4)`, or the one part that is known.
impl fmt::Display for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.version, &self.digest) {
            (Some(version), Some(digest)) => write!(f, "{version} ({})", digest.short()),
            (Some(version), None) => f.write_str(version),
            (None, Some(digest)) => f.write_str(digest.short()),
            (None, None) => f.write_str("unknown version"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_checked_and_lower_cased() {
        let hex = "AB".repeat(32);
        let digest = Digest::parse(&format!("sha256:{hex}")).unwrap();
        assert_eq!(digest.as_str(), format!("sha256:{}", hex.to_lowercase()));
        assert_eq!(digest.short(), "sha256:abababababab");
        for bad in [
            "",
            "latest",
            "sha256:",
            "sha256:zz",
            "md5:00",
            &format!("sha256:{hex}0"),
        ] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn identity_is_the_digest_and_else_the_version() {
        let digest = |c: &str| Some(Digest::parse(&format!("sha256:{}", c.repeat(64))).unwrap());
        let a = Artifact {
            digest: digest("a"),
            ..Artifact::of_version("1")
        };
        let b = Artifact {
            digest: digest("b"),
            ..Artifact::of_version("1")
        };
        assert!(!a.is_same(&b), "one label, two digests: two artifacts");
        assert!(a.is_same(&Artifact::of_version("1")));
        assert!(!Artifact::default().is_same(&Artifact::default()));
    }
}
