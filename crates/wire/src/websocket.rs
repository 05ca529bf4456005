//! The rules of a WebSocket's opening handshake (RFC 6455 §4, RFC 8441 §5): what a client must have said, what an upstream
//! must have answered, and whose page may ask. It reads fields only, and never judges who may open one.
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

mod origin;
#[cfg(test)]
mod tests;

pub use origin::{Origin, OriginError, origin_is_own};

pub const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
pub const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
/// The one version there is (RFC 6455 §4.1).
pub const VERSION_SPOKEN: &str = "13";
/// RFC 6455 §1.3
const ACCEPT_SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 16;
const ACCEPT_BYTES: usize = 20;

/// Why a request that asks for a WebSocket gets none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    #[error("a WebSocket is asked for with GET (RFC 6455 §4.1)")]
    Method,
    #[error("a handshake has no body")]
    Body,
    #[error("`Upgrade` names more than `websocket`")]
    Upgrade,
    #[error("`Connection` does not name `upgrade`")]
    Connection,
    #[error("`Sec-WebSocket-Key` is not exactly one key of 16 bytes")]
    Key,
    /// 426, with the version we speak.
    #[error("`Sec-WebSocket-Version` is not exactly one `13`")]
    Version,
}

/// Why an upstream's 101 opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    #[error("its 101 has no `Sec-WebSocket-Accept`, or several")]
    NotOne,
    #[error("its `Sec-WebSocket-Accept` does not fit the key")]
    Wrong,
}

/// Reads an HTTP/1.1 request that has an `Upgrade` field. `Ok(None)`: it names other protocols only, and is a request like
/// any other once the field is stripped. Call it before the fields are cleaned.
pub fn read_upgrade(
    method: &Method,
    headers: &HeaderMap,
    has_body: bool,
) -> Result<Option<HeaderValue>, HandshakeError> {
    let mut offers = list(headers, &header::UPGRADE);
    let (mut websocket, mut others) = (0, 0);
    for offer in &mut offers {
        // `protocol-name ["/" protocol-version]` (RFC 9110 §7.8)
        let name = offer.split(|byte| *byte == b'/').next().unwrap_or_default();
        if offer.eq_ignore_ascii_case(b"websocket") {
            websocket += 1;
        } else if name.eq_ignore_ascii_case(b"websocket") {
            websocket += 2;
        } else {
            others += 1;
        }
    }
    if websocket == 0 {
        return Ok(None);
    }
    if websocket > 1 || others > 0 {
        return Err(HandshakeError::Upgrade);
    }
    if *method != Method::GET {
        return Err(HandshakeError::Method);
    }
    if has_body {
        return Err(HandshakeError::Body);
    }
    if !list(headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade")) {
        return Err(HandshakeError::Connection);
    }
    check_version(headers)?;
    match one(headers, &KEY) {
        Some(key) if decodes_to(key, KEY_BYTES) => Ok(Some(key.clone())),
        _ => Err(HandshakeError::Key),
    }
}

/// Reads an extended CONNECT. There is no key over HTTP/2; one that is sent all the same means nothing (RFC 8441 §5).
pub fn read_extended_connect(headers: &HeaderMap) -> Result<(), HandshakeError> {
    check_version(headers)
}

fn check_version(headers: &HeaderMap) -> Result<(), HandshakeError> {
    match one(headers, &VERSION) {
        Some(version) if version.as_bytes().trim_ascii() == VERSION_SPOKEN.as_bytes() => Ok(()),
        _ => Err(HandshakeError::Version),
    }
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 §4.2.2).
pub fn accept_of(key: &HeaderValue) -> Option<HeaderValue> {
    let text = [key.as_bytes().trim_ascii(), ACCEPT_SALT].concat();
    HeaderValue::try_from(STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text))).ok()
}

/// A key for a handshake of our own, from 16 random bytes.
pub fn key_from(random: [u8; KEY_BYTES]) -> Option<HeaderValue> {
    HeaderValue::try_from(STANDARD.encode(random)).ok()
}

/// Did the upstream that answers 101 read our key?
pub fn check_accept(headers: &HeaderMap, key: &HeaderValue) -> Result<(), AcceptError> {
    let accept = one(headers, &ACCEPT).ok_or(AcceptError::NotOne)?;
    let fits = accept_of(key).is_some_and(|wanted| wanted.as_bytes() == accept.as_bytes().trim_ascii());
    if fits && decodes_to(accept, ACCEPT_BYTES) { Ok(()) } else { Err(AcceptError::Wrong) }
}

fn decodes_to(value: &HeaderValue, bytes: usize) -> bool {
    STANDARD.decode(value.as_bytes().trim_ascii()).is_ok_and(|decoded| decoded.len() == bytes)
}

/// The only value of a field; `None` if there is none or more than one.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// The elements of a list field, over all its lines.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}
