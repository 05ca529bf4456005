//! A connection that left HTTP after a 101 (RFC 9110 §7.8): its bytes, with those first that came behind the head.
use super::super::stream::Channel;
use super::Http1;
use crate::answer::Head;
use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

pub(crate) struct Switched {
    stream: Channel,
    rest: Bytes,
}

impl Http1 {
    pub(crate) fn switch(self, head: &mut Head) -> Switched {
        Switched { stream: self.stream, rest: std::mem::take(&mut head.rest) }
    }
}

impl Read for Switched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, cursor);
        }
        let first = this.rest.split_to(this.rest.len().min(cursor.remaining()));
        cursor.put_slice(&first);
        Poll::Ready(Ok(()))
    }
}

impl Write for Switched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
