//! OpenTelemetry's protocol (OTLP 1.x, `opentelemetry/proto/**`), as far as this program speaks it: what it exports, as
//! protobuf, and what a collector answers. It samples nothing and sends nothing.
mod metrics;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::protobuf::{Fields, Value, Writer};
use crate::trace_context::TraceParent;
pub use metrics::{Window, metric_messages};

/// `SPAN_KIND_SERVER`.
const KIND_SERVER: u64 = 2;
const STATUS_ERROR: u64 = 2;
/// `SpanFlags`: whether the parent is in another process is known, and it is.
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;
const SAMPLED: u32 = 1;

/// Who exports: attributes of the process, and our name as the instrumentation.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub resource: &'a [(&'a str, &'a str)],
    pub version: &'a str,
}

/// What was done for one request.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    pub itself: TraceParent,
    pub parent: Option<[u8; 8]>,
    /// A trace that this one has to do with and is no part of.
    pub link: Option<TraceParent>,
    pub name: &'a str,
    /// Unix nanoseconds.
    pub start: u64,
    pub end: u64,
    pub attributes: &'a [(&'a str, Attribute<'a>)],
    pub is_error: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute<'a> {
    Text(&'a str),
    Number(i64),
}

impl Span<'_> {
    /// One `Span` message.
    pub fn encode(&self) -> Bytes {
        let mut span = Writer::with_capacity(1024);
        span.bytes(1, &self.itself.trace_id);
        span.bytes(2, &self.itself.span_id);
        if let Some(parent) = self.parent {
            span.bytes(4, &parent);
        }
        span.bytes(5, self.name.as_bytes());
        span.number(6, KIND_SERVER);
        span.fixed64(7, self.start);
        span.fixed64(8, self.end);
        for (key, value) in self.attributes {
            span.message(9, &attribute(key, *value));
        }
        if let Some(link) = self.link {
            let mut written = Writer::with_capacity(40);
            written.bytes(1, &link.trace_id);
            written.bytes(2, &link.span_id);
            written.fixed32(6, PARENT_IS_KNOWN | PARENT_IS_REMOTE | u32::from(link.sampled));
            span.message(13, &written);
        }
        if self.is_error {
            let mut status = Writer::with_capacity(4);
            status.number(3, STATUS_ERROR);
            span.message(15, &status);
        }
        let remote = if self.parent.is_some() { PARENT_IS_REMOTE } else { 0 };
        span.fixed32(16, PARENT_IS_KNOWN | remote | SAMPLED);
        span.0.freeze()
    }
}

/// An `ExportTraceServiceRequest` of encoded spans, or an `ExportMetricsServiceRequest` of encoded metrics: both have the same
/// shape, who it is, what saw it, and what was seen, under the same numbers.
pub fn export_request(source: Source<'_>, seen: &[Bytes]) -> Bytes {
    let bytes: usize = seen.iter().map(|one| one.len() + 8).sum();
    let mut resource = Writer::with_capacity(256);
    for (key, value) in source.resource {
        resource.message(1, &attribute(key, Attribute::Text(value)));
    }
    let mut scope = Writer::with_capacity(32);
    scope.bytes(1, b"countersign");
    scope.bytes(2, source.version.as_bytes());
    let mut of_scope = Writer::with_capacity(bytes + 64);
    of_scope.message(1, &scope);
    seen.iter().for_each(|one| of_scope.bytes(2, one));
    let mut of_resource = Writer::with_capacity(bytes + 512);
    of_resource.message(1, &resource);
    of_resource.message(2, &of_scope);
    let mut request = Writer::with_capacity(of_resource.0.len() + 16);
    request.message(1, &of_resource);
    request.0.freeze()
}

/// A `KeyValue`.
fn attribute(key: &str, value: Attribute<'_>) -> Writer {
    let mut any = Writer::with_capacity(16);
    match value {
        Attribute::Text(text) => any.bytes(1, text.as_bytes()),
        // Negative numbers are written as their two's complement.
        Attribute::Number(number) => any.number(3, number.cast_unsigned()),
    }
    let mut pair = Writer::with_capacity(key.len() + any.0.len() + 8);
    pair.bytes(1, key.as_bytes());
    pair.message(2, &any);
    pair
}

/// How many of what was sent a collector did not take though it answered 200 (`partial_success`), and what it says of it. An
/// answer that cannot be read says nothing.
pub fn rejected(answer: &[u8]) -> (u64, Option<String>) {
    let (mut count, mut message) = (0, None);
    let mut fields = Fields::of(answer);
    while let Ok(Some((number, value))) = fields.next() {
        let (1, Value::Bytes(partial)) = (number, value) else { continue };
        let mut fields = Fields::of(partial);
        while let Ok(Some((number, value))) = fields.next() {
            match (number, value) {
                (1, Value::Number(rejected)) => count = rejected,
                (2, Value::Bytes(text)) => message = Some(String::from_utf8_lossy(text).chars().take(200).collect()),
                _ => {}
            }
        }
    }
    // It is a signed number, and less than nothing was never rejected.
    (u64::try_from(count.cast_signed()).unwrap_or(0), message)
}
