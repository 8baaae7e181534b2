//! Artifacts from package URLs, `pkg:type/namespace/name@version?qualifiers#subpath`.
//!
//! The format is of the package-url specification. Of an image (`oci`, `docker`) the version is
//! its digest, its label is the qualifier `tag` and its repository `repository_url`.

use crate::model::{Artifact, Digest};

/// The artifact that a package URL names. Text that is no package URL is taken as a digest if it
/// is one (with or without `sha256:`), else as a version.
pub(super) fn artifact(text: &str) -> Artifact {
    match parse(text) {
        Some(purl) => purl.artifact(),
        None => match Digest::parse(text).or_else(|_| Digest::parse(&format!("sha256:{text}"))) {
            Ok(digest) => Artifact {
                digest: Some(digest),
                ..Artifact::default()
            },
            Err(_) => Artifact::of_version(text),
        },
    }
}

/// The package's plain name, without namespace: what a service is called after its image.
pub(super) fn name(text: &str) -> Option<String> {
    parse(text).map(|purl| purl.name)
}

struct Purl {
    kind: String,
    namespace: Option<String>,
    name: String,
    version: Option<String>,
    qualifiers: Vec<(String, String)>,
}

/// Splits from the right, as the specification says, and decodes each part.
fn parse(text: &str) -> Option<Purl> {
    let (scheme, rest) = text.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("pkg") {
        return None;
    }
    let rest = rest.split_once('#').map_or(rest, |(rest, _subpath)| rest);
    let (path, qualifiers) = rest.split_once('?').unwrap_or((rest, ""));
    let path = path.trim_matches('/');
    let (kind, path) = path.split_once('/')?;
    let last = path.rfind('/').map_or(0, |slash| slash + 1);
    let (namespace, leaf) = path.split_at(last);
    let (name, version) = match leaf.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (leaf, None),
    };
    let namespace = namespace.trim_matches('/');
    let name = percent_decoded(name)?;
    if name.is_empty() {
        return None;
    }
    let qualifiers = qualifiers.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        Some((key.to_ascii_lowercase(), percent_decoded(value)?))
    });
    Some(Purl {
        kind: kind.to_ascii_lowercase(),
        namespace: match namespace {
            "" => None,
            namespace => percent_decoded(namespace),
        },
        name,
        version: version.and_then(percent_decoded).filter(|v| !v.is_empty()),
        qualifiers: qualifiers.collect(),
    })
}

impl Purl {
    fn qualifier(&self, key: &str) -> Option<&str> {
        let found = self.qualifiers.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    fn artifact(&self) -> Artifact {
        let version_digest = self.version.as_deref().map(Digest::parse);
        let (digest, version) = match version_digest {
            Some(Ok(digest)) => (Some(digest), self.qualifier("tag").map(str::to_owned)),
            _ => (self.checksum(), self.version.clone()),
        };
        let plain_name = match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        };
        let repository = self
            .qualifier("repository_url")
            .filter(|_| matches!(self.kind.as_str(), "oci" | "docker"));
        Artifact {
            digest,
            name: Some(repository.map_or(plain_name, str::to_owned)),
            version,
            ..Artifact::default()
        }
    }

    /// The first usable digest of the qualifier `checksum`, a list with commas.
    fn checksum(&self) -> Option<Digest> {
        let list = self.qualifier("checksum")?;
        list.split(',').find_map(|text| Digest::parse(text).ok())
    }
}

/// One round of percent-decoding; `None` where that gives no UTF-8. A percent sign that no two
/// hex digits follow stands for itself.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = |b: u8| {
            char::from(b)
                .to_digit(16)
                .and_then(|n| u8::try_from(n).ok())
        };
        let pair = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match pair {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Option<String>, Option<String>, Option<String>) {
        let artifact = artifact(text);
        let digest = artifact.digest.map(|d| d.short().to_owned());
        (artifact.name, artifact.version, digest)
    }

    #[test]
    fn package_urls_give_name_version_and_digest() {
        let own = |text: &str| Some(text.to_owned());
        let hex = "0b31b1c02ff458ad9b7b81cbdf8f028bd54699fa151f221d1e8de6817db93427";
        let short = own("sha256:0b31b1c02ff4");
        let cases = [
            (
                format!("pkg:oci/myapp@sha256%3A{hex}"),
                (own("myapp"), None, short.clone()),
            ),
            (
                format!(
                    "pkg:oci/debian@sha256:{hex}?repository_url=docker.io/library/debian&tag=12.1"
                ),
                (own("docker.io/library/debian"), own("12.1"), short.clone()),
            ),
            (
                "pkg:golang/mygit.com/myorg/myapp@234fd47e07d1004f0aed9c".to_owned(),
                (
                    own("mygit.com/myorg/myapp"),
                    own("234fd47e07d1004f0aed9c"),
                    None,
                ),
            ),
            (
                "pkg:npm/%40acme/cart@1.2.3-rc.1%2B5#src".to_owned(),
                (own("@acme/cart"), own("1.2.3-rc.1+5"), None),
            ),
            (
                format!("pkg:generic/tool@1.0?checksum=md5:00,sha256:{hex}"),
                (own("tool"), own("1.0"), short.clone()),
            ),
            (hex.to_owned(), (None, None, short)),
            (
                "six-1.14.0-py2.whl".to_owned(),
                (None, own("six-1.14.0-py2.whl"), None),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parts(&text), expected, "{text}");
        }
        assert_eq!(name("pkg:oci/myapp@sha256%3A00").as_deref(), Some("myapp"));
        assert_eq!(name("myapp"), None);
    }

    #[test]
    fn percent_decoding_is_one_round_and_strict_about_utf8() {
        let decoded = percent_decoded("Euro%20%E2%82%AC%20%F0%9F%98%80%2525%");
        assert_eq!(decoded.as_deref(), Some("Euro € 😀%25%"));
        assert_eq!(percent_decoded("%C0%A0"), None, "an overlong space");
    }
}
