//! What proxies in front of us say of the caller: `X-Forwarded-For` with `X-Forwarded-Proto`, or `Forwarded` (RFC 7239).
//! It reads; whom to believe is not judged here.
use http::{HeaderMap, HeaderName, header};
use std::net::{IpAddr, SocketAddr};

/// Proxies between the caller and us that are looked at. A longer list is refused.
pub const HOPS_MAX: usize = 32;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Everything that may have to be read again, when other proxies are trusted.
pub const READ: [HeaderName; 3] = [X_FORWARDED_FOR, X_FORWARDED_PROTO, header::FORWARDED];

/// The field that the trusted proxies write. Exactly one is read: what the other holds, any client may have sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Field {
    #[default]
    XForwardedFor,
    Forwarded,
}

/// One proxy's word about the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// `None`: `unknown`, or a name of the proxy's own making.
    pub ip: Option<IpAddr>,
    pub https: Option<bool>,
}

/// The field is there and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForwardedError {
    #[error("`X-Forwarded-For` holds something that is no address")]
    For,
    #[error("`X-Forwarded-Proto` has to be one `http` or `https`: the first proxy of yours must overwrite it")]
    Proto,
    #[error("`Forwarded` is not as RFC 7239 has it")]
    Forwarded,
    #[error("more than {HOPS_MAX} proxies")]
    TooMany,
}

/// The caller, as the proxies between him and us have it: the hop nearest to us that is no trusted proxy itself, or the
/// farthest one when all are. `None` when the field is missing. What stands beyond him, he may have written himself: of
/// `X-Forwarded-For` it is not even read.
pub fn caller(
    headers: &HeaderMap,
    field: Field,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Result<Option<Hop>, ForwardedError> {
    match field {
        Field::XForwardedFor => {
            let https = x_forwarded_proto(headers)?;
            let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
            let elements = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
            nearest(elements.map(|element| x_forwarded_for(element).map(|ip| Hop { ip, https })), is_trusted)
        }
        Field::Forwarded => nearest(forwarded(headers)?.into_iter().rev().map(Ok), is_trusted),
    }
}

fn nearest(
    hops: impl Iterator<Item = Result<Hop, ForwardedError>>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Result<Option<Hop>, ForwardedError> {
    let mut last = None;
    for (at, hop) in hops.enumerate() {
        let hop = hop?;
        if at == HOPS_MAX {
            return Err(ForwardedError::TooMany);
        }
        last = Some(hop);
        if !hop.ip.is_some_and(&is_trusted) {
            break;
        }
    }
    Ok(last)
}

fn x_forwarded_proto(headers: &HeaderMap) -> Result<Option<bool>, ForwardedError> {
    let mut protos = headers.get_all(X_FORWARDED_PROTO).iter();
    match (protos.next(), protos.next()) {
        (None, _) => Ok(None),
        (Some(proto), None) => is_https(proto.as_bytes().trim_ascii()).map(Some).ok_or(ForwardedError::Proto),
        (Some(_), Some(_)) => Err(ForwardedError::Proto),
    }
}

fn x_forwarded_for(element: &[u8]) -> Result<Option<IpAddr>, ForwardedError> {
    let text = std::str::from_utf8(element.trim_ascii()).map_err(|_| ForwardedError::For)?;
    if text.eq_ignore_ascii_case("unknown") { Ok(None) } else { ip(text).map(Some).ok_or(ForwardedError::For) }
}

fn is_https(proto: &[u8]) -> Option<bool> {
    match proto {
        _ if proto.eq_ignore_ascii_case(b"https") => Some(true),
        _ if proto.eq_ignore_ascii_case(b"http") => Some(false),
        _ => None,
    }
}

/// An address, also with a port (some proxies add it), IPv6 then in brackets.
fn ip(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let found = match bare {
        Some(bare) => IpAddr::V6(bare.parse().ok()?),
        None => text.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()?,
    };
    Some(found.to_canonical())
}

/// All of it, farthest first: where an element begins is known only once what stands before it was read.
fn forwarded(headers: &HeaderMap) -> Result<Vec<Hop>, ForwardedError> {
    let mut hops = Vec::new();
    for value in headers.get_all(header::FORWARDED) {
        let mut text = value.to_str().map_err(|_| ForwardedError::Forwarded)?;
        loop {
            let (hop, rest) = element(text).ok_or(ForwardedError::Forwarded)?;
            if hops.len() == HOPS_MAX {
                return Err(ForwardedError::TooMany);
            }
            hops.push(hop);
            match rest.strip_prefix(',') {
                Some(rest) => text = rest,
                None => break,
            }
        }
    }
    Ok(hops)
}

/// `for=192.0.2.7;proto=https;by=…`, up to the next comma or the end. Each name stands at most once.
fn element(text: &str) -> Option<(Hop, &str)> {
    let mut hop = Hop { ip: None, https: None };
    let mut names: Vec<String> = Vec::new();
    let mut rest = text;
    loop {
        let (name, value, after) = pair(rest)?;
        if names.contains(&name) || names.len() > 8 {
            return None;
        }
        match name.as_str() {
            "for" => hop.ip = node(&value)?,
            "proto" => hop.https = Some(is_https(value.as_bytes())?),
            _ => {}
        }
        names.push(name);
        rest = after.trim_start_matches([' ', '\t']);
        match rest.strip_prefix(';') {
            Some(more) => rest = more,
            None if rest.is_empty() || rest.starts_with(',') => return Some((hop, rest)),
            None => return None,
        }
    }
}

/// `name=token` or `name="quoted"`; name in lower case, value without its quotes, and what follows.
fn pair(text: &str) -> Option<(String, String, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    let (name, rest) = text.split_once('=')?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.bytes().position(|byte| !is_token(byte)).unwrap_or(rest.len());
        let (value, rest) = rest.split_at(end);
        return (!value.is_empty()).then(|| (name, value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((name, value, quoted.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 7239 §6: an address, `unknown`, or `_name`, each with or without a port. The outer option: is it one at all?
fn node(text: &str) -> Option<Option<IpAddr>> {
    if text.eq_ignore_ascii_case("unknown") || text.starts_with('_') {
        return Some(None);
    }
    // Without brackets an IPv6 address is none here.
    ip(text).filter(|_| text.starts_with('[') || text.matches(':').count() <= 1).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    /// Everything in 10.0.0.0/8 is a proxy of ours.
    fn check(
        fields: &[(&'static str, &str)],
        field: Field,
        expected: Result<Option<(&str, Option<bool>)>, ForwardedError>,
    ) {
        let mut headers = HeaderMap::new();
        fields.iter().for_each(|(name, value)| _ = headers.append(*name, HeaderValue::from_str(value).unwrap()));
        let ours = crate::network::Network::parse("10.0.0.0/8").unwrap();
        let expected = expected.map(|hop| hop.map(|(ip, https)| Hop { ip: ip.parse().ok(), https }));
        assert_eq!(caller(&headers, field, |ip| ours.contains(ip)), expected, "{fields:?}");
    }

    #[test]
    fn the_caller_is_who_the_nearest_trusted_proxy_saw() {
        let check = |fields: &[(&'static str, &str)], expected| check(fields, Field::XForwardedFor, expected);
        let plain = |ip: &'static str| Ok(Some((ip, None)));
        check(&[], Ok(None));
        check(&[("x-forwarded-for", "192.0.2.7")], plain("192.0.2.7"));
        check(&[("x-forwarded-for", "6.6.6.6, 192.0.2.7")], plain("192.0.2.7"));
        check(&[("x-forwarded-for", "rubbish, 192.0.2.7,10.0.0.1")], plain("192.0.2.7"));
        check(&[("x-forwarded-for", "10.0.0.2,10.0.0.1")], plain("10.0.0.2"));
        check(
            &[
                ("x-forwarded-for", "6.6.6.6"),
                ("x-forwarded-for", "192.0.2.7, 10.0.0.1"),
                ("x-forwarded-proto", "HTTPS"),
            ],
            Ok(Some(("192.0.2.7", Some(true)))),
        );
        check(&[("x-forwarded-for", "192.0.2.7:5000")], plain("192.0.2.7"));
        check(&[("x-forwarded-for", "[2001:db8::1]:7")], plain("2001:db8::1"));
        check(&[("x-forwarded-for", "[::1]")], plain("::1"));
        check(&[("x-forwarded-for", "2001:db8::2")], plain("2001:db8::2"));
        check(&[("x-forwarded-for", "::ffff:192.0.2.7")], plain("192.0.2.7"));
        check(&[("x-forwarded-for", "192.0.2.7, unknown")], plain("-"));
        for bad in
            ["", ",", "192.0.2.7,", "localhost", "192.0.2.07", "192.0.2.7 10.0.0.1", "[192.0.2.7]", "\"192.0.2.7\""]
        {
            check(&[("x-forwarded-for", bad)], Err(ForwardedError::For));
        }
        for bad in ["https, http", "ws", ""] {
            check(&[("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", bad)], Err(ForwardedError::Proto));
        }
        check(&[("x-forwarded-proto", "https"), ("x-forwarded-proto", "https")], Err(ForwardedError::Proto));
        check(&[("x-forwarded-for", &["10.0.0.1"; 33].join(","))], Err(ForwardedError::TooMany));
        check(&[("forwarded", "for=192.0.2.7")], Ok(None));
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_has_it() {
        let check = |value: &str, expected| check(&[("forwarded", value)], Field::Forwarded, expected);
        let plain = |ip: &'static str| Ok(Some((ip, None)));
        check("for=192.0.2.7", plain("192.0.2.7"));
        check("For=\"[2001:db8:cafe::17]:4711\"", plain("2001:db8:cafe::17"));
        check("for=192.0.2.60;proto=http;by=203.0.113.43", Ok(Some(("192.0.2.60", Some(false)))));
        check("for=192.0.2.43;proto=https, for=10.0.0.1;proto=http", Ok(Some(("192.0.2.43", Some(true)))));
        check("for=192.0.2.43, for=unknown", plain("-"));
        check("for=_hidden;host=\"a, for=6.6.6.6\"", plain("-"));
        check("proto=https;for=\"192.0.2.7:80\"", Ok(Some(("192.0.2.7", Some(true)))));
        check("for=\"192.0.2.\\7\"", plain("192.0.2.7"));
        for bad in [
            "",
            "for",
            "for=",
            "for=192.0.2.7;",
            "for=192.0.2.7,",
            "for=192.0.2.7 for=10.0.0.1",
            "for=192.0.2.7;for=10.0.0.1",
            "for=\"192.0.2.7",
            "for=\"6.6.6.6, for=192.0.2.7",
            "for=2001:db8::1",
            "for=localhost",
            "proto=ws",
            "=x",
            "for =192.0.2.7",
        ] {
            check(bad, Err(ForwardedError::Forwarded));
        }
    }
}
