//! An `ExportTraceServiceRequest`: read through the views to the last attribute, then ingested.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slogate_fuzz::{Bed, NOW_MS, walk_attributes};
use slogate_wire::WireError;
use slogate_wire::otlp::TracesRequest;

fn walk(request: &[u8]) -> Result<usize, WireError> {
    let mut values = 0;
    for resource in TracesRequest::new(request).resource_spans() {
        let resource = resource?;
        values += walk_attributes(resource.resource.attributes())?;
        for scope in resource.scope_spans() {
            let scope = scope?;
            values += walk_attributes(scope.scope()?.attributes())?;
            for span in scope.spans() {
                let span = span?;
                values += walk_attributes(span.attributes())?;
                for pair in span.raw_attributes() {
                    pair?.value()?;
                }
            }
        }
    }
    Ok(values)
}

fuzz_target!(|request: &[u8]| {
    let walked = walk(request);
    let bed = Bed::new();
    let taken = bed.ingest.traces(request, NOW_MS);
    if let Err(error) = &taken {
        assert!(walked.is_err(), "readable, but refused: {error}");
    }
    bed.settle();
});
