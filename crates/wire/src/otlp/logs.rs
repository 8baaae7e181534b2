//! Views of an `ExportLogsServiceRequest`.

use crate::otlp::common::{Attributes, Resource, once};
use crate::proto::{Reader, View, Views, WireError};

/// A log export request.
#[derive(Clone, Copy, Debug)]
pub struct LogsRequest<'a> {
    body: Reader<'a>,
}

/// The records of one resource.
#[derive(Clone, Copy, Debug)]
pub struct ResourceLogs<'a> {
    /// What produced the records.
    pub resource: Resource<'a>,
    body: Reader<'a>,
}

/// The records of one instrumentation scope.
#[derive(Clone, Copy, Debug)]
pub struct ScopeLogs<'a> {
    body: Reader<'a>,
}

/// One log record, without its body.
#[derive(Clone, Copy, Debug)]
pub struct LogRecord<'a> {
    /// When it happened, in nanoseconds since the Unix epoch; 0 where unknown.
    pub time_unix_nano: u64,
    /// When the collection system saw it, in nanoseconds since the Unix epoch.
    pub observed_time_unix_nano: u64,
    /// `SeverityNumber`: 1 to 24, 0 where unspecified.
    pub severity_number: i32,
    /// The severity as the source wrote it.
    pub severity_text: &'a str,
    /// 16 bytes, or empty; not checked here.
    pub trace_id: &'a [u8],
    /// 8 bytes, or empty; not checked here.
    pub span_id: &'a [u8],
    body: Reader<'a>,
}

impl<'a> LogsRequest<'a> {
    /// A view of the request's bytes.
    pub fn new(request: &'a [u8]) -> Self {
        LogsRequest {
            body: Reader::new(request),
        }
    }

    /// The request's resources.
    pub fn resource_logs(&self) -> Views<'a, ResourceLogs<'a>> {
        Views::new(self.body, 1)
    }
}

impl<'a> ResourceLogs<'a> {
    /// The resource's scopes.
    pub fn scope_logs(&self) -> Views<'a, ScopeLogs<'a>> {
        Views::new(self.body, 2)
    }
}

impl<'a> ScopeLogs<'a> {
    /// The scope's records.
    pub fn log_records(&self) -> Views<'a, LogRecord<'a>> {
        Views::new(self.body, 2)
    }
}

impl<'a> LogRecord<'a> {
    /// The record's attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        Views::new(self.body, 6)
    }
}

impl<'a> View<'a> for ResourceLogs<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut resource = None;
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            if field.number == 1 {
                once(&mut resource, &field)?;
            }
        }
        Ok(ResourceLogs {
            resource: resource.unwrap_or(Resource::empty()),
            body,
        })
    }
}

impl<'a> View<'a> for ScopeLogs<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        Ok(ScopeLogs { body })
    }
}

impl<'a> View<'a> for LogRecord<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut record = LogRecord {
            time_unix_nano: 0,
            observed_time_unix_nano: 0,
            severity_number: 0,
            severity_text: "",
            trace_id: &[],
            span_id: &[],
            body,
        };
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            match field.number {
                1 => record.time_unix_nano = field.fixed64()?,
                2 => record.severity_number = field.enumeration()?,
                3 => record.severity_text = field.string()?,
                9 => record.trace_id = field.bytes()?,
                10 => record.span_id = field.bytes()?,
                11 => record.observed_time_unix_nano = field.fixed64()?,
                _ => {}
            }
        }
        Ok(record)
    }
}
