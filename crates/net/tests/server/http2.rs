//! HTTP/2 spoken frame by frame: what an honest client gets, and what becomes of floods.
use crate::raw::{Raw, TestServer, short, start, start_with, wait_until};
use net::Refusal;
use std::io::Write;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// One field, never indexed, without Huffman coding (RFC 7541 §6.2.3).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0x10];
    for text in [name, value] {
        assert!(text.len() < 127);
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    [&[(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path)], more]
        .concat()
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect()
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", path, &[]))
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

struct Http2(Raw);

impl Http2 {
    fn connect(server: &TestServer, settings: &[u8]) -> Http2 {
        let mut raw = server.connect();
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        raw.send(frame(SETTINGS, 0, 0, settings));
        raw.send(frame(SETTINGS, ACK, 0, &[]));
        Http2(raw)
    }
    /// `None` once the server closed.
    fn frame(&mut self) -> Option<Frame> {
        let head = self.0.exact(9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload: self.0.exact(length)? })
    }
    /// Status (only from the static table) and body of the answer on a stream; `None` if it was reset.
    #[track_caller]
    fn answer(&mut self, stream: u32) -> Option<(u16, String)> {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let frame = self.frame().expect("closed before the answer");
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                HEADERS if status == 0 => status = if frame.payload[0] == 0x88 { 200 } else { 1 },
                DATA => body.extend_from_slice(&frame.payload),
                RST_STREAM => return None,
                _ => {}
            }
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                return Some((status, String::from_utf8(body).unwrap()));
            }
        }
    }
    /// Reads until the server closes; `true` if a GOAWAY came. A flood may lie in the sockets' buffers before the server
    /// even accepted, so the end is seen here and not in its counters.
    fn ends_with_goaway(&mut self) -> bool {
        let mut goaway = false;
        while let Some(frame) = self.frame() {
            goaway |= frame.kind == GOAWAY;
        }
        goaway
    }
    /// Sends as much of a flood as the server takes.
    fn flood(&mut self, frames: &[u8], count: usize) {
        let many = frames.repeat(100);
        for _ in 0..count / 100 {
            if self.0.stream.write_all(&many).is_err() {
                return;
            }
        }
    }
}

/// The flood ends its own connection, and a client beside it goes on being served.
#[track_caller]
fn flood_ends(frames: &[u8], flood: &'static str) {
    let server = start();
    let mut other = Http2::connect(&server, &[]);
    let mut client = Http2::connect(&server, &[]);
    client.flood(frames, 100_000);
    server.seen.wait_for(flood, |seen| seen.refusals.lock().unwrap().contains(&Refusal::Flood(flood)));
    wait_until("the end", || server.server.as_ref().unwrap().open_connections() == 1);
    other.0.send(get(1, "/"));
    assert_eq!(other.answer(1), Some((200, "hello".into())));
}

#[test]
fn a3_settings_flood_ends_the_connection() {
    flood_ends(&frame(SETTINGS, 0, 0, &[]), "SETTINGS flood");
}

#[test]
fn a3_ping_flood_ends_the_connection() {
    flood_ends(&frame(PING, 0, 0, &[0; 8]), "PING flood");
}

#[test]
fn a3_empty_data_flood_ends_the_connection() {
    let server = start();
    let mut client = Http2::connect(&server, &[]);
    client.0.send(frame(HEADERS, END_HEADERS, 1, &request("POST", "/wait", &[])));
    client.flood(&frame(DATA, 0, 1, &[]), 100_000);
    client.ends_with_goaway();
    wait_until("the end", || server.server.as_ref().unwrap().open_connections() == 0);
    // The library has a limit of its own, which may be met first: then its error is what is counted.
    let refusals = server.seen.refusals.lock().unwrap();
    let expected = [Refusal::Flood("empty DATA flood"), Refusal::Malformed("an HTTP/2 connection error")];
    assert!(matches!(&refusals[..], [one] if expected.contains(one)), "{refusals:?}");
}

#[test]
fn a3_continuation_flood_ends_the_connection() {
    let server = start();
    let mut client = Http2::connect(&server, &[]);
    client.0.send(frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[])));
    client.flood(&frame(CONTINUATION, 0, 1, &field("x", "y")), 100_000);
    client.ends_with_goaway();
    wait_until("the end", || server.server.as_ref().unwrap().open_connections() == 0);
    assert_eq!(server.requests(), [""; 0]);
}

#[test]
fn a3_zero_length_headers_flood_ends_the_connection() {
    let server = start();
    let mut client = Http2::connect(&server, &[]);
    client.flood(&frame(HEADERS, END_STREAM, 1, &[]), 100);
    client.flood(&frame(CONTINUATION, 0, 1, &[]), 100_000);
    client.ends_with_goaway();
    wait_until("the end", || server.server.as_ref().unwrap().open_connections() == 0);
    assert_eq!(server.requests(), [""; 0]);
}

#[test]
fn a3_rapid_reset_ends_the_connection_and_leaves_nothing_running() {
    let server = start();
    let mut client = Http2::connect(&server, &[]);
    for stream in (1..40_000).step_by(2) {
        let bytes = [get(stream, "/wait"), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat();
        if client.0.stream.write_all(&bytes).is_err() {
            break;
        }
    }
    client.ends_with_goaway();
    wait_until("the end", || server.server.as_ref().unwrap().open_connections() == 0);
    server.seen.wait_for("every request to be given up", |seen| {
        seen.given_up.load(SeqCst) == seen.requests.lock().unwrap().len()
    });
    assert!(server.requests().len() < 2_000, "{}", server.requests().len());
}

#[test]
fn a3_a_stream_whose_window_never_opens_is_reset() {
    let server = start_with(|settings| {
        settings.timeouts.body_stall = Duration::from_millis(300);
    });
    // SETTINGS_INITIAL_WINDOW_SIZE = 0
    let mut client = Http2::connect(&server, &[0, 4, 0, 0, 0, 0]);
    client.0.send(get(1, "/events"));
    client.0.send(get(3, "/"));
    server.seen.wait_for("the source to be given up", |seen| seen.given_up.load(SeqCst) == 1);
    let mut reset = Vec::new();
    while reset.len() < 2 {
        let frame = client.frame().expect("only the streams end");
        if frame.kind == RST_STREAM {
            reset.push(frame.stream);
        }
    }
    reset.sort_unstable();
    assert_eq!(reset, [1, 3]);
}

#[test]
fn a3_streams_past_the_limit_are_refused() {
    let server = start_with(|settings| settings.limits.streams_max = 2);
    let mut client = Http2::connect(&server, &[]);
    for stream in [1, 3, 5] {
        client.0.send(get(stream, "/wait"));
    }
    assert_eq!(client.answer(5), None);
    server.seen.wait_for("the two others", |seen| seen.requests.lock().unwrap().len() == 2);
}

#[test]
fn a3_malformed_requests_never_reach_the_service() {
    let check = |fields: Vec<u8>| {
        let server = start();
        let mut client = Http2::connect(&server, &[]);
        client.0.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields));
        client.0.send(get(3, "/after"));
        let refused = loop {
            match client.frame() {
                None => break true,
                Some(frame) if frame.stream == 1 && frame.kind == RST_STREAM => break true,
                Some(frame) if frame.stream == 1 && frame.kind == HEADERS => break frame.payload[0] == 0x8c,
                Some(frame) if frame.kind == GOAWAY => break true,
                Some(_) => {}
            }
        };
        assert!(refused, "{}", fields.escape_ascii());
        assert!(!server.requests().iter().any(|seen| seen.contains("/bad")), "{}", fields.escape_ascii());
    };
    check(request("GET", "/bad", &[("Upper", "x")]));
    check(request("GET", "/bad", &[("connection", "close")]));
    check(request("GET", "/bad", &[("transfer-encoding", "chunked")]));
    check(request("GET", "/bad", &[("te", "gzip")]));
    check(request("GET", "/bad", &[("x", "a\r\nb: c")]));
    check(request("GET", "/bad", &[(":path", "/twice")]));
    check(request("GET", "/bad", &[(":unknown", "x")]));
    check([field("x", "before"), request("GET", "/bad", &[])].concat());
    check(request("GET", "bad", &[]));
    check(request("GET", "/bad", &[("host", "b.example")]));
    check(request("GET", "/bad", &[("host", "a.example"), ("host", "a.example")]));
}

#[test]
fn a3_a_huge_header_table_and_list_are_bounded() {
    let server = start();
    // SETTINGS_HEADER_TABLE_SIZE = 2^32 - 1: only a permission for our encoder.
    let mut client = Http2::connect(&server, &[0, 1, 0xff, 0xff, 0xff, 0xff]);
    let big = "v".repeat(120);
    let fields: Vec<u8> = (0..400).flat_map(|_| field("x", &big)).collect();
    let block = [request("GET", "/bad", &[]), fields].concat();
    let mut parts = block.chunks(16_000).peekable();
    let mut kind = HEADERS;
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_none() { END_HEADERS } else { 0 };
        client.0.send(frame(kind, if kind == HEADERS { flags | END_STREAM } else { flags }, 1, part));
        kind = CONTINUATION;
    }
    client.0.send(get(3, "/after"));
    assert_eq!(client.answer(3), Some((200, "hello".into())));
    assert_eq!(server.requests(), ["GET http://a.example/after"]);
}

#[test]
fn a4_an_idle_http2_connection_gets_a_goaway() {
    let server = start_with(|settings| settings.timeouts = short());
    let mut client = Http2::connect(&server, &[]);
    client.0.send(get(1, "/"));
    assert_eq!(client.answer(1), Some((200, "hello".into())));
    assert!(client.ends_with_goaway());
}

#[test]
fn a4_a_stalled_http2_body_fails_its_request_only() {
    let server = start_with(|settings| settings.timeouts.body_stall = Duration::from_millis(300));
    let mut client = Http2::connect(&server, &[]);
    client.0.send(frame(HEADERS, END_HEADERS, 1, &request("POST", "/read", &[])));
    client.0.send(frame(DATA, 0, 1, b"hel"));
    let answer = client.answer(1);
    assert!(matches!(answer, Some((1, _)) | None), "{answer:?}");
    client.0.send(get(3, "/"));
    assert_eq!(client.answer(3), Some((200, "hello".into())));
    assert_eq!(*server.seen.body_errors.lock().unwrap(), [net::BodyError::Stalled]);
}

#[test]
fn a_panic_ends_its_http2_connection_after_the_others_are_answered() {
    let server = start();
    let mut client = Http2::connect(&server, &[]);
    client.0.send(get(1, "/panic"));
    assert!(client.ends_with_goaway());
    assert_eq!(server.seen.panics.load(SeqCst), 1);
}

#[test]
fn draining_says_goaway_and_finishes_streams() {
    let mut server = start();
    let mut client = Http2::connect(&server, &[]);
    client.0.send(get(1, "/wait"));
    server.seen.wait_for("the request", |seen| seen.requests.lock().unwrap().len() == 1);
    let running = server.server.take().unwrap();
    let drained = std::thread::spawn(move || running.drain(Duration::from_secs(10)));
    loop {
        let frame = client.frame().unwrap();
        match frame.kind {
            PING if frame.flags & ACK == 0 => client.0.send(self::frame(PING, ACK, 0, &frame.payload)),
            GOAWAY => break,
            _ => {}
        }
    }
    server.seen.go.notify_one();
    let mut answered = false;
    while let Some(frame) = client.frame() {
        match frame.kind {
            PING if frame.flags & ACK == 0 => client.0.send(self::frame(PING, ACK, 0, &frame.payload)),
            DATA => answered |= frame.payload == b"waited",
            _ => {}
        }
    }
    assert!(answered);
    assert_eq!(drained.join().unwrap(), 0);
}

#[test]
fn bodies_and_trailers_flow_over_http2() {
    let server = start();
    let mut client = Http2::connect(&server, &[]);
    client.0.send(frame(HEADERS, END_HEADERS, 1, &request("POST", "/echo", &[("te", "trailers")])));
    client.0.send(frame(DATA, 0, 1, b"hello "));
    client.0.send(frame(DATA, 0, 1, b"there"));
    client.0.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &field("x-sum", "1")));
    assert_eq!(client.answer(1), Some((200, "hello there".into())));
    client.0.send(get(3, "/big"));
    let mut bytes = 0;
    while bytes < 1 << 20 {
        let frame = client.frame().unwrap();
        if frame.kind == DATA {
            bytes += frame.payload.len();
            let grant = u32::try_from(frame.payload.len()).unwrap().max(1).to_be_bytes();
            client
                .0
                .send([self::frame(WINDOW_UPDATE, 0, 0, &grant), self::frame(WINDOW_UPDATE, 0, 3, &grant)].concat());
        }
    }
}

/// One service, both protocols: the same answers.
#[test]
fn http1_and_http2_behave_alike() {
    for (method, path, body, expected) in [
        ("GET", "/", "", "hello"),
        ("POST", "/echo", "abc", "abc"),
        ("POST", "/read", "abc", "abc"),
        ("POST", "/count", "abc", "3"),
    ] {
        let server = start();
        let mut raw = server.connect();
        raw.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ));
        let over_http1 = raw.read_to_end();
        assert!(over_http1.starts_with("HTTP/1.1 200 ") && over_http1.contains(expected), "{over_http1}");
        let mut client = Http2::connect(&server, &[]);
        client.0.send(frame(HEADERS, END_HEADERS, 1, &request(method, path, &[])));
        client.0.send(frame(DATA, END_STREAM, 1, body.as_bytes()));
        assert_eq!(client.answer(1), Some((200, expected.into())), "{method} {path}");
    }
}
