//! An `ExportLogsServiceRequest`: read through the views to the last attribute, then ingested.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slogate_fuzz::{Bed, NOW_MS, walk_attributes};
use slogate_wire::WireError;
use slogate_wire::otlp::LogsRequest;

fn walk(request: &[u8]) -> Result<usize, WireError> {
    let mut values = 0;
    for resource in LogsRequest::new(request).resource_logs() {
        let resource = resource?;
        values += walk_attributes(resource.resource.attributes())?;
        for scope in resource.scope_logs() {
            for record in scope?.log_records() {
                values += walk_attributes(record?.attributes())?;
            }
        }
    }
    Ok(values)
}

fuzz_target!(|request: &[u8]| {
    let walked = walk(request);
    let bed = Bed::new();
    if let Err(error) = bed.ingest.logs(request, NOW_MS) {
        assert!(walked.is_err(), "readable, but refused: {error}");
    }
    bed.settle();
});
