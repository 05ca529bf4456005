//! gRPC over HTTP/2 and gRPC-Web, as far as a proxy reads them: which requests they are, their deadline, the length of each
//! message, a refusal in their own words, and gRPC-Web's trailers inside a body. It never reads a message.
//!
//! Sources: gRPC `PROTOCOL-HTTP2.md`, `PROTOCOL-WEB.md`, `http-grpc-status-mapping.md`.
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use std::time::Duration;

#[cfg(test)]
mod tests;
mod text;

pub use text::{TextDecoder, TextError, text_encoded};

pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Flag (1 byte) and length (4 bytes, big-endian) before each message.
const PREFIX_BYTES: usize = 5;
/// gRPC-Web marks the frame that holds the trailers.
const TRAILER_FLAG: u8 = 0x80;
/// Longest `grpc-message` that we write, in bytes before encoding.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Which of the three a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `application/grpc`
    Grpc,
    /// `application/grpc-web`: the same messages, trailers as a last frame of the body.
    Web,
    /// `application/grpc-web-text`: as `Web`, all of the body in base64.
    WebText,
}

/// By `Content-Type`: the bare type, or one with a `+` suffix or a parameter.
pub fn kind(headers: &HeaderMap) -> Option<Kind> {
    let value = headers.get(header::CONTENT_TYPE)?.as_bytes();
    let rest = strip_prefix_ignoring_case(value, b"application/grpc")?;
    let (kind, rest) = match strip_prefix_ignoring_case(rest, b"-web-text") {
        Some(rest) => (Kind::WebText, rest),
        None => match strip_prefix_ignoring_case(rest, b"-web") {
            Some(rest) => (Kind::Web, rest),
            None => (Kind::Grpc, rest),
        },
    };
    matches!(rest.first(), None | Some(b'+' | b';' | b' ')).then_some(kind)
}

fn strip_prefix_ignoring_case<'a>(value: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = value.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The content type with one kind's name put in the place of another's; suffix and parameters stay.
pub fn content_type(of: &HeaderValue, kind: Kind) -> Option<HeaderValue> {
    let value = of.as_bytes();
    let end = value.iter().position(|byte| matches!(byte, b'+' | b';' | b' ')).unwrap_or(value.len());
    let name: &[u8] = match kind {
        Kind::Grpc => b"application/grpc",
        Kind::Web => b"application/grpc-web",
        Kind::WebText => b"application/grpc-web-text",
    };
    HeaderValue::from_bytes(&[name, value.get(end..)?].concat()).ok()
}

/// The `grpc-timeout` that stands more than once, or is none: 1 to 8 digits and one of `H M S m u n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`grpc-timeout` is no timeout: 1 to 8 digits and one of H, M, S, m, u, n")]
pub struct TimeoutError;

/// How long the caller is going to wait, if he says so.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, TimeoutError> {
    let mut values = headers.get_all(GRPC_TIMEOUT).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let Some((unit, digits)) = value.as_bytes().split_last() else { return Err(TimeoutError) };
    let is_number = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    if values.next().is_some() || !is_number {
        return Err(TimeoutError);
    }
    let n = digits.iter().fold(0, |n: u64, digit| n * 10 + u64::from(digit - b'0'));
    Ok(Some(match unit {
        b'H' => Duration::from_secs(n * 3_600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return Err(TimeoutError),
    }))
}

/// The status of the call that stands for an HTTP status, as the published mapping has it; and `RESOURCE_EXHAUSTED` for a
/// message that is too large, as gRPC's own servers say it. 504 is `DEADLINE_EXCEEDED` if the caller set a deadline.
pub fn status_of(http: u16, had_deadline: bool) -> u8 {
    match http {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        413 => 8,
        504 if had_deadline => 4,
        408 | 429 | 502..=504 => 14,
        500..=599 => 13,
        _ => 2,
    }
}

/// Makes a trailers-only answer (a head and no body) of `headers`: HTTP 200, and the status in gRPC's own fields.
pub fn refuse(headers: &mut HeaderMap, kind: Kind, status: u8, message: &str) -> StatusCode {
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(match kind {
            Kind::Grpc => "application/grpc",
            Kind::Web => "application/grpc-web",
            Kind::WebText => "application/grpc-web-text",
        }),
    );
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status)));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    StatusCode::OK
}

/// Every byte but the printable ones of ASCII, and `%` itself, as `%XX`.
fn percent_encoded(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes().take(MESSAGE_BYTES_MAX) {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A message longer than is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {bytes} bytes, and {bytes_max} are accepted")]
pub struct TooLarge {
    pub bytes: u64,
    pub bytes_max: u64,
}

/// Follows the lengths of the messages of one direction, however they are cut into frames. A stream may go on for days:
/// what has to be bounded is one message.
#[derive(Debug)]
pub struct MessageMeter {
    bytes_max: u64,
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    message_left: u64,
}

impl MessageMeter {
    pub fn new(bytes_max: u64) -> MessageMeter {
        MessageMeter { bytes_max, prefix: [0; PREFIX_BYTES], prefix_len: 0, message_left: 0 }
    }

    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), TooLarge> {
        while !bytes.is_empty() {
            let passing = usize::try_from(self.message_left).unwrap_or(usize::MAX).min(bytes.len());
            bytes = bytes.get(passing..).unwrap_or_default();
            self.message_left -= u64::try_from(passing).unwrap_or(0);
            while self.message_left == 0 {
                let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
                if let Some(place) = self.prefix.get_mut(self.prefix_len) {
                    *place = *first;
                }
                bytes = rest;
                self.prefix_len += 1;
                if self.prefix_len == PREFIX_BYTES {
                    self.begin_message()?;
                    // A message of no bytes ends where it begins.
                    if self.message_left == 0 {
                        continue;
                    }
                }
            }
        }
        Ok(())
    }

    fn begin_message(&mut self) -> Result<(), TooLarge> {
        let [_, length @ ..] = self.prefix;
        let bytes = u64::from(u32::from_be_bytes(length));
        self.prefix_len = 0;
        self.message_left = bytes;
        if bytes > self.bytes_max { Err(TooLarge { bytes, bytes_max: self.bytes_max }) } else { Ok(()) }
    }
}

/// gRPC-Web's last frame: the trailers as lines of HTTP/1, names in lower case.
pub fn web_trailers(trailers: &HeaderMap) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in trailers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            block.extend_from_slice(part);
        }
    }
    let mut frame = Vec::with_capacity(PREFIX_BYTES + block.len());
    frame.push(TRAILER_FLAG);
    // Trailers came within the limits of a header list, far under 4 GiB.
    frame.extend_from_slice(&u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&block);
    frame
}
