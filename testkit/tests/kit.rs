//! The kit itself: what it serves is what it says, so that a failing test blames the code under test.
use std::time::Duration;

use serde_json::json;
use testkit::{Fault, Issuer, Kind, OldKeys, Upstream, client, wait_for};

#[test]
fn issuer_publishes_what_it_signs_with_and_fails_as_told() {
    let issuer = Issuer::start_with(&Kind::ALL);
    let at = issuer.address();
    let discovery = client::get(at, "/.well-known/openid-configuration", &[]).json();
    assert_eq!(discovery["issuer"], issuer.url());
    assert_eq!(discovery["jwks_uri"], issuer.jwks_url());
    assert_eq!(client::get(at, "/jwks", &[]).json(), issuer.jwks());
    assert_eq!(issuer.jwks()["keys"].as_array().unwrap().len(), 4);
    for kind in Kind::ALL {
        assert_eq!(issuer.key_of(kind).sign(&json!({}), &json!({})).split('.').count(), 3);
    }

    issuer.rotate(OldKeys::Keep);
    assert_eq!(issuer.jwks()["keys"].as_array().unwrap().len(), 5);
    issuer.rotate(OldKeys::Drop);
    assert_eq!(issuer.jwks()["keys"].as_array().unwrap().len(), 1);

    issuer.etag(true);
    issuer.cache_control(Some("max-age=7"));
    let answer = client::get(at, "/jwks", &[]);
    assert_eq!(answer.field("cache-control"), Some("max-age=7"));
    let etag = answer.field("etag").unwrap().to_owned();
    assert_eq!(client::get(at, "/jwks", &[("if-none-match", &etag)]).status, 304);
    issuer.reuse_kid();
    assert_eq!(client::get(at, "/jwks", &[("if-none-match", &etag)]).status, 200);
    assert_eq!((issuer.fetches(), issuer.not_modified(), issuer.discoveries()), (4, 1, 1));

    issuer.misbehave(Fault::Status(500));
    assert_eq!(client::get(at, "/jwks", &[]).status, 500);
    issuer.misbehave(Fault::Huge);
    assert!(client::get(at, "/jwks", &[]).body.len() > 10_000_000);
    issuer.misbehave(Fault::Close);
    assert!(client::send(at, "GET /jwks HTTP/1.1\r\nhost: x\r\n\r\n").is_none());
    issuer.misbehave(Fault::Hang);
    let mut hanging = client::Connection::open(at);
    hanging.write("GET /jwks HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    issuer.down();
    assert!(hanging.is_closed());
    assert!(std::net::TcpStream::connect(at).is_err());
    issuer.misbehave(Fault::None);
    issuer.up();
    assert_eq!(client::get(at, "/jwks", &[]).status, 200);
}

#[test]
fn upstream_tells_what_it_saw_and_does_as_asked() {
    let upstream = Upstream::start();
    let at = upstream.address();
    let echo = client::request(at, "POST", "/orders/42", &[("X-One", "1"), ("x-one", "2")], "hello").json();
    assert_eq!(echo["body"], "hello");
    let seen = upstream.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.body_bytes), ("POST", "/orders/42", 5));
    assert_eq!((seen.count("X-ONE"), seen.field("x-one"), seen.complete), (2, Some("1"), true));

    let chunked = "PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-t: 1\r\n\r\n";
    client::send(at, chunked).unwrap();
    assert_eq!(upstream.last().trailers, vec![("x-t".to_owned(), "1".to_owned())]);

    assert_eq!(client::get(at, "/?do=stream:100000", &[]).body.len(), 100_000);
    assert_eq!(client::get(at, "/?do=chunked:100000", &[]).body.len(), 100_000);
    assert_eq!(client::get(at, "/?do=sse:3", &[]).text(), "data: 1\n\ndata: 2\n\ndata: 3\n\n");
    assert_eq!(client::get(at, "/?do=trailers", &[]).trailers.len(), 1);
    assert_eq!(client::get(at, "/?do=status:418", &[]).status, 418);
    assert_eq!(client::get(at, "/?do=raw:HTTP/1.1%20299%20x%0d%0a%0d%0aend", &[]).text(), "end");
    assert!(client::request(at, "HEAD", "/", &[], "").body.is_empty());
    let gone = "GET /?do=close HTTP/1.1\r\nhost: x\r\n\r\n";
    assert!(client::send(at, gone).is_none());
    let expecting = "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    let mut connection = client::Connection::open(at);
    connection.write(expecting).unwrap();
    assert_eq!(connection.read().unwrap().status, 100);
    connection.write("ok").unwrap();
    assert_eq!(connection.read().unwrap().status, 200);
    let count = upstream.connections();
    connection.write("GET /again HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_eq!(connection.read().unwrap().status, 200);
    assert_eq!(upstream.connections(), count, "a connection is kept alive");
}

#[test]
fn processes_are_heard_waited_for_and_killed() {
    let mut process = testkit::Process::start("sh", &["-c", "echo ready; read line; echo got $line; sleep 60"]);
    process.wait_line("ready", Duration::from_secs(10));
    process.write_line("hello");
    assert_eq!(process.wait_line("got", Duration::from_secs(10)), "got hello");
    assert!(process.is_running() && process.resident_kib() > 0);
    process.signal("TERM");
    assert!(!process.wait(Duration::from_secs(10)).success());
    let (status, stdout, stderr) = testkit::process::run("sh", &["-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((status.code(), stdout.as_str(), stderr.as_str()), (Some(3), "out\n", "err\n"));
    let port = testkit::free_port();
    wait_for("the port to be free", Duration::from_secs(5), || {
        std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
    });
}
