//! Bodies: read, decompressed and held within bounds.
//!
//! Every byte of every body passes through here, whatever the transport. Policy:
//!
//! - **Nothing is allocated on a sender's word.** A declared length only refuses early; memory
//!   grows with the bytes that are there.
//! - **A body has a size on the wire and a size after decompression**, each bounded. Decompression
//!   runs in steps and stops at the first byte over; a bomb costs one limit, never its promise.
//! - **All bodies together share one budget** ([`Budget`]). Over it the sender is told to come
//!   back, which OTLP senders do, and nothing that was accepted is lost.
//! - **A refusal is said when it will be heard.** The rest of a body that is too large is read and
//!   thrown away first, within bounds and not when the sender has gone quiet.
//! - **A body has a deadline as a whole.** A sender that trickles a byte now and then does not
//!   renew it.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// How much of a decompressed body is produced between two looks at the limits.
const STEP_BYTES: usize = 64 * 1024;

/// The most of a body over the limit that is read before the answer, in bytes.
const DISCARD_BYTES_MAX: usize = 256 << 20;

/// A sender of too much that is quiet for this long waits for its answer.
const DISCARD_QUIET: Duration = Duration::from_secs(1);

/// The largest window a zstd frame may ask for, as a power of two: 8 MiB, which every level up
/// to 19 keeps.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The most that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes of one body as received.
    pub wire_bytes_max: usize,
    /// Bytes of one body after decompression.
    pub body_bytes_max: usize,
    /// From a request's header to the last byte of its body.
    pub deadline: Duration,
}

impl Default for BodyLimits {
    fn default() -> Self {
        BodyLimits {
            wire_bytes_max: 64 << 20,
            body_bytes_max: 64 << 20,
            deadline: Duration::from_secs(30),
        }
    }
}

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Larger than allowed, on the wire or after decompression.
    #[error("the body is larger than {limit} bytes {when}; send smaller batches")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// `as received` or `after decompression`.
        when: &'static str,
    },
    /// All bodies together are more than is held at a time.
    #[error("too many bytes of requests are in flight; try again in a moment")]
    Overloaded,
    /// The last byte did not come in time.
    #[error("the body was not complete within {} s", .0.as_secs_f64())]
    Late(Duration),
    /// The connection ended before the body did.
    #[error("the body ended early: {0}")]
    Broken(String),
    /// The compressed form is not what its name says.
    #[error("the body is not valid {encoding}: {error}")]
    Corrupt {
        /// How it was said to be compressed.
        encoding: &'static str,
        /// What the decoder found.
        error: io::Error,
    },
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// The encoding of a `content-encoding` or `grpc-encoding` value, case-insensitive; `None`
    /// for one that is not spoken, including a list of several.
    pub fn parse(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Encoding::Identity),
            "gzip" | "x-gzip" => Some(Encoding::Gzip),
            "zstd" => Some(Encoding::Zstd),
            _ => None,
        }
    }

    /// Its name in headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Zstd => "zstd",
        }
    }
}

/// The bytes that all bodies may hold together. Clones share one budget.
#[derive(Clone, Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    total: usize,
}

impl Budget {
    /// A budget of `total` bytes.
    pub fn new(total: usize) -> Self {
        let total = total.min(Semaphore::MAX_PERMITS);
        Budget {
            free: Arc::new(Semaphore::new(total)),
            total,
        }
    }

    /// The whole budget in bytes.
    pub fn total(&self) -> usize {
        self.total
    }

    /// What is held now, in bytes.
    pub fn held(&self) -> usize {
        self.total.saturating_sub(self.free.available_permits())
    }

    /// A hold on nothing yet.
    pub fn hold(&self) -> Hold {
        Hold {
            budget: self.clone(),
            permit: None,
        }
    }
}

/// Bytes held of a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Hold {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
}

impl Hold {
    /// Holds `bytes` more.
    ///
    /// # Errors
    /// [`BodyError::Overloaded`] where the budget has not that much left.
    pub fn grow(&mut self, bytes: usize) -> Result<(), BodyError> {
        let bytes = u32::try_from(bytes).map_err(|_| BodyError::Overloaded)?;
        let more = self.budget.free.clone().try_acquire_many_owned(bytes);
        let more = more.map_err(|_| BodyError::Overloaded)?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Gives back all but `bytes`.
    fn shrink_to(&mut self, bytes: usize) {
        let Some(permit) = &mut self.permit else {
            return;
        };
        let surplus = permit.num_permits().saturating_sub(bytes);
        drop(permit.split(surplus));
    }
}

/// A body in memory and its share of the budget.
#[derive(Debug)]
pub struct Held {
    /// The bytes.
    pub bytes: Bytes,
    /// How many there were on the wire.
    pub wire_bytes: usize,
    hold: Hold,
}

/// Reads `body` to its end, still compressed.
///
/// # Errors
/// See [`BodyError`].
pub async fn read(mut body: Body, limits: &BodyLimits, budget: &Budget) -> Result<Held, BodyError> {
    let deadline = limits.deadline;
    let ends = Instant::now() + deadline;
    let reading = read_all(&mut body, limits.wire_bytes_max, budget);
    let result = timeout_at(ends, reading).await;
    let result = result.map_err(|_| BodyError::Late(deadline))?;
    if matches!(result, Err(BodyError::TooLarge { .. })) {
        // In time or not, the answer stays that it is too large.
        let _ = timeout_at(ends, discard(body)).await;
    }
    result
}

async fn read_all(body: &mut Body, limit: usize, budget: &Budget) -> Result<Held, BodyError> {
    let too_large = || BodyError::TooLarge {
        limit,
        when: "as received",
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut hold = budget.hold();
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if data.len() > limit.saturating_sub(first.len() + all.len()) {
            return Err(too_large());
        }
        hold.grow(data.len())?;
        // Most bodies of HTTP/1 come as one frame: that one is kept as it is.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    let bytes = if first.is_empty() {
        all.freeze()
    } else {
        first
    };
    Ok(Held {
        wire_bytes: bytes.len(),
        bytes,
        hold,
    })
}

/// Reads what is left of a body and throws it away, up to [`DISCARD_BYTES_MAX`]: most clients
/// read no answer before they have sent all, and would take a closed connection for a broken
/// network and try again.
async fn discard(mut body: Body) {
    let mut left = DISCARD_BYTES_MAX;
    if body.size_hint().lower() > left as u64 {
        return;
    }
    while let Ok(Some(Ok(frame))) = timeout(DISCARD_QUIET, body.frame()).await {
        let read = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(read) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

impl Held {
    /// Drops the first `count` bytes, for example a frame's header.
    pub fn advance(&mut self, count: usize) {
        self.bytes.advance(count.min(self.bytes.len()));
    }

    /// The body decompressed from snappy's block format, which remote write uses. The block says
    /// first how long it is; that is checked against the limit and against what is possible.
    ///
    /// # Errors
    /// Over the limit or the budget, and where the bytes are no such block.
    pub fn decode_snappy(mut self, limit: usize) -> Result<Held, BodyError> {
        let length = snappy_length(&self.bytes)?;
        if length > limit {
            return Err(BodyError::TooLarge {
                limit,
                when: "after decompression",
            });
        }
        self.hold.grow(length)?;
        let mut decoder = snap::raw::Decoder::new();
        let bytes = decoder
            .decompress_vec(&self.bytes)
            .map_err(corrupt_snappy)?;
        self.bytes = Bytes::from(bytes);
        self.hold.shrink_to(self.bytes.len());
        Ok(self)
    }

    /// The body decompressed, at most `limit` bytes of it.
    ///
    /// # Errors
    /// Over the limit or the budget, and where the bytes are not what `encoding` says.
    pub fn decode(mut self, encoding: Encoding, limit: usize) -> Result<Held, BodyError> {
        let bytes = match encoding {
            Encoding::Identity if self.bytes.len() > limit => {
                return Err(BodyError::TooLarge {
                    limit,
                    when: "after decompression",
                });
            }
            Encoding::Identity => return Ok(self),
            Encoding::Gzip => {
                let decoder = flate2::bufread::MultiGzDecoder::new(&self.bytes[..]);
                inflate(decoder, encoding, limit, &mut self.hold)?
            }
            Encoding::Zstd => {
                let corrupt = |error| BodyError::Corrupt {
                    encoding: encoding.as_str(),
                    error,
                };
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(&self.bytes[..]).map_err(corrupt)?;
                let window = decoder.window_log_max(ZSTD_WINDOW_LOG_MAX);
                window.map_err(corrupt)?;
                inflate(decoder, encoding, limit, &mut self.hold)?
            }
        };
        self.bytes = bytes;
        self.hold.shrink_to(self.bytes.len());
        Ok(self)
    }
}

/// The most bytes that one byte of snappy's block format can stand for: a copy of 64 takes three.
const SNAPPY_RATIO_MAX: usize = 22;

/// The length that a snappy block says it has, where that can be true.
fn snappy_length(block: &[u8]) -> Result<usize, BodyError> {
    let claimed = snap::raw::decompress_len(block).map_err(corrupt_snappy)?;
    if claimed > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        let error = format!("{} bytes can't hold {claimed}", block.len());
        return Err(corrupt_snappy(error));
    }
    Ok(claimed)
}

fn corrupt_snappy(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BodyError {
    BodyError::Corrupt {
        encoding: "snappy",
        error: io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

/// Reads `decoder` in steps, each within the limit and the budget before it is taken.
fn inflate(
    mut decoder: impl Read,
    encoding: Encoding,
    limit: usize,
    hold: &mut Hold,
) -> Result<Bytes, BodyError> {
    let mut out = Vec::new();
    let mut step = vec![0_u8; STEP_BYTES];
    loop {
        let count = match decoder.read(&mut step) {
            Ok(0) => return Ok(Bytes::from(out)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(BodyError::Corrupt {
                    encoding: encoding.as_str(),
                    error,
                });
            }
        };
        if count > limit - out.len() {
            return Err(BodyError::TooLarge {
                limit,
                when: "after decompression",
            });
        }
        hold.grow(count)?;
        out.extend_from_slice(step.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn held(bytes: impl Into<Bytes>, budget: &Budget) -> Held {
        let bytes = bytes.into();
        let mut hold = budget.hold();
        hold.grow(bytes.len()).unwrap();
        Held {
            wire_bytes: bytes.len(),
            bytes,
            hold,
        }
    }

    #[test]
    fn a_bomb_costs_one_limit_and_gives_everything_back() {
        let zeros = vec![0_u8; 16 << 20];
        let budget = Budget::new(8 << 20);
        for (encoding, bomb) in [
            (Encoding::Gzip, gzip(&zeros)),
            (Encoding::Zstd, zstd::encode_all(&zeros[..], 1).unwrap()),
        ] {
            let error = held(bomb, &budget).decode(encoding, 1 << 20).unwrap_err();
            assert!(
                matches!(error, BodyError::TooLarge { limit, .. } if limit == 1 << 20),
                "{error}"
            );
            assert_eq!(budget.held(), 0);
        }
    }

    #[test]
    fn a_body_over_the_budget_is_overload_and_not_too_large() {
        let budget = Budget::new(1 << 20);
        let body = held(gzip(&vec![7_u8; 4 << 20]), &budget);
        let error = body.decode(Encoding::Gzip, 64 << 20).unwrap_err();
        assert!(matches!(error, BodyError::Overloaded), "{error}");
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_decoded_body_holds_what_it_occupies() {
        let budget = Budget::new(64 << 20);
        let body = held(gzip(&vec![7_u8; 1 << 20]), &budget);
        let body = body.decode(Encoding::Gzip, 64 << 20).unwrap();
        assert_eq!(body.bytes.len(), 1 << 20);
        assert_eq!(budget.held(), 1 << 20, "the compressed form is given back");
        drop(body);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn truncated_and_wrong_bodies_are_corrupt() {
        let budget = Budget::new(1 << 20);
        let whole = gzip(b"hello, this is a body");
        for bytes in [&whole[..whole.len() / 2], b"not gzip at all", b""] {
            let body = held(bytes.to_vec(), &budget);
            let result = body.decode(Encoding::Gzip, 1 << 20);
            assert!(
                matches!(result, Err(BodyError::Corrupt { .. })),
                "{bytes:?}"
            );
        }
        let body = held(b"not zstd either".to_vec(), &budget);
        let result = body.decode(Encoding::Zstd, 1 << 20);
        assert!(matches!(result, Err(BodyError::Corrupt { .. })));
    }

    #[test]
    fn snappy_says_its_length_and_is_not_believed() {
        let budget = Budget::new(8 << 20);
        let block = snap::raw::Encoder::new()
            .compress_vec(&vec![7_u8; 1 << 20])
            .unwrap();
        let body = held(block.clone(), &budget).decode_snappy(1 << 20).unwrap();
        assert_eq!((body.bytes.len(), budget.held()), (1 << 20, 1 << 20));
        drop(body);
        let error = held(block.clone(), &budget)
            .decode_snappy(1 << 19)
            .unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { .. }), "{error}");
        // Four gigabytes in five bytes.
        let lie = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
        for bytes in [lie, Vec::new(), block[..block.len() / 2].to_vec()] {
            let error = held(bytes, &budget).decode_snappy(8 << 30).unwrap_err();
            assert!(matches!(error, BodyError::Corrupt { .. }), "{error}");
        }
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn encodings_are_named_as_in_headers() {
        assert_eq!(Encoding::parse(" GZIP "), Some(Encoding::Gzip));
        assert_eq!(Encoding::parse("identity"), Some(Encoding::Identity));
        assert_eq!(Encoding::parse("gzip, zstd"), None);
        assert_eq!(Encoding::parse("br"), None);
    }

    #[tokio::test]
    async fn frames_are_joined_and_counted() {
        let budget = Budget::new(100);
        let frames = ["ab", "cd", "e"].map(|text| Ok::<_, io::Error>(Bytes::from(text)));
        let body = Body::from_stream(futures_util::stream::iter(frames));
        let body = read(body, &BodyLimits::default(), &budget).await.unwrap();
        assert_eq!((&body.bytes[..], budget.held()), (&b"abcde"[..], 5));
    }

    #[tokio::test]
    async fn a_body_that_trickles_is_cut_at_its_deadline() {
        let trickle = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, io::Error>(Bytes::from_static(b"x")), ()))
        });
        let limits = BodyLimits {
            deadline: Duration::from_millis(60),
            ..BodyLimits::default()
        };
        let budget = Budget::new(1 << 20);
        let error = read(Body::from_stream(trickle), &limits, &budget)
            .await
            .unwrap_err();
        assert!(matches!(error, BodyError::Late(_)), "{error}");
        assert_eq!(budget.held(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_compressed_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..20_000)) {
            let budget = Budget::new(1 << 20);
            for (encoding, packed) in [
                (Encoding::Gzip, gzip(&bytes)),
                (Encoding::Zstd, zstd::encode_all(&bytes[..], 1).unwrap()),
            ] {
                let body = held(packed, &budget).decode(encoding, 20_000).unwrap();
                prop_assert_eq!(&body.bytes[..], &bytes[..]);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let budget = Budget::new(1 << 20);
            for encoding in [Encoding::Gzip, Encoding::Zstd] {
                let _ = held(bytes.clone(), &budget).decode(encoding, 10_000);
            }
        }
    }
}
