//! Clients that are slow, silent or many.
use crate::raw::{Raw, identity, short, start, start_with};
use net::{BodyError, Refusal};
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

#[test]
fn a4_a_slow_head_is_408_and_closed() {
    let server = start_with(|settings| settings.timeouts = short());
    let mut raw = server.connect();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    let answer = raw.read_to_end();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(*server.seen.refusals.lock().unwrap(), [Refusal::HeaderTimeout]);
    assert_eq!(server.requests(), [""; 0]);
}

#[test]
fn a4_a_dripping_head_gains_no_time() {
    let server = start_with(|settings| settings.timeouts = short());
    let mut raw = server.connect();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    let mut writer = raw.stream.try_clone().unwrap();
    let drip = std::thread::spawn(move || {
        use std::io::Write;
        // Far more bytes than the limit leaves time for.
        for _ in 0..2_000 {
            if writer.write_all(b"x").is_err() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    });
    let answer = raw.read_until("\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(drip.join().unwrap(), "the connection was never closed");
}

#[test]
fn a4_a_connection_without_a_byte_is_closed() {
    let server = start_with(|settings| settings.timeouts = short());
    assert_eq!(server.connect().read_to_end(), "");
    server.seen.wait_for("the count", |seen| *seen.refusals.lock().unwrap() == [Refusal::HeaderTimeout]);
}

#[test]
fn a4_a_kept_alive_connection_without_a_request_is_closed() {
    let server = start_with(|settings| settings.timeouts = short());
    let mut raw = server.connect();
    raw.get("/");
    assert_eq!(raw.answer().1, "hello");
    assert_eq!(raw.read_to_end(), "");
    assert_eq!(server.seen.refusals.lock().unwrap().len(), 0);
}

#[test]
fn a4_a_long_silent_connection_is_served_again() {
    let server = start_with(|settings| settings.timeouts.header = Duration::from_secs(3));
    let mut raw = server.connect();
    let mut ended = server.connect();
    raw.get("/1");
    assert_eq!(raw.answer().1, "hello");
    ended.get("/2");
    ended.answer();
    // A silent newcomer, closed after three seconds, tells that both gave their buffers back long ago.
    assert_eq!(server.connect().read_to_end(), "");
    raw.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    assert_eq!(raw.answer().1, "abc");
    assert_eq!(raw.answer().1, "hello");
    assert!(raw.read_to_end().starts_with("HTTP/1.1 400 "));
    ended.shut_down_sending();
    assert_eq!(ended.read_to_end(), "");
    crate::raw::wait_until("the ends", || server.server.as_ref().unwrap().open_connections() == 0);
}

#[test]
fn a4_a_stalled_body_is_408_and_closed() {
    let server = start_with(|settings| settings.timeouts = short());
    let mut raw = server.connect();
    raw.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    let answer = raw.read_to_end();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(*server.seen.body_errors.lock().unwrap(), [BodyError::Stalled]);
}

#[test]
fn a4_a_silent_tls_handshake_is_closed() {
    let server = start_with(|settings| {
        settings.timeouts = short();
        settings.tls = Some(identity("a.example"));
    });
    assert_eq!(server.connect().read_to_end(), "");
    assert_eq!(*server.seen.refusals.lock().unwrap(), [Refusal::HandshakeTimeout]);
}

#[test]
fn a4_a_slow_service_is_not_a_slow_client() {
    let server = start_with(|settings| settings.timeouts = short());
    let mut raw = server.connect();
    raw.get("/wait");
    server.seen.wait_for("the request", |seen| seen.requests.lock().unwrap().len() == 1);
    // Three silent connections, each closed after every limit has passed once, tell the time.
    for _ in 0..3 {
        assert_eq!(server.connect().read_to_end(), "");
    }
    server.seen.go.notify_one();
    assert_eq!(raw.answer().1, "waited");
}

#[test]
fn a4_a_client_that_never_reads_is_cut() {
    let server = start_with(|settings| settings.timeouts = short());
    let mut raw = server.connect();
    raw.get("/big");
    server.seen.wait_for("the request", |seen| seen.requests.lock().unwrap().len() == 1);
    crate::raw::wait_until("the cut", || server.server.as_ref().unwrap().open_connections() == 0);
    let mut got = Vec::new();
    // What the sockets held is still there; then the connection is over, by an end or by a reset.
    let _ = raw.stream.read_to_end(&mut got);
    assert!(got.len() < 64 << 20);
}

#[test]
fn a4_clients_that_close_at_once_leave_nothing_behind() {
    let server = start_with(|settings| settings.timeouts.header = Duration::from_millis(300));
    for _ in 0..20 {
        server.connect().get("/late");
    }
    server.seen.wait_for("the requests", |seen| seen.requests.lock().unwrap().len() == 20);
    // By the time a silent newcomer is closed, the ends of the twenty streams were seen.
    server.connect().read_to_end();
    // One part of each answer, then silence.
    server.seen.go.notify_waiters();
    server.seen.wait_for("the aborts", |seen| seen.given_up.load(SeqCst) == 20);
    crate::raw::wait_until("the ends", || server.server.as_ref().unwrap().open_connections() == 0);
}

#[test]
fn a4_a_half_closed_client_and_a_silent_answer_end() {
    let server = start();
    let mut raw = server.connect();
    raw.get("/late");
    raw.shut_down_sending();
    server.seen.wait_for("the request", |seen| seen.requests.lock().unwrap().len() == 1);
    server.seen.go.notify_one();
    raw.read_until("late\r\n");
    assert_eq!(raw.read_to_end(), "", "a truncated answer must not look complete");
    server.seen.wait_for("the abort", |seen| seen.given_up.load(SeqCst) == 1);
}

#[test]
fn a_half_closed_client_may_be_slow_to_take_its_answer() {
    let server = start_with(|settings| settings.timeouts.header = Duration::from_secs(3));
    let mut raw = server.connect();
    raw.get("/big");
    raw.shut_down_sending();
    // A silent newcomer is closed after three seconds: longer than a silent answer would be waited for.
    server.connect().read_to_end();
    assert!(raw.read_to_end().len() > 64 << 20);
}

#[test]
fn a4_two_thousand_idle_connections_leave_the_next_client_unharmed() {
    let server = start();
    let idle: Vec<Raw> = (0..2_000).map(|_| server.connect()).collect();
    let mut raw = server.connect();
    raw.get("/");
    assert_eq!(raw.answer().1, "hello");
    assert_eq!(server.server.as_ref().unwrap().open_connections(), 2_001);
    drop(idle);
    crate::raw::wait_until("the ends", || server.server.as_ref().unwrap().open_connections() == 1);
}

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps the text of every warning of this process.
struct Warnings;

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            if field.name() == "message" {
                WARNINGS.lock().unwrap().push(format!("{value:?}"));
            }
        });
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn connections_past_the_limit_wait_in_the_backlog() {
    tracing::subscriber::set_global_default(Warnings).unwrap();
    let server = start_with(|settings| settings.limits.connections_max = 2);
    let mut first = server.connect();
    first.get("/");
    first.answer();
    let mut second = server.connect();
    second.get("/");
    second.answer();
    let mut third = server.connect();
    third.get("/third");
    server.seen.wait_for("the note", |seen| *seen.refusals.lock().unwrap() == [Refusal::TooManyConnections]);
    assert!(!server.requests().contains(&"GET /third".to_owned()));
    crate::raw::wait_until("the warning", || !WARNINGS.lock().unwrap().is_empty());
    let warnings = WARNINGS.lock().unwrap().clone();
    assert!(matches!(&warnings[..], [one] if one.starts_with("connection limit reached: ")), "{warnings:?}");
    drop(first);
    assert_eq!(third.answer().1, "hello");
}
