//! An answer on its way to an HTTP/1 client: its head, and its body framed as it comes. We frame it, whatever its fields say.
//! It never reads.
use super::inbound::Inbound;
use crate::chunked;
use crate::{Body, BodyError, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};
use http_body::{Body as _, Frame};
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Gathered before it is written.
const GATHER_BYTES: usize = 32 * 1024;
/// A larger frame is written from where it is.
const COPIED_BYTES_MAX: usize = 8 * 1024;
/// A buffer that grew beyond this is not kept for the next answer.
const KEPT_BYTES_MAX: usize = 64 * 1024;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

thread_local! {
    /// One buffer per worker, taken by whoever writes an answer.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How the body is delimited (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Nothing,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    /// By the connection's end, for a client of HTTP/1.0.
    Close,
}

/// What the client can take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) is_head: bool,
    pub(super) is_http_10: bool,
    pub(super) keeps: bool,
    pub(super) takes_trailers: bool,
}

pub(super) struct Outbound {
    out: Vec<u8>,
    /// Comes after `out`.
    frame: Bytes,
    written: usize,
    framing: Framing,
    /// Absent once its last byte is in `out`.
    body: Option<Body>,
    takes_trailers: bool,
    keeps: bool,
    failed: Option<BodyError>,
}

/// Why an answer was broken off.
#[derive(Debug)]
pub(super) enum Lost {
    /// The client takes no more.
    Client,
    /// There is no more to say, and the client must not take what it has for all of it.
    Body(#[expect(dead_code, reason = "for the log")] BodyError),
}

impl Outbound {
    /// `first` goes out before the head.
    pub(super) fn new(response: Response, client: Client, first: &[u8]) -> Outbound {
        let (head, body) = response.into_parts();
        let length = body.len_hint();
        let is_bodiless = client.is_head || matches!(head.status.as_u16(), 100..200 | 204 | 304);
        let framing = match length {
            _ if is_bodiless => Framing::Nothing,
            Some(length) => Framing::Length(length),
            None if client.is_http_10 => Framing::Close,
            None => Framing::Chunked,
        };
        let keeps = client.keeps && framing != Framing::Close && !says_close(&head.headers);
        let mut out = SPARE.take();
        out.clear();
        out.extend_from_slice(first);
        write_status(head.status, client.is_http_10, &mut out);
        let said_length = write_fields(&head.headers, head.status, framing, &mut out);
        write_framing(framing, length.filter(|_| client.is_head && !said_length), &mut out);
        if !keeps {
            out.extend_from_slice(b"connection: close\r\n");
        } else if client.is_http_10 {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        if !head.headers.contains_key(header::DATE) {
            crate::date::write(&mut out);
        }
        out.extend_from_slice(b"\r\n");
        let body = (!matches!(framing, Framing::Nothing | Framing::Length(0))).then_some(body);
        let takes_trailers = client.takes_trailers;
        Outbound { out, frame: Bytes::new(), written: 0, framing, body, takes_trailers, keeps, failed: None }
    }

    /// Is the connection kept after this answer?
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// Writes on, until all of it went out.
    pub(super) fn poll(&mut self, inbound: &super::inbound::Shared, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        loop {
            let waits_for_body = match self.failed {
                Some(_) => false,
                None => self.gather(cx).unwrap_or_else(|error| {
                    self.failed = Some(error);
                    false
                }),
            };
            let mut inbound = super::inbound::lock(inbound);
            ready!(self.poll_write(&mut inbound, cx)).map_err(|_| Lost::Client)?;
            // What came before goes out.
            if let Some(error) = self.failed {
                return Poll::Ready(Err(Lost::Body(error)));
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            self.out.clear();
            self.frame = Bytes::new();
            self.written = 0;
            if waits_for_body {
                return match inbound.poll_watch(cx) {
                    Ok(()) => Poll::Pending,
                    Err(_) => Poll::Ready(Err(Lost::Client)),
                };
            }
        }
    }

    fn poll_write(&mut self, inbound: &mut Inbound, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = inbound.socket();
        loop {
            let head = self.out.get(self.written..).unwrap_or_default();
            let tail = self.frame.get(self.written.saturating_sub(self.out.len())..).unwrap_or_default();
            let count = match (head, tail) {
                ([], []) => return socket.poll_flush(cx),
                (one, []) | ([], one) => ready!(socket.poll_write(cx, one))?,
                (head, tail) => ready!(socket.poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(tail)]))?,
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
    }

    /// Takes frames of the body until there is enough to write. `true` when the next one has yet to come.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<bool, BodyError> {
        while let Some(body) = &mut self.body
            && self.out.len() < GATHER_BYTES
            && self.frame.is_empty()
        {
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(Ok(frame))) => self.frame(frame)?,
                Poll::Ready(Some(Err(error))) => return Err(error),
                Poll::Ready(None) => self.end(None)?,
            }
        }
        Ok(false)
    }

    fn frame(&mut self, frame: Frame<Bytes>) -> Result<(), BodyError> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.into_trailers().ok().filter(|_| self.takes_trailers).as_ref()),
        };
        if data.is_empty() {
            return Ok(());
        }
        if let Framing::Length(left) = &mut self.framing {
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            *left = left.checked_sub(length).ok_or(BodyError::Malformed)?;
        }
        if self.framing == Framing::Chunked {
            chunked::encode(&data, &mut self.out);
        } else if data.len() <= COPIED_BYTES_MAX {
            self.out.extend_from_slice(&data);
        } else {
            self.frame = data;
        }
        if self.body.as_ref().is_some_and(http_body::Body::is_end_stream) {
            self.end(None)?;
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), BodyError> {
        match self.framing {
            Framing::Length(1..) => return Err(BodyError::Gone),
            Framing::Chunked => chunked::encode_end(trailers, &mut self.out),
            Framing::Length(_) | Framing::Nothing | Framing::Close => {}
        }
        self.body = None;
        Ok(())
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        if self.out.capacity() <= KEPT_BYTES_MAX {
            SPARE.set(std::mem::take(&mut self.out));
        }
    }
}

/// A head alone, as it opens a tunnel.
pub(super) fn head_of_switch(response: &Response) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_status(response.status(), false, &mut out);
    for (name, value) in response.headers() {
        chunked::write_field(name, value, &mut out);
    }
    if !response.headers().contains_key(header::DATE) {
        crate::date::write(&mut out);
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn says_close(headers: &HeaderMap) -> bool {
    headers.get(header::CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

fn write_status(status: StatusCode, is_http_10: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if is_http_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// All but what frames the message; `true` if the length of a body that does not follow was among them.
fn write_fields(headers: &HeaderMap, status: StatusCode, framing: Framing, out: &mut Vec<u8>) -> bool {
    let mut said_length = false;
    // Of a body that HEAD or a condition spared, the length is worth knowing (RFC 9110 §8.6).
    let tells_length = framing == Framing::Nothing && status != StatusCode::NO_CONTENT && !status.is_informational();
    for (name, value) in headers {
        match *name {
            header::CONTENT_LENGTH if tells_length => {
                said_length = true;
                chunked::write_field(name, value, out);
            }
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION => {}
            _ if *name == KEEP_ALIVE => {}
            _ => chunked::write_field(name, value, out),
        }
    }
    said_length
}

fn write_framing(framing: Framing, of_head: Option<u64>, out: &mut Vec<u8>) {
    let length = match (framing, of_head) {
        (Framing::Length(length), _) => length,
        // Nothing is known of what a GET would bring.
        (Framing::Nothing, Some(length @ 1..)) => length,
        (Framing::Chunked, _) => return out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        (Framing::Nothing | Framing::Close, _) => return,
    };
    chunked::write_length(length, out);
}
