//! The body of an answer over HTTP/1.1, as it comes. A connection goes back to the pool only after an answer that ended where
//! it said, with nothing behind it.
use super::Http1;
use super::sending::Sending;
use crate::answer::{Framing, Head};
use crate::upstream::endpoint::Endpoint;
use crate::{Body, BodyError, BodySender, Response};
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::time::Instant;

/// Parts of an answer that wait for a client while its request is still on the way.
const PARTS_MAX: usize = 2;

/// Where a connection goes after its answer; nowhere, if it carries one client's requests only.
pub(crate) struct Home(pub(crate) Option<Arc<Endpoint>>);

/// The body of an answer that is still to come.
pub(crate) struct Reply {
    framing: Framing,
    /// Came with the head.
    first: Option<Bytes>,
    rest: Bytes,
    trailers: Option<HeaderMap>,
    /// Present until the body's end.
    connection: Option<Http1>,
    keeps: bool,
    home: Home,
    /// The request, where it is still on its way or was cut short.
    sending: Option<Sending>,
    /// Its body failed.
    request_failed: bool,
}

impl Reply {
    /// The answer: whole, where all of it came with its head; else with a body that reads on. `Err` says why it is none.
    pub(crate) fn answer(
        connection: Http1,
        head: Head,
        sending: Sending,
        home: Home,
        now: Instant,
    ) -> Result<Response, &'static str> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        let mut reply = Reply {
            framing: head.framing,
            first: None,
            rest: head.rest,
            trailers: None,
            connection: Some(connection),
            keeps: head.keeps,
            home,
            sending: Some(sending).filter(|sending| !sending.is_whole()),
            request_failed: false,
        };
        let first = reply.next_of_rest()?;
        if reply.has_ended(now) {
            *response.body_mut() = match (first, reply.trailers.take()) {
                (None, None) => Body::empty(),
                (Some(data), None) => Body::full(data),
                (data, Some(trailers)) => Body::full_with_trailers(data.unwrap_or_default(), trailers),
            };
            return Ok(response);
        }
        reply.first = first;
        *response.body_mut() = if reply.sending.as_ref().is_some_and(|sending| !sending.is_done()) {
            let (sender, body) = Body::stream(PARTS_MAX);
            tokio::spawn(both_ways(reply, sender));
            body
        } else {
            Body::reply(Box::new(reply))
        };
        Ok(response)
    }

    /// Bytes that are still to come, if that is known.
    pub(crate) fn len_hint(&self) -> Option<u64> {
        let first = self.first.as_ref().map_or(0, |first| u64::try_from(first.len()).unwrap_or(u64::MAX));
        match self.framing {
            Framing::Length(left) => left.checked_add(first),
            Framing::Chunked(_) | Framing::Close => None,
        }
    }
    pub(crate) fn is_at_end(&self) -> bool {
        self.connection.is_none() && self.first.is_none() && self.trailers.is_none()
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        loop {
            if self.connection.is_none() {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            if let Err(error) = ready!(self.poll_rest(cx)) {
                self.connection = None;
                return Poll::Ready(Some(Err(error)));
            }
            let Ok(data) = self.next_of_rest() else {
                self.connection = None;
                return Poll::Ready(Some(Err(BodyError::Malformed)));
            };
            self.has_ended(Instant::now());
            if let Some(data) = data {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    /// Reads once more.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        self.poll_sending(cx)?;
        let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(())) };
        match ready!(connection.stream.poll_bytes(cx, Bytes::copy_from_slice)) {
            Ok(bytes) if !bytes.is_empty() => self.rest = bytes,
            Ok(_) if matches!(self.framing, Framing::Close) => {
                self.framing = Framing::Length(0);
                self.keeps = false;
            }
            Ok(_) => return Poll::Ready(Err(BodyError::Gone)),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => return Poll::Ready(Err(BodyError::Stalled)),
            Err(_) => return Poll::Ready(Err(BodyError::Gone)),
        }
        Poll::Ready(Ok(()))
    }

    /// The request goes on, too. `Err` when its body failed: then there is no end to the answer either.
    fn poll_sending(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        if self.request_failed {
            return Err(BodyError::Gone);
        }
        let (Some(connection), Some(sending)) = (&mut self.connection, &mut self.sending) else { return Ok(()) };
        match sending.poll(&mut connection.stream, cx) {
            Poll::Ready(Err(_)) => {
                self.request_failed = true;
                Err(BodyError::Gone)
            }
            Poll::Ready(Ok(())) if sending.is_whole() => {
                self.sending = None;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What is there of the body already.
    fn next_of_rest(&mut self) -> Result<Option<Bytes>, &'static str> {
        let data = match &mut self.framing {
            Framing::Close => std::mem::take(&mut self.rest),
            Framing::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(self.rest.len());
                *left = left.saturating_sub(u64::try_from(take).unwrap_or(u64::MAX));
                self.rest.split_to(take)
            }
            Framing::Chunked(decoder) => {
                let (data, rest) = decoder.take(&self.rest)?;
                self.rest = rest;
                self.trailers = decoder.take_trailers();
                data
            }
        };
        Ok(Some(data).filter(|data| !data.is_empty()))
    }

    /// At the end of the body the connection is free for the next request, or gone.
    fn has_ended(&mut self, now: Instant) -> bool {
        let has_ended = match &self.framing {
            Framing::Length(left) => *left == 0,
            Framing::Chunked(decoder) => decoder.has_ended(),
            Framing::Close => false,
        };
        if has_ended && let Some(connection) = self.connection.take() {
            // What comes behind an answer was not asked for, and would be taken for the next one.
            let is_free = self.keeps && self.rest.is_empty() && self.sending.take().is_none();
            if let Some(home) = self.home.0.take().filter(|_| is_free) {
                home.put_back(connection, now);
            }
        }
        has_ended
    }
}

/// An answer that began before its request had ended: both go on, each at its own reader's pace.
async fn both_ways(mut reply: Reply, mut sender: BodySender) {
    loop {
        let frame = match next(&mut reply, &sender).await {
            None => return,
            Some(Err(error)) => return sender.fail(error).await,
            Some(Ok(frame)) => frame,
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    // A reader that left needs no trailers.
                    let _ = sender.end_with_trailers(trailers).await;
                }
                return;
            }
        };
        if hand_on(&mut reply, &mut sender, data).await.is_err() {
            return;
        }
    }
}

/// `None` at the end of the answer, and when nobody reads it any more.
async fn next(reply: &mut Reply, sender: &BodySender) -> Option<Result<Frame<Bytes>, BodyError>> {
    let mut gone = pin!(sender.closed());
    poll_fn(|cx| match gone.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => reply.poll_frame(cx),
    })
    .await
}

/// While the reader of the answer is slow, the request goes on.
async fn hand_on(reply: &mut Reply, sender: &mut BodySender, data: Bytes) -> Result<(), BodyError> {
    let mut handed = pin!(sender.send(data));
    poll_fn(|cx| {
        // A request that failed is found again by the next read.
        let _ = reply.poll_sending(cx);
        handed.as_mut().poll(cx)
    })
    .await
}
