//! Bodies that stream both ways without buffering, count their bytes, keep their limit, and say once how they ended.
//! A body never holds more than one frame of its own and never waits without a bound when one was set.
use crate::connection::http1::inbound::RequestBody;
use crate::live::InFlight;
use crate::timer::{Answer, note_answer};
use crate::tunnel::Tunnel;
use crate::upstream::http1::Reply;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

mod recoded;

pub use recoded::Recode;
use recoded::Recoded;

/// A streaming HTTP body.
pub struct Body {
    source: Source,
    bytes: u64,
    on_end: Option<Box<dyn FnOnce(BodyEnd) + Send>>,
    /// Most bodies have none; a body is moved often, so what is rare does not weigh in all.
    limits: Option<Box<Limits>>,
    in_flight: Option<InFlight>,
    /// The head already said everything (HEAD, 204, 304): nobody will poll this body, and that is no abort.
    unsent: bool,
}

/// Judges the bytes of a body as they pass, in the order they pass.
pub type Meter = Box<dyn FnMut(&[u8]) -> Result<(), BodyError> + Send>;

struct Limits {
    bytes_max: u64,
    meter: Option<Meter>,
    forbidden_trailer: Option<fn(&http::HeaderName) -> bool>,
    stall: Option<Stall>,
    /// Refuse before the first byte what a declared length already gives away.
    refused: Option<BodyError>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes_max: u64::MAX, meter: None, forbidden_trailer: None, stall: None, refused: None }
    }
}

enum Source {
    Empty,
    Full(Bytes),
    /// Only its trailers are left.
    Trailers(Box<HeaderMap>),
    /// Boxed, for it is rare and a body is moved often.
    FullWithTrailers(Box<(Bytes, HeaderMap)>),
    Incoming(Incoming),
    /// A client's request over HTTP/1.
    Inbound(Box<RequestBody>),
    /// An upstream's answer over HTTP/1.1.
    Reply(Box<Reply>),
    Stream(mpsc::Receiver<Part>),
    Recoded(Box<Recoded>),
    /// No body at all: the answer opens a tunnel.
    Tunnel(Box<Tunnel>),
    Ended,
}

enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
    Failed(BodyError),
}

/// One timer per body, armed only while nothing comes and never re-armed per frame.
struct Stall {
    after: Duration,
    waiting_since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Complete,
    /// Dropped before its end: the other side went away or the task was cut.
    Aborted,
    Failed(BodyError),
}

/// Bytes that passed, and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyEnd {
    pub bytes: u64,
    pub end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("larger than the limit")]
    TooLarge,
    #[error("framing is broken")]
    Malformed,
    #[error("an identity field in a trailer")]
    ForbiddenTrailer,
    #[error("no byte for too long")]
    Stalled,
    #[error("the other side went away")]
    Gone,
}

/// Feeds a [`Body::stream`]. Dropping it ends the body; [`BodySender::fail`] breaks it off.
pub struct BodySender(mpsc::Sender<Part>);

impl BodySender {
    /// Waits while the reader is slow. `Err` when nobody reads any more.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) -> Result<(), BodyError> {
        self.0.send(Part::Data(bytes.into())).await.map_err(|_| BodyError::Gone)
    }
    /// Ends the body with trailers.
    pub async fn end_with_trailers(self, trailers: HeaderMap) -> Result<(), BodyError> {
        self.0.send(Part::Trailers(trailers)).await.map_err(|_| BodyError::Gone)
    }
    /// Breaks the body off, so that the reader cannot take it for complete.
    pub async fn fail(self, error: BodyError) {
        // A reader that left already needs no message.
        let _ = self.0.send(Part::Failed(error)).await;
    }
    /// Resolves when nobody reads any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl Body {
    pub fn empty() -> Body {
        Body::new(Source::Empty)
    }
    pub fn full(bytes: impl Into<Bytes>) -> Body {
        let bytes = bytes.into();
        Body::new(if bytes.is_empty() { Source::Empty } else { Source::Full(bytes) })
    }
    /// Bytes and trailers that are there already, as gRPC answers.
    pub fn full_with_trailers(bytes: impl Into<Bytes>, trailers: HeaderMap) -> Body {
        Body::new(Source::FullWithTrailers(Box::new((bytes.into(), trailers))))
    }
    /// A body of unknown length, fed from elsewhere; at most `parts_max` unread parts wait in it.
    pub fn stream(parts_max: usize) -> (BodySender, Body) {
        let (sender, receiver) = mpsc::channel(parts_max.max(1));
        (BodySender(sender), Body::new(Source::Stream(receiver)))
    }
    pub(crate) fn incoming(incoming: Incoming) -> Body {
        if incoming.is_end_stream() { Body::empty() } else { Body::new(Source::Incoming(incoming)) }
    }
    pub(crate) fn inbound(body: RequestBody) -> Body {
        Body::new(Source::Inbound(Box::new(body)))
    }
    pub(crate) fn reply(reply: Box<Reply>) -> Body {
        Body::new(Source::Reply(reply))
    }
    pub(crate) fn tunnel(tunnel: Box<Tunnel>) -> Body {
        Body::new(Source::Tunnel(tunnel))
    }
    /// The tunnel that the answer opens, if it does. Without it the body is empty.
    pub(crate) fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        if !matches!(self.source, Source::Tunnel(_)) {
            return None;
        }
        match std::mem::replace(&mut self.source, Source::Empty) {
            Source::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        }
    }
    fn new(source: Source) -> Body {
        Body { source, bytes: 0, on_end: None, limits: None, in_flight: None, unsent: false }
    }
    /// `hook` runs exactly once: after the last byte, at the first error, or on drop. Several hooks run in the order given.
    pub fn on_end(mut self, hook: impl FnOnce(BodyEnd) + Send + 'static) -> Body {
        self.on_end = Some(match self.on_end.take() {
            None => Box::new(hook),
            Some(first) => Box::new(move |end| {
                first(end);
                hook(end);
            }),
        });
        self
    }
    /// The body fails with `TooLarge` at the first byte beyond; at once if its declared length is larger.
    pub fn limit(mut self, bytes_max: u64) -> Body {
        let too_large = self.len_hint().is_some_and(|length| length > bytes_max);
        let limits = self.limits.get_or_insert_default();
        limits.bytes_max = limits.bytes_max.min(bytes_max);
        if too_large {
            limits.refused = Some(BodyError::TooLarge);
        }
        self
    }
    /// Refuse trailers for which `forbidden(name)`; the body then fails with `ForbiddenTrailer`.
    pub fn guard_trailers(mut self, forbidden: fn(&http::HeaderName) -> bool) -> Body {
        self.limits.get_or_insert_default().forbidden_trailer = Some(forbidden);
        self
    }
    /// Every data frame passes `meter`; the body fails with its error.
    pub fn meter(mut self, meter: Meter) -> Body {
        self.limits.get_or_insert_default().meter = Some(meter);
        self
    }
    /// The same body in another form. What was set on it before still holds for its first form.
    pub fn recode(self, by: Box<dyn Recode>) -> Body {
        Body::new(Source::Recoded(Box::new(Recoded { of: self, by, trailers: None, at_end: false })))
    }
    /// For streams on which silence means nothing.
    pub fn never_stall(mut self) -> Body {
        if let Some(limits) = &mut self.limits {
            limits.stall = None;
        }
        self
    }
    /// The body fails with `Stalled` when its reader waited this long for one frame.
    pub fn stall_after(mut self, after: Duration) -> Body {
        self.limits.get_or_insert_default().stall = Some(Stall { after, waiting_since: None, sleep: None });
        self
    }
    /// Known length, if any.
    pub fn len_hint(&self) -> Option<u64> {
        match &self.source {
            Source::Empty | Source::Tunnel(_) | Source::Ended => Some(0),
            Source::Full(bytes) => u64::try_from(bytes.len()).ok(),
            Source::Incoming(incoming) => incoming.size_hint().exact(),
            Source::Inbound(body) => body.len_hint(),
            Source::Reply(reply) => reply.len_hint(),
            Source::Stream(_) | Source::Recoded(_) | Source::FullWithTrailers(_) | Source::Trailers(_) => None,
        }
    }
    /// The whole body in memory, at most `bytes_max` of it.
    pub async fn read_all(self, bytes_max: usize) -> Result<Bytes, BodyError> {
        let mut body = self.limit(u64::try_from(bytes_max).unwrap_or(u64::MAX));
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(data) = body.next_data().await? {
            if first.is_empty() && all.is_empty() {
                first = data;
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }
    /// The next data frame; `None` at the end. Trailers are passed over.
    pub async fn next_data(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(error),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    pub(crate) fn keep_in_flight(&mut self, in_flight: InFlight) {
        self.in_flight = Some(in_flight);
    }
    pub(crate) fn mark_unsent(&mut self) {
        self.unsent = true;
    }

    fn finish(&mut self, end: End) {
        self.source = Source::Ended;
        self.in_flight = None;
        if let Some(limits) = &mut self.limits {
            limits.stall = None;
        }
        if let Some(hook) = self.on_end.take() {
            hook(BodyEnd { bytes: self.bytes, end });
        }
    }
    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.finish(End::Failed(error));
        Poll::Ready(Some(Err(error)))
    }
    fn source_is_at_end(&self) -> bool {
        match &self.source {
            Source::Empty | Source::Tunnel(_) | Source::Ended => true,
            Source::Full(_) | Source::Stream(_) | Source::FullWithTrailers(_) | Source::Trailers(_) => false,
            Source::Recoded(recoded) => recoded.at_end && recoded.trailers.is_none(),
            Source::Incoming(incoming) => incoming.is_end_stream(),
            Source::Inbound(body) => body.is_at_end(),
            Source::Reply(reply) => reply.is_at_end(),
        }
    }
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.source {
            Source::Empty | Source::Tunnel(_) | Source::Ended => Poll::Ready(None),
            Source::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::FullWithTrailers(whole) => {
                let (bytes, trailers) = std::mem::take(&mut **whole);
                self.source = Source::Trailers(Box::new(trailers));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::Trailers(trailers) => {
                let trailers = std::mem::take(&mut **trailers);
                self.source = Source::Empty;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Source::Incoming(incoming) => Poll::Ready(
                ready!(Pin::new(incoming).poll_frame(cx)).map(|frame| frame.map_err(|error| classify(&error))),
            ),
            Source::Stream(receiver) => Poll::Ready(ready!(receiver.poll_recv(cx)).map(|part| match part {
                Part::Data(bytes) => Ok(Frame::data(bytes)),
                Part::Trailers(trailers) => Ok(Frame::trailers(trailers)),
                Part::Failed(error) => Err(error),
            })),
            Source::Inbound(body) => body.poll_frame(cx),
            Source::Reply(reply) => reply.poll_frame(cx),
            Source::Recoded(recoded) => recoded.poll(cx),
        }
    }
    fn stall(&mut self) -> Option<&mut Stall> {
        self.limits.as_mut()?.stall.as_mut()
    }
    fn is_refused(&self) -> bool {
        self.limits.as_ref().is_some_and(|limits| limits.refused.is_some())
    }
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stall) = self.stall() else { return Poll::Pending };
        let since = *stall.waiting_since.get_or_insert_with(Instant::now);
        let deadline = since + stall.after;
        let sleep = stall.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // The timer may be older than this wait: then it fires early, and is set anew only then.
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
    fn check(&mut self, frame: &Frame<Bytes>) -> Result<(), BodyError> {
        let Some(limits) = &mut self.limits else { return Ok(()) };
        if self.bytes > limits.bytes_max {
            return Err(BodyError::TooLarge);
        }
        if let (Some(data), Some(meter)) = (frame.data_ref(), &mut limits.meter) {
            meter(data)?;
        }
        match (frame.trailers_ref(), limits.forbidden_trailer) {
            (Some(trailers), Some(forbidden)) if trailers.keys().any(forbidden) => Err(BodyError::ForbiddenTrailer),
            _ => Ok(()),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        let is_answer = body.in_flight.is_some();
        let next = body.poll_next(cx);
        if is_answer {
            note_answer(if matches!(next, Poll::Ready(Some(Ok(_)))) { Answer::Handed } else { Answer::Waits });
        }
        next
    }
    fn is_end_stream(&self) -> bool {
        !self.is_refused() && self.source_is_at_end()
    }
    fn size_hint(&self) -> SizeHint {
        self.len_hint().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Body {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.limits.as_mut().and_then(|limits| limits.refused.take()) {
            return self.fail(error);
        }
        let Poll::Ready(next) = self.poll_source(cx) else {
            ready!(self.poll_stall(cx));
            return self.fail(BodyError::Stalled);
        };
        if let Some(stall) = self.stall() {
            stall.waiting_since = None;
        }
        let frame = match next {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return self.fail(error),
            None => {
                self.finish(End::Complete);
                return Poll::Ready(None);
            }
        };
        if let Some(data) = frame.data_ref() {
            self.bytes = self.bytes.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        }
        if let Err(error) = self.check(&frame) {
            return self.fail(error);
        }
        if frame.is_trailers() || self.source_is_at_end() {
            self.finish(End::Complete);
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.on_end.is_some() {
            let complete = self.unsent || (!self.is_refused() && self.source_is_at_end());
            self.finish(if complete { End::Complete } else { End::Aborted });
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("bytes", &self.bytes).field("length", &self.len_hint()).finish_non_exhaustive()
    }
}

/// Why hyper's body failed, read from the errors under it: hyper does not say it itself.
fn classify(error: &hyper::Error) -> BodyError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(body) = error.downcast_ref::<BodyError>() {
            return *body;
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            if let Some(body) = io.get_ref().and_then(|inner| inner.downcast_ref::<BodyError>()) {
                return *body;
            }
            return match io.kind() {
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput => BodyError::Malformed,
                std::io::ErrorKind::TimedOut => BodyError::Stalled,
                _ => BodyError::Gone,
            };
        }
        source = error.source();
    }
    BodyError::Gone
}

#[cfg(test)]
mod tests;
