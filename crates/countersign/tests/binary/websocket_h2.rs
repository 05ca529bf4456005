//! WebSockets over HTTP/2 (RFC 8441), with Node's HTTP/2 as client and as upstream.
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::issuer::Issuer;
use testkit::process::Process;

use crate::serving::tunnel::{Answer, Client, Peer};
use crate::serving::{LIMIT, Serving, Setup};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/websocket_h2.mjs")
}

/// An upstream over HTTP/2. It ends with its standard input.
struct Server {
    process: Process,
    port: u64,
}

impl Server {
    fn start(announces: bool) -> Server {
        let mut arguments = vec![script().into_os_string(), "serve".into()];
        arguments.extend((!announces).then(|| "plain".into()));
        let mut process = Process::start("node", &arguments);
        let line = process.wait_line("port", LIMIT);
        let port = serde_json::from_str::<Value>(&line).unwrap()["port"].as_u64().unwrap();
        Server { process, port }
    }

    /// What the upstream saw.
    fn seen(&self) -> Vec<Value> {
        self.process.stdout().lines().skip(1).filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// The issuer has to outlive what asks it.
fn start(upstream: &str) -> (Issuer, Serving) {
    let issuer = Issuer::start();
    let serving = Setup::new(&issuer.url(), upstream).start();
    (issuer, serving)
}

/// The service file's upstream is a mapping here.
fn start_over_http2(port: u64) -> (Issuer, Serving) {
    let issuer = Issuer::start();
    let mut setup = Setup::new(&issuer.url(), "UPSTREAM");
    let upstream = format!("{{ url: \"http://127.0.0.1:{port}\", protocol: http2 }}");
    setup.services[0].1 = setup.services[0].1.replace("\"UPSTREAM\"", &upstream);
    let serving = setup.start();
    (issuer, serving)
}

/// What Node's client was answered, case by case.
#[track_caller]
fn ask(serving: &Serving, cases: &Value) -> Vec<Value> {
    let arguments =
        [script().into_os_string(), "open".into(), serving.edge.to_string().into(), cases.to_string().into()];
    let (status, out, error) = testkit::process::run("node", &arguments);
    assert!(status.success(), "{out}{error}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_client_over_http_2_reaches_an_upstream_over_http_1() {
    let peer = Peer::start(Answer::Echo);
    let (issuer, serving) = start(&format!("http://{}", peer.address));
    let token = issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
    testkit::wait_for("keys", LIMIT, || serving.get("/orders/1", Some(&token)).status != 503);
    let large = "x".repeat(300_000);
    let bearer = format!("Bearer {token}");
    let told = ask(
        &serving,
        &json!([
            { "path": "/public/x", "send": "hello" },
            { "path": "/public/x", "send": "x", "times": large.len(), "fields": { "origin": "http://shop.acme.example" } },
            { "path": "/orders/feed", "send": "signed in", "fields": { "authorization": bearer } },
        ]),
    );
    for (told, sent) in told.iter().zip(["hello", large.as_str(), "signed in"]) {
        assert_eq!((&told["enabled"], &told["status"]), (&json!(true), &json!(200)), "{}", told["headers"]);
        assert!(told["received"] == sent, "every byte came back");
        assert_eq!(told["headers"]["sec-websocket-accept"], Value::Null);
    }
    assert!(peer.heads().iter().all(|head| !head.starts_with("CONNECT")));
    assert!(peer.heads().iter().filter(|head| head.contains("sec-websocket-key: ")).count() >= 3);
}

#[test]
fn a6_no_rule_is_passed_by_asking_over_http_2() {
    let peer = Peer::start(Answer::Echo);
    let (_issuer, serving) = start(&format!("http://{}", peer.address));
    let told = ask(
        &serving,
        &json!([
            { "path": "/orders/feed" },
            { "path": "/public/x", "fields": { "origin": "https://evil.example" } },
            { "path": "/public/x", "fields": { "sec-websocket-version": "12" } },
            { "path": "/public/x", "protocol": "connect-udp" },
            { "path": "/public/%2e%2e/orders/feed" },
        ]),
    );
    let statuses: Vec<i64> = told.iter().filter_map(|told| told["status"].as_i64()).collect();
    assert_eq!(statuses, [401, 403, 426, 501, 401]);
    assert_eq!(peer.heads(), [""; 0]);
}

#[test]
fn a6_a_refusal_of_the_upstream_is_no_open_tunnel_over_http_2() {
    for (answer, status) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 502),
        ("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", 404),
        ("HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: wrong\r\n\r\n", 502),
    ] {
        let peer = Peer::start(Answer::Bytes(answer.into()));
        let (_issuer, serving) = start(&format!("http://{}", peer.address));
        assert_eq!(ask(&serving, &json!([{ "path": "/public/x" }]))[0]["status"], status, "{answer}");
        assert_eq!(peer.after(), "");
    }
}

#[test]
fn an_upstream_over_http_2_takes_an_extended_connect() {
    let server = Server::start(true);
    let (issuer, serving) = start_over_http2(server.port);
    let token = issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
    testkit::wait_for("keys", LIMIT, || serving.get("/orders/1", Some(&token)).status == 404);
    let bearer = format!("Bearer {token}");
    let mut client = Client::open(serving.edge, "/orders/feed", &[("authorization", &bearer)])
        .unwrap_or_else(|answer| panic!("{} {}", answer.status, answer.text()));
    client.send("from HTTP/1.1");
    assert_eq!(client.receive(13), "from HTTP/1.1");
    let told = ask(&serving, &json!([{ "path": "/public/x", "send": "from HTTP/2" }]));
    assert_eq!((&told[0]["status"], &told[0]["received"]), (&json!(200), &json!("from HTTP/2")));
    assert_eq!(told[0]["headers"]["sec-websocket-protocol"], "chat");
    let connects: Vec<Value> = server.seen().into_iter().filter(|seen| seen["method"] == "CONNECT").collect();
    let expected = |path: &str, stamped: bool| json!({ "method": "CONNECT", "protocol": "websocket", "path": path, "key": null, "stamped": stamped });
    assert_eq!(connects, [expected("/orders/feed", true), expected("/public/x", false)]);
}

#[test]
fn an_upstream_over_http_2_that_takes_none_is_502_and_says_why() {
    let server = Server::start(false);
    let (_issuer, serving) = start_over_http2(server.port);
    let Err(answer) = Client::open(serving.edge, "/public/x", &[]) else { panic!("it was opened") };
    let record = serving.expect(&answer, 502, "upstream_protocol");
    assert!(record["detail"].as_str().unwrap().contains("extended CONNECT"), "{record}");
}
