//! A request on its way out over HTTP/1.1: its head and its framed body, and how far they got. We frame the body, whatever
//! fields came with it. It never reads.
use super::super::exchange::Outgoing;
use super::super::stream::Channel;
use super::wrong_length;
use crate::chunked;
use bytes::Bytes;
use http::{Method, Request, header};
use http_body::{Body as _, Frame};
use hyper::rt::Write as _;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Room for an ordinary head.
const HEAD_BYTES: usize = 1024;
/// Gathered before it is written.
const GATHER_BYTES: usize = 32 * 1024;
/// A buffer that grew beyond this is not kept for the next request.
const KEPT_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    /// One buffer per worker, taken by whoever writes a head.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    Nothing,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
}

pub(crate) struct Sending {
    out: Vec<u8>,
    written: usize,
    has_begun: bool,
    framing: Framing,
    /// Absent once its last byte is in `out`.
    body: Option<Outgoing>,
    /// Nothing more will be written.
    is_done: bool,
    /// Because the upstream took no more.
    was_cut: bool,
    is_head: bool,
}

impl Sending {
    pub(crate) fn of<B>(request: &Request<B>, body: Outgoing) -> Sending {
        let framing = match body.size_hint().exact() {
            _ if body.is_end_stream() => Framing::Nothing,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        let mut out = SPARE.take();
        if out.capacity() == 0 {
            out.reserve_exact(HEAD_BYTES);
        }
        out.clear();
        write_head(request, framing, &mut out);
        let body = (!matches!(framing, Framing::Nothing)).then_some(body);
        let is_head = *request.method() == Method::HEAD;
        Sending { out, written: 0, has_begun: false, framing, body, is_done: false, was_cut: false, is_head }
    }

    pub(super) fn is_head(&self) -> bool {
        self.is_head
    }
    /// Was any byte written?
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }
    /// Did all of it go out? Else the connection is worth nothing more.
    pub(super) fn is_whole(&self) -> bool {
        self.is_done && !self.was_cut
    }
    /// From its beginning, on another connection. For a request that was never written, or that has no body.
    pub(crate) fn rewind(&mut self) {
        self.written = 0;
        self.has_begun = false;
        self.is_done = false;
        self.was_cut = false;
    }

    /// Writes on. `Err`: nothing was written, or the body failed. An upstream that takes no more may have answered already,
    /// so that is no error here.
    pub(super) fn poll(&mut self, stream: &mut Channel, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_done {
            return Poll::Ready(Ok(()));
        }
        loop {
            let waits_for_body = self.gather(cx)?;
            if let Err(error) = ready!(self.poll_write(stream, cx)) {
                self.is_done = self.has_begun;
                self.was_cut = true;
                return Poll::Ready(if self.has_begun { Ok(()) } else { Err(error) });
            }
            if self.body.is_none() {
                self.is_done = true;
                return Poll::Ready(Ok(()));
            }
            self.out.clear();
            self.written = 0;
            if waits_for_body {
                return Poll::Pending;
            }
        }
    }

    fn poll_write(&mut self, stream: &mut Channel, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let rest = self.out.get(self.written..).unwrap_or_default();
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.has_begun = true;
            self.written += count;
        }
        Pin::new(stream).poll_flush(cx)
    }

    /// Takes frames of the body until there is enough to write. `true` when the next one has yet to come.
    fn gather(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while let Some(body) = &mut self.body
            && self.out.len() < GATHER_BYTES
        {
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(Ok(frame))) => self.frame(frame)?,
                Poll::Ready(Some(Err(error))) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                Poll::Ready(None) => self.end(None)?,
            }
        }
        Ok(false)
    }

    fn frame(&mut self, frame: Frame<Bytes>) -> io::Result<()> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.into_trailers().ok().as_ref()),
        };
        match &mut self.framing {
            _ if data.is_empty() => {}
            Framing::Nothing => return Err(wrong_length()),
            Framing::Length(left) => {
                let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                *left = left.checked_sub(length).ok_or_else(wrong_length)?;
                self.out.extend_from_slice(&data);
            }
            Framing::Chunked => chunked::encode(&data, &mut self.out),
        }
        if self.body.as_ref().is_some_and(http_body::Body::is_end_stream) {
            self.end(None)?;
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>) -> io::Result<()> {
        match self.framing {
            Framing::Length(1..) => return Err(wrong_length()),
            Framing::Length(0) | Framing::Nothing => {}
            Framing::Chunked => chunked::encode_end(trailers, &mut self.out),
        }
        self.body = None;
        Ok(())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.out.capacity() <= KEPT_BYTES_MAX {
            SPARE.set(std::mem::take(&mut self.out));
        }
    }
}

fn write_head<B>(request: &Request<B>, framing: Framing, out: &mut Vec<u8>) {
    let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    for part in [request.method().as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let mut said_length = false;
    for (name, value) in request.headers() {
        match *name {
            header::CONTENT_LENGTH => said_length = true,
            header::TRANSFER_ENCODING => {}
            _ => chunked::write_field(name, value, out),
        }
    }
    // RFC 9110 §8.6: no body may be worth saying, where the method or the client leads to expect one.
    let expects_body = said_length || matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    match framing {
        Framing::Nothing if expects_body => out.extend_from_slice(b"content-length: 0\r\n"),
        Framing::Nothing => {}
        Framing::Length(length) => chunked::write_length(length, out),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}
