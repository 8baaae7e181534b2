//! A remote-write body, the first byte says which version: read through the views to the last
//! bucket, then ingested.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slogate::ingest::{IngestError, RemoteWriteVersion, Written};
use slogate_fuzz::{Bed, NOW_MS};
use slogate_wire::WireError;
use slogate_wire::remote_write::{Histogram, v1, v2};

fn walk_v1(request: &[u8]) -> Result<usize, WireError> {
    let request = v1::WriteRequest::new(request);
    let mut values = 0;
    for series in request.timeseries() {
        let series = series?;
        series.raw_labels(&mut Vec::new())?;
        values += count(series.labels())? + count(series.samples())?;
        for exemplar in series.exemplars() {
            values += count(exemplar?.labels())?;
        }
        for histogram in series.histograms() {
            values += walk_histogram(&histogram?)?;
        }
    }
    Ok(values + count(request.metadata())?)
}

fn walk_v2(request: &[u8]) -> Result<usize, WireError> {
    let request = v2::Request::new(request);
    let mut values = count(request.symbols())?;
    for series in request.timeseries() {
        let series = series?;
        values += count(series.labels_refs())? + count(series.samples())?;
        for exemplar in series.exemplars() {
            values += count(exemplar?.labels_refs())?;
        }
        for histogram in series.histograms() {
            values += walk_histogram(&histogram?)?;
        }
    }
    Ok(values)
}

fn walk_histogram(histogram: &Histogram<'_>) -> Result<usize, WireError> {
    let negative = count(histogram.negative_spans())?
        + count(histogram.negative_deltas())?
        + count(histogram.negative_counts())?;
    let positive = count(histogram.positive_spans())?
        + count(histogram.positive_deltas())?
        + count(histogram.positive_counts())?;
    Ok(negative + positive + count(histogram.custom_values())?)
}

fn count<T>(items: impl Iterator<Item = Result<T, WireError>>) -> Result<usize, WireError> {
    let mut values = 0;
    for item in items {
        item?;
        values += 1;
    }
    Ok(values)
}

fuzz_target!(|input: &[u8]| {
    let Some((first, request)) = input.split_first() else {
        return;
    };
    let (version, walked) = match first & 1 {
        0 => (RemoteWriteVersion::V1, walk_v1(request)),
        _ => (RemoteWriteVersion::V2, walk_v2(request)),
    };
    let bed = Bed::new();
    // Twice: the second time every series is known.
    let [before, after] = [0, 1].map(|_| bed.ingest.remote_write(version, request, NOW_MS));
    match (before, after) {
        (Ok(before), Ok(after)) => {
            // Which are refused may differ: samples that came in order are late the second time.
            let total = |w: &Written| w.samples + w.histograms + w.rejected;
            assert_eq!(total(&before), total(&after), "{before:?} {after:?}");
            assert_eq!(before.rejected == 0, before.message.is_empty());
        }
        (Err(IngestError::TooMany { .. }), _) => {}
        (Err(error), _) => assert!(walked.is_err(), "readable, but refused: {error}"),
        (Ok(_), Err(error)) => panic!("taken, then refused: {error}"),
    }
    bed.settle();
});
