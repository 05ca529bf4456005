//! The client's socket as one end of a tunnel: bytes are opaque from here on, and the guard has nothing more to judge. The
//! tunnel keeps its own account of what the client will not take. It never begins before the answer's head went out.
use super::{Input, Mode, Socket, Stream};
use crate::live::Waiting;
use hyper::rt::ReadBufCursor;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncWrite, ReadBuf};

impl Socket {
    /// What the client sent after the head of its request comes first. `false` if the HTTP library was handed a part of
    /// that already: then nobody can say where the tunnel begins.
    pub(crate) fn become_opaque(&mut self, left_in_library: &[u8]) -> bool {
        self.mode = Mode::Unknown;
        self.live.begin_tunnel();
        left_in_library.is_empty() && self.ready.is_empty() && matches!(self.input, Input::Open)
    }

    pub(crate) fn poll_opaque(&mut self, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let waiting = self.unread.get(self.unread_at..).unwrap_or_default();
            let count = waiting.len().min(cursor.remaining());
            cursor.put_slice(waiting.get(..count).unwrap_or_default());
            self.unread_at += count;
            if self.unread_at >= self.unread.len() {
                self.unread = Vec::new();
                self.unread_at = 0;
            }
            return Poll::Ready(Ok(()));
        }
        let stream = &mut self.stream;
        super::with_scratch(cursor.remaining(), |scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(stream.poll_read(cx, &mut buffer))?;
            cursor.put_slice(buffer.filled());
            Poll::Ready(Ok(()))
        })
    }

    pub(crate) fn poll_write_opaque(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    pub(crate) fn poll_flush_opaque(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    /// Ends our direction; the client may go on.
    pub(crate) fn poll_shut_opaque(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_shut {
            return Poll::Ready(Ok(()));
        }
        ready!(match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        })?;
        self.is_shut = true;
        Poll::Ready(Ok(()))
    }

    /// The tunnel is over: what the client still sends is thrown away, for a moment and not for longer.
    pub(crate) fn end_opaque(&mut self) {
        self.unread = Vec::new();
        self.unread_at = 0;
        self.input = Input::Swallowed;
        self.live.wait_from_now(Waiting::Close);
    }
}
