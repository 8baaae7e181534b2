//! What a setting can hold, and how it is read from text.
//!
//! Durations are Prometheus's (`500ms`, `10s`, `1h30m`, `15d`, `2w`, `1y`); a bare number is
//! refused because nobody can see its unit. Sizes are binary (`64MiB`, `64Mi`) or bytes.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::secret::Secret;
use crate::model::time::{duration_ms, format_duration};

/// What a setting takes, with its limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// An IP address and a port.
    Address,
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number between both ends.
    Count {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A span of time in milliseconds between both ends.
    Duration {
        /// The shortest, in milliseconds.
        min_ms: i64,
        /// The longest, in milliseconds.
        max_ms: i64,
    },
    /// Headers of HTTP requests, whose values are kept hidden: a mapping in the file, elsewhere
    /// `name=value` separated by commas.
    Headers,
    /// Names and values: a mapping in the file, elsewhere `name=value` separated by commas.
    Pairs,
    /// A file or directory.
    Path,
    /// Several files or directories.
    Paths,
    /// Text that is shown nowhere.
    Secret,
    /// A number of bytes between both ends.
    Size {
        /// The least, in bytes.
        min: u64,
        /// The most, in bytes.
        max: u64,
    },
    /// Any text on one line.
    Text,
    /// An http or https URL.
    Url,
}

/// A setting's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of [`Kind::Address`].
    Address(SocketAddr),
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Count`].
    Count(u64),
    /// Of [`Kind::Duration`], in milliseconds.
    Duration(i64),
    /// Of [`Kind::Headers`].
    Headers(Vec<(String, Secret)>),
    /// Of [`Kind::Pairs`].
    Pairs(Vec<(String, String)>),
    /// Of [`Kind::Path`].
    Path(PathBuf),
    /// Of [`Kind::Paths`].
    Paths(Vec<PathBuf>),
    /// Of [`Kind::Secret`].
    Secret(Secret),
    /// Of [`Kind::Size`], in bytes.
    Size(u64),
    /// Of [`Kind::Text`], [`Kind::Choice`] and [`Kind::Url`].
    Text(String),
}

/// The longest text a setting may hold, in bytes.
const TEXT_MAX: usize = 4096;

/// The most entries of a mapping.
const ENTRIES_MAX: usize = 64;

impl Kind {
    /// A duration between both ends, in milliseconds.
    pub const fn duration(min_ms: i64, max_ms: i64) -> Self {
        Kind::Duration { min_ms, max_ms }
    }

    /// A whole number between both ends.
    pub const fn count(min: u64, max: u64) -> Self {
        Kind::Count { min, max }
    }

    /// A number of bytes between both ends.
    pub const fn size(min: u64, max: u64) -> Self {
        Kind::Size { min, max }
    }

    /// What stands for the value in help texts, for example `DURATION`.
    pub fn placeholder(self) -> &'static str {
        match self {
            Kind::Address => "ADDRESS",
            Kind::Bool => "BOOL",
            Kind::Choice(_) => "CHOICE",
            Kind::Count { .. } => "COUNT",
            Kind::Duration { .. } => "DURATION",
            Kind::Headers | Kind::Pairs => "NAME=VALUE,…",
            Kind::Path => "PATH",
            Kind::Paths => "PATHS",
            Kind::Secret => "SECRET",
            Kind::Size { .. } => "SIZE",
            Kind::Text => "TEXT",
            Kind::Url => "URL",
        }
    }

    /// Whether it is a mapping in the file.
    pub fn is_mapping(self) -> bool {
        matches!(self, Kind::Headers | Kind::Pairs)
    }

    /// Whether its values are shown nowhere.
    pub fn is_hidden(self) -> bool {
        matches!(self, Kind::Headers | Kind::Secret)
    }
}

/// What is expected, for messages and the reference: `a duration from 1s to 1m, …`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Address => f.write_str("an IP address and a port, for example 127.0.0.1:9560"),
            Kind::Bool => f.write_str("true or false"),
            Kind::Choice(words) => f.write_str(&words.join(" or ")),
            Kind::Count { min, max } => write!(f, "a whole number from {min} to {max}"),
            Kind::Duration { min_ms, max_ms } => write!(
                f,
                "a duration from {} to {}, for example 10s or 1h30m",
                Value::Duration(*min_ms),
                Value::Duration(*max_ms)
            ),
            Kind::Headers | Kind::Pairs => f.write_str(
                "a mapping of names to values; in the environment and as a flag `name=value` \
                 separated by commas",
            ),
            Kind::Path => f.write_str("a path"),
            Kind::Paths => f.write_str("a list of paths"),
            Kind::Secret => f.write_str("a line of text that is shown nowhere"),
            Kind::Size { min, max } => write!(
                f,
                "a size from {} to {}, for example 64MiB",
                Value::Size(*min),
                Value::Size(*max)
            ),
            Kind::Text => f.write_str("a line of text"),
            Kind::Url => f.write_str("a URL, for example http://127.0.0.1:9090"),
        }
    }
}

impl Value {
    /// Reads a value of `kind`; the error says what is wrong, without the place.
    ///
    /// # Errors
    /// Where `text` is not one, or is outside of the kind's limits.
    pub fn parse(kind: Kind, text: &str) -> Result<Value, String> {
        if text.len() > TEXT_MAX {
            return Err(format!("longer than {TEXT_MAX} bytes"));
        }
        let wrong = || match kind {
            _ if kind.is_hidden() => format!("its value is not {kind}"),
            _ => format!("{text:?} is not {kind}"),
        };
        match kind {
            Kind::Address => text.parse().map(Value::Address).map_err(|_| wrong()),
            Kind::Bool => match text {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(wrong()),
            },
            Kind::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Kind::Choice(_) => Err(wrong()),
            Kind::Count { min, max } => match text.parse() {
                Ok(n) if (min..=max).contains(&n) => Ok(Value::Count(n)),
                _ => Err(wrong()),
            },
            Kind::Duration { min_ms, max_ms } => match duration_ms(text) {
                Some(ms) if (min_ms..=max_ms).contains(&ms) => Ok(Value::Duration(ms)),
                None if text.parse::<f64>().is_ok() => {
                    Err(format!("{text:?} has no unit: expected {kind}"))
                }
                _ => Err(wrong()),
            },
            Kind::Headers | Kind::Pairs => {
                let entries = text.split(',').map(str::trim).filter(|one| !one.is_empty());
                let mut all = Value::no_entries(kind);
                for entry in entries {
                    let (name, value) = entry.split_once('=').ok_or_else(wrong)?;
                    all.add_entry(name.trim(), value.trim())?;
                }
                Ok(all)
            }
            Kind::Path if text.is_empty() => Err(wrong()),
            Kind::Path => Ok(Value::Path(PathBuf::from(text))),
            Kind::Paths => Ok(Value::Paths(
                text.split(',')
                    .map(str::trim)
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from)
                    .collect(),
            )),
            Kind::Secret if text.is_empty() || text.contains(['\n', '\r']) => Err(wrong()),
            Kind::Secret => Ok(Value::Secret(Secret::new(text))),
            Kind::Size { min, max } => match parse_size(text) {
                Some(n) if (min..=max).contains(&n) => Ok(Value::Size(n)),
                _ => Err(wrong()),
            },
            Kind::Text if text.is_empty() || text.contains(['\n', '\r']) => Err(wrong()),
            Kind::Text => Ok(Value::Text(text.to_owned())),
            Kind::Url => match parse_url(text) {
                true => Ok(Value::Text(text.trim_end_matches('/').to_owned())),
                false => Err(wrong()),
            },
        }
    }

    /// A mapping of `kind` without entries.
    pub fn no_entries(kind: Kind) -> Value {
        match kind {
            Kind::Headers => Value::Headers(Vec::new()),
            _ => Value::Pairs(Vec::new()),
        }
    }

    /// Adds an entry to a mapping; to any other value nothing.
    ///
    /// # Errors
    /// Where the name is empty or there already, the mapping is full, or it is one of headers
    /// and this can't be one.
    pub fn add_entry(&mut self, name: &str, value: &str) -> Result<(), String> {
        let names: Vec<&str> = match self {
            Value::Headers(entries) => entries.iter().map(|(name, _)| name.as_str()).collect(),
            Value::Pairs(entries) => entries.iter().map(|(name, _)| name.as_str()).collect(),
            _ => return Ok(()),
        };
        if name.is_empty() || names.contains(&name) {
            return Err(format!("{name:?} is empty or there twice"));
        }
        if names.len() >= ENTRIES_MAX || value.len() > TEXT_MAX {
            return Err(format!(
                "more than {ENTRIES_MAX} entries, or one longer than {TEXT_MAX} bytes"
            ));
        }
        match self {
            Value::Headers(entries) => {
                let is_header = name.parse::<http::HeaderName>().is_ok()
                    && value.parse::<http::HeaderValue>().is_ok();
                if !is_header {
                    return Err(format!(
                        "{name:?} is no header, or has a value that none can have"
                    ));
                }
                entries.push((name.to_owned(), Secret::new(value)));
            }
            Value::Pairs(entries) => entries.push((name.to_owned(), value.to_owned())),
            _ => {}
        }
        Ok(())
    }

    /// The value as JSON: numbers and booleans as such, everything else as the text it prints.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Bool(b) => (*b).into(),
            Value::Count(n) => (*n).into(),
            Value::Headers(entries) => json_object(
                entries
                    .iter()
                    .map(|(name, value)| (name, value.to_string())),
            ),
            Value::Pairs(entries) => {
                json_object(entries.iter().map(|(name, value)| (name, value.clone())))
            }
            Value::Paths(paths) => paths
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
            other => other.to_string().into(),
        }
    }
}

/// As it would be written in the file.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Address(address) => address.fmt(f),
            Value::Bool(b) => b.fmt(f),
            Value::Count(n) => n.fmt(f),
            Value::Duration(ms) => f.write_str(&format_duration(*ms)),
            Value::Headers(entries) => write_entries(f, entries),
            Value::Pairs(entries) => write_entries(f, entries),
            Value::Path(path) => path.display().fmt(f),
            Value::Paths(paths) => {
                for (n, path) in paths.iter().enumerate() {
                    let comma = if n == 0 { "" } else { "," };
                    write!(f, "{comma}{}", path.display())?;
                }
                Ok(())
            }
            Value::Secret(secret) => secret.fmt(f),
            Value::Size(bytes) => f.write_str(&format_size(*bytes)),
            Value::Text(text) => f.write_str(text),
        }
    }
}

fn write_entries(
    f: &mut fmt::Formatter<'_>,
    entries: &[(String, impl fmt::Display)],
) -> fmt::Result {
    for (n, (name, value)) in entries.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        write!(f, "{comma}{name}={value}")?;
    }
    Ok(())
}

fn json_object<'a>(entries: impl Iterator<Item = (&'a String, String)>) -> serde_json::Value {
    let entries = entries.map(|(name, value)| (name.clone(), value.into()));
    serde_json::Value::Object(entries.collect())
}

/// `url` as it may be shown, in verdicts and in the effective configuration: without user and
/// password, and without a slash at its end.
pub fn without_credentials(url: &str) -> String {
    let Ok(mut shown) = reqwest::Url::parse(url) else {
        // It can't be told where a password would be.
        return match url.rsplit_once('@') {
            Some((_, host)) => format!("…@{host}"),
            None => url.to_owned(),
        };
    };
    // Only a URL without a host refuses, and that has no credentials.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.as_str().trim_end_matches('/').to_owned()
}

/// Units of size, largest first, in bytes.
const SIZE_UNITS: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

/// Bytes of `64MiB`, `64Mi` or `67108864`.
fn parse_size(text: &str) -> Option<u64> {
    for (name, unit) in SIZE_UNITS {
        let number = text
            .strip_suffix(name)
            .or_else(|| text.strip_suffix(&name[..2]));
        if let Some(number) = number {
            return number.trim_end().parse::<u64>().ok()?.checked_mul(unit);
        }
    }
    text.strip_suffix('B').unwrap_or(text).parse().ok()
}

fn format_size(bytes: u64) -> String {
    let unit = SIZE_UNITS
        .iter()
        .find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    match unit {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// Whether `text` is an http or https URL with a host and no spaces.
fn parse_url(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A source's name and its errors stand in verdicts, which are public and kept.
    #[test]
    fn a_password_in_the_url_is_shown_nowhere() {
        let shown = without_credentials("http://reader:hunter2@prometheus:9090/base/");
        assert_eq!(shown, "http://prometheus:9090/base");
        assert_eq!(
            without_credentials("http://prometheus:9090"),
            "http://prometheus:9090"
        );
        let broken = without_credentials("http//reader:hunter2@prometheus:9090");
        assert_eq!(broken, "…@prometheus:9090");
    }

    #[test]
    fn sizes_are_binary() {
        let cases = [
            ("64MiB", Some(64 << 20)),
            ("64Mi", Some(64 << 20)),
            ("2 GiB", Some(2 << 30)),
            ("1000", Some(1000)),
            ("1000B", Some(1000)),
            ("64MB", None),
            ("-1", None),
            ("99999999TiB", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    #[test]
    fn messages_say_what_is_expected() {
        let kind = Kind::duration(1000, 60_000);
        assert_eq!(
            Value::parse(kind, "10").unwrap_err(),
            "\"10\" has no unit: expected a duration from 1s to 1m, for example 10s or 1h30m"
        );
        assert_eq!(
            Value::parse(Kind::Address, "localhost:1").unwrap_err(),
            "\"localhost:1\" is not an IP address and a port, for example 127.0.0.1:9560"
        );
        assert_eq!(
            Value::parse(Kind::Choice(&["grpc", "http"]), "udp").unwrap_err(),
            "\"udp\" is not grpc or http"
        );
        assert!(Value::parse(Kind::Url, "ftp://x").is_err());
        assert!(Value::parse(Kind::Url, "http://a b").is_err());
        assert!(Value::parse(Kind::count(1, 5), "6").is_err());
        assert!(Value::parse(Kind::Text, &"x".repeat(5000)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(bytes in 0u64..1 << 50) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse_size(&text);
            let _ = parse_url(&text);
        }
    }
}
