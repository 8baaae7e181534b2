//! Which series `limit_ratio` keeps: those whose labels hash into the wanted share.
//!
//! The hash is Prometheus's (XXH64 of its label encoding), so that the same series are
//! kept here and there, and `limit_ratio(0.2, x)` and `limit_ratio(-0.8, x)` make up `x`.
//! Sources: the xxHash specification; Prometheus `model/labels/labels_stringlabels.go`.

use slogate_series::Labels;

/// Whether a series belongs to the share `ratio`, from -1 to 1; negative shares are the
/// complement of positive ones.
pub(crate) fn keeps(ratio: f64, labels: &Labels) -> bool {
    let place = xxh64(&encoded(labels)) as f64 / u64::MAX as f64;
    if ratio >= 0.0 {
        place < ratio
    } else {
        place >= 1.0 + ratio
    }
}

/// Names and values in order, each after its length: one byte, or 255 and three.
fn encoded(labels: &Labels) -> Vec<u8> {
    let mut out = Vec::new();
    for text in labels.iter().flat_map(|label| [&label.name, &label.value]) {
        match u8::try_from(text.len()) {
            Ok(length) if length < 255 => out.push(length),
            _ => {
                out.push(255);
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                out.extend(length.to_le_bytes().iter().take(3));
            }
        }
        out.extend_from_slice(text.as_bytes());
    }
    out
}

const PRIMES: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];

fn xxh64(bytes: &[u8]) -> u64 {
    let [p1, p2, p3, p4, p5] = PRIMES;
    let (stripes, mut rest) = bytes.as_chunks::<32>();
    let mut hash = p5;
    if !stripes.is_empty() {
        let mut lanes = [p1.wrapping_add(p2), p2, 0, 0_u64.wrapping_sub(p1)];
        for stripe in stripes {
            let (words, _) = stripe.as_chunks::<8>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane = round(*lane, u64::from_le_bytes(*word));
            }
        }
        let turns = lanes
            .iter()
            .zip([1, 7, 12, 18])
            .map(|(lane, by)| lane.rotate_left(by));
        hash = turns.fold(0, u64::wrapping_add);
        for lane in lanes {
            hash = (hash ^ round(0, lane)).wrapping_mul(p1).wrapping_add(p4);
        }
    }
    hash = hash.wrapping_add(bytes.len() as u64);
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        hash ^= round(0, u64::from_le_bytes(*word));
        hash = hash.rotate_left(27).wrapping_mul(p1).wrapping_add(p4);
        rest = after;
    }
    if let Some((word, after)) = rest.split_first_chunk::<4>() {
        hash ^= u64::from(u32::from_le_bytes(*word)).wrapping_mul(p1);
        hash = hash.rotate_left(23).wrapping_mul(p2).wrapping_add(p3);
        rest = after;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(p5))
            .rotate_left(11)
            .wrapping_mul(p1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(p2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(p3);
    hash ^ (hash >> 32)
}

fn round(lane: u64, word: u64) -> u64 {
    let [p1, p2, ..] = PRIMES;
    lane.wrapping_add(word.wrapping_mul(p2))
        .rotate_left(31)
        .wrapping_mul(p1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the xxHash reference implementation.
    #[test]
    fn the_hash_is_xxh64() {
        assert_eq!(xxh64(b""), 0xEF46_DB37_51D8_E999);
        assert_eq!(xxh64(b"a"), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(xxh64(b"abc"), 0x44BC_2CF5_AD77_0999);
        assert_eq!(
            xxh64(b"Nobody inspects the spammish repetition"),
            0xFBCE_A83C_8A37_8BF1
        );
    }

    #[test]
    fn a_share_and_its_complement_make_the_whole() {
        let mut kept = 0;
        for at in 0..1000 {
            let labels = Labels::from_pairs([("a", format!("{at}"))]);
            assert_ne!(keeps(0.2, &labels), keeps(-0.8, &labels));
            kept += usize::from(keeps(0.2, &labels));
        }
        assert!((150..250).contains(&kept), "{kept}");
        let long = Labels::from_pairs([("a", "x".repeat(70_000))]);
        assert!(keeps(1.0, &long) && !keeps(0.0, &long));
    }
}
