//! How a request's body is framed on its way to an HTTP/1.1 upstream.
use super::*;

/// What one upstream gets of one request: everything up to `end`; the answer is `ok`.
async fn sent(request: Request, end: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let end = end.to_owned();
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut all, mut buffer) = (String::new(), [0; 4096]);
        while !all.ends_with(&end) {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "closed after {all:?}");
            all.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        all
    });
    let target = Arc::new(new_target(settings(&[address])).unwrap());
    let pool = Pool::new();
    let exchange = exchange(&pool, &target, request);
    assert_eq!(tokio::time::timeout(LIMIT, exchange).await.unwrap().unwrap().0, StatusCode::OK);
    upstream.await.unwrap()
}

#[tokio::test]
async fn a2_a_body_of_unknown_length_is_sent_whatever_the_method() {
    for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
        let (mut sender, body) = Body::stream(2);
        sender.send("hello").await.unwrap();
        drop(sender);
        let all = sent(request(method.clone(), "/", body), "0\r\n\r\n").await;
        let (head, body) = all.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.matches("transfer-encoding: chunked").count(), 1, "{method}: {head}");
        assert!(!head.contains("content-length"), "{method}: {head}");
        assert_eq!(body, "5\r\nhello\r\n0\r\n\r\n", "{method}");
    }
}

#[tokio::test]
async fn a_body_of_known_length_or_none_is_not_chunked() {
    let with_length = sent(request(Method::GET, "/", Body::full("hello")), "hello").await;
    assert!(with_length.contains("content-length: 5\r\n"), "{with_length}");
    for all in [with_length, sent(get("/"), "\r\n\r\n").await] {
        assert!(!all.contains("transfer-encoding"), "{all}");
    }
}
