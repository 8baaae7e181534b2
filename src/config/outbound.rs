//! Settings of an HTTP peer that slogate calls: where it is, who we are to it, how it is trusted.
//!
//! Every section that names such a peer has the same rows in the table, so that all of them are
//! set up alike: `url`, `bearerToken`, `bearerTokenFile`, `username`, `password`, `passwordFile`,
//! `headers`, `tls.caFile`, `tls.certFile`, `tls.keyFile`, `tls.insecureSkipVerify`, `proxy`,
//! `connectTimeout` and `timeout`. What excludes each other is a mistake, not a precedence.

use std::path::PathBuf;

use super::Reader;
use super::secret::Secret;
use super::value::Value;

/// How an HTTP peer is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundSettings {
    /// Its base URL; a user and password in it count as basic authentication.
    pub url: String,
    /// Who we are to it.
    pub auth: AuthSettings,
    /// Headers of every request; their values may be keys.
    pub headers: Vec<(String, Secret)>,
    /// How it is trusted, and how it trusts us.
    pub tls: TlsSettings,
    /// Whether the proxy that the environment names (`HTTPS_PROXY`, `NO_PROXY`) is used.
    pub proxy_from_environment: bool,
    /// For a connection to be made, in milliseconds.
    pub connect_timeout_ms: i64,
    /// For an answer, in milliseconds.
    pub timeout_ms: i64,
}

/// Who we are to a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuthSettings {
    /// Nobody in particular.
    #[default]
    None,
    /// `Authorization: Bearer …`.
    Bearer(SecretFrom),
    /// A user and a password.
    Basic(String, SecretFrom),
}

/// Where a secret stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFrom {
    /// In the settings.
    Settings(Secret),
    /// In a file, which is read for every request, so that a rotated secret is in force at once.
    File(PathBuf),
}

/// How a peer is trusted, and how it trusts us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificates (PEM) of who is trusted, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key (PEM), for mutual TLS.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether anybody is trusted.
    pub insecure_skip_verify: bool,
}

impl Reader<'_> {
    /// The peer of `section`, for example `source`; `None` where it has no URL.
    pub(super) fn outbound(&mut self, section: &str) -> Option<OutboundSettings> {
        let key = |name: &str| format!("{section}.{name}");
        let auth = self.auth(section);
        let identity = self.identity(section);
        let settings = OutboundSettings {
            url: self.text(&key("url")).unwrap_or_default(),
            auth,
            headers: self.headers(&key("headers")),
            tls: TlsSettings {
                ca_file: self.optional_path(&key("tls.caFile")),
                identity,
                insecure_skip_verify: self.bool(&key("tls.insecureSkipVerify")),
            },
            proxy_from_environment: self.text(&key("proxy")).as_deref() == Some("environment"),
            connect_timeout_ms: self.duration_ms(&key("connectTimeout")),
            timeout_ms: self.duration_ms(&key("timeout")),
        };
        (!settings.url.is_empty()).then_some(settings)
    }

    fn auth(&mut self, section: &str) -> AuthSettings {
        let key = |name: &str| format!("{section}.{name}");
        let bearer = self.secret(section, "bearerToken", "bearerTokenFile");
        let password = self.secret(section, "password", "passwordFile");
        let user = self.text(&key("username"));
        let in_url = self
            .text(&key("url"))
            .and_then(|url| reqwest::Url::parse(&url).ok())
            .is_some_and(|url| !url.username().is_empty() || url.password().is_some());
        if in_url && (bearer.is_some() || user.is_some()) {
            let message = format!("{section}.url carries a user, and {section} says another one");
            self.mistake(&key("url"), message, "leave the user out of the URL");
        }
        match (bearer, user, password) {
            (None, None, None) => AuthSettings::None,
            (Some(token), None, None) => AuthSettings::Bearer(token),
            (None, Some(user), Some(password)) => AuthSettings::Basic(user, password),
            (None, Some(user), None) => {
                AuthSettings::Basic(user, SecretFrom::Settings(Secret::new("")))
            }
            (Some(_), _, _) => {
                let message = format!("{section} has both a bearer token and a user");
                self.mistake(&key("username"), message, "keep one of the two");
                AuthSettings::None
            }
            (None, None, Some(_)) => {
                let message = format!("{section} has a password without {section}.username");
                let at = match self.values.get(&key("password")) {
                    Some(_) => key("password"),
                    None => key("passwordFile"),
                };
                self.mistake(&at, message, "say whose password it is");
                AuthSettings::None
            }
        }
    }

    fn secret(&mut self, section: &str, inline: &str, file: &str) -> Option<SecretFrom> {
        let (inline, file) = (format!("{section}.{inline}"), format!("{section}.{file}"));
        let text = match self.values.get(&inline) {
            Some((Value::Secret(secret), _)) => Some(secret.clone()),
            _ => None,
        };
        match (text, self.optional_path(&file)) {
            (Some(_), Some(_)) => {
                let message = format!("{inline} and {file} are both set");
                self.mistake(&file, message, "keep one of the two");
                None
            }
            (Some(secret), None) => Some(SecretFrom::Settings(secret)),
            (None, Some(path)) => Some(SecretFrom::File(path)),
            (None, None) => None,
        }
    }

    fn identity(&mut self, section: &str) -> Option<(PathBuf, PathBuf)> {
        let (cert, key) = (
            format!("{section}.tls.certFile"),
            format!("{section}.tls.keyFile"),
        );
        match (self.optional_path(&cert), self.optional_path(&key)) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (found, _) => {
                let (there, missing) = match found {
                    Some(_) => (cert, key),
                    None => (key, cert),
                };
                let message = format!("{there} needs {missing}");
                self.mistake(
                    &there,
                    message,
                    "mutual TLS takes a certificate and its key",
                );
                None
            }
        }
    }

    fn headers(&self, key: &str) -> Vec<(String, Secret)> {
        match self.values.get(key) {
            Some((Value::Headers(headers), _)) => headers.clone(),
            _ => Vec::new(),
        }
    }

    fn optional_path(&self, key: &str) -> Option<PathBuf> {
        match self.values.get(key) {
            Some((Value::Path(path), _)) => Some(path.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, EngineSettings, Layers, Mistakes};

    fn load(env: &[(&str, &str)]) -> Result<OutboundSettings, Mistakes> {
        let base = [("KIND", "prometheus"), ("URL", "http://prometheus:9090")];
        let env = base
            .iter()
            .chain(env)
            .map(|(name, value)| (format!("SLOGATE_SOURCE_{name}"), (*value).to_owned()));
        let layers = Layers {
            env: env.collect(),
            ..Layers::default()
        };
        match Config::load(&layers)?.0.source.engine {
            EngineSettings::Prometheus(remote) => Ok(remote.peer),
            EngineSettings::Embedded => panic!("embedded"),
        }
    }

    #[test]
    fn a_peer_is_read_from_its_section() {
        let peer = load(&[
            ("USERNAME", "reader"),
            ("PASSWORD_FILE", "/run/secrets/password"),
            ("HEADERS", "X-Scope-OrgID=shop, X-Api-Key=k=1"),
            ("TLS_CA_FILE", "/ca.pem"),
            ("TLS_CERT_FILE", "/cert.pem"),
            ("TLS_KEY_FILE", "/key.pem"),
            ("PROXY", "environment"),
            ("TIMEOUT", "3s"),
        ])
        .unwrap();
        let file = SecretFrom::File("/run/secrets/password".into());
        assert_eq!(peer.auth, AuthSettings::Basic("reader".to_owned(), file));
        let headers: Vec<_> = peer
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.reveal()))
            .collect();
        assert_eq!(headers, [("X-Scope-OrgID", "shop"), ("X-Api-Key", "k=1")]);
        assert!(peer.tls.identity.is_some() && peer.proxy_from_environment);
        assert_eq!(peer.timeout_ms, 3000);
        assert!(!format!("{peer:?}").contains("k=1"));
        let token = load(&[("BEARER_TOKEN", "t0p")]).unwrap();
        assert_eq!(
            token.auth,
            AuthSettings::Bearer(SecretFrom::Settings(Secret::new("t0p")))
        );
    }

    #[test]
    fn the_export_has_an_endpoint_a_selector_and_labels() {
        let load = |env: &[(&str, &str)]| {
            let env = env
                .iter()
                .map(|(name, value)| (format!("SLOGATE_EXPORT_{name}"), (*value).to_owned()));
            let layers = Layers {
                env: env.collect(),
                ..Layers::default()
            };
            Config::load(&layers).map(|(config, _)| config.export)
        };
        assert_eq!(load(&[]).unwrap(), None, "nothing leaves unasked");
        let url = ("URL", "http://prometheus:9090/api/v1/write");
        let export = load(&[url, ("LABELS", "zone=z1"), ("QUEUE_SIZE_MAX", "2MiB")]);
        let export = export.unwrap().unwrap();
        let matches = |name: &str| export.matchers.iter().all(|m| m.matches(name));
        assert!(matches("slogate_verdict") && matches("traces_span_metrics_calls_total"));
        assert!(!matches("up") && !matches("slogate_"));
        assert_eq!(export.labels, [("zone".to_owned(), "z1".to_owned())]);
        assert_eq!(export.queue_max_bytes, 2 << 20);
        let error = load(&[url, ("MATCH", "sum(up)")]).unwrap_err().to_string();
        assert!(
            error.contains("export.match") && error.contains("selector"),
            "{error}"
        );
    }

    #[test]
    fn what_excludes_each_other_is_told() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (
                &[("BEARER_TOKEN", "a"), ("BEARER_TOKEN_FILE", "/b")],
                "are both set",
            ),
            (
                &[("BEARER_TOKEN", "a"), ("USERNAME", "b")],
                "both a bearer token and a user",
            ),
            (&[("PASSWORD", "a")], "without source.username"),
            (&[("TLS_CERT_FILE", "/a")], "needs source.tls.keyFile"),
            (
                &[("URL", "http://a:b@c"), ("USERNAME", "d")],
                "carries a user",
            ),
            (&[("HEADERS", "X-Scope-OrgID")], "is not"),
            (&[("HEADERS", "X Scope=a")], "is no header"),
        ];
        for (env, expected) in cases {
            let text = load(env).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
