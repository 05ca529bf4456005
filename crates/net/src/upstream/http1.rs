//! One HTTP/1.1 connection to an upstream and the exchanges on it, one after the other, in the task of whoever asks: no task
//! and no queue of its own. It never decides whether a request is sent again.
use super::stream::{Channel, Stream};
use crate::answer::{Head, Heads};
use std::io;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::time::Instant;

mod reply;
mod sending;
mod switched;

pub(crate) use reply::{Home, Reply};
pub(crate) use sending::Sending;
pub(crate) use switched::Switched;

/// A connection between two requests, or in one.
pub(crate) struct Http1 {
    stream: Channel,
    /// From then on it carries no new request.
    retire: Instant,
    pub(super) last_used: Instant,
}

/// How an exchange was lost.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// Not a byte of the request was written.
    #[error("{0}")]
    Unsent(String),
    /// The connection ended before a byte of an answer.
    #[error("{0}")]
    Unanswered(String),
    /// The answer began, and was wrong or broke off.
    #[error("{0}")]
    Broken(String),
}

impl Http1 {
    /// `age` is how long it may take new requests, `lasts` how long it may be at all.
    pub(crate) fn new(stream: Stream, age: Duration, lasts: Option<Duration>) -> Http1 {
        let now = Instant::now();
        Http1 { stream: Channel::new(stream).lasting(lasts), retire: super::retirement(now, age), last_used: now }
    }

    /// May it carry another request? Costs no system call unless something came.
    pub(super) fn is_usable(&mut self, now: Instant) -> bool {
        now < self.retire && self.is_quiet()
    }

    /// Open, and nothing came that nobody asked for.
    fn is_quiet(&mut self) -> bool {
        self.stream.poll_bytes(&mut Context::from_waker(Waker::noop()), |_| ()).is_pending()
    }

    /// Sends the request, or what is left of it, and waits for the head of the answer. Drop the connection after an error,
    /// and when the future is dropped.
    pub(crate) async fn exchange(&mut self, sending: &mut Sending) -> Result<Head, Lost> {
        let mut heads = Heads::new(sending.is_head());
        std::future::poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = sending.poll(&mut self.stream, cx) {
                let lost = if sending.has_begun() { Lost::Broken } else { Lost::Unsent };
                return Poll::Ready(Err(lost(error.to_string())));
            }
            self.poll_head(cx, &mut heads)
        })
        .await
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, heads: &mut Heads) -> Poll<Result<Head, Lost>> {
        loop {
            let read = ready!(self.stream.poll_bytes(cx, |bytes| match bytes {
                [] => None,
                bytes => Some(heads.take(bytes)),
            }));
            let lost = match read {
                Ok(Some(Ok(None))) => continue,
                Ok(Some(Ok(Some(head)))) => return Poll::Ready(Ok(head)),
                Ok(Some(Err(why))) => return Poll::Ready(Err(Lost::Broken(why.to_owned()))),
                Ok(None) => "it closed the connection".to_owned(),
                Err(error) => error.to_string(),
            };
            let lost = if heads.is_empty() {
                Lost::Unanswered(format!("{lost} before an answer"))
            } else {
                Lost::Broken(format!("{lost} within the head of its answer"))
            };
            return Poll::Ready(Err(lost));
        }
    }
}

/// A body cannot be both: its length is known, and another.
fn wrong_length() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the request's body is not as long as was said")
}
