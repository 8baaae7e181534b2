//! Answers: JSON, compressed as the client accepts it.
//!
//! Results can be many megabytes, so they are written and compressed off the async workers.
//! As in Prometheus, of gzip and deflate the one that `accept-encoding` names first is taken.

use std::io::Write as _;

use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue};

use super::error::Failure;
use super::json;

/// The most warnings, and the most infos, in one answer; how many more there were is said.
const NOTES_MAX: usize = 10;

/// How an answer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Deflate,
}

impl Coding {
    /// What the client accepts.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT_ENCODING).iter();
        let accepted = accepted.filter_map(|value| value.to_str().ok());
        for one in accepted.flat_map(|value| value.split(',')) {
            let (name, weight) = one.split_once(';').unwrap_or((one, ""));
            let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
            let is_refused = weight.parse() == Ok(0.0_f32);
            match name.trim().to_ascii_lowercase().as_str() {
                "gzip" if !is_refused => return Coding::Gzip,
                "deflate" if !is_refused => return Coding::Deflate,
                _ => {}
            }
        }
        Coding::Identity
    }

    fn name(self) -> &'static str {
        match self {
            Coding::Identity => "identity",
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
        }
    }

    fn encode(self, body: Vec<u8>) -> std::io::Result<Vec<u8>> {
        // JSON of numbers gains little from more effort.
        let level = Compression::fast();
        match self {
            Coding::Identity => Ok(body),
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), level);
                encoder.write_all(&body)?;
                encoder.finish()
            }
            Coding::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::with_capacity(body.len() / 4), level);
                encoder.write_all(&body)?;
                encoder.finish()
            }
        }
    }
}

/// What is to be said about a result besides it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// The result may be incomplete or wrong.
    pub(super) warnings: Vec<String>,
    /// The query may not mean what was meant.
    pub(super) infos: Vec<String>,
}

impl Notes {
    /// Says that a limit left some of the results out.
    pub(super) fn truncated(&mut self) {
        self.warnings
            .push("results truncated due to limit".to_owned());
    }

    fn write(&self, out: &mut Vec<u8>) {
        for (key, kind, notes) in [
            (",\"warnings\":", "warning", &self.warnings),
            (",\"infos\":", "info", &self.infos),
        ] {
            if notes.is_empty() {
                continue;
            }
            let mut shown: Vec<&str> = notes.iter().take(NOTES_MAX).map(String::as_str).collect();
            let left = notes.len().saturating_sub(NOTES_MAX);
            let omitted = format!("{left} more {kind} annotations omitted");
            if left > 0 {
                shown.push(&omitted);
            }
            json::raw(out, key);
            json::texts(out, &shown);
        }
    }
}

/// The whole body of a success: the envelope around what `data` writes.
pub(super) fn success(notes: &Notes, data: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    json::raw(&mut out, "{\"status\":\"success\",\"data\":");
    data(&mut out);
    notes.write(&mut out);
    out.push(b'}');
    out
}

/// Answers with the body that `write` makes, off the async workers.
pub(super) async fn answer<F>(coding: Coding, write: F) -> Result<Response, Failure>
where
    F: FnOnce() -> Result<Vec<u8>, Failure> + Send + 'static,
{
    let written = tokio::task::spawn_blocking(move || {
        let body = write()?;
        coding
            .encode(body)
            .map_err(|error| Failure::internal(&error))
    });
    let body = written.await.map_err(|error| Failure::internal(&error))??;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (VARY, HeaderValue::from_static("Accept-Encoding")),
    ];
    let mut response = (headers, body).into_response();
    // Said of the identity too, so that nothing further out compresses again.
    let name = HeaderValue::from_static(coding.name());
    if coding != Coding::Identity {
        response.headers_mut().insert(CONTENT_ENCODING, name);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn coding(accepted: &'static str) -> Coding {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accepted));
        Coding::of(&headers)
    }

    #[test]
    fn the_first_coding_that_is_known_is_taken() {
        assert_eq!(coding("gzip, deflate, br"), Coding::Gzip);
        assert_eq!(coding("br, deflate, gzip"), Coding::Deflate);
        assert_eq!(coding("GZIP;q=0.5"), Coding::Gzip);
        assert_eq!(coding("gzip;q=0, deflate;q=0.0"), Coding::Identity);
        assert_eq!(coding("br"), Coding::Identity);
        assert_eq!(Coding::of(&HeaderMap::new()), Coding::Identity);
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let body = b"[1,\"2\"],".repeat(1000);
        let mut plain = Vec::new();
        let gzip = Coding::Gzip.encode(body.clone()).unwrap();
        assert!(gzip.len() < 200, "{}", gzip.len());
        flate2::read::GzDecoder::new(gzip.as_slice())
            .read_to_end(&mut plain)
            .unwrap();
        assert_eq!(plain, body);
        plain.clear();
        let deflate = Coding::Deflate.encode(body.clone()).unwrap();
        flate2::read::ZlibDecoder::new(deflate.as_slice())
            .read_to_end(&mut plain)
            .unwrap();
        assert_eq!(plain, body);
    }

    #[test]
    fn ten_notes_of_each_kind_are_shown() {
        let mut notes = Notes::default();
        let body =
            |notes: &Notes| String::from_utf8(success(notes, |out| json::raw(out, "[]"))).unwrap();
        assert_eq!(body(&notes), r#"{"status":"success","data":[]}"#);
        notes.truncated();
        assert_eq!(
            body(&notes),
            r#"{"status":"success","data":[],"warnings":["results truncated due to limit"]}"#
        );
        notes.infos = (0..13).map(|n| format!("i{n}")).collect();
        let text = body(&notes);
        assert!(
            text.ends_with(r#""i8","i9","3 more info annotations omitted"]}"#),
            "{text}"
        );
        assert!(text.contains(r#","infos":["i0","#), "{text}");
    }
}
