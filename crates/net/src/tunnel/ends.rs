//! The kinds of ends a tunnel has: the client's HTTP/1 socket, an upstream's connection after its 101, and one stream of an
//! HTTP/2 connection. It never looks at a byte.
use crate::socket::Socket;
use crate::upstream::http1::Switched;
use hyper::rt::{Read, ReadBuf, Write};
use hyper::upgrade::Upgraded;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

pub(crate) enum End {
    Socket(Box<Socket>),
    Switched(Box<Switched>),
    Upgraded(Upgraded),
}

impl End {
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            End::Socket(socket) => socket.poll_opaque(cx, buffer.unfilled()),
            End::Switched(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer.unfilled()),
            End::Upgraded(stream) => Pin::new(stream).poll_read(cx, buffer.unfilled()),
        }
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            End::Socket(socket) => socket.poll_write_opaque(cx, bytes),
            End::Switched(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            End::Upgraded(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            End::Socket(socket) => socket.poll_flush_opaque(cx),
            End::Switched(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            End::Upgraded(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Ends our direction; the other one goes on.
    pub(super) fn poll_shut(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            End::Socket(socket) => socket.poll_shut(cx),
            End::Switched(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            End::Upgraded(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    pub(super) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        poll_fn(|cx| {
            while !bytes.is_empty() {
                let count = ready!(self.poll_write(cx, bytes))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                bytes = bytes.get(count..).unwrap_or_default();
            }
            self.poll_flush(cx)
        })
        .await
    }

    /// The end, in good order: a client that still sends gets the moment it takes to hear our last words.
    pub(super) async fn close(&mut self, limit: Duration) {
        match self {
            // The connection's own limits hold.
            End::Socket(socket) => {
                // A client that is gone needs no good order.
                let _ = poll_fn(|cx| socket.poll_end_opaque(cx)).await;
            }
            End::Switched(stream) => {
                let shut = poll_fn(|cx| Pin::new(stream.as_mut()).poll_shutdown(cx));
                let _ = tokio::time::timeout(limit, shut).await;
            }
            End::Upgraded(stream) => {
                let _ = tokio::time::timeout(limit, poll_fn(|cx| Pin::new(&mut *stream).poll_shutdown(cx))).await;
            }
        }
    }
}
