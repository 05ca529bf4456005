//! Which header fields carry identity, and are therefore stripped at every door (WIRE §4), and the request checks that
//! HTTP libraries leave to us. It judges names and syntax only, never who may send what.
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::net::IpAddr;

mod host;
mod lists;
#[cfg(test)]
mod tests;

pub use host::{named_host, request_host};

/// Why a request's fields are refused with 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("field name `{0}` holds an underscore")]
    Underscore(String),
    #[error("`Host` is missing")]
    HostMissing,
    #[error("`Host` stands more than once")]
    HostTwice,
    #[error("`Host` `{0}` is no host")]
    HostInvalid(String),
    #[error("the target's authority differs from `Host`")]
    AuthorityDiffers,
    #[error("`Connection` nominates `{0}`")]
    ConnectionNominates(String),
}

/// The longest name or prefix in [`names_identity`] is shorter than this, so only so much of a name is looked at.
const FOLDED_BYTES: usize = 48;

/// Is this a field that no client may send, because an upstream could take it for an identity, for the client's address,
/// or for another method or path than the one decided on? Case-insensitive, `_` (and any other mark) folded to `-`.
pub fn is_identity(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    // Most names begin with another letter, and most hold letters and `-` only.
    if !matches!(name.first(), Some(b'c' | b'f' | b'p' | b'r' | b's' | b't' | b'w' | b'x')) {
        return false;
    }
    if name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') {
        return names_identity(name);
    }
    let mut folded = [0; FOLDED_BYTES];
    let mut length = 0;
    for (to, from) in folded.iter_mut().zip(name) {
        *to = if from.is_ascii_alphanumeric() { *from } else { b'-' };
        length += 1;
    }
    folded.get(..length).is_some_and(names_identity)
}

/// Is this a field that nobody but Countersign sets (WIRE §1 to §3)? A subset of [`is_identity`].
pub fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "txn-token" | "workload-identity-token" | "workload-proof-token") || name.starts_with("countersign-")
}

/// `name` in lower case, with `-` for every mark.
fn names_identity(name: &[u8]) -> bool {
    match name {
        [b'c', rest @ ..] => {
            rest.starts_with(b"ountersign-")
                || rest.starts_with(b"f-access-")
                || matches!(rest, b"f-connecting-ip" | b"lient-cert" | b"lient-cert-chain" | b"lient-ip")
        }
        [b'f', rest @ ..] => rest == b"orwarded",
        // `Proxy` becomes the variable HTTP_PROXY under CGI ("httpoxy").
        [b'p', rest @ ..] => rest == b"roxy",
        [b'r', rest @ ..] => rest.starts_with(b"emote-"),
        [b's', rest @ ..] => rest.starts_with(b"sl-client-"),
        [b't', rest @ ..] => matches!(rest, b"xn-token" | b"rue-client-ip"),
        [b'w', rest @ ..] => matches!(rest, b"orkload-identity-token" | b"orkload-proof-token"),
        [b'x', b'-', rest @ ..] => names_identity_x(rest),
        _ => false,
    }
}

/// Names after `x-`.
fn names_identity_x(rest: &[u8]) -> bool {
    match rest {
        [b'a', ..] => rest.starts_with(b"auth") || rest.starts_with(b"amzn-oidc-"),
        [b'c', ..] => rest.starts_with(b"consumer-") || rest.starts_with(b"client-") || rest == b"cluster-client-ip",
        [b'e', ..] => rest.starts_with(b"envoy-"),
        [b'f', ..] => rest.starts_with(b"forwarded-") || rest == b"forwarded",
        [b'g', ..] => rest.starts_with(b"goog-authenticated-user-") || rest == b"goog-iap-jwt-assertion",
        [b'h', ..] => matches!(rest, b"http-method-override" | b"http-method"),
        [b'm', ..] => {
            rest.starts_with(b"ms-client-principal") || rest.starts_with(b"ms-token-") || rest == b"method-override"
        }
        [b'o', ..] => rest.starts_with(b"original-"),
        [b'p', ..] => rest.starts_with(b"pomerium-"),
        [b'r', ..] => rest.starts_with(b"remote-") || matches!(rest, b"real-ip" | b"rewrite-url"),
        [b's', ..] => rest.starts_with(b"ssl-client-"),
        [b'u', ..] => rest.starts_with(b"user"),
        [b'v', ..] => rest.starts_with(b"vouch-"),
        [b'w', ..] => rest.starts_with(b"webauth-"),
        _ => false,
    }
}

/// Belongs to one connection only (RFC 9110 §7.6.1). `TE` is treated on its own; `Trailer` is end-to-end.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    match name.as_str().as_bytes() {
        [b'c', rest @ ..] => rest == b"onnection",
        [b'h', rest @ ..] => rest == b"ttp2-settings",
        [b'k', rest @ ..] => rest == b"eep-alive",
        [b'p', rest @ ..] => matches!(rest, b"roxy-connection" | b"roxy-authenticate" | b"roxy-authorization"),
        [b't', rest @ ..] => rest == b"ransfer-encoding",
        [b'u', rest @ ..] => rest == b"pgrade",
        _ => false,
    }
}

/// What a client may not have removed on its way: a rule, the routing or the framing depends on it.
fn may_be_nominated(name: &HeaderName) -> bool {
    !is_identity(name)
        && !matches!(
            name.as_str(),
            "authorization"
                | "content-encoding"
                | "content-length"
                | "content-type"
                | "cookie"
                | "dpop"
                | "host"
                | "origin"
                | "signature"
                | "signature-input"
                | "traceparent"
                | "tracestate"
        )
}

/// Removes identity fields and hop-by-hop fields (RFC 9110 §7.6.1), drops `cs` from `tracestate` and our cookies from
/// `Cookie` (whose lines are joined, RFC 9113 §8.2.3), refuses what WIRE §4 refuses. Afterwards no field is left for which
/// [`is_identity`] holds. On an error the fields are as they came.
pub fn clean_request(headers: &mut HeaderMap) -> Result<(), FieldError> {
    let mut unwanted: Vec<HeaderName> = Vec::new();
    let (mut te, mut cookie, mut tracestate) = (false, false, false);
    for name in headers.keys() {
        match name.as_str() {
            "te" => te = true,
            "cookie" => cookie = true,
            "tracestate" => tracestate = true,
            text if text.as_bytes().contains(&b'_') => return Err(FieldError::Underscore(shown(text))),
            _ if is_hop_by_hop(name) || is_identity(name) => unwanted.push(name.clone()),
            _ => {}
        }
    }
    if headers.contains_key(header::CONNECTION) {
        for nominated in lists::nominated(headers) {
            let name = nominated.map_err(|text| FieldError::ConnectionNominates(shown(&text)))?;
            if !may_be_nominated(&name) {
                return Err(FieldError::ConnectionNominates(shown(name.as_str())));
            }
            // `TE` is always nominated; whether it stays is decided below.
            if name != header::TE {
                unwanted.push(name);
            }
        }
    }
    for name in unwanted {
        headers.remove(name);
    }
    if te {
        lists::keep_te_trailers(headers);
    }
    if cookie {
        lists::drop_session_cookies(headers);
    }
    if tracestate {
        lists::drop_our_tracestate(headers);
    }
    Ok(())
}

/// Removes hop-by-hop fields, `Countersign-*`/`Txn-Token` and our session cookies from an upstream's answer.
pub fn clean_response(headers: &mut HeaderMap) {
    let mut unwanted: Vec<HeaderName> = Vec::new();
    let (mut connection, mut cookies) = (false, false);
    for name in headers.keys() {
        match name.as_str() {
            "connection" => connection = true,
            "set-cookie" => cookies = true,
            text if is_hop_by_hop(name) || text == "txn-token" || text.starts_with("countersign-") => {
                unwanted.push(name.clone());
            }
            _ => {}
        }
    }
    if connection {
        unwanted.extend(lists::nominated(headers).flatten());
        headers.remove(header::CONNECTION);
    }
    for name in unwanted {
        headers.remove(name);
    }
    if cookies {
        lists::drop_set_session_cookies(headers);
    }
}

/// `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` (RFC 7239) as this side of the socket knows them. Made once, they
/// can be added to many requests without copying a byte.
#[derive(Debug, Clone)]
pub struct Forwarded([(HeaderName, HeaderValue); 4]);

impl Forwarded {
    /// `host` is what [`request_host`] returned; `proto` is `http` or `https`.
    pub fn new(client_ip: IpAddr, proto: &'static str, host: &str) -> Forwarded {
        const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
        const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
        const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
        let ip = client_ip.to_canonical();
        // An IPv6 address is no token, and is quoted; so is a host that is one. Other hosts are tokens.
        let (open, close) = if ip.is_ipv6() { ("\"[", "]\"") } else { ("", "") };
        let quote = if host.starts_with('[') { "\"" } else { "" };
        let mut text = String::with_capacity(96 + host.len());
        text.extend(["for=", open]);
        let for_from = text.len();
        push_ip(&mut text, ip);
        let for_to = text.len();
        text.extend([close, ";host=", quote]);
        let host_from = text.len();
        text.push_str(host);
        let host_to = text.len();
        text.extend([quote, ";proto=", proto]);
        // The three values are parts of one text and share its memory.
        let text = Bytes::from(text);
        // An address, a host that was read, and these words are valid in a field.
        let value = |part| HeaderValue::from_maybe_shared(part).unwrap_or(HeaderValue::from_static("unknown"));
        Forwarded([
            (FOR, value(text.slice(for_from..for_to))),
            (HOST, value(text.slice(host_from..host_to))),
            (header::FORWARDED, value(text)),
            (PROTO, HeaderValue::from_static(proto)),
        ])
    }

    /// In the place of whatever stands there. Call it after [`clean_request`].
    pub fn add(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            headers.insert(name, value.clone());
        }
    }
}

/// As `Display` writes it; IPv4 without its formatter.
fn push_ip(text: &mut String, ip: IpAddr) {
    let IpAddr::V4(ip) = ip else {
        text.push_str(&ip.to_string());
        return;
    };
    for (at, octet) in ip.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        for (least, divisor) in [(100, 100), (10, 10), (0, 1)] {
            if octet >= least {
                text.push(char::from(b'0' + octet / divisor % 10));
            }
        }
    }
}

/// User input for a message: bounded.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
