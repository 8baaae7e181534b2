//! The demo tells its story and leaves nothing behind.

use std::time::{Duration, Instant};

use crate::harness::binary;

#[test]
fn the_demo_passes_the_good_release_and_fails_the_bad_one() {
    let scratch = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let output = binary()
        .args(["demo", "--seed", "7"])
        .env("TMPDIR", scratch.path())
        .current_dir(scratch.path())
        .output()
        .expect("the demo runs");
    let story = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{story}\n{log}");
    assert!(story.contains("PASS"), "{story}");
    assert!(story.contains("FAIL"), "{story}");
    assert!(story.contains("curl"), "it says how to look: {story}");
    // Generous: other tests run beside it. By itself it takes about a minute.
    assert!(
        began.elapsed() < Duration::from_secs(300),
        "{:?}",
        began.elapsed()
    );
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
