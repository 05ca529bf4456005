//! The client against servers that behave, and against those that do not; all in this process, on loopback.
use super::*;
use crate::upstream::tests::{Reply, certificate, close, keep, serve_raw, serve_raw_tls};

const LIMIT: Duration = Duration::from_secs(5);

fn request(url: &str) -> Get<'_> {
    Get {
        url,
        etag: None,
        bytes_max: 64 * 1024,
        connect_timeout: LIMIT,
        total_timeout: LIMIT,
        roots_pem: None,
        public_addresses_only: false,
    }
}

/// Fetches from a server that gives this answer and closes.
async fn fetch_answer(answer: impl Into<Vec<u8>>) -> Result<Got, GetError> {
    let server = serve_raw(vec![Reply::Close(answer.into())]).await;
    get(request(&format!("http://{}/jwks", server.address))).await
}

#[tokio::test]
async fn an_answer_is_fetched() {
    let server = serve_raw(vec![keep("HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 2\r\n\r\n{}")]).await;
    let url = format!("http://{}/jwks?x=1", server.address);
    let got = get(Get { etag: Some("\"0\""), ..request(&url) }).await.unwrap();
    assert_eq!((got.status, &*got.body, got.headers["etag"].to_str().unwrap()), (200, &b"{}"[..], "\"1\""));
    let sent = server.requests().remove(0);
    assert!(sent.starts_with("GET /jwks?x=1 HTTP/1.1\r\n"), "{sent}");
    assert!(sent.contains(&format!("host: {}\r\n", server.address)), "{sent}");
    assert!(sent.contains("if-none-match: \"0\"\r\n"), "{sent}");
}

#[tokio::test]
async fn a_page_of_html_is_handed_over_as_it_is() {
    let got = fetch_answer("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>").await.unwrap();
    assert_eq!((got.status, &*got.body), (200, &b"<html>"[..]));
}

#[tokio::test]
async fn api_90_redirects_are_not_followed() {
    let got = fetch_answer("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(got.status, 302);
}

#[tokio::test]
async fn large_answers_are_cut() {
    let ten_megabytes = vec![b'x'; 10 * 1024 * 1024];
    let declared = [b"HTTP/1.1 200 OK\r\ncontent-length: 10485760\r\n\r\n", &ten_megabytes[..]].concat();
    let streamed = [b"HTTP/1.1 200 OK\r\n\r\n", &ten_megabytes[..]].concat();
    for answer in [declared, streamed] {
        assert_eq!(fetch_answer(answer).await.map(|got| got.status), Err(GetError::TooLarge(64 * 1024)));
    }
}

#[tokio::test]
async fn broken_answers_are_errors() {
    for answer in ["", "garbage\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", "HTTP/1.1 200 OK\r\nx"] {
        let found = fetch_answer(answer).await.map(|got| got.status);
        assert!(matches!(found, Err(GetError::Protocol(_))), "{answer:?}: {found:?}");
    }
}

#[tokio::test]
async fn a_slow_answer_ends_at_the_deadline() {
    let short = Duration::from_millis(50);
    for begun in ["", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1"] {
        let server = serve_raw(vec![keep(begun)]).await;
        let url = format!("http://{}/", server.address);
        let found = get(Get { total_timeout: short, ..request(&url) }).await.map(|got| got.status);
        assert_eq!(found, Err(GetError::Timeout(short)));
    }
}

#[tokio::test]
async fn a_refused_connection_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let found = get(request(&url)).await.map(|got| got.status);
    assert!(matches!(&found, Err(GetError::Connect(why)) if why.contains("127.0.0.1")), "{found:?}");
}

#[tokio::test]
async fn tls_is_verified() {
    let known = certificate(&["localhost"]);
    let answer = keep("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
    let server = serve_raw_tls(&known, b"http/1.1", vec![answer]).await;
    let url = format!("https://localhost:{}/", server.address.port());
    let got = get(Get { roots_pem: Some(known.pem.as_bytes()), ..request(&url) }).await.unwrap();
    assert_eq!(&*got.body, b"{}");
    let unknown = get(request(&url)).await.map(|got| got.status);
    assert!(matches!(unknown, Err(GetError::Tls(_))), "{unknown:?}");
    let other = format!("https://127.0.0.1:{}/", server.address.port());
    let wrong_name = get(Get { roots_pem: Some(known.pem.as_bytes()), ..request(&other) }).await.map(|got| got.status);
    assert!(matches!(wrong_name, Err(GetError::Tls(_))), "{wrong_name:?}");
}

#[tokio::test]
async fn api_90_private_addresses_are_refused() {
    let server = serve_raw(vec![close("HTTP/1.1 200 OK\r\n\r\n")]).await;
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{}/", server.address.port());
        let found = get(Get { public_addresses_only: true, ..request(&url) }).await.map(|got| got.status);
        assert!(matches!(found, Err(GetError::PrivateAddress(_))), "{host}: {found:?}");
    }
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn what_is_no_url_is_refused() {
    for url in ["", "x", "ftp://a/", "http://", "//a/", "/a", "http://ana:pw@a/", "file:///etc/passwd", "http://a b/"] {
        assert_eq!(get(request(url)).await.map(|got| got.status), Err(GetError::Url(url.into())));
    }
}

#[tokio::test]
async fn unusable_roots_are_told() {
    let found = get(Get { roots_pem: Some(b"no pem"), ..request("https://localhost/") }).await.map(|got| got.status);
    assert!(matches!(found, Err(GetError::Tls(_))), "{found:?}");
}
