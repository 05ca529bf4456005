//! The service behind the proxy: it tells what it saw, and behaves as the request's `do=` parameter asks.
//!
//! Without `do=` it answers 200 with JSON: method, target, fields in their order and spelling, body bytes. With it:
//! `stream:N` N bytes with a length · `chunked:N` N bytes in chunks · `sse:N` N events · `trailers` a chunked body with a
//! trailer · `status:N` · `delay:MS` · `stall` no answer ever · `stall-body` a head, some bytes, then nothing · `close` hangs
//! up without an answer · `close-body` hangs up within the body · `early` answers 413 before the body is read · `garbage` an
//! answer that is no HTTP · `raw:<percent-encoded bytes>` exactly these bytes, then close.
use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::http1::{Connection, Duplex, Head, Listener, answer, lock, read_chunked, read_sized};
use crate::tls::{Identity, server_config};

/// Of a body, this much is remembered.
const BODY_KEPT_BYTES: usize = 64 * 1024;
/// Of all requests, so many are remembered.
const SEEN_MAX: usize = 10_000;

/// One request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub method: String,
    /// As it stood in the request line.
    pub target: String,
    /// Request line and fields, every byte.
    pub head: Vec<u8>,
    /// In order, names as spelt.
    pub fields: Vec<(String, String)>,
    pub trailers: Vec<(String, String)>,
    pub body_bytes: u64,
    /// The body's first 64 KiB.
    pub body: Vec<u8>,
    /// Did the body arrive to its end?
    pub complete: bool,
    /// Counts the connections of this upstream from 1.
    pub connection: usize,
}

impl Seen {
    /// First value of a field; names are compared without case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// How often the field came.
    pub fn count(&self, name: &str) -> usize {
        self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name)).count()
    }
}

/// A running upstream.
pub struct Upstream {
    seen: Arc<Mutex<Vec<Seen>>>,
    listener: Listener,
    scheme: &'static str,
}

impl Upstream {
    /// Plain HTTP/1.1.
    pub fn start() -> Upstream {
        Upstream::start_with(None)
    }

    /// HTTP/1.1 over TLS.
    pub fn start_tls(identity: &Identity) -> Upstream {
        Upstream::start_with(Some(identity))
    }

    fn start_with(identity: Option<&Identity>) -> Upstream {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let shared = Arc::clone(&seen);
        let connections = std::sync::atomic::AtomicUsize::new(0);
        let listener = Listener::start(identity.map(server_config), move |connection| {
            let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
            serve(connection, number, &shared);
        });
        Upstream { seen, listener, scheme: if identity.is_some() { "https" } else { "http" } }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address())
    }

    /// Every request so far, oldest first. A request stands here when its head has arrived; its body grows.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }

    pub fn count(&self) -> usize {
        lock(&self.seen).len()
    }

    /// The newest request.
    pub fn last(&self) -> Seen {
        lock(&self.seen).last().expect("the upstream saw a request").clone()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.listener.accepted()
    }

    /// Connections are refused; open ones are cut.
    pub fn down(&self) {
        self.listener.down();
    }

    /// Listens again, on the same port.
    pub fn up(&self) {
        self.listener.up();
    }
}

fn serve(mut connection: Connection, number: usize, all: &Mutex<Vec<Seen>>) {
    while let Some(head) = Head::read(&mut connection.stream) {
        let mut words = head.first_line.split(' ');
        let seen = Seen {
            method: words.next().unwrap_or_default().to_owned(),
            target: words.next().unwrap_or_default().to_owned(),
            head: head.raw.clone(),
            fields: head.fields.clone(),
            connection: number,
            ..Seen::default()
        };
        let place = {
            let mut all = lock(all);
            assert!(all.len() < SEEN_MAX, "the test sends more requests than the upstream remembers");
            all.push(seen.clone());
            all.len() - 1
        };
        let wish = wish(&seen.target);
        if wish.0 == "early" {
            let _ = answer(connection.stream.get_mut(), 413, &[("connection", "close")], b"too much");
            return;
        }
        if read_body(&mut connection.stream, &head, |change| change(&mut lock(all)[place])).is_err() {
            return;
        }
        let seen = lock(all)[place].clone();
        let keep = grant(&mut connection, &seen, &wish).unwrap_or(false);
        if !keep || head.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return;
        }
    }
}

type Change<'a> = &'a dyn Fn(&mut Seen);

fn read_body(stream: &mut BufReader<Box<dyn Duplex>>, head: &Head, change: impl Fn(Change<'_>)) -> std::io::Result<()> {
    if head.field("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        stream.get_mut().flush()?;
    }
    let piece = |bytes: &[u8]| {
        change(&|seen: &mut Seen| {
            seen.body_bytes += bytes.len() as u64;
            let room = BODY_KEPT_BYTES.saturating_sub(seen.body.len()).min(bytes.len());
            seen.body.extend_from_slice(&bytes[..room]);
        });
    };
    let mut trailers = Vec::new();
    if head.is_chunked() {
        trailers = read_chunked(stream, piece)?;
    } else if let Some(bytes) = head.content_length() {
        read_sized(stream, bytes, piece)?;
    }
    change(&|seen: &mut Seen| {
        seen.complete = true;
        seen.trailers.clone_from(&trailers);
    });
    Ok(())
}

/// The `do=` parameter: word and argument.
fn wish(target: &str) -> (String, String) {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let value = query.split('&').find_map(|pair| pair.strip_prefix("do=")).unwrap_or_default();
    let (word, argument) = value.split_once(':').unwrap_or((value, ""));
    (word.to_owned(), argument.to_owned())
}

/// Answers; may the connection be used again?
fn grant(connection: &mut Connection, seen: &Seen, (word, argument): &(String, String)) -> std::io::Result<bool> {
    let number = || argument.parse::<u64>().unwrap_or(0);
    let down = Arc::clone(&connection.down);
    let out: &mut dyn Write = connection.stream.get_mut();
    let head_only = seen.method == "HEAD";
    match word.as_str() {
        "stream" => {
            out.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", number()).as_bytes())?;
            if !head_only {
                blocks(number(), |block| out.write_all(block))?;
            }
        }
        "chunked" => {
            out.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            blocks(number(), |block| chunk(out, block))?;
            out.write_all(b"0\r\n\r\n")?;
        }
        "trailers" => {
            out.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n")?;
            chunk(out, b"body")?;
            out.write_all(b"0\r\nx-sum: 42\r\n\r\n")?;
        }
        "sse" => {
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
            for event in 1..=number() {
                chunk(out, format!("data: {event}\n\n").as_bytes())?;
                out.flush()?;
                std::thread::sleep(Duration::from_millis(20));
            }
            out.write_all(b"0\r\n\r\n")?;
        }
        "status" => answer(out, u16::try_from(number()).unwrap_or(500), &[], b"as asked")?,
        "delay" => {
            std::thread::sleep(Duration::from_millis(number()));
            answer(out, 200, &[], b"late")?;
        }
        "stall" => return wait_down(&down),
        "stall-body" => {
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nsome")?;
            out.flush()?;
            return wait_down(&down);
        }
        "close" => return Ok(false),
        "close-body" => {
            out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nsome")?;
            out.flush()?;
            return Ok(false);
        }
        "garbage" => {
            out.write_all(b"220 mail.example ESMTP\r\n")?;
            out.flush()?;
            return Ok(false);
        }
        "raw" => {
            out.write_all(&percent_decoded(argument))?;
            out.flush()?;
            return Ok(false);
        }
        _ => echo(out, seen)?,
    }
    out.flush()?;
    Ok(true)
}

fn echo(out: &mut dyn Write, seen: &Seen) -> std::io::Result<()> {
    let body = json!({
        "method": seen.method, "target": seen.target, "headers": seen.fields, "trailers": seen.trailers,
        "body_bytes": seen.body_bytes, "body": String::from_utf8_lossy(&seen.body),
    });
    let body = body.to_string();
    let fields = [("content-type", "application/json"), ("x-upstream", "testkit")];
    if seen.method == "HEAD" {
        return out.write_all(
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len())
                .as_bytes(),
        );
    }
    answer(out, 200, &fields, body.as_bytes())
}

fn blocks(bytes: u64, mut write: impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
    let block = [b'x'; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let take = left.min(block.len() as u64);
        write(&block[..usize::try_from(take).unwrap_or(0)])?;
        left -= take;
    }
    Ok(())
}

fn chunk(out: &mut dyn Write, bytes: &[u8]) -> std::io::Result<()> {
    out.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
    out.write_all(bytes)?;
    out.write_all(b"\r\n")
}

/// Holds the connection open, silent, until the upstream goes down or a minute is over.
fn wait_down(down: &std::sync::atomic::AtomicBool) -> std::io::Result<bool> {
    for _ in 0..3000 {
        if down.load(Ordering::SeqCst) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    bytes
}
