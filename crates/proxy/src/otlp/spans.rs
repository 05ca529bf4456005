//! From an audit record to its span, by OpenTelemetry's semantic conventions for HTTP server spans (1.x, stable), and our own
//! attributes under `countersign.`. Never a query, a header, a token or a body.

use bytes::Bytes;
use wire::otlp::{self, Attribute};

use crate::audit::Record;
use crate::traces::Span;

/// Methods that the conventions know; any other would make a name per caller's whim.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// The encoded span, if the record has one to be exported.
pub(super) fn encode(record: &Record, caller: bool) -> Option<Bytes> {
    // A tunnel's span is that of its opening.
    let span = record.span.as_deref().filter(|span| span.itself.sampled && !record.is_end)?;
    let method = METHODS.iter().find(|known| **known == record.request.method).copied();
    let name = match (&span.route, method) {
        (Some(route), method) => [method.unwrap_or("HTTP"), " ", route].concat(),
        (None, method) => method.unwrap_or("HTTP").to_owned(),
    };
    let error = error(record);
    let status = record.status.to_string();
    let client = record.request.client_ip.filter(|_| caller).map(|ip| ip.to_string());
    let mut attributes = Vec::with_capacity(24);
    http(record, span, method, &mut attributes);
    if let Some(error) = error {
        attributes.push(("error.type", Attribute::Text(error.unwrap_or(&status))));
    }
    ours(record, &mut attributes);
    if caller {
        let who = record.principal.as_deref();
        let texts = [
            ("client.address", client.as_deref()),
            ("user_agent.original", span.user_agent.as_deref()),
            ("countersign.subject", who.map(|who| &*who.subject)),
            ("countersign.agent", who.and_then(|who| who.agent.as_deref())),
        ];
        attributes.extend(texts.into_iter().filter_map(|(key, text)| Some((key, Attribute::Text(text?)))));
    }
    let start = record.time_ms.saturating_mul(1_000_000);
    let encoded = otlp::Span {
        itself: span.itself,
        parent: span.parent,
        link: span.link,
        name: &name,
        start,
        end: start.saturating_add(record.total_us.saturating_mul(1000)),
        attributes: &attributes,
        is_error: error.is_some(),
    };
    Some(encoded.encode())
}

fn http<'a>(
    record: &'a Record,
    span: &'a Span,
    method: Option<&'static str>,
    to: &mut Vec<(&'static str, Attribute<'a>)>,
) {
    let request = &record.request;
    let text = Attribute::Text;
    to.push(("http.request.method", text(method.unwrap_or("_OTHER"))));
    if method.is_none() {
        to.push(("http.request.method_original", text(&request.method)));
    }
    to.push(("url.path", text(&request.path)));
    to.push(("url.scheme", text(if span.https { "https" } else { "http" })));
    if !request.host.is_empty() {
        to.push(("server.address", text(&request.host)));
    }
    if let Some(route) = &span.route {
        to.push(("http.route", text(route)));
    }
    if let Some(version) = request.protocol.strip_prefix("HTTP/") {
        to.push(("network.protocol.version", text(version)));
    }
    // Nothing was answered to a client that had gone.
    if record.status != crate::judge::recording::CLIENT_GONE {
        to.push(("http.response.status_code", Attribute::Number(record.status.into())));
    }
}

fn ours<'a>(record: &'a Record, to: &mut Vec<(&'static str, Attribute<'a>)>) {
    let number = |value: u64| Attribute::Number(i64::try_from(value).unwrap_or(i64::MAX));
    let texts = [
        ("countersign.decision_id", Some(record.id.as_str())),
        ("countersign.decision", Some(record.decision.name())),
        ("countersign.service", record.service.as_deref()),
        ("countersign.rule", record.rule.as_ref().map(|rule| &*rule.name)),
        ("countersign.reason", record.reason.as_deref()),
        ("countersign.upstream", record.upstream.as_ref().map(|upstream| &*upstream.address)),
    ];
    to.extend(texts.into_iter().filter_map(|(key, text)| Some((key, Attribute::Text(text?)))));
    to.push(("countersign.epoch", number(record.epoch)));
    to.push(("countersign.verdict_us", number(record.verdict_us)));
    if let Some(first_byte_us) = record.first_byte_us {
        to.push(("countersign.first_byte_us", number(first_byte_us)));
    }
}

/// Whether it is an error, and its code if there is a better one than the status. What a caller did wrong, or a client that
/// left, is none of the server's.
fn error(record: &Record) -> Option<Option<&str>> {
    match record.ended.as_deref() {
        Some(ended @ ("upstream_failed" | "panic")) => Some(Some(ended)),
        _ if record.status >= 500 => Some(record.reason.as_deref()),
        _ => None,
    }
}
