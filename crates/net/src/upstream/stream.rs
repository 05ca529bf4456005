//! The bytes between us and an upstream, plain or TLS, as the HTTP library wants them. It notes whether any byte came in,
//! which decides whether a request may be sent again; it never looks at one.
use hyper::rt::ReadBufCursor;
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
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

/// What is known of a connection besides its bytes.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Reads that brought bytes, counted since the connection opened.
    reads: AtomicU64,
    opened: Instant,
    /// Drawn at random, 0 to 1: what happens to all connections at some age does not happen to all at once.
    pub(super) lot: f64,
}

impl Meter {
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.opened)
    }
}

pub(crate) struct Metered {
    stream: Stream,
    meter: Arc<Meter>,
    /// Of a connection that leaves its task, because it becomes a tunnel: when it ends at the latest.
    ends: Option<Pin<Box<Sleep>>>,
}

impl Metered {
    pub(crate) fn new(stream: Stream) -> (Metered, Arc<Meter>) {
        let meter = Arc::new(Meter { reads: AtomicU64::new(0), opened: Instant::now(), lot: super::jitter() });
        (Metered { stream, meter: Arc::clone(&meter), ends: None }, meter)
    }

    /// Reads fail once this time is over.
    pub(super) fn lasting(self, lasts: Option<Duration>) -> Metered {
        Metered { ends: lasts.map(|lasts| Box::pin(tokio::time::sleep(lasts))), ..self }
    }
}

impl hyper::rt::Read for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(ends) = &mut this.ends
            && ends.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a certificate of the connection ended")));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let room = cursor.remaining().min(scratch.len());
            let mut buffer = ReadBuf::new(scratch.get_mut(..room).unwrap_or_default());
            ready!(match &mut this.stream {
                Stream::Plain(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
                Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, &mut buffer),
            })?;
            if !buffer.filled().is_empty() {
                this.meter.reads.fetch_add(1, Relaxed);
                cursor.put_slice(buffer.filled());
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl hyper::rt::Write for Metered {
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
        let (metered, _) = Metered::new(Stream::Plain(opened));
        let mut metered = metered.lasting(Some(Duration::from_millis(10)));
        let mut room = [0; 16];
        let mut buffer = hyper::rt::ReadBuf::new(&mut room);
        let read = poll_fn(|cx| Pin::new(&mut metered).poll_read(cx, buffer.unfilled()));
        let found = tokio::time::timeout(Duration::from_secs(5), read).await.expect("it should end");
        assert_eq!(found.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
