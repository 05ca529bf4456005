//! One request and its answer: which connection, how long to wait, whether to send again. It keeps no connection itself.
use super::endpoint::{Endpoint, Http1, Http2};
use super::group::Group;
use super::tries::Tries;
use super::{ForwardError, Patience, Preface, Target, path_and_query};
use crate::{Body, BodyError, Request, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// A request's body on its way out. Most requests have none, and the library moves a request a dozen times.
pub(super) struct Outgoing(Option<Box<Watched>>);

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
    pub(super) fn nothing() -> Outgoing {
        Outgoing(None)
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
    let path = path_and_query(request.uri());
    if !target.settings.http2 {
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = Uri::from(path);
        // RFC 9110 §10.1.4: whoever sends `TE` also nominates it.
        if request.headers().contains_key(header::TE) {
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        // The library frames a body of unknown length by itself, except with GET and HEAD, where it drops the body.
        let body = request.body();
        if body.len_hint().is_none() && !body.is_end_stream() {
            request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        return Ok(());
    }
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
    Unsent(Box<http::Request<Outgoing>>, hyper::Error),
    /// The connection ended before a byte of an answer.
    Unanswered(hyper::Error),
    /// The answer began, and was wrong.
    Broken(hyper::Error),
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
}

impl Waits {
    pub(super) fn of(request: &Request, target: &Target) -> Waits {
        match request.extensions().get::<Patience>() {
            Some(Patience(patience)) => Waits { first_byte: *patience, all: *patience },
            None => Waits { first_byte: target.settings.first_byte_timeout, all: target.settings.request_timeout },
        }
    }
}

pub(super) async fn run(group: &Group, target: &Target, request: Request) -> Result<Response, ForwardError> {
    let waits = Waits::of(&request, target);
    let (mut parts, body) = request.into_parts();
    let upload = (!body.is_end_stream()).then(Arc::<Upload>::default);
    // Idempotent methods of RFC 9110 §9.2.2; an empty body can be sent twice.
    let repeatable = upload.is_none() && is_idempotent(&parts.method);
    let preface = target.settings.own_preface.as_ref().map(|own| match parts.extensions.remove::<Preface>() {
        Some(Preface(of_client)) => of_client,
        None => own.clone(),
    });
    let outgoing = Outgoing(upload.clone().map(|upload| Box::new(Watched { body, upload })));
    let mut request = http::Request::from_parts(parts, outgoing);
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
        let copy = (repeatable && (connection.reused || tries.retries.is_some())).then(|| Repeat::of(&request));
        tries.sends(group, connection.reused);
        let guard = InFlight::begin(endpoint);
        let sent = connection.send(request, upload.as_deref(), tries.waits.first_byte, try_until).await;
        let failure = match sent {
            Ok(response) => match tries.refused(group, target, at, &response) {
                None => return Ok(connection.finish(response, endpoint, guard, group, &tries, at)),
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
        request = Box::pin(tries.again(group, target, at, failure, (connection.reused, copy))).await?;
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE)
}

/// A request without body, to be sent once more. Nearly all are made for nothing, so the fields are one text and no map.
pub(super) struct Repeat {
    method: Method,
    uri: Uri,
    version: Version,
    /// `name LF value LF` for each field: neither can hold a line feed.
    fields: Vec<u8>,
}

impl Repeat {
    fn of(request: &http::Request<Outgoing>) -> Repeat {
        let lengths = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 2);
        let mut fields = Vec::with_capacity(lengths.sum());
        for (name, value) in request.headers() {
            for part in [name.as_str().as_bytes(), b"\n", value.as_bytes(), b"\n"] {
                fields.extend_from_slice(part);
            }
        }
        Repeat { method: request.method().clone(), uri: request.uri().clone(), version: request.version(), fields }
    }

    pub(super) fn into_request(self) -> http::Request<Outgoing> {
        let mut request = http::Request::new(Outgoing(None));
        let mut parts = self.fields.split(|byte| *byte == b'\n');
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                request.headers_mut().append(name, value);
            }
        }
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        request
    }
}

pub(super) fn broken(error: &hyper::Error) -> ForwardError {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        why.push_str(": ");
        why.push_str(&error.to_string());
        source = error.source();
    }
    ForwardError::Protocol(why)
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

impl Lease {
    async fn send(
        &mut self,
        request: http::Request<Outgoing>,
        upload: Option<&Upload>,
        limit: Duration,
        until: Instant,
    ) -> Result<http::Response<Incoming>, Failure> {
        match &mut self.link {
            Link::Http1(connection) | Link::OfOneClient(connection) => {
                let reads = connection.meter.reads();
                let sent = pin!(connection.sender.try_send_request(request));
                let answer = answer(sent, upload, limit, until).await;
                answer.map_err(|failure| match failure {
                    Failure::Unanswered(error) if connection.meter.reads() != reads => Failure::Broken(error),
                    other => other,
                })
            }
            // A stream that ended without an answer may have been acted upon; unless h2 hands the request back.
            Link::Http2(connection) => {
                answer(pin!(connection.sender.try_send_request(request)), upload, limit, until).await
            }
        }
    }

    /// The answer, with whatever has to live as long as its body.
    fn finish(
        self,
        response: http::Response<Incoming>,
        endpoint: &Endpoint,
        guard: InFlight,
        group: &Group,
        tries: &Tries<'_>,
        at: usize,
    ) -> Response {
        let mut response = response.map(Body::incoming);
        let now = match self.link {
            Link::Http1(connection) => {
                let now = Instant::now();
                endpoint.put_back(connection, now);
                // Only the choice between addresses needs the count to last.
                if group.is_single() {
                    return response;
                }
                response = response.map(|body| body.on_end(move |_| drop(guard)));
                now
            }
            Link::OfOneClient(connection) => {
                response = response.map(|body| body.on_end(move |_| drop((guard, connection))));
                if group.is_single() {
                    return response;
                }
                Instant::now()
            }
            Link::Http2(connection) => {
                let streams = connection.streams;
                response = response.map(|body| body.on_end(move |_| drop((guard, streams))));
                if group.is_single() {
                    return response;
                }
                Instant::now()
            }
        };
        tries.answered(group, endpoint, at, now, &mut response);
        response
    }
}

pub(super) type Sent = Result<http::Response<Incoming>, hyper::client::conn::TrySendError<http::Request<Outgoing>>>;

/// Waits for the head of the answer; see [`super::TargetSettings::first_byte_timeout`].
pub(super) async fn answer(
    mut sent: Pin<&mut impl Future<Output = Sent>>,
    upload: Option<&Upload>,
    limit: Duration,
    until: Instant,
) -> Result<http::Response<Incoming>, Failure> {
    let mut steps = 0;
    loop {
        let late = Instant::now() + limit;
        let error = match timeout_at(late.min(until), sent.as_mut()).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => error,
            Err(_) if until < late => return Err(Failure::Overdue),
            Err(_) => match upload {
                Some(upload) if upload.waits_for_client.load(Relaxed) => continue,
                Some(upload) if upload.steps.load(Relaxed) != steps => {
                    steps = upload.steps.load(Relaxed);
                    continue;
                }
                _ => return Err(Failure::Late),
            },
        };
        let mut error = error;
        return Err(match error.take_message() {
            Some(request) => Failure::Unsent(Box::new(request), error.into_error()),
            None => {
                let error = error.into_error();
                if error.is_parse() { Failure::Broken(error) } else { Failure::Unanswered(error) }
            }
        });
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
