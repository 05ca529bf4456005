//! One line of the access log. Whatever a request holds, a line stays one line and its fields stay apart.

use std::io::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use super::{Format, Seen, Settings};
use crate::audit::Record;
use crate::clock::UnixMs;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends the record's line, or nothing for what an access log does not tell: questions of a proxy that has its own, and
/// the opening of a tunnel, whose end is told.
pub(super) fn write(to: &mut Vec<u8>, record: &Record, settings: &Settings) {
    let Some(seen) = &record.seen else { return };
    if record.tunnel.is_some() && !record.is_end {
        return;
    }
    match settings.format {
        Format::Combined => combined(to, record, seen, settings.subject),
        Format::Json => json(to, record, seen, settings.subject),
    }
    to.push(b'\n');
}

/// `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"`,
/// escaped as nginx does. The time is that of the end, in UTC.
fn combined(to: &mut Vec<u8>, record: &Record, seen: &Seen, subject: bool) {
    match record.request.client_ip {
        Some(ip) => display(to, ip),
        None => to.push(b'-'),
    }
    to.extend_from_slice(b" - ");
    match record.principal.as_ref().filter(|_| subject) {
        // It has no quotes around it, so a space would begin another field.
        Some(who) if !who.subject.is_empty() => escaped(to, who.subject.as_bytes(), |byte| byte == b' '),
        _ => to.push(b'-'),
    }
    to.extend_from_slice(b" [");
    display(to, UnixMs(record.time_ms.saturating_add(record.total_us / 1000)).common_log());
    to.extend_from_slice(b"] \"");
    escaped(to, record.request.method.as_bytes(), never);
    to.push(b' ');
    escaped(to, &seen.target, never);
    to.push(b' ');
    to.extend_from_slice(protocol(&record.request.protocol).as_bytes());
    to.extend_from_slice(b"\" ");
    display(to, record.status);
    to.push(b' ');
    display(to, record.bytes_out);
    for field in [&seen.referer, &seen.user_agent] {
        to.extend_from_slice(b" \"");
        match field {
            Some(text) => escaped(to, text, never),
            None => to.push(b'-'),
        }
        to.push(b'"');
    }
}

fn never(_: u8) -> bool {
    false
}

/// nginx: control characters, quotes, backslashes and everything that is no ASCII.
fn escaped(to: &mut Vec<u8>, text: &[u8], also: impl Fn(u8) -> bool) {
    let hex = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
    for byte in text.iter().copied() {
        match byte {
            0x00..0x20 | 0x7f.. | b'"' | b'\\' => {
                to.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte & 15)]);
            }
            _ if also(byte) => to.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte & 15)]),
            _ => to.push(byte),
        }
    }
}

/// As nginx writes it.
fn protocol(ours: &str) -> &str {
    if ours == "HTTP/2" { "HTTP/2.0" } else { ours }
}

/// Field names as in the audit record, where that has the same.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    id: &'a str,
    client_ip: Option<IpAddr>,
    method: &'a str,
    host: &'a str,
    target: String,
    protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'a str>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_us: Option<u64>,
    total_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
}

fn json(to: &mut Vec<u8>, record: &Record, seen: &Seen, subject: bool) {
    let line = Line {
        time: UnixMs(record.time_ms).rfc_3339(),
        id: &record.id,
        client_ip: record.request.client_ip,
        method: &record.request.method,
        host: &record.request.host,
        target: text(&seen.target),
        protocol: protocol(&record.request.protocol),
        tls: record.request.tls.as_deref(),
        status: record.status,
        reason: record.reason.as_deref(),
        service: record.service.as_deref(),
        subject: record.principal.as_ref().filter(|_| subject).map(|who| &*who.subject),
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        first_byte_us: record.first_byte_us,
        total_us: record.total_us,
        ended: record.ended.as_deref(),
        referer: seen.referer.as_deref().map(text),
        user_agent: seen.user_agent.as_deref().map(text),
        trace_id: record.trace_id.as_deref(),
    };
    // Texts and numbers: writing them into memory cannot fail.
    let _written = serde_json::to_writer(to, &line);
}

/// JSON escapes what is below the space; what terminals obey besides (DEL and the C1 controls) has no place in a line.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() && c >= '\u{7f}' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn display(to: &mut Vec<u8>, value: impl std::fmt::Display) {
    // Memory takes everything.
    let _written = write!(to, "{value}");
}
