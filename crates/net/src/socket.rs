//! The bytes between a client and us, plain or TLS: what was read and not used, what the client will not take, and a close
//! that loses no answer. It never interprets a byte.
use crate::live::{Live, Waiting};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

mod metered;
mod opaque;

pub(crate) use metered::Metered;

const SCRATCH_BYTES: usize = 64 * 1024;
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
    /// Closed, while somebody may still hold what was read from it.
    Gone,
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
    /// Read, and not used yet.
    unread: Vec<u8>,
    unread_at: usize,
    lingered: usize,
    is_shut: bool,
}

impl Socket {
    pub(crate) fn new(stream: Stream, live: Arc<Live>) -> Socket {
        Socket { stream, live, unread: Vec::new(), unread_at: 0, lingered: 0, is_shut: false }
    }

    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Waits for enough bytes to tell HTTP/2 with prior knowledge (RFC 9113 §3.3) from HTTP/1.
    pub(crate) fn poll_protocol(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Protocol>> {
        loop {
            let seen = self.unread.len().min(PREFACE.len());
            // No method starts like this, so that the rest of the preface can be left to the library.
            if seen >= 6 && self.unread.get(..seen) == PREFACE.get(..seen) {
                return Poll::Ready(Ok(Protocol::Http2));
            }
            if self.unread.get(..seen) != PREFACE.get(..seen) {
                return Poll::Ready(Ok(Protocol::Http1));
            }
            self.live.wait(Waiting::Head);
            if ready!(self.poll_unread(cx))? == 0 {
                return Poll::Ready(Ok(if self.unread.is_empty() { Protocol::Nothing } else { Protocol::Http1 }));
            }
        }
    }

    /// Reads once, for later. 0 is the end.
    pub(crate) fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // What was used goes before more comes, or a buffer that never runs empty would only grow.
        if self.unread_at > self.unread.len() / 2 {
            self.unread.drain(..self.unread_at);
            self.unread_at = 0;
        }
        let unread = &mut self.unread;
        with_scratch(usize::MAX, |scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(self.stream.poll_read(cx, &mut buffer))?;
            unread.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    pub(crate) fn unread_bytes(&self) -> usize {
        self.unread.len() - self.unread_at
    }

    /// Shows what is there, or else what one read brings, at most `bytes_max`. `take` says how much of it was used; the rest
    /// is shown again. `None` is the end.
    pub(crate) fn poll_input<T>(
        &mut self,
        cx: &mut Context<'_>,
        bytes_max: usize,
        take: impl FnOnce(&[u8]) -> (usize, T),
    ) -> Poll<io::Result<Option<T>>> {
        if self.unread_bytes() > 0 {
            let waiting = self.unread.get(self.unread_at..).unwrap_or_default();
            let (used, taken) = take(waiting.get(..bytes_max).unwrap_or(waiting));
            self.unread_at += used;
            if self.unread_bytes() == 0 {
                self.forget_unread();
            }
            return Poll::Ready(Ok(Some(taken)));
        }
        with_scratch(bytes_max, |scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(self.stream.poll_read(cx, &mut buffer))?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                return Poll::Ready(Ok(None));
            }
            let (used, taken) = take(bytes);
            self.unread.extend_from_slice(bytes.get(used..).unwrap_or_default());
            Poll::Ready(Ok(Some(taken)))
        })
    }

    /// What came early is rare: its memory is not kept.
    fn forget_unread(&mut self) {
        self.unread = Vec::new();
        self.unread_at = 0;
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Stream::Gone => gone(),
        };
        self.note_write(result.is_pending());
        result
    }

    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
            Stream::Gone => gone(),
        };
        self.note_write(result.is_pending());
        result
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(stream) => {
                let result = Pin::new(stream.as_mut()).poll_flush(cx);
                if result.is_pending() {
                    self.live.write_blocked()
                } else {
                    self.live.flushed()
                }
                result
            }
            Stream::Gone => gone(),
        }
    }

    fn note_write(&self, is_blocked: bool) {
        if is_blocked { self.live.write_blocked() } else { self.live.wrote() }
    }

    /// Closes at once, although somebody may hold on to this.
    pub(crate) fn let_go(&mut self) {
        self.stream = Stream::Gone;
        self.forget_unread();
    }

    /// Closes our side. If the client may still be sending it then reads on for a moment: a close with unread bytes would
    /// reset the connection, and the client could lose our last answer (RFC 9112 §9.6).
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>, may_still_send: bool) -> Poll<io::Result<()>> {
        ready!(self.poll_shut(cx))?;
        if !may_still_send && self.unread_bytes() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.live.wait(Waiting::Close);
        while self.lingered < LINGER_BYTES_MAX {
            let count = ready!(with_scratch(usize::MAX, |scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(self.stream.poll_read(cx, &mut buffer))?;
                Poll::Ready(io::Result::Ok(buffer.filled().len()))
            }))?;
            if count == 0 {
                break;
            }
            self.lingered += count;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends our direction; the client may go on.
    pub(crate) fn poll_shut(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(match &mut self.stream {
                Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
                Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
                Stream::Gone => gone(),
            })?;
            self.is_shut = true;
        }
        Poll::Ready(Ok(()))
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

fn with_scratch<T>(bytes_max: usize, read: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        let end = bytes_max.min(scratch.len());
        read(scratch.get_mut(..end).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests;

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Stream::Gone => gone(),
        }
    }
}
