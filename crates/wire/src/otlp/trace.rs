//! Views of an `ExportTraceServiceRequest`.

use crate::otlp::common::{Attributes, RawKeyValue, Resource, Scope, once};
use crate::proto::{Reader, View, Views, WireError};

/// Field 9, a length and bytes.
const ATTRIBUTES_TAG: u8 = 9 << 3 | 2;

/// A trace export request.
#[derive(Clone, Copy, Debug)]
pub struct TracesRequest<'a> {
    body: Reader<'a>,
}

/// The spans of one resource.
#[derive(Clone, Copy, Debug)]
pub struct ResourceSpans<'a> {
    /// What produced the spans.
    pub resource: Resource<'a>,
    body: Reader<'a>,
}

/// The spans of one instrumentation scope.
#[derive(Clone, Copy, Debug)]
pub struct ScopeSpans<'a> {
    body: Reader<'a>,
}

/// One span, without its events and links.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// 16 bytes in a valid span; not checked here.
    pub trace_id: &'a [u8],
    /// 8 bytes in a valid span; not checked here.
    pub span_id: &'a [u8],
    /// 8 bytes, or empty for a root span; not checked here.
    pub parent_span_id: &'a [u8],
    /// The W3C `tracestate`, not checked for UTF-8.
    pub trace_state: &'a [u8],
    /// W3C trace flags and the remote-parent bits.
    pub flags: u32,
    /// The operation's name.
    pub name: &'a str,
    /// `SpanKind`: 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    /// Start, in nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
    /// End, in nanoseconds since the Unix epoch.
    pub end_unix_nano: u64,
    /// `StatusCode`: 0 unset, 1 ok, 2 error.
    pub status_code: i32,
    body: Reader<'a>,
}

impl<'a> TracesRequest<'a> {
    /// A view of the request's bytes.
    pub fn new(request: &'a [u8]) -> Self {
        TracesRequest {
            body: Reader::new(request),
        }
    }

    /// The request's resources.
    pub fn resource_spans(&self) -> Views<'a, ResourceSpans<'a>> {
        Views::new(self.body, 1)
    }
}

impl<'a> ResourceSpans<'a> {
    /// The resource's scopes.
    pub fn scope_spans(&self) -> Views<'a, ScopeSpans<'a>> {
        Views::new(self.body, 2)
    }
}

impl<'a> ScopeSpans<'a> {
    /// The library that made the spans.
    pub fn scope(&self) -> Result<Scope<'a>, WireError> {
        let mut scope = None;
        let mut fields = self.body;
        while let Some(field) = fields.next_field()? {
            if field.number == 1 {
                once(&mut scope, &field)?;
            }
        }
        Ok(scope.unwrap_or(Scope::empty()))
    }

    /// The scope's spans.
    pub fn spans(&self) -> Views<'a, Span<'a>> {
        Views::new(self.body, 2)
    }
}

impl<'a> Span<'a> {
    /// The span's attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        Views::new(self.body, 9)
    }

    /// The span's attributes, unread.
    pub fn raw_attributes(&self) -> Views<'a, RawKeyValue<'a>> {
        Views::new(self.body, 9)
    }
}

impl<'a> View<'a> for ResourceSpans<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut resource = None;
        let mut fields = body;
        while let Some(field) = fields.next_field()? {
            if field.number == 1 {
                once(&mut resource, &field)?;
            }
        }
        Ok(ResourceSpans {
            resource: resource.unwrap_or(Resource::empty()),
            body,
        })
    }
}

impl<'a> View<'a> for ScopeSpans<'a> {
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        Ok(ScopeSpans { body })
    }
}

impl<'a> View<'a> for Span<'a> {
    #[inline]
    fn read(body: Reader<'a>) -> Result<Self, WireError> {
        let mut span = Span {
            trace_id: &[],
            span_id: &[],
            parent_span_id: &[],
            trace_state: &[],
            flags: 0,
            name: "",
            kind: 0,
            start_unix_nano: 0,
            end_unix_nano: 0,
            status_code: 0,
            body,
        };
        let mut fields = body;
        loop {
            fields.skip_run(ATTRIBUTES_TAG);
            let Some(field) = fields.next_field()? else {
                return Ok(span);
            };
            match field.number {
                1 => span.trace_id = field.bytes()?,
                2 => span.span_id = field.bytes()?,
                3 => span.trace_state = field.bytes()?,
                4 => span.parent_span_id = field.bytes()?,
                5 => span.name = field.string()?,
                6 => span.kind = field.enumeration()?,
                7 => span.start_unix_nano = field.fixed64()?,
                8 => span.end_unix_nano = field.fixed64()?,
                15 => {
                    let mut status = field.message()?;
                    while let Some(field) = status.next_field()? {
                        if field.number == 3 {
                            span.status_code = field.enumeration()?;
                        }
                    }
                }
                16 => span.flags = field.fixed32()?,
                _ => {}
            }
        }
    }
}
