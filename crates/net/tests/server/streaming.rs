//! Bodies that flow: both ways, without being collected, and with a reader or writer that goes away.
use crate::raw::start;
use std::sync::atomic::Ordering::SeqCst;

#[test]
fn a_body_streams_both_ways_at_once() {
    let server = start();
    let mut raw = server.connect();
    raw.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    raw.read_until("\r\n\r\n");
    for word in ["one", "two", "three"] {
        raw.send(format!("{:x}\r\n{word}\r\n", word.len()));
        raw.read_until(&format!("{word}\r\n"));
    }
    raw.send("0\r\nT: v\r\n\r\n");
    raw.read_until("0\r\n");
    raw.read_until("\r\n");
    raw.get("/");
    assert_eq!(raw.answer().1, "hello");
}

#[test]
fn events_arrive_one_by_one_and_a_client_that_leaves_is_noticed() {
    let server = start();
    let mut raw = server.connect();
    raw.get("/events");
    raw.read_until("data: 0\n\n");
    server.seen.go.notify_one();
    raw.read_until("data: 1\n\n");
    drop(raw);
    server.seen.wait_for("the abort", |seen| seen.given_up.load(SeqCst) == 1);
}

#[test]
fn a_client_that_pipelines_behind_a_silent_answer_and_leaves_is_noticed() {
    let server = start();
    let check = |pipelined: &str, gone: usize| {
        let mut raw = server.connect();
        // In one write, so that both requests are read at once; and in a second, after the first answer began.
        raw.send(format!("GET /events HTTP/1.1\r\nHost: a\r\n\r\n{pipelined}"));
        raw.read_until("data: 0\n\n");
        raw.send(pipelined);
        drop(raw);
        server.seen.wait_for("the abort", |seen| seen.given_up.load(SeqCst) == gone);
    };
    check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1);
    check("GET / HT", 2);
    check("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\nhalf of it", 3);
    check(&"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(500), 4);
    assert_eq!(server.requests(), ["GET /events"; 4], "what was held back is never served");
}

#[test]
fn requests_held_back_for_a_slow_answer_are_answered_in_their_turn() {
    let server = start();
    let mut raw = server.connect();
    raw.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\nPOST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
    server.seen.wait_for("the request", |seen| seen.requests.lock().unwrap().len() == 1);
    raw.send("lo".to_owned() + &"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4_000));
    server.seen.go.notify_one();
    assert_eq!(raw.answer().1, "waited");
    for expected in std::iter::repeat_n("hello", 4_001) {
        assert_eq!(raw.answer().1, expected);
    }
    raw.get("/");
    assert_eq!(raw.answer().1, "hello");
}

#[test]
fn a_client_that_leaves_before_the_answer_is_noticed() {
    let server = start();
    let mut raw = server.connect();
    raw.get("/wait");
    server.seen.wait_for("the request", |seen| seen.requests.lock().unwrap().len() == 1);
    drop(raw);
    server.seen.wait_for("the abort", |seen| seen.given_up.load(SeqCst) == 1);
}

#[test]
fn continue_is_sent_only_when_the_body_is_wanted() {
    let server = start();
    let mut raw = server.connect();
    raw.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(raw.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    raw.send("hello");
    assert_eq!(raw.answer().1, "hello");
    let mut raw = server.connect();
    raw.send("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert!(raw.read_until("\r\n\r\n").starts_with("HTTP/1.1 413 "));
}

#[test]
fn head_has_the_fields_and_no_body() {
    let server = start();
    let mut raw = server.connect();
    raw.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(raw.read_until("\r\n\r\n").to_ascii_lowercase().contains("content-length: 5\r\n"));
    raw.get("/");
    assert!(raw.read_until("\r\n\r\n").starts_with("HTTP/1.1 200 "), "no byte of a body came between");
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn large_bodies_keep_memory_flat() {
    let server = start();
    let mut raw = server.connect();
    let before = resident_kib();
    let part = vec![b'x'; 1 << 20];
    raw.send("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 134217728\r\n\r\n");
    for _ in 0..128 {
        raw.send(&part);
    }
    assert_eq!(raw.answer().1, "134217728");
    raw.get("/big");
    raw.read_until("\r\n\r\n");
    let mut count = 0;
    while count < 64 << 20 {
        count += raw.exact(1 << 16).unwrap().len();
    }
    let grown = resident_kib().saturating_sub(before);
    // Other tests of this binary run beside this one: the bound is far below the 192 MiB that passed.
    assert!(grown < 96 << 10, "grew by {grown} KiB");
}
