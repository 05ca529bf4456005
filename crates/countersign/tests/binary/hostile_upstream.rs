//! A service that answers more, or other, than it was asked: no other caller may ever get what it slipped in.
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::serving::{Serving, Setup};
use testkit::client::{Connection, Response};
use testkit::issuer::Issuer;

/// Answers every request of every connection with these bytes, and keeps the connection open. Ends with the test.
fn service(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream, &answer));
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: &[u8]) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.extend_from_slice(&byte);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

struct World {
    _issuer: Issuer,
    serving: Serving,
}

impl World {
    fn start(answer: impl Into<Vec<u8>>) -> World {
        let issuer = Issuer::start();
        let setup = Setup::new(&issuer.url(), &format!("http://{}", service(answer.into())));
        let mut orders = setup.services[0].1.replace("GET,POST,PUT", "GET,HEAD");
        orders.push_str("limits: { request_timeout: 5s }\n");
        let serving =
            Setup { services: vec![("orders".into(), orders)], edge: "  workers: 1\n".into(), ..setup }.start();
        World { _issuer: issuer, serving }
    }

    fn get(&self) -> Response {
        self.serving.get("/public/x", None)
    }

    /// Answered 502 `upstream_protocol`, every time.
    fn check_refused(&self, what: &str) {
        for _ in 0..3 {
            let answer = self.get();
            assert_eq!(answer.status, 502, "{what}: {}", answer.text());
            self.serving.expect(&answer, 502, "upstream_protocol");
        }
    }
}

#[test]
fn an_answer_nobody_asked_for_is_given_to_nobody() {
    let answer = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let world = World::start(answer("ok") + &answer("forged"));
    let mut connection = Connection::open(world.serving.edge);
    for _ in 0..100 {
        connection.write("GET /public/x HTTP/1.1\r\nhost: shop.acme.example\r\n\r\n").unwrap();
        let found = connection.read().unwrap();
        // A request may meet a connection that is just being given up; it never gets the second answer.
        assert!(found.text() == "ok" || found.status == 502, "{} {}", found.status, found.text());
    }
    assert_eq!(world.get().text(), "ok");
}

#[test]
fn a_body_after_the_answer_to_head_is_given_to_nobody() {
    let world =
        World::start("HTTP/1.1 200 OK\r\ncontent-length: 44\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged");
    let mut connection = Connection::open(world.serving.edge);
    for _ in 0..50 {
        connection.write("HEAD /public/x HTTP/1.1\r\nhost: shop.acme.example\r\n\r\n").unwrap();
        let found = connection.read_for("HEAD").unwrap();
        assert!(found.field("content-length") == Some("44") || found.status == 502, "{found:?}");
        connection.write("GET /public/x HTTP/1.1\r\nhost: shop.acme.example\r\n\r\n").unwrap();
        let found = connection.read().unwrap();
        assert!(found.text().starts_with("HTTP/1.1 200") || found.status == 502, "{found:?}");
    }
}

#[test]
fn a6_a_switch_of_protocols_that_nobody_asked_for_is_refused() {
    World::start("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
        .check_refused("101");
    // Asked for, it is not handed on either while it proves nothing: what follows would be judged by nobody.
    let world = World::start("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
    let fields = [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let answer = world.serving.get_with("/public/x", None, &fields);
    world.serving.expect(&answer, 502, "upstream_protocol");
}

#[test]
fn answers_with_two_readings_are_refused() {
    let check = |what: &str, head: &str| World::start(format!("HTTP/1.1 {head}\r\n\r\nhello")).check_refused(what);
    check("two lengths", "200 OK\r\ncontent-length: 5\r\ncontent-length: 6");
    check("a signed length", "200 OK\r\ncontent-length: +5");
    check("a space before the colon", "200 OK\r\ncontent-length : 5");
    check("a NUL in a value", "200 OK\r\ncontent-length: 5\r\nx-a: b\0c");
    check("no status", "OK\r\ncontent-length: 5");
    check("a head without end", &format!("200 OK\r\nx-large: {}", "a".repeat(2 * 1024 * 1024)));
}
