//! Was a proof made for this URL? `htu` after the syntax-based and scheme-based normalisation of RFC 3986 (§6.2.2, §6.2.3),
//! without query and fragment, against what the client asked for (RFC 9449 §4.3).
//!
//! The path goes through the one normaliser of the product, so what matches is what was decided on and is forwarded.
use super::{Asked, ProofError};
use crate::json;
use crate::path::NormalPath;
use std::borrow::Cow;
use std::net::Ipv6Addr;

pub(super) fn check(htu: &str, asked: &Asked<'_>) -> Result<(), ProofError> {
    let scheme = if asked.https { "https" } else { "http" };
    let differs = |why: &'static str| ProofError::Url {
        proof: json::excerpt(htu),
        asked: json::excerpt(&format!("{scheme}://{}{}", asked.authority, asked.path)),
        why,
    };
    let (proof_scheme, rest) = htu.split_once("://").ok_or_else(|| differs(": no absolute URL"))?;
    if !proof_scheme.eq_ignore_ascii_case(scheme) {
        return Err(differs(": another scheme. Where something in front of this edge ends TLS, clients see `https`"));
    }
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match (host_and_port(authority, asked.https), host_and_port(asked.authority, asked.https)) {
        (Some(proof), Some(ours)) if proof == ours => {}
        _ => return Err(differs(": another host or port")),
    }
    let path = if path.is_empty() { "/" } else { path };
    match NormalPath::parse(path, asked.tolerance) {
        Ok(path) if path.as_str() == asked.path.as_str() => Ok(()),
        _ => Err(differs(": another path")),
    }
}

/// Host in lower case without the dot of a fully qualified name, and the port that is meant.
fn host_and_port(authority: &str, https: bool) -> Option<(Cow<'_, str>, u16)> {
    let default = if https { 443 } else { 80 };
    let (host, port) = match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => (authority.get(..colon)?, authority.get(colon + 1..)?),
        _ => (authority, ""),
    };
    let port = match port {
        "" => default,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    if let Some(literal) = host.strip_prefix('[') {
        // One address has many spellings.
        let address: Ipv6Addr = literal.strip_suffix(']')?.parse().ok()?;
        return Some((Cow::Owned(address.to_string()), port));
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.is_empty() || !host.bytes().all(is_name) {
        return None;
    }
    Some((Cow::Owned(host.to_ascii_lowercase()), port))
}
