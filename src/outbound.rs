//! HTTP clients to the outside.
//!
//! Everything that slogate calls by itself (a remote source, a remote-write endpoint) is called
//! through here, so that credentials, trust and time limits mean the same everywhere:
//!
//! - **Redirects are not followed.** They would carry headers with keys to another host; the
//!   answer says where it points, and whoever set the URL can correct it.
//! - **A token or password in a file is read for every request**, and certificates are read
//!   again when their files change, so that a rotated one is in force without a restart. Where a
//!   new certificate can't be read, the old one stays in use and the log says so.
//! - **A CA file replaces the system's authorities**, it does not add to them.
//! - **No proxy** unless the settings say `environment`.
//! - **Nothing secret is shown**: names of peers have no user and password, errors no URL.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Identity, Method, RequestBuilder, Url};

use crate::config::value::without_credentials;
use crate::config::{AuthSettings, OutboundSettings, Secret, SecretFrom, TlsSettings};

/// Who calls.
const USER_AGENT: &str = concat!("slogate/", env!("CARGO_PKG_VERSION"));

/// The largest file with a secret or certificates, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// An HTTP peer, ready to be called.
pub struct Outbound {
    settings: OutboundSettings,
    /// Without user and password.
    base: Url,
    /// As it may be shown.
    name: String,
    auth: AuthSettings,
    headers: HeaderMap,
    built: Mutex<Built>,
}

/// A client, and its certificate files as they were when it was made.
#[derive(Clone)]
struct Built {
    client: Client,
    stamps: Vec<Option<(SystemTime, u64)>>,
}

/// Why a peer can't be called.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The URL is none.
    #[error("{0} is not a URL of an HTTP server")]
    Url(String),
    /// A file can't be used.
    #[error("{path}: {reason}")]
    File {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No client can be made of the settings.
    #[error("no HTTP client: {0}")]
    Client(String),
}

impl Outbound {
    /// Reads the certificates and makes a client.
    ///
    /// # Errors
    /// When the URL or a file can't be used.
    pub fn new(settings: &OutboundSettings) -> Result<Self, OutboundError> {
        let name = without_credentials(&settings.url);
        let mut base = Url::parse(&settings.url).map_err(|_| OutboundError::Url(name.clone()))?;
        let auth = match (base.username(), base.password()) {
            ("", None) => settings.auth.clone(),
            (user, password) => {
                let password = Secret::new(decoded(password.unwrap_or_default()));
                AuthSettings::Basic(decoded(user), SecretFrom::Settings(password))
            }
        };
        if base.set_username("").is_err() || base.set_password(None).is_err() {
            return Err(OutboundError::Url(name));
        }
        let built = Mutex::new(build(settings)?);
        Ok(Outbound {
            base,
            name,
            auth,
            headers: headers(settings)?,
            built,
            settings: settings.clone(),
        })
    }

    /// The peer's URL without user and password, for logs, errors and evidence.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A request to `path` below the base URL, or to the base URL itself where it is empty; with
    /// credentials, headers and time limits. Reads the files with secrets.
    ///
    /// # Errors
    /// When a file with a secret can't be read.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
    ) -> Result<RequestBuilder, OutboundError> {
        let client = self.client().await;
        let mut url = self.base.clone();
        if !path.is_empty() {
            let below = format!(
                "{}/{}",
                url.path().trim_end_matches('/'),
                path.trim_start_matches('/')
            );
            url.set_path(&below);
        }
        let request = client.request(method, url).headers(self.headers.clone());
        Ok(match &self.auth {
            AuthSettings::None => request,
            AuthSettings::Bearer(token) => request.bearer_auth(reveal(token).await?.reveal()),
            AuthSettings::Basic(user, password) => {
                request.basic_auth(user, Some(reveal(password).await?.reveal()))
            }
        })
    }

    /// The client, made anew where its certificates have changed.
    async fn client(&self) -> Client {
        let built = self.built.lock().clone();
        if built.stamps.is_empty() {
            return built.client;
        }
        let settings = self.settings.clone();
        let renewed = tokio::task::spawn_blocking(move || {
            (stamps(&settings.tls) != built.stamps).then(|| build(&settings))
        });
        match renewed.await {
            Ok(Some(Ok(fresh))) => {
                tracing::info!(peer = %self.name, "certificates were read again");
                *self.built.lock() = fresh.clone();
                fresh.client
            }
            Ok(Some(Err(error))) => {
                tracing::warn!(peer = %self.name, %error, "new certificates can't be used");
                built.client
            }
            _ => built.client,
        }
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// An error of the client with its causes, since its own text leaves out why; without the URL.
pub fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn build(settings: &OutboundSettings) -> Result<Built, OutboundError> {
    let tls = &settings.tls;
    // Before the files are read: what changes in between is seen at the next request.
    let stamps = stamps(tls);
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(millis(settings.connect_timeout_ms))
        .timeout(millis(settings.timeout_ms));
    if !settings.proxy_from_environment {
        builder = builder.no_proxy();
    }
    if let Some(path) = &tls.ca_file {
        let found = Certificate::from_pem_bundle(&read(path)?);
        let found = found.map_err(|error| unusable(path, reason(error)))?;
        if found.is_empty() {
            return Err(unusable(path, "holds no certificate in PEM".to_owned()));
        }
        builder = builder.tls_certs_only(found);
    }
    if let Some((cert, key)) = &tls.identity {
        let mut pem = read(cert)?;
        pem.push(b'\n');
        pem.extend(read(key)?);
        let identity = Identity::from_pem(&pem);
        let identity = identity.map_err(|error| unusable(cert, reason(error)))?;
        builder = builder.identity(identity);
    }
    if tls.insecure_skip_verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    let client = builder.build();
    Ok(Built {
        client: client.map_err(|error| OutboundError::Client(reason(error)))?,
        stamps,
    })
}

fn unusable(path: &Path, reason: String) -> OutboundError {
    OutboundError::File {
        path: path.to_owned(),
        reason,
    }
}

/// When the certificate files were written and how long they are; empty without such files.
fn stamps(tls: &TlsSettings) -> Vec<Option<(SystemTime, u64)>> {
    let identity = tls.identity.iter().flat_map(|(cert, key)| [cert, key]);
    let files = tls.ca_file.iter().chain(identity);
    files
        .map(|path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len()))
        })
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>, OutboundError> {
    let fail = |error: std::io::Error| unusable(path, error.to_string());
    let size = std::fs::metadata(path).map_err(fail)?.len();
    if size > FILE_MAX {
        return Err(unusable(path, format!("is larger than {FILE_MAX} bytes")));
    }
    std::fs::read(path).map_err(fail)
}

fn headers(settings: &OutboundSettings) -> Result<HeaderMap, OutboundError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let wrong = || OutboundError::Client(format!("{name:?} is no header"));
        let name: HeaderName = name.parse().map_err(|_| wrong())?;
        let mut value: HeaderValue = value.reveal().parse().map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

async fn reveal(secret: &SecretFrom) -> Result<Secret, OutboundError> {
    let path = match secret {
        SecretFrom::Settings(secret) => return Ok(secret.clone()),
        SecretFrom::File(path) => path.clone(),
    };
    let reading = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || read(&path))
    };
    let bytes = match reading.await {
        Ok(bytes) => bytes?,
        Err(error) => return Err(unusable(&path, error.to_string())),
    };
    let text = String::from_utf8(bytes).map_err(|_| unusable(&path, "is not text".to_owned()))?;
    match text.trim() {
        "" => Err(unusable(&path, "is empty".to_owned())),
        text => Ok(Secret::new(text)),
    }
}

/// A user or password of a URL without its percent escapes.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = text
            .get(at + 1..at + 3)
            .filter(|_| *byte == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        plain.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests;
