//! The opening handshake of a WebSocket, and whose page asks for it.
use http::header::{CONNECTION, HOST, ORIGIN, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use wire::websocket::{self, Origin};

/// One value per line: `Upgrade`, `Connection`, the version, the key, `Origin`, `Host`. A handshake that is taken has one
/// key of 16 bytes, whose own answer fits it and no other; an origin reads the same once written again; and a page of an
/// origin that cannot be read is nobody's own.
pub fn websocket(input: &[u8]) {
    let names = [UPGRADE, CONNECTION, HeaderName::from_static("sec-websocket-version"), websocket::KEY, ORIGIN, HOST];
    let mut headers = HeaderMap::new();
    for (line, name) in input.split(|byte| *byte == b'\n').zip(names.iter().cycle()).take(12) {
        if let Ok(value) = HeaderValue::from_bytes(line)
            && !line.is_empty()
        {
            headers.append(name, value);
        }
    }
    if let Ok(Some(key)) = websocket::read_upgrade(&Method::GET, &headers, false) {
        assert_eq!(headers.get_all(websocket::KEY).iter().count(), 1, "two keys");
        let accept = websocket::accept_of(&key);
        assert!(accept.is_some(), "a key without an answer");
        let answer = HeaderMap::from_iter(accept.map(|accept| (websocket::ACCEPT, accept)));
        assert!(websocket::check_accept(&answer, &key).is_ok(), "its own answer does not fit");
        let other = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA==");
        // White space around it is no part of a key.
        let is_same = other.as_bytes() == key.as_bytes().trim_ascii();
        assert_eq!(websocket::check_accept(&answer, &other).is_ok(), is_same, "an answer fits two keys");
        assert!(websocket::read_upgrade(&Method::POST, &headers, false).is_err());
        assert!(websocket::read_upgrade(&Method::GET, &headers, true).is_err());
    }
    let none = HeaderValue::from_static("");
    let host = headers.get(HOST).unwrap_or(&none);
    let origin = headers.get(ORIGIN).and_then(|origin| std::str::from_utf8(origin.as_bytes()).ok());
    match origin.map(Origin::parse) {
        Some(Ok(origin)) => assert_eq!(Origin::parse(&origin.to_string()), Ok(origin), "it reads otherwise"),
        Some(Err(_)) => assert!(!websocket::origin_is_own(&headers, host, true, &[]), "nobody's page is one's own"),
        None => {}
    }
}
