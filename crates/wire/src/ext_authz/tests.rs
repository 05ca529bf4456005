//! Messages as Envoy sends them, made by hand, and every way in which they may lie. No Envoy runs here.
use super::*;
use bytes::BufMut as _;
use proptest::prelude::*;

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.put_slice(content);
    out
}

fn entry(name: &str, value: &str) -> Vec<u8> {
    [field(1, name.as_bytes()), field(2, value.as_bytes())].concat()
}

/// What Envoy sends for a plain GET, and what else a test wants in `http`.
struct Asked {
    http: Vec<Vec<u8>>,
    source: Vec<u8>,
}

impl Asked {
    fn new() -> Asked {
        let headers = [
            (":method", "GET"),
            (":path", "/orders/42?x=1"),
            (":authority", "shop.example"),
            ("authorization", "Bearer x"),
            ("x-two", "1"),
            ("x-two", "2"),
        ];
        let mut http = vec![
            field(1, b"77"),
            field(2, b"GET"),
            field(4, b"/orders/42?x=1"),
            field(5, b"shop.example"),
            field(6, b"https"),
            field(10, b"HTTP/2"),
        ];
        http.extend(headers.map(|(name, value)| field(3, &entry(name, value))));
        // `size`, a number, and a body that was cut off.
        http.push(vec![9 << 3, 0x85, 0x01]);
        http.push(field(11, &[b'x'; 300]));
        Asked { http, source: Asked::source("192.0.2.9") }
    }

    fn source(address: &str) -> Vec<u8> {
        let socket = [field(2, address.as_bytes()), vec![3 << 3, 0x90, 0x3f]].concat();
        field(1, &field(1, &socket))
    }

    fn with(mut self, more: Vec<u8>) -> Asked {
        self.http.push(more);
        self
    }

    /// Without the fields of this number.
    fn without(mut self, number: u8) -> Asked {
        self.http.retain(|field| field[0] >> 3 != number);
        self
    }

    fn message(&self) -> Bytes {
        let request = field(4, &[field(1, b""), field(2, &self.http.concat())].concat());
        Bytes::from(field(1, &[field(1, &self.source), request, field(10, b"")].concat()))
    }

    fn parse(&self) -> Result<Check, CheckError> {
        Check::parse(&self.message())
    }
}

fn check(asked: &Asked, expected: &CheckError) {
    assert_eq!(asked.parse().map(|check| check.question).as_ref(), Err(expected));
}

#[test]
fn a_check_request_of_envoy_is_read() {
    let check = Asked::new().parse().unwrap();
    assert_eq!(check.question.method, Method::GET);
    assert_eq!(check.question.target.to_string(), "/orders/42?x=1");
    assert_eq!((check.question.host.as_str(), check.question.https), ("shop.example", true));
    assert_eq!((check.question.address.to_string().as_str(), check.protocol.as_str()), ("192.0.2.9", "HTTP/2"));
    assert_eq!(check.headers.len(), 3, "pseudo-fields are no fields");
    assert_eq!(check.headers.get_all("x-two").iter().count(), 2);
    // With `encode_raw_headers`.
    let raw =
        [field(1, &[field(1, b"x-raw"), field(3, b"\xff")].concat()), field(1, &entry(":method", "GET"))].concat();
    let check = Asked::new().without(3).with(field(13, &raw)).parse().unwrap();
    assert_eq!(check.headers["x-raw"].as_bytes(), b"\xff");
}

#[test]
fn a7_what_is_missing_or_stands_twice_is_refused() {
    for (number, name) in [(2, "http.method"), (4, "http.path"), (5, "http.host"), (6, "http.scheme")] {
        check(&Asked::new().without(number), &CheckError::Missing(name));
        check(&Asked::new().without(number).with(field(number, b"")), &CheckError::Missing(name));
        check(&Asked::new().with(field(number, b"GET")), &CheckError::Twice(name));
    }
    check(&Asked { source: Vec::new(), ..Asked::new() }, &CheckError::Missing("source.address"));
    let twice = [Asked::source("192.0.2.9"), Asked::source("192.0.2.66")].concat();
    check(&Asked { source: twice, ..Asked::new() }, &CheckError::Twice("source.address"));
    check(&Asked { source: Asked::source("pipe"), ..Asked::new() }, &CheckError::Malformed("source.address"));
    let two = [Asked::new().message(), Asked::new().message()].concat();
    assert_eq!(Check::parse(&two.into()).unwrap_err(), CheckError::Twice("attributes"));
    assert_eq!(Check::parse(&Bytes::new()).unwrap_err(), CheckError::Missing("attributes"));
    let no_http = field(1, &field(4, b""));
    assert_eq!(Check::parse(&no_http.into()).unwrap_err(), CheckError::Missing("attributes.request.http"));
    check(&Asked::new().with(field(13, &field(1, &entry("a", "b")))), &CheckError::Twice("http.headers"));
}

#[test]
fn a7_pseudo_fields_must_say_what_the_request_says() {
    for (name, value) in [(":method", "POST"), (":path", "/public"), (":authority", "other.example")] {
        check(&Asked::new().with(field(3, &entry(name, value))), &CheckError::Twice(name));
        let only = Asked::new().without(3).with(field(3, &entry(name, value)));
        check(&only, &CheckError::Differs(name));
    }
    check(&Asked::new().with(field(8, b"fragment")), &CheckError::Malformed("http.query"));
    check(&Asked::new().with(field(7, b"x=2")), &CheckError::Malformed("http.query"));
}

#[test]
fn a7_what_a_client_may_have_caused_is_told_apart_from_what_envoy_did() {
    for (number, text) in [(4, "orders"), (4, "/a#b"), (4, "/a b"), (5, "a b"), (2, "G T")] {
        let asked = Asked::new().without(3).without(number).with(field(number, text.as_bytes()));
        assert!(matches!(asked.parse(), Err(CheckError::Request(_))), "{text}");
    }
    check(&Asked::new().without(6).with(field(6, b"ftp")), &CheckError::Malformed("http.scheme"));
    assert!(matches!(Asked::new().with(field(3, &entry("bad name", "x"))).parse(), Err(CheckError::Request(_))));
    assert!(matches!(Asked::new().with(field(3, &entry("x", "a\nb"))).parse(), Err(CheckError::Request(_))));
}

#[test]
fn frames_are_whole_uncompressed_and_alone() {
    let frame = |bytes: &[u8]| message(&Bytes::copy_from_slice(bytes));
    assert_eq!(frame(&[0, 0, 0, 0, 2, 8, 1]).unwrap(), [8u8, 1][..]);
    for bad in
        [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 1], &[0, 0, 0, 0, 0, 0], &[0, 255, 255, 255, 255, 1]]
    {
        assert_eq!(frame(bad), Err(CheckError::Frame), "{bad:?}");
    }
}

/// Field numbers and contents of a message of ours, one level deep.
fn fields_of(message: &[u8]) -> Vec<(u32, Option<Vec<u8>>)> {
    let mut fields = Fields::of(message);
    let mut found = Vec::new();
    while let Some((number, value)) = fields.next().unwrap() {
        found.push((number, value.bytes().ok().map(<[u8]>::to_vec)));
    }
    found
}

#[test]
fn answers_have_the_shape_of_the_api() {
    let long = [b'v'; 300];
    let set: [(&str, &[u8]); 2] = [("txn-token", &long), ("forwarded", b"for=192.0.2.9")];
    let permit =
        Answer::Permit { set: &set, remove: &["authorization"], answer: &[("countersign-decision", b"ID")] }.encode();
    let permit = fields_of(&message(&permit).unwrap());
    assert_eq!(permit[0], (1, Some(vec![])), "status OK");
    let (3, Some(ok)) = &permit[1] else { panic!("{permit:?}") };
    let ok = fields_of(ok);
    assert_eq!(ok.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 2, 5, 6]);
    assert_eq!(ok[2].1.as_deref(), Some(&b"authorization"[..]));
    let option = fields_of(ok[0].1.as_ref().unwrap());
    assert_eq!(option[1], (3, None), "append_action");
    assert_eq!(ok[0].1.as_ref().unwrap().last(), Some(&2), "overwrite");
    assert_eq!(fields_of(option[0].1.as_ref().unwrap()), [(1, Some(b"txn-token".to_vec())), (2, Some(long.to_vec()))]);

    let deny = Answer::Deny { status: 403, fields: &[("www-authenticate", b"Bearer")], body: b"{}" }.encode();
    let deny = fields_of(&message(&deny).unwrap());
    assert_eq!(deny[0], (1, Some(vec![8, 7])), "PERMISSION_DENIED");
    let denied = fields_of(deny[1].1.as_ref().unwrap());
    assert_eq!(denied[0], (1, Some(vec![8, 0x93, 0x03])), "403");
    assert_eq!(denied[2], (3, Some(b"{}".to_vec())));
    assert_eq!(message(&health_serving()).unwrap(), [8u8, 1][..]);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
        let _ = Check::parse(&Bytes::from(bytes));
    }

    /// One byte changed: it may still be read, but never as another request than its fields say.
    #[test]
    fn a_changed_byte_never_splits_question_and_fields(at in 0usize..400, to: u8) {
        let mut bytes = Asked::new().message().to_vec();
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(check) = Check::parse(&Bytes::from(bytes)) {
            prop_assert!(check.headers.keys().all(|name| !name.as_str().starts_with(':')));
        }
    }
}
