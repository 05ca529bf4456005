//! Questions as a misconfigured proxy, or somebody who is none, would ask them, over the raw socket. Traefik cannot be
//! installed here: its way of asking is simulated from its documentation.
use crate::authz::{World, replaced};
use crate::serving::Setup;
use serde_json::json;
use testkit::client::{self, Response};
use testkit::issuer::Issuer;
use testkit::upstream::Upstream;

type Fields<'a> = Vec<(&'a str, &'a str)>;

const NGINX: [(&str, &str); 5] = [
    ("X-Original-Method", "GET"),
    ("X-Original-URI", "/orders/42"),
    ("X-Original-Host", "shop.acme.example"),
    ("X-Original-Scheme", "http"),
    ("X-Original-Address", "192.0.2.9"),
];
const FORWARDED: [(&str, &str); 5] = [
    ("X-Forwarded-Method", "GET"),
    ("X-Forwarded-Uri", "/orders/42"),
    ("X-Forwarded-Host", "shop.acme.example"),
    ("X-Forwarded-Proto", "http"),
    ("X-Forwarded-For", "192.0.2.9"),
];

fn world(from: &str) -> World {
    let world = World::of_example("nginx", |text| replaced(text, "from: nginx", &format!("from: {from}")));
    let five = if from == "nginx" { NGINX } else { FORWARDED };
    testkit::wait_for("the token is accepted", crate::serving::LIMIT, || ask(&world, &five).status == 200);
    world
}

fn ask(world: &World, fields: &[(&str, &str)]) -> Response {
    ask_at(world, "GET", "/_countersign", fields)
}

fn ask_at(world: &World, method: &str, target: &str, fields: &[(&str, &str)]) -> Response {
    let bearer = format!("Bearer {}", world.token);
    let mut all: Fields<'_> = vec![("authorization", bearer.as_str())];
    all.extend_from_slice(fields);
    client::request(world.door(), method, target, &all, "")
}

fn without<'a>(fields: &[(&'a str, &'a str)], name: &str) -> Fields<'a> {
    fields.iter().filter(|(field, _)| *field != name).copied().collect()
}

fn with<'a>(fields: &[(&'a str, &'a str)], name: &'a str, value: &'a str) -> Fields<'a> {
    fields.iter().map(|(field, old)| (*field, if *field == name { value } else { *old })).collect()
}

fn check_refused(world: &World, fields: &[(&str, &str)], statuses: (u16, u16), reason: &str) {
    let answer = ask(world, fields);
    let record = world.serving.expect(&answer, statuses.0, reason);
    assert_eq!(record["decision"], "refuse", "{fields:?}");
    assert_eq!(answer.field("countersign-status"), Some(statuses.1.to_string().as_str()), "{fields:?}");
    assert!(answer.field("txn-token").is_none(), "{fields:?}");
}

/// Every fact: missing, empty, doubled, doubled in another spelling, joined.
fn check_each_fact(world: &World, five: &[(&str, &str)], status: u16) {
    for (name, value) in five {
        check_refused(world, &without(five, name), (status, 500), "proxy_field_missing");
        check_refused(world, &with(five, name, ""), (status, 500), "proxy_field_missing");
        for (second, said) in [(*name, *value), (*name, "/public/page"), (&name.to_lowercase(), value)] {
            for first in [true, false] {
                let mut doubled = five.to_vec();
                let at = if first { 0 } else { doubled.len() };
                doubled.insert(at, (second, said));
                check_refused(world, &doubled, (status, 500), "proxy_field_multiple");
            }
        }
        let joined = format!("{value}, {value}");
        let answer = ask(world, &with(five, name, &joined));
        let record = world.serving.record(&answer);
        let host = name.ends_with("Host");
        assert_eq!(record["reason"], if host { "request_malformed" } else { "proxy_field_multiple" }, "{name}");
        assert!(answer.field("txn-token").is_none());
    }
    world.serving.wait_log("asks in a way that cannot be judged");
}

#[test]
fn a7_a_missing_or_doubled_fact_is_refused_as_nginx_can_take_it() {
    let world = world("nginx");
    check_each_fact(&world, &NGINX, 403);
    world.serving.wait_log("proxy_set_header X-Original-Method $request_method");
}

#[test]
fn a7_a_missing_or_doubled_fact_is_refused_to_traefik_simulated_from_its_documentation() {
    let world = world("traefik");
    check_each_fact(&world, &FORWARDED, 500);
    world.serving.wait_log("trustForwardHeader");
    // With `trustForwardHeader` Traefik would add to the client's list.
    check_refused(
        &world,
        &with(&FORWARDED, "X-Forwarded-For", "192.0.2.66, 192.0.2.9"),
        (500, 500),
        "proxy_field_multiple",
    );
}

#[test]
fn a7_a_fact_is_read_from_its_own_field_only() {
    let world = world("nginx");
    // Whatever else stands beside: the client's own copies under other proxies' names.
    let mut more: Fields<'_> = NGINX.to_vec();
    more.extend(with(&FORWARDED, "X-Forwarded-Uri", "/public/page"));
    more.extend([
        ("X-Original-URL", "/public/page"),
        ("X-Rewrite-URL", "/public/page"),
        ("Forwarded", "for=192.0.2.66"),
    ]);
    let record = world.serving.expect(&ask(&world, &more), 200, "none");
    assert_eq!(record["request"]["path"], "/orders/42");
    assert_eq!(record["request"]["client_ip"], "192.0.2.9");
    let denied = with(&more, "X-Original-URI", "/admin/users");
    world.serving.expect(&ask(&world, &denied), 403, "never_matched");
    // Nor from the question's own line and host.
    for target in ["/public/page", "/orders/1", "/.well-known/countersign/jwks.json", "/?X-Original-URI=/public/page"] {
        let record = world.serving.expect(&ask_at(&world, "POST", target, &NGINX), 200, "none");
        assert_eq!(
            (record["request"]["path"].as_str(), record["request"]["method"].as_str()),
            (Some("/orders/42"), Some("GET"))
        );
        let nowhere = ask_at(&world, "GET", target, &[]);
        world.serving.expect(&nowhere, 403, "proxy_field_missing");
    }
    // Spellings that fold to a fact's name are refused, as everywhere.
    let mut folded = NGINX.to_vec();
    folded.push(("X_Original_URI", "/public/page"));
    world.serving.expect(&ask(&world, &folded), 403, "header_forbidden");
    world.serving.expect(
        &ask(&world, &[&without(&NGINX, "X-Original-URI")[..], &[("X_Original_URI", "/public/page")]].concat()),
        403,
        "proxy_field_missing",
    );
}

#[test]
fn a7_what_a_proxy_says_must_be_a_request_in_its_normal_form() {
    let world = world("traefik");
    let check = |name: &str, value: &str, status: u16, reason: &str| {
        let answer = ask(&world, &with(&FORWARDED, name, value));
        world.serving.expect(&answer, status, reason);
    };
    for target in ["orders/42", "http://shop.acme.example/orders/42", "*", "/orders/42#x", "/orders/\"", "/a{b}", "?x"]
    {
        check("X-Forwarded-Uri", target, 400, "request_malformed");
    }
    for target in [
        "/orders/%7Eana",
        "/orders/./42",
        "/orders/x/../42",
        "//orders/42",
        "/orders//42",
        "/orders/%2e%2e/admin",
        "/%61dmin",
        "/orders/..%2fadmin",
        "/orders/..;/admin",
        "/orders/%c0%af",
        "/orders/a%2fb",
        "/orders/42%2f",
    ] {
        check("X-Forwarded-Uri", target, 400, "path_refused");
    }
    check("X-Forwarded-Uri", "/nowhere/42", 403, "no_rule_matched");
    for method in ["get", "CONNECT", "TRACE", "G T"] {
        check("X-Forwarded-Method", method, 400, "request_malformed");
    }
    for host in ["shop.acme.example:x", "a b", "shop.acme.example/x", "user@shop.acme.example"] {
        check("X-Forwarded-Host", host, 400, "request_malformed");
    }
    check("X-Forwarded-Host", "SHOP.acme.example.:8443", 200, "none");
    for address in ["192.0.2.9:4711", "unknown", "unix:", "_hidden"] {
        check("X-Forwarded-For", address, 500, "proxy_field_malformed");
    }
    check("X-Forwarded-For", "2001:db8::7", 200, "none");
    for scheme in ["HTTPS", "wss", "ftp"] {
        check("X-Forwarded-Proto", scheme, 500, "proxy_field_malformed");
    }
}

#[test]
fn a7_a_refusal_is_never_a_200_in_another_language() {
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    for (from, five, status) in [("nginx", NGINX, 403), ("traefik", FORWARDED, 403)] {
        let world = world(from);
        let method = if from == "nginx" { "X-Original-Method" } else { "X-Forwarded-Method" };
        let denied = [&with(&five, method, "POST")[..], &grpc].concat();
        for own in ["GET", "POST", "HEAD"] {
            let denied =
                with(&denied, if from == "nginx" { "X-Original-URI" } else { "X-Forwarded-Uri" }, "/admin/users");
            let answer = ask_at(&world, own, "/envoy.service.auth.v3.Authorization/Check", &denied);
            world.serving.expect(&answer, status, "never_matched");
            assert!(answer.field("grpc-status").is_none() && answer.field("txn-token").is_none(), "{own}");
        }
    }
}

#[test]
fn a7_an_envoy_that_fails_open_over_http_never_hears_a_server_error() {
    let world = World::of_example("nginx", |text| replaced(text, "from: nginx", "from: envoy-http"));
    let own = [("host", "shop.acme.example"), ("x-forwarded-proto", "http"), ("x-countersign-client", "192.0.2.9")];
    testkit::wait_for("the token is accepted", crate::serving::LIMIT, || {
        ask_at(&world, "GET", "/orders/42", &own).status == 200
    });
    for name in ["x-forwarded-proto", "x-countersign-client"] {
        let answer = ask_at(&world, "GET", "/orders/42", &without(&own, name));
        world.serving.expect(&answer, 403, "proxy_field_missing");
        assert_eq!(answer.field("countersign-status"), Some("500"));
    }
    // The request line and Host are the question's.
    world.serving.expect(&ask_at(&world, "DELETE", "/orders/42", &own), 403, "no_rule_matched");
    world.serving.expect(&ask_at(&world, "GET", "/admin/users", &own), 403, "never_matched");
    let spoofed = [&own[..], &[("x-original-uri", "/orders/42"), ("x-forwarded-uri", "/orders/42")]].concat();
    world.serving.expect(&ask_at(&world, "GET", "/admin/users", &spoofed), 403, "never_matched");
}

/// Asks over TLS, with a client certificate if there is one; status and output.
fn ask_over_tls(folder: &std::path::Path, authz: &str, token: &str, certificate: Option<&str>) -> (bool, String) {
    let path = |name: &str| folder.join(name).display().to_string();
    let port = authz.rsplit(':').next().unwrap();
    let (url, ca) = (format!("https://localhost:{port}/_countersign"), path("ca.pem"));
    let (resolve, bearer) = (format!("localhost:{port}:127.0.0.1"), format!("authorization: Bearer {token}"));
    let mut arguments = vec!["-sS", "-i", "--cacert", &ca, "--resolve", &resolve, "-H", &bearer];
    let fields = NGINX.map(|(name, value)| format!("{name}: {value}"));
    fields.iter().for_each(|field| arguments.extend(["-H", field]));
    let files = certificate.map(|name| (path(&format!("{name}.pem")), path(&format!("{name}.key"))));
    if let Some((certificate, key)) = &files {
        arguments.extend(["--cert", certificate, "--key", key]);
    }
    arguments.push(&url);
    let (status, out, _) = testkit::process::run("curl", &arguments);
    (status.success(), out)
}

#[test]
fn a7_with_a_client_ca_only_proxies_with_a_certificate_of_it_may_ask_beside_a_running_edge() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let (ca, foreign) = (testkit::tls::Ca::new(), testkit::tls::Ca::new());
    let mut setup = Setup::new(&issuer.url(), &upstream.url());
    setup.extra = "authz:\n  listen: 127.0.0.1:0\n  from: nginx\n  tls: { certificate: door.pem, key: door.key, \
                   client_certificates: require, client_ca: ca.pem }\n"
        .into();
    setup.files.push(("ca.pem".into(), ca.certificate_pem.clone().into()));
    let identities =
        [("door", ca.server(&["localhost"])), ("proxy", ca.server(&["proxy"])), ("other", foreign.server(&["proxy"]))];
    for (name, identity) in identities {
        setup.files.push((format!("{name}.pem"), identity.certificate_pem.into()));
        setup.files.push((format!("{name}.key"), identity.key_pem.into()));
    }
    let mut serving = setup.start();
    let facts = std::fs::read(serving.folder.path().join("state/process.json")).unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap();
    let authz = facts["authz"][0].as_str().unwrap().to_owned();
    let token = issuer.token("ana", "acme", &json!({ "groups": ["support"] }));
    serving.wait_ready_for("/orders/1", &token);
    let ask = |certificate| ask_over_tls(serving.folder.path(), &authz, &token, certificate);
    let (_, good) = ask(Some("proxy"));
    assert!(good.contains(" 200") && good.to_lowercase().contains("txn-token: ey"), "{good}");
    for certificate in [None, Some("other")] {
        let (success, out) = ask(certificate);
        assert!(!success && !out.contains("200"), "{certificate:?}: {out}");
    }
    serving.process.signal("TERM");
    assert!(serving.process.wait(crate::serving::LIMIT).success(), "both doors drain");
}

#[test]
fn a7_only_the_proxies_that_are_listed_may_ask() {
    let world =
        World::of_example("nginx", |text| replaced(text, "from: nginx", "from: nginx\n  callers: [10.0.0.0/8]"));
    for _ in 0..3 {
        let answer = ask(&world, &NGINX);
        assert_eq!((answer.status, answer.field("txn-token")), (403, None));
        assert_eq!(answer.json()["title"], "Not a known proxy");
    }
    world.serving.wait_log("authz.callers");
    let counted = world.serving.metrics();
    assert!(counted.contains("countersign_refusals_total{kind=\"authz_caller\"} 3"), "{counted}");
    let records = std::fs::read_to_string(world.serving.audit_file()).unwrap_or_default();
    assert!(!records.contains("\"decision\""), "strangers fill no disk: {records}");
}
