//! The bytes between us and an upstream, plain or TLS. It never looks at one.
use hyper::rt::ReadBufCursor;
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::client::TlsStream;

const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    /// One read buffer per worker: an idle connection holds none.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

pub(crate) struct Channel {
    stream: Stream,
    /// When it ends at the latest.
    ends: Option<Pin<Box<Sleep>>>,
}

impl Channel {
    pub(crate) fn new(stream: Stream) -> Channel {
        Channel { stream, ends: None }
    }

    /// Reads fail once this time is over.
    pub(super) fn lasting(self, lasts: Option<Duration>) -> Channel {
        Channel { ends: lasts.map(|lasts| Box::pin(tokio::time::sleep(lasts))), ..self }
    }
}

impl Channel {
    /// Reads once, at most `bytes_max`, and shows what came; nothing is the end.
    fn poll_some<T>(
        &mut self,
        cx: &mut Context<'_>,
        bytes_max: usize,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        if let Some(ends) = &mut self.ends
            && ends.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a certificate of the connection ended")));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let room = bytes_max.min(scratch.len());
            let mut buffer = ReadBuf::new(scratch.get_mut(..room).unwrap_or_default());
            ready!(match &mut self.stream {
                Stream::Plain(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
                Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, &mut buffer),
            })?;
            Poll::Ready(Ok(take(buffer.filled())))
        })
    }

    pub(super) fn poll_bytes<T>(&mut self, cx: &mut Context<'_>, take: impl FnOnce(&[u8]) -> T) -> Poll<io::Result<T>> {
        self.poll_some(cx, usize::MAX, take)
    }
}

impl hyper::rt::Read for Channel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_some(cx, cursor.remaining(), |bytes| cursor.put_slice(bytes))
    }
}

impl hyper::rt::Write for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
        }
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::rt::Read as _;
    use std::future::poll_fn;

    #[tokio::test]
    async fn m12_a_tunnel_ends_with_the_certificate_that_opened_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let opened = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        // The other end stays open, and says nothing.
        let _silent = listener.accept().await.unwrap();
        let mut channel = Channel::new(Stream::Plain(opened)).lasting(Some(Duration::from_millis(10)));
        let mut room = [0; 16];
        let mut buffer = hyper::rt::ReadBuf::new(&mut room);
        let read = poll_fn(|cx| Pin::new(&mut channel).poll_read(cx, buffer.unfilled()));
        let found = tokio::time::timeout(Duration::from_secs(5), read).await.expect("it should end");
        assert_eq!(found.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
