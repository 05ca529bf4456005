//! Verdicts of the guard, each at every split of its bytes.
use super::*;
use proptest::prelude::*;

const LIMITS: GuardLimits = GuardLimits { header_bytes_max: 2048, header_fields_max: 20 };

/// What passed, and how it ended, when the bytes come in the given pieces.
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Option<Fault>, u64) {
    let mut machine = Machine::new(LIMITS);
    let mut passed = Vec::new();
    let mut fault = None;
    for piece in pieces {
        if let Err(found) = machine.feed(piece, &mut |bytes| passed.extend_from_slice(bytes)) {
            fault.get_or_insert(found);
        }
    }
    (passed, fault, machine.messages())
}

#[test]
fn a_message_is_judged_alone_and_the_next_one_given_back() {
    let messages: [&[u8]; 4] = [
        b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: v\r\n\r\n",
        b"\r\nGET /d HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let all = messages.concat();
    let (mut machine, mut input) = (Machine::new(LIMITS), all.as_slice());
    for (count, message) in (1..).zip(messages) {
        let mut passed = Vec::new();
        input = machine.feed_message(input, &mut |bytes| passed.extend_from_slice(bytes)).unwrap();
        assert_eq!((passed.as_slice(), machine.messages()), (message, count));
        assert_eq!(machine.position(), Position::Between);
    }
    assert_eq!(input, b"");
}

fn run_all_splits(bytes: &[u8]) -> (Vec<u8>, Option<Fault>, u64) {
    let whole = run([bytes]);
    assert_eq!(whole, run(bytes.chunks(1)), "byte by byte: {}", bytes.escape_ascii());
    for at in 0..bytes.len().min(400) {
        let (first, second) = bytes.split_at(at);
        assert_eq!(whole, run([first, second]), "split at {at}: {}", bytes.escape_ascii());
    }
    whole
}

#[track_caller]
fn passes(bytes: &[u8], messages: u64) {
    let (passed, fault, seen) = run_all_splits(bytes);
    assert_eq!((fault, seen), (None, messages), "{}", bytes.escape_ascii());
    assert_eq!(passed.escape_ascii().to_string(), bytes.escape_ascii().to_string());
}

/// The head is refused with `status`, and no byte of it passes.
#[track_caller]
fn refuses(bytes: &[u8], status: u16) {
    let (passed, fault, messages) = run_all_splits(bytes);
    assert!(
        matches!(fault, Some(Fault::Head { violation, .. }) if violation.status == status),
        "{} gave {fault:?}",
        bytes.escape_ascii()
    );
    assert_eq!((passed.len(), messages), (0, 0), "{}", bytes.escape_ascii());
}

/// A GET with these header lines, each ended by CRLF, `Host` included.
#[track_caller]
fn refuses_fields(lines: &str, status: u16) {
    refuses(format!("POST /x HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n").as_bytes(), status);
}

#[track_caller]
fn breaks_body(chunks: &[u8]) {
    let head = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bytes = [&head[..], chunks].concat();
    let (_, fault, messages) = run_all_splits(&bytes);
    assert!(matches!(fault, Some(Fault::Body(_))), "{} gave {fault:?}", chunks.escape_ascii());
    assert_eq!(messages, 1);
}

#[test]
fn ordinary_requests_pass_unchanged() {
    passes(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", 1);
    passes(b"GET /a?b={c}|`d HTTP/1.1\r\nhost:a.example:8080\r\nX: \xe2\x82\xac\ty\r\n\r\n", 1);
    passes(b"GET / HTTP/1.0\r\n\r\n", 1);
    passes(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 1);
    passes(b"GET http://A.example/x HTTP/1.1\r\nHost: a.EXAMPLE\r\n\r\n", 1);
    passes(b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 1);
    passes(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 1);
    passes(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n", 2);
    passes(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 2);
    passes(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:  Chunked \r\n\r\n5;a=\"b\"\r\nhello\r\n0A ;x\r\n0123456789\r\n0\r\nT: v\r\n\r\n\
          GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        2,
    );
}

#[test]
fn a2_content_length_and_transfer_encoding_together() {
    refuses_fields("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400);
    refuses_fields("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400);
    refuses_fields("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", 400);
}

#[test]
fn a2_transfer_encoding_is_exactly_chunked() {
    for value in [
        " chunked, identity",
        " xchunked",
        " identity",
        "\tchunked",
        " chunked\t",
        " chunked, chunked",
        "",
        " \x0bchunked",
        " chunked;q=1",
        " \"chunked\"",
    ] {
        refuses_fields(&format!("Transfer-Encoding:{value}\r\n"), 400);
    }
    refuses_fields("Transfer-Encoding:\r\n chunked\r\n", 400);
    refuses_fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400);
    refuses_fields("Transfer-Encoding: gzip, chunked\r\n", 501);
    refuses(b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
}

#[test]
fn a2_content_length_is_one_plain_number() {
    for value in ["+5", "-5", "0x5", "5,5", "5, 5", "5 5", "", "99999999999999999999", "1e3", "5.0", "\u{0665}"] {
        refuses_fields(&format!("Content-Length: {value}\r\n"), 400);
    }
    refuses_fields("Content-Length: 5\r\nContent-Length: 6\r\n", 400);
    refuses_fields("Content-Length: 5\r\nContent-Length: 5\r\n", 400);
}

#[test]
fn a2_line_ends_and_white_space() {
    refuses(b"GET / HTTP/1.1\nHost: a\n\n", 400);
    refuses(b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400);
    refuses_fields("A: b\rc\r\n", 400);
    refuses_fields("A: b\r\n c\r\n", 400);
    refuses_fields("A: b\r\n\tc\r\n", 400);
    refuses_fields("A : b\r\n", 400);
    refuses_fields("A\t: b\r\n", 400);
    refuses_fields("A\0: b\r\n", 400);
    refuses_fields("A: b\0\r\n", 400);
    refuses_fields("A: b\x7f\r\n", 400);
    refuses_fields(": b\r\n", 400);
    refuses_fields("no colon\r\n", 400);
    refuses_fields("A\u{e9}: b\r\n", 400);
    refuses(b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refuses(b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refuses(b"GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refuses(b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400);
    refuses(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400);
    refuses(b"\n\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refuses(b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
}

#[test]
fn a2_versions() {
    refuses(b"GET /\r\n", 400);
    refuses(b"GET / http/1.1\r\nHost: a\r\n\r\n", 400);
    refuses(b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400);
    refuses(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505);
    refuses(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505);
}

#[test]
fn a2_host_and_target() {
    refuses(b"GET / HTTP/1.1\r\n\r\n", 400);
    refuses(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    for host in ["", "a,b", "a b", "user@a", "a/b", "a:b", "a:123456", "[::1", "[]", "a\u{e9}"] {
        refuses(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), 400);
    }
    refuses(b"GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400);
    refuses(b"GET http://a.example@b/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400);
    refuses(b"GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400);
    refuses(b"GET a.example:80 HTTP/1.1\r\nHost: a.example\r\n\r\n", 400);
    refuses(b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refuses(b"GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refuses(b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refuses(b"GET /\xc0\xaf HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refuses(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501);
}

#[test]
fn a2_heads_past_their_limits() {
    refuses(format!("GET /{} HTTP/1.1\r\n", "x".repeat(3000)).as_bytes(), 414);
    refuses_fields(&format!("A: {}\r\n", "x".repeat(3000)), 431);
    refuses_fields(&"A: b\r\n".repeat(20), 431);
}

#[test]
fn a2_chunk_framing() {
    for chunks in [
        &b"zz\r\n"[..],
        b"\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello 0\r\n\r\n",
        b"5 \r\nhello\r\n",
        b"5 5\r\nhello\r\n",
        b"5;a\x00b\r\nhello\r\n",
        b"5;a\rb\r\nhello\r\n",
        b"ffffffffffffffff\r\n",
        b"10000000000000000\r\n",
        b"0000000000000000005\r\nhello\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nA: b\r\n c\r\n\r\n",
        b"0\r\nA: b\nX: y\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
    ] {
        breaks_body(chunks);
    }
    breaks_body(format!("5;{}\r\n", "x".repeat(2000)).as_bytes());
    breaks_body(format!("1;{}\r\na\r\n", "x".repeat(900)).repeat(5).as_bytes());
    breaks_body(format!("0\r\nA: {}\r\n\r\n", "x".repeat(3000)).as_bytes());
    breaks_body(format!("0\r\n{}\r\n", "A: b\r\n".repeat(21)).as_bytes());
}

#[test]
fn earlier_requests_pass_and_nothing_after_a_fault() {
    let good = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
    let bytes = [&good[..], b"GET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    let (passed, fault, messages) = run_all_splits(&bytes);
    assert_eq!(passed, good);
    assert!(matches!(fault, Some(Fault::Head { .. })));
    assert_eq!(messages, 1);
}

proptest! {
    /// Splits change no verdict, and what passes is a prefix of what came.
    #[test]
    fn any_bytes_any_splits(bytes in prop::collection::vec(http_piece(), 0..12), cuts in prop::collection::vec(1usize..40, 0..20)) {
        let bytes = bytes.concat();
        let whole = run([&bytes[..]]);
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        let split = run(pieces);
        prop_assert_eq!(&whole, &split);
        prop_assert!(bytes.starts_with(&whole.0));
    }
}

fn http_piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"Host: a\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"Content-Length: 3\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n\r\n".to_vec()),
        Just(b"3\r\nabc\r\n".to_vec()),
        Just(b"0\r\n\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..20),
    ]
}
