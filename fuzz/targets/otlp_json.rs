//! OTLP/JSON: the first byte says which signal the rest is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slogate_fuzz::{Bed, NOW_MS};

fuzz_target!(|input: &[u8]| {
    let Some((signal, request)) = input.split_first() else {
        return;
    };
    let bed = Bed::new();
    let taken = match signal {
        b't' => bed.ingest.traces_json(request, NOW_MS),
        b'm' => bed.ingest.metrics_json(request, NOW_MS),
        _ => bed.ingest.logs_json(request, NOW_MS),
    };
    if let Err(error) = taken {
        assert!(!error.to_string().is_empty());
    }
    bed.settle();
});
