//! gRPC and gRPC-Web through the edge, with grpcio at both ends.
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::serving::{LIMIT, Serving, Setup};
use testkit::client::{self, Response};
use testkit::issuer::Issuer;
use testkit::process::Process;
use testkit::tls::Ca;

const HOST: &str = "shop.acme.example";

fn from_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn python() -> PathBuf {
    let python = from_root("target/peers/test/bin/python");
    assert!(python.is_file(), "grpcio is missing: run `cargo xtask peers`");
    python
}

/// A real gRPC server. It ends with its standard input.
struct Server {
    _process: Process,
    port: u64,
}

impl Server {
    fn start(identity: &[OsString]) -> Server {
        let mut arguments = vec![from_root("tests/peers/grpc_peer.py").into_os_string(), "serve".into()];
        arguments.extend_from_slice(identity);
        let mut process = Process::start(python(), &arguments);
        let line = process.wait_line("port", LIMIT);
        let port = serde_json::from_str::<Value>(&line).unwrap()["port"].as_u64().unwrap();
        Server { _process: process, port }
    }
}

fn service(url: &str, more: &str) -> String {
    format!(
        "service: orders\nupstream: {{ url: \"{url}\", protocol: grpc, first_byte_timeout: 1s{more} }}\n\
         expose: {{ host: \"*\", path: /** }}\nlimits: {{ request_timeout: 1s, body: 5MiB }}\nrules:\n\
         \x20 - {{ name: support calls, who: \"group:support\", can: \"POST /orders.Orders/*\" }}\n\
         \x20 - {{ name: anyone may fail, who: anyone, can: \"POST /orders.Orders/Fail\" }}\n"
    )
}

fn setup(issuer: &Issuer, url: &str, more: &str) -> Setup {
    let mut setup = Setup::new(&issuer.url(), "http://127.0.0.1:1");
    setup.services = vec![("orders".into(), service(url, more))];
    setup
}

fn plain() -> (Issuer, Server, Serving) {
    let (issuer, server) = (Issuer::start(), Server::start(&[]));
    let serving = setup(&issuer, &format!("http://127.0.0.1:{}", server.port), "").start();
    (issuer, server, serving)
}

fn support(issuer: &Issuer) -> String {
    issuer.token("ana", "acme", &json!({ "groups": ["support"] }))
}

/// What grpcio's client says of each case, and all of its output.
fn check(serving: &Serving, token: &str, ca: Option<&Path>) -> (Vec<Value>, String) {
    let mut arguments: Vec<OsString> = vec![
        from_root("tests/peers/grpc_peer.py").into_os_string(),
        "check".into(),
        format!("localhost:{}", serving.edge.port()).into(),
        HOST.into(),
        token.into(),
    ];
    arguments.extend(ca.map(|ca| ca.as_os_str().to_owned()));
    let (_, out, error) = testkit::process::run(python(), &arguments);
    let cases: Vec<Value> = out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(cases.len() >= 15, "{out}{error}");
    (cases, out + &error)
}

/// Its server says nothing for longer than our timeouts in one of them.
#[test]
fn every_kind_of_call_passes_untouched() {
    let (issuer, _server, serving) = plain();
    let (cases, all) = check(&serving, &support(&issuer), None);
    assert!(cases.iter().all(|case| case["good"] == true), "{all}\n{}", serving.process.stderr());
}

#[test]
fn every_kind_of_call_passes_over_tls_on_both_sides() {
    let (issuer, ca) = (Issuer::start(), Ca::new());
    let folder = tempfile::tempdir().unwrap();
    let identity = ca.server(&[HOST, "localhost"]);
    let (certificate, key) = (folder.path().join("server.pem"), folder.path().join("server.key"));
    std::fs::write(&certificate, &identity.certificate_pem).unwrap();
    std::fs::write(&key, &identity.key_pem).unwrap();
    let server = Server::start(&[certificate.into_os_string(), key.into_os_string()]);
    let mut setup = setup(&issuer, &format!("https://localhost:{}", server.port), ", ca_file: ca.pem");
    setup.edge = "  tls: { certificate: edge.pem, key: edge.key }\n".into();
    setup.files = vec![
        ("ca.pem".into(), ca.certificate_pem.clone().into_bytes()),
        ("edge.pem".into(), identity.certificate_pem.into_bytes()),
        ("edge.key".into(), identity.key_pem.into_bytes()),
    ];
    let serving = setup.start();
    let (cases, all) = check(&serving, &support(&issuer), Some(&serving.folder.path().join("ca.pem")));
    assert!(cases.iter().all(|case| case["good"] == true), "{all}\n{}", serving.process.stderr());
}

#[test]
fn a_refused_call_ends_with_a_status_of_grpc() {
    let (issuer, server, serving) = plain();
    let seen = |cases: &[Value], name: &str| {
        let case = cases.iter().find(|case| case["case"] == name).unwrap();
        case["seen"].as_str().unwrap().to_owned()
    };
    let (cases, _) = check(&serving, "", None);
    let unary = seen(&cases, "unary");
    assert!(unary.starts_with("UNAUTHENTICATED: ") && unary.contains("countersign-decision"), "{unary}");
    assert!(seen(&cases, "server_stream").starts_with("UNAUTHENTICATED: "));
    assert!(seen(&cases, "trailers_and_status").starts_with("StatusCode.FAILED_PRECONDITION"), "anyone may");
    let finance = issuer.token("bo", "acme", &json!({ "groups": ["finance"] }));
    let (cases, _) = check(&serving, &finance, None);
    assert!(seen(&cases, "unary").starts_with("PERMISSION_DENIED: "));
    drop(server);
    let (cases, _) = check(&serving, &support(&issuer), None);
    assert!(seen(&cases, "unary").starts_with("UNAVAILABLE: "), "{}", seen(&cases, "unary"));
}

/// A gRPC-Web call over HTTP/1.1, as browsers make it.
fn web(serving: &Serving, kind: &str, method: &str, token: Option<&str>, body: &[u8]) -> Response {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut fields = vec![("host", HOST), ("content-type", kind), ("x-grpc-web", "1")];
    fields.extend(bearer.as_deref().map(|value| ("authorization", value)));
    client::request(serving.edge, "POST", &format!("/orders.Orders/{method}"), &fields, body)
}

#[test]
fn grpc_web_is_put_into_grpc_and_back() {
    let (issuer, _server, serving) = plain();
    let token = support(&issuer);
    let hello = b"\0\0\0\0\x05hello";
    let answer = web(&serving, "application/grpc-web+proto", "Unary", Some(&token), hello);
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/grpc-web")));
    let rest = answer.body.strip_prefix(hello).expect("the message comes first");
    assert_eq!(rest.first(), Some(&0x80), "then the trailers");
    assert!(String::from_utf8_lossy(rest).contains("grpc-status: 0\r\n"), "{rest:?}");

    // base64 of the frame of "2": two messages come, each padded for itself.
    let answer = web(&serving, "application/grpc-web-text", "Down", Some(&token), b"AAAAAAEy");
    assert_eq!(answer.field("content-type"), Some("application/grpc-web-text"));
    let text = answer.text();
    assert!(text.contains("AAAAAAEw") && text.contains("AAAAAAEx") && text.contains("gAAAA"), "{text}");

    let answer = web(&serving, "application/grpc-web", "Fail", None, b"\0\0\0\0\0");
    let all = format!("{:?} {}", answer.fields, answer.text());
    assert!(all.contains("grpc-status") && all.contains('9'), "{all}");
}

#[test]
fn grpc_web_is_refused_in_its_own_words() {
    let (issuer, _server, serving) = plain();
    let check = |answer: &Response, kind: &str, status: &str, reason: &str| {
        assert_eq!((answer.status, answer.field("grpc-status")), (200, Some(status)), "{answer:?}");
        assert_eq!(answer.field("content-type"), Some(kind));
        assert_eq!(serving.record(answer)["reason"], reason);
    };
    let answer = web(&serving, "application/grpc-web", "Unary", None, b"\0\0\0\0\0");
    check(&answer, "application/grpc-web", "16", "token_missing");
    let token = support(&issuer);
    let answer = web(&serving, "application/grpc-web-text", "Unary", Some(&token), b"AAAA*AAA");
    check(&answer, "application/grpc-web-text", "13", "request_malformed");
    let answer = web(&serving, "application/grpc-web", "Unary", Some(&token), b"\0\0\x50\0\x01x");
    check(&answer, "application/grpc-web", "8", "body_too_large");
}

#[test]
fn a_deadline_is_one_and_what_is_none_is_refused() {
    let (issuer, _server, serving) = plain();
    let call = |timeout: &str| {
        let fields = [
            ("host", HOST),
            ("content-type", "application/grpc-web"),
            ("grpc-timeout", timeout),
            ("authorization", &format!("Bearer {}", support(&issuer))),
        ];
        client::request(serving.edge, "POST", "/orders.Orders/Sleep", &fields, b"\0\0\0\0\x0215")
    };
    let answer = call("soon");
    assert_eq!(answer.field("grpc-status"), Some("13"));
    assert_eq!(serving.record(&answer)["reason"], "request_malformed");
    let answer = call("300m");
    let text = format!("{:?} {}", answer.fields, answer.text());
    assert!(answer.field("grpc-status") == Some("4") || text.contains("grpc-status: 4"), "{text}");
}

/// Else a content type would lift the limits of a service that never meant to take streams.
#[test]
fn a_service_that_was_not_said_to_take_grpc_never_gets_it() {
    let (issuer, upstream) = (Issuer::start(), testkit::Upstream::start());
    for protocol in ["http1", "http2"] {
        let mut setup = setup(&issuer, &upstream.url(), "");
        setup.services[0].1 = setup.services[0].1.replace("protocol: grpc", &format!("protocol: {protocol}"));
        let serving = setup.start();
        let answer = web(&serving, "application/grpc-web", "Unary", Some(&support(&issuer)), b"\0\0\0\0\0");
        assert_eq!(answer.field("grpc-status"), Some("14"));
        let record = serving.record(&answer);
        assert!(record["detail"].as_str().unwrap().contains("protocol: grpc"), "{record:#}");
    }
    assert_eq!(upstream.count(), 0);
}
