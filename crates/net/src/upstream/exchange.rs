//! One request and its answer: which connection, how long to wait, whether to send again. It keeps no connection itself.
use super::endpoint::{Endpoint, Http2};
use super::group::Group;
use super::http1::{Home, Http1, Lost, Reply};
use super::message::Message;
use super::tries::Tries;
use super::{ForwardError, Patience, Preface, Target, path_and_query};
use crate::answer::Head;
use crate::{Body, BodyError, Request, Response};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// A request's body on its way out. Most requests have none, and the library moves a request a dozen times.
pub(crate) struct Outgoing(Option<Box<Watched>>);

struct Watched {
    body: Body,
    upload: Arc<Upload>,
}

/// How far a body has got, as seen from the side that waits for the answer.
#[derive(Default)]
pub(super) struct Upload {
    steps: AtomicU32,
    waits_for_client: AtomicBool,
    failed: OnceLock<BodyError>,
}

impl Outgoing {
    pub(crate) fn nothing() -> Outgoing {
        Outgoing(None)
    }
    /// Nobody asks how far it got.
    pub(crate) fn unwatched(body: Body) -> Outgoing {
        Outgoing((!body.is_end_stream()).then(|| Box::new(Watched { body, upload: Arc::default() })))
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(watched) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        let polled = Pin::new(&mut watched.body).poll_frame(cx);
        let upload = &watched.upload;
        upload.waits_for_client.store(polled.is_pending(), Relaxed);
        if let Poll::Ready(frame) = &polled {
            upload.steps.fetch_add(1, Relaxed);
            if let Some(Err(error)) = frame {
                // The first failure stands.
                let _ = upload.failed.set(*error);
            }
        }
        polled
    }
    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|watched| watched.body.is_end_stream())
    }
    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |watched| watched.body.size_hint())
    }
}

/// Gives the request the form its target's protocol wants.
pub(super) fn fit(request: &mut Request, target: &Target) -> Result<(), ForwardError> {
    if !target.settings.http2 {
        // RFC 9110 §10.1.4: whoever sends `TE` also nominates it.
        if request.headers().contains_key(header::TE) {
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        return Ok(());
    }
    let path = path_and_query(request.uri());
    let authority = request.headers_mut().remove(header::HOST);
    let authority = authority.as_ref().map(HeaderValue::as_bytes).unwrap_or_default();
    let scheme = if target.tls.is_some() { "https" } else { "http" };
    *request.uri_mut() = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|error| ForwardError::Protocol(format!("the request has no authority to send: {error}")))?;
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

/// Why one attempt gave no answer.
pub(super) enum Failure {
    /// Not a byte of the request left: it may be sent again, whatever it is.
    Unsent(String),
    /// The connection ended before a byte of an answer.
    Unanswered(String),
    /// The answer began, and was wrong.
    Broken(String),
    /// The upstream took too long.
    Late,
    /// All of it took too long, or all that this try had.
    Overdue,
    /// An answer that says to try elsewhere, and may be taken by its word.
    Refused(StatusCode),
}

/// How long the head of the answer is waited for.
pub(super) struct Waits {
    pub(super) first_byte: Duration,
    pub(super) all: Duration,
    /// The caller chose it, and shorter than the target would have: what comes too late for him is no fault of an endpoint.
    pub(super) is_callers: bool,
}

impl Waits {
    pub(super) fn of(request: &Request, target: &Target) -> Waits {
        let (first_byte, all) = (target.settings.first_byte_timeout, target.settings.request_timeout);
        match request.extensions().get::<Patience>() {
            Some(Patience(own)) => Waits { first_byte: *own, all: *own, is_callers: *own < first_byte.min(all) },
            None => Waits { first_byte, all, is_callers: false },
        }
    }
}

pub(super) async fn run(group: &Group, target: &Target, mut request: Request) -> Result<Response, ForwardError> {
    let waits = Waits::of(&request, target);
    let body = std::mem::replace(request.body_mut(), Body::empty());
    let upload = (!body.is_end_stream()).then(Arc::<Upload>::default);
    // Idempotent methods of RFC 9110 §9.2.2; an empty body can be sent twice.
    let repeatable = upload.is_none() && is_idempotent(request.method());
    let preface = target.settings.own_preface.as_ref().map(|own| match request.extensions_mut().remove::<Preface>() {
        Some(Preface(of_client)) => of_client,
        None => own.clone(),
    });
    let outgoing = Outgoing(upload.clone().map(|upload| Box::new(Watched { body, upload })));
    let mut message = Message::of(request, outgoing, target.settings.http2);
    let mut tries = Tries::new(group, target, waits, repeatable);
    loop {
        let Some((at, endpoint)) = group.pick(tries.tried, tries.began) else {
            // Boxed here and below: what is rare must not make every request's future larger.
            Box::pin(tries.nobody_left(group, target)).await?;
            continue;
        };
        let try_until = tries.try_until();
        let idle = if tries.wants_new { None } else { lease_idle(group, target, endpoint, tries.began) };
        let leased = match idle {
            Some(connection) => Ok(connection),
            None => match timeout_at(try_until, lease(target, endpoint, preface.as_deref())).await {
                Ok(leased) => leased,
                Err(_) if try_until < tries.until => Err(tries.try_overdue()),
                Err(_) => return Err(ForwardError::RequestTimeout(tries.waits.all)),
            },
        };
        let mut connection = match leased {
            Ok(connection) => connection,
            Err(error) => {
                Box::pin(tries.not_connected(group, target, at, error)).await?;
                continue;
            }
        };
        let may_repeat = repeatable && (connection.reused || tries.retries.is_some());
        if may_repeat {
            message.keep_copy();
        }
        tries.sends(group, connection.reused);
        let guard = InFlight::begin(endpoint);
        let sent = connection.send(&mut message, upload.as_deref(), tries.waits.first_byte, try_until).await;
        let failure = match sent {
            Ok(answered) => match tries.refused(group, target, at, answered.status()) {
                None => {
                    let finished = connection.finish(answered, message, endpoint, guard, group, &tries, at);
                    return finished.map_err(|why| tries.broken(group, target, at, why));
                }
                Some(failure) => failure,
            },
            Err(failure) => failure,
        };
        if let (Link::Http2(connection), Failure::Unsent(..)) = (&connection.link, &failure) {
            endpoint.retire(connection);
        }
        if let Some(error) = upload.as_ref().and_then(|upload| upload.failed.get()) {
            return Err(ForwardError::RequestBody(*error));
        }
        drop(guard);
        Box::pin(tries.again(group, target, at, failure, (connection.reused, may_repeat))).await?;
        message.rewind();
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE)
}

/// What the library says, with its causes.
pub(super) fn told(error: &hyper::Error) -> String {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        why.push_str(": ");
        why.push_str(&error.to_string());
        source = error.source();
    }
    why
}

/// A connection for one exchange.
struct Lease {
    link: Link,
    reused: bool,
}

enum Link {
    Http1(Http1),
    /// It began with its client's address, so nobody else gets it.
    OfOneClient(Http1),
    Http2(Http2),
}

/// An HTTP/1.1 connection that waits for its next request.
fn lease_idle(group: &Group, target: &Target, endpoint: &Endpoint, now: Instant) -> Option<Lease> {
    if target.settings.http2 || target.settings.own_preface.is_some() {
        return None;
    }
    let connection = endpoint.take_idle(group.idle_timeout(), now)?;
    Some(Lease { link: Link::Http1(connection), reused: true })
}

async fn lease(target: &Target, endpoint: &Endpoint, preface: Option<&[u8]>) -> Result<Lease, ForwardError> {
    if target.settings.http2 {
        let (connection, reused) = endpoint.http2(target).await?;
        return Ok(Lease { link: Link::Http2(connection), reused });
    }
    let connection = endpoint.open_http1(target, preface.unwrap_or_default()).await?;
    let link = if preface.is_some() { Link::OfOneClient(connection) } else { Link::Http1(connection) };
    Ok(Lease { link, reused: false })
}

/// The head of an answer.
enum Answer {
    Http1(Head),
    Http2(http::Response<Incoming>),
}

impl Answer {
    fn status(&self) -> StatusCode {
        match self {
            Answer::Http1(head) => head.status,
            Answer::Http2(response) => response.status(),
        }
    }
}

impl Lease {
    async fn send(
        &mut self,
        message: &mut Message,
        upload: Option<&Upload>,
        limit: Duration,
        until: Instant,
    ) -> Result<Answer, Failure> {
        match (&mut self.link, message) {
            (Link::Http1(connection) | Link::OfOneClient(connection), Message::Http1(sending)) => {
                let sent = pin!(connection.exchange(sending));
                answer(sent, upload, limit, until).await.map(Answer::Http1)
            }
            (Link::Http2(connection), Message::Http2(message)) => {
                let Some(request) = message.request.take() else {
                    return Err(Failure::Unanswered("the request is gone".into()));
                };
                let sent = pin!(connection.send(*request, &mut message.request));
                answer(sent, upload, limit, until).await.map(Answer::Http2)
            }
            _ => Err(Failure::Unsent("the connection speaks another protocol".into())),
        }
    }

    /// The answer, with whatever has to live as long as its body. `Err` says why it is none.
    #[expect(clippy::too_many_arguments, reason = "the end of one try: everything it used comes together")]
    fn finish(
        self,
        answer: Answer,
        message: Message,
        endpoint: &Arc<Endpoint>,
        guard: InFlight,
        group: &Group,
        tries: &Tries<'_>,
        at: usize,
    ) -> Result<Response, &'static str> {
        let now = Instant::now();
        let mut response = match (self.link, answer, message) {
            (Link::Http1(connection), Answer::Http1(head), Message::Http1(sending)) => {
                Reply::answer(connection, head, sending, Home(Some(Arc::clone(endpoint))), now)?
            }
            (Link::OfOneClient(connection), Answer::Http1(head), Message::Http1(sending)) => {
                Reply::answer(connection, head, sending, Home(None), now)?
            }
            (Link::Http2(connection), Answer::Http2(response), _) => {
                let streams = connection.streams;
                response.map(|body| Body::incoming(body).on_end(move |_| drop(streams)))
            }
            _ => return Err("the connection speaks another protocol"),
        };
        // Only the choice between addresses needs the count, and to learn from the answer.
        if !group.is_single() {
            if !response.body().is_end_stream() {
                response = response.map(|body| body.on_end(move |_| drop(guard)));
            }
            tries.answered(group, endpoint, at, now, &mut response);
        }
        Ok(response)
    }
}

/// Waits for the head of the answer; see [`super::TargetSettings::first_byte_timeout`].
pub(super) async fn answer<T, E: Into<Failure>>(
    mut sent: Pin<&mut impl Future<Output = Result<T, E>>>,
    upload: Option<&Upload>,
    limit: Duration,
    until: Instant,
) -> Result<T, Failure> {
    let mut steps = 0;
    loop {
        let late = Instant::now() + limit;
        match timeout_at(late.min(until), sent.as_mut()).await {
            Ok(answered) => return answered.map_err(Into::into),
            Err(_) if until < late => return Err(Failure::Overdue),
            Err(_) => match upload {
                Some(upload) if upload.waits_for_client.load(Relaxed) => {}
                Some(upload) if upload.steps.load(Relaxed) != steps => steps = upload.steps.load(Relaxed),
                _ => return Err(Failure::Late),
            },
        }
    }
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Failure {
        match lost {
            Lost::Unsent(why) => Failure::Unsent(why),
            Lost::Unanswered(why) => Failure::Unanswered(why),
            Lost::Broken(why) => Failure::Broken(why),
        }
    }
}

impl Http2 {
    /// What the library did not send comes back in `unsent`. A stream that ended without an answer may have been acted upon.
    pub(super) async fn send(
        &mut self,
        request: http::Request<Outgoing>,
        unsent: &mut Option<Box<http::Request<Outgoing>>>,
    ) -> Result<http::Response<Incoming>, Failure> {
        let mut error = match self.sender.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        *unsent = error.take_message().map(Box::new);
        let error = error.into_error();
        let why = told(&error);
        Err(match unsent {
            Some(_) => Failure::Unsent(why),
            None if error.is_parse() => Failure::Broken(why),
            None => Failure::Unanswered(why),
        })
    }
}

/// One request counted against its address.
pub(super) struct InFlight(Arc<AtomicU32>);

impl InFlight {
    pub(super) fn begin(endpoint: &Endpoint) -> InFlight {
        endpoint.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(&endpoint.in_flight))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
