//! Requests that must not reach the service: the answer, the connection's fate, and what is counted.
use crate::raw::{Raw, start, start_with};
use net::{BodyError, Refusal};
use std::sync::atomic::Ordering::SeqCst;

/// The request is answered with `status`, the connection is closed, the service never called, the refusal counted.
#[track_caller]
fn refused(request: impl AsRef<[u8]>, status: u16) {
    let request = request.as_ref();
    let server = start();
    let answer = server.talk(request);
    let shown = request[..request.len().min(200)].escape_ascii();
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown} gave {answer}");
    let answer = answer.to_ascii_lowercase();
    assert_eq!(answer.matches("http/1.1 ").count(), 1, "{shown} gave {answer}");
    assert!(answer.contains("connection: close\r\n"), "{shown} gave {answer}");
    assert!(answer.contains("application/problem+json"), "{shown} gave {answer}");
    assert_eq!(server.requests(), [""; 0], "{shown}");
    assert_eq!(server.seen.refusals.lock().unwrap().len(), 1, "{shown}");
}

fn with_fields(fields: &str) -> String {
    format!("POST /read HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn a2_cl_te_is_400_and_closed() {
    refused(with_fields("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\nG", 400);
}

#[test]
fn a2_te_cl_is_400_and_closed() {
    refused(with_fields("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n") + "5c\r\nGPOST / HTTP/1.1\r\n", 400);
}

#[test]
fn a2_te_other_than_chunked_is_400_and_closed() {
    refused(with_fields("Transfer-Encoding: chunked, identity\r\n"), 400);
    refused(with_fields("Transfer-Encoding: xchunked\r\n"), 400);
    refused(with_fields("Transfer-Encoding:\tchunked\r\n"), 400);
    refused(with_fields("Transfer-Encoding:\r\n chunked\r\n"), 400);
    refused("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    refused(with_fields("Transfer-Encoding: gzip, chunked\r\n"), 501);
}

#[test]
fn a2_content_length_forms_are_400_and_closed() {
    for value in ["5, 5", "+5", "0x5", "5\r\nContent-Length: 6", "18446744073709551616"] {
        refused(with_fields(&format!("Content-Length: {value}\r\n")) + "hello", 400);
    }
}

#[test]
fn a2_line_forms_are_400_and_closed() {
    refused("GET / HTTP/1.1\nHost: a\n\n", 400);
    refused(with_fields("A: b\r\n folded\r\n"), 400);
    refused(with_fields("A : b\r\n"), 400);
    refused(with_fields("A\0: b\r\n"), 400);
    refused(with_fields("A: b\rc\r\n"), 400);
}

#[test]
fn a2_http_09_is_400_and_closed() {
    refused("GET /\r\n", 400);
}

#[test]
fn a2_host_and_target_forms_are_400_and_closed() {
    refused("GET / HTTP/1.1\r\n\r\n", 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400);
    refused("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501);
    refused("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505);
}

#[test]
fn a2_heads_past_their_limits_are_4xx_and_closed() {
    refused(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(40_000)), 414);
    refused(with_fields(&format!("A: {}\r\n", "x".repeat(40_000))), 431);
    refused(with_fields(&"A: b\r\n".repeat(101)), 431);
}

#[test]
fn a2_options_asterisk_reaches_the_service() {
    let server = start();
    let answer = server.talk("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(server.requests(), ["OPTIONS *"]);
}

/// Whatever the service makes of a broken body, the client is told 4xx, where it was recorded, and the connection is closed.
#[track_caller]
fn broken_body(path: &str, chunks: impl AsRef<[u8]>) {
    let answer = answer_to_broken_body(path, chunks);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[track_caller]
fn answer_to_broken_body(path: &str, chunks: impl AsRef<[u8]>) -> String {
    let server = start();
    let mut raw = server.connect();
    raw.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
    raw.send(chunks);
    let answer = raw.read_to_end();
    assert!(answer.to_ascii_lowercase().contains("connection: close\r\n"), "{answer}");
    assert_eq!(server.requests(), [format!("POST {path}")]);
    server.seen.wait_for("the refusal", |seen| matches!(seen.refusals.lock().unwrap()[..], [Refusal::Malformed(_)]));
    assert!(answer.contains("\r\ncountersign-decision: d-1\r\n"), "the answer must name its record: {answer}");
    answer
}

#[test]
fn a2_broken_chunks_are_400_and_closed() {
    broken_body("/read", "zz\r\nhello\r\n0\r\n\r\n");
    broken_body("/read", "ffffffffffffffff1\r\n");
    broken_body("/read", "5\r\nhelloworld\r\n0\r\n\r\n");
    broken_body("/read", "5\nhello\r\n0\r\n\r\n");
    broken_body("/read", "5\r\nhello\r\n0\r\nA : b\r\n\r\n");
}

#[test]
fn a2_broken_chunks_leave_the_services_own_refusal_standing() {
    let answer = answer_to_broken_body("/judge", "zz\r\nhello\r\n0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 422 ") && answer.ends_with("\r\n\r\njudged"), "{answer}");
}

#[test]
fn a2_chunk_extension_of_1_mib_is_400_and_closed() {
    broken_body("/read", format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(1 << 20)));
}

#[test]
fn a_body_that_breaks_under_an_answer_ends_the_connection() {
    let server = start();
    let mut raw = server.connect();
    raw.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    raw.read_until("hello\r\n");
    raw.send("zz\r\n");
    let rest = raw.read_to_end();
    assert!(!rest.contains("0\r\n\r\n"), "a truncated answer must not look complete: {rest}");
}

#[test]
fn a2_a_bad_request_in_a_pipeline_is_answered_in_its_turn() {
    let server = start();
    let answer = server.talk(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
         GET /3 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "200", "400"]);
    assert!(answer.find("hello").unwrap() < answer.find("abc").unwrap());
    assert_eq!(server.requests(), ["GET /1", "POST /read"]);
}

#[test]
fn a2_a_bad_request_waits_for_a_slow_answer_before_it() {
    let server = start();
    let mut raw = server.connect();
    raw.get("/wait");
    server.seen.wait_for("the request", |seen| seen.requests.lock().unwrap().len() == 1);
    raw.send("GET / HTTP/1.1\r\n\r\n");
    server.seen.go.notify_one();
    assert_eq!(raw.answer().1, "waited");
    assert!(raw.read_to_end().starts_with("HTTP/1.1 400 "));
}

#[test]
fn what_a_client_sent_before_it_shut_down_its_side_is_answered() {
    let server = start();
    let mut raw = server.connect();
    raw.get("/wait");
    server.seen.wait_for("the request", |seen| seen.requests.lock().unwrap().len() == 1);
    raw.get("/");
    raw.get("/next");
    raw.shut_down_sending();
    server.seen.go.notify_one();
    assert_eq!(raw.answer().1, "waited");
    let rest = raw.read_to_end();
    assert_eq!(rest.matches("HTTP/1.1 200 ").count(), 2, "{rest}");
    assert_eq!(server.requests(), ["GET /wait", "GET /", "GET /next"]);
}

/// The request is answered while its body, not all of it here, is held elsewhere.
fn with_a_kept_body(body: &str) -> (Result<Option<bytes::Bytes>, BodyError>, String) {
    let server = start();
    let mut raw = server.connect();
    let head = "POST /keep HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    raw.send(format!("{head}{body}"));
    assert_eq!(raw.answer().1, "kept");
    raw.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nsecret");
    // Closed, although somebody holds the body still.
    let rest = raw.read_to_end();
    let mut kept = server.seen.kept.lock().unwrap().remove(0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    (runtime.block_on(kept.next_data()), rest)
}

#[test]
fn a2_a_body_that_is_held_is_never_continued_by_the_next_request() {
    for body in ["", "4\r\nAAAA\r\n", "4\r\nAAAA\r\n0\r\n\r\n"] {
        let (found, rest) = with_a_kept_body(body);
        assert_eq!((found, rest.as_str()), (Err(BodyError::Gone), ""), "{body:?}");
    }
}

#[test]
fn a_client_that_leaves_is_noticed_also_when_its_body_was_read_elsewhere() {
    let server = start();
    let mut raw = server.connect();
    raw.send("POST /elsewhere HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf");
    server.seen.wait_for("the request", |seen| seen.requests.lock().unwrap().len() == 1);
    raw.send("half");
    drop(raw);
    server.seen.wait_for("the abort", |seen| seen.given_up.load(SeqCst) == 1);
}

#[test]
fn a_refused_head_request_has_no_body() {
    let server = start();
    let answer = server.talk("HEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn a_request_in_single_bytes_is_answered() {
    let server = start();
    let mut raw = server.connect();
    for byte in b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" {
        raw.send([*byte]);
    }
    assert_eq!(raw.answer().1, "hello");
    raw.get("/");
    assert_eq!(raw.answer().1, "hello");
}

#[test]
fn a_head_of_the_full_size_is_answered() {
    let server = start_with(|settings| settings.limits.header_fields_max = 300);
    let mut raw = server.connect();
    for _ in 0..3 {
        let fields: String = (0..200).map(|n| format!("X-{n}: {}\r\n", "v".repeat(120))).collect();
        raw.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(raw.answer().1, "hello");
    }
}

#[test]
fn http_10_is_answered_and_closed() {
    let server = start();
    let answer = server.talk("GET / HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200 ") || answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("hello"));
}

#[test]
fn a_client_that_shuts_down_its_side_gets_its_answer() {
    let server = start();
    let mut raw = server.connect();
    raw.get("/wait");
    raw.shut_down_sending();
    server.seen.wait_for("the request", |seen| seen.requests.lock().unwrap().len() == 1);
    server.seen.go.notify_one();
    assert!(raw.read_to_end().ends_with("waited"));
    let mut raw: Raw = server.connect();
    raw.get("/big");
    raw.shut_down_sending();
    assert!(raw.read_to_end().len() > 64 << 20);
}

#[test]
fn an_early_answer_to_a_large_upload_arrives() {
    let server = start();
    let mut raw = server.connect();
    raw.send("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n");
    raw.send(vec![b'x'; 4_000_000]);
    assert!(raw.read_to_end().starts_with("HTTP/1.1 413 "));
}
