//! The client's socket as one end of a tunnel: bytes are opaque from here on. The tunnel keeps its own account of what the
//! client will not take. It never begins before the answer's head went out.
use super::{Socket, Stream};
use crate::live::Waiting;
use hyper::rt::ReadBufCursor;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

impl Socket {
    pub(crate) fn begin_tunnel(&mut self) {
        self.live.begin_tunnel();
    }

    /// What the client sent after the head of its request comes first.
    pub(crate) fn poll_opaque(&mut self, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let room = cursor.remaining();
        let polled = self.poll_input(cx, room, |bytes| {
            cursor.put_slice(bytes);
            (bytes.len(), ())
        });
        polled.map_ok(|_| ())
    }

    pub(crate) fn poll_write_opaque(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Stream::Gone => super::gone(),
        }
    }

    pub(crate) fn poll_flush_opaque(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Stream::Gone => super::gone(),
        }
    }

    /// The tunnel is over: what the client still sends is thrown away, for a moment and not for longer.
    pub(crate) fn poll_end_opaque(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.forget_unread();
        self.live.wait(Waiting::Close);
        self.poll_close(cx, true)
    }
}
