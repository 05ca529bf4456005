//! One request and its answer: which connection, how long to wait, whether to send again. It keeps no connection itself.
use super::endpoint::{Endpoint, Http1, Http2};
use super::group::Group;
use super::{ForwardError, Target, path_and_query};
use crate::{Body, BodyError, Request, Response};
use bytes::Bytes;
use http::{HeaderValue, Method, Uri, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Addresses tried for one request.
const ADDRESSES_TRIED_MAX: u32 = 3;
/// Times one request may be put on a connection: a reused one that turned out dead, and a new one.
const SENDS_MAX: u32 = 2;

/// A request's body on its way out, watched if it is not empty.
pub(super) struct Outgoing {
    body: Body,
    upload: Option<Arc<Upload>>,
}

/// How far a body has got, as seen from the side that waits for the answer.
#[derive(Default)]
struct Upload {
    steps: AtomicU32,
    waits_for_client: AtomicBool,
    failed: OnceLock<BodyError>,
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(upload) = &this.upload {
            upload.waits_for_client.store(polled.is_pending(), Relaxed);
            if let Poll::Ready(frame) = &polled {
                upload.steps.fetch_add(1, Relaxed);
                if let Some(Err(error)) = frame {
                    // The first failure stands.
                    let _ = upload.failed.set(*error);
                }
            }
        }
        polled
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
enum Failure {
    /// Not a byte of the request left: it may be sent again, whatever it is.
    Unsent(Box<http::Request<Outgoing>>, hyper::Error),
    /// The connection ended before a byte of an answer.
    Unanswered(hyper::Error),
    /// The answer began, and was wrong.
    Broken(hyper::Error),
    Late,
}

pub(super) async fn run(group: &Group, target: &Target, request: Request) -> Result<Response, ForwardError> {
    let (parts, body) = request.into_parts();
    let upload = (!body.is_end_stream()).then(Arc::<Upload>::default);
    // Idempotent methods of RFC 9110 §9.2.2; an empty body can be sent twice.
    let repeatable = upload.is_none() && is_idempotent(&parts.method);
    let mut request = http::Request::from_parts(parts, Outgoing { body, upload: upload.clone() });
    let (mut tried, mut sends) = (0u64, 0u32);
    let mut last = None;
    while let Some((at, endpoint)) = group.pick(tried) {
        let fresh = sends > 0;
        let mut connection = match lease(group, target, endpoint, fresh).await {
            Ok(connection) => connection,
            Err(error) => {
                group.failed(endpoint);
                tried |= 1 << at;
                last = Some(error);
                if tried.count_ones() >= ADDRESSES_TRIED_MAX {
                    break;
                }
                continue;
            }
        };
        let copy = (repeatable && connection.reused).then(|| copy_of(&request));
        sends += 1;
        let guard = InFlight::begin(endpoint);
        let failure = match connection.send(request, upload.as_deref(), target.settings.first_byte_timeout).await {
            Ok(response) => return Ok(connection.finish(response, endpoint, guard, group.is_single())),
            Err(failure) => failure,
        };
        if let (Link::Http2(connection), Failure::Unsent(..)) = (&connection.link, &failure) {
            endpoint.retire(connection);
        }
        if let Some(error) = upload.as_ref().and_then(|upload| upload.failed.get()) {
            return Err(ForwardError::RequestBody(*error));
        }
        let again = match (failure, copy) {
            (Failure::Late, _) => return Err(ForwardError::FirstByteTimeout(target.settings.first_byte_timeout)),
            (Failure::Broken(error), _) | (Failure::Unanswered(error), None) => return Err(broken(&error)),
            (Failure::Unsent(request, error), _) => (*request, error),
            (Failure::Unanswered(error), Some(copy)) => (copy, error),
        };
        if sends >= SENDS_MAX {
            return Err(broken(&again.1));
        }
        request = again.0;
    }
    Err(last.unwrap_or_else(|| ForwardError::Protocol("no address is left to try".into())))
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE)
}

/// A request without body, to be sent once more.
fn copy_of(request: &http::Request<Outgoing>) -> http::Request<Outgoing> {
    let mut copy = http::Request::new(Outgoing { body: Body::empty(), upload: None });
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn broken(error: &hyper::Error) -> ForwardError {
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
    Http2(Http2),
}

async fn lease(group: &Group, target: &Target, endpoint: &Endpoint, fresh: bool) -> Result<Lease, ForwardError> {
    if target.settings.http2 {
        let (connection, reused) = endpoint.http2(target).await?;
        return Ok(Lease { link: Link::Http2(connection), reused });
    }
    if !fresh && let Some(connection) = endpoint.take_idle(group.idle_timeout()) {
        return Ok(Lease { link: Link::Http1(connection), reused: true });
    }
    Ok(Lease { link: Link::Http1(endpoint.open_http1(target).await?), reused: false })
}

impl Lease {
    async fn send(
        &mut self,
        request: http::Request<Outgoing>,
        upload: Option<&Upload>,
        limit: Duration,
    ) -> Result<http::Response<Incoming>, Failure> {
        match &mut self.link {
            Link::Http1(connection) => {
                let reads = connection.meter.reads();
                let answer = answer(connection.sender.try_send_request(request), upload, limit).await;
                answer.map_err(|failure| match failure {
                    Failure::Unanswered(error) if connection.meter.reads() != reads => Failure::Broken(error),
                    other => other,
                })
            }
            // A stream that ended without an answer may have been acted upon; unless h2 hands the request back.
            Link::Http2(connection) => answer(connection.sender.try_send_request(request), upload, limit).await,
        }
    }

    /// The answer, with whatever has to live as long as its body.
    fn finish(
        self,
        response: http::Response<Incoming>,
        endpoint: &Endpoint,
        guard: InFlight,
        single: bool,
    ) -> Response {
        let response = response.map(Body::incoming);
        match self.link {
            Link::Http1(connection) => {
                endpoint.put_back(connection);
                // Only the choice between addresses needs the count to last.
                if single { response } else { response.map(|body| body.on_end(move |_| drop(guard))) }
            }
            Link::Http2(connection) => {
                let streams = connection.streams;
                response.map(|body| body.on_end(move |_| drop((guard, streams))))
            }
        }
    }
}

/// Waits for the head of the answer; see [`super::TargetSettings::first_byte_timeout`].
async fn answer(
    sent: impl Future<Output = Result<http::Response<Incoming>, hyper::client::conn::TrySendError<http::Request<Outgoing>>>>,
    upload: Option<&Upload>,
    limit: Duration,
) -> Result<http::Response<Incoming>, Failure> {
    let mut sent = pin!(sent);
    let mut steps = 0;
    loop {
        let error = match timeout_at(Instant::now() + limit, sent.as_mut()).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => error,
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
struct InFlight(Arc<AtomicU32>);

impl InFlight {
    fn begin(endpoint: &Endpoint) -> InFlight {
        endpoint.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(&endpoint.in_flight))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
