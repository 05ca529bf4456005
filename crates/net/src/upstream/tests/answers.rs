//! Answers over HTTP/1.1: what is none, what is read how, and what goes on while the request is still on its way.
use super::*;
use crate::BodyError;
use tokio::net::TcpStream;

/// The answer's status and body, or why there is none.
async fn answered(bytes: &str) -> Result<(u16, Result<String, BodyError>), ForwardError> {
    let server = serve_raw(vec![close(bytes)]).await;
    let response = Pool::new().send(&target(&server), get("/")).await?;
    let status = response.status().as_u16();
    let body = tokio::time::timeout(LIMIT, response.into_body().read_all(1 << 20)).await.unwrap();
    Ok((status, body.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())))
}

#[tokio::test]
async fn a2_an_answer_that_could_be_read_in_two_ways_is_none() {
    for fields in [
        "content-length: 2\r\ntransfer-encoding: chunked",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: xchunked",
        "content-length: +2",
        "content-length: 2, 2",
        "content-length: 0x2",
        "content-length:",
        "content-length: 99999999999999999999",
        "content-length: 1\r\ncontent-length: 2",
        "content-length : 2",
        " x: folded",
        "x: y\r\n folded",
        "x: \u{1}",
        "no colon",
    ] {
        let found = answered(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n0\r\n\r\n")).await;
        assert!(matches!(found, Err(ForwardError::Protocol(_))), "{fields}: {found:?}");
    }
    for start in
        ["HTTP/1.0 200 OK\r\ntransfer-encoding: chunked", "HTTP/1.1 99 x", "HTTP/1.1 200x", "HTTP/2 200 OK", "\r\n"]
    {
        let found = answered(&format!("{start}\r\n\r\n0\r\n\r\n")).await;
        assert!(matches!(found, Err(ForwardError::Protocol(_))), "{start}: {found:?}");
    }
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100);
    assert!(matches!(answered(&interim).await, Err(ForwardError::Protocol(_))));
}

#[tokio::test]
async fn answers_of_all_kinds_are_read() {
    for (bytes, body) in [
        ("HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok", "ok"),
        // Some servers of old end their lines so; a head has but one reading then.
        ("HTTP/1.1 200 OK\ncontent-length: 2\n\nok", "ok"),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", "until the end"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n", "ok"),
        ("HTTP/1.1 200 OK\r\nx-latin: \u{e9}\r\ncontent-length: 0\r\n\r\n", ""),
    ] {
        assert_eq!(answered(bytes).await.unwrap(), (200, Ok(body.to_owned())), "{bytes}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_taken_for_whole() {
    for (bytes, error) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", BodyError::Gone),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", BodyError::Gone),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nha", BodyError::Gone),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nx: y\r\n", BodyError::Gone),
    ] {
        assert_eq!(answered(bytes).await.unwrap(), (200, Err(error)), "{bytes}");
    }
    for bytes in ["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n", "HTTP/1.1 200 OK\r\ncontent-len"] {
        assert!(matches!(answered(bytes).await, Err(ForwardError::Protocol(_))), "{bytes}");
    }
}

#[tokio::test]
async fn a_connection_with_more_than_its_answer_is_not_used_again() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n";
    let empty = "HTTP/1.1 204 No Content\r\n\r\nmore";
    for first in [chunked, empty] {
        let server = serve_raw(vec![keep(first), ok()]).await;
        let (pool, target) = (Pool::new(), target(&server));
        exchange(&pool, &target, get("/")).await.unwrap();
        assert_eq!(pool.idle_connections(), 0);
        assert_eq!(exchange(&pool, &target, get("/")).await.unwrap().1, "ok");
        assert_eq!(server.connections(), 2);
    }
}

#[tokio::test]
async fn a6_a_connection_that_switched_unasked_is_not_used_again() {
    let server =
        serve_raw(vec![keep("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"), ok()]);
    let server = server.await;
    let (pool, target) = (Pool::new(), target(&server));
    assert!(matches!(exchange(&pool, &target, get("/")).await, Err(ForwardError::Protocol(_))));
    assert_eq!(pool.idle_connections(), 0);
}

/// One connection, after the head of its request.
async fn accepted(listener: TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let (mut all, mut buffer) = (Vec::new(), [0; 1]);
    while !all.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 1);
        all.push(buffer[0]);
    }
    stream
}

async fn listening() -> (TcpListener, Arc<Target>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Arc::new(new_target(settings(&[listener.local_addr().unwrap()])).unwrap());
    (listener, target)
}

#[tokio::test]
async fn both_directions_stream_at_once() {
    let (listener, target) = listening().await;
    let echo = tokio::spawn(async move {
        let mut stream = accepted(listener).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        // What comes is chunked, and so is what goes.
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer).await.unwrap();
            stream.write_all(&buffer[..count]).await.unwrap();
            if buffer[..count].ends_with(b"0\r\n\r\n") {
                return;
            }
        }
    });
    let (mut sender, body) = Body::stream(1);
    let pool = Pool::new();
    let sent = pool.send(&target, request(Method::POST, "/", body));
    let mut answer = tokio::time::timeout(LIMIT, sent).await.unwrap().unwrap().into_body();
    for word in ["one", "two", "three"] {
        sender.send(word).await.unwrap();
        let echoed = tokio::time::timeout(LIMIT, answer.next_data()).await.unwrap().unwrap();
        assert_eq!(echoed.as_deref(), Some(word.as_bytes()));
    }
    drop(sender);
    assert_eq!(tokio::time::timeout(LIMIT, answer.next_data()).await.unwrap(), Ok(None));
    echo.await.unwrap();
    idle(&pool, 1).await;
}

#[tokio::test]
async fn a_request_goes_on_while_nobody_reads_its_answer() {
    let (listener, target) = listening().await;
    let (told, came) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut read, mut write) = accepted(listener).await.into_split();
        // More than all buffers between here and the reader hold.
        let answer = tokio::spawn(async move {
            write.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 33554432\r\n\r\n").await.unwrap();
            let _ = write.write_all(&vec![b'x'; 32 << 20]).await;
        });
        let (mut last, mut buffer) = (Vec::new(), vec![0; 65536]);
        while !last.ends_with(b"0\r\n\r\n") {
            let count = read.read(&mut buffer).await.unwrap();
            last = buffer[..count].to_vec();
        }
        told.send(()).unwrap();
        answer.await.unwrap();
    });
    let (mut sender, body) = Body::stream(1);
    let pool = Pool::new();
    let answer = tokio::time::timeout(LIMIT, pool.send(&target, request(Method::POST, "/", body))).await.unwrap();
    for _ in 0..8 * 16 {
        tokio::time::timeout(LIMIT, sender.send(vec![b'y'; 65536])).await.expect("it should be taken").unwrap();
    }
    drop(sender);
    tokio::time::timeout(LIMIT, came).await.unwrap().unwrap();
    let all = tokio::time::timeout(LIMIT, answer.unwrap().into_body().read_all(64 << 20)).await.unwrap();
    assert_eq!(all.unwrap().len(), 32 << 20);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_is_given_on_and_ends_the_upload() {
    let (listener, target) = listening().await;
    tokio::spawn(async move {
        let mut stream = accepted(listener).await;
        stream.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 5\r\n\r\nlarge").await.unwrap();
    });
    let (mut sender, body) = Body::stream(1);
    let pool = Pool::new();
    let found = tokio::time::timeout(LIMIT, exchange(&pool, &target, request(Method::POST, "/", body))).await.unwrap();
    assert_eq!(found.unwrap(), (StatusCode::PAYLOAD_TOO_LARGE, "large".into()));
    let given_up = async { while sender.send("more").await.is_ok() {} };
    tokio::time::timeout(LIMIT, given_up).await.expect("nobody reads the request any more");
    assert_eq!(pool.idle_connections(), 0);
}

#[tokio::test]
async fn a_request_that_fails_while_it_is_answered_fails_the_answer() {
    let (listener, target) = listening().await;
    let upstream = tokio::spawn(async move {
        let mut stream = accepted(listener).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
        while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {}
    });
    let (mut sender, body) = Body::stream(1);
    sender.send("begun").await.unwrap();
    let pool = Pool::new();
    let mut answer = pool.send(&target, request(Method::POST, "/", body)).await.unwrap().into_body();
    assert_eq!(answer.next_data().await.unwrap().as_deref(), Some(&b"half"[..]));
    sender.fail(BodyError::Malformed).await;
    let found = tokio::time::timeout(LIMIT, answer.next_data()).await.unwrap();
    assert_eq!(found, Err(BodyError::Gone));
    tokio::time::timeout(LIMIT, upstream).await.expect("the connection should be closed").unwrap();
}

#[tokio::test]
async fn m15_an_idle_connection_that_closed_costs_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Arc::new(new_target(settings(&[listener.local_addr().unwrap()])).unwrap());
    let pool = Pool::new();
    let mut last = None;
    for _ in 0..3 {
        // POST is never sent twice, so it must not be sent on what is closed.
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            assert!(stream.read(&mut buffer).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            stream.shutdown().await.unwrap();
            stream
        };
        let post = exchange(&pool, &target, request(Method::POST, "/", Body::full("x")));
        let (found, stream) = tokio::join!(post, serve);
        assert_eq!(found.unwrap(), (StatusCode::OK, "ok".into()));
        last = Some(stream);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    // The sweep closes our end, too.
    let mut stream = last.unwrap();
    let gone = async { while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {} };
    tokio::time::timeout(LIMIT, gone).await.expect("our end should be closed");
}
