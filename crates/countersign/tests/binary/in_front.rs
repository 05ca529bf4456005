//! Something stands in front of the edge: a load balancer with the PROXY protocol, or a proxy with forwarding headers.
use std::fs;
use std::process::Command;

use crate::serving::{LIMIT, Serving, Setup, installed};
use testkit::client::{Connection, Response};
use testkit::issuer::Issuer;
use testkit::process::{Process, free_port};
use testkit::tls::Ca;
use testkit::upstream::Upstream;

struct World {
    _issuer: Issuer,
    upstream: Upstream,
    serving: Serving,
    setup: Setup,
}

fn world(edge: &str) -> World {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    setup.edge = edge.into();
    let serving = setup.start();
    World { _issuer: issuer, upstream, serving, setup }
}

/// Address and scheme of the caller as the service was told them, and address as it was recorded.
#[track_caller]
fn caller(world: &World, answer: &Response) -> (String, String, String) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = world.upstream.last();
    let field = |name: &str| {
        assert_eq!(seen.count(name), 1, "{name}: {:?}", seen.fields);
        seen.field(name).unwrap().to_owned()
    };
    let record = world.serving.record(answer);
    let recorded = record["request"]["client_ip"].as_str().unwrap().to_owned();
    (field("x-forwarded-for"), field("x-forwarded-proto"), recorded)
}

const SPOOFED: [(&str, &str); 2] = [("x-forwarded-for", "6.6.6.6, 192.0.2.7"), ("x-forwarded-proto", "https")];

#[test]
fn a1_forwarding_headers_count_from_trusted_proxies_only_and_reloads_change_them() {
    let mut world = world("  trusted_proxies: { from: [10.0.0.0/8, 127.0.0.1] }\n");
    let ask = |world: &World| caller(world, &world.serving.get_with("/public/x", None, &SPOOFED));
    assert_eq!(ask(&world), ("192.0.2.7".into(), "https".into(), "192.0.2.7".into()));
    let answer = world.serving.get_with("/public/x", None, &[("x-forwarded-for", "192.0.2.7, rubbish")]);
    let record = world.serving.expect(&answer, 400, "request_malformed");
    assert!(record["detail"].as_str().unwrap().contains("`X-Forwarded-For`"), "{record:#}");
    world.setup.edge = "  trusted_proxies: { from: 10.0.0.0/8 }\n".into();
    world.setup.write(world.serving.folder.path());
    world.serving.process.signal("HUP");
    let own: (String, String, String) = ("127.0.0.1".into(), "http".into(), "127.0.0.1".into());
    testkit::wait_for("the proxy is trusted no more", LIMIT, || ask(&world) == own);
}

#[test]
fn a1_of_two_forwarding_headers_the_configured_one_is_read() {
    let world = world("  trusted_proxies: { from: 127.0.0.0/8, header: forwarded }\n");
    let mut fields = SPOOFED.to_vec();
    fields.push(("forwarded", "for=6.6.6.6, for=\"[2001:db8::7]:1\";proto=https"));
    let answer = world.serving.get_with("/public/x", None, &fields);
    assert_eq!(caller(&world, &answer), ("2001:db8::7".into(), "https".into(), "2001:db8::7".into()));
}

fn proxied(world: &World, preamble: &[u8]) -> Option<Response> {
    let request = b"GET /public/x HTTP/1.1\r\nhost: shop.acme.example\r\nconnection: close\r\n\r\n";
    let mut connection = Connection::open(world.serving.edge);
    // In two pieces, so that the edge has to wait within the header.
    let (first, rest) = preamble.split_at(preamble.len() / 2);
    connection.write(first).ok()?;
    connection.write([rest, request].concat()).ok()?;
    connection.read()
}

#[test]
fn a_proxy_protocol_header_tells_the_client() {
    let world = world("  proxy_protocol: 127.0.0.0/8\n");
    let from = |ip: &str| (ip.to_owned(), "http".to_owned(), ip.to_owned());
    let answer = proxied(&world, b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n").unwrap();
    assert_eq!(caller(&world, &answer), from("192.0.2.7"));
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x09\xc0\0\x02\x01\0\x07\x01\xbb";
    assert_eq!(caller(&world, &proxied(&world, v2).unwrap()), from("192.0.2.9"));
    // A load balancer's own health check.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    assert_eq!(caller(&world, &proxied(&world, local).unwrap()), from("127.0.0.1"));
}

#[test]
fn a_connection_that_owes_a_header_gets_nowhere_without_it() {
    let world = world("  proxy_protocol: 127.0.0.0/8\n  timeouts: { header: 1s }\n");
    for malformed in [b"PROXY TCP4 192.0.2.7\r\n".as_slice(), b"", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0", b"PROXY UDP4 "]
    {
        assert!(proxied(&world, malformed).is_none(), "{}", malformed.escape_ascii());
    }
    let mut silent = Connection::open(world.serving.edge);
    silent.write(b"PROXY TCP4 192").unwrap();
    assert!(silent.is_closed(), "cut when its time is up");
    assert_eq!(world.upstream.count(), 0);
    let counted = "countersign_refusals_total{kind=\"preamble\"} 5";
    testkit::wait_for(counted, LIMIT, || world.serving.metrics().contains(counted));
}

/// From whom none is due, none is read: it is no HTTP.
#[test]
fn a1_nobody_else_speaks_for_a_client() {
    let world = world("  proxy_protocol: 10.0.0.0/8\n");
    let answer = proxied(&world, b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n").unwrap();
    assert_eq!((answer.status, world.upstream.count()), (400, 0));
    assert_eq!(caller(&world, &world.serving.get("/public/x", None)).0, "127.0.0.1");
}

#[test]
fn haproxy_and_curl_write_headers_that_are_read_before_tls() {
    let (issuer, upstream, ca) = (Issuer::start(), Upstream::start(), Ca::new());
    let identity = ca.server(&["shop.acme.example"]);
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    setup.edge = "  proxy_protocol: 127.0.0.1\n  tls: { certificate: edge.pem, key: edge.key }\n".into();
    setup.files = vec![
        ("ca.pem".into(), ca.certificate_pem.clone().into_bytes()),
        ("edge.pem".into(), identity.certificate_pem.into_bytes()),
        ("edge.key".into(), identity.key_pem.into_bytes()),
    ];
    let serving = setup.start();
    let curl = |port: u16, more: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", "--cacert"]).arg(serving.folder.path().join("ca.pem"));
        command.args(["--connect-to", &format!("::127.0.0.1:{port}")]).args(more);
        let output = command.arg("https://shop.acme.example/public/x").output().expect("curl: apt-get install curl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        upstream.last()
    };
    for version in ["--http1.1", "--http2"] {
        let seen = curl(serving.edge.port(), &["--haproxy-protocol", version]);
        assert_eq!(
            (seen.field("x-forwarded-for"), seen.field("x-forwarded-proto")),
            (Some("127.0.0.1"), Some("https"))
        );
    }

    let (port, own) = (free_port(), "127.0.0.77");
    let config = serving.folder.path().join("haproxy.cfg");
    let text = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
         listen front\n bind 127.0.0.1:{port}\n server edge {} send-proxy-v2 check-send-proxy\n",
        serving.edge
    );
    fs::write(&config, text).unwrap();
    let mut haproxy = Process::start(installed("haproxy"), &["-db".as_ref(), "-f".as_ref(), config.as_os_str()]);
    testkit::wait_for("haproxy listens", LIMIT, || {
        assert!(haproxy.is_running(), "{}", haproxy.stderr());
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let seen = curl(port, &["--interface", own]);
    assert_eq!(seen.field("x-forwarded-for"), Some(own), "the client of the load balancer, not the load balancer");
}
