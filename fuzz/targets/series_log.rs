//! A segment of the series log. With `r` first the rest is the file as it is; otherwise it is
//! the payloads of frames, two bytes of length before each, and the file is built around
//! them, so that the input gets past the checksums.
//!
//! A log opens whatever is in it, and what was read once is read again: after a torn tail was
//! cut off, the second opening finds the same series and samples.
#![no_main]

use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use slogate_fuzz::NOW_MS;
use slogate_series::{MatchOp, Matcher};
use slogate_tsdb::{OpenError, Options, Store};

fn segment(mut payloads: &[u8]) -> Vec<u8> {
    let mut file = b"SLOGSER\n\x01\0\0\0".to_vec();
    file.extend(crc32fast::hash(&file).to_le_bytes());
    while let [low, high, rest @ ..] = payloads {
        let length = usize::from(u16::from_le_bytes([*low, *high])).clamp(1, rest.len().max(1));
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            break;
        };
        let length = (payload.len() as u32).to_le_bytes();
        let crc = crc32fast::hash(&[&length, payload].concat());
        file.extend(b"\xf5sf\n");
        file.extend(length);
        file.extend(crc.to_le_bytes());
        file.extend(payload);
        payloads = rest;
    }
    file
}

/// How many series and samples a log holds; `None` where a newer program wrote it.
fn open(dir: &Path) -> Option<(u64, u64, usize)> {
    let options = Options {
        dir: Some(dir.to_owned()),
        ..Options::default()
    };
    let store = match Store::open(options, NOW_MS) {
        Ok((store, _)) => store,
        Err(OpenError::NewerFormat { .. }) => return None,
        Err(error) => panic!("{error}"),
    };
    let any = Matcher::new("__name__", MatchOp::Regex, ".*").expect("a valid matcher");
    let found = store.select(&[any], i64::MIN, i64::MAX);
    let samples = found.iter().map(|series| series.samples.len()).sum();
    Some((store.stats().series, store.stats().samples, samples))
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let file = match kind {
        b'r' => rest.to_vec(),
        _ => segment(rest),
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("0000000001.log"), file).expect("a file");
    let first = open(dir.path());
    assert_eq!(first, open(dir.path()));
});
