//! What a crash, a full disk or a flipped bit may do to the log.

use std::fs;
use std::path::{Path, PathBuf};

use slogate_series::Labels;
use slogate_tsdb::{Batch, DamageKind, FloatRow, OpenError, Options, Store};

use crate::kit::{
    NOW, append, everything, floats, histogram, histogram_batch, in_dir, labels, named, only, open,
};

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "log"))
        .collect();
    found.sort();
    found
}

/// Five batches of one sample each; returns the segment's bytes and its size after each.
fn five_batches(dir: &Path) -> (Vec<u8>, Vec<usize>) {
    let (store, _) = open(dir);
    let series = store.series(&labels("up job=api")).unwrap();
    let mut sizes = Vec::new();
    for n in 0..5i32 {
        append(&store, series, NOW + i64::from(n), f64::from(n) + 0.5);
        sizes.push(fs::metadata(&segments(dir)[0]).unwrap().len() as usize);
    }
    (fs::read(&segments(dir)[0]).unwrap(), sizes)
}

fn with_segment(bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("0000000001.log"), bytes).unwrap();
    dir
}

/// A write may have stopped at any byte. Everything before it must be there, the rest must
/// be reported and cut off, and the store must go on as if nothing had been.
#[test]
fn a_log_cut_at_any_byte_keeps_every_whole_batch() {
    let source = tempfile::tempdir().unwrap();
    let (bytes, sizes) = five_batches(source.path());
    // The first batch has a frame of labels before the one of samples.
    let labels_end = 16 + 12 + u32::from_le_bytes(bytes[20..24].try_into().unwrap()) as usize;
    for cut in 0..=bytes.len() {
        let dir = with_segment(&bytes[..cut]);
        let whole = sizes.iter().filter(|size| **size <= cut).count();
        let clean = cut == 16 || cut == labels_end || sizes.contains(&cut);
        {
            let (store, report) = open(dir.path());
            assert_eq!(report.samples, whole as u64, "cut at {cut}");
            assert_eq!(
                report.damaged,
                u64::from(!clean),
                "cut at {cut}: {report:?}"
            );
            if !clean {
                assert_eq!(report.damage[0].kind, DamageKind::Tail { cut: true });
            }
            let series = store.series(&labels("up job=api")).unwrap();
            append(&store, series, NOW + 100, 1.0);
        }
        let (store, report) = open(dir.path());
        assert_eq!(report.damaged, 0, "the tail was cut off: {report:?}");
        assert_eq!(only(&everything(&store)).len(), whole + 1);
    }
}

/// A disk may flip any bit. At most the frames that it hits may be missing, nothing may be
/// made up, and the damage must be reported.
#[test]
fn a_flipped_bit_takes_at_most_its_own_frame() {
    let source = tempfile::tempdir().unwrap();
    let (bytes, _) = five_batches(source.path());
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let dir = with_segment(&flipped);
        let (store, report) = open(dir.path());
        assert_eq!(report.damaged, 1, "flipped at {at}: {report:?}");
        let in_header = at < 16;
        let found = everything(&store);
        for (t_ms, value) in found
            .iter()
            .flat_map(|s| s.samples.iter().map(crate::kit::point))
        {
            assert_eq!(value, (t_ms - NOW) as f64 + 0.5);
        }
        let samples = found.first().map_or(0, |series| series.samples.len());
        assert_eq!(
            samples as u64 + report.orphans,
            if in_header {
                5
            } else if report.orphans > 0 {
                // The frame with the labels: no row can be placed any more, and each is counted.
                5
            } else {
                4
            },
            "flipped at {at}: {report:?}"
        );
    }
}

/// Damage in a segment that is not the last is skipped and never cut off.
#[test]
fn damage_in_an_old_segment_leaves_the_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    five_batches(dir.path());
    five_batches(dir.path());
    let first = segments(dir.path())[0].clone();
    let mut bytes = fs::read(&first).unwrap();
    bytes.truncate(bytes.len() - 3);
    fs::write(&first, &bytes).unwrap();
    let (store, report) = open(dir.path());
    assert_eq!(report.damage[0].kind, DamageKind::Tail { cut: false });
    assert_eq!(
        only(&everything(&store)).len(),
        5,
        "the second segment has them all"
    );
    store.maintain(NOW);
    assert_eq!(fs::read(&first).unwrap(), bytes);
}

#[test]
fn a_segment_of_a_newer_version_is_refused_and_nothing_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (mut bytes, _) = five_batches(dir.path());
    let torn = dir.path().join("0000000002.log");
    fs::write(&torn, b"SLOG").unwrap();
    bytes[8] = 7;
    let crc = crc32fast::hash(&bytes[..12]).to_le_bytes();
    bytes[12..16].copy_from_slice(&crc);
    fs::write(&segments(dir.path())[0], &bytes).unwrap();
    let error = Store::open(in_dir(dir.path()), NOW).unwrap_err();
    assert!(matches!(
        error,
        OpenError::NewerFormat {
            found: 7,
            supported: 1,
            ..
        }
    ));
    assert!(
        error
            .to_string()
            .contains("0000000001.log: series log version 7"),
        "{error}"
    );
    assert_eq!(fs::read(&torn).unwrap(), b"SLOG");
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let error = Store::open(in_dir(dir.path()), NOW).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(store);
    open(dir.path());
}

/// A batch that can't be written is not acknowledged; sent again, it is written whole, even
/// though memory has had it since the first time.
#[test]
fn a_batch_that_failed_is_written_when_it_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("log");
    let options = Options {
        segment_bytes: 1,
        ..in_dir(&home)
    };
    {
        let (store, _) = Store::open(options.clone(), NOW).unwrap();
        let series = store.series(&labels("up")).unwrap();
        append(&store, series, NOW, 1.0);
        let away = dir.path().join("away");
        fs::rename(&home, &away).unwrap();
        let batch = floats([(series, NOW + 1, 2.0)]);
        let error = store.append(&batch, NOW).unwrap_err();
        assert!(error.to_string().contains("create"), "{error}");
        fs::rename(&away, &home).unwrap();
        assert_eq!(store.append(&batch, NOW).unwrap().accepted, 1);
        assert_eq!(store.append(&batch, NOW).unwrap().accepted, 1);
    }
    let (store, report) = Store::open(options, NOW).unwrap();
    assert_eq!(only(&everything(&store)), [(NOW, 1.0), (NOW + 1, 2.0)]);
    assert_eq!(report.repeated, 1);
}

/// A killed process leaves what it has written and nothing else: no buffer of ours may hold
/// back an acknowledged batch. A copy of the files, taken while the store is open, is that.
#[test]
fn a_killed_process_has_lost_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 300,
        ..in_dir(dir.path())
    };
    let (store, _) = Store::open(options, NOW).unwrap();
    let float = store.series(&labels("f")).unwrap();
    let distribution = store.series(&labels("h")).unwrap();
    for n in 0..30i32 {
        let t_ms = NOW + i64::from(n);
        append(&store, float, t_ms, f64::from(n));
        let batch = histogram_batch(distribution, t_ms, &histogram(f64::from(n)));
        store.append(&batch, NOW).unwrap();
        let copy = tempfile::tempdir().unwrap();
        for path in segments(dir.path()) {
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let (copied, report) = open(copy.path());
        assert_eq!(report.damaged, 0);
        assert_eq!(everything(&copied), everything(&store));
    }
}

#[test]
fn replay_brings_back_all_that_was_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 1_000,
        ..in_dir(dir.path())
    };
    let (store, _) = Store::open(options.clone(), NOW).unwrap();
    for i in 0..50i32 {
        let float = store.series(&labels(&format!("f i=v{i}"))).unwrap();
        let distribution = store.series(&labels(&format!("h i=v{i}"))).unwrap();
        for t in 0..10i32 {
            let t_ms = NOW + i64::from(t) * 1_000;
            append(&store, float, t_ms, f64::from(i * t) / 4.0);
            let batch = histogram_batch(distribution, t_ms, &histogram(f64::from(t + 2)));
            store.append(&batch, NOW).unwrap();
        }
    }
    let before = everything(&store);
    assert_eq!(before.len(), 100);
    drop(store);
    assert!(segments(dir.path()).len() > 10);
    let (store, report) = Store::open(options, NOW).unwrap();
    assert_eq!(report.samples, 1_000);
    assert_eq!(everything(&store), before);
}

/// Each segment stands alone: with the first ones gone, the rest can still be read.
#[test]
fn segments_need_none_before_them() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 500,
        ..in_dir(dir.path())
    };
    {
        let (store, _) = Store::open(options.clone(), NOW).unwrap();
        let series = store.series(&labels("up job=api")).unwrap();
        for t in 0..100 {
            append(&store, series, NOW + t, 0.5);
        }
    }
    let files = segments(dir.path());
    fs::remove_file(&files[0]).unwrap();
    fs::remove_file(&files[2]).unwrap();
    let (store, report) = Store::open(options, NOW).unwrap();
    assert_eq!((report.orphans, report.damaged), (0, 0));
    let samples = only(&store.select(&named("up"), 0, i64::MAX));
    assert!((50..100).contains(&samples.len()), "{}", samples.len());
}

mod fuzz {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn arbitrary_bytes_as_a_segment_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let dir = with_segment(&bytes);
            let (store, report) = open(dir.path());
            prop_assert!(report.samples == 0 && everything(&store).is_empty());
            prop_assert_eq!(report.damaged > 0, true);
        }

        #[test]
        fn arbitrary_payloads_in_whole_frames_never_panic(
            kind in 0u8..7, body in prop::collection::vec(any::<u8>(), 0..300),
            patches in prop::collection::vec((16usize..400, any::<u8>()), 0..4)) {
            let source = tempfile::tempdir().unwrap();
            let (mut bytes, _) = five_batches(source.path());
            for (at, byte) in patches {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            let length = (body.len() as u32 + 1).to_le_bytes();
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&length);
            hasher.update(&[kind]);
            hasher.update(&body);
            bytes.extend_from_slice(b"\xf5sf\n");
            bytes.extend_from_slice(&length);
            bytes.extend_from_slice(&hasher.finalize().to_le_bytes());
            bytes.push(kind);
            bytes.extend_from_slice(&body);
            let dir = with_segment(&bytes);
            let (store, _) = open(dir.path());
            store.maintain(NOW);
            everything(&store);
        }
    }
}

/// Somebody looks at a directory that another process writes to.
#[test]
fn a_look_at_a_directory_changes_nothing_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        dir: Some(dir.path().to_owned()),
        ..Options::default()
    };
    let (store, _) = Store::open(options.clone(), 1_000).unwrap();
    let series = store
        .series(&Labels::from_pairs([("__name__", "x")]))
        .unwrap();
    let mut batch = Batch::default();
    batch.floats.push(FloatRow {
        series,
        t_ms: 1_000,
        start_ms: 0,
        value: 1.0,
    });
    store.append(&batch, 1_000).unwrap();
    let contents = || -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap_or_default()))
            .collect();
        files.sort();
        files
    };
    // The last record is torn: its writer has not come to its end.
    let log = contents()
        .into_iter()
        .find(|(path, _)| path.extension().is_some_and(|e| e == "log"));
    let (path, bytes) = log.unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let before = contents();
    let (copy, report) = Store::open_read_only(options.clone(), 1_000).unwrap();
    assert_eq!(report.damaged, 1);
    assert_eq!(copy.append(&Batch::default(), 1_000).unwrap().accepted, 0);
    assert_eq!(contents(), before);
    std::fs::write(&path, &bytes).unwrap();
    let (copy, _) = Store::open_read_only(options, 1_000).unwrap();
    assert_eq!(copy.select(&[], 0, 2_000).len(), 1);
}
