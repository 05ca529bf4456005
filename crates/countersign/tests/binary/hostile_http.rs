//! HTTP as attackers, dying clients and failing services speak it, through the running binary.
use crate::serving::{LIMIT, Serving, Setup};
use serde_json::{Value, json};
use testkit::client::{Connection, Response};
use testkit::issuer::Issuer;
use testkit::upstream::Upstream;

struct World {
    _issuer: Issuer,
    upstream: Upstream,
    serving: Serving,
    token: String,
}

impl World {
    fn start() -> World {
        World::start_with("", |service| service)
    }

    fn start_with(edge: &str, service: impl Fn(String) -> String) -> World {
        let (issuer, upstream) = (Issuer::start(), Upstream::start());
        let mut setup = Setup::new(&issuer.url(), &upstream.url());
        setup.edge = edge.into();
        setup.services = vec![("orders".into(), service(crate::serving::orders(&upstream.url())))];
        let serving = setup.start();
        let token = issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
        serving.wait_ready_for("/orders/ready", &token);
        World { _issuer: issuer, upstream, serving, token }
    }

    fn open(&self) -> Connection {
        Connection::open(self.serving.edge)
    }

    fn head(&self, line: &str, fields: &str) -> String {
        let token = &self.token;
        format!("{line} HTTP/1.1\r\nhost: shop.acme.example\r\nauthorization: Bearer {token}\r\n{fields}\r\n")
    }

    fn get(&self, target: &str) -> Response {
        self.serving.get(target, Some(&self.token))
    }

    fn is_seen(&self, target: &str) -> bool {
        self.upstream.seen().iter().any(|seen| seen.target == target)
    }

    /// Answered with this status, closed, and the request hidden behind it never arrives.
    fn check_closed(&self, bytes: &str, status: u16) {
        let mut connection = self.open();
        // The other side may close before it has read everything.
        let _ = connection.write(bytes);
        let answer = connection.read().unwrap_or_else(|| panic!("no answer to {bytes:?}"));
        assert_eq!(answer.status, status, "{bytes:?}");
        assert!(connection.is_closed(), "{bytes:?}");
        assert!(!self.is_seen("/orders/smuggled"), "{bytes:?}");
    }

    /// The records of requests for this path.
    fn records(&self, path: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.serving.audit_file()).unwrap_or_default();
        let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        all.filter(|record| record["request"]["path"] == path).collect()
    }

    fn wait_record(&self, path: &str) -> Value {
        testkit::wait_value(path, LIMIT, || self.records(path).pop())
    }
}

#[test]
fn a2_smuggled_requests_never_reach_the_service() {
    let world = World::start();
    let hidden = world.head("GET /orders/smuggled", "");
    let length = hidden.len() + 5;
    let post = |fields: &str, body: &str| world.head("POST /orders/1", fields) + body + &hidden;
    let chunked = "0\r\n\r\n";
    world.check_closed(&post(&format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"), chunked), 400);
    world.check_closed(&post(&format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n"), chunked), 400);
    for coding in [
        "chunked, identity",
        "xchunked",
        "\tchunked",
        "chunked\r\ntransfer-encoding: chunked",
        "\"chunked\"",
        "identity",
    ] {
        let request = post(&format!("transfer-encoding: {coding}\r\n"), chunked);
        let mut connection = world.open();
        let _ = connection.write(&request);
        let answer = connection.read().unwrap();
        assert!(matches!(answer.status, 400 | 501), "{coding:?} {}", answer.status);
        assert!(connection.is_closed(), "{coding:?}");
        assert!(!world.is_seen("/orders/smuggled"), "{coding:?}");
    }
}

#[test]
fn a2_lengths_lines_and_hosts_with_two_readings_are_400_and_closed() {
    let world = World::start();
    let hidden = world.head("GET /orders/smuggled", "");
    for fields in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5,5\r\n",
        "content-length: +5\r\n",
        "content-length: 0x5\r\n",
        "content-length: 99999999999999999999\r\n",
        "content-length : 5\r\n",
        "x-folded: a\r\n b\r\n",
        "x-nul\0: a\r\n",
        "x-lf: a\nx-more: b\r\n",
        "host: other.example\r\n",
    ] {
        world.check_closed(&(world.head("POST /orders/1", fields) + "abcde" + &hidden), 400);
    }
    world.check_closed("GET /orders/1\r\n\r\n", 400);
    world.check_closed("GET /orders/1 HTTP/1.1\r\n\r\n", 400);
    world.check_closed("GET http://other.example/orders/1 HTTP/1.1\r\nhost: shop.acme.example\r\n\r\n", 400);
    world.check_closed("GET shop.acme.example:80 HTTP/1.1\r\nhost: shop.acme.example\r\n\r\n", 400);
    assert_eq!(world.get("/orders/after").status, 200);
}

#[test]
fn a2_a_bad_chunk_is_400_not_502_and_closed() {
    let world = World::start();
    let hidden = world.head("GET /orders/smuggled", "");
    for chunk in
        ["zz\r\nabc\r\n", "fffffffffffffffff\r\nabc", "3\r\nabcdef\r\n", "3\nabc\r\n0\r\n\r\n", "-1\r\nabc\r\n"]
    {
        world.check_closed(&(world.head("POST /orders/1", "transfer-encoding: chunked\r\n") + chunk + &hidden), 400);
    }
    let extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(1024 * 1024));
    world.check_closed(&(world.head("POST /orders/1", "transfer-encoding: chunked\r\n") + &extension + &hidden), 400);
    assert!(world.upstream.seen().iter().all(|seen| seen.method == "GET" || !seen.complete));
    let record = world.wait_record("/orders/1");
    assert_eq!((&record["reason"], &record["status"]), (&json!("request_malformed"), &json!(400)), "{record:#}");
}

#[test]
fn a3_http_2_by_prior_knowledge_is_served_under_load() {
    let world = World::start();
    let url = format!("http://{}/orders/1", world.serving.edge);
    let bearer = format!("authorization: Bearer {}", world.token);
    let arguments = ["-n", "400", "-c", "4", "-m", "20", "-H", &bearer, &url];
    let (status, out, error) = testkit::process::run("h2load", &arguments);
    assert!(status.success(), "{error}");
    assert!(out.contains("400 succeeded, 0 failed, 0 errored, 0 timeout"), "{out}");
    assert!(out.contains("status codes: 400 2xx"), "{out}");
    // Every one of them was stamped, and none carries the caller's token.
    assert!(world.upstream.seen().iter().all(|seen| seen.count("txn-token") == 1 && seen.count("authorization") == 0));
}

#[test]
fn a4_a_slow_head_is_408_and_an_oversize_one_431() {
    let world = World::start_with("  timeouts: { header: 1s }\n", |service| service);
    let mut slow = world.open();
    slow.write("GET /orders/slow HTTP/1.1\r\nhost: shop").unwrap();
    assert_eq!(slow.read().map(|answer| answer.status), Some(408));
    assert!(slow.is_closed());
    let padding = format!("x-padding: {}\r\n", "a".repeat(40 * 1024));
    world.check_closed(&world.head("GET /orders/1", &padding), 431);
    world.check_closed(&world.head("GET /orders/1", &"x-a: b\r\n".repeat(150)), 431);
    assert!(!world.is_seen("/orders/slow"));
    testkit::wait_for("both are counted", LIMIT, || {
        let metrics = world.serving.metrics();
        ["header_timeout", "header_too_large"]
            .iter()
            .all(|kind| metrics.contains(&format!("countersign_refusals_total{{kind=\"{kind}\"}}")))
    });
}

#[test]
fn a_body_over_the_limit_is_413_whether_its_length_is_said_or_not() {
    let world = World::start_with("", |service| service + "limits: { body: 1KiB }\n");
    let said = testkit::client::request(
        world.serving.edge,
        "POST",
        "/orders/said",
        &[("host", "shop.acme.example"), ("authorization", &format!("Bearer {}", world.token))],
        vec![b'x'; 1025],
    );
    world.serving.expect(&said, 413, "body_too_large");
    assert!(!world.is_seen("/orders/said"));
    let chunk = format!("401\r\n{}\r\n0\r\n\r\n", "x".repeat(1025));
    let mut connection = world.open();
    connection.write(world.head("POST /orders/unsaid", "transfer-encoding: chunked\r\n") + &chunk).unwrap();
    let answer = connection.read().unwrap();
    world.serving.expect(&answer, 413, "body_too_large");
    assert!(world.upstream.seen().iter().all(|seen| seen.target != "/orders/unsaid" || !seen.complete));
    let chunk = format!("400\r\n{}\r\n0\r\n\r\n", "x".repeat(1024));
    let mut connection = world.open();
    connection.write(world.head("POST /orders/fits", "transfer-encoding: chunked\r\n") + &chunk).unwrap();
    assert_eq!(connection.read().unwrap().json()["body_bytes"], 1024);
}

#[test]
fn a_client_that_goes_leaves_one_record_with_status_499() {
    let world = World::start();
    let mut connection = world.open();
    connection.write(world.head("GET /orders/gone?do=stall", "")).unwrap();
    testkit::wait_for("the service has it", LIMIT, || world.is_seen("/orders/gone?do=stall"));
    drop(connection);
    let record = world.wait_record("/orders/gone");
    assert_eq!((&record["status"], &record["reason"]), (&json!(499), &json!("client_gone")), "{record:#}");
    // Another record would stand in the log before this one's.
    assert_eq!(world.get("/orders/next").status, 200);
    world.wait_record("/orders/next");
    assert_eq!(world.records("/orders/gone").len(), 1);
}

/// A service that only listens, for seeing what becomes of its connections.
#[test]
fn a_client_that_goes_ends_the_connection_to_the_service() {
    use std::io::Read as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (issuer, address) = (Issuer::start(), listener.local_addr().unwrap());
    let serving = Setup::new(&issuer.url(), &format!("http://{address}")).start();
    let mut client = Connection::open(serving.edge);
    client.write("GET /public/a HTTP/1.1\r\nhost: shop.acme.example\r\n\r\n").unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.set_read_timeout(Some(LIMIT)).unwrap();
    let mut bytes = [0; 4096];
    assert!(accepted.read(&mut bytes).unwrap() > 0, "the request arrives");
    drop(client);
    // The rest of the head, if any, then the end.
    while accepted.read(&mut bytes).is_ok_and(|read| read > 0) {}
    assert!(!matches!(accepted.read(&mut bytes), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
}

#[test]
fn head_expect_and_trailers_pass() {
    let world = World::start_with("", |service| service.replace("GET,POST,PUT", "GET,HEAD,POST,PUT"));
    let mut connection = world.open();
    connection.write(world.head("HEAD /orders/1", "")).unwrap();
    let answer = connection.read_for("HEAD").unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert!(answer.field("content-length").is_some_and(|length| length != "0"));
    // The same connection goes on: no byte of a body followed.
    connection.write(world.head("POST /orders/1", "content-length: 5\r\nexpect: 100-continue\r\n")).unwrap();
    assert_eq!(connection.read().unwrap().status, 100);
    connection.write("hello").unwrap();
    assert_eq!(connection.read().unwrap().json()["body"], "hello");
    let fields = "transfer-encoding: chunked\r\ntrailer: x-sum\r\n";
    connection.write(world.head("POST /orders/1", fields) + "3\r\nabc\r\n0\r\nx-sum: 42\r\n\r\n").unwrap();
    assert_eq!(connection.read().unwrap().json()["trailers"], json!([["x-sum", "42"]]));
    connection.write(world.head("GET /orders/1?do=trailers", "te: trailers\r\n")).unwrap();
    let answer = connection.read().unwrap();
    assert_eq!(answer.text(), "body");
    assert!(
        answer.trailers.iter().any(|(name, value)| name.eq_ignore_ascii_case("x-sum") && value == "42"),
        "{answer:?}"
    );
}

/// The service sends its second event only once the client has the first, so a proxy that buffers never ends.
#[test]
fn events_are_streamed_without_buffering() {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (issuer, address) = (Issuer::start(), listener.local_addr().unwrap());
    let serving = Setup::new(&issuer.url(), &format!("http://{address}")).start();
    let client = Connection::open(serving.edge);
    let mut stream = client.stream().try_clone().unwrap();
    stream.write_all(b"GET /public/events HTTP/1.1\r\nhost: shop.acme.example\r\n\r\n").unwrap();
    let (mut service, _) = listener.accept().unwrap();
    let mut head = [0; 4096];
    assert!(service.read(&mut head).unwrap() > 0);
    service
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    let mut read = String::new();
    for event in 1..=5 {
        let line = format!("data: {event}\n\n");
        service.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).unwrap();
        while !read.contains(&line) {
            let bytes = stream.read(&mut head).unwrap();
            assert!(bytes > 0, "ended at {read}");
            read.push_str(&String::from_utf8_lossy(&head[..bytes]));
        }
    }
    service.write_all(b"0\r\n\r\n").unwrap();
    while !read.ends_with("0\r\n\r\n") {
        let bytes = stream.read(&mut head).unwrap();
        assert!(bytes > 0, "ended at {read}");
        read.push_str(&String::from_utf8_lossy(&head[..bytes]));
    }
}

#[test]
fn failures_of_the_service_have_their_own_reasons() {
    let quick = "upstream: { url: \"URL\", first_byte_timeout: 300ms }";
    let world = World::start_with("", |service| {
        let url = service.split("upstream: \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
        service.replace(&format!("upstream: \"{url}\""), &quick.replace("URL", &url))
    });
    world.serving.expect(&world.get("/orders/1?do=stall"), 504, "upstream_timeout");
    world.serving.expect(&world.get("/orders/1?do=garbage"), 502, "upstream_protocol");
    world.serving.expect(&world.get("/orders/1?do=close"), 502, "upstream_protocol");
    let both = "HTTP/1.1%20200%20OK%0D%0Acontent-length:%205%0D%0Acontent-length:%206%0D%0A%0D%0Ahello!";
    world.serving.expect(&world.get(&format!("/orders/1?do=raw:{both}")), 502, "upstream_protocol");
    assert_eq!(world.get("/orders/1?do=status:503").status, 503, "its own answers pass");
    // Cut within the body: the client sees a broken body, never a whole one.
    let mut connection = world.open();
    connection.write(world.head("GET /orders/cut?do=close-body", "")).unwrap();
    assert!(connection.read().is_none());
    assert_eq!(world.wait_record("/orders/cut")["ended"], "upstream_failed");
    world.upstream.down();
    world.serving.expect(&world.get("/orders/1"), 502, "upstream_connect");
    world.upstream.up();
    assert_eq!(world.get("/orders/1").status, 200);
}
