//! What callers and collectors say about telemetry: `traceparent`, the answer to an export, and metrics read back from text.

use wire::otlp::{Window, metric_messages, rejected};
use wire::trace_context::TraceParent;

/// A trace context that is read is written as a valid one of the same ids; what a collector answers is bounded; any text of
/// metrics becomes messages.
pub fn telemetry(input: &[u8]) {
    if let Some(parent) = TraceParent::parse(input) {
        let text = parent.text();
        assert_eq!(TraceParent::parse(text.as_bytes()), Some(parent), "`{text}` is another one");
        assert!(input.get(3..52).is_some_and(|ids| text.as_bytes().get(3..52) == Some(ids)), "the ids changed");
    }
    let (_count, message) = rejected(input);
    assert!(message.is_none_or(|message| message.chars().count() <= 200), "an endless message");
    let families = wire::openmetrics::families(&String::from_utf8_lossy(input));
    let points: usize = families.iter().map(|family| family.samples.len()).sum();
    let messages = metric_messages(&families, Window { start: 1, now: 2 }, 3);
    assert!(messages.len() <= points, "more messages than samples");
}
