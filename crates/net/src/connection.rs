//! The life of one connection: handshake, protocol, requests handed to the service one answer each, an orderly end.
//! It never reads a body and never decides about a request that the guard let through.
use crate::body::Body;
use crate::guard::GuardLimits;
use crate::head::{Violation, authority_is_plain, bad, target_is_plain};
use crate::live::{Cut, InFlight, Live, Refused, Waiting};
use crate::preamble::Missing;
use crate::server::{Connection, Refusal, Service};
use crate::settings::Limits;
use crate::socket::{Metered, Protocol, Socket, Stream};
use crate::timer::{StreamExecutor, TokioTimer};
use crate::worker::{Worker, catch_panic};
use crate::{Request, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;

pub(crate) mod http1;
mod upgrade;

/// HTTP/2 flow control: enough for one fast stream over a long path, small enough that a thousand idle clients are cheap.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// HTTP/2 streams reset before the service saw them, and errors we answered with resets, before the connection is closed.
const PENDING_RESETS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 256;
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Where a service names the decision that its record of the request is filed under.
const DECISION: HeaderName = HeaderName::from_static("countersign-decision");

/// One connection and what its requests need.
struct Session<S> {
    worker: Arc<Worker<S>>,
    live: Arc<Live>,
    connection: Arc<Connection>,
}

pub(crate) async fn serve<S: Service>(
    worker: Arc<Worker<S>>,
    live: Arc<Live>,
    mut connection: Connection,
    stream: TcpStream,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    if worker.is_draining() {
        live.close_after_answer();
    }
    let Some(stream) = preamble(&worker, &live, &mut connection, stream).await else { return };
    let Some((stream, chose_http2)) = handshake(&worker, &live, &mut connection, stream).await else { return };
    let mut socket = Socket::new(stream, Arc::clone(&live));
    let session = Arc::new(Session { worker, live, connection: Arc::new(connection) });
    let protocol = if chose_http2 {
        Protocol::Http2
    } else {
        match until_cut(&session.live, pin!(poll_fn(|cx| socket.poll_protocol(cx)))).await {
            Ok(Ok(protocol)) => protocol,
            Ok(Err(_)) => return,
            Err(cut) => return session.note_end(cut),
        }
    };
    let cut = match protocol {
        Protocol::Nothing => Cut::None,
        Protocol::Http1 => session.serve_http1(socket).await,
        Protocol::Http2 => Box::pin(session.serve_http2(socket)).await,
    };
    session.note_end(cut);
}

/// Learns from a proxy in front of us whose connection this is, where that is due.
async fn preamble<S: Service>(
    worker: &Worker<S>,
    live: &Live,
    connection: &mut Connection,
    mut stream: TcpStream,
) -> Option<TcpStream> {
    let due = worker.process.preamble.as_ref().filter(|due| (due.is_due_from)(connection.remote.ip()));
    let Some(due) = due else { return Some(stream) };
    // Boxed: over in a moment, and the connection would hold room for it as long as it lives.
    let taken = until_cut(live, pin!(Box::pin(due.take(&mut stream)))).await;
    match taken {
        Ok(Ok(client)) => {
            connection.remote = client.unwrap_or(connection.remote);
            return Some(stream);
        }
        Ok(Err(Missing::Malformed(why))) => worker.service.refused(Refusal::Preamble(why), connection),
        Ok(Err(Missing::Io(error))) => {
            tracing::debug!(%error, remote = %connection.remote, "ended within its preamble")
        }
        Err(Cut::HandshakeTimeout | Cut::HeaderTimeout) => {
            worker.service.refused(Refusal::Preamble("no PROXY protocol header in time"), connection);
        }
        Err(_) => {}
    }
    None
}

async fn handshake<S: Service>(
    worker: &Worker<S>,
    live: &Live,
    connection: &mut Connection,
    stream: TcpStream,
) -> Option<(Stream, bool)> {
    let Some(acceptor) = &worker.process.tls else { return Some((Stream::Plain(stream), false)) };
    // Boxed, here and below: an idle connection would hold room for it.
    match until_cut(live, pin!(Box::pin(acceptor.accept(stream)))).await {
        Ok(Ok(stream)) => {
            let (tls, chose_http2) = acceptor.settled(&stream);
            connection.tls = Some(tls);
            live.wait_from_now(Waiting::Head);
            Some((Stream::Tls(Box::new(stream)), chose_http2))
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, remote = %connection.remote, "TLS handshake failed");
            worker.service.refused(Refusal::Handshake, connection);
            None
        }
        Err(cut) => {
            if cut == Cut::HandshakeTimeout {
                worker.service.refused(Refusal::HandshakeTimeout, connection);
            }
            None
        }
    }
}

/// Runs a future until the worker's clock cuts the connection.
async fn until_cut<F: Future>(live: &Live, mut future: Pin<&mut F>) -> Result<F::Output, Cut> {
    let mut known = false;
    poll_fn(|cx| {
        keep_waker_once(live, cx, &mut known);
        match live.cut() {
            Cut::None => future.as_mut().poll(cx).map(Ok),
            cut => Poll::Ready(Err(cut)),
        }
    })
    .await
}

fn keep_waker_once(live: &Live, cx: &Context<'_>, known: &mut bool) {
    if !*known {
        live.keep_waker(cx);
        *known = true;
    }
}

impl<S: Service> Session<S> {
    /// Counts what ended the connection below the service, once.
    fn note_end(&self, cut: Cut) {
        if let Some(refused) = self.live.take_refused() {
            self.worker.service.refused(refused.refusal, &self.connection);
        } else if cut == Cut::HeaderTimeout {
            self.worker.service.refused(Refusal::HeaderTimeout, &self.connection);
        }
    }

    async fn serve_http2(self: &Arc<Self>, socket: Socket) -> Cut {
        let limits = &self.worker.process.limits;
        let session = Arc::clone(self);
        let executor =
            StreamExecutor { panicked: move || session.panicked(), stall: self.worker.process.timeouts.body_stall };
        let mut builder = hyper::server::conn::http2::Builder::new(executor);
        builder
            .timer(TokioTimer)
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .max_local_error_reset_streams(LOCAL_RESETS_MAX)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .enable_connect_protocol();
        let session = Arc::clone(self);
        let service = service_fn(move |request| Arc::clone(&session).answer_http2(request));
        let mut library = pin!(builder.serve_connection(Metered::new(socket), service));
        let live = Arc::clone(&self.live);
        let mut said_goaway = false;
        self.drive(|cx, close| {
            if (close || live.is_closing()) && !said_goaway {
                said_goaway = true;
                live.said_farewell();
                library.as_mut().graceful_shutdown();
            }
            library.as_mut().poll(cx)
        })
        .await
    }

    /// Polls the library's connection until it ends, is cut, or panics. `poll`'s second argument asks for an orderly close.
    async fn drive(&self, mut poll: impl FnMut(&mut Context<'_>, bool) -> Poll<hyper::Result<()>>) -> Cut {
        let mut known = false;
        let mut library = poll_fn(|cx| {
            keep_waker_once(&self.live, cx, &mut known);
            let cut = self.live.cut();
            if cut == Cut::Now {
                return Poll::Ready((Ok(()), cut));
            }
            poll(cx, cut == Cut::Idle).map(|result| (result, cut))
        });
        match catch_panic(Pin::new(&mut library)).await {
            Some((Ok(()), cut)) => cut,
            Some((Err(error), cut)) => {
                tracing::debug!(%error, remote = %self.connection.remote, "connection ended");
                if let Some(reason) = library_refusal(&error) {
                    self.live.refuse(Refused { refusal: Refusal::Malformed(reason), status: 400, reason });
                }
                cut
            }
            None => {
                self.panicked();
                Cut::Now
            }
        }
    }

    fn panicked(&self) {
        self.live.close_after_answer();
        self.live.wake();
        self.worker.service.panicked(&self.connection);
    }

    async fn answer_http2(self: Arc<Self>, request: http::Request<Incoming>) -> Result<Response, Infallible> {
        if request.method() == Method::CONNECT {
            // Boxed: rare, and its state should not weigh in every stream.
            return Box::pin(self.answer_connect(request)).await;
        }
        let in_flight = InFlight::begin(Arc::clone(&self.live));
        let method_is_head = request.method() == Method::HEAD;
        let stall = self.worker.process.timeouts.body_stall;
        let mut request = Box::new(request.map(|body| Body::incoming(body).stall_after(stall)));
        let mut response = match admit_http2(&mut request, self.worker.process.limits.header_fields_max) {
            Ok(()) => self.ask(request).await,
            Err(violation) => self.refuse(Refused::from_violation(violation)),
        };
        settle(&mut response, method_is_head, in_flight);
        Ok(response)
    }

    fn refuse(&self, refused: Refused) -> Response {
        self.worker.service.refused(refused.refusal, &self.connection);
        problem(refused.status, refused.reason)
    }

    async fn ask(&self, request: Request) -> Response {
        match catch_panic(pin!(self.worker.service.call(request, &self.connection))).await {
            Some(response) => response,
            None => {
                self.panicked();
                problem(500, "an internal error; the connection is closed")
            }
        }
    }
}

/// What the guard asks of HTTP/1, asked of HTTP/2, and `Host` made of `:authority` (RFC 9113 §8.3.1), so that the service
/// finds it in one place.
fn admit_http2(request: &mut Request, fields_max: usize) -> Result<(), Violation> {
    if request.headers().len() > fields_max {
        return Err(Violation { status: 431, reason: "too many header fields" });
    }
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    if !target_is_plain(target.as_bytes()) || (target == "*" && request.method() != Method::OPTIONS) {
        return Err(bad("a forbidden character in the target"));
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (request.uri().authority(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) => return Err(bad("several Host fields")),
        (None, None, _) => return Err(bad("no Host field")),
        (Some(authority), Some(host), None) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            return Err(bad("Host differs from the target's authority"));
        }
        (_, Some(host), None) => host.clone(),
        (Some(authority), None, None) => {
            HeaderValue::from_str(authority.as_str()).map_err(|_| bad("Host is no host"))?
        }
    };
    if !authority_is_plain(host.as_bytes()) {
        return Err(bad("Host is no host"));
    }
    request.headers_mut().insert(header::HOST, host);
    Ok(())
}

/// What the library refused by itself and told the client, as far as it can be told from a connection that just broke.
fn library_refusal(error: &hyper::Error) -> Option<&'static str> {
    if error.is_parse() {
        return Some("refused by the HTTP library");
    }
    let mut source = std::error::Error::source(error);
    let is_http2 = source.is_some_and(|source| !source.is::<std::io::Error>() && !source.is::<crate::BodyError>());
    while let Some(error) = source {
        if error.is::<std::io::Error>() {
            return None;
        }
        source = error.source();
    }
    (is_http2 && !error.is_timeout() && !error.is_user()).then_some("an HTTP/2 connection error")
}

fn settle(response: &mut Response, method_is_head: bool, in_flight: InFlight) {
    mark_unsent(response, method_is_head);
    response.body_mut().keep_in_flight(in_flight);
}

/// Nobody will read the body of an answer whose head says everything.
fn mark_unsent(response: &mut Response, method_is_head: bool) {
    if method_is_head || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        response.body_mut().mark_unsent();
    }
}

fn guard_limits(limits: &Limits) -> GuardLimits {
    GuardLimits { header_bytes_max: limits.header_bytes_max, header_fields_max: limits.header_fields_max }
}

/// The service's own refusal stands. Any other answer to a broken body becomes 400, and keeps the name under which the
/// service recorded the request.
fn broken_body(response: Response) -> Response {
    if response.status().is_client_error() {
        return response;
    }
    let mut refusal = problem(400, "the framing of the request body is broken");
    if let Some(decision) = response.headers().get(DECISION) {
        refusal.headers_mut().insert(DECISION, decision.clone());
    }
    refusal
}

/// RFC 9457. `reason` is one of our fixed texts, so it needs no escaping.
fn problem(status: u16, reason: &'static str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let title = status.canonical_reason().unwrap_or("Refused");
    let body = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{},"detail":"the request was refused: {reason}"}}"#,
        status.as_u16()
    );
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Service for Nothing {
        async fn call(&self, _request: Request, _connection: &Arc<Connection>) -> Response {
            Response::new(Body::empty())
        }
        fn refused(&self, _refusal: Refusal, _connection: &Connection) {}
        fn panicked(&self, _connection: &Connection) {}
    }

    fn size_of_future<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_an_idle_connection_has_no_room_for_what_is_rare() {
        type Arguments = (Arc<Worker<Nothing>>, Arc<Live>, Connection, TcpStream);
        let bytes =
            size_of_future(|(worker, live, connection, stream): Arguments| serve(worker, live, connection, stream));
        assert!(bytes < 1024, "{bytes} bytes: box what runs once, or seldom");
    }
}
