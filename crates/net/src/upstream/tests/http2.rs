//! HTTP/2 upstreams: with prior knowledge and over TLS, multiplexing, GOAWAY, trailers.
use super::*;
use hyper::body::Incoming;
use hyper::server::conn::http2 as server;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Counts connections; answers with method, authority, path, `te` and the request's body; `/go` says GOAWAY after it.
struct Http2Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    resets: Arc<tokio::sync::Notify>,
}

#[derive(Clone, Copy)]
struct Executor;

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

/// Notifies when the answer that was being made is given up.
struct Given(Arc<tokio::sync::Notify>);

impl Drop for Given {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn answer(
    request: http::Request<Incoming>,
    resets: Arc<tokio::sync::Notify>,
    leave: Arc<tokio::sync::Notify>,
) -> Result<http::Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let authority = head.uri.authority().map_or("", |authority| authority.as_str()).to_owned();
    match head.uri.path() {
        "/silence" => {
            let _given = Given(resets);
            std::future::pending::<()>().await;
        }
        "/go" => leave.notify_one(),
        _ => {}
    }
    let trailers = head.headers.contains_key("te");
    let body = Body::incoming(body).read_all(1 << 20).await.unwrap_or_default();
    let text = format!("{} {authority} {} {}", head.method, head.uri.path(), String::from_utf8_lossy(&body));
    let (mut sender, answer) = Body::stream(2);
    tokio::spawn(async move {
        sender.send(text).await.unwrap();
        if trailers {
            sender
                .end_with_trailers([("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect())
                .await
                .unwrap();
        }
    });
    Ok(http::Response::new(answer))
}

async fn converse(stream: crate::upstream::stream::Channel, resets: Arc<tokio::sync::Notify>) {
    let leave = Arc::new(tokio::sync::Notify::new());
    let leaving = Arc::clone(&leave);
    let service = hyper::service::service_fn(move |request| answer(request, Arc::clone(&resets), Arc::clone(&leaving)));
    let mut connection = std::pin::pin!(server::Builder::new(Executor).serve_connection(stream, service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = leave.notified() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn serve_http2() -> Http2Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let resets = Arc::new(tokio::sync::Notify::new());
    let found = Http2Server { address, connections: Arc::clone(&connections), resets: Arc::clone(&resets) };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.fetch_add(1, SeqCst);
            let stream = crate::upstream::stream::Channel::new(crate::upstream::stream::Stream::Plain(stream));
            tokio::spawn(converse(stream, Arc::clone(&resets)));
        }
    });
    found
}

fn http2_target(server: &Http2Server) -> Arc<Target> {
    Arc::new(new_target(TargetSettings { http2: true, ..settings(&[server.address]) }).unwrap())
}

#[tokio::test]
async fn requests_share_one_connection() {
    let server = serve_http2().await;
    let (pool, target) = (Pool::new(), http2_target(&server));
    let mut sent = Vec::new();
    for _ in 0..20 {
        sent.push(exchange(&pool, &target, request(Method::POST, "/x?y", Body::full("value"))));
    }
    let tasks = sent.into_iter().map(|future| async { future.await.unwrap().1 });
    for text in join(tasks).await {
        assert_eq!(text, "POST shop.example /x value");
    }
    assert_eq!(server.connections.load(SeqCst), 1);
}

/// Polls all of them together.
async fn join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(Box::pin).collect();
    let mut found = Vec::new();
    std::future::poll_fn(|cx| {
        pending.retain_mut(|future| match future.as_mut().poll(cx) {
            std::task::Poll::Ready(output) => {
                found.push(output);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    found
}

#[tokio::test]
async fn after_goaway_a_new_connection_is_opened() {
    let server = serve_http2().await;
    let (pool, target) = (Pool::new(), http2_target(&server));
    for path in ["/a", "/go", "/b", "/c"] {
        let post = request(Method::POST, path, Body::full("v"));
        assert_eq!(exchange(&pool, &target, post).await.unwrap().1, format!("POST shop.example {path} v"));
    }
    assert_eq!(server.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn a_stream_given_up_is_reset_and_its_connection_kept() {
    let server = serve_http2().await;
    let short =
        TargetSettings { http2: true, first_byte_timeout: Duration::from_millis(50), ..settings(&[server.address]) };
    let (pool, target) = (Pool::new(), Arc::new(new_target(short).unwrap()));
    let found = exchange(&pool, &target, get("/silence")).await;
    assert!(matches!(found, Err(ForwardError::FirstByteTimeout(_))), "{found:?}");
    tokio::time::timeout(LIMIT, server.resets.notified()).await.expect("the stream should have been reset");
    exchange(&pool, &target, get("/")).await.unwrap();
    assert_eq!(server.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn a_failed_body_is_the_clients_fault() {
    let server = serve_http2().await;
    let (sender, body) = Body::stream(1);
    sender.fail(BodyError::Malformed).await;
    let found = exchange(&Pool::new(), &http2_target(&server), request(Method::POST, "/", body)).await;
    assert!(matches!(found, Err(ForwardError::RequestBody(BodyError::Malformed))), "{found:?}");
}

#[tokio::test]
async fn trailers_pass_over_http2() {
    let server = serve_http2().await;
    let mut sent = get("/");
    sent.headers_mut().insert("te", "trailers".parse().unwrap());
    let response = Pool::new().send(&http2_target(&server), sent).await.unwrap();
    assert_eq!(trailers(response.into_body()).await["grpc-status"], "0");
}

#[tokio::test]
async fn a_request_without_host_is_not_sent() {
    let server = serve_http2().await;
    let found = exchange(&Pool::new(), &http2_target(&server), Box::new(http::Request::new(Body::empty()))).await;
    assert!(matches!(found, Err(ForwardError::Protocol(_))), "{found:?}");
    assert_eq!(server.connections.load(SeqCst), 0);
}

#[tokio::test]
async fn http2_over_tls_is_agreed_by_alpn() {
    let certificate = certificate(&["orders.example"]);
    let acceptor = certificate.acceptor(b"h2");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        (stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec), preface.to_vec())
    });
    let target = new_target(tls_settings(address, "orders.example", &certificate, true)).unwrap();
    let found = exchange(&Pool::new(), &Arc::new(target), get("/")).await;
    assert!(found.is_err(), "the upstream left after the preface");
    let (alpn, preface) = served.await.unwrap();
    assert_eq!((alpn, &*preface), (Some(b"h2".to_vec()), &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]));
}
