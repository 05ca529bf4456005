//! The handshake's rules, one case each.
use super::*;

const SAMPLE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    headers
}

/// A good handshake, with these fields in the place of its own; an empty value takes the field away.
fn with(changes: &[(&str, &str)]) -> HeaderMap {
    let mut headers = map(&[
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", SAMPLE_KEY),
    ]);
    for (name, _) in changes {
        headers.remove(*name);
    }
    for (name, value) in changes.iter().filter(|(_, value)| !value.is_empty()) {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    headers
}

#[track_caller]
fn check(changes: &[(&str, &str)], expected: Result<bool, HandshakeError>) {
    let found = read_upgrade(&Method::GET, &with(changes), false);
    assert_eq!(found.map(|key| key.is_some()), expected, "{changes:?}");
}

#[test]
fn a_whole_handshake_is_read() {
    check(&[], Ok(true));
    check(&[("upgrade", "WebSocket")], Ok(true));
    check(&[("connection", "keep-alive, Upgrade")], Ok(true));
    check(&[("connection", "keep-alive"), ("connection", "upgrade")], Ok(true));
    check(&[("sec-websocket-version", " 13 ")], Ok(true));
}

#[test]
fn another_protocol_is_no_handshake() {
    check(&[("upgrade", "h2c")], Ok(false));
    check(&[("upgrade", "foo/1, TLS/1.3")], Ok(false));
    check(&[("upgrade", ",")], Ok(false));
    check(&[("upgrade", "websockets")], Ok(false));
    check(&[("upgrade", "")], Ok(false));
}

#[test]
fn a6_a_broken_handshake_is_refused() {
    check(&[("upgrade", "websocket, h2c")], Err(HandshakeError::Upgrade));
    check(&[("upgrade", "h2c"), ("upgrade", "websocket")], Err(HandshakeError::Upgrade));
    check(&[("upgrade", "websocket, websocket")], Err(HandshakeError::Upgrade));
    check(&[("upgrade", "websocket"), ("upgrade", "websocket")], Err(HandshakeError::Upgrade));
    check(&[("upgrade", "websocket/13")], Err(HandshakeError::Upgrade));
    check(&[("connection", "")], Err(HandshakeError::Connection));
    check(&[("connection", "keep-alive")], Err(HandshakeError::Connection));
    check(&[("sec-websocket-version", "")], Err(HandshakeError::Version));
    check(&[("sec-websocket-version", "8")], Err(HandshakeError::Version));
    check(&[("sec-websocket-version", "13, 8")], Err(HandshakeError::Version));
    check(&[("sec-websocket-version", "13"), ("sec-websocket-version", "13")], Err(HandshakeError::Version));
    for key in
        ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZQ==", "not base64 at all!!!!!!!", "dGhlIHNhbXBsZSBub25jZR=="]
    {
        check(&[("sec-websocket-key", key)], Err(HandshakeError::Key));
    }
    check(&[("sec-websocket-key", SAMPLE_KEY), ("sec-websocket-key", SAMPLE_KEY)], Err(HandshakeError::Key));
    assert_eq!(read_upgrade(&Method::POST, &with(&[]), false), Err(HandshakeError::Method));
    assert_eq!(read_upgrade(&Method::HEAD, &with(&[]), false), Err(HandshakeError::Method));
    assert_eq!(read_upgrade(&Method::GET, &with(&[]), true), Err(HandshakeError::Body));
}

#[test]
fn an_extended_connect_needs_its_version_only() {
    assert_eq!(read_extended_connect(&map(&[("sec-websocket-version", "13")])), Ok(()));
    assert_eq!(read_extended_connect(&map(&[])), Err(HandshakeError::Version));
    assert_eq!(read_extended_connect(&map(&[("sec-websocket-version", "12")])), Err(HandshakeError::Version));
}

/// RFC 6455 §1.3 has this pair.
#[test]
fn the_accept_of_the_rfc_is_ours() {
    let accept = accept_of(&HeaderValue::from_static(SAMPLE_KEY)).unwrap();
    assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(key_from(*b"the sample nonce").unwrap(), SAMPLE_KEY);
}

#[test]
fn a6_a_wrong_accept_opens_nothing() {
    let check = |fields: &[(&str, &str)], expected| {
        let key = HeaderValue::from_static(SAMPLE_KEY);
        assert_eq!(check_accept(&map(fields), &key), expected, "{fields:?}");
    };
    let right = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    check(&[right], Ok(()));
    check(&[], Err(AcceptError::NotOne));
    check(&[right, right], Err(AcceptError::NotOne));
    check(&[("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOp=")], Err(AcceptError::Wrong));
    check(&[("sec-websocket-accept", "S3PPLMBITXAQ9KYGZZHZRBK+XOO=")], Err(AcceptError::Wrong));
    check(&[("sec-websocket-accept", SAMPLE_KEY)], Err(AcceptError::Wrong));
}

#[track_caller]
fn check_origin(origins: &[&str], authority: &str, tls: bool, expected: bool) {
    let fields: Vec<_> = origins.iter().map(|origin| ("origin", *origin)).collect();
    let others = [Origin::parse("https://app.example").unwrap(), Origin::parse("http://dev.example:3000").unwrap()];
    let found = origin_is_own(&map(&fields), &HeaderValue::try_from(authority).unwrap(), tls, &others);
    assert_eq!(found, expected, "{origins:?} at {authority}, TLS {tls}");
}

#[test]
fn a_page_of_the_same_host_may_ask() {
    check_origin(&["https://shop.example"], "shop.example", true, true);
    check_origin(&["https://shop.example:443"], "shop.example", true, true);
    check_origin(&["https://Shop.Example"], "shop.example:443", true, true);
    check_origin(&["https://shop.example:8443"], "shop.example:8443", true, true);
    check_origin(&["http://shop.example"], "shop.example", false, true);
    check_origin(&["http://shop.example"], "shop.example:80", false, true);
    check_origin(&["http://localhost:8080"], "localhost:8080", false, true);
    check_origin(&["http://[::1]:8080"], "[::1]:8080", false, true);
    // TLS ended before us.
    check_origin(&["https://shop.example"], "shop.example", false, true);
    // No browser.
    check_origin(&[], "shop.example", true, true);
    check_origin(&["https://app.example"], "shop.example", true, true);
    check_origin(&["https://APP.example:443"], "shop.example", true, true);
    check_origin(&["http://dev.example:3000"], "shop.example", true, true);
}

#[test]
fn a6_a_foreign_page_may_not_ask() {
    check_origin(&["https://evil.example"], "shop.example", true, false);
    check_origin(&["https://shop.example.evil.example"], "shop.example", true, false);
    check_origin(&["https://evil.example/shop.example"], "shop.example", true, false);
    check_origin(&["https://shop.example@evil.example"], "shop.example", true, false);
    check_origin(&["https://shop.example:8443"], "shop.example", true, false);
    check_origin(&["https://shop.example"], "shop.example:8443", true, false);
    check_origin(&["http://shop.example"], "shop.example", true, false);
    check_origin(&["http://shop.example:443"], "shop.example:443", true, false);
    check_origin(&["null"], "shop.example", true, false);
    check_origin(&[""], "shop.example", true, false);
    check_origin(&["file://"], "shop.example", true, false);
    check_origin(&["https://shop.example "], "shop.example", true, false);
    check_origin(&["https://shop.example", "https://shop.example"], "shop.example", true, false);
    check_origin(&["http://app.example"], "shop.example", true, false);
    check_origin(&["https://app.example:8443"], "shop.example", true, false);
    check_origin(&["http://dev.example"], "shop.example", true, false);
}

#[test]
fn an_origin_is_written_in_one_way() {
    let check = |text: &str, expected: Option<&str>| {
        let found = Origin::parse(text).ok().map(|origin| origin.to_string());
        assert_eq!(found.as_deref(), expected, "{text}");
    };
    check("https://app.example", Some("https://app.example"));
    check("HTTPS://App.Example:443", Some("https://app.example"));
    check("http://app.example:80", Some("http://app.example"));
    check("https://app.example:8443", Some("https://app.example:8443"));
    check("http://[::1]:3000", Some("http://[::1]:3000"));
    for text in [
        "app.example",
        "https://",
        "https://a b",
        "https://app.example/",
        "https://*.example",
        "ws://a",
        "https://a:x",
        "https://a:99999",
        "*",
        "https://[]",
    ] {
        check(text, None);
    }
}
