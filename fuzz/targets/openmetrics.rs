//! Recorded metrics as text: what is read lies in the text, and so does every mistake.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slogate_wire::openmetrics::{Line, Reader, timestamp_ms};

fuzz_target!(|text: &str| {
    for line in Reader::new(text) {
        let mistake = match line {
            Ok(Line::Sample(sample)) => {
                assert!(text.contains(sample.series));
                let _ = sample.timestamp.map(timestamp_ms);
                match sample.labels() {
                    Ok(labels) => {
                        assert_eq!(labels[0].0, "__name__");
                        continue;
                    }
                    Err(mistake) => mistake,
                }
            }
            Ok(_) => continue,
            Err(mistake) => mistake,
        };
        let line = text.split('\n').nth(mistake.line - 1).expect("a line of the text");
        assert!(mistake.column <= line.chars().count() + 1, "{mistake}");
        assert!(!mistake.to_string().is_empty());
    }
});
