//! What the tests of the authz role share: the example of one proxy with addresses of this test's own, our process, the
//! real proxy, the service behind it.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::serving::{LIMIT, Serving};
use serde_json::{Value, json};
use testkit::client::{self, Response};
use testkit::dpop;
use testkit::issuer::Issuer;
use testkit::process::{Process, free_port};
use testkit::signing::{Kind, SigningKey};
use testkit::upstream::{Seen, Upstream};
use trust::txn::{PublishedKeys, Verifier};

pub(crate) const HOST: &str = "shop.acme.example";
/// Stands in every forged value.
pub(crate) const FORGED: &str = "forged-7";

/// Our process as one of `examples/` sets it up, and what stands around it.
pub(crate) struct World {
    pub(crate) issuer: Issuer,
    pub(crate) upstream: Upstream,
    pub(crate) serving: Serving,
    pub(crate) token: String,
}

impl World {
    /// The files of `examples/NAME`, with `change` applied to the platform file.
    pub(crate) fn of_example(name: &str, change: impl Fn(String) -> String) -> World {
        let (issuer, upstream) = (Issuer::start(), Upstream::start());
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("services")).unwrap();
        std::fs::copy(example(name).join("services/orders.yaml"), folder.path().join("services/orders.yaml")).unwrap();
        let text = std::fs::read_to_string(example(name).join("countersign.yaml")).unwrap();
        let text = replaced(text, "https://id.acme.example", &issuer.url());
        let text = replaced(text, "127.0.0.1:9002", "127.0.0.1:0");
        let text = change(text + "admin: { listen: 127.0.0.1:0 }\nlog: { format: json, level: info }\n");
        std::fs::write(folder.path().join("countersign.yaml"), text).unwrap();
        let token = issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
        World { serving: Serving::of(folder), issuer, upstream, token }
    }

    /// Where questions are asked.
    pub(crate) fn door(&self) -> SocketAddr {
        self.serving.edge
    }

    /// What the service got: our Txn-Token and nobody else's, for this person.
    pub(crate) fn check_stamped(&self, seen: &Seen, subject: &str) {
        let head = String::from_utf8_lossy(&seen.head).into_owned();
        assert!(!head.contains(FORGED), "{head}");
        assert_eq!((seen.count("txn-token"), seen.count("authorization")), (1, 0), "{head}");
        let keys = client::get(self.serving.admin, "/.well-known/countersign/jwks.json", &[]).json();
        let keys: PublishedKeys = serde_json::from_value(keys).unwrap();
        let verifier = Verifier::new("acme.example", &keys, |_| true);
        let token = verifier.verify(seen.field("txn-token").unwrap(), testkit::unix_now()).unwrap();
        assert_eq!(token.subject(), subject);
    }
}

pub(crate) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

/// An example that no longer holds what is replaced would be tested in vain.
pub(crate) fn replaced(text: String, from: &str, to: &str) -> String {
    assert!(text.contains(from), "`{from}` in {text}");
    text.replace(from, to)
}

/// A running proxy in front of the service, asking our process.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Proxy {
    /// Starts `program` on the example's own configuration, `file` in it, with the addresses of this world.
    pub(crate) fn start(
        world: &World,
        (name, file): (&str, &str),
        change: impl Fn(String) -> String,
        program: impl FnOnce(&Path, &Path) -> (PathBuf, Vec<std::ffi::OsString>),
    ) -> Proxy {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(example(name)).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let text = std::fs::read_to_string(example(name).join(file)).unwrap();
        let mut text = text;
        for (port, to) in [(8088, address), (9002, world.door()), (9001, world.upstream.address())] {
            text = with_port(text, port, to.port());
        }
        let config = folder.path().join(file);
        std::fs::write(&config, change(text)).unwrap();
        let (program, arguments) = program(&config, folder.path());
        let process = Process::start(program, &arguments);
        let proxy = Proxy { address, _process: process, _folder: folder };
        testkit::wait_for("the proxy listens and lets the token in", LIMIT, || {
            std::net::TcpStream::connect(address).is_ok()
                && proxy.get("/orders/ready", Some(&world.token), &[]).status == 200
        });
        proxy
    }

    pub(crate) fn get(&self, target: &str, token: Option<&str>, more: &[(&str, &str)]) -> Response {
        self.ask("GET", target, token, more)
    }

    pub(crate) fn ask(&self, method: &str, target: &str, token: Option<&str>, more: &[(&str, &str)]) -> Response {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut fields = vec![("host", HOST)];
        fields.extend(bearer.as_deref().map(|value| ("authorization", value)));
        fields.extend_from_slice(more);
        client::request(self.address, method, target, &fields, "")
    }
}

/// `127.0.0.1:8088`, or as Envoy writes it, `port_value: 8088`.
fn with_port(text: String, port: u16, to: u16) -> String {
    let ways = [format!(":{port}"), format!("port_value: {port}")];
    assert!(ways.iter().any(|way| text.contains(way)), "port {port} in {text}");
    text.replace(&ways[0], &format!(":{to}")).replace(&ways[1], &format!("port_value: {to}"))
}

/// Asserts what every proxy must do alike: permit, deny, ask to sign in, ask for more; and the records of it.
pub(crate) fn check_verdicts(world: &World, proxy: &Proxy) {
    let allowed = proxy.get("/orders/42?page=2", Some(&world.token), &[]);
    let record = world.serving.expect(&allowed, 200, "none");
    assert_eq!(record["decision"], "permit");
    assert_eq!(record["request"]["peer"], "authz");
    assert_eq!(record["request"]["proxy"], "127.0.0.1");
    assert_eq!(record["request"]["client_ip"], "127.0.0.1");
    assert_eq!(record["request"]["path"], "/orders/42");
    let seen = world.upstream.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/orders/42?page=2"));
    world.check_stamped(&seen, "id|ana");

    let anyone = proxy.get("/public/page", None, &[]);
    world.serving.expect(&anyone, 200, "none");
    assert!(world.upstream.last().field("txn-token").unwrap_or_default().is_empty(), "nobody is signed in");

    let before = world.upstream.count();
    let bo = world.issuer.token("bo", "acme", &json!({ "groups": ["finance"] }));
    world.serving.expect(&proxy.get("/orders/42", Some(&bo), &[]), 403, "no_rule_matched");
    world.serving.expect(&proxy.get("/admin/users", Some(&world.token), &[]), 403, "never_matched");
    let nobody = proxy.get("/orders/42", None, &[]);
    world.serving.expect(&nobody, 401, "token_missing");
    assert_eq!(challenges(&nobody), ["Bearer realm=\"countersign\""]);
    world.serving.expect(&proxy.get("/orders/42", Some("opaque"), &[]), 401, "token_malformed");

    let step_up = proxy.ask("POST", "/refunds/42", Some(&world.token), &[]);
    let record = world.serving.expect(&step_up, 401, "step_up");
    assert_eq!(record["decision"], "step_up");
    let challenge = challenges(&step_up).concat();
    assert!(challenge.contains("insufficient_user_authentication") && challenge.contains("max_age=300"), "{challenge}");
    assert_eq!(world.upstream.count(), before, "what is refused goes nowhere");
}

fn challenges(response: &Response) -> Vec<&str> {
    let all = response.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
    all.map(|(_, value)| value.as_str()).collect()
}

/// What a client says about itself, about the request, or about its address: none of it wins.
pub(crate) const SPOOFED: [(&str, &str); 19] = [
    ("X-Original-URI", "/public/forged-7"),
    ("X-Original-Method", "FORGED-7"),
    ("X-Original-Host", "forged-7.example"),
    ("X-Original-Scheme", "https"),
    ("X-Original-Address", "192.0.2.66"),
    ("X-Original-URL", "/public/forged-7"),
    ("X-Rewrite-URL", "/public/forged-7"),
    ("X-Forwarded-Uri", "/public/forged-7"),
    ("X-Forwarded-Method", "FORGED-7"),
    ("X-Forwarded-Host", "forged-7.example"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-For", "192.0.2.66"),
    ("X-Forwarded-User", "forged-7"),
    ("Forwarded", "for=192.0.2.66"),
    ("X-Real-IP", "192.0.2.66"),
    ("X-Auth-Request-Email", "forged-7"),
    ("Remote-User", "forged-7"),
    ("X-User", "forged-7"),
    ("X-HTTP-Method-Override", "FORGED-7"),
];

/// Each alone, twice, and all at once: the verdict and what the service sees stay those of the true request.
pub(crate) fn check_spoofs(world: &World, proxy: &Proxy) {
    let check = |fields: &[(&str, &str)]| {
        let answer = proxy.get("/orders/7", Some(&world.token), fields);
        assert_eq!(answer.status, 200, "{fields:?}: {}", answer.text());
        let seen = world.upstream.last();
        assert_eq!(seen.target, "/orders/7", "{fields:?}");
        let head = String::from_utf8_lossy(&seen.head).to_lowercase();
        assert!(!head.contains("forged-7") && !head.contains("192.0.2.66"), "{fields:?}: {head}");
        let record = world.serving.expect(&answer, 200, "none");
        assert_eq!(record["request"]["client_ip"], "127.0.0.1", "{fields:?}");
        assert_eq!(
            (record["request"]["method"].as_str(), record["request"]["host"].as_str()),
            (Some("GET"), Some(HOST))
        );
        let before = world.upstream.count();
        let denied = proxy.get("/admin/users", Some(&world.token), fields);
        world.serving.expect(&denied, 403, "never_matched");
        assert_eq!(proxy.get("/orders/7", None, fields).status, 401, "{fields:?}");
        assert_eq!(world.upstream.count(), before, "{fields:?}");
    };
    for (name, value) in SPOOFED {
        check(&[(name, value)]);
    }
    check(&[SPOOFED[0], SPOOFED[0], SPOOFED[11], SPOOFED[11]]);
    check(&SPOOFED);
}

/// What a client's own copy of our fields leads to: 200 (dropped) or 400 (refused).
pub(crate) fn check_our_fields(world: &World, proxy: &Proxy, expected: u16) {
    let ours = [
        "Txn-Token",
        "tXN-tOKEN",
        "Countersign-User",
        "COUNTERSIGN-GROUPS",
        "Countersign-Anything",
        "Workload-Identity-Token",
    ];
    for name in ours {
        for target in ["/orders/7", "/public/page"] {
            let before = world.upstream.count();
            let answer = proxy.get(target, Some(&world.token), &[(name, FORGED)]);
            if expected == 200 {
                world.serving.expect(&answer, 200, "none");
                world.check_stamped(&world.upstream.last(), "id|ana");
            } else {
                assert_eq!(world.serving.record(&answer)["reason"], "header_forbidden", "{name}");
                assert_eq!((answer.status, world.upstream.count()), (expected, before), "{name}");
            }
        }
    }
    // Names that a service could fold to ours.
    for name in ["Txn_Token", "countersign_user", "X_Original_URI", "X_Auth_User"] {
        let answer = proxy.get("/orders/7", Some(&world.token), &[(name, FORGED)]);
        if answer.status == 200 {
            let head = String::from_utf8_lossy(&world.upstream.last().head).into_owned();
            assert!(!head.contains(FORGED), "{name}: {head}");
        } else {
            assert!(matches!(answer.status, 400 | 403), "{name}: {}", answer.status);
        }
    }
}

/// Paths that programs read in more than one way. Whatever each proxy does with them, the service sees a path that was
/// judged as it stands, and nothing that begins with `/admin` in any reading.
pub(crate) const PATHS: [&str; 30] = [
    "/orders/1",
    "/orders/1?to=/admin/x",
    "/orders/1?..%2f..%2fadmin",
    "/orders/%7Eana",
    "/orders/./2",
    "/orders/x/../3",
    "/orders/%2e/4",
    "/orders//5",
    "//orders/6",
    "/admin",
    "/admin/",
    "/admin/users",
    "/%61dmin/users",
    "/./admin/users",
    "//admin/users",
    "/orders/../admin/users",
    "/orders/%2e%2e/admin/users",
    "/orders/..%2fadmin/users",
    "/orders%2f..%2fadmin",
    "/orders/..%5cadmin",
    "/orders/..;/admin/users",
    "/admin;x=y/users",
    "/orders/1;/admin",
    "/%252e%252e/admin",
    "/orders/%252e%252e/admin",
    "/admin%00/users",
    "/admin%c0%afusers",
    "/admin./users",
    "/public/..%2fadmin",
    "/public/%2e%2e/admin/users",
];

pub(crate) fn check_paths(world: &World, proxy: &Proxy) {
    let mut forwarded = 0;
    for path in PATHS {
        let before = world.upstream.count();
        let answer = proxy.get(path, Some(&world.token), &[]);
        if world.upstream.count() == before {
            assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
            continue;
        }
        forwarded += 1;
        let seen = world.upstream.last();
        let record = world.serving.expect(&answer, 200, "none");
        let sent = seen.target.split('?').next().unwrap();
        assert_eq!(record["request"]["path"].as_str(), Some(sent), "{path}: decided on other bytes than sent");
        assert!(sent.starts_with("/orders/") || sent.starts_with("/public/"), "{path}: {sent}");
        for trick in ["..", "//", "%2e", "%2f", "%5c", "%25", ";", "%00", "\\"] {
            assert!(!sent.to_lowercase().contains(trick), "{path}: {sent}");
        }
        assert_eq!(seen.target.split_once('?').map(|(_, q)| q), path.split_once('?').map(|(_, q)| q), "{path}");
    }
    assert!(forwarded >= 3, "plain paths go through");
    // A fragment is no part of a request.
    for target in ["/admin#/public/x", "/orders/1#/../admin", "/#/../admin"] {
        let before = world.upstream.count();
        let answer = proxy.get(target, Some(&world.token), &[]);
        let reached = world.upstream.count() > before;
        assert!(!reached || (world.upstream.last().target == "/orders/1" && answer.status == 200), "{target}");
    }
}

/// `HEAD` is judged as `GET`, and `OPTIONS` by the rules alone: a preflight is no way in.
pub(crate) fn check_methods(world: &World, proxy: &Proxy) {
    let head = proxy.ask("HEAD", "/orders/9", Some(&world.token), &[]);
    let record = world.serving.expect(&head, 200, "none");
    assert_eq!((record["request"]["method"].as_str(), world.upstream.last().method.as_str()), (Some("HEAD"), "HEAD"));
    assert!(head.body.is_empty());
    let before = world.upstream.count();
    assert_eq!(proxy.ask("HEAD", "/admin/users", Some(&world.token), &[]).status, 403);
    assert_eq!(proxy.ask("HEAD", "/orders/9", None, &[]).status, 401);
    let preflight = [("origin", "https://evil.example"), ("access-control-request-method", "GET")];
    assert_eq!(proxy.ask("OPTIONS", "/orders/9", None, &preflight).status, 401);
    let signed_in = proxy.ask("OPTIONS", "/orders/9", Some(&world.token), &preflight);
    world.serving.expect(&signed_in, 403, "no_rule_matched");
    for method in ["DELETE", "PROPFIND", "get"] {
        let status = proxy.ask(method, "/orders/9", Some(&world.token), &[]).status;
        assert!((400..500).contains(&status), "{method}: {status}");
    }
    assert_eq!(world.upstream.count(), before);
}

/// A token bound to a key: its proof is for the request of the client, not for our own address, and good once.
pub(crate) fn check_dpop(world: &World, proxy: &Proxy) {
    let key = SigningKey::generate(Kind::Es256, "client");
    let bound = json!({ "groups": ["support"], "cnf": { "jkt": dpop::thumbprint(&key) } });
    let token = world.issuer.token("ana", "acme", &bound);
    let host = format!("{HOST}:{}", proxy.address.port());
    let send = |scheme: &str, proof: &str| {
        let authorization = format!("{scheme} {token}");
        let fields = [("host", host.as_str()), ("authorization", authorization.as_str()), ("dpop", proof)];
        client::get(proxy.address, "/orders/3?x=1", &fields)
    };
    let proof = |url: &str| dpop::proof(&key, "GET", url, &token);
    let good = proof(&format!("http://{host}/orders/3"));
    let answer = send("DPoP", &good);
    world.serving.expect(&answer, 200, "none");
    let seen = world.upstream.last();
    world.check_stamped(&seen, "id|ana");
    assert_eq!((seen.target.as_str(), seen.count("dpop")), ("/orders/3?x=1", 0));
    let before = world.upstream.count();
    world.serving.expect(&send("DPoP", &good), 401, "dpop_replayed");
    for url in [
        format!("http://{host}/orders/4"),
        format!("https://{host}/orders/3"),
        format!("http://{}/orders/3", world.door()),
    ] {
        let answer = send("DPoP", &proof(&url));
        world.serving.expect(&answer, 401, "dpop_proof");
        assert!(challenges(&answer).concat().contains("invalid_dpop_proof"), "{url}");
    }
    assert_eq!(send("Bearer", &proof(&format!("http://{host}/orders/3"))).status, 401);
    assert_eq!(world.upstream.count(), before);
}

/// `Connection` has a proxy take fields off on its way: it must not take off what we said, nor what was judged.
pub(crate) fn check_nominations(world: &World, proxy: &Proxy) {
    for name in
        ["Txn-Token", "txn-token, x-forwarded-for", "X-Forwarded-Uri", "X-Original-URI", "Authorization", "Host"]
    {
        let before = world.upstream.count();
        let answer = proxy.get("/orders/7", Some(&world.token), &[("connection", name)]);
        if world.upstream.count() == before {
            assert!(matches!(answer.status, 400 | 401 | 403), "{name}: {}", answer.status);
            continue;
        }
        world.serving.expect(&answer, 200, "none");
        world.check_stamped(&world.upstream.last(), "id|ana");
        let denied = proxy.get("/admin/users", Some(&world.token), &[("connection", name)]);
        assert!(matches!(denied.status, 400 | 403), "{name}: {}", denied.status);
    }
}

/// Bodies of every kind reach the service whole, and none is taken for the next request of anybody.
pub(crate) fn check_bodies(world: &World, proxy: &Proxy) {
    let head = |more: &str| {
        format!("POST /orders/8 HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {}\r\n{more}\r\n", world.token)
    };
    let inner = "GET /admin/users HTTP/1.1\r\nhost: shop.acme.example\r\n\r\n";
    let sized = head(&format!("content-length: {}\r\n", inner.len())) + inner;
    let chunked = head("transfer-encoding: chunked\r\n") + &format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    let mut connection = client::Connection::open(proxy.address);
    for request in [&sized, &chunked, &sized] {
        connection.write(request).unwrap();
        let answer = connection.read().expect("the connection goes on");
        world.serving.expect(&answer, 200, "none");
        let seen = world.upstream.last();
        assert_eq!((seen.method.as_str(), seen.body), ("POST", inner.as_bytes().to_vec()));
        world.check_stamped(&world.upstream.last(), "id|ana");
    }
    assert!(world.upstream.seen().iter().all(|seen| !seen.target.starts_with("/admin")));
}

/// With nobody to ask, nothing passes, whatever it is.
pub(crate) fn check_fails_closed(world: World, proxy: &Proxy) {
    let World { serving, upstream, token, .. } = world;
    drop(serving);
    let before = upstream.count();
    for target in ["/orders/42", "/public/page"] {
        let status = proxy.get(target, Some(&token), &[]).status;
        assert!(status == 403 || status >= 500, "{target}: {status}");
    }
    assert_eq!(upstream.count(), before);
}

/// A field of a JSON record, or the empty text.
pub(crate) fn text<'a>(record: &'a Value, pointer: &str) -> &'a str {
    record.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
