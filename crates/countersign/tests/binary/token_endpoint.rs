//! Workloads that ask for a Txn-Token themselves (RFC 8693), with curl as the client: what they get, and in which answers.
use std::net::SocketAddr;

use crate::keys_of_issuers::Provider;
use crate::serving::{LIMIT, Serving, Setup};
use serde_json::{Value, json};
use testkit::client::{self, Response};
use testkit::issuer::Issuer;
use testkit::tls::{Ca, Identity};
use trust::txn::{PublishedKeys, VerifiedTxn, Verifier};

pub(crate) const GATEWAY: &str = "spiffe://acme.example/gateway/eu-1";
pub(crate) const BATCH: &str = "spiffe://acme.example/shop/batch";

const ORDERS: &str = r#"service: orders
expose: { host: shop.acme.example, path: /** }
rules:
  - { name: support reads orders, who: "group:support", can: [GET /orders/**, GET /here/**], when: "context.time > 0" }
  - { name: the batch writes orders, who: "group:support", from: [/shop/batch], can: POST /orders/** }
  - { name: only through the edge, who: "group:support", from: edge, can: DELETE /orders/** }
  - { name: refunds need a fresh key, who: "group:support", can: POST /refunds/**, fresh: 5m }
  - { name: the bot helps with orders, who: "agent:order-bot", can: GET /orders/** }
  - { name: near ones, who: "group:support", can: GET /near/**, when: 'context.client_ip.isInRange(ip("192.0.2.0/24"))' }
never:
  - { name: no admin, who: signed-in, can: "* /admin/**" }
"#;

/// Our process with a token endpoint, and a CA for whoever asks.
pub(crate) struct World {
    pub(crate) issuer: Issuer,
    pub(crate) ca: Ca,
    pub(crate) serving: Serving,
    pub(crate) door: SocketAddr,
}

impl World {
    pub(crate) fn start() -> World {
        World::start_with("", |_| {})
    }

    /// `more` are further keys of `token_endpoint`.
    pub(crate) fn start_with(more: &str, change: impl FnOnce(&mut Setup)) -> World {
        let issuer = Issuer::start();
        let world = World::without_keys(issuer, more, change);
        let token = world.token(&json!({}));
        testkit::wait_for("keys are there", LIMIT, || world.ask(&token, "GET", "/orders/1").status != 503);
        world
    }

    pub(crate) fn without_keys(issuer: Issuer, more: &str, change: impl FnOnce(&mut Setup)) -> World {
        let ca = Ca::new();
        let mut setup = Setup::new(&issuer.url(), "http://127.0.0.1:1");
        setup.services = vec![("orders".into(), ORDERS.into())];
        setup.extra = format!(
            "token_endpoint:\n  listen: 127.0.0.1:0\n  tls: {{ certificate: token.pem, key: token.key, client_ca: ca.pem }}\n\
             \x20 callers: [/gateway, \"{BATCH}\"]\n{more}"
        );
        for name in ["ca.pem", "server-ca.pem"] {
            setup.files.push((name.into(), ca.certificate_pem.clone().into()));
        }
        let add = |setup: &mut Setup, name: &str, identity: &Identity| {
            setup.files.push((format!("{name}.pem"), identity.certificate_pem.clone().into()));
            setup.files.push((format!("{name}.key"), identity.key_pem.clone().into()));
        };
        add(&mut setup, "token", &ca.svid(&["spiffe://acme.example/edge"], &["localhost"]));
        add(&mut setup, "gateway", &ca.svid(&[GATEWAY], &[]));
        add(&mut setup, "batch", &ca.svid(&[BATCH], &[]));
        change(&mut setup);
        let serving = setup.start();
        let facts = std::fs::read(serving.folder.path().join("state/process.json")).unwrap();
        let facts: Value = serde_json::from_slice(&facts).unwrap();
        let door = facts["token_endpoint"][0].as_str().unwrap().parse().unwrap();
        World { issuer, ca, serving, door }
    }

    /// A certificate that curl can show under this name.
    pub(crate) fn add(&self, name: &str, identity: &Identity) {
        let folder = self.serving.folder.path();
        std::fs::write(folder.join(format!("{name}.pem")), &identity.certificate_pem).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), &identity.key_pem).unwrap();
    }

    /// Of Ana, who is in `support` and may read and write orders.
    pub(crate) fn token(&self, extra: &Value) -> String {
        let claims = testkit::signing::overlay(
            json!({ "groups": ["support"], "scope": "openid orders.read orders.write refunds.write" }),
            extra,
        );
        self.issuer.token("ana", "acme", &claims)
    }

    pub(crate) fn ask(&self, token: &str, method: &str, path: &str) -> Response {
        self.ask_as("gateway", token, method, path)
    }

    pub(crate) fn ask_as(&self, who: &str, token: &str, method: &str, path: &str) -> Response {
        let scope = if method == "GET" { "orders.read" } else { "orders.write" };
        self.send(Some(who), &parameters(token, scope, method, path))
    }

    pub(crate) fn send(&self, who: Option<&str>, parameters: &[(&str, String)]) -> Response {
        let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut arguments = Vec::new();
        pairs.iter().for_each(|pair| arguments.extend(["--data-urlencode", pair.as_str()]));
        self.curl(who, "/token", &arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// `Err` holds what curl says.
    pub(crate) fn curl(&self, who: Option<&str>, target: &str, more: &[&str]) -> Result<Response, String> {
        let path = |name: &str| self.serving.folder.path().join(name).display().to_string();
        let url = format!("https://localhost:{}{target}", self.door.port());
        let (resolve, ca) = (format!("localhost:{}:127.0.0.1", self.door.port()), path("server-ca.pem"));
        let mut arguments = vec!["-sS", "-i", "--http1.1", "-H", "expect:", "--cacert", &ca, "--resolve", &resolve];
        let files = who.map(|name| (path(&format!("{name}.pem")), path(&format!("{name}.key"))));
        if let Some((certificate, key)) = &files {
            arguments.extend(["--cert", certificate, "--key", key]);
        }
        arguments.extend_from_slice(more);
        arguments.push(&url);
        let (status, out, error) = testkit::process::run("curl", &arguments);
        client::parse(out.as_bytes()).ok_or_else(|| format!("{:?} {out}{error}", status.code()))
    }

    /// The token of a good answer, checked as any service would.
    #[track_caller]
    pub(crate) fn granted(&self, answer: &Response) -> VerifiedTxn {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let keys = client::get(self.serving.admin, "/.well-known/countersign/jwks.json", &[]).json();
        let keys: PublishedKeys = serde_json::from_value(keys).unwrap();
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        Verifier::new("acme.example", &keys, |_| true).verify(&token, testkit::unix_now()).unwrap()
    }

    /// Refused: the answer's status and `error`, the reason in the record; and nothing that could be a token in it.
    #[track_caller]
    pub(crate) fn refused(&self, answer: &Response, expected: (u16, &str), reason: &str) -> Value {
        let record = self.serving.expect(answer, expected.0, reason);
        assert_eq!(answer.json()["error"], expected.1, "{record:#}");
        assert!(answer.json().get("access_token").is_none() && record.get("txn").is_none(), "{record:#}");
        check_fields(answer);
        record
    }
}

/// RFC 6749 §5.1, §5.2
#[track_caller]
pub(crate) fn check_fields(answer: &Response) {
    assert_eq!(answer.field("content-type"), Some("application/json"));
    assert_eq!((answer.field("cache-control"), answer.field("pragma")), (Some("no-store"), Some("no-cache")));
}

/// A good request.
pub(crate) fn parameters(token: &str, scope: &str, method: &str, path: &str) -> Vec<(&'static str, String)> {
    vec![
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange".into()),
        ("audience", "acme.example".into()),
        ("scope", scope.into()),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:txn_token".into()),
        ("subject_token", token.into()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token".into()),
        ("request_context", json!({ "req_ip": "192.0.2.77" }).to_string()),
        ("request_details", json!({ "method": method, "path": path, "host": "shop.acme.example" }).to_string()),
    ]
}

#[test]
fn a_workload_gets_the_token_for_the_one_request_it_names() {
    let world = World::start();
    let answer = world.ask(&world.token(&json!({})), "GET", "/orders/42?page=2");
    let txn = world.granted(&answer);
    let claims = Value::Object(txn.claims().clone());
    assert_eq!((txn.subject(), txn.scope()), ("id|ana", "orders.read"));
    assert_eq!((&claims["req_wl"], &claims["iss"]), (&json!(GATEWAY), &json!("spiffe://acme.example/edge")));
    assert_eq!(claims["aud"], "acme.example");
    assert_eq!(claims["rctx"]["req_ip"], "192.0.2.0/24");
    assert_eq!(claims["tctx"], json!({ "rt": "orders:GET /orders/**", "p": { "1": "42" }, "g": ["support"] }));

    let body = answer.json();
    let members: std::collections::BTreeSet<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        Vec::from_iter(members),
        ["access_token", "expires_in", "issued_token_type", "token_type"],
        "never a refresh token"
    );
    assert_eq!(
        (&body["token_type"], &body["issued_token_type"]),
        (&json!("N_A"), &json!("urn:ietf:params:oauth:token-type:txn_token"))
    );
    assert_eq!(body["expires_in"], txn.expires_at() - txn.issued_at());
    check_fields(&answer);

    let record = world.serving.expect(&answer, 200, "none");
    assert_eq!(record["decision"], "permit", "{record:#}");
    let request = &record["request"];
    assert_eq!((&request["peer"], &request["proxy"]), (&json!(GATEWAY), &json!("127.0.0.1")), "{record:#}");
    assert_eq!((&request["method"], &request["path"]), (&json!("GET"), &json!("/orders/42")));
    assert_eq!((&request["host"], &request["client_ip"]), (&json!("shop.acme.example"), &json!("192.0.2.77")));
    assert_eq!((&record["txn"], &record["principal"]["subject"]), (&json!(txn.txn()), &json!("id|ana")));
}

#[test]
fn every_exchange_is_a_transaction_of_its_own_also_over_http_2() {
    let world = World::start();
    let token = world.token(&json!({}));
    let first = world.granted(&world.ask(&token, "GET", "/orders/1"));
    let second = world.granted(&world.ask(&token, "GET", "/orders/1"));
    assert_ne!(first.txn(), second.txn());
    let form: Vec<String> = parameters(&token, "orders.read", "GET", "/orders/1")
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut more = vec!["--http2", "-o", "/dev/null", "-w", "HTTP/1.1 %{http_code} %{http_version}\r\n\r\n"];
    form.iter().for_each(|pair| more.extend(["--data-urlencode", pair.as_str()]));
    let shown = world.curl(Some("gateway"), "/token", &more).unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.head).trim(), "HTTP/1.1 200 2");
}

#[test]
fn the_workload_is_the_peer_that_the_rules_see() {
    let world = World::start();
    let token = world.token(&json!({}));
    world.granted(&world.ask_as("batch", &token, "POST", "/orders/1"));
    let answer = world.ask_as("gateway", &token, "POST", "/orders/1");
    let record = world.refused(&answer, (400, "access_denied"), "no_rule_matched");
    assert_eq!(record["decision"], "deny", "{record:#}");
    assert_eq!(answer.field("countersign-status"), Some("403"));
    // Nobody becomes the edge by asking here.
    for who in ["gateway", "batch"] {
        world.refused(&world.ask_as(who, &token, "DELETE", "/orders/1"), (400, "access_denied"), "no_rule_matched");
    }
    let (code, why) = world.serving.command(&["why", answer.field("countersign-decision").unwrap()]);
    assert!(code == 0 && why.contains("the batch writes orders"), "{why}");
}

#[test]
fn what_the_rules_refuse_gets_no_token_and_the_caller_is_told_what_to_say() {
    let world = World::start();
    let token = world.token(&json!({}));
    world.refused(&world.ask(&token, "GET", "/admin/users"), (400, "access_denied"), "never_matched");
    let finance = world.token(&json!({ "groups": ["finance"] }));
    world.refused(&world.ask(&finance, "GET", "/orders/1"), (400, "access_denied"), "no_rule_matched");
    world.refused(&world.ask(&token, "GET", "/else/1"), (400, "access_denied"), "no_rule_matched");
    let step_up = world.send(Some("gateway"), &parameters(&token, "orders.write", "POST", "/refunds/1"));
    let record = world.refused(&step_up, (400, "insufficient_user_authentication"), "step_up");
    assert_eq!(record["decision"], "step_up");
    let challenge = step_up.json()["www_authenticate"][0].as_str().unwrap().to_owned();
    assert!(
        challenge.starts_with("Bearer realm=\"countersign\", error=\"insufficient_user_authentication\""),
        "{challenge}"
    );
    assert!(challenge.contains("acr_values=\"phr\"") && challenge.contains("max_age=300"), "{challenge}");
    assert_eq!(step_up.field("countersign-status"), Some("401"));
    let mut elsewhere = parameters(&token, "orders.read", "GET", "/orders/1");
    elsewhere[7].1 = json!({ "method": "GET", "path": "/orders/1", "host": "other.example" }).to_string();
    let answer = world.send(Some("gateway"), &elsewhere);
    world.refused(&answer, (400, "invalid_target"), "no_route");
    assert_eq!(answer.field("countersign-status"), Some("404"));
}

#[test]
fn a_rule_about_the_clients_address_holds_only_for_one_that_is_told() {
    let world = World::start();
    let mut asked = parameters(&world.token(&json!({})), "orders.read", "GET", "/near/1");
    world.granted(&world.send(Some("gateway"), &asked));
    asked[6].1 = json!({ "req_ip": "198.51.100.1" }).to_string();
    world.refused(&world.send(Some("gateway"), &asked), (400, "access_denied"), "no_rule_matched");
    asked.remove(6);
    world.refused(&world.send(Some("gateway"), &asked), (400, "access_denied"), "policy_error");
    asked[6].1 = json!({ "method": "GET", "path": "/orders/1", "host": "shop.acme.example" }).to_string();
    let txn = world.granted(&world.send(Some("gateway"), &asked));
    assert!(
        txn.claims().get("rctx").is_none_or(|rctx| rctx.get("req_ip").is_none()),
        "what nobody said is not in the token"
    );
}

#[test]
fn scopes_of_an_issuer_cover_what_the_platform_says_and_no_more() {
    let world = World::start_with("  scopes: { access_as_user: [orders.read] }\n", |_| {});
    let token = world.token(&json!({ "scope": "access_as_user" }));
    assert_eq!(world.granted(&world.ask(&token, "GET", "/orders/1")).scope(), "orders.read");
    world.refused(&world.ask_as("batch", &token, "POST", "/orders/1"), (400, "invalid_scope"), "scope_refused");
}

#[test]
fn a_token_of_a_real_provider_is_exchanged() {
    let provider = Provider::start(0);
    let issuers =
        format!("  id: {{ issuer: \"{}\", audience: [\"urn:acme\"], claims: {{ groups: groups }} }}\n", provider.url);
    let world = World::without_keys(Issuer::start(), "", |setup| setup.issuers = issuers);
    let token = provider.token_for("support", "urn:acme");
    let answer = testkit::wait_value("keys are there", LIMIT, || {
        Some(world.ask(&token, "GET", "/orders/1")).filter(|answer| answer.status != 503)
    });
    assert_eq!(world.granted(&answer).subject(), "id|support");
    // What the provider grants is the end of it: it gave no `orders.write`.
    world.refused(&world.ask_as("batch", &token, "POST", "/orders/1"), (400, "invalid_scope"), "scope_refused");
}

#[test]
fn an_agent_is_in_the_token_and_only_where_the_rules_permit_it_too() {
    let world = World::start();
    let with_agent = |name: &str| world.token(&json!({ "act": { "sub": name } }));
    let txn = world.granted(&world.ask(&with_agent("order-bot"), "GET", "/orders/1"));
    assert_eq!((txn.subject(), txn.actor()), ("id|ana", Some("order-bot")));
    world.refused(
        &world.ask(&with_agent("other-bot"), "GET", "/orders/1"),
        (400, "access_denied"),
        "agent_not_permitted",
    );
    let none = world.token(&json!({ "act": { "sub": "order-bot" }, "groups": [] }));
    world.refused(&world.ask(&none, "GET", "/orders/1"), (400, "access_denied"), "no_rule_matched");
}

#[test]
fn an_opaque_token_is_exchanged_for_what_its_issuer_says_of_it() {
    let world = World::start_with("", |setup| {
        let more = ", introspection: { client_id: us, client_secret_file: secret } }\n";
        setup.issuers = setup.issuers.replace(" }\n", more);
        setup.files.push(("secret".into(), b"s3cret\n".to_vec()));
    });
    let says = |changes: Value| {
        let base = json!({
            "active": true, "token_type": "Bearer", "sub": "ana", "client_id": "web", "aud": "acme", "groups": ["support"],
            "scope": "orders.read", "exp": 4_000_000_000_i64
        });
        world.issuer.introspect_as(testkit::signing::overlay(base, &changes));
    };
    says(json!({}));
    assert_eq!(world.granted(&world.ask("opaque-1", "GET", "/orders/1")).subject(), "id|ana");
    says(json!({ "active": false }));
    world.refused(&world.ask("opaque-2", "GET", "/orders/1"), (400, "invalid_request"), "token_inactive");
    says(json!({ "scope": "orders.write" }));
    world.refused(&world.ask("opaque-3", "GET", "/orders/1"), (400, "invalid_scope"), "scope_refused");
    world.issuer.misbehave_in_introspection(testkit::issuer::Fault::Status(500));
    let answer = world.ask("opaque-4", "GET", "/orders/1");
    world.refused(&answer, (503, "temporarily_unavailable"), "introspection_unavailable");
}

#[test]
fn api_39_a_key_that_was_rotated_in_costs_no_exchange() {
    let world = World::start();
    world.granted(&world.ask(&world.token(&json!({})), "GET", "/orders/1"));
    world.issuer.rotate(testkit::issuer::OldKeys::Drop);
    world.granted(&world.ask(&world.token(&json!({})), "GET", "/orders/1"));
}

/// The command that readers copy is the one that runs here, but for the place of the endpoint.
#[test]
fn the_command_of_the_documentation_gets_a_token() {
    let world = World::start();
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/token-endpoint.md");
    let page = std::fs::read_to_string(page).unwrap();
    let command = page.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let at = format!("localhost:{} --resolve localhost:{}:127.0.0.1", world.door.port(), world.door.port());
    let command =
        crate::authz::replaced(command.to_owned(), "tokens.acme.example:9003/token", &at.replacen(' ', "/token ", 1));
    let folder = world.serving.folder.path();
    std::fs::copy(folder.join("server-ca.pem"), folder.join("token-ca.pem")).unwrap();
    std::fs::write(folder.join("access-token.txt"), world.token(&json!({}))).unwrap();
    let mut shell = std::process::Command::new("sh");
    shell.current_dir(folder).args(["-c", &command]);
    let mut shell = testkit::process::Process::start_command(shell);
    let status = shell.wait(LIMIT);
    let answer = client::parse(format!("HTTP/1.1 200 OK\r\n\r\n{}", shell.stdout()).as_bytes()).unwrap();
    assert!(status.success(), "{}", shell.stderr());
    assert_eq!(world.granted(&answer).scope(), "orders.read");
}

/// The example for services in Node, with `jose`.
#[test]
fn a_stock_library_accepts_the_token_as_any_other() {
    let world = World::start();
    let answer = world.ask(&world.token(&json!({})), "GET", "/orders/1");
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let modules = root.join("tests/peers/node_modules");
    assert!(modules.is_dir(), "run `npm ci` in tests/peers, or `cargo xtask peers`");
    // Node looks for modules beside the script.
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(root.join("examples/verify-txn-token/node/verify.mjs"), folder.path().join("verify.mjs")).unwrap();
    std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).unwrap();
    let url = format!("http://{}/.well-known/countersign/jwks.json", world.serving.admin);
    let script = folder.path().join("verify.mjs").display().to_string();
    let verify = |trust_domain: &str| {
        let mut node = testkit::process::Process::start("node", &[script.as_str(), &url, trust_domain]);
        node.write_line(&token);
        node.close_stdin();
        (node.wait(LIMIT).success(), node.stdout())
    };
    let (accepted, claims) = verify("acme.example");
    assert!(accepted && claims.contains(GATEWAY), "{claims}");
    assert!(!verify("other.example").0, "for another trust domain");
}

#[test]
fn new_authorities_count_for_new_connections_without_a_restart() {
    let world = World::start();
    let token = world.token(&json!({}));
    let new = Ca::new();
    world.add("new", &new.svid(&[GATEWAY], &[]));
    let folder = world.serving.folder.path();
    let asked = |who: &str| {
        let pairs: Vec<String> = parameters(&token, "orders.read", "GET", "/orders/1")
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut more = Vec::new();
        pairs.iter().for_each(|pair| more.extend(["--data-urlencode", pair.as_str()]));
        world.curl(Some(who), "/token", &more).ok().map(|answer| answer.status)
    };
    assert_eq!((asked("gateway"), asked("new")), (Some(200), None));
    let both = format!("{}{}", new.certificate_pem, world.ca.certificate_pem);
    std::fs::write(folder.join("ca.pem"), both).unwrap();
    testkit::wait_for("both are let in", LIMIT, || (asked("gateway"), asked("new")) == (Some(200), Some(200)));
}
