//! Just enough of RFC 3986 to judge an issuer identifier: it is compared as a string, so it must be written plainly.
//!
//! Never normalises: OpenID Connect compares issuers byte by byte.

/// What is wrong with an issuer or JWKS URL, in words; `None` when it is fine.
pub(super) fn problem(text: &str) -> Option<&'static str> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || "\\\"<>^`{}|".contains(c)) {
        return Some("holds a character that no URL may hold");
    }
    let (secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Some("is no `https://` URL"),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.starts_with(':') {
        return Some("names no host");
    }
    if authority.contains('@') {
        return Some("holds a user name");
    }
    if text.contains(['?', '#']) {
        return Some("holds a query or a fragment");
    }
    if !secure && !is_loopback(authority) {
        return Some("is not https (plain http is for loopback only)");
    }
    None
}

/// As [`problem`], for URLs that are fetched and never compared: a query is fine (Entra: `jwks_uri?appid=…`).
pub(super) fn fetch_problem(text: &str) -> Option<&'static str> {
    match text.split_once('?') {
        Some((base, query)) if !query.contains(['#', ' ']) && !query.chars().any(char::is_control) => problem(base),
        _ => problem(text),
    }
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The part after the host, `""` when there is none.
pub(super) fn path(text: &str) -> &str {
    let after_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
    after_scheme.find('/').and_then(|at| after_scheme.get(at..)).unwrap_or("")
}
