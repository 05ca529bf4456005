//! The socket as the HTTP/2 library wants it: every byte that comes in passes the meter first (see [`crate::flood`]).
use super::Socket;
use crate::flood::FrameMeter;
use crate::live::{Refused, Waiting};
use crate::server::Refusal;
use hyper::rt::ReadBufCursor;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

pub(crate) struct Metered {
    socket: Socket,
    meter: FrameMeter,
    has_ended: bool,
}

impl Metered {
    pub(crate) fn new(socket: Socket) -> Metered {
        Metered { socket, meter: FrameMeter::default(), has_ended: false }
    }
}

impl hyper::rt::Read for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let Metered { socket, meter, has_ended } = self.get_mut();
        if *has_ended {
            return Poll::Ready(Ok(()));
        }
        let now = socket.live.now();
        let polled = socket.poll_input(cx, cursor.remaining(), |bytes| {
            let verdict = meter.feed(bytes, now);
            cursor.put_slice(bytes);
            (bytes.len(), verdict)
        });
        match polled {
            Poll::Pending => {
                socket.live.wait(Waiting::Request);
                Poll::Pending
            }
            Poll::Ready(Ok(Some(Ok(())))) => Poll::Ready(Ok(())),
            Poll::Ready(Ok(Some(Err(flood)))) => {
                socket.live.refuse(Refused { refusal: Refusal::Flood(flood), status: 400, reason: flood });
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, flood)))
            }
            // A client may shut down its side and wait for its answers.
            Poll::Ready(Ok(None)) if socket.live.in_flight() > 0 => {
                socket.live.half_closed();
                Poll::Pending
            }
            Poll::Ready(Ok(None)) => {
                *has_ended = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }
}

impl hyper::rt::Write for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().socket.poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().socket.poll_write_vectored(cx, parts)
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket.poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = &mut self.get_mut().socket;
        ready!(socket.poll_shut(cx))?;
        socket.live.wait(Waiting::Close);
        Poll::Ready(Ok(()))
    }
}
