//! Pools against small upstreams in this process: raw ones that answer what the test says, and hyper's for HTTP/2.
use super::*;
use crate::{Body, BodyError};
use http::{Method, StatusCode};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const LIMIT: Duration = Duration::from_secs(5);

/// A self-signed certificate that is its own root.
pub(crate) struct Certificate {
    pub(crate) pem: String,
    server: Arc<rustls::ServerConfig>,
}

pub(crate) fn certificate(names: &[&str]) -> Certificate {
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    Certificate { pem: made.cert.pem(), server: Arc::new(server) }
}

/// What a raw upstream does with one request.
pub(crate) enum Reply {
    /// These bytes; the connection stays open.
    Keep(Vec<u8>),
    /// These bytes, then close.
    Close(Vec<u8>),
    /// Nothing; the connection stays open.
    Silence,
}

pub(crate) fn keep(text: &str) -> Reply {
    Reply::Keep(text.into())
}
pub(crate) fn close(text: &str) -> Reply {
    Reply::Close(text.into())
}
fn ok() -> Reply {
    keep("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
}

/// An upstream that treats its requests, in the order of arrival on all its connections, as it was told; silence after.
pub(crate) struct RawServer {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<String>>,
    connections: Mutex<usize>,
    /// One permit for every connection that ended.
    ended: tokio::sync::Notify,
    replies: Mutex<VecDeque<Reply>>,
}

impl RawServer {
    /// What came in: heads, and such body bytes as came with them.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }
    fn connections(&self) -> usize {
        *self.seen.connections.lock().unwrap()
    }
    /// Waits until a connection has ended.
    async fn ended(&self) {
        tokio::time::timeout(LIMIT, self.seen.ended.notified()).await.expect("the connection should have ended");
    }
}

pub(crate) async fn serve_raw(replies: Vec<Reply>) -> RawServer {
    serve(None, replies).await
}

pub(crate) async fn serve_raw_tls(certificate: &Certificate, alpn: &[u8], replies: Vec<Reply>) -> RawServer {
    serve(Some(certificate.acceptor(alpn)), replies).await
}

impl Certificate {
    fn acceptor(&self, alpn: &[u8]) -> TlsAcceptor {
        let mut config = rustls::ServerConfig::clone(&self.server);
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

async fn serve(tls: Option<TlsAcceptor>, replies: Vec<Reply>) -> RawServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen { replies: Mutex::new(replies.into()), ..Seen::default() });
    let server = RawServer { address, seen: Arc::clone(&seen) };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            *seen.connections.lock().unwrap() += 1;
            let (seen, tls) = (Arc::clone(&seen), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => converse(stream, &seen).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            converse(stream, &seen).await;
                        }
                    }
                }
                seen.ended.notify_one();
            });
        }
    });
    server
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Seen) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        // Bytes of a body that come on their own are no request.
        if !text.contains(" HTTP/1.") {
            continue;
        }
        seen.requests.lock().unwrap().push(text);
        let reply = seen.replies.lock().unwrap().pop_front().unwrap_or(Reply::Silence);
        match reply {
            Reply::Keep(bytes) => stream.write_all(&bytes).await.unwrap_or_default(),
            Reply::Close(bytes) => {
                // The reader may be gone already; that is its right.
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Silence => {}
        }
    }
}

pub(crate) fn settings(addresses: &[SocketAddr]) -> TargetSettings {
    TargetSettings {
        addresses: Addresses::Listed(addresses.iter().map(|a| (a.ip().to_string(), a.port())).collect()),
        http2: false,
        tls: None,
        connect_timeout: LIMIT,
        first_byte_timeout: LIMIT,
        request_timeout: 2 * LIMIT,
        idle_timeout: Duration::from_secs(60),
        max_age: Duration::from_secs(600),
        outliers: Outliers::default(),
        health: None,
        retries: None,
        own_preface: None,
    }
}

/// A target without tasks: of listed addresses that nobody checks.
pub(crate) fn new_target(settings: TargetSettings) -> Result<Target, String> {
    Fleets::new().target(settings)
}

fn target(server: &RawServer) -> Arc<Target> {
    Arc::new(new_target(settings(&[server.address])).unwrap())
}

fn request(method: Method, path: &str, body: Body) -> Request {
    Box::new(http::Request::builder().method(method).uri(path).header("host", "shop.example").body(body).unwrap())
}

fn get(path: &str) -> Request {
    request(Method::GET, path, Body::empty())
}

/// Status and whole body.
async fn exchange(pool: &Pool, target: &Arc<Target>, request: Request) -> Result<(StatusCode, String), ForwardError> {
    let response = pool.send(target, request).await?;
    let status = response.status();
    let body = response.into_body().read_all(1 << 20).await.unwrap();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

async fn idle(pool: &Pool, count: usize) {
    let wait = async {
        while pool.idle_connections() != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("so many connections should be idle");
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = serve_raw(vec![ok(), ok(), ok()]).await;
    let (pool, target) = (Pool::new(), target(&server));
    for path in ["/a?x=1", "/b", "/c"] {
        assert_eq!(exchange(&pool, &target, get(path)).await.unwrap(), (StatusCode::OK, "ok".into()));
        idle(&pool, 1).await;
    }
    assert_eq!(server.connections(), 1);
    assert!(
        server.requests()[0].starts_with("GET /a?x=1 HTTP/1.1\r\nhost: shop.example\r\n"),
        "{:?}",
        server.requests()
    );
}

#[tokio::test]
async fn equal_targets_share_connections_and_others_do_not() {
    let server = serve_raw(vec![ok(), ok(), ok()]).await;
    let pool = Pool::new();
    let other = TargetSettings { idle_timeout: LIMIT, ..settings(&[server.address]) };
    for target in [target(&server), target(&server), Arc::new(new_target(other).unwrap())] {
        exchange(&pool, &target, get("/")).await.unwrap();
        while pool.idle_connections() == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_connection_with_an_unread_answer_is_not_used_again() {
    let half = keep("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf");
    let server = serve_raw(vec![half, ok()]).await;
    let (pool, target) = (Pool::new(), target(&server));
    let half_read = pool.send(&target, get("/half")).await.unwrap();
    exchange(&pool, &target, get("/other")).await.unwrap();
    assert_eq!(server.connections(), 2);
    // A client that leaves cancels the exchange upstream.
    drop(half_read);
    server.ended().await;
}

#[tokio::test]
async fn a_request_given_up_is_cancelled_upstream() {
    let server = serve_raw(vec![Reply::Silence]).await;
    let (pool, target) = (Pool::new(), target(&server));
    let task = tokio::spawn(async move { pool.send(&target, get("/")).await.map(|_| ()) });
    while server.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    task.abort();
    server.ended().await;
}

#[tokio::test]
async fn a_connection_the_upstream_closes_is_not_used_again() {
    for answer in ["HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\n\r\nok"] {
        let server = serve_raw(vec![close(answer), ok()]).await;
        let (pool, target) = (Pool::new(), target(&server));
        for _ in 0..2 {
            assert_eq!(exchange(&pool, &target, get("/")).await.unwrap().1, "ok");
        }
        assert_eq!(server.connections(), 2);
    }
}

/// The first exchange leaves a connection behind that dies with the second request on it.
async fn after_a_dead_connection(second: Request, last_words: &str) -> (Result<StatusCode, ForwardError>, RawServer) {
    let server = serve_raw(vec![ok(), close(last_words), ok()]).await;
    let (pool, target) = (Pool::new(), target(&server));
    exchange(&pool, &target, get("/first")).await.unwrap();
    idle(&pool, 1).await;
    let found = exchange(&pool, &target, second).await.map(|found| found.0);
    (found, server)
}

#[tokio::test]
async fn m15_a_get_on_a_dead_connection_is_sent_again() {
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let mut second = request(method.clone(), "/x?y", Body::empty());
        for (name, value) in [("x-twice", "1"), ("x-empty", ""), ("x-twice", "2"), ("x-text", "ü: \t,")] {
            second.headers_mut().append(name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let (found, server) = after_a_dead_connection(second, "").await;
        // A HEAD's answer has no body; the prepared one is more than was asked for, yet the status stands.
        assert_eq!(found.unwrap(), StatusCode::OK, "{method}");
        assert_eq!((server.requests().len(), server.connections()), (3, 2));
        assert_eq!(server.requests()[1], server.requests()[2]);
        assert!(server.requests()[2].contains("x-twice: 1\r\nx-twice: 2\r\n"));
    }
}

#[tokio::test]
async fn m15_what_may_do_harm_twice_is_not_sent_again() {
    let post = || request(Method::POST, "/x", Body::empty());
    let put = || request(Method::PUT, "/x", Body::full("value"));
    let patch = || request(Method::PATCH, "/x", Body::empty());
    for second in [post(), put(), patch()] {
        let (found, server) = after_a_dead_connection(second, "").await;
        assert!(matches!(found, Err(ForwardError::Protocol(_))), "{found:?}");
        assert_eq!(server.requests().len(), 2);
    }
}

#[tokio::test]
async fn m15_after_the_first_byte_of_an_answer_nothing_is_sent_again() {
    let (found, server) = after_a_dead_connection(get("/x"), "HTTP/1.1 2").await;
    assert!(matches!(found, Err(ForwardError::Protocol(_))), "{found:?}");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn m15_a_new_connection_that_dies_is_not_tried_again() {
    let server = serve_raw(vec![close(""), ok()]).await;
    let found = exchange(&Pool::new(), &target(&server), get("/")).await;
    assert!(matches!(found, Err(ForwardError::Protocol(_))), "{found:?}");
    assert_eq!(server.requests().len(), 1);
}

/// An address nobody listens on.
fn dead_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_refused_connection_is_told() {
    let address = dead_address();
    let target = Arc::new(new_target(settings(&[address])).unwrap());
    let found = exchange(&Pool::new(), &target, get("/")).await;
    assert!(
        matches!(&found, Err(ForwardError::Connect { address: told, .. }) if *told == address.to_string()),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_dead_address_of_two_costs_no_request() {
    let replies = (0..20).map(|_| ok()).collect();
    let server = serve_raw(replies).await;
    let target = Arc::new(new_target(settings(&[dead_address(), server.address])).unwrap());
    let pool = Pool::new();
    for _ in 0..20 {
        let post = request(Method::POST, "/x", Body::full("value"));
        assert_eq!(exchange(&pool, &target, post).await.unwrap().0, StatusCode::OK);
    }
}

#[tokio::test]
async fn requests_spread_over_addresses() {
    let slow = || (0..4).map(|_| keep("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")).collect();
    let (one, two) = (serve_raw(slow()).await, serve_raw(slow()).await);
    let target = Arc::new(new_target(settings(&[one.address, two.address])).unwrap());
    let pool = Pool::new();
    let mut streaming = Vec::new();
    for _ in 0..4 {
        streaming.push(pool.send(&target, get("/")).await.unwrap());
    }
    assert!(one.connections() > 0 && two.connections() > 0, "the second goes where none is in flight");
    assert_eq!(one.connections() + two.connections(), 4);
}

#[tokio::test]
async fn an_upstream_that_says_nothing_is_given_up() {
    let server = serve_raw(vec![Reply::Silence, Reply::Silence]).await;
    let short = Duration::from_millis(50);
    let target = new_target(TargetSettings { first_byte_timeout: short, ..settings(&[server.address]) }).unwrap();
    let (pool, target) = (Pool::new(), Arc::new(target));
    for body in [Body::empty(), Body::full("value")] {
        let found = exchange(&pool, &target, request(Method::POST, "/", body)).await;
        assert!(matches!(found, Err(ForwardError::FirstByteTimeout(limit)) if limit == short), "{found:?}");
        server.ended().await;
    }
    assert_eq!(pool.idle_connections(), 0);
}

#[tokio::test]
async fn a_slow_client_is_not_the_upstreams_fault() {
    let server = serve_raw(vec![Reply::Silence]).await;
    let short = Duration::from_millis(20);
    let target = new_target(TargetSettings { first_byte_timeout: short, ..settings(&[server.address]) }).unwrap();
    let (sender, body) = Body::stream(1);
    let pool = Pool::new();
    let target = Arc::new(target);
    let sending = pool.send(&target, request(Method::POST, "/", body));
    let mut sending = std::pin::pin!(sending);
    // Many times the limit: nothing comes of it while the client is awaited.
    assert!(tokio::time::timeout(short * 10, sending.as_mut()).await.is_err());
    sender.fail(BodyError::Stalled).await;
    let found = sending.await.map(|_| ());
    assert!(matches!(found, Err(ForwardError::RequestBody(BodyError::Stalled))), "{found:?}");
}

#[tokio::test]
async fn a_request_has_a_limit_for_all_of_it() {
    let server = serve_raw(vec![Reply::Silence, Reply::Silence]).await;
    let short = Duration::from_millis(50);
    let target = new_target(TargetSettings { request_timeout: short, ..settings(&[server.address]) }).unwrap();
    let (pool, target) = (Pool::new(), Arc::new(target));
    let (_sender, never) = Body::stream(1);
    for body in [Body::empty(), never] {
        let found = exchange(&pool, &target, request(Method::POST, "/", body)).await;
        assert!(matches!(found, Err(ForwardError::RequestTimeout(limit)) if limit == short), "{found:?}");
        server.ended().await;
    }
    // A listener whose queue is never emptied does not finish its handshakes for ever.
    let full = tokio::net::TcpSocket::new_v4().unwrap();
    full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = full.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(short, tokio::net::TcpStream::connect(address)).await {
        held.push(stream);
    }
    let target = new_target(TargetSettings { request_timeout: short, ..settings(&[address]) }).unwrap();
    let found = exchange(&pool, &Arc::new(target), get("/")).await;
    assert!(matches!(found, Err(ForwardError::RequestTimeout(limit)) if limit == short), "{found:?}");
}

#[tokio::test]
async fn garbage_is_no_answer() {
    let field = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(1000));
    for answer in [
        "garbage\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx y\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        &field,
        &fields,
    ] {
        let server = serve_raw(vec![keep(answer)]).await;
        let found = exchange(&Pool::new(), &target(&server), get("/")).await;
        assert!(matches!(found, Err(ForwardError::Protocol(_))), "{answer:.40}: {found:?}");
    }
}

#[tokio::test]
async fn bytes_nobody_asked_for_are_not_taken_for_the_next_answer() {
    let two = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let server = serve_raw(vec![keep(two), ok()]).await;
    let (pool, target) = (Pool::new(), target(&server));
    for _ in 0..2 {
        assert_eq!(exchange(&pool, &target, get("/")).await.unwrap().1, "ok");
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn heads_without_a_body_are_understood() {
    for (method, answer, status) in [
        (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", 200),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n", 204),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n", 304),
        (
            Method::GET,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            200,
        ),
    ] {
        let server = serve_raw(vec![keep(answer), ok()]).await;
        let (pool, target) = (Pool::new(), target(&server));
        let found = exchange(&pool, &target, request(method, "/", Body::empty())).await.unwrap();
        assert_eq!(found, (StatusCode::from_u16(status).unwrap(), String::new()));
        idle(&pool, 1).await;
        exchange(&pool, &target, get("/")).await.unwrap();
        assert_eq!(server.connections(), 1);
    }
}

#[tokio::test]
async fn what_belongs_to_our_side_stays_here() {
    let server = serve_raw(vec![ok()]).await;
    let mut sent = request(Method::POST, "/", Body::full("value"));
    sent.headers_mut().insert("expect", "100-continue".parse().unwrap());
    sent.headers_mut().insert("te", "trailers".parse().unwrap());
    *sent.version_mut() = http::Version::HTTP_2;
    exchange(&Pool::new(), &target(&server), sent).await.unwrap();
    let seen = server.requests().remove(0);
    assert!(seen.starts_with("POST / HTTP/1.1\r\n") && !seen.contains("expect"), "{seen}");
    assert!(seen.contains("connection: te\r\n") && seen.contains("content-length: 5\r\n"), "{seen}");
}

#[tokio::test]
async fn trailers_pass() {
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let server = serve_raw(vec![keep(chunked)]).await;
    let response = Pool::new().send(&target(&server), get("/")).await.unwrap();
    assert_eq!(trailers(response.into_body()).await["x-sum"], "7");
}

async fn trailers(mut body: Body) -> http::HeaderMap {
    loop {
        let frame = std::future::poll_fn(|cx| http_body::Body::poll_frame(std::pin::Pin::new(&mut body), cx)).await;
        if let Ok(trailers) = frame.expect("trailers should come").unwrap().into_trailers() {
            return trailers;
        }
    }
}

#[tokio::test]
async fn an_unused_connection_is_closed() {
    let server = serve_raw(vec![ok()]).await;
    let short = TargetSettings { idle_timeout: Duration::from_millis(10), ..settings(&[server.address]) };
    let pool = Pool::new();
    exchange(&pool, &Arc::new(new_target(short).unwrap()), get("/")).await.unwrap();
    server.ended().await;
    idle(&pool, 0).await;
}

fn tls_settings(address: SocketAddr, name: &str, certificate: &Certificate, http2: bool) -> TargetSettings {
    let roots: Arc<[u8]> = certificate.pem.as_bytes().into();
    TargetSettings { tls: Some(UpstreamTls::named(name, Some(roots))), http2, ..settings(&[address]) }
}

#[tokio::test]
async fn an_https_upstream_is_verified() {
    let good = certificate(&["orders.example"]);
    let server = serve_raw_tls(&good, b"http/1.1", vec![ok()]).await;
    let pool = Pool::new();
    let target = |settings| Arc::new(new_target(settings).unwrap());
    let trusted = target(tls_settings(server.address, "orders.example", &good, false));
    assert_eq!(exchange(&pool, &trusted, get("/")).await.unwrap().1, "ok");
    let wrong_name = target(tls_settings(server.address, "other.example", &good, false));
    let wrong_root = target(tls_settings(server.address, "orders.example", &certificate(&["orders.example"]), false));
    for wrong in [wrong_name, wrong_root] {
        let found = exchange(&pool, &wrong, get("/")).await;
        assert!(matches!(found, Err(ForwardError::Identity(_))), "{found:?}");
    }
    // No protocol in common is no matter of identity.
    let no_h2 = target(tls_settings(server.address, "orders.example", &good, true));
    let found = exchange(&pool, &no_h2, get("/")).await;
    assert!(matches!(found, Err(ForwardError::Connect { .. })), "{found:?}");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let check = |settings: TargetSettings, word: &str| {
        let found = new_target(settings).err().unwrap_or_default();
        assert!(found.contains(word), "{found}");
    };
    let address = "127.0.0.1:1".parse().unwrap();
    check(settings(&[]), "1 to 64 addresses");
    check(settings(&[address; 65]), "1 to 64 addresses");
    check(TargetSettings { tls: Some(UpstreamTls::named("a b", None)), ..settings(&[address]) }, "`a b`");
    let roots =
        |pem: &[u8]| TargetSettings { tls: Some(UpstreamTls::named("a", Some(pem.into()))), ..settings(&[address]) };
    check(roots(b""), "no certificate");
    check(roots(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "no usable certificate");
}

mod answers;
mod fleet;
mod framing;
mod http2;
mod identity;
