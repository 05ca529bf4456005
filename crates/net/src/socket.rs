//! The bytes between a client's socket (plain or TLS) and the HTTP library: every byte that comes in passes the guard first,
//! and what the client owes or will not take is noted for the worker's clock. It never interprets an answer.
use crate::body::BodyError;
use crate::flood::FrameMeter;
use crate::guard::{Fault, GuardLimits, Machine, Position};
use crate::live::{Cut, Live, Refused, Waiting};
use crate::server::Refusal;
use hyper::rt::ReadBufCursor;
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

mod opaque;

const SCRATCH_BYTES: usize = 64 * 1024;
/// Bytes of further requests that are taken from the socket while one is answered; more waits in the kernel.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// Bytes thrown away after our last answer, so that it is not lost to a reset.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

thread_local! {
    /// One read buffer per worker: an idle connection holds none.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

enum Mode {
    /// Not known yet: nothing is passed on.
    Unknown,
    Http1(Machine),
    Http2(Box<FrameMeter>),
}

/// What a read answers once the input has ended for us.
#[derive(Clone, Copy)]
enum Input {
    Open,
    /// A refused head: everything after it is swallowed.
    Swallowed,
    Broken(BodyError),
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    /// The client left before saying anything.
    Nothing,
}

pub(crate) struct Socket {
    stream: Stream,
    live: Arc<Live>,
    mode: Mode,
    input: Input,
    /// Read from the socket and not judged: the protocol was not known, or an earlier request is being answered.
    unread: Vec<u8>,
    unread_at: usize,
    /// Judged, and not yet taken by the HTTP library.
    ready: Vec<u8>,
    ready_at: usize,
    lingered: usize,
    is_shut: bool,
}

impl Socket {
    pub(crate) fn new(stream: Stream, live: Arc<Live>) -> Socket {
        Socket {
            stream,
            live,
            mode: Mode::Unknown,
            input: Input::Open,
            unread: Vec::new(),
            unread_at: 0,
            ready: Vec::new(),
            ready_at: 0,
            lingered: 0,
            is_shut: false,
        }
    }

    /// Waits for enough bytes to tell HTTP/2 with prior knowledge (RFC 9113 §3.3) from HTTP/1.
    pub(crate) fn poll_protocol(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Protocol>> {
        loop {
            let seen = self.unread.len().min(PREFACE.len());
            if self.unread.get(..seen) != PREFACE.get(..seen) {
                return Poll::Ready(Ok(Protocol::Http1));
            }
            // No method starts like this, so that the rest of the preface can be left to the library.
            if seen >= 6 {
                return Poll::Ready(Ok(Protocol::Http2));
            }
            if ready!(self.poll_unread(cx))? == 0 {
                return Poll::Ready(Ok(if self.unread.is_empty() { Protocol::Nothing } else { Protocol::Http1 }));
            }
        }
    }

    /// Resolves when there is something to read, or the end, or an error that the next read will tell.
    pub(crate) fn poll_first_byte(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unread.is_empty() && self.ready.is_empty() {
            ready!(self.poll_unread(cx)).unwrap_or_default();
        }
        Poll::Ready(())
    }

    /// What the library had read and not used. It was judged before.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        self.ready.splice(..self.ready_at, bytes.iter().copied());
        self.ready_at = 0;
    }

    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = &mut self.stream;
        let unread = &mut self.unread;
        with_scratch(usize::MAX, |scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(stream.poll_read(cx, &mut buffer))?;
            unread.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.is_shut
    }

    pub(crate) fn speak_http1(&mut self, limits: GuardLimits) {
        self.mode = Mode::Http1(Machine::new(limits));
    }
    pub(crate) fn speak_http2(&mut self) {
        self.mode = Mode::Http2(Box::default());
    }

    fn take_ready(&mut self, cursor: &mut ReadBufCursor<'_>) -> bool {
        let waiting = self.ready.get(self.ready_at..).unwrap_or_default();
        if waiting.is_empty() {
            return false;
        }
        let count = waiting.len().min(cursor.remaining());
        cursor.put_slice(waiting.get(..count).unwrap_or_default());
        self.ready_at += count;
        if self.ready_at == self.ready.len() {
            // Heads that came in parts are rare: their memory is not kept.
            self.ready = Vec::new();
            self.ready_at = 0;
        }
        true
    }

    fn position(&self) -> Position {
        match &self.mode {
            Mode::Http1(machine) => machine.position(),
            Mode::Unknown | Mode::Http2(_) => Position::Between,
        }
    }

    /// Notes what the client owes now that no byte is there.
    fn note_waiting(&self) {
        match (&self.mode, self.position()) {
            (Mode::Unknown, _) | (_, Position::InHead) => self.live.wait(Waiting::Head),
            (Mode::Http1(machine), Position::Between) if machine.messages() == 0 => self.live.wait(Waiting::Head),
            (_, Position::Between) => self.live.wait(Waiting::Request),
            (_, Position::InBody) => self.live.wait(Waiting::Body),
        }
    }

    /// Reads once, judges, and hands on. `Ready(0)` is the end of the stream.
    fn poll_judged(&mut self, cx: &mut Context<'_>, cursor: &mut ReadBufCursor<'_>) -> Poll<io::Result<usize>> {
        if !self.unread.is_empty() {
            let unread = std::mem::take(&mut self.unread);
            let bytes = unread.get(std::mem::take(&mut self.unread_at)..).unwrap_or_default();
            let rest = self.judge(bytes, cursor)?;
            if rest > 0 {
                self.unread_at = unread.len() - rest;
                self.unread = unread;
            }
            return Poll::Ready(Ok(1));
        }
        with_scratch(cursor.remaining(), |scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(self.stream.poll_read(cx, &mut buffer))?;
            let bytes = buffer.filled();
            let rest = self.judge(bytes, cursor)?;
            self.unread.extend_from_slice(bytes.get(bytes.len() - rest..).unwrap_or_default());
            Poll::Ready(Ok(bytes.len()))
        })
    }

    /// HTTP/1 while a request is answered. Nothing of the next one is handed on: the library would keep it, look at the socket
    /// no more, and not notice a client that leaves.
    fn poll_next_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unread.len() - self.unread_at < HELD_BYTES_MAX {
            match self.poll_unread(cx) {
                // A client may shut down its side and wait for the answer (RFC 9112 §9.6 knows half-closed connections);
                // the library would give the request up.
                Poll::Ready(Ok(0)) => {
                    self.live.half_closed();
                    break;
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        self.note_waiting();
        if !self.unread.is_empty() {
            self.live.wake_after_answer();
        }
        Poll::Pending
    }

    fn is_answer_due(&self) -> bool {
        matches!(self.mode, Mode::Http1(_)) && self.live.in_flight() > 0 && self.position() == Position::Between
    }

    /// Returns how many of the last bytes it left unjudged, because they belong to the next message.
    fn judge(&mut self, bytes: &[u8], cursor: &mut ReadBufCursor<'_>) -> io::Result<usize> {
        let ready = &mut self.ready;
        let mut pass = |bytes: &[u8]| {
            if ready.is_empty() && bytes.len() <= cursor.remaining() {
                cursor.put_slice(bytes);
            } else {
                ready.extend_from_slice(bytes);
            }
        };
        match &mut self.mode {
            Mode::Unknown => Ok(0),
            Mode::Http2(meter) => match meter.feed(bytes, self.live.now()) {
                Ok(()) => {
                    pass(bytes);
                    Ok(0)
                }
                Err(flood) => {
                    self.live.refuse(Refused { refusal: Refusal::Flood(flood), status: 400, reason: flood });
                    Err(io::Error::new(io::ErrorKind::InvalidData, flood))
                }
            },
            Mode::Http1(machine) => {
                let before = machine.messages();
                let verdict = machine.feed_message(bytes, &mut pass);
                for _ in before..machine.messages() {
                    self.live.begin();
                }
                match verdict {
                    Ok(rest) => {
                        if machine.position() == Position::InBody {
                            self.live.wait_from_now(Waiting::Nothing);
                        }
                        Ok(rest.len())
                    }
                    Err(fault) => {
                        self.fault(fault);
                        Ok(0)
                    }
                }
            }
        }
    }

    fn fault(&mut self, fault: Fault) {
        let refused = Refused::from_fault(fault);
        match fault {
            Fault::Head { head_method, .. } => self.put_marker(refused, head_method),
            Fault::Body(_) => {
                self.live.refuse(refused);
                self.live.body_broke();
                self.input = Input::Broken(BodyError::Malformed);
            }
        }
    }

    /// In the place of a refused head the library reads a request that no client can send: the guard admits no HTTP/1.1
    /// request without `Host`. The answer to it is the refusal, in its turn after the answers to earlier requests.
    fn put_marker(&mut self, refused: Refused, head_method: bool) {
        self.live.refuse(refused);
        self.live.mark();
        self.live.begin();
        self.ready.extend_from_slice(if head_method {
            b"HEAD / HTTP/1.1\r\nconnection: close\r\n\r\n"
        } else {
            b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n"
        });
        self.input = Input::Swallowed;
    }

    fn header_timeout(&mut self) {
        if self.position() == Position::InHead {
            let refused = Refused {
                refusal: Refusal::HeaderTimeout,
                status: 408,
                reason: "the request head did not arrive in time",
            };
            self.put_marker(refused, false);
        } else {
            self.input = Input::Ended;
        }
    }

    fn is_input_left(&self) -> bool {
        let is_reading = !matches!(self.input, Input::Open | Input::Ended);
        is_reading || self.position() != Position::Between || !self.unread.is_empty()
    }
}

fn with_scratch<T>(bytes_max: usize, read: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        let end = bytes_max.min(scratch.len());
        read(scratch.get_mut(..end).unwrap_or_default())
    })
}

impl hyper::rt::Read for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        let room = cursor.remaining();
        loop {
            if socket.take_ready(&mut cursor) || cursor.remaining() < room {
                return Poll::Ready(Ok(()));
            }
            match socket.input {
                Input::Open => {}
                Input::Swallowed => return Poll::Pending,
                Input::Broken(error) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error))),
                Input::Ended => return Poll::Ready(Ok(())),
            }
            if socket.live.cut() == Cut::HeaderTimeout {
                socket.header_timeout();
                continue;
            }
            if socket.is_answer_due() {
                return socket.poll_next_held(cx);
            }
            match socket.poll_judged(cx, &mut cursor) {
                // HTTP/2: a client may shut down its side and wait for its answers.
                Poll::Ready(Ok(0)) if socket.live.in_flight() > 0 && socket.position() == Position::Between => {
                    socket.live.half_closed();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => {
                    socket.input = Input::Ended;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(_)) => socket.live.clear_stall(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    socket.note_waiting();
                    if socket.live.cut() == Cut::BodyStall && socket.position() == Position::InBody {
                        socket.live.close_after_answer();
                        socket.input = Input::Broken(BodyError::Stalled);
                        continue;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let result = match &mut socket.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        };
        socket.note_write(&result);
        result
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let result = match &mut socket.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
        };
        socket.note_write(&result);
        result
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        match &mut socket.stream {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(stream) => {
                let result = Pin::new(stream.as_mut()).poll_flush(cx);
                if result.is_pending() {
                    socket.live.write_blocked();
                }
                result
            }
        }
    }
    /// Closes our side, then reads on for a moment if the client may still be sending: a close with unread bytes would
    /// reset the connection, and the client could lose our last answer (RFC 9112 §9.6).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        if !socket.is_shut {
            let result = match &mut socket.stream {
                Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
                Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            };
            ready!(result)?;
            socket.is_shut = true;
            socket.live.wait_from_now(Waiting::Close);
        }
        if !socket.is_input_left() {
            return Poll::Ready(Ok(()));
        }
        while socket.lingered < LINGER_BYTES_MAX {
            let stream = &mut socket.stream;
            let count = ready!(with_scratch(usize::MAX, |scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(stream.poll_read(cx, &mut buffer))?;
                Poll::Ready(io::Result::Ok(buffer.filled().len()))
            }))?;
            if count == 0 {
                break;
            }
            socket.lingered += count;
        }
        Poll::Ready(Ok(()))
    }
}

impl Socket {
    fn note_write(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Pending => self.live.write_blocked(),
            Poll::Ready(_) => self.live.wrote(),
        }
    }
}

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}
